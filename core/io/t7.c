/* SPDX-License-Identifier: MIT
** t7.c: what torch.save of Torch7, the Lua one, wrote in binary on a machine of 64 bits, little-endian:
**
**   value   kind, 32 bits, and by kind: nil; number, a double; string, length of 32 bits and bytes; boolean, 32 bits;
**           table: index, and where that is new, the number of pairs and the pairs; object: index, and where that is new,
**           "V 1", the name of its class, and what the class writes
**   tensor  rank, 32 bits; sizes, strides, place of the first element from 1 on, 64 bits each; a storage or nil
**   storage number of elements, 64 bits, and elements
**
** An object of any other class, as those of nn, writes a table: here it is a dict with the pair "__typename". Functions are
** bytecode; a file with one is refused and says where. Nothing recurs: tables that are not full yet are on a stack.
** Not done: files in ASCII or of machines of 32 bits, files with several values, classes with a format of their own.
*/
#include <stdio.h>
#include <string.h>

#include "tree.h"

enum { NIL, NUMBER, STRING, TABLE, OBJECT, BOOLEAN, FUNCTION, OLD_FUNCTION = 7, NEW_FUNCTION };
enum { STORED = MAREA_TREE_TENSOR + 1 }; /* a storage; `integer`: byte of the file where it begins */

/* Names of classes are torch.XTensor and torch.XStorage; on the GPU they are stored as on the CPU. */
static const struct {
  char name[12];
  uint8_t code;
} types[] = {
    {"Float", MAREA_CODE_F32},      {"Double", MAREA_CODE_F64},    {"Half", MAREA_CODE_F16},
    {"Byte", MAREA_CODE_U8},        {"Char", MAREA_CODE_I8},       {"Short", MAREA_CODE_I16},
    {"Int", MAREA_CODE_I32},        {"Long", MAREA_CODE_I64},      {"Cuda", MAREA_CODE_F32},
    {"CudaDouble", MAREA_CODE_F64}, {"CudaHalf", MAREA_CODE_F16},  {"CudaByte", MAREA_CODE_U8},
    {"CudaChar", MAREA_CODE_I8},    {"CudaShort", MAREA_CODE_I16}, {"CudaInt", MAREA_CODE_I32},
    {"CudaLong", MAREA_CODE_I64},
};

typedef struct text { /* inside of the file */
  const char *s;
  size_t n;
} text;

typedef struct frame { /* a table whose pairs are being read */
  int table, key;      /* nodes; key 0: the next value is one */
  bool drops;          /* the key is nil's: what follows is read and left out */
  uint64_t left;       /* pairs, without that of `key` */
} frame;

typedef struct loader {
  marea_context *ctx;
  marea_label label;
  marea_cursor c;
  const uint8_t *bytes;
  marea_tree *t;
  int *known; /* nodes by index */
  size_t n_known, left;
  frame stack[MAREA_MAX_DEPTH];
  int depth;
} loader;

#define BAD(l, format, ...) \
  marea_fail((l)->ctx, MAREA_EFORMAT, "%s: " format, (l)->label.s __VA_OPT__(, ) __VA_ARGS__)

static marea_status bad (const loader *l, const char *what) {
  return BAD(l, "damaged: %s before byte %zu", what, (size_t)(l->c.at - l->bytes));
}

static marea_status make (loader *l, marea_node node, int *made) {
  return marea_tree_make(l->t, l->label.s, node, made);
}

static marea_status take_text (loader *l, text *to) {
  uint64_t n;
  const uint8_t *p;
  MAREA_TRY(marea_take_number(&l->c, 4, &n));
  MAREA_TRY(marea_take(&l->c, (size_t)n, &p));
  *to = (text){(const char *)p, (size_t)n};
  return MAREA_OK;
}

static marea_status make_text (loader *l, text of, int *node) {
  return make(l, (marea_node){.kind = MAREA_TREE_TEXT, .text = of.s, .count = (uint32_t)of.n}, node);
}

static marea_status take_string (loader *l, int *node) {
  text s;
  MAREA_TRY(take_text(l, &s));
  return make_text(l, s, node);
}

/* Whole numbers are integers here. */
static marea_status take_number (loader *l, int *node) {
  uint64_t word;
  double x;
  MAREA_TRY(marea_take_number(&l->c, 8, &word));
  memcpy(&x, &word, sizeof x);
  if (x >= -0x1p53 && x <= 0x1p53 && x == (double)(int64_t)x)
    return make(l, (marea_node){.kind = MAREA_TREE_INTEGER, .integer = (int64_t)x}, node);
  return make(l, (marea_node){.kind = MAREA_TREE_NUMBER, .number = x}, node);
}

static marea_status take_boolean (loader *l, int *node) {
  uint64_t word;
  MAREA_TRY(marea_take_number(&l->c, 4, &word));
  return make(l, (marea_node){.kind = word ? MAREA_TREE_TRUE : MAREA_TREE_FALSE}, node);
}

/* *known is what has this index already, in *node, or where it is to be put. */
static marea_status take_index (loader *l, int **known, int *node) {
  uint64_t i;
  MAREA_TRY(marea_take_number(&l->c, 4, &i));
  if (i >= l->n_known) return bad(l, "an index that is too large");
  *known = &l->known[i];
  *node = **known;
  return MAREA_OK;
}

/* ---- classes ---- */

/* Whether the class is torch.X and `end`, with X of the types. */
static bool is_type (text class, const char *end, marea_code *code) {
  char name[40];
  for (int i = 0; i < MAREA_COUNT(types); i++) {
    const int n = snprintf(name, sizeof name, "torch.%s%s", types[i].name, end);
    *code = (marea_code)types[i].code;
    if ((size_t)n == class.n && memcmp(name, class.s, class.n) == 0) return true;
  }
  return false;
}

/* "V 1" and the name; the first versions wrote the name alone. */
static marea_status take_class (loader *l, text *class) {
  MAREA_TRY(take_text(l, class));
  if (class->n < 3 || memcmp(class->s, "V ", 2) != 0) return MAREA_OK;
  for (size_t i = 2; i < class->n; i++)
    if (class->s[i] < '0' || class->s[i] > '9') return MAREA_OK;
  return take_text(l, class);
}

/* ---- tensors ---- */

static marea_status take_stored (loader *l, marea_code code, int *node) {
  uint64_t n;
  const uint8_t *p;
  const size_t at = (size_t)(l->c.at - l->bytes), size = marea_code_size(code);
  MAREA_TRY(marea_take_number(&l->c, 8, &n));
  if (n > (size_t)(l->c.end - l->c.at) / size)
    return BAD(l, "truncated: a storage of %llu elements, with %zu bytes behind it", (unsigned long long)n,
               (size_t)(l->c.end - l->c.at));
  MAREA_TRY(marea_take(&l->c, (size_t)n * size, &p));
  return make(l, (marea_node){.kind = STORED, .what = (uint8_t)code, .integer = (int64_t)at}, node);
}

static marea_stored stored_at (const loader *l, int node) {
  const marea_node *n = &l->t->nodes[node];
  marea_stored s = {.label = l->label.s, .name = "of the file", .code = (marea_code)n->what};
  memcpy(&s.n, l->bytes + n->integer, sizeof s.n);
  s.bytes = l->bytes + n->integer + sizeof s.n;
  return s;
}

/* The storage of a tensor of elements `code`; node 0: it has none. */
static marea_status take_storage (loader *l, marea_code code, int *node) {
  uint64_t kind;
  int *known = NULL;
  text class;
  marea_code stored = code;
  *node = 0;
  MAREA_TRY(marea_take_number(&l->c, 4, &kind));
  if (kind == NIL) return MAREA_OK;
  if (kind != OBJECT) return bad(l, "a tensor without storage");
  MAREA_TRY(take_index(l, &known, node));
  if (!*node) {
    MAREA_TRY(take_class(l, &class));
    if (!is_type(class, "Storage", &stored)) return bad(l, "a tensor without storage");
    MAREA_TRY(take_stored(l, stored, node));
    *known = *node;
  }
  const marea_node *n = &l->t->nodes[*node];
  return n->kind == STORED && n->what == code ? MAREA_OK : bad(l, "a tensor with a storage of another type");
}

static marea_status take_sizes (loader *l, int rank, int64_t *to) {
  uint64_t word;
  for (int d = 0; d < rank; d++) {
    MAREA_TRY(marea_take_number(&l->c, 8, &word));
    to[d] = (int64_t)word;
  }
  return MAREA_OK;
}

static marea_status take_tensor (loader *l, marea_code code, int *node) {
  uint64_t rank;
  int storage;
  marea_view v;
  MAREA_TRY(marea_take_number(&l->c, 4, &rank));
  if (rank > MAREA_MAX_RANK)
    return BAD(l, "a tensor of %llu dimensions; at most %d are possible", (unsigned long long)rank,
               MAREA_MAX_RANK);
  v.rank = (int)rank;
  MAREA_TRY(take_sizes(l, v.rank, v.shape));
  MAREA_TRY(take_sizes(l, v.rank, v.stride));
  MAREA_TRY(take_sizes(l, 1, &v.offset));
  MAREA_TRY(take_storage(l, code, &storage));
  if (__builtin_sub_overflow(v.offset, 1, &v.offset)) return bad(l, "a tensor without place");
  if (v.rank == 0) v = (marea_view){.rank = 1, .shape = {0}, .stride = {1}}; /* Torch7's empty tensor */
  const marea_stored s = storage ? stored_at(l, storage)
                                 : (marea_stored){
                                       .label = l->label.s, .name = "nil", .code = code, .bytes = l->bytes};
  MAREA_TRY(make(l, (marea_node){.kind = MAREA_TREE_TENSOR}, node));
  return marea_view_read(l->ctx, &s, &v, &l->left, &l->t->nodes[*node].tensor);
}

/* ---- tables ---- */

/* The pairs of a new table follow. */
static marea_status begin_table (loader *l, int *node) {
  uint64_t n;
  MAREA_TRY(marea_take_number(&l->c, 4, &n));
  MAREA_TRY(make(l, (marea_node){.kind = MAREA_TREE_DICT}, node));
  if (l->depth == MAREA_MAX_DEPTH) return BAD(l, "nested deeper than %d", MAREA_MAX_DEPTH);
  l->stack[l->depth++] = (frame){.table = *node, .left = n};
  return MAREA_OK;
}

static marea_status take_table (loader *l, int *node) {
  int *known = NULL;
  MAREA_TRY(take_index(l, &known, node));
  if (*node) return MAREA_OK;
  MAREA_TRY(begin_table(l, node));
  *known = *node;
  return MAREA_OK;
}

/* What an object of `class` writes: a table. */
static marea_status take_module (loader *l, text class, int *node) {
  uint64_t kind;
  int key, name;
  MAREA_TRY(marea_take_number(&l->c, 4, &kind));
  if (kind != TABLE)
    return BAD(l, "refused: class '%.*s' has a format of its own", (int)MAREA_MIN(class.n, 100), class.s);
  MAREA_TRY(take_table(l, node));
  if (l->t->nodes[*node].kind != MAREA_TREE_DICT) return bad(l, "an object without table");
  MAREA_TRY(make_text(l, (text){"__typename", 10}, &key));
  MAREA_TRY(make_text(l, class, &name));
  return marea_tree_add(l->t, l->label.s, *node, key, name);
}

static marea_status take_object (loader *l, int *node) {
  int *known = NULL;
  text class;
  marea_code code;
  MAREA_TRY(take_index(l, &known, node));
  if (*node) return MAREA_OK;
  MAREA_TRY(take_class(l, &class));
  if (is_type(class, "Tensor", &code)) MAREA_TRY(take_tensor(l, code, node));
  else if (is_type(class, "Storage", &code)) MAREA_TRY(take_stored(l, code, node));
  else MAREA_TRY(take_module(l, class, node));
  *known = *node;
  return MAREA_OK;
}

static marea_status refuse_function (const loader *l) {
  const frame *f = l->depth ? &l->stack[l->depth - 1] : NULL;
  const marea_node *key = &l->t->nodes[f ? f->key : 0];
  const int n = (int)MAREA_MIN(key->count, 100);
  if (key->kind == MAREA_TREE_TEXT)
    return BAD(l, "refused: a function, which is code, is kept as '%.*s'", n, key->text);
  return BAD(l, "refused: there is a function, which is code, before byte %zu", (size_t)(l->c.at - l->bytes));
}

/* Node 0: nil. */
static marea_status take_value (loader *l, int *node) {
  uint64_t kind;
  *node = 0;
  MAREA_TRY(marea_take_number(&l->c, 4, &kind));
  switch (kind) {
  case NIL: return MAREA_OK;
  case NUMBER: return take_number(l, node);
  case STRING: return take_string(l, node);
  case TABLE: return take_table(l, node);
  case OBJECT: return take_object(l, node);
  case BOOLEAN: return take_boolean(l, node);
  case FUNCTION:
  case OLD_FUNCTION:
  case NEW_FUNCTION: return refuse_function(l);
  default: return bad(l, "no kind of value");
  }
}

/* One key or value of the table on top of the stack. */
static marea_status go_on (loader *l) {
  frame *f = &l->stack[l->depth - 1];
  const bool is_key = !f->key && !f->drops;
  int node;
  if (is_key && f->left == 0) {
    l->depth--;
    return MAREA_OK;
  }
  if (is_key) f->left--;
  MAREA_TRY(take_value(l, &node));
  const marea_node *n = &l->t->nodes[node];
  if (is_key) {
    if (n->kind == MAREA_TREE_NUMBER && n->number != n->number) return bad(l, "a key that is not a number");
    f->key = node;
    f->drops = !node;
    return MAREA_OK;
  }
  const int key = f->key;
  f->key = 0;
  f->drops = false;
  return node && key ? marea_tree_add(l->t, l->label.s, f->table, key, node) : MAREA_OK;
}

/* Storages that are values are tensors of one dimension, others nothing. */
static marea_status finish (loader *l) {
  marea_tree *t = l->t;
  for (int i = 1; i < t->n_cells; i++) {
    t->nodes[t->cells[i].key].last |= t->nodes[t->cells[i].key].kind == STORED;
    t->nodes[t->cells[i].value].last |= t->nodes[t->cells[i].value].kind == STORED;
  }
  for (int i = 1; i < t->n_nodes; i++) {
    if (t->nodes[i].kind != STORED) continue;
    const marea_stored s = stored_at(l, i);
    const bool is_value = t->nodes[i].last || i == t->root;
    t->nodes[i] = (marea_node){.kind = MAREA_TREE_NONE};
    if (!is_value) continue;
    const marea_view v = {.rank = 1, .shape = {s.n}, .stride = {1}};
    t->nodes[i].kind = MAREA_TREE_TENSOR;
    MAREA_TRY(marea_view_read(l->ctx, &s, &v, &l->left, &t->nodes[i].tensor));
  }
  return marea_tree_keep_texts(t, l->label.s);
}

static marea_status read_tree (loader *l) {
  if (l->c.end - l->c.at > 1 && l->c.at[0] >= '0' && l->c.at[0] <= '9' && l->c.at[1] == '\n')
    return BAD(l, "in ASCII, which is not read; Torch7 saves in binary without that word");
  MAREA_TRY(take_value(l, &l->t->root));
  if (!l->t->root) MAREA_TRY(make(l, (marea_node){.kind = MAREA_TREE_NONE}, &l->t->root));
  for (int i = 0; l->depth; i++) {
    if (i % 1024 == 0) MAREA_TRY(marea_poll(l->ctx));
    MAREA_TRY(go_on(l));
  }
  if (l->c.at != l->c.end)
    return BAD(l, "there are %zu bytes behind its value; files of several values are not read",
               (size_t)(l->c.end - l->c.at));
  return finish(l);
}

static marea_status read_all (loader *l) {
  l->known = marea_alloc(l->ctx, sizeof *l->known * l->n_known);
  if (!l->known) return marea_no_names(l->ctx, l->label.s);
  memset(l->known, 0, sizeof *l->known * l->n_known);
  MAREA_TRY(marea_tree_new(l->ctx, l->label.s, &l->t));
  return read_tree(l);
}

marea_status marea_parse_t7 (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                             marea_tree **out) {
  const marea_label label = marea_file_label("load_t7", path);
  *out = NULL;
  loader *l = marea_alloc(ctx, sizeof *l);
  if (!l) return marea_no_names(ctx, label.s);
  *l = (loader){.ctx = ctx, .label = label, .bytes = bytes, .left = marea_view_room(n)};
  l->c = (marea_cursor){ctx, l->label.s, bytes, bytes + n};
  l->n_known = MAREA_MIN(n / 8 + 2,
                         (size_t)MAREA_MAX_NODES); /* what has an index takes eight bytes at least */
  const marea_status status = read_all(l);
  if (status == MAREA_OK) *out = l->t;
  else marea_tree_free(l->t);
  marea_free(ctx, l->known);
  marea_free(ctx, l);
  return status;
}

marea_status marea_load_t7 (marea_context *ctx, const char *path, marea_tree **out) {
  return marea_load_tree(ctx, "load_t7", path, marea_parse_t7, out);
}
