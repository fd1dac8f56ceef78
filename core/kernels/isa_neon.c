/* SPDX-License-Identifier: MIT
** isa_neon.c: f32 for AArch64, whose base instruction set has four floats a register and fused multiply-add.
*/
#if defined(__aarch64__)

#include "kernels.h"

typedef float real;

#include "vec_neon.h"

#include "math_f32.inc"

#define OF_F32
#include "kernels.inc"
#include "bf16_vectors.inc"

/* ---- bytes; the first of four lies lowest ---- */

#define INT8_MOST 4
#define INT8_LANES 4
#define INT8_PANELS 1

typedef vint int8_vec;
typedef struct int8_fours {
  vint byte[4];
} int8_fours;
typedef const uint8_t *int8_place;

INLINE int8_fours fours_of (const int8_t *w) {
  vint v;
  memcpy(&v, w, sizeof v);
  return (int8_fours){{v << 24 >> 24, v << 16 >> 24, v << 8 >> 24, v >> 24}};
}

INLINE int8_place place_of (const uint8_t *x) { return x; }

INLINE vint int8_add (int8_place a, int8_fours b, vint sum) {
  return sum + b.byte[0] * a[0] + b.byte[1] * a[1] + b.byte[2] * a[2] + b.byte[3] * a[3];
}

#include "int8_sums.inc"

marea_int8_kernel *const marea_int8_neon = int8_all_sums;

const marea_kernels marea_kernels_neon = REAL_TABLE;
const marea_bf16_kernels marea_bf16_neon = BF16_TABLE;

#endif
