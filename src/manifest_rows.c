/* manifest_rows.c - see manifest_rows.h. */
#include "manifest_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool
owner_map_of(struct owner_map *m, const char *text)
{
	unsigned long long uid, gid;
	int used = 0;
	memset(m, 0, sizeof *m);
	if (!text || strcmp(text, "keep") == 0)
		return true;
	if (sscanf(text, "%10llu:%10llu%n", &uid, &gid, &used) != 2 || text[used] != '\0' || text[strspn(text, "0123456789:")]
	    || uid >= UINT32_MAX || gid >= UINT32_MAX)
		return false;
	*m = (struct owner_map){ true, (uint32_t)uid, (uint32_t)gid };
	return true;
}

static struct link *
slot_of(const struct links *l, uint64_t device, uint64_t inode)
{
	size_t at = (size_t)((inode + device) * 0x9e3779b97f4a7c15u >> 20) & (l->room - 1);
	while (l->slots[at].leader && (l->slots[at].inode != inode || l->slots[at].device != device))
		at = (at + 1) & (l->room - 1);
	return &l->slots[at];
}

static bool
grow(struct links *l)
{
	struct links more = { .room = l->room ? 2 * l->room : 64, .count = l->count };
	more.slots = calloc(more.room, sizeof *more.slots);
	if (!more.slots) {
		l->failed = true;
		return false;
	}
	for (size_t i = 0; i < l->room; i++)
		if (l->slots[i].leader)
			*slot_of(&more, l->slots[i].device, l->slots[i].inode) = l->slots[i];
	free(l->slots);
	*l = more;
	return true;
}

struct link *
links_enter(struct links *l, const struct entry *e, uint32_t row)
{
	if (e->type == 'd' || e->links < 2 || (4 * (l->count + 1) > 3 * l->room && !grow(l)))
		return NULL;
	struct link *one = slot_of(l, e->device, e->inode);
	if (!one->leader) {
		*one = (struct link){ e->inode, e->device, row, 0 };
		l->count++;
	}
	return one;
}

struct link *
links_find(const struct links *l, uint64_t device, uint64_t inode)
{
	struct link *one = l->room ? slot_of(l, device, inode) : NULL;
	return one && one->leader ? one : NULL;
}

void
links_free(struct links *l)
{
	free(l->slots);
	memset(l, 0, sizeof *l);
}

void
pairing_open(struct pairing *p, struct owner_map owner)
{
	memset(p, 0, sizeof *p);
	p->owner = owner;
}

void
pairing_next(struct pairing *p, const struct row *row)
{
	if (++p->row == UINT32_MAX)
		p->failed = true;
	for (int i = 0; i < SIDES; i++) {
		bool known = row->side[i].known;
		p->link[i] = known ? links_enter(&p->links[i], &row->side[i].entry, p->row) : NULL;
		p->leader[i] = !known ? 0 : p->link[i] ? p->link[i]->leader : p->row;
		p->failed |= p->links[i].failed;
	}
}

void
pairing_close(struct pairing *p)
{
	for (int i = 0; i < SIDES; i++)
		links_free(&p->links[i]);
}

static bool
text_is(struct text a, struct text b)
{
	return a.length == b.length && memcmp(a.bytes, b.bytes, a.length) == 0;
}

static unsigned
metadata_difference(const struct pairing *p, const struct row *row)
{
	const struct entry *s = &row->side[SIDE_SOURCE].entry, *t = &row->side[SIDE_TARGET].entry;
	unsigned differs = 0;
	if (s->type != t->type || ((s->type == 'b' || s->type == 'c') && s->node != t->node))
		return DIFFERS_TYPE;
	if (s->type == 'f' && s->size != t->size)
		differs |= DIFFERS_SIZE;
	if (s->type != 'l' && s->mode != t->mode)
		differs |= DIFFERS_MODE;
	if ((p->owner.mapped ? p->owner.uid : s->uid) != t->uid || (p->owner.mapped ? p->owner.gid : s->gid) != t->gid)
		differs |= DIFFERS_OWNER;
	if (!moment_is(s->modified, t->modified))
		differs |= DIFFERS_TIME;
	if (s->type == 'l' && !text_is(s->target, t->target))
		differs |= DIFFERS_TARGET;
	if (p->leader[SIDE_SOURCE] != p->leader[SIDE_TARGET])
		differs |= DIFFERS_LINKS;
	return differs;
}

unsigned
row_difference(const struct pairing *p, const struct row *row)
{
	const struct row_side *s = &row->side[SIDE_SOURCE], *t = &row->side[SIDE_TARGET];
	if (!t->known)
		return DIFFERS_MISSING;
	if (!s->known)
		return DIFFERS_EXTRA;
	unsigned differs = metadata_difference(p, row);
	if (differs & DIFFERS_TYPE)
		return differs;
	bool contents = s->entry.type == 'f' && s->entry.size > 0 && !(differs & DIFFERS_SIZE);
	if (contents && s->hashed && t->hashed && memcmp(s->hash, t->hash, ENTRY_HASH) != 0)
		differs |= DIFFERS_CONTENTS;
	if (s->attributed && t->attributed && memcmp(s->attributes, t->attributes, ENTRY_ATTRIBUTES) != 0)
		differs |= DIFFERS_ATTRIBUTES;
	if (!differs && (!s->attributed || !t->attributed || (contents && !(s->hashed && t->hashed))))
		differs |= DIFFERS_UNPROVEN;
	return differs;
}

enum row_action
row_action(const struct pairing *p, const struct row *row, unsigned differs, bool leader_sent)
{
	const struct row_side *s = &row->side[SIDE_SOURCE], *t = &row->side[SIDE_TARGET];
	unsigned other = differs & ~(unsigned)DIFFERS_UNPROVEN;
	if (!s->known)
		return ACTION_NONE;
	if (s->entry.type == 'd')
		return other ? ACTION_DIRECTORY : ACTION_NONE;
	if (p->leader[SIDE_SOURCE] != p->row)
		return leader_sent || (other & (DIFFERS_MISSING | DIFFERS_TYPE | DIFFERS_LINKS)) ? ACTION_LINK : ACTION_NONE;
	if (s->entry.type != 'f')
		return other ? ACTION_NODE : ACTION_NONE;
	if (other & (DIFFERS_MISSING | DIFFERS_TYPE | DIFFERS_SIZE | DIFFERS_LINKS | DIFFERS_CONTENTS))
		return ACTION_FILE;
	bool kept = t->hashed && !t->racy;	/* its bytes are known for sure */
	if (other)
		return kept ? ACTION_CHECK : ACTION_FILE;
	return s->entry.size > 0 && !s->hashed && kept ? ACTION_CHECK : ACTION_NONE;
}

bool
entry_is_unchanged(const struct entry *a, const struct entry *b)
{
	return a->type == b->type && a->inode == b->inode && a->device == b->device && a->size == b->size
		&& a->mode == b->mode && a->uid == b->uid && a->gid == b->gid && a->node == b->node
		&& (a->links == b->links || a->type == 'd')
		&& moment_is(a->modified, b->modified) && moment_is(a->changed, b->changed) && text_is(a->target, b->target);
}
