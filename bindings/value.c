/* SPDX-License-Identifier: MIT
** value.c: numbers, nested tables and bytes to tensors and back. Tables are read raw; their shape comes from the
** first items, and every other item is held against it, with its path in the message.
*/
#include <math.h>

#include "bind.h"

const char *bind_elements (lua_State *L, bind_state *S, const marea_tensor *t, const char *function) {
  if (marea_is_planned(t))
    bind_raise(L, S, "%s: tensor %s is from a plan: it has a shape and no values", function, bind_shape(t).s);
  return marea_tensor_data(t);
}

void bind_push_element (lua_State *L, bind_state *S, const marea_tensor *t, int64_t offset,
                        const char *function) {
  if (marea_is_planned(t) && marea_planning(S->ctx)) lua_pushnumber(L, (lua_Number)NAN);
  else
    bind_push_number(
        L, t, bind_elements(L, S, t, function) + offset * (int64_t)marea_dtype_size(marea_tensor_dtype(t)));
}

/* ---- nested tables to a tensor ---- */

typedef struct reader {
  bind_state *S;
  marea_dtype dtype;
  int rank;
  int64_t shape[MAREA_MAX_RANK], at[MAREA_MAX_RANK]; /* at: position of the current item, 0-based */
  char *next;                                        /* where the next number goes */
  int64_t items;                                     /* read so far */
} reader;

/* Pushes "[2][3]": the path to the current item at `depth`. */
static const char *item_path (lua_State *L, const reader *r, int depth) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int d = 0; d < depth; d++) {
    lua_pushfstring(L, "[%I]", (LUAI_UACINT)(r->at[d] + 1));
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  return lua_tostring(L, -1);
}

static bool is_tensor (lua_State *L, bind_state *S, int idx) { return bind_to_box(L, S, idx) != NULL; }

/* shape := lengths of the table on top, of its first item, of that one's first item... */
static void measure (lua_State *L, reader *r) {
  int top = lua_gettop(L);
  luaL_checkstack(L, MAREA_MAX_RANK + 8, NULL);
  while (lua_type(L, -1) == LUA_TTABLE) {
    if (r->rank == MAREA_MAX_RANK)
      bind_raise(L, r->S, "tensor: the table is nested deeper than the %d dimensions of a tensor",
                 MAREA_MAX_RANK);
    r->shape[r->rank++] = (int64_t)bind_length(L, -1);
    lua_rawgeti(L, -1, 1);
    if (lua_isnil(L, -1)) break;
  }
  lua_settop(L, top);
}

static void wrong_item (lua_State *L, const reader *r, int depth, const char *expected) {
  const char *hint = is_tensor(L, r->S, -1) ? " (stack makes one tensor of a list of tensors)" : "";
  const char *got = bind_describe(L, r->S, -1);
  bind_raise(L, r->S, "tensor: item %s: expected %s, got %s%s", item_path(L, r, depth), expected, got, hint);
}

/* Reads the table on top, whose items are numbers. */
static void read_row (lua_State *L, reader *r, int depth) {
  size_t size = marea_dtype_size(r->dtype);
  for (int64_t i = 0; i < r->shape[depth]; i++, r->next += size) {
    if (++r->items % BIND_UNASKED == 0) bind_poll(L, r->S);
    lua_rawgeti(L, -1, i + 1);
    const char *expected = bind_store_number(L, -1, r->dtype, r->next);
    r->at[depth] = i;
    if (expected) wrong_item(L, r, depth + 1, expected);
    lua_pop(L, 1);
  }
}

/* Reads the table on top; at most MAREA_MAX_RANK deep. */
static void read_table (lua_State *L, reader *r, int depth) {
  if (lua_type(L, -1) != LUA_TTABLE) wrong_item(L, r, depth, "a table");
  int64_t length = (int64_t)bind_length(L, -1);
  if (length != r->shape[depth])
    bind_raise(L, r->S, "tensor: item %s: expected a list of %I as the first one, got a list of %I",
               item_path(L, r, depth), (LUAI_UACINT)r->shape[depth], (LUAI_UACINT)length);
  if (depth == r->rank - 1) {
    read_row(L, r, depth);
    return;
  }
  for (int64_t i = 0; i < length; i++) {
    r->at[depth] = i;
    lua_rawgeti(L, -1, i + 1);
    read_table(L, r, depth + 1);
    lua_pop(L, 1);
  }
}

typedef struct options {
  marea_dtype dtype;
  bool given, requires_grad;
} options;

static bool read_option (lua_State *L, bind_state *S, const char *key, int value, void *ud) {
  options *o = ud;
  if (strcmp(key, "dtype") == 0) {
    if (!bind_to_dtype(L, value, &o->dtype))
      bind_raise_argument(L, S, "tensor", "dtype", bind_push_dtypes(L), value);
    o->given = true;
  } else if (strcmp(key, "requires_grad") == 0) {
    o->requires_grad = bind_boolean(L, S, value, "tensor", key);
  } else return false;
  return true;
}

static const char *const option_names[] = {"dtype", "requires_grad", NULL};

/* A copy outside of any graph, in the dtype of the options if one is given. */
static marea_status copy_of (bind_state *S, marea_context *ctx, marea_tensor *t, const options *o,
                             marea_tensor **out) {
  marea_attr dtype = {.n = 1, .i = o->dtype};
  bool cast = o->given && o->dtype != marea_tensor_dtype(t), before = marea_set_recording(ctx, false);
  marea_status status = bind_apply(ctx, cast ? S->cast : S->clone, t, cast ? &dtype : NULL, out);
  marea_set_recording(ctx, before);
  return status;
}

/* core.tensor(value, {dtype =, requires_grad =}) */
int bind_tensor_new (lua_State *L) {
  bind_state *S = bind_self(L);
  options o = {.dtype = MAREA_F32};
  marea_status status;
  marea_tensor *t = NULL, *from = NULL;
  marea_context *ctx = bind_enter(L, S);
  lua_settop(L, 2);
  if (!lua_isnil(L, 2)) {
    if (lua_type(L, 2) != LUA_TTABLE) return bind_raise_argument(L, S, "tensor", "options", "a table", 2);
    bind_read_options(L, S, 2, "tensor", option_names, read_option, &o);
  }
  reader r = {.S = S, .dtype = o.dtype};
  bind_box *box = bind_box_new(L, S);
  lua_pushvalue(L, 1);
  if (is_tensor(L, S, 1)) {
    from = bind_check(L, S, 1, "tensor", "value");
    BIND_RETRY(L, S, 1, &from, status, copy_of(S, ctx, from, &o, &t));
  } else {
    if (lua_type(L, 1) != LUA_TNUMBER && lua_type(L, 1) != LUA_TTABLE)
      return bind_raise_argument(L, S, "tensor", "value", "a number or nested tables of numbers", 1);
    measure(L, &r);
    BIND_RETRY(L, S, 0, NULL, status, marea_empty(ctx, r.dtype, r.rank, r.shape, &t));
  }
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  bind_box_fill(box, t);
  r.next = marea_tensor_data(t);
  if (!from && r.rank > 0) read_table(L, &r, 0);
  const char *expected = from || r.rank > 0 ? NULL : bind_store_number(L, 1, r.dtype, r.next);
  if (expected) return bind_raise_argument(L, S, "tensor", "value", expected, 1);
  if (o.requires_grad) status = marea_require_grad(t, true);
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  lua_settop(L, 3);
  return 1;
}

/* ---- a tensor to nested tables ---- */

static void push_table (lua_State *L, bind_state *S, const marea_tensor *t, int depth, const char *at) {
  if (depth == marea_tensor_rank(t)) {
    bind_push_number(L, t, at);
    return;
  }
  int64_t size = marea_tensor_shape(t)[depth];
  ptrdiff_t bytes = (ptrdiff_t)marea_dtype_size(marea_tensor_dtype(t));
  ptrdiff_t step = (ptrdiff_t)marea_tensor_strides(t)[depth] * bytes;
  lua_createtable(L, size > INT32_MAX ? INT32_MAX : (int)size, 0);
  for (int64_t i = 0; i < size; i++) {
    if ((i + 1) % BIND_UNASKED == 0) bind_poll(L, S);
    push_table(L, S, t, depth + 1, at + i * step);
    lua_rawseti(L, -2, i + 1);
  }
}

/* t:totable(): nested tables of numbers; a number for rank 0 */
int bind_totable (lua_State *L) {
  bind_state *S = bind_self(L);
  bind_enter(L, S);
  bind_box *own = bind_box_new(L, S); /* making tables collects garbage, and a finalizer may release t */
  marea_tensor *t = bind_check(L, S, 1, "totable", "t");
  if (marea_tensor_rank(t) == 0) {
    bind_push_element(L, S, t, 0, "totable");
    return 1;
  }
  const char *elements = bind_elements(L, S, t, "totable");
  luaL_checkstack(L, MAREA_MAX_RANK + 4, NULL);
  bind_box_fill(own, marea_retain(t));
  push_table(L, S, t, 0, elements);
  bind_box_release(own, BIND_BY_CALL, (bind_place){0, 0});
  return 1;
}

/* ---- bytes ---- */

/* core.bytes(text) -> u8 (n) */
int bind_bytes_new (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  marea_tensor *t = NULL;
  size_t n;
  marea_context *ctx = bind_enter(L, S);
  if (lua_type(L, 1) != LUA_TSTRING)
    return bind_raise_argument(L, S, "bytes", "text", "a string", lua_gettop(L) < 1 ? 0 : 1);
  const char *text = lua_tolstring(L, 1, &n);
  const int64_t shape[] = {(int64_t)n};
  bind_box *box = bind_box_new(L, S);
  BIND_RETRY(L, S, 0, NULL, status, marea_empty(ctx, MAREA_U8, 1, shape, &t));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  bind_box_fill(box, t);
  if (n > 0) memcpy(marea_tensor_data(t), text, n);
  return 1;
}

/* t:to_bytes() -> a string of the elements, which are u8, in row-major order */
int bind_to_bytes (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status = MAREA_OK;
  marea_tensor *copy = NULL;
  bind_enter(L, S);
  bind_box *own = bind_box_new(L, S); /* making a string collects garbage, and a finalizer may release t */
  marea_tensor *t = bind_check(L, S, 1, "to_bytes", "t");
  if (marea_tensor_dtype(t) != MAREA_U8)
    return bind_raise(L, S, "to_bytes: expected a tensor of u8, got %s", bind_shape(t).s);
  bind_elements(L, S, t, "to_bytes");
  const options as_is = {.given = false};
  if (marea_tensor_contiguous(t)) copy = marea_retain(t);
  else BIND_RETRY(L, S, 1, &t, status, copy_of(S, S->ctx, t, &as_is, &copy));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  bind_box_fill(own, copy);
  lua_pushlstring(L, marea_tensor_data(copy), (size_t)marea_tensor_size(copy));
  bind_box_release(own, BIND_BY_CALL, (bind_place){0, 0});
  return 1;
}
