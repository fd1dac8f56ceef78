/* SPDX-License-Identifier: MIT
** sort.c: elements in order. An element becomes an unsigned number that sorts as it should, beside its position; so
** one sort serves every dtype and both directions. It is stable, which makes the order of the positions unique,
** whatever the threads. NaN comes last in both directions; 0 and -0 are equal.
*/
#include <math.h>

#include "vjp.h"

typedef struct item {
  uint64_t key;
  int64_t at;
} item;

/* ---- keys ---- */

/* What the bits of elements mean. */
typedef struct format {
  size_t size; /* bytes of an element */
  bool is_float;
  uint64_t sign, all; /* the sign bit, 0 of unsigned elements; all bits */
  uint64_t infinity;  /* bits of it; floats above are NaN */
  bool descending;
} format;

static format format_of (int dtype, bool descending) {
  const size_t size = marea_element_size(dtype);
  const uint64_t top = UINT64_C(1) << (8 * size - 1);
  format f = {.size = size,
              .is_float = marea_is_float(dtype),
              .sign = marea_kind_of(dtype) == MAREA_KIND_UNSIGNED ? 0 : top,
              .all = top | (top - 1),
              .descending = descending};
  if (f.is_float) {
    double infinity; /* room for an element of any dtype */
    marea_store(dtype, &infinity, 0, INFINITY);
    memcpy(&f.infinity, &infinity, size); /* to the low bytes: hosts are little-endian */
  }
  return f;
}

/* Numbers that sort as the elements with these bits; all ones for NaN. */
static inline uint64_t float_key (format f, uint64_t bits) {
  const uint64_t size = bits & (f.sign - 1);
  if (size > f.infinity) return f.all;
  if (size == 0) bits = 0;
  const uint64_t key = bits & f.sign ? ~bits & f.all : bits | f.sign;
  return f.descending ? ~key & f.all : key;
}

static inline uint64_t integer_key (format f, uint64_t bits) {
  return f.descending ? ~(bits ^ f.sign) & f.all : bits ^ f.sign;
}

#define STRETCH 0x4000 /* elements between two checks of marea_stopping: some 0.1 ms */

static bool another_stretch (marea_context *ctx, int64_t i, int64_t n, int64_t *end) {
  *end = MAREA_MIN(i + STRETCH, n);
  return i < n && !marea_stopping(ctx);
}

#define LOAD(key_of, word) \
  for (; k < end; k++) to[k].key = key_of(f, ((const word *)x)[first + k * step]), to[k].at = k
#define LOAD_FLOATS(word) LOAD(float_key, word)
#define LOAD_INTEGERS(word) LOAD(integer_key, word)

/* to[k] := element first + k step, for k < n; false: told to stop before all were there. */
static bool load_items (marea_context *ctx, format f, const void *x, int64_t first, int64_t step, int64_t n,
                        item *to) {
  int64_t k = 0, end;
  while (another_stretch(ctx, k, n, &end)) {
    if (f.is_float) MAREA_SWITCH_SIZE(f.size, LOAD_FLOATS)
    else MAREA_SWITCH_SIZE(f.size, LOAD_INTEGERS)
  }
  return k == n;
}

/* ---- sorting ---- */

/* argsort of lines of 128 takes 13 ns (f32) and 24 ns (f64) an element by digits, 27 and 24 ns by merging; shorter
   lines are faster by merging, longer ones by digits. */
#define MERGED 128 /* from so many items on by digits */
#define RUN 16     /* merging starts from runs that are sorted by insertion: 256 bytes, four cache lines */
#define DIGIT 8    /* bits: 256 places of output stay in the first-level cache */

static void insert_run (item *a, int64_t n) {
  for (int64_t i = 1; i < n; i++) {
    const item x = a[i];
    int64_t k = i;
    for (; k > 0 && a[k - 1].key > x.key; k--) a[k] = a[k - 1];
    a[k] = x;
  }
}

static void merge (const item *a, int64_t na, const item *b, int64_t nb, item *to) {
  while (na > 0 && nb > 0) {
    const bool second = b->key < a->key;
    *to++ = second ? *b : *a;
    b += second, nb -= second, a += !second, na -= !second;
  }
  memcpy(to, a, (size_t)na * sizeof *a);
  memcpy(to + na, b, (size_t)nb * sizeof *b);
}

static item *sort_by_merging (item *a, item *spare, int64_t n) {
  for (int64_t i = 0; i < n; i += RUN) insert_run(a + i, MAREA_MIN(RUN, n - i));
  for (int64_t run = RUN; run < n; run *= 2) {
    for (int64_t i = 0; i < n; i += 2 * run) {
      const int64_t na = MAREA_MIN(run, n - i), nb = MAREA_MIN(run, n - i - na);
      merge(a + i, na, a + i + na, nb, spare + i);
    }
    item *sorted = spare;
    spare = a;
    a = sorted;
  }
  return a;
}

/* Sorts by the digit at `shift`, unless it is the same in all items; false: stopped before all were moved. */
static bool sort_by_digit (marea_context *ctx, item **a, item **spare, int64_t n, int shift) {
  int64_t place[1 << DIGIT] = {0}, sum = 0;
  const uint64_t mask = (1 << DIGIT) - 1;
  const item *from = *a;
  item *to = *spare;
  int64_t i = 0, end;
  while (another_stretch(ctx, i, n, &end))
    for (; i < end; i++) place[from[i].key >> shift & mask]++;
  if (i < n) return false;
  if (place[from[0].key >> shift & mask] == n) return true;
  for (int d = 0; d <= (int)mask; d++) {
    const int64_t count = place[d];
    place[d] = sum;
    sum += count;
  }
  i = 0;
  while (another_stretch(ctx, i, n, &end))
    for (; i < end; i++) to[place[from[i].key >> shift & mask]++] = from[i];
  if (i < n) return false;
  *spare = *a;
  *a = to;
  return true;
}

/* The n items in order, in `a` or in `spare`; NULL: told to stop. */
static item *sort_items (marea_context *ctx, format f, item *a, item *spare, int64_t n) {
  const int bits = 8 * (int)f.size;
  if (n < MERGED) return sort_by_merging(a, spare, n);
  for (int shift = 0; shift < bits; shift += DIGIT)
    if (!sort_by_digit(ctx, &a, &spare, n, shift)) return NULL;
  return a;
}

/* ---- lines ---- */

/* The first `kept` of each line of x (outer, count, inner) in order; values or positions may be NULL. */
typedef struct ordering {
  marea_context *ctx;
  const char *x;
  format format;
  int64_t outer, count, inner, kept, base, lines_per_block;
  char *values;
  int64_t *positions;
  bool few;     /* fewer blocks than threads: each block has memory of its own; else each worker has */
  char *memory; /* `step` bytes apart */
  size_t step;
} ordering;

static void put_value (const ordering *s, int64_t to, int64_t from) {
#define PUT(word) ((word *)s->values)[to] = ((const word *)s->x)[from]
  MAREA_SWITCH_SIZE(s->format.size, PUT);
}

static void order_line (const ordering *s, int64_t line, item *items) {
  const int64_t o = line / s->inner, i = line % s->inner;
  const int64_t x = o * s->count * s->inner + i, y = o * s->kept * s->inner + i;
  if (!load_items(s->ctx, s->format, s->x, x, s->inner, s->count, items)) return;
  const item *sorted = sort_items(s->ctx, s->format, items, items + s->count, s->count);
  for (int64_t k = 0; sorted && k < s->kept && !MAREA_STOPPING(s->ctx, k); k++) {
    if (s->values) put_value(s, y + k * s->inner, x + sorted[k].at * s->inner);
    if (s->positions) s->positions[y + k * s->inner] = sorted[k].at + s->base;
  }
}

static void order_lines (void *arg, int64_t block, int worker) {
  const ordering *s = arg;
  const int64_t end = MAREA_MIN((block + 1) * s->lines_per_block, s->outer * s->inner);
  item *items = (item *)(void *)(s->memory + (size_t)(s->few ? block : worker) * s->step);
  for (int64_t line = block * s->lines_per_block; line < end; line++) order_line(s, line, items);
}

static marea_status run_ordering (marea_call *c, int dim, bool descending, marea_tensor *values,
                                  marea_tensor *positions) {
  const marea_tensor *x = c->in[0];
  ordering s = {.ctx = c->ctx,
                .x = marea_at(x),
                .format = format_of(x->dtype, descending),
                .outer = marea_count(dim, x->shape),
                .count = x->shape[dim],
                .inner = marea_count(x->rank - dim - 1, x->shape + dim + 1),
                .kept = c->layout[0].shape[dim],
                .base = c->ctx->config.index_base,
                .values = values ? marea_at(values) : NULL,
                .positions = positions ? marea_at(positions) : NULL};
  const int64_t lines = s.outer * s.inner;
  if (lines * s.kept == 0) return MAREA_OK;
  s.lines_per_block = MAREA_MAX(1, MAREA_BLOCK / s.count);
  const int64_t blocks = (lines - 1) / s.lines_per_block + 1;
  size_t bytes;
  s.few = blocks < c->ctx->threads;
  s.step = marea_worker_step((size_t)(2 * s.count) * sizeof(item));
  if (__builtin_mul_overflow(s.step, (size_t)MAREA_MIN(blocks, c->ctx->threads), &bytes))
    return marea_reject(c, MAREA_ENOMEM, "out of memory for scratch space");
  MAREA_WORKSPACE_OR_RETURN(c, s.memory, bytes);
  if (blocks == 1) order_lines(&s, 0, 0);
  else marea_parallel(c->ctx, blocks, order_lines, &s);
  return MAREA_OK;
}

/* ---- sort, argsort, topk ---- */

#define ATTR_DIM \
  { "dim", MAREA_DIM, -1, NULL, "the dimension to sort along" }
#define ATTR_DESCENDING \
  { "descending", MAREA_BOOL, 0, NULL, "from the greatest to the smallest" }
#define ORDER_TEXT "NaN comes last, equal elements keep their order. "

static marea_status argsort_shape (marea_call *c) {
  MAREA_TRY(marea_resolve_dim(c, 0, c->in[0]->rank));
  marea_layout_like(&c->layout[0], c->in[0]);
  c->layout[0].dtype = MAREA_I64;
  return MAREA_OK;
}

static marea_status sort_shape (marea_call *c) {
  MAREA_TRY(argsort_shape(c));
  c->n_out = 2;
  c->layout[1] = c->layout[0];
  c->layout[0].dtype = c->in[0]->dtype;
  return MAREA_OK;
}

static marea_status sort_forward (marea_call *c) {
  return run_ordering(c, (int)c->attr[0].i, c->attr[1].i, c->out[0], c->out[1]);
}

static marea_status argsort_forward (marea_call *c) {
  return run_ordering(c, (int)c->attr[0].i, c->attr[1].i, NULL, c->out[0]);
}

/* dy goes back along attr[dim] to where its elements came from. */
static marea_status ordered_vjp (marea_vjp *v, int dim) {
  const marea_tensor *x = v->in[0];
  MAREA_OWN zeros = NULL;
  if (!v->need[0] || !v->dout[0]) return MAREA_OK;
  MAREA_TRY(marea_zeros(v->ctx, (marea_dtype)x->dtype, x->rank, x->shape, &zeros));
  return marea_run_with(v->ctx, &marea_op_scatter_add, &v->attr[dim], &v->din[0], 3, zeros, v->out[1],
                        v->dout[0]);
}

static marea_status sort_vjp (marea_vjp *v) { return ordered_vjp(v, 0); }

const marea_op marea_op_sort = {
    .name = "sort",
    .family = "sort",
    .doc = "The elements in order along a dimension, and their positions in x (i64): two results, both of "
           "x's shape. " ORDER_TEXT
           "Gradient: each dy to where its element came from. Error: dim out of range.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS(ATTR_DIM, ATTR_DESCENDING),
    .dtypes = MAREA_ANY,
    .saves_out = 2,
    .shape = sort_shape,
    .forward = sort_forward,
    .vjp = sort_vjp,
    .sample = "local s = g.shape(1, 4) return {g.distinct(s)}, {dim = g.int(1, #s), descending = g.bool()}",
};

const marea_op marea_op_argsort = {
    .name = "argsort",
    .family = "sort",
    .doc = "Positions of the elements in order along a dimension, i64 of x's shape: x:gather(x:argsort(dim), "
           "dim) is x in "
           "order. " ORDER_TEXT "The result is a constant for gradients. Error: dim out of range.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS(ATTR_DIM, ATTR_DESCENDING),
    .flags = MAREA_NO_GRAD,
    .dtypes = MAREA_ANY,
    .shape = argsort_shape,
    .forward = argsort_forward,
    .sample = "local s = g.shape(1, 4) return {g.distinct(s)}, {dim = g.int(1, #s), descending = g.bool()}",
};

enum { TOPK_K, TOPK_DIM, TOPK_LARGEST }; /* ORDER of its attributes */

static marea_status topk_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  const int64_t k = c->attr[TOPK_K].i;
  MAREA_TRY(marea_resolve_dim(c, TOPK_DIM, x->rank));
  const int64_t size = x->shape[c->attr[TOPK_DIM].i];
  if (k < 0 || k > size)
    return marea_reject(c, MAREA_EARG,
                        "argument 'k': expected 0 to %lld, the size of the dimension, got %lld",
                        (long long)size, (long long)k);
  c->n_out = 2;
  marea_layout_like(&c->layout[0], x);
  c->layout[0].shape[c->attr[TOPK_DIM].i] = k;
  c->layout[1] = c->layout[0];
  c->layout[1].dtype = MAREA_I64;
  return MAREA_OK;
}

static marea_status topk_forward (marea_call *c) {
  return run_ordering(c, (int)c->attr[TOPK_DIM].i, c->attr[TOPK_LARGEST].i, c->out[0], c->out[1]);
}

static marea_status topk_vjp (marea_vjp *v) { return ordered_vjp(v, TOPK_DIM); }

const marea_op marea_op_topk = {
    .name = "topk",
    .family = "sort",
    .doc = "The k greatest elements along a dimension in falling order, or the k smallest in rising order, "
           "and their "
           "positions in x (i64): two results. " ORDER_TEXT
           "Gradient: each dy to where its element came from, 0 to the "
           "others. Errors: k larger than the dimension; dim out of range.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"k", MAREA_INT, MAREA_REQUIRED, NULL, "how many"},
                         {"dim", MAREA_DIM, -1, NULL, "the dimension to look along"},
                         {"largest", MAREA_BOOL, 1, NULL, "the greatest, or the smallest"}),
    .dtypes = MAREA_ANY,
    .saves_out = 2,
    .shape = topk_shape,
    .forward = topk_forward,
    .vjp = topk_vjp,
    .sample = "local s = g.shape(1, 4) local dim = g.int(1, #s) "
              "return {g.distinct(s)}, {k = g.int(0, s[dim]), dim = dim, largest = g.bool()}",
};

/* ---- unique ---- */

enum { UNIQUE_INVERSE, UNIQUE_COUNTS }; /* ORDER of its attributes */

/* What the shape rule leaves to forward: all elements in order. */
typedef struct sorted_all {
  const item *items;
  int64_t n;
} sorted_all;

/* *out := the elements of x in order; its items NULL: told to stop */
static marea_status sort_all (marea_call *c, sorted_all *out) {
  const marea_tensor *x = c->in[0];
  marea_tensor copy = *x;
  marea_storage memory = {.ctx = c->ctx};
  const format f = format_of(x->dtype, false);
  const void *values = marea_at(x);
  item *items;
  out->n = marea_count(x->rank, x->shape);
  out->items = NULL;
  MAREA_TABLE_OR_RETURN(c, items, (size_t)MAREA_MAX(2 * out->n, 1) * sizeof *items);
  if (!marea_tensor_contiguous(x)) {
    MAREA_TABLE_OR_RETURN(c, memory.data,
                          (size_t)MAREA_MAX(out->n, 1) * marea_dtype_size((marea_dtype)x->dtype));
    copy.storage = &memory;
    copy.offset = 0;
    marea_row_major(copy.rank, copy.shape, copy.stride);
    marea_copy_strided(c->ctx, x, &copy);
    values = memory.data;
    if (marea_stopping(c->ctx)) return MAREA_OK;
  }
  if (!load_items(c->ctx, f, values, 0, 1, out->n, items)) return MAREA_OK;
  out->items = sort_items(c->ctx, f, items, items + out->n, out->n);
  return MAREA_OK;
}

static marea_status unique_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  int64_t distinct = marea_count(x->rank, x->shape);
  if (!c->ctx->plan) {
    sorted_all *all;
    MAREA_TABLE_OR_RETURN(c, all, sizeof *all);
    MAREA_TRY(sort_all(c, all));
    c->found = all;
    distinct = all->items && all->n > 0;
    for (int64_t i = 1; all->items && i < all->n && !MAREA_STOPPING(c->ctx, i); i++)
      distinct += all->items[i].key != all->items[i - 1].key;
    if (marea_stopping(c->ctx)) all->items = NULL; /* the count is incomplete */
  }
  c->n_out = 1;
  marea_layout_set(&c->layout[0], x->dtype, 1, &distinct);
  if (c->attr[UNIQUE_INVERSE].i) marea_layout_set(&c->layout[c->n_out++], MAREA_I64, x->rank, x->shape);
  if (c->attr[UNIQUE_COUNTS].i) marea_layout_set(&c->layout[c->n_out++], MAREA_I64, 1, &distinct);
  return MAREA_OK;
}

static marea_status unique_forward (marea_call *c) {
  const sorted_all *all = c->found;
  const ordering s = {
      .x = marea_at(c->in[0]), .format = format_of(c->in[0]->dtype, false), .values = marea_at(c->out[0])};
  const int64_t base = c->ctx->config.index_base;
  int64_t *inverse = c->attr[UNIQUE_INVERSE].i ? marea_at(c->out[1]) : NULL;
  int64_t *counts = c->attr[UNIQUE_COUNTS].i ? marea_at(c->out[1 + !!inverse]) : NULL;
  if (!all->items) return MAREA_OK;
  for (int64_t i = 0, k = -1; i < all->n && !MAREA_STOPPING(c->ctx, i); i++) {
    if (i == 0 || all->items[i].key != all->items[i - 1].key) {
      put_value(&s, ++k, all->items[i].at);
      if (counts) counts[k] = 0;
    }
    if (counts) counts[k]++;
    if (inverse) inverse[all->items[i].at] = k + base;
  }
  return MAREA_OK;
}

const marea_op marea_op_unique = {
    .name = "unique",
    .family = "sort",
    .doc = "The different values of x, in order (n); NaN once, at the end, 0 and -0 are one. With `inverse` "
           "also the "
           "position of each element's value among them, i64 of x's shape; with `counts` also how often each "
           "occurs, "
           "i64 (n). The results are constants for gradients. In a plan n counts every element.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"inverse", MAREA_BOOL, 0, NULL, "positions as a further result"},
                         {"counts", MAREA_BOOL, 0, NULL, "counts as a further result"}),
    .flags = MAREA_NO_GRAD,
    .dtypes = MAREA_ANY,
    .shape = unique_shape,
    .forward = unique_forward,
    .sample = "return {g.tensor(g.shape(0, 4), {lo = 0, hi = 3}):mul(2):to('i64'):to(g.dtype)}, "
              "{inverse = g.bool(), counts = g.bool()}",
};
