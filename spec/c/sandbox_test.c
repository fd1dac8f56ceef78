/* SPDX-License-Identifier: MIT
** sandbox_test.c: sandboxes whose host has added functions of its own: ones that run the same sandbox again, or another
** one, that fail, that yield. Whatever they do, the outer run keeps its limits. And a walk over everything that a script
** could reach, with the eyes of the host: no weak table, none of the functions that tell of files.
*/
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "marea_lua.h"

#define BUDGET 0.05
#define LATE 0.1
#define TRIES 8 /* the machine may be busy */

static int failures;
static marea_sandbox *box, *other;

static void expect (bool ok, const char *what, const char *got) {
  if (ok) return;
  failures++;
  printf("sandbox: %s: got %s\n", what, got);
}

static double now (void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- functions of the host ---- */

/* again(text) -> its results, or false and a message */
static int again (lua_State *L) {
  size_t n;
  const char *text = luaL_checklstring(L, 1, &n);
  const int results = marea_sandbox_run(box, text, n, "=inner", NULL, 0);
  if (results >= 0) return results;
  lua_pushboolean(L, false);
  lua_pushstring(L, marea_sandbox_error(box));
  return 2;
}

/* elsewhere(text) -> the same of another sandbox, with this state as its host */
static int elsewhere (lua_State *L) {
  size_t n;
  const char *text = luaL_checklstring(L, 1, &n);
  lua_settop(L, 1);
  const int results = marea_sandbox_run(other, text, n, "=other", L, 0);
  if (results >= 0) return results;
  lua_pushboolean(L, false);
  lua_pushstring(L, marea_sandbox_error(other));
  return 2;
}

/* itself(text): the state that runs cannot be the host */
static int itself (lua_State *L) {
  size_t n;
  const char *text = luaL_checklstring(L, 1, &n);
  lua_pushinteger(L, marea_sandbox_run(box, text, n, "=inner", L, 0));
  return 1;
}

static int fail (lua_State *L) { return luaL_error(L, "of the host"); }

static int leave (lua_State *L) { return lua_yield(L, lua_gettop(L)); }

static int close_it (lua_State *L) {
  (void)L;
  marea_sandbox_close(box);
  return 0;
}

static const luaL_Reg functions[] = {{"again", again}, {"elsewhere", elsewhere}, {"itself", itself},
                                     {"fail", fail},   {"leave", leave},         {"close_it", close_it},
                                     {NULL, NULL}};

static marea_sandbox *open_box (double seconds, double flop) {
  marea_sandbox_config config = {.size = sizeof config, .max_seconds = seconds, .max_flop = flop};
  marea_sandbox *opened = NULL;
  if (marea_sandbox_open(&config, &opened) != MAREA_OK) failures++;
  marea_sandbox_globals(opened);
  luaL_setfuncs(marea_sandbox_state(opened), functions, 0);
  lua_pop(marea_sandbox_state(opened), 1);
  return opened;
}

/* ---- runs within runs ---- */

static const char *const endless[] = {
    "again 'return 1' while true do end",
    "while true do again 'return 1' end",
    "again 'while true do end' while true do end",
    "again 'local x = 1' local function f() return f() end f()",
    "while true do again 'while true do pcall(function() while true do end end) end' end",
    "pcall(again, 'return 1') while true do pcall(function() while true do end end) end",
    "coroutine.wrap(function() again 'return 1' while true do end end)()",
    "local f = coroutine.wrap(function() while true do again 'return 1' coroutine.yield() end end) while "
    "true do f() end",
    "again [[coroutine.wrap(function() while true do end end)()]] while true do end",
    "again [[kept = coroutine.create(function() while true do coroutine.yield() end end)]] "
    "while true do coroutine.resume(kept) end",
    "text = 'again(text)' again(text) while true do end",
    "text = 'pcall(again, text) pcall(again, text)' again(text) while true do end",
    "text = 'coroutine.wrap(again)(text)' again(text) while true do end",
    "again('return 1, ' .. ('a or '):rep(150000) .. 'a') while true do end",
    "again [[error(setmetatable({}, {__tostring = function() while true do end end}))]] while true do end",
    "again '+' while true do end",
    "pcall(fail) while true do end",
    "while true do pcall(again, 'fail()') end",
    "local x <close> = setmetatable({}, {__close = function() again 'while true do end' end}) while true do "
    "end",
    "local f = coroutine.wrap(function() while true do leave(1) end end) while true do f() end",
    "again 'pcall(leave)' while true do end",
    "close_it() while true do end",
    "again 'close_it()' while true do again 'return 1' end",
    "elsewhere 'while true do end' while true do end",
    "elsewhere 'return 1' while true do end",
    "while true do elsewhere 'return {1, 2, 3}' end",
    "while true do elsewhere 'return marea.ones(100000)' end",
    "again [[elsewhere 'while true do end']] while true do end",
    "again 'marea.ones(30000000):add_(1)' while true do end",
    "again [[a = marea.ones{1000, 1000} for i = 1, 1e9 do a:matmul(a) end]] while true do end",
};

static double overtime (const char *text) {
  const double start = now();
  const int n = marea_sandbox_run(box, text, strlen(text), "=script", NULL, 0);
  expect(n < 0, text, "no error");
  return now() - start - BUDGET;
}

static void test_endless (void) {
  for (size_t i = 0; i < sizeof endless / sizeof endless[0]; i++) {
    double late = 1e9;
    for (int k = 0; k < TRIES && late > LATE; k++) {
      box = open_box(BUDGET, 0);
      other = open_box(10, 0);
      const double seen = overtime(endless[i]);
      if (seen < late) late = seen;
      expect(lua_gethook(marea_sandbox_state(box)) == NULL, endless[i], "a hook afterwards");
      expect(marea_sandbox_run(box, "return 7", 8, "=after", NULL, 0) == 1, endless[i],
             marea_sandbox_error(box));
      marea_sandbox_close(box);
      marea_sandbox_close(other);
    }
    if (late > LATE) failures++, printf("sandbox: %s: %.3f s late\n", endless[i], late);
  }
}

/* Scripts that return true. */
static const char *const good[] = {
    "local a, b = again 'x = 5 return 7, 8' return x + a + b == 20",
    "local ok, m = again 'error \"no\"' return ok == false and m == 'inner:1: no'",
    "local ok, m = again '+' return ok == false and m:find('unexpected symbol', 1, true) ~= nil",
    "return coroutine.wrap(function() return (again 'return 3') end)() == 3",
    ("local co = coroutine.wrap(function() local a = again 'return 3' return leave(a + 1) + 1 end) "
     "return co() == 4 and co(5) == 6"),
    "return select('#', again 'return') == 0",
    "local ok, m = pcall(fail) return not ok and m == 'of the host'",
    "return itself 'return 1' == -1",
    "local t = elsewhere 'return {1, marea.ones(2)}' return t[1] == 1 and t[2]:sum():item() == 2",
    "local ok, m = elsewhere 'return print' return ok == false and m:find('cannot pass', 1, true) ~= nil",
    "local ok, m = elsewhere 'return marea.ones(1):expand(2147483647)' return ok == false",
    "depth = 0 text = 'depth = depth + 1 again(text)' again(text) return depth > 5 and depth < 250",
    "local s = again 'return (\"x\"):rep(100)' return #s == 100",
};

static void test_good (void) {
  box = open_box(20, 0);
  other = open_box(20, 0);
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    lua_State *L = marea_sandbox_state(box);
    const int n = marea_sandbox_run(box, good[i], strlen(good[i]), "=script", NULL, 0);
    expect(n >= 1 && lua_toboolean(L, 1), good[i], n < 0 ? marea_sandbox_error(box) : "another result");
  }
  marea_sandbox_close(box);
  marea_sandbox_close(other);
}

/* What an inner run takes of the operations and instructions, the outer one has no more. */
static void test_shared_budgets (void) {
  static const char flop[] =
      "local a = marea.ones{100, 100} for i = 1, 40 do again 'marea.ones{100, 100}:matmul(marea.ones{100, "
      "100})' end return 1";
  box = open_box(20, 5e7);
  expect(marea_sandbox_run(box, flop, sizeof flop - 1, "=flop", NULL, 0) < 0, "operations", "no error");
  expect(strstr(marea_sandbox_error(box), "floating-point operations"), "operations",
         marea_sandbox_error(box));
  marea_sandbox_close(box);
  static const char loops[] = "for i = 1, 100 do again 'for i = 1, 1e5 do end' end return 1";
  marea_sandbox_config config = {.size = sizeof config, .max_instructions = 1e6};
  if (marea_sandbox_open(&config, &box) != MAREA_OK) failures++;
  marea_sandbox_globals(box);
  luaL_setfuncs(marea_sandbox_state(box), functions, 0);
  lua_pop(marea_sandbox_state(box), 1);
  expect(marea_sandbox_run(box, loops, sizeof loops - 1, "=loops", NULL, 0) < 0, "instructions", "no error");
  expect(strstr(marea_sandbox_error(box), "instructions"), "instructions", marea_sandbox_error(box));
  marea_sandbox_close(box);
}

/* ---- what can be reached ---- */

static const char makes[] =
    "for _, name in ipairs{'nn', 'optim', 'dist', 'importance', 'data', 'augment', 'blame', 'judge', "
    "'checkpoint',\n"
    "  'progress', 'memory_report', 'metrics', 'gradcheck', 'image', 'plan', 'plot', 'profile', 'rerun', "
    "'sandbox'} do\n"
    "  _G['module_' .. name] = require('marea.' .. name)\n"
    "end\n"
    "net = marea.nn.Sequential{marea.nn.Linear{3, 4}, marea.nn.Linear{4, 1}}\n"
    "optimizer = marea.optim.Adam{net, lr = 0.1}\n"
    "report = marea.profile(function() optimizer:step(function() return net(marea.ones(2, 3)):mean() end) "
    "end)\n"
    "scope = marea.scope()\n"
    "marea.profile.start() marea.ones(3) stopped = marea.profile.stop()\n"
    "normal = module_dist.Normal(0, 1) text = tostring(report) pcall(function() marea.convv2d() end)\n"
    "iterators = {pairs{}, ipairs{}, utf8.codes 'a', ('a'):gmatch 'a', coroutine.wrap(print)}\n";

/* (debug, globals, everything): with `everything`, upvalues, metatables and user values count too, which scripts cannot
   see. Returns what must not be there, or nil, and how many values it met. */
static const char walk[] =
    "local debug, globals, everything = ...\n"
    "local next, type, pairs, getmetatable = globals.next, globals.type, globals.pairs, "
    "globals.getmetatable\n"
    "local seen, queue, n = {}, {}, 0\n"
    "local function add(value, path)\n"
    "  local kind = type(value)\n"
    "  if kind ~= 'table' and kind ~= 'function' and kind ~= 'userdata' and kind ~= 'thread' then return "
    "end\n"
    "  if seen[value] or value == seen or value == queue then return end\n"
    "  seen[value], n = true, n + 1\n"
    "  queue[n] = {value, path}\n"
    "end\n"
    "add(globals, '_G') add('', '') add(getmetatable '' or nil, 'strings')\n"
    "if everything then add(debug.getmetatable(''), 'strings') end\n"
    "local i, problem = 0, nil\n"
    "while i < n do\n"
    "  i = i + 1\n"
    "  local value, path = queue[i][1], queue[i][2]\n"
    "  local kind, real = type(value), debug.getmetatable(value)\n"
    "  if type(real) == 'table' and globals.rawget(real, '__mode') ~= nil then return path .. ' is weak', n "
    "end\n"
    "  if everything and type(real) == 'table' then add(real, path .. ' metatable') end\n"
    "  local shown = getmetatable(value)\n"
    "  if type(shown) == 'table' then add(shown, path .. ' getmetatable') end\n"
    "  if kind == 'table' then\n"
    "    for key, item in next, value do\n"
    "      local name = path .. '.' .. globals.tostring(type(key) == 'table' and 'table' or key)\n"
    "      add(key, name .. ' (key)') add(item, name)\n"
    "      if not everything and (key == 'list_folder' or key == 'file_time' or key == 'sleep' or key == "
    "'getupvalue'\n"
    "        or key == 'popen' or key == '__lazy' or key == 'memory_fail') then return name, n end\n"
    "    end\n"
    "  elseif everything and kind == 'function' then\n"
    "    for k = 1, 255 do\n"
    "      local name, up = debug.getupvalue(value, k)\n"
    "      if not name then break end\n"
    "      add(up, path .. ' upvalue ' .. name)\n"
    "    end\n"
    "  elseif everything and kind == 'userdata' then\n"
    "    for k = 1, 3 do add((debug.getuservalue(value, k)), path .. ' user value') end\n"
    "  end\n"
    "end\n"
    "return nil, n\n";

static void test_reach (void) {
  box = open_box(20, 0);
  lua_State *L = marea_sandbox_state(box);
  if (marea_sandbox_run(box, makes, strlen(makes), "=makes", NULL, 0) < 0)
    failures++, printf("sandbox: %s\n", marea_sandbox_error(box));
  for (int everything = 0; everything < 2; everything++) {
    lua_settop(L, 0);
    if (luaL_loadstring(L, walk) != LUA_OK) failures++, printf("sandbox: %s\n", lua_tostring(L, -1));
    lua_pushcfunction(L, luaopen_debug);
    lua_call(L, 0, 1);
    marea_sandbox_globals(box);
    lua_pushboolean(L, everything);
    if (lua_pcall(L, 3, 2, 0) != LUA_OK) {
      failures++, printf("sandbox: walk: %s\n", lua_tostring(L, -1));
      continue;
    }
    expect(lua_isnil(L, 1), everything ? "all values" : "what a script reaches", luaL_tolstring(L, 1, NULL));
    lua_pop(L, 1);
    expect(lua_tointeger(L, 2) > 300, "values met", luaL_tolstring(L, 2, NULL));
    printf("sandbox: %s values met\n", lua_tostring(L, -1));
  }
  lua_settop(L, 0);
  marea_sandbox_close(box);
}

int main (void) {
  test_good();
  test_shared_budgets();
  test_reach();
  test_endless();
  if (failures) printf("sandbox: %d failures\n", failures);
  return failures != 0;
}
