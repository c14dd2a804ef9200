/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The operands of the instructions of x86_64 that machine.bpf.h carries out, what is calculated of them, and the flags.
 */
#ifndef FL_ARCH_X86_64_OPERAND_BPF_H
#define FL_ARCH_X86_64_OPERAND_BPF_H

#include "machine_state.bpf.h"

#define FL_RAX 0
#define FL_RSP 4
#define FL_RBP 5
#define FL_RDI 7

#define FL_REX_W 8

static __always_inline u8 fl_code_byte(const struct fl_machine *machine, u32 at)
{
	at &= sizeof(machine->code) - 1;
	barrier_var(at);
	return machine->code[at & (sizeof(machine->code) - 1)];
}

static __always_inline s64 fl_code_number(const struct fl_machine *machine, u32 at)
{
	return (s32)(fl_code_byte(machine, at) | fl_code_byte(machine, at + 1) << 8 |
		     fl_code_byte(machine, at + 2) << 16 | (u32)fl_code_byte(machine, at + 3) << 24);
}

static __always_inline u64 fl_get_register(const struct fl_machine *machine, u32 number)
{
	barrier_var(number);
	return machine->registers[number & 15];
}

static __always_inline void fl_set_register(struct fl_machine *machine, u32 number, u64 value)
{
	barrier_var(number);
	machine->registers[number & 15] = value;
}

/* The immediate's bytes behind an operand. */
static __always_inline u32 fl_immediate_bytes(u32 opcode, u32 number)
{
	if (opcode == 0x80 || opcode == 0x83 || opcode == 0xc6 || (opcode == 0xf6 && !(number & 7)))
		return 1;
	return opcode == 0x81 || opcode == 0xc7 || (opcode == 0xf7 && !(number & 7)) ? 4 : 0;
}

/* Finds the operands of an instruction, whose byte for them is at `at` of the code. Returns where its immediate is. */
__noinline int fl_find_operands(u32 at, u32 opcode, u32 rex)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);
	u32 mode, base, sib;
	u64 address = 0;

	if (!machine)
		return 0;
	base = fl_code_byte(machine, at++);
	mode = base >> 6;
	machine->number = (base >> 3 & 7) | (rex & 4) << 1;
	base &= 7;
	machine->is_memory = mode != 3;
	machine->other = base | (rex & 1) << 3;
	if (mode == 3)
		return at;
	if (base == 4) {
		sib = fl_code_byte(machine, at++);
		base = sib & 7;
		if ((sib >> 3 & 7) != 4 || rex & 2)
			address = fl_get_register(machine, (sib >> 3 & 7) | (rex & 2) << 2) << (sib >> 6);
		if (base != 5 || mode)
			address += fl_get_register(machine, base | (rex & 1) << 3);
		else
			mode = 2;
	} else if (base == 5 && !mode) {
		address = machine->place + at + 4 + fl_immediate_bytes(opcode, machine->number);
		mode = 2;
	} else {
		address = fl_get_register(machine, base | (rex & 1) << 3);
	}
	if (mode == 1)
		address += (s64)(s8)fl_code_byte(machine, at);
	else if (mode == 2)
		address += fl_code_number(machine, at);
	machine->address = address + (machine->of_thread ? machine->thread : 0);
	return at + (mode == 1 ? 1 : mode == 2 ? 4 : 0);
}

/* Reads the operand that may be in memory into the machine's value. */
static __always_inline int fl_load_operand(struct fl_machine *machine, u32 width)
{
	if (machine->is_memory)
		return fl_machine_load(machine->address, width);
	/* ah, ch, dh, bh. */
	if (width == 1 && machine->other >= 4 && !machine->is_extended)
		return 0;
	machine->value = fl_lowest(fl_get_register(machine, machine->other), width);
	return 1;
}

/* Writes a register of that width. One of 4 bytes loses its upper half. */
__noinline int fl_write_register(u32 number, u64 value, u32 width)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);

	if (!machine || width == 2 || (width == 1 && number >= 4 && !machine->is_extended))
		return FL_STEP_LOST;
	if (width == 1)
		value = (fl_get_register(machine, number) & ~0xffULL) | (value & 0xff);
	fl_set_register(machine, number, width == 4 ? (u32)value : value);
	return FL_STEP_DONE;
}

/* Writes to the operand that may be in memory. */
static __always_inline int fl_write_operand(struct fl_machine *machine, u64 value)
{
	if (!machine->is_memory)
		return fl_write_register(machine->other, value, machine->width);
	return fl_machine_store(machine->address, value, machine->width) ? FL_STEP_DONE : FL_STEP_LOST;
}

/* Is the condition of a jump, a set or a move true? -1: not known. */
__noinline int fl_is_condition(u32 condition)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);
	s64 left, right;
	int is;

	if (!machine || machine->compared == FL_COMPARED_NOTHING)
		return -1;
	left = machine->left;
	right = machine->right;
	condition &= 15;
	if (machine->compared == FL_COMPARED_SUM && condition >> 1 != 2 && condition >> 1 != 4)
		return -1;
	switch (condition >> 1) {
	case 1:
		is = (u64)left < (u64)right;
		break;
	case 2:
		is = left == right;
		break;
	case 3:
		is = (u64)left <= (u64)right;
		break;
	case 4:
		is = fl_signed(left - right, machine->bytes) < 0;
		break;
	case 6:
		is = left < right;
		break;
	case 7:
		is = left <= right;
		break;
	default:
		return -1;
	}
	return is ^ (condition & 1);
}

static __always_inline void fl_note_flags(struct fl_machine *machine, enum fl_compared compared, u64 left, u64 right)
{
	machine->compared = compared;
	machine->bytes = machine->width;
	machine->left = fl_signed(left, machine->width);
	machine->right = fl_signed(right, machine->width);
}

/* add, or, and, sub, xor, cmp: 0, 1, 4, 5, 6, 7. The result is the machine's value. 0: another operation; 1: it is to be written; 2: it isn't. */
__noinline int fl_calculate(u32 operation, u64 left, u64 right)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);
	enum fl_compared compared = FL_COMPARED_ZERO;
	u64 value;

	if (!machine)
		return 0;
	if (operation == 5 || operation == 7) {
		fl_note_flags(machine, FL_COMPARED_BOTH, left, right);
		machine->value = left - right;
		return operation == 7 ? 2 : 1;
	}
	if (operation == 0) {
		value = left + right;
		compared = FL_COMPARED_SUM;
	} else if (operation == 1) {
		value = left | right;
	} else if (operation == 4) {
		value = left & right;
	} else if (operation == 6) {
		value = left ^ right;
	} else {
		return 0;
	}
	fl_note_flags(machine, compared, value, 0);
	machine->value = value;
	return 1;
}

#endif
