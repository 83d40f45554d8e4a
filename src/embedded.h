/* embedded.h - the files baked into the binary, sorted by name.  src/embed.lua writes the table. */
#ifndef RUNBOOK_EMBEDDED_H
#define RUNBOOK_EMBEDDED_H

#include <stddef.h>

struct embedded {
	const char *name;	/* "runbook.shell", "runbooks/nfs-move.lua", "man/runbook.1" */
	const char *chunk;	/* "@lib/runbook/shell.lua": what messages call it */
	const unsigned char *bytes;
	size_t length;
};

extern const struct embedded embedded_files[];
extern const size_t embedded_count;

#endif
