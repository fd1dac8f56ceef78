/* SPDX-License-Identifier: MIT
** isa_avx2.c: f32 for machines with AVX2 and FMA. Built with its own -m flags; it must not include a
** header that defines a function other than static, or the linker may keep this file's copy for everyone.
*/
#if defined(__x86_64__)

#include "kernels.h"

typedef float real;

#include "vec_avx2.h"

#include "math_f32.inc"

#define OF_F32
#include "kernels.inc"
#include "bf16_vectors.inc"

#define INT8_MOST 4
#define INT8_LANES 8
#define INT8_PANELS 1
#include "int8_sums.inc"

marea_int8_kernel *const marea_int8_avx2 = int8_all_sums;

const marea_kernels marea_kernels_avx2 = REAL_TABLE;
const marea_bf16_kernels marea_bf16_avx2 = BF16_TABLE;

#endif
