/* SPDX-License-Identifier: MIT
** sndfile.c: the optional module marea.sndfile: sound in WAV files, through libsndfile.
**
**   sndfile.decode(bytes) -> samples, frames, channels, rate | nil, message      samples: f32, frame by frame, -1 to 1
**   sndfile.encode(samples, channels, rate, bits) -> bytes | nil, message        bits: 16, 24, or 32 for f32
**
** libsndfile reads many formats; it gets files that begin as WAV files do, and what is in them must be samples as they
** are (PCM, floats, mu-law, A-law).
*/
#include <lauxlib.h>
#include <lua.h>
#include <sndfile.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILE 0xffff0000 /* bytes */

/* A file in memory. */
typedef struct memory {
  SNDFILE *sound;
  const char *bytes; /* of a file that is read */
  char *written;     /* of one that is written */
  sf_count_t n, at, room;
} memory;

#define FILE_NAME "marea.sndfile"

static sf_count_t get_length (void *ud) { return ((memory *)ud)->n; }

static sf_count_t tell (void *ud) { return ((memory *)ud)->at; }

static sf_count_t seek (sf_count_t offset, int whence, void *ud) {
  memory *m = ud;
  const sf_count_t from = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? m->at : m->n;
  if (offset < -from || offset > MAX_FILE) return -1;
  return m->at = from + offset;
}

static sf_count_t read_bytes (void *to, sf_count_t n, void *ud) {
  memory *m = ud;
  if (m->at >= m->n || n <= 0) return 0;
  if (n > m->n - m->at) n = m->n - m->at;
  memcpy(to, m->bytes + m->at, (size_t)n);
  m->at += n;
  return n;
}

static bool reserve (memory *m, sf_count_t n) {
  if (n <= m->room) return true;
  const sf_count_t room = n > 2 * m->room ? n : 2 * m->room;
  char *written = n > MAX_FILE ? NULL : realloc(m->written, (size_t)room);
  if (!written) return false;
  memset(written + m->room, 0, (size_t)(room - m->room));
  m->written = written;
  m->room = room;
  return true;
}

static sf_count_t write_bytes (const void *from, sf_count_t n, void *ud) {
  memory *m = ud;
  if (n <= 0 || !reserve(m, m->at + n)) return 0;
  memcpy(m->written + m->at, from, (size_t)n);
  m->at += n;
  if (m->at > m->n) m->n = m->at;
  return n;
}

static int close_memory (lua_State *L) {
  memory *m = luaL_checkudata(L, 1, FILE_NAME);
  if (m->sound) sf_close(m->sound);
  free(m->written);
  *m = (memory){0};
  return 0;
}

static memory *new_memory (lua_State *L) {
  memory *m = lua_newuserdatauv(L, sizeof *m, 0);
  *m = (memory){0};
  luaL_setmetatable(L, FILE_NAME);
  lua_toclose(L, -1);
  return m;
}

static bool open_memory (memory *m, int mode, SF_INFO *info) {
  SF_VIRTUAL_IO calls = {get_length, seek, read_bytes, write_bytes, tell};
  m->sound = sf_open_virtual(&calls, mode, info, m);
  return m->sound != NULL;
}

static int fail (lua_State *L, const char *message) {
  lua_pushnil(L);
  lua_pushstring(L, message);
  return 2;
}

static bool begins_as_wav (const char *bytes, size_t n) {
  if (n < 12 || memcmp(bytes + 8, "WAVE", 4) != 0) return false;
  return memcmp(bytes, "RIFF", 4) == 0 || memcmp(bytes, "RIFX", 4) == 0 || memcmp(bytes, "RF64", 4) == 0;
}

/* Bytes of one sample in the file; 0: it is compressed. */
static int width_of (int format) {
  switch (format & SF_FORMAT_SUBMASK) {
  case SF_FORMAT_PCM_S8:
  case SF_FORMAT_PCM_U8:
  case SF_FORMAT_ULAW:
  case SF_FORMAT_ALAW: return 1;
  case SF_FORMAT_PCM_16: return 2;
  case SF_FORMAT_PCM_24: return 3;
  case SF_FORMAT_PCM_32:
  case SF_FORMAT_FLOAT: return 4;
  case SF_FORMAT_DOUBLE: return 8;
  default: return 0;
  }
}

static int decode (lua_State *L) {
  size_t n;
  SF_INFO info = {0};
  luaL_Buffer samples;
  const char *bytes = luaL_checklstring(L, 1, &n);
  if (!begins_as_wav(bytes, n)) return fail(L, "not a WAV file");
  memory *m = new_memory(L);
  m->bytes = bytes;
  m->n = (sf_count_t)n;
  if (!open_memory(m, SFM_READ, &info)) return fail(L, sf_strerror(NULL));
  const int width = width_of(info.format);
  if (width == 0) return fail(L, "its sound is compressed (samples must be PCM, floats, mu-law or A-law)");
  if (info.channels < 1 || info.frames < 0 ||
      (uint64_t)info.frames > n / (size_t)width / (size_t)info.channels)
    return fail(L, "damaged: it declares more sound than it has");
  const size_t frame = (size_t)info.channels * sizeof(float), size = (size_t)info.frames * frame;
  char *to = luaL_buffinitsize(L, &samples, size);
  memset(to, 0, size);
  const sf_count_t came = sf_readf_float(m->sound, (float *)(void *)to, info.frames);
  if (came < info.frames) return fail(L, "damaged: it declares more sound than it has");
  luaL_pushresultsize(&samples, size);
  lua_pushinteger(L, info.frames);
  lua_pushinteger(L, info.channels);
  lua_pushinteger(L, info.samplerate);
  return 4;
}

static int encode (lua_State *L) {
  size_t n;
  const char *samples = luaL_checklstring(L, 1, &n);
  SF_INFO info = {.channels = (int)luaL_checkinteger(L, 2), .samplerate = (int)luaL_checkinteger(L, 3)};
  const lua_Integer bits = luaL_checkinteger(L, 4);
  const int kinds[] = {SF_FORMAT_PCM_16, SF_FORMAT_PCM_24, SF_FORMAT_FLOAT};
  luaL_argcheck(L, info.channels > 0 && (bits == 16 || bits == 24 || bits == 32), 4, "is not 16, 24 or 32");
  info.format = SF_FORMAT_WAV | kinds[bits / 8 - 2];
  memory *m = new_memory(L);
  if (!open_memory(m, SFM_WRITE, &info)) return fail(L, sf_strerror(NULL));
  sf_command(m->sound, SFC_SET_CLIPPING, NULL, SF_TRUE);
  sf_command(m->sound, SFC_SET_ADD_PEAK_CHUNK, NULL, SF_FALSE); /* it has the time of day in it */
  const sf_count_t frames = (sf_count_t)(n / sizeof(float) / (size_t)info.channels);
  const bool is_whole = sf_writef_float(m->sound, (const float *)(const void *)samples, frames) == frames;
  sf_close(m->sound);
  m->sound = NULL;
  if (!is_whole) return fail(L, "more sound than a WAV file holds, or than memory");
  lua_pushlstring(L, m->written, (size_t)m->n);
  return 1;
}

__attribute__((visibility("default"))) int luaopen_marea_sndfile (lua_State *L);

int luaopen_marea_sndfile (lua_State *L) {
  static const luaL_Reg functions[] = {{"decode", decode}, {"encode", encode}, {NULL, NULL}};
  luaL_newmetatable(L, FILE_NAME);
  lua_pushcfunction(L, close_memory);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "__gc");
  lua_setfield(L, -2, "__close");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  luaL_newlib(L, functions);
  return 1;
}
