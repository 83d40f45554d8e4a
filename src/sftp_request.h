/* sftp_request.h - what the files of the sftp client share; nobody else includes it. */
#ifndef RUNBOOK_SFTP_REQUEST_H
#define RUNBOOK_SFTP_REQUEST_H

#include "bytes.h"
#include "packet.h"
#include "sftp.h"

enum {
	SFTP_INIT = 1, SFTP_VERSION, SFTP_OPEN, SFTP_CLOSE, SFTP_READ, SFTP_WRITE, SFTP_LSTAT, SFTP_FSTAT, SFTP_SETSTAT,
	SFTP_FSETSTAT, SFTP_OPENDIR, SFTP_READDIR, SFTP_REMOVE, SFTP_MKDIR, SFTP_RMDIR, SFTP_REALPATH, SFTP_STAT,
	SFTP_RENAME, SFTP_READLINK, SFTP_SYMLINK,
	SFTP_STATUS = 101, SFTP_HANDLE, SFTP_DATA, SFTP_NAME, SFTP_ATTRS,
	SFTP_EXTENDED = 200
};

#define SFTP_BLOCK 32768	/* what every server takes and gives in one packet */

struct sftp_op;

struct sftp_request {
	struct sftp_request *next;
	struct sftp *c;
	uint32_t id;
	uint8_t type;		/* of the answer; 0: there was none */
	struct bytes body;	/* of the request, then of the answer */
	bool full;		/* memory ran out while the body was made */
	bool sent;
	void (*done)(struct sftp_request *r, void *arg);
	void *arg;
	void (*answered)(struct sftp_request *r, struct sftp_op *op);
};

/* done gets the request, which is its to free.  NULL: out of memory. */
struct sftp_request *sftp_request_new(struct sftp *c, uint8_t type, void (*done)(struct sftp_request *r, void *arg),
                                      void *arg);
void sftp_request_text(struct sftp_request *r, const void *text, size_t length);
void sftp_request_number(struct sftp_request *r, uint32_t n);
void sftp_request_offset(struct sftp_request *r, uint64_t n);
void sftp_request_attributes(struct sftp_request *r, const struct sftp_attributes *a);
/* Without an answer (the connection is gone) done comes all the same. */
void sftp_request_send(struct sftp_request *r);
void sftp_request_free(struct sftp_request *r);

/* Closes a handle; nobody waits for it. */
void sftp_close_handle(struct sftp *c, const struct bytes *handle);

/*
 * NULL when the answer is of the type that was expected (SFTP_STATUS: says that all is well), and
 * *reader is at its fields.  Else a code, with what the server said: "EOF" is the end of a file or list.
 */
const char *sftp_answer(const struct sftp_request *r, uint8_t expected, struct packet_reader *reader, char *message,
                        size_t size);
void sftp_read_attributes(struct packet_reader *r, struct sftp_attributes *a);

bool sftp_can_rename_over(const struct sftp *c);
bool sftp_can_sync(const struct sftp *c);
void sftp_hold(struct sftp *c);
void sftp_release(struct sftp *c);

/* An op lives until its last request is answered, freed by its owner or not. */
struct sftp_op {
	struct sftp *c;
	const char *code;
	char message[200];
	void (*done)(void *arg);
	void *arg;
	size_t in_flight;
	bool freed;
	uint8_t expected;		/* of the answer */
	struct sftp_attributes attributes;
	struct bytes text;		/* of readlink and realpath; the entries of a list */
	struct bytes handle;
	struct sftp_writing *writing;	/* sftp_write.c */
};

struct sftp_op *sftp_op_new(struct sftp *c, void (*done)(void *arg), void *arg);
/* A request of the op; NULL when memory ran out. */
struct sftp_request *sftp_op_request(struct sftp_op *op, uint8_t type,
                                     void (*answered)(struct sftp_request *r, struct sftp_op *op));
void sftp_op_send(struct sftp_op *op, struct sftp_request *r);
void sftp_op_fail(struct sftp_op *op, const char *code, const char *message);	/* the first failure counts */
/* It is over: tells the owner, or frees what the owner has freed. */
void sftp_op_finish(struct sftp_op *op);
void sftp_writing_free(struct sftp_writing *w);
void sftp_writing_abandon(struct sftp_op *op);

/* A callback from the loop's next turn, or at the end of the connection; one at a time per waker. */
struct sftp_waker {
	struct sftp_waker *next;
	void (*wake)(void *arg);
	void *arg;
	bool asked, at_end;
};

void sftp_wake_later(struct sftp *c, struct sftp_waker *w);
void sftp_wake_at_end(struct sftp *c, struct sftp_waker *w);
void sftp_wake_cancel(struct sftp *c, struct sftp_waker *w);

#endif
