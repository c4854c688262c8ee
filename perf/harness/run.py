"""Measures a node under named scenarios and writes the results as JSON, pictures and a page.

The release is built first; RAIDA=/path/to/raida takes that program instead. Data lies in a
temporary folder, which is removed: --folder makes it on another disk. Needs two CPUs, one for the
node and one for the generator, and nothing else that runs: the page says what the load average was.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import goals
import page
import scenario as scenarios
import surroundings
from kinds import KINDS
from loads import Loads
from node import NodeFailed

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Many short slices rather than few long ones: what disturbs a machine for some seconds then spoils few
# of the ratios between neighbours, and their median not at all.
SLICES = 15


def arguments():
    parser = argparse.ArgumentParser(prog="perf/run", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="*", help="names of perf/scenarios/*.toml; all by default")
    parser.add_argument("--seconds", type=float, default=0.5, metavar="S",
        help="seconds of a slice, of which each load and each of its baselines has 15 (0.5)")
    parser.add_argument("--quick", action="store_true",
        help="slices of 0.13 s and one round of everything: shows that it works, not how fast it is")
    parser.add_argument("--out", default=os.path.join(ROOT, "perf/results/latest"), metavar="DIR",
        help="where to write; what an earlier run left there is replaced (perf/results/latest)")
    parser.add_argument("--folder", metavar="DIR", help="makes the data there, to measure that disk")
    parser.add_argument("--list", action="store_true", help="says what scenarios there are")
    return parser.parse_args()


def built():
    """The program to measure."""
    if os.environ.get("RAIDA"):
        return os.path.abspath(os.environ["RAIDA"])
    if not shutil.which("cargo"):
        sys.exit("perf/run: cargo is missing: install Rust (https://rustup.rs), or name a program with RAIDA=/path/to/raida")
    print("building the release", file=sys.stderr)
    subprocess.run(["cargo", "build", "--locked", "--release", "--quiet"], cwd=ROOT, check=True)
    folder = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    return os.path.join(folder, "release/raida")


def run_scenario(one, loads, work, quick):
    print(one.name, file=sys.stderr, flush=True)
    folder = os.path.join(work, one.name)
    measured = {"name": one.name, "kind": one.kind, "shows": one.shows, "loads": []}
    begun = time.monotonic()
    try:
        measured |= KINDS[one.kind](one, loads, folder, quick)
    except NodeFailed as error:
        loads.failed.append(f"{one.name}: {error}")
    measured["took_s"] = round(time.monotonic() - begun, 1)
    draw_together(one, measured, loads)
    return measured


def draw_together(one, measured, loads):
    """Pictures of several loads beside each other."""
    folders = [row["folder"] for row in measured["loads"] if row["folder"] and row["result"]]
    if len(folders) < 2:
        return
    files = [os.path.join(loads.out, folder, "result.json") for folder in folders]
    at = os.path.join(loads.out, one.name)
    command = [loads.raida, "bench", "--plot", ",".join(files), "--out", at]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        loads.failed.append(f"{one.name}: no picture of all: {done.stderr.strip()}")


def end_in_order(*_):
    """So that nodes are ended and the folder is removed; a second signal must not cut that short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def main():
    wanted = arguments()
    every = scenarios.read(os.path.join(ROOT, "perf/scenarios"), wanted.scenario)
    if wanted.list:
        for one in every:
            print(f"{one.name:24} {one.shows}")
        return 0
    cpus = sorted(os.sched_getaffinity(0))
    if not {0, 1} <= set(cpus):
        sys.exit("perf/run: two CPUs are needed, 0 for the node and 1 for the generator; this "
            f"process may use {len(cpus)}: where both share one, neither is measured")
    signal.signal(signal.SIGTERM, end_in_order)
    raida = built()
    out = os.path.abspath(wanted.out)
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="raida-perf.", dir=wanted.folder) as work:
        slice_seconds = 0.13 if wanted.quick else wanted.seconds
        loads = Loads(raida, work, out, slice_seconds, SLICES)
        loads.all_cpus = cpus
        facts = surroundings.record(ROOT, work)
        facts["stands_still"] = surroundings.stands_still(1 if wanted.quick else 5)
        measured = [run_scenario(one, loads, work, wanted.quick) for one in every]
    command = ["perf/run", *wanted.scenario]
    command += ["--quick"] if wanted.quick else ["--seconds", f"{wanted.seconds:g}"]
    if loads.skipped:
        print("perf/run: redis-server is not on PATH (Debian: apt-get install redis-server): "
            "nothing was compared with it", file=sys.stderr)
    run = {
        "format": 1,
        "command": " ".join(command),
        "took_s": round(time.monotonic() - begun),
        "surroundings": facts,
        "goals": [goal for one, of in zip(every, measured) for goal in goals.judge(one, of)],
        "scenarios": measured,
        "failed": loads.failed,
    }
    with open(os.path.join(out, "run.json"), "w") as file:
        json.dump(run, file, indent=1, ensure_ascii=False)
        file.write("\n")
    page.write(os.path.join(out, "README.md"), run)
    for what in loads.failed:
        print(f"perf/run: {what}", file=sys.stderr)
    for goal in run["goals"]:
        print(page.goal_in_words(goal))
    print(os.path.relpath(os.path.join(out, "README.md")))
    return 1 if loads.failed else 0


if __name__ == "__main__":
    sys.exit(main())
