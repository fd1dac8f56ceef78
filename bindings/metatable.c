/* SPDX-License-Identifier: MIT
** metatable.c: the metamethods of tensors: arithmetic, #, t[i], <close>, tostring, finalization; and errors for Lua's
** operators that tensors do not have, which say what to write instead.
*/
#include "bind.h"

/* __gc. The place is left unknown: only another finalizer can still use the box, and ask where it was released. */
static int box_gc (lua_State *L) {
  bind_state *S = bind_self(L);
  bind_box *b = bind_to_box(L, S, 1);
  if (!b) return 0;
  if (*bind_known(S, b) == b) *bind_known(S, b) = NULL; /* another userdata may lie there later */
  b->finalized = true;
  S->finalizers--;
  bind_box_release(b, BIND_BY_CALL, (bind_place){0, 0});
  return 0;
}

/* __close. */
static int box_close (lua_State *L) {
  bind_state *S = bind_self(L);
  bind_box *b = bind_to_box(L, S, 1);
  if (b && b->t) bind_box_release(b, BIND_BY_CALL, bind_where(L, S));
  return 0;
}

/* Unary minus: Lua passes its operand twice. */
static int box_unm (lua_State *L) {
  lua_settop(L, 1);
  return bind_op_call(L);
}

static int box_len (lua_State *L) {
  bind_state *S = bind_self(L);
  const marea_tensor *t = bind_check(L, S, 1, "#", "t");
  if (marea_tensor_rank(t) == 0)
    return bind_raise(L, S, "#: a tensor of rank 0 has no length; t:item() is its number");
  lua_pushinteger(L, marea_tensor_shape(t)[0]);
  return 1;
}

/* Lua's operators that tensors do not have, with what there is instead. Upvalue 2: index in the list. */
static const struct {
  const char *event, *what, *instead;
} refused[] = {
    {"__lt", "< or >", "a:lt(b) and a:gt(b) compare element by element"},
    {"__le", "<= or >=", "a:le(b) and a:ge(b) compare element by element"},
    {"__concat", "..", "tostring(t) is a text, marea.concat{a, b} joins tensors"},
    {"__band", "&", "for 0 and 1, a * b is 'and'"},
    {"__bor", "|", "for 0 and 1, a:maximum(b) is 'or'"},
    {"__bxor", "~", "for 0 and 1, a:ne(b) is 'exclusive or'"},
    {"__bnot", "~", "for 0 and 1, 1 - a is 'not'"},
    {"__shl", "<<", "a * (1 << b) shifts integers by a number b"},
    {"__shr", ">>", "a // (1 << b) shifts integers by a number b below 63, signs stay"},
};

static int box_refuse (lua_State *L) {
  bind_state *S = bind_self(L);
  int i = (int)lua_tointeger(L, lua_upvalueindex(2));
  const char *a = bind_describe(L, S, 1), *b = bind_describe(L, S, 2);
  if (strcmp(refused[i].event, "__bnot") == 0)
    return bind_raise(L, S, "%s: Lua's operator does not work on %s; %s", refused[i].what, a,
                      refused[i].instead);
  return bind_raise(L, S, "%s: Lua's operator does not work on %s and %s; %s", refused[i].what, a, b,
                    refused[i].instead);
}

static int box_call (lua_State *L) {
  bind_state *S = bind_self(L);
  return bind_raise(L, S, "t(...): %s is no function; t[i] reads an element or a row",
                    bind_describe(L, S, 1));
}

static int box_pairs (lua_State *L) {
  bind_state *S = bind_self(L);
  return bind_raise(
      L, S,
      "pairs: %s is no table; for i = 1, #t do ... t[i] ... end visits its rows, t:totable() makes a table",
      bind_describe(L, S, 1));
}

static void set_operator (lua_State *L, int state, const char *event, const char *name, lua_CFunction f) {
  lua_pushvalue(L, state);
  lua_pushlightuserdata(L, (void *)marea_op_find(name));
  lua_pushcclosure(L, f, 2);
  lua_setfield(L, -2, event);
}

static const luaL_Reg metamethods[] = {
    {"__gc", box_gc},
    {"__close", box_close},
    {"__len", box_len},
    {"__call", box_call},
    {"__pairs", box_pairs},
    {"__tostring", bind_tostring},
    {"__newindex", bind_newindex},
    {NULL, NULL},
};

/* On the stack: ..., state, methods. */
void bind_box_open (lua_State *L) {
  static const char *const arithmetic[][2] = {
      {"__add", "add"}, {"__sub", "sub"},       {"__mul", "mul"},          {"__div", "div"},
      {"__pow", "pow"}, {"__mod", "remainder"}, {"__idiv", "floor_divide"}};
  int methods = lua_gettop(L), state = methods - 1;
  bind_push_metatable(L, lua_touserdata(L, state), BIND_BOX, "marea.Tensor");
  lua_pushvalue(L, state);
  luaL_setfuncs(L, metamethods, 1);
  lua_pushvalue(L, state);
  lua_pushvalue(L, methods);
  lua_pushcclosure(L, bind_get, 2);
  lua_setfield(L, -2, "__index");
  for (size_t i = 0; i < sizeof arithmetic / sizeof arithmetic[0]; i++)
    set_operator(L, state, arithmetic[i][0], arithmetic[i][1], bind_op_call);
  set_operator(L, state, "__unm", "neg", box_unm);
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
    lua_pushvalue(L, state);
    lua_pushinteger(L, (lua_Integer)i);
    lua_pushcclosure(L, box_refuse, 2);
    lua_setfield(L, -2, refused[i].event);
  }
  lua_pop(L, 1);
}
