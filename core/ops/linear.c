/* SPDX-License-Identifier: MIT
** linear.c: dense products. Both operators end in marea_gemm (blas.c); what is here is the cutting of batches
** into products, and the bias and activation behind them.
*/
#include "vjp.h"

/* ---- matmul ---- */

/* An operand as a batch of matrices. A vector gets a dimension of 1, which is dropped from the result. */
typedef struct matrices {
  int64_t rows, cols;   /* as stored */
  int lead;             /* leading dimensions */
  const int64_t *shape; /* of them */
  bool transposed, vector;
} matrices;

static marea_status read_matrices (marea_call *c, int input, matrices *m) {
  const marea_tensor *t = c->in[input];
  const char *name = c->op->inputs[input].name;
  m->transposed = c->attr[input].i != 0;
  m->vector = t->rank == 1;
  m->shape = t->shape;
  if (t->rank == 0) return marea_reject(c, MAREA_ESHAPE, "argument '%s' is a scalar; see mul", name);
  if (m->vector && m->transposed)
    return marea_reject(c, MAREA_ESHAPE, "argument 'transpose_%s': %s %s has one dimension", name, name,
                        marea_tensor_text(t).s);
  m->lead = m->vector ? 0 : t->rank - 2;
  m->rows = m->vector ? (input == 0 ? 1 : t->shape[0]) : t->shape[t->rank - 2];
  m->cols = m->vector ? (input == 0 ? t->shape[0] : 1) : t->shape[t->rank - 1];
  return MAREA_OK;
}

typedef struct product {
  matrices a, b;
  int64_t m, n, k;
  int lead; /* leading dimensions of the result, broadcast */
  int64_t shape[MAREA_MAX_RANK];
} product;

static int64_t lead_size (const matrices *m, int lead, int d) {
  const int own = d - (lead - m->lead);
  return own < 0 ? 1 : m->shape[own];
}

static marea_status read_product (marea_call *c, product *p) {
  MAREA_TRY(read_matrices(c, 0, &p->a));
  MAREA_TRY(read_matrices(c, 1, &p->b));
  p->m = p->a.transposed ? p->a.cols : p->a.rows;
  p->k = p->a.transposed ? p->a.rows : p->a.cols;
  p->n = p->b.transposed ? p->b.rows : p->b.cols;
  const int64_t inner = p->b.transposed ? p->b.cols : p->b.rows;
  if (inner != p->k)
    return marea_reject(c, MAREA_ESHAPE, "%s%s x %s%s: inner sizes %lld and %lld differ",
                        marea_tensor_text(c->in[0]).s, p->a.transposed ? " transposed" : "",
                        marea_tensor_text(c->in[1]).s, p->b.transposed ? " transposed" : "", (long long)p->k,
                        (long long)inner);
  p->lead = MAREA_MAX(p->a.lead, p->b.lead);
  for (int d = 0; d < p->lead; d++) {
    const int64_t sa = lead_size(&p->a, p->lead, d), sb = lead_size(&p->b, p->lead, d);
    if (sa != sb && sa != 1 && sb != 1)
      return marea_reject(c, MAREA_ESHAPE, "%s x %s: leading sizes %lld and %lld do not broadcast",
                          marea_tensor_text(c->in[0]).s, marea_tensor_text(c->in[1]).s, (long long)sa,
                          (long long)sb);
    p->shape[d] = sa == 1 ? sb : sa;
  }
  return MAREA_OK;
}

static marea_status matmul_shape (marea_call *c) {
  product p;
  MAREA_TRY(marea_want_dtype(c, 1, 1 << c->in[0]->dtype));
  MAREA_TRY(read_product(c, &p));
  int rank = p.lead;
  if (!p.a.vector) p.shape[rank++] = p.m;
  if (!p.b.vector) p.shape[rank++] = p.n;
  marea_layout_set(&c->layout[0], c->in[0]->dtype, rank, p.shape);
  return MAREA_OK;
}

typedef struct batch {
  marea_context *ctx;
  const product *p;
  int dtype;
  size_t size;
  const char *a, *b;
  char *c;
} batch;

/* Position of matrix i of the result's batch in an operand's batch. */
static int64_t matrix_at (const product *p, const matrices *m, int64_t i) {
  int64_t at = 0, step = 1;
  for (int d = p->lead - 1; d >= 0; d--) {
    const int64_t size = lead_size(m, p->lead, d);
    if (size != 1) at += i % p->shape[d] * step;
    step *= size;
    i /= p->shape[d];
  }
  return at;
}

static void multiply_one (void *arg, int64_t i, int worker) {
  const batch *s = arg;
  const product *p = s->p;
  (void)worker;
  marea_gemm(s->ctx, s->dtype, p->a.transposed, p->b.transposed, p->m, p->n, p->k,
             s->a + (size_t)(matrix_at(p, &p->a, i) * p->m * p->k) * s->size,
             s->b + (size_t)(matrix_at(p, &p->b, i) * p->k * p->n) * s->size,
             s->c + (size_t)(i * p->m * p->n) * s->size);
}

/* One matrix b for all of a: the batch is one tall matrix. */
static bool is_tall (const product *p) {
  return !p->a.transposed && (p->b.lead == 0 || marea_count(p->b.lead, p->b.shape) == 1);
}

static marea_status matmul_forward (marea_call *c) {
  product p;
  MAREA_TRY(read_product(c, &p));
  const marea_tensor *out = c->out[0];
  const size_t size = marea_dtype_size((marea_dtype)out->dtype);
  const int64_t count = marea_count(p.lead, p.shape);
  if (count * p.m * p.n == 0) return MAREA_OK;
  if (p.k == 0) {
    if (!c->ctx->shape_only) memset(marea_at(out), 0, (size_t)(count * p.m * p.n) * size);
    return MAREA_OK;
  }
  batch s = {c->ctx, &p, out->dtype, size, marea_at(c->in[0]), marea_at(c->in[1]), marea_at(out)};
  if (is_tall(&p)) {
    return marea_gemm_parallel(c->ctx, s.dtype, false, p.b.transposed, count * p.m, p.n, p.k, s.a, s.b, NULL,
                               s.c);
  } else if (count >= 4 && s.dtype != MAREA_BF16) {
    marea_parallel_if(c->ctx, count * (p.m * p.n * p.k / 8 + p.m * p.k + p.k * p.n), count, multiply_one, &s);
  } else {
    for (int64_t i = 0; i < count; i++)
      MAREA_TRY(marea_gemm_parallel(c->ctx, s.dtype, p.a.transposed, p.b.transposed, p.m, p.n, p.k,
                                    s.a + (size_t)(matrix_at(&p, &p.a, i) * p.m * p.k) * size,
                                    s.b + (size_t)(matrix_at(&p, &p.b, i) * p.k * p.n) * size, NULL,
                                    s.c + (size_t)(i * p.m * p.n) * size));
  }
  return MAREA_OK;
}

static marea_status multiply (marea_tensor *a, marea_tensor *b, bool ta, bool tb, marea_tensor **out) {
  marea_attr attr[] = {marea_attr_int(ta), marea_attr_int(tb)};
  return marea_run_with(a->ctx, &marea_op_matmul, attr, out, 2, a, b);
}

/* *out := t, of rank >= 2, under x's shape: summed over what was broadcast, without the 1 of a vector. */
static marea_status to_operand (marea_tensor *t, const marea_tensor *x, bool column, marea_tensor **out) {
  int64_t shape[MAREA_MAX_RANK];
  int rank = x->rank;
  memcpy(shape, x->shape, sizeof shape);
  if (rank == 1) {
    rank = 2;
    shape[0] = column ? x->shape[0] : 1;
    shape[1] = column ? 1 : x->shape[0];
  }
  if (t->rank == x->rank && memcmp(t->shape, x->shape, sizeof *shape * (size_t)rank) == 0) {
    *out = marea_retain(t);
    return MAREA_OK;
  }
  MAREA_OWN sum = NULL;
  marea_attr a = marea_attr_list(rank, shape);
  MAREA_TRY(marea_run_with(t->ctx, &marea_op_sum_to, &a, &sum, 1, t));
  return marea_reshape_to(sum, x->rank, x->shape, out);
}

/* *out := x as a matrix of `cols` columns when `flat`, else as it is with a vector made a matrix */
static marea_status as_matrix (marea_tensor *x, bool flat, int64_t cols, bool column, marea_tensor **out) {
  if (flat) {
    const int64_t rows = marea_count(x->rank - 1, x->shape);
    return marea_reshape_to(x, 2, (int64_t[]){rows, cols}, out);
  }
  if (x->rank == 1)
    return marea_reshape_to(x, 2, (int64_t[]){column ? x->shape[0] : 1, column ? 1 : x->shape[0]}, out);
  *out = marea_retain(x);
  return MAREA_OK;
}

/* *out := dy with the dimensions of 1 that vectors had dropped */
static marea_status full_gradient (marea_vjp *v, marea_tensor **out) {
  marea_tensor *dy = v->dout[0];
  int64_t shape[MAREA_MAX_RANK];
  const bool row = v->in[0]->rank == 1, column = v->in[1]->rank == 1;
  if (!row && !column) {
    *out = marea_retain(dy);
    return MAREA_OK;
  }
  const int lead = dy->rank - !row - !column;
  memcpy(shape, dy->shape, sizeof *shape * (size_t)lead);
  shape[lead] = row ? 1 : dy->shape[lead];
  shape[lead + 1] = column ? 1 : dy->shape[dy->rank - 1];
  return marea_reshape_to(dy, lead + 2, shape, out);
}

/* C = op(A) op(B):  dA = dC op(B)^T, dB = op(A)^T dC, each turned round when its operand is stored
   transposed. */
static marea_status matmul_vjp (marea_vjp *v) {
  const bool ta = v->attr[0].i != 0, tb = v->attr[1].i != 0;
  const bool flat = !ta && v->in[1]->rank == 2 && v->in[0]->rank > 2; /* one matrix b for the whole batch */
  MAREA_OWN a = NULL;
  MAREA_OWN b = NULL;
  MAREA_OWN full = NULL;
  MAREA_OWN dc = NULL;
  MAREA_OWN da = NULL;
  MAREA_OWN db = NULL;
  MAREA_TRY(full_gradient(v, &full));
  MAREA_TRY(as_matrix(full, flat, full->shape[full->rank - 1], false, &dc));
  if (v->need[0]) {
    MAREA_TRY(as_matrix(v->in[1], false, 0, true, &b));
    MAREA_TRY(ta ? multiply(b, dc, tb, true, &da) : multiply(dc, b, false, !tb, &da));
    if (flat) MAREA_TRY(marea_reshape_to(da, v->in[0]->rank, v->in[0]->shape, &v->din[0]));
    else MAREA_TRY(to_operand(da, v->in[0], false, &v->din[0]));
  }
  if (v->need[1]) {
    MAREA_TRY(as_matrix(v->in[0], flat, v->in[0]->shape[v->in[0]->rank - 1], false, &a));
    MAREA_TRY(tb ? multiply(dc, a, true, ta, &db) : multiply(a, dc, !ta, false, &db));
    MAREA_TRY(to_operand(db, v->in[1], true, &v->din[1]));
  }
  return MAREA_OK;
}

static double matmul_flop (const marea_call *c) {
  const marea_tensor *a = c->in[0];
  const int64_t k = a->shape[a->rank - (c->attr[0].i ? 2 : 1)];
  return 2.0 * (double)marea_tensor_size(c->out[0]) * (double)k;
}

const marea_op marea_op_matmul = {
    .name = "matmul",
    .family = "linear",
    .doc = "Matrix product over the last two dimensions, leading ones broadcast as in NumPy: (.., m, k) x "
           "(.., k, n) -> (.., m, n). A vector a counts as (1, k), a vector b as (k, 1), and that 1 is "
           "dropped from the result. transpose_a: a is stored (.., k, m); transpose_b: b is stored (.., n, "
           "k). Gradient: da = dy b^T, db = a^T dy, summed over what was broadcast. Errors: inner sizes "
           "differ, leading sizes do not broadcast, a scalar.",
    .inputs = {{"a", "(.., m, k)"}, {"b", "(.., k, n)"}},
    .attrs = MAREA_ATTRS({"transpose_a", MAREA_BOOL, 0, NULL, "a is stored (.., k, m)"},
                         {"transpose_b", MAREA_BOOL, 0, NULL, "b is stored (.., n, k)"}),
    .saves_in = 3,
    .flags = MAREA_SHAPE_ONLY | MAREA_TAKES_BF16 | MAREA_LOWERS,
    .shape = matmul_shape,
    .forward = matmul_forward,
    .vjp = matmul_vjp,
    .flop = matmul_flop,
    .sample = "local m, k, n = g.int(0, 4), g.int(0, 4), g.int(0, 4)\nlocal ta, tb = g.bool(), g.bool()\n"
              "local lead = g.shape(0, 2)\n"
              "local a, b = g.broadcast(lead), lead\n"
              "if g.bool() then a, b = b, a end\n"
              "if g.int(1, 4) == 1 then a, ta = {k}, false elseif ta then a[#a + 1], a[#a + 2] = k, m "
              "else a[#a + 1], a[#a + 2] = m, k end\n"
              "if g.int(1, 4) == 1 then b, tb = {k}, false elseif tb then b[#b + 1], b[#b + 2] = n, k "
              "else b[#b + 1], b[#b + 2] = k, n end\n"
              "return {g.tensor(a), g.tensor(b)}, {transpose_a = ta, transpose_b = tb}",
};

/* ---- linear ---- */

enum { LINEAR_ACTIVATION, LINEAR_SLOPE }; /* ORDER of its attributes */

static marea_status linear_shape (marea_call *c) {
  const marea_tensor *x = c->in[0], *weight = c->in[1];
  MAREA_TRY(marea_want_dtype(c, 1, 1 << x->dtype));
  MAREA_TRY(marea_want_rank(c, 1, 2, "(in, out)"));
  if (x->rank == 0 || x->shape[x->rank - 1] != weight->shape[0])
    return marea_reject(c, MAREA_ESHAPE, "x %s: expected (.., %lld), because weight is %s",
                        marea_tensor_text(x).s, (long long)weight->shape[0], marea_tensor_text(weight).s);
  if (c->n_in > 2 && c->in[2]) {
    MAREA_TRY(marea_want_dtype(c, 2, 1 << x->dtype));
    MAREA_TRY(marea_want_rank(c, 2, 1, "(out)"));
    MAREA_TRY(marea_want_size(c, 2, 0, weight->shape[1], "weight's last size"));
  }
  MAREA_TRY(marea_want_slope(c, LINEAR_SLOPE));
  marea_layout_like(&c->layout[0], x);
  c->layout[0].shape[x->rank - 1] = weight->shape[1];
  return MAREA_OK;
}

static marea_status linear_forward (marea_call *c) {
  const marea_tensor *x = c->in[0], *weight = c->in[1], *y = c->out[0];
  const int64_t rows = marea_count(x->rank - 1, x->shape), in = weight->shape[0], out = weight->shape[1];
  const marea_epilogue end = {.bias = c->n_in > 2 && c->in[2] ? marea_at(c->in[2]) : NULL,
                              .act = (marea_activation)c->attr[LINEAR_ACTIVATION].i,
                              .slope = c->attr[LINEAR_SLOPE].f};
  return marea_gemm_part(c->ctx, y->dtype, false, false, rows, out, in, marea_at(x), marea_at(weight), &end,
                         marea_at(y), &(marea_gemm_layout){.keeps = c, .weight = 1});
}

static marea_status linear_vjp (marea_vjp *v) {
  marea_tensor *x = v->in[0];
  const int64_t rows = marea_count(x->rank - 1, x->shape), in = x->shape[x->rank - 1];
  const int64_t out = v->out[0]->shape[x->rank - 1];
  MAREA_OWN dpre = NULL;
  MAREA_OWN dflat = NULL;
  MAREA_OWN xflat = NULL;
  MAREA_TRY(marea_before_activation(v->dout[0], v->out[0], v->attr[LINEAR_ACTIVATION], v->attr[LINEAR_SLOPE],
                                    &dpre));
  if (v->need[0]) MAREA_TRY(multiply(dpre, v->in[1], false, true, &v->din[0]));
  if (!v->need[1] && !(v->n_in > 2 && v->need[2])) return MAREA_OK;
  MAREA_TRY(marea_reshape_to(dpre, 2, (int64_t[]){rows, out}, &dflat));
  if (v->n_in > 2 && v->need[2]) MAREA_TRY(marea_sum_first(dflat, 1, &v->din[2]));
  if (!v->need[1]) return MAREA_OK;
  MAREA_TRY(marea_reshape_to(x, 2, (int64_t[]){rows, in}, &xflat));
  return multiply(xflat, dflat, true, false, &v->din[1]);
}

static double linear_flop (const marea_call *c) {
  return 2.0 * (double)marea_tensor_size(c->out[0]) * (double)c->in[1]->shape[0];
}

const marea_op marea_op_linear = {
    .name = "linear",
    .family = "linear",
    .doc =
        "y = act(x weight + bias). x: (.., in); weight: (in, out), as in Keras; bias: (out); y: (.., out). "
        "Gradient, with d = dy * act'(y): dx = d weight^T, dweight = x^T d, dbias = sum of d over rows. "
        "Error: x's last size is not weight's first.",
    .inputs = {{"x", "(.., in)"}, {"weight", "(in, out)"}, {"bias", "(out)", .optional = true}},
    .attrs = MAREA_ATTRS({"activation", MAREA_ENUM, 0, MAREA_ACTIVATION_NAMES, "applied to the sum"},
                         {"slope", MAREA_REAL, MAREA_NONE, NULL, MAREA_SLOPE_DOC}),
    .saves_in = 3,
    .saves_out = 1,
    .flags = MAREA_SHAPE_ONLY | MAREA_TAKES_BF16 | MAREA_LOWERS,
    .shape = linear_shape,
    .forward = linear_forward,
    .vjp = linear_vjp,
    .flop = linear_flop,
    .sample = "local s, n = g.shape(1, 3), g.int(0, 5)\n"
              "return {g.tensor(s), g.tensor{s[#s], n}, g.bool() and g.tensor{n} or nil}, "
              "{activation = g.pick{'none', 'sigmoid', 'tanh', 'softplus'}}",
};
