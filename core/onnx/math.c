/* SPDX-License-Identifier: MIT
** math.c: ONNX operators that go element by element.
*/
#include <math.h>

#include "node.h"

/* ---- of one tensor ---- */

#define SAME(Name, op) \
  HANDLER(Name) { give_each(n, op1(n, op, each(n, 0))); }

SAME(Abs, "abs")
SAME(Neg, "neg")
SAME(Sign, "sign")
SAME(Sqrt, "sqrt")
SAME(Exp, "exp")
SAME(Log, "log")
SAME(Sin, "sin")
SAME(Cos, "cos")
SAME(Tanh, "tanh")
SAME(Floor, "floor")
SAME(Ceil, "ceil")
SAME(Round, "round")
SAME(Erf, "erf")
SAME(Reciprocal, "reciprocal")

HANDLER(Identity) {
  if (has(n, 0)) marea_onnx_give_value(n, 0, n->in[0]);
  else input(n, 0);
}

static value *half (onnx_node *n, value *x) { return times(n, x, 0.5); }
static value *square (onnx_node *n, value *x) { return op1(n, "square", x); }
static value *negated (onnx_node *n, value *x) { return op1(n, "neg", x); }

HANDLER(Tan) {
  value *x = each(n, 0);
  give_each(n, divide(n, op1(n, "sin", x), op1(n, "cos", x)));
}

/* (e^x - 1 - (e^-x - 1)) / 2, which is exact near 0 */
HANDLER(Sinh) {
  value *x = each(n, 0);
  give_each(n, half(n, sub(n, op1(n, "expm1", x), op1(n, "expm1", negated(n, x)))));
}

HANDLER(Cosh) {
  value *x = each(n, 0);
  give_each(n, half(n, add(n, op1(n, "exp", x), op1(n, "exp", negated(n, x)))));
}

/* sign(x) log1p(|x| + x^2 / (1 + sqrt(1 + x^2))) */
HANDLER(Asinh) {
  value *x = each(n, 0), *a = op1(n, "abs", x), *x2 = square(n, x);
  value *rest = divide(n, x2, plus(n, op1(n, "sqrt", plus(n, x2, 1)), 1));
  give_each(n, mul(n, op1(n, "sign", x), op1(n, "log1p", add(n, a, rest))));
}

/* log1p(t + sqrt(2 t + t^2)) with t = x - 1 */
HANDLER(Acosh) {
  value *t = plus(n, each(n, 0), -1);
  give_each(n, op1(n, "log1p", add(n, t, op1(n, "sqrt", add(n, times(n, t, 2), square(n, t))))));
}

HANDLER(Atanh) {
  value *x = each(n, 0);
  give_each(n, half(n, sub(n, op1(n, "log1p", x), op1(n, "log1p", negated(n, x)))));
}

HANDLER(Atan) { give_each(n, op1(n, "atan", each(n, 0))); }

/* atan(x / sqrt((1 - x) (1 + x))) */
static value *arc_sine (onnx_node *n, value *x) {
  value *rest = mul(n, plus(n, negated(n, x), 1), plus(n, x, 1));
  return op1(n, "atan", divide(n, x, op1(n, "sqrt", rest)));
}

HANDLER(Asin) { give_each(n, arc_sine(n, each(n, 0))); }
HANDLER(Acos) { give_each(n, plus(n, negated(n, arc_sine(n, each(n, 0))), 1.57079632679489661923)); }

/* ---- truth ---- */

static void give_truth (onnx_node *n, value *v, bool channels_last) {
  marea_onnx_give_laid_out(n, 0, v, ONNX_BOOL, channels_last);
}

static bool is_last (const onnx_node *n) { return has(n, 0) && n->in[0]->channels_last; }

HANDLER(IsNaN) { give_truth(n, op1(n, "isnan", each(n, 0)), is_last(n)); }

HANDLER(IsInf) {
  const bool negative = int_of(n, "detect_negative", 1), positive = int_of(n, "detect_positive", 1);
  value *x = each(n, 0), *is = op1(n, "isinf", x), *zero = marea_onnx_scalar(n, 0, dtype_of(x));
  if (!negative) is = mul(n, is, op2(n, "gt", x, zero));
  if (!positive) is = mul(n, is, op2(n, "lt", x, zero));
  give_truth(n, is, is_last(n));
}

HANDLER(Not) {
  value *x = each(n, 0);
  give_truth(n, op2(n, "eq", x, marea_onnx_scalar(n, 0, dtype_of(x))), is_last(n));
}

static value *truth (onnx_node *n, value *x) { return op2(n, "ne", x, marea_onnx_scalar(n, 0, dtype_of(x))); }

static bool two (onnx_node *n, value **x) {
  if (n->n_in != 2) marea_onnx_reject(n, "expected 2 inputs, got %d", n->n_in);
  return goes_on(n) && marea_onnx_aligned(n, x);
}

#define COMPARE(Name, op)                                        \
  HANDLER(Name) {                                                \
    value *x[2];                                                 \
    const bool last = two(n, x);                                 \
    if (goes_on(n)) give_truth(n, op2(n, op, x[0], x[1]), last); \
  }

COMPARE(Equal, "eq")
COMPARE(Less, "lt")
COMPARE(LessOrEqual, "le")
COMPARE(Greater, "gt")
COMPARE(GreaterOrEqual, "ge")

#define LOGIC(Name, op)                                                              \
  HANDLER(Name) {                                                                    \
    value *x[2];                                                                     \
    const bool last = two(n, x);                                                     \
    if (goes_on(n)) give_truth(n, op2(n, op, truth(n, x[0]), truth(n, x[1])), last); \
  }

LOGIC(And, "mul")
LOGIC(Or, "maximum")
LOGIC(Xor, "ne")

/* ---- of two ---- */

static void give_aligned (onnx_node *n, value *v, bool last) {
  if (last) marea_onnx_give_image(n, 0, v);
  else give(n, 0, v);
}

#define ARITHMETIC(Name, op)                                       \
  HANDLER(Name) {                                                  \
    value *x[2];                                                   \
    const bool last = two(n, x);                                   \
    if (goes_on(n)) give_aligned(n, op2(n, op, x[0], x[1]), last); \
  }

ARITHMETIC(Add, "add")
ARITHMETIC(Sub, "sub")
ARITHMETIC(Mul, "mul")

static bool is_float (const value *x) { return marea_dtype_is_float((marea_dtype)dtype_of(x)); }

/* sign(a) floor(|a| / |b|) sign(b): integers are cut towards zero */
static value *cut_quotient (onnx_node *n, value *a, value *b) {
  value *q = op2(n, "floor_divide", op1(n, "abs", a), op1(n, "abs", b));
  return mul(n, q, mul(n, op1(n, "sign", a), op1(n, "sign", b)));
}

HANDLER(Div) {
  value *x[2];
  const bool last = two(n, x);
  if (!goes_on(n)) return;
  value *q = is_float(x[0])               ? divide(n, x[0], x[1])
             : dtype_of(x[0]) == MAREA_U8 ? op2(n, "floor_divide", x[0], x[1])
                                          : cut_quotient(n, x[0], x[1]);
  give_aligned(n, q, last);
}

HANDLER(Mod) {
  value *x[2];
  const bool last = two(n, x);
  if (!goes_on(n)) return;
  if (!int_of(n, "fmod", 0)) {
    give_aligned(n, op2(n, "remainder", x[0], x[1]), last);
    return;
  }
  value *rest = op2(n, "remainder", op1(n, "abs", x[0]), op1(n, "abs", x[1])); /* C's fmod has a's sign */
  give_aligned(n, mul(n, rest, op1(n, "sign", x[0])), last);
}

/* In f64 for integers, which f32 would round; of the type of the base. */
HANDLER(Pow) {
  value *x[2];
  const bool last = two(n, x);
  if (!goes_on(n)) return;
  const int type = dtype_of(x[0]), computed = is_float(x[0]) ? type : MAREA_F64;
  value *y = op2(n, "pow", marea_onnx_cast(n, x[0], computed), marea_onnx_cast(n, x[1], computed));
  give_aligned(n, marea_onnx_cast(n, y, type), last);
}

static int bits_of (int type) {
  return type == ONNX_UINT8 ? 8 : type == ONNX_UINT16 ? 16 : type == ONNX_UINT32 ? 32 : 64;
}

/* By powers of two: to the left cut to the type's bits. */
HANDLER(BitShift) {
  const bool left = marea_onnx_is(n, "direction", "", "LEFT");
  value *a = input(n, 0), *b = input(n, 1);
  if (!goes_on(n)) return;
  const int type = n->in[0]->type, bits = bits_of(type);
  value *two = marea_onnx_scalar(n, 2, MAREA_F64);
  value *power = marea_onnx_cast(n, op2(n, "pow", two, marea_onnx_cast(n, b, MAREA_F64)), MAREA_I64);
  value *wide = marea_onnx_cast(n, a, MAREA_I64);
  value *y = op2(n, left ? "mul" : "floor_divide", wide, power);
  if (left && bits < 64) y = op2(n, "remainder", y, marea_onnx_integer(n, (int64_t)1 << bits, MAREA_I64));
  marea_onnx_give_as(n, 0, y, type);
}

/* ---- of many ---- */

static value *fold (onnx_node *n, const char *op, bool *last) {
  if (n->n_in == 0) marea_onnx_reject(n, "expected an input");
  value **x = marea_onnx_room(n, n->n_in, sizeof x[0]), *y = NULL;
  *last = false;
  if (!x) return NULL;
  *last = marea_onnx_aligned(n, x);
  if (goes_on(n)) y = x[0];
  for (int i = 1; i < n->n_in && goes_on(n); i++) y = op2(n, op, y, x[i]);
  marea_free(n->e->ctx, x);
  return y;
}

#define FOLD(Name, op)             \
  HANDLER(Name) {                  \
    bool last;                     \
    value *y = fold(n, op, &last); \
    give_aligned(n, y, last);      \
  }

FOLD(Max, "maximum")
FOLD(Min, "minimum")
FOLD(Sum, "add")

HANDLER(Mean) {
  bool last;
  value *y = fold(n, "add", &last);
  if (goes_on(n)) give_aligned(n, divide(n, y, marea_onnx_scalar(n, n->n_in, dtype_of(y))), last);
}

HANDLER(Where) {
  value *x[3];
  if (n->n_in != 3) marea_onnx_reject(n, "expected 3 inputs, got %d", n->n_in);
  const bool last = goes_on(n) && marea_onnx_aligned(n, x);
  if (!goes_on(n)) return;
  value *y = where(n, x[0], x[1], x[2]);
  marea_onnx_give_laid_out(n, 0, y, n->in[1]->type, last);
}

/* ---- types and ranges ---- */

/* Numbers become the elements of a narrower integer type by its bits, as C converts. */
static value *wrapped (onnx_node *n, value *x, int type) {
  static const struct {
    uint8_t bits;
    bool negative;
  } narrow[ONNX_TYPES] = {[ONNX_UINT8] = {8},      [ONNX_UINT16] = {16},      [ONNX_UINT32] = {32},
                          [ONNX_INT8] = {8, true}, [ONNX_INT16] = {16, true}, [ONNX_INT32] = {32, true}};
  const int bits = narrow[type].bits;
  if (!goes_on(n) || !bits || is_float(x)) return x;
  const int64_t span = (int64_t)1 << bits;
  value *wide = marea_onnx_cast(n, x, MAREA_I64), *half = marea_onnx_integer(n, span / 2, MAREA_I64);
  if (!narrow[type].negative) return op2(n, "remainder", wide, marea_onnx_integer(n, span, MAREA_I64));
  return sub(n, op2(n, "remainder", add(n, wide, half), marea_onnx_integer(n, span, MAREA_I64)), half);
}

static void cast_to (onnx_node *n, int type) {
  const int dtype = marea_onnx_dtype(type);
  if (dtype < 0) marea_onnx_reject(n, "the type %s is not supported", marea_onnx_type_name(type));
  value *x = each(n, 0);
  if (!goes_on(n)) return;
  x = type == ONNX_BOOL ? truth(n, x) : type == n->in[0]->type ? x : wrapped(n, x, type);
  marea_onnx_give_laid_out(n, 0, x, type, n->in[0]->channels_last);
}

HANDLER(Cast) { cast_to(n, (int)int_of(n, "to", ONNX_UNDEFINED)); }

HANDLER(CastLike) {
  if (!has(n, 1)) marea_onnx_reject(n, "input 2 is missing");
  else cast_to(n, n->in[1]->type);
}

/* A bound, an attribute before version 11 and an input since; NULL: none. */
static value *bound (onnx_node *n, const char *name, int i, const value *x) {
  if (marea_onnx_attribute(n, name)) return marea_onnx_scalar(n, float_of(n, name, 0), dtype_of(x));
  return optional(n, i);
}

static bool is_number (const value *v) { return !v || (marea_value_known(v) && count_of(v) == 1); }

/* By one operator where the bounds are known. */
HANDLER(Clip) {
  value *x = each(n, 0), *low = bound(n, "min", 1, x), *high = bound(n, "max", 2, x);
  if (!goes_on(n)) return;
  const bool known = is_number(low) && is_number(high);
  const double least = known && low ? marea_onnx_known_number(n, low) : -INFINITY;
  const double most = known && high ? marea_onnx_known_number(n, high) : INFINITY;
  if (!is_float(x) || !known || least > most) {
    if (low) x = op2(n, "maximum", x, low);
    if (high) x = op2(n, "minimum", x, high);
    give_each(n, x);
    return;
  }
  x = CALL(n, "clamp", VALUES(x), NAMED(marea_real("min", least), marea_real("max", most)));
  give_each(n, x);
}

/* Exclusive: the sums before each element. */
HANDLER(CumSum) {
  value *x = input(n, 0);
  const bool exclusive = int_of(n, "exclusive", 0), reverse = int_of(n, "reverse", 0);
  value *axis = input(n, 1);
  if (!goes_on(n)) return;
  const int dim = marea_onnx_axis(n, marea_onnx_known_int(n, axis), rank_of(x));
  value *y = CALL(n, "cumsum", VALUES(x), NAMED(marea_int("dim", dim), marea_int("reverse", reverse)));
  give(n, 0, exclusive ? sub(n, y, x) : y);
}
