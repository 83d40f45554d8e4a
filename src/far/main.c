#include "content.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define STACK ((size_t)1 << 20)
#define PIPE  (1 << 20)

void
far_die(int status, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fputs("runbook-far: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	_exit(status);
}

void *
far_memory(size_t size)
{
	void *p = calloc(1, size ? size : 1);
	if (!p)
		far_die(EX_OSERR, "out of memory");
	return p;
}

uint64_t
far_clock(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* statfs(2) and linux/magic.h */
static const struct {
	unsigned long magic;
	const char *name;
	bool remote;
} file_systems[] = {
	{ 0xef53, "ext4", false }, { 0x58465342, "xfs", false }, { 0x9123683e, "btrfs", false }, { 0x01021994, "tmpfs", false },
	{ 0x2fc12fc1, "zfs", false }, { 0x794c7630, "overlay", false }, { 0x6969, "nfs", true }, { 0x65735546, "fuse", true },
	{ 0xff534d42, "cifs", true }, { 0xfe534d42, "smb2", true }, { 0x00c36400, "ceph", true }, { 0x0bd00bd0, "lustre", true },
	{ 0x01021997, "9p", true }, { 0x5346414f, "afs", true }, { 0x47504653, "gpfs", true }, { 0x19830326, "beegfs", true },
};

static int
find_file_system(int root, unsigned long *magic)
{
	struct statfs s;
	*magic = 0;
	if (fstatfs(root, &s) != 0)
		return -1;
	*magic = (unsigned long)s.f_type & 0xffffffffu;
	for (size_t i = 0; i < sizeof file_systems / sizeof *file_systems; i++)
		if (file_systems[i].magic == *magic)
			return (int)i;
	return -1;
}

const char *
far_file_system(int root, char text[static 24])
{
	unsigned long magic;
	int i = find_file_system(root, &magic);
	if (i >= 0)
		return file_systems[i].name;
	snprintf(text, 24, "%lx", magic);
	return text;
}

bool
far_is_remote(int root)
{
	unsigned long magic;
	int i = find_file_system(root, &magic);
	return i >= 0 && file_systems[i].remote;
}

void
far_widen(int pipe)
{
	(void)fcntl(pipe, F_SETPIPE_SZ, PIPE); /* the most that anybody may; what is no pipe says so */
}

/* What waits for another machine wants many that wait; a disk of this one wants about as many as there are processors. */
unsigned
far_threads(const struct far_options *o, int root)
{
	if (o->threads)
		return o->threads < 256 ? o->threads : 256;
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = processors > 0 ? (unsigned)processors : 1;
	n = far_is_remote(root) ? 32 : n < 8 ? n : 8;
	return o->gently && n > 2 ? (n + 1) / 2 : n;	/* two at the least idle time there is disturb nobody */
}

bool
far_thread(pthread_t *id, void *(*run)(void *arg), void *arg)
{
	pthread_attr_t a;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, STACK);
	bool started = pthread_create(id, &a, run, arg) == 0;
	pthread_attr_destroy(&a);
	return started;
}

/* ioprio_set(2): class 3 is idle */
static void
be_gentle(void)
{
	setpriority(PRIO_PROCESS, 0, 19);
	syscall(SYS_ioprio_set, 1, 0, 3 << 13);
}

static void
open_many_files(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static uint64_t
number(const char *text, const char **end)
{
	char *stop;
	errno = 0;
	unsigned long long n = strtoull(text, &stop, 10);
	if (stop == text || errno || *text == '-')
		far_die(EX_USAGE, "%s is no number", text);
	*end = stop;
	return n;
}

static uint64_t
whole_number(const char *text)
{
	const char *end;
	uint64_t n = number(text, &end);
	if (*end)
		far_die(EX_USAGE, "%s is no number", text);
	return n;
}

static void
parse_owner(struct far_options *o, const char *text)
{
	const char *end;
	uint64_t uid = number(text, &end);
	if (*end != ':')
		far_die(EX_USAGE, "%s is not uid:gid", text);
	uint64_t gid = whole_number(end + 1);
	if (uid >= UINT32_MAX || gid >= UINT32_MAX)
		far_die(EX_USAGE, "%s is not uid:gid", text);
	o->owner_given = true;
	o->uid = (uint32_t)uid;
	o->gid = (uint32_t)gid;
}

static bool
parse_option(struct far_options *o, const char *word)
{
	const char *value = strchr(word, '=');
	size_t length = value ? (size_t)(value - word) : strlen(word);
#define IS(name) (length == sizeof name - 1 && memcmp(word, name, length) == 0)
	if (IS("--gently") && !value) {
		o->gently = true;
		return true;
	}
	if (IS("--sync") && !value) {
		o->sync = true;
		return true;
	}
	if (IS("--keep-parts") && !value) {
		o->keep_parts = true;
		return true;
	}
	if (!value++)
		return false;
	if (IS("--threads"))
		o->threads = (unsigned)whole_number(value);
	else if (IS("--rate"))
		o->rate = whole_number(value);
	else if (IS("--behind"))
		content_clock_is_behind(whole_number(value));
	else if (IS("--quiet"))
		o->quiet = whole_number(value);
	else if (IS("--most-removed"))
		o->most_removed = whole_number(value);
	else if (IS("--owner"))
		parse_owner(o, value);
	else
		return false;
#undef IS
	return true;
}

/* Names without a descriptor, and ACLs of directories, are reached through it. */
static void
need_proc(void)
{
	struct stat st;
	if (stat("/proc/self/fd", &st) != 0)
		far_die(EX_UNAVAILABLE, "/proc is not mounted here: %s", strerror(errno));
}

int
main(int argc, char **argv)
{
	struct far_options o = { .most_removed = UINT64_MAX };
	if (argc == 2 && strcmp(argv[1], "version") == 0) {
		printf("runbook-far %d\n", ENTRY_VERSION);
		return 0;
	}
	if (argc < 3)
		far_die(EX_USAGE, "usage: runbook-far scan|prove|send|receive|clean|limits ROOT [OPTION]...");
	o.root = argv[2];
	for (int i = 3; i < argc; i++)
		if (!parse_option(&o, argv[i]))
			far_die(EX_USAGE, "unknown option %s", argv[i]);
	umask(0);
	signal(SIGPIPE, SIG_IGN);
	open_many_files();
	if (o.gently)
		be_gentle();
	if (strcmp(argv[1], "scan") == 0)
		return far_scan(&o, false);
	if (strcmp(argv[1], "clean") == 0)
		return far_scan(&o, true);
	if (strcmp(argv[1], "limits") == 0)
		return far_limits(&o);
	need_proc();
	if (strcmp(argv[1], "prove") == 0)
		return far_prove(&o);
	if (strcmp(argv[1], "send") == 0)
		return far_send(&o);
	if (strcmp(argv[1], "receive") == 0)
		return far_receive(&o);
	far_die(EX_USAGE, "%s: scan, prove, send, receive, clean or limits", argv[1]);
}
