/* SPDX-License-Identifier: MIT
** zip.c: ZIP archives, in which NumPy and PyTorch keep arrays, through minizip. It finds the members; their bytes are
** taken from the archive where they lie, or inflated into the context's memory, so that nothing is copied twice and
** all of it is counted. What minizip itself takes is less than LIBRARY bytes while reading, for any archive.
**
** No size is believed: a member lies inside of the archive, a stored one is as long as its bytes, a deflated one at
** most MAREA_MAX_DEFLATE times as long, and all members together take no more than the archive: they do not overlap,
** so that no small file stands for a large one (a "zip bomb" of members that share their bytes).
** Names are only compared: nothing is ever unpacked to a path.
** Not done: other compression than deflate, encryption, archives of several files, compressed writing.
*/
#include <stdlib.h>
#include <string.h>
#include <minizip/unzip.h>
#include <minizip/zip.h>
#include <zlib.h>

#include "io.h"

#define LIBRARY \
  (128 << 10)    /* bytes that minizip may have at once, beside what grows with a written directory */
#define ENTRY 46 /* bytes that a member takes in an archive's directory at least */
#define END 22   /* bytes of the record that ends it */
#define LIMIT_32 0xfffffff0u /* sizes from here on are written with 64 bits */

#define BAD(z, ...) marea_fail((z)->ctx, MAREA_EFORMAT, __VA_ARGS__)

/* ---- reading ---- */

typedef struct memory { /* a file for minizip */
  const uint8_t *bytes;
  uint64_t n, at;
  bool
      ended; /* the last reading wanted more; without memory_error minizip would take what is missing for zeros */
} memory;

static void *memory_open (void *ud, const void *path, int mode) { return (void)path, (void)mode, ud; }

static uLong memory_read (void *ud, void *stream, void *to, uLong n) {
  memory *m = ud;
  m->ended = n > m->n - m->at;
  if (m->ended) n = (uLong)(m->n - m->at);
  if (n) memcpy(to, m->bytes + m->at, n);
  m->at += n;
  return (void)stream, n;
}

static ZPOS64_T memory_tell (void *ud, void *stream) { return (void)stream, ((memory *)ud)->at; }

static long memory_seek (void *ud, void *stream, ZPOS64_T offset, int origin) {
  memory *m = ud;
  const uint64_t from = origin == ZLIB_FILEFUNC_SEEK_CUR   ? m->at
                        : origin == ZLIB_FILEFUNC_SEEK_END ? m->n
                                                           : 0;
  uint64_t to;
  (void)stream;
  if (__builtin_add_overflow(from, (uint64_t)offset, &to) || to > m->n) return -1;
  m->at = to;
  return 0;
}

static int memory_error (void *ud, void *stream) { return (void)stream, ((memory *)ud)->ended; }

static int no_error (void *ud, void *stream) { return (void)ud, (void)stream, 0; }

/* Whether the archive has nothing in it, which minizip takes for an error. */
static bool is_empty (const uint8_t *bytes, size_t n) {
  static const uint8_t end[END] = {'P', 'K', 5, 6};
  return n == sizeof end && memcmp(bytes, end, n) == 0;
}

/* Whether the file's last bytes are the record that ends an archive, with its comment; minizip does without them where
   there is another one of 64 bits before. */
static bool is_whole (const uint8_t *bytes, size_t n) {
  for (size_t comment = 0; comment <= UINT16_MAX && comment + END <= n; comment++) {
    const uint8_t *end = bytes + n - END - comment;
    if (memcmp(end, "PK\5\6", 4) == 0 && (size_t)(end[20] | end[21] << 8) == comment) return true;
  }
  return false;
}

static marea_status read_name (const marea_zip *z, unzFile zip, const char *end, marea_zip_member *m,
                               unz_file_info64 *info) {
  char name[MAREA_MAX_NAME + 16];
  if (unzGetCurrentFileInfo64(zip, info, name, sizeof name, NULL, 0, NULL, 0) != UNZ_OK)
    return BAD(z, "%s: damaged: the archive's directory ends too early", z->label);
  size_t n = info->size_filename;
  const size_t cut = strlen(end);
  if (n > MAREA_MAX_NAME)
    return BAD(z, "%s: a member's name is longer than %d bytes", z->label, MAREA_MAX_NAME);
  if (memchr(name, '\0', n)) return BAD(z, "%s: a member's name has a zero byte", z->label);
  name[n] = '\0';
  if (n < cut || strcmp(name + n - cut, end) != 0)
    return BAD(z, "%s: member '%.100s' is no %s file", z->label, name, end);
  m->name = marea_alloc(z->ctx, n - cut + 1);
  if (!m->name) return marea_no_names(z->ctx, z->label);
  memcpy(m->name, name, n - cut);
  m->name[n - cut] = '\0';
  return MAREA_OK;
}

static marea_status check_sizes (const marea_zip *z, const marea_zip_member *m, const unz_file_info64 *info) {
  if (info->flag & 1) return BAD(z, "%s: member '%.100s' is encrypted", z->label, m->name);
  if (info->compression_method != 0 && info->compression_method != Z_DEFLATED)
    return BAD(z, "%s: member '%.100s' is compressed by method %lu (only deflate is supported)", z->label,
               m->name, info->compression_method);
  if (m->deflated ? m->n / MAREA_MAX_DEFLATE > m->n_packed : m->n != m->n_packed)
    return BAD(z, "%s: member '%.100s' declares %zu bytes, which %zu cannot hold", z->label, m->name, m->n,
               m->n_packed);
  return MAREA_OK;
}

/* minizip's current member; *left of the archive's bytes belong to none yet. */
static marea_status read_member (const marea_zip *z, unzFile zip, const memory *file, const char *end,
                                 marea_zip_member *m, size_t *left) {
  unz_file_info64 info;
  int method;
  MAREA_TRY(read_name(z, zip, end, m, &info));
  m->n_packed = (size_t)info.compressed_size;
  m->n = (size_t)info.uncompressed_size;
  m->crc = (uint32_t)info.crc;
  m->deflated = info.compression_method == Z_DEFLATED;
  MAREA_TRY(check_sizes(z, m, &info));
  if (unzOpenCurrentFile2(zip, &method, NULL, 1) != UNZ_OK)
    return BAD(z, "%s: damaged: member '%.100s' is not where the directory says, or another one", z->label,
               m->name);
  const uint64_t at = unzGetCurrentFileZStreamPos64(zip);
  unzCloseCurrentFile(zip);
  if (at > file->n || info.compressed_size > file->n - at)
    return BAD(z, "%s: truncated: member '%.100s' has %llu bytes, of which the file lacks some", z->label,
               m->name, (unsigned long long)info.compressed_size);
  if (info.compressed_size > *left) return BAD(z, "%s: damaged: members overlap", z->label);
  *left -= (size_t)info.compressed_size;
  m->packed = file->bytes + at;
  return MAREA_OK;
}

static int by_name (const void *a, const void *b) {
  return strcmp(((const marea_zip_member *)a)->name, ((const marea_zip_member *)b)->name);
}

static marea_status read_members (marea_zip *z, unzFile zip, const memory *file, const char *end) {
  unz_global_info64 info;
  size_t left = file->n;
  if (unzGetGlobalInfo64(zip, &info) != UNZ_OK || info.number_entry > file->n / ENTRY)
    return BAD(z, "%s: damaged: the archive's directory is longer than the file", z->label);
  if (info.number_entry > MAREA_MAX_TENSORS)
    return BAD(z, "%s: %llu members; at most %d are allowed", z->label, (unsigned long long)info.number_entry,
               MAREA_MAX_TENSORS);
  const int n = (int)info.number_entry;
  z->members = marea_alloc(z->ctx, sizeof *z->members * (size_t)n);
  if (!z->members) return marea_no_names(z->ctx, z->label);
  for (int result = unzGoToFirstFile(zip); z->n < n; result = unzGoToNextFile(zip)) {
    MAREA_TRY(marea_poll(z->ctx));
    if (result != UNZ_OK) return BAD(z, "%s: damaged: the archive's directory ends too early", z->label);
    z->members[z->n] = (marea_zip_member){.name = NULL};
    MAREA_TRY(read_member(z, zip, file, end, &z->members[z->n++], &left));
  }
  if (n) qsort(z->members, (size_t)n, sizeof *z->members, by_name);
  for (int i = 1; i < n; i++)
    if (strcmp(z->members[i - 1].name, z->members[i].name) == 0)
      return BAD(z, "%s: member '%.100s' is there twice", z->label, z->members[i].name);
  return MAREA_OK;
}

marea_status marea_zip_open (marea_context *ctx, const char *label, const uint8_t *bytes, size_t n,
                             const char *end, marea_zip *z) {
  memory file = {.bytes = bytes, .n = n};
  *z = (marea_zip){.ctx = ctx, .label = label};
  if (is_empty(bytes, n)) return MAREA_OK;
  zlib_filefunc64_def calls = {memory_open, memory_read, NULL,         memory_tell,
                               memory_seek, no_error,    memory_error, &file};
  void *reserved = marea_alloc(ctx, LIBRARY);
  if (!reserved) return marea_out_of_memory(ctx, label, LIBRARY, "the archive's directory");
  unzFile zip = is_whole(bytes, n) ? unzOpen2_64("", &calls) : NULL;
  marea_status status = zip ? read_members(z, zip, &file, end)
                            : BAD(z, "%s: not a ZIP archive, or truncated: its end is missing", label);
  if (zip) unzClose(zip);
  marea_free(ctx, reserved);
  if (status != MAREA_OK) marea_zip_close(z);
  return status;
}

void marea_zip_close (marea_zip *z) {
  for (int i = 0; i < z->n; i++) {
    marea_free(z->ctx, z->members[i].name);
    marea_free(z->ctx, z->members[i].inflated);
  }
  marea_free(z->ctx, z->members);
  z->members = NULL;
  z->n = 0;
}

marea_zip_member *marea_zip_find (const marea_zip *z, const char *name) {
  const marea_zip_member key = {.name = (char *)(uintptr_t)name};
  return z->n ? bsearch(&key, z->members, (size_t)z->n, sizeof key, by_name) : NULL;
}

static voidpf zip_alloc (voidpf ctx, uInt items, uInt size) { return marea_alloc(ctx, (size_t)items * size); }

static void zip_free (voidpf ctx, voidpf p) { marea_free(ctx, p); }

/* All of m's bytes to m->inflated, by pieces; zlib's results other than Z_OK end it. */
static marea_status inflate_pieces (const marea_zip *z, const marea_zip_member *m, z_stream *stream,
                                    int *result) {
  size_t in = 0, out = 0;
  for (*result = Z_OK; *result == Z_OK;) {
    MAREA_TRY(marea_poll(z->ctx));
    stream->next_in = (z_const Bytef *)m->packed + in;
    stream->avail_in = (uInt)MAREA_MIN(m->n_packed - in, MAREA_PIECE);
    stream->next_out = m->inflated + out;
    stream->avail_out = (uInt)MAREA_MIN(m->n - out, MAREA_PIECE);
    const uInt had_in = stream->avail_in, had_out = stream->avail_out;
    *result = inflate(stream, Z_NO_FLUSH);
    in += had_in - stream->avail_in;
    out += had_out - stream->avail_out;
  }
  if (*result == Z_STREAM_END && (out != m->n || in != m->n_packed)) *result = Z_DATA_ERROR;
  return MAREA_OK;
}

static marea_status inflate_member (const marea_zip *z, marea_zip_member *m) {
  z_stream stream = {.zalloc = zip_alloc, .zfree = zip_free, .opaque = z->ctx};
  m->inflated = marea_alloc(z->ctx, m->n + 1); /* one more, for a stream of no bytes to have a place */
  if (!m->inflated) return marea_out_of_memory(z->ctx, z->label, m->n, m->name);
  int result = inflateInit2(&stream, -MAX_WBITS);
  marea_status status = MAREA_OK;
  if (result == Z_OK) status = inflate_pieces(z, m, &stream, &result);
  inflateEnd(&stream);
  if (status == MAREA_OK && result == Z_MEM_ERROR)
    return marea_fail(z->ctx, MAREA_ENOMEM, "%s: out of memory for decompression", z->label);
  if (status == MAREA_OK && result != Z_STREAM_END)
    return BAD(z, "%s: damaged: member '%.100s' does not inflate to %zu bytes", z->label, m->name, m->n);
  return status;
}

marea_status marea_zip_bytes (const marea_zip *z, marea_zip_member *m, const uint8_t **bytes) {
  uint32_t crc;
  if (m->deflated && !m->inflated) {
    marea_status status = inflate_member(z, m);
    if (status != MAREA_OK) {
      marea_zip_drop(z, m);
      return status;
    }
  }
  *bytes = m->deflated ? m->inflated : m->packed;
  if (m->checked) return MAREA_OK;
  MAREA_TRY(marea_crc(z->ctx, *bytes, m->n, &crc));
  if (crc != m->crc) return BAD(z, "%s: damaged: wrong checksum of member '%.100s'", z->label, m->name);
  m->checked = true;
  return MAREA_OK;
}

void marea_zip_drop (const marea_zip *z, marea_zip_member *m) {
  marea_free(z->ctx, m->inflated);
  m->inflated = NULL;
  m->checked = false;
}

/* ---- writing ---- */

static uLong file_write (void *ud, void *stream, const void *from, uLong n) {
  marea_zip_writer *z = ud;
  (void)stream;
  if (z->status == MAREA_OK)
    z->status = z->at < z->end ? marea_write_over(&z->file, z->at, from, n) : marea_write(&z->file, from, n);
  if (z->status != MAREA_OK) return 0;
  z->at += n;
  z->end = MAREA_MAX(z->end, z->at);
  return n;
}

static uLong file_read (void *ud, void *stream, void *to, uLong n) {
  return (void)ud, (void)stream, (void)to, (void)n, 0;
}

static ZPOS64_T file_tell (void *ud, void *stream) { return (void)stream, ((marea_zip_writer *)ud)->at; }

static long file_seek (void *ud, void *stream, ZPOS64_T offset, int origin) {
  marea_zip_writer *z = ud;
  (void)stream;
  z->at = (origin == ZLIB_FILEFUNC_SEEK_CUR ? z->at : origin == ZLIB_FILEFUNC_SEEK_END ? z->end : 0) + offset;
  return z->at > z->end ? -1 : 0;
}

/* The file's own failure, or that minizip has no memory, the only other one. */
static marea_status check (const marea_zip_writer *z, bool good) {
  if (z->status != MAREA_OK || good) return z->status;
  return marea_no_names(z->file.ctx, z->file.label.s);
}

marea_status marea_zip_begin (marea_context *ctx, const char *who, const char *path, marea_zip_writer *z) {
  zlib_filefunc64_def calls = {memory_open, file_read, file_write, file_tell,
                               file_seek,   no_error,  no_error,   z};
  *z = (marea_zip_writer){.status = MAREA_OK};
  MAREA_TRY(marea_write_begin(ctx, who, path, &z->file));
  z->zip = zipOpen2_64("", APPEND_STATUS_CREATE, NULL, &calls);
  if (z->zip) return MAREA_OK;
  return marea_write_end(&z->file, check(z, false));
}

/* Whether the name needs the flag which says that it is UTF-8. */
static bool is_ascii (const char *name) {
  for (; *name; name++)
    if ((unsigned char)*name >= 0x80) return false;
  return true;
}

marea_status marea_zip_add (marea_zip_writer *z, const char *name, uint64_t size) {
  const zip_fileinfo info = {.tmz_date = {.tm_mday = 1, .tm_year = 1980}}; /* the same bytes at any time */
  return check(z, zipOpenNewFileInZip4_64(z->zip, name, &info, NULL, 0, NULL, 0, NULL, 0, 0, 0, -MAX_WBITS,
                                          DEF_MEM_LEVEL, Z_DEFAULT_STRATEGY, NULL, 0, 0,
                                          is_ascii(name) ? 0 : 1 << 11, size >= LIMIT_32) == ZIP_OK);
}

marea_status marea_zip_write (marea_zip_writer *z, const void *bytes, size_t n) {
  const char *from = bytes;
  for (size_t at = 0; at < n; at += MAREA_PIECE)
    MAREA_TRY(
        check(z, zipWriteInFileInZip(z->zip, from + at, (unsigned)MAREA_MIN(n - at, MAREA_PIECE)) == ZIP_OK));
  return MAREA_OK;
}

marea_status marea_zip_end (marea_zip_writer *z, marea_status status) {
  if (status != MAREA_OK && z->status == MAREA_OK) z->status = status; /* nothing more is written */
  const bool closed = zipClose(z->zip, NULL) == ZIP_OK;
  return marea_write_end(&z->file, check(z, closed));
}
