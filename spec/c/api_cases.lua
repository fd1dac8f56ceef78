-- SPDX-License-Identifier: MIT
-- Writes what spec/c/armor_test.c calls: every function of core/marea.h with every value below for each of its
-- parameters. The prototypes are read from the header, so a function that is added there is called too. One with a
-- parameter of a type that is not known here is an error; so is one of bindings/marea_lua.h that the test leaves out.
--
--   lua5.4 spec/c/api_cases.lua core/marea.h bindings/marea_lua.h spec/c/armor_test.c > cases.inc

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

-- ---- prototypes ----

local function split(parameters)
  local list, depth, from = {}, 0, 1
  for at, c in parameters:gmatch "()([(),])" do
    if c == "(" then depth = depth + 1 elseif c == ")" then depth = depth - 1 end
    if c == "," and depth == 0 then
      list[#list + 1] = parameters:sub(from, at - 1)
      from = at + 1
    end
  end
  list[#list + 1] = parameters:sub(from)
  return list
end

local function parameter(text)
  text = text:gsub("%s+", " "):match "^ ?(.-) ?$"
  local callback = text:match "%(%*(%w+)%)"
  if callback then return {name = callback, type = "callback", text = text} end
  local kind, name = text:match "^(.-)([%w_]+)$"
  return {name = name, type = (kind:gsub(" $", "")), text = text}
end

local function prototypes(header)
  local list = {}
  header = header:gsub("/%*.-%*/", " "):gsub("#[^\n]*", "")
  local _, declared = header:gsub("MAREA_API", "")
  for result, name, parameters in header:gmatch "MAREA_API%s+([%w_%s%*]-)([%w_]+)%s*(%b())%s*;" do
    local f = {name = name, result = result:gsub("MAREA_MUST_USE", ""):match "^%s*(.-)%s*$", parameters = {}}
    parameters = parameters:sub(2, -2)
    if parameters ~= "void" then
      for i, text in ipairs(split(parameters)) do f.parameters[i] = parameter(text) end
    end
    list[#list + 1] = f
  end
  assert(#list == declared, ("%d of %d prototypes understood"):format(#list, declared))
  return list
end

-- ---- values ----
-- {label, expression, what a function with a status must say}: "ok", "refused", or "any". The first one is good.

local function good(expression) return {"good", expression, "ok"} end
local function refused(label, expression) return {label, expression, "refused"} end
local function any(label, expression) return {label, expression, "any"} end

local garbage = {any("-1", "-1"), any("INT_MIN", "INT_MIN"), any("INT_MAX", "INT_MAX")}

local paths = {
  marea_load_idx = "w->file.idx", marea_load_npy = "w->file.npy", marea_load_png = "w->file.png",
  marea_load_png16 = "w->file.png", marea_load_jpeg = "w->file.jpeg", marea_load_image = "w->file.jpeg",
  marea_load_image_sized = "w->file.jpeg",
  marea_file_load = "w->file.safetensors",
  marea_load_npz = "w->file.npz", marea_load_zip = "w->file.npz", marea_load_torch = "w->file.torch",
  marea_load_gguf = "w->file.gguf", marea_load_t7 = "w->file.t7",
  marea_onnx_load = "w->file.onnx",
}
local tensors = { -- the good one where it is not w->t
  ["marea_backward.y"] = "w->y", ["marea_backward.seed"] = "w->u", ["marea_grad.y"] = "w->y",
  ["marea_grad.seed"] = "w->u", ["marea_save_png.t"] = "w->u", ["marea_save_jpeg.t"] = "w->u",
  ["marea_save_png16.t"] = "w->u",
}
local may_be_null = {
  ["marea_open.config"] = true, ["marea_apply.attrs"] = true, ["marea_apply_.attrs"] = true,
  ["marea_apply_each.attrs"] = true,
  ["marea_backward.seed"] = true, ["marea_grad.seed"] = true, ["marea_error.ctx"] = true,
}
local texts = {["marea_call_op.name"] = '"concat"', ["marea_op_find.name"] = '"add"'}

local function tensor(f, p)
  local place = f.name .. "." .. p.name
  local null = may_be_null[place] and any or refused
  local others = 0 -- parameters that say which context is meant
  for _, q in ipairs(f.parameters) do
    if q ~= p and (q.type:find "marea_tensor" and not q.type:find "%*%*$" or q.type:find "marea_context"
      or q.type:find "marea_file") then others = others + 1 end
  end
  local foreign = others > 0 and refused or any
  return {
    good(tensors[place] or "w->t"), null("NULL", "NULL"), foreign("foreign", "w->foreign"),
    refused("over", "w->over"), refused("over view", "w->over_view"), any("scalar", "w->scalar"),
    any("empty", "w->empty"), any("i64", "w->integers"), any("leaf", "w->leaf"), any("gaps", "w->gaps"),
    any("expanded", "w->expanded"),
    any("protected", "w->lent"), any("planned", "w->planned"),
  }
end

local function pointer(expression)
  return function(f, p)
    local null = may_be_null[f.name .. "." .. p.name] and any or refused
    return {good(expression), null("NULL", "NULL")}
  end
end

local function optional(expression) return function() return {good(expression), any("NULL", "NULL")} end end

local function text(f, p)
  local place = f.name .. "." .. p.name
  if p.name == "path" then
    return {good(paths[f.name] or "w->file.new"), refused("NULL", "NULL"), refused("empty", '""'),
      refused("folder", '"/"'), refused("device", '"/dev/null"'), refused("long", "w->long_text")}
  end
  if f.name == "marea_json_read" then return {good '"[1,2,3,4,5,6,77]"', refused("NULL", "NULL")} end -- 16 bytes
  local bad = f.name == "marea_file_add" or f.name == "marea_file_add_text"
  return {good(texts[place] or '"name"'), refused("NULL", "NULL"), any("empty", '""'), any("long", "w->long_text"),
    (bad and refused or any)("no UTF-8", '"\\xff"')}
end

local count = {
  n_in = 2, each = 2, n_named = 1, n_out = 1, n = 2, most = 2, threads = 1, rank = 2, flags = 0, i = 0,
  node = 1, cell = 1, layer = 3, channels = 3,
  dtype = -1,
}
local limits = {
  threads = {refused("0", "0"), refused("-1", "-1"), refused("65", "65"), refused("INT_MAX", "INT_MAX")},
  rank = {refused("-1", "-1"), refused("9", "9"), refused("INT_MIN", "INT_MIN"), refused("INT_MAX", "INT_MAX")},
  flags = {refused("4", "4"), refused("-1", "-1"), refused("INT_MIN", "INT_MIN")},
  i = garbage, node = garbage, cell = garbage,
  layer = garbage, channels = {refused("2", "2"), refused("-1", "-1"), refused("INT_MAX", "INT_MAX")},
  dtype = {any("bf16", "MAREA_BF16"), table.unpack(garbage)},
}

local function integer(_, p)
  local value = assert(count[p.name], p.text)
  return {good(tostring(value)), table.unpack(limits[p.name] or {refused("-1", "-1"), refused("INT_MIN", "INT_MIN")})}
end

local function list(_, p)
  local name = p.name == "xs" and "leaves" or "list"
  return {good("w->" .. name), refused("NULL", "NULL"), refused("list with NULL", "w->with_null"),
    refused("list with foreign", "w->with_foreign"), refused("list with over", "w->with_over"),
    refused("list with over view", "w->with_over_view")}
end

local in_memory = { -- the bytes of a file, and how many
  marea_onnx_parse = {"(const void *)model", "MODEL_BYTES"}, marea_file_parse = {"(const void *)image", "IMAGE_BYTES"},
}

local values = {
  ["marea_context *"] = pointer "w->ctx", ["const marea_context *"] = pointer "w->ctx",
  ["marea_context **"] = pointer "&w->opened",
  ["marea_tensor *"] = tensor, ["const marea_tensor *"] = tensor, ["marea_tensor *const *"] = list,
  ["marea_tensor **"] = pointer "w->out", ["int *"] = pointer "&w->n", ["size_t *"] = optional "&w->size",
  ["marea_file *"] = pointer "w->f", ["const marea_file *"] = pointer "w->f", ["marea_file **"] = pointer "&w->loaded",
  ["const marea_tree *"] = pointer "w->tree", ["marea_tree *"] = pointer "w->tree",
  ["marea_tree **"] = pointer "&w->planted", ["marea_tree_value *"] = optional "&w->leaf_value",
  ["marea_json *"] = pointer "w->j", ["marea_json **"] = pointer "&w->parsed",
  ["marea_json_value *"] = pointer "&w->json",
  ["marea_graph *"] = pointer "w->g", ["const marea_graph *"] = pointer "w->g", ["marea_graph **"] = pointer "&w->made",
  ["marea_trace *"] = pointer "w->trace", ["const marea_trace *"] = pointer "w->trace",
  ["marea_trace **"] = pointer "&w->traced", ["const marea_onnx_names *"] = pointer "&w->names",
  ["marea_graph_port *"] = optional "&w->port", ["marea_graph_weight *"] = optional "&w->weight",
  ["marea_profile *"] = pointer "w->p", ["const marea_profile *"] = pointer "w->p",
  ["marea_profile **"] = pointer "&w->started",
  ["const marea_op *"] = pointer 'marea_op_find("add")', ["const marea_attr *"] = pointer "NULL",
  ["marea_attr *"] = optional "w->attrs",
  ["const marea_named *"] = function()
    return {good "&w->named", refused("NULL", "NULL"), refused("garbage type", "&w->garbage_type"),
      refused("garbage length", "&w->garbage_length"), refused("no name", "&w->no_name")}
  end,
  ["const marea_config *"] = function()
    return {good "NULL", any("config", "&w->config"), refused("size 0", "&w->config_size"),
      refused("threads -1", "&w->config_few"), refused("threads 65", "&w->config_many"),
      refused("index_base 2", "&w->config_base"), refused("no such isa", "&w->config_isa")}
  end,
  ["const int64_t *"] = function(f)
    local wrong = f.name == "marea_ints" and any or refused
    return {good "w->shape", wrong("NULL", "NULL"), wrong("negative", "w->negative"), wrong("huge", "w->huge"),
      any("zeros", "w->zeros")}
  end,
  ["void *"] = function(_, p)
    if p.name == "ud" then return {good "NULL", any("address", "w->numbers")} end
    return {good "(void *)w->numbers", refused("NULL", "NULL"),
      refused("odd address", "(void *)((char *)w->numbers + 1)")}
  end,
  ["const void *"] = function(f, p)
    return pointer(in_memory[f.name] and in_memory[f.name][1] or "w->numbers")(f, p)
  end,
  ["char *"] = function() return {good '(char[]){"na\\x1b[mme"}', any("NULL", "NULL")} end,
  ["callback"] = function() return {good "release_nothing", any("NULL", "NULL")} end,
  ["const char *"] = text, ["const char **"] = optional "&w->text",
  ["marea_dtype"] = function()
    return {good "MAREA_F32", refused("99", "(marea_dtype)99"), refused("-5", "(marea_dtype)-5"),
      refused("MAREA_DTYPE_COUNT", "(marea_dtype)MAREA_DTYPE_COUNT"), any("u8", "MAREA_U8")}
  end,
  ["marea_status"] = function()
    return {good "MAREA_ENOMEM", any("99", "(marea_status)99"), any("-1", "(marea_status)-1")}
  end,
  ["int"] = integer,
  ["bool"] = function() return {good "true", any("false", "false")} end,
  ["double"] = function()
    return {good "3", any("NAN", "(double)NAN"), any("-1", "-1"), any("INFINITY", "(double)INFINITY"),
      any("1e300", "1e300"), any("5e-324", "5e-324"), any("0.1", "0.1")}
  end,
  ["size_t"] = function(f)
    return {good(in_memory[f.name] and in_memory[f.name][2] or "16"), any("0", "0"), any("SIZE_MAX", "SIZE_MAX")}
  end,
  ["uint64_t"] = function() return {good "3", any("0", "0"), any("UINT64_MAX", "UINT64_MAX")} end,
  ["uint32_t"] = function() return {good "3", any("UINT32_MAX", "UINT32_MAX")} end,
  ["int64_t"] = function(_, p)
    local fine = {quality = "90", height = "5", width = "7"}
    return {good(fine[p.name] or "0"), any("-1", "-1"), any("1", "1"), any("INT64_MIN", "INT64_MIN"),
      any("INT64_MAX", "INT64_MAX")}
  end,
  ["marea_statistics *"] = optional "&w->statistics", ["marea_blame *"] = pointer "&w->blame",
  ["const marea_input_spec **"] = optional "&w->inputs", ["const marea_attr_spec **"] = optional "&w->specs",
  ["marea_random_state"] = function() return {good "w->random", any("odd", "w->odd_random")} end,
}

-- What a call takes or gives, so that the world can be put away after it.
local call = {
  marea_trace_stop = "(marea_trace_start(w->ctx, 2, w->list) == MAREA_OK "
    .. "? marea_trace_stop(ctx, n, results, trace) : MAREA_ESTATE)",
  marea_retain = "marea_release(marea_retain(t))", marea_release = "marea_release(marea_retain(t))"}
local afterwards = {
  marea_close = "if (v[0] == 0) w->ctx = NULL;", marea_file_free = "if (v[0] == 0) w->f = NULL;",
  marea_tree_free = "if (v[0] == 0) w->tree = NULL;",
  marea_json_free = "if (v[0] == 0) w->j = NULL;", marea_graph_free = "if (v[0] == 0) w->g = NULL;",
  marea_trace_free = "if (v[0] == 0) w->trace = NULL;", marea_trace_start = "marea_trace_drop(w->ctx);",
  marea_trace_stop = "marea_trace_drop(w->ctx);",
  marea_profile_free = "if (v[0] == 0) w->p = NULL;", marea_find_blame = "marea_blame_clear(&w->blame);",
}

-- ---- what is written ----

local function choice(from, k)
  local parts = {}
  for i = 1, #from - 1 do parts[i] = ("v[%d] == %d ? %s : "):format(k, i - 1, from[i][2]) end
  return table.concat(parts) .. from[#from][2]
end

local function declaration(p, expression)
  if p.type == "callback" then return ("  void (*const %s)(void *) = %s;"):format(p.name, expression) end
  return ("  %s const %s = %s;"):format(p.type, p.name, expression)
end

local header, lua_header, test = read(arg[1]), read(arg[2]), read(arg[3])
for _, f in ipairs(prototypes(lua_header)) do
  if not test:find("%f[%w_]" .. f.name .. "%f[^%w_]") then error(arg[3] .. " has no case for " .. f.name) end
end

local functions = prototypes(header)

local entries = {}
for _, f in ipairs(functions) do
  local names, labels, says = {}, {}, {}
  print(("static int call_%s (world *w, const int *v) {"):format(f.name))
  if #f.parameters == 0 then print "  (void)w, (void)v;" end
  for k, p in ipairs(f.parameters) do
    local make = values[p.type] or error(("%s: no values for `%s`; add some to this file"):format(f.name, p.text))
    local list_of_values, own, verdict = make(f, p), {}, {}
    for i, value in ipairs(list_of_values) do
      own[i] = ("%q"):format(value[1])
      verdict[i] = value[3]:upper()
    end
    print(declaration(p, choice(list_of_values, k - 1)))
    names[k] = p.name
    labels[k] = ("{%s}"):format(table.concat(own, ", "))
    says[k] = ("{%s}"):format(table.concat(verdict, ", "))
  end
  print "  begin(w);"
  local made = call[f.name] or ("%s(%s)"):format(f.name, table.concat(names, ", "))
  if f.result == "marea_status" then made = "const int said = (int)" .. made
  elseif f.result == "void" or call[f.name] then made = "const int said = NO_STATUS;\n  " .. made
  else made = "const int said = NO_STATUS;\n  (void)" .. made end
  print("  " .. made .. ";")
  print(("  end(w);\n  %s\n  return said;\n}\n"):format(afterwards[f.name] or ""))
  local function quoted(list_of_names)
    local q = {}
    for i, name in ipairs(list_of_names) do q[i] = ("%q"):format(name) end
    return table.concat(q, ", ")
  end
  local form = '  {.name = "%s", .call = call_%s, .n = %d, .parameter = {%s}, .label = {%s}, .says = {%s}},'
  entries[#entries + 1] = form
    :format(f.name, f.name, #names, quoted(names), table.concat(labels, ", "), table.concat(says, ", "))
end
print "static const function functions[] = {"
print(table.concat(entries, "\n"))
print "};"
