/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sends what user space needs to unwind a stack without frame pointers when the process is gone: a copy of the stack from the stack
 * pointer up, page by page, and all executable mappings; of many those that words of the stack point into.
 *
 * Pages, and mappings for which the record has no room, go into the ring before the record that they belong to. A page that was never used, or
 * that is not in memory, is a hole. What finds no room in the ring is missing, and counted as FL_LOST_PAGES.
 */
#ifndef FL_STACK_COPY_BPF_H
#define FL_STACK_COPY_BPF_H

#include "filter.bpf.h"
#include "ring.bpf.h"
#include "stack.bpf.h"

FL_SCRATCH(fl_stack_pages, struct fl_stack_page);

#define FL_LED_WORDS_MAX 8192 /* words of a stack that are looked through for where they lead: 64 KiB */

/* Adds the mapping at or above unwind->address to the record's modules if it is executable. 0: there may be more above. */
__noinline int fl_mapping_step(void)
{
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);
	struct vm_area_struct *vma, *below, *above;

	if (!unwind)
		return 1;
	vma = fl_vma_at(unwind->mm, unwind->address);
	if (!vma) {
		fl_vma_neighbours(unwind->mm, &below, &above);
		if (!above)
			return 1;
		vma = above;
	}
	if (fl_read(vma, vm_flags) & VM_EXEC && fl_add_module(unwind->mm, fl_read(vma, vm_start)) == FL_MODULES_MAX)
		return 1;
	unwind->address = fl_read(vma, vm_end);
	return 0;
}

/* Sixteen times that: the verifier then follows two short loops, not one of 512 rounds. */
__noinline int fl_mapping_steps(void)
{
	for (int i = 0; i < 16; i++) {
		if (fl_mapping_step())
			return 1;
	}
	return 0;
}

/* Adds executable mappings to the record's modules, the lowest first. True: there are more of them, or too many to look through. */
static __always_inline bool fl_add_lowest(struct fl_unwind *unwind)
{
	struct fl_crash *record = fl_scratch(&fl_records);

	unwind->address = 0;
	for (int i = 0; i < FL_MAPPINGS_MAX / 16; i++) {
		if (fl_mapping_steps())
			return record && record->module_count >= FL_MODULES_MAX;
	}
	return true;
}

/* Where the search for mappings that the stack leads to begins and ends. */
static __always_inline void fl_begin_search(const struct fl_crash *record, struct fl_unwind *unwind)
{
	u64 bytes = (u64)fl_config.stack_pages * FL_PIECE_BYTES;

	unwind->parts = 0;
	unwind->files = record->file_count;
	unwind->strings = record->strings_length;
	unwind->address = fl_stack_pointer(&record->registers) & ~(sizeof(u64) - 1);
	unwind->end = record->stack_vma.vm_end;
	if (record->stack_above.vm_end) {
		unwind->address = record->stack_above.vm_start;
		unwind->end = record->stack_above.vm_end;
	}
	if (bytes > FL_LED_WORDS_MAX * sizeof(u64))
		bytes = FL_LED_WORDS_MAX * sizeof(u64);
	if (unwind->end > unwind->address + bytes)
		unwind->end = unwind->address + bytes;
}

/*
 * Adds all executable mappings to the record's modules. 1: there is no room for all of them. Those of the frames are kept alone, and
 * fl_add_led_to() is to add others.
 */
__noinline int fl_add_mappings(u64 mm)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);
	u32 walked;

	if (!record || !unwind)
		return 0;
	unwind->mm = mm;
	walked = record->module_count;
	if (!fl_add_lowest(unwind))
		return 0;
	record->module_count = walked;
	fl_begin_search(record, unwind);
	return 1;
}

enum fl_word { FL_WORD_NEXT = 0, FL_WORD_LAST, FL_WORD_NO_ROOM };

/* Adds the mapping that the word at unwind->address points into, if it is executable. */
__noinline int fl_word_step(void)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);
	u64 address, word;

	if (!record || !unwind || unwind->address >= unwind->end)
		return FL_WORD_LAST;
	address = unwind->address;
	unwind->address = address + sizeof(word);
	if (bpf_probe_read_user(&word, sizeof(word), (const void *)address)) {
		unwind->address = (address | (FL_PIECE_BYTES - 1)) + 1;
		return FL_WORD_NEXT;
	}
	/* Most words are small numbers, or point to the stack or the heap. */
	if ((s64)word <= FL_PIECE_BYTES ||
	    word - record->stack_vma.vm_start < record->stack_vma.vm_end - record->stack_vma.vm_start ||
	    word - record->start_brk < record->brk - record->start_brk)
		return FL_WORD_NEXT;
	if (fl_add_module(unwind->mm, word - 1) != FL_MODULES_MAX)
		return FL_WORD_NEXT;
	unwind->address -= sizeof(word);
	return FL_WORD_NO_ROOM;
}

/* So many times that: as fl_mapping_steps(). */
__noinline int fl_word_steps(void)
{
	for (int i = 0; i < 64; i++) {
		int done = fl_word_step();

		if (done)
			return done;
	}
	return FL_WORD_NEXT;
}

/*
 * Adds the executable mappings that the stack leads to, the innermost first: a return address is a word of the stack. At the end of the stack
 * come the lowest ones, as far as there is room. 1: there is no room for the next one until fl_send_modules() has made it.
 */
__noinline int fl_add_led_to(void)
{
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);

	if (!unwind)
		return 0;
	for (int i = 0; i < FL_LED_WORDS_MAX / 64; i++) {
		int done = fl_word_steps();

		if (done == FL_WORD_NO_ROOM)
			return unwind->parts < FL_PARTS_MAX;
		if (done)
			break;
	}
	fl_add_lowest(unwind);
	return 0;
}

/*
 * Has the ring room for a page, and for the record after it? A record without its stack says more than a stack without its record: an eighth of
 * the ring is for records alone, so that one of a program that dies for the first time finds room in the middle of a storm. Benign
 * race: other processors may take the room meanwhile, and the record is then counted as lost.
 */
static __always_inline bool fl_page_has_room(void)
{
	u64 wanted = sizeof(struct fl_stack_page) + sizeof(struct fl_crash) + 2 * BPF_RINGBUF_HDR_SZ;
	u64 size = bpf_ringbuf_query(&fl_ring, BPF_RB_RING_SIZE);

	return bpf_ringbuf_query(&fl_ring, BPF_RB_AVAIL_DATA) + wanted < size - size / 8;
}

/*
 * Sends the record's modules, which have been described, as a sample of their own, and makes room for others. The first one stays: it is most
 * often the innermost frame's, of which more is said than of others.
 */
__noinline int fl_send_modules(void)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);
	u64 length;

	if (!record || !unwind)
		return 1;
	record->kind = FL_SAMPLE_MODULES;
	length = __builtin_offsetof(struct fl_crash, strings) + record->strings_length;
	barrier_var(length); /* or the check is done on another copy, and old verifiers don't see that both are equal */
	if (length > sizeof(*record))
		return 1;
	if (!fl_page_has_room() || bpf_ringbuf_output(&fl_ring, record, length, BPF_RB_NO_WAKEUP))
		fl_count(FL_LOST_PAGES);
	record->kind = FL_SAMPLE_CRASH;
	record->module_count = 1;
	record->file_count = unwind->files;
	record->strings_length = unwind->strings;
	unwind->parts += 1;
	return 0;
}

/* Sends the page at unwind->address. 0: there may be more above. */
__noinline int fl_page_step(void)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_stack_page *page = fl_scratch(&fl_stack_pages);
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);

	if (!record || !page || !unwind || unwind->address >= unwind->end)
		return 1;
	page->kind = FL_SAMPLE_STACK_PAGE;
	page->tid = (u32)bpf_get_current_pid_tgid();
	page->timestamp_ns = record->timestamp_ns;
	page->address = unwind->address;
	unwind->address += FL_PIECE_BYTES;
	if (bpf_probe_read_user(page->bytes, FL_PIECE_BYTES, (const void *)page->address))
		return 0;
	unwind->pages += 1;
	if (!fl_page_has_room() || bpf_ringbuf_output(&fl_ring, page, sizeof(*page), BPF_RB_NO_WAKEUP))
		fl_count(FL_LOST_PAGES);
	return 0;
}

/* So many times that, sixteen at most: as fl_mapping_steps(). */
__noinline int fl_page_steps(u32 most)
{
	for (u32 i = 0; i < 16; i++) {
		if (i >= most || fl_page_step())
			return 1;
	}
	return 0;
}

/* Sends the stack that has overflowed: half of what may be sent from its lower end on, without the holes, and half at its upper end. */
static __always_inline void fl_send_overflown(struct fl_unwind *unwind)
{
	u32 half = fl_config.stack_pages / 2 + 1;
	u64 last;

	unwind->pages = 0;
	for (u32 i = 0; i < FL_STACK_PAGES_MAX; i++) {
		if (unwind->pages >= half || fl_page_step())
			break;
	}
	last = unwind->end - (u64)half * FL_PIECE_BYTES;
	if (unwind->address < last)
		unwind->address = last;
	for (u32 i = 0; i < FL_STACK_PAGES_MAX / 2 + 1; i += 16) {
		if (i >= half || fl_page_steps(half - i))
			break;
	}
}

/*
 * Sends the stack of the record's registers, from the page of the stack pointer to the end of the mapping. If the stack has overflowed,
 * it is the mapping above the stack pointer, the lower and the upper end of it: the callers of a large frame are anywhere above. What was sent with a sample of the same end is not sent again,
 * nor is what was sent a moment before with another fault of the same place (pages_max).
 */
__noinline int fl_send_stack(void)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	struct fl_unwind *unwind = fl_scratch(&fl_unwinds);
	u32 pages;
	u64 first;

	if (!record || !unwind)
		return 1;
	pages = unwind->pages_max;
	unwind->address = fl_stack_pointer(&record->registers) & ~(FL_PIECE_BYTES - 1ULL);
	unwind->end = record->stack_vma.vm_end;
	if (record->stack_above.vm_end) {
		unwind->address = record->stack_above.vm_start;
		unwind->end = record->stack_above.vm_end;
		if (pages > FL_PAGES_AGAIN) {
			fl_send_overflown(unwind);
			return 0;
		}
	}
	if (unwind->address - unwind->sent < unwind->sent_bytes)
		unwind->address = unwind->sent + unwind->sent_bytes;
	first = unwind->address;
	if (record->flags & FL_IS_ALTERNATIVE && !unwind->sent_bytes) {
		/* However little of a stack is wanted, the proof needs it as far as the search went. */
		if (unwind->end > unwind->until)
			unwind->end = unwind->until;
		pages = FL_STACK_PAGES_MAX;
	}
	for (u32 i = 0; i < FL_STACK_PAGES_MAX; i += 16) {
		if (i >= pages || fl_page_steps(pages - i))
			break;
	}
	if (record->flags & FL_IS_ALTERNATIVE && !unwind->sent_bytes) {
		unwind->sent = first;
		unwind->sent_bytes = unwind->address - first;
	}
	return 0;
}

#endif
