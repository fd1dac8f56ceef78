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

/* A NaN without its sign, which has no meaning and would be written as "-nan". */
static void push_number (lua_State *L, double value) {
  lua_pushnumber(L, isnan(value) ? (double)NAN : value);
}

void bind_push_number (lua_State *L, const marea_tensor *t, const void *at) {
  switch (marea_tensor_dtype(t)) {
  case MAREA_F32: push_number(L, *(const float *)at); break;
  case MAREA_F64: push_number(L, *(const double *)at); break;
  case MAREA_I64: lua_pushinteger(L, *(const int64_t *)at); break;
  default: lua_pushinteger(L, *(const uint8_t *)at); break;
  }
}

const char *bind_store_number (lua_State *L, int idx, marea_dtype dtype, void *at) {
  int64_t integer = 0;
  if (lua_type(L, idx) != LUA_TNUMBER) return "a number";
  if (dtype == MAREA_F32) *(float *)at = (float)lua_tonumber(L, idx);
  else if (dtype == MAREA_F64) *(double *)at = lua_tonumber(L, idx);
  else if (!bind_to_integer(L, idx, &integer)) return "an integer";
  else if (dtype == MAREA_I64) *(int64_t *)at = integer;
  else if (integer < 0 || integer > 255) return "an integer from 0 to 255";
  else *(uint8_t *)at = (uint8_t)integer;
  return NULL;
}
