/* SPDX-License-Identifier: MIT
** shape.c: ONNX operators that make, cut and turn tensors.
*/
#include "window.h"

/* ---- constants ---- */

static value *from_floats (onnx_node *n, const Marea__AttributeProto *a) {
  marea_tensor *t;
  marea_layout layout;
  marea_layout_set(&layout, MAREA_F32, 1, (int64_t[]){(int64_t)a->n_floats});
  n->status = marea_tensor_new(n->e->ctx, "onnx", &layout, &t);
  if (!goes_on(n)) return NULL;
  if (a->n_floats) memcpy(marea_at(t), a->floats, a->n_floats * sizeof a->floats[0]);
  return marea_onnx_known(n, t);
}

HANDLER(Constant) {
  static const char *const kinds[] = {"value", "value_float", "value_int", "value_floats", "value_ints"};
  const Marea__AttributeProto *a = NULL;
  int kind = 0;
  for (; !a && kind < MAREA_COUNT(kinds); kind++) a = marea_onnx_attribute(n, kinds[kind]);
  if (!a) {
    marea_onnx_reject(n, "a constant of this kind is not supported");
    return;
  }
  switch (kind - 1) {
  case 0:
    if (!a->t) marea_onnx_reject(n, "attribute 'value' is no tensor");
    else marea_onnx_give_as(n, 0, marea_onnx_tensor(n, a->t), a->t->data_type);
    return;
  case 1: give(n, 0, marea_onnx_scalar(n, (double)a->f, MAREA_F32)); return;
  case 2: give(n, 0, marea_onnx_integer(n, a->i, MAREA_I64)); return;
  case 3: give(n, 0, from_floats(n, a)); return;
  default: {
    onnx_ints list;
    marea_onnx_ints(n, "value_ints", &list);
    give(n, 0, marea_onnx_from_ints(n, list.n, list.v));
  }
  }
}

static bool is_shape (onnx_node *n, const onnx_ints *list) {
  if (list->n > MAREA_MAX_RANK)
    marea_onnx_reject(n, "rank %d; at most %d are supported", list->n, MAREA_MAX_RANK);
  return goes_on(n);
}

HANDLER(ConstantOfShape) {
  const Marea__AttributeProto *a = marea_onnx_attribute(n, "value");
  onnx_ints shape;
  if (!marea_onnx_known_ints(n, input(n, 0), &shape) || !is_shape(n, &shape)) return;
  value *one = a && a->t ? marea_onnx_tensor(n, a->t) : marea_onnx_scalar(n, 0, MAREA_F32);
  if (goes_on(n) && count_of(one) != 1) marea_onnx_reject(n, "attribute 'value': expected one element");
  one = marea_onnx_reshape(n, one, 0, NULL);
  marea_onnx_give_as(n, 0, marea_onnx_expand(n, one, shape.n, shape.v),
                     a && a->t ? a->t->data_type : ONNX_FLOAT);
}

static int64_t clamped (int64_t i, int64_t low, int64_t high) { return i < low ? low : i > high ? high : i; }

/* The logical shape, channels first. */
static void shape_of (onnx_node *n, int i, int64_t *shape, int *rank) {
  value *x = input(n, i);
  *rank = rank_of(x);
  for (int d = 0; d < *rank; d++) shape[d] = size_of(x, d);
}

HANDLER(Shape) {
  int64_t shape[MAREA_MAX_RANK];
  int rank;
  shape_of(n, 0, shape, &rank);
  int64_t start = int_of(n, "start", 0), end = int_of(n, "end", rank);
  start = clamped(start < 0 ? start + rank : start, 0, rank);
  end = clamped(end < 0 ? end + rank : end, start, rank);
  marea_onnx_give_as(n, 0, marea_onnx_from_ints(n, (int)(end - start), shape + start), ONNX_INT64);
}

HANDLER(Size) {
  value *x = input(n, 0);
  if (goes_on(n)) marea_onnx_give_as(n, 0, marea_onnx_integer(n, count_of(x), MAREA_I64), ONNX_INT64);
}

HANDLER(Range) {
  value *start = input(n, 0), *limit = input(n, 1), *delta = input(n, 2);
  if (!goes_on(n)) return;
  const double a = marea_onnx_known_number(n, start), b = marea_onnx_known_number(n, limit);
  const double step = marea_onnx_known_number(n, delta);
  if (goes_on(n) && step == 0) marea_onnx_reject(n, "the step is 0");
  if (!goes_on(n)) return;
  const double q = (b - a) / step, room = q > 0 ? q : 0;
  if (!(room < 0x1p40)) {
    marea_onnx_reject(n, "too many elements");
    return;
  }
  int64_t count = (int64_t)room;
  count += (double)count < room;
  value *i = CALL(n, "arange", NOTHING,
                  NAMED(marea_int("start", 0), marea_int("stop", count - 1), marea_word("dtype", "i64")));
  value *steps = marea_onnx_cast(n, i, dtype_of(start));
  give(n, 0,
       add(n, mul(n, steps, marea_onnx_reshape(n, delta, 0, NULL)), marea_onnx_reshape(n, start, 0, NULL)));
}

/* Elements (i, j) with j - i = k */
HANDLER(EyeLike) {
  value *x = input(n, 0);
  if (!goes_on(n)) return;
  const int type = (int)int_of(n, "dtype", n->in[0]->type), dtype = marea_onnx_dtype(type);
  const int64_t k = int_of(n, "k", 0);
  if (rank_of(x) != 2 || dtype < 0) {
    marea_onnx_reject(n, "expected a matrix, and numbers");
    return;
  }
  value *one = marea_onnx_expand(n, marea_onnx_scalar(n, 1, dtype), 2, x->t->shape);
  value *low = CALL(n, "tril", VALUES(one), NAMED(marea_int("diagonal", k)));
  marea_onnx_give_as(n, 0, CALL(n, "triu", VALUES(low), NAMED(marea_int("diagonal", k))), type);
}

HANDLER(Trilu) {
  value *x = input(n, 0);
  const bool upper = int_of(n, "upper", 1);
  const int64_t k = has(n, 1) ? marea_onnx_known_int(n, input(n, 1)) : 0;
  give(n, 0, CALL(n, upper ? "triu" : "tril", VALUES(x), NAMED(marea_int("diagonal", k))));
}

/* ---- the same elements in another shape ---- */

/* 0: the size of x, unless allowzero; -1: what is left */
HANDLER(Reshape) {
  value *x = input(n, 0);
  onnx_ints shape;
  if (!marea_onnx_list(n, "shape", 1, &shape) && goes_on(n)) marea_onnx_reject(n, "the shape is missing");
  if (!is_shape(n, &shape)) return;
  const bool zeros = int_of(n, "allowzero", 0);
  int64_t rest = 1, gap = -1;
  for (int d = 0; d < shape.n; d++) {
    if (shape.v[d] == 0 && !zeros && d < rank_of(x)) shape.v[d] = size_of(x, d);
    if (shape.v[d] == -1) gap = d;
    else if (__builtin_mul_overflow(rest, shape.v[d], &rest)) marea_onnx_reject(n, "the shape is too large");
  }
  if (!goes_on(n)) return;
  if (gap >= 0) shape.v[gap] = rest > 0 ? count_of(x) / rest : 0;
  give(n, 0, marea_onnx_reshape(n, x, shape.n, shape.v));
}

HANDLER(Flatten) {
  value *x = input(n, 0);
  if (!goes_on(n)) return;
  const int64_t axis = int_of(n, "axis", 1);
  const int at = axis == rank_of(x) ? rank_of(x) : marea_onnx_axis(n, axis, rank_of(x));
  int64_t shape[2] = {1, 1};
  for (int d = 0; d < rank_of(x); d++) shape[d >= at] *= size_of(x, d);
  give(n, 0, marea_onnx_reshape(n, x, 2, shape));
}

HANDLER(Squeeze) {
  value *x = input(n, 0);
  onnx_ints axes;
  const bool given = marea_onnx_list(n, "axes", 1, &axes);
  if (!goes_on(n)) return;
  const unsigned set = given ? marea_onnx_axes(n, &axes, rank_of(x)) : 0;
  int64_t shape[MAREA_MAX_RANK];
  int rank = 0;
  for (int d = 0; d < rank_of(x); d++)
    if (given ? !(set >> d & 1) : size_of(x, d) != 1) shape[rank++] = size_of(x, d);
  give(n, 0, marea_onnx_reshape(n, x, rank, shape));
}

HANDLER(Unsqueeze) {
  value *x = input(n, 0);
  onnx_ints axes;
  marea_onnx_list(n, "axes", 1, &axes);
  if (!goes_on(n)) return;
  const int rank = rank_of(x) + axes.n;
  if (rank > MAREA_MAX_RANK) marea_onnx_reject(n, "rank %d; at most %d are supported", rank, MAREA_MAX_RANK);
  if (!goes_on(n)) return;
  const unsigned set = marea_onnx_axes(n, &axes, rank);
  int64_t shape[MAREA_MAX_RANK];
  for (int d = 0, from = 0; d < rank && goes_on(n); d++)
    shape[d] = set >> d & 1 || from == rank_of(x) ? 1 : size_of(x, from++);
  give(n, 0, marea_onnx_reshape(n, x, rank, shape));
}

/* Of images what is turned to channels last, or back, may lie in memory as it is wanted. */
HANDLER(Transpose) {
  value *x = each(n, 0);
  onnx_ints perm;
  int first[MAREA_MAX_RANK],
      last[MAREA_MAX_RANK]; /* where dimensions of the result, in one layout or the other, lie in x */
  const int rank = rank_of(x);
  if (!marea_onnx_ints(n, "perm", &perm))
    for (int d = 0; d < rank; d++) perm.v[perm.n++] = rank - 1 - d;
  if (goes_on(n) && perm.n != rank)
    marea_onnx_reject(n, "'perm' has %d dimensions, the input %d", perm.n, rank);
  if (!goes_on(n)) return;
  bool same = rank > 2;
  for (int d = 0; d < rank; d++) {
    first[d] = marea_onnx_place(n->in[0]->channels_last, marea_onnx_axis(n, perm.v[d], rank), rank);
    last[marea_onnx_place(true, d, rank)] = first[d];
  }
  for (int d = 0; d < rank; d++) same = same && last[d] == d;
  if (same) marea_onnx_give_image(n, 0, x);
  else give(n, 0, marea_onnx_permute(n, x, rank, first));
}

/* ---- parts ---- */

/* The dimension of x, which is input 1 as it lies in memory, that an axis means */
static int dim_of (onnx_node *n, const value *x, int64_t axis) {
  if (!goes_on(n)) return 0;
  return marea_onnx_place(n->in[0]->channels_last, marea_onnx_axis(n, axis, rank_of(x)), rank_of(x));
}

HANDLER(Concat) {
  if (n->n_in == 0) marea_onnx_reject(n, "expected an input");
  value **x = marea_onnx_room(n, n->n_in, sizeof x[0]);
  if (!x) return;
  const bool last = marea_onnx_aligned(n, x);
  int dim = goes_on(n) ? marea_onnx_axis(n, int_of(n, "axis", 1), rank_of(x[0])) : 0;
  if (last) dim = marea_onnx_place(last, dim, rank_of(x[0]));
  value *y = goes_on(n) ? marea_onnx_call(n, "concat", n->n_in, x, NAMED(marea_int("dim", dim))) : NULL;
  marea_free(n->e->ctx, x);
  if (last) marea_onnx_give_image(n, 0, y);
  else give(n, 0, y);
}

HANDLER(Split) {
  value *x = each(n, 0);
  onnx_ints sizes;
  const bool given = marea_onnx_list(n, "split", 1, &sizes);
  if (!goes_on(n)) return;
  const int dim = dim_of(n, x, int_of(n, "axis", 0));
  if (!goes_on(n)) return;
  if (!given) {
    const int parts = n->n_out;
    if (parts < 1 || parts > ONNX_MOST_INTS)
      marea_onnx_reject(n, "%d parts; 1 to %d are supported", parts, ONNX_MOST_INTS);
    const int64_t size = size_of(x, dim), share = (size + parts - 1) / MAREA_MAX(parts, 1);
    for (sizes.n = 0; sizes.n < parts && goes_on(n); sizes.n++)
      sizes.v[sizes.n] = clamped(size - share * sizes.n, 0, share);
  }
  if (goes_on(n) && sizes.n < n->n_out) marea_onnx_reject(n, "%d sizes for %d parts", sizes.n, n->n_out);
  marea_onnx_are_parts(n, &sizes, size_of(x, dim));
  for (int64_t k = 0, at = 0; k < n->n_out && goes_on(n); at += sizes.v[k++])
    marea_onnx_give_each(n, (int)k, marea_onnx_narrow(n, x, dim, at, sizes.v[k]), 0);
}

/* Elements start, start + step, ... before end, in ONNX's terms, of one dimension. */
static value *sliced (onnx_node *n, value *x, int dim, int64_t start, int64_t end, int64_t step) {
  const int64_t size = size_of(x, dim);
  if (step == 0 || step == INT64_MIN) marea_onnx_reject(n, "a step of %lld", (long long)step);
  if (!goes_on(n)) return NULL;
  if (start < 0) start += size;
  if (end < 0) end = end < -size ? -1 : end + size;
  if (step < 0) { /* the same from the other end */
    x = CALL(n, "flip", VALUES(x), NAMED(marea_ints("dims", 1, (int64_t[]){dim})));
    start = size - 1 - clamped(start, 0, size - 1);
    end = size - 1 - clamped(end, -1, size - 1);
    step = -step;
  }
  start = clamped(start, 0, size);
  end = clamped(end, start, size);
  x = marea_onnx_narrow(n, x, dim, start, end - start);
  if (step == 1 || end == start) return x;
  return CALL(n, "slice", VALUES(x), NAMED(marea_int("dim", dim), marea_int("step", step)));
}

HANDLER(Slice) {
  value *x = each(n, 0);
  onnx_ints starts, ends, axes, steps;
  marea_onnx_list(n, "starts", 1, &starts);
  marea_onnx_list(n, "ends", 2, &ends);
  const bool some = marea_onnx_list(n, "axes", 3, &axes), stepped = marea_onnx_list(n, "steps", 4, &steps);
  if (goes_on(n) && (starts.n != ends.n || (some && axes.n != starts.n) || (stepped && steps.n != starts.n)))
    marea_onnx_reject(n, "starts, ends, axes and steps have different lengths");
  for (int i = 0; i < starts.n && goes_on(n); i++)
    x = sliced(n, x, dim_of(n, x, some ? axes.v[i] : i), starts.v[i], ends.v[i], stepped ? steps.v[i] : 1);
  give_each(n, x);
}

/* ---- more of the same ---- */

HANDLER(Expand) {
  value *x = input(n, 0);
  onnx_ints shape;
  if (!marea_onnx_known_ints(n, input(n, 1), &shape) || !is_shape(n, &shape)) return;
  const int rank = MAREA_MAX(shape.n, rank_of(x));
  int64_t to[MAREA_MAX_RANK];
  for (int d = 0; d < rank; d++) { /* both broadcast with each other */
    const int of_x = d - (rank - rank_of(x)), of_shape = d - (rank - shape.n);
    const int64_t a = of_x >= 0 ? size_of(x, of_x) : 1, b = of_shape >= 0 ? shape.v[of_shape] : 1;
    to[d] = b == 1 ? a : b;
  }
  give(n, 0, marea_onnx_expand(n, x, rank, to));
}

HANDLER(Tile) {
  value *x = input(n, 0);
  onnx_ints repeats;
  if (!marea_onnx_known_ints(n, input(n, 1), &repeats) || !is_shape(n, &repeats)) return;
  give(n, 0, CALL(n, "tile", VALUES(x), NAMED(marea_ints("repeats", repeats.n, repeats.v))));
}

/* Position in x of element i of the padded dimension: mirrored without the edge, or the edge itself. */
static int64_t reflected (int64_t i, int64_t size) {
  const int64_t period = MAREA_MAX(2 * (size - 1), 1);
  i = ((i % period) + period) % period;
  return i < size ? i : period - i;
}

static value *padded_by_index (onnx_node *n, value *x, int dim, int64_t before, int64_t after,
                               const char *mode) {
  const int64_t size = size_of(x, dim), count = before + size + after;
  const int base = n->e->ctx->config.index_base;
  marea_layout layout;
  marea_tensor *t;
  if (size < 1) marea_onnx_reject(n, "nothing to pad a dimension of %lld with", (long long)size);
  if (!goes_on(n)) return NULL;
  marea_layout_set(&layout, MAREA_I64, 1, (int64_t[]){MAREA_MAX(count, 0)});
  n->status = marea_tensor_new(n->e->ctx, "onnx", &layout, &t);
  if (!goes_on(n)) return NULL;
  for (int64_t i = 0; i < count && still(n, i); i++) {
    const int64_t at = i - before, edge = clamped(at, 0, size - 1);
    const int64_t from = mode[0] == 'r'   ? reflected(at, size)
                         : mode[0] == 'w' ? ((at % size) + size) % size
                                          : edge;
    ((int64_t *)marea_at(t))[i] = from + base;
  }
  return CALL(n, "index_select", VALUES(x, marea_onnx_known(n, t)), NAMED(marea_int("dim", dim)));
}

static value *padded (onnx_node *n, value *x, const onnx_ints *pads, value *with) {
  const int rank = rank_of(x);
  int64_t pairs[2 * MAREA_MAX_RANK];
  const double number = with ? marea_onnx_known_number(n, with) : 0;
  for (int first = 0; first < rank && goes_on(n);
       first += 4) { /* `pad` takes four dimensions, the first ones */
    const int here = MAREA_MIN(4, rank - first);
    int64_t turn[MAREA_MAX_RANK], back[MAREA_MAX_RANK];
    bool any = false;
    for (int d = 0; d < rank; d++) turn[d] = (d + first) % rank, back[(d + first) % rank] = d;
    for (int d = 0; d < here; d++) {
      pairs[2 * d] = MAREA_MAX(pads->v[first + d], 0);
      pairs[2 * d + 1] = MAREA_MAX(pads->v[first + d + rank], 0);
      any = any || pairs[2 * d] || pairs[2 * d + 1];
    }
    if (!any) continue;
    value *turned = first ? CALL(n, "permute", VALUES(x), NAMED(marea_ints("dims", rank, turn))) : x;
    turned = CALL(n, "pad", VALUES(turned),
                  NAMED(marea_ints("padding", 2 * here, pairs), marea_real("value", number)));
    x = first ? CALL(n, "permute", VALUES(turned), NAMED(marea_ints("dims", rank, back))) : turned;
  }
  return x;
}

HANDLER(Pad) {
  value *x = each(n, 0);
  onnx_ints pads, axes, all;
  char mode[16];
  const int rank = rank_of(x);
  marea_onnx_text(n, "mode", "constant", mode, sizeof mode);
  if (!marea_onnx_list(n, "pads", 1, &pads)) marea_onnx_list(n, "paddings", 1, &pads);
  value *with = has(n, 2) ? input(n, 2) : marea_onnx_scalar(n, float_of(n, "value", 0), MAREA_F64);
  if (!goes_on(n)) return;
  const bool some = has(n, 3) && marea_onnx_known_ints(n, input(n, 3), &axes);
  if (!some)
    for (axes.n = 0; axes.n < rank; axes.n++) axes.v[axes.n] = axes.n;
  if (goes_on(n) && pads.n != 2 * axes.n) marea_onnx_reject(n, "%d pads for %d dimensions", pads.n, axes.n);
  memset(&all, 0, sizeof all);
  for (int i = 0; i < axes.n && goes_on(n); i++) {
    const int d = dim_of(n, x, axes.v[i]);
    if (!marea_onnx_is_pad(n, pads.v[i]) || !marea_onnx_is_pad(n, pads.v[i + axes.n])) return;
    all.v[d] = pads.v[i];
    all.v[d + rank] = pads.v[i + axes.n];
  }
  for (int d = 0; d < rank && goes_on(n); d++) { /* negative ones cut */
    const int64_t front = MAREA_MIN(all.v[d], 0), end = MAREA_MIN(all.v[d + rank], 0);
    if (front || end) x = sliced(n, x, d, -front, size_of(x, d) + end, 1);
    if (goes_on(n) && strcmp(mode, "constant") != 0 && (all.v[d] > 0 || all.v[d + rank] > 0))
      x = padded_by_index(n, x, d, MAREA_MAX(all.v[d], 0), MAREA_MAX(all.v[d + rank], 0), mode);
  }
  give_each(n, strcmp(mode, "constant") == 0 && goes_on(n) ? padded(n, x, &all, with) : x);
}

/* ---- depth and space: of images, a block's elements being channels ---- */

HANDLER(DepthToSpace) {
  value *x = image(n, 0);
  const int64_t b = int_of(n, "blocksize", 0);
  const bool crd = marea_onnx_is(n, "mode", "DCR", "CRD");
  if (goes_on(n) && (rank_of(x) != 4 || b < 1 || b > INT16_MAX || size_of(x, 3) % (b * b)))
    marea_onnx_reject(n, "expected (N, C, H, W) and a block that divides C");
  if (!goes_on(n)) return;
  const int64_t N = size_of(x, 0), h = size_of(x, 1), w = size_of(x, 2), c = size_of(x, 3) / (b * b);
  value *y = crd ? marea_onnx_reshape(n, x, 6, (int64_t[]){N, h, w, c, b, b})
                 : marea_onnx_reshape(n, x, 6, (int64_t[]){N, h, w, b, b, c});
  y = marea_onnx_permute(n, y, 6, crd ? (int[]){0, 1, 4, 2, 5, 3} : (int[]){0, 1, 3, 2, 4, 5});
  marea_onnx_give_image(n, 0, marea_onnx_reshape(n, y, 4, (int64_t[]){N, h * b, w * b, c}));
}

HANDLER(SpaceToDepth) {
  value *x = image(n, 0);
  const int64_t b = int_of(n, "blocksize", 0);
  if (goes_on(n) && (rank_of(x) != 4 || b < 1 || b > INT16_MAX || size_of(x, 1) % b || size_of(x, 2) % b))
    marea_onnx_reject(n, "expected (N, C, H, W) and a block that divides H and W");
  if (!goes_on(n)) return;
  const int64_t N = size_of(x, 0), h = size_of(x, 1) / b, w = size_of(x, 2) / b, c = size_of(x, 3);
  value *y = marea_onnx_reshape(n, x, 6, (int64_t[]){N, h, b, w, b, c});
  y = marea_onnx_permute(n, y, 6, (int[]){0, 1, 3, 2, 4, 5});
  marea_onnx_give_image(n, 0, marea_onnx_reshape(n, y, 4, (int64_t[]){N, h, w, b * b * c}));
}
