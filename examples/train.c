/* SPDX-License-Identifier: MIT
** train.c: a program without Lua that trains a small network to be a sine, saves it, and loads it again.
**
**   build/examples/train sine.safetensors
*/
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "marea.h"

#define HIDDEN 32
#define POINTS 256
#define STEPS 600

/* Leaves main with the context's sentence when a call fails. */
#define MUST(call)                                          \
  do {                                                      \
    if ((call) != MAREA_OK) {                               \
      fprintf(stderr, "%s: %s\n", #call, marea_error(ctx)); \
      return 1;                                             \
    }                                                       \
  } while (0)

enum { W1, B1, W2, B2, PARAMETERS };
static const char *const name[] = {"hidden.weight", "hidden.bias", "out.weight", "out.bias"};

typedef struct network {
  marea_tensor *p[PARAMETERS], *m[PARAMETERS], *v[PARAMETERS]; /* parameters and Adam's moments */
} network;

/* One tensor drawn from -limit to limit, that requires a gradient, and zeros of its shape for the moments. */
static marea_status make (marea_context *ctx, network *net, int i, int rank, const int64_t *shape,
                          double limit) {
  const marea_named named[] = {marea_ints("shape", rank, shape), marea_real("low", -limit),
                               marea_real("high", limit)};
  marea_status status = marea_call_op(ctx, "uniform", MAREA_NO_TENSORS, 3, named, 1, &net->p[i]);
  if (status == MAREA_OK) status = marea_require_grad(net->p[i], true);
  if (status == MAREA_OK) status = marea_zeros(ctx, MAREA_F32, rank, shape, &net->m[i]);
  return status == MAREA_OK ? marea_zeros(ctx, MAREA_F32, rank, shape, &net->v[i]) : status;
}

/* y := tanh(x W1 + B1) W2 + B2 */
static marea_status forward (marea_context *ctx, const network *net, marea_tensor *x, marea_tensor **y) {
  marea_tensor *h;
  *y = NULL;
  marea_status status = marea_call_op(ctx, "linear", MAREA_TENSORS(x, net->p[W1], net->p[B1]),
                                      MAREA_NAMED(marea_word("activation", "tanh")), 1, &h);
  if (status == MAREA_OK)
    status = marea_call_op(ctx, "linear", MAREA_TENSORS(h, net->p[W2], net->p[B2]), MAREA_NO_NAMES, 1, y);
  marea_release(h);
  return status;
}

static marea_status update (marea_context *ctx, network *net, int step) {
  for (int i = 0; i < PARAMETERS; i++) {
    marea_status status = marea_call_op(
        ctx, "adam_step", MAREA_TENSORS(net->p[i], marea_grad_of(net->p[i]), net->m[i], net->v[i]),
        MAREA_NAMED(marea_real("lr", 0.01), marea_int("step", step)), 0, NULL);
    if (status != MAREA_OK) return status;
    marea_clear_grad(net->p[i]);
  }
  return MAREA_OK;
}

static marea_status train_step (marea_context *ctx, network *net, marea_tensor *x, marea_tensor *target,
                                int step, float *value) {
  marea_tensor *y = NULL, *loss = NULL;
  marea_status status = forward(ctx, net, x, &y);
  if (status == MAREA_OK)
    status = marea_call_op(ctx, "mse", MAREA_TENSORS(y, target), MAREA_NO_NAMES, 1, &loss);
  if (status == MAREA_OK) {
    memcpy(value, marea_tensor_data(loss), sizeof *value);
    status = marea_backward(loss, NULL, 0);
  }
  if (status == MAREA_OK) status = update(ctx, net, step);
  marea_release(loss);
  marea_release(y);
  return status;
}

static marea_status save (marea_context *ctx, const network *net, const char *path) {
  marea_file *f;
  marea_status status = marea_file_new(ctx, &f);
  for (int i = 0; i < PARAMETERS && status == MAREA_OK; i++) status = marea_file_add(f, name[i], net->p[i]);
  if (status == MAREA_OK) status = marea_file_save(f, path);
  marea_file_free(f);
  return status;
}

int main (int argc, char **argv) {
  const char *path = argc > 1 ? argv[1] : "sine.safetensors";
  float input[POINTS], output[POINTS], loss = 0;
  marea_context *ctx;
  marea_tensor *x, *target;
  network net = {0};
  if (marea_open(NULL, &ctx) != MAREA_OK) return 1;
  marea_seed(ctx, 1);
  for (int i = 0; i < POINTS; i++) {
    input[i] = -3 + 6 * (float)i / (POINTS - 1);
    output[i] = sinf(input[i]);
  }
  /* The host's arrays as tensors, without a copy. */
  MUST(marea_from_memory(ctx, MAREA_F32, 2, (int64_t[]){POINTS, 1}, input, NULL, NULL, &x));
  MUST(marea_from_memory(ctx, MAREA_F32, 2, (int64_t[]){POINTS, 1}, output, NULL, NULL, &target));
  MUST(make(ctx, &net, W1, 2, (int64_t[]){1, HIDDEN}, 1.5));
  MUST(make(ctx, &net, B1, 1, (int64_t[]){HIDDEN}, 1.5));
  MUST(make(ctx, &net, W2, 2, (int64_t[]){HIDDEN, 1}, 0.4));
  MUST(make(ctx, &net, B2, 1, (int64_t[]){1}, 0.1));
  for (int step = 1; step <= STEPS; step++) {
    MUST(train_step(ctx, &net, x, target, step, &loss));
    if (step == 1 || step % 200 == 0) printf("step %3d  loss %.6f\n", step, (double)loss);
  }
  MUST(save(ctx, &net, path));
  for (int i = 0; i < PARAMETERS; i++)
    marea_release(net.p[i]), marea_release(net.m[i]), marea_release(net.v[i]);
  marea_release(x), marea_release(target);
  printf("bytes still in use: %zu\n", marea_memory(ctx).live);
  marea_close(ctx);
  return 0;
}
