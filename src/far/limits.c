/* limits.c - what the file system below a directory can hold, found without writing to it. */
#include "far.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <sysexits.h>
#include <unistd.h>

/* linux/fs.h, which a libc need not have */
#define FLAGS_OF _IOR('f', 1, long)
#define CASEFOLD 0x40000000

/* linux/magic.h, and what their drivers keep of a name, an owner or a link */
enum { FOLDS = 1, UTF8_ONLY = 2, BARE = 4 };	/* BARE: no owners, modes, links, pipes */
static const struct {
	unsigned long magic;
	const char *name;
	int is;
	uint64_t size_max;
} odd[] = {
	{ 0x4d44, "vfat", FOLDS | BARE, UINT32_MAX }, { 0x2011bab0, "exfat", FOLDS | UTF8_ONLY | BARE, 0 },
	{ 0x7366746e, "ntfs3", UTF8_ONLY, 0 }, { 0xff534d42, "cifs", FOLDS | UTF8_ONLY, 0 }, { 0xfe534d42, "smb2", FOLDS | UTF8_ONLY, 0 },
	{ 0x482b, "hfsplus", FOLDS | UTF8_ONLY, 0 },
};

/* The name with the case of its letters changed; false when it has none. */
static bool
swap_case(char *to, const char *name)
{
	bool swapped = false;
	for (; *name; name++, to++) {
		*to = (char)(islower((unsigned char)*name) ? toupper((unsigned char)*name) : tolower((unsigned char)*name));
		swapped |= *to != *name;
	}
	*to = '\0';
	return swapped;
}

/* 1: two cases of a name are one; 0: they are not; -1: it does not say. */
static int
asked_by_name(int directory, const char *name)
{
	char other[NAME_MAX + 1];
	struct stat st, twin;
	if (strlen(name) > NAME_MAX || !swap_case(other, name) || fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return -1;
	if (fstatat(directory, other, &twin, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? 0 : -1;
	return twin.st_ino == st.st_ino && twin.st_dev == st.st_dev && (S_ISDIR(st.st_mode) || st.st_nlink == 1) ? 1 : -1;
}

static int
asked_by_names(int root)
{
	int answer = -1;
	DIR *list = fdopendir(dup(root));
	struct dirent *one;
	while (list && answer < 0 && (one = readdir(list)))
		answer = asked_by_name(root, one->d_name);
	if (list)
		closedir(list);
	return answer;
}

/* Its own name will do where it is of the same file system. */
static int
asked_by_its_name(int root)
{
	char link[32], path[4096];
	struct stat st, above;
	snprintf(link, sizeof link, "/proc/self/fd/%d", root);
	ssize_t length = readlink(link, path, sizeof path - 1);
	int parent = openat(root, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC), answer = -1;
	path[length < 0 ? 0 : length] = '\0';
	const char *slash = strrchr(path, '/');
	if (parent >= 0 && slash && fstat(root, &st) == 0 && fstat(parent, &above) == 0 && st.st_dev == above.st_dev)
		answer = asked_by_name(parent, slash + 1);
	if (parent >= 0)
		close(parent);
	return answer;
}

static bool
folds(int root, bool usually)
{
	int flags = 0, answer;
	if (ioctl(root, FLAGS_OF, &flags) == 0 && flags & CASEFOLD)
		return true;
	answer = asked_by_names(root);
	if (answer < 0)
		answer = asked_by_its_name(root);
	return answer < 0 ? usually : answer > 0;
}

static const char *
keeps(int root, const char *attribute)
{
	char value[1];
	if (fgetxattr(root, attribute, value, 0) >= 0 || errno == ENODATA)
		return "yes";
	return errno == EOPNOTSUPP ? "no" : "unknown";
}

/* The directory, or where it will be made. */
static int
open_above(const char *path)
{
	char *above = strdup(path), *slash;
	int root = above ? open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	while (root < 0 && errno == ENOENT && above && (slash = strrchr(above, '/'))) {
		slash[slash == above] = '\0';
		root = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (slash == above)
			break;
	}
	int error = errno;
	free(above);
	errno = error;
	return root;
}

int
far_limits(const struct far_options *o)
{
	struct statfs s;
	char text[24];
	int root = open_above(o->root), is = 0;
	uint64_t size_max = 0;
	if (root < 0 || fstatfs(root, &s) != 0)
		far_die(EX_NOINPUT, "%s: %s", o->root, strerror(errno));
	const char *name = far_file_system(root, text);
	for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
		if (odd[i].magic != ((unsigned long)s.f_type & 0xffffffffu))
			continue;
		name = odd[i].name;
		is = odd[i].is;
		size_max = odd[i].size_max;
	}
	if (strcmp(name, "ext4") == 0)	/* a file has at most 2^32 blocks */
		size_max = ((uint64_t)UINT32_MAX + 1) * (uint64_t)s.f_bsize - (uint64_t)s.f_bsize;
	printf("type %s\nname_max %ld\nsize_max %llu\n", name, (long)s.f_namelen, (unsigned long long)size_max);
	printf("folds %s\nutf8 %s\nbare %s\n", folds(root, is & FOLDS) ? "yes" : "no", is & UTF8_ONLY ? "yes" : "no", is & BARE ? "yes" : "no");
	printf("xattrs %s\nacls %s\n", keeps(root, "user.runbook"), keeps(root, "system.posix_acl_access"));
	close(root);
	return fflush(stdout) == 0 ? 0 : EX_IOERR;
}
