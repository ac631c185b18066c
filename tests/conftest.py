"""What the suites over a running site share: the demo's, or that of Molecule's default scenario."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.site import Demo, resolve_localhost

TESTS = Path(__file__).parent
OVER_A_SITE = [TESTS / suite for suite in ("browser", "faults", "reliability", "runbook")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a site where there is none; acceptance says by itself what it lacks."""
    if "SITE_URL" in os.environ:
        return
    for item in items:
        if any(suite in item.path.parents for suite in OVER_A_SITE):
            item.add_marker(
                pytest.mark.skip("SITE_URL is not set: run scripts/demo, then `set -a; . .demo/env`")
            )


@pytest.fixture(scope="session")
def demo() -> Demo:
    """The demo's server, for what can't be brought about from outside."""
    if "ORIGIN_CONTAINER" not in os.environ:
        pytest.skip("ORIGIN_CONTAINER is not set: only the demo's server can be told what to do")
    return Demo()


@pytest.fixture(scope="session")
def localhost_names() -> Iterator[None]:
    """Take *.localhost to this machine."""
    with pytest.MonkeyPatch.context() as patch:
        resolve_localhost(patch)
        yield
