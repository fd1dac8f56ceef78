/* SPDX-License-Identifier: MIT
** geometry.h: sizes of a convolution and where its taps lie: integers that are worked out before a loop runs. One
** description serves all convolution operators, always in the terms of the forward convolution y = conv2d(x, w).
*/
#ifndef MAREA_CONV_GEOMETRY_H
#define MAREA_CONV_GEOMETRY_H

#include "core.h"

/* x (n, in, cin), weight (kernel, cin / groups, cout), y (n, out, cout). Pairs are height and width, in pixels. */
typedef struct marea_conv {
  int64_t n, cin, cout, groups;
  int64_t in[2], out[2], kernel[2], stride[2], dilation[2];
  int64_t before[2], after[2]; /* padding: top, left; bottom, right */
  bool sequence;               /* of a sequence (n, in[1], cin): height 1, and messages have one size */
  bool direct;                 /* only algorithms that add up the products of each window by itself */
} marea_conv;

/* Has each group one channel on both sides? */
static inline bool marea_conv_is_depthwise (const marea_conv *g) {
  return g->groups > 1 && g->cin == g->groups && g->cout == g->groups;
}

/* Positions of the attributes that convolution operators share in one's descriptor; -1: it does not have it. */
typedef struct marea_conv_attr_index {
  int8_t stride, padding, dilation, groups, algorithm;
  bool sequence; /* stride and dilation are integers, padding is {left, right} */
} marea_conv_attr_index;

/* Reads and checks stride, dilation, groups, algorithm into g. */
marea_status marea_conv_read (marea_call *c, marea_conv_attr_index at, marea_conv *g);
/* Reads the padding for g->in and g->kernel, and replaces 'same' by its numbers in the call. */
marea_status marea_conv_padding (marea_call *c, marea_conv_attr_index at, marea_conv *g);
/* "3x5", or "5" of sequences */
marea_text marea_conv_size_text (const marea_conv *g, const int64_t size[2]);
/* out := height and width of the result; fails when the kernel does not fit into the input. */
marea_status marea_conv_size (marea_call *c, const marea_conv *g, int64_t out[2]);

/* ---- one dimension of a pass ---- */

/* Outputs first, first + out_step, ... of a dimension, which read the same taps: a phase. Output number i of them reads,
   for tap t, the source at start + i * src_step + offset[t]. */
typedef struct marea_conv_phase {
  int64_t first, count, start, taps;
  const int64_t *kernel, *offset; /* [taps] index in the kernel, and offset in the source */
} marea_conv_phase;

/* A pass reads a source of `src` rows (or columns) and writes `out` of them. */
typedef struct marea_conv_axis {
  int64_t src, out, src_step, out_step;
  int64_t phases, most;    /* most: the largest count of a phase, that of phase 0 */
  int64_t low, high;       /* output 0 of all phases reads sources low .. high */
  marea_conv_phase *phase; /* [phases] */
} marea_conv_axis;

/* Sets up the axes for reading x by taps (forward, weight gradient) or dy (input gradient). */
marea_status marea_conv_axes (marea_call *c, const marea_conv *g, bool input_gradient,
                              marea_conv_axis axis[2]);

/* The index of tap (row, col) of two phases among all taps, which are listed phase by phase. */
int64_t marea_conv_first_tap (const marea_conv_axis axis[2], const marea_conv_phase *y,
                              const marea_conv_phase *x, int64_t row, int64_t col);

/* The taps of a phase that read inside the source for its output number `unit`. */
marea_range marea_conv_taps_inside (const marea_conv_axis *a, const marea_conv_phase *p, int64_t unit);

/* Outputs of the forward convolution for which a tap reads inside the image. */
marea_range marea_conv_outputs_inside (const marea_conv *g, int d, int64_t tap);

/* All taps in the order of phases (rows, then columns). */
typedef struct marea_conv_taps {
  int64_t n;
  int64_t
      *offset; /* [n] in a source whose pixels have `channels` elements and whose rows have `row` elements */
  int64_t *origin; /* [n] index in the kernel, row by row */
} marea_conv_taps;

marea_status marea_conv_list_taps (marea_call *c, const marea_conv *g, const marea_conv_axis axis[2],
                                   int64_t row, int64_t channels, marea_conv_taps *t);

/* Sizes of upsampling by attribute 0, as those of a pool: windows of size and stride `scale` over the larger images.
   in[0] are the larger images if from_large, else the smaller ones. (pool.c) */
marea_status marea_upsample_read (marea_call *c, bool from_large, marea_conv *g);

#endif
