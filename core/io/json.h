/* SPDX-License-Identifier: MIT
** json.h: JSON by jansson, whose memory and time are held against the context's limits. Included only inside core/io/.
*/
#ifndef MAREA_IO_JSON_H
#define MAREA_IO_JSON_H

#include <jansson.h>

#include "io.h"

typedef struct marea_json_source {
  marea_context *ctx;
  const char *label; /* in front of every message */
  const uint8_t *bytes;
  size_t n;
} marea_json_source;

/* What a caller allows: called at every { [ and , with the depth behind it. */
typedef marea_status marea_json_rule (void *ud, uint8_t c, int depth);

/* Counts a text's values before jansson, which recurses, sees them. *room: the most that it can take, from its
   structures (2.14, 64 bits) and malloc's own part. jansson's allocator is the whole process's, so the caller holds a
   block of that size of the context until the tree is dropped. */
marea_status marea_json_measure (const marea_json_source *s, marea_json_rule *rule, void *ud, size_t *room);

/* The tree of a text that was measured. A name that occurs twice in one object is an error; `flags` are jansson's. */
marea_status marea_json_parse (const marea_json_source *s, size_t flags, json_t **root);

#endif
