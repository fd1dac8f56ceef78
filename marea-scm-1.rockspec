rockspec_format = "3.0"
package = "marea"
version = "scm-1"
source = { url = "git+file://." }
description = {
  summary = "Neural networks scripted in Lua 5.4 and computed in C",
  detailed = "Tensors, automatic differentiation, convolutions and optimizers in a C core; architecture, loss and "
    .. "training loop are Lua scripts. For scripts, a prompt, and host programs.",
  license = "MIT",
  labels = { "neural-network", "autograd", "tensor", "machine-learning" },
}
dependencies = { "lua ~> 5.4" }
external_dependencies = {
  OPENBLAS = { library = "openblas" },
  PNG = { header = "png.h" },
  JPEG = { header = "jpeglib.h" },
  ZLIB = { header = "zlib.h" },
  MINIZIP = { header = "minizip/unzip.h" },
  JANSSON = { header = "jansson.h" },
  PROTOBUF_C = { header = "protobuf-c/protobuf-c.h" },
}
build = {
  type = "make",
  build_target = "module",
  install_target = "install-module",
  build_variables = { CC = "$(CC)", LUA_CFLAGS = "-I$(LUA_INCDIR)" },
  install_variables = { LUADIR = "$(LUADIR)", CMODDIR = "$(LIBDIR)" },
}
