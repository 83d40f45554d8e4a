/*
 * manifest_work.h - work for the far side, a shard at a time, and what came of it.
 *
 * A shard that was made and the sinks of its results outlive the work's user: each holds a reference.
 */
#ifndef RUNBOOK_MANIFEST_WORK_H
#define RUNBOOK_MANIFEST_WORK_H

#include "manifest.h"

/* Operations of one kind after the other, each a record: type, length, what follows the index in its frame. */
enum manifest_phase { PHASE_WAY, PHASE_CONTENT, PHASE_WHOLE, PHASE_LINKS, PHASE_REMOVALS, PHASE_DIRECTORIES, PHASES };

struct manifest_batch {
	struct buffer phase[PHASES];	/* WORK_UNIT records name the unit of what follows */
	size_t from[PHASES];		/* what is before was taken */
	size_t count[PHASES];
	uint64_t files, size;
	struct manifest_names units;	/* those that are in it */
};

/* A file of which segments are on the target (entry.h), as the far side's `clean` says it. */
struct manifest_part {
	uint64_t id, size, there;	/* there: bytes */
	struct text unit, records, frame;
};

struct manifest_parts {
	struct buffer bytes;
	struct manifest_part *list;	/* by id; what they point to lies in bytes */
	size_t count;
};

/* False: out of memory; parts_free whatever it says. */
bool parts_take(struct manifest_parts *parts, const void *bytes, size_t length);
void parts_free(struct manifest_parts *parts);
const struct manifest_part *part_of(const struct manifest_parts *parts, struct text unit, struct text path);
/* Is a segment of it there, when the file has that size now?  p may be NULL. */
bool part_has(const struct manifest_part *p, uint64_t size, uint64_t index);

enum { REFUSED_FOREIGN, REFUSED_KEPT, REFUSED_UNREADABLE, REFUSED_WAY, REFUSALS };

struct manifest_shard {
	atomic_uint references;
	uint64_t id;
	struct buffer bytes;
	struct shard_op {
		uint32_t at;		/* the frame's payload in bytes, behind the index */
		uint32_t unit;		/* of the work's list */
		uint32_t length;	/* of that payload */
		unsigned char type;
		bool made;		/* a directory that is not there yet */
	} *ops;
	size_t count;
	uint64_t files, size;
	struct manifest_names units;
	uint32_t after;			/* a unit's index plus one; 0: at any time */
	struct manifest_kind refused[REFUSALS];
	struct manifest_shard *next;
};

void manifest_shard_release(struct manifest_shard *s);

/* Results of one unit in the spill file, sorted by path; of no unit: RESULT_TOUCHED frames as they came. */
#define NO_UNIT UINT32_MAX
struct manifest_section {
	uint32_t unit;
	uint64_t shard, offset, length;
	bool linked;		/* names of an inode came or went */
};

struct manifest_generator;

struct manifest_work {
	atomic_uint references;
	char *path;
	char **units;
	size_t *lengths;
	size_t unit_count;
	struct owner_map owner;
	bool deletions, overwrite, proof;
	uint64_t most_entries, most_bytes;
	size_t spread;		/* lanes of the contents; 1: in order */
	struct manifest_parts parts;

	uv_mutex_t making;		/* shards */
	int directory;
	struct manifest_generator *generator;
	struct manifest_shard *ready, **ready_last;
	uint64_t made;

	uv_mutex_t spilling;		/* results */
	int spill;
	uint64_t spilled;
	struct manifest_section *sections;
	size_t section_count, section_room;
};

/* What path, units, lengths and parts point to becomes its own.  NULL: out of memory; that is freed then, too. */
struct manifest_work *manifest_work_new(const struct manifest_work *template);
/* On a worker, before anything else is done with it; false with errno. */
bool manifest_work_open(struct manifest_work *w);
void manifest_work_release(struct manifest_work *w);

/* The next shard; the job takes a reference of the work and gives one of the shard. */
struct manifest_next {
	struct manifest_job job;
	struct manifest_work *work;
	struct manifest_shard *shard;	/* NULL: the end */
};
void manifest_next_run(struct manifest_job *job);
void manifest_next_release(struct manifest_job *job);

/* manifest_shard.c */

/* Appends an operation; path and what follows it in the frame. */
void batch_put(struct manifest_batch *b, enum manifest_phase phase, unsigned char type, const struct buffer *rest);
size_t batch_count(const struct manifest_batch *b);
/* All of `from`, as the work of a unit, behind what is in b. */
void batch_append(struct manifest_batch *b, struct manifest_batch *from, uint32_t unit);
void batch_free(struct manifest_batch *b);
/*
 * A shard of the phases first to last, at most so many operations, which are taken from the batch; unit is that of
 * what has no WORK_UNIT before it.  NULL: out of memory.
 */
struct manifest_shard *shard_of_batch(struct manifest_work *w, struct manifest_batch *b, int first, int last,
                                      size_t most, uint32_t unit);

/* manifest_plan.c: what a row asks for. */

struct manifest_plan;
struct manifest_plan *plan_new(const struct manifest_work *w, const struct manifest_reader *r, struct text unit);
void plan_row(struct manifest_plan *p, const struct row *row);
/* More of what the last row asks for, when that is too much for one operation; false: that was all. */
bool plan_more(struct manifest_plan *p);
void plan_end(struct manifest_plan *p);
/* The operations so far; may be taken from when the plan can be cut. */
struct manifest_batch *plan_batch(struct manifest_plan *p);
bool plan_can_be_cut(const struct manifest_plan *p);
/* What comes after a cut here must wait for what came before it. */
bool plan_is_ordered(const struct manifest_plan *p);
/* Adds what was refused to the shard and forgets it. */
void plan_take_refused(struct manifest_plan *p, struct manifest_kind refused[REFUSALS]);
bool plan_failed(const struct manifest_plan *p);
void plan_free(struct manifest_plan *p);

/* manifest_results.c */

struct manifest_fault {
	uint32_t unit;
	unsigned char status;
	int error;
	char *words;
	struct manifest_kind kind;
};

struct manifest_results {
	struct manifest_sink sink;
	struct manifest_work *work;	/* a reference of each */
	struct manifest_shard *shard;
	enum manifest_side side;	/* of a proof */
	bool complete;
	uint64_t done, sent, files, created, replaced, metadata, linked, removed, unanswered, vanished;
	struct manifest_fault *faults;
	size_t fault_count;

	/* the thread's */
	struct buffer kept;		/* answers, as they came */
	struct buffer touched;		/* frames */
	uint64_t touches;
	struct answer {
		size_t at, length;
		bool there, linked;
	} *answers;			/* by index */
};
void manifest_results_run(struct manifest_sink *sink);
void manifest_results_release(struct manifest_sink *sink);

/* An answer, taken apart. */
struct manifest_answer {
	unsigned char status;
	unsigned flags;
	struct entry entry;
	unsigned char attributes[ENTRY_ATTRIBUTES], hash[ENTRY_HASH];
	uint64_t inode, device, blocks, sent;
	struct moment changed;
	int error;
	struct text words;
	bool stands;		/* not done, and yet there is something of ours: `entry` is how it is on the target */
};
bool answer_get(struct reader *r, struct manifest_answer *a);
/* The same of a proof: status is RESULT_DONE or, with error, RESULT_SOURCE. */
bool proof_get(struct reader *r, struct manifest_answer *a);
/* An inode with several names, and its ctime. */
bool touched_get(struct reader *r, struct entry *e);

/* manifest_patches.c: answers that were put by, in the order of their paths, of one path in the order of their shards. */

struct patch {
	struct text path;
	unsigned char type;	/* of the operation */
	enum manifest_side side;	/* of a proof */
	bool made;			/* a directory that was not there */
	struct manifest_answer answer;
};

/* Calls fn with each inode that was touched by a shard of which the unit has results; false when it cannot be read. */
bool touched_of(struct manifest_work *w, uint32_t unit, void (*fn)(void *arg, const struct entry *e), void *arg);

struct patches;
/* Of a unit; *linked: names of an inode came or went.  NULL: out of memory. */
struct patches *patches_of(struct manifest_work *w, uint32_t unit, bool *linked);
/* Lies there until the next call; NULL: the end, or *failed. */
const struct patch *patches_next(struct patches *p, bool *failed);
void patches_free(struct patches *p);

/*
 * manifest_stale.c: directories in which something came or went, and which were not brought after that: their times are
 * not what they were.  Hashes of their paths, sorted.
 */

struct stale {
	uint64_t *list, *there;
	size_t count, there_count;
};
/* False: out of memory, or what was put by cannot be read. */
bool stale_of(struct stale *s, struct manifest_work *w, uint32_t unit);
bool stale_has(const struct stale *s, struct text path);
/* Something was put in it, or below it: so it was made on the way if it was not there. */
bool stale_is_there(const struct stale *s, struct text path);
void stale_free(struct stale *s);

/* manifest_settle.c */

struct manifest_settle {
	struct manifest_job job;
	struct manifest_work *work;
	uint32_t unit;
	uint64_t patched, changed;
	struct manifest_comparison *compared;	/* as it is now; NULL: nothing came of it */
};
void manifest_settle_run(struct manifest_job *job);
void manifest_settle_release(struct manifest_job *job);

#endif
