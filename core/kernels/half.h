/* SPDX-License-Identifier: MIT
** half.h: bf16 and f16 as f32 and back. To f32 is exact. Back rounds to nearest even: what is too large becomes
** infinite, subnormal numbers are kept, and NaN stays NaN with its sign and upper bits, a quiet one.
** Nothing here branches, so that the compiler makes vectors of loops over these functions.
*/
#ifndef MAREA_HALF_H
#define MAREA_HALF_H

#include <stdbool.h>
#include <stdint.h>

static inline uint32_t bits_of (float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline float float_of (uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

static inline uint32_t pick (bool first, uint32_t a, uint32_t b) {
  const uint32_t mask = -(uint32_t)first;
  return (a & mask) | (b & ~mask);
}

/* The upper half of an f32. */
static inline float from_bf16 (uint16_t x) { return float_of((uint32_t)x << 16); }

static inline uint16_t to_bf16 (float x) {
  const uint32_t bits = bits_of(x), nan = bits >> 16 | 0x40u;
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return (uint16_t)pick((bits & 0x7fffffffu) > 0x7f800000u, nan, rounded);
}

/* IEEE binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits. A subnormal number is 2^-14 + x, minus 2^-14. */
static inline float from_f16 (uint16_t x) {
  const uint32_t magnitude = (x & 0x7fffu) << 13, exponent = magnitude & 0x0f800000u;
  const uint32_t sign = (x & 0x8000u) << 16, normal = magnitude + 0x38000000u;
  const uint32_t small = bits_of(float_of(magnitude + 0x38800000u) - 0x1p-14f);
  const uint32_t large = (normal + 0x38000000u) | pick(magnitude > 0x0f800000u, 0x00400000u, 0);
  return float_of(sign | pick(exponent == 0, small, pick(exponent == 0x0f800000u, large, normal)));
}

/* A sum with 0.5, whose last bit is 2^-24, rounds to the subnormal numbers of f16. Infinity from 65520 on. */
static inline uint16_t to_f16 (float x) {
  const uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffffu, sign = bits >> 16 & 0x8000u;
  const uint32_t nan = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  const uint32_t small = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t rounded = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const uint32_t normal = pick(magnitude >= 0x477ff000u, 0x7c00u, rounded);
  return (uint16_t)(sign | pick(magnitude > 0x7f800000u, nan, pick(magnitude < 0x38800000u, small, normal)));
}

#endif
