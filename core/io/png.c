/* SPDX-License-Identifier: MIT
** png.c: pictures as u8 tensors (H, W, C), C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA, through libpng's
** simplified interface and streams of our own, so that files are opened, limited, interrupted and replaced as all
** others.
** Before libpng sees a file we walk its chunks: libpng ignores a wrong checksum in many chunks and does not
** ask for the last one, while here a file that was cut or changed anywhere is an error.
** Not done: 16-bit output, palettes, text; 16-bit samples are reduced to 8 without a change of gamma. Bytes
** after the last chunk are ignored, as everywhere.
*/
#define _GNU_SOURCE
#include <png.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "io.h"

#define MAX_SIDE 1000000 /* libpng's own limit */

/* What libpng reads from. */
typedef struct source {
  marea_context *ctx;
  const uint8_t *next;
  size_t left;
  bool stopped; /* a failure that is not libpng's */
} source;

static ssize_t read_some (void *cookie, char *to, size_t n) {
  source *s = cookie;
  s->stopped = s->stopped || marea_stopping(s->ctx);
  if (s->stopped) return -1;
  n = MAREA_MIN(n, s->left);
  memcpy(to, s->next, n);
  s->next += n;
  s->left -= n;
  return (ssize_t)n;
}

static uint32_t big_word (const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* A chunk is: length of the data, type, data, CRC-32 of type and data. *length is of all chunks and the
   signature. */
static marea_status check_chunks (marea_context *ctx, const char *label, const uint8_t *bytes, size_t n,
                                  size_t *length) {
  static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  if (n < 8 || memcmp(bytes, signature, 8) != 0)
    return marea_fail(ctx, MAREA_EFORMAT, "%s: not a PNG file: it does not begin with PNG's signature",
                      label);
  for (size_t at = 8;;) {
    if (n - at < 12)
      return marea_fail(ctx, MAREA_EFORMAT, "%s: truncated: the file ends inside a chunk", label);
    size_t data = big_word(bytes + at);
    if (data > n - at - 12)
      return marea_fail(ctx, MAREA_EFORMAT,
                        "%s: truncated: chunk at byte %zu declares %zu bytes, file has %zu", label, at, data,
                        n - at - 12);
    const uint8_t *type = bytes + at + 4;
    uint32_t crc = 0;
    for (size_t i = 0; i < data + 4; i += MAREA_PIECE) {
      MAREA_TRY(marea_poll(ctx));
      crc = (uint32_t)crc32_z(crc, type + i, MAREA_MIN(MAREA_PIECE, data + 4 - i));
    }
    if (crc != big_word(type + 4 + data))
      return marea_fail(ctx, MAREA_EFORMAT, "%s: damaged: wrong checksum of the chunk at byte %zu", label,
                        at);
    at += data + 12;
    if (memcmp(type, "IEND", 4) != 0) continue;
    *length = at;
    return MAREA_OK;
  }
}

/* The picture's size against the limits and the file: a pixel has at least one bit before compression. */
static marea_status check_size (marea_context *ctx, const char *label, const png_image *image, size_t n) {
  uint64_t pixels = (uint64_t)image->width * image->height;
  if (pixels > MAREA_MAX_PIXELS)
    return marea_fail(ctx, MAREA_EFORMAT, "%s: %u x %u pixels; at most %d are allowed", label, image->width,
                      image->height, MAREA_MAX_PIXELS);
  if (pixels / 8 / MAREA_MAX_DEFLATE > n)
    return marea_fail(ctx, MAREA_EFORMAT,
                      "%s: header declares %u x %u pixels, which a file of %zu bytes cannot hold", label,
                      image->width, image->height, n);
  return MAREA_OK;
}

static marea_status read_pixels (marea_context *ctx, const char *label, png_image *image, size_t n,
                                 marea_tensor **out) {
  MAREA_TRY(check_size(ctx, label, image, n));
  image->format &= PNG_FORMAT_FLAG_COLOR |
                   PNG_FORMAT_FLAG_ALPHA; /* 8 bits, no palette, R before B, alpha last */
  image->flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
  int64_t channels = PNG_IMAGE_SAMPLE_CHANNELS(image->format);
  uint8_t *pixels;
  MAREA_TRY(marea_raw_new(ctx, label, MAREA_CODE_U8, 3, (int64_t[]){image->height, image->width, channels},
                          out, &pixels));
  if (png_image_finish_read(image, NULL, pixels, 0, NULL)) return MAREA_OK;
  return marea_fail(ctx, MAREA_EFORMAT, "%s: damaged: %s", label, image->message);
}

static marea_status read_stream (marea_context *ctx, const char *label, FILE *stream, size_t n,
                                 marea_tensor **out) {
  png_image image = {.version = PNG_IMAGE_VERSION};
  if (!png_image_begin_read_from_stdio(&image, stream))
    return marea_fail(ctx, MAREA_EFORMAT, "%s: damaged: %s", label, image.message);
  marea_status status = read_pixels(ctx, label, &image, n, out);
  png_image_free(&image);
  return status;
}

marea_status marea_parse_png (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                              marea_tensor **out) {
  marea_label label = marea_file_label("load_png", path);
  source from = {.ctx = ctx, .next = bytes};
  *out = NULL;
  MAREA_TRY(check_chunks(ctx, label.s, bytes, n, &from.left));
  n = from.left;
  FILE *stream = fopencookie(&from, "rb", (cookie_io_functions_t){.read = read_some});
  if (!stream) return marea_fail(ctx, MAREA_ENOMEM, "%s: out of memory for a stream", label.s);
  marea_status status = read_stream(ctx, label.s, stream, n, out);
  fclose(stream);
  if (status == MAREA_OK) return MAREA_OK;
  marea_release(*out);
  *out = NULL;
  return from.stopped ? marea_poll(ctx) : status;
}

marea_status marea_load_png (marea_context *ctx, const char *path, marea_tensor **out) {
  return marea_load_tensor(ctx, "load_png", path, marea_parse_png, out);
}

/* ---- writing ---- */

/* 0..1 to 0..255, to the nearest. The first comparison is false for NaN. */
static uint8_t to_byte (double x) {
  if (!(x > 0)) return 0;
  return x >= 1 ? 255 : (uint8_t)(255 * x + 0.5);
}

/* *pixels := the bytes of t's elements: its own memory for u8, or *block, to be freed by the caller. */
static marea_status pixels_of (const marea_tensor *t, const char *label, uint8_t **block,
                               const uint8_t **pixels) {
  const void *data = marea_tensor_data(t);
  int64_t n = marea_tensor_size(t);
  *pixels = data;
  *block = NULL;
  if (marea_tensor_dtype(t) == MAREA_U8) return MAREA_OK;
  *pixels = *block = marea_alloc(t->ctx, (size_t)n);
  if (!*block) return marea_fail(t->ctx, MAREA_ENOMEM, "%s: out of memory for pixels", label);
  for (int64_t i = 0; i < n; i++) {
    if (i % MAREA_BLOCK == 0) MAREA_TRY(marea_poll(t->ctx));
    (*block)[i] = to_byte(marea_tensor_dtype(t) == MAREA_F32 ? (double)((const float *)data)[i]
                                                             : ((const double *)data)[i]);
  }
  return MAREA_OK;
}

static marea_status describe (marea_tensor *t, const char *label, png_image *image) {
  static const png_uint_32 format[] = {PNG_FORMAT_GRAY, PNG_FORMAT_GA, PNG_FORMAT_RGB, PNG_FORMAT_RGBA};
  int rank = marea_tensor_rank(t);
  const int64_t *shape = marea_tensor_shape(t);
  int64_t channels = rank == 3 ? shape[2] : 1;
  if (rank < 2 || rank > 3 || channels < 1 || channels > 4 || marea_tensor_dtype(t) == MAREA_I64)
    return marea_fail(t->ctx, MAREA_ESHAPE,
                      "%s: expected u8, f32 or f64 of shape (H, W) or (H, W, C) with C = 1, 2, "
                      "3 or 4, got %s",
                      label, marea_tensor_text(t).s);
  if (!shape[0] || !shape[1] || shape[0] > MAX_SIDE || shape[1] > MAX_SIDE ||
      shape[0] > MAREA_MAX_PIXELS / shape[1])
    return marea_fail(t->ctx, MAREA_ESHAPE, "%s: a picture has 1 to %d pixels and sides up to %d, got %s",
                      label, MAREA_MAX_PIXELS, MAX_SIDE, marea_tensor_text(t).s);
  image->version = PNG_IMAGE_VERSION;
  image->width = (png_uint_32)shape[1];
  image->height = (png_uint_32)shape[0];
  image->format = format[channels - 1];
  return MAREA_OK;
}

/* What libpng writes to, a file or, without one, memory; and a failure that is not libpng's. */
typedef struct target {
  marea_context *ctx;
  marea_writer *file;
  uint8_t *bytes;
  size_t n, room;
  marea_status status;
} target;

static marea_status append (target *t, const char *bytes, size_t n) {
  MAREA_TRY(marea_poll(t->ctx));
  if (n > t->room - t->n) return marea_fail(t->ctx, MAREA_ENOMEM, "encode_png: out of room");
  memcpy(t->bytes + t->n, bytes, n);
  t->n += n;
  return MAREA_OK;
}

static ssize_t write_some (void *cookie, const char *bytes, size_t n) {
  target *t = cookie;
  t->status = t->file ? marea_write(t->file, bytes, n) : append(t, bytes, n);
  return t->status == MAREA_OK ? (ssize_t)n : 0;
}

static marea_status encode (const char *label, png_image *image, const uint8_t *pixels, target *to) {
  FILE *stream = fopencookie(to, "wb", (cookie_io_functions_t){.write = write_some});
  if (!stream) return marea_fail(to->ctx, MAREA_ENOMEM, "%s: out of memory for a stream", label);
  marea_status status = MAREA_OK;
  if (!png_image_write_to_stdio(image, stream, 0, pixels, 0, NULL) && to->status == MAREA_OK)
    status = marea_fail(to->ctx, MAREA_EARG, "%s: %s", label, image->message);
  png_image_free(image);
  fclose(stream);
  return to->status == MAREA_OK ? status : to->status;
}

static marea_status save_pixels (marea_tensor *t, const char *path, const char *label, png_image *image) {
  uint8_t *block;
  const uint8_t *pixels;
  marea_writer file;
  target to = {.ctx = t->ctx, .file = &file};
  marea_status status = pixels_of(t, label, &block, &pixels);
  if (status == MAREA_OK) status = marea_write_begin(t->ctx, "save_png", path, &file);
  if (status == MAREA_OK) status = marea_write_end(&file, encode(label, image, pixels, &to));
  marea_free(t->ctx, block);
  return status;
}

marea_status marea_save_png (marea_tensor *t, const char *path) {
  MAREA_ENTER;
  MAREA_TRY(marea_want_values(t, "save_png", "t"));
  MAREA_WANT(t->ctx, "save_png", path);
  marea_label label = marea_file_label("save_png", path);
  png_image image = {0};
  marea_tensor *whole;
  MAREA_TRY(describe(t, label.s, &image));
  MAREA_TRY(marea_gapless(t, &whole));
  marea_status status = save_pixels(whole, path, label.s, &image);
  marea_release(whole);
  return status;
}

/* Encodes into `to`, whose memory is made here and freed by the caller, and copies what came into a tensor. */
static marea_status encode_pixels (const uint8_t *pixels, png_image *image, target *to, marea_tensor **out) {
  to->room = PNG_IMAGE_PNG_SIZE_MAX(*image);
  to->bytes = marea_alloc(to->ctx, to->room);
  if (!to->bytes) return marea_fail(to->ctx, MAREA_ENOMEM, "encode_png: out of memory for the file");
  MAREA_TRY(encode("encode_png", image, pixels, to));
  MAREA_TRY(marea_empty(to->ctx, MAREA_U8, 1, (int64_t[]){(int64_t)to->n}, out));
  memcpy(marea_tensor_data(*out), to->bytes, to->n);
  return MAREA_OK;
}

marea_status marea_encode_png (marea_tensor *t, marea_tensor **out) {
  MAREA_ENTER;
  MAREA_WANT(marea_tensor_context(t), "encode_png", out);
  *out = NULL;
  MAREA_TRY(marea_want_values(t, "encode_png", "t"));
  png_image image = {0};
  target to = {.ctx = t->ctx};
  uint8_t *block;
  const uint8_t *pixels;
  marea_tensor *whole;
  MAREA_TRY(describe(t, "encode_png", &image));
  MAREA_TRY(marea_gapless(t, &whole));
  marea_status status = pixels_of(whole, "encode_png", &block, &pixels);
  if (status == MAREA_OK) status = encode_pixels(pixels, &image, &to, out);
  marea_free(t->ctx, to.bytes);
  marea_free(t->ctx, block);
  marea_release(whole);
  return status;
}
