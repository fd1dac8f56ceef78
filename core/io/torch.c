/* SPDX-License-Identifier: MIT
** torch.c: files of torch.save since PyTorch 1.6: a ZIP archive of
**
**   NAME/data.pkl    a pickle of what was saved (pickle.c), whose tensors are views of storages
**   NAME/data/KEY    the bytes of a storage
**   NAME/byteorder   "little" or "big"; not in the files of old versions, which are little-endian
**
** Each tensor here has memory of its own, also where several shared a storage. All tensors together take at most
** MAREA_MOST_COPIES times the file's bytes, as strides of 0 and shared storages make large tensors of small files.
** Not done: files of older versions, TorchScript, big-endian ones, quantized, sparse and complex tensors.
*/
#include <stdio.h>
#include <string.h>

#include "pickle.h"

typedef struct loader {
  marea_context *ctx;
  marea_label label;
  marea_zip zip;
  char name[MAREA_MAX_NAME + 1]; /* of the archive's folder */
  size_t left;                   /* bytes that tensors may still take */
} loader;

#define BAD(l, ...) marea_fail((l)->ctx, MAREA_EFORMAT, __VA_ARGS__)

/* The member NAME/`name`; NULL: there is none. */
static marea_zip_member *find (const loader *l, const char *name, size_t n) {
  char path[2 * MAREA_MAX_NAME + 8];
  if (n > MAREA_MAX_NAME || memchr(name, '\0', n)) return NULL;
  snprintf(path, sizeof path, "%s/%.*s", l->name, (int)n, name);
  return marea_zip_find(&l->zip, path);
}

static marea_status build (void *ud, const marea_pickle_storage *p, const marea_view *v, marea_tensor **out) {
  loader *l = ud;
  char name[MAREA_MAX_NAME + 8];
  const int n = snprintf(name, sizeof name, "data/%.*s", (int)MAREA_MIN(p->key_length, 64), p->key);
  marea_zip_member *m = find(l, name, (size_t)n);
  marea_stored s = {.label = l->label.s, .name = name, .code = p->code, .n = p->n};
  if (!m) return BAD(l, "%s: damaged: storage '%s' is not in the archive", l->label.s, name);
  if (s.n < 0 || (uint64_t)s.n > m->n / marea_code_size(s.code))
    return BAD(l, "%s: damaged: storage '%s' has %zu bytes, and is to have %lld elements", l->label.s, name,
               m->n, (long long)s.n);
  MAREA_TRY(marea_zip_bytes(&l->zip, m, &s.bytes));
  return marea_view_read(l->ctx, &s, v, &l->left, out);
}

/* The folder of the archive, by the only data.pkl in it. */
static marea_status find_folder (loader *l) {
  static const char last[] = "/data.pkl";
  for (int i = 0; i < l->zip.n; i++) {
    const char *name = l->zip.members[i].name;
    const size_t n = strlen(name), cut = sizeof last - 1;
    if (n <= cut || strcmp(name + n - cut, last) != 0) continue;
    snprintf(l->name, sizeof l->name, "%.*s", (int)(n - cut), name);
    return MAREA_OK;
  }
  return BAD(l, "%s: a ZIP archive without data.pkl, so not a file of torch.save", l->label.s);
}

#define FIND(l, name) find(l, name, sizeof(name) - 1)

static marea_status check_kind (loader *l) {
  const uint8_t *bytes;
  MAREA_TRY(find_folder(l));
  if (FIND(l, "constants.pkl")) return BAD(l, "%s: TorchScript, which is code and is not read", l->label.s);
  marea_zip_member *order = FIND(l, "byteorder");
  if (!order) return MAREA_OK;
  MAREA_TRY(marea_zip_bytes(&l->zip, order, &bytes));
  if (order->n == 6 && memcmp(bytes, "little", 6) == 0) return MAREA_OK;
  return BAD(l, "%s: written on a big-endian machine, which is not supported", l->label.s);
}

static marea_status read_tree (loader *l, marea_tree *t) {
  const uint8_t *bytes;
  MAREA_TRY(check_kind(l));
  marea_zip_member *m = FIND(l, "data.pkl");
  if (m->n > MAREA_MAX_PICKLE)
    return BAD(l, "%s: a pickle of %zu bytes; at most %d are allowed", l->label.s, m->n, MAREA_MAX_PICKLE);
  MAREA_TRY(marea_zip_bytes(&l->zip, m, &bytes));
  t->bytes = marea_alloc(l->ctx, m->n);
  if (!t->bytes) return marea_out_of_memory(l->ctx, l->label.s, m->n, "its pickle");
  t->n = m->n;
  MAREA_TRY(marea_move(l->ctx, t->bytes, bytes, m->n));
  return marea_pickle_read(t, l->label.s, build, l);
}

/* Files before 1.6 are three pickles, of which the first is this number. */
static bool is_old (const uint8_t *bytes, size_t n) {
  static const uint8_t magic[] = {0x80, 2,    0x8a, 10,   0x6c, 0xfc, 0x9c,
                                  0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
  return n >= sizeof magic && memcmp(bytes, magic, sizeof magic) == 0;
}

marea_status marea_parse_torch (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                                marea_tree **out) {
  loader l = {.ctx = ctx, .label = marea_file_label("load_torch", path), .left = marea_view_room(n)};
  marea_tree *t = *out = NULL;
  if (is_old(bytes, n)) return BAD(&l, "%s: the format of PyTorch before 1.6, which is not read", l.label.s);
  MAREA_TRY(marea_tree_new(ctx, l.label.s, &t));
  marea_status status = marea_zip_open(ctx, l.label.s, bytes, n, "", &l.zip);
  if (status == MAREA_OK) {
    status = read_tree(&l, t);
    marea_zip_close(&l.zip);
  }
  if (status == MAREA_OK) *out = t;
  else marea_tree_free(t);
  return status;
}

marea_status marea_load_torch (marea_context *ctx, const char *path, marea_tree **out) {
  return marea_load_tree(ctx, "load_torch", path, marea_parse_torch, out);
}
