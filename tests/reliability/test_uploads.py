"""Files made to do harm, through edge, nginx, api and worker: a timely answer, bounded memory, nothing left.

What tests/app asks of api and worker alone is asked here of the way through the whole site.
"""

import os
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.kit.documents import locked_pdf, pdf, word_with
from tests.kit.site import Demo

BATCHES = "/api/v1/cv-processing/batches"
LIMIT = 50 * 1024 * 1024  # bytes of body: the guide's client_max_body_size 50M
SECONDS = 90  # from the upload to its end, on a busy machine
API_BOUND = 64  # MiB that an upload may add to the api at its highest; the largest has 50
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=b"}


def form(data: bytes = b"", size: int = 0) -> bytes:
    """Return a multipart body with one text file, filled up to `size` bytes when given."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="cv.txt"\r\n\r\n' + data
    tail = b"\r\n--b--\r\n"
    return head + b"a" * (size - len(head) - len(tail)) + tail


def left(demo: Demo) -> str:
    """Return what lies in the uploads' volume, and what nginx keeps of bodies."""
    return demo.run(
        "find", "/var/lib/docker/volumes/screen-flow_uploads/_data", "/var/lib/nginx", "-type", "f"
    )


@pytest.fixture(autouse=True)
def nothing_is_left(demo: Demo, signed_in: httpx.Client) -> Iterator[None]:
    """Hold each test to an api that took bounded memory, serves, and keeps no file."""
    pid = demo.run("pgrep", "-f", "^python -m app.main").strip()

    def memory(of: str) -> int:
        return int(demo.run("awk", f"/{of}/ {{ print $2 }}", f"/proc/{pid}/status")) // 1024

    demo.run("sh", "-c", f"echo 5 >/proc/{pid}/clear_refs")  # its highest is now what it holds
    before = memory("VmRSS")
    yield
    assert memory("VmHWM") - before < API_BOUND
    end = time.monotonic() + 30
    while (files := left(demo)) and time.monotonic() < end:
        time.sleep(0.5)
    assert files == ""
    assert signed_in.get(BATCHES).status_code == 200


def ended(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """Return the one CV of a batch, once it is done."""
    assert answer.status_code == 202, answer.text
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        batch = client.get(f"{BATCHES}/{answer.json()['batch_id']}").json()
        if batch["status"] == "done":
            [cv] = batch["cvs"]
            return dict(cv)
        time.sleep(0.5)
    raise AssertionError(f"not done after {SECONDS} s")


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("pages.pdf", lambda: pdf("Ada", pages=10_000), "100 pages"),
        ("locked.pdf", lambda: locked_pdf("secret"), "password"),
        ("bomb.docx", lambda: word_with(b"<w:p/>" * 50_000_000), "simpler form"),
    ],
    ids=["10,000 pages", "encrypted", "ZIP bomb"],
)
def test_a_file_at_fault_fails_with_a_remedy(
    signed_in: httpx.Client, name: str, make: Any, words: str
) -> None:
    cv = ended(signed_in, signed_in.post(BATCHES, files={"files": (name, make())}))
    assert (cv["status"], cv["result"]) == ("failed", None)
    assert words in cv["error"]


def test_a_name_that_is_a_path_is_a_name(demo: Demo, signed_in: httpx.Client) -> None:
    name = "../../../../../../../../../tmp/escaped.txt"
    cv = ended(signed_in, signed_in.post(BATCHES, files={"files": (name, b"Ada Lovelace")}))
    assert (cv["filename"], cv["status"]) == ("escaped.txt", "done")
    assert demo.run("find", "/var/lib/docker/volumes", "/tmp", "-name", "*escaped*") == ""


def test_50_megabytes_are_taken(signed_in: httpx.Client) -> None:
    body = form(b"Ada Lovelace\n", LIMIT)
    assert len(body) == LIMIT
    ended(signed_in, signed_in.post(BATCHES, content=body, headers=BOUNDARY))


def test_a_byte_more_is_refused(signed_in: httpx.Client) -> None:
    # The edge ends a connection whose body it did not read to the end.
    headers = BOUNDARY | {"Connection": "close"}
    answer = signed_in.post(BATCHES, content=form(b"Ada Lovelace\n", LIMIT + 1), headers=headers)
    assert answer.status_code == 413
    assert "Too Large" in answer.text


def test_a_client_that_stops_halfway_is_forgotten(demo: Demo, signed_in: httpx.Client) -> None:
    known = signed_in.get(BATCHES).json()["batches"]
    place = urlsplit(os.environ["SITE_URL"])
    context = ssl.create_default_context(cafile=os.environ["EDGE_CA_FILE"])
    session = "; ".join(f"{key}={value}" for key, value in signed_in.cookies.items())
    head = (
        f"POST {BATCHES} HTTP/1.1\r\nHost: {place.netloc}\r\nOrigin: {os.environ['SITE_URL']}\r\n"
        f"Cookie: {session}\r\nContent-Type: {BOUNDARY['Content-Type']}\r\nContent-Length: {LIMIT}\r\n\r\n"
    )
    # The file that holds the half has no name: the bodies that nginx has open show that it came so far.
    held = "for pid in $(pgrep -x nginx); do ls -l /proc/$pid/fd; done | grep -c /var/lib/nginx/body || true"
    plain = socket.create_connection(("127.0.0.1", place.port or 443), 20)
    with context.wrap_socket(plain, server_hostname=place.hostname) as client:
        client.sendall(head.encode() + form(b"", LIMIT)[: LIMIT // 2])
        end = time.monotonic() + 20
        while demo.run("sh", "-c", held) == "0\n":
            assert time.monotonic() < end, "no half of an upload came to nginx"
            time.sleep(0.2)
    end = time.monotonic() + 30
    while demo.run("sh", "-c", held) != "0\n":
        assert time.monotonic() < end, "nginx still holds the half"
        time.sleep(0.2)
    assert signed_in.get(BATCHES).json()["batches"] == known
