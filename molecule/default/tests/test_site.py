"""The whole site: a CV's progress through every layer, and runs that must fail, saying why."""

import json
import os
import ssl
from pathlib import Path

import httpx
import pytest
import websockets

from tests.kit.playbook import run_playbook
from tests.kit.site import resolve_localhost

CV = b"Ada Lovelace\nada@example.com\n+44 20 7946 0018\nSkills: Python, Redis, nginx\n"


@pytest.fixture(scope="module")
def site():
    """Return what up.yml wrote about the site: SITE_URL, EDGE_CA_FILE and so on."""
    lines = (Path(os.environ["TESTBED_STATE_DIR"]) / "env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture(autouse=True)
def localhost_names(monkeypatch):
    resolve_localhost(monkeypatch)


@pytest.fixture
def tls(site):
    """Trust the emulated edge's CA and nothing else."""
    return ssl.create_default_context(cafile=site["EDGE_CA_FILE"])


@pytest.fixture
def session(site, tls):
    """Return an HTTP client signed in as ada."""
    with httpx.Client(base_url=site["SITE_URL"], verify=tls, headers={"Origin": site["SITE_URL"]}) as client:
        client.post("/api/v1/session", json={"user_id": "ada"}).raise_for_status()
        yield client


def socket_of(site, session, tls):
    """Open ada's WebSocket through the edge."""
    return websockets.connect(
        site["SITE_URL"].replace("https", "wss") + "/api/v1/cv-processing/ws/ada",
        ssl=tls,
        origin=site["SITE_URL"],
        additional_headers={
            "Cookie": "; ".join(f"{name}={value}" for name, value in session.cookies.items())
        },
    )


async def test_a_cv_s_progress_arrives_live(site, session, tls):
    async with socket_of(site, session, tls) as ws:
        batch = session.post(
            "/api/v1/cv-processing/batches",
            files=[("files", ("ada.txt", CV, "text/plain")), ("files", ("broken.pdf", b"%PDF-1.7 broken"))],
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


async def test_ping_is_answered(site, session, tls):
    async with socket_of(site, session, tls) as ws:
        await ws.send("ping")
        assert json.loads(await ws.recv()) == {"type": "pong"}


def test_the_page_is_served(session):
    page = session.get("/")
    assert page.status_code == 200
    assert "<script" in page.text


def test_redis_shows_events_as_in_the_guide(host):
    listed = host.run_expect(
        [0], "cd /opt/screen-flow && docker compose exec -T redis redis-cli exists user:ada:stream"
    )
    assert listed.stdout.strip() == "1"


def test_a_stopped_api_fails_verify_and_is_named(host):
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
        # As -e site_heartbeat_seconds=200 gives it.
        ("site_heartbeat_seconds", "200"),
        ("site_api_port", "http"),
    ],
)
def test_a_wrong_variable_stops_the_run_before_anything_changes(variable, value):
    run = run_playbook("site.yml", **{variable: value})
    assert run.returncode != 0
    assert "rror rendering" not in run.stdout
    assert variable in run.stdout
    assert str(value) in run.stdout
    assert "changed=0" in run.stdout
    assert "PLAY [Provision the origin]" not in run.stdout


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"site_zone": "other.example.com", "site_domain": "www.other.example.com"},
            "Zone other.example.com is unknown to Cloudflare",
        ),
        ({"site_cloudflare_api_token": ""}, "put the token into vault_cloudflare_zone_api_token"),
        ({"site_cloudflare_api_token": "x" * 40}, "Cloudflare does not know the API token"),
    ],
)
def test_a_zone_or_token_that_cloudflare_does_not_know_stops_the_run_before_anything_is_built(
    variables, sentence
):
    run = run_playbook("site.yml", **variables)
    assert run.returncode != 0
    assert sentence in " ".join(run.stdout.split())
    assert "PLAY [Provision the origin]" not in run.stdout
