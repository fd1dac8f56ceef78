/* SPDX-License-Identifier: MIT
** save.c: a trace of a run becomes a file of ONNX.
*/
#include <stdarg.h>
#include <stdio.h>

#include "../io/io.h"
#include "model.h"
#include "save.h"

#define OLDEST 17
#define NEWEST 21
#define MOST_BYTES ((size_t)INT32_MAX) /* protobuf's own limit */

static const struct {
  const char *name;
  onnx_writer *write;
} writers[] = {
#define OUT(name) {#name, marea_onnx_save_##name},
#include "SAVE_LIST.h"
#undef OUT
};

static onnx_writer *find_writer (const char *name) {
  for (int i = 0; i < MAREA_COUNT(writers); i++)
    if (strcmp(writers[i].name, name) == 0) return writers[i].write;
  return NULL;
}

void marea_onnx_save_reject (onnx_saver *s, const char *format, ...) {
  char text[400];
  va_list args;
  if (!saves(s)) return;
  va_start(args, format);
  marea_vformat(text, sizeof text, format, args);
  va_end(args);
  s->status = marea_fail(s->ctx, MAREA_EFORMAT, "onnx.save: %s: %s", s->c ? s->c->op->name : "results", text);
}

/* ---- the calls that the results need ---- */

static void mark (const marea_program *p, bool *needed) {
  for (int i = 0; i < p->n_outputs; i++) needed[p->outputs[i]] = true;
  for (int i = p->n_calls - 1; i >= 0; i--) {
    const marea_program_call *c = &p->calls[i];
    bool any = false;
    for (int k = 0; k < c->n_out; k++) any |= needed[c->slot[c->n_in + k]];
    for (int k = 0; k < c->n_in && any; k++)
      if (c->slot[k] >= 0) needed[c->slot[k]] = true;
  }
}

static bool is_needed (const marea_program_call *c, const bool *needed) {
  for (int k = 0; k < c->n_out; k++)
    if (needed[c->slot[c->n_in + k]]) return true;
  return false;
}

/* What the host reads of an input and works out by itself is fixed in the file, which then asks for an input in vain. */
static void check_inputs (onnx_saver *s, const bool *needed) {
  for (int i = 0; i < s->p->n_inputs && saves(s); i++)
    if (!needed[s->p->inputs[i]])
      s->status = marea_fail(
          s->ctx, MAREA_EFORMAT,
          "onnx.save: no result depends on input '%.80s' by operators; what follows from its "
          "elements in other ways is fixed: leave it out, or give what it is made into",
          s->names->inputs[i]);
}

/* All operators that are missing, each once. */
static void check_operators (onnx_saver *s, const bool *needed) {
  char text[500] = "";
  size_t used = 0;
  for (int i = 0; i < s->p->n_calls; i++) {
    const marea_op *op = s->p->calls[i].op;
    bool told = find_writer(op->name) || !is_needed(&s->p->calls[i], needed);
    for (int k = 0; k < i && !told; k++) told = s->p->calls[k].op == op && is_needed(&s->p->calls[k], needed);
    if (told || used > sizeof text - 60) continue;
    used += (size_t)marea_format(text + used, sizeof text - used, "%s%s", used ? ", " : "", op->name);
  }
  if (used)
    s->status = marea_fail(s->ctx, MAREA_EFORMAT, "onnx.save: operators that ONNX has no way to say: %s",
                           text);
}

/* A constant that the two runs made must be one. */
static void check_constant (onnx_saver *s, marea_tensor *t, marea_tensor *other) {
  marea_tensor *own[] = {t, other}, *dense[2] = {NULL, NULL};
  if (other && t->storage == other->storage) return;
  bool same = other && t->dtype == other->dtype && marea_has_shape(t, other->rank, other->shape);
  for (int i = 0; i < 2 && same && saves(s); i++)
    s->status = marea_run(s->ctx, &marea_op_contiguous, &dense[i], 1, own[i]);
  if (same && saves(s)) {
    const size_t bytes = (size_t)marea_tensor_size(t) * marea_element_size(t->dtype);
    same = bytes == 0 || memcmp(marea_at(dense[0]), marea_at(dense[1]), bytes) == 0;
  }
  for (int i = 0; i < 2; i++) marea_release(dense[i]);
  if (saves(s) && !same)
    s->status = marea_fail(s->ctx, MAREA_EFORMAT,
                           "onnx.save: the network makes a constant that follows a free size, %s",
                           marea_tensor_text(t).s);
}

/* Attributes that follow a free size: the writers of these operators see to it, others would write one of the two. */
static void check_attributes (onnx_saver *s, int i) {
  static const char *const flexible[] = {"reshape", "expand", "narrow", "slice", "select"};
  const marea_program_call *c = &s->p->calls[i];
  for (int k = 0; k < MAREA_COUNT(flexible); k++)
    if (strcmp(c->op->name, flexible[k]) == 0) return;
  bool same = true;
  for (int k = marea_op_attrs(c->op, NULL) - 1; k >= 0; k--) {
    const marea_attr *a = &c->attr[k], *b = &s->other->calls[i].attr[k];
    same = same && a->n == b->n && memcmp(a->v, b->v, sizeof a->v[0] * (size_t)MAREA_MAX(a->n, 1)) == 0;
  }
  if (!same)
    s->status = marea_fail(s->ctx, MAREA_EFORMAT, "onnx.save: %s: an argument follows a free size",
                           c->op->name);
}

/* Is the other trace one of the same calls? */
static void check_other (onnx_saver *s) {
  const marea_program *a = s->p, *b = s->other;
  if (!b) return;
  bool same = a->n_calls == b->n_calls && a->n_slots == b->n_slots && a->n_outputs == b->n_outputs;
  for (int i = 0; same && i < a->n_calls; i++) {
    const marea_program_call *c = &a->calls[i], *o = &b->calls[i];
    same = c->op == o->op && c->n_in == o->n_in && c->n_out == o->n_out &&
           memcmp(c->slot, o->slot, (size_t)(c->n_in + c->n_out) * sizeof c->slot[0]) == 0;
  }
  for (int i = 0; same && i < a->n_slots; i++) same = a->layouts[i].rank == b->layouts[i].rank;
  if (!same)
    s->status = marea_fail(
        s->ctx, MAREA_EFORMAT,
        "onnx.save: the network calls other operators when the free sizes of its inputs change");
  for (int i = 0; saves(s) && i < a->n_slots; i++)
    if (a->slots[i]) check_constant(s, a->slots[i], b->slots[i]);
  for (int i = 0; saves(s) && i < a->n_calls; i++) check_attributes(s, i);
}

/* ---- inputs and results ---- */

/* A free size has the name of the input's dimension that it is. */
static const char *name_of_size (onnx_saver *s, int slot, int d) {
  const int64_t size = s->p->layouts[slot].shape[d], other = marea_onnx_other(s, slot)->shape[d];
  for (int i = 0; i < s->p->n_inputs; i++) {
    const int in = s->p->inputs[i];
    const marea_layout *l = &s->p->layouts[in], *o = marea_onnx_other(s, in);
    for (int k = 0; k < l->rank; k++)
      if (l->shape[k] == size && o->shape[k] == other)
        return marea_onnx_text_of(s, "%s_size_%d", s->names->inputs[i], k + 1);
  }
  return marea_onnx_text_of(s, "size_%d_%d", slot, d + 1);
}

static Marea__ValueInfoProto *describe (onnx_saver *s, const char *name, int slot) {
  const marea_layout *l = &s->p->layouts[slot];
  Marea__ValueInfoProto *v = marea_onnx_memory(s, sizeof *v);
  Marea__TypeProto *type = marea_onnx_memory(s, sizeof *type);
  Marea__TypeProto__Tensor *tensor = marea_onnx_memory(s, sizeof *tensor);
  Marea__TensorShapeProto *shape = marea_onnx_memory(s, sizeof *shape);
  Marea__TensorShapeProto__Dimension *dims = marea_onnx_memory(s, MAREA_MAX_RANK * sizeof dims[0]);
  Marea__TensorShapeProto__Dimension **list = marea_onnx_memory(s, MAREA_MAX_RANK * sizeof list[0]);
  if (!saves(s)) return NULL;
  marea__value_info_proto__init(v);
  marea__type_proto__init(type);
  marea__type_proto__tensor__init(tensor);
  marea__tensor_shape_proto__init(shape);
  v->name = (char *)name;
  v->type = type;
  type->tensor_type = tensor;
  tensor->elem_type = marea_onnx_type_of(l->dtype);
  tensor->shape = shape;
  shape->n_dim = (size_t)l->rank;
  shape->dim = list;
  for (int d = 0; d < l->rank; d++) {
    marea__tensor_shape_proto__dimension__init(list[d] = &dims[d]);
    if (marea_onnx_is_free(s, slot, d)) {
      dims[d].value_case = MAREA__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
      dims[d].dim_param = (char *)name_of_size(s, slot, d);
    } else {
      dims[d].value_case = MAREA__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
      dims[d].dim_value = l->shape[d];
    }
  }
  return v;
}

static bool is_made (const onnx_saver *s, const char *name) {
  for (size_t i = 0; i < s->nodes.n; i++) {
    const Marea__NodeProto *node = s->nodes.items[i];
    for (size_t k = 0; k < node->n_output; k++)
      if (node->output[k] == name) return true;
  }
  return false;
}

/* Names are shared, so those that are the same have one address. */
static void rename_value (onnx_saver *s, const char *from, const char *to) {
  for (size_t i = 0; i < s->nodes.n; i++) {
    Marea__NodeProto *node = s->nodes.items[i];
    for (size_t k = 0; k < node->n_input; k++)
      if (node->input[k] == from) node->input[k] = (char *)to;
    for (size_t k = 0; k < node->n_output; k++)
      if (node->output[k] == from) node->output[k] = (char *)to;
  }
}

static bool is_result (const onnx_saver *s, const char *name) {
  for (int i = 0; i < s->p->n_outputs; i++)
    if (s->names->results[i] == name) return true;
  return false;
}

/* The value of a result gets the result's name. */
static void name_result (onnx_saver *s, int i) {
  const int slot = s->p->outputs[i];
  const marea_layout *l = &s->p->layouts[slot];
  const char *wanted = s->names->results[i];
  const char *x = marea_onnx_form(s, slot, false, marea_onnx_type_of(l->dtype), l->rank);
  if (!saves(s)) return;
  if (is_made(s, x) && !is_result(s, x)) {
    rename_value(s, x, wanted);
    for (onnx_form *f = s->forms[slot]; f; f = f->next)
      if (f->name == x) f->name = wanted;
    return;
  }
  NODE(s, "Identity", x);
  if (saves(s)) s->node->output[0] = (char *)wanted;
}

static void write_calls (onnx_saver *s, const bool *needed) {
  for (int i = 0; i < s->p->n_calls && saves(s); i++) {
    s->c = &s->p->calls[i];
    if (is_needed(s->c, needed)) find_writer(s->c->op->name)(s);
  }
  s->c = NULL;
}

/* ---- the model ---- */

typedef struct sink {
  ProtobufCBuffer base;
  marea_writer *writer;
  marea_status status;
} sink;

static void append (ProtobufCBuffer *buffer, size_t n, const uint8_t *bytes) {
  sink *to = (sink *)buffer;
  if (to->status == MAREA_OK) to->status = marea_write(to->writer, bytes, n);
}

static marea_status write_file (onnx_saver *s, const Marea__ModelProto *model, const char *path) {
  marea_writer w;
  if (marea__model_proto__get_packed_size(model) > MOST_BYTES)
    return marea_fail(s->ctx, MAREA_EFORMAT,
                      "onnx.save: the file would have more than 2 GB, the most that ONNX's format allows");
  MAREA_TRY(marea_write_begin(s->ctx, "onnx.save", path, &w));
  sink to = {.base = {append}, .writer = &w};
  marea__model_proto__pack_to_buffer(model, &to.base);
  return marea_write_end(&w, to.status);
}

static marea_status write_model (onnx_saver *s, Marea__GraphProto *graph, const char *path) {
  Marea__ModelProto model = MAREA__MODEL_PROTO__INIT;
  Marea__OperatorSetIdProto set = MAREA__OPERATOR_SET_ID_PROTO__INIT, *sets[] = {&set};
  set.version = s->opset;
  model.ir_version = s->opset <= 18 ? 8 : s->opset <= 20 ? 9 : 10;
  model.producer_name = (char *)"Marea";
  model.producer_version = (char *)marea_version();
  model.graph = graph;
  model.n_opset_import = 1;
  model.opset_import = sets;
  return write_file(s, &model, path);
}

static void add_ports (onnx_saver *s, int n, const int *slots, const char *const *names, onnx_list *to) {
  for (int i = 0; i < n; i++) marea_onnx_append(s, to, describe(s, names[i], slots[i]));
}

static marea_status save (onnx_saver *s, const char *path) {
  const marea_program *p = s->p;
  Marea__GraphProto graph = MAREA__GRAPH_PROTO__INIT;
  onnx_list inputs = {0}, results = {0};
  s->forms = marea_onnx_memory(s, (size_t)MAREA_MAX(p->n_slots, 1) * sizeof s->forms[0]);
  bool *needed = marea_onnx_memory(s, (size_t)MAREA_MAX(p->n_slots, 1));
  if (!saves(s)) return s->status;
  mark(p, needed);
  check_operators(s, needed);
  if (saves(s)) check_inputs(s, needed);
  if (saves(s)) check_other(s);
  for (int i = 0; i < p->n_inputs && saves(s); i++) {
    const marea_layout *l = &p->layouts[p->inputs[i]];
    onnx_form *f = s->forms[p->inputs[i]] = marea_onnx_memory(s, sizeof *f);
    if (f) *f = (onnx_form){s->names->inputs[i], marea_onnx_type_of(l->dtype), l->rank, false, NULL};
  }
  write_calls(s, needed);
  for (int i = 0; i < p->n_outputs; i++) name_result(s, i);
  add_ports(s, p->n_inputs, p->inputs, s->names->inputs, &inputs);
  add_ports(s, p->n_outputs, p->outputs, s->names->results, &results);
  MAREA_TRY(s->status);
  graph.name = (char *)"network";
  graph.n_node = s->nodes.n, graph.node = (Marea__NodeProto **)s->nodes.items;
  graph.n_initializer = s->weights.n, graph.initializer = (Marea__TensorProto **)s->weights.items;
  graph.n_input = inputs.n, graph.input = (Marea__ValueInfoProto **)inputs.items;
  graph.n_output = results.n, graph.output = (Marea__ValueInfoProto **)results.items;
  return write_model(s, &graph, path);
}

/* ---- names ---- */

static marea_status check_name (marea_context *ctx, const char *const *names, int i, const char *what) {
  if (!names || !names[i]) return marea_fail(ctx, MAREA_EARG, "onnx.save: %s %d has no name", what, i + 1);
  if (names[i][0] && names[i][0] != '/') return MAREA_OK;
  return marea_fail(ctx, MAREA_EARG,
                    "onnx.save: '%.80s' cannot be the name of a %s: it is empty, or begins with '/'",
                    names[i], what);
}

static marea_status check_distinct (marea_context *ctx, const marea_trace *r, const marea_onnx_names *names) {
  const int n = r->program->n_inputs, all = n + r->program->n_outputs;
  for (int i = 0; i < all; i++) {
    const char *a = i < n ? names->inputs[i] : names->results[i - n];
    for (int k = 0; k < i + names->n_weights; k++) {
      const char *b = k >= i ? names->weights[k - i] : k < n ? names->inputs[k] : names->results[k - n];
      if (strcmp(a, b) == 0)
        return marea_fail(ctx, MAREA_EARG,
                          "onnx.save: '%.80s' is the name of two of inputs, results and weights", a);
    }
  }
  return MAREA_OK;
}

static marea_status check_names (const marea_trace *r, const marea_onnx_names *names) {
  marea_context *ctx = r->ctx;
  const int opset = names->opset;
  if (opset != 0 && (opset < OLDEST || opset > NEWEST))
    return marea_fail(ctx, MAREA_EARG, "onnx.save: operator sets %d to %d can be written, got %d", OLDEST,
                      NEWEST, opset);
  for (int i = 0; i < r->program->n_inputs; i++) MAREA_TRY(check_name(ctx, names->inputs, i, "input"));
  for (int i = 0; i < r->program->n_outputs; i++) MAREA_TRY(check_name(ctx, names->results, i, "result"));
  for (int i = 0; i < names->n_weights; i++) {
    MAREA_TRY(check_name(ctx, names->weights, i, "weight"));
    MAREA_TRY(marea_want_values(names->tensors ? names->tensors[i] : NULL, "onnx.save", names->weights[i]));
  }
  return check_distinct(ctx, r, names);
}

static void free_all (onnx_saver *s) {
  for (size_t i = 0; i < s->held.n; i++) marea_release(s->held.items[i]);
  while (s->chunks) {
    void *chunk = s->chunks;
    s->chunks = *(void **)chunk; /* its first member is the next one */
    marea_free(s->ctx, chunk);
  }
}

marea_status marea_onnx_save (const marea_trace *r, const marea_onnx_names *names, const char *path) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "onnx.save", r);
  marea_context *ctx = r->ctx;
  MAREA_WANT_OR_RETURN(ctx, "onnx.save", names);
  MAREA_WANT_OR_RETURN(ctx, "onnx.save", path);
  MAREA_TRY(check_names(r, names));
  onnx_saver s = {.ctx = ctx,
                  .p = r->program,
                  .other = names->other ? names->other->program : NULL,
                  .names = names,
                  .opset = names->opset ? names->opset : OLDEST};
  const bool recording = marea_set_recording(ctx, false);
  const marea_status status = save(&s, path);
  free_all(&s);
  marea_set_recording(ctx, recording);
  return status;
}
