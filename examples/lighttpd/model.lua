-- SPDX-License-Identifier: MIT
--- What lighttpd keeps between requests: `require` runs this file once for each of its processes.
local marea = require "marea"
local _, path = ...
local here = path:match "^(.*/)"

marea.set_threads(1) -- lighttpd answers one request after the other, and a small network gains nothing from more
marea.memory_limit(64e6)
local decoder = dofile(here .. "decoder.lua")()
decoder:load_state(assert(marea.load(here .. "decoder.safetensors")))

local LIMIT, SIDE = 3, 21 -- of the plane: coordinates up to LIMIT, SIDE x SIDE pictures
local plane

local model = {}

--- The point that a query like "z=0.3,-1" means: two numbers from -10 to 10; or nil and what is wrong.
function model.point(query)
  local value = ("&" .. (query or "")):match "&z=([^&]*)"
  if not value then return nil, "expected ?z=NUMBER,NUMBER" end
  local point = {}
  for text in (value:gsub("%%2[cC]", ",") .. ","):gmatch "([^,]*)," do
    local z = #text <= 32 and text:match "^[-+.%deE]+$" and tonumber(text)
    if not z then return nil, ("z: expected two numbers, got '%s'"):format(value:sub(1, 80)) end
    if not (z >= -10 and z <= 10) then return nil, ("z: expected numbers from -10 to 10, got %s"):format(text) end
    point[#point + 1] = z
  end
  if #point ~= 2 then return nil, ("z: expected two numbers, got %d"):format(#point) end
  return point
end

--- The digit at a point, a PNG of 28 x 28 pixels as a string.
function model.digit(point)
  return marea.scope(function()
    return marea.encode_png(marea.no_grad(decoder, marea.tensor{point}):reshape(28, 28))
  end)
end

--- The whole plane from -LIMIT to LIMIT, the second component upwards, made when it is first asked for.
function model.plane()
  plane = plane or marea.scope(function()
    local points = {}
    for row = 1, SIDE do
      for column = 1, SIDE do
        points[#points + 1] = {(2 * column - SIDE - 1) / SIDE * LIMIT, (SIDE + 1 - 2 * row) / SIDE * LIMIT}
      end
    end
    local images = marea.no_grad(decoder, marea.tensor(points))
    return marea.encode_png(marea.image.grid(images, {columns = SIDE}))
  end)
  return plane
end

return model
