/* SPDX-License-Identifier: MIT
** dot_product.c: attention by scaled products, and its gradient (Vaswani et al. 2017), in tiles of queries by keys with a
** softmax that goes on from tile to tile (FlashAttention, Dao et al. 2022). Of each query only the result and the logarithm
** of the sum of its exponentials, lse, are kept. Backward makes the tiles again: with P = exp(S - lse), D = sum(dy y),
**
**   dv = P^T dy     dS = P (dy v^T - D)     dq = scale dS k     dk = scale dS^T q
*/
#include <math.h>
#include <string.h>

#include "ops/vjp.h"
#include "tile.h"

#define QUERIES MAREA_ATTENTION_QUERIES
#define KEYS MAREA_ATTENTION_KEYS
#define STEP MAREA_ATTENTION_STEP
#define BLOCK (4 * QUERIES) /* queries of a block forward at most, for which keys are turned once */

enum { Y, LSE }; /* ORDER of the results */

static int64_t tiles_of (int64_t n, int64_t tile) { return (n + tile - 1) / tile; }
static marea_range tile_range (int64_t tile, int64_t size, int64_t end) {
  return (marea_range){tile * size, MAREA_MIN((tile + 1) * size, end)};
}

/* ---- scaled_dot_product_attention ---- */

static marea_status attention_shape (marea_call *c) {
  MAREA_TRY(marea_attention_shape(c));
  const marea_tensor *q = c->in[MAREA_QKV_Q], *v = c->in[MAREA_QKV_V];
  c->n_out = 2;
  marea_layout_set(&c->layout[Y], q->dtype, 4,
                   (int64_t[]){q->shape[0], q->shape[1], q->shape[2], v->shape[3]});
  marea_layout_set(&c->layout[LSE], q->dtype, 3, (int64_t[]){q->shape[0], q->shape[2], q->shape[1]});
  return MAREA_OK;
}

/* A worker's memory, in this order: keys turned (D, STEP), scores (QUERIES, STEP), queries (BLOCK, D) and values
   (KEYS, Dv) copied together, sums of values (BLOCK, Dv), largest score and sum of the exponentials of each query. */
typedef struct forward {
  marea_attention a;
  char *y, *lse, *memory;
  size_t per_worker;
} forward;

static void begin_queries (const marea_attention *a, int64_t rows, char *sums, char *most, char *total) {
  memset(sums, 0, (size_t)(rows * a->dv) * a->size);
  memset(total, 0, (size_t)rows * a->size);
  for (int64_t i = 0; i < rows; i++) marea_store(a->dtype, most, i, -INFINITY);
}

static void end_queries (const forward *f, const marea_attention_tile *t, const char *sums, const char *most,
                         const char *total) {
  const marea_attention *a = &f->a;
  const int64_t rows = t->queries.end - t->queries.first,
                at = (t->n * a->heads + t->head) * a->tq + t->queries.first;
  char *lse = f->lse + (size_t)at * a->size;
  for (int64_t i = 0; i < rows; i++) {
    const double sum = marea_load(a->dtype, total, i);
    a->kernels->scale((size_t)a->dv, sum == 0 ? 0 : 1 / sum, sums + (size_t)(i * a->dv) * a->size,
                      marea_query_at(a, f->y, t->n, t->queries.first + i, t->head, a->dv));
  }
  a->kernels->log((size_t)rows, total, lse, NULL); /* of 0, where no key is seen: -infinity */
  a->kernels->add((size_t)rows, most, 1, lse, 1, lse, NULL);
}

typedef struct softmax_state {
  char *turned, *s, *sums, *most, *total;
  marea_attention_rows q, v;
  uint16_t *narrow;
} softmax_state;

/* Elements of the bf16 of a worker, behind the rest: of q, v, and as scratch. */
static size_t narrow_size (const marea_attention *a) {
  return marea_attention_narrow_size(a, BLOCK, a->d, false) +
         marea_attention_narrow_size(a, KEYS, a->dv, true) +
         (a->bf16 ? MAREA_MAX(MAREA_ATTENTION_NARROW, KEYS * (size_t)marea_bf16_depth(a->d)) : 0);
}

static softmax_state state_of (const forward *f, int worker) {
  const marea_attention *a = &f->a;
  softmax_state w = {0};
  uint16_t *at;
  w.turned = f->memory + (size_t)worker * f->per_worker;
  w.s = w.turned + (size_t)(a->d * STEP) * a->size;
  w.q.x = w.s + QUERIES * STEP * a->size;
  w.v.x = w.q.x + (size_t)(BLOCK * MAREA_ATTENTION_ROW(a->d)) * a->size;
  w.sums = w.v.x + (size_t)(KEYS * MAREA_ATTENTION_ROW(a->dv)) * a->size;
  w.most = w.sums + (size_t)(BLOCK * a->dv) * a->size;
  w.total = w.most + BLOCK * a->size;
  at = (uint16_t *)(void *)(w.total + BLOCK * a->size);
  marea_attention_narrow(a, BLOCK, a->d, false, &w.q, &at);
  marea_attention_narrow(a, KEYS, a->dv, true, &w.v, &at);
  w.narrow = at;
  return w;
}

static int64_t block_of (const marea_attention *a) { return 4 * marea_attention_queries(a); }

/* row: the first query of the strip, counted from that of the block */
static void attend_strip (const forward *f, const marea_attention_tile *t, int64_t row,
                          const softmax_state *w) {
  const marea_attention *a = &f->a;
  const int64_t rows = t->queries.end - t->queries.first, keys = t->keys.end - t->keys.first;
  char *sums = w->sums + (size_t)(row * a->dv) * a->size;
  const size_t at = (size_t)row * a->size;
  const bool rounded = a->bf16 && a->rate == 0 && w->v.finite;
  marea_attention_dots(a, t, a->d, &w->q, row, w->turned, w->s);
  marea_attention_mask(a, t, w->s);
  a->kernels->softmax_piece((size_t)rows, (size_t)keys, STEP, w->s, w->most + at, w->total + at,
                            (size_t)a->dv, sums, rounded ? w->narrow : NULL, (size_t)marea_bf16_whole(keys));
  if (a->rate > 0) marea_attention_drop(a, t, w->s, w->s);
  marea_attention_multiply(a, &(marea_attention_product){.rows = rows,
                                                         .depth = keys,
                                                         .cols = a->dv,
                                                         .x = w->s,
                                                         .w = &w->v,
                                                         .y = sums,
                                                         .y_row = a->dv,
                                                         .narrow = w->narrow,
                                                         .rounded = rounded});
}

/* All keys of the tile for its only query, as when text is written with a cache of keys: the time is that of reading them. */
static void attend_one (const marea_attention *a, const marea_attention_tile *t, const softmax_state *w) {
  marea_attention_dots_of_one(a, t, w->q.x, w->s);
  a->kernels->softmax_piece(1, (size_t)(t->keys.end - t->keys.first), STEP, w->s, w->most, w->total,
                            (size_t)a->dv, w->sums, NULL, 0);
  if (a->rate > 0) marea_attention_drop(a, t, w->s, w->s);
  marea_attention_multiply_one(a, t, w->s, w->sums);
}

static void attend_all (const forward *f, const marea_attention_tile *t, softmax_state *w) {
  const marea_attention *a = &f->a;
  marea_attention_tile strip;
  marea_attention_turn(a, t, a->k, a->d, w->narrow, w->turned);
  marea_attention_pack_keys(a, t, a->v, a->dv, 1, &w->v);
  for (int64_t i = 0; marea_attention_strip(a, t, i, &strip); i = strip.queries.end)
    attend_strip(f, &strip, strip.queries.first - t->queries.first, w);
}

static void attend (void *arg, int64_t block, int worker) {
  const forward *f = arg;
  const marea_attention *a = &f->a;
  const int64_t tiles = tiles_of(a->tq, block_of(a));
  softmax_state w = state_of(f, worker);
  marea_attention_tile t = {.n = block / tiles / a->heads,
                            .head = block / tiles % a->heads,
                            .queries = tile_range(block % tiles, block_of(a), a->tq)};
  const int64_t keys = marea_attention_keys(a, t.n, t.queries.end);
  begin_queries(a, t.queries.end - t.queries.first, w.sums, w.most, w.total);
  marea_attention_pack_queries(a, &t, a->q, a->d, a->scale, &w.q);
  for (int64_t j = 0; j < keys; j += KEYS) {
    if (marea_stopping(a->ctx)) return;
    t.keys = tile_range(j / KEYS, KEYS, keys);
    if (t.queries.end - t.queries.first == 1 && !marea_attention_hides(a, &t)) attend_one(a, &t, &w);
    else attend_all(f, &t, &w);
  }
  end_queries(f, &t, w.sums, w.most, w.total);
}

static marea_status attention_forward (marea_call *c) {
  forward f = {.y = marea_at(c->out[Y]), .lse = marea_at(c->out[LSE])};
  marea_attention *a = &f.a;
  MAREA_TRY(marea_attention_open(c, a));
  a->counter = c->counter;
  f.per_worker = (size_t)((a->d + QUERIES) * STEP + BLOCK * (MAREA_ATTENTION_ROW(a->d) + a->dv + 2) +
                          KEYS * MAREA_ATTENTION_ROW(a->dv)) *
                     a->size +
                 narrow_size(a) * sizeof(uint16_t);
  MAREA_TRY(marea_worker_memory(c, &f.per_worker, &f.memory));
  for (int worker = 0; worker < c->ctx->threads && !c->ctx->shape_only; worker++) {
    const softmax_state w = state_of(&f, worker);
    marea_attention_clear(a, MAREA_MIN(BLOCK, a->tq), a->d, &w.q);
    marea_attention_clear(a, MAREA_MIN(KEYS, a->tk), a->dv, &w.v);
  }
  marea_parallel_if(c->ctx, a->n * a->heads * a->tq * a->tk * (a->d + a->dv) / 8,
                    a->n * a->heads * tiles_of(a->tq, block_of(a)), attend, &f);
  return MAREA_OK;
}

static double attention_flop (const marea_call *c) {
  return 2.0 * (double)marea_attention_pairs(c) *
         (double)(c->in[MAREA_QKV_Q]->shape[3] + c->in[MAREA_QKV_V]->shape[3]);
}

static marea_status attention_vjp (marea_vjp *v) {
  marea_tensor *in[MAREA_QKV + 3] = {NULL}, *out[4];
  int n_out;
  const bool mask = v->n_in > MAREA_QKV_MASK && v->need[MAREA_QKV_MASK];
  for (int i = 0; i < v->n_in; i++) in[i] = v->in[i];
  in[MAREA_QKV] = v->out[Y];
  in[MAREA_QKV + 1] = v->out[LSE];
  in[MAREA_QKV + 2] = v->dout[Y];
  const marea_attr attr[] = {v->attr[0],
                             v->attr[1],
                             v->attr[2],
                             v->attr[3],
                             marea_attr_int((int64_t)v->counter),
                             marea_attr_int(v->need[MAREA_QKV_Q]),
                             marea_attr_int(v->need[MAREA_QKV_K]),
                             marea_attr_int(v->need[MAREA_QKV_V]),
                             marea_attr_int(mask),
                             v->attr[MAREA_QKV_PRODUCTS]};
  MAREA_TRY(marea_invoke(v->ctx, &marea_op_scaled_dot_product_attention_grad, MAREA_COUNT(in), in, attr, out,
                         &n_out));
  for (int i = 0; i < MAREA_QKV_MASK; i++) {
    if (v->need[i]) v->din[i] = out[i];
    else marea_release(out[i]);
  }
  MAREA_OWN full = out[MAREA_QKV_MASK];
  if (!mask) return MAREA_OK;
  const marea_attr shape = marea_attr_list(v->in[MAREA_QKV_MASK]->rank, v->in[MAREA_QKV_MASK]->shape);
  return marea_run_with(v->ctx, &marea_op_sum_to, &shape, &v->din[MAREA_QKV_MASK], 1, full);
}

const marea_op marea_op_scaled_dot_product_attention = {
    .name = "scaled_dot_product_attention",
    .family = "attention",
    .doc = "y = softmax(scale q k^T + mask) v for each row and head. q: (N, Tq, heads, D); k: (N, Tk, "
           "kv_heads, D); v: "
           "(N, Tk, kv_heads, Dv); y: (N, Tq, heads, Dv), as in JAX (PyTorch has heads before T). heads is a "
           "multiple of "
           "kv_heads; neighbouring heads share keys. mask broadcasts to (N, heads, Tq, Tk): f32 or f64 is "
           "added, "
           "-infinity hides a key; u8 hides where it is 0. lengths: i64 or u8 (N), keys from there on are "
           "hidden. causal: "
           "query i sees keys up to i + Tk - Tq. A hidden key reaches nothing, even if it is NaN; a query "
           "that sees no "
           "key gives 0. dropout sets weights to 0 and multiplies the others by 1 / (1 - dropout). Memory is "
           "linear in T. "
           "Gradient: to q, k, v and mask, once; that of a mask takes (N, heads, Tq, Tk). Errors: sizes that "
           "do not fit, "
           "a length out of range (the first row is named). Source: Vaswani et al. 2017, Dao et al. 2022.",
    .inputs = {MAREA_QKV_INPUTS},
    .attrs = MAREA_ATTRS(MAREA_QKV_ATTRS, MAREA_PRODUCTS),
    .results = 1,
    .saves_in = 0x1f,
    .saves_out = 1 << Y | 1 << LSE,
    .flags = MAREA_SHAPE_ONLY | MAREA_RANDOM | MAREA_ROUNDS | MAREA_WIDE,
    .once = "softmax and matmul",
    .shape = attention_shape,
    .forward = attention_forward,
    .vjp = attention_vjp,
    .draws = marea_attention_draws,
    .flop = attention_flop,
    .sample = MAREA_QKV_SAMPLE "return inputs, attrs",
};

/* ---- scaled_dot_product_attention_grad ---- */

enum { G_Y = MAREA_QKV, G_LSE, G_DY }; /* ORDER of its inputs after the common ones */
enum { COUNTER = MAREA_QKV_SEED + 1, WANT_DQ, WANT_DK, WANT_DV, WANT_DMASK }; /* and of its attributes */
enum { DQ, DK, DV, DMASK };                                                   /* ORDER of the results */

static marea_status want_like (marea_call *c, int input, int rank, const int64_t *shape) {
  const marea_tensor *t = c->in[input];
  if (t->dtype == c->in[0]->dtype && marea_has_shape(t, rank, shape)) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE, "argument '%s': expected %s %s, got %s",
                      marea_input_name(c->op, input), marea_dtype_name((marea_dtype)c->in[0]->dtype),
                      marea_shape_text(rank, shape).s, marea_tensor_text(t).s);
}

static marea_status attention_grad_shape (marea_call *c) {
  MAREA_TRY(marea_attention_shape(c));
  const marea_tensor *q = c->in[MAREA_QKV_Q], *k = c->in[MAREA_QKV_K], *v = c->in[MAREA_QKV_V];
  const int64_t n = q->shape[0], tq = q->shape[1], heads = q->shape[2];
  const int64_t y[] = {n, tq, heads, v->shape[3]};
  MAREA_TRY(want_like(c, G_Y, 4, y));
  MAREA_TRY(want_like(c, G_DY, 4, y));
  MAREA_TRY(want_like(c, G_LSE, 3, (int64_t[]){n, heads, tq}));
  c->n_out = 4;
  for (int i = DQ; i <= DV; i++) {
    marea_layout_like(&c->layout[i], c->in[i]);
    if (!c->attr[WANT_DQ + i].i) c->layout[i].shape[0] = 0;
  }
  marea_layout_set(&c->layout[DMASK], q->dtype, 4,
                   (int64_t[]){c->attr[WANT_DMASK].i ? n : 0, heads, tq, k->shape[1]});
  return MAREA_OK;
}

/* A block is a part of the keys of one row and one head of k. Parts after the first sum dq in memory of their own, that is
   added up at the end. A worker's memory: keys and values turned, P and dS (QUERIES, STEP), the dropout's factors, and keys
   (KEYS, D), queries (QUERIES, D) and dy (QUERIES, Dv) copied together. Keys and queries are copied times the scale, so that
   dq and dk need no factor. */
typedef struct backward {
  marea_attention a;
  const char *lse, *dy;
  char *d[4];         /* gradients of q, k, v and mask; NULL: not wanted */
  char *delta;        /* (N, heads, Tq): sum(dy y) */
  char *parts, *ones; /* (parts - 1, N, Tq, heads, D); (QUERIES, STEP) */
  int64_t n_parts;
  char *memory;
  size_t per_worker;
} backward;

typedef struct scratch {
  char *turned_k, *turned_v, *s, *dp, *keep;
  marea_attention_rows k, q, dy;
  uint16_t *narrow;
} scratch;

/* As forward, of keys, queries, dy and scratch. */
static size_t narrow_size_back (const marea_attention *a) {
  const size_t widest = KEYS * (size_t)marea_bf16_depth(MAREA_MAX(a->d, a->dv));
  return marea_attention_narrow_size(a, KEYS, a->d, true) +
         marea_attention_narrow_size(a, QUERIES, a->d, true) +
         marea_attention_narrow_size(a, QUERIES, a->dv, true) +
         (a->bf16 ? MAREA_MAX(2 * MAREA_ATTENTION_NARROW, widest) : 0);
}

#define PARALLEL 16 /* blocks that are enough for threads */
#define PARTS 4     /* of the keys at most: each takes the memory of q */

static int64_t parts_of (const marea_attention *a) {
  const int64_t rows = a->n * a->kv_heads, tiles = tiles_of(a->tk, KEYS);
  const int64_t wanted = MAREA_MIN(PARTS, rows > 0 ? tiles_of(PARALLEL, rows) : 1);
  return MAREA_MAX(1, MAREA_MIN(wanted, tiles));
}

static scratch scratch_of (const backward *b, int worker) {
  const marea_attention *a = &b->a;
  scratch w = {0};
  uint16_t *at;
  w.turned_k = b->memory + (size_t)worker * b->per_worker;
  w.turned_v = w.turned_k + (size_t)(a->d * STEP) * a->size;
  w.s = w.turned_v + (size_t)(a->dv * STEP) * a->size;
  w.dp = w.s + QUERIES * STEP * a->size;
  w.keep = w.dp + QUERIES * STEP * a->size;
  w.k.x = w.keep + QUERIES * STEP * a->size;
  w.q.x = w.k.x + (size_t)(KEYS * MAREA_ATTENTION_ROW(a->d)) * a->size;
  w.dy.x = w.q.x + (size_t)(QUERIES * MAREA_ATTENTION_ROW(a->d)) * a->size;
  at = (uint16_t *)(void *)(w.dy.x + (size_t)(QUERIES * MAREA_ATTENTION_ROW(a->dv)) * a->size);
  marea_attention_narrow(a, KEYS, a->d, true, &w.k, &at);
  marea_attention_narrow(a, QUERIES, a->d, true, &w.q, &at);
  marea_attention_narrow(a, QUERIES, a->dv, true, &w.dy, &at);
  w.narrow = at;
  return w;
}

/* delta := sum(dy y) of the queries of one row of the batch and one head */
static void sum_delta (void *arg, int64_t block, int worker) {
  const backward *b = ((void **)arg)[0];
  const char *y = ((void **)arg)[1];
  const marea_attention *a = &b->a;
  (void)worker;
  for (int64_t i = 0; i < a->tq && !MAREA_STOPPING(a->ctx, i); i++)
    marea_store(a->dtype, b->delta, block * a->tq + i,
                a->kernels->dot((size_t)a->dv,
                                marea_query_at(a, y, block / a->heads, i, block % a->heads, a->dv),
                                marea_query_at(a, b->dy, block / a->heads, i, block % a->heads, a->dv)));
}

/* Where part `part` sums dq */
static char *dq_of (const backward *b, int64_t part) {
  const marea_attention *a = &b->a;
  return part == 0 ? b->d[DQ] : b->parts + (size_t)((part - 1) * a->n * a->tq * a->heads * a->d) * a->size;
}

/* dS from P and the gradient of P, which need k and v turned; the gradient of the mask is dS */
static void tile_gradients (const backward *b, const marea_attention_tile *t, scratch *w) {
  const marea_attention *a = &b->a;
  const int64_t at = (t->n * a->heads + t->head) * a->tq + t->queries.first;
  const int64_t rows = t->queries.end - t->queries.first, keys = t->keys.end - t->keys.first;
  marea_attention_pack_queries(a, t, a->q, a->d, a->scale, &w->q);
  marea_attention_pack_queries(a, t, b->dy, a->dv, 1, &w->dy);
  marea_attention_dots(a, t, a->d, &w->q, 0, w->turned_k, w->s);
  marea_attention_mask(a, t, w->s);
  marea_attention_dots(a, t, a->dv, &w->dy, 0, w->turned_v, w->dp);
  if (a->rate > 0) marea_attention_drop(a, t, b->ones, w->keep);
  a->kernels->softmax_piece_grad((size_t)rows, (size_t)keys, STEP, w->s, w->dp, a->rate > 0 ? w->keep : NULL,
                                 b->lse + (size_t)at * a->size, b->delta + (size_t)at * a->size);
  if (b->d[DMASK])
    a->kernels->copy_rows((size_t)rows, (size_t)keys, STEP, w->dp, (size_t)a->tk,
                          b->d[DMASK] + (size_t)(at * a->tk + t->keys.first) * a->size);
}

static void add_tile (const backward *b, const marea_attention_tile *t, const scratch *w, char *dq) {
  const marea_attention *a = &b->a;
  const int64_t first = t->keys.first;
  marea_attention_product p = {.rows = t->queries.end - t->queries.first,
                               .depth = t->keys.end - first,
                               .turned = true,
                               .narrow = w->narrow};
  if (b->d[DV]) {
    p.cols = a->dv, p.x = w->s, p.w = &w->dy, p.y_row = a->kv_heads * a->dv;
    p.y = marea_key_at(a, b->d[DV], t->n, first, t->head, a->dv);
    marea_attention_multiply(a, &p);
  }
  p.cols = a->d, p.x = w->dp;
  if (b->d[DK]) {
    p.w = &w->q, p.y_row = a->kv_heads * a->d;
    p.y = marea_key_at(a, b->d[DK], t->n, first, t->head, a->d);
    marea_attention_multiply(a, &p);
  }
  if (b->d[DQ]) {
    p.w = &w->k, p.y_row = a->heads * a->d, p.turned = false;
    p.y = marea_query_at(a, dq, t->n, t->queries.first, t->head, a->d);
    marea_attention_multiply(a, &p);
  }
}

/* All queries that see the tile's keys */
static void add_keys (const backward *b, marea_attention_tile t, scratch *w, char *dq) {
  const marea_attention *a = &b->a;
  const int64_t group = a->heads / a->kv_heads, head = t.head;
  marea_attention_tile strip;
  t.queries = (marea_range){0, a->tq};
  marea_attention_turn(a, &t, a->k, a->d, w->narrow, w->turned_k);
  marea_attention_turn(a, &t, a->v, a->dv, w->narrow, w->turned_v);
  marea_attention_pack_keys(a, &t, a->k, a->d, a->scale, &w->k);
  for (t.head = head; t.head < head + group; t.head++)
    for (int64_t i = 0; marea_attention_strip(a, &t, i, &strip); i = strip.queries.end) {
      if (marea_stopping(a->ctx)) return;
      tile_gradients(b, &strip, w);
      add_tile(b, &strip, w, dq);
    }
}

static void run_part (void *arg, int64_t block, int worker) {
  const backward *b = arg;
  const marea_attention *a = &b->a;
  const int64_t part = block % b->n_parts, tiles = tiles_of(a->tk, KEYS),
                n = block / b->n_parts / a->kv_heads,
                head = block / b->n_parts % a->kv_heads * (a->heads / a->kv_heads);
  const marea_range mine = {part * tiles / b->n_parts, (part + 1) * tiles / b->n_parts};
  scratch w = scratch_of(b, worker);
  const int64_t seen = marea_attention_keys(a, n, a->tq);
  char *dq = dq_of(b, part);
  for (int64_t j = mine.first; j < mine.end && j * KEYS < seen && !marea_stopping(a->ctx); j++)
    add_keys(b, (marea_attention_tile){.n = n, .head = head, .keys = tile_range(j, KEYS, seen)}, &w, dq);
}

/* dq := the sum of the parts, for one query of the batch */
static void finish_dq (void *arg, int64_t block, int worker) {
  const backward *b = arg;
  const marea_attention *a = &b->a;
  const int64_t width = a->heads * a->d;
  const size_t at = (size_t)(block * width) * a->size;
  (void)worker;
  for (int64_t part = 1; part < b->n_parts; part++)
    a->kernels->add((size_t)width, b->d[DQ] + at, 1, dq_of(b, part) + at, 1, b->d[DQ] + at, NULL);
}

static void fill_ones (const marea_attention *a, char *ones) {
  for (int64_t i = 0; i < QUERIES * STEP; i++) marea_store(a->dtype, ones, i, 1);
}

static size_t parts_size (const backward *b) {
  return (size_t)((b->n_parts - 1) * b->a.n * b->a.heads * b->a.tq * b->a.d);
}

static marea_status backward_memory (marea_call *c, backward *b) {
  const marea_attention *a = &b->a;
  const int64_t queries = a->n * a->heads * a->tq;
  MAREA_WORKSPACE_OR_RETURN(c, b->delta, (size_t)MAREA_MAX(queries, 1) * a->size);
  MAREA_WORKSPACE_OR_RETURN(c, b->ones, QUERIES * STEP * a->size);
  if (!c->ctx->shape_only) fill_ones(a, b->ones);
  b->n_parts = parts_of(a);
  if (b->d[DQ] && b->n_parts > 1)
    MAREA_WORKSPACE_OR_RETURN(c, b->parts, MAREA_MAX(parts_size(b), 1) * a->size);
  b->per_worker = (size_t)((a->d + a->dv + 3 * QUERIES) * STEP +
                           (KEYS + QUERIES) * MAREA_ATTENTION_ROW(a->d) +
                           QUERIES * MAREA_ATTENTION_ROW(a->dv)) *
                      a->size +
                  narrow_size_back(a) * sizeof(uint16_t);
  MAREA_TRY(marea_worker_memory(c, &b->per_worker, &b->memory));
  for (int worker = 0; worker < c->ctx->threads && !c->ctx->shape_only; worker++) {
    const scratch w = scratch_of(b, worker);
    marea_attention_clear(a, MAREA_MIN(KEYS, a->tk), a->d, &w.k);
    marea_attention_clear(a, MAREA_MIN(QUERIES, a->tq), a->d, &w.q);
    marea_attention_clear(a, MAREA_MIN(QUERIES, a->tq), a->dv, &w.dy);
  }
  return MAREA_OK;
}

static marea_status attention_grad_forward (marea_call *c) {
  backward b = {.lse = marea_at(c->in[G_LSE]), .dy = marea_at(c->in[G_DY])};
  marea_attention *a = &b.a;
  for (int i = DQ; i <= DMASK; i++) b.d[i] = c->attr[WANT_DQ + i].i ? marea_at(c->out[i]) : NULL;
  MAREA_TRY(marea_attention_open(c, a));
  a->counter = (uint64_t)c->attr[COUNTER].i;
  MAREA_TRY(backward_memory(c, &b));
  void *arg[] = {&b, marea_at(c->in[G_Y])};
  for (int i = DQ; i <= DMASK && !c->ctx->shape_only; i++)
    if (b.d[i]) marea_clear(c->ctx, b.d[i], (size_t)marea_tensor_size(c->out[i]) * a->size);
  if (b.parts && !c->ctx->shape_only) marea_clear(c->ctx, b.parts, parts_size(&b) * a->size);
  marea_parallel(c->ctx, a->n * a->heads, sum_delta, arg);
  marea_parallel(c->ctx, a->n * a->kv_heads * b.n_parts, run_part, &b);
  if (b.d[DQ] && b.n_parts > 1) marea_parallel(c->ctx, a->n * a->tq, finish_dq, &b);
  return MAREA_OK;
}

static double attention_grad_flop (const marea_call *c) {
  const double d = (double)c->in[MAREA_QKV_Q]->shape[3], dv = (double)c->in[MAREA_QKV_V]->shape[3];
  const bool q = c->attr[WANT_DQ].i, k = c->attr[WANT_DK].i, v = c->attr[WANT_DV].i;
  return 2.0 * (double)marea_attention_pairs(c) *
         (d * (1 + q + k) + dv * (v + (q || k || c->attr[WANT_DMASK].i)));
}

const marea_op marea_op_scaled_dot_product_attention_grad = {
    .name = "scaled_dot_product_attention_grad",
    .family = "attention",
    .doc = "The gradients of scaled_dot_product_attention to q, k, v and mask, the last one before it is "
           "summed to the "
           "mask's shape, from that of its result and from what it has kept: y, and lse (N, heads, Tq), the "
           "logarithm "
           "of the sum of a query's exponentials. Those that are not wanted are empty.",
    .inputs = {MAREA_QKV_INPUTS,
               {"y", "(N, Tq, heads, Dv)"},
               {"lse", "(N, heads, Tq)"},
               {"dy", "(N, Tq, heads, Dv)"}},
    .attrs = MAREA_ATTRS(MAREA_QKV_ATTRS,
                         {"counter", MAREA_INT, 0, NULL, "first Philox block of the dropout"},
                         {"dq", MAREA_BOOL, 1, NULL, "whether the gradient to q is computed"},
                         {"dk", MAREA_BOOL, 1, NULL, "to k"}, {"dv", MAREA_BOOL, 1, NULL, "to v"},
                         {"dmask", MAREA_BOOL, 0, NULL, "to the mask"}, MAREA_PRODUCTS),
    .flags = MAREA_SHAPE_ONLY | MAREA_NO_GRAD,
    .shape = attention_grad_shape,
    .forward = attention_grad_forward,
    .flop = attention_grad_flop,
    .sample = MAREA_QKV_SAMPLE
    "inputs[6], inputs[7], inputs[8] = w(n, tq, h, dv), g.tensor({n, h, tq}, {lo "
    "= 1, hi = 2}), w(n, tq, h, dv) "
    "local all = g.bool() local function want() return all or g.bool() end "
    "attrs.dq, attrs.dk, attrs.dv, attrs.dmask, attrs.counter = want(), want(), want(), want(), g.int(0, 9) "
    "return inputs, attrs",
};
