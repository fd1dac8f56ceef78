/* SPDX-License-Identifier: MIT
** save_conv.c: convolutions, pooling and larger images. Weights are written in ONNX's order.
*/
#include "save.h"

/* ---- convolutions ---- */

#define MOST_DIMS 2

typedef struct windows {
  int d; /* spatial dimensions */
  int64_t kernel[MOST_DIMS], stride[MOST_DIMS], dilation[MOST_DIMS], before[MOST_DIMS], after[MOST_DIMS],
      more[MOST_DIMS];
  bool same; /* left to ONNX, as the sizes are free */
} windows;

static const int64_t one[MOST_DIMS] = {1, 1};

/* An attribute with a number for each dimension; `initial` where it is left out */
static void sizes_of (const onnx_saver *s, const char *name, const windows *w, const int64_t *initial,
                      int64_t *to) {
  const marea_attr *a = marea_onnx_attr(s, name);
  for (int i = 0; i < w->d; i++) to[i] = a->n == 0 ? initial[i] : w->d == 1 ? a->i : a->v[i];
}

static int64_t extent (const windows *w, int i) { return (w->kernel[i] - 1) * w->dilation[i] + 1; }

/* As much as keeps ceil(size / stride); of a transposed convolution as much as gives size * stride. */
static void pad_same (onnx_saver *s, windows *w, bool transposed) {
  for (int i = 0; i < w->d; i++) {
    const int64_t in = layout_in(s, 0)->shape[1 + i], step = w->stride[i];
    const int64_t out = (in + step - 1) / step;
    const int64_t total = transposed ? extent(w, i) - step : (out - 1) * step + extent(w, i) - in;
    w->before[i] = MAREA_MAX(total, 0) / 2;
    w->after[i] = MAREA_MAX(total, 0) - w->before[i];
    w->more[i] = transposed ? MAREA_MAX(-total, 0) : 0;
    w->same |= !transposed && step > 1 && marea_onnx_is_free(s, slot_in(s, 0), 1 + i);
  }
}

/* By the attributes stride, padding, dilation and output_padding; w->kernel is set. */
static void read_windows (onnx_saver *s, windows *w, bool transposed) {
  const marea_attr *padding = marea_onnx_attr(s, "padding");
  sizes_of(s, "stride", w, w->kernel, w->stride);
  sizes_of(s, "dilation", w, one, w->dilation);
  if (transposed) sizes_of(s, "output_padding", w, one, w->more);
  for (int i = 0; i < w->d; i++) {
    w->before[i] = padding->v[2 * i];
    w->after[i] = padding->v[2 * i + 1];
  }
  if (padding->n == MAREA_SAME) pad_same(s, w, transposed);
  for (int i = 0; i < w->d; i++) { /* what is cut off need not be added first */
    const int64_t both = MAREA_MIN(w->after[i], transposed ? w->more[i] : 0);
    w->after[i] -= both;
    w->more[i] -= both;
  }
}

static void put_windows (onnx_saver *s, const windows *w) {
  int64_t pads[2 * MOST_DIMS];
  for (int i = 0; i < w->d; i++) {
    pads[i] = w->before[i];
    pads[w->d + i] = w->after[i];
  }
  marea_onnx_put_ints(s, "kernel_shape", w->d, w->kernel);
  marea_onnx_put_ints(s, "strides", w->d, w->stride);
  if (w->same) marea_onnx_put_text(s, "auto_pad", "SAME_UPPER");
  else marea_onnx_put_ints(s, "pads", 2 * w->d, pads);
}

static void convolve (onnx_saver *s, bool transposed) {
  const int rank = layout_in(s, 0)->rank;
  const int64_t dims[] = {rank - 1, rank - 2, 0,
                          1}; /* of the weight: both kinds have their channels turned round */
  windows w = {.d = rank - 2};
  for (int i = 0; i < w.d; i++) w.kernel[i] = layout_in(s, 1)->shape[i];
  read_windows(s, &w, transposed);
  const char *x = first(s, 0), *weight = marea_onnx_weight(s, 1, rank, dims), *bias = plain(s, 2);
  const char *y = NODE(s, transposed ? "ConvTranspose" : "Conv", x, weight, bias);
  put_windows(s, &w);
  marea_onnx_put_ints(s, "dilations", w.d, w.dilation);
  marea_onnx_put_int(s, "group", attr_i(s, "groups"));
  if (transposed) marea_onnx_put_ints(s, "output_padding", w.d, w.more);
  put_first(s, 0, marea_onnx_activated(s, y));
}

SAVE(conv2d) { convolve(s, false); }
SAVE(conv1d) { convolve(s, false); }
SAVE(conv_transpose2d) { convolve(s, true); }
SAVE(conv_transpose1d) { convolve(s, true); }

/* ---- pooling ---- */

/* Windows that differ in size, one after another; along one dimension after the other, as all of a row are alike. */
static const char *pool_apart (onnx_saver *s, const char *x, const windows *w, const char *op) {
  for (int i = 0; i < w->d; i++) {
    const int64_t in = layout_in(s, 0)->shape[1 + i], out = w->kernel[i], axis = 2 + i;
    const char **part = marea_onnx_memory(s, (size_t)out * sizeof part[0]);
    for (int64_t o = 0; o < out && saves(s); o++) {
      const int64_t end = ((o + 1) * in + out - 1) / out;
      const char *piece = NODE(s, "Slice", x, index1(s, o * in / out), index1(s, end), index1(s, axis));
      part[o] = marea_onnx_reduce(s, op, piece, 1, &axis, true);
    }
    if (!saves(s)) return "";
    x = marea_onnx_node(s, "Concat", (int)out, part);
    marea_onnx_put_int(s, "axis", axis);
  }
  return x;
}

/* w->kernel is the size of the result. */
static void pool_adaptive (onnx_saver *s, windows *w, bool mean) {
  bool whole = true, even = true, free = false;
  const char *x = first(s, 0);
  for (int i = 0; i < w->d; i++) {
    whole = whole && w->kernel[i] == 1;
    even = even && layout_in(s, 0)->shape[1 + i] % w->kernel[i] == 0;
    free = free || marea_onnx_is_free(s, slot_in(s, 0), 1 + i);
  }
  if (free && !whole) marea_onnx_save_reject(s, "windows that follow from a free size");
  if (whole) put_first(s, 0, NODE(s, mean ? "GlobalAveragePool" : "GlobalMaxPool", x));
  else if (!even) put_first(s, 0, pool_apart(s, x, w, mean ? "ReduceMean" : "ReduceMax"));
  else {
    for (int i = 0; i < w->d; i++) w->stride[i] = w->kernel[i] = layout_in(s, 0)->shape[1 + i] / w->kernel[i];
    const char *y = NODE(s, mean ? "AveragePool" : "MaxPool", x);
    put_windows(s, w);
    put_first(s, 0, y);
  }
}

/* A last window that reaches over the end does so over padding. */
static void reach_over (onnx_saver *s, windows *w) {
  for (int i = 0; i < w->d; i++) {
    const int64_t out = layout_out(s, 0)->shape[1 + i], in = layout_in(s, 0)->shape[1 + i];
    const int64_t more = (out - 1) * w->stride[i] + w->kernel[i] - in - w->before[i];
    if (marea_onnx_is_free(s, slot_in(s, 0), 1 + i)) marea_onnx_save_reject(s, "ceil_mode with a free size");
    w->after[i] = MAREA_MAX(w->after[i], more);
  }
}

static void pool (onnx_saver *s, bool mean) {
  windows w = {.d = layout_in(s, 0)->rank - 2};
  sizes_of(s, "kernel", &w, one, w.kernel);
  if (attr_i(s, "adaptive")) {
    pool_adaptive(s, &w, mean);
    return;
  }
  read_windows(s, &w, false);
  if (attr_i(s, "ceil_mode")) reach_over(s, &w);
  const char *y = NODE(s, mean ? "AveragePool" : "MaxPool", first(s, 0));
  put_windows(s, &w);
  if (mean) marea_onnx_put_int(s, "count_include_pad", attr_i(s, "count_padding"));
  put_first(s, 0, y);
}

SAVE(max_pool2d) { pool(s, false); }
SAVE(max_pool1d) { pool(s, false); }
SAVE(avg_pool2d) { pool(s, true); }
SAVE(avg_pool1d) { pool(s, true); }

/* ---- larger images ---- */

static const char *resize (onnx_saver *s, const char *mode, const char *coordinates) {
  const marea_attr *scale = marea_onnx_attr(s, "scale");
  const char *scales = marea_onnx_floats(s, 4, (double[]){1, 1, (double)scale->v[0], (double)scale->v[1]});
  const char *y = NODE(s, "Resize", first(s, 0), NULL, scales);
  marea_onnx_put_text(s, "mode", mode);
  marea_onnx_put_text(s, "coordinate_transformation_mode", coordinates);
  return y;
}

SAVE(upsample_nearest2d) {
  const char *y = resize(s, "nearest", "asymmetric");
  marea_onnx_put_text(s, "nearest_mode", "floor");
  put_first(s, 0, y);
}

SAVE(upsample_bilinear2d) { put_first(s, 0, resize(s, "linear", "half_pixel")); }
