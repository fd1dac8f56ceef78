-- SPDX-License-Identifier: MIT
-- What the benchmarks calculate, and that our side of them runs.
local marea = require "marea"
local folder = require "spec.support.folder"

local path = package.path
package.path = "bench/?.lua;" .. path
local encode, layers = require "lib.json", require "lib.layers"
local report, stats = require "lib.report", require "lib.stats"
local onnx_model, vae_model = require "peers.onnx_model", require "vae_model"
package.path = path

teardown(folder.remove)

describe("medians and ratios", function()
  it("skip rounds that failed", function()
    assert.are.same({median = 2, low = 1, high = 9}, stats.summary{9, nil, 1, 2})
    assert.are.equal(1.5, stats.median{2, 1})
    assert.is_nil(stats.summary{})
    assert.are.same({[1] = 3, [3] = 2}, stats.ratios({6, 5, 8, 7}, {2, nil, 4}))
  end)

  it("take the best of a peer's settings, and ratios round by round", function()
    local ours, slow, fast = {rounds = {10, 20, 10}}, {rounds = {50, 50, 50}, label = "slow"}, {rounds = {30, 30, 40},
      label = "fast"}
    local row = report.resolve{{name = "x", unit = "us", factor = 1000, limit = 5, ours = ours,
      peers = {PyTorch = {slow, fast}}}}[1]
    assert.are.equal("fast", row.peers.PyTorch.setting)
    assert.are.equal(30000, row.peers.PyTorch.median)
    assert.are.same({median = 3, low = 1.5, high = 4}, row.peers.PyTorch.ratio)
    assert.are.equal(0.5, row.share)
    fast.by_cpu = true -- ours is not
    local measured = report.resolve{{name = "x", unit = "ms", ours = ours, peers = {PyTorch = {slow, fast}}}}[1]
    assert.are.equal("slow", measured.peers.PyTorch.setting)
    assert.are.equal(1, #measured.settings.PyTorch)
    local text = report.text{row}
    assert.is_truthy(text:find("3.00 (1.50-4.00)", 1, true), text)
    assert.is_nil(text:find "oneDNN", text)
  end)

  it("tell who is fastest, every setting that was asked for, and why one has no figure", function()
    local function row(rounds) return {rounds = rounds} end
    local eager = {rounds = {30, 20}, label = "eager"}
    local compiled = {rounds = {15, 15}, label = "compiled", remark = "warm"}
    local broken = {rounds = {}, label = "broken", failure = "RuntimeError: no"}
    local rows = report.resolve{
      {name = "a", threads = 2, precision = "bf16", unit = "ms", ours = row{10, 10}, list_settings = true,
        peers = {PyTorch = {eager, compiled, broken}}},
      {name = "b", unit = "ms", ours = row{20, 20}, peers = {PyTorch = {broken}, ["ONNX Runtime"] = {row{10, 10}}}},
      {name = "c", unit = "ms", ours = row{20, 20}, peers = {oneDNN = {row{10, 10}}}, bounds = {oneDNN = true}},
    }
    assert.are.same({name = "Marea", ratio = 1.5, low = 1.5, high = 1.5, next = "PyTorch", setting = "compiled"},
      rows[1].fastest)
    assert.are.same({name = "ONNX Runtime", ratio = 2, low = 2, high = 2, next = "Marea"}, rows[2].fastest)
    assert.is_nil(rows[3].fastest)
    assert.are.same({"a, 2, bf16: PyTorch, eager: 2.50 (2.00-3.00)",
      "a, 2, bf16: PyTorch, compiled: 1.50 (1.50-1.50), warm", "a, 2, bf16: PyTorch, broken: RuntimeError: no",
      "b, 1: PyTorch, broken: RuntimeError: no"}, report.settings(rows))
    assert.is_truthy(report.text(rows):find("ONNX Runtime, 2.00 times Marea", 1, true))
    local summary = report.summary{{group = "g", rows = rows}}
    assert.is_truthy(summary:find "\ng: a +2 +bf16 +Marea +1%.50 +1%.50%-1%.50 +PyTorch +compiled\n", summary)
    assert.is_truthy(summary:find "\ng: b .*ONNX Runtime +2%.00 .*Marea", summary)
    assert.is_nil(summary:find "g: c", summary)
    assert.is_nil(report.summary{{group = "g", rows = {rows[3]}}})
  end)

  it("are written as JSON", function()
    assert.are.equal('{\n  "a": [1, 2.5],\n  "b\\"\\u000a": [\n    {\n      "c": true\n    }\n  ]\n}',
      encode{a = {1, 2.5}, ['b"\n'] = {{c = true}}})
    assert.are.equal('{\n  "1": 5,\n  "4": []\n}', encode{5, [4] = {}})
  end)
end)

describe("cases on several numbers of threads", function()
  it("are asked in all settings; fewer threads count, and what fails is asked once", function()
    local script = folder.write(folder.new() .. "/passes.lua", [[
      package.path = "bench/?.lua;" .. package.path
      local contestants, passes = require "lib.contestants", require "lib.passes"
      local asked, report = {}, require "lib.report"
      function contestants.get(name)
        return {ask = function(_, request)
          local key = name .. ": " .. request
          asked[key] = (asked[key] or 0) + 1
          if request:find "compile=1 threads=2" then return nil, "no compiler" end
          return {name == "Marea" and 2 or request:find "compile" and 3 or 4}, "said"
        end}
      end
      local settings = require "lib.settings"
      local bench = {threads = {1, 2}, rounds = 3, isa = "x", limits = {peak = {x = {1, 2}}}}
      local case = {name = "case", request = "kind a=1", seconds = 0.5, bf16 = true,
        peers = {PyTorch = settings.pytorch{layouts = true, compiled = true}, JAX = settings.jax}}
      local rows = report.resolve(passes.run(bench, "test", {passes.both(bench, case, {forward = 1e6, step = 2e6})}))
      for _, row in ipairs(rows) do
        local p = row.peers.PyTorch
        print(row.name, row.threads, row.precision, row.limit, p.setting, p.ratio.median, #row.settings.PyTorch,
          #row.settings.JAX)
      end
      local list = {}
      for key, count in pairs(asked) do list[#list + 1] = count .. " " .. key end
      table.sort(list)
      print(table.concat(list, "\n"))
      print(table.concat(report.settings{rows[2]}, "\n"))
    ]])
    local text, code = folder.lua(script)
    assert.are.equal(0, code, text)
    local bf16 = rawget(marea, "autocast") and "bf16" or "f32 | bf16"
    local best = "1 thread tuned, channels first, compiled\t1.5"
    for _, line in ipairs{"case\t1\tf32\t1.0\t" .. best .. "\t8\t1", "case\t2\tf32\t0.5\t" .. best .. "\t18\t2",
      ("case\t2\t%s\tnil\t%s\t18\t2"):format(bf16, best), "case, with gradients\t2\tf32\t1.0\t" .. best .. "\t18\t2",
      "3 Marea: kind a=1 map=step threads=2 seconds=0.5", "3 JAX 2: kind a=1 map=step bf16=1 threads=2 seconds=0.5",
      "2 PyTorch: kind a=1 map=forward layout=first threads=1 seconds=0.5", -- a trial, in which it was far behind
      "3 PyTorch tuned: kind a=1 map=step bf16=1 layout=last compile=2 threads=1 seconds=0.5",
      "1 PyTorch tuned: kind a=1 map=step layout=first compile=1 threads=2 seconds=0.5",
      "2 PyTorch passive: kind a=1 map=step layout=last threads=2 seconds=0.5",
      "case, 2, f32: PyTorch, 1 thread tuned, channels last, max-autotune: 1.50 (1.50-1.50), said",
      "case, 2, f32: PyTorch, 2 threads passive, channels first: 2.00 (2.00-2.00), said",
      "case, 2, f32: PyTorch, 2 threads tuned, channels first, compiled: no compiler"} do
      assert.is_truthy(text:find(line, 1, true), line .. "\n" .. text)
    end
    assert.is_nil(text:find "passive: [^\n]* threads=1 ", text)
  end)
end)

describe("the layers", function()
  it("have the FLOP of the VAE's training step", function()
    assert.are.equal("19.403", marea.format("%.3f", 1e-9 * layers.step_flop())) -- counted by hand, layer by layer
  end)

  it("that are transposed ask oneDNN for the convolution's other maps", function()
    local up1 = layers.convolutions[4]
    assert.are.equal("conv map=input fused=0 n=128 h=28 w=28 cin=32 cout=64 kernel=3 stride=2 threads=1 seconds=1",
      layers.onednn_request(up1, "forward", 1, 1))
    assert.are.equal("conv map=forward fused=0 n=128 h=28 w=28 cin=32 cout=64 kernel=3 stride=2 threads=1 seconds=1",
      layers.onednn_request(up1, "input", 1, 1))
  end)
end)

describe("the layers at 224x224", function()
  it("are those of the networks that differ, with their multiply-adds", function()
    assert.are.equal(11, #layers.resnet18)
    assert.are.equal("7x7 3>64 /2 at 224", layers.resnet18[1].name)
    assert.are.equal(2 * 118013952, math.tointeger(layers.flop(layers.resnet18[1]))) -- He et al.: 112 * 112 * 49 * 192
    assert.are.equal(30, #layers.mobilenet) -- table 2 of Sandler et al., block by block
    local seen = {}
    for _, layer in ipairs(layers.mobilenet) do
      assert.is_nil(seen[layer.name])
      seen[layer.name] = layer
    end
    local depthwise = seen["depthwise 3x3 96>96 /2 at 112"]
    assert.are.equal(2 * 56 * 56 * 9 * 96, math.tointeger(layers.flop(depthwise)))
    assert.are.equal("conv kind=conv map=forward n=16 h=112 w=112 cin=96 cout=96 kernel=3 stride=2 groups=96 pad=1",
      layers.vision_request(depthwise, "forward", 16))
    assert.is_truthy(seen["1x1 320>1280 at 7"])
  end)
end)

describe("the ONNX model", function()
  it("is a well-formed message with all weights", function()
    local file = folder.new() .. "/decoder.onnx"
    onnx_model.save(vae_model("sigmoid").model.decoder, file, false)
    local text, at, sizes = folder.read(file), 1, {}
    while at <= #text do -- the fields of ModelProto, by the format of protocol buffers
      local key = text:byte(at)
      local length, shift = 0, 0
      repeat
        at = at + 1
        length, shift = length | (text:byte(at) & 0x7f) << shift, shift + 7
      until text:byte(at) < 0x80
      at = at + 1
      if key & 7 == 2 then
        sizes[key >> 3] = length
        at = at + length
      end
    end
    assert.are.equal(#text + 1, at)
    assert.is_true(sizes[7] > 4 * 1646561 and sizes[7] < 4 * 1646561 + 2000) -- graph: the decoder's parameters
  end)
end)

describe("our side of the benchmarks", function()
  it("answers every kind of request", function()
    local requests = {"step batch=2", "gan batch=2", "decoder batch=2", "chain nodes=10 scope=0",
      "chain nodes=10 scope=1", "nonsense"}
    for _, map in ipairs{"forward", "step"} do
      requests[#requests + 1] = "attention rows=1 length=3 heads=2 width=4 causal=1 map=" .. map
    end
    requests[#requests + 1] = "reader size=4 words=9 letters=5 paragraphs=2 questions=3 length=9 kinds=6"
    for _, map in ipairs{"forward", "step"} do
      for _, kind in ipairs{"LSTM", "GRU"} do
        requests[#requests + 1] = ("recurrent kind=%s rows=2 length=3 inputs=2 hidden=4 map=%s"):format(kind, map)
      end
      for _, model in ipairs{"transformer", "lstm"} do
        requests[#requests + 1] = ("language model=%s layers=1 heads=2 width=8 context=3 batch=2 vocabulary=5 map=%s")
          :format(model, map)
      end
    end
    for sparse = 0, 1 do
      requests[#requests + 1] = "embedding vocabulary=9 width=3 numbers=4 sparse=" .. sparse
    end
    for from = 0, 2, 2 do
      requests[#requests + 1] = "writing layers=1 heads=2 width=4 vocabulary=5 length=3 from=" .. from
    end
    requests[#requests + 1] = "conv kind=conv map=forward n=1 h=5 w=5 cin=4 cout=4 kernel=3 stride=1 groups=4 pad=1"
    for _, kind in ipairs{"mlp", "dqn", "classifier", "counting side=8"} do
      requests[#requests + 1] = kind .. " batch=2"
    end
    for _, op in ipairs{"add", "add_", "relu"} do
      for scope = 0, 1 do requests[#requests + 1] = ("small op=%s scope=%d"):format(op, scope) end
    end
    for _, kind in ipairs{"conv", "transposed"} do
      for _, map in ipairs{"forward", "input", "weight"} do
        requests[#requests + 1] = ("conv kind=%s map=%s n=2 h=5 w=5 cin=3 cout=4 kernel=3 stride=2"):format(kind, map)
      end
    end
    for i = 1, #requests do
      local kind = requests[i]:match "^%w+"
      if not ({chain = 1, nonsense = 1, embedding = 1, small = 1})[kind] then
        requests[#requests + 1] = requests[i] .. " bf16=1"
      end
    end
    local lines = folder.write(folder.new() .. "/requests", table.concat(requests, " threads=2 seconds=0\n")
      .. " threads=2 seconds=0\n")
    local text, code = folder.lua("bench/ours/worker.lua < " .. lines)
    assert.are.equal(0, code, text)
    local answers = {}
    for line in text:gmatch "[^\n]+" do answers[#answers + 1] = line end
    assert.are.equal("ready Marea " .. marea.info().version .. " " .. marea.info().isa, answers[1])
    assert.are.equal(#requests + 1, #answers)
    for i, request in ipairs(requests) do
      local wanted = request == "nonsense" and "^error .*unknown request nonsense" or "^ok [%d.e-]+$"
      assert.is_truthy(answers[i + 1]:find(wanted), request .. ": " .. answers[i + 1])
    end
  end)
end)

describe("the peers", function()
  it("have pinned versions", function()
    for line in io.lines "bench/peers/versions.txt" do assert.is_truthy(line:find "^[%w-]+==[%d.]+$", line) end
  end)

  it("are installed one by one, and one that cannot be had is named", function()
    local here = folder.new()
    assert(os.execute(("mkdir -p %s/venv/bin"):format(here)))
    local python = folder.write(here .. "/venv/bin/python", "#!/bin/sh\n"
      .. 'echo "$*" >>"$(dirname "$0")/asked"\n'
      .. 'case "$*" in *keras==*) echo "ERROR: no such release" >&2; exit 1;; esac\n')
    assert(os.execute("chmod +x " .. python))
    local pipe = assert(io.popen(("sh bench/peers/install.sh %s 2>&1"):format(here)))
    local text = pipe:read "a"
    assert.is_true((pipe:close()))
    local wanted = {}
    for line in io.lines "bench/peers/versions.txt" do
      wanted[#wanted + 1] = line:find "^keras" and line .. ": not to be had here: ERROR: no such release" or line
    end
    assert.are.equal(table.concat(wanted, "\n") .. "\n", text)
    local asked = folder.read(here .. "/venv/bin/asked") -- PyTorch without the libraries of graphics cards
    assert.is_truthy(asked:find "%-%-no%-deps torch==[%d.]+\nbench/peers/torch_alone%.py\n", asked)
    assert.is_nil(asked:find "%-%-no%-deps keras", asked)
  end)

  it("written in Python answer by the same rules as our side", function()
    if not os.execute "command -v python3 >/dev/null" then return pending "no python3" end
    local here = folder.new()
    local script = folder.write(here .. "/peer.py", [[
import sys
sys.path.insert(0, "bench/peers")
from serve import measure, serve
def answer(kind, a):
    if kind == "measure":
        ticks = iter(range(100))
        return measure(lambda: None, lambda: next(ticks), a["seconds"], 2), ""
    return [a["n"], 2.5], a["why"]
serve("Peer 1", answer)
]])
    local lines = folder.write(here .. "/requests", "echo n=3 why=because\nmeasure seconds=3\necho n=4\n")
    local pipe = assert(io.popen(("python3 -B %s < %s"):format(script, lines)))
    local text = pipe:read "a"
    pipe:close()
    assert.are.equal("ready Peer 1\nok 3 2.5 # because\nok 500 500\nerror KeyError: 'why'\n", text)
  end)
end)
