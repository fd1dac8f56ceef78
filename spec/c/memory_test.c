/* SPDX-License-Identifier: MIT
** memory_test.c: the pool under an allocator that counts: what is handed out is aligned, apart from everything else
** and all given back; sizes that come round again cost no call, and neither do smaller ones; free memory stays in
** bounds, and leaves when it is not used any more.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../core/memory.h"
#include "report.h"

#define MIB ((size_t)1 << 20)

/* What the context has from its host. */
typedef struct host {
  size_t bytes, most, refuse_from; /* refuse_from: size of requests that are refused; 0 = none */
  int64_t blocks;
} host;

static void *host_alloc (void *ud, void *p, size_t old, size_t size) {
  host *h = ud;
  if (!size) {
    h->bytes -= old;
    h->blocks--;
    free(p);
    return NULL;
  }
  if (h->refuse_from && size >= h->refuse_from) return NULL;
  h->bytes += size;
  h->blocks++;
  h->most = MAREA_MAX(h->most, h->bytes);
  return malloc(size);
}

static marea_context *open_context (host *h) {
  *h = (host){0};
  marea_config config = {.size = sizeof config, .alloc = host_alloc, .alloc_ud = h, .threads = 1};
  marea_context *ctx = NULL;
  if (marea_open(&config, &ctx) != MAREA_OK) exit(2);
  return ctx;
}

static bool all_returned (marea_context *ctx, host *h) {
  marea_memory_info m = marea_memory(ctx);
  bool ok = m.live == 0 && m.blocks == 0;
  marea_memory_trim(ctx);
  ok &= marea_memory(ctx).pooled == 0;
  marea_close(ctx);
  return ok && h->bytes == 0 && h->blocks == 0;
}

/* ---- anything ---- */

#define SLOTS 300

static uint64_t state = 88172645463325252u;

static size_t draw (size_t below) { /* xorshift64 */
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (size_t)(state % below);
}

static size_t any_size (void) {
  switch (draw(8)) {
  case 0: return draw(8);
  case 1: return 1000 + draw(40); /* around the end of small */
  case 2: return draw(60000);
  case 3: return 65000 + draw(2000); /* around the beginning of large */
  case 4: return draw(1000000);
  default: return draw(1000);
  }
}

typedef struct slot {
  unsigned char *p, mark;
  size_t n;
} slot;

static bool is_intact (const slot *s) {
  for (size_t i = 0; i < s->n; i++)
    if (s->p[i] != s->mark) return false;
  return true;
}

static bool fill (marea_context *ctx, slot *s) {
  s->n = any_size();
  s->mark = (unsigned char)draw(256);
  s->p = marea_alloc(ctx, s->n);
  if (!s->p || (uintptr_t)s->p % MAREA_ALIGN) return false;
  memset(s->p, s->mark, s->n);
  return true;
}

static void any_order (void) {
  host h;
  slot slots[SLOTS] = {{0}};
  marea_context *ctx = open_context(&h);
  bool ok = true;
  for (int round = 0; round < 40000 && ok; round++) {
    slot *s = &slots[draw(SLOTS)];
    if (s->p) {
      ok = is_intact(s);
      marea_free(ctx, s->p);
      s->p = NULL;
    } else ok = fill(ctx, s);
    if (round % 5000 == 0) marea_memory_trim(ctx);
  }
  report("any sizes in any order are aligned and apart from each other", ok);
  size_t bytes = 0, count = 0;
  for (int i = 0; i < SLOTS; i++) {
    bytes += slots[i].p ? slots[i].n : 0;
    count += slots[i].p != NULL;
  }
  marea_memory_info m = marea_memory(ctx);
  report("what is in use is counted", m.live >= bytes && m.live < bytes + bytes / 8 + count * 128 &&
                                          m.blocks == count && m.live + m.pooled <= h.bytes);
  for (int i = 0; i < SLOTS; i++) marea_free(ctx, slots[i].p);
  report("... and all of it is given back", all_returned(ctx, &h));
}

/* ---- steps of a training ---- */

#define LAYERS 6

/* Activations of `n` images, then gradients while they are freed one by one. */
static bool step (marea_context *ctx, size_t n) {
  static const size_t bytes[LAYERS] = {100352, 100352, 50176, 51200, 50176, 100352}; /* of an image */
  void *y[LAYERS], *dy = NULL;
  for (int i = 0; i < LAYERS; i++)
    if (!(y[i] = marea_alloc(ctx, n * bytes[i]))) return false;
  for (int i = LAYERS - 1; i >= 0; i--) {
    void *dx = marea_alloc(ctx, n * bytes[i]);
    if (!dx) return false;
    marea_free(ctx, dy);
    marea_free(ctx, y[i]);
    dy = dx;
  }
  marea_free(ctx, dy);
  return true;
}

static void batches (void) {
  host h;
  marea_context *ctx = open_context(&h);
  bool ok = step(ctx, 128) && step(ctx, 128);
  uint64_t mallocs = marea_memory(ctx).mallocs;
  size_t peak = marea_memory(ctx).peak;
  for (int round = 0; round < 20; round++) ok &= step(ctx, 128);
  report("a step that comes round again costs no call", ok && marea_memory(ctx).mallocs == mallocs);
  for (size_t n = 127; n > 1; n--) ok &= step(ctx, n);
  ok &= step(ctx, 128);
  report("... nor do steps of fewer images", ok && marea_memory(ctx).mallocs == mallocs);
  report("... and what it has had is little more than its peak", h.most < peak + peak / 8 + 8 * MIB);
  report("... and is given back", all_returned(ctx, &h));
}

static void growing_batches (void) {
  host h;
  marea_context *ctx = open_context(&h);
  bool ok = true;
  for (size_t n = 1; n <= 300; n++) {
    ok &= step(ctx, n);
    size_t peak = marea_memory(ctx).peak;
    ok &= h.bytes - h.bytes / 8 <= peak + peak / 2 + 33 * MIB; /* an eighth: it looks now and then */
  }
  report("batches that grow leave free memory in bounds", ok);
  report("... and give it back", all_returned(ctx, &h));
}

static void another_phase (void) {
  host h;
  marea_context *ctx = open_context(&h);
  marea_free(ctx, marea_alloc(ctx, 100 * MIB));
  void *kept = marea_alloc(ctx, 10 * MIB); /* cut from the free block */
  bool ok = kept && marea_memory(ctx).mallocs == 1;
  for (int i = 0; i < 200; i++) marea_free(ctx, marea_alloc(ctx, 20 * MIB));
  ok &= marea_memory(ctx).mallocs == 1;
  marea_free(ctx, kept);
  for (int i = 0; i < 200; i++) {
    void *p[4];
    for (int k = 0; k < 4; k++) ok &= (p[k] = marea_alloc(ctx, 60 * MIB)) != NULL;
    for (int k = 0; k < 4; k++) marea_free(ctx, p[k]);
  }
  report("free memory is cut, joined again and used again", ok && marea_memory(ctx).mallocs <= 4);
  marea_memory_reset_peak(ctx);
  for (int i = 0; i < 5000; i++) marea_free(ctx, marea_alloc(ctx, MIB));
  void *large = marea_alloc(ctx, 110 * MIB);
  report("what was not used for long goes when fresh memory must be had", large && h.bytes < 175 * MIB);
  marea_free(ctx, large);
  report("... and the rest at the end", all_returned(ctx, &h));
}

/* ---- many small ones, limits ---- */

static void many (void) {
  enum { N = 200000 };
  host h;
  static void *p[N];
  marea_context *ctx = open_context(&h);
  size_t before = h.bytes;
  bool ok = true;
  for (int i = 0; i < N; i++) ok &= (p[i] = marea_alloc(ctx, 120)) != NULL;
  report("small blocks cost no more than their lines", ok && (h.bytes - before) / N <= 129);
  for (int i = 0; i < N; i += 2) marea_free(ctx, p[i]);
  uint64_t mallocs = marea_memory(ctx).mallocs;
  for (int i = 0; i < N; i += 2) ok &= (p[i] = marea_alloc(ctx, 120)) != NULL;
  report("... and their places are used again", ok && marea_memory(ctx).mallocs == mallocs);
  for (int i = 0; i < N; i++) marea_free(ctx, p[i]);
  report("... and given back", all_returned(ctx, &h));
}

static void limits (void) {
  host h;
  marea_context *ctx = open_context(&h);
  size_t before = h.bytes;
  marea_memory_limit(ctx, 10 * MIB);
  void *half = marea_alloc(ctx, 5 * MIB), *small = marea_alloc(ctx, 100);
  bool ok = half && small && !marea_alloc(ctx, 6 * MIB);
  marea_free(ctx, half);
  void *most = marea_alloc(ctx, 9 * MIB);
  report("the limit holds, free memory included", ok && most && h.bytes - before <= 10 * MIB + 4096);
  marea_memory_limit(ctx, 0);
  marea_free(ctx, most);
  h.refuse_from = 8 * MIB;
  void *again = marea_alloc(ctx, 9 * MIB), *none = marea_alloc(ctx, 10 * MIB);
  report("a refused request fails after free memory was given back", again && !none);
  marea_free(ctx, again);
  marea_free(ctx, small);
  report("... and nothing is lost", all_returned(ctx, &h));
}

int main (void) {
  any_order();
  batches();
  growing_batches();
  another_phase();
  many();
  limits();
  return failed != 0;
}
