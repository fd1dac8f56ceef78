/* SPDX-License-Identifier: MIT
** tape.h: what a node of the tape is, for tape.c and blame.c.
*/
#ifndef MAREA_TAPE_H
#define MAREA_TAPE_H

#include "core.h"

/* What a node knows about an input or an output of its call. */
typedef struct marea_operand {
  marea_tensor *t;  /* itself if its values are saved, or if it is a leaf whose gradient is wanted */
  marea_node *node; /* an input's history */
  uint32_t version; /* of its storage when it was recorded; of a rank-0 tensor that is not saved: its value's bits, f32 */
  int8_t dtype, rank; /* rank -1: an optional input that was not given */
  int8_t slot;        /* which output of `node` it is */
  bool requires_grad;
} marea_operand;

struct marea_node {
  marea_node *prev, *next; /* neighbours on the tape; `next` also links dead ones */
  const marea_op *op;
  uint64_t counter;
  int refs, n_in;
  int8_t n_out, n_attr;
  bool listed;  /* during marea_grad: one of xs is a result of it */
  int layer;    /* in which it was recorded */
  bool planned; /* recorded while a plan ran, which alone may consume it then */
  bool consumed;
  bool waiting; /* a gradient waits here; counts as one reference */
  bool wanted;  /* during marea_grad: leads to one of xs; during marea_find_blame: the result depends on it */
  uint32_t place;
  marea_operand
      io[]; /* [n_in] inputs, [n_out] outputs; in the same block follow attributes, gradients and shapes */
};

static inline marea_attr *marea_node_attrs (marea_node *node) {
  return (marea_attr *)(node->io + node->n_in + node->n_out);
}

/* [n_out]: what has arrived at the outputs during a pass. */
static inline marea_tensor **marea_node_grads (marea_node *node) {
  return (marea_tensor **)(marea_node_attrs(node) + node->n_attr);
}

/* The shapes of all operands, one after the other. */
static inline int64_t *marea_node_shapes (marea_node *node) {
  return (int64_t *)(marea_node_grads(node) + node->n_out);
}

#endif
