/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The record under construction, and the names in it. The probe's abi/PROBE.h, included before, says what it is (FL_RECORD):
 * a struct with strings and strings_length.
 *
 * One per CPU is enough: the programs that use it run with interrupts off, or there is one such program only, and the kernel
 * runs no program twice at a time on one CPU. Where neither holds, the others are loaded apart, with their own. Global functions of old kernels take scalars only, so each of them finds the
 * record here by itself.
 */
#ifndef FL_RECORD_BPF_H
#define FL_RECORD_BPF_H

#include "kernel.h"

FL_SCRATCH(fl_records, FL_RECORD);

/* Appends the name at `name` and its NUL to the record's strings. 0: success. Global, so that it is verified once for all names. */
__noinline int fl_add_name(u64 name)
{
	FL_RECORD *record = fl_scratch(&fl_records);
	u32 at;
	long length;

	if (!record)
		return -1;
	at = record->strings_length;
	if (at >= FL_STRINGS_BYTES)
		return -1;
	length = fl_read_name(record->strings + at, name);
	if (length <= 0)
		return -1;
	record->strings_length = at + (u32)length;
	return 0;
}

#endif
