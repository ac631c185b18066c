"""A zone of its own for each test, with a client of its API and one of its control API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.kit import emulator as kit


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[kit.Site]:
    async with kit.site(tmp_path) as made:
        yield made


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
