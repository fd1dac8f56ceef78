/* SPDX-License-Identifier: MIT
** calls.c: nanoseconds of the calls of spec/luajit/calls.lua in C.
*/
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "marea.h"

enum { CALLS = 20000, ROUNDS = 10 };

static marea_context *ctx;
static marea_tensor *x, *m;
static float data[4];

static void check (marea_status status) {
  if (status == MAREA_OK) return;
  fprintf(stderr, "%s\n", marea_error(ctx));
  exit(EXIT_FAILURE);
}

static marea_tensor *add (void) {
  marea_tensor *y;
  check(marea_call_op(ctx, "add", MAREA_TENSORS(x, x), MAREA_NO_NAMES, 1, &y));
  return y;
}

static marea_tensor *sum (void) {
  marea_tensor *y;
  check(marea_call_op(ctx, "sum", MAREA_TENSORS(m),
                      MAREA_NAMED(marea_int("dims", 1), marea_int("keepdim", 1)), 1, &y));
  return y;
}

static marea_tensor *reshape (void) {
  marea_tensor *y;
  check(marea_call_op(ctx, "reshape", MAREA_TENSORS(m), MAREA_NAMED(marea_ints("shape", 1, (int64_t[]){4})),
                      1, &y));
  return y;
}

static marea_tensor *add_ (void) {
  check(marea_call_op(ctx, "add_", MAREA_TENSORS(m, m), MAREA_NO_NAMES, 0, NULL));
  return NULL;
}

static marea_tensor *from_memory (void) {
  marea_tensor *y;
  check(marea_from_memory(ctx, MAREA_F32, 1, (int64_t[]){4}, data, NULL, NULL, &y));
  return y;
}

static double now (void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double measure (marea_tensor *(*call)(void)) {
  double least = 1e30;
  for (int round = 0; round < ROUNDS; round++) {
    const double start = now();
    for (int i = 0; i < CALLS; i++) marea_release(call());
    const double each = (now() - start) / CALLS;
    if (each < least) least = each;
  }
  return least;
}

int main (void) {
  check(marea_open(NULL, &ctx));
  check(marea_set_threads(ctx, 1));
  check(marea_zeros(ctx, MAREA_F32, 1, (int64_t[]){4}, &x));
  check(marea_zeros(ctx, MAREA_F32, 2, (int64_t[]){2, 2}, &m));
  printf("add %.0f\n", measure(add));
  printf("sum %.0f\n", measure(sum));
  printf("reshape %.0f\n", measure(reshape));
  printf("add_ %.0f\n", measure(add_));
  printf("from_memory %.0f\n", measure(from_memory));
  marea_release(x), marea_release(m);
  marea_close(ctx);
  return EXIT_SUCCESS;
}
