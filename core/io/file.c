/* SPDX-License-Identifier: MIT
** file.c: reading a whole file, and writing one so that a crash at any moment leaves the old file or the
** new one, never something between. All system calls on files are here, and each result is checked.
**
** Writing: a temporary file in the target's folder (O_EXCL), write, fsync, close, rename, fsync of the folder. A
** limit on the size of files (RLIMIT_FSIZE) is an error like a full disk, not the end of the process: its signal
** (SIGXFSZ) is blocked in this thread during a write and then discarded. The temporary file is locked while its
** writer lives; temporaries of the same target that nobody locks were left by a crash and are removed. A symbolic
** link is followed, so that it is its file which is replaced. Not done: keeping the owner, extended attributes and
** hard links of a replaced file; mapping files (another program that cuts a mapped file short would kill the host).
*/
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "io.h"

#define TEMP_END ".marea-tmp"
#define TEMP_TRIES 100
#define SYNCED \
  ((size_t)16  \
   << 20) /* bytes after which a file being written goes to the disk, which cannot be interrupted */

/* The value of a system call, made again while a signal interrupts it. */
#define RETRY(call)                        \
  __extension__({                          \
    ssize_t result_;                       \
    do result_ = (call);                   \
    while (result_ < 0 && errno == EINTR); \
    result_;                               \
  })

marea_label marea_file_label (const char *who, const char *path) {
  marea_label label;
  size_t room = sizeof label.s - 64, n = strlen(path);
  bool fits = n < room;
  snprintf(label.s, sizeof label.s, "%.40s: '%s%s'", who, fits ? "" : "...", fits ? path : path + n - room);
  return label;
}

/* Puts "label: action: why" into the context. `error` is an errno. */
static marea_status fail (marea_context *ctx, const marea_label *label, const char *action, int error) {
  char why[128];
  errno = error;
  marea_format(why, sizeof why, "%m"); /* the C library's text; thread-safe, unlike strerror */
  return marea_fail(ctx, MAREA_EIO, "%s: %s: %s", label->s, action, why);
}

static void close_quietly (int fd) {
  if (fd >= 0) close(fd);
}

marea_status marea_move (marea_context *ctx, void *to, const void *from, size_t n) {
  for (size_t at = 0; at < n; at += MAREA_PIECE) {
    MAREA_TRY(marea_poll(ctx));
    memcpy((char *)to + at, (const char *)from + at, MAREA_MIN(MAREA_PIECE, n - at));
  }
  return MAREA_OK;
}

marea_status marea_crc (marea_context *ctx, const uint8_t *bytes, size_t n, uint32_t *crc) {
  *crc = 0;
  for (size_t at = 0; at < n; at += MAREA_PIECE) {
    MAREA_TRY(marea_poll(ctx));
    *crc = (uint32_t)crc32_z(*crc, bytes + at, MAREA_MIN(MAREA_PIECE, n - at));
  }
  return MAREA_OK;
}

/* ---- reading ---- */

static marea_status read_all (marea_context *ctx, const marea_label *label, int fd, uint8_t *to, size_t n) {
  while (n > 0) {
    MAREA_TRY(marea_poll(ctx));
    ssize_t got = RETRY(read(fd, to, MAREA_MIN(n, MAREA_PIECE)));
    if (got < 0) return fail(ctx, label, "cannot read", errno);
    if (got == 0) return marea_fail(ctx, MAREA_EIO, "%s: became shorter while it was read", label->s);
    to += got;
    n -= (size_t)got;
  }
  return MAREA_OK;
}

static marea_status read_open (marea_context *ctx, const marea_label *label, int fd, uint8_t **bytes,
                               size_t *n) {
  struct stat st;
  if (fstat(fd, &st) < 0) return fail(ctx, label, "cannot read", errno);
  if (S_ISDIR(st.st_mode)) return fail(ctx, label, "cannot read", EISDIR);
  if (!S_ISREG(st.st_mode))
    return marea_fail(ctx, MAREA_EIO, "%s: cannot read: it is a device or a pipe, not a regular file",
                      label->s);
  *n = (size_t)st.st_size;
  *bytes = marea_alloc(ctx, *n);
  if (!*bytes)
    return marea_fail(ctx, MAREA_ENOMEM, "%s: out of memory for the file's %zu bytes", label->s, *n);
  marea_status status = read_all(ctx, label, fd, *bytes, *n);
  if (status == MAREA_OK) return MAREA_OK;
  marea_free(ctx, *bytes);
  *bytes = NULL;
  return status;
}

marea_status marea_read_file (marea_context *ctx, const char *who, const char *path, uint8_t **bytes,
                              size_t *n) {
  marea_label label = marea_file_label(who, path);
  *bytes = NULL;
  *n = 0;
  /* O_NONBLOCK: opening a pipe must not wait for its writer; it means nothing for regular files. */
  int fd = (int)RETRY(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (fd < 0) return fail(ctx, &label, "cannot open", errno);
  marea_status status = read_open(ctx, &label, fd, bytes, n);
  close_quietly(fd);
  return status;
}

/* The path without links of a file in a folder; an errno, EXDEV: it lies outside. */
static int resolve_inside (const char *folder, const char *name, char path[PATH_MAX]) {
  char joined[PATH_MAX], real[PATH_MAX];
  if (!realpath(*folder ? folder : ".", real)) return errno;
  if (snprintf(joined, sizeof joined, "%s%s%s", folder, *folder ? "/" : "", name) >= (int)sizeof joined)
    return ENAMETOOLONG;
  if (!realpath(joined, path)) return errno;
  const size_t n = strlen(real);
  return strncmp(path, real, n) == 0 && (n == 1 || path[n] == '/') ? 0 : EXDEV;
}

static marea_status check_part (marea_context *ctx, const marea_label *label, int fd, size_t offset,
                                size_t n) {
  struct stat st;
  if (fstat(fd, &st) < 0) return fail(ctx, label, "cannot read", errno);
  if (!S_ISREG(st.st_mode))
    return marea_fail(ctx, MAREA_EIO, "%s: cannot read: it is not a regular file", label->s);
  const size_t size = (size_t)st.st_size;
  if (offset > size || n > size - offset)
    return marea_fail(ctx, MAREA_EFORMAT, "%s: expected %zu bytes from byte %zu on, got a file of %zu bytes",
                      label->s, n, offset, size);
  return lseek(fd, (off_t)offset, SEEK_SET) < 0 ? fail(ctx, label, "cannot read", errno) : MAREA_OK;
}

marea_status marea_read_part (marea_context *ctx, const char *who, const char *folder, const char *name,
                              size_t offset, size_t n, uint8_t *to) {
  marea_label label;
  char path[PATH_MAX];
  snprintf(label.s, sizeof label.s, "%.140s: '%.240s'", who, name);
  marea_printable(label.s);
  const int error = resolve_inside(folder, name, path);
  if (error == EXDEV)
    return marea_fail(ctx, MAREA_EFORMAT, "%s: a link leads out of the model's folder", label.s);
  if (error) return fail(ctx, &label, "cannot open", error);
  int fd = (int)RETRY(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW));
  if (fd < 0) return fail(ctx, &label, "cannot open", errno);
  marea_status status = check_part(ctx, &label, fd, offset, n);
  if (status == MAREA_OK) status = read_all(ctx, &label, fd, to, n);
  close_quietly(fd);
  return status;
}

marea_status marea_load_bytes (marea_context *ctx, const char *who, const char *path, const void *out,
                               uint8_t **bytes, size_t *n) {
  MAREA_WANT_OR_RETURN(ctx, who, out);
  MAREA_WANT_OR_RETURN(NULL, who, ctx);
  MAREA_WANT_OR_RETURN(ctx, who, path);
  return marea_read_file(ctx, who, path, bytes, n);
}

MAREA_LOADER(marea_load_tensor, marea_parser, marea_tensor)

/* ---- writing ---- */

/* Finds the folder and the name of the file that `path` stands for. */
static int split_path (const char *path, char folder[PATH_MAX], char name[256]) {
  struct stat st;
  size_t n = strlen(path);
  if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode)) {
    if (!realpath(path, folder)) return errno;
  } else {
    if (n >= PATH_MAX) return ENAMETOOLONG;
    memcpy(folder, path, n + 1);
  }
  char *slash = strrchr(folder, '/');
  const char *base = slash ? slash + 1 : folder;
  if (!*base) return *path ? EISDIR : ENOENT;
  if (strlen(base) > NAME_MAX) return ENAMETOOLONG;
  strcpy(name, base);
  if (!slash) strcpy(folder, ".");
  else if (slash == folder) strcpy(folder, "/");
  else *slash = '\0';
  return 0;
}

/* The beginning that all temporary names of a target share. */
static size_t temp_start (const char *target, char start[256]) {
  size_t room = NAME_MAX - sizeof TEMP_END - 34; /* for the dots and two hexadecimal words */
  return (size_t)snprintf(start, 256, ".%.*s.", (int)room, target);
}

static bool is_temp_of (const char *name, const char *start, size_t n) {
  if (strncmp(name, start, n) != 0) return false;
  size_t digits = strspn(name + n, "0123456789abcdef-");
  return digits > 0 && strcmp(name + n + digits, TEMP_END) == 0;
}

/* Removes temporaries of this target whose writer is gone: nobody holds their lock. May fail without harm. */
static void remove_stale (const marea_writer *w) {
  char start[256];
  size_t n = temp_start(w->target, start);
  int again = openat(w->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = again < 0 ? NULL : fdopendir(again);
  if (!dir) {
    close_quietly(again);
    return;
  }
  const struct dirent *entry;
  while ((entry = readdir(dir))) {
    if (!is_temp_of(entry->d_name, start, n)) continue;
    int fd = openat(w->folder, entry->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0) continue;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) unlinkat(w->folder, entry->d_name, 0);
    close_quietly(fd);
  }
  closedir(dir);
}

/* Creates and locks the temporary file. A cleaner can come between the two: then the file has lost its name
   and another is made. */
static int open_temp (marea_writer *w, mode_t mode) {
  char start[256];
  temp_start(w->target, start);
  for (int i = 0; i < TEMP_TRIES; i++) {
    struct timespec now = {0};
    struct stat st;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(w->temp, sizeof w->temp, "%.212s%lx-%llx" TEMP_END, start, (unsigned long)getpid(),
             (unsigned long long)now.tv_sec * 1000000000u + (unsigned long long)now.tv_nsec);
    int fd = (int)RETRY(
        openat(w->folder, w->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
    if (fd < 0 && errno == EEXIST) continue;
    if (fd < 0) return -1;
    flock(fd, LOCK_EX | LOCK_NB); /* file systems without locks: then nothing is ever cleaned either */
    if (fstat(fd, &st) == 0 && st.st_nlink > 0) return fd;
    close_quietly(fd);
    unlinkat(w->folder, w->temp, 0);
  }
  errno = EEXIST;
  return -1;
}

/* Makes the temporary file with the rights that the target has, or else a new file gets. 0 or an errno. */
static int create_temp (marea_writer *w) {
  struct stat old = {0};
  bool exists = fstatat(w->folder, w->target, &old, 0) == 0;
  if (!exists && errno != ENOENT) return errno;
  if (exists && S_ISDIR(old.st_mode)) return EISDIR;
  if (exists && !S_ISREG(old.st_mode)) return EINVAL;
  if (exists && faccessat(w->folder, w->target, W_OK, 0) < 0) return errno;
  remove_stale(w);
  w->fd = open_temp(w, exists ? 0600 : 0666);
  if (w->fd < 0) return errno;
  mode_t mode = old.st_mode & 0777;
  if (!exists || mode == 0600 || fchmod(w->fd, mode) == 0) return 0;
  int error = errno;
  close_quietly(w->fd);
  unlinkat(w->folder, w->temp, 0);
  return error;
}

marea_status marea_write_begin (marea_context *ctx, const char *who, const char *path, marea_writer *w) {
  *w = (marea_writer){.ctx = ctx, .label = marea_file_label(who, path), .folder = -1, .fd = -1};
  char folder[PATH_MAX];
  int error = split_path(path, folder, w->target);
  if (error) return fail(ctx, &w->label, "cannot open", error);
  w->folder = (int)RETRY(open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (w->folder < 0) return fail(ctx, &w->label, "cannot open", errno);
  error = create_temp(w);
  if (!error) return MAREA_OK;
  close_quietly(w->folder);
  if (error == EINVAL)
    return marea_fail(ctx, MAREA_EIO, "%s: cannot open: it is a device or a pipe, not a regular file",
                      w->label.s);
  return fail(ctx, &w->label, "cannot open", error);
}

/* Counts n more bytes; now and then puts them on the disk, so that little is left for the end. */
static marea_status sync_some (marea_writer *w, size_t n) {
  w->unsynced += n;
  if (w->unsynced < SYNCED) return MAREA_OK;
  w->unsynced = 0;
  return RETRY(fdatasync(w->fd)) < 0 ? fail(w->ctx, &w->label, "cannot write to the disk", errno) : MAREA_OK;
}

/* write(2), but a file that would be too large gives EFBIG without SIGXFSZ, which ends a process. A SIGXFSZ that was
   pending before the call stays pending. */
static ssize_t write_some (int fd, const char *from, size_t n) {
  sigset_t too_large, host, waiting;
  sigemptyset(&too_large);
  sigaddset(&too_large, SIGXFSZ);
  sigpending(&waiting);
  pthread_sigmask(SIG_BLOCK, &too_large, &host);
  const ssize_t put = RETRY(write(fd, from, n));
  const int error = errno;
  if (put < 0 && error == EFBIG && !sigismember(&waiting, SIGXFSZ))
    sigtimedwait(&too_large, NULL, &(struct timespec){0});
  pthread_sigmask(SIG_SETMASK, &host, NULL);
  errno = error;
  return put;
}

marea_status marea_write (marea_writer *w, const void *bytes, size_t n) {
  const char *from = bytes;
  while (n > 0) {
    MAREA_TRY(marea_poll(w->ctx));
    ssize_t put = write_some(w->fd, from, MAREA_MIN(n, MAREA_PIECE));
    if (put <= 0) return fail(w->ctx, &w->label, "cannot write", put < 0 ? errno : EIO);
    MAREA_TRY(sync_some(w, (size_t)put));
    from += put;
    n -= (size_t)put;
  }
  return MAREA_OK;
}

marea_status marea_write_over (marea_writer *w, uint64_t offset, const void *bytes, size_t n) {
  const char *from = bytes;
  while (n > 0) {
    const ssize_t put = RETRY(pwrite(w->fd, from, n, (off_t)offset));
    if (put <= 0) return fail(w->ctx, &w->label, "cannot write", put < 0 ? errno : EIO);
    from += put;
    offset += (uint64_t)put;
    n -= (size_t)put;
  }
  return MAREA_OK;
}

/* The file is complete: onto the disk with it. The lock outlives the descriptor through `lock`. */
static marea_status put_in_place (marea_writer *w) {
  if (RETRY(fsync(w->fd)) < 0) return fail(w->ctx, &w->label, "cannot write to the disk", errno);
  int lock = fcntl(w->fd, F_DUPFD_CLOEXEC, 0);
  int fd = w->fd;
  w->fd = -1;
  if (close(fd) < 0 && errno != EINTR) { /* after EINTR it is closed, and its data is synced */
    int error = errno;
    close_quietly(lock);
    return fail(w->ctx, &w->label, "cannot write", error);
  }
  int error = renameat(w->folder, w->temp, w->folder, w->target) < 0 ? errno : 0;
  close_quietly(lock);
  if (error) return fail(w->ctx, &w->label, "cannot rename the temporary file", error);
  w->temp[0] = '\0';
  if (RETRY(fsync(w->folder)) < 0 && errno != EINVAL) /* EINVAL: a file system that cannot sync folders */
    return fail(w->ctx, &w->label, "written, but the folder cannot be put on the disk", errno);
  return MAREA_OK;
}

marea_status marea_write_end (marea_writer *w, marea_status status) {
  if (status == MAREA_OK) status = put_in_place(w);
  close_quietly(w->fd);
  if (w->temp[0]) unlinkat(w->folder, w->temp, 0);
  close_quietly(w->folder);
  return status;
}

marea_status marea_save_bytes (marea_context *ctx, const char *path, const void *bytes, size_t n) {
  marea_writer w;
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "save_bytes", ctx);
  MAREA_WANT_OR_RETURN(ctx, "save_bytes", path);
  if (n > 0) MAREA_WANT_OR_RETURN(ctx, "save_bytes", bytes);
  if (n > PTRDIFF_MAX)
    return marea_fail(ctx, MAREA_EARG, "save_bytes: %zu bytes are more than any object has", n);
  MAREA_TRY(marea_write_begin(ctx, "save_bytes", path, &w));
  return marea_write_end(&w, marea_write(&w, bytes, n));
}

marea_status marea_gapless (marea_tensor *t, marea_tensor **out) {
  *out = NULL;
  MAREA_TRY(marea_want_values(t, "save", "t"));
  if (marea_tensor_contiguous(t)) return marea_detach(t, out);
  if (marea_planning(t->ctx))
    return marea_fail(t->ctx, MAREA_ESTATE, "save: a view with gaps, while a plan runs");
  bool recording = marea_set_recording(t->ctx, false);
  marea_status status = marea_run(t->ctx, &marea_op_contiguous, out, 1, t);
  marea_set_recording(t->ctx, recording);
  return status;
}
