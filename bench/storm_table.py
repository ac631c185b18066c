"""The figures of a storm, their targets and their tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import Figure, table, target_table


@dataclass(frozen=True)
class Result:
    """The figures of one revision, by their names in `UNITS`."""

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
# Upper limits of ours divided by the other revision's figure.
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
# The same as lower limits.
LEAST_RATIOS = {"steady: deliveries a second": 1.7}
# Upper limits of ours alone.
LIMITS = {
    "storm: closed with 1013": 0.0,
    "storm: time-outs": 0.0,
    "storm: /readyz, p99": 250.0,
    "storm: longest step, processor time": 50.0,
    "lost": 0.0,
    "doubled": 0.0,
    "out of order": 0.0,
}


def figures(results: Sequence[Result]) -> list[Figure]:
    """Return ours, the last of the results, and its ratios to the other revision's, with the targets."""
    ours = results[-1].values
    found = [Figure(name, value, UNITS[name], LIMITS.get(name)) for name, value in ours.items()]
    if len(results) > 1:
        other = results[0]
        for name, target in (RATIOS | LEAST_RATIOS).items():
            if name in ours:
                ratio = ours[name] / max(other.values[name], 1e-9)
                title = f"{name}: ours over {other.label}'s"
                found.append(Figure(title, ratio, "", target, at_least=name in LEAST_RATIOS))
    return found


def tables(results: Sequence[Result]) -> str:
    """Return two Markdown tables: what was measured, and the targets."""
    rows = []
    for name, unit in UNITS.items():
        if name in results[-1].values:
            cells = (f"{result.values[name]:,.1f}".removesuffix(".0") for result in results)
            rows.append([name, *(f"{cell} {unit}".strip() for cell in cells)])
    measured = table(["", *(result.label for result in results)], rows)
    return f"{measured}\n\n{target_table(figures(results))}"
