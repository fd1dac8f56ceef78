/* SPDX-License-Identifier: MIT
** interrupt.c: Ctrl-C. A handler sets a hook that raises at Lua's next step; an operator that is running sees the
** hook, stops, and lets it raise. lua5.4 does the same on its own, so that its handler serves as well as ours.
**
** Work that must not be torn apart runs while hooks are asleep: Lua calls none while it runs one, so it runs inside a
** hook. What a signal sets meanwhile stays, and raises when the work is done.
**
** The module installs no handler unless a script asks for it: lua5.4's dies of the second signal that comes before it
** is back at its prompt.
*/
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "bind.h"

#define EVERYWHERE (LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT)

static const char message[] = "interrupted!"; /* as lua5.4 says it */

/* Nanoseconds after an error in which a signal counts as the one that caused it, so that what the error ends, as a pass
   over batches, can be put in order. */
#define SAME_PRESS 50000000
/* Of waiting, after which a further signal is answered with what helps. */
#define PATIENCE 1000000000

static _Atomic(int64_t) raised_at; /* when the last error was raised, ns */

static int64_t now_ns (void) {
  struct timespec t = {0};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void note_raised (void) { atomic_store(&raised_at, now_ns()); }

static lua_State *main_thread (lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  lua_State *main = lua_tothread(L, -1);
  lua_pop(L, 1);
  return main;
}

/* ---- seeing and raising ---- */

bool bind_interrupt_pending (lua_State *L) {
  const int all = LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT;
  return (lua_gethookmask(L) & all) == all && lua_gethookcount(L) == 1;
}

/* Leaves the error to the hook that caused the interrupt, if there is one: raising here too would make a
   second error, which no pcall of the script awaits. The hook is the main thread's; it is moved to the
   coroutine that was interrupted, so that it raises there. */
static bool hook_raises (lua_State *L) {
  lua_State *main = main_thread(L);
  lua_settop(L, 0);
  if (!bind_interrupt_pending(main)) return false;
  if (main == L) return true;
  lua_sethook(L, lua_gethook(main), lua_gethookmask(main), 1);
  lua_sethook(main, NULL, 0, 0);
  return true;
}

int bind_raise_interrupt (lua_State *L, bind_state *S) {
  lua_State *main = main_thread(L);
  if (bind_interrupt_pending(main)) lua_sethook(main, NULL, 0, 0);
  note_raised();
  return bind_raise(L, S, message);
}

int bind_leave_interrupted (lua_State *L, bind_state *S) {
  if (!S->held && hook_raises(L)) return 0;
  return bind_raise_interrupt(L, S);
}

void bind_poll (lua_State *L, bind_state *S) {
  marea_status status = S->ctx ? marea_poll(S->ctx) : MAREA_OK;
  if (status == MAREA_EINTR) bind_raise_interrupt(L, S);
  if (status != MAREA_OK) bind_raise_status(L, S, status);
}

/* ---- hooks asleep ---- */

/* Sets the hook, unless an interrupt has set its own and waits. No signal comes in between. */
static void replace_hook (lua_State *L, const bind_hook *h) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  if (!bind_interrupt_pending(L)) lua_sethook(L, h->f, h->mask, h->count);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* In the frame of do_nothing, whose arguments are the work and what it is called with. */
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

void bind_call_held (lua_State *L, bind_state *S, int n) {
  if (S->held || S->box) { /* the limits of a sandbox are a hook */
    lua_call(L, n, 0);
    return;
  }
  S->hook = (bind_hook){lua_gethook(L), lua_gethookmask(L), lua_gethookcount(L)};
  int work = lua_gettop(L) - n;
  lua_pushcfunction(L, do_nothing);
  for (int i = 0; i <= n; i++) lua_pushvalue(L, work + i);
  replace_hook(L, &(bind_hook){run_asleep, LUA_MASKCALL, 0});
  lua_call(L, n + 1, 0); /* a hook that waits raises here, before anything was done */
  if (S->held) {
    S->held = false;
    lua_settop(L, work - 1);
    return;
  }
  replace_hook(L, &S->hook); /* we are inside somebody's hook: all of them are asleep anyway */
  lua_call(L, n, 0);
}

/* ---- the handler ---- */

static _Atomic(lua_State *) target; /* whose hook the handler sets */
static _Atomic(int64_t) asked_at;   /* when the interrupt came that waits, ns */
static const char help[] = "\nmarea: still at work; Ctrl-\\ ends the program\n";

typedef struct catcher { /* what was before */
  bool open;
  struct sigaction before;
  lua_State *target;
} catcher;

static void stop (lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  note_raised();
  luaL_error(L, message);
}

/* The terminal has shown ^C: what is said about it stands on a line of its own. */
static void end_line (void) {
  const int fd = isatty(STDERR_FILENO) ? STDERR_FILENO : STDOUT_FILENO;
  if (isatty(fd)) (void)!write(fd, "\n", 1);
}

/* Calls only what a signal may. */
static void on_signal (int number) {
  const int error = errno;
  const int64_t now = now_ns();
  lua_State *L = atomic_load(&target);
  (void)number;
  if (lua_gethook(L) != stop) {
    if (now < atomic_load(&raised_at) + SAME_PRESS) return;
    atomic_store(&asked_at, now);
    end_line();
    lua_sethook(L, stop, EVERYWHERE, 1);
  } else if (now > atomic_load(&asked_at) + PATIENCE && isatty(STDERR_FILENO)) {
    (void)!write(STDERR_FILENO, help, sizeof help - 1);
  }
  errno = error;
}

/* Without SA_RESTART, so that waiting for input ends as well. Who was told to ignore the signal, as a program in the
   background is, goes on to do so. */
static void catch_signal (lua_State *L, catcher *c) {
  struct sigaction action = {.sa_handler = on_signal};
  sigemptyset(&action.sa_mask);
  c->open = true;
  c->target = atomic_exchange(&target, main_thread(L));
  sigaction(SIGINT, NULL, &c->before);
  if (c->before.sa_handler != SIG_IGN) sigaction(SIGINT, &action, NULL);
}

/* Upvalue 1 is the catcher, whatever it is called with. */
static int catcher_close (lua_State *L) {
  catcher *c = lua_touserdata(L, lua_upvalueindex(1));
  if (!c->open) return 0;
  c->open = false;
  sigaction(SIGINT, &c->before, NULL);
  atomic_store(&target, c->target);
  return 0;
}

void bind_forget_interrupt (lua_State *L) {
  if (lua_gethook(L) == stop) lua_sethook(L, NULL, 0, 0);
}

int bind_ends_line (lua_State *L) {
  struct sigaction now;
  lua_pushboolean(L, sigaction(SIGINT, NULL, &now) == 0 && now.sa_handler == on_signal);
  return 1;
}

static int finish (lua_State *L, int status, lua_KContext unused) {
  (void)status;
  (void)unused;
  return lua_gettop(L) - 1;
}

int bind_interruptible (lua_State *L) {
  bind_state *S = bind_self(L);
  if (S) bind_sandbox_deny(L, S, "interruptible");
  if (lua_type(L, 1) != LUA_TFUNCTION)
    return bind_raise_argument(L, S, "interruptible", "f", "a function", 1);
  catcher *c = lua_newuserdatauv(L, sizeof *c, 0);
  lua_createtable(L, 0, 1);
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, catcher_close, 1);
  lua_setfield(L, -2, "__close");
  catch_signal(L, c);
  lua_setmetatable(L, -2);
  lua_insert(L, 1);
  lua_toclose(L, 1);
  lua_callk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, finish);
  return finish(L, LUA_OK, 0);
}
