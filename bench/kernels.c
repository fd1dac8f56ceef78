/* SPDX-License-Identifier: MIT
** bench/kernels.c: how far from the machine's limit are the kernels? Prints the measured peak of fused
** multiply-adds of one core, then GFLOP/s of direct_conv and direct_wgrad for the layers of the variational
** autoencoder (one image after the other, as the convolution operators call them), then GB/s of
** elementwise kernels on data in the first caches. One thread. Usage: kernels [isa]
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernels.h"
#include "measure.h"

#define MAX_TAPS 9
#define REPEAT 7      /* the best of so many runs counts */
#define MIN_TIME 0.02 /* seconds a run */

static double now (void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* other processes do not count */
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of one call: the best of REPEAT runs of at least MIN_TIME. */
static double measure (void (*f)(void *), void *arg) {
  double best = 1e30;
  f(arg);
  long count = 1;
  for (int i = 0; i < REPEAT;) {
    double start = now();
    for (long j = 0; j < count; j++) f(arg);
    double time = now() - start;
    if (time < MIN_TIME) {
      count = time > 0 ? (long)((double)count * MIN_TIME * 1.2 / time) + 1 : 2 * count;
      continue;
    }
    if (time / (double)count < best) best = time / (double)count;
    i++;
  }
  return best;
}

static double peak (const char *isa) { /* GFLOP/s; 0: not known */
  double flop;
  peak_loop *loop = peak_of(isa, &flop);
  return loop ? 1e-9 * flop / measure(loop, NULL) : 0;
}

/* ---- convolution ---- */

typedef struct layer {
  const char *name;
  int64_t in, cin, cout, out, stride; /* square images; `in` is the side of the padded image */
  int phases; /* 4 of a transposed convolution with stride 2: calls with 1, 2, 2 and 4 taps */
} layer;

static const layer layers[] = {
    {"1->32    28x28 3x3", 30, 1, 32, 28, 1, 1},           {"32->32   28x28 3x3", 30, 32, 32, 28, 1, 1},
    {"32->64   14x14 3x3 stride 2", 29, 32, 64, 14, 2, 1}, {"64->64   14x14 3x3", 16, 64, 64, 14, 1, 1},
    {"64->32   28x28 transposed", 15, 64, 32, 14, 1, 4},   {"32->1    28x28 3x3", 30, 32, 1, 28, 1, 1},
    {"24->20   28x28 3x3", 30, 24, 20, 28, 1, 1},
};

typedef struct work {
  const marea_kernels *k;
  const layer *l;
  bool wide; /* asked once: CPUID takes 50 us in a virtual machine */
  float *x, *w, *y, *dw, bias[64];
  int64_t taps[4], tap_rows[4], tap[4][MAX_TAPS], offset[MAX_TAPS * 64];
} work;

static void fill (float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = (float)((i * 7919 % 1024) - 512) / 512;
}

/* Taps of phase p: a full 3x3, or rows and columns of 1 and 2 taps. */
static void set_taps (work *k) {
  const layer *l = k->l;
  for (int p = 0; p < l->phases; p++) {
    int rows = l->phases == 1 ? 3 : 1 + p / 2, cols = l->phases == 1 ? 3 : 1 + p % 2;
    k->taps[p] = rows * cols;
    k->tap_rows[p] = rows;
    for (int i = 0; i < rows * cols; i++) k->tap[p][i] = ((i / cols) * l->in + i % cols) * l->cin;
  }
}

static void run_direct_conv (void *arg) {
  work *k = arg;
  const layer *l = k->l;
  int64_t side = l->phases == 1 ? l->out : 2 * l->out, step = l->phases == 1 ? 1 : 2;
  for (int p = 0; p < l->phases; p++) {
    marea_direct_conv g = {.x = k->x,
                           .w = k->w,
                           .bias = k->bias,
                           .rows = l->out,
                           .cols = l->out,
                           .x_row = l->in * l->cin * l->stride,
                           .x_col = l->cin * l->stride,
                           .y_row = step * side * l->cout,
                           .y_col = step * l->cout,
                           .cin = l->cin,
                           .cout = l->cout,
                           .tap_rows = k->tap_rows[p],
                           .taps = k->taps[p] / k->tap_rows[p],
                           .tap_row = k->taps[p] / k->tap_rows[p],
                           .tap = k->tap[p],
                           .w_tap = l->cin * l->cout,
                           .w_ci = l->cout,
                           .act = MAREA_ACT_RELU,
                           .two_vectors = k->wide};
    g.y = k->y + ((p / 2) * side + p % 2) * l->cout;
    marea_tap_run run[MAX_TAPS];
    if (l->cin == 1) marea_list_tap_runs(&g, run);
    k->k->direct_conv(&g);
  }
}

static void run_direct_wgrad (void *arg) {
  work *k = arg;
  const layer *l = k->l;
  int64_t side = l->phases == 1 ? l->out : 2 * l->out, step = l->phases == 1 ? 1 : 2;
  for (int p = 0; p < l->phases; p++) {
    for (int64_t i = 0; i < k->taps[p] * l->cin; i++) k->offset[i] = k->tap[p][i / l->cin] + i % l->cin;
    marea_direct_wgrad g = {.x = k->x,
                            .dy = k->y,
                            .dw = k->dw,
                            .rows = l->out,
                            .cols = l->out,
                            .x_row = l->in * l->cin * l->stride,
                            .x_col = l->cin * l->stride,
                            .dy_row = step * side * l->cout,
                            .dy_col = step * l->cout,
                            .m = k->taps[p] * l->cin,
                            .cout = l->cout,
                            .dw_row = l->cout,
                            .offset = k->offset};
    k->k->direct_wgrad(&g);
  }
}

/* Zeros on a cache line of their own, as the library's blocks are. */
static float *array (int64_t n) {
  size_t bytes = ((size_t)n * sizeof(float) + 63) / 64 * 64;
  return memset(aligned_alloc(64, bytes), 0, bytes);
}

static void bench_layer (const marea_kernels *kernels, const layer *l, double limit) {
  work *k = calloc(1, sizeof *k);
  int64_t n_x = (l->in + 2) * (l->in + 2) * l->cin, n_w = 9 * l->cin * l->cout;
  int64_t n_y = 4 * l->out * l->out * l->cout;
  k->k = kernels;
  k->l = l;
  k->wide = marea_cpu_is_wide();
  k->x = array(n_x);
  k->w = array(n_w);
  k->dw = array(n_w);
  k->y = array(n_y);
  fill(k->x, n_x);
  fill(k->w, n_w);
  set_taps(k);
  double flop = 0;
  for (int p = 0; p < l->phases; p++) flop += 2.0 * (double)(l->out * l->out * k->taps[p] * l->cin * l->cout);
  double forward = 1e-9 * flop / measure(run_direct_conv, k),
         backward = 1e-9 * flop / measure(run_direct_wgrad, k);
  printf("  %-28s direct_conv %6.1f GFLOP/s", l->name, forward);
  if (limit > 0) printf(" (%3.0f %%)", 100 * forward / limit);
  printf("   direct_wgrad %6.1f", backward);
  if (limit > 0) printf(" (%3.0f %%)", 100 * backward / limit);
  printf("\n");
  free(k->x);
  free(k->w);
  free(k->y);
  free(k->dw);
  free(k);
}

/* ---- elementwise ---- */

#define ELEMENTS 2048

typedef struct map {
  marea_unary_kernel *unary;
  marea_binary_kernel *binary;
  const marea_kernels *k;
  _Alignas(64) float a[ELEMENTS], b[ELEMENTS], c[ELEMENTS];
} map;

static void run_unary (void *arg) {
  map *m = arg;
  double p[2] = {0.1, 0.9};
  m->unary(ELEMENTS, m->a, m->c, p);
}

static void run_binary (void *arg) {
  map *m = arg;
  double p[1] = {1e-7};
  m->binary(ELEMENTS, m->a, 1, m->b, 1, m->c, p);
}

static void run_rmsprop (void *arg) {
  map *m = arg;
  double p[5] = {1e-9, 0.9, 1e-7, 0, 0};
  m->k->rmsprop(ELEMENTS, m->c, m->a, m->b, NULL, p);
}

static void run_sum (void *arg) {
  map *m = arg;
  m->c[0] = (float)m->k->sum(ELEMENTS, m->a);
}

static void report (const char *name, int streams, double time) {
  printf("  %-22s %7.1f GB/s %6.2f ns/element\n", name, 1e-9 * streams * 4 * ELEMENTS / time,
         1e9 * time / ELEMENTS);
}

static void bench_maps (const marea_kernels *k) {
  static map storage; /* too big for some stacks */
  map *m = &storage;
  m->k = k;
  for (int i = 0; i < ELEMENTS; i++) {
    m->a[i] = (float)(i + 1) / (ELEMENTS + 2);
    m->b[i] = (float)(i % 17) / 17;
  }
#define UNARY(name) m->unary = k->name, report(#name, 2, measure(run_unary, m));
#define BINARY(name) m->binary = k->name, report(#name, 3, measure(run_binary, m));
  /* clang-format off */
  UNARY(relu) UNARY(exp) UNARY(log) UNARY(log1p) UNARY(expm1) UNARY(tanh) UNARY(sigmoid) UNARY(softplus)
  UNARY(erf) UNARY(gelu) UNARY(sin)
  BINARY(add) BINARY(relu_grad) BINARY(bce) BINARY(bce_grad) BINARY(bce_with_logits)
      /* clang-format on */
      report("rmsprop", 5, measure(run_rmsprop, m));
  report("sum", 1, measure(run_sum, m));
}

int main (int argc, char **argv) {
  const char *isa;
  for (int n = 0; (isa = marea_runnable_isa(n)); n++) {
    const marea_kernels *kernels[4];
    const char *chosen;
    if (argc > 1 && strcmp(argv[1], isa) != 0) continue;
    if (!marea_select_kernels(isa, kernels, &chosen)) return 1;
    double limit = peak(isa);
    printf("%s: peak %.1f GFLOP/s a core\n", isa, limit);
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) bench_layer(kernels[0], &layers[i], limit);
    bench_maps(kernels[0]);
  }
  return 0;
}
