/* SPDX-License-Identifier: MIT
** reduce.h: what operators that reduce dimensions share: attributes, shapes, samples, and the shapes that gradients
** need.
*/
#ifndef MAREA_REDUCE_H
#define MAREA_REDUCE_H

#include "reduce_loops.h"
#include "formula.h"

#define DIMS_ATTR \
  { "dims", MAREA_DIMS, 0, NULL, "dimensions to reduce; none given: all" }
#define KEEPDIM_ATTR \
  { "keepdim", MAREA_BOOL, 0, NULL, "keep reduced dimensions with size 1" }
#define REDUCTION(op) .name = #op, .family = "reduce", .inputs = {{"x", "any shape"}}, .forward = op##_forward
#define OVER_DIMS .attrs = MAREA_ATTRS(DIMS_ATTR, KEEPDIM_ATTR)
/* Up to three dimensions, some of them reduced; `some` becomes the list of these. */
#define SOME_DIMS "local some = {} for d = 1, #s do if g.bool() then some[#some + 1] = d end end "
#define SAMPLE_OF(tensor) \
  "local s = g.shape(1, 4, 1) " SOME_DIMS "return {" tensor "}, {dims = some, keepdim = g.bool()}"

/* ---- shapes ------------------------------------------------------------------------------------------ */

static inline void set_of (const marea_attr *dims, int rank, bool *set) {
  for (int d = 0; d < rank; d++) set[d] = false;
  for (int k = 0; k < dims->n; k++) set[dims->v[k]] = true;
}

/* l := t's shape without the dimensions of the set, or with size 1 for them. */
static inline void reduced_layout (marea_layout *l, const marea_tensor *t, const bool *set, bool keepdim) {
  marea_layout_like(l, t);
  l->rank = 0;
  for (int d = 0; d < t->rank; d++)
    if (!set[d] || keepdim) l->shape[l->rank++] = set[d] ? 1 : t->shape[d];
}

static inline int64_t reduced_count (const marea_tensor *t, const marea_attr *dims) {
  int64_t n = 1;
  for (int k = 0; k < dims->n; k++) n *= t->shape[dims->v[k]];
  return n;
}

/* Of the attributes dims and keepdim, which are number `first` and the next. */
static inline marea_status dims_shape_at (marea_call *c, int first) {
  bool set[MAREA_MAX_RANK];
  MAREA_TRY(marea_resolve_dims(c, first, c->in[0]->rank, set));
  reduced_layout(&c->layout[0], c->in[0], set, c->attr[first + 1].i);
  return MAREA_OK;
}

static inline marea_status dims_shape (marea_call *c) { return dims_shape_at(c, 0); }

static inline marea_status reduction_at (marea_call *c, int dims, marea_reduction *f) {
  bool set[MAREA_MAX_RANK];
  set_of(&c->attr[dims], c->in[0]->rank, set);
  return marea_reduce_over(c, c->in[0], set, f);
}

static inline marea_status reduction_of (marea_call *c, marea_reduction *f) { return reduction_at(c, 0, f); }

/* t, which has the shape of a reduced in[0], with every reduced dimension as size 1. */
static inline marea_tensor *kept_at (formula *f, int first, marea_tensor *t) {
  const marea_tensor *x = f->v->in[0];
  const marea_attr *dims = &f->v->attr[first];
  marea_attr shape = marea_attr_list(x->rank, x->shape);
  if (f->status != MAREA_OK || t->rank == x->rank) return t;
  for (int k = 0; k < dims->n; k++) shape.v[dims->v[k]] = 1;
  return step(f, &marea_op_reshape, &shape, 1, t, NULL, NULL);
}

static inline marea_tensor *kept (formula *f, marea_tensor *t) { return kept_at(f, 0, t); }

#endif
