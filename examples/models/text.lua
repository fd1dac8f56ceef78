-- SPDX-License-Identifier: MIT
--- text.lua: where there is text in a picture, and what it says: Chinese and English, by the networks of the package
--- rapidocr-onnxruntime, which `make models` gets. Boxes are upright here, for lines that run from left to right.
---
---   build/marea examples/models/text.lua picture.png
local marea = require "marea"

local folder = (os.getenv "MAREA_MODELS" or "build/models") .. "/rapidocr_onnxruntime/models/"
local path = ...
if not path then error("usage: marea text.lua picture.png", 0) end

-- The package's settings.
local SHORT_SIDE <const>, TEXT <const>, BOX <const>, GROW <const>, SURE <const> = 736, 0.3, 0.5, 1.6, 0.5
local LINE <const>, LEAST <const> = 48, 320 -- pixels: a line is read in this height, and in this width or more

local function round(x) return math.floor(x + 0.5) end

--- What the networks read: (1, 3, height, width) from -1 to 1, blue first.
local function input_of(picture, height, width)
  local channels = marea.tensor(picture:size(3) < 3 and {1, 1, 1} or {3, 2, 1}, {dtype = "i64"})
  local x = marea.image.resize(picture, height, width):index_select(channels, 3)
  return (x / 127.5 - 1):permute(3, 1, 2):unsqueeze(1)
end

--- Boxes around the pixels of a map (H, W) that are not 0 and touch each other, also at their corners. Its last column
--- is 0, so that the pixels at the two edges do not touch.
local function find_boxes(map)
  local width, left, boxes = map:size(2), {}, {}
  local around = {-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1}
  local places = map:flatnonzero():totable()
  for _, place in ipairs(places) do left[place] = true end
  for _, place in ipairs(places) do
    local box, stack = {top = math.huge, left = math.huge, bottom = 0, right = 0}, {left[place] and place}
    left[place] = nil
    while stack[1] do
      local at = table.remove(stack)
      local row, column = (at - 1) // width + 1, (at - 1) % width + 1
      box.top, box.bottom = math.min(box.top, row), math.max(box.bottom, row)
      box.left, box.right = math.min(box.left, column), math.max(box.right, column)
      for _, step in ipairs(around) do
        if left[at + step] then left[at + step], stack[#stack + 1] = nil, at + step end
      end
    end
    if box.bottom - box.top >= 3 and box.right - box.left >= 3 then boxes[#boxes + 1] = box end
  end
  return boxes
end

--- Boxes of pixels, from 0 on, from top to bottom. The network marks the middle of lines: boxes grow by the rest.
local function detect(net, picture)
  local height, width = picture:size()
  local scale = math.max(1, SHORT_SIDE / math.min(height, width)) / 32
  local input = input_of(picture, math.max(1, round(height * scale)) * 32, math.max(1, round(width * scale)) * 32)
  local map, found = net(input)[1][1], {}
  local h, w = map:size()
  local sy, sx = height / h, width / w
  local spread = map:reshape(1, h, w, 1):pad({0, 0, 1, 2, 1, 2, 0, 0}, 0):max_pool2d{kernel = 2, stride = 1}
  for _, box in ipairs(find_boxes(spread:gt(TEXT):reshape(h + 2, w + 2))) do
    local rows, columns = math.min(box.bottom, h) - box.top, math.min(box.right, w) - box.left
    local grow = rows * columns * GROW / (2 * (rows + columns))
    if map:narrow(1, box.top, rows + 1):narrow(2, box.left, columns + 1):mean():item() >= BOX then
      found[#found + 1] = {
        top = math.max(0, round((box.top - 1 - grow) * sy)), left = math.max(0, round((box.left - 1 - grow) * sx)),
        bottom = math.min(height - 1, round((box.top - 1 + rows + grow) * sy)),
        right = math.min(width - 1, round((box.left - 1 + columns + grow) * sx))}
    end
  end
  table.sort(found, function(a, b) return a.top < b.top or a.top == b.top and a.left < b.left end)
  return found, input, map
end

--- Reads the boxes, all in one call. The network gives a letter, or none (number 1), for each few pixels of a line.
local function read(net, picture, boxes)
  local letters, widths, widest, lines = {""}, {}, LEAST, {}
  for letter in net:metadata().character:gmatch "[^\r\n]+" do letters[#letters + 1] = letter end
  letters[#letters + 1] = " "
  for i, box in ipairs(boxes) do
    widths[i] = math.ceil(LINE * (box.right - box.left) / (box.bottom - box.top))
    widest = math.max(widest, widths[i])
  end
  for i, box in ipairs(boxes) do
    local line = picture:narrow(1, box.top + 1, box.bottom - box.top):narrow(2, box.left + 1, box.right - box.left)
    lines[i] = input_of(line, LINE, widths[i]):pad{0, 0, 0, 0, 0, 0, 0, widest - widths[i]}
  end
  local input = marea.concat(lines, 1)
  local probabilities = net(input)
  for i, box in ipairs(boxes) do
    local text, sum, last = {}, 0, 1
    local best, number = probabilities[i]:topk(1)
    for t, n in ipairs(number:squeeze(2):totable()) do -- a letter that is repeated counts once
      if n ~= 1 and n ~= last then text[#text + 1], sum = letters[n], sum + best[t][1] end
      last = n
    end
    box.text, box.sure = table.concat(text), sum / math.max(#text, 1)
  end
  return input, probabilities
end

local picture = assert(marea.load_png(path))
local detector = assert(marea.onnx.load(folder .. "ch_PP-OCRv4_det_infer.onnx"))
local reader = assert(marea.onnx.load(folder .. "ch_PP-OCRv4_rec_infer.onnx"))
local boxes, image, map = marea.no_grad(detect, detector, picture)
local lines, probabilities
if #boxes > 0 then lines, probabilities = marea.no_grad(read, reader, picture, boxes) end
for _, box in ipairs(boxes) do
  if box.sure >= SURE then
    local place = ("%4d,%4d to %4d,%4d"):format(box.left, box.top, box.right, box.bottom)
    print(marea.format("%s  %3.0f %%  %s", place, 100 * box.sure, box.text))
  end
end
return boxes, {det = {image, map}, rec = {lines, probabilities}}
