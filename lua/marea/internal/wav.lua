-- SPDX-License-Identifier: MIT
--- marea.load_wav and marea.save_wav.
local core = require "marea.core"
local check = require "marea.internal.check"
local extra = require "marea.internal.extra"
local files = require "marea.internal.files"
local raw = require "marea.internal.raw"

local wav = {}

local MOST_RATE <const> = (1 << 31) - 1
local BITS <const> = {[16] = true, [24] = true, [32] = true}

function wav.load(path)
  local bytes, message = files.read(check.string("load_wav", "path", path))
  if not bytes then return core.failed("load_wav: " .. core.printable(message)) end
  local samples, frames, channels, rate = extra.load("sndfile", "load_wav").decode(bytes)
  if not samples then return core.failed(("load_wav: '%s': %s"):format(core.printable(path), frames)) end
  return raw.tensors{{dtype = "F32", shape = {frames, channels}, bytes = samples}}[1], rate
end

function wav.save(t, path, rate, options)
  check.tensor("save_wav", "t", t)
  check.string("save_wav", "path", path)
  if check.integer("save_wav", "rate", rate, 1) > MOST_RATE then
    check.fail("save_wav", "rate", "at most 2147483647 frames a second", rate)
  end
  local bits = check.options("save_wav", options, {"bits"}).bits or 16
  if not BITS[bits] then check.fail("save_wav", "bits", "16, 24 or 32", bits) end
  local channels = t.rank == 1 and 1 or t.rank == 2 and t:size(2) or 0
  if channels == 0 or (t.dtype ~= "f32" and t.dtype ~= "f64") then
    check.fail("save_wav", "t", "samples (frames) or (frames, channels), f32 or f64", t)
  end
  local samples = raw.bytes(core.no_grad(function() return t:to "f32" end))
  local bytes, message = extra.load("sndfile", "save_wav").encode(samples, channels, rate, bits)
  if not bytes then return core.failed(("save_wav: '%s': %s"):format(core.printable(path), message)) end
  return files.save("save_wav", path, bytes)
end

return wav
