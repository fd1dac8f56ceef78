/* SPDX-License-Identifier: MIT
** json.c: JSON (RFC 8259), read by jansson. Others than the headers of safetensors are given to hosts value after value
** in the order of the text (marea_json_next), so that hosts need no recursion and no structure of jansson's.
*/
#include "json.h"

#include <string.h>

#define DEEPEST 100 /* lists and objects in each other */

#define BAD(s, format, ...) \
  marea_fail((s)->ctx, MAREA_EFORMAT, "%s: " format, (s)->label __VA_OPT__(, ) __VA_ARGS__)

marea_status marea_json_measure (const marea_json_source *s, marea_json_rule *rule, void *ud, size_t *room) {
  enum {
    CONTAINER = 256,
    ITEM = 128
  }; /* bytes: an empty list or object; a scalar, or a name and its place */
  int depth = 0;
  bool quoted = false;
  *room = 3 * s->n + 4096; /* texts while they grow, and as values; the parser */
  for (size_t i = 0; i < s->n; i++) {
    uint8_t c = s->bytes[i];
    if (i % MAREA_PIECE == 0) MAREA_TRY(marea_poll(s->ctx));
    if (quoted && c == '\\') i++;
    else if (c == '"') quoted = !quoted;
    if (quoted) continue;
    if (c == '{' || c == '[') depth++, *room += CONTAINER;
    if (c == '{' || c == '[' || c == ',' || c == ':') *room += ITEM;
    if (c == '{' || c == '[' || c == ',') MAREA_TRY(rule(ud, c, depth));
    if ((c == '}' || c == ']') && depth-- == 0) return BAD(s, "unbalanced brackets");
  }
  return MAREA_OK;
}

typedef struct feed { /* of a text's bytes to jansson */
  const marea_json_source *s;
  size_t at;
  marea_status status;
} feed;

static size_t feed_piece (void *to, size_t room, void *ud) {
  feed *f = ud;
  const size_t n = MAREA_MIN(room, f->s->n - f->at);
  f->status = marea_poll(f->s->ctx);
  if (f->status != MAREA_OK) return (size_t)-1;
  memcpy(to, f->s->bytes + f->at, n);
  f->at += n;
  return n;
}

marea_status marea_json_parse (const marea_json_source *s, size_t flags, json_t **root) {
  json_error_t e;
  feed f = {.s = s};
  *root = json_load_callback(feed_piece, &f, flags | JSON_REJECT_DUPLICATES, &e);
  if (f.status != MAREA_OK) {
    json_decref(*root);
    *root = NULL;
    return f.status;
  }
  if (*root) return MAREA_OK;
  switch (json_error_code(&e)) {
  case json_error_out_of_memory: return marea_out_of_memory(s->ctx, s->label, s->n, "the values");
  case json_error_duplicate_key:
    return BAD(s, "a name occurs twice, before byte %d (line %d, column %d)", e.position, e.line, e.column);
  case json_error_numeric_overflow:
    return BAD(s,
               "an integer of more than 64 bits, or a number too large, before byte %d (line %d, column %d)",
               e.position, e.line, e.column);
  default:
    return BAD(s, "not JSON at byte %d: %s (line %d, column %d)", e.position, e.text, e.line, e.column);
  }
}

/* ---- values one after another ---- */

typedef struct level { /* an object or list that is open */
  json_t *value;
  void *pair;   /* of an object: the next one */
  size_t index; /* of a list: the next item */
} level;

struct marea_json {
  marea_context *ctx;
  void *reserved; /* jansson's memory, for the limit */
  json_t *root;
  bool begun;
  int depth;
  level open[DEEPEST];
};

static marea_status check_depth (void *ud, uint8_t c, int depth) {
  const marea_json_source *s = ud;
  (void)c;
  return depth <= DEEPEST ? MAREA_OK : BAD(s, "more than %d lists and objects in each other", DEEPEST);
}

marea_status marea_json_read (marea_context *ctx, const char *text, size_t n, marea_json **out) {
  const marea_json_source s = {ctx, "json", (const uint8_t *)text, n};
  size_t room;
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(ctx, "json", out);
  *out = NULL;
  MAREA_WANT_OR_RETURN(NULL, "json", ctx);
  MAREA_WANT_OR_RETURN(ctx, "json", text);
  if (n > INT32_MAX) return BAD(&s, "a text of %zu bytes; at most %d are allowed", n, INT32_MAX);
  MAREA_TRY(marea_json_measure(&s, check_depth, (void *)&s, &room));
  marea_json *j = marea_alloc(ctx, sizeof *j);
  if (!j) return marea_out_of_memory(ctx, "json", sizeof *j, "the values");
  *j = (marea_json){.ctx = ctx, .reserved = marea_alloc(ctx, room)};
  marea_status status = j->reserved ? marea_json_parse(&s, JSON_DECODE_ANY | JSON_ALLOW_NUL, &j->root)
                                    : marea_out_of_memory(ctx, "json", room, "the values");
  if (status == MAREA_OK) *out = j;
  else marea_json_free(j);
  return status;
}

void marea_json_free (marea_json *j) {
  MAREA_ENTER;
  if (!j) return;
  json_decref(j->root);
  marea_free(j->ctx, j->reserved);
  marea_free(j->ctx, j);
}

/* The next value inside the innermost object or list, with its name; NULL: there is none. */
static json_t *next_inside (level *l, const char **name) {
  if (json_is_array(l->value)) return json_array_get(l->value, l->index++);
  if (!l->pair) return NULL;
  json_t *value = json_object_iter_value(l->pair);
  *name = json_object_iter_key(l->pair);
  l->pair = json_object_iter_next(l->value, l->pair);
  return value;
}

static void describe (json_t *value, marea_json_value *v) {
  switch (json_typeof(value)) {
  case JSON_NULL: v->kind = MAREA_JSON_NULL; break;
  case JSON_FALSE: v->kind = MAREA_JSON_FALSE; break;
  case JSON_TRUE: v->kind = MAREA_JSON_TRUE; break;
  case JSON_INTEGER: v->kind = MAREA_JSON_INTEGER, v->integer = json_integer_value(value); break;
  case JSON_REAL: v->kind = MAREA_JSON_NUMBER, v->number = json_real_value(value); break;
  case JSON_STRING:
    v->kind = MAREA_JSON_STRING, v->text = json_string_value(value), v->count = json_string_length(value);
    break;
  case JSON_ARRAY: v->kind = MAREA_JSON_LIST, v->count = json_array_size(value); break;
  case JSON_OBJECT: v->kind = MAREA_JSON_OBJECT, v->count = json_object_size(value); break;
  }
}

void marea_json_next (marea_json *j, marea_json_value *value) {
  if (!value) return;
  *value = (marea_json_value){.kind = MAREA_JSON_END};
  if (!j) return;
  json_t *next = j->root;
  if (j->depth) next = next_inside(&j->open[j->depth - 1], &value->name);
  else if (j->begun) return;
  j->begun = true;
  if (!next) {
    j->depth--;
    return;
  }
  describe(next, value);
  if (value->kind == MAREA_JSON_OBJECT || value->kind == MAREA_JSON_LIST)
    j->open[j->depth++] = (level){next, json_object_iter(next), 0};
}
