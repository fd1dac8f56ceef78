/* SPDX-License-Identifier: MIT
** report.h: what the tests in C say of themselves: a line for each, and how many failed.
*/
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>
#include <stdio.h>

static int failed;

static void report (const char *name, bool ok) {
  printf("%s %s\n", ok ? "ok  " : "FAIL", name);
  failed += !ok;
}

/* In a test that returns whether all was well. */
#define NEED(expr)                                        \
  do {                                                    \
    if (!(expr)) {                                        \
      printf("  line %d: not so: %s\n", __LINE__, #expr); \
      return false;                                       \
    }                                                     \
  } while (0)

#endif
