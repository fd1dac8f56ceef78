/* SPDX-License-Identifier: MIT
** raise.c: errors. A message reads "FILE:LINE: what is wrong (layer 'enc.conv1')": the line is the innermost one of a
** script, so that an editor can jump to it, and the layer is the one at work (place.c). marea.explain adds further
** lines below the first one, by the function that bind_explain_with is given.
*/
#include <stdarg.h>
#include <stdio.h>

#include "interrupt.h"

#define WORD 40 /* bytes of a script's own words that are shown */

/* ---- raising ---- */

static const char explain_key, known_key; /* their addresses are the functions' keys in the registry */

int bind_explain_with (lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &known_key);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &explain_key);
  return 0;
}

/* Is the error at idx that of an interrupt? A hook may raise it while a message is explained; then it is raised in
   place of the message, so that Ctrl-C is not lost. */
static bool is_interrupt (lua_State *L, int idx) {
  return lua_type(L, idx) == LUA_TSTRING && strstr(lua_tostring(L, idx), "interrupted");
}

/* Adds further lines to the whole message on top of the stack: what marea.explain says about the bare message at idx
   (the tensors, a hint). An error in marea.explain adds nothing. Hooks of interrupts are off meanwhile. */
static void add_details (lua_State *L, int idx, bool operation) {
  int whole = lua_gettop(L);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &explain_key) != LUA_TFUNCTION) {
    lua_settop(L, whole);
    return;
  }
  lua_pushvalue(L, idx);
  lua_pushvalue(L, whole);
  lua_pushboolean(L, operation);
  const bind_hook taken = bind_hush(L);
  int status = lua_pcall(L, 3, 1, 0);
  bind_unhush(L, &taken);
  if (status == LUA_OK && lua_type(L, -1) == LUA_TSTRING) lua_concat(L, 2);
  else if (status == LUA_OK || !is_interrupt(L, -1)) lua_settop(L, whole);
}

/* Raises the message on top of the stack. operation: the failure is that of an operator with its inputs. */
static int raise (lua_State *L, bind_state *S, bool operation) {
  char path[BIND_LAYER];
  bind_place place = bind_where(L, S);
  int bare = lua_gettop(L);
  const char *message = lua_tostring(L, bare);
  bind_layer_for(L, message, path);
  if (!lua_checkstack(L, 8)) return lua_error(L);
  if (place.line > 0) lua_pushfstring(L, "%s:%d: %s", S->source[place.source], place.line, message);
  else lua_pushstring(L, message);
  if (*path) lua_pushfstring(L, "%s (layer '%s')", lua_tostring(L, -1), path);
  add_details(L, bare, operation);
  bind_printable(L);
  return lua_error(L);
}

int bind_raise (lua_State *L, bind_state *S, const char *format, ...) {
  va_list args;
  va_start(args, format);
  lua_pushvfstring(L, format, args);
  va_end(args);
  return raise(L, S, false);
}

int bind_raise_interrupt (lua_State *L, bind_state *S) {
  bind_interrupt_raising(L);
  return bind_raise(L, S, BIND_INTERRUPTED);
}

int bind_leave_interrupted (lua_State *L, bind_state *S) {
  if (!S->held && bind_leave_to_hook(L)) return 0;
  return bind_raise_interrupt(L, S);
}

int bind_raise_status (lua_State *L, bind_state *S, marea_status status) {
  if (status == MAREA_EINTR) return bind_leave_interrupted(L, S);
  if (status == MAREA_EBUDGET && S->sandbox) bind_sandbox_spend(S->sandbox, marea_error(S->ctx));
  lua_pushstring(L, S->ctx ? marea_error(S->ctx) : "marea: the Lua state is closing");
  return raise(L, S, status != MAREA_ENOMEM);
}

void bind_poll (lua_State *L, bind_state *S) {
  marea_status status = S->ctx ? marea_poll(S->ctx) : MAREA_OK;
  if (status == MAREA_EINTR) bind_raise_interrupt(L, S);
  if (status != MAREA_OK) bind_raise_status(L, S, status);
}

/* ---- nil and a message ---- */

static const char failed_key; /* its address is the key in the registry of the last message */

int bind_failed (lua_State *L, bind_state *S) {
  const bind_place place = bind_where(L, S);
  S->failed_line = place.line;
  S->failed_source = place.source;
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &failed_key);
  lua_pushnil(L);
  lua_insert(L, -2);
  return 2;
}

int bind_file_failed (lua_State *L, bind_state *S, marea_status status) {
  if (status != MAREA_EIO && status != MAREA_EFORMAT) return bind_raise_status(L, S, status);
  lua_pushstring(L, marea_error(S->ctx));
  return bind_failed(L, S);
}

/* core.failed(message) -> nil, message: what public functions return when a file is missing or malformed */
int bind_fail (lua_State *L) {
  lua_settop(L, 1);
  return bind_failed(L, bind_self(L));
}

/* core.last_failure(forget) -> the last such message, the source and line of the script; nil: there was none */
int bind_last_failure (lua_State *L) {
  const bind_state *S = bind_self(L);
  bool forget = lua_toboolean(L, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &failed_key) == LUA_TNIL) return 1;
  if (forget) {
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &failed_key);
  }
  lua_pushstring(L, S->source[S->failed_source]);
  lua_pushinteger(L, S->failed_line);
  return 3;
}

/* ---- descriptions ---- */

bind_text bind_shape (const marea_tensor *t) {
  bind_text text;
  size_t n = (size_t)snprintf(text.s, sizeof text.s, "%s (", bind_dtype_name(t));
  for (int d = 0; d < marea_tensor_rank(t); d++) {
    long long size = marea_tensor_shape(t)[d];
    n += (size_t)snprintf(text.s + n, sizeof text.s - n, "%s%lld", d > 0 ? ", " : "", size);
  }
  snprintf(text.s + n, sizeof text.s - n, ")");
  return text;
}

static const char *describe_released (lua_State *L, const bind_box *b) {
  char shape[160] = "";
  size_t n = 0;
  for (int d = 0; d < b->rank; d++)
    n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%u", d > 0 ? ", " : "", (unsigned)b->shape[d]);
  const bind_state *S = b->state;
  return lua_pushfstring(L, "tensor %s (%s) made at %s:%d was released by %s %s:%d",
                         marea_dtype_name((marea_dtype)b->dtype), shape, S->source[b->made_source],
                         b->made_line, b->ended_by == BIND_BY_SCOPE ? "the scope ended at" : "a call at",
                         S->source[b->ended_source], b->ended_line);
}

static const char *describe_box (lua_State *L, const bind_box *b) {
  if (b->t) return lua_pushfstring(L, "tensor %s", bind_shape(b->t).s);
  if (b->ended_by == BIND_ALIVE) return lua_pushliteral(L, "a tensor that was never made");
  return describe_released(L, b);
}

/* Pushes "a Linear" for a table whose metatable has a name; pushes nothing for others. */
static const char *describe_object (lua_State *L, int idx) {
  if (!lua_getmetatable(L, idx)) return NULL;
  lua_pushliteral(L, "__name");
  if (lua_rawget(L, -2) == LUA_TSTRING)
    return lua_pushfstring(L, "a %s", bind_shorten(L, lua_tostring(L, -1)));
  lua_pop(L, 2);
  return NULL;
}

/* Says which of the first items is no integer; an item that is a table is not looked into. */
static const char *describe_table (lua_State *L, bind_state *S, int idx) {
  lua_Unsigned n = bind_length(L, idx);
  int64_t unused;
  const char *object = describe_object(L, idx);
  if (object) return object;
  for (lua_Unsigned i = 1; i <= n && i <= 16; i++) {
    bool table = lua_rawgeti(L, idx, (lua_Integer)i) == LUA_TTABLE;
    if (!bind_to_integer(L, -1, &unused))
      return lua_pushfstring(L, "a list with %s at %d", table ? "a table" : bind_describe(L, S, -1), (int)i);
    lua_pop(L, 1);
  }
  if (n > 0) return lua_pushfstring(L, "a list of %d", (int)n);
  return lua_pushliteral(L, "a table");
}

const char *bind_describe (lua_State *L, bind_state *S, int idx) {
  if (idx == 0) return lua_pushliteral(L, "nothing");
  idx = lua_absindex(L, idx);
  const bind_box *b = bind_to_box(L, S, idx);
  if (b) return describe_box(L, b);
  switch (lua_type(L, idx)) {
  case LUA_TNONE: return lua_pushliteral(L, "nothing");
  case LUA_TNIL: return lua_pushliteral(L, "nil");
  case LUA_TBOOLEAN: return lua_pushfstring(L, "%s", lua_toboolean(L, idx) ? "true" : "false");
  case LUA_TNUMBER:
    if (lua_isinteger(L, idx)) return lua_pushfstring(L, "%I", (LUAI_UACINT)lua_tointeger(L, idx));
    return lua_pushstring(L, bind_number_text(lua_tonumber(L, idx)).s);
  case LUA_TSTRING: return lua_pushfstring(L, "string '%s'", bind_shorten(L, lua_tostring(L, idx)));
  case LUA_TTABLE: return describe_table(L, S, idx);
  default: return lua_pushfstring(L, "a %s", luaL_typename(L, idx));
  }
}

int bind_raise_released (lua_State *L, bind_state *S, const char *function, const char *name,
                         const bind_box *b) {
  const char *advice = b->ended_by != BIND_BY_SCOPE ? ""
                       : b->had_history
                           ? "; return it from the scope, or take its values along by :detach():keep()"
                           : "; return it from the scope or call :keep()";
  return bind_raise(L, S, "%s: argument '%s': %s%s", function, name, describe_box(L, b), advice);
}

int bind_raise_argument (lua_State *L, bind_state *S, const char *function, const char *name,
                         const char *expected, int idx) {
  return bind_raise(L, S, "%s: argument '%s': expected %s, got %s", function, name, expected,
                    bind_describe(L, S, idx));
}

/* ---- did you mean ---- */

static int least (int a, int b) { return a < b ? a : b; }

/* Edit distance with neighbours swapped counting as one, for words of up to 31 bytes. */
static int distance (const char *a, const char *b) {
  int row[3][32], n = (int)strlen(a), m = (int)strlen(b);
  if (n > 31 || m > 31) return 32;
  for (int j = 0; j <= m; j++) row[0][j] = j;
  for (int i = 1; i <= n; i++) {
    int *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
    now[0] = i;
    for (int j = 1; j <= m; j++) {
      now[j] = least(least(last[j], now[j - 1]) + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
      bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) now[j] = least(now[j], before[j - 2] + 1);
    }
  }
  return row[n % 3][m];
}

/* As check.did_you_mean has it: a mistake in four letters, and one in words of three. */
void bind_offer (bind_guess *g, const char *candidate) {
  const int d = distance(g->word, candidate), letters = (int)strlen(g->word);
  if (letters < 3 || (d > 1 && 4 * d > letters + 1) || (g->best && d >= g->distance)) return;
  g->best = candidate;
  g->distance = d;
}

const char *bind_shorten (lua_State *L, const char *word) {
  char text[WORD + 1];
  if (strlen(word) <= WORD) return word;
  memcpy(text, word, WORD);
  text[WORD] = '\0';
  return lua_pushfstring(L, "%s...", text);
}

/* Do other frameworks have this name? Then a hint says what it is called here, which is better than a name that is
   spelt alike. */
static bool is_known_elsewhere (lua_State *L, const char *word) {
  const int top = lua_gettop(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &known_key);
  lua_pushstring(L, word);
  const bool known = lua_pcall(L, 1, 1, 0) == LUA_OK && lua_toboolean(L, -1);
  lua_settop(L, top);
  return known;
}

const char *bind_did_you_mean (lua_State *L, const bind_guess *g) {
  if (!g->best) return lua_pushliteral(L, "");
  if (is_known_elsewhere(L, g->word)) return lua_pushliteral(L, "");
  return lua_pushfstring(L, "; did you mean '%s'?", g->best);
}
