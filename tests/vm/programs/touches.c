/* SPDX-License-Identifier: MIT */
/*
 * touches pages N: touches N pages of one mapping, fresh each.
 * touches mappings N: touches one page of each of N mappings.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096UL

int main(int argc, char **argv)
{
	unsigned long count = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
	int apart = argc > 1 && !strcmp(argv[1], "mappings");
	char *at = mmap(NULL, (count + 1) * 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* EINVAL: a real-time kernel, which has no huge pages. */
	if (at == MAP_FAILED || (madvise(at, (count + 1) * 2 * PAGE, MADV_NOHUGEPAGE) && errno != EINVAL))
		return 1;
	for (unsigned long i = 0; i < count; i++) {
		/* What differs from its neighbours is a mapping of its own. */
		if (apart && mprotect(at + (2 * i + 1) * PAGE, PAGE, PROT_NONE))
			return 2;
		at[2 * i * PAGE] = 1;
	}
	return 0;
}
