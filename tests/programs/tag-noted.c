/* SPDX-License-Identifier: MIT */
/*
 * Writes behind a block, where the memory has another tag than the pointer (MTE). The processor only notes it, and nobody knows where: the signal
 * comes when the thread is in the kernel next.
 *
 * build: -march=armv8.5-a+memtag
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MTEAERR
 * expect: fault_type memory_tag_asynchronous_error
 * expect: fault_address null
 * expect: page_fault null
 * expect: vma null
 * expect: sender null
 * expect: diagnosis.kind tag_mismatch
 * only on arm64: memory has no tags elsewhere
 */
#include "truth.h"

#include "tags.h"

int main(void)
{
	char *block = tagged_block(PR_MTE_TCF_ASYNC);

	write_at(block);
	write_at(block + BLOCK);
	getppid();
	return 0;
}
