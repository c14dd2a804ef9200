/* SPDX-License-Identifier: MIT */
/*
 * Gets SIGSEGV from another process, its child: no fault happened, and the sender is known.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SI_USER
 * expect: fault_type null
 * expect: fault_address null
 * expect: page_fault null
 * expect: vma null
 * expect: sender.comm the-sender
 * expect: sender.tid null
 * expect: diagnosis null
 * expect: frames spin main
 */
#include "truth.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

/* Reports by its own store, again and again, that it is in this loop: the signal finds it here. */
__attribute__((noinline)) static void spin(volatile int *spinning)
{
	for (;;)
		*spinning = 1;
}

int main(void)
{
	volatile int *spinning = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int gone[2];
	pid_t sender;
	char nothing;

	if (pipe(gone))
		return 2;
	truth_number("pid", getpid());
	truth_number("sender.uid", getuid());
	sender = fork();
	if (sender == 0) {
		prctl(PR_SET_NAME, "the-sender");
		truth_number("sender.pid", getpid());
		close(gone[1]);
		/* The reader of our output must not wait for us. */
		close(1);
		close(2);
		while (!*spinning)
			sched_yield();
		kill(getppid(), SIGSEGV);
		/* Stay until the target is gone, and a while longer: the name of a sender is read while it lives. */
		read(gone[0], &nothing, 1);
		sleep(60);
		_exit(0);
	}
	spin(spinning);
}
