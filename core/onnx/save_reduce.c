/* SPDX-License-Identifier: MIT
** save_reduce.c: reductions, and what runs along a dimension.
*/
#include <math.h>

#include "save.h"

typedef struct reduction {
  const char *x;
  int n;
  int64_t axes[MAREA_MAX_RANK], count; /* in the layout of x; elements of a result, -1: any number */
  bool keep, first;                    /* first: the result has channels first */
} reduction;

/* The dimensions of attribute `dims`, or of `dim`, as a set. */
static unsigned set_of (const onnx_saver *s) {
  const int rank = layout_in(s, 0)->rank;
  const marea_attr *a = marea_onnx_attr(s, "dims");
  unsigned set = 0;
  for (int i = 0; i < a->n; i++) set |= 1u << (a->v[i] < 0 ? a->v[i] + rank : a->v[i]);
  return a->n ? set : (1u << rank) - 1;
}

/* Do the dimensions that are left have one order in both layouts? Those of the channels, or all others, have to go. */
static bool keeps_order (unsigned set, int rank) {
  const unsigned spatial = ((1u << (rank - 1)) - 1) & ~1u;
  return set >> (rank - 1) & 1 || (set & spatial) == spatial;
}

static reduction reduction_of (onnx_saver *s, unsigned set, bool keep, int type) {
  const int rank = layout_in(s, 0)->rank;
  const bool from_first = marea_onnx_is_first(s, 0) && (keep || keeps_order(set, rank));
  reduction r = {.keep = keep, .first = from_first && keep, .count = 1};
  for (int d = 0; d < rank; d++) {
    if (!(set >> d & 1)) continue;
    r.axes[r.n++] = marea_onnx_place_first(from_first, d, rank);
    r.count = marea_onnx_is_free(s, slot_in(s, 0), d) || r.count < 0 ? -1
                                                                     : r.count * layout_in(s, 0)->shape[d];
  }
  r.x = marea_onnx_form(s, slot_in(s, 0), from_first, type, rank);
  return r;
}

static int result_type (const onnx_saver *s) { return marea_onnx_type_of(layout_out(s, 0)->dtype); }

static reduction read_reduction (onnx_saver *s) {
  return reduction_of(s, set_of(s), attr_i(s, "keepdim"), result_type(s));
}

/* Without dimensions to reduce there is nothing to do; ONNX would reduce all. */
static const char *reduced (onnx_saver *s, const reduction *r, const char *op, const char *x, bool keep) {
  return r->n == 0 ? x : marea_onnx_reduce(s, op, x, r->n, r->axes, keep);
}

static void reduce (onnx_saver *s, const char *op) {
  const reduction r = read_reduction(s);
  marea_onnx_put(s, 0, reduced(s, &r, op, r.x, r.keep), r.first, result_type(s));
}

SAVE(sum) { reduce(s, "ReduceSum"); }
SAVE(mean) { reduce(s, "ReduceMean"); }
SAVE(prod) { reduce(s, "ReduceProd"); }
SAVE(max) { reduce(s, "ReduceMax"); }
SAVE(min) { reduce(s, "ReduceMin"); }
SAVE(logsumexp) { reduce(s, "ReduceLogSumExp"); }

static const char *number (onnx_saver *s, double v) { return marea_onnx_number(s, v, result_type(s)); }

/* sum (x - mean)^2 / (n - correction) */
static const char *variance (onnx_saver *s, const reduction *r) {
  const double correction = (double)attr_i(s, "correction");
  const char *d = NODE(s, "Sub", r->x, reduced(s, r, "ReduceMean", r->x, true)),
             *square = NODE(s, "Mul", d, d);
  if (correction == 0) return reduced(s, r, "ReduceMean", square, r->keep);
  if (r->count < 0) marea_onnx_save_reject(s, "over a free size it needs correction = 0");
  return NODE(s, "Div", reduced(s, r, "ReduceSum", square, r->keep),
              number(s, (double)r->count - correction));
}

SAVE(var) {
  const reduction r = read_reduction(s);
  marea_onnx_put(s, 0, variance(s, &r), r.first, result_type(s));
}

SAVE(std) {
  const reduction r = read_reduction(s);
  marea_onnx_put(s, 0, NODE(s, "Sqrt", variance(s, &r)), r.first, result_type(s));
}

SAVE(norm) {
  const double p = attr_f(s, "p");
  if ((p == 1 || p == 2) && set_of(s)) {
    reduce(s, p == 1 ? "ReduceL1" : "ReduceL2");
    return;
  }
  const reduction r = read_reduction(s);
  const char *x = NODE(s, "Abs", r.x);
  const char *y = isinf(p) || r.n == 0
                      ? reduced(s, &r, "ReduceMax", x, r.keep)
                      : NODE(s, "Pow", reduced(s, &r, "ReduceSum", NODE(s, "Pow", x, number(s, p)), r.keep),
                             number(s, 1 / p));
  marea_onnx_put(s, 0, y, r.first, result_type(s));
}

/* Truth values are reduced as numbers, of a type that ONNX Runtime reduces. */
static void reduce_truth (onnx_saver *s, const char *op) {
  const reduction r = reduction_of(s, set_of(s), attr_i(s, "keepdim"), ONNX_BOOL);
  const char *y = reduced(s, &r, op, marea_onnx_cast_to(s, r.x, 6), r.keep); /* 6: int32 */
  marea_onnx_put(s, 0, marea_onnx_cast_to(s, y, ONNX_BOOL), r.first, ONNX_BOOL);
}

SAVE(any) { reduce_truth(s, "ReduceMax"); }
SAVE(all) { reduce_truth(s, "ReduceMin"); }

SAVE(sum_to) {
  const marea_layout *in = layout_in(s, 0), *out = layout_out(s, 0);
  const int more = in->rank - out->rank;
  unsigned set = 0;
  for (int d = 0; d < in->rank; d++)
    if (d < more || out->shape[d - more] != in->shape[d]) set |= 1u << d;
  reduction r = reduction_of(s, set, false, result_type(s));
  r.x = plain(s, 0);
  if (marea_onnx_type_of(in->dtype) != result_type(s)) r.x = marea_onnx_cast_to(s, r.x, result_type(s));
  r.n = 0;
  for (int d = 0; d < in->rank; d++)
    if (set >> d & 1) r.axes[r.n++] = d;
  const char *y = reduced(s, &r, "ReduceSum", r.x, false);
  put(s, 0, NODE(s, "Reshape", y, marea_onnx_sizes_out(s, true)));
}

/* ---- positions ---- */

static void find (onnx_saver *s, const char *op) {
  const int rank = layout_in(s, 0)->rank;
  const bool keep = attr_i(s, "keepdim");
  const reduction r = reduction_of(s, 1u << attr_dim(s, "dim", rank), keep,
                                   marea_onnx_type_of(layout_in(s, 0)->dtype));
  const char *y = NODE(s, op, r.x);
  marea_onnx_put_int(s, "axis", r.axes[0]);
  marea_onnx_put_int(s, "keepdims", keep);
  marea_onnx_put(s, 0, marea_onnx_to_base(s, y), r.first, ONNX_INT64);
}

SAVE(argmax) { find(s, "ArgMax"); }
SAVE(argmin) { find(s, "ArgMin"); }

/* The two results of TopK: elements, and positions */
static void order (onnx_saver *s, int64_t k, bool largest, int elements, int positions) {
  const int dim = attr_dim(s, "dim", layout_in(s, 0)->rank);
  const char *y = NODE(s, "TopK", plain(s, 0), index1(s, k)), *at = marea_onnx_result(s);
  marea_onnx_put_int(s, "axis", dim);
  marea_onnx_put_int(s, "largest", largest);
  if (elements >= 0) put(s, elements, y);
  if (positions < s->c->n_out) put(s, positions, marea_onnx_to_base(s, at));
}

static int64_t size_of_dim (onnx_saver *s) {
  const int dim = attr_dim(s, "dim", layout_in(s, 0)->rank);
  if (marea_onnx_is_free(s, slot_in(s, 0), dim)) marea_onnx_save_reject(s, "a free dimension is sorted");
  return layout_in(s, 0)->shape[dim];
}

SAVE(topk) { order(s, attr_i(s, "k"), attr_i(s, "largest"), 0, 1); }
SAVE(sort) { order(s, size_of_dim(s), attr_i(s, "descending"), 0, 1); }
SAVE(argsort) { order(s, size_of_dim(s), attr_i(s, "descending"), -1, 0); }

/* ---- along a dimension ---- */

static const char *along (onnx_saver *s, const char *op) {
  const int rank = layout_in(s, 0)->rank, dim = attr_dim(s, "dim", rank);
  const char *y = NODE(s, op, each_in(s));
  marea_onnx_put_int(s, "axis", marea_onnx_place_first(marea_onnx_is_first(s, 0), dim, rank));
  return y;
}

SAVE(softmax) { each_out(s, along(s, "Softmax")); }
SAVE(log_softmax) { each_out(s, along(s, "LogSoftmax")); }

SAVE(cumsum) {
  const int rank = layout_in(s, 0)->rank, dim = attr_dim(s, "dim", rank);
  const char *x = marea_onnx_typed(s, 0, result_type(s));
  const char *y = NODE(s, "CumSum", x, marea_onnx_number(s, dim, ONNX_INT64));
  marea_onnx_put_int(s, "reverse", attr_i(s, "reverse"));
  put(s, 0, y);
}
