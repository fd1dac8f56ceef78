/* SPDX-License-Identifier: MIT
** choose.c: which algorithm a convolution takes, and why.
**
** Each pass has a list of algorithms. The first one that fits (can compute this convolution) and pays (is faster than
** those behind it) is taken; the last one always does. Both depend on the shape and the machine alone, never on the
** number of threads. Profiles show what was taken: `print(marea.profile(f))`, or report.rows[i].algorithm.
**
** An example: conv2d 32->32, 3x3, 28x28, 'same', batch 128, f32. Winograd fits: f32, one group, no dilation, 3x3 of stride
** 1. It pays (f43_worth): 32 channels are at least 16; 7 x 7 tiles of 128 images are at least 16; the direct sum takes
** 28 * 28 * 9 = 7,056 multiplications for an image and a pair of channels, Winograd 49 tiles * 36 points = 1,764, so it
** saves a factor of 4, at least 2. So it takes "winograd". With stride 2 it would take "direct" on a machine whose cores
** do 512-bit multiply-adds in one turn, and "winograd" on others.
**
** `algorithm = "direct"` and MAREA_CONV=direct rule Winograd out.
*/
#include <string.h>

#include "choose.h"

/* ---- thresholds ---- */

/* Times below are ms of one core of a Xeon (512-bit multiply-adds in one turn), f32, 3x3 and stride 1 unless said
   otherwise, by a line like
     conv kind=conv map=forward n=32 h=28 w=28 cin=16 cout=16 kernel=3 stride=1
   to `build/marea bench/ours/worker.lua`; MAREA_CONV=direct gives the second one where Winograd is the first. */

/* When Winograd pays: `channels` of both sides, `tiles` of all images, and `saves` multiplications of the direct sum for one
   of its own, at least.
   Channels: for 16 of them on both sides the products of a tile of F(4x4, 3x3) take 36 * 16 / 2 = 288 cycles and the direct
   sum 1,152, the transforms 230 (data) and 135 (outputs). 28x28, batch 32: 8->8 0.36 against 0.38 direct, 16->16 0.47
   against 0.69, 32->32 1.1 against 2.1.
   Tiles: there must be enough for the transforms of the weights. 128->128, one image, forward and input gradient: 4 tiles
   0.18 and 0.36 against 0.09 and 0.19, 9 tiles 0.19 and 0.36 against 0.20 and 0.31, 16 tiles 0.30 and 0.42 against 0.33
   and 0.43.
   The other two variants were measured on a Zen 4 (docs/performance.md, "Fewer multiplications"). On the Xeon with AVX2,
   3x3 of stride 2, 28x28, batch 16: 32->32 0.67 against 0.60, 64->64 2.2 against 2.6. With AVX-512, 5x5 of stride 2: 16->16
   0.24 against 0.25, 32->32 0.64 against 0.81; 32->32, one image: 4 tiles 0.024 against 0.018, 16 tiles 0.050
   against 0.061. */
typedef struct worth {
  int64_t channels, tiles;
  double saves;
} worth;
static const worth f43_worth = {16, 16, 2};         /* 3x3 of stride 1: saves 4 in large images */
static const worth stride2_worth = {32, 64, 1.25};  /* 3x3 of stride 2: saves 1.44 */
static const worth polyphase_worth = {32, 32, 1.6}; /* 4x4 to 6x6 of stride 2: saves 2.5 to 3.3 */

/* When a batch of small images pays: outputs at most MOST_COLUMNS pixels wide, MAREA_BATCH_LEAST_IMAGES, and LEAST_CHANNELS
   on both sides of a group. All three are where the weight gradient still gains or loses little; the image
   pass gains beyond them. Forward and weight gradient, 5x5, 32->32, batch 64: 4x4 0.14 and 0.19 against 0.33 and 0.35
   direct, 8x8 0.77 and 1.2 against 1.1 and 1.0, 10x10 1.4 and 2.1 against 1.8 and 1.5. 3x3, 7x7, 32->32: 16 images 0.07
   and 0.08 against 0.07 and 0.09, 24 images 0.10 and 0.13 against 0.13 and 0.13. 7x7, batch 64: 8->8 0.045 and 0.106
   against 0.062 and 0.081, 16->16 0.08 and 0.14 against 0.10 and 0.10. */
#define MOST_COLUMNS 8
#define LEAST_CHANNELS 16

/* Output channels of the kernel of few input channels, which writes whole vectors of 16. 28x28, batch 32, from one channel:
   to 12 0.087 against 0.082 by the kernel for any number, to 16 0.060 against 0.080. */
#define FEW_OUTPUTS 16

/* ---- the question ---- */

typedef struct question {
  const marea_context *ctx;
  const marea_conv *g;
  const marea_tensor *bias; /* of the image pass */
  int dtype;
  bool input_gradient;
  marea_winograd_plan plan; /* set by fits of winograd */
} question;

/* ---- winograd ---- */

/* Multiplications of the direct sum for an image and a pair of channels; with `padding` those by zeros of the padding
   count, too. */
static double direct_products (const marea_conv *g, bool padding) {
  double products = 1;
  for (int d = 0; d < 2; d++) {
    int64_t meetings = 0;
    for (int64_t t = 0; t < g->kernel[d]; t++) {
      const marea_range inside = marea_conv_outputs_inside(g, d, t);
      meetings += padding ? g->out[d] : inside.end - inside.first;
    }
    products *= (double)meetings;
  }
  return products;
}

static bool winograd_fits (question *q) {
  return !q->g->direct && marea_winograd_fits(q->g, q->dtype, q->input_gradient, &q->plan);
}

/* 3x3 of stride 2 saves little: where a core does multiply-adds at full rate, reading and writing the transformed tiles
   takes longer than that. */
static bool winograd_saves (const question *q, bool padding) {
  const marea_conv *g = q->g;
  const marea_winograd_plan *p = &q->plan;
  if (q->ctx->wide && p->phases == 1 && g->stride[0] > 1) return false;
  const worth *w = p->phases > 1 ? &polyphase_worth : g->stride[0] == 2 ? &stride2_worth : &f43_worth;
  const int64_t tiles = p->tile_rows * p->tile_cols;
  return MAREA_MIN(g->cin, g->cout) >= w->channels && g->n * tiles >= w->tiles &&
         direct_products(g, padding) >= w->saves * (double)(tiles * p->products);
}

/* What Winograd is compared with: the batch algorithm, where it would be next, multiplies no padding; the direct one does. */
static bool winograd_pays_for_images (question *q) {
  return winograd_saves(q, !marea_conv_is_small_batch(q->g));
}

/* Also decides whether images go in bands or together; false if their sums fit into memory neither way. */
static bool winograd_pays_for_weights (question *q) {
  return winograd_saves(q, false) && marea_winograd_share_sums(q->g, &q->plan);
}

/* ---- batch ---- */

bool marea_conv_is_small_batch (const marea_conv *g) {
  return g->n >= MAREA_BATCH_LEAST_IMAGES && g->out[1] <= MOST_COLUMNS &&
         MAREA_MIN(g->cin, g->cout) / g->groups >= LEAST_CHANNELS;
}

static bool is_small_batch (question *q) { return marea_conv_is_small_batch(q->g); }

/* ---- direct ---- */

static bool always (question *q) {
  (void)q;
  return true;
}

static bool is_depthwise (question *q) { return marea_conv_is_depthwise(q->g); }

static int64_t phases (const question *q, int d) {
  return q->input_gradient ? MAREA_MIN(q->g->stride[d], q->g->in[d]) : 1;
}

static bool few_inputs_fit (question *q) {
  const marea_conv *g = q->g;
  const int64_t read = (q->input_gradient ? g->cout : g->cin) / g->groups,
                written = (q->input_gradient ? g->cin : g->cout) / g->groups;
  return read <= MAREA_FEW_CHANNELS && written >= FEW_OUTPUTS &&
         phases(q, 0) * phases(q, 1) <= MAREA_DIRECT_MOST_CELLS;
}

/* With one output channel a row of dw is one number, but the same gradient is that of another convolution,
     dw[t][ci] = sum over pixels p of x[p + t - before][ci] dy[p] = sum over q of dy[q + t' - before'][0] x[q][ci],
   t' = taps - 1 - t, before' = taps - 1 - before, whose dw has rows of all ci, which fill vectors. */
static bool swapped_fits (question *q) {
  const marea_conv *g = q->g;
  if (g->cout != 1 || g->cin <= MAREA_FEW_CHANNELS) return false;
  for (int d = 0; d < 2; d++) {
    const int64_t reach = g->dilation[d] * (g->kernel[d] - 1);
    if (g->stride[d] != 1 || g->before[d] > reach || g->after[d] > reach) return false;
  }
  return true;
}

static marea_conv swap (const marea_conv *g) {
  marea_conv other = *g;
  other.cin = 1;
  other.cout = g->cin;
  for (int d = 0; d < 2; d++) {
    const int64_t reach = g->dilation[d] * (g->kernel[d] - 1);
    other.in[d] = g->out[d];
    other.out[d] = g->in[d];
    other.before[d] = reach - g->before[d];
    other.after[d] = reach - g->after[d];
  }
  return other;
}

/* ---- bf16 ---- */

static bool is_bf16 (question *q) { return q->dtype == MAREA_BF16; }

/* ---- the lists ---- */

static marea_status images_bf16 (marea_call *c, question *q, const marea_conv_source *src,
                                 marea_any_image_pass *p) {
  return marea_bf16_images_open(c, q->g, src, q->bias, &p->bf16);
}

static marea_status images_by_winograd (marea_call *c, question *q, const marea_conv_source *src,
                                        marea_any_image_pass *p) {
  p->winograd.plan = q->plan;
  marea_winograd_share_images(q->g, &p->winograd.plan);
  return marea_winograd_images_open(c, q->g, src, &p->winograd);
}

static marea_status images_by_batch (marea_call *c, question *q, const marea_conv_source *src,
                                     marea_any_image_pass *p) {
  return marea_batch_images_open(c, q->g, src, &p->batch);
}

static marea_status images_depthwise (marea_call *c, question *q, const marea_conv_source *src,
                                      marea_any_image_pass *p) {
  return marea_direct_images_open(c, q->g, src, MAREA_DIRECT_DEPTHWISE, &p->direct);
}

static marea_status images_of_few (marea_call *c, question *q, const marea_conv_source *src,
                                   marea_any_image_pass *p) {
  return marea_direct_images_open(c, q->g, src, MAREA_DIRECT_FEW, &p->direct);
}

static marea_status images_direct (marea_call *c, question *q, const marea_conv_source *src,
                                   marea_any_image_pass *p) {
  return marea_direct_images_open(c, q->g, src, MAREA_DIRECT_ANY, &p->direct);
}

static const struct image_algorithm {
  const char *name;          /* as profiles show it */
  bool (*fits)(question *q); /* can it compute this convolution? */
  bool (*pays)(question *q); /* is it faster than those behind it? */
  marea_status (*open)(marea_call *c, question *q, const marea_conv_source *src, marea_any_image_pass *p);
} image_algorithms[] = {
    /* operands in bf16, sums in f32; the only one for this dtype */
    {"bf16", is_bf16, always, images_bf16},
    /* 1.4 to 4 times fewer multiplications, for the price of transforms */
    {"winograd", winograd_fits, winograd_pays_for_images, images_by_winograd},
    /* rows of few pixels leave registers of the direct kernel empty, the same pixel of many images does not */
    {"batch", always, is_small_batch, images_by_batch},
    /* one channel a group: lanes are groups, and there is nothing to add up over channels */
    {"depthwise", is_depthwise, always, images_depthwise},
    /* few input channels: small tiles, for the usual ones take longer to begin and to store than to compute */
    {"few channels", few_inputs_fit, always, images_of_few},
    /* everything else: 97 to 99 % of the machine's peak from some 8 channels on */
    {"direct", always, always, images_direct},
};

static marea_status weights_by_winograd (marea_call *c, question *q, const marea_conv_source *x,
                                         const marea_conv_source *dy, marea_any_weight_pass *p) {
  p->winograd.plan = q->plan;
  return marea_winograd_weights_open(c, x, dy, &p->winograd);
}

static marea_status weights_by_batch (marea_call *c, question *q, const marea_conv_source *x,
                                      const marea_conv_source *dy, marea_any_weight_pass *p) {
  (void)q;
  return marea_batch_weights_open(c, x, dy, &p->batch);
}

static marea_status weights_bf16 (marea_call *c, question *q, const marea_conv_source *x,
                                  const marea_conv_source *dy, marea_any_weight_pass *p) {
  (void)q;
  return marea_bf16_weights_open(c, x, dy, &p->bf16);
}

static marea_status weights_swapped (marea_call *c, question *q, const marea_conv_source *x,
                                     const marea_conv_source *dy, marea_any_weight_pass *p) {
  p->base.swapped = true;
  p->base.other = swap(q->g);
  p->base.g = &p->base.other;
  return marea_direct_weights_open(c, dy, x, &p->direct);
}

static marea_status weights_direct (marea_call *c, question *q, const marea_conv_source *x,
                                    const marea_conv_source *dy, marea_any_weight_pass *p) {
  (void)q;
  return marea_direct_weights_open(c, x, dy, &p->direct);
}

static const struct weight_algorithm {
  const char *name;
  bool (*fits)(question *q);
  bool (*pays)(question *q);
  marea_status (*open)(marea_call *c, question *q, const marea_conv_source *x, const marea_conv_source *dy,
                       marea_any_weight_pass *p);
} weight_algorithms[] = {
    /* as for images */
    {"bf16", is_bf16, always, weights_bf16},
    /* one output channel would use one lane of a vector: with x and dy exchanged the lanes are input channels */
    {"direct swapped", swapped_fits, always, weights_swapped},
    /* as for images; the weights are transformed back once for all */
    {"winograd", winograd_fits, winograd_pays_for_weights, weights_by_winograd},
    /* as for images */
    {"batch", always, is_small_batch, weights_by_batch},
    /* everything else, also depthwise and few channels */
    {"direct", always, always, weights_direct},
};

/* ---- choosing ---- */

marea_status marea_conv_open_images (marea_call *c, const marea_conv *g, const marea_image_job *job,
                                     marea_any_image_pass *p) {
  question q = {.ctx = c->ctx,
                .g = g,
                .bias = job->bias,
                .dtype = job->out->dtype,
                .input_gradient = job->input_gradient};
  const struct image_algorithm *a = image_algorithms;
  while (!a->fits(&q) || !a->pays(&q)) a++;
  marea_profile_note(c->ctx, a->name);
  memset(p, 0, sizeof *p);
  p->base = (marea_image_pass){.input_gradient = job->input_gradient,
                               .groups = g->groups,
                               .cin = (job->input_gradient ? g->cout : g->cin) / g->groups,
                               .cout = (job->input_gradient ? g->cin : g->cout) / g->groups,
                               .weight = marea_at(job->weight),
                               .bias = job->bias ? marea_at(job->bias) : NULL,
                               .out = marea_at(job->out),
                               .act = job->act,
                               .slope = job->slope,
                               .kernels = c->ctx->kernels[marea_computed_in(job->out->dtype)],
                               .bf16 = c->ctx->bf16};
  return a->open(c, &q, job->src, p);
}

marea_status marea_conv_open_weights (marea_call *c, const marea_conv *g, const marea_conv_source *x,
                                      const marea_conv_source *dy, marea_tensor *dw,
                                      marea_any_weight_pass *p) {
  question q = {.ctx = c->ctx, .g = g, .dtype = dw->dtype};
  const struct weight_algorithm *a = weight_algorithms;
  while (!a->fits(&q) || !a->pays(&q)) a++;
  marea_profile_note(c->ctx, a->name);
  memset(p, 0, sizeof *p);
  p->base = (marea_weight_pass){.ctx = c->ctx,
                                .g = g,
                                .kernels = c->ctx->kernels[marea_computed_in(dw->dtype)],
                                .bf16 = c->ctx->bf16,
                                .dw = marea_at(dw),
                                .sum = {.parts = 1, .cuts = 1}};
  return a->open(c, &q, x, dy, p);
}
