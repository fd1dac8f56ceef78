/* SPDX-License-Identifier: MIT
** vec_avx2.h: eight floats in a register of AVX2 with FMA. Names and meaning: see vec_generic.h.
*/
#ifndef MAREA_VEC_H
#define MAREA_VEC_H

#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VEC_LANES ((size_t)8)
#define VEC_TILE 6
#define INLINE static inline __attribute__((always_inline))

typedef __m256 vec;
typedef int32_t vint __attribute__((vector_size(32)));
typedef __m256i vmask;
typedef __m256d wide;

typedef uint32_t vwords __attribute__((vector_size(32)));

INLINE vwords words_mul (vwords a, uint32_t m, vwords *high) {
  __m256i x = (__m256i)a, factor = _mm256_set1_epi32((int)m);
  __m256i even = _mm256_mul_epu32(x, factor), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), factor);
  *high = (vwords)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
  return (vwords)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}

INLINE vec vec_set (real a) {
  return _mm256_set1_ps(a);
}

INLINE vec vec_load (const real *p) {
  return _mm256_loadu_ps(p);
}

INLINE void vec_store (real *p, vec a) {
  _mm256_storeu_ps(p, a);
}

INLINE void vec_stream (real *p, vec a) { /* p: aligned */
  _mm256_stream_ps(p, a);
}

INLINE void vec_fence (void) {
  _mm_sfence();
}

INLINE __m256i vec_first (size_t n) { /* mask of the first n lanes */
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE vec vec_load_part (const real *p, size_t n) {
  return _mm256_maskload_ps(p, vec_first(n));
}

INLINE void vec_store_part (real *p, vec a, size_t n) {
  _mm256_maskstore_ps(p, vec_first(n), a);
}

INLINE vec vec_fma (vec a, vec b, vec c) {
  return _mm256_fmadd_ps(a, b, c);
}

INLINE vmask vec_lt (vec a, vec b) {
  return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ));
}

INLINE vmask vec_le (vec a, vec b) {
  return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LE_OQ));
}

INLINE vmask vec_gt (vec a, vec b) {
  return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ));
}

INLINE vmask vec_ge (vec a, vec b) {
  return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GE_OQ));
}

INLINE vmask vec_eq (vec a, vec b) {
  return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}

INLINE vmask vec_ne (vec a, vec b) {
  return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ));
}

INLINE vec vec_select (vmask m, vec a, vec b) {
  return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(m));
}

INLINE bool vec_any (vmask m) {
  return _mm256_movemask_epi8(m) != 0;
}

INLINE vec vec_max (vec a, vec b) {
  return _mm256_max_ps(a, b);
}

INLINE vec vec_min (vec a, vec b) {
  return _mm256_min_ps(a, b);
}

INLINE vec vec_abs (vec a) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}

INLINE vec vec_copysign (vec a, vec sign) {
  __m256 bit = _mm256_set1_ps(-0.0f);
  return _mm256_or_ps(_mm256_andnot_ps(bit, a), _mm256_and_ps(bit, sign));
}

INLINE vec vec_sqrt (vec a) {
  return _mm256_sqrt_ps(a);
}

INLINE vec vec_round (vec a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

INLINE vec vec_floor (vec a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}

INLINE vec vec_ceil (vec a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
}

INLINE vec vec_from_int (vint a) {
  return _mm256_cvtepi32_ps((__m256i)a);
}

INLINE vint vec_to_int (vec a) {
  return (vint)_mm256_cvttps_epi32(a);
}

INLINE void vec_widen (vec a, wide half[2]) {
  half[0] = _mm256_cvtps_pd(_mm256_castps256_ps128(a));
  half[1] = _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1));
}

INLINE vec vec_narrow (const wide half[2]) {
  return _mm256_set_m128(_mm256_cvtpd_ps(half[1]), _mm256_cvtpd_ps(half[0]));
}

INLINE wide wide_fma (wide a, wide b, wide c) {
  return _mm256_fmadd_pd(a, b, c);
}

INLINE double vec_sum (vec a) {
  __m256d four = _mm256_cvtps_pd(_mm256_castps256_ps128(a)) + _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1));
  __m128d two = _mm256_castpd256_pd128(four) + _mm256_extractf128_pd(four, 1);
  return two[0] + two[1];
}

INLINE vec vec_sums (const vec a[VEC_LANES]) {
  const __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
  const __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(a[4], a[5]), _mm256_hadd_ps(a[6], a[7]));
  return _mm256_permute2f128_ps(low, high, 0x20) + _mm256_permute2f128_ps(low, high, 0x31);
}

INLINE void vec_store_bytes (uint8_t *p, vmask m, size_t n) {
  __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
  __m128i bytes = _mm_and_si128(_mm_packs_epi16(words, words), _mm_set1_epi8(1));
  uint8_t all[16];
  if (n == 8) {
    _mm_storel_epi64((__m128i *)p, bytes);
    return;
  }
  _mm_storeu_si128((__m128i *)all, bytes);
  for (size_t i = 0; i < n; i++) p[i] = all[i];
}

INLINE vmask vec_load_bytes (const uint8_t *p, size_t n) {
  uint64_t all = 0;
  if (n == 8) memcpy(&all, p, 8);
  else
    for (size_t i = 0; i < n; i++) all |= (uint64_t)p[i] << 8 * i;
  __m256i lanes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)all));
  return _mm256_cmpgt_epi32(lanes, _mm256_setzero_si256());
}

INLINE void vec_transpose (vec a[VEC_LANES]) {
  vec b[8], c[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) { /* pairs of rows, then of pairs, then of halves */
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    c[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    c[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    c[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    c[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    a[i] = _mm256_permute2f128_ps(c[i], c[i + 4], 0x20);
    a[i + 4] = _mm256_permute2f128_ps(c[i], c[i + 4], 0x31);
  }
}

#include "vec_float.inc"

#define VEC_STORES_BYTES
/* y[0 .. n-1] := the lowest bytes of the lanes */
INLINE void vec_store_low_bytes (uint8_t *y, vec v, size_t n) {
  const __m256i low = _mm256_and_si256((__m256i)v, _mm256_set1_epi32(255));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  uint64_t bytes = (uint64_t)_mm_cvtsi128_si64(_mm_packus_epi16(words, words));
  if (n == VEC_LANES) memcpy(y, &bytes, sizeof bytes);
  for (size_t i = 0; n < VEC_LANES && i < n; i++, bytes >>= 8) y[i] = (uint8_t)bytes;
}

/* Products of bytes (int8_sums.inc): those at even places and those at odd ones become 16 bits, so that no pair's sum is
   cut off. */
typedef __m256i int8_vec;
typedef struct int8_fours {
  __m256i even, odd;
} int8_fours, int8_place;

INLINE int8_fours fours_of (const int8_t *w) {
  const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)w);
  return (int8_fours){_mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8), _mm256_srai_epi16(v, 8)};
}

INLINE int8_place place_of (const uint8_t *x) {
  int32_t four;
  memcpy(&four, x, sizeof four);
  const __m256i v = _mm256_set1_epi32(four);
  return (int8_place){_mm256_and_si256(v, _mm256_set1_epi16(255)), _mm256_srli_epi16(v, 8)};
}

INLINE int8_vec int8_add (int8_place a, int8_fours b, int8_vec sum) {
  return _mm256_add_epi32(_mm256_add_epi32(sum, _mm256_madd_epi16(a.even, b.even)), _mm256_madd_epi16(a.odd, b.odd));
}

#endif
