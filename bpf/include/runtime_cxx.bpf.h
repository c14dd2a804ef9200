/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C++: the exception that the thread has in hand when it aborts, which is the one that std::terminate() was called for.
 *
 * libstdc++ keeps it in a variable of the thread's own (__cxa_get_globals()). Where that lies among the thread's data isn't known, but what it
 * points to bears the mark of the compiler. what() can't be called from here: what it will return is sent, and user space reads its code.
 */
#ifndef FL_RUNTIME_CXX_BPF_H
#define FL_RUNTIME_CXX_BPF_H

#include "text.bpf.h"

/* struct __cxa_exception, libsupc++/unwind-cxx.h: the object stands behind it. */
#define FL_CXX_CLASS_AT  80                    /* unwindHeader.exception_class */
#define FL_CXX_HEADER    112                   /* bytes */
#define FL_CXX_CLASS     0x474e5543432b2b00ULL /* "GNUCC++\0" */
#define FL_CXX_DEPENDENT (FL_CXX_CLASS | 1)    /* std::rethrow_exception(): the object's address is the first word */

/* glibc: in the table of the modules' variables of a thread (dtv_t). */
#define FL_CXX_MODULES 12
#define FL_CXX_WORDS   32 /* of each module's variables */

FL_SCRATCH(
	fl_cxx_words, struct { u64 words[FL_CXX_WORDS]; });

/* The object of the exception whose header is at `header`; 0: there is no header. */
static __always_inline u64 fl_cxx_object_of(u64 header)
{
	u64 mark = 0, primary = 0;

	if (header & 7 || header < fl_page_bytes ||
	    bpf_probe_read_user(&mark, sizeof(mark), (const void *)(header + FL_CXX_CLASS_AT)))
		return 0;
	if (mark == FL_CXX_CLASS)
		return header + FL_CXX_HEADER;
	if (mark != FL_CXX_DEPENDENT || bpf_probe_read_user(&primary, sizeof(primary), (const void *)header))
		return 0;
	return primary;
}

/* Looks among the variables at `block` for the exception in hand. The first one is the address of its header. */
__noinline u64 fl_cxx_object_in(u64 block)
{
	u64 *words = fl_scratch(&fl_cxx_words);
	u64 object;

	if (!words)
		return 0;
	for (u32 i = 0; i < FL_CXX_WORDS; i++) {
		if (bpf_probe_read_user(words, sizeof(*words), (const void *)(block + i * sizeof(u64))))
			return 0;
		object = fl_cxx_object_of(words[0]);
		if (object)
			return object;
	}
	return 0;
}

/* The exception that the thread has in hand; 0: none is known. */
__noinline u64 fl_cxx_object(u64 data)
{
	u64 head[2] = {}, block = 0, object;

	if (bpf_probe_read_user(head, sizeof(head), (const void *)data) || !fl_is_thread_head(head, data))
		return 0;
	for (u32 module = 1; module <= FL_CXX_MODULES; module++) {
		if (bpf_probe_read_user(&block, sizeof(block), (const void *)(fl_thread_modules(head) + module * 16)))
			return 0;
		/* -1: not made yet. */
		if (block < fl_page_bytes || block == ~0ULL)
			continue;
		object = fl_cxx_object_in(block);
		if (object)
			return object;
	}
	return 0;
}

/* A type's name, into `text`: struct std::type_info. Returns the type that it is derived from, if it is from one alone or first; 0: none. */
static __always_inline u64 fl_add_cxx_type(struct fl_crash *record, struct fl_text *text, u64 type)
{
	u64 words[4] =
		{}; /* virtual table, name, and then the base or, where there are several, their number and the first one */

	if (type < fl_page_bytes || bpf_probe_read_user(words, sizeof(words), (const void *)type) ||
	    words[1] < fl_page_bytes)
		return 0;
	fl_add_text(record, text, words[1], ~0ULL);
	return words[2] >> 32 && words[2] >> 32 < 16 && (u32)words[2] < 16 ? words[3] : words[2];
}

/* The text that what() returns a constant address of, if its code has one. */
__noinline int fl_add_cxx_literal(u32 at)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_exception *exception;
	u64 address;

	barrier_var(at);
	if (!record || at >= FL_WHAT_CODE_BYTES - FL_LOAD_BYTES)
		return 0;
	exception = &record->exception;
	address = fl_loaded_address(exception->code + at, exception->what + at);
	if (!address)
		return 0;
	fl_add_text(record, &exception->literal, address, ~0ULL);
	return 1;
}

/* The object's words behind the first one, and the texts that they lead to. */
__noinline int fl_add_cxx_member(u32 index)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	u64 member = 0;

	barrier_var(index);
	if (!record || index >= FL_MEMBERS_MAX)
		return 0;
	bpf_probe_read_user(&member, sizeof(member),
			    (const void *)(record->exception.object + (u64)(index + 1) * sizeof(u64)));
	record->exception.members[index] = member;
	if (member >= fl_page_bytes)
		fl_add_text(record, &record->exception.texts[index], member, ~0ULL);
	return 0;
}

/* The exception that the current thread, with its data at `data`, has in hand. */
__noinline int fl_add_cxx_exception(u64 data)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	u64 object = fl_cxx_object(data), type = 0, table = 0, what = 0;
	struct fl_exception *exception;

	if (!record || !object || bpf_probe_read_user(&type, sizeof(type), (const void *)(object - FL_CXX_HEADER)))
		return 0;
	exception = &record->exception;
	__builtin_memset(exception, 0, sizeof(*exception));
	exception->object = object;
	type = fl_add_cxx_type(record, &exception->type_name, type);
	for (u32 i = 0; i < FL_BASES_MAX; i++)
		type = fl_add_cxx_type(record, &exception->bases[i], type);
	for (u32 i = 0; i < FL_MEMBERS_MAX; i++)
		fl_add_cxx_member(i);
	/* Two destructors stand before it. */
	if (bpf_probe_read_user(&table, sizeof(table), (const void *)object) ||
	    bpf_probe_read_user(&what, sizeof(what), (const void *)(table + 2 * sizeof(u64))) || what < fl_page_bytes)
		return 0;
	exception->what = what;
	if (bpf_probe_read_user(exception->code, FL_WHAT_CODE_BYTES, (const void *)what))
		return 0;
	exception->code_length = FL_WHAT_CODE_BYTES;
	for (u32 i = 0; i < FL_WHAT_CODE_BYTES - FL_LOAD_BYTES; i++) {
		if (fl_add_cxx_literal(i))
			break;
	}
	return 0;
}

#endif
