/* SPDX-License-Identifier: MIT */
/*
 * Accesses memory that isn't mapped; the handler maps it, and aborts. What lies there at the end is not what the fault has found.
 *
 * expect: exit 134
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: disposition caught
 * expect: ended_by.signal SIGABRT
 * expect: vma.permissions rw-p
 * expect: diagnosis null
 * expect: frames touch main
 */
#include "truth.h"

#include <signal.h>
#include <sys/mman.h>

static char *gone;

static void handle(int signal)
{
	(void)signal;
	mmap(gone, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	abort();
}

__attribute__((noinline)) static void touch(char *where)
{
	__asm__ volatile(STORE_BYTE ::"r"(where) : "memory");
}

int main(void)
{
	gone = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(gone, PAGE);
	signal(SIGSEGV, handle);
	truth_address("fault_address", gone);
	touch(gone);
	return 0;
}
