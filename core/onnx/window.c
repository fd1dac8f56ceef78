/* SPDX-License-Identifier: MIT
** window.c: see window.h.
*/
#include "window.h"

/* ---- windows ---- */

/* An attribute with one number for each spatial dimension, `initial` where it is left out */
static void read_sizes (onnx_node *n, const char *name, int d, const int64_t *initial, int64_t least,
                        int64_t *to) {
  onnx_ints list;
  const bool given = marea_onnx_ints(n, name, &list);
  if (goes_on(n) && given && list.n != d)
    marea_onnx_reject(n, "attribute '%s' has %d numbers, expected %d", name, list.n, d);
  for (int i = 0; i < d && goes_on(n); i++) {
    to[i] = given ? list.v[i] : initial[i];
    if (to[i] < least || to[i] > INT32_MAX)
      marea_onnx_reject(n, "attribute '%s': expected numbers from %lld on, got %lld", name, (long long)least,
                        (long long)to[i]);
  }
}

static void read_padding (onnx_node *n, onnx_windows *w) {
  static const int64_t none[2 * ONNX_MOST_SPATIAL] = {0};
  int64_t pads[2 * ONNX_MOST_SPATIAL] = {0};
  char word[16];
  marea_onnx_text(n, "auto_pad", "NOTSET", word, sizeof word);
  if (strcmp(word, "SAME_UPPER") == 0) w->padding = ONNX_SAME_UPPER;
  else if (strcmp(word, "SAME_LOWER") == 0) w->padding = ONNX_SAME_LOWER;
  else if (strcmp(word, "NOTSET") == 0 || word[0] == '\0') read_sizes(n, "pads", 2 * w->d, none, 0, pads);
  else if (strcmp(word, "VALID") != 0) marea_onnx_reject(n, "attribute 'auto_pad': '%s' is not known", word);
  memcpy(w->before, pads, (size_t)w->d * sizeof pads[0]);
  memcpy(w->after, pads + w->d, (size_t)w->d * sizeof pads[0]);
}

bool marea_onnx_read_windows (onnx_node *n, const value *x, const int64_t *kernel, onnx_windows *w) {
  static const int64_t ones[ONNX_MOST_SPATIAL] = {1, 1, 1}, zeros[ONNX_MOST_SPATIAL] = {0};
  memset(w, 0, sizeof *w);
  if (!goes_on(n)) return false;
  w->d = rank_of(x) - 2;
  if (w->d < 1 || w->d > ONNX_MOST_SPATIAL)
    marea_onnx_reject(n, "expected (N, C, ...) of rank 3 to 5, got the rank %d", rank_of(x));
  if (!goes_on(n)) return false;
  for (int i = 0; i < w->d; i++) w->in[i] = size_of(x, 1 + i);
  for (int i = 0; i < w->d; i++)
    if (w->in[i] > INT32_MAX) marea_onnx_reject(n, "an image of size %lld", (long long)w->in[i]);
  read_sizes(n, "kernel_shape", w->d, kernel ? kernel : zeros, 1, w->kernel);
  for (int i = 0; i < w->d && kernel && goes_on(n); i++)
    if (kernel[i] != w->kernel[i]) marea_onnx_reject(n, "attribute 'kernel_shape' is not that of the weight");
  read_sizes(n, "strides", w->d, ones, 1, w->stride);
  read_sizes(n, "dilations", w->d, ones, 1, w->dilation);
  read_padding(n, w);
  for (int i = 0; i < w->d && goes_on(n); i++)
    if (marea_onnx_reach(w, i) > INT32_MAX)
      marea_onnx_reject(n, "a window of %lld", (long long)marea_onnx_reach(w, i));
  return goes_on(n);
}

/* The sizes of the result are ceil(in / stride). */
static void pad_same (onnx_windows *w, int i) {
  const int64_t out = (w->in[i] + w->stride[i] - 1) / w->stride[i];
  const int64_t all = MAREA_MAX((out - 1) * w->stride[i] + marea_onnx_reach(w, i) - w->in[i], 0);
  w->before[i] = w->padding == ONNX_SAME_UPPER ? all / 2 : all - all / 2;
  w->after[i] = all - w->before[i];
}

bool marea_onnx_place_windows (onnx_node *n, onnx_windows *w, bool ceil) {
  for (int i = 0; i < w->d && goes_on(n); i++) {
    if (w->padding != ONNX_PADS) pad_same(w, i);
    const int64_t room = w->in[i] + w->before[i] + w->after[i] - marea_onnx_reach(w, i);
    if (room < 0) {
      marea_onnx_reject(n, "a window of %lld is larger than the padded input, %lld",
                        (long long)marea_onnx_reach(w, i), (long long)(room + marea_onnx_reach(w, i)));
      return false;
    }
    w->out[i] = (room + (ceil ? w->stride[i] - 1 : 0)) / w->stride[i] + 1;
    if (ceil && w->out[i] > 1 && (w->out[i] - 1) * w->stride[i] >= w->in[i] + w->before[i]) w->out[i]--;
  }
  return goes_on(n);
}

bool marea_onnx_is_dilated (const onnx_windows *w) {
  for (int i = 0; i < w->d; i++)
    if (w->dilation[i] > 1 && w->kernel[i] > 1) return true;
  return false;
}

onnx_windows marea_onnx_frame (const onnx_windows *w) {
  onnx_windows f = {.d = w->d - 1, .padding = w->padding, .groups = w->groups, .exact = w->exact};
  for (int i = 0; i < f.d; i++) {
    f.in[i] = w->in[i + 1];
    f.kernel[i] = w->kernel[i + 1];
    f.stride[i] = w->stride[i + 1];
    f.dilation[i] = w->dilation[i + 1];
    f.before[i] = w->before[i + 1];
    f.after[i] = w->after[i + 1];
    f.out[i] = w->out[i + 1];
  }
  return f;
}

marea_named marea_onnx_sizes (const char *name, const onnx_windows *w, const int64_t *sizes) {
  return w->d == 1 ? marea_int(name, sizes[0]) : marea_ints(name, w->d, sizes);
}

/* ---- parts of tensors ---- */

value *marea_onnx_narrow (onnx_node *n, value *x, int dim, int64_t start, int64_t length) {
  if (!goes_on(n) || (start == 0 && length == size_of(x, dim))) return x;
  return CALL(n, "narrow", VALUES(x),
              NAMED(marea_int("dim", dim), marea_int("start", start), marea_int("length", length)));
}

value *marea_onnx_stride (onnx_node *n, value *x, int dim, int64_t start, int64_t step, int64_t count) {
  x = marea_onnx_narrow(n, x, dim, start, count ? (count - 1) * step + 1 : 0);
  return step == 1 || count < 2
             ? x
             : CALL(n, "slice", VALUES(x), NAMED(marea_int("dim", dim), marea_int("step", step)));
}

/* `pad` takes the first four dimensions, so those before `dim` and those behind become one. */
static value *padded (onnx_node *n, value *x, int dim, int64_t before, int64_t after, double number) {
  int64_t flat[3] = {1, 1, 1}, shape[MAREA_MAX_RANK];
  for (int d = 0; d < rank_of(x); d++) flat[d < dim ? 0 : d == dim ? 1 : 2] *= size_of(x, d);
  memcpy(shape, x->t->shape, (size_t)rank_of(x) * sizeof shape[0]);
  shape[dim] += before + after;
  value *y = CALL(
      n, "pad", VALUES(marea_onnx_reshape(n, x, 3, flat)),
      NAMED(marea_ints("padding", 4, (int64_t[]){0, 0, before, after}), marea_real("value", number)));
  return marea_onnx_reshape(n, y, rank_of(x), shape);
}

bool marea_onnx_is_pad (onnx_node *n, int64_t pad) {
  const int64_t most = (int64_t)1 << 40;
  if (pad < -most || pad > most) marea_onnx_reject(n, "padding of %lld elements", (long long)pad);
  return goes_on(n);
}

bool marea_onnx_are_parts (onnx_node *n, const onnx_ints *sizes, int64_t size) {
  int64_t rest = size;
  for (int i = 0; i < sizes->n && goes_on(n); rest -= sizes->v[i++])
    if (sizes->v[i] < 0 || sizes->v[i] > rest) {
      marea_onnx_reject(n, "part %d of a dimension of %lld has %lld elements, and %lld are left", i + 1,
                        (long long)size, (long long)sizes->v[i], (long long)rest);
      return false;
    }
  return goes_on(n);
}

value *marea_onnx_pad (onnx_node *n, value *x, int dim, int64_t before, int64_t after, double number) {
  if (!goes_on(n) || !marea_onnx_is_pad(n, before) || !marea_onnx_is_pad(n, after)) return NULL;
  const int64_t front = MAREA_MIN(before, 0), end = MAREA_MIN(after, 0);
  if (size_of(x, dim) + front + end < 0)
    marea_onnx_reject(n, "nothing is left of a dimension of %lld", (long long)size_of(x, dim));
  x = marea_onnx_narrow(n, x, dim, -front, size_of(x, dim) + front + end);
  if (!goes_on(n) || (before <= 0 && after <= 0)) return x;
  return padded(n, x, dim, MAREA_MAX(before, 0), MAREA_MAX(after, 0), number);
}

value *marea_onnx_join (onnx_node *n, value *x) {
  int64_t shape[MAREA_MAX_RANK] = {0};
  if (!goes_on(n)) return NULL;
  for (int d = 1; d < rank_of(x); d++) shape[d - 1] = size_of(x, d);
  shape[0] *= size_of(x, 0);
  return marea_onnx_reshape(n, x, rank_of(x) - 1, shape);
}

value *marea_onnx_part (onnx_node *n, value *x, int64_t depth) {
  int64_t shape[MAREA_MAX_RANK];
  if (!goes_on(n)) return NULL;
  shape[0] = size_of(x, 0) / depth;
  shape[1] = depth;
  for (int d = 1; d < rank_of(x); d++) shape[d + 1] = size_of(x, d);
  return marea_onnx_reshape(n, x, rank_of(x) + 1, shape);
}
