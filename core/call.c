/* SPDX-License-Identifier: MIT
** call.c: marea_call_op, which takes operators and attributes by name, for programs that are written by hand. The
** descriptor tells the kind of an attribute; a value of another type is an error that names what was expected.
*/
#include <stdio.h>
#include <string.h>

#include "core.h"

marea_named marea_real (const char *name, double value) {
  return (marea_named){.name = name, .type = MAREA_NAMED_REAL, .n = 1, .f = value};
}

marea_named marea_int (const char *name, int64_t value) {
  return (marea_named){.name = name, .type = MAREA_NAMED_INT, .n = 1, .v = {value}};
}

marea_named marea_word (const char *name, const char *value) {
  return (marea_named){.name = name, .type = MAREA_NAMED_TEXT, .n = 1, .s = value};
}

marea_named marea_ints (const char *name, int n, const int64_t *values) {
  marea_named a = {.name = name, .type = MAREA_NAMED_LIST, .n = n > 0 && !values ? -1 : n};
  for (int i = 0; i < MAREA_MIN(a.n, MAREA_MAX_RANK); i++) a.v[i] = values[i];
  return a;
}

/* ---- values ---- */

static bool is_integer (const marea_named *v) { return v->type == MAREA_NAMED_INT; }

static bool is_text (const marea_named *v) { return v->type == MAREA_NAMED_TEXT && v->s; }

static bool is_word (const char *word, size_t n, const char *text) {
  return strlen(text) == n && memcmp(word, text, n) == 0;
}

/* Position of the text in "mean|sum|none"; -1: none. */
static int64_t choice (const char *choices, const char *text) {
  for (int64_t i = 0;; i++) {
    size_t n = strcspn(choices, "|");
    if (is_word(choices, n, text)) return i;
    if (!choices[n]) return -1;
    choices += n + 1;
  }
}

static int64_t dtype_named (const char *text) {
  for (int d = 0; d < MAREA_DTYPE_COUNT; d++)
    if (strcmp(marea_dtype_name((marea_dtype)d), text) == 0) return d;
  return -1;
}

static bool set_integer (marea_attr *a, const marea_named *v) {
  a->i = v->v[0];
  return is_integer(v);
}

static bool set_number (marea_attr *a, const marea_named *v) {
  a->n = is_integer(v) ? MAREA_EXACT : 1;
  if (is_integer(v)) a->i = v->v[0];
  else a->f = v->f;
  return is_integer(v) || v->type == MAREA_NAMED_REAL;
}

/* An integer, or the position of a text, which is -1 for one that is not known. */
static bool set_position (marea_attr *a, const marea_named *v, int64_t position, int64_t count) {
  a->i = is_text(v) ? position : v->v[0];
  return (is_text(v) || is_integer(v)) && a->i >= 0 && a->i < count;
}

static bool set_list (marea_attr *a, const marea_named *v) {
  if (!is_integer(v) && v->type != MAREA_NAMED_LIST) return false;
  if (v->n < 0 || v->n > MAREA_MAX_RANK) return false;
  a->n = v->n;
  memcpy(a->v, v->v, sizeof a->v);
  return true;
}

static bool set_pair (marea_attr *a, const marea_named *v) {
  if (!set_list(a, v)) return false;
  if (is_integer(v)) a->v[1] = a->v[0];
  if (is_integer(v)) a->n = 2;
  return a->n == 2;
}

/* "same", or "valid", which is `sides` zeros */
static bool set_padding_word (marea_attr *a, const char *word, int sides) {
  memset(a, 0, sizeof *a);
  a->n = strcmp(word, "same") == 0 ? MAREA_SAME : sides;
  return a->n == MAREA_SAME || strcmp(word, "valid") == 0;
}

/* "same", "valid", n for both sides or {left, right} */
static bool set_sides (marea_attr *a, const marea_named *v) {
  return is_text(v) ? set_padding_word(a, v->s, 2) : set_pair(a, v);
}

/* "same", "valid", n for all sides, {height, width} or {top, bottom, left, right} */
static bool set_padding (marea_attr *a, const marea_named *v) {
  if (is_text(v)) return set_padding_word(a, v->s, 4);
  if (!set_list(a, v)) return false;
  if (a->n == 1) a->v[1] = a->v[0];
  if (a->n <= 2) {
    a->v[2] = a->v[3] = a->v[1];
    a->v[1] = a->v[0];
  }
  const bool fine = a->n == 1 || a->n == 2 || a->n == 4;
  a->n = 4;
  return fine;
}

static bool set_attr (marea_attr *a, const marea_attr_spec *spec, const marea_named *v) {
  a->n = 1;
  switch (spec->kind) {
  case MAREA_REAL:
    a->f = is_integer(v) ? (double)v->v[0] : v->f;
    return is_integer(v) || v->type == MAREA_NAMED_REAL;
  case MAREA_NUMBER: return set_number(a, v);
  case MAREA_BOOL: return set_position(a, v, -1, 2);
  case MAREA_ENUM:
    return set_position(a, v, is_text(v) ? choice(spec->choices, v->s) : -1,
                        marea_count_choices(spec->choices));
  case MAREA_DTYPE: return set_position(a, v, is_text(v) ? dtype_named(v->s) : -1, MAREA_DTYPE_COUNT);
  case MAREA_INT:
  case MAREA_DIM:
  case MAREA_INDEX: return set_integer(a, v);
  case MAREA_PAIR: return set_pair(a, v);
  case MAREA_PADDING: return set_padding(a, v);
  case MAREA_SIDES: return set_sides(a, v);
  default: return set_list(a, v);
  }
}

/* ---- messages ---- */

static marea_text described (const marea_named *v) {
  marea_text text;
  switch (v->type) {
  case MAREA_NAMED_REAL:
    marea_format(text.s, sizeof text.s, "the real number %g; marea_int makes an integer", v->f);
    break;
  case MAREA_NAMED_INT: snprintf(text.s, sizeof text.s, "%lld", (long long)v->v[0]); break;
  case MAREA_NAMED_TEXT: snprintf(text.s, sizeof text.s, "'%.60s'", v->s ? v->s : "(null)"); break;
  default: snprintf(text.s, sizeof text.s, "a list of %d", v->n); break;
  }
  return text;
}

/* ---- the call ---- */

marea_status marea_read_named (marea_context *ctx, const marea_op *op, int n, const marea_named *named,
                               marea_attr *attrs) {
  const marea_attr_spec *specs;
  const int count = marea_op_attrs(op, &specs);
  bool given[MAREA_MAX_ATTRS] = {false};
  marea_attrs_init(op, attrs);
  for (int i = 0; i < n; i++) {
    const char *name = named[i].name ? named[i].name : "";
    int k = 0;
    while (k < count && strcmp(specs[k].name, name) != 0) k++;
    if (k == count) return marea_fail(ctx, MAREA_EARG, "%s: unknown argument '%.60s'", op->name, name);
    if (!set_attr(&attrs[k], &specs[k], &named[i]))
      return marea_fail(ctx, MAREA_EARG, "%s: argument '%s': expected %s, got %s", op->name, name,
                        marea_attr_expected(&specs[k]), described(&named[i]).s);
    given[k] = true;
  }
  for (int k = 0; k < count; k++)
    if (specs[k].initial == MAREA_REQUIRED && !given[k])
      return marea_fail(ctx, MAREA_EARG, "%s: argument '%s': expected %s, got nothing", op->name,
                        specs[k].name, marea_attr_expected(&specs[k]));
  return MAREA_OK;
}

/* The operator of a name; "add_" is add in place. */
static const marea_op *find (const char *name, bool *in_place) {
  const marea_op *op = marea_op_find(name);
  const size_t n = strlen(name);
  char plain[64];
  *in_place = !op && n > 1 && n < sizeof plain && name[n - 1] == '_';
  if (!*in_place) return op;
  memcpy(plain, name, n - 1);
  plain[n - 1] = '\0';
  return marea_op_find(plain);
}

marea_status marea_call_op (marea_context *ctx, const char *name, int n_in, marea_tensor *const *in,
                            int n_named, const marea_named *named, int n_out, marea_tensor **out) {
  marea_attr attrs[MAREA_MAX_ATTRS];
  marea_tensor *results[MAREA_MAX_OUT];
  bool in_place;
  int n = 0;
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "call", ctx);
  MAREA_WANT_OR_RETURN(ctx, "call", name);
  MAREA_TRY(marea_want_list(ctx, "call", "in", n_in, in));
  MAREA_TRY(marea_want_list(ctx, "call", "named", n_named, named));
  MAREA_TRY(marea_want_list(ctx, "call", "out", n_out, out));
  for (int k = 0; k < n_out; k++) out[k] = NULL;
  const marea_op *op = find(name, &in_place);
  if (!op) return marea_fail(ctx, MAREA_EARG, "call: there is no operator '%.60s'", name);
  MAREA_TRY(marea_read_named(ctx, op, n_named, named, attrs));
  if (in_place) return marea_invoke_(ctx, op, n_in, in, attrs);
  MAREA_TRY(marea_invoke(ctx, op, n_in, in, attrs, results, &n));
  for (int k = 0; k < n; k++)
    if (k < n_out) out[k] = results[k];
    else marea_release(results[k]);
  return MAREA_OK;
}
