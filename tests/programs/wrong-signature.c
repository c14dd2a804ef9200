/* SPDX-License-Identifier: MIT */
/*
 * A child returns to an address whose signature is broken (PAC). Some processors refuse that where the signature is checked (FEAT_FPAC: SIGILL), and
 * others where the address that comes of it is jumped to.
 *
 * build: -mbranch-protection=standard
 * expect: exit 0
 * expect: diagnosis.kind smashed_stack
 * only on arm64: return addresses have no signatures elsewhere
 */
#include "truth.h"

#include <sys/wait.h>

__attribute__((noinline)) static void broken(void)
{
	/* A bit of the signature, which has as few as three of them: another address may have the same one. */
	__asm__ volatile("ldr x9, [x29, #8]; eor x9, x9, #0x10000000000000; str x9, [x29, #8]" ::: "x9", "x30", "memory");
}

int main(void)
{
	pid_t child = fork();

	if (!child) {
		broken();
		_exit(3);
	}
	waitpid(child, NULL, 0);
	return 0;
}
