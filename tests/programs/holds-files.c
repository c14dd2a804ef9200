/* SPDX-License-Identifier: MIT */
/*
 * Maps code of many files, each in a mount of its own, and waits until its input ends. Nobody else sees them.
 *
 * Arguments: a folder, the user that it becomes, how many mounts there are, of how many of them code is mapped, and how many folders of
 * long names they are in.
 */
#include "truth.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>

static void go_down(int folders)
{
	char name[251];

	memset(name, 'd', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	for (int i = 0; i < folders; i++)
		if (mkdir(name, 0755) || chdir(name))
			_exit(2);
}

static void map_file(const char *name, int is_mapped)
{
	int file = open(name, O_RDWR | O_CREAT, 0755);

	if (file < 0 || ftruncate(file, PAGE) || close(file) || mount(name, name, NULL, MS_BIND, NULL))
		_exit(2);
	if (!is_mapped)
		return;
	file = open(name, O_RDONLY);
	if (file < 0 || mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0) == MAP_FAILED || close(file))
		_exit(2);
}

int main(int argc, char **argv)
{
	char name[16];
	int mounts, mapped;

	if (argc < 6 || unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return 2;
	if (mount("tmpfs", argv[1], "tmpfs", 0, NULL) || chdir(argv[1]))
		return 2;
	mounts = atoi(argv[3]);
	mapped = atoi(argv[4]);
	go_down(atoi(argv[5]));
	for (int i = 0; i < mounts; i++) {
		snprintf(name, sizeof(name), "%d", i);
		map_file(name, i < mapped);
	}
	if (setgid(atoi(argv[2])) || setuid(atoi(argv[2])))
		return 2;
	puts("ready");
	fflush(stdout);
	while (read(0, name, sizeof(name)) > 0)
		;
	return 0;
}
