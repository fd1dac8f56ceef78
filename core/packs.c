/* SPDX-License-Identifier: MIT
** packs.c: packed forms of weights that are kept. A program (graph/) runs many times with the same weights; what an
** algorithm makes of them first, panels of channels or Winograd's transforms, hangs on their storage and is used again
** until an element changes. All other tensors are packed for each call, in its workspace.
*/
#include <string.h>

#include "core.h"

struct marea_pack {
  marea_pack *next;
  marea_pack_key key;
  const void *weight; /* where it begins: tensors can share a storage */
  uint32_t version;   /* of the storage, when it was filled */
  bool ready;
  void *memory;
};

void marea_drop_packs (marea_context *ctx, marea_pack *p) {
  while (p) {
    marea_pack *next = p->next;
    marea_free(ctx, p->memory);
    marea_free(ctx, p);
    p = next;
  }
}

/* The form with this key; old ones of other versions are dropped. */
static marea_pack *find (marea_context *ctx, marea_storage *s, const void *weight,
                         const marea_pack_key *key) {
  if (s->packs && s->packs->version != s->version) {
    marea_drop_packs(ctx, s->packs);
    s->packs = NULL;
  }
  for (marea_pack *p = s->packs; p; p = p->next)
    if (p->weight == weight && memcmp(&p->key, key, sizeof *key) == 0) return p;
  return NULL;
}

static marea_pack *add (marea_context *ctx, marea_storage *s, const void *weight, const marea_pack_key *key,
                        size_t bytes) {
  marea_pack *p = marea_alloc(ctx, sizeof *p);
  if (!p) return NULL;
  *p = (marea_pack){.next = s->packs,
                    .key = *key,
                    .weight = weight,
                    .version = s->version,
                    .memory = marea_alloc(ctx, bytes)};
  if (p->memory) return s->packs = p;
  marea_free(ctx, p);
  return NULL;
}

static bool keeps (const marea_call *c, int input, const void *weight) {
  const marea_tensor *t = input < c->n_in ? c->in[input] : NULL;
  return t && marea_keeps_packs(c, input) && marea_at(t) == weight && !c->pack;
}

marea_status marea_pack_for (marea_call *c, int input, const void *weight, const marea_pack_key *key,
                             size_t bytes, void **memory, bool *ready) {
  *ready = false;
  if (!keeps(c, input, weight)) {
    MAREA_WORKSPACE_OR_RETURN(c, *memory, bytes);
    return MAREA_OK;
  }
  marea_storage *s = c->in[input]->storage;
  marea_pack *p = find(c->ctx, s, weight, key);
  if (!p) p = add(c->ctx, s, weight, key, bytes);
  if (!p) { /* as for any other tensor, then */
    MAREA_WORKSPACE_OR_RETURN(c, *memory, bytes);
    return MAREA_OK;
  }
  *memory = p->memory;
  *ready = p->ready;
  if (!p->ready) c->pack = p;
  return MAREA_OK;
}

void marea_pack_done (marea_call *c) {
  if (c->pack) c->pack->ready = true;
  c->pack = NULL;
}
