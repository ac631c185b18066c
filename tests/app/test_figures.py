"""Benchmark figures: whether a target is met, and what is saved."""

import json
from pathlib import Path

from bench.figures import Figure, missed, save, target_table


def test_targets_are_upper_limits_unless_they_are_lower_ones() -> None:
    assert Figure("", 5, "", 5).met is True
    assert Figure("", 5.1, "", 5).met is False
    assert Figure("", 5, "", 5, at_least=True).met is True
    assert Figure("", 4.9, "", 5, at_least=True).met is False
    assert Figure("", 5).met is None
    assert missed([Figure("", 5), Figure("", 6, "", 5)])
    assert not missed([Figure("", 5), Figure("", 5, "", 5)])


def test_saved_figures(tmp_path: Path) -> None:
    save([Figure("lost", 0, "events", 0), Figure("time", 1.23456, "s")], tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text()) == {
        "figures": [
            {"name": "lost", "value": 0, "unit": "events", "target": 0, "met": True},
            {"name": "time", "value": 1.2346, "unit": "s", "target": None, "met": None},
        ]
    }


def test_target_table() -> None:
    figures = [Figure("time", 2, "s", 1), Figure("rate", 3, "", 2, at_least=True), Figure("size", 4)]
    assert target_table(figures).splitlines() == [
        "| target | measured | limit |  |",
        "| --- | ---: | ---: | ---: |",
        "| time | 2 s | ≤ 1 | missed |",
        "| rate | 3 | ≥ 2 | met |",
    ]
