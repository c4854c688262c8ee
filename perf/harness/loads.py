"""Runs `raida bench` against a node, keeps what it wrote, and makes it fit to be shown."""

import json
import os
import shutil
import subprocess
import sys

from scenario import folder_name


class Loads:
    """How all loads of a run are put on."""

    def __init__(self, raida, work, out, slice_seconds, slices):
        self.raida, self.work, self.out = raida, work, out
        self.slices = slices
        # Whole seconds, as the command takes them.
        self.seconds = max(1, round(slice_seconds * slices))
        self.has_redis = shutil.which("redis-server") is not None
        self.skipped = set()
        self.failed = []

    def run(self, scenario, node, load, peaks, folder=None, extra=(), slices=None):
        """One load: a row of the page. `peaks` has the answers a second of earlier loads."""
        bench = load["bench"].split() + list(extra)
        if "of_peak" in load:
            peak = peaks.get(load["of_peak"])
            if not peak:
                return self._row(load, node, None, f"no peak of {load['of_peak']}")
            bench += ["--rate", str(max(1, round(peak * load["part"])))]
        baseline = [one for one in load.get("baseline", []) if one != "redis" or self.has_redis]
        if len(baseline) < len(load.get("baseline", [])):
            self.skipped.add("redis")
        bench += self._measured_how(scenario, node, baseline, "--sweep" in bench, slices)
        kept = os.path.join(self.out, scenario.name, folder or folder_name(load["name"]))
        command = [self.raida, "bench", *bench, "--no-live", "--json", "--out", kept]
        print(f"  {load['name']}", file=sys.stderr, flush=True)
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode not in (0, 1) or not done.stdout.strip():
            what = self._without_paths(done.stderr.strip() or f"exit status {done.returncode}", node)
            self.failed.append(f"{scenario.name}, {load['name']}: {what}")
            return self._row(load, node, None, what)
        result = json.loads(done.stdout)
        result["command"] = self._command(bench, node)
        self._scrub(kept, result)
        if done.returncode == 1:
            self.failed.append(f"{scenario.name}, {load['name']}: {_what_went_wrong(result)}")
        peaks[load["name"]] = result["contenders"][0]["per_second"]
        return self._row(load, node, result, None, os.path.relpath(kept, self.out))

    def _measured_how(self, scenario, node, baseline, is_sweep, slices):
        """The part of the command that is the same for all loads."""
        all_seconds, slices = self.seconds, slices or self.slices
        if slices != self.slices:
            all_seconds = max(1, round(self.seconds * slices / self.slices))
        cpus = lambda of: ",".join(map(str, of))
        words = ["--host", node.address, "--data", node.folder, "--node-pid", str(node.pid)]
        words += ["--cpus", cpus(scenario.generator_cpus), "--node-cpus", cpus(node.cpus)]
        words += ["--shards", str(node.shards)]
        # Quick runs want to be over; a node is warm after the first settling of a slice.
        words += ["--warm-up-s", "0"] if all_seconds <= 2 else []
        # Of a sweep that is the time of each of its ten steps or so.
        seconds = max(1, self.seconds // 4) if is_sweep else all_seconds
        words += ["--seconds", str(seconds)]
        words += [] if is_sweep else ["--slices", str(slices)]
        if baseline:
            words += ["--baseline", ",".join(baseline)]
        return words

    def _command(self, bench, node):
        return self._without_paths("raida bench " + " ".join(map(_quoted, bench)), node)

    def _without_paths(self, text, node):
        """Nothing of this machine: a reader puts his own in."""
        for what, name in [
            (node.folder, "$DATA"),
            (node.address, "$HOST"),
            (f"--node-pid {node.pid}", "--node-pid $PID"),
            (self.work, "$WORK"),
            (self.raida, "raida"),
        ]:
            text = text.replace(what, name)
        return text

    def _scrub(self, kept, result):
        """Puts the command that can be shown into the file that is kept."""
        path = os.path.join(kept, "result.json")
        with open(path) as file:
            stored = json.load(file)
        stored["command"] = result["command"]
        with open(path, "w") as file:
            json.dump(stored, file, indent=2, ensure_ascii=False)
            file.write("\n")

    @staticmethod
    def _row(load, node, result, why_not, folder=None):
        return {
            "name": load["name"],
            "bench": load["bench"],
            "shards": node.shards,
            "result": result,
            "why_not": why_not,
            "folder": folder,
        }


def serve_command(node):
    """How the node was started, for the page."""
    words = ["raida", "serve", "--data", "$DATA", "--listen", "$HOST"]
    given = node.command[node.command.index("--shards") :]
    # Secrets between servers lie beside the data.
    return " ".join(words + [word.replace(node.folder, "$DATA") for word in given])


def _what_went_wrong(result):
    counts = result["contenders"][0]["with_warm_up"]
    words = [f"{counts[name]} {name}" for name in ("right", "wrong", "refused", "late", "lost")]
    for name in ("first_wrong", "first_refused"):
        if result["contenders"][0].get(name):
            words.append(f"{name.replace('_', ' ')}: {result['contenders'][0][name]}")
    for name in ("coins_wrong_afterwards", "coins_astray"):
        if result.get(name):
            words.append(f"{result[name]} {name.replace('_', ' ')}")
    return "the run failed: " + ", ".join(words)


def _quoted(word):
    return f"'{word}'" if " " in word else word
