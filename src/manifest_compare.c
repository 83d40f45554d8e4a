/* manifest_compare.c - how both sides of a unit differ, in numbers; see manifest.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "manifest.h"

#define EXAMPLES 3

static void
count_kinds(struct manifest_comparison *c, const struct row *row, unsigned differs)
{
	for (unsigned i = 0; i < DIFFERS_KINDS; i++) {
		if (!(differs & 1u << i))
			continue;
		struct manifest_kind *k = &c->kinds[i];
		if (k->count++ < EXAMPLES)
			manifest_names_add(&k->examples, row->path.bytes, row->path.length);
	}
}

static void
count_equal(struct manifest_comparison *c, const struct row *row, unsigned differs)
{
	c->equal++;
	if (!(differs & DIFFERS_UNPROVEN)) {
		c->proven++;
	} else if (row->side[SIDE_SOURCE].entry.type == 'f') {
		c->unproven_files++;
		c->unproven_bytes += row->side[SIDE_SOURCE].entry.size;
	}
}

void
manifest_comparison_add(struct manifest_comparison *c, const struct pairing *p, const struct row *row, unsigned differs)
{
	count_kinds(c, row, differs);
	if (differs & DIFFERS_EXTRA) {
		c->extra++;
		c->extra_ours += row->ours;
		return;
	}
	c->entries++;
	if (differs & DIFFERS_MISSING)
		c->missing++;
	else if (differs & ~(unsigned)DIFFERS_UNPROVEN)
		c->different++;
	else
		count_equal(c, row, differs);
	if (row_action(p, row, differs, false) == ACTION_FILE) {
		c->send_files++;
		c->send_bytes += row->side[SIDE_SOURCE].entry.size;
	}
}

void
manifest_comparison_fini(struct manifest_comparison *c)
{
	for (unsigned i = 0; i < DIFFERS_KINDS; i++)
		manifest_names_free(&c->kinds[i].examples);
}

void
manifest_compare_run(struct manifest_job *job)
{
	struct manifest_compare *c = (struct manifest_compare *)job;
	struct manifest_reader r;
	struct pairing p;
	struct row row;
	int directory = open(c->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char *file = manifest_name(c->unit, c->unit_length);
	errno = directory >= 0 && !file ? ENOMEM : errno;
	int there = directory < 0 || !file ? -1 : manifest_open(&r, directory, file, NULL);
	if (there < 0)
		manifest_fail_errno(&job->failure, errno, c->directory);
	else if (!there)
		manifest_fail(&job->failure, "ENOENT", "%.200s: nothing is known of it", c->unit);
	if (there > 0) {
		pairing_open(&p, c->owner);
		while (!atomic_load(&job->abandoned) && manifest_next(&r, &row)) {
			pairing_next(&p, &row);
			manifest_comparison_add(&c->found, &p, &row, row_difference(&p, &row));
		}
		if (r.failed || p.failed)
			manifest_fail_errno(&job->failure, r.failed ? EIO : ENOMEM, c->unit);
		pairing_close(&p);
		manifest_shut(&r);
	}
	if (directory >= 0)
		close(directory);
	free(file);
}

void
manifest_compare_release(struct manifest_job *job)
{
	struct manifest_compare *c = (struct manifest_compare *)job;
	manifest_comparison_fini(&c->found);
	free(c->directory);
	free(c->unit);
}
