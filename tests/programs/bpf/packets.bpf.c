// SPDX-License-Identifier: GPL-2.0-only
/* An XDP program for tests/vm/call_program.rs: it drops the packets whose first byte is odd. Its name is longer than the kernel keeps. */
#define SEC(name) __attribute__((section(name), used))

struct xdp_md {
	unsigned int data;
	unsigned int data_end;
};

SEC("license") char LICENSE[] = "GPL";

SEC("xdp")
int test_drops_odd_packets(struct xdp_md *ctx)
{
	unsigned char *data = (unsigned char *)(long)ctx->data;

	if (data + 1 > (unsigned char *)(long)ctx->data_end)
		return 0; /* XDP_ABORTED */
	return *data & 1 ? 1 /* XDP_DROP */ : 2 /* XDP_PASS */;
}
