/* SPDX-License-Identifier: MIT
** resample.c: linear maps along height and width of images, channels last: Gaussian blur, bilinear upsampling.
**
** Each axis has a sparse matrix, kept by rows as taps (from, weight): y = A x B', channel by channel, with A over
** the height and B over the width. A block makes some rows of y: the rows of x that one of them needs are added up in
** workspace, over width and channels at once, and that row is then summed along the width. There, outputs side by
** side whose taps have one weight and lie side by side, too, are one run: nearly all of them for a blur.
*/
#include <math.h>

#include "conv/geometry.h"
#include "vjp.h"

#define ROWS 16          /* of y in a block */
#define MOST_RADIUS 1024 /* of a blur */
/* Bytes of a row of x from which marea_stopping is checked at every tap: some 5 us at 12 GB/s. */
#define LONG_ROW 65536

typedef struct tap {
  int64_t from;
  double weight;
} tap;

typedef struct axis {
  int64_t in, out;
  int64_t *first; /* [out + 1] where each output's taps begin */
  tap *taps;
} axis;

typedef struct run { /* out[to + i] += weight * in[from + i], i < count */
  int64_t from, to, count;
  double weight;
} run;

/* ---- matrices ---- */

/* Fails when the operator has to stop: loops that checked have left their results incomplete. marea_apply sets the
   text. */
static marea_status check_whole (marea_call *c) {
  if (!marea_stopping(c->ctx)) return MAREA_OK;
  MAREA_TRY(marea_check_time(c));
  return MAREA_EINTR;
}

static marea_status make_axis (marea_call *c, int64_t in, int64_t out, int64_t taps_per_output, axis *a) {
  size_t bytes;
  const int64_t size[] = {out, taps_per_output}, places = out + 1;
  *a = (axis){.in = in, .out = out};
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, size, sizeof(tap), &bytes));
  MAREA_WORKSPACE_OR_RETURN(c, a->taps, MAREA_MAX(bytes, 1));
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &places, sizeof(int64_t), &bytes));
  MAREA_WORKSPACE_OR_RETURN(c, a->first, bytes);
  return MAREA_OK;
}

/* Mirrors an index beyond the edges, the pixel at the edge included: ... 1 0 | 0 1 2 | 2 1 ... */
static int64_t reflect (int64_t i, int64_t n) {
  const int64_t m = (i % (2 * n) + 2 * n) % (2 * n);
  return m < n ? m : 2 * n - 1 - m;
}

static double bell (int64_t k, double sigma) {
  const double z = (double)k / sigma;
  return exp(-0.5 * z * z);
}

static void fill_gaussian (marea_context *ctx, double sigma, int64_t radius, axis *a) {
  int64_t n = 0;
  double total = 0;
  for (int64_t k = -radius; k <= radius; k++) total += bell(k, sigma);
  for (int64_t o = 0; o < a->out && !marea_stopping(ctx); o++) {
    a->first[o] = n;
    for (int64_t k = -radius; k <= radius; k++)
      a->taps[n++] = (tap){reflect(o + k, a->in), bell(k, sigma) / total};
  }
  a->first[a->out] = n;
}

/* Pixel centres lie at 0.5, 1.5, ...; beyond the first and the last one their values stay. Taps of weight 0 are left
   out, so that an infinity beside them does not become NaN. */
static void fill_bilinear (marea_context *ctx, int64_t scale, axis *a) {
  int64_t n = 0;
  for (int64_t o = 0; o < a->out && !MAREA_STOPPING(ctx, o); o++) {
    const double at = fmax(((double)o + 0.5) / (double)scale - 0.5, 0);
    const int64_t left = (int64_t)at;
    const double right = left + 1 < a->in ? at - (double)left : 0;
    a->first[o] = n;
    a->taps[n++] = (tap){left, 1 - right};
    if (right > 0) a->taps[n++] = (tap){left + 1, right};
  }
  a->first[a->out] = n;
}

/* t := a transposed; t->first has been made for a->in outputs. */
static void transpose (const axis *a, axis *t) {
  memset(t->first, 0, (size_t)(t->out + 1) * sizeof *t->first);
  for (int64_t i = 0; i < a->first[a->out]; i++) t->first[a->taps[i].from + 1]++;
  for (int64_t i = 0; i < t->out; i++) t->first[i + 1] += t->first[i];
  for (int64_t o = 0; o < a->out; o++)
    for (int64_t i = a->first[o]; i < a->first[o + 1]; i++)
      t->taps[t->first[a->taps[i].from]++] = (tap){o, a->taps[i].weight};
  for (int64_t i = t->out; i > 0; i--) t->first[i] = t->first[i - 1];
  t->first[0] = 0;
}

/* The taps of an axis as runs: the k-th tap of an output goes on with the k-th of the output before where it can. */
static marea_status make_runs (marea_call *c, const axis *a, run **runs, int64_t *n) {
  size_t bytes, places;
  int64_t *of; /* the run of each tap */
  const int64_t taps = a->first[a->out];
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &taps, sizeof(run), &bytes));
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &taps, sizeof(int64_t), &places));
  MAREA_WORKSPACE_OR_RETURN(c, *runs, MAREA_MAX(bytes, 1));
  MAREA_WORKSPACE_OR_RETURN(c, of, MAREA_MAX(places, 1));
  *n = 0;
  for (int64_t o = 0; o < a->out && !MAREA_STOPPING(c->ctx, o); o++) {
    const int64_t before = o > 0 ? a->first[o] - a->first[o - 1] : 0;
    for (int64_t i = a->first[o]; i < a->first[o + 1]; i++) {
      const tap t = a->taps[i];
      run *last = i - a->first[o] < before ? *runs + of[i - before] : NULL;
      const bool goes_on = last && last->from + last->count == t.from && last->weight == t.weight;
      of[i] = goes_on ? of[i - before] : *n;
      if (goes_on) last->count++;
      else (*runs)[(*n)++] = (run){t.from, o, 1, t.weight};
    }
  }
  return check_whole(c);
}

/* ---- the pass ---- */

typedef struct pass {
  marea_context *ctx;
  const marea_kernels *kernels;
  axis rows;
  const run *runs;
  int64_t n_runs, blocks;              /* of an image */
  size_t pixel, in_row, out_row, size; /* bytes of a pixel, of rows of x and y, of an element */
  const char *x;
  char *y, *memory; /* a row of x for each worker */
  size_t bytes;
} pass;

/* marea_stopping, checked at every tap of long rows */
static bool stops_part (const pass *p) { return p->in_row >= LONG_ROW && marea_stopping(p->ctx); }

static void make_rows (void *arg, int64_t block, int worker) {
  const pass *p = arg;
  const int64_t image = block / p->blocks, first = block % p->blocks * ROWS;
  const int64_t end = MAREA_MIN(first + ROWS, p->rows.out);
  const char *x = p->x + (size_t)(image * p->rows.in) * p->in_row;
  char *sum = p->memory + (size_t)worker * p->bytes;
  for (int64_t o = first; o < end && !marea_stopping(p->ctx); o++) {
    char *y = p->y + (size_t)(image * p->rows.out + o) * p->out_row;
    memset(sum, 0, p->in_row);
    for (int64_t i = p->rows.first[o]; i < p->rows.first[o + 1] && !stops_part(p); i++) {
      const tap t = p->rows.taps[i];
      p->kernels->axpy(p->in_row / p->size, t.weight, x + (size_t)t.from * p->in_row, sum);
    }
    memset(y, 0, p->out_row);
    for (const run *r = p->runs; r < p->runs + p->n_runs && !stops_part(p); r++)
      p->kernels->axpy((size_t)r->count * p->pixel / p->size, r->weight, sum + (size_t)r->from * p->pixel,
                       y + (size_t)r->to * p->pixel);
  }
}

static marea_status resample (marea_call *c, const axis *rows, const axis *cols) {
  const marea_tensor *x = c->in[0], *out = c->out[0];
  pass p = {.ctx = c->ctx,
            .kernels = c->ctx->kernels[out->dtype],
            .rows = *rows,
            .x = marea_at(x),
            .y = marea_at(out)};
  run *runs;
  if (marea_count(out->rank, out->shape) == 0) return MAREA_OK;
  MAREA_TRY(make_runs(c, cols, &runs, &p.n_runs));
  p.runs = runs;
  p.size = marea_dtype_size((marea_dtype)out->dtype);
  p.pixel = (size_t)x->shape[3] * p.size;
  p.in_row = (size_t)cols->in * p.pixel;
  p.out_row = (size_t)cols->out * p.pixel;
  p.bytes = p.in_row;
  MAREA_TRY(marea_worker_memory(c, &p.bytes, &p.memory));
  p.blocks = (rows->out + ROWS - 1) / ROWS;
  marea_parallel(c->ctx, x->shape[0] * p.blocks, make_rows, &p);
  return MAREA_OK;
}

static marea_status layout_images (marea_call *c, const int64_t size[2]) {
  const marea_tensor *x = c->in[0];
  const int64_t shape[] = {x->shape[0], size[0], size[1], x->shape[3]};
  marea_layout_set(&c->layout[0], x->dtype, 4, shape);
  return MAREA_OK;
}

/* ---- gaussian_blur ---- */

enum { BLUR_SIGMA, BLUR_RADIUS }; /* ORDER of attributes */

static double reach_of (const marea_attr *attr) {
  return attr[BLUR_RADIUS].n == 0 ? floor(4 * attr[BLUR_SIGMA].f + 0.5) : (double)attr[BLUR_RADIUS].i;
}

static marea_status blur_shape (marea_call *c) {
  const double sigma = c->attr[BLUR_SIGMA].f;
  marea_attr *radius = &c->attr[BLUR_RADIUS];
  MAREA_TRY(marea_want_rank(c, 0, 4, "(N, H, W, C)"));
  if (!(sigma > 0 && sigma < INFINITY))
    return marea_reject(c, MAREA_EARG, "argument 'sigma': expected a finite number above 0, got %g", sigma);
  const double reach = reach_of(c->attr);
  if (reach < 0 || reach > MOST_RADIUS)
    return marea_reject(c, MAREA_EARG, "argument 'radius': expected 0 to %d, got %.0f%s", MOST_RADIUS, reach,
                        radius->n == 0 ? ", which is 4 sigma" : "");
  *radius = marea_attr_int((int64_t)reach);
  return marea_shape_same(c);
}

static double blur_flop (const marea_call *c) {
  return 4 * (2 * reach_of(c->attr) + 1) * (double)marea_tensor_size(c->in[0]);
}

static marea_status blur_forward (marea_call *c) {
  const int64_t *shape = c->in[0]->shape, radius = c->attr[BLUR_RADIUS].i;
  axis axes[2];
  for (int d = 0; d < 2; d++) {
    MAREA_TRY(make_axis(c, shape[1 + d], shape[1 + d], 2 * radius + 1, &axes[d]));
    fill_gaussian(c->ctx, c->attr[BLUR_SIGMA].f, radius, &axes[d]);
  }
  MAREA_TRY(check_whole(c));
  return resample(c, &axes[0], &axes[1]);
}

/* The matrix of each axis is symmetric, thanks to the mirrored edges. */
static marea_status blur_vjp (marea_vjp *v) {
  return marea_run_with(v->ctx, &marea_op_gaussian_blur, v->attr, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_gaussian_blur = {
    .name = "gaussian_blur",
    .family = "resample",
    .doc = "Convolution of each channel with a Gaussian of standard deviation `sigma` pixels, cut off at "
           "`radius` and "
           "normalised; images go on mirrored beyond their edges, so that constants stay and the sum of each "
           "channel "
           "is kept. x, y: (N, H, W, C). Gradient: gaussian_blur(dy). Errors: sigma not above 0, radius "
           "outside 0 "
           "to 1024.",
    .inputs = {{"x", "(N, H, W, C)"}},
    .attrs = MAREA_ATTRS(
        {"sigma", MAREA_REAL, MAREA_REQUIRED, NULL, "standard deviation in pixels"},
        {"radius", MAREA_INT, MAREA_NONE, NULL, "pixels on each side; left out: floor(4 sigma + 0.5)"}),
    .shape = blur_shape,
    .flop = blur_flop,
    .forward = blur_forward,
    .vjp = blur_vjp,
    .sample = "local attrs = {sigma = g.real(0.25, 2)}\n"
              "if g.bool() then attrs.radius = g.int(0, 9) end\n"
              "return {g.tensor{g.int(0, 3), g.int(0, 5), g.int(0, 5), g.int(0, 3)}}, attrs",
};

/* ---- upsample_bilinear2d ---- */

static marea_status bilinear_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(marea_upsample_read(c, false, &g));
  return layout_images(c, g.in);
}

static marea_status make_bilinear (marea_call *c, const marea_conv *g, axis axes[2]) {
  for (int d = 0; d < 2; d++) {
    MAREA_TRY(make_axis(c, g->out[d], g->in[d], 2, &axes[d]));
    fill_bilinear(c->ctx, g->stride[d], &axes[d]);
  }
  return check_whole(c);
}

static marea_status bilinear_forward (marea_call *c) {
  marea_conv g;
  axis axes[2];
  MAREA_TRY(marea_upsample_read(c, false, &g));
  MAREA_TRY(make_bilinear(c, &g, axes));
  return resample(c, &axes[0], &axes[1]);
}

static marea_status bilinear_vjp (marea_vjp *v) {
  return marea_run_with(v->ctx, &marea_op_upsample_bilinear2d_grad, v->attr, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_upsample_bilinear2d = {
    .name = "upsample_bilinear2d",
    .family = "resample",
    .doc = "Images enlarged `scale` times, by linear interpolation between the centres of pixels: y's pixel "
           "i is x at "
           "(i + 0.5) / s - 0.5, within the edges (PyTorch's align_corners=False). x: (N, H, W, C); y: (N, "
           "H*sh, "
           "W*sw, C). Gradient: upsample_bilinear2d_grad(dy). Error: scale < 1.",
    .inputs = {{"x", "(N, H, W, C)"}},
    .attrs = MAREA_ATTRS({"scale", MAREA_PAIR, MAREA_REQUIRED, NULL, "factors of height and width"}),
    .shape = bilinear_shape,
    .forward = bilinear_forward,
    .vjp = bilinear_vjp,
    .sample = "return {g.tensor{g.int(0, 3), g.int(0, 4), g.int(0, 4), g.int(0, 3)}}, "
              "{scale = {g.int(1, 4), g.int(1, 4)}}",
};

static marea_status bilinear_grad_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(marea_upsample_read(c, true, &g));
  return layout_images(c, g.out);
}

static marea_status bilinear_grad_forward (marea_call *c) {
  marea_conv g;
  axis axes[2], turned[2];
  MAREA_TRY(marea_upsample_read(c, true, &g));
  MAREA_TRY(make_bilinear(c, &g, axes));
  for (int d = 0; d < 2; d++) {
    MAREA_TRY(make_axis(c, g.in[d], g.out[d], 2 * g.stride[d], &turned[d]));
    transpose(&axes[d], &turned[d]);
    MAREA_TRY(check_whole(c));
  }
  return resample(c, &turned[0], &turned[1]);
}

static marea_status bilinear_grad_vjp (marea_vjp *v) {
  return marea_run_with(v->ctx, &marea_op_upsample_bilinear2d, v->attr, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_upsample_bilinear2d_grad = {
    .name = "upsample_bilinear2d_grad",
    .family = "resample",
    .doc = "Gradient of upsample_bilinear2d: each element of dy goes to the pixels it came from, by their "
           "weights. dy: "
           "(N, H*sh, W*sw, C); dx: (N, H, W, C). Gradient: upsample_bilinear2d. Error: sizes not divisible "
           "by scale.",
    .inputs = {{"dy", "(N, H*sh, W*sw, C)"}},
    .attrs = MAREA_ATTRS({"scale", MAREA_PAIR, MAREA_REQUIRED, NULL, "factors of height and width"}),
    .shape = bilinear_grad_shape,
    .forward = bilinear_grad_forward,
    .vjp = bilinear_grad_vjp,
    .sample = "local sh, sw = g.int(1, 4), g.int(1, 4)\n"
              "return {g.tensor{g.int(0, 3), sh * g.int(0, 4), sw * g.int(0, 4), g.int(0, 3)}}, "
              "{scale = {sh, sw}}",
};
