-- SPDX-License-Identifier: MIT
--- The command :Digit in Neovim draws the digit of a point into a new buffer; examples/luajit/digit.lua is on LUA_PATH.
---
---   DIGIT=examples/lighttpd/decoder.safetensors nvim -c 'luafile examples/neovim/digit.lua' -c 'Digit 2.7 0'
local marea = require "marea_ffi"
local digit = require "digit"
local decode = digit.load(os.getenv "DIGIT")

vim.api.nvim_create_user_command("Digit", function(command)
  local z1, z2 = tonumber(command.fargs[1]), tonumber(command.fargs[2])
  local ok, lines = pcall(function() return digit.lines(decode(marea.tensor{{z1, z2}})) end)
  if not ok then return vim.api.nvim_err_writeln(lines) end
  vim.cmd "enew"
  vim.api.nvim_buf_set_lines(0, 0, -1, true, lines)
end, {nargs = "+"})
