-- SPDX-License-Identifier: MIT
-- NumPy's archives: what numpy.savez and numpy.savez_compressed write, and what numpy.load reads of ours.
local marea = require "marea"
local folder = require "spec.support.folder"
local allclose = require "spec.support.allclose"

local PYTHON = "/usr/bin/python3"

teardown(folder.remove)

--- Runs Python with NumPy on a text; its output. nil: there is none.
local function numpy(text, place)
  if not os.execute(PYTHON .. " -c 'import numpy' 2>/dev/null") then return nil end
  local script = folder.write(place .. "/run.py", "import numpy as np\n" .. text)
  local pipe = assert(io.popen(("cd %s && %s %s 2>&1"):format(folder.quote(place), PYTHON, script)))
  local output = pipe:read "a"
  assert(pipe:close(), output)
  return output
end

local SKIPPED = "needs Debian's python3-numpy (make setup-hosts)"

describe("an NPZ file", function()
  it("of numpy.savez or savez_compressed holds its arrays", function()
    local place = folder.new()
    if not numpy([=[
a = {"f8": np.arange(6.0).reshape(2, 3) / 7, "f4": np.float32([1.5, -2]), "f2": np.float16([0.5, 3]),
     "i8": np.int64([-2**62, 5]), "i4": np.int32([[-7], [8]]), "u2": np.uint16([65535]), "u1": np.uint8([200, 1]),
     "b1": np.array([True, False]), "scalar": np.float64(2.5), "empty": np.zeros((0, 3)),
     "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.arange(3, dtype=">f4"),
     "größe/x": np.ones(2), "zeros": np.zeros((300, 300))}
np.savez("plain.npz", **a)
np.savez_compressed("packed.npz", **a)]=], place) then return pending(SKIPPED) end
    for _, name in ipairs{"plain", "packed"} do
      local t = assert(marea.load_npz(place .. "/" .. name .. ".npz"))
      local function same(key, dtype, values)
        assert.are.equal(dtype, t[key].dtype, key)
        assert.are.same(values, t[key]:totable(), key)
      end
      same("f8", "f64", {{0, 1 / 7, 2 / 7}, {3 / 7, 4 / 7, 5 / 7}})
      same("f4", "f32", {1.5, -2})
      same("f2", "f16", {0.5, 3})
      same("i8", "i64", {-(1 << 62), 5})
      same("i4", "i64", {{-7}, {8}})
      same("u2", "i64", {65535})
      same("u1", "u8", {200, 1})
      same("b1", "u8", {1, 0})
      same("fortran", "f64", {{0, 1, 2}, {3, 4, 5}})
      same("big", "f32", {0, 1, 2})
      same("größe/x", "f64", {1, 1})
      assert.are.equal(2.5, t.scalar:item())
      assert.are.same({0, 3}, {t.empty:size()})
      assert.are.equal(0, t.zeros:abs():sum():item())
      local n = 0
      for _ in pairs(t) do n = n + 1 end
      assert.are.equal(14, n)
    end
  end)

  it("of objects, which can run code, is refused with the member's name", function()
    local place = folder.new()
    if not numpy("np.savez('o.npz', a=np.ones(2), o=np.array([{}], dtype=object))", place) then
      return pending(SKIPPED)
    end
    local t, message = marea.load_npz(place .. "/o.npz")
    assert.is_nil(t)
    assert.is_truthy(message:find("o.npz': 'o': element type '|O' is not supported", 1, true), message)
  end)

  it("is read by NumPy as it was saved, in the same bytes each time", function()
    local place = folder.new()
    local tensors = {w = marea.normal{3, 4}, ["größe"] = marea.tensor({1, -2, 3}, {dtype = "i64"}),
      half = marea.ones(3):to "f16", view = marea.normal{4, 5}:transpose(1, 2), scalar = marea.full({}, 7)}
    assert(marea.save_npz(tensors, place .. "/a.npz"))
    assert(marea.save_npz(tensors, place .. "/b.npz"))
    assert.are.equal(folder.read(place .. "/a.npz"), folder.read(place .. "/b.npz"))
    for name, t in pairs(assert(marea.load_npz(place .. "/a.npz"))) do
      allclose.assert(t, tensors[name], {exact = true})
    end
    local output = numpy([[
a = np.load("a.npz")
for n in sorted(a.files): print(n, a[n].dtype, a[n].shape)
np.save("view.npy", a["view"])]], place)
    if not output then return pending(SKIPPED) end
    assert.are.equal("größe int64 (3,)\nhalf float16 (3,)\nscalar float32 ()\nview float32 (5, 4)\nw float32 (3, 4)\n",
      output)
    allclose.assert(assert(marea.load_npy(place .. "/view.npy")), tensors.view, {exact = true})
  end)

  local networks = {
    dense = function(w) return (w.x:matmul(w.w1) + w.b1):relu():matmul(w.w2):add(w.b2):softmax() end,
    conv = function(w) return w.x:conv1d(w.w, w.b):tanh() end,
    recurrent = function(w) return (marea.rnn(w.x, w.w_x, w.w_h, w.b)) end,
    attention = function(w)
      local function heads(weight) return w.x:matmul(weight):unsqueeze(3) end
      return heads(w.q):scaled_dot_product_attention(heads(w.k), heads(w.v)):squeeze(3)
    end,
    normed = function(w) return w.x:layer_norm(w.gamma, w.beta):matmul(w.w):sigmoid() end,
  }

  it("gives networks that compute what NumPy does", function()
    if not numpy("", folder.new()) then return pending(SKIPPED) end
    local place = folder.new()
    folder.must(("%s spec/support/npz_networks.py %s"):format(PYTHON, folder.quote(place)))
    for name, run in pairs(networks) do
      local weights = assert(marea.load_npz(("%s/%s.npz"):format(place, name)))
      allclose.assert(run(weights), weights.y, {atol = 1e-5, rtol = 1e-5}, name)
    end
  end)

  it("of several megabytes keeps every byte", function()
    local place = folder.new() .. "/a.npz"
    local x = marea.normal{1000, 1500}
    assert(marea.save_npz({x = x}, place))
    allclose.assert(assert(marea.load_npz(place)).x, x, {exact = true})
  end)

  it("that is missing, or is none, gives nil and a message", function()
    local place = folder.new()
    local t, message = marea.load_npz(place .. "/no.npz")
    assert.is_nil(t)
    assert.matches("load_npz: .*No such file", message)
    t, message = marea.load_npz(folder.write(place .. "/no.npz", "no archive"))
    assert.is_nil(t)
    assert.matches("not a ZIP archive", message)
  end)

  it("takes tensors by name, and no bf16", function()
    local place = folder.new() .. "/a.npz"
    for _, case in ipairs{{{marea.ones(2)}, "expected names as keys"}, {{a = 1}, "'a'"}, {3, "tensors"},
      {{a = marea.ones(2):to "bf16"}, "NPY files have no bf16"}} do
      local ok, message = pcall(marea.save_npz, case[1], place)
      assert.is_false(ok)
      assert.is_truthy(message:find("save_npz: ", 1, true) and message:find(case[2], 1, true), message)
    end
    assert.is_nil(io.open(place))
  end)
end)
