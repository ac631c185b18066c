"""A whole stretch of one user's stream, as frames that all of the user's sockets share.

A cursor is the place of a frame, counted from wherever the first window of a room began. It stays valid while
the window grows at either end, and until what it stands at is trimmed.
"""

from bisect import bisect_left
from collections.abc import Iterable

from app.events import Event, position

PIECE = 65_536  # bytes that are written to a socket at once, about
PIECES = 16  # joined pieces that are remembered for the next socket at the same cursor


class Window:
    """Frames without a gap. `floor` is the id of the event before the first, `last` that of the last."""

    __slots__ = ("_frames", "_ids", "_pieces", "begin", "floor", "size")

    def __init__(self, floor: str, begin: int = 0) -> None:
        self.floor = floor
        self.begin = begin  # the first frame's cursor
        self.size = 0  # bytes
        self._ids: list[str] = []
        self._frames: list[bytes] = []
        self._pieces: dict[int, tuple[bytes, int]] = {}

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def end(self) -> int:
        """The cursor behind the last frame."""
        return self.begin + len(self._ids)

    @property
    def last(self) -> str:
        """The id of the newest event; the floor while there is none."""
        return self._ids[-1] if self._ids else self.floor

    def append(self, event: Event) -> bool:
        """Add the event that follows the last; False when `event` doesn't."""
        if event.previous != self.last:
            return False
        self._ids.append(event.id)
        self._frames.append(event.frame)
        self.size += len(event.frame)
        self._pieces.clear()
        return True

    def prepend(self, events: Iterable[Event]) -> bool:
        """Add the events before the first, newest first, as far as they are whole; False at a gap."""
        floor, ids, frames = self.floor, [], []
        whole = True
        for event in events:
            if event.id != floor:
                whole = False
                break
            ids.append(event.id)
            frames.append(event.frame)
            floor = event.previous
        self._ids[:0] = reversed(ids)
        self._frames[:0] = reversed(frames)
        self.begin -= len(ids)
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
        index = bisect_left(self._ids, position(event_id), key=position)
        return self.begin + index + 1 if self._ids[index : index + 1] == [event_id] else None

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
        self.floor = self._ids[count - 1]
        self.size -= sum(map(len, self._frames[:count]))
        del self._ids[:count], self._frames[:count]
        self.begin = cursor
