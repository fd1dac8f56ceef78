/* SPDX-License-Identifier: MIT
** isa_generic_f64.c: f64 for every machine. It serves gradient checks and users who want the digits, so
** it has the generic vectors only.
*/
#include "kernels.h"

typedef double real;
typedef int64_t real_bits;

#include "vec_generic.h"

#include "math_f64.inc"

#include "kernels.inc"

const marea_kernels marea_kernels_generic_f64 = REAL_TABLE;
