// SPDX-License-Identifier: GPL-2.0-only
/*
 * `faultline call`: a flight recorder of kernel functions: the last calls of each task, kept in the kernel until something asks.
 */
#include "abi/call.h"
#include "filter.bpf.h"
#include "ring.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* What to do at each function, by its number. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct fl_function);
} fl_functions SEC(".maps");

/* Never read: what is neither in a map nor in a variable is not among the types that Rust gets. */
const volatile struct fl_samples {
	struct fl_task task;
	struct fl_call call;
	struct fl_event event;
	enum fl_counter counter;
	enum fl_fetch_kind fetch_kind;
	enum fl_fetch_flag fetch_flag;
	enum fl_function_flag function_flag;
} fl_samples = {};
