/* SPDX-License-Identifier: MIT
** save_test.c: saving and loading when the system does not play along: every system call failing, every one
** being the last of the process, every request for memory failing, odd paths. System calls are caught by
** functions of the same names in this program, which the linker prefers to the C library's.
*/
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "io_support.h"

/* ---- system calls that fail ---- */

typedef enum fault { FAIL, SHORT, CRASH, CRASH_HALFWAY } fault;
static struct {
  bool armed;
  int calls, at, error;
  fault fault;
} shim;

static void arm (int at, fault what, int error) {
  shim.armed = true;
  shim.calls = 0;
  shim.at = at;
  shim.fault = what;
  shim.error = error;
}

static bool hit (void) {
  if (!shim.armed || ++shim.calls != shim.at) return false;
  if (shim.fault == CRASH) _exit(9);
  errno = shim.error;
  return shim.fault == FAIL;
}

static bool hit_now (fault what) { return shim.armed && shim.calls == shim.at && shim.fault == what; }

int open (const char *path, int flags, ...) {
  va_list args;
  va_start(args, flags);
  unsigned mode = flags & O_CREAT ? va_arg(args, unsigned) : 0;
  va_end(args);
  return hit() ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int openat (int dir, const char *path, int flags, ...) {
  va_list args;
  va_start(args, flags);
  unsigned mode = flags & O_CREAT ? va_arg(args, unsigned) : 0;
  va_end(args);
  return hit() ? -1 : (int)syscall(SYS_openat, dir, path, flags, mode);
}

ssize_t read (int fd, void *to, size_t n) {
  if (hit()) return -1;
  return syscall(SYS_read, fd, to, hit_now(SHORT) && n > 1 ? n / 2 : n);
}

ssize_t write (int fd, const void *from, size_t n) {
  if (hit()) return -1;
  bool half = hit_now(SHORT) || hit_now(CRASH_HALFWAY);
  ssize_t put = syscall(SYS_write, fd, from, half && n > 1 ? n / 2 : n);
  if (hit_now(CRASH_HALFWAY)) _exit(9);
  return put;
}

int fsync (int fd) { return hit() ? -1 : (int)syscall(SYS_fsync, fd); }

int fstat (int fd, struct stat *st) { return hit() ? -1 : (int)syscall(SYS_fstat, fd, st); }

int fchmod (int fd, mode_t mode) { return hit() ? -1 : (int)syscall(SYS_fchmod, fd, mode); }

int renameat (int from, const char *a, int to, const char *b) {
  return hit() ? -1 : (int)syscall(SYS_renameat, from, a, to, b);
}

int close (int fd) { /* a close that fails has closed nevertheless, as on Linux */
  bool failing = hit();
  int error = errno, result = (int)syscall(SYS_close, fd);
  if (!failing) return result;
  errno = error;
  return -1;
}

/* ---- files ---- */

static int files_in_folder (void) {
  int n = 0;
  DIR *dir = opendir(folder);
  const struct dirent *e;
  while ((e = readdir(dir))) n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
  closedir(dir);
  return n;
}

static int open_files (void) {
  int n = 0;
  DIR *dir = opendir("/proc/self/fd");
  while (dir && readdir(dir)) n++;
  if (dir) closedir(dir);
  return n;
}

static void refuse_path (const char *path, const char *why) {
  marea_tensor *t;
  CHECK(marea_load_npy(ctx, path, &t) == MAREA_EIO && strstr(marea_error(ctx), why));
  t = MAKE(MAREA_U8, 0, 2, 2);
  CHECK(marea_save_npy(t, path) == MAREA_EIO && strstr(marea_error(ctx), why));
  marea_release(t);
}

static void test_paths (void) {
  marea_tensor *t = MAKE(MAREA_U8, 0, 2, 2);
  CHECK(marea_save_png(t, "/dev/none/x.png") == MAREA_EIO);
  CHECK(strcmp(marea_error(ctx), "save_png: '/dev/none/x.png': cannot open: No such file or directory") == 0);
  clean_folder();
  CHECK(mkfifo(in_folder("pipe"), 0666) == 0);
  refuse_path(in_folder("pipe"), "a device or a pipe");
  refuse_path("/dev/zero", "a device or a pipe");
  refuse_path(folder, "Is a directory");
  refuse_path("", "No such file");
  CHECK(marea_save_npy(t, in_folder("sub/")) == MAREA_EIO);
  char name[300];
  memset(name, 'n', 255);
  name[255] = '\0';
  CHECK_OK(marea_save_npy(t, in_folder(name)));
  name[255] = 'n', name[256] = '\0';
  CHECK(marea_save_npy(t, in_folder(name)) == MAREA_EIO && strstr(marea_error(ctx), "File name too long"));
  clean_folder();
  struct stat st;
  mode_t mask = umask(027);
  CHECK_OK(marea_save_npy(t, in_folder("real")));
  umask(mask);
  CHECK(stat(in_folder("real"), &st) == 0 && (st.st_mode & 0777) == 0640);
  CHECK(chmod(in_folder("real"), 0604) == 0 && symlink("real", in_folder("link")) == 0);
  CHECK_OK(marea_save_npy(t, in_folder("link")));
  CHECK(lstat(in_folder("link"), &st) == 0 && S_ISLNK(st.st_mode));
  CHECK(stat(in_folder("real"), &st) == 0 && (st.st_mode & 0777) == 0604);
  spill(in_folder(".real.12-ab.marea-tmp"), "", 0);  /* left by a crash */
  spill(in_folder(".other.12-ab.marea-tmp"), "", 0); /* another target's */
  spill(in_folder(".real.34-cd.marea-tmp"), "", 0);  /* of a writer who lives */
  int live = open(in_folder(".real.34-cd.marea-tmp"), O_RDONLY);
  CHECK(flock(live, LOCK_EX) == 0);
  CHECK_OK(marea_save_npy(t, in_folder("real")));
  close(live);
  CHECK(files_in_folder() == 4 && access(in_folder(".real.12-ab.marea-tmp"), F_OK) != 0);
  marea_release(t);
  clean_folder();
}

/* ---- every system call fails, every one is the last ---- */

static bool holds (const char *path, const marea_file *f) {
  marea_file *g;
  CHECK_OK(marea_file_load(ctx, path, &g));
  bool result = same_files(f, g);
  marea_file_free(g);
  return result;
}

static void test_failing_calls (fault what, int error) {
  marea_file *old = make_file(0), *new = make_file(1), *g;
  const char *path = in_folder("state.safetensors");
  int fds = open_files(), calls = 0;
  marea_memory_info before = marea_memory(ctx);
  for (int k = 1; calls == 0 || k <= calls + 1; k++) {
    CHECK_OK(marea_file_save(old, path));
    CHECK(chmod(path, 0644) == 0);
    arm(k, what, error);
    marea_status status = marea_file_save(new, path);
    shim.armed = false;
    CHECK(status == MAREA_OK || (status == MAREA_EIO && strstr(marea_error(ctx), path)));
    CHECK(what != SHORT || status == MAREA_OK);
    bool after_rename = status != MAREA_OK && strstr(marea_error(ctx), "written, but the folder");
    CHECK(holds(path, status == MAREA_OK || after_rename ? new : old));
    CHECK(files_in_folder() == 1 && open_files() == fds);
    calls = shim.calls;
    if (shim.calls < k) break;
  }
  for (int k = 1; k < 10; k++) {
    arm(k, what, error);
    marea_status status = marea_file_load(ctx, path, &g);
    shim.armed = false;
    CHECK(status == MAREA_OK || (status == MAREA_EIO && !g && strstr(marea_error(ctx), path)));
    marea_file_free(g);
    CHECK(open_files() == fds);
  }
  marea_memory_info after = marea_memory(ctx);
  CHECK(before.blocks == after.blocks && before.live == after.live);
  marea_file_free(old), marea_file_free(new);
}

static int test_crashes (fault what) {
  marea_file *old = make_file(0), *new = make_file(1);
  const char *path = in_folder("state.safetensors");
  int crashes = 0, status = 1;
  CHECK_OK(marea_file_save(old, path));
  for (int k = 1; status != 0; k++) {
    CHECK_OK(marea_file_save(old, path)); /* this also removes what the crash before has left */
    CHECK(files_in_folder() == 1);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      arm(k, what, 0);
      marea_status saved = marea_file_save(new, path);
      _exit(saved != MAREA_OK ? 1 : shim.calls < k ? 0 : 2);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) != 1);
    CHECK(holds(path, old) || holds(path, new));
    crashes += WEXITSTATUS(status) == 9;
  }
  marea_file_free(old), marea_file_free(new);
  return crashes;
}

static void test_no_memory (void) {
  marea_file *f = make_file(1);
  marea_tensor *t = MAKE(MAREA_F32, 0, 5, 6), *view = transposed(t);
  marea_memory_info before = marea_memory(ctx);
  for (int what = 0; what < 3; what++)
    for (uint64_t k = 1;; k++) {
      marea_memory_fail(ctx, k, false);
      marea_status status = what == 0   ? marea_file_save(f, in_folder("m"))
                            : what == 1 ? marea_save_npy(view, in_folder("m"))
                                        : marea_save_png(view, in_folder("m"));
      marea_memory_fail(ctx, 0, false);
      CHECK(status == MAREA_OK || status == MAREA_ENOMEM);
      CHECK(marea_memory(ctx).blocks == before.blocks && marea_memory(ctx).live == before.live);
      if (status == MAREA_OK) break;
    }
  marea_release(t), marea_release(view);
  marea_file_free(f);
}

int main (void) {
  begin_test();
  test_paths();
  test_failing_calls(FAIL, EIO);
  test_failing_calls(FAIL, ENOSPC);
  test_failing_calls(FAIL, EINTR);
  test_failing_calls(SHORT, 0);
  int crashes = test_crashes(CRASH) + test_crashes(CRASH_HALFWAY);
  test_no_memory();
  end_test();
  printf("save_test: %d crashes during a save, each left the old file or the new one\n", crashes);
  return 0;
}
