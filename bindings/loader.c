/* SPDX-License-Identifier: MIT
** loader.c: pictures from files, decoded by threads ahead of the one that asks for them. Each worker has a context of its
** own; what they share is a ring of pictures, in the order in which they were asked for, under a lock.
*/
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "bind.h"

#define MAX_WORKERS 64
#define MAX_ROOM 65536
#define NICE 5           /* the workers', so that what trains comes first */
#define WAIT_NS 20000000 /* between two looks for an interrupt */
#define MESSAGE 400

typedef enum state { WAITING, AT_WORK, DONE } state;

typedef struct job {
  int64_t picture; /* which one, from 0 */
  state state;
  char message[MESSAGE]; /* "" when it is there */
} job;

/* Job i is jobs[i % room], and its pixels are at the same place in `pixels`: first..next-1 are at work or done, next..last-1
   wait. */
typedef struct loader {
  pthread_mutex_t lock;
  pthread_cond_t work, done;
  pthread_t threads[MAX_WORKERS];
  marea_context *contexts[MAX_WORKERS]; /* [0] is the asking thread's when there are no workers */
  int workers, started;                 /* wanted; with a context and a thread */
  bool is_open, stops;
  const char *const *paths;
  int64_t n, height, width;
  int channels;
  bool crop;
  marea_tensor *pixels; /* u8 (room, height, width, channels) */
  job *jobs;
  int64_t room, first, next, last;
} loader;

typedef struct worker {
  loader *l;
  marea_context *ctx;
} worker;

static size_t picture_size (const loader *l) { return (size_t)(l->height * l->width * l->channels); }

static uint8_t *pixels_of (const loader *l, int64_t i) {
  return (uint8_t *)marea_tensor_data(l->pixels) + (size_t)(i % l->room) * picture_size(l);
}

static job *job_of (const loader *l, int64_t i) { return &l->jobs[i % l->room]; }

/* ---- workers ---- */

static void load (const loader *l, marea_context *ctx, job *j, uint8_t *to) {
  marea_tensor *t = NULL;
  const marea_status status = marea_load_image_sized(ctx, l->paths[j->picture], l->height, l->width,
                                                     l->channels, l->crop, &t);
  j->message[0] = '\0';
  if (status == MAREA_OK) memcpy(to, marea_tensor_data(t), picture_size(l));
  else snprintf(j->message, sizeof j->message, "%s", marea_error(ctx));
  marea_release(t);
}

/* The lock is held, but not while a picture is loaded. */
static void load_next (loader *l, marea_context *ctx) {
  const int64_t i = l->next++;
  job *j = job_of(l, i);
  j->state = AT_WORK;
  pthread_mutex_unlock(&l->lock);
  load(l, ctx, j, pixels_of(l, i));
  pthread_mutex_lock(&l->lock);
  j->state = DONE;
  pthread_cond_broadcast(&l->done);
}

static void *run_worker (void *ud) {
  worker *w = ud;
  loader *l = w->l;
  marea_context *ctx = w->ctx;
  setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
  pthread_mutex_lock(&l->lock);
  l->started++; /* w is no longer used */
  pthread_cond_broadcast(&l->done);
  while (!l->stops)
    if (l->next < l->last) load_next(l, ctx);
    else pthread_cond_wait(&l->work, &l->lock);
  pthread_mutex_unlock(&l->lock);
  return NULL;
}

static marea_context *open_context (const bind_state *S) {
  marea_context *ctx = NULL;
  const marea_config config = {.size = sizeof config, .threads = 1, .max_bytes = marea_memory(S->ctx).limit};
  return marea_open(&config, &ctx) == MAREA_OK ? ctx : NULL;
}

static bool start_worker (loader *l, const bind_state *S, int i) {
  worker w = {l, open_context(S)};
  sigset_t all, before;
  if (!w.ctx) return false;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the thread of the script */
  const bool is_made = pthread_create(&l->threads[i], NULL, run_worker, &w) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!is_made) {
    marea_close(w.ctx);
    return false;
  }
  l->contexts[i] = w.ctx;
  pthread_mutex_lock(&l->lock);
  while (l->started == i) pthread_cond_wait(&l->done, &l->lock);
  pthread_mutex_unlock(&l->lock);
  return true;
}

static void stop_workers (loader *l) {
  pthread_mutex_lock(&l->lock);
  l->stops = true;
  pthread_cond_broadcast(&l->work);
  pthread_mutex_unlock(&l->lock);
  for (int i = 0; i < l->started; i++) pthread_join(l->threads[i], NULL);
}

/* ---- the ring; the lock is held ---- */

static void push (loader *l, int64_t picture) {
  *job_of(l, l->last++) = (job){.picture = picture};
  pthread_cond_signal(&l->work);
}

/* Waits for a change, or until it is time for a look at interrupts. */
static void wait_for_done (loader *l) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += WAIT_NS;
  if (until.tv_nsec >= 1000000000) {
    until.tv_sec++;
    until.tv_nsec -= 1000000000;
  }
  pthread_cond_timedwait(&l->done, &l->lock, &until);
}

static bool is_done (const loader *l, int64_t i) { return job_of(l, i)->state == DONE && i < l->next; }

static void wait_for (lua_State *L, bind_state *S, loader *l, int64_t i) {
  while (!is_done(l, i)) {
    bind_poll(L, S); /* workers wait for the lock meanwhile */
    if (l->started == 0) load_next(l, l->contexts[0]);
    else wait_for_done(l);
  }
}

/* Job i on, which nobody wants: those that wait are dropped, those at work are waited for. */
static void drop_from (lua_State *L, bind_state *S, loader *l, int64_t i) {
  l->last = l->next > i ? l->next : i;
  if (l->next < i) return;
  for (int64_t k = i; k < l->next; k++) wait_for(L, S, l, k);
  l->next = l->last = i;
}

/* How many of the pictures wanted, from the first one on, are those of the ring. */
static int64_t known (const loader *l, const int64_t *wanted, int64_t n) {
  int64_t k = 0;
  while (k < n && l->first + k < l->last && job_of(l, l->first + k)->picture == wanted[k]) k++;
  return k;
}

/* Puts as many of them into the ring as there is room for. */
static int64_t fill (loader *l, const int64_t *wanted, int64_t from, int64_t n) {
  while (from < n && l->last - l->first < l->room) push(l, wanted[from++]);
  return from;
}

/* ---- functions ---- */

/* core.load_picture(path) or (path, height, width, channels, crop), checked before -> u8 | nil, message */
static int load_picture (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_tensor *t = NULL;
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  const char *path = bind_string(L, S, 1, "load_image", "path");
  bind_sandbox_path(L, S, "load_image", path, false);
  const lua_Integer height = luaL_optinteger(L, 2, 0), width = luaL_optinteger(L, 3, 0);
  const int channels = (int)luaL_optinteger(L, 4, 3);
  const bool crop = lua_toboolean(L, 5);
  bind_box *box = bind_box_new(L, S);
  BIND_RETRY(L, S, 0, NULL, status,
             height ? marea_load_image_sized(ctx, path, height, width, channels, crop, &t)
                    : marea_load_image(ctx, path, &t));
  if (status != MAREA_OK) return bind_file_failed(L, S, status);
  bind_box_fill(box, t);
  return 1;
}

static loader *to_loader (lua_State *L, bind_state *S, const char *function) {
  loader *l = bind_to(L, S, 1, BIND_LOADER);
  if (!l || !l->is_open) bind_raise_argument(L, S, function, "loader", "an open loader", 1);
  return l;
}

/* The pictures in the list at index 2, from 0 on; pushes the memory they are in. */
static int64_t *read_wanted (lua_State *L, bind_state *S, const loader *l, const char *function, int64_t *n) {
  luaL_checktype(L, 2, LUA_TTABLE);
  *n = (int64_t)lua_rawlen(L, 2);
  int64_t *wanted = lua_newuserdatauv(L, (size_t)(*n + 1) * sizeof *wanted, 0);
  for (int64_t i = 0; i < *n; i++) {
    lua_rawgeti(L, 2, i + 1);
    if (!bind_to_integer(L, -1, &wanted[i]) || wanted[i] < 1 || wanted[i] > l->n)
      bind_raise(L, S, "%s: expected rows from 1 to %d, got %s", function, (int)l->n,
                 bind_describe(L, S, -1));
    wanted[i]--;
    lua_pop(L, 1);
  }
  return wanted;
}

/* core.loader_prefetch(loader, {picture, ...}): these will be taken next. The ring gets those that it has not, as many as
   there is room for, unless it has others, which loader_take drops. */
static int loader_prefetch (lua_State *L) {
  bind_state *S = bind_self(L);
  int64_t n;
  bind_enter(L, S);
  loader *l = to_loader(L, S, "prefetch");
  const int64_t *wanted = read_wanted(L, S, l, "prefetch", &n);
  pthread_mutex_lock(&l->lock);
  const int64_t had = known(l, wanted, n);
  if (l->started > 0 && had == l->last - l->first) fill(l, wanted, had, n);
  pthread_mutex_unlock(&l->lock);
  return 0;
}

typedef struct taking {
  loader *l;
  const int64_t *wanted;
  int64_t n;
  uint8_t *to;
  char message[MESSAGE];
} taking;

/* Copies the pictures in order. It may raise, for an interrupt; the lock is held when it begins and when it ends. */
static int take_all (lua_State *L) {
  bind_state *S = bind_self(L);
  taking *t = bind_work(S);
  if (!t) return 0;
  loader *l = t->l;
  int64_t pushed = known(l, t->wanted, t->n);
  if (pushed < t->n && l->first + pushed < l->last) drop_from(L, S, l, l->first + pushed);
  for (int64_t i = 0; i < t->n; i++) {
    pushed = fill(l, t->wanted, pushed, t->n);
    bind_poll(L, S);
    wait_for(L, S, l, l->first);
    const job *j = job_of(l, l->first);
    if (j->message[0] && !t->message[0]) memcpy(t->message, j->message, MESSAGE);
    memcpy(t->to + (size_t)i * picture_size(l), pixels_of(l, l->first), picture_size(l));
    l->first++;
  }
  return 0;
}

/* core.loader_take(loader, {picture, ...}) -> u8 (n, height, width, channels) | nil, message */
static int loader_take (lua_State *L) {
  bind_state *S = bind_self(L);
  taking t = {0};
  marea_tensor *pixels = NULL;
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  t.l = to_loader(L, S, "rows");
  t.wanted = read_wanted(L, S, t.l, "rows", &t.n);
  const int64_t shape[] = {t.n, t.l->height, t.l->width, t.l->channels};
  bind_box *box = bind_box_new(L, S);
  BIND_RETRY(L, S, 0, NULL, status, marea_empty(ctx, MAREA_U8, 4, shape, &pixels));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  bind_box_fill(box, pixels);
  t.to = marea_tensor_data(pixels);
  lua_pushlightuserdata(L, S);
  lua_pushcclosure(L, take_all, 1);
  pthread_mutex_lock(&t.l->lock);
  S->work = &t;
  const int result = lua_pcall(L, 0, 0, 0);
  pthread_mutex_unlock(&t.l->lock);
  if (result != LUA_OK) return lua_error(L);
  if (!t.message[0]) return 1;
  lua_pushstring(L, t.message);
  return bind_failed(L, S);
}

static int loader_close (lua_State *L) {
  loader *l = bind_to(L, bind_self(L), 1, BIND_LOADER);
  if (!l || !l->is_open) return 0;
  l->is_open = false;
  stop_workers(l);
  for (int i = 0; i < MAX_WORKERS; i++)
    if (l->contexts[i]) marea_close(l->contexts[i]);
  marea_release(l->pixels);
  pthread_cond_destroy(&l->work);
  pthread_cond_destroy(&l->done);
  pthread_mutex_destroy(&l->lock);
  return 0;
}

/* The paths in the list at index 1 as an array in a userdata, which is pushed. */
static const char *const *read_paths (lua_State *L, int64_t n) {
  size_t bytes = (size_t)n * sizeof(char *);
  for (int64_t i = 1; i <= n; i++) {
    lua_rawgeti(L, 1, i);
    bytes += strlen(luaL_checkstring(L, -1)) + 1;
    lua_pop(L, 1);
  }
  const char **paths = lua_newuserdatauv(L, bytes + 1, 0);
  char *to = (char *)(paths + n);
  for (int64_t i = 0; i < n; i++) {
    lua_rawgeti(L, 1, i + 1);
    paths[i] = to;
    to = stpcpy(to, lua_tostring(L, -1)) + 1;
    lua_pop(L, 1);
  }
  return paths;
}

static void init_lock (loader *l) {
  pthread_condattr_t attributes;
  pthread_mutex_init(&l->lock, NULL);
  pthread_cond_init(&l->work, NULL);
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&l->done, &attributes);
  pthread_condattr_destroy(&attributes);
  l->is_open = true;
}

/* core.loader({path, ...}, height, width, channels, crop, workers, room) -> loader; its arguments are checked before */
static int loader_new (lua_State *L) {
  bind_state *S = bind_self(L);
  marea_status status;
  marea_context *ctx = bind_enter(L, S);
  bind_sandbox_deny(L, S, "data.folder");
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 7);
  loader *l = bind_new(L, S, BIND_LOADER, sizeof *l, 2);
  l->n = (int64_t)lua_rawlen(L, 1);
  l->height = luaL_checkinteger(L, 2);
  l->width = luaL_checkinteger(L, 3);
  l->channels = (int)luaL_checkinteger(L, 4);
  l->crop = lua_toboolean(L, 5);
  l->workers = (int)luaL_checkinteger(L, 6);
  l->room = luaL_checkinteger(L, 7);
  luaL_argcheck(L, l->workers >= 0 && l->workers <= MAX_WORKERS, 6, "from 0 to 64");
  luaL_argcheck(L, l->room >= 1 && l->room <= MAX_ROOM, 7, "from 1 to 65536");
  l->paths = read_paths(L, l->n);
  lua_setiuservalue(L, 8, 1);
  l->jobs = lua_newuserdatauv(L, (size_t)l->room * sizeof *l->jobs, 0);
  lua_setiuservalue(L, 8, 2);
  const int64_t shape[] = {l->room, l->height, l->width, l->channels};
  BIND_RETRY(L, S, 0, NULL, status, marea_empty(ctx, MAREA_U8, 4, shape, &l->pixels));
  if (status != MAREA_OK) return bind_raise_status(L, S, status);
  init_lock(l);
  for (int i = 0; i < l->workers && start_worker(l, S, i);) i++;
  if (l->started == 0) l->contexts[0] = open_context(S);
  if (l->started == 0 && !l->contexts[0]) return bind_raise(L, S, "data.folder: no memory for a worker");
  return 1;
}

/* The state is on top of the stack, and stays there; adds the functions to the module at index `module`. */
void bind_loader_open (lua_State *L, int module) {
  static const luaL_Reg metamethods[] = {{"__gc", loader_close}, {"__close", loader_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"loader", loader_new},         {"loader_prefetch", loader_prefetch},
                                       {"load_picture", load_picture}, {"loader_take", loader_take},
                                       {"loader_close", loader_close}, {NULL, NULL}};
  bind_add_kind(L, module, BIND_LOADER, "marea.Loader", metamethods, functions);
}
