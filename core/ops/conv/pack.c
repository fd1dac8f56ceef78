/* SPDX-License-Identifier: MIT
** pack.c: packing weights.
*/
#include <string.h>

#include "pack.h"

typedef struct packing {
  const marea_conv *g;
  const marea_image_pass *p;
  const marea_conv_taps *taps;
  char *packed;
  int64_t panel;
  bool transposed;
} packing;

/* One tap of a group, all of its panels: (panel, tap, channel read, channel written) from (tap, cin, cout). */
static void pack_tap (void *arg, int64_t block, int worker) {
  const packing *k = arg;
  const marea_image_pass *p = k->p;
  const size_t size = p->x.size;
  const int64_t cin = k->g->cin / k->g->groups, cout = k->g->cout / k->g->groups, total = k->g->cout;
  const int64_t taps = k->taps->n, group = block / taps, tap = block % taps;
  const char *from = p->weight + (size_t)(k->taps->origin[tap] * cin * total + group * cout) * size;
  const int64_t read = k->transposed ? 1 : total, written = k->transposed ? total : 1;
  (void)worker;
  for (int64_t first = 0; first < p->cout; first += k->panel) {
    const int64_t width = MAREA_MIN(k->panel, p->cout - first);
    char *to = k->packed + (size_t)((group * taps * p->cout + first * taps + tap * width) * p->cin) * size;
    for (int64_t r = 0; r < p->cin; r++) {
      for (int64_t w = 0; w < width; w++) {
        const int64_t i = r * read + (first + w) * written, j = r * width + w;
        if (size == 4) ((uint32_t *)to)[j] = ((const uint32_t *)from)[i];
        else ((uint64_t *)to)[j] = ((const uint64_t *)from)[i];
      }
    }
  }
}

marea_pack_key marea_conv_pack_key (const marea_conv *g, const marea_image_pass *p, int kind, int64_t a,
                                    int64_t b) {
  const int64_t v[] = {kind,
                       a,
                       b,
                       p->input_gradient,
                       p->groups,
                       p->cin,
                       p->cout,
                       g->cin,
                       g->cout,
                       g->groups,
                       g->in[0],
                       g->in[1],
                       g->out[0],
                       g->out[1],
                       g->kernel[0],
                       g->kernel[1],
                       g->stride[0],
                       g->stride[1],
                       g->dilation[0],
                       g->dilation[1],
                       g->before[0],
                       g->before[1],
                       g->after[0],
                       g->after[1],
                       (int64_t)p->x.size};
  marea_pack_key key;
  _Static_assert(sizeof v <= sizeof key.v, "marea_pack_key is too small");
  memset(&key, 0, sizeof key);
  memcpy(key.v, v, sizeof v);
  return key;
}

marea_status marea_conv_pack (marea_call *c, const marea_conv *g, const marea_image_pass *p,
                              const marea_conv_taps *t, bool transposed, int64_t panel,
                              marea_conv_weights *w) {
  packing k = {.g = g, .p = p, .taps = t, .panel = panel, .transposed = transposed};
  const int64_t size[] = {p->groups, t->n, p->cin, p->cout};
  size_t bytes;
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 4, size, p->x.size, &bytes));
  const marea_pack_key key = marea_conv_pack_key(g, p, MAREA_CONV_PACKED, panel, transposed);
  void *memory;
  bool ready;
  MAREA_TRY(marea_pack_for(c, MAREA_CONV_WEIGHT, p->weight, &key, MAREA_MAX(bytes, 1), &memory, &ready));
  k.packed = memory;
  w->at = k.packed;
  w->channel = p->cout;
  w->tap = p->cin * w->channel;
  w->group = t->n * w->tap;
  if (bytes > 0 && !ready) marea_parallel(c->ctx, p->groups * t->n, pack_tap, &k);
  return MAREA_OK;
}
