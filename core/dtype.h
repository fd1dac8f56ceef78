/* SPDX-License-Identifier: MIT
** dtype.h: everything that depends on a dtype: its properties, sets of dtypes, element loads, stores and conversions,
** and the switches around loops that are written once for all element types.
**
** Nothing else in the core may decide by "f32, or else f64". Code switches by one of the macros or functions below, or
** by a `switch ((marea_dtype)dtype)` without `default:`, so that a dtype that is added to marea.h and not handled stops
** the compiler (-Werror=switch) at each such place. docs/architecture.md, "Dtypes", lists the places.
*/
#ifndef MAREA_DTYPE_H
#define MAREA_DTYPE_H

#include "marea.h"

/* Elements of dtypes that are stored only, as bits. */
typedef uint16_t marea_bf16, marea_f16;

typedef enum marea_dtype_kind { MAREA_KIND_FLOAT, MAREA_KIND_SIGNED, MAREA_KIND_UNSIGNED } marea_dtype_kind;

/* D(enumerator, name, element type in memory, kind, rank in promotion, dtype that it is computed in), in the order of
   marea_dtype. One that is computed in another one is only stored: operators that move elements take it as it is, for
   all others apply.c converts. Two dtypes of the same rank give the one that the first is computed in. */
#define MAREA_DTYPES(D)                       \
  D(F32, "f32", float, FLOAT, 3, F32)         \
  D(F64, "f64", double, FLOAT, 4, F64)        \
  D(I64, "i64", int64_t, SIGNED, 1, I64)      \
  D(U8, "u8", uint8_t, UNSIGNED, 0, U8)       \
  D(BF16, "bf16", marea_bf16, FLOAT, 2, F32)  \
  D(F16, "f16", marea_f16, FLOAT, 2, F32)

/* ---- properties ---- */

#define MAREA_ONE(id, name, type, kind, rank, computed) +1
#define MAREA_FITS(id, name, type, kind, rank, computed) \
  &&(sizeof(type) == 1 || sizeof(type) == 2 || sizeof(type) == 4 || sizeof(type) == 8) && sizeof(type) <= sizeof(double)
_Static_assert(0 MAREA_DTYPES(MAREA_ONE) == MAREA_DTYPE_COUNT, "MAREA_DTYPES lists every marea_dtype");
_Static_assert(1 MAREA_DTYPES(MAREA_FITS), "MAREA_SWITCH_SIZE has a case for every element size, and buffers of "
                                           "doubles hold as many elements of any dtype");

/* marea_dtype_size of a dtype that is known to be one. */
static inline size_t marea_element_size (int dtype) {
#define MAREA_SIZE(id, name, type, kind, rank, computed) [MAREA_##id] = sizeof(type),
  static const uint8_t size[MAREA_DTYPE_COUNT] = {MAREA_DTYPES(MAREA_SIZE)};
#undef MAREA_SIZE
  return size[dtype];
}

static inline marea_dtype_kind marea_kind_of (int dtype) {
#define MAREA_KIND(id, name, type, kind, rank, computed) [MAREA_##id] = MAREA_KIND_##kind,
  static const uint8_t kind[MAREA_DTYPE_COUNT] = {MAREA_DTYPES(MAREA_KIND)};
#undef MAREA_KIND
  return (marea_dtype_kind)kind[dtype];
}

/* The dtype that operators compute in: itself, unless it is only stored. */
static inline int marea_computed_in (int dtype) {
#define MAREA_COMPUTED_IN(id, name, type, kind, rank, computed) [MAREA_##id] = MAREA_##computed,
  static const uint8_t in[MAREA_DTYPE_COUNT] = {MAREA_DTYPES(MAREA_COMPUTED_IN)};
#undef MAREA_COMPUTED_IN
  return in[dtype];
}

/* Sets of dtypes: bit d stands for dtype d. */
#define MAREA_IF_FLOAT(id, name, type, kind, rank, computed) | (MAREA_KIND_##kind == MAREA_KIND_FLOAT) << MAREA_##id
#define MAREA_IF_SIGNED(id, name, type, kind, rank, computed) | (MAREA_KIND_##kind != MAREA_KIND_UNSIGNED) << MAREA_##id
#define MAREA_IF_COMPUTED(id, name, type, kind, rank, computed) | (MAREA_##id == MAREA_##computed) << MAREA_##id
enum {
  MAREA_ANY = (1 << MAREA_DTYPE_COUNT) - 1,
  MAREA_FLOATS = 0 MAREA_DTYPES(MAREA_IF_FLOAT),
  MAREA_SIGNED = 0 MAREA_DTYPES(MAREA_IF_SIGNED), /* those with negative numbers */
  MAREA_INTS = MAREA_ANY & ~MAREA_FLOATS,
  MAREA_COMPUTED = 0 MAREA_DTYPES(MAREA_IF_COMPUTED), /* those that loops and kernels compute with */
  MAREA_STORED = MAREA_ANY & ~MAREA_COMPUTED          /* those that are only stored */
};
#undef MAREA_ONE
#undef MAREA_FITS
#undef MAREA_IF_FLOAT
#undef MAREA_IF_SIGNED
#undef MAREA_IF_COMPUTED

static inline bool marea_is_in (int dtypes, int64_t dtype) {
  return (uint64_t)dtype < MAREA_DTYPE_COUNT && dtypes >> dtype & 1;
}

static inline bool marea_is_float (int64_t dtype) { return marea_is_in(MAREA_FLOATS, dtype); }

/* ---- switches ----
** RUN(type) is a statement that works on elements of this type; it is compiled once for each type, and the switch is
** outside of the loop in it. Of dtypes that are only stored nothing is run: loops that compute never see them. */

#define MAREA_SWITCH_DTYPE(dtype, RUN)   \
  switch ((marea_dtype)(dtype)) {        \
  case MAREA_F32: RUN(float); break;     \
  case MAREA_F64: RUN(double); break;    \
  case MAREA_I64: RUN(int64_t); break;   \
  case MAREA_U8: RUN(uint8_t); break;    \
  case MAREA_BF16:                       \
  case MAREA_F16: break;                 \
  }

/* Of floats alone; the caller's shape rule has refused integers. */
#define MAREA_SWITCH_FLOAT(dtype, RUN)   \
  switch ((marea_dtype)(dtype)) {        \
  case MAREA_F32: RUN(float); break;     \
  case MAREA_F64: RUN(double); break;    \
  case MAREA_I64:                        \
  case MAREA_U8:                         \
  case MAREA_BF16:                       \
  case MAREA_F16: break;                 \
  }

/* Of integers alone; floats take another way. */
#define MAREA_SWITCH_INTEGER(dtype, RUN) \
  switch ((marea_dtype)(dtype)) {        \
  case MAREA_I64: RUN(int64_t); break;   \
  case MAREA_U8: RUN(uint8_t); break;    \
  case MAREA_F32:                        \
  case MAREA_F64:                        \
  case MAREA_BF16:                       \
  case MAREA_F16: break;                 \
  }

/* By the size of an element, for loops that move elements without a look at their values. */
#define MAREA_SWITCH_SIZE(size, RUN)     \
  switch (size) {                        \
  case 1: RUN(uint8_t); break;           \
  case 2: RUN(uint16_t); break;          \
  case 4: RUN(uint32_t); break;          \
  case 8: RUN(uint64_t); break;          \
  }

/* ---- single elements; the compiler tests for the dtype that is expected first ---- */

/* Conversions of floats to integers cut towards zero and stay in range; NaN becomes 0. */
static inline int64_t marea_to_i64 (double x) {
  if (x != x) return 0;
  if (x >= 0x1p63) return INT64_MAX;
  return x <= -0x1p63 ? INT64_MIN : (int64_t)x;
}

static inline uint8_t marea_to_u8 (double x) { return !(x > 0) ? 0 : x >= 255 ? 255 : (uint8_t)x; }

/* Values of the dtypes that are only stored, exact, and back, rounded once to nearest even. NaN stays NaN, and becomes a
   quiet one where it is rounded; what is too large becomes infinite; subnormal numbers are kept. */
double marea_widened (int dtype, const void *x, int64_t i);
void marea_narrow (int dtype, void *x, int64_t i, double value);
void marea_narrow_integer (int dtype, void *x, int64_t i, int64_t value);

/* x[i] as a double; i64 is rounded beyond 2^53. */
static inline double marea_load (int dtype, const void *x, int64_t i) {
  switch ((marea_dtype)__builtin_expect(dtype, MAREA_F32)) {
  case MAREA_F32: return (double)((const float *)x)[i];
  case MAREA_F64: return ((const double *)x)[i];
  case MAREA_I64: return (double)((const int64_t *)x)[i];
  case MAREA_U8: return ((const uint8_t *)x)[i];
  case MAREA_BF16:
  case MAREA_F16: return marea_widened(dtype, x, i);
  }
  return 0;
}

/* x[i] := value */
static inline void marea_store (int dtype, void *x, int64_t i, double value) {
  switch ((marea_dtype)__builtin_expect(dtype, MAREA_F32)) {
  case MAREA_F32: ((float *)x)[i] = (float)value; break;
  case MAREA_F64: ((double *)x)[i] = value; break;
  case MAREA_I64: ((int64_t *)x)[i] = marea_to_i64(value); break;
  case MAREA_U8: ((uint8_t *)x)[i] = marea_to_u8(value); break;
  case MAREA_BF16:
  case MAREA_F16: marea_narrow(dtype, x, i, value); break;
  }
}

/* x[i] of an integer dtype */
static inline int64_t marea_load_integer (int dtype, const void *x, int64_t i) {
  switch ((marea_dtype)__builtin_expect(dtype, MAREA_I64)) {
  case MAREA_I64: return ((const int64_t *)x)[i];
  case MAREA_U8: return ((const uint8_t *)x)[i];
  case MAREA_F32:
  case MAREA_F64:
  case MAREA_BF16:
  case MAREA_F16: break;
  }
  return 0;
}

/* x[i] := value, of any dtype; u8 keeps the lowest byte, as integer arithmetic wraps around */
static inline void marea_store_integer (int dtype, void *x, int64_t i, int64_t value) {
  switch ((marea_dtype)dtype) {
  case MAREA_I64: ((int64_t *)x)[i] = value; break;
  case MAREA_U8: ((uint8_t *)x)[i] = (uint8_t)value; break;
  case MAREA_F32:
  case MAREA_F64: marea_store(dtype, x, i, (double)value); break;
  case MAREA_BF16:
  case MAREA_F16: marea_narrow_integer(dtype, x, i, value); break;
  }
}

/* Floats hold every integer, rounded. */
static inline bool marea_holds (int dtype, int64_t value) {
  switch ((marea_dtype)dtype) {
  case MAREA_U8: return value >= 0 && value <= 255;
  case MAREA_I64:
  case MAREA_F32:
  case MAREA_F64:
  case MAREA_BF16:
  case MAREA_F16: break;
  }
  return true;
}

/* x[i] := an attribute of kind MAREA_NUMBER that the dtype can hold (marea_want_number) */
void marea_store_number (int dtype, void *x, int64_t i, const marea_attr *value);

/* The machine's numbers of a float dtype. */
double marea_epsilon (int dtype);  /* 1 + it is the next number after 1 */
double marea_smallest (int dtype); /* the smallest normal number above 0 */

/* ---- runs of elements; steps are in elements ---- */

/* dst := src, n >= 1 elements of `size` bytes */
void marea_copy_run (int64_t n, size_t size, const void *src, int64_t src_step, void *dst, int64_t dst_step);
/* dst := src, n >= 1 elements, each rounded or cut to dst's dtype */
void marea_convert_run (const marea_context *ctx, int64_t n, int from, const void *src, int64_t src_step, int to,
                        void *dst, int64_t dst_step);

#endif
