-- SPDX-License-Identifier: MIT
local assert = require "luassert"

--- Asserts that a text holds all parts, as they are.
---@param text string
---@param ... string
return function(text, ...)
  for _, part in ipairs{...} do assert.is_truthy(text:find(part, 1, true), ("'%s' in\n%s"):format(part, text)) end
end
