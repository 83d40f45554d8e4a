/*
 * fuzz/manifest.c - libFuzzer target for src/manifest*.c: streams of scans, results and proofs, and rows of a manifest's file.
 * No bytes crash it or make it write what it would not believe itself, and nothing is proven that was not answered by both ends.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -iquote src spec/fuzz/manifest.c \
 *         src/manifest*.c src/entry.c src/frame.c src/bytes.c src/stream.c -luv -o build/fuzz-manifest
 *     mkdir -p build/corpus && build/fuzz-manifest -max_total_time=60 -max_len=4096 build/corpus
 *
 * The first byte says what the others are, and to whom they are said.
 */
#define XXH_INLINE_ALL
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "manifest_work.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/dev/shm/fuzz-manifest.XXXXXX";
static int directory = -1;
static struct buffer agreed, changed;	/* manifests: both sides are the same; the source is another, and all was proven */

static void
check(int good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

/* A descriptor that reads these bytes. */
static int
input_of(const void *bytes, size_t length)
{
	int fd = memfd_create("input", MFD_CLOEXEC);
	check(fd >= 0 && write_all(fd, bytes, length) && lseek(fd, 0, SEEK_SET) == 0, "there is memory");
	return fd;
}

static void
write_manifest(const void *bytes, size_t length)
{
	int fd = openat(directory, "home.manifest", O_WRONLY | O_CREAT | O_TRUNC, 0600);
	check(fd >= 0 && write_all(fd, bytes, length), "there is room");
	close(fd);
}

static void
read_manifest(struct buffer *b)
{
	unsigned char bytes[4096];
	int fd = openat(directory, "home.manifest", O_RDONLY);
	ssize_t n;
	check(fd >= 0, "a manifest is there");
	while ((n = read(fd, bytes, sizeof bytes)) > 0)
		put_bytes(b, bytes, (size_t)n);
	close(fd);
}

static void
scan(enum manifest_side side, const void *bytes, size_t length)
{
	struct manifest_scan s = { .directory = strdup(folder), .side = side };
	s.sink.fd = input_of(bytes, length);
	manifest_scan_run(&s.sink);
	close(s.sink.fd);
	manifest_scan_release(&s.sink);
}

static uint64_t
proven(void)
{
	struct manifest_compare c = { .directory = strdup(folder), .unit = strdup("home"), .unit_length = 4 };
	manifest_compare_run(&c.job);
	check(!c.job.failure.code || strcmp(c.job.failure.code, "ENOENT") == 0, "a manifest can be read to its end");
	check(c.entries == c.equal + c.missing + c.different && c.proven <= c.equal, "a comparison adds up");
	uint64_t n = c.proven;
	manifest_compare_release(&c.job);
	return n;
}

/* Whatever came: what was written is whole. */
static void
check_all(void)
{
	struct manifest_units u = { .directory = strdup(folder) };
	manifest_units_run(&u.job);
	check(!u.job.failure.code, "manifests can be listed");
	for (size_t i = 0; i < u.count; i++)
		check(!u.list[i].corrupt, "what is written is believed");
	manifest_units_release(&u.job);
}

static void
forget_all(void)
{
	struct manifest_forget f = { .directory = strdup(folder), .sides = { true, true } };
	manifest_forget_run(&f.job);
	manifest_forget_release(&f.job);
}

static struct manifest_work *
work_of(bool proof, unsigned flags)
{
	struct manifest_work w = {
		.path = strdup(folder), .units = calloc(1, sizeof *w.units), .lengths = calloc(1, sizeof *w.lengths), .unit_count = 1,
		.deletions = flags & 1, .overwrite = flags & 2, .proof = proof, .most_entries = flags & 4 ? 2 : 1000, .most_bytes = 1 << 30,
	};
	w.units[0] = strdup("home");
	w.lengths[0] = 4;
	return manifest_work_new(&w);
}

static struct manifest_shard *
next_of(struct manifest_work *w)
{
	struct manifest_next n = { .work = w };
	atomic_fetch_add(&w->references, 1);
	manifest_next_run(&n.job);
	struct manifest_shard *s = n.shard;
	n.shard = NULL;
	manifest_next_release(&n.job);
	return s;
}

/* Results of a shard, which it keeps; how many were of something that was done. */
static uint64_t
answer(struct manifest_work *w, struct manifest_shard *shard, enum manifest_side side, const void *bytes, size_t length)
{
	struct manifest_results r = { .work = w, .shard = shard, .side = side };
	atomic_fetch_add(&w->references, 1);
	atomic_fetch_add(&shard->references, 1);
	r.sink.fd = input_of(bytes, length);
	manifest_results_run(&r.sink);
	close(r.sink.fd);
	uint64_t done = r.done;
	manifest_results_release(&r.sink);
	return done;
}

static void
settle(struct manifest_work *w)
{
	struct manifest_settle s = { .work = w };
	atomic_fetch_add(&w->references, 1);
	manifest_settle_run(&s.job);
	check(!s.job.failure.code, "what was put by can be settled");
	manifest_settle_release(&s.job);
}

/* What there is at first: two streams that are alike but for inodes, then one with other bytes. */

struct name {
	const char *path;
	char type;
	unsigned inode, links;
};
static const struct name names[] = {
	{ "", 'd', 1, 3 }, { "a", 'f', 2, 3 }, { "b", 'f', 2, 3 }, { "d", 'd', 3, 2 }, { "d/x", 'f', 4, 1 }, { "d/y", 'f', 2, 3 },
	{ "l", 'l', 5, 1 }, { "p", 'p', 6, 1 }, { "z", 'f', 7, 1 },
};
#define NAMES (sizeof names / sizeof *names)
#define LINKED 3	/* of one inode */

static struct entry
entry_of(const struct name *n, unsigned version)
{
	struct entry e = { .type = n->type, .mode = 0755, .size = n->type == 'f' ? 5 + version : 0, .modified = { 1000, 0 },
		.changed = { 2000 + version, 0 }, .inode = n->inode, .device = 7, .links = n->links };
	e.target = (struct text){ (const unsigned char *)"target", 6 };
	return e;
}

static void
first_scan(enum manifest_side side, unsigned version, size_t count)
{
	struct buffer out = { 0 }, p = { 0 };
	struct unit_counts counts = { 0 };
	put_number(&p, ENTRY_VERSION);
	put_text(&p, "boot", 4);
	put_signed(&p, 5000);
	for (int i = 0; i < 3; i++)
		put_number(&p, 0);
	put_text(&p, "ext4", 4);
	put_number(&p, 4096);
	put_frame(&out, SCAN_HELLO, &p);
	p.length = 0;
	put_text(&p, "home", 4);
	put_frame(&out, SCAN_UNIT, &p);
	for (size_t i = 0; i < count; i++) {
		struct entry e = entry_of(&names[i], version);
		p.length = 0;
		put_number(&p, 0);
		put_text(&p, names[i].path, strlen(names[i].path));
		entry_put(&p, &e);
		put_frame(&out, SCAN_ENTRY, &p);
	}
	p.length = 0;
	put_text(&p, "digest", 6);
	put_number(&p, 0);
	unit_counts_put(&p, &counts);
	put_number(&p, 0);
	put_frame(&out, SCAN_UNIT_END, &p);
	p.length = 0;
	put_number(&p, 1);
	put_number(&p, 0);
	put_frame(&out, SCAN_END, &p);
	scan(side, out.bytes, out.length);
	buffer_free(&out);
	buffer_free(&p);
}

static void
prove_all(void)
{
	static const unsigned char digest[ENTRY_ATTRIBUTES], hash[ENTRY_HASH] = "hash";
	struct manifest_work *w = work_of(true, 0);
	struct manifest_shard *s = next_of(w);
	struct buffer out = { 0 }, p = { 0 };
	check(s && s->count, "there is something to prove");
	for (size_t i = 0; i < s->count; i++) {
		struct reader r = reader_of(s->bytes.bytes + s->ops[i].at, s->ops[i].length);
		struct text path = get_text(&r);
		const struct name *n = names;
		while (strlen(n->path) != path.length || memcmp(n->path, path.bytes, path.length) != 0)
			n++;
		struct entry e = entry_of(n, 0);
		p.length = 0;
		put_number(&p, i);
		put_number(&p, 0);
		put_number(&p, 0);
		entry_put(&p, &e);
		put_bytes(&p, digest, sizeof digest);
		put_bytes(&p, hash, sizeof hash);
		put_frame(&out, PROOF, &p);
	}
	for (int side = 0; side < SIDES; side++)
		answer(w, s, side, out.bytes, out.length);
	settle(w);
	manifest_shard_release(s);
	manifest_work_release(w);
	buffer_free(&out);
	buffer_free(&p);
}

static void
remove_folder(void)
{
	forget_all();
	unlinkat(directory, ".lock", 0);
	rmdir(folder);
}

static void
begin(void)
{
	check(mkdtemp(folder) != NULL, "there is a folder");
	directory = open(folder, O_RDONLY | O_DIRECTORY);
	atexit(remove_folder);
	first_scan(SIDE_SOURCE, 0, NAMES);
	first_scan(SIDE_TARGET, 0, NAMES);
	read_manifest(&agreed);
	check(proven() == 0, "nothing is proven by scans");
	prove_all();
	check(proven() == NAMES, "all is proven by both ends");
	first_scan(SIDE_SOURCE, 1, NAMES - 1);
	read_manifest(&changed);
	check(proven() == 0, "what changed is not proven");
}

static void
fuzz_scan(unsigned char how, const uint8_t *data, size_t size)
{
	const struct buffer *from = how & 16 ? &agreed : &changed;
	write_manifest(from->bytes, from->length);
	if (how & 64) { /* what a scan begins with is always the same */
		struct buffer all = { 0 };
		put_bytes(&all, "H\x11\1\4boot\x90\x4e\0\0\0\4ext4\0" "U\5\4home", 26);
		put_bytes(&all, data, size);
		scan(how >> 5 & 1, all.bytes, all.length);
		buffer_free(&all);
	} else {
		scan(how >> 5 & 1, data, size);
	}
	check(proven() == 0, "nothing is proven by a scan");
}

static void
fuzz_results(unsigned char how, const uint8_t *data, size_t size)
{
	struct manifest_shard *s;
	uint64_t done = 0;
	write_manifest(changed.bytes, changed.length);
	struct manifest_work *w = work_of(false, how >> 4);
	for (unsigned i = 0; (s = next_of(w)); i++) {
		done += answer(w, s, SIDE_SOURCE, data, size);
		manifest_shard_release(s);
	}
	settle(w);
	manifest_work_release(w);
	check(proven() <= (done ? done + LINKED - 1 : 0), "nothing is proven that was not done");
}

static void
fuzz_proof(unsigned char how, const uint8_t *data, size_t size)
{
	write_manifest(agreed.bytes, agreed.length);
	struct manifest_work *w = work_of(true, 0);
	struct manifest_shard *s = next_of(w);
	answer(w, s, how >> 4 & 1, data, size);
	settle(w);
	check(proven() == 0, "one end proves nothing");
	uint64_t done = answer(w, s, !(how >> 4 & 1), data, size);
	settle(w);
	check(proven() <= (done ? done + LINKED - 1 : 0), "nothing is proven that was not answered");
	manifest_shard_release(s);
	manifest_work_release(w);
}

/* Rows as they come, in a file that is whole. */
static void
fuzz_file(unsigned char how, const uint8_t *data, size_t size)
{
	struct buffer out = { 0 };
	put_bytes(&out, "runbook\1u\5\4home", 15);
	put_bytes(&out, data, size);
	uint64_t trailer[3] = { size, out.length, 0 };
	put_bytes(&out, "s\x10\1\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0", 18);
	put_bytes(&out, trailer, 16);
	trailer[2] = XXH3_64bits(out.bytes, out.length);
	put_bytes(&out, &trailer[2], 8);
	write_manifest(out.bytes, out.length);
	buffer_free(&out);
	struct manifest_compare c = { .directory = strdup(folder), .unit = strdup("home"), .unit_length = 4 };
	manifest_compare_run(&c.job);
	manifest_compare_release(&c.job);
	for (int proof = 0; proof < 2; proof++) {
		struct manifest_work *w = work_of(proof, how >> 4);
		for (struct manifest_shard *s; (s = next_of(w));)
			manifest_shard_release(s);
		manifest_work_release(w);
	}
	first_scan(how >> 4 & 1, 0, NAMES);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (directory < 0)
		begin();
	if (size < 1)
		return 0;
	unsigned char how = data[0];
	switch (how & 3) {
	case 0: fuzz_scan(how, data + 1, size - 1); break;
	case 1: fuzz_results(how, data + 1, size - 1); break;
	case 2: fuzz_proof(how, data + 1, size - 1); break;
	case 3: fuzz_file(how, data + 1, size - 1); break;
	}
	if ((how & 3) != 3)
		check_all();
	forget_all();
	return 0;
}
