/* SPDX-License-Identifier: MIT
** blas_open.c: what OpenBLAS and its LAPACK compute. The only file that knows them; blas_own.c stands in for it in a build
** with NO_BLAS=1.
*/
#include <cblas.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core.h"

/* Address space that OpenBLAS takes for each thread (128 MB), and some more. */
#define BLAS_BUFFER ((size_t)129 << 20)

const char *marea_blas (void) { return openblas_get_config(); }

/* Sets OpenBLAS to one thread. The setting belongs to the whole process, and setting it in two threads at once is not
   safe, so a mutex guards it. */
static void hold (void) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  if (openblas_get_num_threads() == 1) return;
  pthread_mutex_lock(&mutex);
  if (openblas_get_num_threads() != 1) openblas_set_num_threads(1);
  pthread_mutex_unlock(&mutex);
}

/* ---- products ---- */

void marea_blas_vector (const marea_kernels *kernels, const marea_blas_vector_product *p) {
  const CBLAS_TRANSPOSE t = p->by_k ? CblasTrans : CblasNoTrans;
  const int rows = (int)(p->by_k ? p->k : p->n), cols = (int)(p->by_k ? p->n : p->k);
  (void)kernels;
  hold();
#define GEMV_float cblas_sgemv
#define GEMV_double cblas_dgemv
#define GEMV(type)                                                                                      \
  GEMV_##type(CblasRowMajor, t, rows, cols, 1, (const type *)p->matrix, (int)p->ld, (const type *)p->x, \
              (int)p->x_step, p->add, (type *)p->y, (int)p->y_step)
  MAREA_SWITCH_FLOAT(p->dtype, GEMV);
}

void marea_blas_matrices (const marea_kernels *kernels, const marea_blas_product *p) {
  const CBLAS_TRANSPOSE ta = p->ta ? CblasTrans : CblasNoTrans, tb = p->tb ? CblasTrans : CblasNoTrans;
  const int m = (int)p->m, n = (int)p->n, k = (int)p->k;
  (void)kernels;
  hold();
#define GEMM_float cblas_sgemm
#define GEMM_double cblas_dgemm
#define GEMM(type)                                                                                    \
  GEMM_##type(CblasRowMajor, ta, tb, m, n, k, 1, (const type *)p->a, (int)p->lda, (const type *)p->b, \
              (int)p->ldb, p->add, (type *)p->c, (int)p->ldc)
  MAREA_SWITCH_FLOAT(p->dtype, GEMM);
}

/* ---- eigenvalues ---- */

/* By divide and conquer. Fortran passes the length of each string behind everything else. */
void dsyevd_ (const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w,
              double *work, const int *lwork, int *iwork, const int *liwork, int *info, size_t jobz_length,
              size_t uplo_length);

bool marea_blas_eigen (int n, double *a, double *w, double *work, int *integers) {
  const int lwork = 1 + 6 * n + 2 * n * n, liwork = 3 + 5 * n;
  int info = 0;
  hold();
  dsyevd_("V", "L", &n, a, &n, w, work, &lwork, integers, &liwork, &info, 1, 1);
  return info == 0;
}

/* ---- address space ---- */

/* Address space that the process has, in bytes; 0: not known. */
static size_t space_taken (void) {
  char text[32] = "";
  const int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  return n > 0 ? strtoul(text, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

/* Does address space lack for the buffers of so many threads, and for those of OpenBLAS's threads unless they have
   theirs already? */
static bool is_cramped (int threads) {
  const size_t own = (size_t)(openblas_get_num_threads() - 1) * BLAS_BUFFER;
  const size_t room = (size_t)threads * BLAS_BUFFER + (space_taken() < own ? own : 0);
  void *p = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p != MAP_FAILED) munmap(p, room);
  return p == MAP_FAILED;
}

static bool is_limited (void) {
  struct rlimit limit;
  return getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

const char *marea_blas_trouble (int threads) {
  if (!is_limited() || !is_cramped(threads ? threads : marea_usable_cores())) return NULL;
  return "OpenBLAS wants 128 MB of address space for each thread, and the limit on the process's (RLIMIT_AS, "
         "`ulimit -v`) leaves less";
}

/* Functions of OpenBLAS, which keeps a buffer for later use once it has allocated it. */
#pragma weak blas_memory_alloc
#pragma weak blas_memory_free
void *blas_memory_alloc (int unused);
void blas_memory_free (void *buffer);

void marea_blas_reserve (int threads) {
  void *buffer[MAREA_MAX_THREADS];
  if (!is_limited() || !blas_memory_alloc) return;
  for (int i = 0; i < threads; i++) buffer[i] = blas_memory_alloc(1);
  for (int i = 0; i < threads; i++) blas_memory_free(buffer[i]);
}
