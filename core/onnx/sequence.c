/* SPDX-License-Identifier: MIT
** sequence.c: ONNX's sequences of tensors, and values that may be missing. How long a sequence is, and where in it
** something is put, is known when the graph is walked over.
*/
#include "window.h"

static onnx_value *sequence_at (onnx_node *n, int i) {
  if (!goes_on(n)) return NULL;
  if (!has(n, i) || !n->in[i]->sequence) marea_onnx_reject(n, "input %d: expected a sequence", i + 1);
  return goes_on(n) ? n->in[i] : NULL;
}

/* A sequence with room for `count` items, which are to be set; one reference, the caller's. */
static onnx_value *new_sequence (onnx_node *n, int count, int type) {
  onnx_value *s = marea_onnx_value_new(n, NULL, type);
  if (!s) return NULL;
  s->sequence = true;
  s->items = marea_onnx_room(n, count, sizeof s->items[0]);
  if (s->items) return s;
  marea_onnx_value_release(n->e, s);
  return NULL;
}

/* Items are tensors: neither sequences nor nothing. */
static void append (onnx_node *n, onnx_value *s, onnx_value *v) {
  if (goes_on(n) && (v->sequence || !v->v))
    marea_onnx_reject(n, "item %d of a sequence: expected a tensor, got %s", s->n + 1,
                      v->sequence ? "a sequence" : "nothing");
  if (goes_on(n)) s->items[s->n++] = marea_onnx_value_retain(v);
}

static void give_sequence (onnx_node *n, int k, onnx_value *s) {
  if (s) marea_onnx_give_value(n, k, s);
  marea_onnx_value_release(n->e, s);
}

/* Position in a sequence of `count` items, negative from the end, at most `most`, which is where it is if it is left out. */
static int place_of (onnx_node *n, int i, int count, int most) {
  const int64_t at = has(n, i) ? marea_onnx_known_int(n, input(n, i)) : most;
  if (goes_on(n) && (at < -count || at > most))
    marea_onnx_reject(n, "position %lld of a sequence of %d", (long long)at, count);
  return goes_on(n) ? (int)(at < 0 ? at + count : at) : 0;
}

HANDLER(SequenceEmpty) { give_sequence(n, 0, new_sequence(n, 0, (int)int_of(n, "dtype", ONNX_FLOAT))); }

HANDLER(SequenceConstruct) {
  for (int i = 0; i < n->n_in; i++)
    if (!has(n, i)) marea_onnx_reject(n, "input %d is missing", i + 1);
  onnx_value *s = goes_on(n) ? new_sequence(n, n->n_in, n->n_in ? n->in[0]->type : ONNX_FLOAT) : NULL;
  for (int i = 0; i < n->n_in && s; i++) append(n, s, n->in[i]);
  give_sequence(n, 0, s);
}

HANDLER(SequenceInsert) {
  const onnx_value *old = sequence_at(n, 0);
  if (!has(n, 1)) marea_onnx_reject(n, "input 2 is missing");
  if (!goes_on(n)) return;
  const int at = place_of(n, 2, old->n, old->n);
  onnx_value *s = new_sequence(n, old->n + 1, old->type);
  for (int i = 0; i <= old->n && s; i++) append(n, s, i == at ? n->in[1] : old->items[i - (i > at)]);
  give_sequence(n, 0, s);
}

HANDLER(SequenceErase) {
  const onnx_value *old = sequence_at(n, 0);
  if (!goes_on(n)) return;
  const int at = place_of(n, 1, old->n, old->n - 1);
  onnx_value *s = new_sequence(n, old->n, old->type);
  for (int i = 0; i < old->n && s; i++)
    if (i != at) append(n, s, old->items[i]);
  give_sequence(n, 0, s);
}

HANDLER(SequenceAt) {
  const onnx_value *s = sequence_at(n, 0);
  if (!goes_on(n)) return;
  const int at = place_of(n, 1, s->n, s->n - 1);
  if (goes_on(n)) marea_onnx_give_value(n, 0, s->items[at]);
}

HANDLER(SequenceLength) {
  const onnx_value *s = sequence_at(n, 0);
  if (s) marea_onnx_give_as(n, 0, marea_onnx_integer(n, s->n, MAREA_I64), ONNX_INT64);
}

/* An item with channels first. */
static value *item (onnx_node *n, const onnx_value *v) {
  if (!goes_on(n)) return NULL;
  return v->channels_last ? marea_onnx_channels_last(n, v->v, true) : v->v;
}

HANDLER(ConcatFromSequence) {
  const onnx_value *s = sequence_at(n, 0);
  if (s && s->n == 0) marea_onnx_reject(n, "the sequence is empty");
  if (!goes_on(n)) return;
  const bool stacks = int_of(n, "new_axis", 0);
  const int rank = rank_of(s->items[0]->v) + stacks, dim = marea_onnx_axis(n, int_of(n, "axis", 0), rank);
  value **x = marea_onnx_room(n, s->n, sizeof x[0]);
  for (int i = 0; i < s->n && goes_on(n); i++) {
    x[i] = item(n, s->items[i]);
    if (stacks) x[i] = CALL(n, "unsqueeze", VALUES(x[i]), NAMED(marea_int("dim", dim)));
  }
  value *y = goes_on(n) ? marea_onnx_call(n, "concat", s->n, x, NAMED(marea_int("dim", dim))) : NULL;
  marea_free(n->e->ctx, x);
  if (goes_on(n)) marea_onnx_give_as(n, 0, y, s->items[0]->type);
}

/* The sizes of the parts: of one number, all have that but the last. */
static void find_parts (onnx_node *n, int64_t size, onnx_ints *parts) {
  onnx_ints given = {.n = 0};
  if (has(n, 1)) marea_onnx_known_ints(n, input(n, 1), &given);
  const bool one = !has(n, 1) || rank_of(n->in[1]->v) == 0;
  const int64_t asked = has(n, 1) && given.n > 0 ? given.v[0] : 1,
                each = MAREA_MIN(asked, MAREA_MAX(size, 1));
  if (!one) *parts = given;
  if (!one) marea_onnx_are_parts(n, parts, size);
  if (!goes_on(n) || !one) return;
  if (each < 1) marea_onnx_reject(n, "parts of %lld elements", (long long)each);
  else if ((size + each - 1) / each > ONNX_MOST_INTS) marea_onnx_reject(n, "too many parts");
  for (parts->n = 0; goes_on(n) && parts->n * each < size; parts->n++)
    parts->v[parts->n] = MAREA_MIN(each, size - parts->n * each);
}

HANDLER(SplitToSequence) {
  value *x = input(n, 0);
  const int dim = marea_onnx_axis(n, int_of(n, "axis", 0), rank_of(x));
  onnx_ints parts = {.n = 0};
  if (goes_on(n)) find_parts(n, size_of(x, dim), &parts);
  const bool squeezes = !has(n, 1) && !int_of(n, "keepdims", 1);
  onnx_value *s = goes_on(n) ? new_sequence(n, parts.n, n->in[0]->type) : NULL;
  for (int64_t i = 0, at = 0; s && i < parts.n && goes_on(n); at += parts.v[i++]) {
    value *part = CALL(n, "narrow", VALUES(x),
                       NAMED(marea_int("dim", dim), marea_int("start", at), marea_int("length", parts.v[i])));
    if (squeezes) part = CALL(n, "squeeze", VALUES(part), NAMED(marea_int("dim", dim)));
    onnx_value *v = marea_onnx_value_new(n, part, n->in[0]->type);
    if (v) append(n, s, v);
    marea_onnx_value_release(n->e, v);
  }
  give_sequence(n, 0, s);
}

/* The body for the items of the first sequence, and of other ones; tensors beside them are given each time. */
HANDLER(SequenceMap) {
  enum { MOST = 16 };
  const onnx_value *first = sequence_at(n, 0);
  onnx_value *in[MOST], *out[MOST], *made[MOST] = {NULL};
  if (n->n_in > MOST || n->n_out > MOST)
    marea_onnx_reject(n, "at most %d inputs and results are supported", MOST);
  for (int k = 0; k < n->n_in && goes_on(n); k++)
    if (!has(n, k) || (n->in[k]->sequence && n->in[k]->n != first->n))
      marea_onnx_reject(n, "input %d: expected a sequence of %d", k + 1, first->n);
  for (int k = 0; k < n->n_out && goes_on(n); k++) made[k] = new_sequence(n, first->n, ONNX_FLOAT);
  for (int i = 0; goes_on(n) && i < first->n && marea_onnx_may_turn(n, i); i++) {
    for (int k = 0; k < n->n_in; k++) in[k] = n->in[k]->sequence ? n->in[k]->items[i] : n->in[k];
    marea_onnx_run_body(n, "body", n->n_in, in, n->n_out, out);
    for (int k = 0; k < n->n_out && goes_on(n); k++) {
      append(n, made[k], out[k]);
      made[k]->type = out[k]->type;
    }
    for (int k = 0; k < n->n_out; k++) marea_onnx_value_release(n->e, out[k]);
  }
  for (int k = 0; k < MAREA_MIN(n->n_out, MOST); k++) give_sequence(n, k, made[k]);
}

/* ---- what may be missing: a value without a tensor ---- */

static bool is_empty (const onnx_value *v) { return !v || (!v->sequence && !v->v); }

HANDLER(Optional) {
  if (has(n, 0)) {
    marea_onnx_give_value(n, 0, n->in[0]);
    return;
  }
  onnx_value *none = marea_onnx_value_new(n, NULL, ONNX_FLOAT);
  marea_onnx_give_value(n, 0, none);
  marea_onnx_value_release(n->e, none);
}

HANDLER(OptionalHasElement) {
  const bool there = has(n, 0) && !is_empty(n->in[0]);
  marea_onnx_give_as(n, 0, marea_onnx_scalar(n, there, MAREA_U8), ONNX_BOOL);
}

HANDLER(OptionalGetElement) {
  if (!has(n, 0) || is_empty(n->in[0])) marea_onnx_reject(n, "the value is missing");
  else marea_onnx_give_value(n, 0, n->in[0]);
}
