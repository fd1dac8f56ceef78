/* SPDX-License-Identifier: MIT
** marea_lua.h: what a host in C needs to put Marea into its Lua state and to hand tensors over. A host that
** links the bindings statically opens the module with luaL_requiref(L, "marea.core", luaopen_marea_core, 0).
*/
#ifndef MAREA_LUA_H
#define MAREA_LUA_H

#include <lua.h>

#include "marea.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the module `marea.core` and leaves its table on the stack. A state has one context. */
MAREA_API int luaopen_marea_core (lua_State *L);
/* The context of this Lua state; NULL as long as marea.core is not open. It ends with the state. */
MAREA_API marea_context *marea_lua_context (lua_State *L);
/* Pushes a Lua value for `t` and retains it. May raise a Lua error, then `t` is as before. */
MAREA_API void marea_lua_push (lua_State *L, marea_tensor *t);
/* The tensor at `idx`, borrowed as long as the Lua value lives; raises a Lua error if there is none. */
MAREA_API marea_tensor *marea_lua_check (lua_State *L, int idx);

#ifdef __cplusplus
}
#endif

#endif
