/*
 * ssh_session.h - what session, channels and execs share; nobody else includes it.
 *
 * libssh2 is called from one place only, the turn of a session: streams and requests fill and empty
 * buffers and ask for a turn.  In a turn the socket is read first, as a whole; then each channel
 * takes what is its own.  (libssh2 loses the reply to one channel's request when it arrives while
 * it waits for the reply to another's, so nothing may be read while requests are looked after.)
 */
#ifndef RUNBOOK_SSH_SESSION_H
#define RUNBOOK_SSH_SESSION_H

#include <libssh2.h>

#include "bytes.h"
#include "ssh.h"
#include "ssh_job.h"
#include "ssh_wire.h"

#define CHANNEL_BUFFER (256 * 1024)	/* kept unread, and unsent, per channel and direction */

enum channel_state {
	CHANNEL_QUEUED,		/* to be opened */
	CHANNEL_STARTING,	/* its command was sent, or will be in the next turn */
	CHANNEL_OPEN,
	CHANNEL_OVER		/* libssh2 has nothing of it any more */
};

struct channel_waiter {
	void (*ready)(void *arg);
	void *arg;
};

struct channel_end {
	struct stream base;
	struct ssh_channel *c;
	enum ssh_end which;
	struct channel_waiter waiting[2];
};

struct ssh_channel {
	struct ssh_session *s;
	struct ssh_channel *next, **link;	/* among the session's */
	LIBSSH2_CHANNEL *lib;
	enum channel_state state;
	int users;			/* the handle and the streams; at none the channel is put away */

	const char *request;		/* "exec", "subsystem"; NULL: a way to host and port */
	char *message, *host;
	size_t message_length;
	int port;
	bool sent;			/* the far side may have the command */
	bool change, sent_due;		/* the point "sent" is to be passed */
	bool opened;			/* on_open was called, or will not be */

	struct channel_end *ends[4];	/* by enum ssh_end */
	struct bytes in[2], out;	/* in: stdout, stderr */
	bool keep_tail;			/* of stderr, nobody having asked for it */
	bool discard[2];
	bool end_wanted, end_sent, in_ended;
	bool closed;			/* the far side has closed it: status and signal stand */
	int status;
	char signal[32];
	const char *code;
	char text[512];

	void (*on_open)(void *arg);
	void *open_arg;
	struct channel_waiter on_end;
	void (*progress)(void *arg);	/* for ssh_exec.c: something came, or changed */
	void *progress_arg;
};

enum listen_state {
	LISTEN_QUEUED,		/* the request is to be sent */
	LISTEN_ASKING,		/* ... has been, and its answer must be waited for */
	LISTEN_OPEN,
	LISTEN_OVER		/* libssh2 has nothing of it any more */
};

struct ssh_listen {
	struct listener base;	/* first: what the caller is given in the end */
	struct ssh_session *s;
	struct ssh_listen *next, **link;	/* among the session's */
	LIBSSH2_LISTENER *lib;
	LIBSSH2_CHANNEL *pulled;	/* taken from lib when no channel was there to read the socket through */
	enum listen_state state;
	bool unused;
	char *host;
	void (*on_open)(void *arg);	/* NULL once it was called */
	void *open_arg;
	void (*accepted)(void *arg, struct stream *s);	/* NULL: nobody waits */
	void *arg;
};

struct ssh_session {
	uv_loop_t *loop;
	LIBSSH2_SESSION *lib;		/* NULL once it is over */
	struct wire *wire;
	struct ssh_bridge *bridge;
	struct ssh_options *o;
	struct ssh_info info;
	char key_type[64], fingerprint[64], banner[256], method[128], address[64];
	char *key;

	uv_poll_t poll;
	uv_timer_t clock;
	uv_idle_t kick;
	int events;			/* what poll asks for */
	int open_handles;		/* of the three */
	int users;			/* the owner and the channels */

	struct ssh_channel *channels, **channels_end;
	struct ssh_listen *listens;
	struct ssh_listen *asking;	/* libssh2 asks for one at a time */
	LIBSSH2_CHANNEL *spare;
	struct ssh_channel *opening;	/* whose way is being opened; NULL for a session channel */
	bool open_running;
	bool spare_refused;		/* until a channel is closed */
	bool congested;			/* the wire was full, a channel has more */
	bool turning, over;		/* over: to be put away as soon as the turn ends */

	uint64_t heard;			/* wire->received at the last tick of the clock */
	int unanswered;
	bool kept_alive;		/* libssh2 has answers to our questions, for ever */
	const char *code;
	char text[512];
};

/* Takes lib, wire, options and names out of the job.  NULL: out of memory. */
struct ssh_session *ssh_session_new(uv_loop_t *loop, struct ssh_job *j, struct ssh_bridge *bridge,
                                    const char *address);
void ssh_session_hold(struct ssh_session *s);
void ssh_session_release(struct ssh_session *s);
/* A turn soon, from the loop. */
void ssh_session_kick(struct ssh_session *s);
/* It cannot go on: ends with this code, or with what the wire and libssh2 say of rc. */
void ssh_session_end(struct ssh_session *s, const char *code, const char *text);
void ssh_session_broken(struct ssh_session *s, int rc);

/* ssh_open.c: opens what is queued, and a spare. */
void ssh_open_turn(struct ssh_session *s);

/* ssh_channel.c, called in a turn. */
void ssh_channel_turn(struct ssh_channel *c);
void ssh_channel_opened(struct ssh_channel *c, LIBSSH2_CHANNEL *lib);
void ssh_channel_fail(struct ssh_channel *c, const char *code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void ssh_channel_fire(struct ssh_channel *c);	/* calls whoever waits and may get on */
void ssh_channel_drain(struct ssh_channel *c);	/* everything libssh2 still has for it */
void ssh_channel_dispose(struct ssh_channel *c);	/* nobody uses it and libssh2 does not know it */

/* A channel that the far side has opened.  NULL: out of memory. */
struct ssh_channel *ssh_channel_adopt(struct ssh_session *s, LIBSSH2_CHANNEL *lib);

/* ssh_listen.c, in a turn; lost: with its session; reap takes away what nobody uses. */
void ssh_listen_turn(struct ssh_session *s);
void ssh_listen_fire(struct ssh_session *s);
void ssh_listen_lost(struct ssh_session *s);
void ssh_listen_reap(struct ssh_session *s);
/* A channel to read the socket through, or NULL. */
LIBSSH2_CHANNEL *ssh_listen_pull(struct ssh_session *s);

/* ssh_stream.c */
bool ssh_end_readable(const struct channel_end *e);
bool ssh_end_writable(const struct channel_end *e);

/* The far end of a socket pair, pumped to and from a stream that is the bridge's. */
struct ssh_bridge *ssh_bridge_new(uv_loop_t *loop, struct stream *over, int *fd);
void ssh_bridge_free(struct ssh_bridge *b);

#endif
