/* SPDX-License-Identifier: MIT
** png.c: pictures as tensors (H, W, C), C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA, through libpng, with the context's
** memory and reading and writing of our own, so that files are opened, limited, interrupted and replaced as all others.
** Before libpng sees a file we walk its chunks: libpng ignores a wrong checksum in many chunks and does not
** ask for the last one, while here a file that was cut or changed anywhere is an error.
**
** Samples are those of the file: gAMA, cHRM, sRGB and iCCP, which say what light they stand for, are passed over like
** all that is not needed for them, and alpha is not multiplied in. A palette becomes RGB, tRNS an alpha channel; 1, 2
** and 4 bits are scaled to 0..255; 16 bits give their upper byte, or as they are where 16 are wanted, to which fewer
** are scaled. Bytes after the last chunk are ignored, as everywhere.
** Not done: palettes in output, text, animation.
**
** libpng reports errors by longjmp, and `guarded` is the only function that catches them. What it runs owns nothing
** but what `session` frees.
*/
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "io.h"

#define MAX_SIDE 1000000 /* libpng's own limit */

/* One picture being read or written. */
typedef struct session {
  marea_context *ctx;
  const char *label;
  png_struct *png;
  png_info *info;
  marea_status status; /* of a failure outside of libpng: memory, an interrupt, the disk */
  char message[128];   /* libpng's */
  uint8_t *pixels;     /* rows one below the other */
  size_t row;          /* bytes of one */
  uint32_t width, height;
  int channels;
  const uint8_t *next; /* reading: what is left of the file */
  size_t left;
  int bits;           /* of a sample that is wanted or written, 8 or 16 */
  marea_writer *file; /* writing: to a file or, without one, to memory */
  uint8_t *bytes;
  size_t n, room;
} session;

static void on_error (png_struct *png, const char *message) {
  session *s = png_get_error_ptr(png);
  snprintf(s->message, sizeof s->message, "%s", message);
  png_longjmp(png, 1);
}

static void on_warning (png_struct *png, const char *message) { (void)png, (void)message; }

static void *on_alloc (png_struct *png, size_t n) {
  session *s = png_get_mem_ptr(png);
  void *p = marea_alloc(s->ctx, n);
  if (!p) s->status = marea_out_of_memory(s->ctx, s->label, n, "libpng");
  return p;
}

static void on_free (png_struct *png, void *p) { marea_free(((session *)png_get_mem_ptr(png))->ctx, p); }

/* Runs `body`; false when libpng raised an error, or one of our functions that it calls. */
static bool guarded (session *s, void (*body)(session *s)) {
  if (setjmp(png_jmpbuf(s->png))) return false;
  body(s);
  return true;
}

/* The status and text of a guarded body that failed. */
static marea_status failure (const session *s, marea_status status, const char *what) {
  if (s->status != MAREA_OK) return s->status;
  return marea_fail(s->ctx, status, "%s: %s%s", s->label, what, s->message);
}

/* For callbacks of libpng: raises an error in it if `status` is one. */
static void go_on (session *s, marea_status status) {
  s->status = status;
  if (status != MAREA_OK) png_error(s->png, "");
}

/* ---- reading ---- */

static void on_read (png_struct *png, uint8_t *to, size_t n) {
  session *s = png_get_io_ptr(png);
  go_on(s, marea_poll(s->ctx));
  if (n > s->left) png_error(png, "the file ends too early");
  memcpy(to, s->next, n);
  s->next += n;
  s->left -= n;
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

/* The picture's size against the limits, and against the file by what compression can do at most. */
static marea_status check_size (const session *s, size_t n) {
  const uint64_t packed = (uint64_t)png_get_rowbytes(s->png, s->info) * s->height;
  MAREA_TRY(marea_check_pixels(s->ctx, s->label, s->width, s->height));
  if (packed / MAREA_MAX_DEFLATE > n)
    return marea_fail(s->ctx, MAREA_EFORMAT,
                      "%s: header declares %u x %u pixels, which a file of %zu bytes cannot hold", s->label,
                      s->width, s->height, n);
  return MAREA_OK;
}

static void read_header (session *s) {
  png_set_read_fn(s->png, s, on_read);
  png_set_keep_unknown_chunks(s->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1); /* all but what pixels are made of */
  png_set_user_limits(s->png, MAX_SIDE, MAX_SIDE);
  png_set_chunk_malloc_max(s->png, 0); /* the others are not stored, so they may be long */
  png_set_crc_action(s->png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE); /* check_chunks has checked them */
  png_read_info(s->png, s->info);
  s->width = png_get_image_width(s->png, s->info);
  s->height = png_get_image_height(s->png, s->info);
}

static void set_samples (session *s) {
  if (s->bits == 16) png_set_expand_16(s->png);
  else png_set_expand(s->png), png_set_strip_16(s->png);
  png_set_interlace_handling(s->png);
  png_read_update_info(s->png, s->info);
  s->channels = png_get_channels(s->png, s->info);
  s->row = png_get_rowbytes(s->png, s->info);
}

static void read_rows (session *s) {
  const bool interlaced = png_get_interlace_type(s->png, s->info) != PNG_INTERLACE_NONE;
  for (int pass = 0; pass < (interlaced ? PNG_INTERLACE_ADAM7_PASSES : 1); pass++)
    for (size_t y = 0; y < s->height; y++) png_read_row(s->png, s->pixels + y * s->row, NULL);
  png_read_end(s->png, NULL);
}

static marea_status read_picture (session *s, size_t n, marea_tensor **out) {
  static const char damaged[] = "damaged: ";
  const marea_code code = s->bits == 16 ? MAREA_CODE_U16 : MAREA_CODE_U8;
  if (!guarded(s, read_header)) return failure(s, MAREA_EFORMAT, damaged);
  MAREA_TRY(check_size(s, n));
  if (!guarded(s, set_samples)) return failure(s, MAREA_EFORMAT, damaged);
  const int64_t shape[] = {s->height, s->width, s->channels};
  size_t bytes;
  MAREA_TRY(marea_raw_bytes(s->ctx, s->label, code, 3, shape, &bytes));
  if (s->row * s->height != bytes)
    return marea_fail(s->ctx, MAREA_EFORMAT, "%s: libpng gives rows of %zu bytes", s->label, s->row);
  MAREA_TRY(marea_raw_new(s->ctx, s->label, code, 3, shape, out, &s->pixels));
  if (!guarded(s, read_rows)) return failure(s, MAREA_EFORMAT, damaged);
  return marea_raw_decode(*out, code, true);
}

marea_status marea_read_png (marea_context *ctx, const char *who, const char *path, const uint8_t *bytes,
                             size_t n, int bits, marea_tensor **out) {
  const marea_label label = marea_file_label(who, path);
  session s = {.ctx = ctx, .label = label.s, .next = bytes, .bits = bits};
  *out = NULL;
  MAREA_TRY(check_chunks(ctx, label.s, bytes, n, &s.left));
  n = s.left;
  s.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning, &s, on_alloc, on_free);
  if (s.png) s.info = png_create_info_struct(s.png);
  marea_status status = s.info ? read_picture(&s, n, out) : failure(&s, MAREA_ENOMEM, "no libpng: ");
  png_destroy_read_struct(&s.png, &s.info, NULL);
  if (status == MAREA_OK) return MAREA_OK;
  marea_release(*out);
  *out = NULL;
  return status;
}

marea_parser marea_parse_png, marea_parse_png16;
marea_status marea_parse_png (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                              marea_tensor **out) {
  return marea_read_png(ctx, "load_png", path, bytes, n, 8, out);
}

marea_status marea_parse_png16 (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                                marea_tensor **out) {
  return marea_read_png(ctx, "load_png", path, bytes, n, 16, out);
}

marea_status marea_load_png (marea_context *ctx, const char *path, marea_tensor **out) {
  return marea_load_tensor(ctx, "load_png", path, marea_parse_png, out);
}

marea_status marea_load_png16 (marea_context *ctx, const char *path, marea_tensor **out) {
  return marea_load_tensor(ctx, "load_png", path, marea_parse_png16, out);
}

/* ---- writing ---- */

static marea_status append (session *s, const uint8_t *bytes, size_t n) {
  MAREA_TRY(marea_poll(s->ctx));
  if (n > s->room - s->n) return marea_fail(s->ctx, MAREA_ENOMEM, "%s: out of room", s->label);
  memcpy(s->bytes + s->n, bytes, n);
  s->n += n;
  return MAREA_OK;
}

static void on_write (png_struct *png, uint8_t *bytes, size_t n) {
  session *s = png_get_io_ptr(png);
  go_on(s, s->file ? marea_write(s->file, bytes, n) : append(s, bytes, n));
}

static void on_flush (png_struct *png) { (void)png; }

static void write_all (session *s) {
  static const int color[] = {PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB,
                              PNG_COLOR_TYPE_RGB_ALPHA};
  png_set_write_fn(s->png, s, on_write, on_flush);
  png_set_IHDR(s->png, s->info, s->width, s->height, s->bits, color[s->channels - 1], PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_BASE, PNG_FILTER_TYPE_BASE);
  png_set_sRGB(s->png, s->info, PNG_sRGB_INTENT_PERCEPTUAL);
  png_write_info(s->png, s->info);
  for (size_t y = 0; y < s->height; y++) png_write_row(s->png, s->pixels + y * s->row);
  png_write_end(s->png, NULL);
}

static marea_status encode (session *s) {
  s->png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, s, on_error, on_warning, s, on_alloc, on_free);
  if (s->png) s->info = png_create_info_struct(s->png);
  marea_status status = MAREA_OK;
  if (!s->info) status = failure(s, MAREA_ENOMEM, "no libpng: ");
  else if (!guarded(s, write_all)) status = failure(s, MAREA_EARG, "");
  png_destroy_write_struct(&s->png, &s->info);
  return status;
}

typedef marea_status picture_writer (session *s, void *to);

/* Checks t and hands its pixels to `write`. */
static marea_status with_pixels (marea_tensor *t, const char *label, int bits, picture_writer *write,
                                 void *to) {
  marea_picture p;
  MAREA_TRY(marea_picture_of(t, label, (marea_picture_kind){bits, MAX_SIDE, MAREA_PNG_CHANNELS}, &p));
  session s = {.ctx = t->ctx,
               .label = label,
               .bits = bits,
               .pixels = p.pixels,
               .row = p.row,
               .width = p.width,
               .height = p.height,
               .channels = p.channels};
  const marea_status status = write(&s, to);
  marea_picture_free(&p);
  return status;
}

static marea_status write_file (session *s, void *path) {
  marea_writer file;
  s->file = &file;
  MAREA_TRY(marea_write_begin(s->ctx, "save_png", path, &file));
  return marea_write_end(&file, encode(s));
}

static marea_status save (marea_tensor *t, const char *path, int bits) {
  MAREA_ENTER;
  MAREA_TRY(marea_want_values(t, "save_png", "t"));
  MAREA_WANT_OR_RETURN(t->ctx, "save_png", path);
  const marea_label label = marea_file_label("save_png", path);
  return with_pixels(t, label.s, bits, write_file, (char *)path);
}

marea_status marea_save_png (marea_tensor *t, const char *path) { return save(t, path, 8); }

marea_status marea_save_png16 (marea_tensor *t, const char *path) { return save(t, path, 16); }

/* More than what libpng writes: zlib's bound for one byte and the samples of each row, in chunks of 8 KB, and a
   header. */
static size_t file_bound (const session *s) {
  const size_t deflated = compressBound((s->row + 1) * s->height);
  return deflated + deflated / 8192 * 12 + 256;
}

static marea_status write_memory (session *s, void *to) {
  marea_tensor **out = to;
  s->room = file_bound(s);
  s->bytes = marea_alloc(s->ctx, s->room);
  if (!s->bytes) return marea_out_of_memory(s->ctx, s->label, s->room, "the file");
  marea_status status = encode(s);
  if (status == MAREA_OK) status = marea_empty(s->ctx, MAREA_U8, 1, (int64_t[]){(int64_t)s->n}, out);
  if (status == MAREA_OK) memcpy(marea_tensor_data(*out), s->bytes, s->n);
  marea_free(s->ctx, s->bytes);
  return status;
}

marea_status marea_encode_png (marea_tensor *t, marea_tensor **out) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(marea_tensor_context(t), "encode_png", out);
  *out = NULL;
  MAREA_TRY(marea_want_values(t, "encode_png", "t"));
  return with_pixels(t, "encode_png", 8, write_memory, out);
}
