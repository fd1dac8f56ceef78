/* SPDX-License-Identifier: MIT
** save_norm.c: normalizations.
*/
#include "save.h"

static const marea_layout *in (const onnx_saver *s) { return layout_in(s, 0); }
static int own_type (const onnx_saver *s) { return marea_onnx_type_of(in(s)->dtype); }

/* Input i, or ones or zeros of this shape where it is left out */
static const char *or_filled (onnx_saver *s, int i, int rank, const int64_t *shape, double v) {
  return is_given(s, i) ? plain(s, i) : marea_onnx_filled(s, rank, shape, v, in(s)->dtype);
}

SAVE(batch_norm_eval) {
  const int64_t *channels = &in(s)->shape[in(s)->rank - 1];
  const char *weight = or_filled(s, 3, 1, channels, 1), *bias = or_filled(s, 4, 1, channels, 0);
  const char *y = NODE(s, "BatchNormalization", first(s, 0), weight, bias, plain(s, 1), plain(s, 2));
  marea_onnx_put_float(s, "epsilon", attr_f(s, "eps"));
  put_first(s, 0, marea_onnx_activated(s, y));
}

SAVE(layer_norm) {
  const int rank = in(s)->rank, last = (int)attr_i(s, "last");
  const char *weight = or_filled(s, 1, last, &in(s)->shape[rank - last], 1);
  const char *y = NODE(s, "LayerNormalization", plain(s, 0), weight, plain(s, 2));
  marea_onnx_put_int(s, "axis", -last);
  marea_onnx_put_float(s, "epsilon", attr_f(s, "eps"));
  put(s, 0, y);
}

SAVE(rms_norm) {
  const int last = (int)attr_i(s, "last");
  const marea_attr *eps = marea_onnx_attr(s, "eps");
  const double least = eps->n ? eps->f : marea_epsilon(in(s)->dtype);
  int64_t axes[MAREA_MAX_RANK];
  const char *x = plain(s, 0);
  for (int i = 0; i < last; i++) axes[i] = in(s)->rank - last + i;
  const char *mean = marea_onnx_reduce(s, "ReduceMean", NODE(s, "Mul", x, x), last, axes, true);
  const char *root = NODE(s, "Sqrt", NODE(s, "Add", mean, marea_onnx_number(s, least, own_type(s))));
  const char *y = NODE(s, "Div", x, root);
  put(s, 0, is_given(s, 1) ? NODE(s, "Mul", y, plain(s, 1)) : y);
}

/* A parameter (C) for a value (N, C, ...) */
static const char *per_channel (onnx_saver *s, int i) {
  const int rank = in(s)->rank;
  return marea_onnx_form(s, slot_in(s, i), true, marea_onnx_type_of(layout_in(s, i)->dtype),
                         rank == 2 ? 1 : rank);
}

/* Each group as a channel of an image (N, groups, all that belongs to it), whose mean and variance are its own. */
SAVE(group_norm) {
  const int64_t groups = attr_i(s, "groups");
  const char *x = first(s, 0);
  const char *ones = marea_onnx_filled(s, 1, &groups, 1, in(s)->dtype);
  const char *zeros = marea_onnx_filled(s, 1, &groups, 0, in(s)->dtype);
  const char *y = NODE(s, "InstanceNormalization", marea_onnx_reshaped(s, x, INTS(0, groups, -1)), ones,
                       zeros);
  marea_onnx_put_float(s, "epsilon", attr_f(s, "eps"));
  y = NODE(s, "Reshape", y, NODE(s, "Shape", x));
  if (is_given(s, 1)) y = NODE(s, "Mul", y, per_channel(s, 1));
  if (is_given(s, 2)) y = NODE(s, "Add", y, per_channel(s, 2));
  put_first(s, 0, y);
}
