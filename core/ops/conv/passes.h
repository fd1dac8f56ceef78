/* SPDX-License-Identifier: MIT
** passes.h: what the algorithms of a convolution have in common: a base that each algorithm's own struct begins with.
**
** A convolution consists of two passes over data. The image pass writes images: it is the forward pass, or the input
** gradient. The weight-gradient pass adds up weights. Both work on a tile of an image at a time, so that backward.c can
** lead them over the images side by side, while an image is in the caches; algorithms for small images take some images
** of the batch together instead, and run alone.
*/
#ifndef MAREA_CONV_PASSES_H
#define MAREA_CONV_PASSES_H

#include "partial_sums.h"
#include "window.h"

/* Channels that are written together, of weights that are packed for it: two vectors of the widest ISA. */
#define MAREA_CONV_PANEL 32

static inline int64_t marea_conv_panels (int64_t channels) {
  return (channels + MAREA_CONV_PANEL - 1) / MAREA_CONV_PANEL;
}

static inline int64_t marea_conv_panel_width (int64_t channels, int64_t panel) {
  return MAREA_MIN(MAREA_CONV_PANEL, channels - panel * MAREA_CONV_PANEL);
}

/* ---- the image pass ---- */

/* out := act(conv2d(x, weight) + bias), or conv2d_grad_input in its place */
typedef struct marea_image_pass marea_image_pass;
struct marea_image_pass {
  marea_context *ctx;
  bool input_gradient;
  int64_t groups, cin,
      cout;            /* channels of a group that are read and written: of dy and dx in the input gradient */
  marea_conv_window x; /* what is read: (N, H, W, groups * cin) */
  const char *weight;  /* as of the operator: (KH, KW, channels of a group of x, channels of y) */
  const char *bias;    /* (groups * cout); NULL: none */
  char *
      out; /* (N, H, W, groups * cout), pixels `out_step` elements apart: out can be a part of more channels */
  int64_t out_step;
  marea_activation act;
  double slope;
  const marea_kernels *kernels; /* of the dtype that is computed in */
  const marea_bf16_kernels *bf16;
  bool kernel_fetches_out; /* the kernel prefetches the place of its results, or writes past the caches */
  /* One tile of an image, while `prefetch` is requested (NULL: nothing). */
  void (*tile)(const marea_image_pass *p, int64_t image, int64_t tile, int worker, marea_prefetch *prefetch);
  /* All images; NULL: tile by tile. */
  void (*run)(marea_call *c, const marea_image_pass *p);
};

/* Adds the place of an image's results to what is to be prefetched. */
void marea_image_pass_prefetch_out (const marea_image_pass *p, int64_t image, marea_prefetch *prefetch);
/* All tiles of all images. */
void marea_image_pass_run (marea_call *c, const marea_conv *g, const marea_image_pass *p);

/* ---- the weight-gradient pass ---- */

/* dw := conv2d_grad_weight(x, dy) */
typedef struct marea_weight_pass marea_weight_pass;
struct marea_weight_pass {
  marea_context *ctx;
  const marea_conv *g;
  /* x and dy have changed places (choose.c, swapped_fits): g points to `other`, the convolution of dy that has the same
     weight gradient. */
  bool swapped;
  marea_conv other;
  marea_conv_window x;          /* (N, H, W, Cin) */
  marea_conv_rows dy;           /* (N, OH, OW, Cout) */
  char *dw;                     /* (KH, KW, Cin / groups, Cout) */
  marea_partial_sums sum;       /* of the parts of the images, which are dw's elements or transformed ones */
  const marea_kernels *kernels; /* of the dtype that is computed in */
  const marea_bf16_kernels *bf16;
  /* Adds one tile of an image to a part's sum, the rows of one cut of it. */
  void (*tile)(const marea_weight_pass *p, int64_t image, int64_t tile, int64_t cut, int worker,
               marea_sum *sum, marea_prefetch *prefetch);
  /* All images; NULL: tile by tile. */
  void (*run)(const marea_weight_pass *p);
  /* Makes dw of the sum of all parts; NULL: it is dw. */
  void (*finish)(const marea_weight_pass *p);
};

/* All tiles of all images, and dw. */
void marea_weight_pass_run (const marea_weight_pass *p);

#endif
