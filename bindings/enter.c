/* SPDX-License-Identifier: MIT
** enter.c: what every function that computes does first, and when garbage is collected: Lua's collector does not see
** the memory behind a box.
*/
#include "bind.h"

/* A full collection takes 0.18 us for each KiB of Lua's heap (22 MiB of small tables in 4.1 ms). */

/* For each KiB of Lua's heap so many boxes more may be made before garbage is collected. They take 1.3 us (165 ns for
   each operator, docs/performance.md), so collections take at most a seventh of the time. */
#define BOXES_PER_KIB 8
#define BOX_BYTES (sizeof(bind_box) + 48) /* of Lua's heap, with the header of a userdata; roughly */
/* Before a reverse pass garbage is collected when the live bytes have grown by PASS_LEAST, and by PASS_SHARE times
   the bytes of Lua's heap. PASS_LEAST take 0.4 ms to write; 32 KiB take 1.6 us, nine times what collecting 1 KiB
   takes. */
#define PASS_LEAST ((size_t)8 << 20)
#define PASS_SHARE 32

/* Lua's collector does not see the memory behind a box. So there is one full collection whenever the live bytes have
   doubled. That works in the collector's incremental and in its generational mode, and costs nothing while scopes
   release what a script makes.

   The number of boxes counts too. Lua's pace depends on its heap, in which boxes that wait for their finalizers count
   as alive, so they would pile up until nothing fits in the cache. In a small heap boxes are collected while they are
   still in the cache; a large heap takes long to search and is searched less often. */
void bind_collect (lua_State *L, bind_state *S) {
  int64_t before = S->finalizers;
  if (lua_gc(L, LUA_GCISRUNNING) == 1) lua_gc(L, LUA_GCCOLLECT);
  S->collect_at = bind_collect_at(marea_memory(S->ctx).live);
  /* Boxes that were finalized now are freed by the next collection. */
  int64_t doomed = (before - S->finalizers) * (int64_t)BOX_BYTES;
  S->collect_boxes = 2 * S->finalizers + BIND_COLLECT_BOXES +
                     BOXES_PER_KIB * (lua_gc(L, LUA_GCCOUNT) - doomed / 1024);
}

marea_context *bind_enter (lua_State *L, bind_state *S) {
  if (!S->ctx) bind_raise(L, S, "marea: the Lua state is closing");
  if (S->sandbox) bind_sandbox_check(L, S->sandbox);
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
