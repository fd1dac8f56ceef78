/* SPDX-License-Identifier: MIT
** blame.c: core.blame, which finds where values that are not finite began, and the error of t:backward() for a loss
** that is not finite. core.on_not_finite(f) registers the Lua function that writes its text.
*/
#include <math.h>

#include "bind.h"

static const char words_key; /* its address is the key of that function in the registry */

static void set_place (lua_State *L, const bind_state *S, const char *key, uint32_t number) {
  bind_place place = bind_place_of(number);
  if (place.line == 0) return;
  lua_pushfstring(L, "%s:%d", S->source[place.source], place.line);
  lua_setfield(L, -2, key);
}

/* t[key] := the box at stack index `box`, filled with t; nothing for NULL. Takes over the reference. */
static void set_tensor (lua_State *L, bind_state *S, const char *key, int box, marea_tensor **t) {
  if (!*t) return;
  bind_box *b = bind_to_box(L, S, box);
  uint32_t made = marea_place_of(*t);
  bind_box_fill(b, *t);
  *t = NULL;
  lua_pushvalue(L, box);
  lua_setfield(L, -2, key);
  lua_pushfstring(L, "%s_made", key);
  const char *made_key = lua_tostring(L, -1);
  lua_insert(L, -2);
  set_place(L, S, made_key, made);
  lua_remove(L, -2);
}

static const char *input_name (const marea_op *op, int i) {
  const marea_input_spec *specs;
  marea_op_inputs(op, &specs);
  return specs[0].variadic ? specs[0].name : specs[i].name;
}

static void push_inputs (lua_State *L, bind_state *S, int boxes, marea_blame *b) {
  lua_createtable(L, b->n_in, 0);
  for (int i = 0, n = 0; i < b->n_in; i++) {
    bool unknown = b->unknown >> i & 1;
    if (!b->in[i] && !unknown) continue;
    lua_createtable(L, 0, 3);
    lua_pushstring(L, input_name(b->op, i));
    lua_setfield(L, -2, "name");
    set_tensor(L, S, "tensor", boxes + i, &b->in[i]);
    lua_rawseti(L, -2, ++n);
  }
}

/* Pushes what was found. The boxes begin at stack index `boxes`. */
static void push_blame (lua_State *L, bind_state *S, int boxes, marea_blame *b) {
  lua_createtable(L, 0, 12);
  if (b->op) {
    lua_pushstring(L, marea_op_name(b->op));
    lua_setfield(L, -2, "op");
    set_place(L, S, "place", b->place);
    push_inputs(L, S, boxes, b);
    lua_setfield(L, -2, "inputs");
  }
  if (b->given_input >= 0) {
    lua_pushstring(L, input_name(b->op, b->given_input));
    lua_setfield(L, -2, "given_name");
  }
  lua_pushboolean(L, b->own_parameter);
  lua_setfield(L, -2, "own_parameter");
  set_tensor(L, S, "result", boxes + MAREA_BLAME_INPUTS, &b->out);
  set_tensor(L, S, "given", boxes + MAREA_BLAME_INPUTS + 1, &b->given);
  set_tensor(L, S, "parameter", boxes + MAREA_BLAME_INPUTS + 2, &b->parameter);
}

typedef struct found {
  bind_state *S;
  int boxes;
  marea_blame blame;
} found;

static int push_protected (lua_State *L) {
  found *f = bind_work(bind_find_state(L));
  if (!f) return 0;
  push_blame(L, f->S, 1, &f->blame);
  return 1;
}

/* core.blame(t) -> table: {op =, place =, inputs = {{name =, tensor =}...}, result =, given =, given_name =,
   parameter =, own_parameter =}, and where the tensors were made */
int bind_blame (lua_State *L) {
  enum { BOXES = MAREA_BLAME_INPUTS + 3 };
  bind_state *S = bind_self(L);
  found f = {.S = S};
  marea_status status;
  bind_enter(L, S);
  bind_check(L, S, 1, "blame", "t");
  lua_settop(L, 1);
  luaL_checkstack(L, 2 * BOXES, NULL);
  for (int i = 0; i < BOXES; i++) bind_box_new(L, S);
  marea_tensor *t = bind_check(L, S, 1, "blame", "t");
  BIND_RETRY(L, S, 1, &t, status, marea_find_blame(t, &f.blame));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  const int ended = bind_protected(L, S, push_protected, &f, BOXES);
  marea_blame_clear(&f.blame);
  return ended == LUA_OK ? 1 : lua_error(L);
}

/* core.on_not_finite(f): f(t) returns a text about t, which is not finite. */
int bind_on_not_finite (lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &words_key);
  return 0;
}

static double number_in (const marea_tensor *t) { return bind_element_at(t, marea_tensor_data(t)).real; }

bool bind_is_finite (const marea_tensor *t) {
  return marea_is_planned(t) || marea_tensor_size(t) != 1 || isfinite(number_in(t));
}

int bind_raise_not_finite (lua_State *L, bind_state *S, int idx) {
  const char *value = isnan(number_in(bind_check(L, S, idx, "backward", "t"))) ? "nan" : "infinite";
  lua_pushvalue(L, idx);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &words_key);
  lua_insert(L, -2);
  bool known = lua_pcall(L, 1, 1, 0) == LUA_OK && lua_type(L, -1) == LUA_TSTRING;
  return bind_raise(L, S, "backward: the loss is %s, so no gradient was computed%s%s", value,
                    known ? "\n  " : "", known ? lua_tostring(L, -1) : "");
}
