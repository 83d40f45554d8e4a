/*
 * apply.c - brings one name into place.
 *
 * A file is made under a name of its own in its directory (a quota counts it where it belongs, a rename is never across
 * file systems), readable for nobody else, filled, read back, given owner, attributes, mode and times, and renamed.
 * Until then what stood there stays.
 */
#include "content.h"
#include "receive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* A name as it is being made. */
struct making {
	const struct task *task;
	const struct wanted *wanted;
	int at, fd;
	const char *name;	/* where it goes */
	char made[PLACE_NAME];
	bool bare;
};

static void
give_up(const struct making *m, int error, const char *words)
{
	if (m->made[0])
		unlinkat(m->at, m->made, 0);
	say_error(m->task->index, error, words);
}

/* What became of a name that stands in its place. */
static void
say_outcome(const struct task *t, unsigned flags, const struct wanted *w, const struct stat *st, int unkept, const char *words, uint64_t bytes)
{
	const char *lost = unkept ? words : place_unkept(w, st);
	struct entry there;
	entry_of_stat(&there, st);
	there.target = w->entry.target;
	if (lost)
		say_failed_there(t->index, RESULT_UNKEPT, unkept, lost, &there);
	else
		say_done(t, flags, w, st, bytes);
}

/* It gets all that is not its bytes, and its name. */
static void
finish_made(struct making *m, uint64_t bytes)
{
	const struct wanted *w = m->wanted;
	char words[64] = "";
	struct stat st;
	int unkept = place_finish(w, m->fd, m->at, m->made, m->bare, words);
	int error = place_is_refusal(unkept) ? unkept : 0;
	if (!error && receive_is_remote && fsync(m->fd) != 0) /* only now a server says that a quota is used up */
		error = errno;
	if (!error)
		error = place_rename(m->at, m->made, m->name, &m->task->expect);
	if (!error && fstat(m->fd, &st) != 0)
		error = errno;
	if (error)
		give_up(m, error, NULL);
	else
		say_outcome(m->task, RESULT_HASHED, w, &st, unkept, words, bytes);
}

/* What was written is what was sent. */
static void
finish_file(struct making *m)
{
	const struct wanted *w = m->wanted;
	unsigned char hash[ENTRY_HASH];
	int error = content_hash(m->fd, &w->entry, hash);
	if (error || memcmp(hash, w->hash, ENTRY_HASH) != 0)
		give_up(m, error && error != EAGAIN ? error : EIO, "what was written reads back otherwise");
	else
		finish_made(m, w->entry.size);
}

static int
write_parts(int fd, struct reader *r, uint64_t size)
{
	uint64_t end = 0;
	for (uint64_t n = get_number(r); n > 0 && !r->failed; n--) {
		uint64_t offset = get_number(r);
		struct text part = get_text(r);
		if (r->failed || offset > size || part.length > size - offset)
			return EPROTO;
		int error = place_write(fd, offset, part.bytes, part.length);
		if (error)
			return error;
		end = offset + part.length;
	}
	if (r->failed)
		return EPROTO;
	return end < size && ftruncate(fd, (off_t)size) != 0 ? errno : 0;
}

void
apply_whole(struct cursor *c, struct task *t)
{
	struct wanted w;
	struct making m = { .task = t, .wanted = &w };
	if (!wanted_get(&t->payload, &w, true) || w.entry.type != 'f') {
		say_failed(t->index, RESULT_SOURCE, EPROTO, "malformed");
		return;
	}
	m.at = cursor_parent(c, t->path, &m.name);
	m.fd = m.at < 0 ? -1 : place_open(m.at, m.made);
	if (m.fd < 0) {
		m.made[0] = '\0';
		give_up(&m, errno, NULL);
		return;
	}
	m.bare = !cursor_inherits(c);
	int error = write_parts(m.fd, &t->payload, w.entry.size);
	if (error)
		give_up(&m, error, NULL);
	else
		finish_file(&m);
	close(m.fd);
}

void
apply_part(struct cursor *c, struct task *t)
{
	struct large *l = t->large;
	const char *name;
	pthread_mutex_lock(&l->lock);
	if (l->fd < 0 && !l->error) {
		int at = cursor_parent(c, l->path, &name);
		l->fd = at < 0 ? -1 : place_open(at, l->name);
		if (l->fd < 0)
			l->error = errno;
	}
	int fd = l->fd, error = l->error;
	pthread_mutex_unlock(&l->lock);
	if (!error && t->type == DATA_CHUNK) {
		uint64_t offset = get_number(&t->payload);
		struct text part = get_text(&t->payload);
		bool good = !t->payload.failed && offset <= l->size && part.length <= l->size - offset;
		error = good ? place_write(fd, offset, part.bytes, part.length) : EPROTO;
		if (error) {
			pthread_mutex_lock(&l->lock);
			l->error = error;
			(void)!ftruncate(fd, 0); /* others may need the space */
			pthread_mutex_unlock(&l->lock);
		}
	}
}

void
apply_large(struct cursor *c, struct large *l)
{
	struct wanted w;
	struct task t = { .index = l->index, .path = l->path, .expect = l->expect };
	struct making m = { .task = &t, .wanted = &w, .fd = l->fd };
	m.at = cursor_parent(c, l->path, &m.name);
	if (m.at >= 0 && l->fd >= 0)
		memcpy(m.made, l->name, sizeof m.made);
	if (!l->end) {
		if (m.made[0])
			unlinkat(m.at, m.made, 0);
	} else if (l->error || m.at < 0) {
		give_up(&m, l->error ? l->error : errno, NULL);
	} else if (!wanted_get(&l->end->payload, &w, true) || w.entry.type != 'f' || (l->size != ANY_SIZE && w.entry.size != l->size)) {
		give_up(&m, EPROTO, "malformed");
	} else if (ftruncate(l->fd, (off_t)w.entry.size) != 0) {
		give_up(&m, errno, NULL);
	} else {
		m.bare = !cursor_inherits(c);
		finish_file(&m);
	}
}

void
apply_made(struct cursor *c, struct large *l, const struct wanted *w, int at, const char *name)
{
	struct task t = { .index = l->index, .path = l->path, .expect = l->expect };
	struct making m = { .task = &t, .wanted = w, .at = at, .fd = l->fd, .name = name, .bare = !cursor_inherits(c) };
	memcpy(m.made, l->name, sizeof m.made);
	finish_made(&m, l->written);
}

/* The directory of what has to be there: none is made on the way. */
static int
parent_of_existing(struct cursor *c, const char *path, const char **name)
{
	c->make = false;
	int at = cursor_parent(c, path, name);
	c->make = true;
	return at;
}

/* Opens the very file that was looked at; its owner may have closed it to himself. */
static int
open_held(const struct held *h, int at, const char *name, int *fd)
{
	const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	const struct stat *b = &h->before;
	struct stat st;
	if (!S_ISREG(b->st_mode))
		return EBUSY;
	*fd = openat(at, name, flags);
	if (*fd < 0 && errno == EACCES && b->st_uid == geteuid()
	    && fchmodat(at, name, (b->st_mode & 07777) | 0600, AT_SYMLINK_NOFOLLOW) == 0)
		*fd = openat(at, name, flags);
	if (*fd < 0)
		return errno;
	return fstat(*fd, &st) != 0 ? errno : st.st_ino == b->st_ino && st.st_dev == b->st_dev ? 0 : EBUSY;
}

/* The bytes are there; what else belongs to the file is brought. */
void
apply_check(struct cursor *c, struct task *t)
{
	struct wanted w;
	struct stat st;
	struct held h = { .fd = -1 };
	char words[64] = "";
	const char *name;
	int fd = -1, unkept = 0;
	if (!wanted_get(&t->payload, &w, true) || w.entry.type != 'f') {
		say_failed(t->index, RESULT_SOURCE, EPROTO, "malformed");
		return;
	}
	int at = parent_of_existing(c, t->path, &name);
	int error = at < 0 ? errno : links_hold(&h, at, name, &t->expect);
	if (!t->expect.there || (at < 0 && error == ENOENT))
		error = EBUSY;
	if (!error)
		error = open_held(&h, at, name, &fd);
	if (!error)
		unkept = place_finish(&w, fd, at, name, false, words);
	if (!error && place_is_refusal(unkept))
		error = unkept;
	if (!error && fstat(fd, &st) != 0)
		error = errno;
	links_release(&h);
	if (error)
		say_error(t->index, error, NULL);
	else
		say_outcome(t, RESULT_HASHED, &w, &st, unkept, words, 0);
	if (fd >= 0)
		close(fd);
}

static int
make_node(const struct making *m)
{
	const struct entry *e = &m->wanted->entry;
	if (e->type == 'l') {
		char target[4097];
		if (e->target.length >= sizeof target)
			return ENAMETOOLONG;
		memcpy(target, e->target.bytes, e->target.length);
		target[e->target.length] = '\0';
		return symlinkat(target, m->at, m->made) == 0 ? 0 : errno;
	}
	mode_t type = e->type == 'p' ? S_IFIFO : e->type == 's' ? S_IFSOCK : e->type == 'b' ? S_IFBLK : S_IFCHR;
	dev_t node = e->type == 'b' || e->type == 'c' ? makedev((unsigned)(e->node >> 32), (unsigned)(e->node & 0xffffffff)) : 0;
	return mknodat(m->at, m->made, type | 0600, node) == 0 ? 0 : errno;
}

void
apply_node(struct cursor *c, struct task *t)
{
	struct wanted w;
	struct stat st;
	struct making m = { .task = t, .wanted = &w, .fd = -1 };
	char words[64] = "";
	if (!wanted_get(&t->payload, &w, false) || !strchr("lpsbc", w.entry.type)) {
		say_failed(t->index, RESULT_SOURCE, EPROTO, "malformed");
		return;
	}
	m.at = cursor_parent(c, t->path, &m.name);
	place_name(m.made);
	int error = m.at < 0 ? errno : make_node(&m);
	if (error == EACCES && m.at >= 0 && cursor_loosen(m.at))
		error = make_node(&m);
	if (error) {
		m.made[0] = '\0';
		give_up(&m, error, NULL);
		return;
	}
	int unkept = place_finish(&w, -1, m.at, m.made, false, words);
	error = place_is_refusal(unkept) ? unkept : place_rename(m.at, m.made, m.name, &t->expect);
	if (!error && fstatat(m.at, m.name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		error = errno;
	if (error)
		give_up(&m, error, NULL);
	else
		say_outcome(t, 0, &w, &st, unkept, words, 0);
}

/* rename(2): where old and new are one inode it does nothing, and the old name stays. */
static int
link_name(struct making *m, int from, const char *leader, struct stat *st)
{
	struct held h;
	int error = links_hold_always(&h, from, leader, NULL);
	bool linked = !error && fstatat(m->at, m->name, st, AT_SYMLINK_NOFOLLOW) == 0 && st->st_ino == h.before.st_ino
		&& st->st_dev == h.before.st_dev;
	if (!error && !linked) {
		place_name(m->made);
		int status = linkat(from, leader, m->at, m->made, 0);
		if (status != 0 && errno == EACCES && cursor_loosen(m->at))
			status = linkat(from, leader, m->at, m->made, 0);
		error = status == 0 ? 0 : errno;
		if (error)
			m->made[0] = '\0';
		else
			error = place_rename(m->at, m->made, m->name, &m->task->expect);
		if (!error && fstatat(m->at, m->name, st, AT_SYMLINK_NOFOLLOW) != 0)
			error = errno;
		if (error && m->made[0])
			unlinkat(m->at, m->made, 0); /* while the inode is held */
		m->made[0] = '\0';
	}
	links_release(&h);
	return error;
}

void
apply_link(struct cursor *c, struct task *t)
{
	struct text other = get_text(&t->payload);
	struct making m = { .task = t, .fd = -1 };
	struct cursor beside;
	struct stat st;
	const char *leader;
	char *path = t->payload.failed ? NULL : path_of(".", other);
	if (!path) {
		say_failed(t->index, RESULT_SOURCE, EPROTO, "malformed");
		return;
	}
	cursor_open(&beside, c->root, false);
	beside.writes = true;
	int from = cursor_parent(&beside, path, &leader);
	m.at = from < 0 ? -1 : cursor_parent(c, t->path, &m.name);
	int error = m.at < 0 ? errno : link_name(&m, from, leader, &st);
	bool alone = error == ENOENT && (from < 0 || fstatat(from, leader, &st, AT_SYMLINK_NOFOLLOW) != 0);
	cursor_close(&beside);
	free(path);
	if (alone)
		say_failed(t->index, RESULT_CHANGING, error, "what it is linked to did not come");
	else if (error)
		say_error(t->index, error, NULL);
	else
		say_done(t, RESULT_LINKED, NULL, &st, 0);
}

static int
remove_name(int at, const char *name, bool directory)
{
	int status = unlinkat(at, name, directory ? AT_REMOVEDIR : 0);
	if (status != 0 && errno == EACCES && cursor_loosen(at))
		status = unlinkat(at, name, directory ? AT_REMOVEDIR : 0);
	return status == 0 || errno == ENOENT ? 0 : errno;
}

void
apply_removal(struct cursor *c, struct task *t)
{
	const char *name;
	struct stat st;
	struct held h = { .fd = -1 };
	unsigned char type = get_byte(&t->payload);
	t->expect = get_expect(&t->payload);
	if (t->payload.failed || !*t->path) {
		say_failed(t->index, RESULT_SOURCE, EPROTO, "malformed");
		return;
	}
	int at = parent_of_existing(c, t->path, &name);
	int error = at < 0 ? errno : links_hold(&h, at, name, &t->expect);
	bool gone = at < 0 ? error == ENOENT : error == EBUSY && fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT;
	if (!error && S_ISDIR(h.before.st_mode) != (type == 'd'))
		error = EBUSY;
	if (!error && t->expect.there)
		error = remove_name(at, name, type == 'd');
	links_release(&h);
	if (gone || !error)
		say_done(t, RESULT_REMOVED, NULL, NULL, 0);
	else
		say_error(t->index, error, NULL);
}

static void
say_there(uint64_t index, enum result_status status, int error, const char *words, const struct stat *st)
{
	struct entry e;
	entry_of_stat(&e, st);
	say_failed_there(index, status, error, words, &e);
}

void
apply_make_directory(struct cursor *c, struct task *t)
{
	if (cursor_enter(c, t->path, strlen(t->path)) < 0)
		t->type = 0; /* apply_directory says why */
}

void
apply_directory(struct cursor *c, struct task *t)
{
	struct wanted w;
	struct stat st;
	char words[64] = "";
	if (!wanted_get(&t->payload, &w, false) || w.entry.type != 'd') {
		say_failed(t->index, RESULT_SOURCE, EPROTO, "malformed");
		return;
	}
	int at = cursor_enter(c, t->path, strlen(t->path));
	int fd = at < 0 ? -1 : openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && at >= 0 && errno == EACCES && cursor_loosen(at))
		fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		say_error(t->index, errno, NULL);
		return;
	}
	int unkept = place_finish(&w, fd, at, ".", false, words);
	int error = place_is_refusal(unkept) ? unkept : fstat(fd, &st) != 0 ? errno : 0;
	if (!error)
		cursor_settled(&st);
	if (!error)
		say_outcome(t, 0, &w, &st, unkept, words, 0);
	else if (fstat(fd, &st) != 0)
		say_error(t->index, error, NULL);
	else
		say_there(t->index, RESULT_TARGET, error, strerror(error), &st);
	close(fd);
}

void
apply_unsent(struct cursor *c, struct task *t)
{
	struct unsent u;
	struct stat st;
	if (!unsent_get(&t->payload, &u)) {
		say_failed(t->index, RESULT_SOURCE, EPROTO, "malformed");
		return;
	}
	c->make = false;
	int at = cursor_enter(c, t->path, strlen(t->path));
	c->make = true;
	if (at >= 0 && fstat(at, &st) == 0)
		say_there(t->index, u.status, u.error, u.words, &st);
	else
		say_failed(t->index, u.status, u.error, u.words);
}
