/* SPDX-License-Identifier: MIT */
/*
 * Children that die of a signal, which the kernel has sent because of a descriptor, a message queue or a deadline, or which
 * looks like it and was sent by a process. It prints what each record must hold (own.h).
 * Argument: a folder for a file. Checked by tests/vm/own_account.rs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "children.h"
#include "own.h"

static const char *folder;
static pid_t *shared; /* pids that children tell */

static void spin(void)
{
	for (volatile unsigned long count = 0;; count++)
		;
}

/* --- descriptors: always number 10 --- */

#define DESCRIPTOR 10

static void become_readable(int signal)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) || dup2(ends[0], DESCRIPTOR) < 0)
		_exit(99);
	fcntl(DESCRIPTOR, F_SETOWN, getpid());
	if (signal)
		fcntl(DESCRIPTOR, F_SETSIG, signal);
	fcntl(DESCRIPTOR, F_SETFL, O_ASYNC | O_NONBLOCK);
	if (write(ends[1], "", 1) != 1)
		_exit(99);
	sleep_on();
}

static void be_readable(void)
{
	become_readable(0);
}

static void be_readable_usr1(void)
{
	become_readable(SIGUSR1);
}

static void be_readable_io(void)
{
	become_readable(SIGIO);
}

static void break_lease(void)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/leased", folder);
	fd = open(path, O_RDONLY | O_CREAT, 0600);
	if (fd < 0 || dup2(fd, DESCRIPTOR) < 0)
		_exit(99);
	close(fd);
	fcntl(DESCRIPTOR, F_SETSIG, SIGUSR1);
	if (fcntl(DESCRIPTOR, F_SETLEASE, F_RDLCK))
		_exit(96);
	open(path, O_WRONLY | O_NONBLOCK);
	sleep_on();
}

/* The code that the kernel would use. */
static void forge(int signal, int code)
{
	siginfo_t info = {.si_code = code};

	info.si_signo = signal;
	syscall(SYS_rt_sigqueueinfo, getpid(), signal, &info);
}

static void forge_descriptor(void)
{
	forge(SIGUSR1, SI_SIGIO);
}

static void forge_input(void)
{
	forge(SIGIO, POLL_IN);
}

static void forge_message(void)
{
	forge(SIGUSR1, SI_MESGQ);
}

static void raise_io(void)
{
	kill(getpid(), SIGIO);
}

static void descriptors(void)
{
	pid_t pid;

	told("O_ASYNC", child(be_readable, SIGIO), SIGIO, 0, "descriptor_event", NONE, NONE);
	told("F_SETSIG", child(be_readable_usr1, SIGUSR1), SIGUSR1, 0, "descriptor_event", NONE, DESCRIPTOR);
	told("F_SETSIG IO", child(be_readable_io, SIGIO), SIGIO, 0, "descriptor_event", NONE, DESCRIPTOR);
	told("F_SETLEASE", child(break_lease, SIGUSR1), SIGUSR1, 0, "descriptor_event", NONE, DESCRIPTOR);
	pid = child(forge_descriptor, SIGUSR1);
	told("forged descriptor", pid, SIGUSR1, pid, "", NONE, NONE);
	pid = child(forge_input, SIGIO);
	told("forged input", pid, SIGIO, pid, "", NONE, NONE);
	pid = child(raise_io, SIGIO);
	told("kill IO", pid, SIGIO, pid, "", NONE, NONE);
}

/* --- message queues --- */

static mqd_t queue;

static void be_notified(void)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};

	if (mq_notify(queue, &event))
		_exit(99);
	shared[0] = getpid();
	sleep_on();
}

static void messages(void)
{
	char name[32];
	pid_t pid;

	snprintf(name, sizeof(name), "/own-devices-%d", getpid());
	queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, NULL);
	/* CONFIG_POSIX_MQUEUE. */
	if (queue < 0 && errno == ENOSYS)
		return;
	mq_unlink(name);
	shared[0] = 0;
	if (!(pid = fork()))
		be_notified();
	while (!*(volatile pid_t *)shared)
		usleep(1000);
	if (mq_send(queue, "x", 1, 0))
		exit(99);
	told("mq_notify", ended(pid, SIGUSR1), SIGUSR1, getpid(), "message_arrived", NONE, getpid());
	pid = child(forge_message, SIGUSR1);
	told("forged message", pid, SIGUSR1, pid, "", NONE, NONE);
}

/* --- real time --- */

struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

/* May a thread have a deadline here? Not in some cgroups and sets of processors. It may run for so many milliseconds of twice as many. */
static int have_deadline(uint64_t milliseconds)
{
	struct attributes attributes = {.size = sizeof(attributes), .policy = 6, .flags = 4};

	attributes.runtime = milliseconds * 1000 * 1000;
	attributes.deadline = attributes.period = 2 * attributes.runtime;
	return !syscall(SYS_sched_setattr, 0, &attributes, 0);
}

static void miss_deadline(void)
{
	if (have_deadline(2))
		spin();
}

/* The second is long enough for a guest that is emulated on a busy machine: an overrun would be the kernel's signal. */
static void try_deadline(void)
{
	raise(have_deadline(1000) ? SIGTERM : SIGKILL);
}

static void raise_at_deadline(void)
{
	have_deadline(1000);
	raise(SIGXCPU);
}

static void run_on(void)
{
	struct sched_param first = {.sched_priority = 1};
	struct rlimit limit = {100000, 2000000};

	setrlimit(RLIMIT_RTTIME, &limit);
	if (sched_setscheduler(0, SCHED_FIFO, &first))
		_exit(99);
	spin();
}

static void real_time(void)
{
	pid_t pid;
	int status;

	told("RLIMIT_RTTIME", child(run_on, SIGXCPU), SIGXCPU, 0, "real_time_limit", 100000, NONE);
	if (!(pid = fork())) {
		try_deadline();
		_exit(98);
	}
	waitpid(pid, &status, 0);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGTERM)
		return;
	told("SCHED_FLAG_DL_OVERRUN", child(miss_deadline, SIGXCPU), SIGXCPU, 0, "deadline_overrun", NONE, NONE);
	pid = child(raise_at_deadline, SIGXCPU);
	told("raise at a deadline", pid, SIGXCPU, pid, "", NONE, NONE);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 99;
	folder = argv[1];
	shared = begin();
	if (!shared)
		return 99;
	descriptors();
	messages();
	real_time();
	return 0;
}
