/* SPDX-License-Identifier: MIT
** prompt.c: the line editor of the program `marea`: libedit reads the lines, marea.repl does everything else.
**
** Keys are read one byte at a time: what is typed while a script runs stays in the terminal, where the script may read
** it. Ctrl-C drops the line. In terminals that mark the ends of a pasted text, the text is inserted as a whole, so that
** it is one chunk, whose local variables stay in scope, and one entry of the history.
*/
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <lauxlib.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "bind.h"
#include "program.h"

#define HISTORY_MOST 2000 /* entries that are kept */
#define CTRL_C 3
#define SESSION 1 /* stack index of the session */
#define PASTE_END "\033[201~"

typedef struct prompt {
  lua_State *L;
  EditLine *editor; /* NULL: stdin is no terminal */
  History *history;
  const char *history_path; /* on the Lua stack; NULL: none */
  char text[16];            /* of the prompt itself */
  bool cancelled;           /* the line under way was dropped */
  bool ahead;               /* its first byte was typed while something ran */
} prompt;

/* ---- signals while a line is typed ---- */

static volatile sig_atomic_t interrupted, resized, continued;
static int waker[2] = {-1, -1}; /* a pipe: a signal that comes just before the program waits still wakes it */

static void on_signal (int number) {
  int before = errno;
  if (number == SIGINT) interrupted = 1;
  else if (number == SIGWINCH) resized = 1;
  else continued = 1;
  ssize_t unused = write(waker[1], "", 1);
  (void)unused;
  errno = before;
}

static const int watched[] = {SIGINT, SIGWINCH, SIGCONT};
enum { WATCHED = sizeof watched / sizeof *watched };

static void watch (struct sigaction before[WATCHED]) {
  struct sigaction mine = {.sa_handler = on_signal};
  interrupted = 0;
  for (int i = 0; i < WATCHED; i++) sigaction(watched[i], &mine, &before[i]);
}

static void unwatch (const struct sigaction before[WATCHED]) {
  for (int i = 0; i < WATCHED; i++) sigaction(watched[i], &before[i], NULL);
}

/* ---- keys ---- */

/* A byte that was typed after a Ctrl-C and read together with it. It is the first byte of the next line. */
static char held;
static bool holding;

static void redraw (EditLine *editor) {
  if (continued) el_set(editor, EL_PREP_TERM, 1);
  fputs("\r", stdout); /* the prompt may still be there */
  if (resized) el_resize(editor);
  resized = continued = 0;
  el_set(editor, EL_REFRESH);
}

/* Waits for a key or a signal; true: there may be a key. */
static bool await_key (void) {
  struct pollfd on[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = waker[0], .events = POLLIN}};
  char bytes[64];
  if (poll(on, 2, -1) < 0) return false;
  while (on[1].revents && read(waker[0], bytes, sizeof bytes) == sizeof bytes) continue;
  return on[0].revents != 0;
}

/* 1: a byte was read; 0: the end; -1: Ctrl-C. */
static int read_byte (EditLine *editor, char *byte) {
  if (holding && !interrupted) {
    holding = false;
    *byte = held;
    return 1;
  }
  for (;;) {
    if (interrupted) return -1;
    if (resized || continued) redraw(editor);
    if (!await_key()) continue;
    if (interrupted) return -1;
    ssize_t n = read(STDIN_FILENO, byte, 1);
    if (n > 0 && interrupted) {
      held = *byte;
      holding = true;
      return -1;
    }
    if (n >= 0) return (int)n;
    if (errno != EINTR && errno != EAGAIN) return 0;
  }
}

/* For libedit: 1 and the next character, or 0. Ctrl-C ends the line. */
static int read_key (EditLine *editor, wchar_t *key) {
  prompt *p;
  mbstate_t state = {0};
  el_get(editor, EL_CLIENTDATA, &p);
  for (;;) {
    char byte;
    int n = read_byte(editor, &byte);
    bool end = n == 0 || (n > 0 && byte == '\0' && p->ahead); /* a Ctrl-D typed ahead arrives as a zero */
    p->ahead = false;
    if (end) return 0;
    if (n < 0 || byte == CTRL_C) {
      p->cancelled = true;
      *key = L'\n';
      return 1;
    }
    size_t length = mbrtowc(key, &byte, 1, &state);
    if (length == (size_t)-1) memset(&state, 0, sizeof state); /* no character: dropped */
    else if (length != (size_t)-2) return 1;
  }
}

/* Bound to the mark that a terminal sends in front of a pasted text: inserts the whole text, with its newlines. */
static unsigned char paste (EditLine *editor, int key) {
  static const char end[] = PASTE_END;
  const size_t n_end = sizeof end - 1;
  char *text = NULL, byte;
  size_t n = 0;
  (void)key;
  FILE *into = open_memstream(&text, &n);
  if (!into) return CC_ERROR;
  for (bool whole = false; !whole && read_byte(editor, &byte) == 1;) {
    fputc(byte == '\r' ? '\n' : byte, into);
    if (byte != '~') continue;
    fflush(into);
    whole = n >= n_end && memcmp(text + n - n_end, end, n_end) == 0;
  }
  fclose(into);
  if (n >= n_end && memcmp(text + n - n_end, end, n_end) == 0) n -= n_end;
  while (n > 0 && text[n - 1] == '\n') n--;
  text[n] = '\0';
  int failed = el_insertstr(editor, text);
  free(text);
  return failed ? CC_ERROR : CC_REFRESH;
}

/* ---- completion ---- */

/* session:expand(the line up to the cursor) -> characters to erase, text to insert, list to show */
static int expand (lua_State *L) {
  const LineInfo *line = lua_touserdata(L, 2);
  lua_settop(L, 1);
  lua_getfield(L, 1, "expand");
  lua_pushvalue(L, 1);
  lua_pushlstring(L, line->buffer, (size_t)(line->cursor - line->buffer));
  lua_call(L, 2, 3);
  return 3;
}

static unsigned char show_list (EditLine *editor, const char *list) {
  printf("\n%s\n", list);
  fflush(stdout);
  el_set(editor, EL_REFRESH);
  return CC_NORM;
}

static unsigned char complete (EditLine *editor, int key) {
  prompt *p;
  (void)key;
  el_get(editor, EL_CLIENTDATA, &p);
  lua_State *L = p->L;
  int top = lua_gettop(L);
  unsigned char result = CC_REFRESH_BEEP;
  lua_pushcfunction(L, expand);
  lua_pushvalue(L, SESSION);
  lua_pushlightuserdata(L, (void *)el_line(editor));
  if (lua_pcall(L, 2, 3, 0) == LUA_OK && lua_isstring(L, -2)) {
    if (lua_tointeger(L, -3) > 0) el_deletestr(editor, (int)lua_tointeger(L, -3));
    el_insertstr(editor, lua_tostring(L, -2));
    result = lua_isstring(L, -1) ? show_list(editor, lua_tostring(L, -1)) : CC_REFRESH;
  }
  lua_settop(L, top);
  return result;
}

/* ---- history ---- */

/* Writes the history in memory to a file beside the old one and renames it: one of the two is whole at any time. */
static void rewrite_history (prompt *p) {
  HistEvent event;
  const char *beside = lua_pushfstring(p->L, "%s.new", p->history_path);
  if (history(p->history, &event, H_SAVE, beside) >= 0) rename(beside, p->history_path);
  lua_pop(p->L, 1);
}

static void open_history (prompt *p) {
  HistEvent event;
  p->history = history_init();
  if (!p->history) return;
  history(p->history, &event, H_SETSIZE, HISTORY_MOST);
  history(p->history, &event, H_SETUNIQUE, 1);
  el_set(p->editor, EL_HIST, history, p->history);
  if (!p->history_path) return;
  if (history(p->history, &event, H_LOAD, p->history_path) > 2 * HISTORY_MOST) rewrite_history(p);
}

/* Appends an entry to the file at once: sessions that run side by side all keep their entries, and none is lost when
   the program is killed. */
static void append_history (const char *path, const char *entry) {
  HistEvent event;
  FILE *file = fopen(path, "a");
  History *alone = file ? history_init() : NULL;
  if (alone) {
    history(alone, &event, H_SETSIZE, 1);
    history(alone, &event, H_ENTER, entry);
    fseek(file, 0, SEEK_END); /* the file's heading is written at its beginning only */
    history(alone, &event, H_SAVE_FP, file);
    history_end(alone);
  }
  if (file) fclose(file);
}

static void remember (prompt *p, const char *entry) {
  HistEvent event;
  if (!p->history || history(p->history, &event, H_ENTER, entry) < 0) return;
  if (p->history_path) append_history(p->history_path, entry);
}

/* ---- the editor ---- */

static char *prompt_text (EditLine *editor) {
  prompt *p;
  el_get(editor, EL_CLIENTDATA, &p);
  return p->text;
}

static const char *const bindings[][2] = {
    {"^I", "marea-complete"},          {"\\e[200~", "marea-paste"},  {"^R", "em-inc-search-prev"},
    {"\\e[1~", "ed-move-to-beg"},      {"\\e[4~", "ed-move-to-end"}, {"\\e[7~", "ed-move-to-beg"},
    {"\\e[8~", "ed-move-to-end"},      {"\\e[H", "ed-move-to-beg"},  {"\\e[F", "ed-move-to-end"},
    {"\\e[3~", "ed-delete-next-char"}, {"\\e[1;5C", "em-next-word"}, {"\\e[1;5D", "ed-prev-word"},
};

static void open_editor (prompt *p) {
  setlocale(LC_CTYPE, "");
  if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
  setvbuf(stdin, NULL, _IONBF, 0); /* io.read in what is typed leaves the lines after its own to us */
  if (pipe2(waker, O_CLOEXEC | O_NONBLOCK) != 0) return;
  p->editor = el_init("marea", stdin, stdout, stderr);
  if (!p->editor) return;
  el_set(p->editor, EL_CLIENTDATA, p);
  el_set(p->editor, EL_PROMPT, prompt_text);
  el_set(p->editor, EL_SIGNAL, 0);
  el_set(p->editor, EL_GETCFN, read_key);
  el_set(p->editor, EL_EDITOR, "emacs");
  el_set(p->editor, EL_ADDFN, "marea-complete", "completes the word", complete);
  el_set(p->editor, EL_ADDFN, "marea-paste", "inserts a pasted text", paste);
  for (size_t i = 0; i < sizeof bindings / sizeof *bindings; i++)
    el_set(p->editor, EL_BIND, bindings[i][0], bindings[i][1], NULL);
  open_history(p);
  el_source(p->editor, NULL);
}

static bool knows_sequences (void) {
  const char *terminal = getenv("TERM");
  return terminal && strcmp(terminal, "dumb") != 0;
}

/* Terminals that know the mode mark the ends of a pasted text. */
static void mark_pastes (bool on) {
  if (!knows_sequences()) return;
  fputs(on ? "\033[?2004h" : "\033[?2004l", stdout);
  fflush(stdout);
}

/* The editor assumes that the cursor is in the first column. After an output without a newline or keys typed ahead it
   is not. Writing as many spaces as the terminal has columns moves it to the next line from every column but the
   first. */
static void begin_line (void) {
  struct winsize size;
  if (!knows_sequences() || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return;
  printf("%*s\r\033[K", size.ws_col, "");
}

/* Pushes the line without its newline; false at the end of the input. */
static bool edit_line (prompt *p) {
  struct sigaction before[WATCHED];
  struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
  int n = 0;
  p->cancelled = false;
  watch(before);
  el_set(p->editor, EL_PREP_TERM, 1); /* before the prompt shows, after which keys are expected */
  p->ahead = poll(&input, 1, 0) == 1;
  begin_line();
  mark_pastes(true);
  const char *line = el_gets(p->editor, &n);
  unwatch(before);
  mark_pastes(false);
  if (!line || n <= 0) return false;
  lua_pushlstring(p->L, line, (size_t)n - (line[n - 1] == '\n'));
  return true;
}

static bool plain_line (prompt *p) {
  char *line = NULL;
  size_t room = 0;
  fputs(p->text, stdout);
  fflush(stdout);
  ssize_t n;
  while ((n = getline(&line, &room, stdin)) < 0 && errno == EINTR)
    clearerr(stdin); /* Ctrl-C while it waits */
  if (n > 0) lua_pushlstring(p->L, line, (size_t)n - (line[n - 1] == '\n'));
  free(line);
  return n > 0;
}

/* ---- read, evaluate, print ---- */

static bool session_flag (prompt *p, const char *field) {
  lua_getfield(p->L, SESSION, field);
  bool on = lua_toboolean(p->L, -1);
  lua_pop(p->L, 1);
  return on;
}

static bool cancel (prompt *p) {
  lua_getfield(p->L, SESSION, "cancel");
  lua_pushvalue(p->L, SESSION);
  return program_report(p->L, program_call(p->L, 1, 0)) == EXIT_SUCCESS;
}

/* Passes the line on top of the stack to the session and prints the session's answer. */
static void feed (prompt *p) {
  lua_State *L = p->L;
  lua_getfield(L, SESSION, "feed");
  lua_insert(L, -2);
  lua_pushvalue(L, SESSION);
  lua_insert(L, -2);
  int status = program_call(L, 2, 3); /* status, text, ok */
  if (status != LUA_OK) {
    program_report(L, status);
    return;
  }
  lua_getfield(L, SESSION, "entry");
  if (p->editor && lua_isstring(L, -1)) remember(p, lua_tostring(L, -1));
  const char *text = lua_tostring(L, -3);
  FILE *to = lua_toboolean(L, -2) ? stdout : stderr;
  fflush(stdout);
  if (text) fprintf(to, "%s\n", text);
  fflush(to);
}

static bool read_line (prompt *p) {
  lua_getfield(p->L, SESSION, "prompt");
  snprintf(p->text, sizeof p->text, "%s", lua_tostring(p->L, -1));
  lua_pop(p->L, 1);
  return p->editor ? edit_line(p) : plain_line(p);
}

/* Pushes the session, and the history's path above it. */
static bool open_session (prompt *p) {
  if (luaL_loadstring(p->L, "local repl = require 'marea.repl' return repl.new(), repl.history_path()") !=
          LUA_OK ||
      program_call(p->L, 0, 2) != LUA_OK) {
    program_report(p->L, LUA_ERRRUN);
    return false;
  }
  p->history_path = lua_tostring(p->L, SESSION + 1);
  return true;
}

void prompt_run (lua_State *L) {
  prompt p = {.L = L};
  lua_settop(L, 0);
  printf("Marea %s, %s; :help for help\n", MAREA_VERSION, LUA_RELEASE);
  if (!open_session(&p)) return;
  if (isatty(STDIN_FILENO)) open_editor(&p);
  bool more = true;
  while (more && !session_flag(&p, "finished")) {
    lua_settop(L, SESSION + 1);
    more = read_line(&p);
    if (!more && session_flag(&p, "pending")) {
      fputc('\n', stdout);
      more = cancel(&p);
    } else if (p.cancelled) more = cancel(&p);
    else if (more) feed(&p);
  }
  if (!more) fputc('\n', stdout);
  if (p.history) history_end(p.history);
  if (p.editor) el_end(p.editor);
  lua_settop(L, 0);
}
