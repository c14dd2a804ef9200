/* SPDX-License-Identifier: MIT */
/*
 * Has an allocator of its own, which aborts where memory is short: the heap is well.
 *
 * expect: exit 134
 * expect: signal SIGABRT
 * expect: diagnosis.kind abort
 * expect: diagnosis.text calls abort() in malloc
 * expect: diagnosis.confidence certain
 * build: -fno-builtin
 */
#include "truth.h"

#include <sys/mman.h>

void *malloc(size_t bytes)
{
	void *block =
		mmap(NULL, bytes + 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (block == MAP_FAILED)
		abort();
	return (char *)block + 16;
}

void free(void *block)
{
	(void)block;
}

int main(void)
{
	return malloc((size_t)1 << 60) == NULL;
}
