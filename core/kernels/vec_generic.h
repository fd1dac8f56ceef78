/* SPDX-License-Identifier: MIT
** vec_generic.h: vectors of 16 bytes in GNU C, for every machine; `real` (float or double) and
** `real_bits` (the signed integer of its size) are set by the file that includes this one.
**
** All vec_*.h offer the same names, and a body in *.inc is written once over them. A `vec` is a GNU
** vector: + - * / and unary minus work on it, also with a scalar of type `real` on one side. `vint` holds
** integers of the same size, and a cast between the two keeps the bits. A `vmask` holds one truth value a
** lane and knows & | ~. A `wide` holds half as many doubles as a vec of floats has lanes. Not here:
** alignment, every load and store may be unaligned; and what works on the bits of floats, vec_scale and
** vec_split: see vec_float.inc.
*/
#ifndef MAREA_VEC_H
#define MAREA_VEC_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VEC_LANES (16 / sizeof(real))
#define VEC_TILE 4 /* pixels (rows) of a convolution tile: VEC_TILE * 2 sums stay in registers */
#define INLINE static inline __attribute__((always_inline))

typedef real vec __attribute__((vector_size(16)));
typedef real_bits vint __attribute__((vector_size(16)));
typedef vint vmask;
typedef double wide __attribute__((vector_size(VEC_LANES / 2 * sizeof(double))));
typedef real vec_unaligned __attribute__((vector_size(16), aligned(1), may_alias));

typedef uint32_t vwords __attribute__((vector_size(16))); /* random words: see random.inc */

/* a m modulo 2^32, and in `high` what is above that */
INLINE vwords words_mul (vwords a, uint32_t m, vwords *high) {
  vwords low = {0}, above = {0};
  for (size_t i = 0; i < sizeof(vwords) / 4; i++) {
    uint64_t p = (uint64_t)m * a[i];
    low[i] = (uint32_t)p;
    above[i] = (uint32_t)(p >> 32);
  }
  *high = above;
  return low;
}

INLINE vec vec_set (real a) {
  return a - (vec){0};
}

INLINE vec vec_load (const real *p) {
  return *(const vec_unaligned *)p;
}

INLINE void vec_store (real *p, vec a) {
  *(vec_unaligned *)p = a;
}

/* A store past the caches, and what makes such stores visible to other threads; where there are any. */
INLINE void vec_stream (real *p, vec a) {
  vec_store(p, a);
}

INLINE void vec_fence (void) {}

/* The first n lanes (n < VEC_LANES); the others are 0. */
INLINE vec vec_load_part (const real *p, size_t n) {
  vec a = {0};
  for (size_t i = 0; i < n; i++) a[i] = p[i];
  return a;
}

INLINE void vec_store_part (real *p, vec a, size_t n) {
  for (size_t i = 0; i < n; i++) p[i] = a[i];
}

/* a * b + c. Whether the product is rounded first depends on the machine; a product and a sum that are written as
   such are never joined, for the compiler might join them in one copy of a loop's body and not in another. */
INLINE vec vec_fma (vec a, vec b, vec c) {
  return a * b + c;
}

INLINE vmask vec_lt (vec a, vec b) {
  return a < b;
}

INLINE vmask vec_le (vec a, vec b) {
  return a <= b;
}

INLINE vmask vec_gt (vec a, vec b) {
  return a > b;
}

INLINE vmask vec_ge (vec a, vec b) {
  return a >= b;
}

INLINE vmask vec_eq (vec a, vec b) {
  return a == b;
}

INLINE vmask vec_ne (vec a, vec b) { /* also true where one is NaN */
  return a != b;
}

INLINE vec vec_select (vmask m, vec a, vec b) { /* m ? a : b */
  return (vec)((m & (vint)a) | (~m & (vint)b));
}

INLINE bool vec_any (vmask m) {
  int64_t words[2];
  memcpy(words, &m, sizeof words);
  return words[0] | words[1];
}

INLINE vec vec_max (vec a, vec b) { /* a > b ? a : b, so b where one is NaN */
  return vec_select(a > b, a, b);
}

INLINE vec vec_min (vec a, vec b) { /* a < b ? a : b */
  return vec_select(a < b, a, b);
}

INLINE vec vec_abs (vec a) {
  return (vec)((vint)a & ~(vint)(-(vec){0}));
}

INLINE vec vec_copysign (vec a, vec sign) {
  vint bit = (vint)(-(vec){0});
  return (vec)(((vint)a & ~bit) | ((vint)sign & bit));
}

INLINE vec vec_sqrt (vec a) {
  for (size_t i = 0; i < VEC_LANES; i++) a[i] = (real)(sizeof(real) == 4 ? sqrtf((float)a[i]) : sqrt(a[i]));
  return a;
}

INLINE vec vec_round (vec a) { /* to the nearest integer, half to even */
  vec big = vec_set(sizeof(real) == 4 ? (real)8388608.0 : (real)4503599627370496.0); /* 2^23, 2^52: ulp 1 */
  vec size = vec_abs(a), rounded = (size + big) - big;
  return vec_select(size < big, vec_copysign(rounded, a), a);
}

INLINE vec vec_floor (vec a) {
  vec rounded = vec_round(a);
  return vec_select(rounded > a, rounded - (real)1, rounded);
}

INLINE vec vec_ceil (vec a) {
  return -vec_floor(-a);
}

INLINE vec vec_from_int (vint a) {
  return __builtin_convertvector(a, vec);
}

INLINE vint vec_to_int (vec a) { /* truncates; only for values that fit */
  return __builtin_convertvector(a, vint);
}

/* A vector of floats as two halves in double, and back. */
INLINE void vec_widen (vec a, wide half[2]) {
  for (size_t h = 0; h < 2; h++) {
    wide lanes = {0};
    for (size_t i = 0; i < VEC_LANES / 2; i++) lanes[i] = (double)a[h * VEC_LANES / 2 + i];
    half[h] = lanes;
  }
}

INLINE vec vec_narrow (const wide half[2]) {
  vec a = {0};
  for (size_t i = 0; i < VEC_LANES; i++) a[i] = (real)half[i / (VEC_LANES / 2)][i % (VEC_LANES / 2)];
  return a;
}

INLINE wide wide_fma (wide a, wide b, wide c) {
  return a * b + c;
}

/* The lanes added up in double by a fixed tree. */
INLINE double vec_sum (vec a) {
  double lane[VEC_LANES];
  for (size_t i = 0; i < VEC_LANES; i++) lane[i] = (double)a[i];
  for (size_t half = VEC_LANES / 2; half; half /= 2)
    for (size_t i = 0; i < half; i++) lane[i] += lane[i + half];
  return lane[0];
}

/* Lane i: the sum of a[i], in `real`. */
INLINE vec vec_sums (const vec a[VEC_LANES]) {
  vec sums = vec_set(0);
  for (size_t i = 0; i < VEC_LANES; i++) sums[i] = (real)vec_sum(a[i]);
  return sums;
}

/* Masks as bytes, one a lane: 0 or 1 when stored, any value but 0 is true when loaded; n <= VEC_LANES. */
INLINE void vec_store_bytes (uint8_t *p, vmask m, size_t n) {
  for (size_t i = 0; i < n; i++) p[i] = (uint8_t)(m[i] & 1);
}

INLINE vmask vec_load_bytes (const uint8_t *p, size_t n) {
  vmask m = {0};
  for (size_t i = 0; i < n; i++) m[i] = p[i] ? -1 : 0;
  return m;
}

/* Rows become columns. */
INLINE void vec_transpose (vec a[VEC_LANES]) {
  for (size_t i = 0; i < VEC_LANES; i++)
    for (size_t j = 0; j < i; j++) {
      real t = a[i][j];
      a[i][j] = a[j][i];
      a[j][i] = t;
    }
}

#endif
