/* SPDX-License-Identifier: MIT
** measure.h: the peak of multiply-adds, of f32 and of bf16 that are added up in f32, for the C programs under bench/. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define PEAK_STEPS 1000
#define PEAK_CHAINS 12 /* independent ones, enough to fill every unit's pipeline */

#if defined(__x86_64__)
#define DO(f, r, i) f " %%" r "0, %%" r "1, %%" r #i "\n\t"
#define PEAK(name, isa, f, r)                                                                              \
  __attribute__((target(isa))) static inline void name(void *unused) {                                     \
    (void)unused;                                                                                          \
    __asm__ volatile("vxorps %%ymm0, %%ymm0, %%ymm0\n\tvmovaps %%ymm0, %%ymm1" ::: "xmm0", "xmm1");        \
    for (int i = 0; i < PEAK_STEPS; i++)                                                                   \
      __asm__ volatile(DO(f, r, 2) DO(f, r, 3) DO(f, r, 4) DO(f, r, 5) DO(f, r, 6) DO(f, r, 7) DO(f, r, 8) \
                           DO(f, r, 9) DO(f, r, 10) DO(f, r, 11) DO(f, r, 12) DO(f, r, 13)::               \
                               : "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",  \
                                 "xmm11", "xmm12", "xmm13");                                               \
  }
PEAK(peak_avx512_bf16, "avx512f,avx512bf16", "vdpbf16ps", "zmm")
PEAK(peak_avx512, "avx512f", "vfmadd231ps", "zmm")
PEAK(peak_avx2, "avx2,fma", "vfmadd231ps", "ymm")

#define TILE_FLOP (2.0 * 16 * 16 * 32)

/* Four tiles of sums; the shapes as in core/kernels/isa_amx.c. */
static inline void peak_amx (void *unused) {
  struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } shapes = {.palette = 1};
  (void)unused;
  for (int i = 0; i < 8; i++) shapes.bytes[i] = 64, shapes.rows[i] = 16;
  __asm__ volatile("ldtilecfg %0\n\ttilezero %%tmm4\n\ttilezero %%tmm6" ::"m"(shapes));
  for (int i = 0; i < PEAK_STEPS; i++)
    __asm__ volatile("tdpbf16ps %tmm6, %tmm4, %tmm0\n\ttdpbf16ps %tmm6, %tmm4, %tmm1\n\t"
                     "tdpbf16ps %tmm6, %tmm4, %tmm2\n\ttdpbf16ps %tmm6, %tmm4, %tmm3");
  __asm__ volatile("tilerelease");
}

static inline int may_use_tiles (void) {
#if defined(__linux__)
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM of arch_prctl */
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
  return 0;
#endif
}
#endif

typedef void peak_loop (void *);

/* The loop for an ISA and the FLOP of one call; NULL: none is known. */
static inline peak_loop *peak_of (const char *isa, double *flop) {
#if defined(__x86_64__)
  if (!strcmp(isa, "amx")) return *flop = TILE_FLOP * 4 * PEAK_STEPS, may_use_tiles() ? peak_amx : NULL;
  if (!strcmp(isa, "avx512_bf16")) return *flop = 4.0 * PEAK_CHAINS * PEAK_STEPS * 16, peak_avx512_bf16;
  if (!strcmp(isa, "avx512")) return *flop = 2.0 * PEAK_CHAINS * PEAK_STEPS * 16, peak_avx512;
  if (!strcmp(isa, "avx2")) return *flop = 2.0 * PEAK_CHAINS * PEAK_STEPS * 8, peak_avx2;
#endif
  (void)isa;
  return *flop = 0, NULL;
}

#endif
