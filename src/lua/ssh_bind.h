/* ssh_bind.h - between the files of the "runbook.core.ssh" module. */
#ifndef RUNBOOK_SSH_BIND_H
#define RUNBOOK_SSH_BIND_H

#include <lua.h>

#include "../ssh.h"

#define SSH_SESSION_MT "runbook.ssh.session"

/* The session at 1; raises "session is closed".  [-0, +0, v] */
struct ssh_session *ssh_bind_session(lua_State *L);

/* Methods of a session, in ssh_channel.c. */
int ssh_bind_dial(lua_State *L);
int ssh_bind_exec(lua_State *L);
int ssh_bind_open(lua_State *L);
int ssh_bind_subsystem(lua_State *L);

/* A method of a session, in ssh_listen.c. */
int ssh_bind_listen(lua_State *L);

void ssh_bind_channel_classes(lua_State *L);
void ssh_bind_listen_class(lua_State *L);

#endif
