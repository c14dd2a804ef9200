/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Rust: the message of a panic that ends the process. It is on the stack as long as the panic's functions are: a pointer and a length in
 * the frame of the closure that calls the panic's hook. The kernel program doesn't know frames: it sends the innermost texts that the stack
 * leads to, with the places where it does so, and user space takes the one in the right frame.
 */
#ifndef FL_RUNTIME_RUST_BPF_H
#define FL_RUNTIME_RUST_BPF_H

#include "text.bpf.h"

#define FL_TEXT_WORDS 160 /* of the stack: the frames from raise() to that closure take less than 1 KiB */
#define FL_TEXT_PART  16  /* that one function looks at: the verifier then follows two short loops */
#define FL_TEXT_LEAST 2   /* bytes: shorter ones are mostly numbers that happen to follow an address */
#define FL_TEXT_MOST  4096

FL_SCRATCH(
	fl_stack_words, struct { u64 words[FL_TEXT_WORDS]; });

/* May these be `length` bytes of a text, 8 at most? Most words of a stack lead to numbers and code. */
static __always_inline bool fl_is_text(u64 bytes, u64 length)
{
	for (u32 i = 0; i < sizeof(bytes); i++) {
		u8 byte = bytes >> i * 8;

		if (i < length && (byte < '\t' || byte == 0x7f || byte > 0xf4 || (byte > '\r' && byte < ' ')))
			return false;
	}
	return true;
}

/* Does a text of `length` bytes at `address` begin and end as one? No letter begins with what others go on with. */
static __always_inline bool fl_may_be_text(u64 address, u64 length)
{
	u64 first = 0, last = 0;

	if (bpf_probe_read_user(&first, sizeof(first), (const void *)address) || !fl_is_text(first, length) ||
	    (u8)(first - 0x80) < 0x42)
		return false;
	if (length <= sizeof(last))
		return true;
	return !bpf_probe_read_user(&last, sizeof(last), (const void *)(address + length - sizeof(last))) &&
	       fl_is_text(last, sizeof(last));
}

/* Adds the text that words `index` and `index` + 1 of fl_stack_words lead to, if they do. 1: there is no room for more. */
__noinline int fl_add_stack_text(u32 index, u32 count)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	u64 *words = fl_scratch(&fl_stack_words), address, length;

	barrier_var(index);
	if (!record || !words || index >= FL_TEXT_WORDS - 1 || count >= FL_TEXTS_MAX)
		return 0;
	address = words[index];
	length = words[index + 1];
	if (length < FL_TEXT_LEAST || length > FL_TEXT_MOST || address < fl_page_bytes || address >= FL_USER_SPACE_END)
		return 0;
	if (!fl_may_be_text(address, length))
		return 0;
	if (!fl_add_text(record, &record->texts[count], address, length))
		return 0;
	record->texts[count].slot = fl_stack_pointer(&record->registers) + index * sizeof(u64);
	return 1;
}

/* Adds the texts that some words from `first` on lead to. `count`: of texts that there are. Returns that with these. */
__noinline u32 fl_add_texts_from(u32 first, u32 count)
{
	u64 *words = fl_scratch(&fl_stack_words);

	if (!words)
		return count;
	for (u32 i = 0; i < FL_TEXT_PART; i++) {
		u32 index = first + i;

		barrier_var(index);
		if (index >= FL_TEXT_WORDS - 1 || count >= FL_TEXTS_MAX)
			break;
		/* Most words are no lengths. */
		if (words[index + 1] - FL_TEXT_LEAST > FL_TEXT_MOST - FL_TEXT_LEAST)
			continue;
		count += fl_add_stack_text(index, count);
	}
	return count;
}

/* The texts that the innermost words of the stack lead to. */
__noinline int fl_add_stack_texts(void)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	u64 *words = fl_scratch(&fl_stack_words);
	u32 count = 0;

	if (!record || !words ||
	    bpf_probe_read_user(words, FL_TEXT_WORDS * sizeof(u64), (const void *)fl_stack_pointer(&record->registers)))
		return 0;
	for (u32 i = 0; i < FL_TEXT_WORDS && count < FL_TEXTS_MAX; i += FL_TEXT_PART)
		count = fl_add_texts_from(i, count);
	return 0;
}

#endif
