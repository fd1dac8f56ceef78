/* SPDX-License-Identifier: MIT
** isa_generic.c: f32 for every machine; the reference that the other ISAs are tested against.
*/
#include "kernels.h"

typedef float real;
typedef int32_t real_bits;

#include "vec_generic.h"
#include "vec_float.inc"

#include "math_f32.inc"

#define WITH_HALVES
#include "kernels.inc"
#include "bf16_vectors.inc"

const marea_kernels marea_kernels_generic = REAL_TABLE;
const marea_bf16_kernels marea_bf16_generic = BF16_TABLE;
