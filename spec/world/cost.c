/*
 * cost.c - what machines spend, as long as it runs.
 *
 *     cost FILE PID...
 *
 * Each PID names a machine: all processes of its pid namespace.  Keeps in FILE the seconds of CPU they have had since
 * it began, all machines together, and the most KiB of memory of their own that one machine's had at once: what files
 * have in the cache is nobody's.  Looks 20 times a second, so of the shortest processes it sees some.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MACHINES = 8, PIDS = 1 << 22 };

struct seen {
	uint32_t started, ticks;
};

static struct seen all[PIDS];	/* only what is touched takes memory */
static ino_t machines[MACHINES];
static int machine_count;
static uint64_t ticks;
static long peak;

static bool
namespace_of(const char *pid, ino_t *ino)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof path, "/proc/%.16s/ns/pid", pid);
	if (stat(path, &st) != 0)
		return false;
	*ino = st.st_ino;
	return true;
}

static bool
read_text(const char *pid, const char *name, char *text, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "/proc/%.16s/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* The first look at a process that was there before takes its CPU as the start. */
static void
count_time(const char *pid, bool first_look)
{
	unsigned long long started;
	unsigned long user, system;
	struct seen *s = &all[strtoul(pid, NULL, 10) % PIDS];
	char text[1024], *end;

	if (!read_text(pid, "stat", text, sizeof text) || (end = strrchr(text, ')')) == NULL)
		return;
	if (sscanf(end + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %llu", &user, &system,
	           &started) != 3)
		return;
	if (s->started != (uint32_t)started)
		*s = (struct seen){ .started = (uint32_t)started, .ticks = first_look ? (uint32_t)(user + system) : 0 };
	ticks += (uint32_t)(user + system) - s->ticks;
	s->ticks = (uint32_t)(user + system);
}

static long
own_memory(const char *pid)
{
	long resident, shared;
	char text[256];

	if (!read_text(pid, "statm", text, sizeof text) || sscanf(text, "%*d %ld %ld", &resident, &shared) != 2)
		return 0;
	return (resident - shared) * (sysconf(_SC_PAGESIZE) / 1024);
}

static void
look(bool first_look)
{
	long memory[MACHINES] = { 0 };
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	ino_t ino;

	if (proc == NULL)
		exit(71);
	while ((entry = readdir(proc)) != NULL) {
		if (!isdigit((unsigned char)entry->d_name[0]) || !namespace_of(entry->d_name, &ino))
			continue;
		for (int i = 0; i < machine_count; i++) {
			if (machines[i] != ino)
				continue;
			count_time(entry->d_name, first_look);
			memory[i] += own_memory(entry->d_name);
		}
	}
	closedir(proc);
	for (int i = 0; i < machine_count; i++)
		if (memory[i] > peak)
			peak = memory[i];
}

int
main(int argc, char *argv[])
{
	const struct timespec pause = { .tv_nsec = 50000000 };
	int fd = argc > 2 ? open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;

	if (fd < 0 || argc - 2 > MACHINES) {
		fputs("usage: cost FILE PID...\n", stderr);
		return 64;
	}
	for (int i = 2; i < argc; i++)
		if (namespace_of(argv[i], &machines[machine_count]))
			machine_count++;
	for (bool first_look = true;; first_look = false) {
		char text[64];
		int length;

		look(first_look);
		length = snprintf(text, sizeof text, "%20.2f %20ld\n", (double)ticks / (double)sysconf(_SC_CLK_TCK), peak);
		if (pwrite(fd, text, (size_t)length, 0) != length)
			return 71;
		nanosleep(&pause, NULL);
	}
}
