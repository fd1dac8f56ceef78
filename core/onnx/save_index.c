/* SPDX-License-Identifier: MIT
** save_index.c: elements by their positions, which the file takes and gives as Marea counts them.
*/
#include "save.h"

/* Positions from 0, negative ones from the end */
static const char *from_end (onnx_saver *s, int i) {
  const char *x = marea_onnx_typed(s, i, ONNX_INT64);
  if (s->ctx->config.index_base == 0) return x;
  const char *negative = NODE(s, "Less", x, marea_onnx_number(s, 0, ONNX_INT64));
  return NODE(s, "Where", negative, x, marea_onnx_from_base(s, i));
}

static const char *pick (onnx_saver *s, const char *op, const char *x, const char *index, int dim) {
  const char *y = NODE(s, op, x, index);
  marea_onnx_put_int(s, "axis", dim);
  return y;
}

SAVE(index_select) {
  const int dim = attr_dim(s, "dim", layout_in(s, 0)->rank);
  const int type = marea_onnx_type_of(layout_out(s, 0)->dtype);
  const double scale = attr_f(s, "scale");
  const char *index = attr_i(s, "from_end") ? from_end(s, 1) : marea_onnx_from_base(s, 1);
  const char *y = pick(s, "Gather", plain(s, 0), index, dim);
  if (type != marea_onnx_type_of(layout_in(s, 0)->dtype)) y = marea_onnx_cast_to(s, y, type);
  put(s, 0, scale == 1 ? y : NODE(s, "Mul", y, marea_onnx_number(s, scale, type)));
}

SAVE(embedding) { put(s, 0, pick(s, "Gather", plain(s, 0), marea_onnx_from_base(s, 1), 0)); }

SAVE(gather) {
  const int dim = attr_dim(s, "dim", layout_in(s, 0)->rank);
  put(s, 0, pick(s, "GatherElements", plain(s, 0), marea_onnx_from_base(s, 1), dim));
}

SAVE(scatter_add) {
  const int dim = attr_dim(s, "dim", layout_in(s, 0)->rank);
  const char *y = NODE(s, "ScatterElements", plain(s, 0), marea_onnx_from_base(s, 1),
                       marea_onnx_typed(s, 2, marea_onnx_type_of(layout_out(s, 0)->dtype)));
  marea_onnx_put_int(s, "axis", dim);
  marea_onnx_put_text(s, "reduction", "add");
  put(s, 0, y);
}

SAVE(one_hot) {
  const int type = marea_onnx_type_of(layout_out(s, 0)->dtype);
  const char *off = marea_onnx_reshaped(s, marea_onnx_number(s, 0, type), INTS(1));
  const char *on = marea_onnx_reshaped(s, marea_onnx_number(s, 1, type), INTS(1));
  const char *values = NODE(s, "Concat", off, on);
  marea_onnx_put_int(s, "axis", 0);
  const char *classes = marea_onnx_number(s, (double)attr_i(s, "classes"), ONNX_INT64);
  const char *index = marea_onnx_from_base(s, 0);
  if (layout_in(s, 0)->rank > 0) put(s, 0, NODE(s, "OneHot", index, classes, values));
  else
    put(s, 0,
        NODE(s, "Squeeze", NODE(s, "OneHot", NODE(s, "Unsqueeze", index, index1(s, 0)), classes, values),
             index1(s, 0)));
}
