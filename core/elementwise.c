/* SPDX-License-Identifier: MIT
** elementwise.c: loops over tensors of any strides around kernels that know only contiguous runs.
**
** The shapes of all operands are laid over each other, dimensions that continue one another in every
** operand are merged, and the elements are cut into fixed blocks. What is left of a block after merging is
** usually one run; a run is handed to the kernel as it is when its operands have step 1 (or 0: one value
** for all). Other operands pass through a small buffer on the stack, and so do rows that are too short to
** be worth a call.
**
** The order of dimensions is never changed for maps: inputs that are walked against their order cost cache
** misses. Copies (marea_copy_strided) go in tiles instead, since transposing is what they are mostly used
** for.
*/
#include <math.h>
#include <string.h>

#include "core.h"

#define MAX_OPERANDS 4
/* Elements of a buffer: four of them with 8 bytes an element fill 16 KB, half of a first-level cache. */
#define CHUNK 512
/* Shorter rows are gathered in a buffer: 128 elements are 8 vectors of AVX-512, a call costs as much. */
#define SHORT_ROW 128
#define TILE_ROWS 16 /* of a transposing copy: a cache line of f32 in the source, */
#define TILE_COLS 64 /* and four in the destination; a tile of both is 8 KB */

typedef struct operand {
  char *data;
  size_t size;  /* of an element */
  int8_t dtype; /* if it is only stored, and converted on its way; -1: it is what the kernel computes with */
  bool linear;  /* strides are the row-major ones of the loop */
  bool fixed;   /* all strides are 0: one value for all elements */
  bool repeats; /* all strides but the last are 0: the same values in every row */
  int64_t stride[MAREA_MAX_RANK];
} operand;

typedef struct loop {
  int rank, n; /* dimensions, at least 1; operands, of which [0] is the output */
  int64_t count;
  int64_t shape[MAREA_MAX_RANK];
  operand o[MAX_OPERANDS];
  marea_unary_kernel *unary; /* one of the three is set */
  marea_binary_kernel *binary;
  marea_ternary_kernel *ternary;
  const double *p;
  const marea_context *ctx;
  bool converts; /* an operand is only stored */
  marea_context
      *slow; /* the kernel takes microseconds an element: whom to ask whether to stop; NULL: it does not */
} loop;

/* ---- the plan -------------------------------------------------------------------------------------- */

static void add_operand (loop *l, const marea_tensor *t) {
  operand *o = &l->o[l->n++];
  const int missing = l->rank - t->rank;
  o->data = marea_at(t);
  o->size = marea_dtype_size(t->dtype);
  o->dtype = marea_is_in(MAREA_STORED, t->dtype) ? t->dtype : -1;
  for (int d = 0; d < l->rank; d++) {
    const bool repeats = d < missing || t->shape[d - missing] == 1;
    o->stride[d] = repeats ? 0 : t->stride[d - missing];
  }
}

static bool continues (const loop *l, int outer, int inner) {
  for (int k = 0; k < l->n; k++) {
    const int64_t *stride = l->o[k].stride;
    if (stride[outer] != stride[inner] * l->shape[inner]) return false;
  }
  return true;
}

static void move_dim (loop *l, int to, int from) {
  l->shape[to] = l->shape[from];
  for (int k = 0; k < l->n; k++) l->o[k].stride[to] = l->o[k].stride[from];
}

/* Drops dimensions of size 1 and joins neighbours that are one run in every operand. */
static void merge_dims (loop *l) {
  int rank = 0;
  for (int d = 0; d < l->rank; d++) {
    if (l->shape[d] == 1) continue;
    if (rank > 0 && continues(l, rank - 1, d)) {
      const int64_t size = l->shape[rank - 1];
      move_dim(l, rank - 1, d);
      l->shape[rank - 1] *= size;
    } else {
      move_dim(l, rank++, d);
    }
  }
  if (rank == 0) {
    l->shape[0] = 1;
    for (int k = 0; k < l->n; k++) l->o[k].stride[0] = 1;
    rank = 1;
  }
  l->rank = rank;
}

static void describe (const loop *l, operand *o) {
  int64_t step = 1;
  o->linear = o->fixed = o->repeats = true;
  for (int d = l->rank - 1; d >= 0; d--) {
    o->linear = o->linear && o->stride[d] == step;
    o->fixed = o->fixed && o->stride[d] == 0;
    o->repeats = o->repeats && (d == l->rank - 1 || o->stride[d] == 0);
    step *= l->shape[d];
  }
}

/* Operands: out, then the inputs, each broadcast to out's shape. */
static void plan (loop *l, const marea_tensor *out, int n_in, marea_tensor *const *in) {
  l->n = 0;
  l->rank = out->rank;
  l->count = marea_count(out->rank, out->shape);
  for (int d = 0; d < out->rank; d++) l->shape[d] = out->shape[d];
  if (l->count == 0) return;
  add_operand(l, out);
  for (int k = 0; k < n_in; k++) add_operand(l, in[k]);
  merge_dims(l);
  for (int k = 0; k < l->n; k++) describe(l, &l->o[k]);
}

/* ---- runs ------------------------------------------------------------------------------------------ */

/* index[] := the position of element i in each dimension */
static void locate (const loop *l, int64_t i, int64_t *index) {
  for (int d = l->rank - 1; d > 0; d--) {
    index[d] = i % l->shape[d];
    i /= l->shape[d];
  }
  index[0] = i;
}

static int64_t offset_of (const loop *l, const operand *o, const int64_t *index) {
  int64_t offset = 0;
  for (int d = 0; d < l->rank; d++) offset += index[d] * o->stride[d];
  return offset;
}

/* Moves a run between an operand and a buffer, converting what is only stored. */
static void move_run (const loop *l, const operand *o, int64_t n, char *place, int64_t step, char *buffer,
                      bool into_buffer) {
  const int computed = o->dtype < 0 ? -1 : marea_computed_in(o->dtype);
  if (into_buffer) {
    if (o->dtype < 0) marea_copy_run(n, o->size, place, step, buffer, 1);
    else marea_convert_run(l->ctx, n, o->dtype, place, step, computed, buffer, 1);
  } else {
    if (o->dtype < 0) marea_copy_run(n, o->size, buffer, 1, place, step);
    else marea_convert_run(l->ctx, n, computed, buffer, 1, o->dtype, place, step);
  }
}

/* Bytes of an element in a buffer. */
static int64_t size_in_buffer (const operand *o) {
  return (int64_t)(o->dtype < 0 ? o->size : marea_element_size(marea_computed_in(o->dtype)));
}

void marea_copy_pieces (int64_t n, size_t bytes, const void *src, int64_t ss, void *dst, int64_t ds) {
  const char *from = src;
  char *to = dst;
#define COPY_PIECES(word)                                                                         \
  for (; n > 0; n--, from += ss, to += ds) {                                                      \
    for (size_t i = 0; i + (word) < bytes; i += (word)) __builtin_memcpy(to + i, from + i, word); \
    __builtin_memcpy(to + bytes - (word), from + bytes - (word), word);                           \
  }
  if (bytes > 256 || bytes < 2)
    for (; n > 0; n--, from += ss, to += ds) memcpy(to, from, bytes);
  else if (bytes >= 16) COPY_PIECES(16)
  else if (bytes >= 8) COPY_PIECES(8)
  else if (bytes >= 4) COPY_PIECES(4)
  else COPY_PIECES(2)
}

/* Gathers n rows whose elements lie side by side in a buffer; `step` elements from row to row. */
static void gather_rows (const loop *l, const operand *o, int64_t n, const char *place, int64_t step,
                         char *buffer) {
  _Alignas(MAREA_ALIGN) char stored[2 * CHUNK * sizeof(uint16_t)];
  const int64_t row = l->shape[l->rank - 1];
  char *to = o->dtype < 0 ? buffer : stored;
  marea_copy_pieces(n, (size_t)row * o->size, place, step * (int64_t)o->size, to, row * (int64_t)o->size);
  if (o->dtype >= 0) move_run(l, o, n * row, stored, 1, buffer, true);
}

/* Moves n elements from `start` on between an operand and a buffer without gaps. */
static void move_through (const loop *l, const operand *o, const int64_t *start, int64_t n, char *buffer,
                          bool into_buffer) {
  const int last = l->rank - 1;
  int64_t index[MAREA_MAX_RANK];
  if (o->linear) {
    move_run(l, o, n, o->data + offset_of(l, o, start) * (int64_t)o->size, 1, buffer, into_buffer);
    return;
  }
  memcpy(index, start, sizeof index);
  const bool gathers = into_buffer && last > 0 && o->stride[last] == 1 && l->shape[last] < SHORT_ROW;
  while (n > 0) {
    char *place = o->data + offset_of(l, o, index) * (int64_t)o->size;
    int64_t run = MAREA_MIN(n, l->shape[last] - index[last]);
    const int64_t rows = MAREA_MIN(n / l->shape[last], last > 0 ? l->shape[last - 1] - index[last - 1] : 0);
    if (gathers && index[last] == 0 && rows > 1) {
      run = rows * l->shape[last];
      gather_rows(l, o, rows, place, o->stride[last - 1], buffer);
      index[last - 1] += rows - 1;
      index[last] = l->shape[last];
    } else {
      move_run(l, o, run, place, o->stride[last], buffer, into_buffer);
      index[last] += run;
    }
    buffer += run * size_in_buffer(o);
    n -= run;
    for (int d = last; d > 0 && index[d] == l->shape[d]; d--) {
      index[d] = 0;
      index[d - 1]++;
    }
  }
}

/* Can elements of one row (`by_rows`), or any elements, be used where they are? */
static bool is_direct (const loop *l, const operand *o, bool by_rows, bool may_repeat) {
  const int64_t step = o->stride[l->rank - 1];
  if (o->dtype >= 0) return false;
  if (o->linear || (o->fixed && may_repeat)) return true;
  return by_rows && (step == 1 || (step == 0 && may_repeat));
}

static void call_kernel (const loop *l, size_t n, char *const *at, const size_t *step) {
  if (l->unary) l->unary(n, at[1], at[0], l->p);
  else if (l->binary) l->binary(n, at[1], step[1], at[2], step[2], at[0], l->p);
  else l->ternary(n, at[1], step[1], at[2], step[2], at[3], step[3], at[0], l->p);
}

/* Which operands of a block the kernel reads in place, and which through a buffer. */
typedef struct passage {
  bool direct[MAX_OPERANDS], all_direct, by_rows;
  bool single[MAX_OPERANDS]; /* one value, converted once */
  size_t step[MAX_OPERANDS];
  int64_t most; /* elements of one call; whole short rows, so that a buffer of repeated rows stays valid */
} passage;

static void choose_passage (const loop *l, passage *p) {
  const int64_t row = l->shape[l->rank - 1];
  p->by_rows = row >= SHORT_ROW || l->rank == 1;
  p->all_direct = true;
  for (int k = 0; k < l->n; k++) {
    const operand *o = &l->o[k];
    p->direct[k] = is_direct(l, o, p->by_rows, k > 0 && !l->unary);
    p->step[k] = p->direct[k] && (o->fixed || (!o->linear && o->stride[l->rank - 1] == 0)) ? 0 : 1;
    p->all_direct = p->all_direct && p->direct[k];
    p->single[k] = k > 0 && !l->unary && o->dtype >= 0 && o->fixed;
    if (p->single[k]) p->step[k] = 0;
  }
  const int64_t chunk = l->converts ? 2 * CHUNK : CHUNK; /* of f32, if one is converted */
  p->most = p->all_direct ? MAREA_BLOCK : p->by_rows ? chunk : chunk / row * row;
}

static void run_block (void *arg, int64_t block, int worker) {
  (void)worker;
  const loop *l = arg;
  _Alignas(MAREA_ALIGN) char buffer[MAX_OPERANDS][CHUNK * sizeof(double)];
  const int64_t begin = block * MAREA_BLOCK, end = MAREA_MIN(begin + MAREA_BLOCK, l->count);
  passage p;
  choose_passage(l, &p);
  if (l->slow) p.most = MAREA_MIN(p.most, CHUNK);
  for (int64_t i = begin, n; i < end; i += n) {
    if (l->slow && i > begin && marea_stopping(l->slow)) return;
    int64_t index[MAREA_MAX_RANK];
    char *at[MAX_OPERANDS];
    locate(l, i, index);
    n = MAREA_MIN(end - i, p.most);
    if (p.by_rows) n = MAREA_MIN(n, l->shape[l->rank - 1] - index[l->rank - 1]);
    for (int k = 0; k < l->n; k++) {
      const operand *o = &l->o[k];
      const bool filled = k == 0 || p.direct[k] || (i > begin && (p.single[k] || (o->repeats && !p.by_rows)));
      at[k] = p.direct[k] ? o->data + offset_of(l, o, index) * (int64_t)o->size : buffer[k];
      if (!filled) move_through(l, o, index, p.single[k] ? 1 : n, buffer[k], true);
    }
    call_kernel(l, (size_t)n, at, p.step);
    if (!p.direct[0]) move_through(l, &l->o[0], index, n, buffer[0], false);
  }
}

/* Small tensors skip the plan if every input is contiguous and has as many elements as the result, or one. */
static bool run_at_once (const marea_call *c, const loop *l, int n_in) {
  const marea_tensor *out = c->out[0]; /* row-major, as all results are */
  const int64_t n = marea_count(out->rank, out->shape);
  char *at[MAX_OPERANDS];
  size_t step[MAX_OPERANDS];
  if (n == 0 || n > (l->slow ? CHUNK : MAREA_BLOCK) || l->converts) return false;
  at[0] = marea_at(out);
  for (int k = 1; k <= n_in; k++) {
    const marea_tensor *t = c->in[k - 1];
    const int64_t size = marea_count(t->rank, t->shape);
    if (size == n ? !marea_tensor_contiguous(t) : size != 1 || l->unary) return false;
    at[k] = marea_at(t);
    step[k] = size == n;
  }
  call_kernel(l, (size_t)n, at, step);
  return true;
}

static marea_status run_map (marea_call *c, loop *l, int n_in) {
  l->ctx = c->ctx;
  l->converts = marea_is_in(MAREA_STORED, c->out[0]->dtype);
  for (int k = 0; k < n_in; k++) l->converts |= marea_is_in(MAREA_STORED, c->in[k]->dtype);
  if (run_at_once(c, l, n_in)) return MAREA_OK;
  plan(l, c->out[0], n_in, c->in);
  const int64_t blocks = (l->count + MAREA_BLOCK - 1) / MAREA_BLOCK;
  if (blocks == 1) run_block(l, 0, 0);
  else if (blocks > 1) marea_parallel(c->ctx, blocks, run_block, l);
  return MAREA_OK;
}

marea_status marea_map_unary (marea_call *c, marea_unary_kernel *kernel, const double *p) {
  loop l;
  l.unary = kernel, l.binary = NULL, l.ternary = NULL, l.p = p, l.slow = NULL;
  return run_map(c, &l, 1);
}

marea_status marea_map_slowly (marea_call *c, marea_unary_kernel *kernel, const double *p) {
  loop l;
  l.unary = kernel, l.binary = NULL, l.ternary = NULL, l.p = p, l.slow = c->ctx;
  return run_map(c, &l, 1);
}

marea_status marea_map_binary (marea_call *c, marea_binary_kernel *kernel, const double *p) {
  loop l;
  l.unary = NULL, l.binary = kernel, l.ternary = NULL, l.p = p, l.slow = NULL;
  return run_map(c, &l, 2);
}

marea_status marea_map_ternary (marea_call *c, marea_ternary_kernel *kernel, const double *p) {
  loop l;
  l.unary = NULL, l.binary = NULL, l.ternary = kernel, l.p = p, l.slow = NULL;
  return run_map(c, &l, 3);
}

/* ---- copies ---------------------------------------------------------------------------------------- */

typedef struct copy {
  const marea_context *ctx;
  loop l; /* [0] destination, [1] source; rank at least 2 unless it is one run */
  int from, to;
  int64_t rows, cols; /* the last two dimensions */
  int64_t tile_rows, tile_cols;
  int64_t bands, units; /* bands of tile_rows rows: in a plane, in all planes */
  int64_t units_per_block;
  void (*turn)(size_t rows, size_t cols, size_t x_row, const void *x, size_t y_row, void *y); /* NULL: none */
} copy;

/* rows [r0, r0 + n) of a plane, column tile by column tile */
static void copy_band (const copy *k, char *dst, const char *src, int64_t n) {
  const int a = k->l.rank - 2, b = k->l.rank - 1;
  const int64_t *ds = k->l.o[0].stride, *ss = k->l.o[1].stride;
  const int64_t dsize = (int64_t)k->l.o[0].size, ssize = (int64_t)k->l.o[1].size;
  for (int64_t col = 0; col < k->cols; col += k->tile_cols) {
    const int64_t width = MAREA_MIN(k->tile_cols, k->cols - col);
    if (k->from == k->to && ds[b] == 1 && ss[b] == 1) {
      marea_copy_pieces(n, (size_t)(width * dsize), src + col * ssize, ss[a] * ssize, dst + col * dsize,
                        ds[a] * dsize);
      continue;
    }
    if (k->turn && ds[b] == 1 && ss[a] == 1) {
      k->turn((size_t)width, (size_t)n, (size_t)ss[b], src + col * ss[b] * ssize, (size_t)ds[a],
              dst + col * dsize);
      continue;
    }
    for (int64_t r = 0; r < n; r++) {
      marea_convert_run(k->ctx, width, k->from, src + (r * ss[a] + col * ss[b]) * ssize, ss[b], k->to,
                        dst + (r * ds[a] + col * ds[b]) * dsize, ds[b]);
    }
  }
}

static void copy_planes (void *arg, int64_t block, int worker) {
  (void)worker;
  const copy *k = arg;
  const operand *dst = &k->l.o[0], *src = &k->l.o[1];
  const int64_t end = MAREA_MIN((block + 1) * k->units_per_block, k->units);
  for (int64_t unit = block * k->units_per_block; unit < end; unit++) {
    const int64_t row = unit % k->bands * k->tile_rows;
    int64_t index[MAREA_MAX_RANK];
    locate(&k->l, (unit / k->bands * k->rows + row) * k->cols, index);
    copy_band(k, dst->data + offset_of(&k->l, dst, index) * (int64_t)dst->size,
              src->data + offset_of(&k->l, src, index) * (int64_t)src->size,
              MAREA_MIN(k->tile_rows, k->rows - row));
  }
}

static void copy_flat (void *arg, int64_t block, int worker) {
  (void)worker;
  const copy *k = arg;
  const operand *dst = &k->l.o[0], *src = &k->l.o[1];
  const int64_t i = block * MAREA_BLOCK, n = MAREA_MIN(MAREA_BLOCK, k->l.count - i);
  marea_convert_run(k->ctx, n, k->from, src->data + i * src->stride[0] * (int64_t)src->size, src->stride[0],
                    k->to, dst->data + i * dst->stride[0] * (int64_t)dst->size, dst->stride[0]);
}

/* Moves the dimension in which the source is contiguous next to the last one, in which the destination is: tiles over
   both read and write whole cache lines. */
static bool bring_source_rows (loop *l) {
  const int last = l->rank - 1;
  const int64_t *stride = l->o[1].stride;
  if (stride[last] <= 1) return false;
  for (int d = 0; d < last; d++) {
    if (stride[d] != 1) continue;
    loop old = *l;
    for (int to = d; to < last - 1; to++) {
      l->shape[to] = old.shape[to + 1];
      for (int k = 0; k < l->n; k++) l->o[k].stride[to] = old.o[k].stride[to + 1];
    }
    l->shape[last - 1] = old.shape[d];
    for (int k = 0; k < l->n; k++) l->o[k].stride[last - 1] = old.o[k].stride[d];
    return true;
  }
  return false;
}

void marea_copy_strided (marea_context *ctx, const marea_tensor *src, marea_tensor *dst) {
  copy k;
  marea_tensor *in[1] = {(marea_tensor *)src};
  plan(&k.l, dst, 1, in);
  if (ctx->plan || k.l.count == 0) return;
  k.ctx = ctx;
  k.from = src->dtype, k.to = dst->dtype;
  const bool turns = k.from == k.to && marea_is_in(MAREA_FLOATS & ~MAREA_STORED, k.to);
  k.turn = turns ? ctx->kernels[k.to]->turn : NULL;
  if (k.l.rank == 1) {
    marea_parallel(ctx, (k.l.count + MAREA_BLOCK - 1) / MAREA_BLOCK, copy_flat, &k);
    return;
  }
  const bool tiled = bring_source_rows(&k.l);
  k.rows = k.l.shape[k.l.rank - 2], k.cols = k.l.shape[k.l.rank - 1];
  k.tile_rows = tiled ? TILE_ROWS * TILE_COLS / MAREA_MAX(MAREA_MIN(k.cols, TILE_COLS), 1)
                      : MAREA_MIN(TILE_ROWS, MAREA_MAX(1, MAREA_BLOCK / k.cols));
  k.tile_cols = tiled ? TILE_COLS : k.cols;
  k.bands = (k.rows + k.tile_rows - 1) / k.tile_rows;
  k.units = k.l.count / (k.rows * k.cols) * k.bands;
  k.units_per_block = MAREA_MAX(1, MAREA_BLOCK / (MAREA_MIN(k.tile_rows, k.rows) * k.cols));
  marea_parallel(ctx, (k.units + k.units_per_block - 1) / k.units_per_block, copy_planes, &k);
}

/* ---- one value ------------------------------------------------------------------------------------- */

#define CLEARED ((size_t)1 << 20) /* bytes of a block: some 0.1 ms at 10 GB/s */

typedef struct clearing {
  char *p;
  size_t bytes;
} clearing;

static void clear_block (void *arg, int64_t block, int worker) {
  const clearing *k = arg;
  const size_t at = (size_t)block * CLEARED;
  (void)worker;
  memset(k->p + at, 0, MAREA_MIN(CLEARED, k->bytes - at));
}

void marea_clear (marea_context *ctx, void *p, size_t bytes) {
  clearing k = {p, bytes};
  if (bytes <= CLEARED) memset(p, 0, bytes);
  else marea_parallel(ctx, (int64_t)((bytes - 1) / CLEARED + 1), clear_block, &k);
}

/* Copies a number on the stack to all elements, as an expanded tensor with strides of 0. */
void marea_fill (marea_context *ctx, const marea_tensor *t, const marea_attr *value) {
  const int64_t n = marea_count(t->rank, t->shape);
  int64_t number; /* an element of any dtype */
  marea_storage memory = {.ctx = ctx, .data = &number};
  marea_tensor to = *t, one = *t;
  if (n == 0) return;
  const double size = marea_attr_number(value);
  if (size == 0 && !signbit(size)) {
    marea_clear(ctx, marea_at(t), (size_t)n * marea_dtype_size((marea_dtype)t->dtype));
    return;
  }
  one.storage = &memory;
  one.offset = 0;
  memset(one.stride, 0, sizeof one.stride);
  marea_store_number(t->dtype, &number, 0, value);
  if (n == 1) marea_store_number(t->dtype, marea_at(t), 0, value);
  else marea_copy_strided(ctx, &one, &to);
}
