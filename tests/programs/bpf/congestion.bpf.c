// SPDX-License-Identifier: GPL-2.0-only
/* A congestion control for tests/vm/call_program.rs: as little as the kernel accepts. */
#define SEC(name) __attribute__((section(name), used))

SEC("license") char LICENSE[] = "GPL";

struct sock;

/* The members that are set; libbpf finds them among the kernel's by name. */
struct tcp_congestion_ops {
	unsigned int (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, unsigned int ack, unsigned int acked);
	unsigned int (*undo_cwnd)(struct sock *sk);
	void (*init)(struct sock *sk);
	void (*release)(struct sock *sk);
	char name[16];
};

/* Programs of this type are given an array of arguments. */
SEC("struct_ops/test_cc_ssthresh")
unsigned int test_cc_ssthresh(unsigned long long *ctx)
{
	return 7;
}

SEC("struct_ops/test_cc_cong_avoid")
void test_cc_cong_avoid(unsigned long long *ctx)
{
}

SEC("struct_ops/test_cc_undo_cwnd")
unsigned int test_cc_undo_cwnd(unsigned long long *ctx)
{
	return 10;
}

SEC("struct_ops/test_cc_init")
void test_cc_init(unsigned long long *ctx)
{
}

SEC("struct_ops/test_cc_release")
void test_cc_release(unsigned long long *ctx)
{
}

SEC(".struct_ops")
struct tcp_congestion_ops test_cc = {
	.ssthresh = (void *)test_cc_ssthresh,
	.cong_avoid = (void *)test_cc_cong_avoid,
	.undo_cwnd = (void *)test_cc_undo_cwnd,
	.init = (void *)test_cc_init,
	.release = (void *)test_cc_release,
	.name = "test_cc",
};
