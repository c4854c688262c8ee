"""Scenarios: what is in perf/scenarios/*.toml, checked."""

import os
import re
import sys
import tomllib

FIELDS = {"kind", "shows", "rounds", "nodes", "goal", "generator", "node", "load"}
KINDS = {"loads", "shards", "turns", "pages", "lockers", "start", "network", "fix"}
LOAD_FIELDS = {"name", "bench", "baseline", "part", "of_peak", "coins"}


class Scenario:
    """One file. `name` is the file's, without the number that puts it in order."""

    def __init__(self, path):
        self.name = re.sub(r"^\d+-", "", os.path.basename(path).removesuffix(".toml"))
        with open(path, "rb") as file:
            text = tomllib.load(file)
        unknown = set(text) - FIELDS
        for load in text.get("load", []):
            unknown |= set(load) - LOAD_FIELDS
        self.kind = text.get("kind", "loads")
        if unknown or self.kind not in KINDS:
            what = f"unknown: {', '.join(sorted(unknown))}" if unknown else f"kind = {self.kind}"
            raise ValueError(f"{path}: {what}")
        self.shows = text["shows"]
        self.rounds = text.get("rounds", 1)
        self.nodes = text.get("nodes", 1)
        self.goals = text.get("goal", [])
        self.loads = text.get("load", [])
        self.generator_cpus = text.get("generator", {}).get("cpus", [1])
        node = text.get("node", {})
        # One table for one node, several for nodes that take turns.
        self.node_settings = node if isinstance(node, list) else [node]


def folder_name(name):
    """A load's name as a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def read(folder, wanted):
    """The scenarios of these names, in the files' order; all of them where none is named."""
    files = sorted(file for file in os.listdir(folder) if file.endswith(".toml"))
    every = [Scenario(os.path.join(folder, file)) for file in files]
    names = [scenario.name for scenario in every]
    for name in wanted:
        if name not in names:
            sys.exit(f"perf: there is no scenario {name}; there are: {', '.join(names)}")
    return [scenario for scenario in every if not wanted or scenario.name in wanted]
