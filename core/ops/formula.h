/* SPDX-License-Identifier: MIT
** formula.h: gradients written as formulas over operators, for the elementwise families, reductions and
** losses.
**
**   static marea_status sin_vjp (marea_vjp *v) {
**     formula f = {.v = v};
**     give(&f, 0, mul(&f, v->dout[0], unary(&f, &marea_op_cos, v->in[0])));
**     return finish(&f);
**   }
**
** Each step runs one operator, through marea_run like every vjp, and returns a tensor that the formula
** owns. After a failure all further steps do nothing and return NULL, so a formula needs no check but that
** of `finish`, which also releases every intermediate result, on every path.
*/
#ifndef MAREA_FORMULA_H
#define MAREA_FORMULA_H

#include "vjp.h"

typedef struct formula {
  marea_vjp *v;
  marea_status status;
  int n;
  marea_tensor *made[48];
} formula;

/* No step failed so far, and there is space for another result. */
static inline bool goes_on (formula *f) {
  if (f->status == MAREA_OK && f->n == MAREA_COUNT(f->made))
    f->status = marea_fail(f->v->ctx, MAREA_ESTATE, "%s: its gradient has too many steps", f->v->op->name);
  return f->status == MAREA_OK;
}

static inline marea_tensor *own (formula *f, marea_tensor *made) {
  if (f->status != MAREA_OK) return NULL;
  f->made[f->n++] = made;
  return made;
}

/* op(a), op(a, b), op(a, b, c) with attributes `attrs` (NULL: initial); n is the number of tensors. */
static inline marea_tensor *step (formula *f, const marea_op *op, const marea_attr *attrs, int n,
                                  marea_tensor *a, marea_tensor *b, marea_tensor *c) {
  marea_tensor *out = NULL;
  if (!goes_on(f)) return NULL;
  f->status = attrs ? marea_run_with(f->v->ctx, op, attrs, &out, n, a, b, c)
                    : marea_run(f->v->ctx, op, &out, n, a, b, c);
  return own(f, out);
}

static inline marea_tensor *unary (formula *f, const marea_op *op, marea_tensor *a) {
  return step(f, op, NULL, 1, a, NULL, NULL);
}

static inline marea_tensor *binary (formula *f, const marea_op *op, marea_tensor *a, marea_tensor *b) {
  return step(f, op, NULL, 2, a, b, NULL);
}

static inline marea_tensor *add (formula *f, marea_tensor *a, marea_tensor *b) {
  return binary(f, &marea_op_add, a, b);
}

static inline marea_tensor *sub (formula *f, marea_tensor *a, marea_tensor *b) {
  return binary(f, &marea_op_sub, a, b);
}

static inline marea_tensor *mul (formula *f, marea_tensor *a, marea_tensor *b) {
  return binary(f, &marea_op_mul, a, b);
}

static inline marea_tensor *divide (formula *f, marea_tensor *a, marea_tensor *b) {
  return binary(f, &marea_op_div, a, b);
}

static inline marea_tensor *square (formula *f, marea_tensor *a) { return unary(f, &marea_op_square, a); }

/* op(a, number) */
static inline marea_tensor *with_number (formula *f, const marea_op *op, marea_tensor *a, double number) {
  marea_tensor *out = NULL;
  if (!goes_on(f)) return NULL;
  f->status = marea_run_number(f->v->ctx, op, &out, a, number);
  return own(f, out);
}

/* a * number; a itself for 1 */
static inline marea_tensor *times (formula *f, marea_tensor *a, double number) {
  return number == 1 ? a : with_number(f, &marea_op_mul, a, number);
}

static inline marea_tensor *plus (formula *f, marea_tensor *a, double number) {
  return number == 0 ? a : with_number(f, &marea_op_add, a, number);
}

/* A 0-dim constant of like's dtype. */
static inline marea_tensor *constant (formula *f, const marea_tensor *like, double value) {
  const marea_attr attrs[] = {marea_attr_list(0, NULL), marea_attr_real(value), marea_attr_int(like->dtype)};
  return step(f, &marea_op_full, attrs, 0, NULL, NULL, NULL);
}

/* a where mask is not 0, else b */
static inline marea_tensor *where (formula *f, marea_tensor *mask, marea_tensor *a, marea_tensor *b) {
  return step(f, &marea_op_where, NULL, 3, mask, a, b);
}

/* a where mask is not 0, else 0 */
static inline marea_tensor *keep_where (formula *f, marea_tensor *mask, marea_tensor *a) {
  return f->status == MAREA_OK ? where(f, mask, a, constant(f, a, 0)) : NULL;
}

static inline marea_tensor *sum_dims (formula *f, marea_tensor *a, marea_attr dims, bool keepdim) {
  const marea_attr attrs[] = {dims, marea_attr_int(keepdim)};
  return step(f, &marea_op_sum, attrs, 1, a, NULL, NULL);
}

static inline marea_tensor *sum_all (formula *f, marea_tensor *a) {
  return sum_dims(f, a, marea_attr_list(0, NULL), false);
}

/* a summed over what broadcasting had repeated, to the shape of `like` */
static inline marea_tensor *sum_like (formula *f, marea_tensor *a, const marea_tensor *like) {
  if (f->status != MAREA_OK) return NULL;
  if (marea_has_shape(a, like->rank, like->shape)) return a;
  const marea_attr shape = marea_attr_list(like->rank, like->shape);
  return step(f, &marea_op_sum_to, &shape, 1, a, NULL, NULL);
}

static inline marea_tensor *expand_like (formula *f, marea_tensor *a, const marea_tensor *like) {
  const marea_attr shape = marea_attr_list(like->rank, like->shape);
  return step(f, &marea_op_expand, &shape, 1, a, NULL, NULL);
}

/* din[i] := t */
static inline void give (formula *f, int i, marea_tensor *t) {
  if (f->status == MAREA_OK) f->v->din[i] = marea_retain(t);
}

static inline marea_status finish (formula *f) {
  while (f->n > 0) marea_release(f->made[--f->n]);
  return f->status;
}

#endif
