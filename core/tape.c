/* SPDX-License-Identifier: MIT
** tape.c: automatic differentiation. Every recorded call leaves a node in a list in creation order, which is a
** topological order: the reverse pass is one walk backwards over it, and nothing here recurses.
**
** A node keeps what its vjp reads and no more: values listed in saves_in and saves_out, and hollow handles
** (shape and history without storage) for the rest. It is alive while a handle of one of its outputs or a later
** node refers to it. A pass keeps a node alive while a gradient waits at it, and empties it once it is used,
** so activations go back to the pool as the walk proceeds.
**
** Gradients of leaves are gathered aside and added only when the whole pass has succeeded: a pass that fails
** (memory, interrupt) leaves every gradient as it was.
*/
#include <string.h>

#include "core.h"

#define FEW_INPUTS 8

struct marea_node {
  marea_node *prev, *next; /* neighbours on the tape */
  const marea_op *op;
  int refs, n_in, n_out;
  int layer; /* in which it was recorded */
  bool consumed;
  bool waiting; /* a gradient waits here; counts as one reference */
  bool wanted;  /* during marea_grad: leads to one of xs */
  uint64_t counter;
  marea_attr *attr; /* arrays below lie in the node's own block */
  marea_tensor **in, **out;
  marea_tensor **grad; /* [n_out] of the outputs, during a pass */
  uint32_t *version_in, *version_out;
};

/* ---- nodes ---- */

static marea_node *new_node (marea_call *c) {
  size_t n_in = (size_t)c->n_in, n_out = (size_t)c->n_out, n_attr = (size_t)marea_op_attrs(c->op, NULL);
  size_t bytes = sizeof(marea_node) + n_attr * sizeof(marea_attr) +
                 (n_in + 2 * n_out) * sizeof(marea_tensor *) + (n_in + n_out) * sizeof(uint32_t);
  marea_node *node = marea_alloc(c->ctx, bytes);
  if (!node) return NULL;
  memset(node, 0, bytes);
  node->op = c->op;
  node->n_in = c->n_in;
  node->n_out = c->n_out;
  node->layer = c->ctx->layer;
  node->counter = c->counter;
  node->attr = (marea_attr *)(node + 1);
  node->in = (marea_tensor **)(node->attr + n_attr);
  node->out = node->in + n_in;
  node->grad = node->out + n_out;
  node->version_in = (uint32_t *)(node->grad + n_out);
  node->version_out = node->version_in + n_in;
  memcpy(node->attr, c->attr, n_attr * sizeof(marea_attr));
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

/* Drops what the node keeps for its vjp. */
static void empty_node (marea_node *node) {
  for (int i = 0; i < node->n_in; i++) {
    marea_tensor *t = node->in[i];
    node->in[i] = NULL;
    marea_release(t);
  }
  for (int k = 0; k < node->n_out; k++) {
    marea_tensor *t = node->out[k];
    node->out[k] = NULL;
    marea_release(t);
  }
}

static void free_node (marea_context *ctx, marea_node *node) {
  unlink_node(ctx, node);
  empty_node(node);
  marea_free(ctx, node);
}

void marea_node_retain (marea_node *node) {
  if (node) node->refs++;
}

/* Called from the loop that frees handles (tensor.c), so that dropping a long graph does not recurse. */
void marea_node_release (marea_context *ctx, marea_node *node) {
  if (--node->refs == 0) free_node(ctx, node);
}

/* ---- recording ---- */

static bool bit (unsigned set, int i) { return i < 32 && (set >> i & 1); }

static bool wants_record (const marea_call *c) {
  if (!c->ctx->recording || c->op->flags & (MAREA_NO_GRAD | MAREA_MUTATES)) return false;
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i] && c->in[i]->requires_grad) return true;
  return false;
}

static marea_status save (marea_node *node, marea_call *c) {
  for (int i = 0; i < c->n_in; i++) {
    marea_tensor *t = c->in[i];
    if (!t) continue;
    bool leaf = t->requires_grad && !t->node;
    if (leaf || bit(c->op->saves_in, i)) node->in[i] = marea_retain(t);
    else MAREA_TRY(marea_hollow(t, &node->in[i]));
    node->version_in[i] = t->storage->version;
  }
  for (int k = 0; k < c->n_out; k++) {
    if (bit(c->op->saves_out, k)) MAREA_TRY(marea_alias(c->out[k], &node->out[k]));
    else MAREA_TRY(marea_hollow(c->out[k], &node->out[k])); /* out[k] has no node yet: no ring */
    node->version_out[k] = c->out[k]->storage->version;
  }
  return MAREA_OK;
}

marea_status marea_record (marea_call *c) {
  if (!wants_record(c)) return MAREA_OK;
  marea_node *node = new_node(c);
  if (!node) return marea_reject(c, MAREA_ENOMEM, "out of memory for the tape");
  marea_status status = save(node, c);
  if (status != MAREA_OK) {
    empty_node(node);
    marea_free(c->ctx, node);
    return status;
  }
  append(c->ctx, node);
  for (int k = 0; k < c->n_out; k++) {
    c->out[k]->node = node;
    c->out[k]->slot = (int8_t)k;
    c->out[k]->requires_grad = marea_is_float(c->out[k]->dtype);
    node->refs++;
  }
  return MAREA_OK;
}

bool marea_set_recording (marea_context *ctx, bool on) {
  bool before = ctx->recording;
  ctx->recording = on;
  return before;
}

bool marea_recording (const marea_context *ctx) { return ctx->recording; }

uint64_t marea_tape_length (const marea_context *ctx) { return ctx->tape_length; }

marea_status marea_require_grad (marea_tensor *t, bool on) {
  if (t->node)
    return marea_fail(t->ctx, MAREA_ESTATE,
                      "requires_grad_: this tensor is the result of %s; only a leaf can be "
                      "switched (see detach)",
                      t->node->op->name);
  if (on && !marea_is_float(t->dtype))
    return marea_fail(t->ctx, MAREA_EARG, "requires_grad_: expected an f32 or f64 tensor, got %s",
                      marea_tensor_text(t).s);
  t->requires_grad = on;
  return MAREA_OK;
}

bool marea_requires_grad (const marea_tensor *t) { return t->requires_grad; }

bool marea_is_leaf (const marea_tensor *t) { return !t->node; }

marea_tensor *marea_grad_of (const marea_tensor *t) { return t->grad; }

void marea_clear_grad (marea_tensor *t) {
  marea_tensor *grad = t->grad;
  t->grad = NULL;
  marea_release(grad);
}

/* ---- the reverse pass ---- */

typedef struct pass {
  marea_context *ctx;
  int flags;
  int n; /* marea_grad: gradients of so many xs are caught; -1: those of leaves are added */
  marea_tensor *const *xs;
  marea_tensor **caught; /* [n] */
  marea_tensor *leaves;  /* that something arrived at, linked through `link` */
  int64_t waiting;       /* nodes at which a gradient waits */
} pass;

/* Memory without gaps that nobody else can see? */
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
  if (exclusive(p, *sum, t)) status = marea_apply_(p->ctx, &marea_op_add, 2, pair, NULL);
  else status = marea_run(p->ctx, &marea_op_add, &total, 2, pair[0], pair[1]);
  marea_release(t);
  if (total) {
    marea_release(*sum);
    *sum = total;
  }
  return status;
}

static void wait_at (pass *p, marea_node *node) {
  if (node->waiting) return;
  node->waiting = true;
  node->refs++;
  p->waiting++;
}

/* Ends the wait: frees the pending gradients and the reference that kept the node. */
static void leave (pass *p, marea_node *node) {
  for (int k = 0; k < node->n_out; k++) {
    marea_tensor *t = node->grad[k];
    node->grad[k] = NULL;
    marea_release(t);
  }
  node->waiting = false;
  p->waiting--;
  marea_node_release(p->ctx, node);
}

static marea_status arrive_at_leaf (pass *p, marea_tensor *leaf, marea_tensor *dx) {
  if (p->n >= 0) {
    if (leaf->capture) return accumulate(p, &p->caught[leaf->capture - 1], dx);
    marea_release(dx);
    return MAREA_OK;
  }
  if (!leaf->incoming) {
    leaf->link = p->leaves;
    p->leaves = marea_retain(leaf);
  }
  return accumulate(p, &leaf->incoming, dx);
}

/* A gradient dx (its reference is taken over) arrives at t. */
static marea_status arrive (pass *p, marea_tensor *t, marea_tensor *dx) {
  if (!t->node) return arrive_at_leaf(p, t, dx);
  wait_at(p, t->node);
  return accumulate(p, &t->node->grad[t->slot], dx);
}

static marea_status check_versions (const pass *p, const marea_node *node) {
  for (int i = 0; i < node->n_in; i++) {
    const marea_tensor *t = node->in[i];
    if (t && bit(node->op->saves_in, i) && t->storage->version != node->version_in[i])
      return marea_fail(
          p->ctx, MAREA_ESTATE,
          "backward: argument '%s' of %s, %s, was changed in place after %s had saved it for its gradient",
          marea_input_name(node->op, i), node->op->name, marea_tensor_text(t).s, node->op->name);
  }
  for (int k = 0; k < node->n_out; k++)
    if (bit(node->op->saves_out, k) && node->out[k]->storage->version != node->version_out[k])
      return marea_fail(
          p->ctx, MAREA_ESTATE,
          "backward: the result of %s, %s, was changed in place, but its gradient needs the old value",
          node->op->name, marea_tensor_text(node->out[k]).s);
  return MAREA_OK;
}

static bool leads_to_xs (const pass *p, const marea_tensor *t) {
  return p->n < 0 || t->capture || (t->node && t->node->wanted);
}

/* With create_graph the new nodes may keep an output of this one: give them handles of their own. */
static marea_status fresh_outputs (marea_node *node, marea_tensor **out) {
  for (int k = 0; k < node->n_out; k++) out[k] = NULL;
  for (int k = 0; k < node->n_out; k++)
    if (bit(node->op->saves_out, k)) MAREA_TRY(marea_alias(node->out[k], &out[k]));
    else MAREA_TRY(marea_hollow(node->out[k], &out[k]));
  for (int k = 0; k < node->n_out; k++) {
    out[k]->node = node;
    out[k]->slot = (int8_t)k;
    out[k]->requires_grad = marea_is_float(out[k]->dtype);
    node->refs++;
  }
  return MAREA_OK;
}

static marea_status call_vjp (pass *p, marea_node *node, const bool *need, marea_tensor **din) {
  marea_tensor *fresh[MAREA_MAX_OUT], **out = node->out;
  marea_status status = MAREA_OK;
  bool create = p->flags & MAREA_CREATE_GRAPH;
  if (create) {
    status = fresh_outputs(node, fresh);
    out = fresh;
  }
  marea_vjp v = {.ctx = p->ctx,
                 .op = node->op,
                 .n_in = node->n_in,
                 .n_out = node->n_out,
                 .in = node->in,
                 .out = out,
                 .dout = node->grad,
                 .attr = node->attr,
                 .counter = node->counter,
                 .need = need,
                 .din = din};
  if (status == MAREA_OK) status = node->op->vjp(&v);
  for (int k = 0; create && k < node->n_out; k++) marea_release(fresh[k]);
  return status;
}

/* Sends what waits at the node on to its inputs. */
static marea_status propagate (pass *p, marea_node *node, bool *need, marea_tensor **din) {
  bool any = false;
  for (int i = 0; i < node->n_in; i++) {
    const marea_tensor *t = node->in[i];
    din[i] = NULL;
    need[i] = t && t->requires_grad && leads_to_xs(p, t);
    any |= need[i];
  }
  if (!any) return MAREA_OK;
  MAREA_TRY(check_versions(p, node));
  marea_status status = call_vjp(p, node, need, din);
  for (int i = 0; i < node->n_in; i++) {
    if (!din[i]) continue;
    if (status == MAREA_OK && need[i]) status = arrive(p, node->in[i], din[i]);
    else marea_release(din[i]);
  }
  return status;
}

static marea_status visit (pass *p, marea_node *node) {
  if (node->consumed)
    return marea_fail(p->ctx, MAREA_ESTATE,
                      "backward: the graph behind this %s was consumed by an earlier backward; give that one "
                      "retain_graph = true to use it twice",
                      node->op->name);
  bool few_need[FEW_INPUTS];
  marea_tensor *few_din[FEW_INPUTS];
  if (node->n_in <= FEW_INPUTS) return propagate(p, node, few_need, few_din);
  marea_tensor **din = marea_alloc(p->ctx, (sizeof *din + sizeof(bool)) * (size_t)node->n_in);
  if (!din) return marea_fail(p->ctx, MAREA_ENOMEM, "backward: out of memory");
  marea_status status = propagate(p, node, (bool *)(din + node->n_in), din);
  marea_free(p->ctx, din);
  return status;
}

/* xs that are results: what waits at their node when it is visited is their gradient. */
static void catch_results (pass *p, marea_node *node) {
  for (int i = 0; i < p->n; i++) {
    marea_tensor *x = p->xs[i];
    if (x->node == node && node->grad[x->slot] && !p->caught[i])
      p->caught[i] = marea_retain(node->grad[x->slot]);
  }
}

static marea_status walk (pass *p, marea_node *node) {
  marea_status status = MAREA_OK;
  while (node && p->waiting > 0) {
    if (!node->waiting) {
      node = node->prev;
      continue;
    }
    if (status == MAREA_OK) {
      p->ctx->layer = node->layer;
      catch_results(p, node);
      status = visit(p, node);
      if (!(p->flags & (MAREA_RETAIN_GRAPH | MAREA_CREATE_GRAPH))) {
        node->consumed = true;
        empty_node(node);
      }
    }
    if (node->refs == 1) empty_node(node); /* it goes with `leave`; what it frees must not be `prev` */
    marea_node *prev = node->prev;
    leave(p, node);
    node = prev;
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

/* Leaves' sums, made before anything is changed: incoming := gradient so far + incoming. */
static marea_status prepare_leaves (pass *p) {
  for (marea_tensor *leaf = p->leaves; leaf; leaf = leaf->link) {
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
  if (seed->ctx != ctx || seed->dtype != y->dtype || seed->rank != y->rank ||
      memcmp(seed->shape, y->shape, sizeof y->shape[0] * (size_t)y->rank) != 0)
    return marea_fail(ctx, MAREA_ESHAPE, "backward: argument 'seed': expected %s, got %s",
                      marea_tensor_text(y).s, marea_tensor_text(seed).s);
  *out = marea_retain(seed);
  return MAREA_OK;
}

static marea_status sweep (pass *p, marea_tensor *y, marea_tensor *seed) {
  marea_tensor *dy;
  int layer = p->ctx->layer;
  bool before = marea_set_recording(p->ctx, (p->flags & MAREA_CREATE_GRAPH) != 0);
  marea_status status = make_seed(y, seed, &dy);
  if (status == MAREA_OK) status = arrive(p, y, dy);
  if (y->node) {
    marea_status walked = walk(p, y->node);
    if (status == MAREA_OK) status = walked;
  }
  p->ctx->layer = layer;
  for (int i = 0; i < p->n && status == MAREA_OK; i++) status = make_own(p, &p->caught[i]);
  if (status == MAREA_OK) status = prepare_leaves(p);
  settle_leaves(p, status == MAREA_OK);
  marea_set_recording(p->ctx, before);
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

marea_status marea_backward (marea_tensor *y, marea_tensor *seed, int flags) {
  pass p = {.ctx = y->ctx, .flags = flags, .n = -1};
  return run_pass(&p, y, seed);
}

/* Marks the nodes that lead from xs to y; the tape is in creation order, so one walk forward does it. */
static void mark_wanted (const pass *p, const marea_node *last) {
  for (marea_node *node = p->ctx->tape_first; node; node = node->next) {
    node->wanted = false;
    for (int i = 0; i < node->n_in && !node->wanted; i++)
      node->wanted = node->in[i] &&
                     (node->in[i]->capture || (node->in[i]->node && node->in[i]->node->wanted));
    for (int i = 0; i < p->n && !node->wanted; i++) node->wanted = p->xs[i]->node == node;
    if (node == last) break;
  }
}

marea_status marea_grad (marea_tensor *y, marea_tensor *seed, int n, marea_tensor *const *xs, int flags,
                         marea_tensor **grads) {
  pass p = {.ctx = y->ctx, .flags = flags, .n = n, .xs = xs, .caught = grads};
  for (int i = 0; i < n; i++) {
    grads[i] = NULL;
    if (xs[i]->ctx != y->ctx || !xs[i]->requires_grad)
      return marea_fail(y->ctx, MAREA_ESTATE, "grad: argument 'xs': %s does not require a gradient",
                        marea_tensor_text(xs[i]).s);
  }
  for (int i = 0; i < n; i++) xs[i]->capture = xs[i]->node ? 0 : i + 1;
  mark_wanted(&p, y->node);
  marea_status status = run_pass(&p, y, seed);
  for (int i = 0; i < n; i++) xs[i]->capture = 0;
  for (int i = 0; i < n; i++) /* a leaf that is listed twice */
    for (int j = i + 1; j < n; j++)
      if (status == MAREA_OK && xs[i] == xs[j] && !xs[i]->node && grads[j]) grads[i] = marea_retain(grads[j]);
  for (int i = 0; status != MAREA_OK && i < n; i++) {
    marea_release(grads[i]);
    grads[i] = NULL;
  }
  return status;
}
