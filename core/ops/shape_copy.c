/* SPDX-License-Identifier: MIT
** shape_copy.c: operators that put values into another order or together. They copy into views of the result,
** so that one copying loop (elementwise.c) serves all; only tile repeats rows by itself. split makes views
** and is here because concat is its gradient.
*/
#include "part.h"
#include "vjp.h"

/* ---- helpers ---- */

static marea_status copy_forward (marea_call *c) {
  marea_copy_strided(c->ctx, c->in[0], c->out[0]);
  return MAREA_OK;
}

static marea_status same_vjp (marea_vjp *v) {
  v->din[0] = marea_retain(v->dout[0]);
  return MAREA_OK;
}

/* ---- concat, stack, split ---- */

static marea_status concat_shape (marea_call *c) {
  const marea_tensor *first = c->in[0];
  marea_layout *l = &c->layout[0];
  if (first->rank == 0) return marea_reject(c, MAREA_ESHAPE, "scalars have no dimension to join; see stack");
  MAREA_TRY(marea_resolve_dim(c, 0, first->rank));
  const int dim = (int)c->attr[0].i;
  marea_layout_like(l, first);
  for (int i = 1; i < c->n_in; i++) {
    const marea_tensor *t = c->in[i];
    bool fits = t->rank == first->rank;
    for (int d = 0; fits && d < t->rank; d++) fits = d == dim || t->shape[d] == first->shape[d];
    if (!fits)
      return marea_reject(c, MAREA_ESHAPE,
                          "tensor %d is %s, the first one %s: they may differ in dim %d only", i + 1,
                          marea_tensor_text(t).s, marea_tensor_text(first).s, dim + base_of(c));
    l->shape[dim] += t->shape[dim];
  }
  return MAREA_OK;
}

/* Bytes of the result that are written before the next ones are: parts of a cache line meet in the second-level cache. */
#define JOINED ((size_t)1 << 18)

/* The first dimension is cut, so that the inputs are read side by side. */
static int64_t joined_at_once (const marea_tensor *out, int dim) {
  const size_t bytes = (size_t)marea_count(out->rank - 1, out->shape + 1) * marea_element_size(out->dtype);
  if (dim == 0) return MAREA_MAX(out->shape[0], 1);
  return MAREA_MAX(1, (int64_t)(JOINED / MAREA_MAX(bytes, 1)));
}

/* Rows at .. at + n - 1 of the result, from all inputs */
static void join_rows (marea_call *c, int dim, int64_t at, int64_t n) {
  marea_tensor to = part_of(c->out[0], 0, at, 1, n);
  const int64_t stride = to.stride[dim];
  for (int i = 0; i < c->n_in; i++) {
    marea_tensor from = *c->in[i];
    to.shape[dim] = from.shape[dim];
    if (dim > 0) from.offset += at * from.stride[0], from.shape[0] = n;
    marea_copy_strided(c->ctx, &from, &to);
    to.offset += from.shape[dim] * stride;
  }
}

static marea_status concat_forward (marea_call *c) {
  const int dim = (int)c->attr[0].i;
  const int64_t rows = c->out[0]->shape[0], most = joined_at_once(c->out[0], dim);
  for (int64_t at = 0; at < rows && !marea_stopping(c->ctx); at += most)
    join_rows(c, dim, at, MAREA_MIN(most, rows - at));
  return MAREA_OK;
}

static marea_status concat_vjp (marea_vjp *v) {
  const int dim = (int)v->attr[0].i;
  int64_t start = 0;
  for (int i = 0; i < v->n_in; i++) {
    const int64_t length = v->in[i]->shape[dim];
    if (v->need[i]) MAREA_TRY(marea_narrow_to(v->dout[0], dim, start, length, &v->din[i]));
    start += length;
  }
  return MAREA_OK;
}

const marea_op marea_op_concat = {
    .name = "concat",
    .family = "shape",
    .doc = "Joins tensors along a dimension. xs: equal shapes but for dim; dtypes are promoted. Gradient: "
           "each tensor gets its part of dy. Errors: no tensor, shapes that differ elsewhere.",
    .inputs = {{"xs", "(equal but for dim)", .variadic = true}},
    .attrs = MAREA_ATTRS({"dim", MAREA_DIM, 0, NULL, "dimension along which they follow each other"}),
    .flags = MAREA_STORES | MAREA_STRIDED | MAREA_PROMOTES,
    .dtypes = MAREA_ANY,
    .shape = concat_shape,
    .forward = concat_forward,
    .vjp = concat_vjp,
    .sample = "local s, xs = g.shape(1, 4), {}\nlocal dim = g.int(1, #s)\n"
              "for i = 1, g.int(1, 4) do\n  s[dim] = g.int(0, 4)\n  xs[i] = g.tensor(s)\nend\n"
              "return xs, {dim = dim}",
};

static marea_status stack_shape (marea_call *c) {
  const marea_tensor *first = c->in[0];
  marea_layout *l = &c->layout[0];
  MAREA_TRY(marea_resolve_dim(c, 0, first->rank + 1));
  const int dim = (int)c->attr[0].i;
  if (first->rank == MAREA_MAX_RANK)
    return marea_reject(c, MAREA_ESHAPE, "%s has %d dimensions already", marea_tensor_text(first).s,
                        MAREA_MAX_RANK);
  for (int i = 1; i < c->n_in; i++) {
    const marea_tensor *t = c->in[i];
    if (!marea_has_shape(t, first->rank, first->shape))
      return marea_reject(c, MAREA_ESHAPE, "tensor %d is %s, the first one %s: shapes must be equal", i + 1,
                          marea_tensor_text(t).s, marea_tensor_text(first).s);
  }
  int64_t shape[MAREA_MAX_RANK];
  for (int d = 0; d <= first->rank; d++)
    shape[d] = d < dim ? first->shape[d] : d == dim ? c->n_in : first->shape[d - 1];
  marea_layout_set(l, first->dtype, first->rank + 1, shape);
  return MAREA_OK;
}

static marea_status stack_forward (marea_call *c) {
  const int dim = (int)c->attr[0].i;
  for (int i = 0; i < c->n_in; i++) {
    marea_tensor part = part_of(c->out[0], dim, i, 1, 1);
    part.rank--;
    for (int d = dim; d < part.rank; d++) {
      part.shape[d] = part.shape[d + 1];
      part.stride[d] = part.stride[d + 1];
    }
    marea_copy_strided(c->ctx, c->in[i], &part);
  }
  return MAREA_OK;
}

static marea_status stack_vjp (marea_vjp *v) {
  for (int i = 0; i < v->n_in; i++) {
    if (!v->need[i]) continue;
    marea_attr a[] = {v->attr[0], marea_attr_int(i)};
    MAREA_TRY(marea_run_with(v->ctx, &marea_op_select, a, &v->din[i], 1, v->dout[0]));
  }
  return MAREA_OK;
}

const marea_op marea_op_stack = {
    .name = "stack",
    .family = "shape",
    .doc =
        "Joins tensors along a new dimension. xs: equal shapes; dtypes are promoted. Gradient: each tensor "
        "gets its slice of dy. Errors: no tensor, different shapes.",
    .inputs = {{"xs", "(equal shapes)", .variadic = true}},
    .attrs = MAREA_ATTRS({"dim", MAREA_DIM, 0, NULL, "where the new dimension goes"}),
    .flags = MAREA_STORES | MAREA_STRIDED | MAREA_PROMOTES,
    .dtypes = MAREA_ANY,
    .shape = stack_shape,
    .forward = stack_forward,
    .vjp = stack_vjp,
    .sample = "local s, xs = g.shape(0, 4), {}\nfor i = 1, g.int(1, 4) do xs[i] = g.tensor(s) end\n"
              "return xs, {dim = g.int(1, #s + 1)}",
};

/* Parts of `size` of dimension attr[1]. */
static marea_status cut (marea_call *c, int64_t size) {
  const marea_tensor *x = c->in[0];
  const int dim = (int)c->attr[1].i;
  const int64_t total = x->shape[dim], parts = total == 0 ? 1 : (total - 1) / size + 1;
  if (parts > MAREA_MAX_OUT)
    return marea_reject(c, MAREA_EARG,
                        "dim %d of %s in parts of %lld gives %lld tensors, at most %d are possible; "
                        "see parts",
                        dim + base_of(c), marea_tensor_text(x).s, (long long)size, (long long)parts,
                        MAREA_MAX_OUT);
  c->n_out = (int)parts;
  for (int k = 0; k < c->n_out; k++) {
    const marea_tensor part = part_of(x, dim, k * size, 1, MAREA_MIN(size, total - k * size));
    marea_layout *l = &c->layout[k];
    marea_layout_like(l, &part);
    l->view = true;
    l->offset = part.offset;
    memcpy(l->stride, part.stride, sizeof l->stride);
  }
  return MAREA_OK;
}

static marea_status want_some (marea_call *c) {
  if (c->attr[0].i >= 1) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument '%s': expected 1 or more, got %lld", c->op->attrs[0].name,
                      (long long)c->attr[0].i);
}

static marea_status split_shape (marea_call *c) {
  MAREA_TRY(marea_resolve_dim(c, 1, c->in[0]->rank));
  MAREA_TRY(want_some(c));
  return cut(c, c->attr[0].i);
}

static marea_status chunk_shape (marea_call *c) {
  MAREA_TRY(marea_resolve_dim(c, 1, c->in[0]->rank));
  MAREA_TRY(want_some(c));
  const int64_t total = c->in[0]->shape[c->attr[1].i];
  return cut(c, total == 0 ? 1 : (total - 1) / c->attr[0].i + 1);
}

/* Joins the gradients of the parts, with zeros for parts that have none. */
static marea_status split_vjp (marea_vjp *v) {
  marea_tensor *part[MAREA_MAX_OUT];
  marea_status status = MAREA_OK;
  int n = 0;
  for (; n < v->n_out && status == MAREA_OK; n++) {
    const marea_tensor *out = v->out[n];
    if (v->dout[n]) part[n] = marea_retain(v->dout[n]);
    else status = marea_zeros(v->ctx, (marea_dtype)out->dtype, out->rank, out->shape, &part[n]);
  }
  if (status == MAREA_OK) {
    int n_out;
    status = marea_invoke(v->ctx, &marea_op_concat, n, part, &v->attr[1], &v->din[0], &n_out);
  } else {
    n--; /* the last one was not made */
  }
  while (n > 0) marea_release(part[--n]);
  return status;
}

const marea_op marea_op_split = {
    .name = "split",
    .family = "shape",
    .doc =
        "Cuts a dimension into parts of `size`, the last one perhaps smaller. Views of x, at most 32; "
        "parts gives a list without a limit. Gradient: the parts' gradients joined. Errors: size < 1, more "
        "than 32 parts.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"size", MAREA_INT, MAREA_REQUIRED, NULL, "elements of a part"},
                         {"dim", MAREA_DIM, 0, NULL, "the dimension"}),
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = split_shape,
    .vjp = split_vjp,
    .sample = "local s = g.shape(1, 4)\nreturn {g.tensor(s)}, {size = g.int(1, 4), dim = g.int(1, #s)}",
};

const marea_op marea_op_chunk = {
    .name = "chunk",
    .family = "shape",
    .doc =
        "Cuts a dimension of n elements into `count` parts of ceil(n / count), the last one perhaps smaller; "
        "fewer "
        "parts where that takes all (PyTorch's rule). Views of x, at most 32. Gradient: the parts' gradients "
        "joined. Errors: count < 1, more than 32 parts.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"count", MAREA_INT, MAREA_REQUIRED, NULL, "parts"},
                         {"dim", MAREA_DIM, 0, NULL, "the dimension"}),
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = chunk_shape,
    .vjp = split_vjp,
    .sample = "local s = g.shape(1, 4)\nreturn {g.tensor(s)}, {count = g.int(1, 4), dim = g.int(1, #s)}",
};

/* ---- tril, triu ---- */

static marea_status triangle_shape (marea_call *c) {
  if (c->in[0]->rank >= 2) return marea_shape_same(c);
  return marea_reject(c, MAREA_ESHAPE, "expected 2 or more dimensions (.., rows, columns), got %s",
                      marea_tensor_text(c->in[0]).s);
}

/* Of a row of `cols`, the elements first .. end - 1 stay. */
typedef struct triangle {
  const char *x;
  char *y;
  int64_t rows, cols, all, rows_per_block, diagonal;
  size_t size;
  bool lower;
} triangle;

static void triangle_rows (void *arg, int64_t block, int worker) {
  const triangle *t = arg;
  const int64_t end = MAREA_MIN((block + 1) * t->rows_per_block, t->all);
  (void)worker;
  for (int64_t r = block * t->rows_per_block; r < end; r++) {
    /* the diagonal's column, kept within the row so that no sum overflows */
    const int64_t row = r % t->rows, low = MAREA_MAX(t->diagonal, -t->rows),
                  on = row + MAREA_MIN(low, t->cols);
    const size_t cut_at = (size_t)MAREA_MIN(MAREA_MAX(on + t->lower, 0), t->cols) * t->size;
    const size_t bytes = (size_t)t->cols * t->size, at = (size_t)r * bytes;
    const size_t from = t->lower ? 0 : cut_at, kept = t->lower ? cut_at : bytes - cut_at;
    memset(t->y + at + (t->lower ? cut_at : 0), 0, bytes - kept);
    memcpy(t->y + at + from, t->x + at + from, kept);
  }
}

static marea_status copy_triangle (marea_call *c, bool lower) {
  const marea_tensor *x = c->in[0];
  const int64_t n = marea_count(x->rank, x->shape);
  triangle t = {.x = marea_at(x),
                .y = marea_at(c->out[0]),
                .rows = x->shape[x->rank - 2],
                .cols = x->shape[x->rank - 1],
                .diagonal = c->attr[0].i,
                .size = marea_dtype_size((marea_dtype)x->dtype),
                .lower = lower};
  if (n == 0) return MAREA_OK;
  t.all = n / t.cols;
  t.rows_per_block = MAREA_MAX(1, MAREA_BLOCK / t.cols);
  marea_parallel(c->ctx, (t.all - 1) / t.rows_per_block + 1, triangle_rows, &t);
  return MAREA_OK;
}

static marea_status tril_forward (marea_call *c) { return copy_triangle(c, true); }

static marea_status triu_forward (marea_call *c) { return copy_triangle(c, false); }

static marea_status triangle_vjp (marea_vjp *v) {
  return marea_run_with(v->ctx, v->op, v->attr, &v->din[0], 1, v->dout[0]);
}

#define TRIANGLE(op, side, comparison)                                                                 \
  .name = #op, .family = "shape", .inputs = {{"x", "(.., rows, columns)"}},                            \
  .attrs = MAREA_ATTRS(                                                                                \
      {"diagonal", MAREA_INT, 0, NULL, "the last one that stays: 1 is above the main one, -1 below"}), \
  .flags = MAREA_STORES, .dtypes = MAREA_ANY, .shape = triangle_shape, .forward = op##_forward,        \
  .vjp = triangle_vjp, .sample = "return {g.tensor(g.shape(2, 4))}, {diagonal = g.int(-3, 3)}",        \
  .doc = "The " side                                                                                   \
         " triangle of the last two dimensions: y[.., i, j] = x[.., i, j] where j - i " comparison     \
         " diagonal, else 0. Gradient: the same of dy. Error: fewer than 2 dimensions."

const marea_op marea_op_tril = {TRIANGLE(tril, "lower", "<=")};

const marea_op marea_op_triu = {TRIANGLE(triu, "upper", ">=")};

/* ---- pad, flip, tile ---- */

static marea_status pad_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  const marea_attr *padding = &c->attr[0];
  if (padding->n % 2 != 0 || padding->n > 2 * x->rank)
    return marea_reject(c, MAREA_EARG,
                        "argument 'padding': expected a pair (before, after) for each of the first "
                        "dimensions of %s, got %d numbers",
                        marea_tensor_text(x).s, padding->n);
  marea_layout_like(&c->layout[0], x);
  for (int i = 0; i < padding->n; i++) {
    if (padding->v[i] < 0)
      return marea_reject(c, MAREA_EARG,
                          "argument 'padding': expected 0 or more, got %lld (narrow makes smaller)",
                          (long long)padding->v[i]);
    MAREA_TRY(marea_want_int(c, 0, padding->v[i], 0));
    c->layout[0].shape[i / 2] += padding->v[i];
  }
  return marea_want_number(c, 1, x->dtype);
}

static marea_status pad_forward (marea_call *c) {
  const marea_attr *padding = &c->attr[0];
  marea_tensor inner = *c->out[0];
  marea_fill(c->ctx, c->out[0], &c->attr[1]);
  for (int d = 0; d < c->in[0]->rank; d++)
    inner = part_of(&inner, d, 2 * d < padding->n ? padding->v[2 * d] : 0, 1, c->in[0]->shape[d]);
  marea_copy_strided(c->ctx, c->in[0], &inner);
  return MAREA_OK;
}

static marea_status pad_vjp (marea_vjp *v) {
  const marea_attr *padding = &v->attr[0];
  marea_tensor *dx = marea_retain(v->dout[0]);
  for (int i = 0; i < padding->n; i += 2) {
    marea_tensor *inner = NULL;
    marea_status status = marea_narrow_to(dx, i / 2, padding->v[i], v->in[0]->shape[i / 2], &inner);
    marea_release(dx);
    if (status != MAREA_OK) return status;
    dx = inner;
  }
  v->din[0] = dx;
  return MAREA_OK;
}

const marea_op marea_op_pad = {
    .name = "pad",
    .family = "shape",
    .doc =
        "Puts `value` around x. padding: {before, after} of the first dimension, then of the second, and "
        "so on, for at most 4 dimensions; those left out stay as they are. Gradient: the inner part of dy. "
        "Errors: negative padding, more pairs than dimensions, a value that the dtype cannot hold.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS(
        {"padding", MAREA_SIZES, MAREA_REQUIRED, NULL, "before, after of each dimension from the first"},
        {"value", MAREA_NUMBER, 0, NULL, "what is put there"}),
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = pad_shape,
    .forward = pad_forward,
    .vjp = pad_vjp,
    .sample = "local s, p = g.shape(1, 4), {}\nfor i = 1, 2 * g.int(1, #s) do p[i] = g.int(0, 3) end\n"
              "return {g.tensor(s)}, {padding = p, value = g.int(0, 3)}",
};

static marea_status flip_shape (marea_call *c) {
  bool set[MAREA_MAX_RANK];
  MAREA_TRY(marea_resolve_dims(c, 0, c->in[0]->rank, set));
  return marea_shape_same(c);
}

static marea_status flip_forward (marea_call *c) {
  bool set[MAREA_MAX_RANK];
  marea_tensor back = *c->out[0]; /* the result, walked from its other ends */
  MAREA_TRY(marea_resolve_dims(c, 0, back.rank, set));
  if (marea_count(back.rank, back.shape) == 0) return MAREA_OK;
  for (int d = 0; d < back.rank; d++) {
    if (!set[d]) continue;
    back.offset += (back.shape[d] - 1) * back.stride[d];
    back.stride[d] = -back.stride[d];
  }
  marea_copy_strided(c->ctx, c->in[0], &back);
  return MAREA_OK;
}

static marea_status flip_vjp (marea_vjp *v) {
  return marea_run_with(v->ctx, &marea_op_flip, v->attr, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_flip = {
    .name = "flip",
    .family = "shape",
    .doc = "Turns dimensions round, all of them when none is given. x: any shape. Gradient: dy turned round.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"dims", MAREA_DIMS, 0, NULL, "dimensions; none: all"}),
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = flip_shape,
    .forward = flip_forward,
    .vjp = flip_vjp,
    .sample = "local s = g.shape(1, 4)\nreturn {g.tensor(s)}, {dims = g.pick{{}, {g.int(1, #s)}, {-1}}}",
};

static marea_status tile_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  marea_attr *a = &c->attr[0];
  const int rank = MAREA_MAX(a->n, x->rank), missing = rank - a->n, added = rank - x->rank;
  int64_t shape[MAREA_MAX_RANK];
  memmove(a->v + missing, a->v, sizeof *a->v * (size_t)a->n);
  a->n = rank;
  for (int d = 0; d < rank; d++) {
    if (d < missing) a->v[d] = 1;
    if (a->v[d] < 0 || __builtin_mul_overflow(a->v[d], d < added ? 1 : x->shape[d - added], &shape[d]))
      return marea_reject(c, MAREA_EARG, "argument 'repeats': %lld is out of range", (long long)a->v[d]);
  }
  marea_layout_set(&c->layout[0], x->dtype, rank, shape);
  return MAREA_OK;
}

/* Bytes between two checks of marea_stopping: some 0.1 ms at 10 GB/s. */
#define LONGEST_COPY ((size_t)1 << 20)

typedef struct tiling {
  const marea_tensor *x, *out;
  int64_t rows, last, repeats; /* rows of the result; of its last dimension: x's size, times */
  int64_t rows_per_block;
} tiling;

/* dst := `times` copies of what it begins with, which is `bytes` long */
static void repeat_bytes (marea_context *ctx, char *dst, size_t bytes, int64_t times) {
  const size_t total = bytes * (size_t)times, most = MAREA_MAX(bytes, LONGEST_COPY / bytes * bytes);
  for (size_t done = bytes, n; done < total && !marea_stopping(ctx); done += n) {
    n = MAREA_MIN(MAREA_MIN(done, most), total - done);
    memcpy(dst + done, dst, n);
  }
}

/* Offset in x, in elements, of the row that row `r` of the result repeats. */
static int64_t source_row (const tiling *t, int64_t r) {
  const int added = t->out->rank - t->x->rank;
  int64_t offset = 0;
  for (int d = t->out->rank - 2; d >= 0; d--) {
    const int64_t i = r % t->out->shape[d];
    r /= t->out->shape[d];
    if (d >= added) offset += i % t->x->shape[d - added] * t->x->stride[d - added];
  }
  return offset;
}

static void tile_rows (void *arg, int64_t block, int worker) {
  const tiling *t = arg;
  const size_t size = marea_dtype_size(t->x->dtype), bytes = size * (size_t)t->last;
  const int64_t end = MAREA_MIN((block + 1) * t->rows_per_block, t->rows);
  (void)worker;
  for (int64_t r = block * t->rows_per_block; r < end; r++) {
    char *dst = (char *)marea_at(t->out) + (size_t)r * bytes * (size_t)t->repeats;
    memcpy(dst, (char *)marea_at(t->x) + (size_t)source_row(t, r) * size, bytes);
    repeat_bytes(t->x->ctx, dst, bytes, t->repeats);
  }
}

static marea_status tile_forward (marea_call *c) {
  const marea_tensor *x = c->in[0], *out = c->out[0];
  const int64_t count = marea_count(out->rank, out->shape), width = out->rank ? out->shape[out->rank - 1] : 1;
  if (count == 0) return MAREA_OK;
  tiling t = {.x = x, .out = out, .rows = count / width, .last = x->rank ? x->shape[x->rank - 1] : 1};
  t.repeats = width / t.last;
  t.rows_per_block = MAREA_MAX(1, MAREA_BLOCK / width);
  marea_parallel(c->ctx, (t.rows - 1) / t.rows_per_block + 1, tile_rows, &t);
  return MAREA_OK;
}

/* Sums over the repeats of one dimension after the other: (before, repeats, size, after) -> without the
   second. */
static marea_status tile_vjp (marea_vjp *v) {
  const marea_tensor *x = v->in[0];
  const marea_attr *repeats = &v->attr[0];
  const int added = repeats->n - x->rank;
  int64_t before = 1, after = marea_count(repeats->n, v->out[0]->shape);
  marea_tensor *dx = marea_retain(v->dout[0]);
  marea_attr sum[] = {marea_attr_list(1, (int64_t[]){1}), marea_attr_int(0)};
  if (marea_count(x->rank, x->shape) == 0 || after == 0) {
    marea_release(dx);
    return marea_zeros(v->ctx, (marea_dtype)x->dtype, x->rank, x->shape, &v->din[0]);
  }
  for (int d = 0; d < repeats->n; d++) {
    const int64_t size = d < added ? 1 : x->shape[d - added];
    MAREA_OWN whole = dx;
    MAREA_OWN parts = NULL;
    dx = NULL;
    after /= size * repeats->v[d];
    MAREA_TRY(marea_reshape_to(whole, 4, (int64_t[]){before, repeats->v[d], size, after}, &parts));
    MAREA_TRY(marea_run_with(v->ctx, &marea_op_sum, sum, &dx, 1, parts));
    before *= size;
  }
  MAREA_OWN flat = dx;
  return marea_reshape_to(flat, x->rank, x->shape, &v->din[0]);
}

const marea_op marea_op_tile = {
    .name = "tile",
    .family = "shape",
    .doc = "Repeats whole dimensions, as NumPy's tile; the shorter one of repeats and x's shape gets ones in "
           "front. Gradient: dy summed over the repeats. Error: a negative number of repeats.",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"repeats", MAREA_SIZES, MAREA_REQUIRED, NULL, "copies along each dimension"}),
    .flags = MAREA_STORES,
    .dtypes = MAREA_ANY,
    .shape = tile_shape,
    .forward = tile_forward,
    .vjp = tile_vjp,
    .sample = "local s, r = g.shape(0, 3), {}\nfor i = 1, g.int(0, 4) do r[i] = g.int(0, 3) end\n"
              "return {g.tensor(s)}, {repeats = r}",
};

/* ---- contiguous, clone ---- */

static marea_status contiguous_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  marea_layout *l = &c->layout[0];
  marea_layout_like(l, x);
  if (!marea_tensor_contiguous(x)) return MAREA_OK;
  l->view = true;
  l->offset = x->offset;
  memcpy(l->stride, x->stride, sizeof l->stride);
  return MAREA_OK;
}

const marea_op marea_op_contiguous = {
    .name = "contiguous",
    .family = "shape",
    .doc = "x in row-major order without gaps: a view of x if it is that already, else a copy. Gradient: dy.",
    .inputs = {{"x", "(any shape)"}},
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = contiguous_shape,
    .forward = copy_forward,
    .vjp = same_vjp,
    .sample = "return {g.tensor(g.shape(0, 4))}",
};

const marea_op marea_op_clone = {
    .name = "clone",
    .family = "shape",
    .doc = "A copy of x with memory of its own, in row-major order. Gradient: dy.",
    .inputs = {{"x", "(any shape)"}},
    .flags = MAREA_STORES | MAREA_STRIDED,
    .dtypes = MAREA_ANY,
    .shape = marea_shape_same,
    .forward = copy_forward,
    .vjp = same_vjp,
    .sample = "return {g.tensor(g.shape(0, 4))}",
};
