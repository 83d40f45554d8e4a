#include "entry.h"

#define XXH_INLINE_ALL
#include <string.h>
#include <xxhash.h>

static void
put_moment(struct buffer *b, struct moment m)
{
	put_signed(b, m.seconds);
	put_number(b, m.nanoseconds);
}

static struct moment
get_moment(struct reader *r)
{
	struct moment m = { .seconds = get_signed(r) };
	uint64_t nanoseconds = get_number(r);
	if (nanoseconds > 999999999)
		r->failed = true;
	m.nanoseconds = (uint32_t)nanoseconds;
	return m;
}

void
entry_put(struct buffer *b, const struct entry *e)
{
	put_byte(b, (unsigned char)e->type);
	put_number(b, e->mode);
	put_number(b, e->uid);
	put_number(b, e->gid);
	put_number(b, e->size);
	put_moment(b, e->modified);
	put_moment(b, e->changed);
	put_number(b, e->inode);
	put_number(b, e->device);
	put_number(b, e->links);
	put_number(b, e->blocks);
	if (e->type == 'b' || e->type == 'c')
		put_number(b, e->node);
	else if (e->type == 'l')
		put_text(b, e->target.bytes, e->target.length);
}

static bool
is_type(char c)
{
	return c == 'f' || c == 'd' || c == 'l' || c == 'p' || c == 's' || c == 'b' || c == 'c';
}

bool
entry_get(struct reader *r, struct entry *e)
{
	memset(e, 0, sizeof *e);
	e->target.bytes = (const unsigned char *)"";
	e->type = (char)get_byte(r);
	uint64_t mode = get_number(r), uid = get_number(r), gid = get_number(r);
	if (!is_type(e->type) || mode > 07777 || uid > UINT32_MAX || gid > UINT32_MAX)
		r->failed = true;
	e->mode = (uint32_t)mode;
	e->uid = (uint32_t)uid;
	e->gid = (uint32_t)gid;
	e->size = get_number(r);
	e->modified = get_moment(r);
	e->changed = get_moment(r);
	e->inode = get_number(r);
	e->device = get_number(r);
	e->links = get_number(r);
	e->blocks = get_number(r);
	if (e->type == 'b' || e->type == 'c')
		e->node = get_number(r);
	else if (e->type == 'l')
		e->target = get_text(r);
	return !r->failed;
}

void
unit_counts_put(struct buffer *b, const struct unit_counts *c)
{
	put_number(b, c->entries);
	put_number(b, c->files);
	put_number(b, c->directories);
	put_number(b, c->bytes);
	put_number(b, c->blocks);
	put_number(b, c->special);
	put_number(b, c->linked);
	put_number(b, c->linked_elsewhere);
	put_moment(b, c->newest);
}

bool
unit_counts_get(struct reader *r, struct unit_counts *c)
{
	c->entries = get_number(r);
	c->files = get_number(r);
	c->directories = get_number(r);
	c->bytes = get_number(r);
	c->blocks = get_number(r);
	c->special = get_number(r);
	c->linked = get_number(r);
	c->linked_elsewhere = get_number(r);
	c->newest = get_moment(r);
	return !r->failed;
}

void
unit_counts_add(struct unit_counts *c, const struct entry *e)
{
	c->entries++;
	c->blocks += e->blocks;
	if (e->type == 'f') {
		c->files++;
		c->bytes += e->size;
	} else if (e->type == 'd') {
		c->directories++;
	} else if (e->type != 'l') {
		c->special++;
	}
	if (e->type != 'd' && e->links > 1)
		c->linked++;
	if (e->changed.seconds > c->newest.seconds
	    || (e->changed.seconds == c->newest.seconds && e->changed.nanoseconds > c->newest.nanoseconds))
		c->newest = e->changed;
}

int
entry_order(const void *a, size_t a_length, const void *b, size_t b_length)
{
	const unsigned char *x = a, *y = b;
	size_t common = a_length < b_length ? a_length : b_length;
	for (size_t i = 0; i < common; i++) {
		if (x[i] != y[i]) {
			if (x[i] == '/')
				return -1;
			return y[i] == '/' ? 1 : x[i] - y[i];
		}
	}
	return (a_length > b_length) - (a_length < b_length);
}

bool
entry_path_is_good(struct text path)
{
	if (path.length == 0)
		return true;
	if (memchr(path.bytes, 0, path.length))
		return false;
	const unsigned char *at = path.bytes, *end = at + path.length;
	while (at <= end) {
		const unsigned char *slash = memchr(at, '/', (size_t)(end - at));
		size_t length = (size_t)((slash ? slash : end) - at);
		if (length == 0 || (length == 1 && at[0] == '.') || (length == 2 && at[0] == '.' && at[1] == '.'))
			return false;
		if (!slash)
			break;
		at = slash + 1;
	}
	return true;
}

uint64_t
segment_size(uint64_t file)
{
	uint64_t size = SEGMENT_LEAST;
	while (file / size >= SEGMENTS_MOST)
		size *= 2;
	return size;
}

uint64_t
segment_count(uint64_t file)
{
	uint64_t size = segment_size(file);
	return file / size + (file % size != 0);
}

uint64_t
unfinished_id(const void *path, size_t length)
{
	return XXH3_64bits(path, length);
}
