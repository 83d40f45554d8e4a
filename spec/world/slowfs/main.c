/*
 * main.c - slowfs: shows a directory a second time, with every metadata call taking as long as on a file server.
 *
 *     slowfs [-d MICROSECONDS] [-t THREADS] [-c SECONDS] [-n PID] [-p] DIRECTORY MOUNTPOINT
 *
 * What a file system is asked about names and inodes takes the delay (1000) longer; reading and writing contents does
 * not.  Calls wait next to each other, up to so many (128), as they do on NFS: only who asks one at a time is slow.
 * Names and attributes are cached for so many seconds (0, not at all).  -n mounts where that process sees it.
 * Keeps what the directory can keep: links, times in ns, owners, xattrs and ACLs, holes, special files.  Root only.
 *
 * Prints "mounted" once it is, and ends when it is unmounted.  The attribute trusted.slowfs.calls of its root is how
 * many calls were delayed until now.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "slowfs.h"

struct timespec delay = { .tv_nsec = 1000000 };
atomic_ullong calls;

static void
die(const char *what)
{
	perror(what);
	exit(71);
}

static int descriptors;	/* our /proc/self/fd, which another mount namespace may not have */

/* Once in each thread: a umask and a working directory of its own, for path_of. */
static void
prepare(void)
{
	static _Thread_local bool prepared;

	if (prepared)
		return;
	prctl(PR_SET_TIMERSLACK, 1);
	if (unshare(CLONE_FS) != 0 || fchdir(descriptors) != 0)
		die("slowfs");
	prepared = true;
}

void
path_of(char path[static PATH], fuse_ino_t number)
{
	prepare();
	snprintf(path, PATH, "%d", fd_of(number));
}

void
wait_as_a_server(void)
{
	struct timespec left = delay;

	prepare();
	calls++;
	while ((left.tv_sec != 0 || left.tv_nsec != 0) && nanosleep(&left, &left) != 0)
		;
}

static void
slow_init(void *data, struct fuse_conn_info *conn)
{
	(void)data;
	conn->want |= conn->capable & (FUSE_CAP_DONT_MASK | FUSE_CAP_PARALLEL_DIROPS);
	conn->max_background = 512;
	conn->congestion_threshold = 512;
	puts("mounted");
	fflush(stdout);
}

static const struct fuse_lowlevel_ops operations = {
	.init = slow_init, .lookup = slow_lookup, .forget = slow_forget, .forget_multi = slow_forget_multi,
	.getattr = slow_getattr, .setattr = slow_setattr, .readlink = slow_readlink, .mknod = slow_mknod, .mkdir = slow_mkdir,
	.unlink = slow_unlink, .rmdir = slow_rmdir, .symlink = slow_symlink, .rename = slow_rename, .link = slow_link,
	.open = slow_open, .create = slow_create, .read = slow_read, .write_buf = slow_write, .release = slow_release,
	.fsync = slow_fsync, .fallocate = slow_fallocate, .lseek = slow_lseek, .opendir = slow_opendir, .readdir = slow_readdir,
	.releasedir = slow_releasedir, .statfs = slow_statfs, .getxattr = slow_getxattr, .listxattr = slow_listxattr,
	.setxattr = slow_setxattr, .removexattr = slow_removexattr
};

bool poor;

static int
serve(const char *mountpoint, unsigned int threads)
{
	static const char mount_options[] = "-oallow_other,default_permissions,dev,suid,fsname=slowfs";
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	struct fuse_session *session;
	int result;

	if (config == NULL || fuse_opt_add_arg(&args, "slowfs") != 0 || fuse_opt_add_arg(&args, mount_options) != 0)
		die("slowfs");
	session = fuse_session_new(&args, &operations, sizeof operations, NULL);
	fuse_opt_free_args(&args);
	if (session == NULL || fuse_session_mount(session, mountpoint) != 0)
		return 71;	/* libfuse said why */
	fuse_loop_cfg_set_max_threads(config, threads);
	fuse_loop_cfg_set_idle_threads(config, threads);
	result = fuse_session_loop_mt(session, config);
	fuse_loop_cfg_destroy(config);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	return result == 0 ? 0 : 71;
}

/* Mounts are made where that process sees them: in its namespace, and from its root, which may be below the namespace's. */
static void
enter(const char *pid)
{
	char path[64];
	int fd, top;

	snprintf(path, sizeof path, "/proc/%s/root", pid);
	top = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0)
		die(path);
	snprintf(path, sizeof path, "/proc/%s/ns/mnt", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNS) != 0)
		die(path);
	if (fchdir(top) != 0 || chroot(".") != 0 || chdir("/") != 0)
		die("/");
	close(fd);
	close(top);
}

int
main(int argc, char *argv[])
{
	struct rlimit files;
	unsigned int threads = 128;
	long microseconds;
	struct stat st;
	int option;

	descriptors = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (descriptors < 0)
		die("/proc/self/fd");
	while ((option = getopt(argc, argv, "d:t:c:n:p")) >= 0) {
		switch (option) {
		case 'd':
			microseconds = atol(optarg);
			delay = (struct timespec){ microseconds / 1000000, microseconds % 1000000 * 1000 };
			break;
		case 't': threads = (unsigned int)atoi(optarg); break;
		case 'c': cached = atof(optarg); break;
		case 'n': enter(optarg); break;
		case 'p': poor = true; break;
		default: return 64;
		}
	}
	if (argc - optind != 2) {
		fputs("usage: slowfs [-d MICROSECONDS] [-t THREADS] [-c SECONDS] [-n PID] [-p] DIRECTORY MOUNTPOINT\n", stderr);
		return 64;
	}
	files.rlim_cur = files.rlim_max = 1 << 20;	/* the kernel forgets inodes when it likes to */
	setrlimit(RLIMIT_NOFILE, &files);
	root.fd = open(argv[optind], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root.fd < 0 || fstat(root.fd, &st) != 0)
		die(argv[optind]);
	root.dev = st.st_dev;
	root.ino = st.st_ino;
	return serve(argv[optind + 1], threads);
}
