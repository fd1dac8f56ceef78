/* SPDX-License-Identifier: MIT
** tensor.c: handles, storages and views. A new tensor is one block: its storage's header, its first handle,
** its bytes; the block lives as long as the storage. Handles that come later have blocks of their own.
** Releasing works through lists, never by recursion, so a graph of a million nodes can be dropped on a small
** stack.
*/
#include <string.h>

#include "core.h"

typedef struct newborn {
  marea_storage storage;
  marea_tensor handle;
} newborn;

#define HEADER ((sizeof(newborn) + MAREA_ALIGN - 1) / MAREA_ALIGN * MAREA_ALIGN) /* in front of the bytes */

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

static void init_handle (marea_tensor *t, marea_context *ctx, int dtype, int rank, const int64_t *shape) {
  memset(t, 0, offsetof(marea_tensor, shape));
  t->ctx = ctx;
  t->refs = 1;
  t->dtype = (int8_t)dtype;
  t->rank = (int8_t)rank;
  for (int d = 0; d < rank; d++) t->shape[d] = shape[d];
}

/* Bytes that a planned tensor would take, besides its header. */
static size_t planned_bytes (size_t bytes) {
  return marea_block_size(HEADER + bytes) - marea_block_size(HEADER);
}

typedef enum home { OWN, HOST, PLAN } home; /* of the bytes; HOST: the caller sets their address */

/* A handle with row-major strides over a storage. */
static marea_status new_tensor (marea_context *ctx, const char *who, int dtype, int rank,
                                const int64_t *shape, home where, marea_tensor **out) {
  size_t bytes;
  MAREA_TRY(marea_bytes(ctx, who, rank, shape, marea_dtype_size((marea_dtype)dtype), &bytes));
  newborn *b = marea_alloc(ctx, HEADER + (where == OWN ? bytes : 0));
  if (!b) return marea_out_of_memory(ctx, who, bytes, marea_shape_text(rank, shape).s);
  marea_mark_tensor(b);
  b->storage = (marea_storage){.ctx = ctx, .bytes = bytes, .refs = 1, .place = ctx->place};
  if (where == OWN) b->storage.data = (char *)b + HEADER;
  if (where == PLAN) {
    b->storage.data = MAREA_NOWHERE;
    b->storage.planned = ctx->plans;
    marea_plan_take(ctx, planned_bytes(bytes));
  }
  init_handle(&b->handle, ctx, dtype, rank, shape);
  b->handle.storage = &b->storage;
  marea_row_major(rank, shape, b->handle.stride);
  *out = &b->handle;
  return MAREA_OK;
}

marea_status marea_tensor_new (marea_context *ctx, const char *who, const marea_layout *layout,
                               marea_tensor **out) {
  return new_tensor(ctx, who, layout->dtype, layout->rank, layout->shape, OWN, out);
}

marea_status marea_result_new (marea_context *ctx, const char *who, const marea_layout *layout,
                               marea_tensor **out) {
  return new_tensor(ctx, who, layout->dtype, layout->rank, layout->shape, ctx->plan ? PLAN : OWN, out);
}

marea_status marea_empty (marea_context *ctx, marea_dtype dtype, int rank, const int64_t *shape,
                          marea_tensor **out) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(ctx, "empty", out);
  *out = NULL;
  MAREA_WANT_OR_RETURN(NULL, "empty", ctx);
  MAREA_TRY(marea_want_shape_of(ctx, "empty", dtype, rank, shape));
  return new_tensor(ctx, "empty", dtype, rank, shape, OWN, out);
}

marea_status marea_zeros (marea_context *ctx, marea_dtype dtype, int rank, const int64_t *shape,
                          marea_tensor **out) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(ctx, "zeros", out);
  *out = NULL;
  MAREA_WANT_OR_RETURN(NULL, "zeros", ctx);
  MAREA_TRY(marea_want_shape_of(ctx, "zeros", dtype, rank, shape));
  MAREA_TRY(new_tensor(ctx, "zeros", dtype, rank, shape, ctx->plan ? PLAN : OWN, out));
  if (!ctx->plan) marea_clear(ctx, (*out)->storage->data, (*out)->storage->bytes);
  marea_status status = marea_poll(ctx);
  if (status == MAREA_OK) return MAREA_OK;
  marea_release(*out);
  *out = NULL;
  return status;
}

/* Checks the host's memory: not NULL, and aligned to the elements. */
static marea_status check_lent (marea_context *ctx, const char *who, marea_dtype dtype, size_t bytes,
                                const void *data) {
  const size_t size = marea_dtype_size(dtype);
  if (bytes > 0) MAREA_WANT_OR_RETURN(ctx, who, data);
  if ((uintptr_t)data % size == 0) return MAREA_OK;
  return marea_fail(ctx, MAREA_EARG, "%s: argument 'data': expected an address that %s divides by %zu", who,
                    marea_dtype_name(dtype), size);
}

marea_status marea_from_memory (marea_context *ctx, marea_dtype dtype, int rank, const int64_t *shape,
                                void *data, void (*release)(void *ud), void *ud, marea_tensor **out) {
  static const char who[] = "from_memory";
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(ctx, who, out);
  *out = NULL;
  MAREA_WANT_OR_RETURN(NULL, who, ctx);
  MAREA_TRY(marea_want_shape_of(ctx, who, dtype, rank, shape));
  MAREA_TRY(new_tensor(ctx, who, dtype, rank, shape, HOST, out));
  marea_storage *s = (*out)->storage;
  marea_status status = check_lent(ctx, who, dtype, s->bytes, data);
  if (status != MAREA_OK) {
    marea_release(*out);
    *out = NULL;
    return status;
  }
  s->data = data;
  s->release = release;
  s->ud = ud;
  return MAREA_OK;
}

marea_tensor *marea_retain (marea_tensor *t) {
  if (t) t->refs++;
  return t;
}

static bool is_first (const marea_tensor *t) { return t == &((newborn *)t->storage)->handle; }

/* Frees a handle and its reference to the storage; its node and gradient are released elsewhere. */
static void free_handle (marea_tensor *t) {
  marea_storage *s = t->storage;
  marea_context *ctx = t->ctx;
  if (!is_first(t)) marea_free(ctx, t);
  if (--s->refs > 0) return;
  if (s->release) s->release(s->ud);
  marea_drop_packs(ctx, s->packs);
  if (s->planned && ctx->plan && s->planned == ctx->plans) marea_plan_give(ctx, planned_bytes(s->bytes));
  marea_free(ctx, s);
}

static void bury_handle (marea_context *ctx, marea_tensor *t) {
  marea_node *node = t->node;
  marea_tensor *grad = t->grad;
  free_handle(t);
  marea_release(grad);
  if (node) marea_node_release(ctx, node);
}

void marea_bury (marea_context *ctx) {
  if (ctx->burying) return;
  ctx->burying = true;
  while (ctx->dead || ctx->dead_nodes) {
    marea_tensor *t = ctx->dead;
    if (t) {
      ctx->dead = t->link;
      bury_handle(ctx, t);
    } else marea_node_bury(ctx);
  }
  ctx->burying = false;
  if (ctx->closed) marea_context_settle(ctx);
}

void marea_release (marea_tensor *t) {
  if (!t || --t->refs > 0) return;
  marea_context *ctx = t->ctx;
  t->link = ctx->dead;
  ctx->dead = t;
  marea_bury(ctx);
}

marea_status marea_alias (const marea_tensor *t, marea_tensor **out) {
  marea_tensor *a = marea_alloc(t->ctx, sizeof *a);
  if (!a) return marea_out_of_memory(t->ctx, "view", sizeof *a, "a view");
  init_handle(a, t->ctx, t->dtype, t->rank, t->shape);
  memcpy(a->stride, t->stride, sizeof a->stride[0] * (size_t)t->rank);
  a->offset = t->offset;
  a->storage = t->storage;
  a->storage->refs++;
  *out = a;
  return MAREA_OK;
}

marea_status marea_detach (marea_tensor *t, marea_tensor **out) {
  MAREA_ENTER;
  marea_context *ctx = t ? t->ctx : NULL;
  MAREA_WANT_OR_RETURN(ctx, "detach", out);
  *out = NULL;
  MAREA_TRY(marea_want_tensor(ctx, "detach", "t", t));
  return marea_alias(t, out);
}

void marea_protect (marea_tensor *t) {
  if (t) t->storage->constant = true;
}

marea_context *marea_tensor_context (const marea_tensor *t) { return t ? t->ctx : NULL; }

marea_dtype marea_tensor_dtype (const marea_tensor *t) {
  return t ? (marea_dtype)t->dtype : (marea_dtype)MAREA_DTYPE_COUNT;
}

int marea_tensor_rank (const marea_tensor *t) { return t ? t->rank : 0; }

const int64_t *marea_tensor_shape (const marea_tensor *t) { return t ? t->shape : NULL; }

const int64_t *marea_tensor_strides (const marea_tensor *t) { return t ? t->stride : NULL; }

int64_t marea_tensor_size (const marea_tensor *t) { return t ? marea_count(t->rank, t->shape) : 0; }

bool marea_tensor_contiguous (const marea_tensor *t) {
  return t && marea_is_contiguous(t->rank, t->shape, t->stride);
}

bool marea_tensor_shares (const marea_tensor *a, const marea_tensor *b) {
  return a && b && a->storage == b->storage;
}

/* Inserts p into list[0..n-1], which is in order of falling bytes and keeps the `most` largest; returns the new n. */
static int insert (newborn **list, int n, int most, newborn *p) {
  int at = n < most ? n : most;
  for (; at > 0 && list[at - 1]->storage.bytes < p->storage.bytes; at--)
    if (at < most) list[at] = list[at - 1];
  if (at < most) list[at] = p;
  return n < most ? n + 1 : n;
}

marea_status marea_memory_largest (marea_context *ctx, int most, marea_tensor **list, int *n) {
  newborn *found[MAREA_MOST_LARGEST];
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(ctx, "memory_largest", n);
  *n = 0;
  MAREA_WANT_OR_RETURN(NULL, "memory_largest", ctx);
  MAREA_TRY(marea_want_list(ctx, "memory_largest", "list", most, list));
  int count = 0;
  for (newborn *p = NULL; (p = marea_next_tensor(ctx, p));)
    if (p->storage.data == (char *)p + HEADER) /* the host's memory and planned tensors are elsewhere */
      count = insert(found, count, MAREA_MIN(most, MAREA_MOST_LARGEST), p);
  for (; *n < count; ++*n) {
    marea_status status = marea_alias(&found[*n]->handle, &list[*n]);
    if (status == MAREA_OK) continue;
    while (*n > 0) marea_release(list[--*n]);
    return status;
  }
  return MAREA_OK;
}

void marea_set_place (marea_context *ctx, uint32_t place) {
  if (ctx) ctx->place = place;
}

uint32_t marea_place_of (const marea_tensor *t) { return t ? t->storage->place : 0; }

void *marea_tensor_data (const marea_tensor *t) { return t && !t->storage->planned ? marea_at(t) : NULL; }

uint32_t marea_tensor_changes (const marea_tensor *t) { return t ? t->storage->version : 0; }

int marea_tensor_references (const marea_tensor *t) { return t ? t->refs : 0; }
