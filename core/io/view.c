/* SPDX-License-Identifier: MIT
** view.c: tensors that a file keeps as views of storages, with strides: each gets memory of its own. All tensors of a file
** together take at most MAREA_MOST_COPIES times its bytes.
*/
#include <string.h>

#include "tree.h"

#define SPARE (1 << 20)

size_t marea_view_room (size_t n) {
  return SPARE + (n < PTRDIFF_MAX / MAREA_MOST_COPIES ? n * MAREA_MOST_COPIES : PTRDIFF_MAX - SPARE);
}

marea_status marea_view_take_room (marea_context *ctx, const char *label, size_t bytes, size_t *left) {
  if (bytes > *left)
    return marea_fail(ctx, MAREA_EFORMAT, "%s: refused: its tensors take more than %d times the file's bytes",
                      label, MAREA_MOST_COPIES);
  *left -= bytes;
  return MAREA_OK;
}

/* The span of elements that a view reads, [offset, *end). False: none that a storage has. */
static bool find_end (const marea_view *v, int64_t *end) {
  int64_t step;
  bool empty = false;
  *end = v->offset;
  for (int d = 0; d < v->rank; d++) {
    if (v->shape[d] < 0 || v->stride[d] < 0) return false;
    empty |= v->shape[d] == 0;
    if (v->shape[d] > 0 && (__builtin_mul_overflow(v->shape[d] - 1, v->stride[d], &step) ||
                            __builtin_add_overflow(*end, step, end)))
      return false;
  }
  if (empty) *end = v->offset;
  return v->offset >= 0 && (empty || !__builtin_add_overflow(*end, 1, end));
}

static bool is_dense (const marea_view *v) {
  int64_t n = 1;
  for (int d = v->rank - 1; d >= 0; n *= v->shape[d--])
    if (v->shape[d] != 1 && v->stride[d] != n) return false;
  return true;
}

/* The view's elements of `size` bytes, one after another. */
static marea_status gather (marea_context *ctx, const marea_view *v, const uint8_t *from, size_t size,
                            int64_t count, uint8_t *to) {
  int64_t index[MAREA_MAX_RANK] = {0}, at = v->offset;
  for (int64_t i = 0; i < count; i++) {
    if (i % MAREA_BLOCK == 0) MAREA_TRY(marea_poll(ctx));
    memcpy(to + (size_t)i * size, from + (size_t)at * size, size);
    for (int d = v->rank - 1; d >= 0; d--) {
      at += v->stride[d];
      if (++index[d] < v->shape[d]) break;
      at -= v->stride[d] * v->shape[d];
      index[d] = 0;
    }
  }
  return MAREA_OK;
}

static marea_status fill (marea_context *ctx, const marea_stored *s, const marea_view *v, marea_tensor *t,
                          uint8_t *raw) {
  const size_t size = marea_code_size(s->code);
  const int64_t count = marea_tensor_size(t);
  if (count && is_dense(v))
    MAREA_TRY(marea_move(ctx, raw, s->bytes + (size_t)v->offset * size, (size_t)count * size));
  else if (count) MAREA_TRY(gather(ctx, v, s->bytes, size, count, raw));
  return marea_raw_decode(t, s->code, false);
}

marea_status marea_view_read (marea_context *ctx, const marea_stored *s, const marea_view *v, size_t *left,
                              marea_tensor **out) {
  int64_t end;
  size_t bytes;
  uint8_t *raw;
  if (!find_end(v, &end) || end > s->n)
    return marea_fail(ctx, MAREA_EFORMAT,
                      "%s: damaged: a tensor reaches beyond storage '%s' of %lld elements", s->label, s->name,
                      (long long)s->n);
  MAREA_TRY(marea_raw_bytes(ctx, s->label, s->code, v->rank, v->shape, &bytes));
  MAREA_TRY(marea_view_take_room(ctx, s->label, bytes, left));
  MAREA_TRY(marea_raw_new(ctx, s->label, s->code, v->rank, v->shape, out, &raw));
  const marea_status status = fill(ctx, s, v, *out, raw);
  if (status == MAREA_OK) return MAREA_OK;
  marea_release(*out);
  *out = NULL;
  return status;
}
