"""The whole site: a CV's progress through every layer, and runs that fail with the reason."""

import json
import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.kit.playbook import changed, run_playbook, words
from tests.kit.site import BATCHES, CV, SiteClient
from tests.kit.testbed import ALIAS, SITE

pytestmark = pytest.mark.usefixtures("localhost_names")


@pytest.fixture
def tls():
    """Return a context that trusts the emulated edge."""
    return ssl.create_default_context(cafile=Path(os.environ["TESTBED_STATE_DIR"]) / "edge-ca.pem")


@pytest.fixture
def ada(tls):
    """Ada's session, through the emulated edge."""
    return SiteClient.sign_in(SITE, tls, "ada")


async def test_progress_of_cvs_arrives_live(ada):
    async with ada.socket() as ws:
        with ada.http() as http:
            batch = http.post(
                BATCHES,
                files=[("files", ("ada.txt", CV)), ("files", ("broken.pdf", b"%PDF-1.7 broken"))],
            )
        assert batch.status_code == 202, batch.text
        events = []
        async for message in ws:
            events.append(json.loads(message))
            if (events[-1]["type"], events[-1].get("status")) == ("batch_progress", "done"):
                break
    done = {
        event["filename"]: event
        for event in events
        if event.get("status") in ("done", "failed") and "cv_id" in event
    }
    assert done["ada.txt"]["result"]["email"] == "ada@example.com"
    assert done["broken.pdf"]["status"] == "failed"
    assert done["broken.pdf"]["error"]
    assert (events[-1]["done"], events[-1]["failed"]) == (1, 1)


async def test_ping_is_answered(ada):
    async with ada.socket() as ws:
        await ws.send("ping")
        assert json.loads(await ws.recv()) == {"type": "pong"}


def test_the_page_is_served(ada):
    with ada.http() as http:
        page = http.get("/")
    assert page.status_code == 200
    assert "<script" in page.text


def test_an_alias_redirects_to_the_site_with_path_query_and_method(tls):
    with httpx.Client(verify=tls) as http:
        answer = http.put(f"https://{ALIAS}:{urlsplit(SITE).port}//a%20b/?x=1&y=%2F", content=b"body")
    assert (answer.status_code, answer.headers["location"]) == (308, f"{SITE}//a%20b/?x=1&y=%2F")


def test_redis_shows_events_as_in_the_guide(host):
    listed = host.run_expect(
        [0], "cd /opt/screen-flow && docker compose exec -T redis redis-cli exists user:ada:stream"
    )
    assert listed.stdout.strip() == "1"


def test_verify_fails_for_a_stopped_api_and_names_it(host):
    host.run_expect([0], "cd /opt/screen-flow && docker compose stop api")
    try:
        run = run_playbook("playbooks/verify.yml")
    finally:
        host.run_expect([0], "cd /opt/screen-flow && docker compose up --detach --wait api")
    assert run.returncode != 0
    assert "The first broken layer is api" in run.stdout
    healthy = run_playbook("playbooks/verify.yml")
    assert healthy.returncode == 0, healthy.stdout


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("site_zone", "exa mple.com"),
        ("site_domain", "exa mple.com"),
        ("site_domain", "www.elsewhere.org"),
        ("site_api_port", 70000),
        ("nginx_port_https", 0),
        ("cloudflare_zone_ssl", "fulll"),
        ("site_edge_idle_seconds", 4),
        # A string, as -e site_heartbeat_seconds=200 passes it.
        ("site_heartbeat_seconds", "200"),
        ("site_api_port", "http"),
    ],
)
def test_an_invalid_variable_is_reported_before_anything_changes(variable, value):
    run = run_playbook("site.yml", **{variable: value})
    assert run.returncode != 0
    assert "rror rendering" not in run.stdout
    assert variable in run.stdout
    assert str(value) in run.stdout
    assert changed(run.stdout) == 0
    assert "PLAY [Provision the origin]" not in run.stdout


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"site_zone": "other.example.com", "site_domain": "www.other.example.com", "site_aliases": []},
            "Zone other.example.com does not exist at Cloudflare",
        ),
        ({"site_cloudflare_api_token": ""}, "put the token into vault_cloudflare_zone_api_token"),
        ({"site_cloudflare_api_token": "x" * 40}, "Cloudflare does not recognize the API token"),
    ],
)
def test_an_unknown_zone_or_token_is_reported_before_anything_is_built(variables, message):
    run = run_playbook("site.yml", **variables)
    assert run.returncode != 0
    assert message in words(run.stdout)
    assert "PLAY [Provision the origin]" not in run.stdout
