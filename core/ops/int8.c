/* SPDX-License-Identifier: MIT
** int8.c: products of bytes for inference. Weights become bytes once, by quantize_int8: of each column the largest magnitude
** becomes 127. The x of a product become bytes at each call: of each row the range from its least to its largest element, 0
** among them, becomes 0 to 255. Sums are exact, and become f32 with both scales.
*/
#include <math.h>
#include <string.h>

#include "core.h"

/* ---- quantize_int8 ---- */

static marea_status want_depth (marea_call *c, int64_t depth) {
  if (depth <= MAREA_INT8_DEPTH) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE, "sums of %lld terms are more than %d, for which int32 suffices",
                      (long long)depth, MAREA_INT8_DEPTH);
}

static marea_status quantize_shape (marea_call *c) {
  const marea_tensor *w = c->in[0];
  if (w->rank < 2)
    return marea_reject(c, MAREA_ESHAPE,
                        "argument 'weight': expected 2 dimensions (.., in, out) or more, got %s",
                        marea_tensor_text(w).s);
  const int64_t taps = marea_count(w->rank - 2, w->shape), in = w->shape[w->rank - 2],
                n = w->shape[w->rank - 1];
  MAREA_TRY(want_depth(c, in > 0 && taps > MAREA_INT8_DEPTH ? taps : taps * in));
  c->n_out = 2;
  marea_layout_set(&c->layout[0], MAREA_U8, 2,
                   (int64_t[]){marea_int8_panels(n), marea_int8_panel_bytes(taps, marea_int8_depth(in))});
  marea_layout_set(&c->layout[1], w->dtype, 1, &n);
  return MAREA_OK;
}

typedef struct packing {
  marea_context *ctx;
  int dtype;
  const char *w; /* (taps, in, n) */
  char *scale;
  int8_t *to;
  int64_t taps, in, n;
} packing;

/* Some columns of a row, as f32. */
static void load_columns (const packing *p, int64_t row, int64_t col, int64_t columns, float *to) {
  const size_t size = marea_element_size(p->dtype);
  marea_convert_run(p->ctx, columns, p->dtype, p->w + (size_t)(row * p->n + col) * size, 1, MAREA_F32, to, 1);
}

/* NaN where a weight is NaN or infinite, so that its column's products are. */
static void scale_columns (const packing *p, int64_t col, int64_t columns, float *scale) {
  float w[MAREA_INT8_PANEL];
  for (int64_t j = 0; j < columns; j++) scale[j] = 0;
  for (int64_t i = 0; i < p->taps * p->in; i++) {
    load_columns(p, i, col, columns, w);
    for (int64_t j = 0; j < columns; j++) {
      const float size = isfinite(w[j]) ? fabsf(w[j]) : NAN;
      if (!(size <= scale[j])) scale[j] = isnan(scale[j]) ? NAN : size;
    }
  }
  for (int64_t j = 0; j < columns; j++) scale[j] = scale[j] < 1.5e-36f ? 0 : scale[j] / 127;
}

static void pack_panel (void *arg, int64_t panel, int worker) {
  const packing *p = arg;
  const int64_t step = marea_int8_depth(p->in), bytes = marea_int8_panel_bytes(p->taps, step);
  const int64_t col = panel * MAREA_INT8_PANEL, columns = MAREA_MIN(MAREA_INT8_PANEL, p->n - col);
  float scale[MAREA_INT8_PANEL], w[MAREA_INT8_PANEL];
  int32_t sum[MAREA_INT8_PANEL] = {0};
  int8_t *to = p->to + panel * bytes;
  (void)worker;
  scale_columns(p, col, columns, scale);
  memset(to, 0, (size_t)bytes);
  for (int64_t i = 0; i < p->taps * p->in && !marea_stopping(p->ctx); i++) {
    int8_t *four = to + i / p->in * step * MAREA_INT8_PANEL + i % p->in / 4 * 4 * MAREA_INT8_PANEL +
                   i % p->in % 4;
    load_columns(p, i, col, columns, w);
    for (int64_t j = 0; j < columns; j++) {
      const int q = scale[j] > 0 ? (int)rintf(w[j] / scale[j]) : 0;
      four[4 * j] = (int8_t)MAREA_MAX(-127, MAREA_MIN(q, 127));
      sum[j] += four[4 * j];
    }
  }
  memcpy(to + bytes - (int64_t)sizeof sum, sum, sizeof sum);
  marea_convert_run(p->ctx, columns, MAREA_F32, scale, 1, p->dtype,
                    p->scale + (size_t)col * marea_element_size(p->dtype), 1);
}

static marea_status quantize_forward (marea_call *c) {
  const marea_tensor *w = c->in[0];
  packing p = {c->ctx,
               w->dtype,
               marea_at(w),
               marea_at(c->out[1]),
               marea_at(c->out[0]),
               marea_count(w->rank - 2, w->shape),
               w->shape[w->rank - 2],
               w->shape[w->rank - 1]};
  marea_parallel(c->ctx, marea_int8_panels(p.n), pack_panel, &p);
  return MAREA_OK;
}

const marea_op marea_op_quantize_int8 = {
    .name = "quantize_int8",
    .family = "int8",
    .doc =
        "Weights as bytes -127 .. 127 and a scale for each column, for linear_int8: weight[.., i, o] is "
        "about "
        "byte[.., i, o] scale[o], scale[o] the largest |weight[.., o]| / 127. weight: (.., in, out), leading "
        "sizes being the taps of a convolution. Results: bytes, u8 (out / 16, ..), packed for products in "
        "panels of 16 columns, behind each panel its columns' sums; scale (out), 0 where all weights are "
        "below "
        "1.5e-36, NaN where one is NaN or infinite. No gradient. Errors: fewer than two dimensions; more "
        "than "
        "65,536 weights for each out.",
    .inputs = {{"weight", "(.., in, out)"}},
    .flags = MAREA_NO_GRAD,
    .shape = quantize_shape,
    .forward = quantize_forward,
    .sample = "return {g.tensor(g.shape(2, 4))}",
};

/* ---- linear_int8 ---- */

enum { X, WEIGHT, SCALE, BIAS };          /* ORDER of the inputs */
enum { LINEAR_ACTIVATION, LINEAR_SLOPE }; /* ORDER of its attributes */

/* An operator without a gradient where one is wanted is an error: the network would silently not learn. */
static marea_status want_no_record (marea_call *c) {
  for (int i = 0; c->ctx->recording && i < c->n_in; i++)
    if (c->in[i] && c->in[i]->requires_grad)
      return marea_reject(c, MAREA_ESTATE,
                          "argument '%s' requires a gradient, and products of bytes have none: they are for "
                          "inference, inside of no_grad",
                          marea_input_name(c->op, i));
  return MAREA_OK;
}

/* Weights as quantize_int8 packs (taps, in, out), out being the scales' number, which is set. */
static marea_status want_packed (marea_call *c, int64_t taps, int64_t in, int64_t *out) {
  const marea_tensor *scale = c->in[SCALE];
  MAREA_TRY(want_depth(c, taps * in));
  MAREA_TRY(marea_want_dtype(c, WEIGHT, 1 << MAREA_U8));
  MAREA_TRY(marea_want_rank(c, WEIGHT, 2, "(panels, bytes)"));
  MAREA_TRY(marea_want_dtype(c, SCALE, 1 << c->in[X]->dtype));
  MAREA_TRY(marea_want_rank(c, SCALE, 1, "(out)"));
  *out = scale->shape[0];
  MAREA_TRY(marea_want_size(c, WEIGHT, 0, marea_int8_panels(*out), "a panel for 16 of scale's elements"));
  MAREA_TRY(marea_want_size(c, WEIGHT, 1, marea_int8_panel_bytes(taps, marea_int8_depth(in)),
                            "the bytes of a panel for x's last size"));
  if (c->n_in <= BIAS || !c->in[BIAS]) return MAREA_OK;
  MAREA_TRY(marea_want_dtype(c, BIAS, 1 << c->in[X]->dtype));
  MAREA_TRY(marea_want_rank(c, BIAS, 1, "(out)"));
  return marea_want_size(c, BIAS, 0, *out, "scale's size");
}

/* Is it what bytes become, f32? */
static bool is_f32 (int dtype) { return dtype == marea_computed_in(MAREA_BF16); }

/* *to := a tensor of floats as f32: its memory, or a copy of it. */
static marea_status as_f32 (marea_call *c, const marea_tensor *t, float **to) {
  const int64_t n = t ? marea_tensor_size(t) : 0;
  *to = t ? marea_at(t) : NULL;
  if (!t || is_f32(t->dtype)) return MAREA_OK;
  MAREA_WORKSPACE_OR_RETURN(c, *to, (size_t)MAREA_MAX(n, 1) * sizeof **to);
  if (!c->ctx->shape_only) marea_convert_run(c->ctx, n, t->dtype, marea_at(t), 1, MAREA_F32, *to, 1);
  return MAREA_OK;
}

static marea_status linear_int8_shape (marea_call *c) {
  const marea_tensor *x = c->in[X];
  int64_t out;
  MAREA_TRY(want_no_record(c));
  if (x->rank == 0)
    return marea_reject(c, MAREA_ESHAPE, "argument 'x': expected (.., in), got %s", marea_tensor_text(x).s);
  MAREA_TRY(want_packed(c, 1, x->shape[x->rank - 1], &out));
  MAREA_TRY(marea_want_slope(c, LINEAR_SLOPE));
  marea_layout_like(&c->layout[0], x);
  c->layout[0].shape[x->rank - 1] = out;
  return MAREA_OK;
}

typedef struct rows_job {
  const marea_kernels *f32;
  const float *x;
  int64_t m, n, rows_per_block;
  marea_int8_rows to;
} rows_job;

static void quantize_rows (void *arg, int64_t block, int worker) {
  const rows_job *j = arg;
  const int64_t first = block * j->rows_per_block;
  (void)worker;
  marea_int8_quantize(j->f32, (marea_range){first, MAREA_MIN(first + j->rows_per_block, j->m)}, j->x, j->n,
                      &j->to);
}

/* *to := bytes of x (m, n), of which the caller has the f32. */
static marea_status rows_of (marea_call *c, const float *x, int64_t m, int64_t n, marea_int8_rows *to) {
  rows_job j = {.f32 = c->ctx->kernels[MAREA_F32], .x = x, .m = m, .n = n};
  j.to.step = marea_int8_depth(n);
  j.rows_per_block = MAREA_MAX(1, MAREA_BLOCK / MAREA_MAX(n, 1));
  MAREA_WORKSPACE_OR_RETURN(c, j.to.at, (size_t)MAREA_MAX(m * j.to.step, 1));
  MAREA_WORKSPACE_OR_RETURN(c, j.to.factor, (size_t)MAREA_MAX(m, 1) * sizeof *j.to.factor);
  MAREA_WORKSPACE_OR_RETURN(c, j.to.zero, (size_t)MAREA_MAX(m, 1) * sizeof *j.to.zero);
  marea_parallel(c->ctx, (m + j.rows_per_block - 1) / j.rows_per_block, quantize_rows, &j);
  *to = j.to;
  return MAREA_OK;
}

static marea_status linear_int8_forward (marea_call *c) {
  const marea_tensor *x = c->in[X];
  marea_tensor *y = c->out[0];
  const int64_t in = x->shape[x->rank - 1], m = marea_count(x->rank - 1, x->shape);
  marea_int8_weight w = {.at = marea_at(c->in[WEIGHT]),
                         .n = y->shape[x->rank - 1],
                         .taps = 1,
                         .step = marea_int8_depth(in),
                         .act = (marea_activation)c->attr[LINEAR_ACTIVATION].i,
                         .slope = c->attr[LINEAR_SLOPE].f};
  marea_int8_rows rows;
  float *from, *scale, *bias, *to = marea_at(y);
  const int64_t results = m * w.n;
  MAREA_TRY(as_f32(c, x, &from));
  MAREA_TRY(as_f32(c, c->in[SCALE], &scale));
  MAREA_TRY(as_f32(c, c->n_in > BIAS ? c->in[BIAS] : NULL, &bias));
  w.scale = scale;
  w.bias = bias;
  if (!is_f32(y->dtype)) MAREA_WORKSPACE_OR_RETURN(c, to, (size_t)MAREA_MAX(results, 1) * sizeof *to);
  MAREA_TRY(rows_of(c, from, m, in, &rows));
  marea_int8_product(c->ctx, &rows, m, &w, to);
  if (!is_f32(y->dtype) && !c->ctx->shape_only)
    marea_convert_run(c->ctx, results, MAREA_F32, to, 1, y->dtype, marea_at(y), 1);
  return MAREA_OK;
}

static double linear_int8_flop (const marea_call *c) {
  const marea_tensor *x = c->in[X];
  return 2.0 * (double)marea_tensor_size(c->out[0]) * (double)x->shape[x->rank - 1];
}

const marea_op marea_op_linear_int8 = {
    .name = "linear_int8",
    .family = "int8",
    .doc =
        "y = act(x weight + bias) for inference, on bytes: weight and scale are quantize_int8's of (in, "
        "out); of "
        "each row of x the range from its least to its largest element, 0 among them, becomes 0 .. 255 "
        "(dynamic "
        "quantization), sums are exact integers, y is a float. x: (.., in); bias: (out); y: (.., out). A row "
        "with a NaN or an infinity gives NaN; elements of a row that are all below 3e-36 count as 0. No "
        "gradient: "
        "an input that requires one is an error outside of no_grad. Errors: bytes of another size.",
    .inputs = {{"x", "(.., in)"},
               {"weight", "bytes"},
               {"scale", "(out)"},
               {"bias", "(out)", .optional = true}},
    .attrs = MAREA_ATTRS(
        {"activation", MAREA_ENUM, 0, "none|relu|leaky_relu|elu|sigmoid|tanh|softplus", "applied to the sum"},
        {"slope", MAREA_REAL, MAREA_NONE, NULL, MAREA_SLOPE_DOC}),
    .flags = MAREA_SHAPE_ONLY | MAREA_NO_GRAD,
    .shape = linear_int8_shape,
    .forward = linear_int8_forward,
    .flop = linear_int8_flop,
    .sample =
        "local s, n = g.shape(1, 3), g.int(0, 20)\n"
        "local fours = (s[#s] + 3) // 4\n"
        "return {g.tensor(s), g.tensor({(n + 15) // 16, fours * 64 + 64}, {dtype = 'u8', lo = 0, hi = 255}), "
        "g.tensor({n}, {lo = 0, hi = 0.01}), g.bool() and g.tensor{n} or nil}, "
        "{activation = g.pick{'none', 'sigmoid', 'tanh', 'softplus'}}",
};
