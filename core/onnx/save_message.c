/* SPDX-License-Identifier: MIT
** save_message.c: the messages of a file that is written. They lie in memory that is freed as a whole.
*/
#include <stdarg.h>
#include <stdio.h>

#include "save.h"

#define CHUNK ((size_t)1 << 16)

typedef struct onnx_chunk {
  struct onnx_chunk *next;
  size_t used, room;
  _Alignas(16) char at[];
} onnx_chunk;

void *marea_onnx_memory (onnx_saver *s, size_t bytes) {
  if (!saves(s)) return NULL;
  bytes = (bytes + 15) & ~(size_t)15;
  onnx_chunk *c = s->chunks;
  if (!c || c->room - c->used < bytes) {
    const size_t room = MAREA_MAX(bytes, CHUNK);
    c = marea_alloc(s->ctx, sizeof *c + room);
    if (!c) {
      s->status = marea_fail(s->ctx, MAREA_ENOMEM, "onnx.save: out of memory");
      return NULL;
    }
    *c = (onnx_chunk){.next = s->chunks, .room = room};
    s->chunks = c;
  }
  void *p = c->at + c->used;
  c->used += bytes;
  return memset(p, 0, bytes);
}

void marea_onnx_append (onnx_saver *s, onnx_list *list, void *item) {
  if (list->n == list->room) {
    const size_t room = list->room ? 2 * list->room : 32;
    void **items = marea_onnx_memory(s, room * sizeof items[0]);
    if (!items) return;
    if (list->n) memcpy(items, list->items, list->n * sizeof items[0]);
    *list = (onnx_list){items, list->n, room};
  }
  if (saves(s)) list->items[list->n++] = item;
}

char *marea_onnx_text_of (onnx_saver *s, const char *format, ...) {
  char text[MAREA_ERROR_SIZE];
  va_list args;
  va_start(args, format);
  const int n = marea_vformat(text, sizeof text, format, args);
  va_end(args);
  const size_t length = MAREA_MIN((size_t)MAREA_MAX(n, 0), sizeof text - 1);
  char *copy = marea_onnx_memory(s, length + 1);
  return copy ? memcpy(copy, text, length) : (char *)"";
}

/* ---- nodes ---- */

static char *new_name (onnx_saver *s) {
  return marea_onnx_text_of(s, "/%s_%d", s->c ? s->c->op->name : "constant", ++s->counter);
}

const char *marea_onnx_node (onnx_saver *s, const char *op, int n_in, const char *const *in) {
  Marea__NodeProto *node = marea_onnx_memory(s, sizeof *node);
  char **names = marea_onnx_memory(s, (size_t)(n_in + MAREA_MAX_OUT) * sizeof names[0]);
  if (!saves(s)) return "";
  marea__node_proto__init(node);
  while (n_in > 0 && !in[n_in - 1]) n_in--;
  for (int i = 0; i < n_in; i++) names[i] = (char *)(in[i] ? in[i] : "");
  node->op_type = (char *)op;
  node->n_input = (size_t)n_in;
  node->input = names;
  node->output = names + n_in;
  s->node = node;
  marea_onnx_append(s, &s->nodes, node);
  const char *result = marea_onnx_result(s);
  node->name = (char *)result;
  return result;
}

const char *marea_onnx_result (onnx_saver *s) {
  char *name = new_name(s);
  if (!saves(s)) return "";
  return s->node->output[s->node->n_output++] = name;
}

enum { FLOAT = 1, INT, STRING, TENSOR, FLOATS = 6, INTS, STRINGS };

static Marea__AttributeProto *new_attribute (onnx_saver *s, const char *name, int type) {
  Marea__AttributeProto *a = marea_onnx_memory(s, sizeof *a);
  Marea__AttributeProto **list = marea_onnx_memory(s, saves(s) ? (s->node->n_attribute + 1) * sizeof list[0]
                                                               : 1);
  if (!saves(s)) return NULL;
  marea__attribute_proto__init(a);
  a->name = (char *)name;
  a->type = type;
  if (s->node->n_attribute) memcpy(list, s->node->attribute, s->node->n_attribute * sizeof list[0]);
  list[s->node->n_attribute++] = a;
  s->node->attribute = list;
  return a;
}

void marea_onnx_put_int (onnx_saver *s, const char *name, int64_t v) {
  Marea__AttributeProto *a = new_attribute(s, name, INT);
  if (a) a->i = v;
}

void marea_onnx_put_float (onnx_saver *s, const char *name, double v) {
  Marea__AttributeProto *a = new_attribute(s, name, FLOAT);
  if (a) a->f = (float)v;
}

static ProtobufCBinaryData bytes_of (const char *text) {
  return (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)text};
}

void marea_onnx_put_text (onnx_saver *s, const char *name, const char *v) {
  Marea__AttributeProto *a = new_attribute(s, name, STRING);
  if (a) a->s = bytes_of(v);
}

void marea_onnx_put_ints (onnx_saver *s, const char *name, int n, const int64_t *v) {
  Marea__AttributeProto *a = new_attribute(s, name, INTS);
  int64_t *list = marea_onnx_memory(s, (size_t)n * sizeof v[0]);
  if (!saves(s)) return;
  a->n_ints = (size_t)n;
  a->ints = n ? memcpy(list, v, (size_t)n * sizeof v[0]) : list;
}

void marea_onnx_put_floats (onnx_saver *s, const char *name, int n, const double *v) {
  Marea__AttributeProto *a = new_attribute(s, name, FLOATS);
  float *list = marea_onnx_memory(s, (size_t)n * sizeof list[0]);
  if (!saves(s)) return;
  for (int i = 0; i < n; i++) list[i] = (float)v[i];
  a->n_floats = (size_t)n;
  a->floats = list;
}

void marea_onnx_put_texts (onnx_saver *s, const char *name, int n, const char *const *v) {
  Marea__AttributeProto *a = new_attribute(s, name, STRINGS);
  ProtobufCBinaryData *list = marea_onnx_memory(s, (size_t)n * sizeof list[0]);
  if (!saves(s)) return;
  for (int i = 0; i < n; i++) list[i] = bytes_of(v[i]);
  a->n_strings = (size_t)n;
  a->strings = list;
}

/* ---- tensors ---- */

static Marea__TensorProto *new_tensor (onnx_saver *s, int rank, const int64_t *shape, int type,
                                       const void *at, size_t bytes) {
  Marea__TensorProto *t = marea_onnx_memory(s, sizeof *t);
  int64_t *dims = marea_onnx_memory(s, (size_t)MAREA_MAX(rank, 1) * sizeof dims[0]);
  if (!saves(s)) return NULL;
  marea__tensor_proto__init(t);
  if (rank) memcpy(dims, shape, (size_t)rank * sizeof dims[0]);
  t->n_dims = (size_t)rank;
  t->dims = dims;
  t->data_type = type;
  t->raw_data = (ProtobufCBinaryData){.len = bytes, .data = (uint8_t *)at};
  return t;
}

static const char *constant_node (onnx_saver *s, Marea__TensorProto *t) {
  const char *name = marea_onnx_node(s, "Constant", 0, NULL);
  Marea__AttributeProto *a = new_attribute(s, "value", TENSOR);
  if (a) a->t = t;
  return name;
}

const char *marea_onnx_put_tensor (onnx_saver *s, const char *name, marea_tensor *t, int type) {
  marea_tensor *dense = NULL;
  if (!saves(s)) return "";
  s->status = marea_run(s->ctx, &marea_op_contiguous, &dense, 1, t);
  if (!saves(s)) return "";
  marea_onnx_append(s, &s->held, dense);
  if (!saves(s)) {
    marea_release(dense);
    return "";
  }
  const size_t bytes = (size_t)marea_tensor_size(dense) * marea_element_size(dense->dtype);
  Marea__TensorProto *message = new_tensor(s, dense->rank, dense->shape, type, marea_at(dense), bytes);
  if (!message) return "";
  if (!name) return constant_node(s, message);
  message->name = (char *)name;
  marea_onnx_append(s, &s->weights, message);
  return name;
}

const char *marea_onnx_number (onnx_saver *s, double v, int type) {
  char *at = marea_onnx_memory(s, sizeof v);
  if (!at) return "";
  const int dtype = marea_onnx_dtype(type);
  marea_store(dtype, at, 0, v);
  return constant_node(s, new_tensor(s, 0, NULL, type, at, marea_element_size(dtype)));
}

const char *marea_onnx_numbers (onnx_saver *s, int n, const int64_t *v) {
  const size_t bytes = (size_t)n * sizeof v[0];
  void *at = marea_onnx_memory(s, MAREA_MAX(bytes, 1));
  if (!at) return "";
  if (n) memcpy(at, v, bytes);
  return constant_node(s, new_tensor(s, 1, (int64_t[]){n}, ONNX_INT64, at, bytes));
}

const char *marea_onnx_floats (onnx_saver *s, int n, const double *v) {
  float *at = marea_onnx_memory(s, (size_t)n * sizeof at[0]);
  if (!at) return "";
  for (int i = 0; i < n; i++) at[i] = (float)v[i];
  return constant_node(s, new_tensor(s, 1, (int64_t[]){n}, ONNX_FLOAT, at, (size_t)n * sizeof at[0]));
}

const char *marea_onnx_doubles (onnx_saver *s, int n, const double *v) {
  double *at = marea_onnx_memory(s, (size_t)n * sizeof at[0]);
  if (!at) return "";
  memcpy(at, v, (size_t)n * sizeof at[0]);
  return constant_node(s, new_tensor(s, 1, (int64_t[]){n}, ONNX_DOUBLE, at, (size_t)n * sizeof at[0]));
}
