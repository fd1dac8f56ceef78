-- SPDX-License-Identifier: MIT
--- data.folder(path, options): pictures in folders, one for each class, decoded by threads ahead of the loop.
local core = require "marea.core"
local check = require "marea.internal.check"
local pictures = require "marea.internal.pictures"
local Dataset = require "marea.data.dataset"

local MOST <const> = 1 << 24 -- files of a folder
local ENDINGS <const> = {jpg = true, jpeg = true, png = true}

---@class Pictures  a field's source, see Dataset: pictures in files, of one size
local Pictures = {}
Pictures.__index = Pictures

function Pictures:rows(numbers)
  local t, message = core.loader_take(self.loader, numbers)
  if not t then check.raise("%s", message) end
  return t
end

function Pictures:prefetch(numbers) core.loader_prefetch(self.loader, numbers) end

--- The names in a folder that `keep` gives something for, in the order of their bytes.
local function list(path, keep)
  local names, message = core.list_folder(path, MOST)
  if not names then return nil, message end
  local kept = {}
  for _, name in ipairs(names) do
    if name:sub(1, 1) ~= "." then kept[#kept + 1] = keep(name) end
  end
  table.sort(kept, core.before)
  return kept
end

local function folder_name(name) return name:match "^(.*)/$" end

local function picture_name(name) return ENDINGS[(name:match "%.(%w+)$" or ""):lower()] and name or nil end

--- All files and their classes.
local function find(path)
  local classes, message = list(path, folder_name)
  if not classes then return core.failed("data.folder: " .. core.printable(message)) end
  local paths, labels = {}, {}
  for class, name in ipairs(classes) do
    local files, problem = list(path .. "/" .. name, picture_name)
    if not files then return core.failed("data.folder: " .. core.printable(problem)) end
    for _, file in ipairs(files) do
      paths[#paths + 1], labels[#labels + 1] = ("%s/%s/%s"):format(path, name, file), class
    end
  end
  if #paths == 0 then
    return core.failed(("data.folder: '%s' has no folders with pictures (.jpg, .jpeg, .png) in them")
      :format(core.printable(path)))
  end
  return paths, labels, classes
end

--- Pictures by class: the folders in `path` are the classes, by name, the files .jpg, .jpeg and .png in them the
--- pictures. Fields: image, of batches f32 (N, H, W, channels) from 0 to 1; label, i64 (N), the class from 1 on.
--- dataset.classes: their names; dataset.paths: the files. Batches are the same for any number of workers.
---@param path string
---@param options {size: integer|integer[], fit: string?, channels: integer?, workers: integer?, ahead: integer?,
---   seed: integer?} size, fit, channels: as of marea.load_image; workers: threads that read files, 2 when left out, 0:
---   none; ahead: pictures that they read in advance, 64 when left out; seed: as of Dataset
---@return Dataset|nil dataset, string|nil message
---@example data.folder("missing", {size = 224})
return function(path, options)
  check.string("data.folder", "path", path)
  if options == nil then check.fail("data.folder", "options", "a table with a size", options) end
  local o = pictures.read_options("data.folder", options, {"workers", "ahead", "seed"})
  local workers = check.integer("data.folder", "workers", options.workers or 2, 0)
  local ahead = check.integer("data.folder", "ahead", options.ahead or 64, 1)
  if workers > 64 then check.fail("data.folder", "workers", "at most 64", workers) end
  if ahead > 65536 then check.fail("data.folder", "ahead", "at most 65536", ahead) end
  local paths, labels, classes = find(path)
  if not paths then return nil, labels end
  local loader = core.loader(paths, o.height, o.width, o.channels, o.crop, workers, ahead)
  local source = setmetatable({loader = loader, dtype = "u8", ahead = ahead,
    shape = core.shape{#paths, o.height, o.width, o.channels}}, Pictures)
  local dataset = Dataset{
    seed = options.seed, {"image", source, scale = 1 / 255},
    {"label", core.tensor(labels, {dtype = "i64"}):keep()},
  }
  dataset.classes, dataset.paths = classes, paths
  return dataset
end
