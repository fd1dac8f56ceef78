/* SPDX-License-Identifier: MIT
** vec_avx512.h: sixteen floats in a register of AVX-512 (F, DQ, BW, VL). Names and meaning: see
** vec_generic.h.
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

#define VEC_LANES ((size_t)16)
#define VEC_TILE 14
#define VEC_PAIRS /* parts of vectors cost what whole ones do */
#define INLINE static inline __attribute__((always_inline))

typedef __m512 vec;
typedef int32_t vint __attribute__((vector_size(64)));
typedef __mmask16 vmask;
typedef __m512d wide;

typedef uint32_t vwords __attribute__((vector_size(64)));

INLINE vwords words_mul (vwords a, uint32_t m, vwords *high) {
  __m512i x = (__m512i)a, factor = _mm512_set1_epi32((int)m);
  __m512i even = _mm512_mul_epu32(x, factor), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), factor);
  *high = (vwords)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
  return (vwords)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}

/* The compiler must have both in registers here. GCC 12 keeps addresses in spare registers of vectors, and where these run
   out it has put a vector that a loop reads at every step on the stack. */
#define VEC_HOLD(a, b) __asm__("" : : "v"(a), "v"(b))

INLINE vec vec_set (real a) {
  return _mm512_set1_ps(a);
}

INLINE vec vec_load (const real *p) {
  return _mm512_loadu_ps(p);
}

INLINE void vec_store (real *p, vec a) {
  _mm512_storeu_ps(p, a);
}

INLINE void vec_stream (real *p, vec a) { /* p: aligned */
  _mm512_stream_ps(p, a);
}

INLINE void vec_fence (void) {
  _mm_sfence();
}

INLINE __mmask16 vec_first (size_t n) { /* mask of the first n lanes */
  return (__mmask16)((1u << n) - 1);
}

INLINE vec vec_load_part (const real *p, size_t n) {
  return _mm512_maskz_loadu_ps(vec_first(n), p);
}

INLINE void vec_store_part (real *p, vec a, size_t n) {
  _mm512_mask_storeu_ps(p, vec_first(n), a);
}

INLINE vec vec_fma (vec a, vec b, vec c) {
  return _mm512_fmadd_ps(a, b, c);
}

INLINE vmask vec_lt (vec a, vec b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}

INLINE vmask vec_le (vec a, vec b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ);
}

INLINE vmask vec_gt (vec a, vec b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}

INLINE vmask vec_ge (vec a, vec b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}

INLINE vmask vec_eq (vec a, vec b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}

INLINE vmask vec_ne (vec a, vec b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ);
}

INLINE vec vec_select (vmask m, vec a, vec b) {
  return _mm512_mask_blend_ps(m, b, a);
}

INLINE bool vec_any (vmask m) {
  return m != 0;
}

INLINE vec vec_max (vec a, vec b) {
  return _mm512_max_ps(a, b);
}

INLINE vec vec_min (vec a, vec b) {
  return _mm512_min_ps(a, b);
}

INLINE vec vec_abs (vec a) {
  return _mm512_abs_ps(a);
}

INLINE vec vec_copysign (vec a, vec sign) {
  __m512i bit = _mm512_set1_epi32(INT32_MIN); /* 0xd8: bit ? sign : a */
  return _mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(_mm512_castps_si512(a), _mm512_castps_si512(sign), bit, 0xd8));
}

INLINE vec vec_sqrt (vec a) {
  return _mm512_sqrt_ps(a);
}

/* 1 / a, of a normal number whose reciprocal is one too: a division takes 16 cycles */
#define VEC_RECIPROCAL
INLINE vec vec_reciprocal (vec a) {
  const vec y = _mm512_rcp14_ps(a);
  return vec_fma(y, vec_fma(-a, y, vec_set(1)), y);
}

INLINE vec vec_round (vec a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

INLINE vec vec_floor (vec a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}

INLINE vec vec_ceil (vec a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
}

INLINE vec vec_from_int (vint a) {
  return _mm512_cvtepi32_ps((__m512i)a);
}

INLINE vint vec_to_int (vec a) {
  return (vint)_mm512_cvttps_epi32(a);
}

INLINE vec vec_scale (vec a, vec n) {
  return _mm512_scalef_ps(a, n);
}

INLINE vec vec_split (vec a, vec *n) {
  vec m = _mm512_getmant_ps(a, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_nan);
  *n = _mm512_getexp_ps(a) - _mm512_getexp_ps(m);
  return m;
}

INLINE void vec_widen (vec a, wide half[2]) {
  half[0] = _mm512_cvtps_pd(_mm512_castps512_ps256(a));
  half[1] = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
}

INLINE vec vec_narrow (const wide half[2]) {
  __m512 low = _mm512_castps256_ps512(_mm512_cvtpd_ps(half[0]));
  return _mm512_insertf32x8(low, _mm512_cvtpd_ps(half[1]), 1);
}

/* Conversions of bf16 and f16 (half.h), of the first n <= 32 lanes of two vectors: half.inc */
#define VEC_HALVES

INLINE __mmask32 vec_first_halves (size_t n) {
  return n < 32 ? (1u << n) - 1 : ~(__mmask32)0;
}

INLINE void vec_widen_bf16 (const uint16_t *x, size_t n, vec y[2]) {
  const __m512i halves = _mm512_maskz_loadu_epi16(vec_first_halves(n), x);
  for (int k = 0; k < 2; k++) {
    __m256i part = k ? _mm512_extracti64x4_epi64(halves, 1) : _mm512_castsi512_si256(halves);
    y[k] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(part), 16));
  }
}

/* The rounded number in the upper half of each lane. The instruction that does it would make subnormal numbers 0. */
INLINE __m512i vec_round_bf16 (vec a) {
  const __m512i bits = _mm512_castps_si512(a);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
}

INLINE void vec_narrow_bf16 (const vec x[2], size_t n, uint16_t *y) {
  static const uint16_t upper[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                     33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  const __m512i halves = _mm512_permutex2var_epi16(vec_round_bf16(x[0]), _mm512_loadu_si512(upper), vec_round_bf16(x[1]));
  _mm512_mask_storeu_epi16(y, vec_first_halves(n), halves);
}

INLINE void vec_widen_f16 (const uint16_t *x, size_t n, vec y[2]) {
  const __m512i halves = _mm512_maskz_loadu_epi16(vec_first_halves(n), x);
  y[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
  y[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
}

INLINE void vec_narrow_f16 (const vec x[2], size_t n, uint16_t *y) {
  const __m256i low = _mm512_cvtps_ph(x[0], _MM_FROUND_TO_NEAREST_INT);
  const __m256i high = _mm512_cvtps_ph(x[1], _MM_FROUND_TO_NEAREST_INT);
  _mm512_mask_storeu_epi16(y, vec_first_halves(n), _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
}

INLINE wide wide_fma (wide a, wide b, wide c) {
  return _mm512_fmadd_pd(a, b, c);
}

INLINE double vec_sum (vec a) {
  __m512d all = _mm512_cvtps_pd(_mm512_castps512_ps256(a)) + _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
  __m256d four = _mm512_castpd512_pd256(all) + _mm512_extractf64x4_pd(all, 1);
  __m128d two = _mm256_castpd256_pd128(four) + _mm256_extractf128_pd(four, 1);
  return two[0] + two[1];
}

INLINE __m256 vec_halve (vec a) {
  return _mm512_castps512_ps256(a) + _mm512_extractf32x8_ps(a, 1);
}

INLINE vec vec_sums (const vec a[VEC_LANES]) {
  vec two[8], four[4], eight[2]; /* sums of so many vectors in one */
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++)
    two[i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]) + _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
    four[i] = _mm512_shuffle_ps(two[2 * i], two[2 * i + 1], 0x44) +
              _mm512_shuffle_ps(two[2 * i], two[2 * i + 1], 0xee);
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++)
    eight[i] = _mm512_shuffle_f32x4(four[2 * i], four[2 * i + 1], 0x44) +
               _mm512_shuffle_f32x4(four[2 * i], four[2 * i + 1], 0xee);
  return _mm512_shuffle_f32x4(eight[0], eight[1], 0x88) + _mm512_shuffle_f32x4(eight[0], eight[1], 0xdd);
}

INLINE void vec_store_bytes (uint8_t *p, vmask m, size_t n) {
  _mm_mask_storeu_epi8(p, vec_first(n), _mm_maskz_set1_epi8(m, 1));
}

INLINE vmask vec_load_bytes (const uint8_t *p, size_t n) {
  __m128i bytes = _mm_maskz_loadu_epi8(vec_first(n), p);
  return _mm_test_epi8_mask(bytes, bytes);
}

INLINE void vec_transpose (vec a[VEC_LANES]) {
  vec b[16], c[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) { /* pairs of rows, then of pairs, then of quarters */
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    c[i] = _mm512_shuffle_ps(b[i], b[i + 2], 0x44);
    c[i + 1] = _mm512_shuffle_ps(b[i], b[i + 2], 0xee);
    c[i + 2] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    c[i + 3] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    vec low02 = _mm512_shuffle_f32x4(c[i], c[i + 4], 0x88),
        high02 = _mm512_shuffle_f32x4(c[i + 8], c[i + 12], 0x88);
    vec low13 = _mm512_shuffle_f32x4(c[i], c[i + 4], 0xdd),
        high13 = _mm512_shuffle_f32x4(c[i + 8], c[i + 12], 0xdd);
    a[i] = _mm512_shuffle_f32x4(low02, high02, 0x88);
    a[i + 8] = _mm512_shuffle_f32x4(low02, high02, 0xdd);
    a[i + 4] = _mm512_shuffle_f32x4(low13, high13, 0x88);
    a[i + 12] = _mm512_shuffle_f32x4(low13, high13, 0xdd);
  }
}

#define VEC_STORES_BYTES
/* y[0 .. n-1] := the lowest bytes of the lanes */
INLINE void vec_store_low_bytes (uint8_t *y, vec v, size_t n) {
  _mm512_mask_cvtepi32_storeu_epi8(y, vec_first(n), (__m512i)v);
}

#endif
