/* SPDX-License-Identifier: MIT
** emit.h: a graph becomes calls of operators.
**
** Whoever knows a graph, as core/onnx does, walks over it and emits operators by name. An operator whose inputs are all
** known is computed at once: so weights and shapes are folded. Any other becomes a call of the program, with the shape
** of its results found by the operator's own shape rule (plan.c). Without a program everything is known, and the walk
** itself computes: so graphs run whose shapes depend on values, and so they are recorded on the tape.
*/
#ifndef MAREA_EMIT_H
#define MAREA_EMIT_H

#include "../core.h"

typedef struct marea_program marea_program;

typedef struct marea_value {
  int refs;
  marea_tensor
      *t;   /* with its elements, if they are known; else planned, which has a shape and a dtype alone */
  int slot; /* of the program; -1: not in it */
} marea_value;

typedef struct marea_emitter {
  marea_context *ctx;
  marea_program *program; /* NULL: everything is known */
  marea_value **made;     /* what was emitted since marea_emit_begin, to be released by marea_emit_end */
  int n_made, room_made;
} marea_emitter;

/* Of a walk that needs elements that are not known: the graph can only run without a program. Never leaves the core. */
#define MAREA_UNKNOWN ((marea_status)-1)

/* Between these two the values that are made belong to the emitter; what is to live longer is retained. */
int marea_emit_begin (marea_emitter *e);
void marea_emit_end (marea_emitter *e, int mark);
void marea_emitter_clear (marea_emitter *e);

marea_value *marea_value_retain (marea_value *v);
void marea_value_release (marea_emitter *e, marea_value *v);
static inline bool marea_value_known (const marea_value *v) { return !v->t->storage->planned; }

marea_status marea_emit_keep (marea_emitter *e, marea_value *v); /* the emitter owns it, too */
/* A known value of a tensor, which it takes one reference of, in any case. */
marea_status marea_emit_known (marea_emitter *e, marea_tensor *t, marea_value **out);
/* An input of the program, of this dtype and shape. */
marea_status marea_emit_input (marea_emitter *e, const marea_tensor *like, marea_value **out);
/* Applies an operator by name, as marea_call_op does; out[0..n_out-1] belong to the emitter. A NULL in `in` is an
   optional input that is left out. */
marea_status marea_emit (marea_emitter *e, const char *op, int n_in, marea_value *const *in, int n_named,
                         const marea_named *named, int n_out, marea_value **out);

/* ---- program.c: calls in their order, with what they read and write ---- */

marea_status marea_graph_out_of_memory (marea_context *ctx); /* MAREA_ENOMEM */
/* The list, of n items of `size` bytes, with room for one more; NULL: out of memory, and the list is as it was. */
void *marea_grown (marea_context *ctx, void *list, int n, int *room, size_t size);

typedef struct marea_program_call {
  const marea_op *op;
  marea_attr attr[MAREA_MAX_ATTRS];
  int n_in, n_out;
  int *slot; /* of the inputs, -1: left out; then of the results */
  int whole; /* slot of a concat's result that the result is written into, -1: none; from which channel on */
  int64_t channel;
} marea_program_call;

struct marea_program {
  marea_context *ctx;
  marea_program_call *calls;
  int n_calls, room_calls;
  marea_tensor **slots;  /* by slot: a constant; NULL: made by a run */
  marea_layout *layouts; /* by slot: dtype and shape */
  int *last;             /* by slot: the last call that reads it; n_calls: it is a result */
  int n_slots, room_slots;
  int *inputs, *outputs; /* slots */
  int n_inputs, n_outputs, room_inputs, room_outputs;
};

marea_status marea_program_new (marea_context *ctx, marea_program **out);
void marea_program_free (marea_program *p);
marea_status marea_program_input (marea_program *p, const marea_tensor *like, int *slot);
marea_status marea_program_constant (marea_program *p, marea_tensor *t, int *slot);
marea_status marea_program_hold (marea_program *p, marea_tensor *t,
                                 int *slot); /* the same, as it is, not to be run */
marea_status marea_program_add (marea_program *p, const marea_op *op, const marea_attr *attr, int n_in,
                                const int *in, int n_out, marea_tensor *const *like, int *out);
marea_status marea_program_output (marea_program *p, int slot);
/* fuse.c: joins calls. On failure the program is of no more use. */
marea_status marea_program_fuse (marea_program *p);
/* After the last call: finds out until when each value is needed. */
marea_status marea_program_finish (marea_program *p);
marea_status marea_program_run (marea_program *p, marea_tensor *const *in, marea_tensor **out);

/* print.c: the program as text, u8 (n) */
marea_status marea_program_text (const marea_program *p, marea_tensor **out);

#endif
