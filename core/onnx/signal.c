/* SPDX-License-Identifier: MIT
** signal.c: ONNX's windows, filters and Fourier transforms. A transform is a product with a matrix of cosines and sines,
** in f64: N^2 operations for N log N, and exact to the last bits of f32.
*/
#include <math.h>

#include "node.h"

#define PI 3.14159265358979323846

static double *numbers_of (value *v) { return marea_at(v->t); } /* of a known f64 */

/* ---- windows: a - b cos(2 pi i / N) + c cos(4 pi i / N) ---- */

static void window (onnx_node *n, double a, double b, double c) {
  const int type = (int)int_of(n, "output_datatype", ONNX_FLOAT);
  const bool periodic = int_of(n, "periodic", 1);
  const int64_t size = marea_onnx_known_int(n, input(n, 0));
  if (goes_on(n) && (size < 0 || marea_onnx_dtype(type) < 0))
    marea_onnx_reject(n, "expected a size of at least 0, got %lld, and a type of numbers, got %s",
                      (long long)size, marea_onnx_type_name(type));
  value *v = marea_onnx_new(n, MAREA_F64, 1, &size);
  if (!v) return;
  const double period = periodic ? (double)size : (double)MAREA_MAX(size - 1, 1);
  for (int64_t i = 0; i < size && still(n, i); i++) {
    const double t = 2 * PI * (double)i / period;
    numbers_of(v)[i] = a - b * cos(t) + c * cos(2 * t);
  }
  marea_onnx_give_as(n, 0, v, type);
}

HANDLER(HannWindow) { window(n, 0.5, 0.5, 0); }
HANDLER(HammingWindow) { window(n, 25.0 / 46, 21.0 / 46, 0); }
HANDLER(BlackmanWindow) { window(n, 0.42, 0.5, 0.08); }

/* ---- bands of the mel scale ---- */

static double mel_of (double hertz) { return 2595 * log10(1 + hertz / 700); }
static double hertz_of (double mel) { return 700 * (pow(10, mel / 2595) - 1); }

/* A triangle from `low` over `middle` to `high`, in column `band` of (bins, bands) */
static void put_triangle (double *to, int64_t bins, int64_t bands, int64_t band, const int64_t *at) {
  const int64_t low = at[0], middle = at[1], high = at[2];
  if (low == middle && middle >= 0 && middle < bins) to[middle * bands + band] = 1;
  for (int64_t i = MAREA_MAX(low, 0); i <= middle && i < bins && low < middle; i++)
    to[i * bands + band] = (double)(i - low) / (double)(middle - low);
  for (int64_t i = MAREA_MAX(middle, 0); i < high && i < bins; i++)
    to[i * bands + band] = (double)(high - i) / (double)(high - middle);
}

HANDLER(MelWeightMatrix) {
  double p[5] = {0}; /* bands, length of the transform, samples a second, lowest and highest frequency */
  for (int i = 0; i < 5; i++) p[i] = marea_onnx_known_number(n, input(n, i));
  const int type = (int)int_of(n, "output_datatype", ONNX_FLOAT);
  if (goes_on(n) && !(p[0] >= 1 && p[0] < 1 << 20 && p[1] >= 1 && p[1] < 1 << 30 && p[2] >= 1 && p[3] >= 0 &&
                      p[4] >= p[3] && p[4] < 1e9 && marea_onnx_dtype(type) >= 0))
    marea_onnx_reject(n, "%g bands of a transform of %g at %g Hz, from %g to %g Hz, as %s", p[0], p[1], p[2],
                      p[3], p[4], marea_onnx_type_name(type));
  if (!goes_on(n)) return;
  const int64_t bands = (int64_t)p[0], length = (int64_t)p[1], bins = length / 2 + 1;
  const double low = mel_of(p[3]), step = (mel_of(p[4]) - low) / (double)(bands + 2);
  value *v = marea_onnx_new(n, MAREA_F64, 2, (int64_t[]){bins, bands});
  if (!v) return;
  memset(marea_at(v->t), 0, (size_t)(bins * bands) * sizeof(double));
  for (int64_t band = 0; band < bands && still(n, bins > 256 ? 0 : band); band++) {
    int64_t at[3];
    for (int k = 0; k < 3; k++)
      at[k] = (int64_t)floor((double)(length + 1) * hertz_of((double)(band + k) * step + low) / p[2]);
    put_triangle(numbers_of(v), bins, bands, band, at);
  }
  marea_onnx_give_as(n, 0, v, type);
}

/* ---- Fourier transforms ---- */

typedef struct transform {
  int64_t length, bins;
  bool complex, inverse; /* are there imaginary parts? */
} transform;

/* (parts * length, 2 * bins): real parts and, below them, imaginary ones to real and imaginary results */
static value *transform_matrix (onnx_node *n, const transform *f) {
  const int64_t parts = f->complex ? 2 : 1, length = f->length, bins = f->bins;
  value *v = marea_onnx_new(n, MAREA_F64, 2, (int64_t[]){parts * length, 2 * bins});
  if (!v) return NULL;
  const double sign = f->inverse ? 1 : -1, scale = f->inverse ? 1 / (double)length : 1;
  for (int64_t i = 0; i < length && still(n, 0); i++)
    for (int64_t k = 0; k < bins; k++) {
      const double t = 2 * PI * (double)(int64_t)((__int128)i * k % length) / (double)length;
      double *real = numbers_of(v) + i * 2 * bins, *imaginary = real + length * 2 * bins;
      real[k] = scale * cos(t);
      real[bins + k] = scale * sign * sin(t);
      if (!f->complex) continue;
      imaginary[k] = -real[bins + k];
      imaginary[bins + k] = real[k];
    }
  return v;
}

/* x, f64 (.., parts, length) -> (.., 2, bins) */
static value *transformed (onnx_node *n, value *x, const transform *f) {
  int64_t shape[MAREA_MAX_RANK];
  const int rank = rank_of(x);
  if (!goes_on(n)) return NULL;
  for (int d = 0; d < rank - 2; d++) shape[d] = size_of(x, d);
  const int64_t parts = f->complex ? 2 : 1, rows = count_of(x) / (parts * f->length);
  value *y = op2(n, "matmul", marea_onnx_reshape(n, x, 2, (int64_t[]){rows, parts * f->length}),
                 transform_matrix(n, f));
  shape[rank - 2] = 2;
  shape[rank - 1] = f->bins;
  return marea_onnx_reshape(n, y, rank, shape);
}

/* The dimension's elements cut off, or zeros behind them. */
static value *resized (onnx_node *n, value *x, int64_t length) {
  const int dim = rank_of(x) - 1;
  if (!goes_on(n) || size_of(x, dim) == length) return x;
  if (size_of(x, dim) > length)
    return CALL(n, "narrow", VALUES(x),
                NAMED(marea_int("dim", dim), marea_int("start", 0), marea_int("length", length)));
  int64_t shape[MAREA_MAX_RANK];
  for (int d = 0; d < dim; d++) shape[d] = size_of(x, d);
  shape[dim] = length - size_of(x, dim);
  value *zeros = marea_onnx_expand(n, marea_onnx_scalar(n, 0, dtype_of(x)), rank_of(x), shape);
  return CALL(n, "concat", VALUES(x, zeros), NAMED(marea_int("dim", dim)));
}

static bool is_signal (onnx_node *n, const value *x, int least) {
  const int rank = rank_of(x);
  if (goes_on(n) && (rank < least || size_of(x, rank - 1) < 1 || size_of(x, rank - 1) > 2))
    marea_onnx_reject(n, "expected a signal (batch, .., 1 or 2), got %s", marea_tensor_text(x->t).s);
  return goes_on(n);
}

static bool has_length (onnx_node *n, const transform *f) {
  if (goes_on(n) && (f->length < 1 || f->length > 1 << 16))
    marea_onnx_reject(n, "a transform of length %lld; 1 to %d are supported", (long long)f->length, 1 << 16);
  return goes_on(n);
}

/* The axis is an input since version 20. */
HANDLER(DFT) {
  value *x = input(n, 0);
  const bool half = int_of(n, "onesided", 0), inverse = int_of(n, "inverse", 0);
  int64_t axis = int_of(n, "axis", n->version < 20 ? 1 : -2);
  if (has(n, 2)) axis = marea_onnx_known_int(n, input(n, 2));
  if (!is_signal(n, x, 2)) return;
  const int rank = rank_of(x), dim = marea_onnx_axis(n, axis, rank);
  if (goes_on(n) && dim == rank - 1) marea_onnx_reject(n, "the axis is that of real and imaginary parts");
  if (goes_on(n) && half && inverse)
    marea_onnx_reject(n, "an inverse transform of one side is not supported");
  if (!goes_on(n)) return;
  transform f = {.length = size_of(x, dim), .complex = size_of(x, rank - 1) == 2, .inverse = inverse};
  if (has(n, 1)) f.length = marea_onnx_known_int(n, input(n, 1));
  if (!has_length(n, &f)) return;
  f.bins = half ? f.length / 2 + 1 : f.length;
  int turn[MAREA_MAX_RANK], back[MAREA_MAX_RANK], to = 0;
  for (int d = 0; d < rank - 1; d++)
    if (d != dim) turn[to++] = d;
  turn[to++] = rank - 1;
  turn[to] = dim;
  for (int d = 0; d < rank; d++) back[turn[d]] = d;
  value *y = marea_onnx_cast(n, marea_onnx_permute(n, x, rank, turn), MAREA_F64);
  y = transformed(n, resized(n, y, f.length), &f);
  marea_onnx_give_as(n, 0, marea_onnx_permute(n, y, rank, back), n->in[0]->type);
}

/* Windows of `length` elements, `step` apart: (batch, frames, length, parts) */
static value *frames_of (onnx_node *n, value *x, int64_t length, int64_t step) {
  const int64_t size = size_of(x, 1), frames = size < length ? 0 : (size - length) / step + 1;
  value *first = mul(n, marea_onnx_range(n, frames), marea_onnx_integer(n, step, MAREA_I64));
  value *index = add(n, marea_onnx_reshape(n, first, 2, (int64_t[]){frames, 1}), marea_onnx_range(n, length));
  return CALL(n, "index_select", VALUES(x, marea_onnx_indices(n, index, size)), NAMED(marea_int("dim", 1)));
}

HANDLER(STFT) {
  value *x = input(n, 0), *shape = optional(n, 2);
  const bool half = int_of(n, "onesided", 1);
  const int64_t step = marea_onnx_known_int(n, input(n, 1));
  if (goes_on(n) && rank_of(x) == 2)
    x = marea_onnx_reshape(n, x, 3, (int64_t[]){size_of(x, 0), size_of(x, 1), 1});
  if (!is_signal(n, x, 3)) return;
  transform f = {.complex = size_of(x, 2) == 2};
  if (has(n, 3)) f.length = marea_onnx_known_int(n, input(n, 3));
  else if (shape) f.length = count_of(shape);
  if (goes_on(n) && (rank_of(x) != 3 || step < 1 || (shape && count_of(shape) != f.length)))
    marea_onnx_reject(
        n, "expected a signal (batch, length, 1 or 2), a step above 0 and a window of the frames' length");
  if (!has_length(n, &f)) return;
  f.bins = half ? f.length / 2 + 1 : f.length;
  value *frames = frames_of(n, marea_onnx_cast(n, x, MAREA_F64), f.length, step);
  if (shape)
    frames = mul(n, frames,
                 marea_onnx_reshape(n, marea_onnx_cast(n, shape, MAREA_F64), 2, (int64_t[]){f.length, 1}));
  const int turn[] = {0, 1, 3, 2};
  value *y = transformed(n, marea_onnx_permute(n, frames, 4, turn), &f);
  marea_onnx_give_as(n, 0, marea_onnx_permute(n, y, 4, turn), n->in[0]->type);
}
