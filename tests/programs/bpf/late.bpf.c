// SPDX-License-Identifier: GPL-2.0-only
/* An XDP program for tests/vm/call_program.rs, which loads it after faultline's start. */
#define SEC(name) __attribute__((section(name), used))

struct xdp_md;

SEC("license") char LICENSE[] = "GPL";

SEC("xdp")
int test_comes_late(struct xdp_md *ctx)
{
	return 2 /* XDP_PASS */;
}
