"""How well crashes are grouped: the programs of this folder die of known bugs, and what says `same` of two crashes is held against that.

Run it as `tests/groups/measure.py` or `ci/bench groups [--paths N] [--siggen PYTHON]`. Each bug of each program is reached by N paths (20) in each of five builds. Then,
of all pairs of crashes:

    precision   of the pairs that have one name, the share that is one bug
    recall      of the pairs that are one bug, the share that has one name

A signature must be right within a build; a family, and what siggen makes of the same frames, over all builds as well. siggen is Mozilla's
(`python3 -m venv V && V/bin/pip install siggen`, then --siggen V/bin/python); without it that row is missing.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OUT = ROOT / "target/groups"
SOURCES = ["corpus-c.c", "corpus-cxx.cc", "corpus-rust.rs"]
WARNINGS = ["-Wall", "-Wextra", "-Wno-infinite-recursion", "-Wno-array-bounds", "-Wno-use-after-free", "-Wno-unknown-warning-option"]
COMMON = ["-g", "-fstack-protector-strong", "-pthread", *WARNINGS]

# Name; compilers of C and C++, with flags; flags of rustc.
BUILDS = [
    ("O0", "gcc", "g++", ["-O0"], ["-Copt-level=0"]),
    ("O1", "gcc", "g++", ["-O1"], ["-Copt-level=1"]),
    ("O2", "gcc", "g++", ["-O2", "-fno-omit-frame-pointer"], ["-Copt-level=2", "-Cforce-frame-pointers=yes"]),
    ("O2-no-fp", "gcc", "g++", ["-O2", "-fomit-frame-pointer"], ["-Copt-level=2"]),
    ("clang-O2", "clang", "clang++", ["-O2"], ["-Copt-level=3", "-Ccodegen-units=1"]),
]


def build():
    """All programs in all builds, into folders of the builds' names."""
    for name, cc, cxx, flags, rust_flags in BUILDS:
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        for source in SOURCES:
            program = folder / source.split(".")[0]
            newest = max((HERE / file).stat().st_mtime for file in [source, "corpus.h", "measure.py"])
            if program.exists() and program.stat().st_mtime > newest:
                continue
            command = {
                "c": [cc, *flags, *COMMON, "-std=gnu11"],
                "cc": [cxx, *flags, *COMMON, "-std=gnu++17"],
                "rs": ["rustc", "--edition=2021", "-g", "-Cpanic=abort", *rust_flags],
            }[source.split(".")[1]]
            subprocess.run([*command, "-o", program, HERE / source], check=True)


def bugs(source):
    return re.findall(r"^(?: \*|//!) bug: (\S+)", (HERE / source).read_text(), re.M)


def crashes(faultline, paths):
    """A record of each crash, with `label` and `build`."""
    with tempfile.TemporaryDirectory() as scratch:
        script, records = Path(scratch) / "all", Path(scratch) / "records"
        with script.open("w") as lines:
            for name, *_ in BUILDS:
                for source in SOURCES:
                    program = OUT / name / source.split(".")[0]
                    for bug in bugs(source):
                        lines.writelines(f"{program} {bug} {path} >/dev/null 2>&1\n" for path in [20 * i // paths for i in range(paths)])
            lines.write("exit 0\n")
        watch = [faultline, "crash", "-t", "--max-stack-depth", "64", "--format", "json", "-o", records]
        subprocess.run([*watch, "--", "sh", script], check=True)
        seen = {}
        for line in records.open():
            record = json.loads(line)
            if record["type"] == "crash" and record["exe"] and Path(record["exe"]).parent.parent == OUT:
                # Two threads of one process may fault before the first has ended it: worker-null. One run counts once. Pids come again.
                if seen.get(record["pid"]) == (record["exe"], record["comm"]):
                    print(f"once more: {record['exe']} {record['comm']}")
                    continue
                seen[record["pid"]] = (record["exe"], record["comm"])
                exe = Path(record["exe"])
                yield {**record, "label": f"{exe.name} {record['comm']}", "build": exe.parent.name}


def signify(python, records):
    """What siggen makes of each record: [signature]."""
    def frame(of):
        symbol = of["symbol"] or ""
        name = symbol if of["inlined"] else re.sub(r"\+0x[0-9a-f]+$", "", symbol)
        module = (of["module"] or "").rsplit("/", 1)[-1]
        file = of["file"] and f"git:host:{of['file']}:1"
        return {"function": name or None, "module": module, "file": file, "line": of["line"], "offset": of["address"]}

    crash = [
        {
            "os": "Linux",
            "crashing_thread": 0,
            "reason": record["signal"] + (f" / {record['code']}" if record["code"] else ""),
            "threads": [{"frames": [frame(of) for of in record["stack_trace"]]}],
        }
        for record in records
    ]
    program = (
        "import json, sys\n"
        "from siggen.generator import SignatureGenerator\n"
        "generator = SignatureGenerator()\n"
        "print(json.dumps([generator.generate(crash).signature for crash in json.load(sys.stdin)]))\n"
    )
    done = subprocess.run([python, "-c", program], input=json.dumps(crash), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def pairs(count):
    return count * (count - 1) // 2


def score(named):
    """Precision and recall of (name, label) of crashes; one without a name is alone."""
    named = [(name if name is not None else object(), label) for name, label in named]
    same = lambda keys: sum(pairs(count) for count in collections.Counter(keys).values())
    both = same(named)
    names, labels = same(name for name, _ in named), same(label for _, label in named)
    return both / names if names else 1.0, both / labels if labels else 1.0


def within(records, field):
    """The same within each build: all pairs of all builds together."""
    return score([((record["build"], record[field]) if record[field] else None, (record["build"], record["label"])) for record in records])


def over(records, field):
    return score([(record[field], record["label"]) for record in records])


def worst(records, field, by_build):
    """Lines that say which bugs are split, and which are merged."""
    names, labels = collections.defaultdict(collections.Counter), collections.defaultdict(collections.Counter)
    for record in records:
        build = record["build"] if by_build else ""
        names[build, record["label"]][record[field]] += 1
        labels[build, record[field]][record["label"]] += 1
    for (build, label), found in sorted(names.items()):
        if len(found) > 1:
            yield f"  {field}: split: {build} {label}: {found.most_common()}"
    for (build, name), found in sorted(labels.items(), key=str):
        if len(found) > 1:
            yield f"  {field}: merged: {build} {name}: {found.most_common()}"


def main():
    parser = argparse.ArgumentParser(prog="ci/bench groups", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", type=int, default=20)
    parser.add_argument("--siggen", metavar="PYTHON")
    parser.add_argument("--faultline", default=ROOT / "target/release/faultline")
    parser.add_argument("--keep", metavar="FILE", help="write the records there, or read them if it exists")
    parser.add_argument("--why", action="store_true", help="say which bugs are split or merged")
    parser.add_argument("--check", action="store_true", help="fail if a figure is less than it must be")
    given = parser.parse_args()
    if given.keep and Path(given.keep).exists():
        records = [json.loads(line) for line in open(given.keep)]
    else:
        build()
        records = list(crashes(given.faultline, given.paths))
        if given.keep:
            Path(given.keep).write_text("".join(json.dumps(record) + "\n" for record in records))
    wanted = len(BUILDS) * given.paths * sum(len(bugs(source)) for source in SOURCES)
    print(f"{len(records)} crashes of {wanted}, {len({record['label'] for record in records})} bugs, {len(BUILDS)} builds")
    rows = [("signature", "within", within(records, "signature"))]
    rows += [("family", "within", within(records, "family")), ("family", "over", over(records, "family"))]
    if given.siggen:
        for record, signature in zip(records, signify(given.siggen, records)):
            record["siggen"] = signature
        rows += [("siggen", "within", within(records, "siggen")), ("siggen", "over", over(records, "siggen"))]
    print(f"{'':10} {'builds':8} {'precision':>10} {'recall':>8}")
    for name, builds, (precision, recall) in rows:
        print(f"{name:10} {builds:8} {precision:10.4f} {recall:8.4f}")
    if given.check:
        for (name, builds, found), least in zip(rows, [(0.99, 0.99), (0.99, 0.99), (0.99, 0.95)]):
            if found[0] < least[0] or found[1] < least[1]:
                sys.exit(f"{name} {builds}: {found} is less than {least}")
        if len(records) != wanted:
            sys.exit("crashes are missing")
    if given.why:
        for field, by_build in [("signature", True), ("family", False)] + ([("siggen", False)] if given.siggen else []):
            print("\n".join(worst(records, field, by_build)))


if __name__ == "__main__":
    sys.exit(main())
