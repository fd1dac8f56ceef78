/* SPDX-License-Identifier: MIT
** truth.c: is any element other than 0, are all? Blocks search for an element that decides the answer and write it; the
** answer is the same whichever block finds one, and other blocks of the same result then stop their search.
*/
#include <string.h>

#include "reduce.h"

#define WIDTH 512 /* columns of a unit: hits of 512 bytes on the stack */

typedef struct search {
  marea_binary_kernel *decides; /* ne for any, eq for all, against 0 */
  marea_reduction f;
  size_t size;
  int64_t rows, chunks, tiles; /* rows of a unit, units in a column and in a row */
  uint8_t found;
  uint8_t *y;
} search;

static bool is_decided (const uint8_t *y, uint8_t found) {
  return __atomic_load_n(y, __ATOMIC_RELAXED) == found;
}

/* n elements beside each other, all of one result or one of each */
static void look_at (const search *s, size_t n, const char *x, uint8_t *y, bool one) {
  static const double zero = 0; /* all bits 0: of every dtype */
  uint8_t hit[WIDTH];
  s->decides(n, x, 1, &zero, 0, hit, NULL);
  for (size_t i = 0; i < n; i++)
    if (hit[i]) __atomic_store_n(one ? y : y + i, s->found, __ATOMIC_RELAXED);
}

static void search_unit (void *arg, int64_t unit, int worker) {
  const search *s = arg;
  const int64_t inner = s->f.inner, first = unit % s->tiles * WIDTH, w = MAREA_MIN(WIDTH, inner - first);
  const int64_t r0 = unit / s->tiles % s->chunks * s->rows, o = unit / s->tiles / s->chunks;
  const int64_t r1 = MAREA_MIN(r0 + s->rows, s->f.count);
  const char *x = (const char *)s->f.x + (size_t)((o * s->f.count + r0) * inner + first) * s->size;
  uint8_t *y = s->y + o * inner + first;
  (void)worker;
  if (inner > 1) {
    for (int64_t r = r0; r < r1; r++, x += (size_t)inner * s->size) look_at(s, (size_t)w, x, y, false);
    return;
  }
  for (int64_t r = r0; r < r1 && !is_decided(y, s->found); r += WIDTH, x += WIDTH * s->size)
    look_at(s, (size_t)MAREA_MIN(WIDTH, r1 - r), x, y, true);
}

static marea_status truth_shape (marea_call *c) {
  MAREA_TRY(dims_shape(c));
  c->layout[0].dtype = MAREA_U8;
  return MAREA_OK;
}

static marea_status look_for (marea_call *c, marea_binary_kernel *decides, uint8_t found) {
  search s = {.decides = decides, .found = found, .y = marea_at(c->out[0])};
  MAREA_TRY(reduction_of(c, &s.f));
  const int64_t results = s.f.outer * s.f.inner;
  memset(s.y, !found, (size_t)results);
  if (results * s.f.count == 0) return MAREA_OK;
  s.size = marea_dtype_size((marea_dtype)s.f.dtype);
  s.rows = MAREA_MAX(1, MAREA_BLOCK / MAREA_MIN(WIDTH, s.f.inner));
  s.chunks = (s.f.count - 1) / s.rows + 1;
  s.tiles = (s.f.inner - 1) / WIDTH + 1;
  marea_parallel_if(c->ctx, results * s.f.count, s.f.outer * s.chunks * s.tiles, search_unit, &s);
  return MAREA_OK;
}

static marea_status any_forward (marea_call *c) {
  return look_for(c, c->ctx->kernels[c->in[0]->dtype]->ne, 1);
}

static marea_status all_forward (marea_call *c) {
  return look_for(c, c->ctx->kernels[c->in[0]->dtype]->eq, 0);
}

#define TRUTH(op, text)                                                                             \
  REDUCTION(op), OVER_DIMS,                                                                         \
      .flags = MAREA_NO_GRAD, .dtypes = MAREA_ANY, .shape = truth_shape,                            \
      .sample = "local s = g.shape(0, 4) " SOME_DIMS                                                \
                "return {g.mask(s):to(g.dtype)}, {dims = some, keepdim = g.bool()}",                \
      .doc = #op                                                                                    \
      "(x, dims, keepdim): " text                                                                   \
      " over dims? u8, 1 or 0. Every dtype; NaN is not 0. The result is a constant for gradients. " \
      "Errors: a dimension out of range or listed twice."

const marea_op marea_op_any = {TRUTH(any, "is an element other than 0 (0 of no elements)")};

const marea_op marea_op_all = {TRUTH(all, "are all elements other than 0 (1 of no elements)")};
