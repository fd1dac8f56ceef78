/* SPDX-License-Identifier: MIT
** io_support.h: what the tests of core/io share: a context, a folder, tensors and files to save and compare.
*/
#ifndef IO_SUPPORT_H
#define IO_SUPPORT_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../core/io/io.h"

marea_parser marea_parse_idx, marea_parse_npy, marea_parse_png, marea_parse_png16, marea_parse_jpeg;

#define CHECK(condition)                                                                             \
  do {                                                                                               \
    if (!(condition)) {                                                                              \
      printf("%s:%d: %s\n  last error: %s\n", __FILE__, __LINE__, #condition, ctx ? marea_error(ctx) : ""); \
      exit(1);                                                                                       \
    }                                                                                                \
  } while (0)
#define CHECK_OK(call) CHECK((call) == MAREA_OK)

static marea_context *ctx;
static char folder[64];

static char *in_folder (const char *name) {
  static char path[4][512];
  static int turn;
  turn = (turn + 1) % 4;
  snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
  return path[turn];
}

/* ---- making things ---- */

/* Contents: 0, 1, 2, ... scaled, plus `first`. */
static marea_tensor *make (marea_dtype dtype, int rank, const int64_t *shape, double first) {
  marea_tensor *t;
  CHECK_OK(marea_empty(ctx, dtype, rank, shape, &t));
  void *data = marea_tensor_data(t);
  for (int64_t i = 0; i < marea_tensor_size(t); i++) {
    if (dtype == MAREA_F32) ((float *)data)[i] = (float)(first + 0.25 * (double)i);
    if (dtype == MAREA_F64) ((double *)data)[i] = first + 0.125 * (double)i;
    if (dtype == MAREA_I64) ((int64_t *)data)[i] = (int64_t)first - i * 1000000007;
    if (dtype == MAREA_U8) ((uint8_t *)data)[i] = (uint8_t)((int64_t)first + i * 7);
  }
  return t;
}
#define MAKE(dtype, first, ...) \
  make(dtype, MAREA_COUNT(((int64_t[]){__VA_ARGS__})), (int64_t[]){__VA_ARGS__}, first)

/* Same dtype, shape and bits; a may have any strides. */
static bool same (const marea_tensor *a, const marea_tensor *b) {
  if (a->dtype != b->dtype || a->rank != b->rank) return false;
  size_t size = marea_dtype_size((marea_dtype)a->dtype);
  for (int d = 0; d < a->rank; d++)
    if (a->shape[d] != b->shape[d]) return false;
  for (int64_t i = 0; i < marea_tensor_size(b); i++) {
    int64_t at = 0, rest = i;
    for (int d = a->rank - 1; d >= 0; rest /= a->shape[d--]) at += rest % a->shape[d] * a->stride[d];
    if (memcmp((char *)marea_at(a) + (size_t)at * size, (char *)marea_at(b) + (size_t)i * size, size))
      return false;
  }
  return true;
}

static marea_tensor *transposed (marea_tensor *t) {
  marea_tensor *view;
  CHECK_OK(marea_detach(t, &view));
  view->shape[0] = t->shape[1], view->shape[1] = t->shape[0];
  view->stride[0] = t->stride[1], view->stride[1] = t->stride[0];
  return view;
}

typedef struct bytes { uint8_t *p; size_t n; } bytes;

static void spill (const char *path, const void *p, size_t n) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  CHECK(fd >= 0 && write(fd, p, n) == (ssize_t)n && close(fd) == 0);
}

static void clean_folder (void) {
  DIR *dir = opendir(folder);
  const struct dirent *e;
  while ((e = readdir(dir))) unlinkat(dirfd(dir), e->d_name, 0);
  closedir(dir);
}

static marea_file *make_file (int version) {
  marea_file *f;
  CHECK_OK(marea_file_new(ctx, &f));
  marea_tensor *t[] = {MAKE(MAREA_F32, version, 30, 20),  MAKE(MAREA_U8, version, 3, 5, 7),
                       MAKE(MAREA_F64, version, 40),      MAKE(MAREA_I64, version, 11),
                       MAKE(MAREA_F32, version, 3, 0, 2), make(MAREA_F32, 0, NULL, version)};
  static const char *const name[] = {"enc.conv1.weight", "bytes", "d\"\\\x1f\xc3\xa9", "step", "empty", ""};
  for (int i = 0; i < MAREA_COUNT(t); i++) {
    CHECK_OK(marea_file_add(f, name[i], t[i]));
    marea_release(t[i]);
  }
  CHECK_OK(marea_file_add_text(f, "config", "{\"latent\": 20}\n\x0b"));
  CHECK_OK(marea_file_add_text(f, "about", version ? "new" : "old"));
  return f;
}

static bool same_files (const marea_file *a, const marea_file *b) {
  if (marea_file_count(a) != marea_file_count(b) || marea_file_text_count(a) != marea_file_text_count(b))
    return false;
  for (int i = 0; i < marea_file_count(a); i++)
    if (strcmp(marea_file_name(a, i), marea_file_name(b, i)) != 0 ||
        !same(marea_file_tensor(a, i), marea_file_tensor(b, i)))
      return false;
  for (int i = 0; i < marea_file_text_count(a); i++) {
    const char *ka, *va, *kb, *vb;
    marea_file_text(a, i, &ka, &va);
    marea_file_text(b, i, &kb, &vb);
    if (strcmp(ka, kb) != 0 || strcmp(va, vb) != 0) return false;
  }
  return true;
}


static void begin_test (void) {
  snprintf(folder, sizeof folder, "/tmp/marea-io-XXXXXX");
  const marea_config config = {.size = sizeof config, .threads = 1, .max_bytes = 256 << 20};
  CHECK_OK(marea_open(&config, &ctx));
  CHECK(mkdtemp(folder));
}

static void end_test (void) {
  CHECK(marea_memory(ctx).blocks == 0 && marea_memory(ctx).live == 0);
  clean_folder();
  CHECK(rmdir(folder) == 0);
  marea_close(ctx);
}

#endif
