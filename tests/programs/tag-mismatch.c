/* SPDX-License-Identifier: MIT */
/*
 * Writes behind a block, where the memory has another tag than the pointer (MTE).
 *
 * build: -march=armv8.5-a+memtag
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MTESERR
 * expect: fault_type memory_tag_synchronous_error
 * expect: page_fault null
 * expect: vma.permissions rw-p
 * expect: diagnosis.kind tag_mismatch
 * expect: diagnosis.confidence certain
 * expect: frames write_at main
 * only on arm64: memory has no tags elsewhere
 */
#include "truth.h"

#include "tags.h"

int main(void)
{
	char *block = tagged_block(PR_MTE_TCF_SYNC);

	truth_address("fault_address", untagged(block) + BLOCK);
	write_at(block);
	write_at(block + BLOCK);
	return 0;
}
