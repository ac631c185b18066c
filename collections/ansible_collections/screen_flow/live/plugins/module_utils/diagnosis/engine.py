"""The diagnosis engine: applies the rules to the evidence document and orders what they find.

`diagnose` is a pure function of the evidence document (see evidence/document.py). A rule examines one cause
and returns a sentence when the evidence shows it, else None; missing evidence shows nothing. A rule for a
*symptom* (a socket that fails to open) reports only when no rule found a cause that explains it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..evidence.document import missing, value

# Innermost first: a fault in one layer breaks the layers after it. Each is a file of rules/.
LAYERS = (
    "server", "redis", "worker", "api", "sign_in", "origin_certificate", "nginx", "origin_firewall", "edge",
    "page",
)  # fmt: skip
FRESH = (
    10  # seconds in which a container may have been observed while it was starting, nginx before its reload
)


@dataclass(frozen=True)
class Finding:
    """One fault: the rule that found it, its layer, cause and remedy as sentences, the runbook page."""

    rule: str
    layer: str
    cause: str
    remedy: str
    page: str
    is_symptom: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """The findings, root cause first; the evidence that is missing; and what a second look has to confirm."""

    findings: list[Finding]
    missing: dict[str, str]
    waiting: list[Finding] = field(default_factory=list)
    unsettled: str = ""


class Evidence:
    """Read access to the evidence document by path, such as server.redis.ping; None for what is missing."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.expected: Mapping[str, Any] = document.get("expected", {})

    def __getitem__(self, path: str) -> Any:
        return value(self.document, path)

    def reason(self, place: str, name: str) -> str:
        """Return why a datum is missing, as an enum of evidence/document.py; empty when it is not missing."""
        reason: str = self.document.get(place, {}).get(name, {}).get("reason", "")
        return reason

    def expect(self, name: str) -> Any:
        """Return what the inventory sets, or None."""
        return self.expected.get(name)

    @property
    def names(self) -> list[str]:
        """The site's host names: its own first, then its aliases."""
        return [self.expect("host"), *(self.expect("aliases") or [])]

    def container(self, name: str) -> Mapping[str, Any] | None:
        """Return the state of a service's container; None when there is none or no state is known."""
        found: Mapping[str, Any] | None = (self["server.containers"] or {}).get(name)
        return found

    def is_running(self, name: str) -> bool:
        """Return whether a service's container is known to run."""
        container = self.container(name)
        return container is not None and container["state"] == "running"

    def probe(self, place: str, name: str) -> Mapping[str, Any]:
        """Return a probe's result, or an empty mapping."""
        found: Mapping[str, Any] = (self[f"{place}.probes"] or {}).get(name, {})
        return found

    def failed_probe(self, place: str, name: str) -> Mapping[str, Any] | None:
        """Return the result of a probe that is known to have failed, else None."""
        found = self.probe(place, name)
        return found if found and not found["ok"] else None


Judge = Callable[[Evidence], str | None]


@dataclass(frozen=True)
class Rule:
    """A named rule. A symptom is suppressed by findings of the layers or rules in `explained_by`."""

    name: str
    layer: str
    page: str
    remedy: str
    judge: Judge
    explained_by: tuple[str, ...]
    is_symptom: bool
    deploys: bool


REGISTERED: list[Rule] = []


def rule(
    page: str,
    remedy: str,
    *,
    explained_by: tuple[str, ...] = (),
    symptom: bool = False,
    deploys: bool = False,
) -> Callable[[Judge], Judge]:
    """Register a function as a rule of the same name; its layer is the name of its module.

    `page` is a page of the runbook. `deploys`: a deployment in progress causes the same evidence.
    """

    def register(judge: Judge) -> Judge:
        layer = judge.__module__.rpartition(".")[2]
        REGISTERED.append(Rule(judge.__name__, layer, page, remedy, judge, explained_by, symptom, deploys))
        return judge

    return register


def unsettled(e: Evidence, again: bool) -> str:
    """Return why the stack is not at rest, as a sentence; empty when it is.

    The first look (`again` false) also counts a container that has just become healthy, as a probe may have
    run before it was, and a configuration of nginx that was just written and not yet loaded.
    """
    commands = e["server.deploying"]
    if commands:
        return f"the stack is being changed right now ({commands[0]})."
    now = e["server.clock.server"] or 0.0
    written = e["server.nginx_loaded.newest"]
    # A run that has just written nginx's files is about to reload it.
    if not again and written is not None and 0 <= now - written < FRESH:
        return f"nginx's configuration changed {now - written:.0f} s ago."
    for name, container in (e["server.containers"] or {}).items():
        if container["restarts"]:
            continue  # it exits repeatedly, which is a fault
        if container["state"] == "created" or (container["state"], container["health"]) == (
            "running",
            "starting",
        ):
            return f"{name} is starting."
        if not again and container["state"] == "running" and now - (container["started"] or 0.0) < FRESH:
            return f"{name} started {now - container['started']:.0f} s ago."
    return ""


def diagnose(document: Mapping[str, Any], rules: Sequence[Rule], again: bool = False) -> Diagnosis:
    """Return the findings that the evidence shows, root cause first. `rules` are in the order of LAYERS.

    While the stack is not at rest, a finding that a deployment can cause is not reported but put into
    `waiting`, for a second look. So is a symptom without a cause in the first look.
    """
    evidence = Evidence(document)
    shown = {each.name: sentence for each in rules if (sentence := each.judge(evidence))}
    present = [each for each in rules if each.name in shown]

    def is_explained(one: Rule) -> bool:
        causes = [other for other in present if other is not one and not other.is_symptom]
        return any({other.name, other.layer} & set(one.explained_by) for other in causes)

    standing = [each for each in present if not is_explained(each)]
    # Report only the innermost symptom; the outer ones follow from it.
    symptoms = [each for each in standing if each.is_symptom]
    standing = [each for each in standing if not each.is_symptom or each is symptoms[0]]
    standing.sort(key=lambda each: (LAYERS.index(each.layer), each.is_symptom))
    why = unsettled(evidence, again)
    if not why and not again and standing and all(each.is_symptom for each in standing):
        why = "a socket failed without a known cause, and may have failed only once."
    found = [
        (each, Finding(each.name, each.layer, shown[each.name], each.remedy, each.page, each.is_symptom))
        for each in standing
    ]
    return Diagnosis(
        findings=[finding for each, finding in found if not (why and each.deploys)],
        missing=missing(document),
        waiting=[finding for each, finding in found if why and each.deploys],
        unsettled=why,
    )
