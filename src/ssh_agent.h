/*
 * ssh_agent.h - asks an ssh-agent for its keys and for signatures, within a deadline.
 *
 * libssh2's own client waits for ever for an agent that does not answer, and cannot use RSA
 * certificates that an agent holds.  Blocks: for threads.
 */
#ifndef RUNBOOK_SSH_AGENT_H
#define RUNBOOK_SSH_AGENT_H

#include <stddef.h>
#include <stdint.h>

struct ssh_agent_key {
	const unsigned char *blob;
	size_t length;
	char comment[128];
};

struct ssh_agent;

/* The agent with its list of keys; NULL with the reason in `why`. */
struct ssh_agent *ssh_agent_open(const char *path, uint64_t deadline_ms, char *why, size_t size);
void ssh_agent_close(struct ssh_agent *a);
size_t ssh_agent_count(const struct ssh_agent *a);
const struct ssh_agent_key *ssh_agent_key(const struct ssh_agent *a, size_t n);

/*
 * The agent's signature, without the name of its algorithm, in malloc'ed memory.  `data` is what
 * an ssh client signs to authenticate; it names the algorithm.  0, or -1 when the agent refused.
 */
int ssh_agent_sign(struct ssh_agent *a, const struct ssh_agent_key *k, const unsigned char *data, size_t length,
                   unsigned char **signature, size_t *signature_length);

#endif
