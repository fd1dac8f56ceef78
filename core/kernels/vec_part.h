/* SPDX-License-Identifier: MIT
** vec_part.h: loads and stores of whole vectors or of their first n lanes, over any vec_*.h.
*/
#ifndef MAREA_VEC_PART_H
#define MAREA_VEC_PART_H

INLINE vec vec_get (const real *p, size_t n) { /* n <= VEC_LANES */
  return n == VEC_LANES ? vec_load(p) : vec_load_part(p, n);
}

INLINE void vec_put (real *p, vec a, size_t n) {
  if (n == VEC_LANES) vec_store(p, a);
  else vec_store_part(p, a, n);
}

#endif
