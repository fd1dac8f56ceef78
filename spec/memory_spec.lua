-- SPDX-License-Identifier: MIT
-- Memory: a steady training step makes no call of the allocator and leaves nothing behind; any request for memory may
-- fail, and then there is a Lua error, the weights are what they were, and the next step goes on as if nothing were.
local core = require "marea.core"
local marea = require "marea"
local folder = require "spec.support.folder"
local requests = require "spec.support.requests"
local small_vae = require "spec.support.small_vae"
local ops = core.ops
local in_use, assert_same_use, each_failure = requests.in_use, requests.assert_same_use, requests.each_failure

local function image_batch(n)
  core.seed(5)
  return ops.uniform {shape = {n, 8, 8, 1}}
end

describe("a training step", function()
  it("that is steady calls the allocator never and leaves nothing behind", function()
    local x = image_batch(8)
    local model = small_vae.new()
    for _ = 1, 5 do small_vae.step(model, x) end
    local before, mallocs, nodes = in_use(), core.memory().mallocs, core.tape_length()
    for _ = 1, 50 do small_vae.step(model, x) end
    assert.are.equal(mallocs, core.memory().mallocs)
    assert_same_use(before)
    assert.are.equal(nodes, core.tape_length())
  end)

  it("stays bounded without a scope and without a call of the collector", function()
    local x = image_batch(32)
    local model = small_vae.new()
    core.memory_reset_peak()
    for _ = 1, 300 do
      small_vae.loss(model.weights, x):backward()
      for _, name in ipairs(small_vae.names) do model.weights[name]:clear_grad() end
    end
    assert.is_true(core.memory().peak < 100e6, "peak " .. core.memory().peak)
  end)

  it("survives the failure of any request", function()
    local x = image_batch(4)
    core.seed(6)
    local model = small_vae.new()
    small_vae.step(model, x)
    local seed, counter = core.random_state()
    local start, saved = small_vae.bits(model), {}
    for name, t in pairs(small_vae.state(model)) do saved[name] = t:clone() end

    local function restore()
      for name, t in pairs(small_vae.state(model)) do t:copy_(saved[name]) end
      for _, name in ipairs(small_vae.names) do model.weights[name]:clear_grad() end
      core.set_random_state(seed, counter)
    end

    restore()
    local expected_loss = small_vae.step(model, x)
    local expected = small_vae.bits(model)
    restore()
    local before = in_use()

    local count = each_failure(function() return small_vae.step(model, x) end, function(ok, result, what)
      if ok then
        assert.are.equal(expected_loss, result, what)
        assert.is_true(small_vae.bits(model) == expected, what .. ": other weights")
      else
        assert.is_true(small_vae.bits(model) == start, what .. ": a failed step changed the weights")
      end
      restore()
      assert_same_use(before, what)
    end)
    assert.is_true(count > 50, "only " .. count .. " requests")
    assert.are.equal(expected_loss, small_vae.step(model, x))
    assert.is_true(small_vae.bits(model) == expected)
  end)
end)

describe("an operator", function()
  it("of any kind survives the failure of any request, forward and backward", function()
    local sample = require "spec.support.sample"
    for _, name in ipairs(core.op_names()) do
      local info = core.op_info(name)
      core.scope(function()
        core.seed(3)
        local inputs, attrs = sample.draw(info, sample.generator(3, {dtype = "f32"}))
        for i, t in pairs(inputs) do
          if info.differentiable and core.is_tensor(t) and t.dtype == "f32" then
            inputs[i] = t:detach():requires_grad_(true)
          end
        end
        sample.call(info, inputs, attrs)
        local before
        each_failure(function()
          core.scope(function()
            local y = sample.call(info, inputs, attrs)[1]
            if y and y.requires_grad then y:sum():backward() end
          end)
        end, function(_, _, what)
          for _, t in pairs(inputs) do if core.is_tensor(t) then t:clear_grad() end end
          before = before or in_use()
          assert_same_use(before, name .. ", " .. what)
        end)
      end)
    end
  end)
end)

describe("files", function()
  local path = os.tmpname()
  teardown(function() os.remove(path) end)

  local function tensors()
    return {a = ops.full {shape = {10, 3}, value = 1.5}, b = core.tensor({1, 2, 3}, {dtype = "i64"}),
      c = ops.full {shape = {}, value = 2, dtype = "f64"}}
  end

  it("are saved whole or not at all under failing requests", function()
    local t = tensors()
    assert(core.save(path, t, {step = "1"}))
    local before = in_use()
    each_failure(function()
      local ok, message = core.save(path, t, {step = "2"})
      if not ok then error(message, 0) end
    end, function(ok, _, what)
      core.scope(function()
        local _, texts = assert(core.load(path))
        assert.are.equal(ok and "2" or "1", texts.step, what)
      end)
      assert(core.save(path, t, {step = "1"}))
      assert_same_use(before, what)
    end)
  end)

  it("are loaded whole or not at all under failing requests", function()
    assert(core.save(path, tensors(), {step = "1"}))
    local before = in_use()
    each_failure(function()
      local loaded, texts = core.load(path)
      if not loaded then error(texts, 0) end
      assert.are.equal("1", texts.step)
      assert.are.equal(1.5, loaded.a[{10, 3}])
    end, function(_, _, what)
      assert_same_use(before, what)
    end)
  end)
end)

describe("scopes", function()
  it("release what they do not return, and say so", function()
    local outer, inner
    outer = core.scope(function()
      inner = core.tensor {1, 2}
      return {deep = {core.tensor {3}}}
    end)
    assert.is_true(inner:is_released())
    assert.are.equal(3, outer.deep[1]:item())
    local ok, message = pcall(function() return inner + 1 end)
    assert.is_false(ok)
    for _, text in ipairs {"f32", "(2)", "made at", "memory_spec.lua", "released by the scope", "keep()"} do
      assert.is_truthy(message:find(text, 1, true), message)
    end
  end)

  it("keep what is kept", function()
    local kept
    core.scope(function() kept = core.tensor {1}:keep() end)
    assert.is_false(kept:is_released())
  end)

  it("end with <close>, with an error and with break", function()
    local a, b, c
    do
      local _ <close> = core.scope()
      a = core.tensor {1}
    end
    pcall(function()
      local _ <close> = core.scope()
      b = core.tensor {1}
      error "x"
    end)
    for i = 1, 3 do
      local _ <close> = core.scope()
      c = core.tensor {1}
      if i == 2 then break end
    end
    assert.is_true(a:is_released() and b:is_released() and c:is_released())
  end)

  it("of coroutines that take turns do not end each other's", function()
    local function body()
      return core.scope(function()
        local t = core.tensor {1}
        coroutine.yield(t)
        assert.is_false(t:is_released())
        coroutine.yield(t)
        return t:item()
      end)
    end
    local one, two = coroutine.wrap(body), coroutine.wrap(body)
    one()
    local t = two()
    one()
    assert.are.equal(1, one())
    assert.is_false(t:is_released())
    two()
    assert.are.equal(1, two())
    assert.is_true(t:is_released())
  end)

  it("free memory at once", function()
    local before = core.memory().live
    core.scope(function()
      local _ = ops.full {shape = {1000, 1000}, value = 0}
      assert.is_true(core.memory().live >= before + 4e6)
    end)
    assert.is_true(core.memory().live < before + 1e6)
  end)
end)

describe("the limit", function()
  teardown(function() core.memory_limit(nil) end)

  it("is an error that tells what was wanted and what there is", function()
    core.memory_trim()
    local held = core.memory() -- pooled: parts of blocks that what other tests left keeps
    core.memory_limit(held.live + held.pooled + 10 * 1024 * 1024)
    local ok, message = pcall(ops.full, {shape = {10000000}, value = 0})
    assert.is_false(ok)
    assert.is_truthy(message:find("full", 1, true) and message:find "memory", message)
    assert.is_number(ops.full {shape = {1000}, value = 1}:sum():item())
    core.memory_limit(nil)
    ops.full {shape = {10000000}, value = 0}:release()
  end)

  it("makes room by collecting garbage first", function()
    core.memory_limit(core.memory().live + 20 * 1024 * 1024)
    for _ = 1, 50 do local _ = ops.full {shape = {2000000}, value = 0} end -- 8 MB each, never released by hand
    core.memory_limit(nil)
  end)

  it("refuses sizes that overflow", function()
    local shapes = {{1 << 40, 1 << 40}, {1 << 62}, {(1 << 31) + 5, 1 << 31}, {-1}, {1 << 20, 1 << 20, 1 << 20}}
    for _, shape in ipairs(shapes) do
      local ok, message = pcall(ops.full, {shape = shape, value = 0})
      assert.is_false(ok)
      assert.is_truthy(message:find("full", 1, true), message)
    end
  end)
end)

describe("memory_report", function()
  teardown(folder.remove)

  it("lists the largest tensors with the lines that made them", function()
    local line = debug.getinfo(1, "l").currentline
    local big = marea.ones(5000, 3000) -- larger than what other specs may hold
    local view = marea.ones(4000, 3000):transpose(1, 2)
    local report = marea.memory_report()
    local first, second = report.tensors[1], report.tensors[2]
    assert.are.same({4 * 5000 * 3000, "f32", {5000, 3000}}, {first.bytes, first.dtype, first.shape})
    assert.are.equal("spec/memory_spec.lua:" .. line + 1, first.made)
    assert.are.same({4000, 3000}, second.shape)
    assert.are.equal("spec/memory_spec.lua:" .. line + 2, second.made)
    assert.matches("\nf32 %(5000, 3000%) +spec/memory_spec.lua:" .. line + 1 .. " +60.0 MB\n", tostring(report))
    big:release()
    assert.are.same({4000, 3000}, marea.memory_report().tensors[1].shape)
    view:release()
  end)

  it("lists small ones where there are no others, and none that are gone, elsewhere or planned", function()
    local at = folder.new()
    folder.write(at .. "/small.lua", [[
      local marea = require "marea"
      local a, b, list = marea.ones(3, 2), marea.ones(5, 50), {}
      for i = 1, 500 do list[i] = marea.zeros(i) end
      for i = 1, 500 do list[i]:release() end
      print(marea.memory_report())
      marea.plan(function() local planned = a:matmul(marea.ones(2, 1000000)) print(#marea.memory_report().tensors) end)
    ]])
    local text, code = folder.lua(at .. "/small.lua")
    assert.are.equal(0, code, text)
    local rows = "\nf32 %(5, 50%) +[^\n]*small.lua:2 +1.00 kB\nf32 %(3, 2%) +[^\n]*small.lua:2 +24 B\nothers"
    assert.is_truthy(text:find(rows), text)
    assert.is_truthy(text:find "\n2\n$", text)
  end)

  it("names parameters, their gradients and what optimizers remember, and finds what only the graph holds", function()
    local net = marea.nn.Sequential{marea.nn.Linear{1000, 5000, name = "dense", bias = false}}
    local optimizer = marea.optim.RMSprop{net}
    optimizer:step(net(marea.ones(1, 1000)):sum())
    net(marea.ones(1, 1000)):sum():backward()
    local names = {}
    for _, t in ipairs(marea.memory_report().tensors) do names[t.name or ""] = t.bytes end
    assert.are.equal(20e6, names["dense.weight"])
    assert.are.equal(20e6, names["dense.weight.grad"])
    assert.are.equal(20e6, names["dense.weight.square"])
    local x = marea.ones(6000, 1000):requires_grad_()
    local y = marea.scope(function() return (x * 2):exp():sum() end)
    assert.are.same({6000, 1000}, marea.memory_report().tensors[2].shape)
    assert.is_true(marea.memory_report().nodes >= 3)
    y:release()
    x:release()
  end)

  it("keeps nothing alive and costs no memory", function()
    marea.memory_report()
    collectgarbage()
    collectgarbage()
    local before = marea.memory().live
    for _ = 1, 10 do marea.memory_report() end
    collectgarbage()
    collectgarbage()
    assert.are.equal(before, marea.memory().live)
  end)
end)
