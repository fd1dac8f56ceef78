/* SPDX-License-Identifier: MIT
** einsum.c: sums of products by labels of dimensions. Two factors at a time become one: as a product of matrices over
** labels that nothing behind needs, else as a product by elements.
*/
#include "node.h"

/* A label is 0..51, A to Z and a to z; the dimensions of "..." are REST, REST + 1, ... from the last one on. */
enum { REST = 52, LABELS = REST + MAREA_MAX_RANK };

typedef struct term {
  value *x;
  int n;
  uint8_t label[MAREA_MAX_RANK]; /* of x's dimensions */
} term;

typedef struct sum {
  int64_t size[LABELS]; /* of the labels; 0: it does not occur */
  int rest;             /* dimensions of "..." */
  uint64_t once;        /* letters that occur once */
  term out;             /* labels alone */
} sum;

static uint64_t bit (int label) { return (uint64_t)1 << label; }

static uint64_t labels_of (const term *t) {
  uint64_t set = 0;
  for (int d = 0; d < t->n; d++) set |= bit(t->label[d]);
  return set;
}

static int place_of (const term *t, int label) {
  for (int d = 0; d < t->n; d++)
    if (t->label[d] == label) return d;
  return -1;
}

/* ---- the equation ---- */

static int label_of (char c) {
  return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : -1;
}

static void bad (onnx_node *n, const char *text) {
  marea_onnx_reject(n, "the equation '%.80s' does not fit its inputs", text);
}

/* The labels of the text from *at to a comma, an arrow or the end; `rest` dimensions stand for "...", -1: what is left. */
static void read_term (onnx_node *n, const char *text, const char **at, int rank, int rest, term *t) {
  const char *from = *at;
  int letters = 0, dots = 0;
  for (; **at && **at != ',' && **at != '-'; ++*at) {
    letters += label_of(**at) >= 0;
    dots += **at == '.';
    if (label_of(**at) < 0 && **at != '.') bad(n, text);
  }
  if (rest < 0) rest = dots ? rank - letters : 0;
  t->n = 0;
  if (rest < 0 || (dots && dots != 3) || letters + rest != rank || rank > MAREA_MAX_RANK) bad(n, text);
  for (const char *p = from; p < *at && goes_on(n); p++) {
    if (label_of(*p) >= 0) t->label[t->n++] = (uint8_t)label_of(*p);
    else if (strncmp(p, "...", 3) == 0)
      for (int k = rest; k > 0; k--) t->label[t->n++] = (uint8_t)(REST + k - 1);
  }
  if (goes_on(n) && t->n != rank) bad(n, text);
}

static void without_spaces (char *text) {
  char *to = text;
  for (const char *p = text; *p; p++)
    if (*p != ' ') *to++ = *p;
  *to = '\0';
}

static int rank_of_text (const char *text, int rest) {
  int letters = 0;
  bool dots = false;
  for (; *text; text++) {
    letters += label_of(*text) >= 0;
    dots = dots || *text == '.';
  }
  return letters + (dots ? rest : 0);
}

/* Without "->": the dimensions of "...", then the letters that occur once, in their order. */
static void find_result (onnx_node *n, const char *text, const char *at, sum *s) {
  s->out.n = 0;
  if (strncmp(at, "->", 2) == 0) {
    at += 2;
    read_term(n, text, &at, rank_of_text(at, s->rest), s->rest, &s->out);
    if (goes_on(n) && *at) bad(n, text);
    for (int d = 0; d < s->out.n && goes_on(n); d++)
      if (!s->size[s->out.label[d]] || place_of(&s->out, s->out.label[d]) != d) bad(n, text);
    return;
  }
  if (*at) bad(n, text);
  for (int k = s->rest; k > 0 && goes_on(n); k--) s->out.label[s->out.n++] = (uint8_t)(REST + k - 1);
  for (int k = 0; k < REST && goes_on(n); k++) {
    if (!(s->once & bit(k))) continue;
    if (s->out.n == MAREA_MAX_RANK) bad(n, text);
    else s->out.label[s->out.n++] = (uint8_t)k;
  }
}

/* ---- one term ---- */

static value *summed (onnx_node *n, value *x, int count, const int64_t *dims) {
  return count ? CALL(n, "sum", VALUES(x), NAMED(marea_ints("dims", count, dims))) : x;
}

static void drop_label (term *t, int d) {
  t->n--;
  for (int i = d; i < t->n; i++) t->label[i] = t->label[i + 1];
}

/* Dimensions i < j with one label become one: the diagonal. */
static void take_diagonal (onnx_node *n, term *t, int i, int j) {
  int64_t shape[MAREA_MAX_RANK];
  int dims[MAREA_MAX_RANK], to = 0;
  const int64_t size = size_of(t->x, i);
  const uint8_t label = t->label[i];
  if (size_of(t->x, j) != size)
    marea_onnx_reject(n, "a diagonal of sizes %lld and %lld", (long long)size, (long long)size_of(t->x, j));
  for (int d = 0; d < t->n; d++)
    if (d != i && d != j) {
      shape[to] = size_of(t->x, d);
      dims[to++] = d;
    }
  dims[to] = i;
  dims[to + 1] = j;
  shape[to] = size * size;
  value *flat = marea_onnx_reshape(n, marea_onnx_permute(n, t->x, t->n, dims), to + 1, shape);
  t->x = CALL(n, "slice", VALUES(flat), NAMED(marea_int("dim", to), marea_int("step", size + 1)));
  drop_label(t, j);
  drop_label(t, i);
  t->label[t->n++] = label;
}

static void take_diagonals (onnx_node *n, term *t) {
  for (int j = t->n - 1; j > 0 && goes_on(n); j--) {
    const int i = place_of(t, t->label[j]);
    if (i >= j) continue;
    take_diagonal(n, t, i, j);
    j = t->n;
  }
}

static void note_sizes (onnx_node *n, const term *t, sum *s) {
  for (int d = 0; d < t->n && goes_on(n); d++) {
    int64_t *size = &s->size[t->label[d]];
    if (*size && *size != 1 && size_of(t->x, d) != 1 && *size != size_of(t->x, d))
      marea_onnx_reject(n, "a label has the sizes %lld and %lld", (long long)*size,
                        (long long)size_of(t->x, d));
    if (*size == 0 || *size == 1) *size = size_of(t->x, d);
    if (t->label[d] >= REST) s->rest = MAREA_MAX(s->rest, t->label[d] - REST + 1);
  }
}

/* A dimension of size 1 that is repeated need not be there. */
static void drop_ones (onnx_node *n, term *t, const sum *s) {
  int64_t shape[MAREA_MAX_RANK];
  for (int d = t->n - 1; d >= 0; d--)
    if (size_of(t->x, d) == 1 && s->size[t->label[d]] != 1) {
      int to = 0;
      for (int i = 0; i < t->n; i++)
        if (i != d) shape[to++] = size_of(t->x, i);
      t->x = marea_onnx_reshape(n, t->x, to, shape);
      drop_label(t, d);
      if (!goes_on(n)) return;
    }
}

static void sum_out (onnx_node *n, term *t, uint64_t keep) {
  int64_t dims[MAREA_MAX_RANK];
  int count = 0;
  for (int d = 0; d < t->n; d++)
    if (!(keep & bit(t->label[d]))) dims[count++] = d;
  t->x = summed(n, t->x, count, dims);
  while (count > 0) drop_label(t, (int)dims[--count]);
}

/* ---- two terms ---- */

/* The labels of a set in the order in which a term has them. */
static int list_labels (const term *by, uint64_t set, uint8_t *to) {
  int n = 0;
  for (int d = 0; d < by->n; d++)
    if (set & bit(by->label[d])) to[n++] = by->label[d];
  return n;
}

static int64_t product_of (uint64_t set, const sum *s) {
  int64_t n = 1;
  for (int k = 0; k < LABELS; k++)
    if (set & bit(k)) n *= s->size[k];
  return n;
}

/* t with its dimensions in the order of labels, those that it has */
static value *turned (onnx_node *n, const term *t, int count, const uint8_t *labels) {
  int dims[MAREA_MAX_RANK], to = 0;
  for (int i = 0; i < count; i++) {
    const int d = place_of(t, labels[i]);
    if (d >= 0) dims[to++] = d;
  }
  return marea_onnx_permute(n, t->x, t->n, dims);
}

typedef struct groups {
  uint64_t both, inner, a, b; /* labels of both that stay, of both that are summed over, of one alone */
} groups;

/* Does t have what is summed over before its own labels? Then it is taken as a transposed matrix, and nothing is moved. */
static bool is_transposed (const term *t, uint64_t inner, uint64_t own) {
  for (int d = 0; d < t->n; d++) {
    if (inner & bit(t->label[d])) return own != 0;
    if (own & bit(t->label[d])) return false;
  }
  return false;
}

/* (both.., rows, columns), one of these being inner labels; shared labels have the order of `by`. */
static value *as_matrices (onnx_node *n, const term *t, const term *by, uint64_t both, uint64_t rows,
                           uint64_t columns, uint64_t inner, const sum *s) {
  uint8_t labels[3 * MAREA_MAX_RANK];
  int count = list_labels(by, both, labels);
  count += list_labels(rows == inner ? by : t, rows, labels + count);
  count += list_labels(columns == inner ? by : t, columns, labels + count);
  const int64_t shape[] = {product_of(both, s), product_of(rows, s), product_of(columns, s)};
  return marea_onnx_reshape(n, turned(n, t, count, labels), both ? 3 : 2, both ? shape : shape + 1);
}

static void multiply_matrices (onnx_node *n, const term *a, const term *b, const groups *g, const sum *s,
                               term *out) {
  int64_t shape[2 * MAREA_MAX_RANK];
  uint8_t labels[2 * MAREA_MAX_RANK];
  const bool ta = is_transposed(a, g->inner, g->a), tb = !is_transposed(b, g->inner, g->b) && g->b;
  value *x = as_matrices(n, a, a, g->both, ta ? g->inner : g->a, ta ? g->a : g->inner, g->inner, s);
  value *y = as_matrices(n, b, a, g->both, tb ? g->b : g->inner, tb ? g->inner : g->b, g->inner, s);
  value *z = CALL(n, "matmul", VALUES(x, y),
                  NAMED(marea_int("transpose_a", ta), marea_int("transpose_b", tb)));
  int count = list_labels(a, g->both, labels);
  count += list_labels(a, g->a, labels + count);
  count += list_labels(b, g->b, labels + count);
  for (int i = 0; i < count; i++) shape[i] = s->size[labels[i]];
  out->x = marea_onnx_reshape(n, z, count, shape);
  out->n = count;
  if (goes_on(n)) memcpy(out->label, labels, (size_t)count);
}

/* t with a dimension for each label, of size 1 where it has none */
static value *spread (onnx_node *n, const term *t, int count, const uint8_t *labels, const sum *s) {
  int64_t shape[LABELS];
  for (int i = 0; i < count; i++) shape[i] = place_of(t, labels[i]) >= 0 ? s->size[labels[i]] : 1;
  return marea_onnx_reshape(n, turned(n, t, count, labels), count, shape);
}

static void multiply_elements (onnx_node *n, const term *a, const term *b, const groups *g, const sum *s,
                               term *out) {
  uint8_t labels[LABELS];
  int count = list_labels(a, labels_of(a), labels);
  count += list_labels(b, g->b, labels + count);
  value *y = mul(n, spread(n, a, count, labels, s), spread(n, b, count, labels, s));
  if (!goes_on(n)) return;
  *out = (term){.x = y, .n = count};
  memcpy(out->label, labels, (size_t)count);
  sum_out(n, out, ~g->inner);
}

/* *a := the product of both, summed over the labels that are not to be kept */
static void contract (onnx_node *n, term *a, term *b, uint64_t keep, const sum *s) {
  sum_out(n, a, keep | labels_of(b));
  sum_out(n, b, keep | labels_of(a));
  if (!goes_on(n)) return;
  const uint64_t of_a = labels_of(a), of_b = labels_of(b), shared = of_a & of_b;
  const groups g = {.both = shared & keep, .inner = shared & ~keep, .a = of_a & ~of_b, .b = of_b & ~of_a};
  const bool real = marea_dtype_is_float((marea_dtype)dtype_of(a->x));
  term out = {NULL, 0, {0}};
  if (real && g.inner) multiply_matrices(n, a, b, &g, s, &out);
  else multiply_elements(n, a, b, &g, s, &out);
  *a = out;
}

static void sum_products (onnx_node *n, term *terms, const sum *s) {
  const uint64_t wanted = labels_of(&s->out);
  for (int i = 1; i < n->n_in && goes_on(n); i++) {
    uint64_t later = wanted;
    for (int k = i + 1; k < n->n_in; k++) later |= labels_of(&terms[k]);
    contract(n, &terms[0], &terms[i], later, s);
  }
  sum_out(n, &terms[0], wanted);
  if (!goes_on(n)) return;
  if (labels_of(&terms[0]) != wanted) marea_onnx_reject(n, "a label of the result is in no input");
  else marea_onnx_give_as(n, 0, turned(n, &terms[0], s->out.n, s->out.label), n->in[0]->type);
}

static void read_terms (onnx_node *n, char *text, term *terms, sum *s) {
  uint64_t seen = 0;
  marea_onnx_text(n, "equation", "", text, 256);
  without_spaces(text);
  const char *at = text;
  for (int i = 0; i < n->n_in && goes_on(n); i++) {
    term *t = &terms[i];
    t->x = input(n, i);
    if (i > 0 && *at++ != ',') bad(n, text);
    if (goes_on(n)) read_term(n, text, &at, rank_of(t->x), -1, t);
    if (!goes_on(n)) return;
    for (int d = 0; d < t->n; d++) {
      s->once = seen & bit(t->label[d]) ? s->once & ~bit(t->label[d]) : s->once | bit(t->label[d]);
      seen |= bit(t->label[d]);
    }
    if (goes_on(n)) take_diagonals(n, t);
    note_sizes(n, t, s);
  }
  if (goes_on(n)) find_result(n, text, at, s);
}

HANDLER(Einsum) {
  char text[256];
  sum s;
  memset(&s, 0, sizeof s);
  if (n->n_in == 0) marea_onnx_reject(n, "expected an input");
  term *terms = marea_onnx_room(n, n->n_in, sizeof *terms);
  if (!terms) return;
  memset(terms, 0, (size_t)n->n_in * sizeof *terms);
  read_terms(n, text, terms, &s);
  for (int i = 0; i < n->n_in && goes_on(n); i++) drop_ones(n, &terms[i], &s);
  if (goes_on(n)) sum_products(n, terms, &s);
  marea_free(n->e->ctx, terms);
}
