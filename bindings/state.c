/* SPDX-License-Identifier: MIT
** state.c: what there is once for each Lua state: a userdata in the registry with the context, the boxes and scopes
** that are open, and what was looked up before.
*/
#include "bind.h"

static const char state_key; /* its address is the state's key in the registry */

bind_state *bind_find_state (lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
  bind_state *S = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return S;
}

static int state_gc (lua_State *L) {
  bind_state *S = bind_find_state(L);
  if (!S || S != lua_touserdata(L, 1)) return 0; /* another value, or a state that never got a context */
  marea_context *ctx = S->ctx;
  S->ctx = NULL;
  if (!S->borrowed) marea_close(ctx);
  return 0;
}

/* Pushes the state, registered, still without a context. */
bind_state *bind_state_new (lua_State *L) {
  bind_state *S = lua_newuserdatauv(L, sizeof *S, 0);
  memset(S, 0, sizeof *S);
  strcpy(S->source[0], "?");
  S->sources = 1;
  S->library[0] = (bind_library){bind_embedded, strlen(bind_embedded)};
  S->collect_at = BIND_COLLECT_LEAST;
  S->collect_boxes = BIND_COLLECT_BOXES;
  S->select = marea_op_find("select");
  S->slice = marea_op_find("slice");
  S->cast = marea_op_find("cast");
  S->clone = marea_op_find("clone");
  S->reshape = marea_op_find("reshape");
  S->contiguous = marea_op_find("contiguous");
  S->flatnonzero = marea_op_find("flatnonzero");
  S->index_select = marea_op_find("index_select");
  S->index_put = marea_op_find("index_put");
  S->masked_fill = marea_op_find("masked_fill");
  lua_newtable(L);
  lua_pushcfunction(L, state_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
  return S;
}

void bind_adopt (lua_State *L, marea_context *ctx) {
  if (bind_find_state(L)) luaL_error(L, "marea: this Lua state is open already, with another context");
  if (marea_index_base(ctx) != 1)
    luaL_error(L, "marea: the context counts from %d; one for Lua needs index_base = 1 in its config",
               marea_index_base(ctx));
  bind_state *S = bind_state_new(L);
  S->ctx = ctx;
  S->borrowed = true;
  lua_pop(L, 1);
}

void bind_forget_state (lua_State *L) {
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
}

void bind_push_state (lua_State *L) { lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key); }

void bind_forget_live (bind_state *S) {
  S->passed = marea_memory(S->ctx).live;
  S->collect_at = bind_collect_at(S->passed);
}
