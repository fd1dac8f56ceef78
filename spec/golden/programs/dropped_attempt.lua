-- A step in a coroutine that ended by an error and was dropped: it counted as under way from then on, and what layers
-- noted for it was never released.
tools.try(function()
  coroutine.resume(coroutine.create(function()
    marea.optim.SGD{marea.nn.Linear{1, 1}}:step(function() error "stop" end)
  end))
end)
tools.try(function() if collectgarbage then collectgarbage() collectgarbage() end end)
marea.nn.BatchNorm{2}(marea.ones(3, 2))
return tools.values{}
