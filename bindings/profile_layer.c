/* SPDX-License-Identifier: MIT
** profile_layer.c: tells the profile that runs which layer is at work, as every entry into the bindings does. The
** layer is found on the stack as for error messages. The core knows layers as numbers; what they mean is in tables of
** the session (profile.c):
**
**   user value 1, layers   "1\tVAE\tencoder.conv1" -> number: outermost module, its name, the path from there
**   user value 2, roots    outermost module -> "1\tVAE"; weak keys, but in a sandbox
*/
#include "bind.h"

static const char running_key; /* its address is the key in the registry of the session that runs */

void *bind_running_session (lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &running_key);
  return lua_touserdata(L, -1);
}

void bind_run_session (lua_State *L, bind_state *S) {
  lua_rawsetp(L, LUA_REGISTRYINDEX, &running_key);
  S->roots = 0;
}

/* Pushes what layers under the module at idx begin with. */
static void push_root (lua_State *L, bind_state *S, int roots, int idx) {
  lua_pushvalue(L, idx);
  if (lua_rawget(L, roots) == LUA_TSTRING) return;
  lua_pop(L, 1);
  lua_pushliteral(L, "name");
  if (lua_rawget(L, idx) != LUA_TSTRING && luaL_getmetafield(L, idx, "__name") == LUA_TNIL)
    lua_pushliteral(L, "?");
  lua_pushfstring(L, "%d\t%s", ++S->roots, luaL_tolstring(L, -1, NULL));
  lua_pushvalue(L, idx);
  lua_pushvalue(L, -2);
  lua_rawset(L, roots);
}

/* The number of the layer at work, 0: none. Leaves values on the stack. */
static int current_layer (lua_State *L, bind_state *S) {
  char path[BIND_LAYER];
  if (!bind_layer(L, path)) return 0;
  int root = lua_gettop(L);
  bind_running_session(L);
  lua_getiuservalue(L, root + 1, 1);
  lua_getiuservalue(L, root + 1, 2);
  push_root(L, S, root + 3, root);
  lua_pushfstring(L, "%s\t%s", lua_tostring(L, -1), path);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, root + 2) == LUA_TNUMBER) return (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  lua_pushinteger(L, ++S->layers);
  lua_rawset(L, root + 2);
  return S->layers;
}

void bind_profile_layer (lua_State *L, bind_state *S) {
  int top = lua_gettop(L);
  marea_profile_pause(S->profile);
  luaL_checkstack(L, 16, NULL);
  marea_set_layer(S->ctx, current_layer(L, S));
  lua_settop(L, top);
  marea_profile_resume(S->profile);
}
