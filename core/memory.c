/* SPDX-License-Identifier: MIT
** memory.c: every byte of a context comes from here. Blocks are 64-byte aligned and rounded up to one of 16
** size classes per power of two (at most 6.25 % slack); a freed block waits in its class's list, so a training
** step that repeats itself asks the allocator for nothing. A large request may be lent a block of up to half as
** big again. Pooled memory goes back when the pool would grow well beyond what was ever in use, when the limit is
** reached, or on request.
*/
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memory.h"

#define STEPS 16                          /* classes per power of two */
#define LARGEST ((size_t)PTRDIFF_MAX / 4) /* bytes of a block, just below 2^61 */
#define CLASSES (STEPS * 52)              /* the last one is that of LARGEST */
#define LARGE ((size_t)64 << 10)          /* bytes from which a request may take a larger block */
#define HALF_AS_BIG_AGAIN 9               /* classes: 16 log2(1.5) */
#define POOL_SLACK (32u << 20)            /* free bytes that the pool may keep beyond half of the peak */
#define HUGE_PAGE ((size_t)2 << 20)
#define HUGE_FROM ((size_t)1 << 20) /* bytes of a block */

typedef struct block { /* header, MAREA_ALIGN bytes in front of the memory handed out */
  struct block *next;
  void *raw; /* what the allocator returned */
  size_t size, raw_size;
  int class;
} block;
_Static_assert(sizeof(block) <= MAREA_ALIGN, "a block's header fits in front of its memory");

struct marea_pool {
  block *free[CLASSES];
  marea_memory_info info;
  size_t limit;
  uint64_t fail_in; /* requests until one fails; 0 = off */
  bool fail_on;     /* ... and all after it */
};

/* Large blocks in pages of 2 MiB where the system has them: a step reads and writes every byte of its
   activations, and with small pages the table of addresses does not fit in the processor. */
static void *huge_alloc (size_t size) {
  void *p;
  if (posix_memalign(&p, HUGE_PAGE, size) != 0) return NULL;
  madvise(p, size, MADV_HUGEPAGE); /* a wish; small pages do too */
  return p;
}

void *marea_default_alloc (void *ud, void *p, size_t old, size_t size) {
  (void)ud;
  (void)old;
  if (size >= HUGE_FROM) return huge_alloc(size);
  if (size) return malloc(size);
  free(p);
  return NULL;
}

/* Rounds *size up to its class's size. The class of s is 16*log2 plus the next four bits. */
static int size_class (size_t *size) {
  size_t units = (*size + MAREA_ALIGN - 1) / MAREA_ALIGN; /* of 64 bytes */
  if (units <= STEPS) {
    *size = (units ? units : 1) * MAREA_ALIGN;
    return (int)(units ? units : 1) - 1;
  }
  int log2 = 63 - __builtin_clzll(units - 1); /* 2^log2 < units <= 2^(log2+1) */
  int shift = log2 - 4;
  size_t steps = (units - 1) >> shift; /* 16..31 */
  *size = ((steps + 1) << shift) * MAREA_ALIGN;
  return (log2 - 4) * STEPS + (int)steps;
}

bool marea_pool_new (marea_context *ctx) {
  marea_pool *pool = ctx->config.alloc(ctx->config.alloc_ud, NULL, 0, sizeof *pool);
  if (!pool) return false;
  memset(pool, 0, sizeof *pool);
  pool->limit = ctx->config.max_bytes;
  ctx->pool = pool;
  return true;
}

static void give_back (marea_context *ctx, block *b) {
  ctx->pool->info.pooled -= b->size;
  ctx->config.alloc(ctx->config.alloc_ud, b->raw, b->raw_size, 0);
}

/* Gives pooled blocks back, the largest first, until at most `keep` bytes are pooled. */
static void trim (marea_context *ctx, size_t keep) {
  marea_pool *pool = ctx->pool;
  for (int c = CLASSES - 1; c >= 0 && pool->info.pooled > keep; c--)
    while (pool->free[c] && pool->info.pooled > keep) {
      block *b = pool->free[c];
      pool->free[c] = b->next;
      give_back(ctx, b);
    }
}

void marea_memory_trim (marea_context *ctx) { trim(ctx, 0); }

void marea_pool_free (marea_context *ctx) {
  if (!ctx->pool) return;
  trim(ctx, 0);
  ctx->config.alloc(ctx->config.alloc_ud, ctx->pool, sizeof *ctx->pool, 0);
}

/* A test asked for this request to fail? */
static bool must_fail (marea_pool *pool) {
  if (!pool->fail_in) return false;
  if (pool->fail_in > 1) {
    pool->fail_in--;
    return false;
  }
  if (!pool->fail_on) pool->fail_in = 0;
  return true;
}

static block *new_block (marea_context *ctx, size_t size, int class) {
  marea_pool *pool = ctx->pool;
  size_t raw_size = size + 2 * MAREA_ALIGN;
  if (pool->limit && pool->info.live + pool->info.pooled + size > pool->limit) trim(ctx, 0);
  if (pool->limit && pool->info.live + size > pool->limit) return NULL;
  size_t enough = pool->info.peak / 2 + POOL_SLACK;
  if (pool->info.pooled > enough) trim(ctx, enough);
  void *raw = ctx->config.alloc(ctx->config.alloc_ud, NULL, 0, raw_size);
  if (!raw) {
    trim(ctx, 0);
    raw = ctx->config.alloc(ctx->config.alloc_ud, NULL, 0, raw_size);
    if (!raw) return NULL;
  }
  pool->info.mallocs++;
  uintptr_t data = ((uintptr_t)raw + 2 * MAREA_ALIGN - 1) / MAREA_ALIGN * MAREA_ALIGN;
  block *b = (block *)(data - MAREA_ALIGN);
  *b = (block){.raw = raw, .raw_size = raw_size, .size = size, .class = class};
  return b;
}

/* A pooled block of the class. A large request also takes one up to half as big again, so that a batch that is
   a little smaller, the last of an epoch, runs in the memory of the others. */
static block *take (marea_pool *pool, int class, size_t size) {
  int last = size < LARGE ? class : MAREA_MIN(class + HALF_AS_BIG_AGAIN, CLASSES - 1);
  for (int c = class; c <= last; c++) {
    block *b = pool->free[c];
    if (!b) continue;
    pool->free[c] = b->next;
    pool->info.pooled -= b->size;
    return b;
  }
  return NULL;
}

void *marea_alloc (marea_context *ctx, size_t bytes) {
  marea_pool *pool = ctx->pool;
  if (bytes > LARGEST || must_fail(pool)) return NULL;
  int class = size_class(&bytes);
  block *b = take(pool, class, bytes);
  if (!b) b = new_block(ctx, bytes, class);
  if (!b) return NULL;
  pool->info.live += b->size;
  pool->info.blocks++;
  if (pool->info.live > pool->info.peak) pool->info.peak = pool->info.live;
  return (char *)b + MAREA_ALIGN;
}

void marea_free (marea_context *ctx, void *p) {
  if (!p) return;
  marea_pool *pool = ctx->pool;
  block *b = (block *)((char *)p - MAREA_ALIGN);
  b->next = pool->free[b->class];
  pool->free[b->class] = b;
  pool->info.live -= b->size;
  pool->info.pooled += b->size;
  pool->info.blocks--;
}

marea_status marea_bytes (marea_context *ctx, const char *who, int rank, const int64_t *shape,
                          size_t element_size, size_t *bytes) {
  if (rank < 0 || rank > MAREA_MAX_RANK)
    return marea_fail(ctx, MAREA_ESHAPE, "%s: %d dimensions; a tensor has at most %d", who, rank,
                      MAREA_MAX_RANK);
  size_t total = element_size;
  bool empty = false, overflow = false;
  for (int d = 0; d < rank; d++) {
    if (shape[d] < 0 || shape[d] > INT32_MAX)
      return marea_fail(ctx, MAREA_ESHAPE, "%s: shape %s: size %lld is outside 0..2147483647", who,
                        marea_shape_text(rank, shape).s, (long long)shape[d]);
    if (shape[d] == 0) empty = true;
    else overflow |= __builtin_mul_overflow(total, (size_t)shape[d], &total);
  }
  if (empty) total = 0;
  else if (overflow || total > LARGEST)
    return marea_fail(ctx, MAREA_ENOMEM, "%s: a tensor of shape %s needs more bytes than can be addressed",
                      who, marea_shape_text(rank, shape).s);
  *bytes = total;
  return MAREA_OK;
}

marea_memory_info marea_memory (const marea_context *ctx) { return ctx->pool->info; }

void marea_memory_reset_peak (marea_context *ctx) { ctx->pool->info.peak = ctx->pool->info.live; }

void marea_memory_limit (marea_context *ctx, size_t max_bytes) { ctx->pool->limit = max_bytes; }

void marea_memory_fail (marea_context *ctx, uint64_t k, bool from_then_on) {
  ctx->pool->fail_in = k;
  ctx->pool->fail_on = from_then_on;
}
