/*
 * ssh.h - SSH on the event loop, over libssh2.  Knows nothing of Lua.
 *
 * Names are resolved and sockets connected on the loop; handshake and authentication, which block
 * in agents and in key derivation, run in threads of the hub.  Afterwards a session belongs to the
 * loop.  Every done(arg) is called once, from the loop, and not after the object was freed.
 */
#ifndef RUNBOOK_SSH_H
#define RUNBOOK_SSH_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

#include "listen.h"
#include "stream.h"

/* Up to 16 threads for handshakes; more connections queue.  NULL: out of memory. */
struct ssh_hub;
struct ssh_hub *ssh_hub_new(uv_loop_t *loop);
void ssh_hub_free(struct ssh_hub *hub);		/* what still connects ends with it */

struct ssh_text {
	char *bytes;		/* a NUL follows; NULL: not given */
	size_t length;
};

/* A private key: a file, or its bytes.  The certificate is a file beside it. */
struct ssh_identity {
	char *path, *certificate;	/* certificate: a path; or its text, as in such a file */
	struct ssh_text key, passphrase, certificate_text;
};

enum ssh_method { SSH_AGENT, SSH_IDENTITIES, SSH_PASSWORD, SSH_INTERACTIVE, SSH_METHODS };

/* Strings here are malloc'ed; secrets are wiped when it is freed. */
struct ssh_options {
	char *host, *user;
	char *alias;		/* the name in known_hosts, when that is not host and port */
	char *agent;		/* path of the agent's socket */
	int port;
	double timeout;		/* seconds to connect and shake hands, and as many to authenticate */
	double keepalive;	/* seconds of silence before one asks; three unanswered end the session */
	bool identities_only;	/* of the agent's keys, those that stand in identities */
	bool ask;		/* what answers do not hold waits for ssh_connect_answer */
	enum ssh_method order[SSH_METHODS];
	size_t order_count;
	struct ssh_identity *identities;
	struct ssh_text password, *answers;	/* answers to keyboard-interactive prompts, in order */
	char **known_hosts, **pins;		/* files; "SHA256:..." or "ssh-ed25519 AAAA..." */
	size_t identity_count, answer_count, known_hosts_count, pin_count;
};

struct ssh_options *ssh_options_new(void);	/* all empty, port 22, usual order and times */
void ssh_options_free(struct ssh_options *o);

struct ssh_prompt {
	char *text;
	bool echo;
};

/* Why there is no session.  Strings are empty where they do not apply. */
struct ssh_failure {
	const char *code;	/* "ENOTFOUND", "ECONNREFUSED", "EHOSTKEY_CHANGED", "EAUTH", ...; NULL: none */
	char message[1024];
	char key_type[64], fingerprint[64];	/* what the server offered */
	char *key;		/* the same as one base64 word, to paste */
	char known_at[512];	/* "file:line" that decided */
	char tried[512], offered[256];
	char locked[512];	/* the first key file whose passphrase is missing or wrong */
	struct ssh_prompt *prompts;	/* with EPROMPT: what the server asked and answers did not hold */
	size_t prompt_count;
	char said[1024];	/* what it said with that */
	int attempt;		/* 1; more after wrong answers */
};

struct ssh_session;
struct ssh_connect;

/*
 * Takes the options, and the stream when the session is to run over one.  NULL: out of memory,
 * both are freed then too.  With options.ask done also comes for each question: answer it (done
 * comes again then) or free the connect.
 */
struct ssh_connect *ssh_connect_start(struct ssh_hub *hub, struct ssh_options *o, struct stream *over,
                                      void (*done)(void *arg), void *arg);
/* After done: the session, which is the caller's from here on; NULL when it failed. */
struct ssh_session *ssh_connect_session(struct ssh_connect *c);
const struct ssh_failure *ssh_connect_failure(const struct ssh_connect *c);
void ssh_connect_free(struct ssh_connect *c);

/* After done: the question it came for (prompts, said, attempt; the rest is not to be read); NULL: it is over. */
const struct ssh_failure *ssh_connect_question(const struct ssh_connect *c);
bool ssh_connect_asks(const struct ssh_connect *c);	/* does the server still wait for an answer? */
/* Takes malloc'ed texts, one for each prompt.  False: it waits no more, and they stay the caller's. */
bool ssh_connect_answer(struct ssh_connect *c, struct ssh_text *answers, size_t count);
void ssh_texts_free(struct ssh_text *texts, size_t count);	/* wipes them */

struct ssh_info {
	const char *host, *user, *address;	/* address: numeric, empty over a stream */
	int port;
	const char *key_type, *fingerprint, *key, *banner, *method;	/* method: what let us in */
};

/* Valid as long as the session. */
const struct ssh_info *ssh_session_info(const struct ssh_session *s);
bool ssh_session_alive(const struct ssh_session *s);
/* Why it is not alive: "ELOST" or "ECLOSED". */
const char *ssh_session_code(const struct ssh_session *s);
const char *ssh_session_message(const struct ssh_session *s);
/* Hangs up at once: what runs on it ends with ECLOSED.  Channels and execs stay the caller's. */
void ssh_session_close(struct ssh_session *s);

/*
 * A command with its streams, or a way to another port.  done when it runs (or failed: code).
 * `change`: the command changes something, so the points of spec/ are passed around it.
 */
struct ssh_channel;
struct ssh_channel *ssh_channel_command(struct ssh_session *s, const char *command, size_t length, bool change,
                                        void (*done)(void *arg), void *arg);
struct ssh_channel *ssh_channel_subsystem(struct ssh_session *s, const char *name, void (*done)(void *arg),
                                          void *arg);
struct ssh_channel *ssh_channel_dial(struct ssh_session *s, const char *host, int port, void (*done)(void *arg),
                                     void *arg);
const char *ssh_channel_code(const struct ssh_channel *c);	/* NULL while all is well */
const char *ssh_channel_message(const struct ssh_channel *c);

/* SSH_DUPLEX is stdin and stdout as one stream.  Each may be taken once; the caller closes it. */
enum ssh_end { SSH_STDIN, SSH_STDOUT, SSH_STDERR, SSH_DUPLEX };
struct stream *ssh_channel_stream(struct ssh_channel *c, enum ssh_end end);

/* Calls done when the command has ended (or nobody will know).  NULL takes it back. */
void ssh_channel_wait(struct ssh_channel *c, void (*done)(void *arg), void *arg);
bool ssh_channel_ended(const struct ssh_channel *c);
int ssh_channel_status(const struct ssh_channel *c);
const char *ssh_channel_signal(const struct ssh_channel *c);	/* "TERM"; NULL when it exited */

/* The caller has done with the handle; streams that were taken live on. */
void ssh_channel_free(struct ssh_channel *c);

/*
 * The far side listens: on `host` as its server understands it, on `port` or (0) on one that is free.
 * done when it does (or does not: code).  A session that had to ask whether the server is still there
 * cannot do this any more (ENOTSUP): libssh2 keeps the answers, and would take one for a refusal.
 */
struct ssh_listen;
struct ssh_listen *ssh_listen_start(struct ssh_session *s, const char *host, int port, void (*done)(void *arg),
                                    void *arg);
const char *ssh_listen_code(const struct ssh_listen *l);	/* NULL while all is well */
const char *ssh_listen_message(const struct ssh_listen *l);
/* After done, when all is well: the listener, which is the caller's from here on; l is gone. */
struct listener *ssh_listen_listener(struct ssh_listen *l);
void ssh_listen_free(struct ssh_listen *l);	/* also abandons it */

struct ssh_result {
	const char *code;	/* NULL when the command ran to its end */
	const char *message;
	const char *out, *err;
	size_t out_length, err_length;
	int status;
	const char *signal;
};

/*
 * Runs a command and collects what it prints: at most `limit` bytes of stdout (then ELIMIT), the
 * last 64 KiB of stderr.  Its stdin is a copy of `input`, or what `from` gives (which stays the
 * caller's), or empty.
 */
struct ssh_exec;
struct ssh_exec *ssh_exec_start(struct ssh_session *s, const char *command, size_t length, bool change,
                                size_t limit, void (*done)(void *arg), void *arg);
bool ssh_exec_input(struct ssh_exec *x, const char *input, size_t length);	/* false: out of memory */
bool ssh_exec_input_from(struct ssh_exec *x, struct stream *from);
const struct ssh_result *ssh_exec_result(const struct ssh_exec *x);
void ssh_exec_free(struct ssh_exec *x);		/* also abandons it */

#endif
