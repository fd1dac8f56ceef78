/* SPDX-License-Identifier: MIT
** isa_amx.c: products of bf16 on the tiles of AMX-BF16 (Sapphire Rapids and later). A tile has 16 rows of 64 bytes. With two
** tiles of x and two of w an instruction of 16 cycles, 16 x 16 x 32 multiply-adds, comes with one load of a tile. The sums
** of f32 are those of isa_avx512.c. A tile of sums is ready after 52 cycles, so that four are added to in turn: of two
** blocks and two panels, or of four blocks and one panel. tdpbf16ps takes subnormal numbers for zeros.
*/
#if defined(__x86_64__)

#include "kernels.h"

typedef float real;

#include "vec_avx512.h"
#include "vec_avx512_bf16.h"

#define BF16_MOST 16
#define BF16_BLOCKS(panels) ((panels) == 1 ? 4 : 2)
#define BF16_SUMS 32
#define BF16_STORES_SUMS true

#include "bf16.inc"

/* Blocks of equal heights: a tile has as many rows as it needs, and an instruction takes a cycle for each. */
static int64_t bf16_height (int64_t cols) {
  const int64_t blocks = (cols + BF16_MOST - 1) / BF16_MOST;
  return (cols + blocks - 1) / blocks;
}

/* Of ldtilecfg (Intel's manual, volume 2) */
typedef struct tile_shapes {
  uint8_t palette, start, reserved[14];
  uint16_t bytes[16]; /* of a row */
  uint8_t rows[16];
} tile_shapes;

/* Elements of a tile's row; a product may have no terms. */
INLINE int64_t piece_of (const marea_bf16_product *g) {
  return g->depth > 0 ? g->depth / marea_bf16_pieces(g->depth) : 2;
}

/* Tiles 0 to 3: sums (block, panel) or (block); 4 and 5: x of a block; 6 and 7: w of a panel. */
static void bf16_begin (const marea_bf16_product *g, int64_t height) {
  const int64_t piece = piece_of(g);
  tile_shapes shapes = {.palette = 1};
  for (int i = 0; i < 8; i++) {
    shapes.bytes[i] = i == 4 || i == 5 ? (uint16_t)(piece * 2) : 64;
    shapes.rows[i] = (uint8_t)(i < 6 ? height : piece / 2);
  }
  _tile_loadconfig(&shapes);
}

/* So that the system need not save the tiles, and a core may sleep. */
static void bf16_end (void) { _tile_release(); }

/* Where the sums of block b go. */
INLINE float *sums_at (const bf16_work *k, float *sum, int b) {
  return k->y[0] ? k->y[b] : sum + b * k->height * BF16_SUMS;
}

INLINE void sum_two_panels (const marea_bf16_product *g, const bf16_work *k, float *sum, const int blocks) {
  const int64_t piece = piece_of(g);
  const size_t step = (size_t)g->x_col * sizeof(uint16_t);
  const size_t y_step = (k->y[0] ? (size_t)g->y_col : BF16_SUMS) * sizeof(float);
  float *first = sums_at(k, sum, 0), *second = sums_at(k, sum, blocks - 1);
  if (g->accumulate) {
    _tile_loadd(0, first, y_step);
    _tile_loadd(1, first + 16, y_step);
    if (blocks == 2) _tile_loadd(2, second, y_step);
    if (blocks == 2) _tile_loadd(3, second + 16, y_step);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if (blocks == 2) _tile_zero(2);
    if (blocks == 2) _tile_zero(3);
  }
  for (int64_t r = 0; r < g->tap_rows; r++)
    for (int64_t t = r * g->tap_row, end = t + g->taps; t < end; t++) {
      const uint16_t *w = k->w + t * g->w_tap;
      for (int64_t d = 0; d < g->depth; d += piece, w += piece * MAREA_BF16_PANEL) {
        const int64_t at = g->tap[t] + d;
        _tile_loadd(4, k->x[0] + at, step);
        _tile_loadd(6, w, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, w + g->w_panel, 64);
        _tile_dpbf16ps(1, 4, 7);
        if (blocks == 2) _tile_loadd(5, k->x[1] + at, step);
        if (blocks == 2) _tile_dpbf16ps(2, 5, 6);
        if (blocks == 2) _tile_dpbf16ps(3, 5, 7);
      }
    }
  _tile_stored(0, first, y_step);
  _tile_stored(1, first + 16, y_step);
  if (blocks == 2) _tile_stored(2, second, y_step);
  if (blocks == 2) _tile_stored(3, second + 16, y_step);
}

INLINE void sum_one_panel (const marea_bf16_product *g, const bf16_work *k, float *sum, const int blocks) {
  const int64_t piece = piece_of(g);
  const size_t step = (size_t)g->x_col * sizeof(uint16_t);
  const size_t y_step = (k->y[0] ? (size_t)g->y_col : BF16_SUMS) * sizeof(float);
  if (g->accumulate) {
    _tile_loadd(0, sums_at(k, sum, 0), y_step);
    if (blocks > 1) _tile_loadd(1, sums_at(k, sum, 1), y_step);
    if (blocks > 2) _tile_loadd(2, sums_at(k, sum, 2), y_step);
    if (blocks > 3) _tile_loadd(3, sums_at(k, sum, 3), y_step);
  } else {
    _tile_zero(0);
    if (blocks > 1) _tile_zero(1);
    if (blocks > 2) _tile_zero(2);
    if (blocks > 3) _tile_zero(3);
  }
  for (int64_t r = 0; r < g->tap_rows; r++)
    for (int64_t t = r * g->tap_row, end = t + g->taps; t < end; t++) {
      const uint16_t *w = k->w + t * g->w_tap;
      for (int64_t d = 0; d < g->depth; d += piece, w += piece * MAREA_BF16_PANEL) {
        const int64_t at = g->tap[t] + d;
        _tile_loadd(6, w, 64);
        _tile_loadd(4, k->x[0] + at, step);
        _tile_dpbf16ps(0, 4, 6);
        if (blocks > 1) _tile_loadd(5, k->x[1] + at, step);
        if (blocks > 1) _tile_dpbf16ps(1, 5, 6);
        if (blocks > 2) _tile_loadd(4, k->x[2] + at, step);
        if (blocks > 2) _tile_dpbf16ps(2, 4, 6);
        if (blocks > 3) _tile_loadd(5, k->x[3] + at, step);
        if (blocks > 3) _tile_dpbf16ps(3, 5, 6);
      }
    }
  _tile_stored(0, sums_at(k, sum, 0), y_step);
  if (blocks > 1) _tile_stored(1, sums_at(k, sum, 1), y_step);
  if (blocks > 2) _tile_stored(2, sums_at(k, sum, 2), y_step);
  if (blocks > 3) _tile_stored(3, sums_at(k, sum, 3), y_step);
}

static void bf16_sums (const marea_bf16_product *g, const bf16_work *k, float *sum) {
  if (k->panels == 2) {
    if (k->blocks == 2) sum_two_panels(g, k, sum, 2);
    else sum_two_panels(g, k, sum, 1);
    return;
  }
  switch (k->blocks) {
  case 4: sum_one_panel(g, k, sum, 4); break;
  case 3: sum_one_panel(g, k, sum, 3); break;
  case 2: sum_one_panel(g, k, sum, 2); break;
  default: sum_one_panel(g, k, sum, 1);
  }
}

#include "table.inc"

const marea_bf16_kernels marea_bf16_amx = BF16_TABLE;

/* ---- bytes: AMX-INT8 ---- */

/* Tiles as above: of the block from place `first` on and, if `two`, of that from `second` on. */
INLINE void sum_bytes (const marea_int8_sums *g, int64_t first, int64_t second, const bool two) {
  const int64_t piece = g->depth / marea_bf16_pieces(g->depth / 2);
  const size_t step = (size_t)g->x_col, row = MAREA_INT8_COLUMNS * sizeof *g->sum;
  const uint8_t *x = g->x + first * g->x_col, *x2 = g->x + second * g->x_col;
  int32_t *sum = g->sum + first * MAREA_INT8_COLUMNS;
  const int8_t *w = g->w;
  _tile_zero(0);
  _tile_zero(1);
  if (two) _tile_zero(2);
  if (two) _tile_zero(3);
  for (int64_t t = 0; t < g->taps; t++)
    for (int64_t d = 0; d < g->depth; d += piece, w += piece * MAREA_INT8_PANEL) {
      const int64_t at = g->tap[t] + d;
      _tile_loadd(4, x + at, step);
      _tile_loadd(6, w, 64);
      _tile_dpbusd(0, 4, 6);
      _tile_loadd(7, w + g->w_panel, 64);
      _tile_dpbusd(1, 4, 7);
      if (two) _tile_loadd(5, x2 + at, step);
      if (two) _tile_dpbusd(2, 5, 6);
      if (two) _tile_dpbusd(3, 5, 7);
    }
  _tile_stored(0, sum, row);
  _tile_stored(1, sum + MAREA_INT8_PANEL, row);
  sum = g->sum + second * MAREA_INT8_COLUMNS;
  if (two) _tile_stored(2, sum, row);
  if (two) _tile_stored(3, sum + MAREA_INT8_PANEL, row);
}

extern marea_int8_kernel *const marea_int8_avx512_vnni;

static void shape_for_bytes (marea_int8_sums *g, int64_t height) {
  const int64_t piece = g->depth / marea_bf16_pieces(g->depth / 2);
  tile_shapes shapes = {.palette = 1};
  for (int i = 0; i < 8; i++) {
    shapes.bytes[i] = i == 4 || i == 5 ? (uint16_t)piece : 64;
    shapes.rows[i] = (uint8_t)(i < 6 ? height : piece / 4);
  }
  _tile_loadconfig(&shapes);
  g->height = height;
}

/* Blocks of equal heights, two at a time; the last ones begin earlier, and write some sums once more. A single place waits
   for memory, which vectors keep busier than tiles. */
static void int8_all_sums (marea_int8_sums *g) {
  if (g->places == 0) {
    if (g->height > 0) _tile_release();
    return;
  }
  if (g->places == 1) {
    marea_int8_avx512_vnni(g);
    return;
  }
  const int64_t blocks = (g->places + 15) / 16, height = (g->places + blocks - 1) / blocks;
  if (height != g->height) shape_for_bytes(g, height);
  for (int64_t i = 0; i < g->places; i += 2 * height) {
    const int64_t last = g->places - height;
    if (i < last) sum_bytes(g, i, i + height < last ? i + height : last, true);
    else sum_bytes(g, last, 0, false);
  }
}

marea_int8_kernel *const marea_int8_amx = int8_all_sums;

#endif
