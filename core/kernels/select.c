/* SPDX-License-Identifier: MIT
** select.c: the tables of one ISA. Chosen per context, so two contexts may run different ISAs side by
** side. The f32 table of every ISA is complete; the other dtypes have generic kernels only.
*/
#include <string.h>

#include "tables.h"

static const marea_kernels *floats (const char *isa) {
#if defined(__x86_64__)
  if (!strcmp(isa, "avx512")) return &marea_kernels_avx512;
  if (!strcmp(isa, "avx2")) return &marea_kernels_avx2;
#elif defined(__aarch64__)
  if (!strcmp(isa, "neon")) return &marea_kernels_neon;
#endif
  return &marea_kernels_generic;
}

bool marea_select_kernels (const char *isa, const marea_kernels *kernels[4], const char **chosen) {
  const char *const *supported = marea_cpu_isas();
  while (isa && *supported && strcmp(*supported, isa) != 0) supported++;
  if (!*supported) return false;
  *chosen = *supported;
  kernels[0] = floats(*supported);
  kernels[1] = &marea_kernels_generic_f64;
  kernels[2] = &marea_kernels_generic_i64;
  kernels[3] = &marea_kernels_generic_u8;
  return true;
}
