/* SPDX-License-Identifier: MIT
** random.c: ONNX's draws. They come from the context's random state; a node's own seed is not looked at.
*/
#include "node.h"

/* Numbers of `type`, drawn in f32 or f64. */
static void draw (onnx_node *n, const char *op, int type, int rank, const int64_t *shape, marea_named a,
                  marea_named b) {
  const int dtype = marea_onnx_dtype(type);
  if (goes_on(n) && (dtype < 0 || !marea_dtype_is_float((marea_dtype)dtype)))
    marea_onnx_reject(n, "draws of type %s are not supported", marea_onnx_type_name(type));
  const marea_named word = marea_word("dtype", marea_dtype_name(marea_dtype_computed((marea_dtype)dtype)));
  if (goes_on(n))
    marea_onnx_give_as(n, 0, CALL(n, op, NOTHING, NAMED(marea_ints("shape", rank, shape), a, b, word)), type);
}

static void draw_shape (onnx_node *n, const char *op, marea_named a, marea_named b) {
  onnx_ints shape;
  const int type = (int)int_of(n, "dtype", ONNX_FLOAT);
  if (!marea_onnx_ints(n, "shape", &shape)) marea_onnx_reject(n, "attribute 'shape' is missing");
  if (goes_on(n) && shape.n > MAREA_MAX_RANK)
    marea_onnx_reject(n, "rank %d; at most %d are supported", shape.n, MAREA_MAX_RANK);
  draw(n, op, type, shape.n, shape.v, a, b);
}

static void draw_like (onnx_node *n, const char *op, marea_named a, marea_named b) {
  value *x = input(n, 0);
  if (goes_on(n)) draw(n, op, (int)int_of(n, "dtype", n->in[0]->type), rank_of(x), x->t->shape, a, b);
}

static marea_named mean (onnx_node *n) { return marea_real("mean", float_of(n, "mean", 0)); }
static marea_named scale (onnx_node *n) { return marea_real("std", float_of(n, "scale", 1)); }
static marea_named low (onnx_node *n) { return marea_real("low", float_of(n, "low", 0)); }
static marea_named high (onnx_node *n) { return marea_real("high", float_of(n, "high", 1)); }

HANDLER(RandomNormal) { draw_shape(n, "normal", mean(n), scale(n)); }
HANDLER(RandomNormalLike) { draw_like(n, "normal", mean(n), scale(n)); }
HANDLER(RandomUniform) { draw_shape(n, "uniform", low(n), high(n)); }
HANDLER(RandomUniformLike) { draw_like(n, "uniform", low(n), high(n)); }

HANDLER(Bernoulli) {
  value *p = input(n, 0);
  if (goes_on(n)) marea_onnx_give_as(n, 0, op1(n, "bernoulli", p), (int)int_of(n, "dtype", n->in[0]->type));
}

/* sample_size classes of each row of logarithms of probabilities */
HANDLER(Multinomial) {
  value *x = input(n, 0);
  const int64_t samples = int_of(n, "sample_size", 1);
  if (goes_on(n) && (rank_of(x) != 2 || samples < 0))
    marea_onnx_reject(n, "expected (batch, classes) and a sample size of at least 0");
  if (!goes_on(n)) return;
  const int64_t rows = size_of(x, 0), classes = size_of(x, 1);
  value *each_row = marea_onnx_reshape(n, x, 3, (int64_t[]){rows, 1, classes});
  value *many = marea_onnx_expand(n, each_row, 3, (int64_t[]){rows, samples, classes});
  marea_onnx_give_as(n, 0, marea_onnx_positions(n, op1(n, "categorical", many)),
                     (int)int_of(n, "dtype", ONNX_INT32));
}
