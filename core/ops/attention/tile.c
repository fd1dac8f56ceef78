/* SPDX-License-Identifier: MIT
** tile.c: checks of attention's inputs, and tiles of scores.
*/
#include <math.h>
#include <string.h>

#include "tile.h"

#define KEYS MAREA_ATTENTION_KEYS
#define STEP MAREA_ATTENTION_STEP
#define SHORT_STRIP 14 /* queries: the rows of a product's tile */
#define BF16_STRIP 32  /* those of two tiles of bf16 */

/* ---- checks ---- */

static bool has (const marea_call *c, int input) { return input < c->n_in && c->in[input]; }

static marea_status want_mask (marea_call *c, const int64_t full[4]) {
  const marea_tensor *mask = c->in[MAREA_QKV_MASK];
  if (mask->dtype != MAREA_U8 && mask->dtype != c->in[0]->dtype)
    return marea_reject(
        c, MAREA_EARG,
        "argument 'mask': expected %s as q has, which is added to scores, or u8, where 0 hides a "
        "key (mask:cast('u8')), got %s",
        marea_dtype_name((marea_dtype)c->in[0]->dtype), marea_tensor_text(mask).s);
  bool fits = mask->rank <= 4;
  for (int d = 0; d < mask->rank && fits; d++) {
    const int64_t size = mask->shape[mask->rank - 1 - d];
    fits = size == 1 || size == full[3 - d];
  }
  if (fits) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE, "argument 'mask': %s does not broadcast to (N, heads, Tq, Tk) = %s",
                      marea_tensor_text(mask).s, marea_shape_text(4, full).s);
}

marea_status marea_attention_want_lengths (marea_call *c, int input) {
  if (!has(c, input)) return MAREA_OK;
  MAREA_TRY(marea_want_dtype(c, input, MAREA_INTS));
  MAREA_TRY(marea_want_rank(c, input, 1, "(N)"));
  return marea_want_size(c, input, 0, c->in[0]->shape[0], "the rows");
}

static marea_status want_options (marea_call *c) {
  marea_attr *scale = &c->attr[MAREA_QKV_SCALE], *seed = &c->attr[MAREA_QKV_SEED];
  const int64_t d = c->in[MAREA_QKV_Q]->shape[3];
  const double rate = c->attr[MAREA_QKV_DROPOUT].f;
  if (!(rate >= 0 && rate <= 1))
    return marea_reject(c, MAREA_EARG, "argument 'dropout': expected 0 to 1, got %g", rate);
  if (scale->n == 0) *scale = (marea_attr){.n = 1, .f = d > 0 ? 1 / sqrt((double)d) : 1};
  if (seed->n == 0) *seed = (marea_attr){.n = 1, .i = (int64_t)c->ctx->random.seed};
  return MAREA_OK;
}

marea_status marea_attention_shape (marea_call *c) {
  const marea_tensor *q = c->in[MAREA_QKV_Q], *k = c->in[MAREA_QKV_K];
  MAREA_TRY(marea_want_rank(c, MAREA_QKV_Q, 4, "(N, Tq, heads, D)"));
  MAREA_TRY(marea_want_rank(c, MAREA_QKV_K, 4, "(N, Tk, kv_heads, D)"));
  MAREA_TRY(marea_want_rank(c, MAREA_QKV_V, 4, "(N, Tk, kv_heads, Dv)"));
  for (int i = MAREA_QKV_K; i <= MAREA_QKV_V; i++) {
    MAREA_TRY(marea_want_dtype(c, i, 1 << q->dtype));
    MAREA_TRY(marea_want_size(c, i, 0, q->shape[0], "q's first size"));
  }
  MAREA_TRY(marea_want_size(c, MAREA_QKV_K, 3, q->shape[3], "q's last size"));
  MAREA_TRY(marea_want_size(c, MAREA_QKV_V, 1, k->shape[1], "k's second size"));
  MAREA_TRY(marea_want_size(c, MAREA_QKV_V, 2, k->shape[2], "k's third size"));
  const int64_t heads = q->shape[2], kv_heads = k->shape[2];
  if (kv_heads == 0 ? heads != 0 : heads % kv_heads != 0)
    return marea_reject(c, MAREA_ESHAPE, "q %s has %lld heads, k %s %lld: expected a multiple of those of k",
                        marea_tensor_text(q).s, (long long)heads, marea_tensor_text(k).s,
                        (long long)kv_heads);
  if (has(c, MAREA_QKV_MASK))
    MAREA_TRY(want_mask(c, (int64_t[]){q->shape[0], heads, q->shape[1], k->shape[1]}));
  MAREA_TRY(marea_attention_want_lengths(c, MAREA_QKV_LENGTHS));
  return want_options(c);
}

marea_status marea_attention_lengths (marea_call *c, int input, int64_t most, const int64_t **length) {
  *length = NULL;
  if (!has(c, input) || c->ctx->shape_only) return MAREA_OK;
  const marea_tensor *lengths = c->in[input];
  const int64_t n = lengths->shape[0];
  int64_t *to;
  MAREA_TABLE_OR_RETURN(c, to, (size_t)MAREA_MAX(n, 1) * sizeof *to);
  *length = to;
  for (int64_t i = 0; i < n; i++) {
    to[i] = marea_load_integer(lengths->dtype, marea_at(lengths), i);
    if (to[i] < 0 || to[i] > most)
      return marea_reject(c, MAREA_EARG,
                          "argument 'lengths': row %lld has length %lld, expected 0 to %lld, the keys",
                          (long long)(i + c->ctx->config.index_base), (long long)to[i], (long long)most);
  }
  return MAREA_OK;
}

static void open_mask (const marea_tensor *mask, marea_attention *a) {
  int64_t step = 1;
  a->mask = marea_at(mask);
  a->mask_size = marea_element_size(mask->dtype);
  for (int d = mask->rank - 1; d >= 0; step *= mask->shape[d--])
    a->mask_step[4 - mask->rank + d] = mask->shape[d] == 1 ? 0 : step;
}

marea_status marea_attention_open (marea_call *c, marea_attention *a) {
  const marea_tensor *q = c->in[MAREA_QKV_Q], *k = c->in[MAREA_QKV_K], *v = c->in[MAREA_QKV_V];
  int64_t *offset;
  *a = (marea_attention){.ctx = c->ctx,
                         .kernels = c->ctx->kernels[q->dtype],
                         .dtype = q->dtype,
                         .size = marea_element_size(q->dtype),
                         .n = q->shape[0],
                         .heads = q->shape[2],
                         .kv_heads = k->shape[2],
                         .tq = q->shape[1],
                         .tk = k->shape[1],
                         .d = q->shape[3],
                         .dv = v->shape[3],
                         .q = marea_at(q),
                         .k = marea_at(k),
                         .v = marea_at(v),
                         .causal = c->attr[MAREA_QKV_CAUSAL].i,
                         .scale = c->attr[MAREA_QKV_SCALE].f,
                         .rate = c->attr[MAREA_QKV_DROPOUT].f,
                         .seed = (uint64_t)c->attr[MAREA_QKV_SEED].i,
                         .bf16 = marea_rounds(c) && q->shape[3] > 0 && v->shape[3] > 0};
  if (has(c, MAREA_QKV_MASK)) open_mask(c->in[MAREA_QKV_MASK], a);
  MAREA_TRY(marea_attention_lengths(c, MAREA_QKV_LENGTHS, a->tk, &a->length));
  const int64_t most = MAREA_MAX(KEYS, a->dv);
  MAREA_TABLE_OR_RETURN(c, offset, (size_t)most * sizeof *offset);
  for (int64_t i = 0; i < most; i++) offset[i] = i;
  a->offset = offset;
  MAREA_TABLE_OR_RETURN(c, a->hidden, KEYS * a->size);
  for (int64_t i = 0; i < KEYS; i++) marea_store(a->dtype, a->hidden, i, -INFINITY);
  return MAREA_OK;
}

int64_t marea_attention_pairs (const marea_call *c) {
  const int64_t *q = c->in[MAREA_QKV_Q]->shape, tk = c->in[MAREA_QKV_K]->shape[1], tq = q[1];
  int64_t pairs = tq * tk;
  if (c->attr[MAREA_QKV_CAUSAL].i) {
    const int64_t rows = MAREA_MIN(tq, tk); /* query tq - rows + i sees tk - rows + i + 1 keys */
    pairs = rows * (tk - rows) + rows * (rows + 1) / 2;
  }
  return q[0] * q[2] * pairs;
}

static int64_t wide_keys (int64_t tk) { return (tk + 63) / 64 * 64; }

int64_t marea_attention_draws (const marea_call *c) {
  const int64_t *q = c->in[MAREA_QKV_Q]->shape;
  if (c->attr[MAREA_QKV_DROPOUT].f == 0) return 0;
  return q[0] * q[1] * q[2] * (wide_keys(c->in[MAREA_QKV_K]->shape[1]) / 4);
}

/* ---- which keys ---- */

int64_t marea_attention_keys (const marea_attention *a, int64_t n, int64_t end) {
  const int64_t length = a->length ? a->length[n] : a->tk;
  return a->causal ? MAREA_MAX(0, MAREA_MIN(length, end + a->tk - a->tq)) : length;
}

int64_t marea_attention_first (const marea_attention *a, int64_t key) {
  return a->causal ? MAREA_MAX(0, key - (a->tk - a->tq)) : 0;
}

bool marea_attention_hides (const marea_attention *a, const marea_attention_tile *t) {
  return a->mask || (a->causal && t->keys.end > t->queries.first + 1 + a->tk - a->tq);
}

bool marea_attention_strip (const marea_attention *a, const marea_attention_tile *all, int64_t first,
                            marea_attention_tile *t) {
  *t = *all;
  t->queries.first = MAREA_MAX(first,
                               MAREA_MAX(all->queries.first, marea_attention_first(a, all->keys.first)));
  if (t->queries.first >= all->queries.end) return false;
  const bool cut = a->causal && all->keys.end > t->queries.first + 1 + a->tk - a->tq;
  t->queries.end = MAREA_MIN(all->queries.end, t->queries.first + (!cut      ? marea_attention_queries(a)
                                                                   : a->bf16 ? BF16_STRIP
                                                                             : SHORT_STRIP));
  t->keys.end = MAREA_MIN(all->keys.end, marea_attention_keys(a, t->n, t->queries.end));
  return true;
}

/* ---- in bf16 ---- */

/* to (rows, depth) := x (rows, width), with zeros behind each row */
static void narrow_rows (const marea_attention *a, int64_t rows, int64_t width, const char *x, int64_t step,
                         int64_t depth, uint16_t *to) {
  const float *from = (const float *)(const void *)x;
  for (int64_t i = 0; i < rows; i++, from += step, to += depth) {
    a->kernels->narrow_bf16((size_t)width, from, to);
    memset(to + width, 0, (size_t)(depth - width) * sizeof *to);
  }
}

/* Zeros behind rows first - 1 of panels that have `end` of them */
static void clear_panels (int64_t first, int64_t end, int64_t cols, uint16_t *panels, int64_t panel) {
  const size_t bytes = (size_t)((end - first) * MAREA_BF16_PANEL) * sizeof *panels;
  for (int64_t j = 0; j < cols && bytes > 0; j += MAREA_BF16_PANEL, panels += panel)
    memset(panels + first * MAREA_BF16_PANEL, 0, bytes);
}

/* to->narrow and to->panels := x */
static void narrow (const marea_attention *a, int64_t rows, int64_t width, const char *x, int64_t step,
                    marea_attention_rows *to) {
  narrow_rows(a, rows, width, x, step, to->depth, to->narrow);
  if (!to->panels) return;
  marea_bf16_pack(a->kernels, rows, width, to->narrow, to->depth, false, to->panels, to->panel);
  clear_panels(marea_even(rows), marea_bf16_whole(rows), width, to->panels, to->panel);
}

static int64_t narrow_size (int64_t rows, int64_t width) {
  return (rows * marea_bf16_depth(width) + 31) / 32 * 32;
}

size_t marea_attention_narrow_size (const marea_attention *a, int64_t rows, int64_t width, bool panels) {
  if (!a->bf16) return 0;
  return (size_t)(narrow_size(rows, width) +
                  (panels ? marea_bf16_whole(rows) * marea_bf16_columns(width) : 0));
}

void marea_attention_narrow (const marea_attention *a, int64_t rows, int64_t width, bool panels,
                             marea_attention_rows *to, uint16_t **at) {
  if (!a->bf16) return;
  to->narrow = *at;
  to->depth = marea_bf16_depth(width);
  to->panels = panels ? *at + narrow_size(rows, width) : NULL;
  to->panel = marea_bf16_whole(rows) * MAREA_BF16_PANEL;
  *at += marea_attention_narrow_size(a, rows, width, panels);
}

/* y := x w, or += it, of operands as marea_bf16_product has them, y_row from row to row */
static void multiply_bf16 (const marea_attention *a, int64_t rows, int64_t depth, int64_t cols,
                           const uint16_t *x, const uint16_t *w, int64_t panel, char *y, int64_t y_row,
                           bool add) {
  marea_bf16_product g = marea_bf16_matrix(a->kernels, rows, depth, cols, x, depth, w, panel);
  g.y = y;
  g.y_col = y_row;
  g.wide = true;
  g.accumulate = add;
  if (rows > 0 && cols > 0) a->ctx->bf16->product(&g);
}

static void turn_bf16 (const marea_attention *a, const marea_attention_tile *t, const char *from,
                       int64_t width, uint16_t *scratch, uint16_t *to) {
  const int64_t keys = t->keys.end - t->keys.first, depth = marea_bf16_depth(width);
  narrow_rows(a, keys, width, marea_key_at(a, from, t->n, t->keys.first, t->head, width), a->kv_heads * width,
              depth, scratch);
  marea_bf16_pack(a->kernels, depth, keys, scratch, depth, true, to, depth * MAREA_BF16_PANEL);
}

/* ---- scores ---- */

void marea_attention_turn (const marea_attention *a, const marea_attention_tile *t, const char *from,
                           int64_t width, uint16_t *scratch, char *turned) {
  if (a->bf16) turn_bf16(a, t, from, width, scratch, (uint16_t *)(void *)turned);
  else
    a->kernels->turn((size_t)(t->keys.end - t->keys.first), (size_t)width, (size_t)(a->kv_heads * width),
                     marea_key_at(a, from, t->n, t->keys.first, t->head, width), STEP, turned);
}

/* Have some of n bf16 the exponent of infinities and NaN? Numbers near f32's largest become infinite. */
static bool overflows (const uint16_t *x, int64_t n) {
  int any = 0;
  for (int64_t i = 0; i < n; i++) any |= (x[i] & 0x7f80) == 0x7f80;
  return any;
}

/* to->x := x times the factor */
static void copy (const marea_attention *a, int64_t rows, int64_t width, int64_t from_row, const char *from,
                  double factor, marea_attention_rows *to) {
  a->kernels->copy_rows((size_t)rows, (size_t)width, (size_t)from_row, from, (size_t)to->step, to->x);
  if (factor != 1) a->kernels->scale((size_t)(rows * to->step), factor, to->x, to->x);
}

/* Infinities and NaN make a sum that is none; so do numbers that overflow, at no harm. With products of bf16 the numbers
   themselves are wanted only where some are not finite, and by a single query. */
static void pack (const marea_attention *a, int64_t rows, int64_t width, int64_t from_row, const char *from,
                  double factor, bool check, marea_attention_rows *to) {
  to->step = MAREA_ATTENTION_ROW(width);
  const bool direct = a->bf16 && factor == 1 && rows > 1;
  if (!direct) copy(a, rows, width, from_row, from, factor, to);
  if (a->bf16) {
    narrow(a, rows, width, direct ? from : to->x, direct ? from_row : to->step, to);
    to->finite = !check || !overflows(to->narrow, rows * to->depth);
    if (direct && !to->finite) copy(a, rows, width, from_row, from, factor, to);
  } else {
    to->finite = !check || isfinite(a->kernels->sum((size_t)(rows * to->step), to->x));
  }
}

void marea_attention_clear (const marea_attention *a, int64_t rows, int64_t width,
                            const marea_attention_rows *to) {
  memset(to->x, 0, (size_t)(rows * MAREA_ATTENTION_ROW(width)) * a->size);
}

void marea_attention_pack_queries (const marea_attention *a, const marea_attention_tile *t, const char *x,
                                   int64_t width, double factor, marea_attention_rows *to) {
  pack(a, t->queries.end - t->queries.first, width, a->heads * width,
       marea_query_at(a, x, t->n, t->queries.first, t->head, width), factor, marea_attention_hides(a, t), to);
}

void marea_attention_pack_keys (const marea_attention *a, const marea_attention_tile *t, const char *x,
                                int64_t width, double factor, marea_attention_rows *to) {
  pack(a, t->keys.end - t->keys.first, width, a->kv_heads * width,
       marea_key_at(a, x, t->n, t->keys.first, t->head, width), factor, marea_attention_hides(a, t), to);
}

/* Operands of a product as marea_attention_product has it, with elements from row to row */
typedef struct operands {
  int64_t rows, depth, cols;
  const char *x, *w;
  char *y;
  int64_t x_row, w_row, y_row;
} operands;

/* y (rows, cols) := x w, or += it */
static void multiply (const marea_attention *a, const operands *p, bool add) {
  static const int64_t here = 0;
  const marea_direct_conv g = {.x = p->x,
                               .w = p->w,
                               .y = p->y,
                               .rows = 1,
                               .cols = p->rows,
                               .x_col = p->x_row,
                               .y_col = p->y_row,
                               .cin = p->depth,
                               .cout = p->cols,
                               .tap_rows = 1,
                               .taps = 1,
                               .tap = &here,
                               .w_ci = p->w_row,
                               .accumulate = add};
  a->kernels->direct_conv(&g);
}

/* y (depth, cols) += x^T w */
static void multiply_turned (const marea_attention *a, const operands *p) {
  const marea_direct_wgrad g = {.x = p->x,
                                .dy = p->w,
                                .dw = p->y,
                                .rows = 1,
                                .cols = p->rows,
                                .x_col = p->x_row,
                                .dy_col = p->w_row,
                                .m = p->depth,
                                .cout = p->cols,
                                .dw_row = p->y_row,
                                .offset = a->offset};
  a->kernels->direct_wgrad(&g);
}

/* One row of the mask: s points to the scores of query i with the tile's keys. */
static void mask_row (const marea_attention *a, const marea_attention_tile *t, int64_t i, char *s) {
  const int64_t *step = a->mask_step;
  const char *mask = a->mask +
                     (size_t)(t->n * step[0] + t->head * step[1] + i * step[2] + t->keys.first * step[3]) *
                         a->mask_size;
  const size_t keys = (size_t)(t->keys.end - t->keys.first);
  double hidden; /* room for a number of any dtype */
  if (a->mask_size > 1) {
    a->kernels->add_mask(keys, mask, (size_t)step[3], s);
    return;
  }
  marea_store(a->dtype, &hidden, 0, -INFINITY);
  a->kernels->where(keys, mask, (size_t)step[3], s, 1, &hidden, 0, s, NULL);
}

static void hide_after (const marea_attention *a, const marea_attention_tile *t, int64_t i, char *s) {
  const int64_t first = MAREA_MAX(t->keys.first, i + 1 + a->tk - a->tq);
  if (first < t->keys.end)
    memcpy(s + (size_t)(first - t->keys.first) * a->size, a->hidden, (size_t)(t->keys.end - first) * a->size);
}

void marea_attention_mask (const marea_attention *a, const marea_attention_tile *t, char *s) {
  if (!marea_attention_hides(a, t)) return;
  for (int64_t i = t->queries.first; i < t->queries.end; i++, s += STEP * a->size) {
    if (a->mask) mask_row(a, t, i, s);
    if (a->causal) hide_after(a, t, i, s);
  }
}

void marea_attention_dots (const marea_attention *a, const marea_attention_tile *t, int64_t width,
                           const marea_attention_rows *rows, int64_t first, const char *turned, char *y) {
  if (a->bf16) {
    multiply_bf16(a, t->queries.end - t->queries.first, rows->depth, t->keys.end - t->keys.first,
                  rows->narrow + first * rows->depth, (const uint16_t *)(const void *)turned,
                  rows->depth * MAREA_BF16_PANEL, y, STEP, false);
    return;
  }
  const operands p = {.rows = t->queries.end - t->queries.first,
                      .depth = width,
                      .cols = t->keys.end - t->keys.first,
                      .x = rows->x + (size_t)(first * rows->step) * a->size,
                      .w = turned,
                      .y = y,
                      .x_row = rows->step,
                      .w_row = STEP,
                      .y_row = STEP};
  multiply(a, &p, false);
}

void marea_attention_drop (const marea_attention *a, const marea_attention_tile *t, const char *x, char *y) {
  const double least = ceil(a->rate * 0x1p32);
  const int64_t keys = t->keys.end - t->keys.first;
  const size_t step = STEP * a->size;
  for (int64_t i = t->queries.first; i < t->queries.end; i++, x += step, y += step) {
    const int64_t at = ((t->n * a->heads + t->head) * a->tq + i) * wide_keys(a->tk) + t->keys.first;
    if (least >= 0x1p32) memset(y, 0, (size_t)keys * a->size);
    else
      a->kernels->dropout((size_t)keys, a->seed, a->counter + (uint64_t)(at / 4), (uint32_t)least,
                          1 / (1 - a->rate), x, y);
  }
}

/* Keys of the tile, or their values, of `depth` elements, with one number for each element or key */
static operands with_one (const marea_attention *a, const marea_attention_tile *t, const char *x,
                          int64_t depth, const char *w, char *y) {
  return (operands){.rows = t->keys.end - t->keys.first,
                    .depth = depth,
                    .cols = 1,
                    .x = marea_key_at(a, x, t->n, t->keys.first, t->head, depth),
                    .w = w,
                    .y = y,
                    .x_row = a->kv_heads * depth,
                    .w_row = 1,
                    .y_row = 1};
}

void marea_attention_dots_of_one (const marea_attention *a, const marea_attention_tile *t, const char *q,
                                  char *s) {
  const operands p = with_one(a, t, a->k, a->d, q, s);
  multiply(a, &p, false);
}

void marea_attention_multiply_one (const marea_attention *a, const marea_attention_tile *t, const char *s,
                                   char *y) {
  const operands p = with_one(a, t, a->v, a->dv, s, y);
  multiply_turned(a, &p);
}

/* ---- products ---- */

/* Row by row, but where x is 0 */
static void multiply_seen (const marea_attention *a, const marea_attention_product *p) {
  for (int64_t i = 0; i < p->rows; i++)
    for (int64_t j = 0; j < p->depth; j++) {
      const double x = marea_load(a->dtype, p->x, i * STEP + j);
      const int64_t w = p->turned ? i : j, y = p->turned ? j : i;
      if (x == 0) continue;
      a->kernels->axpy((size_t)p->cols, x, p->w->x + (size_t)(w * p->w->step) * a->size,
                       p->y + (size_t)(y * p->y_row) * a->size);
    }
}

static void multiply_rounded (const marea_attention *a, const marea_attention_product *p) {
  const int64_t keys = marea_bf16_whole(p->depth), rows = marea_bf16_whole(p->rows);
  if (!p->rounded) narrow_rows(a, p->rows, p->depth, p->x, STEP, keys, p->narrow);
  if (!p->turned) {
    multiply_bf16(a, p->rows, keys, p->cols, p->narrow, p->w->panels, p->w->panel, p->y, p->y_row, true);
    return;
  }
  uint16_t *x = p->narrow + MAREA_ATTENTION_NARROW;
  marea_bf16_pack_turned(a->kernels, p->rows, p->depth, p->narrow, keys, x, rows);
  for (int64_t j = 0; j < p->depth; j++)
    memset(x + j * rows + marea_even(p->rows), 0, (size_t)(rows - marea_even(p->rows)) * sizeof *x);
  multiply_bf16(a, p->depth, rows, p->cols, x, p->w->panels, p->w->panel, p->y, p->y_row, true);
}

void marea_attention_multiply (const marea_attention *a, const marea_attention_product *p) {
  const operands all = {.rows = p->rows,
                        .depth = p->depth,
                        .cols = p->cols,
                        .x = p->x,
                        .w = p->w->x,
                        .y = p->y,
                        .x_row = STEP,
                        .w_row = p->w->step,
                        .y_row = p->y_row};
  if (!p->w->finite) multiply_seen(a, p);
  else if (a->bf16) multiply_rounded(a, p);
  else if (p->turned) multiply_turned(a, &all);
  else multiply(a, &all, true);
}
