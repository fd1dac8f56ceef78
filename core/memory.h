/* SPDX-License-Identifier: MIT
** memory.h: how context.c makes and frees the pool, and how plan.c counts bytes in it. All other files use marea_alloc
** and marea_free of core.h.
*/
#ifndef MAREA_MEMORY_H
#define MAREA_MEMORY_H

#include "core.h"

void *marea_default_alloc (void *ud, void *p, size_t old, size_t size); /* malloc and free */
bool marea_pool_new (marea_context *ctx); /* sets ctx->pool by ctx->config */
void marea_pool_free (marea_context *ctx);
void marea_memory_plan (marea_context *ctx, size_t planned);  /* counts so many bytes of planned tensors as in use */
void marea_memory_end_plan (marea_context *ctx, size_t peak); /* counts none any more, and restores the peak */

#endif
