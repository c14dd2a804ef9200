/* SPDX-License-Identifier: MIT */
/*
 * Threads that end alone. argv[1]: `filter` seccomp ends it (SECCOMP_RET_KILL_THREAD); `main` the same for the main thread; `exits` it exits
 * with 31, the number of SIGSYS; `filter-exits` the same, with a filter that allows everything; `process` the filter ends the process
 * (SECCOMP_RET_KILL_PROCESS) from a thread; `killed` the process is ended by SIGSYS from itself, beside a filter. Checked by
 * tests/vm/own_account.rs.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "seccomp.h"

static const char *how;

static void *work(void *none)
{
	prctl(PR_SET_NAME, "sandboxed");
	truth_number("tid", syscall(SYS_gettid));
	if (!strcmp(how, "filter"))
		install_filter(SECCOMP_RET_KILL_THREAD);
	else if (!strcmp(how, "process"))
		install_filter(SECCOMP_RET_KILL_PROCESS);
	else if (strcmp(how, "exits"))
		install_filter(SECCOMP_RET_ALLOW);
	if (!strcmp(how, "killed"))
		kill(getpid(), SIGSYS);
	if (strstr(how, "exits"))
		syscall(SYS_exit, SIGSYS);
	syscall(SYS_getppid);
	return none;
}

static void *outlive(void *first)
{
	/* A thread that has ended without pthread_exit() is never joined. */
	while (!syscall(SYS_tgkill, getpid(), *(pid_t *)first, 0)) {
		char state[64] = "";
		char path[64];
		int fd;

		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", *(pid_t *)first);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			break;
		read(fd, state, sizeof(state) - 1);
		close(fd);
		if (strstr(state, ") Z"))
			break;
		usleep(1000);
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t me = getpid();
	pthread_t thread;

	how = argc > 1 ? argv[1] : "filter";
	if (!strcmp(how, "main")) {
		pthread_create(&thread, NULL, outlive, &me);
		how = "filter";
		work(NULL);
		return 1;
	}
	if (pthread_create(&thread, NULL, work, NULL))
		return 1;
	/* The kernel wakes whoever waits for the thread's number. */
	pthread_join(thread, NULL);
	return 0;
}
