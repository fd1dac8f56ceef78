-- SPDX-License-Identifier: MIT
--- Questions that need no files, for scripts/qa_reader.lua --smoke.
local NAMES = {"Ada", "Bela", "Carl", "Dora", "Emil", "Flora", "Georg", "Hanna", "Ivo", "Julia", "Karla", "Leo"}
local PLACES = {"Lima", "Oslo", "Paris", "Rome", "Tunis", "Vienna", "Zagreb", "Bern", "Cairo", "Delhi"}

--- Questions about people, where they live and since when, in the form of data.squad; the same for the same seed.
return function(n, seed)
  local list, state = {}, seed
  local function draw(names)
    state = (state * 1103515245 + 12345) % 2147483648
    return names[state // 65536 % #names + 1]
  end
  while #list < n do
    local sentences, asked = {}, {}
    for i = 1, 3 do
      local name, city, year = NAMES[(#list + 4 * i) % #NAMES + 1], draw(PLACES), ("%d"):format(1900 + #list % 97 + i)
      sentences[i] = ("%s has lived in %s since %s."):format(name, city, year)
      asked[i] = {"Where does " .. name .. " live?", city}
      if i == 3 then asked[i] = {"Since when has it been so for " .. name .. "?", year} end
    end
    local context = table.concat(sentences, " ")
    for i, pair in ipairs(asked) do
      local answer = {text = pair[2], start = context:find(pair[2], context:find(sentences[i], 1, true), true)}
      list[#list + 1] = {question = pair[1], context = context, answers = {answer}}
    end
  end
  return list
end
