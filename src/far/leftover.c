/* leftover.c - what a copy left that was cut: found by its name, removed, or said when the next one can go on with it. */
#include "scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Ours are NUMBER.NUMBER, rsync's are directories of two names (lib/runbook/copier/rsync.lua). */
bool
leftover_is(const char *name)
{
	static const char digits[] = "0123456789abcdef";
	uint64_t id;
	if (strncmp(name, LEFTOVER, sizeof LEFTOVER - 1) != 0)
		return false;
	const char *rest = name + sizeof LEFTOVER - 1;
	size_t first = strspn(rest, digits), second = rest[first] == '.' ? strspn(rest + first + 1, digits) : 0;
	return (first && second && !rest[first + 1 + second]) || strcmp(rest, "stage") == 0 || strcmp(rest, "partial") == 0
		|| unfinished_name(name, &id);
}

/* rsync's own directories of an interrupted copy hold files and no further ones.  0 or errno. */
static int
remove_it(int at, const char *name)
{
	if (unlinkat(at, name, 0) == 0)
		return 0;
	if (errno != EISDIR)
		return errno;
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	for (struct dirent *one; dir && (one = readdir(dir));)
		unlinkat(fd, one->d_name, 0);
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
	return unlinkat(at, name, AT_REMOVEDIR) == 0 ? 0 : errno;
}

/* The directory may have got its time already, and nobody is to bring it again because of what was ours. */
int
leftover_remove(int at, const char *name)
{
	struct stat st;
	bool seen = fstat(at, &st) == 0;
	int error = remove_it(at, name);
	if (!error && seen)
		(void)!futimens(at, (struct timespec[2]){ { .tv_nsec = UTIME_OMIT }, st.st_mtim });
	return error;
}

bool
leftover_say(const struct unit *u, int at, const char *name)
{
	struct buffer p = { 0 };
	uint64_t id = 0;
	bool said = unfinished_name(name, &id);
	put_text(&p, u->name, strlen(u->name));
	put_number(&p, id);
	said = said && unfinished_say(&p, at, name);
	if (said)
		out_frame(UNFINISHED, &p);
	buffer_free(&p);
	return said;
}
