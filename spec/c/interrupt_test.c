/* SPDX-License-Identifier: MIT
** interrupt_test.c: long work asks its host whether to stop, often enough, and stops without a trace: MAREA_EINTR, no
** block more in use, no gradient changed, the old file in its place and no other beside it.
*/
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../core/core.h"

static int failed;
static char folder[] = "/tmp/marea-interrupt-XXXXXX", path[64];

typedef struct host {
  int64_t asked, stop_at; /* stop_at 0: never */
} host;

static bool wants_stop (void *ud) {
  host *h = ud;
  h->asked++;
  return h->stop_at && h->asked >= h->stop_at;
}

/* ---- material ---- */

static marea_tensor *filled (marea_context *ctx, marea_dtype dtype, int rank, int64_t a, int64_t b, int64_t c,
                             double value) {
  marea_tensor *t;
  if (marea_empty(ctx, dtype, rank, (int64_t[]){a, b, c}, &t) != MAREA_OK) exit(2);
  marea_fill(ctx, t, &(marea_attr){.n = 1, .f = value});
  return t;
}

/* What a case works on; made before and released after it. */
static marea_tensor *in[3], *out;

static marea_status run (const marea_op *op, const marea_attr *attrs) {
  int n = 0;
  while (n < 3 && in[n]) n++;
  return marea_run_with(in[0]->ctx, op, attrs, &out, n, in[0], in[1], in[2]);
}

static void two_matrices (marea_context *ctx, int64_t m, int64_t k, int64_t n) {
  in[0] = filled(ctx, MAREA_F32, 2, m, k, 0, 1);
  in[1] = filled(ctx, MAREA_F32, 2, k, n, 0, 1);
}

static void square (marea_context *ctx) { two_matrices(ctx, 1024, 2048, 1024); }
static void tall (marea_context *ctx) { two_matrices(ctx, 60000, 256, 64); }
static void vector (marea_context *ctx) { in[0] = filled(ctx, MAREA_F32, 1, 500000, 0, 0, 0.5); }
static void whole (marea_context *ctx) { in[0] = filled(ctx, MAREA_I64, 1, 500000, 0, 0, 1); }
static void image (marea_context *ctx) { in[0] = filled(ctx, MAREA_F32, 3, 900, 900, 3, 0.5); }

static void additions (marea_context *ctx) {
  in[0] = filled(ctx, MAREA_F32, 1, 100, 0, 0, 0);
  in[1] = filled(ctx, MAREA_I64, 1, 100000, 0, 0, 7);
  in[2] = filled(ctx, MAREA_F32, 1, 100000, 0, 0, 1);
}

static void chain (marea_context *ctx) {
  marea_tensor *x = in[1] = filled(ctx, MAREA_F32, 1, 1, 0, 0, 1), *y = marea_retain(x);
  if (marea_require_grad(x, true) != MAREA_OK) exit(2);
  for (int i = 0; i < 500; i++) {
    marea_tensor *next;
    if (marea_run(ctx, &marea_op_add, &next, 2, y, x) != MAREA_OK) exit(2);
    marea_release(y);
    y = next;
  }
  in[0] = y;
}

/* ---- cases ---- */

static marea_status matmul (marea_context *ctx) {
  (void)ctx;
  return run(&marea_op_matmul, (marea_attr[]){{0}, {0}});
}

static marea_status cumsum (marea_context *ctx) {
  (void)ctx;
  return run(&marea_op_cumsum, (marea_attr[]){{0}, {0}});
}

static marea_status argmax (marea_context *ctx) {
  (void)ctx;
  return run(&marea_op_argmax, (marea_attr[]){{0}, {0}});
}

static marea_status sum_ints (marea_context *ctx) {
  marea_attr attrs[MAREA_MAX_ATTRS];
  (void)ctx;
  marea_attrs_init(&marea_op_sum, attrs);
  return run(&marea_op_sum, attrs);
}

static marea_status index_add (marea_context *ctx) {
  (void)ctx;
  return run(&marea_op_index_add, (marea_attr[]){{0}, {0}});
}

static marea_status permutation (marea_context *ctx) {
  return marea_run_with(ctx, &marea_op_permutation, (marea_attr[]){{.n = 1, .i = 200000}}, &out, 0);
}

static marea_status zeros (marea_context *ctx) {
  return marea_zeros(ctx, MAREA_F32, 1, (int64_t[]){32 << 20}, &out);
}

static marea_status backward (marea_context *ctx) {
  (void)ctx;
  return marea_backward(in[0], NULL, MAREA_RETAIN_GRAPH);
}

static marea_status save_npy (marea_context *ctx) {
  (void)ctx;
  return marea_save_npy(in[0], path);
}

static marea_status load_npy (marea_context *ctx) { return marea_load_npy(ctx, path, &out); }

static marea_status save_png (marea_context *ctx) {
  (void)ctx;
  return marea_save_png(in[0], path);
}

static marea_status load_png (marea_context *ctx) { return marea_load_png(ctx, path, &out); }

static marea_status save_jpeg (marea_context *ctx) {
  (void)ctx;
  return marea_save_jpeg(in[0], path, 90);
}

static marea_status load_jpeg (marea_context *ctx) { return marea_load_jpeg(ctx, path, 0, &out); }

static marea_status save (marea_context *ctx) {
  marea_file *f;
  marea_status status = marea_file_new(ctx, &f);
  if (status == MAREA_OK) status = marea_file_add(f, "t", in[0]);
  if (status == MAREA_OK) status = marea_file_save(f, path);
  marea_file_free(f);
  return status;
}

static marea_status load (marea_context *ctx) {
  marea_file *f;
  marea_status status = marea_file_load(ctx, path, &f);
  if (status == MAREA_OK) marea_file_free(f);
  return status;
}

typedef struct work {
  const char *name;
  void (*prepare)(marea_context *ctx);
  marea_status (*run)(marea_context *ctx);
  int64_t least; /* times that it asks */
} work;

static const work works[] = {
    {"product", square, matmul, 16},
    {"tall product", tall, matmul, 16},
    {"cumsum of one line", vector, cumsum, 100},
    {"argmax of one line", vector, argmax, 30},
    {"sum of integers", whole, sum_ints, 100},
    {"index_add to few places", additions, index_add, 40},
    {"permutation", NULL, permutation, 40},
    {"zeros", NULL, zeros, 100},
    {"backward through small operators", chain, backward, 500},
    {"save_npy", whole, save_npy, 4},
    {"load_npy", NULL, load_npy, 6},
    {"save", whole, save, 7},
    {"load", NULL, load, 10},
    {"save_png", image, save_png, 100},
    {"load_png", NULL, load_png, 2},
    {"save_jpeg", image, save_jpeg, 100},
    {"load_jpeg", NULL, load_jpeg, 10},
};

static void drop (marea_tensor **t) {
  marea_release(*t);
  *t = NULL;
}

/* Files in the folder: the one that was saved. */
static bool is_tidy (void) {
  int n = 0;
  DIR *dir = opendir(folder);
  while (dir && readdir(dir)) n++;
  if (dir) closedir(dir);
  return n <= 3;
}

static bool stops (const work *w, marea_context *ctx, host *h, int64_t at) {
  const uint64_t blocks = marea_memory(ctx).blocks;
  *h = (host){.stop_at = at};
  marea_status status = w->run(ctx);
  const bool graceful = status == MAREA_EINTR && marea_memory(ctx).blocks == blocks && is_tidy();
  if (status == MAREA_OK) drop(&out);
  h->stop_at = 0;
  return graceful && !(in[1] && marea_grad_of(in[1]));
}

static bool check (const work *w, marea_context *ctx, host *h) {
  if (w->prepare) w->prepare(ctx);
  *h = (host){0};
  bool ok = w->run(ctx) == MAREA_OK;
  const int64_t asked = h->asked;
  drop(&out);
  if (in[1]) marea_clear_grad(in[1]);
  ok = ok && asked >= w->least && stops(w, ctx, h, 1) && stops(w, ctx, h, asked / 2) &&
       stops(w, ctx, h, asked);
  ok = ok && w->run(ctx) == MAREA_OK; /* the file of a save is whole, and everything works as before */
  drop(&out);
  if (!ok) printf("  asked %lld times\n", (long long)asked);
  for (int i = 0; i < 3; i++) drop(&in[i]);
  return ok;
}

/* Changes in place and what is shielded by the host run to their end, and the request is seen afterwards. */
static bool shield_holds (marea_context *ctx, host *h) {
  vector(ctx);
  *h = (host){.stop_at = 1};
  bool ok = marea_apply_(ctx, &marea_op_exp, 1, in, NULL) == MAREA_OK && h->asked == 0;
  const bool before = marea_set_shielded(ctx, true);
  marea_interrupt(ctx);
  ok = ok && !before && marea_shielded(ctx) && marea_poll(ctx) == MAREA_OK;
  ok = ok && run(&marea_op_exp, NULL) == MAREA_OK;
  drop(&out);
  marea_set_shielded(ctx, before);
  ok = ok && run(&marea_op_exp, NULL) == MAREA_EINTR;
  drop(&in[0]);
  return ok;
}

int main (void) {
  host h = {0};
  marea_config config = {
      .size = sizeof config, .threads = 1, .interrupted = wants_stop, .interrupted_ud = &h};
  marea_context *ctx;
  if (!mkdtemp(folder) || marea_open(&config, &ctx) != MAREA_OK) return 2;
  snprintf(path, sizeof path, "%s/file", folder);
  for (int i = 0; i < MAREA_COUNT(works); i++) {
    const bool ok = check(&works[i], ctx, &h);
    printf("%s %s\n", ok ? "ok  " : "FAIL", works[i].name);
    failed += !ok;
  }
  const bool ok = shield_holds(ctx, &h);
  printf("%s shield\n", ok ? "ok  " : "FAIL");
  failed += !ok;
  marea_close(ctx);
  unlink(path);
  rmdir(folder);
  return failed > 0;
}
