-- SPDX-License-Identifier: MIT
-- PNG files of every kind: load_png gives what the format says and what PIL reads (spec/support/png_reference.py).
-- MAREA_PNG="FOLDER FOLDER" compares the files of further folders, PngSuite's for example, and leaves NPY files there.
local marea = require "marea"
local folder = require "spec.support.folder"
local message_of = require "spec.support.message_of"

local PYTHON = "/usr/bin/python3"

teardown(folder.remove)

local function bytes_of(hex) return (hex:gsub("%x%x", function(x) return string.char(tonumber(x, 16)) end)) end

local function same(want, got)
  return table.concat(want.shape, "x") == table.concat(got.shape, "x") and want:ne(got):sum():item() == 0
end

describe("a PNG file", function()
  local place = folder.new() .. "/a.png"

  local function load(bytes, options)
    folder.write(place, bytes)
    return marea.load_png(place, options)
  end

  it("of every colour type, depth and interlace holds the samples that it was made of, whatever its gamma", function()
    local files = require "spec.golden.png"
    for _, row in ipairs(files) do
      local name, file, shape, eight, sixteen = table.unpack(row)
      local function values(hex, width)
        local list = {}
        for x in hex:gmatch(("%x"):rep(width)) do list[#list + 1] = tonumber(x, 16) end
        return list
      end
      local got = assert(load(bytes_of(file)))
      assert.are.same({"u8", shape}, {got.dtype, {got:size()}}, name)
      assert.are.same(values(eight, 2), got:reshape(-1):totable(), name)
      local wide = assert(load(bytes_of(file), {bits = 16}))
      assert.are.same({"i64", shape}, {wide.dtype, {wide:size()}}, name)
      local want = values(sixteen, 4)
      if not want[1] then
        for i, x in ipairs(values(eight, 2)) do want[i] = x * 257 end
      end
      assert.are.same(want, wide:reshape(-1):totable(), name)
    end
    assert.are.equal(52, #files)
  end)

  it("is read by 8 or 16 bits", function()
    marea.save_png(marea.ones{2, 2}, place)
    assert.are.equal(255, marea.load_png(place, {bits = 8}):max():item())
    assert.are.equal(65535, marea.load_png(place, {bits = 16}):max():item())
    assert.is_truthy(message_of(function() marea.load_png(place, {bits = 12}) end)
      :find("load_png: argument 'bits': expected 8 or 16, got 12", 1, true))
    assert.is_truthy(message_of(function() marea.load_png(place, {bit = 8}) end):find("did you mean 'bits'?", 1, true))
    assert.is_truthy(message_of(function() marea.load_png(place, 16) end):find("expected a table, got 16", 1, true))
  end)

  it("may have long chunks that say nothing of its pixels", function()
    local made = marea.encode_png(marea.ones{2, 2})
    local function chunk(kind, data) -- CRC-32 by its definition
      local crc = 0xffffffff
      for c in (kind .. data):gmatch "." do
        crc = crc ~ c:byte()
        for _ = 1, 8 do crc = crc >> 1 ~ (0xedb88320 & -(crc & 1)) end
      end
      return string.pack(">I4", #data) .. kind .. data .. string.pack(">I4", crc ~ 0xffffffff)
    end
    local at = made:find("IDAT", 1, true) - 4
    for _, more in ipairs{chunk("iCCP", "broken"), chunk("zTXt", "a\0\0broken"), chunk("gAMA", "\0\0\0\0"),
      chunk("prVt", ("x"):rep(100000)), chunk("tEXt", "key\0" .. ("x"):rep(1000)):rep(100)} do
      assert.are.equal(255, assert(load(made:sub(1, at - 1) .. more .. made:sub(at))):min():item())
    end
    local _, message = load(made:sub(1, at - 1) .. chunk("ABcD", "must be understood") .. made:sub(at))
    assert.is_truthy(message:find("damaged: ", 1, true))
  end)

  it("equals what PIL reads from it", function()
    if not os.execute(PYTHON .. " -c 'import PIL, numpy' 2>/dev/null") then
      return pending "needs Debian's python3-pil and python3-numpy (make setup-hosts)"
    end
    local made = folder.new()
    local script = PYTHON .. " spec/support/png_reference.py "
    assert(os.execute(script .. "make " .. made))
    local count, want = 0, 0
    for where in (made .. " " .. (os.getenv "MAREA_PNG" or "")):gmatch "%S+" do
      local pipe = assert(io.popen(script .. "values " .. where))
      want = want + assert(pipe:read "n", where)
      pipe:close()
      for path in io.popen(("ls %s/*.8.npy"):format(where)):lines() do
        local name = path:match "^(.*)%.8%.npy$"
        local eight, wide = assert(marea.load_png(name .. ".png")), assert(marea.load_png(name .. ".png", {bits = 16}))
        if not same(assert(marea.load_npy(path)), eight) then error(name .. ": 8 bits differ") end
        if not same(assert(marea.load_npy(name .. ".16.npy")), wide) then error(name .. ": 16 bits differ") end
        count = count + 1
      end
    end
    assert.are.equal(want, count)
    assert.is_true(count > 1000)
  end)
end)
