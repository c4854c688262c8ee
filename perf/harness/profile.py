"""Where a node's time goes under a load of a scenario: a flame graph, and a table of functions.

Needs perf (Debian: apt-get install linux-perf). A program of its own is built with frame pointers in
target/profile, since stacks are cut without them; RAIDA=/path takes that program as it is, and
stacks are then taken from its debug information, which costs the node more while it is measured.
"""

import argparse
import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import scenario as scenarios
from node import Node

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Off the beat of whatever runs every millisecond.
SAMPLES_A_SECOND = 1_997


def arguments():
    parser = argparse.ArgumentParser(prog="perf/profile", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", help="a name of perf/scenarios/*.toml that has loads")
    parser.add_argument("--load", metavar="NAME", help="which of its loads; the first by default")
    parser.add_argument("--seconds", type=int, default=8, metavar="S", help="how long (8)")
    parser.add_argument("--out", metavar="DIR", help="where to write (target/profile/SCENARIO)")
    return parser.parse_args()


def built():
    if os.environ.get("RAIDA"):
        return os.path.abspath(os.environ["RAIDA"]), "dwarf,16384"
    folder = os.path.join(ROOT, "target/profile")
    flags = os.environ.get("RUSTFLAGS", "") + " -C force-frame-pointers=yes"
    print("building the release with frame pointers", file=sys.stderr)
    subprocess.run(["cargo", "build", "--locked", "--release", "--quiet", "--target-dir", folder],
        cwd=ROOT, check=True, env={**os.environ, "RUSTFLAGS": flags.strip()})
    return os.path.join(folder, "release/raida"), "fp"


def inferno(name):
    """A program of inferno, which is installed into target/tools where it is not on PATH."""
    tools = os.path.join(ROOT, "target/tools")
    found = shutil.which(name) or shutil.which(name, path=os.path.join(tools, "bin"))
    if not found:
        print("installing inferno into target/tools", file=sys.stderr)
        subprocess.run(["cargo", "install", "inferno", "--locked", "--quiet", "--root", tools],
            check=True)
        found = os.path.join(tools, "bin", name)
    return found


def has_cycles():
    """Virtual machines often do not count cycles; their clock is then what samples are taken by."""
    counted = subprocess.run(["perf", "stat", "-e", "cycles", "true"], capture_output=True, text=True)
    return counted.returncode == 0 and "not supported" not in counted.stderr


def record(raida, stacks, node, one, load, seconds, data):
    """Samples the node while the load is on it."""
    bench = [raida, "bench", *load["bench"].split(), "--host", node.address, "--data", node.folder]
    cpus = lambda of: ",".join(map(str, of))
    bench += ["--cpus", cpus(one.generator_cpus), "--seconds", str(seconds + 3)]
    bench += ["--shards", str(node.shards), "--no-live"]
    generator = subprocess.Popen(bench, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(2)  # Coins are minted first, and the first second is warm-up.
        event = "cycles" if has_cycles() else "cpu-clock"
        command = ["perf", "record", "--quiet", "-e", event, "-F", str(SAMPLES_A_SECOND)]
        command += ["--call-graph", stacks, "-p", str(node.pid), "-o", data]
        subprocess.run([*command, "--", "sleep", str(seconds)], check=True)
        return generator.communicate(timeout=60)[0]
    finally:
        generator.kill()
        generator.wait()


def collapsed(data):
    """Stacks, outermost first, with how much was counted in each."""
    script = subprocess.run(["perf", "script", "-i", data], capture_output=True, text=True)
    fold = subprocess.run([inferno("inferno-collapse-perf")], input=script.stdout, check=True,
        capture_output=True, text=True)
    return fold.stdout


def table(stacks, most=40):
    """Functions by the time that was spent in them, and in them or what they called."""
    own, all_in, total = collections.Counter(), collections.Counter(), 0
    for line in stacks.splitlines():
        stack, count = line.rsplit(" ", 1)
        frames = [_short(frame) for frame in stack.split(";")[1:]]
        total += int(count)
        if frames:
            own[frames[-1]] += int(count)
        for frame in set(frames):
            all_in[frame] += int(count)
    total = max(total, 1)
    # What is counted is cycles, or time where the machine does not count those: shares say it all.
    lines = ["shares of the node's time on CPUs", "", "  in it   with what it calls  function"]
    for name, count in own.most_common(most):
        lines.append(f"{count / total:7.2%}  {all_in[name] / total:18.2%}  {name}")
    return "\n".join(lines) + "\n"


def _short(frame):
    """Without the hash that tells versions of a generic function apart."""
    return re.sub(r"::h[0-9a-f]{16}$", "", frame)


def main():
    wanted = arguments()
    if not shutil.which("perf"):
        sys.exit("perf/profile: perf is missing (Debian: apt-get install linux-perf)")
    one = scenarios.read(os.path.join(ROOT, "perf/scenarios"), [wanted.scenario])[0]
    if not one.loads:
        sys.exit(f"perf/profile: {one.name} puts no load on a node")
    by_name = {load["name"]: load for load in one.loads}
    load = by_name.get(wanted.load) if wanted.load else one.loads[0]
    if not load or "--sweep" in load["bench"]:
        sys.exit(f"perf/profile: choose a steady load of {one.name} with --load: {', '.join(by_name)}")
    raida, stacks = built()
    out = os.path.abspath(wanted.out or os.path.join(ROOT, "target/profile", one.name))
    os.makedirs(out, exist_ok=True)
    settings = one.node_settings[-1]
    with tempfile.TemporaryDirectory(prefix="raida-profile.") as work:
        folder, data = os.path.join(work, "node"), os.path.join(work, "perf.data")
        with Node(raida, folder, settings.get("shards", 1), settings.get("cpus", [0]),
                settings.get("set", ())) as node:
            said = record(raida, stacks, node, one, load, wanted.seconds, data)
        folded = collapsed(data)
    if not folded.strip():
        sys.exit("perf/profile: no samples: may this user look? (sysctl kernel.perf_event_paranoid=1)")
    title = f"{one.name}: {load['name']}"
    graph = subprocess.run([inferno("inferno-flamegraph"), "--title", title, "--subtitle",
        "raida bench " + load["bench"]], input=folded, capture_output=True, text=True, check=True)
    for name, text in [("flamegraph.svg", graph.stdout), ("functions.txt", table(folded)),
            ("stacks.txt", folded), ("load.txt", said)]:
        with open(os.path.join(out, name), "w") as file:
            file.write(text)
    print(said.splitlines()[0] if said else title)
    print(table(folded, most=15), end="")
    print(os.path.relpath(os.path.join(out, "flamegraph.svg")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
