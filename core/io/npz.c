/* SPDX-License-Identifier: MIT
** npz.c: NumPy's archives of named arrays: a ZIP archive with a file NAME.npy for each. We write them uncompressed, as
** numpy.savez does, and read those of numpy.savez_compressed too.
** Not done: members that are no arrays.
*/
#include <stdio.h>
#include <string.h>

#include "io.h"

static marea_status read_array (marea_context *ctx, const char *path, const marea_zip *z, marea_zip_member *m,
                                marea_file *f) {
  marea_label label = marea_file_label("load_npz", path);
  const uint8_t *bytes;
  marea_tensor *t = NULL;
  const size_t used = strlen(label.s), room = sizeof label.s - used;
  snprintf(label.s + used, room, ": '%.40s'", m->name);
  marea_status status = marea_zip_bytes(z, m, &bytes);
  if (status == MAREA_OK) status = marea_array_read(ctx, label, bytes, m->n, &t);
  marea_zip_drop(z, m);
  if (status == MAREA_OK && !marea_list_insert(ctx, &f->tensors, f->tensors.n, m->name, NULL)) {
    marea_release(t);
    return marea_no_names(ctx, label.s);
  }
  if (status == MAREA_OK) f->tensors.items[f->tensors.n - 1].tensor = t;
  return status;
}

marea_status marea_parse_npz (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                              marea_file **out) {
  const marea_label label = marea_file_label("load_npz", path);
  marea_file *f = *out = NULL;
  marea_zip z;
  MAREA_TRY(marea_zip_open(ctx, label.s, bytes, n, ".npy", &z));
  marea_status status = MAREA_OK;
  if (marea_file_new(ctx, &f) != MAREA_OK || !marea_list_reserve(ctx, &f->tensors, z.n))
    status = marea_no_names(ctx, label.s);
  for (int i = 0; i < z.n && status == MAREA_OK; i++) status = read_array(ctx, path, &z, &z.members[i], f);
  marea_zip_close(&z);
  if (status == MAREA_OK) *out = f;
  else marea_file_free(f);
  return status;
}

marea_status marea_load_npz (marea_context *ctx, const char *path, marea_file **out) {
  return marea_load_list(ctx, "load_npz", path, marea_parse_npz, out);
}

static marea_status write_array (marea_zip_writer *z, const marea_item *i) {
  char head[512], name[MAREA_MAX_NAME + 8];
  const marea_tensor *t = i->tensor;
  const size_t before = marea_array_header(t, head);
  const size_t bytes = (size_t)marea_tensor_size(t) * marea_dtype_size(marea_tensor_dtype(t));
  snprintf(name, sizeof name, "%s.npy", i->name);
  MAREA_TRY(marea_zip_add(z, name, before + bytes));
  MAREA_TRY(marea_zip_write(z, head, before));
  return marea_zip_write(z, marea_tensor_data(i->tensor), bytes);
}

marea_status marea_save_npz (marea_file *f, const char *path) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "save_npz", f);
  MAREA_WANT_OR_RETURN(f->ctx, "save_npz", path);
  const marea_list *l = &f->tensors;
  size_t room = 256 << 10; /* what minizip takes: buffers, and the directory until it is written */
  marea_zip_writer z;
  for (int i = 0; i < l->n; i++) {
    MAREA_TRY(marea_array_check(l->items[i].tensor, "save_npz"));
    room += 128 + strlen(l->items[i].name);
  }
  void *reserved = marea_alloc(f->ctx, room);
  if (!reserved) return marea_out_of_memory(f->ctx, "save_npz", room, "the archive's directory");
  marea_status status = marea_zip_begin(f->ctx, "save_npz", path, &z);
  if (status == MAREA_OK) {
    for (int i = 0; i < l->n && status == MAREA_OK; i++) status = write_array(&z, &l->items[i]);
    status = marea_zip_end(&z, status);
  }
  marea_free(f->ctx, reserved);
  return status;
}
