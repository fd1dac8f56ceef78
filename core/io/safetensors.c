/* SPDX-License-Identifier: MIT
** safetensors.c: named tensors and texts in one file, in the format of huggingface/safetensors:
**
**   length of the header, 64 bits | header, JSON | the tensors' bytes, without gaps
**   {"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
**
** The format has no checksums; ours stand among the texts, where other readers pass them by:
**   "crc32:NAME"  CRC-32 of that tensor's bytes, eight hexadecimal digits
**   "crc32"       CRC-32 of the length and the whole header with these very digits taken as zeros. It is
**                 always the first text, so its place in the file is fixed.
**   "marea"       layout version "1". It says once more that there must be a "crc32", so that no flipped
**                 bit can make a file of ours pass as one of a writer without checksums.
** So every single flipped bit in a file of ours is found. Files without these keys are read unchecked.
** Limits: io.h. What jansson may take of a header is limited as json.h says.
** Not done: reading only some tensors; element types narrower than a byte.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "json.h"

#define SEAL_START "{\"__metadata__\":{\"crc32\":\""
#define SEAL_DIGITS 8
#define SEAL_AT (sizeof SEAL_START - 1) /* where the digits stand in the header */
#define LENGTH 8                        /* bytes in front of the header */

static size_t item_bytes (const marea_item *i) {
  return (size_t)marea_tensor_size(i->tensor) * marea_dtype_size(marea_tensor_dtype(i->tensor));
}

/* ---- checksums ---- */

/* Of the length and the header, the seal's own digits counted as zeros. */
static uint32_t seal_of (const uint8_t *file, size_t header) {
  static const Bytef zeros[] = "00000000";
  size_t before = LENGTH + SEAL_AT, after = before + SEAL_DIGITS;
  uLong crc = crc32_z(0, file, before);
  crc = crc32_z(crc, zeros, SEAL_DIGITS);
  return (uint32_t)crc32_z(crc, file + after, LENGTH + header - after);
}

static void crc_text (char to[SEAL_DIGITS + 1], uint32_t crc) { snprintf(to, SEAL_DIGITS + 1, "%08x", crc); }

static void crc_key (char to[MAREA_MAX_NAME + 8], const char *name) {
  snprintf(to, MAREA_MAX_NAME + 8, "crc32:%s", name);
}

/* ---- loading ---- */

typedef struct entry { /* of the header, about one tensor */
  const char *name;    /* owned by the JSON value */
  marea_code code;
  int rank;
  int64_t shape[MAREA_MAX_RANK];
  size_t begin, size; /* bytes, counted from the end of the header */
} entry;

typedef struct loader {
  marea_context *ctx;
  marea_label label, bad; /* "load: 'path'"; the same with ": bad header" */
  const uint8_t *bytes;   /* the file */
  size_t n, header;       /* bytes of the file, of the header */
  bool sealed;            /* the header's checksum is there and right */
  const json_t *root, *metadata;
  entry *entries;
  int count;
  int commas[4]; /* of the header, at each depth */
  marea_file *file;
} loader;

#define BAD(l, format, ...) \
  marea_fail((l)->ctx, MAREA_EFORMAT, "%s: " format, (l)->label.s __VA_OPT__(, ) __VA_ARGS__)

static marea_status find_header (loader *l) {
  if (l->n < LENGTH) return BAD(l, "truncated: %zu bytes are too few for a safetensors file", l->n);
  uint64_t length = 0;
  for (int i = LENGTH; i-- > 0;) length = length << 8 | l->bytes[i];
  if (length > l->n - LENGTH)
    return BAD(l, "not a safetensors file, or truncated: header of %llu bytes declared, file has %zu",
               (unsigned long long)length, l->n);
  if (length > MAREA_MAX_HEADER)
    return BAD(l, "header of %llu bytes; at most %d are allowed", (unsigned long long)length,
               MAREA_MAX_HEADER);
  if (length < 2 || l->bytes[LENGTH] != '{') return BAD(l, "not a safetensors file: no JSON header");
  l->header = (size_t)length;
  return MAREA_OK;
}

/* What is about the header's text rather than the file says so. */
static marea_json_source header_text (const loader *l) {
  return (marea_json_source){l->ctx, l->bad.s, l->bytes + LENGTH, l->header};
}

/* Objects may nest to depth 2, and arrays be at depth 3 only; a bound for values at each depth. */
static marea_status check_nesting (void *ud, uint8_t c, int depth) {
  static const int limit[4] = {0, MAREA_MAX_TENSORS, 4 * MAREA_MAX_TENSORS, 8 * MAREA_MAX_TENSORS};
  loader *l = ud;
  if ((c == '{' && depth > 2) || (c == '[' && depth != 3)) return BAD(l, "bad header: nested too deeply");
  if (c == ',' && ++l->commas[depth] > limit[depth])
    return BAD(l, "bad header: too many entries; at most %d tensors are allowed", MAREA_MAX_TENSORS);
  return MAREA_OK;
}

static marea_status check_seal (loader *l) {
  const char *header = (const char *)l->bytes + LENGTH;
  char wanted[SEAL_DIGITS + 1];
  if (l->header < SEAL_AT + SEAL_DIGITS || memcmp(header, SEAL_START, SEAL_AT) != 0) return MAREA_OK;
  crc_text(wanted, seal_of(l->bytes, l->header));
  l->sealed = memcmp(header + SEAL_AT, wanted, SEAL_DIGITS) == 0;
  return l->sealed ? MAREA_OK : BAD(l, "damaged: wrong checksum of the header");
}

static marea_status parse_header (loader *l, json_t **root) {
  const marea_json_source text = header_text(l);
  MAREA_TRY(marea_json_parse(&text, 0, root));
  l->root = *root;
  l->metadata = json_object_get(*root, "__metadata__");
  return MAREA_OK;
}

static int by_name (const void *a, const void *b) {
  return strcmp(((const marea_item *)a)->name, ((const marea_item *)b)->name);
}

static marea_status read_texts (loader *l) {
  marea_list *texts = &l->file->texts;
  const char *key;
  json_t *value;
  if (!l->metadata) return MAREA_OK;
  if (!json_is_object(l->metadata)) return BAD(l, "bad header: '__metadata__' is not an object");
  json_object_foreach((json_t *)l->metadata, key, value) {
    if (!json_is_string(value)) return BAD(l, "bad header: text '%.100s' is not a string", key);
    if (marea_text_reserved(key)) {
      if (!l->sealed)
        return BAD(l,
                   "damaged: the header's checksum is missing; or another program made this file and kept "
                   "text '%.100s'",
                   key);
    } else if (!marea_list_insert(l->ctx, texts, texts->n, key, json_string_value(value)))
      return marea_no_names(l->ctx, l->label.s);
  }
  if (texts->n) qsort(texts->items, (size_t)texts->n, sizeof *texts->items, by_name);
  return MAREA_OK;
}

/* Names of element types, by code. */
static const char *const code_name[MAREA_CODES] = {
    [MAREA_CODE_F32] = "F32", [MAREA_CODE_F64] = "F64",   [MAREA_CODE_I64] = "I64",
    [MAREA_CODE_U8] = "U8",   [MAREA_CODE_BOOL] = "BOOL", [MAREA_CODE_F16] = "F16",
    [MAREA_CODE_I8] = "I8",   [MAREA_CODE_BF16] = "BF16", [MAREA_CODE_I16] = "I16",
    [MAREA_CODE_U16] = "U16", [MAREA_CODE_I32] = "I32",   [MAREA_CODE_U32] = "U32"};

static bool read_code (const char *dtype, marea_code *code) {
  for (int i = 0; i < MAREA_CODES; i++) {
    *code = (marea_code)i;
    if (strcmp(dtype, code_name[i]) == 0) return true;
  }
  return false;
}

static marea_status bad_sizes (const loader *l, const char *name, const char *key, const json_t *got) {
  char text[40];
  const size_t n = got ? json_dumpb(got, text, sizeof text - 1, JSON_ENCODE_ANY | JSON_COMPACT) : 0;
  text[MAREA_MIN(n, sizeof text - 1)] = '\0';
  return BAD(l, "bad header: tensor '%.100s': %s: expected a list of whole numbers of at least 0, got %s%s",
             name, key, got ? text : "nothing", n > sizeof text - 1 ? "..." : "");
}

/* The list of sizes `key` of a tensor, at most `room` of them. */
static marea_status read_sizes (const loader *l, const char *name, const json_t *tensor, const char *key,
                                int room, int64_t *to, int *n) {
  const json_t *list = json_object_get(tensor, key), *item;
  size_t i;
  if (!json_is_array(list)) return bad_sizes(l, name, key, list);
  if (json_array_size(list) > (size_t)room)
    return BAD(l, "bad header: tensor '%.100s': %s: a list of %zu; at most %d are possible", name, key,
               json_array_size(list), room);
  json_array_foreach(list, i, item) {
    if (!json_is_integer(item) || json_integer_value(item) < 0) return bad_sizes(l, name, key, item);
    to[i] = json_integer_value(item);
  }
  *n = (int)i;
  return MAREA_OK;
}

static marea_status read_entry (loader *l, const char *name, const json_t *value) {
  entry *e = &l->entries[l->count++];
  int64_t offset[2];
  int offsets;
  size_t bytes, data = l->n - LENGTH - l->header;
  e->name = name;
  if (!json_is_object(value)) return BAD(l, "bad header: tensor '%.100s' is not an object", name);
  const char *dtype = json_string_value(json_object_get(value, "dtype"));
  if (strlen(name) > MAREA_MAX_NAME)
    return BAD(l, "bad header: tensor name longer than %d bytes", MAREA_MAX_NAME);
  if (!dtype) return BAD(l, "bad header: tensor '%.100s' has no dtype", name);
  if (!read_code(dtype, &e->code))
    return BAD(l, "tensor '%.100s': dtype '%.100s' is not supported", name, dtype);
  MAREA_TRY(read_sizes(l, name, value, "shape", MAREA_MAX_RANK, e->shape, &e->rank));
  MAREA_TRY(read_sizes(l, name, value, "data_offsets", 2, offset, &offsets));
  if (offsets != 2 || offset[0] > offset[1])
    return BAD(l, "bad header: tensor '%.100s': data_offsets are not [begin, end]", name);
  if ((uint64_t)offset[1] > data)
    return BAD(l, "truncated: tensor '%.100s' ends at byte %lld of the data, file has %zu", name,
               (long long)offset[1], data);
  MAREA_TRY(marea_raw_bytes(l->ctx, l->label.s, e->code, e->rank, e->shape, &bytes));
  e->begin = (size_t)offset[0];
  e->size = (size_t)(offset[1] - offset[0]);
  if (bytes == e->size) return MAREA_OK;
  return BAD(l, "bad header: tensor '%.100s': %s %s needs %zu bytes, data_offsets give %zu", name, dtype,
             marea_shape_text(e->rank, e->shape).s, bytes, e->size);
}

static int by_place (const void *a, const void *b) {
  const entry *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return (x->size > y->size) - (x->size < y->size);
}

static int by_entry_name (const void *a, const void *b) {
  return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

/* The tensors must fill the data without holes and overlaps. Leaves the entries in the order of names. */
static marea_status check_places (loader *l) {
  size_t at = 0, count = (size_t)l->count;
  if (count) qsort(l->entries, count, sizeof *l->entries, by_place);
  for (size_t i = 0; i < count; i++) {
    const entry *e = &l->entries[i];
    if (e->begin != at)
      return BAD(l,
                 "bad header: tensor '%.100s' begins at byte %zu of the data, the one before it ends at %zu",
                 e->name, e->begin, at);
    at += e->size;
  }
  if (at != l->n - LENGTH - l->header)
    return BAD(l, "bad header: the tensors take %zu bytes, file has %zu", at, l->n - LENGTH - l->header);
  if (count) qsort(l->entries, count, sizeof *l->entries, by_entry_name);
  return MAREA_OK;
}

static marea_status read_entries (loader *l) {
  size_t most = json_object_size(l->root);
  const char *name;
  json_t *value;
  l->entries = marea_alloc(l->ctx, most * sizeof *l->entries);
  if (!l->entries) return marea_no_names(l->ctx, l->label.s);
  json_object_foreach((json_t *)l->root, name, value) if (value != l->metadata)
      MAREA_TRY(read_entry(l, name, value));
  if (l->count > MAREA_MAX_TENSORS) return BAD(l, "bad header: more than %d tensors", MAREA_MAX_TENSORS);
  return check_places(l);
}

static marea_status check_crc (const loader *l, const entry *e, const uint8_t *data) {
  char key[MAREA_MAX_NAME + 8], found[SEAL_DIGITS + 1];
  uint32_t crc;
  if (!l->sealed) return MAREA_OK;
  crc_key(key, e->name);
  MAREA_TRY(marea_crc(l->ctx, data, e->size, &crc));
  crc_text(found, crc);
  const char *wanted = json_string_value(json_object_get(l->metadata, key));
  if (wanted && strcmp(found, wanted) == 0) return MAREA_OK;
  return BAD(l, "damaged: wrong checksum of tensor '%.100s'", e->name);
}

static marea_status read_tensor (loader *l, const entry *e) {
  marea_list *tensors = &l->file->tensors;
  const uint8_t *data = l->bytes + LENGTH + l->header + e->begin;
  marea_tensor *t;
  uint8_t *raw;
  MAREA_TRY(check_crc(l, e, data));
  MAREA_TRY(marea_raw_new(l->ctx, l->label.s, e->code, e->rank, e->shape, &t, &raw));
  marea_status status = marea_move(l->ctx, raw, data, e->size);
  if (status == MAREA_OK) status = marea_raw_decode(t, e->code, false);
  if (status == MAREA_OK && !marea_list_insert(l->ctx, tensors, tensors->n, e->name, NULL))
    status = marea_no_names(l->ctx, l->label.s);
  if (status != MAREA_OK) {
    marea_release(t);
    return status;
  }
  tensors->items[tensors->n - 1].tensor = t;
  return MAREA_OK;
}

static marea_status read_file (loader *l) {
  MAREA_TRY(read_texts(l));
  MAREA_TRY(read_entries(l));
  if (!marea_list_reserve(l->ctx, &l->file->tensors, l->count)) return marea_no_names(l->ctx, l->label.s);
  for (int i = 0; i < l->count; i++) MAREA_TRY(read_tensor(l, &l->entries[i]));
  return MAREA_OK;
}

static marea_status load (loader *l) {
  json_t *root = NULL;
  if (marea_file_new(l->ctx, &l->file) != MAREA_OK) return marea_no_names(l->ctx, l->label.s);
  marea_status status = parse_header(l, &root);
  if (status == MAREA_OK) status = read_file(l);
  marea_free(l->ctx, l->entries);
  json_decref(root);
  return status;
}

marea_status marea_parse_safetensors (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                                      marea_file **out) {
  size_t room;
  loader l = {.ctx = ctx, .label = {"load_string"}, .bytes = bytes, .n = n};
  if (path) l.label = marea_file_label("load", path);
  *out = NULL;
  snprintf(l.bad.s, sizeof l.bad.s, "%.*s: bad header", (int)sizeof l.bad.s - 20, l.label.s);
  MAREA_TRY(find_header(&l));
  MAREA_TRY(check_seal(&l));
  const marea_json_source text = header_text(&l);
  MAREA_TRY(marea_json_measure(&text, check_nesting, &l, &room));
  void *reserved = marea_alloc(ctx, room);
  if (!reserved) return marea_out_of_memory(ctx, l.label.s, room, "the header");
  marea_status status = load(&l);
  marea_free(ctx, reserved);
  if (status == MAREA_OK) *out = l.file;
  else if (l.file) marea_file_free(l.file);
  return status;
}

marea_status marea_file_load (marea_context *ctx, const char *path, marea_file **out) {
  return marea_load_list(ctx, "load", path, marea_parse_safetensors, out);
}

marea_status marea_file_parse (marea_context *ctx, const void *bytes, size_t n, marea_file **out) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(ctx, "load_string", out);
  *out = NULL;
  MAREA_WANT_OR_RETURN(NULL, "load_string", ctx);
  MAREA_WANT_OR_RETURN(ctx, "load_string", bytes);
  return marea_parse_safetensors(ctx, NULL, bytes, n, out);
}

/* ---- saving ---- */

typedef struct text_out { /* the header while it is made: first measured (to = NULL), then written */
  char *to;
  size_t n, room;
  bool failed; /* jansson had no memory */
} text_out;

static void put (text_out *o, const char *text, size_t n) {
  if (o->to) memcpy(o->to + o->n, text, n);
  o->n += n;
}

static void put_text (text_out *o, const char *text) { put(o, text, strlen(text)); }

static void put_number (text_out *o, uint64_t number) {
  char digits[24];
  snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
  put_text(o, digits);
}

/* As a JSON string, quoted and escaped. */
static void put_string (text_out *o, const char *text) {
  json_t *json = json_string(text);
  size_t n = json ? json_dumpb(json, o->to ? o->to + o->n : NULL, o->to ? o->room - o->n : 0, JSON_ENCODE_ANY)
                  : 0;
  json_decref(json);
  if (n == 0 || (o->to && n > o->room - o->n)) o->failed = true;
  else o->n += n;
}

static void put_pair (text_out *o, const char *key, const char *value) {
  put_text(o, ",");
  put_string(o, key);
  put_text(o, ":");
  put_string(o, value);
}

static void put_entry (text_out *o, const marea_item *i) {
  put_text(o, ",");
  put_string(o, i->name);
  put_text(o, ":{\"dtype\":\"");
  put_text(o, code_name[marea_code_of(marea_tensor_dtype(i->tensor))]);
  put_text(o, "\",\"shape\":[");
  for (int d = 0; d < marea_tensor_rank(i->tensor); d++) {
    if (d) put_text(o, ",");
    put_number(o, (uint64_t)marea_tensor_shape(i->tensor)[d]);
  }
  put_text(o, "],\"data_offsets\":[");
  put_number(o, i->begin);
  put_text(o, ",");
  put_number(o, i->begin + item_bytes(i));
  put_text(o, "]}");
}

static void put_header (text_out *o, const marea_file *f, marea_item *const *order) {
  char key[MAREA_MAX_NAME + 8], crc[SEAL_DIGITS + 1];
  put_text(o, SEAL_START "00000000\",\"marea\":\"1\"");
  for (int i = 0; i < f->tensors.n && !o->failed; i++) {
    crc_key(key, f->tensors.items[i].name);
    crc_text(crc, f->tensors.items[i].crc);
    put_pair(o, key, crc);
  }
  for (int i = 0; i < f->texts.n && !o->failed; i++)
    put_pair(o, f->texts.items[i].name, f->texts.items[i].text);
  put_text(o, "}");
  for (int i = 0; i < f->tensors.n && !o->failed; i++) put_entry(o, order[i]);
  put_text(o, "}");
  while (o->n % 8) put_text(o, " ");
}

/* The length and the sealed header in a block of the context; *bytes of it. */
static marea_status make_head (const marea_file *f, const char *label, marea_item *const *order,
                               uint8_t **head, size_t *bytes) {
  text_out o = {0};
  put_header(&o, f, order);
  if (o.failed) return marea_no_names(f->ctx, label);
  if (o.n > MAREA_MAX_HEADER)
    return marea_fail(f->ctx, MAREA_EARG, "%s: names and texts take %zu bytes; at most %d are allowed", label,
                      o.n, MAREA_MAX_HEADER);
  *bytes = LENGTH + o.n;
  *head = marea_alloc(f->ctx, *bytes);
  if (!*head) return marea_no_names(f->ctx, label);
  for (int i = 0; i < LENGTH; i++) (*head)[i] = (uint8_t)((uint64_t)o.n >> 8 * i);
  o = (text_out){.to = (char *)*head + LENGTH, .room = o.n};
  put_header(&o, f, order);
  if (o.failed) {
    marea_free(f->ctx, *head);
    return marea_no_names(f->ctx, label);
  }
  char seal[SEAL_DIGITS + 1];
  crc_text(seal, seal_of(*head, o.n));
  memcpy(*head + LENGTH + SEAL_AT, seal, SEAL_DIGITS);
  return MAREA_OK;
}

/* The wider the elements, the earlier, so that every tensor is aligned to them; then by name. */
static int by_width (const void *a, const void *b) {
  const marea_item *x = *(marea_item *const *)a, *y = *(marea_item *const *)b;
  size_t p = marea_dtype_size(marea_tensor_dtype(x->tensor)),
         q = marea_dtype_size(marea_tensor_dtype(y->tensor));
  return p != q ? (p > q ? -1 : 1) : strcmp(x->name, y->name);
}

static marea_status arrange (marea_file *f, marea_item **order) {
  uint64_t begin = 0;
  size_t count = (size_t)f->tensors.n;
  for (size_t i = 0; i < count; i++) order[i] = &f->tensors.items[i];
  if (count) qsort(order, count, sizeof *order, by_width);
  for (size_t i = 0; i < count; i++) {
    order[i]->begin = begin;
    MAREA_TRY(marea_crc(f->ctx, marea_tensor_data(order[i]->tensor), item_bytes(order[i]), &order[i]->crc));
    begin += item_bytes(order[i]);
  }
  return MAREA_OK;
}

/* A file as it is written: its head, and the tensors in their order. */
typedef struct image {
  marea_item **order;
  uint8_t *head;
  size_t n_head;
} image;

static void drop_image (const marea_file *f, const image *i) {
  marea_free(f->ctx, i->head);
  marea_free(f->ctx, i->order);
}

/* Fails, or *i is to be dropped. */
static marea_status make_image (marea_file *f, const char *label, image *i) {
  *i = (image){.order = marea_alloc(f->ctx, sizeof *i->order * (size_t)f->tensors.n)};
  if (!i->order) return marea_no_names(f->ctx, label);
  marea_status status = arrange(f, i->order);
  if (status == MAREA_OK) status = make_head(f, label, i->order, &i->head, &i->n_head);
  if (status != MAREA_OK) marea_free(f->ctx, i->order);
  return status;
}

static marea_status write_image (const marea_file *f, const char *path, const image *i) {
  marea_writer w;
  MAREA_TRY(marea_write_begin(f->ctx, "save", path, &w));
  marea_status status = marea_write(&w, i->head, i->n_head);
  for (int k = 0; k < f->tensors.n && status == MAREA_OK; k++)
    status = marea_write(&w, marea_tensor_data(i->order[k]->tensor), item_bytes(i->order[k]));
  return marea_write_end(&w, status);
}

marea_status marea_file_save (marea_file *f, const char *path) {
  image i;
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "save", f);
  MAREA_WANT_OR_RETURN(f->ctx, "save", path);
  MAREA_TRY(make_image(f, marea_file_label("save", path).s, &i));
  const marea_status status = write_image(f, path, &i);
  drop_image(f, &i);
  return status;
}

static marea_status put_image (const marea_file *f, const image *i, marea_tensor **out) {
  marea_layout layout = {.dtype = MAREA_U8, .rank = 1, .shape = {(int64_t)i->n_head}};
  for (int k = 0; k < f->tensors.n; k++) layout.shape[0] += (int64_t)item_bytes(i->order[k]);
  MAREA_TRY(marea_tensor_new(f->ctx, "save_string", &layout, out));
  uint8_t *to = marea_tensor_data(*out);
  memcpy(to, i->head, i->n_head);
  to += i->n_head;
  marea_status status = MAREA_OK;
  for (int k = 0; k < f->tensors.n && status == MAREA_OK; k++) {
    const size_t n = item_bytes(i->order[k]);
    status = marea_move(f->ctx, to, marea_tensor_data(i->order[k]->tensor), n);
    to += n;
  }
  if (status == MAREA_OK) return MAREA_OK;
  marea_release(*out);
  *out = NULL;
  return status;
}

marea_status marea_file_encode (marea_file *f, marea_tensor **out) {
  image i;
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "save_string", f);
  MAREA_WANT_OR_RETURN(f->ctx, "save_string", out);
  *out = NULL;
  MAREA_TRY(make_image(f, "save_string", &i));
  const marea_status status = put_image(f, &i, out);
  drop_image(f, &i);
  return status;
}
