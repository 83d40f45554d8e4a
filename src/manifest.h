/*
 * manifest.h - what is known of both ends of a copy, and the work that follows from it.  Knows nothing of Lua.
 *
 * A file per unit (manifest_file.h) in a directory of the caller's.  Whatever reads or writes one is a job on the thread
 * pool; what comes from the far side goes through a sink, which has a thread of its own.
 */
#ifndef RUNBOOK_MANIFEST_H
#define RUNBOOK_MANIFEST_H

#include <stdatomic.h>

#include <uv.h>

#include "manifest_rows.h"

struct manifest_failure {
	const char *code;	/* NULL: none; else static */
	char message[300];
};

/* The first one stays. */
void manifest_fail(struct manifest_failure *f, const char *code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void manifest_fail_errno(struct manifest_failure *f, int error, const char *what);

/* Text lists: put_text in a buffer, and their number. */
struct manifest_names {
	struct buffer bytes;
	size_t count;
};
void manifest_names_add(struct manifest_names *n, const void *bytes, size_t length);
void manifest_names_free(struct manifest_names *n);

/* Work for the pool; what is specific follows it in memory. */
struct manifest_job {
	uv_work_t work;
	void (*run)(struct manifest_job *job);		/* on a thread of the pool */
	void (*release)(struct manifest_job *job);	/* what run and the caller left in it; may be told the job was abandoned */
	void (*done)(void *arg);			/* once, from the loop; not when it was abandoned */
	void *arg;
	struct manifest_failure failure;
	atomic_bool abandoned;
	bool running;
};

/* Takes the job, which was allocated with malloc, and frees it in manifest_job_free.  False: out of memory (and freed). */
bool manifest_job_start(uv_loop_t *loop, struct manifest_job *job);
void manifest_job_free(struct manifest_job *job);	/* also abandons it */

/* manifest.c: jobs upon a whole directory. */

struct manifest_request {
	struct manifest_job job;
	char *directory;
	enum manifest_side side;
	bool fresh;
	struct buffer head;	/* what is said before the units, frames */
	struct buffer out;
};
void manifest_request_run(struct manifest_job *job);
void manifest_request_release(struct manifest_job *job);

struct manifest_known {
	char *name;
	bool corrupt;
	uint64_t rows;
	struct manifest_summary side[SIDES];
};
struct manifest_units {
	struct manifest_job job;
	char *directory;
	struct manifest_known *list;
	size_t count;
};
void manifest_units_run(struct manifest_job *job);
void manifest_units_release(struct manifest_job *job);

struct manifest_forget {
	struct manifest_job job;
	char *directory;
	bool sides[SIDES];	/* which rows to drop */
	bool distrust;		/* the target's hashes only */
	uint64_t units;
};
void manifest_forget_run(struct manifest_job *job);
void manifest_forget_release(struct manifest_job *job);

/* Drops the rows of one side, as of one that is not there any more; the unit's file when none are left.  Takes its lock. */
bool manifest_drop_side(int directory, const char *file, enum manifest_side side, struct manifest_failure *f);

/* manifest_compare.c */

struct manifest_kind {
	uint64_t count;
	struct manifest_names examples;
};
/* How both sides of a unit differ, in numbers. */
struct manifest_comparison {
	uint64_t entries, equal, proven, missing, different, extra, extra_ours;
	uint64_t unproven_files, unproven_bytes, send_files, send_bytes;
	struct manifest_kind kinds[DIFFERS_KINDS];	/* by the bits of row_difference */
};
/* A row, which is the pairing's; differs: its row_difference. */
void manifest_comparison_add(struct manifest_comparison *c, const struct pairing *p, const struct row *row, unsigned differs);
void manifest_comparison_fini(struct manifest_comparison *c);

struct manifest_compare {
	struct manifest_job job;
	char *directory, *unit;
	size_t unit_length;
	struct owner_map owner;
	struct manifest_comparison found;
};
void manifest_compare_run(struct manifest_job *job);
void manifest_compare_release(struct manifest_job *job);

/* For each manifest of a directory until `fn`, which is given the job, says no. */
void manifest_each(struct manifest_job *job, const char *path, bool (*fn)(int directory, const char *file, void *job));

/* manifest_census.c: names of the source that a file system of certain limits would not hold as they are. */

enum census_kind {
	CENSUS_PIPE, CENSUS_SOCKET, CENSUS_DEVICE, CENSUS_SYMLINK,
	CENSUS_LONG_NAME, CENSUS_LONG_PATH, CENSUS_NOT_UTF8, CENSUS_CASE, CENSUS_LARGE,
	CENSUS_LINKED,		/* its other names are in other units; examples come in pairs */
	CENSUS_LINKED_OUT,	/* they are out of the tree, or left out */
	CENSUS_KINDS,
};
struct census;
struct manifest_census {
	struct manifest_job job;
	char *directory;
	size_t name_max, path_max, base;	/* base: of the path the units are in; 0: no limit */
	uint64_t size_max;
	bool folds, utf8;			/* the target does not tell case, takes UTF-8 only */
	struct census *state;
	struct manifest_kind kinds[CENSUS_KINDS];
};
void manifest_census_run(struct manifest_job *job);
void manifest_census_release(struct manifest_job *job);

/* manifest_kept.c: what was known of units at some moment, and what somebody else has changed since. */

struct manifest_keep {
	struct manifest_job job;
	char *directory, *into;		/* in one file system; what was kept of a unit before is not any more */
	struct manifest_names units;
	uint64_t kept;
};
void manifest_keep_run(struct manifest_job *job);
void manifest_keep_release(struct manifest_job *job);

/*
 * The directory's target was the source when `kept` was made, and was written to since by passes the other way.  Found are
 * names that are neither as they were nor as these passes bring them.
 */
struct manifest_strangers {
	struct manifest_job job;
	char *directory, *kept, *unit;
	size_t unit_length;
	struct manifest_kind found;
};
void manifest_strangers_run(struct manifest_job *job);
void manifest_strangers_release(struct manifest_job *job);

/* manifest_sink.c: bytes to a thread of its own, which reads frames. */

struct manifest_sink {
	/* For the thread. */
	int fd;				/* its end */
	struct manifest_failure failure;
	atomic_bool abandoned;
	_Atomic uint64_t bytes, files, answered, stat_nanoseconds;	/* for manifest.status */
	void (*run)(struct manifest_sink *s);
	void (*release)(struct manifest_sink *s);	/* what follows the sink in memory */

	/* The loop's. */
	uv_async_t async;
	uv_thread_t thread;
	struct stream *stream;		/* NULL: half-closed or given up */
	bool ended, let_go;
	void (*done)(void *arg);	/* of the write or finish that waits */
	void *arg;
	const char *data;		/* what is left to be written: the caller's until done */
	size_t length;
	bool finishing;
};

/* Takes the sink, allocated with malloc; false with failure set, and freed by manifest_sink_free all the same. */
bool manifest_sink_start(uv_loop_t *loop, struct manifest_sink *s);
/* One at a time.  done may come before they return. */
void manifest_sink_write(struct manifest_sink *s, const void *data, size_t length, void (*done)(void *arg), void *arg);
void manifest_sink_finish(struct manifest_sink *s, void (*done)(void *arg), void *arg);
/* At once; the thread ends soon and by itself. */
void manifest_sink_free(struct manifest_sink *s);

/* manifest_scan.c */

struct manifest_example {
	char *path;
	struct moment at;
	char type;
};
struct manifest_problem {
	char *path, *what;
	int error;
};
struct manifest_owner {
	uint32_t uid, gid;
	uint64_t names;
};

#define MANIFEST_EXAMPLES 10
#define MANIFEST_SHOWN    20	/* problems */

struct manifest_unit {
	char *name;
	size_t length;
	bool same, first;
	unsigned char digest[MANIFEST_DIGEST];
	size_t digest_length;
	struct unit_counts counts;
	struct manifest_owner *owners;
	size_t owner_count;
	uint64_t added, removed, changed, problem_count;
	struct manifest_example examples[MANIFEST_EXAMPLES];	/* the newest first */
	size_t example_count;
	struct manifest_problem *problems;	/* the first MANIFEST_SHOWN, or NULL */
	struct buffer unreadable;	/* of the summary */
	struct manifest_comparison *compared;	/* with the other side; NULL: it is the same, and nobody went through it */
};
void manifest_unit_fini(struct manifest_unit *u);

/* By ctime of the side, seconds. */
struct manifest_period {
	double since, until;
};

struct manifest_scan {
	struct manifest_sink sink;
	char *directory;
	enum manifest_side side;
	struct owner_map owner;
	bool partial;			/* not all units were asked for */
	struct manifest_period *ours_during;	/* whatever came to the target then is this pair's */
	size_t period_count;

	uint64_t version, device, inode, page, stat_nanoseconds;
	struct moment clock;
	char boot[64], file_system[64];
	struct manifest_unit *units;
	size_t unit_count;
	struct manifest_names vanished;

	/* the thread's */
	int at;				/* the directory */
	size_t unit_room;
	int spool;			/* entries of the unit that comes */
	struct buffer spooled;
	bool open;			/* within a unit: the last of the list */
	bool greeted;
};
void manifest_scan_run(struct manifest_sink *s);
void manifest_scan_release(struct manifest_sink *s);

/* manifest_merge.c: the unit's entries, spooled from the start of the file, into its manifest. */
bool manifest_merge(struct manifest_scan *s, struct manifest_unit *u);

#endif
