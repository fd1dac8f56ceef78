/* SPDX-License-Identifier: MIT
** scope.c: a scope releases at its end every tensor that was made in it, except those that are returned
** from it or kept. Scopes belong to the coroutine that opened them, so coroutines that take turns do not
** end each other's. They need no order: an outer one may end before an inner one.
**
** no_grad is a scope at whose end recording is as it was before. A coroutine cannot yield inside it, because
** recording is a state of the whole context; bind_scope_reap ends the scope of a coroutine that died inside it. The
** same holds for autocast and plans.
*/
#include "bind.h"

/* ---- begin ---- */

/* Pushes a scope that is open. */
static bind_scope *scope_new (lua_State *L, bind_state *S) {
  bind_scope *s = bind_new(L, S, BIND_SCOPE, sizeof *s, 1);
  s->state = S;
  s->thread = L;
  lua_pushthread(L);
  lua_setiuservalue(L, -2, 1);
  s->open = true;
  s->outer = S->scopes;
  if (s->outer) s->outer->inner = s;
  S->scopes = s;
  return s;
}

/* ---- what survives ---- */

/* The scope that a result of `s` belongs to from now on. */
static bind_scope *scope_around (const bind_scope *s) {
  bind_scope *o = s->outer;
  while (o && o->thread != s->thread) o = o->outer;
  return o;
}

static void hand_out (bind_scope *s, bind_box *b) {
  if (b->ended_by != BIND_ALIVE || b->scope != s) return;
  bind_scope *around = scope_around(s);
  bind_box_leave(b);
  if (around) bind_scope_enter(around, b);
}

/* If the value on top is a table not met before, it is appended to the list `found` of n tables. */
static void note_table (lua_State *L, int found, lua_Integer *n) {
  lua_pushvalue(L, -1);
  if (lua_rawget(L, found) != LUA_TNIL) {
    lua_pop(L, 1);
    return;
  }
  lua_pop(L, 1);
  lua_pushvalue(L, -1);
  lua_pushboolean(L, true);
  lua_rawset(L, found);
  lua_pushvalue(L, -1);
  lua_rawseti(L, found, ++*n);
}

/* Hands out the value on top: a tensor, or a table that is to be searched for tensors. */
static void survive (lua_State *L, bind_scope *s, int found, lua_Integer *n) {
  if (lua_istable(L, -1)) {
    note_table(L, found, n);
    return;
  }
  bind_box *b = bind_to_box(L, s->state, -1);
  if (b) hand_out(s, b);
}

/* The values at first..top survive the scope, with all tensors in tables that they lead to. */
static void survivors (lua_State *L, bind_scope *s, int first) {
  int top = lua_gettop(L);
  bool tables = false;
  for (int i = first; i <= top; i++) {
    bind_box *b = bind_to_box(L, s->state, i);
    if (b) hand_out(s, b);
    tables |= lua_istable(L, i);
  }
  if (!tables) return;
  luaL_checkstack(L, 8, NULL);
  lua_Integer n = 0;
  lua_newtable(L); /* list of tables, and set of them */
  for (int i = first; i <= top; i++) {
    lua_pushvalue(L, i);
    survive(L, s, top + 1, &n);
    lua_pop(L, 1);
  }
  for (lua_Integer i = 1; i <= n; i++) {
    if (i % BIND_UNASKED == 0 && s->state->sandbox) bind_sandbox_check(L, s->state->sandbox);
    lua_rawgeti(L, top + 1, i);
    for (lua_pushnil(L); lua_next(L, top + 2); lua_pop(L, 1)) survive(L, s, top + 1, &n);
    lua_pop(L, 1);
  }
  lua_settop(L, top);
}

/* ---- functions for Lua ---- */

static bind_scope *to_scope (lua_State *L, bind_state *S, int idx) { return bind_to(L, S, idx, BIND_SCOPE); }

/* __gc: for a scope whose coroutine was dropped. Its tensors may be in use elsewhere. */
static int scope_gc (lua_State *L) {
  bind_scope *s = to_scope(L, bind_self(L), 1);
  if (s) bind_scope_abandon(s);
  return 0;
}

/* s:close() and __close. */
static int scope_close (lua_State *L) {
  bind_state *S = bind_self(L);
  bind_scope *s = to_scope(L, S, 1);
  if (!s) return bind_raise_argument(L, S, "close", "scope", "a scope", 1);
  if (S->scopes && S->scopes != s) bind_scope_reap(S);
  if (s->open) bind_scope_end(s, s->first ? bind_where(L, S) : (bind_place){0, 0});
  return 0;
}

/* After the function of a scope has returned: [1] is the scope, its results lie above. */
static int finish (lua_State *L, int status, lua_KContext unused) {
  bind_scope *s = lua_touserdata(L, 1);
  (void)status;
  (void)unused;
  if (s->open) survivors(L, s, 2);
  return lua_gettop(L) - 1; /* leaving closes the scope */
}

/* [1] := a scope that ends when the C function is left, be it by an error. */
static bind_scope *scope_around_call (lua_State *L, bind_state *S, const char *function) {
  if (lua_type(L, 1) != LUA_TFUNCTION && (bind_to_box(L, S, 1) || !luaL_getmetafield(L, 1, "__call")))
    bind_raise_argument(L, S, function, "f", "a function", 1);
  lua_settop(L, lua_gettop(L) - (lua_type(L, 1) != LUA_TFUNCTION));
  bind_scope *s = scope_new(L, S);
  lua_insert(L, 1);
  lua_toclose(L, 1);
  return s;
}

/* core.scope(f, ...) -> results of f; core.scope() -> scope */
int bind_scope_call (lua_State *L) {
  bind_state *S = bind_self(L);
  bind_enter(L, S);
  if (lua_isnoneornil(L, 1)) {
    scope_new(L, S);
    return 1;
  }
  scope_around_call(L, S, "scope");
  lua_callk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, finish);
  return finish(L, LUA_OK, 0);
}

/* core.no_grad(f, ...) -> results of f */
int bind_no_grad (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_context *ctx = bind_enter(L, S);
  bind_scope *s = scope_around_call(L, S, "no_grad");
  s->no_grad = true;
  s->recording = marea_set_recording(ctx, false);
  lua_call(L, lua_gettop(L) - 2, LUA_MULTRET);
  return finish(L, LUA_OK, 0);
}

/* core.autocast(dtype, f, ...) -> results of f, whose products take float inputs in this dtype; of a dtype that is not
   stored only: as they are */
int bind_autocast (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_context *ctx = bind_enter(L, S);
  marea_dtype dtype;
  if (!bind_to_dtype(L, 1, &dtype)) return bind_raise_argument(L, S, "autocast", "dtype", "a dtype", 1);
  lua_remove(L, 1);
  bind_scope *s = scope_around_call(L, S, "autocast");
  s->autocast = true;
  s->lowered = marea_set_autocast(ctx, (int)dtype);
  lua_call(L, lua_gettop(L) - 2, LUA_MULTRET);
  return finish(L, LUA_OK, 0);
}

/* core.plan(f, ...) -> results of f, in which operators compute nothing. Garbage is collected before, because a plan
   counts what is in use. It also resets when garbage is collected next (bind_forget_live), so that a plan and the
   real run after it collect at the same moments. */
int bind_plan (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  bind_scope *s = scope_around_call(L, S, "plan");
  if (lua_gc(L, LUA_GCISRUNNING) == 1) lua_gc(L, LUA_GCCOLLECT);
  bind_forget_live(S);
  BIND_RETRY(L, S, 0, NULL, status, marea_plan_start(ctx));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  s->plan = true;
  lua_call(L, lua_gettop(L) - 2, LUA_MULTRET);
  return finish(L, LUA_OK, 0);
}

/* What core.shield runs: [1] nil or `before`, [2] f, then f's arguments. */
static int run_shielded (lua_State *L) {
  bind_state *S = bind_find_state(L);
  luaL_checkany(L, 2); /* scripts can see this function on the stack of an error */
  if (!lua_isnil(L, 1)) {
    lua_pushvalue(L, 1);
    lua_call(L, 0, 0);
  }
  marea_set_shielded(
      S->ctx,
      !S->sandbox); /* a sandbox's limits hold in shields too. The scope's end brings both settings back */
  marea_set_recording(S->ctx, false);
  lua_call(L, lua_gettop(L) - 2, 0);
  return 0;
}

/* core.shield(before or nil, f, ...): calls before(), whose operators an interrupt ends, and then f(...), in no_grad
   and in a scope of its own, which no interrupt ends. Nothing comes between the two. An interrupt that comes while f
   runs is raised when f has returned. */
int bind_shield (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_context *ctx = bind_enter(L, S);
  if (!lua_isnoneornil(L, 1) && lua_type(L, 1) != LUA_TFUNCTION)
    bind_raise_argument(L, S, "shield", "before", "a function or nil", 1);
  if (lua_type(L, 2) != LUA_TFUNCTION) bind_raise_argument(L, S, "shield", "f", "a function", 2);
  bind_scope *s = scope_new(L, S);
  lua_insert(L, 1);
  lua_toclose(L, 1);
  s->no_grad = s->shield = true;
  s->recording = marea_recording(ctx);
  s->shielded = marea_shielded(ctx);
  s->held = S->held;
  lua_pushcfunction(L, run_shielded);
  lua_insert(L, 2);
  bind_call_held(L, S, lua_gettop(L) - 2);
  return 0;
}

static int scope_tostring (lua_State *L) {
  bind_scope *s = to_scope(L, bind_self(L), 1);
  lua_pushfstring(L, "scope (%s)", s && s->open ? "open" : "ended");
  return 1;
}

static const luaL_Reg metamethods[] = {
    {"__gc", scope_gc}, {"__close", scope_close}, {"__tostring", scope_tostring}, {NULL, NULL}};
static const luaL_Reg methods[] = {{"close", scope_close}, {NULL, NULL}};

/* The state is on top of the stack, and stays there. */
void bind_scope_open (lua_State *L) {
  bind_push_metatable(L, lua_touserdata(L, -1), BIND_SCOPE, "marea.Scope");
  lua_pushvalue(L, -2);
  luaL_setfuncs(L, metamethods, 1);
  lua_newtable(L);
  lua_pushvalue(L, -3);
  luaL_setfuncs(L, methods, 1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
