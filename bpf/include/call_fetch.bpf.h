/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The values of one call: what fl_function tells to read of its arguments, in order, into struct fl_call.
 *
 * Nothing here waits for memory: what isn't there, or no longer, is marked as unread.
 */
#ifndef FL_CALL_FETCH_BPF_H
#define FL_CALL_FETCH_BPF_H

#include "abi/call.h"
#include "kernel.h"

#define FL_DENTRY_STEPS 12 /* components of a path */

#ifdef FL_TYPED

struct fl_text {
	char bytes[FL_TEXT_BYTES];
};

/* Global: verified once. Only kernels that have typed loads run it, and those let it have a pointer. */
__noinline int fl_copy_text(struct fl_text *to, u32 room, u64 from)
{
	if (!to || !room || room > FL_TEXT_BYTES || (s64)from >= 0)
		return -1;
	for (u32 i = 0; i < FL_TEXT_BYTES; i++) {
		u8 c = *(const volatile u8 *)fl_words(from + i);

		if (i + 1 >= room) {
			to->bytes[i] = 0;
			return i + 1;
		}
		to->bytes[i] = c;
		if (!c)
			return i + 1;
	}
	return -1;
}

#define fl_read_text(to, room, from) fl_copy_text((struct fl_text *)(to), room, from)

/* A number of `bytes`. What is no address of the kernel's can't be read; what isn't mapped there reads as 0. */
static __always_inline long fl_read_number(u64 *value, u32 bytes, u64 from)
{
	if ((s64)from >= 0)
		return -1;
	*value = fl_word((const void *)from);
	if (bytes < 8)
		*value &= (1ULL << (bytes * 8)) - 1;
	return 0;
}

#else

#define fl_read_text(to, room, from) bpf_probe_read_kernel_str(to, room, (const void *)(from))

static __always_inline long fl_read_number(u64 *value, u32 bytes, u64 from)
{
	*value = 0; /* little endian */
	return bpf_probe_read_kernel(value, bytes, (const void *)from);
}

#endif

/*
 * Reads the string at `from` to its place in the call's texts, behind `used` bytes. Its length with the NUL; negative: it could
 * not be read. The verifier takes the room for a whole text's: hence the slack after the last call.
 */
static __always_inline long fl_take_text(struct fl_call *call, u32 which, u32 used, u64 from, bool is_users)
{
	char *to = call->texts;
	u32 room;

	barrier_var(which);
	barrier_var(used);
	if (which >= FL_TEXTS_MAX || used >= FL_TEXT_BYTES)
		return -1;
	to += which * FL_TEXT_BYTES;
	to += used;
	room = FL_TEXT_BYTES - used;
	return is_users ? bpf_probe_read_user_str(to, room, (const void *)from) : fl_read_text(to, room, from);
}

/*
 * The components from the dentry at `from` to the root of its mount, leaf first; the root's own name is `/`, and tells that none
 * is missing. A memfd has a name, and is in no folder. Their length; 0: could not be read.
 */
static __always_inline u64 fl_take_path(struct fl_call *call, u32 which, u64 from)
{
	struct dentry *dentry = (void *)from;
	u32 used = 0;

	for (u32 i = 0; i < FL_DENTRY_STEPS; i++) {
		struct dentry *parent = fl_read(dentry, d_parent);
		long length;

		if (!parent)
			break;
		length = fl_take_text(call, which, used, (u64)fl_read(dentry, d_name.name), false);
		if (length <= 0)
			break;
		used += (u32)length;
		if (parent == dentry)
			break;
		dentry = parent;
	}
	return used;
}

/* The current task's struct file of a file descriptor. 0: none. */
static __always_inline u64 fl_file_of(u32 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = fl_read(task, files, fdt);
	u64 file = 0;

	if (!table || fd >= fl_read(table, max_fds))
		return 0;
	if (fl_read_number(&file, sizeof(file), (u64)fl_read(table, fd) + (u64)fd * sizeof(file)))
		return 0;
	return file;
}

/* One value. False: it could not be read. */
static __always_inline bool fl_fetch(struct fl_call *call, const struct fl_fetch *fetch, u64 *value)
{
	u32 argument = fetch->argument, steps = fetch->dereferences, size = fetch->size, kind = fetch->kind;
	u32 text = fetch->text;
	bool is_users = fetch->flags & FL_FETCH_OF_USER;
	long length;
	u64 at;

	*value = 0;
	barrier_var(argument);
	if (argument >= FL_ARGUMENTS)
		return false;
	at = call->arguments[argument];
	if (fetch->flags & FL_FETCH_OF_FD) {
		at = fl_file_of((u32)at);
		if (!at)
			return false;
	}
	for (u32 i = 0; i < FL_DEREFERENCES_MAX; i++) {
		u32 bytes = 8;
		u64 found = 0;

		if (i >= steps)
			break;
		at += fetch->offsets[i];
		if (i + 1 == steps) {
			if (kind == FL_FETCH_KERNEL_ARRAY)
				break;
			if (kind == FL_FETCH_VALUE)
				bytes = size;
		}
		barrier_var(bytes);
		if (!bytes || bytes > 8)
			return false;
		if (is_users ? bpf_probe_read_user(&found, bytes, (const void *)at) : fl_read_number(&found, bytes, at))
			return false;
		at = found;
	}
	if (kind == FL_FETCH_VALUE) {
		*value = size < 8 ? at & ((1ULL << ((size & 7) * 8)) - 1) : at;
		return true;
	}
	if (kind == FL_FETCH_DENTRY) {
		*value = fl_take_path(call, text, at);
		return *value != 0;
	}
	length = fl_take_text(call, text, 0, at, is_users || kind == FL_FETCH_USER_TEXT);
	if (length <= 0)
		return false;
	*value = length;
	return true;
}

/* The values at the call's begin. */
static __always_inline void fl_fetch_all(struct fl_call *call, const struct fl_function *function)
{
	for (u32 i = 0; i < FL_FETCHES_MAX; i++) {
		u64 value;

		if (i >= function->fetch_count)
			break;
		if (!fl_fetch(call, &function->fetches[i], &value))
			call->unread |= 1u << i;
		call->values[i] = value;
	}
}

/* The values at the call's end: what may have changed, and the user's strings that were not in memory before. */
static __always_inline void fl_fetch_again(struct fl_call *call, const struct fl_function *function)
{
	for (u32 i = 0; i < FL_FETCHES_MAX; i++) {
		const struct fl_fetch *fetch = &function->fetches[i];
		u32 after = fetch->after;
		bool again = fetch->flags & FL_FETCH_AGAIN;
		u64 value;

		if (i >= function->fetch_count)
			break;
		if (!again && !(fetch->kind == FL_FETCH_USER_TEXT && call->unread & 1u << i))
			continue;
		if (!fl_fetch(call, fetch, &value)) {
			if (again)
				call->unread |= 1u << (16 + (after & 7));
			continue;
		}
		if (!again) {
			call->values[i] = value;
			call->unread &= ~(1u << i);
			continue;
		}
		barrier_var(after);
		if (after < FL_AFTER_MAX)
			call->after[after] = value;
	}
}

#endif
