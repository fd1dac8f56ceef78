/* SPDX-License-Identifier: MIT
** list.c: marea_file, what a safetensors file holds, as two lists in the order of names. Names and texts are
** checked when they are added, so that saving can fail for lack of memory or disk only.
*/
#include <string.h>

#include "io.h"

static void free_items (marea_context *ctx, marea_list *l) {
  for (int i = 0; i < l->n; i++) {
    marea_free(ctx, l->items[i].name);
    marea_free(ctx, l->items[i].text);
    marea_release(l->items[i].tensor);
  }
  marea_free(ctx, l->items);
}

marea_status marea_no_names (marea_context *ctx, const char *label) {
  return marea_fail(ctx, MAREA_ENOMEM, "%s: out of memory for names and texts", label);
}

/* Position of `name`, or of the first item after it. */
static int find (const marea_list *l, const char *name, bool *found) {
  int low = 0, high = l->n;
  *found = false;
  while (low < high) {
    int middle = low + (high - low) / 2, order = strcmp(l->items[middle].name, name);
    if (order == 0) *found = true;
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

bool marea_list_reserve (marea_context *ctx, marea_list *l, int room) {
  if (room <= l->room) return true;
  marea_item *items = marea_alloc(ctx, sizeof *items * (size_t)room);
  if (!items) return false;
  if (l->n) memcpy(items, l->items, sizeof *items * (size_t)l->n);
  marea_free(ctx, l->items);
  l->items = items;
  l->room = room;
  return true;
}

static char *copy_text (marea_context *ctx, const char *text) {
  size_t n = strlen(text) + 1;
  char *copy = marea_alloc(ctx, n);
  if (copy) memcpy(copy, text, n);
  return copy;
}

bool marea_list_insert (marea_context *ctx, marea_list *l, int at, const char *name, const char *text) {
  if (l->n == l->room && !marea_list_reserve(ctx, l, 2 * l->n + 16)) return false;
  marea_item new = {.name = copy_text(ctx, name), .text = text ? copy_text(ctx, text) : NULL};
  if (!new.name || (text && !new.text)) {
    marea_free(ctx, new.name);
    marea_free(ctx, new.text);
    return false;
  }
  memmove(l->items + at + 1, l->items + at, sizeof new *(size_t)(l->n - at));
  l->items[at] = new;
  l->n++;
  return true;
}

marea_status marea_file_new (marea_context *ctx, marea_file **out) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(ctx, "file", out);
  *out = NULL;
  MAREA_WANT_OR_RETURN(NULL, "file", ctx);
  marea_file *f = *out = marea_alloc(ctx, sizeof *f);
  if (!f) return marea_no_names(ctx, "file");
  *f = (marea_file){.ctx = ctx};
  return MAREA_OK;
}

void marea_file_free (marea_file *f) {
  if (!f) return;
  marea_context *ctx = f->ctx;
  free_items(ctx, &f->tensors);
  free_items(ctx, &f->texts);
  marea_free(ctx, f);
  marea_context_settle(ctx); /* this may have been the last block of a closed context */
}

MAREA_LOADER(marea_load_list, marea_list_parser, marea_file)

/* Item i; NULL: there is none. */
static const marea_item *item_at (const marea_list *l, int i) {
  return i >= 0 && i < l->n ? &l->items[i] : NULL;
}

int marea_file_count (const marea_file *f) { return f ? f->tensors.n : 0; }

const char *marea_file_name (const marea_file *f, int i) {
  const marea_item *item = f ? item_at(&f->tensors, i) : NULL;
  return item ? item->name : NULL;
}

marea_tensor *marea_file_tensor (const marea_file *f, int i) {
  const marea_item *item = f ? item_at(&f->tensors, i) : NULL;
  return item ? item->tensor : NULL;
}

marea_tensor *marea_file_find (const marea_file *f, const char *name) {
  bool found;
  if (!f || !name) return NULL;
  const int i = find(&f->tensors, name, &found);
  return found ? f->tensors.items[i].tensor : NULL;
}

int marea_file_text_count (const marea_file *f) { return f ? f->texts.n : 0; }

void marea_file_text (const marea_file *f, int i, const char **key, const char **value) {
  const marea_item *item = f ? item_at(&f->texts, i) : NULL;
  if (key) *key = item ? item->name : NULL;
  if (value) *value = item ? item->text : NULL;
}

bool marea_text_reserved (const char *key) {
  return strcmp(key, "marea") == 0 || strcmp(key, "crc32") == 0 || strncmp(key, "crc32:", 6) == 0;
}

/* JSON needs UTF-8. */
static marea_status check_utf8 (marea_context *ctx, const char *what, const char *text) {
  size_t n = strlen(text);
  for (int step; n > 0; text += step, n -= (size_t)step)
    if (!(step = marea_utf8(text, n, NULL)))
      return marea_fail(ctx, MAREA_EARG, "save: %s is not UTF-8 text", what);
  return MAREA_OK;
}

static marea_status check_new (marea_context *ctx, const marea_list *l, const char *what, const char *name,
                               int *at) {
  bool found;
  MAREA_TRY(check_utf8(ctx, what, name));
  if (strlen(name) > MAREA_MAX_NAME)
    return marea_fail(ctx, MAREA_EARG, "save: %s has %zu bytes; at most %d are allowed", what, strlen(name),
                      MAREA_MAX_NAME);
  if (l->n >= MAREA_MAX_TENSORS)
    return marea_fail(ctx, MAREA_EARG, "save: more than %d entries", MAREA_MAX_TENSORS);
  *at = find(l, name, &found);
  return found ? marea_fail(ctx, MAREA_EARG, "save: %s '%s' is given twice", what, name) : MAREA_OK;
}

/* The file shares the tensor's storage until it is freed; a tensor with gaps is copied now. */
marea_status marea_file_add (marea_file *f, const char *name, marea_tensor *t) {
  int at;
  marea_tensor *whole;
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "save", f);
  MAREA_WANT_OR_RETURN(f->ctx, "save", name);
  MAREA_TRY(marea_want_tensor(f->ctx, "save", "t", t));
  if (strcmp(name, "__metadata__") == 0)
    return marea_fail(f->ctx, MAREA_EARG, "save: a tensor cannot be named '__metadata__'");
  MAREA_TRY(check_new(f->ctx, &f->tensors, "tensor name", name, &at));
  MAREA_TRY(marea_gapless(t, &whole));
  if (!marea_list_insert(f->ctx, &f->tensors, at, name, NULL)) {
    marea_release(whole);
    return marea_no_names(f->ctx, "save");
  }
  f->tensors.items[at].tensor = whole;
  return MAREA_OK;
}

marea_status marea_file_add_text (marea_file *f, const char *key, const char *value) {
  int at;
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(NULL, "save", f);
  MAREA_WANT_OR_RETURN(f->ctx, "save", key);
  MAREA_WANT_OR_RETURN(f->ctx, "save", value);
  if (marea_text_reserved(key))
    return marea_fail(f->ctx, MAREA_EARG, "save: text key '%s' is reserved for checksums", key);
  MAREA_TRY(check_new(f->ctx, &f->texts, "text key", key, &at));
  MAREA_TRY(check_utf8(f->ctx, "text", value));
  return marea_list_insert(f->ctx, &f->texts, at, key, value) ? MAREA_OK : marea_no_names(f->ctx, "save");
}
