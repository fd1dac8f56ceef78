/* SPDX-License-Identifier: MIT
** interrupt.h: what signal.c tells the files that raise for Ctrl-C or hold it off.
*/
#ifndef INTERRUPT_H
#define INTERRUPT_H

#include "bind.h"

#define BIND_INTERRUPTED "interrupted!" /* as lua5.4 says it */

lua_State *bind_main_thread (lua_State *L);
bool bind_lua_waits (
    lua_State *L); /* has lua5.4's handler set its hook, which raises as soon as we return? */
bool bind_interrupt_is_ours (const lua_State *main); /* is our handler installed, and for this state? */
bool bind_interrupt_due (const lua_State *main);     /* is there a request, and its grace over? */
bool bind_interrupt_raised (const lua_State *main);  /* is there a request, and was its error raised? */
/* Empties the stack. True: the error is left to the hook of lua5.4 that caused the interrupt. */
bool bind_leave_to_hook (lua_State *L);
void bind_interrupt_raising (lua_State *L); /* its error is about to be raised, not by a hook */
void bind_push_catcher (lua_State *L);      /* pushes a value to be closed; until then the handler is ours */

/* The functions that catch errors. The hook must know them: an xpcall calls its handler inside the hook. */
typedef enum bind_catching { BIND_PCALL, BIND_XPCALL, BIND_PROTECTED, BIND_CATCHES } bind_catching;
void bind_interrupt_knows (bind_catching which, lua_CFunction f);

#endif
