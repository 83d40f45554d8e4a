#include "receive.h"

#define XXH_INLINE_ALL
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xxhash.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1	/* linux/fs.h */
#endif

bool
wanted_get(struct reader *r, struct wanted *w, bool hashed)
{
	memset(w, 0, sizeof *w);
	entry_get(r, &w->entry);
	struct text attributes = get_text(r);
	w->attributes = reader_of(attributes.bytes, attributes.length);
	struct buffer as_they_came = { .bytes = (unsigned char *)(uintptr_t)attributes.bytes, .length = attributes.length };
	attributes_digest(&as_they_came, w->digest);
	w->flags = (unsigned)get_number(r) & RESULT_RACY;
	if (hashed) {
		const unsigned char *hash = get_bytes(r, ENTRY_HASH);
		if (hash)
			memcpy(w->hash, hash, ENTRY_HASH);
	}
	w->source = w->entry;
	if (receive_options.owner_given) {
		w->entry.uid = receive_options.uid;
		w->entry.gid = receive_options.gid;
	}
	return !r->failed;
}

void
place_name(char name[static PLACE_NAME])
{
	static _Atomic unsigned long count;
	snprintf(name, PLACE_NAME, LEFTOVER "%llx.%lx", (unsigned long long)receive_number, (unsigned long)count++);
}

int
place_open(int at, char name[static PLACE_NAME])
{
	const int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	place_name(name);
	int fd = openat(at, name, flags, 0600);
	if (fd < 0 && errno == EACCES && cursor_loosen(at))
		fd = openat(at, name, flags, 0600);
	return fd;
}

int
place_write(int fd, uint64_t offset, const unsigned char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t n = pwrite(fd, bytes, length, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EIO;
		bytes += n;
		offset += (uint64_t)n;
		length -= (size_t)n;
		received_bytes += (uint64_t)n;
	}
	return 0;
}

static int
set_mode_and_times(const struct wanted *w, mode_t mode, int fd, int at, const char *name)
{
	const struct timespec times[2] = {
		{ .tv_nsec = UTIME_OMIT },
		{ (time_t)w->entry.modified.seconds, (long)w->entry.modified.nanoseconds },
	};
	if (fd >= 0)
		return fchmod(fd, mode) != 0 || futimens(fd, times) != 0 ? errno : 0;
	if (w->entry.type != 'l' && fchmodat(at, name, mode, AT_SYMLINK_NOFOLLOW) != 0)
		return errno;
	return utimensat(at, name, times, AT_SYMLINK_NOFOLLOW) != 0 ? errno : 0;
}

/* In this order: a change of owner clears suid and capabilities, an ACL changes the mode. */
int
place_finish(const struct wanted *w, int fd, int at, const char *name, bool bare, char words[static 64])
{
	uid_t uid = w->entry.uid;
	gid_t gid = w->entry.gid;
	mode_t mode = w->entry.mode;
	char which[64];
	int first = 0;
	if ((fd >= 0 ? fchown(fd, uid, gid) : fchownat(at, name, uid, gid, AT_SYMLINK_NOFOLLOW)) != 0) {
		first = errno;
		snprintf(words, 64, "owner %lu:%lu", (unsigned long)uid, (unsigned long)gid);
		mode &= 01777; /* nobody's programs run as somebody else */
	}
	struct reader attributes = w->attributes;
	int error = attributes_set(&attributes, fd, at, name, bare, &mode, which);
	if (error && !first) {
		first = error;
		memcpy(words, which, sizeof which);
	}
	error = set_mode_and_times(w, mode, fd, at, name);
	if (error && !first) {
		first = error;
		snprintf(words, 64, "mode and times");
	}
	return first;
}

bool
place_is_refusal(int error)
{
	return error == ENOSPC || error == EDQUOT || error == EIO || error == EROFS || error == ENOMEM || error == EPROTO || error == ESTALE;
}

int
place_rename(int at, const char *made, const char *name, const struct expect *expect)
{
	struct held h;
	if (!expect->there) {
		if (syscall(SYS_renameat2, at, made, at, name, RENAME_NOREPLACE) == 0)
			return 0;
		if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP)
			return errno;
	}
	int error = links_hold(&h, at, name, expect);
	if (!error && renameat(at, made, at, name) != 0)
		error = errno;
	links_release(&h);
	return error;
}

const char *
place_unkept(const struct wanted *w, const struct stat *st)
{
	struct entry e;
	entry_of_stat(&e, st);
	if (e.type != w->entry.type)
		return "its type";
	if (e.type == 'f' && e.size != w->entry.size)
		return "its size";
	if (e.uid != w->entry.uid || e.gid != w->entry.gid)
		return "its owner";
	if (e.type != 'l' && e.mode != w->entry.mode)
		return "its mode";
	if (!moment_is(e.modified, w->entry.modified))
		return "its time";
	return NULL;
}

void
say_done(const struct task *t, unsigned flags, const struct wanted *w, const struct stat *st, uint64_t bytes)
{
	struct buffer p = { 0 };
	struct entry e;
	put_number(&p, t->index);
	put_number(&p, RESULT_DONE);
	put_number(&p, flags | (w ? w->flags : 0));
	if (w) {
		entry_put(&p, &w->source);
		put_bytes(&p, w->digest, ENTRY_ATTRIBUTES);
		if (flags & RESULT_HASHED)
			put_bytes(&p, w->hash, ENTRY_HASH);
	}
	if (st) {
		entry_of_stat(&e, st);
		put_number(&p, e.inode);
		put_number(&p, e.device);
		put_signed(&p, e.changed.seconds);
		put_number(&p, e.changed.nanoseconds);
		put_number(&p, e.blocks);
	}
	put_number(&p, bytes);
	out_frame(RESULT, &p);
	buffer_free(&p);
	received_files++;
}

void
say_sent(uint64_t index, uint64_t bytes)
{
	struct buffer p = { 0 };
	put_number(&p, index);
	put_number(&p, RESULT_DONE);
	put_number(&p, RESULT_PART);
	put_number(&p, bytes);
	out_frame(RESULT, &p);
	buffer_free(&p);
}

void
say_failed_there(uint64_t index, enum result_status status, int error, const char *words, const struct entry *there)
{
	struct buffer p = { 0 };
	put_number(&p, index);
	put_number(&p, status);
	put_number(&p, (uint64_t)error);
	put_text(&p, words, strlen(words));
	if (there)
		entry_put(&p, there);
	out_frame(RESULT, &p);
	buffer_free(&p);
}

void
say_failed(uint64_t index, enum result_status status, int error, const char *words)
{
	say_failed_there(index, status, error, words, NULL);
}

/* It speaks of the source, and of nothing else. */
bool
unsent_get(struct reader *r, struct unsent *u)
{
	uint64_t status = get_number(r), error = get_number(r);
	struct text words = get_text(r);
	size_t length = words.length < sizeof u->words ? words.length : sizeof u->words - 1;
	memset(u, 0, sizeof *u);
	memcpy(u->words, words.bytes, length);
	u->status = (enum result_status)status;
	u->error = (int)error;
	return !r->failed && (status == RESULT_VANISHED || status == RESULT_CHANGING || status == RESULT_SOURCE);
}

void
say_error(uint64_t index, int error, const char *words)
{
	bool conflict = error == EEXIST || error == EBUSY || error == ENOTEMPTY || error == ELOOP || error == ENOTDIR || error == EISDIR;
	say_failed(index, conflict ? RESULT_CONFLICT : RESULT_TARGET, error, words ? words : strerror(error));
}
