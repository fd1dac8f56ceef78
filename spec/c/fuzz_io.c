/* SPDX-License-Identifier: MIT
** fuzz_io.c: the parsers of core/io under libFuzzer. The first byte of an input chooses the parser.
** PNG's checksums are put right first, for no fuzzer guesses them; kind 5 leaves them alone. Kind 6 reads 16 bits, kind 7 JSON, kind 8 NPZ, kind 9 PyTorch, kind 10 GGUF, kind 11 Torch7, kind 12 JPEG.
**
** Build: clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all spec/c/fuzz_io.c (core)
** -lpng -ljpeg -lminizip -lz -ljansson
** Run:   fuzz_io -malloc_limit_mb=64 -timeout=2 -max_len=4096 FOLDER_OF_SEEDS
** Where clang is missing, `make fuzz` does the same with gcc and the mutations of fuzz_main.c.
*/
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "../../core/io/io.h"

marea_parser marea_parse_idx, marea_parse_npy, marea_parse_png, marea_parse_png16, marea_parse_jpeg;

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static void repair_png (uint8_t *p, size_t n) {
  for (size_t at = 8; n >= 12 && at <= n - 12;) {
    size_t length = (size_t)p[at] << 24 | (size_t)p[at + 1] << 16 | (size_t)p[at + 2] << 8 | p[at + 3];
    if (length > n - at - 12) return;
    uint32_t crc = __builtin_bswap32((uint32_t)crc32_z(0, p + at + 4, length + 4));
    memcpy(p + at + 8 + length, &crc, 4);
    at += length + 12;
  }
}

/* The checksums of stored members, in their own headers and in the directory, where the headers are not damaged. */
static void repair_zip (uint8_t *p, size_t n) {
  for (size_t at = 0; n >= 46 && at <= n - 46; at++) {
    if (memcmp(p + at, "PK\1\2", 4) != 0) continue;
    uint32_t size, place, crc; /* packed size at byte 20, place of the member's header at byte 42 */
    memcpy(&size, p + at + 20, 4);
    memcpy(&place, p + at + 42, 4);
    if (place > n - 30 || p[at + 10]) continue;
    const size_t from = (size_t)place + 30 + p[place + 26] + p[place + 28];
    if (from > n || size > n - from) continue;
    crc = (uint32_t)crc32_z(0, p + from, size);
    memcpy(p + at + 16, &crc, 4);
    memcpy(p + place + 14, &crc, 4);
  }
}

/* Reads every byte of a result, for the sanitizer to see. */
static void touch (const marea_tensor *t) {
  const volatile uint8_t *p = marea_tensor_data(t);
  size_t n = (size_t)marea_tensor_size(t) * marea_dtype_size(marea_tensor_dtype(t));
  for (size_t i = 0; i < n; i++) (void)p[i];
}

static void read_json (marea_context *ctx, const uint8_t *p, size_t n) {
  marea_json *j;
  marea_json_value v;
  if (marea_json_read(ctx, (const char *)p, n, &j) != MAREA_OK) return;
  for (int i = 0; i < 200; i++) marea_json_next(j, &v); /* also behind the end */
  marea_json_free(j);
  if (marea_memory(ctx).blocks != 0) abort();
  marea_memory_trim(ctx);
}

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size) {
  static marea_parser *const parsers[] = {marea_parse_idx, marea_parse_npy,  marea_parse_png, NULL, NULL,
                                          marea_parse_png, marea_parse_png16};
  static marea_context *ctx;
  if (!ctx && marea_open(&(marea_config){.size = sizeof(marea_config), .threads = 1, .max_bytes = 1 << 20},
                         &ctx) != MAREA_OK)
    abort();
  if (size == 0) return 0;
  int kind = data[0] % 13;
  size_t n = size - 1;
  uint8_t *copy = malloc(n);
  if (n) memcpy(copy, data + 1, n);
  if (kind == 2 || kind == 6) repair_png(copy, n);
  if (kind == 9) repair_zip(copy, n);
  marea_tensor *t = NULL;
  marea_file *f = NULL;
  marea_tree *tree = NULL;
  if (kind == 7) {
    read_json(ctx, copy, n);
    free(copy);
    return 0;
  }
  marea_status status = kind == 12               ? marea_parse_jpeg(ctx, "input", copy, n, &t)
                        : kind == 11             ? marea_parse_t7(ctx, "input", copy, n, &tree)
                        : kind == 10             ? marea_parse_gguf(ctx, "input", copy, n, &tree)
                        : kind == 9              ? marea_parse_torch(ctx, "input", copy, n, &tree)
                        : kind == 8              ? marea_parse_npz(ctx, "input", copy, n, &f)
                        : kind == 3 || kind == 4 ? marea_parse_safetensors(ctx, "input", copy, n, &f)
                                                 : parsers[kind](ctx, "input", copy, n, &t);
  free(copy);
  if ((status == MAREA_OK) != (t || f || tree)) abort();
  if (t) touch(t);
  for (int i = 0; f && i < marea_file_count(f); i++) touch(marea_file_tensor(f, i));
  marea_release(t);
  for (int i = 0; i < marea_tree_count(tree); i++) {
    marea_tree_value v;
    marea_tree_value_at(tree, i, &v);
    if (v.tensor) touch(v.tensor);
    for (size_t k = 0; v.text && k < v.count; k++) (void)((const volatile char *)v.text)[k];
  }
  marea_file_free(f);
  marea_tree_free(tree);
  if (marea_memory(ctx).blocks != 0) abort();
  marea_memory_trim(ctx); /* so that a block is the sanitizer's again */
  return 0;
}
