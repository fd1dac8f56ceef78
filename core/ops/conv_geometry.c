/* SPDX-License-Identifier: MIT
** conv_geometry.c: sizes, taps and tiles of convolutions. All of it is integers worked out before a loop
** runs.
**
** Forward, output o reads the padded input at o * stride + tap * dilation: one phase with all taps. The input
** gradient is the same seen from the other end: input i gets from output (i + pad - tap * dilation) / stride
** wherever that divides. Inputs i, i + stride, ... use the same taps at the same distances, so each such set
** is a phase, a convolution of stride 1 over dy; no zeros are put between dy's pixels. A phase may have no
** taps.
**
** Sizes are below 2^31 when they come here, so products of two of them fit into 64 bits; memory is only asked
** for after marea_bytes has checked the product.
*/
#include <string.h>

#include "conv_geometry.h"

#define LEAST_UNITS 4 /* rows of a tile worth loading its neighbours again */
#define LEAST_TASKS 8 /* tiles to aim for when there are few images */

/* ---- attributes ---- */

static marea_status read_pair (marea_call *c, int attr, int64_t least, int64_t pair[2]) {
  for (int d = 0; d < 2; d++) {
    pair[d] = c->attr[attr].v[d];
    MAREA_TRY(marea_want_int(c, attr, pair[d], least));
  }
  return MAREA_OK;
}

marea_status marea_conv_read (marea_call *c, marea_conv_attrs at, marea_conv *g) {
  MAREA_TRY(read_pair(c, at.stride, 1, g->stride));
  g->dilation[0] = g->dilation[1] = g->groups = 1;
  if (at.dilation >= 0) MAREA_TRY(read_pair(c, at.dilation, 1, g->dilation));
  if (at.groups >= 0) {
    g->groups = c->attr[at.groups].i;
    MAREA_TRY(marea_want_int(c, at.groups, g->groups, 1));
  }
  g->direct = c->ctx->direct || (at.algorithm >= 0 && c->attr[at.algorithm].i == 1);
  return MAREA_OK;
}

static int64_t extent (const marea_conv *g, int d) { return g->dilation[d] * (g->kernel[d] - 1) + 1; }

marea_status marea_conv_padding (marea_call *c, marea_conv_attrs at, marea_conv *g) {
  marea_attr *padding = &c->attr[at.padding];
  for (int d = 0; d < 2 && padding->n == MAREA_SAME; d++) {
    const int64_t out = (g->in[d] + g->stride[d] - 1) / g->stride[d];
    const int64_t total = MAREA_MAX((out - 1) * g->stride[d] + extent(g, d) - g->in[d], 0);
    g->before[d] = total / 2;
    g->after[d] = total - total / 2;
  }
  if (padding->n == MAREA_SAME) {
    *padding = (marea_attr){.n = 4, .v = {g->before[0], g->after[0], g->before[1], g->after[1]}};
    return MAREA_OK;
  }
  for (int i = 0; i < 4; i++) MAREA_TRY(marea_want_int(c, at.padding, padding->v[i], 0));
  for (int d = 0; d < 2; d++) {
    g->before[d] = padding->v[2 * d];
    g->after[d] = padding->v[2 * d + 1];
  }
  return MAREA_OK;
}

/* Does an image without pixels, as 'same' pads it, give one without pixels? */
static bool stays_empty (const marea_conv *g, int d, int64_t padded) {
  return g->in[d] == 0 && padded < extent(g, d) && padded + g->stride[d] >= extent(g, d);
}

marea_status marea_conv_size (marea_call *c, const marea_conv *g, int64_t out[2]) {
  int64_t padded[2];
  bool fits = true;
  for (int d = 0; d < 2; d++) {
    padded[d] = g->in[d] + g->before[d] + g->after[d];
    if (g->kernel[d] < 1)
      return marea_reject(c, MAREA_ESHAPE, "kernel %lldx%lld is empty", (long long)g->kernel[0],
                          (long long)g->kernel[1]);
    fits = fits && (padded[d] >= extent(g, d) || stays_empty(g, d, padded[d]));
  }
  if (!fits) {
    const long long size[] = {g->kernel[0], g->kernel[1], extent(g, 0), extent(g, 1)};
    const bool dilated = size[0] != size[2] || size[1] != size[3];
    return marea_reject(c, MAREA_ESHAPE, "kernel %lldx%lld%s is larger than the padded input %lldx%lld",
                        size[2], size[3], dilated ? " (with its dilation)" : "", (long long)padded[0],
                        (long long)padded[1]);
  }
  for (int d = 0; d < 2; d++)
    out[d] = stays_empty(g, d, padded[d]) ? 0 : (padded[d] - extent(g, d)) / g->stride[d] + 1;
  return MAREA_OK;
}

/* ---- phases ---- */

static void open_forward (const marea_conv *g, int d, marea_conv_axis *a, int64_t *memory) {
  int64_t *kernel = memory, *offset = memory + g->kernel[d];
  for (int64_t t = 0; t < g->kernel[d]; t++) {
    kernel[t] = t;
    offset[t] = t * g->dilation[d];
  }
  a->src = g->in[d], a->out = g->out[d], a->src_step = g->stride[d], a->out_step = 1;
  a->phase[0] = (marea_conv_phase){0, g->out[d], -g->before[d], g->kernel[d], kernel, offset};
  a->most = g->out[d];
  a->low = -g->before[d];
  a->high = a->low + extent(g, d) - 1;
}

/* The phase of input p: taps with tap * dilation = p + pad modulo stride. `memory` has room for 2 * taps. */
static marea_conv_phase backward_phase (const marea_conv *g, int d, int64_t p, int64_t *memory) {
  const int64_t stride = g->stride[d], at = p + g->before[d];
  int64_t taps = 0, far = 0;
  for (int64_t t = 0; t < g->kernel[d]; t++) taps += t * g->dilation[d] % stride == at % stride;
  int64_t *kernel = memory, *offset = memory + taps;
  for (int64_t t = 0, n = 0; n < taps; t++) {
    if (t * g->dilation[d] % stride != at % stride) continue;
    far = t * g->dilation[d] / stride;
    kernel[n] = t;
    offset[n++] = -far;
  }
  for (int64_t n = 0; n < taps; n++) offset[n] += far;
  return (marea_conv_phase){p, (g->in[d] - p + stride - 1) / stride, at / stride - far, taps, kernel, offset};
}

static void open_backward (const marea_conv *g, int d, marea_conv_axis *a, int64_t *memory) {
  bool any = false;
  a->src = g->out[d], a->out = g->in[d], a->src_step = 1, a->out_step = g->stride[d];
  a->low = a->high = a->most = 0;
  for (int64_t p = 0; p < a->phases; p++) {
    const marea_conv_phase phase = a->phase[p] = backward_phase(g, d, p, memory);
    memory += 2 * phase.taps;
    a->most = MAREA_MAX(a->most, phase.count);
    if (phase.taps == 0) continue;
    const int64_t high = phase.start + phase.offset[0];
    a->low = any ? MAREA_MIN(a->low, phase.start) : phase.start;
    a->high = any ? MAREA_MAX(a->high, high) : high;
    any = true;
  }
}

marea_status marea_conv_axes (marea_call *c, const marea_conv *g, bool backward, marea_conv_axis axis[2]) {
  size_t bytes[2], total;
  char *memory;
  for (int d = 0; d < 2; d++) {
    axis[d].phases = backward ? MAREA_MIN(g->stride[d], g->in[d]) : 1;
    MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &axis[d].phases, sizeof(marea_conv_phase), &bytes[d]));
    MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &g->kernel[d], 2 * sizeof(int64_t), &total));
    bytes[d] += total;
  }
  MAREA_TABLE(c, memory, bytes[0] + bytes[1]);
  for (int d = 0; d < 2; d++) {
    axis[d].phase = (marea_conv_phase *)(memory + (d == 0 ? 0 : bytes[0]));
    int64_t *taps = (int64_t *)(axis[d].phase + axis[d].phases);
    if (backward) open_backward(g, d, &axis[d], taps);
    else open_forward(g, d, &axis[d], taps);
  }
  return MAREA_OK;
}

/* Taps of the phases before `end`. */
static int64_t taps_before (const marea_conv_axis *a, const marea_conv_phase *end) {
  int64_t n = 0;
  for (const marea_conv_phase *p = a->phase; p < end; p++) n += p->taps;
  return n;
}

int64_t marea_conv_first_tap (const marea_conv_axis axis[2], const marea_conv_phase *y,
                              const marea_conv_phase *x, int64_t row, int64_t col) {
  const int64_t all = taps_before(&axis[1], axis[1].phase + axis[1].phases);
  return taps_before(&axis[0], y) * all + y->taps * taps_before(&axis[1], x) + row * x->taps + col;
}

marea_range marea_conv_taps_inside (const marea_conv_axis *a, const marea_conv_phase *p, int64_t unit) {
  const int64_t start = p->start + unit * a->src_step;
  marea_range r = {0, 0};
  bool any = false;
  for (int64_t t = 0; t < p->taps; t++) {
    const int64_t at = start + p->offset[t];
    if (at < 0 || at >= a->src) continue;
    if (!any) r.first = t;
    r.end = t + 1;
    any = true;
  }
  return r;
}

marea_range marea_conv_outputs_inside (const marea_conv *g, int d, int64_t tap) {
  const int64_t stride = g->stride[d], away = g->before[d] - tap * g->dilation[d], last = g->in[d] - 1 + away;
  const int64_t end = last < 0 ? 0 : MAREA_MIN(g->out[d], last / stride + 1);
  return (marea_range){MAREA_MIN(away <= 0 ? 0 : (away + stride - 1) / stride, end), end};
}

/* ---- tiles ---- */

static int64_t span (const marea_conv_axis *a) { return a->high - a->low + 1; }

/* Source rows or columns that `units` outputs of the phases read. */
static int64_t source_size (const marea_conv_axis *a, int64_t units) {
  return (units - 1) * a->src_step + span(a);
}

static bool stays_inside (const marea_conv_axis *a) {
  return a->low >= 0 && a->low + source_size(a, a->most) <= a->src;
}

/* Rows of a tile, by the shape alone: as many as its bytes allow, which keeps the work short between two looks at
   interrupts as well, and fewer if there would be too few tiles. */
static void choose_units (marea_conv_window *w) {
  const marea_conv_axis *rows = &w->axis[0];
  const int64_t most = (int64_t)(MAREA_CONV_TILE_BYTES / ((size_t)w->row * w->size)) - span(rows);
  int64_t units = most < 0 ? 1 : MAREA_MIN(rows->most, most / rows->src_step + 1);
  const int64_t wanted = (LEAST_TASKS + w->images - 1) / w->images;
  units = MAREA_MIN(units, MAREA_MAX((rows->most + wanted - 1) / wanted, LEAST_UNITS));
  w->tiles = (rows->most + units - 1) / units;
  w->units = (rows->most + w->tiles - 1) / w->tiles;
  w->tiles = (rows->most + w->units - 1) / w->units;
}

static marea_binary_kernel *grad_of (marea_call *c, const marea_conv_source *src) {
  if (!src->y || src->computed) return NULL;
  return marea_activation_grad_kernel(c->ctx->kernels[src->t->dtype], src->act);
}

static const char *elements_of (const marea_conv_source *src) {
  return src->computed ? src->computed : marea_at(src->t);
}

typedef struct computation {
  const marea_conv_source *src;
  marea_binary_kernel *grad;
  size_t size;
  int64_t count;
  char *to;
} computation;

static void compute_block (void *arg, int64_t block, int worker) {
  const computation *k = arg;
  const int64_t n = MAREA_MIN(MAREA_BLOCK, k->count - block * MAREA_BLOCK);
  const size_t at = (size_t)(block * MAREA_BLOCK) * k->size;
  (void)worker;
  k->grad((size_t)n, (const char *)marea_at(k->src->t) + at, 1, (const char *)marea_at(k->src->y) + at, 1,
          k->to + at, &k->src->slope);
}

marea_status marea_conv_source_compute (marea_call *c, marea_conv_source *src) {
  computation k = {.src = src,
                   .grad = grad_of(c, src),
                   .size = marea_dtype_size((marea_dtype)src->t->dtype),
                   .count = marea_count(src->t->rank, src->t->shape)};
  if (!k.grad || k.count == 0) return MAREA_OK;
  MAREA_SCRATCH(c, k.to, (size_t)k.count * k.size);
  marea_parallel(c->ctx, (k.count - 1) / MAREA_BLOCK + 1, compute_block, &k);
  src->computed = k.to;
  return MAREA_OK;
}

/* The source's elements as they are. */
static marea_conv_images plain_images (const marea_conv_source *src) {
  const marea_tensor *t = src->t;
  const size_t size = marea_dtype_size((marea_dtype)t->dtype);
  return (marea_conv_images){.src = elements_of(src),
                             .per_image = (size_t)(t->shape[1] * t->shape[2] * t->shape[3]) * size};
}

static marea_conv_images images_of (marea_call *c, const marea_conv_source *src) {
  marea_conv_images from = plain_images(src);
  from.grad = grad_of(c, src);
  if (from.grad) from.y = marea_at(src->y);
  from.slope = src->slope;
  return from;
}

void marea_conv_window_direct (const marea_conv_source *src, marea_conv_window *w) {
  w->from = plain_images(src);
  w->size = marea_dtype_size((marea_dtype)src->t->dtype);
  w->images = src->t->shape[0];
  w->channels = src->t->shape[3];
  w->clipped = true;
  w->row = w->axis[1].src * w->channels;
  w->memory = NULL;
  w->bytes = 0;
}

marea_status marea_conv_window_memory (marea_call *c, int64_t count, marea_conv_window *w) {
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &count, w->size, &w->bytes));
  w->per_worker = w->bytes;
  return marea_worker_memory(c, &w->per_worker, &w->memory);
}

/* Are tiles the images themselves? */
static bool is_direct (const marea_conv_window *w) { return w->clipped && !w->from.grad; }

marea_status marea_conv_window_open (marea_call *c, const marea_conv_source *src, marea_conv_window *w) {
  const bool clipped = w->clipped || (stays_inside(&w->axis[0]) && stays_inside(&w->axis[1]));
  marea_conv_window_direct(src, w);
  w->from = images_of(c, src);
  w->kernels = c->ctx->kernels[src->t->dtype];
  w->clipped = clipped;
  const int64_t cols = w->clipped ? w->axis[1].src : source_size(&w->axis[1], w->axis[1].most);
  size_t least;
  const int64_t smallest[] = {span(&w->axis[0]), cols, MAREA_MAX(w->channels, 1)};
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, smallest, w->size, &least));
  w->row = MAREA_MAX(cols, 1) * MAREA_MAX(w->channels, 1);
  choose_units(w);
  w->row = cols * w->channels;
  if (is_direct(w)) return MAREA_OK;
  const int64_t tile[] = {source_size(&w->axis[0], w->units), cols, w->channels};
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, tile, w->size, &w->bytes));
  MAREA_TRY(marea_conv_window_memory(c, marea_count(3, tile), w));
  if (w->clipped) return MAREA_OK;
  MAREA_TABLE(c, w->cleared, (size_t)c->ctx->threads * sizeof *w->cleared);
  memset(w->cleared, 0, (size_t)c->ctx->threads * sizeof *w->cleared);
  return MAREA_OK;
}

static const char *image_at (const marea_conv_images *from, int64_t image, int worker) {
  return from->src + (size_t)image * from->per_image + (size_t)worker * from->per_worker;
}

/* dst := n elements of an image from byte `at` on, or of the gradient before the activation that made y */
static void load (const marea_conv_images *from, int64_t image, int worker, size_t at, size_t n, size_t size,
                  char *dst) {
  const char *src = image_at(from, image, worker) + at;
  if (from->grad) from->grad(n, src, 1, from->y + (size_t)image * from->per_image + at, 1, dst, &from->slope);
  else memcpy(dst, src, n * size);
}

/* Rows top .. top + n - 1, as far as they are there. */
static void load_clipped (const marea_conv_window *w, int64_t image, int worker, int64_t top, int64_t n,
                          char *dst) {
  const int64_t first = MAREA_MAX(top, 0), end = MAREA_MIN(top + n, w->axis[0].src);
  const size_t row = (size_t)w->row * w->size;
  if (first < end)
    load(&w->from, image, worker, (size_t)first * row, (size_t)((end - first) * w->row), w->size,
         dst + (size_t)(first - top) * row);
}

/* `rows` rows from `first` on, without their padding */
static void load_rows (const marea_conv_window *w, int64_t image, int worker, int64_t first, int64_t rows,
                       int64_t col, int64_t cols, char *dst) {
  const size_t n = (size_t)(cols * w->channels), step = (size_t)(w->axis[1].src * w->channels);
  const size_t at = ((size_t)first * step + (size_t)(col * w->channels)) * w->size;
  if (!w->from.grad) {
    w->kernels->copy_rows((size_t)rows, n, step, image_at(&w->from, image, worker) + at, (size_t)w->row, dst);
    return;
  }
  for (int64_t y = 0; y < rows; y++)
    load(&w->from, image, worker, at + (size_t)y * step * w->size, n, w->size,
         dst + (size_t)(y * w->row) * w->size);
}

/* The same between zeros. Those to the left and to the right are there since the worker's first tile. */
static void load_padded (const marea_conv_window *w, int64_t image, int worker, int64_t top, int64_t n,
                         char *dst) {
  const marea_conv_axis *rows = &w->axis[0], *cols = &w->axis[1];
  const size_t row = (size_t)w->row * w->size;
  const int64_t first = MAREA_MAX(cols->low, 0),
                end = MAREA_MIN(cols->low + source_size(cols, cols->most), cols->src);
  const int64_t above = MAREA_MIN(MAREA_MAX(-top, 0), n),
                below = MAREA_MIN(MAREA_MAX(top + n - rows->src, 0), n - above);
  const int64_t there = n - above - below;
  if (!w->cleared[worker]) { /* written once only: the workers' share a cache line */
    memset(dst, 0, w->bytes);
    w->cleared[worker] = true;
  }
  memset(dst, 0, (size_t)above * row);
  if (there > 0 && first < end)
    load_rows(w, image, worker, top + above, there, first, end - first,
              dst + (size_t)above * row + (size_t)((first - cols->low) * w->channels) * w->size);
  memset(dst + (size_t)(above + there) * row, 0, (size_t)below * row);
}

const char *marea_conv_window_load (const marea_conv_window *w, int64_t image, int64_t tile, int worker) {
  const marea_conv_axis *rows = &w->axis[0], *cols = &w->axis[1];
  const int64_t top = rows->low + tile * w->units * rows->src_step;
  const int64_t pixel = w->channels * (int64_t)w->size;
  if (is_direct(w)) return image_at(&w->from, image, worker) + (top * cols->src + cols->low) * pixel;
  char *memory = w->memory + (size_t)worker * w->per_worker;
  const int64_t n = source_size(rows, marea_conv_window_units(w, tile));
  if (w->clipped) load_clipped(w, image, worker, top, n, memory);
  else load_padded(w, image, worker, top, n, memory);
  return w->clipped ? memory + cols->low * pixel : memory;
}

marea_status marea_conv_rows_open (marea_call *c, const marea_conv_source *src, int64_t most,
                                   marea_conv_rows *r) {
  const marea_tensor *t = src->t;
  *r = (marea_conv_rows){.from = images_of(c, src),
                         .row = t->shape[2] * t->shape[3],
                         .rows = t->shape[1],
                         .images = t->shape[0],
                         .size = marea_dtype_size((marea_dtype)t->dtype)};
  if (!r->from.grad) return MAREA_OK;
  r->bytes = (size_t)(MAREA_MIN(most, t->shape[0] * t->shape[1]) * r->row) * r->size;
  return marea_worker_memory(c, &r->bytes, &r->memory);
}

const char *marea_conv_rows_load (const marea_conv_rows *r, int64_t image, int64_t first, int64_t n,
                                  int worker) {
  const size_t at = (size_t)(first * r->row) * r->size;
  if (!r->from.grad) return image_at(&r->from, image, worker) + at;
  char *memory = r->memory + (size_t)worker * r->bytes;
  load(&r->from, image, worker, at, (size_t)(n * r->row), r->size, memory);
  return memory;
}

void marea_conv_share (const marea_conv_rows *all, marea_conv_images *from) {
  *from = (marea_conv_images){.src = all->memory, .per_worker = all->bytes};
}

/* ---- ahead ---- */

static void image_ahead (const marea_conv_images *from, int64_t image, marea_prefetch *a) {
  const size_t at = (size_t)image * from->per_image;
  marea_prefetch_add(a, marea_prefetch_area_of(from->src + at, from->per_image));
  if (from->y) marea_prefetch_add(a, marea_prefetch_area_of(from->y + at, from->per_image));
}

void marea_conv_window_ahead (const marea_conv_window *w, int64_t image, marea_prefetch *a) {
  if (image < w->images) image_ahead(&w->from, image, a);
}

void marea_conv_rows_ahead (const marea_conv_rows *r, int64_t image, marea_prefetch *a) {
  if (image < r->images) image_ahead(&r->from, image, a);
}
