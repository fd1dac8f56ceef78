/* SPDX-License-Identifier: MIT
** plan.c: a shape-only run, which tells what a script would cost. While a plan runs, operators are called by
** marea_apply as always, but nothing is computed and their results have shapes and no elements. The bytes that the
** elements would take count as in use from the call to the release. The backward pass is made of the same calls, and
** operators with much workspace count that, too (MAREA_SHAPE_ONLY). So live and peak bytes are those of a real run.
**
** A plan changes no values. Gradients of tensors that existed before it are restored at its end.
*/
#include "memory.h"

/* A gradient to restore. */
typedef struct note {
  struct note *next;
  marea_tensor *leaf, *grad; /* grad may be NULL */
} note;

struct marea_plan {
  size_t planned; /* bytes of planned tensors in use */
  size_t peak;    /* peak of the context before the plan */
  marea_random_state random;
  note *notes; /* the newest first */
};

marea_status marea_plan_start (marea_context *ctx) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(ctx, "plan", ctx);
  if (ctx->plan) return marea_fail(ctx, MAREA_ESTATE, "plan: one is running already");
  marea_plan *p = marea_alloc(ctx, sizeof *p);
  if (!p) return marea_fail(ctx, MAREA_ENOMEM, "plan: out of memory");
  *p = (marea_plan){.peak = marea_memory(ctx).peak, .random = ctx->random};
  ctx->plans++;
  ctx->plan = p;
  marea_memory_reset_peak(ctx);
  return MAREA_OK;
}

static void restore_gradients (marea_context *ctx, marea_plan *p) {
  while (p->notes) {
    note *n = p->notes;
    marea_tensor *planned = n->leaf->grad;
    p->notes = n->next;
    n->leaf->grad = n->grad;
    marea_release(planned);
    marea_release(n->leaf);
    marea_free(ctx, n);
  }
}

void marea_plan_stop (marea_context *ctx) {
  marea_plan *p = ctx ? ctx->plan : NULL;
  if (!p) return;
  restore_gradients(ctx, p);
  ctx->plan = NULL;
  ctx->random = p->random;
  marea_memory_end_plan(ctx, p->peak);
  marea_free(ctx, p);
}

bool marea_planning (const marea_context *ctx) { return ctx && ctx->plan; }

bool marea_is_planned (const marea_tensor *t) { return t && t->storage->planned; }

void marea_plan_take (marea_context *ctx, size_t bytes) {
  ctx->plan->planned += bytes;
  marea_memory_plan(ctx, ctx->plan->planned);
}

void marea_plan_give (marea_context *ctx, size_t bytes) {
  ctx->plan->planned -= bytes;
  marea_memory_plan(ctx, ctx->plan->planned);
}

marea_status marea_scratch (marea_context *ctx, int n, const size_t bytes[], char **memory, void *part[]) {
  size_t all = 0;
  *memory = NULL;
  for (int i = 0; i < n; i++) all += marea_aligned(bytes[i]);
  if (ctx->shape_only) {
    marea_plan_take(ctx, marea_block_size(all));
    marea_plan_give(ctx, marea_block_size(all));
    return MAREA_OK;
  }
  if (all > 0 && !(*memory = marea_alloc(ctx, all)))
    return marea_out_of_memory(ctx, "matmul", all, "scratch space");
  char *at = *memory;
  for (int i = 0; i < n; at += marea_aligned(bytes[i]), i++) part[i] = bytes[i] > 0 ? at : NULL;
  return MAREA_OK;
}

marea_status marea_plan_note (marea_tensor *leaf) {
  marea_context *ctx = leaf->ctx;
  if (marea_is_planned(leaf) || (leaf->grad && marea_is_planned(leaf->grad))) return MAREA_OK;
  note *n = marea_alloc(ctx, sizeof *n);
  if (!n) return marea_fail(ctx, MAREA_ENOMEM, "plan: out of memory");
  *n = (note){ctx->plan->notes, marea_retain(leaf), leaf->grad ? marea_retain(leaf->grad) : NULL};
  ctx->plan->notes = n;
  return MAREA_OK;
}
