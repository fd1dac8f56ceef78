/* SPDX-License-Identifier: MIT
** elements.c: from the element types of files to the dtypes of tensors. Narrow integers become i64, truth values
** u8 of 0 or 1; the other types are dtypes. The file's bytes stand at the end of the tensor's memory and are
** widened from the front on: element k is written to [8k, 8k+8) while element k+1 is read from 8n -
** e(n-k-1) >= 8k+8, so no second buffer is needed.
** Not done: hosts that are not little-endian.
*/
#include <string.h>

#include "io.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are written in the host's byte order");

static const struct {
  uint8_t size, dtype;
} codes[MAREA_CODES] = {
    [MAREA_CODE_U8] = {1, MAREA_U8},     [MAREA_CODE_BOOL] = {1, MAREA_U8}, [MAREA_CODE_I8] = {1, MAREA_I64},
    [MAREA_CODE_U16] = {2, MAREA_I64},   [MAREA_CODE_I16] = {2, MAREA_I64}, [MAREA_CODE_U32] = {4, MAREA_I64},
    [MAREA_CODE_I32] = {4, MAREA_I64},   [MAREA_CODE_I64] = {8, MAREA_I64}, [MAREA_CODE_F16] = {2, MAREA_F16},
    [MAREA_CODE_BF16] = {2, MAREA_BF16}, [MAREA_CODE_F32] = {4, MAREA_F32}, [MAREA_CODE_F64] = {8, MAREA_F64},
};

size_t marea_code_size (marea_code code) { return codes[code].size; }

marea_code marea_code_of (marea_dtype dtype) {
  switch (dtype) {
  case MAREA_F32: return MAREA_CODE_F32;
  case MAREA_F64: return MAREA_CODE_F64;
  case MAREA_I64: return MAREA_CODE_I64;
  case MAREA_U8: return MAREA_CODE_U8;
  case MAREA_BF16: return MAREA_CODE_BF16;
  case MAREA_F16: return MAREA_CODE_F16;
  }
  return MAREA_CODE_U8;
}

marea_status marea_raw_bytes (marea_context *ctx, const char *label, marea_code code, int rank,
                              const int64_t *shape, size_t *bytes) {
  int64_t filled[MAREA_MAX_RANK] = {
      0}; /* without zeros: strides of an empty tensor must not overflow either */
  if (marea_bytes(ctx, label, rank, shape, sizeof(int64_t), bytes) != MAREA_OK) return MAREA_EFORMAT;
  const bool empty = *bytes == 0;
  for (int d = 0; d < rank; d++) filled[d] = shape[d] == 0 ? 1 : shape[d];
  if (empty && marea_bytes(ctx, label, rank, filled, sizeof(int64_t), bytes) != MAREA_OK)
    return marea_fail(
        ctx, MAREA_EFORMAT,
        "%s: shape %s: the strides of such an empty tensor span more bytes than can be addressed", label,
        marea_shape_text(rank, shape).s);
  *bytes = empty ? 0 : *bytes / sizeof(int64_t) * codes[code].size;
  return MAREA_OK;
}

marea_status marea_raw_new (marea_context *ctx, const char *label, marea_code code, int rank,
                            const int64_t *shape, marea_tensor **out, uint8_t **raw) {
  marea_layout layout = {.dtype = (int8_t)codes[code].dtype, .rank = (int8_t)rank};
  if (rank > 0) memcpy(layout.shape, shape, sizeof *shape * (size_t)rank);
  MAREA_TRY(marea_tensor_new(ctx, label, &layout, out));
  size_t n = (size_t)marea_tensor_size(*out);
  size_t wide = marea_dtype_size(marea_tensor_dtype(*out));
  *raw = (uint8_t *)marea_tensor_data(*out) + n * (wide - codes[code].size);
  return MAREA_OK;
}

static uint64_t read_word (const uint8_t *p, size_t size, bool big_endian) {
  uint64_t word = 0;
  for (size_t i = 0; i < size; i++) word |= (uint64_t)p[i] << 8 * (big_endian ? size - 1 - i : i);
  return word;
}

/* The bytes that the tensor holds for the file's word. */
static uint64_t widen (marea_code code, uint64_t word) {
  switch (code) {
  case MAREA_CODE_BOOL: return word != 0;
  case MAREA_CODE_I8: return (uint64_t)(int64_t)(int8_t)word;
  case MAREA_CODE_I16: return (uint64_t)(int64_t)(int16_t)word;
  case MAREA_CODE_I32: return (uint64_t)(int64_t)(int32_t)word;
  default: return word;
  }
}

marea_status marea_raw_decode (marea_tensor *t, marea_code code, bool big_endian) {
  size_t size = codes[code].size, wide = marea_dtype_size(marea_tensor_dtype(t));
  size_t n = (size_t)marea_tensor_size(t);
  if (size == wide && code != MAREA_CODE_BOOL && (!big_endian || size == 1)) return MAREA_OK;
  uint8_t *to = marea_tensor_data(t);
  const uint8_t *from = to + n * (wide - size);
  for (size_t k = 0; k < n; k++) {
    if (k % MAREA_BLOCK == 0) MAREA_TRY(marea_poll(t->ctx));
    uint64_t word = widen(code, read_word(from + k * size, size, big_endian));
    memcpy(to + k * wide, &word, wide);
  }
  return MAREA_OK;
}
