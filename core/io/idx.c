/* SPDX-License-Identifier: MIT
** idx.c: the format of the MNIST files. All numbers are big-endian:
**
**   0 0 code rank | rank sizes of 32 bits | the elements, last dimension fastest
**
** code: 8 u8, 9 i8, 11 i16, 12 i32, 13 f32, 14 f64. The integers but u8 become i64.
** A file that begins with gzip's magic bytes is inflated straight into the tensor, whose size the IDX
** header has declared; what comes after that is an error, and so is a declared size that so few bytes
** cannot inflate to.
** Not done: gzip files of several members.
*/
#include <string.h>
#include <zlib.h>

#include "io.h"

#define MAX_HEADER (4 + 4 * MAREA_MAX_RANK)

/* The bytes of a file: in memory, plain or as a gzip stream. */
typedef struct source {
  marea_context *ctx;
  marea_label label;
  const uint8_t *next;
  size_t left;     /* bytes from `next` on, compressed if zipped */
  size_t size;     /* of the file */
  size_t produced; /* bytes handed out */
  size_t declared; /* by the header, itself included; 0 = not known yet */
  bool zipped, ended;
  z_stream stream;
} source;

static voidpf zip_alloc (voidpf ctx, uInt items, uInt size) {
  size_t bytes;
  return __builtin_mul_overflow((size_t)items, (size_t)size, &bytes) ? Z_NULL : marea_alloc(ctx, bytes);
}

static void zip_free (voidpf ctx, voidpf p) { marea_free(ctx, p); }

static marea_status truncated (const source *s, size_t has) {
  if (!s->declared)
    return marea_fail(s->ctx, MAREA_EFORMAT, "%s: truncated: %zu bytes are too few for a header", s->label.s,
                      has);
  if (has == s->declared)
    return marea_fail(s->ctx, MAREA_EFORMAT, "%s: truncated: the end of the gzip stream is missing",
                      s->label.s);
  return marea_fail(s->ctx, MAREA_EFORMAT, "%s: truncated: header declares %zu bytes, file has %zu%s",
                    s->label.s, s->declared, has, s->zipped ? " after decompression" : "");
}

/* Inflates up to n bytes to `to`; *got of them came. Fewer than n: the stream has ended. */
static marea_status inflate_some (source *s, uint8_t *to, size_t n, size_t *got) {
  *got = 0;
  while (*got < n && !s->ended) {
    MAREA_TRY(marea_poll(s->ctx));
    uInt in = (uInt)MAREA_MIN(s->left, MAREA_PIECE), out = (uInt)MAREA_MIN(n - *got, MAREA_PIECE);
    s->stream.next_in = (z_const Bytef *)s->next;
    s->stream.avail_in = in;
    s->stream.next_out = to + *got;
    s->stream.avail_out = out;
    int result = inflate(&s->stream, Z_NO_FLUSH);
    s->next += in - s->stream.avail_in;
    s->left -= in - s->stream.avail_in;
    *got += out - s->stream.avail_out;
    if (result == Z_STREAM_END) s->ended = true;
    else if (result == Z_MEM_ERROR)
      return marea_fail(s->ctx, MAREA_ENOMEM, "%s: out of memory for decompression", s->label.s);
    else if (result == Z_BUF_ERROR) return truncated(s, s->produced + *got);
    else if (result != Z_OK)
      return marea_fail(s->ctx, MAREA_EFORMAT, "%s: damaged: gzip: %s", s->label.s,
                        s->stream.msg ? s->stream.msg : "bad stream");
  }
  return MAREA_OK;
}

static marea_status take (source *s, uint8_t *to, size_t n) {
  size_t got = MAREA_MIN(n, s->left);
  if (s->zipped) MAREA_TRY(inflate_some(s, to, n, &got));
  else {
    MAREA_TRY(marea_move(s->ctx, to, s->next, got));
    s->next += got;
    s->left -= got;
  }
  s->produced += got;
  return got == n ? MAREA_OK : truncated(s, s->produced);
}

/* Everything declared has been read: there must be nothing more, and gzip's own checksum must fit. */
static marea_status finish (source *s) {
  uint8_t more;
  size_t got = 0;
  if (s->zipped) MAREA_TRY(inflate_some(s, &more, 1, &got));
  if (got)
    return marea_fail(s->ctx, MAREA_EFORMAT,
                      "%s: header declares %zu bytes, file has more after decompression", s->label.s,
                      s->declared);
  if (s->left)
    return marea_fail(s->ctx, MAREA_EFORMAT, "%s: %zu bytes follow the end of the data", s->label.s, s->left);
  return MAREA_OK;
}

static marea_status read_code (source *s, uint8_t byte, marea_code *code) {
  switch (byte) {
  case 0x08: *code = MAREA_CODE_U8; break;
  case 0x09: *code = MAREA_CODE_I8; break;
  case 0x0B: *code = MAREA_CODE_I16; break;
  case 0x0C: *code = MAREA_CODE_I32; break;
  case 0x0D: *code = MAREA_CODE_F32; break;
  case 0x0E: *code = MAREA_CODE_F64; break;
  default:
    return marea_fail(s->ctx, MAREA_EFORMAT, "%s: not an IDX file: there is no element type 0x%02X",
                      s->label.s, byte);
  }
  return MAREA_OK;
}

/* Can the rest of the file hold `bytes` more bytes? Checked before memory is allocated for them. */
static marea_status check_room (source *s, size_t bytes) {
  size_t most = s->left;
  if (!s->zipped) return bytes <= most ? MAREA_OK : truncated(s, s->size);
  if (bytes / MAREA_MAX_DEFLATE <= most + 16)
    return MAREA_OK; /* 16: zlib holds a few bits and one match back */
  return marea_fail(s->ctx, MAREA_EFORMAT,
                    "%s: header declares %zu bytes, which a file of %zu cannot inflate to", s->label.s,
                    s->declared, s->size);
}

static marea_status read_array (source *s, marea_tensor **out) {
  uint8_t header[MAX_HEADER], *raw;
  int64_t shape[MAREA_MAX_RANK];
  marea_code code = MAREA_CODE_U8;
  size_t bytes = 0;
  MAREA_TRY(take(s, header, 4));
  if (header[0] || header[1])
    return marea_fail(s->ctx, MAREA_EFORMAT, "%s: not an IDX file: it does not begin with two zero bytes",
                      s->label.s);
  MAREA_TRY(read_code(s, header[2], &code));
  int rank = header[3];
  if (rank > MAREA_MAX_RANK)
    return marea_fail(s->ctx, MAREA_EFORMAT, "%s: %d dimensions; a tensor has at most %d", s->label.s, rank,
                      MAREA_MAX_RANK);
  MAREA_TRY(take(s, header, 4 * (size_t)rank));
  for (int d = 0; d < rank; d++) {
    const uint8_t *p = header + 4 * d;
    shape[d] = (int64_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
  }
  MAREA_TRY(marea_raw_bytes(s->ctx, s->label.s, code, rank, shape, &bytes));
  s->declared = s->produced + bytes;
  MAREA_TRY(check_room(s, bytes));
  MAREA_TRY(marea_raw_new(s->ctx, s->label.s, code, rank, shape, out, &raw));
  MAREA_TRY(take(s, raw, bytes));
  MAREA_TRY(finish(s));
  return marea_raw_decode(*out, code, true);
}

marea_parser marea_parse_idx;
marea_status marea_parse_idx (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                              marea_tensor **out) {
  source s = {.ctx = ctx, .label = marea_file_label("load_idx", path), .next = bytes, .left = n, .size = n};
  *out = NULL;
  s.zipped = n >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
  if (s.zipped) {
    s.stream = (z_stream){.zalloc = zip_alloc, .zfree = zip_free, .opaque = ctx};
    if (inflateInit2(&s.stream, 16 + MAX_WBITS) != Z_OK)
      return marea_fail(ctx, MAREA_ENOMEM, "%s: out of memory for decompression", s.label.s);
  }
  marea_status status = read_array(&s, out);
  if (s.zipped) inflateEnd(&s.stream);
  if (status == MAREA_OK) return MAREA_OK;
  marea_release(*out);
  *out = NULL;
  return status;
}

marea_status marea_load_idx (marea_context *ctx, const char *path, marea_tensor **out) {
  return marea_load_tensor(ctx, "load_idx", path, marea_parse_idx, out);
}
