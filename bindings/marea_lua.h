/* SPDX-License-Identifier: MIT
** marea_lua.h: what a host in C needs to put Marea into its Lua 5.4 states and to hand tensors over. The library's Lua
** files are compiled in: a program that links it needs no files.
**
** The functions luaopen_* and marea_lua_* raise Lua errors, except marea_lua_context. Call them where lua_error may be
** called: in a C function that Lua has called, or under lua_pcall. They raise for a NULL tensor; the Lua state must not
** be NULL. Functions marea_sandbox_* with a NULL sandbox do nothing, or return MAREA_EARG, -1, NULL or a text. Of them
** only marea_sandbox_run and marea_sandbox_check raise, in the state `host` or `L` that they are given.
*/
#ifndef MAREA_LUA_H
#define MAREA_LUA_H

#include <lua.h>

#include "marea.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the library, pushes its table and stores it as package.loaded.marea. `ctx` is the context that this state
   computes with. The host opens it with index_base = 1 and closes it after the state. NULL: the state opens a context
   of its own, whose warnings (MAREA_LOG_WARNING) go to lua_warning. Needs Lua's `require` (luaopen_package). Errors:
   another index_base; the library is open in this state already. */
MAREA_API void marea_lua_open (lua_State *L, marea_context *ctx);
/* The same with ctx = NULL: a function for luaL_requiref(L, "marea", luaopen_marea, 0), and for `require "marea"` where
   the module is installed as marea.so in package.cpath. */
MAREA_API int luaopen_marea (lua_State *L);
/* Only tells `require` where the library is. It is opened when a script requires it. */
MAREA_API void marea_lua_preload (lua_State *L);
/* The module `marea.core` alone: operators and tensors, nothing that is written in Lua. */
MAREA_API int luaopen_marea_core (lua_State *L);
/* The context of this Lua state; NULL when the library is not open in it. */
MAREA_API marea_context *marea_lua_context (lua_State *L);
/* Pushes a Lua value for `t`, a tensor of this state's context, and retains it. On an error `t` is as before. */
MAREA_API void marea_lua_push (lua_State *L, marea_tensor *t);
/* The tensor at `idx`, borrowed as long as the Lua value lives; an error if there is none. */
MAREA_API marea_tensor *marea_lua_check (lua_State *L, int idx);

/* ---- sandboxes: scripts that nobody has read ----

   A sandbox is a Lua state of its own. Its scripts find Lua's basic functions, string, table, math, utf8, coroutine and
   `marea`; no io, os, debug, package, binary chunks, finalizers or weak tables. The library's file functions reach
   what lies below the given folders. A script that would go beyond a budget ends with an error that it cannot catch.
   What scripts leave in the sandbox's globals is there for the next one. A text may have 1 MiB, and 200 levels of
   blocks, functions and brackets within each other. A run sees the C locale, whatever the host's is. */

typedef struct marea_sandbox marea_sandbox;

typedef struct marea_sandbox_config {
  size_t size;                   /* of this struct */
  const marea_config *tensors;   /* of its context; index_base is 1. NULL, or 0 in it: one thread, 256 MiB */
  size_t max_lua_bytes;          /* Lua's memory, at least 256 KiB; 0: 32 MiB */
  size_t max_string;             /* bytes of one string, at least 256; 0: 1 MiB */
  double max_seconds;            /* of a run, by the clock on the wall; 0: 10 */
  double max_instructions;       /* of Lua's virtual machine, of a run, to within some hundred; 0: 1e9 */
  double max_flop;               /* floating-point operations of a run (marea_limit_flop); 0: 1e12 */
  size_t max_result_bytes;       /* of what a run returns to its host, a shared part counted each time; 0: as many as
                                    tensors->max_bytes. Results without tensors: at most max_lua_bytes */
  const char *const *read, *const *write; /* up to 15 folders, NULL-ended; those to write may be read too. NULL: none */
} marea_sandbox_config;

/* `config` may be NULL. Errors: MAREA_EVERSION; MAREA_ENOMEM, also for a limit of Lua's memory below the least;
   MAREA_EARG (a folder that does not exist); those of marea_open. */
MAREA_API MAREA_MUST_USE marea_status marea_sandbox_open (const marea_sandbox_config *config, marea_sandbox **out);
/* Runs a text with fresh budgets. `name` is its chunk name, such as "=script". Returns the number of results; -1 when
   the script fails, its results are too many or memory runs out in `host` (see marea_sandbox_error).

   `host` is a Lua state of the caller's, or NULL. From it the topmost n_args values are popped and copied: they are
   the script's arguments. Copies of the results are pushed onto it. What can be copied is nil, booleans, numbers,
   strings, tensors, and tables of these without metatables; an argument of another kind raises an error in `host`.
   When `host` is NULL, there are no arguments, and the results are on the stack of marea_sandbox_state until the next
   run.

   A script may call a function of the host's that runs another text in the same sandbox. That run has what is left of
   the budgets; its `host` must not be the sandbox's own state, and when it is NULL, the results are on the stack of
   the running coroutine. The function may also run another sandbox with the script's state as `host`: that run ends
   at the latest when the outer run's time ends. */
MAREA_API int marea_sandbox_run (marea_sandbox *sandbox, const char *text, size_t bytes, const char *name,
                                 lua_State *host, int n_args);
MAREA_API const char *marea_sandbox_error (const marea_sandbox *sandbox);
/* What scripts have printed since the last call of this function, the first 64 KiB of it; valid until the next run. */
MAREA_API const char *marea_sandbox_output (marea_sandbox *sandbox);
/* The sandbox's Lua state. The host reads results from it and may add functions of its own to the table of the
   scripts' globals, which marea_sandbox_globals pushes onto it. Such a function must be short, or call
   marea_sandbox_check(L) now and then, which raises when a budget is spent. */
MAREA_API lua_State *marea_sandbox_state (marea_sandbox *sandbox);
MAREA_API void marea_sandbox_globals (marea_sandbox *sandbox);
MAREA_API void marea_sandbox_check (lua_State *L);
MAREA_API void marea_sandbox_close (marea_sandbox *sandbox);

#ifdef __cplusplus
}
#endif

#endif
