/* SPDX-License-Identifier: MIT
** partial_sums.h: weight gradients that are summed over parts of the images, and reduced to one.
**
** Images are cut into parts by the shape alone. Each part has a sum of its own, and the sums are reduced in a binary tree:
** parts 0 and 1, 2 and 3, then their sums, and so on. So the number of threads does not change a bit. Of the two threads
** that complete a pair of sums the second one adds them. A thread's parts are neighbours, so most of what it adds is in
** its own caches.
*/
#ifndef MAREA_CONV_PARTIAL_SUMS_H
#define MAREA_CONV_PARTIAL_SUMS_H

#include "core.h"

/* The most parts: enough blocks for some threads, while a sum is cleared and added once for 1/16 of a batch. */
#define MAREA_CONV_PARTS 16

typedef struct marea_partial_sums {
  int64_t parts;       /* of the images */
  int64_t cuts;        /* ranges of rows of a sum, which are blocks of their own */
  int64_t rows, width; /* a sum has (rows, width) elements */
  size_t size;         /* bytes of an element */
  bool overwritten;    /* the first addition overwrites a sum, so that it need not be cleared */
  char *first;         /* (rows, width): the sum of part 0, and of all parts in the end; NULL: needs memory */
  char *rest;          /* (parts - 1, rows, width) */
  atomic_int *
      complete; /* [cuts][parts] of the pair of sums whose second one belongs to a part: how many are complete */
} marea_partial_sums;

/* The sum of a part while it is made. */
typedef struct marea_sum {
  char *at;
  bool overwrite; /* by the next addition: what lies there does not count */
} marea_sum;

/* Memory for the sums that have no place yet, and for `complete`. */
marea_status marea_partial_sums_open (marea_call *c, marea_partial_sums *s);
/* The sum of a part, the rows of a cut being zero or to be overwritten. */
marea_sum marea_partial_sums_begin (const marea_partial_sums *s, int64_t part, int64_t cut);
/* Notes that a cut of a part's sum is complete, and adds the pairs that it completes. */
void marea_partial_sums_complete (const marea_partial_sums *s, const marea_kernels *k, int64_t part,
                                  int64_t cut);

#endif
