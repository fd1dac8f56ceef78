/* SPDX-License-Identifier: MIT
** budget.c: limits on what a context's operators use: floating-point operations, which are charged before a call runs,
** and time, which is checked before a call and wherever interrupts are.
*/
#include "core.h"

static double most_elements (int n, marea_tensor *const *t, double most) {
  for (int i = 0; i < n; i++)
    if (t[i]) most = MAREA_MAX(most, (double)marea_tensor_size(t[i]));
  return most;
}

/* At least one for each element of the largest tensor, so that moving data is not free. */
static double cost_of (const marea_call *c) {
  const double most = most_elements(c->n_out, c->out, most_elements(c->n_in, c->in, 1));
  return c->op->flop ? MAREA_MAX(most, c->op->flop(c)) : most;
}

marea_status marea_check_time (marea_call *c) {
  if (!marea_is_overdue(c->ctx)) return MAREA_OK;
  return marea_reject(c, MAREA_EBUDGET, "the time limit of %g s is reached", c->ctx->seconds);
}

marea_status marea_foresee (marea_call *c, double seconds) {
  const marea_context *ctx = c->ctx;
  if (!ctx->deadline || ctx->shielded) return MAREA_OK;
  const double left = (double)(ctx->deadline - marea_clock_ns()) * 1e-9;
  if (seconds <= left) return MAREA_OK;
  return marea_reject(
      c, MAREA_EBUDGET,
      "it would take some %.2g s and cannot be stopped, and of the time limit of %g s %.2g s are left",
      seconds, ctx->seconds, MAREA_MAX(left, 0));
}

marea_status marea_charge (marea_call *c) {
  marea_context *ctx = c->ctx;
  MAREA_TRY(marea_check_time(c));
  if (ctx->flop_limit == 0 || ctx->plan) return MAREA_OK;
  const double cost = cost_of(c);
  if (cost <= ctx->flop_left) {
    ctx->flop_left -= cost;
    return MAREA_OK;
  }
  const double left = ctx->flop_left;
  ctx->flop_left = 0;
  return marea_reject(c, MAREA_EBUDGET,
                      "the limit of %.6g floating-point operations is reached: %.6g wanted, %.6g left",
                      ctx->flop_limit, cost, left);
}

static void note_limits (marea_context *ctx) {
  ctx->limited = ctx->flop_limit > 0 || ctx->deadline;
  ctx->told_spent = false;
}

void marea_limit_flop (marea_context *ctx, double flop) {
  MAREA_ENTER;
  if (!ctx) return;
  ctx->flop_limit = ctx->flop_left = flop > 0 ? flop : 0;
  note_limits(ctx);
}

/* A time beyond the range of the clock's 64 bits is no limit. */
void marea_limit_time (marea_context *ctx, double seconds) {
  MAREA_ENTER;
  if (!ctx) return;
  const bool limited = seconds > 0 && seconds < 1e9;
  ctx->seconds = limited ? seconds : 0;
  ctx->deadline = limited ? marea_clock_ns() + (int64_t)(seconds * 1e9) : 0;
  note_limits(ctx);
}
