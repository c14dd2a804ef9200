/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The record under construction, and the names in it.
 *
 * One per CPU is enough: signal_deliver runs with interrupts off, and the kernel runs no program twice at a time on one
 * CPU. Global functions of old kernels take scalars only, so each of them finds the record here by itself.
 */
#ifndef FL_RECORD_BPF_H
#define FL_RECORD_BPF_H

#include "kernel.h"

FL_SCRATCH(fl_records, struct fl_crash);

/* Appends one name and its NUL to the record's strings. 0: well. */
static __always_inline int fl_add_name(struct fl_crash *record, const void *name)
{
	u32 at = record->strings_length;
	long length;

	if (at >= FL_STRINGS_BYTES)
		return -1;
	length = bpf_probe_read_kernel_str(record->strings + at, FL_NAME_BYTES, name);
	if (length <= 0)
		return -1;
	record->strings_length = at + (u32)length;
	return 0;
}

#endif
