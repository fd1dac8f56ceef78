/* SPDX-License-Identifier: MIT
** tensor.c: fields and methods of a tensor that are not operators.
*/
#include "bind.h"

/* ---- fields ---- */

static void push_shape (lua_State *L, const bind_state *S, const marea_tensor *t) {
  int rank = marea_tensor_rank(t);
  int64_t shape[MAREA_MAX_RANK]; /* a copy: making a table may run a finalizer that releases t */
  memcpy(shape, marea_tensor_shape(t), sizeof *shape * (size_t)rank);
  lua_createtable(L, rank, 0);
  for (int d = 0; d < rank; d++) {
    lua_pushinteger(L, shape[d]);
    lua_rawseti(L, -2, d + 1);
  }
  bind_set_shape(L, S);
}

/* Pushes a box of its own for `t`, a tensor that stays alive meanwhile; nil for NULL. */
static void push_gradient (lua_State *L, bind_state *S) {
  bind_box *box = bind_box_new(L, S);
  marea_tensor *grad = marea_grad_of(bind_check(L, S, 1, "grad", "t"));
  if (grad) bind_box_fill(box, marea_retain(grad));
  else lua_pushnil(L);
}

static const char *const fields[] = {"shape", "dtype", "rank", "grad", "requires_grad", "is_leaf", NULL};

static bool push_field (lua_State *L, bind_state *S, const marea_tensor *t, const char *name) {
  int f = 0;
  while (fields[f] && strcmp(fields[f], name) != 0) f++;
  switch (f) {
  case 0: push_shape(L, S, t); return true;
  case 1: lua_pushstring(L, bind_dtype_name(t)); return true;
  case 2: lua_pushinteger(L, marea_tensor_rank(t)); return true;
  case 3: push_gradient(L, S); return true;
  case 4: lua_pushboolean(L, marea_requires_grad(t)); return true;
  case 5: lua_pushboolean(L, marea_is_leaf(t)); return true;
  default: return false;
  }
}

void bind_push_fields (lua_State *L) {
  lua_newtable(L);
  for (int f = 0; fields[f]; f++) {
    lua_pushstring(L, fields[f]);
    lua_rawseti(L, -2, f + 1);
  }
}

static int no_such_field (lua_State *L, bind_state *S) {
  if (lua_type(L, 2) != LUA_TSTRING)
    return bind_raise(L, S,
                      "index: expected an integer, a list such as {2, 5}, a string such as '2:5, :', a mask "
                      "or a tensor of positions, got %s",
                      bind_describe(L, S, 2));
  bind_guess guess = {.word = lua_tostring(L, 2)};
  for (int f = 0; fields[f]; f++) bind_offer(&guess, fields[f]);
  for (lua_pushnil(L); lua_next(L, lua_upvalueindex(2)); lua_pop(L, 1))
    bind_offer(&guess, lua_tostring(L, -2));
  return bind_raise(L, S, "a tensor has no field or method '%s'%s", bind_shorten(L, guess.word),
                    bind_did_you_mean(L, &guess));
}

/* __index: methods before fields before slices */
int bind_get (lua_State *L) {
  bind_state *S = bind_self(L);
  if (lua_type(L, 2) == LUA_TSTRING) {
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL) return 1;
    lua_pop(L, 1);
  }
  marea_tensor *t = bind_check(L, S, 1, "index", "t");
  if (lua_type(L, 2) == LUA_TSTRING && push_field(L, S, t, lua_tostring(L, 2))) return 1;
  int results = bind_index(L, S, bind_to_box(L, S, 1));
  return results > 0 ? results : no_such_field(L, S);
}

/* ---- shape and values ---- */

/* t:size(dim) -> integer; t:size() -> all sizes */
static int tensor_size (lua_State *L) {
  bind_state *S = bind_self(L);
  const marea_tensor *t = bind_check(L, S, 1, "size", "t");
  int rank = marea_tensor_rank(t);
  const int64_t *shape = marea_tensor_shape(t);
  if (lua_isnoneornil(L, 2)) {
    for (int d = 0; d < rank; d++) lua_pushinteger(L, shape[d]);
    return rank;
  }
  int64_t dim = bind_integer(L, S, 2, "size", "dim");
  if (dim == 0 || dim > rank || dim < -rank)
    return bind_raise(L, S, "size: argument 'dim': expected 1 to %d, or negative from the end, got %I", rank,
                      (LUAI_UACINT)dim);
  lua_pushinteger(L, shape[dim > 0 ? dim - 1 : dim + rank]);
  return 1;
}

static int tensor_numel (lua_State *L) {
  lua_pushinteger(L, marea_tensor_size(bind_check(L, bind_self(L), 1, "numel", "t")));
  return 1;
}

/* t:item() -> the number in a tensor of one element */
static int tensor_item (lua_State *L) {
  bind_state *S = bind_self(L);
  const marea_tensor *t = bind_check(L, S, 1, "item", "t");
  if (marea_tensor_size(t) != 1)
    return bind_raise(L, S, "item: expected a tensor of one element, got %s", bind_shape(t).s);
  bind_push_element(L, S, t, 0, "item");
  return 1;
}

static int tensor_is_contiguous (lua_State *L) {
  lua_pushboolean(L, marea_tensor_contiguous(bind_check(L, bind_self(L), 1, "is_contiguous", "t")));
  return 1;
}

/* t:shares(u) -> do both look at the same memory? */
static int tensor_shares (lua_State *L) {
  bind_state *S = bind_self(L);
  const marea_tensor *t = bind_check(L, S, 1, "shares", "t");
  lua_pushboolean(L, marea_tensor_shares(t, bind_check(L, S, 2, "shares", "u")));
  return 1;
}

/* t:changes() -> how often its memory was changed in place */
static int tensor_changes (lua_State *L) {
  lua_pushinteger(L, marea_tensor_changes(bind_check(L, bind_self(L), 1, "changes", "t")));
  return 1;
}

/* t:in_graph() -> does something refer to it that was recorded? Then a change in place may break that graph. */
static int tensor_in_graph (lua_State *L) {
  lua_pushboolean(L, marea_tensor_references(bind_check(L, bind_self(L), 1, "in_graph", "t")) > 1);
  return 1;
}

/* ---- changes in place ---- */

static int self (lua_State *L) {
  lua_settop(L, 1);
  return 1;
}

/* t:requires_grad_(on = true) -> t */
static int tensor_requires_grad (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_tensor *t = bind_check(L, S, 1, "requires_grad_", "t");
  bool on = lua_isnoneornil(L, 2) || bind_boolean(L, S, 2, "requires_grad_", "on");
  marea_status status = marea_require_grad(t, on);
  return status == MAREA_OK ? self(L) : bind_raise_status(L, S, status);
}

static int tensor_clear_grad (lua_State *L) {
  marea_clear_grad(bind_check(L, bind_self(L), 1, "clear_grad", "t"));
  return self(L);
}

/* ---- new handles ---- */

/* t:detach() -> the same memory without history */
static int tensor_detach (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_tensor *out = NULL;
  marea_status status;
  bind_enter(L, S);
  bind_box *box = bind_box_new(L, S);
  marea_tensor *t = bind_check(L, S, 1, "detach", "t");
  BIND_RETRY(L, S, 1, &t, status, marea_detach(t, &out));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  bind_box_fill(box, out);
  return 1;
}

/* t:to(dtype) -> t itself if it is of this dtype */
static int tensor_to (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_dtype dtype;
  marea_tensor *out = NULL;
  marea_status status;
  bind_enter(L, S);
  bind_check(L, S, 1, "to", "t");
  const int idx = lua_gettop(L) < 2 ? 0 : 2; /* 0: left out */
  if (!bind_to_dtype(L, 2, &dtype)) return bind_raise_argument(L, S, "to", "dtype", bind_push_dtypes(L), idx);
  if (dtype == marea_tensor_dtype(bind_to_box(L, S, 1)->t)) return self(L);
  marea_attr attr = {.n = 1, .i = dtype};
  bind_box *box = bind_box_new(L, S);
  marea_tensor *t = bind_check(L, S, 1, "to", "t");
  BIND_RETRY(L, S, 1, &t, status, bind_apply(S->ctx, S->cast, t, &attr, &out));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  bind_box_fill(box, out);
  return 1;
}

/* ---- life ---- */

/* t:release(): gives the memory back now; harmless when that has happened */
static int tensor_release (lua_State *L) {
  bind_state *S = bind_self(L);
  bind_box *b = bind_to_box(L, S, 1);
  if (!b) return bind_raise_argument(L, S, "release", "t", "a tensor", lua_gettop(L) < 1 ? 0 : 1);
  bind_box_release(b, BIND_BY_CALL, bind_where(L, S));
  return 0;
}

/* t:keep() -> t, which no scope releases any more */
static int tensor_keep (lua_State *L) {
  bind_state *S = bind_self(L);
  bind_check(L, S, 1, "keep", "t");
  bind_box_leave(bind_to_box(L, S, 1));
  return self(L);
}

static int tensor_is_released (lua_State *L) {
  bind_state *S = bind_self(L);
  const bind_box *b = bind_to_box(L, S, 1);
  if (!b) return bind_raise_argument(L, S, "is_released", "t", "a tensor", lua_gettop(L) < 1 ? 0 : 1);
  lua_pushboolean(L, b->t == NULL);
  return 1;
}

const luaL_Reg bind_methods[] = {
    {"size", tensor_size},
    {"numel", tensor_numel},
    {"item", tensor_item},
    {"totable", bind_totable},
    {"to_bytes", bind_to_bytes},
    {"tostring", bind_tostring},
    {"is_contiguous", tensor_is_contiguous},
    {"shares", tensor_shares},
    {"changes", tensor_changes},
    {"in_graph", tensor_in_graph},
    {"copy_", bind_copy},
    {"fill_", bind_fill},
    {"zero_", bind_zero},
    {"requires_grad_", tensor_requires_grad},
    {"backward", bind_backward},
    {"clear_grad", tensor_clear_grad},
    {"detach", tensor_detach},
    {"to", tensor_to},
    {"release", tensor_release},
    {"keep", tensor_keep},
    {"is_released", tensor_is_released},
    {NULL, NULL},
};
