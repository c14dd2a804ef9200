/* SPDX-License-Identifier: MIT */
/*
 * Calls a null function pointer: only the return address leads to the frame of the caller.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type map_error
 * expect: fault_address 0x0
 * expect: instruction_pointer 0x0
 * expect: instruction_symbol null
 * expect: page_fault.error_code 20
 * expect: page_fault.access execute
 * expect: vma null
 * expect: diagnosis.kind jump_to_null
 * expect: frames ? call main
 */
#include "truth.h"

__attribute__((noinline)) static void call(void (*function)(void))
{
	function();
}

int main(void)
{
	call(NULL);
	return 0;
}
