/* SPDX-License-Identifier: MIT
** winograd.h: what both passes by Winograd's algorithms share: which variant a convolution takes, where its tiles lie,
** memory and transforms.
**
** 3x3 kernels of stride 1 take F(4x4, 3x3), four times fewer multiplications than the direct sum; 3x3 of stride 2 take
** a variant of 1.44 times fewer. Kernels of 4x4 to 6x6 and stride 2 are split into polyphase components: every other
** pixel of the larger image is multiplied with every other tap, so each phase is a convolution of stride 1 with two or
** three taps, by F(4x4, 3x3); for 5x5 that makes 3.3 times fewer.
**
** The transforms are the kernels winograd_*. The products in between are the kernels `direct_conv` and `direct_wgrad` on
** one row of tiles as if these were pixels. In f32 only: f64 is there for exactness. The rounding error against the
** direct sum is some 1e-6 of the largest output.
**
** Transformed tiles lie together by point, then by phase (where the side has phases): (point, phase, tile, channel).
** Transformed weights are (point, panel, phase, channel read, channel of the panel), transformed gradients (point, panel,
** tile, channel of the panel).
*/
#ifndef MAREA_CONV_WINOGRAD_H
#define MAREA_CONV_WINOGRAD_H

#include "passes.h"

/* Elements added to a point's size, so that the same element of all points is not at distances of a power of two, which
   share few sets of a cache. */
#define MAREA_WINOGRAD_PAD (MAREA_ALIGN / (int64_t)sizeof(float))

/* One dimension. */
typedef struct marea_winograd_axis {
  int phases, taps[2]; /* 1, or 2 of a kernel of four to six taps; taps of a phase */
  int64_t first[2];    /* a phase's first tap in the order in which it is multiplied with the data, .. */
  int64_t tap_step;    /* .. and the step to its next one, in taps; negative in the input gradient */
  int64_t before;      /* outputs of the first tile that lie before the image */
  int64_t low;         /* first pixel that the first tile reads */
} marea_winograd_axis;

/* Data are transformed, multiplied with the transformed weights at each point, and transformed back. Either a band, some
   rows of tiles of an image, goes through all three steps before the next band, in memory of a worker that stays in the
   second-level cache. Or, where an image has few tiles, some images go through each step together, so that weights are
   read for many tiles at a time. */
typedef struct marea_winograd_plan {
  marea_winograd_variant variant;
  marea_winograd_axis axis[2];
  int phases;                   /* in two dimensions: 1, 2 or 4 */
  bool input_gradient;          /* then the outputs have phases, else the data */
  int64_t side, points;         /* points of a row and in all, whether a phase has them or not */
  int64_t products;             /* multiplications of a tile: points of all phases */
  int64_t tile_rows, tile_cols; /* tiles of an image */
  int64_t band, images;         /* rows of tiles in a band; images that go together, 0: in bands */
  int64_t most_tiles;           /* that go through a step together */
  /* Elements from a point to the next one: of the data, and of the other side, which are outputs or their gradients. */
  int64_t step[2];
  int64_t other_side; /* elements from a point's data to its other side */
  size_t bytes;
  char *memory; /* of both sides, for each worker; where images go together, for all */
} marea_winograd_plan;

static inline int64_t marea_winograd_tiles (int64_t size, int64_t outputs) {
  return (size + outputs - 1) / outputs;
}

/* ---- planning ---- */

/* Can a variant compute it? Sets variant, axes, phases, points, products and tiles of an image. */
bool marea_winograd_fits (const marea_conv *g, int dtype, bool input_gradient, marea_winograd_plan *p);
/* Bands or images together? Sets p->images. For the weight gradient false if neither has enough memory for its sums. */
void marea_winograd_share_images (const marea_conv *g, marea_winograd_plan *p);
bool marea_winograd_share_sums (const marea_conv *g, marea_winograd_plan *p);
/* Weight-gradient sums, of parts of the images, that memory allows. */
int64_t marea_winograd_sums (const marea_conv *g, const marea_winograd_plan *p);

/* ---- phases and points ---- */

/* A polyphase component of an image: pixels first, first + step, .. in each dimension, and the taps of its kernel. */
typedef struct marea_winograd_grid {
  int taps[2];
  int64_t first[2], step[2];
} marea_winograd_grid;

marea_winograd_grid marea_winograd_phase (const marea_winograd_plan *p, int phase);
/* The side that all phases share, which has all pixels of its image. */
marea_winograd_grid marea_winograd_whole (const marea_winograd_plan *p);
bool marea_winograd_has (const marea_winograd_plan *p, const marea_winograd_grid *l, int64_t point);
/* phases[] := those that have a point; returns how many. */
int marea_winograd_phases_at (const marea_winograd_plan *p, int64_t point, int phases[4]);

/* ---- memory ---- */

/* The axes of a window whose units are rows of tiles. */
void marea_winograd_axes (const marea_conv *g, const marea_winograd_plan *p, marea_conv_axis axis[2]);
/* Memory for bands of windows of at most `units` rows of tiles, or for images that go together; `data` and `others` are
   the channels of the two sides. */
marea_status marea_winograd_memory (marea_call *c, int64_t units, int64_t data, int64_t others,
                                    marea_winograd_plan *p);
/* Transformed data (side 0) or the other side (1). */
float *marea_winograd_side_of (const marea_winograd_plan *p, int side, int worker);
/* The number of the first tile in row `row` of tiles of an image, among the tiles of all images. */
static inline int64_t marea_winograd_tile (const marea_winograd_plan *p, int64_t image, int64_t row) {
  return (image * p->tile_rows + row) * p->tile_cols;
}

/* ---- transforms ---- */

/* One row of tiles, tile number `tile` first: all channels together or, for `panels`, in panels one after the other, so
   that lines of a panel do not displace each other from the first-level cache. */
void marea_winograd_transform (const marea_winograd_plan *p, void (*transform)(const marea_winograd_row *),
                               bool panels, int64_t tile, const marea_winograd_row *row, float *transformed);
/* Rows `first` .. first + n - 1 of tiles, of those in x, from tile number `tile` on. */
void marea_winograd_transform_data (const marea_winograd_plan *p, const marea_kernels *k,
                                    const marea_conv_window *w, const char *x, int64_t first, int64_t n,
                                    bool panels, int64_t tile, float *transformed);
/* Row `row` of tiles of an image (rows, cols, channels) of outputs or their gradients, whose pixels are `step` elements
   apart. */
marea_winograd_row marea_winograd_row_in_image (const marea_winograd_plan *p, const marea_winograd_grid *l,
                                                const float *image, int64_t row, int64_t rows, int64_t cols,
                                                int64_t channels, int64_t step);

#endif
