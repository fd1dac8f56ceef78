-- SPDX-License-Identifier: MIT
--- The training of byte pairs: joins the pair that occurs most often, again and again. The counts are kept up to date
--- by looking only at the pieces that have the pair.

--- A heap of {count, pair}, the highest count on top; of equal counts the pair of the smaller numbers.
local function before(a, b) return a[1] > b[1] or a[1] == b[1] and a[2] < b[2] end

local function push(heap, item)
  local i = #heap + 1
  while i > 1 and before(item, heap[i // 2]) do
    heap[i] = heap[i // 2]
    i = i // 2
  end
  heap[i] = item
end

local function pop(heap)
  local top, item, i = heap[1], table.remove(heap), 1
  if #heap == 0 then return top end
  while 2 * i <= #heap do
    local child = 2 * i
    if child < #heap and before(heap[child + 1], heap[child]) then child = child + 1 end
    if not before(heap[child], item) then break end
    heap[i] = heap[child]
    i = child
  end
  heap[i] = item
  return top
end

--- Adds n to the counts of all pairs of a word; notes what changed.
local function count(state, w, n)
  local word = state.words[w]
  for i = 1, #word - 1 do
    local key = word[i] << 32 | word[i + 1]
    state.counts[key] = (state.counts[key] or 0) + n
    state.changed[key] = true
    if n > 0 then
      state.where[key] = state.where[key] or {}
      state.where[key][w] = true
    end
  end
end

local function push_changed(state)
  for key in next, state.changed do
    if state.counts[key] > 0 then push(state.heap, {state.counts[key], key}) end
  end
  state.changed = {}
end

local function joined_word(word, key, new)
  local out, i = {}, 1
  while i <= #word do
    local is_pair = i < #word and word[i] << 32 | word[i + 1] == key
    out[#out + 1] = is_pair and new or word[i]
    i = i + (is_pair and 2 or 1)
  end
  return out
end

local function replace(state, key, new)
  for w in next, state.where[key] do
    count(state, w, -state.times[w])
    state.words[w] = joined_word(state.words[w], key, new)
    count(state, w, state.times[w])
  end
  state.where[key] = nil
  push_changed(state)
end

local function begin(pieces, numbers)
  local state = {words = {}, times = {}, counts = {}, where = {}, changed = {}, heap = {}}
  for piece, n in next, pieces do
    local word, w = {}, #state.words + 1
    for i = 1, #piece do word[i] = numbers[piece:sub(i, i)] end
    state.words[w], state.times[w] = word, n
    count(state, w, n)
  end
  push_changed(state)
  return state
end

--- Calls merge(a, b) for the most frequent pair, which returns the number of both together, or nil to end; until no
--- pair occurs `least` times.
---@param pieces table<string, integer> how often each piece of a text occurs
---@param numbers table<string, integer> of the bytes
---@param least integer
---@param merge fun(a: integer, b: integer): integer?
return function(pieces, numbers, least, merge)
  local state = begin(pieces, numbers)
  while #state.heap > 0 do
    local top = pop(state.heap)
    local n, key = top[1], top[2]
    if n < least then return end
    if state.counts[key] == n and state.where[key] then
      local new = merge(key >> 32, key & 0xFFFFFFFF)
      if not new then return end
      replace(state, key, new)
    end
  end
end
