/* SPDX-License-Identifier: MIT
** run_onnx.c: a network from another framework in a program without Lua: loads a model in ONNX's format, gives it the
** arrays of some NPY files and shows the largest of what comes out.
**
**   build/examples/run_onnx model.onnx input.npy ...
*/
#include <stdio.h>
#include <stdlib.h>

#include "marea.h"

#define MOST 16

static int fail (const marea_context *ctx) {
  fprintf(stderr, "run_onnx: %s\n", marea_error(ctx));
  return EXIT_FAILURE;
}

/* The place and value of the largest of the f32 in a result. */
static void show (const marea_graph *g, int k, const marea_tensor *t) {
  marea_graph_port port;
  const float *y = marea_tensor_data(t);
  int64_t largest = 0;
  marea_graph_output(g, k, &port);
  if (marea_tensor_dtype(t) != MAREA_F32 || marea_tensor_size(t) == 0) return;
  for (int64_t i = 1; i < marea_tensor_size(t); i++)
    if (y[i] > y[largest]) largest = i;
  printf("%s: %lld numbers, the largest is number %lld: %g\n", port.name, (long long)marea_tensor_size(t),
         (long long)largest, (double)y[largest]);
}

int main (int argc, char **argv) {
  marea_context *ctx;
  marea_graph *g = NULL;
  marea_tensor *in[MOST] = {NULL}, *out[MOST] = {NULL};
  const int n_in = argc - 2;
  if (n_in < 1 || n_in > MOST) {
    fprintf(stderr, "usage: run_onnx model.onnx input.npy ...\n");
    return EXIT_FAILURE;
  }
  marea_status status = marea_open(NULL, &ctx);
  if (status == MAREA_OK) status = marea_onnx_load(ctx, argv[1], &g);
  for (int i = 0; i < n_in && status == MAREA_OK; i++) status = marea_load_npy(ctx, argv[2 + i], &in[i]);
  const int n_out = marea_graph_outputs(g) < MOST ? marea_graph_outputs(g) : MOST;
  if (status == MAREA_OK) status = marea_graph_run(g, n_in, in, n_out, out);
  int code = status == MAREA_OK ? EXIT_SUCCESS : fail(ctx);
  for (int k = 0; k < n_out && status == MAREA_OK; k++) show(g, k, out[k]);
  for (int i = 0; i < MOST; i++) marea_release(in[i]), marea_release(out[i]);
  marea_graph_free(g);
  marea_close(ctx);
  return code;
}
