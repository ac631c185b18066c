"""A whole stretch of one user's stream, as frames that all of the user's sockets share.

A cursor is the place of a frame, counted from wherever the first window of a room began. It stays valid while
the window grows at either end, and until what it stands at is trimmed.
"""

from bisect import bisect_left
from collections.abc import Iterable

from app.events import Event, id_of, position

PIECE = 65_536  # bytes that are written to a socket at once, about
PIECES = 16  # joined pieces that are remembered for the next socket at the same cursor


class Window:
    """Frames without a gap. `floor` is the id of the event before the first, `last` that of the last."""

    __slots__ = ("_frames", "_pieces", "begin", "floor", "last", "size")

    def __init__(self, floor: str, begin: int = 0) -> None:
        self.floor = self.last = floor
        self.begin = begin  # the first frame's cursor
        self.size = 0  # bytes
        self._frames: list[bytes] = []
        self._pieces: dict[int, tuple[bytes, int]] = {}

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def end(self) -> int:
        """The cursor behind the last frame."""
        return self.begin + len(self._frames)

    def append(self, event: Event) -> bool:
        """Add the event that follows the last; False when `event` doesn't."""
        if event.previous != self.last:
            return False
        self.last = event.id
        self._frames.append(event.frame)
        self.size += len(event.frame)
        self._pieces.clear()
        return True

    def prepend(self, events: Iterable[Event]) -> bool:
        """Add the events before the first, newest first, as far as they are whole; False at a gap."""
        floor, frames = self.floor, []
        whole = True
        for event in events:
            if event.id != floor:
                whole = False
                break
            frames.append(event.frame)
            floor = event.previous
        self._frames[:0] = reversed(frames)
        self.begin -= len(frames)
        self.size += sum(map(len, frames))
        self.floor = floor
        self._pieces.clear()
        return whole

    def after(self, event_id: str) -> int | None:
        """Return the cursor of who has seen `event_id`, or None when the window does not reach so far."""
        if event_id == self.last:
            return self.end
        if event_id == self.floor:
            return self.begin
        index = bisect_left(self._frames, position(event_id), key=lambda frame: position(id_of(frame)))
        found = index < len(self._frames) and id_of(self._frames[index]) == event_id
        return self.begin + index + 1 if found else None

    def piece(self, cursor: int) -> tuple[bytes, int]:
        """Return frames from `cursor` on as one piece, and the cursor behind it; all sockets share it."""
        made = self._pieces.get(cursor)
        if made is None:
            start = stop = cursor - self.begin
            length = 0
            while stop < len(self._frames) and (stop == start or length + len(self._frames[stop]) <= PIECE):
                length += len(self._frames[stop])
                stop += 1
            data = self._frames[start] if stop - start == 1 else b"".join(self._frames[start:stop])
            made = data, self.begin + stop
            if len(self._pieces) >= PIECES:
                del self._pieces[next(iter(self._pieces))]
            self._pieces[cursor] = made
        return made

    def frames(self, cursor: int, end: int) -> list[bytes]:
        """Return the frames from `cursor` to before `end`."""
        return self._frames[cursor - self.begin : end - self.begin]

    def trim(self, cursor: int) -> None:
        """Let go of the frames before `cursor`, and of joined pieces."""
        self._pieces.clear()
        count = cursor - self.begin
        if count <= 0:
            return
        self.floor = id_of(self._frames[count - 1])
        self.size -= sum(map(len, self._frames[:count]))
        del self._frames[:count]
        self.begin = cursor
