/*
 * ssh_job.h - one handshake with its authentication, done by a thread of the hub.
 *
 * While a thread has the job nobody else touches it; giving up only tells the wire that it is not
 * wanted any more, and the thread, which notices soon, frees it.
 */
#ifndef RUNBOOK_SSH_JOB_H
#define RUNBOOK_SSH_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include <libssh2.h>

#include "ssh.h"
#include "ssh_wire.h"

/* A question on its way to a person and back; changed under the hub's mutex. */
enum ssh_asking { ASKING_NOTHING, ASKING_POSTED, ASKING_SHOWN, ASKING_ANSWERED };

struct ssh_job {
	struct ssh_job *next;
	struct ssh_hub *hub;		/* from its submission on */
	struct ssh_options *o;
	struct wire *wire;
	LIBSSH2_SESSION *lib;
	struct ssh_failure failure;	/* also what the server offered, when all went well */
	char method[128], banner[256];
	uint64_t deadline;		/* of the phase it is in, on wire_now_ms's clock */
	char *list;			/* what libssh2 gave for the methods on offer */
	size_t answered;		/* keyboard-interactive: answers given */
	bool password_only;		/* ... and the password is the only one */
	bool typed;			/* ... a person answered */
	enum ssh_asking asking;
	struct ssh_text *given;		/* what the person typed, for failure.prompts */
	size_t given_count;
	int broken;			/* what ended the last wait: an errno, or 0 */
	bool abandoned;			/* under the hub's mutex */
	void (*finished)(struct ssh_job *j, void *arg);	/* on the loop */
	void (*asks)(struct ssh_job *j, void *arg);	/* on the loop: failure holds a question */
	void *arg;
};

/* Owns the options and the wire from here on; NULL (out of memory): they stay the caller's. */
struct ssh_job *ssh_job_new(struct ssh_options *o, struct wire *wire, void (*finished)(struct ssh_job *j, void *arg),
                            void *arg);
void ssh_job_free(struct ssh_job *j);

/* The hub.  A job given up is freed when its thread is done; finished is not called. */
void ssh_hub_submit(struct ssh_hub *hub, struct ssh_job *j);
void ssh_hub_abandon(struct ssh_hub *hub, struct ssh_job *j);
/* Is a question open that the loop was told of?  Its answers; false: it is not, and they stay the caller's. */
bool ssh_hub_asks(struct ssh_hub *hub, const struct ssh_job *j);
bool ssh_hub_answer(struct ssh_hub *hub, struct ssh_job *j, struct ssh_text *answers, size_t count);
uv_loop_t *ssh_hub_loop(const struct ssh_hub *hub);
void ssh_hub_hold(struct ssh_hub *hub);
void ssh_hub_release(struct ssh_hub *hub);

/* In the thread.  The outcome is in failure.code. */
void ssh_job_run(struct ssh_job *j);
bool ssh_job_shake_hands(struct ssh_job *j);	/* ssh_handshake.c */
void ssh_job_authenticate(struct ssh_job *j);	/* ssh_auth.c */
bool ssh_job_offers(struct ssh_job *j, const char *method);
bool ssh_job_let_in(struct ssh_job *j, int rc, const char *how);
bool ssh_job_dead(const struct ssh_job *j);
bool ssh_job_try_password(struct ssh_job *j);	/* ssh_questions.c */
bool ssh_job_try_questions(struct ssh_job *j);
bool ssh_job_ask_password(struct ssh_job *j);	/* a last resort: where the server takes nothing else */

/*
 * Has somebody answer failure.prompts, into given.  False: nobody will.  Until there is an answer the
 * loop may read prompts, said and attempt, so these stay as they are even when nobody waits any more.
 */
bool ssh_job_ask(struct ssh_job *j);
void ssh_job_forget_given(struct ssh_job *j);

/* libssh2 said rc: true when it wants to be called again and may be by now. */
bool ssh_job_again(struct ssh_job *j, int rc);

/* Notes why it failed, unless something noted that before.  code is static. */
void ssh_failure_set(struct ssh_failure *f, const char *code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void ssh_failure_fini(struct ssh_failure *f);
void ssh_failure_forget_prompts(struct ssh_failure *f);

/* Appends to one of the lists in words ("agent (2 keys), password"). */
void ssh_list_add(char *list, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define SSH_TRIED(j, ...) ssh_list_add((j)->failure.tried, sizeof (j)->failure.tried, __VA_ARGS__)

#endif
