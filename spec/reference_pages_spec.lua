-- What is made from the sources: the declarations that editors read, and docs/operators.md.
local marea = require "marea"
local core = require "marea.core"
local check = require "marea.internal.check"
local docs = require "marea.repl.docs"
local folder = require "spec.support.folder"

local build = os.getenv("MAREA_BUILD") or "build"

local function made(arguments)
  local pipe = io.popen(("%s/marea %s"):format(build, arguments))
  local text = pipe:read "a"
  assert(pipe:close(), arguments)
  return text
end

it("docs/operators.md is what the descriptors say; make reference writes it", function()
  assert.is_true(folder.read "docs/operators.md" == made "docs/generate/operators.lua")
end)

describe("the declarations for editors", function()
  local text, functions, fields = nil, {}, {}

  --- A block: the `---` lines in front of a definition, as editors join them.
  local function read(source)
    local block = {}
    for line in source:gmatch "([^\n]*)\n" do
      local name, arguments = line:match "^function ([%w_%.:]+)%((.*)%) end$"
      if name then functions[name] = {arguments = arguments, lines = block} end
      local class, field = line:match "^([%w_]+)%.([%w_%.]+) = ", line:match "^%w[%w_]*%.([%w_%.]+) = "
      if class then fields[class .. "." .. field] = true end
      if line:find "^%-%-%-" then block[#block + 1] = line else block = {} end
    end
  end

  setup(function()
    text = made "docs/generate/types.lua $(find lua/marea -name '*.lua' | LC_ALL=C sort)"
    read(text)
  end)

  it("are Lua, and the same every time", function()
    assert(load(text, "=types"))
    assert.are.equal(text, made "docs/generate/types.lua $(find lua/marea -name '*.lua' | LC_ALL=C sort)")
  end)

  it("have every public function", function()
    for _, part in ipairs{"marea", "nn", "nn.init", "optim", "optim.schedule", "dist", "data", "data.synthetic",
      "image", "plot", "augment", "judge", "checkpoint", "metrics", "importance", "text", "decode", "onnx", "keras"} do
      local place = marea
      for key in part:gmatch "%w+" do place = key == "marea" and place or place[key] end
      for _, name in ipairs(check.names(place)) do
        local value = rawget(place, name)
        local class = type(value) == "table" and rawget(value, "__name")
        local full = part .. "." .. name
        if type(value) == "function" or class then
          assert.is_true(functions[full] ~= nil or fields[full] ~= nil, full)
        end
      end
    end
    for _, name in ipairs{"blame", "gradcheck", "memory_report", "plan", "profile", "progress", "rerun"} do
      assert.is_true(fields["marea." .. name], name)
    end
  end)

  it("have every method", function()
    for name in pairs(core.methods) do assert.is_table(functions["Tensor:" .. name], name) end
    for name in pairs(require "marea.nn.module".class_methods()) do
      if not name:find "^_" then assert.is_table(functions["Module:" .. name], name) end
    end
    for _, name in ipairs{"Dataset:batches", "Figure:save", "Optimizer:step", "Normal:log_prob", "Distribution:sample",
      "Progress:show", "Metrics:write"} do
      assert.is_table(functions[name], name)
    end
  end)

  it("give inputs, attributes and results of operators their types", function()
    for _, name in ipairs(core.op_names()) do
      local info, declared = core.op_info(name), functions["marea." .. name]
      local lines = table.concat(declared.lines, "\n")
      for _, input in ipairs(info.inputs) do
        assert.is_truthy(lines:find("@param " .. input.name .. "%?? Tensor"), name .. ": " .. input.name)
      end
      local options = text:match("\n%-%-%-@class marea%." .. name .. "%.options\n(.-)\n\n") or ""
      for _, spec in ipairs(info.attrs) do
        local kind = options:match("@field " .. spec.name .. "%?? ([^\n]*)")
        assert.is_truthy(kind, name .. ": " .. spec.name)
        assert.is_falsy(kind:find "^any%f[%W]", name .. ": " .. spec.name)
        assert.is_truthy(docs.split_type(kind):find '^["%a]', name .. ": " .. spec.name)
      end
      if not info.mutates then assert.is_truthy(lines:find("@return Tensor", 1, true), name) end
    end
  end)

  it("give all arguments a type that is declared", function()
    local known = {Dtype = true}
    for _, name in ipairs{"any", "boolean", "integer", "number", "string", "table", "nil", "function", "fun"} do
      known[name] = true
    end
    for name in text:gmatch "\n%-%-%-@class ([%w_%.]+)" do known[name] = true end
    local n = 0
    for tag, rest in text:gmatch "\n%-%-%-@(%a+) ([^\n]*)" do
      local kind = tag == "return" and rest or rest:match "^[%w_%.]+%?? (.*)$"
      if tag == "param" or tag == "return" or tag == "field" and kind then
        local bare = docs.split_type(kind):gsub('"[^"]*"', ""):gsub("[%w_]+%??:", "")
        for word in bare:gmatch "[%a_][%w_%.]*" do
          assert.is_true(known[word], ("@%s %s: %s"):format(tag, rest, word))
          n = n + 1
        end
      end
    end
    assert.is_true(n > 2000, n)
  end)
end)
