/* SPDX-License-Identifier: MIT
** save_value.c: the forms that values have in a file, and steps that the writers of operators share.
*/
#include <stdio.h>

#include "save.h"

int marea_onnx_type_of (int dtype) {
  switch ((marea_dtype)dtype) {
  case MAREA_F32: return ONNX_FLOAT;
  case MAREA_F64: return ONNX_DOUBLE;
  case MAREA_I64: return ONNX_INT64;
  case MAREA_U8: return ONNX_UINT8;
  case MAREA_BF16: return ONNX_BFLOAT16;
  case MAREA_F16: return ONNX_FLOAT16;
  }
  return ONNX_UNDEFINED;
}

const marea_attr *marea_onnx_attr (const onnx_saver *s, const char *name) {
  static const marea_attr none = {0};
  const marea_attr_spec *specs;
  const int n = marea_op_attrs(s->c->op, &specs);
  for (int i = 0; i < n; i++)
    if (strcmp(specs[i].name, name) == 0) return &s->c->attr[i];
  return &none;
}

/* ---- layouts ---- */

const char *marea_onnx_permuted (onnx_saver *s, const char *name, int rank, const int64_t *dims) {
  bool moves = false;
  for (int d = 0; d < rank; d++) moves |= dims[d] != d;
  if (!moves) return name;
  const char *y = NODE(s, "Transpose", name);
  marea_onnx_put_ints(s, "perm", rank, dims);
  return y;
}

static void order_of (int rank, bool to_first, int64_t *dims) {
  for (int d = 0; d < rank; d++) {
    if (to_first) dims[d] = d == 0 ? 0 : d == 1 ? rank - 1 : d - 1;
    else dims[d] = marea_onnx_place_first(true, d, rank);
  }
}

const char *marea_onnx_turn (onnx_saver *s, const char *name, int rank, bool to_first) {
  int64_t dims[MAREA_MAX_RANK];
  order_of(rank, to_first, dims);
  return rank < 3 ? name : marea_onnx_permuted(s, name, rank, dims);
}

const char *marea_onnx_cast_to (onnx_saver *s, const char *name, int type) {
  const char *y = NODE(s, "Cast", name);
  marea_onnx_put_int(s, "to", type);
  return y;
}

/* ---- forms ---- */

static const char *add_form (onnx_saver *s, int slot, onnx_form form) {
  onnx_form *f = marea_onnx_memory(s, sizeof *f), **end = &s->forms[slot];
  if (!f) return "";
  *f = form;
  while (*end) end = &(*end)->next;
  *end = f;
  return f->name;
}

static const onnx_form *find_form (const onnx_saver *s, int slot, bool first, int type, int rank) {
  for (const onnx_form *f = s->forms[slot]; f; f = f->next)
    if (f->first == first && f->type == type && f->rank == rank) return f;
  return NULL;
}

/* The name that the caller gave a constant, or a variant of it; NULL: none */
static const char *name_of (onnx_saver *s, int slot) {
  const marea_tensor *t = s->p->slots[slot];
  for (int i = 0; i < s->names->n_weights; i++) {
    const marea_tensor *w = s->names->tensors[i];
    if (w->storage != t->storage || w->dtype != t->dtype || !marea_same_layout(w, t)) continue;
    const char *name = s->names->weights[i];
    int variant = 1;
    for (size_t k = 0; k < s->weights.n; k++) {
      const Marea__TensorProto *other = s->weights.items[k];
      if (strcmp(other->name, name) != 0) continue;
      name = marea_onnx_text_of(s, "%s_%d", s->names->weights[i], ++variant);
      k = (size_t)-1;
    }
    return name;
  }
  return NULL;
}

#define OWN __attribute__((cleanup(release))) marea_tensor *
static void release (marea_tensor **t) { marea_release(*t); }

/* t with ones in front, channels first */
static marea_status arrange (marea_context *ctx, marea_tensor *t, bool first, int rank, marea_tensor **out) {
  marea_attr shape = {.n = rank}, dims = {.n = rank};
  OWN wide = NULL;
  for (int d = 0; d < rank; d++) shape.v[d] = d < rank - t->rank ? 1 : t->shape[d - rank + t->rank];
  MAREA_TRY(marea_run_with(ctx, &marea_op_reshape, &shape, &wide, 1, t));
  order_of(rank, true, dims.v);
  for (int d = 0; d < rank && !first; d++) dims.v[d] = d;
  return marea_run_with(ctx, &marea_op_permute, &dims, out, 1, wide);
}

static marea_status as_type (marea_context *ctx, marea_tensor *t, int type, marea_tensor **out) {
  const marea_attr dtype = {.n = 1, .i = marea_onnx_dtype(type)};
  if (type == ONNX_BOOL) return marea_run_number(ctx, &marea_op_ne, out, t, 0);
  return marea_run_with(ctx, &marea_op_cast, &dtype, out, 1, t);
}

static const char *constant_form (onnx_saver *s, int slot, bool first, int type, int rank) {
  OWN arranged = NULL;
  OWN typed = NULL;
  marea_tensor *t = s->p->slots[slot];
  if (!saves(s)) return "";
  const char *given = name_of(s, slot);
  s->status = arrange(s->ctx, t, first, rank, &arranged);
  if (saves(s)) s->status = as_type(s->ctx, arranged, type, &typed);
  return marea_onnx_put_tensor(s, given, typed, type);
}

/* A value, in the form that is nearest to the one that is wanted, made into it. */
static const char *make_form (onnx_saver *s, int slot, bool first, int type, int rank) {
  const int own = s->p->layouts[slot].rank;
  const onnx_form *from = NULL;
  if (rank > own) {
    int64_t axes[MAREA_MAX_RANK];
    for (int d = 0; d < rank - own; d++) axes[d] = d;
    const char *x = marea_onnx_form(s, slot, false, type, own);
    x = NODE(s, "Unsqueeze", x, marea_onnx_numbers(s, rank - own, axes));
    return first ? marea_onnx_turn(s, x, rank, true) : x;
  }
  for (const onnx_form *f = s->forms[slot]; f; f = f->next)
    if (f->rank == own && (!from || (f->first == first && from->first != first))) from = f;
  if (!from) {
    marea_onnx_save_reject(s, "a value is not there");
    return "";
  }
  const char *x = from->name;
  if (from->first != first) {
    x = marea_onnx_turn(s, x, own, first);
    if (from->type != type) add_form(s, slot, (onnx_form){x, from->type, own, first, NULL});
  }
  return from->type == type ? x : marea_onnx_cast_to(s, x, type);
}

const char *marea_onnx_form (onnx_saver *s, int slot, bool first, int type, int rank) {
  if (!saves(s)) return "";
  first = first && rank >= 3;
  const onnx_form *there = find_form(s, slot, first, type, rank);
  if (there) return there->name;
  const char *name = s->p->slots[slot] ? constant_form(s, slot, first, type, rank)
                                       : make_form(s, slot, first, type, rank);
  return saves(s) ? add_form(s, slot, (onnx_form){name, type, rank, first, NULL}) : "";
}

const char *marea_onnx_typed (onnx_saver *s, int i, int type) {
  return is_given(s, i) ? marea_onnx_form(s, slot_in(s, i), false, type, layout_in(s, i)->rank) : NULL;
}

const char *marea_onnx_plain (onnx_saver *s, int i) {
  return is_given(s, i) ? marea_onnx_typed(s, i, marea_onnx_type_of(layout_in(s, i)->dtype)) : NULL;
}

const char *marea_onnx_first (onnx_saver *s, int i) {
  const marea_layout *l = layout_in(s, i);
  return marea_onnx_form(s, slot_in(s, i), true, marea_onnx_type_of(l->dtype), l->rank);
}

const char *marea_onnx_truth (onnx_saver *s, int i) { return marea_onnx_typed(s, i, ONNX_BOOL); }

static bool is_there (const onnx_saver *s, int slot, bool first) {
  for (const onnx_form *f = s->forms[slot]; f; f = f->next)
    if (f->first == first && f->rank == s->p->layouts[slot].rank) return true;
  return false;
}

bool marea_onnx_is_first (const onnx_saver *s, int i) {
  const int slot = slot_in(s, i);
  return saves(s) && slot >= 0 && !s->p->slots[slot] && !is_there(s, slot, false) && is_there(s, slot, true);
}

const char *marea_onnx_moved (onnx_saver *s, int i, bool first, int *type) {
  const onnx_form *f = saves(s) ? s->forms[slot_in(s, i)] : NULL;
  *type = f ? f->type : marea_onnx_type_of(layout_in(s, i)->dtype);
  return marea_onnx_form(s, slot_in(s, i), first, *type, layout_in(s, i)->rank);
}

const char *marea_onnx_saved_each (onnx_saver *s) {
  return marea_onnx_is_first(s, 0) ? marea_onnx_first(s, 0) : marea_onnx_plain(s, 0);
}

void marea_onnx_save_each (onnx_saver *s, const char *name) {
  marea_onnx_put(s, 0, name, marea_onnx_is_first(s, 0), marea_onnx_type_of(layout_out(s, 0)->dtype));
}

void marea_onnx_put (onnx_saver *s, int k, const char *name, bool first, int type) {
  const int rank = layout_out(s, k)->rank;
  if (saves(s)) add_form(s, slot_out(s, k), (onnx_form){name, type, rank, first && rank >= 3, NULL});
}

bool marea_onnx_together (onnx_saver *s, int n, const char **x, const int *types) {
  const int rank = layout_out(s, 0)->rank;
  bool first = false;
  for (int i = 0; i < n; i++) first |= marea_onnx_is_first(s, i) && layout_in(s, i)->rank == rank;
  for (int i = 0; i < n; i++) {
    const int own = layout_in(s, i)->rank;
    x[i] = marea_onnx_form(s, slot_in(s, i), first, types[i], first && own > 0 ? rank : own);
  }
  return first;
}

/* ---- constants ---- */

const char *marea_onnx_made (onnx_saver *s, int i, const char *key, onnx_maker *f, const void *arg) {
  const int slot = slot_in(s, i);
  OWN made = NULL;
  if (!saves(s)) return "";
  for (const onnx_part *p = s->parts; p; p = p->next)
    if (p->slot == slot && strcmp(p->key, key) == 0) return p->name;
  if (!s->p->slots[slot]) {
    marea_onnx_save_reject(s, "argument '%s': expected a tensor that does not depend on the inputs",
                           marea_input_name(s->c->op, i));
    return "";
  }
  s->status = f(s, s->p->slots[slot], arg, &made);
  if (!saves(s)) return "";
  const char *name = marea_onnx_put_tensor(s, name_of(s, slot), made, marea_onnx_type_of(made->dtype));
  onnx_part *p = marea_onnx_memory(s, sizeof *p);
  if (!p) return "";
  *p = (onnx_part){slot, marea_onnx_text_of(s, "%s", key), name, s->parts};
  s->parts = p;
  return name;
}

static marea_status permute (onnx_saver *s, marea_tensor *t, const void *arg, marea_tensor **out) {
  return marea_run_with(s->ctx, &marea_op_permute, arg, out, 1, t);
}

const char *marea_onnx_weight (onnx_saver *s, int i, int rank, const int64_t *dims) {
  marea_attr order = {.n = rank};
  char key[64] = "dims";
  if (!is_given(s, i)) return NULL;
  memcpy(order.v, dims, (size_t)rank * sizeof dims[0]);
  for (int d = 0; d < rank; d++) snprintf(key + strlen(key), 4, " %d", (int)dims[d]);
  if (constant_in(s, i)) return marea_onnx_made(s, i, key, permute, &order);
  return marea_onnx_permuted(s, plain(s, i), rank, dims);
}

const char *marea_onnx_filled (onnx_saver *s, int rank, const int64_t *shape, double v, int dtype) {
  OWN t = NULL;
  marea_layout l;
  if (!saves(s)) return "";
  marea_layout_set(&l, dtype, rank, shape);
  s->status = marea_tensor_new(s->ctx, "onnx.save", &l, &t);
  if (!saves(s)) return "";
  for (int64_t i = 0; i < marea_tensor_size(t); i++) marea_store(dtype, marea_at(t), i, v);
  return marea_onnx_put_tensor(s, NULL, t, marea_onnx_type_of(dtype));
}

/* ---- sizes ---- */

const marea_layout *marea_onnx_other (const onnx_saver *s, int slot) {
  return s->other ? &s->other->layouts[slot] : &s->p->layouts[slot];
}

bool marea_onnx_is_free (const onnx_saver *s, int slot, int d) {
  return s->p->layouts[slot].shape[d] != marea_onnx_other(s, slot)->shape[d];
}

/* int64 (1): a free size, as an input of the trace has it */
static const char *size_of_input (onnx_saver *s, int64_t size, int64_t other) {
  for (int i = 0; i < s->p->n_inputs; i++) {
    const int slot = s->p->inputs[i];
    const marea_layout *l = &s->p->layouts[slot], *o = marea_onnx_other(s, slot);
    for (int d = 0; d < l->rank; d++)
      if (l->shape[d] == size && o->shape[d] == other && saves(s)) {
        const char *shape = NODE(s, "Shape", s->forms[slot]->name);
        return NODE(s, "Slice", shape, index1(s, d), index1(s, d + 1), index1(s, 0));
      }
  }
  marea_onnx_save_reject(s, "a size that follows from a free one: %lld, and %lld with other inputs",
                         (long long)size, (long long)other);
  return "";
}

const char *marea_onnx_shape_of (onnx_saver *s, const marea_layout *l, const marea_layout *other,
                                 bool reshape) {
  int64_t v[MAREA_MAX_RANK];
  const char *parts[MAREA_MAX_RANK];
  int unknown = 0, left = reshape;
  for (int d = 0; d < l->rank; d++) {
    const bool free = l->shape[d] != other->shape[d];
    v[d] = free ? -1 : l->shape[d];
    unknown += free;
  }
  if (unknown <= left) return marea_onnx_numbers(s, l->rank, v);
  for (int d = 0; d < l->rank; d++)
    parts[d] = v[d] >= 0 ? index1(s, v[d]) : size_of_input(s, l->shape[d], other->shape[d]);
  const char *y = marea_onnx_node(s, "Concat", l->rank, parts);
  marea_onnx_put_int(s, "axis", 0);
  return y;
}

const char *marea_onnx_sizes_out (onnx_saver *s, bool reshape) {
  return marea_onnx_shape_of(s, layout_out(s, 0), marea_onnx_other(s, slot_out(s, 0)), reshape);
}

const char *marea_onnx_reshaped (onnx_saver *s, const char *name, int n, const int64_t *sizes) {
  return NODE(s, "Reshape", name, marea_onnx_numbers(s, n, sizes));
}

/* ---- positions ---- */

const char *marea_onnx_from_base (onnx_saver *s, int i) {
  const int base = s->ctx->config.index_base;
  const char *x = marea_onnx_typed(s, i, ONNX_INT64);
  return base == 0 ? x : NODE(s, "Sub", x, marea_onnx_number(s, base, ONNX_INT64));
}

const char *marea_onnx_to_base (onnx_saver *s, const char *name) {
  const int base = s->ctx->config.index_base;
  return base == 0 ? name : NODE(s, "Add", name, marea_onnx_number(s, base, ONNX_INT64));
}

/* ---- steps ---- */

const char *marea_onnx_relu6 (onnx_saver *s, const char *x) {
  const int type = marea_onnx_type_of(layout_in(s, 0)->dtype);
  return NODE(s, "Clip", x, marea_onnx_number(s, 0, type), marea_onnx_number(s, 6, type));
}

const char *marea_onnx_activated (onnx_saver *s, const char *x) {
  static const char *const ops[MAREA_ACTIVATIONS] = {NULL,      "Relu", "LeakyRelu", "Elu",
                                                     "Sigmoid", "Tanh", "Softplus"};
  const int64_t act = attr_i(s, "activation");
  if (act == MAREA_ACT_NONE) return x;
  if (act == MAREA_ACT_RELU6) return marea_onnx_relu6(s, x);
  const char *y = NODE(s, ops[act], x);
  if (act != MAREA_ACT_LEAKY_RELU && act != MAREA_ACT_ELU) return y;
  const marea_attr *slope = marea_onnx_attr(s, "slope");
  marea_onnx_put_float(s, "alpha", slope->n ? slope->f : act == MAREA_ACT_ELU ? 1 : 0.01);
  return y;
}

/* ReduceSum takes its axes as an input since operator set 13, the others since 18. */
const char *marea_onnx_reduce (onnx_saver *s, const char *op, const char *x, int n, const int64_t *axes,
                               bool keep) {
  const bool input = s->opset >= 18 || strcmp(op, "ReduceSum") == 0;
  const char *y = input ? NODE(s, op, x, marea_onnx_numbers(s, n, axes)) : NODE(s, op, x);
  if (!input) marea_onnx_put_ints(s, "axes", n, axes);
  marea_onnx_put_int(s, "keepdims", keep);
  return y;
}
