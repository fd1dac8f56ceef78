/* SPDX-License-Identifier: MIT
** print.c: a program as text, a line a call:
**
**   %2 f32 (1, 16, 16, 8) = conv2d(%0, f32 (3, 3, 3, 8), f32 (8)) {stride = 1 1, padding = 1 1 1 1, activation = relu}
**
** Constants are shown by dtype and shape, attributes where they differ from their initial values.
*/
#include <string.h>

#include "emit.h"

typedef struct writer {
  char *to; /* NULL: only counts */
  size_t n;
} writer;

static void put (writer *w, const char *text) {
  const size_t n = strlen(text);
  if (w->to) memcpy(w->to + w->n, text, n);
  w->n += n;
}

#define PUT(w, ...)                                 \
  do {                                              \
    char text_[256];                                \
    marea_format(text_, sizeof text_, __VA_ARGS__); \
    put(w, text_);                                  \
  } while (0)

static void put_layout (writer *w, const marea_layout *l) {
  PUT(w, "%s %s", marea_dtype_name((marea_dtype)l->dtype), marea_shape_text(l->rank, l->shape).s);
}

static void put_slot (writer *w, const marea_program *p, int slot) {
  if (slot < 0) put(w, "none");
  else if (p->slots[slot]) put_layout(w, &p->layouts[slot]);
  else PUT(w, "%%%d", slot);
}

static bool is_list (marea_attr_kind kind) {
  return kind == MAREA_DIMS || kind == MAREA_SIZES || kind == MAREA_PAIR || kind == MAREA_PADDING ||
         kind == MAREA_SIDES;
}

static void put_list (writer *w, const marea_attr *a) {
  if (a->n == MAREA_SAME) put(w, "same");
  for (int i = 0; i < a->n; i++) PUT(w, "%s%lld", i ? " " : "", (long long)a->v[i]);
}

static void put_choice (writer *w, const char *choices, int64_t i) {
  for (; i > 0; i--) choices += strcspn(choices, "|") + 1;
  PUT(w, "%.*s", (int)strcspn(choices, "|"), choices);
}

static void put_value (writer *w, const marea_attr_spec *spec, const marea_attr *a) {
  if (is_list(spec->kind)) put_list(w, a);
  else if (spec->kind == MAREA_ENUM) put_choice(w, spec->choices, a->i);
  else if (spec->kind == MAREA_DTYPE && a->i >= 0) put(w, marea_dtype_name((marea_dtype)a->i));
  else if (spec->kind == MAREA_REAL || (spec->kind == MAREA_NUMBER && a->n != MAREA_EXACT))
    PUT(w, "%g", a->f);
  else PUT(w, "%lld", (long long)a->i);
}

static bool differs (const marea_attr_spec *spec, const marea_attr *a, const marea_attr *initial) {
  if (is_list(spec->kind))
    return a->n != initial->n || (a->n > 0 && memcmp(a->v, initial->v, (size_t)a->n * sizeof a->v[0]) != 0);
  return a->i != initial->i; /* f and i lie in the same place */
}

static void put_attrs (writer *w, const marea_program_call *c) {
  const marea_attr_spec *specs;
  marea_attr initial[MAREA_MAX_ATTRS];
  const int n = marea_op_attrs(c->op, &specs);
  const char *before = " {";
  marea_attrs_init(c->op, initial);
  for (int i = 0; i < n; i++) {
    if (!differs(&specs[i], &c->attr[i], &initial[i])) continue;
    PUT(w, "%s%s = ", before, specs[i].name);
    put_value(w, &specs[i], &c->attr[i]);
    before = ", ";
  }
  if (before[0] == ',') put(w, "}");
}

static void put_call (writer *w, const marea_program *p, const marea_program_call *c) {
  for (int k = 0; k < c->n_out; k++) {
    const int slot = c->slot[c->n_in + k];
    PUT(w, "%s%%%d ", k ? ", " : "", slot);
    put_layout(w, &p->layouts[slot]);
  }
  PUT(w, " = %s(", c->op->name);
  for (int i = 0; i < c->n_in; i++) {
    if (i) put(w, ", ");
    put_slot(w, p, c->slot[i]);
  }
  put(w, ")");
  put_attrs(w, c);
  put(w, "\n");
}

static void put_ports (writer *w, const char *word, const marea_program *p, const int *slots, int n) {
  put(w, word);
  for (int i = 0; i < n; i++) {
    put(w, i ? ", " : " ");
    put_slot(w, p, slots[i]);
    put(w, " ");
    put_layout(w, &p->layouts[slots[i]]);
  }
  put(w, "\n");
}

static void put_program (writer *w, const marea_program *p) {
  put_ports(w, "inputs", p, p->inputs, p->n_inputs);
  for (int i = 0; i < p->n_calls; i++) put_call(w, p, &p->calls[i]);
  put_ports(w, "results", p, p->outputs, p->n_outputs);
}

marea_status marea_program_text (const marea_program *p, marea_tensor **out) {
  writer w = {NULL, 0};
  marea_layout layout;
  put_program(&w, p);
  marea_layout_set(&layout, MAREA_U8, 1, (int64_t[]){(int64_t)w.n});
  MAREA_TRY(marea_tensor_new(p->ctx, "graph", &layout, out));
  w = (writer){marea_at(*out), 0};
  put_program(&w, p);
  return MAREA_OK;
}
