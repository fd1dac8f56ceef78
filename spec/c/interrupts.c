/* SPDX-License-Identifier: MIT
** interrupts.c: sends SIGINT to a prompt at random times while it works on spec/support/interrupt_work.lua, and measures
** the time to its error message.
**
**   interrupts wall|cpu COUNT FOLDER PROGRAM...
**
** PROGRAM is build/marea, of which some signals come twice and which is then driven from a terminal, or lua5.4. `cpu`
** holds the program's own time against the limits, for machines that have other work. build/marea is interrupted as
** often again while scripts catch all errors that they can: those get 80 ms of grace.
**
** Fails when a program ends, when the times are longer than allowed, when a file is not whole, or when a training that
** was interrupted and continued ends with other bits than one that was not.
*/
#define _GNU_SOURCE
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define P99 50.0 /* ms */
#define MOST 200.0
#define PATIENCE 20000 /* ms for an answer */

typedef struct prompt {
  pid_t pid;
  int to, from;
  char seen[1 << 16]; /* what it wrote and nobody has asked for yet */
  size_t n;
} prompt;

static const char *const kinds[] = {"matmul",     "conv", "backward", "recurrent", "attention",
                                    "vocabulary", "ctc",  "pairs",    "decode",    "load",
                                    "save",       "loop", "training"};
enum { KINDS = sizeof kinds / sizeof kinds[0], TRAINING = KINDS - 1 };

static const char *const holders[] = {"pcall", "step", "batches", "xpcall", "wrap",  "resume", "close",
                                      "scope", "gc",   "until",   "sort",   "error", "nested", "coclose"};
enum { HOLDERS = sizeof holders / sizeof holders[0] };

static bool busy_machine;

static double now_ms (const prompt *p) {
  struct timespec t;
  clockid_t clock = CLOCK_MONOTONIC;
  if (busy_machine && clock_getcpuclockid(p->pid, &clock) != 0) exit(2);
  clock_gettime(clock, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void sleep_ms (double ms) {
  struct timespec t = {(time_t)(ms / 1e3), (long)(ms * 1e6) % 1000000000};
  nanosleep(&t, NULL);
}

static double random_ms (double from, double to) { return from + (to - from) * drand48(); }

static void give_up (const prompt *p, const char *what) {
  printf("FAIL: %s; it wrote:\n%.*s\n", what, (int)p->n, p->seen);
  exit(1);
}

/* ---- the prompt ---- */

static void open_prompt (prompt *p, const char *program) {
  int in[2], out[2];
  memset(p, 0, sizeof *p);
  if (pipe(in) || pipe(out)) exit(2);
  p->pid = fork();
  if (p->pid == 0) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    dup2(out[1], 2);
    for (int fd = 3; fd < 16; fd++) close(fd);
    signal(SIGINT, SIG_DFL);
    execlp(program, program, "-i", "spec/support/interrupt_work.lua", (char *)NULL);
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  p->to = in[1];
  p->from = out[0];
}

/* The same behind a terminal. */
static void open_terminal (prompt *p, const char *program) {
  memset(p, 0, sizeof *p);
  p->pid = forkpty(&p->from, NULL, NULL, NULL);
  if (p->pid == 0) {
    signal(SIGINT, SIG_DFL);
    setenv("MAREA_HISTORY", "", 1); /* what is typed here is not the user's */
    execlp(program, program, (char *)NULL);
    _exit(127);
  }
  p->to = dup(p->from);
}

static void close_prompt (prompt *p) {
  int status;
  close(p->to);
  close(p->from);
  kill(p->pid, SIGKILL);
  waitpid(p->pid, &status, 0);
}

static void type (prompt *p, const char *line) {
  if (write(p->to, line, strlen(line)) < 0 || write(p->to, "\n", 1) < 0) give_up(p, "the program has ended");
}

/* Waits for more output. */
static void listen_on (prompt *p) {
  struct pollfd fd = {.fd = p->from, .events = POLLIN};
  if (p->n == sizeof p->seen) p->n = 0;
  if (poll(&fd, 1, PATIENCE) <= 0) give_up(p, "no answer");
  ssize_t n = read(p->from, p->seen + p->n, sizeof p->seen - p->n);
  if (n <= 0) give_up(p, "the program has ended");
  p->n += (size_t)n;
}

/* Reads until one of the words has come; forgets what was before it. Says which one, and puts what is behind it, up to
   the end of its line, to `rest`. */
static int await (prompt *p, const char *word, const char *other, char rest[200]) {
  for (;;) {
    char *a = memmem(p->seen, p->n, word, strlen(word)),
         *b = other ? memmem(p->seen, p->n, other, strlen(other)) : NULL;
    bool first = a && (!b || a < b);
    char *at = first ? a : b, *end = at ? memchr(at, '\n', (size_t)(p->seen + p->n - at)) : NULL;
    if (!end) {
      listen_on(p);
      continue;
    }
    at += strlen(first ? word : other);
    if (rest) snprintf(rest, 200, "%.*s", (int)(end - at), at);
    p->n -= (size_t)(end - p->seen);
    memmove(p->seen, end, p->n);
    return first ? 0 : 1;
  }
}

/* ---- one interrupt ---- */

typedef struct tally {
  double *ms;
  int n;
  char expected[200]; /* what an undisturbed training comes to */
  bool twice;         /* some signals come twice */
} tally;

/* Signals after a random time. Adds the time to the message; false: the work was done before. */
static bool interrupt (prompt *p, tally *t, char rest[200]) {
  sleep_ms(random_ms(55, 110)); /* sooner than 50 ms after the last one it counts as the same */
  const double start = now_ms(p);
  kill(p->pid, SIGINT);
  if (t->twice && drand48() < 0.3) {
    sleep_ms(random_ms(0, 3));
    kill(p->pid, SIGINT);
  }
  if (await(p, "interrupted!", "done", rest) == 1) {
    await(p, "interrupted!", NULL, NULL);
    return false;
  }
  t->ms[t->n++] = now_ms(p) - start;
  return true;
}

static void work (prompt *p, tally *t, const char *kind) {
  char line[200];
  snprintf(line, sizeof line, "work '%s'", kind);
  type(p, line);
  await(p, "begin", NULL, NULL);
  if (!interrupt(p, t, NULL)) give_up(p, "the work ended");
  if (strcmp(kind, "save") != 0) return;
  type(p, "check_saved()");
  await(p, "whole\t", NULL, line);
  if (strcmp(line, "true") != 0) give_up(p, line);
}

/* Waits for the end of the training, and ends what follows. */
static void finish (prompt *p, char rest[200]) {
  await(p, "done", NULL, rest);
  sleep_ms(60);
  kill(p->pid, SIGINT);
  await(p, "interrupted!", NULL, NULL);
}

/* Interrupts one training again and again until it is through. */
static void train (prompt *p, tally *t, int most) {
  char rest[200];
  type(p, "restart()");
  for (;;) {
    type(p, "train()");
    await(p, "begin", NULL, NULL);
    if (t->n < most && interrupt(p, t, rest)) continue;
    if (t->n >= most) finish(p, rest);
    break;
  }
  if (strcmp(rest, t->expected) != 0) give_up(p, "an interrupted training went another way");
}

static void expect (prompt *p, tally *t) {
  type(p, "restart() train()");
  finish(p, t->expected);
}

static int by_size (const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* ---- keys ---- */

/* As a person does, with time around. */
static void press (prompt *p, const char *keys) {
  sleep_ms(80);
  if (write(p->to, keys, strlen(keys)) < 0) give_up(p, "the program has ended");
  sleep_ms(80);
}

/* Ctrl-C drops a line that was begun, stops what runs, and never ends the program. */
static void use_terminal (const char *program) {
  prompt p;
  open_terminal(&p, program);
  await(&p, ":help", NULL, NULL);
  press(&p, "print('half' ..");
  press(&p, "\003");
  press(&p, "\003");
  type(&p, "print('al' .. 'ive')");
  await(&p, "alive", NULL, NULL);
  for (int i = 0; i < 3; i++) {
    type(&p, "io.write('be' .. 'gun\\n') while true do end");
    await(&p, "begun", NULL, NULL);
    press(&p, "\003\003");
    await(&p, "interrupted!", NULL, NULL);
  }
  press(&p, "\003");
  type(&p, "print('al' .. 'ive')");
  await(&p, "alive", NULL, NULL);
  close_prompt(&p);
  printf("ok   %s at a terminal\n", program);
}

/* ---- all ---- */

static bool report (const char *program, const char *kind, tally *t, double p99_allowed) {
  qsort(t->ms, (size_t)t->n, sizeof *t->ms, by_size);
  const double p99 = t->ms[(t->n * 99 + 99) / 100 - 1], most = t->ms[t->n - 1];
  const bool ok = p99 <= p99_allowed && most <= MOST;
  printf("%s %-8s %-9s %5d signals: median %5.1f, p99 %5.1f, longest %5.1f ms\n", ok ? "ok  " : "FAIL",
         strrchr(program, '/') ? strrchr(program, '/') + 1 : program, kind, t->n, t->ms[t->n / 2], p99, most);
  fflush(stdout);
  return ok;
}

/* Scripts that hold every error. */
static bool hold (prompt *p, const char *program, int count) {
  tally t = {.ms = calloc((size_t)count + HOLDERS, sizeof *t.ms)};
  for (int i = 0; i < HOLDERS; i++) {
    tally one = {.ms = t.ms + t.n};
    while (one.n < (count + HOLDERS - 1) / HOLDERS) work(p, &one, holders[i]);
    t.n += one.n;
    (void)report(program, holders[i], &one, MOST);
  }
  const bool ok = report(program, "held", &t, MOST);
  free(t.ms);
  return ok;
}

static bool run (const char *program, int total) {
  const int count = total / KINDS + 1; /* of each kind */
  prompt p;
  tally t = {.ms = calloc((size_t)count + 1, sizeof *t.ms), .twice = strstr(program, "marea") != NULL};
  double *all = calloc((size_t)count * KINDS + 1, sizeof *all);
  int n = 0;
  open_prompt(&p, program);
  expect(&p, &t);
  for (int kind = 0; kind < KINDS; kind++) {
    t.n = 0;
    while (t.n < count)
      if (kind == TRAINING) train(&p, &t, count);
      else work(&p, &t, kinds[kind]);
    memcpy(all + n, t.ms, (size_t)t.n * sizeof *all);
    n += t.n;
    tally one = {.ms = t.ms, .n = t.n};
    (void)report(program, kinds[kind], &one, P99);
  }
  const bool let_go = !t.twice || hold(&p, program, total);
  train(&p, &t, t.n); /* undisturbed, after all this */
  close_prompt(&p);
  tally sum = {.ms = all, .n = n};
  const bool ok = report(program, "all", &sum, P99) && let_go;
  free(all);
  free(t.ms);
  if (t.twice) use_terminal(program);
  return ok;
}

int main (int argc, char **argv) {
  bool ok = true;
  if (argc < 5) return 2;
  busy_machine = strcmp(argv[1], "cpu") == 0;
  setenv("INTERRUPT_FOLDER", argv[3], 1);
  srand48(11);
  signal(SIGPIPE, SIG_IGN);
  for (int i = 4; i < argc; i++) ok = run(argv[i], atoi(argv[2])) && ok;
  return ok ? 0 : 1;
}
