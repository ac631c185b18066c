"""A zone for each test, with clients of its API and its control API, and an origin for both schemes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from emulator.certificates import Authority
from tests.kit import emulator as kit


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[kit.Site]:
    async with kit.site(tmp_path) as running:
        yield running


@pytest.fixture
async def api(site: kit.Site) -> AsyncIterator[httpx.AsyncClient]:
    async with site.client() as client:
        client.base_url = "http://api/client/v4"
        yield client


@pytest.fixture
async def control(site: kit.Site) -> AsyncIterator[httpx.AsyncClient]:
    async with site.client() as client:
        client.base_url = "http://api/_emulator"
        yield client


@pytest.fixture(scope="module")
def origins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The HTTP and HTTPS ports of an origin whose certificate comes from an unknown issuer."""
    path = kit.certificate(tmp_path_factory.mktemp("origin"), Authority.create("unknown"))
    with kit.origin() as http, kit.origin(path) as https:
        yield http, https


@pytest.fixture
def live(site: kit.Site, origins: tuple[int, int]) -> kit.Site:
    """A site in SSL mode full whose origin serves HTTP and HTTPS."""
    site.origin(*origins)
    site.zone.put_settings({"ssl": "full"})
    return site
