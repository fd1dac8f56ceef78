/* SPDX-License-Identifier: MIT
** loss_linear.c: a dense layer and cross-entropy behind it, without all logits in memory.
**
** Where a gradient will be wanted and the loss is one number, forward goes over chunks of rows: the logits of a chunk
** become their gradient where they lie, and from that come the chunk's dx and its part of dweight and dbias, which are
** kept; backward multiplies them by the gradient that comes in, nearly always 1. So the logits are made once, as in
** Liger (Hsu et al., 2024).
**
** Otherwise the vocabulary is cut into tiles; the logits of a tile go into the running maximum and sum of each row. Of a
** row only lse, the logarithm of the sum of its exponentials, is kept; backward makes the tiles again and has a tile's
** part of dweight and dbias at once.
*/
#include <math.h>
#include <string.h>

#include "reduction.h"
#include "vjp.h"

enum {
  REDUCTION,
  SMOOTHING,
  IGNORED,
  WANT_DX,
  WANT_DW,
  WANT_DBIAS,
  G_PRODUCTS,
  PRODUCTS = IGNORED + 1
}; /* ORDER of attributes, those from WANT_DX on of the gradient, PRODUCTS of the loss */

#define TILE 2097152 /* logits of a tile: 8 MB of f32, a part of a third-level cache */
#define NARROW 256   /* least columns of a tile, so that products are no slower than those of the whole */
#define ROWS 16      /* rows of a block */
#define CHUNKS 10    /* of many rows: the logits of a chunk need a tenth of the whole's memory */
#define FEWEST 128   /* rows of a chunk: each reads the weight twice, and reads and writes its gradient */
#define ENOUGH 256   /* rows from which that no longer shows, also of a deep weight */

typedef struct row_state {
  double max, sum, label, total;
} row_state;

typedef struct job {
  marea_call *c;
  const marea_kernels *k;
  int dtype;
  size_t size;
  int64_t rows, depth, classes, width; /* width: columns of a tile */
  int64_t first, n;                    /* columns at work: a tile, or all */
  int64_t from, m;                     /* rows at work: a chunk, or all */
  const marea_tensor *label;
  int64_t base, ignored;
  double smoothing, factor;
  const char *x, *weight, *bias;
  char *logits; /* (m, n) */
  uint16_t *weight16,
      *logits16; /* in bf16, of chunks: (C, step), (m, step); NULL: they are not rounded before */
  int64_t step;
  row_state *state; /* forward */
  const marea_tensor *dy, *lse;
  bool each, bf16;                   /* bf16: operands of products are rounded to it */
  char *dx, *dweight, *dbias, *ones; /* gradients; NULL: not wanted */
} job;

static int64_t label_of (const job *j, int64_t row) {
  return marea_load_integer(j->label->dtype, marea_at(j->label), row);
}

/* in[at]: x (..., C), weight (C, V), labels (...), bias (V) */
static marea_status check_inputs (marea_call *c, int at) {
  const marea_tensor *x = c->in[at], *weight = c->in[at + 1];
  marea_tensor rows = *x;
  MAREA_TRY(marea_want_dtype(c, at, MAREA_FLOATS));
  MAREA_TRY(marea_want_dtype(c, at + 1, 1 << x->dtype));
  MAREA_TRY(marea_want_dtype(c, at + 2, MAREA_INTS));
  MAREA_TRY(marea_want_rank(c, at + 1, 2, "(in, out)"));
  if (x->rank == 0 || x->shape[x->rank - 1] != weight->shape[0])
    return marea_reject(c, MAREA_ESHAPE, "x %s: expected (.., %lld), because weight is %s",
                        marea_tensor_text(x).s, (long long)weight->shape[0], marea_tensor_text(weight).s);
  if (weight->shape[1] == 0)
    return marea_reject(c, MAREA_ESHAPE, "argument 'weight': expected at least one class, got %s",
                        marea_tensor_text(weight).s);
  rows.rank--;
  MAREA_TRY(marea_want_shape(c, at + 2, &rows));
  if (c->n_in > at + 3 && c->in[at + 3]) {
    MAREA_TRY(marea_want_dtype(c, at + 3, 1 << x->dtype));
    MAREA_TRY(marea_want_rank(c, at + 3, 1, "(out)"));
    MAREA_TRY(marea_want_size(c, at + 3, 0, weight->shape[1], "weight's last size"));
  }
  if (c->attr[REDUCTION].i == BATCHMEAN && rows.rank == 0)
    return marea_reject(c, MAREA_ESHAPE, "reduction 'batchmean' needs a batch dimension, got %s",
                        marea_tensor_text(x).s);
  if (c->attr[SMOOTHING].f >= 0 && c->attr[SMOOTHING].f <= 1) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument 'label_smoothing': expected a number in 0..1, got %g",
                      c->attr[SMOOTHING].f);
}

/* "{3, 1}" in the user's base */
static marea_text place_of (const job *j, int64_t i) {
  int64_t at[MAREA_MAX_RANK] = {0};
  for (int d = j->label->rank - 1; d >= 0; i /= j->label->shape[d--])
    at[d] = i % j->label->shape[d] + j->base;
  return marea_shape_text(j->label->rank, at);
}

/* Fails at the first label that is no class; counts the rows that count. */
static marea_status check_labels (const job *j, int64_t *counting) {
  marea_call *c = j->c;
  *counting = 0;
  for (int64_t i = 0; !c->ctx->shape_only && i < j->rows && !MAREA_STOPPING(c->ctx, i); i++) {
    const int64_t label = label_of(j, i);
    if (label == j->ignored) continue;
    ++*counting;
    if (label < j->base || label >= j->base + j->classes)
      return marea_reject(c, MAREA_EARG,
                          "label %lld at %s is out of range, expected %lld..%lld for %lld classes",
                          (long long)label, place_of(j, i).s, (long long)j->base,
                          (long long)(j->base + j->classes - 1), (long long)j->classes);
  }
  return MAREA_OK;
}

static marea_status open_job (marea_call *c, int at, job *j) {
  const marea_tensor *x = c->in[at], *weight = c->in[at + 1];
  const reduction r = (reduction)c->attr[REDUCTION].i;
  int64_t counting;
  *j = (job){.c = c,
             .k = c->ctx->kernels[x->dtype],
             .dtype = x->dtype,
             .size = marea_dtype_size((marea_dtype)x->dtype),
             .rows = marea_count(x->rank - 1, x->shape),
             .depth = weight->shape[0],
             .classes = weight->shape[1],
             .label = c->in[at + 2],
             .base = c->ctx->config.index_base,
             .ignored = c->attr[IGNORED].i,
             .smoothing = c->attr[SMOOTHING].f,
             .each = r == NONE,
             .bf16 = marea_rounds(c),
             .x = marea_at(x),
             .weight = marea_at(weight),
             .bias = c->n_in > at + 3 && c->in[at + 3] ? marea_at(c->in[at + 3]) : NULL};
  MAREA_TRY(check_labels(j, &counting));
  const int64_t n = r == MEAN ? counting : r == BATCHMEAN ? x->shape[0] : 1;
  j->factor = n > 0 ? 1 / (double)n : 0;
  return MAREA_OK;
}

static marea_status open_logits (job *j, int64_t rows, int64_t columns) {
  MAREA_WORKSPACE_OR_RETURN(j->c, j->logits, MAREA_MAX((size_t)(rows * columns) * j->size, 1));
  return MAREA_OK;
}

/* Columns are cut into tiles, of all rows. */
static marea_status open_tiles (job *j) {
  const int64_t width = MAREA_MIN(TILE / MAREA_MAX(j->rows, 1), j->classes / 24);
  j->width = MAREA_MIN(MAREA_MAX(width, NARROW), j->classes);
  j->m = j->rows;
  return open_logits(j, j->rows, j->width);
}

/* logits := x weight + bias of the rows and columns at work */
static marea_status make_logits (job *j) {
  const marea_epilogue end = {.bias = j->bias ? j->bias + (size_t)j->first * j->size : NULL};
  if (j->weight16)
    return marea_gemm_part(j->c->ctx, j->dtype, false, false, j->m, j->n, j->depth,
                           j->x + (size_t)(j->from * j->depth) * j->size, j->weight16, &end, j->logits,
                           &(marea_gemm_layout){.ldb = j->step, .bf16 = true, .b_is_bf16 = true});
  return marea_gemm_part(j->c->ctx, j->dtype, false, false, j->m, j->n, j->depth,
                         j->x + (size_t)(j->from * j->depth) * j->size,
                         j->weight + (size_t)j->first * j->size, &end, j->logits,
                         &(marea_gemm_layout){.ldb = j->classes, .bf16 = j->bf16});
}

static marea_status make_tile (job *j, int64_t first) {
  j->first = first;
  j->n = MAREA_MIN(j->width, j->classes - first);
  return make_logits(j);
}

/* Calls f for rows at work, from 0 on. */
static void for_rows (const job *j, int64_t block, void (*f)(const job *j, int64_t i)) {
  for (int64_t i = block * ROWS; i < MAREA_MIN((block + 1) * ROWS, j->m); i++) f(j, i);
}

static int64_t blocks_of (const job *j) { return (j->m + ROWS - 1) / ROWS; }

static char *logits_of (const job *j, int64_t i) { return j->logits + (size_t)(i * j->n) * j->size; }

/* Where the row's label is among the columns at work; the label of an ignored row may be any number. */
static int64_t column_of (const job *j, int64_t i) {
  return (int64_t)((uint64_t)label_of(j, j->from + i) - (uint64_t)j->base - (uint64_t)j->first);
}

/* ---- gradients, of the rows and columns at work ---- */

/* y, probabilities * dy / scale, becomes dy (probabilities - (1 - s) [label] - s / V). */
static void finish_gradient (const job *j, int64_t i, double scale, double dy) {
  const size_t n = (size_t)j->n;
  const int64_t at = column_of(j, i);
  char *y = logits_of(j, i);
  double spread; /* room for an element of any dtype */
  j->k->scale_normal(n, scale, y, y);
  marea_store(j->dtype, &spread, 0, -dy * j->smoothing / (double)j->classes);
  if (j->smoothing != 0) j->k->add(n, y, 1, &spread, 0, y, NULL);
  if (at >= 0 && at < j->n)
    marea_store(j->dtype, y, at, marea_load(j->dtype, y, at) - dy * (1 - j->smoothing));
}

/* Does the row count nothing? Its gradient is 0 then. */
static bool clear_ignored (const job *j, int64_t i) {
  if (label_of(j, j->from + i) != j->ignored) return false;
  memset(logits_of(j, i), 0, (size_t)j->n * j->size);
  return true;
}

static void ones_block (void *arg, int64_t block, int worker) {
  const job *j = arg;
  (void)block, (void)worker;
  for (int64_t i = 0; i < j->rows; i++) marea_store(j->dtype, j->ones, i, 1);
}

static marea_status open_ones (job *j) {
  MAREA_WORKSPACE_OR_RETURN(j->c, j->ones, MAREA_MAX((size_t)j->rows * j->size, 1));
  marea_parallel(j->c->ctx, 1, ones_block, j);
  return MAREA_OK;
}

static marea_status add_rounded (const job *j) {
  marea_context *ctx = j->c->ctx;
  const size_t row = (size_t)(j->from * j->depth) * j->size;
  if (j->dx)
    MAREA_TRY(marea_gemm_part(
        ctx, j->dtype, false, true, j->m, j->depth, j->n, j->logits16, j->weight16, NULL, j->dx + row,
        &(marea_gemm_layout){
            .lda = j->step, .ldb = j->step, .bf16 = true, .a_is_bf16 = true, .b_is_bf16 = true}));
  if (!j->dweight) return MAREA_OK;
  return marea_gemm_part(
      ctx, j->dtype, true, false, j->depth, j->n, j->m, j->x + row, j->logits16, NULL, j->dweight,
      &(marea_gemm_layout){.ldb = j->step, .add = j->from > 0, .bf16 = true, .b_is_bf16 = true});
}

/* What the logits' gradient gives: parts of dx are added up over tiles, those of dweight and dbias over chunks. */
static marea_status add_gradients (const job *j) {
  marea_context *ctx = j->c->ctx;
  const size_t row = (size_t)(j->from * j->depth) * j->size, column = (size_t)j->first * j->size;
  if (j->weight16) MAREA_TRY(add_rounded(j));
  if (j->dx && !j->weight16)
    MAREA_TRY(marea_gemm_part(ctx, j->dtype, false, true, j->m, j->depth, j->n, j->logits, j->weight + column,
                              NULL, j->dx + row,
                              &(marea_gemm_layout){.ldb = j->classes, .add = j->first > 0, .bf16 = j->bf16}));
  if (j->dweight && !j->weight16)
    MAREA_TRY(marea_gemm_part(ctx, j->dtype, true, false, j->depth, j->n, j->m, j->x + row, j->logits, NULL,
                              j->dweight + column,
                              &(marea_gemm_layout){.ldc = j->classes, .add = j->from > 0, .bf16 = j->bf16}));
  if (!j->dbias) return MAREA_OK;
  return marea_gemm_part(ctx, j->dtype, false, false, 1, j->n, j->m, j->ones, j->logits, NULL,
                         j->dbias + column, &(marea_gemm_layout){.add = j->from > 0});
}

/* ---- linear_cross_entropy ---- */

static void begin_block (void *arg, int64_t block, int worker) {
  const job *j = arg;
  (void)worker;
  for (int64_t row = block * ROWS; row < MAREA_MIN((block + 1) * ROWS, j->rows); row++)
    j->state[row] = (row_state){.max = -INFINITY};
}

/* What a row needs of logits but their exponentials; returns their maximum. */
static double scan_logits (const job *j, int64_t i) {
  const char *x = logits_of(j, i);
  row_state *s = &j->state[j->from + i];
  const int64_t at = column_of(j, i);
  if (at >= 0 && at < j->n) s->label = marea_load(j->dtype, x, at);
  if (j->smoothing != 0) s->total += j->k->sum((size_t)j->n, x);
  return j->k->max((size_t)j->n, x);
}

static void scan_row (const job *j, int64_t i) {
  row_state *s = &j->state[j->from + i];
  const double most = scan_logits(j, i), max = MAREA_MAX(s->max, most);
  if (max == -INFINITY) return;
  s->sum = s->sum * exp(s->max - max) + j->k->exp_sum((size_t)j->n, max, logits_of(j, i), NULL);
  s->max = max;
}

static void scan_block (void *arg, int64_t block, int worker) {
  (void)worker;
  for_rows(arg, block, scan_row);
}

/* A whole row: its logits become their gradient while they are in a cache. */
static void turn_row (const job *j, int64_t i) {
  char *y = logits_of(j, i);
  row_state *s = &j->state[j->from + i];
  s->max = scan_logits(j, i);
  s->sum = j->k->exp_sum((size_t)j->n, s->max == -INFINITY ? 0 : s->max, y, y);
  if (!clear_ignored(j, i)) finish_gradient(j, i, s->sum == 0 ? 0 : j->factor / s->sum, j->factor);
  if (j->logits16) j->k->narrow_bf16((size_t)j->n, (const float *)(const void *)y, j->logits16 + i * j->step);
}

static void turn_block (void *arg, int64_t block, int worker) {
  (void)worker;
  for_rows(arg, block, turn_row);
}

static double loss_of (const job *j, int64_t row) {
  const row_state *s = &j->state[row];
  if (label_of(j, row) == j->ignored) return 0;
  if (s->max == -INFINITY) return INFINITY; /* as cross_entropy has it */
  const double logsum = log(s->sum), loss = logsum + (s->max - s->label);
  if (j->smoothing == 0) return loss;
  const double spread = logsum + (s->max - s->total / (double)j->classes);
  return j->smoothing == 1 ? spread : (1 - j->smoothing) * loss + j->smoothing * spread;
}

/* Are the gradients made with the loss? Then they are results that the vjp alone sees. */
static bool gives_gradients (const marea_call *c) {
  if (!c->in[0]->ctx->recording || c->attr[REDUCTION].i == NONE) return false;
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i] && c->in[i]->requires_grad) return true;
  return false;
}

#define GRADIENTS 2 /* their first result: loss, lse, dx, dweight, dbias */
static const int input_of[] = {0, 1, 3};

static const marea_tensor *wanted (const marea_call *c, int k) {
  const marea_tensor *t = input_of[k] < c->n_in ? c->in[input_of[k]] : NULL;
  return t && t->requires_grad ? t : NULL;
}

static marea_status linear_cross_entropy_shape (marea_call *c) {
  MAREA_TRY(check_inputs(c, 0));
  const marea_tensor *x = c->in[0];
  marea_layout_set(&c->layout[0], x->dtype, c->attr[REDUCTION].i == NONE ? x->rank - 1 : 0, x->shape);
  marea_layout_set(&c->layout[1], x->dtype, x->rank - 1, x->shape);
  c->n_out = GRADIENTS;
  for (int k = 0; gives_gradients(c) && k < 3; k++) {
    const marea_tensor *t = wanted(c, k);
    if (t) marea_layout_like(&c->layout[c->n_out++], t);
    else marea_layout_set(&c->layout[c->n_out++], x->dtype, 1, (const int64_t[]){0});
  }
  return MAREA_OK;
}

static void end_block (void *arg, int64_t block, int worker) {
  const job *j = arg;
  double total = 0;
  (void)block, (void)worker;
  for (int64_t row = 0; row < j->rows; row++) {
    const double loss = loss_of(j, row);
    marea_store(j->dtype, marea_at(j->c->out[1]), row, j->state[row].max + log(j->state[row].sum));
    if (j->each) marea_store(j->dtype, marea_at(j->c->out[0]), row, loss);
    total += loss;
  }
  if (!j->each) marea_store(j->dtype, marea_at(j->c->out[0]), 0, total * j->factor);
}

/* Is the result the gradient of t, or left empty? */
static bool is_made (const marea_tensor *result, const marea_tensor *t) {
  return marea_has_shape(result, t->rank, t->shape);
}

static marea_status scan_tiles (job *j) {
  MAREA_TRY(open_tiles(j));
  for (int64_t first = 0; first < j->classes && !marea_stopping(j->c->ctx); first += j->width) {
    MAREA_TRY(make_tile(j, first));
    marea_parallel(j->c->ctx, blocks_of(j), scan_block, j);
  }
  return MAREA_OK;
}

/* Rows of a chunk: all of the same size, but the last */
static int64_t chunk_of (const job *j) {
  const int64_t least = MAREA_MIN(MAREA_MAX(j->depth / 2, FEWEST), ENOUGH);
  const int64_t most = MAREA_MAX(j->rows / CHUNKS, least), chunks = (j->rows + most - 1) / most;
  return chunks == 0 ? 1 : (j->rows + chunks - 1) / chunks;
}

static void narrow_row (void *arg, int64_t row, int worker) {
  const job *j = arg;
  (void)worker;
  j->k->narrow_bf16((size_t)j->classes, (const float *)(const void *)j->weight + row * j->classes,
                    j->weight16 + row * j->step);
}

/* What several products of chunks read */
static marea_status open_rounded (job *j, int64_t chunk) {
  j->step = (j->classes + 1) / 2 * 2;
  const size_t row = (size_t)j->step * sizeof(uint16_t);
  MAREA_WORKSPACE_OR_RETURN(j->c, j->weight16, MAREA_MAX((size_t)j->depth * row, 1));
  MAREA_WORKSPACE_OR_RETURN(j->c, j->logits16, MAREA_MAX((size_t)MAREA_MIN(chunk, j->rows) * row, 1));
  marea_parallel(j->c->ctx, j->depth, narrow_row, j);
  return MAREA_OK;
}

static marea_status turn_chunks (job *j) {
  marea_tensor *const *in = j->c->in, *const *out = j->c->out + GRADIENTS;
  const int64_t chunk = chunk_of(j);
  if (is_made(out[0], in[0])) j->dx = marea_at(out[0]);
  if (is_made(out[1], in[1])) j->dweight = marea_at(out[1]);
  if (j->bias && is_made(out[2], in[3])) j->dbias = marea_at(out[2]);
  if (j->dbias) MAREA_TRY(open_ones(j));
  MAREA_TRY(open_logits(j, MAREA_MIN(chunk, j->rows), j->classes));
  if (j->bf16) MAREA_TRY(open_rounded(j, chunk));
  j->n = j->classes;
  do { /* once even if there are no rows, for the zeros */
    j->m = MAREA_MIN(chunk, j->rows - j->from);
    MAREA_TRY(make_logits(j));
    marea_parallel(j->c->ctx, blocks_of(j), turn_block, j);
    MAREA_TRY(add_gradients(j));
    j->from += chunk;
  } while (j->from < j->rows && !marea_stopping(j->c->ctx));
  return MAREA_OK;
}

static marea_status linear_cross_entropy_forward (marea_call *c) {
  job j;
  MAREA_TRY(open_job(c, 0, &j));
  MAREA_WORKSPACE_OR_RETURN(c, j.state, MAREA_MAX((size_t)j.rows * sizeof *j.state, 1));
  marea_parallel(c->ctx, (j.rows + ROWS - 1) / ROWS, begin_block, &j);
  MAREA_TRY(c->n_out > GRADIENTS ? turn_chunks(&j) : scan_tiles(&j));
  marea_parallel(c->ctx, 1, end_block, &j);
  return MAREA_OK;
}

/* Gradient k that forward has made, if it has: an input may have come to require one since. */
static bool has_made (const marea_vjp *v, int k) {
  return v->n_out > GRADIENTS + k && is_made(v->out[GRADIENTS + k], v->in[input_of[k]]);
}

static bool is_one (const marea_tensor *t) {
  return marea_is_planned(t) || marea_load(t->dtype, marea_at(t), 0) == 1;
}

/* *dx := made * dy; in place of `made` where nobody will read it again */
static marea_status scale_made (const marea_vjp *v, marea_tensor *made, marea_tensor **dx) {
  marea_tensor *const pair[] = {made, v->dout[0]};
  if (!is_one(pair[1]) && !v->last) return marea_run(v->ctx, &marea_op_mul, dx, 2, pair[0], pair[1]);
  if (!is_one(pair[1])) MAREA_TRY(marea_invoke_(v->ctx, &marea_op_mul, 2, pair, NULL));
  *dx = marea_retain(made);
  return MAREA_OK;
}

static marea_status linear_cross_entropy_vjp (marea_vjp *v) {
  marea_tensor *in[] = {v->dout[0], v->in[0], v->in[1], v->in[2], v->n_in > 3 ? v->in[3] : NULL, v->out[1]};
  marea_attr a[7] = {v->attr[REDUCTION], v->attr[SMOOTHING], v->attr[IGNORED]};
  marea_tensor *out[3];
  bool made = true;
  a[G_PRODUCTS] = v->attr[PRODUCTS];
  int n;
  if (!v->dout[0]) return MAREA_OK;
  for (int k = 0; k < 3; k++) {
    a[WANT_DX + k] = marea_attr_int(input_of[k] < v->n_in && v->need[input_of[k]]);
    made = made && (!a[WANT_DX + k].i || has_made(v, k));
  }
  for (int k = 0; made && k < 3; k++)
    if (a[WANT_DX + k].i) MAREA_TRY(scale_made(v, v->out[GRADIENTS + k], &v->din[input_of[k]]));
  if (made) return MAREA_OK;
  MAREA_TRY(marea_invoke(v->ctx, &marea_op_linear_cross_entropy_grad, 6, in, a, out, &n));
  for (int k = 0, i = 0; i < n; k++)
    if (a[WANT_DX + k].i) v->din[input_of[k]] = out[i++];
  return MAREA_OK;
}

static double linear_cross_entropy_flop (const marea_call *c) {
  const double one = 2.0 * (double)marea_tensor_size(c->in[0]) * (double)c->in[1]->shape[1];
  return gives_gradients(c) ? one * (1 + (wanted(c, 0) != NULL) + (wanted(c, 1) != NULL)) : one;
}

#define LOSS_ATTRS                                                                                    \
  REDUCTION_ATTR("what becomes of the rows' losses"),                                                 \
      {"label_smoothing", MAREA_REAL, 0, NULL, "part of the target spread over all classes, 0..1"}, { \
    "ignore_label", MAREA_INT, MAREA_NONE, NULL, "rows with this label count nothing"                 \
  }
#define LOSS_SAMPLE                                                                                       \
  "local s, n, d = g.shape(0, 2), g.int(1, 5), g.int(0, 4) local xs = {table.unpack(s)} xs[#xs + 1] = d " \
  "local x, w, labels, b = g.tensor(xs), g.tensor{d, n}, g.index(s, n), g.bool() and g.tensor{n} or nil " \
  "local a = {reduction = g.pick(#s > 0 and {'mean', 'sum', 'none', 'batchmean'} or {'mean', 'none'}), "  \
  "label_smoothing = g.pick{0, 0.1}, ignore_label = g.pick{n, -1}} "

const marea_op marea_op_linear_cross_entropy = {
    .name = "linear_cross_entropy",
    .family = "loss",
    .doc =
        "cross_entropy(linear(x, weight, bias), labels) without all logits in memory, for large "
        "vocabularies: "
        "those of a tile of columns, or with gradients of some hundred rows, are there at a time. x: (..., "
        "C); "
        "weight: (C, V), as nn.Linear has it; labels: i64 or u8 (...); bias: (V). Result and attributes as "
        "of "
        "cross_entropy. Gradients, to x, weight and bias, once: where one of them is required and recorded "
        "they "
        "are made with the loss, at three times its cost, so evaluate in no_grad; with reduction 'none' the "
        "logits are made again backward. Errors: as linear and cross_entropy.",
    .inputs = {{"x", "(..., C)"},
               {"weight", "(C, V)"},
               {"labels", "i64 or u8 (...), each one of V classes"},
               {"bias", "(V)", .optional = true}},
    .attrs = MAREA_ATTRS(LOSS_ATTRS, MAREA_PRODUCTS),
    .results = 1,
    .once = "linear and cross_entropy",
    .saves_in = 15,
    .saves_out = 30,
    .flags = MAREA_SHAPE_ONLY | MAREA_ROUNDS | MAREA_WIDE,
    .shape = linear_cross_entropy_shape,
    .forward = linear_cross_entropy_forward,
    .vjp = linear_cross_entropy_vjp,
    .flop = linear_cross_entropy_flop,
    .sample = LOSS_SAMPLE "return {x, w, labels, b}, a",
};

/* ---- linear_cross_entropy_grad ---- */

static marea_status linear_cross_entropy_grad_shape (marea_call *c) {
  const marea_tensor *x = c->in[1], *weight = c->in[2];
  MAREA_TRY(check_inputs(c, 1));
  marea_tensor losses = *x, rows = *x;
  rows.rank--;
  losses.rank = (int8_t)(c->attr[REDUCTION].i == NONE ? x->rank - 1 : 0);
  MAREA_TRY(marea_want_shape(c, 0, &losses));
  MAREA_TRY(marea_want_dtype(c, 0, 1 << x->dtype));
  if (c->n_in < 6 || !c->in[5])
    return marea_reject(c, MAREA_EARG, "argument 'lse': expected a tensor, got nothing");
  MAREA_TRY(marea_want_dtype(c, 5, 1 << x->dtype));
  MAREA_TRY(marea_want_shape(c, 5, &rows));
  c->n_out = 0;
  if (c->attr[WANT_DX].i) marea_layout_like(&c->layout[c->n_out++], x);
  if (c->attr[WANT_DW].i) marea_layout_like(&c->layout[c->n_out++], weight);
  if (c->attr[WANT_DBIAS].i) marea_layout_set(&c->layout[c->n_out++], x->dtype, 1, &weight->shape[1]);
  return MAREA_OK;
}

static void grad_row (const job *j, int64_t i) {
  const double lse = marea_load(j->dtype, marea_at(j->lse), i);
  const double dy = marea_load(j->dtype, marea_at(j->dy), j->each ? i : 0) * j->factor;
  char *y = logits_of(j, i);
  if (clear_ignored(j, i)) return;
  j->k->exp_sum((size_t)j->n, lse == -INFINITY ? 0 : lse, y, y);
  finish_gradient(j, i, dy, dy);
}

static void grad_block (void *arg, int64_t block, int worker) {
  (void)worker;
  for_rows(arg, block, grad_row);
}

static marea_status linear_cross_entropy_grad_forward (marea_call *c) {
  job j;
  int k = 0;
  MAREA_TRY(open_job(c, 1, &j));
  MAREA_TRY(open_tiles(&j));
  j.dy = c->in[0];
  j.lse = c->in[5];
  if (c->attr[WANT_DX].i) j.dx = marea_at(c->out[k++]);
  if (c->attr[WANT_DW].i) j.dweight = marea_at(c->out[k++]);
  if (c->attr[WANT_DBIAS].i) j.dbias = marea_at(c->out[k++]);
  if (j.dbias) MAREA_TRY(open_ones(&j));
  for (int64_t first = 0; first < j.classes && !marea_stopping(c->ctx); first += j.width) {
    MAREA_TRY(make_tile(&j, first));
    marea_parallel(c->ctx, blocks_of(&j), grad_block, &j);
    MAREA_TRY(add_gradients(&j));
  }
  return MAREA_OK;
}

static double linear_cross_entropy_grad_flop (const marea_call *c) {
  const double one = 2.0 * (double)marea_tensor_size(c->in[1]) * (double)c->in[2]->shape[1];
  return one * (double)(1 + c->attr[WANT_DX].i + c->attr[WANT_DW].i);
}

const marea_op marea_op_linear_cross_entropy_grad = {
    .name = "linear_cross_entropy_grad",
    .family = "loss",
    .doc = "The gradients of linear_cross_entropy to x, weight and bias, those of them that are asked for, "
           "in this order, "
           "from that of its result and what it has kept: lse (...), the logarithm of the sum of a row's "
           "exponentials. "
           "Constants for the tape. Errors as for linear_cross_entropy.",
    .inputs = {{"dy", "gradient of the loss: a number, or (...) with reduction 'none'"},
               {"x", "(..., C)"},
               {"weight", "(C, V)"},
               {"labels", "i64 or u8 (...), each one of V classes"},
               {"bias", "(V)", .optional = true},
               {"lse", "(...)", .optional = true}},
    .attrs = MAREA_ATTRS(LOSS_ATTRS, {"dx", MAREA_BOOL, 1, NULL, "give x's gradient"},
                         {"dweight", MAREA_BOOL, 1, NULL, "give weight's gradient"},
                         {"dbias", MAREA_BOOL, 1, NULL, "give bias' gradient"}, MAREA_PRODUCTS),
    .flags = MAREA_SHAPE_ONLY | MAREA_NO_GRAD,
    .shape = linear_cross_entropy_grad_shape,
    .forward = linear_cross_entropy_grad_forward,
    .flop = linear_cross_entropy_grad_flop,
    .sample = LOSS_SAMPLE
    "a.dx, a.dweight, a.dbias = g.bool(), g.bool(), true "
    "return {g.tensor(a.reduction == 'none' and s or {}), x, w, labels, b, g.tensor(s, {lo = 1, hi = "
    "2})}, a",
};
