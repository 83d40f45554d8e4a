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
#define TRIES   3

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
static _Atomic unsigned idle;
static pthread_mutex_t idle_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
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
directory_of(struct unit *u, struct directory *parent, size_t at, size_t name)
{
	struct directory *d = far_memory(sizeof *d);
	size_t above = parent ? parent->length : 0;
	*d = (struct directory){ .unit = u, .parent = parent, .at = at, .name = (uint32_t)name, .length = above + (above > 0) + name };
	return d;
}

void
scan_path(const struct directory *d, char *to)
{
	to[d->length] = '\0';
	for (; d->parent; d = d->parent) {
		memcpy(to + d->length - d->name, d->parent->bytes.bytes + d->at, d->name);
		if (d->parent->length)
			to[d->parent->length] = '/';
	}
}

static struct item *
new_item(struct directory *d)
{
	if (d->count == d->room) {
		d->room = d->room ? 2 * d->room : 16;
		d->items = realloc(d->items, d->room * sizeof *d->items);
		if (!d->items)
			far_die(EX_OSERR, "out of memory");
	}
	struct item *i = &d->items[d->count++];
	memset(i, 0, sizeof *i);
	return i;
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
	int error = EAGAIN;
	for (int i = 0; i < TRIES && error == EAGAIN; i++) {
		if (timed_stat(t, at, name, &st) != 0)
			return errno;
		entry_of_stat(e, &st);
		error = e->type == 'l' ? entry_read_target(e, at, name, &target) : 0;
	}
	if (!error)
		entry_put(fields, e);
	buffer_free(&target);
	e->target = (struct text){ (const unsigned char *)"", 0 };
	return error;
}

/* Its path, after some other one, until the thread asks for the next. */
static const char *
path_of_directory(struct reader_thread *t, const struct directory *d, const char *below)
{
	size_t above = strlen(below);
	t->path.length = 0;
	put_bytes(&t->path, below, above);
	if (above && d->length) {
		put_byte(&t->path, '/');
		above++;
	}
	if (t->path.capacity < above + d->length + 1) {
		unsigned char *more = realloc(t->path.bytes, 2 * (above + d->length + 1));
		if (!more)
			far_die(EX_OSERR, "out of memory");
		t->path.bytes = more;
		t->path.capacity = 2 * (above + d->length + 1);
	}
	scan_path(d, (char *)t->path.bytes + above);
	t->path.length = above + d->length + 1;
	return (const char *)t->path.bytes;
}

static const char *
path_in_unit(struct reader_thread *t, const struct directory *d, const char *name)
{
	path_of_directory(t, d, "");
	t->path.length--; /* the zero */
	if (d->length)
		put_byte(&t->path, '/');
	put_bytes(&t->path, name, strlen(name) + 1);
	if (t->path.failed)
		far_die(EX_OSERR, "out of memory");
	return (const char *)t->path.bytes;
}

static void
meet_leftover(struct reader_thread *t, struct directory *d, int at, const char *name)
{
	if (t->scan->quiet && leftover_say(d->unit, at, name))
		return;
	int error = t->scan->clean ? leftover_remove(at, name) : 0;
	scan_problem(d->unit, path_in_unit(t, d, name), error, "leftover");
}

static void
add_name(struct reader_thread *t, struct directory *d, int at, const char *name)
{
	struct entry e;
	if (leftover_is(name)) {
		meet_leftover(t, d, at, name);
		return;
	}
	size_t from = d->bytes.length, length = strlen(name);
	put_bytes(&d->bytes, name, length + 1);
	int error = look(t, at, name, &e, &d->bytes);
	if (!error && e.type == 'd' && strcmp(d->unit->name, ".") == 0)
		error = EAGAIN; /* it was none just now, and is a unit of its own */
	if (error && error != ENOENT)
		scan_problem(d->unit, path_in_unit(t, d, name), error, "stat");
	if (error || (t->scan->exclude_count
	              && scan_is_excluded(t->scan, path_in_unit(t, d, name), e.type == 'd'))) {
		d->bytes.length = from;
		return;
	}
	struct item *i = new_item(d);
	i->at = from;
	i->name = (uint32_t)length;
	i->fields = (uint32_t)(d->bytes.length - from - length - 1);
	if (e.type == 'd')
		i->below = directory_of(d->unit, d, from, length);
}

/* A name that is removed and made again while its directory is read may be read twice; the later one counts. */
static void
drop_doubles(struct directory *d)
{
	size_t kept = 0;
	for (size_t i = 0; i < d->count; i++) {
		const struct item *next = i + 1 < d->count ? &d->items[i + 1] : NULL;
		if (!next || strcmp(name_of(d, &d->items[i]), name_of(d, next)) != 0) {
			d->items[kept++] = d->items[i];
		} else if (d->items[i].below) {
			free(d->items[i].below);
		}
	}
	d->count = kept;
}

/* It stays until its unit is read whole: what it does not need goes back. */
static void
settle(struct directory *d)
{
	if (d->bytes.failed)
		far_die(EX_OSERR, "out of memory");
	scan_sort(d);
	drop_doubles(d);
	unsigned char *less = d->bytes.length ? realloc(d->bytes.bytes, d->bytes.length) : NULL;
	if (less) {
		d->bytes.bytes = less;
		d->bytes.capacity = d->bytes.length;
	}
}

static void
report(struct reader_thread *t, const struct directory *d, int error, const char *what)
{
	scan_problem(d->unit, path_of_directory(t, d, ""), error, what);
}

static void
read_names(struct reader_thread *t, struct directory *d, int fd)
{
	for (;;) {
		long n = syscall(SYS_getdents64, fd, t->names, sizeof t->names);
		if (n < 0)
			report(t, d, errno, "read");
		if (n <= 0)
			break;
		for (long at = 0; at < n;) {
			struct dirent *one = (struct dirent *)(void *)(t->names + at); /* as getdents64(2) lays it out */
			if (strcmp(one->d_name, ".") != 0 && strcmp(one->d_name, "..") != 0)
				add_name(t, d, fd, one->d_name);
			at += one->d_reclen;
		}
	}
	settle(d);
}

static void
finish(const struct scan *s, struct unit *u)
{
	if (atomic_fetch_sub(&u->pending, 1) != 1)
		return;
	if (s->quiet) {
		scan_free(u);
		return;
	}
	scan_say(u);
	units_said++;
}

static int
open_to_read(int at, const char *name)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(at, name, flags | O_NOATIME);
	return fd < 0 && errno == EPERM ? openat(at, name, flags) : fd; /* only its owner may say O_NOATIME */
}

static void
wake(bool all)
{
	pthread_mutex_lock(&idle_lock);
	if (all)
		pthread_cond_broadcast(&work);
	else
		pthread_cond_signal(&work);
	pthread_mutex_unlock(&idle_lock);
}

static void
read_directory(struct reader_thread *t, struct directory *d)
{
	struct unit *u = d->unit;
	const char *path = path_of_directory(t, d, strcmp(u->name, ".") == 0 ? "" : u->name);
	int at = cursor_enter(&t->cursor, path, strlen(path));
	int fd = at < 0 ? -1 : open_to_read(at, ".");
	if (fd < 0) {
		if (errno != ENOENT)
			report(t, d, errno, "open");
	} else {
		read_names(t, d, fd);
		close(fd);
	}
	for (size_t i = d->count; i-- > 0;) {
		if (d->items[i].below) {
			u->pending++;
			directories_left++;
			push(&t->stack, d->items[i].below);
			if (idle > 0)
				wake(false);
		}
	}
	finish(t->scan, u);
	if (atomic_fetch_sub(&directories_left, 1) == 1)
		wake(true);
}

static struct directory *
take_any(unsigned self)
{
	struct directory *d = take(&threads[self].stack, false);
	for (unsigned i = 1; !d && i < thread_count; i++)
		d = take(&threads[(self + i) % thread_count].stack, true);
	return d;
}

/* Who pushes after `idle` has grown wakes us; what was pushed before, we find. */
static struct directory *
wait_for_work(unsigned self)
{
	pthread_mutex_lock(&idle_lock);
	idle++;
	struct directory *d = take_any(self);
	while (!d && directories_left > 0) {
		pthread_cond_wait(&work, &idle_lock);
		d = take_any(self);
	}
	idle--;
	pthread_mutex_unlock(&idle_lock);
	return d;
}

static void *
run(void *arg)
{
	struct reader_thread *t = arg;
	unsigned self = (unsigned)(t - threads);
	while (directories_left > 0) {
		struct directory *d = take_any(self);
		if (!d)
			d = wait_for_work(self);
		if (d)
			read_directory(t, d);
	}
	return NULL;
}

static bool
is_unit(const struct scan *s, const char *name)
{
	for (size_t i = 0; i < s->not_unit_count; i++)
		if (fnmatch(s->not_units[i], name, FNM_PERIOD) == 0)
			return false;
	return true;
}

static struct unit *
unit_of(const struct scan *s, const char *name)
{
	struct unit *u = far_memory(sizeof *u);
	u->name = far_memory(strlen(name) + 1);
	strcpy(u->name, name);
	u->top = directory_of(u, NULL, 0, 0);
	u->pending = 1;
	pthread_mutex_init(&u->lock, NULL);
	const unsigned char *digest = scan_known_digest(s, name);
	u->known = digest != NULL;
	if (digest)
		memcpy(u->digest, digest, DIGEST);
	return u;
}

/* One that cannot be looked at may be a home: it is one of which nothing is known but that. */
static void
add_unseen(const struct scan *s, const char *name, int error)
{
	if (error == ENOENT || !scan_is_asked_for(s, name))
		return;
	struct unit *u = unit_of(s, name);
	scan_problem(u, "", error, "stat");
	finish(s, u);
}

static void
add_unit(const struct scan *s, const char *name, const struct stat *st)
{
	static unsigned next;
	struct entry e;
	if (!scan_is_asked_for(s, name))
		return;
	struct unit *u = unit_of(s, name);
	entry_of_stat(&e, st);
	entry_put(&u->own, &e);
	directories_left++;
	push(&threads[next++ % thread_count].stack, u->top);
}

/* The names at the top: directories are units, what else lies there is one together. */
static void
read_top(struct scan *s, struct reader_thread *t)
{
	struct entry e;
	struct stat st;
	struct unit *loose = unit_of(s, ".");
	int fd = open_to_read(s->root, ".");
	DIR *top = fd < 0 ? NULL : fdopendir(fd);
	if (!top || look(t, s->root, ".", &e, &loose->own) != 0)
		far_die(EX_NOINPUT, "%s: %s", s->options->root, strerror(errno));
	errno = 0;
	for (struct dirent *one; (one = readdir(top)); errno = 0) {
		const char *name = one->d_name;
		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || !is_unit(s, name))
			continue;
		if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
			add_unseen(s, name, errno);
		else if (S_ISDIR(st.st_mode) && !leftover_is(name))
			add_unit(s, name, &st);
		else if (scan_is_asked_for(s, "."))
			add_name(t, loose->top, fd, name);
	}
	if (errno)
		far_die(EX_IOERR, "%s: %s", s->options->root, strerror(errno));
	closedir(top);
	settle(loose->top);
	if (scan_is_asked_for(s, "."))
		finish(s, loose);
	else
		scan_free(loose);
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

static void
say_end(void)
{
	struct buffer p = { 0 };
	put_number(&p, units_said);
	put_number(&p, median_stat());
	out_frame(SCAN_END, &p);
	out_flush();
	buffer_free(&p);
}

int
far_scan(const struct far_options *o, bool clean)
{
	struct scan s = { .options = o, .clean = clean, .quiet = clean && o->keep_parts };
	s.root = open(o->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s.root < 0)
		far_die(EX_NOINPUT, "%s: %s", o->root, strerror(errno));
	scan_read_request(&s);
	if (!s.quiet)
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
	while (started < thread_count && far_thread(&threads[started].id, run, &threads[started]))
		started++;
	run(&threads[0]);
	for (unsigned i = 1; i < started; i++)
		pthread_join(threads[i].id, NULL);
	if (s.quiet)
		out_flush();
	else
		say_end();
	for (unsigned i = 0; i < thread_count; i++) {
		cursor_close(&threads[i].cursor);
		buffer_free(&threads[i].path);
		free(threads[i].stack.list);
	}
	free(threads);
	scan_free_request(&s);
	close(s.root);
	return 0;
}
