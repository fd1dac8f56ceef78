/* SPDX-License-Identifier: MIT
** shape_rules.c: the checks that shape rules are made of. Each one that can fail names the operator, the
** argument, what was expected and what came; dims and indices are shown in the user's base
** (config.index_base).
*/
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core.h"

const char *marea_input_name (const marea_op *op, int i) {
  return op->inputs[op->inputs[0].variadic ? 0 : i].name;
}

static const char *name_of (const marea_call *c, int input) { return marea_input_name(c->op, input); }

/* A dimension counted from 0, as the user counts. */
static int shown (const marea_call *c, int dim) { return dim + c->ctx->config.index_base; }

/* ---- layouts --------------------------------------------------------------------------------------- */

void marea_layout_set (marea_layout *l, int dtype, int rank, const int64_t *shape) {
  l->dtype = (int8_t)dtype;
  l->rank = (int8_t)rank;
  l->view = false;
  l->offset = 0;
  for (int d = 0; d < rank; d++) l->shape[d] = shape[d];
}

void marea_layout_like (marea_layout *l, const marea_tensor *t) {
  marea_layout_set(l, t->dtype, t->rank, t->shape);
}

marea_status marea_shape_same (marea_call *c) {
  marea_layout_like(&c->layout[0], c->in[0]);
  return MAREA_OK;
}

/* ---- broadcasting (NumPy's rule: shapes are aligned at the last dimension; sizes are equal or 1) ------- */

marea_status marea_broadcast (marea_call *c, int rank, const int64_t *shape, marea_layout *l) {
  const int wide = MAREA_MAX(rank, l->rank);
  int64_t out[MAREA_MAX_RANK];
  for (int back = 1; back <= wide; back++) {
    const int64_t a = back <= l->rank ? l->shape[l->rank - back] : 1;
    const int64_t b = back <= rank ? shape[rank - back] : 1;
    if (a != b && a != 1 && b != 1)
      return marea_reject(c, MAREA_ESHAPE,
                          "shapes %s and %s do not broadcast: counted from the last, dimension %d is %lld "
                          "and %lld; sizes must be equal or 1",
                          marea_shape_text(l->rank, l->shape).s, marea_shape_text(rank, shape).s, back,
                          (long long)a, (long long)b);
    out[wide - back] = a == 1 ? b : a;
  }
  l->rank = (int8_t)wide;
  memcpy(l->shape, out, sizeof out[0] * (size_t)wide);
  return MAREA_OK;
}

marea_status marea_shape_broadcast (marea_call *c) {
  marea_layout *l = &c->layout[0];
  marea_layout_like(l, c->in[0]);
  for (int i = 1; i < c->n_in; i++) {
    const marea_tensor *t = c->in[i];
    if (t && !marea_has_shape(t, l->rank, l->shape)) MAREA_TRY(marea_broadcast(c, t->rank, t->shape, l));
  }
  return MAREA_OK;
}

/* ---- what an input must be ------------------------------------------------------------------------- */

marea_status marea_want_rank (marea_call *c, int input, int rank, const char *names) {
  const marea_tensor *t = c->in[input];
  if (t->rank == rank) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE, "argument '%s': expected %d dimensions %s, got %s", name_of(c, input),
                      rank, names, marea_tensor_text(t).s);
}

/* "f32, f64 or i64" */
marea_text marea_dtypes_text (int dtypes) {
  if (dtypes & MAREA_COMPUTED)
    dtypes &= MAREA_COMPUTED; /* what one converts to, where another one is wanted */
  marea_text text = {""};
  size_t n = 0;
  for (int k = 0; k < MAREA_DTYPE_COUNT; k++) {
    if (!(dtypes >> k & 1)) continue;
    const char *separator = n == 0 ? "" : dtypes >> (k + 1) ? ", " : " or ";
    const char *parts[] = {separator, marea_dtype_name((marea_dtype)k)};
    for (int i = 0; i < 2; i++)
      for (const char *s = parts[i]; *s && n + 1 < sizeof text.s; s++) text.s[n++] = *s;
  }
  text.s[n] = '\0';
  return text;
}

marea_status marea_want_dtype (marea_call *c, int input, int dtypes) {
  const marea_tensor *t = c->in[input];
  if (dtypes >> t->dtype & 1) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE, "argument '%s': expected dtype %s, got %s", name_of(c, input),
                      marea_dtypes_text(dtypes).s, marea_tensor_text(t).s);
}

marea_status marea_want_size (marea_call *c, int input, int dim, int64_t size, const char *because) {
  const marea_tensor *t = c->in[input];
  if (t->shape[dim] == size) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE, "argument '%s': expected size %lld in dimension %d (%s), got %s",
                      name_of(c, input), (long long)size, shown(c, dim), because, marea_tensor_text(t).s);
}

marea_status marea_want_shape (marea_call *c, int input, const marea_tensor *like) {
  const marea_tensor *t = c->in[input];
  if (marea_has_shape(t, like->rank, like->shape)) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE, "argument '%s': expected shape %s, got %s", name_of(c, input),
                      marea_shape_text(like->rank, like->shape).s, marea_shape_text(t->rank, t->shape).s);
}

marea_status marea_want_int (marea_call *c, int attr, int64_t value, int64_t least) {
  const char *name = c->op->attrs[attr].name;
  if (value < least)
    return marea_reject(c, MAREA_EARG, "argument '%s': expected %lld or more, got %lld", name,
                        (long long)least, (long long)value);
  if (value > INT32_MAX)
    return marea_reject(c, MAREA_EARG, "argument '%s': expected at most %d, got %lld", name, INT32_MAX,
                        (long long)value);
  return MAREA_OK;
}

marea_status marea_want_slope (marea_call *c, int attr) {
  if (c->attr[attr].n == 0)
    c->attr[attr] = (marea_attr){.n = 1, .f = c->attr[attr - 1].i == MAREA_ACT_ELU ? 1 : 0.01};
  const double slope = c->attr[attr].f;
  if (slope >= 0) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument '%s': expected a number >= 0, got %g", c->op->attrs[attr].name,
                      slope);
}

/* ---- dims and indices ------------------------------------------------------------------------------ */

/* *at := 0..size-1; `what` is "dimension" or "index". */
static marea_status resolve (marea_call *c, int attr, int64_t *at, int64_t size, const char *what) {
  const int base = c->ctx->config.index_base;
  const char *name = c->op->attrs[attr].name;
  const int64_t given = *at;
  if (given >= 0 ? given < size : given >= -size) {
    if (given < 0) *at += size;
    return MAREA_OK;
  }
  const long long seen = (long long)(given < 0 ? given : given + base);
  if (size == 0)
    return marea_reject(c, MAREA_EARG, "argument '%s': %s %lld does not exist, there are none", name, what,
                        seen);
  return marea_reject(c, MAREA_EARG, "argument '%s': %s %lld is out of range, expected %d..%lld or -%lld..-1",
                      name, what, seen, base, (long long)(size - 1 + base), (long long)size);
}

marea_status marea_resolve_dim (marea_call *c, int attr, int rank) {
  return resolve(c, attr, &c->attr[attr].i, rank, "dimension");
}

marea_status marea_resolve_index (marea_call *c, int attr, int64_t size) {
  return resolve(c, attr, &c->attr[attr].i, size, "index");
}

/* Leaves every dimension of the set in v, in rising order; with n = 0 that is all of them. */
marea_status marea_resolve_dims (marea_call *c, int attr, int rank, bool *set) {
  marea_attr *a = &c->attr[attr];
  for (int d = 0; d < rank; d++) set[d] = a->n == 0;
  for (int k = 0; k < a->n; k++) {
    MAREA_TRY(resolve(c, attr, &a->v[k], rank, "dimension"));
    if (set[a->v[k]])
      return marea_reject(c, MAREA_EARG, "argument '%s': dimension %d is listed twice",
                          c->op->attrs[attr].name, shown(c, (int)a->v[k]));
    set[a->v[k]] = true;
  }
  a->n = 0;
  for (int d = 0; d < rank; d++)
    if (set[d]) a->v[a->n++] = d;
  return MAREA_OK;
}

marea_status marea_want_number (marea_call *c, int attr, int dtype) {
  const marea_attr *a = &c->attr[attr];
  const bool exact = a->n == MAREA_EXACT;
  if (marea_is_float(dtype)) return MAREA_OK;
  const bool whole = exact || (a->f == floor(a->f) && a->f >= -0x1p63 && a->f < 0x1p63);
  const int64_t value = marea_attr_integer(a);
  if (whole && marea_holds(dtype, value)) return MAREA_OK;
  char got[32];
  if (exact) snprintf(got, sizeof got, "%lld", (long long)a->i);
  else snprintf(got, sizeof got, "%.17g", a->f);
  return marea_reject(c, MAREA_EARG, "argument '%s': expected an integer%s for dtype %s, got %s",
                      c->op->attrs[attr].name, marea_element_size(dtype) == 1 ? " in 0..255" : " of 64 bits",
                      marea_dtype_name((marea_dtype)dtype), got);
}
