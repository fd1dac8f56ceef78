-- SPDX-License-Identifier: MIT
--- Numbers back to words or pieces: what decode of a Vocabulary and of a BytePair have in common.
local core = require "marea.core"
local check = require "marea.internal.check"

--- The texts of the numbers, without the special ones unless {special = true} asks for them. Raises where a number has
--- none.
---@param coder {size: integer, stop: integer?, word: function, is_special: function} word(number): its text;
---is_special(number): is it a special one? stop: the number that ends the text, unless special ones are asked for
---@param numbers integer[]|userdata a list, or i64 or u8 (n)
---@param options? {special: boolean?}
---@return string[]
return function(coder, numbers, options)
  options = check.options("decode", options, {"special"})
  if core.is_tensor(numbers) then numbers = numbers:totable() end
  local words = {}
  for i = 1, check.items("decode", "numbers", numbers, "a list of numbers, or a tensor (n)") do
    local number = numbers[i]
    local word = number == number and coder.word(number)
    if not word then check.raise("decode: number %d is %s, expected 1 to %d", i, check.describe(number), coder.size) end
    if number == coder.stop and not options.special then break end
    if options.special or not coder.is_special(number) then words[#words + 1] = word end
  end
  return words
end
