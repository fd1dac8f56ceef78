/* SPDX-License-Identifier: MIT
** budget_test.c: what a time limit means for changes in place and for work that cannot be stopped, and what operators with
** large windows or slow functions cost.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../core/core.h"
#include "report.h"

#define TRIES 8                                   /* the machine may be busy */
#define SLOW MAREA_NAMED(marea_int("order", 100)) /* polygamma: microseconds an element */

static marea_context *ctx;

static marea_tensor *full (int rank, const int64_t *shape, double value) {
  marea_tensor *t;
  const marea_named named[] = {marea_ints("shape", rank, shape), marea_real("value", value)};
  if (marea_call_op(ctx, "full", MAREA_NO_TENSORS, 2, named, 1, &t) != MAREA_OK) exit(2);
  return t;
}

static marea_tensor *vector (int64_t n) { return full(1, &n, 0.5); }

static double seconds_since (int64_t start) { return (double)(marea_clock_ns() - start) * 1e-9; }

static int64_t changed (const marea_tensor *t) {
  int64_t n = 0;
  for (int64_t i = 0; i < marea_tensor_size(t); i++) n += ((const float *)marea_tensor_data(t))[i] != 0.5f;
  return n;
}

/* Too late by far: ends soon, and says that it is changed in part. */
static bool test_torn (void) {
  double least = 1e9;
  for (int k = 0; k < TRIES && least > 0.2; k++) {
    marea_tensor *x = vector(4000000);
    const int64_t start = marea_clock_ns();
    marea_limit_time(ctx, 0.02);
    NEED(marea_call_op(ctx, "polygamma_", MAREA_TENSORS(x), SLOW, 0, NULL) == MAREA_EBUDGET);
    least = MAREA_MIN(least, seconds_since(start));
    marea_limit_time(ctx, 0);
    NEED(strstr(
        marea_error(ctx),
        "polygamma: the time limit of 0.02 s is reached; what it changes in place is changed in part"));
    NEED(changed(x) > 0 && changed(x) < 4000000);
    NEED(marea_tensor_changes(x) == 1);
    NEED(marea_call_op(ctx, "mul_", MAREA_TENSORS(x, x), MAREA_NO_NAMES, 0, NULL) ==
         MAREA_OK); /* the limit is gone */
    marea_release(x);
  }
  NEED(least <= 0.2);
  return true;
}

/* A little too late: it is completed. One of some tries is so. */
static bool test_completed (void) {
  bool done = false;
  for (int k = 0; k < 10 * TRIES && !done; k++) {
    marea_tensor *x = vector(600);
    marea_limit_time(ctx, 0.0005);
    marea_status status = marea_call_op(ctx, "polygamma_", MAREA_TENSORS(x), SLOW, 0, NULL);
    const bool late = marea_is_overdue(ctx);
    marea_limit_time(ctx, 0);
    done = late && status == MAREA_OK && changed(x) == 600;
    marea_release(x);
  }
  NEED(done);
  return true;
}

static bool test_shielded (void) {
  marea_tensor *x = vector(40000);
  const bool before = marea_set_shielded(ctx, true);
  marea_limit_time(ctx, 0.001);
  marea_status status = marea_call_op(ctx, "polygamma_", MAREA_TENSORS(x), SLOW, 0, NULL);
  marea_limit_time(ctx, 0);
  marea_set_shielded(ctx, before);
  NEED(status == MAREA_OK || strstr(marea_error(ctx), "the time limit"));
  NEED(changed(x) == 40000 || changed(x) == 0); /* late before it began, or whole */
  marea_release(x);
  return true;
}

/* A copy and the writing of a result that was computed aside are changes in place, too. */
static bool test_copies (void) {
  marea_tensor *x = vector(1000), *y = vector(1);
  marea_limit_time(ctx, 100);
  NEED(marea_copy(x, y) == MAREA_OK);
  NEED(marea_call_op(ctx, "add_", MAREA_TENSORS(x, y), MAREA_NO_NAMES, 0, NULL) == MAREA_OK);
  marea_limit_time(ctx, 0);
  NEED(changed(x) == 1000);
  marea_release(x), marea_release(y);
  return true;
}

static bool test_foreseen (void) {
  marea_tensor *a = full(2, (int64_t[]){600, 600}, 1), *out[2];
  marea_limit_time(ctx, 0.05);
  const int64_t start = marea_clock_ns();
  NEED(marea_call_op(ctx, "eigh", MAREA_TENSORS(a), MAREA_NO_NAMES, 2, out) == MAREA_EBUDGET);
  NEED(strstr(marea_error(ctx), "cannot be stopped") || seconds_since(start) > 0.04);
  marea_limit_time(ctx, 1000);
  NEED(marea_call_op(ctx, "eigh", MAREA_TENSORS(a), MAREA_NO_NAMES, 2, out) == MAREA_OK);
  marea_limit_time(ctx, 0);
  marea_release(out[0]), marea_release(out[1]), marea_release(a);
  return true;
}

/* The operator goes beyond `flop`, and not beyond ten times as much. */
static bool costs (const char *name, marea_tensor *x, int n, const marea_named *named, double flop) {
  marea_tensor *y;
  marea_limit_flop(ctx, flop);
  NEED(marea_call_op(ctx, name, MAREA_TENSORS(x), n, named, 1, &y) == MAREA_EBUDGET);
  marea_limit_flop(ctx, 10 * flop);
  NEED(marea_call_op(ctx, name, MAREA_TENSORS(x), n, named, 1, &y) == MAREA_OK);
  marea_limit_flop(ctx, 0);
  marea_release(y);
  return true;
}

static bool test_costs (void) {
  marea_tensor *x = vector(1000), *image = full(4, (int64_t[]){1, 40, 40, 1}, 1);
  const marea_named window[] = {marea_int("kernel", 20), marea_int("stride", 1)};
  NEED(costs("polygamma", x, SLOW, 5e5)); /* 1000 x 123 x 20 */
  NEED(costs("polygamma", x, MAREA_NAMED(marea_int("order", 0)), 1e4));
  NEED(costs("lgamma", x, MAREA_NO_NAMES, 1e4));
  NEED(costs("max_pool2d", image, 2, window, 1e5)); /* 21 x 21 x 400 */
  NEED(costs("avg_pool2d", image, 2, window, 1e5));
  NEED(costs("gaussian_blur", image, MAREA_NAMED(marea_real("sigma", 5)), 1e5)); /* 1600 x 41 x 4 */
  NEED(costs("gaussian_blur", image, MAREA_NAMED(marea_real("sigma", 5), marea_int("radius", 100)), 5e5));
  marea_release(x), marea_release(image);
  return true;
}

int main (void) {
  if (marea_open(&(marea_config){.size = sizeof(marea_config), .threads = 2}, &ctx) != MAREA_OK) return 2;
  report("a change in place that is much too late", test_torn());
  report("a change in place that is a little too late", test_completed());
  report("a change in place while shielded", test_shielded());
  report("copies", test_copies());
  report("work that cannot be stopped", test_foreseen());
  report("costs", test_costs());
  marea_close(ctx);
  return failed != 0;
}
