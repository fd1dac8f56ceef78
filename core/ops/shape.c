/* SPDX-License-Identifier: MIT
** shape.c: other views of the same values. Whatever can be told by strides is a view and costs no copy; only
** reshape and flatten copy, when strides cannot tell the result. Operators that always make new memory are in
** shape_copy.c, but for slice_grad, the gradient of narrow, select and slice.
**
** Steps are positive (flip copies): no operator meets a negative stride in an input.
*/
#include "part.h"
#include "vjp.h"

/* ---- helpers ---- */

/* l := a view of in[0] as it is; the rule then changes it. */
static void view_of (marea_layout *l, const marea_tensor *t) {
  marea_layout_like(l, t);
  l->view = true;
  l->offset = t->offset;
  memcpy(l->stride, t->stride, sizeof l->stride);
}

static void remove_dim (marea_layout *l, int dim) {
  for (int d = dim; d + 1 < l->rank; d++) {
    l->shape[d] = l->shape[d + 1];
    l->stride[d] = l->stride[d + 1];
  }
  l->rank--;
}

static marea_status insert_dim (marea_call *c, marea_layout *l, int dim, int64_t size) {
  if (l->rank == MAREA_MAX_RANK)
    return marea_reject(c, MAREA_ESHAPE, "the result would have %d dimensions, at most %d are possible",
                        l->rank + 1, MAREA_MAX_RANK);
  for (int d = l->rank; d > dim; d--) {
    l->shape[d] = l->shape[d - 1];
    l->stride[d] = l->stride[d - 1];
  }
  l->shape[dim] = size;
  l->stride[dim] = 1;
  l->rank++;
  return MAREA_OK;
}

static marea_status copy_forward (marea_call *c) {
  marea_tensor like = *c->out[0]; /* the result under the input's shape */
  like.rank = c->in[0]->rank;
  memcpy(like.shape, c->in[0]->shape, sizeof like.shape);
  marea_row_major(like.rank, like.shape, like.stride);
  marea_copy_strided(c->ctx, c->in[0], &like);
  return MAREA_OK;
}

static marea_status reshape_vjp (marea_vjp *v) {
  return marea_reshape_to(v->dout[0], v->in[0]->rank, v->in[0]->shape, &v->din[0]);
}

/* ---- reshape, flatten ---- */

/* Strides under which x's elements, in row-major order, have another shape; false when there are none. Both
   shapes are cut into groups of equal products; a group is possible when its old dims continue each other. */
static bool view_strides (const marea_tensor *x, int rank, const int64_t *shape, int64_t *stride) {
  int64_t size[MAREA_MAX_RANK], step[MAREA_MAX_RANK];
  int n = 0, old = 0, old_end = 1, new = 0, new_end = 1;
  marea_row_major(rank, shape, stride);
  if (marea_count(x->rank, x->shape) == 0 || marea_is_contiguous(x->rank, x->shape, x->stride)) return true;
  for (int d = 0; d < x->rank; d++) {
    if (x->shape[d] == 1) continue;
    size[n] = x->shape[d];
    step[n++] = x->stride[d];
  }
  while (new < rank && old < n) {
    int64_t olds = size[old], news = shape[new];
    while (olds != news) {
      if (news < olds) news *= shape[new_end++];
      else olds *= size[old_end++];
    }
    for (int d = old; d + 1 < old_end; d++)
      if (step[d] != size[d + 1] * step[d + 1]) return false;
    stride[new_end - 1] = step[old_end - 1];
    for (int d = new_end - 1; d > new; d--) stride[d - 1] = stride[d] * shape[d];
    new = new_end++;
    old = old_end++;
  }
  return true; /* the remaining dimensions of the new shape have size 1 */
}

/* The layout of x under another shape with as many elements: a view if strides can tell it. */
static marea_status reshaped (marea_call *c, int rank, const int64_t *shape) {
  marea_layout *l = &c->layout[0];
  size_t bytes; /* marea_bytes checks the sizes; of a view nothing else does */
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, rank, shape, 1, &bytes));
  marea_layout_set(l, c->in[0]->dtype, rank, shape);
  if (!view_strides(c->in[0], rank, shape, l->stride)) return MAREA_OK;
  l->view = true;
  l->offset = c->in[0]->offset;
  return MAREA_OK;
}

static marea_status reshape_shape (marea_call *c) {
  marea_attr *a = &c->attr[0];
  const marea_tensor *x = c->in[0];
  int64_t known[MAREA_MAX_RANK], count = marea_count(x->rank, x->shape);
  int gap = -1;
  size_t product;
  for (int d = 0; d < a->n; d++) {
    known[d] = a->v[d] == MAREA_INFER ? 1 : a->v[d];
    if (a->v[d] != MAREA_INFER) continue;
    if (gap >= 0) return marea_reject(c, MAREA_EARG, "only one size of the shape can be -1");
    gap = d;
  }
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, a->n, known, 1, &product));
  if (gap >= 0) {
    if (product == 0 || count % (int64_t)product != 0)
      return marea_reject(c, MAREA_ESHAPE, "%s has %lld elements, no size for -1 in %s fits",
                          marea_tensor_text(x).s, (long long)count, marea_shape_text(a->n, a->v).s);
    a->v[gap] = count / (int64_t)product;
  } else if ((int64_t)product != count) {
    return marea_reject(c, MAREA_ESHAPE, "%s has %lld elements, %s takes %lld", marea_tensor_text(x).s,
                        (long long)count, marea_shape_text(a->n, a->v).s, (long long)product);
  }
  return reshaped(c, a->n, a->v);
}

const marea_op marea_op_reshape = {
    .name = "reshape",
    .family = "shape",
    .doc = "The same elements in row-major order under another shape. x: any shape; shape: sizes with the "
           "same product, one may be -1 and is worked out. A view of x where strides allow, else a copy. "
           "Gradient: dy in x's shape. Error: another number of elements.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS(
        {"shape", MAREA_SIZES, MAREA_REQUIRED, NULL, "sizes of the result; -1: what is left"}),
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = reshape_shape,
    .forward = copy_forward,
    .vjp = reshape_vjp,
    .sample = "local a, b, c = g.int(0, 4), g.int(1, 4), g.int(1, 4)\n"
              "return {g.tensor{a, b, c}}, {shape = g.pick{{a * b, c}, {c, b, a}, {a * b * c}, {-1, b * c}}}",
};

static marea_status flatten_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  int64_t shape[MAREA_MAX_RANK] = {1};
  if (x->rank == 0) return reshaped(c, 1, shape);
  MAREA_TRY(marea_resolve_dim(c, 0, x->rank));
  MAREA_TRY(marea_resolve_dim(c, 1, x->rank));
  const int from = (int)c->attr[0].i, to = (int)c->attr[1].i;
  if (from > to)
    return marea_reject(c, MAREA_EARG, "argument 'to': dim %d comes before 'from', dim %d", to + base_of(c),
                        from + base_of(c));
  int rank = 0;
  for (int d = 0; d < x->rank; d++) {
    if (d > from && d <= to) shape[rank - 1] *= x->shape[d];
    else shape[rank++] = x->shape[d];
  }
  return reshaped(c, rank, shape);
}

const marea_op marea_op_flatten = {
    .name = "flatten",
    .family = "shape",
    .doc =
        "Makes dimensions from..to into one, in row-major order; a scalar becomes (1). x: any shape. A "
        "view of x where strides allow, else a copy. Gradient: dy in x's shape. Error: 'to' before 'from'.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"from", MAREA_DIM, 0, NULL, "first dimension"},
                         {"to", MAREA_DIM, -1, NULL, "last dimension"}),
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = flatten_shape,
    .forward = copy_forward,
    .vjp = reshape_vjp,
    .sample = "local s = g.shape(1, 5)\nlocal from = g.int(1, #s)\n"
              "return {g.tensor(s)}, {from = from, to = g.int(from, #s)}",
};

/* ---- permute, transpose, expand, squeeze, unsqueeze ---- */

static marea_status permute_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  marea_attr *a = &c->attr[0];
  bool seen[MAREA_MAX_RANK] = {false};
  if (a->n != x->rank)
    return marea_reject(c, MAREA_EARG, "argument 'dims': expected all %d dimensions of %s, got %d", x->rank,
                        marea_tensor_text(x).s, a->n);
  view_of(&c->layout[0], x);
  for (int d = 0; d < a->n; d++) {
    int64_t from = a->v[d] < 0 ? a->v[d] + x->rank : a->v[d];
    if (from < 0 || from >= x->rank)
      return marea_reject(c, MAREA_EARG, "argument 'dims': entry %d is out of range for %s", d + base_of(c),
                          marea_tensor_text(x).s);
    if (seen[from])
      return marea_reject(c, MAREA_EARG, "argument 'dims': dim %lld comes twice",
                          (long long)from + base_of(c));
    seen[from] = true;
    a->v[d] = from;
    c->layout[0].shape[d] = x->shape[from];
    c->layout[0].stride[d] = x->stride[from];
  }
  return MAREA_OK;
}

static marea_status permute_vjp (marea_vjp *v) {
  marea_attr back = {.n = v->attr[0].n, .v = {0}};
  for (int d = 0; d < back.n; d++) back.v[v->attr[0].v[d]] = d;
  return marea_run_with(v->ctx, &marea_op_permute, &back, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_permute = {
    .name = "permute",
    .family = "shape",
    .doc = "Reorders dimensions: dimension d of the result is dimension dims[d] of x. A view of x. Gradient: "
           "dy permuted back. Error: dims is not a permutation of all dimensions.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"dims", MAREA_DIMS, MAREA_REQUIRED, NULL, "every dimension of x once"}),
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = permute_shape,
    .vjp = permute_vjp,
    .sample = "local s, dims = g.shape(1, 5), {}\n"
              "for d = 1, #s do table.insert(dims, g.int(1, #dims + 1), d) end\n"
              "return {g.tensor(s)}, {dims = dims}",
};

static marea_status transpose_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  MAREA_TRY(marea_resolve_dim(c, 0, x->rank));
  MAREA_TRY(marea_resolve_dim(c, 1, x->rank));
  const int a = (int)c->attr[0].i, b = (int)c->attr[1].i;
  marea_layout *l = &c->layout[0];
  view_of(l, x);
  l->shape[a] = x->shape[b], l->stride[a] = x->stride[b];
  l->shape[b] = x->shape[a], l->stride[b] = x->stride[a];
  return MAREA_OK;
}

static marea_status transpose_vjp (marea_vjp *v) {
  return marea_run_with(v->ctx, &marea_op_transpose, v->attr, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_transpose = {
    .name = "transpose",
    .family = "shape",
    .doc = "Exchanges two dimensions. x: rank >= 1. A view of x. Gradient: dy transposed back. Error: a "
           "dimension that x does not have.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"dim1", MAREA_DIM, MAREA_REQUIRED, NULL, "one dimension"},
                         {"dim2", MAREA_DIM, MAREA_REQUIRED, NULL, "the other"}),
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = transpose_shape,
    .vjp = transpose_vjp,
    .sample = "local s = g.shape(1, 4)\nreturn {g.tensor(s)}, {dim1 = g.int(1, #s), dim2 = -g.int(1, #s)}",
};

static marea_status expand_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  marea_attr *a = &c->attr[0];
  const int added = a->n - x->rank;
  if (added < 0)
    return marea_reject(c, MAREA_ESHAPE, "%s has more dimensions than %s", marea_tensor_text(x).s,
                        marea_shape_text(a->n, a->v).s);
  marea_layout *l = &c->layout[0];
  for (int d = 0; d < a->n; d++) {
    const int64_t size = d < added ? 1 : x->shape[d - added];
    if (a->v[d] == MAREA_INFER && d >= added) a->v[d] = size;
    if (a->v[d] < 0 || (size != 1 && size != a->v[d]))
      return marea_reject(c, MAREA_ESHAPE, "%s cannot become %s: sizes other than 1 must stay",
                          marea_tensor_text(x).s, marea_shape_text(a->n, a->v).s);
    l->stride[d] = size == 1 ? 0 : x->stride[d - added];
    if (size == 1 && a->v[d] == 1) l->stride[d] = d < added ? 1 : x->stride[d - added];
  }
  size_t bytes; /* not allocated; marea_bytes checks that the elements can be counted */
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, a->n, a->v, 1, &bytes));
  int64_t stride[MAREA_MAX_RANK];
  memcpy(stride, l->stride, sizeof stride);
  marea_layout_set(l, x->dtype, a->n, a->v);
  memcpy(l->stride, stride, sizeof stride);
  l->view = true;
  l->offset = x->offset;
  return MAREA_OK;
}

static marea_status expand_vjp (marea_vjp *v) {
  marea_attr shape = marea_attr_list(v->in[0]->rank, v->in[0]->shape);
  return marea_run_with(v->ctx, &marea_op_sum_to, &shape, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_expand = {
    .name = "expand",
    .family = "shape",
    .doc =
        "Repeats dimensions of size 1 up to another shape, as NumPy's broadcast_to. New dimensions come in "
        "front; -1 keeps a size. A view of x in which elements share memory. Gradient: sum_to(dy, x's "
        "shape). Error: a size other than 1 would change.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"shape", MAREA_SIZES, MAREA_REQUIRED, NULL, "sizes of the result"}),
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = expand_shape,
    .vjp = expand_vjp,
    .sample = "local s = g.shape(0, 4)\nreturn {g.tensor(g.broadcast(s))}, {shape = s}",
};

static marea_status squeeze_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  MAREA_TRY(marea_resolve_dim(c, 0, x->rank));
  const int dim = (int)c->attr[0].i;
  if (x->shape[dim] != 1)
    return marea_reject(c, MAREA_ESHAPE, "dim %d of %s has size %lld, not 1", dim + base_of(c),
                        marea_tensor_text(x).s, (long long)x->shape[dim]);
  view_of(&c->layout[0], x);
  remove_dim(&c->layout[0], dim);
  return MAREA_OK;
}

const marea_op marea_op_squeeze = {
    .name = "squeeze",
    .family = "shape",
    .doc = "Takes away a dimension of size 1. A view of x. Gradient: dy in x's shape. Error: the size is not "
           "1.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"dim", MAREA_DIM, MAREA_REQUIRED, NULL, "the dimension"}),
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = squeeze_shape,
    .vjp = reshape_vjp,
    .sample = "local s = g.shape(0, 4)\nlocal dim = g.int(1, #s + 1)\ntable.insert(s, dim, 1)\n"
              "return {g.tensor(s)}, {dim = dim}",
};

static marea_status unsqueeze_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  MAREA_TRY(marea_resolve_dim(c, 0, x->rank + 1));
  view_of(&c->layout[0], x);
  return insert_dim(c, &c->layout[0], (int)c->attr[0].i, 1);
}

const marea_op marea_op_unsqueeze = {
    .name = "unsqueeze",
    .family = "shape",
    .doc = "Puts in a dimension of size 1, which becomes dimension `dim` of the result. A view of x. "
           "Gradient: dy in x's shape. Error: x has 8 dimensions already.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"dim", MAREA_DIM, MAREA_REQUIRED, NULL, "where the new dimension goes"}),
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = unsqueeze_shape,
    .vjp = reshape_vjp,
    .sample = "local s = g.shape(0, 4)\n"
              "return {g.tensor(s)}, {dim = g.pick{g.int(1, #s + 1), -g.int(1, #s + 1)}}",
};

/* ---- narrow, select, slice, slice_grad ---- */

/* din := zeros of in[0]'s shape with dy at start, start + step, ... of dim */
static marea_status put_back (marea_vjp *v, marea_tensor *dy, int64_t dim, int64_t start, int64_t step) {
  marea_attr a[] = {marea_attr_list(v->in[0]->rank, v->in[0]->shape), marea_attr_int(dim),
                    marea_attr_int(start), marea_attr_int(step)};
  return marea_run_with(v->ctx, &marea_op_slice_grad, a, &v->din[0], 1, dy);
}

/* out[0] := the view part_of(in[0], ...) */
static void view_part (marea_call *c, int dim, int64_t start, int64_t step, int64_t length) {
  marea_tensor part = part_of(c->in[0], dim, start, step, length);
  view_of(&c->layout[0], &part);
}

static marea_status narrow_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  MAREA_TRY(marea_resolve_dim(c, 0, x->rank));
  const int dim = (int)c->attr[0].i;
  const int64_t size = x->shape[dim], length = c->attr[2].i;
  MAREA_TRY(marea_resolve_index(
      c, 1, size + (length == 0))); /* an empty part may also start behind the last element */
  const int64_t start = c->attr[1].i;
  if (length < 0 || length > size - start)
    return marea_reject(
        c, MAREA_EARG, "argument 'length': %lld elements from %lld on do not fit into dim %d of %s",
        (long long)length, (long long)start + base_of(c), dim + base_of(c), marea_tensor_text(x).s);
  view_part(c, dim, start, 1, length);
  return MAREA_OK;
}

static marea_status narrow_vjp (marea_vjp *v) {
  return put_back(v, v->dout[0], v->attr[0].i, v->attr[1].i, 1);
}

const marea_op marea_op_narrow = {
    .name = "narrow",
    .family = "shape",
    .doc = "`length` elements of a dimension from `start` on. A view of x. Gradient: dy put into zeros. "
           "Error: the range leaves the dimension.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"dim", MAREA_DIM, MAREA_REQUIRED, NULL, "the dimension"},
                         {"start", MAREA_INDEX, MAREA_REQUIRED, NULL, "first element"},
                         {"length", MAREA_INT, MAREA_REQUIRED, NULL, "number of elements"}),
    .flags = MAREA_STORES | MAREA_STRIDED | MAREA_PART,
    .dtypes = MAREA_ANY,
    .shape = narrow_shape,
    .vjp = narrow_vjp,
    .sample = "local s = g.shape(1, 4)\n"
              "local dim = g.int(1, #s)\n"
              "s[dim] = g.int(1, 5)\n"
              "local start = g.int(1, s[dim])\n"
              "return {g.tensor(s)}, {dim = dim, start = start, length = g.int(0, s[dim] - start + 1)}",
};

static marea_status select_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  MAREA_TRY(marea_resolve_dim(c, 0, x->rank));
  const int dim = (int)c->attr[0].i;
  MAREA_TRY(marea_resolve_index(c, 1, x->shape[dim]));
  view_part(c, dim, c->attr[1].i, 1, 1);
  remove_dim(&c->layout[0], dim);
  return MAREA_OK;
}

static marea_status select_vjp (marea_vjp *v) {
  MAREA_OWN dy = NULL;
  MAREA_TRY(marea_run_with(v->ctx, &marea_op_unsqueeze, v->attr, &dy, 1, v->dout[0]));
  return put_back(v, dy, v->attr[0].i, v->attr[1].i, 1);
}

const marea_op marea_op_select = {
    .name = "select",
    .family = "shape",
    .doc =
        "Element `index` of a dimension, which goes away. A view of x. Gradient: dy put into zeros. Error: "
        "the index is out of range.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"dim", MAREA_DIM, MAREA_REQUIRED, NULL, "the dimension"},
                         {"index", MAREA_INDEX, MAREA_REQUIRED, NULL, "the element"}),
    .flags = MAREA_STORES | MAREA_STRIDED | MAREA_PART,
    .dtypes = MAREA_ANY,
    .shape = select_shape,
    .vjp = select_vjp,
    .sample = "local s = g.shape(1, 4)\nlocal dim = g.int(1, #s)\ns[dim] = g.int(1, 5)\n"
              "return {g.tensor(s)}, {dim = dim, index = g.pick{g.int(1, s[dim]), -g.int(1, s[dim])}}",
};

static marea_status slice_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  const int64_t step = c->attr[3].i;
  MAREA_TRY(marea_resolve_dim(c, 0, x->rank));
  const int dim = (int)c->attr[0].i;
  const int64_t size = x->shape[dim];
  if (step < 1)
    return marea_reject(c, MAREA_EARG,
                        "argument 'step': expected 1 or more, got %lld (flip turns a dimension round)",
                        (long long)step);
  if (size == 0) {
    view_part(c, dim, 0, 1, 0);
    return MAREA_OK;
  }
  MAREA_TRY(marea_resolve_index(c, 1, size));
  MAREA_TRY(marea_resolve_index(c, 2, size));
  const int64_t start = c->attr[1].i, stop = c->attr[2].i;
  view_part(c, dim, start, step, stop < start ? 0 : (stop - start) / step + 1);
  return MAREA_OK;
}

static marea_status slice_vjp (marea_vjp *v) {
  if (v->out[0]->shape[v->attr[0].i] == 0) return put_back(v, v->dout[0], v->attr[0].i, 0, 1);
  return put_back(v, v->dout[0], v->attr[0].i, v->attr[1].i, v->attr[3].i);
}

const marea_op marea_op_slice = {
    .name = "slice",
    .family = "shape",
    .doc = "Elements start, start + step, ... of a dimension, up to and including stop; none when stop comes "
           "before start. A view of x. Gradient: dy put into zeros. Errors: start or stop out of range, step "
           "< 1.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"dim", MAREA_DIM, MAREA_REQUIRED, NULL, "the dimension"},
                         {"start", MAREA_INDEX, 0, NULL, "first element"},
                         {"stop", MAREA_INDEX, -1, NULL, "last element"},
                         {"step", MAREA_INT, 1, NULL, "distance between elements"}),
    .flags = MAREA_STORES | MAREA_STRIDED | MAREA_PART,
    .dtypes = MAREA_ANY,
    .shape = slice_shape,
    .vjp = slice_vjp,
    .sample = "local s = g.shape(1, 4)\nlocal dim = g.int(1, #s)\ns[dim] = g.int(1, 7)\n"
              "return {g.tensor(s)}, {dim = dim, start = g.int(1, s[dim]), "
              "stop = g.pick{-1, g.int(1, s[dim])}, "
              "step = g.int(1, 3)}",
};

static marea_status slice_grad_shape (marea_call *c) {
  const marea_tensor *dy = c->in[0];
  const marea_attr *shape = &c->attr[0];
  size_t bytes; /* marea_bytes checks the sizes, which come from the caller */
  MAREA_TRY(
      marea_bytes(c->ctx, c->op->name, shape->n, shape->v, marea_dtype_size((marea_dtype)dy->dtype), &bytes));
  if (shape->n != dy->rank)
    return marea_reject(c, MAREA_ESHAPE, "%s and shape %s differ in the number of dimensions",
                        marea_tensor_text(dy).s, marea_shape_text(shape->n, shape->v).s);
  MAREA_TRY(marea_resolve_dim(c, 1, dy->rank));
  const int dim = (int)c->attr[1].i;
  const int64_t length = dy->shape[dim], step = c->attr[3].i;
  MAREA_TRY(marea_resolve_index(c, 2, shape->v[dim] + (length == 0)));
  const int64_t start = c->attr[2].i;
  for (int d = 0; d < dy->rank; d++)
    if (d != dim && dy->shape[d] != shape->v[d])
      return marea_reject(c, MAREA_ESHAPE, "%s and shape %s differ outside dim %d", marea_tensor_text(dy).s,
                          marea_shape_text(shape->n, shape->v).s, dim + base_of(c));
  if (step < 1 || (length > 0 && length - 1 > (shape->v[dim] - 1 - start) / step))
    return marea_reject(c, MAREA_EARG,
                        "%lld elements from %lld on in steps of %lld do not fit into dim %d of %s",
                        (long long)length, (long long)start + base_of(c), (long long)step, dim + base_of(c),
                        marea_shape_text(shape->n, shape->v).s);
  marea_layout_set(&c->layout[0], dy->dtype, shape->n, shape->v);
  return MAREA_OK;
}

static marea_status slice_grad_forward (marea_call *c) {
  marea_tensor *out = c->out[0];
  const int dim = (int)c->attr[1].i;
  size_t bytes = (size_t)marea_count(out->rank, out->shape) * marea_dtype_size(out->dtype);
  if (bytes == 0) return MAREA_OK;
  memset(marea_at(out), 0, bytes);
  if (c->in[0]->shape[dim] == 0) return MAREA_OK;
  marea_tensor part = part_of(out, dim, c->attr[2].i, c->attr[3].i, c->in[0]->shape[dim]);
  marea_copy_strided(c->ctx, c->in[0], &part);
  return MAREA_OK;
}

static marea_status slice_grad_vjp (marea_vjp *v) {
  const int64_t dim = v->attr[1].i, start = v->attr[2].i, step = v->attr[3].i, length = v->in[0]->shape[dim];
  if (length == 0 || step == 1)
    return marea_narrow_to(v->dout[0], (int)dim, length ? start : 0, length, &v->din[0]);
  marea_attr a[] = {marea_attr_int(dim), marea_attr_int(start), marea_attr_int(start + (length - 1) * step),
                    marea_attr_int(step)};
  return marea_run_with(v->ctx, &marea_op_slice, a, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_slice_grad = {
    .name = "slice_grad",
    .family = "shape",
    .doc = "Zeros of a shape with dy at elements start, start + step, ... of a dimension: the gradient of "
           "slice, narrow and select. dy: `shape` but for dim. Gradient: the same slice of what arrives. "
           "Error: dy does not fit.",
    .inputs = {{"dy", "(shape but for dim)"}},
    .attrs = MAREA_ATTRS({"shape", MAREA_SIZES, MAREA_REQUIRED, NULL, "sizes of the result"},
                         {"dim", MAREA_DIM, MAREA_REQUIRED, NULL, "the dimension"},
                         {"start", MAREA_INDEX, 0, NULL, "place of dy's first element"},
                         {"step", MAREA_INT, 1, NULL, "distance between elements"}),
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = slice_grad_shape,
    .forward = slice_grad_forward,
    .vjp = slice_grad_vjp,
    .sample = "local s = g.shape(1, 4)\n"
              "local dim, n, start, step = g.int(1, #s), g.int(1, 3), g.int(1, 3), g.int(1, 3)\n"
              "local shape = table.move(s, 1, #s, 1, {})\n"
              "s[dim] = n\n"
              "shape[dim] = start + (n - 1) * step + g.int(0, 2)\n"
              "return {g.tensor(s)}, {shape = shape, dim = dim, start = start, step = step}",
};
