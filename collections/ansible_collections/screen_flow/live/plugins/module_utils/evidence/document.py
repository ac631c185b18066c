"""The evidence document: what is known of a site at one moment, and of everything else why it is not known.

The document is a JSON object that verify's checks and diagnose's rules both read::

    {"format": 1,
     "expected": {...},                 # what the inventory says; see roles/site_check/vars/main.yml
     "server": {NAME: DATUM, ...},      # gathered on the server by module site_evidence_server
     "edge": {NAME: DATUM, ...}}        # gathered on the control node by module site_evidence_edge

A datum is `{"value": VALUE}`, or `{"missing": "a sentence that says why there is none"}`. It is never
guessed. What each NAME holds is written in the RETURN of the two modules. No datum holds a secret: log lines
are redacted, and of a container's environment only named variables are kept.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

FORMAT = 1
LOG_LINES = 20  # kept of each log
LINE_LENGTH = 300  # characters kept of each line

Datum = dict[str, Any]
Source = Callable[[], Any]


class Missing(Exception):
    """A datum can't be got; the text is the sentence that says why."""


class Deadline:
    """A moment on the monotonic clock until which everything must be done."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self, at_most: float = float("inf")) -> float:
        """Return the seconds left, `at_most` at most and never below a tenth."""
        return max(0.1, min(at_most, self._end - time.monotonic()))


def gather(sources: Mapping[str, Source], deadline: Deadline) -> dict[str, Datum]:
    """Call all sources at once; return a datum for each, no later than the deadline.

    A thread that is still busy then is left behind and dies with the process.
    """
    found: dict[str, Datum] = {}

    def ask(name: str, source: Source) -> None:
        try:
            found[name] = {"value": source()}
        except Missing as error:
            found[name] = {"missing": str(error)}
        except Exception as error:
            # One source's bug must not hide what the others found.
            found[name] = {"missing": f"the question itself failed: {error!r}."}

    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in sources.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline.left())
    late = {"missing": f"no answer within {deadline.seconds:g} s."}
    return {name: found.get(name, late) for name in sources}


def run(
    command: Sequence[str], deadline: Deadline, *, at_most: float = 5, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command with `text` as its input and return it, whatever its status; raise Missing."""
    name = command[0]
    seconds = deadline.left(at_most)
    try:
        return subprocess.run(  # noqa: S603
            command,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise Missing(f"{name} is not installed.") from None
    except OSError as error:
        raise Missing(f"{name} can't be run: {error.strerror}.") from error
    except subprocess.TimeoutExpired:
        raise Missing(f"{' '.join(command[:3])} gave no answer within {seconds:.0f} s.") from None


def value(document: Mapping[str, Any], path: str) -> Any:
    """Return what stands at `path`, such as server.redis.ping; None where it is missing."""
    place, _, rest = path.partition(".")
    name, _, rest = rest.partition(".")
    found = document.get(place, {}).get(name, {}).get("value")
    for key in filter(None, rest.split(".")):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def missing(document: Mapping[str, Any]) -> dict[str, str]:
    """Return what could not be got: place and name, such as server.redis, and why."""
    return {
        f"{place}.{name}": str(datum["missing"])
        for place in ("server", "edge")
        for name, datum in document.get(place, {}).items()
        if "missing" in datum
    }


# What may be a secret in a log line. Names are kept: they help.
_SECRETS = (
    re.compile(r"eyJ[\w-]{5,}\.[\w-]+\.[\w-]*"),  # JWT
    re.compile(r"(?i)(?<=bearer )\S+"),
    re.compile(r"(?i)(?<=cookie: )[^\"]+"),
    re.compile(r"(?i)(?:(?<=password=)|(?<=token=)|(?<=secret=)|(?<=requirepass ))\S+"),
    re.compile(r"(?<=://)[^/\s@]+(?=@)"),  # of a URL: name and password
    re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+"),  # e-mail address
)


def redact(line: str) -> str:
    """Return a log line, cut to LINE_LENGTH, with secrets and e-mail addresses taken out."""
    for pattern in _SECRETS:
        line = pattern.sub("[redacted]", line)
    return line[:LINE_LENGTH]


def last_lines(text: str) -> list[str]:
    """Return the last LOG_LINES lines of a log, redacted."""
    return [redact(line) for line in text.splitlines()[-LOG_LINES:]]
