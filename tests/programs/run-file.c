/* SPDX-License-Identifier: MIT */
/*
 * Runs whatever is in a file as if it was a library's code: `run-file FILE OFFSET` maps all of FILE executable and jumps to its byte OFFSET.
 * So the kernel need not take FILE for a program.
 *
 * build: -O1
 */
#include <sys/mman.h>

#include "truth.h"

int main(int argc, char **argv)
{
	int file = argc == 3 ? open(argv[1], O_RDONLY) : -1;
	struct stat stat;
	char *code;

	if (file < 0 || fstat(file, &stat))
		return 2;
	code = mmap(NULL, (size_t)stat.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0);
	if (code == MAP_FAILED)
		return 2;
	((void (*)(void))(code + strtoul(argv[2], NULL, 0)))();
	return 0;
}
