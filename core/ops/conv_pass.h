/* SPDX-License-Identifier: MIT
** conv_pass.h: the two passes over data that convolutions are made of. `gather` writes images: forward and
** input gradient. `correlate` adds up weights: the weight gradient. Both work on a tile of an image at a time,
** so that `backward` can lead them over the images side by side, while an image is in the cache.
**
** Each has two ways of computing a tile: by the taps (conv_gather.c, conv_correlate.c) and, for many kernels of 3x3 to
** 6x6, at the points of a bilinear algorithm (conv_points.h). Small images are not walked over: either way has a form
** that goes across the images of a batch (conv_across.c, conv_points_*.c).
*/
#ifndef MAREA_CONV_PASS_H
#define MAREA_CONV_PASS_H

#include "conv_geometry.h"

#define MAREA_CONV_PARTS 16 /* sums of gradients over images, apart at first */

/* Channels that are written together, of weights that are packed for it: two vectors of the widest. */
#define MAREA_CONV_PANEL 32

static inline int64_t marea_conv_panels (int64_t channels) {
  return (channels + MAREA_CONV_PANEL - 1) / MAREA_CONV_PANEL;
}

static inline int64_t marea_conv_panel_width (int64_t channels, int64_t panel) {
  return MAREA_MIN(MAREA_CONV_PANEL, channels - panel * MAREA_CONV_PANEL);
}

/* Taps in the order of phases (rows, then columns), each phase's together: offset in a tile, place in the
   kernel. */
typedef struct marea_conv_taps {
  int64_t n, *offset, *origin;
} marea_conv_taps;

marea_status marea_conv_list_taps (marea_call *c, const marea_conv *g, const marea_conv_window *w,
                                   marea_conv_taps *t);

/* ---- at points, by a bilinear algorithm ---- */

/* One dimension of it. A kernel of stride 2 and four to six taps is two: every other pixel of the larger image meets every
   other tap. These phases go through PLAIN each, with two or three taps, and have the smaller image in common. */
typedef struct marea_conv_points_axis {
  int phases, taps[2]; /* of a phase */
  int64_t first[2],
      tap_step;   /* a phase's first tap, and the way to the next, in the order in which data meet them */
  int64_t before; /* outputs of the first tile that lie before the image */
  int64_t low;    /* first pixel that the first tile reads */
} marea_conv_points_axis;

/* Data are transformed, multiplied with the weights at every point, and transformed back. Either some rows of tiles (a
   band) go through all three before the next band, in memory of a worker that stays in the second-level cache. Or, where
   an image has few tiles, some images do each step together, so that weights are read for many tiles at a time. */
typedef struct marea_conv_points {
  marea_winograd_variant variant;
  marea_conv_points_axis axis[2];
  int phases;           /* in two dimensions */
  bool spread;          /* they are of the outputs (input gradient), not of the data */
  int64_t side, count;  /* points of a row and in all, whether they are there or not */
  int64_t products;     /* of a tile: points of all phases */
  int64_t down, across; /* tiles of an image */
  int64_t band, images; /* rows of tiles in a band; images that go together, 0: in bands */
  int64_t tiles;        /* the most that are at work together */
  int64_t step[3];      /* elements from one point to the next: of the data, of the other side, of weights */
  int64_t other;        /* .. and to the other side of the same point */
  int64_t panels;       /* whose weights are at points together */
  int64_t kernel_cols;
  float *weights;
  size_t bytes;
  char *memory; /* for each worker; for all where images go together */
} marea_conv_points;

/* Is that way open, and worth it? Sets what the shapes tell. */
bool marea_conv_gathers_at_points (const marea_context *ctx, const marea_conv *g, int dtype, bool backward,
                                   marea_conv_points *p);
/* The same for the weight gradient, which also needs memory for its sums. */
bool marea_conv_correlates_at_points (const marea_context *ctx, const marea_conv *g, int dtype,
                                      marea_conv_points *p);

/* Is the third way open, and worth it? */
bool marea_conv_goes_across (const marea_conv *g);

/* Has each group one channel on both sides? */
static inline bool marea_conv_is_depthwise (const marea_conv *g) {
  return g->groups > 1 && g->cin == g->groups && g->cout == g->groups;
}

/* ---- gather ---- */

/* Outputs first .. first + count - 1 of a phase, which read these of its taps. */
typedef struct marea_conv_strip {
  const marea_conv_phase *phase;
  int64_t first, count;
  marea_range taps;
} marea_conv_strip;

typedef struct marea_conv_gather marea_conv_gather;
struct marea_conv_gather {
  marea_conv_window w;
  void (*tile)(const marea_conv_gather *p, int64_t image, int64_t tile, int worker, marea_prefetch *ahead);
  const marea_kernels *kernels;
  int64_t groups, cin, cout; /* channels of a group, as the pass reads and writes */
  const char *weight, *bias;
  char *out;
  marea_activation act;
  double slope;
  /* by taps */
  marea_conv_taps taps;
  marea_conv_strip *strip[2]; /* of rows and of columns */
  int64_t strips[2];
  int64_t w_group, w_tap, w_ci; /* steps of weight: group, tap, channel that is read */
  marea_direct_conv *
      cell; /* [strip of rows][strip of columns] for the kernel, but for rows and addresses; NULL: too many */
  bool thin;
  bool depthwise; /* this, stream_output, prefetch_output and two_vectors: see marea_direct_conv */
  bool stream_output;
  bool prefetch_output;
  bool two_vectors;
  const char *pixel; /* what outputs without taps are; NULL: there are none */
  /* at points */
  marea_conv_points points;
  void (*run)(marea_call *c, const marea_conv_gather *p); /* across images; NULL: tile by tile */
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
/* Adds the place of an image's results. */
void marea_conv_gather_ahead (const marea_conv_gather *p, int64_t image, marea_prefetch *a);
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
  bool mirrored; /* x and dy have changed places; then g is the convolution of dy that has the same sums: */
  marea_conv other;
  marea_conv_window x;
  marea_conv_rows dy;
  void (*tile)(const marea_conv_correlate *p, int64_t image, int64_t tile, int64_t cut, int worker,
               marea_conv_sum *sum, marea_prefetch *ahead);
  const marea_kernels *kernels;
  char *dw, *sums;       /* sums: of all parts, but part 0 where that is dw itself */
  size_t sum_bytes;      /* at points, across: `sums` is for each worker */
  int64_t count;         /* elements of a part */
  int64_t parts, cuts;   /* blocks of tiles; ranges of dw's rows */
  atomic_int *complete;  /* [cuts][parts]: of two sums to be added, by the second one's part: how many are */
  const int64_t *offset; /* of every row of dw, (tap, channel of a group), in a tile */
  int64_t rows; /* how many; across: of (tap, group, panel), and cuts are ranges of a tap's channels */
  bool at_points;
  marea_conv_points points;
  void (*run)(const marea_conv_correlate *p); /* across images; NULL: tile by tile */
};

/* dw := the weight gradient for x and dy. */
marea_status marea_conv_correlate_open (marea_call *c, const marea_conv *g, const marea_conv_source *x,
                                        const marea_conv_source *dy, marea_tensor *dw,
                                        marea_conv_correlate *p);
marea_status marea_conv_correlate_at_points (marea_call *c, const marea_conv_source *x,
                                             marea_conv_correlate *p);
marea_status marea_conv_correlate_across (marea_call *c, const marea_conv_source *x,
                                          const marea_conv_source *dy, marea_conv_correlate *p);
/* The sum of a part, or a cut of it, with nothing in it. */
marea_conv_sum marea_conv_correlate_sum (const marea_conv_correlate *p, int64_t part, int64_t cut);
/* Says that it is complete. Who completes the second of two adds them. */
void marea_conv_correlate_done (const marea_conv_correlate *p, int64_t part, int64_t cut);
/* Memory for the sums that have no place yet, and for what keeps account of them. */
marea_status marea_conv_correlate_sums (marea_call *c, marea_conv_correlate *p);
/* All tiles of all images, each in its part. */
void marea_conv_correlate_run (const marea_conv_correlate *p);
/* Brings the sum of all parts, which are done, back from points to dw. */
void marea_conv_correlate_finish (const marea_conv_correlate *p);

/* ---- both ---- */

/* With e = dy act'(.) told from y: in dx's place NULL is not wanted. Of conv2d, dx = conv2d_grad_input(e, weight),
   dw = conv2d_grad_weight(x, e); `transposed`: dx = conv2d(e, weight), dw = conv2d_grad_weight(e, x). db: the
   sum of e over all but the last dimension. */
marea_status marea_conv_backward (marea_call *c, const marea_conv *g, bool transposed, marea_conv_source *e,
                                  const marea_tensor *x, const marea_tensor *weight, marea_tensor *dx,
                                  marea_tensor *dw, marea_tensor *db);

#endif
