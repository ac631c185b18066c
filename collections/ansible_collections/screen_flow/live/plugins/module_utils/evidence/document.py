"""The evidence document: the site's state at one moment, and for each missing part why it is missing.

The document is a JSON object that verify's checks and diagnose's rules both read::

    {"format": 2,
     "expected": {...},                 # what the inventory sets; see roles/site_check/vars/main.yml
     "server": {NAME: DATUM, ...},      # collected on the server by module site_evidence_server
     "edge": {NAME: DATUM, ...}}        # collected on the control node by module site_evidence_edge

A datum is `{"value": VALUE}`, or `{"missing": "a sentence", "reason": ENUM}`; nothing is guessed.
ENUM is `deadline` (no result in time), `internal` (a bug), a reason of probe/stages.py, or `unavailable`. The
RETURN of the two modules describes each NAME. No datum contains a secret: log lines are redacted, and of a
container's environment only named variables are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

FORMAT = 2
LOG_LINES = 20  # kept of each log
LINE_LENGTH = 300  # characters kept of each line

Datum = dict[str, Any]

# Argument spec of modules that judge the document; the doc fragment `evidence` documents it.
DOCUMENT_SPEC: dict[str, dict[str, Any]] = {
    "site": {"type": "str", "required": True},
    "expected": {"type": "dict", "required": True},
    "server": {"type": "dict", "required": True},
    "edge": {"type": "dict", "required": True},
}


class Missing(Exception):
    """A datum can't be collected: a sentence that explains why, and the reason as an enum."""

    def __init__(self, message: str, reason: str = "unavailable") -> None:
        super().__init__(message)
        self.reason = reason

    def datum(self) -> Datum:
        """Return the datum that represents the missing value."""
        return {"missing": str(self), "reason": self.reason}


def document_of(given: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """Return the document that a module's options give; `more` names other options that are parts of it."""
    return {"format": FORMAT, **{part: given[part] for part in ("expected", "server", "edge", *more)}}


def value(document: Mapping[str, Any], path: str) -> Any:
    """Return the value at `path`, such as server.redis.ping; None where it is missing."""
    place, _, rest = path.partition(".")
    name, _, rest = rest.partition(".")
    found = document.get(place, {}).get(name, {}).get("value")
    for key in filter(None, rest.split(".")):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def missing(document: Mapping[str, Any]) -> dict[str, str]:
    """Return why each missing datum is missing, by place and name, such as server.redis."""
    return {
        f"{place}.{name}": str(datum["missing"])
        for place in ("server", "edge")
        for name, datum in document.get(place, {}).items()
        if "missing" in datum
    }


# Patterns of possible secrets in a log line. Their names are kept, because they help the reader.
_SECRETS = (
    re.compile(r"eyJ[\w-]{5,}\.[\w-]+\.[\w-]*"),  # JWT
    re.compile(r"(?i)(?<=bearer )\S+"),
    re.compile(r"(?i)(?<=cookie: )[^\"]+"),
    re.compile(r"(?i)(?:(?<=password=)|(?<=token=)|(?<=secret=)|(?<=requirepass ))\S+"),
    re.compile(r"(?<=://)[^/\s@]+(?=@)"),  # name and password in a URL
    re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"),  # e-mail address
)


def redact(line: str) -> str:
    """Return a log line, cut to LINE_LENGTH, without secrets and e-mail addresses."""
    for pattern in _SECRETS:
        line = pattern.sub("[redacted]", line)
    return line[:LINE_LENGTH]


def last_lines(text: str) -> list[str]:
    """Return the last LOG_LINES lines of a log, redacted."""
    return [redact(line) for line in text.splitlines()[-LOG_LINES:]]
