/* SPDX-License-Identifier: MIT
** fuzz_extra.c: the optional modules of bindings/extra on files that are changed at random (mutate.h), under the sanitizers:
** no report, and results that hold together. They are linked into this program; one whose library is missing is weak, and
** passed over with a message. Debian's libraries are not instrumented: of these the sanitizers see the heap and what they
** do to it by functions of the C library.
**
**   fuzz_extra [TRIES [KIND [SEED]]]       KIND: 0 CSV, 1 WAV, 2 HDF5, -1 for all of them; 100 times fewer of HDF5, for
**                                          which each file is a process
*/
#define _GNU_SOURCE
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#include <unistd.h>

#define KINDS 3
#include "mutate.h"

__attribute__((weak)) int luaopen_marea_csv (lua_State *L);
__attribute__((weak)) int luaopen_marea_sndfile (lua_State *L);
__attribute__((weak)) int luaopen_marea_hdf5 (lua_State *L);

/* A process apart, which the reader of HDF5 is, may not keep signals from AddressSanitizer. */
const char *__asan_default_options (void);
const char *__asan_default_options (void) {
  return "quarantine_size_mb=1:thread_local_quarantine_size_kb=64:allocator_may_return_null=1:"
         "handle_segv=2:handle_sigbus=2:handle_sigfpe=2:handle_abort=1";
}

static lua_State *L;
static long accepted; /* files of this kind */

/* Places on the stack, for as long as a kind is read. */
enum { MODULE = 1, MISSING, FILE_BYTES, WHOLE };

static void open_module (lua_CFunction open) {
  lua_settop(L, 0);
  lua_pushcfunction(L, open);
  lua_call(L, 0, 1);
}

/* ---- CSV ---- */

static void add_csv (void) {
  static const char *const files[] = {
      "a,b,c\n1,2.5,x\n-3,1e9,\"y, \"\"z\"\"\"\n",
      "\357\273\2771;2;3\r\n4;;6\r\n",
      "k\tv\nNA\t1\n2\tnull\n",
      "a|\"b\nc\"|d\n9223372036854775807|-0|0x1p3\n9223372036854775808|inf|nan(1)\n",
      "x\n1\n2\n3\n4\n5\n\n\n6 \n 7\n\"8\"",
      "a,b\n1,\"\"\n,2\n\"\",\n1,2,3\n"};
  char cells[130]; /* more rows, or more columns, than there is room for at first */
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) add(0, files[i], strlen(files[i]));
  for (size_t i = 0; i < sizeof cells; i += 2) memcpy(cells + i, "5\n", 2);
  add(0, cells, sizeof cells);
  for (size_t i = 0; i < 34; i += 2) cells[i + 1] = ',';
  add(0, cells, 36);
}

/* Gives the file to a new parser, the first `cut` bytes of it apart; three results, at the end of the stack. */
static void parse (const char *separator, bool has_header, int texts, size_t cut) {
  size_t n;
  const char *bytes = lua_tolstring(L, FILE_BYTES, &n);
  lua_getfield(L, MODULE, "parser");
  lua_pushlstring(L, separator, 1);
  lua_pushboolean(L, has_header);
  lua_pushvalue(L, MISSING);
  if (texts) lua_pushvalue(L, texts);
  else lua_pushnil(L);
  lua_call(L, 4, 1);
  for (int piece = 0; piece < 2; piece++) {
    lua_getfield(L, -1, "feed");
    lua_pushvalue(L, -2);
    lua_pushlstring(L, piece ? bytes + cut : bytes, piece ? n - cut : cut);
    lua_call(L, 2, 0);
  }
  lua_getfield(L, -1, "finish");
  lua_rotate(L, -2, 1);
  lua_call(L, 1, 3);
}

/* Two lists of strings, or two values. */
static bool is_same (int a, int b) {
  if (!lua_istable(L, a) || !lua_istable(L, b)) return lua_rawequal(L, a, b);
  bool same = lua_rawlen(L, a) == lua_rawlen(L, b);
  for (lua_Integer i = (lua_Integer)lua_rawlen(L, a); same && i > 0; i--) {
    lua_rawgeti(L, a, i);
    lua_rawgeti(L, b, i);
    same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  return same;
}

/* Of the columns at WHOLE + 2: every one of numbers is as long as the others; how many rows there are, -1: not known. The
** list of those that shall be texts, at the end of the stack. */
static lua_Integer check_columns (void) {
  const lua_Integer n = (lua_Integer)lua_rawlen(L, WHOLE + 1);
  lua_Integer rows = -1;
  lua_createtable(L, (int)n, 0);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, WHOLE + 1, i);
    lua_rawgeti(L, WHOLE + 2, i);
    const bool is_text = strcmp(lua_tostring(L, -2), "text") == 0;
    const lua_Integer size = (lua_Integer)lua_rawlen(L, -1);
    need(is_text || (size % 8 == 0 && (rows < 0 || rows == size / 8)));
    if (!is_text) rows = size / 8;
    lua_pop(L, 2);
    lua_pushboolean(L, is_text || draw(4) == 0);
    lua_rawseti(L, -2, i);
  }
  return rows;
}

/* The lists at the end of the stack are as long as the columns of numbers. */
static void check_texts (lua_Integer rows) {
  for (lua_Integer i = (lua_Integer)lua_rawlen(L, -1); i > 0; i--) {
    if (lua_rawgeti(L, -1, i) == LUA_TTABLE) {
      need(rows < 0 || (lua_Integer)lua_rawlen(L, -1) == rows);
      rows = (lua_Integer)lua_rawlen(L, -1);
    }
    lua_pop(L, 1);
  }
}

/* What marea.load_csv does with a file. Half of the files are also parsed in two pieces, which shall be the same; a mark of
** UTF-8 is in the first piece. */
static void read_csv (int kind, const uint8_t *p, size_t n) {
  const char *separator = &",,,;\t|"[draw(6)];
  const bool has_header = draw(2);
  const size_t cut = n > 3 ? 3 + draw(n - 3) : n;
  (void)kind;
  lua_settop(L, MISSING);
  lua_pushlstring(L, (const char *)p, n);
  parse(separator, has_header, 0, n);
  if (draw(2)) {
    parse(separator, has_header, 0, cut);
    for (int i = 0; i < 3; i++) need(is_same(WHOLE + i, WHOLE + 3 + i));
  }
  if (lua_isnil(L, WHOLE)) {
    need(lua_isstring(L, WHOLE + 1));
    return;
  }
  accepted++;
  const lua_Integer rows = check_columns();
  parse(separator, has_header, lua_gettop(L), cut);
  need(lua_istable(L, -1));
  check_texts(rows);
}

static void begin_csv (void) {
  open_module(luaopen_marea_csv);
  lua_newtable(L);
  lua_pushliteral(L, "NA");
  lua_rawseti(L, -2, 1);
  lua_pushliteral(L, "null");
  lua_rawseti(L, -2, 2);
  add_csv();
}

/* ---- WAV ---- */

/* How many bytes it put: n. */
static size_t put (uint8_t *to, uint64_t value, size_t n, bool is_big) {
  for (size_t i = 0; i < n; i++) to[i] = (uint8_t)(value >> 8 * (is_big ? n - 1 - i : i));
  return n;
}

typedef struct wav_format {
  const char *start;
  unsigned format, channels, bits, block, samples; /* samples of a block, of compressed ones */
} wav_format;

/* What the format chunk has behind the fields that all formats have. */
static size_t put_more (uint8_t *to, const wav_format *f, bool is_big) {
  size_t n = 0;
  if (f->format == 1) return 0;
  n += put(to, f->format == 0xfffe ? 22 : f->samples ? 2 : 0, 2, is_big);
  if (f->samples) n += put(to + n, f->samples, 2, is_big);
  if (f->format != 0xfffe) return n;
  n += put(to + n, f->bits, 2, is_big);
  n += put(to + n, 3, 4, is_big);
  n += put(to + n, 1, 4, is_big);
  memcpy(to + n, "\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71", 12);
  return n + 12;
}

/* A file of 65 bytes of sound, with a chunk beside it. */
static void add_wav (const wav_format *f) {
  const bool is_big = strcmp(f->start, "RIFX") == 0;
  uint8_t file[400] = "", *at = file + 12;
  if (strcmp(f->start, "RF64") == 0) memcpy(at, "ds64\x1c\0\0\0\x8d\0\0\0\0\0\0\0\x41", 17), at += 36;
  memcpy(at, "fmt ", 4);
  uint8_t *const format = at + 8;
  at = format + put(format, f->format, 2, is_big);
  at += put(at, f->channels, 2, is_big);
  at += put(at, 8000, 4, is_big);
  at += put(at, 8000 * f->block, 4, is_big);
  at += put(at, f->block, 2, is_big);
  at += put(at, f->bits, 2, is_big);
  at += put_more(at, f, is_big);
  put(format - 4, (uint64_t)(at - format), 4, is_big);
  memcpy(at, "LIST", 4);
  put(at + 4, 16, 4, is_big);
  memcpy(at + 8, "INFOINAM", 8);
  put(at + 16, 4, 4, is_big);
  memcpy(at + 20, "abc\0data", 8);
  at += 28 + put(at + 28, 65, 4, is_big);
  for (int i = 0; i < 65; i++) *at++ = (uint8_t)(i * 37);
  memcpy(file, f->start, 4);
  put(file + 4, (uint64_t)(at - file - 8), 4, is_big);
  memcpy(file + 8, "WAVE", 4);
  add(1, file, (size_t)(at - file));
}

/* The bytes that `encode` makes of the samples at `from`; at the end of the stack, nil if they are refused. */
static void encode (int from, lua_Integer channels, lua_Integer rate, int bits) {
  lua_getfield(L, MODULE, "encode");
  lua_pushvalue(L, from);
  lua_pushinteger(L, channels);
  lua_pushinteger(L, rate);
  lua_pushinteger(L, bits);
  lua_call(L, 4, 1);
}

/* What `decode` gives for the bytes at the end of the stack, in their place; whether it gives sound. */
static bool decode (void) {
  lua_getfield(L, MODULE, "decode");
  lua_rotate(L, -2, 1);
  lua_call(L, 1, 4);
  if (lua_isnil(L, -4)) {
    need(lua_isstring(L, -3));
    return false;
  }
  const lua_Integer frames = lua_tointeger(L, -3), channels = lua_tointeger(L, -2);
  need(frames >= 0 && channels > 0 && lua_rawlen(L, -4) == (size_t)(frames * channels) * sizeof(float));
  return true;
}

/* Of the sound that was read: what is written of it is read as the same. */
static void check_written (void) {
  const int at = lua_gettop(L) - 3;
  encode(at, lua_tointeger(L, at + 2), lua_tointeger(L, at + 3), 32);
  if (lua_isnil(L, -1)) return;
  need(decode());
  for (int i = 0; i < 4; i++) need(lua_rawequal(L, at + i, at + 4 + i));
}

static void read_wav (int kind, const uint8_t *p, size_t n) {
  (void)kind;
  lua_settop(L, MODULE);
  lua_pushlstring(L, (const char *)p, n);
  if (!decode()) return;
  accepted++;
  if (draw(16) == 0) check_written();
}

static void begin_wav (void) {
  static const wav_format formats[] = {
      {"RIFF", 1, 2, 16, 4},      {"RIFX", 1, 1, 8, 1},  {"RIFF", 1, 1, 24, 3},
      {"RIFX", 1, 2, 32, 8},      {"RIFF", 3, 2, 32, 8}, {"RIFF", 3, 1, 64, 8},
      {"RIFF", 7, 1, 8, 1},       {"RIFX", 6, 2, 8, 2},  {"RIFF", 0xfffe, 2, 16, 4},
      {"RIFF", 0xfffe, 1, 24, 3}, {"RF64", 1, 2, 16, 4}, {"RIFF", 17, 1, 4, 48, 89},
      {"RIFF", 49, 1, 0, 65, 320}};
  open_module(luaopen_marea_sndfile);
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) add_wav(&formats[i]);
  lua_pushlstring(L, (const char *)seeds[1][0].p, 64);
  for (int bits = 16; bits <= 32; bits += 8) {
    size_t n;
    encode(MODULE + 1, 2, 44100, bits);
    const char *file = lua_tolstring(L, -1, &n);
    need(file);
    add(1, file, n);
    lua_pop(L, 1);
  }
}

/* ---- HDF5 ---- */

/* A pipe that takes what the sanitizers say in the reader's process, whose stderr is closed. */
static int report[2];

/* UBSan closes the file that AddressSanitizer writes to, when it has something to say. */
static void report_to_pipe (void) { __sanitizer_set_report_fd((void *)(uintptr_t)dup(report[1])); }

/* UBSan calls it at each report. */
void __ubsan_on_report (void);
void __ubsan_get_current_report_data (const char **kind, const char **message, const char **file,
                                      unsigned *line, unsigned *column, char **address);

void __ubsan_on_report (void) {
  const char *kind, *message, *file;
  char *address;
  unsigned line, column;
  __ubsan_get_current_report_data(&kind, &message, &file, &line, &column, &address);
  if (report[1]) dprintf(report[1], "%s:%u:%u: %s\n", file, line, column, message);
}

/* libhdf5 spoils its memory for some files. Whether an error is this program's, of which the module is a part, and not
** that library's: which is named first in the list of calls. */
static bool is_ours (const char *text) {
  const char *ours = strstr(text, "/fuzz_extra+"), *theirs = strstr(text, "/libhdf5");
  return !theirs || (ours && ours < theirs);
}

static void check_report (void) {
  static char text[1 << 16];
  const ssize_t n = read(report[0], text, sizeof text - 1);
  if (n <= 0) return;
  text[n] = '\0';
  if (!is_ours(text)) return;
  fputs(text, stderr);
  abort();
}

static void read_hdf5 (int kind, const uint8_t *p, size_t n) {
  uint64_t header;
  (void)kind;
  lua_settop(L, MODULE);
  lua_getfield(L, MODULE, "safetensors");
  lua_pushlstring(L, (const char *)p, n);
  lua_call(L, 1, 2);
  check_report();
  if (lua_isnil(L, -2)) {
    need(lua_isstring(L, -1));
    return;
  }
  size_t size;
  accepted++;
  const char *bytes = lua_tolstring(L, -2, &size);
  need(size >= sizeof header);
  memcpy(&header, bytes, sizeof header);
  need(header >= 2 && header <= size - sizeof header && bytes[8] == '{' && bytes[7 + header] == '}');
}

static void begin_hdf5 (void) {
  open_module(luaopen_marea_hdf5);
  need(pipe2(report, O_NONBLOCK | O_CLOEXEC) == 0 && pthread_atfork(NULL, NULL, report_to_pipe) == 0);
  add_golden("spec/golden/hdf5.lua", "89484446", 2);
}

int main (int argc, char **argv) {
  static const struct {
    const char *name;
    lua_CFunction module;
    void (*begin)(void);
    reader *read;
    long cost;
  } kinds[KINDS] = {{"csv", luaopen_marea_csv, begin_csv, read_csv, 1},
                    {"sndfile", luaopen_marea_sndfile, begin_wav, read_wav, 1},
                    {"hdf5", luaopen_marea_hdf5, begin_hdf5, read_hdf5, 100}};
  const request asked = read_request(argc, argv);
  L = luaL_newstate();
  need(L);
  for (int kind = 0; kind < KINDS; kind++) {
    if (asked.kind >= 0 && asked.kind != kind) continue;
    if (!kinds[kind].module) {
      printf("fuzz: marea.%s is passed over: its library is missing\n", kinds[kind].name);
      continue;
    }
    const long tries = asked.tries / kinds[kind].cost;
    accepted = 0;
    kinds[kind].begin();
    read_mutated(kind, tries, kinds[kind].read);
    printf("fuzz: %ld files of marea.%s, from %d seeds; %ld were read\n", tries, kinds[kind].name,
           count[kind], accepted);
  }
  lua_close(L);
  return 0;
}
