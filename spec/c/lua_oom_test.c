/* SPDX-License-Identifier: MIT
** lua_oom_test.c: Lua's allocator refuses its k-th request, once or from then on, for every k of opening the
** module, of a training step, of one under a profile, and of a save and a load. Each run must end in success or
** in a Lua error, leave the weights of an unfinished step as they were, and leak nothing: closing the state brings
** Lua's bytes to 0.
*/
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "marea_lua.h"

typedef struct budget {
  long left;    /* requests until one is refused; 0: never */
  bool on;      /* ... and all after it */
  size_t bytes; /* in use */
  long refused;
} budget;

static void *allocate (void *ud, void *p, size_t old, size_t size) {
  budget *b = ud;
  if (!p) old = 0;
  if (size > old && b->left > 0) {
    if (b->left == 1) {
      b->refused++;
      if (!b->on) b->left = 0;
      return NULL;
    }
    b->left--;
  }
  void *q = NULL;
  if (size) q = realloc(p, size);
  else free(p);
  if (q || !size) b->bytes += size - old;
  return q;
}

static const char body[] =
    "local core, path = ...\n"
    "local ops = core.ops\n"
    "local function step(w, x, sq)\n"
    "  local loss = ops.conv2d(x, w, nil, {padding = 'same', activation = 'tanh'}):square():mean()\n"
    "  loss:backward()\n"
    "  ops.rmsprop_step(w, w.grad, sq, nil, {lr = 0.01})\n"
    "  w:clear_grad()\n"
    "end\n"
    "local function io(w)\n"
    "  local ok, message = core.save(path, {w = w}, {note = 'text'})\n"
    "  if not ok then error(message, 0) end\n"
    "  local t, texts = core.load(path)\n"
    "  if not t then error(texts, 0) end\n"
    "  assert(t.w:eq(w):sum():item() == w:numel() and texts.note == 'text')\n"
    "end\n"
    "local function profile(w, x, sq)\n"
    "  local Layer = {__module = true, __name = 'Layer'}\n"
    "  function Layer:forward() step(w, x, sq) return 1 end\n"
    "  local session <close> = core.profile_start(20)\n"
    "  Layer.forward(setmetatable({}, Layer))\n"
    "  assert(core.profile_stop():rows()[1].layer > 0 and session:event(1).op)\n"
    "end\n"
    "return step, profile, io\n";

enum { STEP, PROFILE, IO };

static int open_module (lua_State *L) {
  luaL_openlibs(L);
  luaL_requiref(L, "marea.core", luaopen_marea_core, 0);
  return 1;
}

/* What the measured call works on, at fixed places of the stack: 1 core, 2 step, 3 profile, 4 io, 5 w, 6 x, 7 sq. */
static int prepare (lua_State *L) {
  lua_settop(L, 1);
  if (luaL_loadstring(L, body) != LUA_OK) return lua_error(L);
  lua_pushvalue(L, 1);
  lua_pushfstring(L, "/tmp/marea_oom_%d.safetensors", (int)getpid());
  lua_call(L, 2, 3);
  static const char make[] =
      "local core = ...; local o = core.ops\n"
      "return o.normal({3, 3, 2, 4}):requires_grad_(), o.normal{2, 5, 5, 2}, o.full({3, 3, 2, 4}, 1)";
  if (luaL_loadstring(L, make) != LUA_OK) return lua_error(L);
  lua_pushvalue(L, 1);
  lua_call(L, 1, 3);
  return 6;
}

static int measured (lua_State *L) {
  lua_call(L, lua_gettop(L) - 1, 0);
  return 0;
}

static int failures;

static void check (bool fine, const char *what, long k, bool on) {
  if (fine) return;
  failures++;
  printf("lua_oom: %s (request %ld refused %s)\n", what, k, on ? "from then on" : "once");
}

/* One run; false when nothing was refused any more. */
static bool run (int part, long k, bool on) {
  budget b = {0};
  lua_State *L = lua_newstate(allocate, &b);
  if (!L) return true;
  lua_pushcfunction(L, open_module);
  bool ok = lua_pcall(L, 0, 1, 0) == LUA_OK;
  lua_pushcfunction(L, prepare);
  lua_insert(L, 1);
  ok = ok && lua_pcall(L, 1, LUA_MULTRET, 0) == LUA_OK;
  check(ok, "preparation failed", k, on);
  if (ok) {
    /* pcall(prepare) left: step, profile, io, w, x, sq */
    marea_tensor *w = marea_lua_check(L, 4);
    size_t bytes = (size_t)marea_tensor_size(w) * sizeof(float);
    float before[72];
    memcpy(before, marea_tensor_data(w), bytes);
    b.left = k;
    b.on = on;
    lua_pushcfunction(L, measured);
    lua_pushvalue(L, part + 1);
    lua_pushvalue(L, 4);
    if (part != IO) lua_pushvalue(L, 5), lua_pushvalue(L, 6);
    int status = lua_pcall(L, part != IO ? 4 : 2, 0, 0);
    b.left = 0;
    bool same = memcmp(before, marea_tensor_data(w), bytes) == 0;
    check(status == LUA_OK || part == IO || same || b.refused, "a step without a refusal failed", k, on);
    check(status == LUA_OK || b.refused, "a run without a refusal failed", k, on);
    check(status == LUA_OK || lua_type(L, -1) == LUA_TSTRING, "the error is no text", k, on);
  }
  lua_close(L);
  check(b.bytes == 0, "Lua memory leaked", k, on);
  return b.refused > 0;
}

/* Opening the module itself. */
static bool run_open (long k, bool on) {
  budget b = {.left = k, .on = on};
  lua_State *L = lua_newstate(allocate, &b);
  if (L) {
    lua_pushcfunction(L, open_module);
    (void)lua_pcall(L, 0, 1, 0);
    b.left = 0;
    lua_close(L);
  }
  check(b.bytes == 0, "Lua memory leaked on opening", k, on);
  return b.refused > 0;
}

int main (void) {
  long runs = 0;
  for (int on = 0; on < 2; on++) {
    for (int part = STEP; part <= IO; part++)
      for (long k = 1; run(part, k, on); k++) runs++;
    for (long k = 1; run_open(k, on); k += 1 + k / 50) runs++;
  }
  char path[64];
  snprintf(path, sizeof path, "/tmp/marea_oom_%d.safetensors", (int)getpid());
  unlink(path);
  printf("lua_oom: %ld refused requests, %d failures\n", runs, failures);
  return failures != 0;
}
