/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads the values of one call into struct fl_call: those that fl_function asks for, in order.
 *
 * Nothing here waits for memory: a value that isn't there is marked as unread.
 */
#ifndef FL_CALL_FETCH_BPF_H
#define FL_CALL_FETCH_BPF_H

#include "abi/call.h"
#include "filter.bpf.h"

/*
 * What to do at each function: two entries for each, by its number, one as a kernel function and one by tracepoints. The loader makes
 * the table as long as needed and fills it before the programs are verified, so that the verifier removes what a function doesn't need.
 * It is no constant for the compiler: clang 19 takes what is read of one without `volatile` for the zeros that it begins with.
 */
volatile struct fl_function fl_functions[2 * FL_FUNCTIONS_MAX] SEC(".rodata.functions") = {};

/* NULL: there is none. */
static __always_inline const struct fl_function *fl_function_at(u32 place)
{
	barrier_var(place);
	/* The loader's number is a constant for the verifier. */
	if (place >= fl_config.places || place >= 2 * FL_FUNCTIONS_MAX)
		return NULL;
	return (const struct fl_function *)&fl_functions[place];
}

#define FL_DENTRY_STEPS 12 /* components of a path */

#ifdef FL_TYPED

struct fl_text {
	char bytes[FL_TEXT_BYTES];
};

/* Global, so that it is verified once. Only kernels with typed loads run it, and those allow it a pointer. */
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

/* A number of `bytes`. An address that is not the kernel's can't be read; one that isn't mapped reads as 0. */
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
 * Reads the string at `from` into the call's texts, behind `used` bytes. Returns its length with the NUL; negative: it could not be
 * read. The verifier assumes that a whole text is written, which is why there is slack after the last call.
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
 * The components from the dentry at `from` to the root of its mount, leaf first. The root's own name is `/`, which shows that none is
 * missing. A memfd has a name and is in no folder. Returns their length; 0: they could not be read.
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

/* The value with this number, when the call begins. */
static __always_inline void fl_fetch_first(struct fl_call *call, const struct fl_fetch *fetch, u32 index)
{
	u64 value;

	barrier_var(index);
	if (index >= FL_FETCHES_MAX)
		return;
	if (!fl_fetch(call, fetch, &value))
		call->unread |= 1u << index;
	call->values[index] = value;
}

/* The same when it ends: values that may have changed, and the user's strings that were not in memory before. */
static __always_inline void fl_fetch_last(struct fl_call *call, const struct fl_fetch *fetch, u32 index)
{
	bool again = fetch->flags & FL_FETCH_AGAIN;
	u32 after = fetch->after;
	u64 value;

	barrier_var(index);
	if (index >= FL_FETCHES_MAX)
		return;
	if (!again && !(fetch->kind == FL_FETCH_USER_TEXT && call->unread & 1u << index))
		return;
	if (!fl_fetch(call, fetch, &value)) {
		if (again)
			call->unread |= 1u << (16 + (after & 7));
		return;
	}
	if (!again) {
		call->values[index] = value;
		call->unread &= ~(1u << index);
		return;
	}
	barrier_var(after);
	if (after < FL_AFTER_MAX)
		call->after[after] = value;
}

/* One call, with the room that the verifier assumes for its texts. */
struct fl_room {
	struct fl_call call;
	char slack[FL_TEXT_BYTES];
};

/*
 * Both for a program that serves all functions. It is verified for any value, but once, not once for each value. Only kernels with
 * kprobe.multi (v5.18) run it, and those allow a global function a pointer.
 */
__noinline int fl_fetch_any(struct fl_room *room, u32 place, u32 index, u32 is_end)
{
	const struct fl_function *function = fl_function_at(place);

	barrier_var(index);
	if (!room || !function || index >= FL_FETCHES_MAX)
		return 0;
	if (is_end)
		fl_fetch_last(&room->call, (const struct fl_fetch *)&function->fetches[index], index);
	else
		fl_fetch_first(&room->call, (const struct fl_fetch *)&function->fetches[index], index);
	return 0;
}

/* The values of a call when it begins or ends. `place` is that of its function; with `any` the verifier doesn't know it. */
static __always_inline void fl_fetch_all(struct fl_call *call, const struct fl_function *function, u32 place,
					 bool is_end, bool any)
{
	for (u32 i = 0; i < FL_FETCHES_MAX; i++) {
		if (i >= function->fetch_count)
			break;
		if (any)
			fl_fetch_any((struct fl_room *)call, place, i, is_end);
		else if (is_end)
			fl_fetch_last(call, &function->fetches[i], i);
		else
			fl_fetch_first(call, &function->fetches[i], i);
	}
}

/* Does the trigger's condition hold for the values of this call? A value that could not be read meets none. */
static __always_inline bool fl_is_met(const struct fl_call *call, const struct fl_function *function)
{
	u32 index = function->condition.value, test = function->condition.test, unused = function->condition.unused;
	u64 operand = function->condition.operand;
	bool is_less;
	u64 value;

	if (test == FL_TEST_ALWAYS)
		return true;
	barrier_var(index);
	if (index >= FL_FETCHES_MAX || call->unread & 1u << index)
		return false;
	value = call->values[index];
	if (test == FL_TEST_ANY_BIT)
		return value & operand;
	if (function->condition.is_signed) {
		value = (u64)((s64)(value << (unused & 63)) >> (unused & 63));
		is_less = (s64)value < (s64)operand;
	} else {
		is_less = value < operand;
	}
	switch (test) {
	case FL_TEST_EQUAL:
		return value == operand;
	case FL_TEST_UNEQUAL:
		return value != operand;
	case FL_TEST_LESS:
		return is_less;
	case FL_TEST_AT_MOST:
		return is_less || value == operand;
	case FL_TEST_MORE:
		return !is_less && value != operand;
	default:
		return !is_less;
	}
}

#endif
