/* SPDX-License-Identifier: MIT
** conv2d.c: convolution of images and of sequences, channels last. A sequence is an image of height 1.
*/
#include "descriptors.h"

/* ORDER of attributes */
enum { CONV_STRIDE, CONV_PADDING, CONV_DILATION, CONV_GROUPS, CONV_ACTIVATION, CONV_SLOPE, CONV_ALGORITHM };
static const marea_conv_attr_index conv_attrs = {CONV_STRIDE, CONV_PADDING,   CONV_DILATION,
                                                 CONV_GROUPS, CONV_ALGORITHM, false};
static const marea_conv_attr_index sequence_attrs = {CONV_STRIDE, CONV_PADDING,   CONV_DILATION,
                                                     CONV_GROUPS, CONV_ALGORITHM, true};

static marea_status conv_shape (marea_call *c, marea_conv_attr_index at) {
  marea_conv g;
  MAREA_TRY(marea_conv_read_operands(c, at, false, &g));
  MAREA_TRY(marea_conv_padding(c, at, &g));
  MAREA_TRY(marea_conv_size(c, &g, g.out));
  return marea_conv_finish_shape(c, &g, CONV_SLOPE, false);
}

static marea_status conv2d_shape (marea_call *c) { return conv_shape(c, conv_attrs); }
static marea_status conv1d_shape (marea_call *c) { return conv_shape(c, sequence_attrs); }

static marea_status conv_forward (marea_call *c) { return marea_conv_forward(c, CONV_ACTIVATION, false); }

static marea_status conv2d_vjp (marea_vjp *v) {
  const marea_conv_attributes g = {v->attr[CONV_STRIDE], v->attr[CONV_PADDING], v->attr[CONV_DILATION],
                                   v->attr[CONV_GROUPS], v->attr[CONV_ALGORITHM]};
  MAREA_OWN dpre = NULL;
  if (!v->ctx->recording)
    return marea_conv_run_backward(v, &g, v->attr[CONV_ACTIVATION], v->attr[CONV_SLOPE], false);
  MAREA_TRY(
      marea_before_activation(v->dout[0], v->out[0], v->attr[CONV_ACTIVATION], v->attr[CONV_SLOPE], &dpre));
  if (v->need[0]) MAREA_TRY(marea_conv_run_grad_input(dpre, v->in[1], &g, v->in[0], &v->din[0]));
  if (v->need[1]) MAREA_TRY(marea_conv_run_grad_weight(v->in[0], dpre, &g, v->in[1], &v->din[1]));
  if (v->n_in > 2 && v->need[2]) MAREA_TRY(marea_sum_first(dpre, 3, &v->din[2]));
  return MAREA_OK;
}

static double conv_flop (const marea_call *c) { return marea_conv_products(c->out[0], c->in[1]); }

const marea_op marea_op_conv2d = {
    .name = "conv2d",
    .family = "conv",
    .doc =
        "y[n, oy, ox, co] = act(bias[co] + sum over ky, kx, ci of x[n, oy*s + ky*d - top, ox*s + kx*d - "
        "left, ci] * weight[ky, kx, ci, co]), x being 0 outside. x: (N, H, W, Cin); weight: (KH, KW, Cin / "
        "groups, Cout); bias: (Cout); y: (N, OH, OW, Cout) with OH = floor((H + top + bottom - d*(KH - 1) "
        "- 1) / s) + 1. 'same' pads so that OH = ceil(H / s), an odd pixel after (as in Keras). groups: "
        "channels are cut into that many independent convolutions." MAREA_CONV_ALGORITHM_DOC
        " Gradient, with e = dy * act'(y): "
        "conv2d_grad_input(e, weight), conv2d_grad_weight(x, e), sum of e over N, OH, OW. Errors: channels "
        "that do not fit, a kernel larger than the padded input.",
    .inputs = {{"x", "(N, H, W, Cin)"},
               {"weight", "(KH, KW, Cin / groups, Cout)"},
               {"bias", "(Cout)", .optional = true}},
    .attrs = MAREA_ATTRS(
        {"stride", MAREA_PAIR, 1, NULL, "step of the kernel, height and width"},
        {"padding", MAREA_PADDING, 0, NULL, "zeros around x: top, bottom, left, right, or 'same'"},
        MAREA_CONV_DILATION_GROUPS, MAREA_CONV_ACTIVATION("applied to the sum"), MAREA_CONV_ALGORITHM),
    .saves_in = 3,
    .saves_out = 1,
    .flags = MAREA_SHAPE_ONLY | MAREA_TAKES_BF16 | MAREA_LOWERS | MAREA_WRITES_PART,
    .takes_bf16 = marea_conv_takes_bf16,
    .shape = conv2d_shape,
    .forward = conv_forward,
    .vjp = conv2d_vjp,
    .flop = conv_flop,
    .sample = MAREA_CONV_SAMPLE_SIZES MAREA_CONV_SAMPLE_INPUT
    "return {g.tensor{n, h, w, cin}, g.tensor{kh, kw, cin // groups, cout}, "
    "g.bool() and g.tensor{cout} or nil},\n"
    "  {stride = {sh, sw}, padding = g.pick{p, p, 'same'}, dilation = {dh, dw}, groups = groups,\n"
    "  activation = g.pick{'none', 'none', 'sigmoid', 'tanh', 'softplus'}}",
};

/* ---- sequences ---- */

static marea_status conv1d_vjp (marea_vjp *v) {
  return marea_conv_sequence_vjp(v, sequence_attrs, conv2d_vjp);
}

const marea_op marea_op_conv1d = {
    .name = "conv1d",
    .family = "conv",
    .doc =
        "y[n, o, co] = act(bias[co] + sum over k, ci of x[n, o*s + k*d - left, ci] * weight[k, ci, co]), x "
        "being 0 outside. x: (N, T, Cin); weight: (K, Cin / groups, Cout); bias: (Cout); y: (N, OT, Cout) "
        "with OT = floor((T + left + right - d*(K - 1) - 1) / s) + 1. 'same' pads so that OT = ceil(T / "
        "s), an odd step after. Otherwise as conv2d of x (N, 1, T, Cin), whose gradients it has. Errors: "
        "channels that do not fit, a kernel larger than the padded input.",
    .inputs = {{"x", "(N, T, Cin)"},
               {"weight", "(K, Cin / groups, Cout)"},
               {"bias", "(Cout)", .optional = true}},
    .attrs = MAREA_ATTRS(MAREA_CONV_SEQUENCE_ATTRS("step of the kernel", "zeros around x"),
                         MAREA_CONV_SEQUENCE_DILATION_GROUPS, MAREA_CONV_ACTIVATION("applied to the sum"),
                         MAREA_CONV_ALGORITHM),
    .saves_in = 3,
    .saves_out = 1,
    .flags = MAREA_SHAPE_ONLY | MAREA_TAKES_BF16 | MAREA_LOWERS,
    .takes_bf16 = marea_conv_takes_bf16,
    .shape = conv1d_shape,
    .forward = conv_forward,
    .vjp = conv1d_vjp,
    .flop = conv_flop,
    .sample = MAREA_CONV_SEQUENCE_SAMPLE
    "local t = math.max(e - p[1] - p[2], 1) + g.int(0, 5)\n"
    "return {g.tensor{n, t, cin}, g.tensor{k, cin // groups, cout}, bias},\n"
    "  {stride = s, padding = g.pick{p, p, 'same'}, dilation = d, groups = groups,\n"
    "  activation = g.pick{'none', 'none', 'sigmoid', 'tanh', 'softplus'}}",
};
