/* SPDX-License-Identifier: MIT
** additive.c: the weights of additive attention and their gradient (Bahdanau et al. 2015): with t = tanh(query_i + key_j),
**
**   w_i = softmax over j of sum_h v_h t_h        ds = w (dw - sum(w dw))
**   dquery_i = sum_j ds_ij v (1 - t^2)           dkey_j = sum_i of the same           dv = sum_ij ds_ij t
**
** t is made again backward, so nothing of the size (N, Tq, Tk, H) exists.
*/
#include <math.h>
#include <string.h>

#include "ops/vjp.h"
#include "tile.h"

enum { QUERY, KEY, V, LENGTHS, WEIGHTS, DY }; /* ORDER of inputs; the last two of the gradient */
enum { DQUERY, DKEY, DV };                    /* ORDER of its results */

#define INPUTS                                                    \
  {"query", "(N, Tq, H)"}, {"key", "(N, Tk, H)"}, {"v", "(H)"}, { \
    "lengths", "(N) keys of each row", .optional = true           \
  }
#define SAMPLE                                                                        \
  "local s = g.shape(3, 3, 0, 4) local n, tq, tk, h = s[1], s[2], s[3], g.int(0, 5) " \
  "local function w(...) return g.tensor({...}, {lo = -1, hi = 1}) end "              \
  "local lengths if g.bool() then lengths = g.tensor({n}, {dtype = 'i64', lo = 0, hi = tk}) end "

typedef struct additive {
  marea_context *ctx;
  const marea_kernels *kernels;
  int dtype;
  size_t size;
  int64_t n, tq, tk, h;
  const char *query, *key, *v, *weights, *dy;
  const int64_t *length; /* (N); NULL: all are Tk */
  char *y;               /* weights or, backward, ds: (N, Tq, Tk) */
  char *d[3], *parts;    /* dquery, dkey, dv; dv of each row of the batch (N, H) */
} additive;

static marea_status common_shape (marea_call *c) {
  const marea_tensor *query = c->in[QUERY];
  MAREA_TRY(marea_want_rank(c, QUERY, 3, "(N, Tq, H)"));
  MAREA_TRY(marea_want_rank(c, KEY, 3, "(N, Tk, H)"));
  MAREA_TRY(marea_want_rank(c, V, 1, "(H)"));
  for (int i = KEY; i <= V; i++) MAREA_TRY(marea_want_dtype(c, i, 1 << query->dtype));
  MAREA_TRY(marea_want_size(c, KEY, 0, query->shape[0], "query's first size"));
  MAREA_TRY(marea_want_size(c, KEY, 2, query->shape[2], "query's last size"));
  MAREA_TRY(marea_want_size(c, V, 0, query->shape[2], "query's last size"));
  return marea_attention_want_lengths(c, LENGTHS);
}

static marea_status open (marea_call *c, additive *a) {
  const marea_tensor *query = c->in[QUERY], *key = c->in[KEY];
  *a = (additive){.ctx = c->ctx,
                  .kernels = c->ctx->kernels[query->dtype],
                  .dtype = query->dtype,
                  .size = marea_element_size(query->dtype),
                  .n = query->shape[0],
                  .tq = query->shape[1],
                  .tk = key->shape[1],
                  .h = query->shape[2],
                  .query = marea_at(query),
                  .key = marea_at(key),
                  .v = marea_at(c->in[V])};
  return marea_attention_lengths(c, LENGTHS, a->tk, &a->length);
}

static int64_t length_of (const additive *a, int64_t n) { return a->length ? a->length[n] : a->tk; }

/* ---- additive_attention ---- */

static marea_status additive_shape (marea_call *c) {
  MAREA_TRY(common_shape(c));
  const int64_t *query = c->in[QUERY]->shape;
  marea_layout_set(&c->layout[0], c->in[QUERY]->dtype, 3,
                   (int64_t[]){query[0], query[1], c->in[KEY]->shape[1]});
  return MAREA_OK;
}

/* The weights of one query */
static void weigh (void *arg, int64_t block, int worker) {
  const additive *a = arg;
  const int64_t n = block / a->tq, keys = length_of(a, n);
  char *y = a->y + (size_t)(block * a->tk) * a->size;
  (void)worker;
  memset(y + (size_t)keys * a->size, 0, (size_t)(a->tk - keys) * a->size);
  if (keys == 0) return;
  a->kernels->tanh_dot((size_t)keys, (size_t)a->h, (size_t)a->h, a->query + (size_t)(block * a->h) * a->size,
                       a->key + (size_t)(n * a->tk * a->h) * a->size, a->v, y);
  const double sum = a->kernels->exp_sum((size_t)keys, a->kernels->max((size_t)keys, y), y, y);
  a->kernels->scale_normal((size_t)keys, 1 / sum, y, y);
}

static marea_status additive_forward (marea_call *c) {
  additive a;
  MAREA_TRY(open(c, &a));
  a.y = marea_at(c->out[0]);
  if (a.tk > 0) marea_parallel_if(c->ctx, a.n * a.tq * a.tk * a.h, a.n * a.tq, weigh, &a);
  return MAREA_OK;
}

#define TANH_FLOP 30 /* about so many operations */

static double additive_flop (const marea_call *c) {
  const int64_t *query = c->in[QUERY]->shape;
  return (TANH_FLOP + 3.0) * (double)(query[0] * query[1] * c->in[KEY]->shape[1]) * (double)query[2];
}

static marea_status additive_vjp (marea_vjp *v) {
  marea_tensor *in[] = {v->in[QUERY], v->in[KEY], v->in[V], v->n_in > LENGTHS ? v->in[LENGTHS] : NULL,
                        v->out[0],    v->dout[0]},
               *out[3];
  int n_out;
  MAREA_TRY(marea_invoke(v->ctx, &marea_op_additive_attention_grad, MAREA_COUNT(in), in, NULL, out, &n_out));
  for (int i = 0; i < n_out; i++) {
    if (v->need[i]) v->din[i] = out[i];
    else marea_release(out[i]);
  }
  return MAREA_OK;
}

const marea_op marea_op_additive_attention = {
    .name = "additive_attention",
    .family = "attention",
    .doc = "y[n, i, :] = softmax over j of sum_h v[h] tanh(query[n, i, h] + key[n, j, h]): the weights of "
           "additive "
           "attention; y:matmul(values) is the context. query: (N, Tq, H); key: (N, Tk, H); v: (H); lengths: "
           "i64 or "
           "u8 (N), keys from there on have weight 0 and reach nothing; y: (N, Tq, Tk). A row of no keys "
           "gives 0. "
           "Gradient: to query, key and v, once. Errors: sizes that do not fit, a length out of range (the "
           "first row "
           "is named). Source: Bahdanau et al. 2015.",
    .inputs = {INPUTS},
    .saves_in = 0xf,
    .saves_out = 1,
    .flags = MAREA_SHAPE_ONLY | MAREA_WIDE,
    .once = "tanh, softmax and matmul",
    .shape = additive_shape,
    .forward = additive_forward,
    .vjp = additive_vjp,
    .flop = additive_flop,
    .sample = SAMPLE "return {w(n, tq, h), w(n, tk, h), w(h), lengths}",
};

/* ---- additive_attention_grad ---- */

static marea_status additive_grad_shape (marea_call *c) {
  MAREA_TRY(common_shape(c));
  const marea_tensor *query = c->in[QUERY];
  const int64_t y[] = {query->shape[0], query->shape[1], c->in[KEY]->shape[1]};
  for (int i = WEIGHTS; i <= DY; i++)
    if (c->in[i]->dtype != query->dtype || !marea_has_shape(c->in[i], 3, y))
      return marea_reject(c, MAREA_ESHAPE, "argument '%s': expected %s %s, got %s",
                          marea_input_name(c->op, i), marea_dtype_name((marea_dtype)query->dtype),
                          marea_shape_text(3, y).s, marea_tensor_text(c->in[i]).s);
  c->n_out = 3;
  for (int i = DQUERY; i <= DV; i++) marea_layout_like(&c->layout[i], c->in[i]);
  return MAREA_OK;
}

/* ds of one query */
static void score_grad (void *arg, int64_t block, int worker) {
  const additive *a = arg;
  const size_t keys = (size_t)length_of(a, block / a->tq), at = (size_t)(block * a->tk) * a->size;
  const char *w = a->weights + at, *dy = a->dy + at;
  double mean; /* room for a number of any dtype */
  (void)worker;
  marea_store(a->dtype, &mean, 0, a->kernels->dot(keys, w, dy));
  a->kernels->sub(keys, dy, 1, &mean, 0, a->y + at, NULL);
  a->kernels->mul(keys, a->y + at, 1, w, 1, a->y + at, NULL);
}

#define COLUMNS 64 /* of H in a block: they do not depend on each other */

/* Some columns of the gradients of a row of the batch */
static void column_grad (void *arg, int64_t block, int worker) {
  const additive *a = arg;
  const int64_t blocks = (a->h + COLUMNS - 1) / COLUMNS, n = block / blocks, first = block % blocks * COLUMNS;
  const size_t width = (size_t)MAREA_MIN(COLUMNS, a->h - first), h = (size_t)a->h, bytes = width * a->size;
  const size_t key = (size_t)(n * a->tk * a->h + first) * a->size;
  char *dv = a->parts + (size_t)(n * a->h + first) * a->size;
  (void)worker;
  memset(dv, 0, bytes);
  for (int64_t j = 0; j < a->tk; j++) memset(a->d[DKEY] + key + (size_t)j * h * a->size, 0, bytes);
  for (int64_t i = n * a->tq; i < (n + 1) * a->tq; i++) {
    const size_t query = (size_t)(i * a->h + first) * a->size;
    if (marea_stopping(a->ctx)) return;
    a->kernels->tanh_dot_grad((size_t)length_of(a, n), width, h, a->query + query, a->key + key,
                              a->v + (size_t)first * a->size, a->y + (size_t)(i * a->tk) * a->size,
                              a->d[DQUERY] + query, a->d[DKEY] + key, dv);
  }
}

static void sum_v (void *arg, int64_t block, int worker) {
  const additive *a = arg;
  (void)block;
  (void)worker;
  memset(a->d[DV], 0, (size_t)a->h * a->size);
  a->kernels->add_rows((size_t)a->n, (size_t)a->h, (size_t)a->h, a->parts, a->d[DV]);
}

static marea_status additive_grad_forward (marea_call *c) {
  additive a;
  MAREA_TRY(open(c, &a));
  a.weights = marea_at(c->in[WEIGHTS]);
  a.dy = marea_at(c->in[DY]);
  for (int i = DQUERY; i <= DV; i++) a.d[i] = marea_at(c->out[i]);
  MAREA_WORKSPACE_OR_RETURN(c, a.y, (size_t)MAREA_MAX(a.n * a.tq * a.tk, 1) * a.size);
  MAREA_WORKSPACE_OR_RETURN(c, a.parts, (size_t)MAREA_MAX(a.n * a.h, 1) * a.size);
  marea_parallel(c->ctx, a.n * a.tq, score_grad, &a);
  marea_parallel(c->ctx, a.n * ((a.h + COLUMNS - 1) / COLUMNS), column_grad, &a);
  marea_parallel(c->ctx, 1, sum_v, &a);
  return MAREA_OK;
}

const marea_op marea_op_additive_attention_grad = {
    .name = "additive_attention_grad",
    .family = "attention",
    .doc = "The gradients of additive_attention to query, key and v from that of its result and the result "
           "itself.",
    .inputs = {INPUTS, {"weights", "(N, Tq, Tk)"}, {"dy", "(N, Tq, Tk)"}},
    .flags = MAREA_SHAPE_ONLY | MAREA_NO_GRAD,
    .shape = additive_grad_shape,
    .forward = additive_grad_forward,
    .flop = additive_flop,
    .sample = SAMPLE "return {w(n, tq, h), w(n, tk, h), w(h), lengths, w(n, tq, tk), w(n, tq, tk)}",
};
