/* SPDX-License-Identifier: MIT
** host_test.c: what a program in C relies on without Lua: versions, the host's threads, budgets, operators by name,
** memory of the host, and that every call leaves the floating-point mode, the locale, signal handlers, stdout and
** stderr as they were.
*/
#define _GNU_SOURCE
#include <fenv.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "marea.h"
#include "report.h"

static marea_context *open_with (marea_config config) {
  marea_context *ctx = NULL;
  config.size = sizeof config;
  if (marea_open(&config, &ctx) != MAREA_OK) exit(2);
  return ctx;
}

static double seconds (void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static marea_tensor *normal (marea_context *ctx, int rank, const int64_t *shape) {
  marea_tensor *t = NULL;
  const marea_named shape_of[] = {marea_ints("shape", rank, shape)};
  if (marea_call_op(ctx, "normal", MAREA_NO_TENSORS, 1, shape_of, 1, &t) != MAREA_OK) exit(2);
  return t;
}

/* ---- versions ---- */

static bool versions (void) {
  marea_context *ctx = (marea_context *)&failed;
  const marea_config config = {.size = sizeof config, .threads = -1};
  NEED(strcmp(marea_version(), MAREA_VERSION) == 0);
  NEED(marea_open(&config, &ctx) == MAREA_EARG && ctx == NULL);
  for (int s = MAREA_OK; s <= MAREA_EVERSION; s++) NEED(strlen(marea_status_text((marea_status)s)) > 5);
  NEED(strcmp(marea_status_text((marea_status)99), "unknown status") == 0);
  return true;
}

/* Of an older header: what lies behind `size` is not read, be it garbage, and has its default. */
static bool older_configs (void) {
  const size_t threads = offsetof(marea_config, threads), align = _Alignof(marea_config);
  for (size_t size = sizeof(size_t); size <= threads; size += align) {
    marea_config config = {.threads = -1, .index_base = 9, .isa = "none"};
    marea_context *ctx = NULL;
    config.size = size;
    NEED(marea_open(&config, &ctx) == MAREA_OK);
    NEED(marea_threads(ctx) >= 1 && marea_index_base(ctx) == 0);
    marea_close(ctx);
  }
  for (size_t size = threads + align; size <= sizeof(marea_config); size += align) {
    marea_config config = {.size = size, .threads = 1, .index_base = 1};
    marea_context *ctx = NULL;
    NEED(marea_open(&config, &ctx) == MAREA_OK);
    NEED(marea_threads(ctx) == 1 && marea_index_base(ctx) == 1);
    marea_close(ctx);
  }
  return true;
}

static void keep_line (void *ud, marea_log_level level, const char *text) {
  if (level == MAREA_LOG_WARNING) snprintf(ud, 200, "%s", text);
}

/* Of a newer header: taken while its further fields are at their defaults, which are 0. */
static bool newer_configs (void) {
  struct {
    marea_config config;
    void *more[2];
  } newer = {.config = {.size = sizeof newer, .index_base = 1}};
  char line[200] = "";
  marea_context *ctx = NULL;
  NEED(marea_open(&newer.config, &ctx) == MAREA_OK && marea_index_base(ctx) == 1);
  marea_close(ctx);
  newer.config.log = keep_line;
  newer.config.log_ud = line;
  newer.more[1] = line;
  NEED(marea_open(&newer.config, &ctx) == MAREA_EVERSION && ctx == NULL);
  NEED(strstr(line, "not 0"));
  return true;
}

/* What no header has: nothing, a part of a field, a number that was never set. */
static bool odd_configs (void) {
  const size_t sizes[] = {0, sizeof(size_t) - 1, sizeof(marea_config) - 1, sizeof(marea_config) + 1,
                          (size_t)-8};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    const marea_config config = {.size = sizes[i]};
    marea_context *ctx = (marea_context *)&failed;
    NEED(marea_open(&config, &ctx) == MAREA_EVERSION && ctx == NULL);
  }
  return true;
}

/* ---- the host's threads ---- */

typedef struct lender {
  bool threads; /* each call on a thread of its own, else all on the caller's, the last one first */
  int mode;     /* rounding mode of these threads */
  int calls, most;
} lender;

typedef struct loan {
  void (*body)(void *arg, int i);
  void *arg;
  int i, mode;
  bool kept; /* the mode was the same afterwards */
} loan;

static void *run_loan (void *arg) {
  loan *l = arg;
  fesetround(l->mode);
  l->body(l->arg, l->i);
  l->kept = fegetround() == l->mode;
  return NULL;
}

static void lend (void *ud, int n, void (*body)(void *arg, int i), void *arg) {
  lender *host = ud;
  loan loans[64];
  pthread_t thread[64];
  host->calls++;
  host->most = n > host->most ? n : host->most;
  for (int i = n - 1; i >= 0; i--) {
    loans[i] = (loan){body, arg, i, host->mode, true};
    if (!host->threads) body(arg, i);
    else if (pthread_create(&thread[i], NULL, run_loan, &loans[i]) != 0) exit(2);
  }
  for (int i = 0; i < n; i++) {
    if (host->threads) pthread_join(thread[i], NULL);
    if (!loans[i].kept) exit(2);
  }
}

/* One training step of a convolution; its weights' checksum. */
static double checksum_of_a_step (marea_context *ctx) {
  marea_seed(ctx, 3);
  marea_tensor *x = normal(ctx, 4, (int64_t[]){8, 28, 28, 4}), *w = normal(ctx, 4, (int64_t[]){3, 3, 4, 8});
  marea_tensor *y = NULL, *loss = NULL;
  bool ok = marea_require_grad(w, true) == MAREA_OK;
  ok = ok && marea_call_op(ctx, "conv2d", MAREA_TENSORS(x, w),
                           MAREA_NAMED(marea_word("padding", "same"), marea_word("activation", "tanh")), 1,
                           &y) == MAREA_OK;
  ok = ok && marea_call_op(ctx, "sum", MAREA_TENSORS(y), MAREA_NO_NAMES, 1, &loss) == MAREA_OK;
  ok = ok && marea_backward(loss, NULL, 0) == MAREA_OK;
  ok = ok && marea_call_op(ctx, "sgd_step", MAREA_TENSORS(w, marea_grad_of(w)),
                           MAREA_NAMED(marea_real("lr", 0.01)), 0, NULL) == MAREA_OK;
  if (!ok) printf("  %s\n", marea_error(ctx)), exit(2);
  double sum = 0;
  const float *at = marea_tensor_data(w);
  for (int64_t i = 0; i < marea_tensor_size(w); i++) sum += at[i] * (double)(i % 7 + 1);
  marea_release(loss), marea_release(y), marea_release(x), marea_release(w);
  return sum;
}

static bool lent_threads (void) {
  marea_context *own = open_with((marea_config){.threads = 1});
  double wanted = checksum_of_a_step(own);
  marea_close(own);
  for (int round = 0; round < 4; round++) {
    lender host = {.threads = round & 1, .mode = round & 2 ? FE_UPWARD : FE_TONEAREST};
    marea_context *ctx = open_with(
        (marea_config){.threads = 3, .parallel_for = lend, .parallel_for_ud = &host});
    double got = checksum_of_a_step(ctx);
    marea_close(ctx);
    NEED(got == wanted);
    NEED(host.calls > 3 && host.most == 3);
  }
  return true;
}

/* Jobs that the threads are given by running sums of each row, products of each pair of matrices, and -1: one failed. */
static int jobs_of_rows (int64_t rows, int64_t n) {
  lender host = {.mode = FE_TONEAREST};
  marea_context *ctx = open_with(
      (marea_config){.threads = 2, .parallel_for = lend, .parallel_for_ud = &host});
  marea_tensor *x = normal(ctx, 2, (int64_t[]){rows, n}), *a = normal(ctx, 3, (int64_t[]){rows, 2, n});
  marea_tensor *b = normal(ctx, 3, (int64_t[]){rows, n, 2}), *y = NULL, *c = NULL;
  host.calls = 0;
  bool ok = marea_call_op(ctx, "cumsum", MAREA_TENSORS(x), MAREA_NAMED(marea_int("dim", 1)), 1, &y) ==
            MAREA_OK;
  ok = ok && marea_call_op(ctx, "matmul", MAREA_TENSORS(a, b), MAREA_NO_NAMES, 1, &c) == MAREA_OK;
  marea_release(x), marea_release(a), marea_release(b), marea_release(y), marea_release(c);
  marea_close(ctx);
  return ok ? host.calls : -1;
}

static bool few_rows_stay (void) {
  NEED(jobs_of_rows(32, 8) == 0);
  NEED(jobs_of_rows(3000, 80) >= 2);
  return true;
}

static bool stop_now (void *ud) { return ++*(int *)ud > 20; } /* it starts far below 0 until it is armed */

/* The host is asked on its own thread, which does work here too. */
static bool lent_threads_stop (void) {
  int asked = -1000000;
  lender host = {.threads = false, .mode = FE_TONEAREST};
  marea_context *ctx = open_with((marea_config){.threads = 2,
                                                .parallel_for = lend,
                                                .parallel_for_ud = &host,
                                                .interrupted = stop_now,
                                                .interrupted_ud = &asked});
  marea_tensor *a = normal(ctx, 1, (int64_t[]){100000}), *b = NULL;
  marea_status status = MAREA_OK;
  asked = 0;
  for (int i = 0; i < 50 && status == MAREA_OK; i++) {
    status = marea_call_op(ctx, "exp", MAREA_TENSORS(a), MAREA_NO_NAMES, 1, &b);
    marea_release(b);
  }
  marea_release(a);
  marea_close(ctx);
  NEED(status == MAREA_EINTR && asked > 20);
  return true;
}

/* ---- budgets ---- */

static marea_status square (marea_context *ctx, int64_t n) {
  marea_tensor *a = normal(ctx, 2, (int64_t[]){n, n}), *b = NULL;
  marea_status status = marea_call_op(ctx, "matmul", MAREA_TENSORS(a, a), MAREA_NO_NAMES, 1, &b);
  marea_release(a);
  marea_release(b);
  return status;
}

static bool flop_budget (void) {
  marea_context *ctx = open_with((marea_config){.threads = 2});
  marea_tensor *x = normal(ctx, 1, (int64_t[]){1000}), *y = NULL;
  marea_limit_flop(ctx, 3e6); /* 10,000 numbers and 2e6 of the product of 100 x 100 x 100, once */
  NEED(square(ctx, 100) == MAREA_OK);
  size_t live = marea_memory(ctx).live;
  float before;
  memcpy(&before, marea_tensor_data(x), sizeof before);
  NEED(marea_call_op(ctx, "matmul", MAREA_TENSORS(x, x), MAREA_NO_NAMES, 1, &y) == MAREA_OK);
  marea_release(y);
  marea_limit_flop(ctx, 999);
  NEED(marea_call_op(ctx, "mul_", MAREA_TENSORS(x, x), MAREA_NO_NAMES, 0, NULL) == MAREA_EBUDGET);
  NEED(memcmp(&before, marea_tensor_data(x), sizeof before) == 0);
  NEED(strstr(marea_error(ctx), "mul: the limit of 999 floating-point operations is reached: 1000 wanted"));
  NEED(marea_call_op(ctx, "clone", MAREA_TENSORS(x), MAREA_NO_NAMES, 1, &y) == MAREA_EBUDGET && !y);
  NEED(marea_call_op(ctx, "sgd_step", MAREA_TENSORS(x, x), MAREA_NAMED(marea_real("lr", 1)), 0, NULL) ==
       MAREA_EBUDGET);
  NEED(memcmp(&before, marea_tensor_data(x), sizeof before) == 0);
  NEED(marea_memory(ctx).live == live);
  marea_limit_flop(ctx, 0);
  NEED(square(ctx, 300) == MAREA_OK);
  marea_release(x);
  marea_close(ctx);
  return true;
}

/* Seconds beyond its limit that a product of seconds went on for; -1: it did not end as it should. */
static double overtime (int threads) {
  const double limit = 0.05;
  marea_context *ctx = open_with((marea_config){.threads = threads});
  marea_tensor *a, *b = NULL;
  bool ok = marea_zeros(ctx, MAREA_F32, 2, (int64_t[]){4000, 4000}, &a) == MAREA_OK;
  double start = seconds();
  marea_limit_time(ctx, limit);
  ok = ok && marea_call_op(ctx, "matmul", MAREA_TENSORS(a, a), MAREA_NO_NAMES, 1, &b) == MAREA_EBUDGET;
  double late = seconds() - start - limit;
  ok = ok && strstr(marea_error(ctx), "matmul: the time limit of 0.05 s is reached");
  ok = ok && marea_call_op(ctx, "neg_", MAREA_TENSORS(a), MAREA_NO_NAMES, 0, NULL) == MAREA_EBUDGET;
  marea_limit_time(ctx, 0);
  ok = ok && square(ctx, 50) == MAREA_OK;
  marea_release(a);
  marea_close(ctx);
  return ok ? late : -1;
}

/* The machine may be busy: the best of some tries counts. */
static bool time_budget (void) {
  for (int threads = 1; threads <= 2; threads++) {
    double least = 1e9;
    for (int i = 0; i < 8 && least > 0.2; i++) {
      double late = overtime(threads);
      NEED(late >= 0);
      least = late < least ? late : least;
    }
    if (least > 0.2) printf("  %d threads: stopped %.3f s late\n", threads, least);
    NEED(least <= 0.2);
  }
  return true;
}

/* ---- calls by name ---- */

static bool calls_by_name (void) {
  marea_context *ctx = open_with((marea_config){.threads = 1});
  marea_tensor *x = normal(ctx, 4, (int64_t[]){1, 6, 6, 2}), *w = normal(ctx, 4, (int64_t[]){3, 3, 2, 5}), *y;
  const struct {
    marea_named named;
    const char *message; /* NULL: fine */
  } with[] = {
      {marea_int("stride", 2), NULL},
      {marea_ints("stride", 2, (int64_t[]){1, 2}), NULL},
      {marea_word("padding", "same"), NULL},
      {marea_word("padding", "valid"), NULL},
      {marea_int("padding", 1), NULL},
      {marea_ints("padding", 2, (int64_t[]){1, 0}), NULL},
      {marea_ints("padding", 4, (int64_t[]){0, 1, 0, 1}), NULL},
      {marea_word("activation", "relu"), NULL},
      {marea_int("slope", 0), NULL},
      {marea_word("padding", "some"),
       "conv2d: argument 'padding': expected an integer, a list of 2 or 4, same or valid, got 'some'"},
      {marea_ints("stride", 3, (int64_t[]){1, 1, 1}), "expected an integer or a list of 2, got a list of 3"},
      {marea_ints("stride", 99, (int64_t[]){1, 1, 1, 1, 1, 1, 1, 1}), "got a list of 99"},
      {marea_real("stride", 2), "conv2d: argument 'stride': expected an integer or a list of 2, "
                                "got the real number 2; marea_int makes an integer"},
      {marea_real("groups", 1.5), "'groups': expected an integer, got the real number 1.5; marea_int makes"},
      {marea_int("activation", 99), "|relu6, got 99"},
      {marea_word("activation", "reluu"), "got 'reluu'"},
      {marea_word("slope", "big"), "expected a number, got 'big'"},
      {marea_int("strides", 1), "conv2d: unknown argument 'strides'"},
  };
  for (size_t i = 0; i < sizeof with / sizeof with[0]; i++) {
    marea_status status = marea_call_op(ctx, "conv2d", MAREA_TENSORS(x, w), 1, &with[i].named, 1, &y);
    if ((status == MAREA_OK) != !with[i].message || (status && !strstr(marea_error(ctx), with[i].message)))
      return printf("  case %zu: %s\n", i, marea_error(ctx)), false;
    marea_release(y);
  }
  NEED(marea_call_op(ctx, "conv3d", MAREA_TENSORS(x), MAREA_NO_NAMES, 1, &y) == MAREA_EARG && !y);
  NEED(strcmp(marea_error(ctx), "call: there is no operator 'conv3d'") == 0);
  NEED(marea_call_op(ctx, "full", MAREA_NO_TENSORS, MAREA_NAMED(marea_int("value", 1)), 1, &y) == MAREA_EARG);
  NEED(strcmp(marea_error(ctx), "full: argument 'shape': expected a list of at most 8 sizes, got nothing") ==
       0);
  NEED(marea_call_op(ctx, "add", MAREA_TENSORS(x), MAREA_NO_NAMES, 1, &y) == MAREA_EARG);
  NEED(marea_call_op(ctx, "sum", MAREA_TENSORS(x), MAREA_NAMED(marea_ints("dims", 1, (int64_t[]){-1})), 1,
                     &y) == MAREA_OK);
  NEED(marea_tensor_rank(y) == 3);
  marea_release(y);
  marea_tensor *pair[3]; /* of three results one is wanted; then there is one where three are wanted */
  NEED(marea_call_op(ctx, "split", MAREA_TENSORS(x), MAREA_NAMED(marea_int("size", 2), marea_int("dim", 1)),
                     1, pair) == MAREA_OK);
  marea_release(pair[0]);
  NEED(marea_call_op(ctx, "cast", MAREA_TENSORS(x), MAREA_NAMED(marea_word("dtype", "f64")), 3, pair) ==
       MAREA_OK);
  NEED(marea_tensor_dtype(pair[0]) == MAREA_F64 && !pair[1] && !pair[2]);
  marea_release(pair[0]);
  marea_release(x);
  marea_release(w);
  NEED(marea_memory(ctx).blocks == 0);
  marea_close(ctx);
  return true;
}

/* ---- autocast ---- */

static marea_tensor *product (marea_tensor *x, marea_tensor *w) {
  marea_context *ctx = marea_tensor_context(w);
  marea_tensor *y = NULL;
  if (marea_call_op(ctx, "matmul", MAREA_TENSORS(x, w), MAREA_NO_NAMES, 1, &y) != MAREA_OK) return NULL;
  return y;
}

static bool autocast (void) {
  marea_context *ctx = open_with((marea_config){.threads = 1});
  marea_tensor *x = normal(ctx, 2, (int64_t[]){4, 8}), *w = normal(ctx, 2, (int64_t[]){8, 8}), *sum;
  NEED(marea_require_grad(w, true) == MAREA_OK && marea_autocast(ctx) == -1);
  NEED(marea_set_autocast(ctx, MAREA_BF16) == -1 && marea_autocast(ctx) == MAREA_BF16);
  marea_tensor *h = product(x, w), *y = product(h, w);
  NEED(h && y && marea_tensor_dtype(h) == MAREA_BF16 && marea_tensor_dtype(y) == MAREA_BF16);
  NEED(marea_call_op(ctx, "sum", MAREA_TENSORS(y), MAREA_NO_NAMES, 1, &sum) == MAREA_OK);
  NEED(marea_tensor_dtype(sum) == MAREA_F32 && marea_backward(sum, NULL, 0) == MAREA_OK);
  NEED(marea_tensor_dtype(marea_grad_of(w)) == MAREA_F32 && marea_autocast(ctx) == MAREA_BF16);
  NEED(marea_set_autocast(ctx, MAREA_F16) == MAREA_BF16 && marea_set_autocast(ctx, MAREA_F32) == MAREA_F16);
  NEED(marea_set_autocast(ctx, 99) == -1 && marea_set_autocast(ctx, -7) == -1);
  NEED(marea_autocast(NULL) == -1 && marea_set_autocast(NULL, MAREA_BF16) == -1);
  marea_release(h), marea_release(y), marea_release(sum), marea_release(x), marea_release(w);
  NEED(marea_memory(ctx).blocks == 0);
  marea_close(ctx);
  return true;
}

/* The allocator's calls from the n-th from now on fail; 0: none does. */
static void *failing_alloc (void *ud, void *p, size_t old, size_t size) {
  int *left = ud;
  (void)old;
  if (size == 0) {
    free(p);
    return NULL;
  }
  if (*left == 1) return NULL;
  if (*left > 1) --*left;
  return realloc(p, size);
}

/* At whatever call memory runs out, nothing is lost, and the next attempt gives the same. The casts are of 8 MB. */
static bool autocast_out_of_memory (void) {
  double wanted = 0;
  bool failed_once = false;
  for (int at = 0;; at++) {
    int left = 0;
    marea_context *ctx = open_with((marea_config){.threads = 1, .alloc = failing_alloc, .alloc_ud = &left});
    marea_tensor *x = normal(ctx, 2, (int64_t[]){4, 2048}), *w = normal(ctx, 2, (int64_t[]){2048, 2048});
    NEED(marea_require_grad(w, true) == MAREA_OK && marea_set_autocast(ctx, MAREA_BF16) == -1);
    left = at;
    marea_tensor *y = product(x, w);
    const bool done = left > 1;
    left = 0;
    failed_once |= !y;
    if (!y) y = product(x, w);
    NEED(y);
    const double first = marea_number_at(MAREA_BF16, marea_tensor_data(y));
    if (at == 0) wanted = first;
    NEED(first == wanted);
    marea_release(x), marea_release(y), marea_release(w);
    if (at % 2) marea_set_autocast(ctx, -1); /* else the end of the context drops what is kept */
    NEED(at % 2 == 0 || marea_memory(ctx).blocks == 0);
    marea_close(ctx);
    if (done) return failed_once;
  }
}

/* ---- the host's state ---- */

typedef struct surroundings {
  int rounding;
  unsigned control;
  char locale[200];
  struct sigaction action[32];
} surroundings;

static void look (surroundings *s) {
  memset(s, 0, sizeof *s);
  s->rounding = fegetround();
#if defined(__x86_64__)
  s->control = __builtin_ia32_stmxcsr() & 0xffc0;
#endif
  snprintf(s->locale, sizeof s->locale, "%s", setlocale(LC_ALL, NULL));
  for (int i = 1; i < 32; i++) sigaction(i, NULL, &s->action[i]);
}

static bool same_handlers (const surroundings *a, const surroundings *b) {
  for (int i = 1; i < 32; i++)
    if (a->action[i].sa_handler != b->action[i].sa_handler) return false;
  return true;
}

static char path[64];

/* Every public function once at least. */
static void call_all (void) {
  marea_context *ctx = open_with((marea_config){.threads = 2, .max_bytes = (size_t)1 << 30});
  marea_tensor *a, *b, *c = NULL, *grads[1];
  marea_profile *profile;
  marea_file *file;
  float memory[4] = {1, 2, 3, 4};
  const char *key, *value;
  size_t n;
  bool ok = marea_profile_start(ctx, 100, &profile) == MAREA_OK;
  marea_set_layer(ctx, 1);
  marea_limit_flop(ctx, 1e12), marea_limit_time(ctx, 60);
  ok &= marea_from_memory(ctx, MAREA_F32, 2, (int64_t[]){2, 2}, memory, NULL, NULL, &a) == MAREA_OK;
  ok &= marea_empty(ctx, MAREA_F32, 1, (int64_t[]){100000}, &b) == MAREA_OK;
  marea_release(b);
  ok &= marea_require_grad(a, true) == MAREA_OK && marea_requires_grad(a) && marea_is_leaf(a);
  ok &= marea_call_op(ctx, "sum", MAREA_TENSORS(a), MAREA_NO_NAMES, 1, &b) == MAREA_OK;
  ok &= marea_grad(b, NULL, 1, &a, MAREA_RETAIN_GRAPH, grads) == MAREA_OK;
  marea_release(grads[0]);
  marea_profile_pause(profile), marea_profile_resume(profile);
  ok &= marea_backward(b, NULL, 0) == MAREA_OK && marea_grad_of(a) && marea_tape_length(ctx) < 10;
  marea_clear_grad(a);
  ok &= marea_require_grad(a, false) == MAREA_OK && marea_detach(a, &c) == MAREA_OK;
  ok &= marea_copy(c, a) == MAREA_OK && marea_tensor_shares(a, c) && marea_tensor_contiguous(a);
  marea_release(c), marea_release(b);
  marea_seed(ctx, 1), marea_set_random(ctx, marea_random(ctx));
  ok &= marea_set_recording(ctx, true) && marea_recording(ctx);
  ok &= marea_set_autocast(ctx, -1) == marea_autocast(ctx);
  ok &= marea_file_new(ctx, &file) == MAREA_OK && marea_file_add(file, "a", a) == MAREA_OK;
  ok &= marea_file_add_text(file, "k", "1.5") == MAREA_OK && marea_file_save(file, path) == MAREA_OK;
  marea_file_free(file);
  ok &= marea_file_load(ctx, path, &file) == MAREA_OK && marea_file_count(file) == 1;
  marea_file_text(file, 0, &key, &value);
  ok &= strcmp(value, "1.5") == 0 && marea_file_text_count(file) == 1 && marea_file_name(file, 0) &&
        marea_file_tensor(file, 0);
  marea_file_free(file);
  ok &= marea_save_npy(a, path) == MAREA_OK && marea_load_npy(ctx, path, &b) == MAREA_OK;
  marea_release(b);
  ok &= marea_save_png(a, path) == MAREA_OK && marea_load_png(ctx, path, &b) == MAREA_OK;
  marea_release(b);
  ok &= marea_load_idx(ctx, path, &b) == MAREA_EFORMAT && *marea_error(ctx);
  ok &= marea_file_load(ctx, "/nowhere/x", &file) == MAREA_EIO;
  marea_profile_rows(profile, &n), marea_profile_events(profile, &n), marea_profile_times(profile);
  marea_profile_stop(profile), marea_profile_free(profile);
  ok &= marea_set_threads(ctx, 3) == MAREA_OK && marea_threads(ctx) == 3;
  ok &= checksum_of_a_step(ctx) != 0 && marea_isa(ctx) && marea_blas();
  marea_interrupt(ctx);
  ok &= marea_call_op(ctx, "exp", MAREA_TENSORS(a), MAREA_NO_NAMES, 1, &b) == MAREA_EINTR;
  marea_memory_reset_peak(ctx), marea_memory_limit(ctx, 0), marea_memory_trim(ctx),
      marea_memory_fail(ctx, 0, false);
  for (int i = 0; i < marea_op_count(); i++) {
    const marea_op *op = marea_op_at(i);
    const marea_input_spec *inputs;
    const marea_attr_spec *specs;
    marea_attr attrs[MAREA_MAX_ATTRS];
    marea_tensor *in[12] = {a, a, a, a, a, a, a, a, a, a, a, a}, *out[MAREA_MAX_OUT];
    int n_out, n_in = marea_op_inputs(op, &inputs);
    marea_op_attrs(op, &specs), marea_attrs_init(op, attrs);
    marea_op_doc(op), marea_op_family(op), marea_op_sample(op), marea_op_differentiable(op),
        marea_op_once(op), marea_op_takes_numbers(op);
    if (marea_op_mutates(op) || marea_apply(ctx, op, n_in, in, attrs, out, &n_out) != MAREA_OK) continue;
    for (int k = 0; k < n_out; k++) marea_release(out[k]);
  }
  marea_release(marea_retain(a)), marea_release(a);
  if (!ok || marea_memory(ctx).blocks) printf("  a call did not work: %s\n", marea_error(ctx)), failed++;
  marea_close(ctx);
}

static bool leaves_the_host_alone (int rounding) {
  surroundings before, after;
  char printed[64];
  fflush(stdout);
  snprintf(printed, sizeof printed, "/tmp/marea_printed_%d", (int)getpid());
  int out = dup(1), err = dup(2);
  if (!freopen(printed, "w+", stdout)) return false;
  dup2(fileno(stdout), 2);
  fesetround(rounding);
  look(&before);
  call_all();
  look(&after);
  fesetround(FE_TONEAREST);
  fflush(stdout);
  long size = lseek(1, 0, SEEK_END);
  dup2(out, 1), dup2(err, 2), close(out), close(err);
  unlink(printed);
  NEED(size == 0);
  NEED(before.rounding == after.rounding && before.control == after.control);
  NEED(strcmp(before.locale, after.locale) == 0);
  NEED(same_handlers(&before, &after));
  return true;
}

/* Traps on, denormals flushed, rounding up: results are those of the plain mode, and no signal comes. */
static bool computes_in_its_own_mode (void) {
  marea_context *ctx = open_with((marea_config){.threads = 2});
  double plain = checksum_of_a_step(ctx);
  fesetround(FE_UPWARD);
  feenableexcept(FE_DIVBYZERO | FE_INVALID | FE_INEXACT);
#if defined(__x86_64__)
  unsigned mode = __builtin_ia32_stmxcsr() | 0x8040;
  __builtin_ia32_ldmxcsr(mode);
#endif
  marea_tensor *x, *y = NULL, *z = NULL;
  bool ok = marea_zeros(ctx, MAREA_F32, 1, (int64_t[]){9}, &x) == MAREA_OK;
  ok = ok && marea_call_op(ctx, "log", MAREA_TENSORS(x), MAREA_NO_NAMES, 1, &y) == MAREA_OK;
  ok = ok && marea_call_op(ctx, "sqrt", MAREA_TENSORS(y), MAREA_NO_NAMES, 1, &z) == MAREA_OK;
  marea_release(x), marea_release(y), marea_release(z);
  fedisableexcept(FE_ALL_EXCEPT);
  double got = checksum_of_a_step(ctx);
#if defined(__x86_64__)
  ok = ok && (__builtin_ia32_stmxcsr() & 0x8040) == 0x8040;
  __builtin_ia32_ldmxcsr(0x1f80);
#endif
  fesetenv(FE_DFL_ENV);
  marea_close(ctx);
  NEED(ok);
  NEED(fabs(got - plain) <= 1e-12 * fabs(plain)); /* the test's own sum rounds up */
  return true;
}

int main (void) {
  snprintf(path, sizeof path, "/tmp/marea_host_%d", (int)getpid());
  report("versions and statuses", versions());
  report("configs of older headers", older_configs());
  report("configs of newer headers", newer_configs());
  report("configs of no header", odd_configs());
  report("threads of the host", lent_threads());
  report("few rows stay on one thread", few_rows_stay());
  report("threads of the host, interrupted", lent_threads_stop());
  report("operations are limited", flop_budget());
  report("time is limited", time_budget());
  report("operators and attributes by name", calls_by_name());
  report("autocast", autocast());
  report("autocast, out of memory", autocast_out_of_memory());
  report("nothing of the host is changed", leaves_the_host_alone(FE_TONEAREST));
  report("nothing of the host is changed, rounding up", leaves_the_host_alone(FE_UPWARD));
  report("computes in a mode of its own", computes_in_its_own_mode());
  unlink(path);
  return failed > 0;
}
