/* SPDX-License-Identifier: MIT
** isa_generic.c: f32 for every machine; the reference that the other ISAs are tested against.
*/
#include "kernels.h"

typedef float real;
typedef int32_t real_bits;

#include "vec_generic.h"
#include "vec_float.inc"

#include "math_f32.inc"

#define OF_F32
#include "kernels.inc"
#include "bf16_vectors.inc"

static void int8_all_sums (marea_int8_sums *g) {
  for (int64_t i = 0; i < g->places; i++)
    for (int n = 0; n < MAREA_INT8_COLUMNS; n++) {
      const int8_t *w = g->w + n / MAREA_INT8_PANEL * g->w_panel + n % MAREA_INT8_PANEL * 4;
      uint32_t sum = 0;
      for (int64_t t = 0; t < g->taps; t++)
        for (int64_t d = 0; d < g->depth; d++) {
          const int8_t *four = w + (t * g->depth + d) / 4 * 4 * MAREA_INT8_PANEL;
          sum += (uint32_t)(g->x[i * g->x_col + g->tap[t] + d] * four[d % 4]);
        }
      g->sum[i * MAREA_INT8_COLUMNS + n] = (int32_t)sum;
    }
}

marea_int8_kernel *const marea_int8_generic = int8_all_sums;

const marea_kernels marea_kernels_generic = REAL_TABLE;
const marea_bf16_kernels marea_bf16_generic = BF16_TABLE;
