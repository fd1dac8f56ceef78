/* SPDX-License-Identifier: MIT
** conv_pass.h: the two passes over data that convolutions are made of. `gather` writes images: forward and
** input gradient. `correlate` adds up weights: the weight gradient. Both work on a tile of an image at a time,
** so that `backward` can lead them over the images side by side, while an image is in the cache.
**
** Each has two ways of computing a tile: by the taps (conv_gather.c, conv_correlate.c) and, for kernels of 3x3,
** at the points of a bilinear algorithm (conv_winograd.c). Small images are not walked over: there a third way goes
** across the images of a batch (conv_across.c).
*/
#ifndef MAREA_CONV_PASS_H
#define MAREA_CONV_PASS_H

#include "conv_geometry.h"

#define MAREA_CONV_PARTS 16 /* sums of gradients over images, apart at first */

/* Taps in the order of phases (rows, then columns), each phase's together: offset in a tile, place in the
   kernel. */
typedef struct marea_conv_taps {
  int64_t n, *offset, *origin;
} marea_conv_taps;

marea_status marea_conv_list_taps (marea_call *c, const marea_conv *g, const marea_conv_window *w,
                                   marea_conv_taps *t);

/* ---- at points, by a bilinear algorithm ---- */

/* Some rows of tiles (a band) go through their transforms, the products at all points and the transforms back
   before the next band, in memory that stays in the second-level cache. */
typedef struct marea_conv_points {
  marea_scheme scheme;
  int64_t count;        /* of points in two dimensions */
  int64_t before[2];    /* outputs of the first tile that lie before the image */
  int64_t across, band; /* tiles in a row; rows of tiles in a band */
  int64_t step[2];      /* elements from one point to the next: of the data, and of the other side */
  size_t bytes;
  char *memory; /* for each worker */
} marea_conv_points;

/* Is that way open, and worth it? Sets scheme, count and before. */
bool marea_conv_gathers_at_points (const marea_context *ctx, const marea_conv *g, int dtype, bool backward,
                                   marea_conv_points *p);
/* The same for the weight gradient, which also needs images and memory for several sums. */
bool marea_conv_correlates_at_points (const marea_conv *g, int dtype, marea_conv_points *p);

/* Is the third way open, and worth it? */
bool marea_conv_goes_across (const marea_conv *g);

/* Has each group one channel on both sides? */
static inline bool marea_conv_is_depthwise (const marea_conv *g) {
  return g->groups > 1 && g->cin == g->groups && g->cout == g->groups;
}

/* ---- gather ---- */

typedef struct marea_conv_gather marea_conv_gather;
struct marea_conv_gather {
  marea_conv_window w;
  void (*tile)(const marea_conv_gather *p, int64_t image, int64_t tile, int worker, marea_conv_ahead *ahead);
  const marea_kernels *kernels;
  int64_t groups, cin, cout; /* channels of a group, as the pass reads and writes */
  const char *weight, *bias;
  char *out;
  marea_activation act;
  double slope;
  /* by taps */
  marea_conv_taps taps;
  int64_t w_group, w_tap, w_ci; /* steps of weight: group, tap, channel that is read */
  bool depthwise;               /* this, stream and lines: see marea_gather */
  bool stream;
  int lines;
  const char *pixel; /* what outputs without taps are; NULL: there are none */
  bool across;       /* weight: in panels, with steps of their own for tap and channel */
  /* at points */
  marea_conv_points points;
};

/* out := act(conv2d(src, weight) + bias), or with `backward` conv2d_grad_input(src, weight) in its place. */
marea_status marea_conv_gather_open (marea_call *c, const marea_conv *g, bool backward,
                                     const marea_conv_source *src, const marea_tensor *weight,
                                     const marea_tensor *bias, marea_activation act, double slope,
                                     marea_tensor *out, marea_conv_gather *p);
marea_status marea_conv_gather_at_points (marea_call *c, const marea_conv *g, bool backward,
                                          const marea_conv_source *src, marea_conv_gather *p);
/* Copies p's weight into panels of so many written channels: (group, panel, tap, channel read, channel written). */
marea_status marea_conv_pack (marea_call *c, const marea_conv *g, bool backward, int64_t panel,
                              marea_conv_gather *p);
marea_status marea_conv_gather_across (marea_call *c, const marea_conv *g, bool backward,
                                       const marea_conv_source *src, marea_conv_gather *p);
void marea_conv_gather_run_across (marea_call *c, const marea_conv_gather *p);
/* Adds the place of an image's results. */
void marea_conv_gather_ahead (const marea_conv_gather *p, int64_t image, marea_conv_ahead *a);
/* All tiles of all images. */
void marea_conv_gather_run (marea_call *c, const marea_conv *g, const marea_conv_gather *p);

/* ---- correlate ---- */

/* The sum of a part. */
typedef struct marea_conv_sum {
  char *at;
  bool fresh; /* nothing was added yet, and what lies there does not count */
} marea_conv_sum;

typedef struct marea_conv_correlate marea_conv_correlate;
struct marea_conv_correlate {
  marea_context *ctx;
  const marea_conv *g;
  marea_conv_window x;
  marea_conv_rows dy;
  void (*tile)(const marea_conv_correlate *p, int64_t image, int64_t tile, int64_t cut, int worker,
               marea_conv_sum *sum, marea_conv_ahead *ahead);
  const marea_kernels *kernels;
  char *dw, *sums;       /* sums: of all parts, but part 0 where that is dw itself */
  int64_t count;         /* elements of a part */
  int64_t parts, cuts;   /* blocks of tiles; ranges of dw's rows */
  const int64_t *offset; /* of every row of dw, (tap, channel of a group), in a tile */
  int64_t rows;          /* how many */
  bool at_points,
      across; /* across: cuts are ranges of a tap's channels, rows how many (tap, group, panel) there are */
  marea_conv_points points;
};

/* dw := the weight gradient for x and dy. */
marea_status marea_conv_correlate_open (marea_call *c, const marea_conv *g, const marea_conv_source *x,
                                        const marea_conv_source *dy, marea_tensor *dw,
                                        marea_conv_correlate *p);
marea_status marea_conv_correlate_at_points (marea_call *c, const marea_conv_source *x,
                                             marea_conv_correlate *p);
marea_status marea_conv_correlate_across (marea_call *c, const marea_conv_source *x,
                                          const marea_conv_source *dy, marea_conv_correlate *p);
void marea_conv_correlate_run_across (const marea_conv_correlate *p);
/* The sum of a part, or a cut of it, with nothing in it. */
marea_conv_sum marea_conv_correlate_sum (const marea_conv_correlate *p, int64_t part, int64_t cut);
/* All tiles of all images, each in its part. */
void marea_conv_correlate_run (const marea_conv_correlate *p);
/* dw := the sum of the parts. */
void marea_conv_correlate_finish (const marea_conv_correlate *p);

/* ---- both ---- */

/* With e = dy act'(.) told from y: in dx's place NULL is not wanted. Of conv2d, dx = conv2d_grad_input(e, weight),
   dw = conv2d_grad_weight(x, e); `transposed`: dx = conv2d(e, weight), dw = conv2d_grad_weight(e, x). db: the
   sum of e over all but the last dimension. */
marea_status marea_conv_backward (marea_call *c, const marea_conv *g, bool transposed, marea_conv_source *e,
                                  const marea_tensor *x, const marea_tensor *weight, marea_tensor *dx,
                                  marea_tensor *dw, marea_tensor *db);

#endif
