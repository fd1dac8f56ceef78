/* SPDX-License-Identifier: MIT
** mutate.h: files that are changed at random, for drivers that do with gcc what libFuzzer would do: the seeds of each kind,
** and what becomes of them. The same numbers each time. KINDS, of the driver, is how many kinds it has.
*/
#ifndef MUTATE_H
#define MUTATE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEEDS 64
#define LONGEST 16384

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

static void need (bool good) {
  if (!good) abort();
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
    if (n && n < LONGEST) add(kind, bytes, n);
  }
  fclose(f);
}

static size_t least (size_t a, size_t b) { return a < b ? a : b; }

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
                                      "'",
                                      "\n",
                                      "\r"};
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
      const size_t from = n ? draw(n) : 0, length = draw(1 + least(n - (at > from ? at : from), 64));
      memmove(p + at, p + from, length);
      break;
    }
    case 4: { /* a word put in */
      const char *word = words[draw(sizeof words / sizeof *words)];
      const size_t length = *word ? strlen(word) : 4;
      if (n + length > LONGEST) break;
      memmove(p + at + length, p + at, n - at);
      memcpy(p + at, word, length);
      n += length;
      break;
    }
    default: { /* some bytes less */
      const size_t length = draw(1 + least(n - at, 16));
      memmove(p + at, p + at + length, n - at - length);
      n -= length;
    }
    }
  }
  return n;
}

/* What the command line asks for. */
typedef struct request {
  long tries, kind; /* kind -1: all */
} request;

static request read_request (int argc, char **argv) {
  if (argc > 3) state = strtoull(argv[3], NULL, 10);
  return (request){argc > 1 ? strtol(argv[1], NULL, 10) : 20000, argc > 2 ? strtol(argv[2], NULL, 10) : -1};
}

typedef void reader (int kind, const uint8_t *p, size_t n);

/* Has so many files of a kind read: its seeds, then what becomes of them. */
static void read_mutated (int kind, long tries, reader *read) {
  static uint8_t file[LONGEST];
  for (long i = 0; i < tries; i++) {
    const seed *s = &seeds[kind][i % count[kind]];
    memcpy(file, s->p, s->n);
    read(kind, file, i < count[kind] ? s->n : mutate(file, s->n));
  }
}

#endif
