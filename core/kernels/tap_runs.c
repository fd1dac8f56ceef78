/* SPDX-License-Identifier: MIT
** tap_runs.c: taps of a convolution that read neighbouring pixels, for the kernel of few input channels
** (direct_conv_few.inc).
*/
#include <stdlib.h>

#include "kernels.h"

/* The distance in tap[] from a tap to the one of its row that reads the next pixel. Negative: it comes before; 0: no tap
   does. */
static int64_t next_pixel (const marea_direct_conv *g) {
  for (int64_t t = 1; t < g->taps; t++) {
    const int64_t step = g->tap[t] - g->tap[0];
    if (step == g->x_col || step == -g->x_col) return step == g->x_col ? t : -t;
  }
  return 0;
}

void marea_list_tap_runs (marea_direct_conv *g, marea_tap_run *run) {
  const int64_t next = next_pixel(g), apart = next == 0 ? g->taps : llabs(next);
  int64_t n = 0;
  int taps;
  for (int64_t r = 0; r < g->tap_rows; r++)
    for (int64_t first = 0; first < apart; first++)
      for (int64_t t = first; t < g->taps; t += taps * apart) {
        taps = t + 2 * apart < g->taps ? 3 : t + apart < g->taps ? 2 : 1;
        const int64_t tap = r * g->tap_row + (next < 0 ? t + (taps - 1) * apart : t);
        for (int64_t ci = 0; ci < g->cin; ci++)
          run[n++] = (marea_tap_run){g->tap[tap] + ci, tap * g->w_tap + ci * g->w_ci, taps};
      }
  g->run = run;
  g->runs = n / g->tap_rows;
  g->w_next = next * g->w_tap;
}
