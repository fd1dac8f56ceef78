/* SPDX-License-Identifier: MIT
** tape.c: automatic differentiation. Every recorded call leaves a node in a list in creation order, which is a
** topological order: the reverse pass is one walk backwards over it, and nothing here recurses.
**
** A node keeps only what its vjp reads: the tensors listed in saves_in and saves_out, and of the others dtype and
** shape, from which a metadata-only handle is made for the vjp. A handle of one of its outputs and each later node that
** reads one own a reference to it. During a pass a node that has received a gradient has one more reference; when
** its vjp has run it drops what it saved, so activations go back to the pool as the pass proceeds.
**
** The pass collects gradients of leaves in `incoming` and adds them to `grad` only when it has succeeded as a whole: a
** pass that fails (out of memory, interrupt) leaves every gradient as it was.
*/
#include <string.h>

#include "tape.h"

#define FEW 8 /* so many inputs and outputs of a vjp fit in an array on the stack */

#define NODE_BYTES 192 /* with two operands */

/* ---- nodes ---- */

static size_t node_bytes (const marea_call *c, size_t n_attr) {
  size_t n_in = (size_t)c->n_in, n_out = (size_t)c->n_out, sizes = 0;
  for (int i = 0; i < c->n_in; i++) sizes += c->in[i] ? (size_t)c->in[i]->rank : 0;
  for (int k = 0; k < c->n_out; k++) sizes += (size_t)c->out[k]->rank;
  return sizeof(marea_node) + (n_in + n_out) * sizeof(marea_operand) + n_attr * sizeof(marea_attr) +
         n_out * sizeof(marea_tensor *) + sizes * sizeof(int64_t);
}

static marea_node *new_node (marea_call *c) {
  int n_attr = marea_op_attrs(c->op, NULL);
  marea_node *node = marea_alloc(c->ctx, node_bytes(c, (size_t)n_attr));
  if (!node) return NULL;
  *node = (marea_node){.op = c->op,
                       .layer = c->ctx->layer,
                       .place = c->ctx->place,
                       .planned = c->ctx->plan != NULL,
                       .counter = c->counter,
                       .n_in = c->n_in,
                       .n_out = (int8_t)c->n_out,
                       .n_attr = (int8_t)n_attr};
  memset(node->io, 0, sizeof *node->io * (size_t)(c->n_in + c->n_out));
  memcpy(marea_node_attrs(node), c->attr, sizeof *c->attr * (size_t)n_attr);
  for (int k = 0; k < c->n_out; k++) marea_node_grads(node)[k] = NULL;
  return node;
}

static void append (marea_context *ctx, marea_node *node) {
  node->prev = ctx->tape_last;
  if (node->prev) node->prev->next = node;
  else ctx->tape_first = node;
  ctx->tape_last = node;
  ctx->tape_length++;
}

static void unlink_node (marea_context *ctx, marea_node *node) {
  if (node->prev) node->prev->next = node->next;
  else ctx->tape_first = node->next;
  if (node->next) node->next->prev = node->prev;
  else ctx->tape_last = node->prev;
  ctx->tape_length--;
}

/* Releases what the node saved for its vjp. */
static void empty_node (marea_context *ctx, marea_node *node) {
  for (int i = 0; i < node->n_in + node->n_out; i++) {
    marea_operand *o = &node->io[i];
    marea_tensor *t = o->t;
    marea_node *before = o->node;
    o->t = NULL;
    o->node = NULL;
    marea_release(t);
    if (before) marea_node_release(ctx, before);
  }
}

void marea_node_bury (marea_context *ctx) {
  marea_node *node = ctx->dead_nodes;
  ctx->dead_nodes = node->next;
  empty_node(ctx, node);
  marea_free(ctx, node);
}

void marea_node_release (marea_context *ctx, marea_node *node) {
  if (--node->refs > 0) return;
  unlink_node(ctx, node);
  node->next = ctx->dead_nodes;
  ctx->dead_nodes = node;
  marea_bury(ctx);
}

/* ---- recording ---- */

static bool bit (unsigned set, int i) { return i < 32 && (set >> i & 1); }

bool marea_wants_record (const marea_call *c) {
  if (!c->ctx->recording || c->op->flags & (MAREA_NO_GRAD | MAREA_MUTATES)) return false;
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i] && c->in[i]->requires_grad) return true;
  return false;
}

/* Fills an operand from t, and copies t's shape to *shapes, which then points behind it. */
static void note (marea_operand *o, const marea_tensor *t, int64_t **shapes) {
  o->version = t->storage->version;
  o->dtype = t->dtype;
  o->rank = t->rank;
  o->slot = t->slot;
  o->requires_grad = t->requires_grad;
  for (int d = 0; d < t->rank; d++) *(*shapes)++ = t->shape[d];
}

static marea_status save (marea_node *node, marea_call *c) {
  int64_t *shapes = marea_node_shapes(node);
  for (int i = 0; i < c->n_in; i++) {
    marea_tensor *t = c->in[i];
    marea_operand *o = &node->io[i];
    o->rank = -1;
    if (!t) continue;
    note(o, t, &shapes);
    bool leaf = t->requires_grad && !t->node;
    if (leaf || bit(c->op->saves_in, i)) o->t = marea_retain(t);
    else if (t->rank == 0 && !t->node) o->version = marea_number_bits(t);
    if ((o->node = t->node)) o->node->refs++;
  }
  for (int k = 0; k < c->n_out;
       k++) { /* saved before out[k] gets its node, so that no cycle of references arises */
    marea_operand *o = &node->io[c->n_in + k];
    note(o, c->out[k], &shapes);
    if (bit(c->op->saves_out, k)) MAREA_TRY(marea_alias(c->out[k], &o->t));
  }
  return MAREA_OK;
}

/* t becomes output k of the node. */
static void give_history (marea_tensor *t, marea_node *node, int k) {
  t->node = node;
  t->slot = (int8_t)k;
  t->requires_grad = marea_is_float(t->dtype);
  node->refs++;
}

marea_status marea_record (marea_call *c) {
  if (!marea_wants_record(c)) return MAREA_OK;
  marea_node *node = new_node(c);
  if (!node) return marea_out_of_memory(c->ctx, c->op->name, sizeof *node, "the tape");
  marea_status status = save(node, c);
  if (status != MAREA_OK) {
    empty_node(c->ctx, node);
    marea_free(c->ctx, node);
    return status;
  }
  append(c->ctx, node);
  for (int k = 0; k < c->n_out; k++) give_history(c->out[k], node, k);
  return MAREA_OK;
}

bool marea_set_recording (marea_context *ctx, bool on) {
  if (!ctx) return false;
  bool before = ctx->recording;
  ctx->recording = on;
  return before;
}

bool marea_recording (const marea_context *ctx) { return ctx && ctx->recording; }

uint64_t marea_tape_length (const marea_context *ctx) { return ctx ? ctx->tape_length : 0; }

marea_status marea_require_grad (marea_tensor *t, bool on) {
  MAREA_ENTER;
  MAREA_TRY(marea_want_tensor(t ? t->ctx : NULL, "requires_grad_", "t", t));
  if (t->node)
    return marea_fail(t->ctx, MAREA_ESTATE,
                      "requires_grad_: this tensor is the result of %s; only a leaf can be "
                      "switched (see detach)",
                      t->node->op->name);
  if (on && !marea_is_float(t->dtype))
    return marea_fail(t->ctx, MAREA_EARG, "requires_grad_: expected an %s tensor, got %s",
                      marea_dtypes_text(MAREA_FLOATS).s, marea_tensor_text(t).s);
  t->requires_grad = on;
  return MAREA_OK;
}

bool marea_requires_grad (const marea_tensor *t) { return t && t->requires_grad; }

bool marea_is_leaf (const marea_tensor *t) { return t && !t->node; }

marea_tensor *marea_grad_of (const marea_tensor *t) { return t ? t->grad : NULL; }

void marea_clear_grad (marea_tensor *t) {
  MAREA_ENTER;
  marea_tensor *grad = t ? t->grad : NULL;
  if (!grad || (t->ctx->plan && marea_plan_note(t) != MAREA_OK)) return;
  t->grad = NULL;
  marea_release(grad);
}

/* ---- the reverse pass ---- */

typedef struct pass {
  marea_context *ctx;
  int flags;
  int n; /* of marea_grad: number of xs; -1: marea_backward, which adds gradients to leaves */
  marea_tensor *const *xs;
  marea_tensor **caught; /* [n] */
  marea_tensor *leaves;  /* those with an `incoming` gradient, linked through `link` */
  int64_t waiting;       /* nodes that have received a gradient and have not been visited */
} pass;

/* Is t row-major, and its storage used by no other handle? */
static bool is_own (const marea_tensor *t) {
  return t->refs == 1 && t->storage->refs == 1 && !t->storage->release && marea_tensor_contiguous(t);
}

/* May *sum be overwritten? */
static bool exclusive (const pass *p, const marea_tensor *sum, const marea_tensor *t) {
  return !(p->flags & MAREA_CREATE_GRAPH) && is_own(sum) && sum->dtype == t->dtype && !sum->requires_grad;
}

/* *sum += t, where *sum may be NULL; takes over the reference to t. */
static marea_status accumulate (const pass *p, marea_tensor **sum, marea_tensor *t) {
  if (!*sum) {
    *sum = t;
    return MAREA_OK;
  }
  marea_tensor *const pair[] = {*sum, t};
  marea_tensor *total = NULL;
  marea_status status;
  if (exclusive(p, *sum, t)) status = marea_invoke_(p->ctx, &marea_op_add, 2, pair, NULL);
  else status = marea_run(p->ctx, &marea_op_add, &total, 2, pair[0], pair[1]);
  marea_release(t);
  if (total) {
    marea_release(*sum);
    *sum = total;
  }
  return status;
}

/* Gives a gradient memory of its own, so that changing it in place (clipping) reaches neither another one nor the
   seed. NULL stays NULL. */
static marea_status make_own (const pass *p, marea_tensor **gradient) {
  marea_tensor *own, *t = *gradient;
  if (!t || is_own(t)) return MAREA_OK;
  MAREA_TRY(marea_run(p->ctx, &marea_op_clone, &own, 1, t));
  *gradient = own;
  marea_release(t);
  return MAREA_OK;
}

static void wait_at (pass *p, marea_node *node) {
  if (node->waiting) return;
  node->waiting = true;
  node->refs++;
  p->waiting++;
}

/* Releases the gradients that the node received, and the pass's reference to the node. */
static void leave (pass *p, marea_node *node) {
  for (int k = 0; k < node->n_out; k++) {
    marea_tensor *t = marea_node_grads(node)[k];
    marea_node_grads(node)[k] = NULL;
    marea_release(t);
  }
  node->waiting = false;
  p->waiting--;
  marea_node_release(p->ctx, node);
}

/* Where the sum of what arrives at a leaf is kept; NULL: it is not wanted. */
static marea_tensor **sum_of_leaf (const pass *p, marea_tensor *leaf) {
  if (p->n < 0) return &leaf->incoming;
  return leaf->capture ? &p->caught[leaf->capture - 1] : NULL;
}

static marea_status arrive_at_leaf (pass *p, marea_tensor *leaf, marea_tensor *dx) {
  marea_tensor **sum = sum_of_leaf(p, leaf);
  if (!sum) {
    marea_release(dx);
    return MAREA_OK;
  }
  if (p->n < 0 && !leaf->incoming) {
    leaf->link = p->leaves;
    p->leaves = marea_retain(leaf);
  }
  return accumulate(p, sum, dx);
}

static marea_status arrive_at_node (pass *p, marea_node *node, int slot, marea_tensor *dx) {
  wait_at(p, node);
  return accumulate(p, &marea_node_grads(node)[slot], dx);
}

/* Adds gradient dx, whose reference it takes over, to what the input's node or leaf has received. */
static marea_status arrive (pass *p, const marea_operand *o, marea_tensor *dx) {
  return o->node ? arrive_at_node(p, o->node, o->slot, dx) : arrive_at_leaf(p, o->t, dx);
}

/* The sum so far at an input; NULL: nothing has arrived yet. */
static marea_tensor **sum_so_far (const pass *p, const marea_operand *o) {
  marea_tensor **sum = o->node ? &marea_node_grads(o->node)[o->slot] : sum_of_leaf(p, o->t);
  return sum && *sum ? sum : NULL;
}

/* The result is a part of in[0], so its gradient is added to that part of in[0]'s: a loop over x[t] costs what it touches,
   while a tensor of x's size for each t would cost T times as much. */
static marea_status add_to_part (pass *p, marea_node *node, marea_tensor **sum) {
  marea_tensor *part, *dy = marea_node_grads(node)[0];
  MAREA_TRY(make_own(p, sum));
  MAREA_TRY(marea_run_with(p->ctx, node->op, marea_node_attrs(node), &part, 1, *sum));
  marea_tensor *const pair[] = {part, dy};
  const marea_status status = marea_invoke_(p->ctx, &marea_op_add, 2, pair, NULL);
  marea_release(part);
  return status;
}

static marea_status check_versions (const pass *p, const marea_node *node) {
  for (int i = 0; i < node->n_in; i++) {
    const marea_operand *o = &node->io[i];
    if (o->t && bit(node->op->saves_in, i) && o->t->storage->version != o->version)
      return marea_fail(
          p->ctx, MAREA_ESTATE,
          "backward: argument '%s' of %s, %s, was changed in place after %s had saved it for its gradient",
          marea_input_name(node->op, i), node->op->name, marea_tensor_text(o->t).s, node->op->name);
  }
  for (int k = 0; k < node->n_out; k++) {
    const marea_operand *o = &node->io[node->n_in + k];
    if (o->t && o->t->storage->version != o->version)
      return marea_fail(
          p->ctx, MAREA_ESTATE,
          "backward: the result of %s, %s, was changed in place, but its gradient needs the old value",
          node->op->name, marea_tensor_text(o->t).s);
  }
  return MAREA_OK;
}

/* Is a gradient of this input wanted? */
static bool is_needed (const pass *p, const marea_operand *o) {
  if (!(o->t ? o->t->requires_grad : o->requires_grad)) return false;
  return p->n < 0 || (o->t && o->t->capture) || (o->node && o->node->wanted);
}

/* The arrays for one call of a vjp. */
typedef struct visit {
  marea_tensor **in, **out, **din; /* [n_in], [n_out], [n_in] */
  marea_tensor *metadata;          /* [n_in + n_out]: metadata-only handles of what was not saved */
  bool *need;                      /* [n_in] */
} visit;

static marea_tensor *make_metadata_handle (pass *p, marea_tensor *t, const marea_operand *o,
                                           const int64_t *shape) {
  memset(t, 0, offsetof(marea_tensor, shape));
  t->ctx = p->ctx;
  t->refs = 1;
  t->dtype = o->dtype;
  t->rank = o->rank;
  for (int d = 0; d < o->rank; d++) t->shape[d] = shape[d];
  marea_row_major(o->rank, shape, t->stride);
  return t;
}

static void show_operands (pass *p, marea_node *node, visit *v) {
  const int64_t *shape = marea_node_shapes(node);
  for (int i = 0; i < node->n_in + node->n_out; i++) {
    const marea_operand *o = &node->io[i];
    marea_tensor **shown = i < node->n_in ? &v->in[i] : &v->out[i - node->n_in];
    if (o->t) *shown = o->t;
    else *shown = o->rank < 0 ? NULL : make_metadata_handle(p, &v->metadata[i], o, shape);
    if (o->rank > 0) shape += o->rank;
  }
}

/* Is what the node saved dropped when its vjp has run? */
static bool is_last (const pass *p, const marea_node *node) {
  if (p->flags & (MAREA_RETAIN_GRAPH | MAREA_CREATE_GRAPH)) return false;
  return node->planned || !p->ctx->plan;
}

static marea_status call_vjp_as_is (pass *p, marea_node *node, const visit *v, marea_tensor *const *dout) {
  return node->op->vjp(&(marea_vjp){.ctx = p->ctx,
                                    .op = node->op,
                                    .n_in = node->n_in,
                                    .n_out = node->n_out,
                                    .in = v->in,
                                    .out = v->out,
                                    .dout = dout,
                                    .attr = marea_node_attrs(node),
                                    .counter = node->counter,
                                    .need = v->need,
                                    .last = is_last(p, node),
                                    .din = v->din});
}

/* ---- vjps of operators with MAREA_MIXES ---- */

static bool has_shape_of (const marea_tensor *a, const marea_tensor *b) {
  return marea_has_shape(a, b->rank, b->shape);
}

/* Is the vjp to be given what is only stored in the dtype that it is computed in? As it rounds each gradient once, at
   its end, one that is a single operator does the same by itself, if all dtypes are one and no gradient is summed. */
static bool widens (const marea_node *node, const visit *v) {
  bool any = false, same = true;
  if (!(node->op->flags & MAREA_MIXES)) return false;
  for (int i = 0; i < node->n_in; i++) {
    const marea_tensor *t = v->in[i];
    if (!t) continue;
    any |= marea_is_in(MAREA_STORED, t->dtype);
    same &= t->dtype == v->out[0]->dtype && has_shape_of(t, v->out[0]);
  }
  return any && !(same && node->op->flags & MAREA_SINGLE);
}

static marea_status cast_to (pass *p, marea_tensor *t, int dtype, marea_tensor **out) {
  const marea_attr attr = {.n = 1, .i = dtype};
  return marea_run_with(p->ctx, &marea_op_cast, &attr, out, 1, t);
}

/* shown[i] := what the vjp is to see in its place: a cast, which is released later, or a metadata-only handle. */
static marea_status show_wide (pass *p, marea_tensor **shown, marea_tensor *metadata, bool is_saved) {
  marea_tensor *t = *shown;
  if (!t || !marea_is_in(MAREA_STORED, t->dtype)) return MAREA_OK;
  const int dtype = marea_computed_in(t->dtype);
  if (t->storage && is_saved) return cast_to(p, t, dtype, shown);
  if (t->storage) {
    memset(metadata, 0, sizeof *metadata);
    metadata->ctx = p->ctx;
    metadata->refs = 1;
    metadata->rank = t->rank;
    memcpy(metadata->shape, t->shape, sizeof t->shape[0] * (size_t)t->rank);
    marea_row_major(t->rank, t->shape, metadata->stride);
    *shown = metadata;
  }
  (*shown)->dtype = (int8_t)dtype;
  return MAREA_OK;
}

/* din[i], in the dtype that is computed in, becomes a gradient of the input's dtype. */
static marea_status narrow_gradients (pass *p, marea_node *node, const visit *v) {
  for (int i = 0; i < node->n_in; i++) {
    marea_tensor *narrow, *dx = v->din[i];
    if (!dx || dx->dtype == node->io[i].dtype) continue;
    MAREA_TRY(cast_to(p, dx, node->io[i].dtype, &narrow));
    marea_release(dx);
    v->din[i] = narrow;
  }
  return MAREA_OK;
}

#define MIXED 4 /* operands of an operator with MAREA_MIXES, at most */

static marea_status call_vjp_widened (pass *p, marea_node *node, const visit *v) {
  marea_tensor *in[MIXED], *out[1] = {v->out[0]}, *dout[1] = {marea_node_grads(node)[0]}, metadata[MIXED + 1];
  const int n = node->n_in;
  memcpy(in, v->in, sizeof in[0] * (size_t)n);
  const visit wide = {in, out, v->din, metadata, v->need};
  marea_status status = MAREA_OK;
  for (int i = 0; i < n && status == MAREA_OK; i++)
    status = show_wide(p, &in[i], &metadata[i], bit(node->op->saves_in, i));
  if (status == MAREA_OK) status = show_wide(p, &out[0], &metadata[n], bit(node->op->saves_out, 0));
  if (status == MAREA_OK) status = show_wide(p, &dout[0], &metadata[n], true);
  if (status == MAREA_OK) status = call_vjp_as_is(p, node, &wide, dout);
  if (status == MAREA_OK) status = narrow_gradients(p, node, v);
  for (int i = 0; i < n; i++)
    if (in[i] && in[i] != v->in[i] && in[i]->storage) marea_release(in[i]);
  if (out[0] != v->out[0] && out[0]->storage) marea_release(out[0]);
  if (dout[0] != marea_node_grads(node)[0]) marea_release(dout[0]);
  return status;
}

static marea_status call_vjp (pass *p, marea_node *node, const visit *v) {
  if (widens(node, v)) return call_vjp_widened(p, node, v);
  return call_vjp_as_is(p, node, v, marea_node_grads(node));
}

/* With create_graph the new nodes may keep an output of this one: they get handles of their own, with history. */
static marea_status call_vjp_recorded (pass *p, marea_node *node, const visit *v) {
  marea_tensor *fresh[MAREA_MAX_OUT] = {NULL};
  marea_status status = MAREA_OK;
  for (int k = 0; k < node->n_out && status == MAREA_OK; k++) {
    const marea_tensor *saved = node->io[node->n_in + k].t;
    if (!saved) continue;
    status = marea_alias(saved, &fresh[k]);
    if (status != MAREA_OK) continue;
    give_history(fresh[k], node, k);
    v->out[k] = fresh[k];
  }
  if (status == MAREA_OK) status = call_vjp(p, node, v);
  for (int k = 0; k < node->n_out; k++) marea_release(fresh[k]);
  return status;
}

/* Calls the node's vjp with the gradients that it received, and hands the results to its inputs. */
static marea_status propagate (pass *p, marea_node *node, visit *v) {
  bool any = false;
  for (int i = 0; i < node->n_in; i++) {
    v->din[i] = NULL;
    v->need[i] = is_needed(p, &node->io[i]);
    any |= v->need[i];
  }
  if (!any) return MAREA_OK;
  if (node->op->flags & MAREA_PART && !(p->flags & MAREA_CREATE_GRAPH)) {
    marea_tensor **sum = sum_so_far(p, &node->io[0]);
    if (sum) return add_to_part(p, node, sum);
  }
  if (node->op->once && p->flags & MAREA_CREATE_GRAPH)
    return marea_fail(p->ctx, MAREA_ESTATE,
                      "%s: its gradient has no gradient, so there is none with create_graph; %s, has",
                      node->op->name, node->op->once);
  MAREA_TRY(check_versions(p, node));
  show_operands(p, node, v);
  marea_status status = p->flags & MAREA_CREATE_GRAPH ? call_vjp_recorded(p, node, v) : call_vjp(p, node, v);
  for (int i = 0; i < node->n_in; i++) {
    if (!v->din[i]) continue;
    if (status == MAREA_OK && v->need[i]) status = arrive(p, &node->io[i], v->din[i]);
    else marea_release(v->din[i]);
  }
  return status;
}

static marea_status propagate_many (pass *p, marea_node *node) {
  size_t n_in = (size_t)node->n_in, n = n_in + (size_t)node->n_out;
  visit v;
  v.metadata = marea_alloc(p->ctx,
                           n * sizeof *v.metadata + (n + n_in) * sizeof *v.in + n_in * sizeof *v.need);
  if (!v.metadata) return marea_fail(p->ctx, MAREA_ENOMEM, "backward: out of memory");
  v.in = (marea_tensor **)(v.metadata + n);
  v.out = v.in + n_in;
  v.din = v.in + n;
  v.need = (bool *)(v.din + n_in);
  marea_status status = propagate(p, node, &v);
  marea_free(p->ctx, v.metadata);
  return status;
}

static marea_status visit_node (pass *p, marea_node *node) {
  if (node->consumed)
    return marea_fail(p->ctx, MAREA_ESTATE,
                      "backward: the graph behind this %s was consumed by an earlier backward; give that one "
                      "retain_graph = true to use it twice",
                      node->op->name);
  if (node->n_in + node->n_out > FEW) return propagate_many(p, node);
  marea_tensor *in[FEW], *out[FEW], *din[FEW], metadata[FEW];
  bool need[FEW];
  return propagate(p, node, &(visit){in, out, din, metadata, need});
}

/* xs that are results of operators: their gradient is what their node has received when it is visited. */
static void catch_results (pass *p, marea_node *node) {
  for (int i = 0; node->listed && i < p->n; i++) {
    marea_tensor *x = p->xs[i];
    if (x->node == node && marea_node_grads(node)[x->slot] && !p->caught[i])
      p->caught[i] = marea_retain(marea_node_grads(node)[x->slot]);
  }
}

/* Prefetches the next node to visit, while the vjp of this one runs: a large graph is in no cache. */
static void fetch_node (const marea_node *node) {
  for (size_t at = 0; node && at < NODE_BYTES; at += MAREA_ALIGN)
    __builtin_prefetch((const char *)node + at, 1);
}

static marea_status walk (pass *p, marea_node *node) {
  marea_status status = MAREA_OK;
  while (node && p->waiting > 0) {
    if (!node->waiting) {
      node = node->prev;
      continue;
    }
    fetch_node(node->prev);
    if (status == MAREA_OK) {
      p->ctx->layer = node->layer;
      catch_results(p, node);
      status = marea_poll(p->ctx);
      if (status == MAREA_OK) status = visit_node(p, node);
      if (is_last(p, node)) {
        node->consumed = true;
        empty_node(p->ctx, node);
      }
    }
    if (node->refs == 1)
      empty_node(p->ctx, node); /* it goes with `leave`; what it frees must not be `prev` */
    marea_node *prev = node->prev;
    leave(p, node);
    node = prev;
  }
  return status;
}

/* Adds up what may fail before anything changes: for each leaf, incoming := grad + incoming. */
static marea_status prepare_leaves (pass *p) {
  for (marea_tensor *leaf = p->leaves; leaf; leaf = leaf->link) {
    if (p->ctx->plan) MAREA_TRY(marea_plan_note(leaf));
    if (leaf->grad) MAREA_TRY(accumulate(p, &leaf->incoming, marea_retain(leaf->grad)));
    MAREA_TRY(make_own(p, &leaf->incoming));
  }
  return MAREA_OK;
}

static void settle_leaves (pass *p, bool commit) {
  while (p->leaves) {
    marea_tensor *leaf = p->leaves, *incoming = leaf->incoming;
    p->leaves = leaf->link;
    leaf->link = leaf->incoming = NULL;
    if (commit) {
      marea_tensor *old = leaf->grad;
      leaf->grad = incoming;
      incoming = old;
    }
    marea_release(incoming);
    marea_release(leaf);
  }
}

static marea_status make_seed (marea_tensor *y, marea_tensor *seed, marea_tensor **out) {
  marea_context *ctx = y->ctx;
  if (!y->requires_grad)
    return marea_fail(
        ctx, MAREA_ESTATE,
        "backward: %s does not depend on a tensor that requires a gradient (or was made in no_grad)",
        marea_tensor_text(y).s);
  if (!seed) {
    if (marea_tensor_size(y) != 1)
      return marea_fail(ctx, MAREA_ESHAPE,
                        "backward: expected a tensor of one element or a seed of its shape, got %s",
                        marea_tensor_text(y).s);
    marea_attr attr[3];
    marea_attrs_init(&marea_op_full, attr);
    attr[0].n = y->rank;
    memcpy(attr[0].v, y->shape, sizeof y->shape[0] * (size_t)y->rank);
    attr[1].f = 1;
    attr[2].i = y->dtype;
    return marea_run_with(ctx, &marea_op_full, attr, out, 0);
  }
  MAREA_TRY(marea_want_tensor(ctx, "backward", "seed", seed));
  if (seed->dtype != y->dtype || !marea_has_shape(seed, y->rank, y->shape))
    return marea_fail(ctx, MAREA_ESHAPE, "backward: argument 'seed': expected %s, got %s",
                      marea_tensor_text(y).s, marea_tensor_text(seed).s);
  *out = marea_retain(seed);
  return MAREA_OK;
}

static marea_status sweep (pass *p, marea_tensor *y, marea_tensor *seed) {
  marea_tensor *dy;
  int layer = p->ctx->layer;
  bool before = marea_set_recording(p->ctx, (p->flags & MAREA_CREATE_GRAPH) != 0);
  const int autocast = p->ctx->autocast;
  p->ctx->autocast = -1; /* the pass computes in the dtypes in which the calls were recorded */
  marea_status status = make_seed(y, seed, &dy);
  if (status == MAREA_OK)
    status = y->node ? arrive_at_node(p, y->node, y->slot, dy) : arrive_at_leaf(p, y, dy);
  if (y->node) {
    marea_status walked = walk(p, y->node);
    if (status == MAREA_OK) status = walked;
  }
  p->ctx->layer = layer;
  for (int i = 0; i < p->n && status == MAREA_OK; i++) status = make_own(p, &p->caught[i]);
  if (status == MAREA_OK) status = prepare_leaves(p);
  settle_leaves(p, status == MAREA_OK);
  marea_set_recording(p->ctx, before);
  p->ctx->autocast = autocast;
  return status;
}

static marea_status run_pass (pass *p, marea_tensor *y, marea_tensor *seed) {
  marea_profile *profile = p->ctx->profile;
  marea_frame frame;
  if (!profile) return sweep(p, y, seed);
  marea_frame_open_pass(profile, &frame);
  marea_status status = sweep(p, y, seed);
  marea_frame_close_pass(profile, &frame);
  return status;
}

static marea_status check_pass (const char *who, const marea_tensor *y, int flags) {
  marea_context *ctx = y ? y->ctx : NULL;
  MAREA_TRY(marea_want_tensor(ctx, who, "y", y));
  if (flags & ~(MAREA_RETAIN_GRAPH | MAREA_CREATE_GRAPH))
    return marea_fail(ctx, MAREA_EARG, "%s: argument 'flags': unknown bits in %#x", who, (unsigned)flags);
  return MAREA_OK;
}

marea_status marea_backward (marea_tensor *y, marea_tensor *seed, int flags) {
  MAREA_ENTER;
  MAREA_TRY(check_pass("backward", y, flags));
  pass p = {.ctx = y->ctx, .flags = flags, .n = -1};
  return run_pass(&p, y, seed);
}

/* Marks the nodes that lead from xs to y; the tape is in creation order, so one walk forward does it. */
static void mark_wanted (const pass *p, const marea_node *last) {
  marea_node *end = last ? last->next : NULL;
  for (marea_node *node = p->ctx->tape_first; node != end; node = node->next) node->listed = false;
  for (int i = 0; i < p->n; i++)
    if (p->xs[i]->node) p->xs[i]->node->listed = true;
  for (marea_node *node = p->ctx->tape_first; node != end; node = node->next) {
    node->wanted = node->listed;
    for (int i = 0; i < node->n_in && !node->wanted; i++) {
      const marea_operand *o = &node->io[i];
      node->wanted = (o->t && o->t->capture) || (o->node && o->node->wanted);
    }
  }
}

marea_status marea_grad (marea_tensor *y, marea_tensor *seed, int n, marea_tensor *const *xs, int flags,
                         marea_tensor **grads) {
  MAREA_ENTER;
  for (int i = 0; grads && i < n; i++) grads[i] = NULL;
  MAREA_TRY(check_pass("grad", y, flags));
  MAREA_TRY(marea_want_list(y->ctx, "grad", "xs", n, xs));
  MAREA_TRY(marea_want_list(y->ctx, "grad", "grads", n, grads));
  pass p = {.ctx = y->ctx, .flags = flags, .n = n, .xs = xs, .caught = grads};
  for (int i = 0; i < n; i++) {
    MAREA_TRY(marea_want_tensor(y->ctx, "grad", "xs", xs[i]));
    if (!xs[i]->requires_grad)
      return marea_fail(y->ctx, MAREA_ESTATE, "grad: argument 'xs': %s does not require a gradient",
                        marea_tensor_text(xs[i]).s);
  }
  for (int i = 0; i < n; i++) xs[i]->capture = xs[i]->node ? 0 : i + 1;
  mark_wanted(&p, y->node);
  marea_status status = run_pass(&p, y, seed);
  for (int i = 0; status == MAREA_OK && i < n;
       i++) { /* a leaf that xs lists twice: its gradient is at the last position */
    const int at = xs[i]->capture - 1;
    if (at > i && grads[at]) grads[i] = marea_retain(grads[at]);
  }
  for (int i = 0; i < n; i++) xs[i]->capture = 0;
  for (int i = 0; status != MAREA_OK && i < n; i++) {
    marea_release(grads[i]);
    grads[i] = NULL;
  }
  return status;
}
