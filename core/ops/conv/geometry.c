/* SPDX-License-Identifier: MIT
** geometry.c: sizes of convolutions, and their taps as phases.
**
** Forward, output o reads the padded input at o * stride + tap * dilation: one phase with all taps. For the input
** gradient, input i is the sum over outputs (i + pad - tap * dilation) / stride wherever that divides. Inputs i,
** i + stride, ... have the same taps at the same distances: each such set is a phase, a convolution of stride 1 over dy.
** No zeros are put between dy's pixels. A phase may have no taps.
**
** Sizes are below 2^31 when they come here, so products of two of them fit into 64 bits; memory is requested only
** after marea_bytes has checked the product.
*/
#include "geometry.h"

#include <stdio.h>

/* ---- attributes ---- */

/* Of a sequence the height is 1, and so are its stride and dilation. */
static marea_status read_pair (marea_call *c, int attr, bool sequence, int64_t least, int64_t pair[2]) {
  for (int d = 0; d < 2; d++) {
    pair[d] = !sequence ? c->attr[attr].v[d] : d == 0 ? 1 : c->attr[attr].i;
    MAREA_TRY(marea_want_int(c, attr, pair[d], least));
  }
  return MAREA_OK;
}

marea_status marea_conv_read (marea_call *c, marea_conv_attr_index at, marea_conv *g) {
  MAREA_TRY(read_pair(c, at.stride, at.sequence, 1, g->stride));
  g->dilation[0] = g->dilation[1] = g->groups = 1;
  if (at.dilation >= 0) MAREA_TRY(read_pair(c, at.dilation, at.sequence, 1, g->dilation));
  if (at.groups >= 0) {
    g->groups = c->attr[at.groups].i;
    MAREA_TRY(marea_want_int(c, at.groups, g->groups, 1));
  }
  g->sequence = at.sequence;
  g->direct = c->ctx->direct || (at.algorithm >= 0 && c->attr[at.algorithm].i == 1);
  return MAREA_OK;
}

static int64_t extent (const marea_conv *g, int d) { return g->dilation[d] * (g->kernel[d] - 1) + 1; }

marea_status marea_conv_padding (marea_call *c, marea_conv_attr_index at, marea_conv *g) {
  marea_attr *padding = &c->attr[at.padding];
  for (int d = 0; d < 2 && padding->n == MAREA_SAME; d++) {
    const int64_t out = (g->in[d] + g->stride[d] - 1) / g->stride[d];
    const int64_t total = MAREA_MAX((out - 1) * g->stride[d] + extent(g, d) - g->in[d], 0);
    g->before[d] = total / 2;
    g->after[d] = total - total / 2;
  }
  if (padding->n == MAREA_SAME) {
    *padding = (marea_attr){.n = 4, .v = {g->before[0], g->after[0], g->before[1], g->after[1]}};
    if (at.sequence) *padding = (marea_attr){.n = 2, .v = {g->before[1], g->after[1]}};
    return MAREA_OK;
  }
  for (int i = 0; i < padding->n; i++) MAREA_TRY(marea_want_int(c, at.padding, padding->v[i], 0));
  g->before[0] = g->after[0] = 0;
  for (int d = at.sequence, i = 0; d < 2; d++) {
    g->before[d] = padding->v[i++];
    g->after[d] = padding->v[i++];
  }
  return MAREA_OK;
}

marea_text marea_conv_size_text (const marea_conv *g, const int64_t size[2]) {
  marea_text text;
  if (g->sequence) snprintf(text.s, sizeof text.s, "%lld", (long long)size[1]);
  else snprintf(text.s, sizeof text.s, "%lldx%lld", (long long)size[0], (long long)size[1]);
  return text;
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
      return marea_reject(c, MAREA_ESHAPE, "kernel %s is empty", marea_conv_size_text(g, g->kernel).s);
    fits = fits && (padded[d] >= extent(g, d) || stays_empty(g, d, padded[d]));
  }
  if (!fits) {
    const int64_t size[] = {extent(g, 0), extent(g, 1)};
    const bool dilated = size[0] != g->kernel[0] || size[1] != g->kernel[1];
    return marea_reject(c, MAREA_ESHAPE, "kernel %s%s is larger than the padded input %s",
                        marea_conv_size_text(g, size).s, dilated ? " (with its dilation)" : "",
                        marea_conv_size_text(g, padded).s);
  }
  for (int d = 0; d < 2; d++)
    out[d] = stays_empty(g, d, padded[d]) ? 0 : (padded[d] - extent(g, d)) / g->stride[d] + 1;
  return MAREA_OK;
}

/* ---- phases ---- */

static void set_forward (const marea_conv *g, int d, marea_conv_axis *a, int64_t *memory) {
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
static marea_conv_phase gradient_phase (const marea_conv *g, int d, int64_t p, int64_t *memory) {
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

static void set_input_gradient (const marea_conv *g, int d, marea_conv_axis *a, int64_t *memory) {
  bool any = false;
  a->src = g->out[d], a->out = g->in[d], a->src_step = 1, a->out_step = g->stride[d];
  a->low = a->high = a->most = 0;
  for (int64_t p = 0; p < a->phases; p++) {
    const marea_conv_phase phase = a->phase[p] = gradient_phase(g, d, p, memory);
    memory += 2 * phase.taps;
    a->most = MAREA_MAX(a->most, phase.count);
    if (phase.taps == 0) continue;
    const int64_t high = phase.start + phase.offset[0];
    a->low = any ? MAREA_MIN(a->low, phase.start) : phase.start;
    a->high = any ? MAREA_MAX(a->high, high) : high;
    any = true;
  }
}

marea_status marea_conv_axes (marea_call *c, const marea_conv *g, bool input_gradient,
                              marea_conv_axis axis[2]) {
  size_t bytes[2], total;
  char *memory;
  for (int d = 0; d < 2; d++) {
    axis[d].phases = input_gradient ? MAREA_MIN(g->stride[d], g->in[d]) : 1;
    MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &axis[d].phases, sizeof(marea_conv_phase), &bytes[d]));
    MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &g->kernel[d], 2 * sizeof(int64_t), &total));
    bytes[d] += total;
  }
  MAREA_TABLE_OR_RETURN(c, memory, bytes[0] + bytes[1]);
  for (int d = 0; d < 2; d++) {
    axis[d].phase = (marea_conv_phase *)(memory + (d == 0 ? 0 : bytes[0]));
    int64_t *taps = (int64_t *)(axis[d].phase + axis[d].phases);
    if (input_gradient) set_input_gradient(g, d, &axis[d], taps);
    else set_forward(g, d, &axis[d], taps);
  }
  return MAREA_OK;
}

/* The number of taps of the phases before `end`. */
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

static void add_phase_taps (const marea_conv_phase *y, const marea_conv_phase *x, int64_t row,
                            int64_t channels, int64_t kernel_cols, marea_conv_taps *t) {
  for (int64_t i = 0; i < y->taps; i++) {
    for (int64_t j = 0; j < x->taps; j++) {
      t->offset[t->n] = y->offset[i] * row + x->offset[j] * channels;
      t->origin[t->n++] = y->kernel[i] * kernel_cols + x->kernel[j];
    }
  }
}

marea_status marea_conv_list_taps (marea_call *c, const marea_conv *g, const marea_conv_axis axis[2],
                                   int64_t row, int64_t channels, marea_conv_taps *t) {
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 2, g->kernel, 2 * sizeof(int64_t), &bytes));
  MAREA_TABLE_OR_RETURN(c, t->offset, bytes);
  t->origin = t->offset + g->kernel[0] * g->kernel[1];
  t->n = 0;
  for (int64_t p = 0; p < axis[0].phases; p++)
    for (int64_t q = 0; q < axis[1].phases; q++)
      add_phase_taps(&axis[0].phase[p], &axis[1].phase[q], row, channels, g->kernel[1], t);
  return MAREA_OK;
}
