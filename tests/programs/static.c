/* SPDX-License-Identifier: MIT */
/*
 * A static executable, at fixed addresses.
 *
 * build: -static -no-pie
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: fault_address 0x18
 * expect: diagnosis.kind null_dereference
 * expect: frames touch main
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
