/* SPDX-License-Identifier: MIT
** prod.c: reductions whose gradients need care where elements are 0: products and norms.
*/
#include <math.h>

#include "reduce.h"

/* ---- prod -------------------------------------------------------------------------------------------- */

static marea_status prod_shape (marea_call *c) {
  MAREA_TRY(dims_shape(c));
  if (!marea_is_float(c->in[0]->dtype)) c->layout[0].dtype = MAREA_I64;
  return MAREA_OK;
}

static marea_status prod_forward (marea_call *c) {
  marea_reduction f;
  MAREA_TRY(reduction_of(c, &f));
  marea_tensor *y = c->out[0];
  if (marea_is_float(f.dtype))
    return marea_reduce(c, &f, MAREA_REDUCE_PRODUCT, NULL, 1, y->dtype, marea_at(y));
  marea_reduce_ints(c->ctx, &f, MAREA_REDUCE_PRODUCT, y->dtype, marea_at(y));
  return MAREA_OK;
}

/* *out := the product of the other elements of each row of x (rows, n), for each element. A tree: a pair of elements is
   multiplied by what is beside it and by each other, so nothing is divided by and zeros need no case. */
static marea_status product_of_others (marea_tensor *x, marea_tensor **out) {
  MAREA_OWN left = NULL;
  MAREA_OWN right = NULL;
  MAREA_OWN padded = NULL;
  MAREA_OWN pairs = NULL;
  MAREA_OWN beside = NULL;
  MAREA_OWN for_left = NULL;
  MAREA_OWN for_right = NULL;
  MAREA_OWN both = NULL;
  const int64_t n = x->shape[1], half = (n + 1) / 2;
  if (n < 2) {
    const marea_attr ones[] = {marea_attr_list(2, x->shape), marea_attr_real(1), marea_attr_int(x->dtype)};
    return marea_run_with(x->ctx, &marea_op_full, ones, out, 0);
  }
  MAREA_TRY(marea_narrow_to(x, 1, 0, half, &left));
  MAREA_TRY(marea_narrow_to(x, 1, half, n - half, &right));
  const marea_attr pad[] = {marea_attr_list(4, (int64_t[]){0, 0, 0, 2 * half - n}), marea_attr_real(1)};
  MAREA_TRY(marea_run_with(x->ctx, &marea_op_pad, pad, &padded, 1, right));
  MAREA_TRY(marea_run(x->ctx, &marea_op_mul, &pairs, 2, left, padded));
  MAREA_TRY(product_of_others(pairs, &beside));
  MAREA_TRY(marea_run(x->ctx, &marea_op_mul, &for_left, 2, beside, padded));
  MAREA_TRY(marea_run(x->ctx, &marea_op_mul, &for_right, 2, beside, left));
  const marea_attr dim = marea_attr_int(1);
  MAREA_TRY(marea_run_with(x->ctx, &marea_op_concat, &dim, &both, 2, for_left, for_right));
  return marea_narrow_to(both, 1, 0, n, out);
}

/* order[] := dimensions with those of `dims` last, back[] := the order that undoes it */
static void reduced_last (int rank, const marea_attr *dims, marea_attr *order, marea_attr *back) {
  bool set[MAREA_MAX_RANK];
  set_of(dims, rank, set);
  order->n = back->n = 0;
  for (int last = 0; last < 2; last++)
    for (int d = 0; d < rank; d++)
      if (set[d] == (last == 1)) order->v[order->n++] = d;
  for (back->n = 0; back->n < rank; back->n++) back->v[order->v[back->n]] = back->n;
}

/* x := the other elements' product in the place of each element */
static marea_tensor *others_like (formula *f, marea_tensor *x, const marea_attr *dims) {
  marea_attr order, back;
  int64_t shape[MAREA_MAX_RANK];
  marea_tensor *out = NULL;
  reduced_last(x->rank, dims, &order, &back);
  for (int d = 0; d < x->rank; d++) shape[d] = x->shape[order.v[d]];
  const int64_t n = reduced_count(x, dims);
  const marea_attr rows = marea_attr_list(2, (int64_t[]){marea_count(x->rank - dims->n, shape), n});
  const marea_attr whole = marea_attr_list(x->rank, shape);
  marea_tensor *flat = step(f, &marea_op_permute, &order, 1, x, NULL, NULL);
  flat = step(f, &marea_op_reshape, &rows, 1, flat, NULL, NULL);
  if (!goes_on(f)) return NULL;
  f->status = product_of_others(flat, &out);
  marea_tensor *t = step(f, &marea_op_reshape, &whole, 1, own(f, out), NULL, NULL);
  return step(f, &marea_op_permute, &back, 1, t, NULL, NULL);
}

static marea_status prod_vjp (marea_vjp *v) {
  formula f = {.v = v};
  give(&f, 0, mul(&f, others_like(&f, v->in[0], &v->attr[0]), kept(&f, v->dout[0])));
  return finish(&f);
}

const marea_op marea_op_prod = {
    REDUCTION(prod),
    OVER_DIMS,
    .flags = MAREA_WIDE,
    .dtypes = MAREA_ANY,
    .saves_in = 1,
    .shape = prod_shape,
    .vjp = prod_vjp,
    .sample = "local s = g.shape(0, 4, 0, 3) " SOME_DIMS
              "return {g.tensor(s, {lo = -1.5, hi = 1.5})}, {dims = some, keepdim = g.bool()}",
    .doc = "prod(x, dims, keepdim): the product over dims; 1 of no elements. Multiplied in double. i64 for "
           "integers, which wrap around. Gradient: dx = dy times the product of the other elements, which is "
           "right at zeros as well, also for gradients of gradients. Errors: a dimension out of range or "
           "listed twice.",
};

/* ---- norm -------------------------------------------------------------------------------------------- */

enum { NORM_P, NORM_DIMS }; /* ORDER of its attributes */

static marea_status norm_shape (marea_call *c) {
  const double p = c->attr[NORM_P].f;
  if (!(p > 0))
    return marea_reject(c, MAREA_EARG,
                        "argument 'p': expected a number above 0 (infinity: the largest |x|), got %g", p);
  return dims_shape_at(c, NORM_DIMS);
}

/* m (sum |x / m|^p)^(1/p), m the largest |x|, so that powers neither overflow nor vanish */
static marea_status norm_forward (marea_call *c) {
  const double p = c->attr[NORM_P].f;
  marea_tensor *y = c->out[0];
  marea_reduction f;
  double *m, *scale, *sum;
  MAREA_TRY(reduction_at(c, NORM_DIMS, &f));
  const int64_t n = f.outer * f.inner;
  if (p == INFINITY) return marea_reduce(c, &f, MAREA_REDUCE_LARGEST, NULL, 1, f.dtype, marea_at(y));
  MAREA_WORKSPACE_OR_RETURN(c, m, (size_t)n * sizeof *m);
  MAREA_WORKSPACE_OR_RETURN(c, scale, (size_t)n * sizeof *scale);
  MAREA_WORKSPACE_OR_RETURN(c, sum, (size_t)n * sizeof *sum);
  MAREA_TRY(marea_reduce(c, &f, MAREA_REDUCE_LARGEST, NULL, 1, MAREA_F64, m));
  for (int64_t i = 0; i < n; i++) scale[i] = m[i] > 0 && m[i] < INFINITY ? m[i] : 1;
  f.power = p;
  MAREA_TRY(marea_reduce(c, &f, MAREA_REDUCE_POWERS, scale, 1, MAREA_F64, sum));
  for (int64_t i = 0; i < n && !MAREA_STOPPING(c->ctx, i); i++)
    marea_store(y->dtype, marea_at(y), i,
                m[i] < INFINITY ? scale[i] * (p == 2 ? sqrt(sum[i]) : pow(sum[i], 1 / p)) : m[i]);
  return MAREA_OK;
}

/* dy sign(x) in equal parts to those that have the largest |x| */
static marea_tensor *largest_grad (formula *f, marea_tensor *x, marea_tensor *y, marea_tensor *dy) {
  marea_tensor *winners = binary(f, &marea_op_eq, unary(f, &marea_op_abs, x), y);
  marea_tensor *count = sum_dims(f, winners, f->v->attr[NORM_DIMS], true);
  return keep_where(f, winners, mul(f, unary(f, &marea_op_sign, x), divide(f, dy, count)));
}

/* y, but 1 where it is 0: gradients of gradients divide by it, too */
static marea_tensor *divisor (formula *f, marea_tensor *y) {
  marea_tensor *some = with_number(f, &marea_op_ne, y, 0);
  return f->status == MAREA_OK ? where(f, some, y, constant(f, y, 1)) : NULL;
}

/* dy sign(x) (|x| / y)^(p - 1), 0 where x = 0 */
static marea_tensor *power_grad (formula *f, marea_tensor *x, marea_tensor *y, marea_tensor *dy, double p) {
  if (p == 1) return mul(f, dy, unary(f, &marea_op_sign, x));
  marea_tensor *some = with_number(f, &marea_op_ne, x, 0);
  if (f->status != MAREA_OK) return NULL;
  marea_tensor *ratio = where(f, some, divide(f, unary(f, &marea_op_abs, x), divisor(f, y)),
                              constant(f, x, 1));
  marea_tensor *slope = with_number(f, &marea_op_pow, ratio, p - 1);
  return keep_where(f, some, mul(f, dy, mul(f, unary(f, &marea_op_sign, x), slope)));
}

/* dy x / y, 0 where y = 0 */
static marea_tensor *euclidean_grad (formula *f, marea_tensor *x, marea_tensor *y, marea_tensor *dy) {
  marea_tensor *some = with_number(f, &marea_op_ne, y, 0);
  return keep_where(f, some, mul(f, dy, divide(f, x, divisor(f, y))));
}

static marea_status norm_vjp (marea_vjp *v) {
  formula f = {.v = v};
  const double p = v->attr[NORM_P].f;
  marea_tensor *x = v->in[0], *y = kept_at(&f, NORM_DIMS, v->out[0]),
               *dy = kept_at(&f, NORM_DIMS, v->dout[0]);
  give(&f, 0,
       p == INFINITY ? largest_grad(&f, x, y, dy)
       : p == 2      ? euclidean_grad(&f, x, y, dy)
                     : power_grad(&f, x, y, dy, p));
  return finish(&f);
}

const marea_op marea_op_norm = {
    REDUCTION(norm),
    .attrs = MAREA_ATTRS({"p", MAREA_REAL, 2, NULL, "above 0; infinity: the largest |x|"}, DIMS_ATTR,
                         KEEPDIM_ATTR),
    .flags = MAREA_WIDE,
    .saves_in = 1,
    .saves_out = 1,
    .shape = norm_shape,
    .vjp = norm_vjp,
    .sample = "local s = g.shape(0, 3, 1) " SOME_DIMS "local p = g.pick{1, 2, 3, 1.5, math.huge} "
              "return {p == math.huge and g.distinct(s) + 0.013 or g.tensor(s, {away = {0}})}, "
              "{p = p, dims = some, keepdim = g.bool()}",
    .doc =
        "norm(x, p, dims, keepdim) = (sum |x|^p)^(1/p) over dims, the largest |x| for p = infinity, 0 of no "
        "elements. By way of the largest |x|, so that nothing overflows or vanishes on the way. Gradient: dx "
        "= dy sign(x) (|x| / y)^(p - 1), 0 where x = 0; for infinity dy sign(x) to the largest |x|, in "
        "equal parts at a tie. Errors: p not above 0; a dimension out of range or listed twice.",
};
