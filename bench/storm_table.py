"""The figures of a storm, their targets and their tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """The figures of one revision: names as in `UNITS`."""

    label: str
    values: dict[str, float]


UNITS = {
    "storm: all open and whole": "s",
    "storm: closed with 1013": "",
    "storm: time-outs": "",
    "storm: api processor time": "s",
    "storm: memory added": "MiB",
    "storm: /readyz, p99": "ms",
    "storm: longest step of the loop": "ms",
    "storm: longest step, processor time": "ms",
    "restart: all back": "s",
    "restart: longest away": "s",
    "restart: handshakes refused": "",
    "office: all back": "s",
    "office: longest away": "s",
    "office: handshakes refused": "",
    "room: all have the event": "ms",
    "counted: memory of the machine a socket": "KiB",
    "counted: memory of api, nginx and proxy a socket": "KiB",
    "counted: memory of the kernel a socket": "KiB",
    "steady: memory of api and nginx a socket": "KiB",
    "steady: api processor time a connect": "ms",
    "steady: api processor time a delivery": "µs",
    "steady: deliveries a second": "",
    "steady: publish to socket at 1,000 events a second, p99": "ms",
    "lost": "",
    "doubled": "",
    "out of order": "",
    "resyncs": "",
}
# Of the other revision's figure; those that must be nothing; and bounds of their own.
RATIOS = {
    "storm: all open and whole": 0.08,
    "storm: api processor time": 0.08,
    "storm: memory added": 0.5,
    "restart: all back": 0.2,
    "restart: longest away": 0.2,
    "office: all back": 0.25,
    "counted: memory of the machine a socket": 0.5,
    "steady: api processor time a connect": 0.6,
    "steady: api processor time a delivery": 0.6,
    "steady: publish to socket at 1,000 events a second, p99": 0.5,
}
AT_LEAST = {"steady: deliveries a second": 1.7}
NOTHING = ("storm: closed with 1013", "storm: time-outs", "lost", "doubled", "out of order")
BOUNDS = {"storm: /readyz, p99": 250.0, "storm: longest step, processor time": 50.0}


def figures(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return ours with the targets; a ratio is of the other revision's figure."""
    ours = results[-1].values
    found: list[dict[str, Any]] = []

    def add(name: str, value: float, unit: str, target: float | None, *, least: bool = False) -> None:
        met = None if target is None else value >= target if least else value <= target
        found.append({"name": name, "value": round(value, 4), "unit": unit, "target": target, "met": met})

    for name, value in ours.items():
        add(name, value, UNITS[name], 0 if name in NOTHING else BOUNDS.get(name))
    if len(results) > 1:
        for name, bound in (RATIOS | AT_LEAST).items():
            if name in ours:
                ratio = ours[name] / max(results[0].values[name], 1e-9)
                add(f"{name}: ours over {results[0].label}'s", ratio, "", bound, least=name in AT_LEAST)
    return found


def table(results: Sequence[Result]) -> str:
    """Return two Markdown tables: what was measured, and the targets."""
    lines = [
        "| | " + " | ".join(result.label for result in results) + " |",
        "|---|" + "---:|" * len(results),
    ]
    for name, unit in UNITS.items():
        if name in results[-1].values:
            cells = (f"{result.values[name]:,.1f}".removesuffix(".0") for result in results)
            lines.append(f"| {name} | " + " | ".join(f"{cell} {unit}".strip() for cell in cells) + " |")
    lines += ["", "| target | measured | wanted | |", "|---|---:|---:|---|"]
    lines += [
        f"| {figure['name']} | {figure['value']:,.3g} {figure['unit']} | "
        f"{'≥' if figure['name'].rpartition(': ')[0] in AT_LEAST else '≤'} {figure['target']:g} | "
        f"{'met' if figure['met'] else 'missed'} |"
        for figure in figures(results)
        if figure["target"] is not None
    ]
    return "\n".join(lines)
