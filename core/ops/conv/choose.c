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
#include "join.h"

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
/* Tiles of F(4x4, 3x3) that MANY_PAIRS of channels take, where images are computed: their weights are large to transform,
   unless they are kept transformed: 14x14, one image, 256->256 1.1 against 1.7 packed.
   14x14, one image (16 tiles) and two, forward: 128->128 0.36 against 0.33 packed, 256->256 1.53 and 2.47 against 1.42 and
   2.63; input gradient 0.46 against 0.33, 1.87 and 2.78 against 1.34 and 2.60. */
#define MANY_PAIRS 16384
#define MANY_TILES 28

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

/* When packed panels of weights pay: their elements, PACKED_WEIGHTS at least, or PACKED_OF_FEW where there are few outputs
   to share them; outputs of all images; elements of an image. Read where they lie, weights of many channels share few
   places in the caches. 5x5, 28x28, batch 8, 256->256: 115 against 304. 3x3 of stride 2, batch 16, 256->512 at 14x14 12
   against 25, 64->128 at 56x56 12.6 against 13.2. With one tap it pays for small images and stride 1 alone: 7x7, batch 16, 320->1280 4.4
   against 5.3, but 14x14, 256->1024 12.2 against 11.9. One image, 7x7: 960->160 0.112 against 0.098, 320->1280 0.32
   against 0.35. */
#define PACKED_CHANNELS 32
#define PACKED_WEIGHTS 65536
#define PACKED_OF_FEW 393216
#define FEW_OUTPUTS_IN_ALL 64
#define PACKED_OUTPUTS 16
#define PACKED_IMAGE 1048576
/* Elements of weights whose packed panels are kept, and of an image, from and up to which they pay. A whole SqueezeNet, one
   image: 4.6 ms against 5.2, MobileNetV2 5.8 against 6.1. */
#define KEPT_WEIGHTS 4096
#define KEPT_IMAGE 4194304
/* Source elements that are masked by an activation's gradient and kept beside the weights: 8 MB. */
#define PACKED_MASKED 2097152
/* When pieces pay: elements of weights that no second-level cache holds, and of the results, which stay in one. 3x3, one
   image, 512->512 at 7x7: 1.5 against 2.4 by packed panels and 4.2 direct. */
#define PIECES_WEIGHTS 1000000
#define PIECES_RESULTS 131072

/* Columns and rows up to which those of a 1x1 kernel are joined. 320->1280, 7x7, batch 16: 4.3 against 4.6. */
#define JOINED_SIDE 12

/* ---- the question ---- */

typedef struct question {
  const marea_context *ctx;
  const marea_conv *g;
  int dtype;
  bool input_gradient;
  bool kept;                /* the weights keep their packed form, so that packing takes no time */
  bool masked;              /* the source is behind an activation, by whose gradient it is multiplied */
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
  const marea_conv *g = q->g;
  const int64_t tiles = g->n * q->plan.tile_rows * q->plan.tile_cols;
  if (!q->kept && q->plan.variant == MAREA_WINOGRAD_F43 && q->plan.phases == 1 &&
      g->cin * g->cout >= MANY_PAIRS && tiles < MANY_TILES)
    return false;
  return winograd_saves(q, !marea_conv_is_small_batch(g));
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

/* ---- large weights ---- */

static double weights_of (const marea_conv *g) {
  return (double)(g->kernel[0] * g->kernel[1]) * (double)g->cin * (double)g->cout;
}

static bool packed_fits (question *q) {
  return q->g->groups == 1 && phases(q, 0) * phases(q, 1) <= MAREA_DIRECT_MOST_CELLS;
}

static bool packed_pays (question *q) {
  const marea_conv *g = q->g;
  const double image = q->input_gradient ? (double)(g->out[0] * g->out[1]) * (double)g->cout
                                         : (double)(g->in[0] * g->in[1]) * (double)g->cin;
  const double outputs = (double)(g->out[0] * g->out[1]);
  const bool few = outputs <= FEW_OUTPUTS_IN_ALL, one_tap = g->kernel[0] * g->kernel[1] == 1;
  if (q->kept && weights_of(g) >= KEPT_WEIGHTS && image <= KEPT_IMAGE)
    return MAREA_MIN(g->cin, g->cout) >= PACKED_CHANNELS && (double)g->n * outputs >= PACKED_OUTPUTS;
  return MAREA_MIN(g->cin, g->cout) >= PACKED_CHANNELS && (double)g->n * outputs >= PACKED_OUTPUTS &&
         weights_of(g) >= (few && g->n == 1 ? PACKED_OF_FEW : PACKED_WEIGHTS) &&
         (!one_tap || (few && g->stride[0] == 1)) && image <= PACKED_IMAGE &&
         (!q->masked || (double)g->n * image <= PACKED_MASKED);
}

static bool pieces_fit (question *q) { return !q->input_gradient && packed_fits(q); }

static bool pieces_pay (question *q) {
  const marea_conv *g = q->g;
  return packed_pays(q) && weights_of(g) >= PIECES_WEIGHTS &&
         (double)g->n * (double)(g->out[0] * g->out[1]) * (double)g->cout <= PIECES_RESULTS;
}

/* ---- bf16 ---- */

static bool is_bf16 (question *q) { return q->dtype == MAREA_BF16; }

/* ---- the lists ---- */

static marea_status images_bf16 (marea_call *c, question *q, const marea_conv_source *src,
                                 marea_any_image_pass *p) {
  return marea_bf16_images_open(c, q->g, src, &p->bf16);
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

static marea_status images_packed (marea_call *c, question *q, const marea_conv_source *src,
                                   marea_any_image_pass *p) {
  return marea_direct_images_open(c, q->g, src, MAREA_DIRECT_PACKED, &p->direct);
}

static marea_status images_by_pieces (marea_call *c, question *q, const marea_conv_source *src,
                                      marea_any_image_pass *p) {
  return marea_direct_images_open(c, q->g, src, MAREA_DIRECT_PIECES, &p->direct);
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
    /* few pixels, and weights that come from a third-level cache: they are read once, in their order in memory */
    {"pieces", pieces_fit, pieces_pay, images_by_pieces},
    /* large weights: packed, a panel stays in the second-level cache while all images pass by */
    {"packed", packed_fits, packed_pays, images_packed},
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

/* A kernel of 1x1 and stride 1 knows no rows: short ones are joined to one of the whole image, which fills more of the
   kernels' tiles. */
static marea_conv join_rows (const marea_conv *g) {
  marea_conv joined = *g;
  for (int d = 0; d < 2; d++)
    if (g->kernel[d] != 1 || g->stride[d] != 1 || g->in[d] != g->out[d] || g->before[d] > 0) return joined;
  if (g->out[1] > JOINED_SIDE || g->out[0] > JOINED_SIDE) return joined;
  joined.in[1] = joined.out[1] = g->out[0] * g->out[1];
  joined.in[0] = joined.out[0] = 1;
  return joined;
}

marea_status marea_conv_open_images (marea_call *c, const marea_conv *g, const marea_image_job *job,
                                     marea_any_image_pass *p) {
  marea_conv joined = join_rows(g);
  const char *weight = marea_at(job->weight), *bias = job->bias ? marea_at(job->bias) : NULL;
  if (job->input_gradient && marea_conv_joins_columns(c->ctx, g))
    MAREA_TRY(marea_conv_join_columns(c, marea_element_size(job->out->dtype), &joined, &weight, &bias));
  question q = {.ctx = c->ctx,
                .kept = marea_keeps_packs(c, MAREA_CONV_WEIGHT),
                .g = &joined,
                .dtype = job->out->dtype,
                .input_gradient = job->input_gradient,
                .masked = job->src->y && !job->src->computed};
  const struct image_algorithm *a = image_algorithms;
  while (!a->fits(&q) || !a->pays(&q)) a++;
  marea_profile_note(c->ctx, a->name);
  memset(p, 0, sizeof *p);
  p->base = (marea_image_pass){.ctx = c->ctx,
                               .input_gradient = job->input_gradient,
                               .groups = g->groups,
                               .cin = (job->input_gradient ? joined.cout : joined.cin) / g->groups,
                               .cout = (job->input_gradient ? joined.cin : joined.cout) / g->groups,
                               .weight = weight,
                               .bias = bias,
                               .out = marea_at(job->out),
                               .act = job->act,
                               .slope = job->slope,
                               .kernels = c->ctx->kernels[marea_computed_in(job->out->dtype)],
                               .bf16 = c->ctx->bf16};
  p->base.out_step = marea_tensor_contiguous(job->out) ? g->groups * p->base.cout
                                                       : job->out->stride[job->out->rank - 2];
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
