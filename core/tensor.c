/* SPDX-License-Identifier: MIT
** tensor.c: handles, storages and views. A storage is one block: its header, then its bytes. Releasing works
** through a list, never by recursion, so a graph of a million nodes can be dropped on a small stack.
*/
#include <string.h>

#include "core.h"

#define STORAGE_HEADER ((sizeof(marea_storage) + MAREA_ALIGN - 1) / MAREA_ALIGN * MAREA_ALIGN)

const char *marea_dtype_name (marea_dtype dtype) {
  static const char *const name[] = {"f32", "f64", "i64", "u8"};
  return (unsigned)dtype < MAREA_DTYPES ? name[dtype] : "?";
}

size_t marea_dtype_size (marea_dtype dtype) {
  static const size_t size[] = {4, 8, 8, 1};
  return (unsigned)dtype < MAREA_DTYPES ? size[dtype] : 0;
}

int64_t marea_count (int rank, const int64_t *shape) {
  uint64_t n = 1; /* sizes beside a 0 may wrap; nothing is addressed by them */
  for (int d = 0; d < rank; d++) n *= (uint64_t)shape[d];
  return (int64_t)n;
}

void marea_row_major (int rank, const int64_t *shape, int64_t *stride) {
  uint64_t step = 1; /* of an empty tensor it may wrap; nothing is ever addressed by it */
  for (int d = rank - 1; d >= 0; d--) {
    stride[d] = (int64_t)step;
    step *= shape[d] > 0 ? (uint64_t)shape[d] : 1;
  }
}

bool marea_is_contiguous (int rank, const int64_t *shape, const int64_t *stride) {
  int64_t step = 1;
  for (int d = 0; d < rank; d++)
    if (shape[d] == 0) return true;
  for (int d = rank - 1; d >= 0; d--) {
    if (shape[d] != 1 && stride[d] != step) return false;
    step *= shape[d];
  }
  return true;
}

static marea_tensor *new_handle (marea_context *ctx, int dtype, int rank, const int64_t *shape) {
  marea_tensor *t = marea_alloc(ctx, sizeof *t);
  if (!t) return NULL;
  memset(t, 0, offsetof(marea_tensor, shape));
  t->ctx = ctx;
  t->refs = 1;
  t->dtype = (int8_t)dtype;
  t->rank = (int8_t)rank;
  for (int d = 0; d < rank; d++) t->shape[d] = shape[d];
  return t;
}

static marea_status no_memory (marea_context *ctx, const char *who, size_t bytes) {
  marea_memory_info m = marea_memory(ctx);
  return marea_fail(ctx, MAREA_ENOMEM, "%s: out of memory: %zu bytes wanted, %zu in use, %zu kept for reuse",
                    who, bytes, m.live, m.pooled);
}

static marea_storage *new_storage (marea_context *ctx, size_t bytes, bool own) {
  marea_storage *s = marea_alloc(ctx, STORAGE_HEADER + (own ? bytes : 0));
  if (!s) return NULL;
  *s = (marea_storage){.ctx = ctx, .bytes = bytes, .refs = 1};
  s->data = own ? (char *)s + STORAGE_HEADER : NULL;
  return s;
}

static void storage_release (marea_storage *s) {
  if (!s || --s->refs > 0) return;
  if (s->release) s->release(s->ud);
  marea_free(s->ctx, s);
}

/* A handle with row-major strides over a storage of its own (own) or one still without data. */
static marea_status new_tensor (marea_context *ctx, const char *who, int dtype, int rank,
                                const int64_t *shape, bool own, marea_tensor **out) {
  size_t bytes;
  MAREA_TRY(marea_bytes(ctx, who, rank, shape, marea_dtype_size((marea_dtype)dtype), &bytes));
  marea_tensor *t = new_handle(ctx, dtype, rank, shape);
  if (!t) return no_memory(ctx, who, sizeof *t);
  t->storage = new_storage(ctx, bytes, own);
  if (!t->storage) {
    marea_free(ctx, t);
    return no_memory(ctx, who, bytes);
  }
  marea_row_major(rank, t->shape, t->stride);
  *out = t;
  return MAREA_OK;
}

marea_status marea_tensor_new (marea_context *ctx, const char *who, const marea_layout *layout,
                               marea_tensor **out) {
  return new_tensor(ctx, who, layout->dtype, layout->rank, layout->shape, true, out);
}

marea_status marea_empty (marea_context *ctx, marea_dtype dtype, int rank, const int64_t *shape,
                          marea_tensor **out) {
  *out = NULL;
  return new_tensor(ctx, "empty", dtype, rank, shape, true, out);
}

marea_status marea_zeros (marea_context *ctx, marea_dtype dtype, int rank, const int64_t *shape,
                          marea_tensor **out) {
  *out = NULL;
  MAREA_TRY(new_tensor(ctx, "zeros", dtype, rank, shape, true, out));
  memset((*out)->storage->data, 0, (*out)->storage->bytes);
  return MAREA_OK;
}

marea_status marea_from_memory (marea_context *ctx, marea_dtype dtype, int rank, const int64_t *shape,
                                void *data, void (*release)(void *ud), void *ud, marea_tensor **out) {
  *out = NULL;
  MAREA_TRY(new_tensor(ctx, "from_memory", dtype, rank, shape, false, out));
  marea_storage *s = (*out)->storage;
  s->data = data;
  s->release = release;
  s->ud = ud;
  return MAREA_OK;
}

marea_tensor *marea_retain (marea_tensor *t) {
  t->refs++;
  return t;
}

static void free_handle (marea_tensor *t) {
  storage_release(t->storage);
  marea_release(t->grad);
  if (t->node) marea_node_release(t->ctx, t->node);
  marea_free(t->ctx, t);
}

void marea_release (marea_tensor *t) {
  if (!t || --t->refs > 0) return;
  marea_context *ctx = t->ctx;
  t->link = ctx->dead;
  ctx->dead = t;
  if (ctx->draining) return;
  ctx->draining = true;
  while ((t = ctx->dead)) {
    ctx->dead = t->link;
    free_handle(t);
  }
  ctx->draining = false;
  marea_context_settle(ctx);
}

marea_status marea_alias (const marea_tensor *t, marea_tensor **out) {
  marea_tensor *a = new_handle(t->ctx, t->dtype, t->rank, t->shape);
  if (!a) return no_memory(t->ctx, "view", sizeof *a);
  memcpy(a->stride, t->stride, sizeof a->stride[0] * (size_t)t->rank);
  a->offset = t->offset;
  a->storage = t->storage;
  a->storage->refs++;
  *out = a;
  return MAREA_OK;
}

marea_status marea_hollow (const marea_tensor *t, marea_tensor **out) {
  marea_tensor *a = new_handle(t->ctx, t->dtype, t->rank, t->shape);
  if (!a) return no_memory(t->ctx, "tape", sizeof *a);
  marea_row_major(t->rank, a->shape, a->stride);
  a->requires_grad = t->requires_grad;
  a->slot = t->slot;
  a->node = t->node;
  marea_node_retain(a->node);
  *out = a;
  return MAREA_OK;
}

marea_status marea_detach (marea_tensor *t, marea_tensor **out) {
  *out = NULL;
  return marea_alias(t, out);
}

marea_context *marea_tensor_context (const marea_tensor *t) { return t->ctx; }

marea_dtype marea_tensor_dtype (const marea_tensor *t) { return (marea_dtype)t->dtype; }

int marea_tensor_rank (const marea_tensor *t) { return t->rank; }

const int64_t *marea_tensor_shape (const marea_tensor *t) { return t->shape; }

const int64_t *marea_tensor_strides (const marea_tensor *t) { return t->stride; }

int64_t marea_tensor_size (const marea_tensor *t) { return marea_count(t->rank, t->shape); }

bool marea_tensor_contiguous (const marea_tensor *t) {
  return marea_is_contiguous(t->rank, t->shape, t->stride);
}

bool marea_tensor_shares (const marea_tensor *a, const marea_tensor *b) { return a->storage == b->storage; }

void *marea_tensor_data (const marea_tensor *t) { return marea_at(t); }
