/* SPDX-License-Identifier: MIT
** parallel.c: the context's worker threads. A job is a number of blocks. Each thread starts with a range of
** neighbouring blocks, so that hardware prefetching works within it, and then takes blocks from the ranges of other
** threads. Which thread computes a block makes no difference to the result.
**
** A worker that wakes up late does not delay the caller: workers join a job while it is open, and the caller
** closes the job when no block is left and then waits only for the workers that have joined. After a job workers
** look for the next one for SPIN_NS before they sleep, so that the small gaps of a training step cost no
** system call.
**
** Threads start at the first job, and once more in the child after a fork, which inherits no threads. The memory of
** the workers does not come from marea_alloc, so that statistics of memory count tensors only.
**
** With the host's threads (config.parallel_for) the context starts none: call i of the host's function does what
** thread i would do.
*/
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core.h"

#define SPIN_NS 200000
#define SPIN_STEP 16 /* spins between two reads of the clock */

/* `state` holds the job's number, an open bit and the number of workers that have joined in one word, so that joining
   and closing are atomic. */
#define INSIDE 0xffffu
#define OPEN (UINT64_C(1) << 16)
#define JOB (UINT64_C(1) << 17)

struct marea_workers {
  marea_context *ctx;
  int threads;      /* with the caller */
  int started;      /* number of threads that were started */
  pid_t pid;        /* process that started them: another one is a fork's child */
  bool busy;        /* a job runs; a nested call then runs serially */
  pthread_t caller; /* the thread that called marea_parallel */
  pthread_t thread[MAREA_MAX_THREADS];
  pthread_mutex_t mutex;     /* for sleeping only */
  pthread_cond_t job, empty; /* a job was opened or the threads shall end; the last worker left the job */
  atomic_int sleepers;       /* workers that wait for `job` */
  atomic_bool waiting;       /* the caller waits for `empty` */
  atomic_bool quit;
  atomic_int joined; /* gives a worker its number */
  marea_block_fn fn; /* the job; written before it is opened */
  void *arg;
  int64_t blocks;
  char gap[4 * MAREA_ALIGN]; /* keeps the words below in cache lines of their own */
  _Atomic uint64_t state;
  char gap2[4 * MAREA_ALIGN];
  struct range {
    _Atomic int64_t next; /* block to hand out */
    char gap[4 * MAREA_ALIGN - sizeof(int64_t)];
  } range[MAREA_MAX_THREADS]; /* of thread t: up to range_end(w, t) */
};

static inline void relax (void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

int64_t marea_clock_ns (void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Calls config.interrupted on the thread that uses the context, and on no other. */
static bool is_host_thread (const marea_workers *w) {
  return !w || !w->busy || pthread_equal(pthread_self(), w->caller);
}

/* Has the running change in place exceeded the deadline by MAREA_PATIENCE_NS? It then stops half done. */
static bool is_torn (marea_context *ctx) {
  if (!ctx->deadline || marea_clock_ns() < ctx->deadline + MAREA_PATIENCE_NS) return false;
  atomic_store_explicit(&ctx->torn, true, memory_order_relaxed);
  return true;
}

bool marea_stopping (marea_context *ctx) {
  if (ctx->shielded) return false;
  if (ctx->changing) return is_torn(ctx);
  if (atomic_load_explicit(&ctx->interrupt, memory_order_relaxed) || marea_is_overdue(ctx)) return true;
  if (!ctx->config.interrupted || !is_host_thread(ctx->workers)) return false;
  if (!ctx->config.interrupted(ctx->config.interrupted_ud)) return false;
  marea_interrupt(ctx);
  return true;
}

static void run_serially (marea_context *ctx, int64_t blocks, marea_block_fn fn, void *arg, int worker) {
  for (int64_t block = 0; block < blocks && !marea_stopping(ctx); block++) fn(arg, block, worker);
}

static int64_t range_end (const marea_workers *w, int thread) {
  const int64_t each = w->blocks / w->threads, more = w->blocks % w->threads;
  return (thread + 1) * each + MAREA_MIN(thread + 1, more);
}

static void run_blocks (marea_workers *w, int worker) {
  for (int i = 0; i < w->threads; i++) {
    const int owner = (worker + i) % w->threads;
    const int64_t end = range_end(w, owner);
    for (;;) {
      const int64_t block = atomic_fetch_add_explicit(&w->range[owner].next, 1, memory_order_relaxed);
      if (block >= end) break;
      if (marea_stopping(w->ctx)) return;
      w->fn(w->arg, block, worker);
    }
  }
}

/* ---- workers ---- */

/* Is there an open job that this worker has not seen? */
static bool is_news (uint64_t state, uint64_t seen) { return (state & OPEN) && state / JOB != seen; }

static bool called (marea_workers *w, uint64_t seen) {
  return atomic_load(&w->quit) || is_news(atomic_load(&w->state), seen);
}

static void await_call (marea_workers *w, uint64_t seen) {
  int64_t end = marea_clock_ns() + SPIN_NS;
  do {
    for (int i = 0; i < SPIN_STEP; i++) {
      if (called(w, seen)) return;
      relax();
    }
    sched_yield(); /* the caller may be waiting for this core */
  } while (marea_clock_ns() < end);
  pthread_mutex_lock(&w->mutex);
  atomic_fetch_add(&w->sleepers, 1);
  while (!called(w, seen)) pthread_cond_wait(&w->job, &w->mutex);
  atomic_fetch_sub(&w->sleepers, 1);
  pthread_mutex_unlock(&w->mutex);
}

static bool join_job (marea_workers *w, uint64_t *seen) {
  uint64_t state = atomic_load(&w->state);
  do
    if (!is_news(state, *seen)) return false;
  while (!atomic_compare_exchange_weak(&w->state, &state, state + 1));
  *seen = state / JOB;
  return true;
}

static void leave_job (marea_workers *w) {
  uint64_t before = atomic_fetch_sub(&w->state, 1);
  if ((before & (OPEN | INSIDE)) != 1 || !atomic_load(&w->waiting)) return;
  pthread_mutex_lock(&w->mutex);
  pthread_cond_signal(&w->empty);
  pthread_mutex_unlock(&w->mutex);
}

static void *worker_main (void *arg) {
  marea_workers *w = arg;
  int worker = 1 + atomic_fetch_add(&w->joined, 1);
  uint64_t seen = 0;
  (void)marea_enter_float_mode(); /* a thread inherits the mode of the one that started it */
  while (!atomic_load(&w->quit)) {
    await_call(w, seen);
    if (!join_job(w, &seen)) continue;
    run_blocks(w, worker);
    leave_job(w);
  }
  return NULL;
}

/* ---- the threads ---- */

/* Starts the threads; with fewer than wanted the others and the caller do their work. All signals are blocked in them,
   so that they are delivered to the host's threads. */
static void start (marea_workers *w) {
  const marea_config *config = &w->ctx->config;
  const bool forked = w->pid != 0;
  sigset_t all, before;
  w->pid = getpid();
  w->started = 0;
  w->busy = false;
  pthread_mutex_init(&w->mutex, NULL);
  pthread_cond_init(&w->job, NULL);
  pthread_cond_init(&w->empty, NULL);
  atomic_store(&w->sleepers, 0);
  atomic_store(&w->waiting, false);
  atomic_store(&w->quit, false);
  atomic_store(&w->joined, 0);
  atomic_store(&w->state, 0);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (w->started < w->threads - 1) {
    if (pthread_create(&w->thread[w->started], NULL, worker_main, w) != 0) break;
    w->started++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (forked) marea_log(config, MAREA_LOG_INFO, "threads: lost by a fork, started anew");
  if (w->started < w->threads - 1)
    marea_log(config, MAREA_LOG_WARNING, "threads: the system gave %d of the %d asked for", w->started + 1,
              w->threads);
}

marea_status marea_workers_new (marea_context *ctx, int threads, marea_workers **out) {
  *out = NULL;
  void *raw = ctx->config.alloc(ctx->config.alloc_ud, NULL, 0, sizeof(marea_workers));
  if (!raw) return marea_fail(ctx, MAREA_ENOMEM, "out of memory for %d threads", threads);
  memset(raw, 0, sizeof(marea_workers));
  *out = raw;
  (*out)->ctx = ctx;
  (*out)->threads = threads;
  return MAREA_OK;
}

void marea_workers_free (marea_context *ctx, marea_workers *w) {
  if (!w) return;
  if (w->started && w->pid == getpid()) {
    pthread_mutex_lock(&w->mutex);
    atomic_store(&w->quit, true);
    pthread_cond_broadcast(&w->job);
    pthread_mutex_unlock(&w->mutex);
    for (int i = 0; i < w->started; i++) pthread_join(w->thread[i], NULL);
    pthread_cond_destroy(&w->job);
    pthread_cond_destroy(&w->empty);
    pthread_mutex_destroy(&w->mutex);
  }
  ctx->config.alloc(ctx->config.alloc_ud, w, sizeof *w, 0);
}

/* ---- the caller ---- */

static void open_job (marea_workers *w) {
  uint64_t job = atomic_load(&w->state) / JOB + 1;
  atomic_store(&w->state, job * JOB | OPEN);
  if (atomic_load(&w->sleepers) == 0) return;
  pthread_mutex_lock(&w->mutex);
  pthread_cond_broadcast(&w->job);
  pthread_mutex_unlock(&w->mutex);
}

static void close_job (marea_workers *w) {
  atomic_fetch_and(&w->state, ~OPEN);
  int64_t end = 0;
  for (int i = 0; atomic_load(&w->state) & INSIDE; i++) {
    relax();
    if (i % SPIN_STEP != SPIN_STEP - 1) continue;
    sched_yield();
    int64_t time = marea_clock_ns();
    if (!end) end = time + SPIN_NS;
    if (time > end) break;
  }
  if (!(atomic_load(&w->state) & INSIDE)) return;
  pthread_mutex_lock(&w->mutex);
  atomic_store(&w->waiting, true);
  while (atomic_load(&w->state) & INSIDE) pthread_cond_wait(&w->empty, &w->mutex);
  atomic_store(&w->waiting, false);
  pthread_mutex_unlock(&w->mutex);
}

/* The body of the host's parallel_for; the floating-point mode of its threads is not known. */
static void lend_thread (void *arg, int i) {
  const uint64_t mode = marea_enter_float_mode();
  run_blocks(arg, i);
  marea_leave_float_mode(mode);
}

void marea_parallel_if (marea_context *ctx, int64_t elements, int64_t blocks, marea_block_fn fn, void *arg) {
  if (elements > MAREA_BLOCK) marea_parallel(ctx, blocks, fn, arg);
  else if (!ctx->shape_only) run_serially(ctx, blocks, fn, arg, 0);
}

void marea_parallel (marea_context *ctx, int64_t blocks, marea_block_fn fn, void *arg) {
  marea_workers *w = ctx->workers;
  if (ctx->shape_only) return;
  if (blocks <= 1 || !w || w->threads == 1 || w->busy) {
    run_serially(ctx, blocks, fn, arg, 0);
    return;
  }
  const marea_config *host = &ctx->config;
  if (!host->parallel_for && w->pid != getpid()) start(w);
  w->caller = pthread_self();
  w->fn = fn;
  w->arg = arg;
  w->blocks = blocks;
  for (int t = 0; t < w->threads; t++)
    atomic_store_explicit(&w->range[t].next, t == 0 ? 0 : range_end(w, t - 1), memory_order_relaxed);
  w->busy = true;
  if (host->parallel_for) host->parallel_for(host->parallel_for_ud, w->threads, lend_thread, w);
  else {
    open_job(w);
    run_blocks(w, 0);
    close_job(w);
  }
  w->busy = false;
}
