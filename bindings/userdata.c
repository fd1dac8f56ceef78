/* SPDX-License-Identifier: MIT
** userdata.c: one metatable for each kind of userdata. Its address tells our userdata from all other values, also from
** those of other libraries.
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

void bind_add_kind (lua_State *L, int module, bind_kind kind, const char *name, const luaL_Reg *metamethods,
                    const luaL_Reg *functions) {
  bind_push_metatable(L, lua_touserdata(L, -1), kind, name);
  lua_pushvalue(L, -2);
  luaL_setfuncs(L, metamethods, 1);
  lua_pop(L, 1);
  for (const luaL_Reg *f = functions; f->name; f++) {
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, f->func, 1);
    lua_setfield(L, module, f->name);
  }
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

/* A box that was finalized and that another finalizer has brought back to life is not remembered: it has no second
   finalizer that would make us forget it. */
bind_box *bind_find_box (lua_State *L, bind_state *S, int idx) {
  bind_box *b = bind_to(L, S, idx, BIND_BOX);
  if (b && !b->finalized) *bind_known(S, b) = b;
  return b;
}
