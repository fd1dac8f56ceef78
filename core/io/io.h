/* SPDX-License-Identifier: MIT
** io.h: what the file formats share. Included only inside core/io/ (and by the tests of the parsers).
**
** A parser is a function over bytes in memory, so that it can be tested and fuzzed without files. It trusts
** no declared size: a size is held against the limits and against the bytes at hand before anything is
** allocated. System calls on files are made in file.c and nowhere else.
*/
#ifndef MAREA_IO_H
#define MAREA_IO_H

#include "../core.h"

#define MAREA_MAX_NPY_HEADER 10000
#define MAREA_MAX_PIXELS (64 << 20)
#define MAREA_MAX_HEADER (8 << 20)  /* of safetensors, bytes */
#define MAREA_MAX_TENSORS 65536     /* in one file */
#define MAREA_MAX_NAME 512          /* bytes of a tensor's name */
#define MAREA_MAX_PICKLE (64 << 20) /* bytes, without tensors */
#define MAREA_MAX_DEFLATE 1032      /* bytes that one byte of a deflate stream can stand for */

/* "load_idx: 'path'", the beginning of every message; a long path keeps its end. */
typedef struct marea_label {
  char s[448];
} marea_label;
marea_label marea_file_label (const char *who, const char *path);

/* ---- file.c ---- */

#define MAREA_PIECE ((size_t)1 << 20) /* bytes between two checks of marea_poll: 0.1 ms of copying */
/* Copies n bytes in pieces; may stop with MAREA_EINTR or MAREA_EBUDGET. */
marea_status marea_move (marea_context *ctx, void *to, const void *from, size_t n);

/* The bytes of a regular file, to be freed with marea_free. *bytes is not NULL even when *n is 0. */
marea_status marea_read_file (marea_context *ctx, const char *who, const char *path, uint8_t **bytes,
                              size_t *n);

/* Bytes of a regular file in a folder ("": the current one), which links in its name may not lead out of. Messages
   begin with `who` and the name. */
marea_status marea_read_part (marea_context *ctx, const char *who, const char *folder, const char *name,
                              size_t offset, size_t n, uint8_t *to);

/* A file being written: begin, any number of writes, end. The target changes in end, wholly or not at all. */
typedef struct marea_writer {
  marea_context *ctx;
  marea_label label;
  int folder, fd;              /* open descriptors */
  size_t unsynced;             /* bytes written since the file was last put on the disk */
  char target[256], temp[256]; /* names inside the folder */
} marea_writer;
marea_status marea_write_begin (marea_context *ctx, const char *who, const char *path, marea_writer *w);
marea_status marea_write (marea_writer *w, const void *bytes, size_t n);
/* Bytes in the place of some that were written before, all of them. */
marea_status marea_write_over (marea_writer *w, uint64_t offset, const void *bytes, size_t n);
/* Closes the file in any case. `status` is that of the writes: with MAREA_OK the file replaces the target, otherwise
   it is removed and `status` returned. */
marea_status marea_write_end (marea_writer *w, marea_status status);

/* A tensor of t's values without gaps and without history; one reference. */
marea_status marea_gapless (marea_tensor *t, marea_tensor **out);

marea_status marea_crc (marea_context *ctx, const uint8_t *bytes, size_t n, uint32_t *crc); /* CRC-32 */

/* ---- elements.c: how files store elements ---- */

typedef enum marea_code {
  MAREA_CODE_U8,
  MAREA_CODE_BOOL,
  MAREA_CODE_I8,
  MAREA_CODE_U16,
  MAREA_CODE_I16,
  MAREA_CODE_U32,
  MAREA_CODE_I32,
  MAREA_CODE_I64,
  MAREA_CODE_F16,
  MAREA_CODE_BF16,
  MAREA_CODE_F32,
  MAREA_CODE_F64,
  MAREA_CODES
} marea_code;
size_t marea_code_size (marea_code code);
marea_code marea_code_of (marea_dtype dtype); /* of elements as tensors have them in memory */

/* Bytes of a file's array. A shape that no tensor can have gives MAREA_EFORMAT, as it came from a file. */
marea_status marea_raw_bytes (marea_context *ctx, const char *label, marea_code code, int rank,
                              const int64_t *shape, size_t *bytes);
/* A tensor for such an array (checked by marea_raw_bytes). The file's bytes are to be put at *raw, the end of
   its memory, and marea_raw_decode then turns them into the tensor's dtype where they are. */
marea_status marea_raw_new (marea_context *ctx, const char *label, marea_code code, int rank,
                            const int64_t *shape, marea_tensor **out, uint8_t **raw);
marea_status marea_raw_decode (marea_tensor *t, marea_code code, bool big_endian);

/* ---- list.c: marea_file, the names, tensors and texts of a file, in memory ---- */

typedef struct marea_item { /* a name, and a text or a tensor */
  char *name, *text;
  marea_tensor *tensor; /* without gaps */
  uint64_t begin;       /* while it is saved: offset in the file, and checksum */
  uint32_t crc;
} marea_item;

typedef struct marea_list {
  marea_item *items; /* in the order of names */
  int n, room;
} marea_list;

struct marea_file {
  marea_context *ctx;
  marea_list tensors, texts;
};

bool marea_list_reserve (marea_context *ctx, marea_list *l, int room);
/* Puts an item with copies of its strings at position `at`; on failure nothing has changed. */
bool marea_list_insert (marea_context *ctx, marea_list *l, int at, const char *name, const char *text);
marea_status marea_no_names (marea_context *ctx, const char *label); /* MAREA_ENOMEM */
bool marea_text_reserved (const char *key); /* a text that belongs to the format and not to its user */

/* ---- zip.c: archives ---- */

typedef struct marea_zip_member {
  char *name;
  const uint8_t *packed; /* inside of the archive's bytes */
  size_t n_packed, n;    /* bytes there, and of the member itself */
  uint32_t crc;
  bool deflated, checked;
  uint8_t *inflated; /* a block of the context; NULL: not yet, or not needed */
} marea_zip_member;

typedef struct marea_zip { /* of bytes in memory, which must live as long */
  marea_context *ctx;
  const char *label;
  marea_zip_member *members; /* in the order of names, none of them twice */
  int n;
} marea_zip;
/* Fails, or *z is to be closed. `end` is cut from the names, each of which must have it; "": nothing. */
marea_status marea_zip_open (marea_context *ctx, const char *label, const uint8_t *bytes, size_t n,
                             const char *end, marea_zip *z);
void marea_zip_close (marea_zip *z);
marea_zip_member *marea_zip_find (const marea_zip *z, const char *name); /* NULL: there is none */
/* The member's bytes, with the right checksum; they live until marea_zip_drop or marea_zip_close. */
marea_status marea_zip_bytes (const marea_zip *z, marea_zip_member *m, const uint8_t **bytes);
void marea_zip_drop (const marea_zip *z, marea_zip_member *m);

typedef struct marea_zip_writer { /* of members that are stored as they are */
  marea_writer file;
  void *zip;
  uint64_t at, end;
  marea_status status; /* of the file */
} marea_zip_writer;
marea_status marea_zip_begin (marea_context *ctx, const char *who, const char *path, marea_zip_writer *z);
marea_status marea_zip_add (marea_zip_writer *z, const char *name, uint64_t size);
marea_status marea_zip_write (marea_zip_writer *z, const void *bytes, size_t n);
marea_status marea_zip_end (marea_zip_writer *z, marea_status status); /* as marea_write_end */

/* ---- picture.c ---- */

#define MAREA_PNG_CHANNELS (1 << 1 | 1 << 2 | 1 << 3 | 1 << 4)
#define MAREA_JPEG_CHANNELS (1 << 1 | 1 << 3)
typedef struct marea_picture_kind { /* what a format can hold */
  int bits, side;                   /* of a sample, 8 or 16; at most */
  unsigned channels;
} marea_picture_kind;

typedef struct marea_picture { /* a tensor's samples; those of 16 bits with their upper byte first */
  uint32_t width, height;
  int channels;
  size_t row; /* bytes of one */
  uint8_t *pixels;
  marea_tensor *whole; /* owned, as the block, which is NULL where the pixels are the tensor's own */
  uint8_t *block;
} marea_picture;
/* Fails, or *p is to be freed. */
marea_status marea_picture_of (marea_tensor *t, const char *label, marea_picture_kind kind, marea_picture *p);
void marea_picture_free (marea_picture *p);
marea_status marea_check_pixels (marea_context *ctx, const char *label, uint32_t width, uint32_t height);

marea_status marea_read_png (marea_context *ctx, const char *who, const char *path, const uint8_t *bytes,
                             size_t n, int bits, marea_tensor **out);
/* min_side 0: as large as it is. */
marea_status marea_read_jpeg (marea_context *ctx, const char *who, const char *path, const uint8_t *bytes,
                              size_t n, int64_t min_side, marea_tensor **out);

/* ---- npy.c, for archives of such files ---- */

marea_status marea_array_read (marea_context *ctx, marea_label label, const uint8_t *bytes, size_t n,
                               marea_tensor **out);
/* Writes the 128 or more bytes before the elements to `to` and returns how many. */
size_t marea_array_header (const marea_tensor *t, char to[512]);
marea_status marea_array_check (const marea_tensor *t,
                                const char *who); /* MAREA_EARG: NumPy lacks the dtype */

/* ---- the parsers; `path` is for messages only ---- */

/* Of one tensor. Each is declared in its own file and by the tests that call it. */
typedef marea_status marea_parser (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                                   marea_tensor **out);
marea_parser marea_parse_image; /* PNG or JPEG, by the first bytes */
typedef marea_status marea_list_parser (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                                        marea_file **out);
marea_list_parser marea_parse_safetensors; /* path NULL: a string */
marea_list_parser marea_parse_npz;
typedef marea_status marea_tree_parser (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                                        marea_tree **out);
marea_tree_parser marea_parse_torch, marea_parse_gguf, marea_parse_t7;

/* The bytes of a file, for a function whose arguments are checked here; to be freed with marea_free. */
marea_status marea_load_bytes (marea_context *ctx, const char *who, const char *path, const void *out,
                               uint8_t **bytes, size_t *n);
/* A function that reads a file and hands it to a parser, whatever that makes of it. */
#define MAREA_LOADER(name, parser, result)                                                                \
  marea_status name(marea_context *ctx, const char *who, const char *path, parser *parse, result **out) { \
    uint8_t *bytes;                                                                                       \
    size_t n;                                                                                             \
    MAREA_ENTER;                                                                                          \
    if (out) *out = NULL;                                                                                 \
    MAREA_TRY(marea_load_bytes(ctx, who, path, out, &bytes, &n));                                         \
    const marea_status status = parse(ctx, path, bytes, n, out);                                          \
    marea_free(ctx, bytes);                                                                               \
    return status;                                                                                        \
  }
marea_status marea_load_list (marea_context *ctx, const char *who, const char *path, marea_list_parser *parse,
                              marea_file **out);
marea_status marea_load_tensor (marea_context *ctx, const char *who, const char *path, marea_parser *parse,
                                marea_tensor **out);

#endif
