"""Collect evidence from many sources at once, within a deadline."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from .document import Datum, Missing

Source = Callable[[], Any]
T = TypeVar("T")


class Deadline:
    """A moment on the monotonic clock until which everything must be done."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self, at_most: float = float("inf")) -> float:
        """Return the seconds left, at most `at_most` and at least a tenth."""
        return max(0.1, min(at_most, self._end - time.monotonic()))


class Once(Generic[T]):
    """A source that several others share: the first call computes the value, all later ones return it.

    A call raises Missing when the first one did.
    """

    def __init__(self, source: Callable[[], T]) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._result: tuple[T] | Missing | None = None

    def __call__(self) -> T:
        """Return the shared value; raises Missing."""
        with self._lock:
            if self._result is None:
                try:
                    self._result = (self._source(),)
                except Missing as error:
                    self._result = error
        if isinstance(self._result, Missing):
            raise self._result
        return self._result[0]


def gather(sources: Mapping[str, Source], deadline: Deadline) -> dict[str, Datum]:
    """Call all sources at once; return a datum for each, no later than the deadline.

    A thread that is still blocked then is abandoned and ends with the process.
    """
    found: dict[str, Datum] = {}

    def collect(name: str, source: Source) -> None:
        try:
            found[name] = {"value": source()}
        except Missing as error:
            found[name] = error.datum()
        except Exception as error:
            # A bug in one source must not hide what the others found.
            found[name] = Missing(
                f"internal error while collecting this (please report): {error!r}.", "internal"
            ).datum()

    threads = [threading.Thread(target=collect, args=item, daemon=True) for item in sources.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline.left())
    late = Missing(f"no answer within {deadline.seconds:g} s.", "deadline").datum()
    return {name: found.get(name, late) for name in sources}


def gather_with_group(
    sources: Mapping[str, Source], group: str, members: Sequence[str], deadline: Deadline
) -> dict[str, Datum]:
    """Call all sources at once; put the data that the source `group` returns alongside the others.

    Where that one is missing, each of its `members` is missing for the same reason.
    """
    found = gather(sources, deadline)
    datum = found.pop(group)
    return {**found, **datum.get("value", dict.fromkeys(members, datum))}


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
        raise Missing(f"{' '.join(command[:3])} did not finish within {seconds:.0f} s.", "timeout") from None
