/* SPDX-License-Identifier: MIT */
/*
 * Dies in a comparison for qsort(), with more executable mappings than a record has room for: libc's lies above all of them.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

#define MAPPINGS 300

__attribute__((noinline)) static int compare(const void *one, const void *other)
{
	(void)other;
	*(volatile int *)0x18 = *(const int *)one;
	return 0;
}

__attribute__((noinline)) static int sort_all(int *numbers)
{
	qsort(numbers, 16, sizeof(*numbers), compare);
	return numbers[0];
}

int main(void)
{
	int own = open("/proc/self/exe", O_RDONLY);
	int numbers[16] = { 0 };

	for (int i = 0; i < MAPPINGS; i++) {
		if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, own, 0) == MAP_FAILED)
			return 1;
	}
	return sort_all(numbers) + 1;
}
