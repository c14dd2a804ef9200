/* SPDX-License-Identifier: MIT */
/*
 * What the record of a signal must hold that the kernel has sent on its own account, or that looks like it and was sent by a process: one JSON object a
 * line. Checked by tests/vm/own_account.rs.
 */
#ifndef OWN_H
#define OWN_H

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/types.h>

#define NONE (-1L)
#define SELF (-2L)

/*
 * `sender`: a pid, 0 for none, -1 for one that need not be known, SELF. `reason` "": none; one that begins with ? need not be known at the
 * delivery of the signal. `stops`: it ends nothing.
 */
static inline void tell(const char *way, pid_t pid, int signal, long sender, const char *reason, long limit, long value,
			int stops)
{
	const char *name = signal == SIGIO ? "IO" : sigabbrev_np(signal);

	printf("{\"way\": \"%s\", \"pid\": %d, \"signal\": \"SIG%s\", \"sender\": %ld, \"reason\": \"%s\", "
	       "\"limit\": %ld, \"value\": %ld, \"stops\": %s}\n",
	       way, pid, name, sender == SELF ? pid : sender, reason, limit, value, stops ? "true" : "false");
	fflush(stdout);
}

/* The same of a signal that ends the process. */
static inline void told(const char *way, pid_t pid, int signal, long sender, const char *reason, long limit, long value)
{
	tell(way, pid, signal, sender, reason, limit, value, 0);
}

/* Signals do what they do by default, nothing dumps core, and pids that children of children tell have a page. NULL: there is none. */
static inline pid_t *begin(void)
{
	struct rlimit no_core = { 0, 0 };
	void *shared;

	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	setrlimit(RLIMIT_CORE, &no_core);
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return shared == MAP_FAILED ? NULL : shared;
}

#endif
