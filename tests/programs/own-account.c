/* SPDX-License-Identifier: MIT */
/*
 * Children that die of a signal, which the kernel has sent on its own account, or which looks like it and was sent by a process. It
 * prints what each record must hold (own.h).
 * Arguments: `limits` (a second of processor time each), `events`, `namespaces`, `cgroup FOLDER`.
 * Checked by tests/vm/own_account.rs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "children.h"
#include "own.h"

static void spin(void)
{
	for (volatile unsigned long count = 0;; count++)
		;
}

/* --- limits --- */

static int limited_file(void)
{
	struct rlimit limit = { 8192, 8192 };
	int fd = memfd_create("limited", 0);

	setrlimit(RLIMIT_FSIZE, &limit);
	return fd;
}

static void write_beyond(void)
{
	static char block[4096];
	int fd = limited_file();

	for (int i = 0; i < 4; i++) {
		if (write(fd, block, sizeof(block)) < 0)
			_exit(1);
	}
}

static void truncate_beyond(void)
{
	ftruncate(limited_file(), 100000);
}

static void allocate_beyond(void)
{
	posix_fallocate(limited_file(), 0, 100000);
}

static void kill_beside_limit(void)
{
	limited_file();
	kill(getpid(), SIGXFSZ);
}

static void raise_beside_limit(void)
{
	limited_file();
	raise(SIGXFSZ);
}

static void kill_without_limit(void)
{
	kill(getpid(), SIGXFSZ);
}

static void write_blocked(void)
{
	static char block[100];
	sigset_t set;
	int fd = limited_file();

	sigemptyset(&set);
	sigaddset(&set, SIGXFSZ);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (pwrite(fd, block, sizeof(block), 9000) != -1 || errno != EFBIG)
		_exit(1);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void use_up(rlim_t soft, rlim_t hard)
{
	struct rlimit limit = { soft, hard };

	setrlimit(RLIMIT_CPU, &limit);
	spin();
}

static void use_up_soft(void)
{
	use_up(1, 5);
}

static void use_up_hard(void)
{
	use_up(1, 1);
}

static void limit_time(void)
{
	struct rlimit limit = { 1000, 1000 };

	setrlimit(RLIMIT_CPU, &limit);
}

static void kill_by_xcpu(void)
{
	limit_time();
	kill(getpid(), SIGXCPU);
}

/* The code that the kernel would use. */
static void forge(int signal, int code)
{
	siginfo_t info = { .si_code = code };

	info.si_signo = signal;
	syscall(SYS_rt_sigqueueinfo, getpid(), signal, &info);
}

static void forge_xcpu(void)
{
	limit_time();
	forge(SIGXCPU, SI_KERNEL);
}

static void sleep_limited(void)
{
	limit_time();
	sleep_on();
}

/* A child that runs `die` and gets `signal` from us. */
static pid_t sent(void (*die)(void), int signal)
{
	pid_t pid = fork();

	if (!pid) {
		die();
		_exit(98);
	}
	kill(pid, signal);
	waitpid(pid, NULL, 0);
	return pid;
}

static void limits(void)
{
	pid_t me = getpid();

	told("write", child(write_beyond, SIGXFSZ), SIGXFSZ, 0, "file_size_limit", 8192, NONE);
	told("ftruncate", child(truncate_beyond, SIGXFSZ), SIGXFSZ, 0, "file_size_limit", 8192, NONE);
	told("fallocate", child(allocate_beyond, SIGXFSZ), SIGXFSZ, 0, "file_size_limit", 8192, NONE);
	told("blocked write", child(write_blocked, SIGXFSZ), SIGXFSZ, 0, "?file_size_limit", 8192, NONE);
	told("kill, limited", child(kill_beside_limit, SIGXFSZ), SIGXFSZ, SELF, "", NONE, NONE);
	told("raise, limited", child(raise_beside_limit, SIGXFSZ), SIGXFSZ, SELF, "", NONE, NONE);
	told("kill, unlimited", child(kill_without_limit, SIGXFSZ), SIGXFSZ, SELF, "", NONE, NONE);
	told("soft limit", child(use_up_soft, SIGXCPU), SIGXCPU, 0, "cpu_time_limit", 1, 1);
	told("hard limit", child(use_up_hard, SIGKILL), SIGKILL, 0, "cpu_time_limit", 1, 1);
	told("kill XCPU", child(kill_by_xcpu, SIGXCPU), SIGXCPU, SELF, "", NONE, NONE);
	told("forged XCPU", child(forge_xcpu, SIGXCPU), SIGXCPU, NONE, "", NONE, NONE);
	told("sent XCPU", sent(sleep_limited, SIGXCPU), SIGXCPU, me, "", NONE, NONE);
	told("sent KILL", sent(sleep_limited, SIGKILL), SIGKILL, me, "", NONE, NONE);
}

/* --- events --- */

static void write_pipe(void)
{
	int ends[2];

	if (pipe(ends))
		_exit(1);
	close(ends[0]);
	write(ends[1], "", 1);
}

static void write_socket(void)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		_exit(1);
	close(ends[0]);
	write(ends[1], "", 1);
}

static void kill_by_pipe(void)
{
	kill(getpid(), SIGPIPE);
}

static void ring_alarm(void)
{
	struct itimerval soon = { .it_value = { .tv_usec = 1000 } };

	setitimer(ITIMER_REAL, &soon, NULL);
	sleep_on();
}

static void ring_virtual(void)
{
	struct itimerval soon = { .it_value = { .tv_usec = 1000 } };

	setitimer(ITIMER_VIRTUAL, &soon, NULL);
	spin();
}

static void ring_profile(void)
{
	struct itimerval soon = { .it_value = { .tv_usec = 1000 } };

	setitimer(ITIMER_PROF, &soon, NULL);
	spin();
}

static void ring_timer(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct itimerspec soon = { .it_value = { .tv_nsec = 1000 * 1000 } };
	timer_t timer;

	timer_create(CLOCK_MONOTONIC, &event, &timer);
	timer_settime(timer, 0, &soon, NULL);
	sleep_on();
}

static void kill_by_alarm(void)
{
	kill(getpid(), SIGALRM);
}

static void forge_timer(void)
{
	forge(SIGUSR1, SI_TIMER);
}

static void forge_child(void)
{
	forge(SIGUSR1, CLD_EXITED);
}

static pid_t *shared; /* two pids that children of children tell */

static void clone_with(int signal)
{
	pid_t pid;

	shared[0] = 0;
	pid = syscall(SYS_clone, signal, NULL, NULL, NULL, NULL);
	if (!pid) {
		/* The signal may end the parent before it can tell the number. */
		while (!*(volatile pid_t *)shared)
			usleep(1000);
		_exit(0);
	}
	shared[0] = pid;
	sleep_on();
}

static void clone_usr1(void)
{
	clone_with(SIGUSR1);
}

static void clone_abort(void)
{
	clone_with(SIGABRT);
}

/* A grandchild that its parent's end kills. It is ours afterwards (PR_SET_CHILD_SUBREAPER). */
static void end_parent(int signal, int *status)
{
	int armed[2];
	pid_t parent;
	char byte;

	if (pipe(armed))
		exit(99);
	if (!(parent = fork())) {
		pid_t orphan = fork();

		if (!orphan) {
			prctl(PR_SET_PDEATHSIG, signal);
			if (write(armed[1], "", 1) != 1)
				_exit(99);
			sleep_on();
		}
		shared[0] = orphan;
		if (read(armed[0], &byte, 1) != 1)
			_exit(99);
		_exit(0);
	}
	shared[1] = parent;
	waitpid(parent, NULL, 0);
	waitpid(shared[0], status, 0);
	close(armed[0]);
	close(armed[1]);
}

/* A tracer that ends, or that kills what it traces and goes on: shared[0] is the tracee. */
static void trace(int kills)
{
	pid_t tracer, tracee;

	if (!(tracer = fork())) {
		if (!(tracee = fork()))
			sleep_on();
		shared[0] = tracee;
		if (ptrace(PTRACE_SEIZE, tracee, NULL, PTRACE_O_EXITKILL))
			_exit(99);
		if (kills) {
			kill(tracee, SIGKILL);
			waitpid(tracee, NULL, __WALL);
		}
		_exit(0);
	}
	shared[1] = tracer;
	waitpid(tracer, NULL, 0);
	if (!kills)
		waitpid(shared[0], NULL, 0);
}

static void events(void)
{
	int status;

	told("a pipe", child(write_pipe, SIGPIPE), SIGPIPE, 0, "broken_pipe", NONE, NONE);
	told("a socket", child(write_socket, SIGPIPE), SIGPIPE, 0, "broken_pipe", NONE, NONE);
	told("kill PIPE", child(kill_by_pipe, SIGPIPE), SIGPIPE, SELF, "", NONE, NONE);
	told("sent PIPE", sent(sleep_on, SIGPIPE), SIGPIPE, getpid(), "", NONE, NONE);
	told("ITIMER_REAL", child(ring_alarm, SIGALRM), SIGALRM, 0, "timer", NONE, NONE);
	told("ITIMER_VIRTUAL", child(ring_virtual, SIGVTALRM), SIGVTALRM, 0, "timer", NONE, NONE);
	told("ITIMER_PROF", child(ring_profile, SIGPROF), SIGPROF, 0, "timer", NONE, NONE);
	told("timer_create", child(ring_timer, SIGUSR1), SIGUSR1, 0, "timer", NONE, NONE);
	told("kill ALRM", child(kill_by_alarm, SIGALRM), SIGALRM, SELF, "", NONE, NONE);
	told("forged timer", child(forge_timer, SIGUSR1), SIGUSR1, SELF, "", NONE, NONE);
	told("forged child", child(forge_child, SIGUSR1), SIGUSR1, SELF, "", NONE, NONE);
	status = child(clone_usr1, SIGUSR1);
	told("exit signal", status, SIGUSR1, 0, "child_ended", NONE, shared[0]);
	status = child(clone_abort, SIGABRT);
	told("exit signal ABRT", status, SIGABRT, 0, "?child_ended", NONE, shared[0]);
	end_parent(SIGTERM, &status);
	told("parent's end", shared[0], SIGTERM, shared[1], "parent_ended", NONE, NONE);
	end_parent(SIGKILL, &status);
	told("parent's end, KILL", shared[0], SIGKILL, shared[1], "parent_ended", NONE, NONE);
	trace(0);
	told("tracer's end", shared[0], SIGKILL, 0, "tracer_ended", NONE, shared[1]);
	trace(1);
	told("tracer's kill", shared[0], SIGKILL, shared[1], "", NONE, NONE);
}

/* --- pid namespaces --- */

static void in_namespace(int kills)
{
	int ready[2];
	pid_t init, outer = fork();
	char byte;

	if (outer) {
		waitpid(outer, NULL, 0);
		return;
	}
	if (pipe(ready) || unshare(CLONE_NEWPID))
		_exit(99);
	if (!(init = fork())) {
		if (!fork()) {
			/* The number of the host's: that of a thread of a namespace is told by /proc/self of the mount that we still have. */
			char link[16] = "";

			if (readlink("/proc/self", link, sizeof(link) - 1) < 0)
				_exit(99);
			shared[0] = atoi(link);
			if (write(ready[1], "", 1) != 1)
				_exit(99);
			sleep_on();
		}
		sleep_on();
	}
	shared[1] = init;
	if (read(ready[0], &byte, 1) != 1)
		_exit(99);
	if (kills)
		kill(shared[0], SIGKILL);
	kill(init, SIGKILL);
	waitpid(init, NULL, 0);
	shared[2] = getpid();
	_exit(0);
}

static void namespaces(void)
{
	in_namespace(0);
	told("its init's end", shared[0], SIGKILL, 0, "pid_namespace_ended", NONE, shared[1]);
	in_namespace(1);
	told("a kill before that", shared[0], SIGKILL, shared[2], "", NONE, NONE);
}

/* --- cgroup.kill --- */

static void write_to(const char *folder, const char *file, const char *text)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		exit(96);
	close(fd);
}

static pid_t in_cgroup(const char *folder)
{
	char text[16];
	pid_t pid = fork();

	if (!pid)
		sleep_on();
	snprintf(text, sizeof(text), "%d", pid);
	write_to(folder, "cgroup.procs", text);
	return pid;
}

static void cgroups(const char *folder)
{
	pid_t pid = in_cgroup(folder);

	write_to(folder, "cgroup.kill", "1");
	waitpid(pid, NULL, 0);
	told("cgroup.kill", pid, SIGKILL, getpid(), "cgroup_kill", NONE, NONE);
	pid = in_cgroup(folder);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	told("kill in a cgroup", pid, SIGKILL, getpid(), "", NONE, NONE);
}

int main(int argc, char **argv)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	shared = begin();
	if (argc < 2 || !shared)
		return 99;
	if (!strcmp(argv[1], "limits"))
		limits();
	else if (!strcmp(argv[1], "events"))
		events();
	else if (!strcmp(argv[1], "namespaces"))
		namespaces();
	else
		cgroups(argv[2]);
	return 0;
}
