/* SPDX-License-Identifier: MIT
** tree.h: marea_tree, the values of a file that holds more than named tensors, while it is made. Included only inside core/io/.
*/
#ifndef MAREA_TREE_H
#define MAREA_TREE_H

#include "io.h"

#define MAREA_MAX_NODES (8 << 20)
#define MAREA_MAX_DEPTH 500
#define MAREA_MOST_COPIES 64

typedef struct marea_cell { /* of a list or a dict */
  int key, value, next;     /* nodes; key 0: none, of a list; next 0: the last one */
} marea_cell;

typedef struct marea_node {
  uint8_t kind;    /* marea_tree_kind, or while it is read one of the reader's own */
  uint8_t what;    /* of such kinds */
  int16_t depth;   /* of lists and dicts in it */
  int first, last; /* cells */
  uint32_t count;  /* of them, or bytes of a text */
  union {
    int64_t integer;
    double number;
    const char *text; /* inside of the bytes */
    marea_tensor *tensor;
  };
} marea_node;

struct marea_tree {
  marea_context *ctx;
  uint8_t *bytes; /* what texts point into; the tree's own */
  size_t n;
  marea_node *nodes; /* node 0 is none */
  marea_cell *cells; /* cell 0 is none */
  int n_nodes, node_room, n_cells, cell_room, root;
};

/* ---- tree.c ---- */

marea_status marea_tree_new (marea_context *ctx, const char *label, marea_tree **out);
/* Twice the room for `size` bytes each, of which n are taken, at *p. */
marea_status marea_tree_grow (marea_context *ctx, const char *label, void **p, int n, int *room, size_t size);
marea_status marea_tree_make (marea_tree *t, const char *label, marea_node node, int *made);
/* Puts a value into a list (key 0) or a dict. */
marea_status marea_tree_add (marea_tree *t, const char *label, int to, int key, int value);
/* Moves the texts, which point anywhere until then, into bytes of the tree's own. */
marea_status marea_tree_keep_texts (marea_tree *t, const char *label);
marea_status marea_load_tree (marea_context *ctx, const char *who, const char *path, marea_tree_parser *parse,
                              marea_tree **out);

/* The bytes that are not read yet. */
typedef struct marea_cursor {
  marea_context *ctx;
  const char *label;
  const uint8_t *at, *end;
} marea_cursor;
marea_status marea_take (marea_cursor *c, size_t n, const uint8_t **p);
marea_status marea_take_number (marea_cursor *c, size_t n, uint64_t *number); /* of n bytes, at most 8 */

/* ---- view.c ---- */

typedef struct marea_stored { /* n elements, whose bytes are all there */
  const char *label, *name;
  marea_code code;
  const uint8_t *bytes;
  int64_t n;
} marea_stored;
typedef struct marea_view {
  int64_t offset, shape[MAREA_MAX_RANK], stride[MAREA_MAX_RANK];
  int rank;
} marea_view;
/* What tensors of a file of n bytes may take together, and what is left of it after some of `bytes`. */
size_t marea_view_room (size_t n);
marea_status marea_view_take_room (marea_context *ctx, const char *label, size_t bytes, size_t *left);
marea_status marea_view_read (marea_context *ctx, const marea_stored *s, const marea_view *v, size_t *left,
                              marea_tensor **out);

#endif
