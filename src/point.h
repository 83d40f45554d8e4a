/*
 * point.h - places in a run where a parent process may stop or kill it.
 *
 * With RUNBOOK_POINTS=FD in the environment, reaching a point writes its name and a newline to FD
 * and waits for one byte from it (FD is a socket).  The kill walks of spec/ count the points of an
 * undisturbed run and then kill at each.  Without the variable a point costs one comparison.
 */
#ifndef RUNBOOK_POINT_H
#define RUNBOOK_POINT_H

void point_init(void);			/* once, from main */
void point_reach(const char *name);	/* any thread */

#endif
