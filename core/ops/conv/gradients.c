/* SPDX-License-Identifier: MIT
** gradients.c: the gradients of convolutions as operators: of the input, of the weight, and all at once.
*/
#include <string.h>

#include "backward.h"
#include "choose.h"
#include "descriptors.h"

/* What both gradients have behind `size` or `kernel`. */
#define GRADIENT_ATTRS                                                                            \
  {"stride", MAREA_PAIR, 1, NULL, "step of the kernel"},                                          \
      {"padding", MAREA_PADDING, 0, NULL, "zeros around x: top, bottom, left, right, or 'same'"}, \
      MAREA_CONV_DILATION_GROUPS, MAREA_CONV_ALGORITHM

/* ---- conv2d_grad_input ---- */

/* ORDER of both gradients' attributes */
enum { GRAD_SIZE, GRAD_STRIDE, GRAD_PADDING, GRAD_DILATION, GRAD_GROUPS, GRAD_ALGORITHM };
static const marea_conv_attr_index grad_attrs = {GRAD_STRIDE, GRAD_PADDING,   GRAD_DILATION,
                                                 GRAD_GROUPS, GRAD_ALGORITHM, false};

static marea_conv_attributes attributes_of (const marea_vjp *v) {
  return (marea_conv_attributes){v->attr[GRAD_STRIDE], v->attr[GRAD_PADDING], v->attr[GRAD_DILATION],
                                 v->attr[GRAD_GROUPS], v->attr[GRAD_ALGORITHM]};
}

static marea_status grad_input_read (marea_call *c, marea_conv *g) {
  const marea_tensor *dy = c->in[0];
  MAREA_TRY(marea_conv_read(c, grad_attrs, g));
  MAREA_TRY(marea_want_rank(c, 0, 4, "(N, OH, OW, Cout)"));
  MAREA_TRY(marea_conv_read_weight(c, 1, "(KH, KW, Cin / groups, Cout)", g));
  if (dy->shape[3] != g->cout)
    return marea_conv_reject_channels(c, "dy", dy->shape[3], c->in[1], g->groups, g->cout);
  g->n = dy->shape[0];
  for (int d = 0; d < 2; d++) {
    g->in[d] = c->attr[GRAD_SIZE].v[d];
    if (g->in[d] < 0 || g->in[d] > INT32_MAX)
      return marea_reject(c, MAREA_EARG, "argument 'size': %lld is out of range", (long long)g->in[d]);
  }
  MAREA_TRY(marea_conv_padding(c, grad_attrs, g));
  return marea_conv_read_output(c, dy, g);
}

static marea_status grad_input_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(grad_input_read(c, &g));
  MAREA_KEEP(c, g);
  marea_conv_layout_image(c, &g, g.in, g.cin);
  return MAREA_OK;
}

static marea_status grad_input_forward (marea_call *c) {
  marea_conv g;
  MAREA_KEPT(c, g);
  return marea_conv_compute_images(c, &g, true, c->in[0], c->in[1], NULL, MAREA_ACT_NONE, 0);
}

static marea_status grad_input_vjp (marea_vjp *v) {
  const marea_conv_attributes g = attributes_of(v);
  if (v->need[0]) MAREA_TRY(marea_conv_run(v->dout[0], v->in[1], &g, v->in[0], &v->din[0]));
  if (v->need[1]) MAREA_TRY(marea_conv_run_grad_weight(v->dout[0], v->in[0], &g, v->in[1], &v->din[1]));
  return MAREA_OK;
}

static double grad_input_flop (const marea_call *c) { return marea_conv_products(c->in[0], c->in[1]); }

const marea_op marea_op_conv2d_grad_input = {
    .name = "conv2d_grad_input",
    .family = "conv",
    .doc = "Gradient of conv2d with respect to its input x of height and width `size`: dx[n, iy, ix, ci] = "
           "sum of dy[n, oy, ox, co] * weight[ky, kx, ci, co] over all oy*s + ky*d - top = iy, ox*s + kx*d - "
           "left = ix. dy: (N, OH, OW, Cout), OH and OW at most what the convolution gives; weight: (KH, KW, "
           "Cin / groups, Cout); dx: (N, H, W, Cin). Gradient: conv2d(g, weight), conv2d_grad_weight(g, dy). "
           "Errors as for conv2d.",
    .inputs = {{"dy", "(N, OH, OW, Cout)"}, {"weight", "(KH, KW, Cin / groups, Cout)"}},
    .attrs = MAREA_ATTRS({"size", MAREA_PAIR, MAREA_REQUIRED, NULL, "height and width of x"}, GRADIENT_ATTRS),
    .saves_in = 3,
    .flags = MAREA_SHAPE_ONLY | MAREA_TAKES_BF16,
    .takes_bf16 = marea_conv_takes_bf16,
    .shape = grad_input_shape,
    .forward = grad_input_forward,
    .vjp = grad_input_vjp,
    .flop = grad_input_flop,
    .sample = MAREA_CONV_SAMPLE_SIZES MAREA_CONV_SAMPLE_INPUT
    "return {g.tensor{n, oh, ow, cout}, g.tensor{kh, kw, cin // groups, cout}},\n"
    "  {size = {h, w}, stride = {sh, sw}, padding = p, dilation = {dh, dw}, groups = groups}",
};

/* ---- conv2d_grad_weight ---- */

static marea_status grad_weight_read (marea_call *c, marea_conv *g) {
  const marea_tensor *x = c->in[0], *dy = c->in[1];
  MAREA_TRY(marea_conv_read(c, grad_attrs, g));
  MAREA_TRY(marea_want_rank(c, 0, 4, "(N, H, W, Cin)"));
  MAREA_TRY(marea_want_dtype(c, 1, 1 << x->dtype));
  MAREA_TRY(marea_want_rank(c, 1, 4, "(N, OH, OW, Cout)"));
  MAREA_TRY(marea_want_size(c, 1, 0, x->shape[0], "x's number of images"));
  g->n = x->shape[0];
  g->cin = x->shape[3];
  g->cout = dy->shape[3];
  if (g->cin % g->groups != 0 || g->cout % g->groups != 0)
    return marea_reject(c, MAREA_ESHAPE,
                        "channels %lld of x and %lld of dy: not both divisible by groups=%lld",
                        (long long)g->cin, (long long)g->cout, (long long)g->groups);
  marea_conv_set_sizes(x, g->in);
  g->kernel[0] = c->attr[GRAD_SIZE].v[0];
  g->kernel[1] = c->attr[GRAD_SIZE].v[1];
  if (g->kernel[0] < 1 || g->kernel[0] > INT32_MAX || g->kernel[1] < 1 || g->kernel[1] > INT32_MAX)
    return marea_reject(c, MAREA_EARG, "argument 'kernel': %lldx%lld is out of range",
                        (long long)g->kernel[0], (long long)g->kernel[1]);
  MAREA_TRY(marea_conv_padding(c, grad_attrs, g));
  return marea_conv_read_output(c, dy, g);
}

static marea_status grad_weight_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(grad_weight_read(c, &g));
  MAREA_KEEP(c, g);
  const int64_t shape[] = {g.kernel[0], g.kernel[1], g.cin / g.groups, g.cout};
  marea_layout_set(&c->layout[0], c->in[0]->dtype, 4, shape);
  return MAREA_OK;
}

/* Nothing to add up, or nowhere to put it? Then out is zeros. */
static bool marea_conv_clear_empty (const marea_tensor *summed, marea_tensor *out) {
  const int64_t count = marea_count(out->rank, out->shape);
  if (count > 0 && marea_count(summed->rank, summed->shape) > 0) return false;
  if (!out->ctx->shape_only)
    memset(marea_at(out), 0, (size_t)count * marea_dtype_size((marea_dtype)out->dtype));
  return true;
}

static marea_status grad_weight_forward (marea_call *c) {
  marea_conv g;
  MAREA_KEPT(c, g);
  const marea_conv_source x = {.t = c->in[0]}, dy = {.t = c->in[1]};
  marea_any_weight_pass pass;
  if (marea_conv_clear_empty(c->in[1], c->out[0])) return MAREA_OK;
  MAREA_TRY(marea_conv_open_weights(c, &g, &x, &dy, c->out[0], &pass));
  marea_weight_pass_run(&pass.base);
  return MAREA_OK;
}

static marea_status grad_weight_vjp (marea_vjp *v) {
  const marea_conv_attributes g = attributes_of(v);
  if (v->need[0]) MAREA_TRY(marea_conv_run_grad_input(v->in[1], v->dout[0], &g, v->in[0], &v->din[0]));
  if (v->need[1]) MAREA_TRY(marea_conv_run(v->in[0], v->dout[0], &g, v->in[1], &v->din[1]));
  return MAREA_OK;
}

static double grad_weight_flop (const marea_call *c) { return marea_conv_products(c->in[1], c->out[0]); }

const marea_op marea_op_conv2d_grad_weight = {
    .name = "conv2d_grad_weight",
    .family = "conv",
    .doc = "Gradient of conv2d with respect to its weight of height and width `kernel`: dweight[ky, kx, ci, "
           "co] = sum over n, oy, ox of x[n, oy*s + ky*d - top, ox*s + kx*d - left, ci] * dy[n, oy, ox, co]. "
           "x: (N, H, W, Cin); dy: (N, OH, OW, Cout), OH and OW at most what the convolution gives; dweight: "
           "(KH, KW, Cin / groups, Cout). Gradient: conv2d_grad_input(dy, g), conv2d(x, g). Errors as for "
           "conv2d.",
    .inputs = {{"x", "(N, H, W, Cin)"}, {"dy", "(N, OH, OW, Cout)"}},
    .attrs = MAREA_ATTRS({"kernel", MAREA_PAIR, MAREA_REQUIRED, NULL, "height and width of the kernel"},
                         GRADIENT_ATTRS),
    .saves_in = 3,
    .flags = MAREA_SHAPE_ONLY | MAREA_TAKES_BF16,
    .takes_bf16 = marea_conv_takes_bf16,
    .shape = grad_weight_shape,
    .forward = grad_weight_forward,
    .vjp = grad_weight_vjp,
    .flop = grad_weight_flop,
    .sample = MAREA_CONV_SAMPLE_SIZES MAREA_CONV_SAMPLE_INPUT
    "return {g.tensor{n, h, w, cin}, g.tensor{n, oh, ow, cout}},\n"
    "  {kernel = {kh, kw}, stride = {sh, sw}, padding = p, dilation = {dh, dw}, groups = groups}",
};

/* ---- conv2d_backward ---- */

static const marea_conv_attr_index back_attrs = {BACK_STRIDE, BACK_PADDING,   BACK_DILATION,
                                                 BACK_GROUPS, BACK_ALGORITHM, false};

/* In forward terms: the large side (n, in, cin), the small side (n, out, cout). */
static marea_status backward_read (marea_call *c, marea_conv *g) {
  const bool transposed = c->attr[BACK_TRANSPOSED].i != 0;
  const int in = transposed ? 0 : 1, out = 1 - in;
  MAREA_TRY(marea_conv_read(c, back_attrs, g));
  for (int i = 0; i < 2; i++) {
    MAREA_TRY(marea_want_dtype(c, i, 1 << c->in[0]->dtype));
    MAREA_TRY(marea_want_rank(c, i, 4, i == 0 ? "like the result" : "(N, H, W, Cin)"));
  }
  MAREA_TRY(marea_want_size(c, 1, 0, c->in[0]->shape[0], "dy's number of images"));
  MAREA_TRY(marea_conv_read_weight(c, 2, "as of the convolution", g));
  g->n = c->in[0]->shape[0];
  marea_conv_set_sizes(c->in[in], g->in);
  if (c->in[in]->shape[3] != g->cin)
    return marea_conv_reject_channels(c, c->op->inputs[in].name, c->in[in]->shape[3], c->in[2], g->groups,
                                      g->cin);
  if (c->in[out]->shape[3] != g->cout)
    return marea_conv_reject_channels(c, c->op->inputs[out].name, c->in[out]->shape[3], c->in[2], g->groups,
                                      g->cout);
  MAREA_TRY(marea_conv_padding(c, back_attrs, g));
  return marea_conv_read_output(c, c->in[out], g);
}

static marea_status backward_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(backward_read(c, &g));
  MAREA_TRY(marea_want_slope(c, BACK_SLOPE));
  if (c->attr[BACK_ACTIVATION].i != MAREA_ACT_NONE) {
    if (c->n_in < 4 || !c->in[3])
      return marea_reject(c, MAREA_EARG, "argument 'y': expected a tensor, got nothing");
    MAREA_TRY(marea_want_dtype(c, 3, 1 << c->in[0]->dtype));
    MAREA_TRY(marea_want_shape(c, 3, c->in[0]));
  }
  MAREA_KEEP(c, g);
  c->n_out = 0;
  if (c->attr[BACK_DX].i) marea_layout_like(&c->layout[c->n_out++], c->in[1]);
  if (c->attr[BACK_DW].i) marea_layout_like(&c->layout[c->n_out++], c->in[2]);
  if (c->attr[BACK_DB].i) marea_layout_set(&c->layout[c->n_out++], c->in[0]->dtype, 1, &c->in[0]->shape[3]);
  return MAREA_OK;
}

static marea_status backward_forward (marea_call *c) {
  marea_conv g;
  marea_tensor *wanted[3] = {NULL, NULL, NULL};
  const marea_activation act = (marea_activation)c->attr[BACK_ACTIVATION].i;
  marea_conv_source e = {.t = c->in[0],
                         .y = act == MAREA_ACT_NONE ? NULL : c->in[3],
                         .act = act,
                         .slope = c->attr[BACK_SLOPE].f};
  MAREA_KEPT(c, g);
  for (int i = 0, k = 0; i < 3; i++) {
    if (!c->attr[BACK_DX + i].i) continue;
    wanted[i] = c->out[k++];
    if (marea_conv_clear_empty(c->in[0], wanted[i])) wanted[i] = NULL;
  }
  return marea_conv_backward(c, &g, c->attr[BACK_TRANSPOSED].i != 0, &e, c->in[1], c->in[2], wanted[0],
                             wanted[1], wanted[2]);
}

static double backward_flop (const marea_call *c) {
  const bool transposed = c->attr[BACK_TRANSPOSED].i != 0;
  return (double)(c->attr[BACK_DX].i + c->attr[BACK_DW].i) * marea_conv_products(c->in[transposed], c->in[2]);
}

const marea_op marea_op_conv2d_backward = {
    .name = "conv2d_backward",
    .family = "conv",
    .doc =
        "The gradients of y = conv2d(x, weight, bias), or of conv_transpose2d where `transposed`, in one "
        "walk "
        "over the images: with e = dy * act'(y), dx, dweight and dbias as these two say, those of them that "
        "are asked for, in this order. Constants for the tape: backward takes it unless a graph of the "
        "gradients is wanted. dy and y: the result's shape. Errors as for conv2d.",
    .inputs = {{"dy", "like y"},
               {"x", "(N, H, W, Cin)"},
               {"weight", "as of the convolution"},
               {"y", "the convolution's result, unless activation is none", .optional = true}},
    .attrs = MAREA_ATTRS({"stride", MAREA_PAIR, 1, NULL, "step of the kernel"},
                         {"padding", MAREA_PADDING, 0, NULL, "top, bottom, left, right, or 'same'"},
                         MAREA_CONV_DILATION_GROUPS, MAREA_CONV_ACTIVATION("behind the convolution"),
                         {"transposed", MAREA_BOOL, 0, NULL, "of conv_transpose2d"},
                         {"dx", MAREA_BOOL, 1, NULL, "give x's gradient"},
                         {"dweight", MAREA_BOOL, 1, NULL, "give weight's gradient"},
                         {"dbias", MAREA_BOOL, 1, NULL, "give the bias' gradient"}, MAREA_CONV_ALGORITHM),
    .flags = MAREA_NO_GRAD | MAREA_SHAPE_ONLY | MAREA_TAKES_BF16,
    .takes_bf16 = marea_conv_takes_bf16,
    .shape = backward_shape,
    .forward = backward_forward,
    .flop = backward_flop,
    .sample = MAREA_CONV_SAMPLE_SIZES MAREA_CONV_SAMPLE_INPUT
    "local transposed, act = g.bool(), g.pick{'none', 'relu', 'tanh'}\n"
    "local large, small = {n, h, w, cin}, {n, oh, ow, cout}\n"
    "local dy, x = transposed and large or small, transposed and small or large\n"
    "return {g.tensor(dy), g.tensor(x), g.tensor{kh, kw, cin // groups, cout}, "
    "act ~= 'none' and g.tensor(dy) or nil},\n"
    "  {stride = {sh, sw}, padding = p, dilation = {dh, dw}, groups = groups, activation = act,\n"
    "  transposed = transposed, dx = g.bool(), dweight = g.bool(), dbias = true}",
};
