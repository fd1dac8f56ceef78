/* SPDX-License-Identifier: MIT
** marea.h: tensors, automatic differentiation and neural-network operators in C11.
**
** This header is the whole public C API and its manual; read it from top to bottom.
**
**   1 Status and errors      every call that can fail returns a marea_status
**   2 Context                settings, memory, budgets, threads; one per thread of control
**   3 Tensors                typed n-dimensional arrays, strided views, reference counts
**   4 Operators              one registry, one entry point: marea_apply; marea_call_op by names
**   5 Gradients              the tape
**   6 Random numbers         Philox4x32-10
**   7 Files                  IDX, NPY, safetensors, PNG, JPEG
**   8 Profiling              what operators cost
**   9 Planning               memory and operations of a script, from shapes alone, without computing it
**  10 Graphs                 networks that were made elsewhere: ONNX
**
** Arguments are checked. A NULL that is not allowed, a number out of its range, an attribute of another kind and a
** tensor of another context give MAREA_EARG; a tensor of a plan that has ended gives MAREA_ESTATE. The context then has
** a text, and out-parameters are NULL or 0. A function without a status does nothing with NULL and returns 0, false,
** NULL, an empty text or, as a dtype, MAREA_DTYPE_COUNT. Not checked: pointers to other objects or to freed ones.
**
** Ownership: whoever receives a tensor through an out-parameter owns one reference and drops it with marea_release.
** Every other pointer is borrowed until the call returns; no function frees its arguments.
**
** Threads: a context and what belongs to it are used by one thread at a time; different contexts may be used by
** different threads at once. Nothing in the library prints, exits, installs a signal handler or keeps mutable globals
** (but for OpenBLAS, which is held to one thread in the whole process). Everything is computed rounding to nearest,
** without traps, whatever floating-point mode the host has set; the host's mode is restored as a call returns, and
** callbacks run in the library's. docs/embedding.md walks through a host.
*/
#ifndef MAREA_H
#define MAREA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MAREA_VERSION "0.1.0"

#if defined(__GNUC__)
#define MAREA_API __attribute__((visibility("default")))
#define MAREA_MUST_USE __attribute__((warn_unused_result))
#else
#define MAREA_API
#define MAREA_MUST_USE
#endif

#define MAREA_MAX_RANK 8    /* dimensions of a tensor */
#define MAREA_MAX_ATTRS 11  /* attributes of an operator */
#define MAREA_MAX_OUT 32    /* outputs of an operator */

typedef struct marea_context marea_context;
typedef struct marea_tensor marea_tensor;
typedef struct marea_op marea_op;

/* ---- 1 Status and errors ------------------------------------------------------------------------ */

typedef enum marea_status {
  MAREA_OK = 0,
  MAREA_ENOMEM,  /* out of memory, or the context's limit is reached; nothing was changed */
  MAREA_ESHAPE,  /* shapes or dtypes do not fit each other */
  MAREA_EARG,    /* an argument is out of its range */
  MAREA_ESTATE,  /* the call does not fit the object's state (graph consumed, saved value changed) */
  MAREA_EIO,     /* the system refused a file operation */
  MAREA_EFORMAT, /* a file's bytes are not what its format asks for */
  MAREA_EINTR,   /* marea_interrupt was called; nothing was changed */
  MAREA_EBUDGET, /* a budget of the context is spent; nothing was changed, but see marea_limit_time */
  MAREA_EVERSION /* the caller was compiled with a header that asks for more than the library has: see marea_config */
} marea_status;

/* Text of the last failure in `ctx`: operator, what was expected, what came, the rule. Never NULL. `ctx` NULL, as after
   a failed marea_open: that there is no context. */
MAREA_API const char *marea_error (const marea_context *ctx);
/* Makes text from elsewhere, a name in a file perhaps, fit for a terminal: what is no UTF-8, control characters and
   those that change the direction of text become '?'. In place; returns text. Messages have been through it. */
MAREA_API char *marea_printable (char *text);
/* What a status means in general, for where there is no context to ask. Never NULL. */
MAREA_API const char *marea_status_text (marea_status status);

/* The library's version, to be compared with MAREA_VERSION, the header's. */
MAREA_API const char *marea_version (void);

/* ---- 2 Context ---------------------------------------------------------------------------------- */

typedef enum marea_log_level {
  MAREA_LOG_INFO,   /* opened: version, isa, threads, BLAS; threads started anew after a fork; an operator was
                       stopped by an interrupt or a spent budget */
  MAREA_LOG_WARNING /* fewer threads than asked for; pooled memory went back to the allocator because the limit was
                       reached or the allocator refused; MAREA_ISA without effect; why marea_open failed;
                       memory in use at marea_close */
} marea_log_level;

/* Initialise it by marea_config config = {.size = sizeof config}; 0 is the default of every other field. */
typedef struct marea_config {
  /* sizeof(marea_config) as the host was compiled. Later versions append fields and never change or move one. A smaller
     size is an older header's: fields that it lacks have their defaults. A larger one is a newer header's, and the
     library refuses it (MAREA_EVERSION, the log says why) unless the fields that it does not know are 0. */
  size_t size;
  /* Allocator: p NULL = new block, size 0 = free p (of `old` bytes). NULL = malloc and free.
     Blocks are at least 16-byte aligned; the library aligns what it needs further. */
  void *(*alloc)(void *ud, void *p, size_t old, size_t size);
  void *alloc_ud;
  size_t max_bytes;  /* limit on live and pooled bytes together; 0 = none */
  int threads;       /* 0 = one per core that the process may use */
  int index_base;    /* base of dims, indices and labels, in arguments, contents and messages: 0 (C) or 1 (Lua) */
  const char *isa;   /* "generic", "avx2", "avx512", "avx512_bf16", "amx", "neon"; NULL = environment MAREA_ISA, else the
                        best supported */
  /* Called while an operator runs, on the caller's thread, every few ms at most; true acts as marea_interrupt. NULL =
     is never called. */
  bool (*interrupted)(void *ud);
  void *interrupted_ud;
  /* Called with a line for a log file: one sentence without a newline, valid during the call. It runs on the thread
     that uses the context, while the library holds no lock, and may not use the context. Lack of memory and spent
     budgets are logged once until a limit is set; a repeated step logs nothing. Never called after marea_close. NULL
     = no log. */
  void (*log)(void *ud, marea_log_level level, const char *text);
  void *log_ud;
  /* The host's threads instead of the context's: calls body(arg, i) once for each i from 0 to n - 1, on any threads, in
     turn or at once, and returns when all calls have returned. n is `threads`. NULL = the context starts threads. */
  void (*parallel_for)(void *ud, int n, void (*body)(void *arg, int i), void *arg);
  void *parallel_for_ud;
} marea_config;

/* Opens a context. `config` may be NULL. On failure *ctx is NULL and the status tells why: MAREA_EVERSION (size),
   MAREA_EARG (threads, index_base, an isa that this machine does not have, MAREA_CONV), MAREA_ENOMEM. MAREA_CONV=direct
   in the environment has every convolution add up its products as they are, as their attribute `algorithm` does. */
MAREA_API MAREA_MUST_USE marea_status marea_open (const marea_config *config, marea_context **ctx);
/* Ends it. Tensors that are still referenced stay valid; the memory goes with the last of them. */
MAREA_API void marea_close (marea_context *ctx);

typedef struct marea_memory_info {
  size_t live, peak, pooled;  /* bytes in use by tensors and the tape, their maximum, bytes kept for reuse */
  uint64_t blocks;            /* blocks in use */
  uint64_t mallocs;           /* calls of the allocator so far */
  size_t limit;               /* that was set; 0: none */
} marea_memory_info;
MAREA_API marea_memory_info marea_memory (const marea_context *ctx);
MAREA_API void marea_memory_reset_peak (marea_context *ctx);
MAREA_API void marea_memory_limit (marea_context *ctx, size_t max_bytes);
MAREA_API void marea_memory_trim (marea_context *ctx);  /* gives pooled blocks back to the allocator */
/* For tests: makes the k-th request for memory from now on fail (k >= 1; 0 = off), once or from then on. */
MAREA_API void marea_memory_fail (marea_context *ctx, uint64_t k, bool from_then_on);

/* Budgets: what operators may use from now on; 0 = no limit. The call that would go beyond fails with MAREA_EBUDGET,
   and so does every further one until a new limit is set. Floating-point operations are those of profiles (2 for each
   multiply-add), but at least one for each element of the largest tensor of a call; they are charged before the call
   runs. Seconds are of the wall clock, which is looked at before a call and between its blocks of work. A change in
   place that has begun is completed and succeeds, unless that takes 30 ms beyond the limit: it then ends with
   MAREA_EBUDGET, and what it changes is changed in part. While shielded nothing is stopped. An operator that cannot
   be stopped on its way (eigh) is refused when it would probably take longer than what is left. */
MAREA_API void marea_limit_flop (marea_context *ctx, double flop);
MAREA_API void marea_limit_time (marea_context *ctx, double seconds);

MAREA_API MAREA_MUST_USE marea_status marea_set_threads (marea_context *ctx, int threads);
MAREA_API int marea_threads (const marea_context *ctx);
MAREA_API int marea_index_base (const marea_context *ctx);
MAREA_API const char *marea_isa (const marea_context *ctx);
/* The instruction sets that a context can be opened with here, the best one first; NULL behind the last one. */
MAREA_API const char *marea_isa_at (int i);
MAREA_API const char *marea_blas (void);  /* OpenBLAS's build and core name; "none: ..." in a build without it */
/* OpenBLAS allocates address space for each thread that calls it, and for its own threads as it is loaded. Where
   RLIMIT_AS leaves too little it retries for ever, and exit() would wait for it. Returns a sentence about that if the
   address space does not suffice for so many threads (0: the default number of a context), else NULL. In that case
   marea_open fails with MAREA_ENOMEM, and the program has to end by _exit. */
MAREA_API const char *marea_blas_trouble (int threads);

/* Asks the running operator to stop: it returns MAREA_EINTR within some milliseconds and its results are
   dropped; one that changes a tensor in place is completed and succeeds, and the next one meets the request. May be
   called from a signal handler or another thread. The request is consumed by that return. */
MAREA_API void marea_interrupt (marea_context *ctx);
/* For long loops of the host: MAREA_EINTR when a request has come, which is consumed, MAREA_EBUDGET when the time
   is over (marea_limit_time); MAREA_OK otherwise. */
MAREA_API MAREA_MUST_USE marea_status marea_poll (marea_context *ctx);
/* While shielded, operators run to their end and requests wait: for several changes in place that must not be torn
   apart. Returns the former state, to be restored by the caller. */
MAREA_API bool marea_set_shielded (marea_context *ctx, bool on);
MAREA_API bool marea_shielded (const marea_context *ctx);

/* ---- 3 Tensors ---------------------------------------------------------------------------------- */

/* bf16 and f16 are stored only: operators compute with them in f32 and round each result once. */
typedef enum marea_dtype { MAREA_F32, MAREA_F64, MAREA_I64, MAREA_U8, MAREA_BF16, MAREA_F16 } marea_dtype;
enum { MAREA_DTYPE_COUNT = MAREA_F16 + 1 }; /* how many there are; as a marea_dtype: none of them */
MAREA_API const char *marea_dtype_name (marea_dtype dtype);
MAREA_API size_t marea_dtype_size (marea_dtype dtype);  /* bytes of an element */
MAREA_API bool marea_dtype_is_float (marea_dtype dtype);
MAREA_API marea_dtype marea_dtype_computed (marea_dtype dtype); /* what operators compute in: itself; f32 of bf16, f16 */
/* The dtype that tensors of both are converted to: the later one of u8, i64, bf16 and f16, f32, f64; f32 for bf16 beside
   f16. What is no dtype has no say. */
MAREA_API marea_dtype marea_promote (marea_dtype a, marea_dtype b);
/* The element at `at` as a number (an i64 rounded beyond 2^53), and a number put there, rounded or cut to the dtype. */
MAREA_API double marea_number_at (marea_dtype dtype, const void *at);
MAREA_API void marea_put_number (marea_dtype dtype, void *at, double value);

/* New tensor with contents undefined / zero; rank 0..8, sizes >= 0. */
MAREA_API MAREA_MUST_USE marea_status marea_empty (marea_context *ctx, marea_dtype dtype, int rank,
                                                   const int64_t *shape, marea_tensor **out);
MAREA_API MAREA_MUST_USE marea_status marea_zeros (marea_context *ctx, marea_dtype dtype, int rank,
                                                   const int64_t *shape, marea_tensor **out);
/* Tensor over memory of the host, without a copy; `release(ud)` is called when the last view is gone, and not when this
   fails. `data` is aligned to the elements; NULL only for a tensor without any. release may be NULL. */
MAREA_API MAREA_MUST_USE marea_status marea_from_memory (marea_context *ctx, marea_dtype dtype, int rank,
                                                         const int64_t *shape, void *data,
                                                         void (*release)(void *ud), void *ud,
                                                         marea_tensor **out);

MAREA_API marea_tensor *marea_retain (marea_tensor *t);  /* one more reference; returns t */
MAREA_API void marea_release (marea_tensor *t);          /* one less; NULL is allowed */

MAREA_API marea_context *marea_tensor_context (const marea_tensor *t);
MAREA_API marea_dtype marea_tensor_dtype (const marea_tensor *t);
MAREA_API int marea_tensor_rank (const marea_tensor *t);
MAREA_API const int64_t *marea_tensor_shape (const marea_tensor *t);
MAREA_API const int64_t *marea_tensor_strides (const marea_tensor *t);  /* in elements */
MAREA_API int64_t marea_tensor_size (const marea_tensor *t);            /* number of elements */
MAREA_API bool marea_tensor_contiguous (const marea_tensor *t);         /* row-major without gaps */
MAREA_API bool marea_tensor_shares (const marea_tensor *a, const marea_tensor *b);  /* same storage */
MAREA_API uint32_t marea_tensor_changes (const marea_tensor *t);         /* of its storage, in place */
MAREA_API int marea_tensor_references (const marea_tensor *t);           /* owners: the graph may be one of them */
/* Address of element 0. Write through it only when no graph needs the old value: the tape cannot see it. */
MAREA_API void *marea_tensor_data (const marea_tensor *t);

/* What the elements are like. `most` bounds the time: of more elements in memory than that, a sample of about as many
   is read, which lies all over the tensor; 0: all are read. The result does not depend on threads. */
typedef struct marea_statistics {
  double least, most, mean;         /* of the finite elements; 0 when there are none */
  int64_t finite, nans, infinities; /* how many were seen */
  int64_t seen;                     /* their sum: all elements, or those of the sample */
} marea_statistics;
MAREA_API void marea_statistics_of (const marea_tensor *t, int64_t most, marea_statistics *s);

/* From now on changes in place of this tensor and of every view of its storage are errors (MAREA_ESTATE). So memory
   that several contexts read, each through a tensor of its own from marea_from_memory, stays as it is. */
MAREA_API void marea_protect (marea_tensor *t);

/* A tensor of the same storage without history. */
MAREA_API MAREA_MUST_USE marea_status marea_detach (marea_tensor *t, marea_tensor **out);

/* ---- 4 Operators -------------------------------------------------------------------------------- */

typedef enum marea_attr_kind {
  MAREA_REAL,    /* f */
  MAREA_INT,     /* i */
  MAREA_BOOL,    /* i, 0 or 1 */
  MAREA_ENUM,    /* i, position in the list of choices */
  MAREA_DTYPE,   /* i, a marea_dtype; -1 = not given */
  MAREA_DIM,     /* i, a dimension; negatives count from the end */
  MAREA_INDEX,   /* i, an element's position; negatives count from the end */
  MAREA_DIMS,    /* v[0..n-1], dimensions; n = 0: all of them */
  MAREA_SIZES,   /* v[0..n-1], sizes of a shape (n may be 0 for a scalar); INFER fills a gap in reshape */
  MAREA_PAIR,    /* v[0..1], height and width */
  MAREA_PADDING, /* v[0..3], top, bottom, left, right; or n = MAREA_SAME: as much as keeps ceil(in / stride) */
  MAREA_NUMBER,  /* f; or with n = MAREA_EXACT the integer i, which f would not hold beyond 2^53 */
  MAREA_SIDES    /* v[0..1], left and right padding of a sequence; or n = MAREA_SAME */
} marea_attr_kind;

#define MAREA_SAME (-1)   /* marea_attr.n of padding 'same' */
#define MAREA_EXACT 2     /* marea_attr.n of a number that is an integer */
#define MAREA_INFER (-1)  /* a size that reshape works out */

/* Dims and indices are in C terms here: 0-based, or negative counting from the end, whatever index_base. */
typedef struct marea_attr {
  int n;
  union {
    double f;
    int64_t i;
    int64_t v[MAREA_MAX_RANK];
  };
} marea_attr;

typedef struct marea_attr_spec {
  const char *name;
  marea_attr_kind kind;
  double initial;       /* value when left out; MAREA_REQUIRED: must be given */
  const char *choices;  /* MAREA_ENUM: "mean|sum|none", the first being the default */
  const char *doc;
} marea_attr_spec;
#define MAREA_REQUIRED 1e300
#define MAREA_NONE (-1e300)  /* may be left out without a value: n = 0, and i = INT64_MIN of integers */

typedef struct marea_input_spec {
  const char *name;
  const char *doc;  /* shape in the terms of the doc line, e.g. "(N,H,W,Cin)" */
  bool optional;    /* may be NULL */
  bool variadic;    /* this one stands for a list of tensors; it is the only input */
} marea_input_spec;

/* What a caller may ask about an operator (all of it, to build calls, help and tests from). */
MAREA_API int marea_op_count (void);
MAREA_API const marea_op *marea_op_at (int i);              /* in the order of the registry */
MAREA_API const marea_op *marea_op_find (const char *name);  /* NULL if there is none */
MAREA_API const char *marea_op_name (const marea_op *op);
MAREA_API const char *marea_op_family (const marea_op *op);  /* "unary", "conv", ... */
MAREA_API const char *marea_op_doc (const marea_op *op);
MAREA_API const char *marea_op_sample (const marea_op *op);  /* Lua source for tests: inputs and attributes */
MAREA_API int marea_op_inputs (const marea_op *op, const marea_input_spec **specs);
MAREA_API int marea_op_attrs (const marea_op *op, const marea_attr_spec **specs);
MAREA_API bool marea_op_differentiable (const marea_op *op);
MAREA_API bool marea_op_once (const marea_op *op);          /* ... but its gradient has no gradient (create_graph) */
MAREA_API bool marea_op_elementwise (const marea_op *op);  /* may also run in place: marea_apply_ */
MAREA_API bool marea_op_mutates (const marea_op *op);      /* changes its first inputs (optimizer steps) */
MAREA_API bool marea_op_takes_numbers (const marea_op *op); /* Lua numbers may stand for its inputs */
MAREA_API bool marea_op_gives_reals (const marea_op *op);   /* ... and results are real for integers too, as a / b */

/* Attributes at their initial values; required ones get n = 0 and must be set by the caller. */
MAREA_API void marea_attrs_init (const marea_op *op, marea_attr *attrs);

/* Applies `op` to `in[0..n_in-1]` and puts its results in out[0..*n_out-1], one reference each.
   `attrs` has marea_op_attrs entries, or is NULL for initial values. Records on the tape when gradients are
   enabled and an input needs them. On failure nothing is returned and nothing was changed. */
MAREA_API MAREA_MUST_USE marea_status marea_apply (marea_context *ctx, const marea_op *op, int n_in,
                                                   marea_tensor *const *in, const marea_attr *attrs,
                                                   marea_tensor **out, int *n_out);
/* The same for an elementwise operator, its result written over in[0]; broadcasting must leave in[0]'s shape.
   Errors: an input requires a gradient while recording is on; elements of in[0] share memory (expand). */
MAREA_API MAREA_MUST_USE marea_status marea_apply_ (marea_context *ctx, const marea_op *op, int n_in,
                                                    marea_tensor *const *in, const marea_attr *attrs);
/* Applies an operator that changes its inputs, or an elementwise one in place, to each of n_in / each lists of `each`
   tensors, which lie one behind the other in `in`; an optional input that is absent is NULL. Attributes are the same
   for all. An optimizer's step on many parameters is one job of the threads, with the bits of calls one by one; all
   lists are checked before any tensor changes. *done: so many lists were changed, all or none of them but where a
   profile, a plan or a limit wants one call after the other, or lists share memory. */
MAREA_API MAREA_MUST_USE marea_status marea_apply_each (marea_context *ctx, const marea_op *op, int each, int n_in,
                                                        marea_tensor *const *in, const marea_attr *attrs,
                                                        int *done);
/* The same by names, for programs that are written by hand:  marea_call_op(ctx, "conv2d", MAREA_TENSORS(x, w, b),
   MAREA_NAMED(marea_int("stride", 2), marea_word("padding", "same")), 1, &y) marea_call_op(ctx, "adam_step",
   MAREA_TENSORS(p, g, m, v), MAREA_NAMED(marea_real("lr", 1e-3), ...), 0, NULL) marea_call_op(ctx, "mul_",
   MAREA_TENSORS(x, y), MAREA_NO_NAMES, 0, NULL)          x := x * y  The first n_out results go to out[]; what the
   operator does not give is NULL there, further ones are released. A name that ends in _ writes the result over
   in[0]. Values: numbers as integers or reals; a choice, a dtype or a padding as text; lists, or an integer for a
   list of one (a pair: for both, a padding: for all sides); switches as 0 or 1. Errors (MAREA_EARG): no such operator
   or attribute, a value of another type, a required one left out; and those of marea_apply. */
typedef enum marea_named_type {
  MAREA_NAMED_REAL,
  MAREA_NAMED_INT,
  MAREA_NAMED_TEXT,
  MAREA_NAMED_LIST
} marea_named_type;
typedef struct marea_named {
  const char *name;
  marea_named_type type;
  int n;  /* of a list */
  union {
    double f;
    const char *s;  /* borrowed until the call returns */
    int64_t v[MAREA_MAX_RANK];
  };
} marea_named;
MAREA_API marea_named marea_real (const char *name, double value);
MAREA_API marea_named marea_int (const char *name, int64_t value);
MAREA_API marea_named marea_word (const char *name, const char *value);
MAREA_API marea_named marea_ints (const char *name, int n, const int64_t *values);

MAREA_API MAREA_MUST_USE marea_status marea_call_op (marea_context *ctx, const char *name, int n_in,
                                                     marea_tensor *const *in, int n_named,
                                                     const marea_named *named, int n_out, marea_tensor **out);
#ifndef __cplusplus /* which has no such literals; there, arrays of one's own do it */
#define MAREA_LIST_OF(type, ...) (int)(sizeof((type[]){__VA_ARGS__}) / sizeof(type)), (type[]){__VA_ARGS__}
#define MAREA_TENSORS(...) MAREA_LIST_OF(marea_tensor *, __VA_ARGS__)
#define MAREA_NAMED(...) MAREA_LIST_OF(marea_named, __VA_ARGS__)
#endif
#define MAREA_NO_TENSORS 0, NULL
#define MAREA_NO_NAMES 0, NULL

/* Copies src's values into dst, broadcasting and converting. Errors as for marea_apply_. */
MAREA_API MAREA_MUST_USE marea_status marea_copy (marea_tensor *dst, marea_tensor *src);

/* ---- 5 Gradients -------------------------------------------------------------------------------- */

MAREA_API MAREA_MUST_USE marea_status marea_require_grad (marea_tensor *t, bool on);  /* leaves only */
MAREA_API bool marea_requires_grad (const marea_tensor *t);
MAREA_API bool marea_is_leaf (const marea_tensor *t);
MAREA_API marea_tensor *marea_grad_of (const marea_tensor *t);  /* borrowed; NULL if there is none */
MAREA_API void marea_clear_grad (marea_tensor *t);

/* Recording can be switched off; switches nest. Returns the former state, to be restored by the caller. */
MAREA_API bool marea_set_recording (marea_context *ctx, bool on);
MAREA_API bool marea_recording (const marea_context *ctx);

/* Automatic casts. While autocast is on, products and convolutions (matmul, linear, conv2d, ..) take their float inputs in
   this dtype, MAREA_BF16 or MAREA_F16, add up in f32 and give results of it; recurrent layers and attention round the
   operands of their products to bf16 and give f32; f64 inputs and what is beside them are left as they are. Losses, norms, softmax, sums and powers of such results are f32. Casts are recorded,
   so gradients of f32 parameters are f32; those of parameters are kept until it is switched off. The reverse pass takes
   the dtypes of what was recorded and no notice of autocast. Any other dtype switches it off. Returns the former one, to
   be restored by the caller, -1 when it was off. */
MAREA_API int marea_set_autocast (marea_context *ctx, int dtype);
MAREA_API int marea_autocast (const marea_context *ctx);

enum {
  MAREA_RETAIN_GRAPH = 1,  /* keep the graph for another pass */
  MAREA_CREATE_GRAPH = 2   /* record the pass itself, for gradients of gradients (implies RETAIN_GRAPH) */
};
/* Adds d(sum(y * seed))/d(leaf) to the gradient of every leaf that y depends on. seed NULL = 1, for one element only.
   flags: of the two above. Without a flag the graph is consumed, also by a pass that fails; no gradient is changed
   then. */
MAREA_API MAREA_MUST_USE marea_status marea_backward (marea_tensor *y, marea_tensor *seed, int flags);
/* grads[i] = d(sum(y * seed))/d(xs[i]), NULL where y does not depend on xs[i]; leaves' own gradients stay. */
MAREA_API MAREA_MUST_USE marea_status marea_grad (marea_tensor *y, marea_tensor *seed, int n,
                                                  marea_tensor *const *xs, int flags,
                                                  marea_tensor **grads);
MAREA_API uint64_t marea_tape_length (const marea_context *ctx);  /* nodes alive */

/* What is made from now on, tensors and graph, remembers this number of the host's choice, a line of a script
   perhaps. */
MAREA_API void marea_set_place (marea_context *ctx, uint32_t place);
MAREA_API uint32_t marea_place_of (const marea_tensor *t);  /* where its memory was made */

/* list[0..*n-1] := the largest tensors of the context's memory, `most` of them at most, by falling bytes:
   new handles with the shape that they were made with. */
#define MAREA_MOST_LARGEST 64
MAREA_API MAREA_MUST_USE marea_status marea_memory_largest (marea_context *ctx, int most, marea_tensor **list, int *n);

/* Where the values of y that are not finite began, found out afterwards from the graph. What the graph has not saved is
   computed once more; what cannot be is not known. */
#define MAREA_BLAME_INPUTS 8
typedef struct marea_blame {
  const marea_op *op;       /* whose result is not finite; NULL: y is a leaf */
  uint32_t place;           /* where it ran */
  int n_in;                 /* inputs of it, the first MAREA_BLAME_INPUTS of them */
  marea_tensor *in[MAREA_BLAME_INPUTS];  /* NULL: not given, or not known: */
  unsigned unknown;         /* bit i: in[i] is not known any more */
  marea_tensor *out;        /* its result; NULL: not known */
  int given_input;          /* an input that was not finite when it came to the graph; -1: none that is known */
  marea_tensor *given;      /* ... itself; y if that is a leaf */
  marea_tensor *parameter;  /* the leaf that wants a gradient and was read last on the way there; NULL: none */
  bool own_parameter;       /* by `op` itself */
} marea_blame;
/* The tensors in *blame belong to the caller, who gives them back by marea_blame_clear. */
MAREA_API MAREA_MUST_USE marea_status marea_find_blame (marea_tensor *y, marea_blame *blame);
MAREA_API void marea_blame_clear (marea_blame *blame);

/* ---- 6 Random numbers --------------------------------------------------------------------------- */

typedef struct marea_random_state {
  uint64_t seed;     /* key of Philox4x32-10 */
  uint64_t counter;  /* next unused block of four 32-bit words */
} marea_random_state;
MAREA_API void marea_seed (marea_context *ctx, uint64_t seed);  /* counter 0 */
MAREA_API marea_random_state marea_random (const marea_context *ctx);
MAREA_API void marea_set_random (marea_context *ctx, marea_random_state state);

/* ---- 7 Files ------------------------------------------------------------------------------------ */
/* Files are written beside their target and renamed, so that a crash, a full disk or a limit on file sizes
   (RLIMIT_FSIZE, whose signal is kept from the process) leaves the old one. Readers check every declared size against
   limits and against the file before they allocate. A missing or malformed file is MAREA_EIO or MAREA_EFORMAT with
   the path and the reason in marea_error. */

MAREA_API MAREA_MUST_USE marea_status marea_load_idx (marea_context *ctx, const char *path,
                                                      marea_tensor **out);  /* .gz or raw */
MAREA_API MAREA_MUST_USE marea_status marea_load_npy (marea_context *ctx, const char *path, marea_tensor **out);
MAREA_API MAREA_MUST_USE marea_status marea_save_npy (marea_tensor *t, const char *path);
/* u8 (H,W,C): C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA. Samples are those of the file: what gAMA, cHRM, sRGB and
   iCCP say of their light is passed over, and alpha is not multiplied in. A palette becomes RGB, tRNS an alpha
   channel of 0 and 255, or a palette's own values; 1, 2 and 4 bits are scaled to 0..255, 16 bits give their upper
   byte. */
MAREA_API MAREA_MUST_USE marea_status marea_load_png (marea_context *ctx, const char *path, marea_tensor **out);
/* The same with 16 bits: i64 from 0 to 65535, as they are in the file; fewer bits are scaled, 8 of them by 257. */
MAREA_API MAREA_MUST_USE marea_status marea_load_png16 (marea_context *ctx, const char *path, marea_tensor **out);
/* (H,W) or (H,W,C): u8 as it is, f32 and f64 from [0, 1], clamped; NaN becomes 0. */
MAREA_API MAREA_MUST_USE marea_status marea_save_png (marea_tensor *t, const char *path);
/* With 16 bits: i64 from 0 to 65535 as it is (MAREA_EARG outside), f32 and f64 as above. */
MAREA_API MAREA_MUST_USE marea_status marea_save_png16 (marea_tensor *t, const char *path);
/* The bytes of that file as a tensor u8 (n), for programs that send pictures instead of keeping them. */
MAREA_API MAREA_MUST_USE marea_status marea_encode_png (marea_tensor *t, marea_tensor **out);

/* A JPEG picture as u8 (H,W,C), C = 1 gray, 3 RGB; CMYK becomes RGB. It is turned as EXIF's Orientation wants it.
   min_side above 0: it is decoded at 1/2, 1/4 or 1/8 of its size, as long as the shorter side keeps so many pixels,
   which takes a part of the time. Damage that libjpeg finds is MAREA_EFORMAT. */
MAREA_API MAREA_MUST_USE marea_status marea_load_jpeg (marea_context *ctx, const char *path, int64_t min_side,
                                                       marea_tensor **out);
/* (H,W), (H,W,1) or (H,W,3), values as marea_save_png's; quality from 1 to 100; colours at half the resolution. */
MAREA_API MAREA_MUST_USE marea_status marea_save_jpeg (marea_tensor *t, const char *path, int64_t quality);
/* A PNG as marea_load_png's or a JPEG as marea_load_jpeg's, by the file's first bytes. */
MAREA_API MAREA_MUST_USE marea_status marea_load_image (marea_context *ctx, const char *path, marea_tensor **out);
/* The same as u8 (height,width,channels), 1 or 3 of them: gray becomes RGB or RGB gray (ITU-R 601), alpha is left out. crop:
   the middle of the picture, as much as the shape shows; else the whole picture, whatever its shape. Bilinear, over all
   pixels that fall into one (PIL's resize with BILINEAR); a JPEG is decoded smaller first where that suffices. */
MAREA_API MAREA_MUST_USE marea_status marea_load_image_sized (marea_context *ctx, const char *path, int64_t height,
                                                              int64_t width, int channels, bool crop,
                                                              marea_tensor **out);

/* A file of these bytes, whole or not at all, as all files here are written. */
MAREA_API MAREA_MUST_USE marea_status marea_save_bytes (marea_context *ctx, const char *path, const void *bytes,
                                                        size_t n);

/* A safetensors file as a list of named tensors and of string pairs, both in the order of names. */
typedef struct marea_file marea_file;
MAREA_API MAREA_MUST_USE marea_status marea_file_new (marea_context *ctx, marea_file **out);
MAREA_API MAREA_MUST_USE marea_status marea_file_add (marea_file *f, const char *name, marea_tensor *t);
MAREA_API MAREA_MUST_USE marea_status marea_file_add_text (marea_file *f, const char *key, const char *value);
/* Atomic: a temporary file beside `path`, fsync, rename, fsync of the folder. With a checksum per tensor. */
MAREA_API MAREA_MUST_USE marea_status marea_file_save (marea_file *f, const char *path);
MAREA_API MAREA_MUST_USE marea_status marea_file_load (marea_context *ctx, const char *path, marea_file **out);
/* The same from and to memory: the bytes of such a file, which it gives as a tensor u8 (n). */
MAREA_API MAREA_MUST_USE marea_status marea_file_parse (marea_context *ctx, const void *bytes, size_t n,
                                                        marea_file **out);
MAREA_API MAREA_MUST_USE marea_status marea_file_encode (marea_file *f, marea_tensor **out);
/* NumPy's archives of named arrays, stored or deflated: the tensors of such a file. Texts have no place there and are left
   out; bf16 is MAREA_EARG. */
MAREA_API MAREA_MUST_USE marea_status marea_load_npz (marea_context *ctx, const char *path, marea_file **out);
MAREA_API MAREA_MUST_USE marea_status marea_save_npz (marea_file *f, const char *path);
/* The members of a ZIP archive, stored or deflated, by their names: their bytes as tensors u8 (n). */
MAREA_API MAREA_MUST_USE marea_status marea_load_zip (marea_context *ctx, const char *path, marea_file **out);
MAREA_API int marea_file_count (const marea_file *f);
MAREA_API const char *marea_file_name (const marea_file *f, int i);      /* this and the next two: NULL out of range */
MAREA_API marea_tensor *marea_file_tensor (const marea_file *f, int i);  /* borrowed */
MAREA_API marea_tensor *marea_file_find (const marea_file *f, const char *name);  /* borrowed; NULL: there is none */
MAREA_API int marea_file_text_count (const marea_file *f);
MAREA_API void marea_file_text (const marea_file *f, int i, const char **key, const char **value);
MAREA_API void marea_file_free (marea_file *f);

/* What torch.save wrote, since PyTorch 1.6, as a tree of values. Nothing in such a file is run: one that wants more than
   tensors, lists, dicts, numbers, texts, booleans and None is MAREA_EFORMAT, with the name of what it wants. The values
   are nodes 1 to count - 1; one that occurs twice in the tree is one node, and a list may have itself as an element. */
typedef struct marea_tree marea_tree;
typedef enum marea_tree_kind {
  MAREA_TREE_NONE,
  MAREA_TREE_FALSE,
  MAREA_TREE_TRUE,
  MAREA_TREE_INTEGER,
  MAREA_TREE_NUMBER,
  MAREA_TREE_TEXT,
  MAREA_TREE_LIST,
  MAREA_TREE_DICT,
  MAREA_TREE_TENSOR
} marea_tree_kind;
typedef struct marea_tree_value {
  marea_tree_kind kind;
  int first;             /* of a list or a dict: its first cell; 0: it has none */
  int64_t integer;
  double number;
  const char *text;      /* `count` bytes of UTF-8, without a zero behind them; they live as long as the tree */
  size_t count;          /* of them, or of the cells */
  marea_tensor *tensor;  /* borrowed */
} marea_tree_value;
MAREA_API MAREA_MUST_USE marea_status marea_load_torch (marea_context *ctx, const char *path, marea_tree **out);
/* GGUF of versions 2 and 3, as a list of two dicts: the tensors, with the outermost size first, and what else the file tells.
   Blocks q8_0 and q4_0 are f32 here; a file with other ones is MAREA_EFORMAT, with their names and the tensors'. */
MAREA_API MAREA_MUST_USE marea_status marea_load_gguf (marea_context *ctx, const char *path, marea_tree **out);
/* What torch.save of Torch7 wrote in binary. Tables are dicts; so are objects, as those of nn, with the name of their class
   under "__typename". A file with functions is MAREA_EFORMAT. */
MAREA_API MAREA_MUST_USE marea_status marea_load_t7 (marea_context *ctx, const char *path, marea_tree **out);
MAREA_API int marea_tree_root (const marea_tree *t);
MAREA_API int marea_tree_count (const marea_tree *t);
MAREA_API void marea_tree_value_at (const marea_tree *t, int node, marea_tree_value *value); /* NONE out of range */
/* The nodes of a cell, of a list with key 0, and the next cell or 0. */
MAREA_API int marea_tree_next (const marea_tree *t, int cell, int *key, int *node);
MAREA_API void marea_tree_free (marea_tree *t);

/* JSON in UTF-8: its values one after another, those of an object or list before the MAREA_JSON_END that closes it; then
   MAREA_JSON_END for ever. A name that occurs twice in an object is an error; messages name byte, line and column. */
typedef struct marea_json marea_json;
typedef enum marea_json_kind {
  MAREA_JSON_END,
  MAREA_JSON_NULL,
  MAREA_JSON_FALSE,
  MAREA_JSON_TRUE,
  MAREA_JSON_INTEGER,
  MAREA_JSON_NUMBER,
  MAREA_JSON_STRING,
  MAREA_JSON_LIST,
  MAREA_JSON_OBJECT
} marea_json_kind;
typedef struct marea_json_value {
  marea_json_kind kind;
  const char *name, *text;  /* of an object's value: its name; a string. They live as long as the marea_json */
  size_t count;             /* bytes of a string; values of a list or an object */
  int64_t integer;
  double number;
} marea_json_value;
MAREA_API MAREA_MUST_USE marea_status marea_json_read (marea_context *ctx, const char *text, size_t n,
                                                       marea_json **out);
MAREA_API void marea_json_next (marea_json *j, marea_json_value *value);
MAREA_API void marea_json_free (marea_json *j);

/* ---- 8 Profiling -------------------------------------------------------------------------------- */
/* A profile measures every operator from start to stop. It keeps sums for each operator, layer, direction and algorithm, and the
   single calls in order of their start, the first max_events of them. Its memory is the context's and counts towards
   the limit; where that ends, single calls are left out and sums go to the first row. While none runs, an operator
   pays one comparison for it. */
typedef struct marea_profile marea_profile;

/* What is known of a call, and the sums of calls. A view costs neither FLOPs nor bytes. */
typedef struct marea_profile_work {
  const char *op;    /* its name; "backward" is a backward pass with all that it runs; NULL: first row, see above */
  int layer;         /* marea_set_layer's when it ran; in a pass, that of the forward call whose gradient it computes */
  bool backward;     /* it ran in a backward pass */
  double flop;       /* floating-point operations; 2 for each multiply-add of products and convolutions */
  double bytes;      /* of its inputs and outputs */
  const char *algorithm[2]; /* which one was taken, where an operator has several: "winograd"; of conv2d_backward those
                        of dx and dw, as far as they are wanted; NULL: none, or no further one */
} marea_profile_work;

typedef struct marea_profile_row {
  marea_profile_work work;
  uint64_t calls;
  int64_t self_ns, total_ns;  /* without and with the operators that they ran in turn */
} marea_profile_row;

typedef struct marea_profile_event {
  marea_profile_work work;
  int depth;                    /* 0: called by the host */
  int64_t start_ns, total_ns;   /* the start counts from the profile's */
} marea_profile_event;

typedef struct marea_profile_info {
  int64_t wall_ns;      /* from start to stop, or to now */
  int64_t overhead_ns;  /* of it the profile's own work, which belongs to no call */
  uint64_t dropped;     /* calls that are not among the events */
} marea_profile_info;

/* Error: one is running in this context. */
MAREA_API MAREA_MUST_USE marea_status marea_profile_start (marea_context *ctx, size_t max_events,
                                                           marea_profile **out);
MAREA_API void marea_profile_stop (marea_profile *p);  /* between operators; harmless when it has stopped */
MAREA_API void marea_profile_free (marea_profile *p);  /* stops it; NULL is allowed */
MAREA_API marea_profile_info marea_profile_times (const marea_profile *p);
/* Both are valid until the profile goes on or is freed. */
MAREA_API const marea_profile_row *marea_profile_rows (const marea_profile *p, size_t *n);
MAREA_API const marea_profile_event *marea_profile_events (const marea_profile *p, size_t *n);

/* Operators from now on belong to this layer, a number of the host's choice; 0 is none. Returns the former one. */
MAREA_API int marea_set_layer (marea_context *ctx, int layer);
/* What the host does between these two, without running operators, counts as overhead. */
MAREA_API void marea_profile_pause (marea_profile *p);
MAREA_API void marea_profile_resume (marea_profile *p);

/* ---- 9 Planning --------------------------------------------------------------------------------- */
/* While a plan runs, operators check their arguments and record, but compute nothing: results are planned tensors,
   which have a shape and no values. marea_memory counts them as if they had, so that live and peak bytes are those of
   a real run; memory itself is not taken for them. A profile counts calls and FLOPs meanwhile. Changes in place have
   no effect, and gradients and the random state come back at the end. A planned tensor that survives can be released,
   not used. */
MAREA_API MAREA_MUST_USE marea_status marea_plan_start (marea_context *ctx);  /* error: one is running */
MAREA_API void marea_plan_stop (marea_context *ctx);                          /* harmless when none is running */
MAREA_API bool marea_planning (const marea_context *ctx);
MAREA_API bool marea_is_planned (const marea_tensor *t);  /* marea_tensor_data of it is NULL */

/* ---- 10 Graphs ---------------------------------------------------------------------------------- */
/* A graph is a network as data: operators with the names of what they read and write, and the weights. The first run
   with inputs of some shapes makes a list of operators for them, in which everything that does not depend on the inputs
   is computed once; the lists for the last eight sets of shapes are kept. Networks whose shapes depend on values, and
   runs that are recorded, go over the graph each time. */
typedef struct marea_graph marea_graph;

/* ONNX, operator sets up to 21. Tensors of another file are read from the model's folder alone. Integers of 8 to 32 bits and
   unsigned ones are i64 here, truth values and uint8 are u8. Errors: MAREA_EFORMAT with all operators that are missing. */
MAREA_API MAREA_MUST_USE marea_status marea_onnx_load (marea_context *ctx, const char *path, marea_graph **out);
MAREA_API MAREA_MUST_USE marea_status marea_onnx_parse (marea_context *ctx, const void *bytes, size_t n,
                                                        marea_graph **out); /* the bytes of such a file */
typedef struct marea_graph_port { /* an input or a result */
  const char *name;   /* lives as long as the graph */
  marea_dtype dtype;  /* MAREA_DTYPE_COUNT: not told */
  int rank;           /* -1: not told */
  int64_t shape[MAREA_MAX_RANK]; /* -1: any size */
} marea_graph_port;
MAREA_API int marea_graph_inputs (const marea_graph *g);
MAREA_API int marea_graph_outputs (const marea_graph *g);
MAREA_API bool marea_graph_input (const marea_graph *g, int i, marea_graph_port *port); /* false: no such one */
MAREA_API bool marea_graph_output (const marea_graph *g, int i, marea_graph_port *port);
/* Entry i of what the file says about itself: a name and a text, borrowed; false: no such one */
MAREA_API bool marea_graph_metadata (const marea_graph *g, int i, const char **key, const char **text);
/* The weights, in the order of the file; borrowed, NULL: no such one. They may be changed in place, and may require a
   gradient: runs that are recorded then give gradients to them. */
typedef struct marea_graph_weight {
  const char *name;
  marea_tensor *tensor;
  bool learned;  /* a float that is no statistic and no setting, as the bounds of a clip are */
} marea_graph_weight;
MAREA_API int marea_graph_weights (const marea_graph *g);
MAREA_API bool marea_graph_weight_at (const marea_graph *g, int i, marea_graph_weight *weight);
/* out[0..n_out-1] := all results, one reference each. Errors: inputs of another dtype, rank or size; those of operators. */
MAREA_API MAREA_MUST_USE marea_status marea_graph_run (marea_graph *g, int n_in, marea_tensor *const *in, int n_out,
                                                       marea_tensor **out);
/* The list of operators that a run with these inputs takes, as text, u8 (n): a line a call. Error (MAREA_ESTATE): the graph
   runs without a list, as its shapes depend on values. */
MAREA_API MAREA_MUST_USE marea_status marea_graph_text (marea_graph *g, int n_in, marea_tensor *const *in,
                                                        marea_tensor **out);
/* The same network with weights of its own, copies of g's. */
MAREA_API MAREA_MUST_USE marea_status marea_graph_copy (marea_graph *g, marea_graph **out);
MAREA_API void marea_graph_free (marea_graph *g);

/* A trace of the operators that a run calls. From start to stop each call of an operator, by the host, that depends on
   the inputs is noted, with its result; everything else, such as weights, is a constant with the value that it has at the
   end. The trace keeps the tensors until then. What changes a tensor that the trace knows fails with MAREA_ESTATE. */
typedef struct marea_trace marea_trace;
MAREA_API MAREA_MUST_USE marea_status marea_trace_start (marea_context *ctx, int n_in, marea_tensor *const *in);
MAREA_API MAREA_MUST_USE marea_status marea_trace_stop (marea_context *ctx, int n, marea_tensor *const *results,
                                                         marea_trace **trace); /* ends it after an error, too */
MAREA_API void marea_trace_drop (marea_context *ctx); /* ends one that runs, for nothing */
MAREA_API void marea_trace_free (marea_trace *r);

/* Writes a trace as a file of ONNX. Names are those of the file, of weights that are given (tensors that the run read);
   other constants have none. `other`: a trace of the same run with other sizes of inputs; what differs between them is
   free in the file. Errors: MAREA_EFORMAT with all operators that ONNX has no way to say. */
typedef struct marea_onnx_names {
  const char *const *inputs, *const *results; /* as many as the trace has */
  int n_weights;
  const char *const *weights;
  marea_tensor *const *tensors; /* n_weights of both */
  int opset;                    /* 17 to 21; 0: 17 */
  const marea_trace *other;
} marea_onnx_names;
MAREA_API MAREA_MUST_USE marea_status marea_onnx_save (const marea_trace *r, const marea_onnx_names *names,
                                                       const char *path);

#ifdef __cplusplus
}
#endif

#endif
