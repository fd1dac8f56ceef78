/* SPDX-License-Identifier: MIT
** int8.c: products of bytes for inference. Weights become bytes once, by quantize_int8: of each column the largest magnitude
** becomes 127. The x of a product become bytes at each call: of each row the range from its least to its largest element, 0
** among them, becomes 0 to 255. Sums are exact, and become f32 with both scales.
*/
#include <math.h>
#include <string.h>

#include "conv/geometry.h"

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
  marea_layout_set(&c->layout[1], MAREA_F32, 1, &n); /* the one that the bytes are made with */
  return MAREA_OK;
}

typedef struct packing {
  marea_context *ctx;
  int dtype;
  const char *w; /* (taps, in, n) */
  float *scale;
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
  float *scale = p->scale + col, w[MAREA_INT8_PANEL];
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
        "panels of 16 columns, behind each panel its columns' sums; scale, f32 (out), 0 where all weights "
        "are "
        "below "
        "1.5e-36, NaN where one is NaN or infinite. No gradient. Errors: fewer than two dimensions; more "
        "than "
        "65,536 weights for each out.",
    .inputs = {{"weight", "(.., in, out)"}},
    .flags = MAREA_NO_GRAD | MAREA_STORES,
    .shape = quantize_shape,
    .forward = quantize_forward,
    .sample = "return {g.tensor(g.shape(2, 4))}",
};

/* ---- linear_int8 ---- */

enum { X, WEIGHT, SCALE, BIAS };                         /* ORDER of the inputs */
enum { LINEAR_INPUTS, LINEAR_ACTIVATION, LINEAR_SLOPE }; /* ORDER of its attributes */

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

#define F32 (1 << MAREA_F32) /* what sums of bytes become */

marea_status marea_int8_want (marea_call *c, int weight, int64_t taps, int64_t in, int64_t *out) {
  const int scale = weight + 1;
  int64_t terms;
  MAREA_TRY(want_no_record(c));
  MAREA_TRY(
      want_depth(c, __builtin_mul_overflow(taps, in, &terms) || taps > MAREA_INT8_DEPTH ? INT64_MAX : terms));
  MAREA_TRY(marea_want_dtype(c, X, F32));
  MAREA_TRY(marea_want_dtype(c, weight, 1 << MAREA_U8));
  MAREA_TRY(marea_want_rank(c, weight, 2, "(panels, bytes)"));
  MAREA_TRY(marea_want_dtype(c, scale, F32));
  MAREA_TRY(marea_want_rank(c, scale, 1, "(out)"));
  *out = c->in[scale]->shape[0];
  MAREA_TRY(marea_want_size(c, weight, 0, marea_int8_panels(*out), "a panel for 16 of the scale's elements"));
  return marea_want_size(c, weight, 1, marea_int8_panel_bytes(taps, marea_int8_depth(in)),
                         "the bytes of a panel for so many inputs");
}

/* The attribute `inputs`, for padding hides the weight's size, must be the last size of x; *out := the scales' number. */
static marea_status want_operands (marea_call *c, int64_t taps, int inputs, int64_t *out) {
  const int64_t in = c->attr[inputs].i;
  MAREA_TRY(marea_want_size(c, X, c->in[X]->rank - 1, in, "inputs, those of the weight"));
  MAREA_TRY(marea_int8_want(c, WEIGHT, taps, in, out));
  if (c->n_in <= BIAS || !c->in[BIAS]) return MAREA_OK;
  MAREA_TRY(marea_want_dtype(c, BIAS, F32));
  MAREA_TRY(marea_want_rank(c, BIAS, 1, "(out)"));
  return marea_want_size(c, BIAS, 0, *out, "scale's size");
}

static marea_status linear_int8_shape (marea_call *c) {
  const marea_tensor *x = c->in[X];
  int64_t out;
  if (x->rank == 0)
    return marea_reject(c, MAREA_ESHAPE, "argument 'x': expected (.., in), got %s", marea_tensor_text(x).s);
  MAREA_TRY(want_operands(c, 1, LINEAR_INPUTS, &out));
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

/* *to := bytes of x (m, n), f32. */
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

/* The weights, but for taps and step, with the activation and its slope, which are adjacent attributes. */
static marea_int8_weight weights_of (const marea_call *c, int activation) {
  return (marea_int8_weight){.at = marea_at(c->in[WEIGHT]),
                             .scale = marea_at(c->in[SCALE]),
                             .bias = c->n_in > BIAS && c->in[BIAS] ? marea_at(c->in[BIAS]) : NULL,
                             .n = c->in[SCALE]->shape[0],
                             .act = (marea_activation)c->attr[activation].i,
                             .slope = c->attr[activation + 1].f};
}

static marea_status linear_int8_forward (marea_call *c) {
  const marea_tensor *x = c->in[X];
  const int64_t in = x->shape[x->rank - 1], m = marea_count(x->rank - 1, x->shape);
  marea_int8_weight w = weights_of(c, LINEAR_ACTIVATION);
  marea_int8_rows rows;
  MAREA_TRY(rows_of(c, marea_at(x), m, in, &rows));
  w.taps = 1;
  w.step = rows.step;
  marea_int8_product(c->ctx, &rows, m, &w, marea_at(c->out[0]));
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
        "quantization), sums are exact integers, y is f32. x: f32 (.., in); bias: (out); y: (.., out). A row "
        "with a NaN or an infinity gives NaN; elements of a row that are all below 3e-36 count as 0. No "
        "gradient: "
        "an input that requires one is an error outside of no_grad. Errors: x of another size than the "
        "weight's, f64.",
    .inputs = {{"x", "(.., in)"},
               {"weight", "bytes"},
               {"scale", "(out)"},
               {"bias", "(out)", .optional = true}},
    .attrs = MAREA_ATTRS(
        {"inputs", MAREA_INT, MAREA_REQUIRED, NULL, "rows of the weight, which its bytes do not tell"},
        {"activation", MAREA_ENUM, 0, MAREA_ACTIVATION_NAMES, "applied to the sum"},
        {"slope", MAREA_REAL, MAREA_NONE, NULL, MAREA_SLOPE_DOC}),
    .flags = MAREA_SHAPE_ONLY | MAREA_NO_GRAD,
    .shape = linear_int8_shape,
    .forward = linear_int8_forward,
    .flop = linear_int8_flop,
    .sample = "local s, n = g.shape(1, 3), g.int(0, 20)\n"
              "local fours = (s[#s] + 3) // 4\n"
              "return {g.tensor(s, {dtype = 'f32'}), "
              "g.tensor({(n + 15) // 16, fours * 64 + 64}, {dtype = 'u8', lo = 0, hi = 255}), g.tensor({n}, "
              "{dtype = "
              "'f32', lo = 0, hi = 0.01}), g.bool() and g.tensor({n}, {dtype = 'f32'}) or nil}, "
              "{inputs = s[#s], activation = g.pick{'none', 'sigmoid', 'tanh', 'softplus'}}",
};

/* ---- conv2d_int8 ---- */

enum {
  CONV_INPUTS,
  CONV_KERNEL,
  CONV_STRIDE,
  CONV_PADDING,
  CONV_DILATION,
  CONV_ACTIVATION,
  CONV_SLOPE
}; /* ORDER of attributes */

static marea_status conv2d_int8_shape (marea_call *c) {
  static const marea_conv_attr_index at = {CONV_STRIDE, CONV_PADDING, CONV_DILATION, -1, -1, false};
  const marea_tensor *x = c->in[X];
  marea_conv g = {.n = 0};
  MAREA_TRY(marea_want_rank(c, X, 4, "(N, H, W, Cin)"));
  MAREA_TRY(marea_conv_read(c, at, &g));
  g.n = x->shape[0];
  g.cin = x->shape[3];
  for (int d = 0; d < 2; d++) {
    g.in[d] = x->shape[1 + d];
    g.kernel[d] = c->attr[CONV_KERNEL].v[d];
    MAREA_TRY(marea_want_int(c, CONV_KERNEL, g.kernel[d], 1));
  }
  MAREA_TRY(want_operands(c, g.kernel[0] * g.kernel[1], CONV_INPUTS, &g.cout));
  MAREA_TRY(marea_conv_padding(c, at, &g));
  MAREA_TRY(marea_conv_size(c, &g, g.out));
  MAREA_TRY(marea_want_slope(c, CONV_SLOPE));
  MAREA_KEEP(c, g);
  marea_layout_set(&c->layout[0], x->dtype, 4, (int64_t[]){g.n, g.out[0], g.out[1], g.cout});
  return MAREA_OK;
}

#define CONV_PLACES 256 /* outputs of a block, about */
#define CONV_PANELS 8   /* of a block */

/* Images of bytes between bytes that stand for 0, and rows of outputs: those of an image, or where a tap reads the place of
   its output alone, CONV_PLACES of them. */
typedef struct convolution {
  marea_context *ctx;
  marea_conv g;
  marea_int8_rows x; /* an image a row */
  marea_int8_weight w;
  uint8_t *images; /* (N, ..) by steps image; a row of pixels has `row` bytes */
  int64_t image, row;
  int64_t width, x_row; /* outputs of a row; bytes from what one reads to the next */
  int64_t rows, across; /* rows of a block; blocks of panels */
  float *factor;        /* (N, width): of each output of a row */
  int32_t *zero;
  const int64_t *tap;
  float *y;
} convolution;

static void pad_image (void *arg, int64_t n, int worker) {
  const convolution *k = arg;
  const marea_conv *g = &k->g;
  const int64_t pixel = k->w.step, in_row = g->in[1] * g->cin;
  const uint8_t *from = k->x.at + n * k->x.step;
  uint8_t *to = k->images + n * k->image;
  (void)worker;
  for (int64_t i = 0; i < k->width; i++) {
    k->factor[n * k->width + i] = k->x.factor[n];
    k->zero[n * k->width + i] = k->x.zero[n];
  }
  if (from == to) return;
  memset(to, k->x.zero[n], (size_t)k->image);
  to += g->before[0] * k->row + g->before[1] * pixel;
  for (int64_t y = 0; y < g->in[0] && !marea_stopping(k->ctx); y++, from += in_row, to += k->row) {
    if (pixel == g->cin) memcpy(to, from, (size_t)in_row);
    for (int64_t x = 0; pixel != g->cin && x < g->in[1]; x++)
      for (int64_t i = 0; i < g->cin; i++) to[x * pixel + i] = from[x * g->cin + i];
  }
}

static int64_t row_blocks (const convolution *k) {
  const int64_t places = k->rows * k->width;
  return (k->g.out[0] * k->g.out[1] + places - 1) / places;
}

static void convolve (void *arg, int64_t block, int worker) {
  const convolution *k = arg;
  const int64_t panel = block % k->across * CONV_PANELS, first = block / k->across % row_blocks(k) * k->rows;
  const int64_t n = block / k->across / row_blocks(k), all = k->g.out[0] * k->g.out[1];
  const int64_t end = MAREA_MIN(panel + CONV_PANELS, marea_int8_panels(k->w.n));
  marea_int8_block b = {.factor = k->factor + n * k->width,
                        .zero = k->zero + n * k->width,
                        .x_col = k->g.stride[1] * k->w.step,
                        .y_col = k->w.n,
                        .tap = k->tap};
  (void)worker;
  for (int64_t p = panel; p < end; p += 2)
    for (int64_t r = first; r < first + k->rows && r * k->width < all && !marea_stopping(k->ctx); r++) {
      b.x = k->images + n * k->image + r * k->x_row;
      b.y = k->y + (n * all + r * k->width) * k->w.n;
      b.places = MAREA_MIN(k->width, all - r * k->width);
      b.panels = (marea_range){p, MAREA_MIN(p + 2, end)};
      marea_int8_multiply(k->ctx, &k->w, &b);
    }
}

/* Sizes, taps and memory; images lie where they are if nothing surrounds them and their channels fit. */
static marea_status open_images (marea_call *c, convolution *k) {
  marea_conv *g = &k->g;
  int64_t *tap, taps = 0;
  size_t bytes;
  const int64_t padded[] = {g->n, g->before[0] + g->in[0] + g->after[0],
                            g->before[1] + g->in[1] + g->after[1], k->w.step};
  const bool bare = padded[1] == g->in[0] && padded[2] == g->in[1] && k->w.step == g->cin;
  k->row = padded[2] * k->w.step;
  k->image = bare ? k->x.step : padded[1] * k->row;
  k->images = k->x.at;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 4, padded, 1, &bytes));
  if (!bare) MAREA_WORKSPACE_OR_RETURN(c, k->images, MAREA_MAX(bytes, 1));
  k->width = g->out[1];
  k->x_row = g->stride[0] * k->row;
  if (k->w.taps == 1 && bare && g->stride[0] == 1 && g->stride[1] == 1) {
    k->width = CONV_PLACES;
    k->x_row = CONV_PLACES * k->w.step;
  }
  k->rows = MAREA_MAX(1, CONV_PLACES / k->width);
  k->across = (marea_int8_panels(k->w.n) + CONV_PANELS - 1) / CONV_PANELS;
  MAREA_WORKSPACE_OR_RETURN(c, k->factor, (size_t)(g->n * k->width) * sizeof *k->factor);
  MAREA_WORKSPACE_OR_RETURN(c, k->zero, (size_t)(g->n * k->width) * sizeof *k->zero);
  MAREA_TABLE_OR_RETURN(c, tap, (size_t)k->w.taps * sizeof *tap);
  for (int64_t y = 0; y < g->kernel[0]; y++)
    for (int64_t x = 0; x < g->kernel[1]; x++)
      tap[taps++] = y * g->dilation[0] * k->row + x * g->dilation[1] * k->w.step;
  k->tap = tap;
  return MAREA_OK;
}

static marea_status conv2d_int8_forward (marea_call *c) {
  convolution k = {.ctx = c->ctx};
  MAREA_KEPT(c, k.g);
  if (marea_tensor_size(c->out[0]) == 0) return MAREA_OK;
  k.w = weights_of(c, CONV_ACTIVATION);
  k.y = marea_at(c->out[0]);
  k.w.taps = k.g.kernel[0] * k.g.kernel[1];
  k.w.step = marea_int8_depth(k.g.cin);
  MAREA_TRY(rows_of(c, marea_at(c->in[X]), k.g.n, k.g.in[0] * k.g.in[1] * k.g.cin, &k.x));
  MAREA_TRY(open_images(c, &k));
  marea_parallel(c->ctx, k.g.n, pad_image, &k);
  marea_parallel(c->ctx, k.g.n * row_blocks(&k) * k.across, convolve, &k);
  return MAREA_OK;
}

static double conv2d_int8_flop (const marea_call *c) {
  const int64_t *kernel = c->attr[CONV_KERNEL].v;
  return 2.0 * (double)marea_tensor_size(c->out[0]) * (double)(kernel[0] * kernel[1] * c->in[X]->shape[3]);
}

const marea_op marea_op_conv2d_int8 = {
    .name = "conv2d_int8",
    .family = "int8",
    .doc = "conv2d for inference on bytes, as linear_int8: weight and scale are quantize_int8's of (KH, KW, "
           "Cin, "
           "Cout), whose KH and KW `kernel` tells; of each image its range becomes 0 .. 255. x: (N, H, W, "
           "Cin); bias: "
           "(Cout); y: (N, OH, OW, Cout), all of it NaN for an image with a NaN or an infinity. No gradient. "
           "Errors: "
           "as conv2d's, channels other than the weight's, f64.",
    .inputs = {{"x", "(N, H, W, Cin)"},
               {"weight", "bytes"},
               {"scale", "(Cout)"},
               {"bias", "(Cout)", .optional = true}},
    .attrs = MAREA_ATTRS(
        {"inputs", MAREA_INT, MAREA_REQUIRED, NULL, "channels of the weight, Cin"},
        {"kernel", MAREA_PAIR, 1, NULL, "height and width of the kernel"},
        {"stride", MAREA_PAIR, 1, NULL, "step of the kernel, height and width"},
        {"padding", MAREA_PADDING, 0, NULL, "zeros around x: top, bottom, left, right, or 'same'"},
        {"dilation", MAREA_PAIR, 1, NULL, "distance between taps"},
        {"activation", MAREA_ENUM, 0, MAREA_ACTIVATION_NAMES, "applied to the sum"},
        {"slope", MAREA_REAL, MAREA_NONE, NULL, MAREA_SLOPE_DOC}),
    .flags = MAREA_SHAPE_ONLY | MAREA_NO_GRAD,
    .shape = conv2d_int8_shape,
    .forward = conv2d_int8_forward,
    .flop = conv2d_int8_flop,
    .sample =
        "local k, s, d = {g.int(1, 3), g.int(1, 3)}, {g.int(1, 3), g.int(1, 3)}, {g.int(1, 2), g.int(1, 2)}\n"
        "local cin, n = g.int(0, 5), g.int(0, 20)\n"
        "local x = {g.int(0, 3), g.int(5, 9), g.int(5, 9), cin}\n"
        "local bytes = (k[1] * k[2] * ((cin + 3) // 4 * 4) + 4) * 16\n"
        "return {g.tensor(x, {dtype = 'f32'}), g.tensor({(n + 15) // 16, bytes}, {dtype = 'u8', lo = 0, hi = "
        "255}), g.tensor({n}, {dtype = 'f32', lo = 0, hi = 0.01}), g.bool() and g.tensor({n}, {dtype = "
        "'f32'}) "
        "or nil}, {inputs = cin, kernel = k, stride = s, "
        "dilation = d, padding = g.pick{0, 'same', {0, 1, 2, 1}}, activation = g.pick{'none', 'tanh'}}",
};
