/* SPDX-License-Identifier: MIT
** sandbox_budget.c: the budgets of a sandbox: seconds and instructions. A hook counts instructions and looks at the clock.
*/
#include <stdio.h>

#include "sandbox.h"

#define SLOW ((size_t)4 << 20) /* bytes of strings that SANDBOX_PERIOD instructions may compare */

void bind_sandbox_spend (marea_sandbox *box, const char *why) {
  if (box->spent) return;
  box->spent = true;
  snprintf(box->why, sizeof box->why, "%s", why);
}

bool bind_sandbox_look (marea_sandbox *box) {
  char why[100];
  if (box->spent || !box->active) return box->spent;
  if (box->interrupted && box->interrupted(box->interrupted_ud)) {
    bind_sandbox_spend(box, "interrupted");
  } else if (bind_clock() >= box->deadline) {
    bind_format(why, sizeof why, "the time limit of %g s is reached", box->max_seconds);
    bind_sandbox_spend(box, why);
  } else if (box->instructions > box->max_instructions) {
    bind_format(why, sizeof why, "the limit of %g instructions is reached", box->max_instructions);
    bind_sandbox_spend(box, why);
  }
  return box->spent;
}

int bind_sandbox_period (const marea_sandbox *box) {
  if (box->spent) return 1;
  const size_t longest = box->memory.longest;
  if (longest * SANDBOX_PERIOD <= SLOW) return SANDBOX_PERIOD;
  return longest < SLOW ? (int)(SLOW / longest) : 1;
}

static void on_count (lua_State *L, lua_Debug *ar) {
  marea_sandbox *box = bind_sandbox_of(L);
  const int count = lua_gethookcount(L);
  box->instructions += count;
  bind_sandbox_look(box);
  const int next = bind_sandbox_period(box);
  if (count != next) lua_sethook(L, on_count, LUA_MASKCOUNT, next);
  if (!box->spent) return;
  int level = 0; /* the script's line rather than the library's */
  do lua_getinfo(L, "Sl", ar);
  while ((ar->currentline <= 0 || bind_find_embedded(ar->source)) && lua_getstack(L, ++level, ar));
  lua_pushfstring(L, "%s:%d: sandbox: %s", ar->short_src, ar->currentline, box->why);
  lua_error(L);
}

void bind_sandbox_arm (marea_sandbox *box) {
  if (box->active) lua_sethook(box->running, on_count, LUA_MASKCOUNT, bind_sandbox_period(box));
}

void bind_sandbox_check (lua_State *L, marea_sandbox *box) {
  if (bind_sandbox_look(box)) luaL_error(L, "sandbox: %s", box->why);
}

void marea_sandbox_check (lua_State *L) {
  const bind_state *S = bind_find_state(L);
  if (S && S->box) bind_sandbox_check(L, S->box);
}
