/* SPDX-License-Identifier: MIT
** passes.c: a pass by itself, over all tiles of all images.
*/
#include "passes.h"

/* Multiply-adds of a block: 5 us on a core of 200 GFLOP/s, against some 100 ns for a thread to take a block. */
#define BLOCK_WORK 5e5

/* ---- the image pass ---- */

typedef struct run {
  const marea_image_pass *pass;
  int64_t tasks, tasks_per_block;
} run;

void marea_image_pass_prefetch_out (const marea_image_pass *p, int64_t image, marea_prefetch *prefetch) {
  const size_t bytes = (size_t)(p->x.axis[0].out * p->x.axis[1].out * p->groups * p->cout) * p->x.size;
  if (p->kernel_fetches_out || p->out_step != p->groups * p->cout) return;
  marea_prefetch_add(prefetch, marea_prefetch_area_of(p->out + (size_t)image * bytes, bytes));
}

/* Prefetches the place of the results and the next image, or the next tile. */
static void run_images (void *arg, int64_t block, int worker) {
  const run *r = arg;
  const marea_image_pass *p = r->pass;
  const int64_t tiles = p->x.tiles, first = block * r->tasks_per_block;
  const int64_t end = MAREA_MIN(first + r->tasks_per_block, r->tasks);
  for (int64_t task = first; task < end; task++) {
    marea_prefetch next = {.n = 0};
    if (tiles == 1) {
      marea_image_pass_prefetch_out(p, task, &next);
      marea_conv_window_prefetch(&p->x, task + 1, &next);
    } else marea_conv_window_prefetch_tile(&p->x, (task + 1) / tiles, (task + 1) % tiles, &next);
    p->tile(p, task / tiles, task % tiles, worker, &next);
  }
}

void marea_image_pass_run (marea_call *c, const marea_conv *g, const marea_image_pass *p) {
  if (p->run) {
    p->run(c, p);
    return;
  }
  run r = {.pass = p, .tasks = g->n * p->x.tiles};
  const double work = (double)g->out[0] * (double)g->out[1] * (double)g->kernel[0] * (double)g->kernel[1] *
                      (double)p->cin * (double)p->cout * (double)p->groups / (double)p->x.tiles;
  const double enough = BLOCK_WORK / MAREA_MAX(work, 1);
  r.tasks_per_block = (int64_t)MAREA_MIN(enough, (double)(r.tasks / MAREA_CONV_PARTS));
  r.tasks_per_block = MAREA_MAX(r.tasks_per_block, 1);
  marea_parallel(c->ctx, (r.tasks - 1) / r.tasks_per_block + 1, run_images, &r);
}

/* ---- the weight-gradient pass ---- */

static void run_weights (void *arg, int64_t block, int worker) {
  const marea_weight_pass *p = arg;
  const int64_t parts = p->sum.parts, cuts = p->sum.cuts, part = block / cuts, cut = block % cuts;
  const int64_t tiles = p->x.tiles, tasks = p->g->n * tiles;
  marea_sum sum = marea_partial_sums_begin(&p->sum, part, cut);
  for (int64_t task = part * tasks / parts; task < (part + 1) * tasks / parts; task++) {
    if (marea_stopping(p->ctx)) return;
    marea_prefetch next = {.n = 0};
    marea_conv_window_prefetch(&p->x, task / tiles + 1, &next);
    marea_conv_rows_prefetch(&p->dy, task / tiles + 1, &next);
    p->tile(p, task / tiles, task % tiles, cut, worker, &sum, tiles == 1 ? &next : NULL);
  }
  marea_partial_sums_complete(&p->sum, p->kernels, part, cut);
}

void marea_weight_pass_run (const marea_weight_pass *p) {
  if (p->run) p->run(p);
  else marea_parallel(p->ctx, p->sum.parts * p->sum.cuts, run_weights, (void *)p);
  if (p->finish) p->finish(p);
}
