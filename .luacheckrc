std = "lua54"
max_line_length = 120
files["spec"] = { std = "+busted" }
files["spec/golden/programs"] = { globals = { "marea", "tools", "folder" } } -- what the runner gives them
files["lua/marea/repl/core_docs.lua"] = { unused = false, globals = { "core", "Tensor" } } -- declarations only
for _, place in ipairs{"bindings/luajit", "spec/luajit", "examples/luajit"} do files[place] = { std = "luajit" } end
files["examples/neovim"] = { std = "luajit", globals = { "vim" } }
files["examples/wrk"] = { std = "luajit", globals = { "wrk", "setup", "init", "request", "response", "done", "seed",
  "right", "wrong" } }
