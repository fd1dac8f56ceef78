-- SPDX-License-Identifier: MIT
--- The options of what reads pictures of one size: marea.load_image and data.folder.
local check = require "marea.internal.check"

local pictures = {}

local FITS <const> = {crop = "crop", stretch = "stretch"}
local LARGEST <const> = 65500 -- pixels of a side, as JPEG

--- {height, width, channels, crop}; `names`: further options.
---@param what string the function
---@param options table
---@param names string[]
function pictures.read_options(what, options, names)
  options = check.options(what, options, table.move(names, 1, #names, 4, {"size", "fit", "channels"}))
  local size = check.pair(what, "size", options.size, 1)
  if size[1] > LARGEST or size[2] > LARGEST then
    check.fail(what, "size", ("at most %d pixels each way"):format(LARGEST), options.size)
  end
  local channels = options.channels or 3
  if channels ~= 1 and channels ~= 3 then check.fail(what, "channels", "1 or 3", channels) end
  return {height = size[1], width = size[2], channels = channels,
    crop = check.choice(what, "fit", options.fit or "crop", FITS) == "crop"}
end

return pictures
