/* SPDX-License-Identifier: MIT
** dtype.c: names, sizes and promotion of dtypes, and the loops that copy and convert elements.
*/
#include "dtype.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core.h"
#include "kernels/half.h"

/* ORDER: marea_select_kernels fills the tables of these dtypes, by position. */
_Static_assert(MAREA_F32 == 0 && MAREA_F64 == 1 && MAREA_I64 == 2 && MAREA_U8 == 3 && MAREA_COMPUTED == 15,
               "marea_select_kernels has a table for every dtype that is computed with");

const char *marea_dtype_name (marea_dtype dtype) {
#define NAME(id, name, type, kind, rank, computed) [MAREA_##id] = name,
  static const char *const name[MAREA_DTYPE_COUNT] = {MAREA_DTYPES(NAME)};
#undef NAME
  return (unsigned)dtype < MAREA_DTYPE_COUNT ? name[dtype] : "?";
}

size_t marea_dtype_size (marea_dtype dtype) {
  return (unsigned)dtype < MAREA_DTYPE_COUNT ? marea_element_size(dtype) : 0;
}

bool marea_dtype_is_float (marea_dtype dtype) { return marea_is_float(dtype); }

marea_dtype marea_dtype_computed (marea_dtype dtype) {
  return (unsigned)dtype < MAREA_DTYPE_COUNT ? (marea_dtype)marea_computed_in(dtype) : dtype;
}

marea_dtype marea_promote (marea_dtype a, marea_dtype b) {
#define RANK(id, name, type, kind, rank, computed) [MAREA_##id] = rank,
  static const uint8_t rank[MAREA_DTYPE_COUNT] = {MAREA_DTYPES(RANK)};
#undef RANK
  if ((unsigned)a >= MAREA_DTYPE_COUNT) return b;
  if ((unsigned)b >= MAREA_DTYPE_COUNT || rank[b] < rank[a] || a == b) return a;
  return rank[b] > rank[a] ? b : (marea_dtype)marea_computed_in(a);
}

double marea_epsilon (int dtype) {
#define EPSILON_float FLT_EPSILON
#define EPSILON_double DBL_EPSILON
#define EPSILON(type) epsilon = (double)EPSILON_##type
  double epsilon = 0;
  MAREA_SWITCH_FLOAT(dtype, EPSILON);
  return epsilon;
}

double marea_smallest (int dtype) {
#define SMALLEST_float FLT_MIN
#define SMALLEST_double DBL_MIN
#define SMALLEST(type) smallest = (double)SMALLEST_##type
  double smallest = 0;
  MAREA_SWITCH_FLOAT(dtype, SMALLEST);
  return smallest;
}

void marea_store_number (int dtype, void *x, int64_t i, const marea_attr *value) {
  if (marea_is_float(dtype)) marea_store(dtype, x, i, marea_attr_number(value));
  else marea_store_integer(dtype, x, i, marea_attr_integer(value));
}

/* ---- dtypes that are only stored ---- */

/* RUN(name) for one of them. */
#define SWITCH_STORED(dtype, RUN)    \
  switch ((marea_dtype)(dtype)) {    \
  case MAREA_BF16: RUN(bf16); break; \
  case MAREA_F16: RUN(f16); break;   \
  case MAREA_F32:                    \
  case MAREA_F64:                    \
  case MAREA_I64:                    \
  case MAREA_U8: break;              \
  }

/* To f32 with the last bit 1 where digits are lost, so that rounding it on, to fewer digits, rounds x once. */
static float to_odd_float (double x) {
  const float nearest = (float)x;
  uint32_t bits = bits_of(nearest);
  if ((double)nearest == x || x != x) return nearest;
  bits -= fabs((double)nearest) > fabs(x);
  return float_of(bits | 1);
}

double marea_widened (int dtype, const void *x, int64_t i) {
#define WIDEN(name) value = (double)from_##name(((const marea_##name *)x)[i])
  double value = 0;
  SWITCH_STORED(dtype, WIDEN);
  return value;
}

void marea_narrow (int dtype, void *x, int64_t i, double value) {
#define NARROW(name) ((marea_##name *)x)[i] = to_##name(to_odd_float(value))
  SWITCH_STORED(dtype, NARROW);
}

void marea_narrow_integer (int dtype, void *x, int64_t i, int64_t value) {
  const uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
  const uint64_t few = (magnitude & ~(uint64_t)2047) | ((magnitude & 2047) != 0)
                                                           << 11; /* 53 bits, rounded to odd */
  const double real = (double)(magnitude >> 53 ? few : magnitude);
  marea_narrow(dtype, x, i, value < 0 ? -real : real);
}

/* A host's element may lie at any address. */
double marea_number_at (marea_dtype dtype, const void *at) {
  MAREA_ENTER;
  _Alignas(double) char element[sizeof(double)]; /* of any dtype */
  if (!at || (unsigned)dtype >= MAREA_DTYPE_COUNT) return 0;
  memcpy(element, at, marea_element_size((int)dtype));
  return marea_load((int)dtype, element, 0);
}

void marea_put_number (marea_dtype dtype, void *at, double value) {
  MAREA_ENTER;
  _Alignas(double) char element[sizeof(double)];
  if (!at || (unsigned)dtype >= MAREA_DTYPE_COUNT) return;
  marea_store((int)dtype, element, 0, value);
  memcpy(at, element, marea_element_size((int)dtype));
}

/* ---- copies ---- */

/* n copies of one element, by doubling what is there */
static void fill_run (int64_t n, size_t size, const char *src, char *dst) {
  const size_t bytes = (size_t)n * size, most = 4096; /* a part stays in the first-level cache */
  size_t done = size;
  memcpy(dst, src, size);
  while (done < bytes) {
    size_t part = MAREA_MIN(MAREA_MIN(done, most), bytes - done);
    memcpy(dst + done, dst, part);
    done += part;
  }
}

void marea_copy_run (int64_t n, size_t size, const void *src, int64_t ss, void *dst, int64_t ds) {
#define COPY(word) \
  for (int64_t i = 0; i < n; i++) ((word *)dst)[i * ds] = ((const word *)src)[i * ss]
  if (ss == 1 && ds == 1) memcpy(dst, src, (size_t)n * size);
  else if (ss == 0 && ds == 1) fill_run(n, size, src, dst);
  else MAREA_SWITCH_SIZE(size, COPY);
}

/* ---- conversions ---- */

static inline uint8_t integer_to_u8 (int64_t x) { return x < 0 ? 0 : x > 255 ? 255 : (uint8_t)x; }

/* One loop per pair of types, with steps of 1 known to the compiler where they are 1. */
#define CONVERT(from, to, value_of)               \
  if (ss == 1 && ds == 1) {                       \
    for (int64_t i = 0; i < n; i++) {             \
      const from x = ((const from *)src)[i];      \
      ((to *)dst)[i] = value_of(x);               \
    }                                             \
  } else {                                        \
    for (int64_t i = 0; i < n; i++) {             \
      const from x = ((const from *)src)[i * ss]; \
      ((to *)dst)[i * ds] = value_of(x);          \
    }                                             \
  }

/* From every dtype to one, by what makes a `to` of a float and of an integer. */
#define CONVERSIONS_TO(to, of_float, of_integer)                                                         \
  static void convert_to_##to(int64_t n, int from, const void *src, int64_t ss, void *dst, int64_t ds) { \
    switch ((marea_dtype)from) {                                                                         \
    case MAREA_F32: CONVERT(float, to, of_float) break;                                                  \
    case MAREA_F64: CONVERT(double, to, of_float) break;                                                 \
    case MAREA_I64: CONVERT(int64_t, to, of_integer) break;                                              \
    case MAREA_U8: CONVERT(uint8_t, to, of_integer) break;                                               \
    case MAREA_BF16:                                                                                     \
    case MAREA_F16: break;                                                                               \
    }                                                                                                    \
  }
CONVERSIONS_TO(float, (float), (float))
CONVERSIONS_TO(double, (double), (double))
CONVERSIONS_TO(int64_t, marea_to_i64, (int64_t))
CONVERSIONS_TO(uint8_t, marea_to_u8, integer_to_u8)

/* Of any dtypes and steps, one element after the other. */
static void convert_each (int64_t n, int from, const void *src, int64_t ss, int to, void *dst, int64_t ds) {
  if (marea_is_float(from)) {
    for (int64_t i = 0; i < n; i++) marea_store(to, dst, i * ds, marea_load(from, src, i * ss));
  } else {
    for (int64_t i = 0; i < n; i++)
      marea_store_integer(to, dst, i * ds, marea_load_integer(from, src, i * ss));
  }
}

/* If one of the two is only stored: converts them. */
static bool convert_stored (const marea_context *ctx, int64_t n, int from, const void *src, int64_t ss,
                            int to, void *dst, int64_t ds) {
#define WIDEN_RUN(name) ctx->kernels[to]->widen_##name((size_t)n, src, dst)
#define NARROW_RUN(name) ctx->kernels[from]->narrow_##name((size_t)n, src, dst)
  const bool side_by_side = ss == 1 && ds == 1;
  if (!((MAREA_STORED >> from | MAREA_STORED >> to) & 1)) return false;
  if (side_by_side && marea_computed_in(from) == to) SWITCH_STORED(from, WIDEN_RUN)
  else if (side_by_side && marea_computed_in(to) == from) SWITCH_STORED(to, NARROW_RUN)
  else convert_each(n, from, src, ss, to, dst, ds);
  return true;
}

void marea_convert_run (const marea_context *ctx, int64_t n, int from, const void *src, int64_t ss, int to,
                        void *dst, int64_t ds) {
#define CONVERT_TO(type) convert_to_##type(n, from, src, ss, dst, ds)
  if (from == to) marea_copy_run(n, marea_element_size(from), src, ss, dst, ds);
  else if (!convert_stored(ctx, n, from, src, ss, to, dst, ds)) MAREA_SWITCH_DTYPE(to, CONVERT_TO);
}
