/* SPDX-License-Identifier: MIT
** evaluate.c: ONNX operators that are loops over known elements: determinants, operations on bits, counts of n-grams.
*/
#include <math.h>
#include <stdlib.h>

#include "node.h"

/* ---- determinants ---- */

/* By elimination with the greatest pivot; a is overwritten. */
static double determinant (onnx_node *node, double *a, int64_t n) {
  double product = 1;
  for (int64_t k = 0; k < n && still(node, 0); k++) {
    int64_t best = k;
    for (int64_t i = k + 1; i < n; i++)
      if (fabs(a[i * n + k]) > fabs(a[best * n + k])) best = i;
    const double pivot = a[best * n + k];
    product *= best == k ? pivot : -pivot;
    if (pivot == 0 || pivot != pivot) return pivot;
    for (int64_t j = k; j < n; j++) {
      const double t = a[k * n + j];
      a[k * n + j] = a[best * n + j];
      a[best * n + j] = t;
    }
    for (int64_t i = k + 1; i < n && still(node, i); i++) {
      const double factor = a[i * n + k] / pivot;
      for (int64_t j = k + 1; j < n; j++) a[i * n + j] -= factor * a[k * n + j];
    }
  }
  return product;
}

HANDLER(Det) {
  value *x = input(n, 0);
  const int rank = rank_of(x);
  if (goes_on(n) && (rank < 2 || size_of(x, rank - 1) != size_of(x, rank - 2)))
    marea_onnx_reject(n, "expected square matrices, got %s", marea_tensor_text(x->t).s);
  if (!marea_onnx_elements(n, x)) return;
  value *copy = CALL(n, "cast", VALUES(x), NAMED(marea_word("dtype", "f64")));
  value *y = marea_onnx_new(n, MAREA_F64, rank - 2, x->t->shape);
  if (!goes_on(n)) return;
  const int64_t size = size_of(x, rank - 1), count = count_of(y);
  for (int64_t i = 0; i < count && goes_on(n); i++)
    ((double *)marea_at(y->t))[i] = determinant(n, (double *)marea_at(copy->t) + i * size * size, size);
  marea_onnx_give_as(n, 0, y, n->in[0]->type);
}

/* ---- bits ---- */

enum { AND, OR, XOR };

static void bitwise (onnx_node *n, int how) {
  value *a = marea_onnx_cast(n, input(n, 0), MAREA_I64), *b = marea_onnx_cast(n, input(n, 1), MAREA_I64);
  value *like = add(n, a, b); /* of the shape to which both broadcast */
  if (!goes_on(n)) return;
  const int rank = rank_of(like);
  const marea_tensor *x = marea_onnx_elements(n, marea_onnx_expand(n, a, rank, like->t->shape));
  const marea_tensor *y = marea_onnx_elements(n, marea_onnx_expand(n, b, rank, like->t->shape));
  value *z = marea_onnx_new(n, MAREA_I64, rank, like->t->shape);
  if (!goes_on(n)) return;
  const int64_t *p = marea_at(x), *q = marea_at(y);
  int64_t *to = marea_at(z->t);
  for (int64_t i = 0; i < count_of(z) && still(n, i); i++)
    to[i] = how == AND ? p[i] & q[i] : how == OR ? p[i] | q[i] : p[i] ^ q[i];
  marea_onnx_give_as(n, 0, z, n->in[0]->type);
}

HANDLER(BitwiseAnd) { bitwise(n, AND); }
HANDLER(BitwiseOr) { bitwise(n, OR); }
HANDLER(BitwiseXor) { bitwise(n, XOR); }

/* -1 - x, and of unsigned numbers the greatest one minus x */
HANDLER(BitwiseNot) {
  value *x = each(n, 0);
  if (!goes_on(n)) return;
  const int type = n->in[0]->type;
  const int64_t most = type == ONNX_UINT8    ? 0xff
                       : type == ONNX_UINT16 ? 0xffff
                       : type == ONNX_UINT32 ? INT64_C(0xffffffff)
                                             : -1;
  value *y = sub(n, marea_onnx_integer(n, most, MAREA_I64), marea_onnx_cast(n, x, MAREA_I64));
  give_each(n, marea_onnx_cast(n, y, dtype_of(x)));
}

/* ---- n-grams ---- */

typedef struct gram { /* of the pool */
  const int64_t *at;
  int64_t length, number;
} gram;

typedef struct grams {
  gram *sorted; /* by length and elements */
  size_t n;
  const int64_t *index; /* places of their counts in a result */
  const float *weight;  /* NULL: 1 */
  int64_t columns;      /* of a result */
  int64_t least, most, skips;
  bool counts, weighs; /* TF, IDF */
} grams;

static int by_elements (const void *a, const void *b) {
  const gram *x = a, *y = b;
  if (x->length != y->length) return x->length < y->length ? -1 : 1;
  for (int64_t i = 0; i < x->length; i++)
    if (x->at[i] != y->at[i]) return x->at[i] < y->at[i] ? -1 : 1;
  return 0;
}

static const Marea__AttributeProto *list (onnx_node *n, const char *name) {
  const Marea__AttributeProto *a = marea_onnx_attribute(n, name);
  if (!a) marea_onnx_reject(n, "attribute '%s' is missing", name);
  return a;
}

/* The pool holds single elements, then pairs, ...; starts[k] is where those of length k + 1 begin. */
static bool sort_pool (onnx_node *n, grams *g) {
  const Marea__AttributeProto *pool = list(n, "pool_int64s"), *starts = list(n, "ngram_counts"),
                              *index = list(n, "ngram_indexes");
  const Marea__AttributeProto *weights = marea_onnx_attribute(n, "weights");
  if (!goes_on(n)) return false;
  g->n = 0;
  g->sorted = marea_onnx_room(n, (int64_t)pool->n_ints, sizeof *g->sorted);
  for (size_t k = 0; k < starts->n_ints && goes_on(n); k++) {
    const int64_t end = k + 1 < starts->n_ints ? starts->ints[k + 1] : (int64_t)pool->n_ints,
                  length = (int64_t)k + 1;
    if (starts->ints[k] < 0 || end < starts->ints[k] || end > (int64_t)pool->n_ints ||
        (end - starts->ints[k]) % length)
      marea_onnx_reject(n, "attribute 'ngram_counts' does not fit the pool");
    for (int64_t at = starts->ints[k]; at < end && goes_on(n); at += length) {
      g->sorted[g->n] = (gram){.at = pool->ints + at, .length = length, .number = (int64_t)g->n};
      g->n++;
    }
  }
  if (goes_on(n) && (index->n_ints != g->n || (weights && weights->n_floats != g->n)))
    marea_onnx_reject(n, "expected %zu n-grams in 'ngram_indexes' and 'weights'", g->n);
  for (size_t i = 0; i < index->n_ints && goes_on(n); i++) {
    if (index->ints[i] < 0 || index->ints[i] > INT32_MAX)
      marea_onnx_reject(n, "index %lld of an n-gram", (long long)index->ints[i]);
    g->columns = MAREA_MAX(g->columns, index->ints[i] + 1);
  }
  if (!goes_on(n)) return false;
  g->index = index->ints;
  g->weight = weights ? weights->floats : NULL;
  qsort(g->sorted, g->n, sizeof *g->sorted, by_elements);
  return true;
}

static void note_gram (const grams *g, const gram *wanted, float *to) {
  const gram *found = g->n ? bsearch(wanted, g->sorted, g->n, sizeof *wanted, by_elements) : NULL;
  if (!found) return;
  const float weight = g->weighs && g->weight ? g->weight[found->number] : 1;
  float *at = &to[g->index[found->number]];
  *at = g->counts ? *at + weight : weight;
}

#define MOST_LENGTH 64

/* Elements of a gram are next to each other, or up to `skips` others lie between any two. */
static void count_grams (onnx_node *node, const grams *g, int64_t n, const int64_t *x, float *to) {
  int64_t elements[MOST_LENGTH];
  for (int64_t length = g->least; length <= g->most; length++)
    for (int64_t step = 1; step <= (length > 1 ? g->skips + 1 : 1); step++)
      for (int64_t first = 0; first + (length - 1) * step < n && still(node, first); first++) {
        for (int64_t i = 0; i < length; i++) elements[i] = x[first + i * step];
        note_gram(g, &(gram){.at = elements, .length = length}, to);
      }
}

HANDLER(TfIdfVectorizer) {
  value *x = input(n, 0);
  grams g;
  memset(&g, 0, sizeof g);
  g.least = int_of(n, "min_gram_length", 1);
  g.most = int_of(n, "max_gram_length", 1);
  g.skips = int_of(n, "max_skip_count", 0);
  g.weighs = !marea_onnx_is(n, "mode", "TF", "TF");
  g.counts = !marea_onnx_is(n, "mode", "TF", "IDF");
  if (goes_on(n) && (g.least < 1 || g.most < g.least || g.most > MOST_LENGTH || g.skips < 0 ||
                     g.skips > 1 << 20 || rank_of(x) < 1 || rank_of(x) > 2))
    marea_onnx_reject(n, "grams of %lld to %lld elements, %lld skipped, of %s", (long long)g.least,
                      (long long)g.most, (long long)g.skips, marea_tensor_text(x->t).s);
  const marea_tensor *t = marea_onnx_elements(n, marea_onnx_cast(n, x, MAREA_I64));
  if (t && sort_pool(n, &g)) {
    const int64_t rows = t->rank == 2 ? t->shape[0] : 1, length = t->shape[t->rank - 1],
                  shape[] = {rows, g.columns};
    value *y = marea_onnx_new(n, MAREA_F32, t->rank, t->rank == 2 ? shape : shape + 1);
    if (y) memset(marea_at(y->t), 0, (size_t)(rows * g.columns) * sizeof(float));
    for (int64_t r = 0; r < rows && y && goes_on(n); r++)
      count_grams(n, &g, length, (const int64_t *)marea_at(t) + r * length,
                  (float *)marea_at(y->t) + r * g.columns);
    marea_onnx_give_as(n, 0, y, ONNX_FLOAT);
  }
  marea_free(n->e->ctx, g.sorted);
}
