/* SPDX-License-Identifier: MIT */
/*
 * Reads by what is no pointer: `no-pointer CASE`.
 *
 *   field     a field of a NULL pointer
 *   member    the length of a string in a field of a NULL pointer
 *   integer   the length of the string at 8080
 *   rounded   the length of the string at 8190, which is two bytes before the end of a page
 *   own       its own function reads at 8080
 *   extended  a pointer to the heap that was an int on its way
 *   cut       the same, unsigned
 *   block     the same to a large block that was mapped, whose pointer is still there
 *   pair      a number of two that stand side by side, as the halves of a pointer do
 *   negative  a pointer that is -5
 *   failed    a pointer that is -1
 *   pages     two pages behind what mmap() has returned, which has failed
 *   mapping   a field of what mmap() has returned, which has failed
 */
#include "truth.h"

#include <sys/mman.h>

struct item {
	long before[3];
	long field;
	char name[16];
};

__attribute__((noinline)) static long field_of(struct item *item)
{
	return item->field;
}

__attribute__((noinline)) static int read_at(const volatile char *at)
{
	return *at;
}

/* A block whose address has this bit 31. */
static unsigned long block(int is_set)
{
	char *at = sbrk(0);

	/* The heap begins anywhere: so it is made longer until it has such an address. */
	while (!!((unsigned long)at & 1UL << 31) != is_set) {
		if (sbrk(64 << 20) == (void *)-1)
			_exit(3);
		at = sbrk(0);
	}
	sbrk(PAGE);
	return (unsigned long)at;
}

/* Both are unsigned int on their way. */
static int read_block(void)
{
	char *volatile block = mmap(NULL, 64 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return read_at((const char *)(unsigned long)(unsigned int)(unsigned long)block);
}

static int read_pair(void)
{
	volatile unsigned int pair[2] __attribute__((aligned(8))) = {0x1abc12a0, 5};

	return read_at((const char *)(unsigned long)pair[0]);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	unsigned long (*volatile length)(const char *) = strlen;

	if (!strcmp(what, "field"))
		return (int)field_of(NULL);
	if (!strcmp(what, "member"))
		return (int)length(((struct item *)NULL)->name);
	if (!strcmp(what, "integer"))
		return (int)length((const char *)8080);
	if (!strcmp(what, "rounded"))
		return (int)length((const char *)8190);
	if (!strcmp(what, "own"))
		return read_at((const char *)8080);
	if (!strcmp(what, "extended"))
		return read_at((const char *)(long)(int)block(1));
	if (!strcmp(what, "cut"))
		return read_at((const char *)(unsigned long)(unsigned int)block(0));
	if (!strcmp(what, "block"))
		return read_block();
	if (!strcmp(what, "pair"))
		return read_pair();
	if (!strcmp(what, "negative"))
		return read_at((const char *)-5);
	if (!strcmp(what, "mapping"))
		return (int)field_of(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	if (!strcmp(what, "pages"))
		return read_at((char *)mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + 2 * page_size());
	if (!strcmp(what, "failed"))
		return read_at((const char *)-1);
	return 3;
}
