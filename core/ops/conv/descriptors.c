/* SPDX-License-Identifier: MIT
** descriptors.c: checks, forward and gradients that the convolution operators share.
*/
#include "descriptors.h"

#include <string.h>

#include "choose.h"

/* ---- checks ---- */

marea_status marea_conv_check_bias (marea_call *c, int64_t size) {
  if (c->n_in < 3 || !c->in[2]) return MAREA_OK;
  MAREA_TRY(marea_want_dtype(c, 2, 1 << c->in[0]->dtype));
  MAREA_TRY(marea_want_rank(c, 2, 1, "(Cout)"));
  return marea_want_size(c, 2, 0, size, "as many as the result has channels");
}

marea_tensor *marea_conv_bias (const marea_call *c) { return c->n_in > 2 ? c->in[2] : NULL; }

marea_status marea_conv_reject_channels (marea_call *c, const char *name, int64_t channels,
                                         const marea_tensor *weight, int64_t groups, int64_t taken) {
  const marea_text shape = marea_shape_text(weight->rank, weight->shape);
  if (groups == 1)
    return marea_reject(c, MAREA_ESHAPE, "%s has %lld channels, weight %s takes %lld", name,
                        (long long)channels, shape.s, (long long)taken);
  return marea_reject(c, MAREA_ESHAPE, "%s has %lld channels, weight %s with groups=%lld takes %lld", name,
                      (long long)channels, shape.s, (long long)groups, (long long)taken);
}

marea_status marea_conv_read_weight (marea_call *c, int input, const char *names, marea_conv *g) {
  const marea_tensor *weight = c->in[input];
  MAREA_TRY(marea_want_dtype(c, input, 1 << c->in[0]->dtype));
  MAREA_TRY(marea_want_rank(c, input, g->sequence ? 3 : 4, names));
  const int64_t *last = weight->shape + weight->rank - 3;
  g->kernel[0] = g->sequence ? 1 : weight->shape[0];
  g->kernel[1] = last[0];
  g->cout = last[2];
  if (__builtin_mul_overflow(last[1], g->groups, &g->cin))
    return marea_reject(c, MAREA_EARG, "argument 'groups': %lld is too large", (long long)g->groups);
  if (g->cout % g->groups != 0)
    return marea_reject(c, MAREA_ESHAPE, "weight %s: its last size %lld is not divisible by groups=%lld",
                        marea_shape_text(weight->rank, weight->shape).s, (long long)g->cout,
                        (long long)g->groups);
  return MAREA_OK;
}

void marea_conv_set_sizes (const marea_tensor *t, int64_t size[2]) {
  size[0] = t->rank == 3 ? 1 : t->shape[1];
  size[1] = t->shape[t->rank - 2];
}

void marea_conv_layout_image (marea_call *c, const marea_conv *g, const int64_t size[2], int64_t channels) {
  const int64_t shape[] = {g->n, size[0], size[1], channels}, sequences[] = {g->n, size[1], channels};
  marea_layout_set(&c->layout[0], c->in[0]->dtype, g->sequence ? 3 : 4, g->sequence ? sequences : shape);
}

marea_status marea_conv_read_operands (marea_call *c, marea_conv_attr_index at, bool transposed,
                                       marea_conv *g) {
  const marea_tensor *x = c->in[0];
  MAREA_TRY(marea_conv_read(c, at, g));
  MAREA_TRY(marea_want_rank(c, 0, at.sequence ? 3 : 4, c->op->inputs[0].doc));
  MAREA_TRY(marea_conv_read_weight(c, 1, c->op->inputs[1].doc, g));
  const int64_t taken = transposed ? g->cout : g->cin;
  if (x->shape[x->rank - 1] != taken)
    return marea_conv_reject_channels(c, "x", x->shape[x->rank - 1], c->in[1], g->groups, taken);
  g->n = x->shape[0];
  marea_conv_set_sizes(x, transposed ? g->out : g->in);
  return MAREA_OK;
}

marea_status marea_conv_finish_shape (marea_call *c, const marea_conv *g, int slope, bool transposed) {
  const int64_t channels = transposed ? g->cin : g->cout;
  MAREA_TRY(marea_conv_check_bias(c, channels));
  MAREA_TRY(marea_want_slope(c, slope));
  MAREA_KEEP(c, *g);
  marea_conv_layout_image(c, g, transposed ? g->in : g->out, channels);
  return MAREA_OK;
}

marea_status marea_conv_read_output (marea_call *c, const marea_tensor *dy, marea_conv *g) {
  int64_t most[2];
  MAREA_TRY(marea_conv_size(c, g, most));
  marea_conv_set_sizes(dy, g->out);
  if (g->out[0] > most[0] || g->out[1] > most[1])
    return marea_reject(c, MAREA_ESHAPE, "dy is %lldx%lld, but a convolution of %lldx%lld gives %lldx%lld",
                        (long long)g->out[0], (long long)g->out[1], (long long)g->in[0], (long long)g->in[1],
                        (long long)most[0], (long long)most[1]);
  return MAREA_OK;
}

/* t, cut to the height and width of `like` where it is larger */
static marea_status crop_to (marea_tensor *t, const marea_tensor *like, marea_tensor **out) {
  MAREA_OWN rows = NULL;
  if (t->shape[1] == like->shape[1]) rows = marea_retain(t);
  else MAREA_TRY(marea_narrow_to(t, 1, 0, like->shape[1], &rows));
  if (t->shape[2] != like->shape[2]) return marea_narrow_to(rows, 2, 0, like->shape[2], out);
  *out = marea_retain(rows);
  return MAREA_OK;
}

double marea_conv_products (const marea_tensor *small, const marea_tensor *taps) {
  return 2.0 * (double)marea_tensor_size(small) * (double)marea_count(taps->rank - 1, taps->shape);
}

#define GROUP_CHANNELS 8 /* of a group, from which it pays */

bool marea_conv_takes_bf16 (const marea_call *c) {
  const marea_tensor *t = c->in[0];
  int i = 0;
  while (c->op->attrs[i].name && strcmp(c->op->attrs[i].name, "groups") != 0) i++;
  const int64_t groups = c->op->attrs[i].name ? c->attr[i].i : 1;
  return groups <= 1 || t->rank == 0 || t->shape[t->rank - 1] / groups >= GROUP_CHANNELS;
}

/* ---- forward, and the three maps as calls ---- */

marea_status marea_conv_run (marea_tensor *x, marea_tensor *weight, const marea_conv_attributes *g,
                             const marea_tensor *like, marea_tensor **out) {
  marea_attr a[] = {g->stride,          g->padding,  g->dilation, g->groups, marea_attr_int(MAREA_ACT_NONE),
                    marea_attr_real(0), g->algorithm};
  MAREA_OWN y = NULL;
  MAREA_TRY(marea_run_with(x->ctx, &marea_op_conv2d, a, &y, 2, x, weight));
  return crop_to(y, like, out);
}

marea_status marea_conv_run_grad_input (marea_tensor *dy, marea_tensor *weight,
                                        const marea_conv_attributes *g, const marea_tensor *like,
                                        marea_tensor **out) {
  marea_attr a[] = {
      marea_attr_list(2, like->shape + 1), g->stride, g->padding, g->dilation, g->groups, g->algorithm};
  return marea_run_with(dy->ctx, &marea_op_conv2d_grad_input, a, out, 2, dy, weight);
}

marea_status marea_conv_run_grad_weight (marea_tensor *x, marea_tensor *dy, const marea_conv_attributes *g,
                                         const marea_tensor *like, marea_tensor **out) {
  marea_attr a[] = {
      marea_attr_list(2, like->shape), g->stride, g->padding, g->dilation, g->groups, g->algorithm};
  return marea_run_with(x->ctx, &marea_op_conv2d_grad_weight, a, out, 2, x, dy);
}

/* A sequence (N, T, C) is an image (N, 1, T, C). It is contiguous, so its strides are not looked at. */
static marea_tensor as_images (const marea_tensor *t) {
  marea_tensor images = *t;
  if (t->rank == 4) return images;
  const int64_t shape[] = {t->shape[0], 1, t->shape[1], t->shape[2]};
  memcpy(images.shape, shape, sizeof shape);
  images.rank = 4;
  return images;
}

marea_status marea_conv_compute_images (marea_call *c, const marea_conv *g, bool input_gradient,
                                        const marea_tensor *src, const marea_tensor *weight,
                                        const marea_tensor *bias, marea_activation act, double slope) {
  const marea_tensor images = as_images(src);
  const marea_conv_source source = {.t = &images};
  const marea_image_job job = {input_gradient, &source, weight, bias, act, slope, c->out[0]};
  marea_any_image_pass pass;
  if (marea_count(job.out->rank, job.out->shape) == 0) return MAREA_OK;
  MAREA_TRY(marea_conv_open_images(c, g, &job, &pass));
  marea_image_pass_run(c, g, &pass.base);
  return MAREA_OK;
}

marea_status marea_conv_forward (marea_call *c, int activation, bool transposed) {
  marea_conv g;
  MAREA_KEPT(c, g);
  return marea_conv_compute_images(c, &g, transposed, c->in[0], c->in[1], marea_conv_bias(c),
                                   (marea_activation)c->attr[activation].i, c->attr[activation + 1].f);
}

marea_status marea_conv_run_backward (marea_vjp *v, const marea_conv_attributes *g, marea_attr act,
                                      marea_attr slope, bool transposed) {
  const bool bias = v->n_in > 2 && v->need[2];
  const marea_attr a[] = {g->stride,
                          g->padding,
                          g->dilation,
                          g->groups,
                          act,
                          slope,
                          marea_attr_int(transposed),
                          marea_attr_int(v->need[0]),
                          marea_attr_int(v->need[1]),
                          marea_attr_int(bias),
                          g->algorithm};
  marea_tensor *in[] = {v->dout[0], v->in[0], v->in[1], act.i == MAREA_ACT_NONE ? NULL : v->out[0]}, *out[3];
  int n;
  MAREA_TRY(marea_invoke(v->ctx, &marea_op_conv2d_backward, 4, in, a, out, &n));
  for (int i = 0, k = 0; k < n; i++)
    if (a[BACK_DX + i].i) v->din[i] = out[k++];
  return MAREA_OK;
}

/* ---- sequences as images ---- */

/* *out := t (N, T, C) or (K, C, D) with a dimension of one in front of its second last, NULL for NULL */
static marea_status lift (marea_tensor *t, bool weight, marea_tensor **out) {
  *out = NULL;
  if (!t) return MAREA_OK;
  const int64_t *s = t->shape, images[] = {s[0], 1, s[1], s[2]}, taps[] = {1, s[0], s[1], s[2]};
  return marea_reshape_to(t, 4, weight ? taps : images, out);
}

marea_status marea_conv_sequence_vjp (marea_vjp *v, marea_conv_attr_index at, marea_conv_vjp *images) {
  marea_attr attr[MAREA_MAX_ATTRS];
  MAREA_OWN x = NULL;
  MAREA_OWN weight = NULL;
  MAREA_OWN y = NULL;
  MAREA_OWN dy = NULL;
  MAREA_TRY(lift(v->in[0], false, &x));
  MAREA_TRY(lift(v->in[1], true, &weight));
  MAREA_TRY(lift(v->out[0], false, &y));
  MAREA_TRY(lift(v->dout[0], false, &dy));
  for (int i = 0; v->op->attrs[i].name; i++) attr[i] = v->attr[i];
  const int64_t *p = v->attr[at.padding].v;
  attr[at.stride] = marea_attr_list(2, (int64_t[]){1, v->attr[at.stride].i});
  attr[at.dilation] = marea_attr_list(2, (int64_t[]){1, v->attr[at.dilation].i});
  attr[at.padding] = marea_attr_list(4, (int64_t[]){0, 0, p[0], p[1]});
  marea_tensor *in[] = {x, weight, v->n_in > 2 ? v->in[2] : NULL}, *din[] = {NULL, NULL, NULL};
  marea_vjp lifted = *v;
  lifted.in = in;
  lifted.out = &y;
  lifted.dout = &dy;
  lifted.attr = attr;
  lifted.din = din;
  marea_status status = images(&lifted);
  for (int i = 0; i < v->n_in; i++) {
    MAREA_OWN d = din[i];
    if (status != MAREA_OK || !d) continue;
    status = marea_reshape_to(d, v->in[i]->rank, v->in[i]->shape, &v->din[i]);
  }
  return status;
}
