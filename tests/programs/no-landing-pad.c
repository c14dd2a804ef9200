/* SPDX-License-Identifier: MIT */
/*
 * Calls by a pointer what is no landing pad, in a page whose code may be called so at landing pads alone (BTI).
 *
 * expect: exit 132
 * expect: signal SIGILL
 * expect: code ILL_ILLOPC
 * expect: page_fault null
 * expect: diagnosis.kind no_landing_pad
 * expect: diagnosis.confidence certain
 * expect: frames ? call main
 * only on arm64: code has no such pages elsewhere
 */
#include "truth.h"

#include <sys/mman.h>

#ifndef PROT_BTI
#define PROT_BTI 0x10
#endif

static const unsigned int code[] = {0xd503201f /* nop */, 0xd65f03c0 /* ret */};

__attribute__((noinline)) static void call(void (*pointer)(void))
{
	pointer();
	__asm__ volatile("");
}

static char *page_of_code(int protection)
{
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		_exit(3);
	memcpy(page, code, sizeof(code));
	__builtin___clear_cache(page, page + sizeof(code));
	if (mprotect(page, PAGE, PROT_READ | PROT_EXEC | protection))
		_exit(3);
	return page;
}

int main(void)
{
	char *page;

	/* A page of the usual kind is called first. */
	call((void (*)(void))page_of_code(0));
	page = page_of_code(PROT_BTI);
	truth_address("fault_address", page);
	truth_address("instruction_pointer", page);
	call((void (*)(void))page);
	return 0;
}
