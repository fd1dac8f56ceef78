/* SPDX-License-Identifier: MIT
** random.c: Philox4x32-10, a counter-based generator: block number in, four random words out, so a result
** depends on its place in the sequence and never on the thread that computes it, and any part of the sequence
** can be had again. Source: Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
*/
#include "core.h"

void marea_philox (uint64_t seed, uint64_t counter, uint32_t word[4]) {
  marea_philox_branch(seed, counter, 0, word);
}

void marea_philox_branch (uint64_t seed, uint64_t counter, uint32_t branch, uint32_t word[4]) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = branch, c3 = 0;
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u; /* the golden ratio and sqrt(3) - 1, as in the paper */
    k1 += 0xBB67AE85u;
  }
  word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

void marea_seed (marea_context *ctx, uint64_t seed) {
  if (ctx) ctx->random = (marea_random_state){.seed = seed};
}

marea_random_state marea_random (const marea_context *ctx) {
  return ctx ? ctx->random : (marea_random_state){0};
}

void marea_set_random (marea_context *ctx, marea_random_state state) {
  if (ctx) ctx->random = state;
}
