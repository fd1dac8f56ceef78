-- SPDX-License-Identifier: MIT
-- Files that llama.cpp's own package wrote (spec/golden/make_gguf.py): tensors, what else is told, networks, refusals.
local marea = require "marea"
local folder = require "spec.support.folder"
local allclose = require "spec.support.allclose"
local bytes_of = require "spec.support.hex"
local golden = require "spec.golden.gguf"
local nn = marea.nn

teardown(folder.remove)

local place = folder.new() .. "/a.gguf"

local function load(bytes)
  folder.write(place, bytes)
  return marea.load_gguf(place)
end

local function refused(bytes, why)
  local value, message = load(bytes)
  assert.is_nil(value)
  assert.is_truthy(message:find("load_gguf: '" .. place .. "': " .. why, 1, true), message)
end

describe("a GGUF file", function()
  local whole = bytes_of(golden.everything.file)

  it("holds the tensors that the package reads, with PyTorch's shapes", function()
    local tensors = assert(load(whole))
    local dtypes = {f32 = "f32", f64 = "f64", f16 = "f16", bf16 = "bf16", q8_0 = "f32", q4_0 = "f32"}
    for name, want in pairs(golden.everything.tensors) do
      local t = tensors[name]
      assert.are.equal(dtypes[name] or "i64", t.dtype, name)
      assert.are.same(want.shape, t.shape, name)
      for i, x in ipairs(t:reshape(-1):to("f64"):totable()) do assert.are.equal(want[1][i], x, name) end
      tensors[name] = nil
    end
    assert.is_nil(next(tensors))
  end)

  it("tells more: numbers, texts, truth values and lists", function()
    local _, told = assert(load(whole))
    local want = {u8 = 200, i8 = -100, u16 = 65535, i16 = -300, u32 = 4294967295, i32 = -70000, u64 = 1 << 40,
      i64 = -(1 << 62), f32 = 0.5, f64 = 0.1, yes = true, no = false, text = "größe", words = {"<s>", "a", "bc"},
      scores = {0.5, -1.5}, ids = {3, -1, 7}, ["general.architecture"] = "test"}
    assert.are.same(want, told)
  end)

  it("may be of version 2, and of no other", function()
    assert(load(whole:sub(1, 4) .. "\2" .. whole:sub(6)))
    refused(whole:sub(1, 4) .. "\1" .. whole:sub(6), "version 1 of GGUF; 2 and 3 are supported")
    refused("GGUF\0\0\0\3" .. whole:sub(9), "big-endian, which is not supported")
    refused("GGML" .. whole:sub(5), "not a GGUF file")
  end)

  it("with other blocks is refused: all are named, with their tensors", function()
    refused(bytes_of(golden.refused), "block types that are not supported: Q4_K ('a', 'd'), Q6_K ('c')")
  end)

  for name, case in pairs(golden.networks) do
    it("gives a network the weights of the package: " .. name, function()
      local net = nn.Sequential{nn.Linear{32, 32}, nn.ReLU{}, nn.Linear{32, 3}}
      local state = assert(load(bytes_of(case.file)))
      for key, t in pairs(state) do state[key] = t:to("f32") end
      net:load_state(state, {from = "torch"})
      allclose.assert(net(marea.tensor(case.x):reshape(4, 32)):reshape(-1), case.y, {atol = 1e-5, rtol = 1e-5})
    end)
  end

  it("that is missing or cut gives nil and a message", function()
    local t, message = marea.load_gguf(place .. ".no")
    assert.is_nil(t)
    assert.matches("load_gguf: .*No such file", message)
    refused(whole:sub(1, 40), "truncated: it ends too early")
    refused(whole:sub(1, -40), "truncated: tensor 'q4_0' has 72 bytes at byte")
  end)
end)
