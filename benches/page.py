"""The figures as plots: one SVG a plot, and a page that holds them all and the table."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

import tables

from pytest_clib._results import duration

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = {"floor": "#8a8f98", "ours": "#0b6bcb", "against": "#d9480f"}
STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1rem; }
.plots .wide { grid-column: 1 / -1; max-width: 60rem; }
td + td { white-space: nowrap; }
figure { margin: 0; } figcaption { font-weight: 600; }
.missed { color: #d9480f; font-weight: 600; }
"""
LINES = (  # row, what the parameter is
    ("read", "bytes"),
    ("write", "bytes"),
    ("burst", "writes in a burst"),
    ("map-fd", "regions"),
    ("map", "regions"),
    ("translate", "regions"),
    ("translate-nofd", "regions"),
    ("threads", "threads"),
    ("churn", "threads"),
    ("sgl-read", "bytes"),
    ("contexts", "contexts"),
)


def write(folder: Path, data: dict) -> None:
    """Writes the plots and the page."""
    plots = []
    bars = ratio_bars(data["results"])
    if bars:
        plots.append(("ratios", "Time as a multiple of the floor", bars))
    for row, unit in LINES:
        points = [result for result in data["results"] if result["row"] == row]
        if len(points) > 1:
            plots.append((row, f"{points[0]['title']}", lines(points, unit)))
    for name, _, svg in plots:
        (folder / f"{name}.svg").write_text(svg)
    figures = "".join(
        f"<figure class={'wide' if name == 'ratios' else 'plot'}>"
        f"<figcaption>{html.escape(title)}</figcaption>{svg}</figure>"
        for name, title, svg in plots
    )
    (folder / "index.html").write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>libvfio-user: speed</title>"
        f"<style>{STYLE}</style><h1>libvfio-user: speed</h1>"
        f"<p>{html.escape(data['machine']['platform'])}, {data['machine']['cpus']} CPUs, "
        f"load {data['load'][0]:.1f} at the end, {data['pairs']} pairs of slices a row.</p>"
        f"<div class=plots>{figures}</div>"
        f"{table(data)}{exact(data)}{targets(data)}</html>\n"
    )


def table(data: dict) -> str:
    """All rows."""
    head = "".join(f"<th>{key}" for key in (*tables.SUBJECTS, *tables.RATIOS))
    body = []
    for result in data["results"]:
        cells = [tables.value(result, who) for who in tables.SUBJECTS]
        for key in tables.RATIOS:
            found = result["ratios"].get(key)
            cells.append(f"{found['median']:.2f}" if found else "-")
        title = html.escape(tables.name(result))
        body.append(f"<tr><td>{title}" + "".join(f"<td>{cell}" for cell in cells))
    return f"<h2>All rows</h2><table><tr><th>{head}{''.join(body)}</table>"


def exact(data: dict) -> str:
    """Counts of one operation."""
    if not data["counts"]:
        return ""
    head = "".join(f"<th>{name.replace('_', ' ')}" for name in tables.COUNTS)
    body = "".join(
        f"<tr><td>{html.escape(entry['name'])}, {who}"
        + "".join(f"<td>{tables.count(figures.get(name))}" for name in tables.COUNTS)
        for entry in data["counts"]
        for who, figures in entry["counts"].items()
    )
    return f"<h2>One operation, exactly</h2><table><tr><th>{head}{body}</table>"


def targets(data: dict) -> str:
    """What was to be reached."""
    body = "".join(
        f"<tr><td>{html.escape(target['what'])}<td>{target['reached']:g}"
        f"<td>{html.escape(target['limit'])}"
        f"<td class={'met' if target['met'] else 'missed'}>{'met' if target['met'] else 'missed'}"
        for target in data["targets"]
        if target["met"] is not None
    )
    return f"<h2>Targets</h2><table><tr><th><th>reached<th>target<th>{body}</table>"


def _svg(width: int, height: int, label: str, body: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html.escape(label)}" font-family="system-ui, sans-serif" font-size="11" '
        f'fill="currentColor">{"".join(body)}</svg>'
    )


def _key(subjects: list[str], x: float, y: float) -> list[str]:
    body = []
    for number, who in enumerate(subjects):
        at = x + number * 80
        body.append(
            f'<rect x="{at}" y="{y - 8}" width="9" height="9" fill="{COLOURS[who]}"/>'
            f'<text x="{at + 13}" y="{y}">{who}</text>'
        )
    return body


def ratio_bars(results: list[dict]) -> str:
    """A bar for each row and subject: how many times the floor's time it takes."""
    shown = [result for result in results if "ours/floor" in result["ratios"]]
    if not shown:
        return ""
    who = [
        name
        for name in ("ours", "against")
        if any(f"{name}/floor" in result["ratios"] for result in shown)
    ]
    left, right, top, thick = 350, 60, 24, 8
    step = thick * len(who) + 7
    width, height = 840, top + step * len(shown) + 10
    most = max(
        result["ratios"][f"{name}/floor"]["median"]
        for result in shown
        for name in who
        if f"{name}/floor" in result["ratios"]
    )
    most = max(math.log10(most), 0.1)
    scale = (width - left - right) / (most + math.log10(2))

    def x(ratio: float) -> float:
        return left + max(math.log10(max(ratio, 0.5)) + math.log10(2), 0) * scale

    body = _key(who, left, 12)
    for number, result in enumerate(shown):
        y = top + number * step
        title = html.escape(tables.name(result))
        body.append(
            f'<text x="{left - 8}" y="{y + 9}" text-anchor="end">{title}</text>'
        )
        for offset, name in enumerate(who):
            found = result["ratios"].get(f"{name}/floor")
            if found:
                end = x(found["median"])
                body.append(
                    f'<rect x="{left}" y="{y + offset * thick}" width="{end - left:.1f}" '
                    f'height="{thick - 1}" fill="{COLOURS[name]}"/>'
                    f'<text x="{end + 4:.1f}" y="{y + offset * thick + 7}" font-size="8">'
                    f"{found['median']:.2f}</text>"
                )
    body.append(
        f'<line x1="{x(1):.1f}" x2="{x(1):.1f}" y1="{top - 4}" y2="{height - 6}" '
        f'stroke="currentColor" stroke-dasharray="3 3"/>'
    )
    return _svg(width, height, "time as a multiple of the floor, by row", body)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... from the last that is at most ``low`` to the first that is at least ``high``."""
    steps = [
        step * 10.0**exponent
        for exponent in range(
            math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1
        )
        for step in (1, 2, 5)
    ]
    first = max(step for step in steps if step <= low)
    last = min(step for step in steps if step >= high)
    return [step for step in steps if first <= step <= last]


def lines(points: list[dict], unit: str) -> str:
    """Time over the parameter, both logarithmic; a line for each subject."""
    width, height, left, right, top, bottom = 480, 260, 64, 36, 26, 38
    who = [name for name in COLOURS if any(name in point["ns"] for point in points)]
    values = [value for point in points for value in point["ns"].values()]
    ticks = _ticks(min(values) * 0.95, max(values) * 1.05)
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    places = [math.log10(max(point["parameter"], 1)) for point in points]
    span = max(places) - min(places) or 1

    def x(parameter: int) -> float:
        share = (math.log10(max(parameter, 1)) - min(places)) / span
        return left + share * (width - left - right)

    def y(value: float) -> float:
        share = (math.log10(value) - low) / (high - low)
        return height - bottom - share * (height - top - bottom)

    body = _key(who, left, 12)
    for tick in ticks:
        at = y(tick)
        body.append(
            f'<line x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}" '
            f'stroke="currentColor" opacity=".15"/>'
            f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{duration(tick)}</text>'
        )
    for point in points:
        body.append(
            f'<text x="{x(point["parameter"]):.1f}" y="{height - bottom + 15}" '
            f'text-anchor="middle">{point["parameter"]:,}</text>'
        )
    body.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle">{unit}</text>'
    )
    for name in who:
        known = [point for point in points if name in point["ns"]]
        path = " ".join(
            f"{x(p['parameter']):.1f},{y(p['ns'][name]):.1f}" for p in known
        )
        body.append(
            f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>'
        )
        body += [
            f'<circle cx="{x(p["parameter"]):.1f}" cy="{y(p["ns"][name]):.1f}" r="3" '
            f'fill="{COLOURS[name]}"><title>{name}, {p["label"]}: {p["ns"][name]:,.4g} ns</title></circle>'
            for p in known
        ]
    return _svg(width, height, f"{points[0]['title']}: time over {unit}", body)
