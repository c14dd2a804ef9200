/* SPDX-License-Identifier: MIT */
/*
 * Children that die of a signal, which the kernel has sent because of a descriptor, a message queue, a terminal or a deadline, or which
 * looks like it and was sent by a process. It prints what each record must hold, as own-account.c does.
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
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "children.h"

#define NONE (-1L)

static const char *folder;
static pid_t *shared; /* pids that children of children tell */
static int master;    /* of the terminal */
static int terminal;  /* in who has it */

/* `sender`: a pid, 0 for none. `reason` "": none. */
static void told(const char *way, pid_t pid, int signal, long sender, const char *reason, long limit, long value)
{
	const char *name = signal == SIGIO ? "IO" : sigabbrev_np(signal);

	printf("{\"way\": \"%s\", \"pid\": %d, \"signal\": \"SIG%s\", \"sender\": %ld, \"reason\": \"%s\", \"limit\": "
	       "%ld, "
	       "\"value\": %ld}\n",
	       way, pid, name, sender, reason, limit, value);
	fflush(stdout);
}

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

/* --- terminals --- */

/* A child with a session and a terminal of its own, which runs `run`. It is ready when this returns. */
static pid_t at_terminal(void (*run)(void))
{
	pid_t pid;

	master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (master < 0 || grantpt(master) || unlockpt(master))
		exit(99);
	shared[0] = 0;
	if (!(pid = fork())) {
		const char *name = ptsname(master);

		setsid();
		terminal = open(name, O_RDWR);
		close(master);
		if (terminal < 0)
			_exit(99);
		run();
		_exit(98);
	}
	while (!*(volatile pid_t *)shared)
		usleep(1000);
	return pid;
}

static void wait_there(void)
{
	shared[0] = getpid();
	sleep_on();
}

static void type(const char *key)
{
	if (write(master, key, 1) != 1)
		exit(99);
}

static pid_t typed(const char *key, int signal)
{
	pid_t pid = at_terminal(wait_there);

	type(key);
	ended(pid, signal);
	close(master);
	return pid;
}

static pid_t hung_up(void)
{
	pid_t pid = at_terminal(wait_there);

	close(master);
	return ended(pid, SIGHUP);
}

/* The leader of the session ends when shared[1] says so; the group in the foreground is another one. */
static void lead(void)
{
	pid_t pid = fork();

	if (!pid) {
		setpgid(0, 0);
		sleep_on();
	}
	setpgid(pid, pid);
	signal(SIGTTOU, SIG_IGN);
	tcsetpgrp(terminal, pid);
	shared[0] = pid;
	_exit(0);
}

/* A session in which the parent of a stopped group ends. */
static void orphan(void)
{
	pid_t parent;

	setsid();
	if (!(parent = fork())) {
		pid_t pid = fork();

		if (!pid) {
			setpgid(0, 0);
			raise(SIGSTOP);
			_exit(98);
		}
		setpgid(pid, pid);
		waitpid(pid, NULL, WUNTRACED);
		shared[1] = getpid();
		shared[2] = pid;
		_exit(0);
	}
	/* Who waits for the orphan is its parent only when that one has ended. */
	waitpid(parent, NULL, 0);
	shared[0] = shared[2];
	sleep_on();
}

static void terminals(void)
{
	pid_t leader, pid;

	told("Ctrl-C", typed("\003", SIGINT), SIGINT, 0, "terminal", NONE, NONE);
	told("Ctrl-\\\\", typed("\034", SIGQUIT), SIGQUIT, 0, "terminal", NONE, NONE);
	told("closed", hung_up(), SIGHUP, 0, "terminal_hangup", NONE, NONE);
	for (int signal = SIGHUP; signal <= SIGQUIT; signal++) {
		pid = at_terminal(wait_there);
		kill(pid, signal);
		told("kill at a terminal", ended(pid, signal), signal, getpid(), "", NONE, NONE);
		close(master);
	}
	leader = at_terminal(lead);
	waitpid(leader, NULL, 0);
	told("leader's end", ended(shared[0], SIGHUP), SIGHUP, 0, "session_ended", NONE, leader);
	close(master);
	shared[0] = 0;
	if (!(pid = fork()))
		orphan();
	while (!*(volatile pid_t *)shared)
		usleep(1000);
	told("orphaned", ended(shared[0], SIGHUP), SIGHUP, 0, "group_orphaned", NONE, shared[1]);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
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
	struct rlimit no_core = {0, 0};

	if (argc < 2)
		return 99;
	folder = argv[1];
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	setrlimit(RLIMIT_CORE, &no_core);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 99;
	descriptors();
	messages();
	terminals();
	real_time();
	return 0;
}
