/* SPDX-License-Identifier: MIT
** npy.c: NumPy's array files, versions 1 to 3 (numpy.org, numpy.lib.format):
**
**   0x93 NUMPY | major minor | header's length, 16 bits (1) or 32 (2, 3) | header | elements
**
** The header is a Python dictionary in text, {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }, of
** which we read exactly this much: three keys in any order, strings without escapes, True, False, whole
** numbers. We write version 1, row-major, with the elements at a multiple of 64 bytes.
** Not done: structured types, complex numbers, text, Python objects (they can run code).
*/
#include <stdio.h>
#include <string.h>

#include "io.h"

typedef struct header {
  marea_context *ctx;
  marea_label label;
  const char *at, *end;
  int64_t shape[MAREA_MAX_RANK];
  int rank;
  marea_code code;
  bool big_endian, fortran;
} header;

static marea_status bad (const header *h, const char *what) {
  return marea_fail(h->ctx, MAREA_EFORMAT, "%s: bad header: expected %s", h->label.s, what);
}

/* ---- the dictionary ---- */

static void skip_space (header *h) {
  while (h->at < h->end && (*h->at == ' ' || *h->at == '\n' || *h->at == '\t' || *h->at == '\r')) h->at++;
}

static bool accept (header *h, char c) {
  skip_space(h);
  if (h->at == h->end || *h->at != c) return false;
  h->at++;
  return true;
}

static bool accept_word (header *h, const char *word) {
  size_t n = strlen(word);
  skip_space(h);
  if ((size_t)(h->end - h->at) < n || memcmp(h->at, word, n) != 0) return false;
  h->at += n;
  return true;
}

static bool read_string (header *h, char *to, size_t room) {
  skip_space(h);
  if (h->at == h->end || (*h->at != '\'' && *h->at != '"')) return false;
  char quote = *h->at++;
  size_t n = 0;
  while (h->at < h->end && *h->at != quote && *h->at >= ' ' && *h->at <= '~' && *h->at != '\\' &&
         n + 1 < room)
    to[n++] = *h->at++;
  to[n] = '\0';
  if (h->at == h->end || *h->at != quote) return false;
  h->at++;
  return true;
}

static bool read_size (header *h, int64_t *size) {
  skip_space(h);
  const char *start = h->at;
  for (*size = 0; h->at < h->end && *h->at >= '0' && *h->at <= '9'; h->at++)
    if (__builtin_mul_overflow(*size, 10, size) || __builtin_add_overflow(*size, *h->at - '0', size))
      return false;
  return h->at > start;
}

static marea_status read_shape (header *h) {
  if (!accept(h, '(')) return bad(h, "'shape' to be a tuple");
  bool comma = true;
  for (h->rank = 0; !accept(h, ')'); h->rank++) {
    if (!comma) return bad(h, "',' or ')' in 'shape'");
    if (h->rank == MAREA_MAX_RANK)
      return marea_fail(h->ctx, MAREA_EFORMAT, "%s: a tensor has at most %d dimensions", h->label.s,
                        MAREA_MAX_RANK);
    if (!read_size(h, &h->shape[h->rank])) return bad(h, "sizes below 2^63 in 'shape'");
    comma = accept(h, ',');
  }
  return MAREA_OK;
}

static const struct {
  char name[3];
  int8_t code;
} types[] = {{"b1", MAREA_CODE_BOOL}, {"i1", MAREA_CODE_I8},  {"u1", MAREA_CODE_U8},  {"i2", MAREA_CODE_I16},
             {"u2", MAREA_CODE_U16},  {"i4", MAREA_CODE_I32}, {"u4", MAREA_CODE_U32}, {"i8", MAREA_CODE_I64},
             {"f2", MAREA_CODE_F16},  {"f4", MAREA_CODE_F32}, {"f8", MAREA_CODE_F64}};

/* "?": NumPy has none. */
static const char *name_of (marea_code code) {
  for (int i = 0; i < MAREA_COUNT(types); i++)
    if (types[i].code == (int8_t)code) return types[i].name;
  return "?";
}

static marea_status read_descr (header *h) {
  char descr[16];
  if (!read_string(h, descr, sizeof descr)) return bad(h, "'descr' to be a simple type such as '<f4'");
  for (int i = 0; i < MAREA_COUNT(types); i++) {
    if (!descr[0] || strcmp(descr + 1, types[i].name) != 0) continue;
    h->code = (marea_code)types[i].code;
    h->big_endian = descr[0] == '>';
    if (strchr("<>=", descr[0]) || (descr[0] == '|' && descr[2] == '1')) return MAREA_OK;
  }
  return marea_fail(h->ctx, MAREA_EFORMAT,
                    "%s: element type '%s' is not supported (f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 b1 are)",
                    h->label.s, descr);
}

static marea_status read_value (header *h, const char *key, unsigned *seen) {
  static const char *const keys[] = {"descr", "fortran_order", "shape"};
  unsigned k = 0;
  while (k < 3 && strcmp(key, keys[k]) != 0) k++;
  if (k == 3 || *seen & 1u << k) return bad(h, "the keys 'descr', 'fortran_order' and 'shape', once each");
  *seen |= 1u << k;
  if (k == 0) return read_descr(h);
  if (k == 2) return read_shape(h);
  h->fortran = accept_word(h, "True");
  return h->fortran || accept_word(h, "False") ? MAREA_OK : bad(h, "'fortran_order' to be True or False");
}

static marea_status read_dictionary (header *h) {
  unsigned seen = 0;
  bool comma = true;
  if (!accept(h, '{')) return bad(h, "a dictionary");
  while (!accept(h, '}')) {
    char key[16];
    if (!comma || !read_string(h, key, sizeof key) || !accept(h, ':')) return bad(h, "'key': value, ... }");
    MAREA_TRY(read_value(h, key, &seen));
    comma = accept(h, ',');
  }
  skip_space(h);
  if (seen != 7) return bad(h, "the keys 'descr', 'fortran_order' and 'shape', once each");
  return h->at == h->end ? MAREA_OK : bad(h, "nothing after the dictionary");
}

/* ---- the file ---- */

/* Finds the header in the file's first bytes; *data is where the elements begin. */
static marea_status find_header (header *h, const uint8_t *bytes, size_t n, size_t *data) {
  if (n < 10 || memcmp(bytes, "\x93NUMPY", 6) != 0)
    return marea_fail(h->ctx, MAREA_EFORMAT, "%s: not an NPY file: it does not begin with \\x93NUMPY",
                      h->label.s);
  int major = bytes[6];
  if (major < 1 || major > 3 || bytes[7] != 0)
    return marea_fail(h->ctx, MAREA_EFORMAT, "%s: version %d.%d is not supported (1.0, 2.0 and 3.0 are)",
                      h->label.s, major, bytes[7]);
  size_t start = major == 1 ? 10 : 12, length = 0;
  if (n >= start)
    for (size_t i = start; i-- > 8;) length = length << 8 | bytes[i];
  if (length > MAREA_MAX_NPY_HEADER)
    return marea_fail(h->ctx, MAREA_EFORMAT, "%s: header of %zu bytes; at most %d are allowed", h->label.s,
                      length, MAREA_MAX_NPY_HEADER);
  if (n < start + length)
    return marea_fail(h->ctx, MAREA_EFORMAT, "%s: truncated: the file ends inside its header", h->label.s);
  h->at = (const char *)bytes + start;
  h->end = h->at + length;
  *data = start + length;
  return MAREA_OK;
}

/* to := from with its dimensions' order reversed: column-major becomes row-major. */
static marea_status transpose (const header *h, const uint8_t *from, uint8_t *to, size_t size,
                               int64_t count) {
  int64_t index[MAREA_MAX_RANK] = {0}, step[MAREA_MAX_RANK], at = 0, product = 1;
  for (int d = 0; d < h->rank; product *= h->shape[d++]) step[d] = product;
  for (int64_t i = 0; i < count; i++) {
    if (i % MAREA_BLOCK == 0) MAREA_TRY(marea_poll(h->ctx));
    memcpy(to + (size_t)i * size, from + (size_t)at * size, size);
    for (int d = h->rank - 1; d >= 0; d--) {
      at += step[d];
      if (++index[d] < h->shape[d]) break;
      at -= step[d] * h->shape[d];
      index[d] = 0;
    }
  }
  return MAREA_OK;
}

marea_status marea_array_read (marea_context *ctx, marea_label label, const uint8_t *bytes, size_t n,
                               marea_tensor **out) {
  header h = {.ctx = ctx, .label = label};
  size_t data = 0, declared = 0;
  uint8_t *raw;
  *out = NULL;
  MAREA_TRY(find_header(&h, bytes, n, &data));
  MAREA_TRY(read_dictionary(&h));
  MAREA_TRY(marea_raw_bytes(ctx, h.label.s, h.code, h.rank, h.shape, &declared));
  if (declared > n - data)
    return marea_fail(ctx, MAREA_EFORMAT, "%s: truncated: header declares %zu bytes, file has %zu", h.label.s,
                      data + declared, n);
  if (declared < n - data)
    return marea_fail(ctx, MAREA_EFORMAT, "%s: %zu bytes follow the end of the data", h.label.s,
                      n - data - declared);
  MAREA_TRY(marea_raw_new(ctx, h.label.s, h.code, h.rank, h.shape, out, &raw));
  marea_status status = h.fortran && declared ? transpose(&h, bytes + data, raw, marea_code_size(h.code),
                                                          marea_tensor_size(*out))
                                              : marea_move(ctx, raw, bytes + data, declared);
  if (status == MAREA_OK) status = marea_raw_decode(*out, h.code, h.big_endian);
  if (status == MAREA_OK) return MAREA_OK;
  marea_release(*out);
  *out = NULL;
  return status;
}

marea_parser marea_parse_npy;
marea_status marea_parse_npy (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                              marea_tensor **out) {
  return marea_array_read(ctx, marea_file_label("load_npy", path), bytes, n, out);
}

marea_status marea_load_npy (marea_context *ctx, const char *path, marea_tensor **out) {
  return marea_load_tensor(ctx, "load_npy", path, marea_parse_npy, out);
}

size_t marea_array_header (const marea_tensor *t, char to[512]) {
  const marea_code code = marea_code_of(marea_tensor_dtype(t));
  int n = snprintf(to + 10, 500, "{'descr': '%c%s', 'fortran_order': False, 'shape': (",
                   marea_code_size(code) == 1 ? '|' : '<', name_of(code));
  int rank = marea_tensor_rank(t);
  for (int d = 0; d < rank; d++)
    n += snprintf(to + 10 + n, 500 - (size_t)n, d ? ", %lld" : "%lld", (long long)marea_tensor_shape(t)[d]);
  n += snprintf(to + 10 + n, 500 - (size_t)n, rank == 1 ? ",), }" : "), }");
  size_t total = ((size_t)n + 10 + 1 + 63) / 64 * 64;
  memset(to + 10 + n, ' ', total - 10 - (size_t)n);
  to[total - 1] = '\n';
  memcpy(to, "\x93NUMPY\1\0", 8);
  to[8] = (char)((total - 10) & 255);
  to[9] = (char)((total - 10) >> 8);
  return total;
}

marea_status marea_array_check (const marea_tensor *t, const char *who) {
  const marea_dtype dtype = marea_tensor_dtype(t);
  if (*name_of(marea_code_of(dtype)) != '?') return MAREA_OK;
  return marea_fail(t->ctx, MAREA_EARG, "%s: NPY files have no %s; save x:to 'f32', or a safetensors file",
                    who, marea_dtype_name(dtype));
}

marea_status marea_save_npy (marea_tensor *t, const char *path) {
  MAREA_ENTER;
  marea_context *ctx = marea_tensor_context(t);
  MAREA_TRY(marea_want_values(t, "save_npy", "t"));
  MAREA_WANT_OR_RETURN(ctx, "save_npy", path);
  marea_tensor *whole;
  marea_writer w;
  char head[512];
  MAREA_TRY(marea_array_check(t, "save_npy"));
  size_t n = marea_array_header(t, head);
  MAREA_TRY(marea_gapless(t, &whole));
  size_t bytes = (size_t)marea_tensor_size(whole) * marea_dtype_size(marea_tensor_dtype(whole));
  marea_status status = marea_write_begin(ctx, "save_npy", path, &w);
  if (status == MAREA_OK) {
    status = marea_write(&w, head, n);
    if (status == MAREA_OK) status = marea_write(&w, marea_tensor_data(whole), bytes);
    status = marea_write_end(&w, status);
  }
  marea_release(whole);
  return status;
}
