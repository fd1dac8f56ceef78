/* SPDX-License-Identifier: MIT
** model.c: loading an ONNX model and running it. The first run with inputs of some shapes makes a program of operators
** for them (graph/), which is kept; where shapes depend on values, each run goes over the nodes.
*/
#include <stdlib.h>

#include "../io/io.h"
#include "model.h"

#define MOST_BYTES ((size_t)2 << 30) /* protobuf's own limit */
#define NEWEST 21
#define POLLED 1024 /* nodes between two questions whether to stop */

/* ---- memory for protobuf-c ---- */

static void *take (void *ctx, size_t bytes) { return marea_alloc(ctx, MAREA_MAX(bytes, 1)); }
static void give_back (void *ctx, void *p) { marea_free(ctx, p); }

ProtobufCAllocator marea_onnx_allocator (marea_context *ctx) {
  return (ProtobufCAllocator){.alloc = take, .free = give_back, .allocator_data = ctx};
}

/* ---- loading ---- */

static void free_program (marea_graph *g, onnx_program *p) {
  for (int i = 0; p->values && i < g->n_in; i++) marea_release(p->values[i]);
  marea_free(g->ctx, p->values);
  marea_free(g->ctx, p->inputs);
  marea_program_free(p->program);
  *p = (onnx_program){0};
}

void marea_graph_free (marea_graph *g) {
  if (!g) return;
  ProtobufCAllocator allocator = marea_onnx_allocator(g->ctx);
  for (int i = 0; i < ONNX_MOST_PROGRAMS; i++) free_program(g, &g->programs[i]);
  while (g->main) {
    onnx_graph *first = g->main;
    g->main = first->next;
    Marea__GraphProto *body = first->opened ? first->proto : NULL;
    marea_onnx_close_graph(g, first);
    if (body) marea__graph_proto__free_unpacked(body, &allocator);
  }
  if (g->copies && --*g->copies == 0) {
    if (g->proto) marea__model_proto__free_unpacked(g->proto, &allocator);
    marea_free(g->ctx, g->copies);
  }
  marea_free(g->ctx, g->inputs);
  marea_free(g->ctx, g->folder);
  marea_free(g->ctx, g);
}

static marea_status find_version (marea_graph *g, const char *label) {
  for (size_t i = 0; i < g->proto->n_opset_import; i++) {
    const Marea__OperatorSetIdProto *set = g->proto->opset_import[i];
    if (!set->domain[0] || strcmp(set->domain, "ai.onnx") == 0)
      g->version = (int)MAREA_MIN(set->version, INT32_MAX);
  }
  if (g->version > NEWEST)
    return marea_fail(g->ctx, MAREA_EFORMAT, "%s: operator set %d; up to %d is supported", label, g->version,
                      NEWEST);
  if (g->version == 0) g->version = 1;
  return MAREA_OK;
}

/* Is there a node with the same operator before node i? */
static bool was_before (const Marea__GraphProto *p, size_t i) {
  for (size_t k = 0; k < i; k++)
    if (strcmp(p->node[k]->op_type, p->node[i]->op_type) == 0 &&
        strcmp(p->node[k]->domain, p->node[i]->domain) == 0)
      return true;
  return false;
}

/* All operators that are missing, each once, with the node that asks first. */
static marea_status check_operators (marea_graph *g, const char *label) {
  const Marea__GraphProto *p = g->proto->graph;
  char text[500] = "";
  size_t used = 0;
  for (size_t i = 0; i < p->n_node; i++) {
    const Marea__NodeProto *node = p->node[i];
    if (i % POLLED == 0) MAREA_TRY(marea_poll(g->ctx));
    if (used > sizeof text - 150) break;
    if (marea_onnx_find(node->domain, node->op_type) || was_before(p, i)) continue;
    used += (size_t)marea_format(text + used, sizeof text - used, "%s%.30s%s%.30s", used ? ", " : "",
                                 node->domain, node->domain[0] ? "." : "", node->op_type);
    if (node->name[0])
      used += (size_t)marea_format(text + used, sizeof text - used, " (node '%.40s')", node->name);
  }
  return used ? marea_fail(g->ctx, MAREA_EFORMAT, "%s: operators that are not supported: %s", label, text)
              : MAREA_OK;
}

/* The names of the weights, sorted; to be freed. NULL: out of memory */
static const char **weight_names (marea_graph *g) {
  const Marea__GraphProto *p = g->proto->graph;
  const char **names = marea_alloc(g->ctx, MAREA_MAX(p->n_initializer, 1) * sizeof names[0]);
  for (size_t i = 0; names && i < p->n_initializer; i++) names[i] = p->initializer[i]->name;
  if (names) qsort(names, p->n_initializer, sizeof names[0], marea_onnx_by_name);
  return names;
}

static marea_status find_inputs (marea_graph *g) {
  const Marea__GraphProto *p = g->proto->graph;
  g->inputs = marea_alloc(g->ctx, MAREA_MAX(p->n_input, 1) * sizeof g->inputs[0]);
  const char **weights = g->inputs ? weight_names(g) : NULL;
  if (!weights) return marea_onnx_out_of_memory(g->ctx);
  for (size_t i = 0; i < p->n_input; i++) {
    const char *name = p->input[i]->name;
    if (!bsearch(&name, weights, p->n_initializer, sizeof weights[0], marea_onnx_by_name))
      g->inputs[g->n_in++] = (int)i;
  }
  marea_free(g->ctx, weights);
  g->n_out = (int)p->n_output;
  return MAREA_OK;
}

static marea_status keep_folder (marea_graph *g, const char *path) {
  const char *slash = path ? strrchr(path, '/') : NULL;
  const size_t n = slash ? (size_t)(slash - path) + 1 : 0;
  if (!path) return MAREA_OK;
  g->folder = marea_alloc(g->ctx, n + 1);
  if (!g->folder) return marea_onnx_out_of_memory(g->ctx);
  memcpy(g->folder, path, n);
  g->folder[n] = '\0';
  return MAREA_OK;
}

static marea_status open_model (marea_graph *g, const char *label, const uint8_t *bytes, size_t n) {
  ProtobufCAllocator allocator = marea_onnx_allocator(g->ctx);
  if (n == 0) return marea_fail(g->ctx, MAREA_EFORMAT, "%s: the file is empty", label);
  if (n > MOST_BYTES)
    return marea_fail(g->ctx, MAREA_EFORMAT, "%s: %zu bytes; at most 2 GB are allowed", label, n);
  g->proto = marea__model_proto__unpack(&allocator, n, bytes);
  if (!g->proto || !g->proto->graph)
    return marea_fail(g->ctx, MAREA_EFORMAT, "%s: not an ONNX model, damaged, or too large for the memory",
                      label);
  MAREA_TRY(find_version(g, label));
  MAREA_TRY(check_operators(g, label));
  MAREA_TRY(find_inputs(g));
  return marea_onnx_open_graph(g, g->proto->graph, NULL, &g->main);
}

static marea_status parse_model (marea_context *ctx, const char *label, const char *path,
                                 const uint8_t *bytes, size_t n, marea_graph **out) {
  marea_graph *g = marea_alloc(ctx, sizeof *g);
  if (!g) return marea_onnx_out_of_memory(ctx);
  *g = (marea_graph){.ctx = ctx, .copies = marea_alloc(ctx, sizeof *g->copies)};
  if (g->copies) *g->copies = 1;
  marea_status status = g->copies ? keep_folder(g, path) : marea_onnx_out_of_memory(ctx);
  if (status == MAREA_OK) status = open_model(g, label, bytes, n);
  if (status == MAREA_OK) *out = g;
  else marea_graph_free(g);
  return status;
}

static marea_status fill_copy (const marea_graph *of, marea_graph *g) {
  const size_t n = (size_t)MAREA_MAX(of->n_in, 1);
  MAREA_TRY(keep_folder(g, of->folder));
  g->inputs = marea_alloc(g->ctx, n * sizeof g->inputs[0]);
  if (!g->inputs) return marea_onnx_out_of_memory(g->ctx);
  memcpy(g->inputs, of->inputs, (size_t)of->n_in * sizeof g->inputs[0]);
  return marea_onnx_copy_graph(g, of->main, &g->main);
}

marea_status marea_graph_copy (marea_graph *of, marea_graph **out) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(of ? of->ctx : NULL, "graph", out);
  *out = NULL;
  MAREA_WANT_OR_RETURN(NULL, "graph", of);
  marea_graph *g = marea_alloc(of->ctx, sizeof *g);
  if (!g) return marea_onnx_out_of_memory(of->ctx);
  *g = (marea_graph){.ctx = of->ctx,
                     .proto = of->proto,
                     .copies = of->copies,
                     .version = of->version,
                     .n_in = of->n_in,
                     .n_out = of->n_out,
                     .depends = of->depends};
  ++*g->copies;
  const marea_status status = fill_copy(of, g);
  if (status == MAREA_OK) *out = g;
  else marea_graph_free(g);
  return status;
}

marea_status marea_onnx_parse (marea_context *ctx, const void *bytes, size_t n, marea_graph **out) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "onnx", ctx);
  MAREA_WANT_OR_RETURN(ctx, "onnx", out);
  *out = NULL;
  MAREA_WANT_OR_RETURN(ctx, "onnx", bytes);
  return parse_model(ctx, "onnx", NULL, bytes, n, out);
}

marea_status marea_onnx_load (marea_context *ctx, const char *path, marea_graph **out) {
  uint8_t *bytes;
  size_t n;
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "onnx.load", ctx);
  MAREA_WANT_OR_RETURN(ctx, "onnx.load", out);
  *out = NULL;
  MAREA_WANT_OR_RETURN(ctx, "onnx.load", path);
  MAREA_TRY(marea_read_file(ctx, "onnx.load", path, &bytes, &n));
  const marea_status status = parse_model(ctx, marea_file_label("onnx.load", path).s, path, bytes, n, out);
  marea_free(ctx, bytes);
  return status;
}

/* ---- what a graph takes and gives ---- */

static void describe (const Marea__ValueInfoProto *v, marea_graph_port *port) {
  *port = (marea_graph_port){.name = v->name, .dtype = (marea_dtype)MAREA_DTYPE_COUNT, .rank = -1};
  const Marea__TypeProto__Tensor *t = v->type ? v->type->tensor_type : NULL;
  if (!t) return;
  if (marea_onnx_dtype(t->elem_type) >= 0) port->dtype = (marea_dtype)marea_onnx_dtype(t->elem_type);
  if (!t->shape || t->shape->n_dim > MAREA_MAX_RANK) return;
  port->rank = (int)t->shape->n_dim;
  for (int d = 0; d < port->rank; d++) {
    const Marea__TensorShapeProto__Dimension *dim = t->shape->dim[d];
    const bool fixed = dim->value_case == MAREA__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
    port->shape[d] = fixed && dim->dim_value >= 0 ? dim->dim_value : -1;
  }
}

int marea_graph_inputs (const marea_graph *g) { return g ? g->n_in : 0; }
int marea_graph_outputs (const marea_graph *g) { return g ? g->n_out : 0; }

bool marea_graph_input (const marea_graph *g, int i, marea_graph_port *port) {
  if (!g || !port || i < 0 || i >= g->n_in) return false;
  describe(g->proto->graph->input[g->inputs[i]], port);
  return true;
}

bool marea_graph_output (const marea_graph *g, int i, marea_graph_port *port) {
  if (!g || !port || i < 0 || i >= g->n_out) return false;
  describe(g->proto->graph->output[i], port);
  return true;
}

/* Inputs of operators that are statistics or settings: what is only read there is not learned. */
static const struct {
  const char *op;
  int first, last;
} settings[] = {{"BatchNormalization", 3, 4},
                {"Clip", 1, 2},
                {"Pad", 2, 2},
                {"Resize", 1, 3},
                {"Upsample", 1, 1},
                {"Dropout", 1, 1},
                {"QuantizeLinear", 1, 2},
                {"DequantizeLinear", 1, 2},
                {"Range", 0, 2}};

static bool is_setting (const Marea__NodeProto *node, int i) {
  for (int k = 0; k < MAREA_COUNT(settings); k++)
    if (strcmp(node->op_type, settings[k].op) == 0 && i >= settings[k].first && i <= settings[k].last)
      return true;
  return false;
}

static bool is_learned (const marea_graph *g, const char *name) {
  const Marea__GraphProto *p = g->proto->graph;
  bool read = false;
  for (size_t i = 0; i < p->n_node; i++)
    for (size_t k = 0; k < p->node[i]->n_input; k++) {
      if (strcmp(p->node[i]->input[k], name) != 0) continue;
      read = true;
      if (!is_setting(p->node[i], (int)k)) return true;
    }
  return !read;
}

int marea_graph_weights (const marea_graph *g) { return g ? (int)g->proto->graph->n_initializer : 0; }

bool marea_graph_weight_at (const marea_graph *g, int i, marea_graph_weight *weight) {
  if (!weight) return false;
  *weight = (marea_graph_weight){.name = ""};
  if (i < 0 || i >= marea_graph_weights(g)) return false;
  const char *name = g->proto->graph->initializer[i]->name;
  marea_tensor *t = g->main->weights[i];
  *weight = (marea_graph_weight){name, t, marea_dtype_is_float((marea_dtype)t->dtype) && is_learned(g, name)};
  return true;
}

bool marea_graph_metadata (const marea_graph *g, int i, const char **key, const char **text) {
  if (!key || !text) return false;
  *key = *text = "";
  if (i < 0 || !g || (size_t)i >= g->proto->n_metadata_props) return false;
  const Marea__StringStringEntryProto *entry = g->proto->metadata_props[i];
  *key = entry->key, *text = entry->value;
  return true;
}

/* ---- running ---- */

static int type_of_input (const marea_graph *g, int i) {
  const Marea__ValueInfoProto *v = g->proto->graph->input[g->inputs[i]];
  return v->type && v->type->tensor_type ? v->type->tensor_type->elem_type : ONNX_UNDEFINED;
}

static bool is_small (const marea_graph *g, const marea_tensor *t) {
  return g->depends == ONNX_BY_SMALL && !marea_dtype_is_float((marea_dtype)t->dtype) &&
         marea_tensor_size(t) <= ONNX_SMALL;
}

/* The inputs as values, known or of a program; in[0..n_in-1] own one reference each. */
static marea_status make_inputs (marea_emitter *e, marea_graph *g, marea_tensor *const *in,
                                 onnx_value **values) {
  onnx_node n = {.e = e, .proto = &marea_onnx_whole};
  for (int i = 0; i < g->n_in; i++) {
    value *v = NULL;
    if (e->program) MAREA_TRY(marea_emit_input(e, in[i], &v));
    if (!e->program || is_small(g, in[i])) MAREA_TRY(marea_emit_known(e, marea_retain(in[i]), &v));
    values[i] = marea_onnx_value_new(&n, v, type_of_input(g, i));
    MAREA_TRY(n.status);
  }
  return MAREA_OK;
}

/* The results as tensors with channels first. */
static marea_status walk (marea_emitter *e, marea_graph *g, marea_tensor *const *in, onnx_value **values,
                          value **out) {
  onnx_value **results = values + g->n_in;
  MAREA_TRY(make_inputs(e, g, in, values));
  MAREA_TRY(marea_onnx_walk(e, g, g->main, NULL, g->n_in, values, g->inputs, g->n_out, results));
  onnx_node n = {.e = e, .proto = &marea_onnx_whole, .n_in = g->n_out, .in = results};
  for (int k = 0; k < g->n_out; k++) {
    out[k] = input(&n, k);
    MAREA_TRY(n.status);
    MAREA_TRY(marea_emit_keep(e, out[k]));
  }
  return MAREA_OK;
}

static marea_status walk_all (marea_emitter *e, marea_graph *g, marea_tensor *const *in, value **out) {
  const int count = g->n_in + g->n_out;
  onnx_value **values = marea_alloc(g->ctx, (size_t)MAREA_MAX(count, 1) * sizeof values[0]);
  if (!values) return marea_onnx_out_of_memory(g->ctx);
  for (int i = 0; i < count; i++) values[i] = NULL;
  const marea_status status = walk(e, g, in, values, out);
  for (int i = 0; i < count; i++) marea_onnx_value_release(e, values[i]);
  marea_free(g->ctx, values);
  return status;
}

/* A result that is a weight is given as a copy, which the host may change. */
static marea_status take_result (const marea_graph *g, marea_tensor *t, marea_tensor **out) {
  for (size_t i = 0; i < g->proto->graph->n_initializer; i++)
    if (marea_tensor_shares(t, g->main->weights[i])) return marea_run(g->ctx, &marea_op_clone, out, 1, t);
  *out = marea_retain(t);
  return MAREA_OK;
}

static marea_status run_nodes (marea_graph *g, marea_tensor *const *in, value **values, marea_tensor **out) {
  marea_emitter e = {.ctx = g->ctx};
  marea_status status = walk_all(&e, g, in, values);
  for (int k = 0; k < g->n_out && status == MAREA_OK; k++) status = take_result(g, values[k]->t, &out[k]);
  for (int k = 0; k < g->n_out && status != MAREA_OK; k++) {
    marea_release(out[k]);
    out[k] = NULL;
  }
  marea_emitter_clear(&e);
  if (status != MAREA_UNKNOWN) return status;
  return marea_fail(g->ctx, MAREA_ESTATE, "graph: shapes depend on values, which a plan does not have");
}

/* ---- programs ---- */

static uint64_t changes_of (const marea_graph *g) {
  uint64_t changes = 0;
  for (size_t i = 0; i < g->proto->graph->n_initializer; i++)
    changes += marea_tensor_changes(g->main->weights[i]);
  return changes;
}

static double element (const marea_tensor *t, int64_t i) {
  int64_t at = 0;
  for (int d = t->rank; d-- > 0; i /= t->shape[d]) at += i % t->shape[d] * t->stride[d];
  return marea_number_at((marea_dtype)t->dtype,
                         (const char *)marea_at(t) + at * (int64_t)marea_element_size(t->dtype));
}

static bool same_elements (const marea_tensor *a, const marea_tensor *b) {
  for (int64_t i = 0; i < marea_tensor_size(a); i++)
    if (element(a, i) != element(b, i)) return false;
  return true;
}

static bool fits_input (const onnx_program *p, int i, const marea_tensor *t) {
  if (p->inputs[i].dtype != t->dtype || !marea_has_shape(t, p->inputs[i].rank, p->inputs[i].shape))
    return false;
  return !p->values[i] || same_elements(p->values[i], t);
}

static bool fits (const marea_graph *g, const onnx_program *p, marea_tensor *const *in) {
  if (!p->program || p->changes != changes_of(g)) return false;
  for (int i = 0; i < g->n_in; i++)
    if (!fits_input(p, i, in[i])) return false;
  return true;
}

static marea_status end_program (marea_emitter *e, int n_out, value *const *values) {
  for (int k = 0; k < n_out; k++) {
    if (values[k]->slot < 0) MAREA_TRY(marea_program_constant(e->program, values[k]->t, &values[k]->slot));
    MAREA_TRY(marea_program_output(e->program, values[k]->slot));
  }
  return MAREA_OK;
}

static marea_status build (marea_emitter *e, marea_graph *g, marea_tensor *const *in, value **values) {
  MAREA_TRY(marea_program_new(g->ctx, &e->program));
  MAREA_TRY(marea_plan_start(g->ctx));
  marea_status status = walk_all(e, g, in, values);
  if (status == MAREA_OK) status = end_program(e, g->n_out, values);
  marea_emitter_clear(e);
  marea_plan_stop(g->ctx);
  if (status == MAREA_OK) status = marea_program_fuse(e->program);
  return status == MAREA_OK ? marea_program_finish(e->program) : status;
}

/* The same with the copies in the places of the inputs whose values count. */
static marea_status build_for (marea_emitter *e, marea_graph *g, marea_tensor *const *in,
                               const onnx_program *p, value **values) {
  marea_tensor **with = marea_alloc(g->ctx, (size_t)MAREA_MAX(g->n_in, 1) * sizeof with[0]);
  if (!with) return marea_onnx_out_of_memory(g->ctx);
  for (int i = 0; i < g->n_in; i++) with[i] = p->values[i] ? p->values[i] : in[i];
  const marea_status status = build(e, g, with, values);
  marea_free(g->ctx, with);
  return status;
}

/* The layouts of the inputs, and copies of those whose values count. */
static marea_status keep_inputs (marea_graph *g, marea_tensor *const *in, onnx_program *p) {
  const size_t n = (size_t)MAREA_MAX(g->n_in, 1);
  p->inputs = marea_alloc(g->ctx, n * sizeof p->inputs[0]);
  p->values = marea_alloc(g->ctx, n * sizeof(p->values[0]));
  for (int i = 0; p->values && i < g->n_in; i++) p->values[i] = NULL;
  if (!p->inputs || !p->values) return marea_onnx_out_of_memory(g->ctx);
  for (int i = 0; i < g->n_in; i++) {
    marea_layout_like(&p->inputs[i], in[i]);
    if (is_small(g, in[i])) MAREA_TRY(marea_run(g->ctx, &marea_op_clone, &p->values[i], 1, in[i]));
  }
  return MAREA_OK;
}

static marea_status make_program (marea_graph *g, marea_tensor *const *in, value **values, onnx_program *to) {
  marea_emitter e = {.ctx = g->ctx};
  onnx_program p = {.changes = changes_of(g)};
  const bool recording = marea_set_recording(g->ctx, false);
  marea_status status = keep_inputs(g, in, &p);
  if (status == MAREA_OK) status = build_for(&e, g, in, &p, values);
  marea_set_recording(g->ctx, recording);
  p.program = e.program;
  if (status == MAREA_OK) {
    free_program(g, to);
    *to = p;
  } else free_program(g, &p);
  return status;
}

/* The program for these inputs, the oldest one making room. */
static marea_status find_program (marea_graph *g, marea_tensor *const *in, value **values,
                                  onnx_program **out) {
  onnx_program *oldest = g->programs;
  for (onnx_program *p = g->programs; p < g->programs + ONNX_MOST_PROGRAMS; p++) {
    *out = p;
    if (fits(g, p, in)) return MAREA_OK;
    if (p->used < oldest->used) oldest = p;
  }
  *out = oldest;
  marea_status status = make_program(g, in, values, oldest);
  if (status == MAREA_ENOMEM) { /* those of other shapes give way */
    for (int i = 0; i < ONNX_MOST_PROGRAMS; i++) free_program(g, &g->programs[i]);
    status = make_program(g, in, values, oldest);
  }
  while (status == MAREA_UNKNOWN && g->depends < ONNX_BY_VALUES) {
    g->depends++; /* programs that are there go on to be right */
    if (g->depends < ONNX_BY_VALUES) status = make_program(g, in, values, oldest);
  }
  return status;
}

static bool wants_nodes (const marea_graph *g, marea_tensor *const *in) {
  if (g->depends == ONNX_BY_VALUES || g->ctx->plan) return true;
  if (!g->ctx->recording) return false;
  for (int i = 0; i < g->n_in; i++)
    if (in[i]->requires_grad) return true;
  for (size_t i = 0; i < g->proto->graph->n_initializer; i++)
    if (g->main->weights[i]->requires_grad) return true;
  return false;
}

static marea_status run (marea_graph *g, marea_tensor *const *in, value **values, marea_tensor **out) {
  onnx_program *p;
  if (wants_nodes(g, in)) return run_nodes(g, in, values, out);
  const marea_status status = find_program(g, in, values, &p);
  if (status == MAREA_UNKNOWN) return run_nodes(g, in, values, out);
  MAREA_TRY(status);
  p->used = ++g->runs;
  return marea_program_run(p->program, in, out);
}

static marea_status write_program (marea_graph *g, marea_tensor *const *in, value **values,
                                   marea_tensor **out) {
  onnx_program *p;
  if (g->ctx->plan)
    return marea_fail(g->ctx, MAREA_ESTATE, "graph: its list of operators is not made while a plan runs");
  const marea_status status = g->depends == ONNX_BY_VALUES ? MAREA_UNKNOWN : find_program(g, in, values, &p);
  if (status == MAREA_UNKNOWN)
    return marea_fail(g->ctx, MAREA_ESTATE,
                      "graph: it runs without a list of operators, as shapes depend on values");
  return status == MAREA_OK ? marea_program_text(p->program, out) : status;
}

static marea_status check_inputs (const marea_graph *g, int n_in, marea_tensor *const *in) {
  if (n_in != g->n_in)
    return marea_fail(g->ctx, MAREA_EARG, "graph: expected %d inputs, got %d", g->n_in, n_in);
  for (int i = 0; i < n_in; i++) {
    marea_graph_port port;
    marea_graph_input(g, i, &port);
    MAREA_TRY(marea_want_tensor(g->ctx, "graph", port.name, in[i]));
    bool fine = (int)port.dtype == MAREA_DTYPE_COUNT || in[i]->dtype == (int)port.dtype;
    fine = fine && (port.rank < 0 || port.rank == in[i]->rank);
    for (int d = 0; fine && d < port.rank; d++) fine = port.shape[d] < 0 || port.shape[d] == in[i]->shape[d];
    if (!fine)
      return marea_fail(g->ctx, MAREA_ESHAPE, "graph: input '%.80s': expected %s %s, got %s", port.name,
                        (int)port.dtype == MAREA_DTYPE_COUNT ? "any dtype" : marea_dtype_name(port.dtype),
                        marea_shape_text(MAREA_MAX(port.rank, 0), port.shape).s, marea_tensor_text(in[i]).s);
  }
  return MAREA_OK;
}

/* Room for the results of a walk, which f gets. */
static marea_status with_values (marea_graph *g, marea_tensor *const *in, marea_tensor **out,
                                 marea_status (*f)(marea_graph *, marea_tensor *const *, value **,
                                                   marea_tensor **)) {
  value **values = marea_alloc(g->ctx, (size_t)MAREA_MAX(g->n_out, 1) * sizeof values[0]);
  if (!values) return marea_onnx_out_of_memory(g->ctx);
  const marea_status status = f(g, in, values, out);
  marea_free(g->ctx, values);
  return status;
}

marea_status marea_graph_run (marea_graph *g, int n_in, marea_tensor *const *in, int n_out,
                              marea_tensor **out) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "graph", g);
  MAREA_TRY(marea_want_list(g->ctx, "graph", "in", n_in, in));
  MAREA_TRY(marea_want_list(g->ctx, "graph", "out", n_out, out));
  for (int k = 0; k < n_out; k++) out[k] = NULL;
  if (n_out != g->n_out)
    return marea_fail(g->ctx, MAREA_EARG, "graph: expected room for %d results, got %d", g->n_out, n_out);
  MAREA_TRY(check_inputs(g, n_in, in));
  return with_values(g, in, out, run);
}

marea_status marea_graph_text (marea_graph *g, int n_in, marea_tensor *const *in, marea_tensor **out) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "graph", g);
  MAREA_WANT_OR_RETURN(g->ctx, "graph", out);
  *out = NULL;
  MAREA_TRY(marea_want_list(g->ctx, "graph", "in", n_in, in));
  MAREA_TRY(check_inputs(g, n_in, in));
  return with_values(g, in, out, write_program);
}
