/* SPDX-License-Identifier: MIT
** system.c: functions that Lua's own libraries do not have: time, terminals, times of files, contents of folders.
*/
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bind.h"

/* core.clock() -> seconds of a clock that never jumps */
static int system_clock (lua_State *L) {
  lua_pushnumber(L, bind_clock());
  return 1;
}

static int descriptor (lua_State *L, const char *function) {
  int64_t fd = bind_integer(L, bind_self(L), 1, function, "fd");
  return fd >= 0 && fd <= INT32_MAX ? (int)fd : -1;
}

/* core.isatty(fd): is the file descriptor (0, 1, 2) a terminal? */
static int system_isatty (lua_State *L) {
  lua_pushboolean(L, isatty(descriptor(L, "isatty")));
  return 1;
}

/* core.terminal_size(fd) -> columns, rows; nil if it is no terminal or does not say */
static int system_terminal_size (lua_State *L) {
  struct winsize size;
  if (ioctl(descriptor(L, "terminal_size"), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 0;
  lua_pushinteger(L, size.ws_col);
  lua_pushinteger(L, size.ws_row);
  return 2;
}

/* core.sleep(seconds): at most so long; a signal ends it early */
static int system_sleep (lua_State *L) {
  lua_Number seconds = luaL_checknumber(L, 1);
  bind_sandbox_deny(L, bind_self(L), "sleep");
  if (!(seconds >= 0 && seconds <= 1e6)) return luaL_argerror(L, 1, "expected 0 to 1e6 seconds");
  struct timespec t = {.tv_sec = (time_t)seconds};
  t.tv_nsec = (long)((seconds - (lua_Number)t.tv_sec) * 1e9);
  nanosleep(&t, NULL);
  return 0;
}

static int fail (lua_State *L, const char *path) {
  char text[PATH_MAX + 128];
  bind_format(text, sizeof text, "%s: %m", path);
  lua_pushstring(L, marea_printable(text));
  return bind_failed(L, bind_self(L));
}

/* ---- files and folders ---- */

/* core.file_time(path) -> seconds since 1970 when it was changed, bytes; or nil, message */
static int system_file_time (lua_State *L) {
  bind_state *S = bind_self(L);
  const char *path = bind_string(L, S, 1, "file_time", "path");
  struct stat info;
  bind_sandbox_path(L, S, "file_time", path, false);
  if (stat(path, &info) != 0) return fail(L, path);
  lua_pushnumber(L, (lua_Number)info.st_mtim.tv_sec + (lua_Number)info.st_mtim.tv_nsec * 1e-9);
  lua_pushinteger(L, (lua_Integer)info.st_size);
  return 2;
}

#define FOLDER_MOST \
  10000 /* names that are listed unless more are asked for; reading so many takes some 10 ms */

/* __gc of the userdata that owns an open folder: closes it when an error has left the function that lists it. */
static int folder_close (lua_State *L) {
  DIR **folder = bind_to(L, bind_self(L), 1, BIND_FOLDER);
  if (!folder) return 0;
  if (*folder) closedir(*folder);
  *folder = NULL;
  return 0;
}

static bool is_folder (DIR *folder, const struct dirent *entry) {
  struct stat info;
  if (entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN) return entry->d_type == DT_DIR;
  return fstatat(dirfd(folder), entry->d_name, &info, 0) == 0 && S_ISDIR(info.st_mode);
}

/* core.list_folder(path, most) -> list of names, folders with a slash at their end; or nil, message */
static int system_list_folder (lua_State *L) {
  bind_state *S = bind_self(L);
  const char *path = bind_string(L, S, 1, "list_folder", "path");
  const lua_Integer most = luaL_optinteger(L, 2, FOLDER_MOST);
  bind_sandbox_path(L, S, "list_folder", path, false);
  DIR **folder = bind_new(L, S, BIND_FOLDER, sizeof *folder, 0);
  *folder = opendir(path);
  if (!*folder) return fail(L, path);
  lua_newtable(L);
  const struct dirent *entry;
  for (lua_Integer n = 0; n < most && (entry = readdir(*folder));) {
    if (n % 1024 == 1023) bind_poll(L, S);
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    lua_pushfstring(L, "%s%s", entry->d_name, is_folder(*folder, entry) ? "/" : "");
    lua_rawseti(L, -2, ++n);
  }
  closedir(*folder);
  *folder = NULL;
  return 1;
}

/* The state is on top of the stack, and stays there. */
void bind_system_open (lua_State *L) {
  bind_push_metatable(L, lua_touserdata(L, -1), BIND_FOLDER, "marea.Folder");
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, folder_close, 1);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}

const luaL_Reg bind_system_functions[] = {
    {"clock", system_clock},
    {"isatty", system_isatty},
    {"terminal_size", system_terminal_size},
    {"sleep", system_sleep},
    {"file_time", system_file_time},
    {"list_folder", system_list_folder},
    {NULL, NULL},
};
