/* SPDX-License-Identifier: MIT
** sandbox.c: Lua states for scripts that nobody has read. The state has an allocator that counts, a hook that counts, and
** a context with budgets of its own; lua/marea/guest.lua makes the environment.
**
** The hook runs every PERIOD instructions of a coroutine. Where it cannot run, in functions that are written in C, the
** guest's functions look at the clock (guest_guard), and so does the allocator: a time limit that has passed arms the hook
** for the next instruction. A spent budget stays spent until the run is over: the error comes back at every
** further instruction, so that no pcall holds it.
*/
#define _GNU_SOURCE
#include <fenv.h>
#include <limits.h>
#include <lualib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "bind.h"

#define PERIOD 200 /* instructions between two looks; a switch of coroutines counts as many */
#define LARGE 4096 /* bytes of a block at which the allocator looks at the clock */
#define ROOTS 16   /* folders of a kind */
#define OUTPUT (64 << 10)
#define DEEPEST 16 /* tables within each other that are copied */

struct marea_sandbox {
  lua_State *L, *running; /* the main thread, and the coroutine at work */
  marea_context *ctx;
  size_t bytes, max_bytes, max_string;
  double instructions, max_instructions, max_flop, max_seconds, max_tensor_bytes, deadline;
  bool active, spent;
  bool (*interrupted)(void *ud);
  void *interrupted_ud;
  int environment;      /* reference in the registry */
  char *root[2][ROOTS]; /* to read, to write; real paths */
  size_t printed;
  char why[200], error[1000], output[OUTPUT + 1];
};

static marea_sandbox *box_of (lua_State *L) { return *(marea_sandbox **)lua_getextraspace(L); }

/* ---- budgets ---- */

static double now (void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void bind_sandbox_spend (marea_sandbox *box, const char *why) {
  if (box->spent) return;
  box->spent = true;
  snprintf(box->why, sizeof box->why, "%s", why);
}

static void look (marea_sandbox *box) {
  char why[100];
  if (box->spent || !box->active) return;
  if (box->interrupted && box->interrupted(box->interrupted_ud)) {
    bind_sandbox_spend(box, "interrupted");
  } else if (now() >= box->deadline) {
    bind_format(why, sizeof why, "the time limit of %g s is reached", box->max_seconds);
    bind_sandbox_spend(box, why);
  } else if (box->instructions > box->max_instructions) {
    bind_format(why, sizeof why, "the limit of %g instructions is reached", box->max_instructions);
    bind_sandbox_spend(box, why);
  }
}

static void on_count (lua_State *L, lua_Debug *ar) {
  marea_sandbox *box = box_of(L);
  const int count = lua_gethookcount(L);
  box->instructions += count;
  look(box);
  const int next = box->spent ? 1 : PERIOD;
  if (count != next) lua_sethook(L, on_count, LUA_MASKCOUNT, next);
  if (!box->spent) return;
  int level = 0; /* the script's line rather than the library's */
  do lua_getinfo(L, "Sl", ar);
  while ((ar->currentline <= 0 || strncmp(ar->source, "@(marea)/", 9) == 0) && lua_getstack(L, ++level, ar));
  lua_pushfstring(L, "%s:%d: sandbox: %s", ar->short_src, ar->currentline, box->why);
  lua_error(L);
}

void bind_sandbox_check (lua_State *L, marea_sandbox *box) {
  look(box);
  if (box->spent) luaL_error(L, "sandbox: %s", box->why);
}

void marea_sandbox_check (lua_State *L) {
  const bind_state *S = bind_find_state(L);
  if (S && S->box) bind_sandbox_check(L, S->box);
}

/* Lua tells the kind of an object in `old` when there is no block yet. */
static void *allocate (void *ud, void *p, size_t old, size_t size) {
  marea_sandbox *box = ud;
  const bool is_string = !p && old == LUA_TSTRING;
  if (!p) old = 0;
  if (size == 0) {
    free(p);
    box->bytes -= old;
    return NULL;
  }
  const bool refused = size > old && (box->bytes - old + size > box->max_bytes ||
                                      (is_string && size > box->max_string + 64)); /* 64: Lua's header */
  if (box->active && (refused || size > old + LARGE)) {
    look(box);
    if (box->spent) lua_sethook(box->running, on_count, LUA_MASKCOUNT, 1);
  }
  void *q = refused ? NULL : realloc(p, size);
  if (q) box->bytes += size - old;
  return q;
}

/* ---- what guest.lua is given ---- */

/* switch(thread): it is about to run */
static int guest_switch (lua_State *L) {
  marea_sandbox *box = box_of(L);
  box->instructions += PERIOD;
  bind_sandbox_check(L, box);
  box->running = lua_tothread(L, 1);
  return 0;
}

static int guest_check (lua_State *L) {
  bind_sandbox_check(L, box_of(L));
  return 0;
}

static int guarded (lua_State *L) {
  lua_CFunction f = lua_tocfunction(L, lua_upvalueindex(1));
  int n = f(L);
  bind_sandbox_check(L, box_of(L));
  return n;
}

/* guard(f): f, a function in C without upvalues, and a look at the budgets after it */
static int guest_guard (lua_State *L) {
  lua_settop(L, 1);
  lua_pushcclosure(L, guarded, 1);
  return 1;
}

/* loader(name): the function that makes a module of the library; nil: there is none */
static int guest_loader (lua_State *L) {
  const bind_file *f = bind_find_file(luaL_checkstring(L, 1));
  if (f) bind_push_loader(L, f);
  else lua_pushnil(L);
  return 1;
}

static int guest_print (lua_State *L) {
  marea_sandbox *box = box_of(L);
  size_t n;
  const char *text = luaL_checklstring(L, 1, &n);
  if (n > OUTPUT - box->printed) n = OUTPUT - box->printed;
  memcpy(box->output + box->printed, text, n);
  box->printed += n;
  return 0;
}

/* ---- paths ---- */

/* real := the path without links, of a file that exists or of one that may be made in its folder. */
static bool resolve (const char *path, char *real) {
  char folder[PATH_MAX];
  struct stat info;
  if (realpath(path, real)) return stat(real, &info) == 0 && (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode));
  if (lstat(path, &info) == 0 || strlen(path) >= sizeof folder) return false; /* a link to nowhere */
  strcpy(folder, path);
  char *slash = strrchr(folder, '/');
  const char *name = slash ? slash + 1 : path;
  if (slash) *(slash == folder ? slash + 1 : slash) = '\0';
  if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return false;
  if (slash == folder) name = path + 1;
  if (!realpath(slash ? folder : ".", real)) return false;
  const size_t n = strlen(real);
  return (size_t)snprintf(real + n, PATH_MAX - n, "/%s", name) < PATH_MAX - n;
}

static bool is_below (const char *real, const char *root) {
  const size_t n = strlen(root);
  return strncmp(real, root, n) == 0 && (real[n] == '/' || real[n] == '\0' || root[n - 1] == '/');
}

static bool is_allowed (const marea_sandbox *box, const char *path, bool writing) {
  char real[PATH_MAX];
  if (!resolve(path, real)) return false;
  for (int kind = writing; kind < 2; kind++)
    for (int i = 0; i < ROOTS && box->root[kind][i]; i++)
      if (is_below(real, box->root[kind][i])) return true;
  return false;
}

/* allow(path, writing) -> true | nil, message */
static int guest_allow (lua_State *L) {
  size_t n;
  const char *path = luaL_checklstring(L, 1, &n);
  const bool writing = lua_toboolean(L, 2);
  if (strlen(path) == n && is_allowed(box_of(L), path, writing)) return lua_pushboolean(L, true), 1;
  lua_pushnil(L);
  lua_pushfstring(L, "%s: not in a folder that the sandbox may %s", path, writing ? "write" : "read");
  return 2;
}

void bind_sandbox_path (lua_State *L, bind_state *S, const char *function, const char *path, bool writing) {
  if (S->box && !is_allowed(S->box, path, writing))
    bind_raise(L, S, "%s: '%s' is not in a folder that the sandbox may %s", function, bind_shorten(L, path),
               writing ? "write" : "read");
}

void bind_sandbox_deny (lua_State *L, bind_state *S, const char *function) {
  if (S->box) bind_raise(L, S, "%s: not in a sandbox, whose limits are its host's", function);
}

/* ---- opening and closing ---- */

static bool add_roots (marea_sandbox *box, int kind, const char *const *paths) {
  for (int i = 0; paths && paths[i]; i++) {
    if (i == ROOTS - 1) return false;
    box->root[kind][i] = realpath(paths[i], NULL);
    if (!box->root[kind][i]) return false;
  }
  return true;
}

/* Protected: makes the environment. */
static int build (lua_State *L) {
  static const luaL_Reg libraries[] = {
      {LUA_GNAME, luaopen_base},
      {LUA_STRLIBNAME, luaopen_string},
      {LUA_TABLIBNAME, luaopen_table},
      {LUA_MATHLIBNAME, luaopen_math},
      {LUA_UTF8LIBNAME, luaopen_utf8},
      {LUA_COLIBNAME, luaopen_coroutine},
      {LUA_IOLIBNAME, luaopen_io},
      {LUA_OSLIBNAME, luaopen_os},
      {LUA_DBLIBNAME, luaopen_debug},
      {"marea.core", luaopen_marea_core},
      {NULL, NULL},
  };
  static const luaL_Reg functions[] = {
      {"switch", guest_switch}, {"check", guest_check}, {"guard", guest_guard}, {"loader", guest_loader},
      {"print", guest_print},   {"allow", guest_allow}, {NULL, NULL},
  };
  marea_sandbox *box = box_of(L);
  bind_adopt(L, box->ctx);
  bind_find_state(L)->box = box;
  for (const luaL_Reg *l = libraries; l->name; l++) {
    luaL_requiref(L, l->name, l->func, l->func != luaopen_marea_core);
    lua_pop(L, 1);
  }
  bind_push_loader(L, bind_find_file("marea.guest"));
  luaL_newlib(L, functions);
  lua_pushinteger(L, (lua_Integer)box->max_string);
  lua_setfield(L, -2, "longest");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "loaded");
  for (const luaL_Reg *l = libraries; l->name; l++) { /* `require` finds only the library */
    if (strcmp(l->name, "marea.core") == 0) continue;
    lua_pushnil(L);
    lua_setfield(L, -2, l->name);
  }
  lua_pop(L, 1);
  lua_call(L, 1, 1);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "marea");
  lua_call(L, 1, 1);
  lua_setfield(L, -2, "marea");
  box->environment = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

static void free_roots (marea_sandbox *box) {
  for (int kind = 0; kind < 2; kind++)
    for (int i = 0; i < ROOTS; i++) free(box->root[kind][i]);
}

static marea_status open_parts (marea_sandbox *box, const marea_sandbox_config *c) {
  marea_config config = {.size = sizeof config};
  if (c->tensors) config = *c->tensors;
  if (config.threads == 0) config.threads = 1;
  if (config.max_bytes == 0) config.max_bytes = (size_t)256 << 20;
  config.index_base = 1;
  box->max_tensor_bytes = (double)config.max_bytes;
  box->interrupted = config.interrupted;
  box->interrupted_ud = config.interrupted_ud;
  if (!add_roots(box, 0, c->read) || !add_roots(box, 1, c->write)) return MAREA_EARG;
  marea_status status = marea_open(&config, &box->ctx);
  if (status != MAREA_OK) return status;
  box->L = box->running = lua_newstate(allocate, box);
  if (!box->L) return MAREA_ENOMEM;
  *(marea_sandbox **)lua_getextraspace(box->L) = box;
  lua_pushcfunction(box->L, build);
  return lua_pcall(box->L, 0, 0, 0) == LUA_OK ? MAREA_OK : MAREA_ENOMEM;
}

marea_status marea_sandbox_open (const marea_sandbox_config *config, marea_sandbox **out) {
  if (!out) return MAREA_EARG;
  *out = NULL;
  if (config && config->size != sizeof *config) return MAREA_EVERSION;
  marea_sandbox_config c = config ? *config : (marea_sandbox_config){0};
  marea_sandbox *box = calloc(1, sizeof *box);
  if (!box) return MAREA_ENOMEM;
  box->max_bytes = c.max_lua_bytes ? c.max_lua_bytes : (size_t)32 << 20;
  box->max_string = c.max_string ? c.max_string : (size_t)1 << 20;
  box->max_seconds = c.max_seconds > 0 ? c.max_seconds : 10;
  box->max_instructions = c.max_instructions > 0 ? c.max_instructions : 1e9;
  box->max_flop = c.max_flop > 0 ? c.max_flop : 1e12;
  marea_status status = open_parts(box, &c);
  if (status == MAREA_OK) *out = box;
  else marea_sandbox_close(box);
  return status;
}

void marea_sandbox_close (marea_sandbox *box) {
  if (!box) return;
  if (box->L) lua_close(box->L);
  marea_close(box->ctx);
  free_roots(box);
  free(box);
}

lua_State *marea_sandbox_state (marea_sandbox *box) { return box ? box->L : NULL; }

void marea_sandbox_globals (marea_sandbox *box) {
  if (box) lua_rawgeti(box->L, LUA_REGISTRYINDEX, box->environment);
}

const char *marea_sandbox_error (const marea_sandbox *box) {
  return box ? box->error : "there is no sandbox";
}

const char *marea_sandbox_output (marea_sandbox *box) {
  if (!box) return "";
  box->output[box->printed] = '\0';
  box->printed = 0;
  return box->output;
}

/* ---- values from one state to the other ---- */

/* What values weigh. Shared parts of tables are copied each time, so a small value may become a huge one. */
typedef struct parcel {
  double bytes, tensor_bytes;
  const char *problem; /* NULL: they can pass */
} parcel;

static void weigh (marea_sandbox *box, lua_State *L, int idx, int depth, parcel *p);

static void weigh_table (marea_sandbox *box, lua_State *L, int idx, int depth, parcel *p) {
  if (depth == DEEPEST || !lua_checkstack(L, 4)) p->problem = "a table of more than 16 levels";
  else lua_pushnil(L);
  while (!p->problem && lua_next(L, idx)) {
    const int key = lua_type(L, -2);
    if (key != LUA_TSTRING && key != LUA_TNUMBER && key != LUA_TBOOLEAN) p->problem = "such a key of a table";
    weigh(box, L, lua_gettop(L) - 1, depth + 1, p);
    weigh(box, L, lua_gettop(L), depth + 1, p);
    lua_pop(L, 1);
  }
}

/* Adds the value at idx, an absolute index. Leaves something on the stack when there is a problem. */
static void weigh (marea_sandbox *box, lua_State *L, int idx, int depth, parcel *p) {
  const bind_box *b = bind_to_box(L, bind_find_state(L), idx);
  p->bytes += 40 + (lua_type(L, idx) == LUA_TSTRING ? (double)lua_rawlen(L, idx) : 0);
  if (b && b->t)
    p->tensor_bytes += 400 +
                       (double)marea_tensor_size(b->t) * (double)marea_dtype_size(marea_tensor_dtype(b->t));
  if (b && !b->t) p->problem = "a tensor that was released";
  if (b && b->t && marea_is_planned(b->t)) p->problem = "a planned tensor";
  if (p->problem || b) return;
  switch (lua_type(L, idx)) {
  case LUA_TNIL:
  case LUA_TBOOLEAN:
  case LUA_TNUMBER:
  case LUA_TSTRING: break;
  case LUA_TTABLE: weigh_table(box, L, idx, depth, p); break;
  default: p->problem = luaL_typename(L, idx);
  }
  if (p->bytes > (double)box->max_bytes) p->problem = "more than the sandbox's memory";
  if (p->tensor_bytes > box->max_tensor_bytes) p->problem = "more than the sandbox's memory for tensors";
}

/* Raises in L when the values at first..top may not pass. */
static void check_parcel (marea_sandbox *box, lua_State *L, int first) {
  parcel p = {0};
  const int top = lua_gettop(L);
  for (int i = first; i <= top && !p.problem; i++) weigh(box, L, i, 0, &p);
  if (p.problem)
    luaL_error(L,
               "sandbox: %s cannot pass; what can: nil, booleans, numbers, strings, tensors, tables of these",
               p.problem);
}

/* A tensor of the other context with the same values. */
static void copy_tensor (lua_State *to, marea_tensor *t) {
  bind_state *S = bind_find_state(to);
  if (!S) luaL_error(to, "sandbox: the library is not open in this Lua state, so it takes no tensors");
  marea_context *from = marea_tensor_context(t);
  marea_tensor *dense = NULL, *copy = NULL;
  bind_box *box = bind_box_new(to, S);
  const bool recording = marea_set_recording(from, false);
  marea_status status = bind_apply(from, marea_op_find("contiguous"), t, NULL, &dense);
  marea_set_recording(from, recording);
  if (status != MAREA_OK) luaL_error(to, "sandbox: %s", marea_error(from));
  if (marea_is_planned(dense)) { /* the host plans: a view with gaps gets no copy */
    marea_release(dense);
    luaL_error(to, "sandbox: a view with gaps cannot pass while a plan runs");
  }
  const size_t size = marea_dtype_size(marea_tensor_dtype(t));
  status = marea_empty(S->ctx, marea_tensor_dtype(t), marea_tensor_rank(t), marea_tensor_shape(t), &copy);
  if (status == MAREA_OK)
    memcpy(marea_tensor_data(copy), marea_tensor_data(dense), (size_t)marea_tensor_size(t) * size);
  marea_release(dense);
  if (status != MAREA_OK) luaL_error(to, "sandbox: %s", marea_error(S->ctx));
  bind_box_fill(box, copy);
}

/* Pushes onto `to` a copy of from's value at idx, an absolute index, that was weighed. Raises in `to`. */
static void copy_value (lua_State *from, int idx, lua_State *to) {
  size_t n;
  luaL_checkstack(to, 4, NULL);
  const bind_box *b = bind_to_box(from, bind_find_state(from), idx);
  switch (lua_type(from, idx)) {
  case LUA_TUSERDATA: copy_tensor(to, b->t); break;
  case LUA_TBOOLEAN: lua_pushboolean(to, lua_toboolean(from, idx)); break;
  case LUA_TNUMBER:
    if (lua_isinteger(from, idx)) lua_pushinteger(to, lua_tointeger(from, idx));
    else lua_pushnumber(to, lua_tonumber(from, idx));
    break;
  case LUA_TSTRING: {
    const char *s = lua_tolstring(from, idx, &n);
    lua_pushlstring(to, s, n);
    break;
  }
  case LUA_TTABLE:
    lua_newtable(to);
    luaL_checkstack(to, 4, NULL);
    for (lua_pushnil(from); lua_next(from, idx); lua_pop(from, 1)) {
      copy_value(from, lua_gettop(from) - 1, to);
      copy_value(from, lua_gettop(from), to);
      lua_rawset(to, -3);
    }
    if (bind_is_shape(from, idx) && bind_find_state(to)) bind_set_shape(to, bind_find_state(to));
    break;
  default: lua_pushnil(to);
  }
}

/* ---- running ---- */

typedef struct job {
  marea_sandbox *box;
  const char *text, *name;
  size_t bytes;
  lua_State *host;
  int first, n_args; /* of the arguments on the host's stack */
} job;

static int run_job (lua_State *L) {
  const job *j = lua_touserdata(L, 1);
  lua_settop(L, 0);
  if (luaL_loadbufferx(L, j->text, j->bytes, j->name, "t") != LUA_OK) return lua_error(L);
  marea_sandbox_globals(j->box);
  lua_setupvalue(L, 1, 1);
  for (int i = 0; i < j->n_args; i++) copy_value(j->host, j->first + i, L);
  lua_sethook(L, on_count, LUA_MASKCOUNT, PERIOD);
  lua_call(L, j->n_args, LUA_MULTRET);
  if (j->host) check_parcel(j->box, L, 1);
  bind_sandbox_check(L, j->box); /* it may have ended in the arms of a budget */
  return lua_gettop(L);
}

static void start (marea_sandbox *box) {
  box->spent = false;
  box->active = true;
  box->running = box->L;
  box->instructions = 0;
  box->deadline = now() + box->max_seconds;
  marea_limit_flop(box->ctx, box->max_flop);
  marea_limit_time(box->ctx, box->max_seconds);
  lua_settop(box->L, 0);
}

static void stop (marea_sandbox *box) {
  box->active = box->spent = false;
  lua_sethook(box->L, NULL, 0, 0);
  marea_limit_flop(box->ctx, 0);
  marea_limit_time(box->ctx, 0);
}

/* An error object may be anything; its metamethods are the script's and do not run here. */
static void note_error (marea_sandbox *box) {
  lua_State *L = box->L;
  if (lua_type(L, -1) == LUA_TSTRING) snprintf(box->error, sizeof box->error, "%s", lua_tostring(L, -1));
  else snprintf(box->error, sizeof box->error, "(error object is a %s value)", luaL_typename(L, -1));
  lua_settop(L, 0);
}

/* With what the host gave for a text; NULL: it can be run. */
static const char *refusal (const char *text, size_t bytes, const char *name, lua_State *host, int n_args) {
  if (!text && bytes > 0) return "run: argument 'text' is NULL";
  if (!name) return "run: argument 'name' is NULL";
  if (n_args < 0 || (host && n_args > lua_gettop(host))) return "run: there are not so many arguments";
  return NULL;
}

/* The script's own divisions shall neither trap nor round as the host's do. */
static int call_calmly (lua_State *L, int n) {
  fenv_t host;
  feholdexcept(&host);
  fesetround(FE_TONEAREST);
  const int status = lua_pcall(L, n, LUA_MULTRET, 0);
  fesetenv(&host);
  return status;
}

int marea_sandbox_run (marea_sandbox *box, const char *text, size_t bytes, const char *name, lua_State *host,
                       int n_args) {
  const char *refused = refusal(text, bytes, name, host, n_args);
  if (!box) return -1;
  if (refused) {
    snprintf(box->error, sizeof box->error, "%s", refused);
    return -1;
  }
  if (!host) n_args = 0;
  job j = {box, text, name, bytes, host, host ? lua_gettop(host) - n_args + 1 : 0, n_args};
  lua_State *L = box->L;
  if (host) check_parcel(box, host, j.first);
  start(box);
  lua_pushcfunction(L, run_job);
  lua_pushlightuserdata(L, &j);
  const int status = call_calmly(L, 1);
  stop(box);
  if (host) lua_settop(host, j.first - 1);
  if (status != LUA_OK) {
    note_error(box);
    return -1;
  }
  const int n = lua_gettop(L);
  for (int i = 1; host && i <= n; i++) copy_value(L, i, host);
  if (host) lua_settop(L, 0);
  return n;
}
