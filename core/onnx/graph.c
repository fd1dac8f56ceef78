/* SPDX-License-Identifier: MIT
** graph.c: goes over the nodes of a graph, in the order of the file, which is one in which every value is made before
** it is read. A value is dropped after the last node that reads it.
*/
#include <stdlib.h>

#include "model.h"

const Marea__NodeProto marea_onnx_whole = {.name = (char *)"", .op_type = (char *)"graph"};

static void *take (void *memory, size_t bytes) {
  onnx_memory *m = memory;
  void *p = marea_alloc(m->ctx, MAREA_MAX(bytes, 1));
  m->ran_out = m->ran_out || !p;
  return p;
}

static void give_back (void *memory, void *p) { marea_free(((onnx_memory *)memory)->ctx, p); }

ProtobufCAllocator marea_onnx_noting (onnx_memory *m) {
  return (ProtobufCAllocator){.alloc = take, .free = give_back, .allocator_data = m};
}

static void *zeroed (marea_context *ctx, size_t bytes) {
  void *p = marea_alloc(ctx, MAREA_MAX(bytes, 1));
  if (p) memset(p, 0, MAREA_MAX(bytes, 1));
  return p;
}

/* ---- names ---- */

int marea_onnx_by_name (const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Place of a name; -1: not of this graph. */
static int place_of (const onnx_graph *g, const char *name) {
  const char **at = g->n_names
                        ? bsearch(&name, g->names, (size_t)g->n_names, sizeof g->names[0], marea_onnx_by_name)
                        : NULL;
  return at ? (int)(at - g->names) : -1;
}

static int count_names (const Marea__GraphProto *p) {
  size_t n = p->n_initializer + p->n_input;
  for (size_t i = 0; i < p->n_node; i++) n += p->node[i]->n_output;
  return (int)n;
}

static void list_names (onnx_graph *g) {
  const Marea__GraphProto *p = g->proto;
  int n = 0, kept = 0;
  for (size_t i = 0; i < p->n_initializer; i++) g->names[n++] = p->initializer[i]->name;
  for (size_t i = 0; i < p->n_input; i++) g->names[n++] = p->input[i]->name;
  for (size_t i = 0; i < p->n_node; i++)
    for (size_t k = 0; k < p->node[i]->n_output; k++) g->names[n++] = p->node[i]->output[k];
  qsort(g->names, (size_t)n, sizeof g->names[0], marea_onnx_by_name);
  for (int i = 0; i < n; i++)
    if (kept == 0 || strcmp(g->names[i], g->names[kept - 1]) != 0) g->names[kept++] = g->names[i];
  g->n_names = kept;
}

/* What a body reads of the graph around it is not known before it is opened, so that such values live as long as the
   graph: `last` tells of values that no body can read. */
static bool has_bodies (const Marea__GraphProto *p) {
  for (size_t i = 0; i < p->n_node; i++)
    for (size_t k = 0; k < p->node[i]->n_attribute; k++)
      if (p->node[i]->attribute[k]->g.len) return true;
  return false;
}

static void find_last (onnx_graph *g) {
  const Marea__GraphProto *p = g->proto;
  const int never = (int)p->n_node, all = has_bodies(p) ? never : -1;
  for (int i = 0; i < g->n_names; i++) g->last[i] = all;
  for (size_t i = 0; i < p->n_node && all < 0; i++)
    for (size_t k = 0; k < p->node[i]->n_input; k++) {
      const int place = place_of(g, p->node[i]->input[k]);
      if (place >= 0) g->last[place] = (int)i;
    }
  for (size_t i = 0; i < p->n_output; i++) {
    const int place = place_of(g, p->output[i]->name);
    if (place >= 0) g->last[place] = never;
  }
}

/* ---- opening ---- */

static marea_status read_weights (marea_graph *m, onnx_graph *g) {
  for (size_t i = 0; i < g->proto->n_initializer; i++)
    MAREA_TRY(marea_onnx_read_tensor(m->ctx, m->folder, g->proto->initializer[i], &g->weights[i]));
  return MAREA_OK;
}

/* Elements are in the tensors now. */
static void drop_elements (marea_context *ctx, Marea__GraphProto *p) {
  for (size_t i = 0; i < p->n_initializer; i++) {
    marea_free(ctx, p->initializer[i]->raw_data.len ? p->initializer[i]->raw_data.data : NULL);
    p->initializer[i]->raw_data = (ProtobufCBinaryData){0};
  }
}

/* A graph with its names, and without its weights. */
static marea_status new_graph (marea_context *ctx, Marea__GraphProto *proto, const void *from,
                               onnx_graph **out) {
  onnx_graph *g = zeroed(ctx, sizeof *g);
  *out = g;
  if (!g) return marea_onnx_out_of_memory(ctx);
  const size_t names = (size_t)count_names(proto);
  g->proto = proto;
  g->opened = from;
  g->names = zeroed(ctx, names * sizeof g->names[0]);
  g->last = zeroed(ctx, names * sizeof g->last[0]);
  g->weights = zeroed(ctx, proto->n_initializer * sizeof(g->weights[0]));
  if (!g->names || !g->last || !g->weights) return marea_onnx_out_of_memory(ctx);
  list_names(g);
  find_last(g);
  return MAREA_OK;
}

marea_status marea_onnx_open_graph (marea_graph *m, Marea__GraphProto *proto, const void *from,
                                    onnx_graph **out) {
  MAREA_TRY(new_graph(m->ctx, proto, from, out));
  MAREA_TRY(read_weights(m, *out));
  drop_elements(m->ctx, proto);
  return MAREA_OK;
}

marea_status marea_onnx_copy_graph (marea_graph *m, const onnx_graph *of, onnx_graph **out) {
  MAREA_TRY(new_graph(m->ctx, of->proto, NULL, out));
  const bool recording = marea_set_recording(m->ctx, false);
  marea_status status = MAREA_OK;
  for (size_t i = 0; i < of->proto->n_initializer && status == MAREA_OK; i++)
    status = marea_run(m->ctx, &marea_op_clone, &(*out)->weights[i], 1, of->weights[i]);
  marea_set_recording(m->ctx, recording);
  return status;
}

/* Without the proto, which belongs to whoever has unpacked it. */
void marea_onnx_close_graph (marea_graph *m, onnx_graph *g) {
  if (!g) return;
  for (size_t i = 0; g->weights && i < g->proto->n_initializer; i++) marea_release(g->weights[i]);
  marea_free(m->ctx, g->weights);
  marea_free(m->ctx, g->names);
  marea_free(m->ctx, g->last);
  marea_free(m->ctx, g);
}

/* ---- walking ---- */

static onnx_value *look_up (const onnx_scope *scope, const char *name) {
  for (; scope; scope = scope->outer) {
    const int place = place_of(scope->graph, name);
    if (place >= 0 && scope->values[place]) return scope->values[place];
  }
  return NULL;
}

static void set_value (onnx_node *n, onnx_scope *s, int place, onnx_value *v) {
  marea_onnx_value_release(n->e, s->values[place]);
  s->values[place] = marea_onnx_value_retain(v);
}

static void begin_weights (onnx_node *n, onnx_scope *s) {
  for (size_t i = 0; i < s->graph->proto->n_initializer && goes_on(n); i++) {
    const Marea__TensorProto *t = s->graph->proto->initializer[i];
    onnx_value *v = marea_onnx_value_new(n, marea_onnx_known(n, marea_retain(s->graph->weights[i])),
                                         t->data_type);
    set_value(n, s, place_of(s->graph, t->name), v);
    marea_onnx_value_release(n->e, v);
  }
}

static bool find_inputs (onnx_node *n) {
  for (int i = 0; i < n->n_in; i++) {
    const char *name = n->proto->input[i];
    n->in[i] = name[0] ? look_up(n->scope, name) : NULL;
    if (name[0] && !n->in[i]) marea_onnx_reject(n, "there is no value '%.80s'", name);
  }
  return goes_on(n);
}

static void keep_outputs (onnx_node *n, int index) {
  onnx_scope *s = n->scope;
  for (int k = 0; k < n->n_out; k++) {
    const char *name = n->proto->output[k];
    const int place = name[0] ? place_of(s->graph, name) : -1;
    if (name[0] && !n->out[k]) marea_onnx_reject(n, "output %d is not supported", k + 1);
    if (place >= 0 && s->graph->last[place] > index) set_value(n, s, place, n->out[k]);
    marea_onnx_value_release(n->e, n->out[k]);
  }
}

static void drop_inputs (onnx_node *n, int index) {
  const onnx_scope *s = n->scope;
  for (int i = 0; i < n->n_in; i++) {
    const int place = n->proto->input[i][0] ? place_of(s->graph, n->proto->input[i]) : -1;
    if (place >= 0 && s->graph->last[place] == index) set_value(n, n->scope, place, NULL);
  }
}

static marea_status visit (marea_emitter *e, onnx_scope *scope, int index) {
  const Marea__NodeProto *proto = scope->graph->proto->node[index];
  const int n_in = (int)proto->n_input, n_out = (int)proto->n_output, mark = marea_emit_begin(e);
  const int spare = 4; /* results that handlers look at, asked for or not */
  onnx_value **values = zeroed(e->ctx, (size_t)(n_in + n_out + spare) * sizeof values[0]);
  if (!values) return marea_onnx_out_of_memory(e->ctx);
  onnx_node n = {.e = e,
                 .scope = scope,
                 .proto = proto,
                 .version = scope->model->version,
                 .n_in = n_in,
                 .n_out = n_out,
                 .in = values,
                 .out = values + n_in};
  onnx_handler *handler = marea_onnx_find(proto->domain, proto->op_type);
  if (!handler) marea_onnx_reject(&n, "operator is not supported");
  if (handler && find_inputs(&n)) handler(&n);
  marea_onnx_name_node(&n);
  keep_outputs(&n, index);
  if (goes_on(&n)) drop_inputs(&n, index);
  marea_free(e->ctx, values);
  marea_emit_end(e, mark);
  return n.status;
}

static void take_results (onnx_node *n, onnx_scope *s, int n_out, onnx_value **out) {
  const Marea__GraphProto *p = s->graph->proto;
  if ((int)p->n_output < n_out)
    marea_onnx_reject(n, "expected %d results of graph '%.60s', got %zu", n_out, p->name, p->n_output);
  for (int k = 0; k < n_out && goes_on(n); k++) {
    out[k] = marea_onnx_value_retain(look_up(s, p->output[k]->name));
    if (!out[k]) marea_onnx_reject(n, "there is no value '%.80s', a result of the graph", p->output[k]->name);
  }
  for (int k = 0; k < n_out && !goes_on(n); k++) {
    marea_onnx_value_release(n->e, out[k]);
    out[k] = NULL;
  }
}

marea_status marea_onnx_walk (marea_emitter *e, marea_graph *model, onnx_graph *graph, onnx_scope *outer,
                              int n_in, onnx_value *const *in, const int *places, int n_out,
                              onnx_value **out) {
  const Marea__GraphProto *p = graph->proto;
  onnx_scope scope = {.outer = outer, .model = model, .graph = graph};
  onnx_node n = {.e = e, .scope = &scope, .proto = &marea_onnx_whole};
  for (int k = 0; k < n_out; k++) out[k] = NULL;
  scope.values = zeroed(e->ctx, (size_t)graph->n_names * sizeof scope.values[0]);
  if (!scope.values) return marea_onnx_out_of_memory(e->ctx);
  const int mark = marea_emit_begin(e);
  begin_weights(&n, &scope);
  marea_emit_end(e, mark);
  for (int i = 0; i < n_in && goes_on(&n); i++)
    set_value(&n, &scope, place_of(graph, p->input[places ? places[i] : i]->name), in[i]);
  for (int i = 0; i < (int)p->n_node && goes_on(&n); i++) n.status = visit(e, &scope, i);
  take_results(&n, &scope, n_out, out);
  for (int i = 0; i < graph->n_names; i++) marea_onnx_value_release(e, scope.values[i]);
  marea_free(e->ctx, scope.values);
  return n.status;
}

/* ---- bodies of branches and loops ---- */

static onnx_graph *opened (const marea_graph *m, const void *from) {
  for (onnx_graph *g = m->main; g; g = g->next)
    if (g->opened == from) return g;
  return NULL;
}

static int depth_of (const onnx_scope *s) {
  int depth = 0;
  for (; s; s = s->outer) depth++;
  return depth;
}

static onnx_graph *open_body (onnx_node *n, const ProtobufCBinaryData *bytes) {
  marea_graph *m = n->scope->model;
  onnx_memory memory = {.ctx = m->ctx};
  ProtobufCAllocator allocator = marea_onnx_noting(&memory);
  onnx_graph *g = opened(m, bytes->data);
  if (g) return g;
  Marea__GraphProto *proto = marea__graph_proto__unpack(&allocator, bytes->len, bytes->data);
  if (memory.ran_out) n->status = marea_onnx_out_of_memory(m->ctx);
  else if (!proto) marea_onnx_reject(n, "its graph is malformed");
  if (!proto) return NULL;
  n->status = marea_onnx_open_graph(m, proto, bytes->data, &g);
  if (goes_on(n)) {
    g->next = m->main->next;
    m->main->next = g;
    return g;
  }
  marea_onnx_close_graph(m, g);
  marea__graph_proto__free_unpacked(proto, &allocator);
  return NULL;
}

#define MOST_NESTED 16

void marea_onnx_run_body (onnx_node *n, const char *name, int n_in, onnx_value *const *in, int n_out,
                          onnx_value **out) {
  const Marea__AttributeProto *a = marea_onnx_attribute(n, name);
  for (int k = 0; k < n_out; k++) out[k] = NULL;
  if (!goes_on(n)) return;
  if (!a || !a->g.len) marea_onnx_reject(n, "attribute '%s', a graph, is missing", name);
  if (depth_of(n->scope) >= MOST_NESTED) marea_onnx_reject(n, "graphs nest deeper than %d", MOST_NESTED);
  onnx_graph *g = goes_on(n) ? open_body(n, &a->g) : NULL;
  if (!g) return;
  if ((int)g->proto->n_input < n_in)
    marea_onnx_reject(n, "graph '%.60s' takes %zu inputs, and gets %d", g->proto->name, g->proto->n_input,
                      n_in);
  if (goes_on(n)) n->status = marea_onnx_walk(n->e, n->scope->model, g, n->scope, n_in, in, NULL, n_out, out);
}
