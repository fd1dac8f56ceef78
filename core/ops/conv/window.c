/* SPDX-License-Identifier: MIT
** window.c: tiles of the images that a pass reads.
*/
#include <string.h>

#include "window.h"

/* Rows of phase 0 in a tile, at least: a 3x3 kernel reads two rows of the neighbouring tile again, half of 4. */
#define LEAST_UNITS 4
/* Tiles to cut few images into: threads that share them wait for the last one, 1/8 of the time at most on two. */
#define LEAST_TASKS 8

/* ---- sizes of tiles ---- */

static int64_t span (const marea_conv_axis *a) { return a->high - a->low + 1; }

/* Source rows or columns that `units` outputs of the phases read. */
static int64_t source_size (const marea_conv_axis *a, int64_t units) {
  return (units - 1) * a->src_step + span(a);
}

static bool stays_inside (const marea_conv_axis *a) {
  return a->low >= 0 && a->low + source_size(a, a->most) <= a->src;
}

/* Rows of a tile, by the shape alone: as many as its bytes allow, which also keeps the time short between two checks for
   interrupts, and fewer if there would be too few tiles. */
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

/* ---- sources ---- */

static marea_binary_kernel *grad_of (marea_call *c, const marea_conv_source *src) {
  if (!src->y || src->computed) return NULL;
  return marea_activation_grad_kernel(c->ctx->kernels[marea_computed_in(src->t->dtype)], src->act);
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
  MAREA_WORKSPACE_OR_RETURN(c, k.to, (size_t)k.count * k.size);
  marea_parallel(c->ctx, (k.count - 1) / MAREA_BLOCK + 1, compute_block, &k);
  src->computed = k.to;
  return MAREA_OK;
}

/* The elements of the source as they lie in memory. */
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
  if (src->t->dtype == MAREA_BF16) from.widens = c->ctx->kernels[MAREA_F32];
  return from;
}

/* ---- windows ---- */

void marea_conv_window_in_place (const marea_conv_source *src, marea_conv_window *w) {
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
static bool is_in_place (const marea_conv_window *w) { return w->clipped && !w->from.grad; }

/* Memory for all images. */
static marea_status open_all (marea_call *c, marea_conv_window *w) {
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &w->images, w->bytes, &bytes));
  w->per_worker = w->bytes;
  MAREA_WORKSPACE_OR_RETURN(c, w->memory, MAREA_MAX(bytes, 1));
  return MAREA_OK;
}

marea_status marea_conv_window_open (marea_call *c, const marea_conv_source *src, marea_conv_window *w) {
  const bool clipped = w->clipped || (stays_inside(&w->axis[0]) && stays_inside(&w->axis[1]));
  marea_conv_window_in_place(src, w);
  w->from = images_of(c, src);
  w->kernels = c->ctx->kernels[marea_computed_in(src->t->dtype)];
  w->clipped = clipped;
  const int64_t cols = w->clipped ? w->axis[1].src : source_size(&w->axis[1], w->axis[1].most);
  size_t least;
  const int64_t smallest[] = {span(&w->axis[0]), cols, MAREA_MAX(w->channels, 1)};
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, smallest, w->size, &least));
  w->row = MAREA_MAX(cols, 1) * MAREA_MAX(w->channels, 1);
  choose_units(w);
  w->row = cols * w->channels;
  if (w->ahead) w->units = w->axis[0].most, w->tiles = 1;
  if (is_in_place(w)) return MAREA_OK;
  const int64_t tile[] = {source_size(&w->axis[0], w->units), cols, w->channels};
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 3, tile, w->size, &w->bytes));
  const int64_t places = w->ahead ? w->images : c->ctx->threads;
  if (w->ahead) MAREA_TRY(open_all(c, w));
  else MAREA_TRY(marea_conv_window_memory(c, marea_count(3, tile), w));
  if (w->clipped) return MAREA_OK;
  MAREA_TABLE_OR_RETURN(c, w->cleared, (size_t)places * sizeof *w->cleared);
  memset(w->cleared, 0, (size_t)places * sizeof *w->cleared);
  return MAREA_OK;
}

static const char *image_at (const marea_conv_images *from, int64_t image, int worker) {
  return from->src + (size_t)image * from->per_image + (size_t)worker * from->per_worker;
}

#define WIDENED 512 /* elements of bf16 that are computed at a time */

static void grad_of_bf16 (const marea_conv_images *from, size_t n, const uint16_t *dy, const uint16_t *y,
                          uint16_t *dst) {
  float wide_dy[WIDENED], wide_y[WIDENED];
  if (from->grad == from->widens->relu_grad) {
    from->widens->relu_grad_bf16(n, dy, y, dst);
    return;
  }
  for (size_t i = 0; i < n; i += WIDENED) {
    const size_t some = MAREA_MIN(WIDENED, n - i);
    from->widens->widen_bf16(some, dy + i, wide_dy);
    from->widens->widen_bf16(some, y + i, wide_y);
    from->grad(some, wide_dy, 1, wide_y, 1, wide_dy, &from->slope);
    from->widens->narrow_bf16(some, wide_dy, dst + i);
  }
}

/* dst := n elements of an image from byte `at` on, or of the gradient before the activation that made y */
static void load (const marea_conv_images *from, int64_t image, int worker, size_t at, size_t n, size_t size,
                  char *dst) {
  const char *src = image_at(from, image, worker) + at;
  const char *y = from->grad ? from->y + (size_t)image * from->per_image + at : NULL;
  if (from->grad && from->widens) grad_of_bf16(from, n, (const void *)src, (const void *)y, (void *)dst);
  else if (from->grad) from->grad(n, src, 1, y, 1, dst, &from->slope);
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
  if (!w->from.grad && w->size > sizeof(uint16_t)) { /* there is no copy_rows of bf16 */
    w->kernels->copy_rows((size_t)rows, n, step, image_at(&w->from, image, worker) + at, (size_t)w->row, dst);
    return;
  }
  for (int64_t y = 0; y < rows; y++)
    load(&w->from, image, worker, at + (size_t)y * step * w->size, n, w->size,
         dst + (size_t)(y * w->row) * w->size);
}

/* The same rows between zeros. Those to the left and to the right stay from the place's first tile on. */
static void load_padded (const marea_conv_window *w, int64_t image, int worker, int64_t place, int64_t top,
                         int64_t n, char *dst) {
  const marea_conv_axis *rows = &w->axis[0], *cols = &w->axis[1];
  const size_t row = (size_t)w->row * w->size;
  const int64_t first = MAREA_MAX(cols->low, 0),
                end = MAREA_MIN(cols->low + source_size(cols, cols->most), cols->src);
  const int64_t above = MAREA_MIN(MAREA_MAX(-top, 0), n),
                below = MAREA_MIN(MAREA_MAX(top + n - rows->src, 0), n - above);
  const int64_t there = n - above - below;
  if (!w->cleared[place]) { /* written once only: the flags of all workers share a cache line */
    memset(dst, 0, w->bytes);
    w->cleared[place] = true;
  }
  memset(dst, 0, (size_t)above * row);
  if (there > 0 && first < end)
    load_rows(w, image, worker, top + above, there, first, end - first,
              dst + (size_t)above * row + (size_t)((first - cols->low) * w->channels) * w->size);
  memset(dst + (size_t)(above + there) * row, 0, (size_t)below * row);
}

/* Copies a tile to place number `place` of the memory. */
static char *copy_tile (const marea_conv_window *w, int64_t image, int64_t tile, int worker, int64_t place) {
  const marea_conv_axis *rows = &w->axis[0];
  const int64_t top = rows->low + tile * w->units * rows->src_step;
  const int64_t n = source_size(rows, marea_conv_window_units(w, tile));
  char *memory = w->memory + (size_t)place * w->per_worker;
  if (w->clipped) load_clipped(w, image, worker, top, n, memory);
  else load_padded(w, image, worker, place, top, n, memory);
  return memory;
}

static void copy_ahead (void *arg, int64_t image, int worker) { copy_tile(arg, image, 0, worker, image); }

marea_status marea_conv_window_open_ahead (marea_call *c, const marea_conv_source *src,
                                           marea_conv_window *w) {
  w->ahead = true;
  MAREA_TRY(marea_conv_window_open(c, src, w));
  if (!is_in_place(w)) marea_parallel(c->ctx, w->images, copy_ahead, w);
  return MAREA_OK;
}

const char *marea_conv_window_load (const marea_conv_window *w, int64_t image, int64_t tile, int worker) {
  const marea_conv_axis *rows = &w->axis[0], *cols = &w->axis[1];
  const int64_t pixel = w->channels * (int64_t)w->size;
  if (is_in_place(w)) {
    const int64_t top = rows->low + tile * w->units * rows->src_step;
    return image_at(&w->from, image, worker) + (top * cols->src + cols->low) * pixel;
  }
  const char *memory = w->ahead ? w->memory + (size_t)image * w->per_worker
                                : copy_tile(w, image, tile, worker, worker);
  return w->clipped ? memory + cols->low * pixel : memory;
}

/* ---- rows ---- */

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

/* ---- prefetching ---- */

static void prefetch_image (const marea_conv_images *from, int64_t image, marea_prefetch *p) {
  const size_t at = (size_t)image * from->per_image;
  marea_prefetch_add(p, marea_prefetch_area_of(from->src + at, from->per_image));
  if (from->y) marea_prefetch_add(p, marea_prefetch_area_of(from->y + at, from->per_image));
}

void marea_conv_window_prefetch (const marea_conv_window *w, int64_t image, marea_prefetch *p) {
  if (image >= w->images) return;
  if (w->ahead && !is_in_place(w))
    marea_prefetch_add(p, marea_prefetch_area_of(w->memory + (size_t)image * w->per_worker, w->bytes));
  else prefetch_image(&w->from, image, p);
}

void marea_conv_window_prefetch_tile (const marea_conv_window *w, int64_t image, int64_t tile,
                                      marea_prefetch *p) {
  const marea_conv_axis *rows = &w->axis[0];
  if (!is_in_place(w) || image >= w->images) return;
  const size_t row = (size_t)w->row * w->size;
  const int64_t top = rows->low + tile * w->units * rows->src_step, first = MAREA_MAX(top, 0),
                end = MAREA_MIN(top + source_size(rows, marea_conv_window_units(w, tile)), rows->src);
  if (first < end)
    marea_prefetch_add(p, marea_prefetch_area_of(image_at(&w->from, image, 0) + (size_t)first * row,
                                                 (size_t)(end - first) * row));
}

void marea_conv_rows_prefetch (const marea_conv_rows *r, int64_t image, marea_prefetch *p) {
  if (image < r->images) prefetch_image(&r->from, image, p);
}
