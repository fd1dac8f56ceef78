/* SPDX-License-Identifier: MIT
** resize.c: ONNX's operators that change the size of images. Interpolation goes one dimension behind the other: each
** element of the result is a sum of elements of x, whose places and weights depend on sizes alone.
*/
#include <math.h>

#include "window.h"

typedef struct resizing {
  bool nearest, cubic, smooth, exclude; /* smooth: anti-aliased; exclude: elements outside count nothing */
  char place[24], round[24];
  double a, outside; /* of the cubic; what is put outside of the region */
} resizing;

/* One dimension */
typedef struct stretch {
  int64_t in, out;
  double scale, start, end; /* the region is start..end of x, in parts of it */
  double length;            /* of the result before it is cut to whole numbers */
} stretch;

/* ---- where elements come from ---- */

static bool crops (const resizing *r) { return strcmp(r->place, "tf_crop_and_resize") == 0; }

/* Scales are of f32, so the nearest element is looked for there: 1 / 0.33333334 is 3, and 1.5 / 0.6 is 2.5. */
static double as_precise (const resizing *r, double x) { return r->nearest ? (double)(float)x : x; }

static double source_of (const resizing *r, const stretch *s, int64_t i) {
  const double half = as_precise(r, ((double)i + 0.5) / s->scale), last = (double)(s->in - 1);
  if (strcmp(r->place, "asymmetric") == 0) return (double)i / s->scale;
  if (strcmp(r->place, "tf_half_pixel_for_nn") == 0) return half;
  if (strcmp(r->place, "align_corners") == 0) return s->length == 1 ? 0 : (double)i * last / (s->length - 1);
  if (strcmp(r->place, "pytorch_half_pixel") == 0) return s->out > 1 ? half - 0.5 : 0;
  if (strcmp(r->place, "half_pixel_symmetric") == 0)
    return (double)s->in / 2 * (1 - (double)s->out / s->length) + half - 0.5;
  if (crops(r))
    return s->out > 1 ? s->start * last + (double)i * (s->end - s->start) * last / (double)(s->out - 1)
                      : 0.5 * (s->start + s->end) * last;
  return half - 0.5;
}

/* Where nothing is said, before version 11, an element of a smaller image is the next one of x. */
static double rounded (const char *way, const stretch *s, double x) {
  if (!way[0]) return s->scale < 1 ? ceil(x) : floor(x);
  if (strcmp(way, "floor") == 0) return floor(x);
  if (strcmp(way, "ceil") == 0) return ceil(x);
  return strcmp(way, "round_prefer_ceil") == 0 ? floor(x + 0.5) : ceil(x - 0.5);
}

static double weight_of (const resizing *r, double x) {
  const double a = r->a;
  x = fabs(x);
  if (!r->cubic) return MAREA_MAX(1 - x, 0);
  return x <= 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

static int64_t inside (double i, int64_t size) {
  return !(i > 0) ? 0 : i > (double)(size - 1) ? size - 1 : (int64_t)i;
}

/* Scale of the filter: anti-aliased it is as wide as what becomes one element. */
static double filter_scale (const resizing *r, const stretch *s) {
  return r->smooth ? MAREA_MIN(s->scale, 1) : 1;
}

/* Elements that a result may be made of, the first of them relative to floor(source) */
static int64_t taps_of (const resizing *r, const stretch *s, int64_t *first) {
  *first = r->nearest ? 0 : (int64_t)floor((r->cubic ? -2 : -1) / filter_scale(r, s)) + 1;
  return r->nearest ? 1 : 2 - 2 * *first;
}

/* Places and weights of element i of the result, `step` apart */
static void find_taps (const resizing *r, const stretch *s, int64_t i, int64_t *place, double *weight,
                       int64_t step) {
  int64_t first;
  const int64_t taps = taps_of(r, s, &first);
  const double x = source_of(r, s, i), low = floor(x);
  double sum = 0;
  if (r->nearest) {
    place[0] = inside(rounded(r->round, s, as_precise(r, x)), s->in);
    weight[0] = 1;
    return;
  }
  for (int64_t t = 0; t < taps; t++) {
    const double at = low + (double)(first + t);
    const bool counts = !r->exclude || (at >= 0 && at < (double)s->in);
    place[t * step] = inside(at, s->in);
    weight[t * step] = counts ? weight_of(r, (at - x) * filter_scale(r, s)) : 0;
    sum += weight[t * step];
  }
  for (int64_t t = 0; t < taps && sum != 0; t++) weight[t * step] /= sum;
}

/* ---- one dimension ---- */

static value *along (onnx_node *n, value *v, int dim, int rank) {
  int64_t shape[MAREA_MAX_RANK];
  if (!goes_on(n)) return NULL;
  for (int d = 0; d < rank; d++) shape[d] = d == dim ? count_of(v) : 1;
  return marea_onnx_reshape(n, v, rank, shape);
}

static value *picked (onnx_node *n, value *x, value *places, int dim) {
  return CALL(n, "index_select", VALUES(x, marea_onnx_indices(n, places, goes_on(n) ? size_of(x, dim) : 0)),
              NAMED(marea_int("dim", dim)));
}

/* Row t of places or weights (taps, out) */
static value *row (onnx_node *n, value *table, int64_t t) {
  return marea_onnx_join(n, marea_onnx_narrow(n, table, 0, t, 1));
}

static value *stretched (onnx_node *n, value *x, int dim, const resizing *r, const stretch *s) {
  int64_t first;
  const int64_t taps = taps_of(r, s, &first);
  value *places = marea_onnx_new(n, MAREA_I64, 2, (int64_t[]){taps, s->out});
  value *weights = marea_onnx_new(n, MAREA_F64, 2, (int64_t[]){taps, s->out}), *y = NULL;
  for (int64_t i = 0; i < s->out && still(n, taps > 256 ? 0 : i); i++)
    find_taps(r, s, i, (int64_t *)marea_at(places->t) + i, (double *)marea_at(weights->t) + i, s->out);
  for (int64_t t = 0; t < taps && goes_on(n); t++) {
    value *part = picked(n, x, row(n, places, t), dim);
    if (r->nearest) return part;
    part = mul(n, part, along(n, marea_onnx_cast(n, row(n, weights, t), dtype_of(x)), dim, rank_of(x)));
    y = y ? add(n, y, part) : part;
  }
  return y;
}

/* The value of what is outside where the source of an element of this dimension is outside of x */
static value *with_outside (onnx_node *n, value *y, int dim, const resizing *r, const stretch *s) {
  value *known = marea_onnx_new(n, MAREA_U8, 1, (int64_t[]){s->out});
  for (int64_t i = 0; i < s->out && still(n, i); i++) {
    const double x = (double)(float)source_of(r, s, i); /* which rounding does not take over the edge */
    ((uint8_t *)marea_at(known->t))[i] = x >= 0 && x <= (double)(s->in - 1);
  }
  return where(n, along(n, known, dim, rank_of(y)), y, marea_onnx_scalar(n, r->outside, dtype_of(y)));
}

static bool is_same (const resizing *r, const stretch *s) {
  return !crops(r) && s->out == s->in && s->scale == 1;
}

/* ---- images that become a whole number of times larger: operators of their own ---- */

static bool is_multiple (onnx_node *n, const resizing *r, const stretch *s) {
  const int64_t k = s->in > 0 ? s->out / s->in : 0;
  bool is = k > 0 && k * s->in == s->out;
  for (int64_t i = 0; i < s->out && is && still(n, i); i++) {
    const double x = source_of(r, s, i);
    is = r->nearest ? inside(rounded(r->round, s, as_precise(r, x)), s->in) == i / k
                    : fabs(x - (((double)i + 0.5) / (double)k - 0.5)) < 1e-6;
  }
  return is;
}

static bool multiplies (onnx_node *n, const resizing *r, const stretch *s) {
  const value *x = each(n, 0);
  if (!goes_on(n) || rank_of(x) != 4 || !marea_dtype_is_float((marea_dtype)dtype_of(x))) return false;
  if (crops(r) || r->cubic || !is_same(r, &s[0]) || !is_same(r, &s[1])) return false;
  return is_multiple(n, r, &s[2]) && is_multiple(n, r, &s[3]);
}

static void multiply (onnx_node *n, const resizing *r, const stretch *s) {
  const int64_t scale[] = {s[2].out / s[2].in, s[3].out / s[3].in};
  marea_onnx_give_image(n, 0,
                        CALL(n, r->nearest ? "upsample_nearest2d" : "upsample_bilinear2d",
                             VALUES(image(n, 0)), NAMED(marea_ints("scale", 2, scale))));
}

static void resize (onnx_node *n, const resizing *r, const stretch *s) {
  value *x = each(n, 0);
  if (!goes_on(n)) return;
  if (multiplies(n, r, s)) {
    multiply(n, r, s);
    return;
  }
  const int rank = rank_of(x), type = dtype_of(x);
  const bool whole = !r->nearest && !marea_dtype_is_float((marea_dtype)type), last = n->in[0]->channels_last;
  if (whole) x = marea_onnx_cast(n, x, MAREA_F32);
  for (int d = 0; d < rank; d++)
    if (!is_same(r, &s[d])) x = stretched(n, x, marea_onnx_place(last, d, rank), r, &s[d]);
  for (int d = 0; d < rank && crops(r); d++)
    x = with_outside(n, x, marea_onnx_place(last, d, rank), r, &s[d]);
  if (goes_on(n)) give_each(n, whole ? marea_onnx_cast(n, x, type) : x);
}

/* ---- what is asked for ---- */

#define MOST_NUMBERS (2 * MAREA_MAX_RANK)
typedef struct numbers {
  int n;
  double v[MOST_NUMBERS];
} numbers;

/* Of an input; none where it is left out or empty */
static void read_numbers (onnx_node *n, int i, numbers *list) {
  list->n = 0;
  if (!goes_on(n) || !has(n, i)) return;
  const marea_tensor *t = marea_onnx_elements(n, input(n, i));
  if (t && marea_tensor_size(t) > MOST_NUMBERS) marea_onnx_reject(n, "input %d: too many numbers", i + 1);
  for (int64_t k = 0; goes_on(n) && k < marea_tensor_size(t); k++)
    list->v[list->n++] = marea_onnx_element(t, k);
}

static void read_kind (onnx_node *n, const char *place, const char *round, resizing *r) {
  char mode[16];
  memset(r, 0, sizeof *r);
  marea_onnx_text(n, "mode", "nearest", mode, sizeof mode);
  marea_onnx_text(n, "coordinate_transformation_mode", place, r->place, sizeof r->place);
  marea_onnx_text(n, "nearest_mode", round, r->round, sizeof r->round);
  r->nearest = strcmp(mode, "nearest") == 0;
  r->cubic = strcmp(mode, "cubic") == 0;
  if (!r->nearest && !r->cubic && strcmp(mode, "linear") != 0 && strcmp(mode, "bilinear") != 0)
    marea_onnx_reject(n, "attribute 'mode': '%s' is not known", mode);
  r->smooth = int_of(n, "antialias", 0) && !r->nearest;
  r->exclude = int_of(n, "exclude_outside", 0);
  r->a = float_of(n, "cubic_coeff_a", -0.75);
  r->outside = float_of(n, "extrapolation_value", 0);
}

/* The dimensions that are meant, all where it is left out */
static void read_axes (onnx_node *n, int rank, onnx_ints *axes) {
  const bool given = marea_onnx_ints(n, "axes", axes);
  if (given && axes->n > rank) marea_onnx_reject(n, "%d axes", axes->n);
  for (int i = 0; i < axes->n && goes_on(n); i++) axes->v[i] = marea_onnx_axis(n, axes->v[i], rank);
  for (; !given && axes->n < rank; axes->n++) axes->v[axes->n] = axes->n;
}

static void set_scale (onnx_node *n, stretch *s, double scale, bool region) {
  s->scale = scale;
  s->length = (double)s->in * scale * (region ? s->end - s->start : 1);
  if (!(scale >= 0x1p-31) || !(s->length >= MAREA_MIN(s->in, 1)) || s->length > INT32_MAX)
    marea_onnx_reject(n, "a scale of %g", scale);
  else s->out = (int64_t)floor(s->length);
}

static void set_size (onnx_node *n, stretch *s, double size) {
  if (!(size >= 1) || size > INT32_MAX || s->in < 1) {
    marea_onnx_reject(n, "a dimension of %lld becomes one of %g", (long long)s->in, size);
    return;
  }
  s->out = (int64_t)size;
  s->length = (double)s->out;
  s->scale = s->length / (double)s->in;
}

/* Sizes that keep the ratio of the dimensions: none, or all, larger than asked for */
static void set_in_ratio (onnx_node *n, stretch *s, const onnx_ints *axes, const numbers *sizes,
                          bool smaller) {
  double best = 0;
  for (int i = 0; i < axes->n; i++) {
    const double scale = sizes->v[i] / (double)MAREA_MAX(s[axes->v[i]].in, 1);
    best = i == 0 ? scale : smaller ? MAREA_MIN(best, scale) : MAREA_MAX(best, scale);
  }
  for (int i = 0; i < axes->n && goes_on(n); i++) {
    stretch *one = &s[axes->v[i]];
    set_size(n, one, floor((double)one->in * best + 0.5));
    one->scale = best;
    one->length = (double)one->in * best;
  }
}

static bool start (onnx_node *n, stretch *s) {
  value *x = each(n, 0);
  if (!goes_on(n)) return false;
  const bool last = n->in[0]->channels_last;
  for (int d = 0; d < rank_of(x); d++) {
    const int64_t size = size_of(x, marea_onnx_place(last, d, rank_of(x)));
    s[d] = (stretch){.in = size, .out = size, .scale = 1, .length = (double)size, .end = 1};
  }
  return true;
}

static void set_sizes (onnx_node *n, stretch *s, const onnx_ints *axes, const numbers *sizes) {
  char policy[16];
  marea_onnx_text(n, "keep_aspect_ratio_policy", "stretch", policy, sizeof policy);
  if (strcmp(policy, "stretch") != 0) {
    set_in_ratio(n, s, axes, sizes, strcmp(policy, "not_larger") == 0);
    return;
  }
  for (int i = 0; i < axes->n && goes_on(n); i++) set_size(n, &s[axes->v[i]], sizes->v[i]);
}

static bool read_region (onnx_node *n, const onnx_ints *axes, stretch *s) {
  numbers region;
  read_numbers(n, 1, &region);
  if (goes_on(n) && region.n != 2 * axes->n) marea_onnx_reject(n, "a roi of %d numbers", region.n);
  for (int i = 0; i < axes->n && goes_on(n); i++) {
    s[axes->v[i]].start = region.v[i];
    s[axes->v[i]].end = region.v[i + axes->n];
  }
  return goes_on(n);
}

HANDLER(Resize) {
  const bool old = n->version < 11;
  resizing r;
  stretch s[MAREA_MAX_RANK];
  onnx_ints axes;
  numbers scales, sizes = {0};
  read_kind(n, old ? "asymmetric" : "half_pixel", old ? "" : "round_prefer_floor", &r);
  if (!start(n, s)) return;
  read_axes(n, rank_of(each(n, 0)), &axes);
  if (crops(&r) && !read_region(n, &axes, s)) return;
  read_numbers(n, old ? 1 : 2, &scales);
  if (!old) read_numbers(n, 3, &sizes);
  if (goes_on(n) && (scales.n ? scales.n : sizes.n) != axes.n)
    marea_onnx_reject(n, "%d scales and %d sizes for %d dimensions", scales.n, sizes.n, axes.n);
  for (int i = 0; i < scales.n && goes_on(n); i++) set_scale(n, &s[axes.v[i]], scales.v[i], crops(&r));
  if (!scales.n && goes_on(n)) set_sizes(n, s, &axes, &sizes);
  resize(n, &r, s);
}

/* Scales are an attribute before version 9. */
HANDLER(Upsample) {
  const Marea__AttributeProto *a = marea_onnx_attribute(n, "scales");
  resizing r;
  stretch s[MAREA_MAX_RANK];
  numbers scales = {0};
  read_kind(n, "asymmetric", "", &r);
  if (!start(n, s)) return;
  if (!a) read_numbers(n, 1, &scales);
  for (size_t i = 0; a && i < a->n_floats && i < MOST_NUMBERS; i++)
    scales.v[scales.n++] = (double)a->floats[i];
  if (goes_on(n) && scales.n != rank_of(each(n, 0))) marea_onnx_reject(n, "%d scales", scales.n);
  for (int i = 0; i < scales.n && goes_on(n); i++) set_scale(n, &s[i], scales.v[i], false);
  resize(n, &r, s);
}

/* ---- cut, or surrounded with zeros ---- */

HANDLER(CenterCropPad) {
  value *x = input(n, 0);
  onnx_ints shape, axes;
  if (!marea_onnx_known_ints(n, input(n, 1), &shape)) return;
  read_axes(n, rank_of(x), &axes);
  if (goes_on(n) && axes.n != shape.n) marea_onnx_reject(n, "%d sizes for %d axes", shape.n, axes.n);
  for (int i = 0; i < axes.n && goes_on(n); i++) {
    if (shape.v[i] < 0) marea_onnx_reject(n, "a size of %lld", (long long)shape.v[i]);
    if (!goes_on(n)) return;
    const int64_t more = shape.v[i] - size_of(x, (int)axes.v[i]); /* the odd one behind */
    x = marea_onnx_pad(n, x, (int)axes.v[i], more / 2, more - more / 2, 0);
  }
  give(n, 0, x);
}
