-- SPDX-License-Identifier: MIT
-- What `make abi` says of two libraries: which changes programs notice that were built with the older one.
local folder = require "spec.support.folder"

--- The shell's words for a header and its library: fields of marea_config, what the private struct has, a new function.
local function library(config, private, more)
  local place = folder.new()
  folder.write(place .. "/marea.h", ([[
typedef struct marea_config { %s } marea_config;
typedef struct marea_context marea_context;
int marea_open(const marea_config *config, marea_context **ctx);
%s
]]):format(config, more and "int marea_more(int a);" or ""))
  folder.write(place .. "/context.c", ([[
#include "marea.h"
struct marea_context { marea_config config; %s };
int marea_open(const marea_config *config, marea_context **ctx) { (*ctx)->config = *config; return 0; }
%s
]]):format(private, more and "int marea_more(int a) { return a; }" or ""))
  assert(os.execute(("cd %s && cc -g -shared -fPIC -o libmarea.so context.c"):format(place)))
  return ("%s/marea.h %s/libmarea.so"):format(place, place)
end

--- The first word of the verdict, and the exit code.
local function verdict(old, new)
  local pipe = io.popen(("sh spec/abi.sh compare %s %s 2>&1; echo $?"):format(old, new))
  local text = pipe:read "a"
  pipe:close()
  local word, code = text:match "abi: (%a+)[^\n]*\n(%d+)\n$"
  return ("%s %s"):format(word or text, code)
end

describe("make abi", function()
  teardown(folder.remove)

  it("tells what programs do not notice from what they do", function()
    if not os.execute "command -v abidiff >/dev/null" then return pending "needs abidiff (Debian's abigail-tools)" end
    local old = library("int size; int threads;", "int a;")
    assert.are.equal("the 0", verdict(old, old)) -- the same
    assert.are.equal("the 0", verdict(old, library("int size; int threads;", "long b; int a;")))
    local more, longer = library("int size; int threads;", "int a;", true),
      library("int size; int threads; int isa;", "int a;")
    assert.are.equal("compatible 0", verdict(old, more))
    assert.are.equal("compatible 0", verdict(old, longer))
    assert.are.equal("changed 1", verdict(more, old))
    assert.are.equal("changed 1", verdict(longer, old))
    assert.are.equal("changed 1", verdict(old, library("int size; int isa; int threads;", "int a;")))
    assert.are.equal("changed 1", verdict(old, library("int size; long threads;", "int a;")))
  end)
end)
