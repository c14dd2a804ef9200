/* SPDX-License-Identifier: MIT */
/*
 * Dies of SIGBUS, because there is no page: `no-page CASE [FILE]`.
 *
 *   short    reads a file behind its end; the file was never longer
 *   empty    reads a memfd that nobody has made longer
 *   cut      reads a file behind its end; the file was cut while it was mapped
 *   full     writes into a hole of a file on a tmpfs of its own, which is full
 *   huge     writes a mapping of huge pages, of which there are none
 *   missing  reads memory that userfaultfd was to fill, and does not
 *   behind   the same of a memfd, behind its end
 *   grown    writes a memfd behind its end; ftruncate() made it longer before, and not long enough
 */
#include "truth.h"

#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#undef PAGE
#define PAGE page_size()

static void fail(const char *what)
{
	perror(what);
	_exit(3);
}

static volatile char *map(int fd, unsigned long bytes, int flags)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (at == MAP_FAILED)
		fail("mmap");
	return at;
}

static int file(off_t bytes)
{
	int fd = memfd_create("page", 0);

	if (fd < 0 || ftruncate(fd, bytes))
		fail("memfd");
	return fd;
}

static void fill_up(void)
{
	const char *folder = "/tmp";
	volatile char *at;
	int fd;

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		fail("unshare");
	if (mount("none", folder, "tmpfs", 0, "size=1M") || chdir(folder))
		fail("mount");
	fd = open("hole", O_CREAT | O_RDWR, 0600);
	if (fd < 0 || ftruncate(fd, 4 << 20))
		fail("open");
	at = map(fd, 4 << 20, MAP_SHARED);
	for (unsigned long i = 0; i < 4 << 20; i += PAGE)
		at[i] = 1;
}

static void miss(volatile char *at)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_SIGBUS };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	range.range.start = (unsigned long)at;
	range.range.len = 2 * PAGE;
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &range))
		fail("userfaultfd");
	(void)at[PAGE];
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	volatile char *at;
	int fd;

	if (!strcmp(what, "short")) {
		(void)map(file(100), 4 * PAGE, MAP_PRIVATE)[2 * PAGE + 8];
	} else if (!strcmp(what, "empty")) {
		(void)*map(file(0), PAGE, MAP_SHARED);
	} else if (!strcmp(what, "cut") || !strcmp(what, "grown")) {
		int cuts = what[0] == 'c';

		fd = file(cuts ? 2 * PAGE : 0);
		at = map(fd, 2 * PAGE, MAP_SHARED);
		if (cuts)
			at[PAGE] = 1;
		if (ftruncate(fd, PAGE))
			fail("ftruncate");
		at[PAGE] = 1;
	} else if (!strcmp(what, "full")) {
		fill_up();
	} else if (!strcmp(what, "huge")) {
		*map(-1, 2 << 20, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE) = 1;
	} else if (!strcmp(what, "missing")) {
		miss(map(-1, 2 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS));
	} else if (!strcmp(what, "behind")) {
		miss(map(file(PAGE), 2 * PAGE, MAP_SHARED));
	}
	return 3;
}
