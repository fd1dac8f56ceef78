/* SPDX-License-Identifier: MIT
** unload_test.c: the library is loaded, used and unloaded 1,000 times, and 10,000 contexts are opened and closed:
** the process does not grow. A program of its own, linked to nothing that the library brings with it.
*/
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "marea.h"

#define ROUNDS 1000
#define CONTEXTS 10000
#define WARM 10           /* share of the rounds, 1/WARM, after which growth is measured */
#define SLACK (512 << 10) /* bytes of growth that the C library and the loader may show */

#if defined(__SANITIZE_ADDRESS__) /* which keeps what was freed */
#define MEASURED false
#else
#define MEASURED true
#endif

static size_t resident (void) {
  size_t pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (!f || fscanf(f, "%*s %zu", &pages) != 1) exit(2);
  fclose(f);
  return pages * (size_t)sysconf(_SC_PAGESIZE);
}

typedef struct api {
  marea_status (*open)(const marea_config *config, marea_context **ctx);
  void (*close)(marea_context *ctx);
  marea_status (*zeros)(marea_context *ctx, marea_dtype dtype, int rank, const int64_t *shape,
                        marea_tensor **out);
  void (*release)(marea_tensor *t);
  marea_status (*call)(marea_context *ctx, const char *name, int n_in, marea_tensor *const *in, int n_named,
                       const marea_named *named, int n_out, marea_tensor **out);
} api;

static void *load (const char *path, api *a) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return printf("%s\n", dlerror()), NULL;
  *(void **)&a->open = dlsym(library, "marea_open");
  *(void **)&a->close = dlsym(library, "marea_close");
  *(void **)&a->zeros = dlsym(library, "marea_zeros");
  *(void **)&a->release = dlsym(library, "marea_release");
  *(void **)&a->call = dlsym(library, "marea_call_op");
  return library;
}

/* A context with threads, a product, and everything gone again. */
static bool use (const api *a, int64_t size, int threads) {
  marea_config config = {.size = sizeof config, .threads = threads};
  marea_context *ctx;
  marea_tensor *x, *y = NULL;
  if (a->open(&config, &ctx) != MAREA_OK) return false;
  bool ok = a->zeros(ctx, MAREA_F64, 2, (int64_t[]){size, size}, &x) == MAREA_OK;
  marea_tensor *in[] = {x, x};
  ok = ok && a->call(ctx, "matmul", 2, in, 0, NULL, 1, &y) == MAREA_OK;
  a->release(x);
  a->release(y);
  a->close(ctx);
  return ok;
}

static bool grew (const char *what, size_t before) {
  size_t now = resident();
  if (!MEASURED || now <= before + SLACK) return false;
  printf("  %s: grew from %zu to %zu KiB\n", what, before >> 10, now >> 10);
  return true;
}

int main (int argc, char **argv) {
  char path[4096];
  const int rounds = argc > 1 ? atoi(argv[1]) : ROUNDS / 20;
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);
  if (n <= 0) return 2;
  path[n] = '\0';
  strcpy(strrchr(path, '/'), "/../libmarea.so");
  bool ok = true;
  size_t before = 0;
  api a;
  for (int i = 0; i < rounds && ok; i++) {
    if (i == rounds / WARM) before = resident();
    void *library = load(path, &a);
    ok = library && use(&a, 160, 2) && dlclose(library) == 0;
  }
  ok = ok && !grew("loading and unloading", before);
  printf("%s loaded and unloaded %d times\n", ok ? "ok  " : "FAIL", rounds);
  void *library = load(path, &a);
  bool fine = library != NULL;
  for (int i = 0; i < CONTEXTS && fine; i++) {
    if (i == CONTEXTS / WARM) before = resident();
    fine = use(&a, 40, i % 100 == 0 ? 2 : 1);
  }
  fine = fine && !grew("contexts", before);
  printf("%s %d contexts opened and closed\n", fine ? "ok  " : "FAIL", CONTEXTS);
  return !(ok && fine);
}
