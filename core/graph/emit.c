/* SPDX-License-Identifier: MIT
** emit.c: see emit.h. While a program is made a plan runs, so that operators with unknown inputs give planned tensors;
** where all inputs are known the plan is set aside for the call, which computes. Without a program a plan may be the
** host's, who asks what a run would cost.
*/
#include <string.h>

#include "emit.h"

/* ---- values ---- */

marea_value *marea_value_retain (marea_value *v) {
  if (v) v->refs++;
  return v;
}

void marea_value_release (marea_emitter *e, marea_value *v) {
  if (!v || --v->refs > 0) return;
  marea_release(v->t);
  marea_free(e->ctx, v);
}

int marea_emit_begin (marea_emitter *e) { return e->n_made; }

void marea_emit_end (marea_emitter *e, int mark) {
  while (e->n_made > mark) marea_value_release(e, e->made[--e->n_made]);
}

void marea_emitter_clear (marea_emitter *e) {
  marea_emit_end(e, 0);
  marea_free(e->ctx, e->made);
  e->made = NULL;
  e->room_made = 0;
}

static marea_status reserve_made (marea_emitter *e) {
  marea_value **made = marea_grown(e->ctx, e->made, e->n_made, &e->room_made, sizeof made[0]);
  if (!made) return marea_graph_out_of_memory(e->ctx);
  e->made = made;
  return MAREA_OK;
}

/* Takes a reference of t in any case. */
static marea_status new_value (marea_emitter *e, marea_tensor *t, int slot, marea_value **out) {
  marea_status status = reserve_made(e);
  marea_value *v = status == MAREA_OK ? marea_alloc(e->ctx, sizeof *v) : NULL;
  if (!v) {
    marea_release(t);
    return status == MAREA_OK ? marea_graph_out_of_memory(e->ctx) : status;
  }
  *v = (marea_value){.refs = 1, .t = t, .slot = slot};
  *out = e->made[e->n_made++] = v;
  return MAREA_OK;
}

marea_status marea_emit_keep (marea_emitter *e, marea_value *v) {
  MAREA_TRY(reserve_made(e));
  e->made[e->n_made++] = marea_value_retain(v);
  return MAREA_OK;
}

marea_status marea_emit_known (marea_emitter *e, marea_tensor *t, marea_value **out) {
  return new_value(e, t, -1, out);
}

marea_status marea_emit_input (marea_emitter *e, const marea_tensor *like, marea_value **out) {
  marea_tensor *planned;
  marea_layout layout;
  int slot;
  marea_layout_like(&layout, like);
  MAREA_TRY(marea_result_new(e->ctx, "graph", &layout, &planned));
  const marea_status status = marea_program_input(e->program, planned, &slot);
  if (status != MAREA_OK) marea_release(planned);
  return status == MAREA_OK ? new_value(e, planned, slot, out) : status;
}

/* ---- calls ---- */

static marea_status compute (marea_emitter *e, const marea_op *op, int n_in, marea_tensor *const *in,
                             const marea_attr *attr, marea_tensor **results, int *n) {
  marea_plan *plan = e->ctx->plan;
  e->ctx->plan = NULL;
  const marea_status status = marea_invoke(e->ctx, op, n_in, in, attr, results, n);
  e->ctx->plan = plan;
  return status;
}

static marea_status slot_of (marea_emitter *e, marea_value *v, int *slot) {
  if (!v) {
    *slot = -1;
    return MAREA_OK;
  }
  if (v->slot < 0) MAREA_TRY(marea_program_constant(e->program, v->t, &v->slot));
  *slot = v->slot;
  return MAREA_OK;
}

static marea_status add_call (marea_emitter *e, const marea_op *op, int n_in, marea_value *const *in,
                              const marea_attr *attr, int n, marea_tensor *const *like, int *slots) {
  int *read = marea_alloc(e->ctx, (size_t)MAREA_MAX(n_in, 1) * sizeof read[0]);
  if (!read) return marea_graph_out_of_memory(e->ctx);
  marea_status status = MAREA_OK;
  for (int i = 0; i < n_in && status == MAREA_OK; i++) status = slot_of(e, in[i], &read[i]);
  if (status == MAREA_OK) status = marea_program_add(e->program, op, attr, n_in, read, n, like, slots);
  marea_free(e->ctx, read);
  return status;
}

/* Draws are made anew by each run, so they are never folded. */
static bool folds (const marea_emitter *e, const marea_op *op, int n_in, marea_value *const *in) {
  if (e->program && op->flags & MAREA_RANDOM) return false;
  for (int i = 0; i < n_in; i++)
    if (in[i] && !marea_value_known(in[i])) return false;
  return true;
}

static marea_status apply (marea_emitter *e, const marea_op *op, int n_in, marea_value *const *in,
                           marea_tensor *const *t, const marea_attr *attr, int n_out, marea_value **out) {
  marea_tensor *results[MAREA_MAX_OUT];
  int slots[MAREA_MAX_OUT], n;
  const bool folded = folds(e, op, n_in, in), called = !folded && e->program;
  MAREA_TRY(folded ? compute(e, op, n_in, t, attr, results, &n)
                   : marea_invoke(e->ctx, op, n_in, t, attr, results, &n));
  marea_status status = called ? add_call(e, op, n_in, in, attr, n, results, slots) : MAREA_OK;
  for (int k = 0; k < n; k++) {
    if (k >= n_out || status != MAREA_OK) marea_release(results[k]);
    else status = new_value(e, results[k], called ? slots[k] : -1, &out[k]);
  }
  return status;
}

marea_status marea_emit (marea_emitter *e, const char *name, int n_in, marea_value *const *in, int n_named,
                         const marea_named *named, int n_out, marea_value **out) {
  const marea_op *op = marea_op_find(name);
  marea_attr attr[MAREA_MAX_ATTRS];
  if (!op) return marea_fail(e->ctx, MAREA_EARG, "graph: there is no operator '%.60s'", name);
  memset(attr, 0, sizeof attr);
  MAREA_TRY(marea_read_named(e->ctx, op, n_named, named, attr));
  marea_tensor *few[MAREA_MAX_IN], **t = few;
  if (n_in > MAREA_MAX_IN && !(t = marea_alloc(e->ctx, (size_t)n_in * sizeof t[0])))
    return marea_graph_out_of_memory(e->ctx);
  for (int i = 0; i < n_in; i++) t[i] = in[i] ? in[i]->t : NULL;
  const marea_status status = apply(e, op, n_in, in, t, attr, n_out, out);
  if (t != few) marea_free(e->ctx, t);
  return status;
}
