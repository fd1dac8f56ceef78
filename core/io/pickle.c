/* SPDX-License-Identifier: MIT
** pickle.c: a pickle is a program for a machine with a stack and a memo, which in Python may call whatever it names. This
** machine builds tensors, lists, dicts, texts, numbers, booleans and None; the few names that it knows (`globals`) stand
** for code of its own, and any other one ends the reading with a message that says what the file wanted.
**
** Values are nodes and lie in one array, so that one which occurs twice is one node, and a list may be its own
** element (tree.h); the stack and the memo hold their numbers. Every opcode makes at most one node or takes bytes of the
** pickle for it, so that the tree is no larger than the pickle allows; what is nested deeper than MAREA_MAX_DEPTH is refused.
** Not done: protocols other than 2, sets, bytes, complex numbers, classes, objects that are shared between files.
*/
#include <string.h>

#include "pickle.h"

enum { GLOBAL = MAREA_TREE_TENSOR + 1, STORAGE, TUPLE };
enum { REBUILD_TENSOR, REBUILD_PARAMETER, ORDERED_DICT, STORAGE_TYPE };

/* Names that a pickle may use; of a type of storages, the code of its elements. */
static const struct {
  const char *module, *name;
  uint8_t what, code;
} globals[] = {
    {"torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR, 0},
    {"torch._utils", "_rebuild_parameter", REBUILD_PARAMETER, 0},
    {"collections", "OrderedDict", ORDERED_DICT, 0},
    {"torch", "FloatStorage", STORAGE_TYPE, MAREA_CODE_F32},
    {"torch", "DoubleStorage", STORAGE_TYPE, MAREA_CODE_F64},
    {"torch", "HalfStorage", STORAGE_TYPE, MAREA_CODE_F16},
    {"torch", "BFloat16Storage", STORAGE_TYPE, MAREA_CODE_BF16},
    {"torch", "LongStorage", STORAGE_TYPE, MAREA_CODE_I64},
    {"torch", "IntStorage", STORAGE_TYPE, MAREA_CODE_I32},
    {"torch", "ShortStorage", STORAGE_TYPE, MAREA_CODE_I16},
    {"torch", "CharStorage", STORAGE_TYPE, MAREA_CODE_I8},
    {"torch", "ByteStorage", STORAGE_TYPE, MAREA_CODE_U8},
    {"torch", "BoolStorage", STORAGE_TYPE, MAREA_CODE_BOOL},
};

typedef struct machine {
  marea_tree *t;
  const char *label;
  marea_cursor c;
  int *stack, *memo; /* nodes; a mark on the stack is 0 */
  int n, room, n_memo;
  marea_build *build;
  void *ud;
} machine;

#define BAD(m, ...) marea_fail((m)->t->ctx, MAREA_EFORMAT, __VA_ARGS__)

static marea_status bad (const machine *m, const char *what) {
  return BAD(m, "%s: damaged: its pickle has %s before byte %zu", m->label, what,
             (size_t)(m->c.at - m->t->bytes));
}

/* ---- memory ---- */

static marea_status push (machine *m, int node) {
  void *p = m->stack;
  MAREA_TRY(marea_tree_grow(m->t->ctx, m->label, &p, m->n, &m->room, sizeof *m->stack));
  m->stack = p;
  m->stack[m->n++] = node;
  return MAREA_OK;
}

static marea_status make (machine *m, marea_node node, int *made) {
  return marea_tree_make(m->t, m->label, node, made);
}

static marea_status push_new (machine *m, marea_node node) {
  int made;
  MAREA_TRY(make(m, node, &made));
  return push(m, made);
}

static marea_node *node_at (const machine *m, int node) { return &m->t->nodes[node]; }

/* The value on top of the stack, which may not be a mark; 0: there is none. */
static int pop (machine *m) { return m->n > 0 ? m->stack[--m->n] : 0; }

/* ---- the pickle's bytes ---- */

static marea_status take (machine *m, size_t n, const uint8_t **p) { return marea_take(&m->c, n, p); }

static marea_status take_number (machine *m, size_t n, uint64_t *number) {
  return marea_take_number(&m->c, n, number);
}

static marea_status take_line (machine *m, const char **line, size_t *n) {
  const uint8_t *p = memchr(m->c.at, '\n', (size_t)(m->c.end - m->c.at));
  if (!p) return BAD(m, "%s: truncated: it ends too early", m->label);
  *line = (const char *)m->c.at;
  *n = (size_t)(p - m->c.at);
  m->c.at = p + 1;
  return MAREA_OK;
}

/* ---- values without parts ---- */

static marea_status push_integer (machine *m, size_t bytes, bool has_sign) {
  uint64_t x;
  MAREA_TRY(take_number(m, bytes, &x));
  if (has_sign && bytes > 0 && bytes < 8 && x >> (8 * bytes - 1)) x |= ~UINT64_C(0) << 8 * bytes;
  return push_new(m, (marea_node){.kind = MAREA_TREE_INTEGER, .integer = (int64_t)x});
}

static marea_status push_long (machine *m) {
  uint64_t n;
  MAREA_TRY(take_number(m, 1, &n));
  if (n > 8) return BAD(m, "%s: an integer of more than 64 bits", m->label);
  return push_integer(m, (size_t)n, true);
}

static marea_status push_number (machine *m) {
  uint64_t x;
  double number;
  MAREA_TRY(take_number(m, 8, &x));
  x = __builtin_bswap64(x);
  memcpy(&number, &x, sizeof number);
  return push_new(m, (marea_node){.kind = MAREA_TREE_NUMBER, .number = number});
}

static marea_status push_text (machine *m, size_t width) {
  uint64_t n;
  const uint8_t *p;
  MAREA_TRY(take_number(m, width, &n));
  MAREA_TRY(take(m, (size_t)n, &p));
  return push_new(m, (marea_node){.kind = MAREA_TREE_TEXT, .text = (const char *)p, .count = (uint32_t)n});
}

static bool is (const char *text, size_t n, const char *word) {
  return strlen(word) == n && memcmp(text, word, n) == 0;
}

static marea_status push_global (machine *m) {
  const char *module, *name;
  size_t module_length, length;
  MAREA_TRY(take_line(m, &module, &module_length));
  MAREA_TRY(take_line(m, &name, &length));
  for (int i = 0; i < MAREA_COUNT(globals); i++)
    if (is(module, module_length, globals[i].module) && is(name, length, globals[i].name))
      return push_new(m, (marea_node){.kind = GLOBAL, .what = globals[i].what, .integer = globals[i].code});
  return BAD(
      m,
      "%s: refused: the file wants '%.*s.%.*s', and only tensors, lists, dicts, numbers and text are built",
      m->label, (int)MAREA_MIN(module_length, 60), module, (int)MAREA_MIN(length, 60), name);
}

/* ---- lists, tuples and dicts ---- */

static marea_status add_cell (machine *m, int to, int key, int value) {
  if (node_at(m, value)->kind == GLOBAL && node_at(m, to)->kind != TUPLE) return bad(m, "a name as a value");
  return marea_tree_add(m->t, m->label, to, key, value);
}

/* The number of values above the topmost mark, which is taken away; *from is where they begin. */
static marea_status find_mark (const machine *m, int *from) {
  for (int i = m->n; i > 0; i--)
    if (m->stack[i - 1] == 0) {
      *from = i;
      return MAREA_OK;
    }
  return bad(m, "no mark");
}

/* The values from stack position `from` on as a new tuple, on top of the stack at `to`. */
static marea_status push_tuple (machine *m, int from, int to) {
  int tuple;
  if (from < 0) return bad(m, "too few values");
  MAREA_TRY(make(m, (marea_node){.kind = TUPLE}, &tuple));
  for (int i = from; i < m->n; i++) {
    if (!m->stack[i]) return bad(m, "a mark in a tuple");
    MAREA_TRY(add_cell(m, tuple, 0, m->stack[i]));
  }
  m->n = to;
  return push(m, tuple);
}

static bool is_key (const marea_node *n) {
  return n->kind == MAREA_TREE_TEXT || n->kind == MAREA_TREE_INTEGER || n->kind == MAREA_TREE_TRUE ||
         n->kind == MAREA_TREE_FALSE || (n->kind == MAREA_TREE_NUMBER && n->number == n->number);
}

/* Puts the values from stack position `from` on into the list below them, or by pairs into a dict; `to` is the stack's
   new size, and the list is what lies on top of it then. */
static marea_status put_values (machine *m, int from, int to, uint8_t kind) {
  const int step = kind == MAREA_TREE_DICT ? 2 : 1;
  if (to < 1 || from < to || (m->n - from) % step) return bad(m, "too few values");
  const int list = m->stack[to - 1];
  if (!list || node_at(m, list)->kind != kind) return bad(m, "no list or dict to put a value into");
  for (int i = from; i < m->n; i += step) {
    const int key = step == 2 ? m->stack[i] : 0, value = m->stack[i + step - 1];
    if (!value || (step == 2 && !key)) return bad(m, "a mark as a value");
    if (step == 2 && !is_key(node_at(m, key)))
      return BAD(m, "%s: a dict with a key that is no text, number or boolean", m->label);
    MAREA_TRY(add_cell(m, list, key, value));
  }
  m->n = to;
  return MAREA_OK;
}

static marea_status put_marked (machine *m, uint8_t kind) {
  int from;
  MAREA_TRY(find_mark(m, &from));
  return put_values(m, from, from - 1, kind);
}

/* ---- the memo ---- */

static marea_status store (machine *m, size_t width) {
  uint64_t i;
  MAREA_TRY(take_number(m, width, &i));
  if (!m->n || !m->stack[m->n - 1]) return bad(m, "nothing to remember");
  if (i >= (uint64_t)m->n_memo) return bad(m, "a memo that is too large");
  m->memo[i] = m->stack[m->n - 1];
  return MAREA_OK;
}

static marea_status recall (machine *m, size_t width) {
  uint64_t i;
  MAREA_TRY(take_number(m, width, &i));
  if (i >= (uint64_t)m->n_memo || !m->memo[i]) return bad(m, "a memory of nothing");
  return push(m, m->memo[i]);
}

/* ---- tensors ---- */

/* The first `most` parts of a tuple; their number, or -1. */
static int parts_of (const machine *m, int tuple, int *parts, int most) {
  const marea_node *n = node_at(m, tuple);
  if (n->kind != TUPLE || n->count > (uint32_t)most) return -1;
  int count = 0;
  for (int cell = n->first; cell; cell = m->t->cells[cell].next) parts[count++] = m->t->cells[cell].value;
  return count;
}

/* ('storage', type, key, device, elements): the storage keeps its tuple. */
static marea_status push_storage (machine *m) {
  int p[5];
  const int tuple = pop(m);
  if (!tuple || parts_of(m, tuple, p, 5) != 5) return bad(m, "no storage");
  const marea_node *word = node_at(m, p[0]), *type = node_at(m, p[1]), *key = node_at(m, p[2]),
                   *n = node_at(m, p[4]);
  if (word->kind != MAREA_TREE_TEXT || !is(word->text, word->count, "storage") || type->kind != GLOBAL ||
      type->what != STORAGE_TYPE || key->kind != MAREA_TREE_TEXT || n->kind != MAREA_TREE_INTEGER)
    return bad(m, "no storage");
  return push_new(
      m, (marea_node){.kind = STORAGE, .what = (uint8_t)type->integer, .first = p[2], .integer = n->integer});
}

static marea_status read_sizes (const machine *m, int tuple, int64_t *to, int *n) {
  int parts[MAREA_MAX_RANK];
  *n = parts_of(m, tuple, parts, MAREA_MAX_RANK);
  if (*n < 0) return BAD(m, "%s: a tensor whose sizes are no tuple of at most %d", m->label, MAREA_MAX_RANK);
  for (int i = 0; i < *n; i++) {
    if (node_at(m, parts[i])->kind != MAREA_TREE_INTEGER) return bad(m, "a size that is no integer");
    to[i] = node_at(m, parts[i])->integer;
  }
  return MAREA_OK;
}

/* (storage, offset, sizes, strides, requires_grad, hooks, metadata) */
static marea_status push_tensor (machine *m, int arguments) {
  int p[7], strides;
  const int n = parts_of(m, arguments, p, 7);
  if (n < 6 || node_at(m, p[0])->kind != STORAGE || node_at(m, p[1])->kind != MAREA_TREE_INTEGER)
    return bad(m, "a tensor without storage");
  const marea_node *from = node_at(m, p[0]), *key = node_at(m, from->first);
  marea_view v = {.offset = node_at(m, p[1])->integer};
  MAREA_TRY(read_sizes(m, p[2], v.shape, &v.rank));
  MAREA_TRY(read_sizes(m, p[3], v.stride, &strides));
  if (strides != v.rank) return bad(m, "other strides than sizes");
  const marea_pickle_storage s = {
      .code = (marea_code)from->what, .key = key->text, .key_length = key->count, .n = from->integer};
  int made;
  MAREA_TRY(make(m, (marea_node){.kind = MAREA_TREE_TENSOR}, &made));
  MAREA_TRY(m->build(m->ud, &s, &v, &node_at(m, made)->tensor));
  return push(m, made);
}

/* Calls what lies below the tuple of arguments on the stack. */
static marea_status reduce (machine *m) {
  int p[3];
  const int arguments = pop(m), function = pop(m);
  if (!arguments || !function || node_at(m, function)->kind != GLOBAL) return bad(m, "a call of nothing");
  switch (node_at(m, function)->what) {
  case REBUILD_TENSOR: return push_tensor(m, arguments);
  case REBUILD_PARAMETER:
    if (parts_of(m, arguments, p, 3) != 3 || node_at(m, p[0])->kind != MAREA_TREE_TENSOR)
      return bad(m, "a parameter without tensor");
    return push(m, p[0]);
  case ORDERED_DICT:
    if (parts_of(m, arguments, p, 0) != 0) return bad(m, "an OrderedDict of arguments");
    return push_new(m, (marea_node){.kind = MAREA_TREE_DICT});
  default: return bad(m, "a call of a type of storages");
  }
}

/* The attributes of an OrderedDict, which are PyTorch's _metadata, are not kept. */
static marea_status drop_attributes (machine *m) {
  const int attributes = pop(m), object = m->n ? m->stack[m->n - 1] : 0;
  if (!attributes || !object || node_at(m, object)->kind != MAREA_TREE_DICT)
    return bad(m, "attributes of what has none");
  return MAREA_OK;
}

/* ---- the machine ---- */

static marea_status push_kind (machine *m, uint8_t kind) { return push_new(m, (marea_node){.kind = kind}); }

static marea_status run_other (machine *m, uint8_t op) {
  int from;
  switch (op) {
  case '(': return push(m, 0);
  case '0': return m->n ? (m->n--, MAREA_OK) : bad(m, "too few values");
  case 't': MAREA_TRY(find_mark(m, &from)); return push_tuple(m, from, from - 1);
  case 0x85: return push_tuple(m, m->n - 1, m->n - 1);
  case 0x86: return push_tuple(m, m->n - 2, m->n - 2);
  case 0x87: return push_tuple(m, m->n - 3, m->n - 3);
  case 'a': return put_values(m, m->n - 1, m->n - 1, MAREA_TREE_LIST);
  case 's': return put_values(m, m->n - 2, m->n - 2, MAREA_TREE_DICT);
  case 'e': return put_marked(m, MAREA_TREE_LIST);
  case 'u': return put_marked(m, MAREA_TREE_DICT);
  case 'q': return store(m, 1);
  case 'r': return store(m, 4);
  case 'h': return recall(m, 1);
  case 'j': return recall(m, 4);
  case 'Q': return push_storage(m);
  case 'R': return reduce(m);
  case 'b': return drop_attributes(m);
  default:
    return BAD(m, "%s: opcode 0x%02x at byte %zu of its pickle is not supported", m->label, op,
               (size_t)(m->c.at - m->t->bytes) - 1);
  }
}

static marea_status run (machine *m, uint8_t op) {
  switch (op) {
  case 'N': return push_kind(m, MAREA_TREE_NONE);
  case 0x88: return push_kind(m, MAREA_TREE_TRUE);
  case 0x89: return push_kind(m, MAREA_TREE_FALSE);
  case ')': return push_kind(m, TUPLE);
  case ']': return push_kind(m, MAREA_TREE_LIST);
  case '}': return push_kind(m, MAREA_TREE_DICT);
  case 'K': return push_integer(m, 1, false);
  case 'M': return push_integer(m, 2, false);
  case 'J': return push_integer(m, 4, true);
  case 0x8a: return push_long(m);
  case 'G': return push_number(m);
  case 'X': return push_text(m, 4);
  case 'U': return push_text(m, 1);
  case 'c': return push_global(m);
  default: return run_other(m, op);
  }
}

static marea_status run_all (machine *m) {
  const uint8_t *op;
  MAREA_TRY(take(m, 2, &op));
  if (op[0] != 0x80) return BAD(m, "%s: not a pickle of protocol 2", m->label);
  if (op[1] != 2)
    return BAD(m, "%s: a pickle of protocol %d; only 2 is supported, torch.save's own", m->label, op[1]);
  for (int i = 0;; i++) {
    if (i % 1024 == 0) MAREA_TRY(marea_poll(m->t->ctx));
    MAREA_TRY(take(m, 1, &op));
    if (*op == '.') break;
    MAREA_TRY(run(m, *op));
  }
  m->t->root = pop(m);
  if (!m->t->root || m->n || node_at(m, m->t->root)->kind == GLOBAL) return bad(m, "no single value");
  return MAREA_OK;
}

/* Tuples are lists from here on, and a storage that lies about is nothing. */
static void simplify (marea_tree *t) {
  for (int i = 0; i < t->n_nodes; i++) {
    if (t->nodes[i].kind == TUPLE) t->nodes[i].kind = MAREA_TREE_LIST;
    if (t->nodes[i].kind == STORAGE || t->nodes[i].kind == GLOBAL)
      t->nodes[i] = (marea_node){.kind = MAREA_TREE_NONE};
  }
}

marea_status marea_pickle_read (marea_tree *t, const char *label, marea_build *build, void *ud) {
  machine m = {
      .t = t, .label = label, .c = {t->ctx, label, t->bytes, t->bytes + t->n}, .build = build, .ud = ud};
  const size_t most = MAREA_MIN(t->n / 2 + 1,
                                (size_t)MAREA_MAX_NODES); /* to put a value there takes two bytes */
  m.memo = marea_alloc(t->ctx, sizeof *m.memo * most);
  if (!m.memo) return marea_no_names(t->ctx, label);
  memset(m.memo, 0, sizeof *m.memo * most);
  m.n_memo = (int)most;
  const marea_status status = run_all(&m);
  simplify(t);
  marea_free(t->ctx, m.stack);
  marea_free(t->ctx, m.memo);
  return status;
}
