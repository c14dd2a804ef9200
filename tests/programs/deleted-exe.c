/* SPDX-License-Identifier: MIT */
/*
 * Dies after its file was deleted: its functions get names from the file that the process has open, if that outlives the signal
 * long enough to be opened, or no names. Between its first page, which has its build id, and its code there is a gap,
 * as where segments are aligned for larger pages.
 *
 * build: -Wl,-z,max-page-size=0x200000
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: fault_address 0x18
 * expect: comm faultline-delet
 * expect: diagnosis.kind null_dereference
 */
#include "truth.h"

DECLARE_AT(fault_here);

__attribute__((noinline)) static void touch(void)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_INT ::"r"(0x18UL) : "memory");
}

int main(int argc, char **argv)
{
	char path[80];

	if (argc > 1) {
		unlink(argv[1]);
		snprintf(path, sizeof(path), "%s (deleted)", argv[1]);
		truth_text("exe", path);
		touch();
		return 0;
	}
	snprintf(path, sizeof(path), "/dev/shm/faultline-deleted-%d", getpid());
	if (copy_file("/proc/self/exe", path))
		return 2;
	execl(path, argv[0], path, NULL);
	return 2;
}
