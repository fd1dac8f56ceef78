/* SPDX-License-Identifier: MIT
** rotary.c: rotary positions. Cosines and sines are made once for each position, in double, and used for all heads.
*/
#include <math.h>

#include "vjp.h"

enum { ROTARY_START, ROTARY_BASE, ROTARY_INTERLEAVED, ROTARY_INVERSE }; /* ORDER of the attributes */

/* Numbers of a block of the table: 512 sines and cosines take some 20 us. */
#define ANGLES 512

typedef struct rotary {
  int dtype;
  size_t size;
  int64_t times, heads, half; /* half: pairs of a head */
  int64_t rows, table_rows;   /* (n, t) of x; positions */
  int64_t rows_per_block, table_rows_per_block;
  int64_t start;
  double base;
  bool interleaved, inverse, shared; /* shared: all n have the same positions */
  const marea_tensor *positions;
  double *rates; /* (half): angles of position 1 */
  char *table;   /* [position][cos, sin][half] */
  const char *x;
  char *y;
} rotary;

static marea_status rotary_shape (marea_call *c) {
  const marea_tensor *x = c->in[0], *positions = c->n_in > 1 ? c->in[1] : NULL;
  MAREA_TRY(marea_want_rank(c, 0, 4, "(N, T, heads, D)"));
  if (x->shape[3] % 2 != 0)
    return marea_reject(c, MAREA_ESHAPE,
                        "argument 'x': expected an even last size, because pairs are rotated, got %s",
                        marea_tensor_text(x).s);
  const double base = c->attr[ROTARY_BASE].f;
  if (!(base > 0 && base < INFINITY))
    return marea_reject(c, MAREA_EARG, "argument 'base': expected a number > 0, got %g", base);
  if (positions) {
    MAREA_TRY(marea_want_dtype(c, 1, MAREA_INTS));
    if (!marea_has_shape(positions, 1, x->shape + 1) && !marea_has_shape(positions, 2, x->shape))
      return marea_reject(c, MAREA_ESHAPE,
                          "argument 'positions': expected (%lld) or (%lld, %lld) for x %s, got %s",
                          (long long)x->shape[1], (long long)x->shape[0], (long long)x->shape[1],
                          marea_tensor_text(x).s, marea_tensor_text(positions).s);
  }
  return marea_shape_same(c);
}

static void table_block (void *arg, int64_t block, int worker) {
  const rotary *r = arg;
  const int64_t first = block * r->table_rows_per_block;
  (void)worker;
  for (int64_t row = first; row < MAREA_MIN(first + r->table_rows_per_block, r->table_rows); row++) {
    int64_t position = row % r->times;
    if (r->positions) position = marea_load_integer(r->positions->dtype, marea_at(r->positions), row);
    for (int64_t i = 0; i < r->half; i++) {
      const double angle = ((double)position + (double)r->start) * r->rates[i];
      char *at = r->table + (size_t)(2 * row * r->half + i) * r->size;
      marea_store(r->dtype, at, 0, cos(angle));
      marea_store(r->dtype, at, r->half, r->inverse ? -sin(angle) : sin(angle));
    }
  }
}

/* All heads of a row: pairs (a, b) become (a cos - b sin, b cos + a sin). A pair lies `gap` apart, the next one
   `step` behind it. */
#define ROTATE(type)                                                                    \
  {                                                                                     \
    const type *x = (const type *)r->x + at, *cosine = (const type *)r->table + angles, \
               *sine = cosine + r->half;                                                \
    type *y = (type *)r->y + at;                                                        \
    for (int64_t head = 0; head < r->heads; head++, x += 2 * r->half, y += 2 * r->half) \
      for (int64_t i = 0; i < r->half; i++) {                                           \
        const type a = x[i * step], b = x[i * step + gap];                              \
        y[i * step] = a * cosine[i] - b * sine[i];                                      \
        y[i * step + gap] = b * cosine[i] + a * sine[i];                                \
      }                                                                                 \
  }

static void rotate_block (void *arg, int64_t block, int worker) {
  const rotary *r = arg;
  const int64_t first = block * r->rows_per_block, end = MAREA_MIN(first + r->rows_per_block, r->rows);
  const int64_t step = r->interleaved ? 2 : 1, gap = r->interleaved ? 1 : r->half;
  (void)worker;
  for (int64_t row = first; row < end; row++) {
    const int64_t at = row * r->heads * 2 * r->half,
                  angles = (r->shared ? row % r->times : row) * 2 * r->half;
    MAREA_SWITCH_FLOAT(r->dtype, ROTATE);
  }
}

static marea_status rotary_forward (marea_call *c) {
  const marea_tensor *x = c->in[0], *positions = c->n_in > 1 ? c->in[1] : NULL;
  rotary r = {.dtype = x->dtype,
              .size = marea_dtype_size((marea_dtype)x->dtype),
              .times = x->shape[1],
              .heads = x->shape[2],
              .half = x->shape[3] / 2,
              .rows = x->shape[0] * x->shape[1],
              .start = c->attr[ROTARY_START].i,
              .base = c->attr[ROTARY_BASE].f,
              .interleaved = c->attr[ROTARY_INTERLEAVED].i != 0,
              .inverse = c->attr[ROTARY_INVERSE].i != 0,
              .shared = !positions || positions->rank == 1,
              .positions = positions,
              .x = marea_at(x),
              .y = marea_at(c->out[0])};
  if (marea_tensor_size(x) == 0) return MAREA_OK;
  r.table_rows = r.shared ? r.times : r.rows;
  r.table_rows_per_block = MAREA_MAX(1, ANGLES / r.half);
  r.rows_per_block = MAREA_MAX(1, MAREA_BLOCK / (r.heads * 2 * r.half));
  MAREA_WORKSPACE_OR_RETURN(c, r.rates, (size_t)r.half * sizeof *r.rates);
  if (!c->ctx->shape_only)
    for (int64_t i = 0; i < r.half; i++) r.rates[i] = pow(r.base, -(double)i / (double)r.half);
  MAREA_WORKSPACE_OR_RETURN(c, r.table, (size_t)(r.table_rows * 2 * r.half) * r.size);
  marea_parallel(c->ctx, (r.table_rows - 1) / r.table_rows_per_block + 1, table_block, &r);
  marea_parallel(c->ctx, (r.rows - 1) / r.rows_per_block + 1, rotate_block, &r);
  return MAREA_OK;
}

/* The rotation back */
static marea_status rotary_vjp (marea_vjp *v) {
  if (!v->need[0]) return MAREA_OK;
  const marea_attr a[] = {v->attr[ROTARY_START], v->attr[ROTARY_BASE], v->attr[ROTARY_INTERLEAVED],
                          marea_attr_int(!v->attr[ROTARY_INVERSE].i)};
  if (v->n_in > 1 && v->in[1])
    return marea_run_with(v->ctx, &marea_op_rotary, a, &v->din[0], 2, v->dout[0], v->in[1]);
  return marea_run_with(v->ctx, &marea_op_rotary, a, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_rotary = {
    .name = "rotary",
    .family = "attention",
    .doc = "Rotary positions: pair i of each head of x turns by the angle p base^(-2i/D) at position p = "
           "start, start + "
           "1, ...: (a, b) becomes (a cos - b sin, b cos + a sin). x: (N, T, heads, D), D even; positions: "
           "i64 or u8 "
           "(N, T) or (T), to which start is added; y: like x. Pair i is (x[i], x[i + D/2]), as in GPT-NeoX "
           "and LLaMA, or "
           "with `interleaved` (x[2i], x[2i + 1]), as in the paper, i from 0. Gradient: the rotation back, "
           "which `inverse` "
           "is. Source: Su et al., arXiv:2104.09864. Errors: D odd, base <= 0, positions of another shape.",
    .inputs = {{"x", "(N, T, heads, D)"},
               {"positions", "i64 or u8 (N, T) or (T), left out: 0, 1, ...", .optional = true}},
    .attrs = MAREA_ATTRS({"start", MAREA_INT, 0, NULL, "position of the first step"},
                         {"base", MAREA_REAL, 10000, NULL, "of the wavelengths 2 pi base^(2i/D)"},
                         {"interleaved", MAREA_BOOL, 0, NULL, "pairs are neighbours"},
                         {"inverse", MAREA_BOOL, 0, NULL, "turn back"}),
    .flags = MAREA_SHAPE_ONLY,
    .saves_in = 2,
    .shape = rotary_shape,
    .forward = rotary_forward,
    .vjp = rotary_vjp,
    .sample = "local n, t = g.int(0, 3), g.int(0, 4) return {g.tensor{n, t, g.int(1, 3), 2 * g.int(0, 3)}, "
              "g.bool() and g.index(g.bool() and {n, t} or {t}, 9) or nil}, {start = g.pick{0, 3}, base = "
              "g.pick{100, "
              "10000}, interleaved = g.bool(), inverse = g.bool()}",
};
