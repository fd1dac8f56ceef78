/* SPDX-License-Identifier: MIT
** backward.h: all gradients of a convolution at once.
*/
#ifndef MAREA_CONV_BACKWARD_H
#define MAREA_CONV_BACKWARD_H

#include "window.h"

/* With e = dy act'(.) told from y; dx, dw or db NULL: not wanted. Of conv2d, dx = conv2d_grad_input(e, weight),
   dw = conv2d_grad_weight(x, e); `transposed`: dx = conv2d(e, weight), dw = conv2d_grad_weight(e, x). db: the
   sum of e over all but the last dimension. */
marea_status marea_conv_backward (marea_call *c, const marea_conv *g, bool transposed, marea_conv_source *e,
                                  const marea_tensor *x, const marea_tensor *weight, marea_tensor *dx,
                                  marea_tensor *dw, marea_tensor *db);

#endif
