/* SPDX-License-Identifier: MIT
** tables.h: the tables that the isa_*.c files define, for select.c.
*/
#ifndef MAREA_TABLES_H
#define MAREA_TABLES_H

#include "kernels.h"

extern const marea_kernels marea_kernels_generic, marea_kernels_generic_f64, marea_kernels_generic_i64,
    marea_kernels_generic_u8;
#if defined(__x86_64__)
extern const marea_kernels marea_kernels_avx2, marea_kernels_avx512;
#elif defined(__aarch64__)
extern const marea_kernels marea_kernels_neon;
#endif

#endif
