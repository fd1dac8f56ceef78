/* SPDX-License-Identifier: MIT
** pickle.h: a reader of Python's pickles, protocol 2, for those that torch.save writes. Included only inside core/io/.
*/
#ifndef MAREA_PICKLE_H
#define MAREA_PICKLE_H

#include "io.h"

typedef struct marea_cell { /* of a list or a dict */
  int key, value, next;     /* nodes; key 0: none, of a list; next 0: the last one */
} marea_cell;

typedef struct marea_node {
  uint8_t kind;    /* marea_tree_kind, or one of pickle.c's own */
  uint8_t what;    /* of pickle.c's own kinds */
  int16_t depth;   /* of lists and dicts in it */
  int first, last; /* cells */
  uint32_t count;  /* of them, or bytes of a text */
  union {
    int64_t integer;
    double number;
    const char *text; /* inside of the pickle */
    marea_tensor *tensor;
  };
} marea_node;

struct marea_tree {
  marea_context *ctx;
  uint8_t *bytes; /* the pickle; the tree's own */
  size_t n;
  marea_node *nodes; /* node 0 is none */
  marea_cell *cells; /* cell 0 is none */
  int n_nodes, node_room, n_cells, cell_room, root;
};

/* A tensor's storage: code of its elements and their number, and the name under which the archive has them. */
typedef struct marea_pickle_storage {
  marea_code code;
  const char *key;
  size_t key_length;
  int64_t n;
} marea_pickle_storage;

/* What makes the tensors: `ud` and a storage with the view of it. Overflow and bounds are its business. */
typedef struct marea_view {
  int64_t offset, shape[MAREA_MAX_RANK], stride[MAREA_MAX_RANK];
  int rank;
} marea_view;
typedef marea_status marea_build (void *ud, const marea_pickle_storage *s, const marea_view *v,
                                  marea_tensor **out);

/* Reads t->bytes into t, whose nodes the caller frees in any case by marea_tree_free. */
marea_status marea_pickle_read (marea_tree *t, const char *label, marea_build *build, void *ud);

#endif
