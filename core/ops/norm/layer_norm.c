/* SPDX-License-Identifier: MIT
** layer_norm.c: layer normalization, and by the root mean square.
*/
#include "descriptors.h"

enum { LAYER_LAST, LAYER_EPS, LAYER_DX }; /* ORDER of attributes, DX: of layer_norm_backward */

static marea_norm layer_of (const marea_tensor *x, const marea_attr *attr) {
  const int kept = x->rank - (int)attr[LAYER_LAST].i;
  return (marea_norm){.n = marea_count(kept, x->shape),
                      .rows = 1,
                      .groups = 1,
                      .width = marea_count(x->rank - kept, x->shape + kept),
                      .eps = attr[LAYER_EPS].f};
}

/* x, in[input], has the dimensions to normalize, and parameters from `parameters` on have their shape. */
static marea_status check_layer (marea_call *c, int input, int parameters) {
  const marea_tensor *x = c->in[input];
  const int64_t last = c->attr[LAYER_LAST].i;
  MAREA_TRY(marea_want_dtype(c, input, 1 << c->in[0]->dtype));
  MAREA_TRY(marea_norm_check_eps(c, LAYER_EPS));
  if (last < 1 || last > x->rank)
    return marea_reject(c, MAREA_EARG, "argument 'last': expected 1..%d dimensions of x %s, got %lld",
                        x->rank, marea_tensor_text(x).s, (long long)last);
  const marea_norm g = layer_of(x, c->attr);
  if (g.width == 0 && g.n > 0) return marea_norm_reject_empty(c, x);
  marea_tensor row = {.dtype = x->dtype, .rank = (int8_t)last};
  memcpy(row.shape, x->shape + x->rank - last, (size_t)last * sizeof *row.shape);
  for (int i = parameters; i < c->n_in; i++) {
    if (!c->in[i]) continue;
    MAREA_TRY(marea_want_dtype(c, i, 1 << x->dtype));
    MAREA_TRY(marea_want_shape(c, i, &row));
  }
  return MAREA_OK;
}

static marea_status layer_norm_shape (marea_call *c) {
  MAREA_TRY(check_layer(c, 0, 1));
  return marea_shape_same(c);
}

static marea_status layer_norm_forward (marea_call *c) {
  const marea_norm g = layer_of(c->in[0], c->attr);
  return marea_norm_rows(c, &g, c->in[0], marea_norm_input_at(c, 1), marea_norm_input_at(c, 2), c->out[0]);
}

static marea_status layer_norm_vjp (marea_vjp *v) {
  if (v->ctx->recording) {
    const marea_norm g = layer_of(v->in[0], v->attr);
    return marea_norm_statistics_formula(v, &g);
  }
  marea_tensor *in[] = {v->dout[0], v->in[0], marea_norm_weight_of(v)};
  marea_attr a[LAYER_DX + 3] = {v->attr[LAYER_LAST], v->attr[LAYER_EPS]};
  return marea_norm_run_backward(v, &marea_op_layer_norm_backward, 3, in, a, LAYER_DX);
}

#define LAST_ATTR \
  { "last", MAREA_INT, 1, NULL, "how many of the last dimensions are normalized together" }
#define ROW_INPUT(name) \
  { name, "the last dimensions of x", .optional = true }
#define LAYER_SAMPLE                                                                                     \
  "local s = g.shape(1, 4, 1) local last = g.int(1, math.min(#s, 2)) local row = {table.unpack(s, #s - " \
  "last + 1)} "

const marea_op marea_op_layer_norm = {
    .name = "layer_norm",
    .family = "norm",
    .doc =
        "y = (x - mean) / sqrt(variance + eps) * weight + bias with mean and variance over the `last` last "
        "dimensions, the variance divided by their number. x: any rank from 1; weight, bias: the shape of "
        "those "
        "dimensions, 1 and 0 when left out; y: like x. Gradient as for batch_norm, with means over a row. "
        "Source: "
        "Ba, Kiros, Hinton, arXiv:1607.06450. Errors: last out of range, parameters of another shape.",
    .inputs = {{"x", "(..., D), at least one dimension"}, ROW_INPUT("weight"), ROW_INPUT("bias")},
    .attrs = MAREA_ATTRS(LAST_ATTR, MAREA_NORM_EPS_ATTR(1e-5)),
    .flags = MAREA_WIDE,
    .saves_in = 3,
    .shape = layer_norm_shape,
    .forward = layer_norm_forward,
    .vjp = layer_norm_vjp,
    .sample = LAYER_SAMPLE
    "return {g.tensor(s), g.bool() and g.tensor(row) or nil, g.bool() and g.tensor(row) or "
    "nil}, {last = last, " MAREA_NORM_SAMPLE_EPS "}",
};

static marea_status layer_norm_backward_shape (marea_call *c) {
  const marea_tensor *x = c->in[1];
  MAREA_TRY(check_layer(c, 1, 2));
  MAREA_TRY(marea_want_shape(c, 0, x));
  const int last = (int)c->attr[LAYER_LAST].i;
  marea_norm_layout_wanted(c, LAYER_DX, x, last, x->shape + x->rank - last);
  return MAREA_OK;
}

static marea_status layer_norm_backward_forward (marea_call *c) {
  const marea_norm g = layer_of(c->in[1], c->attr);
  marea_norm_back b = {.dy = c->in[0], .x = c->in[1], .weight = marea_norm_input_at(c, 2)};
  marea_norm_outputs_wanted(c, LAYER_DX, &b);
  return marea_norm_rows_backward(c, &g, &b);
}

const marea_op marea_op_layer_norm_backward = {
    .name = "layer_norm_backward",
    .family = "norm",
    .doc =
        "The gradients of layer_norm to x, weight and bias, those of them that are asked for, in this order. "
        "Constants for the tape: backward takes it unless a graph of the gradients is wanted. dy: like x. "
        "Errors "
        "as for layer_norm.",
    .inputs = {{"dy", "like x"}, {"x", "(..., D)"}, ROW_INPUT("weight")},
    .attrs = MAREA_ATTRS(LAST_ATTR, MAREA_NORM_EPS_ATTR(1e-5), MAREA_NORM_WANTED_ATTRS),
    .flags = MAREA_NO_GRAD,
    .shape = layer_norm_backward_shape,
    .forward = layer_norm_backward_forward,
    .sample = LAYER_SAMPLE "return {g.tensor(s), g.tensor(s), g.bool() and g.tensor(row) or nil}, {last = "
                           "last, " MAREA_NORM_SAMPLE_EPS ", " MAREA_NORM_SAMPLE_WANTED "}",
};

/* ---- rms_norm: attributes in the order of layer_norm's ---- */

static marea_norm rms_of (const marea_tensor *x, const marea_attr *attr) {
  marea_norm g = layer_of(x, attr);
  g.is_rms = true;
  return g;
}

/* Without eps: the rounding unit of the dtype, as in PyTorch. */
static void choose_eps (marea_call *c, const marea_tensor *x) {
  marea_attr *eps = &c->attr[LAYER_EPS];
  if (eps->n == 0) *eps = marea_attr_real(marea_epsilon(x->dtype));
}

static marea_status rms_norm_shape (marea_call *c) {
  choose_eps(c, c->in[0]);
  return layer_norm_shape(c);
}

static marea_status rms_norm_forward (marea_call *c) {
  const marea_norm g = rms_of(c->in[0], c->attr);
  return marea_norm_rows(c, &g, c->in[0], marea_norm_input_at(c, 1), NULL, c->out[0]);
}

/* dx = rate (t - xhat mean(t xhat)), t = dy weight, and dweight = sum dy xhat, over operators */
static marea_status rms_norm_formula (marea_vjp *v) {
  const marea_norm g = rms_of(v->in[0], v->attr);
  const int64_t shape[] = {g.n, g.width}, row[] = {1, g.width}, last = 1, first = 0;
  const marea_attr along[] = {marea_attr_list(1, &last), marea_attr_int(1)}, flat = marea_attr_list(2, shape),
                   flat_row = marea_attr_list(2, row);
  formula f = {.v = v};
  marea_tensor *x = step(&f, &marea_op_reshape, &flat, 1, v->in[0], NULL, NULL);
  marea_tensor *t = step(&f, &marea_op_reshape, &flat, 1, v->dout[0], NULL, NULL);
  marea_tensor *squares = step(&f, &marea_op_mean, along, 1, square(&f, x), NULL, NULL);
  marea_tensor *rate = unary(&f, &marea_op_rsqrt, plus(&f, squares, g.eps)), *xhat = mul(&f, x, rate);
  if (needs(v, 1)) {
    marea_tensor *sum = sum_dims(&f, mul(&f, t, xhat), marea_attr_list(1, &first), false);
    give(&f, 1, marea_norm_like(&f, sum, v->in[1]));
  }
  if (needs(v, 0)) {
    if (marea_norm_weight_of(v))
      t = mul(&f, t, step(&f, &marea_op_reshape, &flat_row, 1, v->in[1], NULL, NULL));
    marea_tensor *mean = step(&f, &marea_op_mean, along, 1, mul(&f, t, xhat), NULL, NULL);
    give(&f, 0, marea_norm_like(&f, mul(&f, rate, sub(&f, t, mul(&f, xhat, mean))), v->in[0]));
  }
  return finish(&f);
}

static marea_status rms_norm_vjp (marea_vjp *v) {
  if (v->ctx->recording) return rms_norm_formula(v);
  marea_tensor *in[] = {v->dout[0], v->in[0], marea_norm_weight_of(v)};
  marea_attr a[LAYER_DX + 3] = {v->attr[LAYER_LAST], v->attr[LAYER_EPS]};
  return marea_norm_run_backward(v, &marea_op_rms_norm_backward, 3, in, a, LAYER_DX);
}

#define RMS_EPS_ATTR                                                              \
  {                                                                               \
    "eps", MAREA_REAL, MAREA_NONE, NULL,                                          \
        "added to the mean of squares (left out: 1.19e-7 of f32, 2.2e-16 of f64)" \
  }

const marea_op marea_op_rms_norm = {
    .name = "rms_norm",
    .family = "norm",
    .doc =
        "y = x / sqrt(mean(x^2) + eps) * weight with the mean over the `last` last dimensions. x: any rank "
        "from 1; "
        "weight: the shape of those dimensions, 1 when left out; y: like x. Gradient, with xhat = x rate, "
        "rate "
        "= 1 / "
        "sqrt(mean(x^2) + eps), e = dy weight: dx = rate (e - xhat mean(e xhat)), dweight = sum dy xhat. "
        "Source: "
        "Zhang and Sennrich, arXiv:1910.07467. Errors: last out of range, weight of another shape.",
    .inputs = {{"x", "(..., D), at least one dimension"}, ROW_INPUT("weight")},
    .attrs = MAREA_ATTRS(LAST_ATTR, RMS_EPS_ATTR),
    .flags = MAREA_WIDE,
    .saves_in = 3,
    .shape = rms_norm_shape,
    .forward = rms_norm_forward,
    .vjp = rms_norm_vjp,
    .sample = LAYER_SAMPLE
    "return {g.tensor(s), g.bool() and g.tensor(row) or nil}, {last = last, " MAREA_NORM_SAMPLE_EPS "}",
};

static marea_status rms_norm_backward_shape (marea_call *c) {
  choose_eps(c, c->in[1]);
  return layer_norm_backward_shape(c);
}

static marea_status rms_norm_backward_forward (marea_call *c) {
  const marea_norm g = rms_of(c->in[1], c->attr);
  marea_norm_back b = {.dy = c->in[0], .x = c->in[1], .weight = marea_norm_input_at(c, 2)};
  marea_norm_outputs_wanted(c, LAYER_DX, &b);
  return marea_norm_rows_backward(c, &g, &b);
}

const marea_op marea_op_rms_norm_backward = {
    .name = "rms_norm_backward",
    .family = "norm",
    .doc = "The gradients of rms_norm to x and weight, and the sum of dy over rows, those of them that are "
           "asked "
           "for, in this order. Constants for the tape: backward takes it unless a graph of the gradients is "
           "wanted. dy: like x. Errors as for rms_norm.",
    .inputs = {{"dy", "like x"}, {"x", "(..., D)"}, ROW_INPUT("weight")},
    .attrs = MAREA_ATTRS(LAST_ATTR, RMS_EPS_ATTR, MAREA_NORM_WANTED_ATTRS),
    .flags = MAREA_NO_GRAD,
    .shape = rms_norm_backward_shape,
    .forward = rms_norm_backward_forward,
    .sample = LAYER_SAMPLE "return {g.tensor(s), g.tensor(s), g.bool() and g.tensor(row) or nil}, {last = "
                           "last, " MAREA_NORM_SAMPLE_EPS ", " MAREA_NORM_SAMPLE_WANTED "}",
};
