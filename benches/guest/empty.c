/* SPDX-License-Identifier: MIT */
/*
 * Attaches an empty program to each hook and waits: what a hook costs, whatever hangs on it. What benches/empty.py does where there is
 * a Python.
 *
 *   empty HOOK...       as raw_tp/signal_deliver, tracepoint/syscalls/sys_exit_mmap
 */
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static long bpf(int command, union bpf_attr *attributes)
{
	return syscall(SYS_bpf, command, attributes, sizeof(*attributes));
}

static int program(enum bpf_prog_type type)
{
	struct bpf_insn instructions[] = { { .code = BPF_ALU64 | BPF_MOV | BPF_K }, { .code = BPF_JMP | BPF_EXIT } };
	union bpf_attr attributes = { .prog_type = type,
				      .insn_cnt = 2,
				      .insns = (unsigned long)instructions,
				      .license = (unsigned long)"GPL",
				      .prog_name = "fl_empty" };

	return bpf(BPF_PROG_LOAD, &attributes);
}

static int attach_raw(const char *name)
{
	union bpf_attr attributes = { .raw_tracepoint = { .name = (unsigned long)name,
							  .prog_fd = program(BPF_PROG_TYPE_RAW_TRACEPOINT) } };

	return bpf(BPF_RAW_TRACEPOINT_OPEN, &attributes) < 0;
}

static int attach_tracepoint(const char *name)
{
	struct perf_event_attr event = { .type = PERF_TYPE_TRACEPOINT, .size = sizeof(event), .sample_period = 1 };
	char path[256];
	FILE *file;
	int descriptor;

	snprintf(path, sizeof(path), "/sys/kernel/tracing/events/%s/id", name);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%llu", &event.config) != 1)
		return 1;
	fclose(file);
	descriptor = syscall(SYS_perf_event_open, &event, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	return descriptor < 0 || ioctl(descriptor, PERF_EVENT_IOC_SET_BPF, program(BPF_PROG_TYPE_TRACEPOINT)) ||
	       ioctl(descriptor, PERF_EVENT_IOC_ENABLE, 0);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		char *name = strchr(argv[i], '/');

		if (!name || (strncmp(argv[i], "raw_tp/", 7) ? attach_tracepoint(name + 1) : attach_raw(name + 1))) {
			fprintf(stderr, "failed to attach to %s: %m\n", argv[i]);
			return 1;
		}
	}
	fputs("watching\n", stderr);
	pause();
	return 0;
}
