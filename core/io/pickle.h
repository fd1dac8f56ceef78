/* SPDX-License-Identifier: MIT
** pickle.h: a reader of Python's pickles, protocol 2, for those that torch.save writes. Included only inside core/io/.
*/
#ifndef MAREA_PICKLE_H
#define MAREA_PICKLE_H

#include "tree.h"

/* A tensor's storage: code of its elements and their number, and the name under which the archive has them. */
typedef struct marea_pickle_storage {
  marea_code code;
  const char *key;
  size_t key_length;
  int64_t n;
} marea_pickle_storage;

/* What makes the tensors: `ud` and a storage with the view of it. Overflow and bounds are its business. */
typedef marea_status marea_build (void *ud, const marea_pickle_storage *s, const marea_view *v,
                                  marea_tensor **out);

/* Reads t->bytes into t, whose nodes the caller frees in any case by marea_tree_free. */
marea_status marea_pickle_read (marea_tree *t, const char *label, marea_build *build, void *ud);

#endif
