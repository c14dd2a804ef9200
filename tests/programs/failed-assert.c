/* SPDX-License-Identifier: MIT */
/*
 * Fails an assertion.
 *
 * expect: exit 134
 * expect: signal SIGABRT
 * expect: code SI_TKILL
 * expect: fault_type null
 * expect: fault_address null
 * expect: sender.comm failed-assert
 * expect: abort_message failed-assert: failed-assert.c:23: main: Assertion `argc == 0' failed.
 * expect: diagnosis.kind failed_assertion
 */
#undef NDEBUG
#include "truth.h"

#include <assert.h>

int main(int argc, char **argv)
{
	(void)argv;
	truth_number("sender.pid", getpid());
	assert(argc == 0);
	return 0;
}
