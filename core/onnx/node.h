/* SPDX-License-Identifier: MIT
** node.h: what the handlers of ONNX operators are made of.
**
**   void marea_onnx_Softsign (onnx_node *n) { value *x = input(n, 0); give(n, 0, div(n, x, plus(n, op1(n, "abs", x), 1))); }
**
** A handler emits operators of Marea (graph/emit.h) for one node. Each step returns a value that the emitter owns. After
** a failure all further steps do nothing and return NULL, so a handler checks nothing; whoever called it looks at
** n->status. Values have ONNX's layout, channels first; the handlers of convolutions, pooling and of what goes element
** by element take and give images with channels last (`image`), so that between them nothing is transposed.
*/
#ifndef MAREA_ONNX_NODE_H
#define MAREA_ONNX_NODE_H

#include <string.h>

#include "../graph/emit.h"
#include "onnx.pb-c.h"

typedef marea_value value;

/* ONNX's element types, as its specification numbers them. int8 to int32 and unsigned ones are carried as i64, truth
   values and uint8 as u8. */
enum {
  ONNX_UNDEFINED,
  ONNX_FLOAT,
  ONNX_UINT8,
  ONNX_INT8,
  ONNX_UINT16,
  ONNX_INT16,
  ONNX_INT32,
  ONNX_INT64,
  ONNX_STRING,
  ONNX_BOOL,
  ONNX_FLOAT16,
  ONNX_DOUBLE,
  ONNX_UINT32,
  ONNX_UINT64,
  ONNX_BFLOAT16 = 16,
  ONNX_TYPES
};
int marea_onnx_dtype (int type); /* the dtype that carries it, -1: none */
const char *marea_onnx_type_name (int type);

typedef struct onnx_value { /* what a name of the graph stands for */
  int refs;
  int type;           /* ONNX's, of the elements */
  bool channels_last; /* `v` is (N, ..., C) for ONNX's (N, C, ...) */
  bool sequence;      /* of items[0..n-1]; otherwise it is v */
  value *v;
  struct onnx_value **items;
  int n;
} onnx_value;

typedef struct onnx_graph onnx_graph;
typedef struct onnx_scope onnx_scope;

#define ONNX_MOST_INTS 256 /* of an attribute, or of a value that is read as a list */
typedef struct onnx_ints {
  int n;
  int64_t v[ONNX_MOST_INTS];
} onnx_ints;

typedef struct onnx_node {
  marea_emitter *e;
  marea_status status;
  onnx_scope *scope;
  const Marea__NodeProto *proto;
  int version; /* of the operator set that the model asks for */
  int n_in, n_out;
  onnx_value **in;  /* NULL: left out */
  onnx_value **out; /* to be set by `give` */
} onnx_node;

typedef void onnx_handler (onnx_node *n);
#define HANDLER(name) void marea_onnx_##name(onnx_node *n)
#define OP(name) HANDLER(name);
#define TRAINING OP
#include "LIST.h"
#undef TRAINING
#undef OP
onnx_handler *marea_onnx_find (const char *domain, const char *name); /* NULL: it is not supported */

/* ---- failures ---- */

/* Sets n->status, once, with a text "onnx: node 'NAME' (OP): ..." */
void marea_onnx_reject (onnx_node *n, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts the node in front of the failure of an operator that it runs. */
void marea_onnx_name_node (onnx_node *n);
static inline bool goes_on (const onnx_node *n) { return n->status == MAREA_OK; }
/* For longer loops over elements: may they go on? An interrupt or a limit that is reached is a failure. */
static inline bool still (onnx_node *n, int64_t i) {
  if (goes_on(n) && (i & 0xff) == 0) n->status = marea_poll(n->e->ctx);
  return goes_on(n);
}
marea_status marea_onnx_out_of_memory (marea_context *ctx);
/* Memory for `count` things of `size` bytes, to be freed with marea_free; NULL: failed, before or now. */
void *marea_onnx_room (onnx_node *n, int64_t count, size_t size);
/* May a loop take its turn i? A program becomes no longer than some turns and calls: a loop that would make it so is run
   node by node (MAREA_UNKNOWN). */
bool marea_onnx_may_turn (onnx_node *n, int64_t i);

/* ---- attributes ---- */

const Marea__AttributeProto *marea_onnx_attribute (const onnx_node *n, const char *name);
int64_t marea_onnx_int (onnx_node *n, const char *name, int64_t initial);
double marea_onnx_float (onnx_node *n, const char *name, double initial);
/* Of at most `room` bytes with the zero behind them; a longer one is an error. */
void marea_onnx_text (onnx_node *n, const char *name, const char *initial, char *to, size_t room);
bool marea_onnx_is (onnx_node *n, const char *name, const char *initial, const char *wanted);
bool marea_onnx_ints (onnx_node *n, const char *name, onnx_ints *ints); /* false, n = 0: left out */

/* ---- values ---- */

bool marea_onnx_has (const onnx_node *n, int i);
value *marea_onnx_input (onnx_node *n, int i);    /* with channels first; an error where it is left out */
value *marea_onnx_optional (onnx_node *n, int i); /* NULL where it is left out */
value *marea_onnx_image (onnx_node *n, int i);    /* with channels last; of rank 2 as it is */
/* All inputs in one layout, for operators that broadcast: with channels last if one of them is. x[0..n_in-1]. */
bool marea_onnx_aligned (onnx_node *n, value **x);
void marea_onnx_give (onnx_node *n, int k, value *v); /* of the first input's type, if its dtype is that */
void marea_onnx_give_as (onnx_node *n, int k, value *v, int type);
/* The same, and whether v has channels last; of rank 2 and below there is no difference. */
void marea_onnx_give_laid_out (onnx_node *n, int k, value *v, int type, bool channels_last);
void marea_onnx_give_image (onnx_node *n, int k, value *v); /* channels last */
/* Input i in the layout that it has, and a result in the same one: for what goes element by element. */
value *marea_onnx_each (onnx_node *n, int i);
void marea_onnx_give_each (onnx_node *n, int k, value *v, int i);
void marea_onnx_give_value (onnx_node *n, int k, onnx_value *v); /* one more reference */
/* The elements as integers or numbers. Unknown ones end the making of a program (MAREA_UNKNOWN). */
bool marea_onnx_known_ints (onnx_node *n, value *v, onnx_ints *ints);
double marea_onnx_known_number (onnx_node *n, value *v);
int64_t marea_onnx_known_int (onnx_node *n, value *v);            /* cut towards zero */
const marea_tensor *marea_onnx_elements (onnx_node *n, value *v); /* without gaps; NULL after a failure */
double marea_onnx_element (const marea_tensor *t, int64_t i);     /* of such a tensor */
value *marea_onnx_new (onnx_node *n, int dtype, int rank,
                       const int64_t *shape); /* known, to be filled; NULL: failed */
/* A list that is an attribute in old operator sets and an input in new ones; false: left out. */
bool marea_onnx_list (onnx_node *n, const char *name, int i, onnx_ints *list);
value *marea_onnx_tensor (onnx_node *n, const Marea__TensorProto *t);
value *marea_onnx_known (onnx_node *n, marea_tensor *t); /* takes the reference */

/* ---- steps ---- */

/* The first result, or out[0..n_out-1]. */
value *marea_onnx_call (onnx_node *n, const char *op, int n_in, value *const *in, int n_named,
                        const marea_named *named);
void marea_onnx_call_all (onnx_node *n, const char *op, int n_in, value *const *in, int n_named,
                          const marea_named *named, int n_out, value **out);
#define LIST_(type, ...) \
  (int)(sizeof((type[]){__VA_ARGS__}) / sizeof(type)), (type[]) { __VA_ARGS__ }
#define VALUES(...) LIST_(value *, __VA_ARGS__)
#define NAMED(...) LIST_(marea_named, __VA_ARGS__)
#define NOTHING 0, NULL
/* The first result of an operator with attributes */
#define CALL(n, op, values, named) marea_onnx_call(n, op, values, named)
#define CALL_PLAIN(n, op, values) marea_onnx_call(n, op, values, 0, NULL)

static inline value *op1 (onnx_node *n, const char *op, value *x) { return CALL_PLAIN(n, op, VALUES(x)); }
static inline value *op2 (onnx_node *n, const char *op, value *a, value *b) {
  return CALL_PLAIN(n, op, VALUES(a, b));
}
value *marea_onnx_scalar (onnx_node *n, double number, int dtype);
value *marea_onnx_integer (onnx_node *n, int64_t number, int dtype);
value *marea_onnx_from_ints (onnx_node *n, int count, const int64_t *v); /* i64 (count) */
value *marea_onnx_range (onnx_node *n, int64_t count);                   /* i64 (count): 0, 1, ... */
/* Positions in a dimension, from 0 or negative from its end, as Marea's operators take them; and what these give, from 0. */
value *marea_onnx_indices (onnx_node *n, value *index, int64_t size);
value *marea_onnx_positions (onnx_node *n, value *index);

static inline value *input (onnx_node *n, int i) { return marea_onnx_input(n, i); }
static inline value *optional (onnx_node *n, int i) { return marea_onnx_optional(n, i); }
static inline value *image (onnx_node *n, int i) { return marea_onnx_image(n, i); }
static inline value *each (onnx_node *n, int i) { return marea_onnx_each(n, i); }
static inline void give_each (onnx_node *n, value *v) { marea_onnx_give_each(n, 0, v, 0); }
static inline bool has (const onnx_node *n, int i) { return marea_onnx_has(n, i); }
static inline void give (onnx_node *n, int k, value *v) { marea_onnx_give(n, k, v); }
static inline int64_t int_of (onnx_node *n, const char *name, int64_t initial) {
  return marea_onnx_int(n, name, initial);
}
static inline double float_of (onnx_node *n, const char *name, double initial) {
  return marea_onnx_float(n, name, initial);
}

static inline int rank_of (const value *v) { return v ? v->t->rank : 0; }
static inline int64_t size_of (const value *v, int d) { return v ? v->t->shape[d] : 1; }
static inline int dtype_of (const value *v) { return v ? v->t->dtype : MAREA_F32; }
static inline int64_t count_of (const value *v) { return v ? marea_tensor_size(v->t) : 0; }

static inline value *add (onnx_node *n, value *a, value *b) { return op2(n, "add", a, b); }
static inline value *sub (onnx_node *n, value *a, value *b) { return op2(n, "sub", a, b); }
static inline value *mul (onnx_node *n, value *a, value *b) { return op2(n, "mul", a, b); }
static inline value *divide (onnx_node *n, value *a, value *b) { return op2(n, "div", a, b); }
/* x + number, x * number: in x's dtype */
static inline value *plus (onnx_node *n, value *x, double number) {
  return add(n, x, marea_onnx_scalar(n, number, dtype_of(x)));
}
static inline value *times (onnx_node *n, value *x, double number) {
  return mul(n, x, marea_onnx_scalar(n, number, dtype_of(x)));
}
value *marea_onnx_cast (onnx_node *n, value *x, int dtype);
value *marea_onnx_reshape (onnx_node *n, value *x, int rank, const int64_t *shape);
value *marea_onnx_permute (onnx_node *n, value *x, int rank, const int *dims);
static inline value *where (onnx_node *n, value *condition, value *a, value *b) {
  return CALL_PLAIN(n, "where", VALUES(condition, a, b));
}
/* A dimension of ONNX, negative from the end; checked. */
int marea_onnx_axis (onnx_node *n, int64_t axis, int rank);
/* The dimensions of a list, checked, as a set of bits. */
unsigned marea_onnx_axes (onnx_node *n, const onnx_ints *axes, int rank);
value *marea_onnx_expand (onnx_node *n, value *x, int rank, const int64_t *shape);
value *marea_onnx_channels_last (onnx_node *n, value *x, bool back); /* (N, C, ...) -> (N, ..., C), or back */

/* ---- graph.c ---- */

/* Runs the graph in an attribute with these inputs; out[0..n_out-1] get one reference each. */
void marea_onnx_run_body (onnx_node *n, const char *attribute, int n_in, onnx_value *const *in, int n_out,
                          onnx_value **out);
onnx_value *marea_onnx_value_new (onnx_node *n, value *v, int type); /* one reference, the caller's */
onnx_value *marea_onnx_value_retain (onnx_value *v);
void marea_onnx_value_release (marea_emitter *e, onnx_value *v);

#endif
