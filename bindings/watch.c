/* SPDX-License-Identifier: MIT
** watch.c: functions that take the place of some of Lua's library because of Ctrl-C. A hook belongs to a coroutine,
** so the signal handler must know which coroutine is at work: our coroutine.resume, wrap and close tell it. When a
** hook raises, Lua calls the handler of an xpcall inside the hook, where nothing can stop it: our xpcall makes such
** an error pass the script's handler by. debug.sethook would replace our hook: ours sets it again.
**
** The functions behave as Lua's do. They are put in place when a script is first run in core.interruptible; the
** program runs everything so.
*/
#include <lualib.h>

#include "interrupt.h"

/* ---- coroutines ---- */

/* Is the coroutine running, or waiting for one that it has resumed? Then it can be neither resumed nor closed. */
static bool is_busy (lua_State *L, lua_State *co) {
  lua_Debug ar;
  return co == L || (lua_status(co) == LUA_OK && lua_getstack(co, 0, &ar) > 0);
}

/* Calls Lua's resume or close on the coroutine at 1, which is `co`: as a C function, on our own frame, since lua_call
   would need a second level of the C stack for each coroutine. Neither of them raises while `co` is at work. */
static int watch (lua_State *L, lua_CFunction f, lua_State *co) {
  lua_State *before = is_busy(L, co) ? NULL : bind_interrupt_switch(co);
  const int n = f(L);
  if (before) bind_interrupt_switch(before);
  return n;
}

/* Upvalue: Lua's function. */
static int watched (lua_State *L) {
  lua_CFunction f = lua_tocfunction(L, lua_upvalueindex(1));
  lua_State *co = lua_tothread(L, 1);
  return co ? watch(L, f, co) : f(L); /* which says so */
}

/* (coroutine) -> status, error: closes it, for wrap. The error is the one that it died of, or that of one of its
   closers. */
static int close_dead (lua_State *L) {
  lua_State *co = lua_tothread(L, 1);
  lua_pushinteger(L, lua_resetthread(co));
  lua_xmove(co, L, 1);
  return 2;
}

/* What coroutine.wrap returns. Upvalues: Lua's resume, the coroutine. Lua's own function raises the coroutine's
   error, and we could not note that the coroutine is no longer at work. */
static int resume_or_raise (lua_State *L) {
  lua_State *co = lua_tothread(L, lua_upvalueindex(2));
  lua_Integer status = LUA_ERRRUN;
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  const int n = watch(L, lua_tocfunction(L, lua_upvalueindex(1)), co);
  if (lua_toboolean(L, -n)) return n - 1;
  if (lua_status(co) > LUA_YIELD) {
    lua_pushvalue(L, lua_upvalueindex(2));
    lua_replace(L, 1);
    watch(L, close_dead, co);
    status = lua_tointeger(L, -2);
  }
  if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

/* coroutine.wrap; upvalues: Lua's, whose result has the coroutine as its upvalue, and Lua's resume */
static int wrap (lua_State *L) {
  lua_tocfunction(L, lua_upvalueindex(1))(L);
  lua_pushvalue(L, lua_upvalueindex(2));
  if (!lua_getupvalue(L, -2, 1)) return 1;
  lua_pushcclosure(L, resume_or_raise, 2);
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

/* ---- debug.sethook ---- */

/* Upvalue: Lua's sethook. The new hook has replaced ours; if there is a request, ours is set again. */
static int set_hook (lua_State *L) {
  const int n = lua_tocfunction(L, lua_upvalueindex(1))(L);
  bind_interrupt_switch(L);
  return n;
}

/* ---- in place of Lua's ---- */

/* library[name] := a closure of f over the function that is there, and over `second` unless that is NULL. Replaces only
   functions in C without upvalues, as Lua's own are, because we call them on our frame. */
static void replace (lua_State *L, int library, const char *name, lua_CFunction f, lua_CFunction second) {
  lua_getfield(L, library, name);
  if (!lua_iscfunction(L, -1) || lua_getupvalue(L, -1, 1)) return;
  if (second) lua_pushcfunction(L, second);
  lua_pushcclosure(L, f, second ? 2 : 1);
  lua_setfield(L, library, name);
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
  replace(L, top + 1, "xpcall", protect, NULL);
  lua_getfield(L, top + 1, "pcall");
  bind_interrupt_knows(BIND_PCALL, lua_tocfunction(L, -1));
  bind_interrupt_knows(BIND_XPCALL, protect);
  lua_settop(L, top + 1);
  if (push_library(L, LUA_COLIBNAME)) {
    lua_getfield(L, top + 2, "resume");
    lua_CFunction resume = lua_getupvalue(L, -1, 1) ? NULL : lua_tocfunction(L, -1);
    replace(L, top + 2, "resume", watched, NULL);
    replace(L, top + 2, "close", watched, NULL);
    if (resume) replace(L, top + 2, "wrap", wrap, resume);
  }
  lua_settop(L, top + 1);
  if (push_library(L, LUA_DBLIBNAME)) replace(L, top + 2, "sethook", set_hook, NULL);
  lua_settop(L, top);
}
