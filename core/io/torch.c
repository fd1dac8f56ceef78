/* SPDX-License-Identifier: MIT
** torch.c: files of torch.save since PyTorch 1.6: a ZIP archive of
**
**   NAME/data.pkl    a pickle of what was saved (pickle.c), whose tensors are views of storages
**   NAME/data/KEY    the bytes of a storage
**   NAME/byteorder   "little" or "big"; not in the files of old versions, which are little-endian
**
** Each tensor here has memory of its own, also where several shared a storage. All tensors together take at most
** MOST_COPIES times the file's bytes, as strides of 0 and shared storages make large tensors of small files.
** Not done: files of older versions, TorchScript, big-endian ones, quantized, sparse and complex tensors.
*/
#include <stdio.h>
#include <string.h>

#include "pickle.h"

#define MOST_COPIES 64
#define SPARE (1 << 20)

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

/* The span of elements that a view reads, [offset, *end). False: none that a storage has. */
static bool find_end (const marea_view *v, int64_t *end) {
  int64_t step;
  bool empty = false;
  *end = v->offset;
  for (int d = 0; d < v->rank; d++) {
    if (v->shape[d] < 0 || v->stride[d] < 0) return false;
    empty |= v->shape[d] == 0;
    if (v->shape[d] > 0 && (__builtin_mul_overflow(v->shape[d] - 1, v->stride[d], &step) ||
                            __builtin_add_overflow(*end, step, end)))
      return false;
  }
  if (empty) *end = v->offset;
  return v->offset >= 0 && (empty || !__builtin_add_overflow(*end, 1, end));
}

static bool is_dense (const marea_view *v) {
  int64_t n = 1;
  for (int d = v->rank - 1; d >= 0; n *= v->shape[d--])
    if (v->shape[d] != 1 && v->stride[d] != n) return false;
  return true;
}

/* The view's elements of `size` bytes, one after another. */
static marea_status gather (const loader *l, const marea_view *v, const uint8_t *from, size_t size,
                            int64_t count, uint8_t *to) {
  int64_t index[MAREA_MAX_RANK] = {0}, at = v->offset;
  for (int64_t i = 0; i < count; i++) {
    if (i % MAREA_BLOCK == 0) MAREA_TRY(marea_poll(l->ctx));
    memcpy(to + (size_t)i * size, from + (size_t)at * size, size);
    for (int d = v->rank - 1; d >= 0; d--) {
      at += v->stride[d];
      if (++index[d] < v->shape[d]) break;
      at -= v->stride[d] * v->shape[d];
      index[d] = 0;
    }
  }
  return MAREA_OK;
}

static marea_status fill (loader *l, marea_zip_member *m, const marea_pickle_storage *s, const marea_view *v,
                          marea_tensor *t, uint8_t *raw) {
  const uint8_t *bytes;
  const size_t size = marea_code_size(s->code);
  const int64_t count = marea_tensor_size(t);
  MAREA_TRY(marea_zip_bytes(&l->zip, m, &bytes));
  if (count && is_dense(v))
    MAREA_TRY(marea_move(l->ctx, raw, bytes + (size_t)v->offset * size, (size_t)count * size));
  else if (count) MAREA_TRY(gather(l, v, bytes, size, count, raw));
  return marea_raw_decode(t, s->code, false);
}

static marea_status build (void *ud, const marea_pickle_storage *s, const marea_view *v, marea_tensor **out) {
  loader *l = ud;
  char name[MAREA_MAX_NAME + 8];
  int64_t end;
  size_t bytes;
  uint8_t *raw;
  const int n = snprintf(name, sizeof name, "data/%.*s", (int)MAREA_MIN(s->key_length, 64), s->key);
  marea_zip_member *m = find(l, name, (size_t)n);
  if (!m) return BAD(l, "%s: damaged: storage '%s' is not in the archive", l->label.s, name);
  if (s->n < 0 || (uint64_t)s->n > m->n / marea_code_size(s->code))
    return BAD(l, "%s: damaged: storage '%s' has %zu bytes, and is to have %lld elements", l->label.s, name,
               m->n, (long long)s->n);
  if (!find_end(v, &end) || end > s->n)
    return BAD(l, "%s: damaged: a tensor reaches beyond storage '%s' of %lld elements", l->label.s, name,
               (long long)s->n);
  MAREA_TRY(marea_raw_bytes(l->ctx, l->label.s, s->code, v->rank, v->shape, &bytes));
  if (bytes > l->left)
    return BAD(l, "%s: refused: its tensors take more than %d times the file's bytes", l->label.s,
               MOST_COPIES);
  l->left -= bytes;
  MAREA_TRY(marea_raw_new(l->ctx, l->label.s, s->code, v->rank, v->shape, out, &raw));
  marea_status status = fill(l, m, s, v, *out, raw);
  if (status == MAREA_OK) return MAREA_OK;
  marea_release(*out);
  *out = NULL;
  return status;
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
  loader l = {.ctx = ctx, .label = marea_file_label("load_torch", path), .left = SPARE};
  *out = NULL;
  if (is_old(bytes, n)) return BAD(&l, "%s: the format of PyTorch before 1.6, which is not read", l.label.s);
  l.left += n < PTRDIFF_MAX / MOST_COPIES ? n * MOST_COPIES : PTRDIFF_MAX - SPARE;
  marea_tree *t = marea_alloc(ctx, sizeof *t);
  if (!t) return marea_no_names(ctx, l.label.s);
  *t = (marea_tree){.ctx = ctx};
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
  uint8_t *bytes;
  size_t n;
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(ctx, "load_torch", out);
  *out = NULL;
  MAREA_WANT_OR_RETURN(NULL, "load_torch", ctx);
  MAREA_WANT_OR_RETURN(ctx, "load_torch", path);
  MAREA_TRY(marea_read_file(ctx, "load_torch", path, &bytes, &n));
  marea_status status = marea_parse_torch(ctx, path, bytes, n, out);
  marea_free(ctx, bytes);
  return status;
}

/* ---- the tree ---- */

void marea_tree_free (marea_tree *t) {
  if (!t) return;
  marea_context *ctx = t->ctx;
  for (int i = 0; i < t->n_nodes; i++)
    if (t->nodes[i].kind == MAREA_TREE_TENSOR) marea_release(t->nodes[i].tensor);
  marea_free(ctx, t->nodes);
  marea_free(ctx, t->cells);
  marea_free(ctx, t->bytes);
  marea_free(ctx, t);
  marea_context_settle(ctx);
}

int marea_tree_root (const marea_tree *t) { return t ? t->root : 0; }

int marea_tree_count (const marea_tree *t) { return t ? t->n_nodes : 0; }

void marea_tree_value_at (const marea_tree *t, int node, marea_tree_value *value) {
  if (!value) return;
  *value = (marea_tree_value){.kind = MAREA_TREE_NONE};
  if (!t || node < 0 || node >= t->n_nodes) return;
  const marea_node *n = &t->nodes[node];
  value->kind = (marea_tree_kind)n->kind;
  value->count = n->count;
  if (n->kind == MAREA_TREE_TEXT) value->text = n->text;
  if (n->kind == MAREA_TREE_INTEGER) value->integer = n->integer;
  if (n->kind == MAREA_TREE_NUMBER) value->number = n->number;
  if (n->kind == MAREA_TREE_TENSOR) value->tensor = n->tensor;
  if (n->kind == MAREA_TREE_LIST || n->kind == MAREA_TREE_DICT) value->first = n->first;
}

int marea_tree_next (const marea_tree *t, int cell, int *key, int *node) {
  const bool is_there = t && cell > 0 && cell < t->n_cells;
  if (key) *key = is_there ? t->cells[cell].key : 0;
  if (node) *node = is_there ? t->cells[cell].value : 0;
  return is_there ? t->cells[cell].next : 0;
}
