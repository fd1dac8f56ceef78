-- The Jupyter kernel of examples/jupyter, as notebooks use it. Skipped where Debian's python3-ipykernel, jupyter-client
-- and jupyter-nbconvert are not installed, and under sanitizers, which Python cannot load.
local folder = require "spec.support.folder"

local build = os.getenv("MAREA_BUILD") or "build"
local python = os.getenv("PYTHON") or "/usr/bin/python3"
local sanitized = build:find "asan"
local imports = python .. " -c 'import ipykernel, nbconvert, jupyter_client' 2>/dev/null"
local installed = not sanitized and os.execute(imports) ~= nil

--- The whole path of a file, for the shell.
local function absolute(path) return folder.quote(folder.absolute(path)) end

describe("the Jupyter kernel", function()
  local MISSING = sanitized and "Python cannot load a sanitizer"
    or "python3-ipykernel, jupyter-client or jupyter-nbconvert is not installed"

  local home

  --- What Python says with the kernel installed in `home`, and whether it ended well.
  local function run(arguments)
    local command = "PYDEVD_DISABLE_FILE_VALIDATION=1 JUPYTER_PATH=%s timeout 120 %s %s 2>%s/errors; echo exit $?"
    local pipe = io.popen(command:format(home, python, arguments, home))
    local text, code = pipe:read "a":match "^(.*)exit (%d+)%s*$"
    pipe:close()
    assert.are.equal("0", code, folder.read(home .. "/errors"))
    return text
  end

  setup(function()
    if not installed then return end
    home = folder.new()
    local made = ("make --no-print-directory -s BUILD=%s KERNEL=%s/kernels/marea %s/kernels/marea/kernel.json")
    assert(os.execute(made:format(build, home, home)))
  end)
  teardown(folder.remove)

  it("shows values, output, pictures and mistakes, completes, inspects, and is interrupted", function()
    if not installed then return pending(MISSING) end
    local text = run "spec/support/notebook.py"
    for _, line in ipairs{
      "value: shows: text/html text/plain", "value: text: tensor f32 (2, 2): min 1, mean 2.5, max 4",
      "print: stdout: é\t2", "image: shows: image/png text/plain", "figure: shows: image/png text/plain",
      "two: text: 1\ntwo: shows: text/plain\ntwo: text: a",
      "mistake: error: stdin:1: matmul: f32 (2, 2) x f32 (3, 3): inner sizes 2 and 3 differ",
      "interrupted: error: stdin:1: interrupted!", "after: text: true\n",
      "after: text: tensor f32 (2, 2): min 1, mean 2.5, max 4",
      "ended: error: the program has ended", "anew: text: nil", "complete: 16 19 concat contiguous conv2d",
      "inspect: marea.tanh(x)", "is_complete: incomplete complete",
    } do
      assert.is_truthy(text:find(line, 1, true), line .. "\n" .. text)
    end
  end)

  it("runs the notebook of the VAE, with its pictures", function()
    if not installed then return pending(MISSING) end
    run(("-m nbconvert --to notebook --execute %s --output-dir %s --output vae.ipynb"):format(
      absolute "examples/vae.ipynb", home))
    local made = folder.read(home .. "/vae.ipynb")
    assert.are.equal(5, select(2, made:gsub('"image/png"', "")))
    assert.is_truthy(made:find('"text/html"', 1, true))
    local first, last = tonumber(made:match "epoch 1  loss ([%d%.]+)"), tonumber(made:match "epoch 6  loss ([%d%.]+)")
    assert.is_true(last < first - 40, ("%s %s"):format(first, last))
  end)
end)
