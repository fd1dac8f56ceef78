/* SPDX-License-Identifier: MIT
** armor_test.c: nothing that a host passes breaks the library. Every function of core/marea.h is called with every value
** that api_cases.lua has for each of its parameters, alone and in pairs: NULL, numbers out of range, tensors of another
** context, of a plan that has ended, views of these, with strange layouts; in the usual floating-point mode, rounding up,
** with all traps on, and while a plan runs. What must be refused is, with its reason; the host's mode is as it was, and
** nothing leaks. Then every operator gets inputs and attributes by chance, and the functions of marea_lua.h what is not
** there.
*/
#define _GNU_SOURCE
#include <fenv.h>
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "marea_lua.h"
#include "report.h"

enum { OK, REFUSED, ANY };
enum { NO_STATUS = -1, MOST_PARAMETERS = 9, MOST_VALUES = 16, OUT = 64, MOST_OPERATORS = 512, TRIES = 200 };
#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* A model of ONNX with inputs a and b and the result y = Identity(a). */
static const char model[] = "\x08\x08" /* version of the format */
                            "\x3a\x24" /* graph */
                            "\x0a\x10\x0a\x01"
                            "a\x12\x01y\x22\x08Identity" /* node */
                            "\x12\x01g\x5a\x03\x0a\x01"
                            "a\x5a\x03\x0a\x01"
                            "b\x62\x03\x0a\x01y"        /* name, inputs, result */
                            "\x42\x04\x0a\x00\x10\x0d"; /* operator set 13 */
#define MODEL_BYTES (sizeof model - 1)

static const char image[] = "\2\0\0\0\0\0\0\0{}"; /* of an empty safetensors file */
#define IMAGE_BYTES (sizeof image - 1)

typedef struct world {
  marea_context *ctx, *other, *opened;
  marea_tensor *t, *u, *y, *leaf, *scalar, *empty, *integers, *gaps, *expanded, *lent, *foreign;
  marea_tensor *over, *over_view, *planned;
  marea_tensor *list[2], *leaves[2], *with_null[2], *with_foreign[2], *with_over[2], *with_over_view[2];
  marea_tensor *out[OUT];
  marea_file *f, *loaded;
  marea_tree *tree, *planted;
  marea_tree_value leaf_value;
  marea_json *j, *parsed;
  marea_json_value json;
  marea_graph *g, *made;
  marea_trace *trace, *traced;
  marea_onnx_names names;
  marea_graph_port port;
  marea_graph_weight weight;
  marea_profile *p, *started;
  struct {
    const char *idx, *npy, *npz, *torch, *gguf, *t7, *png, *jpeg, *safetensors, *onnx, *new;
  } file;
  const char *long_text, *text;
  marea_attr attrs[MAREA_MAX_ATTRS];
  marea_named named, garbage_type, garbage_length, no_name;
  marea_config config, config_size, config_few, config_many, config_base, config_isa;
  int64_t shape[8], negative[8], huge[8], zeros[8];
  double numbers[64];
  marea_statistics statistics;
  marea_blame blame;
  const marea_input_spec *inputs;
  const marea_attr_spec *specs;
  marea_random_state random, odd_random;
  int n;
  size_t size;
  int rounding, traps; /* as they were before the call */
} world;

typedef struct function {
  const char *name;
  int (*call)(world *w, const int *v);
  int n;
  const char *parameter[MOST_PARAMETERS], *label[MOST_PARAMETERS][MOST_VALUES];
  int says[MOST_PARAMETERS][MOST_VALUES];
} function;

static enum { USUAL, UPWARD, TRAPS, IN_A_PLAN, WAYS } way;
static const char *const way_name[] = {"usual mode", "rounding up", "all traps", "in a plan"};
static char current[300], folder[64], long_text[6000];
static long calls;
static int leaks;

static void complain (const char *what) {
  if (++failed <= 20) printf("FAIL %s: %s\n", current, what);
}

static void died (int number) {
  dprintf(STDOUT_FILENO, "FAIL %s: signal %d\n", current, number);
  _exit(2);
}

/* ---- around each call ---- */

static void begin (world *w) {
  if (way == UPWARD) fesetround(FE_UPWARD);
  feclearexcept(FE_ALL_EXCEPT);
  if (way == TRAPS) feenableexcept(FE_ALL_EXCEPT);
  w->rounding = fegetround();
  w->traps = fegetexcept();
  calls++;
}

static void end (world *w) {
  const int rounding = fegetround(), traps = fegetexcept();
  feclearexcept(FE_ALL_EXCEPT);
  fedisableexcept(FE_ALL_EXCEPT);
  fesetround(FE_TONEAREST);
  if (rounding != w->rounding || traps != w->traps) complain("changes the floating-point mode");
}

static void release_nothing (void *ud) { (void)ud; }

#include "api_cases.inc"

/* ---- a world ---- */

static void log_leaks (void *ud, marea_log_level level, const char *text) {
  (void)ud;
  leaks += level == MAREA_LOG_WARNING && strncmp(text, "closed with", 11) == 0;
}

static void need (marea_status status, const marea_context *ctx) {
  if (status == MAREA_OK) return;
  printf("FAIL making a world: %s\n", marea_error(ctx));
  exit(1);
}

static marea_tensor *make (marea_context *ctx, marea_dtype dtype, int rank, int64_t rows, int64_t columns) {
  marea_tensor *t;
  need(marea_zeros(ctx, dtype, rank, (int64_t[]){rows, columns}, &t), ctx);
  return t;
}

static marea_tensor *call (marea_context *ctx, const char *op, marea_tensor *t, marea_named a,
                           marea_named b) {
  marea_tensor *out;
  need(marea_call_op(ctx, op, 1, &t, b.name ? 2 : a.name ? 1 : 0, (marea_named[]){a, b}, 1, &out), ctx);
  return out;
}

#define NONE ((marea_named){.name = NULL})

/* Survivors of a plan: a result, and a view of it that begins elsewhere. */
static void make_survivors (world *w) {
  need(marea_plan_start(w->ctx), w->ctx);
  w->over = call(w->ctx, "neg", w->t, NONE, NONE);
  w->over_view = call(w->ctx, "select", w->over, marea_int("dim", 0), marea_int("index", 1));
  marea_plan_stop(w->ctx);
}

static void make_tensors (world *w) {
  marea_context *ctx = w->ctx;
  w->t = make(ctx, MAREA_F32, 2, 2, 3);
  w->u = make(ctx, MAREA_F32, 2, 2, 3);
  w->leaf = make(ctx, MAREA_F32, 2, 2, 3);
  need(marea_require_grad(w->leaf, true), ctx);
  w->y = call(ctx, "square", w->leaf, NONE, NONE);
  w->scalar = make(ctx, MAREA_F64, 0, 0, 0);
  w->empty = make(ctx, MAREA_F32, 2, 0, 3);
  w->integers = make(ctx, MAREA_I64, 1, 3, 0);
  w->gaps = call(ctx, "transpose", w->t, marea_int("dim1", 0), marea_int("dim2", 1));
  w->expanded = call(ctx, "expand", w->scalar, marea_ints("shape", 2, (int64_t[]){2, 3}), NONE);
  need(marea_from_memory(ctx, MAREA_F64, 1, (int64_t[]){4}, w->numbers, NULL, NULL, &w->lent), ctx);
  marea_protect(w->lent);
  w->foreign = make(w->other, MAREA_F32, 2, 2, 3);
  need(marea_require_grad(w->foreign, true), w->other);
  make_survivors(w);
  if (way == IN_A_PLAN) {
    need(marea_plan_start(ctx), ctx);
    w->planned = call(ctx, "neg", w->t, NONE, NONE);
  }
}

static void set_pair (marea_tensor **list, marea_tensor *a, marea_tensor *b) { list[0] = a, list[1] = b; }

static void make_lists (world *w) {
  set_pair(w->list, w->t, w->u);
  set_pair(w->leaves, w->leaf, w->leaf);
  set_pair(w->with_null, w->leaf, NULL);
  set_pair(w->with_foreign, w->leaf, w->foreign);
  set_pair(w->with_over, w->leaf, w->over);
  set_pair(w->with_over_view, w->leaf, w->over_view);
}

static const char *path (const char *name) {
  static char paths[16][100];
  static int turn;
  turn = (turn + 1) % 16;
  snprintf(paths[turn], sizeof paths[turn], "%s/%s", folder, name);
  return paths[turn];
}

static void make_values (world *w) {
  w->long_text = long_text;
  w->named = marea_int("dim", 0);
  w->garbage_type = w->garbage_length = w->no_name = w->named;
  w->garbage_type.type = (marea_named_type)77;
  w->garbage_length = (marea_named){.name = "dim", .type = MAREA_NAMED_LIST, .n = 1 << 30};
  w->no_name.name = NULL;
  w->config = (marea_config){.size = sizeof w->config, .threads = 1};
  w->config_size = w->config_few = w->config_many = w->config_base = w->config_isa = w->config;
  w->config_size.size = 0;
  w->config_few.threads = -1;
  w->config_many.threads = 65;
  w->config_base.index_base = 2;
  w->config_isa.isa = "abacus";
  w->shape[0] = 2, w->shape[1] = 3;
  w->negative[0] = -1, w->negative[1] = 3;
  w->huge[0] = w->huge[1] = INT64_MAX;
  w->random = (marea_random_state){1, 2};
  w->odd_random = (marea_random_state){UINT64_MAX, UINT64_MAX};
  w->file.idx = path("a.idx"), w->file.npy = path("a.npy"), w->file.png = path("a.png");
  w->file.jpeg = path("a.jpg");
  w->file.npz = path("a.npz"), w->file.torch = path("a.pt");
  w->file.gguf = path("a.gguf"), w->file.t7 = path("a.t7");
  w->file.safetensors = path("a.safetensors"), w->file.onnx = path("a.onnx"), w->file.new = path("new");
}

static void make_trace (world *w) {
  static const char *const inputs[] = {"a"}, *const results[] = {"y"};
  need(marea_trace_start(w->ctx, 1, w->list), w->ctx);
  marea_tensor *y = call(w->ctx, "neg", w->t, NONE, NONE);
  need(marea_trace_stop(w->ctx, 1, &y, &w->trace), w->ctx);
  marea_release(y);
  w->names = (marea_onnx_names){.inputs = inputs, .results = results};
}

/* torch.save([7]) */
static const unsigned char torch_list[] = {
    80,  75, 3,  4,   20, 0,  0,  0, 0, 0,  0,  0,   33, 0,   109, 1,  91,  113, 7,   0,   0,
    0,   7,  0,  0,   0,  10, 0,  0, 0, 97, 47, 100, 97, 116, 97,  46, 112, 107, 108, 128, 2,
    93,  75, 7,  97,  46, 80, 75, 1, 2, 20, 3,  20,  0,  0,   0,   0,  0,   0,   0,   33,  0,
    109, 1,  91, 113, 7,  0,  0,  0, 7, 0,  0,  0,   10, 0,   0,   0,  0,   0,   0,   0,   0,
    0,   0,  0,  128, 1,  0,  0,  0, 0, 97, 47, 100, 97, 116, 97,  46, 112, 107, 108, 80,  75,
    5,   6,  0,  0,   0,  0,  1,  0, 1, 0,  56, 0,   0,  0,   47,  0,  0,   0,   0,   0,
};

static const unsigned char gguf[24] = {'G', 'G', 'U', 'F', 3}; /* of nothing */

static world *new_world (void) {
  world *w = calloc(1, sizeof *w);
  const marea_config config = {.size = sizeof config, .threads = 1, .isa = "generic", .log = log_leaks};
  need(marea_open(&config, &w->ctx), NULL);
  need(marea_open(&config, &w->other), NULL);
  make_values(w);
  make_tensors(w);
  make_lists(w);
  need(marea_profile_start(w->ctx, 16, &w->p), w->ctx);
  marea_profile_stop(w->p);
  need(marea_file_new(w->ctx, &w->f), w->ctx);
  need(marea_save_bytes(w->ctx, w->file.torch, torch_list, sizeof torch_list), w->ctx);
  need(marea_load_torch(w->ctx, w->file.torch, &w->tree), w->ctx);
  need(marea_save_bytes(w->ctx, w->file.gguf, gguf, sizeof gguf), w->ctx);
  need(marea_save_bytes(w->ctx, w->file.t7, "\5\0\0\0\1\0\0\0", 8), w->ctx); /* true */
  need(marea_json_read(w->ctx, "[{}]", 4, &w->j), w->ctx);
  need(marea_onnx_parse(w->ctx, model, MODEL_BYTES, &w->g), w->ctx);
  make_trace(w);
  need(marea_file_add(w->f, "a", w->t), w->ctx);
  need(marea_file_add_text(w->f, "k", "v"), w->ctx);
  for (int i = 0; i < OUT; i++) w->out[i] = (marea_tensor *)w; /* no tensor: shows what is written */
  return w;
}

static void drop_world (world *w) {
  marea_tensor *const own[] = {w->t,       w->u,        w->y,         w->leaf,     w->scalar,
                               w->empty,   w->integers, w->gaps,      w->expanded, w->lent,
                               w->foreign, w->over,     w->over_view, w->planned};
  for (int i = 0; i < COUNT(own); i++) marea_release(own[i]);
  for (int i = 0; i < OUT; i++)
    if (w->out[i] != (marea_tensor *)w) marea_release(w->out[i]);
  marea_file_free(w->f);
  marea_file_free(w->loaded);
  marea_tree_free(w->tree);
  marea_tree_free(w->planted);
  marea_json_free(w->j);
  marea_json_free(w->parsed);
  marea_graph_free(w->g);
  marea_trace_free(w->trace);
  marea_trace_free(w->traced);
  marea_graph_free(w->made);
  marea_profile_free(w->p);
  marea_profile_free(w->started);
  marea_plan_stop(w->ctx);
  marea_close(w->opened);
  leaks = 0;
  marea_close(w->ctx);
  marea_close(w->other);
  if (leaks) complain("leaks");
  free(w);
}

/* ---- one call ---- */

static bool is_said (const world *w, const char *words) {
  return strstr(marea_error(w->ctx), words) || strstr(marea_error(w->other), words);
}

static void check_words (const world *w, const char *label) {
  if (strstr(label, "foreign") && !is_said(w, "belongs to another context"))
    complain("does not name the reason");
  if (strstr(label, "over") && !is_said(w, "from a plan that has ended"))
    complain("does not name the reason");
}

/* Of the two parameters that are not good, b may be -1. */
static void check (const world *w, const function *f, int status, int a, const int *v) {
  const int says = a >= 0 ? f->says[a][v[a]] : OK;
  const bool given = w->out[0] && w->out[0] != (const marea_tensor *)w;
  if (status == NO_STATUS) return;
  if (status != MAREA_OK && given) complain("gives a result although it fails");
  if (way == IN_A_PLAN) return;
  if (says == OK && status != MAREA_OK) complain(marea_error(w->ctx));
  if (says == REFUSED && status == MAREA_OK) complain("is not refused");
  if (says == REFUSED && status != MAREA_OK && a >= 0) check_words(w, f->label[a][v[a]]);
}

static void name_call (const function *f, int a, int b, const int *v) {
  int n = snprintf(current, sizeof current, "%s (%s)", f->name, way_name[way]);
  for (int k = 0; k < f->n; k++)
    if (k == a || k == b)
      n += snprintf(current + n, sizeof current - (size_t)n, ", %s = %s", f->parameter[k], f->label[k][v[k]]);
}

static void make_call (const function *f, int a, int b, const int *v) {
  world *w = new_world();
  name_call(f, a, b, v);
  const int status = f->call(w, v);
  if (b < 0 && w->ctx) check(w, f, status, a, v);
  drop_world(w);
}

static int values_of (const function *f, int parameter) {
  int n = 0;
  while (n < MOST_VALUES && f->label[parameter][n]) n++;
  return n;
}

static void call_with_all (const function *f) {
  int v[MOST_PARAMETERS] = {0};
  make_call(f, -1, -1, v);
  for (int a = 0; a < f->n; a++, v[a - 1] = 0) {
    for (v[a] = 1; v[a] < values_of(f, a); v[a]++) {
      make_call(f, a, -1, v);
      for (int b = a + 1; b < f->n; b++, v[b - 1] = 0)
        for (v[b] = 1; v[b] < values_of(f, b); v[b]++) make_call(f, a, b, v);
    }
  }
}

/* What the loaders read. */
static void write_files (void) {
  static const char idx[] = "\0\0\x08\x01\0\0\0\x03\x01\x02\x03";
  world *w = new_world();
  FILE *file = fopen(w->file.idx, "wb");
  fwrite(idx, 1, sizeof idx - 1, file);
  fclose(file);
  need(marea_save_npy(w->t, w->file.npy), w->ctx);
  need(marea_save_png(w->u, w->file.png), w->ctx);
  need(marea_save_jpeg(w->u, w->file.jpeg, 90), w->ctx);
  need(marea_file_save(w->f, w->file.safetensors), w->ctx);
  need(marea_save_npz(w->f, w->file.npz), w->ctx);
  need(marea_save_bytes(w->ctx, w->file.onnx, model, MODEL_BYTES), w->ctx);
  drop_world(w);
}

/* ---- operators by chance ---- */

static uint64_t chance = 1;

static uint32_t draw (uint32_t n) {
  chance = chance * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(chance >> 33) % n;
}

/* Of results, the same in every floating-point mode. */
static uint64_t bits;

static void add_bytes (const void *bytes, size_t n) {
  for (size_t i = 0; i < n; i++) bits = (bits ^ ((const uint8_t *)bytes)[i]) * 1099511628211u;
}

static void add_bits (const marea_tensor *t) {
  if (!t || marea_is_planned(t) || !marea_tensor_contiguous(t)) return;
  add_bytes(marea_tensor_data(t), (size_t)marea_tensor_size(t) * marea_dtype_size(marea_tensor_dtype(t)));
}

#define PICK(list) (list)[draw((uint32_t)COUNT(list))]

static void spoil (marea_attr *a, const marea_attr_spec *spec) {
  static const int n[] = {0, 1, 1, 1, 2, 2, 4, 4, 3, 8, 9, 99, -1, -2, INT32_MIN, INT32_MAX};
  static const int64_t v[] = {0, 0, 1, 1, 1, 2, 2, 3, 5, -1, -2, 99, INT64_C(1) << 40, INT64_MIN, INT64_MAX};
  static const double f[] = {0, 0.5, 1, -1, 2, 1e300, -1e300, 1e-320, (double)NAN, (double)INFINITY};
  a->n = PICK(n);
  for (int i = 0; i < MAREA_MAX_RANK; i++) a->v[i] = PICK(v);
  if (spec->kind == MAREA_REAL) a->f = PICK(f);
}

/* Integers 0 to 2, reals from -3 to 3. */
static void fill (marea_tensor *t) {
  void *data = marea_tensor_data(t);
  for (int64_t i = 0; i < marea_tensor_size(t); i++) {
    const double value = ((double)draw(2000) - 1000) / 333;
    const marea_dtype dtype = marea_tensor_dtype(t);
    marea_put_number(dtype, (char *)data + (size_t)i * marea_dtype_size(dtype),
                     marea_dtype_is_float(dtype) ? value : (double)draw(3));
  }
}

enum { RANKS = 5, SHAPES = 5, POOL = RANKS * SHAPES * MAREA_DTYPE_COUNT };

static int make_pool (marea_context *ctx, marea_tensor *pool[POOL]) {
  static const int64_t sizes[SHAPES][4] = {
      {2, 3, 2, 1}, {3, 2, 4, 2}, {1, 4, 4, 2}, {3, 3, 0, 2}, {2, 2, 2, 2}};
  int n = 0;
  for (int rank = 0; rank < RANKS; rank++)
    for (int s = 0; s < SHAPES; s++)
      for (int dtype = 0; dtype < MAREA_DTYPE_COUNT; dtype++) {
        marea_tensor *t;
        need(marea_empty(ctx, (marea_dtype)dtype, rank, sizes[s], &t), ctx);
        fill(t);
        if (s % 2 == 0 && (dtype == MAREA_F32 || dtype == MAREA_F64)) need(marea_require_grad(t, true), ctx);
        pool[n++] = t;
      }
  return n;
}

/* Inputs that go together by chance, so that many calls get as far as the kernels: mostly one dtype and shape. */
static void draw_inputs (marea_tensor **pool, int n_pool, marea_tensor **in, int n_in, const world *w) {
  marea_tensor *const strange[] = {NULL, w->foreign, w->over, w->over_view, w->gaps, w->expanded, w->lent};
  marea_tensor *usual = pool[draw((uint32_t)n_pool)];
  for (int i = 0; i < n_in; i++) {
    const uint32_t turn = draw(8);
    in[i] = turn == 0 ? PICK(strange) : turn < 4 ? pool[draw((uint32_t)n_pool)] : usual;
  }
}

/* y is its own seed: what matters is that every vjp runs. */
static void go_back (world *w, marea_tensor *y, int n_in, marea_tensor *const *in) {
  begin(w);
  const marea_status status = marea_backward(y, y, draw(4) ? 0 : MAREA_CREATE_GRAPH);
  end(w);
  if (status != MAREA_OK && !*marea_error(w->ctx)) complain("fails without words");
  for (int i = 0; i < n_in; i++) {
    add_bits(marea_grad_of(in[i]));
    marea_clear_grad(in[i]);
  }
}

/* Draws a call: its inputs, at most `room`, and attributes. Returns the number of inputs. */
static int draw_call (const world *w, const marea_op *op, marea_tensor **pool, int n_pool, marea_tensor **in,
                      int room, marea_attr *attrs) {
  const marea_attr_spec *specs;
  const marea_input_spec *inputs;
  const int n_attrs = marea_op_attrs(op, &specs), most = marea_op_inputs(op, &inputs);
  int n_in = most > 0 && inputs[0].variadic ? (int)draw(4) : most;
  if (draw(10) == 0) n_in = (int)draw((uint32_t)room) - 1;
  draw_inputs(pool, n_pool, in, n_in, w);
  marea_attrs_init(op, attrs);
  const uint32_t rate = 1 + draw(6);
  for (int k = 0; k < n_attrs; k++)
    if (specs[k].initial == MAREA_REQUIRED || draw(rate) == 0) spoil(&attrs[k], &specs[k]);
  return n_in;
}

static bool try_operator (world *w, const marea_op *op, marea_tensor **pool, int n_pool) {
  marea_attr attrs[MAREA_MAX_ATTRS];
  marea_tensor *in[12], *out[MAREA_MAX_OUT];
  int n_out = 0;
  const int n_in = draw_call(w, op, pool, n_pool, in, COUNT(in), attrs);
  const bool in_place = draw(5) == 0;
  snprintf(current, sizeof current, "%s by chance (%s), call %ld", marea_op_name(op), way_name[way], calls);
  marea_limit_flop(w->ctx, 1e6);
  begin(w);
  marea_status status = in_place ? marea_apply_(w->ctx, op, n_in, in, attrs)
                                 : marea_apply(w->ctx, op, n_in, in, attrs, out, &n_out);
  end(w);
  if (status != MAREA_OK && !*marea_error(w->ctx)) complain("fails without words");
  for (int k = 0; k < n_out; k++) add_bits(out[k]);
  if (n_out > 0 && marea_requires_grad(out[0])) go_back(w, out[0], n_in, in);
  for (int k = 0; k < n_out; k++) marea_release(out[k]);
  return status == MAREA_OK;
}

/* In every mode the same calls, so the same bits. */
static bool operators_hold (void) {
  static uint64_t usual[MOST_OPERATORS];
  const int before = failed;
  long fine = 0;
  for (int i = 0; i < marea_op_count() && i < MOST_OPERATORS; i++) {
    world *w = new_world();
    marea_tensor *pool[POOL];
    chance = (uint64_t)i + 1;
    bits = 0;
    const int n_pool = make_pool(w->ctx, pool);
    marea_memory_limit(w->ctx, (size_t)64 << 20);
    for (int k = 0; k < TRIES; k++) fine += try_operator(w, marea_op_at(i), pool, n_pool);
    for (int k = 0; k < n_pool; k++) marea_release(pool[k]);
    drop_world(w);
    if (way == USUAL) usual[i] = bits;
    else if (way != IN_A_PLAN && bits != usual[i]) complain("other bits than in the usual mode");
  }
  printf("  %d operators, %d calls each by chance, %ld of them succeeded\n", marea_op_count(), TRIES, fine);
  return failed == before && fine > (long)TRIES * marea_op_count() / 50;
}

/* ---- what is computed outside of operators ---- */

static void compute_the_rest (world *w) {
  marea_tensor *x, *narrow, *png = NULL, *grads[1] = {NULL};
  marea_statistics s = {0};
  chance = 7;
  x = make(w->ctx, MAREA_F64, 2, 5, 7), narrow = make(w->ctx, MAREA_F32, 2, 5, 7);
  fill(x);
  begin(w);
  bool ok = marea_copy(narrow, x) == MAREA_OK && marea_encode_png(x, &png) == MAREA_OK;
  marea_statistics_of(x, 0, &s);
  ok &= marea_grad(w->y, w->u, 1, w->leaves, 0, grads) == MAREA_OK;
  ok &= marea_empty(w->ctx, MAREA_F32, 2, (int64_t[]){1 << 30, 1 << 30}, &w->out[0]) == MAREA_ENOMEM;
  end(w);
  if (!ok) complain(marea_error(w->ctx));
  add_bits(narrow), add_bits(png), add_bits(grads[0]);
  add_bytes(&s.mean, sizeof s.mean);
  add_bytes(marea_error(w->ctx), strlen(marea_error(w->ctx)));
  marea_release(x), marea_release(narrow), marea_release(png), marea_release(grads[0]);
}

static bool the_rest_holds (void) {
  static uint64_t usual;
  const int before = failed;
  snprintf(current, sizeof current, "copies, pictures, statistics, messages (%s)", way_name[way]);
  world *w = new_world();
  bits = 0;
  compute_the_rest(w);
  drop_world(w);
  if (way == USUAL) usual = bits;
  else if (bits != usual) complain("other bits than in the usual mode");
  return failed == before;
}

/* ---- marea_lua.h ---- */

static int push_nothing (lua_State *L) {
  marea_lua_push(L, NULL);
  return 1;
}

static int push_foreign (lua_State *L) {
  marea_context *other;
  marea_tensor *t;
  need(marea_open(NULL, &other), NULL);
  need(marea_zeros(other, MAREA_F32, 0, NULL, &t), other);
  marea_close(other); /* goes with the tensor, which the error leaves to us */
  lua_pushlightuserdata(L, t);
  lua_setglobal(L, "foreign");
  marea_lua_push(L, t);
  return 1;
}

static int check_nothing (lua_State *L) {
  lua_settop(L, 0);
  marea_lua_check(L, 1);
  return 0;
}

static int open_again (lua_State *L) {
  marea_context *ctx;
  need(marea_open(NULL, &ctx), NULL);
  lua_pushlightuserdata(L, ctx);
  lua_setglobal(L, "unused");
  marea_lua_open(L, ctx);
  return 0;
}

static bool raises (lua_State *L, lua_CFunction f, const char *words) {
  lua_pushcfunction(L, f);
  const bool raised = lua_pcall(L, 0, 0, 0) != LUA_OK && strstr(lua_tostring(L, -1), words);
  lua_settop(L, 0);
  return raised;
}

static bool states_hold (void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  NEED(!marea_lua_context(L));
  NEED(raises(L, push_nothing, "not open"));
  NEED(raises(L, check_nothing, "not open"));
  marea_sandbox_check(L);
  marea_lua_preload(L);
  luaL_requiref(L, "marea.core", luaopen_marea_core, 0);
  luaL_requiref(L, "marea", luaopen_marea, 0);
  lua_settop(L, 0);
  marea_lua_open(L, NULL);
  marea_sandbox_check(L); /* is in no sandbox */
  NEED(marea_lua_context(L));
  NEED(raises(L, push_nothing, "'t' is NULL"));
  NEED(raises(L, push_foreign, "belongs to another context"));
  NEED(raises(L, check_nothing, "expected a tensor"));
  NEED(raises(L, open_again, "open already"));
  lua_getglobal(L, "foreign");
  marea_release(lua_touserdata(L, -1));
  lua_getglobal(L, "unused");
  marea_close(lua_touserdata(L, -1));
  lua_close(L);
  return true;
}

/* A host's userdata, as large as a tensor's box and with the bytes that the freed one left. */
static int host_object (lua_State *L) {
  lua_newuserdatauv(L, 64, 0);
  return 1;
}

/* A finalizer brings boxes back to life, which are then used and die for good; what lies at their addresses is no tensor. */
static bool revived_boxes_hold (void) {
  static const char text[] =
      "local marea, core = require 'marea', require 'marea.core'\n"
      "local wrong = 0\n"
      "for round = 1, 20 do\n"
      "  local alive\n"
      "  do\n"
      "    local boxes = {}\n"
      "    for i = 1, 100 do boxes[i] = marea.ones(1) end\n"
      "    setmetatable({}, {__gc = function() alive = boxes end})\n"
      "  end\n"
      "  collectgarbage()\n"
      "  for i = 1, 100 do assert(core.is_tensor(alive[i]) and not pcall(marea.abs, alive[i])) end\n"
      "  alive = nil\n"
      "  collectgarbage()\n"
      "  local others = {}\n"
      "  for i = 1, 200 do others[i] = object() end\n"
      "  for i = 1, 200 do wrong = wrong + (core.is_tensor(others[i]) and 1 or 0) end\n"
      "end\n"
      "return wrong\n";
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  marea_lua_preload(L);
  lua_register(L, "object", host_object);
  if (luaL_dostring(L, text) != LUA_OK) return report(lua_tostring(L, -1), false), false;
  NEED(lua_tointeger(L, -1) == 0);
  lua_close(L);
  return true;
}

static bool sandboxes_hold (void) {
  marea_sandbox *box = NULL;
  marea_sandbox_config config = {.size = 1};
  NEED(marea_sandbox_open(NULL, NULL) == MAREA_EARG);
  NEED(marea_sandbox_open(&config, &box) == MAREA_EVERSION && !box);
  config = (marea_sandbox_config){.size = sizeof config, .max_seconds = (double)NAN, .max_flop = -1};
  NEED(marea_sandbox_open(&config, &box) == MAREA_OK);
  NEED(marea_sandbox_run(NULL, "return 1", 8, "=x", NULL, 0) == -1);
  NEED(marea_sandbox_run(box, NULL, 8, "=x", NULL, 0) == -1 &&
       strstr(marea_sandbox_error(box), "'text' is NULL"));
  NEED(marea_sandbox_run(box, "return 1", 8, NULL, NULL, 0) == -1);
  NEED(strstr(marea_sandbox_error(box), "'name' is NULL"));
  NEED(marea_sandbox_run(box, "return 1", 8, "=x", NULL, -3) == -1);
  NEED(marea_sandbox_run(box, "return 1", 8, "=x", marea_sandbox_state(box), 99) == -1);
  NEED(marea_sandbox_run(box, NULL, 0, "=x", NULL, 0) == 0);
  NEED(marea_sandbox_run(box, "return 1", 8, "=x", NULL, 0) == 1);
  NEED(*marea_sandbox_error(NULL) && !*marea_sandbox_output(NULL) && !marea_sandbox_state(NULL));
  marea_sandbox_globals(NULL);
  marea_sandbox_close(NULL);
  marea_sandbox_close(box);
  return true;
}

/* A script's 0/0 does not reach a host that traps it. */
static bool scripts_do_not_trap (void) {
  static const char text[] =
      "local x = marea.tensor{0.1, 0} return 0/0 ~= 0/0 and 1/0 > 1 and (x / 0):numel()";
  marea_sandbox *box;
  NEED(marea_sandbox_open(NULL, &box) == MAREA_OK);
  feclearexcept(FE_ALL_EXCEPT);
  feenableexcept(FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW);
  const int results = marea_sandbox_run(box, text, sizeof text - 1, "=x", NULL, 0), traps = fegetexcept();
  fedisableexcept(FE_ALL_EXCEPT);
  NEED(traps == (FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW));
  NEED(results == 1 && lua_tointeger(marea_sandbox_state(box), -1) == 2);
  marea_sandbox_close(box);
  return true;
}

int main (void) {
  static const int deadly[] = {SIGFPE, SIGBUS, SIGILL, SIGSEGV};
  for (int i = 0; i < COUNT(deadly); i++) signal(deadly[i], died);
  memset(long_text, 'x', sizeof long_text - 1);
  snprintf(folder, sizeof folder, "%s/marea-armor-XXXXXX",
           access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  if (!mkdtemp(folder)) return 1;
  write_files();
  for (way = USUAL; way < WAYS; way++) {
    const long before = calls;
    const int failed_before = failed;
    for (int i = 0; i < COUNT(functions); i++) call_with_all(&functions[i]);
    printf("%s %d functions, %s: %ld calls\n", failed == failed_before ? "ok  " : "FAIL", COUNT(functions),
           way_name[way], calls - before);
    report("operators with inputs and attributes by chance", operators_hold());
    if (way != IN_A_PLAN) report("copies, pictures, statistics, messages", the_rest_holds());
  }
  report("marea_lua.h", states_hold());
  report("boxes that were brought back to life", revived_boxes_hold());
  report("sandboxes", sandboxes_hold());
  report("a script's divisions do not trap in the host", scripts_do_not_trap());
  char command[100];
  snprintf(command, sizeof command, "rm -r %s", folder);
  return system(command) != 0 || failed > 0;
}
