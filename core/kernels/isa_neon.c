/* SPDX-License-Identifier: MIT
** isa_neon.c: f32 for AArch64, whose base instruction set has four floats a register and fused multiply-add.
*/
#if defined(__aarch64__)

#include "kernels.h"

typedef float real;

#include "vec_neon.h"

#include "math_f32.inc"

#define WITH_HALVES
#include "kernels.inc"
#include "bf16_vectors.inc"

const marea_kernels marea_kernels_neon = REAL_TABLE;
const marea_bf16_kernels marea_bf16_neon = BF16_TABLE;

#endif
