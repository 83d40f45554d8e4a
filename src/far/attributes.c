#include "far.h"

#define XXH_INLINE_ALL
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <xxhash.h>

#define ACL "system.posix_acl_access"
#define LIST_LIMIT  65536	/* XATTR_LIST_MAX, XATTR_SIZE_MAX of linux/limits.h */
#define VALUE_LIMIT 65536
#define ALL_LIMIT   (FRAME_LIMIT / 2)	/* of one name: it goes in one frame */

static bool
is_ours(const char *name)
{
	return strncmp(name, "user.", 5) == 0 || strncmp(name, "trusted.", 8) == 0
		|| strcmp(name, ACL) == 0 || strcmp(name, "system.posix_acl_default") == 0
		|| strcmp(name, "security.capability") == 0;
}

/* What has no descriptor (symlinks, pipes, devices) is reached by its name in a directory that has one. */
struct subject {
	int fd;
	char path[32 + 256];
};

static bool
subject_of(struct subject *s, int fd, int directory, const char *name)
{
	s->fd = fd;
	if (fd >= 0)
		return true;
	int n = snprintf(s->path, sizeof s->path, "/proc/self/fd/%d/%s", directory, name);
	return n > 0 && (size_t)n < sizeof s->path;
}

static ssize_t
list(const struct subject *s, char *names, size_t size)
{
	return s->fd >= 0 ? flistxattr(s->fd, names, size) : llistxattr(s->path, names, size);
}

static ssize_t
get(const struct subject *s, const char *name, void *value, size_t size)
{
	return s->fd >= 0 ? fgetxattr(s->fd, name, value, size) : lgetxattr(s->path, name, value, size);
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in a list, sorted, those that are not ours left out.  *sorted is the caller's to free. */
static size_t
sort_names(char *names, size_t length, char ***sorted)
{
	size_t n = 0, room = 8;
	*sorted = far_memory(room * sizeof **sorted);
	for (char *at = names; at < names + length; at += strlen(at) + 1) {
		if (!is_ours(at))
			continue;
		if (n == room) {
			char **grown = far_memory(2 * room * sizeof *grown);
			memcpy(grown, *sorted, room * sizeof *grown);
			free(*sorted);
			*sorted = grown;
			room *= 2;
		}
		(*sorted)[n++] = at;
	}
	qsort(*sorted, n, sizeof **sorted, by_name);
	return n;
}

static int
put_all(struct buffer *b, const struct subject *s, char **sorted, size_t n)
{
	static _Thread_local char value[VALUE_LIMIT];
	int error = 0;
	put_number(b, n);
	for (size_t i = 0; i < n && !error; i++) {
		if (b->length > ALL_LIMIT)
			return E2BIG;
		ssize_t size = get(s, sorted[i], value, VALUE_LIMIT);
		if (size < 0)
			error = errno == ENODATA ? EAGAIN : errno; /* taken away between two calls */
		else {
			put_text(b, sorted[i], strlen(sorted[i]));
			put_text(b, value, (size_t)size);
		}
	}
	return error;
}

int
attributes_get(struct buffer *b, int fd, int directory, const char *name)
{
	struct subject s;
	char few[512], *names = few;
	if (!subject_of(&s, fd, directory, name))
		return ENAMETOOLONG;
	ssize_t length = list(&s, few, sizeof few);
	if (length < 0 && errno == ERANGE) {
		names = far_memory(LIST_LIMIT);
		length = list(&s, names, LIST_LIMIT);
	}
	int error = 0;
	if (length < 0 && errno != ENOTSUP) {
		error = errno;
	} else if (length <= 0) {
		put_number(b, 0);
	} else {
		char **sorted;
		size_t n = sort_names(names, (size_t)length, &sorted);
		error = put_all(b, &s, sorted, n);
		free(sorted);
	}
	if (names != few)
		free(names);
	return error;
}

void
attributes_digest(const struct buffer *b, unsigned char digest[static ENTRY_ATTRIBUTES])
{
	memset(digest, 0, ENTRY_ATTRIBUTES);
	if (b->length > 1 || (b->length == 1 && b->bytes[0] != 0)) {
		XXH64_canonical_t c;
		XXH64_canonicalFromHash(&c, XXH3_64bits(b->bytes, b->length));
		memcpy(digest, c.digest, ENTRY_ATTRIBUTES);
	}
}

static int
failed(int error, const char *name, char which[static 64])
{
	snprintf(which, 64, "%.63s", name);
	return error;
}

static bool
is_wanted(struct reader wanted, uint64_t n, const char *name)
{
	while (n-- > 0 && !wanted.failed) {
		struct text t = get_text(&wanted);
		get_text(&wanted);
		if (t.length == strlen(name) && memcmp(t.bytes, name, t.length) == 0)
			return true;
	}
	return false;
}

static int
remove_others(const struct subject *s, struct reader wanted, uint64_t n, char which[static 64])
{
	static _Thread_local char names[LIST_LIMIT];
	ssize_t length = list(s, names, sizeof names);
	if (length < 0)
		return errno == ENOTSUP ? 0 : failed(errno, "xattrs", which);
	for (char *at = names; at < names + length; at += strlen(at) + 1) {
		if (!is_ours(at) || is_wanted(wanted, n, at))
			continue;
		if ((s->fd >= 0 ? fremovexattr(s->fd, at) : lremovexattr(s->path, at)) != 0 && errno != ENODATA)
			return failed(errno, at, which);
	}
	return 0;
}

/* 0, errno, or EPROTO: it is none of those that are sent. */
static int
set_one(const struct subject *s, struct text key, struct text value)
{
	char word[256];
	if (key.length >= sizeof word)
		return EPROTO;
	memcpy(word, key.bytes, key.length);
	word[key.length] = '\0';
	if (strlen(word) != key.length || !is_ours(word))
		return EPROTO;
	int status = s->fd >= 0 ? fsetxattr(s->fd, word, value.bytes, value.length, 0)
		: lsetxattr(s->path, word, value.bytes, value.length, 0);
	return status == 0 ? 0 : errno;
}

/* linux/posix_acl_xattr.h: a version, then tag, permissions and id of each entry, the lowest byte first. */
static mode_t
group_in_acl(struct text acl)
{
	const size_t head = 4, each = 8, group = 4;
	for (size_t at = head; at + each <= acl.length; at += each)
		if (acl.bytes[at] == group && acl.bytes[at + 1] == 0)
			return (mode_t)(acl.bytes[at + 2] & 7);
	return 0;
}

int
attributes_set(struct reader *r, int fd, int directory, const char *name, bool bare, mode_t *mode, char which[static 64])
{
	struct subject s;
	if (!subject_of(&s, fd, directory, name))
		return failed(ENAMETOOLONG, "xattrs", which);
	uint64_t n = get_number(r);
	int first = bare ? 0 : remove_others(&s, *r, n, which);
	for (; n > 0 && !r->failed; n--) {
		struct text key = get_text(r), value = get_text(r);
		int error = r->failed ? EPROTO : set_one(&s, key, value);
		if (error && key.length == sizeof ACL - 1 && memcmp(key.bytes, ACL, key.length) == 0)
			*mode &= ~(mode_t)070 | group_in_acl(value) << 3;
		if (error && !first) {
			first = error;
			snprintf(which, 64, "%.*s", key.length < 63 ? (int)key.length : 63, (const char *)key.bytes);
		}
	}
	return r->failed ? failed(EPROTO, "xattrs", which) : first;
}
