"""The goals (perf/README.md): what each is read from, and whether it is met.

A figure is a spread (least, median, most) of what was measured several times; a goal is met when the
median is. `None` is a figure that could not be taken.
"""

from spread import scaled, spread


def of_load(measured, load):
    for row in measured["loads"]:
        if row["name"] == load and row["result"]:
            return row
    return None


def contender(row, name):
    return next((one for one in row["result"]["contenders"] if one["name"] == name), None)


def ratio(measured, goal):
    row = of_load(measured, goal["load"])
    of = row and next((r for r in row["result"]["ratios"] if r["to"] == goal["to"]), None)
    return of and of["of_rates"]


def coins_per_core_second(measured, goal):
    """Of one shard, which is one core: by time, not by its CPU time, so that waiting counts."""
    row = of_load(measured, goal["load"])
    if not row:
        return None
    words = row["bench"].split()
    coins = int(words[words.index("--coins") + 1])
    return scaled(spread(contender(row, "node")["per_second_by_slice"]), coins)


def percentile(name):
    def figure(measured, goal):
        row = of_load(measured, goal["load"])
        if not row:
            return None
        node = contender(row, "node")
        # What never came back has no latency: with any of it the percentile is not what it says.
        if node["counts"]["lost"] > node["counts"]["right"] * _left_over(name):
            return None
        by_slice = spread([one[name] for one in node.get("latency_us_by_slice", [])])
        return {**(by_slice or {}), "median": node["latency_us"][name]} if by_slice else None

    return figure


def _left_over(name):
    return {"p99": 0.01, "p99_9": 0.001}[name]


def by_disk(measured, goal):
    row = of_load(measured, goal["load"])
    disk = row and contender(row, "bare disk")
    if not disk:
        return None
    p99 = percentile("p99")(measured, goal)
    return scaled(p99, 1 / disk["latency_us"]["p99"]) if disk["latency_us"]["p99"] else None


def two_by_one(measured, goal):
    """(answers for each second on a CPU with two shards, times 2) by (the same with one): each round
    by itself, since the rounds' nodes took turns."""
    rounds = measured.get("rounds", {}).get(goal["load"], [])
    return spread([two * 2 / one for one, two in rounds if one])


def by_turn(measured, goal):
    """The rate of one load by that of another, round by round."""
    rounds = measured.get("turns", {})
    pairs = zip(rounds.get(goal["load"], []), rounds.get(goal["to"], []))
    return spread([one / other for one, other in pairs if one and other])


def plain(name):
    return lambda measured, goal: spread(measured.get("figures", {}).get(name, []))


FIGURES = {
    "ratio": ratio,
    "coins per core second": coins_per_core_second,
    "p99 µs": percentile("p99"),
    "p99.9 µs": percentile("p99_9"),
    "p99 by that of the disk": by_disk,
    "two by one": two_by_one,
    "by turn": by_turn,
}


def judge(scenario, measured):
    """The scenario's goals with what was measured; `is_met` is None where nothing was."""
    judged = []
    for goal in scenario.goals:
        figure = FIGURES.get(goal["figure"], plain(goal["figure"]))(measured, goal)
        is_met = None
        if figure is not None:
            value = figure["median"]
            is_met = value >= goal.get("at_least", value) and value <= goal.get("at_most", value)
        judged.append({**goal, "scenario": scenario.name, "measured": figure, "is_met": is_met})
    return judged
