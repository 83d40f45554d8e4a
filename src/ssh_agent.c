/* ssh_agent.c - asks an ssh-agent for its keys and for signatures, within a deadline. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/socket.h>
#include <sys/un.h>

#include "packet.h"
#include "ssh_agent.h"
#include "ssh_wire.h"

#define REQUEST_IDENTITIES 11
#define IDENTITIES_ANSWER  12
#define SIGN_REQUEST       13
#define SIGN_RESPONSE      14
#define SIGN_SHA2_256      2
#define SIGN_SHA2_512      4
#define ANSWER_MAX         (256 * 1024)

struct ssh_agent {
	int fd;
	uint64_t deadline;
	struct bytes request, answer;	/* answer: of the last exchange, without its length */
	struct bytes listing;		/* the answer the keys point into */
	struct ssh_agent_key *keys;
	size_t count;
};

/* Waits for the socket.  0, or an errno. */
static int
agent_wait(struct ssh_agent *a, short events)
{
	struct pollfd p = { .fd = a->fd, .events = events };
	uint64_t now = wire_now_ms();
	int n;

	if (now >= a->deadline)
		return ETIMEDOUT;
	n = poll(&p, 1, a->deadline - now > INT_MAX ? INT_MAX : (int)(a->deadline - now));
	if (n == 0)
		return ETIMEDOUT;
	return n < 0 && errno != EINTR ? errno : 0;
}

/* Moves exactly `length` bytes, out of or into `data`. */
static int
agent_move(struct ssh_agent *a, bool out, char *data, size_t length)
{
	while (length > 0) {
		ssize_t n = out ? send(a->fd, data, length, MSG_NOSIGNAL) : recv(a->fd, data, length, 0);
		int error;

		if (n > 0) {
			data += n;
			length -= (size_t)n;
		} else if (n == 0) {
			return ECONNRESET;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			if ((error = agent_wait(a, out ? POLLOUT : POLLIN)) != 0)
				return error;
		} else if (errno != EINTR) {
			return errno;
		}
	}
	return 0;
}

/* Sends the request and reads the whole answer.  0, or an errno. */
static int
exchange(struct ssh_agent *a)
{
	size_t length = bytes_length(&a->request);
	unsigned char head[4] = { (unsigned char)(length >> 24), (unsigned char)(length >> 16),
		(unsigned char)(length >> 8), (unsigned char)length };
	char *room;
	int error;

	a->answer.start = a->answer.end = 0;
	if ((error = agent_move(a, true, (char *)head, sizeof head)) != 0 ||
	    (error = agent_move(a, true, bytes_first(&a->request), length)) != 0 ||
	    (error = agent_move(a, false, (char *)head, sizeof head)) != 0)
		return error;
	length = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
	if (length == 0 || length > ANSWER_MAX)
		return EPROTO;
	if ((room = bytes_room(&a->answer, length)) == NULL)
		return ENOMEM;
	if ((error = agent_move(a, false, room, length)) != 0)
		return error;
	bytes_added(&a->answer, length);
	return 0;
}

static struct packet_reader
answer_reader(const struct bytes *b)
{
	return (struct packet_reader){ (const unsigned char *)bytes_first(b), bytes_length(b), false };
}

static int
list_keys(struct ssh_agent *a)
{
	struct packet_reader r;
	uint32_t count;
	int error;

	if (!packet_put_u8(&a->request, REQUEST_IDENTITIES))
		return ENOMEM;
	if ((error = exchange(a)) != 0)
		return error;
	a->listing = a->answer;
	a->answer = (struct bytes){ NULL, 0, 0, 0 };
	r = answer_reader(&a->listing);
	if (packet_u8(&r) != IDENTITIES_ANSWER)
		return EPROTO;
	count = packet_u32(&r);
	if (r.bad || count > r.left / 8)	/* each key takes two lengths at least */
		return EPROTO;
	if ((a->keys = calloc((size_t)count + 1, sizeof *a->keys)) == NULL)
		return ENOMEM;
	while (a->count < count) {
		struct ssh_agent_key *k = &a->keys[a->count];
		const char *comment;
		size_t length;

		k->blob = (const unsigned char *)packet_string(&r, &k->length);
		comment = packet_string(&r, &length);
		if (r.bad)
			return EPROTO;
		snprintf(k->comment, sizeof k->comment, "%.*s", length < sizeof k->comment ? (int)length : 100, comment);
		a->count++;
	}
	return 0;
}

static int
agent_connect(struct ssh_agent *a, const char *path)
{
	struct sockaddr_un where = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof where.sun_path)
		return ENAMETOOLONG;
	memcpy(where.sun_path, path, strlen(path) + 1);
	a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (a->fd < 0)
		return errno;
	return connect(a->fd, (struct sockaddr *)&where, sizeof where) < 0 ? errno : 0;
}

struct ssh_agent *
ssh_agent_open(const char *path, uint64_t deadline_ms, char *why, size_t size)
{
	struct ssh_agent *a = calloc(1, sizeof *a);
	int error;

	if (a == NULL) {
		snprintf(why, size, "out of memory");
		return NULL;
	}
	a->fd = -1;
	a->deadline = deadline_ms;
	if ((error = agent_connect(a, path)) != 0)
		snprintf(why, size, "no agent at %.100s: %s", path, strerror(error));
	else if ((error = list_keys(a)) != 0)
		snprintf(why, size, "the agent at %.100s does not answer: %s", path, strerror(error));
	if (error == 0)
		return a;
	ssh_agent_close(a);
	return NULL;
}

void
ssh_agent_close(struct ssh_agent *a)
{
	if (a == NULL)
		return;
	if (a->fd >= 0)
		close(a->fd);
	bytes_free(&a->request);
	bytes_free(&a->answer);
	bytes_free(&a->listing);
	free(a->keys);
	free(a);
}

size_t
ssh_agent_count(const struct ssh_agent *a)
{
	return a->count;
}

const struct ssh_agent_key *
ssh_agent_key(const struct ssh_agent *a, size_t n)
{
	return &a->keys[n];
}

/* The algorithm is the field before the key: session, type, user, service, method, true, algorithm. */
static uint32_t
flags_for(const unsigned char *data, size_t length)
{
	struct packet_reader r = { data, length, false };
	const char *algorithm;
	size_t n;

	packet_string(&r, &n);
	packet_u8(&r);
	for (int i = 0; i < 3; i++)
		packet_string(&r, &n);
	packet_u8(&r);
	algorithm = packet_string(&r, &n);
	if (r.bad || n < 12)
		return 0;
	if (memcmp(algorithm, "rsa-sha2-512", 12) == 0)
		return SIGN_SHA2_512;
	return memcmp(algorithm, "rsa-sha2-256", 12) == 0 ? SIGN_SHA2_256 : 0;
}

/* What follows the algorithm's name: one field; for keys in hardware the rest as it stands. */
static int
take_signature(struct ssh_agent *a, unsigned char **signature, size_t *length)
{
	struct packet_reader r = answer_reader(&a->answer);
	const char *blob, *type, *raw;
	size_t n, type_length;

	if (packet_u8(&r) != SIGN_RESPONSE)
		return -1;
	blob = packet_string(&r, &n);
	if (r.bad)
		return -1;
	r = (struct packet_reader){ (const unsigned char *)blob, n, false };
	type = packet_string(&r, &type_length);
	raw = (const char *)r.at;
	*length = r.left;
	if (type_length < 3 || memcmp(type, "sk-", 3) != 0)
		raw = packet_string(&r, length);
	if (r.bad || (*signature = malloc(*length + 1)) == NULL)
		return -1;
	memcpy(*signature, raw, *length);
	return 0;
}

int
ssh_agent_sign(struct ssh_agent *a, const struct ssh_agent_key *k, const unsigned char *data, size_t length,
               unsigned char **signature, size_t *signature_length)
{
	a->request.start = a->request.end = 0;
	if (!packet_put_u8(&a->request, SIGN_REQUEST) || !packet_put_string(&a->request, k->blob, k->length) ||
	    !packet_put_string(&a->request, data, length) || !packet_put_u32(&a->request, flags_for(data, length)) ||
	    exchange(a) != 0)
		return -1;
	return take_signature(a, signature, signature_length);
}
