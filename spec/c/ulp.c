/* SPDX-License-Identifier: MIT
** ulp.c: the error of every f32 kernel of one argument on all 2^32 arguments, or on each STEP-th one, for every
** ISA of this machine. Prints the largest error in ulps, where it is, and how many results are not the
** nearest float; the exit status is 1 when a bound of reference.h is broken. Half an hour or more for all.
**
**   ulp [-s STEP] [function ...]
*/
#include <stdio.h>
#include <stdlib.h>

#include "../../core/kernels/kernels.h"
#include "reference.h"

#define BATCH 4096
#define MAX_ISAS 8

typedef struct result {
  const char *isa;
  marea_unary_kernel *kernel;
  double worst;
  float at;
  uint64_t off; /* results that are not the nearest float */
} result;

static void compare (result *r, const float *x, const double *wanted) {
  static float y[BATCH];
  r->kernel(BATCH, x, y, parameters);
  for (int i = 0; i < BATCH; i++) {
    float nearest = (float)wanted[i];
    if (y[i] == nearest || (isnan(y[i]) && isnan(nearest))) continue; /* half an ulp at most */
    double error = ulps(y[i], wanted[i]);
    r->off++;
    if (error > r->worst) r->worst = error, r->at = x[i];
  }
}

/* Returns whether the bound holds on every ISA. */
static bool measure (const unary_case *c, result *list, int isas, uint64_t step) {
  static float x[BATCH];
  static double wanted[BATCH];
  uint64_t count = 0;
  for (uint64_t bits = 0; bits < UINT64_C(1) << 32; count += BATCH) {
    for (int i = 0; i < BATCH; i++, bits += step) {
      uint32_t word = (uint32_t)bits; /* the last batch starts over */
      memcpy(&x[i], &word, sizeof word);
      wanted[i] = c->wanted((double)x[i]);
    }
    for (int i = 0; i < isas; i++) compare(&list[i], x, wanted);
  }
  bool fine = true;
  for (int i = 0; i < isas; i++) {
    const result *r = &list[i];
    bool holds = r->worst <= c->ulps;
    printf("%s %-8s %-10s %.3f ulp at %.9g (%a), %.2f %% not the nearest\n", holds ? "ok  " : "FAIL", r->isa,
           c->name, r->worst, (double)r->at, (double)r->at, 100 * (double)r->off / (double)count);
    fine = fine && holds;
  }
  fflush(stdout);
  return fine;
}

static marea_unary_kernel *kernel_of (const marea_kernels *k, const char *name) {
#define U(entry) \
  if (!strcmp(name, #entry)) return k->entry;
  MAREA_UNARY_KERNELS(U)
#undef U
  return NULL;
}

static bool measure_named (const unary_case *c, uint64_t step) {
  result list[MAX_ISAS];
  int isas = 0;
  for (const char *isa; isas < MAX_ISAS && (isa = marea_runnable_isa(isas)); isas++) {
    const marea_kernels *k[4];
    const char *chosen;
    if (!marea_select_kernels(isa, k, &chosen)) return false;
    list[isas] = (result){.isa = isa, .kernel = kernel_of(k[0], c->name)};
  }
  return measure(c, list, isas, step);
}

int main (int argc, char **argv) {
  uint64_t step = 1;
  int first = 1;
  bool fine = true;
  if (argc > 2 && !strcmp(argv[1], "-s")) step = strtoull(argv[2], NULL, 10), first = 3;
  if (step == 0) step = 1;
  for (size_t i = 0; i < sizeof unary_cases / sizeof *unary_cases; i++) {
    bool asked = first == argc;
    for (int j = first; j < argc; j++) asked = asked || !strcmp(argv[j], unary_cases[i].name);
    if (asked) fine = measure_named(&unary_cases[i], step) && fine;
  }
  return !fine;
}
