// SPDX-License-Identifier: GPL-2.0-only
/*
 * A BPF scheduler for tests/vm/call_program.rs: first come, first served. It makes an error on purpose: it puts one task into a queue that
 * isn't there. It serves all tasks: those of SCHED_EXT alone would run only when no other does, and the kernel ends a scheduler whose tasks
 * wait for half a minute.
 */
#define SEC(name) __attribute__((section(name), used))

SEC("license") char LICENSE[] = "GPL";

#define SCX_DSQ_GLOBAL (1ULL << 63 | 1)
#define NO_SUCH_QUEUE 4711
#define SLICE_NS 5000000

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern void scx_bpf_dsq_insert(struct task_struct *p, unsigned long long dsq_id, unsigned long long slice,
			       unsigned long long enq_flags) __attribute__((section(".ksyms")));

/* The members that are set; libbpf finds them among the kernel's by name. */
struct sched_ext_ops {
	int (*select_cpu)(struct task_struct *p, int prev_cpu, unsigned long long wake_flags);
	void (*enqueue)(struct task_struct *p, unsigned long long enq_flags);
	char name[128];
};

/* The task, and how often it is served before. */
const volatile int test_scx_victim = 0;
const volatile unsigned int test_scx_patience = 0;
unsigned int test_scx_served = 0;

/* The kernel's own choice would put the task into a queue by itself. */
SEC("struct_ops/test_scx_select_cpu")
int test_scx_select_cpu(unsigned long long *ctx)
{
	return (int)ctx[1];
}

SEC("struct_ops/test_scx_enqueue")
void test_scx_enqueue(unsigned long long *ctx)
{
	struct task_struct *p = (struct task_struct *)ctx[0];
	unsigned long long queue = SCX_DSQ_GLOBAL;

	if (p->pid == test_scx_victim && test_scx_served++ >= test_scx_patience)
		queue = NO_SUCH_QUEUE;
	scx_bpf_dsq_insert(p, queue, SLICE_NS, ctx[1]);
}

SEC(".struct_ops.link")
struct sched_ext_ops test_scx = {
	.select_cpu = (void *)test_scx_select_cpu,
	.enqueue = (void *)test_scx_enqueue,
	.name = "test_scx",
};
