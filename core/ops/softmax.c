/* SPDX-License-Identifier: MIT
** softmax.c: softmax and log_softmax along one dimension, by way of the maximum, so without overflow.
**
** The kernels run along rows; for another dimension than the last the values are brought into rows and back
** through workspace. A row of nothing but -infinity (everything masked) gives softmax 0 and
** log_softmax -infinity, with gradients 0 and dy, instead of NaN.
*/
#include <math.h>

#include "formula.h"

#define SOFTMAX(op)                                                                                   \
  .name = #op, .family = "softmax", .inputs = {{"x", "at least one dimension"}},                      \
  .attrs = MAREA_ATTRS({"dim", MAREA_DIM, -1, NULL, "the dimension whose elements belong together"}), \
  .flags = MAREA_WIDE, .saves_out = 1, .shape = dim_shape, .forward = op##_forward, .vjp = op##_vjp,  \
  .sample = "local s = g.shape(1, 4) return {g.tensor(s)}, {dim = g.int(1, #s)}"

typedef struct row_job {
  const marea_kernels *k;
  const char *x;
  char *y;
  int dtype;
  size_t size, n; /* of an element; elements of a row */
  int64_t rows, rows_per_block;
  void (*run)(const struct row_job *j, const void *x, void *y);
} row_job;

static marea_status dim_shape (marea_call *c) {
  MAREA_TRY(marea_resolve_dim(c, 0, c->in[0]->rank));
  return marea_shape_same(c);
}

/* ---- rows -------------------------------------------------------------------------------------------- */

static void softmax_row (const row_job *j, const void *x, void *y) {
  const double max = j->k->max(j->n, x);
  const double sum = j->k->exp_sum(j->n, max == -INFINITY ? 0 : max, x, y);
  j->k->scale_normal(j->n, sum == 0 ? 0 : 1 / sum, y, y);
}

static void subtract (const row_job *j, const void *x, double number, void *y) {
  double element; /* room for one of any dtype */
  marea_store(j->dtype, &element, 0, number);
  j->k->sub(j->n, x, 1, &element, 0, y, NULL);
}

/* The two subtractions are not made one: max + log(sum) would lose what is small beside a large maximum. */
static void log_softmax_row (const row_job *j, const void *x, void *y) {
  const double max = j->k->max(j->n, x);
  const double sum = j->k->exp_sum(j->n, max == -INFINITY ? 0 : max, x, NULL);
  subtract(j, x, max == -INFINITY ? 0 : max, y);
  if (sum != 0) subtract(j, y, log(sum), y);
}

static void run_block (void *arg, int64_t block, int worker) {
  (void)worker;
  const row_job *j = arg;
  const int64_t end = MAREA_MIN((block + 1) * j->rows_per_block, j->rows);
  for (int64_t row = block * j->rows_per_block; row < end; row++) {
    const size_t at = (size_t)row * j->n * j->size;
    j->run(j, j->x + at, j->y + at);
  }
}

/* t with its dimension `dim` last; owns nothing. */
static marea_tensor dim_last (const marea_tensor *t, int dim) {
  marea_tensor order = *t;
  for (int d = dim; d + 1 < t->rank; d++) {
    order.shape[d] = t->shape[d + 1];
    order.stride[d] = t->stride[d + 1];
  }
  order.shape[t->rank - 1] = t->shape[dim];
  order.stride[t->rank - 1] = t->stride[dim];
  return order;
}

static marea_status run_rows (marea_call *c, void (*run)(const row_job *j, const void *x, void *y)) {
  const marea_tensor *x = c->in[0];
  marea_tensor *y = c->out[0];
  const int dim = (int)c->attr[0].i;
  const int64_t n = marea_count(x->rank, x->shape);
  row_job j = {.k = c->ctx->kernels[x->dtype],
               .x = marea_at(x),
               .y = marea_at(y),
               .run = run,
               .dtype = x->dtype,
               .size = marea_dtype_size((marea_dtype)x->dtype),
               .n = (size_t)x->shape[dim]};
  if (n == 0) return MAREA_OK;
  j.rows = n / x->shape[dim];
  j.rows_per_block = MAREA_MAX(1, MAREA_BLOCK / x->shape[dim]);
  marea_tensor from = dim_last(x, dim), to = dim_last(y, dim), rows = from;
  marea_storage memory = {.ctx = c->ctx};
  const bool moved = !marea_is_contiguous(from.rank, from.shape, from.stride);
  if (moved) {
    MAREA_WORKSPACE_OR_RETURN(c, memory.data, (size_t)n * j.size);
    rows.storage = &memory;
    rows.offset = 0;
    marea_row_major(rows.rank, rows.shape, rows.stride);
    marea_copy_strided(c->ctx, &from, &rows);
    j.x = j.y = memory.data;
  }
  marea_parallel(c->ctx, (j.rows + j.rows_per_block - 1) / j.rows_per_block, run_block, &j);
  if (moved) marea_copy_strided(c->ctx, &rows, &to);
  return MAREA_OK;
}

/* ---- operators --------------------------------------------------------------------------------------- */

static marea_tensor *sum_along (formula *f, marea_tensor *t) {
  return sum_dims(f, t, marea_attr_list(1, &f->v->attr[0].i), true);
}

static marea_status softmax_forward (marea_call *c) { return run_rows(c, softmax_row); }

static marea_status softmax_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *share = mul(&f, v->dout[0], v->out[0]);
  give(&f, 0, sub(&f, share, mul(&f, v->out[0], sum_along(&f, share))));
  return finish(&f);
}

const marea_op marea_op_softmax = {
    SOFTMAX(softmax),
    .doc = "softmax(x, dim) = exp(x) / sum exp(x) along dim. Shape of x; 0 where all elements along dim are "
           "-infinity. Gradient: dx = y (dy - sum(dy y)). Error: dim out of range.",
};

static marea_status log_softmax_forward (marea_call *c) { return run_rows(c, log_softmax_row); }

static marea_status log_softmax_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *y = unary(&f, &marea_op_exp, v->out[0]);
  give(&f, 0, sub(&f, v->dout[0], mul(&f, y, sum_along(&f, v->dout[0]))));
  return finish(&f);
}

const marea_op marea_op_log_softmax = {
    SOFTMAX(log_softmax),
    .doc = "log_softmax(x, dim) = x - log(sum exp(x)) along dim. Shape of x; -infinity where all elements "
           "along dim are. Gradient: dx = dy - exp(y) sum(dy). Error: dim out of range.",
};
