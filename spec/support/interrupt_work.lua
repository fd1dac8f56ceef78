-- SPDX-License-Identifier: MIT
-- What spec/c/interrupts.c interrupts: work(kind) goes on until a signal ends it; train() makes STEPS updates, however
-- often it is ended and called again, says what came out of them, to the bit, and waits for another signal.
local marea = require "marea"
local nn, optim, data = marea.nn, marea.optim, marea.data
local folder = os.getenv "INTERRUPT_FOLDER" or "/tmp"

io.stdout:setvbuf "no"

local STEPS = 200
local jobs = {}
local a = marea.normal{1024, 1024}
local images = marea.normal{128, 28, 28, 32}
local kernel = (0.1 * marea.normal{3, 3, 32, 32}):detach():requires_grad_(true)
local state = {a = marea.normal{2048, 2048}, b = marea.normal{2048, 512}}
local old, new = folder .. "/old.safetensors", folder .. "/new.safetensors"
assert(marea.save(old, state))
assert(marea.save(new, state))

function jobs.matmul() return a:matmul(a) end
function jobs.conv() return marea.no_grad(marea.conv2d, images, kernel, {padding = "same"}) end
function jobs.backward() marea.grad(marea.conv2d(images, kernel, {padding = "same"}):sum(), kernel) end

-- ---- sequences: each of these takes some tenths of a second or more ----

local lstm = nn.LSTM{256, 256, layers = 2, bidirectional = true}
local frames = marea.normal{64, 128, 256}
local heads = marea.normal{1, 4096, 2, 64}:requires_grad_()
local words, hidden = marea.randint({2048}, 1, 20000), marea.normal{2048, 128}:requires_grad_()
local table_of_words = (0.1 * marea.normal{128, 20000}):detach():requires_grad_()
local spoken, said = marea.normal{64, 400, 30}:requires_grad_(), marea.randint({64, 100}, 2, 30)
local steps, letters = marea.full({64}, 400, "i64"), marea.full({64}, 100, "i64")
local likely = marea.normal{1000} -- and the end, number 2, is not
likely[2] = -20
local corpus
do
  local text = {}
  for i, k in ipairs(marea.randint({20000}, 97, 110):totable()) do text[i] = string.char(k) end
  corpus = table.concat(text):gsub("n", " ")
end

function jobs.recurrent() marea.grad(lstm(frames):square():mean(), lstm:parameters()) end
function jobs.attention()
  marea.grad(marea.scaled_dot_product_attention(heads, heads, heads):sum(), heads)
end
function jobs.vocabulary() marea.grad(hidden:linear_cross_entropy(table_of_words, words), {hidden, table_of_words}) end
function jobs.ctc() marea.grad(marea.ctc_loss(spoken:log_softmax(3), said, steps, letters):sum(), spoken) end
function jobs.pairs() marea.text.BytePair{{corpus}, size = 2000} end
function jobs.decode()
  local function step(numbers) return likely:expand(#numbers, 1000) end
  marea.decode.beam(step, marea.full({8}, 1, "i64"), nil, {width = 4, stop = 2, length = 1000})
end
function jobs.load() assert(marea.load(old)) end
function jobs.save() assert(marea.save(new, state)) end
function jobs.loop() for i = 1, 1e6 do jobs.last = i end end

-- ---- scripts that hold every error ----

local function spin() while true do end end
local closing = setmetatable({}, {__close = spin})
local layer = nn.Linear{64, 64}
local adam = optim.Adam{layer}
local rows = data.Dataset{marea.normal{256, 64}}

function jobs.pcall() while true do pcall(pcall, spin) end end
function jobs.step()
  local x = marea.normal{256, 64}
  while true do pcall(adam.step, adam, function() return layer(x):square():mean() end) end
end
function jobs.batches()
  while true do
    pcall(function()
      for x in rows:batches(64, {shuffle = true}) do adam:step(layer(x):square():mean()) end
    end)
  end
end
function jobs.xpcall() while true do xpcall(spin, spin) end end
function jobs.error() while true do xpcall(error, spin) end end
function jobs.wrap() while true do pcall(coroutine.wrap(function() while true do pcall(spin) end end)) end end
function jobs.resume()
  while true do
    local co = coroutine.create(function() while true do pcall(coroutine.yield) end end)
    while coroutine.resume(co) do pcall(marea.matmul, a, a) end
  end
end
function jobs.coclose()
  while true do
    local co = coroutine.create(function()
      local _ <close> = closing
      coroutine.yield()
    end)
    coroutine.resume(co)
    pcall(coroutine.close, co)
  end
end
function jobs.close()
  while true do
    pcall(function()
      local _ <close> = closing
      error "left"
    end)
  end
end
function jobs.scope() while true do pcall(marea.scope, pcall, spin) pcall(marea.no_grad, jobs.matmul) end end
function jobs.gc()
  while true do
    setmetatable({}, {__gc = function() pcall(jobs.matmul) end})
    pcall(collectgarbage)
  end
end
jobs["until"] = function() repeat until pcall(spin) end
function jobs.sort() while true do pcall(table.sort, {3, 1, 2, 4}, function() return pcall(spin) end) end end
function jobs.nested()
  local function deeper(n)
    if n > 0 then pcall(deeper, n - 1) end
    return deeper(n)
  end
  deeper(60)
end

--- Repeats one job for good.
function work(kind) -- luacheck: ignore 111
  local job = jobs[kind]
  print "begin"
  while true do marea.scope(job) end
end

--- The file that is being replaced all the time is whole.
function check_saved() -- luacheck: ignore 111
  local tensors, problem = marea.load(new)
  print("whole", tensors and (tensors.a - state.a):abs():sum():item() == 0 or problem)
end

-- ---- training ----

local net, optimizer, set

--- Everything that a step changes is in there: dropout, running statistics, moments, a schedule, clipping, shuffles.
function restart() -- luacheck: ignore 111
  marea.seed(5)
  net = nn.Sequential{
    nn.Conv2d{1, 8, kernel = 3, padding = "same"}, nn.BatchNorm{8, activation = "relu"}, nn.Dropout{0.3}, nn.Flatten{},
    nn.Linear{8 * 144, 64, activation = "relu"}, nn.BatchNorm{64}, nn.Linear{64, 10},
  }
  optimizer = optim.Adam{net, lr = optim.schedule.exponential(1e-3, 0.9), clip_norm = 1}
  set = data.Dataset{marea.normal{320, 12, 12, 1}, marea.randint({320}, 1, 10)}
  marea.seed(6)
end

--- All bits of the tensors under their names.
local function hash_of(tensors)
  local hash, names = 0, {}
  for name in pairs(tensors) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    for _, x in ipairs(tensors[name]:cast("f64"):flatten():totable()) do
      hash = (hash ~ string.unpack("<i8", string.pack("<d", x))) * 0x9E3779B97F4A7C15
      hash = hash ~ hash >> 29
    end
  end
  return hash
end

local function one_pass()
  for x, y in set:batches(32, {shuffle = true}) do
    if optimizer.steps % 2 == 0 then optimizer:step(net(x):cross_entropy(y))
    else optimizer:step(function() return net(x + 0.1 * marea.normal(x.shape)):cross_entropy(y) end) end
    if optimizer.steps >= STEPS then return end
  end
end

--- Goes on from where it is.
function train() -- luacheck: ignore 111
  print "begin"
  set:load_state(set:state())
  while optimizer.steps < STEPS do one_pass() end
  print(("done %x %x %d %d"):format(hash_of(net:state()), hash_of(optimizer:state()), marea.random_state()))
  while true do jobs.loop() end
end
restart() -- luacheck: ignore 113
