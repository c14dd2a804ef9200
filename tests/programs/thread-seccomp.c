/* SPDX-License-Identifier: MIT */
/*
 * Threads that end alone. argv[1]: `filter` seccomp ends it (SECCOMP_RET_KILL_THREAD); `main` the same for the main thread; `exits` it exits
 * with 31, the number of SIGSYS; `filter-exits` the same, with a filter that allows everything; `process` the filter ends the process
 * (SECCOMP_RET_KILL_PROCESS) from a thread; `killed` the process is ended by SIGSYS from itself, beside a filter. Checked by
 * tests/vm/own_account.rs.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "truth.h"

static const char *how;

static void filter(unsigned int action)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, filter };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void *work(void *none)
{
	prctl(PR_SET_NAME, "sandboxed");
	truth_number("tid", syscall(SYS_gettid));
	if (!strcmp(how, "filter"))
		filter(SECCOMP_RET_KILL_THREAD);
	else if (!strcmp(how, "process"))
		filter(SECCOMP_RET_KILL_PROCESS);
	else if (strcmp(how, "exits"))
		filter(SECCOMP_RET_ALLOW);
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
