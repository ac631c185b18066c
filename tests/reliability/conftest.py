"""These tests run over a whole site that is up: the demo's, or molecule's default scenario's."""

import os
import ssl
from collections.abc import Iterator

import httpx
import pytest

from tests.demo import Demo, resolve_localhost


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "SITE_URL" not in os.environ:
        for item in items:
            item.add_marker(
                pytest.mark.skip("SITE_URL is not set: run scripts/demo, then `set -a; . .demo/env`")
            )


@pytest.fixture(scope="session")
def demo() -> Demo:
    return Demo()


@pytest.fixture
def localhost_names(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_localhost(monkeypatch)


@pytest.fixture
def signed_in(localhost_names: None) -> Iterator[httpx.Client]:
    """Return a client with Ada's session."""
    url = os.environ["SITE_URL"]
    context = ssl.create_default_context(cafile=os.environ["EDGE_CA_FILE"])
    with httpx.Client(base_url=url, verify=context, headers={"Origin": url}, timeout=60) as client:
        client.post("/api/v1/session", json={"user_id": "ada"}).raise_for_status()
        yield client
