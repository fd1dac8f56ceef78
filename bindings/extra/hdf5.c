/* SPDX-License-Identifier: MIT
** hdf5.c: the optional module marea.hdf5: HDF5 files, in which Keras keeps weights, through libhdf5.
**
** hdf5.safetensors(bytes) -> bytes | nil, message turns such a file into a safetensors file: a tensor for each dataset,
** under its path ("layers/dense/vars/0"), and a text for each attribute that is a string or a list of strings, one a
** line, under "path@name". The core reads that as it reads any other one.
**
** libhdf5 was not made for files from strangers: damaged ones make it read and write past its memory, loop and ask for
** all memory there is. So it works in a process of its own, that has the file as memory, can open none, and has limits
** of time and memory. Its end, whatever it is, is a message here.
** Refused: links, data in other files, filters other than deflate, shuffle and checksums, dtypes of no tensor.
*/
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <lauxlib.h>
#include <lua.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_OBJECTS 65536
#define MAX_DEPTH 64
#define MAX_RANK 8
#define MAX_MESSAGE 1000
#define MAX_HEADER (8 << 20)             /* bytes of a safetensors header that the core reads */
#define MAX_DEFLATE 1032                 /* bytes that one byte of a deflate stream can stand for */
#define WAIT_MS 50                       /* between two looks for an interrupt */
#define SECONDS(n) (3 + ((n) >> 22))     /* of computing, for a file of n bytes */
#define MEMORY(n) ((1u << 30) + 8 * (n)) /* bytes beside what the process had before */

/* ---- in the process that reads ---- */

typedef struct item {
  hid_t dataset, type; /* the type that it is read as */
  size_t bytes;
} item;

typedef struct reader {
  int to; /* where the result is written */
  const char *file;
  size_t n;
  item items[MAX_OBJECTS];
  int objects, n_items, depth;
  size_t bytes, held; /* of all tensors; in the file */
  FILE *tensors,
      *texts; /* the members of the header's objects, each with a comma before it but for the first one */
  char *tensor_text, *text_text;
  size_t tensor_size, text_size;
  char path[4096];
} reader;

/* The process has one. */
static reader reading;

static void write_all (int to, const void *from, size_t n) {
  for (const char *p = from; n;) {
    const ssize_t written = write(to, p, n);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) _exit(1);
    p += written;
    n -= (size_t)written;
  }
}

/* A size of 0 instead of the result, and a message. */
static _Noreturn void __attribute__((format(printf, 2, 3))) refuse(const reader *r, const char *format, ...) {
  char text[MAX_MESSAGE];
  const uint64_t none = 0;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  write_all(r->to, &none, sizeof none);
  write_all(r->to, text, strlen(text));
  _exit(1);
}

/* A string of JSON; bytes that are no UTF-8 are the core's to refuse. */
static void put_string (FILE *to, const char *s, size_t n) {
  fputc('"', to);
  for (size_t i = 0; i < n; i++) {
    const unsigned char c = (unsigned char)s[i];
    if (c < 0x20 || c == '"' || c == '\\') fprintf(to, "\\u%04x", c);
    else fputc(c, to);
  }
  fputc('"', to);
}

/* "path" or "path@attribute" as the next name of an object. */
static void put_name (reader *r, FILE *to, const char *attribute) {
  char name[sizeof r->path + 256];
  const int n = snprintf(name, sizeof name, "%s%s%s", r->path, attribute ? "@" : "",
                         attribute ? attribute : "");
  if (n < 0 || (size_t)n >= sizeof name)
    refuse(r, "the name of an attribute of '%.100s' is too long", r->path);
  fputs(ftell(to) ? "," : "", to);
  put_string(to, name, (size_t)n);
  fputc(':', to);
}

/* The names of tensors and numbers in safetensors, and what HDF5 reads them as. */
static const char *dtype_of (hid_t type, hid_t *as) {
  const H5T_class_t class = H5Tget_class(type);
  const size_t size = H5Tget_size(type);
  *as = H5T_NATIVE_INT64;
  if (class == H5T_FLOAT) {
    *as = size == 8 ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT;
    return size == 2 || size == 4 ? "F32" : size == 8 ? "F64" : NULL;
  }
  if (class == H5T_ENUM && size == 1) { /* how h5py keeps truth values */
    *as = type;
    return "BOOL";
  }
  if (class != H5T_INTEGER) return NULL;
  const bool is_signed = H5Tget_sign(type) == H5T_SGN_2;
  if (size == 1 && !is_signed) {
    *as = H5T_NATIVE_UINT8;
    return "U8";
  }
  return size < 8 || (size == 8 && is_signed) ? "I64" : NULL;
}

static void check_filters (const reader *r, hid_t layout) {
  const int n = H5Pget_nfilters(layout);
  if (n < 0) refuse(r, "damaged: '%.200s' has no list of filters", r->path);
  for (int i = 0; i < n; i++) {
    unsigned flags, config;
    size_t values = 0;
    const H5Z_filter_t filter = H5Pget_filter2(layout, (unsigned)i, &flags, &values, NULL, 0, NULL, &config);
    if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_FLETCHER32)
      refuse(r, "'%.200s' is compressed by filter %d (only deflate is supported)", r->path, (int)filter);
  }
}

/* The file holds as many bytes as the dataset declares, or may do so in compressed form, and for that dataset alone. */
static void check_storage (reader *r, hid_t dataset, size_t stored) {
  const hid_t layout = H5Dget_create_plist(dataset);
  const H5D_layout_t kind = H5Pget_layout(layout);
  if (kind == H5D_VIRTUAL || H5Pget_external_count(layout) != 0)
    refuse(r, "'%.200s' has its data in another file", r->path);
  check_filters(r, layout);
  const uint64_t held = H5Dget_storage_size(dataset);
  if (held > r->n || (kind == H5D_CHUNKED ? stored / MAX_DEFLATE > held : stored != held))
    refuse(r, "damaged: '%.200s' declares %zu bytes, of which the file has %llu", r->path, stored,
           (unsigned long long)held);
  r->held += held;
  if (r->held > r->n) refuse(r, "'%.200s' has its data in common with others, or is damaged", r->path);
  H5Pclose(layout);
}

static int read_shape (const reader *r, hid_t dataset, hsize_t *dims, size_t *count) {
  const hid_t space = H5Dget_space(dataset);
  const int rank = H5Sget_simple_extent_ndims(space);
  *count = 1;
  if (rank > MAX_RANK)
    refuse(r, "'%.200s' has %d dimensions; a tensor has at most %d", r->path, rank, MAX_RANK);
  if (rank < 0 || H5Sget_simple_extent_type(space) == H5S_NULL ||
      H5Sget_simple_extent_dims(space, dims, NULL) < 0)
    refuse(r, "'%.200s' has no shape", r->path);
  for (int i = 0; i < rank; i++)
    if (__builtin_mul_overflow(*count, dims[i], count) || *count > SIZE_MAX / 16)
      refuse(r, "damaged: '%.200s' has more elements than memory can hold", r->path);
  H5Sclose(space);
  return rank;
}

static void add_dataset (reader *r, hid_t dataset) {
  hsize_t dims[MAX_RANK];
  size_t count;
  item *new = &r->items[r->n_items++];
  const hid_t type = H5Dget_type(dataset);
  const char *dtype = dtype_of(type, &new->type);
  if (!dtype) refuse(r, "the dtype of '%.200s' is none of a tensor", r->path);
  const int rank = read_shape(r, dataset, dims, &count);
  check_storage(r, dataset, count * H5Tget_size(type));
  new->dataset = dataset;
  new->bytes = count *H5Tget_size(new->type);
  put_name(r, r->tensors, NULL);
  fprintf(r->tensors, "{\"dtype\":\"%s\",\"shape\":[", dtype);
  for (int i = 0; i < rank; i++) fprintf(r->tensors, "%s%llu", i ? "," : "", (unsigned long long)dims[i]);
  fprintf(r->tensors, "],\"data_offsets\":[%zu,", r->bytes);
  if (__builtin_add_overflow(r->bytes, new->bytes, &r->bytes) || r->bytes > MEMORY(r->n))
    refuse(r, "its tensors are of more than %zu bytes, too many for a file of %zu", MEMORY(r->n), r->n);
  fprintf(r->tensors, "%zu]}", r->bytes);
}

/* The strings of an attribute, one a line. */
static void put_lines (reader *r, const char *name, hid_t attribute, hid_t type, size_t count) {
  const bool is_variable = H5Tis_variable_str(type) > 0;
  const size_t size = H5Tget_size(type);
  if (size == 0 || count > r->n / size)
    refuse(r, "damaged: attribute '%.100s' is longer than the file", name);
  char *values = calloc(count + 1, size), *text = NULL;
  size_t n = 0;
  FILE *lines = open_memstream(&text, &n);
  if (!values || !lines) refuse(r, "out of memory for attribute '%.100s'", name);
  if (H5Aread(attribute, type, values) < 0) refuse(r, "damaged: attribute '%.100s' cannot be read", name);
  for (size_t i = 0; i < count; i++) {
    const char *s = is_variable ? ((char **)(void *)values)[i] : values + i * size;
    fprintf(lines, "%s%.*s", i ? "\n" : "", is_variable ? INT32_MAX : (int)size, s ? s : "");
  }
  fclose(lines);
  put_name(r, r->texts, name);
  put_string(r->texts, text, n);
  free(text);
  free(values);
}

static herr_t visit_attribute (hid_t object, const char *name, const H5A_info_t *info, void *ud) {
  reader *r = ud;
  (void)info;
  const hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
  if (attribute < 0) refuse(r, "damaged: attribute '%.100s' cannot be read", name);
  const hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  if (count < 0) refuse(r, "damaged: attribute '%.100s' has no size", name);
  if (H5Tget_class(type) == H5T_STRING) put_lines(r, name, attribute, type, (size_t)count);
  if (ftell(r->texts) > MAX_HEADER) refuse(r, "its texts are longer than %d bytes", MAX_HEADER);
  H5Sclose(space);
  H5Tclose(type);
  H5Aclose(attribute);
  return 0;
}

static void read_group (reader *r, hid_t group);

static void read_object (reader *r, hid_t object) {
  hsize_t at = 0;
  if (H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, &at, visit_attribute, r) < 0)
    refuse(r, "damaged: the attributes of '%.200s' cannot be read", r->path);
  const H5I_type_t kind = H5Iget_type(object);
  if (kind == H5I_DATASET) {
    add_dataset(r, object);
    return;
  }
  if (kind == H5I_GROUP) read_group(r, object);
  H5Oclose(object);
}

static herr_t visit_link (hid_t group, const char *name, const H5L_info_t *info, void *ud) {
  reader *r = ud;
  const size_t before = strlen(r->path), room = sizeof r->path - before;
  const int n = snprintf(r->path + before, room, "%s%s", before ? "/" : "", name);
  if (n < 0 || (size_t)n >= room) refuse(r, "damaged: a name is longer than %zu bytes", sizeof r->path);
  if (info->type != H5L_TYPE_HARD) refuse(r, "'%.200s' is a link to another place", r->path);
  if (++r->objects > MAX_OBJECTS) refuse(r, "more than %d objects", MAX_OBJECTS);
  const hid_t object = H5Oopen(group, name, H5P_DEFAULT);
  if (object < 0) refuse(r, "damaged: '%.200s' cannot be read", r->path);
  read_object(r, object);
  r->path[before] = '\0';
  return 0;
}

static void read_group (reader *r, hid_t group) {
  hsize_t at = 0;
  if (++r->depth > MAX_DEPTH) refuse(r, "groups in groups, more than %d deep", MAX_DEPTH);
  if (H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, &at, visit_link, r) < 0)
    refuse(r, "damaged: the members of '%.200s' cannot be read", r->path);
  r->depth--;
}

/* The file is memory that HDF5 reads in its place. */
static void *image_malloc (size_t n, H5FD_file_image_op_t op, void *ud) {
  return (void)n, (void)op, (void *)(uintptr_t)((reader *)ud)->file;
}
static void *image_copy (void *to, const void *from, size_t n, H5FD_file_image_op_t op, void *ud) {
  return (void)from, (void)n, (void)op, (void)ud, to;
}
static void *image_realloc (void *p, size_t n, H5FD_file_image_op_t op, void *ud) {
  return (void)p, (void)n, (void)op, (void)ud, NULL;
}
static herr_t image_free (void *p, H5FD_file_image_op_t op, void *ud) {
  return (void)p, (void)op, (void)ud, 0;
}
static void *same_reader (void *ud) { return ud; }
static herr_t keep_reader (void *ud) { return (void)ud, 0; }

static hid_t open_file (reader *r) {
  H5FD_file_image_callbacks_t calls = {image_malloc, image_copy, image_realloc, image_free, same_reader,
                                       keep_reader,  r};
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_fapl_core(access, 1 << 20, 0);
  H5Pset_file_image_callbacks(access, &calls);
  H5Pset_file_image(access, (void *)(uintptr_t)r->file, r->n);
  return H5Fopen("file", H5F_ACC_RDONLY, access);
}

static void limit (int what, rlim_t most) {
  struct rlimit now;
  if (getrlimit(what, &now) != 0) return;
  if (now.rlim_max == RLIM_INFINITY || most < now.rlim_max) now.rlim_max = most;
  if (now.rlim_cur == RLIM_INFINITY || now.rlim_max < now.rlim_cur) now.rlim_cur = now.rlim_max;
  setrlimit(what, &now);
}

/* Bytes of addresses that the process has. */
static size_t addresses (void) {
  size_t pages = 0;
  FILE *file = fopen("/proc/self/statm", "re");
  if (!file) return 0;
  if (fscanf(file, "%zu", &pages) != 1) pages = 0;
  fclose(file);
  return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void close_all_but (int fd) {
  if (fd > 0) close_range(0, (unsigned)fd - 1, 0);
  close_range((unsigned)fd + 1, ~0U, 0);
}

static void confine (int to, size_t n) {
  static const int signals[] = {SIGINT,  SIGTERM, SIGQUIT, SIGHUP, SIGPIPE,
                                SIGSEGV, SIGBUS,  SIGFPE,  SIGILL, SIGABRT};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], SIG_DFL);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_DUMPABLE, 0);
  limit(RLIMIT_AS, addresses() + MEMORY(n));
  limit(RLIMIT_CPU, SECONDS(n));
  limit(RLIMIT_NOFILE, 0);
  limit(RLIMIT_FSIZE, 0);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  close_all_but(to);
}

static void send_data (const reader *r, const item *i) {
  char *data = malloc(i->bytes + 1);
  if (!data) _exit(1);
  if (i->bytes && H5Dread(i->dataset, i->type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) _exit(1);
  write_all(r->to, data, i->bytes);
  free(data);
}

static void send_result (reader *r) {
  fclose(r->tensors);
  fclose(r->texts);
  char *header = NULL;
  size_t n = 0;
  FILE *text = open_memstream(&header, &n);
  if (!text) _exit(1);
  fprintf(text, "{\"__metadata__\":{%s}%s%s}", r->text_text, r->tensor_size ? "," : "", r->tensor_text);
  fclose(text);
  const uint64_t length = n, size = sizeof length + n + r->bytes;
  write_all(r->to, &size, sizeof size);
  write_all(r->to, &length, sizeof length);
  write_all(r->to, header, n);
  for (int i = 0; i < r->n_items; i++) send_data(r, &r->items[i]);
}

static _Noreturn void read_file (int to, const char *file, size_t n) {
  reader *r = &reading;
  r->to = to;
  r->file = file;
  r->n = n;
  confine(to, n);
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  H5PLset_loading_state(0);
  r->tensors = open_memstream(&r->tensor_text, &r->tensor_size);
  r->texts = open_memstream(&r->text_text, &r->text_size);
  if (!r->tensors || !r->texts) _exit(1);
  const hid_t root = H5Oopen(open_file(r), "/", H5P_DEFAULT);
  if (root < 0) refuse(r, "not an HDF5 file, or a damaged one");
  read_object(r, root);
  send_result(r);
  _exit(0);
}

/* ---- in the process that wants the file ---- */

typedef struct worker {
  pid_t process; /* 0: none */
  int from;
} worker;

#define WORKER "marea.hdf5"

static int worker_close (lua_State *L) {
  worker *w = luaL_checkudata(L, 1, WORKER);
  if (w->process <= 0) return 0;
  close(w->from);
  kill(w->process, SIGKILL);
  while (waitpid(w->process, NULL, 0) < 0 && errno == EINTR) continue;
  w->process = 0;
  return 0;
}

/* Ctrl-C sets a hook of Lua, which raises at the instruction of this chunk. */
static void look_for_interrupt (lua_State *L) {
  if (luaL_loadbuffer(L, "", 0, "=hdf5") != LUA_OK) lua_error(L);
  lua_call(L, 0, 0);
}

/* How many bytes came before the end. */
static size_t receive (lua_State *L, int from, void *to, size_t n) {
  struct pollfd end = {.fd = from, .events = POLLIN};
  size_t at = 0;
  while (at < n) {
    if (poll(&end, 1, WAIT_MS) <= 0) {
      look_for_interrupt(L);
      continue;
    }
    const ssize_t came = read(from, (char *)to + at, n - at);
    if (came < 0 && errno == EINTR) continue;
    if (came <= 0) break;
    at += (size_t)came;
  }
  return at;
}

static bool start (worker *w, const char *file, size_t n) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return false;
  w->from = ends[0];
  w->process = fork();
  if (w->process == 0) read_file(ends[1], file, n);
  close(ends[1]);
  if (w->process < 0) close(ends[0]);
  return w->process > 0;
}

static int fail (lua_State *L, const char *message, size_t n) {
  lua_pushnil(L);
  lua_pushlstring(L, message, n);
  return 2;
}

static int refused (lua_State *L, const worker *w) {
  char message[MAX_MESSAGE];
  return fail(L, message, receive(L, w->from, message, sizeof message));
}

static int hdf5_safetensors (lua_State *L) {
  static const char damaged[] = "damaged: HDF5 cannot read it";
  size_t n;
  uint64_t size;
  luaL_Buffer result;
  const char *file = luaL_checklstring(L, 1, &n);
  worker *w = lua_newuserdatauv(L, sizeof *w, 0);
  w->process = 0;
  luaL_setmetatable(L, WORKER);
  lua_toclose(L, -1);
  if (!start(w, file, n)) return luaL_error(L, "hdf5: no process for the reader: %s", strerror(errno));
  if (receive(L, w->from, &size, sizeof size) < sizeof size) return fail(L, damaged, sizeof damaged - 1);
  if (size == 0) return refused(L, w);
  if (size > MEMORY(n) + 4 * (size_t)MAX_HEADER) return fail(L, damaged, sizeof damaged - 1);
  char *to = luaL_buffinitsize(L, &result, size);
  if (receive(L, w->from, to, size) < size) return fail(L, damaged, sizeof damaged - 1);
  luaL_pushresultsize(&result, size);
  return 1;
}

__attribute__((visibility("default"))) int luaopen_marea_hdf5 (lua_State *L);

int luaopen_marea_hdf5 (lua_State *L) {
  static const luaL_Reg functions[] = {{"safetensors", hdf5_safetensors}, {NULL, NULL}};
  luaL_newmetatable(L, WORKER);
  lua_pushcfunction(L, worker_close);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "__gc");
  lua_setfield(L, -2, "__close");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  luaL_newlib(L, functions);
  return 1;
}
