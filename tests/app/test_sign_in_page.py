"""The page's link to a real identity provider, as a user follows it in Chromium."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.app.provider import Authority, IdentityProvider
from tests.app.proxy import Proxy
from tests.kit.app import REPOSITORY, RedisServer, make_site

BUILD = REPOSITORY / "frontend/dist"
HOST = "screen-flow.test"
CLIENT = "screen-flow-ES256"


@pytest.fixture(scope="module")
def site_url(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A site over TLS whose page is the built one; its sign-in is the provider's."""
    assert BUILD.is_dir(), "the page is not built: run npm ci && npm run build in frontend/"
    folder = tmp_path_factory.mktemp("site")
    authority = Authority(folder)
    site = make_site(redis_server, folder, APP_SESSION_CA_FILE=str(authority.ca))
    proxy = Proxy(folder, authority, site.port)
    url = f"https://{HOST}:{proxy.https}"
    provider = IdentityProvider(authority, folder, callback=f"{url}/")
    provider.start()
    del site.env["APP_SESSION_KEYS_FILE"]
    site.env |= {
        "APP_ALLOWED_ORIGINS": url,
        "APP_FRONTEND_DIR": str(BUILD),
        "APP_SESSION_JWKS_URL": provider.discovered("jwks_uri"),
        "APP_SESSION_ISSUER": provider.discovered("issuer"),
        "APP_SESSION_AUDIENCE": CLIENT,
        "APP_SIGN_IN_URL": f"{provider.discovered('authorization_endpoint')}?client_id={CLIENT}&scope=openid"
        f"&response_type=id_token&redirect_uri={url}/",
    }
    site.start()
    proxy.start()
    yield url
    for process in (proxy, site.api, provider):
        process.close()


@pytest.fixture
def page() -> Iterator[Page]:
    arguments = [
        f"--host-resolver-rules=MAP {HOST} 127.0.0.1",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        # The test's own authority is not the browser's.
        yield browser.new_context(ignore_https_errors=True).new_page()
        browser.close()


def test_a_user_signs_in_with_the_provider_and_out(page: Page, site_url: str) -> None:
    page.goto(site_url)
    page.get_by_test_id("sign-in-link").click()
    page.get_by_placeholder("Enter any login").fill("auth0|ada/1")
    page.get_by_placeholder("and password").fill("any")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
    expect(page.locator(".who")).to_have_text("auth0|ada/1")
    assert page.url == f"{site_url}/", "the token is not left in the address"
    (cookie,) = [each for each in page.context.cookies() if each["name"] == "__Host-screen-flow"]
    assert cookie["httpOnly"] and cookie["secure"]

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_test_id("sign-in-link")).to_be_visible()


def test_a_token_that_the_tab_did_not_request_is_refused(page: Page, site_url: str) -> None:
    page.goto(f"{site_url}/#id_token=a.b.c&state=x")
    expect(page.get_by_role("alert")).to_have_text("This sign-in was not started in this tab. Sign in again.")


def test_the_provider_refuses(page: Page, site_url: str) -> None:
    page.goto(site_url)
    page.get_by_test_id("sign-in-link").click()
    page.get_by_role("link", name="Cancel").click()
    expect(page.get_by_role("alert")).to_contain_text("The sign-in failed: ")
    expect(page.get_by_test_id("sign-in-link")).to_be_visible()
