/* SPDX-License-Identifier: MIT
** gguf.c: GGUF, the files of llama.cpp and its kin, of versions 2 and 3, little-endian:
**
**   "GGUF" | version, 32 bits | number of tensors | number of pairs, 64 bits each
**   pairs: a name | type, 32 bits | value; tensors: a name | rank, 32 bits | sizes | type, 32 bits | place, 64 bits
**   the tensors' bytes, aligned to "general.alignment", from where places are counted
**
** Sizes stand there with the innermost one first, and are turned around. Blocks of 32 elements are decoded to f32:
**   q8_0: scale f16, 32 signed bytes; q4_0: scale f16, 16 bytes: elements 0-15 in the lower halves, 16-31 in the upper
**   ones, each less 8.
** The result is a list of two dicts, the tensors and the pairs.
** Not done: other types of blocks, which are refused by name; big-endian files; models in several files.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tree.h"

#define BLOCK 32
#define MAX_NESTED 8 /* arrays in each other */

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, VALUE_TYPES };

static const uint8_t value_size[VALUE_TYPES] = {
    [U8] = 1,  [I8] = 1,   [U16] = 2, [I16] = 2, [U32] = 4, [I32] = 4,
    [F32] = 4, [BOOL] = 1, [U64] = 8, [I64] = 8, [F64] = 8,
};

enum { PLAIN = 1, Q4_0, Q8_0 }; /* how elements are kept, if they can be read */

static const struct {
  char name[8];
  uint8_t how, code;
} types[] = {
    {"F32", PLAIN, MAREA_CODE_F32},
    {"F16", PLAIN, MAREA_CODE_F16},
    {"Q4_0", Q4_0, MAREA_CODE_F32},
    {"Q4_1", 0, 0},
    {"", 0, 0},
    {"", 0, 0},
    {"Q5_0", 0, 0},
    {"Q5_1", 0, 0},
    {"Q8_0", Q8_0, MAREA_CODE_F32},
    {"Q8_1", 0, 0},
    {"Q2_K", 0, 0},
    {"Q3_K", 0, 0},
    {"Q4_K", 0, 0},
    {"Q5_K", 0, 0},
    {"Q6_K", 0, 0},
    {"Q8_K", 0, 0},
    {"IQ2_XXS", 0, 0},
    {"IQ2_XS", 0, 0},
    {"IQ3_XXS", 0, 0},
    {"IQ1_S", 0, 0},
    {"IQ4_NL", 0, 0},
    {"IQ3_S", 0, 0},
    {"IQ2_S", 0, 0},
    {"IQ4_XS", 0, 0},
    {"I8", PLAIN, MAREA_CODE_I8},
    {"I16", PLAIN, MAREA_CODE_I16},
    {"I32", PLAIN, MAREA_CODE_I32},
    {"I64", PLAIN, MAREA_CODE_I64},
    {"F64", PLAIN, MAREA_CODE_F64},
    {"IQ1_M", 0, 0},
    {"BF16", PLAIN, MAREA_CODE_BF16},
    {"", 0, 0},
    {"", 0, 0},
    {"", 0, 0},
    {"TQ1_0", 0, 0},
    {"TQ2_0", 0, 0},
    {"", 0, 0},
    {"", 0, 0},
    {"", 0, 0},
    {"MXFP4", 0, 0},
};

typedef struct entry { /* about one tensor */
  int name;            /* node */
  const char *text;    /* of it, of n bytes */
  uint32_t n;
  uint32_t type;
  int rank;
  int64_t shape[MAREA_MAX_RANK];
  uint64_t place;
} entry;

typedef struct loader {
  marea_context *ctx;
  marea_label label;
  marea_cursor c;
  marea_tree *t;
  entry *entries;
  int count, tensors, pairs; /* entries; dicts */
  uint64_t alignment;
  size_t left; /* bytes that tensors may still take */
} loader;

#define BAD(l, format, ...) \
  marea_fail((l)->ctx, MAREA_EFORMAT, "%s: " format, (l)->label.s __VA_OPT__(, ) __VA_ARGS__)

static marea_status make (loader *l, marea_node node, int *made) {
  return marea_tree_make(l->t, l->label.s, node, made);
}

static marea_status take_text (loader *l, int *node) {
  uint64_t n;
  const uint8_t *p;
  MAREA_TRY(marea_take_number(&l->c, 8, &n));
  MAREA_TRY(marea_take(&l->c, (size_t)n, &p));
  if (n > UINT32_MAX) return BAD(l, "a text of %llu bytes", (unsigned long long)n);
  return make(l, (marea_node){.kind = MAREA_TREE_TEXT, .text = (const char *)p, .count = (uint32_t)n}, node);
}

static marea_node scalar (uint32_t type, uint64_t word) {
  const int bits = 64 - 8 * value_size[type];
  marea_node n = {.kind = MAREA_TREE_INTEGER, .integer = (int64_t)word};
  float number;
  switch (type) {
  case I8:
  case I16:
  case I32: n.integer = (int64_t)(word << bits) >> bits; break;
  case BOOL: n.kind = word ? MAREA_TREE_TRUE : MAREA_TREE_FALSE; break;
  case F32:
    memcpy(&number, &word, sizeof number);
    n = (marea_node){.kind = MAREA_TREE_NUMBER, .number = (double)number};
    break;
  case F64:
    n.kind = MAREA_TREE_NUMBER;
    memcpy(&n.number, &word, sizeof n.number);
    break;
  case U64: /* those that no integer here has */
    if (word > INT64_MAX) n = (marea_node){.kind = MAREA_TREE_NUMBER, .number = (double)word};
    break;
  default: break;
  }
  return n;
}

static marea_status take_value (loader *l, uint32_t type, int depth, int *node);

static marea_status take_array (loader *l, int depth, int *node) {
  uint64_t type, n;
  int value;
  MAREA_TRY(marea_take_number(&l->c, 4, &type));
  MAREA_TRY(marea_take_number(&l->c, 8, &n));
  if (depth > MAX_NESTED) return BAD(l, "arrays nested deeper than %d", MAX_NESTED);
  MAREA_TRY(make(l, (marea_node){.kind = MAREA_TREE_LIST}, node));
  for (uint64_t i = 0; i < n; i++) {
    if (i % 1024 == 0) MAREA_TRY(marea_poll(l->ctx));
    MAREA_TRY(take_value(l, (uint32_t)type, depth + 1, &value));
    MAREA_TRY(marea_tree_add(l->t, l->label.s, *node, 0, value));
  }
  return MAREA_OK;
}

static marea_status take_value (loader *l, uint32_t type, int depth, int *node) {
  uint64_t word;
  if (type == STRING) return take_text(l, node);
  if (type == ARRAY) return take_array(l, depth, node);
  if (type >= VALUE_TYPES) return BAD(l, "damaged: no value has type %u", type);
  MAREA_TRY(marea_take_number(&l->c, value_size[type], &word));
  return make(l, scalar(type, word), node);
}

static bool is (const marea_node *n, const char *word) {
  return n->count == strlen(word) && memcmp(n->text, word, n->count) == 0;
}

static marea_status take_pair (loader *l) {
  uint64_t type;
  int key, value;
  MAREA_TRY(take_text(l, &key));
  MAREA_TRY(marea_take_number(&l->c, 4, &type));
  MAREA_TRY(take_value(l, (uint32_t)type, 0, &value));
  if (is(&l->t->nodes[key], "general.alignment")) {
    const marea_node *n = &l->t->nodes[value];
    if (n->kind != MAREA_TREE_INTEGER || n->integer < 1 || n->integer > 1 << 20)
      return BAD(l, "damaged: general.alignment is no size");
    l->alignment = (uint64_t)n->integer;
  }
  return marea_tree_add(l->t, l->label.s, l->pairs, key, value);
}

static marea_status take_entry (loader *l, entry *e) {
  uint64_t rank, size, type;
  MAREA_TRY(take_text(l, &e->name));
  const marea_node *name = &l->t->nodes[e->name];
  const int n = (int)MAREA_MIN(name->count, 100);
  e->text = name->text;
  e->n = name->count;
  MAREA_TRY(marea_take_number(&l->c, 4, &rank));
  if (rank > MAREA_MAX_RANK)
    return BAD(l, "tensor '%.*s' has %llu dimensions; at most %d are possible", n, name->text,
               (unsigned long long)rank, MAREA_MAX_RANK);
  e->rank = (int)rank;
  for (int d = e->rank; d-- > 0;) {
    MAREA_TRY(marea_take_number(&l->c, 8, &size));
    if (size > INT64_MAX) return BAD(l, "damaged: a size of tensor '%.*s' is too large", n, name->text);
    e->shape[d] = (int64_t)size;
  }
  MAREA_TRY(marea_take_number(&l->c, 4, &type));
  e->type = (uint32_t)MAREA_MIN(type, UINT32_MAX);
  return marea_take_number(&l->c, 8, &e->place);
}

/* ---- types that are not read ---- */

static bool is_readable (uint32_t type) { return type < MAREA_COUNT(types) && types[type].how; }

typedef struct type_name {
  char s[20];
} type_name;

static type_name name_of (uint32_t type) {
  type_name n;
  if (type < MAREA_COUNT(types) && types[type].name[0]) snprintf(n.s, sizeof n.s, "%s", types[type].name);
  else snprintf(n.s, sizeof n.s, "type %u", type);
  return n;
}

static bool is_first (const loader *l, int i) {
  for (int k = 0; k < i; k++)
    if (l->entries[k].type == l->entries[i].type) return false;
  return true;
}

/* "Q4_K ('a', 'b'), Q6_K ('c')", cut where the room ends. */
static marea_status refuse_types (const loader *l) {
  char text[640] = "";
  size_t n = 0;
  for (int i = 0; i < l->count; i++) {
    const uint32_t type = l->entries[i].type;
    if (is_readable(type) || !is_first(l, i)) continue;
    n += (size_t)snprintf(text + n, sizeof text - n, "%s%s (", n ? ", " : "", name_of(type).s);
    for (int k = i, first = 1; k < l->count && n < sizeof text - 160; k++) {
      const marea_node *name = &l->t->nodes[l->entries[k].name];
      if (l->entries[k].type != type) continue;
      n += (size_t)snprintf(text + n, sizeof text - n, "%s'%.*s'", first ? "" : ", ",
                            (int)MAREA_MIN(name->count, 60), name->text);
      first = 0;
    }
    const bool full = n >= sizeof text - 160;
    n += (size_t)snprintf(text + n, sizeof text - n, full ? ", ...)" : ")");
    if (full) break;
  }
  return BAD(l, "block types that are not supported: %s", text);
}

/* ---- elements ---- */

/* One block of `how` as 32 numbers; the bytes that it took. */
static size_t decode_block (int how, const uint8_t *p, float *to) {
  uint16_t half;
  memcpy(&half, p, sizeof half);
  const float scale = (float)marea_load(MAREA_F16, &half, 0);
  p += 2;
  for (int i = 0; i < BLOCK; i++) {
    const int q = how == Q8_0 ? (int8_t)p[i] : (p[i % 16] >> (i < 16 ? 0 : 4) & 15) - 8;
    to[i] = (float)q * scale;
  }
  return how == Q8_0 ? 34 : 18;
}

static marea_status decode (const loader *l, int how, const uint8_t *p, marea_tensor *t) {
  float *to = marea_tensor_data(t);
  const int64_t n = marea_tensor_size(t);
  for (int64_t i = 0; i < n; i += BLOCK) {
    if (i % MAREA_BLOCK == 0) MAREA_TRY(marea_poll(l->ctx));
    p += decode_block(how, p, to + i);
  }
  return MAREA_OK;
}

static marea_status read_tensor (loader *l, const entry *e, const uint8_t *data, marea_tensor **out) {
  const marea_node *name = &l->t->nodes[e->name];
  const int n = (int)MAREA_MIN(name->count, 100), how = types[e->type].how;
  const marea_code code = (marea_code)types[e->type].code;
  const size_t there = (size_t)(l->c.end - data);
  size_t bytes, stored;
  uint8_t *raw;
  MAREA_TRY(marea_raw_bytes(l->ctx, l->label.s, code, e->rank, e->shape, &bytes));
  if (how != PLAIN && (e->rank == 0 || e->shape[e->rank - 1] % BLOCK))
    return BAD(l, "damaged: tensor '%.*s': rows of %s are of blocks of %d elements", n, name->text,
               types[e->type].name, BLOCK);
  stored = how == PLAIN ? bytes : bytes / (BLOCK * sizeof(float)) * (how == Q8_0 ? 34 : 18);
  if (e->place > there || stored > there - (size_t)e->place)
    return BAD(l, "truncated: tensor '%.*s' has %zu bytes at byte %llu of the data, file has %zu", n,
               name->text, stored, (unsigned long long)e->place, there);
  MAREA_TRY(marea_view_take_room(l->ctx, l->label.s, bytes, &l->left));
  MAREA_TRY(marea_raw_new(l->ctx, l->label.s, code, e->rank, e->shape, out, &raw));
  marea_status status = how == PLAIN ? marea_move(l->ctx, raw, data + e->place, stored)
                                     : decode(l, how, data + e->place, *out);
  if (status == MAREA_OK && how == PLAIN) status = marea_raw_decode(*out, code, false);
  if (status == MAREA_OK) return MAREA_OK;
  marea_release(*out);
  *out = NULL;
  return status;
}

static marea_status put_tensor (loader *l, const entry *e, const uint8_t *data) {
  int node;
  MAREA_TRY(make(l, (marea_node){.kind = MAREA_TREE_TENSOR}, &node));
  MAREA_TRY(read_tensor(l, e, data, &l->t->nodes[node].tensor));
  return marea_tree_add(l->t, l->label.s, l->tensors, e->name, node);
}

/* ---- the file ---- */

static int by_name (const void *a, const void *b) {
  const entry *x = a, *y = b;
  const int order = memcmp(x->text, y->text, MAREA_MIN(x->n, y->n));
  return order ? order : (x->n > y->n) - (x->n < y->n);
}

static marea_status check_names (const loader *l) {
  if (l->count) qsort(l->entries, (size_t)l->count, sizeof *l->entries, by_name);
  for (int i = 1; i < l->count; i++)
    if (by_name(&l->entries[i - 1], &l->entries[i]) == 0)
      return BAD(l, "damaged: tensor '%.*s' is there twice", (int)MAREA_MIN(l->entries[i].n, 100),
                 l->entries[i].text);
  return MAREA_OK;
}

static marea_status read_entries (loader *l, const uint8_t *bytes) {
  bool readable = true;
  for (int i = 0; i < l->count; i++) {
    MAREA_TRY(take_entry(l, &l->entries[i]));
    readable &= is_readable(l->entries[i].type);
  }
  MAREA_TRY(check_names(l));
  if (!readable) return refuse_types(l);
  const size_t at = (size_t)(l->c.at - bytes), gap = (size_t)(-(uint64_t)at % l->alignment);
  const uint8_t *data = l->c.at + MAREA_MIN(gap, (size_t)(l->c.end - l->c.at));
  for (int i = 0; i < l->count; i++) MAREA_TRY(put_tensor(l, &l->entries[i], data));
  return MAREA_OK;
}

/* The version, and the numbers of tensors and pairs. */
static marea_status read_head (loader *l, uint64_t *pairs) {
  const uint8_t *magic;
  uint64_t version, count;
  if (l->c.end - l->c.at < 4 || memcmp(l->c.at, "GGUF", 4) != 0) return BAD(l, "not a GGUF file");
  MAREA_TRY(marea_take(&l->c, 4, &magic));
  MAREA_TRY(marea_take_number(&l->c, 4, &version));
  if (version && version % 0x10000 == 0) return BAD(l, "big-endian, which is not supported");
  if (version != 2 && version != 3)
    return BAD(l, "version %llu of GGUF; 2 and 3 are supported", (unsigned long long)version);
  MAREA_TRY(marea_take_number(&l->c, 8, &count));
  if (count > MAREA_MAX_TENSORS) return BAD(l, "more than %d tensors", MAREA_MAX_TENSORS);
  l->count = (int)count;
  return marea_take_number(&l->c, 8, pairs);
}

static marea_status read_tree (loader *l, const uint8_t *bytes) {
  uint64_t pairs;
  MAREA_TRY(read_head(l, &pairs));
  MAREA_TRY(make(l, (marea_node){.kind = MAREA_TREE_LIST}, &l->t->root));
  MAREA_TRY(make(l, (marea_node){.kind = MAREA_TREE_DICT}, &l->tensors));
  MAREA_TRY(make(l, (marea_node){.kind = MAREA_TREE_DICT}, &l->pairs));
  for (uint64_t i = 0; i < pairs; i++) {
    if (i % 1024 == 0) MAREA_TRY(marea_poll(l->ctx));
    MAREA_TRY(take_pair(l));
  }
  l->entries = marea_alloc(l->ctx, sizeof *l->entries * (size_t)l->count);
  if (!l->entries) return marea_no_names(l->ctx, l->label.s);
  const marea_status status = read_entries(l, bytes);
  marea_free(l->ctx, l->entries);
  MAREA_TRY(status);
  MAREA_TRY(marea_tree_add(l->t, l->label.s, l->t->root, 0, l->tensors));
  MAREA_TRY(marea_tree_add(l->t, l->label.s, l->t->root, 0, l->pairs));
  return marea_tree_keep_texts(l->t, l->label.s);
}

marea_status marea_parse_gguf (marea_context *ctx, const char *path, const uint8_t *bytes, size_t n,
                               marea_tree **out) {
  loader l = {
      .ctx = ctx, .label = marea_file_label("load_gguf", path), .left = marea_view_room(n), .alignment = 32};
  *out = NULL;
  l.c = (marea_cursor){ctx, l.label.s, bytes, bytes + n};
  MAREA_TRY(marea_tree_new(ctx, l.label.s, &l.t));
  const marea_status status = read_tree(&l, bytes);
  if (status == MAREA_OK) *out = l.t;
  else marea_tree_free(l.t);
  return status;
}

marea_status marea_load_gguf (marea_context *ctx, const char *path, marea_tree **out) {
  return marea_load_tree(ctx, "load_gguf", path, marea_parse_gguf, out);
}
