/* SPDX-License-Identifier: MIT
** blame.c: finds the operator that made the first NaN or infinity. Nothing is checked while a script runs: when a
** loss turns out to be NaN, its graph is still there. Values that the tape saved are used; the others are computed
** again, since an operator is a function of its inputs, attributes and counter. Then the search goes back from the
** result, each time to an input that is not finite, until all inputs of an operator are finite. Constants that no
** gradient reads were not saved, so they and results that depend on them (x + c) are unknown; the search goes on
** through those.
**
** During the search the slot for the gradient of a node's output holds the output's value.
*/
#include <math.h>
#include <string.h>

#include "tape.h"

#define FEW 8 /* so many inputs of a call fit in an array on the stack */

typedef struct search {
  marea_context *ctx;
  marea_node *last; /* the node that made y */
} search;

/* ---- the nodes that y depends on ---- */

static void mark (const search *s) {
  for (marea_node *node = s->last; node; node = node->prev) node->wanted = node == s->last;
  for (marea_node *node = s->last; node; node = node->prev)
    for (int i = 0; node->wanted && i < node->n_in; i++)
      if (node->io[i].node) node->io[i].node->wanted = true;
}

static marea_node *next_wanted (const search *s, marea_node *node) {
  do node = node == s->last ? NULL : node->next;
  while (node && !node->wanted);
  return node;
}

static marea_node *first_wanted (const search *s) {
  marea_node *first = NULL;
  for (marea_node *node = s->last; node; node = node->prev)
    if (node->wanted) first = node;
  return first;
}

/* ---- numbers, which the tape does not save ---- */

uint32_t marea_number_bits (const marea_tensor *t) {
  float value = 0;
  uint32_t bits;
  if (marea_is_planned(t)) return 0;
  marea_convert_run(t->ctx, 1, t->dtype, marea_at(t), 1, MAREA_F32, &value, 1);
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static bool is_number (const marea_operand *o) { return o->rank == 0 && !o->t && !o->node; }

static float number_of (const marea_operand *o) {
  float value;
  memcpy(&value, &o->version, sizeof value);
  return value;
}

/* A tensor for it; NULL: no memory. */
static marea_tensor *make_number (marea_context *ctx, const marea_operand *o) {
  marea_attr attr[3];
  marea_tensor *t;
  marea_attrs_init(&marea_op_full, attr);
  attr[0].n = 0;
  attr[1].f = (double)number_of(o);
  attr[2].i = o->dtype;
  return marea_run_with(ctx, &marea_op_full, attr, &t, 0) == MAREA_OK ? t : NULL;
}

/* ---- values ---- */

/* The tensor that the tape saved for an operand; NULL: none, or it was changed in place since. */
static marea_tensor *saved (const marea_operand *o) {
  return o->t && o->t->storage->version == o->version && !marea_is_planned(o->t) ? o->t : NULL;
}

/* The value of an input, borrowed; NULL: it is not known. */
static marea_tensor *value_of (const marea_operand *o) {
  marea_tensor *t = saved(o);
  return t || !o->node ? t : marea_node_grads(o->node)[o->slot];
}

static void set_value (marea_node *node, int slot, marea_tensor *t) {
  marea_tensor **value = &marea_node_grads(node)[slot];
  if (t && !*value) *value = marea_retain(t);
}

/* Puts saved inputs into the slots of the nodes that made them. */
static void gather_values (const search *s) {
  for (marea_node *node = first_wanted(s); node; node = next_wanted(s, node)) {
    for (int k = 0; k < node->n_out; k++) set_value(node, k, saved(&node->io[node->n_in + k]));
    for (int i = 0; i < node->n_in; i++)
      if (node->io[i].node) set_value(node->io[i].node, node->io[i].slot, saved(&node->io[i]));
  }
}

static bool is_complete (marea_node *node) {
  for (int k = 0; k < node->n_out; k++)
    if (!marea_node_grads(node)[k]) return false;
  return true;
}

/* The value of an input, or NULL; the caller owns it. */
static marea_tensor *take_value (marea_context *ctx, const marea_operand *o) {
  marea_tensor *t = value_of(o);
  if (t) return marea_retain(t);
  return is_number(o) ? make_number(ctx, o) : NULL;
}

/* in[] := the inputs, which the caller owns; false: one of them is not known. */
static bool collect_inputs (const search *s, const marea_node *node, marea_tensor **in) {
  bool all = true;
  for (int i = 0; i < node->n_in; i++) {
    in[i] = take_value(s->ctx, &node->io[i]);
    all &= in[i] || node->io[i].rank < 0;
  }
  return all;
}

static bool has_shape_of (const marea_tensor *t, const marea_operand *o, const int64_t *shape) {
  return t->dtype == o->dtype && marea_has_shape(t, o->rank, shape);
}

static void take_results (marea_node *node, marea_tensor **out, int n_out) {
  const int64_t *shape = marea_node_shapes(node);
  for (int i = 0; i < node->n_in; i++) shape += MAREA_MAX(node->io[i].rank, 0);
  for (int k = 0; k < n_out; k++) {
    const marea_operand *o = &node->io[node->n_in + k];
    if (k < node->n_out && has_shape_of(out[k], o, shape)) set_value(node, k, out[k]);
    shape += o->rank;
    marea_release(out[k]);
  }
}

/* Computes a node's outputs again. If memory runs out they stay unknown. */
static marea_status compute (const search *s, marea_node *node) {
  marea_tensor *few[FEW], **in = few, *out[MAREA_MAX_OUT];
  int n_out;
  if (node->n_in > FEW && !(in = marea_alloc(s->ctx, sizeof *in * (size_t)node->n_in))) return MAREA_OK;
  marea_status status = MAREA_OK;
  if (collect_inputs(s, node, in)) {
    const marea_random_state before = s->ctx->random;
    s->ctx->random.counter = node->counter;
    status = marea_perform(s->ctx, node->op, node->n_in, in, marea_node_attrs(node), out, &n_out);
    s->ctx->random = before;
    if (status == MAREA_OK) take_results(node, out, n_out);
  }
  for (int i = 0; i < node->n_in; i++) marea_release(in[i]);
  if (in != few) marea_free(s->ctx, in);
  return status == MAREA_EINTR ? status : MAREA_OK;
}

static marea_status complete_values (const search *s) {
  for (marea_node *node = first_wanted(s); node; node = next_wanted(s, node))
    if (node != s->last && !is_complete(node)) MAREA_TRY(compute(s, node));
  return MAREA_OK;
}

/* Releases the values of all nodes, of those that are no longer wanted, too. */
static void drop_values (const search *s) {
  for (marea_node *node = s->last; node; node = node->prev) {
    for (int k = 0; k < node->n_out; k++) {
      marea_tensor *t = marea_node_grads(node)[k];
      marea_node_grads(node)[k] = NULL;
      marea_release(t);
    }
  }
}

/* ---- the walk back ---- */

enum { FINITE, INFINITE, SUSPECT, NOT_A_NUMBER }; /* in rising order */

static int worst_of (const marea_tensor *t) {
  const int64_t n = marea_tensor_size(t);
  int worst = FINITE;
  for (int64_t i = 0; i < n && worst != NOT_A_NUMBER; i++) {
    const double value = marea_load(t->dtype, marea_at(t), i);
    if (isnan(value)) worst = NOT_A_NUMBER;
    else if (isinf(value)) worst = INFINITE;
  }
  return worst;
}

/* *worst := the worst kind of value in t. */
static marea_status look_at (marea_tensor *t, int *worst) {
  *worst = FINITE;
  if (!marea_is_float(t->dtype)) return MAREA_OK;
  if (marea_tensor_contiguous(t)) {
    *worst = worst_of(t);
    return MAREA_OK;
  }
  marea_tensor *dense;
  MAREA_TRY(marea_run(t->ctx, &marea_op_contiguous, &dense, 1, t));
  *worst = worst_of(dense);
  marea_release(dense);
  return MAREA_OK;
}

/* How suspect an input is. An unknown value is as suspect as the inputs that it was computed from. */
static marea_status suspicion (const marea_operand *o, int *level) {
  marea_tensor *t = value_of(o);
  *level = FINITE;
  if (t) return look_at(t, level);
  if (is_number(o) && !isfinite(number_of(o))) *level = isnan(number_of(o)) ? NOT_A_NUMBER : INFINITE;
  if (o->node && o->node->wanted) *level = SUSPECT;
  return MAREA_OK;
}

/* *input := the first of the most suspect inputs, -1 when all that are known are finite. */
static marea_status worst_input (const marea_node *node, int *input) {
  int most = FINITE, level;
  *input = -1;
  for (int i = 0; i < node->n_in; i++) {
    MAREA_TRY(suspicion(&node->io[i], &level));
    if (level > most) *input = i, most = level;
  }
  return MAREA_OK;
}

/* Is a result not finite, or not known while an input is suspect? */
static marea_status is_suspect (marea_node *node, bool *suspect) {
  int input, level;
  *suspect = false;
  for (int k = 0; k < node->n_out && !*suspect; k++) {
    marea_tensor *t = marea_node_grads(node)[k];
    if (t) MAREA_TRY(look_at(t, &level));
    else {
      MAREA_TRY(worst_input(node, &input));
      level = input >= 0 ? SUSPECT : FINITE;
    }
    *suspect = level > FINITE;
  }
  return MAREA_OK;
}

/* Narrows the wanted nodes to the suspect ones. */
static marea_status clear_innocent (const search *s) {
  bool suspect;
  for (marea_node *node = first_wanted(s), *next; node; node = next) {
    next = next_wanted(s, node);
    if (node == s->last) continue;
    MAREA_TRY(is_suspect(node, &suspect));
    node->wanted = suspect;
  }
  return MAREA_OK;
}

/* The first input that is not known and has a history, of an operator that is linear: its gradient needs no values,
   so it made no NaN of finite numbers. -1: none. */
static int unknown_input (const marea_node *node) {
  if (node->op->saves_in || node->op->saves_out) return -1;
  for (int i = 0; i < node->n_in; i++)
    if (node->io[i].node && !value_of(&node->io[i])) return i;
  return -1;
}

/* The parameter that was read last in computing the node's result. */
static void find_parameter (search *s, marea_blame *b) {
  mark(s);
  for (marea_node *node = s->last; node; node = node->prev) {
    for (int i = 0; node->wanted && i < node->n_in; i++) {
      marea_tensor *t = node->io[i].t;
      if (!t || !t->requires_grad || t->node) continue;
      b->parameter = marea_retain(t);
      b->own_parameter = node == s->last;
      return;
    }
  }
}

static void describe (const search *s, marea_node *node, int slot, marea_tensor *y, marea_blame *b) {
  b->op = node->op;
  b->place = node->place;
  b->n_in = MAREA_MIN(node->n_in, MAREA_BLAME_INPUTS);
  for (int i = 0; i < b->n_in; i++) {
    b->in[i] = take_value(s->ctx, &node->io[i]);
    if (!b->in[i] && node->io[i].rank >= 0) b->unknown |= 1u << i;
  }
  marea_tensor *out = node == y->node && slot == y->slot ? y : marea_node_grads(node)[slot];
  if (out) b->out = marea_retain(out);
}

static marea_status walk_back (const search *s, marea_tensor *y, marea_node **blamed, marea_blame *b) {
  marea_node *node = s->last;
  for (int slot = y->slot;;) {
    int input;
    MAREA_TRY(worst_input(node, &input));
    const int next = input >= 0 ? input : unknown_input(node);
    const marea_operand *o = &node->io[MAREA_MAX(next, 0)];
    if (next < 0 || !o->node) {
      describe(s, node, slot, y, b);
      if (input >= 0) b->given = take_value(s->ctx, o);
      if (b->given) b->given_input = input;
      *blamed = node;
      return MAREA_OK;
    }
    slot = o->slot;
    node = o->node;
  }
}

static marea_status run_search (search *s, marea_tensor *y, marea_blame *b) {
  marea_node *blamed = NULL;
  mark(s);
  gather_values(s);
  marea_status status = complete_values(s);
  if (status == MAREA_OK) status = clear_innocent(s);
  if (status == MAREA_OK) status = walk_back(s, y, &blamed, b);
  drop_values(s);
  if (status != MAREA_OK) return status;
  s->last = blamed;
  find_parameter(s, b);
  return MAREA_OK;
}

marea_status marea_find_blame (marea_tensor *y, marea_blame *b) {
  MAREA_ENTER;
  if (b) *b = (marea_blame){.given_input = -1};
  MAREA_TRY(marea_want_values(y, "blame", "y"));
  if (!b) return marea_missing(y->ctx, "blame", "blame");
  if (y->ctx->plan) return marea_fail(y->ctx, MAREA_ESTATE, "blame: a plan runs, and computes no values");
  if (!y->node) {
    b->given = marea_retain(y);
    return MAREA_OK;
  }
  search s = {y->ctx, y->node};
  const bool before = marea_set_recording(y->ctx, false);
  const int autocast = y->ctx->autocast;
  y->ctx->autocast = -1;
  marea_status status = run_search(&s, y, b);
  y->ctx->autocast = autocast;
  marea_set_recording(y->ctx, before);
  if (status != MAREA_OK) marea_blame_clear(b);
  return status;
}

void marea_blame_clear (marea_blame *b) {
  if (!b) return;
  for (int i = 0; i < b->n_in; i++) marea_release(b->in[i]);
  marea_release(b->out);
  marea_release(b->given);
  marea_release(b->parameter);
  *b = (marea_blame){.given_input = -1};
}
