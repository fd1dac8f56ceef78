-- SPDX-License-Identifier: MIT
-- JPEG files: load_jpeg gives what PIL reads, save_jpeg the bytes that PIL writes (spec/support/jpeg_reference.py);
-- 16-bit PNG files that PIL reads; damage.
local marea = require "marea"
local folder = require "spec.support.folder"
local raised = require "spec.support.message_of"

local PYTHON = "/usr/bin/python3"
local REFERENCE = PYTHON .. " spec/support/jpeg_reference.py "

teardown(folder.remove)

local function bytes_of(hex) return (hex:gsub("%x%x", function(x) return string.char(tonumber(x, 16)) end)) end

local function without_peer()
  return not os.execute(PYTHON .. " -c 'import PIL, numpy' 2>/dev/null")
    and pending "needs Debian's python3-pil and python3-numpy (make setup-hosts)"
end

local function message_of(f, ...)
  local values = table.pack(...)
  return raised(function() return assert(f(table.unpack(values))) end)
end

--- A smooth picture (height, width, 3) of reals.
local function wave(height, width)
  local x = marea.arange(0, height * width * 3 - 1):to "f32"
  return (x * 0.01):sin():mul(0.5):add(0.5):reshape(height, width, 3)
end

describe("a JPEG file", function()
  local place = folder.new() .. "/a.jpg"

  it("of every kind, orientation and scale equals what PIL reads from it", function()
    if without_peer() then return end
    local made = folder.new()
    local pipe = assert(io.popen(REFERENCE .. "make " .. made))
    local n = assert(pipe:read "n")
    pipe:close()
    assert.is_true(n > 100)
    local function compare(name, options)
      local want, got = assert(marea.load_npy(name .. ".npy")), assert(marea.load_jpeg(name .. ".jpg", options))
      assert.are.same({want:size()}, {got:size()}, name)
      assert.are.equal("u8", got.dtype)
      assert.are.equal(0, want:ne(got):sum():item(), name)
    end
    for i = 0, n - 1 do compare(made .. "/" .. i) end
    for _, side in ipairs{10, 45, 46, 91} do compare(made .. "/scaled" .. side, {min_side = side}) end
  end)

  it("is written as PIL writes it", function()
    if without_peer() then return end
    local made = folder.new()
    local x = wave(61, 43)
    assert(marea.save_png(x, made .. "/ours.png"))
    assert(os.execute(REFERENCE .. "again " .. made))
    for name, options in pairs{pil = {quality = 90}, pil35 = {quality = 35}} do
      assert(marea.save_jpeg(x, place, options))
      assert.are.equal(folder.read(("%s/%s.jpg"):format(made, name)), folder.read(place), name)
    end
    assert(marea.save_jpeg(x, place))
    assert.are.equal(folder.read(made .. "/pil.jpg"), folder.read(place))
  end)

  it("is gray or of three colours, u8 or reals", function()
    for _, shape in ipairs{{5, 7}, {5, 7, 1}, {5, 7, 3}} do
      for _, dtype in ipairs{"u8", "f32", "f64"} do
        local x = marea.ones(shape):to(dtype)
        if dtype == "u8" then x = x * 255 end
        assert(marea.save_jpeg(x, place))
        local got = assert(marea.load_jpeg(place))
        assert.are.same({5, 7, shape[3] or 1}, got.shape)
        assert.are.equal(255, got:min():item())
      end
    end
    assert.matches("save_jpeg: .*C = 1 or 3, got f32 %(2, 2, 4%)",
      message_of(marea.save_jpeg, marea.ones(2, 2, 4), place))
    assert.matches("sides up to 65500", message_of(marea.save_jpeg, marea.ones(1, 65501), place))
    assert.matches("'quality': expected a whole number from 1 to 100, got 0",
      message_of(marea.save_jpeg, marea.ones(2, 2), place, {quality = 0}))
    assert.matches("'min_side': expected a whole number above 0", message_of(marea.load_jpeg, place, {min_side = 0}))
    assert.matches("did you mean 'min_side'", message_of(marea.load_jpeg, place, {minside = 3}))
  end)

  it("or a PNG is read by load_image", function()
    local x = wave(8, 8)
    assert(marea.save_jpeg(x, place))
    assert.are.equal(0, marea.load_image(place):ne(marea.load_jpeg(place)):sum():item())
    assert(marea.save_png(x, place))
    assert.are.equal(0, marea.load_image(place):ne(marea.load_png(place)):sum():item())
    folder.write(place, "GIF89a")
    local t, message = marea.load_image(place)
    assert.is_nil(t)
    assert.are.equal("load_image: '" .. place .. "': neither a PNG nor a JPEG file, by its first bytes", message)
    t, message = marea.load_jpeg(place)
    assert.is_nil(t)
    assert.matches("load_jpeg: .*not a JPEG file", message)
  end)

  it("that was cut is refused, with its name, and so is one that claims to be huge", function()
    for _, hex in ipairs(require "spec.golden.jpeg") do
      local whole = bytes_of(hex)
      folder.write(place, whole .. "more")
      assert(marea.load_jpeg(place))
      for _, n in ipairs{0, 1, 2, 20, #whole // 2, #whole - 2, #whole - 1} do
        folder.write(place, whole:sub(1, n))
        local t, message = marea.load_jpeg(place)
        assert.is_nil(t)
        assert.is_truthy(message:find("load_jpeg: '" .. place .. "': ", 1, true), message)
      end
      local at = whole:find("\xff[\xc0\xc2]\0.\8")
      local function sized(side) return whole:sub(1, at + 4) .. (">I2I2"):pack(side, side) .. whole:sub(at + 9) end
      folder.write(place, sized(65500))
      assert.matches("65500 x 65500 pixels; at most", (select(2, marea.load_jpeg(place))))
      folder.write(place, sized(8000))
      assert.matches("8000 x 8000 pixels, which a file of", (select(2, marea.load_jpeg(place))))
    end
  end)
end)

describe("a PNG file of 16 bits", function()
  local place = folder.new() .. "/wide.png"

  it("keeps what it was made of", function()
    for channels = 1, 4 do
      local x = (marea.arange(0, 6 * 5 * channels - 1) * 541):to("i64"):reshape(6, 5, channels)
      assert(marea.save_png(x, place, {bits = 16}))
      local got = assert(marea.load_png(place, {bits = 16}))
      assert.are.same({"i64", {6, 5, channels}}, {got.dtype, got.shape})
      assert.are.equal(0, got:ne(x):sum():item())
    end
    assert(marea.save_png(marea.tensor{{0, 0.5}, {1, 7}}, place, {bits = 16}))
    assert.are.same({0, 32768, 65535, 65535}, marea.load_png(place, {bits = 16}):reshape(-1):totable())
    local function i64(value) return marea.tensor({{value}}, {dtype = "i64"}) end
    for _, value in ipairs{-1, 65536} do
      local message = message_of(marea.save_png, i64(value), place, {bits = 16})
      local want = ("save_png: '%s': samples of 16 bits are from 0 to 65535, got %d"):format(place, value)
      assert.is_truthy(message:find(want, 1, true), message)
    end
    assert.matches("expected u8, f32 or f64", message_of(marea.save_png, i64(1), place))
  end)

  it("is read by PIL", function()
    if without_peer() then return end
    local x = (marea.arange(0, 34) * 1873):to("i64"):reshape(5, 7)
    assert(marea.save_png(x, place, {bits = 16}))
    local where = place:match "^(.*)/"
    assert(os.execute(REFERENCE .. "wide " .. where))
    assert.are.equal(0, marea.load_npy(where .. "/wide.npy"):ne(x):sum():item())
  end)
end)
