/* SPDX-License-Identifier: MIT
** profile.c: the cost of operators. While a profile runs, marea_apply comes here, and the call is made between two
** reads of the clock.
**
** Running calls form a chain of frames on the C stack. A call that ends adds its time to `inside` of the outer frame,
** so the time of a frame minus `inside` is its self time. Self times of all calls and the time outside of them add up
** to wall-clock time; the profile's own work is in neither.
*/
#include <string.h>

#include "core.h"

#define LEAST_ROWS 64
#define LEAST_EVENTS 1024
#define DEEPEST 64 /* nested calls at most; so many events are allocated in advance */
#define DROPPED SIZE_MAX

struct marea_profile {
  marea_context *ctx;
  marea_frame *top;
  int depth;
  bool backward; /* a reverse pass runs */
  int64_t started, stopped, overhead, paused;
  marea_profile_row *rows; /* row 0 collects calls whose own row found no memory */
  uint32_t *slots;         /* hash table of 2 * room_rows: index of a row, 0 = free */
  size_t n_rows, room_rows;
  marea_profile_event *events; /* in the order of their start; the ones of running calls are filled later */
  size_t n_events, room_events, max_events;
  uint64_t dropped;
};

/* ---- rows ---- */

static bool same_row (const marea_profile_work *a, const marea_profile_work *b) {
  return a->op == b->op && a->layer == b->layer && a->backward == b->backward &&
         a->algorithm[0] == b->algorithm[0] && a->algorithm[1] == b->algorithm[1];
}

/* Where the row of `work` is in the table, or the free slot where it belongs. */
static uint32_t *slot_of (const marea_profile *p, const marea_profile_work *work) {
  size_t mask = 2 * p->room_rows - 1;
  size_t hash = ((uintptr_t)work->op >> 3) * 31 + (size_t)work->layer * 2 + work->backward;
  for (hash *= 0x9E3779B97F4A7C15u, hash ^= hash >> 32;; hash++) {
    uint32_t *slot = &p->slots[hash & mask];
    if (*slot == 0 || same_row(&p->rows[*slot].work, work)) return slot;
  }
}

/* Room for `n` rows, a power of two; false and nothing is changed when there is no memory. */
static bool make_room_for_rows (marea_profile *p, size_t n) {
  marea_profile_row *rows = marea_alloc(p->ctx, n * sizeof *rows);
  uint32_t *slots = marea_alloc(p->ctx, 2 * n * sizeof *slots);
  if (!rows || !slots) {
    marea_free(p->ctx, rows);
    marea_free(p->ctx, slots);
    return false;
  }
  if (p->rows) memcpy(rows, p->rows, p->n_rows * sizeof *rows);
  memset(slots, 0, 2 * n * sizeof *slots);
  marea_free(p->ctx, p->rows);
  marea_free(p->ctx, p->slots);
  p->rows = rows;
  p->slots = slots;
  p->room_rows = n;
  for (size_t i = 1; i < p->n_rows; i++) *slot_of(p, &rows[i].work) = (uint32_t)i;
  return true;
}

static marea_profile_row *row_of (marea_profile *p, const marea_profile_work *work) {
  uint32_t *slot = slot_of(p, work);
  if (*slot) return &p->rows[*slot];
  if (p->n_rows == p->room_rows) {
    if (p->n_rows > UINT32_MAX / 2 || !make_room_for_rows(p, 2 * p->room_rows)) return &p->rows[0];
    slot = slot_of(p, work);
  }
  marea_profile_row *row = &p->rows[p->n_rows];
  *slot = (uint32_t)p->n_rows++;
  *row = (marea_profile_row){.work = *work};
  row->work.flop = row->work.bytes = 0;
  return row;
}

/* ---- events ---- */

static size_t claim_event (marea_profile *p) {
  if (p->n_events < p->room_events) return p->n_events++;
  p->dropped++;
  return DROPPED;
}

/* Allocates in advance, so that the start of every call takes the same time. */
static void make_room_for_events (marea_profile *p) {
  if (p->room_events == p->max_events || p->n_events + DEEPEST < p->room_events) return;
  size_t room = MAREA_MIN(MAREA_MAX(2 * p->room_events, LEAST_EVENTS), p->max_events);
  marea_profile_event *events = marea_alloc(p->ctx, room * sizeof *events);
  if (!events) {
    p->max_events = p->room_events;
    return;
  }
  if (p->events) memcpy(events, p->events, p->n_events * sizeof *events);
  marea_free(p->ctx, p->events);
  p->events = events;
  p->room_events = room;
}

/* ---- frames ---- */

void marea_frame_open (marea_profile *p, marea_frame *f, const char *name) {
  *f = (marea_frame){.outer = p->top,
                     .work = {.op = name, .layer = p->ctx->layer, .backward = p->backward},
                     .event = claim_event(p)};
  p->top = f;
  p->depth++;
  f->start = marea_clock_ns();
}

void marea_profile_note (marea_context *ctx, const char *algorithm) {
  if (!ctx->profile) return;
  const char **note = ctx->profile->top->work.algorithm;
  note[note[0] != NULL] = algorithm;
}

/* Adds a call that ended at `end` to its row and to the outer frame. */
static void settle (marea_profile *p, marea_frame *f, int64_t end) {
  int64_t total = end - f->start;
  p->top = f->outer;
  p->depth--;
  marea_profile_row *row = row_of(p, &f->work);
  row->calls++;
  row->self_ns += total - f->inside;
  row->total_ns += total;
  row->work.flop += f->work.flop;
  row->work.bytes += f->work.bytes;
  if (f->event != DROPPED)
    p->events[f->event] = (marea_profile_event){f->work, p->depth, f->start - p->started, total};
  make_room_for_events(p);
  int64_t over = marea_clock_ns();
  p->overhead += over - end;
  if (f->outer) f->outer->inside += over - f->start;
}

void marea_frame_close (marea_profile *p, marea_frame *f) { settle(p, f, marea_clock_ns()); }

void marea_frame_open_pass (marea_profile *p, marea_frame *f) {
  p->backward = true;
  marea_frame_open(p, f, "backward");
}

void marea_frame_close_pass (marea_profile *p, marea_frame *f) {
  marea_frame_close(p, f);
  p->backward = false;
}

/* ---- FLOPs and bytes of a call ---- */

double marea_tensor_bytes (const marea_tensor *t) {
  double bytes = (double)marea_tensor_size(t) * (double)marea_dtype_size((marea_dtype)t->dtype);
  return MAREA_MIN(bytes, (double)t->storage->bytes);
}

static bool is_view (int n_in, marea_tensor *const *in, int n_out, marea_tensor *const *out) {
  for (int k = 0; k < n_out; k++)
    if (n_in < 1 || !marea_tensor_shares(out[k], in[0])) return false;
  return n_out > 0;
}

static bool moves_data (const marea_op *op) {
  static const char *const family[] = {"create", "shape", "index"};
  for (int i = 0; i < MAREA_COUNT(family); i++)
    if (strcmp(op->family, family[i]) == 0) return true;
  return false;
}

static void add_tensors (int n, marea_tensor *const *t, double *bytes, double *most) {
  for (int i = 0; i < n; i++) {
    if (!t[i]) continue;
    *bytes += marea_tensor_bytes(t[i]);
    *most = MAREA_MAX(*most, (double)marea_tensor_size(t[i]));
  }
}

static double flop_of (const marea_op *op, int n_in, marea_tensor *const *in, const marea_attr *attrs,
                       int n_out, marea_tensor **out) {
  marea_attr attr[MAREA_MAX_ATTRS];
  if (attrs) memcpy(attr, attrs, sizeof *attr * (size_t)marea_op_attrs(op, NULL));
  else marea_attrs_init(op, attr);
  marea_call c = {.op = op, .n_in = n_in, .in = in, .attr = attr, .n_out = n_out, .out = out};
  return op->flop(&c);
}

/* Fills in FLOPs and bytes of a call that succeeded; bit i of `changed`: in[i] was also written. */
static void weigh (marea_profile_work *work, const marea_op *op, int n_in, marea_tensor *const *in,
                   const marea_attr *attrs, unsigned changed, int n_out, marea_tensor **out) {
  double most = 0;
  if (is_view(n_in, in, n_out, out)) return;
  add_tensors(n_in, in, &work->bytes, &most);
  add_tensors(n_out, out, &work->bytes, &most);
  for (int i = 0; i < MAREA_MIN(n_in, 32); i++)
    if (changed >> i & 1 && in[i]) work->bytes += marea_tensor_bytes(in[i]);
  if (op->flop) work->flop = flop_of(op, n_in, in, attrs, n_out, out);
  else if (!moves_data(op)) work->flop = most;
}

marea_status marea_profile_apply (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                                  const marea_attr *attrs, marea_tensor **out, int *n_out) {
  marea_profile *p = ctx->profile;
  marea_frame f;
  marea_frame_open(p, &f, op->name);
  marea_status status = marea_perform(ctx, op, n_in, in, attrs, out, n_out);
  int64_t end = marea_clock_ns();
  if (status == MAREA_OK) weigh(&f.work, op, n_in, in, attrs, op->mutates, *n_out, out);
  settle(p, &f, end);
  return status;
}

marea_status marea_profile_apply_ (marea_context *ctx, const marea_op *op, int n_in, marea_tensor *const *in,
                                   const marea_attr *attrs) {
  marea_profile *p = ctx->profile;
  marea_frame f;
  marea_frame_open(p, &f, op->name);
  marea_status status = marea_perform_(ctx, op, n_in, in, attrs);
  int64_t end = marea_clock_ns();
  if (status == MAREA_OK) weigh(&f.work, op, n_in, in, attrs, 1, 0, NULL);
  settle(p, &f, end);
  return status;
}

/* ---- for hosts ---- */

marea_status marea_profile_start (marea_context *ctx, size_t max_events, marea_profile **out) {
  MAREA_ENTER;
  MAREA_WANT_OR_RETURN(ctx, "profile", out);
  *out = NULL;
  MAREA_WANT_OR_RETURN(NULL, "profile", ctx);
  if (ctx->profile) return marea_fail(ctx, MAREA_ESTATE, "profile: one is running already");
  marea_profile *p = marea_alloc(ctx, sizeof *p);
  if (p) {
    *p = (marea_profile){.ctx = ctx, .n_rows = 1, .max_events = max_events};
    if (make_room_for_rows(p, LEAST_ROWS)) p->rows[0] = (marea_profile_row){0};
    else {
      marea_free(ctx, p);
      p = NULL;
    }
  }
  if (!p) return marea_fail(ctx, MAREA_ENOMEM, "profile: out of memory");
  make_room_for_events(p);
  *out = ctx->profile = p;
  p->started = marea_clock_ns();
  return MAREA_OK;
}

void marea_profile_stop (marea_profile *p) {
  if (!p || p->ctx->profile != p) return;
  p->stopped = marea_clock_ns();
  p->ctx->profile = NULL;
  p->ctx->layer = 0;
}

void marea_profile_free (marea_profile *p) {
  if (!p) return;
  marea_context *ctx = p->ctx;
  marea_profile_stop(p);
  marea_free(ctx, p->rows);
  marea_free(ctx, p->slots);
  marea_free(ctx, p->events);
  marea_free(ctx, p);
  marea_context_settle(ctx);
}

marea_profile_info marea_profile_times (const marea_profile *p) {
  if (!p) return (marea_profile_info){0};
  int64_t end = p->ctx->profile == p ? marea_clock_ns() : p->stopped;
  return (marea_profile_info){end - p->started, p->overhead, p->dropped};
}

const marea_profile_row *marea_profile_rows (const marea_profile *p, size_t *n) {
  if (n) *n = p ? p->n_rows : 0;
  return p ? p->rows : NULL;
}

const marea_profile_event *marea_profile_events (const marea_profile *p, size_t *n) {
  if (n) *n = p ? p->n_events : 0;
  return p ? p->events : NULL;
}

void marea_profile_pause (marea_profile *p) {
  if (p) p->paused = marea_clock_ns();
}

void marea_profile_resume (marea_profile *p) {
  if (p) p->overhead += marea_clock_ns() - p->paused;
}

int marea_set_layer (marea_context *ctx, int layer) {
  if (!ctx) return 0;
  int before = ctx->layer;
  ctx->layer = layer;
  return before;
}
