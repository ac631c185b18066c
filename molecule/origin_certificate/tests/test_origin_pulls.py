"""The edge's client certificate: nginx requires it, and no request fails while it is switched."""

import re
import time

import pytest

from tests.kit.certificates import self_signed
from tests.kit.playbook import run_playbook
from tests.kit.process import REPOSITORY, wait_until
from tests.kit.testbed import NAME

AUTHORITY_KEY = "/etc/ssl/private/screen-flow-edge-authority.key"
FORGET_SECONDS = 2  # more than the edge takes until it uses a change of its settings


@pytest.fixture
def switch_pulls():
    """Return switch_pulls(on=True, check=True, **variables), which runs the layer's playbook."""

    def call(on=True, check=True, **variables):
        # The stand-in for the api listens on its port alone.
        common = {"site_origin_pulls": on, "site_api_socket": False}
        run = run_playbook("playbooks/authenticated_origin_pulls.yml", **common, **variables)
        assert run.returncode == 0 or not check, run.stdout + run.stderr
        return run

    return call


def test_only_the_edge_is_served(edge, status_past_the_edge):
    assert edge.status() == 200
    assert status_past_the_edge() == 403
    assert status_past_the_edge(port=80) == 308


def test_another_client_certificate_is_refused(status_past_the_edge, tmp_path):
    pair = tmp_path / "other.pem"
    pair.write_text(str(self_signed(NAME)))
    assert status_past_the_edge(certificate=pair) == 400


def test_switches_off_and_on_and_waits_for_an_edge_that_presents_nothing(
    edge, host, control, status_past_the_edge, switch_pulls
):
    with edge.no_failed_request():
        switch_pulls(on=False)
        assert status_past_the_edge() == 200
        assert control.state()["origin_pulls"] == {"enabled": False, "certificates": []}
        assert not host.file(AUTHORITY_KEY).exists
        # In this mode the edge speaks no TLS to the origin, so it cannot present a certificate.
        control("PATCH", "settings", {"ssl": "flexible"})
        # At the second run nginx already requests a certificate, without requiring it.
        for _ in range(2):
            run = switch_pulls(check=False, authenticated_origin_pulls_deploy_seconds=5)
            assert run.returncode != 0
            assert "The edge does not present its certificate" in run.stdout
            assert status_past_the_edge() == 200
        control("PATCH", "settings", {"ssl": "strict"})
        switch_pulls()
        assert status_past_the_edge() == 403
        time.sleep(FORGET_SECONDS)
    assert control.state()["origin_pulls"]["enabled"]


def test_the_edge_s_certificate_is_renewed(edge, control, switch_pulls):
    (old,) = control.state()["origin_pulls"]["certificates"]
    with edge.no_failed_request():
        switch_pulls(authenticated_origin_pulls_renew_days=365, authenticated_origin_pulls_days=730)
        time.sleep(FORGET_SECONDS)
    (new,) = control.state()["origin_pulls"]["certificates"]
    assert new["id"] != old["id"]


def test_the_runbook_s_command_turns_it_off_without_ansible(edge, host, converge, status_past_the_edge):
    page = (REPOSITORY / "docs/runbook/authenticated_origin_pulls.md").read_text()
    (command,) = re.findall(r"```text\n(sed .*)\n```", page)
    assert status_past_the_edge() == 403
    host.run_expect([0], command)
    # A reload is a signal: the workers that refuse end a moment later.
    wait_until("nginx serves direct clients", lambda: status_past_the_edge() == 200, 5, interval=0.1)
    assert edge.status() == 200
    converge()
    assert status_past_the_edge() == 403
