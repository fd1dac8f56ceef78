/* The contents page of the framework: one line an operator, grouped by the file that holds it. Everything else
** about an operator is in its descriptor; functions, errors, help, reference and tests are derived from it.
** Included with OP(name) defined; no include guard on purpose. */

/* create.c */
OP(full) OP(arange) OP(linspace) OP(eye)
/* unary.c */
OP(neg) OP(abs) OP(sign) OP(square) OP(sqrt) OP(rsqrt) OP(reciprocal) OP(exp) OP(log) OP(log1p) OP(expm1)
OP(sin) OP(cos) OP(atan) OP(floor) OP(ceil) OP(round) OP(erf) OP(norm_icdf) OP(clamp) OP(cast)
OP(isnan) OP(isinf) OP(isfinite)
/* gamma.c */
OP(lgamma) OP(polygamma)
/* activation.c */
OP(relu) OP(relu6) OP(leaky_relu) OP(elu) OP(sigmoid) OP(tanh) OP(softplus) OP(gelu) OP(gelu_grad) OP(silu) OP(hard_swish)
OP(activation_grad)
/* binary.c */
OP(add) OP(sub) OP(mul) OP(div) OP(pow) OP(maximum) OP(minimum) OP(remainder) OP(floor_divide)
OP(eq) OP(ne) OP(lt) OP(le) OP(gt) OP(ge) OP(where) OP(masked_fill)
/* reduce.c */
OP(sum) OP(sum_to) OP(mean) OP(var) OP(std) OP(max) OP(min) OP(argmax) OP(argmin) OP(logsumexp) OP(cumsum)
/* prod.c, truth.c */
OP(prod) OP(norm) OP(any) OP(all)
/* shape.c, shape_copy.c */
OP(reshape) OP(permute) OP(transpose) OP(expand) OP(squeeze) OP(unsqueeze) OP(flatten) OP(narrow) OP(select)
OP(slice) OP(slice_grad) OP(concat) OP(stack) OP(split) OP(chunk) OP(pad) OP(flip) OP(tile) OP(contiguous) OP(clone)
OP(tril) OP(triu)
/* index.c, embedding.c */
OP(index_select) OP(index_add) OP(index_put) OP(index_reduce) OP(gather) OP(scatter_add) OP(one_hot) OP(embedding) OP(embedding_grad)
/* mask.c */
OP(flatnonzero) OP(masked_select)
/* sort.c */
OP(sort) OP(argsort) OP(topk) OP(unique)
/* linear.c */
OP(matmul) OP(linear)
/* int8.c */
OP(quantize_int8) OP(linear_int8) OP(conv2d_int8)
/* recurrent/ */
OP(rnn) OP(rnn_grad) OP(gru) OP(gru_grad) OP(lstm) OP(lstm_grad) OP(lstm_int8)
/* attention/ */
OP(scaled_dot_product_attention) OP(scaled_dot_product_attention_grad)
OP(additive_attention) OP(additive_attention_grad)
/* linalg.c, orthogonalize.c */
OP(eigh) OP(orthogonalize)
/* conv/ */
OP(conv2d) OP(conv_transpose2d) OP(conv1d) OP(conv_transpose1d) OP(conv2d_grad_input) OP(conv2d_grad_weight) OP(conv2d_backward)
/* pool.c */
OP(max_pool2d) OP(max_pool2d_grad) OP(max_pool2d_pick) OP(avg_pool2d) OP(avg_pool2d_grad) OP(max_pool1d) OP(avg_pool1d)
OP(upsample_nearest2d) OP(upsample_nearest2d_grad)
/* resample.c */
OP(gaussian_blur) OP(upsample_bilinear2d) OP(upsample_bilinear2d_grad)
/* affine.c */
OP(affine2d) OP(affine2d_grad)
/* softmax.c */
OP(softmax) OP(log_softmax)
/* norm/ */
OP(batch_norm) OP(batch_norm_backward) OP(batch_norm_eval)
OP(group_norm) OP(group_norm_backward) OP(layer_norm) OP(layer_norm_backward)
OP(rms_norm) OP(rms_norm_backward)
/* loss.c */
OP(bce) OP(bce_grad) OP(bce_with_logits) OP(bce_with_logits_grad) OP(mse) OP(l1) OP(huber) OP(huber_grad) OP(kl_normal)
/* loss_class.c */
OP(cross_entropy) OP(cross_entropy_grad)
/* loss_linear.c */
OP(linear_cross_entropy) OP(linear_cross_entropy_grad)
/* rotary.c */
OP(rotary)
/* loss_ctc.c */
OP(ctc_loss) OP(ctc_loss_grad)
/* random.c */
OP(uniform) OP(normal) OP(bernoulli) OP(categorical) OP(randint) OP(permutation) OP(sample_normal)
OP(normal_deviation) OP(dropout) OP(dropout_apply)
/* random_noise.c */
OP(gumbel) OP(logistic) OP(laplace)
/* poisson.c */
OP(poisson)
/* optim.c */
OP(sgd_step) OP(rmsprop_step) OP(adam_step) OP(adagrad_step)
