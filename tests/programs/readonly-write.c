/* SPDX-License-Identifier: MIT */
/*
 * Writes to a constant in the program's read-only data.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_ACCERR
 * expect: fault_type access_error
 * expect: disposition fatal
 * expect: page_fault.error_code 7
 * expect: page_fault.access write
 * expect: vma.permissions r--p
 * expect: diagnosis.kind write_to_read_only
 * expect: frames overwrite main
 */
#include "truth.h"

static const char constant[] = "constant";

DECLARE_AT(fault_here);

__attribute__((noinline)) static void overwrite(char *at)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_BYTE ::"r"(at) : "memory");
}

int main(int argc, char **argv)
{
	(void)argc;
	truth_address("fault_address", constant);
	truth_text("vma.mapping_name", argv[0]);
	/* The kernel need not have mapped the page before: then the fault has another error code. */
	(void)*(const volatile char *)constant;
	overwrite((char *)constant);
	return 0;
}
