"""Figures and their targets, as every benchmark prints and saves them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured value. `target` is an upper limit, or a lower one with `at_least`; None for no target."""

    name: str
    value: float
    unit: str = ""
    target: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


def missed(figures: Iterable[Figure]) -> bool:
    """Return whether a target is missed."""
    return any(figure.met is False for figure in figures)


def save(figures: Iterable[Figure], file: Path) -> None:
    """Write the figures as JSON: `{"figures": [{"name", "value", "unit", "target", "met"}]}`."""
    rows = [
        {
            "name": figure.name,
            "value": round(figure.value, 4),
            "unit": figure.unit,
            "target": figure.target,
            "met": figure.met,
        }
        for figure in figures
    ]
    file.write_text(json.dumps({"figures": rows}, indent=2) + "\n")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table whose first `left` columns are text, and whose others are numbers."""
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def target_table(figures: Iterable[Figure]) -> str:
    """Return a Markdown table of the figures that have a target."""
    rows = [
        (
            figure.name,
            f"{figure.value:,.3g} {figure.unit}".strip(),
            f"{'≥' if figure.at_least else '≤'} {figure.target:g}",
            "met" if figure.met else "missed",
        )
        for figure in figures
        if figure.target is not None
    ]
    return table(("target", "measured", "limit", ""), rows)
