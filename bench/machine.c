/* SPDX-License-Identifier: MIT
** bench/machine.c: what the machine can do at most. Prints lines of
**
**   peak ISA THREADS GFLOP/s     multiply-adds in f32, or of bf16 (amx, avx512_bf16), all threads together
**   read THREADS GB/s            plain sum of an array that no cache holds
**   copy THREADS GB/s            memcpy of such arrays, bytes read and bytes written
**
** Usage: machine MAX_THREADS ISA...   Threads 1, 2, 4, ... and MAX_THREADS. Of many short runs a fast one
** counts. Multiply-adds are timed by each thread's own CPU time, memory, which threads share, by the wall
** clock.
*/
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "measure.h"

#define TRY_FOR 0.5 /* seconds for each figure */
#define MAX_RUNS 1000
#define PEAK_CALLS 2000
#define MAX_THREADS 1024
#define ARRAY ((size_t)128 << 20) /* bytes a thread, and as many for the copy */

typedef int64_t vec __attribute__((vector_size(64)));

typedef struct team team;

typedef struct member {
  team *team;
  char *from, *to;
  double start, end, cpu;
  int64_t sum; /* keeps the reads alive */
} member;

struct team {
  void (*work)(member *);
  peak_loop *loop;
  int threads;
  atomic_int ready;
  member member[MAX_THREADS];
};

static double now (clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void work_peak (member *m) {
  for (int i = 0; i < PEAK_CALLS; i++) m->team->loop(NULL);
}

static void work_read (member *m) {
  const vec *x = (const vec *)m->from;
  vec sum[4] = {{0}};
  for (size_t i = 0; i < ARRAY / sizeof(vec); i += 4)
    for (size_t k = 0; k < 4; k++) sum[k] += x[i + k];
  m->sum += (sum[0] + sum[1] + sum[2] + sum[3])[0];
}

static void work_copy (member *m) { memcpy(m->to, m->from, ARRAY); }

static void *run_member (void *arg) {
  member *m = arg;
  team *t = m->team;
  atomic_fetch_add(&t->ready, 1);
  while (atomic_load(&t->ready) < t->threads) continue; /* all begin at once */
  m->start = now(CLOCK_MONOTONIC);
  m->cpu = -now(CLOCK_THREAD_CPUTIME_ID);
  t->work(m);
  m->cpu += now(CLOCK_THREAD_CPUTIME_ID);
  m->end = now(CLOCK_MONOTONIC);
  return NULL;
}

static void run_once (team *t) {
  pthread_t thread[MAX_THREADS];
  atomic_store(&t->ready, 0);
  for (int i = 1; i < t->threads; i++)
    if (pthread_create(&thread[i], NULL, run_member, &t->member[i])) exit(1);
  run_member(&t->member[0]);
  for (int i = 1; i < t->threads; i++) pthread_join(thread[i], NULL);
}

/* Units a second when each thread does `units` of work, by the threads' CPU times. */
static double cpu_rate (const team *t, double units) {
  double rate = 0;
  for (int i = 0; i < t->threads; i++) rate += units / t->member[i].cpu;
  return rate;
}

/* The same from the first beginning to the last end. */
static double wall_rate (const team *t, double units) {
  double start = t->member[0].start, end = t->member[0].end;
  for (int i = 1; i < t->threads; i++) {
    if (t->member[i].start < start) start = t->member[i].start;
    if (t->member[i].end > end) end = t->member[i].end;
  }
  return units * t->threads / (end - start);
}

static int ascending (const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The rate that one run in ten surpasses: what the machine can do when left alone, but no slip of a clock. */
static double best (team *t, void (*work)(member *), double (*rate)(const team *, double), double units) {
  double rates[MAX_RUNS], end = now(CLOCK_MONOTONIC) + TRY_FOR;
  size_t runs = 0;
  t->work = work;
  do {
    run_once(t);
    rates[runs++] = rate(t, units);
  } while (runs < MAX_RUNS && now(CLOCK_MONOTONIC) < end);
  qsort(rates, runs, sizeof *rates, ascending);
  return rates[runs - 1 - runs / 10];
}

static void report (team *t, int isas, char **isa) {
  double flop;
  for (int i = 0; i < isas; i++)
    if ((t->loop = peak_of(isa[i], &flop)))
      printf("peak %s %d %.2f\n", isa[i], t->threads, best(t, work_peak, cpu_rate, 1e-9 * flop * PEAK_CALLS));
  printf("read %d %.2f\n", t->threads, best(t, work_read, wall_rate, 1e-9 * (double)ARRAY));
  printf("copy %d %.2f\n", t->threads, best(t, work_copy, wall_rate, 2e-9 * (double)ARRAY));
}

static char *array (void) { /* every page touched */
  char *p = aligned_alloc(64, ARRAY);
  if (!p) exit(1);
  return memset(p, 1, ARRAY);
}

int main (int argc, char **argv) {
  static team t;
  int most = argc > 1 ? atoi(argv[1]) : 1;
  if (most < 1 || most > MAX_THREADS) return 1;
  for (int i = 0; i < most; i++) t.member[i] = (member){.team = &t, .from = array(), .to = array()};
  for (t.threads = 1; t.threads < most; t.threads *= 2) report(&t, argc - 2, argv + 2);
  t.threads = most;
  report(&t, argc - 2, argv + 2);
  return 0;
}
