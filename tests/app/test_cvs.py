"""CVs from upload to result, including refused, damaged and malicious files."""

import contextlib
import http.client
import io
import os
import signal
import socket
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kit.app import Site, numbers, receive
from tests.kit.documents import (
    TEXT,
    endless_pdf,
    finished,
    locked_pdf,
    pdf,
    slow_pdf,
    upload,
    word,
    word_with,
)
from tests.kit.process import wait_until

RESULT = {
    "name": "Ada Lovelace",
    "email": "ada@example.com",
    "phone": "+44 20 7946 0018",
    "skills": ["C++", "Go", "PostgreSQL", "Python", "Redis"],
}


def process(site: Site, user: str, name: str, data: bytes) -> dict[str, Any]:
    response = upload(site, user, **{name: data})
    assert response.status_code == 202, response.text
    [cv] = finished(site, user, response.json()["batch_id"])["cvs"]
    return dict(cv)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cv__pdf", pdf()),
        ("cv__docx", word()),
        ("cv__txt", TEXT.encode()),
        ("windows__txt", TEXT.replace("Ada", "Adä").encode("cp1252")),
        ("utf16__txt", TEXT.encode("utf-16")),
        ("without_suffix", pdf()),
        ("locked_against_printing__pdf", locked_pdf("")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_result(site: Site, user: str, name: str, data: bytes) -> None:
    cv = process(site, user, name, data)
    assert cv["error"] is None
    assert cv["result"] == RESULT | ({"name": "Adä Lovelace"} if name == "windows__txt" else {})
    wait_until("the file is deleted", lambda: not list(site.uploads.iterdir()))


async def test_batch_reports_each_step_and_a_damaged_cv_fails_alone(site: Site, user: str) -> None:
    async with site.socket(user) as connection:
        response = upload(site, user, good__pdf=pdf(), broken__pdf=pdf()[:500], good__docx=word())
        assert response.status_code == 202
        batch = response.json()
        assert (batch["status"], batch["total"], batch["progress"]) == ("processing", 3, 0)
        assert [cv["filename"] for cv in batch["cvs"]] == ["good.pdf", "broken.pdf", "good.docx"]
        events: list[dict[str, Any]] = []
        while not events or events[-1].get("progress") != 100 or events[-1]["type"] != "batch_progress":
            events.append(await receive(connection))
    steps: dict[str, list[str]] = {}
    for event in events:
        assert event["id"] and event["time"].endswith("Z")
        if event["type"] == "cv_progress":
            steps.setdefault(event["filename"], []).append(event["status"])
    assert steps == {
        "good.pdf": ["queued", "extracting", "analysing", "done"],
        "broken.pdf": ["queued", "extracting", "failed"],
        "good.docx": ["queued", "extracting", "analysing", "done"],
    }
    ends = [(e["done"], e["failed"], e["progress"]) for e in events if e["type"] == "batch_progress"]
    assert [done + failed for done, failed, _ in ends] == [0, 1, 2, 3]
    assert ends[-1] == (2, 1, 100)
    end = finished(site, user, batch["batch_id"])
    assert (end["done"], end["failed"]) == (2, 1)
    assert "damaged" in end["cvs"][1]["error"]
    with site.http(user) as http:
        snapshot = http.get("/batches").json()
    assert snapshot == {"last_event_id": events[-1]["id"], "batches": [end]}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("locked__pdf", locked_pdf("secret"), "password"),
        ("scan__pdf", pdf(" "), "no text"),
        ("book__pdf", pdf("Ada", pages=101), "100 pages"),
        ("broken__docx", word_with(b"</w:p>"), "damaged"),
        ("bomb__docx", word_with(b"<w:p/>" * 50_000_000), "simpler form"),
        ("bomb__pdf", endless_pdf(b" " * 90_000_000), "simpler form"),
        # Beyond the limits of the library: the process is killed.
        ("endless__pdf", endless_pdf(b"(" + b"x" * 60_000_000 + b") Tj"), "simpler form"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unusable_file_fails_with_a_remedy(
    site: Site, user: str, name: str, data: bytes, message: str
) -> None:
    assert len(data) < 1_000_000
    cv = process(site, user, name, data)
    assert (cv["status"], cv["result"]) == ("failed", None)
    assert message in cv["error"]


async def test_cv_of_a_killed_worker_is_finished_once(site: Site, user: str) -> None:
    async with site.socket(user) as connection:
        response = upload(site, user, slow__pdf=slow_pdf())
        events: list[dict[str, Any]] = []
        while not events or events[-1].get("status") != "extracting":
            events.append(await receive(connection))
        site.worker.end(signal.SIGKILL)
        lost = site.uploads / "lost-by-redis"
        lost.touch()
        os.utime(lost, (0, 0))
        site.worker.start()
        while events[-1]["type"] != "batch_progress" or events[-1]["status"] != "done":
            events.append(await receive(connection, seconds=20))
        # A repeated event would precede this one.
        site.redis.publish(user, 1)
        assert await numbers(connection, 1) == [1]
    statuses = [event["status"] for event in events if event["type"] == "cv_progress"]
    assert statuses == ["queued", "extracting", "analysing", "done"]
    assert finished(site, user, response.json()["batch_id"])["done"] == 1
    assert not lost.exists()


def test_loss_of_redis_only_delays_a_cv(own_site: Site, user: str) -> None:
    own_site.worker.start()
    own_site.start()
    batch = upload(own_site, user, slow__pdf=slow_pdf(), fast__txt=TEXT.encode()).json()["batch_id"]
    with own_site.http(user) as http:
        wait_until("the CV is being processed", lambda: "extracting" in http.get(f"/batches/{batch}").text)
    own_site.redis.end(signal.SIGKILL)
    wait_until("the worker waits for Redis", lambda: "waits for Redis" in own_site.worker.log())
    own_site.redis.start()
    wait_until("the api is ready again", own_site.ready)
    ended = finished(own_site, user, batch)
    assert (ended["done"], ended["failed"]) == (2, 0)
    assert not list(own_site.uploads.iterdir())


def test_job_in_a_lost_reply_is_handed_out_again(own_site: Site, user: str) -> None:
    own_site.worker.start()
    own_site.start()
    redis = own_site.redis.client
    [worker] = wait_until("the worker is registered", lambda: redis.zrange("dramatiq:__heartbeats__", 0, -1))
    assert own_site.worker.child
    os.killpg(own_site.worker.child.pid, signal.SIGSTOP)
    batch = upload(own_site, user, cv__txt=TEXT.encode()).json()["batch_id"]
    # What Redis does when the worker polls. Then it polls, and its connection is cut before the reply.
    redis.sadd(f"dramatiq:__acks__.{worker}.cvs", redis.lpop("dramatiq:cvs"))
    redis.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
    os.killpg(own_site.worker.child.pid, signal.SIGCONT)
    wait_until("both queues are polled", lambda: sum("b" in c["flags"] for c in redis.client_list()) == 2)
    own_site.redis.cut()
    redis.execute_command("CLIENT", "UNPAUSE")
    wait_until("the job has ended", lambda: not list(own_site.uploads.iterdir()))
    wait_until("the api is ready again", own_site.ready)
    assert finished(own_site, user, batch)["done"] == 1


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty__pdf", b"", "empty.pdf is empty"),
        ("blank__txt", b" \n\t ", "blank.txt is named as plain text but its content is not"),
        ("photo__jpg", b"\xff\xd8\xff\xe0" + bytes(100), "photo.jpg is not"),
        ("program", b"\x7fELF" + bytes(100), "program is not"),
        ("sheet__xlsx", b"PK\x03\x04" + bytes(100), "sheet.xlsx is a ZIP archive"),
        ("old__docx", b"\xd0\xcf\x11\xe0" + bytes(100), "old.docx is named as DOCX but its content is not"),
        ("disguised__pdf", b"Ada Lovelace", "disguised.pdf is named as PDF but its content is plain text"),
        ("disguised__txt", pdf(), "disguised.txt is named as plain text but its content is PDF"),
        ("page__html", b" <!DOCTYPE html><p>Ada", "page.html is not"),
        ("rich__rtf", b"{\\rtf1 Ada}", "rich.rtf is not"),
        ("binary_late__txt", b"a" * 100_000 + b"\0", "binary_late.txt is named as plain text"),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" in value else "",
)
def test_unsupported_file_leaves_nothing(site: Site, user: str, name: str, data: bytes, reason: str) -> None:
    response = upload(site, user, **{"fine__txt": b"Ada", name: data})
    assert response.status_code == 422
    assert reason in response.json()["detail"]
    assert "fine.txt" not in response.json()["detail"]
    with site.http(user) as http:
        assert http.get("/batches").json()["batches"] == []
    assert list(site.uploads.iterdir()) == []


def test_each_refused_file_is_named(site: Site, user: str) -> None:
    detail = upload(site, user, a__png=b"\x89PNG\r\n\x1a\n", b__pdf=b"", c__txt=b"Ada").json()["detail"]
    assert "a.png" in detail and "b.pdf" in detail


def test_zip_with_a_huge_directory_is_refused(site: Site, user: str) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for number in range(8_000):
            archive.writestr(f"word/document.xml{number:0150}", b"")
    before = site.memory()
    response = upload(site, user, huge__docx=target.getvalue()[-1_900_000:][-900_000:])
    assert response.status_code == 422
    assert site.memory() - before < 32 << 20


def test_file_names_are_never_paths(site: Site, user: str) -> None:
    names = ["../../etc/passwd.txt", "C:\\Users\\Ada\\cv.txt", "Lebenslauf Müller ‮.txt", "a" * 300 + ".txt"]
    with site.http(user) as http:
        response = http.post("/batches", files=[("files", (name, b"Ada")) for name in names])
    assert response.status_code == 202
    found = [cv["filename"] for cv in response.json()["cvs"]]
    assert found == ["passwd.txt", "cv.txt", "Lebenslauf Müller .txt", "a" * 255]
    finished(site, user, response.json()["batch_id"])


FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    ("form", "status", "reason"),
    [
        ({"json": {}}, 415, "multipart/form-data"),
        ({"files": {"cv": ("a.txt", b"Ada")}}, 422, "'cv'"),
        ({"files": {"files": ("", b"")}}, 422, "no file"),
        ({"data": {"note": "x"}, "files": {}}, 415, "multipart/form-data"),
        ({"files": [("files", (f"{n}.txt", b"Ada")) for n in range(101)]}, 422, "More than 100"),
        ({"content": b"x", "headers": FORM}, 400, "form"),
        ({"content": b"--b--\r\n", "headers": FORM}, 422, "no file"),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data"}}, 415, "multipart/form-data"),
    ],
)  # fmt: skip
def test_request_without_a_valid_form(
    site: Site, user: str, form: dict[str, Any], status: int, reason: str
) -> None:
    with site.http(user) as http:
        response = http.post("/batches", **form)
    assert (response.status_code, reason in response.json()["detail"]) == (status, True), response.text


def request_head(site: Site, user: str, framing: str) -> bytes:
    return (
        "POST /api/v1/cv-processing/batches HTTP/1.1\r\nHost: x\r\n"
        f"Cookie: {site.cookie(user)}\r\nContent-Type: multipart/form-data; boundary=b\r\n{framing}\r\n\r\n"
    ).encode()


PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'


@pytest.mark.parametrize("framing", ["Content-Length: 1000001", "Transfer-Encoding: chunked"])
def test_body_over_the_limit(site: Site, user: str, framing: str) -> None:
    """A declared length is refused at once, a chunked body as soon as it exceeds the limit."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as raw:
        raw.sendall(request_head(site, user, framing))
        if "chunked" in framing:
            raw.sendall(b"%x\r\n%s\r\n" % (len(PART), PART))
            for _ in range(20):
                raw.sendall(b"%x\r\n%s\r\n" % (50_000, b"x" * 50_000))
        response = http.client.HTTPResponse(raw)
        response.begin()
        assert response.status == 413
        assert b"0.954 MiB" in response.read()
    assert list(site.uploads.iterdir()) == []


def open_files(site: Site) -> list[str]:
    assert site.api.child
    found = []
    for link in Path(f"/proc/{site.api.child.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return [target for target in found if target.startswith(str(site.uploads))]


def test_interrupted_upload_leaves_nothing(site: Site, user: str) -> None:
    with socket.create_connection(("127.0.0.1", site.port)) as raw:
        raw.sendall(request_head(site, user, "Content-Length: 900000") + PART + b"x" * 300_000)
        wait_until("the upload is being written", lambda: open_files(site))
        assert list(site.uploads.iterdir()) == []  # a killed process would leave nothing
    wait_until("the file is closed", lambda: not open_files(site), seconds=3)
    with site.http(user) as http_client:
        assert http_client.get("/batches").json()["batches"] == []
    assert "Traceback" not in site.api.log()


def test_upload_needs_bounded_memory(own_site: Site, user: str) -> None:
    own_site.start()
    before = own_site.memory()
    response = upload(own_site, user, large__txt=b"x" * 50_000_000)
    assert response.status_code == 202
    assert own_site.memory() - before < 24 << 20
    assert [path.stat().st_size for path in own_site.uploads.iterdir()] == [50_000_000]


def test_upload_without_redis_leaves_nothing(own_site: Site, user: str) -> None:
    own_site.start()
    own_site.redis.end(signal.SIGKILL)
    response = upload(own_site, user, a__txt=b"Ada")
    assert response.status_code == 503
    assert "try again" in response.json()["detail"]
    assert list(own_site.uploads.iterdir()) == []
    with own_site.http(user) as http_client:
        assert http_client.get("/batches").status_code == 503


def test_batches_are_visible_to_their_user_only(site: Site, user: str) -> None:
    batch_id = upload(site, user, a__txt=b"Ada").json()["batch_id"]
    with site.http("somebody-else") as http_client:
        assert http_client.get(f"/batches/{batch_id}").status_code == 404
        assert http_client.get("/batches").json()["batches"] == []
        assert http_client.get("/batches/none").json()["detail"] == "You have no batch 'none'."
    assert httpx.get(f"{site.url}/api/v1/cv-processing/batches").status_code == 401
    finished(site, user, batch_id)


@pytest.mark.parametrize("size", [200_500, 400_000])
def test_full_disk_is_reported(own_site: Site, user: str, size: int) -> None:
    """Also when only the last bytes do not fit."""
    own_site.api.arguments = ("prlimit", "--fsize=200000", "--", *own_site.api.arguments)
    own_site.start()
    response = upload(own_site, user, a__txt=b"x" * size)
    assert response.status_code == 507
    assert "try again later" in response.json()["detail"]
    assert list(own_site.uploads.iterdir()) == []
    assert "Traceback" not in own_site.api.log()
