/* SPDX-License-Identifier: MIT
** fuse.c: joins calls of a program. A product with constant weights takes over the constant bias behind it, a
** convolution the scale and shift per channel (batch normalization with given statistics), and both the activation. So
** what would go over the memory three times goes over it once.
**
** A call is joined with the one that makes its input when nothing else reads that. The joined call stands in the place
** of the first one and makes the result of the second one.
*/
#include <string.h>

#include "../ops/vjp.h"
#include "emit.h"

#define MOST_CONSTANTS 4 /* that one call may bring */

typedef struct fusion {
  marea_program *p;
  marea_context *ctx;
  int *maker; /* by slot: the call that makes it, -1: none */
  int *uses;  /* by slot: how often it is read, or is a result */
  int room;   /* of both: new constants take slots, too */
  marea_status status;
} fusion;

/* ---- what a call is ---- */

static const marea_op *const products[] = {&marea_op_conv2d, &marea_op_conv_transpose2d, &marea_op_linear};

static bool is_product (const marea_op *op) {
  for (int i = 0; i < MAREA_COUNT(products); i++)
    if (op == products[i]) return true;
  return false;
}

static marea_attr *attr_of (marea_program_call *c, const char *name) {
  const marea_attr_spec *specs;
  const int n = marea_op_attrs(c->op, &specs);
  for (int i = 0; i < n; i++)
    if (strcmp(specs[i].name, name) == 0) return &c->attr[i];
  return NULL;
}

static int in_of (const marea_program_call *c, int i) { return i < c->n_in ? c->slot[i] : -1; }

static marea_tensor *constant (const fusion *f, int slot) { return slot < 0 ? NULL : f->p->slots[slot]; }

/* The call that makes input i of c and has no other reader; NULL: there is none. */
static marea_program_call *maker_of (const fusion *f, const marea_program_call *c, int i) {
  const int slot = in_of(c, i);
  if (slot < 0 || f->uses[slot] != 1 || f->maker[slot] < 0) return NULL;
  marea_program_call *made = &f->p->calls[f->maker[slot]];
  return made->op && made->n_out == 1 ? made : NULL;
}

static bool is_bare (marea_program_call *c) { return attr_of(c, "activation")->i == MAREA_ACT_NONE; }

/* ---- changing calls ---- */

/* Drops a call and lets the one before make its result. */
static void join (fusion *f, marea_program_call *made, marea_program_call *c) {
  const int result = c->slot[c->n_in], inner = made->slot[made->n_in];
  made->slot[made->n_in] = result;
  f->maker[result] = (int)(made - f->p->calls);
  f->uses[inner] = 0;
  for (int i = 0; i < c->n_in; i++)
    if (c->slot[i] >= 0 && c->slot[i] != inner) f->uses[c->slot[i]]--;
  c->op = NULL;
}

/* Takes the reference of t; the value of input i of c. */
static bool set_constant (fusion *f, marea_program_call *c, int i, marea_tensor *t) {
  int slot;
  f->status = marea_program_constant(f->p, t, &slot);
  marea_release(t);
  if (f->status != MAREA_OK) return false;
  c->slot[i] = slot;
  return true;
}

/* The inputs of a product with room for a bias. */
static bool make_room (fusion *f, marea_program_call *c) {
  if (c->n_in >= 3) return true;
  int *slot = marea_alloc(f->ctx, (size_t)(3 + c->n_out) * sizeof slot[0]);
  if (!slot) {
    f->status = marea_graph_out_of_memory(f->ctx);
    return false;
  }
  memcpy(slot, c->slot, (size_t)c->n_in * sizeof slot[0]);
  for (int i = c->n_in; i < 3; i++) slot[i] = -1;
  memcpy(slot + 3, c->slot + c->n_in, (size_t)c->n_out * sizeof slot[0]);
  marea_free(f->ctx, c->slot);
  c->slot = slot;
  c->n_in = 3;
  return true;
}

static marea_tensor *apply (fusion *f, const marea_op *op, marea_tensor *a, marea_tensor *b) {
  marea_tensor *out = NULL;
  if (f->status == MAREA_OK) f->status = marea_run(f->ctx, op, &out, 2, a, b);
  return f->status == MAREA_OK ? out : NULL;
}

/* ---- products with constant weights ---- */

/* matmul(x, w) is linear(x, w) for a constant matrix w. */
static void make_linear (fusion *f, marea_program_call *c) {
  marea_tensor *w = constant(f, in_of(c, 1)), *turned;
  if (c->op != &marea_op_matmul || !w || w->rank != 2 || constant(f, in_of(c, 0))) return;
  if (c->attr[0].i || f->p->layouts[in_of(c, 0)].rank < 2) return;
  if (c->attr[1].i) {
    const marea_attr dims[] = {marea_attr_int(0), marea_attr_int(1)};
    marea_tensor *dense;
    f->status = marea_run_with(f->ctx, &marea_op_transpose, dims, &turned, 1, w);
    if (f->status == MAREA_OK) {
      f->status = marea_run(f->ctx, &marea_op_contiguous, &dense, 1, turned);
      marea_release(turned);
    }
    if (f->status != MAREA_OK || !set_constant(f, c, 1, dense)) return;
  }
  c->op = &marea_op_linear;
  marea_attrs_init(c->op, c->attr);
}

/* ---- scale and shift per channel ---- */

/* The constant as a vector of n elements for the last dimension, a number as n of them; NULL: it is none. A new
   reference. */
static marea_tensor *as_vector (fusion *f, marea_tensor *t, int64_t n) {
  marea_tensor *out = NULL, *dense = NULL;
  const int64_t size = t ? marea_tensor_size(t) : 0;
  const bool is_row = size == n && t->rank > 0 && t->shape[t->rank - 1] == n;
  if (f->status != MAREA_OK || !t || !(is_row || size == 1)) return NULL;
  marea_attr shape = {.n = 1};
  shape.v[0] = size;
  f->status = marea_run_with(f->ctx, &marea_op_reshape, &shape, &out, 1, t);
  if (f->status != MAREA_OK || size == n) return out;
  marea_tensor *zeros = NULL;
  const marea_attr filled[] = {{.n = 1, .v = {n}}, marea_attr_real(0), marea_attr_int(t->dtype)};
  f->status = marea_run_with(f->ctx, &marea_op_full, filled, &zeros, 0);
  if (f->status == MAREA_OK) f->status = marea_run(f->ctx, &marea_op_add, &dense, 2, zeros, out);
  marea_release(zeros);
  marea_release(out);
  return f->status == MAREA_OK ? dense : NULL;
}

/* Dimension of a weight along which its results lie. */
static int results_dim (const marea_program_call *c) {
  return c->op == &marea_op_conv_transpose2d ? 2 : c->op == &marea_op_linear ? 1 : 3;
}

static int64_t results_of (const fusion *f, marea_program_call *c) {
  const marea_tensor *w = constant(f, in_of(c, 1));
  return w->shape[results_dim(c)];
}

static bool can_scale (const fusion *f, marea_program_call *c) {
  if (!is_product(c->op) || !constant(f, in_of(c, 1)) || !is_bare(c)) return false;
  if (in_of(c, 2) >= 0 && !constant(f, in_of(c, 2))) return false;
  return c->op != &marea_op_conv_transpose2d || attr_of(c, "groups")->i == 1;
}

static void add_shift (fusion *f, marea_program_call *made, marea_tensor *shift) {
  marea_tensor *bias = constant(f, in_of(made, 2));
  if (!make_room(f, made)) return;
  marea_tensor *sum = bias ? apply(f, &marea_op_add, bias, shift) : marea_retain(shift);
  if (sum) set_constant(f, made, 2, sum);
}

/* Weight and bias times `factor` (n). */
static void scale (fusion *f, marea_program_call *made, marea_tensor *factor) {
  marea_tensor *w = constant(f, in_of(made, 1)), *bias = constant(f, in_of(made, 2)), *shaped = NULL;
  marea_attr shape = {.n = w->rank};
  for (int d = 0; d < w->rank; d++) shape.v[d] = d == results_dim(made) ? w->shape[d] : 1;
  f->status = marea_run_with(f->ctx, &marea_op_reshape, &shape, &shaped, 1, factor);
  marea_tensor *scaled = shaped ? apply(f, &marea_op_mul, w, shaped) : NULL;
  marea_release(shaped);
  if (scaled) set_constant(f, made, 1, scaled);
  marea_tensor *moved = bias ? apply(f, &marea_op_mul, bias, factor) : NULL;
  if (moved) set_constant(f, made, 2, moved);
}

/* mul or add of a constant vector behind a product */
static void take_over_constant (fusion *f, marea_program_call *c) {
  const bool adds = c->op == &marea_op_add;
  if (!adds && c->op != &marea_op_mul) return;
  for (int i = 0; i < 2 && c->op; i++) {
    marea_program_call *made = maker_of(f, c, i);
    if (!made || !can_scale(f, made)) continue;
    marea_tensor *t = constant(f, in_of(c, 1 - i)), *w = constant(f, in_of(made, 1));
    if (!t || t->dtype != w->dtype || t->rank > f->p->layouts[in_of(c, i)].rank) continue;
    marea_tensor *v = as_vector(f, t, results_of(f, made));
    if (!v) continue;
    if (adds) add_shift(f, made, v);
    else scale(f, made, v);
    marea_release(v);
    if (f->status == MAREA_OK) join(f, made, c);
  }
}

/* batch_norm_eval(y, mean, variance, weight, bias) = y s + (bias - mean s) with s = weight / sqrt(variance + eps) */
static marea_tensor *norm_scale (fusion *f, marea_program_call *c) {
  marea_tensor *sum = NULL, *root = NULL, *s = NULL, *weight = constant(f, in_of(c, 3));
  f->status = marea_run_number(f->ctx, &marea_op_add, &sum, constant(f, in_of(c, 2)), attr_of(c, "eps")->f);
  if (f->status == MAREA_OK) f->status = marea_run(f->ctx, &marea_op_rsqrt, &root, 1, sum);
  if (f->status == MAREA_OK) s = weight ? apply(f, &marea_op_mul, root, weight) : marea_retain(root);
  marea_release(sum);
  marea_release(root);
  return s;
}

static marea_tensor *norm_shift (fusion *f, marea_program_call *c, marea_tensor *s) {
  marea_tensor *bias = constant(f, in_of(c, 4)),
               *moved = apply(f, &marea_op_mul, constant(f, in_of(c, 1)), s), *shift = NULL;
  if (moved && bias) shift = apply(f, &marea_op_sub, bias, moved);
  else if (moved) f->status = marea_run(f->ctx, &marea_op_neg, &shift, 1, moved);
  marea_release(moved);
  return shift;
}

static void take_over_norm (fusion *f, marea_program_call *c) {
  if (c->op != &marea_op_batch_norm_eval) return;
  marea_program_call *made = maker_of(f, c, 0);
  if (!made || !can_scale(f, made)) return;
  for (int i = 1; i < 5; i++)
    if (in_of(c, i) >= 0 && !constant(f, in_of(c, i))) return;
  if (constant(f, in_of(c, 1))->dtype != constant(f, in_of(made, 1))->dtype) return;
  const marea_attr activation = *attr_of(c, "activation"), slope = *attr_of(c, "slope");
  marea_tensor *s = norm_scale(f, c), *shift = s ? norm_shift(f, c, s) : NULL;
  if (shift) scale(f, made, s);
  if (shift && f->status == MAREA_OK) add_shift(f, made, shift);
  marea_release(s);
  marea_release(shift);
  if (f->status != MAREA_OK) return;
  *attr_of(made, "activation") = activation;
  *attr_of(made, "slope") = slope;
  join(f, made, c);
}

/* ---- activations ---- */

static marea_activation activation_of (const marea_program_call *c) {
  static const marea_op *const ops[MAREA_ACTIVATIONS] = {
      [MAREA_ACT_RELU] = &marea_op_relu,  [MAREA_ACT_LEAKY_RELU] = &marea_op_leaky_relu,
      [MAREA_ACT_ELU] = &marea_op_elu,    [MAREA_ACT_SIGMOID] = &marea_op_sigmoid,
      [MAREA_ACT_TANH] = &marea_op_tanh,  [MAREA_ACT_SOFTPLUS] = &marea_op_softplus,
      [MAREA_ACT_RELU6] = &marea_op_relu6};
  if (c->op == &marea_op_clamp && marea_attr_number(&c->attr[0]) == 0 && marea_attr_number(&c->attr[1]) == 6)
    return MAREA_ACT_RELU6; /* as exporters write it */
  for (int i = 1; i < MAREA_ACTIVATIONS; i++)
    if (ops[i] == c->op) return (marea_activation)i;
  return MAREA_ACT_NONE;
}

static void take_over_activation (fusion *f, marea_program_call *c) {
  const marea_activation activation = activation_of(c);
  marea_program_call *made = activation == MAREA_ACT_NONE ? NULL : maker_of(f, c, 0);
  if (!made || !(is_product(made->op) || made->op == &marea_op_batch_norm_eval) || !is_bare(made)) return;
  if (activation == MAREA_ACT_LEAKY_RELU || activation == MAREA_ACT_ELU) {
    if (c->attr[0].f < 0) return;
    *attr_of(made, "slope") = marea_attr_real(c->attr[0].f);
  }
  attr_of(made, "activation")->i = activation;
  join(f, made, c);
}

/* ---- what exporters write for one operator ---- */

static bool number_of (const fusion *f, int slot, double *number) {
  const marea_tensor *t = constant(f, slot);
  if (!t || marea_tensor_size(t) != 1 || !marea_dtype_is_float((marea_dtype)t->dtype)) return false;
  *number = marea_number_at((marea_dtype)t->dtype, marea_at(t));
  return true;
}

static bool same_shape (const fusion *f, int a, int b) {
  const marea_layout *x = &f->p->layouts[a], *y = &f->p->layouts[b];
  return x->rank == y->rank && memcmp(x->shape, y->shape, (size_t)x->rank * sizeof x->shape[0]) == 0;
}

/* The slot of x where input i of the product is min(max(x + 3, 0), 6) and the other one x; -1: it is not. */
static int gated (const fusion *f, const marea_program_call *product, int i, marea_program_call **drop) {
  double three = 0;
  marea_program_call *gate = maker_of(f, product, i);
  marea_program_call *sum = gate && activation_of(gate) == MAREA_ACT_RELU6 ? maker_of(f, gate, 0) : NULL;
  if (!sum || sum->op != &marea_op_add) return -1;
  const int at = number_of(f, in_of(sum, 1), &three) ? 0 : number_of(f, in_of(sum, 0), &three) ? 1 : -1;
  if (at < 0 || three != 3 || in_of(sum, at) != in_of(product, 1 - i)) return -1;
  drop[0] = gate, drop[1] = sum;
  return in_of(sum, at);
}

/* x min(max(x + 3, 0), 6) / 6 */
static void make_hard_swish (fusion *f, marea_program_call *c) {
  double six = 0;
  marea_program_call *drop[2] = {NULL}, *product = c->op == &marea_op_div ? maker_of(f, c, 0) : NULL;
  if (!product || product->op != &marea_op_mul || !number_of(f, in_of(c, 1), &six) || six != 6) return;
  int x = gated(f, product, 0, drop);
  if (x < 0) x = gated(f, product, 1, drop);
  if (x < 0 || !same_shape(f, x, c->slot[c->n_in])) return;
  product->op = drop[0]->op = drop[1]->op = NULL;
  c->slot[0] = x;
  c->slot[1] = c->slot[2];
  c->n_in = 1;
  c->op = &marea_op_hard_swish;
  marea_attrs_init(c->op, c->attr);
  f->uses[x]--;
}

/* gelu: x (1 + erf(x / sqrt(2))) / 2, the factors in any order */

typedef struct factors { /* of a product of numbers and two values */
  double number;
  int slot[2], n;
  marea_program_call *inner[4]; /* products inside of it */
  int n_inner;
} factors;

static bool find_factors (const fusion *f, marea_program_call *c, factors *x) {
  for (int i = 0; i < 2; i++) {
    double number;
    marea_program_call *made = maker_of(f, c, i);
    if (number_of(f, in_of(c, i), &number)) x->number *= number;
    else if (made && made->op == &marea_op_mul && x->n_inner < MAREA_COUNT(x->inner)) {
      x->inner[x->n_inner++] = made;
      if (!find_factors(f, made, x)) return false;
    } else if (x->n == 2) return false;
    else x->slot[x->n++] = in_of(c, i);
  }
  return true;
}

static bool is_near (double a, double b) { return a > b * (1 - 1e-5) && a < b * (1 + 1e-5); }

/* The slot of x where this slot is 1 + erf(x / sqrt(2)); -1: it is not. */
static int erf_argument (const fusion *f, int slot, marea_program_call **drop) {
  double one = 0, root = 0;
  marea_program_call *sum = f->maker[slot] >= 0 && f->uses[slot] == 1 ? &f->p->calls[f->maker[slot]] : NULL;
  if (!sum || sum->op != &marea_op_add) return -1;
  const int at = number_of(f, in_of(sum, 1), &one) ? 0 : number_of(f, in_of(sum, 0), &one) ? 1 : -1;
  marea_program_call *erf = at < 0 || one != 1 ? NULL : maker_of(f, sum, at);
  marea_program_call *inner = erf && erf->op == &marea_op_erf ? maker_of(f, erf, 0) : NULL;
  if (!inner || !number_of(f, in_of(inner, 1), &root)) return -1;
  const bool divides = inner->op == &marea_op_div && is_near(root, 1.41421356237);
  if (!divides && !(inner->op == &marea_op_mul && is_near(root, 0.70710678118))) return -1;
  drop[0] = sum, drop[1] = erf, drop[2] = inner;
  return in_of(inner, 0);
}

static void make_gelu (fusion *f, marea_program_call *c) {
  factors x = {.number = 1};
  marea_program_call *drop[3] = {NULL};
  if (c->op != &marea_op_mul || !find_factors(f, c, &x) || x.n != 2 || !is_near(x.number, 0.5)) return;
  for (int i = 0; i < 2; i++) /* a number of a higher rank would raise that of the result */
    if (!same_shape(f, x.slot[i], c->slot[c->n_in])) return;
  for (int i = 0; i < 2; i++) {
    if (erf_argument(f, x.slot[i], drop) != x.slot[1 - i]) continue;
    for (int k = 0; k < 3; k++) drop[k]->op = NULL;
    for (int k = 0; k < x.n_inner; k++) x.inner[k]->op = NULL;
    c->slot[0] = x.slot[1 - i];
    c->slot[1] = c->slot[2];
    c->n_in = 1;
    c->op = &marea_op_gelu;
    marea_attrs_init(c->op, c->attr);
    f->uses[x.slot[1 - i]]--;
    return;
  }
}

/* ---- concat ---- */

/* Inputs that an operator makes for this concat alone are written where they belong in its result. */
static void write_parts (const fusion *f, const marea_program_call *c) {
  const marea_layout *whole = &f->p->layouts[c->slot[c->n_in]];
  int64_t channel = 0;
  if (c->op != &marea_op_concat || whole->rank < 2 || c->attr[0].i != whole->rank - 1) return;
  for (int i = 0; i < c->n_in; i++) {
    marea_program_call *made = maker_of(f, c, i);
    const marea_layout *part = &f->p->layouts[c->slot[i]];
    if (made && made->op->flags & MAREA_WRITES_PART && part->dtype == whole->dtype &&
        !marea_is_in(MAREA_STORED, whole->dtype)) {
      made->whole = c->slot[c->n_in];
      made->channel = channel;
    }
    channel += part->shape[whole->rank - 1];
  }
}

/* ---- the whole program ---- */

static void count (fusion *f) {
  const marea_program *p = f->p;
  for (int i = 0; i < f->room; i++) f->maker[i] = -1, f->uses[i] = 0;
  for (int i = 0; i < p->n_calls; i++)
    for (int k = 0; k < p->calls[i].n_in + p->calls[i].n_out; k++) {
      const int slot = p->calls[i].slot[k];
      if (slot >= 0 && k < p->calls[i].n_in) f->uses[slot]++;
      else if (slot >= 0) f->maker[slot] = i;
    }
  for (int i = 0; i < p->n_outputs; i++) f->uses[p->outputs[i]] += 2; /* never joined away */
}

static void drop_joined (marea_program *p) {
  int kept = 0;
  for (int i = 0; i < p->n_calls; i++) {
    if (p->calls[i].op) p->calls[kept++] = p->calls[i];
    else marea_free(p->ctx, p->calls[i].slot);
  }
  p->n_calls = kept;
}

marea_status marea_program_fuse (marea_program *p) {
  fusion f = {.p = p, .ctx = p->ctx, .room = p->n_slots + MOST_CONSTANTS * p->n_calls + 1};
  f.maker = marea_alloc(p->ctx, (size_t)f.room * sizeof f.maker[0]);
  f.uses = marea_alloc(p->ctx, (size_t)f.room * sizeof f.uses[0]);
  if (!f.maker || !f.uses) f.status = marea_graph_out_of_memory(p->ctx);
  if (f.status == MAREA_OK) count(&f);
  for (int i = 0; i < p->n_calls && f.status == MAREA_OK; i++) {
    marea_program_call *c = &p->calls[i];
    make_linear(&f, c);
    take_over_norm(&f, c);
    if (c->op) take_over_constant(&f, c);
    if (c->op) take_over_activation(&f, c);
    if (c->op) make_gelu(&f, c);
    if (c->op) make_hard_swish(&f, c);
  }
  for (int i = 0; i < p->n_calls && f.status == MAREA_OK; i++)
    if (p->calls[i].op) write_parts(&f, &p->calls[i]);
  drop_joined(p);
  marea_free(p->ctx, f.maker);
  marea_free(p->ctx, f.uses);
  return f.status;
}
