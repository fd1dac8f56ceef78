/* SPDX-License-Identifier: MIT
** fuzz_onnx.c: damaged models. Flips, cuts and copies bytes of the models of ONNX's test suite and loads what comes of
** it; what still is a model runs on ones of the shapes that it asks for, within limits of memory, time and operations.
** Built with AddressSanitizer, like fuzz_main.c.
**
**   fuzz_onnx RUNS SEED FOLDER...       folders that hold a model.onnx
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../core/io/io.h"

#define MOST_BYTES 65536 /* of a model */
#define MOST_PORTS 16
#define LARGEST 8 /* size of a dimension that may have any */

static uint64_t state;

static uint64_t draw (uint64_t below) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state % below;
}

static size_t read_model (const char *folder, uint8_t *to) {
  char path[1024];
  snprintf(path, sizeof path, "%s/model.onnx", folder);
  FILE *f = fopen(path, "rb");
  if (!f) return 0;
  const size_t n = fread(to, 1, MOST_BYTES, f);
  fclose(f);
  return n;
}

static size_t damage (uint8_t *bytes, size_t n) {
  for (uint64_t i = draw(8); i-- > 0 && n > 0;) {
    const size_t at = draw(n), length = draw(16) + 1;
    switch (draw(5)) {
    case 0: bytes[at] ^= (uint8_t)(1 << draw(8)); break;
    case 1: bytes[at] = (uint8_t)draw(256); break;
    case 2: n = at; break;
    case 3: memset(bytes + at, (int)draw(2) * 255, length < n - at ? length : n - at); break;
    default:
      memmove(bytes + at, bytes + draw(n - at) + at / 2, length < (n - at) / 2 ? length : (n - at) / 2);
      break;
    }
  }
  return n;
}

static marea_tensor *input_for (marea_context *ctx, const marea_graph_port *port) {
  int64_t shape[MAREA_MAX_RANK];
  marea_tensor *t = NULL;
  const int rank = port->rank < 0 ? (int)draw(5) : port->rank;
  for (int d = 0; d < rank; d++)
    shape[d] = port->rank < 0 || port->shape[d] < 0 ? (int64_t)draw(LARGEST) : port->shape[d];
  const marea_dtype dtype = (int)port->dtype == MAREA_DTYPE_COUNT ? MAREA_F32 : port->dtype;
  marea_tensor *one = NULL;
  if (marea_call_op(ctx, "full", MAREA_NO_TENSORS,
                    MAREA_NAMED(marea_ints("shape", 0, NULL), marea_int("value", (int64_t)draw(3)),
                                marea_word("dtype", marea_dtype_name(dtype))),
                    1, &one) != MAREA_OK)
    return NULL;
  if (marea_call_op(ctx, "expand", MAREA_TENSORS(one), MAREA_NAMED(marea_ints("shape", rank, shape)), 1,
                    &t) != MAREA_OK)
    t = NULL;
  marea_release(one);
  return t;
}

static void run (marea_context *ctx, marea_graph *g) {
  marea_tensor *in[MOST_PORTS] = {NULL}, *out[MOST_PORTS] = {NULL};
  marea_graph_port port;
  const int n_in = marea_graph_inputs(g), n_out = marea_graph_outputs(g);
  bool fine = n_in <= MOST_PORTS && n_out <= MOST_PORTS;
  for (int i = 0; fine && i < n_in && marea_graph_input(g, i, &port); i++)
    fine = (in[i] = input_for(ctx, &port)) != NULL;
  if (fine && marea_graph_run(g, n_in, in, n_out, out) == MAREA_OK)
    for (int k = 0; k < n_out; k++) marea_release(out[k]);
  for (int i = 0; i < MOST_PORTS; i++) marea_release(in[i]);
}

int main (int argc, char **argv) {
  static uint8_t bytes[MOST_BYTES];
  const long runs = argc > 3 ? atol(argv[1]) : 0;
  long loaded = 0;
  marea_context *ctx;
  state = argc > 3 ? strtoull(argv[2], NULL, 10) * 2 + 1 : 1;
  if (runs == 0 ||
      marea_open(&(marea_config){.size = sizeof(marea_config), .threads = 1, .max_bytes = 256 << 20}, &ctx) !=
          MAREA_OK)
    return 2;
  for (long i = 0; i < runs; i++) {
    marea_graph *g;
    const char *folder = argv[3 + draw((uint64_t)argc - 3)];
    const size_t n = damage(bytes, read_model(folder, bytes));
    if (getenv("FUZZ_SHOW")) printf("run %ld: %s\n", i, folder), fflush(stdout);
    marea_limit_flop(ctx, 1e8);
    marea_limit_time(ctx, 1);
    if (marea_onnx_parse(ctx, bytes, n, &g) != MAREA_OK) continue;
    loaded++;
    run(ctx, g);
    marea_graph_free(g);
    if (marea_memory(ctx).blocks != 0) return printf("run %ld of %s: memory is left\n", i, folder), 1;
  }
  printf("%ld models, %ld of them loaded\n", runs, loaded);
  marea_close(ctx);
  return 0;
}
