/* SPDX-License-Identifier: MIT
** reduce.c: operators that reduce dimensions: sums, moments, extremes, and the running sum. The work is in
** reduce_loops.c.
**
** `dims` lists the dimensions to reduce (none given: all); with `keepdim` they stay with size 1, so that the
** result broadcasts with x. Sums are accumulated in double, in an order that depends on the shape alone.
*/
#include <math.h>

#include "reduce.h"

#define COLUMNS 512 /* of a unit of work in running sums and argmax: 4 KB of sums in double */

/* Shape rule of operators that need at least one element to reduce. */
static marea_status some_shape (marea_call *c) {
  MAREA_TRY(dims_shape(c));
  if (reduced_count(c->in[0], &c->attr[0]) > 0) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE,
                      "%s has no element in the dimensions to reduce; sum and prod are defined then",
                      marea_tensor_text(c->in[0]).s);
}

/* ---- sum, mean, sum_to ------------------------------------------------------------------------------- */

static marea_status sum_shape (marea_call *c) {
  MAREA_TRY(dims_shape(c));
  if (!marea_is_float(c->in[0]->dtype)) c->layout[0].dtype = MAREA_I64;
  return MAREA_OK;
}

static marea_status sum_reduction (marea_call *c, const marea_reduction *f) {
  marea_tensor *y = c->out[0];
  if (marea_is_float(f->dtype)) return marea_reduce(c, f, MAREA_REDUCE_SUM, NULL, 1, y->dtype, marea_at(y));
  marea_reduce_ints(c->ctx, f, MAREA_REDUCE_SUM, y->dtype, marea_at(y));
  return MAREA_OK;
}

static marea_status sum_forward (marea_call *c) {
  marea_reduction f;
  MAREA_TRY(reduction_of(c, &f));
  return sum_reduction(c, &f);
}

static marea_status sum_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, expand_like(&f, kept(&f, v->dout[0]), v->in[0]));
  return finish(&f);
}

const marea_op marea_op_sum = {
    REDUCTION(sum),
    OVER_DIMS,
    .flags = MAREA_WIDE,
    .dtypes = MAREA_ANY,
    .shape = sum_shape,
    .vjp = sum_vjp,
    .sample = "local s = g.shape(0, 4) " SOME_DIMS "return {g.tensor(s)}, {dims = some, keepdim = g.bool()}",
    .doc = "sum(x, dims, keepdim): the sum over dims; 0 of no elements. i64 for integers, which wrap around. "
           "Gradient: dy repeated to x's shape. Errors: a dimension out of range or listed twice.",
};

static marea_status mean_shape (marea_call *c) {
  MAREA_TRY(some_shape(c));
  if (!marea_is_float(c->in[0]->dtype)) c->layout[0].dtype = MAREA_F32;
  return MAREA_OK;
}

static marea_status mean_forward (marea_call *c) {
  marea_reduction f;
  MAREA_TRY(reduction_of(c, &f));
  marea_tensor *y = c->out[0];
  const double n = (double)reduced_count(c->in[0], &c->attr[0]);
  if (marea_is_float(f.dtype)) return marea_reduce(c, &f, MAREA_REDUCE_SUM, NULL, n, y->dtype, marea_at(y));
  float *mean = marea_at(y);
  int64_t *sum;
  MAREA_WORKSPACE_OR_RETURN(c, sum, (size_t)(f.outer * f.inner) * sizeof *sum);
  marea_reduce_ints(c->ctx, &f, MAREA_REDUCE_SUM, MAREA_I64, sum);
  for (int64_t i = 0; i < f.outer * f.inner; i++) mean[i] = (float)((double)sum[i] / n);
  return MAREA_OK;
}

static marea_status mean_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *share = times(&f, v->dout[0], 1 / (double)reduced_count(v->in[0], &v->attr[0]));
  give(&f, 0, expand_like(&f, kept(&f, share), v->in[0]));
  return finish(&f);
}

const marea_op marea_op_mean = {
    REDUCTION(mean),
    OVER_DIMS,
    .flags = MAREA_WIDE,
    .dtypes = MAREA_ANY,
    .shape = mean_shape,
    .vjp = mean_vjp,
    .sample = SAMPLE_OF("g.tensor(s)"),
    .doc = "mean(x, dims, keepdim): the mean over dims, n elements each; f32 for integers. Gradient: dy / n "
           "repeated to x's shape. Errors: no elements to reduce; a dimension out of range or listed twice.",
};

/* The dimensions in which x is wider than the target shape, aligned at the last dimension. */
static void widened (const marea_tensor *x, const marea_attr *shape, bool *set) {
  const int missing = x->rank - shape->n;
  for (int d = 0; d < x->rank; d++) set[d] = d < missing || shape->v[d - missing] != x->shape[d];
}

static marea_status sum_to_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  const marea_attr *shape = &c->attr[0];
  bool fits = shape->n <= x->rank;
  for (int back = 1; fits && back <= shape->n; back++) {
    const int64_t size = shape->v[shape->n - back];
    fits = size == 1 || size == x->shape[x->rank - back];
  }
  if (!fits)
    return marea_reject(c, MAREA_ESHAPE, "shape %s does not broadcast to x's shape %s",
                        marea_shape_text(shape->n, shape->v).s, marea_shape_text(x->rank, x->shape).s);
  marea_layout_set(&c->layout[0], marea_is_float(x->dtype) ? x->dtype : MAREA_I64, shape->n, shape->v);
  return MAREA_OK;
}

static marea_status sum_to_forward (marea_call *c) {
  bool set[MAREA_MAX_RANK];
  marea_reduction f;
  widened(c->in[0], &c->attr[0], set);
  MAREA_TRY(marea_reduce_over(c, c->in[0], set, &f));
  return sum_reduction(c, &f);
}

static marea_status sum_to_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, expand_like(&f, v->dout[0], v->in[0]));
  return finish(&f);
}

const marea_op marea_op_sum_to = {
    REDUCTION(sum_to),
    .attrs = MAREA_ATTRS({"shape", MAREA_SIZES, MAREA_REQUIRED, NULL, "a shape that broadcasts to x's"}),
    .flags = MAREA_WIDE,
    .dtypes = MAREA_ANY,
    .shape = sum_to_shape,
    .vjp = sum_to_vjp,
    .sample = "local s = g.shape(0, 4) return {g.tensor(s)}, {shape = g.broadcast(s)}",
    .doc = "sum_to(x, shape): x summed over what broadcasting `shape` to x's shape would repeat; the reverse "
           "of expand. i64 for integers, which wrap around. Gradient: dy expanded to x's shape. Error: the "
           "shape does not broadcast to x's.",
};

/* ---- var, std ---------------------------------------------------------------------------------------- */

static marea_status var_shape (marea_call *c) {
  MAREA_TRY(some_shape(c));
  const int64_t n = reduced_count(c->in[0], &c->attr[0]), correction = c->attr[2].i;
  if (correction >= 0 && n > correction) return MAREA_OK;
  return marea_reject(c, MAREA_EARG,
                      "argument 'correction': expected 0..%lld for %lld elements to reduce, got %lld",
                      (long long)(n - 1), (long long)n, (long long)correction);
}

/* Below it squares of single differences come near the smallest normal number and lose digits. */
static double least_variance (int dtype) {
#define LEAST_float 1e-30
#define LEAST_double 1e-290
#define LEAST(type) least = LEAST_##type
  double least = 0;
  MAREA_SWITCH_FLOAT(dtype, LEAST);
  return least;
}

/* Two passes: the mean, then the squared distances from it. Where squares overflow or vanish, marea_reduce_moments
   scales them. */
static marea_status spread_forward (marea_call *c, bool root) {
  marea_reduction f;
  double *mean, *variance;
  MAREA_TRY(reduction_of(c, &f));
  const int64_t n = f.outer * f.inner;
  const double divisor = (double)(f.count - c->attr[2].i);
  MAREA_WORKSPACE_OR_RETURN(c, mean, (size_t)n * sizeof *mean);
  MAREA_WORKSPACE_OR_RETURN(c, variance, (size_t)n * sizeof *variance);
  MAREA_TRY(marea_reduce(c, &f, MAREA_REDUCE_SUM, NULL, (double)f.count, MAREA_F64, mean));
  MAREA_TRY(marea_reduce(c, &f, MAREA_REDUCE_SQUARES, mean, divisor, MAREA_F64, variance));
  for (int64_t i = 0; i < n && !MAREA_STOPPING(c->ctx, i); i++) {
    const bool plain = variance[i] >= least_variance(f.dtype) && variance[i] < INFINITY;
    const double std = plain ? sqrt(variance[i]) : marea_reduce_moments(&f, i, divisor).std;
    const double value = root ? std : plain ? variance[i] : std * std;
    marea_store(f.dtype, marea_at(c->out[0]), i, value);
  }
  return MAREA_OK;
}

static marea_status var_forward (marea_call *c) { return spread_forward(c, false); }

static marea_status std_forward (marea_call *c) { return spread_forward(c, true); }

/* t (x - mean) / (n - correction), where t has the reduced shape */
static marea_tensor *times_distance (formula *f, marea_tensor *t) {
  const marea_vjp *v = f->v;
  const marea_attr attrs[] = {v->attr[0], marea_attr_int(1)};
  const double n = (double)(reduced_count(v->in[0], &v->attr[0]) - v->attr[2].i);
  marea_tensor *mean = step(f, &marea_op_mean, attrs, 1, v->in[0], NULL, NULL);
  return mul(f, sub(f, v->in[0], mean), kept(f, times(f, t, 1 / n)));
}

static marea_status var_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, times_distance(&f, times(&f, v->dout[0], 2)));
  return finish(&f);
}

#define MOMENT_ATTRS                            \
  .attrs = MAREA_ATTRS(DIMS_ATTR, KEEPDIM_ATTR, \
                       {"correction", MAREA_INT, 1, NULL, "c in the divisor n - c: 1 unbiased, 0 mean"})
#define MOMENT_SAMPLE                     \
  "local s = g.shape(1, 4, 2) " SOME_DIMS \
  "return {g.tensor(s)}, {dims = some, keepdim = g.bool(), correction = g.int(0, 1)}"

const marea_op marea_op_var = {
    REDUCTION(var),
    MOMENT_ATTRS,
    .flags = MAREA_WIDE,
    .saves_in = 1,
    .shape = var_shape,
    .vjp = var_vjp,
    .sample = MOMENT_SAMPLE,
    .doc = "var(x, dims, keepdim, correction) = sum (x - mean)^2 / (n - correction) over dims, n elements "
           "each, in two passes. Gradient: dx = 2 dy (x - mean) / (n - correction). Errors: n <= correction; "
           "a dimension out of range or listed twice.",
};

/* 0 where y = 0: all elements are equal, and the root has no derivative */
static marea_status std_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *y = v->out[0], *spread = with_number(&f, &marea_op_ne, y, 0);
  marea_tensor *divisor = f.status == MAREA_OK ? where(&f, spread, y, constant(&f, y, 1)) : NULL;
  marea_tensor *rate = keep_where(&f, spread, divide(&f, v->dout[0], divisor));
  give(&f, 0, times_distance(&f, rate));
  return finish(&f);
}

const marea_op marea_op_std = {
    REDUCTION(std),
    MOMENT_ATTRS,
    .flags = MAREA_WIDE,
    .saves_in = 1,
    .saves_out = 1,
    .shape = var_shape,
    .vjp = std_vjp,
    .sample = MOMENT_SAMPLE,
    .doc =
        "std(x, dims, keepdim, correction) = sqrt(var(x, ...)), also where var overflows or underflows. "
        "Gradient: dx = dy (x - mean) / ((n - "
        "correction) y), 0 where y = 0. Errors: n <= correction; a dimension out of range or listed twice.",
};

/* ---- max, min ---------------------------------------------------------------------------------------- */

static marea_status extreme_forward (marea_call *c, marea_reduce_kind kind) {
  marea_reduction f;
  MAREA_TRY(reduction_of(c, &f));
  if (marea_is_float(f.dtype)) return marea_reduce(c, &f, kind, NULL, 1, f.dtype, marea_at(c->out[0]));
  marea_reduce_ints(c->ctx, &f, kind, f.dtype, marea_at(c->out[0]));
  return MAREA_OK;
}

static marea_status max_forward (marea_call *c) { return extreme_forward(c, MAREA_REDUCE_MAX); }

static marea_status min_forward (marea_call *c) { return extreme_forward(c, MAREA_REDUCE_MIN); }

/* dx: dy in equal parts for the elements that equal y, 0 for the others. */
static marea_status extreme_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *winners = binary(&f, &marea_op_eq, v->in[0], kept(&f, v->out[0]));
  marea_tensor *count = sum_dims(&f, winners, v->attr[0], true);
  give(&f, 0, keep_where(&f, winners, divide(&f, kept(&f, v->dout[0]), count)));
  return finish(&f);
}

const marea_op marea_op_max = {
    REDUCTION(max),
    OVER_DIMS,
    .dtypes = MAREA_ANY,
    .saves_in = 1,
    .saves_out = 1,
    .shape = some_shape,
    .vjp = extreme_vjp,
    .sample = SAMPLE_OF("g.distinct(s)"),
    .doc =
        "max(x, dims, keepdim): the greatest element over dims; NaN if there is one. Every dtype. "
        "Gradient: dy to the greatest, in equal parts at a tie. Errors: no elements to reduce; a dimension "
        "out of range or listed twice.",
};

const marea_op marea_op_min = {
    REDUCTION(min),
    OVER_DIMS,
    .dtypes = MAREA_ANY,
    .saves_in = 1,
    .saves_out = 1,
    .shape = some_shape,
    .vjp = extreme_vjp,
    .sample = SAMPLE_OF("g.distinct(s)"),
    .doc =
        "min(x, dims, keepdim): the smallest element over dims; NaN if there is one. Every dtype. "
        "Gradient: dy to the smallest, in equal parts at a tie. Errors: no elements to reduce; a dimension "
        "out of range or listed twice.",
};

/* ---- logsumexp --------------------------------------------------------------------------------------- */

/* m + log(sum exp(x - m)), m the maximum; 0 in place of an infinite m, so that infinities come out by
   themselves */
static marea_status logsumexp_forward (marea_call *c) {
  marea_reduction f;
  marea_tensor *y = c->out[0];
  double *m, *sum;
  MAREA_TRY(reduction_of(c, &f));
  const int64_t n = f.outer * f.inner;
  MAREA_WORKSPACE_OR_RETURN(c, m, (size_t)n * sizeof *m);
  MAREA_WORKSPACE_OR_RETURN(c, sum, (size_t)n * sizeof *sum);
  MAREA_TRY(marea_reduce(c, &f, MAREA_REDUCE_MAX, NULL, 1, MAREA_F64, m));
  for (int64_t i = 0; i < n; i++)
    if (isinf(m[i])) m[i] = 0;
  MAREA_TRY(marea_reduce(c, &f, MAREA_REDUCE_EXPS, m, 1, MAREA_F64, sum));
  for (int64_t i = 0; i < n; i++) { marea_store(y->dtype, marea_at(y), i, m[i] + log(sum[i])); }
  return MAREA_OK;
}

/* dx = dy softmax(x), that is exp(x - y) over its sum: y alone would not do, since beside large numbers log(n) is
   lost in it. Where all are -infinity, so is y; 0 in its place makes the gradient 0. */
static marea_status logsumexp_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *y = kept(&f, v->out[0]), *some = with_number(&f, &marea_op_ne, y, -INFINITY);
  marea_tensor *share = unary(&f, &marea_op_exp, sub(&f, v->in[0], keep_where(&f, some, y)));
  marea_tensor *sum = sum_dims(&f, share, v->attr[0], true);
  marea_tensor *rate = divide(&f, kept(&f, v->dout[0]), where(&f, some, sum, constant(&f, v->in[0], 1)));
  give(&f, 0, mul(&f, share, rate));
  return finish(&f);
}

const marea_op marea_op_logsumexp = {
    REDUCTION(logsumexp),
    OVER_DIMS,
    .flags = MAREA_WIDE,
    .saves_in = 1,
    .saves_out = 1,
    .shape = some_shape,
    .vjp = logsumexp_vjp,
    .sample = SAMPLE_OF("g.tensor(s)"),
    .doc =
        "logsumexp(x, dims, keepdim) = log(sum exp(x)) over dims, by way of the maximum, so without "
        "overflow; -infinity where all elements are. Gradient: dx = dy softmax(x), 0 where all elements are "
        "-infinity, NaN where one is infinity. Errors: no elements to "
        "reduce; a dimension out of range or listed twice.",
};

/* ---- along one dimension: argmax, argmin, cumsum ------------------------------------------------------ */

/* x as (outer, count, inner); a unit of work is up to COLUMNS of inner, for one outer. */
typedef struct line_job {
  marea_context *ctx;
  marea_reduction f;
  void *out;
  int64_t base, tiles;
  bool flag; /* argmin; running sum from the end */
} line_job;

static void lines_of (const marea_call *c, int dim, line_job *j) {
  const marea_tensor *x = c->in[0];
  j->ctx = c->ctx;
  j->f = (marea_reduction){
      .x = marea_at(x), .dtype = x->dtype, .outer = 1, .count = x->shape[dim], .inner = 1};
  for (int d = 0; d < dim; d++) j->f.outer *= x->shape[d];
  for (int d = dim + 1; d < x->rank; d++) j->f.inner *= x->shape[d];
  j->out = marea_at(c->out[0]);
  j->base = c->ctx->config.index_base;
  j->tiles = (j->f.inner + COLUMNS - 1) / COLUMNS;
}

static void run_lines (marea_call *c, line_job *j, marea_block_fn run) {
  marea_parallel_if(c->ctx, marea_tensor_size(c->in[0]), j->f.outer * j->tiles, run, j);
}

/* Position of the first greatest or smallest of n elements `step` apart; of the first NaN if there is one. */
#define FIND(type)                                                                            \
  {                                                                                           \
    const type *p = (const type *)x + start;                                                  \
    type best = p[0];                                                                         \
    for (int64_t r = 1; r < n && best == best && !marea_stopping(ctx);) {                     \
      for (const int64_t end = MAREA_MIN(r + MAREA_BLOCK, n); r < end && best == best; r++) { \
        const type value = p[r * step];                                                       \
        if (value != value || (smallest ? value < best : value > best)) best = value, at = r; \
      }                                                                                       \
    }                                                                                         \
  }

static int64_t find_extreme (marea_context *ctx, int dtype, const void *x, int64_t start, int64_t n,
                             int64_t step, bool smallest) {
  int64_t at = 0;
  MAREA_SWITCH_DTYPE(dtype, FIND);
  return at;
}

static void find_block (void *arg, int64_t block, int worker) {
  (void)worker;
  const line_job *j = arg;
  const int64_t o = block / j->tiles, first = block % j->tiles * COLUMNS, inner = j->f.inner;
  int64_t *out = (int64_t *)j->out + o * inner;
  for (int64_t i = first; i < MAREA_MIN(first + COLUMNS, inner); i++)
    out[i] = j->base +
             find_extreme(j->ctx, j->f.dtype, j->f.x, o * j->f.count * inner + i, j->f.count, inner, j->flag);
}

static marea_status arg_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  bool set[MAREA_MAX_RANK] = {false};
  MAREA_TRY(marea_resolve_dim(c, 0, x->rank));
  set[c->attr[0].i] = true;
  reduced_layout(&c->layout[0], x, set, c->attr[1].i);
  c->layout[0].dtype = MAREA_I64;
  if (x->shape[c->attr[0].i] > 0) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE, "%s has no element to find along dimension %lld",
                      marea_tensor_text(x).s, (long long)c->attr[0].i + c->ctx->config.index_base);
}

static marea_status argmax_forward (marea_call *c) {
  line_job j = {.flag = false};
  lines_of(c, (int)c->attr[0].i, &j);
  run_lines(c, &j, find_block);
  return MAREA_OK;
}

static marea_status argmin_forward (marea_call *c) {
  line_job j = {.flag = true};
  lines_of(c, (int)c->attr[0].i, &j);
  run_lines(c, &j, find_block);
  return MAREA_OK;
}

#define ARG_ATTRS \
  .attrs = MAREA_ATTRS({"dim", MAREA_DIM, MAREA_REQUIRED, NULL, "the dimension to reduce"}, KEEPDIM_ATTR)
#define ARG_SAMPLE \
  "local s = g.shape(1, 4, 1) return {g.distinct(s)}, {dim = g.int(1, #s), keepdim = g.bool()}"

const marea_op marea_op_argmax = {
    REDUCTION(argmax),
    ARG_ATTRS,
    .flags = MAREA_NO_GRAD,
    .dtypes = MAREA_ANY,
    .shape = arg_shape,
    .sample = ARG_SAMPLE,
    .doc = "argmax(x, dim, keepdim): position of the greatest element along dim, the first one at a tie, the "
           "first NaN if there is one; i64. The result is a constant for gradients. Errors: dim out of range "
           "or of size 0.",
};

const marea_op marea_op_argmin = {
    REDUCTION(argmin),
    ARG_ATTRS,
    .flags = MAREA_NO_GRAD,
    .dtypes = MAREA_ANY,
    .shape = arg_shape,
    .sample = ARG_SAMPLE,
    .doc = "argmin(x, dim, keepdim): position of the smallest element along dim, the first one at a tie, the "
           "first NaN if there is one; i64. The result is a constant for gradients. Errors: dim out of range "
           "or of size 0.",
};

static marea_status cumsum_shape (marea_call *c) {
  MAREA_TRY(marea_resolve_dim(c, 0, c->in[0]->rank));
  marea_layout_like(&c->layout[0], c->in[0]);
  if (!marea_is_float(c->in[0]->dtype)) c->layout[0].dtype = MAREA_I64;
  return MAREA_OK;
}

/* Running sums by the type of the elements: what they are added up in, and what the result holds. */
typedef double total_float, total_double;
typedef uint64_t total_int64_t, total_uint8_t;
typedef float result_float;
typedef double result_double;
typedef int64_t result_int64_t, result_uint8_t;

/* Running sums of w columns, row by row. */
#define ADD_UP(type)                                                         \
  {                                                                          \
    total_##type sum[COLUMNS] = {0};                                         \
    const type *x = (const type *)j->f.x + start;                            \
    result_##type *y = (result_##type *)j->out + start;                      \
    for (int64_t r = 0; r < j->f.count && !MAREA_STOPPING(j->ctx, r); r++) { \
      const int64_t row = (j->flag ? j->f.count - 1 - r : r) * inner;        \
      for (int64_t i = 0; i < w; i++) {                                      \
        sum[i] += (total_##type)x[row + i];                                  \
        y[row + i] = (result_##type)sum[i];                                  \
      }                                                                      \
    }                                                                        \
  }

static void cumsum_block (void *arg, int64_t block, int worker) {
  (void)worker;
  const line_job *j = arg;
  const int64_t inner = j->f.inner, first = block % j->tiles * COLUMNS, w = MAREA_MIN(COLUMNS, inner - first);
  const int64_t start = block / j->tiles * j->f.count * inner + first;
  MAREA_SWITCH_DTYPE(j->f.dtype, ADD_UP);
}

static marea_status cumsum_forward (marea_call *c) {
  line_job j = {.flag = c->attr[1].i};
  lines_of(c, (int)c->attr[0].i, &j);
  run_lines(c, &j, cumsum_block);
  return MAREA_OK;
}

static marea_status cumsum_vjp (marea_vjp *v) {
  formula f = {.v = v};
  const marea_attr attrs[] = {v->attr[0], marea_attr_int(!v->attr[1].i)};
  give(&f, 0, step(&f, &marea_op_cumsum, attrs, 1, v->dout[0], NULL, NULL));
  return finish(&f);
}

const marea_op marea_op_cumsum = {
    REDUCTION(cumsum),
    .attrs = MAREA_ATTRS({"dim", MAREA_DIM, MAREA_REQUIRED, NULL, "the dimension to run along"},
                         {"reverse", MAREA_BOOL, 0, NULL, "run from the last element to the first"}),
    .flags = MAREA_WIDE,
    .dtypes = MAREA_ANY,
    .shape = cumsum_shape,
    .vjp = cumsum_vjp,
    .sample = "local s = g.shape(1, 4) return {g.tensor(s)}, {dim = g.int(1, #s), reverse = g.bool()}",
    .doc = "cumsum(x, dim, reverse): running sums along dim, y[i] = x[1] + ... + x[i]; in reverse y[i] = "
           "x[i] + ... + x[n]. Shape of x; i64 for integers, which wrap around. Gradient: dx = cumsum(dy) in "
           "the other direction. Error: dim out of range.",
};
