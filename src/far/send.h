/* send.h - send.c takes the work and reads what is asked for; send_large.c reads what goes in segments. */
#ifndef RUNBOOK_FAR_SEND_H
#define RUNBOOK_FAR_SEND_H

#include "work.h"

/* Which segments of a file are asked for; `records` (entry.h) says of each what was there already. */
struct part {
	bool settles;
	uint64_t size, from, to;
	unsigned char *records;
};

struct op {
	unsigned char type;
	uint64_t index;
	char *path;
	struct expect expect;
	unsigned char hash[ENTRY_HASH];
	struct part part;
};

struct file {
	struct op *op;
	struct buffer *out;	/* the payload of the frame that is made */
	struct buffer *parts, *attributes;
	uint64_t id, extents;
	bool begun, large, racy;	/* large: it goes in segments */
};

uint64_t send_next_id(void);
void send_put_id(struct buffer *b, uint64_t id);
void send_put_head(struct buffer *b, const struct op *op);
void send_put_tail(struct buffer *b, const struct entry *e, const struct buffer *attributes, bool racy, const unsigned char *hash);

/* What follows the expectation in WORK_PART; false: malformed.  part_free whatever it says. */
bool part_get(struct reader *r, struct part *p);
void part_free(struct part *p);

/*
 * One try at a file that is longer than a segment, or of which segments are asked for.  What one try has read is not sent
 * by the next if it is still the same.  0, EAGAIN when it was written to meanwhile, or another errno.
 */
int send_large(struct file *f, int fd, const struct entry *e);
void send_begin(struct file *f, uint64_t size);

#endif
