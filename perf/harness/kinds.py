"""The kinds of scenario: each starts its nodes, puts its loads on them, and says what it found."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

from loads import serve_command
from network import BlackHoles, Network
from node import Node

PAGES = 15_000
# Fixes are asked for faster than people do: more tickets than they need.
FIX_SETTINGS = ["limits.healing_per_s=0", "tickets.pool=262144", "tickets.shares=1", "tickets.per_coin=0"]
# Short, so that a round is over before the machine changes its speed.
SLICES_A_TURN = 2
PAGE_BYTES = 1_024 * 17  # of AN and months of 1,024 coins
MEGABYTE = 1e6
# Lockers of two coins, and coins of the loads beside them.
LOCKERS, LOCKERS_QUICK = 1_000_000, 20_000
LOAD_COINS = 15_360
HEADER = "denomination,serial_number,authenticity_number,months_from_start\n"
# What the log of a shard holds before a checkpoint has to make room in it.
FULL_LOG_BYTES = 80 << 20


def loads(scenario, loads, folder, quick):
    """One node, the loads one after the other."""
    peaks = {}
    with _node(scenario.node_settings[0], loads, folder) as node:
        rows = [loads.run(scenario, node, load, peaks) for load in scenario.loads]
        return {"loads": rows, "serve": serve_command(node)}


def shards(scenario, loads, folder, quick):
    """Nodes side by side, of which one at a time has a load, in rounds."""
    rounds, rows, serve = {}, [], []
    count = 1 if quick else scenario.rounds
    nodes = [
        _node(settings, loads, f"{folder}-{settings['shards']}")
        for settings in scenario.node_settings
    ]
    try:
        serve = [serve_command(node) for node in nodes]
        for load in scenario.loads:
            for number in range(count):
                by_cpu = []
                for node in nodes:
                    named = {**load, "name": f"{load['name']}, {_shards(node.shards)}"}
                    kept = f"{_folder(load['name'])}-{node.shards}-round-{number + 1}"
                    row = loads.run(scenario, node, named, {}, kept)
                    rates = row["result"] and row["result"]["contenders"][0]["per_cpu_second_by_slice"]
                    by_cpu.append(sorted(rates)[len(rates) // 2] if rates else None)
                    # The page shows the last round; all of them are in the ratios.
                    rows = [other for other in rows if other["name"] != row["name"]] + [row]
                if all(by_cpu):
                    rounds.setdefault(load["name"], []).append(by_cpu)
    finally:
        for node in nodes:
            node.end()
    return {"loads": rows, "rounds": rounds, "serve": "\n".join(serve)}


def turns(scenario, loads, folder, quick):
    """One node, the loads taking turns in rounds, so that each can be compared with another."""
    rates, rows = {}, {}
    with _node(scenario.node_settings[0], loads, folder) as node:
        for number in range(1 if quick else scenario.rounds):
            for load in scenario.loads:
                name = load["name"]
                # The page shows the last round, and its folder has it; all are in the ratios.
                rows[name] = loads.run(scenario, node, load, {}, slices=SLICES_A_TURN)
                result = rows[name]["result"]
                rates.setdefault(name, []).append(result and result["contenders"][0]["per_second"])
        return {"loads": list(rows.values()), "turns": rates, "serve": serve_command(node)}


def pages(scenario, loads, folder, quick):
    """A node with one coin on every page: at rest, and with all of them in memory."""
    coins = f"{folder}.coins.csv"
    with open(coins, "w") as file:
        file.write(HEADER)
        draw = random.Random(1)
        for denomination in range(-8, 7):
            for page in range(1_000):
                number = page * 1_024 + page % 1_024
                file.write(f"{denomination},{number},{draw.getrandbits(128):032x},40\n")
    _must(loads.raida, "import", "--csv", coins, "--data", folder)
    with _node(scenario.node_settings[0], loads, folder) as node:
        figures = {
            "start with 15,000 pages, ms": [node.ready_ms()],
            "resident after the start, MB": [node.resident_bytes() / MEGABYTE],
        }
        _must(loads.raida, "detect", coins, "--host", node.address)
        time.sleep(0.5)
        resident = node.resident_bytes()
        limit = 1.15 * PAGES * PAGE_BYTES + 64 * MEGABYTE
        figures["resident with all pages loaded, MB"] = [resident / MEGABYTE]
        figures["resident by its limit"] = [resident / limit]
        figures["at rest, % of a core"] = _at_rest(node, 2 if quick else 5, 2)
        extra = ["--coins-file", coins]
        rows = [loads.run(scenario, node, load, {}, extra=extra) for load in scenario.loads]
        note = "`$DATA.coins.csv` has one coin on each page: `pages` in perf/harness/kinds.py writes it."
        return {"loads": rows, "figures": figures, "serve": serve_command(node), "note": note}


def lockers(scenario, loads, folder, quick):
    """Nodes with very many lockers, and as many coins that lie in none; the loads taking turns."""
    count = LOCKERS_QUICK if quick else LOCKERS
    files = LockerFiles(folder, count)
    figures, rates, rows, serve = {}, {}, {}, []
    resident = {}
    for name, coins in [("in none", files.plain), ("in lockers", files.lockers)]:
        at = f"{folder}-{_folder(name)}"
        _must(loads.raida, "import", "--csv", coins, "--data", at)
        with _node(scenario.node_settings[0], loads, at) as node:
            figures[f"resident after the start, coins {name}, MB"] = [node.resident_bytes() / MEGABYTE]
            _must(loads.raida, "detect", coins, "--host", node.address)
            time.sleep(0.5)
            resident[name] = node.resident_bytes()
            figures[f"resident with all pages loaded, coins {name}, MB"] = [resident[name] / MEGABYTE]
    shutil.rmtree(f"{folder}-in-none")
    taken = resident["in lockers"] - resident["in none"]
    figures["memory a locker, bytes"] = [taken / count]
    data = f"{folder}-in-lockers"
    # The coins of loads come to those of the lockers, from here on.
    for coins in files.of_loads.values():
        _must(loads.raida, "import", "--csv", coins, "--data", data)
    for settings in scenario.node_settings:
        with _node(settings, loads, data) as node:
            serve.append(serve_command(node))
            figures[f"start, {_shards(node.shards)}, ms"] = [node.ready_ms()]
            for number in range(1 if quick else scenario.rounds):
                for load in scenario.loads:
                    name = f"{load['name']}, {_shards(node.shards)}"
                    extra = ["--coins-file", files.of_loads[load["coins"]]]
                    row = loads.run(scenario, node, {**load, "name": name}, {}, extra=extra, slices=SLICES_A_TURN)
                    # The page shows the last round, and its folder has it; all are in the ratios.
                    rows[name] = row
                    result = row["result"]
                    rates.setdefault(name, []).append(result and result["contenders"][0]["per_second"])
    note = f"{count:,} lockers of two coins: `LockerFiles` in perf/harness/kinds.py writes them."
    return {"loads": list(rows.values()), "turns": rates, "figures": figures, "serve": "\n".join(serve), "note": note}


class LockerFiles:
    """CSVs of coins: two in each of very many lockers, the same ones in none, and those of loads."""

    def __init__(self, folder, count):
        self.lockers, self.plain = f"{folder}.lockers.csv", f"{folder}.plain.csv"
        self.of_loads = {
            "in none": f"{folder}.none.csv",
            "in lockers of ten": f"{folder}.ten.csv",
        }
        draw = random.Random(1)
        key = lambda: f"{draw.getrandbits(96):024x}ffffffff"
        # Not the mark of a locker, whatever is drawn.
        an = lambda: f"{draw.getrandbits(120):030x}00"
        coins = _coins()
        with open(self.lockers, "w") as lockers, open(self.plain, "w") as plain:
            for file in (lockers, plain):
                file.write(HEADER)
            for _ in range(count):
                of_both = key()
                for _ in range(2):
                    coin = next(coins)
                    lockers.write(f"{coin},{of_both},40\n")
                    plain.write(f"{coin},{an()},40\n")
        with open(self.of_loads["in none"], "w") as file:
            file.write(HEADER)
            file.writelines(f"{next(coins)},{an()},40\n" for _ in range(LOAD_COINS))
        with open(self.of_loads["in lockers of ten"], "w") as file:
            file.write(HEADER)
            for _ in range(LOAD_COINS // 10):
                of_all = key()
                file.writelines(f"{next(coins)},{of_all},40\n" for _ in range(10))


def _coins():
    """All coins there are, one of each page after the other."""
    for place in range(1_024):
        for page in range(1_000):
            for denomination in range(-8, 7):
                yield f"{denomination},{page * 1_024 + (page + place) % 1_024}"


def start(scenario, loads, folder, quick):
    """Starts of a new node, and after the death of one with a log as full as it gets."""
    new, killed, log_megabytes, recovered = [], [], [], None
    for number in range(1 if quick else scenario.rounds):
        at = f"{folder}-{number}"
        # No checkpoint but the log's own wish, so that the log is as long as it gets.
        settings = {"shards": 1, "set": ["storage.checkpoint_interval_s=3600"]}
        with _node(settings, loads, at) as node:
            new.append(node.ready_ms())
            log_megabytes.append(_fill_log(loads.raida, node, at) / MEGABYTE)
            node.end(signal.SIGKILL)
        with _node(settings, loads, at) as node:
            killed.append(node.ready_ms())
            recovered = node.recovered()
            serve = serve_command(node)
        shutil.rmtree(at)
    figures = {
        "start of a new node, ms": new,
        "start after kill -9, ms": killed,
        "log at the time of death, MB": log_megabytes,
    }
    return {"loads": [], "figures": figures, "serve": serve, "note": f"recovered: {recovered}"}


def network(scenario, loads, folder, quick):
    """Nodes of a whole network, at rest."""
    nodes = []
    try:
        for number in range(scenario.nodes):
            settings = {"shards": 1, "cpus": loads.all_cpus, "set": [f"node.raida_id={number}"]}
            nodes.append(_node(settings, loads, f"{folder}-{number}"))
        time.sleep(1)
        seconds = 3 if quick else 10
        before = sum(node.cpu_seconds() for node in nodes)
        time.sleep(seconds)
        cpu = sum(node.cpu_seconds() for node in nodes) - before
        figures = {
            "25 nodes, GB": [sum(node.own_bytes() for node in nodes) / 1e9],
            "25 nodes at rest, % of a core": [cpu / seconds * 100],
        }
        return {"loads": [], "figures": figures, "serve": serve_command(nodes[0])}
    finally:
        for node in nodes:
            node.end()


def fix(scenario, loads, folder, quick):
    """A node that repairs coins, in a network with others up, stopped and silent."""
    figures, commands = {}, []
    others = [
        ("all up", 0, False),
        ("11 stopped", 11, False),
        ("12 stopped", 12, False),
        ("11 silent", 11, True),
        ("12 silent", 12, True),
    ]
    for name, absent, is_silent in others:
        down = range(1, 1 + absent)
        at = f"{folder}-{_folder(name)}"
        with (
            BlackHoles(down if is_silent else []),
            Network(loads.raida, at, down, FIX_SETTINGS) as network,
        ):
            words = ["bench", "fix", "--network", at, "--coins", "100", "--connections", "1"]
            words += ["--seconds", "3" if quick else "10", "--no-live", "--json"]
            words += ["--expect-refusal"] if absent >= 12 else []
            print(f"  {name}", file=sys.stderr, flush=True)
            result = json.loads(_must(loads.raida, *words))
            commands += [" ".join(["raida", *network.command[1:]]), " ".join(["raida", *words])]
            node = result["contenders"][0]
            ms = lambda quantile: [one[quantile] / 1e3 for one in node["latency_us_by_slice"]]
            figures[f"{name}, p50 ms"] = ms("p50")
            if is_silent:
                figures[f"{name}, later p99 ms"] = ms("p99")
                # The bench counts nothing of its warm-up; the node counts everything.
                stats = ["stats", "--latency", "--json", "--data", network.data(0)]
                commands_seen = json.loads(_must(loads.raida, *stats))["commands"]
                seen = next(one for one in commands_seen if one["command"] == "fix")
                figures[f"{name}, first ms"] = [seen["latency_us"]["max"] / 1e3]
    serve = "\n".join(commands).replace(folder, "$DIR")
    return {"loads": [], "figures": figures, "serve": serve}


KINDS = {"loads": loads, "shards": shards, "turns": turns, "pages": pages, "lockers": lockers, "start": start, "network": network, "fix": fix}


def _node(settings, loads, folder):
    cpus = settings.get("cpus", [0])
    given = list(settings.get("set", ()))
    if settings.get("keys"):
        _must(loads.raida, "keys", "new", "--out", f"{folder}.keys")
        given.append(f"keys.file={folder}.keys/raida0.keys")
    return Node(loads.raida, folder, settings.get("shards", 1), cpus, given)


def _at_rest(node, seconds, times):
    shares = []
    for _ in range(times):
        before = node.cpu_seconds()
        time.sleep(seconds)
        shares.append((node.cpu_seconds() - before) / seconds * 100)
    return shares


def _fill_log(raida, node, folder):
    """Powns until a checkpoint has to make room, or a minute is over; returns the log's bytes."""
    command = [raida, "bench", "pown", "--coins", "100", "--depth", "4", "--data", folder]
    command += ["--host", node.address, "--seconds", "70", "--warm-up-s", "0"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    load = subprocess.Popen(command, stdin=subprocess.DEVNULL, **quiet)
    try:
        give_up = time.monotonic() + 60
        used = 0
        while used < FULL_LOG_BYTES and time.monotonic() < give_up and load.poll() is None:
            time.sleep(0.1)
            used = _used_bytes(os.path.join(folder, "log"))
        node.end(signal.SIGKILL)
        return used
    finally:
        load.kill()
        load.wait()


def _used_bytes(folder):
    used = 0
    for file in os.scandir(folder):
        try:
            used += file.stat().st_blocks * 512
        except FileNotFoundError:
            pass  # A segment that was recycled since.
    return used


def _must(*command):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"perf: {' '.join(command[:2])} failed: {done.stderr.strip()}")
    return done.stdout


def _folder(name):
    return "-".join(name.lower().split())


def _shards(count):
    return "1 shard" if count == 1 else f"{count} shards"
