/* SPDX-License-Identifier: MIT
** program.h: what the files of the program `marea` share: main.c, the command line; prompt.c, the line editor; call.c,
** which runs what these two are given; graph.c, which runs a network without a script.
*/
#ifndef PROGRAM_H
#define PROGRAM_H

#include <lua.h>
#include <stdbool.h>

/* Replaces the message on top of the stack by what this function of marea.explain makes of it; false: it could not. */
bool program_explain (lua_State *L, const char *function);

/* Calls the function below its `n` arguments; the error's message with a traceback replaces them. Ctrl-C raises an
   error in what runs. */
int program_call (lua_State *L, int n, int results);
/* Writes the message on top of the stack to stderr. Returns the program's exit code so far. */
int program_report (lua_State *L, int status);

/* Reads, evaluates and prints until the input ends: with a line editor when stdin is a terminal. */
void prompt_run (lua_State *L);

/* `marea run model.onnx ...`; returns the program's exit code. */
int graph_run (int argc, char **argv);

#endif
