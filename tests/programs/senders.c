/* SPDX-License-Identifier: MIT */
/*
 * Sends a signal in every possible way, and prints for each what its record must hold: one JSON object a line.
 * Checked by tests/vm/signal.rs.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS 1000

static void told(const char *way, const char *signal, const char *code, int sender, int target, int tid,
		 const char *scope, const char *result)
{
	printf("{\"way\": \"%s\", \"signal\": \"%s\", \"code\": \"%s\", \"sender\": %d, \"target\": %d, \"tid\": %d, "
	       "\"scope\": \"%s\", \"result\": \"%s\"}\n",
	       way, signal, code, sender, target, tid, scope, result);
	fflush(stdout);
}

/* Waits until the child has written its byte. */
static void await(int *pipe)
{
	char byte;

	close(pipe[1]);
	if (read(pipe[0], &byte, 1) != 1)
		exit(99);
	close(pipe[0]);
}

/* A child that blocks all signals, ignores SIGUSR2, and lives until it is killed. */
static pid_t sleeper(void)
{
	int ready[2];
	pid_t pid;

	if (pipe(ready) || (pid = fork()) < 0)
		exit(99);
	if (!pid) {
		sigset_t all;

		sigfillset(&all);
		sigdelset(&all, SIGUSR2);
		sigprocmask(SIG_SETMASK, &all, NULL);
		signal(SIGUSR2, SIG_IGN);
		if (write(ready[1], "", 1) != 1)
			_exit(99);
		for (;;)
			pause();
	}
	await(ready);
	return pid;
}

/* Waits for a child's SIGCHLD: it is sent when the child runs, and after waitpid() has returned. A child that is killed before sends none. */
static void await_report(const sigset_t *reports, int code)
{
	siginfo_t info;

	while (sigwaitinfo(reports, &info) != SIGCHLD || info.si_code != code)
		;
}

static void by_system_calls(void)
{
	pid_t me = getpid(), child = sleeper();
	siginfo_t forged = { .si_code = SI_TIMER };
	union sigval value = { .sival_int = 7 };
	struct rlimit none = { 0, 0 };
	sigset_t reports;
	int fd;

	kill(child, SIGUSR1);
	told("kill", "SIGUSR1", "SI_USER", me, child, child, "process", "delivered");
	kill(child, SIGUSR1);
	told("kill again", "SIGUSR1", "SI_USER", me, child, child, "process", "already_pending");
	kill(child, SIGUSR2);
	told("kill, ignored", "SIGUSR2", "SI_USER", me, child, child, "process", "ignored");
	syscall(SYS_tkill, child, SIGHUP);
	told("tkill", "SIGHUP", "SI_TKILL", me, child, child, "thread", "delivered");
	syscall(SYS_tgkill, child, child, SIGINT);
	told("tgkill", "SIGINT", "SI_TKILL", me, child, child, "thread", "delivered");
	sigqueue(child, SIGRTMIN + 3, value);
	told("sigqueue", "SIGRTMIN+3", "SI_QUEUE", me, child, child, "process", "delivered");
	fd = syscall(SYS_pidfd_open, child, 0);
	syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0);
	told("pidfd_send_signal", "SIGTERM", "SI_USER", me, child, child, "process", "delivered");
	forged.si_signo = SIGVTALRM;
	syscall(SYS_rt_sigqueueinfo, child, SIGVTALRM, &forged);
	told("rt_sigqueueinfo, forged", "SIGVTALRM", "SI_TIMER", me, child, child, "process", "delivered");
	forged.si_signo = SIGPROF;
	forged.si_code = SI_QUEUE;
	syscall(SYS_rt_tgsigqueueinfo, child, child, SIGPROF, &forged);
	told("rt_tgsigqueueinfo", "SIGPROF", "SI_QUEUE", me, child, child, "thread", "delivered");
	prlimit(child, RLIMIT_SIGPENDING, &none, NULL);
	sigqueue(child, SIGRTMIN + 4, value);
	told("sigqueue, no room", "SIGRTMIN+4", "SI_QUEUE", me, child, child, "process", "lost");
	sigemptyset(&reports);
	sigaddset(&reports, SIGCHLD);
	sigprocmask(SIG_BLOCK, &reports, NULL);
	kill(child, SIGSTOP);
	told("stop", "SIGSTOP", "SI_USER", me, child, child, "process", "delivered");
	waitpid(child, NULL, WUNTRACED);
	await_report(&reports, CLD_STOPPED);
	told("stopped", "SIGCHLD", "CLD_STOPPED", child, me, me, "process", "delivered");
	kill(child, SIGCONT);
	told("continue", "SIGCONT", "SI_USER", me, child, child, "process", "delivered");
	waitpid(child, NULL, WCONTINUED);
	await_report(&reports, CLD_CONTINUED);
	sigprocmask(SIG_UNBLOCK, &reports, NULL);
	told("continued", "SIGCHLD", "CLD_CONTINUED", child, me, me, "process", "delivered");
	kill(child, SIGKILL);
	told("kill -9", "SIGKILL", "SI_USER", me, child, child, "process", "delivered");
	waitpid(child, NULL, 0);
	told("killed", "SIGCHLD", "CLD_KILLED", child, me, me, "process", "delivered");
}

static void by_timers(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1 };
	struct itimerspec soon = { .it_value = { .tv_nsec = 1000 * 1000 } };
	struct itimerval alarm_soon = { .it_value = { .tv_usec = 1000 } };
	pid_t me = getpid();
	timer_t timer;

	sigset_t both, pending;

	/* Blocked, so that signals are queued. */
	sigemptyset(&both);
	sigaddset(&both, SIGRTMIN + 1);
	sigaddset(&both, SIGALRM);
	sigprocmask(SIG_BLOCK, &both, NULL);
	timer_create(CLOCK_MONOTONIC, &event, &timer);
	timer_settime(timer, 0, &soon, NULL);
	setitimer(ITIMER_REAL, &alarm_soon, NULL);
	do {
		usleep(MS);
		sigpending(&pending);
	} while (!sigismember(&pending, SIGRTMIN + 1) || !sigismember(&pending, SIGALRM));
	told("timer_create", "SIGRTMIN+1", "SI_TIMER", 0, me, me, "process", "delivered");
	told("setitimer", "SIGALRM", "SI_KERNEL", 0, me, me, "process", "delivered");
	timer_delete(timer);
}

static void by_the_kernel(void)
{
	pid_t me = getpid(), child;
	int ends[2], ready[2];

	signal(SIGPIPE, SIG_IGN);
	if (pipe(ends))
		exit(99);
	close(ends[0]);
	if (write(ends[1], "", 1) != -1)
		exit(99);
	told("a closed pipe", "SIGPIPE", "SI_USER", 0, me, me, "thread", "ignored");

	if (!(child = fork())) {
		prctl(PR_SET_DUMPABLE, 0);
		*(volatile int *)16 = 1;
	}
	waitpid(child, NULL, 0);
	told("a fault", "SIGSEGV", "SEGV_MAPERR", 0, child, child, "thread", "delivered");

	if (!(child = fork()))
		_exit(3);
	waitpid(child, NULL, 0);
	told("an exit", "SIGCHLD", "CLD_EXITED", child, me, me, "process", "delivered");

	/* A grandchild that gets a signal when its parent ends. */
	if (pipe(ready))
		exit(99);
	if (!(child = fork())) {
		int armed[2];
		pid_t parent = getpid(), orphan;

		if (pipe(armed))
			_exit(99);
		if (!(orphan = fork())) {
			prctl(PR_SET_PDEATHSIG, SIGXCPU);
			if (write(armed[1], "", 1) != 1)
				_exit(99);
			poll(NULL, 0, 5000);
			_exit(0);
		}
		await(armed);
		told("a parent's end", "SIGXCPU", "SI_USER", parent, orphan, orphan, "process", "delivered");
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

static void by_a_terminal(void)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), ready[2];
	pid_t child;

	if (master < 0 || grantpt(master) || unlockpt(master) || pipe(ready))
		exit(99);
	if (!(child = fork())) {
		setsid();
		int slave = open(ptsname(master), O_RDWR);

		ioctl(slave, TIOCSCTTY, 0);
		if (write(ready[1], "", 1) != 1)
			_exit(99);
		poll(NULL, 0, 5000);
		_exit(0);
	}
	await(ready);
	if (write(master, "\003", 1) != 1)
		exit(99);
	waitpid(child, NULL, 0);
	told("Ctrl-C", "SIGINT", "SI_KERNEL", 0, child, child, "process", "delivered");
}

static void by_a_message_queue(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGURG };
	struct mq_attr attributes = { .mq_maxmsg = 1, .mq_msgsize = 8 };
	char name[32];
	pid_t child;
	mqd_t queue;

	snprintf(name, sizeof(name), "/faultline-%d", getpid());
	queue = mq_open(name, O_RDWR | O_CREAT, 0600, &attributes);
	if (queue == (mqd_t)-1)
		exit(99);
	mq_unlink(name);
	mq_notify(queue, &event);
	if (!(child = fork())) {
		mq_send(queue, "x", 1, 0);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	told("mq_notify", "SIGURG", "SI_MESGQ", child, getpid(), getpid(), "process", "ignored");
}

static int stop;

static void *thread(void *tid)
{
	*(volatile pid_t *)tid = gettid();
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		usleep(MS);
	return NULL;
}

static void to_a_thread(void)
{
	volatile pid_t tid = 0;
	pthread_t id;

	signal(SIGWINCH, SIG_IGN);
	pthread_create(&id, NULL, thread, (void *)&tid);
	while (!tid)
		usleep(MS);
	pthread_kill(id, SIGWINCH);
	told("pthread_kill", "SIGWINCH", "SI_TKILL", getpid(), getpid(), tid, "thread", "ignored");
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	pthread_join(id, NULL);
}

static void to_the_dead_and_the_traced(void)
{
	siginfo_t info;
	pid_t me = getpid(), child;

	if (!(child = fork()))
		_exit(0);
	waitid(P_PID, child, &info, WEXITED | WNOWAIT);
	kill(child, SIGQUIT);
	/* Kept or dropped: kernels differ. */
	told("to a zombie", "SIGQUIT", "SI_USER", me, child, child, "process", "any");
	waitpid(child, NULL, 0);

	if (!(child = fork())) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGTSTP);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	told("raise, traced", "SIGTSTP", "SI_TKILL", child, child, child, "thread", "delivered");
	told("a traced child's stop", "SIGCHLD", "CLD_TRAPPED", child, me, me, "process", "delivered");
	ptrace(PTRACE_CONT, child, NULL, NULL);
	waitpid(child, NULL, 0);
}

static void nothing(int signal)
{
	(void)signal;
}

int main(void)
{
	struct sigaction action = { .sa_handler = nothing, .sa_flags = SA_RESTART };

	/* The parent may have made us ignore some signals: nohup, a shell's background job. */
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigaction(SIGCHLD, &action, NULL);
	by_system_calls();
	by_timers();
	by_the_kernel();
	by_a_terminal();
	by_a_message_queue();
	to_a_thread();
	to_the_dead_and_the_traced();
	return 0;
}
