/* SPDX-License-Identifier: MIT
** locale.c: for LD_PRELOAD: programs with Marea inside run in the locale of the environment, as a host with a window does
** that calls setlocale(LC_ALL, ""). Other programs, which gnuplot is one of, are left as they are.
*/
#define _GNU_SOURCE
#include <errno.h>
#include <locale.h>
#include <string.h>

__attribute__((constructor)) static void take_locale (void) {
  const char *name = program_invocation_short_name;
  if (strncmp(name, "lua5.4", 6) == 0 || strcmp(name, "marea") == 0 ||
      strstr(program_invocation_name, "build"))
    setlocale(LC_ALL, "");
}
