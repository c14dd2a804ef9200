/* SPDX-License-Identifier: MIT */
/*
 * The stack pointer is 48 MiB below the frame pointer: moves-stack array | alloca | assembly. Only the first is a frame of that size, by what
 * its function's first instructions say.
 */
#include <alloca.h>
#include <string.h>
#include <unistd.h>

#define BYTES 0x3000000

static void array(void)
{
	volatile char table[BYTES];

	table[0] = 1;
	/* Or a part of it would be in the red zone. */
	getppid();
}

static void allocated(void)
{
	volatile char *table = alloca(BYTES);

	table[0] = 1;
}

static void moved(void)
{
#ifdef __x86_64__
	__asm__ volatile("mov $0x3000000, %eax\n\tsub %rax, %rsp\n\tmovb $1, (%rsp)");
#else
	__asm__ volatile("mov x9, #0x3000000\n\tsub sp, sp, x9\n\tstr xzr, [sp]");
#endif
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "array"))
		array();
	else if (!strcmp(what, "alloca"))
		allocated();
	else if (!strcmp(what, "assembly"))
		moved();
	return 0;
}
