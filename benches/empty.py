#!/usr/bin/env python3
"""Attaches an empty program to each hook and waits: what a hook costs, whatever hangs on it.

    benches/empty.py HOOK...       as raw_tp/signal_deliver, tracepoint/syscalls/sys_exit_mmap

ci/bench puts it beside faultline: nothing that uses all of these hooks can cost less. The programs are called fl_empty. Says
`watching` when all are attached. Needs root, and for tracepoints tracefs.
"""

import ctypes
import fcntl
import os
import signal
import struct
import sys
from pathlib import Path

# x86_64: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/linux/bpf.h and perf_event.h
NR_BPF, NR_PERF_EVENT_OPEN = 321, 298
BPF_PROG_LOAD, BPF_RAW_TRACEPOINT_OPEN = 5, 17
BPF_PROG_TYPE_TRACEPOINT, BPF_PROG_TYPE_RAW_TRACEPOINT = 5, 17
PERF_TYPE_TRACEPOINT, PERF_FLAG_FD_CLOEXEC = 2, 8
PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_SET_BPF = 0x2400, 0x40042408
PERF_ATTR_BYTES, BPF_ATTR_BYTES = 112, 128

LIBC = ctypes.CDLL(None, use_errno=True)
RETURN_0 = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)  # r0 = 0; exit


def call(number, *arguments):
    result = LIBC.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def bpf(command, attributes):
    return call(NR_BPF, command, ctypes.create_string_buffer(attributes, BPF_ATTR_BYTES), len(attributes))


def empty_program(kind):
    """A descriptor of a program that returns 0."""
    instructions = ctypes.create_string_buffer(RETURN_0)
    license_text = ctypes.create_string_buffer(b"GPL")
    # prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags, prog_name
    return bpf(
        BPF_PROG_LOAD,
        struct.pack(
            "<IIQQIIQII16s",
            kind,
            len(RETURN_0) // 8,
            ctypes.addressof(instructions),
            ctypes.addressof(license_text),
            *(0, 0, 0, 0, 0),
            b"fl_empty",
        ),
    )


def attach(hook):
    kind, _, name = hook.partition("/")
    if kind == "raw_tp":
        text = ctypes.create_string_buffer(name.encode())
        program = empty_program(BPF_PROG_TYPE_RAW_TRACEPOINT)
        bpf(BPF_RAW_TRACEPOINT_OPEN, struct.pack("<QII", ctypes.addressof(text), program, 0))
        return
    number = int(Path(f"/sys/kernel/tracing/events/{name}/id").read_text())
    # type, size, config, sample_period: the rest is 0
    attributes = struct.pack("<IIQQ", PERF_TYPE_TRACEPOINT, PERF_ATTR_BYTES, number, 1)
    buffer = ctypes.create_string_buffer(attributes, PERF_ATTR_BYTES)
    event = call(NR_PERF_EVENT_OPEN, buffer, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)
    fcntl.ioctl(event, PERF_EVENT_IOC_SET_BPF, empty_program(BPF_PROG_TYPE_TRACEPOINT))
    fcntl.ioctl(event, PERF_EVENT_IOC_ENABLE, 0)


def main():
    for hook in sys.argv[1:]:
        try:
            attach(hook)
        except OSError as error:
            sys.exit(f"failed to attach to {hook}: {error}")
    print("watching", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
