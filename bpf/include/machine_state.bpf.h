/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the machine of machine.bpf.h consists of, registers, flags and a stack, and how it reads and writes memory.
 */
#ifndef FL_MACHINE_STATE_BPF_H
#define FL_MACHINE_STATE_BPF_H

#include "kernel.h"

#define FL_OWN_STACK (1ULL << 62) /* where that stack seems to lie: no process has an address there */
#define FL_OWN_WORDS 64

/* What has become of a step. */
enum fl_step { FL_STEP_LOST = 0, FL_STEP_DONE, FL_STEP_RETURNED };

/* The operation that has set the processor's flags. */
enum fl_compared { FL_COMPARED_NOTHING = 0, FL_COMPARED_BOTH, FL_COMPARED_ZERO, FL_COMPARED_SUM };

struct fl_machine {
	u64 registers[16]; /* by the numbers that instructions have for them */
	u64 place;         /* of the instruction; at the end 0 */
	u64 next;          /* of the one behind it */
	u64 value;         /* that was read last */
	u64 address;       /* of the instruction's operand in memory */
	s64 left, right;   /* the flags: what was compared, extended by its sign */
	enum fl_compared compared;
	u32 bytes;     /* of what was compared */
	u32 width;     /* of the instruction's operands, bytes */
	u32 number;    /* of its operand in a register */
	u32 other;     /* of the other one, if that is no memory */
	u32 is_memory; /* it is */
	u32 is_extended;
	u32 of_thread; /* its address counts from the thread's data */
	u64 thread;    /* where they are */
	u64 stack[FL_OWN_WORDS];
	u8 code[32]; /* of the instruction, the longest has 15 bytes; what follows is 0 */
};
FL_SCRATCH(fl_machines, struct fl_machine);

/* The lowest `bytes` bytes of a word. */
static __always_inline u64 fl_lowest(u64 word, u32 bytes)
{
	return bytes >= sizeof(word) ? word : word & ((1ULL << (bytes & 7) * 8) - 1);
}

/* The same, extended by its sign. */
static __always_inline s64 fl_signed(u64 word, u32 bytes)
{
	u32 unused = (sizeof(word) - bytes) * 8 & 63;

	return (s64)(word << unused) >> unused;
}

/* Reads 1, 2, 4 or 8 bytes into the machine's value. 0: they can't be read. */
__noinline int fl_machine_load(u64 address, u32 bytes)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);
	u64 word = 0, at = address - FL_OWN_STACK;
	u32 index = at / sizeof(word);
	long failed;

	if (!machine)
		return 0;
	if (at < FL_OWN_WORDS * sizeof(word)) {
		barrier_var(index);
		if (index >= FL_OWN_WORDS || (at & 7) + bytes > sizeof(word))
			return 0;
		machine->value = fl_lowest(machine->stack[index] >> (at & 7) * 8, bytes);
		return 1;
	}
	if (bytes == sizeof(u64))
		failed = bpf_probe_read_user(&word, sizeof(u64), (const void *)address);
	else if (bytes == sizeof(u32))
		failed = bpf_probe_read_user(&word, sizeof(u32), (const void *)address);
	else if (bytes == sizeof(u16))
		failed = bpf_probe_read_user(&word, sizeof(u16), (const void *)address);
	else
		failed = bpf_probe_read_user(&word, sizeof(u8), (const void *)address);
	machine->value = word;
	return !failed;
}

/* Writes the lowest bytes of `word` to the stack of our own. 0: it is not there. */
__noinline int fl_machine_store(u64 address, u64 word, u32 bytes)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);
	u64 at = address - FL_OWN_STACK, mask;
	u32 index = at / sizeof(word), shift = (at & 7) * 8;

	if (!machine || at >= FL_OWN_WORDS * sizeof(word) || (at & 7) + bytes > sizeof(word))
		return 0;
	barrier_var(index);
	if (index >= FL_OWN_WORDS)
		return 0;
	mask = fl_lowest(~0ULL, bytes) << shift;
	machine->stack[index] = (machine->stack[index] & ~mask) | (word << shift & mask);
	return 1;
}

#endif
