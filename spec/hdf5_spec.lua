-- SPDX-License-Identifier: MIT
-- The optional module for HDF5: files of h5py (spec/golden/make_hdf5.py) as safetensors, and what is refused.
local marea = require "marea"
local bytes_of = require "spec.support.hex"
local folder = require "spec.support.folder"
local golden = require "spec.golden.hdf5"
local extra = require "marea.internal.extra"

teardown(folder.remove)

local found, hdf5 = pcall(require, "marea.hdf5")

describe("the module for HDF5", function()
  if not found then return pending("is not there: libhdf5-dev was missing when this was built") end

  local function refused(bytes, why)
    local result, message = hdf5.safetensors(bytes)
    assert.is_nil(result)
    assert.is_truthy(message:find(why, 1, true), message)
  end

  it("gives tensors of every dtype by their paths", function()
    local t = assert(marea.load_string(assert(hdf5.safetensors(bytes_of(golden.values)))))
    local want = {
      ["a/b/matrix"] = {"f32", {{0, 1, 2}, {3, 4, 5}}}, f16 = {"f32", {0.5, 65504}}, f64 = {"f64", {1 / 3}},
      ["big endian"] = {"f32", {1, -2}},
      i8 = {"i64", {-128, 127}}, u32 = {"i64", {4294967295}}, i64 = {"i64", {-(1 << 62)}},
      u8 = {"u8", {200, 1}}, truth = {"u8", {1, 0}},
    }
    for name, case in pairs(want) do
      assert.are.equal(case[1], t[name].dtype, name)
      assert.are.same(case[2], t[name]:totable(), name)
    end
    assert.are.equal(2.5, t.scalar:item())
    assert.are.same({0, 3}, {t.empty:size()})
    assert.is_true(t["a/b/packed"]:eq(marea.arange(0, 39):to "f32"):all():item() == 1)
    assert.are.same({20, 40}, {t["a/b/packed"]:size()})
  end)

  it("gives attributes that are texts", function()
    local _, texts = assert(marea.load_string(assert(hdf5.safetensors(bytes_of(golden.values)))))
    assert.are.same({["@kind"] = 'a "text",\n größe \\', ["@fixed"] = "fixed", ["a/b@names"] = "kernel:0\ngröße",
      ["a/b@fixed names"] = "one\nthree"}, texts)
  end)

  it("reads files of old versions of HDF5", function()
    local t = assert(marea.load_string(assert(hdf5.safetensors(bytes_of(golden.old)))))
    assert.are.same({0, 1, 2}, t["g/x"]:totable())
  end)

  it("refuses what leads out of the file, and what no tensor holds", function()
    refused(bytes_of(golden.soft), "'y' is a link to another place")
    refused(bytes_of(golden.external), "'x' is a link to another place")
    refused(bytes_of(golden.raw), "'x' has its data in another file")
    refused(bytes_of(golden.virtual), "'x' has its data in another file")
    refused(bytes_of(golden.cycle), "groups in groups, more than 64 deep")
    refused(bytes_of(golden.lzf), "'x' is compressed by filter 32000 (only deflate is supported)")
    refused(bytes_of(golden.unwritten), "damaged: 'x' declares 4398046511104 bytes, of which the file has 0")
    refused(bytes_of(golden.bomb), "damaged: 'x' declares 4398046511104 bytes, of which the file has ")
    refused(bytes_of(golden.shared), "'y5' has its data in common with others, or is damaged")
    refused(bytes_of(golden.strings), "the dtype of 'x' is none of a tensor")
    refused(bytes_of(golden.u64), "the dtype of 'x' is none of a tensor")
    refused("", "not an HDF5 file, or a damaged one")
    refused(("x"):rep(1000), "not an HDF5 file, or a damaged one")
  end)

  it("ends by Ctrl-C while it reads, however the program looks for it", function()
    local script = folder.write(folder.new() .. "/read.lua", ([[
package.path = %q .. "/?.lua;" .. package.path
local marea, hdf5 = require "marea", require "marea.hdf5"
local file = require "spec.support.hex"(require "spec.golden.hdf5".paths)
local function time(call)
  local before = marea.clock()
  local results = table.pack(call(hdf5.safetensors, file))
  return marea.clock() - before, table.concat({tostring(results[1]), tostring(results[2])}, " ")
end
local whole = time(pcall)
for _, call in ipairs{pcall, marea.catch_interrupt} do
  os.execute "p=$PPID; (sleep 0.2; kill -INT $p) >/dev/null 2>&1 &"
  local part, what = time(call)
  print(part < whole / 2, what)
end
]]):format(folder.absolute "."))
    local build = os.getenv "MAREA_BUILD" or "build"
    local text = folder.run(("%s/marea %s"):format(build, script))
    assert.matches("^true\t[^\n]*interrupted[^\n]*\ntrue\t[^\n]*interrupted", text)
  end)

  it("reads in a process that has no file open, and can get no rights", function()
    local file, cat = bytes_of(golden.paths), io.popen("cat", "w") -- it ends when nobody has its pipe any more
    local status
    debug.sethook(function() -- while safetensors looks for an interrupt
      if debug.getinfo(2, "S").source ~= "=hdf5" then return end
      debug.sethook()
      cat:close()
      status = folder.run [=[p=$PPID; grep -l "^PPid:[[:space:]]*$p$" /proc/[0-9]*/status | xargs grep NoNewPrivs]=]
    end, "l")
    assert(hdf5.safetensors(file))
    assert.matches("NoNewPrivs:%s*1", status)
  end)

  it("survives damaged files, each of which is read or refused with a message", function()
    local whole = bytes_of(golden.values)
    local random = 1
    local function draw(n)
      random = (random * 6364136223846793005 + 1442695040888963407)
      return (random >> 33) % n + 1
    end
    local n = {read = 0, refused = 0}
    local function try(bytes)
      local result, message = hdf5.safetensors(bytes)
      n[result and "read" or "refused"] = n[result and "read" or "refused"] + 1
      assert.is_truthy(result or #message > 0)
    end
    for length = 0, #whole - 1, 97 do try(whole:sub(1, length)) end
    for _ = 1, 200 do
      local at = draw(#whole)
      try(whole:sub(1, at - 1) .. string.char(draw(256) - 1) .. whole:sub(at + 1))
    end
    assert.is_true(n.read > 20 and n.refused > 100, ("%d, %d"):format(n.read, n.refused))
  end)
end)

describe("an optional module", function()
  it("that is missing is named, with the package that it needs", function()
    local path, loaded = package.cpath, package.loaded["marea.hdf5"]
    package.cpath, package.loaded["marea.hdf5"] = "", nil
    local ok, message = pcall(extra.load, "hdf5", "load_keras")
    package.cpath, package.loaded["marea.hdf5"] = path, loaded
    assert.is_false(ok)
    assert.matches("load_keras: there is no module for HDF5 %(marea/hdf5%.so%): .*libhdf5%-dev", message)
  end)

  it("is not there in a sandbox, which says so", function()
    local result, message = marea.sandbox{read = {"."}}:run [[return marea.load_csv("README.md")]]
    assert.is_nil(result)
    local expected = "load_csv: not in a sandbox, where modules for CSV files are not loaded"
    assert.is_truthy(message:find(expected, 1, true), message)
  end)

  it("that does not load says why", function()
    local loaded = package.loaded["marea.hdf5"]
    package.loaded["marea.hdf5"] = nil
    package.preload["marea.hdf5"] = function() error "libhdf5.so: cannot open" end
    local ok, message = pcall(extra.load, "hdf5", "load_keras")
    package.preload["marea.hdf5"], package.loaded["marea.hdf5"] = nil, loaded
    assert.is_false(ok)
    assert.matches("load_keras: the module for HDF5 does not load: .*libhdf5%.so: cannot open", message)
  end)
end)
