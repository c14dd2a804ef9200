/* SPDX-License-Identifier: MIT */
/* W5: `map-churn COUNT`: maps a page, makes it read-only and unmaps it, COUNT times. */
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	long wanted = argc > 1 ? atol(argv[1]) : 1;

	for (long i = 0; i < wanted; i++) {
		void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (page == MAP_FAILED || mprotect(page, 4096, PROT_READ) || munmap(page, 4096))
			return 1;
	}
	return 0;
}
