/* SPDX-License-Identifier: MIT
** sandbox_memory.c: the memory of a sandbox's Lua state. The allocator counts bytes, tells strings from other blocks,
** and looks at the clock when a large block is requested. It can neither raise nor run Lua, so it sets the hook for
** the next instruction instead.
**
** It also watches the two kinds of blocks that make a single instruction slow, where no hook runs:
**
**   - Comparing strings takes 15 ns a byte when they are full of zeros, reading one as a number 5 ns. While there is a
**     long one, the hook looks more often.
**   - A table grows by putting all keys into a new hash part. Keys of Lua's own making (strings, addresses) are spread;
**     numbers are taken modulo its size less one, so that a script can choose thousands that fall into one chain, and
**     growing takes a time that is quadratic in their number: minutes. Growth that would is refused, as lack of memory.
*/
#include <math.h>
#include <stdlib.h>

#include "sandbox.h"

#define LARGE 4096 /* bytes of a block at whose request the clock is looked at: filling it takes longer */
#define LONG ((size_t)64 << 10) /* bytes of a string that is watched: comparing it takes 1 ms */
#define NODES ((size_t)1 << 11) /* places of a watched hash part: 2048 keys in one chain move in 10 ms */
#define WATCHED (NODES * sizeof(node)) /* bytes of the smallest block that is watched */
#define STEPS ((double)(4 << 20))      /* along chains, that growing may take: 20 ms at 5 ns each */
#define HEADER 64                      /* bytes in front of a string's text, at most */

/* ---- hash parts ---- */

/* A place in the hash part of a table of Lua 5.4 (lobject.h). */
typedef union node {
  struct {
    union {
      lua_Integer i;
      lua_Number n;
    } value;
    uint8_t kind, key_kind;
    int next;
    union {
      lua_Integer i;
      lua_Number n;
    } key;
  } u;
} node;

#define INTEGER (LUA_TNUMBER | 0 << 4)
#define FLOAT (LUA_TNUMBER | 1 << 4)

/* The places of a hash part of so many bytes; 0: it is too small to be watched, or none. */
static size_t places (size_t bytes) {
  const size_t n = bytes / sizeof(node);
  return bytes % sizeof(node) == 0 && n >= NODES && (n & (n - 1)) == 0 ? n : 0;
}

/* What Lua makes of a float before it takes the remainder. */
static uint64_t mix_float (double x) {
  int exponent;
  const double scaled = frexp(x, &exponent) * -(double)INT_MIN;
  if (!(scaled >= -0x1p63 && scaled < 0x1p63)) return 0;
  const unsigned u = (unsigned)exponent + (unsigned)(int64_t)scaled;
  return u <= INT_MAX ? u : ~u;
}

/* The chain that a number belongs to in a hash part of `size` places. */
static uint64_t chain_of (const node *key, size_t size) {
  if (key->u.key_kind == FLOAT) return mix_float(key->u.key.n) % (size - 1);
#if LUA_VERSION_RELEASE_NUM < 50403
  return (uint64_t)key->u.key.i & (size - 1);
#else
  return (uint64_t)key->u.key.i % (size - 1);
#endif
}

/* Steps along chains that putting the n keys at `from` into a hash part of `size` places takes; `count` has room for
   the length of each chain. */
static double chain_steps (const node *from, size_t n, size_t size, unsigned *count) {
  double steps = 0;
  for (size_t i = 0; i < n; i++) {
    const int key = from[i].u.key_kind;
    const bool is_empty = (from[i].u.kind & 15) == LUA_TNIL;
    if (!is_empty && (key == INTEGER || key == FLOAT)) steps += count[chain_of(&from[i], size)]++;
  }
  return steps;
}

/* May a hash part of `size` places be made? Which table it is for is not known here: one that is full, so that its own
   has at least half the size. */
static bool may_grow (const sandbox_memory *m, size_t size) {
  bool fine = true;
  for (size_t i = 0; fine && i < m->n_watched; i++) {
    const sandbox_block *b = &m->watched[i];
    if (b->is_string || places(b->bytes) < size / 2) continue;
    unsigned *count = calloc(size, sizeof *count);
    fine = count && chain_steps(b->p, places(b->bytes), size, count) < fmax(STEPS, 4 * (double)size);
    free(count);
  }
  return fine;
}

/* ---- the blocks that are watched ---- */

enum { PLAIN, STRING, NODES_OF_TABLE };

/* The kind of a new block. For an object Lua gives its type in `old`; of other blocks it tells nothing. */
static int kind_of (const void *p, size_t old, size_t size) {
  if (!p && old == LUA_TSTRING) return STRING;
  return !p && old == 0 && places(size) > 0 ? NODES_OF_TABLE : PLAIN;
}

static bool watch (sandbox_memory *m, void *p, size_t bytes, bool is_string) {
  if (m->n_watched == m->room) {
    const size_t room = 2 * m->room + 16;
    sandbox_block *more = realloc(m->watched, room * sizeof *more);
    if (!more) return false;
    m->watched = more;
    m->room = room;
  }
  m->watched[m->n_watched++] = (sandbox_block){p, bytes, is_string};
  if (is_string && bytes > m->longest) m->longest = bytes;
  return true;
}

static void find_longest (sandbox_memory *m) {
  m->longest = 0;
  for (size_t i = 0; i < m->n_watched; i++)
    if (m->watched[i].is_string && m->watched[i].bytes > m->longest) m->longest = m->watched[i].bytes;
}

static void unwatch (sandbox_memory *m, const void *p) {
  size_t i = m->n_watched;
  while (i > 0 && m->watched[i - 1].p != p) i--;
  if (i == 0) return;
  const sandbox_block gone = m->watched[i - 1];
  m->watched[i - 1] = m->watched[--m->n_watched];
  if (gone.is_string && gone.bytes == m->longest) find_longest(m);
}

/* ---- the allocator ---- */

static bool may_have (const sandbox_memory *m, int kind, size_t old, size_t size) {
  if (size > old && m->bytes - old + size > m->max_bytes) return false;
  if (kind == STRING) return size <= m->max_string + HEADER;
  return kind == PLAIN || places(size) < 2 * NODES || may_grow(m, places(size));
}

static void *take (sandbox_memory *m, void *p, size_t old, size_t size, int kind) {
  if (!may_have(m, kind, old, size)) return NULL;
  void *q = realloc(p, size);
  if (!q) return NULL;
  const bool watched = kind == NODES_OF_TABLE || (kind == STRING && size >= LONG);
  if (watched && !watch(m, q, size, kind == STRING)) {
    free(q);
    return NULL;
  }
  m->bytes += size - old;
  return q;
}

void *bind_sandbox_allocate (void *ud, void *p, size_t old, size_t size) {
  marea_sandbox *sandbox = ud;
  sandbox_memory *m = &sandbox->memory;
  const int kind = kind_of(p, old, size), period = bind_sandbox_period(sandbox);
  if (!p) old = 0;
  else if (old >= WATCHED) unwatch(m, p);
  if (size == 0) {
    free(p);
    m->bytes -= old;
    return NULL;
  }
  void *q = take(m, p, old, size, kind);
  const bool look = sandbox->active && (!q || size >= LARGE || old >= LARGE);
  if ((look && bind_sandbox_look(sandbox)) || bind_sandbox_period(sandbox) < period)
    bind_sandbox_arm(sandbox);
  return q;
}

void bind_sandbox_free_memory (sandbox_memory *m) { free(m->watched); }
