"""How many messages a client may send."""

import time

FLOOD = 4429  # close code
FLOOD_REASON = "too many messages; do not reconnect at once"
BURST = 100.0  # messages at once
PER_SECOND = 10.0  # messages in the long run; the browser sends one in 30 s


class Rate:
    """A bucket of permissions that fills steadily."""

    __slots__ = ("_left", "_time")

    def __init__(self) -> None:
        self._left = BURST
        self._time = time.monotonic()

    def allow(self) -> bool:
        """Take one permission; False when none is left."""
        now = time.monotonic()
        self._left = min(BURST, self._left + (now - self._time) * PER_SECOND)
        self._time = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
