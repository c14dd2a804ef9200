/* SPDX-License-Identifier: MIT */
/* Calls abort(): `merged CASE`. `first` and `second` in functions that are inlined into the same one, `alone` in one that is not. */
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

volatile int stage;

INLINE void check_first(int fails)
{
	if (fails)
		abort();
}

INLINE void check_second(int fails)
{
	if (fails)
		abort();
}

__attribute__((noinline)) int work(int first, int second)
{
	check_first(first);
	stage++;
	check_second(second);
	return ++stage;
}

__attribute__((noinline)) void alone(void)
{
	stage++;
	abort();
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";

	if (!strcmp(how, "alone"))
		alone();
	return work(!strcmp(how, "first"), !strcmp(how, "second"));
}
