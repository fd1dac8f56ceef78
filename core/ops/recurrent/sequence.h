/* SPDX-License-Identifier: MIT
** sequence.h: what recurrent layers have in common: one direction of one layer over whole sequences.
**
** The input products of all or many steps are one matrix product. The recurrent part goes step by step, but rows of a batch do not
** depend on each other: blocks of rows go through all steps on their own, so that threads never wait for each other. Where
** w_h is too large for a second-level cache and there are few rows, each thread would read all of it at each step for its
** few rows: there all rows are one block, and the threads share the columns of w_h, and then the rows, of each step. Rows
** of a block are taken in the order of their lengths, the longest first; then the rows that have not ended are the first
** ones at each step.
*/
#ifndef MAREA_SEQUENCE_H
#define MAREA_SEQUENCE_H

#include "core.h"

/* What samples begin with: sizes, w for a tensor, maybe for an optional one. */
#define MAREA_SEQUENCE_SAMPLE                                                            \
  "local d = g.shape(3, 3, 0, 4) local n, t, c, h = d[1], d[2], d[3], g.int(0, 20) % 5 " \
  "local function w(...) return g.tensor({...}, {lo = -1, hi = 1}) end "                 \
  "local function maybe(x) if g.bool() then return x end end "                           \
  "local x = w(n, t, c) "                                                                \
  "local lengths = maybe(g.tensor({n}, {dtype = 'i64', lo = 0, hi = t})) "

#define MAREA_SEQUENCE_REVERSE \
  { "reverse", MAREA_BOOL, 0, NULL, "from the end of each row to its beginning" }
#define MAREA_SEQUENCE_ACTIVATION                                                      \
  {                                                                                    \
    "recurrent_activation", MAREA_ENUM, 0, "sigmoid|hard_sigmoid",                     \
        "of the gates; Keras' older layers have hard_sigmoid, clip(0.2 x + 0.5, 0, 1)" \
  }

typedef struct marea_sequence {
  marea_context *ctx;
  const marea_kernels *kernels;
  int dtype;
  size_t size;           /* bytes of an element */
  int64_t n, steps;      /* rows of the batch, N; time steps, T */
  int64_t in, hidden;    /* values of an input, C; units, H */
  int64_t gates;         /* columns of both weights: H for each gate */
  const int64_t *length; /* (N); NULL: all are T */
  const int64_t *order;  /* (N) rows, block by block, in each the longest first */
  bool reverse;          /* from each row's own end to its beginning */
  bool bf16;             /* operands of products are rounded to bf16 */
  bool bytes;            /* weights are quantize_int8's, and operands become bytes */
  bool by_columns;       /* all rows are one block, and threads share each step */
} marea_sequence;

/* Checks x (N, T, C), w_x (C, gates), w_h (H, gates), bias (gates), h0 (N, H) and lengths (N), which are the inputs x, .., of
   which bias, h0 and lengths may be missing; gates = H * per_unit. */
typedef struct marea_sequence_inputs {
  int x, w_x, w_h, bias, h0, lengths; /* positions; -1: none */
  int per_unit; /* H is so many of the elements of the scales behind w_h; 0: weights are floats */
} marea_sequence_inputs;
marea_status marea_sequence_shape (marea_call *c, const marea_sequence_inputs *at, int64_t per_unit);
/* Checks those of them that may be missing. */
marea_status marea_sequence_shape_rest (marea_call *c, const marea_sequence_inputs *at, int64_t hidden,
                                        int64_t gates);
/* Input `input`, if there is one, must have this layout. */
marea_status marea_sequence_want (marea_call *c, int input, const marea_layout *l);
/* Sets s; reads the lengths, the first one that is not in 0..T is an error. */
marea_status marea_sequence_open (marea_call *c, const marea_sequence_inputs *at, bool reverse,
                                  marea_sequence *s);

static inline int64_t marea_sequence_length (const marea_sequence *s, int64_t row) {
  return s->length ? s->length[row] : s->steps;
}

/* Where in time a row is at a step that it has. */
static inline int64_t marea_sequence_time (const marea_sequence *s, int64_t row, int64_t step) {
  return s->reverse ? marea_sequence_length(s, row) - 1 - step : step;
}

/* Place of a row's step among (N, T). */
static inline int64_t marea_sequence_at (const marea_sequence *s, int64_t row, int64_t step) {
  return row * s->steps + marea_sequence_time(s, row, step);
}

/* Rows first .. end - 1 of the order. */
int64_t marea_sequence_blocks (const marea_sequence *s);
marea_range marea_sequence_block (const marea_sequence *s, int64_t block);
/* The most rows in a block. */
int64_t marea_sequence_rows (const marea_sequence *s);
/* How many of a block's rows have not ended before `step`: the first ones. */
int64_t marea_sequence_active (const marea_sequence *s, marea_range rows, int64_t step);

/* Calls fn(arg, i, worker) for i = 0 .. n - 1, on all threads if they share each step. */
void marea_sequence_share (const marea_sequence *s, int64_t n, marea_block_fn fn, void *arg);

/* Elements of an optional input; NULL: it was left out. */
const char *marea_sequence_given (const marea_call *c, int input);
/* A first state (N, H); zeros when the input was left out. */
marea_status marea_sequence_first (marea_call *c, const marea_sequence *s, int input, const char **state);
/* `gates` (N, T, gates) := x w_x + bias, for all steps at once. */
marea_status marea_sequence_input_product (marea_call *c, const marea_sequence *s,
                                           const marea_sequence_inputs *at, char *gates);

/* A weight (k, m) in panels of columns (panel, k, column), or in those of marea_bf16_product, or quantize_int8's. */
typedef struct marea_packed {
  int64_t k, m;
  const char *at;
  const float *scale; /* (m) of bytes */
} marea_packed;
/* Columns first .. first + n - 1 of w_h, or, for the way back, these columns transposed: (n, H). */
marea_status marea_sequence_pack (marea_call *c, const marea_sequence *s, const marea_tensor *w_h,
                                  int64_t first, int64_t n, bool transposed, marea_packed *p);
/* y (rows, m) := x (rows, k) times the weight, or, if `add`, += it; x_row, y_row: elements from row to row. A worker's `narrow` is what follows
   its `work`: room for x in bf16 or bytes. x NULL: it is there already, in bf16. */
void marea_sequence_multiply (const marea_sequence *s, const marea_packed *p, const char *x, int64_t x_row,
                              int64_t rows, char *narrow, char *y, int64_t y_row, bool add);

/* ---- a layer forward ---- */

/* What the layers differ in is `step`. Memory of a worker begins with h (rows, H), the state of its rows in their order;
   `work` follows, `per_row` elements for each row. */
typedef struct marea_recurrence marea_recurrence;
struct marea_recurrence {
  marea_sequence s;
  const char *h0; /* (N, H) */
  char *y, *h_n;  /* (N, T, H), (N, H) */
  char *saved[2]; /* further values of each step, (N, T, width): zeros behind the ends of rows; NULL: none */
  int64_t width[2];
  int64_t per_row;
  /* With x (N, T, C) the input products of some steps are made at a time, while they are in a second-level cache; NULL: the
     operator has made all of them. */
  const char *x, *bias;
  marea_packed w_x;
  /* One step of the rows that are active: writes y, and h. a: the rows' input products (active, gates) */
  void (*step)(const marea_recurrence *p, marea_range rows, int64_t step, int64_t active, char *h, char *work,
               char *a);
  /* Further states of the rows of a block, before the first step and after the last; NULL: there are none. */
  void (*begin)(const marea_recurrence *p, marea_range rows, char *work);
  void (*end)(const marea_recurrence *p, marea_range rows, char *work);
  char *memory;
  size_t per_worker;
};

marea_status marea_recurrence_run (marea_call *c, marea_recurrence *p);
/* Sets x, bias and w_x, and packs w_h. */
marea_status marea_recurrence_inputs (marea_call *c, const marea_sequence_inputs *at, marea_recurrence *p,
                                      marea_packed *w_h);

/* ---- and backward ---- */

/* Memory of a worker begins with dh (rows, H), the gradient of the state behind the step. */
typedef struct marea_recurrence_grad marea_recurrence_grad;
struct marea_recurrence_grad {
  marea_sequence s;
  const char *h0, *y;    /* as forward */
  const char *dy, *dh_n; /* (N, T, H), (N, H); NULL: nothing arrived */
  char *dx_gates,
      *dh_gates; /* (N, T, gates): gradients of the input product and of the recurrent one; often the same */
  int64_t gates_row; /* elements from row to row of these, which are bf16 where products are */
  char *before;      /* (N, T, H): the state that met w_h at each step */
  char *dh0;         /* (N, H) */
  int64_t per_row;
  /* One step of the rows that are active, dy being added to dh: writes dx_gates and dh_gates, and dh of the step before. */
  void (*step)(const marea_recurrence_grad *p, marea_range rows, int64_t step, int64_t active, char *dh,
               char *work);
  /* Further states of the rows of a block, before the first step and after the last; NULL: there are none. */
  void (*begin)(const marea_recurrence_grad *p, marea_range rows, char *work);
  void (*end)(const marea_recurrence_grad *p, marea_range rows, char *work);
  char *memory;
  size_t per_worker;
};

/* Positions of further inputs, and of the result dh0. */
typedef struct marea_recurrence_grad_places {
  marea_sequence_inputs inputs;
  int y, dy, dh_n, dh0;
} marea_recurrence_grad_places;
/* Opens the sequence and sets what the operators have in common, with the memory of dx_gates and before. */
marea_status marea_recurrence_grad_open (marea_call *c, const marea_recurrence_grad_places *at, bool reverse,
                                         marea_recurrence_grad *p);
/* Elements of dx_gates or dh_gates. */
marea_status marea_recurrence_grad_gates (marea_call *c, const marea_recurrence_grad *p, char **gates);
/* Writes the gradients of a row's gates to place `at` of dx_gates or dh_gates, and, where products are bf16 and `narrow` is
   not NULL, to its row i, for a product. */
void marea_recurrence_keep (const marea_recurrence_grad *p, char *gates, int64_t at, const char *row,
                            char *narrow, int64_t i);
/* All steps. */
marea_status marea_recurrence_grad_run (marea_call *c, marea_recurrence_grad *p);
/* dx (N, T, C), which is empty when it is not wanted, dw_x (C, gates), dw_h (H, gates) and dbias (gates), results 0 to 3,
   from what the steps have written. */
marea_status marea_recurrence_grad_products (marea_call *c, const marea_recurrence_grad *p,
                                             const marea_sequence_inputs *at);
/* Of a product that reads dx_gates or dh_gates as A or as B */
marea_gemm_layout marea_recurrence_grad_layout (const marea_recurrence_grad *p, bool as_a);
/* sum (n) := the sum over all steps of columns first, first + 1, ... of dx_gates or dh_gates. */
void marea_recurrence_sum (const marea_recurrence_grad *p, const char *gates, int64_t first, int64_t n,
                           char *sum);
/* The layouts of results 0 to 3 of a gradient: dx, empty unless wanted, dw_x, dw_h, dbias. x, w_x and w_h come first. */
void marea_sequence_grad_layouts (marea_call *c, int64_t per_unit, bool dx);
/* FLOPs of `inputs` products of the size of x w_x and `states` of that of h w_h. */
double marea_sequence_flop (const marea_call *c, const marea_tensor *w_h, double inputs, double states);
/* A vjp: the gradients of the inputs are the results of `grad`, in their order. */
marea_status marea_sequence_vjp (marea_vjp *v, const marea_op *grad, int n, marea_tensor **in,
                                 const marea_attr *attr);

/* Address of a row of `width` elements. */
static inline char *marea_sequence_row (const marea_sequence *s, const char *t, int64_t row, int64_t width) {
  return (char *)t + (size_t)(row * width) * s->size;
}

/* What follows the work of all rows. */
static inline char *marea_sequence_narrow (const marea_sequence *s, char *work, int64_t per_row) {
  return marea_sequence_row(s, work, marea_sequence_rows(s), per_row);
}

/* The state before a step: what a step has written to `states` (N, T, H), or the first one (N, H). */
static inline const char *marea_sequence_before (const marea_sequence *s, const char *states,
                                                 const char *first, int64_t row, int64_t step) {
  return step == 0 ? marea_sequence_row(s, first, row, s->hidden)
                   : marea_sequence_row(s, states, marea_sequence_at(s, row, step - 1), s->hidden);
}

#endif
