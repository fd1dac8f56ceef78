/* SPDX-License-Identifier: MIT
** isa_generic_u8.c: the integer kernels of u8.
*/
#include <string.h>

#include "kernels.h"

typedef uint8_t integer;
#define INTEGER_MIN 0
#define INTEGER_MAX UINT8_MAX

#include "integer.inc"

const marea_kernels marea_kernels_generic_u8 = INTEGER_TABLE;
