/* SPDX-License-Identifier: MIT
** sample.c: ONNX's operators that read images between their pixels.
*/
#include <math.h>

#include "window.h"

static value *number (onnx_node *n, double v, const value *like) {
  return marea_onnx_scalar(n, v, dtype_of(like));
}

/* At least low and at most high; not by `clamp`, so that i64 can be used too */
static value *within (onnx_node *n, value *x, double low, double high) {
  return op2(n, "minimum", op2(n, "maximum", x, number(n, low, x)), number(n, high, x));
}

/* Pixels (N ..., C) at numbers (...) of an image (N, ..., C), in the order of memory */
static value *pixels (onnx_node *n, value *x, value *at) {
  if (!goes_on(n)) return NULL;
  const int64_t channels = size_of(x, rank_of(x) - 1), count = channels ? count_of(x) / channels : 0;
  const int base = n->e->ctx->config.index_base;
  value *rows = marea_onnx_reshape(n, x, 2, (int64_t[]){count, channels});
  if (base) at = add(n, at, marea_onnx_integer(n, base, MAREA_I64));
  return CALL(n, "index_select", VALUES(rows, at), NAMED(marea_int("dim", 0)));
}

/* w (...) as a factor of pixels (..., C) */
static value *weighted (onnx_node *n, value *pixel, value *w) {
  int64_t shape[MAREA_MAX_RANK];
  if (!goes_on(n)) return NULL;
  for (int d = 0; d < rank_of(w); d++) shape[d] = size_of(w, d);
  shape[rank_of(w)] = 1;
  w = marea_onnx_cast(n, w, dtype_of(pixel));
  return mul(n, pixel, marea_onnx_reshape(n, w, rank_of(w) + 1, shape));
}

/* ---- GridSample ---- */

#define MOST_TAPS 4
enum { ZEROS, BORDER, REFLECTION };

typedef struct sampling {
  int taps; /* of one dimension: 1, 2, 4 */
  int padding;
  bool corners; /* -1 and 1 are the middles of the first and last pixel, not their edges */
} sampling;

static void read_sampling (onnx_node *n, sampling *s) {
  char mode[16], padding[16];
  marea_onnx_text(n, "mode", n->version < 20 ? "bilinear" : "linear", mode, sizeof mode);
  marea_onnx_text(n, "padding_mode", "zeros", padding, sizeof padding);
  s->corners = int_of(n, "align_corners", 0);
  s->taps = strcmp(mode, "nearest") == 0                                   ? 1
            : strcmp(mode, "bilinear") == 0 || strcmp(mode, "linear") == 0 ? 2
            : strcmp(mode, "bicubic") == 0 || strcmp(mode, "cubic") == 0   ? 4
                                                                           : 0;
  s->padding = strcmp(padding, "border") == 0       ? BORDER
               : strcmp(padding, "reflection") == 0 ? REFLECTION
                                                    : ZEROS;
  if (!s->taps) marea_onnx_reject(n, "attribute 'mode': '%s' is not known", mode);
  if (s->padding == ZEROS && strcmp(padding, "zeros") != 0)
    marea_onnx_reject(n, "attribute 'padding_mode': '%s' is not known", padding);
}

/* -1 .. 1 as pixels from 0 */
static value *coordinate (onnx_node *n, value *g, const sampling *s, int64_t size) {
  const double all = (double)size;
  if (s->corners) return times(n, plus(n, g, 1), (all - 1) / 2);
  return plus(n, times(n, g, all / 2), (all - 1) / 2);
}

/* Mirrored at the edges as often as needed */
static value *reflected (onnx_node *n, value *x, const sampling *s, int64_t size) {
  const double low = s->corners ? 0 : -0.5, span = (double)size - (s->corners ? 1 : 0);
  if (span == 0) return times(n, x, 0);
  value *distance = op2(n, "remainder", op1(n, "abs", plus(n, x, -low)), number(n, 2 * span, x));
  value *back = plus(n, op1(n, "neg", distance), 2 * span);
  return plus(n, op2(n, "minimum", distance, back), low);
}

/* Coordinates outside go inside, as the padding says; pixels that are still outside count as zeros. The border of a cubic
   is that of its pixels alone. */
static value *brought_in (onnx_node *n, value *x, const sampling *s, int64_t size) {
  const double low = s->corners ? 0 : -0.5, high = (double)size - 1 - low;
  if (s->padding == ZEROS || (s->padding == BORDER && s->taps == 4)) return x;
  if (s->padding == REFLECTION) return reflected(n, x, s, size);
  value *below = op2(n, "lt", x, number(n, low, x)), *above = op2(n, "gt", x, number(n, high, x));
  return where(n, op2(n, "maximum", below, above), within(n, x, 0, (double)size - 1), x);
}

/* The cubic with a = -0.75 at distance x from the middle, for 1 <= x <= 2 or below 1 */
static value *cubic (onnx_node *n, value *x, bool far) {
  const double a = -0.75;
  value *x2 = mul(n, x, x), *x3 = mul(n, x2, x);
  if (!far) return plus(n, sub(n, times(n, x3, a + 2), times(n, x2, a + 3)), 1);
  return plus(n, add(n, sub(n, times(n, x3, a), times(n, x2, 5 * a)), times(n, x, 8 * a)), -4 * a);
}

/* How much the pixel of tap t counts, `part` being the way from the pixel below */
static value *share (onnx_node *n, value *part, int taps, int t) {
  if (taps == 1) return NULL;
  value *rest = plus(n, op1(n, "neg", part), 1);
  if (taps == 2) return t ? part : rest;
  value *from = t < 2 ? part : rest;
  return t == 0 || t == 3 ? cubic(n, plus(n, from, 1), true) : cubic(n, from, false);
}

typedef struct axis_taps {
  value *place[MOST_TAPS], *weight[MOST_TAPS]; /* weight NULL: 1 */
} axis_taps;

/* Of coordinates x, in pixels */
static void find_taps (onnx_node *n, value *x, const sampling *s, int64_t size, axis_taps *a) {
  if (s->taps == 1) x = op1(n, "round", x);
  x = brought_in(n, x, s, size);
  value *low = s->taps == 1 ? op1(n, "round", x) : op1(n, "floor", x), *part = sub(n, x, low);
  for (int t = 0; t < s->taps; t++) {
    value *at = plus(n, low, t - (s->taps == 4));
    if (s->padding == REFLECTION) at = reflected(n, at, s, size);
    value *in = within(n, at, 0, (double)size - 1), *w = share(n, part, s->taps, t);
    value *counts = s->padding == ZEROS ? marea_onnx_cast(n, op2(n, "eq", in, at), dtype_of(x)) : NULL;
    a->weight[t] = w && counts ? mul(n, w, counts) : w ? w : counts;
    a->place[t] = marea_onnx_cast(n, in, MAREA_I64);
  }
}

/* Number of the first pixel of each image: (N, 1, ...) */
static value *image_starts (onnx_node *n, const value *x, int rank) {
  int64_t shape[MAREA_MAX_RANK], size = 1;
  if (!goes_on(n)) return NULL;
  for (int d = 0; d < rank; d++) shape[d] = d ? 1 : size_of(x, 0);
  for (int d = 1; d < rank_of(x) - 1; d++) size *= size_of(x, d);
  value *starts = mul(n, marea_onnx_range(n, size_of(x, 0)), marea_onnx_integer(n, size, MAREA_I64));
  return marea_onnx_reshape(n, starts, rank, shape);
}

/* The sum over the taps of dimensions from i on, those before being chosen: `at` numbers pixels so far. */
static value *sampled (onnx_node *n, value *x, const axis_taps *axes, int i, int taps, value *at, value *w,
                       value *sum) {
  if (i == rank_of(x) - 2) {
    value *start = image_starts(n, x, rank_of(at)), *pixel = pixels(n, x, add(n, start, at));
    if (w) pixel = weighted(n, pixel, w);
    return sum ? add(n, sum, pixel) : pixel;
  }
  for (int t = 0; t < taps && goes_on(n); t++) {
    value *next = axes[i].place[t], *own = axes[i].weight[t];
    if (at) next = add(n, mul(n, at, marea_onnx_integer(n, size_of(x, 1 + i), MAREA_I64)), next);
    sum = sampled(n, x, axes, i + 1, taps, next, w && own ? mul(n, w, own) : w ? w : own, sum);
  }
  return sum;
}

HANDLER(GridSample) {
  value *x = image(n, 0), *grid = input(n, 1);
  sampling s;
  axis_taps axes[ONNX_MOST_SPATIAL];
  read_sampling(n, &s);
  const int d = rank_of(x) - 2;
  if (goes_on(n) && (d < 1 || d > ONNX_MOST_SPATIAL || rank_of(grid) != d + 2 || size_of(grid, d + 1) != d ||
                     count_of(x) == 0))
    marea_onnx_reject(n, "images %s and a grid %s", marea_tensor_text(x->t).s, marea_tensor_text(grid->t).s);
  grid = marea_onnx_cast(n, grid, marea_dtype_computed((marea_dtype)dtype_of(grid)));
  for (int i = 0; i < d && goes_on(n); i++) { /* the last dimension comes first in the grid */
    value *g = CALL(n, "select", VALUES(grid), NAMED(marea_int("dim", d + 1), marea_int("index", d - 1 - i)));
    find_taps(n, coordinate(n, g, &s, size_of(x, 1 + i)), &s, size_of(x, 1 + i), &axes[i]);
  }
  if (goes_on(n)) marea_onnx_give_image(n, 0, sampled(n, x, axes, 0, s.taps, NULL, NULL, NULL));
}

/* ---- DeformConv: each tap of a convolution reads an image that is moved pixel by pixel ---- */

typedef struct deformed {
  onnx_windows w;
  int64_t taps, parts; /* parts: of the channels, which are moved each in its own way */
  value *x, *offset,
      *mask; /* images; channels of the offset: (parts, taps, dimensions), of the mask (parts, taps) */
} deformed;

/* Channel c of an image, as (N, ...) */
static value *channel (onnx_node *n, value *x, int64_t c) {
  return CALL(n, "select", VALUES(x), NAMED(marea_int("dim", rank_of(x) - 1), marea_int("index", c)));
}

/* Where tap `at` of the windows along dimension i would read, had it no offset; broadcasts with (N, ...) */
static value *unmoved (onnx_node *n, const onnx_windows *w, int i, int64_t at, int dtype) {
  int64_t shape[ONNX_MOST_SPATIAL + 1] = {1, 1, 1, 1};
  value *steps = marea_onnx_cast(n, marea_onnx_range(n, w->out[i]), dtype);
  steps = plus(n, times(n, steps, (double)w->stride[i]), (double)(at * w->dilation[i] - w->before[i]));
  shape[1 + i] = w->out[i];
  return marea_onnx_reshape(n, steps, w->d + 1, shape);
}

/* What tap t reads of part p of the channels: (N, ..., C / parts) */
static value *moved (onnx_node *n, const deformed *f, value *x, int64_t p, int64_t t) {
  static const sampling linear = {.taps = 2, .padding = ZEROS};
  axis_taps axes[ONNX_MOST_SPATIAL];
  const int d = f->w.d;
  int64_t rest = t;
  for (int i = d - 1; i >= 0 && goes_on(n); rest /= f->w.kernel[i--]) {
    value *offset = channel(n, f->offset, (p * f->taps + t) * d + i);
    offset = marea_onnx_cast(n, offset, marea_dtype_computed((marea_dtype)dtype_of(offset)));
    value *at = add(n, offset, unmoved(n, &f->w, i, rest % f->w.kernel[i], dtype_of(offset)));
    find_taps(n, at, &linear, f->w.in[i], &axes[i]);
  }
  value *y = goes_on(n) ? sampled(n, x, axes, 0, 2, NULL, NULL, NULL) : NULL;
  return f->mask ? weighted(n, y, channel(n, f->mask, p * f->taps + t)) : y;
}

static bool read_deformed (onnx_node *n, const value *weight, deformed *f) {
  *f = (deformed){.x = image(n, 0), .offset = image(n, 2), .mask = has(n, 4) ? image(n, 4) : NULL, .taps = 1};
  if (goes_on(n) && (rank_of(f->x) < 3 || rank_of(weight) != rank_of(f->x) || count_of(f->x) == 0))
    marea_onnx_reject(n, "expected images and a weight of one rank, from 3 on");
  if (!goes_on(n) || !marea_onnx_read_windows(n, f->x, weight->t->shape + 2, &f->w)) return false;
  if (!marea_onnx_place_windows(n, &f->w, false)) return false;
  int64_t shape[MAREA_MAX_RANK] = {size_of(f->x, 0)};
  const int last = f->w.d + 1;
  for (int i = 0; i < f->w.d; i++) {
    f->taps *= f->w.kernel[i];
    shape[1 + i] = f->w.out[i];
  }
  f->parts = int_of(n, "offset_group", 1);
  if (f->parts < 1 || f->parts > INT16_MAX || size_of(f->x, last) % f->parts)
    marea_onnx_reject(n, "attribute 'offset_group': %lld does not divide the channels", (long long)f->parts);
  shape[last] = f->parts * f->taps * f->w.d;
  if (goes_on(n) && !marea_has_shape(f->offset->t, last + 1, shape))
    marea_onnx_reject(n, "an offset, with channels last, of %s", marea_tensor_text(f->offset->t).s);
  shape[last] = f->parts * f->taps;
  if (goes_on(n) && f->mask && !marea_has_shape(f->mask->t, last + 1, shape))
    marea_onnx_reject(n, "a mask, with channels last, of %s", marea_tensor_text(f->mask->t).s);
  return goes_on(n);
}

/* All channels that tap t reads, as an image of one column (N, pixels, 1, C) */
static value *gathered (onnx_node *n, const deformed *f, int64_t t) {
  const int last = rank_of(f->x) - 1;
  const int64_t channels = size_of(f->x, last), size = channels / f->parts;
  value *all = NULL;
  for (int64_t p = 0; p < f->parts && goes_on(n); p++) {
    value *part = moved(n, f, marea_onnx_narrow(n, f->x, last, p * size, size), p, t);
    all = all ? CALL(n, "concat", VALUES(all, part), NAMED(marea_int("dim", last))) : part;
  }
  if (!goes_on(n)) return NULL;
  const int64_t N = size_of(f->x, 0);
  return marea_onnx_reshape(n, all, 4,
                            (int64_t[]){N, count_of(all) / MAREA_MAX(N * channels, 1), 1, channels});
}

HANDLER(DeformConv) {
  value *weight = input(n, 1), *bias = optional(n, 3), *y = NULL;
  deformed f;
  if (!read_deformed(n, weight, &f)) return;
  const int64_t M = size_of(weight, 0), C = size_of(weight, 1);
  weight = marea_onnx_reshape(n, marea_onnx_turned(n, weight), 4, (int64_t[]){f.taps, 1, C, M});
  for (int64_t t = 0; t < f.taps && goes_on(n); t++) {
    value *tap = marea_onnx_narrow(n, weight, 0, t, 1);
    value *part = CALL(n, "conv2d", VALUES(gathered(n, &f, t), tap, t ? NULL : bias),
                       NAMED(marea_int("groups", int_of(n, "group", 1))));
    y = y ? add(n, y, part) : part;
  }
  int64_t shape[MAREA_MAX_RANK] = {size_of(f.x, 0)};
  for (int i = 0; i < f.w.d; i++) shape[1 + i] = f.w.out[i];
  shape[f.w.d + 1] = M;
  marea_onnx_give_image(n, 0, marea_onnx_reshape(n, y, f.w.d + 2, shape));
}

/* ---- AffineGrid ---- */

/* The places (x, y, (z,) 1) of all pixels, as rows */
static value *base_grid (onnx_node *n, const int64_t *size, int d, bool corners) {
  int64_t count = 1;
  for (int i = 0; i < d; i++) count *= size[i];
  value *grid = marea_onnx_new(n, MAREA_F64, 2, (int64_t[]){count, d + 1});
  for (int64_t p = 0; p < count && still(n, p); p++) {
    double *row = (double *)marea_at(grid->t) + p * (d + 1);
    int64_t rest = p;
    for (int i = d - 1; i >= 0; rest /= size[i--]) {
      const double at = (double)(rest % size[i]), last = (double)(size[i] - 1);
      row[d - 1 - i] = !corners ? (2 * at + 1) / (double)size[i] - 1 : last > 0 ? 2 * at / last - 1 : 0;
    }
    row[d] = 1;
  }
  return grid;
}

HANDLER(AffineGrid) {
  value *theta = input(n, 0);
  onnx_ints size;
  if (!marea_onnx_known_ints(n, input(n, 1), &size)) return;
  const int d = size.n - 2;
  bool fits = (d == 2 || d == 3) && rank_of(theta) == 3 && size_of(theta, 1) == d &&
              size_of(theta, 2) == d + 1;
  for (int i = 0; i < d && fits; i++) fits = size.v[2 + i] > 0 && size.v[2 + i] <= INT32_MAX >> 16;
  if (!fits) marea_onnx_reject(n, "expected (N, 2, 3) or (N, 3, 4), and sizes of images");
  if (!goes_on(n)) return;
  value *base = marea_onnx_cast(n, base_grid(n, size.v + 2, d, int_of(n, "align_corners", 0)),
                                dtype_of(theta));
  value *y = CALL(n, "matmul", VALUES(base, theta), NAMED(marea_int("transpose_b", 1)));
  int64_t shape[ONNX_MOST_SPATIAL + 2] = {size_of(theta, 0)};
  for (int i = 0; i < d; i++) shape[1 + i] = size.v[2 + i];
  shape[d + 1] = d;
  give(n, 0, marea_onnx_reshape(n, y, d + 2, shape));
}

/* ---- RoiAlign: the regions must be known ---- */

typedef struct regions {
  int64_t n, out[2], in[2];            /* rows, columns: of a result, of an image */
  double scale, half, *start, *length; /* (n, 2) in pixels */
  int64_t *grid, most[2];              /* (n, 2): samples of each bin */
} regions;

/* Where sample k of the bins along dimension i lies: for tap t, 0 or 1, the pixel and how much it counts, (n, out) */
static void sample_bins (onnx_node *n, const regions *r, int i, int64_t k, int t, bool mean, value **place,
                         value **weight) {
  *place = marea_onnx_new(n, MAREA_I64, 2, (int64_t[]){r->n, r->out[i]});
  *weight = marea_onnx_new(n, MAREA_F64, 2, (int64_t[]){r->n, r->out[i]});
  if (!goes_on(n)) return;
  for (int64_t j = 0; j < r->n * r->out[i] && still(n, j); j++) {
    const int64_t region = j / r->out[i], grid = r->grid[2 * region + i], sample = MAREA_MIN(k, grid - 1);
    const double bin = r->length[2 * region + i] / (double)r->out[i], last = (double)(r->in[i] - 1);
    double at = r->start[2 * region + i] +
                bin * ((double)(j % r->out[i]) + ((double)sample + 0.5) / (double)grid);
    const bool counts = at >= -1 && at <= last + 1 && (k < grid || !mean);
    at = MAREA_MIN(MAREA_MAX(at, 0), last);
    const double low = floor(at), share = t ? at - low : 1 - (at - low);
    ((int64_t *)marea_at((*place)->t))[j] = counts ? (int64_t)MAREA_MIN(low + t, last) : 0;
    ((double *)marea_at((*weight)->t))[j] = !counts ? 0 : mean ? share / (double)grid : share;
  }
}

static value *rows_of (onnx_node *n, value *v, bool columns) {
  if (!goes_on(n)) return NULL;
  const int64_t count = size_of(v, 0), out = size_of(v, 1);
  return marea_onnx_reshape(n, v, 3, (int64_t[]){count, columns ? 1 : out, columns ? out : 1});
}

/* One sample of each bin: the sum, or the greatest, of the four weighted pixels; `starts` (n, 1, 1) numbers the first
   pixel of each region's image. */
static value *sample_of (onnx_node *n, value *x, value *starts, const regions *r, int64_t ky, int64_t kx,
                         bool mean) {
  value *y = NULL, *row, *column, *v, *w;
  for (int t = 0; t < 4 && goes_on(n); t++) {
    sample_bins(n, r, 0, ky, t / 2, mean, &row, &v);
    sample_bins(n, r, 1, kx, t % 2, mean, &column, &w);
    row = mul(n, rows_of(n, row, false), marea_onnx_integer(n, r->in[1], MAREA_I64));
    value *at = add(n, add(n, starts, row), rows_of(n, column, true));
    value *part = weighted(n, pixels(n, x, at), mul(n, rows_of(n, v, false), rows_of(n, w, true)));
    y = y ? op2(n, mean ? "add" : "maximum", y, part) : part;
  }
  return y;
}

static void read_regions (onnx_node *n, const marea_tensor *rois, regions *r) {
  const int64_t samples = int_of(n, "sampling_ratio", 0);
  for (int64_t k = 0; k < 2 * r->n && still(n, k); k++) {
    const int i = k % 2; /* rows, columns; a region is x1, y1, x2, y2 */
    const double from = marea_onnx_element(rois, k / 2 * 4 + 1 - i) * r->scale - r->half;
    const double length = marea_onnx_element(rois, k / 2 * 4 + 3 - i) * r->scale - r->half - from;
    r->start[k] = from;
    r->length[k] = r->half > 0 ? length : MAREA_MAX(length, 1);
    const double grid = samples > 0 ? (double)samples : ceil(r->length[k] / (double)r->out[i]);
    if (!(fabs(from) < INT32_MAX) || !(fabs(grid) < INT16_MAX))
      marea_onnx_reject(n, "region %lld is too large", (long long)(k / 2));
    else r->grid[k] = MAREA_MAX((int64_t)grid, 1);
    r->most[i] = goes_on(n) ? MAREA_MAX(r->most[i], r->grid[k]) : 0;
  }
}

static void align (onnx_node *n, value *x, value *starts, const regions *r, bool mean) {
  value *y = NULL;
  for (int64_t k = 0; k < r->most[0] * r->most[1] && still(n, k); k++) {
    value *part = sample_of(n, x, starts, r, k / r->most[1], k % r->most[1], mean);
    y = y ? op2(n, mean ? "add" : "maximum", y, part) : part;
  }
  marea_onnx_give_image(n, 0, y);
}

HANDLER(RoiAlign) {
  value *x = image(n, 0), *rois = input(n, 1), *index = input(n, 2);
  const bool mean = marea_onnx_is(n, "mode", "avg", "avg");
  const bool half = marea_onnx_is(n, "coordinate_transformation_mode",
                                  n->version < 16 ? "output_half_pixel" : "half_pixel", "half_pixel");
  regions r = {.out = {int_of(n, "output_height", 1), int_of(n, "output_width", 1)},
               .most = {1, 1},
               .scale = float_of(n, "spatial_scale", 1),
               .half = half ? 0.5 : 0};
  if (!mean && !marea_onnx_is(n, "mode", "avg", "max"))
    marea_onnx_reject(n, "attribute 'mode' is neither avg nor max");
  if (goes_on(n) && (rank_of(x) != 4 || rank_of(rois) != 2 || size_of(rois, 1) != 4 || r.out[0] < 1 ||
                     r.out[1] < 1 || count_of(x) == 0))
    marea_onnx_reject(n, "expected images (N, C, H, W) and regions (R, 4), got %s and %s",
                      marea_tensor_text(x->t).s, marea_tensor_text(rois->t).s);
  const marea_tensor *known = marea_onnx_elements(n, rois);
  if (!goes_on(n)) return;
  r.n = size_of(rois, 0);
  r.in[0] = size_of(x, 1);
  r.in[1] = size_of(x, 2);
  value *starts = mul(n, index, marea_onnx_integer(n, r.in[0] * r.in[1], MAREA_I64));
  starts = marea_onnx_reshape(n, starts, 3, (int64_t[]){r.n, 1, 1});
  r.start = marea_onnx_room(n, r.n, 2 * (2 * sizeof r.start[0] + sizeof r.grid[0]));
  if (r.start) {
    r.length = r.start + 2 * r.n;
    r.grid = (int64_t *)(r.length + 2 * r.n);
    read_regions(n, known, &r);
    align(n, x, starts, &r, mean);
  }
  marea_free(n->e->ctx, r.start);
}
