/*
 * pace.h - how fast the sender may be: a rate in bytes, and a governor that gives way to the people who use the source.
 *
 * The governor knows how long a stat took before anything was copied, and how long the first of its own.  When it takes three times as long, the threads
 * take turns with pauses that grow, and shrink again when it is well.
 */
#ifndef RUNBOOK_FAR_PACE_H
#define RUNBOOK_FAR_PACE_H

#include "far.h"

/* With `says`, what was measured goes out as a frame once in a second. */
void pace_open(const struct far_options *o, bool says);
void pace_bytes(size_t bytes);		/* waits until so many may go */
void pace_turn(void);			/* waits while the source is in trouble */

/* Around a look at a file: how long it took, unless the thread had to wait for the processor, which says nothing of the source. */
struct pace_look {
	uint64_t began;
	long preempted;
};
struct pace_look pace_begin(void);
void pace_end(const struct pace_look *l);

#endif
