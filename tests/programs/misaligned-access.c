/* SPDX-License-Identifier: MIT */
/*
 * An exclusive access, as a lock makes it, at an address that is not aligned and leads across 16 bytes.
 *
 * expect: exit 135
 * expect: signal SIGBUS
 * expect: code BUS_ADRALN
 * expect: fault_type alignment_error
 * expect: page_fault null
 * expect: diagnosis.kind misaligned_access
 * expect: diagnosis.confidence certain
 * expect: frames lock main
 * only on arm64: the processor carries it out elsewhere
 */
#include "truth.h"

static char memory[64] __attribute__((aligned(64)));

__attribute__((noinline)) static void lock(char *at)
{
	__asm__ volatile("ldxr x9, [%0]" ::"r"(at) : "x9", "memory");
}

int main(void)
{
	lock(memory);
	truth_address("fault_address", memory + 13);
	lock(memory + 13);
	return 0;
}
