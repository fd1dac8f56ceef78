/* SPDX-License-Identifier: MIT
** isa_avx512_vnni.c: products of bytes for machines that have an instruction for four of them, AVX512-VNNI (Cascade Lake, Ice
** Lake, Zen 4 and later).
*/
#if defined(__x86_64__)

#include "kernels.h"

#include "vec_avx512_vnni.h"

#define INT8_MOST 8
#define INT8_LANES 16
#define INT8_PANELS 2

#include "int8_sums.inc"

marea_int8_kernel *const marea_int8_avx512_vnni = int8_all_sums;

#endif
