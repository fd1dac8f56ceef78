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
   attribute lists them in this order ("none|relu|leaky_relu|elu|sigmoid|tanh|softplus"). */
typedef enum marea_activation { MAREA_ACT_NONE, MAREA_ACT_RELU, MAREA_ACT_LEAKY_RELU, MAREA_ACT_ELU,
  MAREA_ACT_SIGMOID, MAREA_ACT_TANH, MAREA_ACT_SOFTPLUS, MAREA_ACTIVATIONS } marea_activation;

#define MAREA_LINE 64 /* bytes of a cache line */

/* Memory that will be needed: rows, `row` bytes apart, of lines that are `step` bytes apart. */
typedef struct marea_stretch {
  const char *at;
  int64_t lines, step, rows, row;
} marea_stretch;

/* What to ask for while something else is computed, up to four stretches in their order. Kernels ask for a line at every
   step of theirs, and for lines of one row in a tile. */
typedef struct marea_ahead {
  const char *at;          /* the next line, and `left` of its row, `step` bytes apart; left 0: all has been asked for */
  int64_t left, step;
  marea_stretch stretch[4];
  int n, now;
} marea_ahead;

static inline void marea_ahead_turn (marea_ahead *a) {
  for (a->left = 0; a->now < a->n; a->now++) {
    marea_stretch *s = &a->stretch[a->now];
    if (s->rows == 0) continue;
    a->at = s->at;
    a->left = s->lines;
    a->step = s->step;
    s->at += s->row;
    s->rows--;
    return;
  }
}

static inline void marea_ahead_add (marea_ahead *a, marea_stretch s) {
  if (s.lines <= 0) return;
  a->stretch[a->n++] = s;
  if (a->left == 0) marea_ahead_turn(a);
}

static inline marea_stretch marea_stretch_of (const void *at, size_t bytes) {
  return (marea_stretch){at, (int64_t)bytes / MAREA_LINE, MAREA_LINE, 1, 0};
}

#define MAREA_THIN 3 /* input channels: more have enough to do in a tile */

/* Up to three taps of a row, and a channel of theirs, that meet pixels next to each other: offsets in x and w of the one
** that meets the first of them. */
typedef struct marea_tap_run {
  int64_t x, w;
  int taps;
} marea_tap_run;

/* first .. end - 1 */
typedef struct marea_range {
  int64_t first, end;
} marea_range;

/* One 2-D convolution as the kernels see it: a gather over an image, or a tile of one, all of whose taps are there.
**   y[oy][ox][co] = act(bias[co] + sum over taps t, ci of x[oy*stride_h + dy_t][ox*stride_w + dx_t][ci] * w[t][ci][co])
** for oy < rows and ox < cols. `x` points at the image's element for (oy, ox, tap offset) = 0; strides below are in
** elements. Forward uses it with the conv's own taps; the input gradient of a strided convolution is one such gather
** per sub-pixel phase (its taps being every stride-th one), written with y_row/y_col steps of `stride`. */
typedef struct marea_gather {
  const void *x, *w, *bias; /* bias NULL: none */
  void *y;
  int64_t rows, cols;       /* of the output of this call */
  int64_t x_row, x_col;     /* step of x for one output row / column (input row length * stride, ...) */
  int64_t y_row, y_col;     /* step of y for one output row / column */
  int64_t cin, cout;        /* channels of this group */
  int64_t tap_rows, taps;   /* rows of taps, and taps of a row */
  int64_t tap_row;          /* from the first tap of a row to that of the next: taps in between are left out */
  const int64_t *tap;       /* offset of tap t in x, in elements; the first row's are 0 .. taps - 1 */
  int64_t w_tap, w_ci;      /* step of w for one tap / one input channel; output channels are adjacent */
  marea_activation act;
  double slope;             /* of leaky_relu, alpha of elu */
  bool accumulate;          /* add to what is in y, in bias' place */
  bool depthwise;           /* output channel c reads input channel c alone; cin is 1 */
  bool stream;              /* write past the caches where that is possible */
  bool cold;                /* the kernel asks for the place of results */
  bool paired;              /* two vectors of output channels a tile, where a core multiplies whole ones at once: it needs
                               that many sums under way */
  marea_ahead *ahead;       /* NULL: nothing; a step is a tap and input channel of a tile */
  const marea_tap_run *run; /* of thin ones: all taps and channels once more, `runs` for a row of taps; NULL: it is not */
  int64_t runs, w_next;     /* w_next: step of w from a tap of a run to the next */
  const marea_range *inside; /* [rows], of thin ones: the rows of taps that do not meet zeros alone, which may be left out
                               or multiplied; NULL: all */
} marea_gather;

/* Lists the runs of a gather whose taps of a row are the same way apart: tap_rows * taps * cin of them at most. (runs.c) */
void marea_list_runs (marea_gather *g, marea_tap_run *run);

/* Weight gradient over one image (or some rows of it), accumulated into dw:
**   dw[m][co] += sum over oy, ox of x[oy*x_row + ox*x_col + offset[m]] * dy[oy*dy_row + ox*dy_col + co]
** m runs over (tap, ci): `offset[m]` is the element offset of tap and channel. */
typedef struct marea_correlate {
  const void *x, *dy;
  void *dw;                 /* (m, cout), row step dw_row */
  int64_t rows, cols;
  int64_t x_row, x_col, dy_row, dy_col;
  int64_t m, cout, dw_row;
  const int64_t *offset;    /* [m] */
  bool depthwise;           /* output channel c reads input channel c alone: x[... + offset[m] + co] */
  bool overwrite;           /* dw[m][co] = ... in place of +=; rows >= 1 then */
  marea_ahead *ahead;       /* NULL: nothing; a step is a pixel of a tile */
} marea_correlate;

/* C (m, n) = act(A (m, k) B (k, n) + bias); ld*: steps from row to row. ta: A is stored (k, m), neither bias nor act
** then; tb: B is stored (n, k); not both. k >= 1. */
typedef struct marea_product {
  const void *a, *b;
  void *c, *scratch;        /* MAREA_PRODUCT_SCRATCH bytes */
  int64_t m, n, k, lda, ldb, ldc;
  bool ta, tb;
  const void *bias;         /* (n); NULL: none */
  marea_activation act;
  double slope;
} marea_product;

#define MAREA_PRODUCT_DEPTH 256
#define MAREA_PRODUCT_SCRATCH (MAREA_PRODUCT_DEPTH * 128) /* a panel of two vectors of 64 bytes */

/* Bilinear algorithms for convolutions with 3 taps (winograd.inc): per dimension a tile of `outputs` comes from `data`,
** tiles being `step` data apart, by products at `points` places. */
typedef enum marea_scheme {
  MAREA_SCHEME_PLAIN,              /* stride 1; with 2 taps (the third is zero) there is no last point */
  MAREA_SCHEME_STRIDED,            /* stride 2 */
  MAREA_SCHEME_SPREAD              /* transposed, stride 2: the input gradient of STRIDED, with its weights turned round */
} marea_scheme;

typedef struct marea_scheme_sizes { int points, data, step, outputs; } marea_scheme_sizes;
#define MAREA_WINOGRAD_SIDE 6 /* the most points */

static inline marea_scheme_sizes marea_scheme_size (marea_scheme s) {
  return s == MAREA_SCHEME_PLAIN ? (marea_scheme_sizes){6, 6, 4, 4}
         : s == MAREA_SCHEME_STRIDED ? (marea_scheme_sizes){5, 5, 4, 2} : (marea_scheme_sizes){5, 3, 2, 4};
}

/* A row of tiles. The image side holds pixels, data or outputs; the other side holds one value a point, tile and
** channel: points[i * point_row + j * point + tile * channels + c]. Between the two kinds of points stand products of
** matrices, one a point: outputs (tile, cout) = data (tile, cin) weight (cin, cout). */
typedef struct marea_winograd {
  marea_scheme scheme;
  int there[2];             /* points of a column and of a row that are there: all, or all but the last */
  void *image, *points;     /* first pixel of tile 0; point (0, 0) of tile 0 */
  int64_t tiles, channels;
  int64_t row, col;         /* steps of the image, in elements */
  int64_t point_row, point; /* steps from point to point */
  int64_t top, left;        /* rows and columns of outputs of tile 0 that lie before the image, */
  int64_t rows, cols;       /* and those that lie in it from there on; data lie inside altogether */
  bool fetch;               /* points of data are not in the second-level cache: the next lines are asked for */
  const void *bias;         /* of outputs; NULL: none */
  marea_activation act;
  double slope;
} marea_winograd;

/* n values at each tap (i, j) of a kernel, and at each point; `row`, `col`: steps from tap to tap. */
typedef struct marea_winograd_kernel {
  marea_scheme scheme;
  int taps[2];              /* 3 each; of PLAIN also 2 */
  void *weight, *points;
  int64_t n, row, col, point_row, point;
  bool accumulate;          /* of the gradient: add to what is in weight */
} marea_winograd_kernel;

/* Points of so many taps. */
static inline int marea_scheme_points (marea_scheme s, int taps) {
  return marea_scheme_size(s).points - (taps == 2);
}

#define MAREA_UNARY_KERNELS(U)                                                                                \
  U(neg) U(abs) U(sign) U(square) U(sqrt) U(rsqrt) U(reciprocal) U(exp) U(log) U(log1p) U(expm1) U(sin) U(cos) \
  U(floor) U(ceil) U(round) U(relu) U(sigmoid) U(tanh) U(softplus) U(erf) U(gelu) U(silu) U(norm_icdf)         \
  U(leaky_relu) /* p[0] slope */ U(elu) /* p[0] alpha */ U(clamp) /* p[0] min, p[1] max; of integers int64_t lie there; NaN stays */ \
  U(lgamma) U(polygamma) /* p[0] order; x >= 0, NaN below */

#define MAREA_BINARY_KERNELS(B)                                                          \
  B(add) B(sub) B(mul) B(div) B(pow) B(maximum) B(minimum)                               \
  B(remainder)                 /* a - floor(a / b) b, as Lua's %: exact but for one rounding */ \
  B(floor_divide)              /* floor(a / b), as Lua's // */                           \
  /* dx from dy (a) and the activation's OUTPUT y (b); p[0] slope or alpha */            \
  B(relu_grad) B(leaky_relu_grad) B(elu_grad) B(sigmoid_grad) B(tanh_grad) B(softplus_grad) \
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
  K(sum, double, (size_t n, const void *x))                         /* lanes in real, folded in double */      \
  K(prod, double, (size_t n, const void *x))                        /* in double; 1 of no elements */            \
  K(dot, double, (size_t n, const void *x, const void *y))          /* sum of x y, added up in the same way */   \
  K(max, double, (size_t n, const void *x))                         /* n >= 1; NaN if there is one */          \
  K(min, double, (size_t n, const void *x))                                                                    \
  K(add_rows, void, (size_t rows, size_t n, size_t step, const void *x, void *y)) /* y[j] += sum_i x[i*step+j] */ \
  K(copy_rows, void, (size_t rows, size_t n, size_t x_step, const void *x, size_t y_step, void *y)) /* y[i*y_step+j] = x[i*x_step+j] */ \
  K(axpy, void, (size_t n, double a, const void *x, void *y))       /* y += a x */                             \
  K(scale, void, (size_t n, double a, const void *x, void *y))      /* y = a x */                              \
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
  K(gather, void, (const marea_gather *g))                                                                     \
  K(correlate, void, (const marea_correlate *g))                                                               \
  K(product, void, (const marea_product *g))                                                                   \
  K(winograd_data, void, (const marea_winograd *g))      /* points from image */                                \
  K(winograd_outputs, void, (const marea_winograd *g))   /* image from points, with bias and activation */       \
  K(winograd_gradient, void, (const marea_winograd *g))  /* points from image: the transpose of outputs; not SPREAD */ \
  K(winograd_weight, void, (const marea_winograd_kernel *g))          /* points from weight */                     \
  K(winograd_weight_gradient, void, (const marea_winograd_kernel *g)) /* weight from points: its transpose */     \
  /* y[i] = its word of Philox blocks counter, ... < least ? 0 : factor x[i]; ceil(n / 64) 16 blocks (random.inc) */ \
  K(dropout, void, (size_t n, uint64_t seed, uint64_t counter, uint32_t least, double factor, const void *x,    \
                    void *y))                                                                                   \
  /* optimizer updates, in place; formulas at the operators of the same names (ops/optim.c) */                 \
  K(sgd, void, (size_t n, void *p, const void *g, void *buf, const double *a))                                 \
  K(rmsprop, void, (size_t n, void *p, const void *g, void *sq, void *buf, const double *a))                   \
  K(adam, void, (size_t n, void *p, const void *g, void *m, void *v, const double *a))                         \
  K(adagrad, void, (size_t n, void *p, const void *g, void *sum, const double *a))

typedef struct marea_kernels {
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
  MAREA_OTHER_KERNELS(K)
#undef K
} marea_kernels;

/* select.c: tables of the ISA named (NULL: the best that CPU and system support). False: unknown or unsupported.
   f32 and f64 tables have every entry; integer tables have neg abs sign square, add sub mul maximum minimum,
   remainder floor_divide, comparisons, tests, where and clamp. `kernels` is indexed by marea_dtype. */
bool marea_select_kernels (const char *isa, const marea_kernels *kernels[4], const char **chosen);
/* cpu.c: the ISAs that this machine can run, best first, ends with NULL: {"avx512", "avx2", "generic", NULL} on
   x86-64, {"neon", "generic", NULL} on AArch64. */
const char *const *marea_cpu_isas (void);
/* Does this machine do AVX-512's products in one turn? Then they outrun the second-level cache sooner. */
bool marea_cpu_is_wide (void);

#endif
