/* SPDX-License-Identifier: MIT
** memory.h: the life of the pool, for context.c, and what plan.c tells it; everybody else uses marea_alloc and
** marea_free of core.h.
*/
#ifndef MAREA_MEMORY_H
#define MAREA_MEMORY_H

#include "core.h"

void *marea_default_alloc (void *ud, void *p, size_t old, size_t size); /* malloc and free */
bool marea_pool_new (marea_context *ctx); /* sets ctx->pool by ctx->config */
void marea_pool_free (marea_context *ctx);
void marea_memory_plan (marea_context *ctx, size_t planned);  /* bytes that count as in use besides the real ones */
void marea_memory_end_plan (marea_context *ctx, size_t peak); /* none any more; the peak is this again */

#endif
