/* point.c - see point.h. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "point.h"

static atomic_int parent = -1;	/* the socket to whoever counts, or -1 */

/* One thread at a time: the byte that comes back belongs to the name that was sent. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/*
 * A bad value is ignored: the walks count the points they see and would notice.  The programs we
 * start get neither variable nor socket, or they would answer in our name.
 */
void
point_init(void)
{
	const char *value = getenv("RUNBOOK_POINTS");
	char *end;
	long fd;

	if (value == NULL)
		return;
	errno = 0;
	fd = strtol(value, &end, 10);
	if (errno == 0 && end != value && *end == '\0' && fd >= 0 && fd <= 1 << 20 &&
	    fcntl((int)fd, F_SETFD, FD_CLOEXEC) == 0)
		atomic_store(&parent, (int)fd);
	unsetenv("RUNBOOK_POINTS");
}

static int
tell(int fd, const char *name)
{
	struct iovec parts[2] = {
		{ .iov_base = (char *)(uintptr_t)name, .iov_len = strlen(name) },
		{ .iov_base = (char[]){ '\n' }, .iov_len = 1 },
	};
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2 };
	ssize_t n;

	/* No SIGPIPE: a walk that has ended must not end us in its own way. */
	while ((n = sendmsg(fd, &m, MSG_NOSIGNAL)) < 0 && errno == EINTR)
		continue;
	return n == (ssize_t)(parts[0].iov_len + 1) ? 0 : -1;
}

static int
wait_for_leave(int fd)
{
	char byte;
	ssize_t n;

	while ((n = read(fd, &byte, 1)) < 0 && errno == EINTR)
		continue;
	return n == 1 ? 0 : -1;
}

void
point_reach(const char *name)
{
	int fd;

	if (atomic_load_explicit(&parent, memory_order_relaxed) < 0)
		return;
	pthread_mutex_lock(&turn);
	fd = atomic_load(&parent);
	/* A parent that is gone asks for nothing any more. */
	if (fd >= 0 && (tell(fd, name) != 0 || wait_for_leave(fd) != 0))
		atomic_store(&parent, -1);
	pthread_mutex_unlock(&turn);
}
