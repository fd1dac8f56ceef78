/* SPDX-License-Identifier: MIT
** node.c: what handlers share; see node.h.
*/
#include "model.h"

/* ---- failures ---- */

static void fail_at (onnx_node *n, marea_status status, const char *text) {
  n->status = marea_fail(n->e->ctx, status, "onnx: node '%.90s' (%.40s): %s", n->proto->name,
                         n->proto->op_type, text);
}

void marea_onnx_reject (onnx_node *n, const char *format, ...) {
  char text[400];
  va_list args;
  if (!goes_on(n)) return;
  va_start(args, format);
  marea_vformat(text, sizeof text, format, args);
  va_end(args);
  fail_at(n, MAREA_EFORMAT, text);
}

void marea_onnx_name_node (onnx_node *n) {
  char text[MAREA_ERROR_SIZE];
  const char *error = marea_error(n->e->ctx);
  if ((n->status != MAREA_ESHAPE && n->status != MAREA_EARG) || strncmp(error, "onnx: ", 6) == 0) return;
  marea_format(text, sizeof text, "%s", error);
  fail_at(n, n->status, text);
}

marea_status marea_onnx_out_of_memory (marea_context *ctx) {
  return marea_fail(ctx, MAREA_ENOMEM, "onnx: out of memory");
}

/* Keeps the first failure. */
static bool check (onnx_node *n, marea_status status) {
  if (goes_on(n)) n->status = status;
  return goes_on(n);
}

void *marea_onnx_room (onnx_node *n, int64_t count, size_t size) {
  if (!goes_on(n)) return NULL;
  const size_t things = (size_t)MAREA_MAX(count, 1);
  void *p = things > PTRDIFF_MAX / size ? NULL : marea_alloc(n->e->ctx, things * size);
  if (!p) n->status = marea_onnx_out_of_memory(n->e->ctx);
  return p;
}

enum { MOST_TURNS = 4096, MOST_CALLS = 1 << 16 }; /* of a program with loops */

bool marea_onnx_may_turn (onnx_node *n, int64_t i) {
  const marea_program *p = n->e->program;
  if (!check(n, marea_poll(n->e->ctx))) return false;
  return check(n, p && (i >= MOST_TURNS || p->n_calls > MOST_CALLS) ? MAREA_UNKNOWN : MAREA_OK);
}

/* ---- attributes ---- */

enum {
  TYPE_FLOAT = 1,
  TYPE_INT,
  TYPE_STRING,
  TYPE_TENSOR,
  TYPE_GRAPH,
  TYPE_FLOATS,
  TYPE_INTS
}; /* as specified */

const Marea__AttributeProto *marea_onnx_attribute (const onnx_node *n, const char *name) {
  for (size_t i = 0; i < n->proto->n_attribute; i++)
    if (strcmp(n->proto->attribute[i]->name, name) == 0) return n->proto->attribute[i];
  return NULL;
}

/* NULL: left out, or of another type, which is an error. A type that the file does not tell (before 2019) is believed. */
static const Marea__AttributeProto *attribute (onnx_node *n, const char *name, int type) {
  const Marea__AttributeProto *a = marea_onnx_attribute(n, name);
  if (!a || a->type == type || a->type == 0) return a;
  marea_onnx_reject(n, "attribute '%s' has the type %d, expected %d", name, a->type, type);
  return NULL;
}

int64_t marea_onnx_int (onnx_node *n, const char *name, int64_t initial) {
  const Marea__AttributeProto *a = attribute(n, name, TYPE_INT);
  return a ? a->i : initial;
}

double marea_onnx_float (onnx_node *n, const char *name, double initial) {
  const Marea__AttributeProto *a = attribute(n, name, TYPE_FLOAT);
  return a ? (double)a->f : initial;
}

void marea_onnx_text (onnx_node *n, const char *name, const char *initial, char *to, size_t room) {
  const Marea__AttributeProto *a = attribute(n, name, TYPE_STRING);
  const size_t length = a ? a->s.len : strlen(initial);
  to[0] = '\0';
  if (length >= room) {
    marea_onnx_reject(n, "attribute '%s' is a text of %zu bytes", name, length);
    return;
  }
  if (length) memcpy(to, a ? (const char *)a->s.data : initial, length);
  to[length] = '\0';
}

bool marea_onnx_is (onnx_node *n, const char *name, const char *initial, const char *wanted) {
  char text[64];
  marea_onnx_text(n, name, initial, text, sizeof text);
  return strcmp(text, wanted) == 0;
}

bool marea_onnx_ints (onnx_node *n, const char *name, onnx_ints *ints) {
  const Marea__AttributeProto *a = attribute(n, name, TYPE_INTS);
  ints->n = 0;
  if (!a) return false;
  if (a->n_ints > ONNX_MOST_INTS) {
    marea_onnx_reject(n, "attribute '%s' has %zu integers; at most %d are supported", name, a->n_ints,
                      ONNX_MOST_INTS);
    return false;
  }
  ints->n = (int)a->n_ints;
  if (ints->n) memcpy(ints->v, a->ints, a->n_ints * sizeof ints->v[0]);
  return true;
}

/* ---- values of the graph ---- */

onnx_value *marea_onnx_value_new (onnx_node *n, value *v, int type) {
  onnx_value *o = marea_onnx_room(n, 1, sizeof *o);
  if (o) *o = (onnx_value){.refs = 1, .type = type, .v = marea_value_retain(v)};
  return o;
}

onnx_value *marea_onnx_value_retain (onnx_value *v) {
  if (v) v->refs++;
  return v;
}

void marea_onnx_value_release (marea_emitter *e, onnx_value *v) {
  if (!v || --v->refs > 0) return;
  for (int i = 0; i < v->n; i++) marea_onnx_value_release(e, v->items[i]);
  marea_free(e->ctx, v->items);
  marea_value_release(e, v->v);
  marea_free(e->ctx, v);
}

bool marea_onnx_has (const onnx_node *n, int i) { return i < n->n_in && n->in[i]; }

/* Pixels of one channel, or the channels of one pixel, lie in the same order either way. */
static bool keeps_order (const value *x, bool back) {
  const int rank = rank_of(x), channels = back ? rank - 1 : 1;
  bool one = true;
  for (int d = 1; d < rank; d++) one = one && (d == channels || size_of(x, d) == 1);
  return one || size_of(x, channels) == 1;
}

value *marea_onnx_channels_last (onnx_node *n, value *x, bool back) {
  int dims[MAREA_MAX_RANK];
  int64_t shape[MAREA_MAX_RANK];
  const int rank = rank_of(x);
  if (!goes_on(n) || rank < 3) return x;
  for (int d = 0; d < rank; d++) {
    const int last = d == 0 ? 0 : d == rank - 1 ? 1 : d + 1, first = d == 0 ? 0 : d == 1 ? rank - 1 : d - 1;
    dims[d] = back ? first : last;
    shape[d] = size_of(x, dims[d]);
  }
  if (keeps_order(x, back)) return marea_onnx_reshape(n, x, rank, shape);
  return marea_onnx_permute(n, x, rank, dims);
}

static onnx_value *given (onnx_node *n, int i) {
  if (!goes_on(n)) return NULL;
  if (!has(n, i)) {
    marea_onnx_reject(n, "input %d is missing", i + 1);
    return NULL;
  }
  if (n->in[i]->sequence) {
    marea_onnx_reject(n, "input %d: expected a tensor, got a sequence", i + 1);
    return NULL;
  }
  if (!n->in[i]->v) marea_onnx_reject(n, "input %d: expected a tensor, got nothing", i + 1);
  return goes_on(n) ? n->in[i] : NULL;
}

value *marea_onnx_input (onnx_node *n, int i) {
  onnx_value *o = given(n, i);
  if (!o) return NULL;
  return o->channels_last ? marea_onnx_channels_last(n, o->v, true) : o->v;
}

value *marea_onnx_optional (onnx_node *n, int i) { return has(n, i) ? input(n, i) : NULL; }

value *marea_onnx_image (onnx_node *n, int i) {
  onnx_value *o = given(n, i);
  if (!o) return NULL;
  return o->channels_last || rank_of(o->v) < 3 ? o->v : marea_onnx_channels_last(n, o->v, false);
}

static int type_of_dtype (int dtype) {
  static const uint8_t types[MAREA_DTYPE_COUNT] = {
      [MAREA_F32] = ONNX_FLOAT, [MAREA_F64] = ONNX_DOUBLE,    [MAREA_I64] = ONNX_INT64,
      [MAREA_U8] = ONNX_BOOL,   [MAREA_BF16] = ONNX_BFLOAT16, [MAREA_F16] = ONNX_FLOAT16};
  return types[dtype];
}

static int type_for (const onnx_node *n, const value *v) {
  for (int i = 0; i < n->n_in; i++)
    if (n->in[i] && !n->in[i]->sequence && marea_onnx_dtype(n->in[i]->type) == dtype_of(v))
      return n->in[i]->type;
  return type_of_dtype(dtype_of(v));
}

void marea_onnx_give_value (onnx_node *n, int k, onnx_value *v) {
  if (!goes_on(n) || k >= n->n_out) return;
  marea_onnx_value_release(n->e, n->out[k]);
  n->out[k] = marea_onnx_value_retain(v);
}

void marea_onnx_give_laid_out (onnx_node *n, int k, value *v, int type, bool channels_last) {
  const int dtype = marea_onnx_dtype(type);
  if (goes_on(n) && dtype < 0)
    marea_onnx_reject(n, "results of the type %s are not supported", marea_onnx_type_name(type));
  v = marea_onnx_cast(n, v, dtype);
  if (!goes_on(n) || k >= n->n_out) return;
  marea_onnx_value_release(n->e, n->out[k]);
  n->out[k] = marea_onnx_value_new(n, v, type);
  if (n->out[k]) n->out[k]->channels_last = channels_last && rank_of(v) > 2;
}

void marea_onnx_give (onnx_node *n, int k, value *v) {
  if (goes_on(n)) marea_onnx_give_laid_out(n, k, v, type_for(n, v), false);
}

void marea_onnx_give_as (onnx_node *n, int k, value *v, int type) {
  marea_onnx_give_laid_out(n, k, v, type, false);
}

void marea_onnx_give_image (onnx_node *n, int k, value *v) {
  if (goes_on(n)) marea_onnx_give_laid_out(n, k, v, type_for(n, v), true);
}

value *marea_onnx_each (onnx_node *n, int i) {
  onnx_value *o = given(n, i);
  return o ? o->v : NULL;
}

void marea_onnx_give_each (onnx_node *n, int k, value *v, int i) {
  if (goes_on(n)) marea_onnx_give_laid_out(n, k, v, type_for(n, v), n->in[i]->channels_last);
}

/* x with ones in front of its shape, so that it has `rank` dimensions */
static value *deepen (onnx_node *n, value *x, int rank) {
  int64_t shape[MAREA_MAX_RANK];
  if (!goes_on(n)) return NULL;
  const int more = rank - rank_of(x);
  for (int d = 0; d < rank; d++) shape[d] = d < more ? 1 : size_of(x, d - more);
  return marea_onnx_reshape(n, x, rank, shape);
}

bool marea_onnx_aligned (onnx_node *n, value **x) {
  int rank = 0;
  bool last = false;
  for (int i = 0; i < n->n_in; i++) {
    const onnx_value *o = given(n, i);
    if (!o) return false;
    if (rank_of(o->v) > rank) last = false;
    rank = MAREA_MAX(rank, rank_of(o->v));
    last = last || (o->channels_last && rank_of(o->v) == rank);
  }
  for (int i = 0; i < n->n_in; i++) {
    const bool as_it_is = last && n->in[i]->channels_last && rank_of(n->in[i]->v) == rank;
    x[i] = as_it_is ? n->in[i]->v : input(n, i);
    if (last && !as_it_is && count_of(x[i]) > 1)
      x[i] = marea_onnx_channels_last(n, deepen(n, x[i], rank), false);
  }
  return last;
}

/* ---- elements that are known ---- */

value *marea_onnx_known (onnx_node *n, marea_tensor *t) {
  value *v = NULL;
  if (!goes_on(n)) {
    marea_release(t);
    return NULL;
  }
  return check(n, marea_emit_known(n->e, t, &v)) ? v : NULL;
}

value *marea_onnx_tensor (onnx_node *n, const Marea__TensorProto *t) {
  marea_tensor *made;
  if (!goes_on(n) || !check(n, marea_onnx_read_tensor(n->e->ctx, n->scope->model->folder, t, &made)))
    return NULL;
  return marea_onnx_known(n, made);
}

const marea_tensor *marea_onnx_elements (onnx_node *n, value *v) {
  if (!v) marea_onnx_reject(n, "expected a tensor, got nothing");
  if (!goes_on(n)) return NULL;
  if (!marea_value_known(v)) check(n, MAREA_UNKNOWN);
  value *dense = goes_on(n) && !marea_tensor_contiguous(v->t) ? op1(n, "contiguous", v) : v;
  return goes_on(n) ? dense->t : NULL;
}

bool marea_onnx_known_ints (onnx_node *n, value *v, onnx_ints *ints) {
  const marea_tensor *t = marea_onnx_elements(n, marea_onnx_cast(n, v, MAREA_I64));
  ints->n = 0;
  if (!t) return false;
  if (marea_tensor_size(t) > ONNX_MOST_INTS) {
    marea_onnx_reject(n, "a list of %lld integers; at most %d are supported", (long long)marea_tensor_size(t),
                      ONNX_MOST_INTS);
    return false;
  }
  ints->n = (int)marea_tensor_size(t);
  if (ints->n) memcpy(ints->v, marea_at(t), (size_t)ints->n * sizeof ints->v[0]);
  return true;
}

double marea_onnx_element (const marea_tensor *t, int64_t i) {
  return marea_number_at((marea_dtype)t->dtype,
                         (const char *)marea_at(t) + (size_t)i * marea_element_size(t->dtype));
}

value *marea_onnx_new (onnx_node *n, int dtype, int rank, const int64_t *shape) {
  marea_layout layout;
  marea_tensor *t;
  if (!goes_on(n)) return NULL;
  marea_layout_set(&layout, dtype, rank, shape);
  return check(n, marea_tensor_new(n->e->ctx, "onnx", &layout, &t)) ? marea_onnx_known(n, t) : NULL;
}

bool marea_onnx_list (onnx_node *n, const char *name, int i, onnx_ints *list) {
  if (marea_onnx_ints(n, name, list)) return goes_on(n);
  return has(n, i) && marea_onnx_known_ints(n, input(n, i), list);
}

int64_t marea_onnx_known_int (onnx_node *n, value *v) {
  const marea_tensor *t = marea_onnx_elements(n, marea_onnx_cast(n, v, MAREA_I64));
  if (!t) return 0;
  if (marea_tensor_size(t) == 1) return *(const int64_t *)marea_at(t);
  marea_onnx_reject(n, "expected one integer, got %s", marea_tensor_text(t).s);
  return 0;
}

double marea_onnx_known_number (onnx_node *n, value *v) {
  const marea_tensor *t = marea_onnx_elements(n, v);
  if (!t) return 0;
  if (marea_tensor_size(t) == 1) return marea_number_at((marea_dtype)t->dtype, marea_at(t));
  marea_onnx_reject(n, "expected one number, got %s", marea_tensor_text(t).s);
  return 0;
}

static value *filled (onnx_node *n, const char *word, marea_named number) {
  return CALL(n, "full", NOTHING, NAMED(marea_ints("shape", 0, NULL), number, marea_word("dtype", word)));
}

value *marea_onnx_scalar (onnx_node *n, double number, int dtype) {
  return filled(n, marea_dtype_name((marea_dtype)dtype), marea_real("value", number));
}

value *marea_onnx_integer (onnx_node *n, int64_t number, int dtype) {
  return filled(n, marea_dtype_name((marea_dtype)dtype), marea_int("value", number));
}

value *marea_onnx_from_ints (onnx_node *n, int count, const int64_t *v) {
  value *made = marea_onnx_new(n, MAREA_I64, 1, (int64_t[]){count});
  if (made && count) memcpy(marea_at(made->t), v, (size_t)count * sizeof *v);
  return made;
}

value *marea_onnx_range (onnx_node *n, int64_t count) {
  return CALL(
      n, "arange", NOTHING,
      NAMED(marea_int("start", 0), marea_int("stop", MAREA_MAX(count, 0) - 1), marea_word("dtype", "i64")));
}

value *marea_onnx_indices (onnx_node *n, value *index, int64_t size) {
  const int base = n->e->ctx->config.index_base;
  index = marea_onnx_cast(n, index, MAREA_I64);
  value *negative = op2(n, "lt", index, marea_onnx_integer(n, 0, MAREA_I64));
  return add(n, index,
             where(n, negative, marea_onnx_integer(n, size + base, MAREA_I64),
                   marea_onnx_integer(n, base, MAREA_I64)));
}

value *marea_onnx_positions (onnx_node *n, value *index) {
  const int base = n->e->ctx->config.index_base;
  return base ? sub(n, index, marea_onnx_integer(n, base, MAREA_I64)) : index;
}

/* ---- steps ---- */

value *marea_onnx_call (onnx_node *n, const char *op, int n_in, value *const *in, int n_named,
                        const marea_named *named) {
  value *first = NULL;
  marea_onnx_call_all(n, op, n_in, in, n_named, named, 1, &first);
  return first;
}

void marea_onnx_call_all (onnx_node *n, const char *op, int n_in, value *const *in, int n_named,
                          const marea_named *named, int n_out, value **out) {
  for (int k = 0; k < n_out; k++) out[k] = NULL;
  if (!goes_on(n)) return;
  check(n, marea_emit(n->e, op, n_in, in, n_named, named, n_out, out));
}

value *marea_onnx_cast (onnx_node *n, value *x, int dtype) {
  if (!goes_on(n) || !x || dtype_of(x) == dtype) return x;
  return CALL(n, "cast", VALUES(x), NAMED(marea_word("dtype", marea_dtype_name((marea_dtype)dtype))));
}

static bool has_rank (onnx_node *n, int rank) {
  if (rank > MAREA_MAX_RANK) marea_onnx_reject(n, "rank %d; at most %d are supported", rank, MAREA_MAX_RANK);
  return goes_on(n);
}

value *marea_onnx_reshape (onnx_node *n, value *x, int rank, const int64_t *shape) {
  if (!goes_on(n) || !has_rank(n, rank)) return NULL;
  if (marea_has_shape(x->t, rank, shape)) return x;
  return CALL(n, "reshape", VALUES(x), NAMED(marea_ints("shape", rank, shape)));
}

value *marea_onnx_permute (onnx_node *n, value *x, int rank, const int *dims) {
  int64_t to[MAREA_MAX_RANK];
  bool same = true;
  if (!goes_on(n)) return NULL;
  for (int d = 0; d < rank; d++) {
    to[d] = dims[d];
    same = same && dims[d] == d;
  }
  return same ? x : CALL(n, "permute", VALUES(x), NAMED(marea_ints("dims", rank, to)));
}

int marea_onnx_axis (onnx_node *n, int64_t axis, int rank) {
  if (goes_on(n) && (axis < -rank || axis >= rank))
    marea_onnx_reject(n, "axis %lld of a tensor of rank %d", (long long)axis, rank);
  return goes_on(n) ? (int)(axis < 0 ? axis + rank : axis) : 0;
}

unsigned marea_onnx_axes (onnx_node *n, const onnx_ints *axes, int rank) {
  unsigned set = 0;
  for (int i = 0; i < axes->n; i++) set |= 1u << marea_onnx_axis(n, axes->v[i], rank);
  return set;
}

value *marea_onnx_expand (onnx_node *n, value *x, int rank, const int64_t *shape) {
  if (!goes_on(n) || !has_rank(n, rank)) return NULL;
  if (marea_has_shape(x->t, rank, shape)) return x;
  return CALL(n, "expand", VALUES(x), NAMED(marea_ints("shape", rank, shape)));
}
