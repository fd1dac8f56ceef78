/* SPDX-License-Identifier: MIT
** index.c: values picked and added by position. Positions are read once, in order, into a 0-based workspace;
** the first one out of range is reported in the user's base before anything is written, so the loops
** behind cannot fail. Sums at equal positions are made in the order of the index, whatever the threads.
*/
#include "vjp.h"

/* ---- helpers ---- */

#define FROM_END \
  { "from_end", MAREA_BOOL, 0, NULL, "negative positions count from the end, -1 is the last" }

/* *out := the 0-based positions in in[input], each in 0..limit-1; negative ones count from the end if they may. */
static marea_status read_positions (marea_call *c, int input, int64_t limit, bool from_end, int64_t **out) {
  const marea_tensor *t = c->in[input];
  const int64_t n = marea_count(t->rank, t->shape), base = c->ctx->config.index_base;
  const void *from = marea_at(t);
  int64_t *position;
  MAREA_WORKSPACE_OR_RETURN(c, position, (size_t)MAREA_MAX(n, 1) * sizeof *position);
  for (int64_t i = 0; i < n && !MAREA_STOPPING(c->ctx, i); i++) {
    const int64_t value = marea_load_integer(t->dtype, from, i);
    const bool negative = from_end && value < 0;
    if (negative ? value < -limit : value < base || value - base >= limit)
      return marea_reject(c, MAREA_EARG, "argument '%s': element %s of %s is %lld, expected %lld to %lld%s",
                          c->op->inputs[input].name, marea_place_text(t, i).s, marea_tensor_text(t).s,
                          (long long)value, (long long)base, (long long)(limit - 1 + base),
                          from_end ? ", or negative from the end" : "");
    position[i] = negative ? value + limit : value - base;
  }
  *out = position;
  return MAREA_OK;
}

/* A tensor seen from one of its dimensions: (before, size, after), with x at [a][i][b]. */
typedef struct axis {
  int64_t before, size, after;
} axis;

static axis axis_of (const marea_tensor *t, int dim) {
  return (axis){marea_count(dim, t->shape), t->shape[dim],
                marea_count(t->rank - dim - 1, t->shape + dim + 1)};
}

static marea_status zeros_like (const marea_tensor *t, marea_tensor **out) {
  return marea_zeros(t->ctx, (marea_dtype)t->dtype, t->rank, t->shape, out);
}

/* ---- index_select ---- */

enum { SELECT_DIM, SELECT_DTYPE, SELECT_SCALE, SELECT_FROM_END }; /* ORDER of its attributes */

/* shape := x's shape with the index's shape in place of dimension dim */
static marea_status selected_shape (marea_call *c, int dim, int64_t *shape, int *rank) {
  const marea_tensor *x = c->in[0], *index = c->in[1];
  *rank = x->rank - 1 + index->rank;
  if (*rank > MAREA_MAX_RANK)
    return marea_reject(c, MAREA_ESHAPE, "%s by %s gives %d dimensions, at most %d are possible",
                        marea_tensor_text(x).s, marea_tensor_text(index).s, *rank, MAREA_MAX_RANK);
  int n = 0;
  for (int d = 0; d < dim; d++) shape[n++] = x->shape[d];
  for (int d = 0; d < index->rank; d++) shape[n++] = index->shape[d];
  for (int d = dim + 1; d < x->rank; d++) shape[n++] = x->shape[d];
  return MAREA_OK;
}

static marea_status index_select_shape (marea_call *c) {
  int64_t shape[MAREA_MAX_RANK];
  int rank;
  const int given = (int)c->attr[SELECT_DTYPE].i, from = c->in[0]->dtype, to = given < 0 ? from : given;
  MAREA_TRY(marea_want_dtype(c, 1, MAREA_INTS));
  MAREA_TRY(marea_resolve_dim(c, SELECT_DIM, c->in[0]->rank));
  if ((to != from || c->attr[SELECT_SCALE].f != 1) && !marea_is_float(to))
    return marea_reject(c, MAREA_EARG,
                        "%s to %s with scale %g: only results of %s can be converted or scaled",
                        marea_dtype_name((marea_dtype)from), marea_dtype_name((marea_dtype)to),
                        c->attr[SELECT_SCALE].f, marea_dtypes_text(MAREA_FLOATS).s);
  c->attr[SELECT_DTYPE] = marea_attr_int(to);
  MAREA_TRY(selected_shape(c, (int)c->attr[SELECT_DIM].i, shape, &rank));
  marea_layout_set(&c->layout[0], to, rank, shape);
  return MAREA_OK;
}

typedef struct selection {
  const int64_t *position;
  axis from;
  int64_t n, rows_per_block; /* rows are (before, n) runs of `after` elements */
  int from_dtype, to_dtype;
  double scale;
  const char *x;
  char *y;
} selection;

#define SCALE_FROM(type) \
  for (int64_t i = 0; i < n; i++) to[i] = (target)((double)((const type *)x)[i] * scale)
#define SCALE_TO(type)                    \
  {                                       \
    typedef type target;                  \
    target *to = y;                       \
    MAREA_SWITCH_DTYPE(from, SCALE_FROM); \
  }

/* y := x * scale, in double, rounded once; y is of floats */
static void scale_run (int64_t n, int from, const void *x, int dtype, void *y, double scale) {
  if (!marea_is_in(MAREA_COMPUTED, from) || !marea_is_in(MAREA_COMPUTED, dtype)) {
    for (int64_t i = 0; i < n; i++) marea_store(dtype, y, i, marea_load(from, x, i) * scale);
    return;
  }
  MAREA_SWITCH_FLOAT(dtype, SCALE_TO);
}

static void select_rows (void *arg, int64_t block, int worker) {
  const selection *s = arg;
  const size_t in = marea_dtype_size((marea_dtype)s->from_dtype),
               out = marea_dtype_size((marea_dtype)s->to_dtype);
  const size_t after = (size_t)s->from.after;
  const int64_t end = MAREA_MIN((block + 1) * s->rows_per_block, s->from.before * s->n);
  const bool as_is = s->from_dtype == s->to_dtype && s->scale == 1;
  (void)worker;
  for (int64_t r = block * s->rows_per_block; r < end; r++) {
    const int64_t row = r / s->n * s->from.size + s->position[r % s->n];
    const char *x = s->x + (size_t)row * after * in;
    char *y = s->y + (size_t)r * after * out;
    if (as_is) memcpy(y, x, after * in);
    else scale_run(s->from.after, s->from_dtype, x, s->to_dtype, y, s->scale);
  }
}

static marea_status index_select_forward (marea_call *c) {
  const marea_tensor *x = c->in[0], *out = c->out[0];
  int64_t *position;
  const axis from = axis_of(x, (int)c->attr[SELECT_DIM].i);
  MAREA_TRY(read_positions(c, 1, from.size, c->attr[SELECT_FROM_END].i, &position));
  if (marea_count(out->rank, out->shape) == 0) return MAREA_OK;
  selection s = {.position = position,
                 .from = from,
                 .n = marea_count(c->in[1]->rank, c->in[1]->shape),
                 .rows_per_block = MAREA_MAX(1, MAREA_BLOCK / from.after),
                 .from_dtype = x->dtype,
                 .to_dtype = out->dtype,
                 .scale = c->attr[SELECT_SCALE].f,
                 .x = marea_at(x),
                 .y = marea_at(out)};
  marea_parallel(c->ctx, (from.before * s.n - 1) / s.rows_per_block + 1, select_rows, &s);
  return MAREA_OK;
}

static marea_status index_select_vjp (marea_vjp *v) {
  marea_tensor *dy = v->dout[0];
  MAREA_OWN scaled = NULL;
  MAREA_OWN cast = NULL;
  MAREA_OWN zeros = NULL;
  if (!v->need[0]) return MAREA_OK;
  if (v->attr[SELECT_SCALE].f != 1) {
    MAREA_TRY(marea_run_number(v->ctx, &marea_op_mul, &scaled, dy, v->attr[SELECT_SCALE].f));
    dy = scaled;
  }
  if (dy->dtype != v->in[0]->dtype) {
    marea_attr dtype = marea_attr_int(v->in[0]->dtype);
    MAREA_TRY(marea_run_with(v->ctx, &marea_op_cast, &dtype, &cast, 1, dy));
    dy = cast;
  }
  MAREA_TRY(zeros_like(v->in[0], &zeros));
  const marea_attr a[] = {v->attr[SELECT_DIM], v->attr[SELECT_FROM_END]};
  return marea_run_with(v->ctx, &marea_op_index_add, a, &v->din[0], 3, zeros, v->in[1], dy);
}

const marea_op marea_op_index_select = {
    .name = "index_select",
    .family = "index",
    .doc =
        "Picks elements of a dimension: y[.., i, ..] = scale * x[.., index[i], ..]. index: i64 or u8 of "
        "any shape, which takes the dimension's place (NumPy's take); an embedding is index_select(weight, "
        "index). With dtype (f32 or f64), rows are converted on the way: u8 images become f32 in one pass. "
        "Gradient: index_add of dy to zeros. Error: a position out of range, the first one is named.",
    .inputs = {{"x", "(any shape)"}, {"index", "(any shape) positions in dim"}},
    .attrs = MAREA_ATTRS({"dim", MAREA_DIM, 0, NULL, "the dimension to pick from"},
                         {"dtype", MAREA_DTYPE, -1, NULL, "of the result; left out: x's"},
                         {"scale", MAREA_REAL, 1, NULL, "factor on every element"}, FROM_END),
    .flags = MAREA_STORES,
    .dtypes = MAREA_ANY,
    .saves_in = 2,
    .shape = index_select_shape,
    .forward = index_select_forward,
    .vjp = index_select_vjp,
    .sample = "local s = g.shape(1, 3)\nlocal dim = g.int(1, #s)\ns[dim] = g.int(1, 5)\n"
              "return {g.tensor(s), g.index(g.shape(0, 2), s[dim])}, {dim = dim, scale = g.pick{1, 0.5}, "
              "from_end = g.bool()}",
};

/* ---- index_add ---- */

static marea_status index_add_shape (marea_call *c) {
  const marea_tensor *x = c->in[0], *src = c->in[2];
  int64_t shape[MAREA_MAX_RANK];
  int rank;
  MAREA_TRY(marea_want_dtype(c, 1, MAREA_INTS));
  MAREA_TRY(marea_want_dtype(c, 2, 1 << x->dtype));
  MAREA_TRY(marea_resolve_dim(c, 0, x->rank));
  MAREA_TRY(selected_shape(c, (int)c->attr[0].i, shape, &rank));
  if (!marea_has_shape(src, rank, shape))
    return marea_reject(c, MAREA_ESHAPE,
                        "argument 'src': expected %s (x %s with the index's shape %s at the dimension), "
                        "got %s",
                        marea_shape_text(rank, shape).s, marea_tensor_text(x).s,
                        marea_tensor_text(c->in[1]).s, marea_tensor_text(src).s);
  marea_layout_like(&c->layout[0], x);
  return MAREA_OK;
}

typedef struct addition {
  marea_context *ctx;
  const int64_t *position;
  axis to;
  int64_t n, parts; /* entries of the index; ranges that each of the `before` planes is cut into */
  size_t size;
  bool in_place;               /* y is x; else a copy of it */
  marea_binary_kernel *kernel; /* what y and a row of src make; NULL: the row */
  const char *x, *src;
  char *y;
} addition;

/* One range of rows of one plane: each block reads the whole index and handles the positions in its range. */
static void add_rows (void *arg, int64_t block, int worker) {
  const addition *s = arg;
  const int64_t a = block / s->parts, part = block % s->parts;
  const int64_t first = part * s->to.size / s->parts, end = (part + 1) * s->to.size / s->parts;
  const size_t bytes = (size_t)s->to.after * s->size;
  char *y = s->y + (size_t)(a * s->to.size) * bytes;
  const char *src = s->src + (size_t)(a * s->n) * bytes;
  (void)worker;
  if (!s->in_place)
    memcpy(y + (size_t)first * bytes, s->x + (size_t)(a * s->to.size + first) * bytes,
           (size_t)(end - first) * bytes);
  for (int64_t i = 0; i < s->n && !MAREA_STOPPING(s->ctx, i); i++) {
    const int64_t row = s->position[i];
    if (row < first || row >= end) continue;
    char *at = y + (size_t)row * bytes;
    if (!s->kernel) memcpy(at, src + (size_t)i * bytes, bytes);
    else s->kernel((size_t)s->to.after, at, 1, src + (size_t)i * bytes, 1, at, NULL);
  }
}

/* Adds or puts in[2] into y, from_end being an attribute. */
static marea_status run_addition (marea_call *c, int from_end, marea_binary_kernel *kernel, marea_tensor *y) {
  const marea_tensor *x = c->in[0];
  int64_t *position;
  const axis to = axis_of(x, (int)c->attr[0].i);
  MAREA_TRY(read_positions(c, 1, to.size, c->attr[from_end].i, &position));
  if (marea_count(x->rank, x->shape) == 0) return MAREA_OK;
  addition s = {.ctx = c->ctx,
                .kernel = kernel,
                .position = position,
                .to = to,
                .n = marea_count(c->in[1]->rank, c->in[1]->shape),
                .size = marea_dtype_size((marea_dtype)x->dtype),
                .x = marea_at(x),
                .in_place = y == x,
                .src = marea_at(c->in[2]),
                .y = marea_at(y)};
  s.parts = to.before >= 16 || to.size * to.after < MAREA_BLOCK ? 1 : MAREA_MIN(to.size, 16);
  marea_parallel_if(c->ctx, marea_tensor_size(x) + marea_tensor_size(c->in[2]), to.before * s.parts, add_rows,
                    &s);
  return MAREA_OK;
}

static const marea_kernels *kernels_of (const marea_call *c) { return c->ctx->kernels[c->in[0]->dtype]; }

static marea_status index_add_forward (marea_call *c) {
  return run_addition(c, 1, kernels_of(c)->add, c->out[0]);
}

static marea_status index_add_vjp (marea_vjp *v) {
  if (v->need[0]) v->din[0] = marea_retain(v->dout[0]);
  if (!v->need[2]) return MAREA_OK;
  const marea_attr a[] = {v->attr[0], marea_attr_int(-1), marea_attr_real(1), v->attr[1]};
  return marea_run_with(v->ctx, &marea_op_index_select, a, &v->din[2], 2, v->dout[0], v->in[1]);
}

const marea_op marea_op_index_add = {
    .name = "index_add",
    .family = "index",
    .doc = "x with src added at positions of a dimension: y[.., index[i], ..] += src[.., i, ..]; equal "
           "positions add up, in order. index: i64 or u8 of any shape; src: x's shape with the index's in "
           "place of dim. Gradient: dy to x, index_select(dy, index) to src. Error: a position out of range, "
           "the first one is named.",
    .inputs = {{"x", "(any shape)"},
               {"index", "(any shape) positions in dim"},
               {"src", "(x's, the index's at dim)"}},
    .attrs = MAREA_ATTRS({"dim", MAREA_DIM, 0, NULL, "the dimension to add at"}, FROM_END),
    .dtypes = MAREA_ANY,
    .saves_in = 2,
    .shape = index_add_shape,
    .forward = index_add_forward,
    .vjp = index_add_vjp,
    .sample = "local s, n = g.shape(1, 3), g.int(0, 4)\nlocal dim = g.int(1, #s)\ns[dim] = g.int(1, 5)\n"
              "local t = table.move(s, 1, #s, 1, {})\nt[dim] = n\n"
              "return {g.tensor(s), g.index({n}, s[dim]), g.tensor(t)}, {dim = dim, from_end = g.bool()}",
};

/* ---- index_put ---- */

static marea_status index_put_shape (marea_call *c) {
  if (c->in[0]->requires_grad && c->ctx->recording)
    return marea_reject(
        c, MAREA_ESTATE,
        "%s requires a gradient, and a change in place is not recorded; do it in no_grad, or on "
        "t:detach()",
        marea_tensor_text(c->in[0]).s);
  for (int i = 1; i < 3; i++)
    if (c->in[i]->storage == c->in[0]->storage)
      return marea_reject(c, MAREA_EARG, "argument '%s' shares the memory that is changed; clone it",
                          c->op->inputs[i].name);
  return index_add_shape(c);
}

static marea_status index_put_forward (marea_call *c) { return run_addition(c, 1, NULL, c->in[0]); }

const marea_op marea_op_index_put = {
    .name = "index_put",
    .family = "index",
    .doc =
        "Changes x in place: x[.., index[i], ..] = src[.., i, ..]; of equal positions the last one counts. "
        "index: "
        "i64 or u8 of any shape; src: x's shape with the index's in place of dim, x's dtype. What t[index] = "
        "src "
        "does. Errors: a position out of range, the first one is named, and nothing is changed; x requires a "
        "gradient while recording is on; src or index are x's memory.",
    .inputs = {{"x", "(any shape) changed"},
               {"index", "(any shape) positions in dim"},
               {"src", "(x's, the index's at dim)"}},
    .attrs = MAREA_ATTRS({"dim", MAREA_DIM, 0, NULL, "the dimension to put at"}, FROM_END),
    .flags = MAREA_STORES | MAREA_MUTATES | MAREA_NO_GRAD,
    .mutates = 1,
    .dtypes = MAREA_ANY,
    .shape = index_put_shape,
    .forward = index_put_forward,
    .sample = "local s, n = g.shape(1, 3), g.int(0, 4)\nlocal dim = g.int(1, #s)\ns[dim] = g.int(1, 5)\n"
              "local t = table.move(s, 1, #s, 1, {})\nt[dim] = n\n"
              "return {g.tensor(s), g.index({n}, s[dim]), g.tensor(t)}, {dim = dim, from_end = g.bool()}",
};

/* ---- index_reduce ---- */

enum { PUT, MUL, MAX, MIN };                      /* ORDER of the choices */
enum { REDUCE_DIM, REDUCE_WAY, REDUCE_FROM_END }; /* ORDER of its attributes */

static marea_status index_reduce_forward (marea_call *c) {
  const marea_kernels *k = kernels_of(c);
  marea_binary_kernel *const ways[] = {[PUT] = NULL, [MUL] = k->mul, [MAX] = k->maximum, [MIN] = k->minimum};
  return run_addition(c, REDUCE_FROM_END, ways[c->attr[REDUCE_WAY].i], c->out[0]);
}

/* The part of t that belongs to each row of src. */
static marea_status rows_of (marea_vjp *v, marea_tensor *t, marea_tensor **out) {
  const marea_attr a[] = {v->attr[REDUCE_DIM], marea_attr_int(-1), marea_attr_real(1),
                          v->attr[REDUCE_FROM_END]};
  return marea_run_with(v->ctx, &marea_op_index_select, a, out, 2, t, v->in[1]);
}

/* *out := 1 at rows of src that the last one of their position is, else 0; of src's rank */
static marea_status last_ones (marea_vjp *v, marea_tensor **out) {
  const marea_tensor *index = v->in[1];
  const int dim = (int)v->attr[REDUCE_DIM].i;
  const int64_t n = marea_tensor_size(index), size = v->in[0]->shape[dim];
  int64_t shape[MAREA_MAX_RANK];
  MAREA_OWN flat = NULL;
  MAREA_OWN number = NULL;
  MAREA_OWN zeros = NULL;
  MAREA_OWN winner = NULL;
  MAREA_OWN theirs = NULL;
  MAREA_OWN last = NULL;
  MAREA_OWN real = NULL;
  const marea_attr count[] = {marea_attr_real(1), marea_attr_real((double)n), marea_attr_real(1),
                              marea_attr_int(MAREA_F64)};
  const marea_attr put[] = {marea_attr_int(0), marea_attr_int(PUT), v->attr[REDUCE_FROM_END]};
  const marea_attr pick[] = {marea_attr_int(0), marea_attr_int(-1), marea_attr_real(1),
                             v->attr[REDUCE_FROM_END]};
  const marea_attr dtype = marea_attr_int(v->in[0]->dtype);
  MAREA_TRY(marea_reshape_to(v->in[1], 1, &n, &flat));
  MAREA_TRY(marea_run_with(v->ctx, &marea_op_arange, count, &number, 0));
  MAREA_TRY(marea_zeros(v->ctx, MAREA_F64, 1, &size, &zeros));
  MAREA_TRY(marea_run_with(v->ctx, &marea_op_index_reduce, put, &winner, 3, zeros, flat, number));
  MAREA_TRY(marea_run_with(v->ctx, &marea_op_index_select, pick, &theirs, 2, winner, flat));
  MAREA_TRY(marea_run(v->ctx, &marea_op_eq, &last, 2, theirs, number));
  MAREA_TRY(marea_run_with(v->ctx, &marea_op_cast, &dtype, &real, 1, last));
  const int rank = index->rank + v->in[0]->rank - dim - 1;
  for (int d = 0; d < rank; d++) shape[d] = d < index->rank ? index->shape[d] : 1;
  return marea_reshape_to(real, rank, shape, out);
}

static marea_status put_vjp (marea_vjp *v) {
  marea_tensor *dy = v->dout[0];
  MAREA_OWN zeros = NULL;
  MAREA_OWN theirs = NULL;
  MAREA_OWN last = NULL;
  MAREA_TRY(zeros_like(v->in[2], &zeros));
  if (v->need[0])
    MAREA_TRY(marea_run_with(v->ctx, &marea_op_index_reduce, v->attr, &v->din[0], 3, dy, v->in[1], zeros));
  if (!v->need[2]) return MAREA_OK;
  MAREA_TRY(rows_of(v, dy, &theirs));
  MAREA_TRY(last_ones(v, &last));
  return marea_run(v->ctx, &marea_op_mul, &v->din[2], 2, theirs, last);
}

static marea_status mul_vjp (marea_vjp *v) {
  marea_tensor *dy = v->dout[0];
  MAREA_OWN ones = NULL;
  MAREA_OWN factors = NULL;
  MAREA_OWN product = NULL;
  MAREA_OWN theirs = NULL;
  MAREA_OWN zeros = NULL;
  if (v->need[0]) {
    MAREA_TRY(zeros_like(v->in[0], &zeros));
    MAREA_TRY(marea_run_number(v->ctx, &marea_op_add, &ones, zeros, 1));
    MAREA_TRY(marea_run_with(v->ctx, &marea_op_index_reduce, v->attr, &factors, 3, ones, v->in[1], v->in[2]));
    MAREA_TRY(marea_run(v->ctx, &marea_op_mul, &v->din[0], 2, dy, factors));
  }
  if (!v->need[2]) return MAREA_OK;
  MAREA_TRY(marea_run(v->ctx, &marea_op_mul, &product, 2, dy, v->out[0]));
  MAREA_TRY(rows_of(v, product, &theirs));
  return marea_run(v->ctx, &marea_op_div, &v->din[2], 2, theirs, v->in[2]);
}

static marea_status equal_as (marea_vjp *v, marea_tensor *a, marea_tensor *b, marea_tensor **out) {
  const marea_attr dtype = marea_attr_int(a->dtype);
  MAREA_OWN equal = NULL;
  MAREA_TRY(marea_run(v->ctx, &marea_op_eq, &equal, 2, a, b));
  return marea_run_with(v->ctx, &marea_op_cast, &dtype, out, 1, equal);
}

/* dy in equal parts to those that are the extreme */
static marea_status extreme_vjp (marea_vjp *v) {
  const marea_attr a[] = {v->attr[REDUCE_DIM], v->attr[REDUCE_FROM_END]};
  MAREA_OWN theirs = NULL;
  MAREA_OWN is_x = NULL;
  MAREA_OWN is_src = NULL;
  MAREA_OWN count = NULL;
  MAREA_OWN share = NULL;
  MAREA_OWN their_share = NULL;
  MAREA_TRY(rows_of(v, v->out[0], &theirs));
  MAREA_TRY(equal_as(v, v->in[0], v->out[0], &is_x));
  MAREA_TRY(equal_as(v, v->in[2], theirs, &is_src));
  MAREA_TRY(marea_run_with(v->ctx, &marea_op_index_add, a, &count, 3, is_x, v->in[1], is_src));
  MAREA_TRY(marea_run(v->ctx, &marea_op_div, &share, 2, v->dout[0], count));
  if (v->need[0]) MAREA_TRY(marea_run(v->ctx, &marea_op_mul, &v->din[0], 2, share, is_x));
  if (!v->need[2]) return MAREA_OK;
  MAREA_TRY(rows_of(v, share, &their_share));
  return marea_run(v->ctx, &marea_op_mul, &v->din[2], 2, their_share, is_src);
}

static marea_status index_reduce_vjp (marea_vjp *v) {
  const int64_t way = v->attr[REDUCE_WAY].i;
  return way == PUT ? put_vjp(v) : way == MUL ? mul_vjp(v) : extreme_vjp(v);
}

const marea_op marea_op_index_reduce = {
    .name = "index_reduce",
    .family = "index",
    .doc =
        "x with rows of src put at, or combined with what is at, positions of a dimension: y[.., index[i], "
        "..] "
        "= src[.., i, ..], of equal positions the last one; or its product with it, the greater or the "
        "smaller "
        "one, in order. index: i64 or u8 of any shape; src: x's shape with the index's in place of dim. Sums "
        "are index_add. Gradient: dy to what y is made of: put, to x elsewhere and to the last row; max and "
        "min, "
        "in equal parts at a tie; mul, to src dy y / src, so NaN at 0. Error: a position out of range, the "
        "first one is named.",
    .inputs = {{"x", "(any shape)"},
               {"index", "(any shape) positions in dim"},
               {"src", "(x's, the index's at dim)"}},
    .attrs = MAREA_ATTRS(
        {"dim", MAREA_DIM, 0, NULL, "the dimension to change"},
        {"reduce", MAREA_ENUM, PUT, "put|mul|max|min", "what becomes of the old value and the new one"},
        FROM_END),
    .dtypes = MAREA_ANY,
    .saves_in = 7,
    .saves_out = 1,
    .shape = index_add_shape,
    .forward = index_reduce_forward,
    .vjp = index_reduce_vjp,
    .sample = "local s, n = g.shape(1, 3), g.int(0, 4)\nlocal dim = g.int(1, #s)\ns[dim] = g.int(1, 5)\n"
              "local t = table.move(s, 1, #s, 1, {})\nt[dim] = n\n"
              "return {g.tensor(s), g.index({n}, s[dim]), g.tensor(t, {away = {0}})}, {dim = dim, "
              "reduce = g.pick{'put', 'mul', 'max', 'min'}, from_end = g.bool()}",
};

/* ---- gather, scatter_add ---- */

/* Refuses shapes that differ in another dimension than dim. */
static marea_status want_alike (marea_call *c, int input, int dim) {
  const marea_tensor *x = c->in[0], *t = c->in[input];
  bool alike = t->rank == x->rank;
  for (int d = 0; alike && d < x->rank; d++) alike = d == dim || t->shape[d] == x->shape[d];
  if (alike) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE, "argument '%s': %s and x %s may differ in dim %d only",
                      c->op->inputs[input].name, marea_tensor_text(t).s, marea_tensor_text(x).s,
                      dim + c->ctx->config.index_base);
}

static marea_status gather_shape (marea_call *c) {
  MAREA_TRY(marea_want_dtype(c, 1, MAREA_INTS));
  MAREA_TRY(marea_resolve_dim(c, 0, c->in[0]->rank));
  MAREA_TRY(want_alike(c, 1, (int)c->attr[0].i));
  marea_layout_set(&c->layout[0], c->in[0]->dtype, c->in[0]->rank, c->in[1]->shape);
  return MAREA_OK;
}

typedef struct pick {
  marea_context *ctx;
  const marea_kernels *kernels;
  const int64_t *position;
  axis x;                         /* the dimension that positions refer to */
  int64_t n;                      /* its size in the index */
  int64_t rows_per_block, chunks; /* of gather; of scatter_add: parts of the `after` columns */
  size_t size;
  const char *from;
  char *to;
} pick;

#define PICK(word) ((word *)p->to)[i] = ((const word *)p->from)[j]

static void gather_rows (void *arg, int64_t block, int worker) {
  const pick *p = arg;
  const int64_t after = p->x.after, end = MAREA_MIN((block + 1) * p->rows_per_block, p->x.before * p->n);
  (void)worker;
  for (int64_t r = block * p->rows_per_block; r < end; r++) {
    const int64_t plane = r / p->n * p->x.size;
    for (int64_t b = 0, i = r * after; b < after; b++, i++) {
      const int64_t j = (plane + p->position[i]) * after + b;
      MAREA_SWITCH_SIZE(p->size, PICK);
    }
  }
}

static marea_status gather_forward (marea_call *c) {
  const marea_tensor *x = c->in[0], *index = c->in[1];
  const int dim = (int)c->attr[0].i;
  pick p = {.x = axis_of(x, dim),
            .n = index->shape[dim],
            .size = marea_dtype_size((marea_dtype)x->dtype),
            .from = marea_at(x),
            .to = marea_at(c->out[0])};
  int64_t *position;
  MAREA_TRY(read_positions(c, 1, p.x.size, false, &position));
  if (marea_count(index->rank, index->shape) == 0) return MAREA_OK;
  p.position = position;
  p.rows_per_block = MAREA_MAX(1, MAREA_BLOCK / p.x.after);
  marea_parallel(c->ctx, (p.x.before * p.n - 1) / p.rows_per_block + 1, gather_rows, &p);
  return MAREA_OK;
}

static marea_status gather_vjp (marea_vjp *v) {
  MAREA_OWN zeros = NULL;
  if (!v->need[0]) return MAREA_OK;
  MAREA_TRY(zeros_like(v->in[0], &zeros));
  return marea_run_with(v->ctx, &marea_op_scatter_add, v->attr, &v->din[0], 3, zeros, v->in[1], v->dout[0]);
}

const marea_op marea_op_gather = {
    .name = "gather",
    .family = "index",
    .doc = "Picks single elements along a dimension: y[.., i, ..] = x[.., index[.., i, ..], ..]. index: i64 "
           "or u8, x's shape but for dim; y: the index's shape. Gradient: scatter_add of dy to zeros. Error: "
           "a position out of range, the first one is named.",
    .inputs = {{"x", "(any shape)"}, {"index", "(x's but for dim) positions in dim"}},
    .attrs = MAREA_ATTRS({"dim", MAREA_DIM, MAREA_REQUIRED, NULL, "the dimension to pick from"}),
    .flags = MAREA_STORES,
    .dtypes = MAREA_ANY,
    .saves_in = 2,
    .shape = gather_shape,
    .forward = gather_forward,
    .vjp = gather_vjp,
    .sample = "local s = g.shape(1, 3)\nlocal dim = g.int(1, #s)\ns[dim] = g.int(1, 5)\n"
              "local t = table.move(s, 1, #s, 1, {})\nt[dim] = g.int(0, 4)\n"
              "return {g.tensor(s), g.index(t, s[dim])}, {dim = dim}",
};

static marea_status scatter_add_shape (marea_call *c) {
  MAREA_TRY(marea_want_dtype(c, 1, MAREA_INTS));
  MAREA_TRY(marea_want_dtype(c, 2, 1 << c->in[0]->dtype));
  MAREA_TRY(marea_resolve_dim(c, 0, c->in[0]->rank));
  MAREA_TRY(want_alike(c, 1, (int)c->attr[0].i));
  MAREA_TRY(marea_want_shape(c, 2, c->in[1]));
  marea_layout_like(&c->layout[0], c->in[0]);
  return MAREA_OK;
}

#define SCATTER_COLUMNS 64 /* of one block: four cache lines of f32 */
#define SCATTER_COST 16    /* elements that are read in the time in which a single one is added */

/* Some columns of one plane; `to` holds x already. */
static void scatter_columns (void *arg, int64_t block, int worker) {
  const pick *p = arg;
  const int64_t a = block / p->chunks, after = p->x.after, first = block % p->chunks * SCATTER_COLUMNS;
  const int64_t end = MAREA_MIN(first + SCATTER_COLUMNS, after);
  (void)worker;
  for (int64_t r = a * p->n; r < (a + 1) * p->n && !MAREA_STOPPING(p->ctx, r); r++) {
    for (int64_t b = first; b < end; b++) {
      const int64_t i = r * after + b;
      char *to = p->to + (size_t)((a * p->x.size + p->position[i]) * after + b) * p->size;
      p->kernels->add(1, to, 1, p->from + (size_t)i * p->size, 1, to, NULL);
    }
  }
}

static marea_status scatter_add_forward (marea_call *c) {
  const marea_tensor *x = c->in[0], *index = c->in[1];
  const int dim = (int)c->attr[0].i;
  pick p = {.ctx = c->ctx,
            .kernels = c->ctx->kernels[x->dtype],
            .x = axis_of(x, dim),
            .n = index->shape[dim],
            .size = marea_dtype_size((marea_dtype)x->dtype),
            .from = marea_at(c->in[2]),
            .to = marea_at(c->out[0])};
  int64_t *position;
  MAREA_TRY(read_positions(c, 1, p.x.size, false, &position));
  if (marea_count(x->rank, x->shape) == 0) return MAREA_OK;
  marea_copy_strided(c->ctx, x, c->out[0]);
  p.position = position;
  p.chunks = (p.x.after - 1) / SCATTER_COLUMNS + 1;
  marea_parallel_if(c->ctx, SCATTER_COST * marea_tensor_size(index), p.x.before * p.chunks, scatter_columns,
                    &p);
  return MAREA_OK;
}

static marea_status scatter_add_vjp (marea_vjp *v) {
  if (v->need[0]) v->din[0] = marea_retain(v->dout[0]);
  if (!v->need[2]) return MAREA_OK;
  return marea_run_with(v->ctx, &marea_op_gather, v->attr, &v->din[2], 2, v->dout[0], v->in[1]);
}

const marea_op marea_op_scatter_add = {
    .name = "scatter_add",
    .family = "index",
    .doc =
        "x with single elements added along a dimension: y[.., index[.., i, ..], ..] += src[.., i, ..]; "
        "equal positions add up, in order. index: i64 or u8, x's shape but for dim; src: the index's "
        "shape. Gradient: dy to x, gather(dy, index) to src. Error: a position out of range, the first one "
        "is named.",
    .inputs = {{"x", "(any shape)"},
               {"index", "(x's but for dim) positions in dim"},
               {"src", "(the index's)"}},
    .attrs = MAREA_ATTRS({"dim", MAREA_DIM, MAREA_REQUIRED, NULL, "the dimension to add at"}),
    .dtypes = MAREA_ANY,
    .saves_in = 2,
    .shape = scatter_add_shape,
    .forward = scatter_add_forward,
    .vjp = scatter_add_vjp,
    .sample = "local s = g.shape(1, 3)\nlocal dim = g.int(1, #s)\ns[dim] = g.int(1, 5)\n"
              "local t = table.move(s, 1, #s, 1, {})\nt[dim] = g.int(0, 4)\n"
              "return {g.tensor(s), g.index(t, s[dim]), g.tensor(t)}, {dim = dim}",
};

/* ---- one_hot ---- */

static marea_status one_hot_shape (marea_call *c) {
  const marea_tensor *index = c->in[0];
  int64_t shape[MAREA_MAX_RANK];
  if (index->rank == MAREA_MAX_RANK)
    return marea_reject(c, MAREA_ESHAPE, "%s has %d dimensions already", marea_tensor_text(index).s,
                        MAREA_MAX_RANK);
  if (c->attr[0].i < 0)
    return marea_reject(c, MAREA_EARG, "argument 'classes': expected 0 or more, got %lld",
                        (long long)c->attr[0].i);
  memcpy(shape, index->shape, sizeof *shape * (size_t)index->rank);
  shape[index->rank] = c->attr[0].i;
  if (c->attr[1].i < 0) c->attr[1].i = MAREA_F32;
  marea_layout_set(&c->layout[0], (int)c->attr[1].i, index->rank + 1, shape);
  return MAREA_OK;
}

static marea_status one_hot_forward (marea_call *c) {
  const int64_t n = marea_count(c->in[0]->rank, c->in[0]->shape), classes = c->attr[0].i;
  const size_t size = marea_dtype_size((marea_dtype)c->out[0]->dtype);
  int64_t *position;
  void *y = marea_at(c->out[0]);
  MAREA_TRY(read_positions(c, 0, classes, false, &position));
  if (n == 0) return MAREA_OK;
  marea_clear(c->ctx, y, (size_t)(n * classes) * size);
  for (int64_t i = 0; i < n && !MAREA_STOPPING(c->ctx, i); i++) {
    const int64_t at = i * classes + position[i];
    marea_store_integer(c->out[0]->dtype, y, at, 1);
  }
  return MAREA_OK;
}

const marea_op marea_op_one_hot = {
    .name = "one_hot",
    .family = "index",
    .doc = "y[.., c] = 1 where index is class c, else 0. index: i64 or u8 of any shape; y: that shape and "
           "classes. No gradient. Error: a class out of range, the first one is named.",
    .inputs = {{"index", "(any shape)"}},
    .attrs = MAREA_ATTRS({"classes", MAREA_INT, MAREA_REQUIRED, NULL, "number of classes"},
                         {"dtype", MAREA_DTYPE, MAREA_F32, NULL, "of the result"}),
    .flags = MAREA_STORES | MAREA_NO_GRAD,
    .dtypes = MAREA_INTS,
    .shape = one_hot_shape,
    .forward = one_hot_forward,
    .sample = "local n = g.int(1, 5)\nreturn {g.index(g.shape(0, 3), n)}, {classes = n}",
};
