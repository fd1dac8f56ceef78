/* SPDX-License-Identifier: MIT
** preload.c: the library's Lua files, compiled in (bind_files, made from lua/marea by bindings/embed.lua), and the
** ways in which a host opens the whole of it.
*/
#include "bind.h"

/* Pushes the compiled chunk of a file; raises when there is no memory. */
static void push_chunk (lua_State *L, const bind_file *f) {
  if (luaL_loadbufferx(L, f->text, f->size, f->chunk, "t") != LUA_OK) lua_error(L);
}

/* What `require` calls: (name, ":preload:"). */
static int load_file (lua_State *L) {
  lua_settop(L, 2);
  push_chunk(L, lua_touserdata(L, lua_upvalueindex(1)));
  lua_insert(L, 1);
  lua_call(L, 2, 1);
  return 1;
}

const bind_file *bind_find_file (const char *name) {
  const bind_file *f = bind_files;
  while (f->name && strcmp(f->name, name) != 0) f++;
  return f->name ? f : NULL;
}

void bind_push_loader (lua_State *L, const bind_file *f) {
  lua_pushlightuserdata(L, (void *)f);
  lua_pushcclosure(L, load_file, 1);
}

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

/* Also what `require "marea"` calls where the module's file lies as marea.so in package.cpath. */
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
