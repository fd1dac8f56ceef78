/* SPDX-License-Identifier: MIT
** io_test.c: the file formats of core/io, without Lua. Round trips and values; hand-made bad files; every
** prefix, every flipped bit of the first 4 KiB and random flips in the rest of sample files; every request
** for memory of the parsers failing. Run: io_test [random flips a sample]
*/
#define _GNU_SOURCE
#include <jansson.h>
#include <locale.h>
#include <malloc.h>
#include <math.h>
#include <png.h>
#include <zlib.h>

#include "io_support.h"

static long tries, rejected; /* of hostile inputs */

/* ---- parsers as one ---- */

static uint64_t random_state = 1;
static uint64_t next_random (void) { /* splitmix64 */
  uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static bytes slurp (const char *path) {
  bytes b;
  CHECK_OK(marea_read_file(ctx, "test", path, &b.p, &b.n));
  uint8_t *copy = malloc(b.n + 1);
  memcpy(copy, b.p, b.n);
  marea_free(ctx, b.p);
  b.p = copy;
  return b;
}

typedef enum format { IDX, NPY, PNG, SAFETENSORS, JSON, NPZ, TORCH, GGUF, T7, JPEG } format;

/* Walks over all values: as many ends as lists and objects, and then ends for good. */
static marea_status parse_json (const uint8_t *from, size_t n) {
  marea_json *j;
  marea_status status = marea_json_read(ctx, (const char *)from, n, &j);
  CHECK(status == MAREA_OK || (!j && strstr(marea_error(ctx), "json: ")));
  marea_json_value v;
  size_t values = 0;
  int depth = 0;
  do {
    marea_json_next(j, &v);
    CHECK(v.kind == MAREA_JSON_END || values++ <= n);
    if (v.kind == MAREA_JSON_STRING) CHECK(v.count <= n && v.text[v.count] == 0);
    depth += v.kind == MAREA_JSON_LIST || v.kind == MAREA_JSON_OBJECT;
    depth -= v.kind == MAREA_JSON_END;
  } while (depth >= 0 && (depth > 0 || v.kind == MAREA_JSON_END));
  marea_json_free(j);
  return status;
}

/* Walks over all nodes and cells of what was read. */
static marea_status parse_tree (marea_tree_parser *read, const uint8_t *from, size_t n, marea_tree **out) {
  const marea_status status = read(ctx, "sample", from, n, out);
  CHECK((status == MAREA_OK) == (*out != NULL));
  const int count = marea_tree_count(*out);
  CHECK(status != MAREA_OK || (marea_tree_root(*out) > 0 && marea_tree_root(*out) < count));
  for (int i = -1; i <= count; i++) {
    marea_tree_value v;
    int key, node;
    size_t cells = 0;
    marea_tree_value_at(*out, i, &v);
    for (int cell = v.first; cell; cells++) {
      cell = marea_tree_next(*out, cell, &key, &node);
      CHECK(node > 0 && node < count && key >= 0 && key < count && (key > 0) == (v.kind == MAREA_TREE_DICT));
    }
    CHECK(v.kind == MAREA_TREE_TEXT ? memchr(v.text, 0, 0) == NULL : cells == v.count);
    CHECK((v.kind == MAREA_TREE_TENSOR) == (v.tensor != NULL));
  }
  return status;
}

/* Parses a copy of exactly n bytes, so that a sanitizer sees the first byte read beyond it. */
static marea_status parse (format kind, const uint8_t *from, size_t n) {
  static marea_parser *const parsers[] = {marea_parse_idx, marea_parse_npy, marea_parse_png};
  uint8_t *copy = malloc(n);
  if (n) memcpy(copy, from, n);
  marea_tensor *t = NULL;
  marea_file *f = NULL;
  marea_tree *tree = NULL;
  marea_status status = kind == TORCH         ? parse_tree(marea_parse_torch, copy, n, &tree)
                        : kind == T7          ? parse_tree(marea_parse_t7, copy, n, &tree)
                        : kind == GGUF        ? parse_tree(marea_parse_gguf, copy, n, &tree)
                        : kind == SAFETENSORS ? marea_parse_safetensors(ctx, "sample", copy, n, &f)
                        : kind == JSON        ? parse_json(copy, n)
                        : kind == NPZ         ? marea_parse_npz(ctx, "sample", copy, n, &f)
                        : kind == JPEG        ? marea_parse_jpeg(ctx, "sample", copy, n, &t)
                                              : parsers[kind](ctx, "sample", copy, n, &t);
  CHECK(status == MAREA_OK || (!t && !f && (kind == JSON || strstr(marea_error(ctx), "'sample': "))));
  marea_release(t);
  marea_file_free(f);
  marea_tree_free(tree);
  free(copy);
  tries++;
  rejected += status != MAREA_OK;
  return status;
}

typedef struct sample {
  const char *name;
  format kind;
  bytes b;
  bool sealed; /* every change must be found */
} sample;

static void attack (const sample *s, long random_flips) {
  marea_memory_info before = marea_memory(ctx);
  CHECK_OK(parse(s->kind, s->b.p, s->b.n));
  for (size_t n = 0; n < s->b.n; n++) CHECK(parse(s->kind, s->b.p, n) == MAREA_EFORMAT);
  size_t head = MAREA_MIN(s->b.n, 4096);
  for (size_t i = 0; i < 8 * head + (size_t)random_flips; i++) {
    size_t bit = i < 8 * head ? i : next_random() % (8 * s->b.n);
    s->b.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
    marea_status status = parse(s->kind, s->b.p, s->b.n);
    s->b.p[bit / 8] ^= (uint8_t)(1 << bit % 8);
    CHECK(status == MAREA_EFORMAT || (!s->sealed && (status == MAREA_OK || status == MAREA_ENOMEM)));
  }
  for (uint64_t k = 1;; k++) {
    marea_memory_fail(ctx, k, k % 2);
    marea_status status = parse(s->kind, s->b.p, s->b.n);
    marea_memory_fail(ctx, 0, false);
    CHECK(status == MAREA_OK || status == MAREA_ENOMEM);
    if (status == MAREA_OK) break;
  }
  marea_memory_info after = marea_memory(ctx);
  CHECK(after.live == before.live && after.blocks == before.blocks);
}

static bytes gzip (const uint8_t *from, size_t n) {
  bytes b = {malloc(n + 200), n + 200};
  z_stream z = {
      .next_in = (z_const Bytef *)from, .avail_in = (uInt)n, .next_out = b.p, .avail_out = (uInt)b.n};
  CHECK(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
  b.n = z.total_out;
  deflateEnd(&z);
  return b;
}

static bytes idx (int code, int size, int rank, const uint32_t *shape) {
  size_t n = 1, at = 4;
  for (int d = 0; d < rank; d++) n *= shape[d];
  bytes b = {malloc(4 + 4 * (size_t)rank + n * (size_t)size), 4 + 4 * (size_t)rank + n * (size_t)size};
  memcpy(b.p, (uint8_t[]){0, 0, (uint8_t)code, (uint8_t)rank}, 4);
  for (int d = 0; d < rank; d++)
    for (int i = 3; i >= 0; i--) b.p[at++] = (uint8_t)(shape[d] >> 8 * i);
  while (at < b.n) b.p[at++] = (uint8_t)(next_random() & next_random());
  return b;
}

static bytes saved_npy (marea_tensor *t) {
  CHECK_OK(marea_save_npy(t, in_folder("sample.npy")));
  marea_release(t);
  return slurp(in_folder("sample.npy"));
}

static bytes saved_jpeg (marea_tensor *t) {
  CHECK_OK(marea_save_jpeg(t, in_folder("sample.jpg"), 90));
  marea_release(t);
  return slurp(in_folder("sample.jpg"));
}

/* The last file of spec/golden/jpeg.lua: of several scans, turned by its EXIF data. */
static bytes progressive (void) {
  bytes b = {malloc(4096), 0};
  char line[8192];
  FILE *f = fopen("spec/golden/jpeg.lua", "r");
  CHECK(f);
  while (f && fgets(line, sizeof line, f)) {
    unsigned byte;
    if (line[0] != ' ') continue;
    b.n = 0;
    for (const char *hex = line + 3; b.n < 4096 && sscanf(hex, "%2x", &byte) == 1; hex += 2)
      b.p[b.n++] = (uint8_t)byte;
  }
  if (f) fclose(f);
  return b;
}

static bytes saved_png (marea_tensor *t) {
  CHECK_OK(marea_save_png(t, in_folder("sample.png")));
  marea_release(t);
  return slurp(in_folder("sample.png"));
}

static bytes saved_file (marea_file *f) {
  CHECK_OK(marea_file_save(f, in_folder("sample.safetensors")));
  marea_file_free(f);
  return slurp(in_folder("sample.safetensors"));
}

static bytes saved_npz (marea_file *f) {
  CHECK_OK(marea_save_npz(f, in_folder("sample.npz")));
  marea_file_free(f);
  return slurp(in_folder("sample.npz"));
}

/* A ZIP archive of one member, as other programs write them: deflated, and what its headers declare may be wrong. */
typedef struct claims {
  uint32_t crc, packed, size;
  uint16_t flags, method;
  const char *name;
} claims;

static uint8_t *put_words (uint8_t *to, const claims *c) {
  const uint32_t words[] = {0, c->crc, c->packed, c->size};
  memcpy(to, &c->flags, 2);
  memcpy(to + 2, &c->method, 2);
  memcpy(to + 4, words, 16);
  return to + 20;
}

static bytes archive (const void *data, size_t n, const claims *c) {
  const size_t name = strlen(c->name), place = 30 + name + n, room = place + 46 + name + 22;
  bytes b = {calloc(room, 1), room};
  memcpy(b.p, "PK\3\4\24\0", 6);
  put_words(b.p + 6, c);
  b.p[26] = (uint8_t)name;
  memcpy(b.p + 30, c->name, name);
  memcpy(b.p + 30 + name, data, n);
  uint8_t *at = b.p + place;
  memcpy(at, "PK\1\2\24\0\24\0", 8);
  put_words(at + 8, c);
  at[28] = (uint8_t)name;
  memcpy(at + 46, c->name, name);
  at += 46 + name;
  memcpy(at, "PK\5\6\0\0\0\0\1\0\1\0", 12);
  const uint32_t directory[] = {(uint32_t)(46 + name), (uint32_t)place};
  memcpy(at + 12, directory, 8);
  return b;
}

static bytes deflated (bytes from) {
  bytes b = {malloc(from.n + 200), from.n + 200};
  z_stream z = {.next_in = from.p, .avail_in = (uInt)from.n, .next_out = b.p, .avail_out = (uInt)b.n};
  CHECK(deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
  b.n = z.total_out;
  deflateEnd(&z);
  return b;
}

/* What the archive of a deflated array is to be, for its claims to be changed. */
static bytes squeezed (bytes array, void (*change)(claims *c)) {
  bytes data = deflated(array);
  claims c = {.crc = (uint32_t)crc32_z(0, array.p, array.n),
              .packed = (uint32_t)data.n,
              .size = (uint32_t)array.n,
              .method = 8,
              .name = "w.npy"};
  if (change) change(&c);
  bytes b = archive(data.p, data.n, &c);
  free(data.p);
  free(array.p);
  return b;
}

/* A file of torch.save with this pickle, and a storage 0 of 24 bytes. */
static bytes torch_file (const char *pickle, size_t n) {
  marea_zip_writer z;
  const char numbers[24] = "\0\0\x80\x3f";
  CHECK_OK(marea_zip_begin(ctx, "test", in_folder("sample.pt"), &z));
  CHECK_OK(marea_zip_add(&z, "a/data.pkl", n));
  CHECK_OK(marea_zip_write(&z, pickle, n));
  CHECK_OK(marea_zip_add(&z, "a/data/0", 24));
  CHECK_OK(marea_zip_write(&z, numbers, 24));
  CHECK_OK(marea_zip_end(&z, MAREA_OK));
  return slurp(in_folder("sample.pt"));
}
#define TORCH_FILE(text) torch_file(text, sizeof(text) - 1)

/* {"w": a tensor f32 of six elements}, with a view of the storage. */
#define STORAGE(type, n) "(X\7\0\0\0storagectorch\n" type "Storage\nX\1\0\0\0000X\3\0\0\0cpu" n "tQ"
#define TENSOR(storage, view)                                \
  "ctorch._utils\n_rebuild_tensor_v2\n(" storage view "\x89" \
  "ccollections\nOrderedDict\n)RtR"
#define PICKLE(value) "\x80\2}X\1\0\0\0w" value "s."

static bytes safetensors (const char *header, size_t data) {
  size_t n = strlen(header);
  bytes b = {calloc(8 + n + data, 1), 8 + n + data};
  for (int i = 0; i < 8; i++) b.p[i] = (uint8_t)((uint64_t)n >> 8 * i);
  memcpy(b.p + 8, header, n);
  return b;
}

/* A file of the same tensor as `t` in column-major order, and with another quote. */
static bytes fortran (void) {
  const char *head =
      "\x93NUMPY\1\0\x46\0{\"shape\": (2, 3), 'fortran_order': True, 'descr': '>i2'}             \n";
  bytes b = {calloc(92, 1), 92};
  memcpy(b.p, head, 10);
  memcpy(b.p + 10, head + 10, 70);
  for (int i = 0; i < 6; i++) b.p[81 + 2 * i] = (uint8_t)i, b.p[80 + 2 * i] = i == 5 ? 0x80 : 0;
  return b;
}

/* A file of GGUF with this beginning, and `data` bytes of tensors. */
static bytes gguf (const char *head, size_t n, size_t data) {
  const size_t at = (n + 31) / 32 * 32;
  bytes b = {calloc(at + data, 1), at + data};
  memcpy(b.p, head, n);
  for (size_t i = at; i < b.n; i++) b.p[i] = (uint8_t)(i * 37);
  return b;
}
/* Values of Torch7: a text, a tensor f32 of rank 1 with its place and storage, and the beginning of a table. */
#define T7_TEXT(n, s) U32("\2") U32(n) s
#define T7_CLASS(index, n, name) U32("\4") U32(index) U32("\3") "V 1" U32(n) name
#define T7_TENSOR(index, size, stride, place, storage) \
  T7_CLASS(index, "\21", "torch.FloatTensor") U32("\1") U64(size) U64(stride) U64(place) storage
#define T7_STORAGE(index, n) T7_CLASS(index, "\22", "torch.FloatStorage") U64(n)
#define T7_TABLE(index, pairs) U32("\3") U32(index) U32(pairs)
#define U32(x) x "\0\0\0"
#define U64(x) x "\0\0\0\0\0\0\0"
#define HEAD(tensors, pairs) "GGUF" U32("\3") U64(tensors) U64(pairs)
#define ALIGNMENT U64("\21") "general.alignment"
#define GGUF_FILE(head, data) gguf(head, sizeof(head) - 1, data)

static bytes literal (const char *text, size_t n) {
  bytes b = {malloc(n), n};
  memcpy(b.p, text, n);
  return b;
}
#define LITERAL(text) literal(text, sizeof(text) - 1)

static void test_attacks (long random_flips) {
  bytes images = idx(8, 1, 3, (uint32_t[]){9, 28, 28});
  marea_file *nothing;
  CHECK_OK(marea_file_new(ctx, &nothing));
  const sample samples[] = {
      {"idx u8", IDX, images, false},
      {"idx i16", IDX, idx(11, 2, 2, (uint32_t[]){40, 60}), false},
      {"idx f64", IDX, idx(14, 8, 1, (uint32_t[]){700}), false},
      {"idx.gz", IDX, gzip(images.p, images.n), false},
      {"npy f32", NPY, saved_npy(MAKE(MAREA_F32, 0, 30, 40)), false},
      {"npy fortran", NPY, fortran(), false},
      {"npz", NPZ, saved_npz(make_file(0)), false},
      {"npz, deflated", NPZ, squeezed(saved_npy(MAKE(MAREA_F32, 0, 30, 4)), NULL), false},
      {"torch", TORCH, TORCH_FILE(PICKLE(TENSOR(STORAGE("Float", "K\6"), "K\0K\2K\3\x86K\1K\2\x86"))), false},
      {"gguf", GGUF,
       GGUF_FILE(HEAD("\3", "\4") U64("\1") "a" U32("\10") U64("\2") "hi" ALIGNMENT U32("\4") U32("\40")
                     U64("\1") "b" U32("\11") U32("\11") U64("\2") U32("\3") U64("\1") "\1\377" U32("\7")
                         U64("\2") "\1\0" U64("\1") "c" U32("\14") U64("\7") U64("\1") "w" U32("\2") U64("\3")
                             U64("\2") U32("\0") U64("\0") U64("\1") "q" U32("\1") U64("\40") U32("\10")
                                 U64("\40") U64("\1") "h" U32("\1") U64("\40") U32("\2") U64("\140"),
                 114),
       false},
      {"t7", T7,
       LITERAL(T7_CLASS("\1", "\11", "nn.Linear") T7_TABLE("\2", "\5") T7_TEXT("\1", "w")
                   T7_TENSOR("\3", "\2", "\2", "\1", T7_STORAGE("\4", "\3")) "abcdefghijkl" T7_TEXT("\1", "s")
                       U32("\4") U32("\4") T7_TEXT("\1", "t") U32("\4") U32("\3") U32("\5") U32("\1")
                           U32("\3") U32("\2") T7_TEXT("\1", "n") U32("\1") "\0\0\0\0\0\0\36\100"),
       false},
      {"png rgba", PNG, saved_png(MAKE(MAREA_U8, 0, 40, 30, 4)), true},
      {"png gray", PNG, saved_png(MAKE(MAREA_F32, 0, 8, 8)), true},
      {"jpeg", JPEG, saved_jpeg(MAKE(MAREA_U8, 0, 20, 17, 3)), false},
      {"jpeg gray", JPEG, saved_jpeg(MAKE(MAREA_F32, 0, 9, 8)), false},
      {"jpeg of several scans", JPEG, progressive(), false},
      {"safetensors ours", SAFETENSORS, saved_file(make_file(0)), true},
      {"safetensors ours, empty", SAFETENSORS, saved_file(nothing), true},
      {"safetensors of others", SAFETENSORS,
       safetensors("{\"b\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[8,16]},\"__metadata__\":{"
                   "\"a\":\"b\"},"
                   "\"a\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]}}",
                   16),
       false},
      {"json", JSON,
       LITERAL("{\"model\":{\"vocab\":{\"a\":0,\"\\u00e9\":1},\"merges\":[\"a "
               "b\",[\"c\",\"d\"]]},\"n\":[1.5e3,null,true]}"),
       false},
  };
  for (int i = 0; i < MAREA_COUNT(samples); i++) {
    marea_memory_reset_peak(ctx);
    attack(&samples[i], random_flips);
    CHECK(marea_memory(ctx).peak < 64 << 20);
    free(samples[i].b.p);
  }
}

/* ---- hand-made bad files: each must be refused for the right reason ---- */

static void refuse (format kind, bytes b, const char *why) {
  marea_status status = parse(kind, b.p, b.n);
  if (status == MAREA_OK || !strstr(marea_error(ctx), why)) printf("wanted: %s\n", why);
  CHECK(status == MAREA_EFORMAT && strstr(marea_error(ctx), why));
  free(b.p);
}

static void test_bad_idx (void) {
  refuse(IDX, LITERAL(""), "0 bytes are too few");
  refuse(IDX, LITERAL("\0\1\x08\1"), "two zero bytes");
  refuse(IDX, LITERAL("\0\0\x0a\1\0\0\0\0"), "no element type 0x0A");
  refuse(IDX, LITERAL("\0\0\x08\x09\0\0\0\0"), "9 dimensions");
  refuse(IDX, LITERAL("\0\0\x08\1\xff\xff\xff\xff"), "outside 0..2147483647");
  refuse(IDX, LITERAL("\0\0\x08\3\x7f\xff\xff\xff\x7f\xff\xff\xff\x7f\xff\xff\xff"), "more bytes than");
  refuse(IDX, LITERAL("\0\0\x08\4\x7f\xff\xff\xff\x7f\xff\xff\xff\x7f\xff\xff\xff\0\0\0\0"),
         "more bytes than");
  refuse(IDX, LITERAL("\0\0\x08\1\0\0\0\5abcd"), "truncated: header declares 13 bytes, file has 12");
  refuse(IDX, LITERAL("\0\0\x08\1\0\0\0\2abc"), "1 bytes follow");
  bytes plain = LITERAL("\0\0\x08\1\0\0\0\3abcd"), large = LITERAL("\0\0\x08\1\x7f\xff\xff\xff");
  bytes zipped = gzip(plain.p, plain.n), bomb = gzip(large.p, large.n), good = gzip(plain.p, plain.n - 1);
  refuse(IDX, zipped, "has more after decompression");
  refuse(IDX, bomb, "cannot inflate to");
  good.p[good.n++] = 0;
  refuse(IDX, good, "1 bytes follow");
  free(plain.p);
  free(large.p);
}

static bytes npy (const char *dictionary, size_t data) {
  size_t n = strlen(dictionary);
  bytes b = {calloc(10 + n + data, 1), 10 + n + data};
  memcpy(b.p, "\x93NUMPY\1", 8);
  b.p[8] = (uint8_t)n;
  b.p[9] = (uint8_t)(n >> 8);
  memcpy(b.p + 10, dictionary, n);
  return b;
}

static void test_bad_npy (void) {
  refuse(NPY, LITERAL("\x93NUMPX\1\0\0\0"), "not an NPY file");
  refuse(NPY, LITERAL("\x93NUMPY\4\0\0\0"), "version 4.0");
  refuse(NPY, LITERAL("\x93NUMPY\1\0\x11\x27"), "header of 10001 bytes");
  refuse(NPY, LITERAL("\x93NUMPY\2\0\xff\xff\xff\xff"), "header of 4294967295 bytes");
  refuse(NPY, npy("", 0), "a dictionary");
  refuse(NPY, npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", 8), "'|O' is not supported");
  refuse(NPY, npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", 4), "simple type");
  refuse(NPY, npy("{'descr': '<f4', 'shape': (1,)}", 4), "once each");
  refuse(NPY, npy("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", 4), "once each");
  refuse(NPY, npy("{'descr': '<f4', 'fortran_order': 1, 'shape': (1,)}", 4), "True or False");
  refuse(NPY, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", 4), "sizes below");
  refuse(NPY, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", 4),
         "sizes below");
  refuse(NPY, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", 4),
         "8 dimensions");
  refuse(NPY, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2147483647, 2147483647)}", 4),
         "more bytes");
  refuse(NPY, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 4), "truncated");
  refuse(NPY, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 9), "1 bytes follow");
  refuse(NPY, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x", 8), "nothing after");
}

static void claim_crc (claims *c) { c->crc ^= 1; }
static void claim_bomb (claims *c) { c->size = 0xfffffff0; }
static void claim_more (claims *c) { c->size += 1; }
static void claim_less (claims *c) { c->size -= 1; }
static void claim_packed (claims *c) { c->packed += 1000; }
static void claim_stored (claims *c) { c->method = 0; }
static void claim_lzma (claims *c) { c->method = 14; }
static void claim_secret (claims *c) { c->flags = 1; }
static void claim_name (claims *c) { c->name = "w.txt"; }

static void test_bad_npz (void) {
  static const struct {
    void (*change)(claims *c);
    const char *why;
  } bad[] = {{claim_crc, "wrong checksum of member 'w'"},
             {claim_bomb, "declares 4294967280 bytes, which"},
             {claim_more, "does not inflate to"},
             {claim_less, "does not inflate to"},
             {claim_packed, "of which the file lacks some"},
             {claim_stored, "cannot hold"},
             {claim_lzma, "compressed by method 14"},
             {claim_secret, "'w' is encrypted"},
             {claim_name, "member 'w.txt' is no .npy file"}};
  for (int i = 0; i < MAREA_COUNT(bad); i++)
    refuse(NPZ, squeezed(saved_npy(MAKE(MAREA_F32, 0, 30, 4)), bad[i].change), bad[i].why);
  refuse(NPZ, squeezed(LITERAL("\x93NUMPY\4\0\0\0"), NULL), "'sample': 'w': version 4.0");
  refuse(NPZ, LITERAL("PK\3\4"), "not a ZIP archive");
  refuse(NPZ, LITERAL(""), "not a ZIP archive");
  bytes many = LITERAL("xPK\5\6\0\0\0\0\xf0\0\xf0\0\0\0\0\0\0\0\0\0\0\0");
  refuse(NPZ, many, "longer than the file");
}

/* The checksums of a small file's chunks, made right again after a change. */
static bytes repaired (bytes b) {
  for (size_t at = 8; at < b.n;) {
    size_t length = (size_t)b.p[at + 2] << 8 | b.p[at + 3];
    uint32_t crc = __builtin_bswap32((uint32_t)crc32_z(0, b.p + at + 4, length + 4));
    memcpy(b.p + at + 8 + length, &crc, 4);
    at += length + 12;
  }
  return b;
}

static void test_bad_png (void) {
  bytes b = saved_png(MAKE(MAREA_U8, 0, 4, 4, 3));
  for (int wide = 0; wide < 2; wide++) { /* sizes are at bytes 16..23 of the file */
    bytes big = literal((const char *)b.p, b.n);
    memcpy(big.p + 16, wide ? "\0\x01\0\0\0\x01\0\0" : "\0\0\x1f\x40\0\0\x1f\x40", 8);
    refuse(PNG, repaired(big), wide ? "65536 x 65536 pixels; at most" : "cannot hold");
  }
  bytes changed = literal((const char *)b.p, b.n), typed = literal((const char *)b.p, b.n);
  memset(changed.p + changed.n - 12 - 8 - 8, 0xff, 8); /* the end of IDAT's data */
  refuse(PNG, repaired(changed), "damaged");
  typed.p[25] = 5; /* there is no color type 5 */
  refuse(PNG, repaired(typed), "damaged");
  refuse(PNG, literal((const char *)b.p, b.n - 12), "truncated");
  refuse(PNG, LITERAL("GIF89a"), "not a PNG");
  free(b.p);
}

#define ST(dtype, shape, begin, end) \
  "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

#include "tree_cases.h"

static void test_bad_safetensors (void) {
  static const struct {
    const char *header, *why;
  } bad[] = {
      {"{\"a\":" ST("F32", "[1]", 4, 8) "}", "begins at byte 4"},
      {"{\"a\":" ST("F32", "[1]", 0, 4) "}", "take 4 bytes, file has 8"},
      {"{\"a\":" ST("F32", "[2]", 0, 8) ",\"b\":" ST("F32", "[1]", 4, 8) "}", "begins at byte 4"},
      {"{\"a\":" ST("F32", "[1]", 0, 4) ",\"a\":" ST("F32", "[1]", 4, 8) "}", "occurs twice"},
      {"{\"a\":" ST("F32", "[2]", 0, 12) "}", "truncated: tensor 'a' ends at byte 12"},
      {"{\"a\":" ST("F32", "[3]", 0, 8) "}", "needs 12 bytes, data_offsets give 8"},
      {"{\"a\":" ST("F32", "[2147483647,2147483647,2147483647]", 0, 8) "}", "more bytes than"},
      {"{\"a\":" ST("F32", "[9223372036854775808]", 0, 8) "}", "an integer of more than 64 bits"},
      {"{\"a\":" ST("F32", "[1]", 0, 18446744073709551616) "}", "an integer of more than 64 bits"},
      {"{\"a\":" ST("F32", "[0,2147483648]", 0, 0) "}", "shape (0, 2147483648): size 2147483648 is outside"},
      {"{\"a\":" ST("F32", "[-2]", 0, 8) "}",
       "tensor 'a': shape: expected a list of whole numbers of at least 0, got -2"},
      {"{\"a\":" ST("F32", "[2.0]", 0, 8) "}", "got 2.0"},
      {"{\"a\":" ST("F32", "[02]", 0, 8) "}", "not JSON at byte 30: invalid token near '0'"},
      {"{\"a\":" ST("F32", "[true]", 0, 8) "}", "got true"},
      {"{\"a\":" ST("F32", "\"2\"", 0, 8) "}", "got \"2\""},
      {"{\"a\":" ST("F32", "[1,1,1,1,1,1,1,1,2]", 0, 8) "}", "shape: a list of 9; at most 8 are possible"},
      {"{\"a\":" ST("F32", "[2]", 8, 0) "}", "not [begin, end]"},
      {"{\"a\":" ST("F4", "[2]", 0, 8) "}", "dtype 'F4' is not supported"},
      {"{\"\x1b[31m\":" ST("F32", "[2]", 0, 8) "}", "not JSON at byte 2: control character 0x1b"},
      {"{\"\xff\":" ST("F32", "[2]", 0, 8) "}", "unable to decode byte 0xff"},
      {"{\"\xc0\x80\":" ST("F32", "[2]", 0, 8) "}", "unable to decode byte 0xc0"},
      {"{\"\\ud800\":" ST("F32", "[2]", 0, 8) "}", "invalid Unicode"},
      {"{\"\\u0000\":" ST("F32", "[2]", 0, 8) "}", "NUL byte in object key"},
      {"{\"\\x\":" ST("F32", "[2]", 0, 8) "}", "invalid escape"},
      {"{\"\\u202e\\u009b\\u2066x\":" ST("F4", "[2]", 0, 8) "}", "tensor '???x'"},
      {"{\"a", "premature end of input"},
      {"{\"\\u001b[31m\":" ST("F4", "[2]", 0, 8) "}", "'?[31m'"},
      {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", "no dtype"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[[2]],\"data_offsets\":[0,8]}}", "nested too deeply"},
      {"{\"a\":{\"dtype\":{\"x\":1},\"shape\":[2],\"data_offsets\":[0,8]}}", "nested too deeply"},
      {"{\"a\":[]}", "nested too deeply"},
      {"{\"a\":1}", "tensor 'a' is not an object"},
      {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", "a name occurs twice, before byte 27"},
      {"{\"__metadata__\":{},\"__metadata__\":{}}", "a name occurs twice"},
      {"{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", "a name occurs twice"},
      {"{\"a\":" ST("F32", "[2]", 0, 8) ",}", "not JSON at byte"},
      {"{\"a\" 1}", "':' expected near '1'"},
      {"{}]", "unbalanced brackets"},
      {"{} x", "end of file expected near 'x'"},
      {"{\"__metadata__\":{\"a\":1}}", "not a string"},
      {"{\"__metadata__\":\"a\"}", "not an object"},
      {"{\"__metadata__\":{\"crc32:a\":\"00000000\"},\"a\":" ST("F32", "[2]", 0, 8) "}",
       "checksum is missing"},
      {"{\"__metadata__\":{\"crc32\":\"00000000\"},\"a\":" ST("F32", "[2]", 0, 8) "}",
       "checksum of the header"},
      {"[1,2]", "no JSON header"}};
  for (int i = 0; i < MAREA_COUNT(bad); i++) refuse(SAFETENSORS, safetensors(bad[i].header, 8), bad[i].why);
  refuse(SAFETENSORS, LITERAL("\1\0\x80\0\0\0\0\0{}"),
         "or truncated: header of 8388609 bytes declared, file has 10");
  refuse(SAFETENSORS, LITERAL("\xff\xff\xff\xff\xff\xff\xff\xff{}"), "header of 18446744073709551615 bytes");
  refuse(SAFETENSORS, LITERAL("\3\0\0\0\0\0\0\0{}"), "truncated");
  char *many = malloc(6 << 20), *at = many;
  at += sprintf(at, "{\"\":" ST("U8", "[0]", 0, 0));
  for (int i = 0; i <= MAREA_MAX_TENSORS; i++) at += sprintf(at, ",\"%d\":" ST("U8", "[0]", 0, 0), i);
  strcpy(at, "}");
  refuse(SAFETENSORS, safetensors(many, 0), "too many entries; at most 65536");
  memset(many, 'n', 600);
  memcpy(many, "{\"", 2);
  strcpy(many + 600, "\":" ST("U8", "[0]", 0, 0) "}");
  refuse(SAFETENSORS, safetensors(many, 0), "longer than 512");
  memset(many, '[', 5 << 20);
  memcpy(many, "{\"a\":{\"x\":", 10);
  many[5 << 20] = '\0';
  refuse(SAFETENSORS, safetensors(many, 0), "nested too deeply");
  free(many);
  bytes long_header = {malloc(9 << 20), 9 << 20};
  memset(long_header.p, ' ', long_header.n);
  memcpy(long_header.p, "\1\0\x80\0\0\0\0\0{}", 10);
  refuse(SAFETENSORS, long_header, ": header of 8388609 bytes; at most 8388608 are allowed");
}

/* ---- what jansson takes of a header is within what the context counts for it ---- */

static size_t json_now, json_peak;

static void *json_new (size_t n) {
  void *p = malloc(n);
  json_now += malloc_usable_size(p) + 16;
  json_peak = MAREA_MAX(json_peak, json_now);
  return p;
}

static void json_drop (void *p) {
  if (p) json_now -= malloc_usable_size(p) + 16;
  free(p);
}

/* Items with names of so many digits, or a list of numbers for `width` 0. */
static void check_room (const char *begin, int width, const char *item, const char *end) {
  char *header = malloc(7 << 20), *at = header + sprintf(header, "%s", begin);
  for (int i = 0; at - header < 6 << 20; i++) {
    if (i == MAREA_MAX_TENSORS) break;
    if (i) *at++ = ',';
    at += width ? sprintf(at, "\"%0*d\":%s", width, i, item) : sprintf(at, "%d", i);
  }
  strcpy(at, end);
  bytes b = safetensors(header, 0);
  marea_memory_trim(ctx);
  marea_memory_reset_peak(ctx);
  const size_t before = marea_memory(ctx).live;
  json_peak = json_now = 0;
  parse(SAFETENSORS, b.p, b.n);
  CHECK(json_now == 0 && json_peak > b.n && json_peak < marea_memory(ctx).peak - before);
  marea_memory_trim(ctx);
  marea_memory_limit(ctx, json_peak / 2); /* so that a limit keeps it from being taken at all */
  json_peak = 0;
  CHECK(parse(SAFETENSORS, b.p, b.n) == MAREA_ENOMEM && json_peak == 0);
  marea_memory_limit(ctx, 0);
  free(b.p);
  free(header);
}

static void test_header_room (void) {
  json_set_alloc_funcs(json_new, json_drop);
  check_room("{", 1, ST("U8", "[0]", 0, 0), "}");
  check_room("{", 1, "{}", "}");
  check_room("{", 1, "1", "}");
  check_room("{\"a\":{\"shape\":[", 0, "", "]}}");
  check_room("{\"a\":{", 1, "[]", "}}");
  check_room("{\"__metadata__\":{", 1, "\"\"", "}}");
  check_room("{\"__metadata__\":{", 90, "\"text\"", "}}");
  json_set_alloc_funcs(malloc, free);
}

/* What a header costs is the context's: memory against its limit, time against its budget. */
static void test_long_header (void) {
  char *many = malloc(6 << 20), *at = many;
  marea_file *f;
  at += sprintf(at, "{\"\":" ST("U8", "[0]", 0, 0));
  for (int i = 1; i < MAREA_MAX_TENSORS; i++) at += sprintf(at, ",\"%d\":" ST("U8", "[0]", 0, 0), i);
  strcpy(at, "}");
  bytes b = safetensors(many, 0);
  marea_memory_trim(ctx);
  const marea_memory_info before = marea_memory(ctx);
  for (size_t limit = 1 << 20; limit < 40 << 20; limit *= 3) {
    marea_memory_limit(ctx, limit);
    CHECK(marea_parse_safetensors(ctx, "long", b.p, b.n, &f) == MAREA_ENOMEM && !f);
    CHECK(marea_memory(ctx).live == before.live);
  }
  marea_memory_limit(ctx, before.limit);
  marea_limit_time(ctx, 1e-3);
  CHECK(marea_parse_safetensors(ctx, "long", b.p, b.n, &f) == MAREA_EBUDGET && !f);
  marea_limit_time(ctx, 0);
  CHECK_OK(marea_parse_safetensors(ctx, "long", b.p, b.n, &f));
  CHECK(marea_file_count(f) == MAREA_MAX_TENSORS);
  marea_file_free(f);
  free(b.p), free(many);
}

/* ---- round trips and values ---- */

static void test_npy (void) {
  for (int dtype = 0; dtype < MAREA_DTYPE_COUNT; dtype++)
    for (int rank = 0; rank <= MAREA_MAX_RANK; rank++) {
      marea_tensor *t = make((marea_dtype)dtype, rank, (int64_t[]){2, 3, 1, 2, 1, 2, 3, 2}, 5), *u;
      if (dtype == MAREA_BF16) {
        CHECK(marea_save_npy(t, in_folder("a.npy")) == MAREA_EARG &&
              strstr(marea_error(ctx), "have no bf16"));
        marea_release(t);
        continue;
      }
      CHECK_OK(marea_save_npy(t, in_folder("a.npy")));
      CHECK_OK(marea_load_npy(ctx, in_folder("a.npy"), &u));
      CHECK(same(t, u));
      marea_release(u);
      marea_release(t);
    }
  bytes b = slurp(in_folder("a.npy"));
  CHECK(b.n == 128 + 2 * 144 && b.p[127] == '\n');
  free(b.p);
  marea_tensor *t = MAKE(MAREA_F64, 1, 4, 6), *view = transposed(t), *u;
  CHECK_OK(marea_save_npy(view, in_folder("a.npy")));
  CHECK_OK(marea_load_npy(ctx, in_folder("a.npy"), &u));
  CHECK(same(view, u));
  marea_release(t), marea_release(view), marea_release(u);
  bytes f = fortran();
  CHECK_OK(marea_parse_npy(ctx, "sample", f.p, f.n, &t));
  const int64_t *v = marea_tensor_data(t), want[] = {0, 2, 4, 1, 3, -32763};
  CHECK(marea_tensor_dtype(t) == MAREA_I64 && t->shape[0] == 2 && memcmp(v, want, sizeof want) == 0);
  marea_release(t);
  free(f.p);
  bytes e = npy("{'descr': '<f8', 'fortran_order': True, 'shape': (0, 3), }", 0);
  CHECK_OK(marea_parse_npy(ctx, "sample", e.p, e.n, &t));
  CHECK(t->rank == 2 && t->shape[0] == 0 && t->shape[1] == 3);
  marea_release(t);
  free(e.p);
}

static void test_memory (void) {
  marea_file *f = make_file(1), *g;
  marea_tensor *t;
  CHECK_OK(marea_file_encode(f, &t));
  CHECK_OK(marea_file_parse(ctx, marea_tensor_data(t), (size_t)marea_tensor_size(t), &g));
  CHECK(same_files(f, g));
  marea_file_free(g);
  CHECK(marea_file_parse(ctx, marea_tensor_data(t), (size_t)marea_tensor_size(t) - 1, &g) == MAREA_EFORMAT &&
        !g);
  marea_release(t);
  uint64_t k = 1;
  for (marea_status status = MAREA_ENOMEM; status == MAREA_ENOMEM; k++) {
    marea_memory_fail(ctx, k, false);
    status = marea_file_encode(f, &t);
    CHECK((status == MAREA_OK) == (t != NULL) && (status == MAREA_OK || status == MAREA_ENOMEM));
    marea_memory_fail(ctx, 0, false);
  }
  CHECK(k > 3);
  marea_release(t);
  marea_file_free(f);
}

static void test_npz (void) {
  marea_file *f, *g;
  marea_tensor *half;
  CHECK_OK(marea_file_new(ctx, &f));
  for (int dtype = 0; dtype < MAREA_DTYPE_COUNT; dtype++) {
    if (dtype == MAREA_BF16) continue;
    marea_tensor *t = make((marea_dtype)dtype, 2, (int64_t[]){3, 5}, 5);
    CHECK_OK(marea_file_add(f, (const char *[]){"a", "a-b", "\xc3\xa9", "", "b/c", "d"}[dtype % 6], t));
    marea_release(t);
  }
  CHECK_OK(marea_save_npz(f, in_folder("a.npz")));
  CHECK_OK(marea_load_npz(ctx, in_folder("a.npz"), &g));
  CHECK(same_files(f, g));
  marea_file_free(g);
  CHECK_OK(marea_load_zip(ctx, in_folder("a.npz"), &g)); /* the same, as bytes: a header and 15 elements */
  CHECK(marea_file_count(g) == marea_file_count(f) && marea_tensor_size(marea_file_find(g, "d.npy")) > 15);
  CHECK(memcmp(marea_tensor_data(marea_file_find(g, "d.npy")), "\x93NUMPY", 6) == 0);
  marea_file_free(g);
  CHECK_OK(marea_empty(ctx, MAREA_BF16, 1, (int64_t[]){2}, &half));
  CHECK_OK(marea_file_add(f, "half", half));
  CHECK(marea_save_npz(f, in_folder("b.npz")) == MAREA_EARG &&
        strstr(marea_error(ctx), "save_npz: NPY files have no bf16"));
  marea_release(half);
  marea_file_free(f);
  CHECK_OK(marea_file_new(ctx, &f)); /* an archive of nothing */
  bytes b = saved_npz(f);
  CHECK(b.n == 22);
  CHECK_OK(marea_parse_npz(ctx, "sample", b.p, b.n, &g));
  CHECK(marea_file_count(g) == 0);
  marea_file_free(g);
  free(b.p);
}

static void test_torch (void) {
  bytes b = TORCH_FILE("\x80\2]q\0(h\0K\5N" TENSOR(STORAGE("Short", "K\2"), "K\0K\2\x85K\1\x85") "e.");
  marea_tree *t;
  marea_tree_value v;
  int key, node[4];
  CHECK_OK(parse_tree(marea_parse_torch, b.p, b.n, &t));
  marea_tree_value_at(t, marea_tree_root(t), &v);
  CHECK(v.kind == MAREA_TREE_LIST && v.count == 4);
  for (int cell = v.first, i = 0; cell; i++) cell = marea_tree_next(t, cell, &key, &node[i]);
  CHECK(node[0] == marea_tree_root(t));
  marea_tree_value_at(t, node[1], &v);
  CHECK(v.kind == MAREA_TREE_INTEGER && v.integer == 5);
  marea_tree_value_at(t, node[3], &v);
  CHECK(v.kind == MAREA_TREE_TENSOR && marea_tensor_dtype(v.tensor) == MAREA_I64);
  CHECK(((int64_t *)marea_tensor_data(v.tensor))[1] == 0x3f80);
  marea_tree_free(t);
  free(b.p);
}

static void test_idx (void) {
  static const struct {
    uint8_t bytes[16];
    size_t n;
    marea_dtype dtype;
    double value[2];
  } cases[] = {{{0, 0, 8, 1, 0, 0, 0, 2, 200, 1}, 10, MAREA_U8, {200, 1}},
               {{0, 0, 9, 1, 0, 0, 0, 2, 200, 1}, 10, MAREA_I64, {-56, 1}},
               {{0, 0, 11, 1, 0, 0, 0, 2, 0xff, 0xfe, 1, 0}, 12, MAREA_I64, {-2, 256}},
               {{0, 0, 12, 1, 0, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 1, 0}, 16, MAREA_I64, {-2147483648.0, 256}},
               {{0, 0, 13, 1, 0, 0, 0, 2, 0x3f, 0xc0, 0, 0, 0xc0, 0, 0, 0}, 16, MAREA_F32, {1.5, -2}},
               {{0, 0, 14, 1, 0, 0, 0, 1, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0}, 16, MAREA_F64, {1.5, 0}}};
  for (int i = 0; i < MAREA_COUNT(cases); i++) {
    bytes zipped = gzip(cases[i].bytes, cases[i].n);
    for (int z = 0; z < 2; z++) {
      marea_tensor *t;
      CHECK_OK(marea_parse_idx(ctx, "a", z ? zipped.p : cases[i].bytes, z ? zipped.n : cases[i].n, &t));
      CHECK(marea_tensor_dtype(t) == cases[i].dtype);
      const void *p = marea_tensor_data(t);
      for (int k = 0; k < marea_tensor_size(t); k++) {
        double got = t->dtype == MAREA_U8    ? ((const uint8_t *)p)[k]
                     : t->dtype == MAREA_I64 ? (double)((const int64_t *)p)[k]
                     : t->dtype == MAREA_F32 ? (double)((const float *)p)[k]
                                             : ((const double *)p)[k];
        CHECK(got == cases[i].value[k]);
      }
      marea_release(t);
    }
    spill(in_folder("a.idx"), zipped.p, zipped.n);
    marea_tensor *t;
    CHECK_OK(marea_load_idx(ctx, in_folder("a.idx"), &t));
    marea_release(t);
    free(zipped.p);
  }
}

/* Pictures of other writers: 16 bits are cut to 8 without a change of gamma, a palette becomes colors. */
static void test_png_kinds (void) {
  png_image image = {.version = PNG_IMAGE_VERSION,
                     .width = 2,
                     .height = 1,
                     .format = PNG_FORMAT_RGB_COLORMAP,
                     .colormap_entries = 2};
  static const uint8_t colors[] = {1, 2, 3, 250, 251, 252}, pixels[] = {1, 0},
                       want[] = {250, 251, 252, 1, 2, 3};
  uint8_t file[2000];
  size_t n = sizeof file;
  marea_tensor *t;
  CHECK(png_image_write_to_memory(&image, file, &n, 0, pixels, 0, colors));
  CHECK_OK(marea_parse_png(ctx, "palette", file, n, &t));
  CHECK(t->rank == 3 && t->shape[2] == 3 && memcmp(marea_tensor_data(t), want, 6) == 0);
  marea_release(t);
  image = (png_image){.version = PNG_IMAGE_VERSION, .width = 2, .height = 1, .format = PNG_FORMAT_LINEAR_Y};
  n = sizeof file;
  CHECK(png_image_write_to_memory(&image, file, &n, 0, (const uint16_t[]){0, 65535}, 0, NULL));
  CHECK_OK(marea_parse_png(ctx, "16 bits", file, n, &t));
  CHECK(t->shape[2] == 1 && memcmp(marea_tensor_data(t), (uint8_t[]){0, 255}, 2) == 0);
  marea_release(t);
  CHECK_OK(marea_parse_png16(ctx, "16 bits", file, n, &t));
  CHECK(t->dtype == MAREA_I64 && t->shape[2] == 1 &&
        memcmp(marea_tensor_data(t), (int64_t[]){0, 65535}, 16) == 0);
  marea_release(t);
}

/* The bytes in memory are those of the file. */
static void test_png_bytes (void) {
  marea_tensor *t = MAKE(MAREA_F32, 3, 100, 300, 3), *view = transposed(t), *file, *u;
  CHECK_OK(marea_encode_png(view, &file));
  CHECK(file->dtype == MAREA_U8 && file->rank == 1);
  CHECK_OK(marea_parse_png(ctx, "bytes", marea_tensor_data(file), (size_t)file->shape[0], &u));
  CHECK(u->shape[0] == 300 && u->shape[1] == 100 && u->shape[2] == 3);
  marea_release(file), marea_release(u);
  marea_interrupt(ctx);
  CHECK(marea_encode_png(view, &file) == MAREA_EINTR && file == NULL);
  marea_release(t), marea_release(view);
  t = MAKE(MAREA_I64, 0, 2, 2);
  CHECK(marea_encode_png(t, &file) == MAREA_ESHAPE && file == NULL);
  CHECK(strncmp(marea_error(ctx), "encode_png: expected u8, f32 or f64", 35) == 0);
  marea_release(t);
}

static void test_png (void) {
  for (int64_t channels = 1; channels <= 4; channels++) {
    marea_tensor *t = MAKE(MAREA_U8, 3, 16, 17, channels), *u;
    CHECK_OK(marea_save_png(t, in_folder("a.png")));
    CHECK_OK(marea_load_png(ctx, in_folder("a.png"), &u));
    CHECK(same(t, u));
    marea_release(t), marea_release(u);
  }
  marea_tensor *f = MAKE(MAREA_F32, 0, 2, 4), *view = transposed(f), *u;
  const float in[] = {NAN, -1, 0.5f, 1, INFINITY, 1.0f / 255, -INFINITY, 0.2499f / 255};
  memcpy(marea_tensor_data(f), in, sizeof in);
  CHECK_OK(marea_save_png(view, in_folder("a.png")));
  CHECK_OK(marea_load_png(ctx, in_folder("a.png"), &u));
  CHECK(u->shape[0] == 4 && u->shape[1] == 2 && u->shape[2] == 1);
  CHECK(memcmp(marea_tensor_data(u), (uint8_t[]){0, 255, 0, 1, 128, 0, 255, 0}, 8) == 0);
  marea_release(f), marea_release(view), marea_release(u);
  marea_tensor *bad[] = {MAKE(MAREA_I64, 0, 2, 2), MAKE(MAREA_U8, 0, 2), MAKE(MAREA_U8, 0, 2, 2, 5),
                         MAKE(MAREA_U8, 0, 2, 0)};
  f = MAKE(MAREA_F64, 0, 1, 2000000);
  CHECK(marea_save_png(f, in_folder("never.png")) == MAREA_ESHAPE && strstr(marea_error(ctx), "sides up to"));
  marea_release(f);
  for (int i = 0; i < MAREA_COUNT(bad); i++) {
    CHECK(marea_save_png(bad[i], in_folder("never.png")) == MAREA_ESHAPE);
    marea_release(bad[i]);
  }
  CHECK(access(in_folder("never.png"), F_OK) != 0);
  test_png_kinds();
  test_png_bytes();
}

static void test_bool (void) {
  bytes b = npy("{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }", 2);
  b.p[b.n - 1] = 7;
  marea_tensor *t;
  CHECK_OK(marea_parse_npy(ctx, "truth", b.p, b.n, &t));
  CHECK(t->dtype == MAREA_U8 && memcmp(marea_tensor_data(t), (uint8_t[]){0, 1}, 2) == 0);
  marea_release(t);
  free(b.p);
}

static void test_halves (void) {
  bytes b = safetensors("{\"h\":" ST("F16", "[7]", 0, 14) ",\"b\":" ST("BF16", "[1]", 14, 16) "}", 16);
  const uint16_t words[] = {0x3c00, 0x0001, 0x03ff, 0x0400, 0xfbff, 0x7c00, 0x8000, 0xc049};
  const double want[] = {1, 0x1p-24, 0x1.ff8p-15, 0x1p-14, -65504, INFINITY, -0.0};
  memcpy(b.p + b.n - 16, words, 16);
  marea_file *f;
  CHECK_OK(marea_parse_safetensors(ctx, "halves", b.p, b.n, &f));
  CHECK(strcmp(marea_file_name(f, 1), "h") == 0);
  const uint16_t *h = marea_tensor_data(marea_file_tensor(f, 1)),
                 *b16 = marea_tensor_data(marea_file_tensor(f, 0));
  CHECK(memcmp(h, words, 14) == 0);
  for (int i = 0; i < 7; i++) CHECK(marea_number_at(MAREA_F16, h + i) == want[i]);
  CHECK(marea_number_at(MAREA_BF16, b16) == -3.140625);
  marea_file_free(f);
  free(b.p);
}

static void test_safetensors (void) {
  marea_file *f = make_file(1), *g;
  marea_tensor *t = MAKE(MAREA_F32, 0, 3, 5), *view = transposed(t);
  CHECK_OK(marea_file_add(f, "view", view));
  CHECK_OK(marea_file_save(f, in_folder("a.safetensors")));
  CHECK_OK(marea_file_save(f, in_folder("b.safetensors")));
  bytes a = slurp(in_folder("a.safetensors")), b = slurp(in_folder("b.safetensors"));
  CHECK(a.n == b.n && memcmp(a.p, b.p, a.n) == 0 && a.p[0] % 8 == 0);
  CHECK_OK(marea_file_load(ctx, in_folder("a.safetensors"), &g));
  CHECK(same_files(f, g) && marea_file_text_count(g) == 2);
  CHECK(marea_file_add(g, "view", view) == MAREA_EARG && strstr(marea_error(ctx), "given twice"));
  CHECK(marea_file_add(g, "__metadata__", view) == MAREA_EARG);
  CHECK(marea_file_add(g, "\xff", view) == MAREA_EARG && strstr(marea_error(ctx), "UTF-8"));
  CHECK(marea_file_add_text(g, "crc32:x", "") == MAREA_EARG &&
        marea_file_add_text(g, "marea", "") == MAREA_EARG);
  char *large = malloc(9 << 20);
  memset(large, 'x', 9 << 20);
  large[(9 << 20) - 1] = '\0';
  CHECK(marea_file_add(g, large, view) == MAREA_EARG && strstr(marea_error(ctx), "at most 512"));
  CHECK_OK(marea_file_add_text(g, "large", large));
  CHECK(marea_file_save(g, in_folder("c.safetensors")) == MAREA_EARG);
  free(large);
  a.p[a.n - 1] ^= 1; /* the last tensor of the file is the narrowest, "bytes" */
  CHECK(parse(SAFETENSORS, a.p, a.n) == MAREA_EFORMAT);
  CHECK(strcmp(marea_error(ctx), "load: 'sample': damaged: wrong checksum of tensor 'bytes'") == 0);
  free(a.p), free(b.p);
  marea_file_free(f), marea_file_free(g);
  marea_release(t), marea_release(view);
  test_halves();
  test_bool();
}

/* What the libraries wrote to stderr meanwhile: nothing, hopefully. */
static void test_quietly (long random_flips) {
  FILE *noise = tmpfile();
  int stderr_copy = dup(2);
  struct stat st;
  CHECK(noise && stderr_copy >= 0 && dup2(fileno(noise), 2) == 2);
  test_bad_png();
  test_bad_safetensors();
  test_attacks(random_flips);
  CHECK(fstat(2, &st) == 0 && st.st_size == 0);
  dup2(stderr_copy, 2);
  close(stderr_copy);
  fclose(noise);
}

int main (int argc, char **argv) {
  long random_flips = argc > 1 ? strtol(argv[1], NULL, 10) : 1000;
  begin_test();
  if (!setlocale(LC_ALL, "de_DE.UTF-8")) setlocale(LC_ALL, "");
  test_npy();
  test_memory();
  test_npz();
  test_torch();
  test_idx();
  test_png();
  test_safetensors();
  test_bad_idx();
  test_bad_npy();
  test_bad_npz();
  test_bad_torch();
  test_bad_gguf();
  test_bad_t7();
  test_header_room();
  test_long_header();
  test_quietly(random_flips);
  end_test();
  printf("io_test: %ld hostile inputs, %ld refused, the others harmless\n", tries, rejected);
  return 0;
}
