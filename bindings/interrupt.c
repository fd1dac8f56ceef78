/* SPDX-License-Identifier: MIT
** interrupt.c: functions for scripts about Ctrl-C (signal.c). core.interruptible installs our handler, core.protected
** catches the error, and core.shield and closers run work that no interrupt may end.
**
** During such work our hook returns without raising (S->held). lua5.4's handler sets a hook of its own, so the work
** runs inside a hook: Lua calls no hook while it runs one. The hook that a signal sets meanwhile stays, and raises
** when the work is done.
*/
#include <pthread.h>
#include <signal.h>

#include "interrupt.h"

/* ---- work that runs while hooks are off ---- */

/* Sets the hook, unless lua5.4's handler has set its own. Signals are blocked meanwhile. */
static void replace_hook (lua_State *L, const bind_hook *h) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  if (!bind_lua_waits(L)) lua_sethook(L, h->f, h->mask, h->count);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* A hook at the call of do_nothing, whose arguments are a function and what the function is to be called with. */
static void run_asleep (lua_State *L, lua_Debug *ar) {
  (void)ar;
  bind_state *S = bind_find_state(L);
  replace_hook(L, &S->hook);
  S->held = true;
  lua_call(L, lua_gettop(L) - 1, 0);
}

static int do_nothing (lua_State *L) {
  (void)L;
  return 0;
}

/* Calls the function below its n arguments inside a hook. If lua5.4's handler has set its hook already, that one raises
   before the function begins. */
static void call_in_hook (lua_State *L, bind_state *S, int n) {
  const int work = lua_gettop(L) - n;
  S->hook = (bind_hook){lua_gethook(L), lua_gethookmask(L), lua_gethookcount(L)};
  lua_pushcfunction(L, do_nothing);
  for (int i = 0; i <= n; i++) lua_pushvalue(L, work + i);
  replace_hook(L, &(bind_hook){run_asleep, LUA_MASKCALL, 0});
  lua_call(L, n + 1, 0);
  if (S->held) {
    S->held = false;
    lua_settop(L, work - 1);
    return;
  }
  replace_hook(L,
               &S->hook); /* our hook was not called, so we are inside another one: hooks are off already */
  lua_call(L, n, 0);
}

void bind_call_held (lua_State *L, bind_state *S, int n) {
  lua_State *main = bind_main_thread(L);
  if (S->held || S->sandbox) { /* the limits of a sandbox are a hook */
    lua_call(L, n, 0);
  } else if (!bind_interrupt_is_ours(main)) {
    call_in_hook(L, S, n);
  } else {
    if (bind_interrupt_due(main)) bind_raise_interrupt(L, S);
    S->held = true; /* our hook looks at it */
    lua_call(L, n, 0);
    S->held = false;
  }
}

/* The work of a closer: a function and its arguments. */
static int run_closer (lua_State *L) {
  call_in_hook(L, bind_find_state(L), lua_gettop(L) - 1);
  return 0;
}

static int closer (lua_State *L) {
  bind_state *S = bind_self(L);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  if (S->held || S->sandbox || !S->ctx) {
    lua_call(L, lua_gettop(L) - 1, 0);
    return 0;
  }
  const bool shielded = marea_set_shielded(S->ctx, true);
  S->held = bind_interrupt_is_ours(bind_main_thread(L));
  if (!S->held) {
    lua_pushcfunction(L, run_closer);
    lua_insert(L, 1);
  }
  const int status = lua_pcall(L, lua_gettop(L) - 1, 0, 0);
  S->held = false;
  if (S->ctx) marea_set_shielded(S->ctx, shielded);
  return status == LUA_OK ? 0 : lua_error(L);
}

/* core.closer(f): a function for __close that calls f. No interrupt ends it. It returns nothing. */
int bind_closer (lua_State *L) {
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_pushcclosure(L, closer, 2);
  return 1;
}

/* ---- where an interrupt ends ---- */

int bind_interruptible (lua_State *L) {
  bind_state *S = bind_self(L);
  if (S) bind_sandbox_deny(L, S, "interruptible");
  if (lua_type(L, 1) != LUA_TFUNCTION)
    return bind_raise_argument(L, S, "interruptible", "f", "a function", 1);
  bind_watch(L);
  bind_interrupt_knows(BIND_PROTECTED, bind_catch);
  bind_push_catcher(L);
  lua_insert(L, 1);
  lua_toclose(L, 1);
  lua_call(L, lua_gettop(L) - 2,
           LUA_MULTRET); /* f cannot yield: the handler would stay for code outside of f */
  return lua_gettop(L) - 1;
}

/* Upvalue: a handler, which is the library's. */
static int handle (lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  const bind_hook taken = bind_hush(L);
  const int status = lua_pcall(L, 1, 1, 0);
  bind_unhush(L, &taken);
  return status == LUA_OK ? 1 : lua_error(L);
}

/* [1] the handler, below what the protected call has left */
static int finish_protected (lua_State *L, int status, lua_KContext unused) {
  (void)unused;
  const bool ok = status == LUA_OK || status == LUA_YIELD;
  const bool interrupted = bind_interrupt_raised(bind_main_thread(L));
  if (!ok) bind_interrupt_thrown(L);
  bind_end_interrupt(L);
  lua_pushboolean(L, ok);
  lua_replace(L, 1);
  if (ok) return lua_gettop(L);
  lua_pushboolean(L, interrupted);
  return 3;
}

/* core.protected(f, handler or nil, ...) -> true, results | false, problem, was it Ctrl-C? A request ends here, be it
   one that f has caught or one that came too late for it. */
int bind_catch (lua_State *L) {
  luaL_checkany(L, 1);
  const bool handler = !lua_isnoneornil(L, 2);
  if (handler) luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, lua_gettop(L) < 2 ? 2 : lua_gettop(L));
  lua_pushvalue(L, 2);
  lua_remove(L, 2);
  lua_pushcclosure(L, handle, 1);
  lua_insert(L, 1); /* handler, f, arguments */
  const int status = lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, handler ? 1 : 0, 0, finish_protected);
  return finish_protected(L, status, 0);
}
