/* SPDX-License-Identifier: MIT
** graph.c: networks that were made elsewhere, as lua/marea/onnx uses them. A graph is owned by a userdata.
*/
#include "bind.h"

static int graph_gc (lua_State *L) {
  marea_graph **g = bind_to(L, bind_self(L), 1, BIND_GRAPH);
  if (!g) return 0;
  marea_graph_free(*g);
  *g = NULL;
  return 0;
}

static marea_graph *check (lua_State *L, bind_state *S, int idx, const char *function) {
  marea_graph **g = bind_to(L, S, idx, BIND_GRAPH);
  if (!g || !*g) bind_raise_argument(L, S, function, "graph", "a graph of onnx_load", idx);
  return *g;
}

/* core.onnx_load(path) -> graph | nil, message */
static int graph_load (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  const char *path = bind_string(L, S, 1, "onnx.load", "path");
  bind_sandbox_path(L, S, "onnx.load", path, false);
  marea_graph **g = bind_new(L, S, BIND_GRAPH, sizeof *g, 0);
  BIND_RETRY(L, S, 0, NULL, status, marea_onnx_load(ctx, path, g));
  return status == MAREA_OK ? 1 : bind_file_failed(L, S, status);
}

/* core.onnx_load_string(bytes) -> graph | nil, message */
static int graph_load_string (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  size_t n;
  marea_context *ctx = bind_enter(L, S);
  const char *bytes = bind_bytes(L, S, 1, "onnx.load_string", "bytes", &n);
  marea_graph **g = bind_new(L, S, BIND_GRAPH, sizeof *g, 0);
  BIND_RETRY(L, S, 0, NULL, status, marea_onnx_parse(ctx, bytes, n, g));
  return status == MAREA_OK ? 1 : bind_file_failed(L, S, status);
}

static void push_port (lua_State *L, const marea_graph_port *port) {
  lua_createtable(L, 0, 3);
  lua_pushstring(L, port->name);
  lua_setfield(L, -2, "name");
  lua_pushstring(L, marea_dtype_name(port->dtype));
  lua_setfield(L, -2, "dtype");
  if (port->rank < 0) return;
  lua_createtable(L, port->rank, 0);
  for (int d = 0; d < port->rank; d++) {
    lua_pushinteger(L, port->shape[d]);
    lua_rawseti(L, -2, d + 1);
  }
  lua_setfield(L, -2, "shape");
}

/* core.graph_ports(graph) -> inputs, results: lists of {name =, dtype =, shape = {2, -1}} */
static int graph_ports (lua_State *L) {
  const marea_graph *g = check(L, bind_self(L), 1, "graph_ports");
  marea_graph_port port;
  lua_newtable(L);
  for (int i = 0; marea_graph_input(g, i, &port); i++) {
    push_port(L, &port);
    lua_rawseti(L, -2, i + 1);
  }
  lua_newtable(L);
  for (int i = 0; marea_graph_output(g, i, &port); i++) {
    push_port(L, &port);
    lua_rawseti(L, -2, i + 1);
  }
  return 2;
}

/* core.graph_metadata(graph) -> texts by name */
static int graph_metadata (lua_State *L) {
  const marea_graph *g = check(L, bind_self(L), 1, "graph_metadata");
  const char *key, *value;
  lua_newtable(L);
  for (int i = 0; marea_graph_metadata(g, i, &key, &value); i++) {
    lua_pushstring(L, key);
    lua_pushstring(L, value);
    lua_rawset(L, -3);
  }
  return 1;
}

/* core.graph_weights(graph) -> list of {name =, tensor =, learned =} */
static int graph_weights (lua_State *L) {
  bind_state *S = bind_self(L);
  const marea_graph *g = check(L, S, 1, "graph_weights");
  marea_graph_weight w;
  bind_enter(L, S);
  lua_newtable(L);
  for (int i = 0; marea_graph_weight_at(g, i, &w); i++) {
    lua_createtable(L, 0, 3);
    lua_pushstring(L, w.name);
    lua_setfield(L, -2, "name");
    lua_pushboolean(L, w.learned);
    lua_setfield(L, -2, "learned");
    bind_box *box = bind_box_new(L, S);
    bind_box_fill(box, marea_retain(w.tensor));
    lua_setfield(L, -2, "tensor");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* core.graph_copy(graph) -> graph with weights of its own */
static int graph_copy (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  marea_graph *g = check(L, S, 1, "graph_copy");
  bind_enter(L, S);
  marea_graph **copy = bind_new(L, S, BIND_GRAPH, sizeof *copy, 0);
  BIND_RETRY(L, S, 0, NULL, status, marea_graph_copy(g, copy));
  return status == MAREA_OK ? 1 : bind_raise_status(L, S, status);
}

/* core.graph_run(graph, tensor, ...) -> tensor, ... */
static int graph_run (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_tensor *in[BIND_PORTS], *out[BIND_PORTS];
  bind_box *box[BIND_PORTS];
  marea_status status;
  marea_graph *g = check(L, S, 1, "graph_run");
  bind_enter(L, S);
  const int n_in = lua_gettop(L) - 1, n_out = marea_graph_outputs(g);
  if (n_in > BIND_PORTS || n_out > BIND_PORTS)
    return bind_raise(L, S, "graph_run: at most %d inputs and results are supported", BIND_PORTS);
  luaL_checkstack(L, n_out + 2, "graph_run");
  for (int k = 0; k < n_out; k++) box[k] = bind_box_new(L, S);
  for (int i = 0; i < n_in; i++) in[i] = bind_check(L, S, 2 + i, "graph_run", "input");
  BIND_RETRY(L, S, n_in, in, status, marea_graph_run(g, n_in, in, n_out, out));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  for (int k = 0; k < n_out; k++) bind_box_fill(box[k], out[k]);
  return n_out;
}

/* core.graph_text(graph, tensor, ...) -> string */
static int graph_text (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_tensor *in[BIND_PORTS], *text = NULL;
  marea_status status;
  marea_graph *g = check(L, S, 1, "graph_text");
  bind_enter(L, S);
  const int n_in = lua_gettop(L) - 1;
  if (n_in > BIND_PORTS) return bind_raise(L, S, "graph_text: at most %d inputs are supported", BIND_PORTS);
  bind_box *box = bind_box_new(L, S);
  for (int i = 0; i < n_in; i++) in[i] = bind_check(L, S, 2 + i, "graph_text", "input");
  BIND_RETRY(L, S, n_in, in, status, marea_graph_text(g, n_in, in, &text));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  bind_box_fill(box, text);
  lua_pushlstring(L, marea_tensor_data(text), (size_t)marea_tensor_size(text));
  return 1;
}

/* The state is on top of the stack, and stays there; adds the functions to the module at index `module`. */
void bind_graph_open (lua_State *L, int module) {
  static const luaL_Reg metamethods[] = {{"__gc", graph_gc}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"onnx_load", graph_load},
                                       {"onnx_load_string", graph_load_string},
                                       {"graph_ports", graph_ports},
                                       {"graph_metadata", graph_metadata},
                                       {"graph_weights", graph_weights},
                                       {"graph_run", graph_run},
                                       {"graph_copy", graph_copy},
                                       {"graph_text", graph_text},
                                       {NULL, NULL}};
  bind_add_kind(L, module, BIND_GRAPH, "marea.Graph", metamethods, functions);
}
