/* SPDX-License-Identifier: MIT
** choose.h: the algorithm that a pass takes.
*/
#ifndef MAREA_CONV_CHOOSE_H
#define MAREA_CONV_CHOOSE_H

#include "batch.h"
#include "bf16_passes.h"
#include "direct_images.h"
#include "direct_weights.h"
#include "winograd_passes.h"

/* A pass by whichever algorithm was chosen. */
typedef union marea_any_image_pass {
  marea_image_pass base;
  marea_direct_images direct;
  marea_batch_images batch;
  marea_winograd_images winograd;
  marea_bf16_images bf16;
} marea_any_image_pass;

typedef union marea_any_weight_pass {
  marea_weight_pass base;
  marea_direct_weights direct;
  marea_batch_weights batch;
  marea_winograd_weights winograd;
  marea_bf16_weights bf16;
} marea_any_weight_pass;

/* What an image pass gets: src (N, H, W, C), the operator's weight, bias (NULL: none), and where its results go. */
typedef struct marea_image_job {
  bool input_gradient;
  const marea_conv_source *src;
  const marea_tensor *weight, *bias;
  marea_activation act;
  double slope;
  marea_tensor *out;
} marea_image_job;

/* Chooses an algorithm for out := act(conv2d(src, weight) + bias), or conv2d_grad_input(src, weight), and sets it up. */
marea_status marea_conv_open_images (marea_call *c, const marea_conv *g, const marea_image_job *job,
                                     marea_any_image_pass *p);
/* The same for dw := conv2d_grad_weight(x, dy). */
marea_status marea_conv_open_weights (marea_call *c, const marea_conv *g, const marea_conv_source *x,
                                      const marea_conv_source *dy, marea_tensor *dw,
                                      marea_any_weight_pass *p);
/* Are the images small, and many? Then passes go over the batch, unless Winograd's algorithms pay. */
bool marea_conv_is_small_batch (const marea_conv *g);

#endif
