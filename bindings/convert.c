/* SPDX-License-Identifier: MIT
** convert.c: single values of Lua to values of C and back. Nothing here raises: whoever asks says what was wrong.
*/
#include <math.h>

#include "bind.h"

bool bind_to_integer (lua_State *L, int idx, int64_t *value) {
  int ok = 0;
  if (lua_type(L, idx) == LUA_TNUMBER) *value = lua_tointegerx(L, idx, &ok);
  return ok;
}

bool bind_to_dtype (lua_State *L, int idx, marea_dtype *dtype) {
  if (lua_type(L, idx) != LUA_TSTRING) return false;
  const char *name = lua_tostring(L, idx);
  for (int d = 0; d < MAREA_DTYPE_COUNT; d++) {
    if (strcmp(name, marea_dtype_name((marea_dtype)d)) != 0) continue;
    *dtype = (marea_dtype)d;
    return true;
  }
  return false;
}

const char *bind_push_dtypes (lua_State *L) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int d = 0; d < MAREA_DTYPE_COUNT; d++) {
    luaL_addstring(&b, d == 0 ? "one of '" : "', '");
    luaL_addstring(&b, marea_dtype_name((marea_dtype)d));
  }
  luaL_addstring(&b, "'");
  luaL_pushresult(&b);
  return lua_tostring(L, -1);
}

size_t bind_length (lua_State *L, int idx) {
  size_t n = lua_rawlen(L, idx); /* item n + 1 is nil: is there one behind it? */
  bool more = false;
  idx = lua_absindex(L, idx);
  if (n > 0) lua_pushinteger(L, (lua_Integer)n);
  else lua_pushnil(L);
  while (!more && lua_next(L, idx)) {
    lua_pop(L, 1);
    more = lua_isinteger(L, -1) && lua_tointeger(L, -1) > (lua_Integer)n;
  }
  if (more) lua_pop(L, 1);
  return n + more;
}

const char *bind_dtype_name (const marea_tensor *t) { return marea_dtype_name(marea_tensor_dtype(t)); }

/* ---- elements: the only place of the bindings that knows how dtypes lie in memory ---- */

bind_element bind_element_at (const marea_tensor *t, const void *at) {
  switch (marea_tensor_dtype(t)) {
  case MAREA_F32: return (bind_element){.digits = 7, .real = *(const float *)at};
  case MAREA_F64: return (bind_element){.digits = 14, .real = *(const double *)at};
  case MAREA_I64:
    return (bind_element){.integer = *(const int64_t *)at, .real = (double)*(const int64_t *)at};
  case MAREA_U8: return (bind_element){.integer = *(const uint8_t *)at, .real = *(const uint8_t *)at};
  case MAREA_BF16: return (bind_element){.digits = 3, .real = marea_number_at(MAREA_BF16, at)};
  case MAREA_F16: return (bind_element){.digits = 4, .real = marea_number_at(MAREA_F16, at)};
  }
  return (bind_element){.real = NAN};
}

/* A NaN without its sign, which has no meaning and would be written as "-nan". */
static void push_number (lua_State *L, double value) {
  lua_pushnumber(L, isnan(value) ? (double)NAN : value);
}

void bind_push_number (lua_State *L, const marea_tensor *t, const void *at) {
  switch (marea_tensor_dtype(t)) {
  case MAREA_F32: push_number(L, *(const float *)at); break;
  case MAREA_F64: push_number(L, *(const double *)at); break;
  case MAREA_I64: lua_pushinteger(L, *(const int64_t *)at); break;
  case MAREA_U8: lua_pushinteger(L, *(const uint8_t *)at); break;
  case MAREA_BF16:
  case MAREA_F16: push_number(L, marea_number_at(marea_tensor_dtype(t), at)); break;
  }
}

bool bind_holds (marea_dtype dtype, int64_t integer) {
  switch (dtype) {
  case MAREA_U8: return integer >= 0 && integer <= 255;
  case MAREA_F32: /* rounded */
  case MAREA_F64:
  case MAREA_I64:
  case MAREA_BF16:
  case MAREA_F16: return true;
  }
  return false;
}

const char *bind_store_number (lua_State *L, int idx, marea_dtype dtype, void *at) {
  int64_t integer = 0;
  if (lua_type(L, idx) != LUA_TNUMBER) return "a number";
  switch (dtype) {
  case MAREA_F32: *(float *)at = (float)lua_tonumber(L, idx); return NULL;
  case MAREA_F64: *(double *)at = lua_tonumber(L, idx); return NULL;
  case MAREA_I64:
    if (!bind_to_integer(L, idx, &integer)) return "an integer";
    *(int64_t *)at = integer;
    return NULL;
  case MAREA_U8:
    if (!bind_to_integer(L, idx, &integer)) return "an integer";
    if (!bind_holds(dtype, integer)) return "an integer from 0 to 255";
    *(uint8_t *)at = (uint8_t)integer;
    return NULL;
  case MAREA_BF16:
  case MAREA_F16: marea_put_number(dtype, at, lua_tonumber(L, idx)); return NULL;
  }
  return "a dtype";
}
