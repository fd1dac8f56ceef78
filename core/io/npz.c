/* SPDX-License-Identifier: MIT
** npz.c: NumPy's archives of named arrays: a ZIP archive with a file NAME.npy for each. We write them uncompressed, as
** numpy.savez does, and read those of numpy.savez_compressed too. marea_load_zip takes the members of any archive as bytes.
** Not done: members of these archives that are no arrays.
*/
#include <stdio.h>
#include <string.h>

#include "io.h"

/* A member's bytes as a tensor: an array in NumPy's format, or u8 (n) as they are. */
typedef marea_status member_reader (marea_context *ctx, marea_label label, const uint8_t *bytes, size_t n,
                                    marea_tensor **out);

static marea_status read_bytes (marea_context *ctx, marea_label label, const uint8_t *bytes, size_t n,
                                marea_tensor **out) {
  const int64_t shape[] = {(int64_t)n};
  (void)label;
  MAREA_TRY(marea_empty(ctx, MAREA_U8, 1, shape, out));
  marea_status status = marea_move(ctx, marea_tensor_data(*out), bytes, n);
  if (status != MAREA_OK) marea_release(*out);
  return status;
}

static marea_status read_member (marea_context *ctx, marea_label label, member_reader *read,
                                 const marea_zip *z, marea_zip_member *m, marea_file *f) {
  const uint8_t *bytes;
  marea_tensor *t = NULL;
  const size_t used = strlen(label.s), room = sizeof label.s - used;
  snprintf(label.s + used, room, ": '%.40s'", m->name);
  marea_status status = marea_zip_bytes(z, m, &bytes);
  if (status == MAREA_OK) status = read(ctx, label, bytes, m->n, &t);
  marea_zip_drop(z, m);
  if (status == MAREA_OK && !marea_list_insert(ctx, &f->tensors, f->tensors.n, m->name, NULL)) {
    marea_release(t);
    return marea_no_names(ctx, label.s);
  }
  if (status == MAREA_OK) f->tensors.items[f->tensors.n - 1].tensor = t;
  return status;
}

/* All members, whose names end with `end`. */
static marea_status read_members (marea_context *ctx, marea_label label, const char *end, member_reader *read,
                                  const uint8_t *bytes, size_t n, marea_file **out) {
  marea_file *f = *out = NULL;
  marea_zip z;
  MAREA_TRY(marea_zip_open(ctx, label.s, bytes, n, end, &z));
  marea_status status = MAREA_OK;
  if (marea_file_new(ctx, &f) != MAREA_OK || !marea_list_reserve(ctx, &f->tensors, z.n))
    status = marea_no_names(ctx, label.s);
  for (int i = 0; i < z.n && status == MAREA_OK; i++)
    status = read_member(ctx, label, read, &z, &z.members[i], f);
  marea_zip_close(&z);
  if (status == MAREA_OK) *out = f;
  else marea_file_free(f);
  return status;
}

marea_status marea_parse_npz (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                              marea_file **out) {
  return read_members(ctx, marea_file_label("load_npz", path), ".npy", marea_array_read, bytes, n, out);
}

marea_status marea_load_npz (marea_context *ctx, const char *path, marea_file **out) {
  return marea_load_list(ctx, "load_npz", path, marea_parse_npz, out);
}

static marea_status parse_zip (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                               marea_file **out) {
  return read_members(ctx, marea_file_label("load_zip", path), "", read_bytes, bytes, n, out);
}

marea_status marea_load_zip (marea_context *ctx, const char *path, marea_file **out) {
  return marea_load_list(ctx, "load_zip", path, parse_zip, out);
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
