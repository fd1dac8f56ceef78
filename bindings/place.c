/* SPDX-License-Identifier: MIT
** place.c: where the script is: its line, and the path of the layer at work. Both are found by walking the Lua stack,
** so that calls that succeed pay little for messages, and modules know nothing of them.
*/
#include <stdio.h>

#include "bind.h"

#define LEVELS 200 /* of the stack that are searched */

/* ---- the line ---- */

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

/* The line of the function at this level; none: it has no lines. */
static bind_place place_at (lua_State *L, bind_state *S, lua_Debug *ar) {
  lua_getinfo(L, "l", ar); /* takes as long as all the rest, so only where it is needed */
  if (ar->currentline <= 0) return (bind_place){0, 0};
  return (bind_place){intern(S, ar), ar->currentline};
}

bind_place bind_where (lua_State *L, bind_state *S) {
  lua_Debug ar, innermost;
  bool found = false; /* a function of the library, whose line stands for that of a script that has none */
  for (int level = 1; level < LEVELS && lua_getstack(L, level, &ar); level++) { /* 0 is our C function */
    lua_getinfo(L, "S", &ar);
    if (ar.what[0] == 'C') continue;
    if (bind_file_of(S, ar.source, ar.srclen)) {
      if (!found) innermost = ar;
      found = true;
      continue;
    }
    const bind_place place = place_at(L, S, &ar);
    if (place.line > 0) return place;
  }
  return found ? place_at(L, S, &innermost) : (bind_place){0, 0};
}

/* ---- the layer ---- */

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

void bind_layer_for (lua_State *L, const char *message, char *path) {
  if (!bind_layer(L, path)) return;
  if (!*path) class_name(L, lua_gettop(L), path);
  size_t n = strlen(path);
  if (strchr(message, '\n') || (strncmp(message, path, n) == 0 && message[n] == ':')) *path = '\0';
  lua_pop(L, 1);
}
