/* SPDX-License-Identifier: MIT
** descriptors.h: what the descriptors of the convolution operators share.
**
** Three bilinear maps belong together: y = conv2d(x, w), dx = conv2d_grad_input(dy, w), dw = conv2d_grad_weight(x, dy).
** The gradient of each is made of the other two, so gradients of any order exist. conv_transpose2d is conv2d_grad_input
** with a bias and an activation; conv2d_backward computes the gradients of either at once.
*/
#ifndef MAREA_CONV_DESCRIPTORS_H
#define MAREA_CONV_DESCRIPTORS_H

#include "ops/vjp.h"
#include "geometry.h"

#define MAREA_CONV_ALGORITHM \
  { "algorithm", MAREA_ENUM, 0, "auto|direct", "'direct' computes each window by itself, exactly" }
#define MAREA_CONV_ALGORITHM_DOC                                                                             \
  " algorithm 'auto' may compute neighbouring results of an f32 convolution of 3x3 to 6x6 together, on "     \
  "fewer "                                                                                                   \
  "products: the rounding error of each, some 1e-6, is of the largest among the values they read together, " \
  "some pixels around the window, and one NaN or infinity spreads to all of them. So a large value changes " \
  "results whose windows do not hold it, by its own rounding error: 1e8 beside ones gives 66, say, where "   \
  "144 is right. 'direct', also by MAREA_CONV=direct in the environment, adds up the products of each "      \
  "window by itself, in all passes."

#define MAREA_CONV_ACTIVATION(doc)                              \
  {"activation", MAREA_ENUM, 0, MAREA_ACTIVATION_NAMES, doc}, { \
    "slope", MAREA_REAL, MAREA_NONE, NULL, MAREA_SLOPE_DOC      \
  }
#define MAREA_CONV_DILATION_GROUPS                                 \
  {"dilation", MAREA_PAIR, 1, NULL, "distance between taps"}, {    \
    "groups", MAREA_INT, 1, NULL, "independent groups of channels" \
  }

/* Attributes common to the samples of all four operators, and what they make of them. */
#define MAREA_CONV_SAMPLE_SIZES                                                 \
  "local groups, n = g.pick{1, 1, 2, 3}, g.int(0, 3)\n"                         \
  "local cin, cout = groups * g.int(0, 3), groups * g.int(0, 3)\n"              \
  "local kh, kw, sh, sw = g.int(1, 5), g.int(1, 5), g.int(1, 4), g.int(1, 4)\n" \
  "local dh, dw = g.int(1, 3), g.int(1, 3)\n"                                   \
  "local p = {g.int(0, 3), g.int(0, 3), g.int(0, 3), g.int(0, 3)}\n"            \
  "local eh, ew = dh * (kh - 1) + 1, dw * (kw - 1) + 1\n"
#define MAREA_CONV_SAMPLE_INPUT /* sizes h, w for which at least one output exists, and outputs oh, ow */ \
  "local h = math.max(eh - p[1] - p[2], 1) + g.int(0, 5)\n"                                               \
  "local w = math.max(ew - p[3] - p[4], 1) + g.int(0, 5)\n"                                               \
  "local oh, ow = (h + p[1] + p[2] - eh) // sh + 1, (w + p[3] + p[4] - ew) // sw + 1\n"

#define MAREA_CONV_SEQUENCE_ATTRS(step, around)                                      \
  {"stride", MAREA_INT, 1, NULL, step}, {                                            \
    "padding", MAREA_SIDES, 0, NULL, around ": an integer, {left, right}, or 'same'" \
  }
#define MAREA_CONV_SEQUENCE_DILATION_GROUPS                        \
  {"dilation", MAREA_INT, 1, NULL, "distance between taps"}, {     \
    "groups", MAREA_INT, 1, NULL, "independent groups of channels" \
  }
#define MAREA_CONV_SEQUENCE_SAMPLE                                                         \
  "local groups, n = g.pick{1, 1, 2, 3}, g.int(0, 3)\n"                                    \
  "local cin, cout = groups * g.int(0, 3), groups * g.int(0, 3)\n"                         \
  "local k, s, d, p = g.int(1, 5), g.int(1, 4), g.int(1, 3), {g.int(0, 3), g.int(0, 3)}\n" \
  "local e, bias = d * (k - 1) + 1, g.bool() and g.tensor{cout} or nil\n"

/* ---- checks of shape rules ---- */

/* bias (size), of in[0]'s dtype, if there is one */
marea_status marea_conv_check_bias (marea_call *c, int64_t size);
marea_tensor *marea_conv_bias (const marea_call *c);
marea_status marea_conv_reject_channels (marea_call *c, const char *name, int64_t channels,
                                         const marea_tensor *weight, int64_t groups, int64_t taken);
/* g := the sizes of the weight (KH, KW, cin / groups, cout) in forward terms; checks cout % groups. */
marea_status marea_conv_read_weight (marea_call *c, int input, const char *names, marea_conv *g);
void marea_conv_set_sizes (const marea_tensor *t, int64_t size[2]);
/* The result (n, size, channels); leaves g to forward. */
void marea_conv_layout_image (marea_call *c, const marea_conv *g, const int64_t size[2], int64_t channels);
/* What convolutions (x has size g->in, cin channels) and transposed ones (g->out, cout) read first: numbers, x, weight. */
marea_status marea_conv_read_operands (marea_call *c, marea_conv_attr_index at, bool transposed,
                                       marea_conv *g);
/* The rest of both shape rules, when g is known: bias, slope (an attribute), the result. */
marea_status marea_conv_finish_shape (marea_call *c, const marea_conv *g, int slope, bool transposed);
/* g->out := dy's sizes, which may be smaller than what the convolution gives (of output_padding) but not larger. */
marea_status marea_conv_read_output (marea_call *c, const marea_tensor *dy, marea_conv *g);

/* Products of groups of few channels would fill little of a tile, of depthwise ones 1/1024: f32's kernels are faster. */
bool marea_conv_takes_bf16 (const marea_call *c);

/* ---- forward ---- */

/* out[0] := act(conv2d(src, weight) + bias), or conv2d_grad_input(src, weight) in its place */
marea_status marea_conv_compute_images (marea_call *c, const marea_conv *g, bool input_gradient,
                                        const marea_tensor *src, const marea_tensor *weight,
                                        const marea_tensor *bias, marea_activation act, double slope);
/* Forward of both, with the geometry that the shape rule has left; slope's attribute stands behind activation's. */
marea_status marea_conv_forward (marea_call *c, int activation, bool transposed);
/* For profiles: every element of `small`, the side that has a pixel for each place of the kernel, is multiplied with
   `taps` (KH, KW, channels, ..) once. What padding adds or cuts off counts as work. */
double marea_conv_products (const marea_tensor *small, const marea_tensor *taps);

/* ---- vjps: the three maps as calls, with attributes as the shape rules left them ---- */

typedef struct marea_conv_attributes {
  marea_attr stride, padding, dilation, groups, algorithm;
} marea_conv_attributes;

/* `like`: the tensor whose shape the result has. */
marea_status marea_conv_run (marea_tensor *x, marea_tensor *weight, const marea_conv_attributes *g,
                             const marea_tensor *like, marea_tensor **out);
marea_status marea_conv_run_grad_input (marea_tensor *dy, marea_tensor *weight,
                                        const marea_conv_attributes *g, const marea_tensor *like,
                                        marea_tensor **out);
marea_status marea_conv_run_grad_weight (marea_tensor *x, marea_tensor *dy, const marea_conv_attributes *g,
                                         const marea_tensor *like, marea_tensor **out);

/* The vjp of an operator over sequences (N, T, C) by that of the one over images, which sees images of height 1. */
typedef marea_status marea_conv_vjp (marea_vjp *v);
marea_status marea_conv_sequence_vjp (marea_vjp *v, marea_conv_attr_index at, marea_conv_vjp *images);

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
/* All gradients by conv2d_backward; they are constants for the tape, which is right where nothing records. */
marea_status marea_conv_run_backward (marea_vjp *v, const marea_conv_attributes *g, marea_attr act,
                                      marea_attr slope, bool transposed);

#endif
