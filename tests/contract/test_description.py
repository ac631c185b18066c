"""The script that fetches Cloudflare's API description, and where the tests look for one."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.kit import openapi

SCRIPT = "scripts/fetch-cloudflare-description"
OPERATION = {"responses": {"200": {"$ref": "#/components/schemas/used"}}}
DESCRIPTION = {
    "openapi": "3.0.3",
    "paths": {path: {"get": OPERATION, "parameters": []} for path in (*openapi.PATHS, "/other")},
    "components": {
        "schemas": {
            "used": {"discriminator": {"mapping": {"a": "#/components/schemas/mapped"}}},
            "mapped": {"type": "string"},
            "other": {"type": "string"},
        }
    },
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with no more than the script and its module."""
    folder = tmp_path / "checkout"
    for name in (SCRIPT, "tests/kit/openapi.py"):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(openapi.ROOT / name, folder / name)
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of an HTTP server whose folder is tmp_path."""
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def fetch(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, project / SCRIPT, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def cached(project: Path) -> Any:
    return json.loads((project / ".cache/cloudflare-openapi.json").read_text())


def test_the_script_caches_the_part_that_the_tests_use(project: Path, server: str, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(DESCRIPTION))
    fetched = fetch(project, f"{server}/openapi.json")
    assert fetched.returncode == 0, fetched.stderr
    assert cached(project)["paths"] == {path: {"get": OPERATION} for path in openapi.PATHS}
    assert cached(project)["components"]["schemas"].keys() == {"used", "mapped"}


def test_the_script_takes_a_file_and_keeps_a_description_on_request(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(DESCRIPTION))
    assert fetch(project, str(file)).returncode == 0
    before = (project / ".cache/cloudflare-openapi.json").stat().st_mtime_ns
    assert fetch(project, "--if-missing", str(tmp_path / "missing")).returncode == 0
    assert (project / ".cache/cloudflare-openapi.json").stat().st_mtime_ns == before


def test_an_unreachable_host_is_reported_with_the_way_to_provide_a_file(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/openapi.json"
    failed = fetch(project, url)
    assert failed.returncode == 1
    assert f"{url} cannot be used" in failed.stderr
    assert "Connection refused" in failed.stderr
    assert openapi.VARIABLE in failed.stderr
    assert not (project / ".cache").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<html>", "Expecting value"),
        ("[]", "not an OpenAPI 3 description"),
        (json.dumps({**DESCRIPTION, "paths": {}}), "lacks the path /certificates"),
        (json.dumps({**DESCRIPTION, "components": {}}), "lacks the component schemas/used"),
    ],
)
def test_anything_but_cloudflares_description_is_rejected(
    project: Path, tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "openapi.json"
    file.write_text(content)
    failed = fetch(project, str(file))
    assert failed.returncode == 1
    assert message in failed.stderr
    assert not (project / ".cache").exists()


def test_the_variable_comes_before_the_cache_and_the_cache_before_the_shared_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, cache, beside = (tmp_path / name for name in ("named", "cache", "beside"))
    monkeypatch.setattr(openapi, "CACHE", cache)
    monkeypatch.setattr(openapi, "BESIDE", beside)
    monkeypatch.delenv(openapi.VARIABLE, raising=False)
    assert openapi.locate() is None
    for path in (beside, cache):
        path.touch()
        assert openapi.locate() == path
    monkeypatch.setenv(openapi.VARIABLE, str(named))
    with pytest.raises(FileNotFoundError, match=openapi.VARIABLE):
        openapi.locate()
    named.touch()
    assert openapi.locate() == named
