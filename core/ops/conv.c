/* SPDX-License-Identifier: MIT
** conv.c: two-dimensional convolution, transposed convolution and their gradients, channels last. Geometry is
** in conv_geometry.c, the passes over data in conv_pass.c.
**
** Three bilinear maps belong together: y = conv2d(x, w), dx = conv2d_grad_input(dy, w), dw =
** conv2d_grad_weight(x, dy). The gradient of each is made of the other two, so gradients of any order exist.
** conv_transpose2d is conv2d_grad_input with a bias and an activation.
*/
#include "conv_pass.h"
#include "vjp.h"

#define ALGORITHM \
  { "algorithm", MAREA_ENUM, 0, "auto|direct", "'direct' computes each window by itself, exactly" }
#define ALGORITHM_DOC                                                                                        \
  " algorithm 'auto' may compute neighbouring results of an f32 convolution of 3x3 to 6x6 together, on "     \
  "fewer "                                                                                                   \
  "products: the rounding error of each, some 1e-6, is of the largest among the values they read together, " \
  "some pixels around the window, and one NaN or infinity spreads to all of them. So a large value changes " \
  "results whose windows do not hold it, by its own rounding error: 1e8 beside ones gives 66, say, where "   \
  "144 is right. 'direct', also by MAREA_CONV=direct in the environment, adds up the products of each "      \
  "window by itself, in all passes."

#define ACTIVATIONS "none|relu|leaky_relu|elu|sigmoid|tanh|softplus"

/* Attributes common to the samples of all four operators, and what they make of them. */
#define SAMPLE_GEOMETRY                                                         \
  "local groups, n = g.pick{1, 1, 2, 3}, g.int(0, 3)\n"                         \
  "local cin, cout = groups * g.int(0, 3), groups * g.int(0, 3)\n"              \
  "local kh, kw, sh, sw = g.int(1, 5), g.int(1, 5), g.int(1, 4), g.int(1, 4)\n" \
  "local dh, dw = g.int(1, 3), g.int(1, 3)\n"                                   \
  "local p = {g.int(0, 3), g.int(0, 3), g.int(0, 3), g.int(0, 3)}\n"            \
  "local eh, ew = dh * (kh - 1) + 1, dw * (kw - 1) + 1\n"
#define SAMPLE_INPUT /* sizes h, w for which at least one output exists, and outputs oh, ow */ \
  "local h = math.max(eh - p[1] - p[2], 1) + g.int(0, 5)\n"                                    \
  "local w = math.max(ew - p[3] - p[4], 1) + g.int(0, 5)\n"                                    \
  "local oh, ow = (h + p[1] + p[2] - eh) // sh + 1, (w + p[3] + p[4] - ew) // sw + 1\n"

/* ---- what the operators share ---- */

/* bias (size), of in[0]'s dtype, if there is one */
static marea_status check_bias (marea_call *c, int64_t size) {
  if (c->n_in < 3 || !c->in[2]) return MAREA_OK;
  MAREA_TRY(marea_want_dtype(c, 2, 1 << c->in[0]->dtype));
  MAREA_TRY(marea_want_rank(c, 2, 1, "(Cout)"));
  return marea_want_size(c, 2, 0, size, "as many as the result has channels");
}

static marea_tensor *bias_of (const marea_call *c) { return c->n_in > 2 ? c->in[2] : NULL; }

static marea_status reject_channels (marea_call *c, const char *name, int64_t channels,
                                     const marea_tensor *weight, int64_t groups, int64_t taken) {
  const marea_text shape = marea_shape_text(weight->rank, weight->shape);
  if (groups == 1)
    return marea_reject(c, MAREA_ESHAPE, "%s has %lld channels, weight %s takes %lld", name,
                        (long long)channels, shape.s, (long long)taken);
  return marea_reject(c, MAREA_ESHAPE, "%s has %lld channels, weight %s with groups=%lld takes %lld", name,
                      (long long)channels, shape.s, (long long)groups, (long long)taken);
}

/* The weight (KH, KW, cin / groups, cout) in forward terms; checks cout % groups. */
static marea_status read_weight (marea_call *c, int input, const char *names, marea_conv *g) {
  const marea_tensor *weight = c->in[input];
  MAREA_TRY(marea_want_dtype(c, input, 1 << c->in[0]->dtype));
  MAREA_TRY(marea_want_rank(c, input, 4, names));
  g->kernel[0] = weight->shape[0];
  g->kernel[1] = weight->shape[1];
  g->cout = weight->shape[3];
  if (__builtin_mul_overflow(weight->shape[2], g->groups, &g->cin))
    return marea_reject(c, MAREA_EARG, "argument 'groups': %lld is too large", (long long)g->groups);
  if (g->cout % g->groups != 0)
    return marea_reject(c, MAREA_ESHAPE, "weight %s: its last size %lld is not divisible by groups=%lld",
                        marea_shape_text(weight->rank, weight->shape).s, (long long)g->cout,
                        (long long)g->groups);
  return MAREA_OK;
}

static void set_sizes (const marea_tensor *t, int64_t size[2]) {
  size[0] = t->shape[1];
  size[1] = t->shape[2];
}

static void layout_image (marea_call *c, int64_t n, const int64_t size[2], int64_t channels) {
  const int64_t shape[] = {n, size[0], size[1], channels};
  marea_layout_set(&c->layout[0], c->in[0]->dtype, 4, shape);
}

/* g->out := dy's sizes, which may be smaller than what the convolution gives (of output_padding) but not
   larger. */
static marea_status read_output (marea_call *c, const marea_tensor *dy, marea_conv *g) {
  int64_t most[2];
  MAREA_TRY(marea_conv_size(c, g, most));
  set_sizes(dy, g->out);
  if (g->out[0] > most[0] || g->out[1] > most[1])
    return marea_reject(c, MAREA_ESHAPE, "dy is %lldx%lld, but a convolution of %lldx%lld gives %lldx%lld",
                        (long long)g->out[0], (long long)g->out[1], (long long)g->in[0], (long long)g->in[1],
                        (long long)most[0], (long long)most[1]);
  return MAREA_OK;
}

/* t, cut to the height and width of `like` where it is larger */
static marea_status crop_to (marea_tensor *t, const marea_tensor *like, marea_tensor **out) {
  MAREA_OWN rows = NULL;
  if (t->shape[1] == like->shape[1]) rows = marea_retain(t);
  else MAREA_TRY(marea_narrow_to(t, 1, 0, like->shape[1], &rows));
  if (t->shape[2] != like->shape[2]) return marea_narrow_to(rows, 2, 0, like->shape[2], out);
  *out = marea_retain(rows);
  return MAREA_OK;
}

/* For profiles: every image element of `small`, the side that a kernel is put to, meets `taps` (KH, KW, channels, ..)
   once. What padding adds or cuts off is counted as work. */
static double products (const marea_tensor *small, const marea_tensor *taps) {
  return 2.0 * (double)marea_tensor_size(small) * (double)marea_count(3, taps->shape);
}

/* ---- the three maps as calls; attributes as the shape rules left them ---- */

typedef struct geometry {
  marea_attr stride, padding, dilation, groups, algorithm;
} geometry;

/* ORDER of conv2d_backward's attributes */
enum {
  BACK_STRIDE,
  BACK_PADDING,
  BACK_DILATION,
  BACK_GROUPS,
  BACK_ACTIVATION,
  BACK_SLOPE,
  BACK_TRANSPOSED,
  BACK_DX,
  BACK_DW,
  BACK_DB,
  BACK_ALGORITHM
};

static marea_status run_conv (marea_tensor *x, marea_tensor *weight, const geometry *g,
                              const marea_tensor *like, marea_tensor **out) {
  marea_attr a[] = {g->stride,          g->padding,  g->dilation, g->groups, marea_attr_int(MAREA_ACT_NONE),
                    marea_attr_real(0), g->algorithm};
  MAREA_OWN y = NULL;
  MAREA_TRY(marea_run_with(x->ctx, &marea_op_conv2d, a, &y, 2, x, weight));
  return crop_to(y, like, out);
}

static marea_status run_grad_input (marea_tensor *dy, marea_tensor *weight, const geometry *g,
                                    const marea_tensor *like, marea_tensor **out) {
  marea_attr a[] = {
      marea_attr_list(2, like->shape + 1), g->stride, g->padding, g->dilation, g->groups, g->algorithm};
  return marea_run_with(dy->ctx, &marea_op_conv2d_grad_input, a, out, 2, dy, weight);
}

static marea_status run_grad_weight (marea_tensor *x, marea_tensor *dy, const geometry *g,
                                     const marea_tensor *like, marea_tensor **out) {
  marea_attr a[] = {
      marea_attr_list(2, like->shape), g->stride, g->padding, g->dilation, g->groups, g->algorithm};
  return marea_run_with(x->ctx, &marea_op_conv2d_grad_weight, a, out, 2, x, dy);
}

/* out := act(conv2d or conv2d_grad_input of src and weight + bias) */
static marea_status gather (marea_call *c, const marea_conv *g, bool backward, const marea_tensor *src,
                            const marea_tensor *weight, const marea_tensor *bias, marea_activation act,
                            double slope) {
  const marea_conv_source source = {.t = src};
  marea_conv_gather pass;
  marea_tensor *out = c->out[0];
  if (marea_count(out->rank, out->shape) == 0) return MAREA_OK;
  MAREA_TRY(marea_conv_gather_open(c, g, backward, &source, weight, bias, act, slope, out, &pass));
  marea_conv_gather_run(c, g, &pass);
  return MAREA_OK;
}

/* The gradients in one walk; they are constants for the tape, which is right where nothing records. */
static marea_status run_backward (marea_vjp *v, const geometry *g, marea_attr act, marea_attr slope,
                                  bool transposed) {
  const bool bias = v->n_in > 2 && v->need[2];
  const marea_attr a[] = {g->stride,
                          g->padding,
                          g->dilation,
                          g->groups,
                          act,
                          slope,
                          marea_attr_int(transposed),
                          marea_attr_int(v->need[0]),
                          marea_attr_int(v->need[1]),
                          marea_attr_int(bias),
                          g->algorithm};
  marea_tensor *in[] = {v->dout[0], v->in[0], v->in[1], act.i == MAREA_ACT_NONE ? NULL : v->out[0]}, *out[3];
  int n;
  MAREA_TRY(marea_invoke(v->ctx, &marea_op_conv2d_backward, 4, in, a, out, &n));
  for (int i = 0, k = 0; k < n; i++)
    if (a[BACK_DX + i].i) v->din[i] = out[k++];
  return MAREA_OK;
}

/* ---- conv2d ---- */

/* ORDER of attributes */
enum { CONV_STRIDE, CONV_PADDING, CONV_DILATION, CONV_GROUPS, CONV_ACTIVATION, CONV_SLOPE, CONV_ALGORITHM };
static const marea_conv_attrs conv_attrs = {CONV_STRIDE, CONV_PADDING, CONV_DILATION, CONV_GROUPS,
                                            CONV_ALGORITHM};

static marea_status conv2d_read (marea_call *c, marea_conv *g) {
  const marea_tensor *x = c->in[0];
  MAREA_TRY(marea_conv_read(c, conv_attrs, g));
  MAREA_TRY(marea_want_rank(c, 0, 4, "(N, H, W, Cin)"));
  MAREA_TRY(read_weight(c, 1, "(KH, KW, Cin / groups, Cout)", g));
  if (x->shape[3] != g->cin) return reject_channels(c, "x", x->shape[3], c->in[1], g->groups, g->cin);
  g->n = x->shape[0];
  set_sizes(x, g->in);
  MAREA_TRY(marea_conv_padding(c, conv_attrs, g));
  return marea_conv_size(c, g, g->out);
}

static marea_status conv2d_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(conv2d_read(c, &g));
  MAREA_TRY(check_bias(c, g.cout));
  MAREA_TRY(marea_want_slope(c, CONV_SLOPE));
  layout_image(c, g.n, g.out, g.cout);
  return MAREA_OK;
}

static marea_status conv2d_forward (marea_call *c) {
  marea_conv g;
  MAREA_TRY(conv2d_read(c, &g));
  return gather(c, &g, false, c->in[0], c->in[1], bias_of(c), (marea_activation)c->attr[CONV_ACTIVATION].i,
                c->attr[CONV_SLOPE].f);
}

static marea_status conv2d_vjp (marea_vjp *v) {
  const geometry g = {v->attr[CONV_STRIDE], v->attr[CONV_PADDING], v->attr[CONV_DILATION],
                      v->attr[CONV_GROUPS], v->attr[CONV_ALGORITHM]};
  MAREA_OWN dpre = NULL;
  if (!v->ctx->recording) return run_backward(v, &g, v->attr[CONV_ACTIVATION], v->attr[CONV_SLOPE], false);
  MAREA_TRY(
      marea_before_activation(v->dout[0], v->out[0], v->attr[CONV_ACTIVATION], v->attr[CONV_SLOPE], &dpre));
  if (v->need[0]) MAREA_TRY(run_grad_input(dpre, v->in[1], &g, v->in[0], &v->din[0]));
  if (v->need[1]) MAREA_TRY(run_grad_weight(v->in[0], dpre, &g, v->in[1], &v->din[1]));
  if (v->n_in > 2 && v->need[2]) MAREA_TRY(marea_sum_first(dpre, 3, &v->din[2]));
  return MAREA_OK;
}

static double conv2d_flop (const marea_call *c) { return products(c->out[0], c->in[1]); }

const marea_op marea_op_conv2d = {
    .name = "conv2d",
    .family = "conv",
    .doc =
        "y[n, oy, ox, co] = act(bias[co] + sum over ky, kx, ci of x[n, oy*s + ky*d - top, ox*s + kx*d - "
        "left, ci] * weight[ky, kx, ci, co]), x being 0 outside. x: (N, H, W, Cin); weight: (KH, KW, Cin / "
        "groups, Cout); bias: (Cout); y: (N, OH, OW, Cout) with OH = floor((H + top + bottom - d*(KH - 1) "
        "- 1) / s) + 1. 'same' pads so that OH = ceil(H / s), an odd pixel after (as in Keras). groups: "
        "channels are cut into that many independent convolutions." ALGORITHM_DOC
        " Gradient, with e = dy * act'(y): "
        "conv2d_grad_input(e, weight), conv2d_grad_weight(x, e), sum of e over N, OH, OW. Errors: channels "
        "that do not fit, a kernel larger than the padded input.",
    .inputs = {{"x", "(N, H, W, Cin)"},
               {"weight", "(KH, KW, Cin / groups, Cout)"},
               {"bias", "(Cout)", .optional = true}},
    .attrs = {{"stride", MAREA_PAIR, 1, NULL, "step of the kernel, height and width"},
              {"padding", MAREA_PADDING, 0, NULL, "zeros around x: top, bottom, left, right, or 'same'"},
              {"dilation", MAREA_PAIR, 1, NULL, "distance between taps"},
              {"groups", MAREA_INT, 1, NULL, "independent groups of channels"},
              {"activation", MAREA_ENUM, 0, ACTIVATIONS, "applied to the sum"},
              {"slope", MAREA_REAL, MAREA_NONE, NULL, MAREA_SLOPE_DOC},
              ALGORITHM},
    .saves_in = 3,
    .saves_out = 1,
    .flags = MAREA_DRY,
    .shape = conv2d_shape,
    .forward = conv2d_forward,
    .vjp = conv2d_vjp,
    .flop = conv2d_flop,
    .sample = SAMPLE_GEOMETRY SAMPLE_INPUT
    "return {g.tensor{n, h, w, cin}, g.tensor{kh, kw, cin // groups, cout}, "
    "g.bool() and g.tensor{cout} or nil},\n"
    "  {stride = {sh, sw}, padding = g.pick{p, p, 'same'}, dilation = {dh, dw}, groups = groups,\n"
    "  activation = g.pick{'none', 'none', 'sigmoid', 'tanh', 'softplus'}}",
};

/* ---- conv2d_grad_input ---- */

/* ORDER of both gradients' attributes */
enum { GRAD_SIZE, GRAD_STRIDE, GRAD_PADDING, GRAD_DILATION, GRAD_GROUPS, GRAD_ALGORITHM };
static const marea_conv_attrs grad_attrs = {GRAD_STRIDE, GRAD_PADDING, GRAD_DILATION, GRAD_GROUPS,
                                            GRAD_ALGORITHM};

static geometry grad_geometry (const marea_vjp *v) {
  return (geometry){v->attr[GRAD_STRIDE], v->attr[GRAD_PADDING], v->attr[GRAD_DILATION], v->attr[GRAD_GROUPS],
                    v->attr[GRAD_ALGORITHM]};
}

static marea_status grad_input_read (marea_call *c, marea_conv *g) {
  const marea_tensor *dy = c->in[0];
  MAREA_TRY(marea_conv_read(c, grad_attrs, g));
  MAREA_TRY(marea_want_rank(c, 0, 4, "(N, OH, OW, Cout)"));
  MAREA_TRY(read_weight(c, 1, "(KH, KW, Cin / groups, Cout)", g));
  if (dy->shape[3] != g->cout) return reject_channels(c, "dy", dy->shape[3], c->in[1], g->groups, g->cout);
  g->n = dy->shape[0];
  for (int d = 0; d < 2; d++) {
    g->in[d] = c->attr[GRAD_SIZE].v[d];
    if (g->in[d] < 0 || g->in[d] > INT32_MAX)
      return marea_reject(c, MAREA_EARG, "argument 'size': %lld is out of range", (long long)g->in[d]);
  }
  MAREA_TRY(marea_conv_padding(c, grad_attrs, g));
  return read_output(c, dy, g);
}

static marea_status grad_input_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(grad_input_read(c, &g));
  layout_image(c, g.n, g.in, g.cin);
  return MAREA_OK;
}

static marea_status grad_input_forward (marea_call *c) {
  marea_conv g;
  MAREA_TRY(grad_input_read(c, &g));
  return gather(c, &g, true, c->in[0], c->in[1], NULL, MAREA_ACT_NONE, 0);
}

static marea_status grad_input_vjp (marea_vjp *v) {
  const geometry g = grad_geometry(v);
  if (v->need[0]) MAREA_TRY(run_conv(v->dout[0], v->in[1], &g, v->in[0], &v->din[0]));
  if (v->need[1]) MAREA_TRY(run_grad_weight(v->dout[0], v->in[0], &g, v->in[1], &v->din[1]));
  return MAREA_OK;
}

static double grad_input_flop (const marea_call *c) { return products(c->in[0], c->in[1]); }

const marea_op marea_op_conv2d_grad_input = {
    .name = "conv2d_grad_input",
    .family = "conv",
    .doc = "Gradient of conv2d with respect to its input x of height and width `size`: dx[n, iy, ix, ci] = "
           "sum of dy[n, oy, ox, co] * weight[ky, kx, ci, co] over all oy*s + ky*d - top = iy, ox*s + kx*d - "
           "left = ix. dy: (N, OH, OW, Cout), OH and OW at most what the convolution gives; weight: (KH, KW, "
           "Cin / groups, Cout); dx: (N, H, W, Cin). Gradient: conv2d(g, weight), conv2d_grad_weight(g, dy). "
           "Errors as for conv2d.",
    .inputs = {{"dy", "(N, OH, OW, Cout)"}, {"weight", "(KH, KW, Cin / groups, Cout)"}},
    .attrs = {{"size", MAREA_PAIR, MAREA_REQUIRED, NULL, "height and width of x"},
              {"stride", MAREA_PAIR, 1, NULL, "step of the kernel"},
              {"padding", MAREA_PADDING, 0, NULL, "zeros around x: top, bottom, left, right, or 'same'"},
              {"dilation", MAREA_PAIR, 1, NULL, "distance between taps"},
              {"groups", MAREA_INT, 1, NULL, "independent groups of channels"},
              ALGORITHM},
    .saves_in = 3,
    .flags = MAREA_DRY,
    .shape = grad_input_shape,
    .forward = grad_input_forward,
    .vjp = grad_input_vjp,
    .flop = grad_input_flop,
    .sample = SAMPLE_GEOMETRY SAMPLE_INPUT
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
  set_sizes(x, g->in);
  g->kernel[0] = c->attr[GRAD_SIZE].v[0];
  g->kernel[1] = c->attr[GRAD_SIZE].v[1];
  if (g->kernel[0] < 1 || g->kernel[0] > INT32_MAX || g->kernel[1] < 1 || g->kernel[1] > INT32_MAX)
    return marea_reject(c, MAREA_EARG, "argument 'kernel': %lldx%lld is out of range",
                        (long long)g->kernel[0], (long long)g->kernel[1]);
  MAREA_TRY(marea_conv_padding(c, grad_attrs, g));
  return read_output(c, dy, g);
}

static marea_status grad_weight_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(grad_weight_read(c, &g));
  const int64_t shape[] = {g.kernel[0], g.kernel[1], g.cin / g.groups, g.cout};
  marea_layout_set(&c->layout[0], c->in[0]->dtype, 4, shape);
  return MAREA_OK;
}

/* Nothing to add up, or nowhere to put it? Then out is zeros. */
static bool clear_empty (const marea_tensor *summed, marea_tensor *out) {
  const int64_t count = marea_count(out->rank, out->shape);
  if (count > 0 && marea_count(summed->rank, summed->shape) > 0) return false;
  if (!out->ctx->dry) memset(marea_at(out), 0, (size_t)count * marea_dtype_size((marea_dtype)out->dtype));
  return true;
}

static marea_status grad_weight_forward (marea_call *c) {
  marea_conv g;
  MAREA_TRY(grad_weight_read(c, &g));
  const marea_conv_source x = {.t = c->in[0]}, dy = {.t = c->in[1]};
  marea_conv_correlate pass;
  if (clear_empty(c->in[1], c->out[0])) return MAREA_OK;
  MAREA_TRY(marea_conv_correlate_open(c, &g, &x, &dy, c->out[0], &pass));
  marea_conv_correlate_run(&pass);
  marea_conv_correlate_finish(&pass);
  return MAREA_OK;
}

static marea_status grad_weight_vjp (marea_vjp *v) {
  const geometry g = grad_geometry(v);
  if (v->need[0]) MAREA_TRY(run_grad_input(v->in[1], v->dout[0], &g, v->in[0], &v->din[0]));
  if (v->need[1]) MAREA_TRY(run_conv(v->in[0], v->dout[0], &g, v->in[1], &v->din[1]));
  return MAREA_OK;
}

static double grad_weight_flop (const marea_call *c) { return products(c->in[1], c->out[0]); }

const marea_op marea_op_conv2d_grad_weight = {
    .name = "conv2d_grad_weight",
    .family = "conv",
    .doc = "Gradient of conv2d with respect to its weight of height and width `kernel`: dweight[ky, kx, ci, "
           "co] = sum over n, oy, ox of x[n, oy*s + ky*d - top, ox*s + kx*d - left, ci] * dy[n, oy, ox, co]. "
           "x: (N, H, W, Cin); dy: (N, OH, OW, Cout), OH and OW at most what the convolution gives; dweight: "
           "(KH, KW, Cin / groups, Cout). Gradient: conv2d_grad_input(dy, g), conv2d(x, g). Errors as for "
           "conv2d.",
    .inputs = {{"x", "(N, H, W, Cin)"}, {"dy", "(N, OH, OW, Cout)"}},
    .attrs = {{"kernel", MAREA_PAIR, MAREA_REQUIRED, NULL, "height and width of the kernel"},
              {"stride", MAREA_PAIR, 1, NULL, "step of the kernel"},
              {"padding", MAREA_PADDING, 0, NULL, "zeros around x: top, bottom, left, right, or 'same'"},
              {"dilation", MAREA_PAIR, 1, NULL, "distance between taps"},
              {"groups", MAREA_INT, 1, NULL, "independent groups of channels"},
              ALGORITHM},
    .saves_in = 3,
    .flags = MAREA_DRY,
    .shape = grad_weight_shape,
    .forward = grad_weight_forward,
    .vjp = grad_weight_vjp,
    .flop = grad_weight_flop,
    .sample = SAMPLE_GEOMETRY SAMPLE_INPUT
    "return {g.tensor{n, h, w, cin}, g.tensor{n, oh, ow, cout}},\n"
    "  {kernel = {kh, kw}, stride = {sh, sw}, padding = p, dilation = {dh, dw}, groups = groups}",
};

/* ---- conv_transpose2d ---- */

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
static const marea_conv_attrs deconv_attrs = {DECONV_STRIDE, DECONV_PADDING, DECONV_DILATION, DECONV_GROUPS,
                                              DECONV_ALGORITHM};

/* g->in := the result's sizes: (in - 1) * stride + dilated kernel + output_padding - crop, or in * stride
   ('same') */
static marea_status deconv_sizes (marea_call *c, marea_conv *g) {
  const bool same = c->attr[DECONV_PADDING].n == MAREA_SAME;
  for (int d = 0; d < 2; d++) {
    const int64_t extra = c->attr[DECONV_OUTPUT_PADDING].v[d];
    if (extra < 0 || extra >= MAREA_MAX(g->stride[d], g->dilation[d]))
      return marea_reject(c, MAREA_EARG,
                          "argument 'output_padding': %lld is not less than the larger of stride %lld and "
                          "dilation %lld",
                          (long long)extra, (long long)g->stride[d], (long long)g->dilation[d]);
    if (same && extra != 0)
      return marea_reject(c, MAREA_EARG, "argument 'output_padding': must be 0 with padding 'same'");
    if (g->out[d] < 1)
      return marea_reject(c, MAREA_ESHAPE, "x %s has no pixels", marea_tensor_text(c->in[0]).s);
    if (same) g->in[d] = g->out[d] * g->stride[d];
    else g->in[d] = (g->out[d] - 1) * g->stride[d] + g->dilation[d] * (g->kernel[d] - 1) + 1 + extra;
  }
  MAREA_TRY(marea_conv_padding(c, deconv_attrs, g));
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
static marea_status deconv_read (marea_call *c, marea_conv *g) {
  int64_t most[2];
  const marea_tensor *x = c->in[0];
  MAREA_TRY(marea_conv_read(c, deconv_attrs, g));
  MAREA_TRY(marea_want_rank(c, 0, 4, "(N, H, W, Cin)"));
  MAREA_TRY(read_weight(c, 1, "(KH, KW, Cout / groups, Cin)", g));
  if (x->shape[3] != g->cout) return reject_channels(c, "x", x->shape[3], c->in[1], g->groups, g->cout);
  g->n = x->shape[0];
  set_sizes(x, g->out);
  MAREA_TRY(deconv_sizes(c, g));
  return marea_conv_size(c, g, most); /* an empty kernel */
}

static marea_status deconv_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(deconv_read(c, &g));
  MAREA_TRY(check_bias(c, g.cin));
  MAREA_TRY(marea_want_slope(c, DECONV_SLOPE));
  layout_image(c, g.n, g.in, g.cin);
  return MAREA_OK;
}

static marea_status deconv_forward (marea_call *c) {
  const marea_tensor *x = c->in[0], *y = c->out[0];
  marea_conv g;
  MAREA_TRY(marea_conv_read(c, deconv_attrs, &g));
  MAREA_TRY(read_weight(c, 1, "(KH, KW, Cout / groups, Cin)", &g));
  g.n = x->shape[0];
  set_sizes(x, g.out);
  set_sizes(y, g.in);
  MAREA_TRY(marea_conv_padding(c, deconv_attrs, &g));
  return gather(c, &g, true, x, c->in[1], bias_of(c), (marea_activation)c->attr[DECONV_ACTIVATION].i,
                c->attr[DECONV_SLOPE].f);
}

static marea_status deconv_vjp (marea_vjp *v) {
  const geometry g = {v->attr[DECONV_STRIDE], v->attr[DECONV_PADDING], v->attr[DECONV_DILATION],
                      v->attr[DECONV_GROUPS], v->attr[DECONV_ALGORITHM]};
  MAREA_OWN dpre = NULL;
  if (!v->ctx->recording) return run_backward(v, &g, v->attr[DECONV_ACTIVATION], v->attr[DECONV_SLOPE], true);
  MAREA_TRY(marea_before_activation(v->dout[0], v->out[0], v->attr[DECONV_ACTIVATION], v->attr[DECONV_SLOPE],
                                    &dpre));
  if (v->need[0]) MAREA_TRY(run_conv(dpre, v->in[1], &g, v->in[0], &v->din[0]));
  if (v->need[1]) MAREA_TRY(run_grad_weight(dpre, v->in[0], &g, v->in[1], &v->din[1]));
  if (v->n_in > 2 && v->need[2]) MAREA_TRY(marea_sum_first(dpre, 3, &v->din[2]));
  return MAREA_OK;
}

static double deconv_flop (const marea_call *c) { return products(c->in[0], c->in[1]); }

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
    .attrs = {{"stride", MAREA_PAIR, 1, NULL, "step of the kernel in y, height and width"},
              {"padding", MAREA_PADDING, 0, NULL, "cut off y: top, bottom, left, right, or 'same'"},
              {"output_padding", MAREA_PAIR, 0, NULL, "rows and columns added at the bottom and right"},
              {"dilation", MAREA_PAIR, 1, NULL, "distance between taps"},
              {"groups", MAREA_INT, 1, NULL, "independent groups of channels"},
              {"activation", MAREA_ENUM, 0, ACTIVATIONS, "applied to the sum"},
              {"slope", MAREA_REAL, MAREA_NONE, NULL, MAREA_SLOPE_DOC},
              ALGORITHM},
    .saves_in = 3,
    .saves_out = 1,
    .flags = MAREA_DRY,
    .shape = deconv_shape,
    .forward = deconv_forward,
    .vjp = deconv_vjp,
    .flop = deconv_flop,
    .sample = SAMPLE_GEOMETRY
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

/* ---- conv2d_backward ---- */

static const marea_conv_attrs back_attrs = {BACK_STRIDE, BACK_PADDING, BACK_DILATION, BACK_GROUPS,
                                            BACK_ALGORITHM};

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
  MAREA_TRY(read_weight(c, 2, "as of the convolution", g));
  g->n = c->in[0]->shape[0];
  set_sizes(c->in[in], g->in);
  if (c->in[in]->shape[3] != g->cin)
    return reject_channels(c, c->op->inputs[in].name, c->in[in]->shape[3], c->in[2], g->groups, g->cin);
  if (c->in[out]->shape[3] != g->cout)
    return reject_channels(c, c->op->inputs[out].name, c->in[out]->shape[3], c->in[2], g->groups, g->cout);
  MAREA_TRY(marea_conv_padding(c, back_attrs, g));
  return read_output(c, c->in[out], g);
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
  MAREA_TRY(backward_read(c, &g));
  for (int i = 0, k = 0; i < 3; i++) {
    if (!c->attr[BACK_DX + i].i) continue;
    wanted[i] = c->out[k++];
    if (clear_empty(c->in[0], wanted[i])) wanted[i] = NULL;
  }
  return marea_conv_backward(c, &g, c->attr[BACK_TRANSPOSED].i != 0, &e, c->in[1], c->in[2], wanted[0],
                             wanted[1], wanted[2]);
}

static double backward_flop (const marea_call *c) {
  const bool transposed = c->attr[BACK_TRANSPOSED].i != 0;
  return (double)(c->attr[BACK_DX].i + c->attr[BACK_DW].i) * products(c->in[transposed], c->in[2]);
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
    .attrs = {{"stride", MAREA_PAIR, 1, NULL, "step of the kernel"},
              {"padding", MAREA_PADDING, 0, NULL, "top, bottom, left, right, or 'same'"},
              {"dilation", MAREA_PAIR, 1, NULL, "distance between taps"},
              {"groups", MAREA_INT, 1, NULL, "independent groups of channels"},
              {"activation", MAREA_ENUM, 0, ACTIVATIONS, "behind the convolution"},
              {"slope", MAREA_REAL, MAREA_NONE, NULL, MAREA_SLOPE_DOC},
              {"transposed", MAREA_BOOL, 0, NULL, "of conv_transpose2d"},
              {"dx", MAREA_BOOL, 1, NULL, "give x's gradient"},
              {"dweight", MAREA_BOOL, 1, NULL, "give weight's gradient"},
              {"dbias", MAREA_BOOL, 1, NULL, "give the bias' gradient"},
              ALGORITHM},
    .flags = MAREA_NO_GRAD | MAREA_DRY,
    .shape = backward_shape,
    .forward = backward_forward,
    .flop = backward_flop,
    .sample = SAMPLE_GEOMETRY SAMPLE_INPUT
    "local transposed, act = g.bool(), g.pick{'none', 'relu', 'tanh'}\n"
    "local large, small = {n, h, w, cin}, {n, oh, ow, cout}\n"
    "local dy, x = transposed and large or small, transposed and small or large\n"
    "return {g.tensor(dy), g.tensor(x), g.tensor{kh, kw, cin // groups, cout}, "
    "act ~= 'none' and g.tensor(dy) or nil},\n"
    "  {stride = {sh, sw}, padding = p, dilation = {dh, dw}, groups = groups, activation = act,\n"
    "  transposed = transposed, dx = g.bool(), dweight = g.bool(), dbias = true}",
};
