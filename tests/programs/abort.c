/* SPDX-License-Identifier: MIT */
/*
 * Calls abort(): the process sends the signal to itself, so that there is a sender and no fault.
 *
 * expect: exit 134
 * expect: signal SIGABRT
 * expect: abort_message null
 * expect: code SI_TKILL
 * expect: code_number -6
 * expect: fault_type null
 * expect: fault_address null
 * expect: page_fault null
 * expect: vma null
 * expect: disposition fatal
 * expect: sender.comm abort
 * expect: diagnosis.kind abort
 */
#include "truth.h"

int main(void)
{
	truth_number("sender.pid", getpid());
	truth_number("sender.uid", getuid());
	truth_number("tid", gettid());
	abort();
}
