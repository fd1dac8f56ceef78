/* SPDX-License-Identifier: MIT
** reduction.h: the attribute `reduction` of losses: its choices, and an enumeration in the same order.
*/
#ifndef MAREA_REDUCTION_H
#define MAREA_REDUCTION_H

#include "core.h"

/* ORDER REDUCTION: as in the attribute's choices */
typedef enum reduction { MEAN, SUM, NONE, BATCHMEAN } reduction;

#define REDUCTION_ATTR(doc) \
  { "reduction", MAREA_ENUM, 0, "mean|sum|none|batchmean", doc }

#endif
