/* SPDX-License-Identifier: MIT
** bench/launch.c: runs a program and prints, as the last line, how long it took in ms and its peak resident
** memory in MiB; exits as the program did. Usage: launch PROGRAM ARGUMENT...
*/
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now (void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

int main (int argc, char **argv) {
  if (argc < 2) return 127;
  double start = now();
  pid_t child = vfork();
  if (child == 0) {
    execvp(argv[1], argv + 1);
    _exit(127);
  }
  int status;
  struct rusage usage;
  if (child < 0 || wait4(child, &status, 0, &usage) < 0) return 127;
  double end = now();
  printf("%.3f %.1f\n", end - start, (double)usage.ru_maxrss / 1024);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 126;
}
