/* SPDX-License-Identifier: MIT
** sandbox.h: what the files of sandboxes share: sandbox.c opens and runs, sandbox_budget.c counts and looks at the
** clock, sandbox_path.c knows the folders, sandbox_memory.c is the allocator, sandbox_values.c copies values from one
** state to another.
*/
#ifndef SANDBOX_H
#define SANDBOX_H

#include <limits.h>

#include "bind.h"

#define SANDBOX_ROOTS 16 /* folders to read, and folders to write; the last one is NULL */
/* Instructions between two looks at the budgets; a switch of coroutines counts as many. One instruction may call a
   function in C that takes 2 ms, and 50 of them must not take more than 100 ms (LATE in spec/sandbox_spec.lua). */
#define SANDBOX_PERIOD 50
#define SANDBOX_OUTPUT (64 << 10) /* bytes of what scripts print that are kept */

/* A block of Lua's that can make a single instruction slow: a long string, the hash part of a large table. */
typedef struct sandbox_block {
  void *p;
  size_t bytes;
  bool is_string;
} sandbox_block;

typedef struct sandbox_memory {
  size_t bytes, max_bytes, max_string;
  sandbox_block *watched;
  size_t n_watched, room;
  size_t longest; /* of the strings among them */
} sandbox_memory;

struct marea_sandbox {
  lua_State *L, *running; /* the main thread, and the coroutine at work */
  marea_context *ctx;
  sandbox_memory memory;
  double instructions, max_instructions, max_flop, max_seconds, max_tensor_bytes, max_result_bytes, deadline;
  bool active, spent;
  unsigned steps; /* of the function next */
  bool (*interrupted)(void *ud);
  void *interrupted_ud;
  int environment;              /* reference in the registry */
  char *root[2][SANDBOX_ROOTS]; /* to read, to write; real paths */
  size_t printed;
  char why[200], error[1000], output[SANDBOX_OUTPUT + 1];
};

/* The sandbox that a state belongs to. Only for states of sandboxes: the space of others holds something else. */
static inline marea_sandbox *bind_sandbox_of (lua_State *L) {
  return *(marea_sandbox **)lua_getextraspace(L);
}

/* ---- sandbox_budget.c ---- */

bool bind_sandbox_look (marea_sandbox *sandbox); /* is a budget spent? Looks at the clock. */
/* Instructions between two looks: few while one of them can take long. */
int bind_sandbox_period (const marea_sandbox *sandbox);
void bind_sandbox_arm (marea_sandbox *sandbox); /* the coroutine at work looks that often from now on */

/* ---- sandbox_path.c ---- */

bool bind_sandbox_allows (const marea_sandbox *sandbox, const char *path, bool writing);

/* ---- sandbox_memory.c ---- */

void *bind_sandbox_allocate (void *ud, void *p, size_t old, size_t size); /* a lua_Alloc; ud: the sandbox */
void bind_sandbox_free_memory (sandbox_memory *m);                        /* behind lua_close */

/* ---- sandbox_values.c ---- */

/* NULL: the values at first..top of L, of the sandbox or its host, may pass. Else why not, pushed onto L; *misuse tells
   whether it is for what they are rather than for what they weigh. */
const char *bind_sandbox_weigh (marea_sandbox *sandbox, lua_State *L, int first, bool *misuse);
/* Pushes onto `to` a copy of from's value at idx, an absolute index, that was weighed. Raises in `to`. */
void bind_sandbox_copy (marea_sandbox *sandbox, lua_State *from, int idx, lua_State *to);

#endif
