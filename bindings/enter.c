/* SPDX-License-Identifier: MIT
** enter.c: what every function that computes does first, and when garbage is collected: Lua's collector does not see the
** memory behind a box.
*/
#include "bind.h"

#define BOXES_PER_KIB 8                   /* of Lua's heap: what a collection may cost */
#define BOX_BYTES (sizeof(bind_box) + 48) /* of Lua's heap */
#define PASS_LEAST ((size_t)8 << 20) /* new live bytes before a pass for which garbage is collected, and */
#define PASS_SHARE 32                /* times Lua's heap, so that the search takes no time that shows */

/* Lua's collector does not see the memory behind a box. One full collection when the live bytes have doubled
   works in both of its modes, and costs nothing while scopes release what a script makes.

   The number of boxes counts too. Lua sets its pace by a heap in which boxes that wait for their finalizers
   still count as alive, so they would pile up until nothing fits in the cache. Few boxes are collected while
   they are still in there; a large heap, which takes long to search, is searched less often. */
void bind_collect (lua_State *L, bind_state *S) {
  int64_t before = S->finalizers;
  if (lua_gc(L, LUA_GCISRUNNING) == 1) lua_gc(L, LUA_GCCOLLECT);
  S->collect_at = bind_collect_at(marea_memory(S->ctx).live);
  int64_t doomed = (before - S->finalizers) * (int64_t)BOX_BYTES; /* the next collection frees them */
  S->collect_boxes = 2 * S->finalizers + BIND_COLLECT_BOXES +
                     BOXES_PER_KIB * (lua_gc(L, LUA_GCCOUNT) - doomed / 1024);
}

marea_context *bind_enter (lua_State *L, bind_state *S) {
  if (!S->ctx) bind_raise(L, S, "marea: the Lua state is closing");
  if (S->box) bind_sandbox_check(L, S->box);
  if (S->scopes && S->scopes->thread != L) bind_scope_reap(S);
  if (marea_memory(S->ctx).live > S->collect_at || S->finalizers > S->collect_boxes) bind_collect(L, S);
  if (S->profile) bind_profile_layer(L, S);
  return S->ctx;
}

void bind_enter_pass (lua_State *L, bind_state *S) {
  size_t live = marea_memory(bind_enter(L, S)).live, heap = (size_t)lua_gc(L, LUA_GCCOUNT) * 1024;
  if (live > S->passed + PASS_LEAST + PASS_SHARE * heap) bind_collect(L, S);
  marea_set_place(S->ctx, bind_place_number(bind_where(L, S)));
}

void bind_leave_pass (bind_state *S) { S->passed = marea_memory(S->ctx).live; }

void bind_pin (lua_State *L, bind_state *S, int n, marea_tensor *const *in) {
  for (int i = 0; i < n; i++)
    if (in[i]) marea_retain(in[i]);
  marea_memory_trim(S->ctx);
  lua_gc(L, LUA_GCCOLLECT);
}

void bind_unpin (int n, marea_tensor *const *in) {
  for (int i = 0; i < n; i++) marea_release(in[i]);
}
