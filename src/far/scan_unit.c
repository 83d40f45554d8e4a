/* scan_unit.c - a unit that was read, as frames: its digest first, so that what is known already is not sent. */
#include "scan.h"

#define XXH_INLINE_ALL
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <xxhash.h>

struct owner {
	uint32_t uid, gid;
	uint64_t names;
};

/* Names of one inode within the unit, to tell which have others elsewhere. */
struct inode {
	uint64_t device, number, links, seen;
};

struct saying {
	struct buffer frames, payload;
	struct { char *bytes; size_t length, room; } path, before;
	XXH3_state_t *digest;
	struct unit_counts counts;
	struct owner *owners;
	size_t owner_count;
	struct inode *inodes;
	size_t inode_count, inode_room;
	bool silent;		/* only the digest is wanted */
};

static void
count_owner(struct saying *s, const struct entry *e)
{
	size_t i = 0;
	while (i < s->owner_count && (s->owners[i].uid != e->uid || s->owners[i].gid != e->gid))
		i++;
	if (i == s->owner_count) {
		s->owners = realloc(s->owners, (i + 1) * sizeof *s->owners);
		if (!s->owners)
			far_die(EX_OSERR, "out of memory");
		s->owners[s->owner_count++] = (struct owner){ e->uid, e->gid, 0 };
	}
	s->owners[i].names++;
	if (i > 0) { /* the usual one is found first */
		struct owner o = s->owners[i];
		s->owners[i] = s->owners[i - 1];
		s->owners[i - 1] = o;
	}
}

static struct inode *
slot_of(struct inode *table, size_t room, uint64_t device, uint64_t number)
{
	size_t at = (size_t)((number * 0x9e3779b97f4a7c15u) ^ device) & (room - 1);
	while (table[at].seen && (table[at].number != number || table[at].device != device))
		at = (at + 1) & (room - 1);
	return &table[at];
}

static void
count_link(struct saying *s, const struct entry *e)
{
	if (e->type == 'd' || e->links < 2)
		return;
	if (2 * (s->inode_count + 1) > s->inode_room) {
		size_t room = s->inode_room ? 2 * s->inode_room : 64;
		struct inode *table = far_memory(room * sizeof *table);
		for (size_t i = 0; i < s->inode_room; i++)
			if (s->inodes[i].seen)
				*slot_of(table, room, s->inodes[i].device, s->inodes[i].number) = s->inodes[i];
		free(s->inodes);
		s->inodes = table;
		s->inode_room = room;
	}
	struct inode *i = slot_of(s->inodes, s->inode_room, e->device, e->inode);
	if (!i->seen)
		s->inode_count++;
	*i = (struct inode){ e->device, e->inode, e->links, i->seen + 1 };
}

static void
say(struct saying *s, const unsigned char *fields, size_t length)
{
	struct buffer *p = &s->payload;
	size_t shared = 0, most = s->path.length < s->before.length ? s->path.length : s->before.length;
	while (shared < most && s->path.bytes[shared] == s->before.bytes[shared])
		shared++;
	p->length = 0;
	put_number(p, shared);
	put_text(p, s->path.length > shared ? s->path.bytes + shared : "", s->path.length - shared);
	put_bytes(p, fields, length);
	if (p->failed)
		far_die(EX_OSERR, "out of memory");
	XXH3_128bits_update(s->digest, p->bytes, p->length);
	if (!s->silent) {
		put_frame(&s->frames, SCAN_ENTRY, p);
		if (s->frames.length > (256u << 10)) {
			out_put(&s->frames);
			s->frames.length = 0;
		}
	} else {
		struct entry e;
		struct reader r = reader_of(fields, length);
		entry_get(&r, &e);
		unit_counts_add(&s->counts, &e);
		count_owner(s, &e);
		count_link(s, &e);
	}
	if (s->before.room < s->path.length + 1) {
		s->before.room = 2 * s->path.length + 64;
		s->before.bytes = realloc(s->before.bytes, s->before.room);
		if (!s->before.bytes)
			far_die(EX_OSERR, "out of memory");
	}
	if (s->path.length > shared)
		memcpy(s->before.bytes + shared, s->path.bytes + shared, s->path.length - shared);
	s->before.length = s->path.length;
}

/* What is there already begins with the directory's path: it was said before what is in it. */
static void
set_path(struct saying *s, const struct directory *d, const struct item *i)
{
	size_t above = d->length, length = above + (above > 0) + i->name;
	if (s->path.room < length + 1) {
		s->path.room = 2 * length + 64;
		s->path.bytes = realloc(s->path.bytes, s->path.room);
		if (!s->path.bytes)
			far_die(EX_OSERR, "out of memory");
	}
	if (above)
		s->path.bytes[above++] = '/';
	memcpy(s->path.bytes + above, name_of(d, i), i->name);
	s->path.length = length;
}

/* Depth first, without recursion: trees may be deeper than a thread's stack. */
static void
walk(struct saying *s, struct unit *u)
{
	s->path.length = s->before.length = 0;
	if (u->own.length)
		say(s, u->own.bytes, u->own.length);
	struct directory *d = u->top;
	d->said = 0;
	while (d) {
		if (d->said == d->count) {
			d = d->parent;
			continue;
		}
		struct item *i = &d->items[d->said++];
		set_path(s, d, i);
		say(s, d->bytes.bytes + i->at + i->name + 1, i->fields);
		if (i->below) {
			d = i->below;
			d->said = 0;
		}
	}
}

static void
free_tree(struct directory *d)
{
	d->said = 0;
	while (d) {
		if (d->said < d->count) {
			struct item *i = &d->items[d->said++];
			if (i->below) {
				d = i->below;
				d->said = 0;
			}
			continue;
		}
		struct directory *done = d;
		d = d->parent;
		buffer_free(&done->bytes);
		free(done->items);
		free(done);
	}
}

void
scan_free(struct unit *u)
{
	free_tree(u->top);
	buffer_free(&u->own);
	buffer_free(&u->problems);
	pthread_mutex_destroy(&u->lock);
	free(u->name);
	free(u);
}

static void
say_end(struct saying *s, const struct unit *u, const unsigned char digest[static DIGEST], bool same)
{
	struct buffer *p = &s->payload;
	p->length = 0;
	for (size_t i = 0; i < s->inode_room; i++)
		if (s->inodes[i].seen && s->inodes[i].seen < s->inodes[i].links)
			s->counts.linked_elsewhere += s->inodes[i].seen;
	put_text(p, digest, DIGEST);
	put_number(p, same);
	unit_counts_put(p, &s->counts);
	put_number(p, s->owner_count);
	for (size_t i = 0; i < s->owner_count; i++) {
		put_number(p, s->owners[i].uid);
		put_number(p, s->owners[i].gid);
		put_number(p, s->owners[i].names);
	}
	put_bytes(&s->frames, u->problems.bytes, u->problems.length);
	put_frame(&s->frames, SCAN_UNIT_END, p);
}

/* One unit at a time: its frames stand together. */
static pthread_mutex_t saying_lock = PTHREAD_MUTEX_INITIALIZER;

void
scan_say(struct unit *u)
{
	struct saying s = { .silent = true, .digest = XXH3_createState() };
	XXH128_canonical_t digest;
	if (!s.digest)
		far_die(EX_OSERR, "out of memory");
	XXH3_128bits_reset(s.digest);
	walk(&s, u);
	XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(s.digest));
	bool same = u->known && memcmp(digest.digest, u->digest, DIGEST) == 0;

	pthread_mutex_lock(&saying_lock);
	s.payload.length = 0;
	put_text(&s.payload, u->name, strlen(u->name));
	put_frame(&s.frames, SCAN_UNIT, &s.payload);
	s.silent = false;
	if (!same)
		walk(&s, u);
	say_end(&s, u, digest.digest, same);
	out_put(&s.frames);
	pthread_mutex_unlock(&saying_lock);

	scan_free(u);
	buffer_free(&s.frames);
	buffer_free(&s.payload);
	free(s.path.bytes);
	free(s.before.bytes);
	free(s.owners);
	free(s.inodes);
	XXH3_freeState(s.digest);
}

void
scan_problem(struct unit *u, const char *path, int error, const char *what)
{
	struct buffer p = { 0 };
	put_text(&p, path, strlen(path));
	put_number(&p, (uint64_t)error);
	put_text(&p, what, strlen(what));
	pthread_mutex_lock(&u->lock);
	put_frame(&u->problems, SCAN_PROBLEM, &p);
	pthread_mutex_unlock(&u->lock);
	buffer_free(&p);
}
