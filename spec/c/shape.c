/* SPDX-License-Identifier: MIT
** shape.c: the ways in which programs carry Lua, for embed_spec.lua, which builds it as each of them:
**
**   shape FOLDER             Lua in the program or in a library that it links; FOLDER/marea.so is the module
**   shape plugin.so FOLDER   built with -DLOADER: a program without Lua that loads a plugin which links Lua
*/
#include <stdio.h>

#if defined(LOADER)
#include <dlfcn.h>

int main (int argc, char **argv) {
  (void)argc;
  void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  int (*run)(const char *) = plugin ? (int (*)(const char *))dlsym(plugin, "run") : NULL;
  return run ? run(argv[2]) : 2;
}
#else
#include <lauxlib.h>
#include <lualib.h>

#ifdef __cplusplus
extern "C"
#endif
    int
    run (const char *folder) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  lua_pushfstring(L, "package.cpath = '%s/?.so'\n", folder);
  int failed = luaL_dostring(L, lua_tostring(L, -1));
  failed = failed || luaL_dostring(L, "local marea = require 'marea'\n"
                                      "local ok, message = pcall(marea.zeros, -1)\n"
                                      "assert(not ok and message:find 'zeros: argument', message)\n"
                                      "return marea.nn.Linear{3, 2}(marea.ones(1, 3)).shape[2]");
  if (failed) fprintf(stderr, "%s\n", lua_tostring(L, -1));
  else printf("shape %d\n", (int)lua_tointeger(L, -1));
  lua_close(L);
  return failed;
}

int main (int argc, char **argv) { return argc > 1 ? run(argv[1]) : 2; }
#endif
