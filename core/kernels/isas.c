/* SPDX-License-Identifier: MIT
** isas.c: the instruction sets, which of them can run here, and their tables of kernels. A context chooses, so two contexts
** may run different ones side by side. Each instruction set has a complete table for f32; the other dtypes have generic
** kernels only. Built without -m flags, so that the questions run everywhere.
*/
#include <string.h>

#include "kernels.h"

/* ---- what runs here ---- */

static bool runs_generic (void) { return true; }

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static uint64_t saved_registers (void) { /* XCR0: the registers that the system saves */
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

/* The features of CPUID's leaf 7 (EBX), of a processor and a system with AVX and FMA; 0: there is none. */
static unsigned avx_features (uint64_t registers) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  if (!(c & bit_OSXSAVE) || !(c & bit_AVX) || !(c & bit_FMA)) return 0;
  if ((saved_registers() & registers) != registers) return 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) ? b : 0;
}

static bool runs_avx2 (void) { return avx_features(0x06 /* XMM, YMM */) & bit_AVX2; }

static bool runs_avx512 (void) {
  const unsigned wanted = bit_AVX2 | bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
  return (avx_features(0xe6 /* and mask registers, ZMM */) & wanted) == wanted;
}

static bool runs_avx512_bf16 (void) {
  unsigned a, b, c, d;
  return runs_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit_AVX512BF16);
}

/* Linux lends the tiles' 8 KB to a process that asks; from then on it refuses alternate signal stacks that would be too
   small for them, below 11 KB or so. So this is asked when AMX is taken, not when it is listed. */
static bool may_use_tiles (void) {
#if defined(__linux__)
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM of arch_prctl */
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
  return false;
#endif
}

static bool has_amx (void) {
  unsigned a, b, c, d;
  const uint64_t tiles = (uint64_t)3 << 17;
  if (!runs_avx512_bf16() || (saved_registers() & tiles) != tiles) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & bit_AMX_TILE) && (d & bit_AMX_BF16);
}

static bool runs_amx (void) { return has_amx(); }

const char *marea_refused_isa (void) { return has_amx() && !may_use_tiles() ? "amx" : NULL; }

static bool is_amd (void) {
  unsigned a, b, c, d;
  return __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx && c == signature_AMD_ecx &&
         d == signature_AMD_edx;
}

/* AMD's family 19h (Zen 4) has the instructions, but does them in two halves. */
bool marea_cpu_is_wide (void) {
  unsigned a, b, c, d;
  if (!runs_avx512() || !__get_cpuid(1, &a, &b, &c, &d)) return false;
  return !is_amd() || (a >> 8 & 0xf) + (a >> 20 & 0xff) != 0x19;
}

bool marea_cpu_streams (void) { return is_amd(); }

static bool has_vnni (void) { /* to be asked where AVX-512 runs */
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & bit_AVX512VNNI);
}

static bool has_int8_tiles (void) {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & bit_AMX_INT8);
}

#define INT8_ISAS(I)                                                \
  I(amx, strcmp(isa, "amx") == 0 && has_int8_tiles() && has_vnni()) \
  I(avx512_vnni, marea_isa_is_512(isa) && has_vnni()) I(avx2, strcmp(isa, "generic") != 0) I(generic, true)

#define ISAS(I)       \
  I(amx, avx512, amx) \
  I(avx512_bf16, avx512, avx512_bf16) I(avx512, avx512, avx2) I(avx2, avx2, avx2) I(generic, generic, generic)
#elif defined(__aarch64__)
static bool runs_neon (void) { return true; } /* every AArch64 has Advanced SIMD */

static bool may_use_tiles (void) { return false; }

bool marea_cpu_is_wide (void) { return false; }
bool marea_cpu_streams (void) { return false; }
const char *marea_refused_isa (void) { return NULL; }

#define INT8_ISAS(I) I(neon, strcmp(isa, "neon") == 0) I(generic, true)
#define ISAS(I) I(neon, neon, neon) I(generic, generic, generic)
#else
static bool may_use_tiles (void) { return false; }

bool marea_cpu_is_wide (void) { return false; }
bool marea_cpu_streams (void) { return false; }
const char *marea_refused_isa (void) { return NULL; }

#define INT8_ISAS(I) I(generic, true)
#define ISAS(I) I(generic, generic, generic)
#endif

/* ---- the tables: of f32 in marea_kernels_NAME and of bf16 in marea_bf16_NAME, which instruction sets share ---- */

#define I(name, f32, bf16)                        \
  extern const marea_kernels marea_kernels_##f32; \
  extern const marea_bf16_kernels marea_bf16_##bf16;
ISAS(I)
#undef I
extern const marea_kernels marea_kernels_generic_f64, marea_kernels_generic_i64, marea_kernels_generic_u8;

/* Best first. */
static const struct {
  const char *name;
  bool (*runs)(void);
  const marea_kernels *f32;
  const marea_bf16_kernels *bf16;
} isas[] = {
#define I(name, f32, bf16) {#name, runs_##name, &marea_kernels_##f32, &marea_bf16_##bf16},
    ISAS(I)
#undef I
};

enum { COUNT = sizeof isas / sizeof *isas };

const char *marea_runnable_isa (int i) {
  for (int k = 0; i >= 0 && k < COUNT; k++)
    if (isas[k].runs() && i-- == 0) return isas[k].name;
  return NULL;
}

bool marea_select_kernels (const char *isa, const marea_kernels *kernels[], const char **chosen) {
  for (int k = 0; k < COUNT; k++) {
    if ((isa && strcmp(isas[k].name, isa) != 0) || !isas[k].runs()) continue;
    if (strcmp(isas[k].name, "amx") == 0 && !may_use_tiles()) continue;
    *chosen = isas[k].name;
    kernels[0] = isas[k].f32;
    kernels[1] = &marea_kernels_generic_f64;
    kernels[2] = &marea_kernels_generic_i64;
    kernels[3] = &marea_kernels_generic_u8;
    return true;
  }
  return false;
}

const marea_bf16_kernels *marea_select_bf16 (const char *isa) {
  for (int k = 0; k < COUNT; k++)
    if (strcmp(isas[k].name, isa) == 0) return isas[k].bf16;
  return NULL;
}

#define I(name, wanted) extern marea_int8_kernel *const marea_int8_##name;
INT8_ISAS(I)
#undef I

marea_int8_kernel *marea_select_int8 (const char *isa) {
#define I(name, wanted) \
  if (wanted) return marea_int8_##name;
  INT8_ISAS(I)
#undef I
}

bool marea_isa_is_512 (const char *isa) { return strncmp(isa, "avx512", 6) == 0 || strcmp(isa, "amx") == 0; }
