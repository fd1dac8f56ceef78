/* SPDX-License-Identifier: MIT
** trace.c: traces of the operators that a run calls, as lua/marea/onnx writes them. A trace is owned by a userdata.
*/
#include "bind.h"

static int trace_gc (lua_State *L) {
  marea_trace **r = bind_to(L, bind_self(L), 1, BIND_TRACE);
  if (!r) return 0;
  marea_trace_free(*r);
  *r = NULL;
  return 0;
}

/* t[0..n-1] := the tensors of the list at idx, in which they stay. */
static void read_tensors (lua_State *L, bind_state *S, int idx, int n, const char *name, marea_tensor **t) {
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, idx, i + 1);
    t[i] = bind_check(L, S, lua_gettop(L), "onnx.save", name);
    lua_pop(L, 1);
  }
}

/* The tensors of the list at idx, at most BIND_PORTS. */
static int read_ports (lua_State *L, bind_state *S, int idx, const char *name, marea_tensor **t) {
  luaL_checktype(L, idx, LUA_TTABLE);
  const lua_Unsigned n = lua_rawlen(L, idx);
  if (n > BIND_PORTS) return bind_raise(L, S, "onnx.save: at most %d %ss are supported", BIND_PORTS, name);
  read_tensors(L, S, idx, (int)n, name, t);
  return (int)n;
}

/* core.trace_start{tensor, ...} */
static int trace_start (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_tensor *in[BIND_PORTS];
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  const int n = read_ports(L, S, 1, "input", in);
  BIND_RETRY(L, S, n, in, status, marea_trace_start(ctx, n, in));
  return status == MAREA_OK ? 0 : bind_raise_status(L, S, status);
}

/* core.trace_stop{tensor, ...} -> trace */
static int trace_stop (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_tensor *out[BIND_PORTS];
  marea_context *ctx = bind_enter(L, S);
  const int n = read_ports(L, S, 1, "result", out);
  marea_trace **r = bind_new(L, S, BIND_TRACE, sizeof *r, 0);
  const marea_status status = marea_trace_stop(ctx, n, out, r);
  return status == MAREA_OK ? 1 : bind_raise_status(L, S, status);
}

/* core.trace_drop() */
static int trace_drop (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_trace_drop(bind_enter(L, S));
  return 0;
}

/* The strings of options[key], in a userdata that is left on the stack; the strings stay in the list. */
static const char *const *read_names (lua_State *L, bind_state *S, int options, const char *key, int *n) {
  lua_getfield(L, options, key);
  const int list = lua_gettop(L);
  luaL_checktype(L, list, LUA_TTABLE);
  *n = (int)lua_rawlen(L, list);
  const char **names = lua_newuserdatauv(L, (size_t)(*n + 1) * sizeof names[0], 0);
  for (int i = 0; i < *n; i++) {
    lua_rawgeti(L, list, i + 1);
    names[i] = bind_string(L, S, lua_gettop(L), "onnx.save", key);
    lua_pop(L, 1);
  }
  return names;
}

static marea_tensor **read_weights (lua_State *L, bind_state *S, int options, int n) {
  lua_getfield(L, options, "tensors");
  const int list = lua_gettop(L);
  luaL_checktype(L, list, LUA_TTABLE);
  marea_tensor **t = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof t[0], 0);
  read_tensors(L, S, list, n, "weight", t);
  return t;
}

/* core.onnx_save(trace, path, {inputs = names, results = names, weights = names, tensors = list, opset =}, other) -> true |
   nil, message. As many names of inputs and results as the trace has: lua/marea/onnx sees to it. */
static int trace_save (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  marea_onnx_names names = {0};
  int n;
  bind_enter(L, S);
  lua_settop(L, 4);
  marea_trace **r = bind_to(L, S, 1, BIND_TRACE), **other = bind_to(L, S, 4, BIND_TRACE);
  const char *path = bind_string(L, S, 2, "onnx.save", "path");
  if (!r) return bind_raise_argument(L, S, "onnx.save", "trace", "a trace of trace_stop", 1);
  luaL_checktype(L, 3, LUA_TTABLE);
  bind_sandbox_path(L, S, "onnx.save", path, true);
  names.inputs = read_names(L, S, 3, "inputs", &n);
  names.results = read_names(L, S, 3, "results", &n);
  names.weights = read_names(L, S, 3, "weights", &names.n_weights);
  names.tensors = read_weights(L, S, 3, names.n_weights);
  names.other = other ? *other : NULL;
  lua_getfield(L, 3, "opset");
  names.opset = (int)lua_tointeger(L, -1);
  BIND_RETRY(L, S, 0, NULL, status, marea_onnx_save(*r, &names, path));
  if (status == MAREA_OK) {
    lua_pushboolean(L, true);
    return 1;
  }
  return bind_file_failed(L, S, status);
}

/* The state is on top of the stack, and stays there; adds the functions to the module at index `module`. */
void bind_trace_open (lua_State *L, int module) {
  static const luaL_Reg metamethods[] = {{"__gc", trace_gc}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"trace_start", trace_start},
                                       {"trace_stop", trace_stop},
                                       {"trace_drop", trace_drop},
                                       {"onnx_save", trace_save},
                                       {NULL, NULL}};
  bind_add_kind(L, module, BIND_TRACE, "marea.Trace", metamethods, functions);
}
