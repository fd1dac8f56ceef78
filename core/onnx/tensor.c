/* SPDX-License-Identifier: MIT
** tensor.c: tensors of an ONNX file. Elements stand in the message as bytes or in lists of wider numbers, or in a file
** beside the model, which may not lie outside of the model's folder.
*/
#include "../io/io.h"
#include "model.h"

static const struct {
  const char *name;
  int8_t code, dtype;
} types[ONNX_TYPES] = {
    [ONNX_UNDEFINED] = {"undefined", -1, -1},
    [ONNX_FLOAT] = {"float", MAREA_CODE_F32, MAREA_F32},
    [ONNX_UINT8] = {"uint8", MAREA_CODE_U8, MAREA_U8},
    [ONNX_INT8] = {"int8", MAREA_CODE_I8, MAREA_I64},
    [ONNX_UINT16] = {"uint16", MAREA_CODE_U16, MAREA_I64},
    [ONNX_INT16] = {"int16", MAREA_CODE_I16, MAREA_I64},
    [ONNX_INT32] = {"int32", MAREA_CODE_I32, MAREA_I64},
    [ONNX_INT64] = {"int64", MAREA_CODE_I64, MAREA_I64},
    [ONNX_STRING] = {"string", -1, -1},
    [ONNX_BOOL] = {"bool", MAREA_CODE_BOOL, MAREA_U8},
    [ONNX_FLOAT16] = {"float16", MAREA_CODE_F16, MAREA_F16},
    [ONNX_DOUBLE] = {"double", MAREA_CODE_F64, MAREA_F64},
    [ONNX_UINT32] = {"uint32", MAREA_CODE_U32, MAREA_I64},
    [ONNX_UINT64] = {"uint64", MAREA_CODE_I64, MAREA_I64},
    [14] = {"complex64", -1, -1},
    [15] = {"complex128", -1, -1},
    [ONNX_BFLOAT16] = {"bfloat16", MAREA_CODE_BF16, MAREA_BF16},
};

int marea_onnx_dtype (int type) { return type < 0 || type >= ONNX_TYPES ? -1 : types[type].dtype; }

const char *marea_onnx_type_name (int type) {
  return type < 0 || type >= ONNX_TYPES ? "unknown" : types[type].name;
}

typedef struct reader {
  marea_context *ctx;
  const char *folder;
  const Marea__TensorProto *t;
  char label[128];
} reader;

#define BAD(r, format, ...) \
  marea_fail((r)->ctx, MAREA_EFORMAT, "%s: " format, (r)->label __VA_OPT__(, ) __VA_ARGS__)

/* ---- another file ---- */

/* A name that stays in the folder: neither absolute nor with a part "..". */
static bool stays_inside (const char *name) {
  if (!name[0] || name[0] == '/') return false;
  for (const char *p = name; *p; p += strcspn(p, "/"), p += *p == '/')
    if (strncmp(p, "..", 2) == 0 && (p[2] == '/' || p[2] == '\0')) return false;
  return true;
}

static bool read_count (const char *text, size_t *to) {
  size_t n = 0;
  if (!*text) return false;
  for (; *text; text++) {
    if (*text < '0' || *text > '9' || n > SIZE_MAX / 16) return false;
    n = n * 10 + (size_t)(*text - '0');
  }
  *to = n;
  return true;
}

static marea_status read_external (reader *r, uint8_t *to, size_t bytes) {
  const char *name = "";
  size_t offset = 0, length = bytes;
  for (size_t i = 0; i < r->t->n_external_data; i++) {
    const Marea__StringStringEntryProto *d = r->t->external_data[i];
    if (strcmp(d->key, "location") == 0) name = d->value;
    if (strcmp(d->key, "offset") == 0 && !read_count(d->value, &offset))
      return BAD(r, "offset of its external data: expected a number, got '%.40s'", d->value);
    if (strcmp(d->key, "length") == 0 && !read_count(d->value, &length))
      return BAD(r, "length of its external data: expected a number, got '%.40s'", d->value);
  }
  if (!r->folder) return BAD(r, "its elements are in another file, which a model in memory has none of");
  if (!stays_inside(name)) return BAD(r, "external data '%.80s' is not in the model's folder", name);
  if (length != bytes) return BAD(r, "expected %zu bytes of external data, got %zu", bytes, length);
  return marea_read_part(r->ctx, r->label, r->folder, name, offset, bytes, to);
}

/* ---- lists of wider numbers ---- */

#define TAKE(list, type)                                                                   \
  do {                                                                                     \
    if (t->n_##list != n) return BAD(r, "expected %zu elements, got %zu", n, t->n_##list); \
    for (size_t i = 0; i < n; i++) {                                                       \
      const type x = (type)t->list[i];                                                     \
      memcpy(to + i * sizeof x, &x, sizeof x);                                             \
    }                                                                                      \
    return MAREA_OK;                                                                       \
  } while (0)

static marea_status read_lists (reader *r, size_t n, uint8_t *to) {
  const Marea__TensorProto *t = r->t;
  switch (t->data_type) {
  case ONNX_FLOAT: TAKE(float_data, float);
  case ONNX_DOUBLE: TAKE(double_data, double);
  case ONNX_INT64: TAKE(int64_data, int64_t);
  case ONNX_UINT64: TAKE(uint64_data, uint64_t);
  case ONNX_UINT32: TAKE(uint64_data, uint32_t);
  case ONNX_INT32: TAKE(int32_data, int32_t);
  case ONNX_UINT16:
  case ONNX_INT16:
  case ONNX_FLOAT16:
  case ONNX_BFLOAT16: TAKE(int32_data, uint16_t);
  default: TAKE(int32_data, uint8_t);
  }
}

static marea_status read_elements (reader *r, size_t n, size_t bytes, uint8_t *to) {
  const ProtobufCBinaryData *raw = &r->t->raw_data;
  if (r->t->data_location == 1) return read_external(r, to, bytes);
  if (raw->len == 0) return read_lists(r, n, to);
  if (raw->len != bytes) return BAD(r, "expected %zu bytes, got %zu", bytes, raw->len);
  return marea_move(r->ctx, to, raw->data, bytes);
}

marea_status marea_onnx_read_tensor (marea_context *ctx, const char *folder, const Marea__TensorProto *t,
                                     marea_tensor **out) {
  reader r = {.ctx = ctx, .folder = folder, .t = t};
  uint8_t *raw;
  size_t bytes;
  marea_format(r.label, sizeof r.label, "onnx: tensor '%.80s'", t->name);
  marea_printable(r.label);
  const int code = t->data_type < 0 || t->data_type >= ONNX_TYPES ? -1 : types[t->data_type].code;
  if (code < 0)
    return BAD(&r, "elements of type %d (%s) are not supported", t->data_type,
               marea_onnx_type_name(t->data_type));
  if (t->n_dims > MAREA_MAX_RANK)
    return BAD(&r, "rank %zu; at most %d are supported", t->n_dims, MAREA_MAX_RANK);
  MAREA_TRY(marea_raw_bytes(ctx, r.label, (marea_code)code, (int)t->n_dims, t->dims, &bytes));
  MAREA_TRY(marea_raw_new(ctx, r.label, (marea_code)code, (int)t->n_dims, t->dims, out, &raw));
  marea_status status = read_elements(&r, (size_t)marea_tensor_size(*out), bytes, raw);
  if (status == MAREA_OK) status = marea_raw_decode(*out, (marea_code)code, false);
  if (status != MAREA_OK) marea_release(*out);
  if (status != MAREA_OK) *out = NULL;
  return status;
}
