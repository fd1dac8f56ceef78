/* SPDX-License-Identifier: MIT
** box.c: the userdata that holds a tensor, and the lists of them that scopes release. A box is made empty, then filled,
** so that no tensor is ever without an owner; it knows the line that made it and how it ended, so that late use can say
** both.
*/
#include "bind.h"

/* ---- the open scopes ---- */

bind_scope *bind_scope_innermost (lua_State *L, bind_state *S) {
  bind_scope *s = S->scopes;
  while (s && s->thread != L) s = s->outer;
  return s;
}

void bind_scope_enter (bind_scope *s, bind_box *b) {
  b->scope = s;
  b->prev = NULL;
  b->next = s->first;
  if (s->first) s->first->prev = b;
  s->first = b;
}

/* ---- boxes ---- */

void bind_box_leave (bind_box *b) {
  if (b->ended_by != BIND_ALIVE || !b->scope) return;
  if (b->prev) b->prev->next = b->next;
  else b->scope->first = b->next;
  if (b->next) b->next->prev = b->prev;
  b->scope = NULL;
  b->prev = b->next = NULL;
}

bind_box *bind_box_new (lua_State *L, bind_state *S) {
  bind_box *b = bind_new(L, S, BIND_BOX, sizeof *b, 0);
  b->state = S;
  *bind_known(S, b) = b;
  S->finalizers++;
  bind_place made = bind_where(L, S);
  b->made_source = made.source;
  b->made_line = made.line;
  if (S->ctx) marea_set_place(S->ctx, bind_place_number(made));
  bind_scope *scope = S->scopes ? bind_scope_innermost(L, S) : NULL;
  if (scope) bind_scope_enter(scope, b);
  return b;
}

void bind_box_fill (bind_box *b, marea_tensor *t) {
  b->t = t;
  b->state->boxes++;
}

/* Notes the shape for messages and gives the reference back. Does nothing to an empty box. */
void bind_box_release (bind_box *b, int by, bind_place place) {
  marea_tensor *t = b->t;
  bind_box_leave(b); /* before the union takes the shape */
  if (!t) return;
  b->t = NULL;
  b->state->boxes--;
  b->dtype = (uint8_t)marea_tensor_dtype(t);
  b->rank = (uint8_t)marea_tensor_rank(t);
  b->had_history = marea_requires_grad(t) && !marea_is_leaf(t);
  const int64_t *shape = marea_tensor_shape(t);
  for (int d = 0; d < b->rank; d++) b->shape[d] = shape[d] > UINT32_MAX ? UINT32_MAX : (uint32_t)shape[d];
  b->ended_by = (uint8_t)by;
  b->ended_source = place.source;
  b->ended_line = place.line;
  marea_release(t);
}

marea_tensor *bind_check (lua_State *L, bind_state *S, int idx, const char *function, const char *name) {
  const bind_box *b = bind_to_box(L, S, idx);
  if (!b) bind_raise_argument(L, S, function, name, "a tensor", idx);
  else if (!b->t) bind_raise_released(L, S, function, name, b);
  else return b->t;
  return NULL;
}

/* ---- the end of a scope ---- */

static void unlink_scope (bind_scope *s) {
  if (s->inner) s->inner->outer = s->outer;
  else s->state->scopes = s->outer;
  if (s->outer) s->outer->inner = s->inner;
}

/* Ends a scope without releasing its tensors: those that are still in it are left to the garbage collector. */
void bind_scope_abandon (bind_scope *s) {
  if (!s->open) return;
  s->open = false;
  unlink_scope(s);
  while (s->first) bind_box_leave(s->first);
  if (s->no_grad && s->state->ctx) marea_set_recording(s->state->ctx, s->recording);
  if (s->autocast && s->state->ctx) marea_set_autocast(s->state->ctx, s->lowered);
  if (s->plan && s->state->ctx) {
    marea_plan_stop(s->state->ctx);
    bind_forget_live(s->state);
  }
  if (!s->shield) return;
  if (s->state->ctx) marea_set_shielded(s->state->ctx, s->shielded);
  s->state->held = s->held;
}

void bind_scope_end (bind_scope *s, bind_place place) {
  while (s->first) bind_box_release(s->first, BIND_BY_SCOPE, place);
  bind_scope_abandon(s);
}

void bind_scope_reap (bind_state *S) {
  bind_scope *s = S->scopes;
  while (s) {
    bind_scope *outer = s->outer;
    if (lua_status(s->thread) > LUA_YIELD) bind_scope_abandon(s);
    s = outer;
  }
}
