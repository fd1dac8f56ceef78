/* SPDX-License-Identifier: MIT
** signal.c: Ctrl-C, from the signal to the error. Our handler makes a request, which lasts until its error has
** reached code that wants it: the program's prompt, core.interruptible, core.protected. It sets a hook, which
** raises at Lua's next instruction; an operator that is running sees the request and stops. A script that catches the
** error has GRACE to clean up; then the hook raises at every further instruction, so that no pcall holds it.
**
** lua5.4's own handler sets a hook that raises once. Operators stop for it as well and leave the error to it.
**
** The module installs no handler unless a script asks for it: lua5.4's ends the program at the second signal that comes
** before the program is back at its prompt.
*/
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "interrupt.h"

/* Times are nanoseconds. A signal so soon after the request or after an error counts as the same press of the key,
   which repeats every 30 to 40 ms while it is held down. So the cleanup that the error causes is not interrupted as
   well. */
#define SAME_PRESS 50000000
/* After the first error a script may clean up for so long, in __close and behind a pcall. A further press ends the
   grace. With the time to reach the next instruction it stays below 100 ms, which feels immediate; `make interrupts`
   measures it. */
#define GRACE 80000000
/* When the request has waited for so long, a further press is answered by a line that says how to end the program. */
#define PATIENCE 1000000000
/* Instructions between two looks at the clock during the grace: few, for each may call a function in C that takes
   long. */
#define PERIOD 5
#define LEVELS 200 /* of the stack that are searched; a search takes some 20 us then */

/* ---- the request ---- */

static _Atomic(lua_State *)
    target; /* the main thread of the state that the handler is for; NULL: no handler */
static _Atomic(lua_State *) running;   /* the coroutine at work in it */
static atomic_bool requested, hurried; /* hurried: a further press has ended the grace */
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

lua_State *bind_main_thread (lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  lua_State *main = lua_tothread(L, -1);
  lua_pop(L, 1);
  return main;
}

/* Has a hook like that of lua5.4 on Ctrl-C been set, which raises as soon as we return? Debuggers' differ. */
bool bind_lua_waits (lua_State *L) {
  const int all = LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT;
  return (lua_gethookmask(L) & all) == all && lua_gethookcount(L) == 1;
}

static bool is_requested (const lua_State *main) {
  return atomic_load(&requested) && atomic_load(&target) == main;
}

bool bind_interrupt_is_ours (const lua_State *main) { return atomic_load(&target) == main; }

bool bind_interrupt_due (const lua_State *main) { return is_requested(main) && !in_grace(); }

bool bind_interrupt_pending (lua_State *main) { return bind_lua_waits(main) || bind_interrupt_due(main); }

bool bind_interrupt_raised (const lua_State *main) {
  return is_requested(main) && atomic_load(&first_at) != 0;
}

/* ---- the hook ---- */

static void stop (lua_State *L, lua_Debug *ar);

/* The hook counts instructions and is not called at calls and returns: there it would raise inside closers that are
   written in C, before these have done their work. */
static void arm (lua_State *L, int count) { lua_sethook(L, stop, LUA_MASKCOUNT, count); }

static void disarm (lua_State *L) {
  if (lua_gethook(L) == stop) lua_sethook(L, NULL, 0, 0);
}

bind_hook bind_hush (lua_State *L) {
  if (!bind_lua_waits(L) && lua_gethook(L) != stop) return (bind_hook){0};
  bind_hook taken = {lua_gethook(L), lua_gethookmask(L), lua_gethookcount(L)};
  lua_sethook(L, NULL, 0, 0);
  return taken;
}

void bind_unhush (lua_State *L, const bind_hook *taken) {
  if (taken->f) lua_sethook(L, taken->f, taken->mask, taken->count);
}

static lua_CFunction catching[BIND_CATCHES]; /* the functions that catch errors; NULL: not known yet */

void bind_interrupt_knows (bind_catching which, lua_CFunction f) { catching[which] = f; }

/* Is the innermost protected call on the stack an xpcall with a handler that the script has written? That handler
   would run inside the hook, where no other hook can stop it. */
static bool meets_handler (lua_State *L, bind_state *S) {
  lua_Debug ar = {0};
  int level = 0;
  for (; level < LEVELS && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "f", &ar);
    const lua_CFunction f = lua_tocfunction(L, -1);
    lua_pop(L, 1);
    if (!f) continue;
    if (f == catching[BIND_PCALL] || f == catching[BIND_PROTECTED]) return false;
    if (f != catching[BIND_XPCALL]) continue;
    if (!lua_getlocal(L, &ar, 2)) return false;
    const bool by_script = lua_isfunction(L, -1) && !lua_iscfunction(L, -1);
    if (!by_script) lua_pop(L, 1);
    else lua_getinfo(L, ">S", &ar);
    return by_script && !(S && bind_file_of(S, ar.source, ar.srclen));
  }
  return level == LEVELS;
}

/* Pushes the message, with the innermost line of the script; in a hook level 0 is the function at work. */
static void push_message (lua_State *L, bind_state *S) {
  lua_Debug ar;
  for (int level = 0; level < LEVELS && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0 || (S && bind_file_of(S, ar.source, ar.srclen))) continue;
    lua_pushfstring(L, "%s:%d: " BIND_INTERRUPTED, ar.short_src, ar.currentline);
    return;
  }
  lua_pushliteral(L, BIND_INTERRUPTED);
}

static void stop (lua_State *L, lua_Debug *ar) {
  bind_state *S = bind_find_state(L);
  (void)ar;
  if (S && S->held) return;
  if (!is_requested(bind_main_thread(L))) { /* a coroutine that slept while the request ended */
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
  if (meets_handler(
          L,
          S)) { /* Lua calls no handler for lack of memory, so we raise that; xpcall restores the message */
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
  lua_State *main = bind_main_thread(L);
  if (atomic_load(&target) != main) return;
  atomic_store(&requested, false);
  atomic_store(&hurried, false);
  atomic_store(&first_at, 0);
  *thrown = '\0';
  disarm(main);
  disarm(L);
}

/* ---- before an error is raised elsewhere ---- */

/* The hook of lua5.4 raises as soon as we return. Raising here too would make a second error, which no pcall of the
   script awaits. The hook is the main thread's; it is moved to the coroutine that was interrupted, so that it raises
   there. */
bool bind_leave_to_hook (lua_State *L) {
  lua_State *main = bind_main_thread(L);
  lua_settop(L, 0);
  if (!bind_lua_waits(main)) return false;
  if (main == L) return true;
  lua_sethook(L, lua_gethook(main), lua_gethookmask(main), 1);
  lua_sethook(main, NULL, 0, 0);
  return true;
}

void bind_interrupt_raising (lua_State *L) {
  lua_State *main = bind_main_thread(L);
  if (bind_lua_waits(main)) lua_sethook(main, NULL, 0, 0);
  note_raised();
  if (is_requested(main)) arm(L, in_grace() ? PERIOD : 1);
}

/* core.interrupt(problem): raises it as Ctrl-C does, so that no pcall holds it */
int bind_interrupt (lua_State *L) {
  lua_State *main = bind_main_thread(L);
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

/* ---- the handler ---- */

static const char help[] = "\nmarea: still at work; Ctrl-\\ ends the program\n";

typedef struct catcher { /* the handler and the states from before, which come back when it is closed */
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

/* The signal handler. Calls only functions that are safe in one; lua_sethook is. */
static void on_signal (int number) {
  const int error = errno;
  const int64_t now = bind_clock_ns(), since = atomic_load(&requested) ? atomic_load(&asked_at) : 0;
  (void)number;
  if (now >= atomic_load(&raised_at) + SAME_PRESS && now >= since + SAME_PRESS) {
    if (since) hurry(now);
    else request(now);
    /* Returns of functions count, so that the hook also runs as a C function returns and sees its caller. */
    lua_sethook(atomic_load(&target), stop, LUA_MASKRET | LUA_MASKCOUNT, 1);
    lua_sethook(atomic_load(&running), stop, LUA_MASKRET | LUA_MASKCOUNT, 1);
  }
  errno = error;
}

/* Reads the catcher from upvalue 1: scripts may call this function with arguments of their own. */
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

/* Installs the handler, without SA_RESTART, so that waiting for input ends as well. A program that was started with the
   signal ignored, as one in the background is, goes on to ignore it. */
static void catch_signal (lua_State *L, catcher *c) {
  struct sigaction action = {.sa_handler = on_signal};
  sigemptyset(&action.sa_mask);
  lua_pushthread(L); /* it stays alive while the handler knows it */
  lua_rawsetp(L, LUA_REGISTRYINDEX, &running_key);
  c->running = atomic_exchange(&running, L);
  c->open = true;
  c->target = atomic_exchange(&target, bind_main_thread(L));
  sigaction(SIGINT, NULL, &c->before);
  if (c->before.sa_handler != SIG_IGN) sigaction(SIGINT, &action, NULL);
}

/* Pushes a value that is to be closed. Until then the handler is ours. */
void bind_push_catcher (lua_State *L) {
  catcher *c = lua_newuserdatauv(L, sizeof *c, 0);
  lua_createtable(L, 0, 2);
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, catcher_close, 1);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "__close");
  lua_setfield(L, -2, "__gc"); /* of a coroutine that died of an error, and whose variables nobody closed */
  catch_signal(L, c);
  lua_setmetatable(L, -2);
}

int bind_ends_line (lua_State *L) {
  struct sigaction now;
  lua_pushboolean(L, sigaction(SIGINT, NULL, &now) == 0 && now.sa_handler == on_signal);
  return 1;
}
