"""cloudflare_origin_pulls: uploaded once, enabled when deployed, renewed, removed."""

import datetime as dt

import pytest
from ansible_collections.screen_flow.live.plugins.modules import cloudflare_origin_pulls as origin_pulls
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from emulator.faults import Fault
from tests.kit.ansible_module import warnings


class Authority:
    """An authority that signs client certificates."""

    def __init__(self, name="edge authority"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = self.sign(self.name, self.key.public_key(), 3650, is_authority=True)

    def sign(self, subject, key, days, is_authority=False):
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder(self.name, subject, key, x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
            .decode()
        )

    def client(self, days=365):
        """Return certificate and key as the module takes them."""
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge")])
        return {
            "certificate": self.sign(subject, key.public_key(), days),
            "private_key": key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
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
    foreign = Authority("another authority")
    run(enabled=True, authority=foreign.pem, **foreign.client())
    run(enabled=True, authority=authority.pem, **authority.client())
    assert run(check=True, enabled=False, authority=authority.pem)["changed"]
    assert pulls(cloudflare)["enabled"]
    assert run(enabled=False, authority=authority.pem)["changed"]
    assert not pulls(cloudflare)["enabled"]
    (left,) = pulls(cloudflare)["certificates"]
    assert left["issuer"] == "another authority"
    assert not run(enabled=False, authority=authority.pem)["changed"]
