#include "pace.h"

#include "work.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#define LIMIT    3			/* times the quiet stat */
#define FIRST    32			/* stats that show how it was before we were felt */
#define FLOOR    UINT64_C(200000)	/* below this many nanoseconds nobody is disturbed */
#define SECOND   UINT64_C(1000000000)
#define STEP     UINT64_C(10000000)	/* nanoseconds of pause more or less */
#define MOST     UINT64_C(2000000000)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	uint64_t rate, free_at;		/* when the next byte may go */
	uint64_t quiet, average, pause, judged_at, said_at;
	uint64_t first[FIRST];
	unsigned firsts;
	bool says;
} pace;

static void
rest(uint64_t nanoseconds)
{
	struct timespec t = { (time_t)(nanoseconds / SECOND), (long)(nanoseconds % SECOND) };
	nanosleep(&t, NULL);
}

void
pace_open(const struct far_options *o, bool says)
{
	pace.rate = o->rate;
	pace.quiet = o->gently ? o->quiet : 0;
	pace.says = says;
	pace.said_at = pace.judged_at = far_clock();
}

void
pace_bytes(size_t bytes)
{
	if (pace.rate == 0)
		return;
	pthread_mutex_lock(&lock);
	uint64_t now = far_clock();
	if (pace.free_at < now)
		pace.free_at = now;
	uint64_t wait = pace.free_at - now;
	pace.free_at += (uint64_t)((double)bytes * (double)SECOND / (double)pace.rate);
	pthread_mutex_unlock(&lock);
	if (wait)
		rest(wait);
}

void
pace_turn(void)
{
	pthread_mutex_lock(&lock);
	uint64_t pause = pace.pause;
	pthread_mutex_unlock(&lock);
	if (pause)
		rest(pause);
}

/* Once in a tenth of a second the pause grows by half, or shrinks by a quarter. */
static void
judge(uint64_t now)
{
	uint64_t limit = LIMIT * pace.quiet > FLOOR ? LIMIT * pace.quiet : FLOOR;
	pace.judged_at = now;
	if (pace.quiet && pace.average > limit)
		pace.pause = pace.pause + pace.pause / 2 + STEP < MOST ? pace.pause + pace.pause / 2 + STEP : MOST;
	else
		pace.pause = pace.pause > STEP ? pace.pause - pace.pause / 4 - STEP / 4 : 0;
}

static int
by_length(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

/*
 * A scan is told of many names at once, and its stats cost nothing then, on a file server: ours do not.  So the first of
 * ours count as quiet, too.
 */
static void
note_first(uint64_t nanoseconds)
{
	pace.first[pace.firsts++] = nanoseconds;
	if (pace.firsts < FIRST)
		return;
	qsort(pace.first, FIRST, sizeof *pace.first, by_length);
	if (pace.quiet < pace.first[FIRST / 2])
		pace.quiet = pace.first[FIRST / 2];
}

static void
measured(uint64_t nanoseconds)
{
	pthread_mutex_lock(&lock);
	uint64_t now = far_clock();
	if (pace.quiet && pace.firsts < FIRST) {
		note_first(nanoseconds);
		pace.judged_at = now;
	}
	pace.average = pace.average ? pace.average - pace.average / 16 + nanoseconds / 16 : nanoseconds;
	if (now - pace.judged_at > SECOND / 10)
		judge(now);
	bool say = pace.says && now - pace.said_at > SECOND;
	uint64_t average = pace.average;
	if (say)
		pace.said_at = now;
	pthread_mutex_unlock(&lock);
	if (say) {
		struct buffer p = { 0 };
		put_number(&p, average);
		out_frame(DATA_STAT, &p);
		buffer_free(&p);
	}
}

/* How often this thread lost the processor to somebody else. */
static long
preempted(void)
{
	struct rusage u;
	return getrusage(RUSAGE_THREAD, &u) == 0 ? u.ru_nivcsw : 0;
}

struct pace_look
pace_begin(void)
{
	long before = preempted();
	return (struct pace_look){ far_clock(), before };
}

/*
 * With the least claim on the processor a thread waits for it thousands of times as long as for a file that is in memory: a few
 * of those would pass for a source in trouble, and what is sent next, that rarely, would not show soon that it is none.
 */
void
pace_end(const struct pace_look *l)
{
	uint64_t took = far_clock() - l->began;
	if (preempted() == l->preempted)
		measured(took);
}
