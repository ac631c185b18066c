"""The extractor holds nothing and reaches nothing, and a CV is not lost with it."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.extract import READING, TIMEOUT, TOO_MUCH, Refused, Unavailable, client
from tests.kit.app import Extractor, Site
from tests.kit.documents import TEXT, finished, slow_pdf, upload
from tests.kit.process import REPOSITORY, wait_until


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Extractor]:
    extractor = Extractor(tmp_path, str(REPOSITORY / "tests/kit/remote/hostile_reader.py"))
    assert extractor.env is not None
    extractor.env["PYTHONPATH"] = str(REPOSITORY)
    extractor.start()
    yield extractor
    extractor.close()


def attempt(extractor: Extractor, folder: Path, *attempts: list[object]) -> list[str]:
    """Return what a reader that was taken over achieves."""
    (folder / "cv").write_text(json.dumps(attempts))
    return client.text(extractor.socket, "text", folder / "cv")[0].splitlines()


def test_a_reader_that_was_taken_over_reaches_nothing(hostile: Extractor, site: Site, tmp_path: Path) -> None:
    """Even as root and without a container; what its container withholds comes on top."""
    assert hostile.child
    server, other, kept = hostile.child.pid, os.getpid(), tmp_path / "kept"
    kept.write_text("kept")
    attempts: list[list[object]] = [
        ["read", str(site.redis.password_file)],
        ["read", "/etc/passwd"],
        ["read", f"/proc/{other}/environ"],
        ["list", f"/proc/{other}/fd"],
        ["list", f"/proc/{server}/fd"],
        ["list", str(site.uploads)],
        ["connect", "127.0.0.1", site.redis.port],
        ["connect", "127.0.0.1", site.port],
        ["unix", str(hostile.socket)],
        ["listen", str(tmp_path / "mine.sock")],
        ["write", str(tmp_path / "mine")],
        ["change", str(kept)],
        ["remove", str(kept)],
        ["remove", str(hostile.socket)],
        ["fork"],
        ["run", "/bin/true"],
        ["signal", server],
        ["trace", server],
    ]
    found = attempt(hostile, tmp_path, *attempts)
    assert len(found) == len(attempts)
    assert [line for line in found if not line.endswith("refused: Operation not permitted")] == []
    assert kept.read_text() == "kept"


def test_output_without_end_is_cut_off(hostile: Extractor, tmp_path: Path) -> None:
    with pytest.raises((Refused, RuntimeError)):
        attempt(hostile, tmp_path, ["flood"])
    assert attempt(hostile, tmp_path, ["fork"]) == ["fork refused: Operation not permitted"]


def test_processor_time_is_reported(tmp_path: Path) -> None:
    extractor = Extractor(tmp_path)
    extractor.start()
    try:
        cv = tmp_path / "slow.pdf"
        cv.write_bytes(slow_pdf())
        began = time.monotonic()
        _, seconds = client.text(extractor.socket, "pdf", cv)
        assert 0.1 < seconds <= time.monotonic() - began
    finally:
        extractor.close()


def test_extractor_that_is_down_only_delays_a_cv(own_site: Site, user: str) -> None:
    own_site.worker.start()
    own_site.start()
    own_site.extractor.end()
    batch = upload(own_site, user, cv__txt=TEXT.encode()).json()["batch_id"]
    wait_until("the worker waits", lambda: "waits: the extractor does not answer" in own_site.worker.log())
    own_site.extractor.start()
    assert finished(own_site, user, batch)["done"] == 1


def test_cv_of_a_killed_extractor_is_read_again(own_site: Site, user: str) -> None:
    own_site.worker.start()
    own_site.start()
    batch = upload(own_site, user, slow__pdf=slow_pdf()).json()["batch_id"]
    with own_site.http(user) as http:
        wait_until("the CV is being read", lambda: "extracting" in http.get(f"/batches/{batch}").text)
    own_site.extractor.end(signal.SIGKILL)
    own_site.extractor.start()
    assert finished(own_site, user, batch)["done"] == 1


def test_extractor_that_hangs_delays_a_cv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ACCEPT_TIMEOUT", 0.2)
    extractor = Extractor(tmp_path)
    extractor.start()
    try:
        assert extractor.child
        os.killpg(extractor.child.pid, signal.SIGSTOP)
        (tmp_path / "cv").write_text(TEXT)
        with pytest.raises(Unavailable, match="timed out"):
            client.text(extractor.socket, "text", tmp_path / "cv")
        os.killpg(extractor.child.pid, signal.SIGCONT)
        assert "Ada Lovelace" in client.text(extractor.socket, "text", tmp_path / "cv")[0]
    finally:
        extractor.close()


@pytest.mark.parametrize("answer", [b"", b"0 0.100 9\nhalf"], ids=["none", "half"])
def test_cv_that_ends_every_extractor_fails(tmp_path: Path, answer: bytes) -> None:
    """What the worker sees of a container that is killed while it reads, each time."""
    address, count = tmp_path / "short-lived.sock", 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()

        def end_each() -> None:
            nonlocal count
            for _ in range(client.ATTEMPTS):
                connection, _ = listener.accept()
                with connection:
                    socket.recv_fds(connection, 16, 1)
                    connection.sendall(READING + answer)
                count += 1

        thread = threading.Thread(target=end_each)
        thread.start()
        (tmp_path / "cv").write_text(TEXT)
        with pytest.raises(Refused, match=TOO_MUCH):
            client.text(address, "text", tmp_path / "cv")
        thread.join(TIMEOUT)
    assert count == client.ATTEMPTS
