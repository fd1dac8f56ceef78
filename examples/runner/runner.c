/* SPDX-License-Identifier: MIT
** runner.c: a network of ONNX as a program of its own, with the model inside: `make runner MODEL=model.onnx`.
**
**   build/runner input.npy ... result.npy ...
**
** reads its inputs from NPY files and writes its results to others, in the model's order, which it tells without
** arguments.
*/
#include <stdio.h>
#include <stdlib.h>

#include "marea.h"

#ifndef MODEL
#error "MODEL is the path of a file of ONNX, in quotes"
#endif
__asm__(".section .rodata\n"
        ".balign 16\n"
        ".global model_begin\n"
        ".global model_end\n"
        "model_begin: .incbin \"" MODEL "\"\n"
        "model_end: .byte 0\n"
        ".previous");
extern const unsigned char model_begin[], model_end[];

#define MOST 32 /* inputs, and results */

static int fail (const marea_context *ctx) {
  fprintf(stderr, "%s\n", marea_error(ctx));
  return EXIT_FAILURE;
}

static void show (const char *what, int i, const marea_graph_port *port) {
  printf("%s %d: %s %s (", what, i + 1, port->name, marea_dtype_name(port->dtype));
  for (int d = 0; d < port->rank; d++)
    if (port->shape[d] < 0) printf("%s?", d ? ", " : "");
    else printf("%s%lld", d ? ", " : "", (long long)port->shape[d]);
  printf(")\n");
}

static int explain (const marea_graph *g) {
  marea_graph_port port;
  printf("usage: input.npy ... result.npy ...\n");
  for (int i = 0; marea_graph_input(g, i, &port); i++) show("input", i, &port);
  for (int i = 0; marea_graph_output(g, i, &port); i++) show("result", i, &port);
  return EXIT_SUCCESS;
}

static marea_status run (marea_context *ctx, marea_graph *g, char **paths) {
  marea_tensor *in[MOST] = {NULL}, *out[MOST] = {NULL};
  const int n_in = marea_graph_inputs(g), n_out = marea_graph_outputs(g);
  marea_status status = MAREA_OK;
  for (int i = 0; i < n_in && status == MAREA_OK; i++) status = marea_load_npy(ctx, paths[i], &in[i]);
  if (status == MAREA_OK) status = marea_graph_run(g, n_in, in, n_out, out);
  for (int k = 0; k < n_out && status == MAREA_OK; k++) status = marea_save_npy(out[k], paths[n_in + k]);
  for (int i = 0; i < MOST; i++) marea_release(in[i]), marea_release(out[i]);
  return status;
}

int main (int argc, char **argv) {
  marea_context *ctx;
  marea_graph *g;
  if (marea_open(NULL, &ctx) != MAREA_OK) return fail(NULL);
  if (marea_onnx_parse(ctx, model_begin, (size_t)(model_end - model_begin), &g) != MAREA_OK) return fail(ctx);
  const int n_in = marea_graph_inputs(g), n_out = marea_graph_outputs(g);
  const bool fits = argc == 1 + n_in + n_out && n_in <= MOST && n_out <= MOST;
  int code = EXIT_SUCCESS;
  if (!fits) code = argc == 1 ? explain(g) : (explain(g), EXIT_FAILURE);
  else if (run(ctx, g, argv + 1) != MAREA_OK) code = fail(ctx);
  marea_graph_free(g);
  marea_close(ctx);
  return code;
}
