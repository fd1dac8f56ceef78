/* SPDX-License-Identifier: MIT
** onednn.c: a convolution's and a linear layer's three maps by oneDNN 2.x. It answers requests of
** bench/lib/worker.lua,
**
**   conv map=forward|input|weight fused=0|1 n= h= w= cin= cout= kernel= stride= [own=1] threads= seconds= [clock=cpu]
**   linear map=forward|input|weight fused=0|1 n= cin= cout= threads= seconds= [clock=cpu]
**
** with the times of calls in ms and the name of the implementation. Padding is Keras' "same"; fused: forward
** adds a bias and applies ReLU. The first request for a shape tries every implementation for every algorithm
** and layout below and keeps the fastest. Only the primitive is timed: activations and weights are already
** in the layout that it likes best, and no reorder counts. own=1: what oneDNN itself chooses when layouts and
** algorithm are left to it, as programs that call it do.
*/
#include <dnnl.h>
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LINE 256
#define MAX_ARGS 4
#define MAX_CANDIDATES 64
#define TRIES 5 /* calls of a candidate after its first */

#define CHECK(call)                                    \
  do {                                                 \
    dnnl_status_t status_ = (call);                    \
    if (status_ != dnnl_success) fail(#call, status_); \
  } while (0)

static void fail (const char *what, dnnl_status_t status) {
  printf("error %s: status %d\n", what, (int)status);
  exit(1);
}

static clockid_t timer = CLOCK_MONOTONIC; /* or this thread's CPU time */

static double now (void) { /* ms */
  struct timespec t;
  clock_gettime(timer, &t);
  return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static dnnl_engine_t engine;
static dnnl_stream_t stream;

/* ---- requests ---- */

typedef enum map { FORWARD, INPUT, WEIGHT } map;

typedef struct request {
  char key[LINE]; /* the line up to seconds= */
  bool linear, fused, own;
  map map;
  dnnl_dim_t n, h, w, cin, cout, kernel, stride;
  int threads;
  double seconds;
} request;

static double number (const char *line, const char *name, double otherwise) {
  char pattern[32];
  snprintf(pattern, sizeof pattern, " %s=", name);
  const char *at = strstr(line, pattern);
  return at ? strtod(at + strlen(pattern), NULL) : otherwise;
}

static bool read_request (const char *line, request *r) {
  const char *seconds = strstr(line, " seconds=");
  if (!seconds || (strncmp(line, "conv ", 5) && strncmp(line, "linear ", 7))) return false;
  snprintf(r->key, sizeof r->key, "%.*s", (int)(seconds - line), line);
  r->linear = line[0] == 'l';
  r->map = strstr(line, "map=input") ? INPUT : strstr(line, "map=weight") ? WEIGHT : FORWARD;
  r->fused = number(line, "fused", 0) != 0;
  r->own = number(line, "own", 0) != 0;
  r->n = (dnnl_dim_t)number(line, "n", 1);
  r->h = (dnnl_dim_t)number(line, "h", 1);
  r->w = (dnnl_dim_t)number(line, "w", 1);
  r->cin = (dnnl_dim_t)number(line, "cin", 1);
  r->cout = (dnnl_dim_t)number(line, "cout", 1);
  r->kernel = (dnnl_dim_t)number(line, "kernel", 1);
  r->stride = (dnnl_dim_t)number(line, "stride", 1);
  r->threads = (int)number(line, "threads", 1);
  r->seconds = number(line, "seconds", 0.1);
  return true;
}

/* ---- candidates ---- */

typedef enum layout { ANY, NHWC, NCHW, BLOCKED, LAYOUTS } layout;

typedef struct candidate {
  dnnl_primitive_t primitive;
  dnnl_primitive_desc_t desc;
  char name[128];
  int args;
  dnnl_exec_arg_t arg[MAX_ARGS];
  double best; /* ms */
} candidate;

typedef struct candidates {
  int count;
  candidate list[MAX_CANDIDATES];
} candidates;

static dnnl_format_tag_t activations_tag (layout l, dnnl_dim_t channels) {
  switch (l) {
  case NHWC: return dnnl_nhwc;
  case NCHW: return dnnl_nchw;
  case BLOCKED: return channels % 16 ? dnnl_nchw : dnnl_nChw16c;
  default: return dnnl_format_tag_any;
  }
}

static dnnl_memory_desc_t describe (int rank, const dnnl_dims_t dims, dnnl_format_tag_t tag) {
  dnnl_memory_desc_t md;
  CHECK(dnnl_memory_desc_init_by_tag(&md, rank, dims, dnnl_f32, tag));
  return md;
}

/* Which arguments a map has: their ids and the queries for their descriptions. */
static const struct {
  int args, id[MAX_ARGS];
  dnnl_query_t query[MAX_ARGS];
} arguments[] = {
    [FORWARD] = {4,
                 {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST},
                 {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_weights_md, dnnl_query_dst_md}},
    [INPUT] = {3,
               {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC},
               {dnnl_query_diff_dst_md, dnnl_query_weights_md, dnnl_query_diff_src_md}},
    [WEIGHT] = {3,
                {DNNL_ARG_DIFF_DST, DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS},
                {dnnl_query_diff_dst_md, dnnl_query_src_md, dnnl_query_diff_weights_md}},
};

static const dnnl_memory_desc_t *argument_desc (const candidate *c, map m, int i) {
  bool bias = arguments[m].id[i] == DNNL_ARG_BIAS;
  return dnnl_primitive_desc_query_md(c->desc, arguments[m].query[i], bias ? 1 : 0);
}

static bool is_absent (const dnnl_memory_desc_t *md) { return !md || md->ndims == 0; }

static bool same_layouts (const candidate *a, const candidate *b, map m) {
  for (int i = 0; i < arguments[m].args; i++) {
    const dnnl_memory_desc_t *x = argument_desc(a, m, i), *y = argument_desc(b, m, i);
    if (!is_absent(x) && !dnnl_memory_desc_equal(x, y)) return false;
  }
  return !strcmp(a->name, b->name);
}

static bool is_known (const candidates *all, const candidate *c, map m) {
  for (int i = 0; i < all->count; i++)
    if (same_layouts(&all->list[i], c, m)) return true;
  return false;
}

/* Adds every implementation of an operation, reference code aside. */
static void add_implementations (candidates *all, const request *r, const void *op,
                                 const_dnnl_primitive_attr_t attr) {
  dnnl_primitive_desc_iterator_t it;
  if (dnnl_primitive_desc_iterator_create(&it, op, attr, engine, NULL) != dnnl_success) return;
  do {
    candidate c = {.desc = dnnl_primitive_desc_iterator_fetch(it)};
    const char *name;
    CHECK(dnnl_primitive_desc_query(c.desc, dnnl_query_impl_info_str, 0, &name));
    snprintf(c.name, sizeof c.name, "%s", name);
    bool wanted = strncmp(name, "ref", 3) && all->count < MAX_CANDIDATES && !is_known(all, &c, r->map);
    if (wanted && dnnl_primitive_create(&c.primitive, c.desc) == dnnl_success) all->list[all->count++] = c;
    else dnnl_primitive_desc_destroy(c.desc);
    if (r->own && all->count > 0) break;
  } while (dnnl_primitive_desc_iterator_next(it) == dnnl_success);
  dnnl_primitive_desc_iterator_destroy(it);
}

static dnnl_dim_t ceil_div (dnnl_dim_t a, dnnl_dim_t b) { return (a + b - 1) / b; }

static void add_convolutions (candidates *all, const request *r, dnnl_alg_kind_t algorithm, layout l,
                              const_dnnl_primitive_attr_t attr) {
  dnnl_dim_t oh = ceil_div(r->h, r->stride), ow = ceil_div(r->w, r->stride);
  dnnl_dim_t pad_h = (oh - 1) * r->stride + r->kernel - r->h, pad_w = (ow - 1) * r->stride + r->kernel - r->w;
  if (pad_h < 0) pad_h = 0;
  if (pad_w < 0) pad_w = 0;
  dnnl_dims_t before = {pad_h / 2, pad_w / 2}, after = {pad_h - pad_h / 2, pad_w - pad_w / 2};
  dnnl_dims_t strides = {r->stride, r->stride};
  dnnl_memory_desc_t x = describe(4, (dnnl_dims_t){r->n, r->cin, r->h, r->w}, activations_tag(l, r->cin));
  dnnl_memory_desc_t y = describe(4, (dnnl_dims_t){r->n, r->cout, oh, ow}, activations_tag(l, r->cout));
  dnnl_memory_desc_t w = describe(4, (dnnl_dims_t){r->cout, r->cin, r->kernel, r->kernel},
                                  dnnl_format_tag_any);
  dnnl_memory_desc_t b = describe(1, (dnnl_dims_t){r->cout}, dnnl_x);
  dnnl_convolution_desc_t op;
  dnnl_status_t status;
  if (r->map == FORWARD)
    status = dnnl_convolution_forward_desc_init(&op, dnnl_forward_inference, algorithm, &x, &w,
                                                r->fused ? &b : NULL, &y, strides, before, after);
  else if (r->map == INPUT)
    status = dnnl_convolution_backward_data_desc_init(&op, algorithm, &x, &w, &y, strides, before, after);
  else
    status = dnnl_convolution_backward_weights_desc_init(&op, algorithm, &x, &w, NULL, &y, strides, before,
                                                         after);
  if (status == dnnl_success) add_implementations(all, r, &op, attr);
}

static void add_linear (candidates *all, const request *r, bool plain, const_dnnl_primitive_attr_t attr) {
  dnnl_format_tag_t tag = plain ? dnnl_nc : dnnl_format_tag_any;
  dnnl_memory_desc_t x = describe(2, (dnnl_dims_t){r->n, r->cin}, tag);
  dnnl_memory_desc_t y = describe(2, (dnnl_dims_t){r->n, r->cout}, tag);
  dnnl_memory_desc_t w = describe(2, (dnnl_dims_t){r->cout, r->cin}, dnnl_format_tag_any);
  dnnl_memory_desc_t b = describe(1, (dnnl_dims_t){r->cout}, dnnl_x);
  dnnl_inner_product_desc_t op;
  if (r->map == FORWARD)
    CHECK(
        dnnl_inner_product_forward_desc_init(&op, dnnl_forward_inference, &x, &w, r->fused ? &b : NULL, &y));
  else if (r->map == INPUT) CHECK(dnnl_inner_product_backward_data_desc_init(&op, &x, &w, &y));
  else CHECK(dnnl_inner_product_backward_weights_desc_init(&op, &x, &w, NULL, &y));
  add_implementations(all, r, &op, attr);
}

/* The attribute that applies ReLU to the result. */
static dnnl_primitive_attr_t new_relu (void) {
  dnnl_primitive_attr_t attr;
  dnnl_post_ops_t post;
  CHECK(dnnl_primitive_attr_create(&attr));
  CHECK(dnnl_post_ops_create(&post));
  CHECK(dnnl_post_ops_append_eltwise(post, 1, dnnl_eltwise_relu, 0, 0));
  CHECK(dnnl_primitive_attr_set_post_ops(attr, post));
  CHECK(dnnl_post_ops_destroy(post));
  return attr;
}

static void add_all (candidates *all, const request *r) {
  const dnnl_alg_kind_t algorithms[] = {dnnl_convolution_auto, dnnl_convolution_direct,
                                        dnnl_convolution_winograd};
  dnnl_primitive_attr_t attr = r->fused ? new_relu() : NULL;
  if (r->linear)
    for (int plain = 0; plain < 2; plain++) add_linear(all, r, plain, attr);
  else if (r->own) add_convolutions(all, r, dnnl_convolution_auto, ANY, attr);
  else
    for (int a = 0; a < 3; a++)
      for (layout l = 0; l < LAYOUTS; l++) add_convolutions(all, r, algorithms[a], l, attr);
  if (attr) CHECK(dnnl_primitive_attr_destroy(attr));
}

/* ---- running ---- */

static dnnl_memory_t new_memory (const dnnl_memory_desc_t *md) {
  dnnl_memory_t memory;
  void *data;
  CHECK(dnnl_memory_create(&memory, md, engine, DNNL_MEMORY_ALLOCATE));
  CHECK(dnnl_memory_get_data_handle(memory, &data));
  float *x = data;
  size_t n = dnnl_memory_desc_get_size(md) / sizeof *x;
  for (size_t i = 0; i < n; i++) x[i] = (float)((int)(i * 7919 % 1024) - 512) / 512;
  return memory;
}

static void allocate (candidate *c, map m) {
  for (int i = 0; i < arguments[m].args; i++) {
    const dnnl_memory_desc_t *md = argument_desc(c, m, i);
    if (is_absent(md)) continue;
    c->arg[c->args++] = (dnnl_exec_arg_t){arguments[m].id[i], new_memory(md)};
  }
}

static void release (candidate *c) {
  for (int i = 0; i < c->args; i++) CHECK(dnnl_memory_destroy(c->arg[i].memory));
  c->args = 0;
}

static double call (const candidate *c) { /* ms */
  double start = now();
  CHECK(dnnl_primitive_execute(c->primitive, stream, c->args, c->arg));
  CHECK(dnnl_stream_wait(stream));
  return now() - start;
}

static void drop (candidate *c) {
  dnnl_primitive_destroy(c->primitive);
  dnnl_primitive_desc_destroy(c->desc);
}

/* The fastest candidate. One whose first call takes over three times the best gets no second chance. */
static bool choose (const request *r, candidate *chosen) {
  candidates all = {0};
  add_all(&all, r);
  double best = 1e30;
  for (int i = 0; i < all.count; i++) {
    candidate *c = &all.list[i];
    allocate(c, r->map);
    c->best = call(c);
    for (int k = 0; k < TRIES && c->best < 3 * best; k++) {
      double ms = call(c);
      if (ms < c->best) c->best = ms;
    }
    release(c);
    if (c->best < best) best = c->best;
  }
  bool found = false;
  for (int i = 0; i < all.count; i++)
    if (!found && all.list[i].best == best) *chosen = all.list[i], found = true;
    else drop(&all.list[i]);
  return found;
}

/* ---- the chosen, by request ---- */

typedef struct entry {
  struct entry *next;
  char key[LINE];
  candidate candidate;
} entry;

static entry *entries;

static entry *entry_for (const request *r) {
  for (entry *e = entries; e; e = e->next)
    if (!strcmp(e->key, r->key)) return e;
  entry *e = calloc(1, sizeof *e);
  if (!e || !choose(r, &e->candidate)) return free(e), NULL;
  memcpy(e->key, r->key, sizeof e->key);
  e->next = entries;
  return entries = e;
}

static void answer (const char *line) {
  request r;
  if (!read_request(line, &r)) {
    printf("error unknown request\n");
    return;
  }
  timer = strstr(line, " clock=cpu") ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  omp_set_num_threads(r.threads);
  entry *e = entry_for(&r);
  if (!e) {
    printf("error no implementation\n");
    return;
  }
  allocate(&e->candidate, r.map);
  call(&e->candidate);
  printf("ok");
  double end = now() + 1e3 * r.seconds;
  do printf(" %.6f", call(&e->candidate));
  while (now() < end);
  release(&e->candidate);
  printf(" # %s\n", e->candidate.name);
}

int main (void) {
  char line[LINE];
  const dnnl_version_t *v = dnnl_version();
  CHECK(dnnl_engine_create(&engine, dnnl_cpu, 0));
  CHECK(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
  printf("ready oneDNN %d.%d.%d\n", v->major, v->minor, v->patch);
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = '\0';
    answer(line);
    fflush(stdout);
  }
  return 0;
}
