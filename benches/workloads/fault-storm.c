/* SPDX-License-Identifier: MIT */
/* W4: `fault-storm COUNT`: COUNT page faults, each the first write to a page of memory. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE  4096UL
#define PAGES 1000UL /* at a time */

__attribute__((noinline)) static void touch(volatile char *at, unsigned long pages)
{
	for (unsigned long i = 0; i < pages; i++)
		at[i * PAGE] = 1;
}

int main(int argc, char **argv)
{
	long wanted = argc > 1 ? atol(argv[1]) : 1;
	char *at = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED || madvise(at, PAGES * PAGE, MADV_NOHUGEPAGE)) {
		perror("mmap");
		return 1;
	}
	while (wanted > 0) {
		unsigned long pages = wanted < (long)PAGES ? (unsigned long)wanted : PAGES;

		touch(at, pages);
		if (madvise(at, PAGES * PAGE, MADV_DONTNEED))
			return 1;
		wanted -= (long)pages;
	}
	return 0;
}
