/* SPDX-License-Identifier: MIT
** args.c: reads the arguments of a call by the operator's descriptor. The inputs come first, then the attributes, by
** position, or by name in a last table. A table with an array part is the value of an attribute that is a list, and may
** hold names too: normal{2, 3, std = 0.1}. Tables are read raw: no metamethod runs here.
**
** Values are checked for kind and range of the type; what they mean is checked by the operator.
*/
#include "bind.h"

/* ---- single values ---- */

int64_t bind_integer (lua_State *L, bind_state *S, int idx, const char *function, const char *name) {
  int64_t value = 0;
  if (!bind_to_integer(L, idx, &value)) bind_raise_argument(L, S, function, name, "an integer", idx);
  return value;
}

bool bind_boolean (lua_State *L, bind_state *S, int idx, const char *function, const char *name) {
  if (!lua_isboolean(L, idx)) bind_raise_argument(L, S, function, name, "true or false", idx);
  return lua_toboolean(L, idx);
}

const char *bind_bytes (lua_State *L, bind_state *S, int idx, const char *function, const char *name,
                        size_t *n) {
  if (lua_type(L, idx) != LUA_TSTRING) bind_raise_argument(L, S, function, name, "a string", idx);
  return lua_tolstring(L, idx, n);
}

const char *bind_string (lua_State *L, bind_state *S, int idx, const char *function, const char *name) {
  size_t n;
  const char *s = bind_bytes(L, S, idx, function, name, &n);
  if (strlen(s) != n) bind_raise(L, S, "%s: argument '%s': a zero byte is not allowed here", function, name);
  return s;
}

/* Raises for the keys of the table at idx that are not known, and names the first of them in alphabetical order. */
static void raise_unknown_option (lua_State *L, bind_state *S, int idx, const char *function,
                                  const char *const *known) {
  bind_guess guess = {0};
  luaL_Buffer b;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
    int i = 0;
    while (key && known[i] && strcmp(known[i], key) != 0) i++;
    if (key && !known[i] && (!guess.word || strcmp(key, guess.word) < 0)) guess.word = key;
  }
  luaL_buffinit(L, &b);
  for (int i = 0; known[i]; i++) {
    bind_offer(&guess, known[i]);
    lua_pushfstring(L, "%s'%s'", i == 0 ? "; known: " : ", ", known[i]);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  const char *list = lua_tostring(L, -1);
  bind_raise(L, S, "%s: unknown argument '%s'%s", function, bind_shorten(L, guess.word),
             guess.best ? bind_did_you_mean(L, &guess) : list);
}

void bind_read_options (lua_State *L, bind_state *S, int idx, const char *function, const char *const *known,
                        bind_option_fn read, void *ud) {
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      bind_raise(L, S, "%s: expected named options, got the key %s", function, bind_describe(L, S, -2));
    if (!read(L, S, lua_tostring(L, -2), lua_gettop(L), ud)) raise_unknown_option(L, S, idx, function, known);
  }
}

/* ---- attributes ---- */

/* The operator's name for messages. May push a string, so it is called only when an error is about to be raised. */
static const char *name_of (lua_State *L, const bind_call *c) {
  return c->in_place ? lua_pushfstring(L, "%s_", marea_op_name(c->op)) : marea_op_name(c->op);
}

static bool is_list_kind (marea_attr_kind kind) {
  return kind == MAREA_DIMS || kind == MAREA_SIZES || kind == MAREA_PAIR || kind == MAREA_PADDING ||
         kind == MAREA_SIDES;
}

/* Pushes what an attribute accepts, for messages. */
static const char *expected (lua_State *L, const marea_attr_spec *spec) {
  switch (spec->kind) {
  case MAREA_REAL:
  case MAREA_NUMBER: return lua_pushliteral(L, "a number");
  case MAREA_INT: return lua_pushliteral(L, "an integer");
  case MAREA_BOOL: return lua_pushliteral(L, "true or false");
  case MAREA_ENUM: return lua_pushfstring(L, "one of '%s'", luaL_gsub(L, spec->choices, "|", "', '"));
  case MAREA_DTYPE: return bind_push_dtypes(L);
  case MAREA_DIM: return lua_pushliteral(L, "a dimension (1 is the first, -1 the last)");
  case MAREA_INDEX: return lua_pushliteral(L, "an index (1 is the first, -1 the last)");
  case MAREA_DIMS: return lua_pushliteral(L, "a list of dimensions (1 is the first, -1 the last)");
  case MAREA_SIZES: return lua_pushliteral(L, "a list of at most 8 integers");
  case MAREA_PAIR:
    return spec->initial == 0 ? lua_pushliteral(L, "an integer or {h, w}")
                              : lua_pushliteral(L, "a positive integer or {h, w}");
  case MAREA_SIDES: return lua_pushliteral(L, "an integer, {left, right}, 'same' or 'valid'");
  default: return lua_pushliteral(L, "an integer, {h, w}, {top, bottom, left, right}, 'same' or 'valid'");
  }
}

/* Position in a list "mean|sum|none"; -1 if it is not there. */
static int choice (const char *choices, const char *word) {
  size_t n = strlen(word);
  for (int i = 0; choices; i++) {
    const char *end = strchr(choices, '|');
    size_t length = end ? (size_t)(end - choices) : strlen(choices);
    if (length == n && memcmp(choices, word, n) == 0) return i;
    choices = end ? end + 1 : NULL;
  }
  return -1;
}

/* Converts a 1-based position among an operator's arguments to a 0-based one (index.c does so for t[i]): 1 gives 0; -1, the
   last, stays; 0 is refused. */
static bool to_position (lua_State *L, int idx, int64_t *value) {
  if (!bind_to_integer(L, idx, value) || *value == 0) return false;
  if (*value > 0) --*value;
  return true;
}

/* v[0..n-1] := the list at idx; a number stands for a list of one. */
static bool to_list (lua_State *L, int idx, marea_attr_kind kind, marea_attr *a) {
  bool (*read)(lua_State *, int, int64_t *) = kind == MAREA_DIMS ? to_position : bind_to_integer;
  a->n = 1;
  if (lua_type(L, idx) == LUA_TNUMBER) return read(L, idx, &a->v[0]);
  size_t n = lua_type(L, idx) == LUA_TTABLE ? bind_length(L, idx) : SIZE_MAX;
  if (n > MAREA_MAX_RANK) return false;
  a->n = (int)n;
  for (int i = 0; i < a->n; i++) {
    lua_rawgeti(L, idx, i + 1);
    bool ok = read(L, -1, &a->v[i]);
    lua_pop(L, 1);
    if (!ok) return false;
  }
  return true;
}

static bool to_pair (lua_State *L, int idx, marea_attr *a) {
  if (!to_list(L, idx, MAREA_PAIR, a)) return false;
  bool number = lua_type(L, idx) == LUA_TNUMBER;
  if (number) a->v[1] = a->v[0];
  bool ok = number || a->n == 2;
  a->n = 2;
  return ok;
}

/* "same", or "valid", which is `sides` zeros */
static bool to_padding_word (const char *word, int sides, marea_attr *a) {
  const bool same = strcmp(word, "same") == 0;
  memset(a, 0, sizeof *a);
  a->n = same ? MAREA_SAME : sides;
  return same || strcmp(word, "valid") == 0;
}

static bool to_sides (lua_State *L, int idx, marea_attr *a) {
  if (lua_type(L, idx) == LUA_TSTRING) return to_padding_word(lua_tostring(L, idx), 2, a);
  return to_pair(L, idx, a);
}

static bool to_padding (lua_State *L, int idx, marea_attr *a) {
  if (lua_type(L, idx) == LUA_TSTRING) return to_padding_word(lua_tostring(L, idx), 4, a);
  if (!to_list(L, idx, MAREA_PADDING, a)) return false;
  if (lua_type(L, idx) == LUA_TNUMBER) a->v[1] = a->v[2] = a->v[3] = a->v[0];
  else if (a->n == 2) {
    a->v[2] = a->v[3] = a->v[1];
    a->v[1] = a->v[0];
  } else return a->n == 4;
  a->n = 4;
  return true;
}

static bool to_real (lua_State *L, int idx, double *value) {
  *value = lua_tonumber(L, idx);
  return lua_type(L, idx) == LUA_TNUMBER;
}

static bool to_number (lua_State *L, int idx, marea_attr *a) {
  if (!lua_isinteger(L, idx)) return to_real(L, idx, &a->f);
  a->n = MAREA_EXACT;
  a->i = lua_tointeger(L, idx);
  return true;
}

static bool to_attr (lua_State *L, int idx, const marea_attr_spec *spec, marea_attr *a) {
  marea_dtype dtype;
  a->n = 1;
  switch (spec->kind) {
  case MAREA_REAL: return to_real(L, idx, &a->f);
  case MAREA_NUMBER: return to_number(L, idx, a);
  case MAREA_INT: return bind_to_integer(L, idx, &a->i);
  case MAREA_BOOL: a->i = lua_toboolean(L, idx); return lua_isboolean(L, idx);
  case MAREA_ENUM:
    a->i = lua_type(L, idx) == LUA_TSTRING ? choice(spec->choices, lua_tostring(L, idx)) : -1;
    return a->i >= 0;
  case MAREA_DTYPE:
    if (!bind_to_dtype(L, idx, &dtype)) return false;
    a->i = dtype;
    return true;
  case MAREA_DIM:
  case MAREA_INDEX: return to_position(L, idx, &a->i);
  case MAREA_PAIR: return to_pair(L, idx, a);
  case MAREA_PADDING: return to_padding(L, idx, a);
  case MAREA_SIDES: return to_sides(L, idx, a);
  default: return to_list(L, idx, spec->kind, a);
  }
}

/* Sets attribute k from the value at idx. */
static void set_attr (lua_State *L, bind_state *S, bind_call *c, int k, int idx) {
  const marea_attr_spec *spec = &c->specs[k];
  if (c->given[k]) bind_raise(L, S, "%s: argument '%s' is given twice", name_of(L, c), spec->name);
  if (!to_attr(L, idx, spec, &c->attr[k]))
    bind_raise_argument(L, S, name_of(L, c), spec->name, expected(L, spec), idx);
  c->given[k] = true;
}

/* Pushes "; known: 'stride', 'padding'". */
static const char *known_names (lua_State *L, const bind_call *c) {
  luaL_Buffer b;
  if (c->n_attr == 0) return lua_pushliteral(L, "; it takes no arguments by name");
  luaL_buffinit(L, &b);
  for (int k = 0; k < c->n_attr; k++) {
    lua_pushfstring(L, "%s'%s'", k == 0 ? "; known: " : ", ", c->specs[k].name);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  return lua_tostring(L, -1);
}

static int attr_named (const bind_call *c, const char *name) {
  int k = 0;
  while (k < c->n_attr && strcmp(c->specs[k].name, name) != 0) k++;
  return k;
}

/* Raises for the keys of the table at idx that are no attributes, and names the first of them in alphabetical order. */
static void raise_unknown (lua_State *L, bind_state *S, const bind_call *c, int idx) {
  const char *op = name_of(L, c), *key = NULL;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) continue;
    const char *name = lua_tostring(L, -2);
    if (attr_named(c, name) == c->n_attr && (!key || strcmp(name, key) < 0)) key = name;
  }
  bind_guess guess = {.word = key};
  for (int k = 0; k < c->n_attr; k++) bind_offer(&guess, c->specs[k].name);
  const marea_input_spec *inputs;
  int n = marea_op_inputs(c->op, &inputs);
  for (int i = 0; i < n; i++)
    if (strcmp(inputs[i].name, key) == 0)
      bind_raise(L, S, "%s: argument '%s' is a tensor; give it by position, before the table", op, key);
  const char *hint = guess.best ? bind_did_you_mean(L, &guess) : known_names(L, c);
  bind_raise(L, S, "%s: unknown argument '%s'%s", op, bind_shorten(L, key), hint);
}

/* Reads the string keys of the table at idx; the caller reads its array part. */
static void read_names (lua_State *L, bind_state *S, bind_call *c, int idx, bool list) {
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (list && lua_isinteger(L, -2)) continue;
    if (lua_type(L, -2) != LUA_TSTRING)
      bind_raise(L, S, "%s: expected arguments by name, got the key %s", name_of(L, c),
                 bind_describe(L, S, -2));
    const char *key = lua_tostring(L, -2);
    int k = attr_named(c, key);
    if (k == c->n_attr) raise_unknown(L, S, c, idx);
    else set_attr(L, S, c, k, lua_gettop(L));
  }
}

static bool has_names (lua_State *L, int idx) {
  bool found = false;
  for (lua_pushnil(L); !found && lua_next(L, idx); lua_pop(L, found ? 2 : 1))
    found = lua_type(L, -2) == LUA_TSTRING;
  return found;
}

/* Does the table at idx stand for the list attribute k rather than for names? An empty one does if k must be
   given: full({}, 1) is a scalar. */
static bool is_list_for (lua_State *L, const bind_call *c, int k, int idx) {
  if (k >= c->n_attr || !is_list_kind(c->specs[k].kind) || c->given[k]) return false;
  if (lua_rawlen(L, idx) > 0) return true;
  return c->specs[k].initial == MAREA_REQUIRED && !has_names(L, idx);
}

/* The i-th argument does not fit into the list of numbers idx..n. */
static void raise_spread (lua_State *L, bind_state *S, const bind_call *c, int idx, int i, int n) {
  const char *name = c->specs[0].name;
  if (i - idx == MAREA_MAX_RANK)
    bind_raise(L, S, "%s: argument '%s': expected %s, got %d", name_of(L, c), name, expected(L, c->specs),
               n - idx + 1);
  if (!lua_isnil(L, i)) bind_raise_argument(L, S, name_of(L, c), name, expected(L, c->specs), i);
  bind_raise(L, S, "%s: argument '%s': item %d of %d is nil", name_of(L, c), name, i - idx + 1, n - idx + 1);
}

/* x:reshape(2, 3): an operator whose only attribute is a list also takes it as separate numbers. */
static bool read_spread (lua_State *L, bind_state *S, bind_call *c, int idx, int n) {
  if (c->n_attr != 1 || !is_list_kind(c->specs[0].kind) || n - idx < 1) return false;
  marea_attr *a = &c->attr[0];
  for (int i = idx; i <= n; i++) {
    marea_attr one;
    if (i - idx == MAREA_MAX_RANK || lua_type(L, i) != LUA_TNUMBER || !to_list(L, i, c->specs[0].kind, &one))
      raise_spread(L, S, c, idx, i, n);
    a->v[i - idx] = one.v[0];
  }
  a->n = n - idx + 1;
  c->given[0] = true;
  return true;
}

/* Reads the attributes from idx..n, the first of them being attribute k. */
static void read_attrs (lua_State *L, bind_state *S, bind_call *c, int idx, int n) {
  int k = 0;
  bool spread = lua_type(L, idx) == LUA_TNUMBER || (lua_isnil(L, idx) && idx < n);
  if (idx <= n && spread && read_spread(L, S, c, idx, n)) return;
  for (; idx <= n; idx++) {
    bool table = lua_type(L, idx) == LUA_TTABLE, list = table && is_list_for(L, c, k, idx);
    if (list) set_attr(L, S, c, k++, idx);
    if (table && (!list || (idx == n && has_names(L, idx)))) {
      if (idx < n) bind_raise(L, S, "%s: arguments by name come last", name_of(L, c));
      read_names(L, S, c, idx, list);
    } else if (!table && k >= c->n_attr) {
      bind_raise(L, S, "%s: too many arguments: expected at most %d, got %d", name_of(L, c), idx - 1, n);
    } else if (!table) {
      if (!lua_isnil(L, idx)) set_attr(L, S, c, k, idx);
      k++;
    }
  }
}

static void require_attrs (lua_State *L, bind_state *S, const bind_call *c) {
  for (int k = 0; k < c->n_attr; k++)
    if (c->specs[k].initial == MAREA_REQUIRED && !c->given[k])
      bind_raise(L, S, "%s: argument '%s': expected %s, got nothing", name_of(L, c), c->specs[k].name,
                 expected(L, &c->specs[k]));
}

/* ---- inputs ---- */

/* in[] := room for n inputs. */
static void make_room_for (lua_State *L, bind_call *c, size_t n) {
  c->in = n <= BIND_FEW ? c->few : lua_newuserdatauv(L, n * sizeof *c->in, 0);
}

/* A list of tensors: concat({a, b}, 1), concat{a, b, dim = 1} or concat(a, b, {dim = 1}). Returns the
   index of the next argument; a list that carries names counts as such. */
static int read_list (lua_State *L, bind_state *S, bind_call *c, int n) {
  const char *op = marea_op_name(c->op), *name = c->inputs[0].name;
  int spread = 0;
  while (spread < n && bind_to_box(L, S, spread + 1)) spread++;
  if (spread > 0 && spread < n && lua_isnil(L, spread + 1))
    bind_raise(L, S, "%s: argument %d of %d is nil", op, spread + 1, n);
  bool table = spread == 0 && lua_type(L, 1) == LUA_TTABLE;
  size_t count = table ? bind_length(L, 1) : (size_t)spread;
  if (count == 0 || count > INT32_MAX) bind_raise_argument(L, S, op, name, "a list of tensors", n > 0);
  make_room_for(L, c, count);
  for (c->n_in = 0; c->n_in < (int)count; c->n_in++) {
    if (table) lua_rawgeti(L, 1, c->n_in + 1);
    else lua_pushvalue(L, c->n_in + 1);
    const bind_box *b = bind_to_box(L, S, -1);
    if (!b)
      bind_raise(L, S, "%s: argument '%s': item %d: expected a tensor, got %s", op, name, c->n_in + 1,
                 bind_describe(L, S, -1));
    else if (!b->t) bind_raise_released(L, S, op, name, b);
    else c->in[c->n_in] = b->t;
    lua_pop(L, 1);
  }
  return table ? 2 : spread + 1;
}

/* One input per argument; an optional one may be nil or left out. */
static int read_inputs (lua_State *L, bind_state *S, bind_call *c, int described, int n) {
  const bool numbers = marea_op_takes_numbers(c->op);
  int idx = 1;
  c->in = c->few;
  for (int i = 0; i < described; i++) {
    const bool takes_numbers = numbers && !(c->in_place && i == 0);
    const bind_box *b = idx <= n ? bind_to_box(L, S, idx) : NULL;
    c->in[i] = NULL;
    if (b && b->t) c->in[i] = b->t;
    else if (b) bind_raise_released(L, S, name_of(L, c), c->inputs[i].name, b);
    else if (takes_numbers && idx <= n && lua_type(L, idx) == LUA_TNUMBER) c->numbers |= 1u << i;
    else if (!c->inputs[i].optional)
      bind_raise_argument(L, S, name_of(L, c), c->inputs[i].name,
                          takes_numbers ? "a tensor or a number" : "a tensor", idx <= n ? idx : 0);
    else if (idx > n || !lua_isnil(L, idx)) continue;
    idx++;
  }
  c->n_in = described;
  return idx;
}

void bind_read_call (lua_State *L, bind_state *S, const marea_op *op, bool in_place, int n, bind_call *c) {
  c->op = op;
  c->in_place = in_place;
  int described = marea_op_inputs(op, &c->inputs);
  c->n_attr = marea_op_attrs(op, &c->specs);
  c->numbers = 0;
  c->attrs = NULL;
  bool list = described > 0 && c->inputs[0].variadic;
  int next = list ? read_list(L, S, c, n) : read_inputs(L, S, c, described, n);
  bool names_in_list = list && next == 2 && lua_type(L, 1) == LUA_TTABLE && c->n_attr > 0 && has_names(L, 1);
  if (next > n && c->n_attr == 0) return;
  marea_attrs_init(op, c->attr);
  memset(c->given, 0, sizeof c->given);
  c->attrs = c->attr;
  if (names_in_list) read_names(L, S, c, 1, true);
  read_attrs(L, S, c, next, n);
  require_attrs(L, S, c);
}

void bind_read_named (lua_State *L, bind_state *S, const marea_op *op, int idx, bind_call *c) {
  c->op = op;
  c->in_place = false;
  marea_op_inputs(op, &c->inputs);
  c->n_attr = marea_op_attrs(op, &c->specs);
  c->attrs = c->attr;
  marea_attrs_init(op, c->attr);
  memset(c->given, 0, sizeof c->given);
  if (!lua_isnil(L, idx)) read_names(L, S, c, idx, false);
  require_attrs(L, S, c);
}
