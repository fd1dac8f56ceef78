/* SPDX-License-Identifier: MIT
** log_test.c: what a host's log is told, each line by a real cause, once, on the caller's thread; and that nothing is said
** in a steady training step, after closing, and where there is no log. In Lua warnings are Lua's.
*/
#define _GNU_SOURCE
#include <lauxlib.h>
#include <lualib.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "marea_lua.h"
#include "report.h"

/* ---- a host with a log ---- */

typedef struct diary {
  int lines;
  marea_log_level level; /* of the last line */
  char last[1000], previous[1000];
  pthread_t caller;
  bool wrong; /* a line came on another thread, or with a newline */
} diary;

static void note (void *ud, marea_log_level level, const char *text) {
  diary *d = ud;
  d->lines++;
  d->level = level;
  d->wrong |= !pthread_equal(pthread_self(), d->caller) || strchr(text, '\n') ||
              strlen(text) >= sizeof d->last;
  memcpy(d->previous, d->last, sizeof d->last);
  snprintf(d->last, sizeof d->last, "%s", text);
}

static marea_status try_open (diary *d, marea_config config, marea_context **ctx) {
  *d = (diary){.caller = pthread_self()};
  config.size = sizeof config;
  config.log = note;
  config.log_ud = d;
  return marea_open(&config, ctx);
}

/* A context whose first line is behind it. */
static marea_context *open_with (diary *d, marea_config config) {
  marea_context *ctx = NULL;
  if (try_open(d, config, &ctx) != MAREA_OK) exit(2);
  d->lines = 0;
  return ctx;
}

/* Has exactly one line come since this was last asked, of this level, with this in it? */
static bool said (diary *d, marea_log_level level, const char *part) {
  bool ok = d->lines == 1 && d->level == level && strstr(d->last, part) && !d->wrong;
  if (!ok) printf("  not '%s': %d lines, the last of level %d: %s\n", part, d->lines, d->level, d->last);
  d->lines = 0;
  return ok;
}

static marea_tensor *zeros (marea_context *ctx, int64_t bytes) {
  marea_tensor *t = NULL;
  if (marea_zeros(ctx, MAREA_U8, 1, &bytes, &t) != MAREA_OK) return NULL;
  return t;
}

/* Work for all threads. */
static marea_status compute (marea_context *ctx) {
  marea_tensor *x = NULL, *y = NULL;
  marea_status status = marea_zeros(ctx, MAREA_F32, 1, (int64_t[]){1 << 20}, &x);
  if (status == MAREA_OK) status = marea_call_op(ctx, "exp", MAREA_TENSORS(x), MAREA_NO_NAMES, 1, &y);
  marea_release(x);
  marea_release(y);
  return status;
}

/* ---- opening ---- */

static void lend (void *ud, int n, void (*body)(void *arg, int i), void *arg) {
  (void)ud;
  for (int i = 0; i < n; i++) body(arg, i);
}

static bool opening (void) {
  diary d;
  marea_context *ctx;
  NEED(try_open(&d, (marea_config){.threads = 2, .isa = "generic"}, &ctx) == MAREA_OK);
  NEED(strstr(d.last, marea_blas()));
  NEED(said(&d, MAREA_LOG_INFO, "opened: Marea " MAREA_VERSION ", isa generic, threads 2, "));
  marea_close(ctx);
  NEED(d.lines == 0);
  NEED(try_open(&d, (marea_config){.threads = 3, .parallel_for = lend}, &ctx) == MAREA_OK);
  NEED(said(&d, MAREA_LOG_INFO, "threads 3 of the host, "));
  marea_close(ctx);
  return true;
}

static bool not_opening (void) {
  diary d;
  marea_context *ctx;
  NEED(try_open(&d, (marea_config){.threads = 65}, &ctx) == MAREA_EARG);
  NEED(said(&d, MAREA_LOG_WARNING, "open: threads: expected 0..64, got 65"));
  NEED(try_open(&d, (marea_config){.index_base = 2}, &ctx) == MAREA_EARG);
  NEED(said(&d, MAREA_LOG_WARNING, "open: index_base: expected 0 or 1, got 2"));
  NEED(try_open(&d, (marea_config){.isa = "sparc"}, &ctx) == MAREA_EARG);
  NEED(said(&d, MAREA_LOG_WARNING, "open: isa: this machine has no 'sparc'"));
  return true;
}

static bool variables (void) {
  diary d;
  marea_context *ctx;
  const char *variable = getenv("MAREA_ISA");
  char *before = variable ? strdup(variable) : NULL;
  setenv("MAREA_ISA", "sparc", 1);
  NEED(try_open(&d, (marea_config){0}, &ctx) == MAREA_EARG);
  NEED(said(&d, MAREA_LOG_WARNING, "open: MAREA_ISA: this machine has no 'sparc'"));
  NEED(try_open(&d, (marea_config){.isa = "generic"}, &ctx) == MAREA_OK && d.lines == 2);
  NEED(!strcmp(d.previous, "open: MAREA_ISA asks for 'sparc', the config for 'generic', which counts"));
  marea_close(ctx);
  setenv("MAREA_ISA", "generic", 1);
  NEED(try_open(&d, (marea_config){.isa = "generic"}, &ctx) == MAREA_OK);
  NEED(said(&d, MAREA_LOG_INFO, "opened: "));
  marea_close(ctx);
  if (before) setenv("MAREA_ISA", before, 1);
  else unsetenv("MAREA_ISA");
  free(before);
  return true;
}

/* ---- memory ---- */

typedef struct purse {
  size_t bytes, most;
} purse;

static void *pay (void *ud, void *p, size_t old, size_t size) {
  purse *all = ud;
  if (size == 0) {
    all->bytes -= old;
    free(p);
    return NULL;
  }
  if (all->bytes + size > all->most) return NULL;
  all->bytes += size;
  return malloc(size);
}

/* Of 10 MB there is room for a tensor of 8 MB only when what one of 6 MB has left is given back. */
static bool finds_room (marea_context *ctx) {
  marea_release(zeros(ctx, 6000000));
  marea_tensor *t = zeros(ctx, 8000000);
  marea_release(t);
  marea_memory_trim(ctx);
  return t;
}

static bool memory_limit (void) {
  diary d;
  marea_context *ctx = open_with(&d, (marea_config){.max_bytes = 10000000});
  NEED(finds_room(ctx));
  NEED(said(
      &d, MAREA_LOG_WARNING,
      "memory: the limit is reached: 8.0 MB wanted, 0 bytes in use; 6.0 MB kept for reuse were given back"));
  NEED(finds_room(ctx) && d.lines == 0);
  marea_memory_limit(ctx, 9000000);
  NEED(finds_room(ctx));
  NEED(said(&d, MAREA_LOG_WARNING, "memory: the limit is reached"));
  marea_memory_limit(ctx, 0);
  NEED(finds_room(ctx) && d.lines == 0);
  marea_memory_limit(ctx, 7000000);
  NEED(!zeros(ctx, 8000000) && d.lines == 0); /* nothing was kept: only the status tells */
  marea_close(ctx);
  return true;
}

static bool allocator (void) {
  diary d;
  purse all = {.most = 10000000};
  marea_context *ctx = open_with(&d, (marea_config){.alloc = pay, .alloc_ud = &all});
  NEED(finds_room(ctx));
  NEED(said(&d, MAREA_LOG_WARNING, "memory: the allocator refused: 8.0 MB wanted"));
  NEED(finds_room(ctx) && d.lines == 0);
  marea_close(ctx);
  NEED(all.bytes == 0);
  return true;
}

static bool leaks (void) {
  diary d;
  purse all = {.most = 10000000};
  marea_context *ctx = open_with(&d, (marea_config){.alloc = pay, .alloc_ud = &all});
  marea_tensor *a = zeros(ctx, 1000000), *b = zeros(ctx, 10), *view;
  marea_file *file;
  NEED(marea_detach(a, &view) == MAREA_OK && marea_file_new(ctx, &file) == MAREA_OK);
  marea_close(ctx);
  NEED(said(&d, MAREA_LOG_WARNING, "closed with 1.0 MB still in use: tensors 2, other blocks 2"));
  marea_file_free(file);
  marea_release(a), marea_release(view), marea_release(b);
  NEED(d.lines == 0 && all.bytes == 0);
  return true;
}

/* Operators of a closed context work still, and say nothing. */
static bool after_closing (void) {
  diary d;
  marea_context *ctx = open_with(&d, (marea_config){.threads = 2});
  marea_tensor *t = zeros(ctx, 10);
  marea_close(ctx);
  d.lines = 0;
  marea_interrupt(ctx);
  NEED(compute(ctx) == MAREA_EINTR && compute(ctx) == MAREA_OK);
  marea_release(t);
  NEED(d.lines == 0);
  return true;
}

/* ---- threads ---- */

static bool few_threads (void) {
  diary d;
  pthread_attr_t before, endless;
  marea_context *ctx = open_with(&d, (marea_config){.threads = 3});
  NEED(pthread_getattr_default_np(&before) == 0 && pthread_attr_init(&endless) == 0);
  NEED(pthread_attr_setstacksize(&endless, (size_t)1 << 60) == 0); /* no system has room for such a stack */
  NEED(pthread_setattr_default_np(&endless) == 0);
  marea_status status = compute(ctx);
  NEED(pthread_setattr_default_np(&before) == 0);
  NEED(status == MAREA_OK);
  NEED(said(&d, MAREA_LOG_WARNING, "threads: the system gave 1 of the 3 asked for"));
  NEED(compute(ctx) == MAREA_OK && d.lines == 0);
  marea_close(ctx);
  return true;
}

static bool fork_is_told (diary *d, marea_context *ctx) {
  NEED(compute(ctx) == MAREA_OK);
  NEED(said(d, MAREA_LOG_INFO, "threads: lost by a fork, started anew"));
  NEED(compute(ctx) == MAREA_OK && d->lines == 0);
  return true;
}

static bool forks (void) {
  diary d;
  marea_context *ctx = open_with(&d, (marea_config){.threads = 3});
  for (int computed = 0; computed < 2; computed++) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
      bool ok = computed ? fork_is_told(&d, ctx) : compute(ctx) == MAREA_OK && d.lines == 0;
      marea_close(ctx);
      fflush(stdout);
      _exit(!ok);
    }
    int status = 1;
    NEED(waitpid(child, &status, 0) == child && status == 0);
    NEED(compute(ctx) == MAREA_OK && d.lines == 0);
  }
  marea_close(ctx);
  return true;
}

/* ---- what stops operators ---- */

static void *interrupt_soon (void *ctx) {
  usleep(20000);
  marea_interrupt(ctx);
  return NULL;
}

static bool yes (void *ud) { return *(bool *)ud; }

static bool interrupts (void) {
  diary d;
  bool asked = false;
  marea_context *ctx = open_with(&d,
                                 (marea_config){.threads = 2, .interrupted = yes, .interrupted_ud = &asked});
  marea_status status = MAREA_OK;
  pthread_t thread;
  NEED(pthread_create(&thread, NULL, interrupt_soon, ctx) == 0);
  while (status == MAREA_OK) status = compute(ctx);
  pthread_join(thread, NULL);
  NEED(status == MAREA_EINTR);
  NEED(said(&d, MAREA_LOG_INFO, "stopped: ") && strstr(d.last, "interrupted"));
  marea_interrupt(ctx);
  NEED(marea_poll(ctx) == MAREA_EINTR);
  NEED(said(&d, MAREA_LOG_INFO, "stopped: interrupted!"));
  marea_tensor *x = zeros(ctx, 10), *y;
  asked = true;
  NEED(marea_call_op(ctx, "cast", MAREA_TENSORS(x), MAREA_NAMED(marea_word("dtype", "f32")), 1, &y) ==
       MAREA_EINTR);
  NEED(said(&d, MAREA_LOG_INFO, "stopped: cast: interrupted"));
  marea_release(x);
  marea_close(ctx);
  NEED(d.lines == 0);
  return true;
}

static bool budgets (void) {
  diary d;
  marea_context *ctx = open_with(&d, (marea_config){.threads = 2});
  for (int round = 0; round < 2; round++) {
    marea_limit_flop(ctx, 1000);
    NEED(compute(ctx) == MAREA_EBUDGET);
    NEED(said(&d, MAREA_LOG_INFO, "stopped: exp: the limit of 1000 floating-point operations is reached"));
    NEED(compute(ctx) == MAREA_EBUDGET && d.lines == 0);
  }
  marea_limit_flop(ctx, 0);
  marea_limit_time(ctx, 0.02);
  marea_status status = MAREA_OK;
  while (status == MAREA_OK) status = compute(ctx);
  NEED(status == MAREA_EBUDGET);
  NEED(said(&d, MAREA_LOG_INFO, "the time limit of 0.02 s is reached"));
  NEED(marea_poll(ctx) == MAREA_EBUDGET && d.lines == 0);
  marea_limit_time(ctx, 1e-9);
  NEED(marea_poll(ctx) == MAREA_EBUDGET);
  NEED(said(&d, MAREA_LOG_INFO, "stopped: the time limit of 1e-09 s is reached"));
  marea_close(ctx);
  return true;
}

/* ---- silence ---- */

static bool step (marea_context *ctx, marea_tensor *x, marea_tensor *w) {
  marea_tensor *y = NULL, *loss = NULL;
  NEED(marea_call_op(ctx, "conv2d", MAREA_TENSORS(x, w), MAREA_NAMED(marea_word("padding", "same")), 1, &y) ==
       MAREA_OK);
  NEED(marea_call_op(ctx, "sum", MAREA_TENSORS(y), MAREA_NO_NAMES, 1, &loss) == MAREA_OK);
  NEED(marea_backward(loss, NULL, 0) == MAREA_OK);
  NEED(marea_call_op(ctx, "sgd_step", MAREA_TENSORS(w, marea_grad_of(w)), MAREA_NAMED(marea_real("lr", 0.01)),
                     0, NULL) == MAREA_OK);
  marea_clear_grad(w);
  marea_release(y), marea_release(loss);
  return true;
}

static bool steady_steps (void) {
  diary d;
  marea_tensor *x, *w;
  marea_context *ctx = open_with(&d, (marea_config){.threads = 2, .max_bytes = 64000000});
  marea_limit_flop(ctx, 1e15), marea_limit_time(ctx, 1000);
  NEED(marea_zeros(ctx, MAREA_F32, 4, (int64_t[]){16, 28, 28, 8}, &x) == MAREA_OK);
  NEED(marea_zeros(ctx, MAREA_F32, 4, (int64_t[]){3, 3, 8, 16}, &w) == MAREA_OK);
  NEED(marea_require_grad(w, true) == MAREA_OK);
  for (int i = 0; i < 50; i++) NEED(step(ctx, x, w));
  marea_release(x), marea_release(w);
  marea_close(ctx);
  NEED(d.lines == 0);
  return true;
}

static bool without_a_log (void) {
  purse all = {.most = 10000000};
  marea_config config = {.size = sizeof config, .alloc = pay, .alloc_ud = &all, .threads = 2};
  marea_context *ctx;
  NEED(marea_open(&config, &ctx) == MAREA_OK && finds_room(ctx));
  marea_memory_limit(ctx, 9000000);
  NEED(finds_room(ctx));
  marea_interrupt(ctx);
  NEED(compute(ctx) == MAREA_EINTR);
  marea_limit_flop(ctx, 1);
  NEED(compute(ctx) == MAREA_EBUDGET);
  marea_limit_flop(ctx, 0);
  marea_tensor *t = zeros(ctx, 100);
  marea_close(ctx);
  marea_release(t);
  NEED(all.bytes == 0);
  config.threads = -1;
  NEED(marea_open(&config, &ctx) == MAREA_EARG);
  return true;
}

/* ---- Lua ---- */

typedef struct warnings {
  int n;
  char text[1000];
} warnings;

static void collect (void *ud, const char *part, int to_be_continued) {
  warnings *w = ud;
  strncat(w->text, part, sizeof w->text - strlen(w->text) - 1);
  if (!to_be_continued) w->n++;
}

static int open_in_lua (lua_State *L) {
  marea_lua_open(L, lua_touserdata(L, 1));
  lua_setglobal(L, "marea");
  return 0;
}

static lua_State *lua_with (warnings *w, marea_context *ctx) {
  lua_State *L = luaL_newstate();
  *w = (warnings){0};
  luaL_openlibs(L);
  lua_setwarnf(L, collect, w);
  lua_pushcfunction(L, open_in_lua);
  lua_pushlightuserdata(L, ctx);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) printf("  %s\n", lua_tostring(L, -1)), exit(2);
  return L;
}

static const char script[] = "local core = require 'marea.core'\n"
                             "core.memory_limit(core.memory().live + 10000000)\n"
                             "core.scope(function() marea.zeros({1500000}) end)\n"
                             "core.scope(function() marea.zeros({2000000}) end)\n"
                             "x = marea.tensor{1, 2, 3}:requires_grad_()\n"
                             "y = x:exp():sum()\n";

static bool warnings_in_lua (void) {
  warnings w;
  lua_State *L = lua_with(&w, NULL);
  NEED(w.n == 0);
  if (luaL_dostring(L, script) != LUA_OK) return printf("  %s\n", lua_tostring(L, -1)), false;
  if (w.n != 1) printf("  %d warnings: %s\n", w.n, w.text);
  NEED(w.n == 1 && strstr(w.text, "marea: memory: the limit is reached: 8.0 MB wanted") == w.text);
  marea_tensor *kept;
  lua_getglobal(L, "x");
  kept = marea_retain(marea_lua_check(L, -1));
  lua_close(L);
  NEED(w.n == 2 && strstr(w.text, "marea: closed with "));
  marea_release(kept);
  L = lua_with(&w, NULL);
  NEED(luaL_dostring(L, script) == LUA_OK && w.n == 1);
  lua_close(L);
  NEED(w.n == 1);
  return true;
}

/* The log of a context of the host's is the host's. */
static bool context_of_the_host (void) {
  diary d;
  warnings w;
  marea_context *ctx = open_with(&d, (marea_config){.threads = 1, .index_base = 1});
  lua_State *L = lua_with(&w, ctx);
  NEED(luaL_dostring(L, script) == LUA_OK && w.n == 0);
  NEED(said(&d, MAREA_LOG_WARNING, "memory: the limit is reached"));
  lua_close(L);
  marea_close(ctx);
  NEED(w.n == 0 && d.lines == 0);
  return true;
}

int main (void) {
  report("opening says what was opened", opening());
  report("a refused config", not_opening());
  report("MAREA_ISA without effect", variables());
  report("the limit of memory", memory_limit());
  report("an allocator that refuses", allocator());
  report("memory in use at close", leaks());
  report("silence after closing", after_closing());
  report("fewer threads than asked for", few_threads());
  report("threads lost by a fork", forks());
  report("interrupts", interrupts());
  report("budgets", budgets());
  report("silence in steady steps", steady_steps());
  report("no log", without_a_log());
  report("Lua's warnings", warnings_in_lua());
  report("a host's context in Lua", context_of_the_host());
  return failed > 0;
}
