/* SPDX-License-Identifier: MIT
** measure.h: the peak of fused multiply-adds, for the C programs under bench/. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <string.h>

#define PEAK_STEPS 1000
#define PEAK_CHAINS 12 /* independent ones, enough to fill every unit's pipeline */

#if defined(__x86_64__)
#define FMA(r, i) "vfmadd231ps %%" r "0, %%" r "1, %%" r #i "\n\t"
#define PEAK(name, isa, r)                                                                                \
  __attribute__((target(isa))) static inline void name(void *unused) {                                    \
    (void)unused;                                                                                         \
    __asm__ volatile("vxorps %%ymm0, %%ymm0, %%ymm0\n\tvmovaps %%ymm0, %%ymm1" ::: "xmm0", "xmm1");       \
    for (int i = 0; i < PEAK_STEPS; i++)                                                                  \
      __asm__ volatile(FMA(r, 2) FMA(r, 3) FMA(r, 4) FMA(r, 5) FMA(r, 6) FMA(r, 7) FMA(r, 8) FMA(r, 9)    \
                           FMA(r, 10) FMA(r, 11) FMA(r, 12) FMA(r, 13)::                                  \
                               : "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
                                 "xmm11", "xmm12", "xmm13");                                              \
  }
PEAK(peak_avx512, "avx512f", "zmm")
PEAK(peak_avx2, "avx2,fma", "ymm")
#endif

typedef void peak_loop (void *);

/* The loop for an ISA and the FLOP of one call; NULL: none is known. */
static inline peak_loop *peak_of (const char *isa, double *flop) {
#if defined(__x86_64__)
  if (!strcmp(isa, "avx512")) return *flop = 2.0 * PEAK_CHAINS * PEAK_STEPS * 16, peak_avx512;
  if (!strcmp(isa, "avx2")) return *flop = 2.0 * PEAK_CHAINS * PEAK_STEPS * 8, peak_avx2;
#endif
  (void)isa;
  return *flop = 0, NULL;
}

#endif
