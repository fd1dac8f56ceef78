/* SPDX-License-Identifier: MIT
** sandbox_path.c: what a sandbox may touch: files below its folders, and nothing whose limits are its host's.
*/
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "sandbox.h"

/* real := the path without links, of a file that exists or of one that may be made in its folder. */
static bool resolve (const char *path, char *real) {
  char folder[PATH_MAX];
  struct stat info;
  if (realpath(path, real)) return stat(real, &info) == 0 && (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode));
  if (lstat(path, &info) == 0 || strlen(path) >= sizeof folder) return false; /* a link to nowhere */
  strcpy(folder, path);
  char *slash = strrchr(folder, '/');
  const char *name = slash ? slash + 1 : path;
  if (slash) *(slash == folder ? slash + 1 : slash) = '\0';
  if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return false;
  if (slash == folder) name = path + 1;
  if (!realpath(slash ? folder : ".", real)) return false;
  const size_t n = strlen(real);
  return (size_t)snprintf(real + n, PATH_MAX - n, "/%s", name) < PATH_MAX - n;
}

static bool is_below (const char *real, const char *root) {
  const size_t n = strlen(root);
  return strncmp(real, root, n) == 0 && (real[n] == '/' || real[n] == '\0' || root[n - 1] == '/');
}

bool bind_sandbox_allows (const marea_sandbox *sandbox, const char *path, bool writing) {
  char real[PATH_MAX];
  if (!resolve(path, real)) return false;
  for (int kind = writing; kind < 2; kind++)
    for (int i = 0; i < SANDBOX_ROOTS && sandbox->root[kind][i]; i++)
      if (is_below(real, sandbox->root[kind][i])) return true;
  return false;
}

void bind_sandbox_path (lua_State *L, bind_state *S, const char *function, const char *path, bool writing) {
  if (S->sandbox && !bind_sandbox_allows(S->sandbox, path, writing))
    bind_raise(L, S, "%s: '%s' is not in a folder that the sandbox may %s", function, bind_shorten(L, path),
               writing ? "write" : "read");
}

void bind_sandbox_deny (lua_State *L, bind_state *S, const char *function) {
  if (S->sandbox) bind_raise(L, S, "%s: not in a sandbox, whose limits are its host's", function);
}
