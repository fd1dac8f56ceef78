-- SPDX-License-Identifier: MIT
--- The child of marea_kernel.py: serves a session of marea.repl over two pipes, whatever scripts do with stdin and
--- stdout. A message either way is a line "kind length" and that many bytes.
---
---   evaluate -> [html | png] text, ...; error; done            complete -> start, candidates in lines
---   inspect  -> text ("": nothing is known)                    is_complete -> complete, incomplete or invalid
local marea = require "marea"
local repl = require "marea.repl"
local core = require "marea.core"

local MOST = 20 -- rows and columns of a table that are shown
local EINTR = 4

local requests = assert(io.open("/dev/fd/" .. arg[1], "rb"))
local replies = assert(io.open("/dev/fd/" .. arg[2], "wb"))
local session = repl.new()
io.stdout:setvbuf "line"

local function send(kind, text)
  replies:write(kind, " ", #text, "\n", text)
  replies:flush()
end

-- ---- values as notebooks show them ----

--- The bytes of the PNG that write(path) makes; nil when it cannot.
local function png_of(write)
  local name = os.tmpname()
  local file = write(name .. ".png") and io.open(name .. ".png", "rb")
  local bytes = file and file:read "a"
  if file then file:close() end
  for _, ending in ipairs{"", ".png", ".gp"} do os.remove(name .. ending) end
  return bytes
end

---@class Picture  what x:show() and figure:show() give here: a PNG, and the letters of the terminal for print
local Picture = {}
Picture.__index = Picture
function Picture:__tostring() return tostring(self.shown) end

local function with_picture(show, save)
  return function(self, path, options)
    if type(path) == "string" then return show(self, path, options) end
    local shown, message = show(self, path, options)
    if not shown then return nil, message end
    return setmetatable({shown = shown, png = png_of(function(file) return save(self, file, path or options) end)},
      Picture)
  end
end

local Figure = getmetatable(require "marea.plot".curves{{y = {0, 1}}})
local show = core.methods.show
core.methods.show = with_picture(show, function(t, path, options)
  return show(t, path, options and {map = options.map})
end)
Figure.show = with_picture(Figure.show, function(figure, path) return figure:save(path) end)

local function escaped(text) return (text:gsub("[&<>]", {["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;"})) end

--- Which of n rows or columns are shown: all, or the first and the last ones, with nil for a gap.
local function shown_places(n)
  local places = {}
  for i = 1, math.min(n, MOST) do places[i] = n > MOST and i > MOST // 2 and n - MOST + i or i end
  return places
end

local function cell(x)
  return ("<td>%s</td>"):format(math.type(x) == "float" and marea.format("%.5g", x) or tostring(x))
end

--- A matrix, or a vector as one row; nil for other tensors.
local function table_of(t)
  if t:is_released() or t.rank < 1 or t.rank > 2 or t:numel() == 0 then return nil end
  t = t:detach()
  if t.rank == 1 then t = t:unsqueeze(1) end
  local lines = {}
  for i, row in ipairs(shown_places(t:size(1))) do
    local values = t:narrow(1, row, 1):squeeze(1)
    local cells = {}
    for k, column in ipairs(shown_places(#values)) do
      if k == MOST // 2 + 1 and #values > MOST then cells[#cells + 1] = "<td>...</td>" end
      cells[#cells + 1] = cell(values[{column}])
    end
    if i == MOST // 2 + 1 and t:size(1) > MOST then lines[#lines + 1] = "<tr><td>...</td></tr>" end
    lines[#lines + 1] = "<tr>" .. table.concat(cells) .. "</tr>"
  end
  return "<table>" .. table.concat(lines) .. "</table>"
end

local function send_value(value)
  local text = session:format{value, n = 1}
  if core.is_tensor(value) then
    local html = core.scope(core.no_grad, table_of, value)
    if html then send("html", ("<p>%s</p>%s"):format(escaped(text:match "^[^\n]*"), html)) end
  elseif getmetatable(value) == Picture then
    text = tostring(value)
    if value.png then send("png", value.png) end
  elseif getmetatable(value) == Figure then
    local png = png_of(function(path) return value:save(path) end)
    if png then send("png", png) end
  end
  send("text", text)
end

-- ---- requests ----

local handlers = {}

function handlers.evaluate(text)
  local result = session:evaluate(text)
  if not result.ok then send("error", result.text)
  elseif result.values then
    for i = 1, result.values.n do send_value(result.values[i]) end
  elseif result.text then send("text", result.text)
  end
  io.stdout:flush()
  send("done", "")
end

function handlers.complete(text)
  local start, candidates = session:complete(text)
  send("complete", start .. "\n" .. table.concat(candidates, "\n"))
end

function handlers.inspect(text) send("inspect", session:inspect(text) or "") end

function handlers.is_complete(text) send("is_complete", session:is_complete(text)) end

--- The next line; nil at the end. A Ctrl-C that comes while it waits has nothing to stop.
local function next_line()
  while true do
    local ok, line, _, code = core.protected(requests.read, nil, requests, "l")
    if ok and (line or code ~= EINTR) then return line end
  end
end

for line in next_line do
  local kind, length = line:match "^(%S+) (%d+)$"
  local text = length == "0" and "" or requests:read(tonumber(length))
  local ok, message = core.protected(handlers[kind], nil, text)
  if not ok then
    send("error", tostring(message))
    send("done", "")
  end
end
