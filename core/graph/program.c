/* SPDX-License-Identifier: MIT
** program.c: a list of calls of operators for inputs of given shapes. Values lie in numbered slots; a run drops each
** one after the last call that reads it, so that memory goes from value to value by the context's pool.
*/
#include <string.h>

#include "emit.h"

marea_status marea_graph_out_of_memory (marea_context *ctx) {
  return marea_fail(ctx, MAREA_ENOMEM, "graph: out of memory");
}

void *marea_grown (marea_context *ctx, void *list, int n, int *room, size_t size) {
  if (n < *room) return list;
  const int more = *room ? 2 * *room : 16;
  void *p = marea_alloc(ctx, (size_t)more * size);
  if (!p) return NULL;
  if (n) memcpy(p, list, (size_t)n * size);
  marea_free(ctx, list);
  *room = more;
  return p;
}

#define GROW(p, list)                                                                                      \
  do {                                                                                                     \
    void *grown_ = marea_grown((p)->ctx, (p)->list, (p)->n_##list, &(p)->room_##list, sizeof(p)->list[0]); \
    if (!grown_) return marea_graph_out_of_memory((p)->ctx);                                               \
    (p)->list = grown_;                                                                                    \
  } while (0)

marea_status marea_program_new (marea_context *ctx, marea_program **out) {
  *out = marea_alloc(ctx, sizeof **out);
  if (!*out) return marea_graph_out_of_memory(ctx);
  **out = (marea_program){.ctx = ctx};
  return MAREA_OK;
}

void marea_program_free (marea_program *p) {
  if (!p) return;
  for (int i = 0; i < p->n_calls; i++) marea_free(p->ctx, p->calls[i].slot);
  for (int i = 0; i < p->n_slots; i++) marea_release(p->slots[i]);
  marea_free(p->ctx, p->calls);
  marea_free(p->ctx, p->slots);
  marea_free(p->ctx, p->layouts);
  marea_free(p->ctx, p->last);
  marea_free(p->ctx, p->inputs);
  marea_free(p->ctx, p->outputs);
  marea_free(p->ctx, p);
}

/* Of a constant, or of a value with the dtype and shape of `like`. */
static marea_status add_slot (marea_program *p, const marea_tensor *like, marea_tensor *constant, int *slot) {
  if (p->n_slots == p->room_slots) {
    int room = p->room_slots;
    marea_layout *layouts = marea_grown(p->ctx, p->layouts, p->n_slots, &room, sizeof layouts[0]);
    if (!layouts) return marea_graph_out_of_memory(p->ctx);
    p->layouts = layouts;
  }
  GROW(p, slots);
  marea_layout_like(&p->layouts[p->n_slots], like);
  p->slots[p->n_slots] = constant ? marea_retain(constant) : NULL;
  *slot = p->n_slots++;
  return MAREA_OK;
}

/* Without gaps, so that no run copies it; while a program is made a plan runs, which is set aside. */
marea_status marea_program_constant (marea_program *p, marea_tensor *t, int *slot) {
  marea_plan *plan = p->ctx->plan;
  marea_tensor *dense;
  p->ctx->plan = NULL;
  marea_status status = marea_run(p->ctx, &marea_op_contiguous, &dense, 1, t);
  p->ctx->plan = plan;
  MAREA_TRY(status);
  dense->storage->keeps_packs = true;
  status = add_slot(p, dense, dense, slot);
  marea_release(dense);
  return status;
}

marea_status marea_program_hold (marea_program *p, marea_tensor *t, int *slot) {
  return add_slot(p, t, t, slot);
}

marea_status marea_program_input (marea_program *p, const marea_tensor *like, int *slot) {
  GROW(p, inputs);
  MAREA_TRY(add_slot(p, like, NULL, slot));
  p->inputs[p->n_inputs++] = *slot;
  return MAREA_OK;
}

marea_status marea_program_output (marea_program *p, int slot) {
  GROW(p, outputs);
  p->outputs[p->n_outputs++] = slot;
  return MAREA_OK;
}

marea_status marea_program_add (marea_program *p, const marea_op *op, const marea_attr *attr, int n_in,
                                const int *in, int n_out, marea_tensor *const *like, int *out) {
  GROW(p, calls);
  for (int k = 0; k < n_out; k++) MAREA_TRY(add_slot(p, like[k], NULL, &out[k]));
  marea_program_call *c = &p->calls[p->n_calls];
  int *slot = marea_alloc(p->ctx, (size_t)(n_in + n_out) * sizeof slot[0]);
  if (!slot) return marea_graph_out_of_memory(p->ctx);
  memcpy(slot, in, (size_t)n_in * sizeof slot[0]);
  memcpy(slot + n_in, out, (size_t)n_out * sizeof slot[0]);
  *c = (marea_program_call){.op = op, .n_in = n_in, .n_out = n_out, .slot = slot, .whole = -1};
  memcpy(c->attr, attr, sizeof c->attr);
  p->n_calls++;
  return MAREA_OK;
}

marea_status marea_program_finish (marea_program *p) {
  marea_free(p->ctx, p->last);
  p->last = marea_alloc(p->ctx, (size_t)MAREA_MAX(p->n_slots, 1) * sizeof p->last[0]);
  if (!p->last) return marea_graph_out_of_memory(p->ctx);
  for (int i = 0; i < p->n_slots; i++) p->last[i] = -1;
  for (int i = 0; i < p->n_calls; i++)
    for (int k = 0; k < p->calls[i].n_in + p->calls[i].n_out; k++)
      if (p->calls[i].slot[k] >= 0) p->last[p->calls[i].slot[k]] = i;
  for (int i = 0; i < p->n_outputs; i++) p->last[p->outputs[i]] = p->n_calls;
  for (int i = 0; i < p->n_slots; i++) /* constants that have been folded */
    if (p->last[i] < 0) {
      marea_release(p->slots[i]);
      p->slots[i] = NULL;
    }
  return MAREA_OK;
}

/* ---- running ---- */

/* May the result be written over the first input? Nothing reads that later, and no other tensor shares its memory. */
static bool goes_in_place (const marea_program *p, int i, marea_tensor *const *in) {
  const marea_program_call *c = &p->calls[i];
  if (!(c->op->flags & MAREA_ELEMENTWISE) || c->n_out != 1 || p->last[c->slot[0]] != i) return false;
  const marea_layout *result = &p->layouts[c->slot[c->n_in]];
  return in[0]->refs == 1 && in[0]->storage->refs == 1 && in[0]->dtype == result->dtype &&
         marea_has_shape(in[0], result->rank, result->shape) &&
         marea_is_contiguous(in[0]->rank, in[0]->shape, in[0]->stride);
}

/* ---- results that are written into a concat's ---- */

/* *part := the place of value `slot` in the result of a concat, from `channel` on */
static marea_status place_in (const marea_program *p, marea_tensor *whole, int slot, int64_t channel,
                              marea_tensor **part) {
  const int last = whole->rank - 1;
  MAREA_TRY(marea_alias(whole, part));
  (*part)->shape[last] = p->layouts[slot].shape[last];
  (*part)->offset += channel * whole->stride[last];
  return MAREA_OK;
}

static marea_status run_into (const marea_program *p, int i, marea_tensor *const *in, marea_tensor **slots) {
  const marea_program_call *c = &p->calls[i];
  marea_tensor *part, *out[MAREA_MAX_OUT];
  int n;
  if (!slots[c->whole])
    MAREA_TRY(marea_result_new(p->ctx, "concat", &p->layouts[c->whole], &slots[c->whole]));
  MAREA_TRY(place_in(p, slots[c->whole], c->slot[c->n_in], c->channel, &part));
  p->ctx->part = part;
  const marea_status status = marea_invoke(p->ctx, c->op, c->n_in, in, c->attr, out, &n);
  p->ctx->part = NULL;
  marea_release(part);
  if (status == MAREA_OK) marea_release(out[0]);
  return status;
}

/* Copies what has not been written into the result. */
static marea_status complete (const marea_program *p, int i, marea_tensor *const *in, marea_tensor *whole) {
  const marea_program_call *c = &p->calls[i];
  int64_t channel = 0;
  for (int k = 0; k < c->n_in; k++) {
    marea_tensor *part;
    if (in[k]) {
      MAREA_TRY(place_in(p, whole, c->slot[k], channel, &part));
      marea_copy_strided(p->ctx, in[k], part);
      marea_release(part);
    }
    channel += p->layouts[c->slot[k]].shape[whole->rank - 1];
  }
  return MAREA_OK;
}

/* A trace sees the concat, and what autocast changes has other dtypes. */
static bool writes_parts (const marea_context *ctx) { return !ctx->tracer && ctx->autocast < 0; }

static marea_status run_operator (const marea_program *p, int i, marea_tensor *const *in,
                                  marea_tensor **slots) {
  const marea_program_call *c = &p->calls[i];
  marea_tensor *out[MAREA_MAX_OUT];
  int n;
  if (c->whole >= 0 && writes_parts(p->ctx)) return run_into(p, i, in, slots);
  if (c->op == &marea_op_concat && slots[c->slot[c->n_in]])
    return complete(p, i, in, slots[c->slot[c->n_in]]);
  if (goes_in_place(p, i, in)) {
    MAREA_TRY(marea_invoke_(p->ctx, c->op, c->n_in, in, c->attr));
    slots[c->slot[c->n_in]] = marea_retain(in[0]);
    return MAREA_OK;
  }
  MAREA_TRY(marea_invoke(p->ctx, c->op, c->n_in, in, c->attr, out, &n));
  for (int k = 0; k < n; k++) {
    if (k < c->n_out) slots[c->slot[c->n_in + k]] = out[k];
    else marea_release(out[k]);
  }
  return MAREA_OK;
}

static marea_status run_call (const marea_program *p, int i, marea_tensor **slots) {
  const marea_program_call *c = &p->calls[i];
  marea_tensor *few[MAREA_MAX_IN] = {NULL}, **in = few;
  if (c->n_in > MAREA_MAX_IN && !(in = marea_alloc(p->ctx, (size_t)c->n_in * sizeof in[0])))
    return marea_graph_out_of_memory(p->ctx);
  for (int k = 0; k < c->n_in; k++) in[k] = c->slot[k] < 0 ? NULL : slots[c->slot[k]];
  const marea_status status = run_operator(p, i, in, slots);
  if (in != few) marea_free(p->ctx, in);
  MAREA_TRY(status);
  for (int k = 0; k < c->n_in + c->n_out; k++) {
    const int slot = c->slot[k];
    if (slot < 0 || p->last[slot] != i) continue;
    marea_release(slots[slot]);
    slots[slot] = NULL;
  }
  return MAREA_OK;
}

/* A constant of the program is given as a copy, which the host may change. */
static marea_status take_result (const marea_program *p, int slot, marea_tensor **slots, marea_tensor **out) {
  if (p->slots[slot]) return marea_run(p->ctx, &marea_op_clone, out, 1, slots[slot]);
  *out = marea_retain(slots[slot]);
  return MAREA_OK;
}

marea_status marea_program_run (marea_program *p, marea_tensor *const *in, marea_tensor **out) {
  marea_context *ctx = p->ctx;
  marea_tensor **slots = marea_alloc(ctx, (size_t)MAREA_MAX(p->n_slots, 1) * sizeof slots[0]);
  if (!slots) return marea_graph_out_of_memory(ctx);
  for (int i = 0; i < p->n_slots; i++) slots[i] = p->slots[i] ? marea_retain(p->slots[i]) : NULL;
  for (int i = 0; i < p->n_inputs; i++) slots[p->inputs[i]] = marea_retain(in[i]);
  const bool recording = marea_set_recording(ctx, false);
  marea_status status = MAREA_OK;
  for (int i = 0; i < p->n_calls && status == MAREA_OK; i++) status = run_call(p, i, slots);
  for (int i = 0; i < p->n_outputs && status == MAREA_OK; i++)
    status = take_result(p, p->outputs[i], slots, &out[i]);
  for (int i = 0; i < p->n_outputs && status != MAREA_OK; i++) {
    marea_release(out[i]);
    out[i] = NULL;
  }
  marea_set_recording(ctx, recording);
  for (int i = 0; i < p->n_slots; i++) marea_release(slots[i]);
  marea_free(ctx, slots);
  return status;
}
