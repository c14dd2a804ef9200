/* SPDX-License-Identifier: MIT */
/*
 * Maps a file, opened for reading only, as shared: in /proc/PID/maps only the last letter differs from a private mapping. Reads each page
 * once, prints what /proc/self/maps has, and dies of a write to the first page.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_ACCERR
 * expect: disposition fatal
 * expect: vma.permissions r--s
 * expect: diagnosis.kind write_to_read_only
 * expect: frames main
 */
#include "truth.h"

#include <sys/mman.h>

#define PAGES   64
#define NOBODYS ((volatile char *)0x100000000000) /* where nothing else is mapped before */

int main(void)
{
	char path[64], line[512], permissions[8] = "";
	int file = memfd_create("shared-reader", 0), reader;
	volatile char *at;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	reader = open(path, O_RDONLY);
	if (ftruncate(file, PAGES * PAGE) || reader < 0)
		return 1;
	at = mmap((void *)NOBODYS, PAGES * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, reader, 0);
	if (at != NOBODYS)
		return 1;
	for (unsigned long i = 0; i < PAGES; i++)
		(void)at[i * PAGE];
	maps = fopen("/proc/self/maps", "r");
	while (fgets(line, sizeof(line), maps)) {
		if (strstr(line, "memfd:shared-reader"))
			sscanf(line, "%*s %7s", permissions);
	}
	truth_text("vma.permissions", permissions);
	truth_address("vma.start", at);
	*at = 1;
	return 0;
}
