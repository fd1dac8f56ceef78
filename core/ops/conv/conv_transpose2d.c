/* SPDX-License-Identifier: MIT
** conv_transpose2d.c: transposed convolution of images and of sequences. In forward terms its argument is dy and its result is x.
*/
#include "descriptors.h"

/* ORDER of its attributes */
enum {
  DECONV_STRIDE,
  DECONV_PADDING,
  DECONV_OUTPUT_PADDING,
  DECONV_DILATION,
  DECONV_GROUPS,
  DECONV_ACTIVATION,
  DECONV_SLOPE,
  DECONV_ALGORITHM
};
static const marea_conv_attr_index deconv_attrs = {DECONV_STRIDE, DECONV_PADDING,   DECONV_DILATION,
                                                   DECONV_GROUPS, DECONV_ALGORITHM, false};
static const marea_conv_attr_index sequence_attrs = {DECONV_STRIDE, DECONV_PADDING,   DECONV_DILATION,
                                                     DECONV_GROUPS, DECONV_ALGORITHM, true};

/* g->in := the result's sizes: (in - 1) * stride + dilated kernel + output_padding - crop, or in * stride
   ('same') */
static marea_status deconv_sizes (marea_call *c, marea_conv_attr_index at, marea_conv *g) {
  const bool same = c->attr[DECONV_PADDING].n == MAREA_SAME;
  for (int d = 0; d < 2; d++) {
    const marea_attr *extras = &c->attr[DECONV_OUTPUT_PADDING];
    const int64_t extra = !at.sequence ? extras->v[d] : d == 0 ? 0 : extras->i;
    if (extra < 0 || extra >= MAREA_MAX(g->stride[d], g->dilation[d]))
      return marea_reject(c, MAREA_EARG,
                          "argument 'output_padding': %lld is not less than the larger of stride %lld and "
                          "dilation %lld",
                          (long long)extra, (long long)g->stride[d], (long long)g->dilation[d]);
    if (same && extra != 0)
      return marea_reject(c, MAREA_EARG, "argument 'output_padding': must be 0 with padding 'same'");
    if (g->out[d] < 1)
      return marea_reject(c, MAREA_ESHAPE, "x %s has no %s", marea_tensor_text(c->in[0]).s,
                          at.sequence ? "steps" : "pixels");
    if (same) g->in[d] = g->out[d] * g->stride[d];
    else g->in[d] = (g->out[d] - 1) * g->stride[d] + g->dilation[d] * (g->kernel[d] - 1) + 1 + extra;
  }
  MAREA_TRY(marea_conv_padding(c, at, g));
  for (int d = 0; d < 2 && !same; d++) {
    const int64_t whole = g->in[d];
    g->in[d] -= g->before[d] + g->after[d];
    if (g->in[d] < 1)
      return marea_reject(c, MAREA_ESHAPE, "padding %lld+%lld leaves nothing of the size %lld",
                          (long long)g->before[d], (long long)g->after[d], (long long)whole);
  }
  return MAREA_OK;
}

/* In forward terms x is dy, the result is x, and the weight's channels keep their places. */
static marea_status shape_of (marea_call *c, marea_conv_attr_index at) {
  marea_conv g;
  int64_t most[2];
  MAREA_TRY(marea_conv_read_operands(c, at, true, &g));
  MAREA_TRY(deconv_sizes(c, at, &g));
  MAREA_TRY(marea_conv_size(c, &g, most)); /* an empty kernel */
  return marea_conv_finish_shape(c, &g, DECONV_SLOPE, true);
}

static marea_status deconv_shape (marea_call *c) { return shape_of(c, deconv_attrs); }
static marea_status sequence_shape (marea_call *c) { return shape_of(c, sequence_attrs); }

static marea_status deconv_forward (marea_call *c) { return marea_conv_forward(c, DECONV_ACTIVATION, true); }

static marea_status deconv_vjp (marea_vjp *v) {
  const marea_conv_attributes g = {v->attr[DECONV_STRIDE], v->attr[DECONV_PADDING], v->attr[DECONV_DILATION],
                                   v->attr[DECONV_GROUPS], v->attr[DECONV_ALGORITHM]};
  MAREA_OWN dpre = NULL;
  if (!v->ctx->recording)
    return marea_conv_run_backward(v, &g, v->attr[DECONV_ACTIVATION], v->attr[DECONV_SLOPE], true);
  MAREA_TRY(marea_before_activation(v->dout[0], v->out[0], v->attr[DECONV_ACTIVATION], v->attr[DECONV_SLOPE],
                                    &dpre));
  if (v->need[0]) MAREA_TRY(marea_conv_run(dpre, v->in[1], &g, v->in[0], &v->din[0]));
  if (v->need[1]) MAREA_TRY(marea_conv_run_grad_weight(dpre, v->in[0], &g, v->in[1], &v->din[1]));
  if (v->n_in > 2 && v->need[2]) MAREA_TRY(marea_sum_first(dpre, 3, &v->din[2]));
  return MAREA_OK;
}

static double deconv_flop (const marea_call *c) { return marea_conv_products(c->in[0], c->in[1]); }

const marea_op marea_op_conv_transpose2d = {
    .name = "conv_transpose2d",
    .family = "conv",
    .doc =
        "Transposed convolution: y = act(bias + conv2d_grad_input(x, weight)). x: (N, H, W, Cin); weight: "
        "(KH, KW, Cout / groups, Cin), as in Keras; bias: (Cout); y: (N, OH, OW, Cout) with OH = (H - 1)*s "
        "+ d*(KH - 1) + 1 + output_padding - top - bottom; padding is cut off. 'same': OH = H*s, cropped "
        "as the convolution from OH to H pads (28 from 14 with kernel 3, stride 2: nothing before, one "
        "after). algorithm: as of conv2d. Gradient, with e = dy * act'(y): conv2d(e, weight), "
        "conv2d_grad_weight(e, x), sum of e "
        "over N, OH, OW. Errors: channels that do not fit, output_padding not less than stride or "
        "dilation, padding that leaves nothing.",
    .inputs = {{"x", "(N, H, W, Cin)"},
               {"weight", "(KH, KW, Cout / groups, Cin)"},
               {"bias", "(Cout)", .optional = true}},
    .attrs = MAREA_ATTRS(
        {"stride", MAREA_PAIR, 1, NULL, "step of the kernel in y, height and width"},
        {"padding", MAREA_PADDING, 0, NULL, "cut off y: top, bottom, left, right, or 'same'"},
        {"output_padding", MAREA_PAIR, 0, NULL, "rows and columns added at the bottom and right"},
        MAREA_CONV_DILATION_GROUPS, MAREA_CONV_ACTIVATION("applied to the sum"), MAREA_CONV_ALGORITHM),
    .saves_in = 3,
    .saves_out = 1,
    .flags = MAREA_SHAPE_ONLY | MAREA_TAKES_BF16 | MAREA_LOWERS,
    .takes_bf16 = marea_conv_takes_bf16,
    .shape = deconv_shape,
    .forward = deconv_forward,
    .vjp = deconv_vjp,
    .flop = deconv_flop,
    .sample = MAREA_CONV_SAMPLE_SIZES
    "local h, w = g.int(1, 4), g.int(1, 4)\n"
    "local op = {g.int(0, math.max(sh, dh) - 1), g.int(0, math.max(sw, dw) - 1)}\n"
    "local fh, fw = (h - 1) * sh + eh + op[1], (w - 1) * sw + ew + op[2]\n"
    "while p[1] + p[2] >= fh do p[1], p[2] = p[1] // 2, p[2] // 2 end\n"
    "while p[3] + p[4] >= fw do p[3], p[4] = p[3] // 2, p[4] // 2 end\n"
    "local same = g.int(1, 3) == 1\n"
    "return {g.tensor{n, h, w, cin}, g.tensor{kh, kw, cout // groups, cin}, "
    "g.bool() and g.tensor{cout} or nil},\n"
    "  {stride = {sh, sw}, padding = same and 'same' or p, output_padding = same and 0 or op,\n"
    "  dilation = {dh, dw}, groups = groups, "
    "activation = g.pick{'none', 'none', 'sigmoid', 'tanh', 'softplus'}}",
};

/* ---- sequences ---- */

static marea_status sequence_vjp (marea_vjp *v) {
  return marea_conv_sequence_vjp(v, sequence_attrs, deconv_vjp);
}

const marea_op marea_op_conv_transpose1d = {
    .name = "conv_transpose1d",
    .family = "conv",
    .doc =
        "Transposed convolution of sequences, the gradient of conv1d as a map: y = act(bias + what "
        "conv2d_grad_input gives for x (N, 1, T, Cin)). x: (N, T, Cin); weight: (K, Cout / groups, Cin); "
        "bias: (Cout); y: (N, OT, Cout) with OT = (T - 1)*s + d*(K - 1) + 1 + output_padding - left - "
        "right; padding is cut off. 'same': OT = T*s. Otherwise as conv_transpose2d. Errors: channels that "
        "do not fit, output_padding not less than stride or dilation, padding that leaves nothing.",
    .inputs = {{"x", "(N, T, Cin)"},
               {"weight", "(K, Cout / groups, Cin)"},
               {"bias", "(Cout)", .optional = true}},
    .attrs = MAREA_ATTRS(MAREA_CONV_SEQUENCE_ATTRS("step of the kernel in y", "cut off y"),
                         {"output_padding", MAREA_INT, 0, NULL, "steps added at the end"},
                         MAREA_CONV_SEQUENCE_DILATION_GROUPS, MAREA_CONV_ACTIVATION("applied to the sum"),
                         MAREA_CONV_ALGORITHM),
    .saves_in = 3,
    .saves_out = 1,
    .flags = MAREA_SHAPE_ONLY | MAREA_TAKES_BF16 | MAREA_LOWERS,
    .takes_bf16 = marea_conv_takes_bf16,
    .shape = sequence_shape,
    .forward = deconv_forward,
    .vjp = sequence_vjp,
    .flop = deconv_flop,
    .sample = MAREA_CONV_SEQUENCE_SAMPLE
    "local t, op = g.int(1, 4), g.int(0, math.max(s, d) - 1)\n"
    "local whole, same = (t - 1) * s + e + op, g.int(1, 3) == 1\n"
    "while p[1] + p[2] >= whole do p[1], p[2] = p[1] // 2, p[2] // 2 end\n"
    "return {g.tensor{n, t, cin}, g.tensor{k, cout // groups, cin}, bias},\n"
    "  {stride = s, padding = same and 'same' or p, output_padding = same and 0 or op,\n"
    "  dilation = d, groups = groups, activation = g.pick{'none', 'none', 'sigmoid', 'tanh', 'softplus'}}",
};
