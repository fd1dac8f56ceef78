/* SPDX-License-Identifier: MIT
** print.c: a tensor as text: dtype, shape, smallest value, mean and largest value of the finite elements, numbers of
** NaNs and infinities, then a corner of its elements. The time is bounded: of a large tensor the statistics are those
** of a sample, and say so. Numbers are shown as they are, without a common factor.
*/
#include <limits.h>
#include <math.h>
#include <stdio.h>

#include "bind.h"

#define EDGE 3 /* rows and columns shown at each end */
#define SHOWN (2 * EDGE)
/* Elements that statistics look at, half as many of eight bytes: 16 MiB, which take 1 ms to read once. */
#define SAMPLE (INT64_C(4) << 20)
#define DIGITS 5
#define CELL 32 /* bytes of the text of one number */

static bind_element element (const marea_tensor *t, int64_t offset) {
  const char *data = marea_tensor_data(t);
  return bind_element_at(t, data + offset * (int64_t)marea_dtype_size(marea_tensor_dtype(t)));
}

/* NaN without its sign, which means nothing. */
static void number_text (char *text, double value, int digits) {
  bind_format(text, CELL, "%.*g", digits, isnan(value) ? (double)NAN : value);
}

/* A float with at most so many digits. */
static void element_text (char *text, const marea_tensor *t, int64_t offset, int digits) {
  const bind_element e = element(t, offset);
  if (e.digits == 0) snprintf(text, CELL, "%lld", (long long)e.integer);
  else number_text(text, e.real, e.digits < digits ? e.digits : digits);
}

/* ---- statistics ---- */

/* Adds ", 3 NaN" and the like; nothing for 0. */
static void add_count (luaL_Buffer *b, bool first, int64_t n, const char *what) {
  char text[CELL * 2];
  if (n == 0) return;
  snprintf(text, sizeof text, "%s%lld %s", first ? ": " : ", ", (long long)n, what);
  luaL_addstring(b, text);
}

static void add_statistics (luaL_Buffer *b, const marea_tensor *t) {
  char text[CELL * 4], least[CELL], mean[CELL], most[CELL];
  marea_statistics s;
  marea_statistics_of(t, marea_dtype_size(marea_tensor_dtype(t)) > 4 ? SAMPLE / 2 : SAMPLE, &s);
  if (s.finite > 0) {
    number_text(least, s.least, DIGITS);
    number_text(mean, s.mean, DIGITS);
    number_text(most, s.most, DIGITS);
    snprintf(text, sizeof text, ": min %s, mean %s, max %s", least, mean, most);
    luaL_addstring(b, text);
  }
  add_count(b, s.finite == 0, s.nans, "NaN");
  add_count(b, s.finite + s.nans == 0, s.infinities, "Inf");
  if (s.seen == marea_tensor_size(t)) return;
  snprintf(text, sizeof text, " (of a sample of %lld)", (long long)s.seen);
  luaL_addstring(b, text);
}

/* ---- elements ---- */

/* How many of `size` are shown, and which is the i-th of them. */
static int shown (int64_t size) { return size > SHOWN ? SHOWN : (int)size; }

static int64_t position (int64_t size, int i) { return size > SHOWN && i >= EDGE ? size - SHOWN + i : i; }

/* A matrix of rows x columns whose element 0 is at `offset`. */
typedef struct block {
  int64_t rows, columns, row_step, column_step, offset;
} block;

static void add_block (luaL_Buffer *b, const marea_tensor *t, const block *m) {
  char cell[SHOWN][SHOWN][CELL];
  int rows = shown(m->rows), columns = shown(m->columns), width = 0;
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) {
      int64_t at = m->offset + position(m->rows, i) * m->row_step + position(m->columns, j) * m->column_step;
      element_text(cell[i][j], t, at, DIGITS);
      int n = (int)strlen(cell[i][j]);
      if (n > width) width = n;
    }
  for (int i = 0; i < rows; i++) {
    if (i == EDGE && m->rows > SHOWN) luaL_addstring(b, "\n  ...");
    luaL_addstring(b, "\n");
    for (int j = 0; j < columns; j++) {
      char text[CELL + 8];
      if (j == EDGE && m->columns > SHOWN) luaL_addstring(b, "  ...");
      snprintf(text, sizeof text, "  %*s", width, cell[i][j]);
      luaL_addstring(b, text);
    }
  }
}

/* Title of the block at `at`, the position in the dimensions before the last two. */
static void add_title (luaL_Buffer *b, int dims, const int64_t *at) {
  luaL_addstring(b, "\n[");
  for (int d = 0; d < dims; d++) {
    char text[CELL];
    snprintf(text, sizeof text, "%lld, ", (long long)at[d] + 1);
    luaL_addstring(b, text);
  }
  luaL_addstring(b, ":, :]");
}

/* The first and last matrices along the leading dimensions. */
static void add_blocks (luaL_Buffer *b, const marea_tensor *t) {
  int dims = marea_tensor_rank(t) - 2;
  const int64_t *shape = marea_tensor_shape(t), *stride = marea_tensor_strides(t);
  int64_t blocks = 1;
  for (int d = 0; d < dims; d++) blocks *= shape[d];
  block m = {shape[dims], shape[dims + 1], stride[dims], stride[dims + 1], 0};
  for (int i = 0; i < shown(blocks); i++) {
    int64_t at[MAREA_MAX_RANK], rest = position(blocks, i);
    m.offset = 0;
    for (int d = dims - 1; d >= 0; d--) {
      at[d] = rest % shape[d];
      rest /= shape[d];
      m.offset += at[d] * stride[d];
    }
    if (i == EDGE && blocks > SHOWN) luaL_addstring(b, "\n...");
    add_title(b, dims, at);
    add_block(b, t, &m);
  }
}

static void add_elements (luaL_Buffer *b, const marea_tensor *t) {
  const int64_t *shape = marea_tensor_shape(t), *stride = marea_tensor_strides(t);
  int rank = marea_tensor_rank(t);
  if (rank > 2) add_blocks(b, t);
  else if (rank == 2) add_block(b, t, &(block){shape[0], shape[1], stride[0], stride[1], 0});
  else add_block(b, t, &(block){1, shape[0], 0, stride[0], 0});
}

/* tostring(t). A released tensor has a text too: what it was and where it ended. */
int bind_tostring (lua_State *L) {
  bind_state *S = bind_self(L);
  const bind_box *given = bind_to_box(L, S, 1);
  if (!given || !given->t) {
    bind_describe(L, S, 1);
    return 1;
  }
  bind_box *own = bind_box_new(L, S); /* building text collects garbage, and a finalizer may release t */
  if (!given->t) return bind_raise_released(L, S, "tostring", "t", given);
  marea_tensor *t = marea_retain(given->t);
  bind_box_fill(own, t);
  if (marea_tensor_rank(t) == 0 && !marea_is_planned(t)) {
    char text[CELL];
    element_text(text, t, 0, INT_MAX); /* as precise as its dtype */
    lua_pushfstring(L, "%s (%s)", text, bind_dtype_name(t));
    bind_box_release(own, BIND_BY_CALL, (bind_place){0, 0});
    return 1;
  }
  const char *head = lua_pushfstring(L, "tensor %s", bind_shape(t).s);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, head);
  if (marea_tensor_size(t) == 0) luaL_addstring(&b, ", empty");
  else if (marea_is_planned(t)) luaL_addstring(&b, ", planned: no values");
  else {
    add_statistics(&b, t);
    add_elements(&b, t);
  }
  luaL_pushresult(&b);
  bind_box_release(own, BIND_BY_CALL, (bind_place){0, 0});
  return 1;
}
