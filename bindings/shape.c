/* SPDX-License-Identifier: MIT
** shape.c: shapes are lists of sizes that print, compare and join with texts. They all have one metatable. Scripts
** may change the lists, so they are read without metamethods and nothing is assumed of what is in them.
*/
#include "bind.h"

/* Items between two questions whether to stop; a script may have put millions in. One takes 0.1 us to be written, so a
   question comes every 0.1 ms. */
#define STRETCH 1024

/* Pushes "(2, 3)". */
static void push_text (lua_State *L, bind_state *S, int idx) {
  luaL_Buffer b;
  const lua_Integer n = (lua_Integer)lua_rawlen(L, idx);
  luaL_buffinit(L, &b);
  luaL_addchar(&b, '(');
  for (lua_Integer i = 1; i <= n; i++) {
    if (i % STRETCH == 0) bind_poll(L, S);
    if (i > 1) luaL_addstring(&b, ", ");
    lua_rawgeti(L, idx, i);
    luaL_tolstring(L, -1, NULL);
    lua_remove(L, -2);
    luaL_addvalue(&b);
  }
  luaL_addchar(&b, ')');
  luaL_pushresult(&b);
}

static int shape_tostring (lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  push_text(L, bind_self(L), 1);
  return 1;
}

/* Lua asks when either operand is a shape and both are tables. */
static int shape_eq (lua_State *L) {
  bind_state *S = bind_self(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  const lua_Unsigned n = lua_rawlen(L, 1);
  bool same = lua_rawlen(L, 2) == n;
  for (lua_Unsigned i = 1; same && i <= n; i++) {
    if (i % STRETCH == 0) bind_poll(L, S);
    lua_rawgeti(L, 1, (lua_Integer)i);
    lua_rawgeti(L, 2, (lua_Integer)i);
    same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  lua_pushboolean(L, same);
  return 1;
}

static int shape_concat (lua_State *L) {
  bind_state *S = bind_self(L);
  lua_settop(L, 2);
  for (int i = 1; i <= 2; i++) {
    if (lua_isstring(L, i)) lua_pushvalue(L, i); /* or a number */
    else if (bind_is_shape(L, i)) push_text(L, S, i);
    else return bind_raise(L, S, "..: expected a text beside a shape, got %s", bind_describe(L, S, i));
  }
  lua_concat(L, 2);
  return 1;
}

static const luaL_Reg metamethods[] = {
    {"__tostring", shape_tostring}, {"__eq", shape_eq}, {"__concat", shape_concat}, {NULL, NULL}};

void bind_shape_open (lua_State *L) {
  bind_state *S = lua_touserdata(L, -1);
  lua_newtable(L);
  lua_pushvalue(L, -2);
  luaL_setfuncs(L, metamethods, 1);
  S->shapes = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Makes a shape of the list on top of the stack. */
void bind_set_shape (lua_State *L, const bind_state *S) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->shapes);
  lua_setmetatable(L, -2);
}

bool bind_is_shape (lua_State *L, int idx) {
  const bind_state *S = bind_find_state(L);
  idx = lua_absindex(L, idx);
  if (!S || !lua_istable(L, idx) || !lua_getmetatable(L, idx)) return false;
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->shapes);
  const bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same;
}

/* core.shape(list) -> the list, which is a shape from now on */
int bind_make_shape (lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  bind_set_shape(L, bind_self(L));
  return 1;
}

/* core.is_shape(value) */
int bind_tell_shape (lua_State *L) {
  lua_pushboolean(L, bind_is_shape(L, 1));
  return 1;
}
