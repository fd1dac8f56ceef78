/* SPDX-License-Identifier: MIT
** pool.c: pooling and nearest-neighbour upsampling, channels last. Windows are those of a convolution without
** dilation. Loops run over channels inside, so pixels are handled as short vectors.
**
** Global pooling is mean or max over dimensions 2 and 3, and not repeated here.
*/
#include "conv/geometry.h"
#include "vjp.h"

/* Handled together: two vectors of AVX-512; also the channels of a block if images are few. */
#define CHANNELS 32
/* Images from which each is one block, so that up to 16 threads have work; fewer are cut by channels, too. */
#define ENOUGH 16
/* Elements that a call of a kernel looks at, between two checks for interrupts: 1 ms. */
#define LONG_ROW 2000000

/* ---- geometry ---- */

/* Positions of attributes in a descriptor; `adaptive` comes behind `ceil`. */
typedef struct pool_attr_index {
  marea_conv_attr_index conv;
  int8_t kernel, ceil;
} pool_attr_index;

/* Windows of adaptive pooling, as in PyTorch: `kernel` is the size of the result, window o of them reads
   floor(o in / out) .. ceil((o + 1) in / out) - 1. They have stride 0 here; `kernel` is the most that one reads. */
static marea_status read_adaptive (marea_call *c, pool_attr_index at, marea_conv *g) {
  const marea_attr *padding = &c->attr[at.conv.padding];
  bool plain = c->attr[at.conv.stride].n == 0 && !c->attr[at.ceil].i && padding->n != MAREA_SAME;
  for (int i = 0; i < 4; i++) plain = plain && padding->v[i] == 0;
  if (!plain)
    return marea_reject(c, MAREA_EARG,
                        "argument 'adaptive': its windows have no stride, padding or ceil_mode of their own");
  g->stride[0] = g->stride[1] = 0;
  for (int d = 0; d < 2; d++) {
    g->out[d] = g->kernel[d];
    g->kernel[d] = g->in[d] / g->out[d] + 2;
    g->before[d] = g->after[d] = 0;
  }
  return MAREA_OK;
}

/* The sizes of the result. With ceil_mode the last window may reach over the end, by less than its stride, but starts
   inside of x or of the padding before it. */
static marea_status count_windows (marea_call *c, bool ceil, marea_conv *g) {
  marea_conv longer = *g;
  for (int d = 0; d < 2 && ceil; d++) longer.after[d] += g->stride[d] - 1;
  MAREA_TRY(marea_conv_size(c, &longer, g->out));
  for (int d = 0; d < 2 && ceil; d++)
    if (g->out[d] > 1 && (g->out[d] - 1) * g->stride[d] >= g->in[d] + g->before[d]) g->out[d]--;
  return MAREA_OK;
}

/* Reads x's sizes, kernel, stride (left out: the kernel) and padding. Padding must be smaller than the
   kernel, so that every window meets x. */
static marea_status read_windows (marea_call *c, const int64_t size[2], int64_t n, int64_t channels,
                                  pool_attr_index at, marea_conv *g) {
  const marea_attr *kernel = &c->attr[at.kernel];
  const bool adaptive = c->attr[at.ceil + 1].i;
  if (adaptive) g->sequence = at.conv.sequence;
  else {
    if (c->attr[at.conv.stride].n == 0) c->attr[at.conv.stride] = *kernel;
    MAREA_TRY(marea_conv_read(c, at.conv, g));
  }
  g->n = n;
  g->cin = g->cout = channels;
  for (int d = 0; d < 2; d++) {
    g->in[d] = size[d];
    g->dilation[d] = 1;
    g->kernel[d] = !at.conv.sequence ? kernel->v[d] : d == 0 ? 1 : kernel->i;
    MAREA_TRY(marea_want_int(c, at.kernel, g->kernel[d], 1));
    if (size[d] < 1)
      return marea_reject(c, MAREA_ESHAPE, "%s of %s are empty", g->sequence ? "sequences" : "images",
                          marea_conv_size_text(g, size).s);
  }
  if (adaptive) return read_adaptive(c, at, g);
  MAREA_TRY(marea_conv_padding(c, at.conv, g));
  for (int d = 0; d < 2; d++)
    if (MAREA_MAX(g->before[d], g->after[d]) >= g->kernel[d])
      return marea_reject(c, MAREA_EARG, "argument 'padding': %lld is not smaller than the kernel, %lld",
                          (long long)MAREA_MAX(g->before[d], g->after[d]), (long long)g->kernel[d]);
  return count_windows(c, c->attr[at.ceil].i, g);
}

/* The result (n, size, cin); leaves g to forward. */
static marea_status layout_image (marea_call *c, const marea_conv *g, const int64_t size[2]) {
  const int64_t images[] = {g->n, size[0], size[1], g->cin}, sequences[] = {g->n, size[1], g->cin};
  MAREA_KEEP(c, *g);
  marea_layout_set(&c->layout[0], c->in[0]->dtype, g->sequence ? 3 : 4, g->sequence ? sequences : images);
  return MAREA_OK;
}

/* first..end-1: the part of window o of dimension d that lies in x */
static void window_of (const marea_conv *g, int d, int64_t o, int64_t *first, int64_t *end) {
  const int64_t start = o * g->stride[d] - g->before[d];
  if (g->stride[d] == 0) {
    *first = o * g->in[d] / g->out[d];
    *end = ((o + 1) * g->in[d] + g->out[d] - 1) / g->out[d];
    return;
  }
  *first = MAREA_MAX(start, 0);
  *end = MAREA_MIN(start + g->kernel[d], g->in[d]);
}

/* ---- running over images, and over parts of them when they are few ---- */

typedef struct pass {
  marea_context *ctx;
  marea_conv g;
  const marea_kernels *kernels;
  int dtype;
  size_t size;
  const char *x, *v; /* input images; values per window */
  char *out;
  bool count_padding, tiled; /* tiled: are_tiles */
  char *wide;                /* of bf16, memory in f32 of the workers, and what lies where in it, in bytes */
  size_t wide_step, wide_y, wide_dx;
  bool by_rows;     /* parts are rows of outputs, which are written by themselves; else channels */
  int64_t parts;    /* of an image */
  bool large, huge; /* windows: so large that each of them, or each of their rows, checks for interrupts */
} pass;

typedef struct plane { /* one image, some of its channels, and of its rows of outputs */
  int64_t n, first, count, row, row_end;
} plane;

static plane plane_of (const pass *p, int64_t block) {
  const int64_t part = block % p->parts, all = p->by_rows ? p->g.out[0] : p->g.cin;
  const int64_t first = part * all / p->parts, end = (part + 1) * all / p->parts;
  if (p->by_rows) return (plane){block / p->parts, 0, p->g.cin, first, end};
  return (plane){block / p->parts, first, end - first, 0, p->g.out[0]};
}

/* Offsets in bytes of pixels of the larger (in) and the smaller (out) image. */
static size_t in_at (const pass *p, const plane *k, int64_t y, int64_t x) {
  return (size_t)(((k->n * p->g.in[0] + y) * p->g.in[1] + x) * p->g.cin + k->first) * p->size;
}

static size_t out_at (const pass *p, const plane *k, int64_t y, int64_t x) {
  return (size_t)(((k->n * p->g.out[0] + y) * p->g.out[1] + x) * p->g.cin + k->first) * p->size;
}

static int64_t parts_of (const pass *p) {
  const marea_conv *g = &p->g;
  if (g->n >= ENOUGH) return 1;
  if (!p->by_rows) return (g->cin + CHANNELS - 1) / CHANNELS;
  return MAREA_MAX(1, MAREA_MIN(g->out[0], g->in[0] * g->in[1] * g->cin / MAREA_BLOCK));
}

/* fn runs for each part of each image. */
static marea_status run_pass (marea_call *c, pass *p, marea_block_fn fn) {
  const marea_tensor *out = c->out[0];
  p->ctx = c->ctx;
  p->kernels = c->ctx->kernels[marea_computed_in(out->dtype)];
  p->dtype = out->dtype;
  p->size = marea_dtype_size((marea_dtype)out->dtype);
  p->out = marea_at(out);
  p->by_rows = p->by_rows && p->g.out[0] > 1; /* sequences have one row */
  p->parts = parts_of(p);
  const double window = (double)p->g.kernel[0] * (double)p->g.kernel[1] * (double)p->g.cin;
  p->large = window >= 4096;
  p->huge = window >= 1 << 18;
  if (marea_count(out->rank, out->shape) == 0) return MAREA_OK;
  marea_parallel_if(c->ctx, marea_tensor_size(c->in[0]) + marea_tensor_size(out), p->g.n * p->parts, fn, p);
  return MAREA_OK;
}

/* Does the operator stop before the next window, or before the next row of a window? */
static bool stops_window (const pass *p) { return p->large && marea_stopping(p->ctx); }
static bool stops_row (const pass *p) { return p->huge && marea_stopping(p->ctx); }

/* Additions or comparisons: every window looks at all of its elements. */
static double window_flop (const marea_call *c, const marea_tensor *windows, int kernel, int ceil) {
  const double count = (double)marea_tensor_size(windows);
  if (c->attr[ceil + 1].i) return count; /* adaptive */
  return count * (double)c->attr[kernel].v[0] * (windows->rank == 3 ? 1 : (double)c->attr[kernel].v[1]);
}

/* Writes 0 to the channels of an image of the larger kind. */
static void clear_plane (const pass *p, const plane *k) {
  for (int64_t y = 0; y < p->g.in[0] && !marea_stopping(p->ctx); y++)
    for (int64_t x = 0; x < p->g.in[1]; x++)
      memset(p->out + in_at(p, k, y, x), 0, (size_t)k->count * p->size);
}

/* ---- max_pool2d ---- */

enum { POOL_KERNEL, POOL_STRIDE, POOL_PADDING, POOL_CEIL, POOL_COUNT = 5 }; /* ORDER of attributes */
#define POOL_AT(sequence) \
  { {POOL_STRIDE, POOL_PADDING, -1, -1, -1, sequence}, POOL_KERNEL, POOL_CEIL }
static const pool_attr_index pool_attrs = POOL_AT(false), sequence_attrs = POOL_AT(true);

#define POOL_ATTRS                                                                          \
  {"kernel", MAREA_PAIR, MAREA_REQUIRED, NULL, "height and width of a window"},             \
      {"stride", MAREA_PAIR, MAREA_NONE, NULL, "step of the window; left out: the kernel"}, \
      {"padding", MAREA_PADDING, 0, NULL, "around x: top, bottom, left, right, or 'same'"}, POOL_MODES
#define MODES_DOC                                                                                          \
  "With ceil_mode OH is rounded up, but the last window starts inside of x or of the padding before it. "  \
  "With adaptive y is (N, kernel, C), window i reading floor(i H / OH) to ceil((i + 1) H / OH) - 1; both " \
  "as in PyTorch."
#define POOL_MODES                                                                      \
  {"ceil_mode", MAREA_BOOL, 0, NULL, "a last window may reach over the end"}, {         \
    "adaptive", MAREA_BOOL, 0, NULL, "kernel is the size of y, for windows of any size" \
  }
#define SAMPLE_POOL                                                                       \
  "local n, c, kh, kw = g.int(0, 3), g.int(0, 3), g.int(1, 4), g.int(1, 4)\n"             \
  "local sh, sw = g.int(1, 4), g.int(1, 4)\n"                                             \
  "local p = {g.int(0, kh - 1), g.int(0, kh - 1), g.int(0, kw - 1), g.int(0, kw - 1)}\n"  \
  "local h = math.max(kh - p[1] - p[2], 1) + g.int(0, 5)\n"                               \
  "local w = math.max(kw - p[3] - p[4], 1) + g.int(0, 5)\n"                               \
  "local ceil, adaptive = g.bool(), g.int(1, 4) == 1\n"                                   \
  "local function out(n, before, after, k, s)\n"                                          \
  "  local o = (n + before + after - k + (ceil and s - 1 or 0)) // s + 1\n"               \
  "  if ceil and (o - 1) * s >= n + before then o = o - 1 end\n"                          \
  "  return o\n"                                                                          \
  "end\n"                                                                                 \
  "local oh, ow = out(h, p[1], p[2], kh, sh), out(w, p[3], p[4], kw, sw)\n"               \
  "local attrs = {kernel = {kh, kw}, stride = {sh, sw}, padding = p, ceil_mode = ceil}\n" \
  "if adaptive then oh, ow, attrs = kh, kw, {kernel = {kh, kw}, adaptive = true} end\n"

/* Reads windows over in[input] = x (N, H, W, C). */
static marea_status pool_read (marea_call *c, int input, marea_conv *g) {
  const marea_tensor *x = c->in[input];
  MAREA_TRY(marea_want_rank(c, input, 4, "(N, H, W, C)"));
  return read_windows(c, x->shape + 1, x->shape[0], x->shape[3], pool_attrs, g);
}

static marea_status pool_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(pool_read(c, 0, &g));
  return layout_image(c, &g, g.out);
}

/* Windows of a row of outputs with the same width and at the same distance: from ox on, how many. */
static int64_t alike (const marea_conv *g, int64_t ox, int64_t *step) {
  int64_t first, end, next, next_end, n = 1;
  window_of(g, 1, ox, &first, &end);
  *step = 0;
  for (; ox + n < g->out[1]; n++, first = next) {
    window_of(g, 1, ox + n, &next, &next_end);
    if (next_end - next != end - first || (n > 1 && next - first != *step)) break;
    *step = next - first;
    end = next_end;
  }
  return n;
}

/* What a row of outputs reads and writes: `rows` rows of a plane's channels, and pixels of y, by steps in elements of what is
   computed with. y, or else dy and dx, is there. */
typedef struct strip {
  const char *x, *dy;
  char *y, *dx;
  int64_t rows, row, col; /* of x and dx; col: also of y and dy */
  bool overwrite;         /* dx */
} strip;

static void run_strip (const pass *p, const plane *k, const strip *t) {
  const size_t size = marea_element_size(marea_computed_in(p->dtype));
  for (int64_t ox = 0, n; ox < p->g.out[1] && !stops_window(p); ox += n) {
    int64_t step, x0, x1;
    n = MAREA_MIN(alike(&p->g, ox, &step), MAREA_MAX(LONG_ROW / (t->rows * p->g.kernel[1] * k->count), 1));
    window_of(&p->g, 1, ox, &x0, &x1);
    const size_t x = (size_t)(x0 * t->col) * size, y = (size_t)(ox * t->col) * size;
    const marea_max_windows g = {.x = t->x + x,
                                 .y = t->y ? t->y + y : NULL,
                                 .dy = t->dy ? t->dy + y : NULL,
                                 .dx = t->dx ? t->dx + x : NULL,
                                 .overwrite = t->overwrite,
                                 .windows = n,
                                 .n = k->count,
                                 .x_step = step * t->col,
                                 .y_step = t->col,
                                 .rows = t->rows,
                                 .cols = x1 - x0,
                                 .row = t->row,
                                 .col = t->col};
    if (t->y) p->kernels->max_windows(&g);
    else p->kernels->max_windows_grad(&g);
  }
}

/* Row oy of f32 or f64 where it lies in the tensors, or of bf16 in a worker's memory, (pixel, channel) without gaps. */
static strip strip_of (const pass *p, const plane *k, int64_t oy, int64_t *first, int worker) {
  int64_t end;
  char *wide = p->wide + (size_t)worker * p->wide_step, *y = wide + p->wide_y, *dx = wide + p->wide_dx;
  window_of(&p->g, 0, oy, first, &end);
  const size_t in = in_at(p, k, *first, 0), out = out_at(p, k, oy, 0);
  strip t = {.rows = end - *first, .col = p->wide ? k->count : p->g.cin, .overwrite = p->tiled};
  t.row = p->g.in[1] * t.col;
  t.x = p->wide ? wide : p->x + in;
  if (!p->v) t.y = p->wide ? y : p->out + out;
  else {
    t.dy = p->wide ? y : p->v + out;
    t.dx = !p->wide ? p->out + in : p->tiled ? dx : dx + (size_t)(*first * t.row) * sizeof(float);
  }
  return t;
}

/* Pixels of a plane from bf16 to f32 and back; runs of a part of the channels are apart in the tensor. */
static void widen_pixels (const pass *p, const plane *k, int64_t pixels, const char *from, char *to) {
  const bool whole = k->count == p->g.cin;
  const int64_t run = whole ? pixels * k->count : k->count, runs = whole ? 1 : pixels;
  const uint16_t *x = (const void *)from;
  float *y = (void *)to;
  for (int64_t i = 0; i < runs; i++) p->kernels->widen_bf16((size_t)run, x + i * p->g.cin, y + i * run);
}

static void narrow_pixels (const pass *p, const plane *k, int64_t pixels, const char *from, char *to) {
  const bool whole = k->count == p->g.cin;
  const int64_t run = whole ? pixels * k->count : k->count, runs = whole ? 1 : pixels;
  const float *x = (const void *)from;
  uint16_t *y = (void *)to;
  for (int64_t i = 0; i < runs; i++) p->kernels->narrow_bf16((size_t)run, x + i * run, y + i * p->g.cin);
}

static void run_row (const pass *p, const plane *k, int64_t oy, int worker) {
  int64_t first;
  const strip t = strip_of(p, k, oy, &first, worker);
  const int64_t pixels = t.rows * p->g.in[1];
  if (p->wide) {
    widen_pixels(p, k, pixels, p->x + in_at(p, k, first, 0), (char *)t.x);
    if (t.dy) widen_pixels(p, k, p->g.out[1], p->v + out_at(p, k, oy, 0), (char *)t.dy);
  }
  run_strip(p, k, &t);
  if (p->wide && t.y) narrow_pixels(p, k, p->g.out[1], t.y, p->out + out_at(p, k, oy, 0));
  if (p->wide && t.dx && p->tiled) narrow_pixels(p, k, pixels, t.dx, p->out + in_at(p, k, first, 0));
}

/* Windows so large that a row of one is looked at between two checks for interrupts. */
static void max_huge (const pass *p, const plane *k) {
  const size_t count = (size_t)k->count;
  for (int64_t oy = k->row; oy < k->row_end; oy++) {
    for (int64_t ox = 0; ox < p->g.out[1] && !marea_stopping(p->ctx); ox++) {
      int64_t y0, y1, x0, x1;
      char *out = p->out + out_at(p, k, oy, ox);
      window_of(&p->g, 0, oy, &y0, &y1);
      window_of(&p->g, 1, ox, &x0, &x1);
      memcpy(out, p->x + in_at(p, k, y0, x0), count * p->size);
      for (int64_t y = y0; y < y1 && !marea_stopping(p->ctx); y++)
        for (int64_t x = x0; x < x1; x++)
          if (y > y0 || x > x0) p->kernels->maximum(count, out, 1, p->x + in_at(p, k, y, x), 1, out, NULL);
    }
  }
}

static void max_plane (void *arg, int64_t block, int worker) {
  const pass *p = arg;
  const plane k = plane_of(p, block);
  if (p->huge && !p->wide) {
    max_huge(p, &k);
    return;
  }
  for (int64_t oy = k.row; oy < k.row_end && !marea_stopping(p->ctx); oy++) run_row(p, &k, oy, worker);
}

/* A worker's memory in f32 for bf16: what a row of outputs reads, a row of outputs, and of the gradient what it
   writes, or where windows overlap or leave gaps the whole plane. */
static marea_status open_wide (marea_call *c, pass *p) {
  const marea_conv *g = &p->g;
  const int64_t pixels[] = {g->kernel[0], g->in[1], g->cin},
                rest[] = {g->out[1] + (p->v ? g->in[1] * (p->tiled ? g->kernel[0] : g->in[0]) : 0), g->cin};
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, pixels, sizeof(float), &p->wide_y));
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, rest, sizeof(float), &bytes));
  p->wide_dx = p->wide_y + (size_t)(g->out[1] * g->cin) * sizeof(float);
  p->wide_step = p->wide_y + bytes;
  return marea_worker_memory(c, &p->wide_step, &p->wide);
}

/* Do the windows cover each pixel once? */
static bool are_tiles (const marea_conv *g) {
  for (int d = 0; d < 2; d++)
    if (g->stride[d] != g->kernel[d] || g->before[d] != 0 || g->in[d] != g->out[d] * g->kernel[d])
      return false;
  return true;
}

/* Of the operators whose result has one element a window; of those whose first input has. */
static double pool_flop (const marea_call *c) { return window_flop(c, c->out[0], POOL_KERNEL, POOL_CEIL); }
static double pool_grad_flop (const marea_call *c) {
  return window_flop(c, c->in[0], POOL_KERNEL, POOL_CEIL);
}

static marea_status max_pool2d_forward (marea_call *c) {
  pass p = {.x = marea_at(c->in[0]), .by_rows = true};
  MAREA_KEPT(c, p.g);
  if (c->out[0]->dtype == MAREA_BF16) MAREA_TRY(open_wide(c, &p));
  return run_pass(c, &p, max_plane);
}

static marea_status max_pool2d_vjp (marea_vjp *v) {
  if (!v->need[0]) return MAREA_OK;
  return marea_run_with(v->ctx, &marea_op_max_pool2d_grad, v->attr, &v->din[0], 2, v->dout[0], v->in[0]);
}

const marea_op marea_op_max_pool2d = {
    .name = "max_pool2d",
    .family = "pool",
    .doc = "Largest element of each window. x: (N, H, W, C); y: (N, OH, OW, C) with OH = floor((H + top + "
           "bottom - KH) / s) + 1; padding never wins. " MODES_DOC
           " Gradient: max_pool2d_grad(dy, x), all of it to the "
           "first maximum of a window. Errors: padding not smaller than the kernel, a kernel larger than the "
           "padded input, empty images.",
    .inputs = {{"x", "(N, H, W, C)"}},
    .attrs = MAREA_ATTRS(POOL_ATTRS),
    .flags = MAREA_SHAPE_ONLY | MAREA_TAKES_BF16,
    .saves_in = 1,
    .shape = pool_shape,
    .flop = pool_flop,
    .forward = max_pool2d_forward,
    .vjp = max_pool2d_vjp,
    .sample = SAMPLE_POOL "return {g.distinct{n, h, w, c}}, attrs",
};

/* The larger of what is known and the pixel at offset `pixel`, channel by channel; the first one at a tie,
   and a NaN above all. */
#define TAKE_LARGER(type)                                           \
  for (int64_t i = 0; i < count; i++) {                             \
    const double value = (double)((const type *)(p->x + pixel))[i]; \
    const bool more = !(value <= most[i]) & (most[i] == most[i]);   \
    at[i] = more ? pixel + (size_t)i * sizeof(type) : at[i];        \
    most[i] = more ? value : most[i];                               \
  }

/* at[i] := offset of the maximum of a window for channel first + i, count <= CHANNELS */
static void argmax_window (const pass *p, const plane *k, int64_t oy, int64_t ox, int64_t first,
                           int64_t count, size_t *at) {
  int64_t y0, y1, x0, x1;
  double most[CHANNELS];
  window_of(&p->g, 0, oy, &y0, &y1);
  window_of(&p->g, 1, ox, &x0, &x1);
  for (int64_t i = 0; i < count; i++) {
    at[i] = in_at(p, k, y0, x0) + (size_t)(first + i) * p->size;
    most[i] = marea_load(p->dtype, p->x + at[i], 0);
  }
  for (int64_t y = y0; y < y1 && !stops_row(p); y++) {
    for (int64_t x = x0; x < x1; x++) {
      const size_t pixel = in_at(p, k, y, x) + (size_t)first * p->size;
      MAREA_SWITCH_FLOAT(p->dtype, TAKE_LARGER);
    }
  }
}

typedef void maxima_fn (const pass *p, const size_t *at, int64_t count, size_t window);

/* Calls fn for every window with the places of its maxima, some channels at a time. */
static void each_window (const pass *p, const plane *k, maxima_fn *fn) {
  size_t at[CHANNELS];
  for (int64_t oy = k->row; oy < k->row_end && !marea_stopping(p->ctx); oy++) {
    for (int64_t ox = 0; ox < p->g.out[1] && !stops_window(p); ox++) {
      for (int64_t first = 0; first < k->count; first += CHANNELS) {
        const int64_t count = MAREA_MIN(CHANNELS, k->count - first);
        argmax_window(p, k, oy, ox, first, count, at);
        fn(p, at, count, out_at(p, k, oy, ox) + (size_t)first * p->size);
      }
    }
  }
}

static void add_maxima (const pass *p, const size_t *at, int64_t count, size_t window) {
#define ADD_MAXIMA(type) \
  for (int64_t i = 0; i < count; i++) *(type *)(p->out + at[i]) += ((const type *)(p->v + window))[i]
  MAREA_SWITCH_FLOAT(p->dtype, ADD_MAXIMA);
}

static void pick_maxima (const pass *p, const size_t *at, int64_t count, size_t window) {
  for (int64_t i = 0; i < count; i++) memcpy(p->out + window + (size_t)i * p->size, p->v + at[i], p->size);
}

static void clear_wide (const pass *p, int worker) {
  char *dx = p->wide + (size_t)worker * p->wide_step + p->wide_dx;
  memset(dx, 0, (size_t)(p->g.in[0] * p->g.in[1] * p->g.cin) * sizeof(float));
}

static void max_grad_plane (void *arg, int64_t block, int worker) {
  const pass *p = arg;
  const plane k = plane_of(p, block);
  const char *dx = p->wide + (size_t)worker * p->wide_step + p->wide_dx;
  if (p->huge && !p->wide) {
    clear_plane(p, &k);
    each_window(p, &k, add_maxima);
    return;
  }
  if (!p->tiled && p->wide) clear_wide(p, worker);
  else if (!p->tiled) clear_plane(p, &k);
  max_plane(arg, block, worker);
  if (!p->tiled && p->wide) narrow_pixels(p, &k, p->g.in[0] * p->g.in[1], dx, p->out + in_at(p, &k, 0, 0));
}

static void max_pick_plane (void *arg, int64_t block, int worker) {
  const pass *p = arg;
  const plane k = plane_of(p, block);
  (void)worker;
  each_window(p, &k, pick_maxima);
}

static marea_status max_pool2d_grad_shape (marea_call *c) {
  const marea_tensor *dy = c->in[0];
  marea_conv g;
  MAREA_TRY(marea_want_dtype(c, 1, 1 << dy->dtype));
  MAREA_TRY(pool_read(c, 1, &g));
  const int64_t shape[] = {g.n, g.out[0], g.out[1], g.cin};
  if (dy->rank != 4 || memcmp(dy->shape, shape, sizeof shape) != 0)
    return marea_reject(c, MAREA_ESHAPE, "argument 'dy': expected %s from x %s, got %s",
                        marea_shape_text(4, shape).s, marea_tensor_text(c->in[1]).s, marea_tensor_text(dy).s);
  MAREA_KEEP(c, g);
  marea_layout_like(&c->layout[0], c->in[1]);
  return MAREA_OK;
}

static marea_status max_pool2d_grad_forward (marea_call *c) {
  pass p = {.v = marea_at(c->in[0]), .x = marea_at(c->in[1])};
  MAREA_KEPT(c, p.g);
  p.tiled = are_tiles(&p.g);
  if (c->out[0]->dtype == MAREA_BF16) MAREA_TRY(open_wide(c, &p));
  return run_pass(c, &p, max_grad_plane);
}

static marea_status max_pool2d_grad_vjp (marea_vjp *v) {
  if (!v->need[0]) return MAREA_OK;
  return marea_run_with(v->ctx, &marea_op_max_pool2d_pick, v->attr, &v->din[0], 2, v->dout[0], v->in[1]);
}

const marea_op marea_op_max_pool2d_grad = {
    .name = "max_pool2d_grad",
    .family = "pool",
    .doc = "Gradient of max_pool2d: zeros of x's shape with each element of dy added at the first maximum of "
           "its window. dy: (N, OH, OW, C); x: (N, H, W, C). Gradient: max_pool2d_pick(g, x) to dy, none to "
           "x. Errors as for max_pool2d, and a dy of another shape.",
    .inputs = {{"dy", "(N, OH, OW, C)"}, {"x", "(N, H, W, C)"}},
    .attrs = MAREA_ATTRS(POOL_ATTRS),
    .flags = MAREA_SHAPE_ONLY | MAREA_TAKES_BF16,
    .saves_in = 2,
    .shape = max_pool2d_grad_shape,
    .flop = pool_grad_flop,
    .forward = max_pool2d_grad_forward,
    .vjp = max_pool2d_grad_vjp,
    .sample = SAMPLE_POOL "return {g.tensor{n, oh, ow, c}, g.distinct{n, h, w, c}}, attrs",
};

static marea_status max_pool2d_pick_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(marea_want_dtype(c, 1, 1 << c->in[0]->dtype));
  MAREA_TRY(marea_want_shape(c, 0, c->in[1]));
  MAREA_TRY(pool_read(c, 1, &g));
  return layout_image(c, &g, g.out);
}

static marea_status max_pool2d_pick_forward (marea_call *c) {
  pass p = {.v = marea_at(c->in[0]), .x = marea_at(c->in[1]), .by_rows = true};
  MAREA_KEPT(c, p.g);
  return run_pass(c, &p, max_pick_plane);
}

static marea_status max_pool2d_pick_vjp (marea_vjp *v) {
  if (!v->need[0]) return MAREA_OK;
  return marea_run_with(v->ctx, &marea_op_max_pool2d_grad, v->attr, &v->din[0], 2, v->dout[0], v->in[1]);
}

const marea_op marea_op_max_pool2d_pick = {
    .name = "max_pool2d_pick",
    .family = "pool",
    .doc =
        "Elements of v at the places of x's maxima, the first one of each window. v, x: (N, H, W, C); y: "
        "(N, OH, OW, C). Gradient: max_pool2d_grad(dy, x) to v, none to x. Errors as for max_pool2d, and v "
        "of another shape.",
    .inputs = {{"v", "(N, H, W, C)"}, {"x", "(N, H, W, C)"}},
    .attrs = MAREA_ATTRS(POOL_ATTRS),
    .saves_in = 2,
    .shape = max_pool2d_pick_shape,
    .flop = pool_flop,
    .forward = max_pool2d_pick_forward,
    .vjp = max_pool2d_pick_vjp,
    .sample = SAMPLE_POOL "return {g.tensor{n, h, w, c}, g.distinct{n, h, w, c}}, attrs",
};

/* ---- avg_pool2d ---- */

/* Of a window's row or column, with the padding that it covers: all of the kernel, but for what reaches over the padding
   in ceil_mode. */
static double covered (const marea_conv *g, int d, int64_t o) {
  return (double)MAREA_MIN(g->kernel[d], g->in[d] + g->before[d] + g->after[d] - o * g->stride[d]);
}

static double share_of (const pass *p, int64_t oy, int64_t ox, int64_t y0, int64_t y1, int64_t x0,
                        int64_t x1) {
  const bool padding = p->count_padding && p->g.stride[0] > 0;
  return 1.0 /
         (padding ? covered(&p->g, 0, oy) * covered(&p->g, 1, ox) : (double)(y1 - y0) * (double)(x1 - x0));
}

static void avg_plane (void *arg, int64_t block, int worker) {
  const pass *p = arg;
  const plane k = plane_of(p, block);
  const size_t count = (size_t)k.count;
  (void)worker;
  for (int64_t oy = k.row; oy < k.row_end && !marea_stopping(p->ctx); oy++) {
    for (int64_t ox = 0; ox < p->g.out[1] && !stops_window(p); ox++) {
      int64_t y0, y1, x0, x1;
      char *out = p->out + out_at(p, &k, oy, ox);
      window_of(&p->g, 0, oy, &y0, &y1);
      window_of(&p->g, 1, ox, &x0, &x1);
      memset(out, 0, count * p->size);
      for (int64_t y = y0; y < y1 && !stops_row(p); y++)
        for (int64_t x = x0; x < x1; x++)
          p->kernels->add(count, out, 1, p->x + in_at(p, &k, y, x), 1, out, NULL);
      p->kernels->scale(count, share_of(p, oy, ox, y0, y1, x0, x1), out, out);
    }
  }
}

static void avg_grad_plane (void *arg, int64_t block, int worker) {
  const pass *p = arg;
  const plane k = plane_of(p, block);
  (void)worker;
  clear_plane(p, &k);
  for (int64_t oy = 0; oy < p->g.out[0] && !marea_stopping(p->ctx); oy++) {
    for (int64_t ox = 0; ox < p->g.out[1] && !stops_window(p); ox++) {
      int64_t y0, y1, x0, x1;
      const char *dy = p->v + out_at(p, &k, oy, ox);
      window_of(&p->g, 0, oy, &y0, &y1);
      window_of(&p->g, 1, ox, &x0, &x1);
      for (int64_t y = y0; y < y1 && !stops_row(p); y++)
        for (int64_t x = x0; x < x1; x++)
          p->kernels->axpy((size_t)k.count, share_of(p, oy, ox, y0, y1, x0, x1), dy,
                           p->out + in_at(p, &k, y, x));
    }
  }
}

static marea_status avg_pool2d_forward (marea_call *c) {
  pass p = {.x = marea_at(c->in[0]), .count_padding = c->attr[POOL_COUNT].i != 0, .by_rows = true};
  MAREA_KEPT(c, p.g);
  return run_pass(c, &p, avg_plane);
}

static marea_status avg_pool2d_vjp (marea_vjp *v) {
  marea_attr a[] = {marea_attr_list(2, v->in[0]->shape + 1),
                    v->attr[POOL_KERNEL],
                    v->attr[POOL_STRIDE],
                    v->attr[POOL_PADDING],
                    v->attr[POOL_CEIL],
                    v->attr[POOL_CEIL + 1],
                    v->attr[POOL_COUNT]};
  return marea_run_with(v->ctx, &marea_op_avg_pool2d_grad, a, &v->din[0], 1, v->dout[0]);
}

#define COUNT_ATTR \
  { "count_padding", MAREA_BOOL, 0, NULL, "divide by the whole kernel at the edges, too" }

const marea_op marea_op_avg_pool2d = {
    .name = "avg_pool2d",
    .family = "pool",
    .doc =
        "Mean of each window. x: (N, H, W, C); y: (N, OH, OW, C) with OH = floor((H + top + bottom - KH) / "
        "s) + 1. Padding is left out of the mean, or counts as zeros with count_padding. " MODES_DOC
        " Gradient: "
        "avg_pool2d_grad(dy). Errors: padding not smaller than the kernel, a kernel larger than the padded "
        "input, empty images.",
    .inputs = {{"x", "(N, H, W, C)"}},
    .attrs = MAREA_ATTRS(POOL_ATTRS, COUNT_ATTR),
    .shape = pool_shape,
    .flop = pool_flop,
    .forward = avg_pool2d_forward,
    .vjp = avg_pool2d_vjp,
    .sample = SAMPLE_POOL "attrs.count_padding = g.bool()\nreturn {g.tensor{n, h, w, c}}, attrs",
};

enum { AVG_SIZE, AVG_KERNEL, AVG_STRIDE, AVG_PADDING, AVG_CEIL, AVG_COUNT = 6 }; /* ORDER of attributes */
static const pool_attr_index avg_grad_attrs = {
    {AVG_STRIDE, AVG_PADDING, -1, -1, -1, false}, AVG_KERNEL, AVG_CEIL};

static marea_status avg_pool2d_grad_read (marea_call *c, marea_conv *g) {
  const marea_tensor *dy = c->in[0];
  MAREA_TRY(marea_want_rank(c, 0, 4, "(N, OH, OW, C)"));
  const int64_t *size = c->attr[AVG_SIZE].v;
  for (int d = 0; d < 2; d++)
    if (size[d] > INT32_MAX)
      return marea_reject(c, MAREA_EARG, "argument 'size': %lld is out of range", (long long)size[d]);
  MAREA_TRY(read_windows(c, size, dy->shape[0], dy->shape[3], avg_grad_attrs, g));
  if (dy->shape[1] == g->out[0] && dy->shape[2] == g->out[1]) return MAREA_OK;
  return marea_reject(c, MAREA_ESHAPE, "dy is %s, but pooling %lldx%lld gives %lldx%lld",
                      marea_tensor_text(dy).s, (long long)size[0], (long long)size[1], (long long)g->out[0],
                      (long long)g->out[1]);
}

static marea_status avg_pool2d_grad_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(avg_pool2d_grad_read(c, &g));
  return layout_image(c, &g, g.in);
}

static double avg_pool2d_grad_flop (const marea_call *c) {
  return window_flop(c, c->in[0], AVG_KERNEL, AVG_CEIL);
}

static marea_status avg_pool2d_grad_forward (marea_call *c) {
  pass p = {.v = marea_at(c->in[0]), .count_padding = c->attr[AVG_COUNT].i != 0};
  MAREA_KEPT(c, p.g);
  return run_pass(c, &p, avg_grad_plane);
}

static marea_status avg_pool2d_grad_vjp (marea_vjp *v) {
  return marea_run_with(v->ctx, &marea_op_avg_pool2d, v->attr + AVG_KERNEL, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_avg_pool2d_grad = {
    .name = "avg_pool2d_grad",
    .family = "pool",
    .doc =
        "Gradient of avg_pool2d for images of height and width `size`: each element of dy is spread over "
        "its window. dy: (N, OH, OW, C); dx: (N, H, W, C). Gradient: avg_pool2d. Errors as for avg_pool2d, "
        "and a dy of another shape.",
    .inputs = {{"dy", "(N, OH, OW, C)"}},
    .attrs = MAREA_ATTRS({"size", MAREA_PAIR, MAREA_REQUIRED, NULL, "height and width of x"}, POOL_ATTRS,
                         COUNT_ATTR),
    .shape = avg_pool2d_grad_shape,
    .flop = avg_pool2d_grad_flop,
    .forward = avg_pool2d_grad_forward,
    .vjp = avg_pool2d_grad_vjp,
    .sample = SAMPLE_POOL "attrs.size, attrs.count_padding = {h, w}, g.bool()\n"
                          "return {g.tensor{n, oh, ow, c}}, attrs",
};

/* ---- sequences: images of height 1 ---- */

static marea_status sequence_shape (marea_call *c) {
  marea_conv g;
  const marea_tensor *x = c->in[0];
  MAREA_TRY(marea_want_rank(c, 0, 3, "(N, T, C)"));
  const int64_t size[] = {1, x->shape[1]};
  MAREA_TRY(read_windows(c, size, x->shape[0], x->shape[2], sequence_attrs, &g));
  return layout_image(c, &g, g.out);
}

static marea_status as_image (marea_tensor *t, marea_tensor **out) {
  const int64_t shape[] = {t->shape[0], 1, t->shape[1], t->shape[2]};
  return marea_reshape_to(t, 4, shape, out);
}

/* The vjp of the operator over images, which sees them of height 1. x is that of sequences, or its shape alone. */
static marea_status sequence_vjp (marea_vjp *v, marea_tensor *x, marea_status (*images)(marea_vjp *v)) {
  MAREA_OWN dy = NULL;
  MAREA_OWN dx = NULL;
  MAREA_TRY(as_image(v->dout[0], &dy));
  const int64_t *p = v->attr[POOL_PADDING].v;
  marea_attr attr[POOL_COUNT + 1];
  for (int i = 0; v->op->attrs[i].name; i++) attr[i] = v->attr[i];
  attr[POOL_KERNEL] = marea_attr_list(2, (int64_t[]){1, v->attr[POOL_KERNEL].i});
  if (attr[POOL_STRIDE].n > 0) attr[POOL_STRIDE] = marea_attr_list(2, (int64_t[]){1, v->attr[POOL_STRIDE].i});
  attr[POOL_PADDING] = marea_attr_list(4, (int64_t[]){0, 0, p[0], p[1]});
  marea_vjp lifted = *v;
  lifted.in = &x;
  lifted.dout = &dy;
  lifted.attr = attr;
  lifted.din = &dx;
  MAREA_TRY(images(&lifted));
  return dx ? marea_reshape_to(dx, 3, v->in[0]->shape, &v->din[0]) : MAREA_OK;
}

static marea_status max_pool1d_vjp (marea_vjp *v) {
  MAREA_OWN x = NULL;
  MAREA_TRY(as_image(v->in[0], &x));
  return sequence_vjp(v, x, max_pool2d_vjp);
}

static marea_status avg_pool1d_vjp (marea_vjp *v) {
  const marea_tensor *in = v->in[0]; /* metadata-only */
  marea_tensor x = {.ctx = in->ctx, .refs = 1, .dtype = in->dtype, .rank = 4};
  const int64_t shape[] = {in->shape[0], 1, in->shape[1], in->shape[2]};
  memcpy(x.shape, shape, sizeof shape);
  return sequence_vjp(v, &x, avg_pool2d_vjp);
}

#define SEQUENCE_ATTRS                                                                     \
  {"kernel", MAREA_INT, MAREA_REQUIRED, NULL, "length of a window"},                       \
      {"stride", MAREA_INT, MAREA_NONE, NULL, "step of the window; left out: the kernel"}, \
      {"padding", MAREA_SIDES, 0, NULL, "around x: an integer, {left, right}, or 'same'"}, POOL_MODES
#define SEQUENCE_SAMPLE                                                                         \
  "local n, c, k, s = g.int(0, 3), g.int(0, 3), g.int(1, 4), g.int(1, 4)\n"                     \
  "local p = {g.int(0, k - 1), g.int(0, k - 1)}\n"                                              \
  "local t = math.max(k - p[1] - p[2], 1) + g.int(0, 5)\n"                                      \
  "local attrs = {kernel = k, stride = s, padding = g.pick{p, 'same'}, ceil_mode = g.bool()}\n" \
  "if k > s and g.bool() then attrs = {kernel = k, adaptive = true} end\n"

const marea_op marea_op_max_pool1d = {
    .name = "max_pool1d",
    .family = "pool",
    .doc =
        "Largest element of each window. x: (N, T, C); y: (N, OT, C) with OT = floor((T + left + right - K) "
        "/ s) + 1; otherwise as max_pool2d of x (N, 1, T, C), whose gradient it has. Errors: padding not "
        "smaller than the kernel, a kernel larger than the padded input, empty sequences.",
    .inputs = {{"x", "(N, T, C)"}},
    .attrs = MAREA_ATTRS(SEQUENCE_ATTRS),
    .flags = MAREA_SHAPE_ONLY | MAREA_TAKES_BF16,
    .saves_in = 1,
    .shape = sequence_shape,
    .flop = pool_flop,
    .forward = max_pool2d_forward,
    .vjp = max_pool1d_vjp,
    .sample = SEQUENCE_SAMPLE "return {g.distinct{n, t, c}}, attrs",
};

const marea_op marea_op_avg_pool1d = {
    .name = "avg_pool1d",
    .family = "pool",
    .doc =
        "Mean of each window. x: (N, T, C); y: (N, OT, C) with OT = floor((T + left + right - K) / s) + 1; "
        "otherwise as avg_pool2d of x (N, 1, T, C), whose gradient it has. Errors: padding not smaller "
        "than the kernel, a kernel larger than the padded input, empty sequences.",
    .inputs = {{"x", "(N, T, C)"}},
    .attrs = MAREA_ATTRS(SEQUENCE_ATTRS, COUNT_ATTR),
    .shape = sequence_shape,
    .flop = pool_flop,
    .forward = avg_pool2d_forward,
    .vjp = avg_pool1d_vjp,
    .sample = SEQUENCE_SAMPLE "attrs.count_padding = g.bool()\nreturn {g.tensor{n, t, c}}, attrs",
};

/* ---- upsample_nearest2d ---- */

/* Upsampling is pooling seen from its result: windows of size and stride `scale`. */
marea_status marea_upsample_read (marea_call *c, bool from_large, marea_conv *g) {
  const marea_tensor *x = c->in[0];
  const int64_t *scale = c->attr[0].v;
  MAREA_TRY(marea_want_rank(c, 0, 4, "(N, H, W, C)"));
  *g = (marea_conv){.n = x->shape[0], .cin = x->shape[3]};
  for (int d = 0; d < 2; d++) {
    const int64_t size = x->shape[1 + d];
    MAREA_TRY(marea_want_int(c, 0, scale[d], 1));
    if (from_large && size % scale[d] != 0)
      return marea_reject(c, MAREA_ESHAPE, "size %lld of %s is not divisible by scale %lld", (long long)size,
                          marea_tensor_text(x).s, (long long)scale[d]);
    g->kernel[d] = g->stride[d] = scale[d];
    g->in[d] = from_large ? size : size * scale[d];
    g->out[d] = from_large ? size / scale[d] : size;
  }
  return MAREA_OK;
}

static marea_status upsample_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(marea_upsample_read(c, false, &g));
  return layout_image(c, &g, g.in);
}

static void upsample_plane (void *arg, int64_t block, int worker) {
  const pass *p = arg;
  const plane k = plane_of(p, block);
  (void)worker;
  for (int64_t y = 0; y < p->g.in[0] && !marea_stopping(p->ctx); y++)
    for (int64_t x = 0; x < p->g.in[1]; x++)
      memcpy(p->out + in_at(p, &k, y, x), p->x + out_at(p, &k, y / p->g.stride[0], x / p->g.stride[1]),
             (size_t)k.count * p->size);
}

static marea_status upsample_forward (marea_call *c) {
  pass p = {.x = marea_at(c->in[0])};
  MAREA_KEPT(c, p.g);
  return run_pass(c, &p, upsample_plane);
}

static marea_status upsample_vjp (marea_vjp *v) {
  return marea_run_with(v->ctx, &marea_op_upsample_nearest2d_grad, v->attr, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_upsample_nearest2d = {
    .name = "upsample_nearest2d",
    .family = "pool",
    .doc = "Repeats every pixel `scale` times: y[n, i, j, c] = x[n, floor(i / sh), floor(j / sw), c]. x: (N, "
           "H, W, C); y: (N, H*sh, W*sw, C). Gradient: upsample_nearest2d_grad(dy). Error: scale < 1.",
    .inputs = {{"x", "(N, H, W, C)"}},
    .attrs = MAREA_ATTRS({"scale", MAREA_PAIR, MAREA_REQUIRED, NULL, "copies of a pixel, height and width"}),
    .shape = upsample_shape,
    .forward = upsample_forward,
    .vjp = upsample_vjp,
    .sample = "return {g.tensor{g.int(0, 3), g.int(0, 3), g.int(0, 3), g.int(0, 3)}}, "
              "{scale = {g.int(1, 3), g.int(1, 3)}}",
};

static marea_status upsample_grad_shape (marea_call *c) {
  marea_conv g;
  MAREA_TRY(marea_upsample_read(c, true, &g));
  return layout_image(c, &g, g.out);
}

static void upsample_grad_plane (void *arg, int64_t block, int worker) {
  const pass *p = arg;
  const plane k = plane_of(p, block);
  const size_t count = (size_t)k.count;
  (void)worker;
  for (int64_t y = 0; y < p->g.in[0] && !marea_stopping(p->ctx); y++) {
    for (int64_t x = 0; x < p->g.in[1]; x++) {
      char *to = p->out + out_at(p, &k, y / p->g.stride[0], x / p->g.stride[1]);
      const char *from = p->x + in_at(p, &k, y, x);
      if (y % p->g.stride[0] == 0 && x % p->g.stride[1] == 0) memcpy(to, from, count * p->size);
      else p->kernels->add(count, to, 1, from, 1, to, NULL);
    }
  }
}

static marea_status upsample_grad_forward (marea_call *c) {
  pass p = {.x = marea_at(c->in[0])};
  MAREA_KEPT(c, p.g);
  return run_pass(c, &p, upsample_grad_plane);
}

static marea_status upsample_grad_vjp (marea_vjp *v) {
  return marea_run_with(v->ctx, &marea_op_upsample_nearest2d, v->attr, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_upsample_nearest2d_grad = {
    .name = "upsample_nearest2d_grad",
    .family = "pool",
    .doc = "Gradient of upsample_nearest2d: the sum over each block of `scale` pixels. dy: (N, H*sh, W*sw, "
           "C); dx: (N, H, W, C). Gradient: upsample_nearest2d. Error: sizes not divisible by scale.",
    .inputs = {{"dy", "(N, H*sh, W*sw, C)"}},
    .attrs = MAREA_ATTRS({"scale", MAREA_PAIR, MAREA_REQUIRED, NULL, "pixels of a block, height and width"}),
    .shape = upsample_grad_shape,
    .forward = upsample_grad_forward,
    .vjp = upsample_grad_vjp,
    .sample = "local sh, sw = g.int(1, 3), g.int(1, 3)\n"
              "return {g.tensor{g.int(0, 3), sh * g.int(0, 3), sw * g.int(0, 3), g.int(0, 3)}}, "
              "{scale = {sh, sw}}",
};
