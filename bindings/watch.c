/* SPDX-License-Identifier: MIT
** watch.c: what of Lua's library has to know about Ctrl-C. A hook belongs to a coroutine, so the handler must know
** which one is at work: resume, wrap and close say so. The error that a hook raises calls the handler of an xpcall
** inside the hook, where nothing can stop it: our xpcall lets the error pass by a handler of the script's.
**
** The functions behave as Lua's. They take their places when a script is first run in core.interruptible, as the program
** does with everything.
*/
#include <lualib.h>

#include "bind.h"

/* ---- coroutines ---- */

/* Does a function on this thread's stack wait for another one? Then it can be neither resumed nor closed. */
static bool is_busy (lua_State *L, lua_State *co) {
  lua_Debug ar;
  return co == L || (lua_status(co) == LUA_OK && lua_getstack(co, 0, &ar) > 0);
}

/* Upvalues: Lua's function, and the coroutine that it is about, nil: its first argument. */
static int watched (lua_State *L) {
  lua_State *co = lua_tothread(L, lua_upvalueindex(2));
  if (!co) co = lua_tothread(L, 1);
  if (!co) return lua_tocfunction(L, lua_upvalueindex(1))(L); /* which says so */
  luaL_checkstack(L, 4, NULL);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_State *before = is_busy(L, co) ? NULL : bind_interrupt_switch(co);
  const int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  if (before) bind_interrupt_switch(before);
  return status == LUA_OK ? lua_gettop(L) : lua_error(L);
}

/* coroutine.wrap; upvalue: Lua's, whose result has the coroutine as its upvalue */
static int wrap (lua_State *L) {
  lua_CFunction original = lua_tocfunction(L, lua_upvalueindex(1));
  original(L);
  if (!lua_getupvalue(L, -1, 1)) return 1;
  lua_pushcclosure(L, watched, 2);
  return 1;
}

/* ---- xpcall ---- */

static int finish (lua_State *L, int status, lua_KContext extra) {
  if (status == LUA_OK || status == LUA_YIELD) return lua_gettop(L) - (int)extra;
  if (status == LUA_ERRMEM) bind_interrupt_thrown(L);
  lua_pushboolean(L, false);
  lua_insert(L, -2);
  return 2;
}

/* As Lua's: the handler is [2]. */
static int protect (lua_State *L) {
  const int n = lua_gettop(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_pushboolean(L, true);
  lua_pushvalue(L, 1);
  lua_rotate(L, 3, 2);
  return finish(L, lua_pcallk(L, n - 2, LUA_MULTRET, 2, 2, finish), 2);
}

static lua_CFunction their_pcall;

int bind_catches (lua_CFunction f) {
  if (!f) return BIND_PASSES;
  if (f == protect) return BIND_CATCHES_BY_HANDLER;
  return f == their_pcall || f == bind_catch ? BIND_CATCHES : BIND_PASSES;
}

/* ---- in place of Lua's ---- */

/* library[name] := a closure of f over the C function that is there. */
static void replace (lua_State *L, int library, const char *name, lua_CFunction f) {
  lua_getfield(L, library, name);
  if (lua_iscfunction(L, -1)) {
    lua_pushcclosure(L, f, 1);
    lua_setfield(L, library, name);
  } else lua_pop(L, 1);
}

/* The library of this name, or nil. */
static bool push_library (lua_State *L, const char *name) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
  return lua_istable(L, -1);
}

void bind_watch (lua_State *L) {
  static const char watched_key;
  const int top = lua_gettop(L);
  if (!push_library(L, LUA_GNAME) || lua_rawgetp(L, LUA_REGISTRYINDEX, &watched_key) != LUA_TNIL) {
    lua_settop(L, top);
    return;
  }
  lua_pushboolean(L, true);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &watched_key);
  lua_settop(L, top + 1);
  replace(L, top + 1, "xpcall", protect);
  lua_getfield(L, top + 1, "pcall");
  their_pcall = lua_tocfunction(L, -1);
  lua_settop(L, top + 1);
  if (push_library(L, LUA_COLIBNAME)) {
    replace(L, top + 2, "resume", watched);
    replace(L, top + 2, "close", watched);
    replace(L, top + 2, "wrap", wrap);
  }
  lua_settop(L, top);
}
