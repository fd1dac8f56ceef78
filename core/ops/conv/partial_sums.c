/* SPDX-License-Identifier: MIT
** partial_sums.c: the reduction tree of weight gradients.
*/
#include <string.h>

#include "partial_sums.h"

marea_status marea_partial_sums_open (marea_call *c, marea_partial_sums *s) {
  const int64_t sums = s->parts - (s->first != NULL), size[] = {sums, s->rows, s->width};
  const int64_t pairs[] = {s->parts, s->cuts};
  size_t bytes;
  if (sums > 0) {
    MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, size, s->size, &bytes));
    MAREA_WORKSPACE_OR_RETURN(c, s->rest, bytes);
    if (!s->first) {
      s->first = s->rest;
      s->rest += (size_t)(s->rows * s->width) * s->size;
    }
  }
  if (s->parts == 1) return MAREA_OK;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, pairs, sizeof *s->complete, &bytes));
  MAREA_TABLE_OR_RETURN(c, s->complete, bytes);
  for (int64_t i = 0; i < s->parts * s->cuts; i++) atomic_init(&s->complete[i], 0);
  return MAREA_OK;
}

static char *sum_of (const marea_partial_sums *s, int64_t part) {
  return part == 0 ? s->first : s->rest + (size_t)((part - 1) * s->rows * s->width) * s->size;
}

/* The elements of a cut. */
static marea_range cut_of (const marea_partial_sums *s, int64_t cut) {
  return (marea_range){cut * s->rows / s->cuts * s->width, (cut + 1) * s->rows / s->cuts * s->width};
}

marea_sum marea_partial_sums_begin (const marea_partial_sums *s, int64_t part, int64_t cut) {
  char *sum = sum_of(s, part);
  if (s->overwritten) return (marea_sum){sum, true};
  const marea_range elements = cut_of(s, cut);
  memset(sum + (size_t)elements.first * s->size, 0, (size_t)(elements.end - elements.first) * s->size);
  return (marea_sum){sum, false};
}

void marea_partial_sums_complete (const marea_partial_sums *s, const marea_kernels *k, int64_t part,
                                  int64_t cut) {
  const marea_range elements = cut_of(s, cut);
  const size_t n = (size_t)(elements.end - elements.first), at = (size_t)elements.first * s->size;
  for (int64_t step = 1; step < s->parts; step *= 2) {
    const int64_t left = part / (2 * step) * (2 * step), right = left + step;
    part = left;
    if (right >= s->parts) continue;
    if (atomic_fetch_add(&s->complete[cut * s->parts + right], 1) == 0) return;
    char *to = sum_of(s, left) + at;
    k->add(n, to, 1, sum_of(s, right) + at, 1, to, NULL);
  }
}
