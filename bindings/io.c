/* SPDX-License-Identifier: MIT
** io.c: files. A file that is missing or malformed (no such file, bytes that are no PNG) gives nil and a message;
** misuse raises. An open safetensors file is owned by a userdata, so that an error leaks nothing.
*/
#include "bind.h"

static int succeed (lua_State *L) {
  lua_pushboolean(L, true);
  return 1;
}

/* ---- one tensor ---- */

typedef marea_status (*loader)(marea_context *ctx, const char *path, marea_tensor **out);
typedef marea_status (*saver)(marea_tensor *t, const char *path);
/* The same with a number. */
typedef marea_status (*number_loader)(marea_context *ctx, const char *path, int64_t number,
                                      marea_tensor **out);
typedef marea_status (*number_saver)(marea_tensor *t, const char *path, int64_t number);

/* `load` or, where that is NULL, `load_by` with the number. */
static int load_by_number (lua_State *L, const char *function, loader load, number_loader load_by,
                           int64_t number) {
  bind_state *S = bind_self(L);
  marea_tensor *t = NULL;
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  const char *path = bind_string(L, S, 1, function, "path");
  bind_sandbox_path(L, S, function, path, false);
  bind_box *box = bind_box_new(L, S);
  BIND_RETRY(L, S, 0, NULL, status, load ? load(ctx, path, &t) : load_by(ctx, path, number, &t));
  if (status != MAREA_OK) return bind_file_failed(L, S, status);
  bind_box_fill(box, t);
  return 1;
}

static int load_tensor (lua_State *L, const char *function, loader load) {
  return load_by_number(L, function, load, NULL, 0);
}

/* `save` or, where that is NULL, `save_by` with the number. */
static int save_by_number (lua_State *L, const char *function, saver save, number_saver save_by,
                           int64_t number) {
  bind_state *S = bind_self(L);
  marea_status status;
  bind_enter(L, S);
  const char *path = bind_string(L, S, 2, function, "path");
  bind_sandbox_path(L, S, function, path, true);
  marea_tensor *t = bind_check(L, S, 1, function, "t");
  BIND_RETRY(L, S, 1, &t, status, save ? save(t, path) : save_by(t, path, number));
  return status == MAREA_OK ? succeed(L) : bind_file_failed(L, S, status);
}

static int save_tensor (lua_State *L, const char *function, saver save) {
  return save_by_number(L, function, save, NULL, 0);
}

static int io_load_idx (lua_State *L) { return load_tensor(L, "load_idx", marea_load_idx); }

static int io_load_npy (lua_State *L) { return load_tensor(L, "load_npy", marea_load_npy); }

/* An option that is a whole number: its name, what it may be (from least to most in steps), and its value. */
typedef struct option {
  const char *function, *name, *expected;
  int64_t least, most, step, value;
} option;

static bool read_option (lua_State *L, bind_state *S, const char *key, int value, void *ud) {
  option *o = ud;
  if (strcmp(key, o->name) != 0) return false;
  if (!bind_to_integer(L, value, &o->value) || o->value < o->least || o->value > o->most ||
      (o->value - o->least) % o->step != 0)
    bind_raise_argument(L, S, o->function, o->name, o->expected, value);
  return true;
}

/* The option of the table at `idx`, which may be missing. */
static int64_t take_option (lua_State *L, int idx, option o) {
  bind_state *S = bind_self(L);
  const char *const names[] = {o.name, NULL};
  lua_settop(L, idx);
  if (lua_isnil(L, idx)) return o.value;
  if (lua_type(L, idx) != LUA_TTABLE) bind_raise_argument(L, S, o.function, "options", "a table", idx);
  bind_read_options(L, S, idx, o.function, names, read_option, &o);
  return o.value;
}

static bool take_wide (lua_State *L, int idx, const char *function) {
  return take_option(L, idx, (option){function, "bits", "8 or 16", 8, 16, 8, 8}) == 16;
}

/* core.load_png(path, {bits =}) -> tensor | nil, message */
static int io_load_png (lua_State *L) {
  return load_tensor(L, "load_png", take_wide(L, 2, "load_png") ? marea_load_png16 : marea_load_png);
}

static int io_save_npy (lua_State *L) { return save_tensor(L, "save_npy", marea_save_npy); }

/* core.save_png(t, path, {bits =}) -> true | nil, message */
static int io_save_png (lua_State *L) {
  return save_tensor(L, "save_png", take_wide(L, 3, "save_png") ? marea_save_png16 : marea_save_png);
}

/* core.load_jpeg(path, {min_side =}) -> tensor | nil, message */
static int io_load_jpeg (lua_State *L) {
  static const option min_side = {"load_jpeg", "min_side", "a whole number above 0", 1, INT64_MAX, 1, 0};
  return load_by_number(L, "load_jpeg", NULL, marea_load_jpeg, take_option(L, 2, min_side));
}

/* core.save_jpeg(t, path, {quality =}) -> true | nil, message */
static int io_save_jpeg (lua_State *L) {
  static const option quality = {"save_jpeg", "quality", "a whole number from 1 to 100", 1, 100, 1, 90};
  return save_by_number(L, "save_jpeg", NULL, marea_save_jpeg, take_option(L, 3, quality));
}

/* Pushes the bytes as a string; `box` takes the tensor. */
static int push_bytes (lua_State *L, bind_box *box, marea_tensor *bytes) {
  bind_box_fill(box, bytes);
  lua_pushlstring(L, marea_tensor_data(bytes), (size_t)marea_tensor_size(bytes));
  return 1;
}

static int io_encode_png (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  marea_tensor *bytes = NULL;
  bind_enter(L, S);
  marea_tensor *t = bind_check(L, S, 1, "encode_png", "t");
  bind_box *box = bind_box_new(L, S);
  BIND_RETRY(L, S, 1, &t, status, marea_encode_png(t, &bytes));
  return status == MAREA_OK ? push_bytes(L, box, bytes) : bind_raise_status(L, S, status);
}

/* core.save_bytes(path, text) -> true | nil, message */
static int io_save_bytes (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  size_t n;
  marea_context *ctx = bind_enter(L, S);
  const char *path = bind_string(L, S, 1, "save_bytes", "path");
  bind_sandbox_path(L, S, "save_bytes", path, true);
  const char *bytes = bind_bytes(L, S, 2, "save_bytes", "bytes", &n);
  BIND_RETRY(L, S, 0, NULL, status, marea_save_bytes(ctx, path, bytes, n));
  return status == MAREA_OK ? succeed(L) : bind_file_failed(L, S, status);
}

/* ---- many tensors ---- */

static int file_gc (lua_State *L) {
  marea_file **f = bind_to(L, bind_self(L), 1, BIND_FILE);
  if (!f) return 0;
  marea_file_free(*f);
  *f = NULL;
  return 0;
}

/* Pushes an empty owner of a file. */
static marea_file **file_new (lua_State *L) {
  marea_file **f = bind_new(L, bind_self(L), BIND_FILE, sizeof *f, 0);
  lua_toclose(L, -1);
  return f;
}

/* Of a table that must have string keys: the key of the pair on top of the stack. */
static const char *key_of_pair (lua_State *L, bind_state *S, const char *function, const char *name) {
  if (lua_type(L, -2) != LUA_TSTRING)
    bind_raise(L, S, "%s: argument '%s': expected names as keys, got %s", function, name,
               bind_describe(L, S, -2));
  const char *key = lua_tostring(L, -2);
  if (strlen(key) != lua_rawlen(L, -2))
    bind_raise(L, S, "%s: argument '%s': a key has a zero byte", function, name);
  return key;
}

/* Adds the table at index `at`. */
static marea_status add_tensors (lua_State *L, bind_state *S, const char *function, int at, marea_file *f) {
  if (lua_type(L, at) != LUA_TTABLE || luaL_getmetafield(L, at, "__name") != LUA_TNIL)
    bind_raise_argument(L, S, function, "tensors", "a table of tensors", at);
  for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1)) {
    bind_poll(L, S); /* sorting many names takes long */
    const char *key = key_of_pair(L, S, function, "tensors");
    const bind_box *b = bind_to_box(L, S, -1);
    marea_status status;
    if (!b) bind_raise_argument(L, S, function, bind_shorten(L, key), "a tensor", lua_gettop(L));
    else if (!b->t) bind_raise_released(L, S, function, key, b);
    else {
      marea_tensor *t = b->t;
      BIND_RETRY(L, S, 1, &t, status, marea_file_add(f, key, t));
      if (status != MAREA_OK) return status;
    }
  }
  return MAREA_OK;
}

/* Adds the table at index `at`, which may be nil. */
static marea_status add_texts (lua_State *L, bind_state *S, const char *function, int at, marea_file *f) {
  if (lua_isnil(L, at)) return MAREA_OK;
  if (lua_type(L, at) != LUA_TTABLE) bind_raise_argument(L, S, function, "texts", "a table of strings", at);
  for (lua_pushnil(L); lua_next(L, at); lua_pop(L, 1)) {
    bind_poll(L, S);
    const char *key = key_of_pair(L, S, function, "texts"),
               *text = bind_string(L, S, lua_gettop(L), function, key);
    marea_status status;
    BIND_RETRY(L, S, 0, NULL, status, marea_file_add_text(f, key, text));
    if (status != MAREA_OK) return status;
  }
  return MAREA_OK;
}

/* core.save(path, {name = tensor}, {key = string}) -> true | nil, message */
static int io_save (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  lua_settop(L, 3);
  const char *path = bind_string(L, S, 1, "save", "path");
  bind_sandbox_path(L, S, "save", path, true);
  marea_file **f = file_new(L);
  BIND_RETRY(L, S, 0, NULL, status, marea_file_new(ctx, f));
  if (status == MAREA_OK) status = add_tensors(L, S, "save", 2, *f);
  if (status == MAREA_OK) status = add_texts(L, S, "save", 3, *f);
  if (status == MAREA_OK) BIND_RETRY(L, S, 0, NULL, status, marea_file_save(*f, path));
  return status == MAREA_OK ? succeed(L) : bind_file_failed(L, S, status);
}

/* core.save_string({name = tensor}, {key = string}) -> string */
static int io_save_string (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  marea_tensor *bytes = NULL;
  marea_context *ctx = bind_enter(L, S);
  lua_settop(L, 2);
  marea_file **f = file_new(L);
  bind_box *box = bind_box_new(L, S);
  BIND_RETRY(L, S, 0, NULL, status, marea_file_new(ctx, f));
  if (status == MAREA_OK) status = add_tensors(L, S, "save_string", 1, *f);
  if (status == MAREA_OK) status = add_texts(L, S, "save_string", 2, *f);
  if (status == MAREA_OK) BIND_RETRY(L, S, 0, NULL, status, marea_file_encode(*f, &bytes));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  return push_bytes(L, box, bytes);
}

/* core.save_npz({name = tensor}, path) -> true | nil, message */
static int io_save_npz (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  lua_settop(L, 2);
  const char *path = bind_string(L, S, 2, "save_npz", "path");
  bind_sandbox_path(L, S, "save_npz", path, true);
  marea_file **f = file_new(L);
  BIND_RETRY(L, S, 0, NULL, status, marea_file_new(ctx, f));
  if (status == MAREA_OK) status = add_tensors(L, S, "save_npz", 1, *f);
  if (status == MAREA_OK) BIND_RETRY(L, S, 0, NULL, status, marea_save_npz(*f, path));
  return status == MAREA_OK ? succeed(L) : bind_file_failed(L, S, status);
}

/* Pushes {name = tensor}. */
static void push_tensors (lua_State *L, bind_state *S, const marea_file *f) {
  lua_createtable(L, 0, marea_file_count(f));
  for (int i = 0; i < marea_file_count(f); i++) {
    lua_pushstring(L, marea_file_name(f, i));
    bind_box *box = bind_box_new(L, S);
    bind_box_fill(box, marea_retain(marea_file_tensor(f, i)));
    lua_rawset(L, -3);
  }
}

/* Pushes {key = string}. */
static void push_texts (lua_State *L, const marea_file *f) {
  lua_createtable(L, 0, marea_file_text_count(f));
  for (int i = 0; i < marea_file_text_count(f); i++) {
    const char *key, *text;
    marea_file_text(f, i, &key, &text);
    lua_pushstring(L, text);
    lua_setfield(L, -2, key);
  }
}

typedef marea_status (*file_loader)(marea_context *ctx, const char *path, marea_file **out);

/* Pushes tensors and, for a format that has them, texts: `results` of them. */
static int load_file (lua_State *L, const char *function, file_loader load, int results) {
  bind_state *S = bind_self(L);
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  const char *path = bind_string(L, S, 1, function, "path");
  bind_sandbox_path(L, S, function, path, false);
  marea_file **f = file_new(L);
  BIND_RETRY(L, S, 0, NULL, status, load(ctx, path, f));
  if (status != MAREA_OK) return bind_file_failed(L, S, status);
  push_tensors(L, S, *f);
  if (results == 2) push_texts(L, *f);
  return results;
}

/* core.load_npz(path) -> {name = tensor} | nil, message */
static int io_load_npz (lua_State *L) { return load_file(L, "load_npz", marea_load_npz, 1); }

/* core.load_zip(path) -> {name = u8 (n)} | nil, message */
static int io_load_zip (lua_State *L) { return load_file(L, "load_zip", marea_load_zip, 1); }

/* core.load(path) -> {name = tensor}, {key = string} | nil, message */
static int io_load (lua_State *L) { return load_file(L, "load", marea_file_load, 2); }

/* core.load_string(bytes) -> {name = tensor}, {key = string} | nil, message */
static int io_load_string (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  size_t n;
  marea_context *ctx = bind_enter(L, S);
  const char *bytes = bind_bytes(L, S, 1, "load_string", "bytes", &n);
  marea_file **f = file_new(L);
  BIND_RETRY(L, S, 0, NULL, status, marea_file_parse(ctx, bytes, n, f));
  if (status != MAREA_OK) return bind_file_failed(L, S, status);
  push_tensors(L, S, *f);
  push_texts(L, *f);
  return 2;
}

/* ---- trees of values ---- */

static int tree_gc (lua_State *L) {
  marea_tree **t = bind_to(L, bind_self(L), 1, BIND_TREE);
  if (!t) return 0;
  marea_tree_free(*t);
  *t = NULL;
  return 0;
}

static void push_node (lua_State *L, bind_state *S, const marea_tree_value *v) {
  bind_box *box;
  switch (v->kind) {
  case MAREA_TREE_NONE:
  case MAREA_TREE_FALSE: lua_pushboolean(L, false); return;
  case MAREA_TREE_TRUE: lua_pushboolean(L, true); return;
  case MAREA_TREE_INTEGER: lua_pushinteger(L, v->integer); return;
  case MAREA_TREE_NUMBER: lua_pushnumber(L, v->number); return;
  case MAREA_TREE_TEXT: lua_pushlstring(L, v->text, v->count); return;
  case MAREA_TREE_LIST:
  case MAREA_TREE_DICT: lua_newtable(L); return;
  case MAREA_TREE_TENSOR:
    box = bind_box_new(L, S);
    bind_box_fill(box, marea_retain(v->tensor));
    return;
  }
}

/* Fills the table of a list or dict, which is on top of the stack; the values of all nodes are at index `values`. */
static void fill_node (lua_State *L, const marea_tree *t, const marea_tree_value *v, int values) {
  marea_tree_value value;
  int key, node, at = 0;
  for (int cell = v->first; cell;) {
    cell = marea_tree_next(t, cell, &key, &node);
    marea_tree_value_at(t, node, &value);
    at++;
    if (value.kind == MAREA_TREE_NONE && key) continue;
    if (key) lua_rawgeti(L, values, key);
    else lua_pushinteger(L, at);
    lua_rawgeti(L, values, node);
    lua_rawset(L, -3);
  }
}

/* Pushes the root. First every node gets its value, then lists and dicts get theirs: nothing recurs, however deep. */
static void push_tree (lua_State *L, bind_state *S, const marea_tree *t) {
  const int n = marea_tree_count(t);
  marea_tree_value v;
  lua_createtable(L, n, 0);
  const int values = lua_gettop(L);
  for (int i = 1; i < n; i++) {
    bind_poll(L, S);
    marea_tree_value_at(t, i, &v);
    push_node(L, S, &v);
    lua_rawseti(L, values, i);
  }
  for (int i = 1; i < n; i++) {
    bind_poll(L, S);
    marea_tree_value_at(t, i, &v);
    lua_rawgeti(L, values, i);
    fill_node(L, t, &v, values);
    lua_pop(L, 1);
  }
  lua_rawgeti(L, values, marea_tree_root(t));
}

typedef marea_status (*tree_loader)(marea_context *ctx, const char *path, marea_tree **out);

static int load_tree (lua_State *L, const char *function, tree_loader load) {
  bind_state *S = bind_self(L);
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  const char *path = bind_string(L, S, 1, function, "path");
  bind_sandbox_path(L, S, function, path, false);
  marea_tree **t = bind_new(L, S, BIND_TREE, sizeof *t, 0);
  lua_toclose(L, -1);
  BIND_RETRY(L, S, 0, NULL, status, load(ctx, path, t));
  if (status != MAREA_OK) return bind_file_failed(L, S, status);
  push_tree(L, S, *t);
  return 1;
}

/* core.load_torch(path) -> value | nil, message. Lists and tuples are lists, in which None is false; dicts are tables,
   without those that are None. */
static int io_load_torch (lua_State *L) { return load_tree(L, "load_torch", marea_load_torch); }

/* core.load_t7(path) -> value | nil, message */
static int io_load_t7 (lua_State *L) { return load_tree(L, "load_t7", marea_load_t7); }

/* core.load_gguf(path) -> {name = tensor}, {key = value} | nil, message */
static int io_load_gguf (lua_State *L) {
  const int n = load_tree(L, "load_gguf", marea_load_gguf);
  if (n != 1) return n;
  lua_rawgeti(L, -1, 1);
  lua_rawgeti(L, -2, 2);
  return 2;
}

const luaL_Reg bind_io_functions[] = {
    {"load_idx", io_load_idx},
    {"load_npy", io_load_npy},
    {"save_npy", io_save_npy},
    {"load_npz", io_load_npz},
    {"save_npz", io_save_npz},
    {"load_zip", io_load_zip},
    {"load_torch", io_load_torch},
    {"load_gguf", io_load_gguf},
    {"load_t7", io_load_t7},
    {"load_png", io_load_png},
    {"save_png", io_save_png},
    {"encode_png", io_encode_png},
    {"load_jpeg", io_load_jpeg},
    {"save_jpeg", io_save_jpeg},
    {"save_bytes", io_save_bytes},
    {"save", io_save},
    {"load", io_load},
    {"save_string", io_save_string},
    {"load_string", io_load_string},
    {NULL, NULL},
};

/* The state is on top of the stack, and stays there. */
void bind_io_open (lua_State *L) {
  static const luaL_Reg tree_metamethods[] = {{"__gc", tree_gc}, {"__close", tree_gc}, {NULL, NULL}};
  static const luaL_Reg metamethods[] = {{"__gc", file_gc}, {"__close", file_gc}, {NULL, NULL}};
  bind_push_metatable(L, lua_touserdata(L, -1), BIND_FILE, "marea.File");
  lua_pushvalue(L, -2);
  luaL_setfuncs(L, metamethods, 1);
  lua_pop(L, 1);
  bind_push_metatable(L, lua_touserdata(L, -1), BIND_TREE, "marea.Tree");
  lua_pushvalue(L, -2);
  luaL_setfuncs(L, tree_metamethods, 1);
  lua_pop(L, 1);
}
