/* SPDX-License-Identifier: MIT
** cpu.c: which ISAs can run here? On x86-64 the CPU must have the instructions (CPUID) and the system must
** save their registers (XGETBV); every AArch64 has Advanced SIMD. Built without -m flags, so that the
** question itself runs everywhere.
*/
#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>

static const char *const names[] = {"avx512", "avx2", "generic", NULL};

static uint64_t saved_registers (void) { /* XCR0 */
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

/* How many entries of `names` this machine cannot run. */
static int skipped (void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 2;
  if (!(c & bit_OSXSAVE) || !(c & bit_AVX) || !(c & bit_FMA)) return 2;
  uint64_t saved = saved_registers();
  if ((saved & 0x06) != 0x06) return 2; /* XMM and YMM */
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) return 2;
  unsigned wanted = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
  return (saved & 0xe6) == 0xe6 && (b & wanted) == wanted ? 0 : 1; /* ... mask registers and ZMM */
}

/* AMD's family 19h (Zen 4) has the instructions, but does them by halves. */
bool marea_cpu_is_wide (void) {
  unsigned a, b, c, d;
  if (skipped() > 0 || !__get_cpuid(0, &a, &b, &c, &d)) return false;
  const bool amd = b == signature_AMD_ebx && c == signature_AMD_ecx && d == signature_AMD_edx;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
  return !amd || (a >> 8 & 0xf) + (a >> 20 & 0xff) != 0x19;
}
#else
#if defined(__aarch64__)
static const char *const names[] = {"neon", "generic", NULL};
#else
static const char *const names[] = {"generic", NULL};
#endif

static int skipped (void) { return 0; }

bool marea_cpu_is_wide (void) { return false; }
#endif

const char *const *marea_cpu_isas (void) { return names + skipped(); }
