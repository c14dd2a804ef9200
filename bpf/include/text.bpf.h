/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Texts in the memory of the current process, copied into the record's strings.
 */
#ifndef FL_TEXT_BPF_H
#define FL_TEXT_BPF_H

#include "record.bpf.h"

#define FL_TEXT_MASK (FL_NAME_BYTES - 1)

/* The longest number of bytes that one text has in a record; what is longer is cut. */
#define FL_TEXT_BYTES FL_TEXT_MASK

/*
 * Appends `length` bytes at `address` to the record's strings; ~0: up to the NUL. Returns how many bytes were appended, without a NUL; 0: it
 * can't be read, or there is no room. Global, so that it is verified once.
 */
__noinline int fl_add_bytes(u64 address, u64 length)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	u32 at, bytes = length > FL_TEXT_BYTES ? FL_TEXT_BYTES : length;
	long copied;

	if (!record || !bytes)
		return 0;
	at = record->strings_length;
	if (at >= FL_STRINGS_BYTES)
		return 0;
	if (length == ~0ULL) {
		copied = bpf_probe_read_user_str(record->strings + at, FL_NAME_BYTES, (const void *)address);
		if (copied <= 1)
			return 0;
		record->strings_length = at + (u32)copied;
		return copied - 1;
	}
	bytes &= FL_TEXT_MASK;
	barrier_var(bytes);
	if (bpf_probe_read_user(record->strings + at, bytes & FL_TEXT_MASK, (const void *)address))
		return 0;
	record->strings_length = at + bytes;
	return bytes;
}

/* The text of `length` bytes at `address`, as above, into `text`, a field of the record. */
#define fl_add_text(record, text, from, bytes)          \
	({                                              \
		u32 begin = (record)->strings_length;   \
		u32 copied = fl_add_bytes(from, bytes); \
		(text)->address = (from);               \
		(text)->offset = begin;                 \
		(text)->length = copied;                \
		copied;                                 \
	})

#endif
