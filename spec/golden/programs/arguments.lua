-- Functions in tables of functions, functions that functions make, and states took what they should refuse: an error of
-- Lua's from a line of the library.
local nn, optim, data = marea.nn, marea.optim, marea.data
local opt, set = optim.Adam{nn.Linear{2, 1}}, data.Dataset{marea.ones(3)}
tools.try(function() nn.init.fans{{1}, 3, 16, 32} end)
tools.try(function() nn.init.fans() end)
tools.try(function() nn.init.glorot_normal({2, 3}, {}) end)
tools.try(function() nn.init.orthogonal "3" end)
tools.try(function() optim.schedule.step(0.1, 10)(print) end)
tools.try(function() optim.schedule.warmup(100, optim.schedule.cosine(1e-3, 1000)){} end)
tools.try(function() opt:load_state(opt) end)
tools.try(function() opt:load_state{[opt] = 1} end)
tools.try(function() set:load_state() end)
tools.try(function() set:load_state{epoch = "1", examples = 0} end)
return tools.values{}
