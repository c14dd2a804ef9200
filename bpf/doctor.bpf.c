// SPDX-License-Identifier: GPL-2.0-only
/*
 * `faultline doctor`: one empty program for each way to hook the kernel, loaded and attached one by one to see which works.
 *
 * Each is attached for a moment only and does nothing: it proves that the kernel accepts it.
 */
#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

/* 5.10 refuses the type information of an object if its .rodata has no name in it. */
const volatile u32 fl_doctor = 1;

SEC("raw_tp/signal_deliver")
int fl_try_raw_tp(void *context)
{
	return 0;
}

SEC("tp_btf/signal_deliver")
int fl_try_tp_btf(void *context)
{
	return 0;
}

SEC("kprobe/force_sig_info_to_task")
int fl_try_kprobe(void *context)
{
	return 0;
}

SEC("fentry/force_sig_info_to_task")
int fl_try_fentry(void *context)
{
	return 0;
}

#ifdef FL_TYPED
/* A typed load is tested because it works under lockdown=confidentiality. */
SEC("raw_tp/signal_deliver")
int fl_try_typed(void *context)
{
	return (int)fl_word((void *)bpf_get_current_task());
}
#endif
