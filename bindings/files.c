/* SPDX-License-Identifier: MIT
** files.c: the library's Lua files. They are compiled in (bind_files, made from lua/marea by bindings/embed.lua), and
** may be loaded from a folder instead. Messages name the script's line, so each frame of the stack is asked here
** whether it is the library's.
*/
#include "bind.h"

/* ---- those that are compiled in ---- */

const bind_file *bind_find_file (const char *name) {
  const bind_file *f = bind_files;
  while (f->name && strcmp(f->name, name) != 0) f++;
  return f->name ? f : NULL;
}

const char bind_embedded[] = "@(marea)/"; /* embed.lua puts it in front of a path */
enum { EMBEDDED = sizeof bind_embedded - 1 };

const char *bind_file_path (const bind_file *f) { return f->chunk + EMBEDDED; }

const bind_file *bind_find_path (const char *path) {
  const bind_file *f = bind_files;
  while (f->name && strcmp(bind_file_path(f), path) != 0) f++;
  return f->name ? f : NULL;
}

const bind_file *bind_find_embedded (const char *source) {
  return strncmp(source, bind_embedded, EMBEDDED) == 0 ? bind_find_path(source + EMBEDDED) : NULL;
}

/* Pushes the compiled chunk of a file; raises when there is no memory. */
static void push_chunk (lua_State *L, const bind_file *f) {
  if (luaL_loadbufferx(L, f->text, f->size, f->chunk, "t") != LUA_OK) lua_error(L);
}

/* What `require` calls: (name, ":preload:"). */
static int load_file (lua_State *L) {
  lua_settop(L, 2);
  push_chunk(L, lua_touserdata(L, lua_upvalueindex(1)));
  lua_insert(L, 1);
  lua_call(L, 2, 1);
  return 1;
}

void bind_push_loader (lua_State *L, const bind_file *f) {
  lua_pushlightuserdata(L, (void *)f);
  lua_pushcclosure(L, load_file, 1);
}

/* ---- those that are loaded from a folder ---- */

/* Called for each frame of each operator's call, so the first bytes are compared before strncmp: most sources differ
   there. */
static inline bool begins (const char *source, const bind_library *l) {
  return source[1] == l->prefix[1] && source[2] == l->prefix[2] && strncmp(source, l->prefix, l->length) == 0;
}

/* Where the file of a path of n bytes, n > 6, was found last: by its length and the letters before ".lua". */
static inline const bind_file **recent_file (bind_state *S, const char *path, size_t n) {
  return &S->file[(n * 5 + (unsigned char)path[n - 5] * 23u + (unsigned char)path[n - 6] * 3u) % BIND_FILES];
}

const bind_file *bind_file_of (bind_state *S, const char *source, size_t n) {
  if (source[0] != '@' || n < 2) return NULL;
  for (const bind_library *l = S->library; l->prefix; l++) {
    if (!begins(source, l) || n <= l->length + 6) continue;
    const char *path = source + l->length;
    const bind_file **recent = recent_file(S, path, n - l->length);
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
