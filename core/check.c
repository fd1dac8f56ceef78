/* SPDX-License-Identifier: MIT
** check.c: checks of the arguments of public functions: a pointer is not NULL, a tensor belongs to the context and has
** values, an attribute is one of its kind. Calls within the core are not checked again.
*/
#include <stdio.h>

#include "core.h"

marea_status marea_missing (marea_context *ctx, const char *who, const char *name) {
  return marea_fail(ctx, MAREA_EARG, "%s: argument '%s' is NULL", who, name);
}

marea_status marea_want_tensor (marea_context *ctx, const char *who, const char *name,
                                const marea_tensor *t) {
  if (!t) return marea_missing(ctx, who, name);
  if (t->ctx != ctx)
    return marea_fail(ctx, MAREA_EARG, "%s: argument '%s' belongs to another context", who, name);
  if (marea_is_over(t))
    return marea_fail(ctx, MAREA_ESTATE,
                      "%s: argument '%s', %s, is from a plan that has ended: it has no values", who, name,
                      marea_tensor_text(t).s);
  return MAREA_OK;
}

marea_status marea_want_values (const marea_tensor *t, const char *who, const char *name) {
  marea_context *ctx = t ? t->ctx : NULL;
  MAREA_TRY(marea_want_tensor(ctx, who, name, t));
  if (!marea_is_planned(t)) return MAREA_OK;
  return marea_fail(ctx, MAREA_ESTATE, "%s: %s is from a plan: it has a shape and no values", who,
                    marea_tensor_text(t).s);
}

marea_status marea_want_shape_of (marea_context *ctx, const char *who, marea_dtype dtype, int rank,
                                  const int64_t *shape) {
  if ((unsigned)dtype >= MAREA_DTYPE_COUNT)
    return marea_fail(ctx, MAREA_EARG, "%s: argument 'dtype': expected a marea_dtype, got %d", who,
                      (int)dtype);
  return rank > 0 && !shape ? marea_missing(ctx, who, "shape") : MAREA_OK;
}

marea_status marea_want_list (marea_context *ctx, const char *who, const char *name, int n,
                              const void *list) {
  if (n < 0)
    return marea_fail(ctx, MAREA_EARG, "%s: argument '%s': expected a list of 0 or more, got %d", who, name,
                      n);
  return n > 0 && !list ? marea_missing(ctx, who, name) : MAREA_OK;
}

/* ---- attributes ---- */

/* "f32|f64|..." */
#define NAME(id, name, type, kind, rank, computed) "|" name
static const char *const dtype_names = MAREA_DTYPES(NAME) + 1;

const char *marea_attr_expected (const marea_attr_spec *spec) {
  switch (spec->kind) {
  case MAREA_REAL:
  case MAREA_NUMBER: return "a number";
  case MAREA_INT: return "an integer";
  case MAREA_BOOL: return "0 or 1";
  case MAREA_ENUM: return spec->choices;
  case MAREA_DTYPE: return dtype_names;
  case MAREA_DIM: return "a dimension";
  case MAREA_INDEX: return "an index";
  case MAREA_DIMS: return "a list of at most 8 dimensions";
  case MAREA_SIZES: return "a list of at most 8 sizes";
  case MAREA_PAIR: return "an integer or a list of 2";
  case MAREA_SIDES: return "an integer, a list of 2, same or valid";
  default: return "an integer, a list of 2 or 4, same or valid";
  }
}

int64_t marea_count_choices (const char *choices) {
  int64_t n = 1;
  for (; *choices; choices++) n += *choices == '|';
  return n;
}

/* Has a scalar its initial value, which may be "not given"? */
static bool is_initial (const marea_attr_spec *spec, const marea_attr *a) {
  if (spec->initial == MAREA_REQUIRED) return false;
  if (spec->initial == MAREA_NONE) return a->n == 0 && a->i == INT64_MIN;
  return a->n == 1 && a->i == (int64_t)spec->initial;
}

static bool is_within (const marea_attr *a, int64_t count) { return a->n == 1 && a->i >= 0 && a->i < count; }

static bool is_one_of_its_kind (const marea_attr_spec *spec, const marea_attr *a) {
  switch (spec->kind) {
  case MAREA_DIMS:
  case MAREA_SIZES: return a->n >= 0 && a->n <= MAREA_MAX_RANK;
  case MAREA_PAIR: return a->n == 2 || (a->n == 0 && spec->initial == MAREA_NONE);
  case MAREA_PADDING: return a->n == 4 || a->n == MAREA_SAME;
  case MAREA_SIDES: return a->n == 2 || a->n == MAREA_SAME;
  case MAREA_BOOL: return is_within(a, 2) || is_initial(spec, a);
  case MAREA_DTYPE: return is_within(a, MAREA_DTYPE_COUNT) || is_initial(spec, a);
  case MAREA_ENUM: return is_initial(spec, a) || is_within(a, marea_count_choices(spec->choices));
  case MAREA_REAL: return a->n == 1 || (a->n == 0 && spec->initial == MAREA_NONE);
  case MAREA_NUMBER: return a->n == 1 || a->n == MAREA_EXACT;
  default: return a->n == 1 || is_initial(spec, a);
  }
}

/* What was given, for messages; of kinds that allow every value only a missing one is an error. */
static marea_text described (const marea_attr_spec *spec, const marea_attr *a) {
  const bool choice = spec->kind == MAREA_BOOL || spec->kind == MAREA_ENUM || spec->kind == MAREA_DTYPE;
  marea_text text;
  if (choice && a->n == 1) snprintf(text.s, sizeof text.s, "%lld", (long long)a->i);
  else if (a->n == 0) snprintf(text.s, sizeof text.s, "no value, n = 0");
  else snprintf(text.s, sizeof text.s, "n = %d", a->n);
  return text;
}

marea_status marea_check_attrs (marea_context *ctx, const marea_op *op, const marea_attr *attrs) {
  const unsigned any_value = 1u << MAREA_REAL | 1u << MAREA_NUMBER | 1u << MAREA_INT | 1u << MAREA_DIM |
                             1u << MAREA_INDEX;
  for (int k = 0; op->attrs && op->attrs[k].name; k++) {
    const marea_attr_spec *spec = &op->attrs[k];
    if (attrs[k].n == 1 && any_value >> spec->kind & 1) continue;
    if (!is_one_of_its_kind(spec, &attrs[k]))
      return marea_fail(ctx, MAREA_EARG, "%s: argument '%s': expected %s, got %s", op->name, spec->name,
                        marea_attr_expected(spec), described(spec, &attrs[k]).s);
  }
  return MAREA_OK;
}
