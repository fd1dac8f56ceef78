/* SPDX-License-Identifier: MIT
** quantize.c: ONNX's numbers of 8 and 16 bits: x = (q - zero) scale.
*/
#include "window.h"

static const struct {
  bool is;
  double low, high;
} ranges[ONNX_TYPES] = {
    [ONNX_UINT8] = {true, 0, 255},
    [ONNX_INT8] = {true, -128, 127},
    [ONNX_UINT16] = {true, 0, 65535},
    [ONNX_INT16] = {true, -32768, 32767},
};

static bool is_quantized (onnx_node *n, int type) {
  if (goes_on(n) && (type < 0 || type >= ONNX_TYPES || !ranges[type].is))
    marea_onnx_reject(n, "numbers quantized to %s are not supported", marea_onnx_type_name(type));
  return goes_on(n);
}

static value *real (onnx_node *n, value *x) {
  const marea_dtype dtype = (marea_dtype)dtype_of(x);
  return x ? marea_onnx_cast(n, x, marea_dtype_is_float(dtype) ? (int)marea_dtype_computed(dtype) : MAREA_F32)
           : NULL;
}

/* y, of floats, rounded to even, moved by `zero` and cut to the type's range */
static value *to_bytes (onnx_node *n, value *y, value *zero, int type) {
  y = op1(n, "round", y);
  if (zero) y = add(n, y, marea_onnx_cast(n, zero, dtype_of(y)));
  if (!is_quantized(n, type)) return NULL;
  return CALL(n, "clamp", VALUES(y),
              NAMED(marea_real("min", ranges[type].low), marea_real("max", ranges[type].high)));
}

/* A scale or zero in the shape that broadcasts with x: of a tensor, of elements of `dim`, or of blocks of these. */
static value *along (onnx_node *n, value *s, const value *x, int dim, int64_t block) {
  int64_t shape[MAREA_MAX_RANK + 1], wide[MAREA_MAX_RANK + 1];
  const int rank = rank_of(x);
  if (!goes_on(n) || !s) return s;
  if (count_of(s) == 1) return marea_onnx_reshape(n, s, 0, NULL);
  if (rank_of(s) == 1) {
    for (int d = 0; d < rank; d++) shape[d] = d == dim ? count_of(s) : 1;
    return marea_onnx_reshape(n, s, rank, shape);
  }
  if (rank_of(s) != rank || block < 1 || block > size_of(x, dim) ||
      size_of(s, dim) * block != size_of(x, dim)) {
    marea_onnx_reject(n, "a scale or zero point %s does not fit %s in blocks of %lld",
                      marea_tensor_text(s->t).s, marea_tensor_text(x->t).s, (long long)block);
    return NULL;
  }
  for (int d = 0; d <= rank; d++) {
    shape[d] = d == dim + 1 ? 1 : size_of(s, d - (d > dim));
    wide[d] = d == dim + 1 ? block : shape[d];
  }
  s = marea_onnx_expand(n, marea_onnx_reshape(n, s, rank + 1, shape), rank + 1, wide);
  return goes_on(n) ? marea_onnx_reshape(n, s, rank, x->t->shape) : NULL;
}

/* x as it lies, and the dimension that scales are of. Blocks need ONNX's order. */
static value *laid_out (onnx_node *n, int64_t block, bool *channels_last, int *dim) {
  value *x = each(n, 0);
  *dim = 0;
  *channels_last = goes_on(n) && block == 0 && n->in[0]->channels_last;
  if (!*channels_last) x = input(n, 0);
  if (!goes_on(n) || !has(n, 1) || count_of(n->in[1]->v) == 1) return x;
  const int64_t axis = int_of(n, "axis", 1);
  *dim = rank_of(x) < 2 && axis == 1 ? 0 : marea_onnx_axis(n, axis, rank_of(x));
  *dim = marea_onnx_place(*channels_last, *dim, rank_of(x));
  return x;
}

static void give_laid_out (onnx_node *n, int k, value *v, int type, bool channels_last) {
  marea_onnx_give_as(n, k, v, type);
  if (goes_on(n) && k < n->n_out && n->out[k]) n->out[k]->channels_last = channels_last;
}

HANDLER(QuantizeLinear) {
  bool last;
  int dim;
  const int wanted = (int)int_of(n, "output_dtype", 0), type = wanted      ? wanted
                                                               : has(n, 2) ? n->in[2]->type
                                                                           : ONNX_UINT8;
  const int64_t block = int_of(n, "block_size", 0);
  value *x = laid_out(n, block, &last, &dim), *scale = input(n, 1), *zero = optional(n, 2);
  value *y = divide(n, real(n, x), along(n, real(n, scale), x, dim, block));
  give_laid_out(n, 0, to_bytes(n, y, along(n, zero, x, dim, block), type), type, last);
}

HANDLER(DequantizeLinear) {
  bool last;
  int dim;
  const int64_t block = int_of(n, "block_size", 0);
  value *x = laid_out(n, block, &last, &dim), *scale = input(n, 1), *zero = optional(n, 2);
  if (!goes_on(n)) return;
  const int type = n->in[0]->type;
  const bool small = type >= 0 && type < ONNX_TYPES && ranges[type].is; /* exact in f32 */
  if (!small && type != ONNX_INT32) is_quantized(n, type);
  value *y = marea_onnx_cast(n, x, small ? MAREA_F32 : MAREA_I64);
  if (zero) y = sub(n, y, marea_onnx_cast(n, along(n, zero, x, dim, block), dtype_of(y)));
  y = mul(n, marea_onnx_cast(n, y, MAREA_F32), along(n, real(n, scale), x, dim, block));
  if (goes_on(n)) give_laid_out(n, 0, y, n->in[1]->type, last);
}

/* The range of x, with 0 in it, to uint8. */
HANDLER(DynamicQuantizeLinear) {
  value *x = each(n, 0), *none = marea_onnx_scalar(n, 0, MAREA_F32);
  value *low = op2(n, "minimum", op1(n, "min", x), none), *high = op2(n, "maximum", op1(n, "max", x), none);
  value *scale = times(n, sub(n, high, low), 1.0 / 255);
  scale = where(n, op2(n, "eq", scale, none), marea_onnx_scalar(n, 1, MAREA_F32), scale); /* of zeros alone */
  value *zero = to_bytes(n, divide(n, op1(n, "neg", low), scale), NULL, ONNX_UINT8);
  if (!goes_on(n)) return;
  give_laid_out(n, 0, to_bytes(n, divide(n, x, scale), zero, ONNX_UINT8), ONNX_UINT8,
                n->in[0]->channels_last);
  marea_onnx_give_as(n, 1, scale, ONNX_FLOAT);
  marea_onnx_give_as(n, 2, zero, ONNX_UINT8);
}

/* ---- products ---- */

/* One number of each row, (M) or (.., M, 1), as a column */
static value *of_rows (onnx_node *n, value *v) {
  if (!goes_on(n) || !v || rank_of(v) != 1 || count_of(v) == 1) return v;
  return marea_onnx_reshape(n, v, 2, (int64_t[]){count_of(v), 1});
}

static value *moved (onnx_node *n, value *x, value *zero, int dtype) {
  x = marea_onnx_cast(n, x, dtype);
  return zero ? sub(n, x, marea_onnx_cast(n, zero, dtype)) : x;
}

/* (a - its zero) (b - its zero), exact: differences have 9 bits and a sign, so f32 holds the sums of short rows. */
static value *exact_product (onnx_node *n, value *a, value *a_zero, value *b, value *b_zero) {
  if (!goes_on(n)) return NULL;
  if (rank_of(a) < 1 || rank_of(b) < 1) {
    marea_onnx_reject(n, "expected matrices");
    return NULL;
  }
  const int dtype = size_of(a, rank_of(a) - 1) <= 256 ? MAREA_F32 : MAREA_F64;
  return op2(n, "matmul", moved(n, a, of_rows(n, a_zero), dtype), moved(n, b, b_zero, dtype));
}

HANDLER(MatMulInteger) {
  marea_onnx_give_as(n, 0, exact_product(n, input(n, 0), optional(n, 2), input(n, 1), optional(n, 3)),
                     ONNX_INT32);
}

HANDLER(QLinearMatMul) {
  value *x[8];
  for (int i = 0; i < 8; i++) x[i] = input(n, i);
  value *sums = exact_product(n, x[0], x[2], x[3], x[5]);
  if (!goes_on(n)) return;
  value *scale = divide(n, mul(n, of_rows(n, real(n, x[1])), real(n, x[4])), of_rows(n, real(n, x[6])));
  value *y = mul(n, marea_onnx_cast(n, sums, MAREA_F64), marea_onnx_cast(n, scale, MAREA_F64));
  marea_onnx_give_as(n, 0, to_bytes(n, y, of_rows(n, x[7]), n->in[7]->type), n->in[7]->type);
}

/* ---- convolutions ---- */

/* (x - its zero) (weight - its zero), exact as products are; zeros of the weight: one, or one of each channel (M) */
static value *exact_convolution (onnx_node *n, value *x, value *x_zero, value *weight, value *zero) {
  if (!goes_on(n) || rank_of(weight) < 3) return marea_onnx_convolve(n, x, weight, NULL, true);
  const int64_t terms = count_of(weight) / MAREA_MAX(size_of(weight, 0), 1);
  const int dtype = terms <= 256 ? MAREA_F32 : MAREA_F64;
  x = moved(n, x, along(n, x_zero, x, 0, 0), dtype);
  return marea_onnx_convolve(n, x, moved(n, weight, along(n, zero, weight, 0, 0), dtype), NULL, true);
}

static void give_image_as (onnx_node *n, value *y, int type) {
  marea_onnx_give_laid_out(n, 0, y, type, true);
}

HANDLER(ConvInteger) {
  give_image_as(n, exact_convolution(n, image(n, 0), optional(n, 2), input(n, 1), optional(n, 3)),
                ONNX_INT32);
}

/* Channels of images lie last, so that what is one number of each broadcasts. */
HANDLER(QLinearConv) {
  value *x[8] = {image(n, 0)}, *bias = optional(n, 8);
  for (int i = 1; i < 8; i++) x[i] = input(n, i);
  value *sums = marea_onnx_cast(n, exact_convolution(n, x[0], x[2], x[3], x[5]), MAREA_F64);
  if (bias) sums = add(n, sums, marea_onnx_cast(n, bias, MAREA_F64));
  value *scale = divide(n, mul(n, real(n, x[1]), real(n, x[4])), real(n, x[6]));
  if (!goes_on(n)) return;
  value *y = mul(n, sums, marea_onnx_cast(n, scale, MAREA_F64));
  give_image_as(n, to_bytes(n, y, x[7], n->in[7]->type), n->in[7]->type);
}
