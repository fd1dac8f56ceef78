/* SPDX-License-Identifier: MIT
** trace.c: the calls of operators that a run makes, as a program. What depends on the inputs of the run becomes a call;
** everything else is a constant with the value that it had. Every tensor that the trace knows is kept until it ends, so
** that an address stands for one tensor.
*/
#include "trace.h"

#include <string.h>

static marea_status out_of_memory (marea_context *ctx) {
  return marea_fail(ctx, MAREA_ENOMEM, "trace: out of memory");
}

/* ---- tensors and their slots ---- */

static size_t hash_of (const marea_tensor *t) { return (size_t)((uintptr_t)t >> 6) * 0x9e3779b97f4a7c15u; }

/* The place of t in the table, or the free one where it belongs. */
static int *place_of (const marea_trace *r, const marea_tensor *t) {
  const size_t mask = (size_t)r->places - 1;
  size_t i = hash_of(t) & mask;
  while (r->place[i] >= 0 && r->known[r->place[i]].t != t) i = (i + 1) & mask;
  return &r->place[i];
}

static marea_status grow (marea_trace *r) {
  const int room = r->room ? 2 * r->room : 64;
  marea_traced *known = marea_alloc(r->ctx, (size_t)room * sizeof known[0]);
  int *place = marea_alloc(r->ctx, 2 * (size_t)room * sizeof place[0]);
  if (!known || !place) {
    marea_free(r->ctx, known);
    marea_free(r->ctx, place);
    return out_of_memory(r->ctx);
  }
  if (r->n) memcpy(known, r->known, (size_t)r->n * sizeof known[0]);
  marea_free(r->ctx, r->known);
  marea_free(r->ctx, r->place);
  r->known = known;
  r->place = place;
  r->room = room;
  r->places = 2 * room;
  for (int i = 0; i < r->places; i++) place[i] = -1;
  for (int i = 0; i < r->n; i++) *place_of(r, known[i].t) = i;
  return MAREA_OK;
}

static marea_status know (marea_trace *r, marea_tensor *t, int slot) {
  if (r->n == r->room) MAREA_TRY(grow(r));
  *place_of(r, t) = r->n;
  r->known[r->n++] = (marea_traced){marea_retain(t), slot, t->storage->version};
  return MAREA_OK;
}

/* The entry of t itself, or of another handle of the same elements, as detach gives one. */
static const marea_traced *find (const marea_trace *r, const marea_tensor *t) {
  const int at = r->n ? *place_of(r, t) : -1;
  if (at >= 0) return &r->known[at];
  for (int i = 0; i < r->n; i++) {
    const marea_tensor *k = r->known[i].t;
    if (k->storage == t->storage && k->dtype == t->dtype && marea_same_layout(k, t)) return &r->known[i];
  }
  return NULL;
}

static bool is_constant (const marea_trace *r, int slot) { return r->program->slots[slot] != NULL; }

/* Does t lie in the memory of something that depends on the inputs? */
static bool shares (const marea_trace *r, const marea_tensor *t) {
  for (int i = 0; i < r->n; i++)
    if (r->known[i].t->storage == t->storage && !is_constant(r, r->known[i].slot)) return true;
  return false;
}

static bool depends (const marea_trace *r, const marea_tensor *t) {
  const marea_traced *k = find(r, t);
  return k ? !is_constant(r, k->slot) : shares(r, t);
}

static marea_status slot_of (marea_trace *r, const char *who, marea_tensor *t, int *slot) {
  const marea_traced *k = find(r, t);
  if (k) {
    *slot = k->slot;
    return MAREA_OK;
  }
  if (shares(r, t))
    return marea_fail(r->ctx, MAREA_ESTATE, "%s: %s is a part of a traced value that no operator has taken",
                      who, marea_tensor_text(t).s);
  MAREA_TRY(marea_program_hold(r->program, t, slot));
  return know(r, t, *slot);
}

/* ---- calls ---- */

static marea_status add_call (marea_trace *r, const marea_op *op, int n_in, marea_tensor *const *in,
                              const marea_attr *attrs, int n_out, marea_tensor *const *out, int *slots) {
  marea_attr attr[MAREA_MAX_ATTRS];
  int made[MAREA_MAX_OUT];
  memset(attr, 0, sizeof attr);
  if (attrs) memcpy(attr, attrs, sizeof attr[0] * (size_t)marea_op_attrs(op, NULL));
  else marea_attrs_init(op, attr);
  for (int i = 0; i < n_in; i++) {
    slots[i] = -1;
    if (in[i]) MAREA_TRY(slot_of(r, op->name, in[i], &slots[i]));
  }
  MAREA_TRY(marea_program_add(r->program, op, attr, n_in, slots, n_out, out, made));
  for (int k = 0; k < n_out; k++) MAREA_TRY(know(r, out[k], made[k]));
  return MAREA_OK;
}

static marea_status append (marea_trace *r, const marea_op *op, int n_in, marea_tensor *const *in,
                            const marea_attr *attrs, int n_out, marea_tensor *const *out) {
  bool wanted = op->flags & MAREA_RANDOM;
  for (int i = 0; i < n_in && !wanted; i++) wanted = in[i] && depends(r, in[i]);
  if (!wanted) return MAREA_OK;
  int *slots = marea_alloc(r->ctx, (size_t)MAREA_MAX(n_in, 1) * sizeof slots[0]);
  if (!slots) return out_of_memory(r->ctx);
  const marea_status status = add_call(r, op, n_in, in, attrs, n_out, out, slots);
  marea_free(r->ctx, slots);
  return status;
}

marea_status marea_trace_change (marea_trace *r, const char *name, int n_in, marea_tensor *const *in) {
  for (int i = 0; i < n_in; i++)
    if (in[i] && (find(r, in[i]) || shares(r, in[i])))
      return marea_fail(
          r->ctx, MAREA_ESTATE,
          "%s: it changes a tensor in place, which cannot be traced; take the form that gives a "
          "new tensor, and a network in evaluation (net:evaluate())",
          name);
  return MAREA_OK;
}

marea_status marea_trace_apply (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                                const marea_attr *attrs, marea_tensor **out, int *n_out) {
  marea_trace *r = ctx->tracer;
  *n_out = 0;
  if (op->flags & MAREA_MUTATES) MAREA_TRY(marea_trace_change(r, op->name, n_in, in));
  ctx->tracer = NULL;
  marea_status status = marea_invoke(ctx, op, n_in, in, attrs, out, n_out);
  ctx->tracer = r;
  if (status != MAREA_OK || op->flags & MAREA_MUTATES) return status;
  status = append(r, op, n_in, in, attrs, *n_out, out);
  for (int k = 0; k < *n_out && status != MAREA_OK; k++) {
    marea_release(out[k]);
    out[k] = NULL;
  }
  if (status != MAREA_OK) *n_out = 0;
  return status;
}

/* ---- beginning and end ---- */

static void forget (marea_trace *r) {
  for (int i = 0; i < r->n; i++) marea_release(r->known[i].t);
  marea_free(r->ctx, r->known);
  marea_free(r->ctx, r->place);
  r->known = NULL;
  r->place = NULL;
  r->n = r->room = r->places = 0;
}

void marea_trace_free (marea_trace *r) {
  if (!r) return;
  MAREA_ENTER;
  marea_context *ctx = r->ctx;
  if (ctx->tracer == r) ctx->tracer = NULL;
  forget(r);
  marea_program_free(r->program);
  marea_free(ctx, r);
}

static marea_status begin (marea_trace *r, int n_in, marea_tensor *const *in) {
  int slot;
  MAREA_TRY(marea_program_new(r->ctx, &r->program));
  for (int i = 0; i < n_in; i++) {
    MAREA_TRY(marea_want_tensor(r->ctx, "trace_start", "in", in[i]));
    MAREA_TRY(marea_want_values(in[i], "trace_start", "in"));
    if (find(r, in[i]) || shares(r, in[i]))
      return marea_fail(r->ctx, MAREA_EARG, "trace_start: two inputs lie in the same memory");
    MAREA_TRY(marea_program_input(r->program, in[i], &slot));
    MAREA_TRY(know(r, in[i], slot));
  }
  return MAREA_OK;
}

marea_status marea_trace_start (marea_context *ctx, int n_in, marea_tensor *const *in) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "trace_start", ctx);
  MAREA_TRY(marea_want_list(ctx, "trace_start", "in", n_in, in));
  if (ctx->tracer) return marea_fail(ctx, MAREA_ESTATE, "trace_start: a trace runs already");
  marea_trace *r = marea_alloc(ctx, sizeof *r);
  if (!r) return out_of_memory(ctx);
  *r = (marea_trace){.ctx = ctx};
  const marea_status status = begin(r, n_in, in);
  if (status == MAREA_OK) ctx->tracer = r;
  else marea_trace_free(r);
  return status;
}

/* Constants have the value that they had when they were read first. */
static marea_status check_constants (const marea_trace *r) {
  for (int i = 0; i < r->n; i++)
    if (r->known[i].t->storage->version != r->known[i].version)
      return marea_fail(r->ctx, MAREA_ESTATE, "trace_stop: %s has been changed in place",
                        marea_tensor_text(r->known[i].t).s);
  return MAREA_OK;
}

static marea_status end (marea_trace *r, int n_out, marea_tensor *const *out) {
  int slot;
  MAREA_TRY(check_constants(r));
  for (int k = 0; k < n_out; k++) {
    MAREA_TRY(marea_want_tensor(r->ctx, "trace_stop", "results", out[k]));
    MAREA_TRY(slot_of(r, "trace_stop", out[k], &slot));
    MAREA_TRY(marea_program_output(r->program, slot));
  }
  return marea_program_finish(r->program);
}

marea_status marea_trace_stop (marea_context *ctx, int n, marea_tensor *const *results, marea_trace **trace) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "trace_stop", ctx);
  MAREA_WANT_OR_RETURN(ctx, "trace_stop", trace);
  *trace = NULL;
  marea_trace *r = ctx->tracer;
  if (!r) return marea_fail(ctx, MAREA_ESTATE, "trace_stop: no trace runs");
  marea_status status = marea_want_list(ctx, "trace_stop", "results", n, results);
  ctx->tracer = NULL;
  if (status == MAREA_OK) status = end(r, n, results);
  forget(r);
  if (status == MAREA_OK) *trace = r;
  else marea_trace_free(r);
  return status;
}

void marea_trace_drop (marea_context *ctx) {
  if (ctx) marea_trace_free(ctx->tracer);
}
