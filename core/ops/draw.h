/* SPDX-License-Identifier: MIT
** draw.h: what random operators share. Every call takes a fixed range of Philox blocks, and element i reads
** fixed words of it: results depend on seed, counter and shape, not on threads.
**
** A real draw uses two words (53 bits), so a block serves two elements; f32 and f64 draws of one counter are
** the same numbers up to rounding.
*/
#ifndef MAREA_DRAW_H
#define MAREA_DRAW_H

#include <math.h>

#include "vjp.h"

static inline uint64_t word64 (const uint32_t *word) { return (uint64_t)word[0] << 32 | word[1]; }

/* Uniform in [0, 1): 53 bits. */
static inline double unit (uint64_t bits) { return (double)(bits >> 11) * 0x1p-53; }

static inline int64_t out_count (const marea_call *c) {
  return marea_count(c->layout[0].rank, c->layout[0].shape);
}

static inline int64_t pair_draws (const marea_call *c) { return (out_count(c) + 1) / 2; }

/* What blocks of elements work on; the meaning of p and q is the operator's. */
typedef struct draw {
  const marea_context *ctx;
  const marea_kernels *kernels; /* of dropout */
  uint64_t seed, counter;
  int64_t n, step; /* elements; of them in a parallel block, a multiple of 64 */
  int dtype;
  double p, q;
  const void *a, *b; /* inputs */
  void *y;
} draw;

/* Element i of an input, which has the dtype of the result. */
static inline double load (const draw *d, const void *x, int64_t i) { return marea_load(d->dtype, x, i); }

static inline void store (const draw *d, int64_t i, double value) { marea_store(d->dtype, d->y, i, value); }

static inline draw draw_of (const marea_call *c) {
  const marea_tensor *out = c->out[0];
  return (draw){.ctx = c->ctx,
                .seed = c->ctx->random.seed,
                .counter = c->counter,
                .n = marea_count(out->rank, out->shape),
                .step = MAREA_BLOCK / 4,
                .dtype = out->dtype,
                .y = marea_at(out)};
}

static inline marea_status run_draw (marea_call *c, draw *d, marea_block_fn fn) {
  if (d->n > 0) marea_parallel(c->ctx, (d->n - 1) / d->step + 1, fn, d);
  return MAREA_OK;
}

/* Calls for the elements of a block, in pairs that share Philox words. */
#define EACH_PAIR(d, block, i) \
  for (int64_t i = (block) * (d)->step, last_ = MAREA_MIN(i + (d)->step, (d)->n); i < last_; i += 2)

/* out := `shape` of floats: attributes `shape` and `dtype` */
static inline marea_status shape_of_floats (marea_call *c, int shape, int dtype) {
  const marea_attr *a = &c->attr[shape];
  size_t bytes;
  if (c->attr[dtype].i < 0) c->attr[dtype].i = MAREA_F32;
  if (!marea_is_float(c->attr[dtype].i))
    return marea_reject(c, MAREA_EARG, "argument 'dtype': expected %s, got %s",
                        marea_dtypes_text(MAREA_FLOATS).s, marea_dtype_name((marea_dtype)c->attr[dtype].i));
  MAREA_TRY(
      marea_bytes(c->ctx, c->op->name, a->n, a->v, marea_dtype_size((marea_dtype)c->attr[dtype].i), &bytes));
  marea_layout_set(&c->layout[0], (int)c->attr[dtype].i, a->n, a->v);
  return MAREA_OK;
}

#endif
