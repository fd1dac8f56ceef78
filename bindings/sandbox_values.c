/* SPDX-License-Identifier: MIT
** sandbox_values.c: values from one state to the other: nil, booleans, numbers, strings, tensors, and tables of these.
** They are weighed first, in full: parts that tables share are copied each time, and a tensor that was expanded gets
** all of its elements, so that a small value may become a huge one. Copying goes on as long as there is time.
*/
#include "sandbox.h"

#define DEEPEST 16 /* tables within each other that are copied */
/* Bytes that values take in Lua 5.4 on 64-bit machines, rounded up. */
#define VALUE 16                 /* a value on the stack or in a table's array */
#define OBJECT 40                /* a string without its text */
#define TABLE 56                 /* an empty table */
#define PAIR 40                  /* an entry of a table's hash part */
#define TENSOR 400               /* a tensor without its elements */
#define PIECE ((size_t)16 << 20) /* bytes that are copied between two looks at the clock: 1 ms */

typedef struct parcel {
  marea_sandbox *sandbox;
  double bytes, tensor_bytes;
  int looked;          /* values since the last look at the clock */
  const char *problem; /* NULL: they can pass. A kind of value that cannot, or TOO_MUCH, NO_TIME */
} parcel;

static const char TOO_MUCH[] = "too much", NO_TIME[] = "no time";

/* ---- weighing ---- */

static void weigh (parcel *p, lua_State *L, int idx, int depth);

static void weigh_table (parcel *p, lua_State *L, int idx, int depth) {
  p->bytes += TABLE;
  if (depth == DEEPEST || !lua_checkstack(L, 4)) p->problem = "a table of more than 16 levels";
  else lua_pushnil(L);
  while (!p->problem && lua_next(L, idx)) {
    const int key = lua_type(L, -2);
    if (key != LUA_TSTRING && key != LUA_TNUMBER && key != LUA_TBOOLEAN) p->problem = "such a key of a table";
    p->bytes += PAIR;
    weigh(p, L, lua_gettop(L) - 1, depth + 1);
    weigh(p, L, lua_gettop(L), depth + 1);
    lua_pop(L, 1);
  }
}

static void weigh_tensor (parcel *p, const marea_tensor *t) {
  if (!t) p->problem = "a tensor that was released";
  else if (marea_is_planned(t)) p->problem = "a planned tensor";
  else
    p->tensor_bytes += TENSOR +
                       (double)marea_tensor_size(t) * (double)marea_dtype_size(marea_tensor_dtype(t));
}

static void weigh_value (parcel *p, lua_State *L, int idx, int depth) {
  const bind_box *b = bind_to_box(L, bind_find_state(L), idx);
  if (b) weigh_tensor(p, b->t);
  else switch (lua_type(L, idx)) {
    case LUA_TNIL:
    case LUA_TBOOLEAN:
    case LUA_TNUMBER: p->bytes += VALUE; break;
    case LUA_TSTRING: p->bytes += OBJECT + (double)lua_rawlen(L, idx); break;
    case LUA_TTABLE: weigh_table(p, L, idx, depth); break;
    default: p->problem = luaL_typename(L, idx);
    }
}

/* Adds the value at idx, an absolute index. Leaves something on the stack when there is a problem. */
static void weigh (parcel *p, lua_State *L, int idx, int depth) {
  weigh_value(p, L, idx, depth);
  if (p->problem) return;
  const marea_sandbox *sandbox = p->sandbox;
  if (p->bytes > (double)sandbox->memory.max_bytes || p->bytes + p->tensor_bytes > sandbox->max_result_bytes)
    p->problem = TOO_MUCH;
  if (++p->looked % 256 == 0 && bind_sandbox_look(p->sandbox)) p->problem = NO_TIME;
}

const char *bind_sandbox_weigh (marea_sandbox *sandbox, lua_State *L, int first, bool *misuse) {
  parcel p = {.sandbox = sandbox};
  const int top = lua_gettop(L);
  for (int i = first; i <= top && !p.problem; i++) weigh(&p, L, i, 0);
  *misuse = p.problem && p.problem != TOO_MUCH && p.problem != NO_TIME;
  if (!p.problem) return NULL;
  if (p.problem == NO_TIME) return lua_pushfstring(L, "sandbox: %s", sandbox->why);
  if (*misuse)
    return lua_pushfstring(
        L, "sandbox: %s cannot pass; what can: nil, booleans, numbers, strings, tensors, tables of these",
        p.problem);
  const double most = p.bytes > (double)sandbox->memory.max_bytes ? (double)sandbox->memory.max_bytes
                                                                  : sandbox->max_result_bytes;
  return lua_pushfstring(
      L, "sandbox: values of more than %I bytes cannot pass, every copy being counted in full",
      (LUAI_UACINT)most);
}

/* ---- copying ---- */

static void go_on (marea_sandbox *sandbox, lua_State *to) {
  if (!bind_sandbox_look(sandbox)) return;
  lua_pushfstring(to, "sandbox: %s", sandbox->why);
  lua_error(to);
}

static void fail (lua_State *to, const marea_context *ctx) {
  lua_pushfstring(to, "sandbox: %s", marea_error(ctx));
  lua_error(to);
}

/* *dense := t, or a copy without gaps, which may be large; owned by the caller. */
static marea_status make_dense (marea_tensor *t, marea_tensor **dense) {
  marea_context *ctx = marea_tensor_context(t);
  const bool recording = marea_set_recording(ctx, false);
  marea_status status = bind_apply(ctx, marea_op_find("contiguous"), t, NULL, dense);
  marea_set_recording(ctx, recording);
  return status;
}

/* A tensor of the other context with the same values. Nothing but its box owns it where something may raise. */
static void copy_tensor (marea_sandbox *sandbox, marea_tensor *t, lua_State *to) {
  bind_state *S = bind_find_state(to);
  marea_tensor *dense = NULL, *copy = NULL;
  if (!S) {
    lua_pushliteral(to, "sandbox: the library is not open in this Lua state, so it takes no tensors");
    lua_error(to);
  }
  bind_box *own = bind_box_new(to, S);
  marea_status status = marea_empty(S->ctx, marea_tensor_dtype(t), marea_tensor_rank(t),
                                    marea_tensor_shape(t), &copy);
  if (status != MAREA_OK) fail(to, S->ctx);
  bind_box_fill(own, copy);
  if (make_dense(t, &dense) != MAREA_OK) fail(to, marea_tensor_context(t));
  if (marea_is_planned(dense)) { /* the host plans: a view with gaps gets no copy */
    marea_release(dense);
    lua_pushliteral(to, "sandbox: a view with gaps cannot pass while a plan runs");
    lua_error(to);
  }
  const size_t bytes = (size_t)marea_tensor_size(t) * marea_dtype_size(marea_tensor_dtype(t));
  for (size_t at = 0; at < bytes && !bind_sandbox_look(sandbox); at += PIECE)
    memcpy((char *)marea_tensor_data(copy) + at, (const char *)marea_tensor_data(dense) + at,
           bytes - at < PIECE ? bytes - at : PIECE);
  marea_release(dense);
  go_on(sandbox, to);
}

static void copy_string (lua_State *from, int idx, lua_State *to) {
  size_t n;
  const char *s = lua_tolstring(from, idx, &n);
  lua_pushlstring(to, s, n);
}

static void copy_table (marea_sandbox *sandbox, lua_State *from, int idx, lua_State *to) {
  lua_newtable(to);
  luaL_checkstack(to, 4, NULL);
  for (lua_pushnil(from); lua_next(from, idx); lua_pop(from, 1)) {
    bind_sandbox_copy(sandbox, from, lua_gettop(from) - 1, to);
    bind_sandbox_copy(sandbox, from, lua_gettop(from), to);
    lua_rawset(to, -3);
  }
  if (bind_is_shape(from, idx) && bind_find_state(to)) bind_set_shape(to, bind_find_state(to));
}

void bind_sandbox_copy (marea_sandbox *sandbox, lua_State *from, int idx, lua_State *to) {
  luaL_checkstack(to, 4, NULL);
  switch (lua_type(from, idx)) {
  case LUA_TUSERDATA: copy_tensor(sandbox, bind_to_box(from, bind_find_state(from), idx)->t, to); break;
  case LUA_TBOOLEAN: lua_pushboolean(to, lua_toboolean(from, idx)); break;
  case LUA_TNUMBER:
    if (lua_isinteger(from, idx)) lua_pushinteger(to, lua_tointeger(from, idx));
    else lua_pushnumber(to, lua_tonumber(from, idx));
    break;
  case LUA_TSTRING: copy_string(from, idx, to); break;
  case LUA_TTABLE:
    go_on(sandbox, to);
    copy_table(sandbox, from, idx, to);
    break;
  default: lua_pushnil(to);
  }
}
