/* SPDX-License-Identifier: MIT
** jpeg.c: pictures as tensors u8 (H, W, C), C = 1 gray or 3 RGB, through libjpeg-turbo, with reading and writing of our
** own, so that files are opened, limited, interrupted and replaced as all others.
**
** YCbCr becomes RGB. CMYK becomes RGB as paper would show it, without a profile: (1 - ink) (1 - black); Adobe's files
** keep 1 - ink. The picture is turned as EXIF's Orientation wants it. JPEG has no checksums: what libjpeg finds wrong
** in a file is an error, but for bytes between two markers, which cameras leave there. Bytes after the end are ignored.
** Not done: 12 bits, lossless, profiles, other metadata.
**
** libjpeg takes memory from malloc; what it may take for a picture is reserved in the context meanwhile. It reports errors
** by longjmp, and `guarded` is the only function that catches them. What it runs owns nothing but what `session` frees.
*/
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <jpeglib.h>
#include <jerror.h>

#include "io.h"

#define MAX_SIDE JPEG_MAX_DIMENSION
#define MAX_SCANS 500   /* a picture of some KB could ask for all its pixels thousands of times */
#define MAX_PACKED 8192 /* pixels that one byte can stand for, of Huffman's codes */
#define OUTPUT 16384

/* One picture being read or written. */
typedef struct session {
  marea_context *ctx;
  const char *label;
  union {
    struct jpeg_common_struct common;
    struct jpeg_decompress_struct in;
    struct jpeg_compress_struct out;
  } jpeg;
  struct jpeg_error_mgr errors;
  struct jpeg_progress_mgr progress;
  struct jpeg_source_mgr source;
  struct jpeg_destination_mgr destination;
  jmp_buf jump;
  marea_status status; /* of a failure outside of libjpeg: an interrupt, the disk */
  char message[JMSG_LENGTH_MAX];
  int64_t min_side; /* reading: what the shorter side must keep */
  int orientation;  /* EXIF's, 1 to 8 */
  uint8_t *pixels;  /* rows one below the other */
  uint8_t *line;    /* reading: one row as libjpeg gives it */
  marea_picture picture;
  int quality;
  marea_writer file; /* writing */
  uint8_t output[OUTPUT];
} session;

static session *session_of (j_common_ptr jpeg) { return jpeg->client_data; }

static void on_error (j_common_ptr jpeg) {
  session *s = session_of(jpeg);
  if (s->errors.msg_code == JERR_OUT_OF_MEMORY)
    s->status = marea_fail(s->ctx, MAREA_ENOMEM, "%s: no memory for libjpeg", s->label);
  s->errors.format_message(jpeg, s->message);
  longjmp(s->jump, 1);
}

/* Warnings are of level -1: damage, but for two kinds. */
static void on_message (j_common_ptr jpeg, int level) {
  const int code = jpeg->err->msg_code;
  if (level < 0 && code != JWRN_EXTRANEOUS_DATA && code != JWRN_JFIF_MAJOR) on_error(jpeg);
}

static void on_output (j_common_ptr jpeg) { (void)jpeg; }

static void fail (session *s, const char *message) {
  snprintf(s->message, sizeof s->message, "%s", message);
  longjmp(s->jump, 1);
}

/* For callbacks of libjpeg: raises an error in it if `status` is one. */
static void go_on (session *s, marea_status status) {
  s->status = status;
  if (status != MAREA_OK) fail(s, "");
}

static void on_progress (j_common_ptr jpeg) {
  session *s = session_of(jpeg);
  go_on(s, marea_poll(s->ctx));
  if (jpeg->is_decompressor && s->jpeg.in.input_scan_number > MAX_SCANS) fail(s, "too many scans");
}

static void begin (session *s) {
  s->errors = (struct jpeg_error_mgr){0};
  s->jpeg.common.err = jpeg_std_error(&s->errors);
  s->jpeg.common.client_data = s;
  s->errors.error_exit = on_error;
  s->errors.emit_message = on_message;
  s->errors.output_message = on_output;
  s->progress.progress_monitor = on_progress;
}

/* Runs `body`; false when libjpeg raised an error, or one of our functions that it calls. */
static bool guarded (session *s, void (*body)(session *s)) {
  if (setjmp(s->jump)) return false;
  body(s);
  return true;
}

/* The status and text of a guarded body that failed. */
static marea_status failure (const session *s, marea_status status, const char *what) {
  if (s->status != MAREA_OK) return s->status;
  return marea_fail(s->ctx, status, "%s: %s%s", s->label, what, s->message);
}

/* ---- reading ---- */

static void on_source (j_decompress_ptr jpeg) { (void)jpeg; }

static boolean on_fill (j_decompress_ptr jpeg) {
  fail(session_of((j_common_ptr)jpeg), "the file ends too early");
  return FALSE;
}

static void on_skip (j_decompress_ptr jpeg, long n) {
  if (n <= 0) return;
  if ((size_t)n > jpeg->src->bytes_in_buffer) on_fill(jpeg);
  jpeg->src->next_input_byte += n;
  jpeg->src->bytes_in_buffer -= (size_t)n;
}

static uint32_t number (const uint8_t *p, int n, bool big) {
  uint32_t x = 0;
  for (int i = 0; i < n; i++) x = x << 8 | p[big ? i : n - 1 - i];
  return x;
}

/* EXIF is a TIFF file: byte order, 42, where its first directory is; a directory has a count and entries of 12 bytes:
   tag, type, count, value. What is wrong with it is passed over, as it does not belong to the picture. */
static int orientation_of (const uint8_t *p, size_t n) {
  if (n < 14 || memcmp(p, "Exif\0", 6) != 0) return 0;
  p += 6, n -= 6;
  const bool big = p[0] == 'M';
  const size_t at = number(p + 4, 4, big);
  if (n < 2 || at > n - 2) return 0;
  const size_t entries = MAREA_MIN(number(p + at, 2, big), (n - at - 2) / 12);
  for (size_t i = 0; i < entries; i++) {
    const uint8_t *entry = p + at + 2 + 12 * i;
    if (number(entry, 2, big) == 0x112 && number(entry + 2, 2, big) == 3)
      return (int)number(entry + 8, 2, big);
  }
  return 0;
}

static boolean on_exif (j_decompress_ptr jpeg) {
  session *s = session_of((j_common_ptr)jpeg);
  if (jpeg->src->bytes_in_buffer < 2) on_fill(jpeg);
  const uint8_t *p = jpeg->src->next_input_byte;
  const uint32_t n = number(p, 2, true);
  if (n < 2 || n > jpeg->src->bytes_in_buffer) on_fill(jpeg);
  const int orientation = orientation_of(p + 2, n - 2);
  if (orientation >= 1 && orientation <= 8) s->orientation = orientation;
  on_skip(jpeg, (long)n);
  return TRUE;
}

static void read_header (session *s) {
  struct jpeg_decompress_struct *c = &s->jpeg.in;
  jpeg_create_decompress(c);
  c->progress = &s->progress;
  c->src = &s->source;
  jpeg_set_marker_processor(c, JPEG_APP0 + 1, on_exif);
  jpeg_read_header(c, TRUE);
  if (c->num_components != 1 && c->num_components != 3 && c->num_components != 4)
    fail(s, "neither 1, 3 nor 4 components");
  c->out_color_space = c->num_components == 1 ? JCS_GRAYSCALE : c->num_components == 3 ? JCS_RGB : JCS_CMYK;
  for (c->scale_denom = 8; c->scale_denom > 1; c->scale_denom /= 2)
    if (s->min_side > 0 && MAREA_MIN(c->image_width, c->image_height) / c->scale_denom >= s->min_side) break;
  jpeg_calc_output_dimensions(c);
}

/* Where a pixel goes: that of column x and row y to origin + x * step_x + y * step_y. */
typedef struct turn {
  bool swapped;
  int64_t origin, step_x, step_y; /* in pixels */
} turn;

static turn turn_of (const session *s) {
  const int64_t w = s->jpeg.in.output_width, h = s->jpeg.in.output_height;
  const int o = s->orientation;
  const bool swapped = o >= 5, left = o == 2 || o == 3 || o == 6 || o == 7, up = o == 3 || o == 4 || o >= 7;
  const int64_t width = swapped ? h : w, height = swapped ? w : h;
  const int64_t across = left ? -1 : 1, down = up ? -width : width;
  return (turn){.swapped = swapped,
                .origin = (left ? width - 1 : 0) + (up ? (height - 1) * width : 0),
                .step_x = swapped ? down : across,
                .step_y = swapped ? across : down};
}

/* Adobe's samples of CMYK are 255 - ink. */
static void cmyk_to_rgb (uint8_t *line, uint32_t width, bool inverted) {
  for (uint32_t x = 0; x < width; x++) {
    const unsigned flip = inverted ? 0 : 255, white = line[4 * x + 3] ^ flip;
    for (int c = 0; c < 3; c++) {
      const unsigned product = (255 - (line[4 * x + c] ^ flip)) * white + 128;
      line[3 * x + c] = (uint8_t)(white - ((product + (product >> 8)) >> 8));
    }
  }
}

static void read_rows (session *s) {
  struct jpeg_decompress_struct *c = &s->jpeg.in;
  const int channels = c->num_components == 1 ? 1 : 3;
  const turn to = turn_of(s);
  jpeg_start_decompress(c);
  while (c->output_scanline < c->output_height) {
    uint8_t *row = s->pixels + (to.origin + c->output_scanline * to.step_y) * channels;
    jpeg_read_scanlines(c, &s->line, 1);
    if (c->num_components == 4) cmyk_to_rgb(s->line, c->output_width, c->saw_Adobe_marker);
    if (to.step_x == 1) {
      memcpy(row, s->line, c->output_width * (size_t)channels);
      continue;
    }
    for (uint32_t x = 0; x < c->output_width; x++)
      memcpy(row + x * to.step_x * channels, s->line + x * (size_t)channels, (size_t)channels);
  }
  jpeg_finish_decompress(c);
}

/* What libjpeg takes at most: tables and some rows of blocks, and all coefficients of a picture of several scans. */
static size_t library_bytes (const struct jpeg_decompress_struct *c) {
  size_t n = (size_t)256 << 10;
  n += (size_t)c->image_width * (size_t)c->num_components * 64;
  if (!jpeg_has_multiple_scans((j_decompress_ptr)c)) return n;
  for (int i = 0; i < c->num_components; i++)
    n += ((size_t)c->comp_info[i].width_in_blocks + 4) * ((size_t)c->comp_info[i].height_in_blocks + 4) *
         sizeof(JBLOCK);
  return n;
}

static marea_status read_pixels (session *s, size_t n, marea_tensor **out) {
  const struct jpeg_decompress_struct *c = &s->jpeg.in;
  if (!guarded(s, read_header)) return failure(s, MAREA_EFORMAT, "damaged: ");
  MAREA_TRY(marea_check_pixels(s->ctx, s->label, c->image_width, c->image_height));
  if (!c->arith_code && (uint64_t)c->image_width * c->image_height / MAX_PACKED > n)
    return marea_fail(s->ctx, MAREA_EFORMAT,
                      "%s: header declares %u x %u pixels, which a file of %zu bytes cannot hold", s->label,
                      c->image_width, c->image_height, n);
  const bool swapped = turn_of(s).swapped;
  const int64_t w = c->output_width, h = c->output_height, channels = c->num_components == 1 ? 1 : 3;
  const int64_t shape[] = {swapped ? w : h, swapped ? h : w, channels};
  MAREA_TRY(marea_raw_new(s->ctx, s->label, MAREA_CODE_U8, 3, shape, out, &s->pixels));
  const size_t room = library_bytes(c) + (size_t)w * (size_t)c->num_components;
  s->line = marea_alloc(s->ctx, room);
  if (!s->line) return marea_out_of_memory(s->ctx, s->label, room, "libjpeg");
  const bool ok = guarded(s, read_rows);
  marea_free(s->ctx, s->line);
  return ok ? MAREA_OK : failure(s, MAREA_EFORMAT, "damaged: ");
}

marea_status marea_read_jpeg (marea_context *ctx, const char *who, const char *path, const uint8_t *bytes,
                              size_t n, int64_t min_side, marea_tensor **out) {
  const marea_label label = marea_file_label(who, path);
  *out = NULL;
  if (n < 2 || memcmp(bytes, "\xff\xd8", 2) != 0)
    return marea_fail(ctx, MAREA_EFORMAT, "%s: not a JPEG file: it does not begin with JPEG's marker",
                      label.s);
  session s = {.ctx = ctx, .label = label.s, .min_side = min_side, .orientation = 1};
  begin(&s);
  s.source = (struct jpeg_source_mgr){.next_input_byte = bytes,
                                      .bytes_in_buffer = n,
                                      .init_source = on_source,
                                      .fill_input_buffer = on_fill,
                                      .skip_input_data = on_skip,
                                      .resync_to_restart = jpeg_resync_to_restart,
                                      .term_source = on_source};
  const marea_status status = read_pixels(&s, n, out);
  jpeg_destroy(&s.jpeg.common);
  if (status == MAREA_OK) return MAREA_OK;
  marea_release(*out);
  *out = NULL;
  return status;
}

marea_parser marea_parse_jpeg;
marea_status marea_parse_jpeg (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                               marea_tensor **out) {
  return marea_read_jpeg(ctx, "load_jpeg", path, bytes, n, 0, out);
}

marea_status marea_load_jpeg (marea_context *ctx, const char *path, int64_t min_side, marea_tensor **out) {
  uint8_t *bytes;
  size_t n;
  MAREA_ENTER;
  if (out) *out = NULL;
  MAREA_TRY(marea_load_bytes(ctx, "load_jpeg", path, out, &bytes, &n));
  const marea_status status = marea_read_jpeg(ctx, "load_jpeg", path, bytes, n, min_side, out);
  marea_free(ctx, bytes);
  return status;
}

/* ---- writing ---- */

static void on_destination (j_compress_ptr jpeg) {
  session *s = session_of((j_common_ptr)jpeg);
  s->destination.next_output_byte = s->output;
  s->destination.free_in_buffer = OUTPUT;
}

static boolean on_full (j_compress_ptr jpeg) {
  session *s = session_of((j_common_ptr)jpeg);
  go_on(s, marea_write(&s->file, s->output, OUTPUT));
  on_destination(jpeg);
  return TRUE;
}

static void on_end (j_compress_ptr jpeg) {
  session *s = session_of((j_common_ptr)jpeg);
  go_on(s, marea_write(&s->file, s->output, OUTPUT - s->destination.free_in_buffer));
}

static void write_all (session *s) {
  struct jpeg_compress_struct *c = &s->jpeg.out;
  const marea_picture *p = &s->picture;
  jpeg_create_compress(c);
  c->progress = &s->progress;
  c->dest = &s->destination;
  c->image_width = p->width;
  c->image_height = p->height;
  c->input_components = p->channels;
  c->in_color_space = p->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(c);
  jpeg_set_quality(c, s->quality, TRUE);
  jpeg_start_compress(c, TRUE);
  while (c->next_scanline < p->height) {
    uint8_t *row = p->pixels + c->next_scanline * p->row;
    jpeg_write_scanlines(c, &row, 1);
  }
  jpeg_finish_compress(c);
}

static marea_status encode (session *s) {
  const size_t room = ((size_t)256 << 10) + s->picture.row * 64; /* what libjpeg takes at most */
  void *reserved = marea_alloc(s->ctx, room);
  if (!reserved) return marea_out_of_memory(s->ctx, s->label, room, "libjpeg");
  begin(s);
  s->destination = (struct jpeg_destination_mgr){
      .init_destination = on_destination, .empty_output_buffer = on_full, .term_destination = on_end};
  const bool ok = guarded(s, write_all);
  jpeg_destroy(&s->jpeg.common);
  marea_free(s->ctx, reserved);
  return ok ? MAREA_OK : failure(s, MAREA_EARG, "");
}

static marea_status write_file (session *s, const char *path) {
  MAREA_TRY(marea_write_begin(s->ctx, "save_jpeg", path, &s->file));
  return marea_write_end(&s->file, encode(s));
}

marea_status marea_save_jpeg (marea_tensor *t, const char *path, int64_t quality) {
  MAREA_ENTER;
  MAREA_TRY(marea_want_values(t, "save_jpeg", "t"));
  MAREA_WANT_OR_RETURN(t->ctx, "save_jpeg", path);
  const marea_label label = marea_file_label("save_jpeg", path);
  if (quality < 1 || quality > 100)
    return marea_fail(t->ctx, MAREA_EARG, "%s: argument 'quality': expected 1 to 100, got %lld", label.s,
                      (long long)quality);
  session s = {.ctx = t->ctx, .label = label.s, .quality = (int)quality};
  MAREA_TRY(marea_picture_of(t, label.s, (marea_picture_kind){8, MAX_SIDE, MAREA_JPEG_CHANNELS}, &s.picture));
  const marea_status status = write_file(&s, path);
  marea_picture_free(&s.picture);
  return status;
}
