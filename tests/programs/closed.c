/* SPDX-License-Identifier: MIT */
/*
 * Writes to memory that may be read only: `closed CASE`.
 *
 *   literal   a string literal
 *   got       a slot of the GOT, behind RELRO
 *   data      a private mapping of a data file, for reading only
 *   program   the same of a program's file, which is not executed there
 *   shared    a shared mapping of a file, for reading only
 *   file      a private mapping of a data file that was written to, and closed then
 *   unreserved  the same without a write, and not accounted for
 *   memory    memory that was written to, and closed then
 *   merged    memory that was for reading only from the beginning, beside such as was written to and closed, none of which is accounted for
 *   poked     the same, written to as debuggers write
 *   never     memory that was for reading only from the beginning
 *   code      its own code
 *   freed     memory between other memory that was written to, and is closed to all as what was freed may be
 *   guard     the same, and nothing was written to it
 *
 * build: -Wl,-z,now,-z,relro
 */
#include "truth.h"

#include <sys/mman.h>

extern char _GLOBAL_OFFSET_TABLE_[];

static volatile char *map(const char *path, int protection, int flags)
{
	int fd = path ? open(path, O_RDONLY) : -1;
	void *at = mmap(NULL, PAGE, protection, flags | (path ? 0 : MAP_ANONYMOUS), fd, 0);

	if (at == MAP_FAILED) {
		perror("mmap");
		_exit(3);
	}
	return at;
}

static volatile char *close_it(volatile char *at)
{
	*at = 1;
	mprotect((void *)at, PAGE, PROT_READ);
	return at;
}

/* As runtimes reserve memory for later. */
static volatile char *merge(void)
{
	char *at = mmap(NULL, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	mprotect(at, PAGE, PROT_READ | PROT_WRITE);
	close_it(at);
	mprotect(at + PAGE, PAGE, PROT_READ);
	return at + PAGE;
}

/* As what looks for the use of freed memory. */
static volatile char *between(int is_used)
{
	/* Between pages of another kind, so that it is not merged with what is in use. */
	char *at = mmap(NULL, 5 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	at += PAGE;
	mprotect(at, 3 * PAGE, PROT_READ | PROT_WRITE);
	if (is_used)
		at[PAGE] = 1;
	mprotect(at + PAGE, PAGE, PROT_NONE);
	at[0] = 1;
	return at + PAGE;
}

static volatile char *poke(volatile char *at)
{
	int fd = open("/proc/self/mem", O_RDWR);

	if (pwrite(fd, "x", 1, (off_t)(unsigned long)at) != 1)
		perror("pwrite");
	return at;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	volatile char *at = NULL;

	if (!strcmp(what, "literal"))
		at = (volatile char *)"a literal";
	else if (!strcmp(what, "got"))
		at = _GLOBAL_OFFSET_TABLE_ + 24;
	else if (!strcmp(what, "data"))
		at = map("/etc/passwd", PROT_READ, MAP_PRIVATE);
	else if (!strcmp(what, "program"))
		at = map("/bin/true", PROT_READ, MAP_PRIVATE);
	else if (!strcmp(what, "shared"))
		at = map("/etc/passwd", PROT_READ, MAP_SHARED);
	else if (!strcmp(what, "file"))
		at = close_it(map("/etc/passwd", PROT_READ | PROT_WRITE, MAP_PRIVATE));
	else if (!strcmp(what, "unreserved"))
		mprotect((void *)(at = map("/etc/passwd", PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE)), PAGE, PROT_READ);
	else if (!strcmp(what, "freed") || !strcmp(what, "guard"))
		at = between(what[0] == 'f');
	else if (!strcmp(what, "memory"))
		at = close_it(map(NULL, PROT_READ | PROT_WRITE, MAP_PRIVATE));
	else if (!strcmp(what, "merged"))
		at = merge();
	else if (!strcmp(what, "poked"))
		at = poke(map(NULL, PROT_READ, MAP_PRIVATE));
	else if (!strcmp(what, "never"))
		at = map(NULL, PROT_READ, MAP_PRIVATE);
	else if (!strcmp(what, "code"))
		at = (volatile char *)(unsigned long)main;
	*at = 1;
	return 3;
}
