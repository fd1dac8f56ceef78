/* SPDX-License-Identifier: MIT
** tape.c: t:backward() and core.grad.
*/
#include "bind.h"

typedef struct options {
  int seed; /* stack index; 0: none */
  int flags;
  bool allow_not_finite;
} options;

static void set_flag (options *o, int flag, bool on) {
  if (on) o->flags |= flag;
}

/* The seed's value is left on the stack, where it stays reachable: slot 3 is reserved for it. */
static bool read_option (lua_State *L, bind_state *S, const char *key, int value, void *ud) {
  options *o = ud;
  if (strcmp(key, "seed") == 0) {
    lua_pushvalue(L, value);
    lua_replace(L, o->seed);
  } else if (strcmp(key, "retain_graph") == 0) {
    set_flag(o, MAREA_RETAIN_GRAPH, bind_boolean(L, S, value, "backward", key));
  } else if (strcmp(key, "create_graph") == 0) {
    set_flag(o, MAREA_CREATE_GRAPH, bind_boolean(L, S, value, "backward", key));
  } else if (strcmp(key, "allow_not_finite") == 0) {
    o->allow_not_finite = bind_boolean(L, S, value, "backward", key);
  } else return false;
  return true;
}

/* Reads {seed =, retain_graph =, create_graph =, allow_not_finite =} at idx; the seed goes to stack index o->seed,
   else nil. */
static void read_options (lua_State *L, bind_state *S, int idx, const char *function, options *o) {
  static const char *const names[] = {"seed", "retain_graph", "create_graph", "allow_not_finite", NULL};
  if (lua_isnil(L, idx)) return;
  if (lua_type(L, idx) != LUA_TTABLE) bind_raise_argument(L, S, function, "options", "a table", idx);
  bind_read_options(L, S, idx, function, names, read_option, o);
}

static marea_tensor *seed_of (lua_State *L, bind_state *S, const char *function, const options *o) {
  return lua_isnil(L, o->seed) ? NULL : bind_check(L, S, o->seed, function, "seed");
}

/* t:backward(seed) or t:backward{seed =, retain_graph =, create_graph =, allow_not_finite =}. A loss that is NaN or
   infinite raises, unless that is allowed; a seed says that t is no loss. */
int bind_backward (lua_State *L) {
  bind_state *S = bind_self(L);
  options o = {.seed = 3};
  marea_status status;
  bind_enter_pass(L, S);
  lua_settop(L, 2);
  lua_pushnil(L);
  if (bind_to_box(L, S, 2)) {
    lua_pushvalue(L, 2);
    lua_replace(L, 3);
  } else read_options(L, S, 2, "backward", &o);
  marea_tensor *both[] = {bind_check(L, S, 1, "backward", "t"), seed_of(L, S, "backward", &o)};
  if (!both[1] && !o.allow_not_finite && marea_requires_grad(both[0]) && !bind_is_finite(both[0]))
    return bind_raise_not_finite(L, S, 1);
  if (o.flags) BIND_RETRY(L, S, 2, both, status, marea_backward(both[0], both[1], o.flags));
  else status = marea_backward(both[0], both[1], 0); /* a pass that failed may have consumed its graph */
  bind_leave_pass(S);
  return status == MAREA_OK ? 0 : bind_raise_status(L, S, status);
}

/* Tensors of core.grad: y, seed, then n xs; and the boxes and gradients that belong to the xs. */
typedef struct request {
  int n;
  marea_tensor **in, **grads;
  bind_box **boxes;
} request;

/* Makes room for n xs and pushes the list of their gradients' boxes. */
static void new_request (lua_State *L, bind_state *S, request *r) {
  size_t n = (size_t)r->n;
  r->in = lua_newuserdatauv(L, (2 * n + 2) * sizeof *r->in + n * sizeof *r->boxes, 0);
  r->grads = r->in + n + 2;
  r->boxes = (bind_box **)(r->grads + n);
  lua_createtable(L, r->n, 0);
  for (int i = 0; i < r->n; i++) {
    r->boxes[i] = bind_box_new(L, S);
    lua_rawseti(L, -2, i + 1);
  }
}

static void read_xs (lua_State *L, bind_state *S, const request *r, bool single) {
  if (single) {
    r->in[2] = bind_check(L, S, 2, "grad", "xs");
    return;
  }
  for (int i = 0; i < r->n; i++) {
    lua_rawgeti(L, 2, i + 1);
    if (!bind_to_box(L, S, -1))
      bind_raise(L, S, "grad: argument 'xs': item %d: expected a tensor, got %s", i + 1,
                 bind_describe(L, S, -1));
    r->in[i + 2] = bind_check(L, S, -1, "grad", "xs");
    lua_pop(L, 1);
  }
}

/* core.grad(y, xs, {seed =, create_graph =, retain_graph =}) -> list of tensors or false; one if xs is one */
int bind_grad (lua_State *L) {
  bind_state *S = bind_self(L);
  options o = {.seed = 4};
  marea_status status;
  bind_enter_pass(L, S);
  lua_settop(L, 3);
  lua_pushnil(L);
  read_options(L, S, 3, "grad", &o);
  bool single = bind_to_box(L, S, 2) != NULL;
  size_t n = single ? 1 : lua_type(L, 2) == LUA_TTABLE ? bind_length(L, 2) : SIZE_MAX;
  if (n > INT32_MAX) return bind_raise_argument(L, S, "grad", "xs", "a tensor or a list of tensors", 2);
  request r = {.n = (int)n};
  new_request(L, S, &r);
  int list = lua_gettop(L);
  read_xs(L, S, &r, single);
  r.in[0] = bind_check(L, S, 1, "grad", "y");
  r.in[1] = seed_of(L, S, "grad", &o);
  if (o.flags)
    BIND_RETRY(L, S, r.n + 2, r.in, status, marea_grad(r.in[0], r.in[1], r.n, r.in + 2, o.flags, r.grads));
  else status = marea_grad(r.in[0], r.in[1], r.n, r.in + 2, 0, r.grads);
  bind_leave_pass(S);
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  for (int i = 0; i < r.n; i++)
    if (r.grads[i]) bind_box_fill(r.boxes[i], r.grads[i]);
  for (int i = 0; i < r.n; i++) {
    if (r.boxes[i]->t) continue;
    lua_pushboolean(L, false);
    lua_rawseti(L, list, i + 1);
  }
  if (single) lua_rawgeti(L, list, 1);
  return 1;
}
