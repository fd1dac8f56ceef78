/* SPDX-License-Identifier: MIT
** group_norm.c: group normalization.
*/
#include "descriptors.h"

enum { GROUP_GROUPS, GROUP_EPS, GROUP_DX }; /* ORDER of attributes, DX: of group_norm_backward */

static marea_norm group_of (const marea_tensor *x, const marea_attr *attr) {
  const int64_t groups = attr[GROUP_GROUPS].i;
  return (marea_norm){.n = x->shape[0],
                      .rows = marea_count(x->rank - 2, x->shape + 1),
                      .groups = groups,
                      .width = x->shape[x->rank - 1] / groups,
                      .eps = attr[GROUP_EPS].f};
}

/* in[input] is x */
static marea_status check_groups (marea_call *c, int input) {
  const marea_tensor *x = c->in[input];
  const int64_t groups = c->attr[GROUP_GROUPS].i;
  MAREA_TRY(marea_norm_check_batch(c, input));
  MAREA_TRY(marea_norm_check_eps(c, GROUP_EPS));
  const int64_t channels = x->shape[x->rank - 1];
  if (groups < 1 || channels % groups != 0)
    return marea_reject(c, MAREA_EARG, "argument 'groups': %lld does not divide the %lld channels of x %s",
                        (long long)groups, (long long)channels, marea_tensor_text(x).s);
  if (x->shape[0] > 0 && marea_count(x->rank - 1, x->shape + 1) == 0) return marea_norm_reject_empty(c, x);
  return MAREA_OK;
}

static marea_status group_norm_shape (marea_call *c) {
  MAREA_TRY(check_groups(c, 0));
  MAREA_TRY(marea_norm_check_channels(c, 1, c->in[0]));
  MAREA_TRY(marea_norm_check_channels(c, 2, c->in[0]));
  return marea_shape_same(c);
}

static marea_status group_norm_forward (marea_call *c) {
  const marea_tensor *x = c->in[0];
  const marea_norm g = group_of(x, c->attr);
  double *mean, *variance;
  MAREA_TRY(marea_norm_open_statistics(c, &g, &mean, &variance));
  MAREA_TRY(marea_norm_statistics(c, &g, x, mean, variance));
  return marea_norm_apply(c, &g, mean, variance, x, marea_norm_input_at(c, 1), marea_norm_input_at(c, 2),
                          c->out[0]);
}

static marea_status group_norm_vjp (marea_vjp *v) {
  if (v->ctx->recording) {
    const marea_norm g = group_of(v->in[0], v->attr);
    return marea_norm_statistics_formula(v, &g);
  }
  marea_tensor *in[] = {v->dout[0], v->in[0], marea_norm_weight_of(v)};
  marea_attr a[GROUP_DX + 3] = {v->attr[GROUP_GROUPS], v->attr[GROUP_EPS]};
  return marea_norm_run_backward(v, &marea_op_group_norm_backward, 3, in, a, GROUP_DX);
}

#define GROUPS_ATTR \
  { "groups", MAREA_INT, MAREA_REQUIRED, NULL, "number of groups that the channels are cut into" }
#define GROUPS_SAMPLE \
  "local s, groups = g.shape(1, 3, 1), g.int(1, 3) local c = groups * g.int(1, 3) s[#s + 1] = c "

const marea_op marea_op_group_norm = {
    .name = "group_norm",
    .family = "norm",
    .doc = "y = (x - mean) / sqrt(variance + eps) * weight + bias with mean and variance of each example and "
           "each of "
           "`groups` equal cuts of the channels, over all positions; groups = 1: of the whole example, "
           "groups = C: "
           "instance normalization. x: (N, ..., C); weight, bias: (C), 1 and 0 when left out; y: like x. "
           "Gradient "
           "as for batch_norm, with means over a group. Source: Wu and He, arXiv:1803.08494. Errors: groups "
           "that do "
           "not divide C, rank below 2, parameters of another size.",
    .inputs = {{"x", "(N, ..., C)"}, MAREA_NORM_PARAMETER_INPUTS},
    .attrs = MAREA_ATTRS(GROUPS_ATTR, MAREA_NORM_EPS_ATTR(1e-5)),
    .flags = MAREA_STORES,
    .saves_in = 3,
    .shape = group_norm_shape,
    .forward = group_norm_forward,
    .vjp = group_norm_vjp,
    .sample = GROUPS_SAMPLE
    "return {g.tensor(s), g.bool() and g.tensor{c} or nil, g.bool() and g.tensor{c} or nil}, "
    "{groups = groups, " MAREA_NORM_SAMPLE_EPS "}",
};

static marea_status group_norm_backward_shape (marea_call *c) {
  const marea_tensor *x = c->in[1];
  MAREA_TRY(check_groups(c, 1));
  MAREA_TRY(marea_want_shape(c, 0, x));
  MAREA_TRY(marea_norm_check_channels(c, 2, x));
  marea_norm_layout_wanted(c, GROUP_DX, x, 1, &x->shape[x->rank - 1]);
  return MAREA_OK;
}

static marea_status group_norm_backward_forward (marea_call *c) {
  const marea_tensor *x = c->in[1];
  const marea_norm g = group_of(x, c->attr);
  marea_norm_back b = {.dy = c->in[0], .x = x, .weight = marea_norm_input_at(c, 2)};
  double *mean, *variance;
  MAREA_TRY(marea_norm_open_statistics(c, &g, &mean, &variance));
  MAREA_TRY(marea_norm_statistics(c, &g, x, mean, variance));
  marea_norm_outputs_wanted(c, GROUP_DX, &b);
  return marea_norm_backward(c, &g, mean, variance, &b);
}

const marea_op marea_op_group_norm_backward = {
    .name = "group_norm_backward",
    .family = "norm",
    .doc = "The gradients of group_norm to x, weight and bias, those of them that are asked for, in this "
           "order; the "
           "statistics are computed again. Constants for the tape: backward takes it unless a graph of the "
           "gradients is wanted. dy: like x. Errors as for group_norm.",
    .inputs = {{"dy", "like x"}, {"x", "(N, ..., C)"}, {"weight", "(C)", .optional = true}},
    .attrs = MAREA_ATTRS(GROUPS_ATTR, MAREA_NORM_EPS_ATTR(1e-5), MAREA_NORM_WANTED_ATTRS),
    .flags = MAREA_NO_GRAD | MAREA_STORES,
    .shape = group_norm_backward_shape,
    .forward = group_norm_backward_forward,
    .sample = GROUPS_SAMPLE "return {g.tensor(s), g.tensor(s), g.bool() and g.tensor{c} or nil}, "
                            "{groups = groups, " MAREA_NORM_SAMPLE_EPS ", " MAREA_NORM_SAMPLE_WANTED "}",
};
