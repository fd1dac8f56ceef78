-- SPDX-License-Identifier: MIT
--- Calls of operators in the Trace Event Format, JSON that chrome://tracing and ui.perfetto.dev show as a time line.
--- Operators are complete events (ph "X"); around those of one layer in a row lie the layer and what it is part of
--- (ph "B" and "E"). Times are microseconds from the start of the profile.
local format = require "marea.core".format

local chrome_trace = {}

--- Text that is not UTF-8 loses the bytes above 127.
local function quote(text)
  if not utf8.len(text) then text = text:gsub("[\128-\255]", "?") end
  return '"' .. text:gsub('[%c"\\]', function(c) return ("\\u%04x"):format(c:byte()) end) .. '"'
end

local function microseconds(ns) return ("%d.%03d"):format(ns // 1000, ns % 1000) end

local function operator(e)
  local per_ns = 1 / math.max(e.duration, 1) -- so that FLOP / ns is GFLOP/s, bytes / ns is GB/s
  return format('{"name":%s,"cat":"%s","ph":"X","pid":1,"tid":1,"ts":%s,"dur":%s,"args":{"layer":%s,"flop":%.0f,'
    .. '"bytes":%.0f,"GFLOP/s":%.3f,"GB/s":%.3f}}', quote(e.op), e.direction, microseconds(e.start),
    microseconds(e.duration), quote(e.layer), e.flop, e.bytes, e.flop * per_ns, e.bytes * per_ns)
end

local function bound(phase, name, ns)
  return ('{"name":%s,"cat":"layer","ph":"%s","pid":1,"tid":1,"ts":%s}'):format(quote(name), phase, microseconds(ns))
end

--- Layers that are open at one level of the time line: their names from the outermost on, and when the last of their
--- operators ended.
local function close_layers(open, keep, put)
  for i = #open, keep + 1, -1 do
    put(bound("E", open[i], open.stop))
    open[i] = nil
  end
end

--- Closes and opens layers so that `e` lies in its own.
local function enter_layer(open, e, put)
  local names = {}
  for name in e.layer:gmatch "[^.]+" do names[#names + 1] = name end
  local same = 0
  while names[same + 1] and names[same + 1] == open[same + 1] do same = same + 1 end
  close_layers(open, same, put)
  for i = same + 1, #names do
    open[i] = names[i]
    put(bound("B", names[i], e.start))
  end
  open.stop = e.start + e.duration
end

--- Calls put(text) for each piece of the file.
---@param events fun(): table? iterator: {op, layer, direction, depth, start, duration, flop, bytes}, by their start
---@param put fun(text: string)
function chrome_trace.write(events, put)
  put '{"displayTimeUnit":"ms","traceEvents":[\n{"name":"process_name","ph":"M","pid":1,"args":{"name":"Marea"}},\n'
  put '{"name":"thread_name","ph":"M","pid":1,"tid":1,"args":{"name":"operators"}}'
  local function put_event(text) put(",\n" .. text) end
  local open = {{}, {}} -- layers of the script's calls, and of those in a backward pass
  local in_pass = false
  for e in events do
    if e.depth == 0 then
      close_layers(open[2], 0, put_event)
      in_pass = e.op == "backward"
    end
    if e.depth == 0 or (e.depth == 1 and in_pass) then enter_layer(open[e.depth + 1], e, put_event) end
    put_event(operator(e))
  end
  close_layers(open[2], 0, put_event)
  close_layers(open[1], 0, put_event)
  put "\n]}\n"
end

return chrome_trace
