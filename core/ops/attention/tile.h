/* SPDX-License-Identifier: MIT
** tile.h: what attention forward and backward share: sizes and inputs of a call, and tiles of scores, some queries (rows)
** by some keys (columns). A tile of probabilities exists only while it is used, so that memory is linear in T.
*/
#ifndef MAREA_ATTENTION_TILE_H
#define MAREA_ATTENTION_TILE_H

#include "core.h"

/* Sizes of a tile: its scores (128 KB of f32), keys and values lie in a second-level cache together. The number of keys is a
   multiple of 64, the elements that share random words; STEP, from row to row, is no power of 2, so that a column does not
   fall into few sets of the first-level cache. */
#define MAREA_ATTENTION_QUERIES 128 /* at most; of f32 126, 9 times the 14 rows of a product's tile */
#define MAREA_ATTENTION_KEYS 256
#define MAREA_ATTENTION_STEP (MAREA_ATTENTION_KEYS + 16)

enum {
  MAREA_QKV_Q,
  MAREA_QKV_K,
  MAREA_QKV_V,
  MAREA_QKV_MASK,
  MAREA_QKV_LENGTHS,
  MAREA_QKV
}; /* ORDER of inputs */
/* ORDER of attributes; the last one is another one of the gradient */
enum { MAREA_QKV_CAUSAL, MAREA_QKV_SCALE, MAREA_QKV_DROPOUT, MAREA_QKV_SEED, MAREA_QKV_PRODUCTS };

#define MAREA_QKV_INPUTS                                                                      \
  {"q", "(N, Tq, heads, D) queries"}, {"k", "(N, Tk, kv_heads, D) keys"},                     \
      {"v", "(N, Tk, kv_heads, Dv) values"},                                                  \
      {"mask", "(broadcasts to (N, heads, Tq, Tk)) f32 or f64: added to scores; u8: 0 hides", \
       .optional = true},                                                                     \
  {                                                                                           \
    "lengths", "(N) keys of each row", .optional = true                                       \
  }
#define MAREA_QKV_ATTRS                                                                         \
  {"causal", MAREA_BOOL, 0, NULL, "the last query sees all keys, each one before it one less"}, \
      {"scale", MAREA_REAL, MAREA_NONE, NULL, "factor of q k; left out: 1 / sqrt(D)"},          \
      {"dropout", MAREA_REAL, 0, NULL, "probability that a weight is set to 0"}, {              \
    "seed", MAREA_INT, MAREA_NONE, NULL, "key of the dropout; left out: the context's"          \
  }

/* What samples begin with. */
#define MAREA_QKV_SAMPLE                                                                                 \
  "local s = g.shape(3, 3, 0, 3) local n, tq, tk, kv, r = s[1], s[2], s[3], g.int(1, 2), g.int(1, 2) "   \
  "local d, dv, h = g.int(0, 4), g.int(0, 4), kv * r "                                                   \
  "local function w(...) return g.tensor({...}, {lo = -1, hi = 1}) end "                                 \
  "local function maybe(x) if g.bool() then return x end end "                                           \
  "local shape = g.broadcast {n, h, tq, tk} "                                                            \
  "local mask = maybe(g.bool() and g.tensor(shape, {dtype = 'u8', lo = 0, hi = 1}) or g.tensor(shape)) " \
  "local inputs = {w(n, tq, h, d), w(n, tk, kv, d), w(n, tk, kv, dv), mask, "                            \
  "maybe(g.tensor({n}, {dtype = 'i64', lo = 0, hi = tk}))} "                                             \
  "local attrs = {causal = g.bool(), scale = maybe(0.75), dropout = g.pick {0, 0, 0.25}, seed = 7} "

typedef struct marea_attention {
  marea_context *ctx;
  const marea_kernels *kernels;
  int dtype;
  size_t size; /* bytes of an element */
  int64_t n, heads, kv_heads, tq, tk, d, dv;
  const char *q, *k, *v;
  const char *mask;      /* NULL: none */
  size_t mask_size;      /* bytes of an element of it: 1 means u8 */
  int64_t mask_step[4];  /* in elements; 0 where it is broadcast */
  const int64_t *length; /* (N); NULL: all are Tk */
  bool causal;
  double scale, rate; /* rate: of the dropout */
  uint64_t seed, counter;
  bool bf16;             /* operands of products are rounded to bf16 */
  const int64_t *offset; /* 0, 1, ..: see marea_direct_wgrad */
  char *hidden;          /* (KEYS): -infinity */
} marea_attention;

/* Queries and keys of a tile. */
typedef struct marea_attention_tile {
  int64_t n, head;
  marea_range queries, keys;
} marea_attention_tile;

/* Checks inputs 0..4 and the attributes, and fills in the scale and the seed. */
marea_status marea_attention_shape (marea_call *c);
/* *length := the input's lengths, of which each is 0 to `most`; NULL where it is left out or there are no values. */
marea_status marea_attention_lengths (marea_call *c, int input, int64_t most, const int64_t **length);
marea_status marea_attention_want_lengths (marea_call *c, int input); /* a shape rule's part of it */
/* Fills in a, and reads and checks the lengths. */
marea_status marea_attention_open (marea_call *c, marea_attention *a);

int64_t marea_attention_pairs (
    const marea_call *c); /* queries times the keys that they see, lengths and mask aside */
/* Random words are laid out as if there were a multiple of 64 keys. */
int64_t marea_attention_draws (const marea_call *c);

static inline int64_t marea_attention_queries (const marea_attention *a) {
  return a->bf16 ? MAREA_ATTENTION_QUERIES : 126;
}

/* Element (n, t, head, 0) of q, k or v. */
static inline char *marea_query_at (const marea_attention *a, const char *q, int64_t n, int64_t t,
                                    int64_t head, int64_t width) {
  return (char *)(uintptr_t)q + (size_t)(((n * a->tq + t) * a->heads + head) * width) * a->size;
}
static inline char *marea_key_at (const marea_attention *a, const char *k, int64_t n, int64_t t, int64_t head,
                                  int64_t width) {
  return (char *)(uintptr_t)k +
         (size_t)(((n * a->tk + t) * a->kv_heads + head / (a->heads / a->kv_heads)) * width) * a->size;
}

/* The keys that any query before `end` sees are those before the result. */
int64_t marea_attention_keys (const marea_attention *a, int64_t n, int64_t end);
/* The first query that sees a key. */
int64_t marea_attention_first (const marea_attention *a, int64_t key);
/* Are there pairs in the tile of which the query must not see the key? */
bool marea_attention_hides (const marea_attention *a, const marea_attention_tile *t);

/* The tile's queries in strips: *t becomes the strip of at most marea_attention_queries from `first` on, without keys that
   none of it sees; where some of its queries see fewer keys than others strips are short. False: there is none. */
bool marea_attention_strip (const marea_attention *a, const marea_attention_tile *all, int64_t first,
                            marea_attention_tile *t);

/* Rows of a tile, of q, k, v or dy, copied together: in place they lie 1 or 2 KB apart and share few sets of the caches. */
typedef struct marea_attention_rows {
  char *x;
  int64_t step; /* elements from row to row: an odd number of lines of f32; those after a row are 0 */
  bool finite;
  uint16_t
      *narrow; /* with products of bf16: the same in bf16, `depth` from row to row, with zeros behind each */
  int64_t depth;
  uint16_t *panels; /* and, where they are w of a product, in panels, `panel` apart; NULL: they are not */
  int64_t panel;
} marea_attention_rows;
#define MAREA_ATTENTION_ROW(width) ((((width) + 15) / 16 | 1) * 16)

/* For rows that x has memory for: what lies between them := 0 */
void marea_attention_clear (const marea_attention *a, int64_t rows, int64_t width,
                            const marea_attention_rows *to);
/* The t->queries of x, which is as q or y, or the t->keys of one that is as k or v; times the factor. They are checked for
   being finite only where the tile hides keys. */
void marea_attention_pack_queries (const marea_attention *a, const marea_attention_tile *t, const char *x,
                                   int64_t width, double factor, marea_attention_rows *to);
void marea_attention_pack_keys (const marea_attention *a, const marea_attention_tile *t, const char *x,
                                int64_t width, double factor, marea_attention_rows *to);
/* turned (width, keys) := k or v (keys, width) of the tile; MAREA_ATTENTION_STEP from row to row. With products of bf16 it is
   panels, and scratch has room for the rows. */
void marea_attention_turn (const marea_attention *a, const marea_attention_tile *t, const char *from,
                           int64_t width, uint16_t *scratch, char *turned);
/* y (queries, keys) := the tile's rows of q or dy (queries, width), from `first` on, times k or v turned;
   MAREA_ATTENTION_STEP from row to row */
void marea_attention_dots (const marea_attention *a, const marea_attention_tile *t, int64_t width,
                           const marea_attention_rows *rows, int64_t first, const char *turned, char *y);
/* With products of bf16: gives rows of such a width memory for bf16 from *at on, and moves *at behind it. */
void marea_attention_narrow (const marea_attention *a, int64_t rows, int64_t width, bool panels,
                             marea_attention_rows *to, uint16_t **at);
size_t marea_attention_narrow_size (const marea_attention *a, int64_t rows, int64_t width, bool panels);
/* One query q, of which no key is hidden: its scores s (keys), and y (Dv) += s v. Each key is read once, where it lies. */
void marea_attention_dots_of_one (const marea_attention *a, const marea_attention_tile *t, const char *q,
                                  char *s);
void marea_attention_multiply_one (const marea_attention *a, const marea_attention_tile *t, const char *s,
                                   char *y);
/* Hides what the mask and the causal order hide in the scores (queries, keys) of the tile. */
void marea_attention_mask (const marea_attention *a, const marea_attention_tile *t, char *s);
/* y := x with the dropout of the tile; both as s */
void marea_attention_drop (const marea_attention *a, const marea_attention_tile *t, const char *x, char *y);

/* A matrix product: y (rows, cols) += x (rows, depth) w (depth, cols); turned: y (depth, cols) += x^T w with w (rows, cols).
   x has MAREA_ATTENTION_STEP elements from row to row. Where x is 0 and w not finite, w counts for nothing. */
typedef struct marea_attention_product {
  int64_t rows, depth, cols;
  const char *x;
  const marea_attention_rows *w;
  char *y;
  int64_t y_row; /* in elements */
  bool turned;
  uint16_t *narrow; /* scratch with products of bf16: MAREA_ATTENTION_NARROW elements, twice that if turned */
  bool
      rounded; /* x is in `narrow` already, marea_bf16_whole(depth) from row to row, with zeros behind each */
} marea_attention_product;
#define MAREA_ATTENTION_NARROW (MAREA_ATTENTION_KEYS * (MAREA_ATTENTION_QUERIES + 2))
void marea_attention_multiply (const marea_attention *a, const marea_attention_product *p);

#endif
