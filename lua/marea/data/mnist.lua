-- SPDX-License-Identifier: MIT
--- data.mnist(source, split): MNIST and data in its format, from IDX files, raw or .gz.
local core = require "marea.core"
local check = require "marea.internal.check"
local events = require "marea.internal.events"
local Dataset = require "marea.data.dataset"

local splits = {train = "train", test = "t10k"}

--- Folders where a data set is looked for when it is given by name.
local function folders(name)
  local list = {}
  local function add(folder, ...)
    if folder and folder ~= "" then list[#list + 1] = folder .. table.concat{...} end
  end
  local own = {mnist = "mnist", fashion = "fashion-mnist"}
  if name == "sample" then
    add("scripts/data")
    for _, scripts in ipairs(check.script_folders()) do add(scripts, "data") end
    add(arg and arg[0] and arg[0]:match "^(.*)/[^/]*$", "/data")
    return list
  end
  local folder = own[name]
  if name == "mnist" then add(os.getenv "MAREA_DATA") end
  add(os.getenv "MAREA_DATA", "/", folder)
  add("data/", folder)
  if name == "mnist" then add("data") end
  local cache = os.getenv "XDG_CACHE_HOME" or (os.getenv "HOME" and os.getenv "HOME" .. "/.cache")
  add(cache, "/marea/", folder)
  if name == "fashion" then add("/usr/share/datasets/fashion-mnist") end -- Debian's dataset-fashion-mnist
  return list
end

local function find(folder, name)
  for _, variant in ipairs{name, name .. ".gz", (name:gsub("%-idx", ".idx")), (name:gsub("%-idx", ".idx")) .. ".gz"} do
    local path = folder .. "/" .. variant
    local file = io.open(path, "rb")
    if file then
      file:close()
      return path
    end
  end
end

local advice = {
  mnist = "; `make mnist` gets it, and 'sample' comes with the project",
  fashion = "; Debian's package dataset-fashion-mnist has it",
}

--- nil, message unless the file holds u8 of this rank.
local function load(path, rank)
  local t, message = events.load(path, core.load_idx)
  if not t then return core.failed(message) end
  if t.dtype ~= "u8" or t.rank ~= rank then
    return core.failed(core.printable(path)
      .. (": expected u8 of %d dimensions, got %s %s"):format(rank, t.dtype, check.shape_text(t.shape)))
  end
  return t
end

local function read(images_path, labels_path)
  local images, message = load(images_path, 3)
  if not images then return core.failed(message) end
  local labels, problem = load(labels_path, 1)
  if not labels then return core.failed(problem) end
  if #images ~= #labels then
    return core.failed(core.printable(("%s has %d images, %s has %d labels"):format(images_path, #images, labels_path,
      #labels)))
  end
  local n, h, w = images:size()
  return Dataset{
    {"image", images:reshape(n, h, w, 1), dtype = "f32", scale = 1 / 255},
    {"label", labels:cast("i64") + 1},
  }
end

--- Fields: image, u8 (N, 28, 28, 1) in memory, batches f32 in [0, 1]; label, i64 (N), the classes 1 to 10, so the digit
--- d is class d + 1.
---@param source? string "mnist" (the default), "sample" (the first 6,000 and 1,000 images of MNIST, in scripts/data),
---  "fashion", or a folder. mnist is looked for in $MAREA_DATA, data/mnist, data, $XDG_CACHE_HOME/marea/mnist.
---@param split? string "train" (the default) or "test"
---@return Dataset|nil dataset, string|nil message
---@example data.mnist "sample"
return function(source, split)
  source, split = source or "mnist", split or "train"
  check.string("mnist", "source", source)
  local stem = check.choice("mnist", "split", split, splits)
  local by_name = source == "mnist" or source == "sample" or source == "fashion"
  local searched = by_name and folders(source) or {source}
  for _, folder in ipairs(searched) do
    local images, labels = find(folder, stem .. "-images-idx3-ubyte"), find(folder, stem .. "-labels-idx1-ubyte")
    if images and labels then return read(images, labels) end
  end
  return core.failed(("mnist: no files %s-images-idx3-ubyte and %s-labels-idx1-ubyte (or .gz) in %s%s"):format(stem,
    stem, core.printable(table.concat(searched, ", ")), advice[source] or ""))
end
