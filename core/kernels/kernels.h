/* SPDX-License-Identifier: MIT
** kernels.h: the list of kernels. A kernel is a loop over plain memory: it knows no tensor, no context and no
** thread, allocates nothing and cannot fail. Each body is written once over the vector type of vec_*.h and
** compiled per ISA (isa_*.c); f64 runs the same bodies on the generic vectors.
**
** Pointers are to `real` (float or double, by table) unless said otherwise; they may be unaligned. Outputs may
** be the same memory as an input of the same type, but may not overlap it otherwise. n may be 0.
*/
#ifndef MAREA_KERNELS_H
#define MAREA_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* y[i] = f(x[i]); p: the operator's real attributes in order, may be NULL where there are none. */
typedef void marea_unary_kernel (size_t n, const void *x, void *y, const double *p);
/* y[i] = f(a[i*sa], b[i*sb]); sa, sb are 0 or 1. */
typedef void marea_binary_kernel (size_t n, const void *a, size_t sa, const void *b, size_t sb, void *y,
                                  const double *p);
/* y[i] = f(a[i*sa], b[i*sb], c[i*sc]); strides are 0 or 1. */
typedef void marea_ternary_kernel (size_t n, const void *a, size_t sa, const void *b, size_t sb,
                                   const void *c, size_t sc, void *y, const double *p);

/* Activations that can be fused into linear and convolution. ORDER ACTIVATION: the operators' `activation`
   attribute lists them in this order. */
#define MAREA_ACTIVATION_NAMES "none|relu|leaky_relu|elu|sigmoid|tanh|softplus|relu6"
typedef enum marea_activation { MAREA_ACT_NONE, MAREA_ACT_RELU, MAREA_ACT_LEAKY_RELU, MAREA_ACT_ELU,
  MAREA_ACT_SIGMOID, MAREA_ACT_TANH, MAREA_ACT_SOFTPLUS, MAREA_ACT_RELU6, MAREA_ACTIVATIONS } marea_activation;

#define MAREA_LINE 64 /* bytes of a cache line */

/* Memory to prefetch: `rows` rows, `row` bytes apart, of `lines` cache lines each, `step` bytes apart. */
typedef struct marea_prefetch_area {
  const char *at;
  int64_t lines, step, rows, row;
} marea_prefetch_area;

/* What a kernel prefetches while it computes: up to four areas, in their order. It requests one cache line at each step
   of its inner loop (a step: see the `prefetch` field of the kernel's struct), and within one tile only lines of the
   row that it is at. */
typedef struct marea_prefetch {
  const char *at;          /* the next line; `left` more of its row follow, `step` bytes apart. left 0: nothing to do */
  int64_t left, step;
  marea_prefetch_area area[4];
  int n, now;              /* areas; the one that `at` lies in */
} marea_prefetch;

/* Moves on to the next row that has lines, when left is 0. */
static inline void marea_prefetch_next_row (marea_prefetch *p) {
  for (p->left = 0; p->now < p->n; p->now++) {
    marea_prefetch_area *area = &p->area[p->now];
    if (area->rows == 0) continue;
    p->at = area->at;
    p->left = area->lines;
    p->step = area->step;
    area->at += area->row;
    area->rows--;
    return;
  }
}

static inline void marea_prefetch_add (marea_prefetch *p, marea_prefetch_area area) {
  if (area.lines <= 0) return;
  p->area[p->n++] = area;
  if (p->left == 0) marea_prefetch_next_row(p);
}

static inline marea_prefetch_area marea_prefetch_area_of (const void *at, size_t bytes) {
  return (marea_prefetch_area){at, (int64_t)bytes / MAREA_LINE, MAREA_LINE, 1, 0};
}

/* The most input channels for which the kernel of few channels (direct_conv_few.inc) is used. 3x3, 28x28, batch 32, to 32
   channels, ms by it and by direct_conv.inc (bench/ours/worker.lua, see core/ops/conv/choose.c): from 1 channel 0.11 and
   0.15, from 3 0.23 and 0.26, from 5 0.39 and 0.37. */
#define MAREA_FEW_CHANNELS 3

/* Up to three taps of one row, and one input channel, that read pixels next to each other: offsets in x and w of the
   tap that reads the first of these pixels, in elements. */
typedef struct marea_tap_run {
  int64_t x, w;
  int taps;
} marea_tap_run;

/* first .. end - 1 */
typedef struct marea_range {
  int64_t first, end;
} marea_range;

/* Direct convolution of an image, or of a tile of one, in which all taps lie:
**   y[oy][ox][co] = act(bias[co] + sum over taps t, ci of x[oy][ox][tap[t] + ci] * w[t][ci][co]),  oy < rows, ox < cols,
** where x[oy][ox] is at x + oy * x_row + ox * x_col. All steps are in elements. The forward pass uses it with the taps
** of the convolution. The input gradient of a convolution of stride s calls it once for each of the s x s phases: each
** phase has every s-th tap, and its y_row and y_col are steps of s pixels. */
typedef struct marea_direct_conv {
  const void *x;            /* (rows, cols, ..): the pixel that offset 0 reads for output (0, 0) */
  const void *w;            /* (taps, cin, cout) by steps w_tap, w_ci, 1 */
  const void *bias;         /* (cout); NULL: none */
  void *y;                  /* (rows, cols, cout) by steps y_row, y_col, 1 */
  int64_t rows, cols;       /* outputs of this call */
  int64_t x_row, x_col;     /* step in x from the input of an output row / column to that of the next */
  int64_t y_row, y_col;     /* step in y from an output row / column to the next */
  int64_t x_half, y_half;   /* for the kernel's own use, 0: steps from a tile's pixel 0 to pixel 7 */
  int64_t cin, cout;        /* channels of this group */
  int64_t tap_rows, taps;   /* rows of taps; taps of a row */
  int64_t tap_row;          /* index in tap[] from the first tap of a row to that of the next; >= taps */
  const int64_t *tap;       /* offset of a tap in x; the first row has tap[0 .. taps - 1] */
  int64_t w_tap, w_ci;      /* step in w for a tap, for an input channel; output channels are adjacent */
  marea_activation act;
  double slope;             /* of leaky_relu, alpha of elu */
  bool accumulate;          /* adds to what y holds, instead of to the bias */
  bool x_packed;            /* x is packed for one tap: (tile, cin, VEC_TILE); x_col is 1 */
  bool depthwise;           /* output channel c reads input channel c alone; cin is 1 */
  bool stream_output;       /* writes y by non-temporal stores, past the caches, where y is aligned for it */
  bool prefetch_output;     /* prefetches the lines of y before it writes them */
  bool two_vectors;         /* few input channels: tiles two vectors of output channels wide instead of one, for a core
                               that does a 512-bit multiply-add in one turn (marea_cpu_is_wide): its two units need 8
                               sums each to be busy, and a tile of 8 pixels by one vector has 8 in all */
  marea_prefetch *prefetch; /* NULL: nothing; a step of it is a tap and input channel of a tile */
  /* Few input channels, set by marea_list_tap_runs; run NULL: the kernel for any number of channels is used. */
  const marea_tap_run *run; /* (tap_rows, runs): every tap and channel, joined to runs of neighbouring pixels */
  int64_t runs, w_next;     /* runs of a row of taps; step in w from a tap of a run to the next */
  const marea_range *rows_inside; /* [rows] or NULL: rows of taps outside of it read only padding, which is zeros; the
                               kernel may leave them out */
} marea_direct_conv;

/* Fills run[] (of tap_rows * taps * cin at most) and the fields of g that belong to it. The taps of each row must lie
   the same distance apart. (tap_runs.c) */
void marea_list_tap_runs (marea_direct_conv *g, marea_tap_run *run);

/* The weight gradient of an image, or of some rows of it, added to dw:
**   dw[m][co] += sum over oy, ox of x[oy*x_row + ox*x_col + offset[m]] * dy[oy*dy_row + ox*dy_col + co].
** m counts (tap, input channel). All steps are in elements. */
typedef struct marea_direct_wgrad {
  const void *x;            /* (rows, cols, ..) by steps x_row, x_col */
  const void *dy;           /* (rows, cols, cout) by steps dy_row, dy_col, 1 */
  void *dw;                 /* (m, cout) by steps dw_row, 1 */
  int64_t rows, cols;       /* of dy */
  int64_t x_row, x_col, dy_row, dy_col;
  int64_t m, cout, dw_row;
  const int64_t *offset;    /* [m] of a tap and channel in x */
  bool depthwise;           /* output channel c reads input channel c alone: x[... + offset[m] + co] */
  bool overwrite;           /* dw[m][co] = ... instead of +=; rows >= 1 then */
  marea_prefetch *prefetch; /* NULL: nothing; a step of it is a pixel of a tile */
} marea_direct_wgrad;

/* C (m, n) = act(A (m, k) B (k, n) + bias); ld*: steps from row to row. ta: A is stored (k, m); tb: B is stored (n, k).
** 1 <= m <= MAREA_PRODUCT_ROWS, 1 <= k <= MAREA_PRODUCT_DEPTH: what is packed of A is a quarter of a second-level cache
** then, 256 KB of f32. */
typedef struct marea_product {
  const void *a, *b;
  const void *panels;       /* B as product_panels packs it, instead of b; NULL: not packed */
  void *c, *scratch;        /* marea_product_scratch(m, bytes of an element) bytes */
  int64_t m, n, k, lda, ldb, ldc;
  bool ta, tb;
  const void *bias;         /* (n); NULL: none */
  marea_activation act;
  double slope;
  bool accumulate;          /* adds to what C holds, instead of to the bias */
} marea_product;

/* y = x W + bias, a row x (k) and W (k, m) in panels of MAREA_ROW_PANEL columns: (panel, k, column), the last one narrower;
** or as it is stored, w_row elements from row to row. */
typedef struct marea_row_product {
  const void *x, *w, *bias; /* bias (m); NULL: none */
  void *y;
  int64_t k, m;
  int64_t w_row;            /* 0: W is in panels */
  bool accumulate;          /* adds to what y holds, instead of to the bias */
} marea_row_product;

#define MAREA_ROW_PANEL 32  /* two vectors of the widest */

#define MAREA_PRODUCT_ROWS 256
#define MAREA_PRODUCT_DEPTH 256

#define MAREA_PRODUCT_FEW 16 /* rows of A up to which panels of B are packed together, so many columns of them: */
#define MAREA_PRODUCT_WIDE 256

/* A panel of B, two vectors of up to 16 elements, and packed rows of A, whose last tile may be nearly empty; or, of a
** product of few rows, the panels that are packed together */
static inline size_t marea_product_scratch (int64_t m, size_t size) {
  const int64_t rows = m < MAREA_PRODUCT_ROWS ? m : MAREA_PRODUCT_ROWS;
  const int64_t usual = 32 + rows + 16, few = MAREA_PRODUCT_WIDE + MAREA_PRODUCT_FEW + 16;
  return (size_t)(MAREA_PRODUCT_DEPTH * (usual > few ? usual : few)) * size;
}

/* Neighbouring windows of an image, of a row of outputs. All steps are in elements. A window has `rows` x `cols` places, whose
** channels are adjacent; there are fewer than 2^31 of them. The first one wins at a tie, and a NaN against all. */
typedef struct marea_max_windows {
  const void *x;
  void *y;                   /* max_windows: the largest elements, (windows, n) by steps y_step, 1 */
  const void *dy;            /* max_windows_grad: the same of their gradients */
  void *dx;                  /* dy's elements are added at the places of the largest ones of x, */
  bool overwrite;            /* or written there, and zeros to all other places */
  int64_t windows, n;        /* n: channels */
  int64_t x_step, y_step;    /* from window to window */
  int64_t rows, cols, row, col; /* places of a window, and steps between them */
} marea_max_windows;

/* Rows of `width` channels of bf16, `step` apart; what belongs to a channel, all the rest, is f32. With d = x - mean and e = dy,
   or behind relu 0 where d factor + offset <= 0: */
typedef struct marea_bf16_rows {
  size_t rows, width, step;
  const uint16_t *x, *dy;
  uint16_t *to;
  const float *mean, *factor, *offset, *a, *b, *c;
  float *sum, *squares;
  bool relu;
} marea_bf16_rows;

/* Products of bf16 operands, their bits as uint16_t, which are summed in f32: for every place (i, j) of a grid of rows
** and columns and every n,
**   y[i][j][n] = act(bias[n] + sum over taps t, d of x[i][j][tap[t] + d] * w[t][d][n]).
** A convolution's grid is its outputs; of a matrix product it is one row of as many columns as A has rows, with one tap.
** All steps are in elements. Sums of one place have the same order whatever the grid is. */
typedef struct marea_bf16_product {
  const uint16_t *x;        /* at i * x_row + j * x_col + tap[t], `depth` adjacent elements */
  const uint16_t *w;        /* packed: (panel, tap, depth / 2, MAREA_BF16_PANEL, 2) by steps w_panel, w_tap; the columns
                               of the last panel that n does not have are zeros */
  const float *bias;        /* (n); NULL: none */
  void *y;                  /* (rows, cols, n) by steps y_row, y_col, 1: bf16, or f32 if `wide` */
  int64_t rows, cols, x_row, x_col, y_row, y_col;
  int64_t depth;            /* marea_bf16_depth_fits */
  int64_t n;
  int64_t tap_rows, taps, tap_row; /* as of marea_direct_conv */
  const int64_t *tap;
  int64_t w_tap, w_panel;
  bool wide;                /* y is f32 */
  bool accumulate;          /* adds to what y holds, without bias and activation; y is f32 then */
  bool prefetch_output;     /* y is in no cache yet: its lines are requested before its sums are made */
  marea_activation act;
  double slope;
  const struct marea_kernels *f32; /* of the same context: activations */
} marea_bf16_product;

#define MAREA_BF16_PANEL 16 /* columns of w that are packed together */
#define MAREA_BF16_DEPTH 32 /* elements that are multiplied at a time: a row of an AMX tile, 64 bytes */

/* The depth is cut into equal pieces of pairs, each of at most MAREA_BF16_DEPTH elements, so that nothing behind it is
   read. */
static inline int64_t marea_bf16_pieces (int64_t depth) {
  return (depth + MAREA_BF16_DEPTH - 1) / MAREA_BF16_DEPTH;
}

static inline bool marea_bf16_depth_fits (int64_t depth) {
  return depth > 0 && depth % (2 * marea_bf16_pieces(depth)) == 0;
}

/* Columns of the panels that hold n of them */
static inline int64_t marea_bf16_columns (int64_t n) {
  return (n + MAREA_BF16_PANEL - 1) / MAREA_BF16_PANEL * MAREA_BF16_PANEL;
}

/* Sums of products of bytes, x 0 .. 255 and w -127 .. 127, in int32, which wraps around:
**   sum[i][n] = sum over taps t, d of x[i * x_col + tap[t] + d] * w[t][d][n],   n < MAREA_INT8_COLUMNS. */
typedef struct marea_int8_sums {
  const uint8_t *x;
  const int8_t *w;          /* packed: (panel, tap, depth / 4, MAREA_INT8_PANEL, 4); the two are w_panel apart,
                               which may be 0 */
  int32_t *sum;             /* (places, MAREA_INT8_COLUMNS) */
  const int64_t *tap;
  int64_t places;           /* 1 .. MAREA_INT8_PLACES; 0, once, behind the last call */
  int64_t height;           /* the kernel's own between calls that differ in no depth; 0 before the first */
  int64_t x_col, taps, w_panel;
  int64_t depth;            /* marea_int8_depth of one */
} marea_int8_sums;

#define MAREA_INT8_PANEL 16   /* columns of w that are packed together */
#define MAREA_INT8_COLUMNS 32 /* of two panels */
#define MAREA_INT8_PLACES 64

/* The least depth from n on that is cut into equal pieces of fours, each of at most 64, a row of an AMX tile: what
   marea_bf16_depth_fits says of pairs. */
static inline int64_t marea_int8_depth (int64_t n) {
  const int64_t pairs = (n + 3) / 4 * 2;
  return 2 * (marea_bf16_depth_fits(pairs) ? pairs : marea_bf16_pieces(pairs) * MAREA_BF16_DEPTH);
}

typedef void marea_int8_kernel (marea_int8_sums *g);

/* What differs between the instruction sets that share a table of f32 (isas.c) */
typedef struct marea_bf16_kernels {
  void (*product)(const marea_bf16_product *g);
} marea_bf16_kernels;

/* Winograd's convolutions with 3 taps (winograd.inc). In each dimension a tile of `outputs` pixels is made from `data`
** pixels, and neighbouring tiles start `step` data apart. Data and weights are transformed to `points` values each (in
** Toom and Cook's view, the values of polynomials at points), these are multiplied one by one, and the products are
** transformed to the outputs. */
typedef enum marea_winograd_variant {
  MAREA_WINOGRAD_F43,        /* F(4x4, 3x3), stride 1. With 2 taps (the third is zero) it has one point less */
  MAREA_WINOGRAD_STRIDE2,    /* stride 2, 2x2 outputs */
  MAREA_WINOGRAD_TRANSPOSED2 /* transposed, stride 2: the input gradient of STRIDE2, whose weights are flipped */
} marea_winograd_variant;

typedef struct marea_winograd_sizes { int points, data, step, outputs; } marea_winograd_sizes;
#define MAREA_WINOGRAD_SIDE 6 /* the most points */

static inline marea_winograd_sizes marea_winograd_size (marea_winograd_variant v) {
  return v == MAREA_WINOGRAD_F43 ? (marea_winograd_sizes){6, 6, 4, 4}
         : v == MAREA_WINOGRAD_STRIDE2 ? (marea_winograd_sizes){5, 5, 4, 2} : (marea_winograd_sizes){5, 3, 2, 4};
}

/* A row of Winograd tiles. One side is pixels of an image (data or outputs), the other one the transformed tiles: value
** (i, j) of a tile and channel is transformed[i * point_row + j * point + tile * channels + c]. Between data and outputs
** there is one matrix product for each point (i, j): outputs (tile, cout) = data (tile, cin) weight (cin, cout). */
typedef struct marea_winograd_row {
  marea_winograd_variant variant;
  int present[2];           /* points of a column and of a row: all, or all but the last (of F43 with 2 taps) */
  void *image;              /* (.., .., channels) by steps row, col, 1: the first pixel of tile 0 */
  void *transformed;        /* (point, point, tile, channel) by steps point_row, point, channels, 1 */
  int64_t tiles, channels;
  int64_t row, col;         /* steps of the image, in elements */
  int64_t point_row, point; /* steps from point to point, in elements */
  int64_t top, left;        /* rows and columns of tile 0's outputs that lie above and left of the image, .. */
  int64_t rows, cols;       /* .. and how many from there on lie in it. Data lie in the image altogether */
  bool prefetch_output;     /* prefetches the transformed data that it writes next: they lie in no near cache */
  const void *bias;         /* (channels) of outputs; NULL: none */
  marea_activation act;
  double slope;
} marea_winograd_row;

/* n weights at each tap (i, j), and their values at each point (i, j). */
typedef struct marea_winograd_weight {
  marea_winograd_variant variant;
  int taps[2];              /* 3 each; of F43 also 2 */
  void *weight;             /* (tap, tap, n) by steps row, col, 1 */
  void *transformed;        /* (point, point, n) by steps point_row, point, 1 */
  int64_t n, row, col, point_row, point;
  bool accumulate;          /* of the gradient: adds to what weight holds */
} marea_winograd_weight;

/* Points in a dimension of so many taps. */
static inline int marea_winograd_points (marea_winograd_variant v, int taps) {
  return marea_winograd_size(v).points - (taps == 2);
}

#define MAREA_UNARY_KERNELS(U)                                                                                \
  U(neg) U(abs) U(sign) U(square) U(sqrt) U(rsqrt) U(reciprocal) U(exp) U(log) U(log1p) U(expm1) U(sin) U(cos) U(atan) \
  U(floor) U(ceil) U(round) U(relu) U(relu6) U(sigmoid) U(tanh) U(softplus) U(erf) U(gelu) U(silu) U(hard_swish) U(norm_icdf)         \
  U(leaky_relu) /* p[0] slope */ U(elu) /* p[0] alpha */ U(clamp) /* p[0] min, p[1] max; of integers int64_t lie there; NaN stays */ \
  U(lgamma) U(polygamma) /* p[0] order; x >= 0, NaN below */

#define MAREA_BINARY_KERNELS(B)                                                          \
  B(add) B(sub) B(mul) B(div) B(pow) B(maximum) B(minimum)                               \
  B(remainder)                 /* a - floor(a / b) b, as Lua's %: exact but for one rounding */ \
  B(floor_divide)              /* floor(a / b), as Lua's // */                           \
  /* dx from dy (a) and the activation's OUTPUT y (b); p[0] slope or alpha */            \
  B(relu_grad) B(leaky_relu_grad) B(elu_grad) B(sigmoid_grad) B(tanh_grad) B(softplus_grad) B(relu6_grad) \
  B(gelu_grad)                 /* dy (a) times gelu's slope at its INPUT x (b) */        \
  /* losses per element, a = prediction, b = target */                                   \
  B(bce)                       /* p[0] eps: Keras' clip; -(t log q + (1-t) log(1-q)), q = clamp(a, eps, 1-eps) */ \
  B(bce_grad)                  /* d bce / d a; 0 outside [eps, 1-eps] */                 \
  B(bce_with_logits)           /* max(a,0) - a*t + log1p(exp(-|a|)) */                   \
  B(bce_with_logits_grad)      /* sigmoid(a) - t */                                      \
  B(huber) B(huber_grad)       /* p[0] delta */                                          \
  B(squared_difference)        /* (a - b)^2 */                                           \
  B(absolute_difference)       /* |a - b| */                                             \
  B(kl_normal)                 /* a mean, b log variance: 0.5 (a^2 + exp(b) - 1 - b) */

/* Comparisons: y is uint8_t, 0 or 1; all are false on NaN but ne. */
#define MAREA_COMPARE_KERNELS(C) C(eq) C(ne) C(lt) C(le) C(gt) C(ge)

/* Tests: y is uint8_t, 0 or 1. */
#define MAREA_TEST_KERNELS(T) T(is_nan) T(is_inf) T(is_finite)

/* K(name, return type, parameters). Sums run over a fixed tree of lanes, the same for every alignment. */
#define MAREA_OTHER_KERNELS(K)                                                                                 \
  K(sum, double, (size_t n, const void *x))                         /* lanes in real, reduced in double */      \
  K(prod, double, (size_t n, const void *x))                        /* in double; 1 of no elements */            \
  K(dot, double, (size_t n, const void *x, const void *y))          /* sum of x y, added up in the same way */   \
  K(max, double, (size_t n, const void *x))                         /* n >= 1; NaN if there is one */          \
  K(min, double, (size_t n, const void *x))                                                                    \
  K(add_rows, void, (size_t rows, size_t n, size_t step, const void *x, void *y)) /* y[j] += sum_i x[i*step+j] */ \
  K(copy_rows, void, (size_t rows, size_t n, size_t x_step, const void *x, size_t y_step, void *y)) /* y[i*y_step+j] = x[i*x_step+j] */ \
  K(axpy, void, (size_t n, double a, const void *x, void *y))       /* y += a x */                             \
  K(scale, void, (size_t n, double a, const void *x, void *y))      /* y = a x */                              \
  K(scale_normal, void, (size_t n, double a, const void *x, void *y)) /* the same of x >= 0, 0 where |y| < REAL_MIN */ \
  K(exp_sum, double, (size_t n, double shift, const void *x, void *y)) /* y = exp(x - shift), y NULL: not kept */ \
  K(bias_act, void, (size_t rows, size_t n, const void *bias, marea_activation act, double slope, void *y))    \
                                                                    /* y[i][j] = act(y[i][j] + bias[j]); bias NULL: none */ \
  /* normalization (norm.inc). Of (rows, n) elements `step` apart: sum[j] += sum_i d, squares[j] += sum_i d^2,     \
     d = x[i][j] - shift[j]; the same of n elements in a row; sum[j] += sum_i e[i][j] (x[i][j] - shift[j]) */     \
  K(add_moments, void, (size_t rows, size_t n, size_t step, const void *x, const void *shift, void *sum,        \
                        void *squares))                                                                         \
  K(moments, void, (size_t n, const void *x, double shift, double *sum, double *squares))                       \
  K(add_products, void, (size_t rows, size_t n, size_t e_step, const void *e, size_t step, const void *x,       \
                         const void *shift, void *sum))                                                         \
  /* y = (x - mean[j]) factor[j] + offset[j]; y = a[j] e + b[j] (x - mean[j]) + c[j] */                         \
  K(normalize, void, (size_t rows, size_t n, const void *x, const void *mean, const void *factor,               \
                      const void *offset, void *y))                                                             \
  K(normalize_grad, void, (size_t rows, size_t n, const void *e, const void *x, const void *mean,               \
                           const void *a, const void *b, const void *c, void *y))                               \
  /* recurrent cells, n units of a row (recurrent.inc). y = tanh or relu of x + h; da from y and dh */           \
  K(rnn_cell, void, (size_t n, const void *x, const void *h, bool relu, void *y))                                \
  K(rnn_cell_grad, void, (size_t n, const void *y, const void *dh, bool relu, void *da))                         \
  /* y = s(x + h), s being the sigmoid or Keras' hard one */                                                     \
  K(recurrent_gate, void, (size_t n, const void *x, const void *h, bool hard, void *y))                          \
  /* new = tanh(x + q); y = (1 - z) new + z h. Back from dh, which becomes dh z: the gradients before z and new */ \
  K(gru_update, void, (size_t n, const void *x, const void *q, const void *z, const void *h, void *new, void *y)) \
  K(gru_update_grad, void, (size_t n, const void *z, const void *new, const void *h, bool hard, void *dh, void *dz, \
                            void *dnew))                                                                         \
  /* of r x, from its gradient d: that before r, and dx = d r, which may lie where d does */                     \
  K(gru_reset_grad, void, (size_t n, const void *r, const void *x, const void *d, bool hard, void *dr, void *dx)) \
  /* c, y and, unless NULL, gates (4n) from the sums before the gates (4n) */                                     \
  K(lstm_cell, void, (size_t n, const void *a, bool hard, void *c, void *gates, void *y))                        \
  /* dc, which becomes that of the step before, and the gradient before the gates (4n), from dh */               \
  K(lstm_cell_grad, void, (size_t n, const void *gates, const void *c_before, const void *c, const void *dh,     \
                           bool hard, void *dc, void *dgates))                                                   \
  K(turn, void, (size_t rows, size_t cols, size_t x_row, const void *x, size_t y_row, void *y)) /* y[j*y_row+i] = x[i*x_row+j] */ \
  /* attention (attention.inc). s[i] += mask[i*step], step 0 or 1; -infinity where the mask is that, whatever s is */ \
  K(add_mask, void, (size_t n, const void *mask, size_t step, void *s))                                          \
  /* softmax of scores that come in pieces (rows, n), `step` apart: max[i] becomes the largest score so far, s the    \
     exponentials of s - max, and sum and y (rows, width), 0 while max is -infinity, are multiplied by exp(old max - max) before s adds to sum */ \
  K(softmax_piece, void, (size_t rows, size_t n, size_t step, void *s, void *max, void *sum, size_t width, void *y, \
                          uint16_t *p, size_t p_step)) \
  /* and back: p = exp(s - lse[i]), 0 where s is -infinity; ds = p (keep dp - shift[i]), 0 where p is 0; s becomes   \
     p keep, and dp ds. keep NULL: 1 */                                                                           \
  K(softmax_piece_grad, void, (size_t rows, size_t n, size_t step, void *s, void *dp, const void *keep,           \
                               const void *lse, const void *shift))                                              \
  /* additive attention, one query q (n) and keys k (rows, n): y[i] = sum_j v[j] tanh(q[j] + k[i*step+j]). Back from d,   \
     the gradient of y: dq (n) is set, dk (rows, n), which has the step of k, and dv (n) are added to */             \
  K(tanh_dot, void, (size_t rows, size_t n, size_t step, const void *q, const void *k, const void *v, void *y))  \
  K(tanh_dot_grad, void, (size_t rows, size_t n, size_t step, const void *q, const void *k, const void *v,       \
                          const void *d, void *dq, void *dk, void *dv))                                          \
  K(max_windows, void, (const marea_max_windows *g)) \
  K(max_windows_grad, void, (const marea_max_windows *g)) \
  K(direct_conv, void, (const marea_direct_conv *g))                                                                     \
  K(direct_wgrad, void, (const marea_direct_wgrad *g))                                                               \
  K(row_product, void, (const marea_row_product *g))                                                              \
  K(product_panels, void, (const marea_product *g, void *panels)) /* B, stored (k, n): a panel of columns behind the other, k n elements */ \
  K(product, void, (const marea_product *g))                                                                   \
  /* y[i] = its word of Philox blocks counter, ... < least ? 0 : factor x[i]; ceil(n / 64) 16 blocks (random.inc) */ \
  K(dropout, void, (size_t n, uint64_t seed, uint64_t counter, uint32_t least, double factor, const void *x,    \
                    void *y))                                                                                   \
  /* optimizer updates, in place; formulas at the operators of the same names (ops/optim.c) */                 \
  K(sgd, void, (size_t n, void *p, const void *g, void *buf, const double *a))                                 \
  K(rmsprop, void, (size_t n, void *p, const void *g, void *sq, void *buf, const double *a))                   \
  K(adam, void, (size_t n, void *p, const void *g, void *m, void *v, const double *a))                         \
  K(adagrad, void, (size_t n, void *p, const void *g, void *sum, const double *a))

/* Of f32 tables alone: Winograd's transforms; bf16 and f16 as their bits. */
#define MAREA_F32_KERNELS(K)                                                                                    \
  K(winograd_data, void, (const marea_winograd_row *g))      /* transformed from image */                            \
  K(winograd_outputs, void, (const marea_winograd_row *g))   /* image from transformed, with bias and activation */   \
  K(winograd_gradient, void, (const marea_winograd_row *g))  /* the transpose of winograd_outputs; not TRANSPOSED2 */ \
  K(winograd_weight, void, (const marea_winograd_weight *g))          /* transformed from weight */                \
  K(winograd_weight_gradient, void, (const marea_winograd_weight *g)) /* weight from transformed: its transpose */ \
  /* y = factor x + shift, within 0 and 255, rounded to nearest even (int8.inc) */                               \
  K(int8_quantize, void, (size_t n, const float *x, float factor, float shift, uint8_t *y))                      \
  /* y[i][j] = (sum[i][j] - zero[i] column[j]) (factor[i] scale[j]) + bias[i][j], n <= MAREA_INT8_COLUMNS, the step  \
     of sum, which is the size of column, and at least `least`; bias may be y; NULL, step 0: none */                                                                                     \
  K(int8_finish, void, (size_t rows, size_t n, const int32_t *sum, const int32_t *column, const float *factor,  \
                        const int32_t *zero, const float *scale, const float *bias, size_t bias_step, float least,  \
                        size_t y_step, float *y))                                                                               \
  /* to f32 and back (half.h) */                                                    \
  K(widen_bf16, void, (size_t n, const uint16_t *x, float *y))                                                  \
  K(widen_f16, void, (size_t n, const uint16_t *x, float *y))                                                   \
  K(narrow_bf16, void, (size_t n, const float *x, uint16_t *y))                                                 \
  K(narrow_f16, void, (size_t n, const float *x, uint16_t *y))                                                  \
  K(bf16_add_scaled, void, (size_t rows, size_t n, size_t step, const uint16_t *w, const float *x,               \
                            float *y))                       /* y[j] += sum_i x[i] w[i*step+j] */                \
  K(bf16_dot, float, (size_t n, const uint16_t *w, const float *x)) /* sum_i x[i] w[i] */                        \
  K(relu_grad_bf16, void, (size_t n, const uint16_t *dy, const uint16_t *y, uint16_t *dx))                        \
  /* normalization (norm_bf16.inc); NULL where rows are better converted. sum += d, squares += d^2; sum += e,           \
     squares += e d; to = d factor + offset, or its relu; to = a e + b d + c */                 \
  K(bf16_norm_moments, void, (const marea_bf16_rows *r))                                                         \
  K(bf16_norm_sums, void, (const marea_bf16_rows *r))                                                            \
  K(bf16_normalize, void, (const marea_bf16_rows *r))                                                            \
  K(bf16_norm_grad, void, (const marea_bf16_rows *r))                                                            \
  /* pairs of rows: y[i*y_step+j] has x[2i*step+j] in its lower half and x[(2i+1)*step+j], 0 behind the last row, in its  \
     upper one */                                                                                                \
  K(bf16_pairs, void, (size_t rows, size_t n, ptrdiff_t step, const uint16_t *x, size_t y_step, uint32_t *y))

typedef struct marea_kernels marea_kernels;
struct marea_kernels {
#define U(name) marea_unary_kernel *name;
  MAREA_UNARY_KERNELS(U)
#undef U
#define B(name) marea_binary_kernel *name;
  MAREA_BINARY_KERNELS(B)
#undef B
#define C(name) marea_binary_kernel *name;
  MAREA_COMPARE_KERNELS(C)
#undef C
#define T(name) marea_unary_kernel *name;
  MAREA_TEST_KERNELS(T)
#undef T
  marea_ternary_kernel *where; /* a: condition, uint8_t; b, c: real */
#define K(name, result, parameters) result(*name) parameters;
  MAREA_OTHER_KERNELS(K) MAREA_F32_KERNELS(K)
#undef K
};

/* Tables of the ISA named (NULL: the best that runs here). False: unknown, or it does not run here.
   f32 tables have every entry, f64 ones all but MAREA_F32_KERNELS; integer tables have neg abs sign square, add sub mul maximum minimum,
   remainder floor_divide, comparisons, tests, where and clamp. `kernels` is indexed by marea_dtype; those that are only stored have no table. (isas.c) */
bool marea_select_kernels (const char *isa, const marea_kernels *kernels[], const char **chosen);
/* Of the ISA that was chosen */
const marea_bf16_kernels *marea_select_bf16 (const char *isa);
/* Of bytes: the processor's best that belongs to this ISA */
marea_int8_kernel *marea_select_int8 (const char *isa);
/* The instruction sets that run here, the best one first; NULL behind the last one: "amx", "avx512_bf16", "avx512", "avx2",
   "generic" on x86-64, "neon", "generic" on AArch64. (isas.c) */
const char *marea_runnable_isa (int i);
/* The one that the processor has and the system refuses to this process; NULL: none. */
const char *marea_refused_isa (void);
/* Has the ISA vectors of 512 bits? */
bool marea_isa_is_512 (const char *isa);
/* Does a core of this machine do a whole 512-bit multiply-add in one turn? Then arithmetic is twice as fast in relation
   to the caches as where AVX-512 runs in two halves or there is none. */
bool marea_cpu_is_wide (void);
/* Does a core write whole lines faster past its caches than to them? Intel's cores lose by it. */
bool marea_cpu_streams (void);

#endif
