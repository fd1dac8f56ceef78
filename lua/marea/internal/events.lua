-- SPDX-License-Identifier: MIT
--- Events of a running script. `watcher` is an object whose methods are called for them; marea.rerun sets it while it
--- runs a script. Otherwise it is nil, and each event costs one comparison.
---
---   watcher:seeded(n)             marea.seed(n) was called
---   watcher:called(m)             a module is about to be called
---   watcher:look()                the tensors of a module are about to be looked at
---   watcher:made(m)               a layer has made its parameters from its first input
---                                 -> true when all of them were taken over from an earlier run
---   watcher:optimizes(optimizer)  an optimizer has looked for its parameters
---   watcher:trains()              a step, or what leads to one, is about to begin
---   watcher:stepped()             a step was made
---   watcher:pass(dataset, epoch)  a pass is about to begin, that of `epoch` if it was given
---   watcher:batch(dataset, more)  a batch is about to be delivered; more = false: the pass is over
---   watcher:loaded(t)             the script gave a parameter the values of a file or a state
---   watcher:restored()            the script loaded the state of a whole run
---   watcher:goes_on()             -> true when the script takes over from an earlier run
---   watcher:load(path, load)      -> what load(path) returns or has returned for this file
local events = {watcher = nil}

--- load(path), or what it returned before for a file that is still the same.
---@param path string
---@param load fun(path: string): userdata?, string?
function events.load(path, load)
  if events.watcher then return events.watcher:load(path, load) end
  return load(path)
end

return events
