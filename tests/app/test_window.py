"""The window that a room's sockets share, compared with a list of all events."""

import itertools
import random

from app.events import Event, frame, from_entry, from_message, id_of, type_of
from app.window import PIECE, Window


def events(count: int, size: int = 0) -> list[Event]:
    """Return the events of a stream, each with `size` extra bytes."""
    ids = [f"{1_700_000_000_000 + number // 3}-{number % 3}" for number in range(count + 1)]
    body = '{"type":"note","filler":"' + "x" * size + '"}'
    return [
        from_entry(event_id, ["previous", previous, "event", body])
        for previous, event_id in itertools.pairwise(ids)
    ]


def test_any_growth_and_trimming_keeps_cursors_and_frames() -> None:
    rng = random.Random(11)
    for _ in range(200):
        stream = events(60)
        low = high = rng.randrange(61)  # the window has stream[low:high]
        window = Window(stream[low - 1].id if low else stream[0].previous)
        offset = low  # the cursor of stream[i] is i - offset
        for _ in range(30):
            match rng.randrange(4):
                case 0 if high < 60:
                    assert window.append(stream[high])
                    high += 1
                case 1 if low:
                    count = rng.randrange(1, low + 1)
                    assert window.prepend(stream[low - 1 : low - count - 1 if low > count else None : -1])
                    low -= count
                case 2 if low < high:
                    cut = rng.randrange(low, high + 1)
                    window.trim(cut - offset)
                    low = max(low, cut)
                case _ if high + 1 < 60:
                    assert not window.append(stream[high + 1])
            assert (window.begin, window.end) == (low - offset, high - offset)
            assert window.size == sum(len(event.frame) for event in stream[low:high])
            for number, event in enumerate(stream):
                seen = number + 1 - offset if low - 1 <= number < high else None
                assert window.after(event.id) == seen
            if low < high:
                cursor = rng.randrange(low, high) - offset
                received = b""
                while cursor < window.end:
                    piece, cursor = window.piece(cursor)
                    received += piece
                assert b"".join(event.frame for event in stream[low:high]).endswith(received)


def test_a_gap_is_not_bridged() -> None:
    stream = events(10)
    window = Window(stream[9].id)
    assert not window.prepend([stream[9], stream[8], stream[6]])
    assert (len(window), window.floor) == (2, stream[7].id)
    assert window.after(stream[6].id) is None


def test_pieces_are_bounded_and_shared() -> None:
    stream = events(100, size=4_000)
    window = Window(stream[0].previous)
    for event in stream:
        window.append(event)
    piece, end = window.piece(0)
    assert len(piece) <= PIECE < len(piece) + len(stream[end].frame)
    assert window.piece(0)[0] is piece
    [huge] = events(1, size=3 * PIECE)
    alone = Window(huge.previous)
    alone.append(huge)
    assert alone.piece(0) == (huge.frame, 1)


def test_frames_follow_rfc_6455() -> None:
    for length, head in ((1, b"\x81\x01"), (125, b"\x81\x7d"), (126, b"\x81\x7e\x00\x7e")):
        assert frame("x" * length) == head + b"x" * length
    assert frame("x" * 65_536)[:10] == b"\x81\x7f" + (65_536).to_bytes(8)
    assert frame("é")[:2] == b"\x81\x02"
    for size in (0, 200, 70_000):
        [event] = events(1, size)
        assert (id_of(event.frame), type_of(event.frame)) == (event.id, "note")


def test_id_becomes_the_first_field_of_a_frame() -> None:
    event = from_message('{"type":"note","previous_id":"1-1","id":"2-2"}')
    assert (event.id, event.previous, id_of(event.frame)) == ("2-2", "1-1", "2-2")
