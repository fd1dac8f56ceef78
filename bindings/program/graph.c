/* SPDX-License-Identifier: MIT
** graph.c: `marea run model.onnx input.npy ...`: a network of another framework at the shell, without a script. Each input
** is an NPY file, in the order of the model's inputs; without any it shows what the model takes and gives. With -o the
** results are written to a safetensors file, by their names.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "marea.h"
#include "program.h"

#define MOST 64 /* inputs, and results */

static const char usage[] = "usage: marea run model.onnx [input.npy ...] [-o results.safetensors]\n";

typedef struct job {
  marea_context *ctx;
  marea_graph *graph;
  const char *model, *inputs[MOST], *results; /* paths */
  int n_in;
  marea_tensor *in[MOST], *out[MOST];
} job;

static bool read_arguments (int argc, char **argv, job *j) {
  for (int i = 2; i < argc; i++) {
    if (strcmp(argv[i], "-o") == 0 && i + 1 < argc) j->results = argv[++i];
    else if (argv[i][0] == '-') return false;
    else if (!j->model) j->model = argv[i];
    else if (j->n_in < MOST) j->inputs[j->n_in++] = argv[i];
    else return false;
  }
  return j->model != NULL && (!j->results || j->n_in > 0);
}

static bool ends_in (const char *path, const char *end) {
  const size_t n = strlen(path), m = strlen(end);
  return n > m && strcmp(path + n - m, end) == 0;
}

static void show_port (const char *word, const marea_graph_port *port) {
  printf("%s %s", word, port->name);
  if (port->rank >= 0) printf(" %s (", marea_dtype_name(port->dtype));
  for (int d = 0; d < port->rank; d++) {
    if (port->shape[d] < 0) printf("%sany", d ? ", " : "");
    else printf("%s%lld", d ? ", " : "", (long long)port->shape[d]);
  }
  puts(port->rank >= 0 ? ")" : "");
}

static void show_ports (const marea_graph *g) {
  marea_graph_port port;
  for (int i = 0; marea_graph_input(g, i, &port); i++) show_port("input ", &port);
  for (int i = 0; marea_graph_output(g, i, &port); i++) show_port("result", &port);
}

static void show_result (const job *j, int k) {
  const marea_tensor *t = j->out[k];
  marea_graph_port port;
  marea_statistics s;
  marea_graph_output(j->graph, k, &port);
  marea_statistics_of(t, 0, &s);
  printf("%s %s (", port.name, marea_dtype_name(marea_tensor_dtype(t)));
  for (int d = 0; d < marea_tensor_rank(t); d++)
    printf("%s%lld", d ? ", " : "", (long long)marea_tensor_shape(t)[d]);
  printf("): min %g, mean %g, max %g\n", s.least, s.mean, s.most);
}

static marea_status save (const job *j) {
  marea_file *f;
  marea_graph_port port;
  marea_status status = marea_file_new(j->ctx, &f);
  for (int k = 0; status == MAREA_OK && marea_graph_output(j->graph, k, &port); k++)
    status = marea_file_add(f, port.name, j->out[k]);
  if (status == MAREA_OK) status = marea_file_save(f, j->results);
  marea_file_free(f);
  return status;
}

static marea_status compute (job *j) {
  const int n_out = marea_graph_outputs(j->graph);
  marea_status status = MAREA_OK;
  if (n_out > MOST) {
    fprintf(stderr, "marea: run: %d results; at most %d are supported\n", n_out, MOST);
    return MAREA_OK;
  }
  for (int i = 0; i < j->n_in && status == MAREA_OK; i++)
    status = marea_load_npy(j->ctx, j->inputs[i], &j->in[i]);
  if (status == MAREA_OK) status = marea_graph_run(j->graph, j->n_in, j->in, n_out, j->out);
  for (int k = 0; k < n_out && status == MAREA_OK; k++) show_result(j, k);
  return status == MAREA_OK && j->results ? save(j) : status;
}

static marea_status run (job *j) {
  marea_status status = marea_open(NULL, &j->ctx);
  if (status == MAREA_OK) status = marea_onnx_load(j->ctx, j->model, &j->graph);
  if (status != MAREA_OK) return status;
  if (j->n_in > 0 || marea_graph_inputs(j->graph) == 0) return compute(j);
  show_ports(j->graph);
  return MAREA_OK;
}

int graph_run (int argc, char **argv) {
  job j = {0};
  if (!read_arguments(argc, argv, &j) || (j.results && !ends_in(j.results, ".safetensors"))) {
    fputs(usage, stderr);
    return EXIT_FAILURE;
  }
  const marea_status status = run(&j);
  if (status != MAREA_OK) fprintf(stderr, "marea: %s\n", marea_error(j.ctx));
  for (int i = 0; i < MOST; i++) marea_release(j.in[i]), marea_release(j.out[i]);
  marea_graph_free(j.graph);
  marea_close(j.ctx);
  return status == MAREA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
