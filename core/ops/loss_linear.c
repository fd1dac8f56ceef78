/* SPDX-License-Identifier: MIT
** loss_linear.c: a dense layer and cross-entropy behind it, without the logits in memory. The vocabulary is cut into
** tiles; the logits of a tile go into the running maximum and sum of each row. Of a row only lse, the logarithm of the
** sum of its exponentials, is kept; backward makes the tiles again and has a tile's part of dweight and dbias at once.
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
  WANT_DBIAS
}; /* ORDER of attributes, WANT: of the gradient */

#define TILE 2097152 /* logits of a tile: 8 MB of f32, a part of a third-level cache */
#define NARROW 256   /* least columns of a tile, so that products are no slower than those of the whole */
#define ROWS 16      /* rows of a block */

typedef struct row_state {
  double max, sum, label, total;
} row_state;

typedef struct job {
  marea_call *c;
  const marea_kernels *k;
  int dtype;
  size_t size;
  int64_t rows, depth, classes, width; /* width: columns of a tile */
  int64_t first, n;                    /* the tile at work */
  const marea_tensor *label;
  int64_t base, ignored;
  double smoothing, factor;
  const char *x, *weight, *bias;
  char *logits, *part; /* (rows, width); (depth, width): of weight */
  row_state *state;    /* forward */
  const marea_tensor *dy, *lse;
  bool each;
  char *dx, *dweight, *dbias, *some_dx, *some_dw, *ones; /* backward; NULL: not wanted */
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
             .x = marea_at(x),
             .weight = marea_at(weight),
             .bias = c->n_in > at + 3 && c->in[at + 3] ? marea_at(c->in[at + 3]) : NULL};
  MAREA_TRY(check_labels(j, &counting));
  const int64_t n = r == MEAN ? counting : r == BATCHMEAN ? x->shape[0] : 1;
  j->factor = n > 0 ? 1 / (double)n : 0;
  j->width = MAREA_MIN(MAREA_MAX(MAREA_MIN(TILE / MAREA_MAX(j->rows, 1), j->classes / 24), NARROW),
                       j->classes);
  MAREA_WORKSPACE_OR_RETURN(c, j->logits, MAREA_MAX((size_t)(j->rows * j->width) * j->size, 1));
  MAREA_WORKSPACE_OR_RETURN(c, j->part, MAREA_MAX((size_t)(j->depth * j->width) * j->size, 1));
  return MAREA_OK;
}

/* Rows of the weight's tile, or of its gradient's, to and from the whole */
static void read_tile_block (void *arg, int64_t block, int worker) {
  const job *j = arg;
  (void)worker;
  memcpy(j->part + (size_t)(block * j->n) * j->size,
         j->weight + (size_t)(block * j->classes + j->first) * j->size, (size_t)j->n * j->size);
}

static void write_tile_block (void *arg, int64_t block, int worker) {
  const job *j = arg;
  (void)worker;
  memcpy(j->dweight + (size_t)(block * j->classes + j->first) * j->size,
         j->some_dw + (size_t)(block * j->n) * j->size, (size_t)j->n * j->size);
}

/* logits := x weight + bias of the tile from column `first` on */
static marea_status make_tile (job *j, int64_t first) {
  j->first = first;
  j->n = MAREA_MIN(j->width, j->classes - first);
  marea_parallel(j->c->ctx, j->depth, read_tile_block, j);
  const marea_epilogue end = {.bias = j->bias ? j->bias + (size_t)first * j->size : NULL};
  return marea_gemm_parallel(j->c->ctx, j->dtype, false, false, j->rows, j->n, j->depth, j->x, j->part, &end,
                             j->logits);
}

static int64_t blocks_of (const job *j) { return (j->rows + ROWS - 1) / ROWS; }

/* ---- linear_cross_entropy ---- */

static void begin_block (void *arg, int64_t block, int worker) {
  const job *j = arg;
  (void)worker;
  for (int64_t row = block * ROWS; row < MAREA_MIN((block + 1) * ROWS, j->rows); row++)
    j->state[row] = (row_state){.max = -INFINITY};
}

static void scan_block (void *arg, int64_t block, int worker) {
  const job *j = arg;
  (void)worker;
  for (int64_t row = block * ROWS; row < MAREA_MIN((block + 1) * ROWS, j->rows); row++) {
    const char *x = j->logits + (size_t)(row * j->n) * j->size;
    row_state *s = &j->state[row];
    const int64_t at = label_of(j, row) - j->base - j->first;
    if (at >= 0 && at < j->n) s->label = marea_load(j->dtype, x, at);
    if (j->smoothing != 0) s->total += j->k->sum((size_t)j->n, x);
    const double most = j->k->max((size_t)j->n, x), max = MAREA_MAX(s->max, most);
    if (max == -INFINITY) continue;
    s->sum = s->sum * exp(s->max - max) + j->k->exp_sum((size_t)j->n, max, x, NULL);
    s->max = max;
  }
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

static marea_status linear_cross_entropy_shape (marea_call *c) {
  MAREA_TRY(check_inputs(c, 0));
  const marea_tensor *x = c->in[0];
  marea_layout_set(&c->layout[0], x->dtype, c->attr[REDUCTION].i == NONE ? x->rank - 1 : 0, x->shape);
  marea_layout_set(&c->layout[1], x->dtype, x->rank - 1, x->shape);
  c->n_out = 2;
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

static marea_status linear_cross_entropy_forward (marea_call *c) {
  job j;
  MAREA_TRY(open_job(c, 0, &j));
  MAREA_WORKSPACE_OR_RETURN(c, j.state, MAREA_MAX((size_t)j.rows * sizeof *j.state, 1));
  marea_parallel(c->ctx, blocks_of(&j), begin_block, &j);
  for (int64_t first = 0; first < j.classes && !marea_stopping(c->ctx); first += j.width) {
    MAREA_TRY(make_tile(&j, first));
    marea_parallel(c->ctx, blocks_of(&j), scan_block, &j);
  }
  marea_parallel(c->ctx, 1, end_block, &j);
  return MAREA_OK;
}

static marea_status linear_cross_entropy_vjp (marea_vjp *v) {
  marea_tensor *in[] = {v->dout[0], v->in[0], v->in[1], v->in[2], v->n_in > 3 ? v->in[3] : NULL, v->out[1]};
  const int input[] = {0, 1, 3};
  marea_attr a[6] = {v->attr[REDUCTION], v->attr[SMOOTHING], v->attr[IGNORED]};
  marea_tensor *out[3];
  int n;
  if (!v->dout[0]) return MAREA_OK;
  for (int i = 0; i < 3; i++) a[WANT_DX + i] = marea_attr_int(input[i] < v->n_in && v->need[input[i]]);
  MAREA_TRY(marea_invoke(v->ctx, &marea_op_linear_cross_entropy_grad, 6, in, a, out, &n));
  for (int i = 0, k = 0; k < n; i++)
    if (a[WANT_DX + i].i) v->din[input[i]] = out[k++];
  return MAREA_OK;
}

static double linear_cross_entropy_flop (const marea_call *c) {
  return 2.0 * (double)marea_tensor_size(c->in[0]) * (double)c->in[1]->shape[1];
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
    .doc = "cross_entropy(linear(x, weight, bias), labels) without the logits in memory, for large "
           "vocabularies: they are "
           "made in tiles, forward and again backward. x: (..., C); weight: (C, V), as nn.Linear has it; "
           "labels: i64 or "
           "u8 (...); bias: (V). Result and attributes as of cross_entropy. Gradient: to x, weight and bias, "
           "once. "
           "Errors: as linear and cross_entropy.",
    .inputs = {{"x", "(..., C)"},
               {"weight", "(C, V)"},
               {"labels", "i64 or u8 (...), each one of V classes"},
               {"bias", "(V)", .optional = true}},
    .attrs = MAREA_ATTRS(LOSS_ATTRS),
    .results = 1,
    .once = "linear and cross_entropy",
    .saves_in = 15,
    .saves_out = 2,
    .flags = MAREA_SHAPE_ONLY,
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

/* logits := their gradient, dy (softmax - (1 - s) [label] - s / V) */
static void grad_block (void *arg, int64_t block, int worker) {
  const job *j = arg;
  const size_t n = (size_t)j->n;
  (void)worker;
  for (int64_t row = block * ROWS; row < MAREA_MIN((block + 1) * ROWS, j->rows); row++) {
    const double lse = marea_load(j->dtype, marea_at(j->lse), row);
    const double dy = marea_load(j->dtype, marea_at(j->dy), j->each ? row : 0) * j->factor;
    const int64_t label = label_of(j, row), at = label - j->base - j->first;
    char *y = j->logits + (size_t)row * n * j->size;
    double spread; /* room for an element of any dtype */
    if (label == j->ignored) {
      memset(y, 0, n * j->size);
      continue;
    }
    j->k->exp_sum(n, lse == -INFINITY ? 0 : lse, y, y);
    j->k->scale(n, dy, y, y);
    marea_store(j->dtype, &spread, 0, -dy * j->smoothing / (double)j->classes);
    if (j->smoothing != 0) j->k->add(n, y, 1, &spread, 0, y, NULL);
    if (at >= 0 && at < j->n)
      marea_store(j->dtype, y, at, marea_load(j->dtype, y, at) - dy * (1 - j->smoothing));
  }
}

static void add_dx_block (void *arg, int64_t block, int worker) {
  const job *j = arg;
  const int64_t first = block * MAREA_BLOCK, n = MAREA_MIN(MAREA_BLOCK, j->rows * j->depth - first);
  char *dx = j->dx + (size_t)first * j->size;
  (void)worker;
  j->k->add((size_t)n, dx, 1, j->some_dx + (size_t)first * j->size, 1, dx, NULL);
}

static void ones_block (void *arg, int64_t block, int worker) {
  const job *j = arg;
  (void)block, (void)worker;
  for (int64_t i = 0; i < j->rows; i++) marea_store(j->dtype, j->ones, i, 1);
}

static marea_status open_gradients (marea_call *c, job *j) {
  int k = 0;
  const size_t rows = (size_t)j->rows, depth = (size_t)j->depth;
  if (c->attr[WANT_DX].i) {
    j->dx = marea_at(c->out[k++]);
    MAREA_WORKSPACE_OR_RETURN(c, j->some_dx, MAREA_MAX(rows * depth * j->size, 1));
  }
  if (c->attr[WANT_DW].i) {
    j->dweight = marea_at(c->out[k++]);
    MAREA_WORKSPACE_OR_RETURN(c, j->some_dw, MAREA_MAX(depth * (size_t)j->width * j->size, 1));
  }
  if (c->attr[WANT_DBIAS].i) {
    j->dbias = marea_at(c->out[k++]);
    MAREA_WORKSPACE_OR_RETURN(c, j->ones, MAREA_MAX(rows * j->size, 1));
    marea_parallel(c->ctx, 1, ones_block, j);
  }
  return MAREA_OK;
}

/* What the tile at work gives */
static marea_status add_tile (job *j) {
  marea_context *ctx = j->c->ctx;
  if (j->dx) {
    char *to = j->first == 0 ? j->dx : j->some_dx;
    MAREA_TRY(marea_gemm_parallel(ctx, j->dtype, false, true, j->rows, j->depth, j->n, j->logits, j->part,
                                  NULL, to));
    if (j->first > 0)
      marea_parallel(ctx, (j->rows * j->depth + MAREA_BLOCK - 1) / MAREA_BLOCK, add_dx_block, j);
  }
  if (j->dweight) {
    MAREA_TRY(marea_gemm_parallel(ctx, j->dtype, true, false, j->depth, j->n, j->rows, j->x, j->logits, NULL,
                                  j->some_dw));
    marea_parallel(ctx, j->depth, write_tile_block, j);
  }
  if (!j->dbias) return MAREA_OK;
  return marea_gemm_parallel(ctx, j->dtype, false, false, 1, j->n, j->rows, j->ones, j->logits, NULL,
                             j->dbias + (size_t)j->first * j->size);
}

static marea_status linear_cross_entropy_grad_forward (marea_call *c) {
  job j;
  MAREA_TRY(open_job(c, 1, &j));
  j.dy = c->in[0];
  j.lse = c->in[5];
  MAREA_TRY(open_gradients(c, &j));
  for (int64_t first = 0; first < j.classes && !marea_stopping(c->ctx); first += j.width) {
    MAREA_TRY(make_tile(&j, first));
    marea_parallel(c->ctx, blocks_of(&j), grad_block, &j);
    MAREA_TRY(add_tile(&j));
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
                         {"dbias", MAREA_BOOL, 1, NULL, "give bias' gradient"}),
    .flags = MAREA_SHAPE_ONLY | MAREA_NO_GRAD,
    .shape = linear_cross_entropy_grad_shape,
    .forward = linear_cross_entropy_grad_forward,
    .flop = linear_cross_entropy_grad_flop,
    .sample = LOSS_SAMPLE
    "a.dx, a.dweight, a.dbias = g.bool(), g.bool(), true "
    "return {g.tensor(a.reduction == 'none' and s or {}), x, w, labels, b, g.tensor(s, {lo = 1, hi = "
    "2})}, a",
};
