/* SPDX-License-Identifier: MIT
** vec_neon.h: four floats in a register of AArch64's Advanced SIMD. Names and meaning: see vec_generic.h.
*/
#ifndef MAREA_VEC_H
#define MAREA_VEC_H

#include <arm_neon.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VEC_LANES ((size_t)4)
#define VEC_TILE 14
#define INLINE static inline __attribute__((always_inline))

typedef float32x4_t vec;
typedef int32_t vint __attribute__((vector_size(16)));
typedef uint32x4_t vmask;
typedef float64x2_t wide;

typedef uint32_t vwords __attribute__((vector_size(16)));

INLINE vwords words_mul (vwords a, uint32_t m, vwords *high) {
  uint64x2_t first = vmull_n_u32(vget_low_u32((uint32x4_t)a), m),
             last = vmull_n_u32(vget_high_u32((uint32x4_t)a), m);
  *high = (vwords)vuzp2q_u32((uint32x4_t)first, (uint32x4_t)last);
  return (vwords)vuzp1q_u32((uint32x4_t)first, (uint32x4_t)last);
}

INLINE vec vec_set (real a) {
  return vdupq_n_f32(a);
}

INLINE vec vec_load (const real *p) {
  return vld1q_f32(p);
}

INLINE void vec_store (real *p, vec a) {
  vst1q_f32(p, a);
}

INLINE void vec_stream (real *p, vec a) {
  vec_store(p, a);
}

INLINE void vec_fence (void) {}

INLINE vec vec_load_part (const real *p, size_t n) {
  vec zero = vdupq_n_f32(0);
  if (n == 0) return zero;
  if (n == 1) return vld1q_lane_f32(p, zero, 0);
  vec two = vcombine_f32(vld1_f32(p), vget_low_f32(zero));
  return n == 2 ? two : vld1q_lane_f32(p + 2, two, 2);
}

INLINE void vec_store_part (real *p, vec a, size_t n) {
  if (n == 1) vst1q_lane_f32(p, a, 0);
  if (n >= 2) vst1_f32(p, vget_low_f32(a));
  if (n == 3) vst1q_lane_f32(p + 2, a, 2);
}

INLINE vec vec_fma (vec a, vec b, vec c) {
  return vfmaq_f32(c, a, b);
}

INLINE vmask vec_lt (vec a, vec b) {
  return vcltq_f32(a, b);
}

INLINE vmask vec_le (vec a, vec b) {
  return vcleq_f32(a, b);
}

INLINE vmask vec_gt (vec a, vec b) {
  return vcgtq_f32(a, b);
}

INLINE vmask vec_ge (vec a, vec b) {
  return vcgeq_f32(a, b);
}

INLINE vmask vec_eq (vec a, vec b) {
  return vceqq_f32(a, b);
}

INLINE vmask vec_ne (vec a, vec b) {
  return vmvnq_u32(vceqq_f32(a, b));
}

INLINE vec vec_select (vmask m, vec a, vec b) {
  return vbslq_f32(m, a, b);
}

INLINE bool vec_any (vmask m) {
  return vmaxvq_u32(m) != 0;
}

INLINE vec vec_max (vec a, vec b) { /* not fmax, which gives NaN where a is NaN */
  return vbslq_f32(vcgtq_f32(a, b), a, b);
}

INLINE vec vec_min (vec a, vec b) {
  return vbslq_f32(vcltq_f32(a, b), a, b);
}

INLINE vec vec_abs (vec a) {
  return vabsq_f32(a);
}

INLINE vec vec_copysign (vec a, vec sign) {
  return vbslq_f32(vdupq_n_u32(0x80000000), sign, a);
}

INLINE vec vec_sqrt (vec a) {
  return vsqrtq_f32(a);
}

INLINE vec vec_round (vec a) {
  return vrndnq_f32(a);
}

INLINE vec vec_floor (vec a) {
  return vrndmq_f32(a);
}

INLINE vec vec_ceil (vec a) {
  return vrndpq_f32(a);
}

INLINE vec vec_from_int (vint a) {
  return vcvtq_f32_s32((int32x4_t)a);
}

INLINE vint vec_to_int (vec a) {
  return (vint)vcvtq_s32_f32(a);
}

INLINE void vec_widen (vec a, wide half[2]) {
  half[0] = vcvt_f64_f32(vget_low_f32(a));
  half[1] = vcvt_high_f64_f32(a);
}

INLINE vec vec_narrow (const wide half[2]) {
  return vcvt_high_f32_f64(vcvt_f32_f64(half[0]), half[1]);
}

INLINE wide wide_fma (wide a, wide b, wide c) {
  return vfmaq_f64(c, a, b);
}

INLINE double vec_sum (vec a) {
  return vaddvq_f64(vcvt_f64_f32(vget_low_f32(a)) + vcvt_high_f64_f32(a));
}

INLINE vec vec_sums (const vec a[VEC_LANES]) {
  return vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3]));
}

INLINE void vec_store_bytes (uint8_t *p, vmask m, size_t n) {
  uint16x4_t words = vmovn_u32(m);
  uint8x8_t bytes = vand_u8(vmovn_u16(vcombine_u16(words, words)), vdup_n_u8(1));
  uint8_t all[8];
  vst1_u8(all, bytes);
  memcpy(p, all, n);
}

INLINE vmask vec_load_bytes (const uint8_t *p, size_t n) {
  uint8_t all[8] = {0};
  memcpy(all, p, n);
  uint32x4_t lanes = vmovl_u16(vget_low_u16(vmovl_u8(vld1_u8(all))));
  return vtstq_u32(lanes, lanes);
}

INLINE void vec_transpose (vec a[VEC_LANES]) {
  const vec low = vtrn1q_f32(a[0], a[1]), high = vtrn2q_f32(a[0], a[1]);
  const vec low2 = vtrn1q_f32(a[2], a[3]), high2 = vtrn2q_f32(a[2], a[3]);
  a[0] = (vec)vtrn1q_f64((wide)low, (wide)low2);
  a[1] = (vec)vtrn1q_f64((wide)high, (wide)high2);
  a[2] = (vec)vtrn2q_f64((wide)low, (wide)low2);
  a[3] = (vec)vtrn2q_f64((wide)high, (wide)high2);
}

#include "vec_float.inc"

#endif
