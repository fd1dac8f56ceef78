/* SPDX-License-Identifier: MIT
** resize.c: pictures of one size, as networks want them: read, in as many channels, the middle or the whole of the picture
** resampled.
**
** Resampling is by a triangle of weights around each pixel's centre (bilinear), as wide as the pixel is in the source where
** that is larger, in whole numbers: columns, then rows, each rounded to bytes. It gives what Image.resize of PIL gives,
** bit by bit. Source of the method: Pillow's Resample.c, and Turkowski, Filters for common resampling tasks, 1990.
*/
#include <math.h>
#include <string.h>

#include "io.h"

#define MAX_SIDE 65500 /* pixels; JPEG has no more */
#define FRACTION 22    /* bits of a weight; 8 of a sample and 2 to spare make 32 */

/* Where a side of the result comes from. */
typedef struct axis {
  int64_t in, out;
  float from, to; /* the part of `in` that is shown; in 24 bits as in PIL */
  int64_t width;  /* most weights of a pixel */
  int64_t *first, *count;
  int32_t *weights; /* (out, width) */
} axis;

static double triangle (double x) { return fabs(x) < 1 ? 1 - fabs(x) : 0; }

static void weigh (axis *a, int64_t i, double scale, double stretch) {
  const double centre = (double)a->from + ((double)i + 0.5) * scale;
  const int64_t first = (int64_t)(centre - stretch + 0.5), last = (int64_t)(centre + stretch + 0.5);
  a->first[i] = first < 0 ? 0 : first;
  a->count[i] = (last > a->in ? a->in : last) - a->first[i];
  double sum = 0;
  for (int64_t k = 0; k < a->count[i]; k++)
    sum += triangle(((double)(k + a->first[i]) - centre + 0.5) / stretch);
  for (int64_t k = 0; k < a->count[i]; k++) {
    const double w = triangle(((double)(k + a->first[i]) - centre + 0.5) / stretch) / sum;
    a->weights[i * a->width + k] = (int32_t)(0.5 + w * (1 << FRACTION));
  }
}

static marea_status make_axis (marea_context *ctx, axis *a) {
  const double scale = (double)(a->to - a->from) / (double)a->out, stretch = scale < 1 ? 1 : scale;
  a->width = (int64_t)ceil(stretch) * 2 + 1;
  a->first = marea_alloc(ctx, 2 * (size_t)a->out * sizeof *a->first);
  a->weights = marea_alloc(ctx, (size_t)(a->out * a->width) * sizeof *a->weights);
  if (!a->first || !a->weights) return MAREA_ENOMEM;
  a->count = a->first + a->out;
  for (int64_t i = 0; i < a->out; i++) weigh(a, i, scale, stretch);
  return MAREA_OK;
}

static void free_axis (marea_context *ctx, axis *a) {
  marea_free(ctx, a->first);
  marea_free(ctx, a->weights);
}

static bool is_same (const axis *a) { return a->in == a->out && a->from == 0 && (int64_t)a->to == a->in; }

/* y[j] := sum over k of weights[k] x[k stride + j], for n samples that lie side by side. */
static void add_up (const uint8_t *x, int64_t stride, const int32_t *weights, int64_t count, int64_t n,
                    uint8_t *y) {
  for (int64_t j = 0; j < n; j++) {
    int32_t sum = 1 << (FRACTION - 1);
    for (int64_t k = 0; k < count; k++) sum += weights[k] * x[k * stride + j];
    y[j] = (uint8_t)(sum >> FRACTION > 255 ? 255 : sum >> FRACTION);
  }
}

/* Columns: x (rows, in, c) -> y (rows, out, c). */
static marea_status resize_rows (marea_context *ctx, const axis *a, int64_t rows, int c, const uint8_t *x,
                                 uint8_t *y) {
  for (int64_t r = 0; r < rows; r++) {
    MAREA_TRY(marea_poll(ctx));
    for (int64_t i = 0; i < a->out; i++)
      add_up(x + (r * a->in + a->first[i]) * c, c, a->weights + i * a->width, a->count[i], c,
             y + (r * a->out + i) * c);
  }
  return MAREA_OK;
}

/* Rows: x (in, n) -> y (out, n). */
static marea_status resize_columns (marea_context *ctx, const axis *a, int64_t n, const uint8_t *x,
                                    uint8_t *y) {
  for (int64_t i = 0; i < a->out; i++) {
    MAREA_TRY(marea_poll(ctx));
    add_up(x + a->first[i] * n, n, a->weights + i * a->width, a->count[i], n, y + i * n);
  }
  return MAREA_OK;
}

static marea_status resample (marea_context *ctx, axis *height, axis *width, int c, const uint8_t *x,
                              uint8_t *y) {
  uint8_t *middle = marea_alloc(ctx, (size_t)(height->in * width->out * c));
  marea_status status = middle ? make_axis(ctx, width) : MAREA_ENOMEM;
  if (status == MAREA_OK) status = make_axis(ctx, height);
  if (status == MAREA_OK && is_same(width)) memcpy(middle, x, (size_t)(height->in * width->out * c));
  else if (status == MAREA_OK) status = resize_rows(ctx, width, height->in, c, x, middle);
  if (status == MAREA_OK && is_same(height)) memcpy(y, middle, (size_t)(height->out * width->out * c));
  else if (status == MAREA_OK) status = resize_columns(ctx, height, width->out * c, middle, y);
  free_axis(ctx, width);
  free_axis(ctx, height);
  marea_free(ctx, middle);
  return status;
}

/* Gray of RGB, as PIL's convert("L"): ITU-R 601, in 16 bits. */
static uint8_t gray_of (const uint8_t *p) {
  return (uint8_t)((19595 * p[0] + 38470 * p[1] + 7471 * p[2] + 0x8000) >> 16);
}

/* n pixels of `from` channels as 1 or 3; alpha is left out. */
static void convert (const uint8_t *x, int64_t n, int from, int to, uint8_t *y) {
  for (int64_t i = 0; i < n; i++, x += from, y += to) {
    if (to == 1) y[0] = from < 3 ? x[0] : gray_of(x);
    else
      for (int k = 0; k < 3; k++) y[k] = x[from < 3 ? 0 : k];
  }
}

/* The middle of the picture in the shape of the result. */
static void crop_middle (axis *height, axis *width) {
  const double h = (double)height->in, w = (double)width->in,
               shown_h = fmin(h, w * (double)height->out / (double)width->out),
               shown_w = fmin(w, h * (double)width->out / (double)height->out);
  height->from = (float)((h - shown_h) / 2);
  width->from = (float)((w - shown_w) / 2);
  height->to = (float)((h - shown_h) / 2 + shown_h);
  width->to = (float)((w - shown_w) / 2 + shown_w);
}

static marea_status fit (marea_context *ctx, const marea_tensor *picture, marea_tensor *out, bool crop) {
  const int64_t *in = marea_tensor_shape(picture), *shape = marea_tensor_shape(out);
  const int from = (int)in[2], c = (int)shape[2];
  const uint8_t *x = marea_tensor_data((marea_tensor *)(uintptr_t)picture);
  axis height = {.in = in[0], .out = shape[0], .to = (float)in[0]},
       width = {.in = in[1], .out = shape[1], .to = (float)in[1]};
  uint8_t *converted = NULL;
  if (from != c) {
    converted = marea_alloc(ctx, (size_t)(in[0] * in[1] * c));
    if (!converted) return MAREA_ENOMEM;
    convert(x, in[0] * in[1], from, c, converted);
    x = converted;
  }
  if (crop) crop_middle(&height, &width);
  const marea_status status = resample(ctx, &height, &width, c, x, marea_tensor_data(out));
  marea_free(ctx, converted);
  return status;
}

static marea_status decode (marea_context *ctx, const char *path, int64_t min_side, marea_tensor **out) {
  static const char who[] = "load_image";
  uint8_t *bytes;
  size_t n;
  MAREA_TRY(marea_load_bytes(ctx, who, path, out, &bytes, &n));
  const bool is_jpeg = n >= 2 && memcmp(bytes, "\xff\xd8", 2) == 0;
  const marea_status status = is_jpeg ? marea_read_jpeg(ctx, who, path, bytes, n, min_side, out)
                                      : marea_parse_image(ctx, path, bytes, n, out);
  marea_free(ctx, bytes);
  return status;
}

marea_status marea_load_image_sized (marea_context *ctx, const char *path, int64_t height, int64_t width,
                                     int channels, bool crop, marea_tensor **out) {
  marea_tensor *picture = NULL;
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(ctx, "load_image", out);
  *out = NULL;
  if (height < 1 || width < 1 || height > MAX_SIDE || width > MAX_SIDE || (channels != 1 && channels != 3))
    return marea_fail(
        ctx, MAREA_EARG,
        "load_image: '%s' cannot have %lld x %lld pixels in %d channels (sides from 1 to %d, 1 or 3 "
        "channels)",
        path ? path : "", (long long)height, (long long)width, channels, MAX_SIDE);
  MAREA_TRY(decode(ctx, path, MAREA_MAX(height, width), &picture));
  const int64_t shape[] = {height, width, channels};
  marea_status status = marea_empty(ctx, MAREA_U8, 3, shape, out);
  if (status == MAREA_OK) status = fit(ctx, picture, *out, crop);
  marea_release(picture);
  if (status == MAREA_OK) return MAREA_OK;
  marea_release(*out);
  *out = NULL;
  return status == MAREA_ENOMEM ? marea_fail(ctx, status, "load_image: no memory to resize '%s'", path)
                                : status;
}
