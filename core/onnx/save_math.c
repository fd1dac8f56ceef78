/* SPDX-License-Identifier: MIT
** save_math.c: what goes element by element.
*/
#include <math.h>

#include "save.h"

static const char *applied (onnx_saver *s, const char *op) { return NODE(s, op, each_in(s)); }

#define SAVE_AS(name, op) \
  SAVE(name) { each_out(s, applied(s, op)); }

SAVE_AS(neg, "Neg")
SAVE_AS(abs, "Abs")
SAVE_AS(sign, "Sign")
SAVE_AS(sqrt, "Sqrt")
SAVE_AS(reciprocal, "Reciprocal")
SAVE_AS(exp, "Exp")
SAVE_AS(log, "Log")
SAVE_AS(sin, "Sin")
SAVE_AS(cos, "Cos")
SAVE_AS(atan, "Atan")
SAVE_AS(floor, "Floor")
SAVE_AS(ceil, "Ceil")
SAVE_AS(round, "Round")
SAVE_AS(erf, "Erf")
SAVE_AS(relu, "Relu")
SAVE_AS(sigmoid, "Sigmoid")
SAVE_AS(tanh, "Tanh")
SAVE_AS(softplus, "Softplus")

static int own_type (const onnx_saver *s) { return marea_onnx_type_of(layout_in(s, 0)->dtype); }
static const char *number (onnx_saver *s, double v) { return marea_onnx_number(s, v, own_type(s)); }

SAVE(square) {
  const char *x = each_in(s);
  each_out(s, NODE(s, "Mul", x, x));
}

SAVE(rsqrt) { each_out(s, NODE(s, "Reciprocal", applied(s, "Sqrt"))); }
SAVE(log1p) { each_out(s, NODE(s, "Log", NODE(s, "Add", each_in(s), number(s, 1)))); }
SAVE(expm1) { each_out(s, NODE(s, "Sub", applied(s, "Exp"), number(s, 1))); }

static void with_alpha (onnx_saver *s, const char *op, const char *attr) {
  const char *y = applied(s, op);
  marea_onnx_put_float(s, "alpha", attr_f(s, attr));
  each_out(s, y);
}

SAVE(leaky_relu) { with_alpha(s, "LeakyRelu", "slope"); }
SAVE(elu) { with_alpha(s, "Elu", "alpha"); }

SAVE(silu) {
  const char *x = each_in(s);
  each_out(s, NODE(s, "Mul", x, NODE(s, "Sigmoid", x)));
}

SAVE(hard_swish) { each_out(s, NODE(s, "HardSwish", each_in(s))); }

/* x (1 + erf(x / sqrt 2)) / 2 where there is no operator of that name yet */
SAVE(gelu) {
  const char *x = each_in(s);
  if (s->opset >= 20) {
    each_out(s, NODE(s, "Gelu", x));
    return;
  }
  const char *erf = NODE(s, "Erf", NODE(s, "Div", x, number(s, M_SQRT2)));
  each_out(s, NODE(s, "Mul", NODE(s, "Mul", x, NODE(s, "Add", erf, number(s, 1))), number(s, 0.5)));
}

SAVE(relu6) { each_out(s, marea_onnx_relu6(s, each_in(s))); }

SAVE(clamp) {
  const marea_attr *low = marea_onnx_attr(s, "min"), *high = marea_onnx_attr(s, "max");
  const double from = marea_attr_number(low), to = marea_attr_number(high);
  const char *x = each_in(s);
  each_out(s, NODE(s, "Clip", x, isinf(from) ? NULL : number(s, from), isinf(to) ? NULL : number(s, to)));
}

/* A cast of truth values, which are there as such, needs no detour over u8. */
SAVE(cast) {
  int type;
  const bool is_first = marea_onnx_is_first(s, 0);
  const char *x = marea_onnx_moved(s, 0, is_first, &type);
  each_out(s, marea_onnx_cast_to(s, x, marea_onnx_type_of(layout_out(s, 0)->dtype)));
}

/* ---- truth values ---- */

static void truth_out (onnx_saver *s, const char *y, bool is_first) {
  marea_onnx_put(s, 0, y, is_first, ONNX_BOOL);
}

SAVE(isnan) { truth_out(s, applied(s, "IsNaN"), marea_onnx_is_first(s, 0)); }
SAVE(isinf) { truth_out(s, applied(s, "IsInf"), marea_onnx_is_first(s, 0)); }
SAVE(isfinite) {
  const char *odd = NODE(s, "Or", applied(s, "IsNaN"), applied(s, "IsInf"));
  truth_out(s, NODE(s, "Not", odd), marea_onnx_is_first(s, 0));
}

/* ---- two operands ---- */

/* The type that Marea computes in; uint8 is not what others compute in. */
static int common_type (const onnx_saver *s, int n, int from) {
  marea_tensor like[3], *list[3];
  for (int i = 0; i < n; i++) {
    const marea_layout *l = layout_in(s, from + i);
    like[i] = (marea_tensor){.dtype = l->dtype, .rank = l->rank};
    list[i] = &like[i];
  }
  return marea_onnx_type_of(marea_common_dtype(n, list));
}

static int computed_type (int type) { return type == ONNX_UINT8 ? ONNX_INT64 : type; }

/* Both operands as this type */
static bool operands (onnx_saver *s, int type, const char *x[2]) {
  return marea_onnx_together(s, 2, x, (int[]){type, type});
}

/* A result of `type` becomes one of the dtype that Marea gives. */
static void number_out (onnx_saver *s, const char *y, bool is_first, int type) {
  const int own = marea_onnx_type_of(layout_out(s, 0)->dtype);
  marea_onnx_put(s, 0, type == own ? y : marea_onnx_cast_to(s, y, own), is_first, own);
}

static int result_type (const onnx_saver *s) {
  return computed_type(marea_onnx_type_of(layout_out(s, 0)->dtype));
}

static void arithmetic (onnx_saver *s, const char *op) {
  const char *x[2];
  const int type = result_type(s);
  const bool is_first = operands(s, type, x);
  number_out(s, NODE(s, op, x[0], x[1]), is_first, type);
}

#define SAVE_TWO(name, op) \
  SAVE(name) { arithmetic(s, op); }
SAVE_TWO(add, "Add")
SAVE_TWO(sub, "Sub")
SAVE_TWO(mul, "Mul")
SAVE_TWO(div, "Div")
SAVE_TWO(pow, "Pow")
SAVE_TWO(maximum, "Max")
SAVE_TWO(minimum, "Min")

static bool is_whole (int type) { return type == ONNX_INT64; }

/* a - floor(a / b) b */
SAVE(remainder) {
  const char *x[2];
  const int type = result_type(s);
  const bool is_first = operands(s, type, x);
  if (is_whole(type)) {
    number_out(s, NODE(s, "Mod", x[0], x[1]), is_first, type);
    return;
  }
  const char *whole = NODE(s, "Floor", NODE(s, "Div", x[0], x[1]));
  number_out(s, NODE(s, "Sub", x[0], NODE(s, "Mul", whole, x[1])), is_first, type);
}

/* Of integers what Div cuts off is taken away first. */
SAVE(floor_divide) {
  const char *x[2];
  const int type = result_type(s);
  const bool is_first = operands(s, type, x);
  const char *y = is_whole(type) ? NODE(s, "Div", NODE(s, "Sub", x[0], NODE(s, "Mod", x[0], x[1])), x[1])
                                 : NODE(s, "Floor", NODE(s, "Div", x[0], x[1]));
  number_out(s, y, is_first, type);
}

static const char *compare (onnx_saver *s, const char *op, bool *is_first) {
  const char *x[2];
  *is_first = operands(s, computed_type(common_type(s, 2, 0)), x);
  return NODE(s, op, x[0], x[1]);
}

#define SAVE_TEST(name, op)                    \
  SAVE(name) {                                 \
    bool is_first;                             \
    const char *y = compare(s, op, &is_first); \
    truth_out(s, y, is_first);                 \
  }
SAVE_TEST(eq, "Equal")
SAVE_TEST(lt, "Less")
SAVE_TEST(le, "LessOrEqual")
SAVE_TEST(gt, "Greater")
SAVE_TEST(ge, "GreaterOrEqual")

SAVE(ne) {
  bool is_first;
  const char *y = compare(s, "Equal", &is_first);
  truth_out(s, NODE(s, "Not", y), is_first);
}

SAVE(where) {
  const char *x[3];
  const int type = marea_onnx_type_of(layout_out(s, 0)->dtype);
  const bool is_first = marea_onnx_together(s, 3, x, (int[]){ONNX_BOOL, type, type});
  marea_onnx_put(s, 0, NODE(s, "Where", x[0], x[1], x[2]), is_first, type);
}

SAVE(masked_fill) {
  const char *x[3];
  const int type = marea_onnx_type_of(layout_out(s, 0)->dtype);
  const bool is_first = marea_onnx_together(s, 3, x, (int[]){type, ONNX_BOOL, type});
  marea_onnx_put(s, 0, NODE(s, "Where", x[1], x[2], x[0]), is_first, type);
}
