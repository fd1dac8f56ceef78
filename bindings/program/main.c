/* SPDX-License-Identifier: MIT
** main.c: the program `marea`: runs a script, a text given by -e, or what is typed (prompt.c). It is a Lua 5.4
** like `lua5.4` itself, but has marea.core built in and finds the Lua files in the source tree or where they
** were installed.
**
** Ctrl-C stops what runs (signal.c), however often it comes; Ctrl-\ ends the program.
*/
#define _GNU_SOURCE
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bind.h"
#include "program.h"

#define PATH_SIZE 4096

/* ---- running chunks ---- */

static int run_string (lua_State *L, const char *text, const char *name) {
  int status = luaL_loadbuffer(L, text, strlen(text), name);
  return program_report(L, status == LUA_OK ? program_call(L, 0, 0) : status);
}

/* Runs a file (NULL: stdin) with the script's arguments argv[first..argc-1]. */
static int run_file (lua_State *L, const char *path, int argc, char **argv, int first) {
  int status = luaL_loadfile(L, path);
  if (status != LUA_OK) {
    program_explain(L, "explain");
    return program_report(L, status);
  }
  luaL_checkstack(L, argc, "too many arguments to script");
  int n = 0;
  for (int i = first; i < argc; i++, n++) lua_pushstring(L, argv[i]);
  return program_report(L, program_call(L, n, 0));
}

/* ---- finding the library ---- */

/* directory := where this program lies, without the last slash. */
static bool program_directory (char *directory) {
  ssize_t n = readlink("/proc/self/exe", directory, PATH_SIZE - 1);
  if (n <= 0) return false;
  directory[n] = '\0';
  char *slash = strrchr(directory, '/');
  if (slash) *slash = '\0';
  return slash != NULL;
}

/* package[field] := front;package[field] */
static void prepend (lua_State *L, const char *field, const char *front) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, field);
  lua_pushfstring(L, "%s;%s", front, lua_isstring(L, -1) ? lua_tostring(L, -1) : "");
  lua_setfield(L, -3, field);
  lua_pop(L, 2);
}

/* Finds the optional modules, in the program's build or installation. */
static void set_cpath (lua_State *L, const char *directory) {
  prepend(L, "cpath", lua_pushfstring(L, "%s/lib/?.so;%s/../lib/lua/5.4/?.so", directory, directory));
  lua_pop(L, 1);
}

/* Finds the library's Lua files. In a source tree, one or two folders above the program (build/marea,
   build/asan/marea), its files are used, so that edits take effect. Else the files of an installation above the
   program are used, if there is one, and else those that are compiled in. */
static void set_paths (lua_State *L) {
  static const char *const folder[] = {"lua", "share/lua/5.4"}; /* of the source, of an installed tree */
  char root[PATH_SIZE], probe[PATH_SIZE + 64];
  bool known = program_directory(root) && !strpbrk(root, ";?"); /* which package.path cannot hold */
  if (known) set_cpath(L, root);
  for (int i = 0; known && i < 4; i++) {
    char *slash = i % 2 == 0 ? strrchr(root, '/') : NULL;
    if (slash) *slash = '\0';
    snprintf(probe, sizeof probe, "%s/%s/marea/init.lua", root, folder[i % 2]);
    if (access(probe, R_OK) != 0) continue;
    prepend(L, "path",
            lua_pushfstring(L, "%s/%s/?.lua;%s/%s/?/init.lua", root, folder[i % 2], root, folder[i % 2]));
    lua_pop(L, 1);
    return;
  }
  marea_lua_preload(L);
}

/* ---- the command line ---- */

static const char usage[] = "usage: marea [options] [script [arguments]]\n"
                            "       marea run model.onnx [input.npy ...] [-o results.safetensors]\n"
                            "  -e text   run the text\n"
                            "  -l name   require the module into a global variable\n"
                            "  -i        read, evaluate and print after the script\n"
                            "  -v        show versions\n"
                            "  -h        show this help\n"
                            "  -         run what stdin holds\n";

static void set_arg (lua_State *L, int argc, char **argv, int script) {
  lua_createtable(L, argc - script, script);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - script);
  }
  lua_setglobal(L, "arg");
}

static int require_global (lua_State *L, const char *name) {
  lua_getglobal(L, "require");
  lua_pushstring(L, name);
  int status = program_call(L, 1, 1);
  if (status == LUA_OK) lua_setglobal(L, name);
  return program_report(L, status);
}

typedef struct plan {
  int script; /* index in argv; argc: none */
  bool interactive, version, text, help, wrong;
} plan;

static plan read_options (int argc, char **argv) {
  plan p = {0};
  int i = 1;
  for (; i < argc && argv[i][0] == '-' && argv[i][1] && strcmp(argv[i], "--") != 0; i++) {
    const char *option = argv[i];
    if (strcmp(option, "-i") == 0) p.interactive = true;
    else if (strcmp(option, "-v") == 0 || strcmp(option, "--version") == 0) p.version = true;
    else if (strcmp(option, "-h") == 0 || strcmp(option, "--help") == 0) p.help = true;
    else if ((strcmp(option, "-e") == 0 || strcmp(option, "-l") == 0) && i + 1 < argc) {
      p.text |= option[1] == 'e';
      i++;
    } else p.wrong = true;
  }
  p.script = i < argc && strcmp(argv[i], "--") == 0 ? i + 1 : i;
  return p;
}

/* Runs -e and -l in their order. */
static int run_options (lua_State *L, int script, char **argv) {
  for (int i = 1; i + 1 < script; i++) {
    int failed = EXIT_SUCCESS;
    if (strcmp(argv[i], "-e") == 0) failed = run_string(L, argv[++i], "=(command line)");
    else if (strcmp(argv[i], "-l") == 0) failed = require_global(L, argv[++i]);
    if (failed) return failed;
  }
  return EXIT_SUCCESS;
}

static void preload_core (lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_marea_core);
  lua_setfield(L, -2, "marea.core");
  lua_pop(L, 1);
}

static int run (lua_State *L, int argc, char **argv, const plan *p) {
  luaL_openlibs(L);
  bind_watch(L);
  preload_core(L);
  set_paths(L);
  set_arg(L, argc, argv, p->script < argc ? p->script : 0);
  if (p->version) printf("Marea %s, %s\n", MAREA_VERSION, LUA_RELEASE);
  if (run_options(L, p->script, argv) != EXIT_SUCCESS) return EXIT_FAILURE;
  bool given = p->script < argc, idle = !p->text && !p->version && !p->interactive && !given;
  if (given || (idle && !isatty(STDIN_FILENO))) {
    const char *path = given && strcmp(argv[p->script], "-") != 0 ? argv[p->script] : NULL;
    int failed = run_file(L, path, argc, argv, p->script + 1);
    if (failed && !p->interactive) return failed;
  }
  if (p->interactive || (idle && isatty(STDIN_FILENO))) prompt_run(L);
  return EXIT_SUCCESS;
}

/* The program inside a protected call: even a lack of memory is reported. */
typedef struct program {
  int argc;
  char **argv;
  plan plan;
  int code;
} program;

static int protected_run (lua_State *L) {
  program *p = lua_touserdata(L, lua_upvalueindex(1));
  lua_settop(L, 0);
  p->code = run(L, p->argc, p->argv, &p->plan);
  return 0;
}

/* `marea run ...`, unless there is a script of this name. */
static bool runs_graph (int argc, char **argv) {
  return argc > 1 && strcmp(argv[1], "run") == 0 && access("run", F_OK) != 0;
}

int main (int argc, char **argv) {
  program p = {argc, argv, read_options(argc, argv), EXIT_FAILURE};
  if (p.plan.wrong || p.plan.help) {
    fputs(usage, p.plan.wrong ? stderr : stdout);
    return p.plan.wrong ? EXIT_FAILURE : EXIT_SUCCESS;
  }
  const char *trouble = marea_blas_trouble(1);
  if (trouble) { /* exit() would hang: it waits for a thread of OpenBLAS, which waits for address space */
    fprintf(stderr, "marea: %s\n", trouble);
    _exit(EXIT_FAILURE);
  }
  if (runs_graph(argc, argv)) return graph_run(argc, argv);
  lua_State *L = luaL_newstate();
  if (!L) {
    fputs("marea: out of memory\n", stderr);
    return EXIT_FAILURE;
  }
  lua_pushcfunction(L, bind_interruptible);
  lua_pushlightuserdata(L, &p);
  lua_pushcclosure(L, protected_run, 1);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) p.code = program_report(L, LUA_ERRRUN);
  lua_close(L);
  return p.code;
}
