/* SPDX-License-Identifier: MIT
** text.c: numbers as text, with a point whatever locale the host has set, and texts from elsewhere made fit for a
** terminal. Lua's conversions ask the locale each time, so the thread has the locale "C" for the time of a call.
** Nothing raises meanwhile: an error would leave the thread with it.
*/
#define _GNU_SOURCE
#include <lualib.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "bind.h"
#include "c_locale.h"

int bind_format (char *to, size_t room, const char *format, ...) {
  va_list args;
  const locale_t host = marea_use_c_locale();
  va_start(args, format);
  const int n = vsnprintf(to, room, format, args);
  va_end(args);
  uselocale(host);
  return n;
}

bind_text bind_number_text (lua_Number x) {
  bind_text text;
  const int n = bind_format(text.s, sizeof text.s, LUA_NUMBER_FMT, isnan(x) ? (double)NAN : x);
  const bool whole = strspn(text.s, "-0123456789") == (size_t)n;
  if (whole) memcpy(text.s + n, ".0", 3);
  return text;
}

/* core.format(format, ...): string.format, upvalue 2, with a point in numbers */
static int text_format (lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  const locale_t host = marea_use_c_locale();
  const int status = lua_pcall(L, lua_gettop(L) - 1, 1, 0);
  uselocale(host);
  return status == LUA_OK ? 1 : lua_error(L);
}

void bind_printable (lua_State *L) {
  luaL_Buffer b;
  size_t n;
  const char *whole = lua_tolstring(L, -1, &n);
  char *text = luaL_buffinitsize(L, &b, n + 1), *line = text, *to = text;
  memcpy(text, whole, n + 1);
  for (bool more = true; more;) {
    char *end = line + strcspn(line, "\n\t"), mark = *end;
    *end = '\0';
    const size_t length = strlen(marea_printable(line));
    memmove(to, line, length);
    to += length;
    more = end < text + n;
    if (more) *to++ = mark ? mark : '?';
    line = end + 1;
  }
  luaL_pushresultsize(&b, (size_t)(to - text));
  lua_remove(L, -2);
}

/* core.printable(text): the text with each character that controls a terminal or the direction of text replaced by
   '?' */
static int text_printable (lua_State *L) {
  luaL_checkstring(L, 1);
  lua_settop(L, 1);
  bind_printable(L);
  return 1;
}

/* core.before(a, b): the order of keys and names, numbers first, then strings by their bytes: Lua's own `<` asks the
   locale, in some of which "a" comes before "B" */
static int text_before (lua_State *L) {
  const bool number = lua_type(L, 1) == LUA_TNUMBER, other = lua_type(L, 2) == LUA_TNUMBER;
  size_t n, m;
  if (number && other) lua_pushboolean(L, lua_compare(L, 1, 2, LUA_OPLT));
  else if (number || other) lua_pushboolean(L, number);
  else {
    const char *a = luaL_checklstring(L, 1, &n), *b = luaL_checklstring(L, 2, &m);
    const int order = memcmp(a, b, n < m ? n : m);
    lua_pushboolean(L, order ? order < 0 : n < m);
  }
  return 1;
}

/* The state is on top of the stack, and stays there; adds functions to the module at index `module`. */
void bind_text_open (lua_State *L, int module) {
  lua_pushvalue(L, -1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, LUA_STRLIBNAME) == LUA_TTABLE) lua_getfield(L, -1, "format");
  else lua_pushnil(L);
  lua_replace(L, -3);
  lua_pop(L, 1);
  lua_pushcclosure(L, text_format, 2);
  lua_setfield(L, module, "format");
  lua_pushcfunction(L, text_printable);
  lua_setfield(L, module, "printable");
  lua_pushcfunction(L, text_before);
  lua_setfield(L, module, "before");
}
