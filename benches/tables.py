"""The figures as text: for the terminal, and as the tables of ``docs/performance.md``."""

from __future__ import annotations

from pytest_clib._results import duration

SUBJECTS = ("floor", "ours", "against")
RATIOS = ("ours/floor", "against/floor", "ours/against")
COUNTS = ("system_calls", "allocations", "instructions")
WIDTH = 58


def name(result: dict) -> str:
    """A row and its parameter, for people."""
    return ", ".join(filter(None, (result["title"], result["label"])))


def value(result: dict, subject: str) -> str:
    """The time of a subject, or the bytes, with their unit."""
    if "bytes" in result:
        size = result["bytes"].get(subject)
        return "-" if size is None else f"{size / 1000:.1f} kB"
    time = result["ns"].get(subject)
    if time is None:
        return "-"
    return duration(time) if time >= 100 else f"{time:.1f} ns"


def heading(against: bool) -> str:
    """The first line of the terminal's table."""
    return _line(" " * WIDTH, SUBJECTS, RATIOS, against)


def line(result: dict, against: bool) -> str:
    """A result as a line of the terminal's table."""
    ratios = [
        f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})"
        if found
        else "-"
        for found in (result["ratios"].get(key) for key in RATIOS)
    ]
    cells = [value(result, subject) for subject in SUBJECTS]
    return _line(f"{name(result):<{WIDTH}}", cells, ratios, against)


def _line(start: str, cells: list, ratios: list, against: bool) -> str:
    if not against:
        cells, ratios = cells[:2], ratios[:1]
    return (
        start
        + "".join(f"{cell:>10}" for cell in cells)
        + "".join(f"{cell:>21}" for cell in ratios)
    )


def counts(entries: list[dict]) -> list[str]:
    """The exact figures, a line for each library."""
    lines = []
    for entry in entries:
        for subject, figures in entry["counts"].items():
            shown = ", ".join(
                f"{figure.replace('_', ' ')} {count(figures[figure])}"
                for figure in (*COUNTS[:2], "bytes", COUNTS[2])
                if figures.get(figure) is not None
            )
            lines.append(f"{entry['name']}, {subject}: {shown}")
    return lines


def count(figure: float | None) -> str:
    """An exact figure of one operation. What is not whole happens once in a run, and is rounded away."""
    return "-" if figure is None else f"{figure:,.0f}"


def targets(judged: list[dict]) -> list[str]:
    """What was to be reached and what was, a line each."""
    return [
        f"{'met   ' if target['met'] else 'MISSED'} {target['what']}: "
        f"{target['reached']:g}, target {target['limit']}"
        for target in judged
        if target["met"] is not None
    ]


def markdown(data: dict) -> str:
    """All tables in the form of ``docs/performance.md``."""
    against = any("against" in result.get("ns", {}) for result in data["results"])
    machine = data["machine"]
    lines = [
        f"{machine['platform']}, {machine['cpus']} CPUs, load {data['load'][0]:.1f}, {data['pairs']} pairs of slices.",
        "",
    ]
    if against:
        lines += [
            "| work | floor | ours | ours / floor | upstream / floor | ours / upstream |",
            "|---|---|---|---|---|---|",
        ]
    else:
        lines += ["| work | floor | ours | ours / floor |", "|---|---|---|---|"]
    for result in data["results"]:
        cells = [name(result), value(result, "floor"), value(result, "ours")]
        for key in RATIOS if against else RATIOS[:1]:
            found = result["ratios"].get(key)
            cells.append(f"{found['median']:.2f}" if found else "-")
        lines.append(_row(cells))
    shown = ("ours", "against") if against else ("ours",)
    titles = [figure.replace("_", " ") for figure in COUNTS]
    head = ["work", *titles]
    if against:
        head += [f"upstream: {titles[0]}", *titles[1:]]
    lines += ["", _row(head), "|---" * len(head) + "|"]
    for entry in data["counts"]:
        cells = [entry["name"]]
        for subject in shown:
            figures = entry["counts"].get(subject, {})
            cells += [count(figures.get(figure)) for figure in COUNTS]
        lines.append(_row(cells))
    lines += ["", "| target | reached | |", "|---|---|---|"]
    lines += [
        _row(
            [
                f"{target['what']} {target['limit']}",
                f"{target['reached']:g}",
                "met" if target["met"] else "**missed**",
            ]
        )
        for target in data["targets"]
        if target["met"] is not None
    ]
    return "\n".join(lines).replace(" us |", " µs |") + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
