/* SPDX-License-Identifier: MIT
** vec_avx512_vnni.h: products of bytes (int8_sums.inc) by AVX512-VNNI, for the file that is built with it.
*/
#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef __m512i int8_vec, int8_fours, int8_place;

INLINE int8_fours fours_of (const int8_t *w) { return _mm512_loadu_si512(w); }

INLINE int8_place place_of (const uint8_t *x) {
  int32_t four;
  memcpy(&four, x, sizeof four);
  return _mm512_set1_epi32(four);
}

INLINE int8_vec int8_add (int8_place a, int8_fours b, int8_vec sum) { return _mm512_dpbusd_epi32(sum, a, b); }
