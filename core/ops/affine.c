/* SPDX-License-Identifier: MIT
** affine.c: images that are moved, turned, scaled and sheared by a matrix each, channels last. A pixel of the result is
** read at a place between pixels of x; hat(s) = max(0, 1 - |s|) weighs those around it (bilinear interpolation):
**
**   y[n, i, j, c] = sum over r, s of x[n, r, s, c] hat(py - r) hat(px - s)
**   px = cx + m11 u + m12 v + m13      u = j - cx, cx = (W - 1) / 2
**   py = cy + m21 u + m22 v + m23      v = i - cy, cy = (H - 1) / 2
**
** y is linear in x, and its derivative by px or py is the same sum with hat' for hat. So the operator and its adjoint,
** with an attribute that says which hats are differentiated, are closed under differentiation.
*/
#include "vjp.h"

enum { DERIVATIVE }; /* ORDER of the attributes */

#define UNIT 4096 /* elements of a block of forward's rows: 16 KB of f32 */
#define FEW 8     /* channels below which a loop replaces the call of a kernel: one vector of AVX2 */

typedef struct pass {
  marea_context *ctx;
  const marea_kernels *kernels;
  int dtype;
  size_t size; /* of an element */
  int64_t h, w, c;
  bool slope[2];       /* hat' for hat, down the rows and along them */
  int64_t rows, parts; /* of an image in one block of forward; blocks of an image */
  const char *from, *matrix;
  char *to;
} pass;

/* The pixels on both sides of a place along one dimension, with their weights; those of weight 0 are left out. */
typedef struct taps {
  int n;
  int64_t at[2];
  double weight[2];
} taps;

static taps taps_at (double place, int64_t size, bool slope) {
  taps t = {0};
  if (!(place > -1 && place < (double)size)) return t; /* nor NaN */
  const int64_t whole = (int64_t)place, below = whole - (place < (double)whole);
  const double part = place - (double)below;
  const double weight[] = {slope ? -1 : 1 - part, slope ? 1 : part};
  for (int i = 0; i < 2; i++) {
    const int64_t at = below + i;
    if (at < 0 || at >= size || weight[i] == 0) continue;
    t.at[t.n] = at;
    t.weight[t.n++] = weight[i];
  }
  return t;
}

static void read_matrix (const pass *p, int64_t n, double m[6]) {
  for (int i = 0; i < 6; i++) m[i] = marea_load(p->dtype, p->matrix, n * 6 + i);
}

static size_t pixel (const pass *p, int64_t n, int64_t i, int64_t j) {
  return (size_t)(((n * p->h + i) * p->w + j) * p->c) * p->size;
}

/* to += weight * from, for the channels of a pixel */
static void add_pixel (const pass *p, double weight, const char *from, char *to) {
#define ADD_CHANNELS(type) \
  for (int64_t i = 0; i < p->c; i++) ((type *)to)[i] += (type)weight * ((const type *)from)[i]
  if (p->c >= FEW) p->kernels->axpy((size_t)p->c, weight, from, to);
  else MAREA_SWITCH_FLOAT(p->dtype, ADD_CHANNELS);
}

/* Rows first..end-1 of image n of the result: reads x for them (forward), or with `spread` adds them to the image
   that they came from (adjoint). */
static void run_rows (const pass *p, int64_t n, int64_t first, int64_t end, bool spread) {
  const double cx = (double)(p->w - 1) / 2, cy = (double)(p->h - 1) / 2;
  double m[6];
  read_matrix(p, n, m);
  for (int64_t i = first; i < end && !marea_stopping(p->ctx); i++) {
    for (int64_t j = 0; j < p->w; j++) {
      const double u = (double)j - cx, v = (double)i - cy;
      const taps row = taps_at(cy + (m[3] * u + m[4] * v + m[5]), p->h, p->slope[0]);
      const taps col = taps_at(cx + (m[0] * u + m[1] * v + m[2]), p->w, p->slope[1]);
      for (int a = 0; a < row.n; a++) {
        for (int b = 0; b < col.n; b++) {
          const size_t x = pixel(p, n, row.at[a], col.at[b]), y = pixel(p, n, i, j);
          add_pixel(p, row.weight[a] * col.weight[b], p->from + (spread ? y : x), p->to + (spread ? x : y));
        }
      }
    }
  }
}

static void gather_block (void *arg, int64_t block, int worker) {
  const pass *p = arg;
  const int64_t n = block / p->parts, first = block % p->parts * p->rows,
                end = MAREA_MIN(first + p->rows, p->h);
  (void)worker;
  memset(p->to + pixel(p, n, first, 0), 0, pixel(p, 0, end - first, 0));
  run_rows(p, n, first, end, false);
}

static void spread_block (void *arg, int64_t n, int worker) {
  const pass *p = arg;
  (void)worker;
  memset(p->to + pixel(p, n, 0, 0), 0, pixel(p, 1, 0, 0));
  run_rows(p, n, 0, p->h, true);
}

static marea_status affine_shape (marea_call *c) {
  const marea_tensor *x = c->in[0];
  MAREA_TRY(marea_want_rank(c, 0, 4, "(N, H, W, C)"));
  MAREA_TRY(marea_want_dtype(c, 1, 1 << x->dtype));
  MAREA_TRY(marea_want_rank(c, 1, 3, "(N, 2, 3)"));
  MAREA_TRY(marea_want_size(c, 1, 0, x->shape[0], "one for each image"));
  MAREA_TRY(marea_want_size(c, 1, 1, 2, "one row for x, one for y"));
  MAREA_TRY(marea_want_size(c, 1, 2, 3, "two factors and a shift"));
  const int64_t *order = c->attr[DERIVATIVE].v;
  for (int d = 0; d < 2; d++)
    if (order[d] < 0 || order[d] > 1)
      return marea_reject(c, MAREA_EARG, "argument 'derivative': expected 0 or 1, got %lld",
                          (long long)order[d]);
  return marea_shape_same(c);
}

static marea_status affine_pass (marea_call *c, bool spread) {
  const marea_tensor *x = c->in[0];
  pass p = {.ctx = c->ctx,
            .kernels = c->ctx->kernels[x->dtype],
            .dtype = x->dtype,
            .size = marea_dtype_size((marea_dtype)x->dtype),
            .h = x->shape[1],
            .w = x->shape[2],
            .c = x->shape[3],
            .slope = {c->attr[DERIVATIVE].v[0] != 0, c->attr[DERIVATIVE].v[1] != 0},
            .from = marea_at(x),
            .matrix = marea_at(c->in[1]),
            .to = marea_at(c->out[0])};
  if (marea_count(x->rank, x->shape) == 0) return MAREA_OK;
  p.rows = MAREA_MAX(1, UNIT / (p.w * p.c));
  p.parts = (p.h + p.rows - 1) / p.rows;
  marea_parallel(c->ctx, spread ? x->shape[0] : x->shape[0] * p.parts, spread ? spread_block : gather_block,
                 &p);
  return MAREA_OK;
}

static marea_status affine2d_forward (marea_call *c) { return affine_pass(c, false); }

static marea_status affine2d_grad_forward (marea_call *c) { return affine_pass(c, true); }

/* *out (H * W, 3) := rows (u, v, 1), one for each pixel */
static marea_status coordinates (const marea_tensor *like, marea_tensor **out) {
  const int64_t h = like->shape[1], w = like->shape[2];
  MAREA_TRY(marea_empty(like->ctx, (marea_dtype)like->dtype, 2, (int64_t[]){h * w, 3}, out));
  void *data = marea_at(*out);
  for (int64_t i = 0; i < h * w; i++) {
    const double row[] = {(double)(i % w) - (double)(w - 1) / 2, (double)(i / w) - (double)(h - 1) / 2, 1};
    for (int k = 0; k < 3; k++) marea_store(like->dtype, data, i * 3 + k, row[k]);
  }
  return MAREA_OK;
}

/* *out (N, 3) := gradient of sum(dy * affine2d(x)) by a row of the matrices: the sum over pixels of (u, v, 1) times
   the derivative along `axis`, 0 down the rows (second row of a matrix) or 1 along them (first row). */
static marea_status row_gradient (const marea_vjp *v, marea_tensor *x, marea_tensor *dy, marea_tensor *place,
                                  int axis, marea_tensor **out) {
  const int64_t n = dy->shape[0], pixels = dy->shape[1] * dy->shape[2];
  if (v->attr[DERIVATIVE].v[axis])
    return marea_zeros(v->ctx, (marea_dtype)dy->dtype, 2, (int64_t[]){n, 3}, out); /* hat'' is 0 */
  marea_attr order = v->attr[DERIVATIVE];
  const marea_attr channels[] = {marea_attr_list(1, (int64_t[]){3}), marea_attr_int(0)};
  order.v[axis] = 1;
  MAREA_OWN slope = NULL;
  MAREA_OWN share = NULL;
  MAREA_OWN sum = NULL;
  MAREA_OWN flat = NULL;
  MAREA_TRY(marea_run_with(v->ctx, &marea_op_affine2d, &order, &slope, 2, x, v->in[1]));
  MAREA_TRY(marea_run(v->ctx, &marea_op_mul, &share, 2, dy, slope));
  MAREA_TRY(marea_run_with(v->ctx, &marea_op_sum, channels, &sum, 1, share));
  MAREA_TRY(marea_reshape_to(sum, 2, (int64_t[]){n, pixels}, &flat));
  return marea_run(v->ctx, &marea_op_matmul, out, 2, flat, place);
}

static marea_status matrix_gradient (const marea_vjp *v, marea_tensor *x, marea_tensor *dy,
                                     marea_tensor **out) {
  const marea_attr dim = marea_attr_int(1);
  MAREA_OWN place = NULL;
  MAREA_OWN along = NULL;
  MAREA_OWN down = NULL;
  MAREA_TRY(coordinates(dy, &place));
  MAREA_TRY(row_gradient(v, x, dy, place, 1, &along));
  MAREA_TRY(row_gradient(v, x, dy, place, 0, &down));
  return marea_run_with(v->ctx, &marea_op_stack, &dim, out, 2, along, down);
}

static marea_status affine2d_vjp (marea_vjp *v) {
  marea_tensor *dy = v->dout[0];
  if (v->need[0])
    MAREA_TRY(marea_run_with(v->ctx, &marea_op_affine2d_grad, v->attr, &v->din[0], 2, dy, v->in[1]));
  return v->need[1] ? matrix_gradient(v, v->in[0], dy, &v->din[1]) : MAREA_OK;
}

static marea_status affine2d_grad_vjp (marea_vjp *v) {
  marea_tensor *x = v->dout[0]; /* <x, affine2d_grad(dy)> = <affine2d(x), dy> */
  if (v->need[0]) MAREA_TRY(marea_run_with(v->ctx, &marea_op_affine2d, v->attr, &v->din[0], 2, x, v->in[1]));
  return v->need[1] ? matrix_gradient(v, x, v->in[0], &v->din[1]) : MAREA_OK;
}

static double affine_flop (const marea_call *c) { return 8.0 * (double)marea_tensor_size(c->out[0]); }

#define AFFINE_ATTRS                                                                \
  {                                                                                 \
    "derivative", MAREA_PAIR, 0, NULL,                                              \
        "1: the derivative by the place read, down the rows and along them, for it" \
  }
/* Places are odd multiples of 1/16, away from the pixels, where the interpolation has kinks. */
#define SAMPLE_AFFINE                                                                                  \
  "local n, concat = g.int(0, 3), require 'marea.core'.ops.concat\n"                                   \
  "local turn = (g.index({n, 2, 2}, 9) - 5):to(g.dtype) / 4\n"                                         \
  "local shift = (g.index({n, 2, 1}, 17) - 9):to(g.dtype) / 8 + 1 / 16\n"                              \
  "return {g.tensor{n, g.int(0, 6), g.int(0, 6), g.pick{0, 1, 2, 3, 9}}, concat({turn, shift}, 3)},\n" \
  "{derivative = {g.int(1, 4) // 4, g.int(1, 4) // 4}}"

const marea_op marea_op_affine2d = {
    .name = "affine2d",
    .family = "affine",
    .doc = "Moves, turns, scales and shears images, each by its own matrix: pixel (u, v) of the result is x "
           "at (m11 u + "
           "m12 v + m13, m21 u + m22 v + m23), interpolated bilinearly, 0 outside of x. Coordinates are "
           "pixels from "
           "the centre, u to the right, v downwards; so {{1, 0, 0}, {0, 1, 0}} changes nothing, and a "
           "positive shift "
           "m13 moves the image to the left. x: (N, H, W, C); matrix: (N, 2, 3); y: (N, H, W, C). Gradient: "
           "dx = "
           "affine2d_grad(dy, matrix), the interpolation turned round; dmatrix = sum over pixels of dy times "
           "the "
           "derivative of y by the place, times (u, v, 1). Errors: matrix is not (N, 2, 3), another dtype "
           "than x's. "
           "Source: Jaderberg et al., Spatial transformer networks, 2015, in pixels.",
    .inputs = {{"x", "(N, H, W, C)"}, {"matrix", "(N, 2, 3)"}},
    .attrs = MAREA_ATTRS(AFFINE_ATTRS),
    .saves_in = 3,
    .shape = affine_shape,
    .forward = affine2d_forward,
    .vjp = affine2d_vjp,
    .flop = affine_flop,
    .sample = SAMPLE_AFFINE,
};

const marea_op marea_op_affine2d_grad = {
    .name = "affine2d_grad",
    .family = "affine",
    .doc = "Gradient of affine2d with respect to its images: each element of dy is spread over the pixels it "
           "was read "
           "from. dy: (N, H, W, C); matrix: (N, 2, 3); dx: (N, H, W, C). Gradient: affine2d. Errors as for "
           "affine2d.",
    .inputs = {{"dy", "(N, H, W, C)"}, {"matrix", "(N, 2, 3)"}},
    .attrs = MAREA_ATTRS(AFFINE_ATTRS),
    .saves_in = 3,
    .shape = affine_shape,
    .forward = affine2d_grad_forward,
    .vjp = affine2d_grad_vjp,
    .flop = affine_flop,
    .sample = SAMPLE_AFFINE,
};
