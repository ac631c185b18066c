"""The limit on the messages of one client."""

import time

TOO_MANY = 4429  # close code
FLOOD_REASON = "too many messages; do not reconnect at once"
BURST = 100.0  # messages at once
PER_SECOND = 10.0  # messages on average; the page sends one every 30 s


class Rate:
    """A token bucket."""

    __slots__ = ("_time", "_tokens")

    def __init__(self) -> None:
        self._tokens = BURST
        self._time = time.monotonic()

    def allow(self) -> bool:
        """Take a token; return False when none is left."""
        now = time.monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._time) * PER_SECOND)
        self._time = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
