/* SPDX-License-Identifier: MIT
** module.c: opens marea.core: one context for each Lua state, one function for each operator. The context
** is the first thing that is made, so it is the last that is finalized when the state closes.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

#include "bind.h"

/* ---- memory ---- */

/* core.collect(): collects garbage now; graphs that nothing refers to are freed with it */
static int core_collect (lua_State *L) {
  bind_state *S = bind_self(L);
  bind_enter(L, S);
  bind_collect(L, S);
  return 0;
}

static void set_bytes (lua_State *L, const char *key, uint64_t value) {
  lua_pushinteger(L, (lua_Integer)value);
  lua_setfield(L, -2, key);
}

static int core_memory (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_memory_info m = marea_memory(bind_enter(L, S));
  lua_createtable(L, 0, 6);
  set_bytes(L, "live", m.live);
  set_bytes(L, "peak", m.peak);
  set_bytes(L, "pooled", m.pooled);
  set_bytes(L, "blocks", m.blocks);
  set_bytes(L, "mallocs", m.mallocs);
  set_bytes(L, "boxes", (uint64_t)S->boxes);
  return 1;
}

/* Sets `made` in the first n tables of the list on top, the line that made their box's tensor, and removes the
   others. */
static void note_places (lua_State *L, const bind_state *S, bind_box *const *boxes, int n, int most) {
  for (int i = 0; i < most; i++) {
    bind_place made = i < n ? bind_place_of(marea_place_of(boxes[i]->t)) : (bind_place){0};
    if (made.line > 0) {
      lua_rawgeti(L, -1, i + 1);
      lua_pushfstring(L, "%s:%d", S->source[made.source], made.line);
      lua_setfield(L, -2, "made");
      lua_pop(L, 1);
    } else if (i >= n) {
      lua_pushnil(L);
      lua_rawseti(L, -2, i + 1);
    }
  }
}

/* core.memory_largest(n) -> list of {tensor =, made = "FILE:LINE"} */
static int core_memory_largest (lua_State *L) {
  bind_state *S = bind_self(L);
  bind_box *boxes[MAREA_MOST_LARGEST];
  marea_tensor *list[MAREA_MOST_LARGEST];
  marea_status status;
  int n;
  marea_context *ctx = bind_enter(L, S);
  int64_t most = bind_integer(L, S, 1, "memory_largest", "n");
  if (most < 1 || most > MAREA_MOST_LARGEST)
    return bind_raise_argument(L, S, "memory_largest", "n", "an integer from 1 to 64", 1);
  lua_createtable(L, (int)most, 0);
  for (int i = 0; i < most; i++) {
    lua_createtable(L, 0, 2);
    boxes[i] = bind_box_new(L, S);
    lua_setfield(L, -2, "tensor");
    lua_rawseti(L, -2, i + 1);
  }
  BIND_RETRY(L, S, 0, NULL, status, marea_memory_largest(ctx, (int)most, list, &n));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  for (int i = 0; i < n; i++) bind_box_fill(boxes[i], list[i]);
  note_places(L, S, boxes, n, (int)most);
  return 1;
}

static int core_memory_reset_peak (lua_State *L) {
  marea_memory_reset_peak(bind_enter(L, bind_self(L)));
  return 0;
}

/* core.memory_limit(bytes or nil) */
static int core_memory_limit (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_context *ctx = bind_enter(L, S);
  bind_sandbox_deny(L, S, "memory_limit");
  int64_t bytes = lua_isnoneornil(L, 1) ? 0 : bind_integer(L, S, 1, "memory_limit", "bytes");
  if (bytes < 0 || (bytes == 0 && !lua_isnoneornil(L, 1)))
    return bind_raise_argument(L, S, "memory_limit", "bytes", "a positive integer or nil", 1);
  marea_memory_limit(ctx, (size_t)bytes);
  return 0;
}

static int core_memory_trim (lua_State *L) {
  marea_memory_trim(bind_enter(L, bind_self(L)));
  return 0;
}

/* core.memory_fail(k, from_then_on) */
static int core_memory_fail (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_context *ctx = bind_enter(L, S);
  bind_sandbox_deny(L, S, "memory_fail");
  int64_t k = bind_integer(L, S, 1, "memory_fail", "k");
  if (k < 0) return bind_raise_argument(L, S, "memory_fail", "k", "an integer >= 0", 1);
  marea_memory_fail(ctx, (uint64_t)k, lua_toboolean(L, 2));
  return 0;
}

/* ---- settings and facts ---- */

static int core_set_threads (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_context *ctx = bind_enter(L, S);
  bind_sandbox_deny(L, S, "set_threads");
  int64_t n = bind_integer(L, S, 1, "set_threads", "n");
  if (n < 1 || n > INT32_MAX)
    return bind_raise_argument(L, S, "set_threads", "n", "an integer from 1 to 2147483647", 1);
  marea_status status = marea_set_threads(ctx, (int)n);
  return status == MAREA_OK ? 0 : bind_raise_status(L, S, status);
}

static int core_threads (lua_State *L) {
  lua_pushinteger(L, marea_threads(bind_enter(L, bind_self(L))));
  return 1;
}

static int core_seed (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_seed(bind_enter(L, S), (uint64_t)bind_integer(L, S, 1, "seed", "n"));
  return 0;
}

/* core.random_state() -> seed, counter */
static int core_random_state (lua_State *L) {
  marea_random_state r = marea_random(bind_enter(L, bind_self(L)));
  lua_pushinteger(L, (lua_Integer)r.seed);
  lua_pushinteger(L, (lua_Integer)r.counter);
  return 2;
}

static int core_set_random_state (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_context *ctx = bind_enter(L, S);
  marea_random_state r = {(uint64_t)bind_integer(L, S, 1, "set_random_state", "seed"),
                          (uint64_t)bind_integer(L, S, 2, "set_random_state", "counter")};
  marea_set_random(ctx, r);
  return 0;
}

static void set_string (lua_State *L, const char *key, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

/* The instruction sets that a context can be opened with, the best one last. */
static void push_isas (lua_State *L) {
  int n = 0;
  while (marea_isa_at(n)) n++;
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushstring(L, marea_isa_at(i));
    lua_rawseti(L, -2, n - i);
  }
}

/* dtypes: the names in their order; float_dtypes: those of floats as keys. */
static void add_dtypes (lua_State *L, int module) {
  lua_newtable(L);
  lua_newtable(L);
  for (int d = 0; d < MAREA_DTYPE_COUNT; d++) {
    lua_pushstring(L, marea_dtype_name((marea_dtype)d));
    lua_rawseti(L, -3, d + 1);
    if (!marea_dtype_is_float((marea_dtype)d)) continue;
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, marea_dtype_name((marea_dtype)d));
  }
  lua_setfield(L, module, "float_dtypes");
  lua_setfield(L, module, "dtypes");
}

static int core_info (lua_State *L) {
  marea_context *ctx = bind_enter(L, bind_self(L));
  lua_createtable(L, 0, 7);
  set_string(L, "version", MAREA_VERSION);
  set_string(L, "isa", marea_isa(ctx));
  push_isas(L);
  lua_setfield(L, -2, "isas");
  set_string(L, "blas", marea_blas());
  set_bytes(L, "threads", (uint64_t)marea_threads(ctx));
  set_string(L, "blas_coretype", getenv("OPENBLAS_CORETYPE"));
  set_string(L, "lua", LUA_RELEASE);
  return 1;
}

static int core_recording (lua_State *L) {
  lua_pushboolean(L, marea_recording(bind_enter(L, bind_self(L))));
  return 1;
}

static int core_autocasting (lua_State *L) {
  const int dtype = marea_autocast(bind_enter(L, bind_self(L)));
  lua_pushstring(L, dtype < 0 ? NULL : marea_dtype_name((marea_dtype)dtype));
  return 1;
}

static int core_planning (lua_State *L) {
  lua_pushboolean(L, marea_planning(bind_enter(L, bind_self(L))));
  return 1;
}

static int core_tape_length (lua_State *L) {
  lua_pushinteger(L, (lua_Integer)marea_tape_length(bind_enter(L, bind_self(L))));
  return 1;
}

static int core_is_tensor (lua_State *L) {
  lua_pushboolean(L, bind_to_box(L, bind_self(L), 1) != NULL);
  return 1;
}

/* core.has_grad(t): has a gradient arrived at it? Makes no tensor, as t.grad does. */
static int core_has_grad (lua_State *L) {
  lua_pushboolean(L, marea_grad_of(bind_check(L, bind_self(L), 1, "has_grad", "t")) != NULL);
  return 1;
}

/* core.origin(t) -> the line "FILE:LINE" that made a tensor, the operator's name; nil for what is not known, and for
   what is no tensor or holds none */
static int core_origin (lua_State *L) {
  bind_state *S = bind_self(L);
  const bind_box *b = bind_to_box(L, S, 1);
  if (!b || !b->t) return 0;
  if (b->made_line > 0) lua_pushfstring(L, "%s:%d", S->source[b->made_source], b->made_line);
  else lua_pushnil(L);
  lua_pushstring(L, b->made_by ? marea_op_name(b->made_by) : NULL);
  return 2;
}

/* core.library(prefix): the library's files are loaded from the folder of this prefix, as in
   "@/usr/share/lua/5.4/marea/" */
static int core_library (lua_State *L) {
  bind_state *S = bind_self(L);
  bind_string(L, S, 1, "library", "prefix");
  bind_add_library(L, S, 1);
  return 0;
}

/* core.module_of(source) -> the module of the library, "marea.nn.conv", that this source, as debug.getinfo gives it,
   is; nil: it is a script's */
static int core_module_of (lua_State *L) {
  bind_state *S = bind_self(L);
  const char *source = bind_string(L, S, 1, "module_of", "source");
  const bind_file *f = bind_file_of(S, source, lua_rawlen(L, 1));
  lua_pushstring(L, f ? f->name : NULL);
  return 1;
}

/* Its address is the key in the registry of the coroutines of cleanups, by cleanup. The table keeps neither alive; it is
   here because no weak table may be in reach of a script. */
static const char threads_key;

/* core.keep_thread(cleanup): the running coroutine is the one that thread_of tells, for as long as it lives. True, and
   nothing is kept, where it is the main one, which no error ends. */
static int core_keep_thread (lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_pushthread(L)) {
    lua_pushboolean(L, true);
    return 1;
  }
  lua_pop(L, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &threads_key) != LUA_TTABLE) {
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "kv");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &threads_key);
  }
  lua_pushvalue(L, 1);
  lua_pushthread(L);
  lua_rawset(L, -3);
  return 0;
}

/* core.thread_of(cleanup) -> its coroutine; nil: nothing but the cleanup knew it any more */
static int core_thread_of (lua_State *L) {
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &threads_key) != LUA_TTABLE) return 0;
  lua_insert(L, 1);
  lua_rawget(L, 1);
  return 1;
}

/* core.raise(message): raises as the operators do, with the script's line and the layer */
static int core_raise (lua_State *L) {
  bind_state *S = bind_self(L);
  return bind_raise(L, S, "%s", bind_string(L, S, 1, "raise", "message"));
}

static const luaL_Reg functions[] = {
    {"tensor", bind_tensor_new},
    {"bytes", bind_bytes_new},
    {"is_tensor", core_is_tensor},
    {"shape", bind_make_shape},
    {"is_shape", bind_tell_shape},
    {"op_names", bind_op_names},
    {"op_info", bind_op_info},
    {"each", bind_each},
    {"have_gradients", bind_have_gradients},
    {"clear_gradients", bind_clear_gradients},
    {"scope", bind_scope_call},
    {"no_grad", bind_no_grad},
    {"autocast", bind_autocast},
    {"autocasting", core_autocasting},
    {"plan", bind_plan},
    {"planning", core_planning},
    {"shield", bind_shield},
    {"interruptible", bind_interruptible},
    {"protected", bind_catch},
    {"interrupt", bind_interrupt},
    {"closer", bind_closer},
    {"interrupt_ends_line", bind_ends_line},
    {"recording", core_recording},
    {"grad", bind_grad},
    {"has_grad", core_has_grad},
    {"tape_length", core_tape_length},
    {"blame", bind_blame},
    {"on_not_finite", bind_on_not_finite},
    {"seed", core_seed},
    {"random_state", core_random_state},
    {"set_random_state", core_set_random_state},
    {"set_threads", core_set_threads},
    {"threads", core_threads},
    {"info", core_info},
    {"memory", core_memory},
    {"memory_largest", core_memory_largest},
    {"memory_reset_peak", core_memory_reset_peak},
    {"memory_limit", core_memory_limit},
    {"memory_trim", core_memory_trim},
    {"memory_fail", core_memory_fail},
    {"collect", core_collect},
    {"profile_start", bind_profile_start},
    {"profile_stop", bind_profile_stop},
    {"sandbox", bind_sandbox_new},
    {"library", core_library},
    {"module_of", core_module_of},
    {"origin", core_origin},
    {"argument_at_work", bind_argument_at_work},
    {"explain_with", bind_explain_with},
    {"failed", bind_fail},
    {"last_failure", bind_last_failure},
    {"raise", core_raise},
    {"keep_thread", core_keep_thread},
    {"thread_of", core_thread_of},
    {NULL, NULL},
};

/* ---- open and close ---- */

static int threads_wanted (lua_State *L) {
  const char *text = getenv("MAREA_THREADS");
  if (!text || !*text) return 0;
  char *end;
  long n = strtol(text, &end, 10);
  if (*end || n < 1 || n > INT32_MAX)
    luaL_error(L, "MAREA_THREADS: expected a positive integer, got '%s'", text);
  return (int)n;
}

static bool hook_is_waiting (void *ud) { return bind_interrupt_pending(ud); }

/* Warnings of a context that belongs to the state go where Lua's own do, who shows them after warn("@on"). */
static void warn_in_lua (void *ud, marea_log_level level, const char *text) {
  if (level < MAREA_LOG_WARNING) return;
  lua_warning(ud, "marea: ", 1);
  lua_warning(ud, text, 0);
}

static void open_context (lua_State *L, bind_state *S) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  marea_config config = {.size = sizeof config,
                         .threads = threads_wanted(L),
                         .index_base = 1,
                         .interrupted = hook_is_waiting,
                         .interrupted_ud = lua_tothread(L, -1),
                         .log = warn_in_lua,
                         .log_ud = lua_tothread(L, -1)};
  lua_pop(L, 1);
  marea_status status = marea_open(&config, &S->ctx);
  if (status == MAREA_OK) return;
  bind_forget_state(L);
  const char *trouble = marea_blas_trouble(config.threads);
  if (status == MAREA_ENOMEM) luaL_error(L, "marea: %s", trouble ? trouble : "out of memory");
  const char *isa = getenv("MAREA_ISA"), *conv = getenv("MAREA_CONV");
  luaL_error(L, "marea: MAREA_ISA ('%s'), MAREA_CONV ('%s') or MAREA_THREADS (%d) asks for what is not here",
             isa ? isa : "", conv ? conv : "", config.threads);
}

static void push_op (lua_State *L, int state, const marea_op *op, lua_CFunction f) {
  lua_pushvalue(L, state);
  lua_pushlightuserdata(L, (void *)op);
  lua_pushcclosure(L, f, 2);
}

/* Fills the tables of functions and of methods (absolute indices) from the registry. */
static void add_ops (lua_State *L, int state, int ops, int methods) {
  for (int i = 0; i < marea_op_count(); i++) {
    const marea_op *op = marea_op_at(i);
    const marea_input_spec *inputs;
    int n = marea_op_inputs(op, &inputs);
    if (n > BIND_FEW)
      luaL_error(L, "marea: operator %s has more than %d inputs", marea_op_name(op), BIND_FEW);
    push_op(L, state, op, bind_op_call);
    lua_pushvalue(L, -1);
    lua_setfield(L, ops, marea_op_name(op));
    if (n > 0) lua_setfield(L, methods, marea_op_name(op));
    else lua_pop(L, 1);
    if (!marea_op_elementwise(op)) continue;
    lua_pushfstring(L, "%s_", marea_op_name(op));
    push_op(L, state, op, bind_op_in_place);
    lua_rawset(L, methods);
  }
}

/* The file of the program that a function belongs to; NULL: unknown. */
static const void *file_of (lua_CFunction f) {
  Dl_info info;
  return f && dladdr((const void *)(uintptr_t)f, &info) ? info.dli_fbase : NULL;
}

/* A module that was linked to a Lua of its own must not work on the states of another one, which a program may have
   inside without showing it. Then no function of the state's libraries lies where our lua_newstate does. */
static void check_one_lua (lua_State *L) {
  static const char *const known[][2] = {
      {"string", "rep"}, {"table", "concat"}, {"math", "floor"}, {"coroutine", "create"}};
  const void *ours = file_of((lua_CFunction)(uintptr_t)lua_newstate);
  bool same = !ours, other = false;
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
    if (lua_getfield(L, -1, known[i][0]) == LUA_TTABLE) {
      lua_getfield(L, -1, known[i][1]);
      const void *theirs = file_of(lua_tocfunction(L, -1));
      same |= theirs == ours;
      other |= theirs && theirs != ours;
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  if (other && !same)
    luaL_error(L, "marea: this program has a Lua inside that it does not show to modules, and the module was "
                  "built with "
                  "LINK_LUA=1 for another; link libmarea_lua.a and libmarea.a into the program, or link it "
                  "with -Wl,-E");
}

/* The module's references to Lua are weak, but for luaL_error (see the Makefile); of this one the compiler is to know
   it. */
#pragma weak lua_newuserdatauv

/* Another version of Lua lacks functions, which of them tells it from its neighbours. One that has all tells us by
   luaL_checkversion. */
void bind_check_version (lua_State *L) {
  if (lua_newuserdatauv) {
    luaL_checkversion(L);
    return;
  }
  const char *version = dlsym(RTLD_DEFAULT, "lua_isinteger") ? "5.3"
                        : dlsym(RTLD_DEFAULT, "lua_callk")   ? "5.2"
                                                             : "5.1";
  luaL_error(L, "marea: this is Lua %s; Marea needs Lua 5.4", version);
}

int luaopen_marea_core (lua_State *L) {
  bind_check_version(L);
  lua_settop(L, 0);
  check_one_lua(L);
  bind_state *S = bind_find_state(L);
  if (S) bind_push_state(L);
  else S = bind_state_new(L);
  if (!S->ctx) open_context(L, S);
  if (S->metatable[BIND_BOX].reference == 0) {
    bind_shape_open(L);
    bind_scope_open(L);
    bind_io_open(L);
    bind_system_open(L);
    bind_profile_open(L);
    bind_sandbox_module(L);
  }
  lua_newtable(L); /* 2: the module */
  lua_newtable(L); /* 3: operators */
  lua_newtable(L); /* 4: methods */
  lua_pushvalue(L, 1);
  luaL_setfuncs(L, bind_methods, 1);
  add_ops(L, 1, 3, 4);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 4);
  bind_box_open(L);
  lua_settop(L, 4);
  lua_setfield(L, 2, "methods");
  lua_setfield(L, 2, "ops");
  bind_push_fields(L);
  lua_setfield(L, 2, "fields");
  add_dtypes(L, 2);
  lua_pushvalue(L, 1);
  luaL_setfuncs(L, functions, 1);
  lua_pushvalue(L, 1);
  luaL_setfuncs(L, bind_io_functions, 1);
  lua_newtable(L); /* the same by themselves, since all of them are functions of `marea` */
  for (const luaL_Reg *f = bind_io_functions; f->name; f++) {
    lua_getfield(L, 2, f->name);
    lua_setfield(L, -2, f->name);
  }
  lua_setfield(L, 2, "files");
  lua_pushvalue(L, 1);
  luaL_setfuncs(L, bind_system_functions, 1);
  lua_pushvalue(L, 1);
  bind_text_open(L, 2);
  bind_json_open(L, 2);
  bind_graph_open(L, 2);
  bind_trace_open(L, 2);
  bind_loader_open(L, 2);
  lua_settop(L, 2);
  return 1;
}

/* ---- for hosts ---- */

static bind_state *need_state (lua_State *L) {
  bind_state *S = bind_find_state(L);
  if (!S) luaL_error(L, "marea: the module marea.core is not open in this Lua state");
  return S;
}

marea_context *marea_lua_context (lua_State *L) {
  bind_state *S = bind_find_state(L);
  return S ? S->ctx : NULL;
}

void marea_lua_push (lua_State *L, marea_tensor *t) {
  bind_state *S = need_state(L);
  if (!t) bind_raise(L, S, "marea: argument 't' is NULL");
  if (marea_tensor_context(t) != S->ctx) bind_raise(L, S, "marea: the tensor belongs to another context");
  bind_box *box = bind_box_new(L, S);
  bind_box_fill(box, marea_retain(t));
}

marea_tensor *marea_lua_check (lua_State *L, int idx) {
  bind_state *S = need_state(L);
  lua_Debug ar;
  bool known = lua_getstack(L, 0, &ar) && lua_getinfo(L, "n", &ar) && ar.name;
  return bind_check(L, S, lua_absindex(L, idx), known ? ar.name : "?", "tensor");
}
