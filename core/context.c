/* SPDX-License-Identifier: MIT
** context.c: a context holds all state of the library: settings, memory, threads, kernels, random numbers and
** the tape. It lives until it is closed and its last block is freed, so that a host may drop tensors in any
** order after closing it.
*/
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

int marea_usable_cores (void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  int n = CPU_COUNT(&set);
  return n < 1 ? 1 : MAREA_MIN(n, MAREA_MAX_THREADS);
}

static void destroy (marea_context *ctx) {
  marea_config config = ctx->config;
  marea_pool_free(ctx);
  config.alloc(config.alloc_ud, ctx, sizeof *ctx, 0);
}

#define LARGEST_CONFIG 4096 /* bytes; a larger `size` is none */

static bool is_zero (const char *p, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    if (p[i]) return false;
  return true;
}

/* *settings := the host's. Its header may be older, with fewer fields: those that it lacks are 0. Or newer: fields that
   this library does not know must be 0. Opening fails before there is a context to ask for a text: the log has it. */
static marea_status read_config (const marea_config *config, marea_config *settings) {
  *settings = (marea_config){0};
  const size_t size = config ? config->size : sizeof *settings, known = MAREA_MIN(size, sizeof *settings);
  if (size < sizeof config->size || size > LARGEST_CONFIG || size % _Alignof(marea_config) != 0)
    return MAREA_EVERSION;
  if (config) memcpy(settings, config, known);
  settings->size = sizeof *settings;
  if (!config || is_zero((const char *)config + known, size - known)) return MAREA_OK;
  marea_log(settings, MAREA_LOG_WARNING,
            "open: the config has %zu bytes, this version %s knows %zu of them, and the others are not 0",
            size, MAREA_VERSION, known);
  return MAREA_EVERSION;
}

static marea_status check_config (const marea_config *config) {
  if (config->threads < 0 || config->threads > MAREA_MAX_THREADS) {
    marea_log(config, MAREA_LOG_WARNING, "open: threads: expected 0..%d, got %d", MAREA_MAX_THREADS,
              config->threads);
    return MAREA_EARG;
  }
  if (config->index_base != 0 && config->index_base != 1) {
    marea_log(config, MAREA_LOG_WARNING, "open: index_base: expected 0 or 1, got %d", config->index_base);
    return MAREA_EARG;
  }
  return MAREA_OK;
}

static bool choose_kernels (marea_context *ctx) {
  const char *config = ctx->config.isa, *variable = getenv("MAREA_ISA");
  const char *isa = config ? config : variable;
  if (isa && !*isa) isa = NULL;
  if (!marea_select_kernels(isa, ctx->kernels, &ctx->isa)) {
    marea_log(&ctx->config, MAREA_LOG_WARNING, "open: %s: this machine has no '%s'",
              config ? "isa" : "MAREA_ISA", isa);
    return false;
  }
  ctx->bf16 = marea_select_bf16(ctx->isa);
  ctx->int8 = marea_select_int8(ctx->isa);
  if (!isa && marea_refused_isa())
    marea_log(
        &ctx->config, MAREA_LOG_WARNING,
        "open: the processor has '%s', whose registers the system refuses to this process; '%s' is used",
        marea_refused_isa(), ctx->isa);
  if (config && *config && variable && *variable && strcmp(variable, ctx->isa) != 0)
    marea_log(&ctx->config, MAREA_LOG_WARNING,
              "open: MAREA_ISA asks for '%s', the config for '%s', which counts", variable, config);
  return true;
}

static bool choose_convolutions (marea_context *ctx) {
  const char *way = getenv("MAREA_CONV");
  if (!way || !*way || !strcmp(way, "auto")) return true;
  ctx->direct = !strcmp(way, "direct");
  if (!ctx->direct)
    marea_log(&ctx->config, MAREA_LOG_WARNING, "open: MAREA_CONV: expected 'auto' or 'direct', got '%s'",
              way);
  return ctx->direct;
}

const char *marea_version (void) { return MAREA_VERSION; }

const char *marea_isa_at (int i) { return marea_runnable_isa(i); }

marea_status marea_open (const marea_config *config, marea_context **out) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "open", out);
  *out = NULL;
  marea_config settings;
  MAREA_TRY(read_config(config, &settings));
  MAREA_TRY(check_config(&settings));
  if (!settings.alloc) settings.alloc = marea_default_alloc;
  const int threads = settings.threads ? settings.threads : marea_usable_cores();
  const char *trouble = marea_blas_trouble(threads);
  if (trouble) {
    marea_log(&settings, MAREA_LOG_WARNING, "open: %s", trouble);
    return MAREA_ENOMEM;
  }
  marea_blas_reserve(threads);
  marea_context *ctx = settings.alloc(settings.alloc_ud, NULL, 0, sizeof *ctx);
  if (!ctx) return MAREA_ENOMEM;
  memset(ctx, 0, sizeof *ctx);
  ctx->config = settings;
  ctx->recording = true;
  ctx->autocast = -1;
  atomic_init(&ctx->interrupt, false);
  if (!marea_pool_new(ctx)) {
    destroy(ctx);
    return MAREA_ENOMEM;
  }
  if (!choose_kernels(ctx) || !choose_convolutions(ctx)) {
    destroy(ctx);
    return MAREA_EARG;
  }
  ctx->wide = marea_isa_is_512(ctx->isa) && marea_cpu_is_wide();
  ctx->streams = ctx->wide && marea_cpu_streams();
  marea_status status = marea_workers_new(ctx, threads, &ctx->workers);
  if (status != MAREA_OK) {
    destroy(ctx);
    return status;
  }
  ctx->threads = threads;
  marea_log(&settings, MAREA_LOG_INFO, "opened: Marea %s, isa %s, threads %d%s, %s", MAREA_VERSION, ctx->isa,
            threads, settings.parallel_for ? " of the host" : "", marea_blas());
  *out = ctx;
  return MAREA_OK;
}

void marea_context_settle (marea_context *ctx) {
  if (ctx->closed && marea_memory(ctx).blocks == 0) destroy(ctx);
}

/* What is still in use as the context is closed. */
static void log_leaks (const marea_context *ctx) {
  const marea_memory_info m = marea_memory(ctx);
  if (!ctx->config.log || m.blocks == 0) return;
  unsigned long long tensors = 0;
  for (void *p = NULL; (p = marea_next_tensor(ctx, p));) tensors++;
  marea_log(&ctx->config, MAREA_LOG_WARNING, "closed with %s still in use: tensors %llu, other blocks %llu",
            marea_bytes_text(m.live).s, tensors, (unsigned long long)m.blocks - tensors);
}

void marea_close (marea_context *ctx) {
  MAREA_ENTER;
  if (!ctx) return;
  marea_drop_casts(ctx);
  marea_trace_drop(ctx);
  log_leaks(ctx);
  ctx->config.log = NULL;
  marea_workers_free(ctx, ctx->workers);
  ctx->workers = NULL;
  ctx->threads = 1;
  ctx->closed = true;
  marea_context_settle(ctx);
}

marea_status marea_set_threads (marea_context *ctx, int threads) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "set_threads", ctx);
  if (threads < 1 || threads > MAREA_MAX_THREADS)
    return marea_fail(ctx, MAREA_EARG, "set_threads: expected 1..%d threads, got %d", MAREA_MAX_THREADS,
                      threads);
  if (threads == ctx->threads) return MAREA_OK;
  marea_workers *workers;
  MAREA_TRY(marea_workers_new(ctx, threads, &workers));
  marea_workers_free(ctx, ctx->workers);
  ctx->workers = workers;
  ctx->threads = threads;
  return MAREA_OK;
}

int marea_threads (const marea_context *ctx) { return ctx ? ctx->threads : 0; }

int marea_index_base (const marea_context *ctx) { return ctx ? ctx->config.index_base : 0; }

const char *marea_isa (const marea_context *ctx) { return ctx ? ctx->isa : ""; }

void marea_interrupt (marea_context *ctx) {
  if (ctx) atomic_store_explicit(&ctx->interrupt, true, memory_order_relaxed);
}

marea_status marea_poll (marea_context *ctx) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "poll", ctx);
  if (!marea_stopping(ctx)) return MAREA_OK;
  if (atomic_exchange(&ctx->interrupt, false)) return marea_fail(ctx, MAREA_EINTR, "interrupted!");
  return marea_fail(ctx, MAREA_EBUDGET, "the time limit of %g s is reached", ctx->seconds);
}

bool marea_shielded (const marea_context *ctx) { return ctx && ctx->shielded; }

bool marea_set_shielded (marea_context *ctx, bool on) {
  if (!ctx) return false;
  bool before = ctx->shielded;
  ctx->shielded = on;
  return before;
}
