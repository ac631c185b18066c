"""Malformed input through edge, nginx and api: no 5xx, no leak, and the site is live afterwards.

Bounded and seeded, so that a failure can be repeated: some 130 requests and 350 sockets.
"""

import contextlib
import json
import os
import random
import socket
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests.kit.site import Demo, SiteClient

EXAMPLES = 25  # requests for each operation and mode
SOCKETS = 150  # in each round of random frames
SEED = 6
RSS_BOUND = 4  # MiB that the api may keep after a round; the sockets of one, left open, hold more

DOCUMENT = (
    "import json; from app.main import create_app; from app.settings import Settings, load;"
    " print(json.dumps(create_app(load(Settings)).openapi()))"
)


def test_no_generated_request_is_answered_with_5xx(demo: Demo, ada: SiteClient) -> None:
    """Valid and invalid requests generated from the api's OpenAPI description, all with a session."""
    document = json.loads(demo.compose("exec", "-T", "api", "python", "-c", DOCUMENT))
    seen: dict[str, Counter[int]] = defaultdict(Counter)

    def call(case: schemathesis.Case) -> None:
        headers = {"Cookie": ada.cookie, "Origin": ada.url}
        response = case.call(ada.url, headers=headers, verify=os.environ["EDGE_CA_FILE"], timeout=60)
        seen[f"{case.method} {case.operation.path}"][response.status_code] += 1
        assert response.status_code < 500, f"{case.as_curl_command()}\n{response.status_code} {response.text}"

    bounds = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    for operation in schemathesis.openapi.from_dict(document).get_all_operations():
        for mode in GenerationMode:
            try:
                strategy = operation.ok().as_strategy(generation_mode=mode)
                seed(SEED)(bounds(given(case=strategy)(call)))()
            except Unsatisfiable:
                # An operation without parameters has no invalid request.
                assert mode is GenerationMode.NEGATIVE
    print(*(f"{operation}: {dict(statuses)}" for operation, statuses in seen.items()), sep="\n")
    assert len(seen) == sum(len(path) for path in document["paths"].values())
    # The requests reached the routes: of each operation some succeeded. A batch's id cannot be guessed.
    refused = {operation for operation, statuses in seen.items() if min(statuses) >= 300}
    assert refused <= {"GET /api/v1/cv-processing/batches/{batch_id}"}


class RawSocket:
    """A WebSocket through the edge whose handshake and frames are bytes of the test's choice."""

    def __init__(self, client: SiteClient, **headers: str | None) -> None:
        server = urlsplit(client.url)
        plain = socket.create_connection(("127.0.0.1", server.port or 443), 20)
        self.connection = client.tls.wrap_socket(plain, server_hostname=server.hostname)
        request: dict[str, str | None] = {
            "Host": server.netloc,
            "Origin": client.url,
            "Cookie": client.cookie,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        request |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in request.items() if value is not None]
        head = "\r\n".join([f"GET /api/v1/cv-processing/ws/{client.user} HTTP/1.1", *lines, "", ""])
        self.connection.sendall(head.encode())
        self.received = b""
        while b"\r\n\r\n" not in self.received:
            if not (piece := self.connection.recv(65536)):
                break
            self.received += piece
        response, _, self.received = self.received.partition(b"\r\n\r\n")
        self.status = int(response.split()[1]) if response else 0

    def __enter__(self) -> "RawSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, data: bytes) -> None:
        """Send, ignoring that the server may have closed already, at the first invalid byte."""
        with contextlib.suppress(OSError):
            self.connection.sendall(data)

    def frames(self, seconds: float) -> Iterator[tuple[int, bytes]]:
        """Yield (opcode, payload) until the server closes or is silent for so many seconds."""
        self.connection.settimeout(seconds)
        while True:
            while len(self.received) >= 2:
                length, start = self.received[1] & 127, 2
                assert length != 127
                if length == 126:
                    length, start = int.from_bytes(self.received[2:4], "big"), 4
                if len(self.received) < start + length:
                    break
                yield self.received[0] & 15, self.received[start : start + length]
                self.received = self.received[start + length :]
            try:
                piece = self.connection.recv(65536)
            except OSError:
                return
            if not piece:
                return
            self.received += piece

    def close_code(self) -> int | None:
        """Return the code with which the server closes, None when it does not within 20 s."""
        for opcode, payload in self.frames(20):
            if opcode == 8:
                return int.from_bytes(payload[:2], "big")
        return None

    def is_live(self) -> bool:
        self.send(frame(1, b"ping"))
        return any(payload == b'{"type":"pong"}' for _, payload in self.frames(20))


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length: int | None = None,
) -> bytes:
    """Return a frame of RFC 6455, section 5.2; `length` overrides the length in its header."""
    length = len(payload) if length is None else length
    size = (
        bytes([masked << 7 | length])
        if length < 126
        else struct.pack(">BH", masked << 7 | 126, length)
        if length < 1 << 16
        else struct.pack(">BQ", masked << 7 | 127, length)
    )
    # A mask of zeroes leaves the payload unchanged.
    return bytes([fin << 7 | rsv << 4 | opcode]) + size + bytes(4 * masked) + payload


# Bytes sent, and the close code of RFC 6455, section 7.4.1, expected for them; 4429 is the contract's own.
WRONG = {
    **{f"opcode {opcode}": (frame(opcode, b"ping"), 1002) for opcode in (3, 7, 11, 15)},
    **{f"reserved bit {rsv}": (frame(1, b"ping", rsv=rsv), 1002) for rsv in (1, 2, 4)},
    "unmasked": (frame(1, b"ping", masked=False), 1002),
    # Only the header: closing while data arrives may reset the connection, and then the close code is lost.
    "too long": (frame(1, length=65_537), 1009),
    "length of a TiB": (frame(1, length=1 << 40), 1009),
    "length 2**64 - 1": (frame(1, length=(1 << 64) - 1), 1009),
    "broken UTF-8": (frame(1, b"\xc3\x28"), 1007),
    "surrogate": (frame(1, b"\xed\xa0\x80"), 1007),
    "broken UTF-8 in two frames": (frame(1, b"\xe2\x82", fin=False) + frame(0, b"("), 1007),
    "fragmented control": (frame(9, b"x", fin=False), 1002),
    "long control": (frame(9, b"x" * 126), 1002),
    "continuation of nothing": (frame(0, b"ping"), 1002),
    "message within message": (frame(1, b"pi", fin=False) + frame(1, b"ng"), 1002),
    "too long in two frames": (frame(1, b"x" * 40_000, fin=False) + frame(0, length=40_000), 1009),
    "binary": (frame(2, b"ping"), 1003),
    "close of one byte": (frame(8, b"x"), 1002),
    "close 999": (frame(8, struct.pack(">H", 999)), 1002),
    "close reason no UTF-8": (frame(8, struct.pack(">H", 1000) + b"\xff"), 1007),
    "ping flood": (frame(9) * 500, 4429),
    "message flood": (frame(1, b"ping") * 500, 4429),
}


@pytest.mark.parametrize(("sent", "code"), WRONG.values(), ids=WRONG)
def test_an_invalid_frame_is_answered_with_its_close_code(ada: SiteClient, sent: bytes, code: int) -> None:
    with RawSocket(ada) as bystander, RawSocket(ada) as raw:
        assert raw.status == 101
        raw.send(sent)
        assert raw.close_code() == code
        assert bystander.is_live()


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_WebSocket_Version": "12"},
        {"Sec_WebSocket_Version": "x"},
        {"Sec_WebSocket_Version": None},
        {"Sec_WebSocket_Key": None},
        {"Sec_WebSocket_Key": "AAAA"},
        {"Sec_WebSocket_Key": "\xe9" * 24},
        {"Sec_WebSocket_Extensions": "permessage-deflate; server_max_window_bits=99, ;;="},
        {"Sec_WebSocket_Protocol": ",,\x7f"},
    ],
    ids=str,
)
def test_an_invalid_handshake_is_not_a_server_error(ada: SiteClient, headers: dict[str, str | None]) -> None:
    with RawSocket(ada, **headers) as raw:
        assert raw.status == 101 or 400 <= raw.status < 500


def random_frames(source: random.Random) -> bytes:
    """Return up to twenty frames, valid or invalid in any way, the last one perhaps truncated."""
    sent = b"".join(
        frame(
            source.choice([0, 1, 1, 2, 8, 9, 10, source.randrange(16)]),
            source.randbytes(source.choice([0, 1, 4, 125, 126, 300])) if source.random() < 0.7 else b"ping",
            fin=source.random() < 0.8,
            rsv=source.randrange(8) if source.random() < 0.1 else 0,
            masked=source.random() < 0.9,
            length=source.getrandbits(source.randrange(1, 64)) if source.random() < 0.1 else None,
        )
        for _ in range(source.randrange(1, 20))
    )
    return sent[: source.randrange(len(sent))] if source.random() < 0.3 else sent


def resources(demo: Demo) -> tuple[float, int]:
    """Return the api's resident memory in MiB, and the number of sockets that it and nginx hold."""
    api = demo.run("pgrep", "-f", "^python -m app.main").split()
    pids = " ".join([*api, *demo.run("pgrep", "-x", "nginx").split()])
    rss = demo.shell(f"awk '/VmRSS/ {{ sum += $2 }} END {{ print sum }}' /proc/{api[0]}/status")
    sockets = demo.shell(f"for pid in {pids}; do ls -l /proc/$pid/fd; done | grep -c socket:")
    return int(rss) / 1024, int(sockets)


def test_random_frames_leak_neither_memory_nor_sockets(demo: Demo, ada: SiteClient) -> None:
    source = random.Random(SEED)

    def a_round() -> tuple[float, int]:
        codes: Counter[int | None] = Counter()
        for _ in range(SOCKETS):
            with RawSocket(ada) as raw:
                assert raw.status == 101
                raw.send(random_frames(source))
                codes[next((int.from_bytes(p[:2], "big") for op, p in raw.frames(0.3) if op == 8), None)] += 1
        print(dict(codes))
        assert codes[1002] and codes[1007]
        assert not codes[1011]  # internal error
        # The last sockets close a little later, and ordinary requests come and go.
        end = time.monotonic() + 60
        while (now := resources(demo))[1] > before[1] and time.monotonic() < end:
            time.sleep(1)
        return now

    with RawSocket(ada) as bystander:
        before = resources(demo)
        # The first round fills Python's caches.
        warm = a_round()
        after = a_round()
        print(*(f"api {rss:.1f} MiB, {sockets} sockets" for rss, sockets in (before, warm, after)), sep="\n")
        assert warm[1] <= before[1] and after[1] <= before[1]
        assert after[0] - warm[0] < RSS_BOUND
        assert bystander.is_live()
    with RawSocket(ada) as raw:
        assert raw.is_live()
    log = demo.compose("logs", "--since", "10m", "api")
    # uvicorn logs a traceback for invalid UTF-8, which it closes with 1007. There is no other one.
    assert log.count("Traceback") == log.count("Invalid UTF-8 sequence received")
