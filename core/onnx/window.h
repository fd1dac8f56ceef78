/* SPDX-License-Identifier: MIT
** window.h: the windows of convolutions and pooling over images with one to three dimensions, channels last, and steps
** that their handlers share.
*/
#ifndef MAREA_ONNX_WINDOW_H
#define MAREA_ONNX_WINDOW_H

#include "node.h"

#define ONNX_MOST_SPATIAL 3

typedef struct onnx_windows {
  int d; /* spatial dimensions; the i-th is dimension 1 + i of an image (N, ..., C) */
  int64_t in[ONNX_MOST_SPATIAL], kernel[ONNX_MOST_SPATIAL], stride[ONNX_MOST_SPATIAL],
      dilation[ONNX_MOST_SPATIAL];
  int64_t before[ONNX_MOST_SPATIAL], after[ONNX_MOST_SPATIAL], out[ONNX_MOST_SPATIAL];
  int64_t groups; /* of a convolution */
  bool exact;     /* it computes each window by itself, so that whole numbers stay whole */
  enum { ONNX_PADS, ONNX_SAME_UPPER, ONNX_SAME_LOWER } padding;
} onnx_windows;

/* Reads kernel_shape, strides, dilations, pads and auto_pad for an image x; `kernel`: those of the weight, NULL: there
   is none. `out` is left to the next two, `before` and `after` too where auto_pad says "same". */
bool marea_onnx_read_windows (onnx_node *n, const value *x, const int64_t *kernel, onnx_windows *w);
/* Paddings of SAME, and the sizes of the result; with `ceil` a last window may reach over the end. */
bool marea_onnx_place_windows (onnx_node *n, onnx_windows *w, bool ceil);

static inline int64_t marea_onnx_reach (const onnx_windows *w, int i) {
  return (w->kernel[i] - 1) * w->dilation[i] + 1;
}
bool marea_onnx_is_dilated (const onnx_windows *w);

/* Those of the second and third dimension */
onnx_windows marea_onnx_frame (const onnx_windows *w);

/* As conv2d and others take them, or conv1d where there is one dimension: one number of each, and padding */
marea_named marea_onnx_sizes (const char *name, const onnx_windows *w, const int64_t *sizes);
#define ONNX_PADDING(w) \
  marea_ints("padding", 2 * (w)->d, (int64_t[]){(w)->before[0], (w)->after[0], (w)->before[1], (w)->after[1]})

/* conv.c: a weight (M, C, k...) as (k..., C, M), which is Marea's order, for transposed convolutions too */
value *marea_onnx_turned (onnx_node *n, value *weight);
/* A convolution as the node's attributes say, of an image with a weight in ONNX's order */
value *marea_onnx_convolve (onnx_node *n, value *x, value *weight, value *bias, bool exact);

/* ---- parts of tensors, by position from 0 ---- */

value *marea_onnx_narrow (onnx_node *n, value *x, int dim, int64_t start, int64_t length);
/* `count` elements of a dimension: start, start + step, ... */
value *marea_onnx_stride (onnx_node *n, value *x, int dim, int64_t start, int64_t step, int64_t count);
/* Is it a number of elements that may be put around something, or cut off? */
bool marea_onnx_is_pad (onnx_node *n, int64_t pad);
/* Are these the sizes of parts of a dimension? */
bool marea_onnx_are_parts (onnx_node *n, const onnx_ints *sizes, int64_t size);
/* One dimension with `number` put around it, or cut where before or after is negative */
value *marea_onnx_pad (onnx_node *n, value *x, int dim, int64_t before, int64_t after, double number);

/* The first two dimensions as one, and back: (N, D, ...) as images (N D, ...) */
value *marea_onnx_join (onnx_node *n, value *x);
value *marea_onnx_part (onnx_node *n, value *x, int64_t depth);

/* Where dimension d of ONNX lies in a tensor of this rank with channels last */
static inline int marea_onnx_place (bool channels_last, int d, int rank) {
  return !channels_last || d == 0 ? d : d == 1 ? rank - 1 : d - 1;
}

#endif
