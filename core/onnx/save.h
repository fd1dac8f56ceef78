/* SPDX-License-Identifier: MIT
** save.h: what the writers of operators are made of.
**
**   SAVE(silu) { const char *x = each(s, 0); give_each(s, NODE(s, "Mul", x, NODE(s, "Sigmoid", x))); }
**
** A writer adds nodes of ONNX for one call of a Marea operator. Values go by the names that they have in the file; after a
** failure steps do nothing, so a writer checks nothing. A value is there in Marea's layout, channels last, or as ONNX wants
** images, channels first, or in both: whoever asks for the form that is not there gets a Transpose. The writers of
** convolutions, pooling and of what goes element by element take and give channels first, so that between them nothing is
** transposed.
*/
#ifndef MAREA_ONNX_SAVE_H
#define MAREA_ONNX_SAVE_H

#include "../graph/trace.h"
#include "node.h"

typedef struct onnx_form { /* one that a value is there in */
  const char *name;
  int type; /* ONNX's */
  int rank; /* its own, or more, with ones in front */
  bool first;
  struct onnx_form *next;
} onnx_form;

typedef struct onnx_part { /* a constant that was made of a weight */
  int slot;
  const char *key, *name;
  struct onnx_part *next;
} onnx_part;

typedef struct onnx_list {
  void **items;
  size_t n, room;
} onnx_list;

typedef struct onnx_saver {
  marea_context *ctx;
  const marea_program *p;
  const marea_program *other; /* with other sizes of inputs; NULL: none */
  const marea_onnx_names *names;
  int opset;
  marea_status status;
  const marea_program_call *c; /* that is written */
  onnx_form **forms;           /* by slot, the first one being that it was given in */
  onnx_part *parts;
  struct onnx_chunk *chunks; /* of memory */
  onnx_list nodes, weights, held;
  Marea__NodeProto *node; /* the last one */
  int counter;
} onnx_saver;

typedef void onnx_writer (onnx_saver *s);
#define SAVE(name) void marea_onnx_save_##name(onnx_saver *s)
#define OUT(name) SAVE(name);
#include "SAVE_LIST.h"
#undef OUT

/* Sets s->status, once, with a text "onnx.save: OP: ..." */
void marea_onnx_save_reject (onnx_saver *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline bool saves (const onnx_saver *s) { return s->status == MAREA_OK; }

/* ---- save_message.c: parts of the file ---- */

void *marea_onnx_memory (onnx_saver *s, size_t bytes); /* cleared, until the end; NULL after a failure */
void marea_onnx_append (onnx_saver *s, onnx_list *list, void *item);
char *marea_onnx_text_of (onnx_saver *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A node; its first result. NULL in `in`: an input that is left out. */
const char *marea_onnx_node (onnx_saver *s, const char *op, int n_in, const char *const *in);
const char *marea_onnx_result (onnx_saver *s); /* one more result of the last node */
#define NODE(s, op, ...) marea_onnx_node(s, op, LIST_(const char *, __VA_ARGS__))
/* Attributes of the last node */
void marea_onnx_put_int (onnx_saver *s, const char *name, int64_t v);
void marea_onnx_put_float (onnx_saver *s, const char *name, double v);
void marea_onnx_put_text (onnx_saver *s, const char *name, const char *v);
void marea_onnx_put_ints (onnx_saver *s, const char *name, int n, const int64_t *v);
void marea_onnx_put_texts (onnx_saver *s, const char *name, int n, const char *const *v);
void marea_onnx_put_floats (onnx_saver *s, const char *name, int n, const double *v);
/* A constant, of a name: a weight of the file; without one: a node. Keeps a reference of t. */
const char *marea_onnx_put_tensor (onnx_saver *s, const char *name, marea_tensor *t, int type);
const char *marea_onnx_number (onnx_saver *s, double v, int type);
const char *marea_onnx_numbers (onnx_saver *s, int n, const int64_t *v); /* int64 (n) */
const char *marea_onnx_floats (onnx_saver *s, int n, const double *v);   /* float (n) */
const char *marea_onnx_doubles (onnx_saver *s, int n, const double *v);  /* double (n) */
#define INTS(...) LIST_(int64_t, __VA_ARGS__)
static inline const char *index1 (onnx_saver *s, int64_t v) { return marea_onnx_numbers(s, 1, &v); }

/* ---- save_value.c: what goes into a call and comes out of it ---- */

static inline int slot_in (const onnx_saver *s, int i) { return i < s->c->n_in ? s->c->slot[i] : -1; }
static inline int slot_out (const onnx_saver *s, int k) { return s->c->slot[s->c->n_in + k]; }
static inline bool is_given (const onnx_saver *s, int i) { return slot_in(s, i) >= 0; }
static inline const marea_layout *layout_in (const onnx_saver *s, int i) {
  return &s->p->layouts[slot_in(s, i)];
}
static inline const marea_layout *layout_out (const onnx_saver *s, int k) {
  return &s->p->layouts[slot_out(s, k)];
}
static inline marea_tensor *constant_in (const onnx_saver *s, int i) {
  return is_given(s, i) ? s->p->slots[slot_in(s, i)] : NULL;
}
int marea_onnx_type_of (int dtype);
const marea_attr *marea_onnx_attr (const onnx_saver *s, const char *name); /* of the operator, by name */
static inline int64_t attr_i (const onnx_saver *s, const char *name) { return marea_onnx_attr(s, name)->i; }
static inline double attr_f (const onnx_saver *s, const char *name) { return marea_onnx_attr(s, name)->f; }
/* A dimension from 0 */
static inline int attr_dim (const onnx_saver *s, const char *name, int rank) {
  const int d = (int)attr_i(s, name);
  return d < 0 ? d + rank : d;
}

/* A value in a form: channels first or not, of a type, with ones in front up to `rank`. */
const char *marea_onnx_form (onnx_saver *s, int slot, bool first, int type, int rank);
/* Input i in Marea's layout and of its dtype; as ONNX wants images; as truth values; NULL where it is left out */
const char *marea_onnx_plain (onnx_saver *s, int i);
const char *marea_onnx_first (onnx_saver *s, int i);
const char *marea_onnx_truth (onnx_saver *s, int i);
const char *marea_onnx_typed (onnx_saver *s, int i, int type);
static inline const char *plain (onnx_saver *s, int i) { return marea_onnx_plain(s, i); }
static inline const char *first (onnx_saver *s, int i) { return marea_onnx_first(s, i); }
/* Is input i there with channels first alone? */
bool marea_onnx_is_first (const onnx_saver *s, int i);
/* Input 0 in the layout that it is there in, and a result in the same one */
const char *marea_onnx_saved_each (onnx_saver *s);
void marea_onnx_save_each (onnx_saver *s, const char *name);
#define each_in(s) marea_onnx_saved_each(s)
#define each_out(s, name) marea_onnx_save_each(s, name)
/* Input i in the layout `first`, of the type that it is there in, for what moves elements; and such a result */
const char *marea_onnx_moved (onnx_saver *s, int i, bool first, int *type);
void marea_onnx_put (onnx_saver *s, int k, const char *name, bool first, int type);
static inline void put (onnx_saver *s, int k, const char *name) {
  marea_onnx_put(s, k, name, false, marea_onnx_type_of(layout_out(s, k)->dtype));
}
static inline void put_first (onnx_saver *s, int k, const char *name) {
  marea_onnx_put(s, k, name, true, marea_onnx_type_of(layout_out(s, k)->dtype));
}
/* All inputs for an operator that broadcasts, in one layout, `first`, as this type; those of x that are NULL are left out */
bool marea_onnx_together (onnx_saver *s, int n, const char **x, const int *types);
/* A result of operators that broadcast, in the layout of the last marea_onnx_together */
const char *marea_onnx_cast_to (onnx_saver *s, const char *name, int type);
const char *marea_onnx_turn (onnx_saver *s, const char *name, int rank, bool to_first); /* Transpose */
const char *marea_onnx_permuted (onnx_saver *s, const char *name, int rank, const int64_t *dims);
/* A constant that is made of the constant input i by marea operators: once for each key. f gives a new reference. */
typedef marea_status onnx_maker (onnx_saver *s, marea_tensor *t, const void *arg, marea_tensor **out);
const char *marea_onnx_made (onnx_saver *s, int i, const char *key, onnx_maker *f, const void *arg);
/* ... with its dimensions reordered */
const char *marea_onnx_weight (onnx_saver *s, int i, int rank, const int64_t *dims);
/* A constant of one dimension and one value */
const char *marea_onnx_filled (onnx_saver *s, int rank, const int64_t *shape, double v, int dtype);
/* Where dimension d of Marea lies */
static inline int marea_onnx_place_first (bool first, int d, int rank) {
  return !first || rank < 3 || d == 0 ? d : d == rank - 1 ? 1 : d + 1;
}
/* The sizes of a value for Reshape (one may be left to it), or for others */
const char *marea_onnx_shape_of (onnx_saver *s, const marea_layout *l, const marea_layout *other,
                                 bool reshape);
const char *marea_onnx_sizes_out (onnx_saver *s, bool reshape); /* of the first result */
bool marea_onnx_is_free (const onnx_saver *s, int slot, int d); /* has dimension d any size? */
const marea_layout *marea_onnx_other (const onnx_saver *s,
                                      int slot); /* in the other trace; the same without one */
/* Positions as Marea counts them, from 0 then; and back */
const char *marea_onnx_from_base (onnx_saver *s, int i);
const char *marea_onnx_to_base (onnx_saver *s, const char *name);
const char *marea_onnx_relu6 (onnx_saver *s, const char *name);
const char *marea_onnx_activated (onnx_saver *s,
                                  const char *name); /* by the attributes activation and slope */
const char *marea_onnx_reshaped (onnx_saver *s, const char *name, int n, const int64_t *sizes);
/* A reduction, with axes where this operator set wants them */
const char *marea_onnx_reduce (onnx_saver *s, const char *op, const char *x, int n, const int64_t *axes,
                               bool keep);

#endif
