/* SPDX-License-Identifier: MIT
** isa_avx2.c: f32 for machines with AVX2 and FMA. Built with its own -m flags; it must not include a
** header that defines a function other than static, or the linker may keep this file's copy for everyone.
*/
#if defined(__x86_64__)

#include "kernels.h"

typedef float real;

#include "vec_avx2.h"

#include "math_f32.inc"

#define WITH_HALVES
#include "kernels.inc"
#include "bf16_vectors.inc"

const marea_kernels marea_kernels_avx2 = REAL_TABLE;
const marea_bf16_kernels marea_bf16_avx2 = BF16_TABLE;

#endif
