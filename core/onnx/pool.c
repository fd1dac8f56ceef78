/* SPDX-License-Identifier: MIT
** pool.c: ONNX's pooling, of one to three dimensions. All kinds of windows here are products of intervals, so that one
** dimension can be pooled behind the other.
*/
#include <math.h>

#include "window.h"

static bool read_pool (onnx_node *n, const value *x, onnx_windows *w) {
  return marea_onnx_read_windows(n, x, NULL, w) && marea_onnx_place_windows(n, w, int_of(n, "ceil_mode", 0));
}

/* ---- by Marea's operators: without dilation ---- */

typedef struct pooling {
  bool mean, count_padding, ceil;
} pooling;

static value *pooled_plane (onnx_node *n, value *x, const onnx_windows *w, pooling p) {
  static const char *const ops[2][2] = {{"max_pool1d", "max_pool2d"}, {"avg_pool1d", "avg_pool2d"}};
  const marea_named named[] = {marea_onnx_sizes("kernel", w, w->kernel),
                               marea_onnx_sizes("stride", w, w->stride), ONNX_PADDING(w),
                               marea_int("ceil_mode", p.ceil), marea_int("count_padding", p.count_padding)};
  return marea_onnx_call(n, ops[p.mean][w->d - 1], VALUES(x), p.mean ? 5 : 4, named);
}

/* The depth alone: windows over rows of (N, D, H W, C) */
static value *pooled_depth (onnx_node *n, value *x, const onnx_windows *w, pooling p) {
  onnx_windows depth = {.d = 2,
                        .kernel = {w->kernel[0], 1},
                        .stride = {w->stride[0], 1},
                        .before = {w->before[0]},
                        .after = {w->after[0]}};
  if (!goes_on(n)) return NULL;
  const int64_t N = size_of(x, 0), H = size_of(x, 2), W = size_of(x, 3), C = size_of(x, 4);
  x = marea_onnx_reshape(n, x, 4, (int64_t[]){N, size_of(x, 1), H * W, C});
  return marea_onnx_reshape(n, pooled_plane(n, x, &depth, p), 5, (int64_t[]){N, w->out[0], H, W, C});
}

static value *pooled (onnx_node *n, value *x, const onnx_windows *w, pooling p) {
  if (w->d < 3) return pooled_plane(n, x, w, p);
  const onnx_windows frame = marea_onnx_frame(w);
  value *frames = pooled_plane(n, marea_onnx_join(n, x), &frame, p);
  return pooled_depth(n, marea_onnx_part(n, frames, w->in[0]), w, p);
}

/* ---- tap by tap: with dilation, or with the positions of maxima ---- */

/* Elements under tap k of the windows of dimension i; x is padded. */
static value *under (onnx_node *n, value *x, const onnx_windows *w, int i, int64_t k) {
  return marea_onnx_stride(n, x, 1 + i, k * w->dilation[i], w->stride[i], w->out[i]);
}

/* With what the last windows need behind the end */
static value *enlarged (onnx_node *n, value *x, const onnx_windows *w, int i, double number) {
  const int64_t needed = (w->out[i] - 1) * w->stride[i] + marea_onnx_reach(w, i);
  return marea_onnx_pad(n, x, 1 + i, w->before[i], MAREA_MAX(needed - w->before[i] - w->in[i], 0), number);
}

/* Joins the taps of all dimensions by an operator that `number` changes nothing for. */
static value *joined (onnx_node *n, value *x, const onnx_windows *w, const char *op, double number) {
  for (int i = 0; i < w->d && goes_on(n); i++) {
    value *all = enlarged(n, x, w, i, number);
    x = under(n, all, w, i, 0);
    for (int64_t k = 1; k < w->kernel[i] && goes_on(n); k++) x = op2(n, op, x, under(n, all, w, i, k));
  }
  return x;
}

/* The greatest elements and the positions of the first of them, those of the last dimension being pooled first */
static value *greatest (onnx_node *n, value *x, value **at, const onnx_windows *w) {
  for (int i = w->d - 1; i >= 0 && goes_on(n); i--) {
    value *all = enlarged(n, x, w, i, -INFINITY), *places = enlarged(n, *at, w, i, 0);
    x = under(n, all, w, i, 0);
    *at = under(n, places, w, i, 0);
    for (int64_t k = 1; k < w->kernel[i] && goes_on(n); k++) {
      value *next = under(n, all, w, i, k), *better = op2(n, "gt", next, x);
      *at = where(n, better, under(n, places, w, i, k), *at);
      x = where(n, better, next, x);
    }
  }
  return x;
}

/* The numbers of the elements of ONNX's (N, C, ...), as an image; by_column: the first spatial dimension runs fastest. */
static value *numbers (onnx_node *n, const value *x, bool by_column) {
  int64_t shape[MAREA_MAX_RANK];
  int dims[MAREA_MAX_RANK];
  if (!goes_on(n)) return NULL;
  const int rank = rank_of(x);
  for (int d = 0; d < rank; d++) { /* ONNX's dimension d, or with the spatial ones turned round */
    dims[d] = d < 2 || !by_column ? d : rank + 1 - d;
    shape[d] = size_of(x, marea_onnx_place(true, dims[d], rank));
  }
  value *all = marea_onnx_reshape(n, marea_onnx_range(n, count_of(x)), rank, shape);
  return marea_onnx_channels_last(n, marea_onnx_permute(n, all, rank, dims), false);
}

static bool is_float (const value *x) { return marea_dtype_is_float((marea_dtype)dtype_of(x)); }

HANDLER(MaxPool) {
  value *given = image(n, 0);
  onnx_windows w;
  if (!read_pool(n, given, &w)) return;
  value *x = is_float(given) ? given : marea_onnx_cast(n, given, MAREA_F32), *y,
        *at = NULL; /* bytes are exact there */
  if (n->n_out > 1) {
    at = numbers(n, x, int_of(n, "storage_order", 0));
    y = greatest(n, x, &at, &w);
  } else if (marea_onnx_is_dilated(&w)) y = joined(n, x, &w, "maximum", -INFINITY);
  else y = pooled(n, x, &w, (pooling){.ceil = int_of(n, "ceil_mode", 0)});
  marea_onnx_give_image(n, 0, goes_on(n) ? marea_onnx_cast(n, y, dtype_of(given)) : NULL);
  if (at) marea_onnx_give_as(n, 1, marea_onnx_channels_last(n, at, true), ONNX_INT64);
}

/* How many elements the windows of dimension i have, as something that divides an image: those in x, or in the padding
   too. */
static value *counts (onnx_node *n, const onnx_windows *w, int i, bool padding, int dtype) {
  int64_t shape[ONNX_MOST_SPATIAL + 1] = {1, 1, 1, 1};
  value *made = marea_onnx_new(n, MAREA_I64, 1, (int64_t[]){w->out[i]});
  if (!made) return NULL;
  const int64_t low = padding ? 0 : w->before[i],
                high = w->before[i] + w->in[i] + (padding ? w->after[i] : 0);
  for (int64_t o = 0; o < w->out[i] && still(n, o); o++) {
    int64_t count = 0;
    for (int64_t k = 0; k < w->kernel[i] && still(n, k); k++) {
      const int64_t at = o * w->stride[i] + k * w->dilation[i];
      count += at >= low && at < high;
    }
    ((int64_t *)marea_at(made->t))[o] = MAREA_MAX(count, 1);
  }
  shape[i] = w->out[i];
  return marea_onnx_reshape(n, marea_onnx_cast(n, made, dtype), w->d + 1, shape);
}

HANDLER(AveragePool) {
  value *x = image(n, 0);
  const bool padding = int_of(n, "count_include_pad", 0);
  onnx_windows w;
  if (!read_pool(n, x, &w)) return;
  if (!marea_onnx_is_dilated(&w)) {
    const pooling p = {.mean = true, .count_padding = padding, .ceil = int_of(n, "ceil_mode", 0)};
    marea_onnx_give_image(n, 0, pooled(n, x, &w, p));
    return;
  }
  value *y = joined(n, x, &w, "add", 0);
  for (int i = 0; i < w.d; i++) y = divide(n, y, counts(n, &w, i, padding, dtype_of(x)));
  marea_onnx_give_image(n, 0, y);
}

/* ---- norms ---- */

static value *power (onnx_node *n, value *x, double p) {
  return p == 1     ? x
         : p == 2   ? op1(n, "square", x)
         : p == 0.5 ? op1(n, "sqrt", x)
                    : op2(n, "pow", x, marea_onnx_scalar(n, p, dtype_of(x)));
}

static double order_of (onnx_node *n) {
  const double p = n->version < 2 ? float_of(n, "p", 2) : (double)int_of(n, "p", 2);
  if (goes_on(n) && !(p > 0)) marea_onnx_reject(n, "attribute 'p': expected a number above 0, got %g", p);
  return p;
}

HANDLER(LpPool) {
  value *x = image(n, 0);
  const double p = order_of(n);
  onnx_windows w;
  if (!read_pool(n, x, &w)) return;
  value *sums = joined(n, power(n, op1(n, "abs", x), p), &w, "add", 0);
  marea_onnx_give_image(n, 0, power(n, sums, 1 / p));
}

/* ---- over whole images ---- */

/* Their spatial dimensions */
static marea_named spatial (const value *x, int64_t *room) {
  const int d = MAREA_MAX(rank_of(x) - 2, 0);
  for (int i = 0; i < d; i++) room[i] = 1 + i;
  return marea_ints("dims", d, room);
}

static value *images (onnx_node *n) {
  value *x = image(n, 0);
  if (goes_on(n) && rank_of(x) < 3) marea_onnx_reject(n, "expected (N, C, ...), got the rank %d", rank_of(x));
  return x;
}

HANDLER(GlobalAveragePool) {
  int64_t room[MAREA_MAX_RANK];
  value *x = images(n);
  marea_onnx_give_image(n, 0, CALL(n, "mean", VALUES(x), NAMED(spatial(x, room), marea_int("keepdim", 1))));
}

HANDLER(GlobalMaxPool) {
  int64_t room[MAREA_MAX_RANK];
  value *x = images(n);
  marea_onnx_give_image(n, 0, CALL(n, "max", VALUES(x), NAMED(spatial(x, room), marea_int("keepdim", 1))));
}

HANDLER(GlobalLpPool) {
  int64_t room[MAREA_MAX_RANK];
  value *x = images(n);
  const marea_named order = marea_real("p", order_of(n));
  marea_onnx_give_image(n, 0,
                        CALL(n, "norm", VALUES(x), NAMED(spatial(x, room), marea_int("keepdim", 1), order)));
}

/* ---- back ---- */

static value *spread (onnx_node *n, value *x, value *at, int64_t size) {
  if (!goes_on(n)) return NULL;
  const int64_t count = count_of(x);
  value *zeros = marea_onnx_expand(n, marea_onnx_scalar(n, 0, dtype_of(x)), 1, &size);
  at = marea_onnx_indices(n, marea_onnx_reshape(n, at, 1, &count), size);
  return CALL(n, "index_reduce", VALUES(zeros, at, marea_onnx_reshape(n, x, 1, &count)),
              NAMED(marea_int("dim", 0), marea_word("reduce", "put")));
}

/* Elements go back to where MaxPool's positions say they were, in an image of the size that the windows reach. */
HANDLER(MaxUnpool) {
  value *x = input(n, 0), *at = input(n, 1);
  onnx_windows w;
  onnx_ints wanted = {0};
  int64_t shape[MAREA_MAX_RANK], size = 1;
  if (!goes_on(n)) return;
  if (rank_of(at) != rank_of(x) || count_of(at) != count_of(x))
    marea_onnx_reject(n, "positions of another shape");
  if (!marea_onnx_read_windows(n, image(n, 0), NULL, &w)) return;
  for (int d = 0; d < rank_of(x); d++) {
    const int i = d - 2;
    shape[d] = i < 0 ? size_of(x, d) : (w.in[i] - 1) * w.stride[i] + w.kernel[i] - w.before[i] - w.after[i];
    if (shape[d] < 0 || shape[d] > INT32_MAX || size > INT32_MAX)
      marea_onnx_reject(n, "a result of size %lld", (long long)shape[d]);
    if (!goes_on(n)) return;
    size *= shape[d];
  }
  if (has(n, 2) && !marea_onnx_known_ints(n, input(n, 2), &wanted)) return;
  if (wanted.n && wanted.n != rank_of(x)) marea_onnx_reject(n, "an output_shape of rank %d", wanted.n);
  for (int d = 0; d < wanted.n; d++)
    if (!marea_onnx_is_pad(n, wanted.v[d])) return;
  value *y = marea_onnx_reshape(n, spread(n, x, at, size), rank_of(x), shape);
  for (int d = 2; d < wanted.n && goes_on(n); d++) y = marea_onnx_pad(n, y, d, 0, wanted.v[d] - shape[d], 0);
  give(n, 0, y);
}
