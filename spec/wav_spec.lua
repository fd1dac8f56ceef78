-- SPDX-License-Identifier: MIT
-- marea.load_wav and save_wav, against Python's module wave.
local marea = require "marea"
local folder = require "spec.support.folder"
local allclose = require "spec.support.allclose"

teardown(folder.remove)

local path = folder.new() .. "/a.wav"

--- A file of these samples as bytes; format 1: PCM, 3: floats, 6: A-law, 7: mu-law.
local function wav(format, channels, rate, bits, data, declared)
  local frame = channels * bits // 8
  local fmt = ("<I2I2I4I4I2I2"):pack(format, channels, rate, rate * frame, frame, bits)
  local body = "WAVE" .. ("<c4s4"):pack("fmt ", fmt) .. ("<c4I4"):pack("data", declared or #data) .. data
  return "RIFF" .. ("<I4"):pack(#body) .. body
end

local function load(bytes)
  folder.write(path, bytes)
  return marea.load_wav(path)
end

describe("load_wav", function()
  if not pcall(require, "marea.sndfile") then
    return pending "is not there: libsndfile1-dev was missing when this was built"
  end

  it("gives the samples of every width, frame by frame", function()
    local x, rate = assert(load(wav(1, 2, 8000, 16, ("<i2i2i2i2"):pack(0, 16384, -32768, 32767))))
    assert.are.same({8000, "f32", {{0, 0.5}, {-1, 32767 / 32768}}}, {rate, x.dtype, x:totable()})
    assert.are.same({{-1}, {0}, {0.5}}, (load(wav(1, 1, 8000, 8, "\0\128\192"))):totable())
    assert.are.same({{-0.5}}, (load(wav(1, 1, 44100, 24, ("<i3"):pack(-2 ^ 22 | 0)))):totable())
    assert.are.same({{0.25}}, (load(wav(1, 1, 44100, 32, ("<i4"):pack(2 ^ 29 | 0)))):totable())
    assert.are.same({{0.25}, {-3}}, (load(wav(3, 1, 44100, 32, ("<ff"):pack(0.25, -3)))):totable())
    assert.are.same({{0.75}}, (load(wav(3, 1, 44100, 64, ("<d"):pack(0.75)))):totable())
    allclose.assert(load(wav(7, 1, 8000, 8, "\0\255\128")), {{-32124 / 32768}, {0}, {32124 / 32768}}, {exact = true})
    allclose.assert(load(wav(6, 1, 8000, 8, "\213\170")), {{8 / 32768}, {32256 / 32768}}, {exact = true})
    assert.are.same({0, 3}, (load(wav(1, 3, 8000, 16, ""))).shape)
  end)

  it("agrees with Python's wave, both ways", function()
    if not os.execute "/usr/bin/python3 -W ignore -c 'import wave' 2>/dev/null" then return pending "needs Python" end
    local code = [[/usr/bin/python3 -W ignore -c '
import random, struct, wave
random.seed(%d)
values = [random.randrange(-2**15, 2**15) for _ in range(3000)]
with wave.open("%s", "wb") as f:
  f.setnchannels(3); f.setsampwidth(2); f.setframerate(22050); f.writeframes(struct.pack("<3000h", *values))
print(*values)']]
    local list = {}
    for value in folder.must(code:format(1, path)):gmatch "%S+" do list[#list + 1] = tonumber(value) / 32768 end
    local x, rate = assert(marea.load_wav(path))
    assert.are.equal(22050, rate)
    allclose.assert(x:reshape(-1), list, {exact = true})
    assert.is_true(marea.save_wav(x, path, 22050))
    local back = folder.must(([[/usr/bin/python3 -W ignore -c '
import struct, wave
f = wave.open("%s")
print(f.getnchannels(), f.getsampwidth(), f.getframerate(), *struct.unpack("<3000h", f.readframes(1000)))']])
      :format(path))
    local n = 0
    for value in back:match "^3 2 22050 (.*)":gmatch "%S+" do
      n = n + 1
      assert.are.equal(list[n] * 32768, tonumber(value))
    end
    assert.are.equal(3000, n)
  end)

  it("gives what save_wav was given, to the width of a sample; what is too loud is cut off", function()
    local x = (marea.arange(0, 999) * 0.05):sin()
    for _, case in ipairs{{16, 2 ^ -15}, {24, 2 ^ -23}, {32, 0}} do
      local bits, error = table.unpack(case)
      assert.is_true(marea.save_wav(x, path, 16000, {bits = bits}))
      allclose.assert((marea.load_wav(path)):reshape(-1), x, {atol = error, rtol = 0})
    end
    assert.is_nil(folder.read(path):find("PEAK", 1, true)) -- a chunk with the time of day
    assert.is_true(marea.save_wav(marea.tensor({2, -2}, {dtype = "f64"}), path, 8000))
    assert.are.same({{32767 / 32768}, {-1}}, (marea.load_wav(path)):totable())
  end)

  local function refused(bytes, why)
    local x, message = load(bytes)
    assert.is_nil(x)
    assert.is_truthy(message:find(("load_wav: '%s': %s"):format(path, why), 1, true), message)
  end

  it("refuses what is no WAV file, is compressed or is not there", function()
    local fmt = ("<I2I2I4I4I2I2I2I2"):pack(17, 1, 8000, 4055, 256, 4, 2, 505) -- IMA ADPCM: 505 samples in 256 bytes
    local body = "WAVE" .. ("<c4s4c4s4c4s4"):pack("fmt ", fmt, "fact", ("<I4"):pack(505), "data", ("\0"):rep(256))
    local adpcm = "RIFF" .. ("<s4"):pack(body)
    refused("", "not a WAV file")
    refused("fLaC" .. ("\0"):rep(100), "not a WAV file")
    refused(adpcm, "its sound is compressed (samples must be PCM, floats, mu-law or A-law)")
    local x, message = marea.load_wav(path .. ".none")
    assert.is_nil(x)
    assert.is_truthy(message:find("load_wav: " .. path .. ".none: No such file", 1, true), message)
  end)

  it("takes no memory for sound that is declared and not there", function()
    local before = collectgarbage "count"
    local x = load(wav(1, 2, 8000, 16, ("\0"):rep(40), 0xfffffff0))
    assert.is_true(x == nil or x:size(1) <= 10)
    assert.is_true(collectgarbage "count" < before + 1000)
  end)

  it("survives any bytes, with a message or samples", function()
    local random = 1
    local function draw(n)
      random = random * 6364136223846793005 + 1442695040888963407
      return (random >> 33) % n + 1
    end
    local n = {read = 0, refused = 0}
    local function try(bytes)
      local x, message = load(bytes)
      assert.is_truthy(x or message:find "^load_wav: ")
      local outcome = x and "read" or "refused"
      n[outcome] = n[outcome] + 1
    end
    for _, whole in ipairs{wav(1, 2, 8000, 16, ("\1\2"):rep(50)), wav(3, 1, 8000, 32, ("\1\2\3\4"):rep(20))} do
      for length = 0, #whole do try(whole:sub(1, length)) end
      for _ = 1, 5000 do
        local at = draw(60)
        try(whole:sub(1, at - 1) .. string.char(draw(256) - 1) .. whole:sub(at + 1))
      end
    end
    assert.is_true(n.read > 200 and n.refused > 200, ("%d, %d"):format(n.read, n.refused))
  end)

  it("and save_wav refuse arguments that make no sense", function()
    local function raises(text, ...)
      local ok, message = pcall(marea.save_wav, ...)
      assert.is_false(ok)
      assert.is_truthy(message:find(text, 1, true), message)
    end
    raises("bits", marea.zeros{3}, path, 8000, {bits = 8})
    raises("rate", marea.zeros{3}, path, 0)
    raises("rate", marea.zeros{3}, path, (1 << 32) + 8000)
    raises("samples (frames) or (frames, channels)", marea.zeros{3, 0}, path, 8000)
    raises("samples (frames) or (frames, channels)", marea.zeros{3, 2, 1}, path, 8000)
    raises("samples (frames) or (frames, channels)", marea.zeros({3}, {dtype = "i64"}), path, 8000)
    local done, message = marea.save_wav(marea.zeros{3}, "/none/a.wav", 8000)
    assert.is_nil(done)
    assert.matches("^save_wav: '/none/a.wav': ", message)
    assert.is_nil((marea.save_wav(marea.zeros{3, 5000}, path, 8000)))
  end)
end)
