#!/usr/bin/env python3
"""What watching costs in instructions, on the kernels of the VM matrix.

    ci/bench --instructions [--write] [--binary FILE] [--only TEXT] [--save FILE] [KERNEL...]
    ci/bench --instructions --check

A guest under QEMU's `-icount` counts instructions instead of time: its clock advances by a nanosecond for each. A workload that times
itself there gives the same figure in every run, on any machine, whatever else that does. One processor, so that the tracer's own work
is in the figures. What such a count does not show: cache misses, and what an instruction waits for.

KERNEL is one of ci/kernels (all of ci/test's, if none is named), which fetches what is missing. --only measures the modes whose names
contain TEXT, --binary another build. --write puts the figures into benches/instructions.json and the table into docs/performance.md,
beside those that are there of other kernels and modes.

--check, which ci/test runs, measures two modes on two kernels, and fails if one costs 3 percent and 15 instructions more than what is
recorded. If kernel, clang or QEMU differ from what the figures were recorded with, the base of the change is built and measured
beside it. Exit status: 1 if one costs more, 69 if a kernel can't be had.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
GUEST = HERE / "benches/guest"
RECORDED = HERE / "benches/instructions.json"
PAGE = HERE / "docs/performance.md"
BEGIN, END = "<!-- written by ci/bench --instructions --write -->", "<!-- end of what ci/bench --instructions wrote -->"
KERNELS = ["5.10", "6.1", "6.12", "6.18", "7.2"]
ROUNDS = 25  # of cheap events: benches/guest/events.c
CHEAP = {"fault": 200, "signal": 200, "page": 200, "mapping": 100, "call": 1000}
DEAR = 400  # events of other kinds

FAULTLINE = "./faultline"
CALLS = " ".join(f"tracepoint/syscalls/sys_exit_{call}" for call in ["mmap", "mprotect", "munmap"])
# Mode, kind of event, command.
MODES = [
    ("empty: handled fault", "fault", "./empty raw_tp/signal_deliver"),
    ("handled fault", "fault", f"{FAULTLINE} crash --summary 3600"),
    ("empty: unwatched signal", "signal", "./empty raw_tp/signal_deliver"),
    ("unwatched signal", "signal", f"{FAULTLINE} crash --summary 3600"),
    ("empty: page fault", "page", "./empty raw_tp/page_fault_user raw_tp/page_fault_kernel"),
    ("page fault", "page", f"{FAULTLINE} pagefault --format json"),
    ("empty: kill", "signal", "./empty raw_tp/signal_generate"),
    ("kill", "signal", f"{FAULTLINE} signal -s USR1 --summary 3600"),
    ("fatal crash, counted", "crash", f"{FAULTLINE} agent -o /dev/null"),
    ("fatal crash without frame pointers, counted", "crash-without-frames", f"{FAULTLINE} agent -o /dev/null"),
    ("fatal crash, left out by -n", "crash", f"{FAULTLINE} crash --format json -n nobody"),
    ("fatal crash, a record each", "crash", f"{FAULTLINE} crash --brief --format json -o /tmp/records"),
    ("exit", "exit", f"{FAULTLINE} crash --summary 3600"),
    ("empty: three mapping calls", "mapping", f"./empty {CALLS}"),
    ("three mapping calls, --watch-all", "mapping", f"{FAULTLINE} memory --watch-all"),
    ("three mapping calls, of a watched process", "mapping", f"{FAULTLINE} memory -n events -o /tmp/records"),
    ("three mapping calls, of another process", "mapping", f"{FAULTLINE} memory -n nobody"),
    ("empty: untraced system call, memory's hooks", "call", f"./empty {CALLS}"),
    ("untraced system call, memory", "call", f"{FAULTLINE} memory -n nobody"),
    ("untraced system call, crash", "call", f"{FAULTLINE} crash --summary 3600"),
]
# What ci/test holds against the recorded figures.
CHECKED = ["handled fault", "unwatched signal"]
CHECKED_KERNELS = ["6.1", "7.2"]
QEMU = ["qemu-system-x86_64", "-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", "max", "-smp", "1", "-m", "1500M"]
QEMU += ["-display", "none", "-no-reboot", "-nic", "none", "-serial", "stdio", "-monitor", "none"]
APPEND = "console=ttyS0 panic=-1 loglevel=1 mitigations=off init_on_alloc=0 clocksource=tsc tsc=reliable nokaslr"


def first_line(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def libraries(binary):
    """The files that the dynamic linker needs for it."""
    said = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    return re.findall(r"(/\S+) \(0x", said)


def image(folder, binary, plan, file, measure=GUEST / "measure", programs=("events", "empty")):
    """Makes an initramfs with the binary, the workloads, the script that runs there and its plan."""
    tree = folder / "tree"
    for name in ["bin", "dev", "proc", "sys", "tmp", "root", "etc"]:
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), tree / "bin/busybox")
    shutil.copy(GUEST / "init", tree / "init")
    (tree / "init").chmod(0o755)
    shutil.copy(measure, tree / "root/measure")
    for name in programs:
        source = GUEST / f"{name}.c"
        command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-static", "-fno-omit-frame-pointer", "-o", tree / "root" / name, source]
        subprocess.run(command, check=True)
    shutil.copy(binary, tree / "root/faultline")
    for library in libraries(binary):
        target = tree / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    (tree / "root/plan").write_text(plan)
    names = "\0".join(str(path.relative_to(tree)) for path in tree.rglob("*"))
    archive = subprocess.run(["cpio", "-o", "-0", "-H", "newc", "--quiet"], cwd=tree, input=names.encode(), capture_output=True, check=True)
    file.write_bytes(archive.stdout)


def run_guest(kernel, initramfs):
    """What a guest says."""
    folder = Path(first_line(HERE / "ci/kernels", "--folder")) / kernel
    command = [*QEMU, "-kernel", folder / "vmlinuz", "-initrd", initramfs, "-append", APPEND]
    try:
        return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=1800).stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(errors="replace")


def boot(kernel, initramfs):
    """The rows that a guest prints, by mode."""
    said = run_guest(kernel, initramfs)
    if not re.search(r"^(row|failed|done)", said, re.M):
        # It has not come as far as to measure: QEMU may panic a kernel as it boots.
        said = run_guest(kernel, initramfs)
    if not re.search(r"^done\r?$", said, re.M):
        sys.exit(f"faultline: the guest of {kernel} did not come to its end:\n" + "\n".join(said.splitlines()[-20:]))
    rows = {}
    for line in said.splitlines():
        if line.startswith("failed: "):
            print(f"{kernel}: {line}", file=sys.stderr)
        if not line.startswith("row "):
            continue
        mode, kind, count, before, after, program, user = line[4:].strip().split("|")
        events = int(count) * (ROUNDS if kind in CHEAP else 1)
        spent, runs = map(int, program.split())
        rows[mode] = {
            "without": float(after),
            "more": round(float(before) - float(after), 1),
            "program": spent / events,
            "runs": runs / events,
            "user": int(user) / events,
        }
    # An empty program's time is that of the statistics themselves.
    clock = next((row["program"] / row["runs"] for mode, row in rows.items() if mode.startswith("empty") and row["runs"]), 0)
    for row in rows.values():
        row["program"] = round(max(row["program"] - row.pop("runs") * clock, 0), 1)
        row["user"] = round(row["user"], 1)
    return rows


def measure(kernels, binary, only):
    """The rows of each kernel, of the modes in the list `only`, or whose names contain it."""
    modes = [mode for mode in MODES if (mode[0] in only if isinstance(only, list) else only in mode[0])]
    if not any(mode[0].startswith("empty") for mode in modes):
        modes.insert(0, MODES[0])
    plan = "".join(f"{mode}|{kind}|{CHEAP.get(kind, DEAR)}|{command}\n" for mode, kind, command in modes)
    with tempfile.TemporaryDirectory() as folder:
        initramfs = Path(folder) / "initramfs"
        image(Path(folder), binary, plan, initramfs)
        # At once: what else the machine does is not in a count.
        with ThreadPoolExecutor(os.cpu_count()) as guests:
            return dict(zip(kernels, guests.map(lambda kernel: boot(kernel, initramfs), kernels)))


def versions(kernels):
    folder = Path(first_line(HERE / "ci/kernels", "--folder"))
    return {
        "kernels": {kernel: (folder / kernel / "version").read_text().strip() for kernel in kernels},
        "clang": first_line(os.environ.get("CLANG", "clang"), "--version"),
        "qemu": first_line("qemu-system-x86_64", "--version"),
    }


def table(found):
    """A table of kernel x workload."""
    kernels = list(found)
    lines = ["| instructions for each event | " + " | ".join(kernels) + " |", "| --- |" + " --- |" * len(kernels)]
    for mode, kind, _ in MODES:
        rows = [found[kernel].get(mode) for kernel in kernels]
        if not any(rows):
            continue
        cells = [f"{row['more']:.0f}" if row else "-" for row in rows]
        lines.append(f"| {mode} | " + " | ".join(cells) + " |")
        if kind not in CHEAP:
            for name, what in [("program", "in the kernel's programs"), ("user", "in user space")]:
                cells = [f"{row[name]:.0f}" if row else "-" for row in rows]
                lines.append(f"| … {what} | " + " | ".join(cells) + " |")
    lines.append("")
    lines.append("Without a tracer:")
    lines.append("")
    lines += ["| event | " + " | ".join(kernels) + " |", "| --- |" + " --- |" * len(kernels)]
    seen = set()
    for mode, kind, _ in MODES:
        rows = [found[kernel].get(mode) for kernel in kernels]
        if kind in seen or not any(rows):
            continue
        seen.add(kind)
        lines.append(f"| {kind} | " + " | ".join(f"{row['without']:.0f}" if row else "-" for row in rows) + " |")
    return "\n".join(lines) + "\n"


def recorded():
    """What the repository has: versions, and the figures of each kernel by mode."""
    if not RECORDED.exists():
        return {"versions": {"kernels": {}}, "figures": {}}
    return json.loads(RECORDED.read_text())


def write(found, made_by):
    """Puts the figures beside those of other kernels and modes that were recorded before."""
    every = recorded()
    kernels = every["versions"]["kernels"] | made_by["kernels"]
    figures = every["figures"]
    for kernel, rows in found.items():
        figures.setdefault(kernel, {}).update(rows)
    figures = {kernel: figures[kernel] for kernel in sorted(figures, key=lambda kernel: [int(part) for part in kernel.split(".")])}
    RECORDED.write_text(json.dumps({"versions": made_by | {"kernels": kernels}, "figures": figures}, indent=1) + "\n")
    page = PAGE.read_text()
    if BEGIN not in page:
        sys.exit(f"faultline: {PAGE.name} has no line `{BEGIN}`")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    kernels = ", ".join(kernels[kernel] for kernel in figures)
    PAGE.write_text(f"{head}{BEGIN}\n\nKernels {kernels}; {made_by['clang']}; {made_by['qemu']}.\n\n{table(figures)}\n{END}{tail}")


def is_more(now, before):
    """Is it more than what a count may differ by from run to run?"""
    return now > before * 1.03 and now > before + 15


def base_binary():
    """Builds the commit that this change starts from, or the one before HEAD on the main branch itself, and returns its executable."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()

    try:
        base = git("merge-base", "HEAD", "main")
    except subprocess.CalledProcessError:  # a clone without that branch
        base = git("rev-parse", "HEAD~1")
    if base == git("rev-parse", "HEAD") and not git("status", "--porcelain", "--", "bpf", "src"):
        base = git("rev-parse", "HEAD~1")
    folder = HERE / "target/base"
    subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=HERE, capture_output=True, check=False)
    git("worktree", "add", "--detach", str(folder), base)
    try:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--target-dir", HERE / "target/base-build"], cwd=folder, check=True)
    finally:
        git("worktree", "remove", "--force", str(folder))
    return HERE / "target/base-build/release/faultline"


def is_made_by_the_same(now, then):
    return all(now[tool] == then.get(tool) for tool in ["clang", "qemu"]) and now["kernels"].items() <= then["kernels"].items()


def row(mode, found):
    """The mode's line of the table, of these kernels."""
    cells = [found.get(kernel, {}).get(mode, {}).get("more") for kernel in CHECKED_KERNELS]
    return f"| {mode} | " + " | ".join("-" if cell is None else f"{cell:.0f}" for cell in cells) + " |"


def check():
    """Holds the modes of CHECKED against what is recorded. The exit status."""
    if subprocess.run([HERE / "ci/kernels", *CHECKED_KERNELS], check=False).returncode:
        return 69
    binary = HERE / "target/release/faultline"
    if not binary.exists():
        sys.exit("faultline: no build to measure: cargo build --release")
    found = measure(CHECKED_KERNELS, binary, CHECKED)
    before, made_by, known = recorded(), versions(CHECKED_KERNELS), "recorded"
    figures = before["figures"]
    if not is_made_by_the_same(made_by, before["versions"]):
        print("faultline: made by other versions than what is recorded: the base of this change is measured beside it", file=sys.stderr)
        try:
            figures, known = measure(CHECKED_KERNELS, base_binary(), CHECKED), "of the base"
        except subprocess.CalledProcessError as error:  # a clone without a commit before this one
            print(f"faultline: the base can't be had, so that other versions' figures are taken: {error}: {error.stderr}", file=sys.stderr)
    status = 0
    for mode in CHECKED:
        pairs = [[rows.get(kernel, {}).get(mode, {}).get("more") for rows in (found, figures)] for kernel in CHECKED_KERNELS]
        is_well = all(None not in pair and not is_more(*pair) for pair in pairs)
        print(f"instructions for each event on {' and '.join(CHECKED_KERNELS)}, now and {known}:\n{row(mode, found)}\n{row(mode, figures)}")
        if not is_well:
            what = "has no figure" if any(None in pair for pair in pairs) else "costs more than before"
            print(f"faultline: `{mode}` {what}; if that is meant: ci/bench --instructions --write", file=sys.stderr)
            status = 1
    return status


def main():
    parser = argparse.ArgumentParser(prog="ci/bench --instructions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the figures into the repository")
    parser.add_argument("--check", action="store_true", help="hold what ci/test holds against the recorded figures")
    parser.add_argument("--binary", metavar="FILE", help="measure this build instead of this folder's")
    parser.add_argument("--save", metavar="FILE", help="write the figures to FILE as JSON")
    parser.add_argument("--only", metavar="TEXT", default="", help="measure only modes whose names contain TEXT")
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=", ".join(KERNELS))
    arguments = parser.parse_args()
    kernels = arguments.kernels or KERNELS
    if arguments.check:
        sys.exit(check())
    subprocess.run([HERE / "ci/kernels", *kernels], check=True)
    if not arguments.binary:
        subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=HERE, check=True)
    found = measure(kernels, arguments.binary or HERE / "target/release/faultline", arguments.only)
    made_by = versions(kernels)
    print(table(found))
    if arguments.save:
        Path(arguments.save).write_text(json.dumps({"versions": made_by, "figures": found}, indent=1) + "\n")
    if arguments.write:
        write(found, made_by)


if __name__ == "__main__":
    main()
