/* SPDX-License-Identifier: MIT
** vec_avx512_bf16.h: what AVX512-BF16 adds to vec_avx512.h, for the files that are built with it.
*/

/* Pairs of bf16, the first one in the lower half of a lane; sum += first * first + second * second. */
typedef vec pairs;

INLINE pairs pairs_of (vec bits) {
  return bits;
}

INLINE vec pairs_fma (pairs a, pairs b, vec sum) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

/* Rounds to nearest even; what is below the normal numbers becomes 0. */
INLINE void bf16_store (uint16_t *y, vec v, size_t n) {
  const __m256i bits = (__m256i)_mm512_cvtneps_pbh(v);
  if (n == VEC_LANES) _mm256_storeu_si256((__m256i *)(void *)y, bits);
  else _mm256_mask_storeu_epi16(y, vec_first(n), bits);
}

#define BF16_STORE
