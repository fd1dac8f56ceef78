/* SPDX-License-Identifier: MIT
** preload.c: how a host opens the whole library: marea.core and the Lua files that are compiled in.
*/
#include "bind.h"

void marea_lua_preload (lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_marea_core);
  lua_setfield(L, -2, "marea.core");
  for (const bind_file *f = bind_files; f->name; f++) {
    bind_push_loader(L, f);
    lua_setfield(L, -2, f->name);
  }
  lua_pop(L, 1);
}

/* `require "marea"` calls it too, where the module is installed as marea.so in package.cpath. */
int luaopen_marea (lua_State *L) {
  bind_check_version(L);
  lua_settop(L, 0);
  if (lua_getglobal(L, "require") != LUA_TFUNCTION)
    return luaL_error(L, "marea: the Lua state has no function `require`; open the library `package` first");
  marea_lua_preload(L);
  luaL_requiref(L, "marea.core", luaopen_marea_core, 0);
  bind_push_loader(L, bind_find_file("marea"));
  lua_pushliteral(L, "marea");
  lua_call(L, 1, 1);
  return 1;
}

void marea_lua_open (lua_State *L, marea_context *ctx) {
  if (ctx) bind_adopt(L, ctx);
  luaL_requiref(L, "marea", luaopen_marea, 0);
}
