"""A diagnosis as text for a terminal, and as a JSON record."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .engine import Diagnosis, Finding


def describe(diagnosis: Diagnosis) -> str:
    """Return a diagnosis as text for a terminal."""
    lines: list[str] = []
    for number, finding in enumerate(diagnosis.findings):
        lines += ["", f"Also {finding.layer}: {finding.cause}"] if number else [_first(finding)]
        lines += [f"  Fix:  {finding.remedy}", f"  Page: docs/runbook/{finding.page}.md"]
    if not diagnosis.findings and not diagnosis.waiting:
        lines.append("No fault was found." if diagnosis.missing else "Every layer is healthy.")
    if diagnosis.waiting:
        lines += ["", f"Not judged, because {diagnosis.unsettled} Diagnose again when that is over:"]
        lines += [f"  {finding.layer}: {finding.cause}" for finding in diagnosis.waiting]
    if diagnosis.missing:
        lines += ["", "Not collected, therefore not diagnosed:"]
        lines += [f"  {name}: {why}" for name, why in sorted(diagnosis.missing.items())]
    return "\n".join(lines).strip()


def _first(finding: Finding) -> str:
    return f"The first broken layer is {finding.layer}: {finding.cause}"


def as_record(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as a JSON object: `healthy`, and the fields of Diagnosis."""
    return {"healthy": not diagnosis.findings, **asdict(diagnosis)}
