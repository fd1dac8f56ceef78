/* SPDX-License-Identifier: MIT
** sandbox_budget.c: the budgets of a sandbox: seconds and instructions. A hook counts instructions and looks at the
** clock.
*/
#include <stdio.h>

#include "sandbox.h"

/* Bytes of strings that may be compared between two looks: at 15 ns a byte 63 ms (sandbox_memory.c). */
#define SLOW ((size_t)4 << 20)

void bind_sandbox_spend (marea_sandbox *sandbox, const char *why) {
  if (sandbox->spent) return;
  sandbox->spent = true;
  snprintf(sandbox->why, sizeof sandbox->why, "%s", why);
}

bool bind_sandbox_look (marea_sandbox *sandbox) {
  char why[100];
  if (sandbox->spent || !sandbox->active) return sandbox->spent;
  if (sandbox->interrupted && sandbox->interrupted(sandbox->interrupted_ud)) {
    bind_sandbox_spend(sandbox, "interrupted");
  } else if (bind_clock() >= sandbox->deadline) {
    bind_format(why, sizeof why, "the time limit of %g s is reached", sandbox->max_seconds);
    bind_sandbox_spend(sandbox, why);
  } else if (sandbox->instructions > sandbox->max_instructions) {
    bind_format(why, sizeof why, "the limit of %g instructions is reached", sandbox->max_instructions);
    bind_sandbox_spend(sandbox, why);
  }
  return sandbox->spent;
}

int bind_sandbox_period (const marea_sandbox *sandbox) {
  if (sandbox->spent) return 1;
  const size_t longest = sandbox->memory.longest;
  if (longest * SANDBOX_PERIOD <= SLOW) return SANDBOX_PERIOD;
  return longest < SLOW ? (int)(SLOW / longest) : 1;
}

static void on_count (lua_State *L, lua_Debug *ar) {
  marea_sandbox *sandbox = bind_sandbox_of(L);
  const int count = lua_gethookcount(L);
  sandbox->instructions += count;
  bind_sandbox_look(sandbox);
  const int next = bind_sandbox_period(sandbox);
  if (count != next) lua_sethook(L, on_count, LUA_MASKCOUNT, next);
  if (!sandbox->spent) return;
  int level = 0; /* the script's line rather than the library's */
  do lua_getinfo(L, "Sl", ar);
  while ((ar->currentline <= 0 || bind_find_embedded(ar->source)) && lua_getstack(L, ++level, ar));
  lua_pushfstring(L, "%s:%d: sandbox: %s", ar->short_src, ar->currentline, sandbox->why);
  lua_error(L);
}

void bind_sandbox_arm (marea_sandbox *sandbox) {
  if (sandbox->active) lua_sethook(sandbox->running, on_count, LUA_MASKCOUNT, bind_sandbox_period(sandbox));
}

void bind_sandbox_check (lua_State *L, marea_sandbox *sandbox) {
  if (bind_sandbox_look(sandbox)) luaL_error(L, "sandbox: %s", sandbox->why);
}

void marea_sandbox_check (lua_State *L) {
  const bind_state *S = bind_find_state(L);
  if (S && S->sandbox) bind_sandbox_check(L, S->sandbox);
}
