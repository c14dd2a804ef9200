"""`ci/bench report`: `faultline report` against DuckDB on the same ranking of the same files, both on all processors, turn by turn.

    ci/bench report [--hosts N] [--gigabytes N] [--folder DIR] [--rounds N] [--duckdb PYTHON]

Writes summaries of N hosts (10000), some groups of a thousand bugs in each, into DIR (kept, and taken again if it is there). Both rank the
bugs by their events, with the number of hosts; that the rankings are equal is checked first. PYTHON is one that can import duckdb, as
that of a virtual environment. DuckDB reads only the columns that the ranking needs; faultline reads, and checks, whatever its report shows.
Needs no root.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
FAULTLINE = str(HERE / "target/release/faultline")
FILES = 64
BUGS = 1000

DUCKDB = """
import duckdb, json, sys
duckdb.sql("SET enable_progress_bar = false")
files = json.loads(sys.argv[1])
group = "STRUCT(family VARCHAR, disposition VARCHAR, count UBIGINT)"
rows = duckdb.sql(f'''
    SELECT g.family, sum(g.count)::UBIGINT AS events, count(DISTINCT host) AS hosts
    FROM (SELECT host, unnest(groups) AS g FROM read_json({files!r}, format='newline_delimited', maximum_object_size=536870912,
        columns={{'type': 'VARCHAR', 'host': 'VARCHAR', 'groups': '{group}[]'}}) WHERE type = 'summary')
    WHERE g.disposition IN ('fatal', 'caught') AND g.count > 0
    GROUP BY ALL ORDER BY events DESC, hosts DESC, g.family LIMIT 20''').fetchall()
print(json.dumps(rows))
"""


def frame(numbers, depth):
    return {"address": None, "symbol": f"function_{numbers.randrange(5000)}+0x{numbers.randrange(4096):x}", "module": "/usr/bin/app",
            "build_id": "%040x" % numbers.getrandbits(160), "offset": hex(numbers.randrange(1 << 24)), "file": f"/src/app/file{depth}.c",
            "line": numbers.randrange(2000), "inlined": False}


def bug(number):
    numbers = random.Random(number)
    return {"signature": "%016x" % numbers.getrandbits(64), "family": "%016x" % numbers.getrandbits(64), "estimated": False,
            "signal": "SIGSEGV", "code": "SEGV_MAPERR", "disposition": "fatal", "comm": f"app{number % 50}", "uid": 1000,
            "exe": f"/usr/bin/app{number % 50}", "build_id": "%040x" % numbers.getrandbits(160), "count": 0, "total": 0,
            "first_seen": "2026-01-01T00:00:01.000000Z", "last_seen": "2026-01-01T01:00:01.000000Z", "last_pid": 4711,
            "frames": [frame(numbers, depth) for depth in range(12)], "cpus": {}}


def generate(folder, hosts, size):
    """Every host writes summaries in turn until all of them together have so many bytes."""
    folder.mkdir(parents=True)
    numbers = random.Random(1)
    texts = []
    for number in range(BUGS):
        # Made once, and filled in as text: json.dumps of each would take hours.
        text = json.dumps(bug(number), separators=(",", ":"))
        texts.append(text.replace('"count":0,"total":0', '"count":%d,"total":%d').replace('"cpus":{}', '"cpus":{"%d":%d}'))
    files = [open(folder / f"{number:02}.jsonl", "w", encoding="utf-8") for number in range(FILES)]
    written, second = 0, 0
    while written < size:
        second += 10
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1767225600 + second))
        for host in range(hosts):
            groups, matched = [], 0
            for _ in range(numbers.randrange(1, 8)):
                # The lower its number, the more frequent a bug is.
                which, count = int(BUGS * numbers.random() ** 3), numbers.randrange(1, 5)
                groups.append(texts[which] % (count, count, numbers.randrange(64), count))
                matched += count
            line = (f'{{"type":"summary","schema":1,"timestamp":"{moment}.{host % 1000:03}000Z","host":"host-{host}","since":"2026-01-01T00:00:00.000000Z",'
                    f'"interval_seconds":10.0,"kernel":"6.18.0","boot_id":"{host:032x}","final":false,"groups":[{",".join(groups)}],'
                    f'"deliveries":{{"matched":{matched},"filtered":0}},"losses":{{"group_table_full":0}},"sample_losses":{{}}}}\n')
            files[host % FILES].write(line)
            written += len(line)
    for file in files:
        file.close()


def run(command):
    """What it printed, seconds, and the most memory in MiB."""
    with tempfile.TemporaryFile() as out:
        began = time.monotonic()
        child = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
        took = time.monotonic() - began
        if status != 0:
            sys.exit(f"faultline: {command[0]} failed")
        out.seek(0)
        return out.read(), took, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, default=HERE / "target/bench-report")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duckdb", metavar="PYTHON", default=sys.executable)
    arguments = parser.parse_args()
    if not arguments.folder.exists():
        generate(arguments.folder, arguments.hosts, arguments.gigabytes * 1e9)
    files = sorted(str(path) for path in arguments.folder.glob("*.jsonl"))
    size = sum(os.path.getsize(path) for path in files)
    ours = [FAULTLINE, "report", "--format", "json", "--top", "20", *files]
    theirs = [arguments.duckdb, "-c", DUCKDB, json.dumps(files)]
    report = json.loads(run(ours)[0])
    ranking = sorted(((row["count"], row["hosts"], row["family"]) for row in report["groups"]), reverse=True)
    other = sorted(((events, hosts, family) for family, events, hosts in json.loads(run(theirs)[0])), reverse=True)
    if ranking != other:
        sys.exit(f"faultline: the rankings differ:\n{ranking}\n{other}")
    print(f"{size / 1e9:.2f} GB, {report['hosts']} hosts, {report['summaries']} summaries, {os.cpu_count()} processors")
    measured = {"faultline": [], "DuckDB": []}
    for _ in range(arguments.rounds):
        for name, command in (("faultline", ours), ("DuckDB", theirs)):
            measured[name].append(run(command)[1:])
    for name, runs in measured.items():
        seconds = [took for took, _ in runs]
        print(f"{name:10} {statistics.median(seconds):7.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), {max(memory for _, memory in runs):6.0f} MiB")


if __name__ == "__main__":
    main()
