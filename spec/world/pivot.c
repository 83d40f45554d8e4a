/*
 * pivot.c - runs a command in this mount namespace with another root, from inside a chroot, too.
 *
 *     pivot private COMMAND...    no mount shows anywhere else, whatever the namespace was copied from
 *     pivot FOLDER COMMAND...     FOLDER, a mount point, becomes the root of the namespace itself
 *
 * A chroot's root is no mount point of its namespace, so that the first cannot be said from there and a
 * container's runtime would take its guests to the machine's root: who enters a namespace gets its root.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

static void
check(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(71);
	}
}

/* Entering the namespace we are in puts us at its own root. */
static void
leave_chroot(void)
{
	int namespace = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);

	check(namespace, "/proc/self/ns/mnt");
	check(setns(namespace, CLONE_NEWNS), "setns");
	close(namespace);
}

static void
make_private(int back)
{
	leave_chroot();
	check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "mount --make-rprivate /");
	check(fchdir(back), "fchdir");
	check(chroot("."), "chroot");
}

static void
make_root(int folder)
{
	leave_chroot();
	check(fchdir(folder), "fchdir");
	check((int)syscall(SYS_pivot_root, ".", "."), "pivot_root");
	check(umount2(".", MNT_DETACH), "umount of the old root");	/* it lies on top of the new one */
	check(chdir("/"), "chdir");
}

int
main(int argc, char *argv[])
{
	int folder;

	if (argc < 3)
		return 64;
	if (strcmp(argv[1], "private") == 0) {
		folder = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
		check(folder, "/");
		make_private(folder);
	} else {
		folder = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
		check(folder, argv[1]);
		make_root(folder);
	}
	execvp(argv[2], argv + 2);
	perror(argv[2]);
	return 127;
}
