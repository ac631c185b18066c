"""cloudflare_origin_pulls: uploaded once, enabled when deployed, renewed, removed."""

import datetime as dt

import pytest
import trustme
from ansible_collections.screen_flow.live.plugins.modules import cloudflare_origin_pulls as origin_pulls
from cryptography import x509

from emulator.faults import Fault
from tests.kit.ansible_module import warnings


class Authority:
    """An authority that signs client certificates."""

    def __init__(self):
        self._ca = trustme.CA()
        self.pem = self._ca.cert_pem.bytes().decode()
        self.name = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes()).subject.rfc4514_string()

    def client(self, days=365):
        """Return certificate and key as the module takes them."""
        end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        pair = self._ca.issue_cert("edge.example.com", not_after=end, key_type=trustme.KeyType.RSA)
        return {
            "certificate": pair.cert_chain_pems[0].bytes().decode(),
            "private_key": pair.private_key_pem.bytes().decode(),
        }


@pytest.fixture
def run(run_any):
    """Run cloudflare_origin_pulls."""

    def call(check=False, **arguments):
        return run_any(origin_pulls, check, **arguments)

    return call


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(origin_pulls, "POLL_SECONDS", 0.2)


def pulls(cloudflare):
    return cloudflare.zone.origin_pulls.describe()


def test_without_a_pair_it_only_reports_that_one_is_needed(run, cloudflare, authority):
    result = run(enabled=True, authority=authority.pem)
    assert (result["certificate_needed"], result["changed"], result["enabled"]) == (True, False, False)
    assert run(check=True, enabled=True, authority=authority.pem)["changed"]
    assert cloudflare.writes("") == []


def test_it_is_enabled_only_after_the_certificate_is_deployed(run, cloudflare, authority):
    result = run(enabled=True, authority=authority.pem, **authority.client())
    assert (result["certificate_needed"], result["changed"], result["enabled"]) == (False, True, True)
    assert [method for method, _ in cloudflare.writes("origin_tls")] == ["POST", "PUT"]
    between = [entry["method"] for entry in cloudflare.api.journal]
    # Polled until deployed: more often than the one request that finds it pending.
    assert between[between.index("POST") : between.index("PUT")].count("GET") > 1
    assert pulls(cloudflare)["certificates"][0]["status"] == "active"


def test_a_second_run_reads_twice_and_writes_nothing(run, cloudflare, authority):
    run(enabled=True, authority=authority.pem, **authority.client())
    cloudflare.api.journal.clear()
    result = run(zone=None, zone_id=cloudflare.zone.id, enabled=True, authority=authority.pem)
    assert not result["changed"]
    assert cloudflare.methods() == ["GET", "GET"]


def test_the_new_certificate_is_uploaded_before_the_old_one_is_removed(run, cloudflare, authority):
    run(enabled=True, authority=authority.pem, **authority.client(days=60))
    assert run(enabled=True, authority=authority.pem, renew_days=61)["certificate_needed"]
    cloudflare.api.journal.clear()
    run(enabled=True, authority=authority.pem, renew_days=61, **authority.client())
    assert [method for method, _ in cloudflare.writes("origin_tls")] == ["POST", "DELETE"]
    (left,) = pulls(cloudflare)["certificates"]
    assert dt.datetime.fromisoformat(left["expires_on"]) > dt.datetime.now(dt.UTC) + dt.timedelta(days=300)
    assert pulls(cloudflare)["enabled"]


def test_a_lost_response_does_not_upload_twice(run, cloudflare, authority):
    cloudflare.api.faults.append(
        Fault(path="/origin_tls_client_auth$", method="POST", applied=True, cut=True)
    )
    result = run(enabled=True, authority=authority.pem, **authority.client())
    assert "lost" in warnings(result)
    assert len(pulls(cloudflare)["certificates"]) == 1


def test_without_a_deployed_certificate_it_stays_disabled(run, cloudflare, authority):
    result = run(enabled=True, authority=authority.pem, deploy_seconds=0, **authority.client())
    assert result["failed"]
    assert "pending_deployment" in result["msg"]
    assert not pulls(cloudflare)["enabled"]
    # The next run continues to wait for the same certificate.
    assert run(enabled=True, authority=authority.pem)["enabled"]
    assert len(pulls(cloudflare)["certificates"]) == 1


def test_disabling_removes_managed_certificates_and_no_others(run, cloudflare, authority):
    foreign = Authority()
    run(enabled=True, authority=foreign.pem, **foreign.client())
    run(enabled=True, authority=authority.pem, **authority.client())
    assert run(check=True, enabled=False, authority=authority.pem)["changed"]
    assert pulls(cloudflare)["enabled"]
    assert run(enabled=False, authority=authority.pem)["changed"]
    assert not pulls(cloudflare)["enabled"]
    (left,) = pulls(cloudflare)["certificates"]
    assert left["issuer"] == foreign.name
    assert not run(enabled=False, authority=authority.pem)["changed"]
