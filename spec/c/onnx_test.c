/* SPDX-License-Identifier: MIT
** onnx_test.c: runs the models of ONNX's own test suite, as Debian's libonnx-testdata installs it, and compares their
** results with the files beside them.
**
**   onnx_test FOLDER...
**
** A folder holds model.onnx and test_data_set_0, 1, ... with input_0.pb, output_0.pb, ... One line a model is printed:
** "equal NAME", "drawn NAME" (random numbers), "refused NAME: why" or "WRONG NAME: why"; at the end how many there were of each. It exits with 1 when
** something was wrong.
*/
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../core/io/io.h"
#include "../../core/onnx/model.h"

#define MOST 16
#define RELATIVE 1e-3 /* the suite's own tolerances */
#define ABSOLUTE 1e-7

static int equal, drawn, refused, wrong;

static const struct {
  const char *name, *why;
} contradictions[] = {
    {"test_adam_multiple",
     "its results were made with an epsilon of 0.01, and the model leaves it out, so it is 1e-6"},
};

static const char *name_of (const char *folder) {
  const char *slash = strrchr(folder, '/');
  return slash ? slash + 1 : folder;
}

static void refuse (const char *folder, const char *why) {
  refused++;
  printf("refused %s: %s\n", name_of(folder), why);
}

static void blame (const char *folder, const char *why) {
  wrong++;
  printf("WRONG %s: %s\n", name_of(folder), why);
}

/* NULL: there is no such file. */
static marea_tensor *read_tensor (marea_context *ctx, const char *folder, int set, const char *kind, int i,
                                  const marea_graph_port *port) {
  char path[1024];
  uint8_t *bytes;
  size_t n;
  marea_tensor *t = NULL;
  ProtobufCAllocator allocator = marea_onnx_allocator(ctx);
  snprintf(path, sizeof path, "%s/test_data_set_%d/%s_%d.pb", folder, set, kind, i);
  if (marea_read_file(ctx, "onnx_test", path, &bytes, &n) != MAREA_OK) return NULL;
  Marea__TensorProto *proto = marea__tensor_proto__unpack(&allocator, n, bytes);
  /* The suite writes elements of bfloat16 as their bits, in uint16. */
  if (proto && port->dtype == MAREA_BF16 && proto->data_type == ONNX_UINT16) proto->data_type = ONNX_BFLOAT16;
  if (proto && marea_onnx_read_tensor(ctx, NULL, proto, &t) != MAREA_OK) printf("# %s\n", marea_error(ctx));
  marea__tensor_proto__free_unpacked(proto, &allocator);
  marea_free(ctx, bytes);
  return t;
}

/* bfloat16 has 8 digits, and the suite cuts the others off where Marea rounds. */
static bool close_to (double a, double b, int dtype) {
  const double relative = dtype == MAREA_BF16 ? 0x1p-7 : RELATIVE;
  if (isnan(b)) return isnan(a);
  if (a == b) return true;
  return fabs(a - b) <= ABSOLUTE + relative * fabs(b);
}

/* NULL, or how the results in the files cannot be those of the model. */
static const char *contradiction (const char *folder) {
  for (int i = 0; i < MAREA_COUNT(contradictions); i++)
    if (strcmp(name_of(folder), contradictions[i].name) == 0) return contradictions[i].why;
  return NULL;
}

/* Writes what differs. */
static bool same (marea_tensor *got, marea_tensor *want, char *why, size_t room) {
  marea_tensor *dense, *wanted;
  if (!marea_has_shape(got, want->rank, want->shape) || got->dtype != want->dtype) {
    snprintf(why, room, "expected %s, got %s", marea_tensor_text(want).s, marea_tensor_text(got).s);
    return false;
  }
  if (marea_gapless(got, &dense) != MAREA_OK || marea_gapless(want, &wanted) != MAREA_OK) return false;
  const size_t size = marea_element_size(want->dtype);
  bool fine = true;
  for (int64_t i = 0; i < marea_tensor_size(want) && fine; i++) {
    const double a = marea_number_at((marea_dtype)want->dtype, (char *)marea_at(dense) + (size_t)i * size);
    const double b = marea_number_at((marea_dtype)want->dtype, (char *)marea_at(wanted) + (size_t)i * size);
    fine = want->dtype == MAREA_I64 || want->dtype == MAREA_U8 ? a == b : close_to(a, b, want->dtype);
    if (!fine)
      snprintf(why, room, "element %lld of %s: expected %.9g, got %.9g", (long long)i,
               marea_tensor_text(want).s, b, a);
  }
  marea_release(dense);
  marea_release(wanted);
  return fine;
}

typedef struct data_set {
  marea_tensor *in[MOST], *out[MOST], *want[MOST];
} data_set;

/* Does another run give other numbers? Then they are drawn, and those of the suite are another generator's. */
static bool draws (marea_graph *g, data_set *d) {
  marea_tensor *again[MOST] = {NULL};
  char why[500];
  bool same_again = marea_graph_run(g, g->n_in, d->in, g->n_out, again) == MAREA_OK;
  for (int k = 0; k < g->n_out && same_again; k++) same_again = same(again[k], d->out[k], why, sizeof why);
  for (int k = 0; k < g->n_out; k++) marea_release(again[k]);
  return !same_again;
}

/* The second run of a program gives the bits of the first. */
static bool run_again (marea_context *ctx, marea_graph *g, const char *folder, data_set *d) {
  marea_tensor *again[MOST] = {NULL};
  char why[500] = "";
  bool fine = marea_graph_run(g, g->n_in, d->in, g->n_out, again) == MAREA_OK;
  for (int k = 0; k < g->n_out && fine; k++) fine = same(again[k], d->want[k], why, sizeof why);
  for (int k = 0; k < g->n_out; k++) marea_release(again[k]);
  if (!fine) blame(folder, why[0] ? why : marea_error(ctx));
  return fine;
}

static bool run_set (marea_context *ctx, marea_graph *g, const char *folder, int set, data_set *d) {
  char why[500] = "";
  marea_graph_port port;
  for (int i = 0; i < g->n_in && marea_graph_input(g, i, &port); i++)
    d->in[i] = read_tensor(ctx, folder, set, "input", i, &port);
  for (int k = 0; k < g->n_out && marea_graph_output(g, k, &port); k++)
    d->want[k] = read_tensor(ctx, folder, set, "output", k, &port);
  for (int i = 0; i < g->n_in; i++)
    if (!d->in[i]) return refuse(folder, "its inputs are not all tensors of numbers"), false;
  const marea_status status = marea_graph_run(g, g->n_in, d->in, g->n_out, d->out);
  if (status != MAREA_OK) return refuse(folder, marea_error(ctx)), false;
  for (int k = 0; k < g->n_out; k++) {
    if (!d->want[k]) return refuse(folder, "its results are not all tensors of numbers"), false;
    if (same(d->out[k], d->want[k], why, sizeof why)) continue;
    if (!draws(g, d)) return blame(folder, why), false;
    drawn++;
    printf("drawn %s\n", name_of(folder));
    return false;
  }
  return true;
}

static void clear (data_set *d) {
  for (int i = 0; i < MOST; i++) {
    marea_release(d->in[i]);
    marea_release(d->out[i]);
    marea_release(d->want[i]);
  }
}

static bool run_sets (marea_context *ctx, marea_graph *g, const char *folder) {
  bool fine = true;
  if (g->n_in > MOST || g->n_out > MOST)
    return refuse(folder, "too many inputs or results for this test"), false;
  for (int set = 0; fine; set++) {
    char path[1024];
    data_set d = {0};
    snprintf(path, sizeof path, "%s/test_data_set_%d/output_0.pb", folder, set);
    FILE *f = fopen(path, "rb");
    if (!f) break;
    fclose(f);
    fine = run_set(ctx, g, folder, set, &d) && run_again(ctx, g, folder, &d);
    clear(&d);
  }
  return fine;
}

/* "operators NAME: Add Relu": those of the model's own graph, for docs/generate/onnx.lua */
static void list_operators (marea_context *ctx, const char *folder, const char *path) {
  uint8_t *bytes;
  size_t n;
  ProtobufCAllocator allocator = marea_onnx_allocator(ctx);
  if (marea_read_file(ctx, "onnx_test", path, &bytes, &n) != MAREA_OK) return;
  Marea__ModelProto *m = marea__model_proto__unpack(&allocator, n, bytes);
  printf("operators %s:", name_of(folder));
  for (size_t i = 0; m && m->graph && i < m->graph->n_node; i++)
    printf(" %s%s%s", m->graph->node[i]->domain, m->graph->node[i]->domain[0] ? "." : "",
           m->graph->node[i]->op_type);
  putchar('\n');
  if (m) marea__model_proto__free_unpacked(m, &allocator);
  marea_free(ctx, bytes);
}

static void test_model (marea_context *ctx, const char *folder) {
  fflush(stdout);
  char path[1024];
  marea_graph *g;
  snprintf(path, sizeof path, "%s/model.onnx", folder);
  list_operators(ctx, folder, path);
  if (marea_onnx_load(ctx, path, &g) != MAREA_OK) {
    refuse(folder, marea_error(ctx));
    return;
  }
  if (contradiction(folder)) refuse(folder, contradiction(folder));
  else if (run_sets(ctx, g, folder)) {
    equal++;
    printf("equal %s\n", name_of(folder));
  }
  marea_graph_free(g);
}

int main (int argc, char **argv) {
  marea_context *ctx;
  if (marea_open(NULL, &ctx) != MAREA_OK) return 2;
  for (int i = 1; i < argc; i++) test_model(ctx, argv[i]);
  printf("%d equal, %d drawn, %d refused, %d wrong\n", equal, drawn, refused, wrong);
  if (marea_memory(ctx).blocks)
    printf("WRONG: %llu blocks of memory are left\n", (unsigned long long)marea_memory(ctx).blocks);
  marea_close(ctx);
  return wrong > 0;
}
