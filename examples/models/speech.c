/* SPDX-License-Identifier: MIT
** speech.c: tells when somebody begins and ceases to speak, while the sound comes in, by the network of the package
** silero-vad, which `make models` gets. Reads 16-bit samples at 16 kHz from stdin; speech.lua does it for files.
**
**   arecord -q -t raw -f S16_LE -r 16000 | build/examples/models/speech build/models/silero_vad/data/silero_vad.onnx
*/
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "marea.h"

enum { RATE = 16000, WINDOW = 512, BEFORE = 64, SILENCE = RATE / 10 };
#define BEGIN 0.5F /* probabilities, as in speech.lua */
#define STOP 0.35F

typedef struct listener {
  marea_graph *net;
  marea_tensor *in[3]; /* sound, the network's memory, rate: what the model calls input, state and sr */
  long now, silent;    /* samples; silent: since when, -1: not */
  bool speaks;
} listener;

static bool make (marea_context *ctx, listener *l) {
  const int64_t sound[] = {1, BEFORE + WINDOW}, memory[] = {2, 1, 128};
  if (marea_zeros(ctx, MAREA_F32, 2, sound, &l->in[0]) != MAREA_OK) return false;
  if (marea_zeros(ctx, MAREA_F32, 3, memory, &l->in[1]) != MAREA_OK) return false;
  if (marea_empty(ctx, MAREA_I64, 0, NULL, &l->in[2]) != MAREA_OK) return false;
  *(int64_t *)marea_tensor_data(l->in[2]) = RATE;
  return true;
}

/* Samples of a window as they are in memory: two bytes each, the lower first. False: there is no whole one. */
static bool hear (listener *l) {
  uint8_t bytes[2 * WINDOW];
  float *x = marea_tensor_data(l->in[0]);
  if (fread(bytes, sizeof bytes, 1, stdin) != 1) return false;
  memmove(x, x + WINDOW, BEFORE * sizeof x[0]);
  for (int i = 0; i < WINDOW; i++)
    x[BEFORE + i] = (float)(int16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8) / 32768;
  return true;
}

static bool judge (listener *l, float *probability) {
  marea_tensor *out[2];
  if (marea_graph_run(l->net, 3, l->in, 2, out) != MAREA_OK) return false;
  *probability = *(const float *)marea_tensor_data(out[0]);
  marea_release(out[0]);
  marea_release(l->in[1]);
  l->in[1] = out[1];
  return true;
}

static void tell (const char *what, long at) {
  printf("%8.2f s %s\n", (double)at / RATE, what);
  fflush(stdout);
}

static void follow (listener *l, float probability) {
  if (probability >= BEGIN) {
    if (!l->speaks) tell("speech", l->now);
    l->speaks = true;
    l->silent = -1;
  } else if (probability < STOP && l->speaks) {
    if (l->silent < 0) l->silent = l->now;
    l->speaks = l->now - l->silent < SILENCE;
    if (!l->speaks) tell("silence", l->silent);
  }
  l->now += WINDOW;
}

int main (int argc, char **argv) {
  listener l = {.silent = -1};
  marea_context *ctx;
  float probability;
  if (argc != 2) {
    fprintf(stderr, "usage: speech silero_vad.onnx < samples\n");
    return EXIT_FAILURE;
  }
  if (marea_open(NULL, &ctx) != MAREA_OK) return EXIT_FAILURE;
  bool ok = marea_onnx_load(ctx, argv[1], &l.net) == MAREA_OK && make(ctx, &l);
  while (ok && hear(&l)) {
    ok = judge(&l, &probability);
    if (ok) follow(&l, probability);
  }
  if (!ok) fprintf(stderr, "speech: %s\n", marea_error(ctx));
  for (int i = 0; i < 3; i++) marea_release(l.in[i]);
  marea_graph_free(l.net);
  marea_close(ctx);
  return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
