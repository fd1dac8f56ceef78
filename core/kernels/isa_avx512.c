/* SPDX-License-Identifier: MIT
** isa_avx512.c: f32 for machines with AVX-512 F, DQ, BW and VL. Built with its own -m flags; it must not
** include a header that defines a function other than static, or the linker may keep this file's copy for
** everyone.
*/
#if defined(__x86_64__)

#include "kernels.h"

typedef float real;

#include "vec_avx512.h"

#include "math_f32.inc"

#define OF_F32
#include "kernels.inc"

const marea_kernels marea_kernels_avx512 = REAL_TABLE;

#endif
