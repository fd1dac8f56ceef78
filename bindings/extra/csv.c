/* SPDX-License-Identifier: MIT
** csv.c: the optional module marea.csv: the columns of CSV files, through libcsv (RFC 4180, and other separators).
**
**   local p = csv.parser(separator, has_header, missing, texts)
**   p:feed(bytes) -> true | nil, message                  any number of times
**   p:finish() -> names, kinds, columns | nil, message
**
** missing: a list of what stands for no value; a field of nothing, without quotes, does so anyway. A column of numbers
** has the kind "I64" if all are whole and none is missing, else "F64", and is a string of 8 bytes each. Any other column
** has the kind "text" and the place and value that is no number, a message. With texts, a list of truth values, columns
** are lists of strings where it says so, in which false is missing, and nothing else: a file that has any is read twice.
*/
#define _GNU_SOURCE
#include <csv.h>
#include <errno.h>
#include <lauxlib.h>
#include <locale.h>
#include <lua.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_COLUMNS 65536
#define MAX_MISSING 32
#define MAX_MESSAGE 200
#define FIRST_ROOM 64 /* values */

typedef enum kind { WHOLE, REAL, TEXT } kind;

typedef union value {
  double real;
  int64_t whole;
} value;

typedef struct column {
  value *values;
  size_t room;
  kind kind;
  char why[80]; /* of a text: where the first one is */
} column;

typedef struct parser {
  struct csv_parser csv;
  lua_State *L; /* while a method runs */
  locale_t c;
  column *columns;
  size_t n, room;        /* columns */
  size_t at, rows, line; /* fields of this row so far; rows of values; lines before this one */
  size_t row_line;       /* where this row begins */
  size_t n_missing;
  const char *missing[MAX_MISSING]; /* strings of the list MISSING */
  size_t missing_length[MAX_MISSING];
  bool has_header, in_header, wants_texts, has_begun, is_open;
  char message[MAX_MESSAGE];
} parser;

#define PARSER "marea.csv"

enum { MISSING = 1, NAMES, TEXTS, USER_VALUES = TEXTS }; /* lists that the userdata keeps */

static void fail (parser *p, const char *text) {
  if (!p->message[0]) snprintf(p->message, sizeof p->message, "line %zu: %s", p->row_line, text);
}

/* ---- values ---- */

static bool is_missing (const parser *p, const char *s, size_t n) {
  for (size_t i = 0; i < p->n_missing; i++)
    if (n == p->missing_length[i] && memcmp(s, p->missing[i], n) == 0) return true;
  return false;
}

/* Nothing but spaces up to the end. */
static bool is_end (const char *s, const char *end) {
  while (s < end && *s == ' ') s++;
  return s == end;
}

/* s is terminated. A hexadecimal number is none here. */
static bool read_number (const parser *p, const char *s, size_t n, kind *k, value *v) {
  char *end;
  errno = 0;
  v->whole = strtoll(s, &end, 10);
  *k = WHOLE;
  if (end != s && errno == 0 && is_end(end, s + n)) return true;
  if (memchr(s, 'x', n) || memchr(s, 'X', n) || memchr(s, '(', n)) return false;
  v->real = strtod_l(s, &end, p->c);
  *k = REAL;
  return end != s && is_end(end, s + n);
}

static bool grow (column *c, size_t rows) {
  if (rows < c->room) return true;
  const size_t room = c->room ? 2 * c->room : FIRST_ROOM;
  value *values = realloc(c->values, room * sizeof *values);
  if (!values) return false;
  c->values = values;
  c->room = room;
  return true;
}

static void become_text (parser *p, column *c, const char *s, size_t n) {
  const int shown = n > 30 ? 30 : (int)n;
  snprintf(c->why, sizeof c->why, "line %zu: '%.*s' is no number", p->row_line, shown, s);
  free(c->values);
  c->values = NULL;
  c->room = 0;
  c->kind = TEXT;
}

static void become_real (column *c, size_t rows) {
  for (size_t i = 0; i < rows; i++) c->values[i].real = (double)c->values[i].whole;
  c->kind = REAL;
}

static void add_value (parser *p, column *c, const char *s, size_t n) {
  value v = {.real = (double)NAN};
  kind k = REAL;
  if (c->kind == TEXT) return;
  if (s && !is_missing(p, s, n) && !read_number(p, s, n, &k, &v)) {
    become_text(p, c, s, n);
    return;
  }
  if (!grow(c, p->rows)) {
    fail(p, "out of memory");
    return;
  }
  if (c->kind == WHOLE && k == REAL) become_real(c, p->rows);
  if (c->kind == REAL && k == WHOLE) v.real = (double)v.whole;
  c->values[p->rows] = v;
}

/* ---- fields and rows ---- */

static bool add_column (parser *p) {
  if (p->n == MAX_COLUMNS) return fail(p, "more than 65536 columns"), false;
  if (p->n == p->room) {
    const size_t room = p->room ? 2 * p->room : 16;
    column *columns = realloc(p->columns, room * sizeof *columns);
    if (!columns) return fail(p, "out of memory"), false;
    p->columns = columns;
    p->room = room;
  }
  p->columns[p->n++] = (column){.kind = WHOLE};
  return true;
}

/* Appends the field, or false, to a list of the userdata, which is at index 1; list 0: NAMES, else that column's texts. */
static void keep_text (parser *p, size_t list, const char *s, size_t n, size_t at) {
  lua_State *L = p->L;
  lua_getiuservalue(L, 1, list ? TEXTS : NAMES);
  if (list && lua_rawgeti(L, -1, (lua_Integer)list) != LUA_TTABLE) {
    lua_pop(L, 2);
    return;
  }
  if (s) lua_pushlstring(L, s, n);
  else lua_pushboolean(L, false);
  lua_rawseti(L, -2, (lua_Integer)at);
  lua_pop(L, list ? 2 : 1);
}

static void on_field (void *bytes, size_t n, void *ud) {
  parser *p = ud;
  const char *s = bytes;
  if (p->message[0]) return;
  if (p->at++ == 0) p->row_line = p->line + 1;
  if (p->in_header) {
    if (add_column(p)) keep_text(p, 0, s ? s : "", s ? n : 0, p->n);
    return;
  }
  if (p->at > p->n && (p->rows > 0 || p->has_header)) return; /* the row's end tells */
  if (p->at > p->n && !add_column(p)) return;
  if (p->wants_texts) keep_text(p, p->at, s && !is_missing(p, s, n) ? s : NULL, n, p->rows + 1);
  else add_value(p, &p->columns[p->at - 1], s, n);
}

static void on_row (int end, void *ud) {
  parser *p = ud;
  char text[80];
  (void)end;
  if (p->message[0]) return;
  if (p->at != p->n) {
    snprintf(text, sizeof text, "a row of %zu fields; there are %zu columns", p->at, p->n);
    fail(p, text);
  }
  if (p->in_header) p->in_header = false;
  else p->rows++;
  p->at = 0;
}

static int is_never (unsigned char c) { return (void)c, 0; }

/* ---- methods ---- */

static int failed (lua_State *L, const char *message) {
  lua_pushnil(L);
  lua_pushstring(L, message);
  return 2;
}

static int parser_feed (lua_State *L) {
  parser *p = luaL_checkudata(L, 1, PARSER);
  size_t n;
  const char *s = luaL_checklstring(L, 2, &n), *end = s + n;
  luaL_argcheck(L, p->is_open, 1, "is finished");
  p->L = L;
  if (!p->has_begun && n >= 3 && memcmp(s, "\xef\xbb\xbf", 3) == 0) s += 3; /* UTF-8's mark */
  p->has_begun = p->has_begun || n > 0;
  while (s < end && !p->message[0]) {
    const char *newline = memchr(s, '\n', (size_t)(end - s));
    const size_t length = (size_t)((newline ? newline + 1 : end) - s);
    if (csv_parse(&p->csv, s, length, on_field, on_row, p) != length) {
      p->row_line = p->line + 1;
      fail(p, csv_error(&p->csv) == CSV_EPARSE ? "a quote in the middle of a field" : "out of memory");
    }
    p->line += newline != NULL;
    s += length;
  }
  if (p->message[0]) return failed(L, p->message);
  lua_pushboolean(L, true);
  return 1;
}

static void push_column (lua_State *L, const parser *p, size_t i, int kinds, int columns) {
  const column *c = &p->columns[i];
  static const char *const names[] = {"I64", "F64", "text"};
  lua_pushstring(L, names[c->kind]);
  lua_rawseti(L, kinds, (lua_Integer)i + 1);
  if (c->kind == TEXT) lua_pushstring(L, c->why);
  else lua_pushlstring(L, (const char *)c->values, p->rows * sizeof *c->values);
  lua_rawseti(L, columns, (lua_Integer)i + 1);
}

static int parser_finish (lua_State *L) {
  parser *p = luaL_checkudata(L, 1, PARSER);
  luaL_argcheck(L, p->is_open, 1, "is finished");
  p->L = L;
  p->is_open = false;
  lua_settop(L, 1);
  if (!p->message[0] && csv_fini(&p->csv, on_field, on_row, p) != 0) fail(p, "a quote is not closed");
  if (!p->message[0] && p->n == 0) return failed(L, "it is empty");
  if (p->message[0]) return failed(L, p->message);
  lua_getiuservalue(L, 1, NAMES);
  lua_createtable(L, (int)p->n, 0);
  if (p->wants_texts) return lua_getiuservalue(L, 1, TEXTS), 3;
  lua_createtable(L, (int)p->n, 0);
  for (size_t i = 0; i < p->n; i++) push_column(L, p, i, 3, 4);
  return 3;
}

static int parser_gc (lua_State *L) {
  parser *p = luaL_checkudata(L, 1, PARSER);
  for (size_t i = 0; i < p->n; i++) free(p->columns[i].values);
  free(p->columns);
  p->columns = NULL;
  p->n = p->room = 0;
  csv_free(&p->csv);
  if (p->c) freelocale(p->c);
  p->c = (locale_t)0;
  p->is_open = false;
  return 0;
}

/* The list at index 3: what stands for no value. */
static void read_missing (lua_State *L, parser *p) {
  const lua_Unsigned n = lua_rawlen(L, 3);
  luaL_argcheck(L, n <= MAX_MISSING, 3, "has more than 32 texts");
  for (lua_Unsigned i = 0; i < n; i++) {
    luaL_argcheck(L, lua_rawgeti(L, 3, (lua_Integer)i + 1) == LUA_TSTRING, 3, "is no list of texts");
    p->missing[i] = lua_tolstring(L, -1, &p->missing_length[i]);
    lua_pop(L, 1);
  }
  p->n_missing = n;
}

/* Of the truth values at index 4, a list of lists. */
static void push_texts (lua_State *L) {
  const lua_Unsigned n = lua_rawlen(L, 4);
  lua_createtable(L, (int)n, 0);
  for (lua_Unsigned i = 1; i <= n; i++) {
    lua_rawgeti(L, 4, (lua_Integer)i);
    if (lua_toboolean(L, -1)) lua_newtable(L);
    else lua_pushboolean(L, false);
    lua_rawseti(L, -3, (lua_Integer)i);
    lua_pop(L, 1);
  }
}

static int csv_new (lua_State *L) {
  const char *separator = luaL_checkstring(L, 1);
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 4);
  parser *p = lua_newuserdatauv(L, sizeof *p, USER_VALUES);
  memset(p, 0, sizeof *p);
  luaL_setmetatable(L, PARSER);
  read_missing(L, p);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, 5, MISSING);
  lua_newtable(L);
  lua_setiuservalue(L, 5, NAMES);
  p->has_header = p->in_header = lua_toboolean(L, 2);
  p->wants_texts = lua_istable(L, 4);
  if (p->wants_texts) {
    push_texts(L);
    lua_setiuservalue(L, 5, TEXTS);
  }
  p->c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  const bool is_made = csv_init(&p->csv,
                                CSV_STRICT | CSV_STRICT_FINI | CSV_APPEND_NULL | CSV_EMPTY_IS_NULL) == 0;
  if (!p->c || !is_made) return luaL_error(L, "csv: out of memory");
  csv_set_delim(&p->csv, (unsigned char)separator[0]);
  csv_set_space_func(&p->csv, is_never);
  p->is_open = true;
  return 1;
}

__attribute__((visibility("default"))) int luaopen_marea_csv (lua_State *L);

int luaopen_marea_csv (lua_State *L) {
  static const luaL_Reg functions[] = {{"parser", csv_new}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"feed", parser_feed}, {"finish", parser_finish}, {NULL, NULL}};
  luaL_newmetatable(L, PARSER);
  lua_pushcfunction(L, parser_gc);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  luaL_newlib(L, functions);
  return 1;
}
