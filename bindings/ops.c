/* SPDX-License-Identifier: MIT
** ops.c: calls of operators. One C function serves all operators, and another one all changes in place (add_ and its
** like); their upvalues say which operator it is. What an operator accepts, how it is called and what help says about
** it is read from its descriptor.
*/
#include "bind.h"

/* ---- numbers as inputs ---- */

static inline bool is_condition (const marea_input_spec *input) {
  return input->name[0] == 'c' && strcmp(input->name, "condition") == 0;
}

/* The dtype of the tensors beside numbers; f32 without any. The condition of `where` has no say. */
static inline marea_dtype dtype_beside (const bind_call *c) {
  const marea_dtype none = (marea_dtype)MAREA_DTYPE_COUNT;
  marea_dtype common = none;
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i] && !is_condition(&c->inputs[i]))
      common = marea_promote(common, marea_tensor_dtype(c->in[i]));
  return common == none ? MAREA_F32 : common;
}

static void raise_no_integer (lua_State *L, bind_state *S, const bind_call *c, int i) {
  const char *op = marea_op_name(c->op);
  bind_raise(
      L, S,
      "%s: argument '%s': %I is not an integer of u8, 0 to 255; a tensor converted by :to 'i64' takes it",
      c->in_place ? lua_pushfstring(L, "%s_", op) : op, c->inputs[i].name,
      (LUAI_UACINT)lua_tointeger(L, i + 1));
}

/* Has a tensor beside the numbers dimensions? Then numbers have no say in the dtype of the result. */
static inline bool has_dimensions_beside (const bind_call *c) {
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i] && marea_tensor_rank(c->in[i]) > 0) return true;
  return false;
}

/* Sets the dtypes of the inputs that are Lua numbers: that of the tensors beside them, or what that one is computed in,
   so that 0.1 is not rounded to three digits before a bf16 tensor is multiplied by it. Beside integers a Lua float is
   f32, and so is a Lua integer where the result is real anyway. The number's value does not matter, except that a
   number which u8 cannot hold is an error. */
static void settle_numbers (lua_State *L, bind_state *S, bind_call *c) {
  const marea_dtype common = dtype_beside(c);
  const marea_dtype beside = has_dimensions_beside(c) ? marea_dtype_computed(common) : common;
  const bool real = marea_dtype_is_float(beside);
  for (int i = 0; i < c->n_in; i++) {
    if (!(c->numbers >> i & 1)) continue;
    c->number_dtype[i] = beside;
    if (real) continue;
    if (!lua_isinteger(L, i + 1) || marea_op_gives_reals(c->op)) c->number_dtype[i] = MAREA_F32;
    else if (!bind_holds(beside, lua_tointeger(L, i + 1))) raise_no_integer(L, S, c, i);
  }
}

marea_status bind_number (lua_State *L, marea_context *ctx, int idx, marea_dtype dtype, marea_tensor **out) {
  marea_status status = marea_empty(ctx, dtype, 0, NULL, out);
  if (status == MAREA_OK) bind_store_number(L, idx, dtype, marea_tensor_data(*out));
  return status;
}

static marea_status make_numbers (lua_State *L, marea_context *ctx, bind_call *c) {
  for (int i = 0; i < c->n_in; i++) {
    if (!(c->numbers >> i & 1)) continue;
    marea_status status = bind_number(L, ctx, i + 1, c->number_dtype[i], &c->in[i]);
    if (status != MAREA_OK) return status;
  }
  return MAREA_OK;
}

static void drop_numbers (bind_call *c) {
  for (int i = 0; i < c->n_in; i++) {
    if (!(c->numbers >> i & 1)) continue;
    marea_release(c->in[i]);
    c->in[i] = NULL;
  }
}

/* ---- the call ---- */

/* out NULL: in place. Does not raise. */
static marea_status attempt (lua_State *L, marea_context *ctx, bind_call *c, marea_tensor **out, int *n_out) {
  marea_status status = c->numbers ? make_numbers(L, ctx, c) : MAREA_OK;
  if (status == MAREA_OK)
    status = out ? marea_apply(ctx, c->op, c->n_in, c->in, c->attrs, out, n_out)
                 : marea_apply_(ctx, c->op, c->n_in, c->in, c->attrs);
  if (c->numbers) drop_numbers(c);
  return status;
}

typedef struct results {
  const marea_op *op;
  int n;
  marea_tensor **t;
} results;

/* Pushes a box for each further result. Called protected, for making a box may raise. */
static int push_results (lua_State *L) {
  bind_state *S = bind_find_state(L);
  results *r = bind_work(S);
  if (!r) return 0;
  luaL_checkstack(L, r->n + 4, NULL);
  for (int i = 0; i < r->n; i++) {
    bind_box *b = bind_box_new(L, S);
    b->made_by = r->op;
    bind_box_fill(b, r->t[i]);
    r->t[i] = NULL;
  }
  return r->n;
}

static void push_protected (lua_State *L, bind_state *S, results r) {
  if (bind_protected(L, S, push_results, &r, 0) == LUA_OK) return;
  for (int i = 0; i < r.n; i++) marea_release(r.t[i]);
  lua_error(L);
}

int bind_op_call (lua_State *L) {
  bind_state *S = bind_self(L);
  const marea_op *op = lua_touserdata(L, lua_upvalueindex(2));
  marea_tensor *out[MAREA_MAX_OUT];
  bind_call c;
  int n_out = 0, n = lua_gettop(L);
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  bind_box *box = bind_box_new(L, S);
  box->made_by = op;
  int result = n + 1;
  bind_read_call(L, S, op, false, n, &c);
  if (c.numbers) settle_numbers(L, S, &c);
  BIND_RETRY(L, S, c.n_in, c.in, status, attempt(L, ctx, &c, out, &n_out));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  if (n_out == 0) return 0;
  bind_box_fill(box, out[0]);
  lua_settop(L, result);
  if (n_out > 1) push_protected(L, S, (results){op, n_out - 1, out + 1});
  return n_out;
}

int bind_op_in_place (lua_State *L) {
  bind_state *S = bind_self(L);
  const marea_op *op = lua_touserdata(L, lua_upvalueindex(2));
  bind_call c;
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  bind_read_call(L, S, op, true, lua_gettop(L), &c);
  if (c.numbers) settle_numbers(L, S, &c);
  BIND_RETRY(L, S, c.n_in, c.in, status, attempt(L, ctx, &c, NULL, NULL));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  lua_settop(L, 1);
  return 1;
}

/* ---- many calls of one operator ---- */

#define FEW_TENSORS 64 /* so many of a list lie on the stack */

/* The tensor at idx, an item for input i of a list whose first is p; NULL: absent. */
static marea_tensor *item_of (lua_State *L, bind_state *S, const bind_call *c, int i, int idx,
                              marea_tensor *p) {
  const bind_box *b = bind_to_box(L, S, idx);
  marea_tensor *t = b ? b->t : lua_isboolean(L, idx) && lua_toboolean(L, idx) && p ? marea_grad_of(p) : NULL;
  if (t || (c->inputs[i].optional && lua_isboolean(L, idx) && !lua_toboolean(L, idx))) return t;
  if (b) bind_raise_released(L, S, marea_op_name(c->op), c->inputs[i].name, b);
  bind_raise_argument(L, S, marea_op_name(c->op), c->inputs[i].name, "a tensor", idx);
  return NULL;
}

/* in[0..n-1] := the items of the list at stack index 1. Allocates nothing, so that no tensor is released meanwhile. */
static void read_items (lua_State *L, bind_state *S, const bind_call *c, int each, int n, marea_tensor **in) {
  for (int k = 0; k < n; k++) {
    const int i = k % each;
    lua_rawgeti(L, 1, k + 1);
    in[k] = item_of(L, S, c, i, lua_gettop(L), i > 0 ? in[k - i] : NULL);
    lua_pop(L, 1);
  }
}

/* The function of core.each: upvalues: state, operator; [1] the list, [2] attributes. */
static int call_each (lua_State *L) {
  bind_state *S = bind_self(L);
  const marea_op *op = lua_touserdata(L, lua_upvalueindex(2));
  const marea_input_spec *inputs;
  const int each = marea_op_inputs(op, &inputs);
  marea_tensor *few[FEW_TENSORS], **in = few;
  bind_call c;
  marea_status status;
  int done = 0, again = 0;
  marea_context *ctx = bind_enter(L, S);
  lua_settop(L, 2);
  const size_t n = lua_istable(L, 1) ? lua_rawlen(L, 1) : 1;
  if (n % (size_t)each != 0 || n > INT32_MAX)
    return bind_raise_argument(L, S, marea_op_name(op), "list", "a list with a place for each input", 1);
  if (!lua_isnoneornil(L, 2) && !lua_istable(L, 2))
    return bind_raise_argument(L, S, marea_op_name(op), "attributes", "a table", 2);
  if (n > FEW_TENSORS) in = lua_newuserdatauv(L, n * sizeof *in, 0);
  luaL_checkstack(L, 8, NULL);
  bind_read_named(L, S, op, 2, &c);
  read_items(L, S, &c, each, (int)n, in);
  status = marea_apply_each(ctx, op, each, (int)n, in, c.attr, &done);
  if (status == MAREA_ENOMEM) {
    bind_pin(L, S, (int)n, in);
    status = marea_apply_each(ctx, op, each, (int)n - done * each, in + done * each, c.attr, &again);
    bind_unpin((int)n, in);
  }
  return status == MAREA_OK ? 0 : bind_raise_status(L, S, status);
}

/* Are the items 1, 1 + n, .. of the list at stack index 1 tensors that hold a gradient? n is at index 2. With `clear`
   those gradients are dropped. */
static bool walk_gradients (lua_State *L, bind_state *S, bool clear) {
  const lua_Integer each = luaL_checkinteger(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_argcheck(L, each > 0, 2, "expected 1 or more");
  const lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
  bool all = true;
  for (lua_Integer i = 1; i <= n && all; i += each) {
    lua_rawgeti(L, 1, i);
    const bind_box *b = bind_to_box(L, S, -1);
    all = b && b->t && marea_grad_of(b->t);
    if (all && clear) marea_clear_grad(b->t);
    lua_pop(L, 1);
    if (each > n) break;
  }
  return all;
}

int bind_have_gradients (lua_State *L) {
  lua_pushboolean(L, walk_gradients(L, bind_self(L), false));
  return 1;
}

int bind_clear_gradients (lua_State *L) {
  walk_gradients(L, bind_self(L), true);
  return 0;
}

/* core.each(name) -> f(list, attributes): the operator of this name, which changes its inputs, on many lists of
   inputs at once, which lie one behind the other in `list`. In place of a tensor, false stands for an input that is
   absent, and true for the gradient of the first one. */
int bind_each (lua_State *L) {
  bind_state *S = bind_self(L);
  const marea_op *op = marea_op_find(bind_string(L, S, 1, "each", "name"));
  if (!op || !marea_op_mutates(op))
    return bind_raise_argument(L, S, "each", "name", "an operator that changes its inputs", 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushlightuserdata(L, (void *)op);
  lua_pushcclosure(L, call_each, 2);
  return 1;
}

marea_status bind_apply (marea_context *ctx, const marea_op *op, marea_tensor *in, const marea_attr *attrs,
                         marea_tensor **out) {
  int n_out;
  return marea_apply(ctx, op, 1, &in, attrs, out, &n_out);
}

/* ---- core.op_names and core.op_info ---- */

int bind_op_names (lua_State *L) {
  lua_createtable(L, marea_op_count(), 0);
  for (int i = 0; i < marea_op_count(); i++) {
    lua_pushstring(L, marea_op_name(marea_op_at(i)));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static void set_string (lua_State *L, const char *key, const char *value) {
  if (!value) return;
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

static void set_boolean (lua_State *L, const char *key, bool value) {
  lua_pushboolean(L, value);
  lua_setfield(L, -2, key);
}

static void push_inputs (lua_State *L, const marea_op *op) {
  const marea_input_spec *specs;
  int n = marea_op_inputs(op, &specs);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_createtable(L, 0, 4);
    set_string(L, "name", specs[i].name);
    set_string(L, "doc", specs[i].doc);
    set_boolean(L, "optional", specs[i].optional);
    set_boolean(L, "variadic", specs[i].variadic);
    lua_rawseti(L, -2, i + 1);
  }
}

static void push_choices (lua_State *L, const char *choices) {
  lua_newtable(L);
  for (int i = 1; choices; i++) {
    const char *end = strchr(choices, '|');
    if (end) lua_pushlstring(L, choices, (size_t)(end - choices));
    else lua_pushstring(L, choices);
    lua_rawseti(L, -2, i);
    choices = end ? end + 1 : NULL;
  }
}

/* The initial value as a script would write it; nothing where it has no single form (a list, "not given"). */
static void set_initial (lua_State *L, const marea_attr_spec *spec) {
  switch (spec->kind) {
  case MAREA_BOOL: lua_pushboolean(L, spec->initial != 0); break;
  case MAREA_REAL:
  case MAREA_NUMBER: lua_pushnumber(L, spec->initial); break;
  case MAREA_DIM:
  case MAREA_INDEX: lua_pushinteger(L, (lua_Integer)spec->initial + (spec->initial >= 0)); break;
  case MAREA_INT:
  case MAREA_PAIR:
  case MAREA_PADDING:
  case MAREA_SIDES: lua_pushinteger(L, (lua_Integer)spec->initial); break;
  case MAREA_ENUM:
    push_choices(L, spec->choices);
    lua_rawgeti(L, -1, (lua_Integer)spec->initial + 1);
    lua_remove(L, -2);
    break;
  case MAREA_DTYPE:
    if (spec->initial < 0) return;
    lua_pushstring(L, marea_dtype_name((marea_dtype)spec->initial));
    break;
  default: return;
  }
  lua_setfield(L, -2, "initial");
}

static void push_attrs (lua_State *L, const marea_op *op) {
  static const char *const kind[] = {"real", "int",   "bool", "enum",    "dtype",  "dim",  "index",
                                     "dims", "sizes", "pair", "padding", "number", "sides"};
  const marea_attr_spec *specs;
  int n = marea_op_attrs(op, &specs);
  lua_createtable(L, n, 0);
  for (int k = 0; k < n; k++) {
    lua_createtable(L, 0, 6);
    set_string(L, "name", specs[k].name);
    set_string(L, "kind", kind[specs[k].kind]);
    set_string(L, "doc", specs[k].doc);
    set_boolean(L, "required", specs[k].initial == MAREA_REQUIRED);
    if (specs[k].initial != MAREA_REQUIRED && specs[k].initial != MAREA_NONE) set_initial(L, &specs[k]);
    if (specs[k].kind == MAREA_ENUM) {
      push_choices(L, specs[k].choices);
      lua_setfield(L, -2, "choices");
    }
    lua_rawseti(L, -2, k + 1);
  }
}

/* core.op_info(name) -> table */
int bind_op_info (lua_State *L) {
  bind_state *S = bind_self(L);
  const char *name = bind_string(L, S, 1, "op_info", "name");
  const marea_op *op = marea_op_find(name);
  if (!op) {
    bind_guess guess = {.word = name};
    for (int i = 0; i < marea_op_count(); i++) bind_offer(&guess, marea_op_name(marea_op_at(i)));
    return bind_raise(L, S, "op_info: there is no operator '%s'%s", bind_shorten(L, name),
                      bind_did_you_mean(L, &guess));
  }
  lua_createtable(L, 0, 13);
  set_string(L, "name", marea_op_name(op));
  set_string(L, "family", marea_op_family(op));
  set_string(L, "doc", marea_op_doc(op));
  set_string(L, "sample", marea_op_sample(op));
  set_boolean(L, "differentiable", marea_op_differentiable(op));
  set_boolean(L, "once", marea_op_once(op));
  set_boolean(L, "elementwise", marea_op_elementwise(op));
  set_boolean(L, "mutates", marea_op_mutates(op));
  set_boolean(L, "takes_numbers", marea_op_takes_numbers(op));
  push_inputs(L, op);
  lua_setfield(L, -2, "inputs");
  push_attrs(L, op);
  lua_setfield(L, -2, "attrs");
  return 1;
}
