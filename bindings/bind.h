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
**   scope io system profile watch interrupt sandbox_memory sandbox_values     further functions
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
#define BIND_LAYER 160   /* bytes of the longest layer path that is shown */
#define BIND_FEW 8       /* inputs of an operator that need no allocation */
/* Boxes that are recognised without a look at their metatable. Their table takes 8 KiB, a quarter of the first-level
   cache; a box that is not in it is recognised by its metatable. */
#define BIND_KNOWN 1024
/* Turns of a loop between two questions whether to stop. A turn takes 0.1 us (reading an item of a table), so a
   question comes every 0.4 ms and its own 0.1 us (bind_poll) does not show. */
#define BIND_UNASKED 4096
/* Live bytes below which garbage is left to Lua's own pace. Writing so many takes 3 ms (20 GB/s,
   docs/performance.md); a full collection of 2 MiB of Lua tables takes 0.4 ms. */
#define BIND_COLLECT_LEAST ((size_t)64 << 20)
/* Boxes below which it is. With small tensors behind them they take some 0.5 MB: they are still in the second-level
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
  BIND_FOLDER,
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
  const bind_file *file[64];                /* of the library, by a hash of the address of its chunk's name */
  char source[BIND_SOURCES][LUA_IDSIZE];    /* [0] is "?" */
} bind_state;

/* A line of a script. */
typedef struct bind_place {
  uint16_t source; /* index in bind_state.source, below BIND_SOURCES */
  int line;        /* 0: unknown */
} bind_place;

enum { BIND_ALIVE, BIND_BY_SCOPE, BIND_BY_CALL }; /* bind_box.ended_by */

/* A place as a number, which tensors and the graph remember, and back. */
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
      bind_scope *scope; /* that releases it; NULL: the garbage collector does */
      bind_box *prev, *next;
      const marea_op *made_by; /* NULL: no operator of the script's */
    };
    uint32_t shape[MAREA_MAX_RANK]; /* after the release, for messages */
  };
  int made_line, ended_line;
  uint16_t made_source, ended_source;
  uint8_t ended_by, dtype, rank;
  bool finalized : 1;   /* its finalizer has run, and will not again */
  bool had_history : 1; /* when it was released */
};

/* A stretch of a script at whose end its tensors are released. */
struct bind_scope {
  bind_state *state;
  lua_State
      *thread; /* the coroutine it belongs to; anchored by its user value, so the address stays its own */
  bind_scope *outer, *inner; /* neighbours in bind_state.scopes */
  bind_box *first;
  bool open, no_grad, recording; /* no_grad: `recording` comes back at the end */
  bool plan;                     /* the plan ends with it */
  bool shield, shielded, held;   /* shield: the other two come back at the end */
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
bind_state *bind_find_state (lua_State *L);         /* through the registry; NULL if there is none */
void bind_adopt (lua_State *L, marea_context *ctx); /* makes the state with the host's context */
bind_state *bind_state_new (lua_State *L); /* pushes the state, registered, still without a context */
void bind_push_state (lua_State *L);
void bind_forget_state (lua_State *L);
/* Live bytes that make the next operator collect garbage when so many are live now. */
static inline size_t bind_collect_at (size_t live) {
  return 2 * live > BIND_COLLECT_LEAST ? 2 * live : BIND_COLLECT_LEAST;
}
/* When garbage is collected next depends on what is live now, not on what was before, as in a plan. */
void bind_forget_live (bind_state *S);

/* ---- entry of functions that compute (enter.c) ---- */

/* To be called at the entry of everything that computes: ends scopes of dead coroutines and collects garbage
   when much tensor memory came into being since the last time. Runs finalizers. Returns the context. */
marea_context *bind_enter (lua_State *L, bind_state *S);
/* Around a reverse pass. Results that the script has dropped would keep their memory through the pass, which lets
   go of what it has used; so garbage is collected before, when much came into being since the last one. */
void bind_enter_pass (lua_State *L, bind_state *S);
void bind_leave_pass (bind_state *S);
void bind_collect (lua_State *L, bind_state *S); /* unless the script has stopped Lua's collector */
/* Makes room after MAREA_ENOMEM. Retains in[0..n-1] until bind_unpin. */
void bind_pin (lua_State *L, bind_state *S, int n, marea_tensor *const *in);
void bind_unpin (int n, marea_tensor *const *in);

/* status = expr, once more after making room when memory ran out. */
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
extern const bind_file bind_files[];                      /* made by embed.lua; ends with a NULL name */
extern const char bind_embedded[];                        /* what the sources of their chunks begin with */
const bind_file *bind_find_file (const char *name);       /* NULL: there is none, here and below */
const bind_file *bind_find_path (const char *path);       /* of that path */
const bind_file *bind_find_embedded (const char *source); /* whose chunk has this source */
const char *bind_file_path (const bind_file *f);          /* below lua/marea: "nn/conv.lua" */
void bind_push_loader (lua_State *L, const bind_file *f);
/* The library's file that this source is, as lua_Debug has it: one that was compiled in, or one of that name in a
   folder that the library was loaded from. NULL: it is the script's, wherever it lies and whatever its name. */
const bind_file *bind_file_of (bind_state *S, const char *source);
void bind_add_library (lua_State *L, bind_state *S, int idx); /* such a folder: "@./lua/marea/" */

/* ---- sandboxes (sandbox_budget.c, sandbox_path.c, sandbox_lua.c) ---- */

void bind_sandbox_check (lua_State *L, marea_sandbox *sandbox);    /* raises when a budget is spent */
void bind_sandbox_spend (marea_sandbox *sandbox, const char *why); /* no further step */
void bind_sandbox_deny (lua_State *L, bind_state *S, const char *function); /* raises in a sandbox */
/* `path`, an argument of `function`; raises when it lies outside of what a sandbox may read or write. */
void bind_sandbox_path (lua_State *L, bind_state *S, const char *function, const char *path, bool writing);
int bind_sandbox_new (lua_State *L);     /* core.sandbox */
void bind_sandbox_module (lua_State *L); /* makes the metatable; state on the stack top */

/* ---- userdata (userdata.c) ---- */

/* Pushes the metatable of a kind, which is made at first, with a name and closed to scripts. */
void bind_push_metatable (lua_State *L, bind_state *S, bind_kind kind, const char *name);
/* Pushes a userdata of zeros with so many user values. */
static inline void *bind_new (lua_State *L, const bind_state *S, bind_kind kind, size_t bytes, int values) {
  void *p = lua_newuserdatauv(L, bytes, values);
  memset(p, 0, bytes);
  lua_rawgeti(L, LUA_REGISTRYINDEX, S->metatable[kind].reference);
  lua_setmetatable(L, -2);
  return p;
}
/* The userdata at idx if it is of this kind, NULL for every other value, and for all when S is NULL, as in a Lua state
   in which we are not open. The one check of what a script may have given. */
static inline void *bind_to (lua_State *L, const bind_state *S, int idx, bind_kind kind) {
  if (!S || !lua_getmetatable(L, idx)) return NULL;
  const bool same = lua_topointer(L, -1) == S->metatable[kind].self;
  lua_pop(L, 1);
  return same ? lua_touserdata(L, idx) : NULL;
}
bind_box *bind_find_box (lua_State *L, bind_state *S, int idx); /* by its metatable; NULL: no box */
/* Calls f protected, on the n values on top. f gets `work` by bind_work rather than as an argument: scripts can see f
   on the stack of an error and call it with arguments of their own, which must not be taken for an address. */
int bind_protected (lua_State *L, bind_state *S, lua_CFunction f, void *work, int n);
void *bind_work (bind_state *S); /* once; NULL: it was a script that called */

/* ---- boxes (box.c) ---- */

/* The slot that remembers a box from when it was first recognised until it is finalized. */
static inline bind_box **bind_known (bind_state *S, const bind_box *b) {
  return &S->known[(uintptr_t)b / sizeof *b % BIND_KNOWN];
}

bind_box *bind_box_new (lua_State *L, bind_state *S); /* pushes an empty box; in the innermost scope */
void bind_box_fill (bind_box *b, marea_tensor *t);    /* takes over the reference */
void bind_box_release (bind_box *b, int by, bind_place place);
void bind_box_leave (bind_box *b); /* takes it out of its scope */
/* The same, for most boxes without a look at the metatable. */
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
int bind_plan (lua_State *L);        /* core.plan */
int bind_shield (lua_State *L);      /* core.shield */

/* ---- where the script is (place.c) ---- */

bind_place bind_where (lua_State *L,
                       bind_state *S); /* the innermost line of a script, library code left out */
/* core.argument_at_work(f, ...) -> the first argument of the innermost of these functions on this coroutine's stack;
   nil */
int bind_argument_at_work (lua_State *L);
/* path := that of the innermost module at work as seen from the outermost one, which is pushed; "" when they are
   the same. False, and nothing is pushed: no module is at work. */
bool bind_layer (lua_State *L, char *path);
/* path := the layer for a message; that of a module which is alone is its class, unless the message says so. */
void bind_layer_for (lua_State *L, const char *message, char *path);

/* ---- errors (raise.c) ---- */

/* Raises "FILE:LINE: message (layer 'path')". `format` as in lua_pushfstring. Never returns. */
int bind_raise (lua_State *L, bind_state *S, const char *format, ...);
int bind_raise_status (lua_State *L, bind_state *S, marea_status status); /* with the context's message */
/* core.explain_with(f, known): f(message, whole message, operation) -> what is added to a message that is about to be
   raised, or nil. Runs on the stack of the error. known(word): will there be a hint about this name of other
   frameworks? */
int bind_explain_with (lua_State *L);
/* Raises "function: argument 'name': expected X, got Y" about the value at idx; idx 0 is "nothing". */
int bind_raise_argument (lua_State *L, bind_state *S, const char *function, const char *name,
                         const char *expected, int idx);
/* nil, message: of what is on top of the stack, which is kept for a hint in case that the script throws it away. */
int bind_failed (lua_State *L, bind_state *S);
int bind_fail (lua_State *L);         /* core.failed */
int bind_last_failure (lua_State *L); /* core.last_failure */
int bind_raise_released (lua_State *L, bind_state *S, const char *function, const char *name,
                         const bind_box *b);
const char *bind_describe (lua_State *L, bind_state *S,
                           int idx); /* pushes "string 'x'", "tensor f32 (2, 3)" */
typedef struct bind_text {
  char s[200];
} bind_text;                                  /* room for a dtype and the largest sizes there are */
bind_text bind_shape (const marea_tensor *t); /* "f32 (2, 3)" */

/* Keeps the candidate that is nearest to `word`: start with *best = NULL, then offer each. */
typedef struct bind_guess {
  const char *word, *best;
  int distance;
} bind_guess;
void bind_offer (bind_guess *g, const char *candidate);
const char *bind_shorten (lua_State *L, const char *word);         /* the word, or its beginning; may push */
const char *bind_did_you_mean (lua_State *L, const bind_guess *g); /* pushes "; did you mean 'x'?" or "" */

/* ---- interrupts (signal.c, interrupt.c, watch.c; more in interrupt.h) ---- */

/* Is what runs to stop, for lua5.4's handler or for ours? Of the main thread. */
bool bind_interrupt_pending (lua_State *main);
/* Takes away the hook that one of them has set, while a message is made; bind_unhush puts it back. */
bind_hook bind_hush (lua_State *L);
void bind_unhush (lua_State *L, const bind_hook *taken);
int bind_leave_interrupted (lua_State *L,
                            bind_state *S); /* after MAREA_EINTR: to be returned to Lua at once */
int bind_raise_interrupt (lua_State *L,
                          bind_state *S);     /* the same from where that cannot be; never returns */
void bind_poll (lua_State *L, bind_state *S); /* raises when an interrupt waits; for long loops */
int bind_interrupt (lua_State *L);            /* core.interrupt */
/* Calls the function below its n arguments, without results, while hooks are asleep. S->held is set meanwhile, and
   is to be put back by the caller when an error leaves. */
void bind_call_held (lua_State *L, bind_state *S, int n);
int bind_closer (lua_State *L); /* core.closer */
/* core.interruptible(f, ...) -> results of f. Ctrl-C stops f, as often as it comes; what was before comes back. The
   program runs everything so. */
int bind_interruptible (lua_State *L);
int bind_catch (lua_State *L); /* core.protected */
/* core.interrupt_ends_line() -> does Ctrl-C end the line of the terminal, as in interruptible? */
int bind_ends_line (lua_State *L);
void bind_end_interrupt (lua_State *L); /* it has reached whoever asked for it, or came while nothing ran */
/* Replaces the error on top of the stack by that of the interrupt if it was raised without a message. */
bool bind_interrupt_thrown (lua_State *L);
/* The coroutine at work from now on; returns who was before. */
lua_State *bind_interrupt_switch (lua_State *to);
void bind_watch (lua_State *L); /* puts functions of ours in the place of some of Lua's, once */

/* ---- single values (convert.c) ---- */

/* An integral number within int64 at idx? Strings, NaN and fractions are none. */
bool bind_to_integer (lua_State *L, int idx, int64_t *value);
bool bind_to_dtype (lua_State *L, int idx, marea_dtype *dtype);
const char *bind_push_dtypes (lua_State *L); /* pushes "one of 'f32', ..." for messages; returns it */
/* Items of the list at idx, and one more when others lie behind a hole, in front of which lua_rawlen may end: who reads
   all of them meets a nil. */
size_t bind_length (lua_State *L, int idx);
const char *bind_dtype_name (const marea_tensor *t);
/* An element of t, at this address. `digits`: decimal ones that all floats of its dtype show; 0: it is an integer. */
typedef struct bind_element {
  int digits;
  int64_t integer; /* of integers */
  double real;     /* of all; integers beyond 2^53 are rounded */
} bind_element;
bind_element bind_element_at (const marea_tensor *t, const void *at);
void bind_push_number (lua_State *L, const marea_tensor *t, const void *at); /* in the tensor's dtype */
bool bind_holds (marea_dtype dtype, int64_t integer); /* floats hold all integers, rounded */
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
  unsigned numbers; /* bit i: input i is the Lua number at stack index i + 1, still to be made a tensor */
  marea_dtype number_dtype[BIND_FEW]; /* of those; there are never more inputs then */
  marea_tensor **in, *few[BIND_FEW];
  bool given[MAREA_MAX_ATTRS];
  const marea_attr *attrs; /* NULL: all initial */
  marea_attr attr[MAREA_MAX_ATTRS];
} bind_call;

/* Reads the arguments at 1..n. May push (the array of many inputs) and raise. */
void bind_read_call (lua_State *L, bind_state *S, const marea_op *op, bool in_place, int n, bind_call *c);
/* A table of options: calls read(L, S, key, value index, ud) for every key; it returns false for unknown
   ones. */
typedef bool (*bind_option_fn)(lua_State *L, bind_state *S, const char *key, int value, void *ud);
void bind_read_options (lua_State *L, bind_state *S, int idx, const char *function, const char *const *known,
                        bind_option_fn read, void *ud);
int64_t bind_integer (lua_State *L, bind_state *S, int idx, const char *function, const char *name);
bool bind_boolean (lua_State *L, bind_state *S, int idx, const char *function, const char *name);
const char *bind_string (lua_State *L, bind_state *S, int idx, const char *function, const char *name);

/* ---- operators (ops.c) ---- */

int bind_op_call (lua_State *L);     /* upvalues: state, operator */
int bind_op_in_place (lua_State *L); /* the same, for `add_` and its like */
int bind_op_names (lua_State *L);
int bind_op_info (lua_State *L);
/* A tensor of rank 0 for the number at idx, in `dtype`. */
marea_status bind_number (lua_State *L, marea_context *ctx, int idx, marea_dtype dtype, marea_tensor **out);
/* out := op(in) with `attrs`, for operators of one result; the caller owns it. Neither raises nor
   collects. */
marea_status bind_apply (marea_context *ctx, const marea_op *op, marea_tensor *in, const marea_attr *attrs,
                         marea_tensor **out);

/* ---- values (value.c, print.c, index.c) ---- */

/* The address of element 0, to be read by `function`; raises when t is planned, as it has no values then. */
const char *bind_elements (lua_State *L, bind_state *S, const marea_tensor *t, const char *function);
/* Pushes the number so many elements from element 0. Of a plan that runs it is not known: NaN. */
void bind_push_element (lua_State *L, bind_state *S, const marea_tensor *t, int64_t offset,
                        const char *function);
int bind_tensor_new (lua_State *L); /* core.tensor */
int bind_totable (lua_State *L);
int bind_tostring (lua_State *L);
bool bind_is_slice (const char *s);
int bind_index (lua_State *L, bind_state *S,
                const bind_box *b); /* b[key], key at stack index 2; 0: no index */
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
void bind_printable (lua_State *L); /* the text on top of the stack, line by line, made fit for a terminal */
void bind_text_open (lua_State *L,
                     int module); /* adds core.format, core.printable, core.before; state on the stack top */

/* ---- profiles (profile.c, profile_layer.c) ---- */

void bind_profile_open (lua_State *L);                 /* makes the metatable; state on the stack top */
void bind_profile_layer (lua_State *L, bind_state *S); /* tells the running profile which layer is at work */
void *bind_running_session (lua_State *L);             /* pushes it; NULL: none */
void bind_run_session (lua_State *L, bind_state *S);   /* pops it, or nil: none runs from now on */
int bind_profile_start (lua_State *L);                 /* core.profile_start */
int bind_profile_stop (lua_State *L);                  /* core.profile_stop */

/* ---- the rest ---- */

void bind_check_version (
    lua_State *L); /* raises when Lua is not 5.4; before anything else of Lua is called */

int bind_get (lua_State *L);      /* __index: upvalues state, methods (tensor.c) */
int bind_backward (lua_State *L); /* tape.c */
int bind_grad (lua_State *L);
int bind_blame (lua_State *L);               /* blame.c: core.blame */
int bind_on_not_finite (lua_State *L);       /* core.on_not_finite */
bool bind_is_finite (const marea_tensor *t); /* false: it is one number, which is NaN or infinite */
int bind_raise_not_finite (lua_State *L, bind_state *S, int idx); /* about the tensor at idx */
extern const luaL_Reg bind_methods[];                             /* tensor.c */
void bind_push_fields (lua_State *L);                             /* the names of a tensor's fields */
extern const luaL_Reg bind_io_functions[];                        /* io.c */
extern const luaL_Reg bind_system_functions[];                    /* system.c */
void bind_io_open (lua_State *L);     /* makes the metatable; state on the stack top */
void bind_system_open (lua_State *L); /* the same */

#endif
