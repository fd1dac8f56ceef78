/* SPDX-License-Identifier: MIT
** json.c: core.json, JSON as Lua's values. The parsed text is owned by a userdata, so that an error leaks nothing.
*/
#include "bind.h"

static int json_gc (lua_State *L) {
  marea_json **j = bind_to(L, bind_self(L), 1, BIND_JSON);
  if (!j) return 0;
  marea_json_free(*j);
  *j = NULL;
  return 0;
}

/* Pushes a value that is no list and no object. */
static void push_scalar (lua_State *L, const marea_json_value *v) {
  switch (v->kind) {
  case MAREA_JSON_TRUE: lua_pushboolean(L, true); return;
  case MAREA_JSON_INTEGER: lua_pushinteger(L, v->integer); return;
  case MAREA_JSON_NUMBER: lua_pushnumber(L, v->number); return;
  case MAREA_JSON_STRING: lua_pushlstring(L, v->text, v->count); return;
  case MAREA_JSON_FALSE:
  case MAREA_JSON_NULL:
  case MAREA_JSON_END:
  case MAREA_JSON_LIST:
  case MAREA_JSON_OBJECT: lua_pushboolean(L, false); return;
  }
}

static void push_name (lua_State *L, const marea_json_value *v) {
  if (v->name) lua_pushstring(L, v->name);
  else lua_pushnil(L);
}

/* Takes the value on top of the stack, and its name or nil below it, into the object or list below those. */
static void put_value (lua_State *L) {
  if (!lua_isnil(L, -2)) {
    lua_rawset(L, -3);
    return;
  }
  lua_rawseti(L, -3, (lua_Integer)lua_rawlen(L, -3) + 1);
  lua_pop(L, 1);
}

static void push_table (lua_State *L, const marea_json_value *v) {
  const int room = (int)(v->count < 1 << 20 ? v->count : 1 << 20);
  if (v->kind == MAREA_JSON_LIST) lua_createtable(L, room, 0);
  else lua_createtable(L, 0, room);
}

/* Pushes nil and the value of the whole text. Lists and objects that are open lie on the stack, each above its name. */
static void push_values (lua_State *L, bind_state *S, marea_json *j) {
  marea_json_value v;
  int depth = 0;
  do {
    bind_poll(L, S);
    luaL_checkstack(L, 6, "json");
    marea_json_next(j, &v);
    if (v.kind == MAREA_JSON_NULL && v.name) continue;
    if (v.kind != MAREA_JSON_END) push_name(L, &v);
    if (v.kind == MAREA_JSON_LIST || v.kind == MAREA_JSON_OBJECT) {
      push_table(L, &v);
      depth++;
      continue;
    }
    if (v.kind == MAREA_JSON_END) depth--;
    else push_scalar(L, &v);
    if (depth) put_value(L);
  } while (depth);
}

/* core.json(text) -> value | nil, message. Objects are tables by name, without those that are null; lists are lists, in
   which null is false. */
static int io_json (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  size_t n;
  marea_context *ctx = bind_enter(L, S);
  lua_settop(L, 1);
  const char *text = bind_bytes(L, S, 1, "json", "text", &n);
  marea_json **j = bind_new(L, S, BIND_JSON, sizeof *j, 0);
  lua_toclose(L, -1);
  BIND_RETRY(L, S, 0, NULL, status, marea_json_read(ctx, text, n, j));
  if (status != MAREA_OK) return bind_file_failed(L, S, status);
  push_values(L, S, *j);
  return 1;
}

/* The state is on top of the stack, and stays there; adds the function to the module at index `module`. */
void bind_json_open (lua_State *L, int module) {
  static const luaL_Reg metamethods[] = {{"__gc", json_gc}, {"__close", json_gc}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"json", io_json}, {NULL, NULL}};
  bind_add_kind(L, module, BIND_JSON, "marea.JSON", metamethods, functions);
}
