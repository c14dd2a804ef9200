/* SPDX-License-Identifier: MIT */
/*
 * Wants SIGSEGV when a pipe can be read from, and dies of it: the code is SI_SIGIO, as that of POLL_IN would be SEGV_MAPERR's. There was no fault,
 * and no process has sent anything.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SI_SIGIO
 * expect: fault_type null
 * expect: fault_address null
 * expect: page_fault null
 * expect: sender null
 * expect: disposition fatal
 * expect: diagnosis null
 */
#define _GNU_SOURCE
#include "truth.h"

#include <fcntl.h>
#include <signal.h>

int main(void)
{
	int ends[2];

	if (pipe(ends) || fcntl(ends[0], F_SETSIG, SIGSEGV) || fcntl(ends[0], F_SETOWN, getpid()) ||
	    fcntl(ends[0], F_SETFL, O_ASYNC) || write(ends[1], "", 1) != 1)
		return 1;
	for (;;)
		pause();
}
