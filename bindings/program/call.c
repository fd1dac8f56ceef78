/* SPDX-License-Identifier: MIT
** call.c: how the program runs anything and reports errors: with a traceback, and so that Ctrl-C ends it.
*/
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>

#include "bind.h"
#include "program.h"

bool program_explain (lua_State *L, const char *function) {
  int top = lua_gettop(L);
  const bind_hook taken = bind_hush(L);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "marea.explain");
  if (lua_pcall(L, 1, 1, 0) == LUA_OK && lua_istable(L, -1)) {
    lua_getfield(L, -1, function);
    lua_pushvalue(L, top);
    if (lua_pcall(L, 1, 1, 0) == LUA_OK && lua_type(L, -1) == LUA_TSTRING) lua_replace(L, top);
    else function = NULL;
  } else function = NULL;
  lua_settop(L, top);
  bind_unhush(L, &taken);
  return function != NULL;
}

static int add_traceback (lua_State *L) {
  const char *message = lua_tostring(L, 1);
  if (!message) {
    if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) return 1;
    message = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  lua_settop(L, lua_type(L, 1) == LUA_TSTRING ? 1 : lua_gettop(L));
  if (!program_explain(L, "traceback")) luaL_traceback(L, L, message, 1);
  return 1;
}

int program_call (lua_State *L, int n, int results) {
  int base = lua_gettop(L) - n;
  lua_pushcfunction(L, add_traceback);
  lua_insert(L, base);
  bind_end_interrupt(L);
  int status = lua_pcall(L, n, results, base);
  if (status != LUA_OK) bind_interrupt_thrown(L);
  bind_end_interrupt(L);
  lua_remove(L, base);
  return status;
}

int program_report (lua_State *L, int status) {
  if (status == LUA_OK) return EXIT_SUCCESS;
  const char *message = lua_tostring(L, -1);
  fflush(stdout);
  fprintf(stderr, "marea: %s\n", message ? message : "(error message is not a string)");
  lua_pop(L, 1);
  return EXIT_FAILURE;
}
