/* sftp.c - requests and answers of an sftp client. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sftp_request.h"

#define PACKET_MAX (256 * 1024 + 1024)
#define RATION     (256 * 1024)		/* bytes read in one turn */
#define CHUNK      (64 * 1024)

struct sftp {
	uv_loop_t *loop;
	uv_idle_t kick;
	struct stream *over;		/* NULL once it is over */
	struct bytes in, out;
	bool writing;			/* a callback was asked for */
	bool greeted, can_rename_over, can_sync;
	uint32_t last_id;
	struct sftp_request *pending;
	struct sftp_waker *wakers, *enders;
	int users;
	const char *code;
	char message[200];
	void (*done)(void *arg);
	void *arg;
};

static void
kick_closed(uv_handle_t *kick)
{
	free(kick->data);
}

void
sftp_hold(struct sftp *c)
{
	c->users++;
}

void
sftp_release(struct sftp *c)
{
	if (--c->users > 0)
		return;
	bytes_free(&c->in);
	bytes_free(&c->out);
	uv_close((uv_handle_t *)&c->kick, kick_closed);
}

static void
greet(struct sftp *c)
{
	void (*done)(void *arg) = c->done;

	c->done = NULL;
	if (done != NULL)
		done(c->arg);
}

static void
wake_all(struct sftp_waker **list)
{
	while (*list != NULL) {
		struct sftp_waker *w = *list;

		*list = w->next;
		w->asked = false;
		w->wake(w->arg);
	}
}

/* What has ended is told from here: answers that cannot come any more, and whoever asked to be called. */
static void
kicked(uv_idle_t *kick)
{
	struct sftp *c = kick->data;

	uv_idle_stop(kick);
	sftp_hold(c);
	if (c->code != NULL)
		greet(c);
	while (c->code != NULL && c->pending != NULL) {
		struct sftp_request *r = c->pending;

		c->pending = r->next;
		r->sent = false;
		r->done(r, r->arg);
	}
	wake_all(&c->wakers);
	if (c->code != NULL)
		wake_all(&c->enders);
	sftp_release(c);
}

void
sftp_wake_later(struct sftp *c, struct sftp_waker *w)
{
	if (w->asked)
		return;
	w->asked = true;
	w->at_end = false;
	w->next = c->wakers;
	c->wakers = w;
	uv_idle_start(&c->kick, kicked);
}

void
sftp_wake_at_end(struct sftp *c, struct sftp_waker *w)
{
	w->asked = w->at_end = true;
	w->next = c->enders;
	c->enders = w;
	if (c->code != NULL)
		uv_idle_start(&c->kick, kicked);
}

void
sftp_wake_cancel(struct sftp *c, struct sftp_waker *w)
{
	struct sftp_waker **at = w->at_end ? &c->enders : &c->wakers;

	if (!w->asked)
		return;
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	w->asked = false;
}

static void
over(struct sftp *c, const char *code, const char *message)
{
	struct stream *s = c->over;

	if (s == NULL)
		return;
	c->code = code;
	snprintf(c->message, sizeof c->message, "%s", message);
	c->over = NULL;
	s->ops->close(s);
	uv_idle_start(&c->kick, kicked);
}

static void flush(struct sftp *c);

static void
writable(void *arg)
{
	struct sftp *c = arg;

	c->writing = false;
	flush(c);
}

static void
flush(struct sftp *c)
{
	while (c->over != NULL && !c->writing && bytes_length(&c->out) > 0) {
		ssize_t n = c->over->ops->write(c->over, bytes_first(&c->out), bytes_length(&c->out));

		if (n > 0) {
			bytes_used(&c->out, (size_t)n);
		} else if (n == STREAM_FAILED) {
			over(c, c->over->code, c->over->message);
		} else {
			c->writing = true;
			c->over->ops->when(c->over, STREAM_WRITE, writable, c);
		}
	}
}

struct sftp_request *
sftp_request_new(struct sftp *c, uint8_t type, void (*done)(struct sftp_request *r, void *arg), void *arg)
{
	struct sftp_request *r = calloc(1, sizeof *r);

	if (r == NULL)
		return NULL;
	r->c = c;
	r->id = ++c->last_id;
	r->done = done;
	r->arg = arg;
	r->full = !packet_put_u8(&r->body, type) || !packet_put_u32(&r->body, r->id);
	sftp_hold(c);
	return r;
}

void
sftp_request_text(struct sftp_request *r, const void *text, size_t length)
{
	r->full |= !packet_put_string(&r->body, text, length);
}

void
sftp_request_number(struct sftp_request *r, uint32_t n)
{
	r->full |= !packet_put_u32(&r->body, n);
}

void
sftp_request_offset(struct sftp_request *r, uint64_t n)
{
	r->full |= !packet_put_u64(&r->body, n);
}

void
sftp_request_attributes(struct sftp_request *r, const struct sftp_attributes *a)
{
	sftp_request_number(r, a->valid);
	if (a->valid & SFTP_SIZE)
		sftp_request_offset(r, a->size);
	if (a->valid & SFTP_OWNER) {
		sftp_request_number(r, a->uid);
		sftp_request_number(r, a->gid);
	}
	if (a->valid & SFTP_MODE)
		sftp_request_number(r, a->mode);
	if (a->valid & SFTP_TIMES) {
		sftp_request_number(r, a->atime);
		sftp_request_number(r, a->mtime);
	}
}

void
sftp_request_send(struct sftp_request *r)
{
	struct sftp *c = r->c;

	r->sent = true;
	r->next = c->pending;
	c->pending = r;
	if (r->full || !packet_put_string(&c->out, bytes_first(&r->body), bytes_length(&r->body)))
		over(c, "ENOMEM", "out of memory");
	bytes_free(&r->body);
	if (c->over == NULL)
		uv_idle_start(&c->kick, kicked);
	flush(c);
}

void
sftp_request_free(struct sftp_request *r)
{
	struct sftp *c;
	struct sftp_request **at;

	if (r == NULL)
		return;
	c = r->c;
	if (r->sent) {
		for (at = &c->pending; *at != r; at = &(*at)->next)
			continue;
		*at = r->next;
	}
	bytes_free(&r->body);
	free(r);
	sftp_release(c);
}

static void
handle_closed(struct sftp_request *r, void *arg)
{
	(void)arg;
	sftp_request_free(r);
}

void
sftp_close_handle(struct sftp *c, const struct bytes *handle)
{
	struct sftp_request *r = bytes_length(handle) > 0 ? sftp_request_new(c, SFTP_CLOSE, handle_closed, NULL) : NULL;

	if (r == NULL)
		return;
	sftp_request_text(r, bytes_first(handle), bytes_length(handle));
	sftp_request_send(r);
}

void
sftp_read_attributes(struct packet_reader *r, struct sftp_attributes *a)
{
	size_t length;

	memset(a, 0, sizeof *a);
	a->valid = packet_u32(r);
	if (a->valid & SFTP_SIZE)
		a->size = packet_u64(r);
	if (a->valid & SFTP_OWNER) {
		a->uid = packet_u32(r);
		a->gid = packet_u32(r);
	}
	if (a->valid & SFTP_MODE)
		a->mode = packet_u32(r);
	if (a->valid & SFTP_TIMES) {
		a->atime = packet_u32(r);
		a->mtime = packet_u32(r);
	}
	if (a->valid & 0x80000000u)
		for (uint32_t n = packet_u32(r); n > 0 && !r->bad; n--) {
			packet_string(r, &length);
			packet_string(r, &length);
		}
}

static const char *
code_of_status(uint32_t status)
{
	static const char *const codes[] = {
		NULL, "EOF", "ENOENT", "EACCES", "EIO", "EINVAL", "ELOST", "ELOST", "ENOTSUP",
	};

	return status < sizeof codes / sizeof *codes ? codes[status] : "EIO";
}

const char *
sftp_answer(const struct sftp_request *r, uint8_t expected, struct packet_reader *reader, char *message, size_t size)
{
	const char *said, *code;
	size_t length;

	if (r->type == 0) {
		snprintf(message, size, "%s", r->c->message);
		return r->c->code;
	}
	*reader = (struct packet_reader){ (const unsigned char *)bytes_first(&r->body), bytes_length(&r->body), false };
	if (r->type == expected && r->type != SFTP_STATUS)
		return NULL;
	if (r->type != SFTP_STATUS) {
		snprintf(message, size, "the sftp server answered something else");
		return "EPROTO";
	}
	code = code_of_status(packet_u32(reader));
	said = packet_string(reader, &length);
	snprintf(message, size, "%.*s", length < 150 ? (int)length : 150, said);
	if (code == NULL && expected != SFTP_STATUS)
		return "EPROTO";
	return code;
}

static bool
is(const char *text, size_t length, const char *word)
{
	return length == strlen(word) && memcmp(text, word, length) == 0;
}

static void
read_version(struct sftp *c, struct packet_reader *r)
{
	if (packet_u32(r) != 3) {
		over(c, "EPROTO", "the sftp server speaks another version than 3");
		return;
	}
	while (r->left > 0 && !r->bad) {
		size_t name_length, length;
		const char *name = packet_string(r, &name_length), *version = packet_string(r, &length);

		if (is(name, name_length, "posix-rename@openssh.com") && is(version, length, "1"))
			c->can_rename_over = true;
		if (is(name, name_length, "fsync@openssh.com") && is(version, length, "1"))
			c->can_sync = true;
	}
	c->greeted = true;
	greet(c);
}

static void
dispatch(struct sftp *c, struct packet_reader *packet)
{
	uint8_t type = packet_u8(packet);
	uint32_t id;

	if (!c->greeted) {
		if (type == SFTP_VERSION)
			read_version(c, packet);
		else
			over(c, "EPROTO", "this is no sftp server");
		return;
	}
	id = packet_u32(packet);
	for (struct sftp_request **at = &c->pending; *at != NULL; at = &(*at)->next) {
		struct sftp_request *r = *at;

		if (r->id != id)
			continue;
		*at = r->next;
		r->sent = false;
		if (bytes_append(&r->body, packet->at, packet->left))
			r->type = type;
		else
			over(c, "ENOMEM", "out of memory");
		r->done(r, r->arg);
		return;
	}
}

static void
parse(struct sftp *c)
{
	while (c->over != NULL && bytes_length(&c->in) >= 4) {
		struct packet_reader r = { (const unsigned char *)bytes_first(&c->in), bytes_length(&c->in), false };
		size_t length = packet_u32(&r);

		if (length < 5 || length > PACKET_MAX) {
			over(c, "EPROTO", c->greeted ? "the sftp server sent something that is no packet" :
			     "this is no sftp server");
			return;
		}
		if (length > r.left)
			return;
		r.left = length;
		dispatch(c, &r);
		bytes_used(&c->in, 4 + length);
	}
}

static void
readable(void *arg)
{
	struct sftp *c = arg;
	ssize_t n = 1;

	sftp_hold(c);
	for (size_t total = 0; c->over != NULL && n > 0 && total < RATION; total += (size_t)(n > 0 ? n : 0)) {
		char *room = bytes_room(&c->in, CHUNK);

		n = room != NULL ? c->over->ops->read(c->over, room, CHUNK) : STREAM_AGAIN;
		if (n > 0) {
			bytes_added(&c->in, (size_t)n);
			parse(c);
		} else if (n == STREAM_END) {
			over(c, "ELOST", c->greeted ? "the sftp server has gone" : "there is no sftp server");
		} else if (n == STREAM_FAILED) {
			over(c, c->over->code, c->over->message);
		}
	}
	if (c->over != NULL)
		c->over->ops->when(c->over, STREAM_READ, readable, c);
	sftp_release(c);
}

struct sftp *
sftp_new(uv_loop_t *loop, struct stream *stream, void (*done)(void *arg), void *arg)
{
	struct sftp *c = calloc(1, sizeof *c);

	if (c == NULL)
		return NULL;
	if (!packet_put_u32(&c->out, 5) || !packet_put_u8(&c->out, SFTP_INIT) || !packet_put_u32(&c->out, 3)) {
		free(c);
		return NULL;
	}
	c->loop = loop;
	c->over = stream;
	c->done = done;
	c->arg = arg;
	c->users = 1;
	uv_idle_init(loop, &c->kick);
	c->kick.data = c;
	stream->ops->when(stream, STREAM_READ, readable, c);
	flush(c);
	return c;
}

const char *
sftp_code(const struct sftp *c)
{
	return c->code;
}

const char *
sftp_message(const struct sftp *c)
{
	return c->message;
}

bool
sftp_can_rename_over(const struct sftp *c)
{
	return c->can_rename_over;
}

bool
sftp_can_sync(const struct sftp *c)
{
	return c->can_sync;
}

void
sftp_free(struct sftp *c)
{
	if (c == NULL)
		return;
	c->done = NULL;
	over(c, "ECLOSED", "the sftp client was closed");
	sftp_release(c);
}
