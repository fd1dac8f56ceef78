// SPDX-License-Identifier: MIT
// host.cpp: a C++ program with threads of its own, which lends them to Marea, hands an array to a Lua script without a copy,
// and lets a script that nobody has read compute under limits. Works with Lua built as C and as C++.
//
//   build/examples/host_cpp
#include <cstdio>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

extern "C" {
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
}
#include "marea_lua.h"

using Context = std::unique_ptr<marea_context, decltype(&marea_close)>;
using State = std::unique_ptr<lua_State, decltype(&lua_close)>;
using Sandbox = std::unique_ptr<marea_sandbox, decltype(&marea_sandbox_close)>;

// A real host would hand the calls to the pool that it has.
static void lend_threads(void *, int n, void (*body)(void *arg, int i), void *arg) {
  std::vector<std::thread> threads;
  for (int i = 1; i < n; i++) threads.emplace_back(body, arg, i);
  body(arg, 0);
  for (auto &t : threads) t.join();
}

static Context open_context() {
  marea_config config{};
  config.size = sizeof config;
  config.threads = 2;
  config.index_base = 1;  // for Lua
  config.max_bytes = 256u << 20;
  config.parallel_for = lend_threads;
  marea_context *ctx = nullptr;
  marea_status status = marea_open(&config, &ctx);
  if (status != MAREA_OK) throw std::runtime_error(marea_status_text(status));
  return Context(ctx, marea_close);
}

struct Work {
  marea_context *ctx;
  std::vector<float> *samples;
};

// Everything that may raise a Lua error happens in a function that Lua calls.
static int run_script(lua_State *L) {
  auto *work = static_cast<Work *>(lua_touserdata(L, 1));
  luaL_openlibs(L);
  marea_lua_open(L, work->ctx);
  if (luaL_loadstring(L, "local samples = ...\n"
                         "samples:mul_(2)\n"
                         "return samples:mean():item()") != LUA_OK)
    return lua_error(L);
  const int64_t shape[] = {static_cast<int64_t>(work->samples->size())};
  marea_tensor *t = nullptr;
  if (marea_from_memory(work->ctx, MAREA_F32, 1, shape, work->samples->data(), nullptr, nullptr, &t) != MAREA_OK)
    return luaL_error(L, "%s", marea_error(work->ctx));
  marea_lua_push(L, t);
  marea_release(t);
  lua_call(L, 1, 1);
  return 1;
}

static void compute_with_lua() {
  Context ctx = open_context();
  State L(luaL_newstate(), lua_close);  // closed before the context
  std::vector<float> samples(100000);
  std::iota(samples.begin(), samples.end(), 0.0f);
  Work work{ctx.get(), &samples};
  lua_pushcfunction(L.get(), run_script);
  lua_pushlightuserdata(L.get(), &work);
  if (lua_pcall(L.get(), 1, 1, 0) != LUA_OK) throw std::runtime_error(lua_tostring(L.get(), -1));
  std::printf("mean %.1f, last sample now %.0f\n", lua_tonumber(L.get(), -1), static_cast<double>(samples.back()));
}

static void run_unread(const std::string &text) {
  marea_sandbox_config config{};
  config.size = sizeof config;
  config.max_seconds = 0.2;
  marea_sandbox *opened = nullptr;
  marea_status status = marea_sandbox_open(&config, &opened);
  if (status != MAREA_OK) throw std::runtime_error(marea_status_text(status));
  Sandbox box(opened, marea_sandbox_close);
  const int n = marea_sandbox_run(box.get(), text.data(), text.size(), "=plugin", nullptr, 0);
  if (n < 0) std::printf("stopped: %s\n", marea_sandbox_error(box.get()));
  else std::printf("result: %g\n", lua_tonumber(marea_sandbox_state(box.get()), 1));
}

int main() try {
  compute_with_lua();
  run_unread("return marea.arange(1, 4):square():sum():item()");
  run_unread("while true do pcall(function() while true do end end) end");
  run_unread("return io.open('/etc/passwd')");
  return 0;
} catch (const std::exception &e) {
  std::fprintf(stderr, "host_cpp: %s\n", e.what());
  return 1;
}
