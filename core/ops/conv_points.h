/* SPDX-License-Identifier: MIT
** conv_points.h: convolutions at the points of a bilinear algorithm. 3x3: for stride 1 four multiplications for
** sixteen, for stride 2 twenty-five for thirty-six. 4x4 to 6x6 of stride 2 as convolutions of stride 1 between the
** smaller image and every other pixel of the larger one: for 5x5 121 for four hundred.
**
** The transforms are the kernels winograd_*; the products in between are the kernels `gather` and `correlate` on a
** single row of tiles, as if these were pixels. In f32 only: f64 is there for exactness. The rounding error against the
** direct sum is some 1e-6 of the largest output.
**
** Values at points lie together by point, then by phase (where the side has phases): (point, phase, tile, channel);
** weights are (point, panel, phase, channel read, channel of the panel), gradients (point, panel, tile, channel of the
** panel).
*/
#ifndef MAREA_CONV_POINTS_H
#define MAREA_CONV_POINTS_H

#include "conv_pass.h"

#define MAREA_POINTS_PAD \
  (MAREA_ALIGN / (int64_t)sizeof(float)) /* elements, so that steps are no power of two */

static inline int64_t marea_points_tiles (int64_t size, int64_t outputs) {
  return (size + outputs - 1) / outputs;
}

/* ---- phases and points ---- */

/* What a side of the points is made of: pixels first, first + step, .. of an image, in each dimension. */
typedef struct marea_lattice {
  int taps[2]; /* that they meet */
  int64_t first[2], step[2];
} marea_lattice;

marea_lattice marea_points_phase (const marea_conv_points *p, int phase);
/* That of the side which phases have in common. */
marea_lattice marea_points_whole (const marea_conv_points *p);
bool marea_points_has (const marea_conv_points *p, const marea_lattice *l, int64_t point);
/* Phases that have a point; how many. */
int marea_points_phases_at (const marea_conv_points *p, int64_t point, int phases[4]);

/* ---- memory ---- */

void marea_points_axes (const marea_conv *g, bool backward, const marea_conv_points *p,
                        marea_conv_axis axis[2]);
/* Memory for a band of at most `units` rows of tiles, for each worker, or for images that go together. */
marea_status marea_points_open (marea_call *c, int64_t units, int64_t data, int64_t others,
                                marea_conv_points *p);
float *marea_points_of (const marea_conv_points *p, int side, int worker);
/* Sums of weight gradients that memory allows. */
int64_t marea_points_sums (const marea_conv *g, const marea_conv_points *p);
/* Number of a tile among those of the images, for the image given and row `row` of tiles. */
static inline int64_t marea_points_tile (const marea_conv_points *p, int64_t image, int64_t row) {
  return (image * p->down + row) * p->across;
}

/* ---- transforms ---- */

/* One row of tiles, all channels together or, for `panels`, in panels one after the other: then lines of a panel do not
   push each other out of the first cache. Tile `tile` comes first. */
void marea_points_transform (const marea_conv_points *p, void (*transform)(const marea_winograd_row *),
                             bool panels, int64_t tile, const marea_winograd_row *row, float *points);
/* Points of rows `first` .. first + n - 1 of tiles, of those in x, from tile `tile` on. */
void marea_points_transform_data (const marea_conv_points *p, const marea_kernels *k,
                                  const marea_conv_window *w, const char *x, int64_t first, int64_t n,
                                  bool panels, int64_t tile, float *points);
/* Row `row` of tiles of an image whose pixels of `channels` start at `image`, rows and columns as given. */
marea_winograd_row marea_points_tiles_in_image (const marea_conv_points *p, const marea_lattice *l,
                                                const float *image, int64_t row, int64_t rows, int64_t cols,
                                                int64_t channels);

#endif
