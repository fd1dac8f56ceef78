/* SPDX-License-Identifier: MIT
** save_attention.c: attention and rotary positions, made of simple operators.
*/
#include <float.h>
#include <math.h>

#include "save.h"

static int own_type (const onnx_saver *s) { return marea_onnx_type_of(layout_in(s, 0)->dtype); }
static const char *number (onnx_saver *s, double v) { return marea_onnx_number(s, v, own_type(s)); }
static int64_t size (const onnx_saver *s, int i, int d) { return layout_in(s, i)->shape[d]; }

/* int64 (n): 0, 1, ... of dimension d of input i */
static const char *steps (onnx_saver *s, int i, int d) {
  const int64_t n = size(s, i, d);
  if (!saves(s)) return "";
  if (!marea_onnx_is_free(s, slot_in(s, i), d)) {
    int64_t *list = marea_onnx_memory(s, (size_t)MAREA_MAX(n, 1) * sizeof list[0]);
    for (int64_t k = 0; k < n && saves(s); k++) list[k] = k;
    return saves(s) ? marea_onnx_numbers(s, (int)n, list) : "";
  }
  const char *shape = NODE(s, "Shape", plain(s, i));
  const char *end = NODE(s, "Gather", shape, marea_onnx_number(s, d, ONNX_INT64));
  return NODE(s, "Range", marea_onnx_number(s, 0, ONNX_INT64), end, marea_onnx_number(s, 1, ONNX_INT64));
}

static const char *with_dims (onnx_saver *s, const char *x, int n, const int64_t *dims) {
  return NODE(s, "Unsqueeze", x, marea_onnx_numbers(s, n, dims));
}

static const char *both (onnx_saver *s, const char *a, const char *b) {
  return !a ? b : !b ? a : NODE(s, "And", a, b);
}

/* Truth values: keys below the lengths of input i, for scores of rank 3 or 4 */
static const char *within_lengths (onnx_saver *s, int i, int key, int rank) {
  if (!is_given(s, i)) return NULL;
  const int64_t dims[] = {1, 2, 3};
  const char *lengths = with_dims(s, marea_onnx_typed(s, i, ONNX_INT64), rank - 1, dims);
  return NODE(s, "Less", steps(s, key, 1), lengths);
}

/* What is not visible gets no weight, and a row of which nothing is visible is zero. */
static const char *weigh (onnx_saver *s, const char *scores, const char *visible, bool sees_all_rows) {
  if (visible) scores = NODE(s, "Where", visible, scores, number(s, -FLT_MAX));
  const char *y = NODE(s, "Softmax", scores);
  marea_onnx_put_int(s, "axis", -1);
  return visible && !sees_all_rows ? NODE(s, "Where", visible, y, number(s, 0)) : y;
}

/* ---- scaled dot products ---- */

/* (N, T, heads, D) by heads, those of fewer heads repeated */
static const char *by_heads (onnx_saver *s, int i, bool turned) {
  const int64_t heads = size(s, 0, 2), own = size(s, i, 2);
  const int64_t dims[] = {0, 2, turned ? 3 : 1, turned ? 1 : 3};
  const char *x = marea_onnx_permuted(s, plain(s, i), 4, dims);
  if (own == heads || !saves(s)) return x;
  int64_t *list = marea_onnx_memory(s, (size_t)heads * sizeof list[0]);
  for (int64_t h = 0; h < heads && saves(s); h++) list[h] = h / (heads / own);
  if (!saves(s)) return "";
  const char *y = NODE(s, "Gather", x, marea_onnx_numbers(s, (int)heads, list));
  marea_onnx_put_int(s, "axis", 1);
  return y;
}

/* Query i sees keys up to i + Tk - Tq. */
static const char *causal (onnx_saver *s) {
  const int64_t more = size(s, 1, 1) - size(s, 0, 1);
  const int64_t other = marea_onnx_other(s, slot_in(s, 1))->shape[1] -
                        marea_onnx_other(s, slot_in(s, 0))->shape[1];
  if (!attr_i(s, "causal")) return NULL;
  if (more != other) marea_onnx_save_reject(s, "causal with queries and keys that differ by a free number");
  const char *query = with_dims(s, steps(s, 0, 1), INTS(1));
  return NODE(s, "LessOrEqual", steps(s, 1, 1),
              NODE(s, "Add", query, marea_onnx_number(s, (double)more, ONNX_INT64)));
}

static bool hides (const onnx_saver *s) {
  marea_tensor *t = constant_in(s, 3);
  if (!t) return true;
  bool any = !marea_tensor_contiguous(t);
  for (int64_t i = 0; !any && i < marea_tensor_size(t); i++)
    any = isinf(marea_load(t->dtype, marea_at(t), i));
  return any;
}

SAVE(scaled_dot_product_attention) {
  const marea_attr *scale = marea_onnx_attr(s, "scale");
  const int64_t back[] = {0, 2, 1, 3};
  if (attr_f(s, "dropout") != 0) marea_onnx_save_reject(s, "with dropout; networks are saved in evaluation");
  const double factor = scale->n ? scale->f : 1 / sqrt((double)size(s, 0, 3));
  const char *q = NODE(s, "Mul", by_heads(s, 0, false), number(s, factor));
  const char *scores = NODE(s, "MatMul", q, by_heads(s, 1, true));
  const char *visible = causal(s);
  bool sees = size(s, 1, 1) >= size(s, 0, 1);
  if (is_given(s, 3) && layout_in(s, 3)->dtype == MAREA_U8) {
    visible = both(s, visible, marea_onnx_truth(s, 3));
    sees = false;
  } else if (is_given(s, 3)) {
    const char *mask = marea_onnx_typed(s, 3, own_type(s));
    scores = NODE(s, "Add", scores, mask);
    if (hides(s)) {
      visible = both(s, visible, NODE(s, "Greater", mask, number(s, -INFINITY)));
      sees = false;
    }
  }
  visible = both(s, visible, within_lengths(s, 4, 1, 4));
  const char *weights = weigh(s, scores, visible, sees && !is_given(s, 4));
  put(s, 0, marea_onnx_permuted(s, NODE(s, "MatMul", weights, by_heads(s, 2, false)), 4, back));
}

/* ---- additive attention ---- */

SAVE(additive_attention) {
  const char *query = with_dims(s, plain(s, 0), INTS(2)), *key = with_dims(s, plain(s, 1), INTS(1));
  const char *scores = NODE(s, "MatMul", NODE(s, "Tanh", NODE(s, "Add", query, key)), plain(s, 2));
  put(s, 0, weigh(s, scores, within_lengths(s, 3, 1, 3), false));
}

/* ---- rotary positions ---- */

/* float64 (T, 1, D/2) or (N, T, 1, D/2): the angle of each pair, in double as Marea has it */
static const char *angles (onnx_saver *s) {
  const int64_t pairs = size(s, 0, 3) / 2;
  double *rate = marea_onnx_memory(s, (size_t)pairs * sizeof rate[0]);
  const char *at = is_given(s, 1) ? marea_onnx_typed(s, 1, ONNX_INT64) : steps(s, 0, 1);
  const int64_t start = attr_i(s, "start");
  if (!saves(s)) return "";
  for (int64_t i = 0; i < pairs; i++)
    rate[i] = pow(attr_f(s, "base"), -2.0 * (double)i / (double)(2 * pairs));
  if (start) at = NODE(s, "Add", at, marea_onnx_number(s, (double)start, ONNX_INT64));
  at = with_dims(s, marea_onnx_cast_to(s, at, ONNX_DOUBLE), INTS(-2, -1));
  return NODE(s, "Mul", at, marea_onnx_doubles(s, (int)pairs, rate));
}

/* One half of each pair, (N, T, heads, D/2) */
static const char *half (onnx_saver *s, const char *x, int which, bool interleaved) {
  const int64_t pairs = size(s, 0, 3) / 2;
  if (!interleaved)
    return NODE(s, "Slice", x, index1(s, which * pairs), index1(s, (which + 1) * pairs), index1(s, 3));
  const char *y = NODE(s, "Gather", marea_onnx_reshaped(s, x, INTS(0, 0, 0, pairs, 2)),
                       marea_onnx_number(s, which, ONNX_INT64));
  marea_onnx_put_int(s, "axis", 4);
  return y;
}

static const char *joined (onnx_saver *s, const char *a, const char *b, bool interleaved) {
  if (interleaved) {
    a = with_dims(s, a, INTS(4));
    b = with_dims(s, b, INTS(4));
  }
  const char *y = NODE(s, "Concat", a, b);
  marea_onnx_put_int(s, "axis", interleaved ? 4 : 3);
  return interleaved ? marea_onnx_reshaped(s, y, INTS(0, 0, 0, size(s, 0, 3))) : y;
}

SAVE(rotary) {
  const bool interleaved = attr_i(s, "interleaved");
  const int type = own_type(s);
  const char *angle = angles(s), *x = plain(s, 0);
  const char *cosine = marea_onnx_cast_to(s, NODE(s, "Cos", angle), type);
  const char *sine = marea_onnx_cast_to(s, NODE(s, "Sin", angle), type);
  if (attr_i(s, "inverse")) sine = NODE(s, "Neg", sine);
  const char *a = half(s, x, 0, interleaved), *b = half(s, x, 1, interleaved);
  const char *turned = NODE(s, "Sub", NODE(s, "Mul", a, cosine), NODE(s, "Mul", b, sine));
  const char *other = NODE(s, "Add", NODE(s, "Mul", b, cosine), NODE(s, "Mul", a, sine));
  put(s, 0, joined(s, turned, other, interleaved));
}
