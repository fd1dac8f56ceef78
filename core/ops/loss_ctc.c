/* SPDX-License-Identifier: MIT
** loss_ctc.c: connectionist temporal classification (Graves et al. 2006): minus the logarithm of the sum over all
** alignments of a row's labels with its steps. l' are the labels with a blank before, between and behind them, y the
** log-probabilities, all sums are of logarithms, in double:
**
**   alpha_t(s) = y_t(l'_s) + log sum of alpha_{t-1}(s), of s - 1, and of s - 2 where l'_s is a label unlike l'_{s-2}
**   beta_t(s)  = log sum of beta_{t+1}(s') + y_{t+1}(l'_s') over the s' that follow s in the same way
**   loss = -log sum of alpha_T over the last two s
**   dloss / dy_t(v) = -sum of exp(alpha_t(s) + beta_t(s) + loss) over the s with l'_s = v
**
** The gradient comes with the loss where calls are recorded, from one pass over a row, and is kept for the vjp. Lengths
** and labels are checked before anything is written.
*/
#include <math.h>
#include <string.h>

#include "reduction.h"
#include "vjp.h"

enum { LOG_PROBS, TARGETS, INPUT_LENGTHS, TARGET_LENGTHS }; /* ORDER of the inputs */
enum { CTC_BLANK, CTC_REDUCTION, CTC_ZERO_INFINITY };       /* ORDER of the attributes */
enum { LOSS, POSTERIOR }; /* ORDER of the results; the second one for the vjp */

typedef struct ctc {
  marea_context *ctx;
  int64_t n, steps, classes, most; /* (N, T, V); S */
  int64_t base, blank;
  bool zero_infinity;
  reduction how;
  const marea_tensor *y, *target, *input, *length;
  bool with_gradient; /* else the posterior is zeros, which nobody reads */
  char *loss, *posterior;
  double *each; /* (N), of 'mean' and 'sum' */
  char *memory;
  size_t per_worker;
} ctc;

typedef struct row {
  int64_t n, steps, states; /* states: of l' */
  double *alpha;            /* (T, states) */
} row;

static int64_t integer (const marea_tensor *t, int64_t i) {
  return marea_load_integer(t->dtype, marea_at(t), i);
}

/* ---- checks ---- */

static marea_status check_length (marea_call *c, const ctc *p, int input, int64_t n, int64_t most,
                                  const char *of) {
  const int64_t length = integer(c->in[input], n);
  if (length >= 0 && length <= most) return MAREA_OK;
  return marea_reject(c, MAREA_EARG, "argument '%s': row %lld has length %lld, expected 0 to %lld, the %s",
                      marea_input_name(c->op, input), (long long)(n + p->base), (long long)length,
                      (long long)most, of);
}

static marea_status check_row (marea_call *c, const ctc *p, int64_t n) {
  MAREA_TRY(check_length(c, p, INPUT_LENGTHS, n, p->steps, "steps of log_probs"));
  MAREA_TRY(check_length(c, p, TARGET_LENGTHS, n, p->most, "columns of targets"));
  for (int64_t i = 0; i < integer(p->length, n); i++) {
    const int64_t label = integer(p->target, n * p->most + i);
    const long long at[] = {n + p->base, i + p->base};
    if (label < p->base || label >= p->base + p->classes)
      return marea_reject(c, MAREA_EARG,
                          "label %lld at {%lld, %lld} is out of range, expected %lld..%lld for %lld classes",
                          (long long)label, at[0], at[1], (long long)p->base,
                          (long long)(p->base + p->classes - 1), (long long)p->classes);
    if (label == p->blank)
      return marea_reject(c, MAREA_EARG, "label %lld at {%lld, %lld} is the blank", (long long)label, at[0],
                          at[1]);
  }
  return MAREA_OK;
}

static marea_status ctc_shape (marea_call *c) {
  const marea_tensor *y = c->in[LOG_PROBS];
  MAREA_TRY(marea_want_rank(c, LOG_PROBS, 3, "(N, T, V)"));
  MAREA_TRY(marea_want_rank(c, TARGETS, 2, "(N, S)"));
  for (int i = TARGETS; i <= TARGET_LENGTHS; i++) {
    MAREA_TRY(marea_want_dtype(c, i, MAREA_INTS));
    if (i > TARGETS) MAREA_TRY(marea_want_rank(c, i, 1, "(N)"));
    MAREA_TRY(marea_want_size(c, i, 0, y->shape[0], "the rows of log_probs"));
  }
  const int64_t base = c->ctx->config.index_base, classes = y->shape[2];
  marea_attr *blank = &c->attr[CTC_BLANK];
  if (classes < 1)
    return marea_reject(c, MAREA_ESHAPE, "log_probs %s has no classes", marea_tensor_text(y).s);
  if (blank->i == INT64_MIN) *blank = marea_attr_int(base);
  if (blank->i < base || blank->i >= base + classes)
    return marea_reject(c, MAREA_EARG, "argument 'blank': %lld is out of range, expected %lld..%lld",
                        (long long)blank->i, (long long)base, (long long)(base + classes - 1));
  c->n_out = 2;
  marea_layout_set(&c->layout[LOSS], y->dtype, c->attr[CTC_REDUCTION].i == NONE ? 1 : 0, y->shape);
  marea_layout_like(&c->layout[POSTERIOR], y);
  return MAREA_OK;
}

/* ---- one row ---- */

static double log_add (double a, double b) {
  if (a == -INFINITY) return b;
  if (b == -INFINITY) return a;
  return a > b ? a + log1p(exp(b - a)) : b + log1p(exp(a - b));
}

/* l'_s, from 0 on */
static int64_t label_of (const ctc *p, const row *r, int64_t s) {
  return (s % 2 == 0 ? p->blank : integer(p->target, r->n * p->most + s / 2)) - p->base;
}

static bool skips (const ctc *p, const row *r, int64_t s) {
  return s % 2 == 1 && s > 1 && label_of(p, r, s) != label_of(p, r, s - 2);
}

static int64_t place_of (const ctc *p, const row *r, int64_t t, int64_t s) {
  return (r->n * p->steps + t) * p->classes + label_of(p, r, s);
}

static double log_prob (const ctc *p, const row *r, int64_t t, int64_t s) {
  return marea_load(p->y->dtype, marea_at(p->y), place_of(p, r, t, s));
}

static void compute_alpha (const ctc *p, const row *r) {
  for (int64_t t = 0; t < r->steps && !marea_stopping(p->ctx); t++) {
    double *now = r->alpha + t * r->states, *before = now - r->states;
    for (int64_t s = 0; s < r->states; s++) {
      double sum = t == 0 && s < 2 ? 0 : -INFINITY;
      if (t > 0) sum = before[s];
      if (t > 0 && s > 0) sum = log_add(sum, before[s - 1]);
      if (t > 0 && skips(p, r, s)) sum = log_add(sum, before[s - 2]);
      now[s] = sum == -INFINITY ? sum : sum + log_prob(p, r, t, s);
    }
  }
}

static double loss_of (const row *r) {
  if (r->steps == 0) return r->states == 1 ? 0 : INFINITY;
  const double *last = r->alpha + r->steps * r->states;
  return -(r->states == 1 ? last[-1] : log_add(last[-1], last[-2]));
}

/* `beta`: two rows of states. */
static void compute_posterior (const ctc *p, const row *r, double *beta, double loss, double share) {
  double *now = beta, *next = beta + r->states;
  for (int64_t t = r->steps - 1; t >= 0 && !marea_stopping(p->ctx); t--) {
    for (int64_t s = 0; s < r->states; s++) {
      double sum = t == r->steps - 1 && s >= r->states - 2 ? 0 : -INFINITY;
      for (int64_t k = s; k <= s + 2 && k < r->states && t < r->steps - 1; k++)
        if (next[k] != -INFINITY && (k < s + 2 || skips(p, r, k)))
          sum = log_add(sum, next[k] + log_prob(p, r, t + 1, k));
      now[s] = sum;
      const int64_t at = place_of(p, r, t, s);
      const double part = share * exp(r->alpha[t * r->states + s] + sum + loss);
      marea_store(p->y->dtype, p->posterior, at, marea_load(p->y->dtype, p->posterior, at) - part);
    }
    double *other = now;
    now = next;
    next = other;
  }
}

static void compute_row (void *arg, int64_t n, int worker) {
  const ctc *p = arg;
  const int64_t labels = integer(p->length, n);
  double *memory = (double *)(p->memory + (size_t)worker * p->per_worker);
  const row r = {n, integer(p->input, n), 2 * labels + 1, memory + 2 * (2 * p->most + 1)};
  const size_t bytes = (size_t)(p->steps * p->classes) * marea_dtype_size((marea_dtype)p->y->dtype);
  const double share = p->how == MEAN ? 1 / (double)(MAREA_MAX(labels, 1) * p->n) : 1;
  memset(p->posterior + (size_t)n * bytes, 0, bytes);
  compute_alpha(p, &r);
  double loss = loss_of(&r);
  if (p->with_gradient && loss != INFINITY) compute_posterior(p, &r, memory, loss, share);
  if (loss == INFINITY && p->zero_infinity) loss = 0;
  if (p->how == NONE) marea_store(p->y->dtype, p->loss, n, loss);
  else p->each[n] = loss * share;
}

static marea_status ctc_forward (marea_call *c) {
  const marea_tensor *y = c->in[LOG_PROBS];
  ctc p = {.ctx = c->ctx,
           .n = y->shape[0],
           .steps = y->shape[1],
           .classes = y->shape[2],
           .most = c->in[TARGETS]->shape[1],
           .base = c->ctx->config.index_base,
           .blank = c->attr[CTC_BLANK].i,
           .zero_infinity = c->attr[CTC_ZERO_INFINITY].i != 0,
           .how = (reduction)c->attr[CTC_REDUCTION].i,
           .y = y,
           .target = c->in[TARGETS],
           .input = c->in[INPUT_LENGTHS],
           .length = c->in[TARGET_LENGTHS],
           .loss = marea_at(c->out[LOSS]),
           .with_gradient = c->ctx->recording,
           .posterior = marea_at(c->out[POSTERIOR])};
  double total = 0;
  for (int64_t n = 0; n < p.n && !MAREA_STOPPING(c->ctx, n); n++) MAREA_TRY(check_row(c, &p, n));
  if (p.n > 0) {
    const int64_t sizes[] = {p.steps + 2, 2 * p.most + 1};
    MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, sizes, sizeof(double), &p.per_worker));
    MAREA_TRY(marea_worker_memory(c, &p.per_worker, &p.memory));
    if (p.how != NONE) MAREA_WORKSPACE_OR_RETURN(c, p.each, (size_t)p.n * sizeof *p.each);
    marea_parallel(c->ctx, p.n, compute_row, &p);
  }
  if (p.how == NONE || marea_stopping(c->ctx)) return MAREA_OK;
  for (int64_t n = 0; n < p.n; n++) total += p.each[n];
  marea_store(y->dtype, p.loss, 0, total);
  return MAREA_OK;
}

static marea_status ctc_vjp (marea_vjp *v) {
  return marea_run(v->ctx, &marea_op_ctc_loss_grad, &v->din[0], 2, v->dout[LOSS], v->out[POSTERIOR]);
}

const marea_op marea_op_ctc_loss = {
    .name = "ctc_loss",
    .family = "loss",
    .results = 1,
    .doc =
        "Minus the logarithm of the probability of each row's labels, summed over all their alignments with "
        "its "
        "steps: a label may last for some steps, and blanks may lie around labels and must lie between equal "
        "ones. log_probs: (N, T, V), as log_softmax gives them (PyTorch has (T, N, V)); targets: (N, S), "
        "padded "
        "behind their lengths with anything; blank: the class that stands for no label, the first one when "
        "left "
        "out. Result: a number, or (N) with reduction 'none'; 'mean' divides each row's loss by the length "
        "of "
        "its target, at least 1, and averages over rows, as in PyTorch. A row that has no alignment gives "
        "infinity, or 0 with zero_infinity, and no gradient. Gradient, once: -dy times the probability of "
        "each "
        "class at each step given the labels; PyTorch adds exp(log_probs), which log_softmax' gradient takes "
        "away. Errors: a length or label out of range, a blank among the labels. Source: Graves et al. 2006.",
    .inputs = {{"log_probs", "(N, T, V)"},
               {"targets", "i64 or u8 (N, S), each one of V classes but the blank"},
               {"input_lengths", "i64 or u8 (N), 0 to T"},
               {"target_lengths", "i64 or u8 (N), 0 to S"}},
    .attrs = MAREA_ATTRS({"blank", MAREA_INT, MAREA_NONE, NULL, "class of no label; left out: the first"},
                         {"reduction", MAREA_ENUM, 0, "mean|sum|none", "what becomes of the rows' losses"},
                         {"zero_infinity", MAREA_BOOL, 0, NULL, "rows without an alignment give 0"}),
    .flags = MAREA_WIDE,
    .saves_out = 1 << POSTERIOR,
    .once = "logsumexp over alignments, written with operators",
    .shape = ctc_shape,
    .forward = ctc_forward,
    .vjp = ctc_vjp,
    .sample =
        "local n, t, v, s = g.int(0, 3), g.int(0, 5), g.int(2, 4), g.int(0, 3)\n"
        "local function ints(shape, lo, hi) return g.tensor(shape, {dtype = 'i64', lo = lo, hi = hi}) end\n"
        "return {g.tensor{n, t, v}, ints({n, s}, 2, v), ints({n}, 0, t), ints({n}, 0, s)},\n"
        "  {reduction = g.pick{'mean', 'sum', 'none'}, zero_infinity = true}",
};

/* ---- ctc_loss_grad ---- */

static marea_status ctc_grad_shape (marea_call *c) {
  const marea_tensor *dy = c->in[0], *posterior = c->in[1];
  MAREA_TRY(marea_want_rank(c, 1, 3, "(N, T, V)"));
  MAREA_TRY(marea_want_dtype(c, 1, 1 << dy->dtype));
  if (dy->rank > 0) {
    MAREA_TRY(marea_want_rank(c, 0, 1, "(N)"));
    MAREA_TRY(marea_want_size(c, 0, 0, posterior->shape[0], "the rows of the posterior"));
  }
  marea_layout_like(&c->layout[0], posterior);
  return MAREA_OK;
}

static void scale_row (void *arg, int64_t n, int worker) {
  marea_call *c = arg;
  const marea_tensor *dy = c->in[0], *posterior = c->in[1];
  const size_t count = (size_t)(posterior->shape[1] * posterior->shape[2]);
  const size_t at = (size_t)n * count * marea_dtype_size((marea_dtype)dy->dtype);
  (void)worker;
  c->ctx->kernels[dy->dtype]->scale(count, marea_load(dy->dtype, marea_at(dy), dy->rank > 0 ? n : 0),
                                    marea_at(posterior) + at, marea_at(c->out[0]) + at);
}

static marea_status ctc_grad_forward (marea_call *c) {
  marea_parallel_if(c->ctx, marea_tensor_size(c->in[1]), c->in[1]->shape[0], scale_row, c);
  return MAREA_OK;
}

const marea_op marea_op_ctc_loss_grad = {
    .name = "ctc_loss_grad",
    .family = "loss",
    .doc = "The gradient of ctc_loss to log_probs: dy, a number or one of each row, times what ctc_loss "
           "kept. Errors: "
           "sizes that do not fit.",
    .inputs = {{"dy", "a number, or (N)"}, {"posterior", "(N, T, V)"}},
    .flags = MAREA_NO_GRAD,
    .shape = ctc_grad_shape,
    .forward = ctc_grad_forward,
    .sample = "local n, t, v = g.int(0, 3), g.int(0, 4), g.int(1, 4)\n"
              "return {g.tensor(g.bool() and {n} or {}), g.tensor{n, t, v}}, {}",
};
