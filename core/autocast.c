/* SPDX-License-Identifier: MIT
** autocast.c: while it is on, operators with the flag MAREA_LOWERS (products, convolutions) take their float inputs in
** a dtype of fewer bits. apply.c asks for the casts; here they are made, and those of parameters are kept.
**
** What is kept is the elements alone, without history. Each use records a cast of its own, which costs a node and no
** elements, so that the gradients of a parameter that is used twice are added up in the parameter's dtype, a pass
** consumes no cast that another one needs, and what no_grad has cast serves a recorded call, too.
*/
#include <string.h>

#include "core.h"

typedef struct kept_cast {
  marea_tensor *of,
      *cast;        /* a handle of its own on the parameter's storage; its elements in the other dtype */
  uint32_t version; /* of the storage when they were cast */
} kept_cast;

struct marea_casts {
  int n, room;
  int next; /* behind the last one found: a network uses its parameters in the same order each time */
  kept_cast list[];
};

static void release_pair (const kept_cast *k) {
  marea_release(k->of);
  marea_release(k->cast);
}

void marea_drop_casts (marea_context *ctx) {
  marea_casts *casts = ctx->casts;
  ctx->casts = NULL;
  for (int i = 0; casts && i < casts->n; i++) release_pair(&casts->list[i]);
  marea_free(ctx, casts);
}

int marea_set_autocast (marea_context *ctx, int dtype) {
  if (!ctx) return -1;
  const int before = ctx->autocast;
  ctx->autocast = marea_is_in(MAREA_STORED, dtype) ? dtype : -1;
  if (ctx->autocast < 0) marea_drop_casts(ctx);
  return before;
}

int marea_autocast (const marea_context *ctx) { return ctx ? ctx->autocast : -1; }

static bool is_of (const kept_cast *k, const marea_tensor *t) {
  return k->of->storage == t->storage && k->of->dtype == t->dtype && marea_same_layout(k->of, t);
}

static kept_cast *find (marea_casts *casts, const marea_tensor *t) {
  for (int k = 0; casts && k < casts->n; k++) {
    const int i = casts->next + k < casts->n ? casts->next + k : casts->next + k - casts->n;
    if (!is_of(&casts->list[i], t)) continue;
    casts->next = i + 1;
    return &casts->list[i];
  }
  return NULL;
}

static bool is_fresh (const kept_cast *k, const marea_tensor *t, int dtype) {
  return k->version == t->storage->version && k->cast->dtype == dtype && !marea_is_over(k->cast);
}

/* Room for one more; NULL: no memory. */
static kept_cast *append (marea_context *ctx) {
  marea_casts *casts = ctx->casts;
  if (!casts || casts->n == casts->room) {
    const int room = casts ? 2 * casts->room : 16;
    marea_casts *wider = marea_alloc(ctx, sizeof *wider + (size_t)room * sizeof *wider->list);
    if (!wider) return NULL;
    if (casts) memcpy(wider, casts, sizeof *casts + (size_t)casts->n * sizeof *casts->list);
    else wider->n = wider->next = 0;
    wider->room = room;
    marea_free(ctx, casts);
    ctx->casts = casts = wider;
  }
  casts->next = casts->n;
  return &casts->list[casts->n++];
}

/* *out := the elements of t as `dtype`, recorded if operators are. */
static marea_status cast (marea_context *ctx, marea_tensor *t, int dtype, marea_tensor **out) {
  const marea_attr attr = {.n = 1, .i = dtype};
  return marea_run_with(ctx, &marea_op_cast, &attr, out, 1, t);
}

/* Casts a parameter and keeps the result. Where there is no memory to keep it in, it is not kept. */
static marea_status cast_and_keep (marea_context *ctx, marea_tensor *t, int dtype, marea_tensor **out) {
  const bool before = marea_set_recording(ctx, false);
  const marea_status status = cast(ctx, t, dtype, out);
  marea_set_recording(ctx, before);
  MAREA_TRY(status);
  kept_cast *k = find(ctx->casts, t), fresh = {.cast = *out, .version = t->storage->version};
  if (marea_alias(t, &fresh.of) != MAREA_OK) return MAREA_OK;
  if (k) release_pair(k);
  else k = append(ctx);
  if (k) {
    *k = fresh;
    marea_retain(*out);
  } else {
    marea_release(fresh.of);
  }
  return MAREA_OK;
}

/* *out := a handle on the elements of `kept`, recorded as the cast of t. */
static marea_status record_cast (marea_context *ctx, marea_tensor *t, const marea_tensor *kept,
                                 marea_tensor **out) {
  MAREA_TRY(marea_alias(kept, out));
  marea_attr attr = {.n = 1, .i = kept->dtype};
  marea_call call = {
      .ctx = ctx, .op = &marea_op_cast, .n_in = 1, .n_out = 1, .in = &t, .out = out, .attr = &attr};
  const marea_status status = marea_record(&call);
  if (status != MAREA_OK) marea_release(*out);
  return status;
}

marea_status marea_lower (marea_context *ctx, marea_tensor *t, int dtype, marea_tensor **out) {
  if (!t->requires_grad || t->node) return cast(ctx, t, dtype, out);
  marea_tensor *made = NULL;
  const kept_cast *k = find(ctx->casts, t);
  if (!k || !is_fresh(k, t, dtype)) MAREA_TRY(cast_and_keep(ctx, t, dtype, &made));
  const marea_status status = record_cast(ctx, t, made ? made : k->cast, out);
  marea_release(made);
  return status;
}
