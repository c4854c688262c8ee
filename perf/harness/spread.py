"""Values that were measured several times: how far they lie apart, and whether two differ."""

import random
from itertools import combinations
from statistics import median


def spread(values):
    """Least, median and most; None where there is nothing."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    return {"least": min(values), "median": median(values), "most": max(values)}


def scaled(of, factor):
    return of and {name: value * factor for name, value in of.items()}


def ratio_interval(a, b, rounds=4000):
    """The middle 95 % of median(b) / median(a) over draws from both with replacement (a bootstrap).

    The seed is fixed: the same two files give the same verdict every time.
    """
    draw = random.Random(0x7A1DA)
    ratios = []
    for _ in range(rounds):
        base = median(draw.choices(a, k=len(a)))
        if base:
            ratios.append(median(draw.choices(b, k=len(b))) / base)
    ratios.sort()
    if not ratios:
        return None
    at = lambda part: ratios[min(len(ratios) - 1, int(part * len(ratios)))]
    return at(0.025), at(0.975)


def rank_test(a, b):
    """How likely ranks as uneven as these are if both are alike: Mann-Whitney, exact, two-sided.

    Counts all ways to deal the values out where there are few, or a sample of them.
    """
    values = sorted(a + b)
    rank = {value: _middle_rank(values, value) for value in set(values)}
    ranks = [rank[value] for value in a + b]
    expected = sum(ranks) * len(a) / len(ranks)
    seen = abs(sum(rank[value] for value in a) - expected) - 1e-9
    deals = _deals(len(ranks), len(a))
    uneven = total = 0
    for places in deals:
        total += 1
        uneven += abs(sum(ranks[place] for place in places) - expected) >= seen
    return uneven / total


def _middle_rank(values, value):
    first = values.index(value)
    return first + (values.count(value) - 1) / 2


def _deals(count, taken):
    ways = 1
    for i in range(taken):
        ways = ways * (count - i) // (i + 1)
    if ways <= 50_000:
        return combinations(range(count), taken)
    draw = random.Random(0x7A1DA)
    return (draw.sample(range(count), taken) for _ in range(20_000))
