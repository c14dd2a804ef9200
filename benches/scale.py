"""`ci/bench scale`: does faultline grow with its host, and no more? In guests, which may have more processors than this machine.

    ci/bench scale [--kernel KERNEL]... [--binary FILE] [--by-map]

Three figures on each kernel (5.10 and 7.2, if none is named), each with its bound; it fails where one is above it:

- the maps of `agent` as it is by default, with 2 processors;
- the maps of `agent` with all that it can count, where there may be 512 processors (`possible_cpus=512`);
- of 32 processes that die at once, each on a processor of its own, as often as asked: every death is counted, and has its record.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import instructions

HERE = Path(__file__).resolve().parent.parent
GUEST = HERE / "benches/guest"
QEMU = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "3G", "-display", "none", "-no-reboot", "-nic", "none"]
QEMU += ["-serial", "stdio", "-monitor", "none"]
APPEND = "console=ttyS0 panic=-1 loglevel=1 mitigations=off"
MIB = 1 << 20
PROCESSES, ROUNDS = 32, 5
MAPS_SHOWN = 16
ALL = "./faultline agent --watch-signals --pagefaults --exec-memory --metrics-listen 0 -o /dev/null"


def boot(kernel, binary, plan, processors, append=""):
    """What a guest says that does what the plan says."""
    folder = Path(instructions.first_line(HERE / "ci/kernels", "--folder")) / kernel
    with tempfile.TemporaryDirectory() as scratch:
        initramfs = Path(scratch) / "initramfs"
        instructions.image(Path(scratch), binary, plan, initramfs, measure=GUEST / "scale", programs=["burst"])
        command = [*QEMU, "-smp", str(processors), "-kernel", folder / "vmlinuz", "-initrd", initramfs, "-append", f"{APPEND} {append}"]
        ran = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=1200, check=False)
    said = ran.stdout.decode(errors="replace").replace("\r", "")
    if not re.search(r"^done$", said, re.M):
        sys.exit(f"faultline: the guest of {kernel} did not come to its end:\n" + "\n".join(said.splitlines()[-20:]))
    return said


def maps(kernel, binary, command, processors, append=""):
    """The bytes of the maps, which processors there may be, and of each map its bytes, type, sizes of key and value, and entries."""
    said = boot(kernel, binary, f"maps {command}\n", processors, append)
    found, possible = re.search(r"^maps (\d+)$", said, re.M), re.search(r"^possible (\S+)$", said, re.M)
    if not found or not possible or found[1] == "0":
        sys.exit(f"faultline: {command} did not start on {kernel}:\n{said}")
    each = [tuple(map(int, line.split())) for line in re.findall(r"^map (.*)$", said, re.M)]
    return int(found[1]), possible[1], sorted(each, reverse=True)


def show(each):
    for size, kind, key, value, entries in each[:MAPS_SHOWN]:
        print(f"    {size / 1024:8.1f} KiB: type {kind}, key {key}, value {value}, {entries} entries", flush=True)


def burst(kernel, binary):
    """How many records there are, and the last summary."""
    said = boot(kernel, binary, f"burst {PROCESSES} {ROUNDS}\n", PROCESSES)
    records, summary = re.search(r"^burst (\d+) ", said, re.M), re.search(r"^summary (.*)$", said, re.M)
    if not records or not summary:
        sys.exit(f"faultline: the run on {kernel} said nothing:\n{said}")
    return int(records[1]), json.loads(summary[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", action="append", help="one of ci/kernels")
    parser.add_argument("--binary", default=HERE / "target/release/faultline")
    parser.add_argument("--by-map", action="store_true", help="show the largest maps, too")
    arguments = parser.parse_args()
    missed = []

    def say(text, is_met):
        print(("" if is_met else "MISSED: ") + text, flush=True)
        if not is_met:
            missed.append(text)

    for kernel in arguments.kernel or ["5.10", "7.2"]:
        found, possible, each = maps(kernel, arguments.binary, "./faultline agent -o /dev/null", 2)
        say(f"{kernel}: maps of agent, processors {possible}: {found / MIB:.2f} MiB (at most 3)", found <= 3 * MIB)
        show(each if arguments.by_map else [])
        found, possible, each = maps(kernel, arguments.binary, ALL, 2, "possible_cpus=512")
        if possible.endswith("511"):
            say(f"{kernel}: maps of agent with all options, processors {possible}: {found / MIB:.2f} MiB (at most 32)", found <= 32 * MIB)
        else:
            # From 6.9 on the kernel takes no more than the firmware names.
            print(f"{kernel}: maps of agent with all options, processors {possible}: {found / MIB:.2f} MiB (there can't be 512)", flush=True)
        show(each if arguments.by_map else [])
        records, summary = burst(kernel, arguments.binary)
        deaths = PROCESSES * ROUNDS
        matched = summary["deliveries"]["matched"]
        lost = {reason: count for reason, count in (summary["losses"] | summary["sample_losses"]).items() if count}
        is_met = records == deaths == matched and not any(reason.endswith(("_full", "_missed")) for reason in lost)
        say(f"{kernel}: {deaths} deaths, {PROCESSES} at once: {matched} counted, {records} records, lost: {lost}", is_met)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
