/* SPDX-License-Identifier: MIT
** isa_generic_i64.c: the integer kernels of i64.
*/
#include <string.h>

#include "kernels.h"

typedef int64_t integer;
#define INTEGER_MIN INT64_MIN
#define INTEGER_MAX INT64_MAX

#include "integer.inc"

const marea_kernels marea_kernels_generic_i64 = INTEGER_TABLE;
