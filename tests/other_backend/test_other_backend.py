"""A backend in another language (Node), deployed by the site's own playbooks: the contract suffices."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kit.playbook import changed, run_playbook
from tests.kit.process import REPOSITORY

IMAGE = "other-backend:1"
INPUTS = {
    "app_stack_image": IMAGE,
    "app_stack_worker_command": ["node", "worker.js"],
    "app_stack_environment": {"GREETING": "1$2"},
}


def diagnose(folder):
    """Run playbooks/diagnose.yml; return its findings as (layer, cause), and what was not collected."""
    record = Path(folder) / "diagnosis.json"
    done = run_playbook("playbooks/diagnose.yml", **INPUTS, site_check_diagnosis_file=str(record))
    found = json.loads(record.read_text())
    assert (done.returncode == 0) == (not found["findings"]), done.stdout
    return [(one["layer"], one["cause"]) for one in found["findings"]], found["missing"]


@pytest.fixture(scope="module")
def deployed(demo):
    """Deploy the backend by site.yml, which ends by verifying the site; the reference one afterwards."""
    folder = Path(__file__).parent / "node"
    subprocess.run(("docker", "build", "--quiet", f"--tag={IMAGE}", folder), check=True, capture_output=True)
    with subprocess.Popen(("docker", "save", IMAGE), stdout=subprocess.PIPE) as saved:
        load = ("docker", "exec", "-i", os.environ["ORIGIN_CONTAINER"], "docker", "load", "--quiet")
        subprocess.run(load, stdin=saved.stdout, check=True, capture_output=True)
    try:
        yield run_playbook("site.yml", **INPUTS)
    finally:
        back = run_playbook("site.yml", "--tags=app_stack,nginx")
        assert back.returncode == 0, back.stdout


def test_the_site_is_verified(deployed):
    assert deployed.returncode == 0, deployed.stdout
    assert "Event received through Cloudflare" in deployed.stdout
    assert "WebSocket connections logged" not in deployed.stdout


def test_a_second_run_changes_nothing(deployed):
    again = run_playbook("site.yml", "--tags=app_stack,nginx", **INPUTS)
    assert (again.returncode, changed(again.stdout)) == (0, 0), again.stdout


def test_it_gets_its_environment_user_and_volumes(deployed, demo):
    assert demo.compose("exec", "-T", "worker", "printenv", "GREETING").strip() == "1$2"
    assert demo.compose("exec", "-T", "api", "sh", "-c", "id -u; stat -c %u $APP_UPLOAD_DIR").split() == [
        "10001",
        "10001",
    ]


def test_it_keeps_the_contract(deployed):
    """The acceptance suite, but for the test that publishes with the reference backend's own code."""
    command = (sys.executable, "-m", "pytest", "-q", "tests/acceptance", "-k", "not older_than_the_history")
    done = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


def test_diagnosis_finds_nothing_on_the_healthy_site(deployed, tmp_path):
    assert diagnose(tmp_path) == ([], {})


@pytest.mark.parametrize(
    ("inject", "revert", "finding"),
    [
        (["stop", "worker"], ["start", "worker"], ("worker", "worker is stopped")),
        (["pause", "api"], ["unpause", "api"], ("api", "api is stopped (paused")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_an_injected_fault_is_named(deployed, demo, tmp_path, inject, revert, finding):
    demo.compose(*inject)
    try:
        findings, _ = diagnose(tmp_path)
    finally:
        demo.compose(*revert)
        end = time.monotonic() + 60
        while diagnose(tmp_path)[0]:
            assert time.monotonic() < end, "the site did not become healthy again"
    layer, cause = finding
    assert [(found[0], found[1][: len(cause)]) for found in findings] == [(layer, cause)]
