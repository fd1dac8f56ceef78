/* SPDX-License-Identifier: MIT
** index.c: ONNX operators that pick, put and order elements.
*/
#include <stdlib.h>

#include "node.h"

static value *whole (onnx_node *n, int64_t number) { return marea_onnx_integer(n, number, MAREA_I64); }

static value *chosen (onnx_node *n, value *x, value *index, int dim) {
  return CALL(n, "index_select", VALUES(x, index), NAMED(marea_int("dim", dim)));
}

static value *narrowed (onnx_node *n, value *x, int dim, int64_t length) {
  if (!goes_on(n) || size_of(x, dim) == length) return x;
  return CALL(n, "narrow", VALUES(x),
              NAMED(marea_int("dim", dim), marea_int("start", 0), marea_int("length", length)));
}

static int axis_of (onnx_node *n, const value *x, int64_t initial) {
  return goes_on(n) ? marea_onnx_axis(n, int_of(n, "axis", initial), rank_of(x)) : 0;
}

/* The numbers 0, 1, ... along dimension d of a tensor of this rank, all other sizes being 1. */
static value *range_along (onnx_node *n, int64_t size, int d, int rank) {
  int64_t shape[MAREA_MAX_RANK];
  if (!goes_on(n)) return NULL;
  for (int i = 0; i < rank; i++) shape[i] = i == d ? size : 1;
  return marea_onnx_reshape(n, marea_onnx_range(n, size), rank, shape);
}

/* ---- picked ---- */

HANDLER(Gather) {
  value *x = input(n, 0), *index = input(n, 1);
  const int dim = axis_of(n, x, 0);
  if (!goes_on(n)) return;
  if (rank_of(index) == 0 && marea_value_known(index)) { /* a view */
    const int64_t i = marea_onnx_known_int(n, index);
    if (i < -size_of(x, dim) || i >= size_of(x, dim))
      marea_onnx_reject(n, "index %lld of a dimension of size %lld", (long long)i,
                        (long long)size_of(x, dim));
    give(n, 0,
         CALL(n, "select", VALUES(x),
              NAMED(marea_int("dim", dim), marea_int("index", i < 0 ? i + size_of(x, dim) : i))));
    return;
  }
  give(n, 0, chosen(n, x, marea_onnx_indices(n, index, size_of(x, dim)), dim));
}

/* x cut to the index's sizes in all dimensions but `dim` */
static value *cut_to (onnx_node *n, value *x, const value *index, int dim) {
  if (goes_on(n) && rank_of(x) != rank_of(index))
    marea_onnx_reject(n, "indices of rank %d for data of rank %d", rank_of(index), rank_of(x));
  for (int d = 0; d < rank_of(x) && goes_on(n); d++)
    if (d != dim) x = narrowed(n, x, d, size_of(index, d));
  return x;
}

static value *picked (onnx_node *n, value *x, value *index, int dim) {
  return CALL(n, "gather", VALUES(x, index), NAMED(marea_int("dim", dim)));
}

HANDLER(GatherElements) {
  value *x = input(n, 0), *index = input(n, 1);
  const int dim = axis_of(n, x, 0);
  if (!goes_on(n)) return;
  give(n, 0, picked(n, cut_to(n, x, index, dim), marea_onnx_indices(n, index, size_of(x, dim)), dim));
}

/* ---- several positions at once: numbers of rows of x, made flat ---- */

typedef struct row_set {
  value *x;          /* (all places, what one place has) */
  value *index;      /* numbers of places, with Marea's base */
  int64_t n, length; /* of the index; of a row */
} row_set;

/* The index from 0 on; *inside: is it in 0..size-1? */
static value *from_zero (onnx_node *n, value *index, value *size, value **inside) {
  value *zero = whole(n, 0);
  index = marea_onnx_cast(n, index, MAREA_I64);
  index = add(n, index, where(n, op2(n, "lt", index, zero), size, zero));
  *inside = mul(n, op2(n, "ge", index, zero), op2(n, "lt", index, size));
  return index;
}

/* As Marea's operators take them, and one that they refuse in place of what is not inside. */
static value *numbers_inside (onnx_node *n, value *number, value *inside, int64_t count) {
  const int base = n->e->ctx->config.index_base;
  number = where(n, inside, add(n, number, whole(n, base)), whole(n, base - 1));
  return marea_onnx_reshape(n, number, 1, &count);
}

static bool fit (onnx_node *n, const value *x, const value *index, int batch) {
  const int rank = rank_of(index);
  if (!goes_on(n)) return false;
  const int64_t k = rank ? size_of(index, rank - 1) : 0;
  bool fits = k >= 1 && batch >= 0 && batch < rank && k <= rank_of(x) - batch;
  for (int d = 0; fits && d < batch; d++) fits = size_of(index, d) == size_of(x, d);
  if (!fits)
    marea_onnx_reject(n, "indices %s do not fit data %s", marea_tensor_text(index->t).s,
                      marea_tensor_text(x->t).s);
  return fits;
}

/* The places of an index (batch.., .., k) in x, whose first `batch` dimensions are the index's. */
static bool find_rows (onnx_node *n, value *x, value *index, int batch, row_set *r) {
  if (!fit(n, x, index, batch)) return false;
  const int rank = rank_of(index), k = (int)size_of(index, rank - 1);
  const int64_t *shape = x->t->shape, batches = marea_count(batch, shape),
                places = marea_count(k, shape + batch);
  const int64_t last = rank - 1, each_batch = marea_count(rank - 1 - batch, index->t->shape + batch);
  int64_t stride[MAREA_MAX_RANK];
  for (int d = k - 1; d >= 0; d--) stride[d] = d == k - 1 ? 1 : stride[d + 1] * shape[batch + d + 1];
  value *inside;
  index = from_zero(n, index, marea_onnx_from_ints(n, k, shape + batch), &inside);
  inside = CALL(n, "all", VALUES(inside), NAMED(marea_ints("dims", 1, &last)));
  value *steps = mul(n, index, marea_onnx_from_ints(n, k, stride));
  value *number = CALL(n, "sum", VALUES(steps), NAMED(marea_ints("dims", 1, &last)));
  if (batch) {
    const int64_t flat[] = {batches, each_batch};
    value *first = mul(n, range_along(n, batches, 0, 2), whole(n, places));
    number = add(n, marea_onnx_reshape(n, number, 2, flat), first);
    inside = marea_onnx_reshape(n, inside, 2, flat);
  }
  *r = (row_set){.n = batches * each_batch, .length = marea_count(rank_of(x) - batch - k, shape + batch + k)};
  r->index = numbers_inside(n, number, inside, r->n);
  r->x = marea_onnx_reshape(n, x, 2, (int64_t[]){batches * places, r->length});
  return goes_on(n);
}

/* (.., k) and what one place has */
static int row_shape (const value *x, const value *index, int batch, int64_t *shape) {
  const int rank = rank_of(index), k = (int)size_of(index, rank - 1);
  int to = 0;
  for (int d = 0; d < rank - 1; d++) shape[to++] = size_of(index, d);
  for (int d = batch + k; d < rank_of(x); d++) shape[to++] = size_of(x, d);
  return to;
}

HANDLER(GatherND) {
  value *x = input(n, 0), *index = input(n, 1);
  const int64_t batch = int_of(n, "batch_dims", 0);
  int64_t shape[2 * MAREA_MAX_RANK];
  row_set r;
  if (!find_rows(n, x, index, (int)MAREA_MIN(batch, MAREA_MAX_RANK), &r)) return;
  const int rank = row_shape(x, index, (int)batch, shape);
  give(n, 0, marea_onnx_reshape(n, chosen(n, r.x, r.index, 0), rank, shape));
}

/* ---- put ---- */

static value *combined (onnx_node *n, value *x, value *index, value *src) {
  static const char *const words[] = {"none", "add", "mul", "max", "min"};
  char way[8];
  int w = 0;
  marea_onnx_text(n, "reduction", "none", way, sizeof way);
  while (w < MAREA_COUNT(words) && strcmp(way, words[w]) != 0) w++;
  if (goes_on(n) && w == MAREA_COUNT(words)) marea_onnx_reject(n, "the reduction '%s' is not supported", way);
  if (w == 1) return CALL(n, "index_add", VALUES(x, index, src), NAMED(marea_int("dim", 0)));
  return CALL(n, "index_reduce", VALUES(x, index, src),
              NAMED(marea_int("dim", 0), marea_word("reduce", w ? words[w % MAREA_COUNT(words)] : "put")));
}

HANDLER(ScatterND) {
  value *x = input(n, 0), *index = input(n, 1), *src = input(n, 2);
  row_set r;
  if (!find_rows(n, x, index, 0, &r)) return;
  value *y = combined(n, r.x, r.index, marea_onnx_reshape(n, src, 2, (int64_t[]){r.n, r.length}));
  give(n, 0, marea_onnx_reshape(n, y, rank_of(x), x->t->shape));
}

/* Numbers, in x made flat, of the elements that the index means along `dim`. */
static value *element_numbers (onnx_node *n, const value *x, value *index, int dim) {
  const int rank = rank_of(x);
  int64_t stride = 1;
  value *inside, *number = whole(n, 0);
  index = from_zero(n, index, whole(n, size_of(x, dim)), &inside);
  for (int d = rank - 1; d >= 0 && goes_on(n); stride *= size_of(x, d--)) {
    value *along = d == dim ? index : range_along(n, size_of(index, d), d, rank);
    number = add(n, number, mul(n, along, whole(n, stride)));
  }
  return goes_on(n) ? numbers_inside(n, number, inside, count_of(index)) : NULL;
}

HANDLER(ScatterElements) {
  value *x = input(n, 0), *index = input(n, 1), *src = input(n, 2);
  const int dim = axis_of(n, x, 0);
  cut_to(n, x, index, dim); /* refuses an index that is larger */
  if (goes_on(n) && !marea_has_shape(src->t, rank_of(index), index->t->shape))
    marea_onnx_reject(n, "updates %s for indices %s", marea_tensor_text(src->t).s,
                      marea_tensor_text(index->t).s);
  if (!goes_on(n)) return;
  const int64_t all[1] = {count_of(x)}, some[1] = {count_of(index)};
  value *place = element_numbers(n, x, index, dim);
  value *y = combined(n, marea_onnx_reshape(n, x, 1, all), place, marea_onnx_reshape(n, src, 1, some));
  give(n, 0, marea_onnx_reshape(n, y, rank_of(x), x->t->shape));
}

HANDLER(Scatter) { marea_onnx_ScatterElements(n); }

/* values[1] where the index is that class, else values[0]; an index outside gives values[0] throughout. */
HANDLER(OneHot) {
  value *index = input(n, 0), *depth = input(n, 1), *off_on = input(n, 2);
  if (!goes_on(n)) return;
  const int64_t classes = marea_onnx_known_int(n, depth);
  const int rank = rank_of(index) + 1, dim = marea_onnx_axis(n, int_of(n, "axis", -1), rank);
  int64_t shape[MAREA_MAX_RANK];
  if (rank > MAREA_MAX_RANK)
    marea_onnx_reject(n, "a result of rank %d; at most %d are supported", rank, MAREA_MAX_RANK);
  if (!goes_on(n)) return;
  for (int d = 0; d < rank; d++) shape[d] = d == dim ? 1 : size_of(index, d - (d > dim));
  index = marea_onnx_cast(n, index, MAREA_I64);
  index = add(n, index, where(n, op2(n, "lt", index, whole(n, 0)), whole(n, classes), whole(n, 0)));
  value *hit = op2(n, "eq", marea_onnx_reshape(n, index, rank, shape), range_along(n, classes, dim, rank));
  value *level[2];
  for (int i = 0; i < 2; i++)
    level[i] = CALL(n, "select", VALUES(off_on), NAMED(marea_int("dim", 0), marea_int("index", i)));
  value *y = where(n, hit, level[1], level[0]);
  marea_onnx_give_as(n, 0, y, n->in[2]->type);
}

/* ---- how many there are depends on the elements ---- */

static value *places_of_others (onnx_node *n, value *x) {
  if (!marea_onnx_elements(n, x)) return NULL; /* the number of results is the number of elements in a plan */
  return op1(n, "flatnonzero", x);
}

HANDLER(NonZero) {
  value *x = input(n, 0), *place = marea_onnx_positions(n, places_of_others(n, x)), *row[MAREA_MAX_RANK];
  const int rank = rank_of(x);
  if (!goes_on(n)) return;
  int64_t found = count_of(place);
  value *rest = marea_onnx_reshape(n, place, 2, (int64_t[]){1, found});
  for (int d = rank - 1; d >= 0; d--) {
    value *size = whole(n, MAREA_MAX(size_of(x, d), 1));
    row[d] = op2(n, "remainder", rest, size);
    rest = op2(n, "floor_divide", rest, size);
  }
  value *y = rank ? marea_onnx_call(n, "concat", rank, row, NAMED(marea_int("dim", 0)))
                  : marea_onnx_new(n, MAREA_I64, 2, (int64_t[]){0, found});
  marea_onnx_give_as(n, 0, y, ONNX_INT64);
}

HANDLER(Compress) {
  value *x = input(n, 0), *condition = input(n, 1);
  const bool flat = !marea_onnx_attribute(n, "axis");
  if (flat && goes_on(n)) x = marea_onnx_reshape(n, x, 1, (int64_t[]){count_of(x)});
  const int dim = flat ? 0 : axis_of(n, x, 0);
  give(n, 0, chosen(n, x, places_of_others(n, condition), dim));
}

/* ---- in order ---- */

HANDLER(TopK) {
  value *x = input(n, 0), *y[2];
  const int dim = axis_of(n, x, -1);
  const int64_t k = n->n_in > 1 ? marea_onnx_known_int(n, input(n, 1)) : int_of(n, "k", 0);
  marea_onnx_call_all(
      n, "topk", VALUES(x),
      NAMED(marea_int("k", k), marea_int("dim", dim), marea_int("largest", int_of(n, "largest", 1) != 0)), 2,
      y);
  if (!goes_on(n)) return;
  marea_onnx_give_as(n, 0, y[0], n->in[0]->type);
  marea_onnx_give_as(n, 1, marea_onnx_positions(n, y[1]), ONNX_INT64);
}

typedef struct item { /* a row of numbers, and its place */
  const void *at;
  int64_t length, place;
} item;

static int compare_numbers (const double *a, const double *b, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const bool nan_a = a[i] != a[i], nan_b = b[i] != b[i]; /* NaN comes last */
    if (nan_a || nan_b) {
      if (nan_a != nan_b) return nan_a - nan_b;
    } else if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  }
  return 0;
}

static int compare_integers (const int64_t *a, const int64_t *b, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  return 0;
}

static int by_number (const void *a, const void *b) {
  const item *x = a, *y = b;
  const int order = compare_numbers(x->at, y->at, x->length);
  return order ? order : (x->place > y->place) - (x->place < y->place);
}

static int by_integer (const void *a, const void *b) {
  const item *x = a, *y = b;
  const int order = compare_integers(x->at, y->at, x->length);
  return order ? order : (x->place > y->place) - (x->place < y->place);
}

static int by_place (const void *a, const void *b) {
  const item *x = a, *y = b;
  return (x->place > y->place) - (x->place < y->place);
}

typedef struct unique { /* results: i64 of the number of kinds, of rows and of kinds */
  value *first, *inverse, *counts;
} unique;

static int compare_rows (const item *a, const item *b, int64_t length, bool integers) {
  return integers ? compare_integers(a->at, b->at, length) : compare_numbers(a->at, b->at, length);
}

/* Runs of equal rows among sorted ones: .at is the first, .length how many, .place the least. Gives their number. */
static int64_t find_runs (const item *rows, int64_t n, bool integers, item *runs) {
  int64_t found = 0;
  for (int64_t i = 0; i < n; i++) {
    if (i == 0 || compare_rows(&rows[i - 1], &rows[i], rows[i].length, integers) != 0)
      runs[found++] = (item){.at = &rows[i], .place = rows[i].place};
    runs[found - 1].length++;
  }
  return found;
}

static void note_runs (onnx_node *n, const item *runs, int64_t found, int64_t count, unique *u) {
  u->first = marea_onnx_new(n, MAREA_I64, 1, &found);
  u->counts = marea_onnx_new(n, MAREA_I64, 1, &found);
  u->inverse = marea_onnx_new(n, MAREA_I64, 1, &count);
  for (int64_t k = 0; k < found && still(n, k); k++) {
    const item *rows = runs[k].at;
    ((int64_t *)marea_at(u->first->t))[k] = runs[k].place;
    ((int64_t *)marea_at(u->counts->t))[k] = runs[k].length;
    for (int64_t i = 0; i < runs[k].length; i++) ((int64_t *)marea_at(u->inverse->t))[rows[i].place] = k;
  }
}

/* The rows of a known matrix of f64 or i64; which are equal? They are sorted, or stay as they come. */
static void find_unique (onnx_node *n, value *matrix, bool sorted, unique *u) {
  const marea_tensor *t = marea_onnx_elements(n, matrix);
  if (!t) return;
  const int64_t count = t->shape[0], length = t->shape[1];
  const bool integers = t->dtype == MAREA_I64;
  item *items = marea_onnx_room(n, count, 2 * sizeof *items);
  if (!items) return;
  for (int64_t i = 0; i < count && still(n, i); i++)
    items[i] = (item){
        .at = (const char *)marea_at(t) + (size_t)(i * length) * 8, .length = length, .place = i};
  if (goes_on(n)) {
    qsort(items, (size_t)count, sizeof *items, integers ? by_integer : by_number);
    const int64_t found = find_runs(items, count, integers, items + count);
    if (!sorted) qsort(items + count, (size_t)found, sizeof *items, by_place);
    note_runs(n, items + count, found, count, u);
  }
  marea_free(n->e->ctx, items);
}

/* Elements, or with `axis` slices of a dimension. */
HANDLER(Unique) {
  value *x = input(n, 0);
  const bool flat = !marea_onnx_attribute(n, "axis"), sorted = int_of(n, "sorted", 1);
  unique u = {NULL, NULL, NULL};
  int turn[MAREA_MAX_RANK] = {0};
  if (flat && goes_on(n)) x = marea_onnx_reshape(n, x, 1, (int64_t[]){count_of(x)});
  const int dim = flat ? 0 : axis_of(n, x, 0);
  if (!goes_on(n)) return;
  turn[0] = dim;
  for (int d = 0, to = 1; d < rank_of(x); d++)
    if (d != dim) turn[to++] = d;
  value *matrix = marea_onnx_permute(n, x, rank_of(x), turn);
  const int64_t size = size_of(x, dim), rest = size ? count_of(x) / size : 0;
  matrix = marea_onnx_reshape(n, matrix, 2, (int64_t[]){size, rest});
  const bool real = marea_dtype_is_float((marea_dtype)dtype_of(x));
  find_unique(n, marea_onnx_cast(n, matrix, real ? MAREA_F64 : MAREA_I64), sorted, &u);
  if (!goes_on(n)) return;
  give(n, 0, chosen(n, x, marea_onnx_indices(n, u.first, size), dim));
  marea_onnx_give_as(n, 1, u.first, ONNX_INT64);
  marea_onnx_give_as(n, 2, u.inverse, ONNX_INT64);
  marea_onnx_give_as(n, 3, u.counts, ONNX_INT64);
}

/* Element t of a sequence of length l is its element l - 1 - t, behind its end t itself. */
HANDLER(ReverseSequence) {
  value *x = input(n, 0), *lengths = input(n, 1);
  const int64_t batch_axis = int_of(n, "batch_axis", 1), time_axis = int_of(n, "time_axis", 0);
  const int rank = rank_of(x);
  if (!goes_on(n)) return;
  const int batch = marea_onnx_axis(n, batch_axis, rank), time = marea_onnx_axis(n, time_axis, rank);
  int64_t shape[MAREA_MAX_RANK];
  for (int d = 0; d < rank; d++) shape[d] = d == batch ? size_of(x, d) : 1;
  value *l = marea_onnx_reshape(n, marea_onnx_cast(n, lengths, MAREA_I64), rank, shape);
  value *t = range_along(n, size_of(x, time), time, rank);
  value *from = where(n, op2(n, "lt", t, l), sub(n, sub(n, l, t), whole(n, 1)), t);
  from = marea_onnx_expand(n, marea_onnx_indices(n, from, size_of(x, time)), rank, x->t->shape);
  give(n, 0, picked(n, x, from, time));
}
