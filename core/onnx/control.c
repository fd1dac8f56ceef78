/* SPDX-License-Identifier: MIT
** control.c: ONNX's branches and loops. Which branch is taken and how often a loop runs must be known: in a program it
** is, where it depends on shapes and constants alone; otherwise the graph runs node by node (MAREA_UNKNOWN).
*/
#include "node.h"

static onnx_value **list_of_values (onnx_node *n, int count) {
  onnx_value **list = marea_onnx_room(n, count, sizeof list[0]);
  for (int i = 0; i < count && list; i++) list[i] = NULL;
  return list;
}

static void set (onnx_node *n, onnx_value **to, onnx_value *v) {
  marea_onnx_value_release(n->e, *to);
  *to = v;
}

static void free_values (onnx_node *n, onnx_value **list, int count) {
  for (int i = 0; i < count && list; i++) marea_onnx_value_release(n->e, list[i]);
  marea_free(n->e->ctx, list);
}

/* A new value for a tensor; one reference, the caller's. */
static onnx_value *owned (onnx_node *n, value *v, int type) { return marea_onnx_value_new(n, v, type); }

HANDLER(If) {
  const bool yes = marea_onnx_known_number(n, input(n, 0)) != 0;
  onnx_value **out = list_of_values(n, n->n_out);
  if (goes_on(n)) marea_onnx_run_body(n, yes ? "then_branch" : "else_branch", 0, NULL, n->n_out, out);
  for (int k = 0; k < n->n_out && goes_on(n); k++) marea_onnx_give_value(n, k, out[k]);
  free_values(n, out, n->n_out);
}

/* ---- results that are collected over the turns of a loop ---- */

static value *with_front (onnx_node *n, value *x, int dim) {
  return CALL(n, "unsqueeze", VALUES(x), NAMED(marea_int("dim", dim)));
}

/* The collected tensors along a new dimension; of no turns (0). */
static value *stacked (onnx_node *n, onnx_value *const *list, int64_t count, int64_t axis, bool reverse) {
  value *zero = NULL;
  if (count == 0) return marea_onnx_from_ints(n, 0, NULL);
  value **x = marea_onnx_room(n, count, sizeof x[0]);
  const int dim = goes_on(n) ? marea_onnx_axis(n, axis, rank_of(list[0]->v) + 1) : 0;
  for (int64_t i = 0; i < count && goes_on(n); i++)
    x[i] = with_front(n, list[reverse ? count - 1 - i : i]->v, dim);
  value *y = goes_on(n) ? marea_onnx_call(n, "concat", (int)count, x, NAMED(marea_int("dim", dim))) : zero;
  marea_free(n->e->ctx, x);
  return y;
}

/* What a loop has collected, turn by turn. */
typedef struct collection {
  onnx_value **items;
  int64_t n, room;
} collection;

/* Takes the reference. */
static void collect (onnx_node *n, collection *c, onnx_value *v) {
  if (goes_on(n) && c->n == c->room) {
    const int64_t room = c->room ? 2 * c->room : 16;
    onnx_value **items = marea_onnx_room(n, room, sizeof items[0]);
    if (items && c->n) memcpy(items, c->items, (size_t)c->n * sizeof items[0]);
    if (items) {
      marea_free(n->e->ctx, c->items);
      c->items = items;
      c->room = room;
    }
  }
  if (goes_on(n)) c->items[c->n++] = v;
  else marea_onnx_value_release(n->e, v);
}

#define MOST_COLLECTED 64

static void free_collections (onnx_node *n, collection *c, int count) {
  for (int i = 0; i < count; i++) free_values(n, c[i].items, (int)c[i].n);
}

static void check_collected (onnx_node *n, int count) {
  if (goes_on(n) && (count < 0 || count > MOST_COLLECTED))
    marea_onnx_reject(n, "%d collected results; at most %d are supported", count, MOST_COLLECTED);
}

/* With channels first, so that all turns have one layout; takes the reference. */
static onnx_value *plain (onnx_node *n, onnx_value *v) {
  if (goes_on(n) && (v->sequence || !v->v))
    marea_onnx_reject(n, "a collected result: expected a tensor, got %s",
                      v->sequence ? "a sequence" : "nothing");
  if (!goes_on(n) || !v->channels_last) return v;
  onnx_value *first = owned(n, marea_onnx_channels_last(n, v->v, true), v->type);
  marea_onnx_value_release(n->e, v);
  return first;
}

/* ---- Loop ---- */

typedef struct loop {
  int64_t most; /* turns */
  bool goes_on; /* the condition */
  int carried, collected;
  onnx_value **in;  /* of the body: turn, condition, carried */
  onnx_value **out; /* condition, carried, collected */
  collection results[MOST_COLLECTED];
} loop;

static void turn (onnx_node *n, loop *l, int64_t i) {
  const int mark = marea_emit_begin(n->e);
  set(n, &l->in[0], owned(n, marea_onnx_integer(n, i, MAREA_I64), ONNX_INT64));
  set(n, &l->in[1], owned(n, marea_onnx_scalar(n, l->goes_on, MAREA_U8), ONNX_BOOL));
  marea_onnx_run_body(n, "body", 2 + l->carried, l->in, 1 + l->carried + l->collected, l->out);
  if (goes_on(n) && l->out[0]->sequence) marea_onnx_reject(n, "its condition is a sequence");
  if (goes_on(n)) l->goes_on = marea_onnx_known_number(n, l->out[0]->v) != 0;
  for (int k = 0; k < l->carried && goes_on(n); k++) {
    set(n, &l->in[2 + k], l->out[1 + k]);
    l->out[1 + k] = NULL;
  }
  for (int k = 0; k < l->collected && goes_on(n); k++) {
    onnx_value *v = l->out[1 + l->carried + k];
    l->out[1 + l->carried + k] = NULL;
    collect(n, &l->results[k], plain(n, v));
  }
  for (int k = 0; k < 1 + l->carried + l->collected; k++) set(n, &l->out[k], NULL);
  marea_emit_end(n->e, mark);
}

static void run_loop (onnx_node *n, loop *l) {
  l->in = list_of_values(n, 2 + l->carried);
  l->out = list_of_values(n, 1 + l->carried + l->collected);
  for (int k = 0; k < l->carried && goes_on(n); k++) l->in[2 + k] = marea_onnx_value_retain(n->in[2 + k]);
  for (int64_t i = 0; goes_on(n) && l->goes_on && i < l->most && marea_onnx_may_turn(n, i); i++)
    turn(n, l, i);
  for (int k = 0; k < l->carried && goes_on(n); k++) marea_onnx_give_value(n, k, l->in[2 + k]);
  for (int k = 0; k < l->collected && goes_on(n); k++) {
    const collection *c = &l->results[k];
    value *y = stacked(n, c->items, c->n, 0, false);
    if (goes_on(n)) marea_onnx_give_as(n, l->carried + k, y, c->n ? c->items[0]->type : ONNX_INT64);
  }
}

HANDLER(Loop) {
  loop l = {.most = INT64_MAX, .goes_on = true, .carried = n->n_in - 2};
  if (l.carried < 0) marea_onnx_reject(n, "expected at least 2 inputs, got %d", n->n_in);
  l.collected = n->n_out - l.carried;
  check_collected(n, l.collected);
  if (has(n, 0)) l.most = marea_onnx_known_int(n, input(n, 0));
  if (has(n, 1)) l.goes_on = marea_onnx_known_number(n, input(n, 1)) != 0;
  for (int k = 0; k < l.carried && goes_on(n); k++)
    if (!has(n, 2 + k)) marea_onnx_reject(n, "input %d is missing", 3 + k);
  if (!goes_on(n)) return;
  run_loop(n, &l);
  free_values(n, l.in, 2 + l.carried);
  free_values(n, l.out, 1 + l.carried + l.collected);
  free_collections(n, l.results, l.collected);
}

/* ---- Scan ---- */

typedef struct scan {
  int states, scanned, collected;
  onnx_ints in_axes, out_axes, in_reverse, out_reverse;
  int64_t steps;
  onnx_value **in, **out;
  collection results[MOST_COLLECTED];
} scan;

static int64_t item (const onnx_ints *list, int i) { return i < list->n ? list->v[i] : 0; }

static value *slice_of (onnx_node *n, value *x, int dim, int64_t i) {
  return CALL(n, "select", VALUES(x), NAMED(marea_int("dim", dim), marea_int("index", i)));
}

static void step (onnx_node *n, scan *s, onnx_value *const *scanned, int64_t i) {
  const int mark = marea_emit_begin(n->e);
  for (int k = 0; k < s->scanned && goes_on(n); k++) {
    value *x = scanned[k]->v;
    const int dim = marea_onnx_axis(n, item(&s->in_axes, k), rank_of(x));
    const int64_t at = item(&s->in_reverse, k) ? s->steps - 1 - i : i;
    set(n, &s->in[s->states + k], owned(n, slice_of(n, x, dim, at), scanned[k]->type));
  }
  marea_onnx_run_body(n, "body", s->states + s->scanned, s->in, s->states + s->collected, s->out);
  for (int k = 0; k < s->states && goes_on(n); k++) {
    set(n, &s->in[k], s->out[k]);
    s->out[k] = NULL;
  }
  for (int k = 0; k < s->collected && goes_on(n); k++) {
    onnx_value *v = s->out[s->states + k];
    s->out[s->states + k] = NULL;
    collect(n, &s->results[k], plain(n, v));
  }
  for (int k = 0; k < s->states + s->collected; k++) set(n, &s->out[k], NULL);
  marea_emit_end(n->e, mark);
}

static void find_steps (onnx_node *n, scan *s, onnx_value *const *scanned) {
  for (int k = 0; k < s->scanned && goes_on(n); k++) {
    const int dim = marea_onnx_axis(n, item(&s->in_axes, k), rank_of(scanned[k]->v));
    if (!goes_on(n)) return;
    const int64_t steps = size_of(scanned[k]->v, dim);
    if (k > 0 && steps != s->steps)
      marea_onnx_reject(n, "inputs of %lld and %lld steps", (long long)s->steps, (long long)steps);
    s->steps = steps;
  }
}

/* One walk over the steps; the final states and the collected results are given as results[0..]: one reference each. */
static void walk (onnx_node *n, scan *s, onnx_value *const *states, onnx_value *const *scanned,
                  onnx_value **results) {
  find_steps(n, s, scanned);
  s->in = list_of_values(n, s->states + s->scanned);
  s->out = list_of_values(n, s->states + s->collected);
  for (int k = 0; k < s->states && goes_on(n); k++) s->in[k] = marea_onnx_value_retain(states[k]);
  for (int64_t i = 0; goes_on(n) && i < s->steps && marea_onnx_may_turn(n, i); i++) step(n, s, scanned, i);
  for (int k = 0; k < s->states && goes_on(n); k++) results[k] = marea_onnx_value_retain(s->in[k]);
  for (int k = 0; k < s->collected && goes_on(n); k++) {
    const collection *c = &s->results[k];
    value *y = stacked(n, c->items, c->n, item(&s->out_axes, k), item(&s->out_reverse, k));
    if (goes_on(n)) results[s->states + k] = owned(n, y, c->n ? c->items[0]->type : ONNX_INT64);
  }
  free_values(n, s->in, s->states + s->scanned);
  free_values(n, s->out, s->states + s->collected);
  free_collections(n, s->results, s->collected);
  s->in = s->out = NULL;
  memset(s->results, 0, sizeof s->results);
}

/* All inputs with channels first; list[0..count-1], one reference each. */
static void plain_inputs (onnx_node *n, int first, int count, onnx_value **list) {
  for (int k = 0; k < count && goes_on(n); k++) {
    value *v = input(n, first + k);
    if (goes_on(n)) list[k] = owned(n, v, n->in[first + k]->type);
  }
}

/* In operator set 8 the first dimension of everything is a batch, and the first input the lengths. */
static void scan_batch (onnx_node *n, scan *s, onnx_value *const *in, onnx_value **results) {
  const int64_t batch = rank_of(in[0]->v) ? size_of(in[0]->v, 0) : 0;
  const int count = s->states + s->collected, inputs = s->states + s->scanned;
  collection rows[MOST_COLLECTED] = {{0}};
  check_collected(n, count);
  if (rank_of(in[0]->v) == 0) marea_onnx_reject(n, "expected a batch, got one number");
  for (int64_t b = 0; b < batch && goes_on(n); b++) {
    onnx_value **row = list_of_values(n, inputs), **out = list_of_values(n, count);
    for (int k = 0; k < inputs && goes_on(n); k++)
      row[k] = owned(n, slice_of(n, in[k]->v, 0, b), in[k]->type);
    if (goes_on(n)) walk(n, s, row, row + s->states, out);
    for (int k = 0; k < count && goes_on(n); k++) {
      collect(n, &rows[k], plain(n, out[k]));
      out[k] = NULL;
    }
    free_values(n, row, inputs);
    free_values(n, out, count);
  }
  for (int k = 0; k < count && goes_on(n); k++)
    results[k] = owned(n, stacked(n, rows[k].items, rows[k].n, 0, false),
                       rows[k].n ? rows[k].items[0]->type : ONNX_FLOAT);
  free_collections(n, rows, MAREA_MIN(MAREA_MAX(count, 0), MOST_COLLECTED));
}

HANDLER(Scan) {
  const bool batched = n->version < 9;
  const int first = batched, inputs = n->n_in - first;
  const int64_t scanned = int_of(n, "num_scan_inputs", 0);
  if (scanned < 1 || scanned > inputs)
    marea_onnx_reject(n, "%lld of %d inputs are scanned", (long long)scanned, inputs);
  if (!goes_on(n)) return;
  scan s = {.scanned = (int)scanned, .states = inputs - (int)scanned};
  s.collected = n->n_out - s.states;
  check_collected(n, s.collected);
  if (batched && has(n, 0)) marea_onnx_reject(n, "lengths of sequences are not supported");
  marea_onnx_ints(n, "scan_input_axes", &s.in_axes);
  marea_onnx_ints(n, "scan_output_axes", &s.out_axes);
  marea_onnx_ints(n, batched ? "directions" : "scan_input_directions", &s.in_reverse);
  marea_onnx_ints(n, "scan_output_directions", &s.out_reverse);
  onnx_value **in = list_of_values(n, inputs), **results = list_of_values(n, n->n_out);
  if (goes_on(n)) plain_inputs(n, first, inputs, in);
  if (goes_on(n) && batched) scan_batch(n, &s, in, results);
  else if (goes_on(n)) walk(n, &s, in, in + s.states, results);
  for (int k = 0; k < n->n_out && goes_on(n); k++) marea_onnx_give_value(n, k, results[k]);
  free_values(n, in, MAREA_MAX(inputs, 0));
  free_values(n, results, n->n_out);
}
