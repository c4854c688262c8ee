"""Numbers as people read them."""


def rate(value):
    return f"{value:,.0f}"


def short(value):
    """Three digits: 0.83, 12.4, 1,234."""
    if value is None:
        return "-"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def micros(value):
    if value is None:
        return "-"
    if value < 1_000:
        return f"{short(value)} µs"
    if value < 1_000_000:
        return f"{short(value / 1_000)} ms"
    return f"{short(value / 1_000_000)} s"


def with_range(of, number=short):
    """Median (least to most); the range is left away where there is one value only."""
    if of is None:
        return "-"
    if of["least"] == of["most"]:
        return number(of["median"])
    return f"{number(of['median'])} ({number(of['least'])} to {number(of['most'])})"
