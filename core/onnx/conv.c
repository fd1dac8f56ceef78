/* SPDX-License-Identifier: MIT
** conv.c: ONNX's convolutions of one to three dimensions. Those of volumes are sums over the taps in depth of
** convolutions of their frames.
*/
#include "window.h"

value *marea_onnx_turned (onnx_node *n, value *weight) {
  int dims[MAREA_MAX_RANK];
  const int rank = rank_of(weight);
  for (int d = 0; d < rank; d++) dims[d] = d < rank - 2 ? d + 2 : rank - 1 - d;
  return marea_onnx_permute(n, weight, rank, dims);
}

/* The weight of tap k in depth, that of a convolution of frames */
static value *tap (onnx_node *n, value *weight, int64_t k) {
  return marea_onnx_join(n, marea_onnx_narrow(n, weight, 0, k, 1));
}

static value *convolved_plane (onnx_node *n, value *x, value *weight, value *bias, const onnx_windows *w) {
  return CALL(n, w->d == 1 ? "conv1d" : "conv2d", VALUES(x, weight, bias),
              NAMED(marea_onnx_sizes("stride", w, w->stride), marea_onnx_sizes("dilation", w, w->dilation),
                    ONNX_PADDING(w), marea_int("groups", w->groups),
                    marea_word("algorithm", w->exact ? "direct" : "auto")));
}

/* x: an image; weight: turned */
static value *convolved (onnx_node *n, value *x, value *weight, value *bias, const onnx_windows *w) {
  if (w->d < 3) return convolved_plane(n, x, weight, bias, w);
  const onnx_windows frame = marea_onnx_frame(w);
  value *y = NULL, *padded = marea_onnx_pad(n, x, 1, w->before[0], w->after[0], 0);
  for (int64_t k = 0; k < w->kernel[0] && goes_on(n); k++) {
    value *frames = marea_onnx_stride(n, padded, 1, k * w->dilation[0], w->stride[0], w->out[0]);
    value *part = convolved_plane(n, marea_onnx_join(n, frames), tap(n, weight, k), k ? NULL : bias, &frame);
    y = y ? add(n, y, part) : part;
  }
  return marea_onnx_part(n, y, w->out[0]);
}

static bool is_weight (onnx_node *n, const value *x, const value *weight) {
  if (goes_on(n) && (rank_of(x) != rank_of(weight) || rank_of(x) < 3))
    marea_onnx_reject(n, "an image of rank %d and a weight of rank %d", rank_of(x), rank_of(weight));
  return goes_on(n);
}

value *marea_onnx_convolve (onnx_node *n, value *x, value *weight, value *bias, bool exact) {
  onnx_windows w;
  if (!is_weight(n, x, weight) || !marea_onnx_read_windows(n, x, weight->t->shape + 2, &w)) return NULL;
  if (!marea_onnx_place_windows(n, &w, false)) return NULL;
  w.groups = int_of(n, "group", 1);
  w.exact = exact;
  return convolved(n, x, marea_onnx_turned(n, weight), bias, &w);
}

HANDLER(Conv) {
  marea_onnx_give_image(n, 0, marea_onnx_convolve(n, image(n, 0), input(n, 1), optional(n, 2), false));
}

/* ---- transposed ---- */

/* One with rows behind the end that no tap reaches, where Marea takes fewer: they are the bias. */
static bool is_long (const onnx_windows *w) {
  for (int i = 0; i < w->d; i++)
    if (-w->after[i] >= MAREA_MAX(w->stride[i], w->dilation[i])) return true;
  return false;
}

static value *transposed_plane (onnx_node *n, value *x, value *weight, value *bias, const onnx_windows *w) {
  int64_t more[ONNX_MOST_SPATIAL];
  onnx_windows cut = *w;
  const bool later = is_long(w);
  for (int i = 0; i < w->d; i++) {
    more[i] = later ? 0 : MAREA_MAX(-w->after[i], 0);
    cut.after[i] = MAREA_MAX(w->after[i], 0);
  }
  value *y = CALL(
      n, w->d == 1 ? "conv_transpose1d" : "conv_transpose2d", VALUES(x, weight, later ? NULL : bias),
      NAMED(marea_onnx_sizes("stride", w, w->stride), marea_onnx_sizes("dilation", w, w->dilation),
            marea_onnx_sizes("output_padding", w, more), ONNX_PADDING(&cut), marea_int("groups", w->groups)));
  for (int i = 0; i < w->d && later; i++) y = marea_onnx_pad(n, y, 1 + i, 0, MAREA_MAX(-w->after[i], 0), 0);
  return later && bias ? add(n, y, bias) : y;
}

/* 0 of `like`'s shape but for the depth */
static value *empty_volume (onnx_node *n, const value *like, int64_t depth) {
  int64_t shape[MAREA_MAX_RANK];
  if (!goes_on(n)) return NULL;
  memcpy(shape, like->t->shape, (size_t)rank_of(like) * sizeof shape[0]);
  shape[1] = depth;
  return marea_onnx_expand(n, marea_onnx_scalar(n, 0, dtype_of(like)), rank_of(like), shape);
}

/* k dilation + i stride, for the frames i: where tap k puts them */
static value *places (onnx_node *n, const onnx_windows *w, int64_t k, int64_t size) {
  value *steps = mul(n, marea_onnx_range(n, w->in[0]), marea_onnx_integer(n, w->stride[0], MAREA_I64));
  return marea_onnx_indices(n, add(n, steps, marea_onnx_integer(n, k * w->dilation[0], MAREA_I64)), size);
}

static value *transposed (onnx_node *n, value *x, value *weight, value *bias, const onnx_windows *w) {
  if (w->d < 3) return transposed_plane(n, x, weight, bias, w);
  const onnx_windows frame = marea_onnx_frame(w);
  const int64_t depth = (w->in[0] - 1) * w->stride[0] + marea_onnx_reach(w, 0);
  value *y = NULL, *frames = marea_onnx_join(n, x);
  for (int64_t k = 0; k < w->kernel[0] && goes_on(n); k++) {
    value *part = transposed_plane(n, frames, tap(n, weight, k), NULL, &frame);
    part = marea_onnx_part(n, part, w->in[0]);
    if (!y) y = empty_volume(n, part, depth);
    y = CALL(n, "index_add", VALUES(y, places(n, w, k, depth), part), NAMED(marea_int("dim", 1)));
  }
  y = marea_onnx_pad(n, y, 1, -w->before[0], -w->after[0], 0);
  return bias ? add(n, y, bias) : y;
}

/* A list of d numbers, or of d + 2 with those of N and C before them */
static bool read_list (onnx_node *n, const char *name, int d, int64_t least, onnx_ints *list) {
  if (!marea_onnx_ints(n, name, list) || list->n == 0) return false;
  if (list->n == d + 2) memmove(list->v, list->v + 2, (size_t)d * sizeof list->v[0]);
  else if (list->n != d) marea_onnx_reject(n, "attribute '%s' has %d numbers, expected %d", name, list->n, d);
  for (int i = 0; i < d && goes_on(n); i++)
    if (list->v[i] < least || list->v[i] > INT32_MAX)
      marea_onnx_reject(n, "attribute '%s': %lld is out of range", name, (long long)list->v[i]);
  return goes_on(n);
}

/* Paddings are cut off the result; `after` is negative where it has more rows than the taps reach. */
static bool place_transposed (onnx_node *n, onnx_windows *w) {
  onnx_ints more, shape;
  const bool longer = read_list(n, "output_padding", w->d, 0, &more),
             given = read_list(n, "output_shape", w->d, 1, &shape);
  for (int i = 0; i < w->d && goes_on(n); i++) {
    const int64_t extra = longer ? more.v[i] : 0,
                  all = (w->in[i] - 1) * w->stride[i] + marea_onnx_reach(w, i) + extra;
    if (given || w->padding != ONNX_PADS) {
      const int64_t cut = all - (given ? shape.v[i] : w->in[i] * w->stride[i]);
      w->before[i] = cut <= 0 ? 0 : w->padding == ONNX_SAME_UPPER ? cut / 2 : cut - cut / 2;
      w->after[i] = cut - w->before[i];
    }
    w->out[i] = all - w->before[i] - w->after[i];
    w->after[i] -= extra;
    if (w->out[i] < 1 || w->out[i] > INT32_MAX)
      marea_onnx_reject(n, "a result of size %lld", (long long)w->out[i]);
  }
  return goes_on(n);
}

HANDLER(ConvTranspose) {
  value *x = image(n, 0), *weight = input(n, 1), *bias = optional(n, 2);
  onnx_windows w;
  if (!is_weight(n, x, weight) || !marea_onnx_read_windows(n, x, weight->t->shape + 2, &w)) return;
  if (!place_transposed(n, &w)) return;
  w.groups = int_of(n, "group", 1);
  marea_onnx_give_image(n, 0, transposed(n, x, marea_onnx_turned(n, weight), bias, &w));
}

/* ---- columns: each block of an image is one, and they are added up where blocks overlap ---- */

/* The blocks as windows of the image: `in` is how many there are, `out` the image. */
static bool read_blocks (onnx_node *n, onnx_windows *w) {
  onnx_ints image, block;
  int64_t shape[ONNX_MOST_SPATIAL + 2] = {1, 1, 1, 1, 1};
  if (!marea_onnx_known_ints(n, input(n, 1), &image) || !marea_onnx_known_ints(n, input(n, 2), &block))
    return false;
  if (image.n < 1 || image.n > ONNX_MOST_SPATIAL || block.n != image.n)
    marea_onnx_reject(n, "blocks of rank %d of an image of rank %d", block.n, image.n);
  for (int i = 0; i < image.n && goes_on(n); i++) {
    shape[1 + i] = image.v[i];
    if (image.v[i] < 1 || image.v[i] > INT32_MAX || block.v[i] < 1 || block.v[i] > INT32_MAX)
      marea_onnx_reject(n, "a size of an image or a block is out of range");
  }
  if (!goes_on(n)) return false;
  value *like = marea_onnx_expand(n, marea_onnx_scalar(n, 0, MAREA_F32), image.n + 2, shape);
  if (!marea_onnx_read_windows(n, like, block.v, w) || !marea_onnx_place_windows(n, w, false)) return false;
  for (int i = 0; i < w->d; i++) { /* what no block reaches is 0 */
    w->in[i] = w->out[i];
    w->out[i] = image.v[i];
    w->after[i] = (w->in[i] - 1) * w->stride[i] + marea_onnx_reach(w, i) - w->before[i] - w->out[i];
  }
  w->groups = 1;
  return true;
}

/* A transposed convolution in which each tap has an input channel of its own */
HANDLER(Col2Im) {
  value *x = input(n, 0);
  onnx_windows w;
  int64_t taps = 1, blocks = 1, shape[ONNX_MOST_SPATIAL + 2], weight[ONNX_MOST_SPATIAL + 2];
  if (!read_blocks(n, &w)) return;
  for (int i = 0; i < w.d; i++) {
    taps *= weight[i] = w.kernel[i];
    blocks *= shape[2 + i] = w.in[i];
    if (taps > INT32_MAX || blocks > INT32_MAX) marea_onnx_reject(n, "too many blocks");
    if (!goes_on(n)) return;
  }
  if (rank_of(x) != 3 || size_of(x, 1) % taps || size_of(x, 2) != blocks)
    marea_onnx_reject(n, "expected (N, C %lld, %lld), got %s", (long long)taps, (long long)blocks,
                      marea_tensor_text(x->t).s);
  if (!goes_on(n)) return;
  const int64_t N = size_of(x, 0), C = size_of(x, 1) / taps;
  shape[0] = N * C;
  shape[1] = weight[w.d + 1] = taps;
  weight[w.d] = 1;
  value *one = CALL(
      n, "eye", NOTHING,
      NAMED(marea_int("n", taps), marea_word("dtype", marea_dtype_name((marea_dtype)dtype_of(x)))));
  x = marea_onnx_channels_last(n, marea_onnx_reshape(n, x, w.d + 2, shape), false);
  value *y = transposed(n, x, marea_onnx_reshape(n, one, w.d + 2, weight), NULL, &w);
  shape[0] = N;
  shape[1] = C;
  for (int i = 0; i < w.d; i++) shape[2 + i] = w.out[i];
  give(n, 0, marea_onnx_reshape(n, y, w.d + 2, shape));
}
