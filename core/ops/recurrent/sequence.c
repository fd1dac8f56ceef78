/* SPDX-License-Identifier: MIT
** sequence.c: shapes, lengths, blocks of rows, and the recurrent product.
*/
#include <string.h>

#include "sequence.h"

/* Rows of a block, as many as give each thread one. The recurrent product's kernel reads the weight once for the rows that
   it keeps in registers: with fewer than 6 it waits for the weight and for its own sums; what the weight costs is shared
   well among 64. */
#define FEWEST_ROWS 6
#define MOST_ROWS 64
#define BF16_ROWS \
  128 /* and of bytes: where products are fast, the weight is read from a second-level cache for more */

/* Bytes of w_h above which threads share its columns: half a second-level cache. LSTM, 64 rows, 64 steps, 512 units, f32, two
   threads, ms forward and of a step with its gradients: blocks of rows 56 and 190, columns 47 and 165 */
#define FAR_WEIGHT (1 << 20)

/* ---- shapes ---- */

static marea_status want_matrix (marea_call *c, int input, const char *names, int64_t rows, int64_t cols,
                                 const char *why_rows, const char *why_cols) {
  MAREA_TRY(marea_want_dtype(c, input, 1 << c->in[0]->dtype));
  MAREA_TRY(marea_want_rank(c, input, 2, names));
  MAREA_TRY(marea_want_size(c, input, 0, rows, why_rows));
  return marea_want_size(c, input, 1, cols, why_cols);
}

static bool has (const marea_call *c, int input) { return input >= 0 && input < c->n_in && c->in[input]; }

marea_status marea_sequence_shape (marea_call *c, const marea_sequence_inputs *at, int64_t per_unit) {
  const marea_tensor *x = c->in[at->x], *w_h = c->in[at->w_h];
  MAREA_TRY(marea_want_rank(c, at->x, 3, "(N, T, C)"));
  MAREA_TRY(marea_want_rank(c, at->w_h, 2, "(H, gates)"));
  const int64_t hidden = w_h->shape[0], gates = w_h->shape[1];
  if (gates != per_unit * hidden)
    return marea_reject(c, MAREA_ESHAPE, "argument '%s': expected (H, %lld H), got %s",
                        marea_input_name(c->op, at->w_h), (long long)per_unit, marea_tensor_text(w_h).s);
  MAREA_TRY(marea_want_dtype(c, at->w_h, 1 << x->dtype));
  MAREA_TRY(want_matrix(c, at->w_x, "(C, gates)", x->shape[2], gates, "x's last size", "w_h's last size"));
  return marea_sequence_shape_rest(c, at, hidden, gates);
}

marea_status marea_sequence_shape_rest (marea_call *c, const marea_sequence_inputs *at, int64_t hidden,
                                        int64_t gates) {
  const marea_tensor *x = c->in[at->x];
  if (has(c, at->bias)) {
    MAREA_TRY(marea_want_dtype(c, at->bias, 1 << x->dtype));
    MAREA_TRY(marea_want_rank(c, at->bias, 1, "(gates)"));
    MAREA_TRY(marea_want_size(c, at->bias, 0, gates, "w_h's last size"));
  }
  if (has(c, at->h0))
    MAREA_TRY(want_matrix(c, at->h0, "(N, H)", x->shape[0], hidden, "x's first size", "w_h's first size"));
  if (!has(c, at->lengths)) return MAREA_OK;
  MAREA_TRY(marea_want_dtype(c, at->lengths, MAREA_INTS));
  MAREA_TRY(marea_want_rank(c, at->lengths, 1, "(N)"));
  return marea_want_size(c, at->lengths, 0, x->shape[0], "x's first size");
}

/* ---- blocks ---- */

static int64_t most_rows (const marea_sequence *s) { return s->bf16 || s->bytes ? BF16_ROWS : MOST_ROWS; }

/* Not with the host's threads, which may take long to begin. */
static bool is_by_columns (const marea_sequence *s) {
  const int64_t bytes = s->hidden * s->gates * (int64_t)(s->bf16 ? sizeof(uint16_t) : s->size);
  const int threads = s->ctx->threads;
  return threads > 1 && !s->bytes && !s->ctx->config.parallel_for && bytes > FAR_WEIGHT &&
         s->n < most_rows(s) * threads;
}

int64_t marea_sequence_rows (const marea_sequence *s) {
  const int64_t share = (s->n + s->ctx->threads - 1) / s->ctx->threads;
  if (s->by_columns) return s->n;
  return MAREA_MIN(MAREA_MAX(MAREA_MIN(share, most_rows(s)), FEWEST_ROWS), s->n);
}

int64_t marea_sequence_blocks (const marea_sequence *s) {
  const int64_t rows = marea_sequence_rows(s);
  return rows > 0 ? (s->n + rows - 1) / rows : 0;
}

marea_range marea_sequence_block (const marea_sequence *s, int64_t block) {
  const int64_t blocks = marea_sequence_blocks(s), each = s->n / blocks, longer = s->n % blocks;
  const int64_t first = block * each + MAREA_MIN(block, longer);
  return (marea_range){first, first + each + (block < longer)};
}

void marea_sequence_share (const marea_sequence *s, int64_t n, marea_block_fn fn, void *arg) {
  if (s->by_columns) marea_parallel(s->ctx, n, fn, arg);
  else
    for (int64_t i = 0; i < n; i++) fn(arg, i, 0);
}

/* All blocks, one after the other where threads share each step. */
static void run_blocks (const marea_sequence *s, marea_block_fn fn, void *arg) {
  const int64_t blocks = marea_sequence_blocks(s);
  if (!s->by_columns) marea_parallel(s->ctx, blocks, fn, arg);
  else if (!s->ctx->shape_only && blocks > 0) fn(arg, 0, 0);
}

/* ---- lengths ---- */

static marea_status read_lengths (marea_call *c, int input, const marea_sequence *s, int64_t *length) {
  for (int64_t i = 0; i < s->n; i++) {
    length[i] = marea_load_integer(c->in[input]->dtype, marea_at(c->in[input]), i);
    if (length[i] < 0 || length[i] > s->steps)
      return marea_reject(c, MAREA_EARG,
                          "argument '%s': row %lld has length %lld, expected 0 to %lld, the steps of x",
                          marea_input_name(c->op, input), (long long)(i + c->ctx->config.index_base),
                          (long long)length[i], (long long)s->steps);
  }
  return MAREA_OK;
}

/* The row of rank r by length goes to block r % blocks, so that blocks take equally long. */
static int64_t place_of_rank (const marea_sequence *s, int64_t rank) {
  const int64_t blocks = marea_sequence_blocks(s);
  return marea_sequence_block(s, rank % blocks).first + rank / blocks;
}

/* order := rows of each block, the longest first, equal ones as they are: a sort by counting. first: (steps + 2) */
static void sort_rows (const marea_sequence *s, int64_t *first, int64_t *order) {
  memset(first, 0, (size_t)(s->steps + 2) * sizeof *first);
  for (int64_t i = 0; i < s->n; i++) first[s->steps - marea_sequence_length(s, i) + 1]++;
  for (int64_t l = 0; l < s->steps; l++) first[l + 1] += first[l];
  for (int64_t i = 0; i < s->n; i++)
    order[place_of_rank(s, first[s->steps - marea_sequence_length(s, i)]++)] = i;
}

marea_status marea_sequence_open (marea_call *c, const marea_sequence_inputs *at, bool reverse,
                                  marea_sequence *s) {
  const marea_tensor *x = c->in[at->x], *w_h = c->in[at->w_h];
  int64_t *order, *length = NULL, *first;
  *s = (marea_sequence){.ctx = c->ctx,
                        .kernels = c->ctx->kernels[x->dtype],
                        .dtype = x->dtype,
                        .size = marea_element_size(x->dtype),
                        .n = x->shape[0],
                        .steps = x->shape[1],
                        .in = x->shape[2],
                        .hidden = w_h->shape[0],
                        .gates = w_h->shape[1],
                        .reverse = reverse,
                        .bytes = at->per_unit > 0,
                        .bf16 = !at->per_unit && marea_rounds(c)};
  if (s->bytes) s->hidden = (s->gates = c->in[at->w_h + 1]->shape[0]) / at->per_unit;
  s->by_columns = is_by_columns(s);
  if (has(c, at->lengths) && !c->ctx->shape_only) {
    MAREA_TABLE_OR_RETURN(c, length, (size_t)MAREA_MAX(s->n, 1) * sizeof *length);
    MAREA_TRY(read_lengths(c, at->lengths, s, length));
    s->length = length;
  }
  MAREA_TABLE_OR_RETURN(c, order, (size_t)MAREA_MAX(s->n, 1) * sizeof *order);
  MAREA_TABLE_OR_RETURN(c, first, (size_t)(s->steps + 2) * sizeof *first);
  sort_rows(s, first, order);
  s->order = order;
  return MAREA_OK;
}

int64_t marea_sequence_active (const marea_sequence *s, marea_range rows, int64_t step) {
  int64_t n = rows.end - rows.first;
  while (n > 0 && marea_sequence_length(s, s->order[rows.first + n - 1]) <= step) n--;
  return n;
}

/* ---- the recurrent product ---- */

typedef struct packing {
  const marea_packed *p;
  const char *from;
  char *to;
  int64_t row, col; /* steps of `from`, in elements */
  size_t size;
  const marea_kernels *kernels;
  uint16_t *narrow; /* the columns in bf16, as they lie in w_h */
  int64_t width;
} packing;

static int64_t panel_width (const marea_packed *p, int64_t panel) {
  return MAREA_MIN(MAREA_ROW_PANEL, p->m - panel * MAREA_ROW_PANEL);
}

static void pack_panel (void *arg, int64_t panel, int worker) {
  const packing *k = arg;
  const int64_t first = panel * MAREA_ROW_PANEL, width = panel_width(k->p, panel);
  char *to = k->to + (size_t)(first * k->p->k) * k->size;
  (void)worker;
  for (int64_t i = 0; k->col == 1 && i < k->p->k; i++, to += (size_t)width * k->size)
    memcpy(to, k->from + (size_t)(i * k->row + first) * k->size, (size_t)width * k->size);
  for (int64_t i = 0; k->col != 1 && i < k->p->k; i++)
    for (int64_t j = 0; j < width; j++, to += k->size)
      memcpy(to, k->from + (size_t)(i * k->row + (first + j) * k->col) * k->size, k->size);
}

static void narrow_row (void *arg, int64_t row, int worker) {
  const packing *k = arg;
  const int64_t step = MAREA_MAX(k->row, k->col);
  (void)worker;
  k->kernels->narrow_bf16((size_t)k->width, (const float *)(const void *)k->from + row * step,
                          k->narrow + row * k->width);
}

static void pack_bf16_panel (void *arg, int64_t panel, int worker) {
  const packing *k = arg;
  const int64_t first = panel * MAREA_BF16_PANEL, depth = marea_bf16_depth(k->p->k),
                size = depth * MAREA_BF16_PANEL;
  const bool turned = k->row == 1;
  uint16_t *to = (uint16_t *)(void *)k->to + panel * size;
  (void)worker;
  if (depth != k->p->k) memset(to, 0, (size_t)size * sizeof *to);
  marea_bf16_pack(k->kernels, k->p->k, MAREA_MIN(MAREA_BF16_PANEL, k->p->m - first),
                  k->narrow + first * (turned ? k->width : 1), k->width, turned, to, size);
}

static marea_status pack_bf16 (marea_call *c, packing *k, int64_t rows) {
  marea_packed *p = (marea_packed *)k->p;
  const int64_t panels = marea_bf16_columns(p->m) / MAREA_BF16_PANEL;
  MAREA_WORKSPACE_OR_RETURN(c, k->narrow, (size_t)(rows * k->width) * sizeof *k->narrow);
  MAREA_WORKSPACE_OR_RETURN(c, k->to,
                            (size_t)(panels * MAREA_BF16_PANEL * marea_bf16_depth(p->k)) * sizeof *k->narrow);
  p->at = k->to;
  marea_parallel(c->ctx, rows, narrow_row, k);
  marea_parallel(c->ctx, panels, pack_bf16_panel, k);
  return MAREA_OK;
}

static int input_of (const marea_call *c, const marea_tensor *t) {
  int i = 0;
  while (i < c->n_in && c->in[i] != t) i++;
  return i;
}

marea_status marea_sequence_pack (marea_call *c, const marea_sequence *s, const marea_tensor *w_h,
                                  int64_t first, int64_t n, bool transposed, marea_packed *p) {
  const int64_t rows = w_h->shape[0], cols = w_h->shape[1];
  const size_t size = s->size;
  packing k = {.p = p,
               .from = (const char *)marea_at(w_h) + (size_t)first * size,
               .row = transposed ? 1 : cols,
               .col = transposed ? cols : 1,
               .size = size,
               .kernels = s->kernels,
               .width = n};
  p->k = transposed ? n : rows;
  p->m = transposed ? rows : n;
  if (s->bf16 && rows * n > 0) return pack_bf16(c, &k, rows);
  const marea_pack_key key = {{first, n, transposed, s->size}};
  void *memory;
  bool ready;
  MAREA_TRY(marea_pack_for(c, input_of(c, w_h), marea_at(w_h), &key, (size_t)MAREA_MAX(rows * n, 1) * k.size,
                           &memory, &ready));
  p->at = k.to = memory;
  if (!ready) marea_parallel(c->ctx, (p->m + MAREA_ROW_PANEL - 1) / MAREA_ROW_PANEL, pack_panel, &k);
  return MAREA_OK;
}

/* Rows of n elements as bytes, in memory for `most` of them. */
static marea_int8_rows bytes_in (void *memory, int64_t n, int64_t most) {
  const int64_t step = marea_int8_depth(n);
  float *factor = (float *)(void *)((char *)memory + most * step);
  return (marea_int8_rows){memory, factor, (int32_t *)(void *)(factor + most), step};
}

/* A product's operands: x (rows, k), or in bf16 (rows, marea_bf16_depth(k)), or bytes in memory for `most` rows; bias (m),
   NULL for none */
typedef struct product {
  void *x;
  int64_t x_row, rows;
  const char *bias;
  char *y;
  int64_t y_row;
  bool add;
  int64_t most;
} product;

#define CHECKED 256 /* columns between two checks for interrupts: a multiple of both panels */

/* A product in pieces of so many columns */
typedef struct pieces {
  const marea_sequence *s;
  const marea_packed *p;
  const product *k;
  int64_t columns;
} pieces;

static void multiply_bf16_piece (void *arg, int64_t piece, int worker) {
  const pieces *all = arg;
  const marea_sequence *s = all->s;
  const marea_packed *p = all->p;
  const product *k = all->k;
  const int64_t depth = marea_bf16_depth(p->k), first = piece * all->columns;
  (void)worker;
  if (marea_stopping(s->ctx)) return;
  marea_bf16_product g = marea_bf16_matrix(s->kernels, k->rows, depth, MAREA_MIN(all->columns, p->m - first),
                                           k->x, depth, (const uint16_t *)(const void *)p->at + first * depth,
                                           depth * MAREA_BF16_PANEL);
  g.y = k->y + (size_t)first * s->size;
  g.y_col = k->y_row;
  g.wide = true;
  g.bias = k->bias ? (const float *)(const void *)k->bias + first : NULL;
  g.accumulate = k->add;
  s->ctx->bf16->product(&g);
}

/* The weight of a panel, and of the last one the first, which is next at the next step */
static marea_prefetch panel_behind (const pieces *all, int64_t panel) {
  const marea_packed *p = all->p;
  const int64_t next = (panel + 1) * MAREA_ROW_PANEL < p->m ? panel + 1 : 0;
  const char *at = p->at + (size_t)(next * MAREA_ROW_PANEL * p->k) * all->s->size;
  marea_prefetch to = {.n = 0};
  marea_prefetch_add(&to, marea_prefetch_area_of(at, (size_t)(panel_width(p, next) * p->k) * all->s->size));
  return to;
}

static void multiply_panel (void *arg, int64_t panel, int worker) {
  static const int64_t tap[] = {0};
  const pieces *all = arg;
  const marea_sequence *s = all->s;
  const marea_packed *p = all->p;
  const product *k = all->k;
  const int64_t first = panel * MAREA_ROW_PANEL;
  marea_prefetch next = panel_behind(all, panel);
  const marea_direct_conv g = {.x = k->x,
                               .w = p->at + (size_t)(first * p->k) * s->size,
                               .bias = k->bias ? k->bias + (size_t)first * s->size : NULL,
                               .y = k->y + (size_t)first * s->size,
                               .rows = 1,
                               .cols = k->rows,
                               .x_col = k->x_row,
                               .y_col = k->y_row,
                               .cin = p->k,
                               .cout = panel_width(p, panel),
                               .tap_rows = 1,
                               .taps = 1,
                               .tap = tap,
                               .w_ci = panel_width(p, panel),
                               .accumulate = k->add,
                               .prefetch = &next};
  (void)worker;
  if (!marea_stopping(s->ctx)) s->kernels->direct_conv(&g);
}

/* One row waits for its own sums unless many columns are added up side by side. */
#define ROW_COLUMNS 256

static void multiply_row (void *arg, int64_t piece, int worker) {
  const pieces *all = arg;
  const marea_sequence *s = all->s;
  const int64_t first = piece * all->columns;
  const marea_row_product g = {.x = all->k->x,
                               .w = all->p->at + (size_t)(first * all->p->k) * s->size,
                               .bias = all->k->bias ? all->k->bias + (size_t)first * s->size : NULL,
                               .y = all->k->y + (size_t)first * s->size,
                               .k = all->p->k,
                               .m = MAREA_MIN(all->columns, all->p->m - first),
                               .accumulate = all->k->add};
  (void)worker;
  if (!marea_stopping(s->ctx)) s->kernels->row_product(&g);
}

/* Columns of a piece in bf16: as many as give each thread some. */
static int64_t bf16_columns (const marea_sequence *s, int64_t m) {
  const int64_t least = 2 * MAREA_BF16_PANEL, share = m / (s->by_columns ? 2 * s->ctx->threads : 1);
  return MAREA_MAX(MAREA_MIN(share / least * least, CHECKED), least);
}

static void multiply_bytes (const marea_sequence *s, const marea_packed *p, const product *k) {
  static const int64_t here = 0;
  const marea_int8_rows x = bytes_in(k->x, p->k, k->most);
  const marea_int8_weight w = {.at = (const int8_t *)p->at,
                               .scale = p->scale,
                               .bias = (const float *)(const void *)k->bias,
                               .n = p->m,
                               .taps = 1,
                               .step = x.step};
  const marea_int8_block b = {.x = x.at,
                              .factor = x.factor,
                              .zero = x.zero,
                              .y = (float *)(void *)k->y,
                              .places = k->rows,
                              .x_col = x.step,
                              .y_col = k->y_row,
                              .tap = &here,
                              .panels = {0, marea_int8_panels(p->m)},
                              .add = k->add};
  marea_int8_multiply(s->ctx, &w, &b);
}

static void multiply (const marea_sequence *s, const marea_packed *p, const product *k) {
  if (s->bytes) {
    multiply_bytes(s, p, k);
    return;
  }
  const bool row = k->rows == 1;
  const pieces all = {s, p, k, s->bf16 ? bf16_columns(s, p->m) : row ? ROW_COLUMNS : MAREA_ROW_PANEL};
  const int64_t n = (p->m + all.columns - 1) / all.columns;
  marea_sequence_share(s, n,
                       s->bf16 ? multiply_bf16_piece
                       : row   ? multiply_row
                               : multiply_panel,
                       (void *)&all);
}

static size_t row_bytes (const marea_sequence *s, int64_t n) {
  if (s->bytes) return (size_t)marea_int8_depth(n) + sizeof(float) + sizeof(int32_t);
  return s->bf16 ? (size_t)marea_bf16_depth(n) * sizeof(uint16_t) : (size_t)n * s->size;
}

/* Row i of `memory` for `most` of them := n elements, as the product wants them */
static void put_row (const marea_sequence *s, int64_t n, const char *from, char *memory, int64_t i,
                     int64_t most) {
  const int64_t depth = marea_bf16_depth(n);
  char *to = memory + (size_t)i * row_bytes(s, n);
  uint16_t *narrow = (uint16_t *)(void *)to;
  if (s->bytes) {
    const marea_int8_rows all = bytes_in(memory, n, most);
    const marea_int8_rows row = {all.at + i * all.step, all.factor + i, all.zero + i, all.step};
    marea_int8_quantize(s->kernels, (marea_range){0, 1}, (const float *)(const void *)from, n, &row);
    return;
  }
  if (!s->bf16) {
    memcpy(to, from, (size_t)n * s->size);
    return;
  }
  s->kernels->narrow_bf16((size_t)n, (const float *)(const void *)from, narrow);
  memset(narrow + n, 0, (size_t)(depth - n) * sizeof *narrow);
}

/* The same of n elements that are bf16 */
static void put_narrow (const marea_sequence *s, int64_t n, const char *from, char *to) {
  const size_t bytes = (size_t)n * sizeof(uint16_t);
  memcpy(to, from, bytes);
  memset(to + bytes, 0, row_bytes(s, n) - bytes);
}

/* Rows from x on, x_row elements apart, as the product wants them */
typedef struct narrowing {
  const marea_sequence *s;
  int64_t width;
  const char *x;
  int64_t x_row, rows;
  char *to;
} narrowing;

static void narrow_one (void *arg, int64_t row, int worker) {
  const narrowing *k = arg;
  (void)worker;
  put_row(k->s, k->width, k->x + (size_t)(row * k->x_row) * k->s->size, k->to, row, k->rows);
}

void marea_sequence_multiply (const marea_sequence *s, const marea_packed *p, const char *x, int64_t x_row,
                              int64_t rows, char *narrow, char *y, int64_t y_row, bool add) {
  const bool converts = s->bf16 || s->bytes;
  const product k = {converts ? narrow : (char *)x, x_row, rows, NULL, y, y_row, add, rows};
  narrowing all = {s, p->k, x, x_row, rows, narrow};
  if (converts && x) marea_sequence_share(s, rows, narrow_one, &all);
  multiply(s, p, &k);
}

/* ---- what operators have in common ---- */

marea_status marea_sequence_want (marea_call *c, int input, const marea_layout *l) {
  const marea_tensor *t = has(c, input) ? c->in[input] : NULL;
  if (!t || (t->dtype == l->dtype && marea_has_shape(t, l->rank, l->shape))) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE, "argument '%s': expected %s %s, got %s",
                      marea_input_name(c->op, input), marea_dtype_name((marea_dtype)l->dtype),
                      marea_shape_text(l->rank, l->shape).s, marea_tensor_text(t).s);
}

const char *marea_sequence_given (const marea_call *c, int input) {
  return has(c, input) ? marea_at(c->in[input]) : NULL;
}

marea_status marea_sequence_first (marea_call *c, const marea_sequence *s, int input, const char **state) {
  const size_t bytes = (size_t)MAREA_MAX(s->n * s->hidden, 1) * s->size;
  char *zeros;
  *state = marea_sequence_given(c, input);
  if (*state) return MAREA_OK;
  MAREA_WORKSPACE_OR_RETURN(c, zeros, bytes);
  if (!c->ctx->shape_only) memset(zeros, 0, bytes);
  *state = zeros;
  return MAREA_OK;
}

marea_status marea_sequence_input_product (marea_call *c, const marea_sequence *s,
                                           const marea_sequence_inputs *at, char *gates) {
  const marea_epilogue end = {.bias = marea_sequence_given(c, at->bias)};
  return marea_gemm_part(c->ctx, s->dtype, false, false, s->n * s->steps, s->gates, s->in,
                         marea_at(c->in[at->x]), marea_at(c->in[at->w_x]), &end, gates,
                         &(marea_gemm_layout){.bf16 = s->bf16});
}

void marea_sequence_grad_layouts (marea_call *c, int64_t per_unit, bool dx) {
  const marea_tensor *x = c->in[0];
  const int64_t in = x->shape[2], h = c->in[2]->shape[0], gates = per_unit * h;
  marea_layout_set(&c->layout[0], x->dtype, 3, (int64_t[]){dx ? x->shape[0] : 0, x->shape[1], in});
  marea_layout_set(&c->layout[1], x->dtype, 2, (int64_t[]){in, gates});
  marea_layout_set(&c->layout[2], x->dtype, 2, (int64_t[]){h, gates});
  marea_layout_set(&c->layout[3], x->dtype, 1, (int64_t[]){gates});
}

double marea_sequence_flop (const marea_call *c, const marea_tensor *w_h, double inputs, double states) {
  const marea_tensor *x = c->in[0];
  const double rows = 2.0 * (double)(x->shape[0] * x->shape[1]) * (double)w_h->shape[1];
  return rows * (inputs * (double)x->shape[2] + states * (double)w_h->shape[0]);
}

marea_status marea_sequence_vjp (marea_vjp *v, const marea_op *grad, int n, marea_tensor **in,
                                 const marea_attr *attr) {
  marea_tensor *out[MAREA_MAX_OUT];
  int n_out;
  MAREA_TRY(marea_invoke(v->ctx, grad, n, in, attr, out, &n_out));
  for (int i = 0; i < n_out; i++) {
    if (i < v->n_in && v->need[i]) v->din[i] = out[i];
    else marea_release(out[i]);
  }
  return MAREA_OK;
}

/* ---- a layer forward ---- */

/* Rows of a block lie at h + i * bytes. */
static size_t state_bytes (const marea_sequence *s) { return (size_t)s->hidden * s->size; }

static void finish_rows (const marea_recurrence *p, marea_range rows, const char *h) {
  const marea_sequence *s = &p->s;
  const size_t bytes = state_bytes(s);
  for (int64_t i = 0; i < rows.end - rows.first; i++) {
    const int64_t row = s->order[rows.first + i], length = marea_sequence_length(s, row),
                  at = row * s->steps + length;
    const size_t rest = (size_t)(s->steps - length);
    memcpy(marea_sequence_row(s, p->h_n, row, s->hidden), h + (size_t)i * bytes, bytes);
    memset(marea_sequence_row(s, p->y, at, s->hidden), 0, rest * bytes);
    for (int k = 0; k < 2 && p->saved[k]; k++)
      memset(marea_sequence_row(s, p->saved[k], at, p->width[k]), 0, rest * (size_t)p->width[k] * s->size);
  }
}

#define INPUT_ROWS 256 /* whose input products are made at a time, of several steps */

static int64_t steps_at_a_time (const marea_recurrence *p) {
  const marea_sequence *s = &p->s;
  const int64_t rows = MAREA_MAX(marea_sequence_rows(s), 1);
  return p->x ? MAREA_MIN((INPUT_ROWS + rows - 1) / rows, MAREA_MAX(s->steps, 1)) : s->steps;
}

/* Elements of the input products, and bytes of the inputs, of so many steps */
static int64_t products_size (const marea_recurrence *p) {
  return steps_at_a_time(p) * marea_sequence_rows(&p->s) * p->s.gates;
}
static size_t inputs_size (const marea_recurrence *p) {
  return (size_t)(steps_at_a_time(p) * marea_sequence_rows(&p->s)) * row_bytes(&p->s, p->s.in);
}

/* The rows of a step, and where their inputs go */
typedef struct input_rows {
  const marea_recurrence *p;
  const int64_t *order;
  int64_t step;
  char *to;
  int64_t first, most; /* rows there: of earlier steps, and in all */
} input_rows;

static void put_input (void *arg, int64_t i, int worker) {
  const input_rows *k = arg;
  const marea_sequence *s = &k->p->s;
  (void)worker;
  put_row(s, s->in, marea_sequence_row(s, k->p->x, marea_sequence_at(s, k->order[i], k->step), s->in), k->to,
          k->first + i, k->most);
}

/* a := the input products of the rows that are active at each of some steps, one step behind the other */
static void multiply_inputs (const marea_recurrence *p, marea_range rows, marea_range steps, char *a) {
  const marea_sequence *s = &p->s;
  const int64_t most = steps_at_a_time(p) * marea_sequence_rows(s);
  char *first = a + (size_t)(most * s->gates) * s->size;
  int64_t n = 0;
  for (int64_t step = steps.first; step < steps.end; step++) {
    const int64_t active = marea_sequence_active(s, rows, step);
    input_rows k = {p, s->order + rows.first, step, first, n, most};
    marea_sequence_share(s, active, put_input, &k);
    n += active;
  }
  const product k = {first, s->in, n, p->bias, a, s->gates, false, most};
  if (n > 0) multiply(s, &p->w_x, &k);
}

/* quantize_int8's bytes of a weight of k rows */
static marea_packed bytes_of (const marea_call *c, const marea_sequence *s, int64_t k, int weight) {
  return (marea_packed){k, s->gates, marea_at(c->in[weight]), marea_at(c->in[weight + 1])};
}

marea_status marea_recurrence_inputs (marea_call *c, const marea_sequence_inputs *at, marea_recurrence *p,
                                      marea_packed *w_h) {
  const marea_sequence *s = &p->s;
  p->x = marea_at(c->in[at->x]);
  p->bias = marea_sequence_given(c, at->bias);
  if (s->bytes) {
    p->w_x = bytes_of(c, s, s->in, at->w_x);
    *w_h = bytes_of(c, s, s->hidden, at->w_h);
    return MAREA_OK;
  }
  MAREA_TRY(marea_sequence_pack(c, s, c->in[at->w_x], 0, s->gates, false, &p->w_x));
  return marea_sequence_pack(c, s, c->in[at->w_h], 0, s->gates, false, w_h);
}

/* What follows the work and its room for bf16: the input products */
static char *inputs_of (const marea_recurrence *p, char *work);

static void run_block (void *arg, int64_t block, int worker) {
  const marea_recurrence *p = arg;
  const marea_sequence *s = &p->s;
  const marea_range rows = marea_sequence_block(s, block);
  const size_t bytes = state_bytes(s);
  char *h = p->memory + (size_t)worker * p->per_worker, *work = h + (size_t)marea_sequence_rows(s) * bytes;
  for (int64_t i = 0; i < rows.end - rows.first; i++)
    memcpy(h + (size_t)i * bytes, marea_sequence_row(s, p->h0, s->order[rows.first + i], s->hidden), bytes);
  if (p->begin) p->begin(p, rows, work);
  for (int64_t step = 0; step < s->steps && marea_sequence_active(s, rows, step) > 0;) {
    const marea_range some = {step, MAREA_MIN(step + steps_at_a_time(p), s->steps)};
    char *a = inputs_of(p, work);
    if (p->x) multiply_inputs(p, rows, some, a);
    for (; step < some.end; step++) {
      const int64_t active = marea_sequence_active(s, rows, step);
      if (marea_stopping(s->ctx)) return;
      if (active > 0) p->step(p, rows, step, active, h, work, a);
      a += (size_t)(p->x ? active * s->gates : 0) * s->size;
    }
  }
  finish_rows(p, rows, h);
  if (p->end) p->end(p, rows, work);
}

/* Rows of any width up to all gates in bf16: the kernel's depths are whole pieces at most. */
static size_t narrow_bytes (const marea_sequence *s) {
  if (s->bytes) return (size_t)marea_sequence_rows(s) * row_bytes(s, s->hidden);
  return s->bf16 ? (size_t)(marea_sequence_rows(s) * marea_bf16_whole(s->gates)) * sizeof(uint16_t) : 0;
}

static char *inputs_of (const marea_recurrence *p, char *work) {
  return marea_sequence_narrow(&p->s, work, p->per_row) + narrow_bytes(&p->s);
}

static marea_status open_memory (marea_call *c, const marea_sequence *s, int64_t per_row, size_t more,
                                 size_t *per_worker, char **memory) {
  const size_t rows = (size_t)marea_sequence_rows(s);
  *per_worker = rows * (size_t)(s->hidden + per_row) * s->size + narrow_bytes(s) + more;
  if (!s->by_columns) return marea_worker_memory(c, per_worker, memory);
  MAREA_WORKSPACE_OR_RETURN(c, *memory, *per_worker);
  return MAREA_OK;
}

#define LARGE_PAGE ((size_t)2 << 20)

/* Has the system clear the pages of what all steps will write, `width` bytes of each, one after the other: the rows of the
   first step lie in all of them, and it would clear 100 MB, 0.1 s, between two checks for interrupts. (Where the system has no large pages, a step
   meets small ones of its own.) */
static void touch_pages (const marea_sequence *s, char *at, size_t width) {
  const size_t bytes = (size_t)(s->n * s->steps) * width;
  for (size_t i = 0; !s->ctx->shape_only && i < bytes && !marea_stopping(s->ctx); i += LARGE_PAGE) at[i] = 0;
}

marea_status marea_recurrence_run (marea_call *c, marea_recurrence *p) {
  const size_t more = p->x ? (size_t)products_size(p) * p->s.size + inputs_size(p) : 0;
  MAREA_TRY(open_memory(c, &p->s, p->per_row, more, &p->per_worker, &p->memory));
  if (p->x) { /* else some of it holds the input products */
    touch_pages(&p->s, p->y, state_bytes(&p->s));
    for (int k = 0; k < 2 && p->saved[k]; k++)
      touch_pages(&p->s, p->saved[k], (size_t)p->width[k] * p->s.size);
  }
  run_blocks(&p->s, run_block, p);
  return MAREA_OK;
}

/* ---- and backward ---- */

/* Of a row of dx_gates */
static size_t gates_bytes (const marea_recurrence_grad *p) {
  return (size_t)p->gates_row * (p->s.bf16 ? sizeof(uint16_t) : p->s.size);
}

/* In bf16 no multiple of 2 KB, after which the rows that a product reads share few sets of the caches. */
static int64_t gates_row (const marea_sequence *s) {
  return s->bf16 && s->gates % 1024 == 0 ? s->gates + MAREA_BF16_DEPTH : s->gates;
}

marea_status marea_recurrence_grad_gates (marea_call *c, const marea_recurrence_grad *p, char **gates) {
  MAREA_WORKSPACE_OR_RETURN(c, *gates,
                            (size_t)MAREA_MAX(p->s.n * p->s.steps, 1) * MAREA_MAX(gates_bytes(p), 1));
  return MAREA_OK;
}

void marea_recurrence_keep (const marea_recurrence_grad *p, char *gates, int64_t at, const char *row,
                            char *narrow, int64_t i) {
  const marea_sequence *s = &p->s;
  const size_t bytes = gates_bytes(p);
  char *to = gates + (size_t)at * bytes;
  if (!s->bf16) {
    memcpy(to, row, bytes);
    return;
  }
  s->kernels->narrow_bf16((size_t)s->gates, (const float *)(const void *)row, (uint16_t *)(void *)to);
  if (narrow) put_narrow(s, s->gates, to, narrow + (size_t)i * row_bytes(s, s->gates));
}

static void begin_rows (const marea_recurrence_grad *p, marea_range rows, char *dh, char *work) {
  const marea_sequence *s = &p->s;
  const size_t bytes = state_bytes(s);
  for (int64_t i = 0; i < rows.end - rows.first; i++) {
    const int64_t row = s->order[rows.first + i];
    if (p->dh_n) memcpy(dh + (size_t)i * bytes, marea_sequence_row(s, p->dh_n, row, s->hidden), bytes);
    else memset(dh + (size_t)i * bytes, 0, bytes);
  }
  if (p->begin) p->begin(p, rows, work);
}

static void end_rows (const marea_recurrence_grad *p, marea_range rows, const char *dh, char *work) {
  const marea_sequence *s = &p->s;
  const size_t bytes = state_bytes(s);
  for (int64_t i = 0; i < rows.end - rows.first; i++) {
    const int64_t row = s->order[rows.first + i], length = marea_sequence_length(s, row),
                  at = row * s->steps + length;
    const size_t rest = (size_t)(s->steps - length), gates = gates_bytes(p);
    memcpy(marea_sequence_row(s, p->dh0, row, s->hidden), dh + (size_t)i * bytes, bytes);
    memset(marea_sequence_row(s, p->before, at, s->hidden), 0, rest * bytes);
    memset(p->dx_gates + (size_t)at * gates, 0, rest * gates);
    if (p->dh_gates != p->dx_gates) memset(p->dh_gates + (size_t)at * gates, 0, rest * gates);
  }
  if (p->end) p->end(p, rows, work);
}

typedef struct arrivals {
  const marea_recurrence_grad *p;
  const int64_t *order;
  int64_t step;
  char *dh;
} arrivals;

/* Adds what arrives at the results of a step, and notes the state before it. */
static void arrive (void *arg, int64_t i, int worker) {
  const arrivals *k = arg;
  const marea_recurrence_grad *p = k->p;
  const marea_sequence *s = &p->s;
  const size_t bytes = state_bytes(s);
  const int64_t row = k->order[i], at = marea_sequence_at(s, row, k->step);
  char *to = k->dh + (size_t)i * bytes;
  (void)worker;
  if (p->dy)
    s->kernels->add((size_t)s->hidden, to, 1, marea_sequence_row(s, p->dy, at, s->hidden), 1, to, NULL);
  memcpy(marea_sequence_row(s, p->before, at, s->hidden), marea_sequence_before(s, p->y, p->h0, row, k->step),
         bytes);
}

static void run_grad_block (void *arg, int64_t block, int worker) {
  const marea_recurrence_grad *p = arg;
  const marea_sequence *s = &p->s;
  const marea_range rows = marea_sequence_block(s, block);
  char *dh = p->memory + (size_t)worker * p->per_worker,
       *work = dh + (size_t)marea_sequence_rows(s) * state_bytes(s);
  begin_rows(p, rows, dh, work);
  for (int64_t step = s->steps - 1; step >= 0; step--) {
    const int64_t active = marea_sequence_active(s, rows, step);
    if (active == 0) continue;
    if (marea_stopping(s->ctx)) return;
    arrivals k = {p, s->order + rows.first, step, dh};
    marea_sequence_share(s, active, arrive, &k);
    p->step(p, rows, step, active, dh, work);
  }
  end_rows(p, rows, dh, work);
}

marea_status marea_recurrence_grad_run (marea_call *c, marea_recurrence_grad *p) {
  if (p->s.n == 0 || p->s.hidden == 0) return MAREA_OK;
  MAREA_TRY(open_memory(c, &p->s, p->per_row, 0, &p->per_worker, &p->memory));
  touch_pages(&p->s, p->before, state_bytes(&p->s));
  touch_pages(&p->s, p->dx_gates, gates_bytes(p));
  if (p->dh_gates != p->dx_gates) touch_pages(&p->s, p->dh_gates, gates_bytes(p));
  run_blocks(&p->s, run_grad_block, p);
  return MAREA_OK;
}

marea_status marea_recurrence_grad_open (marea_call *c, const marea_recurrence_grad_places *at, bool reverse,
                                         marea_recurrence_grad *p) {
  marea_sequence *s = &p->s;
  MAREA_TRY(marea_sequence_open(c, &at->inputs, reverse, s));
  MAREA_TRY(marea_sequence_first(c, s, at->inputs.h0, &p->h0));
  const int64_t values = s->n * s->steps;
  p->gates_row = gates_row(s);
  MAREA_TRY(marea_recurrence_grad_gates(c, p, &p->dx_gates));
  MAREA_WORKSPACE_OR_RETURN(c, p->before, (size_t)MAREA_MAX(values * s->hidden, 1) * s->size);
  p->dh_gates = p->dx_gates;
  p->y = marea_at(c->in[at->y]);
  p->dy = marea_sequence_given(c, at->dy);
  p->dh_n = marea_sequence_given(c, at->dh_n);
  p->dh0 = marea_at(c->out[at->dh0]);
  return MAREA_OK;
}

#define SUM_COLUMNS 128 /* of a bias' gradient, a block */
#define SUM_ROWS 256    /* of bf16, at a time */

typedef struct column_sum {
  const marea_recurrence_grad *p;
  const char *gates;
  int64_t first, n;
  char *sum;
} column_sum;

/* sum (n) += the rows of bf16 */
static void add_narrow_rows (const marea_sequence *s, int64_t n, int64_t row, const uint16_t *gates,
                             float *sum) {
  float ones[SUM_ROWS];
  for (int i = 0; i < SUM_ROWS; i++) ones[i] = 1;
  for (int64_t i = 0; i < s->n * s->steps; i += SUM_ROWS)
    s->kernels->bf16_add_scaled((size_t)MAREA_MIN(SUM_ROWS, s->n * s->steps - i), (size_t)n, (size_t)row,
                                gates + i * row, ones, sum);
}

static void sum_columns (void *arg, int64_t block, int worker) {
  const column_sum *k = arg;
  const marea_sequence *s = &k->p->s;
  const int64_t first = block * SUM_COLUMNS, n = MAREA_MIN(SUM_COLUMNS, k->n - first), row = k->p->gates_row;
  char *sum = k->sum + (size_t)first * s->size;
  const size_t at = (size_t)(k->first + first);
  (void)worker;
  memset(sum, 0, (size_t)n * s->size);
  if (s->bf16)
    add_narrow_rows(s, n, row, (const uint16_t *)(const void *)k->gates + at, (float *)(void *)sum);
  else s->kernels->add_rows((size_t)(s->n * s->steps), (size_t)n, (size_t)row, k->gates + at * s->size, sum);
}

void marea_recurrence_sum (const marea_recurrence_grad *p, const char *gates, int64_t first, int64_t n,
                           char *sum) {
  column_sum k = {p, gates, first, n, sum};
  marea_parallel_if(p->s.ctx, p->s.n * p->s.steps * n, (n + SUM_COLUMNS - 1) / SUM_COLUMNS, sum_columns, &k);
}

marea_gemm_layout marea_recurrence_grad_layout (const marea_recurrence_grad *p, bool as_a) {
  const bool bf16 = p->s.bf16;
  if (as_a) return (marea_gemm_layout){.bf16 = bf16, .a_is_bf16 = bf16, .lda = p->gates_row};
  return (marea_gemm_layout){.bf16 = bf16, .b_is_bf16 = bf16, .ldb = p->gates_row};
}

typedef struct cut {
  const marea_sequence *s;
  const char *x;
  char *to;
} cut;

static void cut_row (void *arg, int64_t row, int worker) {
  const cut *k = arg;
  const marea_sequence *s = k->s;
  const size_t step = (size_t)s->in * s->size, length = (size_t)marea_sequence_length(s, row) * step;
  char *to = k->to + (size_t)(row * s->steps) * step;
  (void)worker;
  memcpy(to, k->x + (size_t)(row * s->steps) * step, length);
  memset(to + length, 0, (size_t)s->steps * step - length);
}

/* x with zeros behind the ends of rows: 0 times what is there might be NaN. Without lengths x itself. */
static marea_status cut_input (marea_call *c, const marea_sequence *s, const marea_sequence_inputs *at,
                               const char **x) {
  cut k = {s, marea_at(c->in[at->x]), NULL};
  *x = k.x;
  if (!has(c, at->lengths)) return MAREA_OK;
  MAREA_WORKSPACE_OR_RETURN(c, k.to, (size_t)MAREA_MAX(s->n * s->steps * s->in, 1) * s->size);
  marea_parallel_if(c->ctx, s->n * s->steps * s->in, s->n, cut_row, &k);
  *x = k.to;
  return MAREA_OK;
}

marea_status marea_recurrence_grad_products (marea_call *c, const marea_recurrence_grad *p,
                                             const marea_sequence_inputs *at) {
  const marea_sequence *s = &p->s;
  const int64_t rows = s->n * s->steps;
  const marea_gemm_layout as_a = marea_recurrence_grad_layout(p, true),
                          as_b = marea_recurrence_grad_layout(p, false);
  const char *x;
  MAREA_TRY(cut_input(c, s, at, &x));
  if (marea_count(c->out[0]->rank, c->out[0]->shape) > 0)
    MAREA_TRY(marea_gemm_part(c->ctx, s->dtype, false, true, rows, s->in, s->gates, p->dx_gates,
                              marea_at(c->in[at->w_x]), NULL, marea_at(c->out[0]), &as_a));
  MAREA_TRY(marea_gemm_part(c->ctx, s->dtype, true, false, s->in, s->gates, rows, x, p->dx_gates, NULL,
                            marea_at(c->out[1]), &as_b));
  MAREA_TRY(marea_gemm_part(c->ctx, s->dtype, true, false, s->hidden, s->gates, rows, p->before, p->dh_gates,
                            NULL, marea_at(c->out[2]), &as_b));
  marea_recurrence_sum(p, p->dx_gates, 0, s->gates, marea_at(c->out[3]));
  return MAREA_OK;
}
