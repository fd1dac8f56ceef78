/* SPDX-License-Identifier: MIT
** host_min.c: a host program with Marea inside. It opens a Lua state, runs a script that decodes a digit with
** trained weights, and reads the pixels where they are, without a copy.
**
**   build/examples/host_min examples/decode.lua out/vae/vae.safetensors 0.3 -1.0
*/
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>

#include "marea_lua.h"

/* One character a pixel, two columns wide so that digits keep their shape. */
static void show (const float *pixel, int64_t height, int64_t width) {
  static const char shade[] = " .:-=+*#%@";
  for (int64_t y = 0; y < height; y++, putchar('\n'))
    for (int64_t x = 0; x < width; x++) {
      char c = shade[(int)(pixel[y * width + x] * 9.999f)];
      putchar(c), putchar(c);
    }
}

int main (int argc, char **argv) {
  if (argc < 2) return fprintf(stderr, "usage: %s SCRIPT [ARGUMENTS]\n", argv[0]), 2;
  lua_State *L = luaL_newstate();
  if (!L) return 1;
  luaL_openlibs(L);
  marea_lua_preload(L); /* `require "marea"` finds the library in the program itself */
  int status = luaL_loadfile(L, argv[1]);
  for (int i = 2; i < argc; i++) lua_pushstring(L, argv[i]);
  if (status == LUA_OK) status = lua_pcall(L, argc - 2, 1, 0);
  if (status != LUA_OK) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
  } else {
    marea_tensor *image = marea_lua_check(L, -1); /* borrowed: alive as long as the Lua value */
    const int64_t *shape = marea_tensor_shape(image);
    show(marea_tensor_data(image), shape[0], shape[1]);
  }
  lua_close(L);
  return status != LUA_OK;
}
