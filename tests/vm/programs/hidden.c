/* SPDX-License-Identifier: MIT */
/*
 * Dies in touch_here() in ways that hide its file: the name that it had leads to nothing, or to another file.
 *
 *   hidden [OPTION]... KIND
 *
 * KIND is what dies, when a line comes: `child`; `orphan`, a child that has lost its parent; `itself`; `thread`, whose first
 * thread has ended. Before that, `plugin FILE` loads FILE, to die in its plugin_touch(); `as NAME` gives the process a name;
 * `decoy FILE` puts FILE in the place of the program when the line comes; `core FOLDER` has a large core written there, which takes until the
 * input ends. `memfd`, `mount FOLDER`, `jail FOLDER` and `overlay FOLDER` execute a copy of the program, with the options after them: in
 * memory, in a mount that no other process sees, the same below a root of its own, and from an overlay.
 *
 * Says `ready`, and `dead` when what was to die is dead; ends with its input.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef TOUCH
#define TOUCH touch_here
#endif

__attribute__((noinline)) void TOUCH(void)
{
	*(volatile int *)0x18 = 1;
}

static void (*touch)(void) = TOUCH;
static int is_slow;

static void fail(const char *what)
{
	perror(what);
	exit(2);
}

/*
 * From now on this thread has what another process leaves it of its processor, which is next to nothing, until our input ends: a core takes that
 * long, however fast the machine is.
 */
static void slow_down(void)
{
	struct sched_param none = { 0 };
	struct pollfd input = { 0 };
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		fail("sched_setaffinity");
	if (fork() == 0) {
		while (!(input.revents & POLLHUP))
			poll(&input, 1, 0);
		_exit(0);
	}
	if (sched_setscheduler(0, SCHED_IDLE, &none))
		fail("sched_setscheduler");
}

static void *die_alone(void *argument)
{
	char path[64];
	FILE *stat;
	int state = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", getpid());
	while (state != 'Z') {
		stat = fopen(path, "r");
		if (!stat || fscanf(stat, "%*d (%*[^)]) %c", (char *)&state) != 1)
			exit(2);
		fclose(stat);
	}
	if (is_slow)
		slow_down();
	touch();
	return argument;
}

static void copy(int to)
{
	int from = open("/proc/self/exe", O_RDONLY);
	struct stat stat;

	if (from < 0 || to < 0 || fstat(from, &stat) || sendfile(to, from, NULL, (size_t)stat.st_size) != stat.st_size)
		fail("copy");
	close(from);
}

static void copy_to(const char *path)
{
	int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);

	copy(to);
	close(to);
}

static void hide(const char *folder)
{
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		fail("unshare");
	if (mount("none", folder, "tmpfs", 0, NULL))
		fail("mount");
}

int main(int argc, char **argv)
{
	const char *decoy = NULL, *kind = "";
	char path[512], self[512], line[16];
	int alive[2];

	(void)argc;
	for (argv++; *argv; argv++) {
		if (!strcmp(*argv, "plugin")) {
			void *plugin = dlopen(*++argv, RTLD_NOW);

			touch = plugin ? (void (*)(void))dlsym(plugin, "plugin_touch") : NULL;
			if (!touch)
				fail(dlerror());
		} else if (!strcmp(*argv, "as")) {
			prctl(PR_SET_NAME, *++argv);
		} else if (!strcmp(*argv, "decoy")) {
			decoy = *++argv;
		} else if (!strcmp(*argv, "core")) {
			struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
			size_t bytes = 64 << 20;
			char *memory = malloc(bytes);

			if (chdir(*++argv) || setrlimit(RLIMIT_CORE, &all) || !memory)
				fail("core");
			memset(memory, 1, bytes);
			is_slow = 1;
		} else if (!strcmp(*argv, "memfd")) {
			int file = memfd_create("hidden", MFD_CLOEXEC);

			copy(file);
			fexecve(file, argv, environ);
			fail("fexecve");
		} else if (!strcmp(*argv, "mount")) {
			hide(*++argv);
			snprintf(path, sizeof(path), "%s/hidden", *argv);
			copy_to(path);
			execv(path, argv);
			fail("exec");
		} else if (!strcmp(*argv, "jail")) {
			hide(*++argv);
			snprintf(path, sizeof(path), "%s/jail", *argv);
			mkdir(path, 0755);
			snprintf(path, sizeof(path), "%s/jail/hidden", *argv);
			copy_to(path);
			snprintf(path, sizeof(path), "%s/jail", *argv);
			if (chroot(path) || chdir("/"))
				fail("chroot");
			execv("/hidden", argv);
			fail("exec");
		} else if (!strcmp(*argv, "overlay")) {
			hide(*++argv);
			for (int i = 0; i < 4; i++) {
				snprintf(path, sizeof(path), "%s/%s", *argv, (const char *[]){ "l", "u", "w", "m" }[i]);
				mkdir(path, 0755);
			}
			snprintf(path, sizeof(path), "%s/l/hidden", *argv);
			copy_to(path);
			snprintf(path, sizeof(path), "lowerdir=%s/l,upperdir=%s/u,workdir=%s/w", *argv, *argv, *argv);
			snprintf(self, sizeof(self), "%s/m", *argv);
			if (mount("none", self, "overlay", 0, path))
				fail("overlay");
			snprintf(path, sizeof(path), "%s/m/hidden", *argv);
			execv(path, argv);
			fail("exec");
		} else {
			kind = *argv;
		}
	}
	puts("ready");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return 0;
	if (decoy) {
		int from = open(decoy, O_RDONLY), to;
		struct stat stat;

		self[readlink("/proc/self/exe", self, sizeof(self) - 1)] = 0;
		snprintf(path, sizeof(path), "%s.new", self);
		to = open(path, O_WRONLY | O_CREAT, 0755);
		if (from < 0 || fstat(from, &stat) || sendfile(to, from, NULL, (size_t)stat.st_size) != stat.st_size)
			fail("decoy");
		close(to);
		if (rename(path, self))
			fail("rename");
	}
	if (is_slow && !strcmp(kind, "itself"))
		slow_down();
	if (!strcmp(kind, "itself"))
		touch();
	if (!strcmp(kind, "thread")) {
		pthread_t thread;

		pthread_create(&thread, NULL, die_alone, NULL);
		pthread_exit(NULL);
	}
	if (pipe(alive))
		fail("pipe");
	if (fork() == 0) {
		if (!strcmp(kind, "orphan")) {
			int parent = getpid();

			if (fork())
				_exit(0);
			while (getppid() == parent)
				usleep(1000);
		}
		touch();
		_exit(3);
	}
	close(alive[1]);
	while (read(alive[0], line, 1) > 0)
		;
	wait(NULL);
	puts("dead");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		;
	return 0;
}
