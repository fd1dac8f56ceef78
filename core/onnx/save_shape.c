/* SPDX-License-Identifier: MIT
** save_shape.c: what moves elements.
*/
#include "save.h"

static int own_type (const onnx_saver *s) { return marea_onnx_type_of(layout_out(s, 0)->dtype); }

/* Input 0 in the layout that it is there in. */
static const char *moved (onnx_saver *s, bool *is_first, int *type) {
  *is_first = marea_onnx_is_first(s, 0);
  return marea_onnx_moved(s, 0, *is_first, type);
}

static const char *moved_plain (onnx_saver *s, int *type) { return marea_onnx_moved(s, 0, false, type); }

/* ---- the same elements under another shape ---- */

SAVE(contiguous) {
  bool is_first;
  int type;
  const char *x = moved(s, &is_first, &type);
  marea_onnx_put(s, 0, x, is_first, type);
}

SAVE(clone) { marea_onnx_save_contiguous(s); }

/* Images of one pixel have the same elements in both layouts. */
static bool is_pixel (const onnx_saver *s) {
  const marea_layout *l = layout_in(s, 0);
  bool pixel = marea_onnx_is_first(s, 0);
  for (int d = 1; d < l->rank - 1; d++) pixel &= l->shape[d] == 1 && !marea_onnx_is_free(s, slot_in(s, 0), d);
  return pixel;
}

SAVE(reshape) {
  int type;
  const char *x = marea_onnx_moved(s, 0, is_pixel(s), &type);
  marea_onnx_put(s, 0, NODE(s, "Reshape", x, marea_onnx_sizes_out(s, true)), false, type);
}

SAVE(flatten) { marea_onnx_save_reshape(s); }

static void with_axis (onnx_saver *s, const char *op, int dim) {
  int type;
  const char *x = moved_plain(s, &type);
  marea_onnx_put(s, 0, NODE(s, op, x, index1(s, dim)), false, type);
}

SAVE(squeeze) { with_axis(s, "Squeeze", attr_dim(s, "dim", layout_in(s, 0)->rank)); }
SAVE(unsqueeze) { with_axis(s, "Unsqueeze", attr_dim(s, "dim", layout_out(s, 0)->rank)); }

/* Is it (0, 2, .., 1), which takes channels from the second place to the last one? */
static bool moves_channels (int rank, const int64_t *dims) {
  bool moves = rank >= 3;
  for (int d = 0; d < rank; d++) moves &= dims[d] == (d == 0 ? 0 : d == rank - 1 ? 1 : d + 1);
  return moves;
}

/* Of a value with channels first the two orders are one step, or none. */
static void reorder (onnx_saver *s, const int64_t *dims) {
  const int rank = layout_in(s, 0)->rank;
  int64_t order[MAREA_MAX_RANK];
  bool is_first;
  int type;
  const char *x = moved(s, &is_first, &type);
  if (!is_first && moves_channels(rank, dims)) {
    marea_onnx_put(s, 0, x, true, type);
    return;
  }
  for (int d = 0; d < rank; d++) order[d] = marea_onnx_place_first(is_first, (int)dims[d], rank);
  marea_onnx_put(s, 0, marea_onnx_permuted(s, x, rank, order), false, type);
}

SAVE(permute) {
  const marea_attr *a = marea_onnx_attr(s, "dims");
  int64_t dims[MAREA_MAX_RANK] = {0};
  for (int d = 0; d < a->n; d++) dims[d] = a->v[d] < 0 ? a->v[d] + a->n : a->v[d];
  reorder(s, dims);
}

SAVE(transpose) {
  const int rank = layout_in(s, 0)->rank, a = attr_dim(s, "dim1", rank), b = attr_dim(s, "dim2", rank);
  int64_t dims[MAREA_MAX_RANK];
  for (int d = 0; d < rank; d++) dims[d] = d == a ? b : d == b ? a : d;
  reorder(s, dims);
}

/* A size of 1 leaves what the input has. */
SAVE(expand) {
  const marea_layout *in = layout_in(s, 0), *out = layout_out(s, 0),
                     *other = marea_onnx_other(s, slot_out(s, 0));
  marea_layout l = *out, o = *other;
  int type;
  for (int d = 0; d < in->rank; d++) {
    const int at = out->rank - in->rank + d;
    const bool kept = in->shape[d] == out->shape[at] &&
                      marea_onnx_other(s, slot_in(s, 0))->shape[d] == other->shape[at];
    if (kept) l.shape[at] = o.shape[at] = 1;
  }
  const char *x = moved_plain(s, &type);
  marea_onnx_put(s, 0, NODE(s, "Expand", x, marea_onnx_shape_of(s, &l, &o, false)), false, type);
}

/* ---- parts ---- */

static const marea_attr *other_attr (onnx_saver *s, const char *name) {
  if (!s->other) return marea_onnx_attr(s, name);
  onnx_saver there = *s;
  there.c = &s->other->calls[s->c - s->p->calls];
  return marea_onnx_attr(&there, name);
}

/* A position in dimension `dim` of input 0; one that follows its free size counts from the end. */
static int64_t position (onnx_saver *s, int dim, int64_t at, int64_t there) {
  const int64_t size = layout_in(s, 0)->shape[dim], other = marea_onnx_other(s, slot_in(s, 0))->shape[dim];
  if (at == there) return at;
  if (at - size != there - other)
    marea_onnx_save_reject(s, "a position that follows from a free size: %lld, and %lld with other inputs",
                           (long long)at, (long long)there);
  return at == size ? INT64_MAX : at - size;
}

static void cut (onnx_saver *s, int dim, int64_t start, int64_t end, int64_t step) {
  bool is_first;
  int type;
  const char *x = moved(s, &is_first, &type);
  const int axis = marea_onnx_place_first(is_first, dim, layout_in(s, 0)->rank);
  const char *y = NODE(s, "Slice", x, index1(s, start), index1(s, end), index1(s, axis), index1(s, step));
  marea_onnx_put(s, 0, y, is_first, type);
}

/* From 0, if `at` counts from the end */
static int64_t from_start (int64_t at, const marea_layout *l, int dim) {
  return at < 0 ? at + l->shape[dim] : at;
}

SAVE(narrow) {
  const int dim = attr_dim(s, "dim", layout_in(s, 0)->rank);
  const marea_layout *l = layout_in(s, 0), *o = marea_onnx_other(s, slot_in(s, 0));
  const int64_t start = from_start(attr_i(s, "start"), l, dim),
                there = from_start(other_attr(s, "start")->i, o, dim);
  const int64_t end = start + attr_i(s, "length"), other_end = there + other_attr(s, "length")->i;
  cut(s, dim, position(s, dim, start, there), position(s, dim, end, other_end), 1);
}

SAVE(slice) {
  const int dim = attr_dim(s, "dim", layout_in(s, 0)->rank);
  const int64_t start = position(s, dim, attr_i(s, "start"), other_attr(s, "start")->i);
  const int64_t stop = position(s, dim, attr_i(s, "stop"), other_attr(s, "stop")->i);
  cut(s, dim, start, stop == -1 ? INT64_MAX : stop + 1, attr_i(s, "step"));
}

SAVE(select) {
  const int dim = attr_dim(s, "dim", layout_in(s, 0)->rank);
  const int64_t index = position(s, dim, attr_i(s, "index"), other_attr(s, "index")->i);
  int type;
  const char *x = moved_plain(s, &type);
  const char *y = NODE(s, "Gather", x, marea_onnx_number(s, (double)index, ONNX_INT64));
  marea_onnx_put_int(s, "axis", dim);
  marea_onnx_put(s, 0, y, false, type);
}

SAVE(split) {
  const int rank = layout_in(s, 0)->rank, dim = attr_dim(s, "dim", rank);
  int64_t sizes[MAREA_MAX_OUT];
  bool is_first;
  int type;
  const char *x = moved(s, &is_first, &type);
  if (marea_onnx_is_free(s, slot_in(s, 0), dim))
    marea_onnx_save_reject(s, "a free dimension is cut into parts");
  for (int k = 0; k < s->c->n_out; k++) sizes[k] = layout_out(s, k)->shape[dim];
  const char *y = NODE(s, "Split", x, marea_onnx_numbers(s, s->c->n_out, sizes));
  Marea__NodeProto *node = s->node;
  marea_onnx_put_int(s, "axis", marea_onnx_place_first(is_first, dim, rank));
  for (int k = 0; k < s->c->n_out; k++) {
    s->node = node;
    marea_onnx_put(s, k, k == 0 ? y : marea_onnx_result(s), is_first, type);
  }
}

SAVE(chunk) { marea_onnx_save_split(s); }

/* ---- joining ---- */

static const char *join (onnx_saver *s, const char *const *x, int axis) {
  const char *y = marea_onnx_node(s, "Concat", s->c->n_in, x);
  marea_onnx_put_int(s, "axis", axis);
  return y;
}

SAVE(concat) {
  const int rank = layout_in(s, 0)->rank, dim = attr_dim(s, "dim", rank);
  const char **x = marea_onnx_memory(s, (size_t)s->c->n_in * sizeof x[0]);
  bool is_first = false;
  for (int i = 0; i < s->c->n_in; i++) is_first |= marea_onnx_is_first(s, i);
  for (int i = 0; i < s->c->n_in && saves(s); i++)
    x[i] = marea_onnx_form(s, slot_in(s, i), is_first, own_type(s), rank);
  if (saves(s))
    marea_onnx_put(s, 0, join(s, x, marea_onnx_place_first(is_first, dim, rank)), is_first, own_type(s));
}

SAVE(stack) {
  const int dim = attr_dim(s, "dim", layout_out(s, 0)->rank);
  const char **x = marea_onnx_memory(s, (size_t)s->c->n_in * sizeof x[0]);
  for (int i = 0; i < s->c->n_in && saves(s); i++)
    x[i] = NODE(s, "Unsqueeze", marea_onnx_typed(s, i, own_type(s)), index1(s, dim));
  if (saves(s)) put(s, 0, join(s, x, dim));
}

/* ---- around and over ---- */

SAVE(pad) {
  const marea_attr *padding = marea_onnx_attr(s, "padding");
  const int rank = layout_in(s, 0)->rank;
  const bool is_first = marea_onnx_is_first(s, 0);
  int64_t pads[2 * MAREA_MAX_RANK] = {0};
  for (int i = 0; i < padding->n; i++)
    pads[marea_onnx_place_first(is_first, i / 2, rank) + (i % 2 ? rank : 0)] = padding->v[i];
  const char *x = each_in(s);
  const double around = marea_attr_number(marea_onnx_attr(s, "value"));
  const char *y = NODE(s, "Pad", x, marea_onnx_numbers(s, 2 * rank, pads),
                       marea_onnx_number(s, around, own_type(s)));
  each_out(s, y);
}

SAVE(flip) {
  const marea_attr *a = marea_onnx_attr(s, "dims");
  const int rank = layout_in(s, 0)->rank, n = a->n ? a->n : rank;
  int64_t from[MAREA_MAX_RANK], to[MAREA_MAX_RANK], axes[MAREA_MAX_RANK], steps[MAREA_MAX_RANK];
  bool is_first;
  int type;
  const char *x = moved(s, &is_first, &type);
  for (int i = 0; i < n; i++) {
    const int dim = (int)(a->n == 0 ? i : a->v[i] < 0 ? a->v[i] + rank : a->v[i]);
    axes[i] = marea_onnx_place_first(is_first, dim, rank);
    from[i] = steps[i] = -1;
    to[i] = INT64_MIN;
  }
  const char *y = NODE(s, "Slice", x, marea_onnx_numbers(s, n, from), marea_onnx_numbers(s, n, to),
                       marea_onnx_numbers(s, n, axes), marea_onnx_numbers(s, n, steps));
  marea_onnx_put(s, 0, n ? y : x, is_first, type);
}

SAVE(tile) {
  const marea_attr *a = marea_onnx_attr(s, "repeats");
  const int rank = layout_out(s, 0)->rank;
  const int type = marea_onnx_type_of(layout_in(s, 0)->dtype);
  int64_t repeats[MAREA_MAX_RANK];
  for (int d = 0; d < rank; d++) repeats[d] = d < rank - a->n ? 1 : a->v[d - rank + a->n];
  const char *x = marea_onnx_form(s, slot_in(s, 0), false, type, rank);
  put(s, 0, NODE(s, "Tile", x, marea_onnx_numbers(s, rank, repeats)));
}

static void triangle (onnx_saver *s, bool upper) {
  const char *x = plain(s, 0);
  const char *y = NODE(s, "Trilu", x, marea_onnx_number(s, (double)attr_i(s, "diagonal"), ONNX_INT64));
  marea_onnx_put_int(s, "upper", upper);
  put(s, 0, y);
}

SAVE(tril) { triangle(s, false); }
SAVE(triu) { triangle(s, true); }
