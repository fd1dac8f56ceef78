std = "lua54"
max_line_length = 120
files["spec"] = { std = "+busted" }
files["spec/golden/programs"] = { globals = { "marea", "tools", "folder" } } -- what the runner gives them
files["lua/marea/repl/core_docs.lua"] = { unused = false, globals = { "core", "Tensor" } } -- declarations only
