/* SPDX-License-Identifier: MIT
** binary.c: arithmetic and comparisons of two tensors, and `where`, with NumPy's broadcasting: shapes are
** aligned at the last dimension, sizes are equal or 1. A script may give a number for a tensor.
**
** dtypes: the inputs' common one (u8 < i64 < f32 < f64), by apply; a number adapts to the tensors as the bindings
** have it (docs/scripting.md). Integers wrap around, but div and pow of integers give f32. Gradients of what was
** broadcast are summed to the input's shape.
*/
#include "formula.h"

#define BINARY(op)                                                                                          \
  .name = #op, .family = "binary", .inputs = {{"a", "any shape"}, {"b", "a shape that broadcasts with a"}}, \
  .forward = op##_forward
#define ARITHMETIC (MAREA_STRIDED | MAREA_ELEMENTWISE | MAREA_NUMBERS | MAREA_PROMOTES | MAREA_MIXES)
#define TWO_TENSORS "local s = g.shape(0, 4) return {g.tensor(s), g.tensor(g.broadcast(s))}"
#define ERRORS " Error: shapes that do not broadcast."

static const marea_kernels *kernels (const marea_call *c) { return marea_kernels_for(c, 0); }

/* ---- add, sub, mul ----------------------------------------------------------------------------------- */

static marea_status add_forward (marea_call *c) { return marea_map_binary(c, kernels(c)->add, NULL); }

static marea_status add_vjp (marea_vjp *v) {
  formula f = {.v = v};
  for (int i = 0; i < 2; i++)
    if (v->need[i]) give(&f, i, sum_like(&f, v->dout[0], v->in[i]));
  return finish(&f);
}

const marea_op marea_op_add = {
    BINARY(add),
    .flags = ARITHMETIC | MAREA_SINGLE,
    .dtypes = MAREA_ANY,
    .shape = marea_shape_broadcast,
    .vjp = add_vjp,
    .sample = TWO_TENSORS,
    .doc = "add(a, b) = a + b, also a + b. Gradients: da = dy, db = dy." ERRORS,
};

static marea_status sub_forward (marea_call *c) { return marea_map_binary(c, kernels(c)->sub, NULL); }

static marea_status sub_vjp (marea_vjp *v) {
  formula f = {.v = v};
  if (v->need[0]) give(&f, 0, sum_like(&f, v->dout[0], v->in[0]));
  if (v->need[1]) give(&f, 1, unary(&f, &marea_op_neg, sum_like(&f, v->dout[0], v->in[1])));
  return finish(&f);
}

const marea_op marea_op_sub = {
    BINARY(sub),
    .flags = ARITHMETIC | MAREA_SINGLE,
    .dtypes = MAREA_ANY,
    .shape = marea_shape_broadcast,
    .vjp = sub_vjp,
    .sample = TWO_TENSORS,
    .doc = "sub(a, b) = a - b, also a - b. Gradients: da = dy, db = -dy." ERRORS,
};

static marea_status mul_forward (marea_call *c) { return marea_map_binary(c, kernels(c)->mul, NULL); }

static marea_status mul_vjp (marea_vjp *v) {
  formula f = {.v = v};
  for (int i = 0; i < 2; i++)
    if (v->need[i]) give(&f, i, sum_like(&f, mul(&f, v->dout[0], v->in[1 - i]), v->in[i]));
  return finish(&f);
}

const marea_op marea_op_mul = {
    BINARY(mul),
    .flags = ARITHMETIC | MAREA_SINGLE,
    .dtypes = MAREA_ANY,
    .saves_in = 3,
    .shape = marea_shape_broadcast,
    .vjp = mul_vjp,
    .sample = TWO_TENSORS,
    .doc = "mul(a, b) = a b of each pair of elements, also a * b. Gradients: da = dy b, db = dy a." ERRORS,
};

/* ---- div, pow: integers become f32 ------------------------------------------------------------------- */

static marea_status real_shape (marea_call *c) {
  MAREA_TRY(marea_shape_broadcast(c));
  if (!marea_is_float(c->in[0]->dtype)) c->layout[0].dtype = MAREA_F32;
  return MAREA_OK;
}

/* Calls map with in[first..] converted to what `dtype` is computed in; what is stored in fewer bits the map converts. */
static marea_status map_converted (marea_call *c, int first, int dtype, marea_status (*map)(marea_call *c)) {
  marea_tensor *in[3] = {NULL, NULL, NULL}, *made[3] = {NULL, NULL, NULL};
  marea_call converted = *c;
  const int computed = marea_computed_in(dtype);
  marea_status status = MAREA_OK;
  for (int i = 0; i < c->n_in; i++) {
    in[i] = c->in[i];
    if (i < first || marea_computed_in(in[i]->dtype) == computed || status != MAREA_OK) continue;
    marea_layout layout;
    marea_layout_like(&layout, in[i]);
    layout.dtype = (int8_t)computed;
    status = marea_tensor_new(c->ctx, c->op->name, &layout, &made[i]);
    if (status == MAREA_OK) marea_copy_strided(c->ctx, in[i], made[i]);
    in[i] = made[i];
  }
  converted.in = in;
  if (status == MAREA_OK) status = map(&converted);
  for (int i = 0; i < c->n_in; i++) marea_release(made[i]);
  return status;
}

static marea_status map_div (marea_call *c) { return marea_map_binary(c, kernels(c)->div, NULL); }

static marea_status div_forward (marea_call *c) { return map_converted(c, 0, c->layout[0].dtype, map_div); }

static marea_status div_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *b = v->in[1];
  if (!v->need[0] && !v->need[1]) return MAREA_OK;
  marea_tensor *da = divide(&f, v->dout[0], b);
  if (v->need[0]) give(&f, 0, sum_like(&f, da, v->in[0]));
  if (v->need[1]) give(&f, 1, unary(&f, &marea_op_neg, sum_like(&f, mul(&f, da, v->out[0]), b)));
  return finish(&f);
}

const marea_op marea_op_div = {
    BINARY(div),
    .flags = ARITHMETIC | MAREA_REALS,
    .dtypes = MAREA_ANY,
    .saves_in = 2,
    .saves_out = 1,
    .shape = real_shape,
    .vjp = div_vjp,
    .sample = "local s = g.shape(0, 4) return {g.tensor(s), g.tensor(g.broadcast(s), {lo = 0.4, hi = 2})}",
    .doc = "div(a, b) = a / b, also a / b; f32 for integers. Division by 0 gives infinity or NaN. Gradients: "
           "da = dy / b, db = -dy y / b." ERRORS,
};

static marea_status map_pow (marea_call *c) { return marea_map_binary(c, kernels(c)->pow, NULL); }

static marea_status pow_forward (marea_call *c) { return map_converted(c, 0, c->layout[0].dtype, map_pow); }

/* da = dy b a^(b-1), 0 where b = 0 (a^-1 is infinite at a = 0); db = dy y log(a), 0 where a = 0. What is left out
   is neither multiplied by 0 nor computed, so that no gradient of it, first or second, is NaN. */
static marea_status pow_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *a = v->in[0], *b = v->in[1];
  if (v->need[0]) {
    marea_tensor *counts = with_number(&f, &marea_op_ne, b, 0);
    marea_tensor *slope = mul(&f, binary(&f, &marea_op_pow, a, keep_where(&f, counts, plus(&f, b, -1))), b);
    give(&f, 0, sum_like(&f, keep_where(&f, counts, mul(&f, v->dout[0], slope)), a));
  }
  if (v->need[1]) {
    marea_tensor *counts = with_number(&f, &marea_op_ne, a, 0);
    marea_tensor *base = f.status == MAREA_OK ? where(&f, counts, a, constant(&f, a, 1)) : NULL;
    marea_tensor *slope = mul(&f, v->out[0], unary(&f, &marea_op_log, base));
    give(&f, 1, sum_like(&f, keep_where(&f, counts, mul(&f, v->dout[0], slope)), b));
  }
  return finish(&f);
}

const marea_op marea_op_pow = {
    BINARY(pow),
    .flags = ARITHMETIC | MAREA_REALS | MAREA_WIDE,
    .dtypes = MAREA_ANY,
    .saves_in = 3,
    .saves_out = 1,
    .shape = real_shape,
    .vjp = pow_vjp,
    .sample = "local s = g.shape(0, 4) return {g.tensor(s, {lo = 0.3, hi = 2}), g.tensor(g.broadcast(s))}",
    .doc = "pow(a, b) = a^b, also a ^ b; f32 for integers; NaN for a < 0 with fractional b. Gradients: da = "
           "dy b a^(b-1), 0 where b = 0; db = dy y log(a), 0 where a = 0." ERRORS,
};

/* ---- maximum, minimum -------------------------------------------------------------------------------- */

/* dy where the input wins, half of it at a tie, exactly 0 where it loses, be dy infinite; both take dy of a NaN. */
static marea_tensor *share (formula *f, const marea_op *loses, marea_tensor *mine, marea_tensor *other) {
  marea_tensor *dy = f->v->dout[0];
  marea_tensor *even = where(f, binary(f, &marea_op_eq, mine, other), times(f, dy, 0.5), dy);
  return f->status == MAREA_OK ? where(f, binary(f, loses, mine, other), constant(f, dy, 0), even) : NULL;
}

static marea_status winner_vjp (marea_vjp *v, const marea_op *loses) {
  formula f = {.v = v};
  for (int i = 0; i < 2; i++)
    if (v->need[i]) give(&f, i, sum_like(&f, share(&f, loses, v->in[i], v->in[1 - i]), v->in[i]));
  return finish(&f);
}

static marea_status maximum_forward (marea_call *c) { return marea_map_binary(c, kernels(c)->maximum, NULL); }

static marea_status maximum_vjp (marea_vjp *v) { return winner_vjp(v, &marea_op_lt); }

/* Sample: values that differ from each other, since ties have another gradient. */
#define NO_TIES "local s = g.shape(0, 3) return {g.distinct(s), g.distinct(s) + 0.013}"

const marea_op marea_op_maximum = {
    BINARY(maximum),
    .flags = ARITHMETIC,
    .dtypes = MAREA_ANY,
    .saves_in = 3,
    .shape = marea_shape_broadcast,
    .vjp = maximum_vjp,
    .sample = NO_TIES,
    .doc = "maximum(a, b), the greater of each pair; NaN if there is one. Gradients: dy to the greater, half "
           "of it to each at a tie, all of it to both at a NaN; 0 to the smaller, whatever dy." ERRORS,
};

static marea_status minimum_forward (marea_call *c) { return marea_map_binary(c, kernels(c)->minimum, NULL); }

static marea_status minimum_vjp (marea_vjp *v) { return winner_vjp(v, &marea_op_gt); }

const marea_op marea_op_minimum = {
    BINARY(minimum),
    .flags = ARITHMETIC,
    .dtypes = MAREA_ANY,
    .saves_in = 3,
    .shape = marea_shape_broadcast,
    .vjp = minimum_vjp,
    .sample = NO_TIES,
    .doc = "minimum(a, b), the smaller of each pair; NaN if there is one. Gradients: dy to the smaller, half "
           "of it to each at a tie, all of it to both at a NaN; 0 to the greater, whatever dy." ERRORS,
};

/* ---- remainder, floor_divide -------------------------------------------------------------------------- */

/* Is one of n integers, `step` elements apart, 0? */
static bool row_has_zero (marea_context *ctx, int dtype, const void *x, int64_t n, int64_t step) {
  for (int64_t i = 0; i < n && !MAREA_STOPPING(ctx, i); i++)
    if (marea_load_integer(dtype, x, i * step) == 0) return true;
  return false;
}

/* Has t, from dimension d on at this address, a 0? Elements that expand repeats are read once. */
static bool has_zero (const marea_tensor *t, int d, const char *at) {
  if (d == t->rank) return row_has_zero(t->ctx, t->dtype, at, 1, 1);
  const int64_t n = t->stride[d] == 0 ? MAREA_MIN(t->shape[d], 1) : t->shape[d];
  if (d == t->rank - 1) return row_has_zero(t->ctx, t->dtype, at, n, t->stride[d]);
  const int64_t step = t->stride[d] * (int64_t)marea_dtype_size((marea_dtype)t->dtype);
  for (int64_t k = 0; k < n && !MAREA_STOPPING(t->ctx, k); k++)
    if (has_zero(t, d + 1, at + k * step)) return true;
  return false;
}

/* Division of integers by 0 is an error, as in Lua; of floats it gives infinity or NaN. */
static marea_status want_divisors (marea_call *c) {
  const marea_tensor *b = c->in[1];
  if (marea_is_float(b->dtype) || marea_count(c->out[0]->rank, c->out[0]->shape) == 0) return MAREA_OK;
  if (!has_zero(b, 0, marea_at(b))) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument 'b': %s %s 0, by which integers cannot be divided",
                      marea_tensor_text(b).s, b->rank == 0 ? "is" : "has a");
}

static marea_status remainder_forward (marea_call *c) {
  MAREA_TRY(want_divisors(c));
  return marea_map_binary(c, kernels(c)->remainder, NULL);
}

/* da = dy, db = -dy floor(a / b) */
static marea_status remainder_vjp (marea_vjp *v) {
  formula f = {.v = v};
  if (v->need[0]) give(&f, 0, sum_like(&f, v->dout[0], v->in[0]));
  if (v->need[1]) {
    marea_tensor *whole = binary(&f, &marea_op_floor_divide, v->in[0], v->in[1]);
    give(&f, 1, sum_like(&f, unary(&f, &marea_op_neg, mul(&f, v->dout[0], whole)), v->in[1]));
  }
  return finish(&f);
}

/* Sample: quotients away from integers, where the gradient jumps. */
#define BROKEN                                                                    \
  "local s = g.shape(0, 4) local b = g.tensor(g.broadcast(s), {lo = 1, hi = 3}) " \
  "if g.bool() then b = -b end "                                                  \
  "return {b * (g.tensor(s, {lo = -4, hi = 4}):floor() + 0.5) + g.tensor(s, {lo = -0.3, hi = 0.3}), b}"

const marea_op marea_op_remainder = {
    BINARY(remainder),
    .flags = ARITHMETIC,
    .dtypes = MAREA_ANY,
    .saves_in = 3,
    .shape = marea_shape_broadcast,
    .vjp = remainder_vjp,
    .sample = BROKEN,
    .doc =
        "remainder(a, b), also a % b: a - floor(a / b) b of each pair of elements, exactly, with b's sign, "
        "as "
        "Lua's %. NaN where b is 0 or a infinite; of integers a 0 in b is an error. Gradients: da = dy, db = "
        "-dy floor(a / b)." ERRORS,
};

static marea_status floor_divide_forward (marea_call *c) {
  MAREA_TRY(want_divisors(c));
  return marea_map_binary(c, kernels(c)->floor_divide, NULL);
}

const marea_op marea_op_floor_divide = {
    BINARY(floor_divide),
    .flags = ARITHMETIC | MAREA_NO_GRAD,
    .dtypes = MAREA_ANY,
    .shape = marea_shape_broadcast,
    .sample = BROKEN,
    .doc = "floor_divide(a, b), also a // b: floor(a / b) of each pair of elements, as Lua's //, in their "
           "dtype. "
           "Infinite or NaN where b is 0; of integers a 0 in b is an error, and the smallest one by -1 wraps "
           "around. The result is a constant for gradients." ERRORS,
};

/* ---- comparisons ------------------------------------------------------------------------------------- */

static marea_status compare_shape (marea_call *c) {
  MAREA_TRY(marea_shape_broadcast(c));
  c->layout[0].dtype = MAREA_U8;
  return MAREA_OK;
}

#define COMPARISON(op, relation)                                                                           \
  BINARY(op),                                                                                              \
      .dtypes = MAREA_ANY, .shape = compare_shape,                                                         \
      .flags = MAREA_STRIDED | MAREA_NUMBERS | MAREA_PROMOTES | MAREA_MIXES | MAREA_NO_GRAD,               \
      .sample =                                                                                            \
          "local s = g.shape(0, 4) local a = g.tensor(s) return {a, g.pick{a, g.tensor(g.broadcast(s))}}", \
      .doc = #op "(a, b) = a " relation                                                                    \
                 " b of each pair of elements, as u8: 1 or 0. Comparisons with NaN are "                   \
                 "false, but ne's is true. The result is a constant for gradients." ERRORS

static marea_status eq_forward (marea_call *c) { return marea_map_binary(c, kernels(c)->eq, NULL); }
const marea_op marea_op_eq = {COMPARISON(eq, "=")};

static marea_status ne_forward (marea_call *c) { return marea_map_binary(c, kernels(c)->ne, NULL); }
const marea_op marea_op_ne = {COMPARISON(ne, "not equal to")};

static marea_status lt_forward (marea_call *c) { return marea_map_binary(c, kernels(c)->lt, NULL); }
const marea_op marea_op_lt = {COMPARISON(lt, "<")};

static marea_status le_forward (marea_call *c) { return marea_map_binary(c, kernels(c)->le, NULL); }
const marea_op marea_op_le = {COMPARISON(le, "<=")};

static marea_status gt_forward (marea_call *c) { return marea_map_binary(c, kernels(c)->gt, NULL); }
const marea_op marea_op_gt = {COMPARISON(gt, ">")};

static marea_status ge_forward (marea_call *c) { return marea_map_binary(c, kernels(c)->ge, NULL); }
const marea_op marea_op_ge = {COMPARISON(ge, ">=")};

/* ---- where ------------------------------------------------------------------------------------------- */

static marea_status where_shape (marea_call *c) {
  MAREA_TRY(marea_shape_broadcast(c));
  c->layout[0].dtype = (int8_t)marea_common_dtype(2, c->in + 1); /* the condition does not count */
  return MAREA_OK;
}

static marea_status map_where (marea_call *c) {
  return marea_map_ternary(c, marea_kernels_for(c, 1)->where, NULL);
}

static marea_status where_forward (marea_call *c) {
  return map_converted(c, 1, c->layout[0].dtype, map_where);
}

static marea_tensor *cast_like (formula *f, marea_tensor *t, const marea_tensor *like) {
  const marea_attr dtype = marea_attr_int(like->dtype);
  if (f->status != MAREA_OK || t->dtype == like->dtype) return t;
  return step(f, &marea_op_cast, &dtype, 1, t, NULL, NULL);
}

static marea_status where_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *condition = v->in[0], *dy = v->dout[0];
  if (v->need[1]) give(&f, 1, cast_like(&f, sum_like(&f, keep_where(&f, condition, dy), v->in[1]), v->in[1]));
  if (v->need[2]) {
    marea_tensor *db = f.status == MAREA_OK ? where(&f, condition, constant(&f, dy, 0), dy) : NULL;
    give(&f, 2, cast_like(&f, sum_like(&f, db, v->in[2]), v->in[2]));
  }
  return finish(&f);
}

const marea_op marea_op_where = {
    .name = "where",
    .family = "binary",
    .inputs = {{"condition", "u8, any shape"}, {"a", "broadcasts with it"}, {"b", "broadcasts with both"}},
    .flags = MAREA_STRIDED | MAREA_NUMBERS | MAREA_MIXES,
    .dtypes = 1 << MAREA_U8,
    .saves_in = 1,
    .shape = where_shape,
    .forward = where_forward,
    .vjp = where_vjp,
    .sample =
        "local s = g.shape(0, 4) return {g.mask(g.broadcast(s)), g.tensor(s), g.tensor(g.broadcast(s))}",
    .doc = "where(condition, a, b) = a where the condition (u8, as comparisons give it) is not 0, else b. "
           "The dtype is a's and b's common one. Gradients: da = dy where the condition holds, db = dy "
           "elsewhere; what was not chosen does not matter, be it NaN." ERRORS,
};

/* ---- masked_fill ------------------------------------------------------------------------------------- */

static marea_status masked_fill_shape (marea_call *c) {
  const marea_tensor *x = c->in[0], *mask = c->in[1], *value = c->in[2];
  MAREA_TRY(marea_want_dtype(c, 1, 1 << MAREA_U8));
  if (value->rank != 0)
    return marea_reject(c, MAREA_ESHAPE, "argument 'value': expected a number or a tensor of rank 0, got %s",
                        marea_tensor_text(value).s);
  if (marea_is_float(value->dtype) && !marea_is_float(x->dtype))
    return marea_reject(c, MAREA_EARG, "argument 'value': expected an integer that fits into %s, got %s",
                        marea_tensor_text(x).s, marea_tensor_text(value).s);
  marea_layout_like(&c->layout[0], x);
  return marea_broadcast(c, mask->rank, mask->shape, &c->layout[0]);
}

static marea_status map_masked_fill (marea_call *c) {
  marea_tensor *const in[] = {c->in[1], c->in[2], c->in[0]};
  marea_call call = *c;
  call.in = in;
  return marea_map_ternary(&call, kernels(c)->where, NULL);
}

static marea_status masked_fill_forward (marea_call *c) {
  return map_converted(c, 2, c->in[0]->dtype, map_masked_fill);
}

static marea_status masked_fill_vjp (marea_vjp *v) {
  formula f = {.v = v};
  marea_tensor *mask = v->in[1], *dy = v->dout[0];
  if (v->need[0]) {
    marea_tensor *dx = f.status == MAREA_OK ? where(&f, mask, constant(&f, dy, 0), dy) : NULL;
    give(&f, 0, sum_like(&f, dx, v->in[0]));
  }
  if (v->need[2]) give(&f, 2, cast_like(&f, sum_all(&f, keep_where(&f, mask, dy)), v->in[2]));
  return finish(&f);
}

const marea_op marea_op_masked_fill = {
    .name = "masked_fill",
    .family = "binary",
    .inputs = {{"x", "any shape"}, {"mask", "u8, broadcasts with x"}, {"value", "a number, or rank 0"}},
    .flags = MAREA_STRIDED | MAREA_ELEMENTWISE | MAREA_NUMBERS | MAREA_MIXES,
    .dtypes = MAREA_ANY,
    .saves_in = 2,
    .shape = masked_fill_shape,
    .forward = masked_fill_forward,
    .vjp = masked_fill_vjp,
    .sample = "local s = g.shape(0, 4) return {g.tensor(s), g.mask(g.broadcast(s)), g.tensor{}}",
    .doc =
        "masked_fill(x, mask, value) = value where the mask (u8, as comparisons give it) is not 0, else x; "
        "in x's "
        "dtype. Gradients: dx = dy where the mask is 0, dvalue = the sum of dy elsewhere. Errors: a fraction "
        "into integers; shapes that do not broadcast.",
};
