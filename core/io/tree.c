/* SPDX-License-Identifier: MIT
** tree.c: marea_tree. Values are nodes and lie in one array, so that one which occurs twice is one node, and a list may be
** its own element. What is nested deeper than MAREA_MAX_DEPTH is refused.
*/
#include <string.h>

#include "tree.h"

marea_status marea_tree_new (marea_context *ctx, const char *label, marea_tree **out) {
  int none;
  marea_tree *t = *out = marea_alloc(ctx, sizeof *t);
  if (!t) return marea_no_names(ctx, label);
  *t = (marea_tree){.ctx = ctx};
  void *cells = NULL;
  marea_status status = marea_tree_make(t, label, (marea_node){.kind = MAREA_TREE_NONE}, &none);
  if (status == MAREA_OK) status = marea_tree_grow(ctx, label, &cells, 0, &t->cell_room, sizeof *t->cells);
  t->cells = cells;
  t->n_cells = 1;
  if (status == MAREA_OK) return MAREA_OK;
  marea_tree_free(t);
  *out = NULL;
  return status;
}

marea_status marea_tree_grow (marea_context *ctx, const char *label, void **p, int n, int *room,
                              size_t size) {
  if (n < *room) return MAREA_OK;
  if (n >= MAREA_MAX_NODES)
    return marea_fail(ctx, MAREA_EFORMAT, "%s: more than %d values", label, MAREA_MAX_NODES);
  const int more = 2 * *room + 64;
  void *new = marea_alloc(ctx, size * (size_t)more);
  if (!new) return marea_no_names(ctx, label);
  if (n) memcpy(new, *p, size * (size_t)n);
  marea_free(ctx, *p);
  *p = new;
  *room = more;
  return MAREA_OK;
}

marea_status marea_tree_make (marea_tree *t, const char *label, marea_node node, int *made) {
  void *p = t->nodes;
  MAREA_TRY(marea_tree_grow(t->ctx, label, &p, t->n_nodes, &t->node_room, sizeof node));
  t->nodes = p;
  t->nodes[t->n_nodes] = node;
  *made = t->n_nodes++;
  return MAREA_OK;
}

marea_status marea_tree_add (marea_tree *t, const char *label, int to, int key, int value) {
  void *p = t->cells;
  MAREA_TRY(marea_tree_grow(t->ctx, label, &p, t->n_cells, &t->cell_room, sizeof *t->cells));
  t->cells = p;
  marea_node *n = &t->nodes[to];
  const int depth = t->nodes[value].depth + 1;
  if (depth > MAREA_MAX_DEPTH)
    return marea_fail(t->ctx, MAREA_EFORMAT, "%s: nested deeper than %d", label, MAREA_MAX_DEPTH);
  if (value != to) n->depth = (int16_t)MAREA_MAX(n->depth, depth);
  const int cell = t->n_cells++;
  t->cells[cell] = (marea_cell){.key = key, .value = value};
  if (n->first) t->cells[n->last].next = cell;
  else n->first = cell;
  n->last = cell;
  n->count++;
  return MAREA_OK;
}

marea_status marea_tree_keep_texts (marea_tree *t, const char *label) {
  size_t n = 0;
  for (int i = 0; i < t->n_nodes; i++)
    if (t->nodes[i].kind == MAREA_TREE_TEXT) n += t->nodes[i].count;
  t->bytes = marea_alloc(t->ctx, n);
  if (!t->bytes) return marea_out_of_memory(t->ctx, label, n, "its texts");
  t->n = n;
  for (int i = n = 0; i < t->n_nodes; i++) {
    marea_node *node = &t->nodes[i];
    if (i % 1024 == 0) MAREA_TRY(marea_poll(t->ctx));
    if (node->kind != MAREA_TREE_TEXT) continue;
    if (node->count) memcpy(t->bytes + n, node->text, node->count);
    node->text = (const char *)t->bytes + n;
    n += node->count;
  }
  return MAREA_OK;
}

MAREA_LOADER(marea_load_tree, marea_tree_parser, marea_tree)

marea_status marea_take (marea_cursor *c, size_t n, const uint8_t **p) {
  if ((size_t)(c->end - c->at) < n)
    return marea_fail(c->ctx, MAREA_EFORMAT, "%s: truncated: it ends too early", c->label);
  *p = c->at;
  c->at += n;
  return MAREA_OK;
}

marea_status marea_take_number (marea_cursor *c, size_t n, uint64_t *number) {
  const uint8_t *p = NULL;
  MAREA_TRY(marea_take(c, n, &p));
  for (*number = 0; n > 0; n--) *number = *number << 8 | p[n - 1];
  return MAREA_OK;
}

void marea_tree_free (marea_tree *t) {
  if (!t) return;
  marea_context *ctx = t->ctx;
  for (int i = 0; i < t->n_nodes; i++)
    if (t->nodes[i].kind == MAREA_TREE_TENSOR) marea_release(t->nodes[i].tensor);
  marea_free(ctx, t->nodes);
  marea_free(ctx, t->cells);
  marea_free(ctx, t->bytes);
  marea_free(ctx, t);
  marea_context_settle(ctx);
}

int marea_tree_root (const marea_tree *t) { return t ? t->root : 0; }

int marea_tree_count (const marea_tree *t) { return t ? t->n_nodes : 0; }

void marea_tree_value_at (const marea_tree *t, int node, marea_tree_value *value) {
  if (!value) return;
  *value = (marea_tree_value){.kind = MAREA_TREE_NONE};
  if (!t || node < 0 || node >= t->n_nodes) return;
  const marea_node *n = &t->nodes[node];
  value->kind = (marea_tree_kind)n->kind;
  value->count = n->count;
  if (n->kind == MAREA_TREE_TEXT) value->text = n->text;
  if (n->kind == MAREA_TREE_INTEGER) value->integer = n->integer;
  if (n->kind == MAREA_TREE_NUMBER) value->number = n->number;
  if (n->kind == MAREA_TREE_TENSOR) value->tensor = n->tensor;
  if (n->kind == MAREA_TREE_LIST || n->kind == MAREA_TREE_DICT) value->first = n->first;
}

int marea_tree_next (const marea_tree *t, int cell, int *key, int *node) {
  const bool is_there = t && cell > 0 && cell < t->n_cells;
  if (key) *key = is_there ? t->cells[cell].key : 0;
  if (node) *node = is_there ? t->cells[cell].value : 0;
  return is_there ? t->cells[cell].next : 0;
}
