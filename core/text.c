/* SPDX-License-Identifier: MIT
** text.c: numbers as text, and text that came from elsewhere.
*/
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "c_locale.h"
#include "core.h"

int marea_vformat (char *to, size_t room, const char *format, va_list args) {
  const locale_t host = marea_use_c_locale();
  const int n = vsnprintf(to, room, format, args);
  uselocale(host);
  return n;
}

int marea_format (char *to, size_t room, const char *format, ...) {
  va_list args;
  va_start(args, format);
  const int n = marea_vformat(to, room, format, args);
  va_end(args);
  return n;
}

/* The least code that needs 2, 3 and 4 bytes: a longer form of a character is none. */
int marea_utf8 (const char *text, size_t n, uint32_t *code) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const uint8_t *p = (const uint8_t *)text;
  const int length = n == 0        ? 0
                     : p[0] < 0x80 ? 1
                     : p[0] < 0xc0 ? 0
                     : p[0] < 0xe0 ? 2
                     : p[0] < 0xf0 ? 3
                     : p[0] < 0xf8 ? 4
                                   : 0;
  if (length == 0 || (size_t)length > n) return 0;
  uint32_t c = length == 1 ? p[0] : p[0] & (0x7fu >> length);
  for (int i = 1; i < length; i++) {
    if ((p[i] & 0xc0) != 0x80) return 0;
    c = c << 6 | (p[i] & 0x3fu);
  }
  if (c < least[length] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) return 0;
  if (code) *code = c;
  return length;
}

/* Characters that steer a terminal, or make text be shown in another order, or not at all: Unicode's controls (C0, C1),
   marks, embeddings and isolates of direction, separators of lines, annotations, tags. */
static bool is_shown (uint32_t c) {
  static const struct {
    uint32_t first, last;
  } hidden[] = {{0, 0x1f},        {0x7f, 0x9f},     {0x61c, 0x61c},   {0x200b, 0x200b}, {0x200e, 0x200f},
                {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f}};
  for (int i = 0; i < MAREA_COUNT(hidden); i++)
    if (c >= hidden[i].first && c <= hidden[i].last) return false;
  return true;
}

char *marea_printable (char *text) {
  if (!text) return NULL;
  char *to = text;
  size_t n = strlen(text);
  for (const char *from = text; n > 0;) {
    uint32_t code = 0;
    const int length = marea_utf8(from, n, &code), step = length ? length : 1;
    if (length && is_shown(code)) memmove(to, from, (size_t)length), to += length;
    else *to++ = '?';
    from += step;
    n -= (size_t)step;
  }
  *to = '\0';
  return text;
}
