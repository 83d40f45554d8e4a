/*
 * fuzz/far.c - libFuzzer target for what the far side's program reads: whatever comes, it ends, and nothing outside of its
 * root is touched.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -idirafter /usr/include -pthread spec/fuzz/far.c \
 *         $(ls src/far/[!.]*.c | grep -vE '/(content|main|pool|receive).c') src/entry.c src/frame.c -o build/fuzz-far
 *     ASAN_OPTIONS=detect_leaks=0 build/fuzz-far -max_total_time=60 -max_len=4000 -rss_limit_mb=8000
 *
 * The input: a letter (s, p, r, c: send, prove, receive, clean; all else: scan), then what that reads.
 * As root it also makes devices and changes owners.  main.c and pool.c are replaced here: who gives up comes back, and
 * there is one thread, so that what the input did is known when it is over.  A hash that is all zeros fits any bytes.
 * What those had in memory that gave up half way is lost: that is why no leaks are looked for, and so much memory allowed.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define far_die far_die_for_good
#define main far_main
#include "../../src/far/main.c"
#undef far_die
#undef main
void far_die(int status, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
#define content_hash content_hash_of_bytes
#define content_segment content_segment_of_bytes
#include "../../src/far/content.c"
#undef content_hash
#undef content_segment
#include "../../src/far/receive.c"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/tmp/fuzz-far.XXXXXX", root_path[64], outside[64];
static jmp_buf end;
static char before[4096];

void
far_die(int status, const char *format, ...)
{
	(void)format;
	longjmp(end, status);
}

int
content_hash(int fd, const struct entry *e, unsigned char hash[static ENTRY_HASH])
{
	int error = content_hash_of_bytes(fd, e, hash);
	memset(hash, 0, ENTRY_HASH);
	return error;
}

int
content_segment(int fd, const struct entry *e, uint64_t index, content_sink *sink, void *arg, unsigned char hash[static ENTRY_HASH])
{
	int error = content_segment_of_bytes(fd, e, index, sink, arg, hash);
	memset(hash, 0, ENTRY_HASH);
	return error;
}

struct pool {
	struct cursor cursor;
};
static struct pool pool;

struct pool *
pool_open(unsigned count, int root, bool make, size_t most)
{
	(void)count;
	(void)most;
	cursor_open(&pool.cursor, root, make);
	return &pool;
}

void
pool_add(struct pool *p, void (*work)(struct cursor *c, void *arg), void *arg, size_t weight)
{
	(void)weight;
	work(&p->cursor, arg);
}

void
pool_wait(struct pool *p)
{
	(void)p;
}

void
pool_close(struct pool *p)
{
	cursor_close(&p->cursor);
	memset(p, 0, sizeof *p);
}

static char seen[sizeof before];

/* Names, inodes and ctimes: nothing can be done to them that does not show. */
static int
note(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	size_t n = strlen(seen);
	(void)flag;
	(void)ftw;
	snprintf(seen + n, sizeof seen - n, "%s %lu %ld.%ld\n", path, (unsigned long)st->st_ino, (long)st->st_ctim.tv_sec,
	         (long)st->st_ctim.tv_nsec);
	return 0;
}

static void
check_outside(void)
{
	seen[0] = '\0';
	nftw(outside, note, 8, FTW_PHYS);
	if (!before[0])
		memcpy(before, seen, sizeof before);
	if (strcmp(before, seen) != 0) {
		fprintf(stderr, "broken: the outside was\n%sand is\n%s", before, seen);
		abort();
	}
}

static void
shell(const char *line)
{
	if (system(line) != 0)
		abort();
}

/* A home with every kind of thing, and ways out of it. */
static void
fill_root(void)
{
	char line[1024];
	snprintf(line, sizeof line, "rm -rf %s && mkdir -p %s/u/d %s/v && cd %s && echo abc > u/f && echo abc > u/g && ln u/g u/h "
	         "&& ln -s ../../outside u/out && ln -s ../outside out && ln -s f u/l && mkfifo u/p && head -c 5000000 /dev/zero > u/large && ln -s ../../outside/f v/f",
	         root_path, root_path, root_path, root_path);
	shell(line);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char line[256];
	(void)argc;
	(void)argv;
	if (!mkdtemp(folder))
		abort();
	snprintf(root_path, sizeof root_path, "%s/root", folder);
	snprintf(outside, sizeof outside, "%s/outside", folder);
	snprintf(line, sizeof line, "mkdir -p %s/d && echo precious > %s/f && echo precious > %s/d/f", outside, outside, outside);
	shell(line);
	fill_root();
	check_outside();
	umask(0);
	return 0;
}

static void
forget(void)
{
	cursor_forget_all();
	pool_close(&pool);
	memset(&receive, 0, sizeof receive);
}

static void
call(uint8_t which, const struct far_options *o)
{
	switch (which) {
	case 's': far_send(o); break;
	case 'p': far_prove(o); break;
	case 'r': far_receive(o); break;
	case 'c': far_scan(&(struct far_options){ .root = o->root, .threads = 1, .keep_parts = true }, true); break;
	default: far_scan(o, false);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int runs;
	if (size == 0)
		return 0;
	const struct far_options o = { .root = root_path, .threads = 1, .most_removed = 3 };
	int in = memfd_create("in", 0), out = open("/dev/null", O_WRONLY), error = dup(STDOUT_FILENO), kept = dup(STDIN_FILENO);
	if (in < 0 || out < 0 || error < 0 || write(in, data + 1, size - 1) != (ssize_t)size - 1 || lseek(in, 0, SEEK_SET) != 0)
		abort();
	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	if (setjmp(end) == 0)
		call(data[0], &o);
	forget();
	dup2(kept, STDIN_FILENO);
	dup2(error, STDOUT_FILENO);
	closefrom(in); /* ours, and what those had open that gave up */
	check_outside();
	if (++runs % 500 == 0)
		fill_root();
	return 0;
}
