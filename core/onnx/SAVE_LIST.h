/* The operators of Marea that are written as ONNX, one file a family. Included with OUT(name) defined; no include guard
** on purpose. */

/* save_math.c */
OUT(neg) OUT(abs) OUT(sign) OUT(square) OUT(sqrt) OUT(rsqrt) OUT(reciprocal) OUT(exp) OUT(log) OUT(log1p) OUT(expm1)
OUT(sin) OUT(cos) OUT(atan) OUT(floor) OUT(ceil) OUT(round) OUT(erf) OUT(clamp) OUT(cast) OUT(isnan) OUT(isinf)
OUT(isfinite) OUT(relu) OUT(relu6) OUT(leaky_relu) OUT(elu) OUT(sigmoid) OUT(tanh) OUT(softplus) OUT(gelu) OUT(silu) OUT(hard_swish)
OUT(add) OUT(sub) OUT(mul) OUT(div) OUT(pow) OUT(maximum) OUT(minimum) OUT(remainder) OUT(floor_divide)
OUT(eq) OUT(ne) OUT(lt) OUT(le) OUT(gt) OUT(ge) OUT(where) OUT(masked_fill)
/* save_linear.c */
OUT(matmul) OUT(linear)
/* save_conv.c */
OUT(conv2d) OUT(conv_transpose2d) OUT(conv1d) OUT(conv_transpose1d) OUT(max_pool2d) OUT(max_pool1d) OUT(avg_pool2d)
OUT(avg_pool1d) OUT(upsample_nearest2d) OUT(upsample_bilinear2d)
/* save_shape.c */
OUT(reshape) OUT(permute) OUT(transpose) OUT(expand) OUT(squeeze) OUT(unsqueeze) OUT(flatten) OUT(narrow) OUT(select)
OUT(slice) OUT(concat) OUT(stack) OUT(split) OUT(chunk) OUT(pad) OUT(flip) OUT(tile) OUT(contiguous) OUT(clone)
OUT(tril) OUT(triu)
/* save_reduce.c */
OUT(sum) OUT(sum_to) OUT(mean) OUT(var) OUT(std) OUT(max) OUT(min) OUT(argmax) OUT(argmin) OUT(logsumexp) OUT(cumsum)
OUT(prod) OUT(norm) OUT(any) OUT(all) OUT(topk) OUT(sort) OUT(argsort) OUT(softmax) OUT(log_softmax)
/* save_index.c */
OUT(index_select) OUT(embedding) OUT(gather) OUT(scatter_add) OUT(one_hot)
/* save_norm.c */
OUT(batch_norm_eval) OUT(layer_norm) OUT(rms_norm) OUT(group_norm)
/* save_recurrent.c */
OUT(rnn) OUT(gru) OUT(lstm)
/* save_attention.c */
OUT(scaled_dot_product_attention) OUT(additive_attention) OUT(rotary)
