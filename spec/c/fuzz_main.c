/* SPDX-License-Identifier: MIT
** fuzz_main.c: what libFuzzer would do, for gcc: files of each format, made here, are changed at random and handed to
** fuzz_io.c, so many of each kind as the argument says. The same numbers each time.
**
**   fuzz [TRIES [KIND [SEED]]]       KIND: -1 for all of them
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "../../core/io/io.h"

#define KINDS 13 /* of fuzz_io.c */
#define SEEDS 64
#define LONGEST 8192

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* In place of the pool, which has room behind its blocks. */
void *fuzz_alloc (marea_context *ctx, size_t n);
void fuzz_free (marea_context *ctx, void *p);
void *fuzz_alloc (marea_context *ctx, size_t n) { return (void)ctx, n > 1 << 20 ? NULL : malloc(n ? n : 1); }
void fuzz_free (marea_context *ctx, void *p) { (void)ctx, free(p); }

static uint64_t state = 1;
static uint64_t draw (uint64_t below) { /* splitmix64 */
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (z ^ z >> 31) % below;
}

typedef struct seed {
  size_t n;
  uint8_t p[LONGEST];
} seed;
static seed seeds[KINDS][SEEDS];
static int count[KINDS];

static void add (int kind, const void *p, size_t n) {
  if (n > LONGEST || count[kind] == SEEDS) return;
  seed *s = &seeds[kind][count[kind]++];
  s->n = n;
  memcpy(s->p, p, n);
}

static void add_file (int kind, const char *path) {
  uint8_t bytes[LONGEST];
  FILE *f = fopen(path, "rb");
  const size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
  if (!f || n == sizeof bytes) abort();
  fclose(f);
  add(kind, bytes, n);
}

static void need (bool good) {
  if (!good) abort();
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

/* The files in a golden one, as long hexadecimal strings that begin with `start`. */
static void add_golden (const char *path, const char *start, int kind) {
  static char line[1 << 16];
  FILE *f = fopen(path, "r");
  need(f);
  while (fgets(line, sizeof line, f)) {
    const char *hex = strstr(line, start);
    uint8_t bytes[LONGEST];
    size_t n = 0;
    unsigned byte;
    for (; hex && n < LONGEST && sscanf(hex, "%2x", &byte) == 1 && hex[1] != '"'; hex += 2)
      bytes[n++] = (uint8_t)byte;
    if (n) add(kind, bytes, n);
  }
  fclose(f);
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

/* Changes the n bytes at p, which has room for LONGEST; the new length. */
static size_t mutate (uint8_t *p, size_t n) {
  static const char *const words[] = {"\"",
                                      "{",
                                      "}",
                                      "[",
                                      "]",
                                      ":",
                                      ",",
                                      "\\u0041",
                                      "18446744073709551616",
                                      "-1",
                                      "1e9",
                                      "\xff\xff\xff\xff",
                                      "\0\0\0\0",
                                      "\x7f\xff\xff\xff",
                                      "\xe2\x80\xae",
                                      "(",
                                      ")",
                                      "'"};
  for (uint64_t times = 1 + draw(6); times > 0; times--) {
    const size_t at = n ? draw(n) : 0;
    switch (draw(6)) {
    case 0:
      if (n) p[at] ^= (uint8_t)(1 << draw(8));
      break;
    case 1:
      if (n) p[at] = (uint8_t)draw(256);
      break;
    case 2: n = at; break;
    case 3: { /* a piece from elsewhere in it */
      const size_t from = n ? draw(n) : 0, length = draw(1 + MAREA_MIN(n - MAREA_MAX(at, from), 64));
      memmove(p + at, p + from, length);
      break;
    }
    case 4: { /* a word put in */
      const char *word = words[draw(MAREA_COUNT(words))];
      const size_t length = *word ? strlen(word) : 4;
      if (n + length > LONGEST) break;
      memmove(p + at + length, p + at, n - at);
      memcpy(p + at, word, length);
      n += length;
      break;
    }
    default: { /* some bytes less */
      const size_t length = draw(1 + MAREA_MIN(n - at, 16));
      memmove(p + at, p + at + length, n - at - length);
      n -= length;
    }
    }
  }
  return n;
}

int main (int argc, char **argv) {
  const long tries = argc > 1 ? strtol(argv[1], NULL, 10) : 20000;
  const long only = argc > 2 ? strtol(argv[2], NULL, 10) : -1;
  state = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
  static uint8_t file[1 + LONGEST];
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
    for (long i = 0; i < tries && (only < 0 || only == kind); i++) {
      const seed *s = &seeds[kind][i % count[kind]];
      memcpy(file + 1, s->p, s->n);
      file[0] = (uint8_t)kind;
      size_t n = i < count[kind] ? s->n : mutate(file + 1, s->n);
      uint8_t *exact = malloc(1 + n); /* so that the byte behind it is the sanitizer's */
      memcpy(exact, file, 1 + n);
      LLVMFuzzerTestOneInput(exact, 1 + n);
      free(exact);
    }
  printf("fuzz: %ld files of each of %d kinds, from %d + %d + %d + %d seeds\n", tries, KINDS, count[0],
         count[1], count[2], count[3]);
  return 0;
}
