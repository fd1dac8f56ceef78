/* SPDX-License-Identifier: MIT
** norm.c: ONNX's normalizations, and dropout.
*/
#include "window.h"

static marea_named eps_of (onnx_node *n) { return marea_real("eps", float_of(n, "epsilon", 1e-5)); }

/* ---- by channel ---- */

/* a share + b (1 - share) */
static value *mixed (onnx_node *n, value *a, value *b, double share) {
  if (!goes_on(n)) return NULL;
  return add(n, times(n, a, share), times(n, marea_onnx_cast(n, b, dtype_of(a)), 1 - share));
}

/* Whether statistics are those of x: told by an attribute, in versions 7 to 13 by further results that are wanted */
static bool is_training (onnx_node *n) {
  if (n->version >= 14) return int_of(n, "training_mode", 0);
  return n->version < 7 ? !int_of(n, "is_test", 0) : n->n_out > 1;
}

HANDLER(BatchNormalization) {
  value *x = image(n, 0), *weight = input(n, 1), *bias = input(n, 2), *mean = input(n, 3),
        *variance = input(n, 4);
  if (!int_of(n, "spatial", 1)) marea_onnx_reject(n, "attribute 'spatial': only 1 is supported");
  if (!is_training(n)) {
    marea_onnx_give_image(
        n, 0, CALL(n, "batch_norm_eval", VALUES(x, mean, variance, weight, bias), NAMED(eps_of(n))));
    return;
  }
  const double share = float_of(n, "momentum", 0.9);
  value *y[3];
  marea_onnx_call_all(n, "batch_norm", VALUES(x, weight, bias), NAMED(eps_of(n)), 3, y);
  marea_onnx_give_image(n, 0, y[0]);
  give(n, 1, mixed(n, mean, y[1], share));
  give(n, 2, mixed(n, variance, y[2], share));
  give(n, 3, y[1]);
  give(n, 4, y[2]);
}

/* ---- by example ---- */

static value *grouped (onnx_node *n, value *x, value *weight, value *bias, int64_t groups) {
  return CALL(n, "group_norm", VALUES(x, weight, bias), NAMED(marea_int("groups", groups), eps_of(n)));
}

HANDLER(InstanceNormalization) {
  value *x = image(n, 0);
  if (goes_on(n) && rank_of(x) < 2) marea_onnx_reject(n, "expected (N, C, ...), got the rank %d", rank_of(x));
  if (goes_on(n))
    marea_onnx_give_image(n, 0, grouped(n, x, input(n, 1), input(n, 2), size_of(x, rank_of(x) - 1)));
}

/* Before version 21 a group has one number; now a channel has. */
static value *of_channels (onnx_node *n, value *v, int64_t groups, int64_t channels) {
  if (!goes_on(n) || n->version >= 21) return v;
  v = marea_onnx_reshape(n, v, 2, (int64_t[]){groups, 1});
  v = marea_onnx_expand(n, v, 2, (int64_t[]){groups, channels / groups});
  return marea_onnx_reshape(n, v, 1, &channels);
}

HANDLER(GroupNormalization) {
  value *x = image(n, 0), *weight = input(n, 1), *bias = input(n, 2);
  if (!goes_on(n)) return;
  const int64_t groups = int_of(n, "num_groups", 0), channels = size_of(x, MAREA_MAX(rank_of(x) - 1, 0));
  if (groups < 1 || channels % groups)
    marea_onnx_reject(n, "%lld groups of %lld channels", (long long)groups, (long long)channels);
  if (!goes_on(n)) return;
  weight = of_channels(n, weight, groups, channels);
  bias = of_channels(n, bias, groups, channels);
  marea_onnx_give_image(n, 0, grouped(n, x, weight, bias, groups));
}

static value *statistic (onnx_node *n, const char *op, value *x, marea_named dims) {
  const marea_named named[] = {dims, marea_int("keepdim", 1), marea_int("correction", 0)};
  return marea_onnx_call(n, op, VALUES(x), strcmp(op, "var") == 0 ? 3 : 2, named);
}

/* Whether v has the shape of x's dimensions from `from` on */
static bool fits (const value *v, const value *x, int from) {
  return !v || marea_has_shape(v->t, rank_of(x) - from, x->t->shape + from);
}

HANDLER(LayerNormalization) {
  value *x = input(n, 0), *weight = input(n, 1), *bias = optional(n, 2);
  int64_t dims[MAREA_MAX_RANK];
  if (!goes_on(n)) return;
  const int rank = rank_of(x), from = marea_onnx_axis(n, int_of(n, "axis", -1), rank);
  if (!goes_on(n)) return;
  const bool fit = fits(weight, x, from) && fits(bias, x, from);
  value *y = CALL(n, "layer_norm", VALUES(x, fit ? weight : NULL, fit ? bias : NULL),
                  NAMED(marea_int("last", rank - from), eps_of(n)));
  if (!fit) y = mul(n, y, weight);
  if (!fit && bias) y = add(n, y, bias);
  give(n, 0, y);
  for (int d = from; d < rank; d++) dims[d - from] = d;
  const marea_named reduced = marea_ints("dims", rank - from, dims);
  if (n->n_out > 1) give(n, 1, statistic(n, "mean", x, reduced));
  if (n->n_out > 2)
    give(n, 2, op1(n, "rsqrt", plus(n, statistic(n, "var", x, reduced), float_of(n, "epsilon", 1e-5))));
}

HANDLER(MeanVarianceNormalization) {
  value *x = each(n, 0);
  onnx_ints axes;
  int64_t dims[MAREA_MAX_RANK];
  if (!goes_on(n)) return;
  if (!marea_onnx_ints(n, "axes", &axes)) axes = (onnx_ints){.n = 3, .v = {0, 2, 3}};
  if (axes.n > MAREA_MAX_RANK) marea_onnx_reject(n, "%d axes", axes.n);
  for (int i = 0; i < axes.n && goes_on(n); i++)
    dims[i] = marea_onnx_place(n->in[0]->channels_last, marea_onnx_axis(n, axes.v[i], rank_of(x)),
                               rank_of(x));
  if (!goes_on(n)) return;
  const marea_named reduced = marea_ints("dims", axes.n, dims);
  value *deviation = op1(n, "sqrt", statistic(n, "var", x, reduced));
  give_each(n, divide(n, sub(n, x, statistic(n, "mean", x, reduced)), plus(n, deviation, 1e-9)));
}

/* x / (bias + alpha / size * sum of the squares of neighbouring channels)^beta */
HANDLER(LRN) {
  value *x = image(n, 0), *sum = NULL;
  const int64_t size = int_of(n, "size", 0);
  const double alpha = float_of(n, "alpha", 1e-4), beta = float_of(n, "beta", 0.75),
               bias = float_of(n, "bias", 1);
  if (goes_on(n) && (rank_of(x) < 2 || size < 1 || size > 2 * size_of(x, rank_of(x) - 1) + 1))
    marea_onnx_reject(n, "expected channels, and a size of 1 to twice their number");
  if (!goes_on(n)) return;
  const int dim = rank_of(x) - 1;
  value *squares = marea_onnx_pad(n, op1(n, "square", x), dim, (size - 1) / 2, size / 2, 0);
  for (int64_t k = 0; k < size && goes_on(n); k++) {
    value *part = marea_onnx_narrow(n, squares, dim, k, size_of(x, dim));
    sum = sum ? add(n, sum, part) : part;
  }
  value *base = plus(n, times(n, sum, alpha / (double)size), bias);
  marea_onnx_give_image(n, 0, mul(n, x, op2(n, "pow", base, marea_onnx_scalar(n, -beta, dtype_of(x)))));
}

/* ---- dropout: it does nothing unless an input, since version 12, asks for training ---- */

static value *ones_like (onnx_node *n, const value *x, int dtype) {
  if (!goes_on(n)) return NULL;
  return marea_onnx_expand(n, marea_onnx_scalar(n, 1, dtype), rank_of(x), x->t->shape);
}

static value *dropped (onnx_node *n, value *x, double ratio) {
  return CALL(n, "dropout", VALUES(x), NAMED(marea_real("p", ratio)));
}

static void give_mask (onnx_node *n, value *mask) {
  if (!goes_on(n)) return;
  marea_onnx_give_laid_out(n, 1, mask, n->version < 10 ? n->in[0]->type : ONNX_BOOL, n->in[0]->channels_last);
}

HANDLER(Dropout) {
  value *x = each(n, 0);
  if (!goes_on(n)) return;
  const bool training = n->version >= 12 && has(n, 2) && marea_onnx_known_number(n, input(n, 2)) != 0;
  const double ratio = has(n, 1) && training ? marea_onnx_known_number(n, input(n, 1)) : 0.5;
  if (!goes_on(n)) return;
  if (!training || ratio == 0) {
    marea_onnx_give_value(n, 0, n->in[0]);
    if (n->n_out > 1) give_mask(n, ones_like(n, x, MAREA_U8));
  } else if (n->n_out < 2) give_each(n, dropped(n, x, ratio));
  else {
    value *kept = dropped(n, ones_like(n, x, dtype_of(x)), ratio); /* 0, or the factor of what is kept */
    give_each(n, mul(n, x, kept));
    give_mask(n, op2(n, "ne", kept, marea_onnx_scalar(n, 0, dtype_of(x))));
  }
}
