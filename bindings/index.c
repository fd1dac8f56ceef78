/* SPDX-License-Identifier: MIT
** index.c: t[i], t[{i, j}], t['2:5, :, -1'], t[mask] and t[positions], read and written. A full index reads a number,
** a partial one makes a view, a mask or positions make a copy; gradients flow through both. While operators are
** recorded, a full index of what requires a gradient makes a view too, of rank 0: a number would lose the gradient
** without a word. Positions are 1-based, negative ones count from the end.
*/
#include <ctype.h>
#include <stdlib.h>

#include "bind.h"

/* What the key says about one dimension: all of it, one position, or a range. Positions are 0-based or negative. */
typedef struct part {
  bool whole, single;
  int64_t start, stop, step;
} part;

/* The parts of the dimensions from the first on. A tensor in the key covers the dimensions at .. at + across - 1: as
   many as a mask has, or one for positions. The parts of covered dimensions are `whole`. */
typedef struct key {
  int n;
  part part[MAREA_MAX_RANK];
  marea_tensor *by; /* NULL: none. Borrowed: the key is on the stack */
  int at, across;
} key;

static bool is_mask (const marea_tensor *t) { return marea_tensor_dtype(t) == MAREA_U8; }

/* ---- reading the key ---- */

static void check_position (lua_State *L, bind_state *S, const marea_tensor *t, int dim, int64_t i) {
  int64_t size = marea_tensor_shape(t)[dim];
  if (i == 0) bind_raise(L, S, "index 0: the first element is 1");
  if (i > size || i < -size)
    bind_raise(L, S, "index %I is out of range for dimension %d of tensor %s", (LUAI_UACINT)i, dim + 1,
               bind_shape(t).s);
}

static void add_single (lua_State *L, bind_state *S, const marea_tensor *t, key *k, int64_t i) {
  if (k->n == marea_tensor_rank(t))
    bind_raise(L, S, "index: too many positions for tensor %s", bind_shape(t).s);
  check_position(L, S, t, k->n, i);
  k->part[k->n++] = (part){.single = true, .start = i > 0 ? i - 1 : i};
}

static const char *skip (const char *s) {
  while (isspace((unsigned char)*s)) s++;
  return s;
}

/* An integer at *s, if there is one. */
static bool scan_integer (const char **s, int64_t *value) {
  char *end;
  const char *from = skip(*s);
  if (!isdigit((unsigned char)from[*from == '-'])) return false;
  *value = strtoll(from, &end, 10);
  *s = skip(end);
  return true;
}

bool bind_is_slice (const char *s) {
  if (!*s) return false;
  for (; *s; s++)
    if (!isdigit((unsigned char)*s) && !isspace((unsigned char)*s) && !strchr(":,-", *s)) return false;
  return true;
}

/* start:stop:step, each of which may be missing, or one position. Returns what follows, NULL: malformed. */
static const char *scan_part (const char *s, part *p, bool *start, bool *stop) {
  int64_t step = 1;
  *start = scan_integer(&s, &p->start);
  s = skip(s);
  p->single = *s != ':';
  *stop = false;
  if (p->single) return *start ? s : NULL;
  s++;
  *stop = scan_integer(&s, &p->stop);
  s = skip(s);
  if (*s == ':') {
    s++;
    if (!scan_integer(&s, &step)) return NULL;
  }
  p->step = step;
  p->whole = !*start && !*stop && step == 1;
  return s;
}

/* Reads one part of `text` at s; returns what follows. */
static const char *read_slice (lua_State *L, bind_state *S, const marea_tensor *t, const char *text,
                               const char *s, key *k) {
  part p = {0};
  bool start, stop;
  s = scan_part(s, &p, &start, &stop);
  if (!s || (*s != ',' && *s))
    bind_raise(L, S, "index '%s': expected positions and ranges such as '2:5, :, -1'", text);
  if (k->n == marea_tensor_rank(t))
    bind_raise(L, S, "index '%s': too many positions for tensor %s", text, bind_shape(t).s);
  if (start) check_position(L, S, t, k->n, p.start);
  if (stop) check_position(L, S, t, k->n, p.stop);
  if (!start) p.start = 1;
  if (!stop) p.stop = -1;
  p.start -= p.start > 0;
  p.stop -= p.stop > 0;
  k->part[k->n++] = p;
  return s;
}

static void read_slices (lua_State *L, bind_state *S, const marea_tensor *t, const char *text, key *k) {
  const char *s = read_slice(L, S, t, text, skip(text), k);
  while (*s) s = read_slice(L, S, t, text, s + 1, k);
}

/* Does a mask have the sizes of t's dimensions from `at` on? */
static bool covers (const marea_tensor *mask, const marea_tensor *t, int at) {
  int rank = marea_tensor_rank(mask);
  if (rank == 0 || at + rank > marea_tensor_rank(t)) return false;
  for (int d = 0; d < rank; d++)
    if (marea_tensor_shape(mask)[d] != marea_tensor_shape(t)[at + d]) return false;
  return true;
}

/* The tensor at idx: a mask (u8) or positions (i64). */
static void add_tensor (lua_State *L, bind_state *S, const marea_tensor *t, key *k, int idx) {
  marea_tensor *by = bind_check(L, S, idx, "index", "t");
  marea_dtype dtype = marea_tensor_dtype(by);
  if (dtype != MAREA_U8 && dtype != MAREA_I64)
    bind_raise(L, S, "index: expected a mask (u8, as comparisons give it) or positions (i64), got tensor %s",
               bind_shape(by).s);
  if (k->by)
    bind_raise(L, S, "index: one mask or tensor of positions at a time; gather picks by pairs of positions");
  if (dtype == MAREA_I64 && k->n == marea_tensor_rank(t))
    bind_raise(L, S, "index: too many positions for tensor %s", bind_shape(t).s);
  if (dtype == MAREA_U8 && !covers(by, t, k->n))
    bind_raise(L, S, "index: mask %s does not have the sizes of tensor %s from dimension %d on",
               bind_shape(by).s, bind_shape(t).s, k->n + 1);
  k->by = by;
  k->at = k->n;
  k->across = dtype == MAREA_U8 ? marea_tensor_rank(by) : 1;
  for (int d = 0; d < k->across; d++) k->part[k->n++] = (part){.whole = true};
}

static void read_item (lua_State *L, bind_state *S, const marea_tensor *t, key *k, int i) {
  int64_t position;
  if (bind_to_integer(L, -1, &position)) {
    add_single(L, S, t, k, position);
  } else if (bind_to_box(L, S, -1)) {
    add_tensor(L, S, t, k, lua_gettop(L));
  } else if (lua_type(L, -1) == LUA_TSTRING && bind_is_slice(lua_tostring(L, -1))) {
    const char *text = lua_tostring(L, -1);
    if (*read_slice(L, S, t, text, skip(text), k))
      bind_raise(L, S, "index: expected one range at %d of the list, got %s", i, bind_describe(L, S, -1));
  } else {
    bind_raise(
        L, S,
        "index: expected a list of integers, ranges such as '2:5', and a mask or positions, got %s at %d",
        bind_describe(L, S, -1), i);
  }
}

static void read_list (lua_State *L, bind_state *S, const marea_tensor *t, key *k) {
  size_t n = lua_rawlen(L, 2);
  if (n < (size_t)marea_tensor_rank(t)) n = bind_length(L, 2);
  if (n == 0) bind_raise(L, S, "index: expected positions in the list, got %s", bind_describe(L, S, 2));
  for (size_t i = 1; i <= n; i++) {
    lua_rawgeti(L, 2, (lua_Integer)i);
    read_item(L, S, t, k, (int)i);
    lua_pop(L, 1);
  }
}

/* The key at stack index 2; false if it is none. */
static bool read_key (lua_State *L, bind_state *S, const marea_tensor *t, key *k) {
  int64_t i;
  k->n = 0;
  k->by = NULL;
  if (lua_type(L, 2) == LUA_TTABLE) read_list(L, S, t, k);
  else if (bind_to_integer(L, 2, &i)) add_single(L, S, t, k, i);
  else if (lua_type(L, 2) == LUA_TSTRING && bind_is_slice(lua_tostring(L, 2)))
    read_slices(L, S, t, lua_tostring(L, 2), k);
  else if (bind_to_box(L, S, 2)) add_tensor(L, S, t, k, 2);
  else return false;
  return true;
}

/* ---- using it ---- */

static bool is_full (const marea_tensor *t, const key *k) {
  for (int d = 0; d < k->n; d++)
    if (!k->part[d].single) return false; /* those of a tensor are not */
  return k->n == marea_tensor_rank(t);
}

/* How many elements behind the first one the element at k lies. */
static int64_t offset_of (const marea_tensor *t, const key *k) {
  int64_t offset = 0;
  for (int d = 0; d < k->n; d++) {
    int64_t i = k->part[d].start;
    offset += (i < 0 ? i + marea_tensor_shape(t)[d] : i) * marea_tensor_strides(t)[d];
  }
  return offset;
}

/* *out := the view of t that the key's positions and ranges give, without its tensor: one operator a dimension, from
   the last dimension to the first, so that the numbers of the others stay valid. */
static marea_status make_view (bind_state *S, marea_tensor *t, const key *k, marea_tensor **out) {
  marea_tensor *view = marea_retain(t);
  for (int d = k->n - 1; d >= 0; d--) {
    const part *p = &k->part[d];
    if (p->whole) continue;
    marea_attr select[] = {{.n = 1, .i = d}, {.n = 1, .i = p->start}};
    marea_attr slice[] = {
        {.n = 1, .i = d}, {.n = 1, .i = p->start}, {.n = 1, .i = p->stop}, {.n = 1, .i = p->step}};
    marea_tensor *next = NULL;
    const marea_op *op = p->single ? S->select : S->slice;
    marea_status status = bind_apply(S->ctx, op, view, p->single ? select : slice, &next);
    marea_release(view);
    if (status != MAREA_OK) return status;
    view = next;
  }
  if (view == t) { /* the key takes all of t: the result is a new handle all the same, as every view is */
    const marea_attr all[] = {{.n = 1, .i = 0}, {.n = 1, .i = 0}, {.n = 1, .i = -1}, {.n = 1, .i = 1}};
    marea_release(view);
    return bind_apply(S->ctx, S->slice, t, all, out);
  }
  *out = view;
  return MAREA_OK;
}

/* ---- a mask or positions in the key ---- */

static marea_status apply_two (bind_state *S, const marea_op *op, marea_tensor *a, marea_tensor *b,
                               const marea_attr *attrs, marea_tensor **out) {
  marea_tensor *in[] = {a, b};
  int n_out;
  return marea_apply(S->ctx, op, 2, in, attrs, out, &n_out);
}

/* The dimension of make_view's result that is the first one which the key's tensor covers. */
static int dimension_of (const key *k) {
  int dim = k->at;
  for (int d = 0; d < k->at; d++) dim -= k->part[d].single;
  return dim;
}

/* *out := the view with the dimensions that a mask covers merged into one; *by := the positions of the mask's ones
   there. */
static marea_status merge_dimensions (bind_state *S, marea_tensor *view, const key *k, marea_tensor **out,
                                      marea_tensor **by) {
  const int64_t *shape = marea_tensor_shape(view);
  const int dim = dimension_of(k);
  marea_attr merged = {.n = 0};
  if (!is_mask(k->by)) {
    *out = marea_retain(view);
    *by = marea_retain(k->by);
    return MAREA_OK;
  }
  for (int d = 0; d < marea_tensor_rank(view); d++) {
    if (d <= dim || d >= dim + k->across) merged.v[merged.n++] = shape[d];
    else merged.v[dim] *= shape[d];
  }
  marea_status status = bind_apply(S->ctx, S->reshape, view, &merged, out);
  return status == MAREA_OK ? bind_apply(S->ctx, S->flatnonzero, k->by, NULL, by) : status;
}

/* *out := a copy of what lies at the positions `by` of dimension dim */
static marea_status pick (bind_state *S, marea_tensor *t, marea_tensor *by, int dim, marea_tensor **out) {
  const marea_attr attrs[] = {{.n = 1, .i = dim}, {.n = 1, .i = -1}, {.n = 1, .f = 1}, {.n = 1, .i = 1}};
  return apply_two(S, S->index_select, t, by, attrs, out);
}

static marea_status read_part (bind_state *S, marea_tensor *t, const key *k, marea_tensor **out) {
  marea_tensor *view = NULL;
  marea_status status = make_view(S, t, k, &view);
  if (status != MAREA_OK || !k->by) {
    *out = view;
    return status;
  }
  marea_tensor *merged = NULL, *by = NULL;
  status = merge_dimensions(S, view, k, &merged, &by);
  if (status == MAREA_OK) status = pick(S, merged, by, dimension_of(k), out);
  marea_release(merged);
  marea_release(by);
  marea_release(view);
  return status;
}

/* t[key] with the key at stack index 2; false if it is no index. Pushes a number or a view. */
int bind_index (lua_State *L, bind_state *S, const bind_box *b) {
  key k;
  marea_status status;
  marea_tensor *view = NULL;
  if (!read_key(L, S, b->t, &k)) return 0;
  if (is_full(b->t, &k) && !(marea_requires_grad(b->t) && marea_recording(S->ctx))) {
    bind_push_element(L, S, b->t, offset_of(b->t, &k), "index");
    return 1;
  }
  bind_enter(L, S);
  bind_box *box = bind_box_new(L, S);
  marea_tensor *t = bind_check(L, S, 1, "index", "t");
  if (k.by) read_key(L, S, t, &k); /* once more: a finalizer may have released the key's tensor meanwhile */
  marea_tensor *both[] = {t, k.by};
  BIND_RETRY(L, S, 2, both, status, read_part(S, t, &k, &view));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  bind_box_fill(box, view);
  return 1;
}

/* ---- writing ---- */

static void check_unrecorded (lua_State *L, bind_state *S, const marea_tensor *t, const char *function) {
  if (!marea_requires_grad(t) || !marea_recording(S->ctx)) return;
  bind_raise(
      L, S,
      "%s: tensor %s requires a gradient, and a change in place is not recorded; do it inside no_grad, "
      "or on t:detach()",
      function, bind_shape(t).s);
}

/* target[key] = source; the key NULL: all of target, the source NULL: the number at stack index `number`. */
typedef struct assignment {
  const char *function; /* for messages */
  marea_tensor *target, *source;
  const key *key;
  int number;
  bool unfit; /* the source does not broadcast to the place, which is: */
  bind_text place;
} assignment;

/* Does the shape of `from` broadcast to that of `to`? */
static bool fits (const marea_tensor *from, const marea_tensor *to) {
  int extra = marea_tensor_rank(to) - marea_tensor_rank(from);
  for (int d = 0; extra >= 0 && d < marea_tensor_rank(from); d++) {
    int64_t size = marea_tensor_shape(from)[d];
    if (size != 1 && size != marea_tensor_shape(to)[d + extra]) return false;
  }
  return extra >= 0;
}

static marea_status copy_into (assignment *a, marea_tensor *to, marea_tensor *from) {
  if (fits(from, to)) return marea_copy(to, from);
  a->unfit = true;
  a->place = bind_shape(to);
  return MAREA_ESHAPE;
}

/* view[mask] = number; the mask gets dimensions of size 1 for those that follow it. */
static marea_status fill_masked (bind_state *S, marea_tensor *view, const key *k, marea_tensor *number) {
  marea_tensor *mask = NULL;
  marea_attr shape = {.n = k->across};
  memcpy(shape.v, marea_tensor_shape(k->by), sizeof *shape.v * (size_t)k->across);
  while (shape.n < marea_tensor_rank(view) - dimension_of(k)) shape.v[shape.n++] = 1;
  marea_status status = bind_apply(S->ctx, S->reshape, k->by, &shape, &mask);
  marea_tensor *in[] = {view, mask, number};
  if (status == MAREA_OK) status = marea_apply_(S->ctx, S->masked_fill, 3, in, NULL);
  marea_release(mask);
  return status;
}

/* to[.., by, ..] = from, which is expanded and converted; `to` is contiguous. */
static marea_status put (bind_state *S, assignment *a, marea_tensor *to, marea_tensor *from) {
  marea_tensor *merged = NULL, *by = NULL, *own = NULL, *src = NULL;
  const int dim = dimension_of(a->key);
  const marea_attr attrs[] = {{.n = 1, .i = dim}, {.n = 1, .i = 1}};
  int n_out;
  marea_status status = merge_dimensions(S, to, a->key, &merged, &by);
  if (status == MAREA_OK)
    status = bind_apply(S->ctx, S->clone, by, NULL, &own);          /* it may be what is changed */
  if (status == MAREA_OK) status = pick(S, merged, own, dim, &src); /* of the shape that is put there */
  if (status == MAREA_OK) status = copy_into(a, src, from);
  marea_tensor *in[] = {merged, own, src};
  if (status == MAREA_OK) status = marea_apply(S->ctx, S->index_put, 3, in, attrs, NULL, &n_out);
  marea_release(src);
  marea_release(own);
  marea_release(by);
  marea_release(merged);
  return status;
}

/* view[.., by, ..] = from; a view with gaps by way of a copy. */
static marea_status put_into (bind_state *S, assignment *a, marea_tensor *view, marea_tensor *from) {
  marea_tensor *dense = NULL;
  if (is_mask(a->key->by) && !a->source) return fill_masked(S, view, a->key, from);
  if (marea_tensor_contiguous(view)) return put(S, a, view, from);
  marea_status status = bind_apply(S->ctx, S->contiguous, view, NULL, &dense);
  if (status == MAREA_OK) status = put(S, a, dense, from);
  if (status == MAREA_OK) status = marea_copy(view, dense);
  marea_release(dense);
  return status;
}

/* Does not raise. */
static marea_status try_assign (lua_State *L, bind_state *S, assignment *a) {
  marea_tensor *view = NULL, *scalar = NULL;
  bool before = marea_set_recording(S->ctx, false);
  marea_status status = a->key ? make_view(S, a->target, a->key, &view) : MAREA_OK;
  if (status == MAREA_OK && !a->source)
    status = bind_number(L, S->ctx, a->number, marea_tensor_dtype(a->target), &scalar);
  marea_tensor *from = a->source ? a->source : scalar, *to = view ? view : a->target;
  if (status == MAREA_OK) status = a->key && a->key->by ? put_into(S, a, to, from) : copy_into(a, to, from);
  marea_release(scalar);
  marea_release(view);
  marea_set_recording(S->ctx, before);
  return status;
}

/* marea_copy checks the same; this message names the function and the argument. */
static void check_survivor (lua_State *L, bind_state *S, const marea_tensor *t, const char *function,
                            const char *name) {
  if (marea_is_planned(t) && !marea_planning(S->ctx))
    bind_raise(L, S, "%s: argument '%s', %s, is from a plan that has ended: it has no values", function, name,
               bind_shape(t).s);
}

static int assign (lua_State *L, bind_state *S, assignment *a) {
  marea_status status;
  marea_tensor *all[] = {a->target, a->source, a->key ? a->key->by : NULL};
  check_survivor(L, S, a->target, a->function, "t");
  if (a->source) check_survivor(L, S, a->source, a->function, a->key ? "v" : "src");
  check_unrecorded(L, S, a->target, a->function);
  if (a->source) check_unrecorded(L, S, a->source, a->function); /* its gradient would be lost */
  BIND_RETRY(L, S, 3, all, status, try_assign(L, S, a));
  if (a->unfit)
    return bind_raise(L, S,
                      a->key ? "%s: v is %s, which does not fit into the part %s of %s"
                             : "%s: tensor %s does not fit into tensor %s",
                      a->function, bind_shape(a->source).s, a->place.s, bind_shape(a->target).s);
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  lua_settop(L, 1);
  return 1;
}

/* Checks that the number at idx fits the tensor's dtype. */
static void check_number (lua_State *L, bind_state *S, const marea_tensor *t, const char *function, int idx) {
  int64_t scratch;
  const char *expected = bind_store_number(L, idx, marea_tensor_dtype(t), &scratch);
  if (expected) bind_raise_argument(L, S, function, "value", expected, idx);
}

static int no_such_key (lua_State *L, bind_state *S) {
  const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  if (strcmp(name, "requires_grad") == 0)
    return bind_raise(L, S, "a tensor's field 'requires_grad' is read only; call t:requires_grad_()");
  if (strcmp(name, "grad") == 0)
    return bind_raise(L, S, "a tensor's field 'grad' is read only; call t:clear_grad()");
  return bind_raise(L, S,
                    "cannot set %s of a tensor: expected an index such as 2, {2, 5}, '2:5, :', a mask or a "
                    "tensor of positions",
                    bind_describe(L, S, 2));
}

/* t[key] = number or tensor */
int bind_newindex (lua_State *L) {
  static const char name[] = "t[...] = v";
  bind_state *S = bind_self(L);
  key k;
  bind_enter(L, S);
  assignment a = {.function = name, .target = bind_check(L, S, 1, "index", "t"), .key = &k, .number = 3};
  if (!read_key(L, S, a.target, &k)) return no_such_key(L, S);
  if (lua_type(L, 3) == LUA_TNUMBER) check_number(L, S, a.target, name, 3);
  else if (bind_to_box(L, S, 3)) a.source = bind_check(L, S, 3, name, "v");
  else return bind_raise_argument(L, S, name, "v", "a number or a tensor", 3);
  return assign(L, S, &a);
}

/* The number is at stack index 2. */
static int fill (lua_State *L, const char *function) {
  bind_state *S = bind_self(L);
  bind_enter(L, S);
  assignment a = {.function = function, .target = bind_check(L, S, 1, function, "t"), .number = 2};
  check_number(L, S, a.target, function, 2);
  return assign(L, S, &a);
}

/* t:fill_(number) -> t */
int bind_fill (lua_State *L) {
  lua_settop(L, 2);
  return fill(L, "fill_");
}

/* t:zero_() -> t */
int bind_zero (lua_State *L) {
  lua_settop(L, 1);
  lua_pushinteger(L, 0);
  return fill(L, "zero_");
}

/* t:copy_(src) -> t; broadcasts and converts */
int bind_copy (lua_State *L) {
  bind_state *S = bind_self(L);
  bind_enter(L, S);
  assignment a = {.function = "copy_", .target = bind_check(L, S, 1, "copy_", "t")};
  a.source = bind_check(L, S, 2, "copy_", "src");
  return assign(L, S, &a);
}
