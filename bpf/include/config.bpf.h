/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the loader sets before the programs are verified. The maps of these are frozen: for the verifier they are constants, and it removes
 * branches that were not asked for.
 */
#ifndef FL_CONFIG_BPF_H
#define FL_CONFIG_BPF_H

#include "kernel.h"

const volatile struct fl_filter_config fl_filter_config = {};
const volatile struct fl_config fl_config = {}; /* of the probe: abi/PROBE.h */

/* Never read: Rust gets only types of maps and variables. */
const volatile struct fl_constants {
	enum fl_limit limit;
	enum fl_own_limit own_limit; /* of the probe: abi/PROBE.h */
	enum fl_mark mark;
	enum fl_arch arch;
} fl_constants = {};

/* The pages of this machine. */
#define fl_page_shift       (fl_filter_config.page_shift)
#define fl_page_bytes       (1ULL << fl_page_shift)
#define fl_page_of(address) ((address) & ~(fl_page_bytes - 1))

/* Copies so many arguments of a hook, a constant, as numbers: whether or not the kernel knows their types. 0: success. */
static __always_inline long fl_take_arguments(u64 *to, u32 count, const unsigned long long *context)
{
#ifndef FL_TYPED
	if (fl_has_typed_arguments())
		return bpf_probe_read_kernel(to, count * sizeof(*to), context);
#endif
#pragma unroll
	for (u32 i = 0; i < count; i++)
		to[i] = context[i];
	return 0;
}

#endif
