/* SPDX-License-Identifier: MIT
** sandbox.c: Lua states for scripts that nobody has read. The state has an allocator that counts bytes, a hook that
** counts instructions, and a context with budgets of its own; lua/marea/sandbox/environment.lua makes its global
** variables.
**
** The hook runs every SANDBOX_PERIOD instructions of a coroutine. It cannot run inside functions that are written in
** C. So the sandbox's versions of these look at the clock (env_guard), and so do the allocator and the reader of
** texts: when the time limit has passed they set the hook for the next instruction. A spent budget stays spent until
** the run is over: the error comes back at every further instruction, so that no pcall holds it.
**
** A function of the host's that is called in a run may start another run. One of the same sandbox is part of the
** outer run and has what is left of its budgets. One of another sandbox has budgets of its own, but ends with the
** outer run's time.
*/
#define _GNU_SOURCE
#include <fenv.h>
#include <lualib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "c_locale.h"
#include "sandbox.h"

/* Bounds for what a single step may take. A script must end at most 100 ms after its time limit (LATE in
   spec/sandbox_spec.lua). */

/* Calls of `next` between two looks at the clock. In an emptied table one walks over all places: a million in the
   usual 32 MiB, which takes 2 ms. */
#define STEPS 8
/* Lua's parser gets so many bytes of a text at once. It walks along all jumps of the text so far for each `or`: 51 in
   a piece, at most 200,000 jumps long in a text of LONGEST_TEXT, which takes 10 to 20 ms. */
#define PIECE 256
/* Instructions that a piece counts as: a text makes one for each 4 bytes, roughly. */
#define PIECE_INSTRUCTIONS 64
#define LONGEST_TEXT ((size_t)1 << 20) /* takes the parser 19 ms (18 ns a byte) */
/* The most `goto` and `break` of a text. Whenever the parser finds a label it moves all jumps that wait for theirs,
   so the time is quadratic: 10 ms for 6000 (43 ms for 12000). */
#define MOST_JUMPS 6000

/* ---- texts ---- */

typedef struct reader {
  marea_sandbox *sandbox;
  const char *text;
  size_t left;
} reader;

/* A lua_Reader, which gives the parser PIECE bytes at a time and looks at the budgets before. */
static const char *read_piece (lua_State *L, void *ud, size_t *n) {
  reader *r = ud;
  const char *piece = r->text;
  r->sandbox->instructions += PIECE_INSTRUCTIONS;
  bind_sandbox_check(L, r->sandbox);
  *n = r->left < PIECE ? r->left : PIECE;
  r->text += *n;
  r->left -= *n;
  return piece;
}

static size_t count_word (const char *text, size_t bytes, const char *word) {
  size_t n = 0;
  const char *end = text + bytes;
  while ((text = memmem(text, (size_t)(end - text), word, strlen(word)))) text += strlen(word), n++;
  return n;
}

/* Pushes the function of a text, never that of a binary chunk, and returns true; or a message. */
static bool load_text (lua_State *L, const char *text, size_t bytes, const char *name) {
  reader r = {bind_sandbox_of(L), text, bytes};
  if (bytes > LONGEST_TEXT) {
    lua_pushfstring(L, "sandbox: a text of %I bytes; it may have %d", (LUAI_UACINT)bytes, (int)LONGEST_TEXT);
    return false;
  }
  const size_t jumps = count_word(text, bytes, "goto") + count_word(text, bytes, "break");
  if (jumps <= MOST_JUMPS) return lua_load(L, read_piece, &r, name, "t") == LUA_OK;
  lua_pushfstring(L, "sandbox: a text with %d times goto and break; it may have %d", (int)jumps, MOST_JUMPS);
  return false;
}

/* ---- what environment.lua is given ---- */

/* switch(thread): the coroutine is about to run. It gets the hook: it may have been created by code without one. */
static int env_switch (lua_State *L) {
  marea_sandbox *sandbox = bind_sandbox_of(L);
  sandbox->instructions += SANDBOX_PERIOD;
  bind_sandbox_check(L, sandbox);
  sandbox->running = lua_tothread(L, 1);
  bind_sandbox_arm(sandbox);
  return 0;
}

static int env_check (lua_State *L) {
  bind_sandbox_check(L, bind_sandbox_of(L));
  return 0;
}

/* ---- functions in C: each call is short or refused ---- */

/* Values that one call may return: 1 MiB of Lua's stack, which each call that passes them on copies. */
#define MOST_VALUES 65536
#define LONGEST_FORMAT 4096 /* bytes; one conversion takes at most 1 us, so a call takes less than 4 ms */

static lua_Integer from_end (lua_Integer at, size_t n) {
  if (at >= 0) return at;
  return at < -(lua_Integer)n ? 0 : (lua_Integer)n + at + 1;
}

/* (s, first, last): a value for each byte */
static void check_bytes (lua_State *L) {
  const size_t n = lua_type(L, 1) == LUA_TSTRING ? lua_rawlen(L, 1) : 0;
  if (n < MOST_VALUES || lua_isnoneornil(L, 3)) return;
  const lua_Integer first = from_end(luaL_optinteger(L, 2, 1), n),
                    last = from_end(luaL_checkinteger(L, 3), n);
  const lua_Integer end = last < (lua_Integer)n ? last : (lua_Integer)n;
  if (end - (first < 1 ? 1 : first) >= MOST_VALUES) luaL_error(L, "string slice too long");
}

/* (t, first, last): a value for each item */
static void check_items (lua_State *L) {
  const lua_Number first = luaL_optnumber(L, 2, 1);
  const lua_Number last = lua_isnoneornil(L, 3) ? (lua_Number)luaL_len(L, 1) : luaL_checknumber(L, 3);
  if (last - first >= MOST_VALUES) luaL_error(L, "too many results to unpack");
}

/* (format, ...) of pack and its like, which pad: to no more than a string may have */
static void check_packing (lua_State *L) {
  size_t n;
  double padding = 0;
  const char *format = luaL_checklstring(L, 1, &n);
  if (n > LONGEST_FORMAT) luaL_argerror(L, 1, "a sandbox's formats have at most 4096 bytes");
  for (const char *at = format; (at = strchr(at, 'c')); at++) padding += fmax(strtod(at + 1, NULL), 0);
  if (padding > (double)bind_sandbox_of(L)->memory.max_string)
    luaL_argerror(L, 1, "it pads to more than a string may have");
}

static const struct {
  const char *name;
  void (*check)(lua_State *L);
} limits[] = {{"bytes", check_bytes}, {"items", check_items}, {"packing", check_packing}};

/* Upvalues: f, the position of its limit or -1. */
static int guarded (lua_State *L) {
  lua_CFunction f = lua_tocfunction(L, lua_upvalueindex(1));
  const lua_Integer limit = lua_tointeger(L, lua_upvalueindex(2));
  if (limit >= 0) limits[limit].check(L);
  int n = f(L);
  bind_sandbox_check(L, bind_sandbox_of(L));
  return n;
}

/* `next`, with a look at the clock at every STEPS-th call: in an emptied table a call may take long */
static int env_next (lua_State *L) {
  marea_sandbox *sandbox = bind_sandbox_of(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 2);
  if (++sandbox->steps % STEPS == 0) bind_sandbox_check(L, sandbox);
  if (lua_next(L, 1)) return 2;
  lua_pushnil(L);
  return 1;
}

/* guard(f, limit or nil) -> a function that checks its arguments by the limit of this name, calls f, a function in C
   without upvalues, and then looks at the budgets */
static int env_guard (lua_State *L) {
  int limit = lua_isnoneornil(L, 2) ? -1 : (int)(sizeof limits / sizeof limits[0]) - 1;
  while (limit >= 0 && strcmp(limits[limit].name, lua_tostring(L, 2)) != 0) limit--;
  lua_settop(L, 1);
  lua_pushinteger(L, limit);
  lua_pushcclosure(L, guarded, 2);
  return 1;
}

/* Is the table at 1 a plain one? */
static bool is_plain (lua_State *L) {
  if (lua_type(L, 1) != LUA_TTABLE) return false;
  if (!lua_getmetatable(L, 1)) return true;
  lua_pop(L, 1);
  return false;
}

static bool is_short_format (lua_State *L) {
  size_t n;
  const char *format = luaL_checklstring(L, 1, &n);
  return n <= LONGEST_FORMAT && !strstr(format, "%q");
}

static bool is_short_concat (lua_State *L) {
  size_t separator = 0;
  if (!is_plain(L)) return false;
  luaL_optlstring(L, 2, "", &separator);
  const double last = (double)luaL_optinteger(L, 4, (lua_Integer)lua_rawlen(L, 1));
  const double n = last - (double)luaL_optinteger(L, 3, 1);
  return n < LONGEST_FORMAT && n * (double)separator <= (double)bind_sandbox_of(L)->memory.max_string;
}

/* (t, position, ..) of insert and remove */
static bool is_short_move (lua_State *L) {
  return is_plain(L) &&
         (!lua_isinteger(L, 2) || (double)lua_rawlen(L, 1) - (double)lua_tointeger(L, 2) <= MOST_VALUES);
}

static const struct {
  const char *name;
  bool (*is_short)(lua_State *L);
} works[] = {{"format", is_short_format}, {"concat", is_short_concat}, {"move", is_short_move}};

/* Upvalues: f, -1, its position in `works`, slow. */
static int eased (lua_State *L) {
  if (works[lua_tointeger(L, lua_upvalueindex(3))].is_short(L)) return guarded(L);
  lua_pushvalue(L, lua_upvalueindex(4));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

/* ease(f, work, slow) -> a function that calls f, a function in C, where its work is short, and else `slow`, which
   does the same in Lua, where the hook counts */
static int env_ease (lua_State *L) {
  int work = (int)(sizeof works / sizeof works[0]) - 1;
  while (work > 0 && strcmp(works[work].name, luaL_checkstring(L, 2)) != 0) work--;
  lua_pushvalue(L, 1);
  lua_pushinteger(L, -1);
  lua_pushinteger(L, work);
  lua_pushvalue(L, 3);
  lua_pushcclosure(L, eased, 4);
  return 1;
}

/* load(text, name, environment) -> function | nil, message */
static int env_load (lua_State *L) {
  size_t n;
  const char *text = luaL_checklstring(L, 1, &n), *name = luaL_checkstring(L, 2);
  lua_settop(L, 3);
  if (!load_text(L, text, n, name)) {
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  lua_pushvalue(L, 3);
  lua_setupvalue(L, -2, 1);
  return 1;
}

/* loader(name): the function that makes a module of the library; nil: there is none */
static int env_loader (lua_State *L) {
  const bind_file *f = bind_find_file(luaL_checkstring(L, 1));
  if (f) bind_push_loader(L, f);
  else lua_pushnil(L);
  return 1;
}

static int env_print (lua_State *L) {
  marea_sandbox *sandbox = bind_sandbox_of(L);
  size_t n;
  const char *text = luaL_checklstring(L, 1, &n);
  if (n > SANDBOX_OUTPUT - sandbox->printed) n = SANDBOX_OUTPUT - sandbox->printed;
  memcpy(sandbox->output + sandbox->printed, text, n);
  sandbox->printed += n;
  return 0;
}

/* allow(path, writing) -> true | nil, message */
static int env_allow (lua_State *L) {
  size_t n;
  const char *path = luaL_checklstring(L, 1, &n);
  const bool writing = lua_toboolean(L, 2);
  if (strlen(path) == n && bind_sandbox_allows(bind_sandbox_of(L), path, writing))
    return lua_pushboolean(L, true), 1;
  lua_pushnil(L);
  lua_pushfstring(L, "%s: not in a folder that the sandbox may %s", path, writing ? "write" : "read");
  return 2;
}

/* ---- opening and closing ---- */

static bool add_roots (marea_sandbox *sandbox, int kind, const char *const *paths) {
  for (int i = 0; paths && paths[i]; i++) {
    if (i == SANDBOX_ROOTS - 1) return false;
    sandbox->root[kind][i] = realpath(paths[i], NULL);
    if (!sandbox->root[kind][i]) return false;
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
      {"switch", env_switch}, {"check", env_check}, {"guard", env_guard}, {"loader", env_loader},
      {"print", env_print},   {"allow", env_allow}, {"load", env_load},   {"next", env_next},
      {"ease", env_ease},     {NULL, NULL},
  };
  marea_sandbox *sandbox = bind_sandbox_of(L);
  bind_adopt(L, sandbox->ctx);
  bind_find_state(L)->sandbox = sandbox;
  for (const luaL_Reg *l = libraries; l->name; l++) {
    luaL_requiref(L, l->name, l->func, l->func != luaopen_marea_core);
    lua_pop(L, 1);
  }
  bind_push_loader(L, bind_find_file("marea.sandbox.environment"));
  luaL_newlib(L, functions);
  lua_pushinteger(L, (lua_Integer)sandbox->memory.max_string);
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
  sandbox->environment = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

static void free_roots (marea_sandbox *sandbox) {
  for (int kind = 0; kind < 2; kind++)
    for (int i = 0; i < SANDBOX_ROOTS; i++) free(sandbox->root[kind][i]);
}

static marea_status open_parts (marea_sandbox *sandbox, const marea_sandbox_config *c) {
  marea_config config = {.size = sizeof config};
  if (c->tensors) config = *c->tensors;
  if (config.threads == 0) config.threads = 1;
  if (config.max_bytes == 0) config.max_bytes = (size_t)256 << 20;
  config.index_base = 1;
  sandbox->max_result_bytes = (double)(c->max_result_bytes ? c->max_result_bytes : config.max_bytes);
  sandbox->interrupted = config.interrupted;
  sandbox->interrupted_ud = config.interrupted_ud;
  if (!add_roots(sandbox, 0, c->read) || !add_roots(sandbox, 1, c->write)) return MAREA_EARG;
  marea_status status = marea_open(&config, &sandbox->ctx);
  if (status != MAREA_OK) return status;
  sandbox->L = sandbox->running = lua_newstate(bind_sandbox_allocate, sandbox);
  if (!sandbox->L) return MAREA_ENOMEM;
  *(marea_sandbox **)lua_getextraspace(sandbox->L) = sandbox;
  lua_pushcfunction(sandbox->L, build);
  return lua_pcall(sandbox->L, 0, 0, 0) == LUA_OK ? MAREA_OK : MAREA_ENOMEM;
}

marea_status marea_sandbox_open (const marea_sandbox_config *config, marea_sandbox **out) {
  if (!out) return MAREA_EARG;
  *out = NULL;
  if (config && config->size != sizeof *config) return MAREA_EVERSION;
  marea_sandbox_config c = config ? *config : (marea_sandbox_config){0};
  marea_sandbox *sandbox = calloc(1, sizeof *sandbox);
  if (!sandbox) return MAREA_ENOMEM;
  sandbox->memory.max_bytes = c.max_lua_bytes ? c.max_lua_bytes : (size_t)32 << 20;
  sandbox->memory.max_string = c.max_string ? c.max_string : (size_t)1 << 20;
  sandbox->max_seconds = c.max_seconds > 0 ? c.max_seconds : 10;
  sandbox->max_instructions = c.max_instructions > 0 ? c.max_instructions : 1e9;
  sandbox->max_flop = c.max_flop > 0 ? c.max_flop : 1e12;
  marea_status status = open_parts(sandbox, &c);
  if (status == MAREA_OK) *out = sandbox;
  else marea_sandbox_close(sandbox);
  return status;
}

void marea_sandbox_close (marea_sandbox *sandbox) {
  if (!sandbox || sandbox->active) return;
  if (sandbox->L) lua_close(sandbox->L);
  bind_sandbox_free_memory(&sandbox->memory);
  marea_close(sandbox->ctx);
  free_roots(sandbox);
  free(sandbox);
}

lua_State *marea_sandbox_state (marea_sandbox *sandbox) { return sandbox ? sandbox->L : NULL; }

void marea_sandbox_globals (marea_sandbox *sandbox) {
  if (sandbox) lua_rawgeti(sandbox->L, LUA_REGISTRYINDEX, sandbox->environment);
}

const char *marea_sandbox_error (const marea_sandbox *sandbox) {
  return sandbox ? sandbox->error : "there is no sandbox";
}

const char *marea_sandbox_output (marea_sandbox *sandbox) {
  if (!sandbox) return "";
  sandbox->output[sandbox->printed] = '\0';
  sandbox->printed = 0;
  return sandbox->output;
}

/* ---- running ---- */

typedef struct job {
  marea_sandbox *sandbox;
  const char *text, *name;
  size_t bytes;
  lua_State *host;
  int first, n_args; /* of the arguments on the host's stack */
  lua_State *L;      /* that it runs in; its results lie there from `base` + 1 on */
  int base, results;
} job;

/* Raises in L when its values from `first` on must not be passed to the host. */
static void check_results (lua_State *L, marea_sandbox *sandbox, int first) {
  bool misuse;
  if (bind_sandbox_weigh(sandbox, L, first, &misuse)) lua_error(L);
}

static int run_job (lua_State *L) {
  const job *j = lua_touserdata(L, 1);
  lua_settop(L, 0);
  if (!load_text(L, j->text, j->bytes, j->name)) return lua_error(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, j->sandbox->environment);
  lua_setupvalue(L, 1, 1);
  for (int i = 0; i < j->n_args; i++) bind_sandbox_copy(j->sandbox, j->host, j->first + i, L);
  bind_sandbox_arm(j->sandbox);
  lua_call(L, j->n_args, LUA_MULTRET);
  if (j->host) check_results(L, j->sandbox, 1);
  bind_sandbox_check(L, j->sandbox); /* a budget may have been spent by the script's very last step */
  return lua_gettop(L);
}

/* Protected, in the host: pushes copies of the results. */
static int copy_results (lua_State *host) {
  const job *j = lua_touserdata(host, 1);
  lua_settop(host, 0);
  for (int i = 1; i <= j->results; i++) bind_sandbox_copy(j->sandbox, j->L, j->base + i, host);
  return j->results;
}

/* The sandbox that a state is in; NULL: none. */
static marea_sandbox *box_around (lua_State *L) {
  const bind_state *S = L ? bind_find_state(L) : NULL;
  return S ? S->sandbox : NULL;
}

/* Begins a run. `outer`: the sandbox whose script has called, through a function of the host's; its time bounds this
   run's too. */
static void start (marea_sandbox *sandbox, const marea_sandbox *outer) {
  double seconds = sandbox->max_seconds;
  sandbox->spent = false;
  sandbox->active = true;
  sandbox->running = sandbox->L;
  sandbox->instructions = 0;
  sandbox->deadline = bind_clock() + seconds;
  if (outer && outer->active && outer->deadline < sandbox->deadline) {
    sandbox->deadline = outer->deadline;
    seconds = fmax(outer->deadline - bind_clock(), 1e-9);
  }
  marea_limit_flop(sandbox->ctx, sandbox->max_flop);
  marea_limit_time(sandbox->ctx, seconds);
  lua_settop(sandbox->L, 0);
}

static void stop (marea_sandbox *sandbox) {
  sandbox->active = sandbox->spent = false;
  lua_sethook(sandbox->L, NULL, 0, 0);
  marea_limit_flop(sandbox->ctx, 0);
  marea_limit_time(sandbox->ctx, 0);
}

/* An error object may be anything; its metamethods are the script's and do not run here. Takes it off L's stack. */
static int note_error (marea_sandbox *sandbox, lua_State *L) {
  if (lua_type(L, -1) == LUA_TSTRING)
    snprintf(sandbox->error, sizeof sandbox->error, "%s", lua_tostring(L, -1));
  else snprintf(sandbox->error, sizeof sandbox->error, "(error object is a %s value)", luaL_typename(L, -1));
  lua_pop(L, 1);
  return -1;
}

/* Calls with the usual floating-point mode: divisions in Lua neither trap nor round as the host has set it. */
static int call_calmly (lua_State *L, int n) {
  fenv_t host;
  feholdexcept(&host);
  fesetround(FE_TONEAREST);
  const int status = lua_pcall(L, n, LUA_MULTRET, 0);
  fesetenv(&host);
  return status;
}

/* Runs the job and copies what it returns. */
static int run (job *j) {
  marea_sandbox *sandbox = j->sandbox;
  lua_State *L = j->L;
  if (!lua_checkstack(L, 4)) {
    snprintf(sandbox->error, sizeof sandbox->error, "sandbox: stack overflow");
    return -1;
  }
  lua_pushcfunction(L, run_job);
  lua_pushlightuserdata(L, j);
  const int status = call_calmly(L, 1);
  sandbox->running = L;
  if (j->host) lua_settop(j->host, j->first - 1);
  if (status != LUA_OK) return note_error(sandbox, L);
  j->results = lua_gettop(L) - j->base;
  if (!j->host) return j->results;
  lua_pushcfunction(j->host, copy_results);
  lua_pushlightuserdata(j->host, j);
  const int copied = lua_pcall(j->host, 1, LUA_MULTRET, 0);
  lua_settop(L, j->base);
  return copied == LUA_OK ? j->results : note_error(sandbox, j->host);
}

/* May the arguments pass? Raises in the host when they are of a kind that may not. */
static bool check_arguments (marea_sandbox *sandbox, lua_State *host, int first) {
  bool misuse;
  const int top = lua_gettop(host);
  if (!bind_sandbox_weigh(sandbox, host, first, &misuse)) return true;
  if (misuse) lua_error(host);
  note_error(sandbox, host);
  lua_settop(host, top);
  return false;
}

/* What is wrong with the host's arguments; NULL: nothing, the text can be run. */
static const char *refusal (const char *text, size_t bytes, const char *name, lua_State *host, int n_args) {
  if (!text && bytes > 0) return "run: argument 'text' is NULL";
  if (!name) return "run: argument 'name' is NULL";
  if (n_args < 0 || (host && n_args > lua_gettop(host))) return "run: there are not so many arguments";
  return NULL;
}

int marea_sandbox_run (marea_sandbox *sandbox, const char *text, size_t bytes, const char *name,
                       lua_State *host, int n_args) {
  const char *refused = refusal(text, bytes, name, host, n_args);
  if (!sandbox) return -1;
  if (refused) {
    snprintf(sandbox->error, sizeof sandbox->error, "%s", refused);
    return -1;
  }
  if (!host) n_args = 0;
  const bool outermost = !sandbox->active;
  job j = {sandbox, text,
           name,    bytes,
           host,    host ? lua_gettop(host) - n_args + 1 : 0,
           n_args,  .L = sandbox->running};
  if (host) luaL_checkstack(host, 4, NULL);
  const marea_sandbox *outer = box_around(host);
  if (outer == sandbox)
    snprintf(sandbox->error, sizeof sandbox->error, "sandbox: its own state cannot be the host");
  if (outer == sandbox || (host && !check_arguments(sandbox, host, j.first))) {
    lua_settop(host, j.first - 1);
    return -1;
  }
  const locale_t before = marea_use_c_locale();
  if (outermost) start(sandbox, outer);
  j.base = lua_gettop(j.L);
  const int n = run(&j);
  if (outermost) stop(sandbox);
  uselocale(before);
  return n;
}
