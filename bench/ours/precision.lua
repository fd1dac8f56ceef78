-- SPDX-License-Identifier: MIT
--- f as the request wants it computed: with bf16=1 in marea.autocast.
local marea = require "marea"

return function(arguments, f)
  if arguments.bf16 ~= 1 then return f end
  if not rawget(marea, "autocast") then error("no marea.autocast here", 0) end
  return function(...) return marea.autocast(f, ...) end
end
