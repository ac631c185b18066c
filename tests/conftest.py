"""Fixtures of the suites that need a running site: the demo, or Molecule's default scenario."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.kit.site import Demo, SiteClient, resolve_localhost

TESTS = Path(__file__).parent
OVER_A_SITE = [TESTS / suite for suite in ("browser", "faults", "other_backend", "reliability", "runbook")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a site where SITE_URL names none; tests/acceptance reports that itself."""
    if "SITE_URL" in os.environ:
        return
    for item in items:
        if any(suite in item.path.parents for suite in OVER_A_SITE):
            item.add_marker(
                pytest.mark.skip("SITE_URL is not set: run scripts/demo, then `set -a; . .demo/env`")
            )


@pytest.fixture(scope="session")
def demo() -> Demo:
    """The demo's server, for what cannot be caused from outside."""
    if "ORIGIN_CONTAINER" not in os.environ:
        pytest.skip("ORIGIN_CONTAINER is not set: this test needs the demo's server (scripts/demo)")
    return Demo()


@pytest.fixture(scope="session")
def localhost_names() -> Iterator[None]:
    """Resolve *.localhost to this machine."""
    with pytest.MonkeyPatch.context() as patch:
        resolve_localhost(patch)
        yield


@pytest.fixture
def ada(localhost_names: None) -> SiteClient:
    """Ada's session on the demo."""
    tls = ssl.create_default_context(cafile=os.environ["EDGE_CA_FILE"])
    return SiteClient.sign_in(os.environ["SITE_URL"], tls, "ada")


@pytest.fixture
def http(ada: SiteClient) -> Iterator[httpx.Client]:
    """An HTTP client with Ada's session."""
    with ada.http() as client:
        yield client
