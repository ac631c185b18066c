"""Somebody who is signed in."""

import os
import ssl
from collections.abc import Iterator

import httpx
import pytest


@pytest.fixture
def signed_in(localhost_names: None) -> Iterator[httpx.Client]:
    """Return a client with Ada's session."""
    url = os.environ["SITE_URL"]
    context = ssl.create_default_context(cafile=os.environ["EDGE_CA_FILE"])
    with httpx.Client(base_url=url, verify=context, headers={"Origin": url}, timeout=60) as client:
        client.post("/api/v1/session", json={"user_id": "ada"}).raise_for_status()
        yield client
