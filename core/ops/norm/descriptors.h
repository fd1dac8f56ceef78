/* SPDX-License-Identifier: MIT
** descriptors.h: what the descriptors of the normalizations share. Their gradients are operators of their own where no
** graph of them is wanted, and one formula, over x seen as (n, rows, groups, width), where it is.
*/
#ifndef MAREA_NORM_DESCRIPTORS_H
#define MAREA_NORM_DESCRIPTORS_H

#include "norm.h"
#include "ops/formula.h"

#define MAREA_NORM_EPS_ATTR(initial) \
  { "eps", MAREA_REAL, initial, NULL, "added to the variance" }
#define MAREA_NORM_ACTIVATION_ATTRS                                                 \
  {"activation", MAREA_ENUM, 0, MAREA_ACTIVATION_NAMES, "applied to the result"}, { \
    "slope", MAREA_REAL, MAREA_NONE, NULL, MAREA_SLOPE_DOC                          \
  }
#define MAREA_NORM_WANTED_ATTRS                                     \
  {"dx", MAREA_BOOL, 1, NULL, "give x's gradient"},                 \
      {"dweight", MAREA_BOOL, 1, NULL, "give weight's gradient"}, { \
    "dbias", MAREA_BOOL, 1, NULL, "give bias' gradient"             \
  }
#define MAREA_NORM_SAMPLE_SHAPE(rank) "local s = g.shape(" #rank ", 4, 1) local c = s[#s] "
#define MAREA_NORM_SAMPLE_ACT "activation = g.pick{'none', 'none', 'sigmoid', 'tanh', 'softplus'}"
#define MAREA_NORM_SAMPLE_EPS "eps = g.pick{0.01, 0.5}"
#define MAREA_NORM_SAMPLE_WANTED "dx = g.bool(), dweight = g.bool(), dbias = true"
#define MAREA_NORM_PARAMETER_INPUTS \
  {"weight", "(C)", .optional = true}, { "bias", "(C)", .optional = true }

/* ---- checks of shape rules ---- */

marea_status marea_norm_check_eps (marea_call *c, int attr);
/* An input with one number for each channel of x, if it is there, of any float dtype that is computed in x's. */
marea_status marea_norm_check_channels (marea_call *c, int input, const marea_tensor *x);
/* x (..., C) of a batch, in[input] */
marea_status marea_norm_check_batch (marea_call *c, int input);
marea_status marea_norm_reject_empty (marea_call *c, const marea_tensor *x);

/* ---- inputs and outputs ---- */

marea_tensor *marea_norm_input_at (const marea_call *c, int i); /* NULL: it was left out */
/* Outputs dx, dweight, dbias of a backward operator: those that the attributes from `first` on ask for. Parameters'
   gradients have the dtype that is computed in. */
void marea_norm_layout_wanted (marea_call *c, int first, const marea_tensor *x, int rank,
                               const int64_t *shape);
void marea_norm_outputs_wanted (const marea_call *c, int first, marea_norm_back *b);
/* Scratch memory for the means and variances of all groups. */
marea_status marea_norm_open_statistics (marea_call *c, const marea_norm *g, double **mean,
                                         double **variance);

/* ---- vjps ---- */

static inline bool needs (const marea_vjp *v, int i) { return i < v->n_in && v->need[i]; }

marea_tensor *marea_norm_weight_of (const marea_vjp *v);
marea_tensor *marea_norm_bias_of (const marea_vjp *v);
/* din[] from the operator `back`, whose last three attributes, from `first` on, say what is wanted; they are
   constants for the tape, which is right where nothing records. x is input 0, weight and bias are 1 and 2. */
marea_status marea_norm_run_backward (marea_vjp *v, const marea_op *back, int n_in, marea_tensor **in,
                                      marea_attr *attrs, int first);
/* t in the dtype that is computed in; NULL stays NULL. */
marea_tensor *marea_norm_wide (formula *f, marea_tensor *t);
void marea_norm_give (formula *f, int i, marea_tensor *d); /* din[i] := d in the dtype of in[i] */
marea_tensor *marea_norm_shaped (formula *f, marea_tensor *t, const int64_t shape[4]); /* of a wide t */
marea_tensor *marea_norm_like (formula *f, marea_tensor *t, const marea_tensor *shape);
/* The gradients of the three inputs: with e = dy act'(y), xc = x - mean, rate = 1 / sqrt(variance + eps), t = e weight:
     dx = rate (t - mean(t) - xc rate^2 mean(t xc)), dweight = sum e xc rate, dbias = sum e.
   x, e: (n, rows, groups, width); mean, variance: (n, 1, groups, 1). Returns dx for what else is to be added to it. */
marea_tensor *marea_norm_gradients (formula *f, const marea_norm *g, marea_tensor *x, marea_tensor *e,
                                    marea_tensor *mean, marea_tensor *variance);
/* The whole vjp by that formula where the statistics are no results: they are computed again, with a history. */
marea_status marea_norm_statistics_formula (marea_vjp *v, const marea_norm *g);

#endif
