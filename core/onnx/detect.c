/* SPDX-License-Identifier: MIT
** detect.c: which boxes remain when those that overlap a better one are left out.
*/
#include <stdlib.h>

#include "node.h"

typedef struct box {
  float score;
  int64_t place;
  double low[2], high[2];
} box;

static int by_score (const void *a, const void *b) {
  const box *x = a, *y = b;
  const bool nan_x = x->score != x->score, nan_y = y->score != y->score; /* NaN comes last */
  if (nan_x != nan_y) return nan_x - nan_y;
  if (!nan_x && x->score != y->score) return x->score > y->score ? -1 : 1;
  return (x->place > y->place) - (x->place < y->place);
}

static double area_of (const box *b) { return (b->high[0] - b->low[0]) * (b->high[1] - b->low[1]); }

/* What both cover, over what one of them covers. */
static double overlap (const box *a, const box *b) {
  double both = 1;
  for (int i = 0; i < 2; i++) {
    const double low = MAREA_MAX(a->low[i], b->low[i]), high = MAREA_MIN(a->high[i], b->high[i]);
    if (!(high > low)) return 0;
    both *= high - low;
  }
  const double one = area_of(a) + area_of(b) - both;
  return one > 0 ? both / one : 0;
}

/* Two corners in any order, as (y, x, y, x); or the middle and the sizes, as (x, y, width, height). */
static box read_box (const float *v, bool center, float score, int64_t place) {
  box b = {.score = score, .place = place};
  for (int i = 0; i < 2; i++) {
    const double p = (double)v[i], q = (double)v[i + 2];
    b.low[i] = center ? p - q / 2 : MAREA_MIN(p, q);
    b.high[i] = center ? p + q / 2 : MAREA_MAX(p, q);
  }
  return b;
}

typedef struct detection {
  int64_t batches, classes, places, most;
  double overlap, score;
  bool center, scored; /* is there a least score? */
  const float *boxes, *scores;
  box *room;
  int64_t *found; /* (n, 3): batch, class, place */
  int64_t n;
} detection;

static void detect_class (onnx_node *node, detection *d, int64_t batch, int64_t class) {
  const float *scores = d->scores + (batch * d->classes + class) * d->places;
  int64_t n = 0, kept = 0;
  for (int64_t i = 0; i < d->places && still(node, i); i++)
    if (!d->scored || (double)scores[i] > d->score)
      d->room[n++] = read_box(d->boxes + (batch * d->places + i) * 4, d->center, scores[i], i);
  qsort(d->room, (size_t)n, sizeof *d->room, by_score);
  for (int64_t i = 0; i < n && kept < d->most && still(node, i); i++) {
    bool alone = true;
    for (int64_t k = 0; k < kept && alone; k++) alone = !(overlap(&d->room[k], &d->room[i]) > d->overlap);
    if (!alone) continue;
    const int64_t row[] = {batch, class, d->room[i].place};
    memcpy(d->found + 3 * d->n++, row, sizeof row);
    d->room[kept++] = d->room[i];
  }
}

static double number_or (onnx_node *n, int i, double initial) {
  return has(n, i) ? marea_onnx_known_number(n, input(n, i)) : initial;
}

static bool prepare (onnx_node *n, detection *d) {
  value *boxes = marea_onnx_cast(n, input(n, 0), MAREA_F32),
        *scores = marea_onnx_cast(n, input(n, 1), MAREA_F32);
  if (!goes_on(n)) return false;
  if (rank_of(boxes) != 3 || rank_of(scores) != 3 || size_of(boxes, 2) != 4 ||
      size_of(boxes, 0) != size_of(scores, 0) || size_of(boxes, 1) != size_of(scores, 2))
    marea_onnx_reject(n,
                      "expected boxes (batch, places, 4) and scores (batch, classes, places), got %s and %s",
                      marea_tensor_text(boxes->t).s, marea_tensor_text(scores->t).s);
  const int64_t most = has(n, 2) ? marea_onnx_known_int(n, input(n, 2)) : 0;
  *d = (detection){.overlap = number_or(n, 3, 0),
                   .scored = has(n, 4),
                   .score = number_or(n, 4, 0),
                   .center = int_of(n, "center_point_box", 0)};
  const marea_tensor *b = marea_onnx_elements(n, boxes), *s = marea_onnx_elements(n, scores);
  if (!goes_on(n)) return false;
  d->batches = s->shape[0];
  d->classes = s->shape[1];
  d->places = s->shape[2];
  d->most = MAREA_MIN(MAREA_MAX(most, 0), d->places);
  d->boxes = marea_at(b);
  d->scores = marea_at(s);
  return true;
}

HANDLER(NonMaxSuppression) {
  detection d;
  if (!prepare(n, &d)) return;
  const int64_t room = d.batches * d.classes * d.most;
  d.room = marea_onnx_room(n, d.places, sizeof *d.room);
  d.found = marea_onnx_room(n, room, 3 * sizeof *d.found);
  for (int64_t b = 0; b < d.batches && goes_on(n); b++)
    for (int64_t c = 0; c < d.classes && goes_on(n); c++) detect_class(n, &d, b, c);
  value *y = marea_onnx_new(n, MAREA_I64, 2, (int64_t[]){d.n, 3});
  if (y && d.n) memcpy(marea_at(y->t), d.found, (size_t)d.n * 3 * sizeof *d.found);
  marea_free(n->e->ctx, d.room);
  marea_free(n->e->ctx, d.found);
  marea_onnx_give_as(n, 0, y, ONNX_INT64);
}
