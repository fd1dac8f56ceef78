/* SPDX-License-Identifier: MIT
** vec_part.h: loads and stores of whole vectors or of their first n lanes, over any vec_*.h.
*/
#ifndef MAREA_VEC_PART_H
#define MAREA_VEC_PART_H

/* Is n known to be VEC_LANES, or to be asked for? Where parts cost what whole vectors do there is no need to ask. */
#ifdef VEC_PAIRS
#define VEC_WHOLE(n) (__builtin_constant_p(n) && (n) == VEC_LANES)
#else
#define VEC_WHOLE(n) ((n) == VEC_LANES)
#endif

INLINE vec vec_get (const real *p, size_t n) { /* n <= VEC_LANES */
  return VEC_WHOLE(n) ? vec_load(p) : vec_load_part(p, n);
}

INLINE void vec_put (real *p, vec a, size_t n) {
  if (VEC_WHOLE(n)) vec_store(p, a);
  else vec_store_part(p, a, n);
}

#endif
