/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The instructions of x86_64 that machine.bpf.h carries out: those of which compilers make functions that return something they have. Numbers as in the
 * manual's table of opcodes; those behind 0x0f are above 0x100.
 */
#ifndef FL_ARCH_X86_64_MACHINE_BPF_H
#define FL_ARCH_X86_64_MACHINE_BPF_H

#include "arch_x86_64_operand.bpf.h"

/* The stack holds a return address of 0 when it begins. */
#define fl_machine_begin(machine, argument)                                                     \
	({                                                                                      \
		(machine)->registers[FL_RDI] = (argument);                                      \
		(machine)->registers[FL_RSP] = FL_OWN_STACK + (FL_OWN_WORDS - 2) * sizeof(u64); \
		(machine)->stack[FL_OWN_WORDS - 2] = 0;                                         \
	})
#define fl_machine_result(machine) ((machine)->registers[FL_RAX])

/* Goes on at `place`. A call leaves the address behind it on the stack. */
__noinline int fl_go_to(u64 place, u32 is_call)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);

	if (!machine)
		return FL_STEP_LOST;
	if (is_call) {
		machine->registers[FL_RSP] -= sizeof(u64);
		if (!fl_machine_store(machine->registers[FL_RSP], machine->next, sizeof(u64)))
			return FL_STEP_LOST;
	}
	machine->next = place;
	return FL_STEP_DONE;
}

/* Takes a word from the stack into the machine's value. */
static __always_inline int fl_pop(struct fl_machine *machine)
{
	if (!fl_machine_load(machine->registers[FL_RSP], sizeof(u64)))
		return 0;
	machine->registers[FL_RSP] += sizeof(u64);
	return 1;
}

/* An instruction that has no operand in memory: what follows its opcode is at `at` of the code. */
__noinline int fl_step_plain(u32 opcode, u32 at, u32 rex)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);
	u32 number = (opcode & 7) | (rex & 1) << 3;
	int is;

	if (!machine)
		return FL_STEP_LOST;
	if (opcode >= 0x50 && opcode < 0x58) {
		machine->next = machine->place + at;
		machine->registers[FL_RSP] -= sizeof(u64);
		return fl_machine_store(machine->registers[FL_RSP], fl_get_register(machine, number), sizeof(u64));
	}
	if (opcode >= 0x58 && opcode < 0x60) {
		if (!fl_pop(machine))
			return FL_STEP_LOST;
		machine->next = machine->place + at;
		return fl_write_register(number, machine->value, sizeof(u64));
	}
	if (opcode == 0xc9) {
		machine->registers[FL_RSP] = machine->registers[FL_RBP];
		machine->next = machine->place + at;
		return fl_pop(machine) ? fl_write_register(FL_RBP, machine->value, sizeof(u64)) : FL_STEP_LOST;
	}
	if (opcode == 0xc3) {
		machine->next = fl_pop(machine) ? machine->value : 1;
		return machine->next ? FL_STEP_DONE : FL_STEP_RETURNED;
	}
	if (opcode == 0xeb || (opcode >= 0x70 && opcode < 0x80)) {
		machine->next = machine->place + at + 1;
		is = opcode == 0xeb ? 1 : fl_is_condition(opcode);
		if (is > 0)
			machine->next += (s64)(s8)fl_code_byte(machine, at);
		return is < 0 ? FL_STEP_LOST : FL_STEP_DONE;
	}
	machine->next = machine->place + at + 4;
	if (opcode == 0xe8 || opcode == 0xe9)
		return fl_go_to(machine->next + fl_code_number(machine, at), opcode == 0xe8);
	if (opcode >= 0x180 && opcode < 0x190) {
		is = fl_is_condition(opcode);
		if (is > 0)
			machine->next += fl_code_number(machine, at);
		return is < 0 ? FL_STEP_LOST : FL_STEP_DONE;
	}
	if (opcode >= 0xb8 && opcode < 0xc0 && !(rex & FL_REX_W))
		return fl_write_register(number, fl_code_number(machine, at), 4);
	machine->next = machine->place + at;
	if (opcode == 0x98 && rex & FL_REX_W)
		return fl_write_register(FL_RAX, fl_signed(machine->registers[FL_RAX], 4), sizeof(u64));
	return opcode == 0x90 ? FL_STEP_DONE : FL_STEP_LOST;
}

/* A calculation of rax and an immediate, which is at `at` of the code. */
__noinline int fl_step_accumulator(u32 opcode, u32 at, u32 rex)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);
	int what;

	if (!machine)
		return FL_STEP_LOST;
	machine->next = machine->place + at + (opcode & 1 ? 4 : 1);
	machine->width = !(opcode & 1) ? 1 : rex & FL_REX_W ? 8 : 4;
	what = fl_calculate(opcode >= 0xa8 ? 4 : opcode >> 3, fl_lowest(machine->registers[FL_RAX], machine->width),
			    opcode & 1 ? fl_code_number(machine, at) : (s64)(s8)fl_code_byte(machine, at));
	if (what == 2 || (what && opcode >= 0xa8))
		return FL_STEP_DONE;
	return what ? fl_write_register(FL_RAX, machine->value, machine->width) : FL_STEP_LOST;
}

/* Is it such a calculation? */
static __always_inline bool fl_is_accumulator(u32 opcode)
{
	return (opcode < 0x40 && (opcode & 6) == 4) || opcode == 0xa8 || opcode == 0xa9;
}

/* Moves: mov, movzx, movsx, movsxd, lea, cmov, set. -1: it is none. */
__noinline int fl_step_move(u32 opcode, u32 at)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);
	u32 from = machine ? machine->width : 0;
	int is;

	if (!machine)
		return FL_STEP_LOST;
	if (opcode == 0x8d)
		return machine->is_memory ? fl_write_register(machine->number, machine->address, machine->width)
					  : FL_STEP_LOST;
	if (opcode == 0x88 || opcode == 0x89) {
		if (opcode == 0x88 && machine->number >= 4 && !machine->is_extended)
			return FL_STEP_LOST;
		return fl_write_operand(machine, fl_get_register(machine, machine->number));
	}
	if (opcode == 0xc6 || opcode == 0xc7)
		return fl_write_operand(machine, opcode == 0xc7 ? fl_code_number(machine, at)
								: (s64)(s8)fl_code_byte(machine, at));
	if (opcode >= 0x190 && opcode < 0x1a0) {
		is = fl_is_condition(opcode);
		machine->width = 1;
		return is < 0 ? FL_STEP_LOST : fl_write_operand(machine, is);
	}
	if (opcode == 0x1b6 || opcode == 0x1be)
		from = 1;
	else if (opcode == 0x1b7 || opcode == 0x1bf)
		from = 2;
	else if (opcode == 0x63)
		from = 4;
	else if (opcode != 0x8a && opcode != 0x8b && (opcode < 0x140 || opcode >= 0x150))
		return -1;
	if (!fl_load_operand(machine, from))
		return FL_STEP_LOST;
	if (opcode >= 0x140 && opcode < 0x150) {
		is = fl_is_condition(opcode);
		if (is < 0)
			return FL_STEP_LOST;
		if (!is)
			machine->value = fl_get_register(machine, machine->number);
	} else if (opcode == 0x63 || opcode == 0x1be || opcode == 0x1bf) {
		machine->value = fl_signed(machine->value, from);
	}
	return fl_write_register(machine->number, machine->value, machine->width);
}

/* Calculations, and jumps to where an operand leads. */
__noinline int fl_step_calculation(u32 opcode, u32 at)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);
	u64 given, own;
	int what;

	if (!machine)
		return FL_STEP_LOST;
	own = fl_get_register(machine, machine->number);
	if (opcode == 0xff && !(machine->number & 6)) {
		if (!fl_load_operand(machine, machine->width))
			return FL_STEP_LOST;
		/* inc, dec */
		fl_calculate(0, machine->value, machine->number & 1 ? -1 : 1);
		return fl_write_operand(machine, machine->value);
	}
	if (opcode == 0xff) {
		if ((machine->number & 7) != 2 && (machine->number & 7) != 4)
			return FL_STEP_LOST;
		return fl_load_operand(machine, sizeof(u64)) ? fl_go_to(machine->value, (machine->number & 7) == 2)
							     : FL_STEP_LOST;
	}
	if (!fl_load_operand(machine, machine->width))
		return FL_STEP_LOST;
	given = machine->value;
	if (machine->width == 1 && opcode != 0x80 && opcode != 0xf6 && machine->number >= 4 && !machine->is_extended)
		return FL_STEP_LOST;
	if (opcode == 0x84 || opcode == 0x85) {
		fl_note_flags(machine, FL_COMPARED_ZERO, given & own, 0);
		return FL_STEP_DONE;
	}
	if (opcode == 0x81 || opcode == 0xf7)
		own = fl_code_number(machine, at);
	else if (opcode == 0x80 || opcode == 0x83 || opcode == 0xf6)
		own = (s64)(s8)fl_code_byte(machine, at);
	if (opcode == 0xf6 || opcode == 0xf7) {
		fl_note_flags(machine, FL_COMPARED_ZERO, given & own, 0);
		return machine->number & 7 ? FL_STEP_LOST : FL_STEP_DONE;
	}
	if (opcode >= 0x80)
		what = fl_calculate(machine->number & 7, given, own);
	else
		what = opcode & 2 ? fl_calculate(opcode >> 3, own, given) : fl_calculate(opcode >> 3, given, own);
	if (what == 2)
		return FL_STEP_DONE;
	if (!what)
		return FL_STEP_LOST;
	if (opcode < 0x40 && opcode & 2)
		return fl_write_register(machine->number, machine->value, machine->width);
	return fl_write_operand(machine, machine->value);
}

/* Has the instruction operands that a byte of its own describes? */
static __always_inline bool fl_has_operands(u32 opcode)
{
	if (opcode < 0x40)
		return (opcode & 7) < 4;
	if (opcode < 0x100)
		return opcode == 0x63 || (opcode >= 0x80 && opcode < 0x8e) || opcode == 0xc6 || opcode == 0xc7 ||
		       opcode == 0xf6 || opcode == 0xf7 || opcode == 0xff;
	return opcode == 0x11e || opcode == 0x11f || (opcode >= 0x140 && opcode < 0x150) ||
	       (opcode >= 0x190 && opcode < 0x1a0) || opcode == 0x1b6 || opcode == 0x1b7 || opcode == 0x1be ||
	       opcode == 0x1bf;
}

/* An instruction with operands. */
__noinline int fl_step_operands(u32 opcode, u32 at, u32 rex)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);
	u32 behind = fl_find_operands(at, opcode, rex);
	int step;

	if (!machine)
		return FL_STEP_LOST;
	machine->next = machine->place + behind + fl_immediate_bytes(opcode, machine->number);
	/* The opcodes that are even work on bytes. */
	machine->width = rex & FL_REX_W ? 8 : 4;
	if (opcode < 0x100 && opcode != 0x8d && opcode != 0x63 && !(opcode & 1))
		machine->width = 1;
	if (opcode == 0x11e || opcode == 0x11f)
		return FL_STEP_DONE;
	step = fl_step_move(opcode, behind);
	return step < 0 ? fl_step_calculation(opcode, behind) : step;
}

/* Carries out one instruction. */
__noinline int fl_machine_step(void)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);
	u32 at = 0, rex = 0, opcode, is_repeated = 0, is_narrow = 0;
	int step;

	if (!machine || bpf_probe_read_user(machine->code, 16, (const void *)machine->place))
		return FL_STEP_LOST;
	machine->of_thread = 0;
	for (u32 i = 0; i < 3; i++) {
		opcode = fl_code_byte(machine, at);
		if (opcode == 0x66)
			is_narrow = 1;
		else if (opcode == 0xf2 || opcode == 0xf3)
			is_repeated = 1;
		else if (opcode == 0x64)
			machine->of_thread = 1;
		else if (opcode != 0x2e && opcode != 0x3e)
			break;
		at++;
	}
	opcode = fl_code_byte(machine, at++);
	if ((opcode & 0xf0) == 0x40) {
		rex = opcode;
		opcode = fl_code_byte(machine, at++);
	}
	if (opcode == 0x0f)
		opcode = 0x100 + fl_code_byte(machine, at++);
	machine->is_extended = rex != 0;
	/* Those that mean nothing before these: endbr64, rep ret, bnd jmp, nops. */
	if (is_repeated && opcode != 0x11e && opcode != 0xc3 && opcode != 0xff && opcode != 0xe8 && opcode != 0xe9)
		return FL_STEP_LOST;
	if (is_narrow && opcode != 0x11f && opcode != 0x90)
		return FL_STEP_LOST;
	if (fl_is_accumulator(opcode))
		step = fl_step_accumulator(opcode, at, rex);
	else
		step = fl_has_operands(opcode) ? fl_step_operands(opcode, at, rex) : fl_step_plain(opcode, at, rex);
	machine->place = machine->next;
	return step;
}

#endif
