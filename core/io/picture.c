/* SPDX-License-Identifier: MIT
** picture.c: what the formats of pictures share: tensors as rows of samples, and pictures of either format.
*/
#include <string.h>

#include "io.h"

/* 0..1 to 0..top, to the nearest. The first comparison is false for NaN. */
static uint16_t to_sample (double x, int top) {
  if (!(x > 0)) return 0;
  return x >= 1 ? (uint16_t)top : (uint16_t)(top * x + 0.5);
}

static marea_status fill_bytes (const marea_tensor *t, uint8_t *to) {
  const void *data = marea_tensor_data(t);
  for (int64_t i = 0; i < marea_tensor_size(t); i++) {
    if (i % MAREA_BLOCK == 0) MAREA_TRY(marea_poll(t->ctx));
    to[i] = (uint8_t)to_sample(marea_load(marea_tensor_dtype(t), data, i), 255);
  }
  return MAREA_OK;
}

/* Samples of 16 bits, the upper byte first. */
static marea_status fill_words (const marea_tensor *t, const char *label, uint8_t *to) {
  const void *data = marea_tensor_data(t);
  const bool whole = marea_tensor_dtype(t) == MAREA_I64;
  for (int64_t i = 0; i < marea_tensor_size(t); i++) {
    if (i % MAREA_BLOCK == 0) MAREA_TRY(marea_poll(t->ctx));
    const int64_t integer = whole ? ((const int64_t *)data)[i] : 0;
    if (integer < 0 || integer > 65535)
      return marea_fail(t->ctx, MAREA_EARG, "%s: samples of 16 bits are from 0 to 65535, got %lld", label,
                        (long long)integer);
    const uint16_t x = whole ? (uint16_t)integer
                             : to_sample(marea_load(marea_tensor_dtype(t), data, i), 65535);
    to[2 * i] = (uint8_t)(x >> 8);
    to[2 * i + 1] = (uint8_t)x;
  }
  return MAREA_OK;
}

/* Refuses a tensor that is no picture. */
static marea_status check (const marea_tensor *t, const char *label, marea_picture_kind kind) {
  const int rank = marea_tensor_rank(t);
  const int64_t *shape = marea_tensor_shape(t), channels = rank == 3 ? shape[2] : 1;
  const unsigned dtypes = MAREA_FLOATS | (kind.bits == 16 ? 1 << MAREA_I64 : 1 << MAREA_U8);
  if (rank < 2 || rank > 3 || channels < 1 || channels > 4 || !(kind.channels >> channels & 1) ||
      !marea_is_in(dtypes, marea_tensor_dtype(t)))
    return marea_fail(
        t->ctx, MAREA_ESHAPE, "%s: expected %s, f32 or f64 of shape (H, W) or (H, W, C) with C = %s, got %s",
        label, kind.bits == 16 ? "i64" : "u8",
        kind.channels == MAREA_PNG_CHANNELS ? "1, 2, 3 or 4" : "1 or 3", marea_tensor_text(t).s);
  if (!shape[0] || !shape[1] || shape[0] > kind.side || shape[1] > kind.side ||
      shape[0] > MAREA_MAX_PIXELS / shape[1])
    return marea_fail(t->ctx, MAREA_ESHAPE, "%s: a picture has 1 to %d pixels and sides up to %d, got %s",
                      label, MAREA_MAX_PIXELS, kind.side, marea_tensor_text(t).s);
  return MAREA_OK;
}

static marea_status fill (marea_picture *p, const char *label, int bits) {
  const size_t n = p->row * p->height;
  p->pixels = marea_tensor_data(p->whole);
  if (marea_tensor_dtype(p->whole) == MAREA_U8) return MAREA_OK;
  p->pixels = p->block = marea_alloc(p->whole->ctx, n);
  if (!p->block) return marea_out_of_memory(p->whole->ctx, label, n, "pixels");
  return bits == 16 ? fill_words(p->whole, label, p->block) : fill_bytes(p->whole, p->block);
}

marea_status marea_picture_of (marea_tensor *t, const char *label, marea_picture_kind kind,
                               marea_picture *p) {
  MAREA_TRY(check(t, label, kind));
  const int64_t *shape = marea_tensor_shape(t);
  *p = (marea_picture){.height = (uint32_t)shape[0],
                       .width = (uint32_t)shape[1],
                       .channels = marea_tensor_rank(t) == 3 ? (int)shape[2] : 1};
  p->row = p->width * (size_t)p->channels * (size_t)(kind.bits / 8);
  MAREA_TRY(marea_gapless(t, &p->whole));
  const marea_status status = fill(p, label, kind.bits);
  if (status != MAREA_OK) marea_picture_free(p);
  return status;
}

void marea_picture_free (marea_picture *p) {
  marea_free(p->whole->ctx, p->block);
  marea_release(p->whole);
}

marea_status marea_check_pixels (marea_context *ctx, const char *label, uint32_t width, uint32_t height) {
  if ((uint64_t)width * height <= MAREA_MAX_PIXELS) return MAREA_OK;
  return marea_fail(ctx, MAREA_EFORMAT, "%s: %u x %u pixels; at most %d are allowed", label, width, height,
                    MAREA_MAX_PIXELS);
}

marea_status marea_parse_image (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                                marea_tensor **out) {
  static const char who[] = "load_image";
  if (n >= 4 && memcmp(bytes, "\x89PNG", 4) == 0) return marea_read_png(ctx, who, path, bytes, n, 8, out);
  if (n >= 2 && memcmp(bytes, "\xff\xd8", 2) == 0) return marea_read_jpeg(ctx, who, path, bytes, n, 0, out);
  return marea_fail(ctx, MAREA_EFORMAT, "%s: neither a PNG nor a JPEG file, by its first bytes",
                    marea_file_label(who, path).s);
}

marea_status marea_load_image (marea_context *ctx, const char *path, marea_tensor **out) {
  return marea_load_tensor(ctx, "load_image", path, marea_parse_image, out);
}
