/* SPDX-License-Identifier: MIT
** update.c: one operator on many lists of tensors, as an optimizer's step on all parameters: they are one job of the
** threads, and what is cut into blocks is each of them, so that an element has the bits of a call of its own.
**
** The calls run one after the other, and leave their blocks to the job (marea_put_off). So all of them have been
** checked before any tensor changes.
*/
#include <string.h>

#include "core.h"

struct marea_updates {
  int n;
  int64_t blocks, elements;
  marea_update *of;
};

static void add_blocks (marea_updates *all, const marea_update *u) {
  marea_update *mine = &all->of[all->n++];
  *mine = *u;
  mine->first = all->blocks;
  all->blocks += u->blocks;
}

bool marea_put_off (marea_context *ctx, const marea_update *u) {
  if (!ctx->updates) return false;
  add_blocks(ctx->updates, u);
  return true;
}

/* The last update that begins at or before the block */
static void run_block (void *arg, int64_t block, int worker) {
  const marea_updates *all = arg;
  int low = 0, high = all->n;
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    if (all->of[middle].first <= block) low = middle;
    else high = middle;
  }
  marea_update *u = &all->of[low];
  u->run(u, block - u->first, worker);
}

/* ---- may the lists be one job? ---- */

static bool is_changed (const marea_op *op, int i) { return op->mutates >> i & 1; }

/* Does a tensor that is changed share its memory with one of another list, or in[i] with one that is changed? */
static bool is_shared (const marea_op *op, int each, int n_in, marea_tensor *const *in) {
  bool shared = false;
  for (int i = 0; i < n_in; i++) {
    if (!in[i] || !is_changed(op, i % each)) continue;
    shared |= in[i]->storage->taken;
    in[i]->storage->taken = true;
  }
  for (int i = 0; i < n_in; i++)
    if (in[i] && !is_changed(op, i % each)) shared |= in[i]->storage->taken;
  for (int i = 0; i < n_in; i++)
    if (in[i]) in[i]->storage->taken = false;
  return shared;
}

/* Profiles, plans and budgets want one call after the other. */
static bool is_one_job (const marea_context *ctx, const marea_op *op, int each, int n_in,
                        marea_tensor *const *in) {
  if (!(op->flags & MAREA_PUTS_OFF) || ctx->profile || ctx->plan || ctx->limited) return false;
  return !is_shared(op, each, n_in, in);
}

/* ---- the calls ---- */

static void count_back (const marea_op *op, int each, int n_in, marea_tensor *const *in) {
  for (int i = 0; i < n_in; i++)
    if (in[i] && is_changed(op, i % each)) in[i]->storage->version--;
}

static marea_status put_off (marea_context *ctx, const marea_op *op, int each, int n_in,
                             marea_tensor *const *in, const marea_attr *attrs, marea_updates *all) {
  marea_status status = MAREA_OK;
  int at = 0, n_out;
  ctx->updates = all;
  for (; at < n_in && status == MAREA_OK; at += each) {
    all->elements += in[at] ? marea_tensor_size(in[at]) : 0;
    status = marea_perform(ctx, op, each, in + at, attrs, NULL, &n_out);
  }
  ctx->updates = NULL;
  if (status != MAREA_OK) count_back(op, each, at - each, in);
  return status;
}

static marea_status run_together (marea_context *ctx, const marea_op *op, int each, int n_in,
                                  marea_tensor *const *in, const marea_attr *attrs) {
  const size_t bytes = (size_t)(n_in / each) * sizeof(marea_update);
  marea_updates all = {.of = marea_alloc(ctx, bytes)};
  if (!all.of) return marea_out_of_memory(ctx, op->name, bytes, "a list of updates");
  marea_status status = put_off(ctx, op, each, n_in, in, attrs, &all);
  const bool outer = ctx->changing;
  ctx->changing = true;
  if (status == MAREA_OK) marea_parallel_if(ctx, all.elements, all.blocks, run_block, &all);
  ctx->changing = outer;
  for (int i = 0; i < all.n; i++) marea_free(ctx, all.of[i].rows);
  marea_free(ctx, all.of);
  return status;
}

static marea_status run_in_turn (marea_context *ctx, const marea_op *op, int each, int n_in,
                                 marea_tensor *const *in, const marea_attr *attrs, int *done) {
  for (int n_out; *done < n_in / each; ++*done) {
    marea_tensor *const *list = in + *done * each;
    if (op->flags & MAREA_MUTATES) MAREA_TRY(marea_invoke(ctx, op, each, list, attrs, NULL, &n_out));
    else MAREA_TRY(marea_invoke_(ctx, op, each, list, attrs));
  }
  return MAREA_OK;
}

static marea_status check_each (marea_context *ctx, const marea_op *op, int each, int n_in,
                                marea_tensor *const *in, const marea_attr *attrs) {
  MAREA_TRY(marea_want_list(ctx, op->name, "in", n_in, in));
  if (each < 1 || n_in % each != 0)
    return marea_fail(ctx, MAREA_EARG, "%s: argument 'each': %d tensors are no lists of %d", op->name, n_in,
                      each);
  if (!(op->flags & (MAREA_MUTATES | MAREA_ELEMENTWISE)))
    return marea_fail(ctx, MAREA_EARG, "%s: has no form in place", op->name);
  for (int i = 0; i < n_in; i++)
    if (in[i]) MAREA_TRY(marea_want_tensor(ctx, op->name, "in", in[i]));
  return attrs ? marea_check_attrs(ctx, op, attrs) : MAREA_OK;
}

marea_status marea_apply_each (marea_context *ctx, const marea_op *op, int each, int n_in,
                               marea_tensor *const *in, const marea_attr *attrs, int *done) {
  MAREA_ENTER;
  if (done) *done = 0;
  MAREA_WANT_OR_RETURN(NULL, "apply_each", ctx);
  MAREA_WANT_OR_RETURN(ctx, "apply_each", op);
  MAREA_WANT_OR_RETURN(ctx, op->name, done);
  MAREA_TRY(check_each(ctx, op, each, n_in, in, attrs));
  if (!is_one_job(ctx, op, each, n_in, in)) return run_in_turn(ctx, op, each, n_in, in, attrs, done);
  MAREA_TRY(run_together(ctx, op, each, n_in, in, attrs));
  *done = n_in / each;
  return MAREA_OK;
}
