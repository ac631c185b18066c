"""Operations and their effect on users: a restored CV is processed, invalid input changes nothing."""

import json
import os
import ssl
import time
import xml.etree.ElementTree as ET

import pytest

from tests.kit.playbook import changed, run_playbook, words
from tests.kit.process import wait_until
from tests.kit.site import SiteClient

pytestmark = pytest.mark.usefixtures("localhost_names")


@pytest.fixture
def user():
    """A new user's session."""
    tls = ssl.create_default_context(cafile=os.environ["EDGE_CA_FILE"])
    return SiteClient.sign_in(os.environ["SITE_URL"], tls, f"restore-{time.time_ns()}")


def statuses(user):
    """Return the status of each of the user's batches, by id."""
    return {batch["batch_id"]: batch["status"] for batch in user.snapshot()["batches"]}


def test_a_restored_backup_has_the_batches_and_the_pending_uploads(demo, user, tmp_path):
    demo.compose("stop", "worker")
    try:
        kept = user.upload("ada.txt")["batch_id"]
        backed_up = run_playbook("playbooks/backup.yml", backup_dir=str(tmp_path))
        assert backed_up.returncode == 0, backed_up.stdout
        (backup,) = tmp_path.glob("*.tar.gz")
        assert backup.stat().st_mode & 0o077 == 0

        later = user.upload("b.txt")["batch_id"]
        assert {kept, later} <= statuses(user).keys()

        restored = run_playbook(
            "playbooks/backup_restore.yml", backup_file=str(backup), backup_dir=str(tmp_path), confirm="yes"
        )
        assert restored.returncode == 0, restored.stdout
    finally:
        demo.compose("up", "--detach", "--wait", "worker")
    # What came after the backup is gone; what was pending then is processed now, from its upload.
    assert later not in statuses(user)
    wait_until("the restored upload is processed", lambda: statuses(user)[kept] == "done", 60, interval=1)
    with user.http() as http:
        (cv,) = http.get(f"/api/v1/cv-processing/batches/{kept}").json()["cvs"]
    assert (cv["status"], cv["error"]) == ("done", None)
    assert cv["result"]["email"] == "ada@example.com"
    assert len(list(tmp_path.glob("*.tar.gz"))) == 2  # with the backup of the data that were replaced


def test_one_user_s_data_is_removed_after_a_confirmation(user):
    with user.http() as http:
        name = http.get("/api/v1/session").json()["user_id"]
    user.upload("ada.txt")
    asked = run_playbook("playbooks/remove_user.yml", user_id=name)
    assert asked.returncode == 2
    assert f'"user_id": "{name}"' in asked.stdout.replace("\\", "")
    assert "Nothing was changed." in asked.stdout
    assert len(statuses(user)) == 1
    removed = run_playbook("playbooks/remove_user.yml", user_id=name, confirm="yes")
    assert removed.returncode == 0, removed.stdout
    assert statuses(user) == {}


def test_a_restore_needs_a_confirmation(demo, tmp_path):
    assert run_playbook("playbooks/backup.yml", backup_dir=str(tmp_path)).returncode == 0
    (backup,) = tmp_path.glob("*.tar.gz")
    started = "docker inspect --format '{{.State.StartedAt}}' screen-flow-redis-1"
    before = demo.shell(started)
    run = run_playbook("playbooks/backup_restore.yml", backup_file=str(backup), backup_dir=str(tmp_path))
    assert run.returncode == 2
    assert "Nothing was changed." in run.stdout
    assert demo.shell(started) == before


@pytest.mark.parametrize(
    ("playbook", "variable", "value"),
    [
        ("restart", "service", "apy"),
        ("rotate", "secret", "password"),
        ("maintenance", "maintenance", "maybe"),
        ("logs", "service", "postgres"),
        ("events", "user_id", "a b"),
        ("backup_restore", "backup_file", "/nowhere.tar.gz"),
        ("remove_user", "user_id", "a b"),
    ],
)
def test_invalid_input_is_reported_and_changes_nothing(playbook, variable, value):
    run = run_playbook(f"playbooks/{playbook}.yml", **{variable: value})
    assert run.returncode == 2
    assert f"{variable} is '{value}'" in words(run.stdout)
    assert changed(run.stdout) == 0


def test_maintenance_refuses_users_and_sockets_until_it_is_off(user):
    with user.http() as http:
        try:
            assert run_playbook("playbooks/maintenance.yml", maintenance="on").returncode == 0
            page = http.get("/")
            assert (page.status_code, page.headers["Retry-After"]) == (503, "120")
            assert "Back soon" in page.text
            assert http.get("/api/v1/cv-processing/ws/ada").status_code == 503
            # A second run changes nothing: open sockets are not closed again.
            assert changed(run_playbook("playbooks/maintenance.yml", maintenance="on").stdout) == 0
        finally:
            assert run_playbook("playbooks/maintenance.yml", maintenance="off").returncode == 0
        assert http.get("/").status_code == 200


def test_verify_writes_a_page_and_reports_for_programs(demo, tmp_path):
    verified = run_playbook("playbooks/verify.yml", site_check_report_dir=str(tmp_path))
    assert verified.returncode == 0, verified.stdout
    report = json.loads((tmp_path / "verify.json").read_text())
    assert report["ok"]
    # The machine of the tests may have a kernel without limits, which verify reports.
    lines = [line for line in report["lines"] if line["name"] != "Limits of the containers"]
    assert {line["verdict"] for line in lines} <= {"ok", "not tried"}
    (suite,) = ET.parse(tmp_path / "verify.xml").getroot().iter("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == (str(len(report["lines"])), "0")
    page = (tmp_path / "verify.html").read_text()
    assert ": verified</h1>" in page
    assert "src=" not in page and "href=" not in page
    # Neither the probe's key nor a session is in any of them.
    key = demo.shell("cat secrets/probe_key").strip()
    assert all(key not in file.read_text() and "eyJ" not in file.read_text() for file in tmp_path.iterdir())


def test_verify_with_tags_reports_these_layers_only(demo):
    demo.compose("stop", "worker")
    try:
        assert run_playbook("playbooks/verify.yml", "--tags", "nginx").returncode == 0
        api = run_playbook("playbooks/verify.yml", "--tags", "api")
    finally:
        demo.compose("up", "--detach", "--wait", "worker")
    assert api.returncode == 2
    assert "worker is stopped" in api.stdout
    assert "docs/runbook/nothing_is_processed.md" in api.stdout
