/* SPDX-License-Identifier: MIT
** error.c: the only writer of error text and of log lines. A status tells programs the kind of a failure; the context's
** error text tells people in one sentence: the function, what it expected, what it got, and the rule with its numbers.
*/
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core.h"

/* Formats the sentence. Characters that control a terminal become '?', and "-nan" becomes "nan": the sign of a NaN
   has no meaning. */
__attribute__((format(printf, 2, 0))) static void write_text (char text[MAREA_ERROR_SIZE], const char *format,
                                                              va_list args) {
  marea_vformat(text, MAREA_ERROR_SIZE, format, args);
  for (char *at = text; (at = strstr(at, "-nan"));) memmove(at, at + 1, strlen(at));
  marea_printable(text);
}

void marea_log (const marea_config *config, marea_log_level level, const char *format, ...) {
  if (!config->log) return;
  char text[MAREA_ERROR_SIZE];
  va_list args;
  va_start(args, format);
  write_text(text, format, args);
  va_end(args);
  config->log(config->log_ud, level, text);
}

/* Writes to the log that an operator was stopped, because the host that set the limit or requested the interrupt may
   not be the code that gets the status. A spent budget is logged once. */
static void log_stop (marea_context *ctx, marea_status status) {
  if (status != MAREA_EINTR && status != MAREA_EBUDGET) return;
  if (status == MAREA_EBUDGET && ctx->told_spent) return;
  ctx->told_spent |= status == MAREA_EBUDGET;
  marea_log(&ctx->config, MAREA_LOG_INFO, "stopped: %s", ctx->error);
}

marea_status marea_fail (marea_context *ctx, marea_status status, const char *format, ...) {
  if (!ctx) return status;
  va_list args;
  va_start(args, format);
  write_text(ctx->error, format, args);
  va_end(args);
  log_stop(ctx, status);
  return status;
}

marea_text marea_bytes_text (size_t bytes) {
  static const char *const unit[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
  marea_text text;
  double size = (double)bytes / 1e3;
  size_t i = 0;
  for (; size >= 999.95 && i + 1 < sizeof unit / sizeof unit[0]; i++) size /= 1e3;
  if (bytes < 1000) snprintf(text.s, sizeof text.s, "%zu bytes", bytes);
  else marea_format(text.s, sizeof text.s, "%.1f %s", size, unit[i]);
  return text;
}

marea_status marea_out_of_memory (marea_context *ctx, const char *who, size_t bytes, const char *what) {
  const marea_memory_info m = marea_memory(ctx);
  return marea_fail(ctx, MAREA_ENOMEM,
                    "%s: out of memory: %s wanted for %s; %s in use, %s kept for reuse, %s%s", who,
                    marea_bytes_text(bytes).s, what, marea_bytes_text(m.live).s, marea_bytes_text(m.pooled).s,
                    m.limit ? "limit " : "no limit set", m.limit ? marea_bytes_text(m.limit).s : "");
}

const char *marea_error (const marea_context *ctx) {
  return ctx ? ctx->error : "there is no context: see the status";
}

const char *marea_status_text (marea_status status) {
  static const char *const text[] = {
      [MAREA_OK] = "no error",
      [MAREA_ENOMEM] = "out of memory, or the context's limit is reached",
      [MAREA_ESHAPE] = "shapes or dtypes do not fit each other",
      [MAREA_EARG] = "an argument is out of its range",
      [MAREA_ESTATE] = "the call does not fit the object's state",
      [MAREA_EIO] = "the system refused a file operation",
      [MAREA_EFORMAT] = "a file's bytes are not what its format asks for",
      [MAREA_EINTR] = "interrupted",
      [MAREA_EBUDGET] = "a budget of the context is spent",
      [MAREA_EVERSION] = "the header asks for more than this version of the library has",
  };
  return (unsigned)status < MAREA_COUNT(text) ? text[status] : "unknown status";
}

marea_text marea_shape_text (int rank, const int64_t *shape) {
  marea_text text;
  size_t used = 0, room = sizeof text.s;
  used += (size_t)snprintf(text.s, room, "(");
  for (int d = 0; d < rank && used < room; d++)
    used += (size_t)snprintf(text.s + used, room - used, d ? ", %lld" : "%lld", (long long)shape[d]);
  if (used < room) snprintf(text.s + used, room - used, ")");
  return text;
}

marea_text marea_place_text (const marea_tensor *t, int64_t i) {
  int64_t at[MAREA_MAX_RANK];
  for (int d = t->rank - 1; d >= 0; i /= t->shape[d--]) at[d] = i % t->shape[d] + t->ctx->config.index_base;
  return marea_shape_text(t->rank, at);
}

marea_text marea_tensor_text (const marea_tensor *t) {
  marea_text shape = marea_shape_text(t->rank, t->shape), text;
  snprintf(text.s, sizeof text.s, "%s %.150s", marea_dtype_name((marea_dtype)t->dtype), shape.s);
  return text;
}
