/*
 * scan.c - reads a tree with many threads.
 *
 * Every thread has a stack of directories to read and takes from its own top, so that it mostly stays where it is; one
 * that has nothing takes the oldest of another.  A unit is said when its last directory was read.
 */
#include "scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define NAMES   65536		/* bytes of getdents64 */
#define SAMPLES 1024
#define SAMPLE_EVERY 16

struct stack {
	pthread_mutex_t lock;
	struct directory **list;
	size_t from, to, room;
};

struct reader_thread {
	pthread_t id;
	struct scan *scan;
	struct stack stack;
	struct cursor cursor;
	struct buffer path;
	char names[NAMES];
	uint64_t samples[SAMPLES];
	size_t stats;
};

static struct reader_thread *threads;
static unsigned thread_count;
static _Atomic size_t directories_left;
static _Atomic uint64_t units_said;

static void
push(struct stack *s, struct directory *d)
{
	pthread_mutex_lock(&s->lock);
	if (s->to == s->room && s->from > s->room / 2) {
		memmove(s->list, s->list + s->from, (s->to - s->from) * sizeof *s->list);
		s->to -= s->from;
		s->from = 0;
	} else if (s->to == s->room) {
		s->room = s->room ? 2 * s->room : 256;
		s->list = realloc(s->list, s->room * sizeof *s->list);
		if (!s->list)
			far_die(EX_OSERR, "out of memory");
	}
	s->list[s->to++] = d;
	pthread_mutex_unlock(&s->lock);
}

static struct directory *
take(struct stack *s, bool oldest)
{
	struct directory *d = NULL;
	pthread_mutex_lock(&s->lock);
	if (s->from < s->to)
		d = oldest ? s->list[s->from++] : s->list[--s->to];
	pthread_mutex_unlock(&s->lock);
	return d;
}

static struct directory *
directory_of(struct unit *u, struct directory *parent, const char *name, size_t length)
{
	struct directory *d = far_memory(sizeof *d);
	size_t above = parent ? strlen(parent->path) : 0;
	d->unit = u;
	d->parent = parent;
	d->path = far_memory(above + 1 + length + 1);
	if (above) {
		memcpy(d->path, parent->path, above);
		d->path[above++] = '/';
	}
	memcpy(d->path + above, name, length);
	return d;
}

static struct item *
new_item(struct directory *d, const char *name)
{
	if (d->count == d->room) {
		d->room = d->room ? 2 * d->room : 16;
		d->items = realloc(d->items, d->room * sizeof *d->items);
		if (!d->items)
			far_die(EX_OSERR, "out of memory");
	}
	struct item *i = &d->items[d->count];
	memset(i, 0, sizeof *i);
	i->length = strlen(name);
	i->name = far_memory(i->length + 1);
	memcpy(i->name, name, i->length);
	return i;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const struct item *)a)->name, ((const struct item *)b)->name);
}

static int
timed_stat(struct reader_thread *t, int at, const char *name, struct stat *st)
{
	if (t->stats++ % SAMPLE_EVERY)
		return fstatat(at, name, st, AT_SYMLINK_NOFOLLOW);
	uint64_t began = far_clock();
	int status = fstatat(at, name, st, AT_SYMLINK_NOFOLLOW);
	t->samples[t->stats / SAMPLE_EVERY % SAMPLES] = far_clock() - began;
	return status;
}

/* The fields of one name; 0, ENOENT when it went away, or another errno. */
static int
look(struct reader_thread *t, int at, const char *name, struct entry *e, struct buffer *fields)
{
	struct stat st;
	struct buffer target = { 0 };
	if (timed_stat(t, at, name, &st) != 0)
		return errno;
	entry_of_stat(e, &st);
	int error = e->type == 'l' ? entry_read_target(e, at, name, &target) : 0;
	if (!error)
		entry_put(fields, e);
	buffer_free(&target);
	e->target = (struct text){ (const unsigned char *)"", 0 };
	return error;
}

/* rsync's own directories of an interrupted copy hold files and no further ones. */
static void
remove_leftover(int at, const char *name)
{
	if (unlinkat(at, name, 0) == 0 || (errno != EISDIR && errno != EPERM))
		return;
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	for (struct dirent *one; dir && (one = readdir(dir));)
		unlinkat(fd, one->d_name, 0);
	if (dir)
		closedir(dir);
	unlinkat(at, name, AT_REMOVEDIR);
}

static const char *
path_in_unit(struct reader_thread *t, const struct directory *d, const char *name)
{
	t->path.length = 0;
	put_bytes(&t->path, d->path, strlen(d->path));
	if (t->path.length)
		put_byte(&t->path, '/');
	put_bytes(&t->path, name, strlen(name) + 1);
	if (t->path.failed)
		far_die(EX_OSERR, "out of memory");
	return (const char *)t->path.bytes;
}

static void
add_name(struct reader_thread *t, struct directory *d, int at, const char *name)
{
	struct entry e;
	if (strncmp(name, LEFTOVER, sizeof LEFTOVER - 1) == 0) {
		if (t->scan->clean)
			remove_leftover(at, name);
		scan_problem(d->unit, path_in_unit(t, d, name), 0, "leftover");
		return;
	}
	size_t from = d->fields.length;
	int error = look(t, at, name, &e, &d->fields);
	if (error && error != ENOENT)
		scan_problem(d->unit, path_in_unit(t, d, name), error, "stat");
	if (error || (t->scan->exclude_count
	              && scan_is_excluded(t->scan, path_in_unit(t, d, name), e.type == 'd'))) {
		d->fields.length = from;
		return;
	}
	struct item *i = new_item(d, name);
	d->count++;
	i->from = from;
	i->to = d->fields.length;
	if (e.type == 'd')
		i->below = directory_of(d->unit, d, i->name, i->length);
}

static void
read_names(struct reader_thread *t, struct directory *d, int fd)
{
	for (;;) {
		long n = syscall(SYS_getdents64, fd, t->names, sizeof t->names);
		if (n < 0)
			scan_problem(d->unit, d->path, errno, "read");
		if (n <= 0)
			break;
		for (long at = 0; at < n;) {
			struct dirent *one = (struct dirent *)(void *)(t->names + at); /* as getdents64(2) lays it out */
			if (strcmp(one->d_name, ".") != 0 && strcmp(one->d_name, "..") != 0)
				add_name(t, d, fd, one->d_name);
			at += one->d_reclen;
		}
	}
	if (d->fields.failed)
		far_die(EX_OSERR, "out of memory");
	if (d->count)
		qsort(d->items, d->count, sizeof *d->items, by_name);
}

static void
finish(struct unit *u)
{
	if (atomic_fetch_sub(&u->pending, 1) == 1) {
		scan_say(u);
		units_said++;
	}
}

static int
open_to_read(int at, const char *name)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(at, name, flags | O_NOATIME);
	return fd < 0 && errno == EPERM ? openat(at, name, flags) : fd; /* only its owner may say O_NOATIME */
}

static void
read_directory(struct reader_thread *t, struct directory *d)
{
	struct unit *u = d->unit;
	char *path = path_of(u->name, (struct text){ (const unsigned char *)d->path, strlen(d->path) });
	int at = path ? cursor_enter(&t->cursor, path, strlen(path)) : -1;
	int fd = at < 0 ? -1 : open_to_read(at, ".");
	free(path);
	if (fd < 0) {
		if (errno != ENOENT)
			scan_problem(u, d->path, errno, "open");
	} else {
		read_names(t, d, fd);
		close(fd);
	}
	for (size_t i = d->count; i-- > 0;) {
		if (d->items[i].below) {
			u->pending++;
			directories_left++;
			push(&t->stack, d->items[i].below);
		}
	}
	finish(u);
	directories_left--;
}

static void *
run(void *arg)
{
	struct reader_thread *t = arg;
	unsigned self = (unsigned)(t - threads);
	while (directories_left > 0) {
		struct directory *d = take(&t->stack, false);
		for (unsigned i = 1; !d && i < thread_count; i++)
			d = take(&threads[(self + i) % thread_count].stack, true);
		if (d)
			read_directory(t, d);
		else
			nanosleep(&(struct timespec){ 0, 200000 }, NULL);
	}
	return NULL;
}

static bool
is_wanted(const struct scan *s, const char *name, bool directory)
{
	for (size_t i = 0; i < s->not_unit_count; i++)
		if (fnmatch(s->not_units[i], name, FNM_PERIOD) == 0)
			return false;
	if (s->only_count == 0)
		return true;
	for (size_t i = 0; i < s->only_count; i++)
		if (strcmp(s->only[i], directory ? name : ".") == 0)
			return true;
	return false;
}

static struct unit *
unit_of(const struct scan *s, const char *name)
{
	struct unit *u = far_memory(sizeof *u);
	u->name = far_memory(strlen(name) + 1);
	strcpy(u->name, name);
	u->top = directory_of(u, NULL, "", 0);
	u->pending = 1;
	pthread_mutex_init(&u->lock, NULL);
	for (size_t i = 0; i < s->known_count; i++) {
		if (strcmp(s->known[i].name, name) == 0) {
			u->known = true;
			memcpy(u->digest, s->known[i].digest, DIGEST);
		}
	}
	return u;
}

/* The names at the top: directories are units, what else lies there is one together. */
static void
read_top(struct scan *s, struct reader_thread *t)
{
	struct entry e;
	struct unit *loose = unit_of(s, ".");
	int fd = open_to_read(s->root, ".");
	DIR *top = fd < 0 ? NULL : fdopendir(fd);
	if (!top || look(t, s->root, ".", &e, &loose->own) != 0)
		far_die(EX_NOINPUT, "%s: %s", s->options->root, strerror(errno));
	unsigned next = 0;
	errno = 0;
	for (struct dirent *one; (one = readdir(top)); errno = 0) {
		struct stat st;
		if (strcmp(one->d_name, ".") == 0 || strcmp(one->d_name, "..") == 0)
			continue;
		bool there = fstatat(fd, one->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0;
		bool directory = there && S_ISDIR(st.st_mode) && strncmp(one->d_name, LEFTOVER, sizeof LEFTOVER - 1) != 0;
		if (!there || !is_wanted(s, one->d_name, directory))
			continue;
		if (!directory) {
			add_name(t, loose->top, fd, one->d_name);
			continue;
		}
		struct unit *u = unit_of(s, one->d_name);
		entry_of_stat(&e, &st);
		entry_put(&u->own, &e);
		directories_left++;
		push(&threads[next++ % thread_count].stack, u->top);
	}
	if (errno)
		far_die(EX_IOERR, "%s: %s", s->options->root, strerror(errno));
	closedir(top);
	if (loose->top->count)
		qsort(loose->top->items, loose->top->count, sizeof *loose->top->items, by_name);
	if (s->only_count == 0 || is_wanted(s, ".", false))
		finish(loose);
}

static void
say_hello(const struct scan *s)
{
	struct buffer p = { 0 };
	struct stat st;
	struct timespec now;
	char boot[64] = "", word[24];
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, boot, sizeof boot - 1);
	if (fd >= 0)
		close(fd);
	boot[n > 0 ? strcspn(boot, "\n") : 0] = '\0';
	clock_gettime(CLOCK_REALTIME, &now);
	if (fstat(s->root, &st) != 0)
		far_die(EX_NOINPUT, "%s: %s", s->options->root, strerror(errno));
	put_number(&p, ENTRY_VERSION);
	put_text(&p, boot, strlen(boot));
	put_signed(&p, now.tv_sec);
	put_number(&p, (uint64_t)now.tv_nsec);
	put_number(&p, st.st_dev);
	put_number(&p, st.st_ino);
	const char *kind = far_file_system(s->root, word);
	put_text(&p, kind, strlen(kind));
	put_number(&p, (uint64_t)sysconf(_SC_PAGESIZE));
	out_frame(SCAN_HELLO, &p);
	buffer_free(&p);
}

static int
by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static uint64_t
median_stat(void)
{
	uint64_t *all = far_memory(thread_count * SAMPLES * sizeof *all);
	size_t n = 0;
	for (unsigned i = 0; i < thread_count; i++)
		for (size_t k = 0; k < SAMPLES; k++)
			if (threads[i].samples[k])
				all[n++] = threads[i].samples[k];
	qsort(all, n, sizeof *all, by_size);
	uint64_t median = n ? all[n / 2] : 0;
	free(all);
	return median;
}

int
far_scan(const struct far_options *o, bool clean)
{
	struct scan s = { .options = o, .clean = clean };
	s.root = open(o->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s.root < 0)
		far_die(EX_NOINPUT, "%s: %s", o->root, strerror(errno));
	scan_read_request(&s);
	say_hello(&s);
	out_flush();
	thread_count = far_threads(o, s.root);
	threads = far_memory(thread_count * sizeof *threads);
	for (unsigned i = 0; i < thread_count; i++) {
		threads[i].scan = &s;
		pthread_mutex_init(&threads[i].stack.lock, NULL);
		cursor_open(&threads[i].cursor, s.root, false);
	}
	read_top(&s, &threads[0]);
	unsigned started = 1;
	while (started < thread_count && pthread_create(&threads[started].id, NULL, run, &threads[started]) == 0)
		started++;
	run(&threads[0]);
	for (unsigned i = 1; i < started; i++)
		pthread_join(threads[i].id, NULL);
	struct buffer p = { 0 };
	put_number(&p, units_said);
	put_number(&p, median_stat());
	out_frame(SCAN_END, &p);
	out_flush();
	buffer_free(&p);
	return 0;
}
