/* SPDX-License-Identifier: MIT */
/*
 * Writes a field of a struct through a null pointer, two calls deep: the address is the field's offset.
 *
 * expect: exit 139
 * expect: signal SIGSEGV
 * expect: code SEGV_MAPERR
 * expect: fault_type map_error
 * expect: disposition fatal
 * expect: fault_address 0x18
 * expect: page_fault.error_code 6
 * expect: page_fault.access write
 * expect: registers.rdi 0x18
 * expect: registers.rsi 0x1122334455667788
 * expect: sender null
 * expect: vma null
 * expect: vma_below null
 * expect: diagnosis.kind null_dereference
 * expect: frames write_field update main
 */
#include "truth.h"

struct item {
	char before[0x18];
	int field;
};

DECLARE_AT(fault_here);

__attribute__((noinline)) static void write_field(struct item *item)
{
	TRUTH_AT(fault_here);
	AT(fault_here, STORE_INT ::IN_FIRST(&item->field), IN_SECOND(0x1122334455667788UL) : "memory");
}

__attribute__((noinline)) static void update(struct item *item)
{
	write_field(item);
}

int main(void)
{
	truth_number("pid", getpid());
	truth_number("tid", getpid());
	truth_number("ppid", getppid());
	truth_number("uid", getuid());
	update(NULL);
	return 0;
}
