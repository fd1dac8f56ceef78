/* SPDX-License-Identifier: MIT
** create.c: tensors of given contents, without inputs: full, arange, linspace, eye. Their results are
** constants for gradients. Integers are exact; everything else is worked out in double.
*/
#include <math.h>

#include "core.h"

#define CREATE(op)                                                                             \
  .name = #op, .family = "create", .flags = MAREA_NO_GRAD | MAREA_STORES, .shape = op##_shape, \
  .forward = op##_forward
#define DTYPE_ATTR \
  { "dtype", MAREA_DTYPE, MAREA_F32, NULL, "dtype of the result" }

#define LARGEST_COUNT 9007199254740992.0 /* 2^53 */

static void put (marea_tensor *t, int64_t i, marea_attr value) {
  marea_store_number(t->dtype, marea_at(t), i, &value);
}

/* The shape rule of a vector of n elements. */
static void vector_of (marea_call *c, int64_t n, int64_t dtype) {
  marea_layout_set(&c->layout[0], (int)dtype, 1, &n);
}

/* ---- full -------------------------------------------------------------------------------------------- */

static marea_status full_shape (marea_call *c) {
  const marea_attr *shape = &c->attr[0];
  MAREA_TRY(marea_want_number(c, 1, (int)c->attr[2].i));
  marea_layout_set(&c->layout[0], (int)c->attr[2].i, shape->n, shape->v);
  return MAREA_OK;
}

static marea_status full_forward (marea_call *c) {
  marea_fill(c->ctx, c->out[0], &c->attr[1]);
  return MAREA_OK;
}

const marea_op marea_op_full = {
    CREATE(full),
    .attrs = MAREA_ATTRS({"shape", MAREA_SIZES, MAREA_REQUIRED, NULL, "sizes; {} for a single number"},
                         {"value", MAREA_NUMBER, 0, NULL, "of every element"}, DTYPE_ATTR),
    .sample = "return {}, {shape = g.shape(0, 4), value = g.int(0, 9), dtype = g.pick{'f32', 'f64', 'i64', "
              "'u8'}}",
    .doc = "full(shape, value, dtype): every element is `value`. Errors: a negative size; a value that an "
           "integer dtype cannot hold. Integers are exact in i64, beyond 2^53 too.",
};

/* ---- arange ------------------------------------------------------------------------------------------ */

/* Are start, stop and step integers? They are then added as such, exact beyond 2^53. */
static bool is_whole (const marea_call *c) {
  for (int i = 0; i < 3; i++)
    if (c->attr[i].n != MAREA_EXACT && !(i == 2 && c->attr[i].f == 1)) return false;
  return true;
}

/* floor((stop - start) / step); a quotient that rounding left just below an integer counts as it. */
static double count_steps (const marea_call *c) {
  const double start = marea_attr_number(&c->attr[0]), stop = marea_attr_number(&c->attr[1]);
  const double step = marea_attr_number(&c->attr[2]);
  if (!is_whole(c)) return floor((stop - start) / step * (1 + 8 * 0x1p-52));
  const __int128 way = (__int128)c->attr[1].i - c->attr[0].i, by = marea_attr_integer(&c->attr[2]);
  return way != 0 && (way < 0) != (by < 0) ? -1 : (double)(way / by);
}

static marea_attr element_at (const marea_call *c, int64_t i) {
  if (is_whole(c)) {
    const uint64_t step = (uint64_t)marea_attr_integer(&c->attr[2]);
    return (marea_attr){.n = MAREA_EXACT, .i = (int64_t)((uint64_t)c->attr[0].i + step * (uint64_t)i)};
  }
  return (marea_attr){.n = 1,
                      .f = marea_attr_number(&c->attr[0]) + marea_attr_number(&c->attr[2]) * (double)i};
}

/* A step may be negative even if the dtype has no negative numbers. */
static marea_status check_step (marea_call *c) {
  const double step = marea_attr_number(&c->attr[2]);
  if (marea_is_float((int)c->attr[3].i) || step == floor(step)) return MAREA_OK;
  return marea_want_number(c, 2, (int)c->attr[3].i);
}

static marea_status check_elements (marea_call *c, int64_t n) {
  const marea_attr given = c->attr[1];
  MAREA_TRY(marea_want_number(c, 0, (int)c->attr[3].i));
  MAREA_TRY(check_step(c));
  c->attr[1] = element_at(c, n - 1);
  MAREA_TRY(marea_want_number(c, 1, (int)c->attr[3].i));
  c->attr[1] = given;
  return MAREA_OK;
}

static marea_status arange_shape (marea_call *c) {
  const double start = marea_attr_number(&c->attr[0]), stop = marea_attr_number(&c->attr[1]);
  const double step = marea_attr_number(&c->attr[2]);
  if (!isfinite(start) || !isfinite(stop) || !isfinite(step) || step == 0)
    return marea_reject(c, MAREA_EARG,
                        "expected finite start and stop and a step other than 0, got %g, %g, %g", start, stop,
                        step);
  const double steps = count_steps(c);
  if (steps >= LARGEST_COUNT) return marea_reject(c, MAREA_EARG, "%g elements are too many", steps + 1);
  const int64_t n = steps < 0 ? 0 : (int64_t)steps + 1;
  if (n > 0) MAREA_TRY(check_elements(c, n));
  vector_of(c, n, c->attr[3].i);
  return MAREA_OK;
}

static marea_status arange_forward (marea_call *c) {
  for (int64_t i = 0; i < c->out[0]->shape[0] && !MAREA_STOPPING(c->ctx, i); i++)
    put(c->out[0], i, element_at(c, i));
  return MAREA_OK;
}

const marea_op marea_op_arange = {
    CREATE(arange),
    .attrs = MAREA_ATTRS({"start", MAREA_NUMBER, MAREA_REQUIRED, NULL, "first value"},
                         {"stop", MAREA_NUMBER, MAREA_REQUIRED, NULL, "limit, included"},
                         {"step", MAREA_NUMBER, 1, NULL, "difference of neighbours, may be negative"},
                         DTYPE_ATTR),
    .sample = "return {}, {start = g.int(-3, 3), stop = g.int(-5, 9), step = g.pick{1, 2, 0.5, -1}}",
    .doc = "arange(start, stop, step, dtype) = {start, start + step, ...}, shape (n), `stop` included as in "
           "Lua's for loop; empty when stop lies on the other side of start. Elements are start + i step, so "
           "rounding does not add up; where the number of elements matters, linspace states it. Errors: step "
           "0; values an integer dtype cannot hold.",
};

/* ---- linspace ---------------------------------------------------------------------------------------- */

static marea_status linspace_shape (marea_call *c) {
  const int64_t n = c->attr[2].i, dtype = c->attr[3].i;
  if (n < 0)
    return marea_reject(c, MAREA_EARG, "argument 'n': expected at least 0 elements, got %lld", (long long)n);
  if (!marea_is_float(dtype))
    return marea_reject(c, MAREA_EARG, "argument 'dtype': expected %s, got %s",
                        marea_dtypes_text(MAREA_FLOATS).s, marea_dtype_name((marea_dtype)dtype));
  vector_of(c, n, dtype);
  return MAREA_OK;
}

/* Counts from the nearer end, so that both ends are exact and the values symmetric. */
static marea_status linspace_forward (marea_call *c) {
  const double start = c->attr[0].f, stop = c->attr[1].f;
  const int64_t n = c->out[0]->shape[0];
  const double step = n > 1 ? (stop - start) / (double)(n - 1) : 0;
  for (int64_t i = 0; i < n && !MAREA_STOPPING(c->ctx, i); i++) {
    const double value = i < (n + 1) / 2 ? start + step * (double)i : stop - step * (double)(n - 1 - i);
    put(c->out[0], i, (marea_attr){.n = 1, .f = value});
  }
  return MAREA_OK;
}

const marea_op marea_op_linspace = {
    CREATE(linspace),
    .attrs = MAREA_ATTRS({"start", MAREA_REAL, MAREA_REQUIRED, NULL, "first value"},
                         {"stop", MAREA_REAL, MAREA_REQUIRED, NULL, "last value"},
                         {"n", MAREA_INT, MAREA_REQUIRED, NULL, "number of values"}, DTYPE_ATTR),
    .sample = "return {}, {start = g.real(-3, 3), stop = g.real(-3, 3), n = g.int(0, 9)}",
    .doc = "linspace(start, stop, n, dtype): n values at equal distances, shape (n), both ends exact; n = 1 "
           "gives start. dtype f32 or f64. Error: n < 0.",
};

/* ---- eye --------------------------------------------------------------------------------------------- */

static marea_status eye_shape (marea_call *c) {
  const int64_t n = c->attr[0].i, sizes[] = {n, n};
  if (n < 0)
    return marea_reject(c, MAREA_EARG, "argument 'n': expected a size of at least 0, got %lld", (long long)n);
  marea_layout_set(&c->layout[0], (int)c->attr[1].i, 2, sizes);
  return MAREA_OK;
}

static marea_status eye_forward (marea_call *c) {
  marea_tensor *y = c->out[0];
  const int64_t n = y->shape[0];
  marea_clear(c->ctx, marea_at(y), (size_t)(n * n) * marea_dtype_size((marea_dtype)y->dtype));
  for (int64_t i = 0; i < n && !marea_stopping(c->ctx); i++)
    put(y, i * (n + 1), (marea_attr){.n = MAREA_EXACT, .i = 1});
  return MAREA_OK;
}

const marea_op marea_op_eye = {
    CREATE(eye),
    .attrs = MAREA_ATTRS({"n", MAREA_INT, MAREA_REQUIRED, NULL, "rows and columns"}, DTYPE_ATTR),
    .sample = "return {}, {n = g.int(0, 6), dtype = g.pick{'f32', 'f64', 'i64', 'u8'}}",
    .doc = "eye(n, dtype): the identity matrix, shape (n, n). Error: n < 0.",
};
