"""The Markdown page of a run: the goals first, then a table a scenario with its commands."""

import os

from goals import contender
from spread import spread
from words import micros, rate, short, with_range


def write(path, run):
    lines = [*_head(run), *_goals(run["goals"])]
    for scenario in run["scenarios"]:
        lines += _scenario(scenario, os.path.dirname(path))
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")


def _head(run):
    facts = run["surroundings"]
    disk = facts["disk"]
    # What the kernel believes of a virtual disk is what its host says.
    kind = {True: "rotating, as the kernel has it", False: "not rotating", None: "of unknown kind"}
    kind = kind[disk.get("rotational")]
    cache = f", write cache: {disk['write_cache']}" if disk.get("write_cache") else ""
    changed = " with uncommitted changes" if facts["has_uncommitted_changes"] else ""
    averages = " ".join(f"{value:.2f}" for value in facts["load_average_before"])
    machine = "a virtual machine" if facts["is_virtual"] else "a machine"
    memory = f"{facts['memory_bytes'] / 1e9:.0f} GB" if facts["memory_bytes"] else "unknown"
    lines = [
        "# Measurements",
        "",
        f"Commit {facts['commit']}{changed}, {facts['time_utc']}, written by `{run['command']}`;"
        f" it took {run['took_s'] / 60:.0f} minutes.",
        "",
        "| | |",
        "|---|---|",
        f"| machine | {machine}, {facts['cpu']}, {facts['cpus']} CPUs, {memory} of memory |",
        f"| kernel | Linux {facts['kernel']} |",
        f"| disk | {disk['file_system']}, {disk.get('device', 'unknown device')}, {kind}{cache} |",
        f"| load average before | {averages} |",
        f"| two busy loops on CPUs 0 and 1 stood still | {_still(facts['stands_still'])} |",
        f"| Redis | {facts['redis'] or 'not installed: nothing is compared with it'} |",
        f"| compiler | {facts['rustc'] or 'unknown'} |",
        "",
        "Rates are right answers a second: the median of the slices, least and most in brackets."
        " Node and baselines take turns slice by slice in one run; ratios are taken slice by slice."
        " The node runs on CPU 0 and the generator on CPU 1 unless the commands say otherwise."
        " Latencies of a closed loop count from sending and are those of that load only; of an open"
        " loop from when a request was due.",
        "",
    ]
    if run["failed"]:
        lines += ["**What failed:**", "", *(f"- {what}" for what in run["failed"]), ""]
    return lines


def _still(still):
    share, longest = still["share"] * 100, micros(still["longest_us"])
    return f"{share:.2f} % of the time, {longest} at longest: every latency has that in it"


def _goals(goals):
    lines = ["## Goals", "", "| goal | measured | met | scenario |", "|---|---|---|---|"]
    verdict = {True: "yes", False: "**no**", None: "not measured"}
    for goal in goals:
        lines.append(
            f"| {goal['text']} | {_measured(goal)} | {verdict[goal['is_met']]} "
            f"| [{goal['scenario']}](#{goal['scenario']}) |"
        )
    return [*lines, ""]


def goal_in_words(goal):
    verdict = {True: "met", False: "NOT MET", None: "not measured"}[goal["is_met"]]
    return f"{verdict:13} {goal['text']}: {_measured(goal)}"


def _measured(goal):
    figure = goal["figure"]
    units = [("µs", micros), (", ms", lambda ms: micros(ms * 1_000))]
    units += [(unit, lambda value, unit=unit: f"{short(value)} {unit}") for unit in ("%", "GB")]
    number = next((words for unit, words in units if unit in figure), _big)
    return with_range(goal["measured"], number)


def _big(value):
    return f"{value / 1e6:.1f} M" if value >= 1e6 else short(value)


def _scenario(scenario, folder):
    lines = [f"## {scenario['name']}", "", scenario["shows"][0].upper() + scenario["shows"][1:] + ".", ""]
    if scenario["loads"]:
        lines += _loads(scenario["loads"])
    for load, rounds in scenario.get("rounds", {}).items():
        ratios = spread([two * 2 / one for one, two in rounds])
        rates = [" and ".join(rate(value) for value in pair) for pair in rounds]
        lines.append(
            f"- {load}: for each second of the node on a CPU, one shard and two, round by round: "
            f"{'; '.join(rates)}. Two by one: {with_range(ratios)}"
        )
    if scenario.get("rounds"):
        lines.append("")
    if scenario.get("figures"):
        lines += ["| | |", "|---|---|"]
        lines += [f"| {name} | {with_range(spread(of))} |" for name, of in scenario["figures"].items()]
        lines.append("")
    if scenario.get("note"):
        lines += [scenario["note"], ""]
    lines += [f"    perf/run {scenario['name']}", ""]
    lines += [f"    {line}" for line in scenario.get("serve", "").splitlines()]
    for row in scenario["loads"]:
        if row["result"]:
            lines.append(f"    {row['result']['command']}")
    return [*lines, "", *_pictures(scenario, folder)]


def _loads(rows):
    lines = [
        "| load | who | answers/s | CPU µs an answer | p50 / p99 / p99.9 | max "
        "| node / baseline | the same by CPU time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if not row["result"]:
            lines.append(f"| {row['name']} | not measured: {row['why_not']} | | | | | | |")
            continue
        lines += _sweep(row) if row["result"].get("sweep") else _load(row)
    return [*lines, ""]


def _load(row):
    """A line for the node, and one for each baseline, with the node's ratio to it."""
    result = row["result"]
    node = contender(row, "node")
    lines = [_line(row["name"] + _remarks(result, node), node, ["", ""])]
    for ratio in result["ratios"]:
        of = [with_range(ratio[name]) for name in ("of_rates", "of_rates_by_cpu")]
        lines.append(_line("", contender(row, ratio["to"]), of))
    return lines


def _line(name, one, ratios):
    latency = one["latency_us"]
    costs = spread([1e6 / value for value in one["per_cpu_second_by_slice"] if value])
    cells = [
        name,
        one["name"],
        with_range(spread(one["per_second_by_slice"]), rate),
        short(costs["median"]) if costs else "",
        " / ".join(micros(latency[of]) for of in ("p50", "p99", "p99_9")),
        micros(latency["max"]),
        *ratios,
    ]
    return "| " + " | ".join(cells) + " |"


def _sweep(row):
    lines = []
    for point in row["result"]["sweep"]:
        latency = point["latency_us"]
        mark = ", saturated" if point["is_saturated"] else ""
        lines.append(
            f"| {row['name']}, {rate(point['rate_wanted'])} due{mark} | node "
            f"| {rate(point['per_second'])} | "
            f"| {' / '.join(micros(latency[name]) for name in ('p50', 'p99', 'p99_9'))} "
            f"| {micros(latency['max'])} | | |"
        )
    return lines


def _remarks(result, node):
    """What a reader must know to read the row."""
    remarks = []
    if result.get("rate_wanted"):
        remarks.append(f"{rate(result['rate_wanted'])} due a second")
    counts = node["with_warm_up"]
    remarks += [
        f"{counts[name]:,} {name}" for name in ("wrong", "refused", "late", "lost") if counts[name]
    ]
    if node.get("slices_cut_short"):
        remarks.append(f"{node['slices_cut_short']} slices ended when what was made ready was used up")
    if result["generator"]["is_limit"]:
        remarks.append("the generator is the limit")
    return f" ({', '.join(remarks)})" if remarks else ""


def _pictures(scenario, folder):
    wanted = ["rate-against-latency.svg", "throughput-by-shards.svg", "rates.svg"]
    lines = []
    own = [os.path.join(scenario["name"], name) for name in wanted[1:]]
    for row in scenario["loads"]:
        if row["folder"] and row["result"]:
            names = ["rate-against-latency.svg"] if row["result"].get("sweep") else [
                "latency-by-percentile.svg"
            ]
            own += [os.path.join(row["folder"], name) for name in names]
    for name in own:
        if os.path.exists(os.path.join(folder, name)):
            lines.append(f"![{scenario['name']}]({name})")
    if len(lines) > 2:
        return ["<details><summary>pictures</summary>", "", *lines, "", "</details>", ""]
    return [*lines, ""] if lines else []
