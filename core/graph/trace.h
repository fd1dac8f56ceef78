/* SPDX-License-Identifier: MIT
** trace.h: the calls of operators that a run makes, as a program.
*/
#ifndef MAREA_TRACE_H
#define MAREA_TRACE_H

#include "emit.h"

typedef struct marea_traced {
  marea_tensor *t;
  int slot;         /* of the program */
  uint32_t version; /* of its storage, when the trace got to know it */
} marea_traced;

struct marea_trace {
  marea_context *ctx;
  marea_program *program;
  marea_traced *known; /* while it runs */
  int n, room;
  int *place; /* a hash table of them; -1: free */
  int places;
};

#endif
