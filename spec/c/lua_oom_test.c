/* SPDX-License-Identifier: MIT
** lua_oom_test.c: the k-th request for memory is refused, once or from then on, for every k of opening the library, of a
** training step, of one under a profile, and of a save and a load: by Lua's allocator, by that of the context, and
** by the context's pool. Each run must end in success or in a Lua error, leave the weights of an unfinished step
** as they were, and leak nothing: closing brings the bytes of both allocators to 0. Sandboxes open or do not, in
** whatever memory they are given.
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

static bool refuses (budget *b) {
  if (b->left == 0) return false;
  if (b->left > 1) {
    b->left--;
    return false;
  }
  b->refused++;
  if (!b->on) b->left = 0;
  return true;
}

static void *allocate (void *ud, void *p, size_t old, size_t size) {
  budget *b = ud;
  if (!p) old = 0;
  if (size > old && refuses(b)) return NULL;
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
enum { BY_LUA, BY_ALLOCATOR, BY_POOL }; /* who refuses */

static int open_core (lua_State *L) {
  luaL_openlibs(L);
  marea_lua_open(L, lua_touserdata(L, 1));
  luaL_requiref(L, "marea.core", luaopen_marea_core, 0);
  return 1;
}

/* What the measured call works on, at fixed places of the stack: 1 step, 2 profile, 3 io, 4 w, 5 x, 6 sq. */
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

static void check (bool fine, const char *what, int by, long k, bool on) {
  static const char *const who[] = {"Lua's allocator", "the context's allocator", "the pool"};
  if (fine) return;
  failures++;
  printf("lua_oom: %s (request %ld refused %s by %s)\n", what, k, on ? "from then on" : "once", who[by]);
}

/* A Lua state and a context, each with an allocator that counts. */
typedef struct host {
  budget lua, core;
  lua_State *L;
  marea_context *ctx;
} host;

static void refuse_from (host *h, int by, long k, bool on) {
  h->lua.left = by == BY_LUA ? k : 0;
  h->core.left = by == BY_ALLOCATOR ? k : 0;
  h->lua.on = h->core.on = on;
  if (by == BY_POOL && h->ctx) marea_memory_fail(h->ctx, (uint64_t)k, on);
}

static bool open_host (host *h) {
  marea_config config = {
      .size = sizeof config, .alloc = allocate, .alloc_ud = &h->core, .threads = 1, .index_base = 1};
  if (marea_open(&config, &h->ctx) != MAREA_OK) return false;
  h->L = lua_newstate(allocate, &h->lua);
  if (!h->L) return false;
  lua_pushcfunction(h->L, open_core);
  lua_pushlightuserdata(h->L, h->ctx);
  return lua_pcall(h->L, 1, 1, 0) == LUA_OK;
}

static void close_host (host *h, int by, long k, bool on) {
  if (h->L) lua_close(h->L);
  marea_close(h->ctx);
  check(h->lua.bytes == 0, "Lua memory leaked", by, k, on);
  check(h->core.bytes == 0, "the context's memory leaked", by, k, on);
}

/* One run; false when nothing was refused any more. */
static bool run (int part, int by, long k, bool on) {
  host h = {.L = NULL};
  bool ok = open_host(&h);
  lua_State *L = h.L;
  if (ok) {
    lua_pushcfunction(L, prepare);
    lua_insert(L, 1);
    ok = lua_pcall(L, 1, LUA_MULTRET, 0) == LUA_OK;
  }
  check(ok, "preparation failed", by, k, on);
  bool refused = false;
  if (ok) {
    marea_memory_trim(h.ctx);
    marea_tensor *w = marea_lua_check(L, 4);
    size_t bytes = (size_t)marea_tensor_size(w) * sizeof(float);
    float before[72];
    memcpy(before, marea_tensor_data(w), bytes);
    refuse_from(&h, by, k, on);
    lua_pushcfunction(L, measured);
    lua_pushvalue(L, part + 1);
    lua_pushvalue(L, 4);
    if (part != IO) lua_pushvalue(L, 5), lua_pushvalue(L, 6);
    int status = lua_pcall(L, part != IO ? 4 : 2, 0, 0);
    refuse_from(&h, by, 0, false);
    bool same = memcmp(before, marea_tensor_data(w), bytes) == 0;
    refused = by == BY_POOL ? status != LUA_OK : h.lua.refused + h.core.refused > 0;
    check(status == LUA_OK || part != STEP || same, "a failed step changed the weights", by, k, on);
    check(status == LUA_OK || refused, "a run without a refusal failed", by, k, on);
    check(status == LUA_OK || lua_type(L, -1) == LUA_TSTRING, "the error is no text", by, k, on);
  }
  close_host(&h, by, k, on);
  return refused;
}

/* Opening the library itself. */
static bool run_open (int by, long k, bool on) {
  host h = {.L = NULL};
  refuse_from(&h, by, k, on);
  (void)open_host(&h);
  refuse_from(&h, by, 0, false);
  close_host(&h, by, k, on);
  return h.lua.refused + h.core.refused > 0;
}

/* The pool refuses once and succeeds at the second try, after a collection; so a run that succeeds may have been refused. */
static long run_pool (int part, bool on) {
  long k = 1, fine = 0;
  for (; fine < 40; k++) fine = run(part, BY_POOL, k, on) ? 0 : fine + 1;
  return k;
}

static void open_sandboxes (void) {
  int opened = 0, n = 0;
  for (size_t bytes = 1000; bytes < (4 << 20); bytes += bytes / 12 + 1000, n++) {
    marea_sandbox_config config = {.size = sizeof config, .max_lua_bytes = bytes};
    marea_sandbox *box;
    marea_status status = marea_sandbox_open(&config, &box);
    opened += status == MAREA_OK;
    if (status != MAREA_OK && status != MAREA_ENOMEM)
      failures++, printf("lua_oom: sandbox: status %d\n", status);
    marea_sandbox_close(box);
  }
  if (opened == 0 || opened == n) failures++, printf("lua_oom: %d of %d sandboxes opened\n", opened, n);
}

int main (void) {
  long runs = 0;
  for (int on = 0; on < 2; on++) {
    for (int part = STEP; part <= IO; part++) {
      for (int by = BY_LUA; by <= BY_ALLOCATOR; by++)
        for (long k = 1; run(part, by, k, on); k++) runs++;
      runs += run_pool(part, on);
    }
    for (int by = BY_LUA; by <= BY_ALLOCATOR; by++)
      for (long k = 1; run_open(by, k, on); k += 1 + k / 30) runs++;
  }
  open_sandboxes();
  char path[64];
  snprintf(path, sizeof path, "/tmp/marea_oom_%d.safetensors", (int)getpid());
  unlink(path);
  printf("lua_oom: %ld refused requests, %d failures\n", runs, failures);
  return failures != 0;
}
