/* SPDX-License-Identifier: MIT */
/*
 * Leaves a stack that has no guard, or looks like it: `no-guard CASE`.
 *
 *   hole       calls itself on a stack below which nothing is mapped
 *   closed     the same with descend(), and with memory below it that may not be written
 *   wrong-end  the stack pointer is put to the begin of its memory, and not to its end
 *   guarded    the same, and there is a guard below it
 *   pointer    writes below that memory, from another stack
 *   taken      closes the stack that it runs on
 */
#include "truth.h"

#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>

#define STACK  (256 * 1024UL)
#define AROUND (4UL << 20)

static volatile long sink;

__attribute__((noinline)) static long walk(long depth)
{
	volatile char room[64];

	room[0] = (char)depth;
	return walk(depth + 1) + room[0];
}

static void begin(void)
{
	sink = walk(0);
}

/* Its frames hold nothing but return addresses, so that a call is what leaves the stack. */
void descend(void);
#ifdef __x86_64__
__asm__("descend: .cfi_startproc; call descend; ret; .cfi_endproc; .size descend, . - descend; .type descend, "
	"@function");
#else
__asm__("descend: .cfi_startproc; stp x29, x30, [sp, #-16]!; .cfi_def_cfa_offset 16; .cfi_offset 29, -16; "
	".cfi_offset 30, -8; bl descend; .cfi_endproc; .size descend, . - descend; .type descend, %function");
#endif

__attribute__((noinline)) static void write_below(volatile char *memory)
{
	memory[-8] = 1;
}

static char *taken;

/* The stack is in use up to its end, and something else lies above it. */
static void take(void)
{
	mprotect(taken, STACK, PROT_NONE);
}

int main(int argc, char **argv)
{
	const char *way = argc > 1 ? argv[1] : "";
	static ucontext_t context;
	char *area = mmap(NULL, AROUND, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *stack = area + AROUND / 2;

	mprotect(stack, STACK, PROT_READ | PROT_WRITE);
	/* Nothing, to where no frame reaches. */
	if (!strcmp(way, "guarded"))
		mprotect(area, AROUND / 2, PROT_NONE);
	else if (strcmp(way, "closed") != 0)
		munmap(area, AROUND / 2);
	if (!strcmp(way, "pointer")) {
		write_below(stack);
	} else if (!strcmp(way, "wrong-end") || !strcmp(way, "guarded")) {
#ifdef __x86_64__
		__asm__ volatile("mov %0, %%rsp; call *%1" : : "r"(stack), "r"(begin) : "memory");
#else
		__asm__ volatile("mov sp, %0; blr %1" : : "r"(stack), "r"(begin) : "x30", "memory");
#endif
	} else {
		getcontext(&context);
		context.uc_stack.ss_sp = stack;
		context.uc_stack.ss_size = STACK;
		taken = stack;
		if (!strcmp(way, "taken"))
			mprotect(stack + STACK, STACK, PROT_READ | PROT_WRITE);
		makecontext(&context, !strcmp(way, "closed") ? descend : !strcmp(way, "taken") ? take : begin, 0);
		setcontext(&context);
	}
	return 0;
}
