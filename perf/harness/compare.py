"""Compares two folders that perf/run wrote: what got better, what got worse, what is noise.

For each load the slices of A are held against those of B: the node's rate by its first baseline's,
slice by slice, where there is one, since a slower hour slows both; else its rate, or the p99 of an
open loop. The range is the middle 95 % of what the ratio of the medians comes to when slices are
drawn again with replacement (bootstrap). A difference counts when that range leaves 1 out, the ranks
of the slices differ with p < 0.05 (Mann-Whitney), and it is more than 3 %: two runs of the same
program differ by about that, which slices of one run cannot show. Everything else is noise.

Exit status: 0; 1 where something got worse; 2 where there is nothing to compare.
"""

import argparse
import json
import os
import sys
from statistics import median

from spread import rank_test, ratio_interval
from words import micros, short

ALIKE = 0.03
CHANCE = 0.05
VALUES_MIN = 4


class Compared:
    """One thing that both runs measured."""

    def __init__(self, what, unit, a, b, more_is_better):
        self.what, self.unit, self.a, self.b = what, unit, a, b
        self.ratio = median(b) / median(a) if median(a) else float("nan")
        self.interval = ratio_interval(a, b)
        self.verdict = self._verdict(more_is_better)

    def _verdict(self, more_is_better):
        if len(self.a) < VALUES_MIN or len(self.b) < VALUES_MIN or not self.interval:
            return "too few values to say"
        low, high = self.interval
        is_real = not low <= 1 <= high and rank_test(self.a, self.b) < CHANCE
        if not is_real or abs(self.ratio - 1) <= ALIKE:
            return "noise"
        return "better" if (self.ratio > 1) == more_is_better else "WORSE"


def read(folder):
    path = os.path.join(folder, "run.json")
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        print(f"perf/compare: {folder} is no folder of perf/run: {error}", file=sys.stderr)
        sys.exit(2)


def values(run):
    """Everything a run measured: name to (unit, values, whether more is better)."""
    found = {}
    for scenario in run["scenarios"]:
        for row in scenario["loads"]:
            if row["result"] and not row["result"].get("sweep"):
                found[f"{scenario['name']}, {row['name']}"] = _of_load(row["result"])
        for load, rounds in scenario.get("rounds", {}).items():
            ratios = [two * 2 / one for one, two in rounds]
            found[f"{scenario['name']}, {load}, two by one"] = ("times", ratios, True)
        for name, of in scenario.get("figures", {}).items():
            found[f"{scenario['name']}, {name}"] = ("", of, False)
    return found


def _of_load(result):
    node = result["contenders"][0]
    if result["loop"] == "open":
        return "p99", [one["p99"] for one in node["latency_us_by_slice"]], False
    if result["ratios"]:
        other = result["contenders"][1]
        pairs = zip(node["per_second_by_slice"], other["per_second_by_slice"])
        ratios = [mine / its for mine, its in pairs if its]
        return f"times {other['name']}", ratios, True
    return "a second", node["per_second_by_slice"], True


def differing_surroundings(a, b):
    a, b = a["surroundings"], b["surroundings"]
    names = ("cpu", "cpus", "kernel", "memory_bytes", "disk", "redis")
    return [name for name in names if a.get(name) != b.get(name)]


def main():
    parser = argparse.ArgumentParser(prog="perf/compare", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", metavar="A", help="the run before, as in perf/results/latest")
    parser.add_argument("b", metavar="B", help="the run after")
    wanted = parser.parse_args()
    a, b = read(wanted.a), read(wanted.b)
    before, after = values(a), values(b)
    both = [name for name in before if name in after and before[name][0] == after[name][0]]
    if not both:
        print("perf/compare: the two runs have no load in common", file=sys.stderr)
        return 2
    print(f"A: {wanted.a}, commit {a['surroundings']['commit']}")
    print(f"B: {wanted.b}, commit {b['surroundings']['commit']}")
    differing = differing_surroundings(a, b)
    if differing:
        print(f"not the same surroundings ({', '.join(differing)}): ratios to baselines may still "
            "be compared, rates may not")
    compared = []
    for name in both:
        unit, values_a, more_is_better = before[name]
        if values_a and after[name][1]:
            compared.append(Compared(name, unit, values_a, after[name][1], more_is_better))
    width = max(len(one.what) for one in compared)
    print(f"\n{'':{width}}  {'A':>12}  {'B':>12}  B / A (95 % of draws)   ")
    for one in compared:
        number = micros if one.unit == "p99" else short
        low, high = one.interval or (float("nan"),) * 2
        print(f"{one.what:{width}}  {number(median(one.a)):>12}  {number(median(one.b)):>12}  "
            f"{one.ratio:.3f} ({low:.3f} to {high:.3f})  {one.verdict:8} {one.unit}")
    only = sorted((set(before) | set(after)) - set(both))
    if only:
        print(f"\nnot in both, or not in the same unit: {'; '.join(only)}")
    print(f"\nnoise: the range leaves 1 in, or ranks differ with p >= {CHANCE}, or by {ALIKE:.0%} or less")
    worse = [one.what for one in compared if one.verdict == "WORSE"]
    print(f"worse beyond noise: {'; '.join(worse)}" if worse else "nothing got worse beyond noise")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
