/* SPDX-License-Identifier: MIT
** threads_test.c: many Lua states at once, each in a thread of the host and with a context of its own, reading the
** weights of one model without a copy. Each trains the same network; all must end with the same bits. Without
** arguments a small share; `make test-tsan` and `make test-threads` ask for more:
**
**   threads STATES THREADS STEPS
*/
#include <lauxlib.h>
#include <lualib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "marea_lua.h"
#include "report.h"

#define MOST 64
#define INNER 64

/* ---- one model for all ---- */

typedef struct model {
  atomic_int readers; /* tensors that look at the weights */
  float weight[32 * INNER], bias[INNER];
} model;

static void let_go (void *ud) { atomic_fetch_sub(&((model *)ud)->readers, 1); }

static void push_weights (lua_State *L, marea_context *ctx, model *m, void *data, int rank,
                          const int64_t *shape) {
  marea_tensor *t;
  atomic_fetch_add(&m->readers, 1);
  if (marea_from_memory(ctx, MAREA_F32, rank, shape, data, let_go, m, &t) != MAREA_OK) exit(2);
  marea_protect(t);
  marea_lua_push(L, t);
  marea_release(t);
}

/* ---- a thread ---- */

static const char script[] =
    "local marea = require 'marea'\n"
    "local weight, bias, steps = ...\n"
    "local nn = marea.nn\n"
    "marea.seed(11)\n"
    "local teacher = nn.Linear{32, 64, activation = 'tanh'}\n"
    "teacher.weight, teacher.bias = weight, bias\n" /* the shared memory itself, no copy */
    "assert(not pcall(weight.add_, weight, 1) and not pcall(weight.zero_, weight))\n"
    "local net = nn.Sequential{nn.Linear{32, 16, activation = 'relu'}, nn.Linear{16, 64}}\n"
    "local optimizer = marea.optim.Adam{net, lr = 0.01}\n"
    "local loss\n"
    "for step = 1, steps do\n"
    "  local x = marea.normal{600, 32}\n"
    "  local y = marea.no_grad(function() return teacher(x) end)\n"
    "  loss = optimizer:step(function() return net(x):mse(y) end):item()\n"
    "  x:release() y:release()\n"
    "end\n"
    "local sum = 0\n"
    "for name, t in pairs(net:state()) do sum = sum + t:square():sum():item() end\n"
    "return loss + net[1].weight:square():sum():item() + net[2].bias:sum():item()\n";

typedef struct job {
  model *m;
  int threads, steps;
  double result;
  bool ok;
  char message[300];
} job;

static int work (lua_State *L) {
  job *j = lua_touserdata(L, 1);
  luaL_openlibs(L);
  marea_context *ctx = lua_touserdata(L, 2);
  marea_lua_open(L, ctx);
  if (luaL_loadstring(L, script) != LUA_OK) return lua_error(L);
  push_weights(L, ctx, j->m, j->m->weight, 2, (int64_t[]){32, INNER});
  push_weights(L, ctx, j->m, j->m->bias, 1, (int64_t[]){INNER});
  lua_pushinteger(L, j->steps);
  lua_call(L, 3, 1);
  j->result = lua_tonumber(L, -1);
  return 0;
}

static void *run (void *arg) {
  job *j = arg;
  marea_context *ctx;
  marea_config config = {.size = sizeof config, .threads = j->threads, .index_base = 1};
  lua_State *L = luaL_newstate();
  if (!L || marea_open(&config, &ctx) != MAREA_OK) exit(2);
  lua_pushcfunction(L, work);
  lua_pushlightuserdata(L, j);
  lua_pushlightuserdata(L, ctx);
  j->ok = lua_pcall(L, 2, 0, 0) == LUA_OK;
  if (!j->ok) snprintf(j->message, sizeof j->message, "%s", lua_tostring(L, -1));
  lua_close(L);
  j->ok = j->ok && marea_memory(ctx).blocks == 0;
  marea_close(ctx);
  return NULL;
}

static bool states_at_once (int states, int threads, int steps) {
  static model m;
  pthread_t thread[MOST];
  job jobs[MOST];
  for (int i = 0; i < 32 * INNER; i++) m.weight[i] = (float)(i * 7919 % 2003 - 1001) / 4004;
  for (int i = 0; i < states; i++) {
    jobs[i] = (job){.m = &m, .threads = threads, .steps = steps};
    if (pthread_create(&thread[i], NULL, run, &jobs[i]) != 0) exit(2);
  }
  bool ok = true;
  for (int i = 0; i < states; i++) {
    pthread_join(thread[i], NULL);
    if (!jobs[i].ok) printf("  state %d: %s\n", i, jobs[i].message);
    ok = ok && jobs[i].ok && jobs[i].result == jobs[0].result;
  }
  return ok && atomic_load(&m.readers) == 0;
}

/* ---- one thread stops another's work ---- */

static void *interrupt_soon (void *ctx) {
  for (int i = 0; i < 50; i++) {
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    marea_interrupt(ctx);
  }
  return NULL;
}

static bool stopped_from_elsewhere (void) {
  marea_context *ctx;
  marea_config config = {.size = sizeof config, .threads = 3};
  marea_tensor *a, *b;
  pthread_t other;
  if (marea_open(&config, &ctx) != MAREA_OK) exit(2);
  if (marea_zeros(ctx, MAREA_F32, 2, (int64_t[]){500, 1000}, &a) != MAREA_OK) exit(2);
  if (pthread_create(&other, NULL, interrupt_soon, ctx) != 0) exit(2);
  bool stopped = false;
  for (int i = 0; i < 100000 && !stopped; i++) {
    stopped = marea_call_op(ctx, "exp", MAREA_TENSORS(a), MAREA_NO_NAMES, 1, &b) == MAREA_EINTR;
    marea_release(b);
  }
  pthread_join(other, NULL);
  marea_release(a);
  marea_close(ctx);
  return stopped;
}

/* ---- contexts come and go ---- */

static void *open_and_close (void *arg) {
  (void)arg;
  for (int i = 0; i < 20; i++) {
    marea_context *ctx;
    marea_tensor *a, *b;
    marea_config config = {.size = sizeof config, .threads = 2};
    if (marea_open(&config, &ctx) != MAREA_OK) exit(2);
    if (marea_zeros(ctx, MAREA_F64, 2, (int64_t[]){80, 80}, &a) != MAREA_OK) exit(2);
    if (marea_call_op(ctx, "matmul", MAREA_TENSORS(a, a), MAREA_NO_NAMES, 1, &b) != MAREA_OK)
      exit(2);        /* BLAS */
    marea_close(ctx); /* tensors may go after their context */
    marea_release(a), marea_release(b);
  }
  return NULL;
}

static bool contexts_come_and_go (void) {
  pthread_t thread[4];
  for (int i = 0; i < 4; i++)
    if (pthread_create(&thread[i], NULL, open_and_close, NULL) != 0) return false;
  for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
  return true;
}

/* ---- a child trains ---- */

static bool child_trains (void) {
#if defined(__SANITIZE_THREAD__) /* which allows no thread after a fork */
  return true;
#endif
  static model m;
  job before = {.m = &m, .threads = 3, .steps = 5};
  run(&before); /* there have been threads, OpenBLAS's own among them */
  time_t start = time(NULL);
  pid_t child = fork();
  if (child == 0) {
    job after = {.m = &m, .threads = 3, .steps = 5};
    alarm(10);
    run(&after);
    _exit(after.ok && after.result == before.result ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  return before.ok && status == 0 && time(NULL) - start <= 10;
}

int main (int argc, char **argv) {
  int states = argc > 3 ? atoi(argv[1]) : 4, threads = argc > 3 ? atoi(argv[2]) : 2;
  int steps = argc > 3 ? atoi(argv[3]) : 20;
  if (states < 1 || states > MOST) return 2;
  report("states at once, one model", states_at_once(states, threads, steps));
  report("a thread stops another's operators", stopped_from_elsewhere());
  report("contexts come and go", contexts_come_and_go());
  report("a child trains", child_trains());
  return failed > 0;
}
