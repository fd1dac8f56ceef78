/* SPDX-License-Identifier: MIT
** bind.h: what the files of bindings/ share. Rules that hold in all of them:
**
**   - Nothing that C owns is alive across a Lua call that may raise. A tensor is owned by a box, and the box
**     exists before the tensor. Temporary arrays have a fixed size or are userdata; there is no malloc here.
**   - Pointers to tensors are read from boxes after the last call that may collect garbage: a finalizer written
**     in Lua may release any tensor.
**   - Positions and dimensions are 1-based in Lua, 0-based in C, and converted where arguments are read.
**
** The files from the bottom up. A file calls only those of the lines before its own and of its own line, and there no
** file that calls it back; `make lint` looks for circles.
**
**   files convert userdata state text           the library's Lua files; values of Lua and of C; the state; texts
**   place profile_layer signal sandbox_budget   where the script is; Ctrl-C; what a sandbox has left of its budgets
**   raise sandbox_path                          errors and their messages; what a sandbox may touch
**   box enter args ops                          tensors and scopes; the entry of what computes; calls of operators
**   shape blame tape value index print tensor metatable     what scripts do with a tensor
**   scope io json graph loader system profile watch interrupt sandbox_memory sandbox_values     further functions
**   module sandbox_lua sandbox                  marea.core; core.sandbox, which opens marea.core in a Lua state of
**                                               its own: the only circle
**   preload                                     the whole library, for hosts; program/ is such a host
*/
#ifndef BIND_H
#define BIND_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "marea_lua.h"

#define BIND_SOURCES 256 /* script names that a place can refer to; those of further scripts show as "?" */
#define BIND_LIBRARIES 4 /* folders that the library's files were loaded from */
#define BIND_FILES 256   /* slots of bind_state.file; the library has some 110 files */
#define BIND_LAYER 160   /* bytes of the longest layer path that is shown */
#define BIND_PORTS 64    /* inputs of a graph or a trace, and results */
#define BIND_FEW 12      /* inputs of an operator that need no allocation */
/* Boxes that are recognised without a look at their metatable. Their table takes 8 KiB, a quarter of the first-level
   cache; a box that is not in it is recognised by its metatable. */
#define BIND_KNOWN 1024
/* Turns of a loop between two questions whether to stop. A turn takes 0.1 us (reading an item of a table), so a
   question comes every 0.4 ms and its own 0.1 us (bind_poll) does not show. */
#define BIND_UNASKED 4096
/* Live bytes below which garbage is left to Lua's own pace. Writing so many takes 3 ms (20 GB/s,
   docs/performance.md); a full collection of 2 MiB of Lua tables takes 0.4 ms. */
#define BIND_COLLECT_LEAST ((size_t)64 << 20)
/* Boxes below which garbage is left to Lua's own pace, too. With small tensors behind them they take some 0.5 MB: they are still in the second-level
   cache when they are collected. */
#define BIND_COLLECT_BOXES 2048

typedef struct bind_box bind_box;
typedef struct bind_scope bind_scope;

typedef struct bind_file bind_file;

/* What the sources of the library's chunks begin with: "@(marea)/", "@./lua/marea/". */
typedef struct bind_library {
  const char *prefix;
  size_t length;
} bind_library;

typedef struct bind_hook {
  lua_Hook f;
  int mask, count;
} bind_hook;

/* Kinds of userdata. A userdata's metatable tells its kind. The registry keeps the metatables; scripts cannot see
   them. */
typedef enum bind_kind {
  BIND_BOX,
  BIND_SCOPE,
  BIND_SESSION,
  BIND_FILE,
  BIND_TREE,
  BIND_FOLDER,
  BIND_JSON,
  BIND_GRAPH,
  BIND_TRACE,
  BIND_LOADER,
  BIND_SANDBOX,
  BIND_KINDS
} bind_kind;

typedef struct bind_metatable {
  int reference;    /* in the registry; 0: not made yet */
  const void *self; /* its address */
} bind_metatable;

/* One for each Lua state: a userdata in the registry and upvalue 1 of every function of the module. */
typedef struct bind_state {
  marea_context *ctx;        /* NULL once the Lua state closes */
  bool borrowed;             /* ctx is the host's, who closes it */
  marea_sandbox *sandbox;    /* the sandbox that this state belongs to; NULL: none */
  bind_scope *scopes;        /* the open ones of all coroutines, the newest first */
  size_t collect_at;         /* when more bytes are live, the next operator collects garbage */
  int64_t collect_boxes;     /* when more boxes are not finalized, it does too */
  size_t passed;             /* live bytes after the last reverse pass */
  int64_t boxes, finalizers; /* boxes that hold a tensor; boxes that are not finalized yet */
  int failed_line;           /* where a function gave nil and a message last: the script's line and source */
  uint16_t failed_source;
  bind_hook hook; /* the script's own, while another takes its place */
  bool held; /* hooks are off while work runs that must not be torn apart: an interrupt waits for its end */
  marea_profile *profile;                        /* the one that runs; NULL: none */
  int layers;                                    /* layers that have a number in profiles */
  int roots;                                     /* outermost modules that the running profile has met */
  const marea_op *select, *slice, *cast, *clone; /* used by indexing and methods */
  const marea_op *reshape, *contiguous, *flatnonzero, *index_select, *index_put, *masked_fill;
  int sources, shapes; /* shapes: reference in the registry, of their metatable */
  bind_metatable metatable[BIND_KINDS];
  bind_box *known[BIND_KNOWN]; /* boxes that were recognised lately, by a hash of their address */
  void *work;                  /* what bind_protected's function works on, until it takes it by bind_work */
  uint16_t recent[64];         /* index in `source`, by a hash of the address of its name */
  bind_library library[BIND_LIBRARIES + 1]; /* ends with a NULL prefix */
  const bind_file *file[BIND_FILES];        /* of the library, by a hash of its path */
  char source[BIND_SOURCES][LUA_IDSIZE];    /* [0] is "?" */
} bind_state;

/* A line of a script. */
typedef struct bind_place {
  uint16_t source; /* index in bind_state.source, below BIND_SOURCES */
  int line;        /* 0: unknown */
} bind_place;

enum { BIND_ALIVE, BIND_BY_SCOPE, BIND_BY_CALL }; /* bind_box.ended_by */

/* A place as a number, as tensors and the tape's nodes hold it, and back. */
_Static_assert(BIND_SOURCES <= 256, "a source and a line fit in 32 bits");
static inline uint32_t bind_place_number (bind_place place) {
  return (uint32_t)place.source << 24 | ((uint32_t)place.line & 0xFFFFFF);
}
static inline bind_place bind_place_of (uint32_t number) {
  return (bind_place){(uint16_t)(number >> 24), (int)(number & 0xFFFFFF)};
}

/* A tensor as Lua sees it: owns one reference, or none before it is filled and after it is released. One
   cache line. */
struct bind_box {
  bind_state *state;
  marea_tensor *t;
  union {
    struct {
      bind_scope *scope; /* the scope that releases it; NULL: the garbage collector does */
      bind_box *prev, *next;
      const marea_op *made_by; /* the operator that the script called; NULL: none */
    };
    uint32_t shape[MAREA_MAX_RANK]; /* of the tensor, for messages; only after the release */
  };
  int made_line, ended_line;
  uint16_t made_source, ended_source;
  uint8_t ended_by, dtype, rank;
  bool finalized : 1;   /* its finalizer has run; Lua does not run it again */
  bool had_history : 1; /* it was in a graph when it was released */
};

/* A scope: at its end the tensors that were made in it are released. */
struct bind_scope {
  bind_state *state;
  lua_State
      *thread; /* its coroutine. A user value refers to it, so that no other one gets the same address */
  bind_scope *outer, *inner; /* neighbours in bind_state.scopes */
  bind_box *first;
  bool open, no_grad, recording; /* no_grad: recording is set to `recording` at the end */
  bool autocast;                 /* autocast is set to `lowered` at the end */
  bool plan;                     /* a plan ends with the scope */
  bool shield, shielded, held;   /* shield: both settings are set to these values at the end */
  int lowered;
};

/* Nanoseconds of a clock that never jumps, and seconds of the same one. A signal handler may call them. */
static inline int64_t bind_clock_ns (void) {
  struct timespec t = {0};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static inline double bind_clock (void) { return (double)bind_clock_ns() * 1e-9; }

/* ---- state (state.c) ---- */

static inline bind_state *bind_self (lua_State *L) { return lua_touserdata(L, lua_upvalueindex(1)); }
bind_state *bind_find_state (lua_State *L);         /* reads the registry; NULL if there is none */
void bind_adopt (lua_State *L, marea_context *ctx); /* makes the state with the host's context */
bind_state *bind_state_new (lua_State *L); /* pushes a new state without a context, and registers it */
void bind_push_state (lua_State *L);
void bind_forget_state (lua_State *L); /* removes it from the registry */
/* The bound for live bytes at which garbage is collected next, when `live` bytes are live now. */
static inline size_t bind_collect_at (size_t live) {
  return 2 * live > BIND_COLLECT_LEAST ? 2 * live : BIND_COLLECT_LEAST;
}
/* Sets that bound by what is live now, as after a plan, whose tensors counted as live. */
void bind_forget_live (bind_state *S);

/* ---- entry of functions that compute (enter.c) ---- */

/* Every function that computes calls it first. Ends the scopes of dead coroutines; collects garbage when the live
   bytes or the boxes have passed their bounds, which runs finalizers; raises when a sandbox's budget is spent; tells
   a running profile the layer. Returns the context. */
marea_context *bind_enter (lua_State *L, bind_state *S);
/* Before and after a reverse pass. A pass frees activations while it proceeds, but not those that boxes still hold
   which the script no longer uses. So garbage is collected before the pass when the live bytes have grown much since
   the last one. */
void bind_enter_pass (lua_State *L, bind_state *S);
void bind_leave_pass (bind_state *S);
void bind_collect (lua_State *L, bind_state *S); /* unless the script has stopped Lua's collector */
/* After MAREA_ENOMEM: frees pooled memory and collects garbage. in[0..n-1], which a finalizer might release meanwhile,
   are retained until bind_unpin. */
void bind_pin (lua_State *L, bind_state *S, int n, marea_tensor *const *in);
void bind_unpin (int n, marea_tensor *const *in);

/* status = expr; when memory ran out, bind_pin makes room and expr is evaluated once more. */
#define BIND_RETRY(L, S, n, in, status, expr) \
  do {                                        \
    (status) = (expr);                        \
    if ((status) == MAREA_ENOMEM) {           \
      bind_pin(L, S, n, in);                  \
      (status) = (expr);                      \
      bind_unpin(n, in);                      \
    }                                         \
  } while (0)

/* ---- the library's Lua files (files.c) ---- */

struct bind_file {
  const char *name, *chunk; /* "marea.nn.conv", "@(marea)/nn/conv.lua" */
  size_t size;
  const char *text;
};
extern const bind_file bind_files[];                /* made by embed.lua; ends with a NULL name */
extern const char bind_embedded[];                  /* "@(marea)/", with which their chunks' names begin */
const bind_file *bind_find_file (const char *name); /* by the module's name; NULL: none, as below */
const bind_file *bind_find_path (const char *path); /* by the path below lua/marea */
const bind_file *bind_find_embedded (const char *source); /* by the chunk's name */
const char *bind_file_path (const bind_file *f);          /* the path below lua/marea: "nn/conv.lua" */
void bind_push_loader (lua_State *L,
                       const bind_file *f); /* pushes the function that `require` calls for it */
/* The library's file that this source is, as lua_Debug has it: one that was compiled in, or one of that name in a
   folder that the library was loaded from. NULL: it is the script's, wherever it lies and whatever its name. */
const bind_file *bind_file_of (bind_state *S, const char *source, size_t length);
void bind_add_library (lua_State *L, bind_state *S, int idx); /* adds such a folder: "@./lua/marea/" */

/* ---- sandboxes (sandbox_budget.c, sandbox_path.c, sandbox_lua.c) ---- */

void bind_sandbox_check (lua_State *L, marea_sandbox *sandbox);    /* raises when a budget is spent */
void bind_sandbox_spend (marea_sandbox *sandbox, const char *why); /* from now on each check raises */
void bind_sandbox_deny (lua_State *L, bind_state *S, const char *function); /* raises in a sandbox */
/* `path`, an argument of `function`; raises when it lies outside of what a sandbox may read or write. */
void bind_sandbox_path (lua_State *L, bind_state *S, const char *function, const char *path, bool writing);
int bind_sandbox_new (lua_State *L);     /* core.sandbox */
void bind_sandbox_module (lua_State *L); /* makes the metatable; state on the stack top */

/* ---- userdata (userdata.c) ---- */

/* Pushes the metatable of a kind. The first call makes it, with the name that messages show and hidden from scripts. */
void bind_push_metatable (lua_State *L, bind_state *S, bind_kind kind, const char *name);
/* Makes the metatable of a kind and adds functions to the module at index `module`. The state is on top of the stack, and stays
   there; all of them get it. */
void bind_add_kind (lua_State *L, int module, bind_kind kind, const char *name, const luaL_Reg *metamethods,
                    const luaL_Reg *functions);
/* Pushes a userdata of zeros with so many user values. */
static inline void *bind_new (lua_State *L, const bind_state *S, bind_kind kind, size_t bytes, int values) {
  void *p = lua_newuserdatauv(L, bytes, values);
  memset(p, 0, bytes);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->metatable[kind].reference);
  lua_setmetatable(L, -2);
  return p;
}
/* The userdata at idx if it is of this kind, else NULL; always NULL when S is NULL, as in a Lua state in which the
   module is not open. Every userdata that a script gives is checked by this function. */
static inline void *bind_to (lua_State *L, const bind_state *S, int idx, bind_kind kind) {
  if (!S || !lua_getmetatable(L, idx)) return NULL;
  const bool same = lua_topointer(L, -1) == S->metatable[kind].self;
  lua_pop(L, 1);
  return same ? lua_touserdata(L, idx) : NULL;
}
bind_box *bind_find_box (lua_State *L, bind_state *S,
                         int idx); /* bind_to for boxes, which also remembers them */
/* Calls f protected, on the n values on top. f gets `work` by bind_work rather than as an argument: scripts can see f
   on the stack of an error and call it with arguments of their own, which must not be taken for an address. */
int bind_protected (lua_State *L, bind_state *S, lua_CFunction f, void *work, int n);
void *bind_work (bind_state *S); /* for f, once; NULL: a script has called f */

/* ---- boxes (box.c) ---- */

/* The slot that remembers a box from when it was first recognised until it is finalized. */
static inline bind_box **bind_known (bind_state *S, const bind_box *b) {
  return &S->known[(uintptr_t)b / sizeof *b % BIND_KNOWN];
}

bind_box *bind_box_new (lua_State *L, bind_state *S); /* pushes an empty box, in the innermost scope */
void bind_box_fill (bind_box *b, marea_tensor *t);    /* takes over the caller's reference to t */
void bind_box_release (bind_box *b, int by, bind_place place);
void bind_box_leave (bind_box *b); /* takes it out of its scope */
/* The box at idx, NULL if there is none. For boxes that are remembered without a look at the metatable. */
static inline bind_box *bind_to_box (lua_State *L, bind_state *S, int idx) {
  bind_box *b = lua_touserdata(L, idx);
  return b && S && *bind_known(S, b) == b ? b : bind_find_box(L, S, idx);
}
/* The tensor at idx as the argument `name` of `function`; raises when there is none or it was released. */
marea_tensor *bind_check (lua_State *L, bind_state *S, int idx, const char *function, const char *name);

bind_scope *bind_scope_innermost (lua_State *L, bind_state *S);
void bind_scope_enter (bind_scope *s, bind_box *b); /* b will be released at its end */
void bind_scope_end (bind_scope *s, bind_place place);
void bind_scope_abandon (bind_scope *s); /* ends it; its tensors are left to the garbage collector */
void bind_scope_reap (bind_state *S);    /* abandons the scopes of dead coroutines */
void bind_box_open (lua_State *L);       /* metatable.c: makes the metatable; stack: state, methods */

/* ---- scopes (scope.c) ---- */

void bind_scope_open (lua_State *L); /* makes the metatable; state on the stack top */
int bind_scope_call (lua_State *L);  /* core.scope */
int bind_no_grad (lua_State *L);     /* core.no_grad */
int bind_autocast (lua_State *L);    /* core.autocast */
int bind_plan (lua_State *L);        /* core.plan */
int bind_shield (lua_State *L);      /* core.shield */

/* ---- where the script is (place.c) ---- */

bind_place bind_where (lua_State *L,
                       bind_state *S); /* the innermost line on the stack that is the script's */
/* core.argument_at_work(f, ...) -> the first argument of the innermost of these functions on this coroutine's stack;
   nil */
int bind_argument_at_work (lua_State *L);
/* path := the path of the innermost module on the stack below the outermost one ("encoder.conv1"), which is pushed; ""
   when they are the same. False, and nothing is pushed, when no module is on the stack. */
bool bind_layer (lua_State *L, char *path);
/* path := the layer as messages show it, "" for none. A module that is alone is shown by its class, unless the message
   begins with it. */
void bind_layer_for (lua_State *L, const char *message, char *path);

/* ---- errors (raise.c) ---- */

/* Raises "FILE:LINE: message (layer 'path')". `format` as in lua_pushfstring. Never returns. */
int bind_raise (lua_State *L, bind_state *S, const char *format, ...);
int bind_raise_status (lua_State *L, bind_state *S, marea_status status); /* with the context's message */
/* core.explain_with(f, known): f(message, whole message, operation) -> what is added to a message that is about to be
   raised, or nil. It runs on the stack of the error. known(word): is the word a name of other frameworks, for which f
   gives a hint? */
int bind_explain_with (lua_State *L);
/* Raises "function: argument 'name': expected X, got Y" about the value at idx; idx 0 is "nothing". */
int bind_raise_argument (lua_State *L, bind_state *S, const char *function, const char *name,
                         const char *expected, int idx);
/* Returns nil and the message on top of the stack. The message is kept: when the script ignores it and fails later, the
   later error's hint shows it. */
int bind_failed (lua_State *L, bind_state *S);
/* nil, message when a file is missing or malformed; raises for every other status. */
int bind_file_failed (lua_State *L, bind_state *S, marea_status status);
int bind_fail (lua_State *L);         /* core.failed */
int bind_last_failure (lua_State *L); /* core.last_failure */
int bind_raise_released (lua_State *L, bind_state *S, const char *function, const char *name,
                         const bind_box *b);
/* Pushes what messages call the value at idx: "string 'x'", "tensor f32 (2, 3)". */
const char *bind_describe (lua_State *L, bind_state *S, int idx);
typedef struct bind_text {
  char s[200]; /* a dtype and eight sizes of 19 digits fit */
} bind_text;
bind_text bind_shape (const marea_tensor *t); /* "f32 (2, 3)" */

/* The candidate that is nearest to `word`. It begins with best = NULL; then each candidate is offered. */
typedef struct bind_guess {
  const char *word, *best;
  int distance;
} bind_guess;
void bind_offer (bind_guess *g, const char *candidate);
const char *bind_shorten (lua_State *L, const char *word);         /* the word, or its beginning; may push */
const char *bind_did_you_mean (lua_State *L, const bind_guess *g); /* pushes "; did you mean 'x'?" or "" */

/* ---- interrupts (signal.c, interrupt.c, watch.c; more in interrupt.h) ---- */

/* Has a signal asked, by lua5.4's handler or by ours, to stop what runs in this state? */
bool bind_interrupt_pending (lua_State *main);
/* Removes the hook that one of the two handlers has set, while a message is made; bind_unhush sets it again. */
bind_hook bind_hush (lua_State *L);
void bind_unhush (lua_State *L, const bind_hook *taken);
/* After MAREA_EINTR: raises, or empties the stack so that lua5.4's hook raises. The C function must return the result
   to Lua at once. */
int bind_leave_interrupted (lua_State *L, bind_state *S);
int bind_raise_interrupt (lua_State *L, bind_state *S); /* raises from anywhere; never returns */
void bind_poll (lua_State *L, bind_state *S);           /* for long loops: raises when an interrupt waits */
int bind_interrupt (lua_State *L);                      /* core.interrupt */
/* Calls the function below its n arguments, without results, while hooks are off. S->held is set meanwhile; when an
   error leaves this function, the caller must set S->held back. */
void bind_call_held (lua_State *L, bind_state *S, int n);
int bind_closer (lua_State *L); /* core.closer */
/* core.interruptible(f, ...) -> results of f. Ctrl-C stops f, also a second time. The signal handler of before is
   installed again at the end. The program runs everything so. */
int bind_interruptible (lua_State *L);
int bind_catch (lua_State *L); /* core.protected */
/* core.interrupt_ends_line() -> does Ctrl-C end the line of the terminal, as in interruptible? */
int bind_ends_line (lua_State *L);
/* Ends the request: its error was caught by code that wants it, or the signal came while nothing ran. */
void bind_end_interrupt (lua_State *L);
/* Replaces the error on top of the stack by the interrupt's message, if the interrupt was raised as lack of memory. */
bool bind_interrupt_thrown (lua_State *L);
/* Tells the signal handler which coroutine runs from now on; returns the one that ran before. */
lua_State *bind_interrupt_switch (lua_State *to);
void bind_watch (lua_State *L); /* puts functions of ours in the place of some of Lua's, once */

/* ---- single values (convert.c) ---- */

/* Is there a number at idx that is an integer within int64? Strings, NaN and fractions are not. */
bool bind_to_integer (lua_State *L, int idx, int64_t *value);
bool bind_to_dtype (lua_State *L, int idx, marea_dtype *dtype);
const char *bind_push_dtypes (lua_State *L); /* pushes "one of 'f32', ..." for messages; returns it */
/* The number of items of the list at idx, and one more when there are items behind a hole: lua_rawlen may end in
   front of it. So a caller that reads all items meets the nil. */
size_t bind_length (lua_State *L, int idx);
const char *bind_dtype_name (const marea_tensor *t);
/* The element of t at this address. */
typedef struct bind_element {
  int digits;      /* significant decimal digits of the dtype; 0: it is an integer */
  int64_t integer; /* the value, of integer dtypes only */
  double real;     /* the value of any dtype; integers beyond 2^53 are rounded */
} bind_element;
bind_element bind_element_at (const marea_tensor *t, const void *at);
void bind_push_number (lua_State *L, const marea_tensor *t, const void *at); /* in the tensor's dtype */
bool bind_holds (marea_dtype dtype, int64_t integer); /* can the dtype hold it? Floats hold all, rounded */
/* Stores the number at idx; NULL, or what was expected when it does not fit the dtype. */
const char *bind_store_number (lua_State *L, int idx, marea_dtype dtype, void *at);

/* ---- arguments (args.c) ---- */

/* A call of an operator as read from the stack. in[] is borrowed; NULL is an absent optional input. */
typedef struct bind_call {
  const marea_op *op;
  bool in_place; /* add_ and its like */
  const marea_input_spec *inputs;
  const marea_attr_spec *specs;
  int n_in, n_attr;
  unsigned
      numbers; /* bit i: input i is the Lua number at stack index i + 1, of which a tensor is still to be made */
  marea_dtype number_dtype[BIND_FEW]; /* their dtypes; a call with numbers has at most BIND_FEW inputs */
  marea_tensor **in, *few[BIND_FEW];
  bool given[MAREA_MAX_ATTRS];
  const marea_attr *attrs; /* NULL: all have their initial values */
  marea_attr attr[MAREA_MAX_ATTRS];
} bind_call;

/* Reads the arguments at 1..n. May push the array of more than BIND_FEW inputs, and raise. */
void bind_read_call (lua_State *L, bind_state *S, const marea_op *op, bool in_place, int n, bind_call *c);
/* Reads attributes alone, from the table of names at idx or nil; leaves in[] to the caller. */
void bind_read_named (lua_State *L, bind_state *S, const marea_op *op, int idx, bind_call *c);
/* Reads the table of options at idx: calls read(L, S, key, value's index, ud) for every key, which returns false for
   unknown keys. */
typedef bool (*bind_option_fn)(lua_State *L, bind_state *S, const char *key, int value, void *ud);
void bind_read_options (lua_State *L, bind_state *S, int idx, const char *function, const char *const *known,
                        bind_option_fn read, void *ud);
int64_t bind_integer (lua_State *L, bind_state *S, int idx, const char *function, const char *name);
bool bind_boolean (lua_State *L, bind_state *S, int idx, const char *function, const char *name);
const char *bind_string (lua_State *L, bind_state *S, int idx, const char *function, const char *name);
/* The same of any n bytes. */
const char *bind_bytes (lua_State *L, bind_state *S, int idx, const char *function, const char *name,
                        size_t *n);

/* ---- operators (ops.c) ---- */

int bind_op_call (lua_State *L);     /* upvalues: state, operator */
int bind_op_in_place (lua_State *L); /* the same, for `add_` and its like */
int bind_each (lua_State *L);        /* core.each */
int bind_have_gradients (
    lua_State *L); /* core.have_gradients(list, n): have the tensors 1, 1 + n, .. of it one? */
int bind_clear_gradients (lua_State *L); /* core.clear_gradients(list, n): drops them */
int bind_op_names (lua_State *L);
int bind_op_info (lua_State *L);
/* A tensor of rank 0 for the number at idx, in `dtype`. */
marea_status bind_number (lua_State *L, marea_context *ctx, int idx, marea_dtype dtype, marea_tensor **out);
/* out := op(in) with `attrs`, for operators of one result; the caller owns it. Does not raise or collect garbage. */
marea_status bind_apply (marea_context *ctx, const marea_op *op, marea_tensor *in, const marea_attr *attrs,
                         marea_tensor **out);

/* ---- values (value.c, print.c, index.c) ---- */

/* The address of t's first element. Raises, with the name of the function that wants to read it, when t is planned: a
   planned tensor has no values. */
const char *bind_elements (lua_State *L, bind_state *S, const marea_tensor *t, const char *function);
/* Pushes the element `offset` elements behind the first one; NaN when t is of a plan that runs. */
void bind_push_element (lua_State *L, bind_state *S, const marea_tensor *t, int64_t offset,
                        const char *function);
int bind_tensor_new (lua_State *L); /* core.tensor */
int bind_totable (lua_State *L);
int bind_bytes_new (lua_State *L); /* core.bytes */
int bind_to_bytes (lua_State *L);
int bind_tostring (lua_State *L);
bool bind_is_slice (const char *s);
/* Pushes b[key], with the key at stack index 2, and returns 1; returns 0 when the key is no index. */
int bind_index (lua_State *L, bind_state *S, const bind_box *b);
int bind_newindex (lua_State *L);
int bind_fill (lua_State *L);
int bind_zero (lua_State *L);
int bind_copy (lua_State *L);

/* ---- shapes (shape.c) ---- */

void bind_shape_open (lua_State *L);                     /* makes the metatable; state on the stack top */
void bind_set_shape (lua_State *L, const bind_state *S); /* makes a shape of the list on the stack top */
bool bind_is_shape (lua_State *L, int idx);
int bind_make_shape (lua_State *L); /* core.shape */
int bind_tell_shape (lua_State *L); /* core.is_shape */

/* ---- text (text.c) ---- */

/* snprintf, with a point in numbers whatever locale the host has set. */
int bind_format (char *to, size_t room, const char *format, ...) __attribute__((format(printf, 3, 4)));
bind_text bind_number_text (lua_Number x); /* as Lua writes it: "1.0", "0.5", "1e+20", "nan" */
/* Replaces characters of the text on top of the stack that control a terminal; newlines and tabs stay. */
void bind_printable (lua_State *L);
/* Adds core.format, core.printable and core.before to the module; state on the stack top. */
void bind_text_open (lua_State *L, int module);

/* ---- profiles (profile.c, profile_layer.c) ---- */

void bind_profile_open (lua_State *L);                 /* makes the metatable; state on the stack top */
void bind_profile_layer (lua_State *L, bind_state *S); /* tells the running profile which layer is at work */
void *bind_running_session (lua_State *L);             /* pushes the session that runs; NULL: none */
void bind_run_session (lua_State *L, bind_state *S);   /* pops a session, which runs from now on; nil: none */
int bind_profile_start (lua_State *L);                 /* core.profile_start */
int bind_profile_stop (lua_State *L);                  /* core.profile_stop */

/* ---- the rest ---- */

/* Raises when Lua is not 5.4. Called before all other functions of Lua. */
void bind_check_version (lua_State *L);

int bind_get (lua_State *L);      /* __index: upvalues state, methods (tensor.c) */
int bind_backward (lua_State *L); /* tape.c */
int bind_grad (lua_State *L);
int bind_blame (lua_State *L);         /* blame.c: core.blame */
int bind_on_not_finite (lua_State *L); /* core.on_not_finite */
bool bind_is_finite (
    const marea_tensor *t); /* false for a single number that is NaN or infinite, else true */
int bind_raise_not_finite (lua_State *L, bind_state *S, int idx); /* about the tensor at idx */
extern const luaL_Reg bind_methods[];                             /* tensor.c */
void bind_push_fields (lua_State *L);                             /* the names of a tensor's fields */
extern const luaL_Reg bind_io_functions[];                        /* io.c */
extern const luaL_Reg bind_system_functions[];                    /* system.c */
void bind_trace_open (lua_State *L, int module);  /* core.trace_start and what takes its record */
void bind_loader_open (lua_State *L, int module); /* core.loader and what takes it */
void bind_graph_open (lua_State *L, int module);  /* core.onnx_load and what takes its graph */
void bind_json_open (lua_State *L, int module);   /* core.json; state on the stack top */
void bind_io_open (lua_State *L);                 /* makes the metatable; state on the stack top */
void bind_system_open (lua_State *L);             /* the same */

#endif
