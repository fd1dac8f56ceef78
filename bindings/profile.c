/* SPDX-License-Identifier: MIT
** profile.c: profiles for Lua. A session is a userdata that owns a profile of the core; its user values are the
** tables of profile_layer.c and the coroutine that started it.
*/
#include "bind.h"

typedef struct session {
  bind_state *state;
  marea_profile *profile;
  lua_State *thread; /* the coroutine that started it; user value 3 */
  bind_place place;  /* ... and where */
} session;

/* ---- start and stop ---- */

/* Gives the table on top weak keys. */
static void make_weak (lua_State *L) {
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
}

/* Pushes a session without a profile. */
static session *session_new (lua_State *L, bind_state *S) {
  session *s = bind_new(L, S, BIND_SESSION, sizeof *s, 3);
  *s = (session){.state = S, .thread = L, .place = bind_where(L, S)};
  lua_pushthread(L);
  lua_setiuservalue(L, -2, 3);
  lua_newtable(L);
  lua_setiuservalue(L, -2, 1);
  lua_newtable(L);
  if (!S->sandbox) make_weak(L); /* weak keys could keep the collector of a sandbox busy without end */
  lua_setiuservalue(L, -2, 2);
  return s;
}

static void stop (session *s) {
  if (s->state->profile == s->profile) s->state->profile = NULL;
  marea_profile_stop(s->profile);
}

/* Raises when a profile is running, unless the coroutine that was to end it is dead. */
static void end_abandoned (lua_State *L, bind_state *S) {
  if (!S->profile) return;
  session *s = bind_running_session(L);
  if (lua_status(s->thread) <= LUA_YIELD)
    bind_raise(L, S, "profile: one is running already, since %s:%d", S->source[s->place.source],
               s->place.line);
  stop(s);
  lua_pop(L, 1);
}

/* core.profile_start(events) -> session */
int bind_profile_start (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  int64_t events = bind_integer(L, S, 1, "profile", "events");
  if (events < 0) return bind_raise_argument(L, S, "profile", "events", "an integer of at least 0", 1);
  end_abandoned(L, S);
  session *s = session_new(L, S);
  lua_pushvalue(L, -1);
  bind_run_session(L, S);
  BIND_RETRY(L, S, 0, NULL, status, marea_profile_start(ctx, (size_t)events, &s->profile));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  S->profile = s->profile;
  return 1;
}

/* core.profile_stop() -> session */
int bind_profile_stop (lua_State *L) {
  bind_state *S = bind_self(L);
  if (!S->profile) return bind_raise(L, S, "profile.stop: no profile is running");
  stop(bind_running_session(L));
  lua_pushnil(L);
  bind_run_session(L, S);
  return 1;
}

/* __close: ends it if it is the one that runs. */
static int session_close (lua_State *L) {
  const session *s = bind_to(L, bind_self(L), 1, BIND_SESSION);
  if (s && s->profile && s->profile == s->state->profile) bind_profile_stop(L);
  return 0;
}

/* ---- what was measured ---- */

static session *to_session (lua_State *L) {
  session *s = bind_to(L, bind_self(L), 1, BIND_SESSION);
  if (!s || !s->profile)
    bind_raise_argument(L, bind_self(L), "profile", "session", "a session of profile_start", 1);
  return s;
}

static int session_gc (lua_State *L) {
  session *s = bind_to(L, bind_self(L), 1, BIND_SESSION);
  if (s && s->profile) stop(s), marea_profile_free(s->profile);
  if (s) s->profile = NULL;
  return 0;
}

static void set_seconds (lua_State *L, const char *key, int64_t ns) {
  lua_pushnumber(L, (lua_Number)ns * 1e-9);
  lua_setfield(L, -2, key);
}

static void set_number (lua_State *L, const char *key, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, key);
}

static void set_integer (lua_State *L, const char *key, uint64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, key);
}

static void set_work (lua_State *L, const marea_profile_work *w) {
  lua_pushstring(L, w->op ? w->op : "(others)");
  lua_setfield(L, -2, "op");
  set_integer(L, "layer", (uint64_t)w->layer);
  lua_pushstring(L, w->backward ? "backward" : "forward");
  lua_setfield(L, -2, "direction");
  if (w->algorithm[1]) lua_pushfstring(L, "%s + %s", w->algorithm[0], w->algorithm[1]);
  else lua_pushstring(L, w->algorithm[0]); /* NULL: nil */
  lua_setfield(L, -2, "algorithm");
  set_number(L, "flop", w->flop);
  set_number(L, "bytes", w->bytes);
}

/* session:rows() -> list */
static int session_rows (lua_State *L) {
  size_t n;
  const marea_profile_row *row = marea_profile_rows(to_session(L)->profile, &n);
  lua_newtable(L);
  for (size_t i = 0, k = 0; i < n; i++) {
    if (row[i].calls == 0) continue;
    lua_createtable(L, 0, 8);
    set_work(L, &row[i].work);
    set_integer(L, "calls", row[i].calls);
    set_seconds(L, "seconds", row[i].self_ns);
    set_seconds(L, "total_seconds", row[i].total_ns);
    lua_rawseti(L, -2, (lua_Integer)++k);
  }
  return 1;
}

/* session:event(i) -> table, nil after the last */
static int session_event (lua_State *L) {
  size_t n;
  const marea_profile_event *e = marea_profile_events(to_session(L)->profile, &n);
  int64_t i = bind_integer(L, bind_self(L), 2, "event", "i");
  if (i < 1 || (uint64_t)i > n) return 0;
  e += i - 1;
  lua_createtable(L, 0, 8);
  set_work(L, &e->work);
  set_integer(L, "depth", (uint64_t)e->depth);
  set_integer(L, "start", (uint64_t)e->start_ns);
  set_integer(L, "duration", (uint64_t)e->total_ns);
  return 1;
}

/* session:times() -> {wall =, overhead =, events =, dropped =} */
static int session_times (lua_State *L) {
  const marea_profile *p = to_session(L)->profile;
  marea_profile_info info = marea_profile_times(p);
  size_t n;
  marea_profile_events(p, &n);
  lua_createtable(L, 0, 4);
  set_seconds(L, "wall", info.wall_ns);
  set_seconds(L, "overhead", info.overhead_ns);
  set_integer(L, "events", n);
  set_integer(L, "dropped", info.dropped);
  return 1;
}

/* session:layers() -> layers, roots */
static int session_layers (lua_State *L) {
  to_session(L);
  lua_getiuservalue(L, 1, 1);
  lua_getiuservalue(L, 1, 2);
  return 2;
}

static const luaL_Reg methods[] = {{"rows", session_rows},
                                   {"event", session_event},
                                   {"times", session_times},
                                   {"layers", session_layers},
                                   {NULL, NULL}};

/* The state is on top of the stack, and stays there. */
void bind_profile_open (lua_State *L) {
  static const luaL_Reg metamethods[] = {{"__gc", session_gc}, {"__close", session_close}, {NULL, NULL}};
  bind_push_metatable(L, lua_touserdata(L, -1), BIND_SESSION, "marea.Profile");
  lua_pushvalue(L, -2);
  luaL_setfuncs(L, metamethods, 1);
  lua_newtable(L);
  lua_pushvalue(L, -3);
  luaL_setfuncs(L, methods, 1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
