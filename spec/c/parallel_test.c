/* SPDX-License-Identifier: MIT
** parallel_test.c: the worker pool (every block once, nested, interrupted, after a fork, many pools at
** once) and the dense products built on it, which must have the same bits for every number of threads.
*/
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../core/core.h"
#include "report.h"

static marea_context *open_context (int threads) {
  marea_config config = {.size = sizeof config, .threads = threads};
  marea_context *ctx = NULL;
  if (marea_open(&config, &ctx) != MAREA_OK) exit(2);
  return ctx;
}

/* ---- the pool ---- */

#define BLOCKS 1000

typedef struct tally {
  marea_context *ctx;
  int count[BLOCKS];
  int workers; /* allowed numbers are below it */
  atomic_bool bad;
  int nested; /* blocks of a nested call, 0: none */
  int64_t stop_at;
} tally;

static void count_inner (void *arg, int64_t block, int worker) {
  (void)worker;
  ((int *)arg)[block]++;
}

static void count_block (void *arg, int64_t block, int worker) {
  tally *t = arg;
  if (worker < 0 || worker >= t->workers) atomic_store(&t->bad, true);
  t->count[block]++;
  if (t->nested) {
    int inner[64] = {0};
    marea_parallel(t->ctx, t->nested, count_inner, inner);
    for (int i = 0; i < t->nested; i++)
      if (inner[i] != 1) atomic_store(&t->bad, true);
  }
  if (t->stop_at && block == t->stop_at) marea_interrupt(t->ctx);
}

static bool each_once (marea_context *ctx, int threads, int64_t blocks, int nested) {
  tally t = {.ctx = ctx, .workers = threads, .nested = nested};
  marea_parallel(ctx, blocks, count_block, &t);
  for (int i = 0; i < BLOCKS; i++)
    if (t.count[i] != (i < blocks)) return false;
  return !atomic_load(&t.bad);
}

static bool coverage (int threads, int nested) {
  marea_context *ctx = open_context(threads);
  bool ok = true;
  for (int round = 0; round < 300 && ok; round++)
    ok = each_once(ctx, threads, round * 37 % (BLOCKS + 1), nested);
  if (threads > 1) { /* let the workers fall asleep in between */
    for (int round = 0; round < 30 && ok; round++) {
      nanosleep(&(struct timespec){.tv_nsec = 300000}, NULL);
      ok = each_once(ctx, threads, 100, nested);
    }
  }
  marea_close(ctx);
  return ok;
}

static bool interrupted (int threads) {
  marea_context *ctx = open_context(threads);
  tally t = {.ctx = ctx, .workers = threads, .stop_at = 10};
  marea_parallel(ctx, BLOCKS, count_block, &t);
  int done = 0;
  for (int i = 0; i < BLOCKS; i++) done += t.count[i];
  marea_close(ctx);
  return done >= 11 && done < BLOCKS;
}

static bool survives_fork (void) {
#if defined(__SANITIZE_THREAD__) /* which allows no thread after a fork */
  return true;
#endif
  marea_context *ctx = open_context(3);
  bool ok = each_once(ctx, 3, BLOCKS, 0);
  pid_t child = fork();
  if (child == 0) {
    bool fine = each_once(ctx, 3, BLOCKS, 0) && each_once(ctx, 3, BLOCKS, 0);
    marea_close(ctx);
    _exit(fine ? 0 : 1);
  }
  int status = 1;
  ok = waitpid(child, &status, 0) == child && status == 0 && ok;
  child = fork(); /* closes it without ever running it */
  if (child == 0) {
    marea_close(ctx);
    _exit(0);
  }
  ok = waitpid(child, &status, 0) == child && status == 0 && ok;
  ok = each_once(ctx, 3, BLOCKS, 0) && ok;
  marea_close(ctx);
  return ok;
}

static bool resized (void) {
  marea_context *ctx = open_context(1);
  bool ok = true;
  for (int threads = 1; threads <= 8; threads++)
    ok = marea_set_threads(ctx, threads) == MAREA_OK && each_once(ctx, threads, BLOCKS, 2) && ok;
  marea_close(ctx);
  return ok;
}

/* ---- products ---- */

static float value (int64_t i) { return (float)(i * 7919 % 2003 - 1001) / 1001; }

typedef struct shape {
  int64_t m, n, k;
} shape;

static double element (const shape *s, bool ta, bool tb, const float *a, const float *b, int64_t i,
                       int64_t j) {
  double sum = 0;
  for (int64_t p = 0; p < s->k; p++)
    sum += (double)a[ta ? p * s->m + i : i * s->k + p] * (double)b[tb ? j * s->k + p : p * s->n + j];
  return sum;
}

/* Are the sums of all rows of C, with a weight for each column, those of A times the sums of B? No element may be NaN. */
static bool rows_agree (const shape *s, bool ta, bool tb, const float *a, const float *b, const float *c) {
  double *sum = calloc((size_t)s->k + 1, sizeof *sum);
  bool ok = true;
  for (int64_t p = 0; p < s->k; p++)
    for (int64_t j = 0; j < s->n; j++)
      sum[p] += (double)b[tb ? j * s->k + p : p * s->n + j] * (double)value(11 * j);
  for (int64_t i = 0; i < s->m; i++) {
    double wanted = 0, got = 0;
    for (int64_t p = 0; p < s->k; p++) wanted += (double)a[ta ? p * s->m + i : i * s->k + p] * sum[p];
    for (int64_t j = 0; j < s->n; j++) got += (double)c[i * s->n + j] * (double)value(11 * j);
    if (!(fabs(got - wanted) <= 1e-5 * (10 + (double)s->k))) ok = false;
  }
  free(sum);
  return ok;
}

/* C = A B, or relu(A B + bias), with 1 to 4 threads, whose blocks of C differ: right, and the same bits. */
static bool product (const shape *s, bool ta, bool tb, bool finished) {
  size_t size = (size_t)(s->m * s->n);
  float *a = malloc((size_t)(s->m * s->k) * sizeof *a + 1);
  float *b = malloc((size_t)(s->k * s->n) * sizeof *b + 1);
  float *c = malloc(size * sizeof *c + 1), *first = malloc(size * sizeof *c + 1);
  float *bias = malloc((size_t)s->n * sizeof *bias + 1);
  const marea_epilogue end = {.bias = bias, .act = MAREA_ACT_RELU};
  bool ok = true;
  for (int64_t i = 0; i < s->n; i++) bias[i] = value(7 * i);
  for (int64_t i = 0; i < s->m * s->k; i++) a[i] = value(i);
  for (int64_t i = 0; i < s->k * s->n; i++) b[i] = value(3 * i + 1);
  for (int threads = 1; threads <= 4; threads++) {
    marea_context *ctx = open_context(threads);
    for (size_t i = 0; i < size; i++) c[i] = NAN;
    if (marea_gemm_parallel(ctx, MAREA_F32, ta, tb, s->m, s->n, s->k, a, b, finished ? &end : NULL, c) !=
        MAREA_OK)
      abort();
    if (threads == 1) memcpy(first, c, size * sizeof *c);
    if (memcmp(first, c, size * sizeof *c) != 0) ok = false;
    marea_close(ctx);
  }
  for (size_t i = 0; i < size; i++) ok = ok && !isnan(c[i]);
  ok = ok && (finished || rows_agree(s, ta, tb, a, b, c));
  for (int64_t i = 0; i < s->m; i += 1 + s->m / 7)
    for (int64_t j = 0; j < s->n; j += 1 + s->n / 7) {
      double wanted = element(s, ta, tb, a, b, i, j);
      if (finished) wanted = fmax(wanted + (double)bias[j], 0);
      if (!(fabs((double)c[i * s->n + j] - wanted) <= 1e-5 * (10 + (double)s->k))) ok = false;
    }
  free(a);
  free(b);
  free(bias);
  free(c);
  free(first);
  return ok;
}

static bool products (void) {
  static const shape shapes[] = {{128, 128, 12544}, {128, 12544, 128}, {12544, 128, 128}, {1, 12544, 128},
                                 {128, 1, 12544},   {1, 1, 5000000},   {300, 300, 300},   {1, 2048, 2048},
                                 {2048, 1, 2048},   {7, 5, 3},         {0, 5, 3},         {5, 0, 3},
                                 {5, 4, 0},         {1, 1, 1},         {33, 20001, 17},   {20001, 33, 17},
                                 {300, 700, 1100},  {1100, 301, 515},  {2, 4100, 1030},   {4100, 9, 257},
                                 {1, 128, 12544},   {2, 128, 12544},   {2, 12544, 128},   {12544, 128, 1}};
  bool ok = true;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (int flags = 0; flags < 8; flags++)
      if (!product(&shapes[i], flags & 1, flags & 2, flags & 4)) {
        printf("  %lld x %lld x %lld, flags %d\n", (long long)shapes[i].m, (long long)shapes[i].n,
               (long long)shapes[i].k, flags);
        ok = false;
      }
  return ok;
}

static bool product_f64 (void) {
  double a[6] = {1, 2, 3, 4, 5, 6}, b[6] = {1, 0, 2, 1, 3, 5}, c[4] = {1, 1, 1, 1};
  marea_context *ctx = open_context(1);
  marea_gemm(ctx, MAREA_F64, false, false, 2, 2, 3, a, b, c);
  marea_close(ctx);
  return c[0] == 14 && c[1] == 17 && c[2] == 32 && c[3] == 35;
}

int main (void) {
  report("every block once, 1 thread", coverage(1, 0));
  report("every block once, 2 threads", coverage(2, 0));
  report("every block once, 5 threads", coverage(5, 0));
  report("nested calls", coverage(3, 20));
  report("interrupt, 1 thread", interrupted(1));
  report("interrupt, 3 threads", interrupted(3));
  report("fork", survives_fork());
  report("another number of threads", resized());
  report("products f32, same bits for 1 to 4 threads", products());
  report("product f64", product_f64());
  return failed > 0;
}
