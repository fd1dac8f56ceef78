/* SPDX-License-Identifier: MIT
** c_locale.h: the one place that changes the locale, for the core and for the bindings, which are libraries of their
** own. setlocale would change it for all threads of the host; uselocale changes it for the calling thread alone.
*/
#ifndef MAREA_C_LOCALE_H
#define MAREA_C_LOCALE_H

#include <locale.h>

/* Gives this thread the locale "C", in which numbers have a point. Returns what uselocale() is to put back. The C library
   keeps "C" as an object that is always there: nothing is allocated, and nothing has to be freed. */
static inline locale_t marea_use_c_locale (void) {
  return uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0));
}

#endif
