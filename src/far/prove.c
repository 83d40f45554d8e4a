/* prove.c - hashes of names that are there. */
#include "content.h"
#include "pace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#define QUEUED ((size_t)4 << 20)

struct asked {
	uint64_t index;
	char *path;
};

static int
prove_file(struct cursor *c, const char *path, struct entry *e, struct buffer *attributes, bool *racy,
           unsigned char *hash)
{
	int fd;
	struct pace_look look = pace_begin();
	int error = content_open(c, path, &fd, e);
	pace_end(&look);
	if (error)
		return error;
	*racy = content_is_racy(e); /* before it is read: that may take long */
	error = content_read(fd, e, NULL, NULL, attributes, hash);
	close(fd);
	return error;
}

static int
prove_name(struct cursor *c, const char *path, struct entry *e, struct buffer *attributes, struct buffer *target,
           bool *racy, unsigned char *hash)
{
	const char *name;
	struct stat st;
	int fd = -1, at = cursor_parent(c, path, &name);
	if (at < 0 || fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno;
	entry_of_stat(e, &st);
	if (e->type == 'f')
		return prove_file(c, path, e, attributes, racy, hash);
	*racy = content_is_racy(e);
	int error = e->type == 'l' ? entry_read_target(e, at, name, target) : 0;
	if (!error && e->type == 'd') {
		fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		error = fd < 0 ? errno : 0;
	}
	if (!error)
		error = attributes_get(attributes, fd, at, name);
	if (fd >= 0)
		close(fd);
	return error;
}

static void
work(struct cursor *c, void *arg)
{
	struct asked *asked = arg;
	struct buffer p = { 0 }, attributes = { 0 }, target = { 0 };
	unsigned char hash[ENTRY_HASH] = { 0 }, digest[ENTRY_ATTRIBUTES];
	struct entry e;
	bool racy = false;
	pace_turn();
	int error = prove_name(c, asked->path, &e, &attributes, &target, &racy, hash);
	put_number(&p, asked->index);
	put_number(&p, (uint64_t)error);
	if (!error) {
		attributes_digest(&attributes, digest);
		put_number(&p, racy ? RESULT_RACY : 0);
		entry_put(&p, &e);
		put_bytes(&p, digest, sizeof digest);
		put_bytes(&p, hash, sizeof hash);
	}
	out_frame(PROOF, &p);
	buffer_free(&p);
	buffer_free(&attributes);
	buffer_free(&target);
	free(asked->path);
	free(asked);
}

int
far_prove(const struct far_options *o)
{
	int root = open(o->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		far_die(EX_NOINPUT, "%s: %s", o->root, strerror(errno));
	struct pool *pool = pool_open(far_threads(o, root), root, false, QUEUED);
	struct buffer nothing = { 0 };
	struct frame_input in;
	struct frame f = { 0 };
	char *unit = NULL;
	pace_open(o, false);
	frame_input_open(&in, STDIN_FILENO);
	while (frame_next(&in, &f) == 1 && f.type != WORK_END) {
		if (f.type == WORK_UNIT) {
			struct text t = get_text(&f.payload);
			free(unit);
			unit = far_memory(t.length + 1);
			memcpy(unit, t.bytes, t.length);
			continue;
		}
		struct asked *asked = far_memory(sizeof *asked);
		asked->index = get_number(&f.payload);
		asked->path = unit ? path_of(unit, get_text(&f.payload)) : NULL;
		if (f.type != PROVE_ENTRY || !asked->path || f.payload.failed)
			far_die(EX_PROTOCOL, "the request is malformed");
		pool_add(pool, work, asked, sizeof *asked + strlen(asked->path));
	}
	if (in.problem || f.type != WORK_END)
		far_die(EX_PROTOCOL, "the request is %s", in.problem ? in.problem : "cut");
	pool_wait(pool);
	out_frame(WORK_END, &nothing);
	out_flush();
	pool_close(pool);
	frame_input_free(&in);
	free(unit);
	close(root);
	return 0;
}
