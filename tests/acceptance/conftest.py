"""The site to test and a session on it; test_contract.py lists the variables that name them."""

import os
import secrets
import ssl

import httpx
import pytest

from tests.kit.site import COOKIE, SiteClient


@pytest.fixture(scope="session")
def _target(localhost_names: None) -> tuple[str, ssl.SSLContext]:
    if "SITE_URL" not in os.environ:
        pytest.skip("SITE_URL is not set: the site to test, as in https://screen-flow.example.com")
    return os.environ["SITE_URL"].rstrip("/"), ssl.create_default_context(cafile=os.getenv("EDGE_CA_FILE"))


@pytest.fixture(scope="session")
def site(_target: tuple[str, ssl.SSLContext]) -> SiteClient:
    """The site with the session given, or with a new one where the demo's sign-in is on."""
    url, tls = _target
    if session := os.getenv("SITE_SESSION", ""):
        with SiteClient(url, tls, "", session).http() as http:
            response = http.get("/api/v1/session")
        if response.status_code != 200:
            pytest.fail(f"{url} refuses SITE_SESSION: {response.status_code} {response.text[:200]}")
        return SiteClient(url, tls, response.json()["user_id"], session)
    try:
        return SiteClient.sign_in(url, tls, f"acceptance-{secrets.token_hex(4)}")
    except httpx.HTTPStatusError as error:
        pytest.fail(
            f"SITE_SESSION is not set and {url} has no demo sign-in ({error.response.status_code} "
            f"{error.response.text[:200]}): set it to the value of a signed-in user's cookie {COOKIE}."
        )
