/* SPDX-License-Identifier: MIT
** trace_test.c: a network that a host makes of calls of operators goes out as ONNX and comes back: the same bits, with
** positions that count from 0; the k-th request for memory refused, for every k, with nothing left behind; and what a
** trace refuses.
*/
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "marea.h"
#include "report.h"

typedef struct budget {
  long left; /* requests until one is refused; 0: never */
  long blocks;
} budget;

static void *allocate (void *ud, void *p, size_t old, size_t size) {
  budget *b = ud;
  (void)old;
  if (size == 0) {
    b->blocks -= p != NULL;
    free(p);
    return NULL;
  }
  if (b->left && --b->left == 0) return NULL;
  void *q = realloc(p, size);
  b->blocks += q && !p;
  return q;
}

enum { X, WORDS, KERNEL, TABLE, INPUTS };

typedef struct world {
  marea_context *ctx;
  marea_tensor *in[INPUTS], *y, *best;
  marea_trace *trace;
  char path[64];
} world;

static marea_status draw (marea_context *ctx, const char *op, int rank, const int64_t *shape, double low,
                          double high, marea_tensor **out) {
  return marea_call_op(
      ctx, op, MAREA_NO_TENSORS,
      MAREA_NAMED(marea_ints("shape", rank, shape), marea_real("low", low), marea_real("high", high)), 1,
      out);
}

static marea_status make_inputs (world *w) {
  static const int64_t image[] = {2, 6, 6, 3}, kernel[] = {3, 3, 3, 4}, words[] = {2, 5}, table[] = {9, 4};
  marea_status status = draw(w->ctx, "uniform", 4, image, -1, 1, &w->in[X]);
  if (status == MAREA_OK) status = draw(w->ctx, "uniform", 4, kernel, -1, 1, &w->in[KERNEL]);
  if (status == MAREA_OK) status = draw(w->ctx, "uniform", 2, table, -1, 1, &w->in[TABLE]);
  if (status != MAREA_OK) return status;
  return marea_call_op(w->ctx, "randint", MAREA_NO_TENSORS,
                       MAREA_NAMED(marea_ints("shape", 2, words), marea_int("low", 0), marea_int("high", 8)),
                       1, &w->in[WORDS]);
}

/* relu(conv2d(x)) summed over the image, plus the mean of rows of the table; and where the largest element is */
static marea_status run (world *w) {
  marea_tensor *t[5] = {NULL};
  marea_status status = marea_call_op(
      w->ctx, "conv2d", MAREA_TENSORS(w->in[X], w->in[KERNEL]),
      MAREA_NAMED(marea_word("padding", "same"), marea_word("activation", "relu")), 1, &t[0]);
  if (status == MAREA_OK)
    status = marea_call_op(w->ctx, "sum", MAREA_TENSORS(t[0]),
                           MAREA_NAMED(marea_ints("dims", 2, (int64_t[]){1, 2})), 1, &t[1]);
  if (status == MAREA_OK)
    status = marea_call_op(w->ctx, "embedding", MAREA_TENSORS(w->in[TABLE], w->in[WORDS]), MAREA_NO_NAMES, 1,
                           &t[2]);
  if (status == MAREA_OK)
    status = marea_call_op(w->ctx, "mean", MAREA_TENSORS(t[2]),
                           MAREA_NAMED(marea_ints("dims", 1, (int64_t[]){1})), 1, &t[3]);
  if (status == MAREA_OK)
    status = marea_call_op(w->ctx, "add", MAREA_TENSORS(t[1], t[3]), MAREA_NO_NAMES, 1, &w->y);
  if (status == MAREA_OK)
    status = marea_call_op(w->ctx, "argmax", MAREA_TENSORS(w->y), MAREA_NAMED(marea_int("dim", 1)), 1,
                           &w->best);
  for (int i = 0; i < 5; i++) marea_release(t[i]);
  return status;
}

static const char *const inputs[] = {"image", "words"}, *const results[] = {"y", "best"};
static const char *const weights[] = {"kernel", "table"};

static marea_status trace_and_save (world *w) {
  marea_onnx_names names = {
      .inputs = inputs, .results = results, .n_weights = 2, .weights = weights, .tensors = &w->in[KERNEL]};
  marea_status status = marea_trace_start(w->ctx, 2, w->in);
  if (status == MAREA_OK) status = run(w);
  if (status != MAREA_OK) {
    marea_trace_drop(w->ctx);
    return status;
  }
  status = marea_trace_stop(w->ctx, MAREA_TENSORS(w->y, w->best), &w->trace);
  return status == MAREA_OK ? marea_onnx_save(w->trace, &names, w->path) : status;
}

static void put_away (world *w) {
  for (int i = 0; i < INPUTS; i++) marea_release(w->in[i]);
  marea_release(w->y);
  marea_release(w->best);
  marea_trace_free(w->trace);
  marea_close(w->ctx);
  unlink(w->path);
}

static marea_status begin (world *w, budget *b) {
  const marea_config config = {.size = sizeof config, .alloc = allocate, .alloc_ud = b, .threads = 1};
  *w = (world){.path = "/tmp/marea-trace-XXXXXX"};
  const int fd = mkstemp(w->path);
  if (fd >= 0) close(fd);
  const marea_status status = marea_open(&config, &w->ctx);
  return status == MAREA_OK ? make_inputs(w) : status;
}

static bool comes_back (void) {
  budget b = {0, 0};
  world w;
  marea_graph *g;
  marea_graph_weight weight;
  marea_tensor *out[2];
  NEED(begin(&w, &b) == MAREA_OK);
  NEED(trace_and_save(&w) == MAREA_OK);
  NEED(marea_onnx_load(w.ctx, w.path, &g) == MAREA_OK);
  NEED(marea_graph_weight_at(g, 0, &weight) && strcmp(weight.name, "kernel") == 0);
  NEED(marea_graph_run(g, 2, w.in, 2, out) == MAREA_OK);
  NEED(memcmp(marea_tensor_data(out[0]), marea_tensor_data(w.y), 8 * sizeof(float)) == 0);
  NEED(memcmp(marea_tensor_data(out[1]), marea_tensor_data(w.best), 2 * sizeof(int64_t)) == 0);
  marea_release(out[0]);
  marea_release(out[1]);
  marea_graph_free(g);
  put_away(&w);
  NEED(b.blocks == 0);
  return true;
}

static bool bears_lack_of_memory (void) {
  for (long k = 1;; k++) {
    budget b = {0, 0};
    world w;
    NEED(begin(&w, &b) == MAREA_OK);
    b.left = k;
    const marea_status status = trace_and_save(&w);
    const bool refused = b.left == 0;
    b.left = 0;
    put_away(&w);
    NEED(b.blocks == 0);
    if (!refused) {
      NEED(status == MAREA_OK && k > 5);
      return true;
    }
    NEED(status == MAREA_ENOMEM || status == MAREA_OK); /* the pool may find room elsewhere */
  }
}

static bool refuses (void) {
  budget b = {0, 0};
  world w;
  marea_onnx_names none = {0};
  NEED(begin(&w, &b) == MAREA_OK);
  NEED(marea_trace_stop(w.ctx, 0, NULL, &w.trace) == MAREA_ESTATE);
  NEED(marea_trace_start(w.ctx, 2, w.in) == MAREA_OK);
  NEED(marea_trace_start(w.ctx, 2, w.in) == MAREA_ESTATE);
  NEED(marea_call_op(w.ctx, "relu_", MAREA_TENSORS(w.in[X]), MAREA_NO_NAMES, 0, NULL) == MAREA_ESTATE);
  NEED(strstr(marea_error(w.ctx), "relu: it changes a tensor in place"));
  NEED(run(&w) == MAREA_OK);
  NEED(marea_trace_stop(w.ctx, MAREA_TENSORS(w.y, w.best), &w.trace) == MAREA_OK);
  NEED(marea_onnx_save(w.trace, &none, w.path) == MAREA_EARG);
  NEED(marea_onnx_save(NULL, &none, w.path) == MAREA_EARG);
  NEED(marea_trace_start(w.ctx, MAREA_TENSORS(w.in[X])) == MAREA_OK); /* left to marea_close */
  put_away(&w);
  NEED(b.blocks == 0);
  return true;
}

int main (void) {
  report("a network goes out and comes back", comes_back());
  report("every request for memory refused", bears_lack_of_memory());
  report("what a trace refuses", refuses());
  return failed != 0;
}
