/* SPDX-License-Identifier: MIT */
/*
 * A stripped executable: its frames have no names, but a build id and offsets.
 *
 * build: -s
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: fault_address 0x18
 * expect: instruction_symbol null
 * expect: diagnosis.kind null_dereference
 * expect: frames ? ?
 */
#include "truth.h"

DECLARE_AT(fault_here);

__attribute__((noinline)) static void touch(void)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_INT ::"r"(0x18UL) : "memory");
}

int main(void)
{
	touch();
	return 0;
}
