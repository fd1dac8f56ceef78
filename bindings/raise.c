/* SPDX-License-Identifier: MIT
** raise.c: the only place that raises. A message reads "FILE:LINE: what is wrong (layer 'enc.conv1')": the
** line is the innermost one of a script, so that an editor can jump to it, and the layer is found by
** walking the stack when something is already wrong; a call that succeeds pays nothing for it. Lua code may
** add lines below the first one: bind_explain_with takes a function for that.
*/
#include <stdarg.h>
#include <stdio.h>

#include "bind.h"

#define LEVELS 200 /* of the stack that are searched */
#define WORD 40    /* bytes of a script's own words that are shown */

/* ---- where in the script ---- */

/* Every frame of every call comes by; most sources differ from a prefix in their first bytes. */
static inline bool begins (const char *source, const bind_library *l) {
  return source[1] == l->prefix[1] && source[2] == l->prefix[2] && strncmp(source, l->prefix, l->length) == 0;
}

const bind_file *bind_file_of (bind_state *S, const char *source) {
  if (source[0] != '@' || !source[1]) return NULL;
  for (const bind_library *l = S->library; l->prefix; l++) {
    if (!begins(source, l)) continue;
    const char *path = source + l->length;
    const bind_file **recent =
        &S->file[(uintptr_t)source >> 4 & 63]; /* names are compared, addresses only a hint */
    if (!*recent || strcmp(bind_file_path(*recent), path) != 0) *recent = bind_find_path(path);
    if (*recent) return *recent;
  }
  return NULL;
}

void bind_add_library (lua_State *L, bind_state *S, int idx) {
  size_t n;
  const char *prefix = lua_tolstring(L, idx, &n);
  int i = 0;
  for (; S->library[i].prefix; i++)
    if (strcmp(S->library[i].prefix, prefix) == 0) return;
  if (i == BIND_LIBRARIES || n < 2) return;
  lua_pushvalue(L, idx);
  luaL_ref(L, LUA_REGISTRYINDEX); /* keeps the string for as long as the state lives */
  S->library[i] = S->library[0];
  S->library[0] = (bind_library){prefix, n};
}

/* The index of a source's name, a new one if there is room. Names are compared, addresses are only a hint. */
static uint16_t intern (bind_state *S, const lua_Debug *ar) {
  uint16_t *recent = &S->recent[(uintptr_t)ar->source >> 4 & 63];
  if (*recent && strcmp(S->source[*recent], ar->short_src) == 0) return *recent;
  int i = 1;
  while (i < S->sources && strcmp(S->source[i], ar->short_src) != 0) i++;
  if (i == BIND_SOURCES) return 0;
  if (i == S->sources) {
    memcpy(S->source[i], ar->short_src, sizeof S->source[i]);
    S->sources++;
  }
  return *recent = (uint16_t)i;
}

bind_place bind_where (lua_State *L, bind_state *S) {
  lua_Debug ar;
  bind_place innermost = {0, 0};
  for (int level = 1; level < LEVELS && lua_getstack(L, level, &ar); level++) { /* 0 is our C function */
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0) continue; /* a C function */
    const bool is_script = !bind_file_of(S, ar.source);
    if (!is_script && innermost.line > 0) continue;
    bind_place place = {intern(S, &ar), ar.currentline};
    if (is_script) return place;
    innermost = place;
  }
  return innermost;
}

/* ---- which layer ---- */

/* Is the value on top of the stack a module, a table whose metatable says __module? Pops nothing. */
static bool is_module (lua_State *L, int idx) {
  if (!lua_istable(L, idx) || !lua_getmetatable(L, idx)) return false;
  lua_pushliteral(L, "__module");
  lua_rawget(L, -2);
  bool yes = lua_toboolean(L, -1);
  lua_pop(L, 2);
  return yes;
}

/* Pushes the local variable `self` of the function if it is a module. */
static bool push_self (lua_State *L, const lua_Debug *ar) {
  const char *name = lua_getlocal(L, ar, 1);
  if (!name) return false;
  if (strcmp(name, "self") == 0 && is_module(L, -1)) return true;
  lua_pop(L, 1);
  return false;
}

typedef struct layer_key {
  bool found, is_integer;
  lua_Integer i;
  char s[64];
} layer_key;

/* Takes the key at idx if it comes before the one found so far: integers first, then strings. */
static bool offer_key (lua_State *L, int idx, layer_key *best) {
  layer_key k = {.found = true, .is_integer = lua_isinteger(L, idx)};
  if (k.is_integer) k.i = lua_tointeger(L, idx);
  else if (lua_type(L, idx) == LUA_TSTRING) snprintf(k.s, sizeof k.s, "%s", lua_tostring(L, idx));
  else return false;
  bool before = !best->found;
  if (best->found && k.is_integer != best->is_integer) before = k.is_integer;
  else if (best->found) before = k.is_integer ? k.i < best->i : strcmp(k.s, best->s) < 0;
  if (before) *best = k;
  return before;
}

/* The key under which the table `holder` has the value `item` (both absolute indices). */
static layer_key key_of (lua_State *L, int holder, int item) {
  layer_key best = {0};
  for (lua_pushnil(L); lua_next(L, holder); lua_pop(L, 1))
    if (lua_rawequal(L, -1, item)) offer_key(L, -2, &best);
  return best;
}

/* path := "key" or "key.path". */
static void prepend (char *path, const layer_key *k) {
  char key[64], old[BIND_LAYER];
  if (k->is_integer) snprintf(key, sizeof key, "%lld", (long long)k->i);
  else snprintf(key, sizeof key, "%s", k->s);
  snprintf(old, sizeof old, "%s", path);
  snprintf(path, BIND_LAYER, "%.63s%s%.95s", key, *old ? "." : "", old);
}

/* Puts what lies between module `outer` and module `inner` in front of the path: a field, or a field of a
   field that is a plain table (a list of layers). */
static void prepend_step (lua_State *L, int outer, int inner, char *path) {
  layer_key k = key_of(L, outer, inner);
  if (k.found) {
    prepend(path, &k);
    return;
  }
  layer_key best = {0}, best_inside = {0};
  for (lua_pushnil(L); lua_next(L, outer); lua_pop(L, 1)) {
    if (!lua_istable(L, -1) || is_module(L, -1)) continue;
    layer_key inside = key_of(L, lua_gettop(L), inner);
    if (inside.found && offer_key(L, -2, &best)) best_inside = inside;
  }
  if (!best.found) return;
  prepend(path, &best_inside);
  prepend(path, &best);
}

/* path := the name of the class of the module at idx */
static void class_name (lua_State *L, int idx, char *path) {
  if (!lua_getmetatable(L, idx)) return;
  lua_pushliteral(L, "__name");
  if (lua_rawget(L, -2) == LUA_TSTRING) snprintf(path, BIND_LAYER, "%s", lua_tostring(L, -1));
  lua_pop(L, 2);
}

int bind_argument_at_work (lua_State *L) {
  lua_Debug ar;
  const int n = lua_gettop(L);
  for (int level = 1; level < LEVELS && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "f", &ar);
    for (int i = 1; i <= n; i++)
      if (lua_rawequal(L, -1, i)) return lua_getlocal(L, &ar, 1) ? 1 : 0;
    lua_pop(L, 1);
  }
  return 0;
}

bool bind_layer (lua_State *L, char *path) {
  lua_Debug ar;
  path[0] = '\0';
  if (!lua_checkstack(L, 16)) return false;
  int inner = lua_gettop(L) + 1;
  for (int level = 0; level < LEVELS && lua_getstack(L, level, &ar); level++) {
    if (!push_self(L, &ar)) continue;
    if (lua_gettop(L) == inner) {
      lua_pushvalue(L, inner); /* [inner] is the first module met, [inner + 1] the current one */
      continue;
    }
    if (!lua_rawequal(L, -1, inner + 1)) prepend_step(L, inner + 2, inner + 1, path);
    lua_replace(L, inner + 1);
  }
  if (lua_gettop(L) < inner) return false;
  if (!*path && !lua_rawequal(L, inner, inner + 1)) class_name(L, inner, path);
  lua_remove(L, inner);
  return true;
}

/* path := the layer for a message; that of a module which is alone is its class, unless the message says so. */
static void layer_path (lua_State *L, const char *message, char *path) {
  if (!bind_layer(L, path)) return;
  if (!*path) class_name(L, lua_gettop(L), path);
  size_t n = strlen(path);
  if (strchr(message, '\n') || (strncmp(message, path, n) == 0 && message[n] == ':')) *path = '\0';
  lua_pop(L, 1);
}

/* ---- raising ---- */

static const char explain_key, known_key; /* their addresses are the functions' keys in the registry */

int bind_explain_with (lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &known_key);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &explain_key);
  return 0;
}

/* An error of a hook that runs while a message is explained is raised in its place: Ctrl-C is not lost. */
static bool is_interrupt (lua_State *L, int idx) {
  return lua_type(L, idx) == LUA_TSTRING && strstr(lua_tostring(L, idx), "interrupted");
}

/* Adds to the whole message on top of the stack what the script's function says about the bare one at idx: its
   tensors, a hint. An error in there changes nothing. A hook that is about to interrupt has to wait. */
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
  layer_path(L, message, path);
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

int bind_raise_status (lua_State *L, bind_state *S, marea_status status) {
  if (status == MAREA_EINTR) return bind_leave_interrupted(L, S);
  if (status == MAREA_EBUDGET && S->box) bind_sandbox_spend(S->box, marea_error(S->ctx));
  lua_pushstring(L, S->ctx ? marea_error(S->ctx) : "marea: the Lua state is closing");
  return raise(L, S, status != MAREA_ENOMEM);
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

/* core.failed(message) -> nil, message: what public functions return when the world was not as it should be */
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

/* Do other frameworks have this name? Then a hint follows, which is better than what is spelt alike. */
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
