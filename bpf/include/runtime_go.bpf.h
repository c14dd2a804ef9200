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
#include "pt_regs.bpf.h"
#include "signal.h"
#include "runtime_rust.bpf.h"
#include "text.bpf.h"

#define FL_GO_EXIT_CODE 2 /* of a program that a panic ends */

/* Frames between the end of a process and the made-up call: the runtime's, deferred functions. */
#define FL_CHAIN_MAX 64

/* No function is believed to be larger. */
#define FL_GO_FUNCTION_BYTES (64 << 10)

/*
 * Is the function that goes on at `inner` the one that was called right before `place`, as far as the code there shows? Global: verified once, and
 * not for each frame.
 */
__noinline int fl_may_be_called_before(u64 place, u64 inner)
{
	u64 code = 0, target;

	if (bpf_probe_read_user(&code, sizeof(code), (const void *)(place - sizeof(code))))
		return 1;
	target = fl_called_before(place, code);
	return target == FL_CALLED_ANY || (target && inner - target < FL_GO_FUNCTION_BYTES);
}

/*
 * The frame that these frames lead to whose return address is the fault's place, and which no call there has made: that of the made-up call;
 * 0: none. They may change to another stack on the way, so that a frame need not be higher than the one before. A program that has recovered from
 * the panic may have called another function right before the place of the fault.
 */
__noinline u64 fl_find_made_up_call(u64 frame_pointer, u64 place)
{
	u64 pair[2], inner = 0; /* the caller's frame pointer, the return address; that of the frame before */

	for (u32 i = 0; i < FL_CHAIN_MAX; i++) {
		if (bpf_probe_read_user(pair, sizeof(pair), (const void *)frame_pointer))
			return 0;
		if (pair[1] == place && inner && !fl_may_be_called_before(place, inner))
			return frame_pointer;
		inner = pair[1];
		frame_pointer = pair[0];
	}
	return 0;
}

/* The runtime's own structs, runtime/runtime2.go and runtime/type.go (internal/abi/type.go), as they are on 64 bits since Go 1.5. */
struct fl_go_g {
	u64 stack_low, stack_high, guard, guard_of_c, panic, deferred, m;
};
struct fl_go_value { /* interface{} */
	u64 type, data;
};
struct fl_go_string {
	u64 data, length;
};
#define FL_GO_KIND_AT     23 /* in a type */
#define FL_GO_KIND_MASK   31
#define FL_GO_KIND_STRING 24
#define FL_GO_M_WORDS     40 /* of an m, among which is its current goroutine */

FL_SCRATCH(
	fl_go_threads, struct { u64 words[FL_GO_M_WORDS]; });

/* Is there a goroutine at `at`? Its thread (m) must have a goroutine for its own stack (g0) that is of the same thread. */
static __always_inline bool fl_read_go_g(struct fl_go_g *g, u64 at)
{
	u64 first = 0, m = 0;

	return at > fl_page_bytes && !bpf_probe_read_user(g, sizeof(*g), (const void *)at) &&
	       g->stack_low < g->stack_high && g->m &&
	       !bpf_probe_read_user(&first, sizeof(first), (const void *)g->m) &&
	       !bpf_probe_read_user(&m, sizeof(m), (const void *)(first + __builtin_offsetof(struct fl_go_g, m))) &&
	       m == g->m;
}

/* The panic of the goroutine at `candidate`, if there is one, of the thread `m`; 0: none. Global: verified once, and not for each word. */
__noinline u64 fl_go_panic_at(u64 candidate, u64 m)
{
	struct fl_go_g g = {};

	if (candidate & 7 || candidate <= fl_page_bytes || bpf_probe_read_user(&g, sizeof(g), (const void *)candidate))
		return 0;
	return g.m == m && g.stack_low < g.stack_high ? g.panic : 0;
}

/* The panic of the goroutine that the thread of `g` runs; 0: none. The thread itself may be on a stack of its own meanwhile. */
__noinline u64 fl_go_panic_of(u64 at)
{
	struct fl_go_g g = {};
	u64 *words = fl_scratch(&fl_go_threads), panic;

	if (!words || !fl_read_go_g(&g, at))
		return 0;
	if (g.panic)
		return g.panic;
	if (bpf_probe_read_user(words, FL_GO_M_WORDS * sizeof(u64), (const void *)g.m))
		return 0;
	for (u32 i = 1; i < FL_GO_M_WORDS; i++) {
		if (words[i] == words[0] || words[i] == at)
			continue;
		panic = fl_go_panic_at(words[i], g.m);
		if (panic)
			return panic;
	}
	return 0;
}

/* The string that `value` holds. False: it holds something else. */
static __always_inline bool fl_read_go_string(struct fl_go_string *string, const struct fl_go_value *value)
{
	u8 kind = 0;

	return value->type > fl_page_bytes && value->data > fl_page_bytes &&
	       !bpf_probe_read_user(&kind, sizeof(kind), (const void *)(value->type + FL_GO_KIND_AT)) &&
	       (kind & FL_GO_KIND_MASK) == FL_GO_KIND_STRING &&
	       !bpf_probe_read_user(string, sizeof(*string), (const void *)value->data);
}

/* The goroutine of the thread `task`, as its slot says, which code of C doesn't keep in a register. */
static __always_inline u64 fl_go_slot_of(u64 task)
{
	u64 slot = 0;

	bpf_probe_read_user(&slot, sizeof(slot), (void *)(fl_thread_data((struct task_struct *)task) + FL_GO_SLOT));
	return slot;
}

/* The panic of the thread whose goroutine is one of these; 0: none. */
static __always_inline u64 fl_go_panic_by(u64 slot, u64 own)
{
	u64 panic = fl_go_panic_of(slot);

	return panic ? panic : fl_go_panic_of(own);
}

/* The panic that the current thread is in; 0: none. */
__noinline u64 fl_own_go_panic(u64 task)
{
	return fl_go_panic_by(fl_go_slot_of(task), fl_register(fl_regs_go(fl_pt_regs())));
}

/*
 * Does a panic because of the fault with these two registers end the thread? `signal` and `code` are as for fl_recall(), `frame_pointer` is the
 * thread's at its end. Returns the frame of the made-up call; 0: no. Its stack may have been moved since: then a panic must be under way.
 */
static __always_inline u64 fl_go_panic_frame(u32 signal, s32 code, u64 instruction_pointer, u64 stack_pointer,
					     u64 frame_pointer)
{
	u64 frame;

	if (signal ? signal != FL_SIGABRT : code != FL_GO_EXIT_CODE)
		return 0;
	frame = fl_find_made_up_call(frame_pointer, instruction_pointer);
	if (frame && !fl_is_frame_of_made_up_call(frame, stack_pointer) && !fl_own_go_panic(bpf_get_current_task()))
		return 0;
	return frame;
}

#define FL_GO_FRAMES      24 /* of a thread that ends: from raise() to throw() are some ten, with those of the handler */
#define FL_GO_FRAME_WORDS 16 /* of each of them, from its stack pointer on, are looked at */

/*
 * Adds the first text that the frame of the function leads to which is gone on with at `place`, and which ends at `end`: what throw() was
 * given is in its frame. `count`: of texts that there are. Returns that with this one.
 */
__noinline u32 fl_add_go_text(u64 begin, u64 end, u64 place, u32 count)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	u64 *words = fl_scratch(&fl_stack_words);

	if (!record || !words || count >= FL_TEXTS_MAX ||
	    bpf_probe_read_user(words, FL_GO_FRAME_WORDS * sizeof(u64), (const void *)begin))
		return count;
	for (u32 i = 0; i < FL_GO_FRAME_WORDS - 1; i++) {
		if (begin + (i + 2) * sizeof(u64) > end)
			break;
		if (words[i + 1] - FL_TEXT_LEAST > FL_TEXT_MOST - FL_TEXT_LEAST || !fl_add_stack_text(i, count))
			continue;
		barrier_var(count);
		if (count < FL_TEXTS_MAX)
			record->texts[count].slot = place;
		return count + 1;
	}
	return count;
}

/* The texts of the innermost frames, by frame pointers, which may lead from stack to stack. */
__noinline int fl_add_go_texts(void)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	const struct pt_regs *regs = fl_pt_regs();
	u64 frame, pair[2]; /* the caller's frame pointer, the address in the caller */
	u32 count = 0;

	if (!record)
		return 0;
	frame = fl_register(fl_regs_fp(regs));
	for (u32 i = 0; i < FL_GO_FRAMES; i++) {
		if (bpf_probe_read_user(pair, sizeof(pair), (const void *)frame))
			break;
		if (pair[0] - frame < FL_PIECE_BYTES)
			count = fl_add_go_text(frame + sizeof(pair), pair[0], pair[1], count);
		frame = pair[0];
	}
	return 0;
}

/*
 * The value of the panic that ends the process, if it is a string. Those of errors and of all that describes itself are strings by then:
 * preprintpanics(), runtime/panic.go. Also what may have been given to throw(), which may be called meanwhile: user space knows which frame is
 * its.
 */
__noinline int fl_add_go_message(u64 task)
{
	struct fl_crash *record = fl_scratch(&fl_records);
	const struct pt_regs *regs = fl_pt_regs();
	struct fl_go_string string = {};
	struct fl_go_g g = {};
	u64 slot = fl_go_slot_of(task), own = fl_register(fl_regs_go(regs)), panic, words[3] = {};

	if (!record)
		return 0;
	panic = fl_go_panic_by(slot, own);
	if (panic || fl_read_go_g(&g, slot) || fl_read_go_g(&g, own)) {
		record->flags |= FL_IS_GO;
		fl_add_go_texts();
	}
	if (!panic || bpf_probe_read_user(words, sizeof(words), (const void *)panic))
		return 0;
	/* An argument's address stands before the value, or no more. */
	if (fl_read_go_string(&string, (const struct fl_go_value *)(words + 1)) ||
	    fl_read_go_string(&string, (const struct fl_go_value *)words))
		fl_add_text(record, &record->go_panic, string.data, string.length);
	return 0;
}

#endif
