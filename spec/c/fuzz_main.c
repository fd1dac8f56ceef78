/* SPDX-License-Identifier: MIT
** fuzz_main.c: what libFuzzer would do, for gcc: files of each format, made here, are changed at random (mutate.h) and
** handed to fuzz_io.c, so many of each kind as the argument says. The same numbers each time.
**
**   fuzz [TRIES [KIND [SEED]]]       KIND: -1 for all of them
*/
#include <unistd.h>
#include <zlib.h>

#include "../../core/io/io.h"

#define KINDS 13 /* of fuzz_io.c */
#include "mutate.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* In place of the pool, which has room behind its blocks. */
void *fuzz_alloc (marea_context *ctx, size_t n);
void fuzz_free (marea_context *ctx, void *p);
void *fuzz_alloc (marea_context *ctx, size_t n) { return (void)ctx, n > 1 << 20 ? NULL : malloc(n ? n : 1); }
void fuzz_free (marea_context *ctx, void *p) { (void)ctx, free(p); }

static void add_file (int kind, const char *path) {
  uint8_t bytes[LONGEST];
  FILE *f = fopen(path, "rb");
  const size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
  if (!f || n == sizeof bytes) abort();
  fclose(f);
  add(kind, bytes, n);
}

static void add_idx (void) {
  static const uint8_t types[] = {8, 9, 11, 12, 13, 14}, sizes[] = {1, 1, 2, 4, 4, 8};
  for (int i = 0; i < 6; i++) {
    uint8_t file[200] = {0, 0, types[i], 2, 0, 0, 0, 3, 0, 0, 0, 4}, zipped[300];
    const size_t n = 12 + 12u * sizes[i];
    for (size_t k = 12; k < n; k++) file[k] = (uint8_t)(k * 37);
    add(0, file, n);
    z_stream z = {.next_in = file, .avail_in = (uInt)n, .next_out = zipped, .avail_out = sizeof zipped};
    need(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) == Z_OK &&
         deflate(&z, Z_FINISH) == Z_STREAM_END);
    add(0, zipped, z.total_out);
    deflateEnd(&z);
  }
}

static void add_npy (void) {
  static const char *const types[] = {"<f4", ">f8", "<i8", "|u1", ">i2", "<u4", "|b1", "<f2"};
  for (int i = 0; i < 8; i++) {
    uint8_t file[400] = "\x93NUMPY\1\0\x76\0";
    int n = snprintf((char *)file + 10, 119, "{'descr': '%s', 'fortran_order': %s, 'shape': (2, 3), }%*s\n",
                     types[i], i % 2 ? "True" : "False", 40, "");
    memset(file + 10 + n, ' ', (size_t)(118 - n));
    file[127] = '\n';
    add(1, file, 128 + 6u * (size_t)(types[i][2] - '0'));
  }
}

/* An archive of one deflated array, which a single word in its headers makes one of another method or size. */
static void add_deflated (marea_context *ctx) {
  marea_file *f;
  uint8_t array[152] = "\x93NUMPY\1\0\x76\0{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }",
          file[400] = "";
  z_stream z = {.next_in = array, .avail_in = 152, .next_out = file + 35, .avail_out = 200};
  memset(array + 68, ' ', 60);
  array[127] = '\n';
  need(deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK &&
       deflate(&z, Z_FINISH) == Z_STREAM_END);
  const uint32_t packed = (uint32_t)z.total_out, place = 35 + packed,
                 sizes[] = {(uint32_t)crc32_z(0, array, 152), packed, 152};
  deflateEnd(&z);
  uint8_t *at = file + place;
  memcpy(file, "PK\3\4\24\0\0\0\x08\0", 10);
  memcpy(file + 14, sizes, 12);
  memcpy(file + 26, "\5\0\0\0w.npy", 9);
  memcpy(at, "PK\1\2\24\0\24\0\0\0\x08\0", 12);
  memcpy(at + 16, sizes, 12);
  at[28] = 5;
  memcpy(at + 46, "w.npyPK\5\6\0\0\0\0\1\0\1\0\x33", 18);
  memcpy(at + 67, &place, 4);
  need(marea_parse_npz(ctx, "seed", file, place + 73, &f) == MAREA_OK && marea_file_count(f) == 1);
  marea_file_free(f);
  add(8, file, place + 73);
}

/* A file of torch.save: a dict of a tensor, and every kind of value. */
static void add_torch (marea_context *ctx) {
  static const char pickle[] =
      "\x80\2}q\0(X\1\0\0\0wctorch._utils\n_rebuild_tensor_v2\nq\1((X\7\0\0\0storagectorch\nFloatStorage\n"
      "X\1\0\0\0000X\3\0\0\0cpuK\6tQK\0K\2K\3\x86K\1K\2\x86\x89"
      "ccollections\nOrderedDict\n)RtRK\1](NM\1\1J\1\1\1\xff"
      "\x8a\2\1\1G\x3f\xf0\0\0\0\0\0\0h\0\x88\205eu.";
  char path[] = "/tmp/marea-fuzz-XXXXXX";
  const int fd = mkstemp(path);
  marea_zip_writer z;
  need(fd >= 0 && close(fd) == 0 && marea_zip_begin(ctx, "fuzz", path, &z) == MAREA_OK);
  need(marea_zip_add(&z, "a/data.pkl", 0) == MAREA_OK &&
       marea_zip_write(&z, pickle, sizeof pickle - 1) == MAREA_OK);
  need(marea_zip_add(&z, "a/data/0", 0) == MAREA_OK && marea_zip_write(&z, pickle, 24) == MAREA_OK);
  need(marea_zip_end(&z, MAREA_OK) == MAREA_OK);
  add_file(9, path);
  unlink(path);
  marea_tree *t;
  need(marea_parse_torch(ctx, "seed", seeds[9][0].p, seeds[9][0].n, &t) == MAREA_OK);
  marea_tree_free(t);
}

static void add_safetensors (marea_context *ctx) {
  static const char *const headers[] = {
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
      "{\"__metadata__\":{\"k\":\"v\\u00e9\\\"\"},\"b\":{\"shape\":[2,1],\"dtype\":\"BF16\",\"data_offsets\":"
      "[0,4]},\"\\ud83d\\ude00\":"
      "{\"data_offsets\":[4,8],\"dtype\":\"I16\",\"shape\":[2],\"more\":{\"x\":[1.5e3,null,{\"y\":[[]]}]}}}",
      "{ \"x\" : { \"dtype\" : \"U8\", \"shape\" : [ 0 , 3 ], \"data_offsets\" : [ 0, 0 ] } } \n"};
  for (int i = 0; i < 3; i++) {
    uint8_t file[600] = {(uint8_t)strlen(headers[i])};
    const size_t n = strlen(headers[i]);
    memcpy(file + 8, headers[i], n);
    add(3, file, 8 + n + (i < 2 ? 8 : 0));
    add(4, file, 8 + n + (i < 2 ? 8 : 0));
    add(7, (const uint8_t *)headers[i], n);
  }
  marea_file *f;
  marea_tensor *t;
  char path[] = "/tmp/marea-fuzz-XXXXXX";
  const int fd = mkstemp(path);
  need(fd >= 0 && close(fd) == 0);
  need(marea_file_new(ctx, &f) == MAREA_OK &&
       marea_zeros(ctx, MAREA_F32, 2, (int64_t[]){2, 3}, &t) == MAREA_OK);
  need(marea_file_add(f, "enc.weight", t) == MAREA_OK && marea_file_add_text(f, "epoch", "3") == MAREA_OK);
  need(marea_file_save(f, path) == MAREA_OK);
  add_file(3, path);
  need(marea_save_npz(f, path) == MAREA_OK);
  add_file(8, path);
  unlink(path);
  add_deflated(ctx);
  add_torch(ctx);
  marea_file_free(f);
  marea_release(t);
}

static void read_one (int kind, const uint8_t *p, size_t n) {
  uint8_t *exact = malloc(1 + n); /* so that the byte behind it is the sanitizer's */
  exact[0] = (uint8_t)kind;
  memcpy(exact + 1, p, n);
  LLVMFuzzerTestOneInput(exact, 1 + n);
  free(exact);
}

int main (int argc, char **argv) {
  const request asked = read_request(argc, argv);
  marea_context *ctx;
  need(marea_open(NULL, &ctx) == MAREA_OK);
  add_idx();
  add_npy();
  for (int kind = 2; kind <= 6; kind += kind == 2 ? 3 : 1)
    add_golden("spec/golden/png.lua", "89504e470d0a1a0a", kind);
  add_golden("spec/golden/jpeg.lua", "ffd8", 12);
  add_golden("spec/golden/gguf.lua", "47475546", 10);
  add_golden("spec/golden/t7.lua", "0300000001000000", 11);
  add_golden("spec/golden/t7.lua", "0400000001000000", 11);
  add_safetensors(ctx);
  marea_close(ctx);
  for (int kind = 0; kind < KINDS; kind++)
    if (asked.kind < 0 || asked.kind == kind) read_mutated(kind, asked.tries, read_one);
  printf("fuzz: %ld files of each of %d kinds, from %d + %d + %d + %d seeds\n", asked.tries, KINDS, count[0],
         count[1], count[2], count[3]);
  return 0;
}
