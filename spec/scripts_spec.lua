-- SPDX-License-Identifier: MIT
-- What all scripts do, and the scripts that get data.
local marea = require "marea"
local folder = require "spec.support.folder"
local script = require "spec.support.script"

teardown(folder.remove)

describe("results", function()
  local place, program = folder.new(), folder.absolute((os.getenv "MAREA_BUILD" or "build") .. "/marea")
  local scripts = folder.absolute "scripts"

  local function run(name, arguments)
    return folder.run(("cd %s && MAREA_TEXT=/nowhere %s %s/%s.lua --smoke %s"):format(place, program, scripts, name,
      arguments))
  end

  -- Options, the folder of this kind of run, and options that do not go on from the weights there.
  local kinds = {
    {"vae", "--epochs 1 --model mlp", "vae_mlp", "--model mlp --latent 3"},
    {"vae_study", "--epochs 1 --model mlp --runs latent2", "vae_study_mlp"},
    {"iwae", "--epochs 1 --samples 1", "iwae", "--latent 3"},
    {"classifier", "--epochs 1", "classifier"},
    {"count", "--epochs 1 --method direct", "count_direct", "--method density"},
    {"gan", "--steps 1 --loss wgan-gp", "gan_wgan-gp", "--latent 3"},
    {"dates", "--epochs 1", "dates", "--attention notebook"},
    {"pronounce", "--epochs 1 --stress", "pronounce_stress", "--epochs 2"},
    {"series", "--epochs 1", "series"},
    {"series", "--epochs 1 --model gru", "series_gru"},
    {"gpt", "--steps 1 --model lstm", "gpt_lstm", "--model gru"},
    {"qa", "--epochs 1", "qa", "--attention bahdanau"},
    {"qa", "--epochs 1 --attention notebook", "qa"},
    {"qa", "--epochs 1 --data babi --task 2", "qa_babi_2"},
    {"qa_reader", "--epochs 1 --groups 8", "reader", "--size 8"},
  }

  it("of each kind of run are in a folder of their own; with other options there is advice", function()
    for _, kind in ipairs(kinds) do
      local path, arguments, name, other = table.unpack(kind)
      local text, ok = run(path, arguments)
      assert.is_true(ok, text)
      local out = ("out/%s_smoke"):format(name)
      local file = path == "vae_study" and "results.csv" or "metrics.csv"
      assert.is_truthy(folder.read(("%s/%s/%s"):format(place, out, file)), name)
      if other then
        text, ok = run(path, ("--resume --out %s %s"):format(out, other))
        assert.is_false(ok, text)
        assert.is_truthy(text:find("hint: a run with other options has written it", 1, true), text)
        text, ok = run(path, "--resume --out none")
        assert.is_false(ok, text)
        assert.is_truthy(text:find("hint: a training run writes it", 1, true), text)
      end
    end
  end)
end)

describe("mnist.sh", function()
  it("takes only files that are MNIST's, byte for byte", function()
    local target, path = folder.new(), folder.new()
    local programs = "mktemp rm mkdir sha256sum cut cat gzip cp mv chmod tr grep"
    for program in programs:gmatch "%S+" do
      local from = io.popen("command -v " .. program):read "l"
      os.execute(("ln -s %s %s/%s"):format(from, path, program))
    end
    local command = "PATH=%s MAREA_DATA=scripts/data /bin/sh scripts/mnist.sh %s 2>&1; echo exit $?"
    local text = io.popen(command:format(path, target)):read "a"
    assert.is_truthy(text:find "exit 1%s*$", text)
    assert.is_truthy(text:find("train-images-idx3-ubyte.gz is not MNIST's", 1, true), text)
    assert.is_truthy(text:find("Not found: train-images-idx3-ubyte", 1, true))
    assert.is_nil(folder.read(target .. "/train-images-idx3-ubyte.gz"))
  end)
end)

describe("texts.sh", function()
  local path = folder.new() -- programs that may be found: no curl
  for program in ("mktemp rm mkdir dirname sha256sum cut cat gzip cp mv chmod sort"):gmatch "%S+" do
    os.execute(("ln -s %s %s/%s"):format(io.popen("command -v " .. program):read "l", path, program))
  end
  local function get(kind, from, target)
    local program = (os.getenv "MAREA_BUILD" or "build") .. "/marea"
    return io.popen(("PATH=%s MAREA=%s MAREA_TEXT=%s /bin/sh scripts/texts.sh %s %s 2>&1; echo exit $?"):format(path,
      program, from, kind, target)):read "a"
  end

  it("takes only files that are the published ones, and leaves nothing of others", function()
    local from, target = folder.new(), folder.new()
    assert(marea.save_bytes(from .. "/tinyshakespeare.txt", "First Citizen:\n"))
    assert(marea.save_bytes(from .. "/scan-simple-test.txt.gz", "no gzip"))
    assert(marea.save_bytes(from .. "/squad-train-v1.1.json", "[]"))
    assert(marea.save_bytes(from .. "/squad-dev-v1.1.json", '{"data": []}'))
    local text = get("text", from, target)
    assert.is_truthy(text:find "exit 1%s*$", text)
    assert.is_truthy(text:find("tinyshakespeare.txt is not the published tinyshakespeare.txt", 1, true), text)
    assert.is_truthy(text:find("scan-simple-test.txt.gz is not a whole .gz file", 1, true), text)
    assert.is_truthy(text:find("there is no curl", 1, true), text)
    assert.is_truthy(text:find("Not found: tinyshakespeare.txt scan-simple-train.txt scan-simple-test.txt", 1, true))
    text = get("squad", from, target)
    assert.is_truthy(text:find "exit 1%s*$", text)
    assert.is_truthy(text:find("there is no 'data'", 1, true), text)
    assert.is_truthy(text:find("squad-dev-v1.1.json is not the published", 1, true), text)
    assert.are.equal("", io.popen("ls " .. target):read "a")
    assert.is_truthy(get("none", from, target):find "usage.*exit 2")
  end)

  it("sums up what SQuAD asks and answers, whatever ids and spaces are", function()
    local file = folder.new() .. "/squad.json"
    assert(marea.save_bytes(file, [[{"data": [{"title": "T", "paragraphs": [{"context": " Été  1973 ", "qas": [
      {"id": 7, "question": "When?\n", "answers": [{"answer_start": 6, "text": "1973"}]},
      {"question": "Who?", "answers": []}]}]}]}]]))
    local text = script.run("scripts/squad_lines.lua " .. file)
    assert.are.equal("T\tÉté 1973\tWhen?\t1973\nT\tÉté 1973\tWho?\n", text)
    assert.is_truthy(folder.lua("scripts/squad_lines.lua /nowhere.json"):find "/nowhere.json")
  end)

  if os.getenv "MAREA_TEXT" then
    it("takes the published files, also gzipped", function()
      local target = folder.new()
      for _, kind in ipairs{"text", "squad"} do
        assert.is_truthy(get(kind, os.getenv "MAREA_TEXT", target):find "exit 0%s*$")
      end
      assert.are.equal(5, select(2, io.popen("ls " .. target):read "a":gsub("\n", "")))
    end)
  end
end)
