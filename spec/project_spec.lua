-- SPDX-License-Identifier: MIT
-- What a public project keeps in step: one version, the changelog's form, the habits of text files, the hosted checks.
local folder = require "spec.support.folder"
local must = folder.must

describe("text files", function()
  it("are as .editorconfig says", function()
    local rules = folder.read ".editorconfig"
    assert.is_truthy(rules:find "\n%[{Makefile,%*.mk,debian/rules}%]\nindent_style = tab\n")
    local list, n = {}, 0
    local find = "find . -name .git -prune -o -path ./build -prune -o -path ./out -prune -o -path ./data -prune "
      .. "-o -type f -not -name '*.png' -not -name '*.gz' -not -name '*.zip' -not -name '*.safetensors' "
      .. "-not -name '*.pyc' -print"
    for path in must(find):gmatch "[^\n]+" do
      local text = folder.read(path)
      n = n + 1
      if text:find "\r" then list[#list + 1] = path .. ": CR" end
      if text:find "[ \t]\n" then list[#list + 1] = path .. ": space at the end of a line" end
      if text ~= "" and text:sub(-1) ~= "\n" then list[#list + 1] = path .. ": no newline at the end" end
      if ("\n" .. text):find "\n\t" and not (path:find "/Makefile$" or path == "./debian/rules") then
        list[#list + 1] = path .. ": tab"
      end
      if not utf8.len(text) then list[#list + 1] = path .. ": not UTF-8" end
    end
    assert.are.same({}, list)
    assert.is_true(n > 400, n)
  end)
end)

describe("the hosted checks", function()
  it("are YAML with the jobs that they should have", function()
    local has_yaml = os.execute "/usr/bin/python3 -c 'import yaml' 2>/dev/null"
    if not has_yaml then return pending "needs python3-yaml" end
    local jobs = must(([[/usr/bin/python3 -c 'import yaml
for name, job in yaml.safe_load(open(".github/workflows/ci.yml"))["jobs"].items():
  print(name, job["container"], sorted(job.get("strategy", {}).get("matrix", {}).items()), len(job["steps"]))']]))
    for _, wanted in ipairs{"debian debian:12 [('cc', ['gcc', 'clang'])]", "fedora fedora:", "'test-asan'",
      "'test-tsan'", "'test-neon'"} do
      assert.is_truthy(jobs:find(wanted, 1, true), jobs)
    end
  end)
end)

describe("the version", function()
  it("is the header's wherever it is said", function()
    local version = folder.read "core/marea.h":match '\n#define MAREA_VERSION "(%d+%.%d+%.%d+)"\n'
    assert.are.equal(version, must "make -pn help":match "\nVERSION := ([^\n]*)")
    assert.are.equal(version, folder.read "debian/changelog":match "^marea %(([^)]+)%)")
    local changes = folder.read "CHANGELOG.md"
    local unreleased = changes:match "\n## %[Unreleased%]\n\n([^\n]*)"
    local is_released = changes:find(("\n## [%s] - "):format(version), 1, true)
    assert.is_truthy(unreleased, "no section [Unreleased]")
    assert.is_truthy(is_released or unreleased:find(version, 1, true), unreleased)
  end)
end)

describe("CHANGELOG.md", function()
  it("has the sections of Keep a Changelog, in its order, with one line an effect", function()
    local order = {Added = 1, Changed = 2, Deprecated = 3, Removed = 4, Fixed = 5, Security = 6}
    local last, entries = 0, 0
    for line in folder.read "CHANGELOG.md":gmatch "[^\n]+" do
      local section = line:match "^### (.+)$"
      if line:find "^## " then
        assert.is_truthy(line == "## [Unreleased]" or line:find "^## %[%d+%.%d+%.%d+%] %- %d%d%d%d%-%d%d%-%d%d$", line)
        last = 0
      elseif section then
        assert.is_true((order[section] or 0) > last, section)
        last = order[section]
      elseif line:find "^%- " then
        assert.is_true(last > 0 and #line <= 120, line)
        entries = entries + 1
      else
        assert.is_falsy(line:find "^%s", line) -- an entry is one line
      end
    end
    assert.is_true(entries > 30, entries)
  end)
end)
