/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a Go program ends after a fault.
 *
 * Go's handler returns into a call of sigpanic() that it has made up, whose return address is the fault's place. A panic that is not
 * recovered ends in exit(2), or in SIGABRT if a core dump is wanted. Before that, deferred functions run and stacks are printed
 * (GOTRACEBACK=all: of all goroutines), which may take many seconds.
 */
#ifndef FL_RUNTIME_GO_BPF_H
#define FL_RUNTIME_GO_BPF_H

#include "kernel.h"
#include "signal.h"

#define FL_GO_EXIT_CODE 2 /* of a program that a panic ends */

/* Frames between the end of a process and the made-up call: the runtime's, deferred functions. */
#define FL_CHAIN_MAX 64

/*
 * Do the frames from this frame pointer on lead to the one whose return address lies at `slot`? They may change to another stack on
 * the way, so that a frame need not be higher than the one before.
 */
__noinline int fl_is_called_from(u64 frame_pointer, u64 slot)
{
	u64 wanted = slot - sizeof(u64); /* the caller's frame pointer lies below it */

	for (u32 i = 0; i < FL_CHAIN_MAX; i++) {
		if (frame_pointer == wanted)
			return 1;
		if (bpf_probe_read_user(&frame_pointer, sizeof(frame_pointer), (const void *)frame_pointer))
			return 0;
	}
	return 0;
}

/*
 * Does a panic because of the fault with these two registers end the thread? `signal` and `code` are as for
 * fl_recall(), `frame_pointer` is the thread's at its end.
 */
static __always_inline bool fl_is_go_panic(u32 signal, s32 code, u64 instruction_pointer, u64 stack_pointer,
					   u64 frame_pointer)
{
	u64 slot = fl_made_up_call(stack_pointer), above = 0;

	if (signal ? signal != FL_SIGABRT : code != FL_GO_EXIT_CODE)
		return false;
	if (bpf_probe_read_user(&above, sizeof(above), (const void *)slot) || above != instruction_pointer)
		return false;
	/* A program that has recovered from the panic leaves the word where it is. */
	return fl_is_called_from(frame_pointer, slot);
}

#endif
