/* SPDX-License-Identifier: MIT */
/*
 * Sends itself SIGTERM while all of its threads block it, and then unblocks it: so the kernel delivers the signal itself, and
 * afterwards kills the other thread. That is one death.
 *
 * flags: --signal TERM --signal KILL
 * expect: exit 143
 * expect: records 1
 * expect: signal SIGTERM
 * expect: code SI_USER
 * expect: fault_type null
 * expect: disposition fatal
 * expect: sender.comm blocked-term
 * expect: diagnosis null
 */
#include "truth.h"

#include <pthread.h>
#include <signal.h>

static void *other(void *nothing)
{
	for (;;)
		pause();
	return nothing;
}

int main(void)
{
	pthread_t id;
	sigset_t term;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &term, NULL);
	pthread_create(&id, NULL, other, NULL);
	truth_number("tid", getpid());
	truth_number("sender.pid", getpid());
	kill(getpid(), SIGTERM);
	pthread_sigmask(SIG_UNBLOCK, &term, NULL);
	return 0;
}
