/* SPDX-License-Identifier: MIT
** apply.c: the single entry point of operators: check -> convert -> shape -> allocate -> forward -> record. Whatever
** should happen for every operator (interrupts, profiling, budgets) is one `if` here.
**
** All allocation comes before anything is changed, so a call that fails leaves everything as it was and may be
** repeated.
*/
#include <stdarg.h>
#include <string.h>

#include "core.h"

#define FEW 8 /* so many inputs fit in an array on the stack */

/* The tensors of a list, some of them replaced by converted or contiguous copies. */
typedef struct stand_ins {
  marea_tensor *const *of; /* the original list, borrowed */
  marea_tensor *const *t;  /* `of` until the first one is replaced, then `own`, which owns the replacements */
  marea_tensor **own, *few[FEW];
} stand_ins;

typedef struct entry {
  marea_call call;
  marea_tensor *const *user; /* as the caller gave them */
  stand_ins inputs;          /* after promotion: what is recorded */
  stand_ins values;          /* after making contiguous: what forward reads */
  int narrow;                /* dtype that is only stored, to which results are rounded; -1: none */
  bool as_stored;            /* the operator computes with what is only stored */
  int mixed;          /* the common dtype of inputs that it takes as they are (MAREA_MIXES); -1: none */
  marea_tensor *part; /* is the result; NULL: a new tensor is */
  marea_attr attr[MAREA_MAX_ATTRS];
} entry;

void *marea_table (marea_call *c, size_t bytes) {
  if (c->n_workspace == MAREA_COUNT(c->workspace)) return NULL;
  void *p = marea_alloc(c->ctx, bytes);
  if (p) c->workspace[c->n_workspace++] = p;
  return p;
}

void *marea_workspace (marea_call *c, size_t bytes) {
  if (!c->ctx->plan) return marea_table(c, bytes);
  size_t size = marea_block_size(bytes);
  c->planned += size;
  marea_plan_take(c->ctx, size);
  return MAREA_NOWHERE;
}

marea_status marea_worker_memory (marea_call *c, size_t *bytes, char **memory) {
  const size_t last = *bytes, threads = (size_t)c->ctx->threads;
  size_t total;
  *bytes = marea_worker_step(last);
  if (__builtin_mul_overflow(*bytes, threads - 1, &total) || __builtin_add_overflow(total, last, &total))
    return marea_reject(c, MAREA_ENOMEM, "out of memory for scratch space");
  MAREA_WORKSPACE_OR_RETURN(c, *memory, MAREA_MAX(total, 1));
  return MAREA_OK;
}

static void free_workspace (marea_call *c) {
  while (c->n_workspace > 0) marea_free(c->ctx, c->workspace[--c->n_workspace]);
  if (c->planned) marea_plan_give(c->ctx, c->planned);
  c->planned = 0;
}

/* ---- inputs ---- */

static void stand_in_for (stand_ins *s, marea_tensor *const *of) {
  s->of = s->t = of;
  s->own = NULL;
}

/* Item i of the list, to be replaced; NULL: no memory. */
static marea_tensor **replace (marea_call *c, stand_ins *s, int i) {
  if (!s->own) {
    size_t bytes = sizeof *s->own * (size_t)c->n_in;
    s->own = c->n_in <= FEW ? s->few : marea_table(c, bytes);
    if (!s->own) return NULL;
    memcpy(s->own, s->of, bytes);
    s->t = s->own;
  }
  return &s->own[i];
}

static void release_stand_ins (const stand_ins *s, int n) {
  for (int i = 0; s->own && i < n; i++)
    if (s->own[i] != s->of[i]) marea_release(s->own[i]);
}

static marea_status check_inputs (marea_call *c) {
  const marea_op *op = c->op;
  const bool variadic = op->inputs[0].variadic;
  const int most = variadic ? c->n_in : MAREA_COUNT(op->inputs);
  int n = 0;
  for (; n < most && (variadic || op->inputs[n].name); n++) {
    const marea_tensor *t = n < c->n_in ? c->in[n] : NULL;
    if (t && t->ctx == c->ctx && !marea_is_over(t)) continue;
    if (t) return marea_want_tensor(c->ctx, op->name, marea_input_name(op, n), t);
    if (variadic || !op->inputs[n].optional)
      return marea_reject(c, MAREA_EARG, "argument '%s': expected a tensor, got nothing",
                          marea_input_name(op, n));
  }
  if (variadic ? c->n_in < 1 : c->n_in > n)
    return marea_reject(c, MAREA_EARG, "expected %s%d inputs, got %d", variadic ? "at least " : "at most ",
                        variadic ? 1 : n, c->n_in);
  int wanted = op->dtypes ? op->dtypes : MAREA_FLOATS;
  int checked = op->flags & MAREA_PROMOTES ? c->n_in : MAREA_MIN(c->n_in, 1);
  for (int i = 0; i < checked; i++)
    if (!marea_is_in(wanted, c->in[i]->dtype)) return marea_want_dtype(c, i, wanted);
  return MAREA_OK;
}

int marea_common_dtype (int n, marea_tensor *const *in) {
  const marea_dtype none = (marea_dtype)MAREA_DTYPE_COUNT;
  marea_dtype common = none, of_numbers = none; /* of tensors with dimensions, and of those without */
  for (int i = 0; i < n; i++) {
    if (!in[i]) continue;
    marea_dtype *to = in[i]->rank == 0 ? &of_numbers : &common;
    *to = marea_promote(*to, (marea_dtype)in[i]->dtype);
  }
  if (common == none) return (int)of_numbers;
  return (int)(marea_is_float(of_numbers) && !marea_is_float(common) ? of_numbers : common);
}

static bool have_one_dtype (const marea_call *c) {
  for (int i = 1; i < c->n_in; i++)
    if (!c->in[0] || !c->in[i] || c->in[i]->dtype != c->in[0]->dtype) return false;
  return true;
}

static bool have_stored (const marea_call *c) {
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i] && marea_is_in(MAREA_STORED, c->in[i]->dtype)) return true;
  return false;
}

static marea_status refuse_stored (marea_call *c) {
  int i = 0;
  while (!c->in[i] || !marea_is_in(MAREA_STORED, c->in[i]->dtype)) i++;
  const char *name = marea_dtype_name((marea_dtype)c->in[i]->dtype);
  return marea_reject(
      c, MAREA_EARG,
      "argument '%s': expected %s, got %s; it changes tensors in place, whose small changes %s "
      "would round away: keep them in f32 and convert where they are used, w:to '%s'",
      marea_input_name(c->op, i), marea_dtypes_text(MAREA_FLOATS).s, marea_tensor_text(c->in[i]).s, name,
      name);
}

static marea_status cast_input (marea_call *c, marea_tensor *t, int dtype, bool lowers, marea_tensor **cast) {
  if (lowers) return marea_lower(c->ctx, t, dtype, cast);
  const marea_attr attr = {.n = 1, .i = dtype};
  return marea_run_with(c->ctx, &marea_op_cast, &attr, cast, 1, t);
}

/* Input i := itself, as `dtype`; one that was given twice is converted once. */
static marea_status convert_input (entry *d, int i, int dtype, bool lowers) {
  marea_call *c = &d->call;
  marea_tensor *cast = NULL, **t = replace(c, &d->inputs, i);
  if (!t) return marea_reject(c, MAREA_ENOMEM, "out of memory for %d inputs", c->n_in);
  for (int k = 0; k < i && !cast; k++)
    if (d->user[k] == d->user[i]) cast = marea_retain(d->inputs.own[k]);
  if (!cast) MAREA_TRY(cast_input(c, *t, dtype, lowers, &cast));
  if (*t != d->user[i]) marea_release(*t);
  *t = cast;
  return MAREA_OK;
}

/* Does autocast change a call of an operator with this flag? Not one with inputs of f64, whose user wants more digits. */
static bool lowers (const marea_call *c, int flag) {
  const int dtype = c->ctx->autocast;
  if (dtype < 0 || !(c->op->flags & flag)) return false;
  for (int i = 0; i < c->n_in; i++) {
    const marea_tensor *t = c->in[i];
    if (t && marea_is_float(t->dtype) && marea_computed_in(t->dtype) != marea_computed_in(dtype))
      return false;
  }
  return true;
}

static marea_attr *products_of (const marea_call *c) { return &c->attr[marea_op_attrs(c->op, NULL) - 1]; }

bool marea_rounds (const marea_call *c) {
  return c->in[0]->dtype == marea_computed_in(MAREA_BF16) && products_of(c)->i == 1;
}

static marea_status lower (entry *d) {
  marea_call *c = &d->call;
  const int dtype = c->ctx->autocast;
  if (dtype == MAREA_BF16 && lowers(c, MAREA_ROUNDS)) products_of(c)->i = 1;
  if (!lowers(c, MAREA_LOWERS)) return MAREA_OK;
  for (int i = 0; i < c->n_in; i++) {
    const marea_tensor *t = c->in[i];
    if (t && marea_is_float(t->dtype) && t->dtype != dtype) MAREA_TRY(convert_input(d, i, dtype, true));
  }
  c->in = d->inputs.t;
  return MAREA_OK;
}

/* Has the operator a way of its own for these inputs, floats of bf16 alone? */
static bool takes_bf16 (const marea_call *c) {
  bool any = false;
  if (!(c->op->flags & MAREA_TAKES_BF16)) return false;
  for (int i = 0; i < c->n_in; i++) {
    if (!c->in[i] || !marea_is_float(c->in[i]->dtype)) continue;
    if (c->in[i]->dtype != MAREA_BF16) return false;
    any = true;
  }
  return any && (!c->op->takes_bf16 || c->op->takes_bf16(c));
}

/* Does the operator take these inputs as they are, some only stored, beside them what those are computed in? Not if it is
   recorded and its vjp would read a result that was rounded, or an input is given twice, whose two gradients are added up
   before they are rounded. */
static bool mixes (const marea_call *c, int common) {
  const int computed = marea_computed_in(common);
  const int flags = c->op->flags;
  bool twice = false;
  if (!(flags & MAREA_MIXES)) return false;
  for (int i = 0; i < c->n_in; i++) {
    const marea_tensor *t = c->in[i];
    const bool is_float = marea_is_float(t->dtype);
    if (is_float ? marea_computed_in(t->dtype) != computed : flags & MAREA_PROMOTES) return false;
    for (int k = 0; k < i; k++) twice |= c->in[k] == t;
  }
  const bool rounds = marea_is_in(MAREA_STORED, common) && !(c->ctx->autocast >= 0 && flags & MAREA_WIDE);
  const bool reads_rounded = c->op->saves_out && rounds && !(flags & MAREA_BY_SIGN);
  return !(twice || reads_rounded) || !marea_wants_record(c);
}

/* inputs := the caller's tensors, cast down under autocast, converted to their common dtype if the operator promotes, and
   what is only stored to the dtype that it is computed in if the operator computes. Where that was the common dtype, it
   is the results', too. */
static marea_status promote (entry *d) {
  marea_call *c = &d->call;
  MAREA_TRY(lower(d));
  d->as_stored |= takes_bf16(c);
  const bool promotes = c->op->flags & MAREA_PROMOTES && !have_one_dtype(c);
  const bool widens = !d->as_stored && have_stored(c);
  if (!promotes && !widens) return MAREA_OK;
  if (widens && c->op->flags & MAREA_MUTATES) return refuse_stored(c);
  const int common = marea_common_dtype(c->n_in, c->in);
  if (widens && mixes(c, common)) {
    d->as_stored = true;
    d->mixed = common;
    return MAREA_OK;
  }
  if (widens && marea_is_in(MAREA_STORED, common)) d->narrow = common;
  for (int i = 0; i < c->n_in; i++) {
    const marea_tensor *t = d->inputs.t[i];
    if (!t) continue;
    int dtype = promotes ? common : t->dtype;
    if (widens) dtype = marea_computed_in(dtype);
    if (t->dtype != dtype) MAREA_TRY(convert_input(d, i, dtype, false));
  }
  c->in = d->inputs.t;
  return MAREA_OK;
}

static marea_status copy_input (marea_call *c, marea_tensor **t) {
  if (!t) return marea_reject(c, MAREA_ENOMEM, "out of memory for %d inputs", c->n_in);
  marea_layout layout;
  marea_tensor *copy;
  marea_layout_like(&layout, *t);
  MAREA_TRY(marea_result_new(c->ctx, c->op->name, &layout, &copy));
  marea_copy_strided(c->ctx, *t, copy);
  *t = copy;
  return MAREA_OK;
}

/* values := inputs, copied where their strides are not row-major and forward needs that. */
static marea_status densify (entry *d) {
  marea_call *c = &d->call;
  stand_in_for(&d->values, d->inputs.t);
  if (c->op->flags & MAREA_STRIDED) return MAREA_OK;
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i] && !marea_tensor_contiguous(c->in[i])) MAREA_TRY(copy_input(c, replace(c, &d->values, i)));
  return MAREA_OK;
}

static marea_status begin_call (entry *d, marea_context *ctx, const marea_op *op, int n_in,
                                marea_tensor *const *in, const marea_attr *attrs) {
  marea_call *c = &d->call;
  c->ctx = ctx;
  c->op = op;
  c->n_in = n_in;
  c->n_out = 1;
  c->in = d->user = in;
  c->attr = d->attr;
  c->counter = 0;
  c->n_workspace = 0;
  c->pack = NULL;
  c->planned = 0;
  c->found = NULL;
  d->narrow = -1;
  d->part = ctx->part;
  ctx->part = NULL;
  d->as_stored = op->flags & MAREA_STORES;
  d->mixed = -1;
  stand_in_for(&d->inputs, in);
  stand_in_for(&d->values, in);
  if (attrs) memcpy(d->attr, attrs, sizeof *attrs * (size_t)marea_op_attrs(op, NULL));
  else if (op->attrs) marea_attrs_init(op, d->attr);
  return check_inputs(c);
}

static void end_call (entry *d) {
  release_stand_ins(&d->values, d->call.n_in);
  release_stand_ins(&d->inputs, d->call.n_in);
  free_workspace(&d->call);
}

/* ---- outputs ---- */

static marea_status make_view (marea_call *c, const marea_layout *l, marea_tensor **out) {
  MAREA_TRY(marea_alias(c->in[0], out));
  marea_tensor *t = *out;
  t->rank = l->rank;
  t->offset = l->offset;
  memcpy(t->shape, l->shape, sizeof l->shape[0] * (size_t)l->rank);
  memcpy(t->stride, l->stride, sizeof l->stride[0] * (size_t)l->rank);
  return MAREA_OK;
}

static void release_all (marea_tensor **t, int n) {
  for (int i = 0; i < n; i++) {
    marea_release(t[i]);
    t[i] = NULL;
  }
}

/* Makes out[]. *filled: all of them are views, so forward has nothing to do. */
static marea_status make_outputs (entry *d, bool *filled) {
  marea_call *c = &d->call;
  *filled = c->n_out > 0 && !d->part;
  if (d->part) {
    c->out[0] = marea_retain(d->part);
    return MAREA_OK;
  }
  memset(c->out, 0, sizeof *c->out * (size_t)c->n_out);
  for (int k = 0; k < c->n_out; k++) {
    const marea_layout *l = &c->layout[k];
    marea_status status = l->view ? make_view(c, l, &c->out[k])
                                  : marea_result_new(c->ctx, c->op->name, l, &c->out[k]);
    if (status != MAREA_OK) {
      release_all(c->out, k);
      return status;
    }
    *filled &= l->view;
  }
  return MAREA_OK;
}

/* ---- from shape rule to result ---- */

/* Was an interrupt requested, and may the operator be stopped? Consumes the request. */
static bool interrupted (marea_call *c) {
  if (c->op->flags & MAREA_MUTATES || c->ctx->shielded) return false;
  if (!atomic_load_explicit(&c->ctx->interrupt, memory_order_relaxed)) return false;
  return atomic_exchange(&c->ctx->interrupt, false);
}

static marea_status run_forward (marea_call *c) {
  marea_context *ctx = c->ctx;
  if (ctx->plan && !(c->op->flags & MAREA_SHAPE_ONLY)) return MAREA_OK;
  ctx->shape_only = ctx->plan != NULL;
  marea_status status = c->op->forward(c);
  ctx->shape_only = false;
  return status;
}

static marea_status forward (marea_call *c) {
  marea_status status = run_forward(c);
  if (status == MAREA_OK && !marea_stopping(c->ctx)) marea_pack_done(c);
  if (interrupted(c)) return marea_reject(c, MAREA_EINTR, "interrupted"); /* it may have read half a copy */
  return status == MAREA_OK && c->ctx->limited ? marea_check_time(c) : status;
}

/* Operators that change tensors in place run to their end: an interrupt waits until the next operator, and the end of
   the time limit waits for MAREA_PATIENCE_NS. After that the change is left half done, and the error says so. Changes
   may be nested. */
static bool begin_change (marea_context *ctx) {
  const bool outer = ctx->changing;
  ctx->changing = true;
  return outer;
}

static marea_status end_change (marea_context *ctx, bool outer, const char *name, marea_status status) {
  ctx->changing = outer;
  if (outer || !atomic_load_explicit(&ctx->torn, memory_order_relaxed)) return status;
  atomic_store_explicit(&ctx->torn, false, memory_order_relaxed);
  return marea_fail(ctx, MAREA_EBUDGET,
                    "%s: the time limit of %g s is reached; what it changes in place is changed in part",
                    name, ctx->seconds);
}

static marea_status forward_change (marea_call *c) {
  const bool outer = begin_change(c->ctx);
  return end_change(c->ctx, outer, c->op->name, run_forward(c));
}

/* Did the values in place change, all of them or a part? */
static bool has_changed (const marea_call *c, marea_status status) {
  return !c->ctx->plan && (status == MAREA_OK || status == MAREA_EBUDGET);
}

static marea_status copy_change (marea_context *ctx, const char *name, const marea_tensor *src,
                                 marea_tensor *dst) {
  const bool outer = begin_change(ctx);
  marea_copy_strided(ctx, src, dst);
  return end_change(ctx, outer, name, MAREA_OK);
}

static void reserve_counter (marea_call *c) {
  if (!(c->op->flags & MAREA_RANDOM)) return;
  c->counter = c->ctx->random.counter;
  c->ctx->random.counter += (uint64_t)c->op->draws(c);
}

static marea_status fail_constant (marea_context *ctx, const char *name, const char *in_place) {
  return marea_fail(ctx, MAREA_ESTATE,
                    "%s%s: the tensor's memory is protected; a clone can be changed in place", name,
                    in_place);
}

static marea_status check_mutation (const entry *d) {
  const marea_call *c = &d->call;
  for (int i = 0; i < c->n_in; i++)
    if (c->op->mutates >> i & 1 && c->in[i] && c->in[i]->storage->constant)
      return fail_constant(c->ctx, c->op->name, "");
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i] && !marea_tensor_contiguous(c->in[i]))
      return marea_reject(c, MAREA_EARG, "argument '%s' must be contiguous; it is changed in place",
                          marea_input_name(c->op, i));
  return MAREA_OK;
}

static void bump_versions (const entry *d) {
  if (d->call.ctx->plan) return;
  for (int i = 0; i < d->call.n_in; i++)
    if (d->call.op->mutates >> i & 1 && d->user[i]) d->user[i]->storage->version++;
}

static marea_status mutate (entry *d) {
  marea_call *c = &d->call;
  c->n_out = 0;
  MAREA_TRY(check_mutation(d));
  MAREA_TRY(c->op->shape(c));
  if (c->ctx->limited) MAREA_TRY(marea_charge(c));
  marea_status status = forward_change(c);
  if (has_changed(c, status)) bump_versions(d);
  return status;
}

/* Results that are for the vjp alone are in the node now, if there is one. */
static void keep_from_caller (marea_call *c) {
  const int results = c->op->results;
  if (results == 0 || results >= c->n_out) return;
  release_all(c->out + results, c->n_out - results);
  c->n_out = results;
}

/* The result of inputs of several dtypes has their common one; `wide`: what that is computed in. */
static void settle_mixed (entry *d, bool wide) {
  marea_layout *l = &d->call.layout[0];
  if (d->mixed >= 0 && marea_is_float(l->dtype))
    l->dtype = (int8_t)(wide ? marea_computed_in(d->mixed) : d->mixed);
}

/* Results that an attribute wants in a dtype that is only stored are computed in the other one. */
static void widen_layouts (entry *d) {
  marea_call *c = &d->call;
  if (d->as_stored) return;
  for (int k = 0; k < c->n_out; k++) {
    marea_layout *l = &c->layout[k];
    if (!marea_is_in(MAREA_STORED, l->dtype)) continue;
    d->narrow = l->dtype;
    l->dtype = (int8_t)marea_computed_in(l->dtype);
  }
}

/* Rounds the float results, once. */
static marea_status narrow_results (entry *d) {
  marea_call *c = &d->call;
  if (d->narrow < 0) return MAREA_OK;
  const marea_attr dtype = {.n = 1, .i = d->narrow};
  for (int k = 0; k < c->n_out; k++) {
    marea_tensor *narrow, *t = c->out[k];
    if (t->dtype != marea_computed_in(d->narrow)) continue;
    MAREA_TRY(marea_run_with(c->ctx, &marea_op_cast, &dtype, &narrow, 1, t));
    marea_release(t);
    c->out[k] = narrow;
  }
  return MAREA_OK;
}

static marea_status compute (entry *d, marea_tensor **out) {
  marea_call *c = &d->call;
  if (interrupted(c)) return marea_reject(c, MAREA_EINTR, "interrupted");
  MAREA_TRY(promote(d));
  if (c->op->flags & MAREA_MUTATES) return mutate(d);
  MAREA_TRY(densify(d));
  MAREA_TRY(c->op->shape(c));
  const bool wide = c->ctx->autocast >= 0 && c->op->flags & MAREA_WIDE;
  if (wide) d->narrow = -1;
  settle_mixed(d, wide);
  widen_layouts(d);
  c->out = out;
  bool filled;
  MAREA_TRY(make_outputs(d, &filled));
  marea_random_state before = c->ctx->random;
  reserve_counter(c);
  marea_status status = filled || !c->ctx->limited ? MAREA_OK : marea_charge(c);
  if (!filled && status == MAREA_OK) {
    c->in = d->values.t;
    status = forward(c);
    c->in = d->inputs.t;
  }
  if (status == MAREA_OK) status = marea_record(c);
  if (status == MAREA_OK) {
    keep_from_caller(c);
    status = narrow_results(d);
  }
  if (status == MAREA_OK) return MAREA_OK;
  c->ctx->random = before;
  release_all(out, c->n_out);
  return status;
}

marea_status marea_perform (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                            const marea_attr *attrs, marea_tensor **out, int *n_out) {
  entry d;
  *n_out = 0;
  marea_status status = begin_call(&d, ctx, op, n_in, in, attrs);
  if (status == MAREA_OK) status = compute(&d, out);
  end_call(&d);
  if (status == MAREA_OK) *n_out = d.call.n_out;
  return status;
}

marea_status marea_invoke (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                           const marea_attr *attrs, marea_tensor **out, int *n_out) {
  if (ctx->tracer) return marea_trace_apply(ctx, op, n_in, in, attrs, out, n_out);
  return ctx->profile ? marea_profile_apply(ctx, op, n_in, in, attrs, out, n_out)
                      : marea_perform(ctx, op, n_in, in, attrs, out, n_out);
}

/* Checks what a host gave for NULL; mutating operators have no results. */
static marea_status check_pointers (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                                    marea_tensor **out, const int *n_out) {
  MAREA_WANT_OR_RETURN(NULL, "apply", ctx);
  MAREA_WANT_OR_RETURN(ctx, "apply", op);
  MAREA_TRY(marea_want_list(ctx, op->name, "in", n_in, in));
  MAREA_WANT_OR_RETURN(ctx, op->name, n_out);
  if (!(op->flags & MAREA_MUTATES)) MAREA_WANT_OR_RETURN(ctx, op->name, out);
  return MAREA_OK;
}

static marea_status apply (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                           const marea_attr *attrs, marea_tensor **out, int *n_out) {
  if (attrs) MAREA_TRY(marea_check_attrs(ctx, op, attrs));
  return marea_invoke(ctx, op, n_in, in, attrs, out, n_out);
}

static marea_status apply_in_our_mode (marea_context *ctx, const marea_op *op, int n_in,
                                       marea_tensor *const *in, const marea_attr *attrs, marea_tensor **out,
                                       int *n_out) {
  MAREA_ENTER;
  if (n_out) *n_out = 0;
  MAREA_TRY(check_pointers(ctx, op, n_in, in, out, n_out));
  return apply(ctx, op, n_in, in, attrs, out, n_out);
}

/* Straight on, where nothing is missing and no mode is to come back. */
marea_status marea_apply (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                          const marea_attr *attrs, marea_tensor **out, int *n_out) {
  if (!ctx || !op || n_in < 0 || !in || !out || !n_out || !marea_in_our_mode())
    return apply_in_our_mode(ctx, op, n_in, in, attrs, out, n_out);
  *n_out = 0;
  return apply(ctx, op, n_in, in, attrs, out, n_out);
}

/* ---- in place ---- */

/* Do elements share memory, as those of an expanded tensor do? */
static bool repeats (const marea_tensor *t) {
  if (marea_count(t->rank, t->shape) == 0) return false;
  for (int d = 0; d < t->rank; d++)
    if (t->shape[d] > 1 && t->stride[d] == 0) return true;
  return false;
}

/* Changing in[0] would invalidate what a graph recorded, or lose a gradient, or write to one place twice? */
static marea_status check_in_place (marea_context *ctx, const char *name, int n_in, marea_tensor *const *in) {
  if (in[0]->storage->constant) return fail_constant(ctx, name, "_");
  if (repeats(in[0]))
    return marea_fail(
        ctx, MAREA_EARG,
        "%s_: elements of %s share memory, as expand leaves them; a clone can be changed in place", name,
        marea_tensor_text(in[0]).s);
  if (!ctx->recording) return MAREA_OK;
  for (int i = 0; i < n_in; i++)
    if (in[i] && in[i]->requires_grad)
      return marea_fail(
          ctx, MAREA_ESTATE,
          "%s_: a tensor that requires a gradient takes part, and a change in place is not recorded; "
          "do it in no_grad, on t:detach(), or by an operator without _",
          name);
  return MAREA_OK;
}

/* May forward write straight over in[0], no other input reading what is written too early? */
static bool can_write_through (const marea_call *c) {
  const marea_tensor *t = c->in[0];
  if (!marea_tensor_contiguous(t)) return false;
  for (int i = 1; i < c->n_in; i++)
    if (c->in[i] && c->in[i]->storage == t->storage && !marea_same_layout(c->in[i], t)) return false;
  return true;
}

static marea_status compute_in_place (entry *d) {
  marea_call *c = &d->call;
  marea_tensor *target = d->user[0], *result = target;
  MAREA_TRY(check_in_place(c->ctx, c->op->name, c->n_in, c->in));
  MAREA_TRY(promote(d));
  MAREA_TRY(densify(d));
  MAREA_TRY(c->op->shape(c));
  settle_mixed(d, false);
  const marea_layout *l = &c->layout[0];
  const bool narrows = d->narrow >= 0 && l->dtype == marea_computed_in(d->narrow);
  const int dtype = narrows ? d->narrow : l->dtype;
  if (dtype != target->dtype || !marea_has_shape(target, l->rank, l->shape))
    return marea_reject(c, MAREA_ESHAPE, "the result %s %s does not fit in place of %s",
                        marea_dtype_name((marea_dtype)dtype), marea_shape_text(l->rank, l->shape).s,
                        marea_tensor_text(target).s);
  c->in = d->values.t;
  bool through = can_write_through(c) && c->in[0]->storage == target->storage;
  if (!through) MAREA_TRY(marea_result_new(c->ctx, c->op->name, l, &result));
  c->out = &result;
  marea_status status = c->ctx->limited ? marea_charge(c) : MAREA_OK;
  if (status == MAREA_OK) {
    status = forward_change(c);
    if (has_changed(c, status)) target->storage->version++;
  }
  if (!through) {
    if (status == MAREA_OK) status = copy_change(c->ctx, c->op->name, result, target);
    marea_release(result);
  }
  return status;
}

marea_status marea_perform_ (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                             const marea_attr *attrs) {
  if (!(op->flags & MAREA_ELEMENTWISE))
    return marea_fail(ctx, MAREA_EARG, "%s: has no form in place", op->name);
  entry d;
  marea_status status = begin_call(&d, ctx, op, n_in, in, attrs);
  if (status == MAREA_OK) status = compute_in_place(&d);
  end_call(&d);
  return status;
}

marea_status marea_invoke_ (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                            const marea_attr *attrs) {
  if (ctx->tracer) MAREA_TRY(marea_trace_change(ctx->tracer, op->name, n_in, in));
  return ctx->profile ? marea_profile_apply_(ctx, op, n_in, in, attrs)
                      : marea_perform_(ctx, op, n_in, in, attrs);
}

marea_status marea_apply_ (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                           const marea_attr *attrs) {
  MAREA_ENTER;
  marea_tensor *result;
  int n_out;
  if (!ctx || !op || n_in < 0 || !in) MAREA_TRY(check_pointers(ctx, op, n_in, in, &result, &n_out));
  if (attrs) MAREA_TRY(marea_check_attrs(ctx, op, attrs));
  return marea_invoke_(ctx, op, n_in, in, attrs);
}

static marea_status copy (marea_tensor *dst, marea_tensor *src) {
  marea_context *ctx = dst->ctx;
  marea_tensor *const both[] = {dst, src};
  MAREA_TRY(check_in_place(ctx, "copy", 2, both));
  marea_attr shape = {.n = dst->rank};
  memcpy(shape.v, dst->shape, sizeof shape.v[0] * (size_t)dst->rank);
  bool before = marea_set_recording(ctx, false);
  marea_tensor *wide = NULL, *own = NULL;
  marea_status status = marea_run_with(ctx, &marea_op_expand, &shape, &wide, 1, src);
  bool overlaps = src->storage == dst->storage && !marea_same_layout(src, dst);
  if (status == MAREA_OK && overlaps) status = marea_run(ctx, &marea_op_clone, &own, 1, wide);
  marea_set_recording(ctx, before);
  if (status == MAREA_OK) {
    status = copy_change(ctx, "copy_", own ? own : wide, dst);
    if (!ctx->plan) dst->storage->version++;
  }
  marea_release(own);
  marea_release(wide);
  return status;
}

static marea_status copy_profiled (marea_profile *profile, marea_tensor *dst, marea_tensor *src) {
  marea_frame frame;
  marea_frame_open(profile, &frame, "copy_");
  marea_status status = copy(dst, src);
  if (status == MAREA_OK) frame.work.bytes = marea_tensor_bytes(src) + marea_tensor_bytes(dst);
  marea_frame_close(profile, &frame);
  return status;
}

marea_status marea_copy (marea_tensor *dst, marea_tensor *src) {
  MAREA_ENTER;
  marea_context *ctx = dst ? dst->ctx : src ? src->ctx : NULL;
  MAREA_TRY(marea_want_tensor(ctx, "copy_", "dst", dst));
  MAREA_TRY(marea_want_tensor(ctx, "copy_", "src", src));
  if (ctx->tracer) MAREA_TRY(marea_trace_change(ctx->tracer, "copy_", 2, (marea_tensor *const[]){dst, src}));
  return ctx->profile ? copy_profiled(ctx->profile, dst, src) : copy(dst, src);
}

/* ---- calls from C, for vjps ---- */

static marea_status run (marea_context *ctx, const marea_op *op, const marea_attr *attrs, marea_tensor **out,
                         int n, va_list args) {
  marea_tensor *in[FEW], *results[MAREA_MAX_OUT];
  for (int i = 0; i < n; i++) in[i] = va_arg(args, marea_tensor *);
  int n_out;
  *out = NULL;
  MAREA_TRY(marea_invoke(ctx, op, n, in, attrs, results, &n_out));
  *out = results[0];
  for (int k = 1; k < n_out; k++) marea_release(results[k]);
  return MAREA_OK;
}

marea_status marea_run (marea_context *ctx, const marea_op *op, marea_tensor **out, int n, ...) {
  va_list args;
  va_start(args, n);
  marea_status status = run(ctx, op, NULL, out, n, args);
  va_end(args);
  return status;
}

marea_status marea_run_with (marea_context *ctx, const marea_op *op, const marea_attr *attrs,
                             marea_tensor **out, int n, ...) {
  va_list args;
  va_start(args, n);
  marea_status status = run(ctx, op, attrs, out, n, args);
  va_end(args);
  return status;
}

marea_status marea_run_number (marea_context *ctx, const marea_op *op, marea_tensor **out, marea_tensor *a,
                               double b) {
  marea_tensor *number;
  marea_layout scalar = {.dtype = a->dtype, .rank = 0};
  *out = NULL;
  MAREA_TRY(marea_tensor_new(ctx, op->name, &scalar, &number));
  marea_store(a->dtype, marea_at(number), 0, b);
  marea_status status = marea_run(ctx, op, out, 2, a, number);
  marea_release(number);
  return status;
}
