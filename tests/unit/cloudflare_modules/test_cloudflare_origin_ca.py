"""cloudflare_origin_ca_certificate: signed exactly once, found again, revoked."""

import datetime as dt

import pytest
from ansible_collections.screen_flow.live.plugins.modules import cloudflare_origin_ca_certificate as origin_ca
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from emulator.faults import Fault
from tests.kit.ansible_module import warnings
from tests.kit.cloudflare import RETRY_AT_ONCE

NAME = "www.example.com"


@pytest.fixture
def run(run_any):
    """Run cloudflare_origin_ca_certificate."""

    def call(check=False, **arguments):
        return run_any(origin_ca, check, **arguments)

    return call


def request(names=(NAME,), key=None):
    """Return a signing request in PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def valid(cloudflare):
    """Return the certificates that are signed and not revoked."""
    return [found for found in cloudflare.zone.origin_ca.all if "revoked_at" not in found]


def test_a_certificate_is_signed_for_the_requests_key(run, cloudflare):
    csr = request()
    result = run(csr=csr, hostnames=[NAME], days=90)
    certificate = x509.load_pem_x509_certificate(result["certificate"].encode())
    assert certificate.public_key() == x509.load_pem_x509_csr(csr.encode()).public_key()
    left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=89) < left <= dt.timedelta(days=90)
    assert result["changed"]
    assert result["certificate_id"] == valid(cloudflare)[0]["id"]
    assert NAME in result["diff"]["after"]


@pytest.mark.parametrize(
    ("key", "request_type"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "origin-ecc"),
        (rsa.generate_private_key(65537, 2048), "origin-rsa"),
    ],
)
def test_the_key_decides_the_request_type(run, cloudflare, key, request_type):
    run(csr=request(key=key), hostnames=[NAME])
    assert cloudflare.api.journal[-1]["body"]["request_type"] == request_type


def test_a_second_run_signs_nothing_and_returns_the_same_certificate(run, cloudflare):
    csr = request()
    first = run(csr=csr, hostnames=[NAME])
    cloudflare.api.journal.clear()
    second = run(csr=csr, hostnames=[NAME])
    assert (second["changed"], second["certificate"]) == (False, first["certificate"])
    assert cloudflare.writes("/certificates") == []


def test_check_mode_signs_nothing(run, cloudflare):
    result = run(check=True, csr=request(), hostnames=[NAME])
    assert result["changed"]
    assert "certificate" not in result
    assert valid(cloudflare) == []


@pytest.mark.parametrize(
    ("renew_days", "signs"), [(89, False), (91, True)], ids=["valid for a day longer", "ends a day too soon"]
)
def test_a_certificate_that_ends_soon_is_renewed(run, cloudflare, renew_days, signs):
    csr = request()
    run(csr=csr, hostnames=[NAME], days=90)
    result = run(csr=csr, hostnames=[NAME], days=365, renew_days=renew_days)
    assert result["changed"] is signs
    assert len(valid(cloudflare)) == 1 + signs


def test_a_certificate_for_other_names_or_another_key_does_not_fit(run, cloudflare):
    key = ec.generate_private_key(ec.SECP256R1())
    run(csr=request(key=key), hostnames=["other.example.com"])
    assert run(csr=request(key=key), hostnames=[NAME])["changed"]
    assert run(csr=request(), hostnames=[NAME])["changed"]
    assert len(valid(cloudflare)) == 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path="/certificates", method="POST", applied=True, cut=True),
        Fault(
            path="/certificates",
            method="POST",
            applied=True,
            status=502,
            body="bad gateway",
            headers=RETRY_AT_ONCE,
        ),
        Fault(path="/certificates", method="POST", applied=True, status=200, body="<html>sign in</html>"),
    ],
    ids=["connection cut", "502", "html"],
)
def test_a_lost_response_does_not_sign_twice(run, cloudflare, fault):
    cloudflare.api.faults.append(fault)
    result = run(csr=request(), hostnames=[NAME])
    assert result["changed"]
    assert result["certificate"] == valid(cloudflare)[0]["certificate"]
    assert len(valid(cloudflare)) == 1
    assert cloudflare.writes("/certificates") == [("POST", "/certificates")]
    assert "lost" in warnings(result)


def test_a_run_that_ended_after_signing_is_completed_by_the_next(run, cloudflare):
    csr = request()
    # Neither the response nor the search afterwards arrives.
    cloudflare.api.faults += [
        Fault(path="/certificates", method="POST", applied=True, cut=True),
        Fault(
            path="/certificates",
            method="GET",
            skip=1,
            times=3,
            status=503,
            body="down",
            headers=RETRY_AT_ONCE,
        ),
    ]
    result = run(csr=csr, hostnames=[NAME])
    assert result["failed"]
    assert "the next run searches for it first" in result["msg"]
    result = run(csr=csr, hostnames=[NAME])
    assert (result["changed"], len(valid(cloudflare))) == (False, 1)


def test_a_request_that_never_arrived_reports_that_nothing_was_signed(run, cloudflare):
    cloudflare.api.faults.append(Fault(path="/certificates", method="POST", status=503, body="x", times=9))
    result = run(csr=request(), hostnames=[NAME])
    assert result["failed"]
    assert "No certificate was signed" in result["msg"]
    assert cloudflare.writes("/certificates") == [("POST", "/certificates")]


def test_only_the_given_certificate_is_revoked(run, cloudflare):
    old = run(csr=request(), hostnames=[NAME])
    new = run(csr=request(), hostnames=[NAME])
    result = run(check=True, state="absent", certificate=old["certificate"])
    assert (result["changed"], len(valid(cloudflare))) == (True, 2)
    assert run(state="absent", certificate=old["certificate"])["changed"]
    assert [found["id"] for found in valid(cloudflare)] == [new["certificate_id"]]
    assert not run(state="absent", certificate=old["certificate"])["changed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"csr": "-----BEGIN PRIVATE KEY-----\nsecret", "hostnames": [NAME]}, "csr holds a private key"),
        ({"csr": "nonsense", "hostnames": [NAME]}, "csr is not a signing request"),
        ({"csr": request(), "hostnames": []}, "hostnames is empty"),
        ({"csr": request(), "hostnames": [NAME], "days": 7}, "renew_days is 30"),
        ({"csr": request(), "hostnames": ["www.example.org"]}, "www.example.org"),
        ({"state": "absent", "certificate": "nonsense"}, "certificate is not a certificate"),
    ],
)
def test_invalid_input_is_named(run, cloudflare, arguments, message):
    result = run(**arguments)
    assert result["failed"]
    assert message in result["msg"]
    assert valid(cloudflare) == []


def test_a_missing_permission_is_named(run, cloudflare):
    cloudflare.api.token.put({"permissions": ["Zone Read"]})
    result = run(csr=request(), hostnames=[NAME])
    assert "SSL and Certificates Write" in result["msg"]
