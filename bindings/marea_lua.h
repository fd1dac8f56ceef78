/* SPDX-License-Identifier: MIT
** marea_lua.h: what a host in C needs to put Marea into its Lua 5.4 states and to hand tensors over. The library's Lua
** files are compiled in: a program that links it needs no files.
**
** The functions luaopen_* and marea_lua_*, but for marea_lua_context, raise Lua errors; call them where lua_error may
** be, as from a C function that Lua called, or under lua_pcall. They raise for a NULL tensor; the Lua state is always
** needed. marea_sandbox_* do nothing with a NULL sandbox, or answer MAREA_EARG, -1, NULL or a text. Of marea_sandbox_*, marea_sandbox_run may raise in
** `host`, the others never.
*/
#ifndef MAREA_LUA_H
#define MAREA_LUA_H

#include <lua.h>

#include "marea.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the library and leaves its table on the stack, also as package.loaded.marea. `ctx` is the context that this state
   computes with: one of the host's, opened with index_base = 1, which the host closes after the state; or NULL: the
   state has its own, whose warnings (MAREA_LOG_WARNING) go to lua_warning. Needs Lua's `require` (luaopen_package). Errors:
   another index_base, a state that is open already. */
MAREA_API void marea_lua_open (lua_State *L, marea_context *ctx);
/* The same without a context of the host's, as a function for luaL_requiref(L, "marea", luaopen_marea, 0), and for
   `require "marea"` where the module lies as marea.so in package.cpath. */
MAREA_API int luaopen_marea (lua_State *L);
/* Only tells `require` where the library is: it is opened when a script asks for it. */
MAREA_API void marea_lua_preload (lua_State *L);
/* The module `marea.core` alone: operators and tensors, nothing that is written in Lua. */
MAREA_API int luaopen_marea_core (lua_State *L);
/* The context of this Lua state; NULL as long as the library is not open. */
MAREA_API marea_context *marea_lua_context (lua_State *L);
/* Pushes a Lua value for `t`, a tensor of this state's context, and retains it. On an error `t` is as before. */
MAREA_API void marea_lua_push (lua_State *L, marea_tensor *t);
/* The tensor at `idx`, borrowed as long as the Lua value lives; an error if there is none. */
MAREA_API marea_tensor *marea_lua_check (lua_State *L, int idx);

/* ---- sandboxes: scripts that nobody has read ----

   A sandbox is a Lua state of its own. Its scripts find Lua's basic functions, string, table, math, utf8, coroutine and
   `marea`; no io, os, debug, package, binary chunks, finalizers or weak tables. The library's file functions reach
   what lies below the given folders. A script that would go beyond a budget ends with an error that it cannot catch.
   What scripts leave in the sandbox's globals is there for the next one. */

typedef struct marea_sandbox marea_sandbox;

typedef struct marea_sandbox_config {
  size_t size;                   /* of this struct */
  const marea_config *tensors;   /* of its context; index_base is 1. NULL, or 0 in it: one thread, 256 MiB */
  size_t max_lua_bytes;          /* Lua's memory, at least 256 KiB; 0: 32 MiB */
  size_t max_string;             /* bytes of one string, at least 256; 0: 1 MiB */
  double max_seconds;            /* of a run, by the clock on the wall; 0: 10 */
  double max_instructions;       /* of Lua's virtual machine, of a run, to within some hundred; 0: 1e9 */
  double max_flop;               /* floating-point operations of a run (marea_limit_flop); 0: 1e12 */
  const char *const *read, *const *write; /* up to 15 folders, NULL-ended; those to write may be read too. NULL: none */
} marea_sandbox_config;

/* `config` may be NULL. Errors: MAREA_EVERSION, MAREA_ENOMEM, which limits of Lua's memory below the least are too,
   MAREA_EARG (a folder that does not exist), and those of marea_open. */
MAREA_API MAREA_MUST_USE marea_status marea_sandbox_open (const marea_sandbox_config *config, marea_sandbox **out);
/* Runs a text with fresh budgets. `name` is its chunk name, as "=script". With `host`, a Lua state of the caller's, the
   values on top of that, n_args of them, are popped and are the script's arguments, and its results are pushed; they are
   copied: nil, booleans, numbers, strings, tensors, and tables of these without metatables. Without (NULL), results are
   on the stack of marea_sandbox_state until the next run. Returns their number; -1: the script failed, see
   marea_sandbox_error. May raise in `host` only. */
MAREA_API int marea_sandbox_run (marea_sandbox *box, const char *text, size_t bytes, const char *name,
                                 lua_State *host, int n_args);
MAREA_API const char *marea_sandbox_error (const marea_sandbox *box);
/* What scripts printed since this was last asked, its first 64 KiB; valid until the next run. */
MAREA_API const char *marea_sandbox_output (marea_sandbox *box);
/* The state, to read results from or to add functions of the host to: marea_sandbox_globals pushes the table
   of its scripts' globals there. A host's function must be short or ask marea_sandbox_check now and then, which raises in
   the state `L` it was called with when a budget is spent. */
MAREA_API lua_State *marea_sandbox_state (marea_sandbox *box);
MAREA_API void marea_sandbox_globals (marea_sandbox *box);
MAREA_API void marea_sandbox_check (lua_State *L);
MAREA_API void marea_sandbox_close (marea_sandbox *box);

#ifdef __cplusplus
}
#endif

#endif
