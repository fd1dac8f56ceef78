/* SPDX-License-Identifier: MIT
** interrupt.c: Ctrl-C. Our handler makes a request, which lasts until the error has reached whoever asked for it: the
** program's prompt, core.interruptible, core.protected. It sets a hook, which raises at Lua's next step; an operator that
** is running sees the request and stops. A script that catches the error has GRACE to clean up; then the hook raises at
** every further step, so that no pcall holds it.
**
** lua5.4's own handler sets a hook that raises once. Operators stop for it as well and leave the error to it.
**
** Work that must not be torn apart is held: our hook lets it pass. With lua5.4's handler it runs while hooks are asleep:
** Lua calls none while it runs one, so it runs inside a hook. What a signal sets meanwhile stays, and raises when the work
** is done.
**
** The module installs no handler unless a script asks for it: lua5.4's dies of the second signal that comes before it
** is back at its prompt.
*/
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "bind.h"

static const char message[] = "interrupted!"; /* as lua5.4 says it */

/* Nanoseconds after an error in which a signal counts as the one that caused it, so that what the error ends, as a pass
   over batches, can be put in order. */
#define SAME_PRESS 50000000
/* After the first error, for what a script does in __close and behind a pcall. A further press ends it. */
#define GRACE 80000000
/* Of waiting, after which a further signal is answered with what helps. */
#define PATIENCE 1000000000
/* Instructions between two looks at the clock during the grace. Few, since each may call a function in C that takes long. */
#define PERIOD 5
#define LEVELS 200 /* of the stack that are searched */

/* ---- the request ---- */

static _Atomic(lua_State *)
    target; /* the main thread of the state that the handler is for; NULL: no handler */
static _Atomic(lua_State *) running;   /* the coroutine at work in it */
static atomic_bool requested, hurried; /* hurried: without grace */
static _Atomic(int64_t) asked_at;      /* when the request came, ns */
static _Atomic(int64_t) raised_at;     /* when the last error was raised */
static _Atomic(int64_t) first_at;      /* when the first error of this request was; 0: none was yet */
static char thrown[LUA_IDSIZE + 64];   /* the message of an error that was raised without one; "": none */

static void note_raised (void) {
  const int64_t now = bind_clock_ns();
  if (atomic_load(&first_at) == 0) atomic_store(&first_at, now);
  atomic_store(&raised_at, now);
}

static bool in_grace (void) {
  const int64_t first = atomic_load(&first_at);
  return first != 0 && !atomic_load(&hurried) && bind_clock_ns() < first + GRACE;
}

static lua_State *main_thread (lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  lua_State *main = lua_tothread(L, -1);
  lua_pop(L, 1);
  return main;
}

/* Has a hook like that of lua5.4 on Ctrl-C been set, which raises as soon as we return? Debuggers' differ. */
static bool lua_waits (lua_State *L) {
  const int all = LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT;
  return (lua_gethookmask(L) & all) == all && lua_gethookcount(L) == 1;
}

static bool is_requested (const lua_State *main) {
  return atomic_load(&requested) && atomic_load(&target) == main;
}

bool bind_interrupt_pending (lua_State *main) {
  return lua_waits(main) || (is_requested(main) && !in_grace());
}

/* ---- the hook ---- */

static void stop (lua_State *L, lua_Debug *ar);

/* Counts only, after the first error: a hook that is called with functions would raise in the way of closers that are
   written in C. */
static void arm (lua_State *L, int count) { lua_sethook(L, stop, LUA_MASKCOUNT, count); }

static void disarm (lua_State *L) {
  if (lua_gethook(L) == stop) lua_sethook(L, NULL, 0, 0);
}

bind_hook bind_hush (lua_State *L) {
  if (!lua_waits(L) && lua_gethook(L) != stop) return (bind_hook){0};
  bind_hook taken = {lua_gethook(L), lua_gethookmask(L), lua_gethookcount(L)};
  lua_sethook(L, NULL, 0, 0);
  return taken;
}

void bind_unhush (lua_State *L, const bind_hook *taken) {
  if (taken->f) lua_sethook(L, taken->f, taken->mask, taken->count);
}

/* Is the innermost protected call on the stack an xpcall with a function of the script's as its handler? That would run
   inside the hook, where no other one can stop it. */
static bool meets_handler (lua_State *L, bind_state *S) {
  lua_Debug ar = {0};
  int level = 0;
  for (; level < LEVELS && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "f", &ar);
    const int catches = bind_catches(lua_tocfunction(L, -1));
    lua_pop(L, 1);
    if (catches == BIND_CATCHES) return false;
    if (catches != BIND_CATCHES_BY_HANDLER) continue;
    if (!lua_getlocal(L, &ar, 2)) return false;
    const bool by_script = lua_isfunction(L, -1) && !lua_iscfunction(L, -1);
    if (!by_script) lua_pop(L, 1);
    else lua_getinfo(L, ">S", &ar);
    return by_script && !(S && bind_file_of(S, ar.source));
  }
  return level == LEVELS;
}

/* Pushes the message, with the innermost line of the script; in a hook level 0 is the function at work. */
static void push_message (lua_State *L, bind_state *S) {
  lua_Debug ar;
  for (int level = 0; level < LEVELS && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0 || (S && bind_file_of(S, ar.source))) continue;
    lua_pushfstring(L, "%s:%d: %s", ar.short_src, ar.currentline, message);
    return;
  }
  lua_pushstring(L, message);
}

static void stop (lua_State *L, lua_Debug *ar) {
  bind_state *S = bind_find_state(L);
  (void)ar;
  if (S && S->held) return;
  if (!is_requested(main_thread(L))) { /* a coroutine that slept while the request ended */
    disarm(L);
    return;
  }
  if (in_grace()) {
    arm(L, PERIOD);
    return;
  }
  note_raised();
  arm(L, in_grace() ? PERIOD : 1);
  push_message(L, S);
  if (meets_handler(L, S)) { /* raised as Lua does when memory is out: no handler is called */
    snprintf(thrown, sizeof thrown, "%s", lua_tostring(L, -1));
    lua_pushliteral(L, "not enough memory");
  }
  lua_error(L);
}

bool bind_interrupt_thrown (lua_State *L) {
  if (!*thrown) return false;
  lua_pop(L, 1);
  lua_pushstring(L, thrown);
  *thrown = '\0';
  return true;
}

void bind_end_interrupt (lua_State *L) {
  lua_State *main = main_thread(L);
  if (atomic_load(&target) != main) return;
  atomic_store(&requested, false);
  atomic_store(&hurried, false);
  atomic_store(&first_at, 0);
  *thrown = '\0';
  disarm(main);
  disarm(L);
}

/* ---- raising ---- */

/* Leaves the error to the hook of lua5.4 that caused the interrupt, if there is one: raising here too would make a
   second error, which no pcall of the script awaits. The hook is the main thread's; it is moved to the
   coroutine that was interrupted, so that it raises there. */
static bool hook_raises (lua_State *L) {
  lua_State *main = main_thread(L);
  lua_settop(L, 0);
  if (!lua_waits(main)) return false;
  if (main == L) return true;
  lua_sethook(L, lua_gethook(main), lua_gethookmask(main), 1);
  lua_sethook(main, NULL, 0, 0);
  return true;
}

int bind_raise_interrupt (lua_State *L, bind_state *S) {
  lua_State *main = main_thread(L);
  if (lua_waits(main)) lua_sethook(main, NULL, 0, 0);
  note_raised();
  if (is_requested(main)) arm(L, in_grace() ? PERIOD : 1);
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

/* core.interrupt(problem): raises it as Ctrl-C does, so that no pcall holds it */
int bind_interrupt (lua_State *L) {
  lua_State *main = main_thread(L);
  lua_settop(L, 1);
  if (atomic_load(&target) == main) {
    note_raised();
    atomic_store(&asked_at, bind_clock_ns());
    atomic_store(&requested, true);
    arm(L, PERIOD);
    if (main != L) arm(main, PERIOD);
  }
  return lua_error(L);
}

/* ---- hooks asleep ---- */

/* Sets the hook, unless that of lua5.4 waits. No signal comes in between. */
static void replace_hook (lua_State *L, const bind_hook *h) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  if (!lua_waits(L)) lua_sethook(L, h->f, h->mask, h->count);
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

/* Calls the function below its n arguments inside a hook; where lua5.4's waits, that raises before anything was done. */
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
  replace_hook(L, &S->hook); /* we are inside somebody's hook: all of them are asleep anyway */
  lua_call(L, n, 0);
}

void bind_call_held (lua_State *L, bind_state *S, int n) {
  lua_State *main = main_thread(L);
  if (S->held || S->box) { /* the limits of a sandbox are a hook */
    lua_call(L, n, 0);
  } else if (atomic_load(&target) != main) {
    call_in_hook(L, S, n);
  } else {
    if (is_requested(main) && !in_grace()) bind_raise_interrupt(L, S);
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
  if (S->held || S->box || !S->ctx) {
    lua_call(L, lua_gettop(L) - 1, 0);
    return 0;
  }
  const bool shielded = marea_set_shielded(S->ctx, true);
  S->held = atomic_load(&target) == main_thread(L);
  if (!S->held) {
    lua_pushcfunction(L, run_closer);
    lua_insert(L, 1);
  }
  const int status = lua_pcall(L, lua_gettop(L) - 1, 0, 0);
  S->held = false;
  if (S->ctx) marea_set_shielded(S->ctx, shielded);
  return status == LUA_OK ? 0 : lua_error(L);
}

/* core.closer(f): f for __close. It runs to its end, whatever waits, and gives no results. */
int bind_closer (lua_State *L) {
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_pushcclosure(L, closer, 2);
  return 1;
}

/* ---- the handler ---- */

static const char help[] = "\nmarea: still at work; Ctrl-\\ ends the program\n";

typedef struct catcher { /* what was before */
  bool open;
  struct sigaction before;
  lua_State *target, *running;
} catcher;

static const char
    running_key; /* its address is the key in the registry of the coroutine that called interruptible */

lua_State *bind_interrupt_switch (lua_State *to) {
  if (!atomic_load(&target)) return NULL;
  if (atomic_load(&requested)) arm(to, 1);
  return atomic_exchange(&running, to);
}

/* The terminal has shown ^C: what is said about it stands on a line of its own. */
static void end_line (void) {
  const int fd = isatty(STDERR_FILENO) ? STDERR_FILENO : STDOUT_FILENO;
  if (isatty(fd)) (void)!write(fd, "\n", 1);
}

static void request (int64_t now) {
  atomic_store(&asked_at, now);
  atomic_store(&first_at, 0);
  atomic_store(&requested, true);
  end_line();
}

/* A further press. */
static void hurry (int64_t now) {
  atomic_store(&hurried, true);
  if (now > atomic_load(&asked_at) + PATIENCE && isatty(STDERR_FILENO))
    (void)!write(STDERR_FILENO, help, sizeof help - 1);
}

/* Calls only what a signal may. */
static void on_signal (int number) {
  const int error = errno;
  const int64_t now = bind_clock_ns(), since = atomic_load(&requested) ? atomic_load(&asked_at) : 0;
  (void)number;
  if (now >= atomic_load(&raised_at) + SAME_PRESS && now >= since + SAME_PRESS) {
    if (since) hurry(now);
    else request(now);
    /* with the return of functions, so that what one is called in is there to see */
    lua_sethook(atomic_load(&target), stop, LUA_MASKRET | LUA_MASKCOUNT, 1);
    lua_sethook(atomic_load(&running), stop, LUA_MASKRET | LUA_MASKCOUNT, 1);
  }
  errno = error;
}

/* Upvalue 1 is the catcher, whatever it is called with. */
static int catcher_close (lua_State *L) {
  catcher *c = lua_touserdata(L, lua_upvalueindex(1));
  if (!c->open) return 0;
  c->open = false;
  if (!c->target) bind_end_interrupt(L);
  sigaction(SIGINT, &c->before, NULL);
  atomic_store(&running, c->running);
  atomic_store(&target, c->target);
  return 0;
}

/* Without SA_RESTART, so that waiting for input ends as well. Who was told to ignore the signal, as a program in the
   background is, goes on to do so. */
static void catch_signal (lua_State *L, catcher *c) {
  struct sigaction action = {.sa_handler = on_signal};
  sigemptyset(&action.sa_mask);
  lua_pushthread(L); /* it stays alive while the handler knows it */
  lua_rawsetp(L, LUA_REGISTRYINDEX, &running_key);
  c->running = atomic_exchange(&running, L);
  c->open = true;
  c->target = atomic_exchange(&target, main_thread(L));
  sigaction(SIGINT, NULL, &c->before);
  if (c->before.sa_handler != SIG_IGN) sigaction(SIGINT, &action, NULL);
}

int bind_ends_line (lua_State *L) {
  struct sigaction now;
  lua_pushboolean(L, sigaction(SIGINT, NULL, &now) == 0 && now.sa_handler == on_signal);
  return 1;
}

/* ---- who asks for it ---- */

int bind_interruptible (lua_State *L) {
  bind_state *S = bind_self(L);
  if (S) bind_sandbox_deny(L, S, "interruptible");
  if (lua_type(L, 1) != LUA_TFUNCTION)
    return bind_raise_argument(L, S, "interruptible", "f", "a function", 1);
  bind_watch(L);
  catcher *c = lua_newuserdatauv(L, sizeof *c, 0);
  lua_createtable(L, 0, 2);
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, catcher_close, 1);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "__close");
  lua_setfield(L, -2, "__gc"); /* of a coroutine that died of an error, and whose variables nobody closed */
  catch_signal(L, c);
  lua_setmetatable(L, -2);
  lua_insert(L, 1);
  lua_toclose(L, 1);
  lua_call(L, lua_gettop(L) - 2, LUA_MULTRET); /* f cannot yield: what goes on outside is not to be caught */
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
  const bool interrupted = is_requested(main_thread(L)) && atomic_load(&first_at) != 0;
  if (!ok) bind_interrupt_thrown(L);
  bind_end_interrupt(L);
  lua_pushboolean(L, ok);
  lua_replace(L, 1);
  if (ok) return lua_gettop(L);
  lua_pushboolean(L, interrupted);
  return 3;
}

/* core.protected(f, handler or nil, ...) -> true, results | false, problem, was it Ctrl-C? A request ends here, be it one
   that f has caught or one that came too late for it. */
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
