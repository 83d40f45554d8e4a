/* dns.c - see dns.h. */
#include "dns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "digest.h"
#include "dns_tsig.h"

#define FIRST_PATIENCE_MS 1000	/* until a datagram is sent again; doubles */
#define DATAGRAM_MAX      65536
#define MESSAGE_ROOM      65536

struct dns_exchange {
	uv_udp_t udp;
	uv_tcp_t tcp;
	uv_timer_t deadline, again;
	uv_connect_t connect;
	uv_write_t write;
	unsigned open;			/* handles that live */
	bool unwanted, over;
	bool udp_open, tcp_open;
	union {
		struct sockaddr any;
		struct sockaddr_storage room;
	} to;
	struct bytes question;		/* as it is sent, after two bytes with its length */
	struct bytes incoming;		/* of the TCP connection */
	struct dns_tsig *key;
	char *name, *type;		/* of a question */
	uint16_t id;
	enum dns_opcode opcode;
	unsigned flags;
	bool whole_zone, sent;
	unsigned soas;			/* of a whole zone: it begins and ends with one */
	uint64_t patience;
	double timeout;
	size_t records;
	struct dns_result result;
	void (*done)(void *arg);
	void *arg;
	char datagram[DATAGRAM_MAX];
};

/* ---- the end ---- */

static void
free_all(struct dns_exchange *x)
{
	bytes_free(&x->question);
	bytes_free(&x->incoming);
	dns_tsig_free(x->key);
	dns_answer_free(&x->result.answer);
	free(x->name);
	free(x->type);
	free(x);
}

static void
handle_closed(uv_handle_t *handle)
{
	struct dns_exchange *x = handle->data;

	if (--x->open == 0 && x->unwanted)
		free_all(x);
}

static void
close_udp(struct dns_exchange *x)
{
	if (x->udp_open)
		uv_close((uv_handle_t *)&x->udp, handle_closed);
	x->udp_open = false;
}

static void
close_tcp(struct dns_exchange *x)
{
	if (x->tcp_open)
		uv_close((uv_handle_t *)&x->tcp, handle_closed);
	x->tcp_open = false;
}

static void
close_all(struct dns_exchange *x)
{
	close_udp(x);
	close_tcp(x);
	if (!uv_is_closing((uv_handle_t *)&x->deadline)) {
		uv_close((uv_handle_t *)&x->deadline, handle_closed);
		uv_close((uv_handle_t *)&x->again, handle_closed);
	}
}

static void
end(struct dns_exchange *x)
{
	if (x->over)
		return;
	x->over = true;
	close_all(x);
	x->done(x->arg);
}

static void
fail(struct dns_exchange *x, const char *code, const char *message)
{
	if (x->over)
		return;
	x->result.code = code;
	snprintf(x->result.message, sizeof x->result.message, "%s", message);
	end(x);
}

static void
fail_with(struct dns_exchange *x, int error, const char *what)
{
	char message[200];

	snprintf(message, sizeof message, "%s: %s", what, uv_strerror(error));
	fail(x, error == UV_EOF || (x->sent && error == UV_ECONNRESET) ? "ELOST" : uv_err_name(error), message);
}

void
dns_free(struct dns_exchange *x)
{
	if (x == NULL)
		return;
	x->over = x->unwanted = true;
	close_all(x);
	if (x->open == 0)
		free_all(x);
}

const struct dns_result *
dns_result(const struct dns_exchange *x)
{
	return &x->result;
}

static void
too_late(uv_timer_t *timer)
{
	struct dns_exchange *x = timer->data;
	char message[120];

	snprintf(message, sizeof message, "no answer within %g s%s", x->timeout,
	         x->tcp_open && !x->sent ? "; there is no TCP connection" : "");
	fail(x, "ETIMEDOUT", message);
}

/* ---- answers ---- */

static unsigned
get16(const unsigned char *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

/* An answer to what was asked: the id, the kind, and the same question, if it repeats one. */
static bool
is_for_us(const struct dns_exchange *x, const unsigned char *m, size_t length)
{
	const unsigned char *asked = (const unsigned char *)bytes_first(&x->question) + 2;
	size_t asked_length = bytes_length(&x->question) - 2, at = 12;

	if (length < 12 || get16(m) != x->id || (m[2] & 0x80) == 0 || ((m[2] >> 3) & 15) != (int)x->opcode)
		return false;
	if (get16(m + 4) == 0)
		return x->opcode == DNS_UPDATE || (m[3] & 15) != 0 || x->soas > 0;	/* later messages of a zone repeat none */
	if (get16(m + 4) != 1)
		return false;
	for (;;) {		/* the same labels, whatever their case, then the same type and class */
		if (at + 1 > length || at + 1 > asked_length || m[at] != asked[at] || m[at] > 63)
			return false;
		if (m[at] == 0)
			break;
		if (at + 1 + m[at] > length || at + 1 + m[at] > asked_length ||
		    strncasecmp((const char *)m + at + 1, (const char *)asked + at + 1, m[at]) != 0)
			return false;
		at += 1 + (size_t)m[at];
	}
	return at + 5 <= length && memcmp(m + at + 1, asked + at + 1, 4) == 0;
}

/* Those that say no need no proof: a server that does not know our key has none to give. */
static bool
says_no(const struct dns_answer *a)
{
	static const char *const noes[] = { "FORMERR", "SERVFAIL", "NOTIMPL", "REFUSED", "NOTAUTH", "NOTZONE" };

	for (size_t i = 0; i < sizeof noes / sizeof *noes; i++)
		if (strcmp(a->rcode, noes[i]) == 0)
			return true;
	return false;
}

/* False: the exchange is over. */
static bool
verify(struct dns_exchange *x, const unsigned char *m, size_t length)
{
	enum dns_signed s = dns_tsig_verify(x->key, m, length, (uint64_t)time(NULL));

	if (s == DNS_SIGNED || (s == DNS_UNSIGNED && (x->soas > 0 || says_no(&x->result.answer))))
		return true;
	x->result.skew = dns_tsig_skew(x->key);
	if (s == DNS_COMPLAINS) {
		x->result.key_error = dns_tsig_error(x->key);
		end(x);
	} else {
		fail(x, "EFORGED", s == DNS_UNTIMELY ? "the answer is signed at another time than now" :
		     s == DNS_UNSIGNED ? "the answer is not signed" : "the answer is not signed with our key");
	}
	return false;
}

static void
count_soas(struct dns_exchange *x, size_t from)
{
	const struct dns_answer *a = &x->result.answer;

	for (size_t i = from; i < a->counts[DNS_ANSWER]; i++)
		if (strcmp(a->records[DNS_ANSWER][i].type, "SOA") == 0)
			x->soas++;
}

/* One message of a whole zone; false: more are to come. */
static bool
zone_is_whole(struct dns_exchange *x, size_t before)
{
	const struct dns_answer *a = &x->result.answer;

	if (strcmp(a->rcode, "NOERROR") != 0)
		return true;
	if (a->counts[DNS_ANSWER] == 0 || (before == 0 && strcmp(a->records[DNS_ANSWER][0].type, "SOA") != 0)) {
		fail(x, "EPROTO", "the server answers with something that is no zone");
		return false;
	}
	count_soas(x, before);
	if (x->soas < 2)
		return false;
	if (x->key != NULL && dns_tsig_unsettled(x->key)) {
		fail(x, "EFORGED", "the end of the zone is not signed");
		return false;
	}
	return true;
}

/* A message over TCP; false: there is nothing more to read. */
static bool
take_message(struct dns_exchange *x, const unsigned char *m, size_t length)
{
	size_t before = x->result.answer.counts[DNS_ANSWER];
	const char *wrong;

	if (!is_for_us(x, m, length)) {
		fail(x, "EPROTO", "the server answers something else than was asked");
		return false;
	}
	if ((wrong = dns_read_answer(&x->result.answer, m, length, x->records)) != NULL) {
		fail(x, strstr(wrong, "more records") != NULL ? "ELIMIT" : "EPROTO", wrong);
		return false;
	}
	if (x->key != NULL && !verify(x, m, length))
		return false;
	if (x->whole_zone && !zone_is_whole(x, before))
		return !x->over;
	end(x);
	return false;
}

/* ---- TCP ---- */

static void
take_messages(struct dns_exchange *x)
{
	while (bytes_length(&x->incoming) >= 2) {
		const unsigned char *p = (const unsigned char *)bytes_first(&x->incoming);
		size_t length = get16(p);

		if (bytes_length(&x->incoming) < length + 2 || !take_message(x, p + 2, length))
			return;
		bytes_used(&x->incoming, length + 2);
	}
}

static void
give_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct dns_exchange *x = handle->data;

	(void)suggested;
	buf->base = bytes_room(&x->incoming, MESSAGE_ROOM);
	buf->len = buf->base != NULL ? MESSAGE_ROOM : 0;
}

static void
tcp_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct dns_exchange *x = stream->data;

	(void)buf;
	if (n < 0) {
		fail_with(x, (int)n, n == UV_EOF ? "the server closed the connection" : "reading its answer");
		return;
	}
	bytes_added(&x->incoming, (size_t)n);
	take_messages(x);
}

static void
tcp_written(uv_write_t *request, int status)
{
	struct dns_exchange *x = request->data;

	if (status < 0 && status != UV_ECANCELED)
		fail_with(x, status, "sending the question");
}

static void
tcp_connected(uv_connect_t *request, int status)
{
	struct dns_exchange *x = request->data;
	uv_buf_t buf = uv_buf_init(bytes_first(&x->question), (unsigned)bytes_length(&x->question));
	int error;

	if (status == UV_ECANCELED)
		return;
	if (status < 0) {
		fail_with(x, status, "connecting by TCP");
		return;
	}
	x->sent = true;
	x->write.data = x;
	if ((error = uv_read_start((uv_stream_t *)&x->tcp, give_room, tcp_read)) != 0 ||
	    (error = uv_write(&x->write, (uv_stream_t *)&x->tcp, &buf, 1, tcp_written)) != 0)
		fail_with(x, error, "sending the question");
}

static void
start_tcp(struct dns_exchange *x)
{
	int error;

	x->result.tcp = true;
	dns_answer_free(&x->result.answer);
	uv_timer_stop(&x->again);
	close_udp(x);
	if ((error = uv_tcp_init(x->deadline.loop, &x->tcp)) != 0) {
		fail_with(x, error, "a TCP socket");
		return;
	}
	x->tcp_open = true;
	x->open++;
	x->tcp.data = x->connect.data = x;
	if ((error = uv_tcp_connect(&x->connect, &x->tcp, &x->to.any, tcp_connected)) != 0)
		fail_with(x, error, "connecting by TCP");
}

/* ---- UDP ---- */

static void
send_datagram(struct dns_exchange *x)
{
	uv_buf_t buf = uv_buf_init(bytes_first(&x->question) + 2, (unsigned)bytes_length(&x->question) - 2);
	int sent = uv_udp_try_send(&x->udp, &buf, 1, NULL);

	if (sent < 0 && sent != UV_EAGAIN)	/* a full socket buffer is a lost datagram */
		fail_with(x, sent, "sending the question");
}

static bool write_question(struct dns_exchange *x, const struct dns_options *o, char *why, size_t room);

/* Some old servers know no EDNS; false: this one is none of them, or cannot be asked again. */
static bool
ask_without_edns(struct dns_exchange *x)
{
	const struct dns_answer *a = &x->result.answer;
	const struct dns_options o = { .name = x->name, .type = x->type };
	char why[64];

	if ((x->flags & DNS_ASKS_EDNS) == 0 || a->edns ||
	    (strcmp(a->rcode, "FORMERR") != 0 && strcmp(a->rcode, "NOTIMPL") != 0))
		return false;
	x->flags &= ~(unsigned)(DNS_ASKS_EDNS | DNS_ASKS_DNSSEC);
	bytes_free(&x->question);
	if (!write_question(x, &o, why, sizeof why)) {
		fail(x, "ENOMEM", why);
		return true;
	}
	dns_answer_free(&x->result.answer);
	send_datagram(x);
	return true;
}

static void
udp_read(uv_udp_t *udp, ssize_t n, const uv_buf_t *buf, const struct sockaddr *from, unsigned flags)
{
	struct dns_exchange *x = udp->data;
	const unsigned char *m = (const unsigned char *)buf->base;

	(void)flags;
	if (n < 0) {
		fail_with(x, (int)n, "reading its answer");
		return;
	}
	/* Somebody may throw anything at the port; the true answer may still come. */
	if (from == NULL || !is_for_us(x, m, (size_t)n))
		return;
	dns_answer_free(&x->result.answer);
	if (dns_read_answer(&x->result.answer, m, (size_t)n, x->records) != NULL || x->result.answer.truncated) {
		start_tcp(x);
		return;
	}
	if (!ask_without_edns(x))
		end(x);
}

static void
give_datagram(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct dns_exchange *x = handle->data;

	(void)suggested;
	*buf = uv_buf_init(x->datagram, sizeof x->datagram);
}

static void
send_again(uv_timer_t *timer)
{
	struct dns_exchange *x = timer->data;

	x->patience *= 2;
	uv_timer_start(&x->again, send_again, x->patience, 0);
	send_datagram(x);
}

/* Connected, so that the kernel takes datagrams of nobody else, and says when nobody listens there. */
static void
start_udp(struct dns_exchange *x)
{
	int error;

	if ((error = uv_udp_init(x->deadline.loop, &x->udp)) != 0) {
		fail_with(x, error, "a UDP socket");
		return;
	}
	x->udp_open = true;
	x->open++;
	x->udp.data = x;
	if ((error = uv_udp_connect(&x->udp, &x->to.any)) != 0 ||
	    (error = uv_udp_recv_start(&x->udp, give_datagram, udp_read)) != 0) {
		fail_with(x, error, "a UDP socket");
		return;
	}
	x->patience = FIRST_PATIENCE_MS;
	uv_timer_start(&x->again, send_again, x->patience, 0);
	send_datagram(x);
}

/* ---- the beginning ---- */

/* The line's end is the caller's; the message shows the line. */
static void
explain(char *why, size_t room, const char *wrong, const char *line)
{
	if (line != NULL)
		snprintf(why, room, "%.*s: %s", (int)strcspn(line, "\n"), line, wrong);
	else
		snprintf(why, room, "%s", wrong);
}

static bool
write_question(struct dns_exchange *x, const struct dns_options *o, char *why, size_t room)
{
	const char *wrong = "out of memory", *line = NULL;
	unsigned char *p;
	struct bytes m = { NULL, 0, 0, 0 };
	bool good = x->opcode == DNS_UPDATE ? dns_write_update(&m, x->id, o->zone, o->lines, &wrong, &line) :
	            dns_write_query(&m, x->id, o->name, o->type, x->flags, &wrong);

	if (good && x->key != NULL && !dns_tsig_sign(x->key, &m, (uint64_t)time(NULL))) {
		good = false;
		wrong = "out of memory";
	}
	if (good && (p = (unsigned char *)bytes_room(&x->question, bytes_length(&m) + 2)) != NULL) {
		p[0] = (unsigned char)(bytes_length(&m) >> 8);
		p[1] = (unsigned char)bytes_length(&m);
		memcpy(p + 2, bytes_first(&m), bytes_length(&m));
		bytes_added(&x->question, bytes_length(&m) + 2);
	} else {
		good = false;
	}
	bytes_free(&m);
	if (!good)
		explain(why, room, wrong, line);
	return good;
}

/* All that can be wrong with the options; the loop knows nothing of it yet. */
static bool
prepare(struct dns_exchange *x, const struct dns_options *o, char *why, size_t room)
{
	const char *wrong = NULL;
	unsigned char id[2];

	if (uv_ip4_addr(o->address, o->port, (struct sockaddr_in *)&x->to.room) != 0 &&
	    uv_ip6_addr(o->address, o->port, (struct sockaddr_in6 *)&x->to.room) != 0) {
		snprintf(why, room, "%s: a numeric address is expected", o->address);
		return false;
	}
	x->opcode = o->zone != NULL ? DNS_UPDATE : DNS_QUERY;
	x->whole_zone = o->zone == NULL && strcasecmp(o->type, "AXFR") == 0;
	x->flags = (o->recurse ? DNS_ASKS_RECURSION : 0) | (x->whole_zone ? 0 : DNS_ASKS_EDNS) |
	           (o->dnssec ? DNS_ASKS_DNSSEC : 0);
	if (o->key_name != NULL) {
		x->key = dns_tsig_new(o->key_name, o->key_algorithm, o->key_secret, o->key_secret_length, &wrong);
		if (x->key == NULL) {
			snprintf(why, room, "%s", wrong);
			return false;
		}
	}
	snprintf(why, room, "out of memory or of randomness");
	if (!digest_random(id, sizeof id) || (o->zone == NULL &&
	    ((x->name = strdup(o->name)) == NULL || (x->type = strdup(o->type)) == NULL)))
		return false;
	x->id = (uint16_t)get16(id);
	return write_question(x, o, why, room);
}

struct dns_exchange *
dns_start(uv_loop_t *loop, const struct dns_options *o, void (*done)(void *arg), void *arg, char *why, size_t room)
{
	struct dns_exchange *x = calloc(1, sizeof *x);

	if (x == NULL) {
		snprintf(why, room, "out of memory");
		return NULL;
	}
	x->done = done;
	x->arg = arg;
	x->timeout = o->timeout;
	x->records = o->records;
	if (!prepare(x, o, why, room)) {
		free_all(x);
		return NULL;
	}
	uv_timer_init(loop, &x->deadline);
	uv_timer_init(loop, &x->again);
	x->deadline.data = x->again.data = x;
	x->open = 2;
	uv_timer_start(&x->deadline, too_late, (uint64_t)(o->timeout * 1000), 0);
	/* What is signed goes over TCP: there a forged answer ends the exchange, and nobody else can send one. */
	if (x->opcode == DNS_UPDATE || x->whole_zone || o->tcp || x->key != NULL)
		start_tcp(x);
	else
		start_udp(x);
	return x;
}
