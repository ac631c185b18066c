"""Operations, by what a person notices: a restored CV is processed, a wrong input changes nothing."""

import json
import os
import ssl
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import httpx
import pytest

from tests.kit.playbook import run_playbook

pytestmark = pytest.mark.usefixtures("localhost_names")
PROJECT = Path(__file__).parents[2]
CV = b"Ada Lovelace\nada@example.com\n+44 20 7946 0018\nSkills: Python, Redis, nginx\n"


@pytest.fixture
def session():
    """Return an HTTP client signed in as somebody new."""
    site = os.environ["SITE_URL"]
    tls = ssl.create_default_context(cafile=os.environ["EDGE_CA_FILE"])
    with httpx.Client(base_url=site, verify=tls, headers={"Origin": site}, timeout=30) as client:
        client.post("/api/v1/session", json={"user_id": f"restore-{time.time_ns()}"}).raise_for_status()
        yield client


def on_server(command):
    """Run a shell command on the server; return its output."""
    return subprocess.run(
        ["docker", "exec", os.environ["ORIGIN_CONTAINER"], "sh", "-c", f"cd /opt/screen-flow && {command}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def batches(session):
    """Return the person's batches, each as id and status."""
    answer = session.get("/api/v1/cv-processing/batches")
    answer.raise_for_status()
    return {batch["batch_id"]: batch["status"] for batch in answer.json()["batches"]}


def test_a_restored_backup_has_the_batches_and_the_uploads_that_wait(session, tmp_path):
    on_server("docker compose stop worker")
    try:
        uploaded = session.post(
            "/api/v1/cv-processing/batches", files=[("files", ("ada.txt", CV, "text/plain"))]
        )
        assert uploaded.status_code == 202, uploaded.text
        kept = uploaded.json()["batch_id"]
        backed_up = run_playbook("playbooks/backup.yml", backup_dir=str(tmp_path))
        assert backed_up.returncode == 0, backed_up.stdout
        (backup,) = tmp_path.glob("*.tar.gz")
        assert backup.stat().st_mode & 0o077 == 0

        later = session.post("/api/v1/cv-processing/batches", files=[("files", ("b.txt", CV, "text/plain"))])
        lost = later.json()["batch_id"]
        assert {kept, lost} <= batches(session).keys()

        restored = run_playbook(
            "playbooks/backup_restore.yml", backup_file=str(backup), backup_dir=str(tmp_path), confirm="yes"
        )
        assert restored.returncode == 0, restored.stdout
    finally:
        on_server("docker compose up --detach --wait worker")
    # What came after the backup is gone; what waited then is processed now, from its upload.
    assert lost not in batches(session)
    deadline = time.monotonic() + 60
    while batches(session)[kept] != "done" and time.monotonic() < deadline:
        time.sleep(1)
    (cv,) = session.get(f"/api/v1/cv-processing/batches/{kept}").json()["cvs"]
    assert (cv["status"], cv["error"]) == ("done", None)
    assert cv["result"]["email"] == "ada@example.com"
    assert len(list(tmp_path.glob("*.tar.gz"))) == 2  # the data that were replaced


def test_nothing_is_restored_without_a_yes(tmp_path):
    assert run_playbook("playbooks/backup.yml", backup_dir=str(tmp_path)).returncode == 0
    (backup,) = tmp_path.glob("*.tar.gz")
    started = on_server("docker inspect --format '{{.State.StartedAt}}' screen-flow-redis-1")
    asked = run_playbook("playbooks/backup_restore.yml", backup_file=str(backup), backup_dir=str(tmp_path))
    assert asked.returncode == 2
    assert "Nothing was changed." in asked.stdout
    assert on_server("docker inspect --format '{{.State.StartedAt}}' screen-flow-redis-1") == started


@pytest.mark.parametrize(
    ("playbook", "variable", "value"),
    [
        ("restart", "service", "apy"),
        ("rotate", "secret", "password"),
        ("maintenance", "maintenance", "maybe"),
        ("logs", "service", "postgres"),
        ("events", "user_id", "a b"),
        ("backup_restore", "backup_file", "/nowhere.tar.gz"),
    ],
)
def test_a_wrong_input_is_named_and_changes_nothing(playbook, variable, value):
    run = run_playbook(f"playbooks/{playbook}.yml", **{variable: value})
    assert run.returncode == 2
    assert f"{variable} is '{value}'" in " ".join(run.stdout.split())
    assert "changed=0" in run.stdout


def test_maintenance_turns_people_and_sockets_away_and_lets_them_back(session):
    try:
        assert run_playbook("playbooks/maintenance.yml", maintenance="on").returncode == 0
        page = session.get("/")
        assert (page.status_code, page.headers["Retry-After"]) == (503, "120")
        assert "Back soon" in page.text
        assert session.get("/api/v1/cv-processing/ws/ada").status_code == 503
        # A second time does nothing: open sockets are not closed again.
        assert "changed=0" in run_playbook("playbooks/maintenance.yml", maintenance="on").stdout
    finally:
        assert run_playbook("playbooks/maintenance.yml", maintenance="off").returncode == 0
    assert session.get("/").status_code == 200


def test_verify_reports_for_people_and_machines(tmp_path):
    verified = run_playbook("playbooks/verify.yml", site_check_report_dir=str(tmp_path))
    assert verified.returncode == 0, verified.stdout
    found = json.loads((tmp_path / "verify.json").read_text())
    assert found["ok"]
    assert {line["verdict"] for line in found["lines"]} <= {"ok", "not tried"}
    (suite,) = ET.parse(tmp_path / "verify.xml").getroot().iter("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == (str(len(found["lines"])), "0")
    page = (tmp_path / "verify.html").read_text()
    assert ": verified</h1>" in page
    assert "src=" not in page and "href=" not in page
    # No secret is in any of them.
    key = on_server("cat secrets/probe_key").strip()
    assert all(key not in file.read_text() and "eyJ" not in file.read_text() for file in tmp_path.iterdir())


def test_verify_of_one_layer_fails_with_what_is_wrong_there_only(session):
    on_server("docker compose stop worker")
    try:
        assert run_playbook("playbooks/verify.yml", "--tags", "nginx").returncode == 0
        api = run_playbook("playbooks/verify.yml", "--tags", "api")
    finally:
        on_server("docker compose up --detach --wait worker")
    assert api.returncode == 2
    assert "worker is stopped" in api.stdout
    assert "docs/runbook/nothing_is_processed.md" in api.stdout
