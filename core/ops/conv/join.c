/* SPDX-License-Identifier: MIT
** join.c: the phases of a strided input gradient's columns as channels.
**
** A gradient with respect to an image of three channels fills three lanes of a vector. Its columns s j, .., s j + s - 1 lie
** side by side in memory, so they are also one pixel of s times as many channels of an image that is s times narrower,
** and this is a gradient of stride 1: with ox + t - before' = j and s ox + kx - before = s j + r,
**   dx[s j + r] = sum over ox of dy[ox] w[kx], kx = s (t - before') + r + before,
** so tap t of channel (r, ci) is tap kx of channel ci, or zero where the kernel has no such tap.
*/
#include <string.h>

#include "join.h"

/* Channels that a vector holds */
static int64_t lanes (const marea_context *ctx) { return marea_isa_is_512(ctx->isa) ? 16 : 8; }

/* One channel has a kernel of its own, whose lanes are the channels of dy. */
bool marea_conv_joins_columns (const marea_context *ctx, const marea_conv *g) {
  return g->groups == 1 && g->cin > 1 && g->cin * g->stride[1] <= lanes(ctx) && g->stride[1] > 1 &&
         g->dilation[1] == 1 && g->in[1] % g->stride[1] == 0 && g->in[1] > 0 && g->before[1] < g->kernel[1];
}

static marea_conv joined (const marea_conv *g) {
  marea_conv to = *g;
  const int64_t stride = g->stride[1];
  to.cin = g->cin * stride;
  to.in[1] = g->in[1] / stride;
  to.stride[1] = 1;
  to.before[1] = (g->before[1] + stride - 1) / stride;
  to.kernel[1] = to.before[1] + (g->kernel[1] - 1 - g->before[1]) / stride + 1;
  to.after[1] = MAREA_MAX(g->out[1] + to.kernel[1] - 1 - to.in[1] - to.before[1], 0);
  return to;
}

static void copy_taps (const marea_conv *g, const marea_conv *to, size_t size, const char *from, char *out) {
  const int64_t stride = g->stride[1];
  const size_t tap = (size_t)(g->cin * g->cout) * size;
  for (int64_t row = 0; row < g->kernel[0]; row++, from += (size_t)g->kernel[1] * tap)
    for (int64_t t = 0; t < to->kernel[1]; t++)
      for (int64_t r = 0; r < stride; r++, out += tap) {
        const int64_t col = stride * (t - to->before[1]) + r + g->before[1];
        if (col >= 0 && col < g->kernel[1]) memcpy(out, from + (size_t)col * tap, tap);
        else memset(out, 0, tap);
      }
}

marea_status marea_conv_join_columns (marea_call *c, size_t size, marea_conv *g, const char **weight,
                                      const char **bias) {
  const marea_conv to = joined(g);
  const int64_t shape[] = {to.kernel[0], to.kernel[1], to.cin, to.cout};
  const size_t channels = (size_t)g->cin * size;
  char *memory;
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 4, shape, size, &bytes));
  MAREA_WORKSPACE_OR_RETURN(c, memory, MAREA_MAX(bytes, 1));
  if (!c->ctx->shape_only) copy_taps(g, &to, size, *weight, memory);
  *weight = memory;
  if (*bias) {
    MAREA_WORKSPACE_OR_RETURN(c, memory, channels * (size_t)g->stride[1]);
    for (int64_t r = 0; r < g->stride[1] && !c->ctx->shape_only; r++)
      memcpy(memory + (size_t)r * channels, *bias, channels);
    *bias = memory;
  }
  *g = to;
  return MAREA_OK;
}
