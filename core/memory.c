/* SPDX-License-Identifier: MIT
** memory.c: every byte of a context comes from here, 64-byte aligned, and goes back here, so that a training step
** that repeats itself asks the allocator for nothing. There are three sizes:
**
**   small   up to 1 KiB: handles, nodes, scalars. Cut from chunks of one class each, without a header.
**   medium  up to 64 KiB: one of 16 classes per power of two (at most 6.25 % slack); a list of free blocks for each.
**   large   best fit: a request is cut from a larger free block, and free neighbours are joined again. So the
**           sizes of one phase (forward, backward, the last batch of an epoch) do not add to those of another.
**
** When the pool has to ask the allocator for more, it gives free memory back: blocks that have been free for long, and
** more of them while the pool is much larger than the peak of bytes in use. All free memory goes back when the limit
** is reached, or on request (marea_memory_trim).
*/
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memory.h"

#if defined(__SANITIZE_ADDRESS__) /* under AddressSanitizer free memory may not be touched */
#include <sanitizer/asan_interface.h>
#define HIDE(p, n) __asan_poison_memory_region(p, n)
#define SHOW(p, n) __asan_unpoison_memory_region(p, n)
#else
#define HIDE(p, n) ((void)0)
#define SHOW(p, n) ((void)0)
#endif

#define STEPS 16                          /* classes per power of two */
#define LARGEST ((size_t)PTRDIFF_MAX / 4) /* bytes of a block, just below 2^61 */
#define CLASSES (STEPS * 52)              /* the last one is that of LARGEST */
#define SMALL (STEPS * MAREA_ALIGN - sizeof(tag))
#define LARGE ((size_t)64 << 10) /* smallest large block; a remainder below it is not cut off */
#define CHUNK ((size_t)32 << 10) /* a medium block */
/* How much free memory the pool keeps: see make_room. spec/c/memory_test.c measures what follows from these: a repeated
   step calls the allocator zero times, and steps whose sizes grow leave free memory within bounds. */
#define SLACK ((size_t)8 << 20) /* free bytes, beyond an eighth of the peak, that are never looked through */
/* Free bytes, beyond half of the peak, above which recently freed blocks go, too. */
#define MUCH ((size_t)32 << 20)
#define TURNS 8  /* a block is unused if the pool's size was handed out so many times since it was freed */
#define LOOKS 32 /* blocks of a class that are compared for the best fit */
#define HUGE_PAGE ((size_t)2 << 20)
#define HUGE_FROM ((size_t)1 << 20) /* bytes of a block */

enum { ANYTHING, TENSOR, SMALL_BLOCKS };

/* The 8 bytes before every address that marea_alloc returns. */
typedef struct tag {
  uint16_t at; /* of a small block: distance to the beginning of its chunk, in units of MAREA_ALIGN; else 0 */
  bool free;   /* of a large block */
  uint8_t holds; /* of a block in use: ANYTHING, TENSOR or SMALL_BLOCKS, for marea_next_tensor */
  int class;     /* of a large block that is free: the list it is in */
} tag;

/* Header of a medium or large block. */
typedef struct block {
  struct block *next, *prev; /* in the list of free blocks of its class, or of those in use */
  struct block *left,
      *right; /* of a large block: its neighbours in memory from one request to the allocator */
  void *raw;  /* what the allocator returned; set in the leftmost of such neighbours */
  size_t size;
  uint64_t freed_at; /* pool.clock */
  tag tag;
} block;
_Static_assert(sizeof(block) == MAREA_ALIGN && sizeof(tag) == 8, "a tag lies in front of the memory");

/* Header of a medium block that is cut into small blocks of one class. */
typedef struct chunk {
  struct chunk *next, *prev; /* in the list of the class's chunks that have a block to give */
  void *free;                /* list of freed blocks, linked by their first word */
  uint32_t fresh, used;      /* offset of the bytes that were never handed out; number of blocks in use */
} chunk;
_Static_assert(sizeof(chunk) + sizeof(tag) <= MAREA_ALIGN, "the first small block follows in the next line");

struct marea_pool {
  block *free[CLASSES], *used;
  chunk *chunks[STEPS];
  marea_memory_info info;
  size_t limit;
  size_t planned;     /* bytes of planned tensors, which count as in use while a plan runs */
  uint64_t clock;     /* bytes handed out so far; the pool measures ages by it */
  uint64_t looked_at; /* clock when make_room last looked through the free blocks */
  uint64_t fail_in;   /* requests until one fails; 0 = off */
  bool fail_on;       /* ... and all after it */
  bool told_limit;    /* the log has a line that the limit was reached */
  bool told_refusal;  /* ... that the allocator refused */
};

/* Large blocks lie in pages of 2 MiB where the system has them. A step accesses every byte of its activations, and with
   pages of 4 KiB the processor's table of addresses (TLB) covers only a small part of them. */
static void *huge_alloc (size_t size) {
  void *p;
  if (posix_memalign(&p, HUGE_PAGE, size) != 0) return NULL;
  madvise(p, size, MADV_HUGEPAGE); /* if it fails the pages are small */
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

bool marea_pool_new (marea_context *ctx) {
  marea_pool *pool = ctx->config.alloc(ctx->config.alloc_ud, NULL, 0, sizeof *pool);
  if (!pool) return false;
  memset(pool, 0, sizeof *pool);
  pool->limit = ctx->config.max_bytes;
  ctx->pool = pool;
  return true;
}

static tag *tag_of (void *p) { return (tag *)p - 1; }

static block *block_of (void *p) { return (block *)p - 1; }

/* Class of a size, which is counted in lines of MAREA_ALIGN bytes: 16 log2(lines), and the four bits below the leading
   one. */
static int class_of (size_t size) {
  size_t lines = (size + MAREA_ALIGN - 1) / MAREA_ALIGN;
  if (lines <= STEPS) return (int)(lines ? lines : 1) - 1;
  int log2 = 63 - __builtin_clzll(lines - 1); /* 2^log2 < lines <= 2^(log2+1) */
  return (log2 - 4) * STEPS + (int)((lines - 1) >> (log2 - 4));
}

/* The largest size of a class. */
static size_t class_size (int class) {
  if (class < STEPS) return (size_t)(class + 1) * MAREA_ALIGN;
  int shift = class / STEPS - 1;
  return ((size_t)(class % STEPS + STEPS + 1) << shift) * MAREA_ALIGN;
}

/* ---- medium and large blocks ---- */

static void push (marea_pool *pool, block *b, int class) {
  b->tag.class = class;
  b->prev = NULL;
  b->next = pool->free[class];
  if (b->next) b->next->prev = b;
  pool->free[class] = b;
}

static void unlink_block (marea_pool *pool, block *b) {
  if (b->prev) b->prev->next = b->next;
  else pool->free[b->tag.class] = b->next;
  if (b->next) b->next->prev = b->prev;
}

static void push_used (marea_pool *pool, block *b) {
  b->prev = NULL;
  b->next = pool->used;
  if (b->next) b->next->prev = b;
  pool->used = b;
}

static void unlink_used (marea_pool *pool, block *b) {
  if (b->prev) b->prev->next = b->next;
  else pool->used = b->next;
  if (b->next) b->next->prev = b->prev;
}

static bool is_whole (const block *b) { return !b->left && !b->right; }

static size_t raw_size (size_t size) { return size + 2 * MAREA_ALIGN; }

/* Gives a free block, which is in no list, back to the allocator. */
static void give_back (marea_context *ctx, block *b) {
  ctx->pool->info.pooled -= b->size;
  SHOW(b + 1, b->size);
  ctx->config.alloc(ctx->config.alloc_ud, b->raw, raw_size(b->size), 0);
}

/* Makes a free block of what lies beyond `size`, if that is at least LARGE. */
static void cut (marea_pool *pool, block *b, size_t size) {
  if (b->size < size + MAREA_ALIGN + LARGE) return;
  block *rest = (block *)((char *)(b + 1) + size);
  SHOW(rest, sizeof *rest);
  *rest = (block){
      .left = b, .right = b->right, .size = b->size - size - MAREA_ALIGN, .freed_at = b->freed_at};
  if (rest->right) rest->right->left = rest;
  b->right = rest;
  b->size = size;
  rest->tag.free = true;
  push(pool, rest, class_of(rest->size));
  pool->info.pooled -= MAREA_ALIGN;
}

/* b := b and its right neighbour, both of them free and in no list. */
static void join (marea_pool *pool, block *b) {
  block *right = b->right;
  b->right = right->right;
  if (b->right) b->right->left = b;
  b->size += MAREA_ALIGN + right->size;
  HIDE(right, sizeof *right);
  pool->info.pooled += MAREA_ALIGN;
}

static void free_large (marea_pool *pool, block *b) {
  if (b->right && b->right->tag.free) {
    unlink_block(pool, b->right);
    join(pool, b);
  }
  if (b->left && b->left->tag.free) {
    b = b->left;
    unlink_block(pool, b);
    join(pool, b);
  }
  b->tag.free = true;
  b->freed_at = pool->clock;
  push(pool, b, class_of(b->size));
}

/* The smallest free block of at least `size` bytes, among the first LOOKS of each class. */
static block *find_large (const marea_pool *pool, size_t size) {
  block *best = NULL;
  for (int c = class_of(size); !best && c < CLASSES; c++) {
    int looks = 0;
    for (block *b = pool->free[c]; b && looks < LOOKS; b = b->next, looks++) {
      if (b->size < size || (best && b->size >= best->size)) continue;
      best = b;
      if (b->size == size) break;
    }
  }
  return best;
}

/* A pooled block; NULL if there is none that fits. */
static block *take (marea_pool *pool, size_t size) {
  block *b = size < LARGE ? pool->free[class_of(size)] : find_large(pool, size);
  if (!b) return NULL;
  unlink_block(pool, b);
  b->tag.free = false;
  if (size >= LARGE) cut(pool, b, size);
  pool->info.pooled -= b->size;
  return b;
}

/* ---- memory for the allocator ---- */

static size_t footprint (const marea_pool *pool) { return pool->info.live + pool->info.pooled; }

static void enter (marea_pool *pool, chunk *k, int class) {
  k->prev = NULL;
  k->next = pool->chunks[class];
  if (k->next) k->next->prev = k;
  pool->chunks[class] = k;
}

static void leave (marea_pool *pool, chunk *k, int class) {
  if (k->prev) k->prev->next = k->next;
  else pool->chunks[class] = k->next;
  if (k->next) k->next->prev = k->prev;
}

/* Bytes of all small blocks of a chunk. */
static size_t capacity (int class) { return (CHUNK - MAREA_ALIGN) / class_size(class) * class_size(class); }

/* Gives whole free blocks that were freed at least `age` bytes of the clock ago back to the allocator, until the bytes
   of the pool and those in use are at most `most` together. */
static void shed (marea_context *ctx, size_t most, uint64_t age) {
  marea_pool *pool = ctx->pool;
  for (int c = 0; c < STEPS; c++)
    for (chunk *k = pool->chunks[c], *next; k && footprint(pool) > most; k = next) {
      next = k->next;
      if (k->used || pool->clock - block_of(k)->freed_at < age) continue;
      leave(pool, k, c);
      unlink_used(pool, block_of(k));
      pool->info.pooled += CHUNK - capacity(c);
      give_back(ctx, block_of(k));
    }
  for (int c = CLASSES - 1; c >= 0; c--)
    for (block *b = pool->free[c], *next; b && footprint(pool) > most; b = next) {
      next = b->next;
      if (!is_whole(b) || pool->clock - b->freed_at < age) continue;
      unlink_block(pool, b);
      give_back(ctx, b);
    }
}

void marea_memory_trim (marea_context *ctx) {
  MAREA_ENTER;
  if (ctx) shed(ctx, 0, 0);
}

void marea_pool_free (marea_context *ctx) {
  if (!ctx->pool) return;
  shed(ctx, 0, 0);
  ctx->config.alloc(ctx->config.alloc_ud, ctx->pool, sizeof *ctx->pool, 0);
}

/* Called before the allocator is asked for `size` bytes; gives free memory back. A turn is the time in which as many
   bytes are handed out as the pool has. A step that repeats itself uses each of its blocks once a turn, so only
   blocks that have been free for TURNS turns go. If the pool is still above `most`, younger ones go, too, the oldest
   first. It looks again when an eighth of a turn has passed. */
static void make_room (marea_context *ctx, size_t size) {
  marea_pool *pool = ctx->pool;
  const size_t turn = footprint(pool) + size, peak = MAREA_MAX(pool->info.peak, pool->info.live + size);
  const size_t much = peak + peak / 8 + SLACK, most = peak + peak / 2 + MUCH;
  const uint64_t ages[] = {TURNS * (uint64_t)turn, turn, 0};
  if (turn <= much || pool->clock + size - pool->looked_at < turn / 8) return;
  pool->looked_at = pool->clock + size;
  shed(ctx, much - size, ages[0]);
  for (int i = 1; i < MAREA_COUNT(ages) && footprint(pool) + size > most; i++)
    shed(ctx, most - size, ages[i]);
}

/* Gives all free memory back, because `size` bytes more would exceed the limit or were refused; logs it the first
   time. */
static void shed_all (marea_context *ctx, size_t size, const char *why, bool *told) {
  const size_t pooled = ctx->pool->info.pooled;
  shed(ctx, 0, 0);
  const size_t returned = pooled - ctx->pool->info.pooled;
  if (*told || returned == 0) return;
  *told = true;
  marea_log(&ctx->config, MAREA_LOG_WARNING,
            "memory: %s: %s wanted, %s in use; %s kept for reuse were given back", why,
            marea_bytes_text(size).s, marea_bytes_text(ctx->pool->info.live).s, marea_bytes_text(returned).s);
}

static block *new_block (marea_context *ctx, size_t size) {
  marea_pool *pool = ctx->pool;
  if (pool->limit && footprint(pool) + size > pool->limit)
    shed_all(ctx, size, "the limit is reached", &pool->told_limit);
  if (pool->limit && footprint(pool) + size > pool->limit) return NULL;
  make_room(ctx, size);
  void *raw = ctx->config.alloc(ctx->config.alloc_ud, NULL, 0, raw_size(size));
  if (!raw) {
    shed_all(ctx, size, "the allocator refused", &pool->told_refusal);
    raw = ctx->config.alloc(ctx->config.alloc_ud, NULL, 0, raw_size(size));
    if (!raw) return NULL;
  }
  pool->info.mallocs++;
  uintptr_t data = ((uintptr_t)raw + 2 * MAREA_ALIGN - 1) / MAREA_ALIGN * MAREA_ALIGN;
  block *b = block_of((void *)data);
  *b = (block){.raw = raw, .size = size};
  return b;
}

static size_t size_of_block (size_t bytes) {
  return bytes < LARGE ? class_size(class_of(bytes)) : (bytes + MAREA_ALIGN - 1) / MAREA_ALIGN * MAREA_ALIGN;
}

/* Memory of a new medium or large block; NULL: out of memory. */
static void *take_block (marea_context *ctx, size_t bytes) {
  size_t size = size_of_block(bytes);
  block *b = take(ctx->pool, size);
  if (!b) b = new_block(ctx, size);
  if (!b) return NULL;
  b->tag.holds = ANYTHING;
  push_used(ctx->pool, b);
  return b + 1;
}

static void free_block (marea_pool *pool, block *b) {
  unlink_used(pool, b);
  HIDE(b + 1, b->size);
  if (b->size >= LARGE) {
    free_large(pool, b);
    return;
  }
  b->freed_at = pool->clock;
  push(pool, b, class_of(b->size));
}

/* ---- small blocks ---- */

static chunk *new_chunk (marea_context *ctx, int class) {
  chunk *k = take_block(ctx, CHUNK);
  if (!k) return NULL;
  SHOW(k, CHUNK);
  block_of(k)->tag.holds = SMALL_BLOCKS;
  *k = (chunk){.fresh = MAREA_ALIGN};
  enter(ctx->pool, k, class);
  ctx->pool->info.pooled += capacity(class);
  return k;
}

static bool is_full (const chunk *k, int class) {
  return !k->free && k->fresh + class_size(class) - sizeof(tag) > CHUNK;
}

/* Prefetches the block that the next request of the class gets: after a while it is in no cache. */
static void fetch (const void *p, size_t bytes) {
  for (size_t at = 0; p && at < bytes; at += MAREA_ALIGN) __builtin_prefetch((const char *)p + at, 1);
}

static void *take_small (marea_context *ctx, int class) {
  marea_pool *pool = ctx->pool;
  chunk *k = pool->chunks[class];
  if (!k && !(k = new_chunk(ctx, class))) return NULL;
  void *p = k->free;
  if (p) {
    SHOW(p, sizeof(void *));
    k->free = *(void **)p;
    fetch(k->free, class_size(class)); /* the next request's */
  } else {
    p = (char *)k + k->fresh;
    *tag_of(p) = (tag){.at = (uint16_t)(k->fresh / MAREA_ALIGN), .class = class};
    k->fresh += (uint32_t)class_size(class);
  }
  k->used++;
  if (is_full(k, class)) leave(pool, k, class);
  pool->info.pooled -= class_size(class);
  return p;
}

static chunk *chunk_of (void *p) { return (chunk *)((char *)p - tag_of(p)->at * (size_t)MAREA_ALIGN); }

static void free_small (marea_pool *pool, void *p) {
  tag *t = tag_of(p);
  chunk *k = chunk_of(p);
  t->holds = ANYTHING;
  if (is_full(k, t->class)) enter(pool, k, t->class);
  SHOW(p, sizeof(void *));
  *(void **)p = k->free;
  k->free = p;
  HIDE(p, class_size(t->class) - sizeof(tag));
  if (--k->used == 0) block_of(k)->freed_at = pool->clock;
}

/* ---- the list of tensors ---- */

static size_t size_of (void *p) {
  const tag *t = tag_of(p);
  return t->at ? class_size(t->class) : block_of(p)->size;
}

void marea_mark_tensor (void *p) { tag_of(p)->holds = TENSOR; }

/* The first block at or behind p in a chunk that holds a tensor; NULL: none. */
static void *tensor_from (const chunk *k, char *p) {
  for (; p < (const char *)k + k->fresh; p += class_size(tag_of(p)->class))
    if (tag_of(p)->holds == TENSOR) return p;
  return NULL;
}

void *marea_next_tensor (const marea_context *ctx, void *p) {
  block *b = ctx->pool->used;
  if (p && tag_of(p)->at) {
    chunk *k = chunk_of(p);
    void *next = tensor_from(k, (char *)p + size_of(p));
    if (next) return next;
    b = block_of(k)->next;
  } else if (p) b = block_of(p)->next;
  for (; b; b = b->next) {
    void *inside = b->tag.holds == SMALL_BLOCKS ? tensor_from((chunk *)(b + 1), (char *)(b + 1) + MAREA_ALIGN)
                                                : NULL;
    if (inside) return inside;
    if (b->tag.holds == TENSOR) return b + 1;
  }
  return NULL;
}

/* ---- marea_alloc and marea_free ---- */

/* Should this request fail, by marea_memory_fail? */
static bool must_fail (marea_pool *pool) {
  if (!pool->fail_in) return false;
  if (pool->fail_in > 1) {
    pool->fail_in--;
    return false;
  }
  if (!pool->fail_on) pool->fail_in = 0;
  return true;
}

size_t marea_block_size (size_t bytes) {
  return bytes <= SMALL ? class_size(class_of(bytes + sizeof(tag))) : size_of_block(bytes);
}

static void note_peak (marea_pool *pool) {
  size_t live = pool->info.live + pool->planned;
  if (live > pool->info.peak) pool->info.peak = live;
}

void *marea_alloc (marea_context *ctx, size_t bytes) {
  marea_pool *pool = ctx->pool;
  if (bytes > LARGEST || must_fail(pool)) return NULL;
  bool small = bytes <= SMALL;
  void *p = small ? take_small(ctx, class_of(bytes + sizeof(tag))) : take_block(ctx, bytes);
  if (!p) return NULL;
  size_t size = size_of(p);
  HIDE(p, small ? size - sizeof(tag) : size);
  SHOW(p, bytes);
  pool->clock += size;
  pool->info.live += size;
  pool->info.blocks++;
  note_peak(pool);
  return p;
}

void marea_free (marea_context *ctx, void *p) {
  if (!p) return;
  marea_pool *pool = ctx->pool;
  size_t size = size_of(p);
  pool->info.live -= size;
  pool->info.pooled += size;
  pool->info.blocks--;
  if (tag_of(p)->at) free_small(pool, p);
  else free_block(pool, block_of(p));
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

marea_memory_info marea_memory (const marea_context *ctx) {
  if (!ctx) return (marea_memory_info){0};
  marea_memory_info info = ctx->pool->info;
  info.live += ctx->pool->planned;
  info.limit = ctx->pool->limit;
  return info;
}

void marea_memory_reset_peak (marea_context *ctx) {
  if (ctx) ctx->pool->info.peak = ctx->pool->info.live + ctx->pool->planned;
}

void marea_memory_plan (marea_context *ctx, size_t planned) {
  ctx->pool->planned = planned;
  note_peak(ctx->pool);
}

void marea_memory_end_plan (marea_context *ctx, size_t peak) {
  ctx->pool->planned = 0;
  ctx->pool->info.peak = MAREA_MAX(peak, ctx->pool->info.live);
}

void marea_memory_limit (marea_context *ctx, size_t max_bytes) {
  if (!ctx) return;
  ctx->pool->limit = max_bytes;
  ctx->pool->told_limit = ctx->pool->told_refusal = false;
}

void marea_memory_fail (marea_context *ctx, uint64_t k, bool from_then_on) {
  if (!ctx) return;
  ctx->pool->fail_in = k;
  ctx->pool->fail_on = from_then_on;
}
