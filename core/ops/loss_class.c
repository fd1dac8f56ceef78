/* SPDX-License-Identifier: MIT
** loss_class.c: cross-entropy over classes, from logits, and its gradient; reductions as in loss.c, but
** "mean" is over the rows whose label counts. Softmax, logarithm and sum are one pass over the logits, row
** by row.
**
** Labels are checked before anything is computed, in one serial pass that names the first bad one. So the
** parallel part cannot fail.
*/
#include <math.h>
#include <string.h>

#include "formula.h"
#include "reduction.h"

#define CLASS_ATTRS                                                                                 \
  .attrs = MAREA_ATTRS(                                                                             \
      REDUCTION_ATTR("what becomes of the rows' losses"),                                           \
      {"label_smoothing", MAREA_REAL, 0, NULL, "part of the target spread over all classes, 0..1"}, \
      {"ignore_label", MAREA_INT, MAREA_NONE, NULL, "rows with this label count nothing"})

typedef struct class_job {
  const marea_kernels *k;
  int dtype, label_dtype;
  size_t size;
  int64_t rows, classes, rows_per_block;
  const char *x;
  const void *label;
  int64_t base, ignored;
  double smoothing;
  double *partial; /* loss: one sum a block */
  const marea_tensor *dy;
  bool each;     /* reduction 'none': a loss, or a dy, for each row */
  double factor; /* of the sum; gradient: of dy */
  char *out;
} class_job;

/* ---- labels ------------------------------------------------------------------------------------------ */

/* Fails at the first label that is no class; counts the rows that count. */
static marea_status check_labels (marea_call *c, const marea_tensor *labels, const class_job *j,
                                  int64_t *counting) {
  *counting = 0;
  for (int64_t i = 0; i < j->rows && !MAREA_STOPPING(c->ctx, i); i++) {
    const int64_t label = marea_load_integer(j->label_dtype, j->label, i);
    if (label == j->ignored) continue;
    ++*counting;
    if (label >= j->base && label < j->base + j->classes) continue;
    return marea_reject(c, MAREA_EARG,
                        "label %lld at %s is out of range, expected %lld..%lld for %lld classes",
                        (long long)label, marea_place_text(labels, i).s, (long long)j->base,
                        (long long)(j->base + j->classes - 1), (long long)j->classes);
  }
  return MAREA_OK;
}

/* in[first] are the logits (..., C), in[first + 1] the labels (...). */
static marea_status check_class_inputs (marea_call *c, int first) {
  const marea_tensor *x = c->in[first];
  marea_tensor rows = *x;
  MAREA_TRY(marea_want_dtype(c, first, MAREA_FLOATS));
  MAREA_TRY(marea_want_dtype(c, first + 1, MAREA_INTS));
  if (x->rank == 0 || x->shape[x->rank - 1] == 0)
    return marea_reject(c, MAREA_ESHAPE,
                        "argument '%s': expected a last dimension of at least one class, got %s",
                        c->op->inputs[first].name, marea_tensor_text(x).s);
  rows.rank--;
  MAREA_TRY(marea_want_shape(c, first + 1, &rows));
  if (c->attr[0].i == BATCHMEAN && rows.rank == 0)
    return marea_reject(c, MAREA_ESHAPE, "reduction 'batchmean' needs a batch dimension, got %s",
                        marea_tensor_text(x).s);
  if (c->attr[1].f >= 0 && c->attr[1].f <= 1) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument 'label_smoothing': expected a number in 0..1, got %g",
                      c->attr[1].f);
}

static double factor (reduction r, const marea_tensor *x, int64_t counting) {
  const int64_t n = r == MEAN ? counting : r == BATCHMEAN ? x->shape[0] : 1;
  return n > 0 ? 1 / (double)n : 0;
}

static marea_status job_of (marea_call *c, int first, class_job *j) {
  const marea_tensor *x = c->in[first], *labels = c->in[first + 1];
  int64_t counting;
  *j = (class_job){.k = c->ctx->kernels[x->dtype],
                   .dtype = x->dtype,
                   .label_dtype = labels->dtype,
                   .size = marea_dtype_size((marea_dtype)x->dtype),
                   .rows = marea_count(labels->rank, labels->shape),
                   .classes = x->shape[x->rank - 1],
                   .x = marea_at(x),
                   .label = marea_at(labels),
                   .base = c->ctx->config.index_base,
                   .ignored = c->attr[2].i,
                   .smoothing = c->attr[1].f,
                   .each = c->attr[0].i == NONE,
                   .out = marea_at(c->out[0])};
  j->rows_per_block = MAREA_MAX(1, MAREA_BLOCK / j->classes);
  MAREA_TRY(check_labels(c, labels, j, &counting));
  j->factor = factor((reduction)c->attr[0].i, x, counting);
  return MAREA_OK;
}

static int64_t blocks_of (const class_job *j) {
  return (j->rows + j->rows_per_block - 1) / j->rows_per_block;
}

/* ---- cross_entropy ----------------------------------------------------------------------------------- */

/* log sum exp - x[label], and the same for the mean of x in place of x[label] with the part `smoothing` */
static double row_loss (const class_job *j, const char *x, int64_t label) {
  const size_t n = (size_t)j->classes;
  const double max = j->k->max(n, x);
  if (max == -INFINITY) return INFINITY; /* as log_softmax has it */
  const double logsum = log(j->k->exp_sum(n, max, x, NULL));
  const double loss = logsum + (max - marea_load(j->dtype, x, label));
  if (j->smoothing == 0) return loss;
  const double spread = logsum + (max - j->k->sum(n, x) / (double)n);
  if (j->smoothing == 1) return spread;
  return (1 - j->smoothing) * loss + j->smoothing * spread;
}

static void loss_block (void *arg, int64_t block, int worker) {
  (void)worker;
  const class_job *j = arg;
  const int64_t end = MAREA_MIN((block + 1) * j->rows_per_block, j->rows);
  double total = 0;
  for (int64_t row = block * j->rows_per_block; row < end; row++) {
    const int64_t label = marea_load_integer(j->label_dtype, j->label, row);
    const char *x = j->x + (size_t)(row * j->classes) * j->size;
    const double loss = label == j->ignored ? 0 : row_loss(j, x, label - j->base);
    if (j->each) marea_store(j->dtype, j->out, row, loss);
    total += loss;
  }
  if (!j->each) j->partial[block] = total;
}

static marea_status cross_entropy_shape (marea_call *c) {
  MAREA_TRY(check_class_inputs(c, 0));
  const marea_tensor *x = c->in[0];
  marea_layout_set(&c->layout[0], x->dtype, c->attr[0].i == NONE ? x->rank - 1 : 0, x->shape);
  return MAREA_OK;
}

static marea_status cross_entropy_forward (marea_call *c) {
  class_job j;
  MAREA_TRY(job_of(c, 0, &j));
  const int64_t blocks = blocks_of(&j);
  double total = 0;
  if (!j.each && blocks > 0) MAREA_WORKSPACE_OR_RETURN(c, j.partial, (size_t)blocks * sizeof *j.partial);
  marea_parallel(c->ctx, blocks, loss_block, &j);
  if (j.each) return MAREA_OK;
  for (int64_t i = 0; i < blocks; i++) total += j.partial[i];
  marea_store(j.dtype, j.out, 0, total * j.factor);
  return MAREA_OK;
}

static marea_status cross_entropy_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, step(&f, &marea_op_cross_entropy_grad, v->attr, 3, v->dout[0], v->in[0], v->in[1]));
  return finish(&f);
}

const marea_op marea_op_cross_entropy = {
    .name = "cross_entropy",
    .family = "loss",
    .inputs = {{"logits", "(..., C)"}, {"labels", "i64 or u8 (...), each one of C classes"}},
    CLASS_ATTRS,
    .flags = MAREA_WIDE,
    .saves_in = 3,
    .shape = cross_entropy_shape,
    .forward = cross_entropy_forward,
    .vjp = cross_entropy_vjp,
    .sample = "local s, n = g.shape(1, 3), g.int(1, 5) local x = {table.unpack(s)} x[#x + 1] = n return "
              "{g.tensor(x), g.index(s, n)}, {reduction = g.pick{'mean', 'sum', 'none', 'batchmean'}, "
              "label_smoothing = g.pick{0, 0.1}, ignore_label = g.pick{n, -1}}",
    .doc = "cross_entropy(logits, labels, reduction, label_smoothing, ignore_label): per row (1 - s) (lse - "
           "x[label]) + s mean(lse - x), lse = log sum exp(x), s = label_smoothing, as in PyTorch. Result: a "
           "number, or the labels' shape with reduction 'none'; 'mean' is over the rows that count, 0 if "
           "there are none, 'batchmean' divides by the size of the first dimension; infinite in a row of "
           "-infinity alone. Gradient: dlogits = dy "
           "(softmax(x) - target). Errors: a label that is no class (the first is named), shapes that do not "
           "fit, C = 0.",
};

/* ---- cross_entropy_grad ------------------------------------------------------------------------------ */

/* y := dy (softmax(x) - (1 - s) [label] - s / C) */
static void grad_row (const class_job *j, const char *x, int64_t label, double dy, char *y) {
  const size_t n = (size_t)j->classes;
  const double max = j->k->max(n, x), sum = j->k->exp_sum(n, max == -INFINITY ? 0 : max, x, y);
  double spread; /* room for an element of any dtype */
  marea_store(j->dtype, &spread, 0, -dy * j->smoothing / (double)n);
  j->k->scale_normal(n, sum == 0 ? 0 : dy / sum, y, y);
  if (j->smoothing != 0) j->k->add(n, y, 1, &spread, 0, y, NULL);
  marea_store(j->dtype, y, label, marea_load(j->dtype, y, label) - dy * (1 - j->smoothing));
}

static void grad_block (void *arg, int64_t block, int worker) {
  (void)worker;
  const class_job *j = arg;
  const int64_t end = MAREA_MIN((block + 1) * j->rows_per_block, j->rows);
  for (int64_t row = block * j->rows_per_block; row < end; row++) {
    const int64_t label = marea_load_integer(j->label_dtype, j->label, row);
    const size_t bytes = (size_t)j->classes * j->size;
    const double dy = marea_load(j->dtype, marea_at(j->dy), j->each ? row : 0) * j->factor;
    char *y = j->out + (size_t)row * bytes;
    if (label == j->ignored) memset(y, 0, bytes);
    else grad_row(j, j->x + (size_t)row * bytes, label - j->base, dy, y);
  }
}

static marea_status cross_entropy_grad_shape (marea_call *c) {
  MAREA_TRY(check_class_inputs(c, 1));
  const marea_tensor *x = c->in[1];
  marea_tensor losses = *x;
  losses.rank = (int8_t)(c->attr[0].i == NONE ? x->rank - 1 : 0);
  MAREA_TRY(marea_want_shape(c, 0, &losses));
  MAREA_TRY(marea_want_dtype(c, 0, 1 << x->dtype));
  marea_layout_like(&c->layout[0], x);
  return MAREA_OK;
}

static marea_status cross_entropy_grad_forward (marea_call *c) {
  class_job j;
  MAREA_TRY(job_of(c, 1, &j));
  j.dy = c->in[0];
  marea_parallel(c->ctx, blocks_of(&j), grad_block, &j);
  return MAREA_OK;
}

/* Which labels count, u8. */
static marea_tensor *counting_labels (formula *f) {
  const marea_attr *attr = f->v->attr;
  return with_number(f, &marea_op_ne, f->v->in[2], (double)attr[2].i);
}

/* t (..., C), but 0 in rows whose label is ignored, whatever they hold */
static marea_tensor *without_ignored (formula *f, marea_tensor *t) {
  const marea_tensor *x = f->v->in[1];
  if (f->v->attr[2].i == INT64_MIN) return t;
  marea_attr shape = marea_attr_list(x->rank, x->shape);
  shape.v[x->rank - 1] = 1;
  return keep_where(f, step(f, &marea_op_reshape, &shape, 1, counting_labels(f), NULL, NULL), t);
}

/* The weight of each row, (..., 1): dy times 1/n of the reduction. */
static marea_tensor *row_weights (formula *f, marea_tensor *x) {
  const marea_vjp *v = f->v;
  const reduction r = (reduction)v->attr[0].i;
  const marea_tensor *labels = v->in[2];
  const int64_t rows = marea_count(labels->rank, labels->shape);
  marea_tensor *weight = v->in[0];
  if (v->attr[2].i != INT64_MIN) {
    const marea_attr dtype = marea_attr_int(x->dtype);
    marea_tensor *counts = step(f, &marea_op_cast, &dtype, 1, counting_labels(f), NULL, NULL);
    if (r == MEAN) weight = divide(f, weight, with_number(f, &marea_op_maximum, sum_all(f, counts), 1));
    else weight = times(f, weight, factor(r, x, rows));
  } else {
    weight = times(f, weight, factor(r, x, rows));
  }
  marea_attr shape = marea_attr_list(x->rank, x->shape);
  shape.v[x->rank - 1] = 1;
  if (f->status == MAREA_OK && weight->rank == 0) return weight;
  return step(f, &marea_op_reshape, &shape, 1, weight, NULL, NULL);
}

/* Softmax's own gradient for dx; what dy = 1 gives for dy, in which the operator is linear. */
static marea_status cross_entropy_grad_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *u = v->dout[0], *x = v->in[1];
  const int64_t last = x->rank - 1;
  const bool each = v->attr[0].i == NONE;
  const marea_attr along = marea_attr_list(1, &last);
  if (v->need[0]) {
    marea_tensor *one = constant(&f, x, 1);
    if (each) one = expand_like(&f, one, v->in[0]);
    marea_tensor *product = mul(&f, u, step(&f, &marea_op_cross_entropy_grad, v->attr, 3, one, x, v->in[2]));
    product = without_ignored(&f, product);
    give(&f, 0, each ? sum_dims(&f, product, along, false) : sum_all(&f, product));
  }
  if (v->need[1]) {
    marea_tensor *p = unary(&f, &marea_op_softmax, x);
    marea_tensor *share = mul(&f, mul(&f, u, row_weights(&f, x)), p);
    marea_tensor *dx = sub(&f, share, mul(&f, p, sum_dims(&f, share, along, true)));
    give(&f, 1, without_ignored(&f, dx));
  }
  return finish(&f);
}

const marea_op marea_op_cross_entropy_grad = {
    .name = "cross_entropy_grad",
    .family = "loss",
    .inputs = {{"dy", "gradient of the loss: a number, or (...) with reduction 'none'"},
               {"logits", "(..., C)"},
               {"labels", "i64 or u8 (...), each one of C classes"}},
    CLASS_ATTRS,
    .saves_in = 7,
    .shape = cross_entropy_grad_shape,
    .forward = cross_entropy_grad_forward,
    .vjp = cross_entropy_grad_vjp,
    .sample =
        "local s, n = g.shape(1, 2, 1), g.int(1, 5) local x = {table.unpack(s)} x[#x + 1] = n local r = "
        "g.pick{'mean', 'sum', 'none', 'batchmean'} return {g.tensor(r == 'none' and s or {}), "
        "g.tensor(x), g.index(s, n)}, {reduction = r, label_smoothing = g.pick{0, 0.1}, ignore_label = "
        "g.pick{n, -1}}",
    .doc = "cross_entropy_grad(dy, logits, labels, reduction, label_smoothing, ignore_label): the gradient "
           "of cross_entropy to the logits, dy (softmax(x) - (1 - s) [label] - s / C) times 1/n of the "
           "reduction, 0 in rows that do not count. Gradients to dy and logits. Errors: as cross_entropy; dy "
           "of another shape.",
};
