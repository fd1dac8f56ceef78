/* SPDX-License-Identifier: MIT
** sandbox_lua.c: core.sandbox, which lua/marea/sandbox/init.lua wraps. A sandbox lives in a userdata.
*/
#include "bind.h"

static bool host_is_interrupted (void *ud) { return bind_interrupt_pending(ud); }

static marea_sandbox **to_sandbox (lua_State *L, bind_state *S, const char *function) {
  marea_sandbox **sandbox = bind_to(L, S, 1, BIND_SANDBOX);
  if (!sandbox) bind_raise_argument(L, S, function, "sandbox", "a sandbox", 1);
  if (!*sandbox) bind_raise(L, S, "%s: the sandbox is closed", function);
  return sandbox;
}

static double number_of (lua_State *L, const char *name) {
  lua_getfield(L, 1, name);
  double value = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return value;
}

#define FOLDERS 15 /* to read and to write each: SANDBOX_ROOTS less one for the NULL at the end */

/* folders := the strings of the list at idx, which keeps them alive */
static void read_folders (lua_State *L, bind_state *S, int idx, const char **folders) {
  size_t n = 0;
  if (lua_rawlen(L, idx) > FOLDERS)
    bind_raise(L, S, "sandbox: argument '%s': expected at most %d folders, got %d",
               idx == 2 ? "read" : "write", FOLDERS, (int)lua_rawlen(L, idx));
  for (; n < FOLDERS && lua_rawgeti(L, idx, (lua_Integer)n + 1) == LUA_TSTRING; n++) {
    folders[n] = lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  folders[n] = NULL;
}

/* core.sandbox({memory =, string =, tensor_memory =, threads =, seconds =, instructions =, flop =, results =}, read,
   write): all of them numbers, 0 for what is usual; read and write: lists of folders. */
int bind_sandbox_new (lua_State *L) {
  bind_state *S = bind_self(L);
  const char *read[FOLDERS + 1], *write[FOLDERS + 1];
  bind_sandbox_deny(L, S, "sandbox");
  for (int i = 1; i <= 3; i++)
    if (!lua_istable(L, i)) return bind_raise_argument(L, S, "sandbox", "options", "a table", i);
  lua_settop(L, 3);
  read_folders(L, S, 2, read);
  read_folders(L, S, 3, write);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  marea_config tensors = {.size = sizeof tensors,
                          .max_bytes = (size_t)number_of(L, "tensor_memory"),
                          .threads = (int)number_of(L, "threads"),
                          .interrupted = host_is_interrupted,
                          .interrupted_ud = lua_tothread(L, -1)};
  marea_sandbox_config config = {.size = sizeof config,
                                 .tensors = &tensors,
                                 .max_lua_bytes = (size_t)number_of(L, "memory"),
                                 .max_string = (size_t)number_of(L, "string"),
                                 .max_seconds = number_of(L, "seconds"),
                                 .max_instructions = number_of(L, "instructions"),
                                 .max_flop = number_of(L, "flop"),
                                 .max_result_bytes = (size_t)number_of(L, "results"),
                                 .read = read,
                                 .write = write};
  marea_sandbox **sandbox = bind_new(L, S, BIND_SANDBOX, sizeof *sandbox, 0);
  marea_status status = marea_sandbox_open(&config, sandbox);
  if (status == MAREA_EARG) return bind_raise(L, S, "sandbox: a folder of 'read' or 'write' does not exist");
  if (status != MAREA_OK) return bind_raise(L, S, "sandbox: %s", marea_status_text(status));
  return 1;
}

/* sandbox:run(text, name, ...) -> true, results | nil, message */
static int sandbox_run (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_sandbox **sandbox = to_sandbox(L, S, "run"), *running = *sandbox;
  size_t n;
  const char *text = bind_bytes(L, S, 2, "run", "text", &n), *name = bind_string(L, S, 3, "run", "name");
  bind_enter(L, S);
  lua_pushboolean(L, true);
  lua_insert(L, 4);
  int results = marea_sandbox_run(running, text, n, name, L, lua_gettop(L) - 4);
  if (results >= 0) return results + 1;
  lua_pushnil(L);
  lua_pushstring(L, marea_sandbox_error(running));
  return 2;
}

static int sandbox_output (lua_State *L) {
  lua_pushstring(L, marea_sandbox_output(*to_sandbox(L, bind_self(L), "output")));
  return 1;
}

static int sandbox_close (lua_State *L) {
  marea_sandbox **sandbox = bind_to(L, bind_self(L), 1, BIND_SANDBOX);
  if (!sandbox) return 0;
  marea_sandbox_close(*sandbox);
  *sandbox = NULL;
  return 0;
}

/* The state is on top of the stack, and stays there. */
void bind_sandbox_module (lua_State *L) {
  static const luaL_Reg methods[] = {
      {"run", sandbox_run}, {"output", sandbox_output}, {"close", sandbox_close}, {NULL, NULL}};
  bind_push_metatable(L, lua_touserdata(L, -1), BIND_SANDBOX, "marea.Sandbox");
  lua_newtable(L);
  lua_pushvalue(L, -3);
  luaL_setfuncs(L, methods, 1);
  lua_setfield(L, -2, "__index");
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, sandbox_close, 1);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}
