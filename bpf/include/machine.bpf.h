/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Follows the code of a small function of the current process to its result, without a call of it: the instructions are carried out one by one,
 * on registers and a stack of our own, and the memory of the process is only read. What writes there, calls the kernel, goes on for long or
 * does anything unusual has no result.
 */
#ifndef FL_MACHINE_BPF_H
#define FL_MACHINE_BPF_H

#if defined(__TARGET_ARCH_x86)
#include "arch_x86_64_machine.bpf.h"
#include "machine_state.bpf.h"

#define FL_STEPS_MAX 128

/*
 * The result of the function at `place`, which is given `argument` alone, in a thread whose own data are at `thread`. 0: it has none, or it is not
 * known.
 */
__noinline u64 fl_follow_function(u64 place, u64 argument, u64 thread)
{
	struct fl_machine *machine = fl_scratch(&fl_machines);
	int step;

	if (!machine)
		return 0;
	__builtin_memset(machine->registers, 0, sizeof(machine->registers));
	machine->compared = FL_COMPARED_NOTHING;
	machine->place = place;
	machine->thread = thread;
	fl_machine_begin(machine, argument);
	for (u32 i = 0; i < FL_STEPS_MAX; i++) {
		step = fl_machine_step();
		if (step == FL_STEP_RETURNED)
			return fl_machine_result(machine);
		if (step != FL_STEP_DONE)
			break;
	}
	return 0;
}

#else

/* The code of no other architecture is followed yet. No function: clang would leave out arguments that it doesn't use, and the verifier wants them. */
#define fl_follow_function(place, argument, thread) ((void)(place), (void)(argument), (void)(thread), 0ULL)

#endif

#endif
