/* SPDX-License-Identifier: MIT
** embedding.c: rows of a table picked by number, and the gradient of the table.
**
** The gradient is a scatter: several positions may hold the same row. Positions are sorted by row (a counting sort,
** which keeps their order), and a block takes all positions of its rows. So no two threads write the same row, sums are
** made in the order of the index whatever the threads, and the cost is one fill with zeros and the rows touched.
*/
#include "vjp.h"

enum { EMBEDDING_PADDING };       /* ORDER of the attributes of embedding */
enum { GRAD_ROWS, GRAD_PADDING }; /* ORDER of those of embedding_grad */

#define PADDING \
  { "padding", MAREA_INT, MAREA_NONE, NULL, "the row with this number gets no gradient" }

/* ---- helpers ---- */

/* *out := the 0-based rows in in[1], each below `rows`; the first one that is not is an error that names its place. */
static marea_status read_rows (marea_call *c, int64_t rows, int64_t **out) {
  const marea_tensor *t = c->in[1];
  const int64_t n = marea_tensor_size(t), base = c->ctx->config.index_base;
  int64_t *row;
  MAREA_WORKSPACE_OR_RETURN(c, row, (size_t)MAREA_MAX(n, 1) * sizeof *row);
  *out = row;
  if (c->ctx->shape_only) return MAREA_OK;
  const void *from = marea_at(t);
  for (int64_t i = 0; i < n && !MAREA_STOPPING(c->ctx, i); i++) {
    const int64_t value = marea_load_integer(t->dtype, from, i);
    if (value < base || value - base >= rows)
      return marea_reject(c, MAREA_EARG, "argument 'index': element %s of %s is %lld, expected %lld to %lld",
                          marea_place_text(t, i).s, marea_tensor_text(t).s, (long long)value, (long long)base,
                          (long long)(rows - 1 + base));
    row[i] = value - base;
  }
  return MAREA_OK;
}

/* Refuses a padding that is no row. */
static marea_status want_padding (marea_call *c, int attr, int64_t rows) {
  const int64_t padding = c->attr[attr].i, base = c->ctx->config.index_base;
  if (padding == INT64_MIN || (padding >= base && padding - base < rows)) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument 'padding': expected a row from %lld to %lld, got %lld",
                      (long long)base, (long long)(rows - 1 + base), (long long)padding);
}

/* ---- embedding ---- */

static marea_status embedding_shape (marea_call *c) {
  const marea_tensor *weight = c->in[0], *index = c->in[1];
  int64_t shape[MAREA_MAX_RANK];
  MAREA_TRY(marea_want_rank(c, 0, 2, "(V, H)"));
  MAREA_TRY(marea_want_dtype(c, 1, MAREA_INTS));
  MAREA_TRY(want_padding(c, EMBEDDING_PADDING, weight->shape[0]));
  if (index->rank == MAREA_MAX_RANK)
    return marea_reject(c, MAREA_ESHAPE, "argument 'index': %s has %d dimensions already",
                        marea_tensor_text(index).s, MAREA_MAX_RANK);
  memcpy(shape, index->shape, sizeof *shape * (size_t)index->rank);
  shape[index->rank] = weight->shape[1];
  marea_layout_set(&c->layout[0], weight->dtype, index->rank + 1, shape);
  return MAREA_OK;
}

typedef struct lookup {
  const int64_t *row;
  int64_t n, rows_per_block;
  size_t bytes; /* of a row */
  const char *weight;
  char *y;
} lookup;

static void copy_rows (void *arg, int64_t block, int worker) {
  const lookup *l = arg;
  const int64_t end = MAREA_MIN((block + 1) * l->rows_per_block, l->n);
  (void)worker;
  for (int64_t i = block * l->rows_per_block; i < end; i++)
    memcpy(l->y + (size_t)i * l->bytes, l->weight + (size_t)l->row[i] * l->bytes, l->bytes);
}

static marea_status embedding_forward (marea_call *c) {
  const marea_tensor *weight = c->in[0], *out = c->out[0];
  const int64_t width = weight->shape[1];
  int64_t *row;
  MAREA_TRY(read_rows(c, weight->shape[0], &row));
  if (marea_tensor_size(out) == 0) return MAREA_OK;
  lookup l = {.row = row,
              .n = marea_tensor_size(c->in[1]),
              .rows_per_block = MAREA_MAX(1, MAREA_BLOCK / width),
              .bytes = (size_t)width * marea_dtype_size((marea_dtype)weight->dtype),
              .weight = marea_at(weight),
              .y = marea_at(out)};
  marea_parallel(c->ctx, (l.n - 1) / l.rows_per_block + 1, copy_rows, &l);
  return MAREA_OK;
}

static marea_status embedding_vjp (marea_vjp *v) {
  if (!v->need[0]) return MAREA_OK;
  const marea_attr a[] = {marea_attr_int(v->in[0]->shape[0]), v->attr[EMBEDDING_PADDING]};
  return marea_run_with(v->ctx, &marea_op_embedding_grad, a, &v->din[0], 2, v->dout[0], v->in[1]);
}

const marea_op marea_op_embedding = {
    .name = "embedding",
    .family = "index",
    .doc = "y[..] = weight[index[..]]: rows of a table by their numbers, for words, letters and classes. "
           "weight (V, "
           "H); index: i64 or u8 of any shape; y: the index's shape and H. Gradient: embedding_grad, the "
           "rows of dy "
           "added up by number; with `padding` the row of that number is read as any other and gets none "
           "(PyTorch's "
           "padding_idx). Errors: a number that is no row, the first one is named with its place; padding "
           "that is "
           "no row.",
    .inputs = {{"weight", "(V, H)"}, {"index", "(any shape) rows of weight"}},
    .attrs = MAREA_ATTRS(PADDING),
    .flags = MAREA_STORES | MAREA_SHAPE_ONLY,
    .saves_in = 2,
    .shape = embedding_shape,
    .forward = embedding_forward,
    .vjp = embedding_vjp,
    .sample = "local v = g.int(1, 5)\n"
              "return {g.tensor{v, g.int(0, 4)}, g.index(g.shape(0, 3), v)}",
};

/* ---- embedding_grad ---- */

static marea_status embedding_grad_shape (marea_call *c) {
  const marea_tensor *dy = c->in[0], *index = c->in[1];
  const int64_t rows = c->attr[GRAD_ROWS].i;
  MAREA_TRY(marea_want_dtype(c, 1, MAREA_INTS));
  if (rows < 0)
    return marea_reject(c, MAREA_EARG, "argument 'rows': expected 0 or more, got %lld", (long long)rows);
  MAREA_TRY(want_padding(c, GRAD_PADDING, rows));
  if (dy->rank != index->rank + 1 ||
      memcmp(dy->shape, index->shape, sizeof *dy->shape * (size_t)index->rank) != 0)
    return marea_reject(c, MAREA_ESHAPE,
                        "argument 'dy': expected the shape of the index %s and one dimension more, got %s",
                        marea_tensor_text(index).s, marea_tensor_text(dy).s);
  const int64_t shape[] = {rows, dy->shape[index->rank]};
  marea_layout_set(&c->layout[0], dy->dtype, 2, shape);
  return MAREA_OK;
}

typedef struct scatter {
  marea_context *ctx;
  const marea_kernels *kernels;
  const int64_t *row, *order; /* row of each position; positions sorted by row */
  int64_t n, width, per_block, padding;
  size_t bytes;
  const char *dy;
  char *dw;
} scatter;

/* Does the i-th of the sorted positions have the row of the one before? */
static bool goes_on (const scatter *s, int64_t i) {
  return i > 0 && i < s->n && s->row[s->order[i]] == s->row[s->order[i - 1]];
}

/* The rows that begin at the sorted positions of this block, each to its end. */
static void add_rows (void *arg, int64_t block, int worker) {
  const scatter *s = arg;
  const int64_t end = MAREA_MIN((block + 1) * s->per_block, s->n);
  int64_t i = block * s->per_block;
  (void)worker;
  while (goes_on(s, i)) i++;
  for (; (i < end || goes_on(s, i)) && !MAREA_STOPPING(s->ctx, i); i++) {
    const int64_t at = s->order[i];
    if (s->row[at] == s->padding) continue;
    char *to = s->dw + (size_t)s->row[at] * s->bytes;
    s->kernels->add((size_t)s->width, to, 1, s->dy + (size_t)at * s->bytes, 1, to, NULL);
  }
}

/* order[0..n-1] := the positions sorted by row, those of one row in their order (counting sort). */
static marea_status sort_by_row (marea_call *c, const int64_t *row, int64_t n, int64_t rows,
                                 int64_t **order) {
  int64_t *start;
  MAREA_WORKSPACE_OR_RETURN(c, *order, (size_t)MAREA_MAX(n, 1) * sizeof **order);
  MAREA_WORKSPACE_OR_RETURN(c, start, (size_t)(rows + 1) * sizeof *start);
  if (c->ctx->shape_only) return MAREA_OK;
  memset(start, 0, (size_t)(rows + 1) * sizeof *start);
  for (int64_t i = 0; i < n; i++) start[row[i] + 1]++;
  for (int64_t r = 0; r < rows; r++) start[r + 1] += start[r];
  for (int64_t i = 0; i < n; i++) (*order)[start[row[i]]++] = i;
  return MAREA_OK;
}

static marea_status embedding_grad_forward (marea_call *c) {
  const marea_tensor *dy = c->in[0], *dw = c->out[0];
  const int64_t rows = dw->shape[0], width = dw->shape[1], n = marea_tensor_size(c->in[1]);
  int64_t *row, *order;
  MAREA_TRY(read_rows(c, rows, &row));
  if (marea_stopping(c->ctx)) return MAREA_OK; /* not all rows were read */
  MAREA_TRY(sort_by_row(c, row, n, rows, &order));
  if (rows * width == 0) return MAREA_OK;
  const size_t bytes = (size_t)width * marea_dtype_size((marea_dtype)dw->dtype);
  if (!c->ctx->shape_only) marea_clear(c->ctx, marea_at(dw), (size_t)rows * bytes);
  if (n == 0) return MAREA_OK;
  const int64_t padding = c->attr[GRAD_PADDING].i;
  scatter s = {.ctx = c->ctx,
               .kernels = c->ctx->kernels[dw->dtype],
               .row = row,
               .order = order,
               .n = n,
               .width = width,
               .per_block = MAREA_MAX(1, MAREA_BLOCK / width),
               .padding = padding == INT64_MIN ? -1 : padding - c->ctx->config.index_base,
               .bytes = bytes,
               .dy = marea_at(dy),
               .dw = marea_at(dw)};
  marea_parallel(c->ctx, (n - 1) / s.per_block + 1, add_rows, &s);
  return MAREA_OK;
}

/* Linear in dy: the rows of u by number, but 0 where the index is the padding. */
static marea_status embedding_grad_vjp (marea_vjp *v) {
  const int64_t padding = v->attr[GRAD_PADDING].i, last = v->in[1]->rank;
  const bool is_possible = padding != INT64_MIN && (v->in[1]->dtype != MAREA_U8 || padding <= UINT8_MAX);
  const marea_attr none = marea_attr_int(INT64_MIN), dim = marea_attr_list(1, &last);
  MAREA_OWN rows = NULL;
  MAREA_OWN is_padding = NULL;
  MAREA_OWN mask = NULL;
  MAREA_OWN zero = NULL;
  if (!v->need[0]) return MAREA_OK;
  MAREA_TRY(marea_run_with(v->ctx, &marea_op_embedding, &none, &rows, 2, v->dout[0], v->in[1]));
  if (!is_possible) {
    v->din[0] = marea_retain(rows);
    return MAREA_OK;
  }
  MAREA_TRY(marea_run_number(v->ctx, &marea_op_eq, &is_padding, v->in[1], (double)padding));
  MAREA_TRY(marea_run_with(v->ctx, &marea_op_unsqueeze, &dim, &mask, 1, is_padding));
  MAREA_TRY(marea_zeros(v->ctx, (marea_dtype)rows->dtype, 0, NULL, &zero));
  return marea_run_with(v->ctx, &marea_op_masked_fill, NULL, &v->din[0], 3, rows, mask, zero);
}

static double embedding_grad_flop (const marea_call *c) { return (double)marea_tensor_size(c->in[0]); }

const marea_op marea_op_embedding_grad = {
    .name = "embedding_grad",
    .family = "index",
    .doc =
        "The gradient of embedding to its weight: dw[r, :] = sum of dy[.., :] over the places where index is "
        "r, in the order of the index; 0 at row `padding`. dy: the index's shape and H; dw (rows, H). "
        "Gradient: embedding of it to dy, 0 at the padding. Errors: as embedding; dy of another shape.",
    .inputs = {{"dy", "(the index's, H) gradient of the rows"}, {"index", "(any shape) their numbers"}},
    .attrs = MAREA_ATTRS({"rows", MAREA_INT, MAREA_REQUIRED, NULL, "rows of the weight"}, PADDING),
    .flags = MAREA_SHAPE_ONLY,
    .saves_in = 2,
    .shape = embedding_grad_shape,
    .forward = embedding_grad_forward,
    .vjp = embedding_grad_vjp,
    .flop = embedding_grad_flop,
    .sample = "local v, s = g.int(1, 5), g.shape(0, 3)\nlocal t = table.move(s, 1, #s, 1, {})\n"
              "t[#t + 1] = g.int(0, 4)\n"
              "return {g.tensor(t), g.index(s, v)}, {rows = v, padding = g.pick{1, v}}",
};
