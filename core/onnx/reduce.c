/* SPDX-License-Identifier: MIT
** reduce.c: ONNX's reductions, and the places of extremes.
*/
#include <math.h>

#include "window.h"

/* ---- which dimensions ---- */

typedef struct reduction {
  value *x;
  bool channels_last; /* of x, and of a result that keeps its rank */
  bool keep;
  int n;
  int64_t dims[MAREA_MAX_RANK]; /* of x as it lies */
} reduction;

/* May x stay in channels-last order? Yes if dimensions that are left follow each other as ONNX has them. */
static bool stays_last (const reduction *r, unsigned set, int rank) {
  return r->keep || set >> 1 & 1 || (set | 3) == (1u << rank) - 1;
}

static void take_dims (reduction *r, unsigned set, int rank) {
  r->n = 0;
  for (int d = 0; d < rank; d++)
    if (set >> d & 1) r->dims[r->n++] = marea_onnx_place(r->channels_last, d, rank);
}

/* Nothing is to be reduced: each element is, by itself, in a dimension more. */
static void alone (onnx_node *n, reduction *r) {
  int64_t shape[MAREA_MAX_RANK + 1];
  const int rank = rank_of(r->x);
  if (!goes_on(n)) return;
  for (int d = 0; d < rank; d++) shape[d] = size_of(r->x, d);
  shape[rank] = 1;
  r->x = marea_onnx_reshape(n, r->x, rank + 1, shape);
  r->keep = false;
  r->dims[r->n++] = rank;
}

static bool prepare (onnx_node *n, reduction *r) {
  onnx_ints axes;
  value *x = each(n, 0);
  *r = (reduction){.x = x, .keep = int_of(n, "keepdims", 1)};
  const bool none = int_of(n, "noop_with_empty_axes", 0);
  if (!marea_onnx_list(n, "axes", 1, &axes)) axes.n = 0;
  if (!goes_on(n)) return false;
  const int rank = rank_of(x);
  const unsigned set = axes.n ? marea_onnx_axes(n, &axes, rank) : none ? 0 : (1u << rank) - 1;
  r->channels_last = set && n->in[0]->channels_last && stays_last(r, set, rank);
  if (!r->channels_last) r->x = input(n, 0);
  take_dims(r, set, rank);
  if (r->n == 0) alone(n, r);
  return goes_on(n);
}

/* ---- what is done with them ---- */

/* What no elements give: of floats; Marea refuses the others, but for sums and products. */
static value *of_none (onnx_node *n, const char *op, const reduction *r, const value *x) {
  int64_t shape[MAREA_MAX_RANK];
  int rank = 0;
  unsigned set = 0;
  for (int i = 0; i < r->n; i++) set |= 1u << r->dims[i];
  for (int d = 0; d < rank_of(x); d++)
    if (r->keep || !(set >> d & 1)) shape[rank++] = set >> d & 1 ? 1 : size_of(x, d);
  const double number = strcmp(op, "min") == 0 ? INFINITY : strcmp(op, "mean") == 0 ? NAN : -INFINITY;
  return marea_onnx_expand(n, marea_onnx_scalar(n, number, dtype_of(x)), rank, shape);
}

static bool is_empty (const reduction *r, const value *x) {
  for (int i = 0; i < r->n; i++)
    if (size_of(x, (int)r->dims[i]) == 0) return true;
  return false;
}

static value *reduced (onnx_node *n, const char *op, const reduction *r, value *x, double p) {
  const marea_named dims = marea_ints("dims", r->n, r->dims), keep = marea_int("keepdim", r->keep);
  const bool sums = strcmp(op, "sum") == 0 || strcmp(op, "prod") == 0 || strcmp(op, "norm") == 0;
  if (!goes_on(n)) return NULL;
  if (!sums && is_empty(r, x) && marea_dtype_is_float((marea_dtype)dtype_of(x))) return of_none(n, op, r, x);
  if (strcmp(op, "norm") == 0) return CALL(n, op, VALUES(x), NAMED(dims, keep, marea_real("p", p)));
  return CALL(n, op, VALUES(x), NAMED(dims, keep));
}

/* Of x's type; results of integers are cut towards zero. */
static void give_reduced (onnx_node *n, const reduction *r, value *y) {
  if (!goes_on(n)) return;
  marea_onnx_give_laid_out(n, 0, y, n->in[0]->type, r->channels_last && r->keep);
}

/* Squares and logarithms in more bits than numbers of 16 and integers have. */
static value *widened (onnx_node *n, value *x) {
  const int dtype = dtype_of(x);
  const bool integers = !marea_dtype_is_float((marea_dtype)dtype);
  return marea_onnx_cast(n, x, integers ? MAREA_F64 : (int)marea_dtype_computed((marea_dtype)dtype));
}

#define PLAIN(Name, op)                                                  \
  HANDLER(Name) {                                                        \
    reduction r;                                                         \
    if (prepare(n, &r)) give_reduced(n, &r, reduced(n, op, &r, r.x, 0)); \
  }

PLAIN(ReduceSum, "sum")
PLAIN(ReduceProd, "prod")
PLAIN(ReduceMax, "max")
PLAIN(ReduceMin, "min")

#define WIDE(Name, op, p)                                                            \
  HANDLER(Name) {                                                                    \
    reduction r;                                                                     \
    if (prepare(n, &r)) give_reduced(n, &r, reduced(n, op, &r, widened(n, r.x), p)); \
  }

WIDE(ReduceMean, "mean", 0)
WIDE(ReduceL2, "norm", 2)
WIDE(ReduceLogSumExp, "logsumexp", 0)

HANDLER(ReduceL1) {
  reduction r;
  if (prepare(n, &r)) give_reduced(n, &r, reduced(n, "sum", &r, op1(n, "abs", r.x), 0));
}

HANDLER(ReduceLogSum) {
  reduction r;
  if (prepare(n, &r)) give_reduced(n, &r, op1(n, "log", reduced(n, "sum", &r, widened(n, r.x), 0)));
}

HANDLER(ReduceSumSquare) {
  reduction r;
  if (!prepare(n, &r)) return;
  const bool wraps = dtype_of(r.x) == MAREA_I64;
  value *x = wraps ? r.x : widened(n, r.x);
  give_reduced(n, &r, reduced(n, "sum", &r, op1(n, "square", x), 0));
}

/* ---- places ---- */

/* Among the channels of an image, x stays as it lies: what is left has ONNX's order. */
static void place (onnx_node *n, const char *op) {
  value *x = each(n, 0);
  const bool last = int_of(n, "select_last_index", 0), keep = int_of(n, "keepdims", 1);
  if (!goes_on(n)) return;
  int dim = marea_onnx_axis(n, int_of(n, "axis", 0), rank_of(x));
  const bool channels_last = n->in[0]->channels_last && dim == 1;
  if (channels_last) dim = rank_of(x) - 1;
  else x = input(n, 0);
  if (last) x = CALL(n, "flip", VALUES(x), NAMED(marea_ints("dims", 1, (int64_t[]){dim})));
  value *y = CALL(n, op, VALUES(x), NAMED(marea_int("dim", dim), marea_int("keepdim", keep)));
  y = marea_onnx_positions(n, y);
  if (last) y = sub(n, marea_onnx_integer(n, size_of(x, dim) - 1, MAREA_I64), y);
  marea_onnx_give_as(n, 0, y, ONNX_INT64);
  if (goes_on(n) && n->out[0]) n->out[0]->channels_last = channels_last && keep;
}

HANDLER(ArgMax) { place(n, "argmax"); }
HANDLER(ArgMin) { place(n, "argmin"); }
