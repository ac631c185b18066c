"""A contiguous part of one user's stream, as frames that all sockets of the user share.

A cursor is the position of a frame, counted from the start of the room's first window. It stays valid while
the window grows at either end, until its frame is trimmed.
"""

from bisect import bisect_left
from collections.abc import Iterable

from app.events import Event, id_of, position

PIECE = 65_536  # bytes written to a socket in one step, unless one frame is larger
PIECES = 16  # joined pieces cached for other sockets at the same cursor


class Window:
    """Frames without a gap. `floor` is the id of the event before the first one, `last` that of the last."""

    __slots__ = ("_frames", "_pieces", "begin", "floor", "last", "size")

    def __init__(self, floor: str, begin: int = 0) -> None:
        self.floor = self.last = floor
        self.begin = begin  # cursor of the first frame
        self.size = 0  # bytes
        self._frames: list[bytes] = []
        self._pieces: dict[int, tuple[bytes, int]] = {}

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def end(self) -> int:
        """The cursor after the last frame."""
        return self.begin + len(self._frames)

    def append(self, event: Event) -> bool:
        """Add `event` if it follows the last one; return whether it does."""
        if event.previous != self.last:
            return False
        self.last = event.id
        self._frames.append(event.frame)
        self.size += len(event.frame)
        self._pieces.clear()
        return True

    def prepend(self, events: Iterable[Event]) -> bool:
        """Add earlier events, newest first, up to the first gap; return False if there is one."""
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
        """Return the cursor after `event_id`, or None when the window does not contain that event."""
        if event_id == self.last:
            return self.end
        if event_id == self.floor:
            return self.begin
        index = bisect_left(self._frames, position(event_id), key=lambda frame: position(id_of(frame)))
        found = index < len(self._frames) and id_of(self._frames[index]) == event_id
        return self.begin + index + 1 if found else None

    def piece(self, cursor: int) -> tuple[bytes, int]:
        """Return about PIECE bytes of frames from `cursor`, joined and cached, and the cursor after them."""
        piece = self._pieces.get(cursor)
        if piece is None:
            start = stop = cursor - self.begin
            length = 0
            while stop < len(self._frames) and (stop == start or length + len(self._frames[stop]) <= PIECE):
                length += len(self._frames[stop])
                stop += 1
            data = self._frames[start] if stop - start == 1 else b"".join(self._frames[start:stop])
            piece = data, self.begin + stop
            if len(self._pieces) >= PIECES:
                del self._pieces[next(iter(self._pieces))]
            self._pieces[cursor] = piece
        return piece

    def frames(self, cursor: int, end: int) -> list[bytes]:
        """Return the frames from `cursor` up to, not including, `end`."""
        return self._frames[cursor - self.begin : end - self.begin]

    def trim(self, cursor: int) -> None:
        """Drop the frames before `cursor`, and all joined pieces."""
        self._pieces.clear()
        count = cursor - self.begin
        if count <= 0:
            return
        self.floor = id_of(self._frames[count - 1])
        self.size -= sum(map(len, self._frames[:count]))
        del self._frames[:count]
        self.begin = cursor
