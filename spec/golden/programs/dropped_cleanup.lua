-- A check of gradients in a coroutine that ended by an error: its cleanup waited with the coroutine, and so with the
-- graph that the variables of its function held, until the next module was called.
local v = {marea.ones{3}:requires_grad_() * 2}
tools.try(function()
  local integers = marea.arange(1, 3):to "i64"
  coroutine.resume(coroutine.create(function()
    marea.gradcheck(function(x) return v[1] * x:sin() end, integers)
  end))
end)
return tools.values{}
