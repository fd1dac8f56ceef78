/* SPDX-License-Identifier: MIT
** registry.c: the table of operators, made from LIST.h, and what a caller may ask about them.
**
** Lookup by name is a plain search: bindings look each name up once, when they open, and keep the pointer.
*/
#include <string.h>

#include "core.h"

static const marea_op *const table[] = {
#define OP(name) &marea_op_##name,
#include "LIST.h"
#undef OP
};

int marea_op_count (void) { return MAREA_COUNT(table); }

const marea_op *marea_op_at (int i) { return i >= 0 && i < MAREA_COUNT(table) ? table[i] : NULL; }

const marea_op *marea_op_find (const char *name) {
  for (int i = 0; name && i < MAREA_COUNT(table); i++)
    if (strcmp(table[i]->name, name) == 0) return table[i];
  return NULL;
}

const char *marea_op_name (const marea_op *op) { return op ? op->name : ""; }

const char *marea_op_family (const marea_op *op) { return op ? op->family : ""; }

const char *marea_op_doc (const marea_op *op) { return op ? op->doc : ""; }

const char *marea_op_sample (const marea_op *op) { return op ? op->sample : ""; }

int marea_op_inputs (const marea_op *op, const marea_input_spec **specs) {
  int n = 0;
  while (op && n < MAREA_COUNT(op->inputs) && op->inputs[n].name) n++;
  if (specs) *specs = op ? op->inputs : NULL;
  return n;
}

int marea_op_attrs (const marea_op *op, const marea_attr_spec **specs) {
  int n = 0;
  while (op && op->attrs && op->attrs[n].name) n++;
  if (specs) *specs = op ? op->attrs : NULL;
  return n;
}

bool marea_op_differentiable (const marea_op *op) { return op && op->vjp && !(op->flags & MAREA_NO_GRAD); }

bool marea_op_once (const marea_op *op) { return op && op->once; }

bool marea_op_elementwise (const marea_op *op) { return op && op->flags & MAREA_ELEMENTWISE; }

bool marea_op_mutates (const marea_op *op) { return op && op->flags & MAREA_MUTATES; }

bool marea_op_takes_numbers (const marea_op *op) { return op && op->flags & MAREA_NUMBERS; }

bool marea_op_gives_reals (const marea_op *op) { return op && op->flags & MAREA_REALS; }

/* Length of a list attribute whose numbers all start at the initial value; DIMS and SIZES start empty. */
static int list_length (marea_attr_kind kind) {
  return kind == MAREA_PAIR || kind == MAREA_SIDES ? 2 : kind == MAREA_PADDING ? 4 : 0;
}

static void init_attr (const marea_attr_spec *spec, marea_attr *attr) {
  memset(attr, 0, sizeof *attr);
  if (spec->initial == MAREA_REQUIRED) return;
  switch (spec->kind) {
  case MAREA_REAL:
  case MAREA_NUMBER:
    attr->n = spec->initial == MAREA_NONE ? 0 : 1;
    attr->f = spec->initial;
    return;
  case MAREA_INT:
  case MAREA_BOOL:
  case MAREA_ENUM:
  case MAREA_DTYPE:
  case MAREA_DIM:
  case MAREA_INDEX:
    attr->n = spec->initial == MAREA_NONE ? 0 : 1;
    attr->i = spec->initial == MAREA_NONE ? INT64_MIN : (int64_t)spec->initial;
    return;
  case MAREA_DIMS:
  case MAREA_SIZES:
  case MAREA_PAIR:
  case MAREA_PADDING:
  case MAREA_SIDES:
    attr->n = spec->initial == MAREA_NONE ? 0 : list_length(spec->kind);
    for (int k = 0; k < attr->n; k++) attr->v[k] = (int64_t)spec->initial;
  }
}

void marea_attrs_init (const marea_op *op, marea_attr *attrs) {
  const marea_attr_spec *specs;
  const int n = marea_op_attrs(op, &specs);
  for (int k = 0; attrs && k < n; k++) init_attr(&specs[k], &attrs[k]);
}
