/* SPDX-License-Identifier: MIT
** frames.c: a program that draws frames, as a game does, and trains a network in what is left of each: a script
** trains in a coroutine and yields after each step, and the host goes on with it as long as another step fits into
** BUDGET. Script and host look at the same memory.
**
**   build/examples/frames examples/frames.lua 300
*/
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "marea_lua.h"

#define POINTS 128
#define BUDGET 4.0  /* ms of a frame */
#define MARGIN 1.5  /* a step may take so much longer than the longest of late */
#define FORGET 0.98 /* in a frame; garbage collections make long steps, every dozen frames or so */

typedef struct game {
  float input[POINTS], target[POINTS]; /* the script's tensors are these */
  int steps, over,
      busy; /* frames that took more than BUDGET, and those that computed for so long themselves */
  double step_ms, longest_ms, first_loss, loss;
} game;

static double clock_ms (clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static double now_ms (void) { return clock_ms(CLOCK_MONOTONIC); }

static void push_buffer (lua_State *L, float *data) {
  marea_context *ctx = marea_lua_context(L);
  marea_tensor *t;
  if (marea_from_memory(ctx, MAREA_F32, 2, (int64_t[]){POINTS, 1}, data, NULL, NULL, &t) != MAREA_OK)
    luaL_error(L, "%s", marea_error(ctx));
  marea_lua_push(L, t);
  marea_release(t);
}

/* Under lua_pcall: (game, script) -> a coroutine that waits for its first step. */
static int load (lua_State *L) {
  game *g = lua_touserdata(L, 1);
  luaL_openlibs(L);
  marea_lua_open(L, NULL);
  lua_State *script = lua_newthread(L);
  if (luaL_loadfile(script, lua_tostring(L, 2)) != LUA_OK) return lua_xmove(script, L, 1), lua_error(L);
  push_buffer(L, g->input);
  push_buffer(L, g->target);
  lua_xmove(L, script, 2);
  return 1;
}

/* One step of the training; false: the script failed, and its message is on its stack. */
static bool step (game *g, lua_State *L, lua_State *script) {
  int results, arguments = g->steps == 0 ? 2 : 0;
  double begin = now_ms();
  if (lua_resume(script, L, arguments, &results) != LUA_YIELD) return false;
  g->loss = lua_tonumber(script, -1);
  lua_pop(script, results);
  if (g->steps++ == 0) g->first_loss = g->loss;
  else g->step_ms = fmax(now_ms() - begin, g->step_ms);
  return true;
}

static bool train (game *g, lua_State *L, lua_State *script) {
  double begin = now_ms(), worked = clock_ms(CLOCK_THREAD_CPUTIME_ID), took = 0;
  g->step_ms *= FORGET;
  do {
    if (!step(g, L, script)) return false;
    took = now_ms() - begin;
  } while (took + MARGIN * g->step_ms < BUDGET);
  g->longest_ms = fmax(g->longest_ms, took);
  if (took > BUDGET) g->over++;
  if (clock_ms(CLOCK_THREAD_CPUTIME_ID) - worked > BUDGET) g->busy++;
  return true;
}

/* What the game does: the curve that the network is to follow moves slowly. */
static void play (game *g, int frame) {
  for (int i = 0; i < POINTS; i++) {
    g->input[i] = -2 + 4 * (float)i / (POINTS - 1);
    g->target[i] = sinf(2 * g->input[i] + 0.002f * (float)frame);
  }
}

int main (int argc, char **argv) {
  if (argc < 3) return fprintf(stderr, "usage: %s SCRIPT FRAMES\n", argv[0]), 2;
  static game g;
  int frames = atoi(argv[2]);
  lua_State *L = luaL_newstate();
  if (!L) return 1;
  lua_pushcfunction(L, load);
  lua_pushlightuserdata(L, &g);
  lua_pushstring(L, argv[1]);
  bool ok = lua_pcall(L, 2, 1, 0) == LUA_OK;
  lua_State *script = ok ? lua_tothread(L, -1) : L;
  for (int frame = 0; ok && frame < frames; frame++) {
    play(&g, frame);
    ok = train(&g, L, script);
    if (frame == 0) g.over = g.busy = 0, g.longest_ms = 0; /* the script loads its modules in the first one */
  }
  if (ok)
    printf("%d frames, %d steps, loss %.4f to %.4f, %d frames over %g ms, %d by their own work, longest %.2f "
           "ms\n",
           frames, g.steps, g.first_loss, g.loss, g.over, BUDGET, g.busy, g.longest_ms);
  else fprintf(stderr, "%s\n", lua_tostring(script, -1));
  lua_close(L);
  return !ok;
}
