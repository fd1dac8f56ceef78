/* SPDX-License-Identifier: MIT
** decode.c: a trained network in a program without Lua: loads the weights that scripts/vae.lua left and decodes a digit
** from a point of the latent plane.
**
**   build/examples/decode out/vae/vae.safetensors 0.3 -1.0
*/
#include <stdio.h>
#include <stdlib.h>

#include "marea.h"

/* x := what a layer makes of x. False: the context knows why. */
typedef bool (*layer)(marea_context *ctx, const marea_file *weights, const char *name, marea_tensor **x);

static bool replace (marea_tensor **x, marea_tensor *y) {
  marea_release(*x);
  *x = y;
  return y != NULL;
}

static marea_tensor *weight (const marea_file *f, const char *name, const char *part) {
  char key[80];
  snprintf(key, sizeof key, "decoder.%s.%s", name, part);
  return marea_file_find(f, key);
}

/* Applies an operator of (x, weight, bias). */
static bool apply (marea_context *ctx, const marea_file *f, const char *op, const char *name, int n,
                   const marea_named *named, marea_tensor **x) {
  marea_tensor *in[] = {*x, weight(f, name, "weight"), weight(f, name, "bias")}, *y;
  return marea_call_op(ctx, op, 3, in, n, named, 1, &y) == MAREA_OK && replace(x, y);
}

static bool dense (marea_context *ctx, const marea_file *f, const char *name, marea_tensor **x) {
  const marea_named named[] = {marea_word("activation", "relu")};
  return apply(ctx, f, "linear", name, 1, named, x);
}

static bool to_image (marea_context *ctx, const marea_file *f, const char *name, marea_tensor **x) {
  marea_tensor *y;
  (void)f, (void)name;
  return marea_call_op(ctx, "reshape", MAREA_TENSORS(*x),
                       MAREA_NAMED(marea_ints("shape", 4, (int64_t[]){-1, 14, 14, 64})), 1, &y) == MAREA_OK &&
         replace(x, y);
}

static bool upward (marea_context *ctx, const marea_file *f, const char *name, marea_tensor **x) {
  const marea_named named[] = {marea_word("padding", "same"), marea_word("activation", "relu"),
                               marea_int("stride", 2)};
  return apply(ctx, f, "conv_transpose2d", name, 3, named, x);
}

static bool smooth (marea_context *ctx, const marea_file *f, const char *name, marea_tensor **x) {
  const marea_named named[] = {marea_word("padding", "same"), marea_word("activation", "relu")};
  return apply(ctx, f, "conv_transpose2d", name, 2, named, x);
}

static bool to_gray (marea_context *ctx, const marea_file *f, const char *name, marea_tensor **x) {
  const marea_named named[] = {marea_word("padding", "same"), marea_word("activation", "sigmoid")};
  return apply(ctx, f, "conv_transpose2d", name, 2, named, x);
}

static const struct {
  const char *name;
  layer forward;
} decoder[] = {{"dense1", dense}, {"dense2", dense}, {"", to_image},
               {"up1", upward},   {"up2", smooth},   {"up3", to_gray}};

/* One character a pixel, two columns wide so that digits keep their shape. */
static void show (const float *pixel, int64_t height, int64_t width) {
  static const char shade[] = " .:-=+*#%@";
  for (int64_t y = 0; y < height; y++, putchar('\n'))
    for (int64_t x = 0; x < width; x++) {
      char c = shade[(int)(pixel[y * width + x] * 9.999f)];
      putchar(c), putchar(c);
    }
}

static bool decode (marea_context *ctx, const char *path, float *point) {
  marea_file *weights;
  marea_tensor *x;
  if (marea_file_load(ctx, path, &weights) != MAREA_OK) return false;
  bool ok = marea_from_memory(ctx, MAREA_F32, 2, (int64_t[]){1, 2}, point, NULL, NULL, &x) == MAREA_OK;
  for (size_t i = 0; ok && i < sizeof decoder / sizeof decoder[0]; i++)
    ok = decoder[i].forward(ctx, weights, decoder[i].name, &x);
  if (ok) show(marea_tensor_data(x), marea_tensor_shape(x)[1], marea_tensor_shape(x)[2]);
  marea_release(x);
  marea_file_free(weights);
  return ok;
}

int main (int argc, char **argv) {
  if (argc < 4) return fprintf(stderr, "usage: %s WEIGHTS Z1 Z2\n", argv[0]), 2;
  float point[2] = {strtof(argv[2], NULL), strtof(argv[3], NULL)};
  marea_config config = {.size = sizeof config, .max_bytes = (size_t)64 << 20};
  marea_context *ctx;
  marea_status status = marea_open(&config, &ctx);
  if (status != MAREA_OK) return fprintf(stderr, "%s\n", marea_status_text(status)), 1;
  bool ok = decode(ctx, argv[1], point);
  if (!ok) fprintf(stderr, "%s\n", marea_error(ctx));
  marea_close(ctx);
  return !ok;
}
