/* SPDX-License-Identifier: MIT
** mask.c: selects elements by a mask. Their number depends on values, so the shape rule counts them. A plan has no
** values and takes all elements as selected, which is an upper bound.
*/
#include "vjp.h"

/* A mask as bytes, the number of selected elements before each block, and in total. */
typedef struct chosen {
  marea_context *ctx;
  const uint8_t *mask;
  int64_t n, blocks, total;
  int64_t *before;
} chosen;

static int64_t part_of_block (const chosen *s, int64_t block) {
  return MAREA_MIN(MAREA_BLOCK, s->n - block * MAREA_BLOCK);
}

static void count_block (void *arg, int64_t block, int worker) {
  const chosen *s = arg;
  const uint8_t *mask = s->mask + block * MAREA_BLOCK;
  const int64_t n = part_of_block(s, block);
  int64_t count = 0;
  (void)worker;
  for (int64_t i = 0; i < n; i++) count += mask[i] != 0;
  s->before[block] = count;
}

/* *values := those of t expanded to a shape, row-major: t's own memory or a copy in a table. */
static marea_status spread (marea_call *c, const marea_tensor *t, int rank, const int64_t *shape,
                            const void **values) {
  marea_tensor wide = *t, copy;
  marea_storage memory = {.ctx = c->ctx};
  const int missing = rank - t->rank;
  *values = marea_at(t);
  if (marea_has_shape(t, rank, shape) && marea_tensor_contiguous(t)) return MAREA_OK;
  wide.rank = (int8_t)rank;
  for (int d = 0; d < rank; d++) {
    wide.shape[d] = shape[d];
    wide.stride[d] = d < missing || t->shape[d - missing] == 1 ? 0 : t->stride[d - missing];
  }
  copy = wide;
  MAREA_TABLE_OR_RETURN(
      c, memory.data,
      MAREA_MAX((size_t)marea_count(rank, shape) * marea_dtype_size((marea_dtype)t->dtype), 1));
  copy.storage = &memory;
  copy.offset = 0;
  marea_row_major(rank, copy.shape, copy.stride);
  marea_copy_strided(c->ctx, &wide, &copy);
  *values = memory.data;
  return MAREA_OK;
}

typedef struct to_bytes {
  marea_binary_kernel *ne;
  const char *x;
  size_t size;
  int64_t n;
  uint8_t *y;
} to_bytes;

static void to_bytes_block (void *arg, int64_t block, int worker) {
  static const double zero = 0; /* all bits 0: of every dtype */
  const to_bytes *s = arg;
  const int64_t i = block * MAREA_BLOCK;
  (void)worker;
  s->ne((size_t)MAREA_MIN(MAREA_BLOCK, s->n - i), s->x + (size_t)i * s->size, 1, &zero, 0, s->y + i, NULL);
}

/* *mask := values other than 0, as bytes */
static marea_status truth_of (marea_call *c, int dtype, const void *values, int64_t n, const uint8_t **mask) {
  to_bytes s = {
      .ne = c->ctx->kernels[dtype]->ne, .x = values, .size = marea_dtype_size((marea_dtype)dtype), .n = n};
  *mask = values;
  if (dtype == MAREA_U8) return MAREA_OK;
  MAREA_TABLE_OR_RETURN(c, s.y, (size_t)MAREA_MAX(n, 1));
  marea_parallel(c->ctx, (n + MAREA_BLOCK - 1) / MAREA_BLOCK, to_bytes_block, &s);
  *mask = s.y;
  return MAREA_OK;
}

/* Leaves to forward what in[input], expanded to a shape, chooses; the result has one dimension of that size. An
   operator that was told to stop chooses nothing, for its counts are not whole. */
static marea_status choose (marea_call *c, int input, int rank, const int64_t *shape, int dtype) {
  const marea_tensor *t = c->in[input];
  const void *values;
  chosen *s;
  size_t bytes; /* checks that the elements can be counted: the result may be smaller */
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, rank, shape, sizeof(int64_t), &bytes));
  int64_t n = marea_count(rank, shape);
  if (!c->ctx->plan) {
    MAREA_TABLE_OR_RETURN(c, s, sizeof *s);
    *s = (chosen){.ctx = c->ctx, .n = n, .blocks = (n + MAREA_BLOCK - 1) / MAREA_BLOCK};
    MAREA_TRY(spread(c, t, rank, shape, &values));
    MAREA_TRY(truth_of(c, t->dtype, values, n, &s->mask));
    MAREA_TABLE_OR_RETURN(c, s->before, (size_t)MAREA_MAX(s->blocks, 1) * sizeof *s->before);
    marea_parallel(c->ctx, s->blocks, count_block, s);
    const bool whole = !marea_stopping(c->ctx);
    for (int64_t b = 0; whole && b < s->blocks; b++) {
      const int64_t count = s->before[b];
      s->before[b] = s->total;
      s->total += count;
    }
    n = s->total;
    if (whole) c->found = s;
  }
  marea_layout_set(&c->layout[0], dtype, 1, &n);
  return MAREA_OK;
}

/* ---- flatnonzero ---- */

static marea_status flatnonzero_shape (marea_call *c) {
  return choose(c, 0, c->in[0]->rank, c->in[0]->shape, MAREA_I64);
}

/* Elements of a buffer: it takes each one in turn and moves on from those that were chosen. */
#define PIECE 512

typedef struct choice {
  const chosen *s;
  const char *x;
  size_t size;
  int64_t base;
  char *y;
} choice;

static void positions_block (void *arg, int64_t block, int worker) {
  const choice *p = arg;
  const int64_t first = block * MAREA_BLOCK, end = first + part_of_block(p->s, block);
  int64_t *y = (int64_t *)(void *)p->y + p->s->before[block], buffer[PIECE];
  (void)worker;
  for (int64_t i = first; i < end; i += PIECE) {
    const int64_t stop = MAREA_MIN(i + PIECE, end);
    int64_t k = 0;
    for (int64_t e = i; e < stop; e++) {
      buffer[k] = e + p->base;
      k += p->s->mask[e] != 0;
    }
    memcpy(y, buffer, (size_t)k * sizeof *y);
    y += k;
  }
}

static marea_status flatnonzero_forward (marea_call *c) {
  const chosen *s = c->found;
  choice p = {.s = s, .base = c->ctx->config.index_base, .y = marea_at(c->out[0])};
  if (s) marea_parallel(c->ctx, s->blocks, positions_block, &p);
  return MAREA_OK;
}

const marea_op marea_op_flatnonzero = {
    .name = "flatnonzero",
    .family = "index",
    .doc = "Positions of the elements of x that are not 0, counted through x row by row; i64 (n). Every "
           "dtype; NaN is not "
           "0. The result is a constant for gradients. In a plan n counts every element.",
    .inputs = {{"x", "(any shape)"}},
    .flags = MAREA_STRIDED | MAREA_NO_GRAD,
    .dtypes = MAREA_ANY,
    .shape = flatnonzero_shape,
    .forward = flatnonzero_forward,
    .sample = "return {g.mask(g.shape(0, 4)):to(g.dtype)}",
};

/* ---- masked_select ---- */

static marea_status masked_select_shape (marea_call *c) {
  marea_layout wide;
  MAREA_TRY(marea_want_dtype(c, 1, 1 << MAREA_U8));
  marea_layout_like(&wide, c->in[0]);
  MAREA_TRY(marea_broadcast(c, c->in[1]->rank, c->in[1]->shape, &wide));
  return choose(c, 1, wide.rank, wide.shape, c->in[0]->dtype);
}

#define CHOOSE(type)                             \
  for (int64_t i = first; i < end; i += PIECE) { \
    const int64_t n = MAREA_MIN(PIECE, end - i); \
    const type *x = (const type *)p->x + i;      \
    type buffer[PIECE], *y = (type *)p->y + at;  \
    int64_t k = 0;                               \
    for (int64_t e = 0; e < n; e++) {            \
      buffer[k] = x[e];                          \
      k += p->s->mask[i + e] != 0;               \
    }                                            \
    memcpy(y, buffer, (size_t)k * sizeof *y);    \
    at += k;                                     \
  }

static void select_block (void *arg, int64_t block, int worker) {
  const choice *p = arg;
  const int64_t first = block * MAREA_BLOCK, end = first + part_of_block(p->s, block);
  int64_t at = p->s->before[block];
  (void)worker;
  MAREA_SWITCH_SIZE(p->size, CHOOSE);
}

static marea_status masked_select_forward (marea_call *c) {
  const chosen *s = c->found;
  const marea_tensor *x = c->in[0];
  const void *values;
  marea_layout wide;
  if (!s) return MAREA_OK;
  marea_layout_like(&wide, x);
  MAREA_TRY(marea_broadcast(c, c->in[1]->rank, c->in[1]->shape, &wide));
  MAREA_TRY(spread(c, x, wide.rank, wide.shape, &values));
  choice p = {.s = s, .x = values, .size = marea_dtype_size((marea_dtype)x->dtype), .y = marea_at(c->out[0])};
  marea_parallel(c->ctx, s->blocks, select_block, &p);
  return MAREA_OK;
}

/* dy at the places that its elements came from, 0 elsewhere; summed to x's shape. */
static marea_status masked_select_vjp (marea_vjp *v) {
  MAREA_OWN mask = NULL;
  MAREA_OWN positions = NULL;
  MAREA_OWN zeros = NULL;
  MAREA_OWN flat = NULL;
  MAREA_OWN wide = NULL;
  const marea_tensor *x = v->in[0];
  marea_tensor *m = v->in[1];
  if (!v->need[0]) return MAREA_OK;
  const int rank = MAREA_MAX(x->rank, m->rank);
  marea_attr shape = {.n = rank};
  for (int back = 1; back <= rank; back++) {
    const int64_t a = back <= x->rank ? x->shape[x->rank - back] : 1,
                  b = back <= m->rank ? m->shape[m->rank - back] : 1;
    shape.v[rank - back] = a == 1 ? b : a;
  }
  const int64_t n = marea_count(rank, shape.v);
  const marea_attr whole = marea_attr_list(x->rank, x->shape);
  MAREA_TRY(marea_run_with(v->ctx, &marea_op_expand, &shape, &mask, 1, m));
  MAREA_TRY(marea_run(v->ctx, &marea_op_flatnonzero, &positions, 1, mask));
  MAREA_TRY(marea_zeros(v->ctx, (marea_dtype)x->dtype, 1, &n, &zeros));
  MAREA_TRY(marea_run(v->ctx, &marea_op_index_add, &flat, 3, zeros, positions, v->dout[0]));
  MAREA_TRY(marea_reshape_to(flat, rank, shape.v, &wide));
  return marea_run_with(v->ctx, &marea_op_sum_to, &whole, &v->din[0], 1, wide);
}

const marea_op marea_op_masked_select = {
    .name = "masked_select",
    .family = "index",
    .doc = "The elements of x where the mask (u8, as comparisons give it) is not 0, row by row; (n). The "
           "shapes broadcast. "
           "Gradient: dy goes to the elements that were taken, 0 to the others. In a plan n "
           "counts every element. Error: shapes that do not broadcast.",
    .inputs = {{"x", "(any shape)"}, {"mask", "u8, broadcasts with x"}},
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .saves_in = 2,
    .shape = masked_select_shape,
    .forward = masked_select_forward,
    .vjp = masked_select_vjp,
    .sample = "local s = g.shape(0, 4) return {g.tensor(s), g.mask(g.broadcast(s))}",
};
