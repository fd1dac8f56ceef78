/* SPDX-License-Identifier: MIT
** profile_test.c: profiles without Lua: what is counted, how times add up, what happens when memory ends, and
** the order of stopping, freeing and closing.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../core/core.h"
#include "report.h"

static marea_context *ctx;

static marea_tensor *ones (int64_t rows, int64_t cols) {
  const int64_t shape[] = {rows, cols};
  marea_tensor *t;
  if (marea_zeros(ctx, MAREA_F32, 2, shape, &t) != MAREA_OK) exit(2);
  for (int64_t i = 0; i < rows * cols; i++) ((float *)marea_tensor_data(t))[i] = 1;
  return t;
}

static marea_tensor *run (const marea_op *op, int n, marea_tensor *a, marea_tensor *b) {
  marea_tensor *out;
  if (marea_run(ctx, op, &out, n, a, b) != MAREA_OK) exit(2);
  return out;
}

static marea_profile *start (size_t max_events) {
  marea_profile *p;
  if (marea_profile_start(ctx, max_events, &p) != MAREA_OK) exit(2);
  return p;
}

static const marea_profile_row *find (const marea_profile *p, const char *op, int layer, bool backward) {
  size_t n;
  const marea_profile_row *row = marea_profile_rows(p, &n);
  for (size_t i = 1; i < n; i++)
    if (strcmp(row[i].work.op, op) == 0 && row[i].work.layer == layer && row[i].work.backward == backward)
      return &row[i];
  return NULL;
}

/* loss = sum((x w) * (x w)), the product in layer 7, and its gradient; all in layer 3 but for that */
static void train_step (marea_tensor *x, marea_tensor *w) {
  marea_set_layer(ctx, 7);
  marea_tensor *y = run(&marea_op_matmul, 2, x, w);
  marea_set_layer(ctx, 3);
  marea_tensor *square = run(&marea_op_mul, 2, y, y), *loss = run(&marea_op_sum, 1, square, NULL);
  if (marea_backward(loss, NULL, 0) != MAREA_OK) exit(2);
  marea_clear_grad(w);
  marea_release(y);
  marea_release(square);
  marea_release(loss);
}

static void counts (void) {
  marea_tensor *x = ones(16, 8), *w = ones(8, 4);
  if (marea_require_grad(w, true) != MAREA_OK) exit(2);
  marea_profile *p = start(1000), *second;
  report("one profile at a time", marea_profile_start(ctx, 0, &second) == MAREA_ESTATE && !second);
  for (int i = 0; i < 5; i++) train_step(x, w);
  marea_profile_stop(p);
  train_step(x, w); /* is not seen */
  const marea_profile_row *forward = find(p, "matmul", 7, false), *backward = find(p, "matmul", 7, true);
  const marea_profile_row *pass = find(p, "backward", 3, true), *mul = find(p, "mul", 3, false);
  report("calls are counted, by layer and direction", forward && forward->calls == 5 && backward &&
                                                          backward->calls == 5 && pass && pass->calls == 5 &&
                                                          mul && mul->calls == 5);
  report("the gradient belongs to the layer of the forward call", !find(p, "matmul", 3, true));
  report("FLOPs of a product", forward && forward->work.flop == 5 * 2.0 * 16 * 8 * 4);
  report("bytes of inputs and outputs",
         forward && forward->work.bytes == 5 * 4.0 * (16 * 8 + 8 * 4 + 16 * 4));

  size_t n_rows, n_events;
  const marea_profile_row *row = marea_profile_rows(p, &n_rows);
  const marea_profile_event *event = marea_profile_events(p, &n_events);
  marea_profile_info info = marea_profile_times(p);
  int64_t self = 0, outermost = 0;
  uint64_t calls = 0;
  bool ordered = true;
  for (size_t i = 0; i < n_rows; i++) self += row[i].self_ns, calls += row[i].calls;
  for (size_t i = 0; i < n_events; i++) {
    if (event[i].depth == 0) outermost += event[i].total_ns;
    ordered &= i == 0 || event[i].start_ns >= event[i - 1].start_ns;
  }
  report("self times fit into the outermost calls, and these into the whole",
         0 < self && self <= outermost && outermost <= info.wall_ns &&
             self + info.overhead_ns <= info.wall_ns);
  report("every call is an event, in the order of starts", calls == n_events && info.dropped == 0 && ordered);
  report("a pass contains what it runs", pass && pass->total_ns >= pass->self_ns + backward->self_ns);
  marea_profile_free(p);
  marea_release(x);
  marea_release(w);
}

static void limits (void) {
  marea_tensor *x = ones(2, 2);
  marea_profile *p = start(10);
  for (int i = 0; i < 25; i++) marea_release(run(&marea_op_neg, 1, x, NULL));
  size_t n;
  marea_profile_events(p, &n);
  report("the first events are kept", n == 10 && marea_profile_times(p).dropped == 15);
  report("the profile's own work is overhead", marea_profile_times(p).overhead_ns > 0);
  marea_profile_free(p);

  marea_memory_info before = marea_memory(ctx);
  p = start(1 << 20);
  marea_memory_limit(ctx, marea_memory(ctx).live + 4096); /* enough for operators, not for more rows */
  for (int layer = 1; layer <= 5000; layer++) {
    marea_set_layer(ctx, layer);
    marea_release(run(&marea_op_neg, 1, x, NULL));
  }
  uint64_t calls = 0;
  const marea_profile_row *row = marea_profile_rows(p, &n);
  for (size_t i = 0; i < n; i++) calls += row[i].calls;
  report("calls without a row of their own go to the first",
         n == 64 && calls == 5000 && row[0].calls == 5000 - 63);
  marea_profile_events(p, &n);
  report("events end with the memory", n + marea_profile_times(p).dropped == 5000 && n == 1024);
  marea_memory_limit(ctx, 0);
  marea_profile_free(p);
  report("all memory comes back",
         marea_memory(ctx).live == before.live && marea_memory(ctx).blocks == before.blocks);

  for (uint64_t k = 1; k <= 3; k++) {
    marea_memory_fail(ctx, k, true);
    marea_status status = marea_profile_start(ctx, 100, &p);
    marea_memory_fail(ctx, 0, false);
    report("no memory for a profile",
           status == MAREA_ENOMEM && !p && marea_memory(ctx).blocks == before.blocks);
  }
  marea_release(x);
}

static void pauses (void) {
  marea_profile *p = start(0);
  marea_profile_pause(p);
  nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
  marea_profile_resume(p);
  marea_profile_stop(p);
  marea_profile_stop(p);
  marea_profile_info info = marea_profile_times(p);
  report("a pause is overhead", info.overhead_ns >= 5000000 && info.wall_ns >= info.overhead_ns);
  report("a stopped clock stands", marea_profile_times(p).wall_ns == info.wall_ns);
  report("stopping ends the layer", marea_set_layer(ctx, 0) == 0);
  marea_profile_free(p);
  marea_profile_free(NULL);
}

int main (void) {
  marea_config config = {.size = sizeof config, .threads = 1};
  if (marea_open(&config, &ctx) != MAREA_OK) return 2;
  counts();
  limits();
  pauses();
  marea_profile *p = start(100);
  marea_close(ctx);
  marea_profile_free(p); /* the last block of the context */
  printf("%d failed\n", failed);
  return failed != 0;
}
