/* SPDX-License-Identifier: MIT
** core.h: private structures and helpers of the core. Included only inside core/.
**
** Ownership: a tensor handle owns its storage, its node (the operator call that made it) and its gradient; a node owns
** the tensors that its vjp reads; a storage owns its bytes and nothing else. So references never form a cycle.
*/
#ifndef MAREA_CORE_H
#define MAREA_CORE_H

#include <stdarg.h>
#include <stdatomic.h>

#include "dtype.h"
#include "kernels/kernels.h"
#include "marea.h"

#define MAREA_ALIGN 64      /* of every block: a cache line, an AVX-512 vector */
#define MAREA_BLOCK 16384   /* elements of one block of parallel elementwise work: 64 KB of f32, some 10 us */
#define MAREA_ERROR_SIZE 768
#define MAREA_MAX_THREADS 64

#define MAREA_TRY(expr)                          \
  do {                                           \
    marea_status try_status_ = (expr);           \
    if (try_status_ != MAREA_OK) return try_status_; \
  } while (0)

#define MAREA_COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define MAREA_MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAREA_MAX(a, b) ((a) > (b) ? (a) : (b))

typedef struct marea_storage marea_storage;
typedef struct marea_node marea_node;
typedef struct marea_pool marea_pool;      /* memory.c: size-class free lists */
typedef struct marea_workers marea_workers; /* parallel.c */
typedef struct marea_plan marea_plan;       /* plan.c */
typedef struct marea_casts marea_casts;     /* autocast.c */
typedef struct marea_updates marea_updates; /* update.c */
typedef struct marea_pack marea_pack;       /* packs.c */

/* ---- context.c ---- */

struct marea_context {
  marea_config config;
  marea_pool *pool;
  marea_workers *workers;
  const marea_kernels *kernels[MAREA_DTYPE_COUNT]; /* by dtype; entries that make no sense for a dtype are NULL */
  const marea_bf16_kernels *bf16;
  marea_int8_kernel *int8;
  const char *isa;
  bool direct; /* MAREA_CONV=direct: convolutions add up the products of each window by itself, without Winograd */
  bool wide;   /* isa is avx512, on a machine that does a 512-bit multiply-add in one turn: see marea_cpu_is_wide */
  bool streams; /* large results are written past the caches: see marea_cpu_streams */
  int threads;
  bool recording;
  int autocast;          /* dtype in which operators with MAREA_LOWERS take float inputs; -1: as they are */
  marea_casts *casts;    /* of parameters, kept while autocast is on */
  bool closed;           /* by its owner; freed with the last block */
  bool burying;          /* marea_bury runs: it frees dead handles and nodes in a loop, without recursion */
  marea_tensor *dead;    /* handles that the loop has yet to free */
  marea_node *dead_nodes;
  marea_node *tape_first, *tape_last; /* nodes in use, in creation order */
  uint64_t tape_length, next_serial;
  marea_random_state random;
  atomic_bool interrupt;
  bool shielded;         /* no operator is stopped, because the host makes several changes that belong together */
  bool changing;         /* an operator changes a tensor in place: it stops only MAREA_PATIENCE_NS after the deadline */
  atomic_bool torn;      /* such an operator did stop, with its change half done */
  bool limited;                 /* there is a flop_limit or a deadline */
  bool told_spent;              /* the log has a line that one of them is spent */
  double flop_limit, flop_left; /* flop_limit 0: none */
  double seconds;               /* the time limit, for messages */
  int64_t deadline;             /* of marea_clock_ns; 0: none */
  marea_profile *profile; /* the profile that runs; NULL: none */
  marea_updates *updates; /* of marea_apply_each, to which operators leave their changes; NULL: none */
  marea_plan *plan;       /* the plan that runs; NULL: none. While there is one, operators compute nothing */
  marea_tensor *part;  /* where the next operator that is performed writes its result (MAREA_WRITES_PART); NULL: anywhere */
  marea_trace *tracer; /* the trace that runs, of the calls of operators; NULL: none */
  bool shape_only;               /* an operator's forward runs to count its workspace alone: see MAREA_SHAPE_ONLY */
  uint64_t plans;         /* plans started so far, which is the number of the one that runs */
  int layer;              /* number of the layer at work, which the host sets; nodes keep it */
  uint32_t place;         /* number of the script's line at work, which the host sets; nodes and storages keep it */
  char error[MAREA_ERROR_SIZE];
};

/* True when the running operator has to stop: an interrupt was requested or the time limit is over. The request stays
   until marea_apply returns MAREA_EINTR, so every part of the operator sees it. marea_parallel checks it between
   blocks; a block, or a loop outside of marea_parallel, that runs for more than some milliseconds has to check it
   itself. */
bool marea_stopping (marea_context *ctx);
/* The same for a loop over i = 0, 1, ...: checks in one of 4096 iterations. */
#define MAREA_STOPPING(ctx, i) (((i) & 0xfff) == 0 && marea_stopping(ctx))

/* Frees a closed context once nothing of it is in use. */
void marea_context_settle (marea_context *ctx);

/* ---- error.c: the only writer of error text and of log lines ---- */

/* Sets the context's error text, if there is a context, and returns `status`. MAREA_EINTR and MAREA_EBUDGET go to the
   log, too. */
marea_status marea_fail (marea_context *ctx, marea_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Fails with MAREA_ENOMEM. The text tells how many bytes were wanted, for what, the bytes in use and the limit. */
marea_status marea_out_of_memory (marea_context *ctx, const char *who, size_t bytes, const char *what);
/* Gives the host's log a line. Only the thread that uses the context calls this, while the library holds no lock. */
void marea_log (const marea_config *config, marea_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
typedef struct marea_text { char s[160]; } marea_text;
marea_text marea_bytes_text (size_t bytes);                    /* "12.3 MB" */
marea_text marea_shape_text (int rank, const int64_t *shape);  /* "(2, 3, 4)" */
marea_text marea_place_text (const marea_tensor *t, int64_t i); /* of element i, in the user's base: "(2, 1)" */
marea_text marea_tensor_text (const marea_tensor *t);          /* "f32 (2, 3, 4)" */
marea_text marea_dtypes_text (int dtypes);                     /* of a set, without those only stored: "f32, f64 or i64" */

/* ---- check.c: checks of the arguments of public functions ---- */

/* Fails with MAREA_EARG: argument `name` of function `who` is NULL. */
marea_status marea_missing (marea_context *ctx, const char *who, const char *name);
#define MAREA_WANT_OR_RETURN(ctx, who, pointer)               \
  do {                                                        \
    if (!(pointer)) return marea_missing(ctx, who, #pointer); \
  } while (0)
/* Every public function checks its tensors by this: t is not NULL, belongs to the context, and is not of a plan that
   has ended. */
marea_status marea_want_tensor (marea_context *ctx, const char *who, const char *name, const marea_tensor *t);
/* The same for functions that read elements: t is not of a plan that runs either, whose tensors have none. */
marea_status marea_want_values (const marea_tensor *t, const char *who, const char *name);
marea_status marea_want_shape_of (marea_context *ctx, const char *who, marea_dtype dtype, int rank,
                                  const int64_t *shape); /* not its sizes: see marea_bytes */
marea_status marea_want_list (marea_context *ctx, const char *who, const char *name, int n, const void *list);
marea_status marea_check_attrs (marea_context *ctx, const marea_op *op, const marea_attr *attrs);
const char *marea_attr_expected (const marea_attr_spec *spec); /* for messages */
int64_t marea_count_choices (const char *choices);

/* ---- text.c ---- */

/* Length in bytes of the UTF-8 character at the beginning of text[0..n-1]; *code is its code point, if code is not
   NULL. 0: the bytes are no UTF-8. */
int marea_utf8 (const char *text, size_t n, uint32_t *code);
/* snprintf in the C locale, whatever locale the host has set: numbers have a decimal point, strerror is in English. */
int marea_format (char *to, size_t room, const char *format, ...) __attribute__((format(printf, 3, 4)));
int marea_vformat (char *to, size_t room, const char *format, va_list args) __attribute__((format(printf, 3, 0)));

/* ---- memory.c ---- */

void *marea_alloc (marea_context *ctx, size_t bytes);  /* aligned, pooled, contents undefined; NULL: no memory */
void marea_free (marea_context *ctx, void *p);
/* Blocks that hold a tensor are marked after marea_alloc. marea_next_tensor(ctx, NULL) is the first of them, and NULL
   follows the last. */
void marea_mark_tensor (void *p);
void *marea_next_tensor (const marea_context *ctx, void *p);
size_t marea_block_size (size_t bytes); /* by how much a block of so many bytes raises `live` */
/* *bytes = product of sizes * element size. Fails on every overflow and limit; all sizes go through here. */
marea_status marea_bytes (marea_context *ctx, const char *who, int rank, const int64_t *shape,
                          size_t element_size, size_t *bytes);

/* ---- tensor.c ---- */

struct marea_storage {
  marea_context *ctx;
  void *data;
  size_t bytes;
  int refs;
  bool constant;    /* marea_protect was called: changes in place are errors */
  bool keeps_packs; /* weights of a program: packed forms of them are kept */
  marea_pack *packs;
  bool taken;       /* while marea_apply_each looks at its tensors: one of them is changed */
  uint32_t version; /* number of changes in place; a node keeps the version of what it saved */
  uint32_t place;   /* line of the script that made it (marea_set_place) */
  uint64_t planned; /* number of the plan that made it, whose storages have no bytes; 0: none */
  void (*release)(void *ud); /* of the host's memory: see marea_from_memory */
  void *ud;
};

struct marea_tensor {
  marea_storage *storage; /* NULL in a metadata-only handle, which shows a vjp the shape of an unsaved value */
  marea_context *ctx;
  int refs;
  int8_t dtype, rank;
  int8_t slot;        /* which output of `node` this is */
  bool requires_grad; /* of a leaf: its gradient is wanted; of a result: it has a node */
  int64_t offset;     /* of element 0, in elements */
  marea_node *node;       /* the operator call that made it; NULL for leaves */
  marea_tensor *grad;     /* of a leaf: the sum of its gradients so far */
  marea_tensor *incoming; /* of a leaf, during a backward pass: the gradient of this pass */
  marea_tensor *link;     /* next in the list of dead handles, or of leaves with an incoming gradient */
  int capture;            /* during marea_grad: position in xs, plus 1 */
  int64_t shape[MAREA_MAX_RANK], stride[MAREA_MAX_RANK];
};

/* Dtype and shape of an output, set by the shape rule. With `view` the output shares in[0]'s storage. */
typedef struct marea_layout {
  int8_t dtype, rank;
  bool view;
  int64_t offset;
  int64_t shape[MAREA_MAX_RANK], stride[MAREA_MAX_RANK]; /* strides of views only */
} marea_layout;

marea_status marea_tensor_new (marea_context *ctx, const char *who, const marea_layout *layout,
                               marea_tensor **out);
marea_status marea_result_new (marea_context *ctx, const char *who, const marea_layout *layout,
                               marea_tensor **out); /* while a plan runs: a planned tensor */
marea_status marea_alias (const marea_tensor *t, marea_tensor **out);  /* same storage, no history */
void marea_bury (marea_context *ctx);  /* frees the dead handles and nodes, and those whose last owner they were */
int64_t marea_count (int rank, const int64_t *shape); /* number of elements; marea_bytes has checked the sizes */
bool marea_is_contiguous (int rank, const int64_t *shape, const int64_t *stride);
void marea_row_major (int rank, const int64_t *shape, int64_t *stride);

static inline bool marea_has_shape (const marea_tensor *t, int rank, const int64_t *shape) {
  if (t->rank != rank) return false;
  for (int d = 0; d < rank; d++)
    if (t->shape[d] != shape[d]) return false;
  return true;
}

static inline bool marea_same_layout (const marea_tensor *a, const marea_tensor *b) {
  return a->offset == b->offset && marea_has_shape(a, b->rank, b->shape) &&
         __builtin_memcmp(a->stride, b->stride, sizeof a->stride[0] * (size_t)a->rank) == 0;
}

/* Is t of a plan that has ended? Then it has no elements and never will. */
static inline bool marea_is_over (const marea_tensor *t) {
  const uint64_t planned = t->storage->planned;
  return planned && (!t->ctx->plan || planned != t->ctx->plans);
}

static inline void *marea_at (const marea_tensor *t) { /* address of element 0 */
  return (char *)t->storage->data + t->offset * (int64_t)marea_element_size(t->dtype);
}

/* The value of an attribute of kind MAREA_NUMBER, and as an integer, cut to the range of i64. */
static inline double marea_attr_number (const marea_attr *a) { return a->n == MAREA_EXACT ? (double)a->i : a->f; }
static inline int64_t marea_attr_integer (const marea_attr *a) {
  if (a->n == MAREA_EXACT) return a->i;
  if (!(a->f < 0x1p63)) return a->f != a->f ? 0 : INT64_MAX;
  return a->f > -0x1p63 ? (int64_t)a->f : INT64_MIN;
}

/* ---- apply.c: what an operator is and sees ---- */

typedef struct marea_call {
  marea_context *ctx;
  const marea_op *op;
  int n_in, n_out;
  marea_tensor *const *in;          /* borrowed; an absent optional input is NULL */
  marea_attr *attr;                 /* by position in the descriptor; the shape rule may normalise them */
  marea_layout layout[MAREA_MAX_OUT]; /* filled by the shape rule (n_out is preset to 1) */
  marea_tensor **out;               /* given to forward */
  uint64_t counter;                 /* of random operators: the first Philox block that is reserved for this call */
  const void *found;                /* of operators whose output size depends on values: what the shape rule found */
  int64_t kept[24];                 /* what the shape rule leaves to forward, in place: see MAREA_KEEP */
  void *workspace[24];              /* freed when the call ends */
  int n_workspace;
  marea_pack *pack;           /* that is being filled; it counts when the call succeeds */
  size_t planned;                   /* bytes of workspace that a plan counts */
} marea_call;

/* What a vjp sees. It sets din[i] (one reference each) for the inputs with need[i]; NULL means zero. */
typedef struct marea_vjp {
  marea_context *ctx;
  const marea_op *op;
  int n_in, n_out;
  marea_tensor *const *in;    /* metadata-only unless in the operator's saves_in */
  marea_tensor *const *out;   /* metadata-only unless in saves_out */
  marea_tensor *const *dout;  /* gradients of the outputs; NULL: zero */
  const marea_attr *attr;     /* as the shape rule left them */
  uint64_t counter;
  const bool *need;
  bool last;                  /* no other pass will read what was saved */
  marea_tensor **din;
} marea_vjp;

enum { /* flags of an operator */
  MAREA_STRIDED = 1 << 0,     /* forward reads any strides; otherwise apply hands it contiguous copies */
  MAREA_ELEMENTWISE = 1 << 1, /* output has the broadcast shape and may be written over in[0] */
  MAREA_NUMBERS = 1 << 2,     /* Lua numbers may stand for its inputs (binary operators, where) */
  MAREA_PROMOTES = 1 << 3,    /* apply converts all inputs to their common dtype first */
  MAREA_RANDOM = 1 << 4,      /* takes `draws` blocks of the counter */
  MAREA_MUTATES = 1 << 5,     /* changes inputs in place: see `mutates`; no output, never interrupted */
  MAREA_NO_GRAD = 1 << 6,     /* results are constants for the tape (comparisons, argmax, samples) */
  MAREA_SHAPE_ONLY = 1 << 7,  /* a plan runs forward to count its workspace, with `shape_only` set: forward may access
                                 elements of tensors and of workspace only inside marea_parallel, which does nothing */
  MAREA_REALS = 1 << 8,       /* its results are floats for integer inputs, too */
  MAREA_PART = 1 << 9,        /* a view of in[0] that has each of its elements at most once: the tape adds dy to that
                                 part */
  MAREA_STORES = 1 << 10,     /* moves elements or writes single ones, so it takes dtypes that are only stored as they
                                 are; apply converts for all others (dtype.h, MAREA_STORED) */
  MAREA_TAKES_BF16 = 1 << 11, /* has a way of its own for calls whose float inputs are all bf16: its results are bf16,
                                 too, and so are their layouts; with other dtypes among them apply converts */
  MAREA_LOWERS = 1 << 12,     /* under autocast its float inputs are cast down: products, which cost and bear it */
  MAREA_ROUNDS = 1 << 13,     /* has products inside, and MAREA_PRODUCTS as its last attribute, which autocast sets */
  MAREA_WIDE = 1 << 14,       /* under autocast its results are not rounded to what is only stored: losses, norms, sums,
                                 powers, whose last digits count or whose range is wide */
  MAREA_MIXES = 1 << 15,      /* forward takes floats that are only stored beside those that they are computed in, and
                                 writes either, by loops that convert on their way; its vjp is given what they are
                                 computed in (tape.c) */
  MAREA_SINGLE = 1 << 16,     /* its vjp makes each gradient by one operator, if all shapes are the same: that may be
                                 given what is only stored, too, as it rounds no more often */
  MAREA_BY_SIGN = 1 << 17,    /* of a result that is saved the vjp reads the sign alone, which rounding does not change */
  MAREA_WRITES_PART = 1 << 19, /* its result may be a part of more channels: of the last dimension of a wider tensor */
  MAREA_PUTS_OFF = 1 << 18    /* forward leaves its change to marea_put_off, if there is one job for many calls */
};

#define MAREA_MAX_IN 12 /* inputs that have names */

/* The attributes of a descriptor, in no more room than they take: there are two hundred descriptors. More than
   MAREA_MAX_ATTRS do not compile (an array of negative size). */
#define MAREA_FEW_ENOUGH(...) \
  sizeof(char[sizeof((marea_attr_spec[]){__VA_ARGS__}) <= MAREA_MAX_ATTRS * sizeof(marea_attr_spec) ? 1 : -1])
#define MAREA_ATTRS(...) \
  ((const marea_attr_spec[]){__VA_ARGS__, {.name = NULL}} + 0 * MAREA_FEW_ENOUGH(__VA_ARGS__))

/* The last attribute of operators with products inside, and of their gradients. */
#define MAREA_PRODUCTS                                                                                        \
  {                                                                                                           \
    "products", MAREA_ENUM, 0, "full|bf16",                                                                   \
        "bf16: operands of products are rounded to bf16 and summed in f32 (f64 is left as it is); autocast's" \
  }

struct marea_op {
  const char *name, *family;
  const char *doc;                 /* first sentence: formula; then shapes, gradient, errors, source */
  marea_input_spec inputs[MAREA_MAX_IN + 1]; /* ends with a NULL name */
  int results;                     /* that callers get; further ones are kept for the vjp alone. 0: all */
  const char *once;                /* its gradient has none: what has, for the message. NULL: gradients of any order */
  const marea_attr_spec *attrs;    /* MAREA_ATTRS({...}, ...), ends with a NULL name; NULL: it has none */
  int flags;
  int dtypes;                      /* set of dtypes of in[0] (of all inputs with PROMOTES); 0 = MAREA_FLOATS */
  unsigned saves_in, saves_out;    /* bit i: the vjp reads the values of in[i] / out[i] */
  unsigned mutates;                /* bit i: in[i] is changed in place */
  marea_status (*shape)(marea_call *c);    /* checks everything; fills layout[] */
  marea_status (*forward)(marea_call *c);  /* fills out[]; NULL for pure views */
  marea_status (*vjp)(marea_vjp *v);       /* calls operators (marea_run); NULL with NO_GRAD */
  int64_t (*draws)(const marea_call *c);   /* of random operators: number of Philox blocks, of four words each */
  /* For profiles: floating-point operations of a finished call; in, out and, as the caller gave them, attr are set.
     NULL: one for each element of the largest tensor, none in families that only move data. */
  double (*flop)(const marea_call *c);
  /* With MAREA_TAKES_BF16: does its own way pay for these bf16 inputs and attributes, which are unchecked yet? NULL: yes. */
  bool (*takes_bf16)(const marea_call *c);
  /* Sample for the generic tests, written as Lua source of a function of the generator `g` (see
     spec/support/sample.lua); it returns the inputs and a table of attributes. */
  const char *sample;
};

/* ---- update.c: many changes in place as one job ---- */

/* A change in place that is cut into blocks. */
typedef struct marea_update marea_update;
struct marea_update {
  void (*run)(const marea_update *u, int64_t block, int worker);
  void (*step)(const marea_update *u, size_t n, char *const *at); /* n elements of each input */
  const marea_kernels *kernels;
  size_t size;
  int64_t blocks;
  int64_t n;     /* elements of p, or of a row */
  int64_t count; /* rows */
  int64_t rows_per_block;
  int64_t *rows;  /* 0-based, rising, by marea_alloc; NULL: all of p */
  char *in[4];    /* p, g and up to two states; NULL: not there */
  double a[8];    /* the kernel's numbers */
  int64_t first;  /* number of its first block in the job */
};

/* In a job for many calls: leaves the blocks to it, with u->rows, and is true. */
bool marea_put_off (marea_context *ctx, const marea_update *u);

/* Fails with "<operator>: <text>". */
#define marea_reject(c, status, format, ...) \
  marea_fail((c)->ctx, status, "%s: " format, (c)->op->name __VA_OPT__(, ) __VA_ARGS__)

/* Memory that is freed when the call ends, in at most 24 pieces a call; NULL: out of memory. While a plan runs
   marea_workspace gives MAREA_NOWHERE, which must not be accessed, and counts the bytes; marea_table gives memory all
   the same, for tables of offsets and the like that forward derives from shapes. The macros set `pointer`, or return
   from the caller with MAREA_ENOMEM. */
void *marea_workspace (marea_call *c, size_t bytes);
void *marea_table (marea_call *c, size_t bytes);
#define MAREA_MEMORY_OR_RETURN(c, pointer, memory, bytes)                                     \
  do {                                                                                        \
    if (!((pointer) = (memory)))                                                              \
      return marea_out_of_memory((c)->ctx, (c)->op->name, bytes, "scratch space");            \
  } while (0)
#define MAREA_WORKSPACE_OR_RETURN(c, pointer, bytes) \
  MAREA_MEMORY_OR_RETURN(c, pointer, marea_workspace(c, bytes), bytes)
#define MAREA_TABLE_OR_RETURN(c, pointer, bytes) MAREA_MEMORY_OR_RETURN(c, pointer, marea_table(c, bytes), bytes)

/* bytes in whole units of MAREA_ALIGN */
static inline size_t marea_aligned (size_t bytes) {
  return (bytes + MAREA_ALIGN - 1) / MAREA_ALIGN * MAREA_ALIGN;
}

/* Distance in bytes between the memories of two workers, of `bytes` each: between them lies a gap of the same size, at
   least 4 KB and at most 256 KB. Without it the hardware prefetcher of one core, which extrapolates the stride of its
   accesses, would fetch lines that the neighbour writes. */
static inline size_t marea_worker_step (size_t bytes) {
  const size_t own = marea_aligned(bytes);
  return own + MAREA_MIN(MAREA_MAX(own, 4096), 262144);
}
/* Memory of *bytes for each worker, at *memory + worker * step; *bytes becomes the step. */
marea_status marea_worker_memory (marea_call *c, size_t *bytes, char **memory);

/* A shape rule leaves a value to forward, sizes that it has worked out for one, so that they are not worked out again. */
#define MAREA_KEEP(c, value)                                                        \
  do {                                                                              \
    _Static_assert(sizeof(value) <= sizeof((c)->kept), "marea_call.kept is too small"); \
    __builtin_memcpy((c)->kept, &(value), sizeof(value));                           \
  } while (0)
#define MAREA_KEPT(c, value) __builtin_memcpy(&(value), (c)->kept, sizeof(value))

/* Shape-rule helpers (shape_rules.c). Each fails with a text naming the operator and the argument. */
const char *marea_input_name (const marea_op *op, int i);         /* of a variadic operator all have one name */
void marea_layout_like (marea_layout *l, const marea_tensor *t);  /* dtype and shape of t */
void marea_layout_set (marea_layout *l, int dtype, int rank, const int64_t *shape);
marea_status marea_shape_same (marea_call *c);                    /* out = in[0]'s shape and dtype */
marea_status marea_shape_broadcast (marea_call *c);               /* out = all inputs broadcast, their dtype */
marea_status marea_broadcast (marea_call *c, int rank, const int64_t *shape, marea_layout *l); /* l := l with shape */
marea_status marea_want_rank (marea_call *c, int input, int rank, const char *names); /* "(N, H, W, C)" */
marea_status marea_want_int (marea_call *c, int attr, int64_t value, int64_t least); /* up to INT32_MAX */
marea_status marea_want_dtype (marea_call *c, int input, int dtypes);
marea_status marea_want_size (marea_call *c, int input, int dim, int64_t size, const char *because);
marea_status marea_want_shape (marea_call *c, int input, const marea_tensor *like); /* equal shapes */
/* The slope of an activation is not negative, because gradients tell the sign of its argument from that of its
   result. A slope that was left out becomes the default of the activation, which is the attribute before it. */
#define MAREA_SLOPE_DOC "slope of leaky_relu (left out: 0.01), alpha of elu (1)"
marea_status marea_want_slope (marea_call *c, int attr);
/* Refuses a number that a tensor of `dtype` cannot hold: for integer dtypes a fraction, or an integer out of range. */
marea_status marea_want_number (marea_call *c, int attr, int dtype);
marea_status marea_resolve_dim (marea_call *c, int attr, int rank);   /* attr := 0..rank-1 */
marea_status marea_resolve_dims (marea_call *c, int attr, int rank, bool *set); /* set[rank]; n=0: all; sorts v */
marea_status marea_resolve_index (marea_call *c, int attr, int64_t size); /* attr := 0..size-1 */

/* marea_apply and marea_apply_ for calls from within the core: pointers and attributes are not checked, and the
   floating-point mode is set already. */
marea_status marea_invoke (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                           const marea_attr *attrs, marea_tensor **out, int *n_out);
marea_status marea_invoke_ (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                            const marea_attr *attrs);
/* The same when no profile runs, and what a profile calls. */
marea_status marea_perform (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                            const marea_attr *attrs, marea_tensor **out, int *n_out);
marea_status marea_perform_ (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                             const marea_attr *attrs);

/* The dtype that tensors are converted to. Tensors of rank 0 count only if none of the others is of their kind
   (integer or float). */
int marea_common_dtype (int n, marea_tensor *const *in);

/* Does MAREA_PRODUCTS, the call's last attribute, want bf16? f64 stays as it is. */
bool marea_rounds (const marea_call *c);

/* One call of an operator from C: marea_run(ctx, &marea_op_mul, &out, 2, a, b) with initial attributes;
   with attributes: marea_run_with(ctx, op, attrs, &out, n, ...). Used by vjps. */
marea_status marea_run (marea_context *ctx, const marea_op *op, marea_tensor **out, int n, ...);
marea_status marea_run_with (marea_context *ctx, const marea_op *op, const marea_attr *attrs,
                             marea_tensor **out, int n, ...);
marea_status marea_run_number (marea_context *ctx, const marea_op *op, marea_tensor **out, marea_tensor *a,
                               double b); /* op(a, b) with b as a scalar of a's dtype */

/* ---- packs.c ---- */

/* What a packed form depends on, besides the weight: who makes it, sizes, steps. Set all to zero first. */
typedef struct marea_pack_key {
  int64_t v[32];
} marea_pack_key;

/* Memory for a packed form of input `input`, whose elements lie at `weight`: kept, if its storage keeps them, and
   *ready then tells whether it is filled; else workspace. At most one form a call is kept. */
marea_status marea_pack_for (marea_call *c, int input, const void *weight, const marea_pack_key *key, size_t bytes,
                           void **memory, bool *ready);
/* Does the call keep packed forms of this input? Not while a plan runs, which packs into workspace. */
static inline bool marea_keeps_packs (const marea_call *c, int input) {
  return c->in[input]->storage->keeps_packs && !c->ctx->plan;
}
void marea_pack_done (marea_call *c); /* the call has succeeded: what it filled is ready */
void marea_drop_packs (marea_context *ctx, marea_pack *p);

/* ---- call.c ---- */

/* attrs[] := the attributes of op by their names; see marea_call_op. */
marea_status marea_read_named (marea_context *ctx, const marea_op *op, int n, const marea_named *named,
                               marea_attr *attrs);

/* The registry: LIST.h names every operator once. */
#define OP(name) extern const marea_op marea_op_##name;
#include "ops/LIST.h"
#undef OP

/* ---- tape.c ---- */

bool marea_wants_record (const marea_call *c); /* is the call to be recorded? */
marea_status marea_record (marea_call *c);  /* after forward: gives out[] a node if an input requires a gradient */
void marea_node_release (marea_context *ctx, marea_node *node); /* drops one reference; without any the node is dead */
uint32_t marea_number_bits (const marea_tensor *t); /* a value of rank 0 as f32; kept for marea_find_blame */
void marea_node_bury (marea_context *ctx); /* frees one dead node and releases the tensors that it saved */

/* ---- autocast.c ---- */

/* *out := the float tensor t as `dtype`, recorded; parameters (leaves that require a gradient) are cast once for each of
   their values. */
marea_status marea_lower (marea_context *ctx, marea_tensor *t, int dtype, marea_tensor **out);
void marea_drop_casts (marea_context *ctx);

/* ---- profile.c: marea_invoke and marea_invoke_ while a profile runs ---- */

marea_status marea_profile_apply (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                                  const marea_attr *attrs, marea_tensor **out, int *n_out);
marea_status marea_profile_apply_ (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                                   const marea_attr *attrs);

/* ---- graph/trace.c: marea_invoke while a trace runs, and what marea_invoke_ and others ask that change tensors ---- */

marea_status marea_trace_apply (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                                 const marea_attr *attrs, marea_tensor **out, int *n_out);
marea_status marea_trace_change (marea_trace *r, const char *name, int n_in, marea_tensor *const *in);

/* A call that runs; it lies on its caller's stack. */
typedef struct marea_frame {
  struct marea_frame *outer;
  marea_profile_work work;
  int64_t start, inside; /* ns; inside: spent in inner calls and in the profile's own work */
  size_t event;
} marea_frame;

/* An operator's forward says which of its algorithms it takes, a static name; twice at most. */
void marea_profile_note (marea_context *ctx, const char *algorithm);
/* Around work that is no operator and has a row of its own in the profile: copies, the reverse pass. Operators that run
   inside of a pass count as backward. */
void marea_frame_open (marea_profile *p, marea_frame *f, const char *name);
void marea_frame_close (marea_profile *p, marea_frame *f);
double marea_tensor_bytes (const marea_tensor *t); /* bytes in memory of its elements; expanded ones count once */
void marea_frame_open_pass (marea_profile *p, marea_frame *f);
void marea_frame_close_pass (marea_profile *p, marea_frame *f);

/* ---- plan.c ---- */

#define MAREA_NOWHERE ((void *)MAREA_ALIGN) /* address of the elements of planned tensors, which have none */

/* Add to, and subtract from, the bytes that the plan that runs counts as in use. */
void marea_plan_take (marea_context *ctx, size_t bytes);
void marea_plan_give (marea_context *ctx, size_t bytes);
/* Scratch space of a product: n parts of so many bytes, each on cache lines of its own; part[i] is NULL where it has none.
   *memory is to be freed, and NULL where no part has any. While a plan runs the bytes are counted as in use for a moment,
   and there is no memory. */
marea_status marea_scratch (marea_context *ctx, int n, const size_t bytes[], char **memory, void *part[]);
/* Keeps the gradient of a leaf before it changes; the end of the plan restores it. */
marea_status marea_plan_note (marea_tensor *leaf);

/* ---- budget.c ---- */

/* To be called only while `limited`. */
marea_status marea_check_time (marea_call *c); /* MAREA_EBUDGET: the time limit is over */
/* MAREA_EBUDGET: the time that is left is shorter than that; for work that cannot be stopped on its way. */
marea_status marea_foresee (marea_call *c, double seconds);
marea_status marea_charge (marea_call *c); /* takes the operations of a call from the budget; out[] exists already */

/* ---- random.c ---- */

/* Four 32-bit words of block `counter` under `seed`. */
void marea_philox (uint64_t seed, uint64_t counter, uint32_t word[4]);

/* Further words of the block, for elements that may need any number of them: each branch > 0 is independent of all
   blocks and other branches. */
void marea_philox_branch (uint64_t seed, uint64_t counter, uint32_t branch, uint32_t word[4]);

/* ---- parallel.c ---- */

int64_t marea_clock_ns (void); /* CLOCK_MONOTONIC, in ns */
static inline bool marea_is_overdue (const marea_context *ctx) {
  return ctx->deadline && marea_clock_ns() >= ctx->deadline;
}
#define MAREA_PATIENCE_NS 30000000 /* what a change in place may take beyond the time limit; marea.h promises 30 ms */

/* Runs fn(arg, block, worker) for block = 0..blocks-1 on the context's threads, worker in 0..threads-1. What a block
   computes must not depend on the worker nor on other blocks, so results are the same for any number of threads.
   Calls marea_stopping between blocks; a call from inside a block runs serially. While `shape_only` is set it does
   nothing. */
typedef void (*marea_block_fn)(void *arg, int64_t block, int worker);
void marea_parallel (marea_context *ctx, int64_t blocks, marea_block_fn fn, void *arg);
/* The same of blocks that may be small, as a row each: on this thread where all of them together take no longer than
   MAREA_BLOCK elements that are read, for another thread takes that long to wake up. */
void marea_parallel_if (marea_context *ctx, int64_t elements, int64_t blocks, marea_block_fn fn, void *arg);
marea_status marea_workers_new (marea_context *ctx, int threads, marea_workers **out);
void marea_workers_free (marea_context *ctx, marea_workers *w);

/* The library computes in one floating-point mode: rounding to nearest, denormals kept, no traps.
   marea_enter_float_mode sets it and returns the control bits of the host's mode, or 0 if they are the same;
   marea_leave_float_mode restores them. Exception flags may stay raised. */
#if defined(__x86_64__)
/* Control words of SSE and of the x87 unit, which OpenBLAS computes norms with; without the exception flags. */
#define MAREA_SSE_BITS 0xffc0u
#define MAREA_SSE_MODE 0x1f80u
#define MAREA_X87_BITS 0x0f3fu
#define MAREA_X87_MODE 0x033fu

static inline bool marea_is_float_mode (uint64_t mode) {
  return (mode & MAREA_SSE_BITS) == MAREA_SSE_MODE && (mode >> 32 & MAREA_X87_BITS) == MAREA_X87_MODE;
}

static inline uint64_t marea_float_mode (void) {
  uint16_t x87;
  __asm__ volatile("fnstcw %0" : "=m"(x87));
  return (uint64_t)x87 << 32 | __builtin_ia32_stmxcsr();
}

static inline void marea_set_float_mode (uint64_t mode) {
  const uint16_t x87 = (uint16_t)(mode >> 32);
  __builtin_ia32_ldmxcsr((unsigned)mode);
  __asm__ volatile("fnclex\n\tfldcw %0" : : "m"(x87)); /* a raised exception flag would trap as traps are enabled */
}
#endif

static inline uint64_t marea_enter_float_mode (void) {
#if defined(__x86_64__)
  const uint64_t before = marea_float_mode();
  if (marea_is_float_mode(before)) return 0;
  marea_set_float_mode((uint64_t)MAREA_X87_MODE << 32 | MAREA_SSE_MODE);
  return before;
#elif defined(__aarch64__)
  uint64_t before = __builtin_aarch64_get_fpcr64();
  if (before) __builtin_aarch64_set_fpcr64(0);
  return before;
#else
  return 0;
#endif
}

static inline void marea_leave_float_mode (uint64_t before) {
#if defined(__x86_64__)
  if (before) marea_set_float_mode(before); /* the x87 unit has a bit that is always set */
#elif defined(__aarch64__)
  if (before) __builtin_aarch64_set_fpcr64(before);
#else
  (void)before;
#endif
}

static inline bool marea_in_our_mode (void) {
#if defined(__x86_64__)
  return marea_is_float_mode(marea_float_mode());
#elif defined(__aarch64__)
  return __builtin_aarch64_get_fpcr64() == 0;
#else
  return true;
#endif
}

static inline void marea_leave (const uint64_t *before) { marea_leave_float_mode(*before); }
/* The first line of every public function that computes anything, be it a number in a message. The compiler restores
   the host's mode at every return of the function. Where the mode is set already this costs one read of it. */
#define MAREA_ENTER \
  __attribute__((cleanup(marea_leave), unused)) const uint64_t host_mode_ = marea_enter_float_mode()

/* ---- elementwise.c: strides, broadcasting and threads around a kernel over contiguous runs ----
   Operands that are only stored are converted on their way; the kernel is of what they are computed in. */

/* For the dtype that input i is computed in. */
static inline const marea_kernels *marea_kernels_for (const marea_call *c, int i) {
  return c->ctx->kernels[marea_computed_in(c->in[i]->dtype)];
}

marea_status marea_map_unary (marea_call *c, marea_unary_kernel *kernel, const double *p);
/* The same for kernels that take microseconds an element: checks marea_stopping every 512 elements. */
marea_status marea_map_slowly (marea_call *c, marea_unary_kernel *kernel, const double *p);
marea_status marea_map_binary (marea_call *c, marea_binary_kernel *kernel, const double *p);
marea_status marea_map_ternary (marea_call *c, marea_ternary_kernel *kernel, const double *p);
/* dx from dy and the activation's result; p[0]: slope. NULL for none: dx is dy. */
marea_binary_kernel *marea_activation_grad_kernel (const marea_kernels *k, marea_activation activation);
/* dst := src, any strides and dtypes, same shape. */
void marea_copy_strided (marea_context *ctx, const marea_tensor *src, marea_tensor *dst);
/* n pieces of `bytes` bytes, which are ss and ds bytes apart, on the calling thread; fast for short ones. */
void marea_copy_pieces (int64_t n, size_t bytes, const void *src, int64_t ss, void *dst, int64_t ds);
void marea_clear (marea_context *ctx, void *p, size_t bytes); /* p[0..bytes-1] := 0 */
/* Every element of a row-major t := an attribute of kind MAREA_NUMBER, which its dtype can hold. */
void marea_fill (marea_context *ctx, const marea_tensor *t, const marea_attr *value);

/* ---- blas_open.c, or blas_own.c with NO_BLAS=1: on the calling thread, of f32 or f64 ---- */

/* y (n) = M x, or y += M x, x (k); M is stored (n, k), or by_k: (k, n), `ld` elements from row to row. */
typedef struct marea_blas_vector_product {
  int dtype;
  bool by_k, add;
  int64_t n, k, ld, x_step, y_step;
  const void *matrix, *x;
  void *y;
} marea_blas_vector_product;

/* C (m, n) = A (m, k) B (k, n), or C += A B; ta: A is stored (k, m), tb: B is stored (n, k). */
typedef struct marea_blas_product {
  int dtype;
  bool ta, tb, add;
  int64_t m, n, k, lda, ldb, ldc;
  const void *a, *b;
  void *c;
} marea_blas_product;

void marea_blas_vector (const marea_kernels *kernels, const marea_blas_vector_product *p);
void marea_blas_matrices (const marea_kernels *kernels, const marea_blas_product *p);
/* Eigenvalues w (n), ascending, of a symmetric matrix a (n, n), which becomes its eigenvectors, row by row. work: 1 + 6 n +
   2 n^2 numbers, integers: 3 + 5 n. False: they did not converge. */
bool marea_blas_eigen (int n, double *a, double *w, double *work, int *integers);
/* Where address space is limited, makes OpenBLAS allocate the buffers of our threads now, before tensors fill it. */
void marea_blas_reserve (int threads);
int marea_usable_cores (void); /* context.c: cores that this process may run on, up to MAREA_MAX_THREADS */

/* ---- blas.c: dense products, split over our workers in fixed blocks ---- */

/* C (m, n) = A (m, k) B (k, n), row-major without gaps, of f32 or f64; ta: A is stored as (k, m), tb: B is stored as (n, k).
   Runs on the calling thread; call it inside a block, or use marea_gemm_parallel. */
void marea_gemm (marea_context *ctx, int dtype, bool ta, bool tb, int64_t m, int64_t n, int64_t k, const void *a,
                 const void *b, void *c);
typedef struct marea_epilogue { /* C := act(C + bias) at the end */
  const void *bias;             /* (n); NULL: none */
  marea_activation act;
  double slope;
} marea_epilogue;
/* The same of f32, f64 or bf16 */
marea_status marea_gemm_parallel (marea_context *ctx, int dtype, bool ta, bool tb, int64_t m, int64_t n,
                                  int64_t k, const void *a, const void *b, const marea_epilogue *end, void *c);
/* The same with matrices that are parts of wider ones: elements from row to row as stored, 0: without gaps. */
typedef struct marea_gemm_layout {
  int64_t lda, ldb, ldc;
  bool add;  /* C is added to */
  bool bf16; /* A and B, which are f32, are rounded to bf16 */
  bool a_is_bf16, b_is_bf16; /* but for one that has been rounded before */
  marea_call *keeps;         /* B is input `weight` of this call, and a packed form of it may be kept; NULL: not */
  int weight;
} marea_gemm_layout;
marea_status marea_gemm_part (marea_context *ctx, int dtype, bool ta, bool tb, int64_t m, int64_t n, int64_t k,
                              const void *a, const void *b, const marea_epilogue *end, void *c,
                              const marea_gemm_layout *layout);

/* ---- gemm_bf16.c: products of bf16, summed in f32 ---- */

typedef struct marea_bf16_operand {
  const void *at;
  int64_t step; /* elements from row to row as stored */
  int dtype;    /* MAREA_BF16, or MAREA_F32, whose elements are rounded as they are packed */
} marea_bf16_operand;

typedef struct marea_bf16_gemm {
  bool ta, tb;
  int64_t m, n, k;
  marea_bf16_operand a, b;
  void *c;
  int64_t ldc;
  bool wide, add;    /* C is f32; and is added to, without bias and activation */
  marea_epilogue end; /* with a bias of C's dtype */
} marea_bf16_gemm;

static inline int64_t marea_even (int64_t n) { return n + (n & 1); }

/* n in whole pieces of MAREA_BF16_DEPTH */
static inline int64_t marea_bf16_whole (int64_t n) { return marea_bf16_pieces(n) * MAREA_BF16_DEPTH; }

/* A depth of so many elements at least that fits; 0 for 0. */
static inline int64_t marea_bf16_depth (int64_t n) {
  return marea_bf16_depth_fits(marea_even(n)) ? marea_even(n) : marea_bf16_whole(n);
}

/* y (rows, n) = x (rows, depth) w, x_row from row to row of x, panel from panel to panel of w; where y is, is left out. */
static inline marea_bf16_product marea_bf16_matrix (const marea_kernels *f32, int64_t rows, int64_t depth, int64_t n,
                                                    const uint16_t *x, int64_t x_row, const uint16_t *w,
                                                    int64_t panel) {
  static const int64_t here = 0;
  return (marea_bf16_product){.x = x,
                              .w = w,
                              .rows = 1,
                              .cols = rows,
                              .x_col = x_row,
                              .depth = depth,
                              .n = n,
                              .tap_rows = 1,
                              .taps = 1,
                              .tap = &here,
                              .w_panel = panel,
                              .f32 = f32};
}

marea_status marea_gemm_bf16 (marea_context *ctx, const marea_bf16_gemm *g);
/* The same of one row, m = 1, and a B of bf16; marea_gemm_bf16 calls it. (gemv_bf16.c) */
marea_status marea_gemv_bf16 (marea_context *ctx, const marea_bf16_gemm *g);
/* w (depth, n), element (d, j) at d * step + j, or j * step + d if `turned`, as panels of marea_bf16_product, which are
   `panel` elements apart; an odd depth gets a row of zeros. */
void marea_bf16_pack (const marea_kernels *k, int64_t depth, int64_t n, const uint16_t *w, int64_t step, bool turned,
                      uint16_t *to, int64_t panel);
/* to (n, depth) by steps row, 1 from x (depth, n) by steps `step`, 1; row is even, and an odd depth gets a zero. */
void marea_bf16_pack_turned (const marea_kernels *k, int64_t depth, int64_t n, const uint16_t *x, int64_t step,
                             uint16_t *to, int64_t row);

/* ---- gemm_int8.c: products of bytes ---- */

#define MAREA_INT8_DEPTH 65536 /* terms of a sum at most: 255 by 127 each, in 31 bits */

/* Rows of bytes: element (i, j) is about factor[i] (at[i * step + j] - zero[i]). */
typedef struct marea_int8_rows {
  uint8_t *at;
  float *factor;
  int32_t *zero;
  int64_t step; /* marea_int8_depth of a row's elements; the bytes behind them do not count */
} marea_int8_rows;

/* Weights (taps, depth, n) as quantize_int8 packs them: a panel is (taps, step / 4, MAREA_INT8_PANEL, 4), and the sums of its
   columns, int32 (MAREA_INT8_PANEL). */
typedef struct marea_int8_weight {
  const int8_t *at;
  const float *scale, *bias; /* (n); bias NULL: none */
  int64_t n, taps, step;
  marea_activation act;
  double slope;
} marea_int8_weight;

static inline int64_t marea_int8_panels (int64_t n) { return (n + MAREA_INT8_PANEL - 1) / MAREA_INT8_PANEL; }

static inline int64_t marea_int8_panel_bytes (int64_t taps, int64_t step) {
  return (taps * step + (int64_t)sizeof(int32_t)) * MAREA_INT8_PANEL;
}

/* Rows first .. end - 1 of x (.., n) become bytes. */
void marea_int8_quantize (const marea_kernels *f32, marea_range rows, const float *x, int64_t n,
                          const marea_int8_rows *to);
/* y[i][j] of `places` places and the columns of `panels`, each place's x at x + i * x_col + tap[t]. */
typedef struct marea_int8_block {
  const uint8_t *x;
  const float *factor;
  const int32_t *zero;
  float *y;
  int64_t places, x_col, y_col;
  const int64_t *tap;
  marea_range panels;
  bool add; /* to y, without a bias */
} marea_int8_block;
void marea_int8_multiply (marea_context *ctx, const marea_int8_weight *w, const marea_int8_block *b);
/* y (m, n) = act(x w + bias) by the context's threads */
void marea_int8_product (marea_context *ctx, const marea_int8_rows *x, int64_t m, const marea_int8_weight *w,
                         float *y);
/* A shape rule's check of input `weight`, quantize_int8's bytes of (taps, in, out), the scales behind it, which tell out, and
   of x, input 0; and that no gradient is wanted (ops/int8.c). */
marea_status marea_int8_want (marea_call *c, int weight, int64_t taps, int64_t in, int64_t *out);

#endif
