/* SPDX-License-Identifier: MIT
** userdata.c: what every userdata of ours shares: a metatable for each kind, by whose address it is told from all other
** values, those of other libraries among them.
*/
#include "bind.h"

void bind_push_metatable (lua_State *L, bind_state *S, bind_kind kind, const char *name) {
  bind_metatable *m = &S->metatable[kind];
  if (m->reference != 0) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, m->reference);
    return;
  }
  lua_newtable(L);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, false);
  lua_setfield(L, -2, "__metatable");
  m->self = lua_topointer(L, -1);
  lua_pushvalue(L, -1);
  m->reference = luaL_ref(L, LUA_REGISTRYINDEX);
}

int bind_protected (lua_State *L, bind_state *S, lua_CFunction f, void *work, int n) {
  void *outer = S->work;
  lua_pushcfunction(L, f);
  lua_insert(L, -n - 1);
  S->work = work;
  const int status = lua_pcall(L, n, LUA_MULTRET, 0);
  S->work = outer;
  return status;
}

void *bind_work (bind_state *S) {
  void *work = S->work;
  S->work = NULL;
  return work;
}

/* A box that another finalizer has brought back to life is not noted: nothing would tell of its end. */
bind_box *bind_find_box (lua_State *L, bind_state *S, int idx) {
  bind_box *b = bind_to(L, S, idx, BIND_BOX);
  if (b && !b->finalized) *bind_known(S, b) = b;
  return b;
}
