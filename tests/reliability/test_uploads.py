"""Hostile uploads through edge, nginx, api and worker: timely responses, bounded memory, nothing left behind.

tests/app holds api and worker alone to the same.
"""

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.kit.documents import locked_pdf, pdf, word_with
from tests.kit.process import wait_until
from tests.kit.site import BATCHES, Demo, SiteClient

LIMIT = 50 * 1024 * 1024  # bytes of body: the guide's client_max_body_size 50M
SECONDS = 90  # from upload to result, on a busy machine
API_BOUND = 64  # MiB that an upload may add to the api's peak; the largest body has 50
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=b"}
API = "^python -m app.main"
WORKER = "^python -m dramatiq|dramatiq app.worker"


def form(data: bytes = b"", size: int = 0) -> bytes:
    """Return a multipart body with one text file, filled up to `size` bytes when given."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="cv.txt"\r\n\r\n' + data
    tail = b"\r\n--b--\r\n"
    return head + b"a" * (size - len(head) - len(tail)) + tail


def root_folders(demo: Demo) -> list[str]:
    """Return the paths on the server of the root folders that api and worker see."""
    pids = demo.run("pgrep", "--full", f"{API}|{WORKER}").split()
    return [f"/proc/{pid}/root" for pid in pids]


def leftover_files(demo: Demo) -> str:
    """Return the files in the uploads' volume and the request bodies that nginx keeps."""
    return demo.run(
        "find", "/var/lib/docker/volumes/screen-flow_uploads/_data", "/var/lib/nginx", "-type", "f"
    )


@pytest.fixture(autouse=True)
def bounded_memory_and_no_leftovers(demo: Demo, http: httpx.Client) -> Iterator[None]:
    """After each test the api has used bounded memory, still serves, and keeps no file."""
    pid = demo.run("pgrep", "-f", API).strip()

    def memory(field: str) -> int:
        return int(demo.run("awk", f"/{field}/ {{ print $2 }}", f"/proc/{pid}/status")) // 1024

    demo.shell(f"echo 5 >/proc/{pid}/clear_refs")  # resets the peak to the present value
    before = memory("VmRSS")
    yield
    assert memory("VmHWM") - before < API_BOUND
    wait_until("no file is left", lambda: leftover_files(demo) == "", 30, interval=0.5)
    assert http.get(BATCHES).status_code == 200


def result(http: httpx.Client, uploaded: httpx.Response) -> dict[str, Any]:
    """Return the only CV of a batch, once it is done."""
    assert uploaded.status_code == 202, uploaded.text
    url = f"{BATCHES}/{uploaded.json()['batch_id']}"

    def done() -> Any:
        batch = http.get(url).json()
        return batch["status"] == "done" and batch

    [cv] = wait_until("the batch is done", done, SECONDS, interval=0.5)["cvs"]
    return dict(cv)


@pytest.mark.parametrize(
    ("name", "make", "remedy"),
    [
        ("pages.pdf", lambda: pdf("Ada", pages=10_000), "100 pages"),
        ("locked.pdf", lambda: locked_pdf("secret"), "password"),
        ("bomb.docx", lambda: word_with(b"<w:p/>" * 50_000_000), "simpler form"),
    ],
    ids=["10,000 pages", "encrypted", "ZIP bomb"],
)
def test_a_hostile_file_fails_with_a_remedy(http: httpx.Client, name: str, make: Any, remedy: str) -> None:
    cv = result(http, http.post(BATCHES, files={"files": (name, make())}))
    assert (cv["status"], cv["result"]) == ("failed", None)
    assert remedy in cv["error"]


def test_a_filename_with_a_path_is_reduced_to_its_last_part(demo: Demo, http: httpx.Client) -> None:
    name = "../../../../../../../../../tmp/escaped.txt"
    cv = result(http, http.post(BATCHES, files={"files": (name, b"Ada Lovelace")}))
    assert (cv["filename"], cv["status"]) == ("escaped.txt", "done")
    temporary = [f"{root}/tmp" for root in root_folders(demo)]
    assert len(temporary) >= 2
    found = demo.run("find", "/var/lib/docker/volumes", "/tmp", *temporary, "-name", "*escaped*")
    assert found == ""


def test_a_body_of_50_megabytes_is_accepted(http: httpx.Client) -> None:
    body = form(b"Ada Lovelace\n", LIMIT)
    assert len(body) == LIMIT
    assert result(http, http.post(BATCHES, content=body, headers=BOUNDARY))["status"] == "done"


def test_one_byte_more_is_refused(http: httpx.Client) -> None:
    # The edge closes a connection whose body it did not read to the end.
    headers = BOUNDARY | {"Connection": "close"}
    response = http.post(BATCHES, content=form(b"Ada Lovelace\n", LIMIT + 1), headers=headers)
    assert response.status_code == 413
    assert "Too Large" in response.text


def test_an_aborted_upload_leaves_nothing_in_nginx(demo: Demo, ada: SiteClient, http: httpx.Client) -> None:
    known = http.get(BATCHES).json()["batches"]
    server = urlsplit(ada.url)
    head = (
        f"POST {BATCHES} HTTP/1.1\r\nHost: {server.netloc}\r\nOrigin: {ada.url}\r\n"
        f"Cookie: {ada.cookie}\r\nContent-Type: {BOUNDARY['Content-Type']}\r\nContent-Length: {LIMIT}\r\n\r\n"
    )
    # nginx unlinks the file of a body at once, so only its open descriptors show that one arrived.
    listing = "for pid in $(pgrep -x nginx); do ls -l /proc/$pid/fd; done"

    def open_bodies() -> int:
        return int(demo.shell(f"{listing} | grep -c /var/lib/nginx/body || true"))

    plain = socket.create_connection(("127.0.0.1", server.port or 443), 20)
    with ada.tls.wrap_socket(plain, server_hostname=server.hostname) as client:
        client.sendall(head.encode() + form(b"", LIMIT)[: LIMIT // 2])
        wait_until("half an upload has reached nginx", open_bodies, interval=0.2)
    wait_until("nginx has dropped the half", lambda: open_bodies() == 0, 30, interval=0.2)
    assert http.get(BATCHES).json()["batches"] == known
