/* SPDX-License-Identifier: MIT
** isa_avx512_bf16.c: products of bf16 for machines that have an instruction for pairs of them, AVX512-BF16 (Zen 4, Cooper
** Lake and later). Their f32 is that of isa_avx512.c. vdpbf16ps takes subnormal numbers for zeros.
*/
#if defined(__x86_64__)

#include "kernels.h"

typedef float real;

#include "vec_avx512.h"
#include "vec_avx512_bf16.h"

#define BF16_PAIRS
#include "bf16_vectors.inc"

#include "table.inc"

const marea_bf16_kernels marea_bf16_avx512_bf16 = BF16_TABLE;

#endif
