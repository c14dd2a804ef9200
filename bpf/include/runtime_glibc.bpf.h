/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The message of glibc before an abort: its variable __abort_msg points to a length (unsigned int) and the text, for debuggers. The
 * address of the variable is known only for files that user space has looked into.
 */
#ifndef FL_RUNTIME_GLIBC_BPF_H
#define FL_RUNTIME_GLIBC_BPF_H

#include "record.bpf.h"
#include "region.bpf.h"

/* The files of glibc that are known, with the address of __abort_msg in a process that has mapped the file at address 0. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FL_LIBCS_MAX);
	__type(key, struct fl_libc);
	__type(value, u64);
} fl_libcs SEC(".maps");

/*
 * Adds the message of the libc that the thread is in, because abort() raises the signal there. User space checks by the build id that the
 * file is the one that was looked into, and not another with the same number. 0: added, or there is none.
 */
__noinline int fl_add_abort_message(u64 mm)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct vm_area_struct *vma;
	struct fl_libc libc = {};
	struct inode *inode;
	struct file *file;
	u64 *variable, message = 0, base;
	long length;
	u32 at;

	if (!record)
		return -1;
	vma = fl_vma_at(mm, fl_instruction_pointer(&record->registers));
	if (!vma)
		return 0;
	file = fl_read(vma, vm_file);
	if (!file)
		return 0;
	inode = fl_inode_of(file);
	libc.inode = fl_read(inode, i_ino);
	libc.device = fl_read(inode, i_sb, s_dev);
	variable = bpf_map_lookup_elem(&fl_libcs, &libc);
	if (!variable)
		return 0;
	base = fl_read(vma, vm_start) - fl_file_offset(vma);
	if (bpf_probe_read_user(&message, sizeof(message), (const void *)(base + *variable)) || !message)
		return 0;
	at = record->strings_length;
	if (at >= FL_STRINGS_BYTES)
		return 0;
	length = bpf_probe_read_user_str(record->strings + at, FL_NAME_BYTES, (const void *)(message + sizeof(u32)));
	if (length <= 1)
		return 0;
	record->abort_message_offset = at;
	record->abort_message_length = length;
	record->strings_length = at + (u32)length;
	return 0;
}

#endif
