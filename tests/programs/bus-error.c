/* SPDX-License-Identifier: MIT */
/*
 * Reads a mapped file behind its end.
 *
 * expect: exit 135
 * expect: signal SIGBUS
 * expect: code BUS_ADRERR
 * expect: fault_type address_error
 * expect: page_fault.error_code 4
 * expect: page_fault.access read
 * expect: vma.permissions r--s
 * expect: vma.offset 0x0
 * expect: diagnosis.kind behind_end_of_file
 * expect: frames read_at main
 */
#include "truth.h"

#include <fcntl.h>
#include <sys/mman.h>

DECLARE_AT(fault_here);

__attribute__((noinline)) static void read_at(const char *address)
{
	TRUTH_AT(fault_here);
	AT(fault_here, LOAD_BYTE ::"r"(address) : LOADED);
}

int main(void)
{
	char path[80];
	char *file;
	int fd;

	/* On a tmpfs: network file systems differ in what lies behind a file's end. */
	snprintf(path, sizeof(path), "/dev/shm/faultline-bus-%d", getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || ftruncate(fd, 100))
		return 2;
	file = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	unlink(path);
	strcat(path, " (deleted)");
	truth_text("vma.mapping_name", path);
	truth_address("fault_address", file + PAGE);
	truth_address("vma.start", file);
	truth_address("vma.end", file + 2 * PAGE);
	read_at(file + PAGE);
	return 0;
}
