"""The Origin CA's and the client certificates' modules, and the upgrades', over the emulated Cloudflare."""

import datetime as dt
import json
import os
import socket
import sys
import threading
from types import SimpleNamespace

import pytest
import uvicorn
from ansible.module_utils.testing import patch_module_args
from ansible_collections.screen_flow.live.plugins.modules import cloudflare_origin_ca_certificate as origin_ca
from ansible_collections.screen_flow.live.plugins.modules import cloudflare_origin_pulls as origin_pulls
from ansible_collections.screen_flow.live.plugins.modules import cloudflare_upgrades as upgrades
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.routing import Mount

from emulator.api import PREFIX, Api
from emulator.faults import Fault
from emulator.zone import Fresh, Zone
from tests.kit import cloudflare_description as description

TOKEN = "the-token-that-must-never-be-seen-anywhere-0123456789"
NAME = "www.example.com"
AT_ONCE = {"retry-after-ms": "1"}


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cloudflare")
    zone = Zone(folder / "zone.json", Fresh("example.com"))
    api = Api(zone, TOKEN)
    app = Starlette(routes=[Mount(PREFIX, app=api)])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, http="h11", lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield SimpleNamespace(zone=zone, api=api, url=f"http://127.0.0.1:{listener.getsockname()[1]}{PREFIX}")
        server.should_exit = True
        thread.join()


@pytest.fixture
def cloudflare(emulated, monkeypatch):
    for name in [name for name in os.environ if name.startswith("CLOUDFLARE_")]:
        monkeypatch.delenv(name)
    emulated.zone.reset()
    emulated.api.reset()
    yield emulated
    if description.PATH.exists():
        assert description.problems(emulated.api.journal) == []


@pytest.fixture
def run(cloudflare, capsys):
    """Run a module over the zone; return what it says. Neither token nor any private key is ever said."""

    def call(module, check=False, **arguments):
        defaults = {"zone": "example.com", "api_token": TOKEN, "api_base_url": cloudflare.url}
        arguments = {name: value for name, value in (defaults | arguments).items() if value is not None}
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        said = capsys.readouterr().out
        assert TOKEN not in said
        assert "PRIVATE KEY" not in said
        return json.loads(said)

    return call


def request(names=(NAME,), key=None):
    """Return a signing request in PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def writes(cloudflare, path="/certificates"):
    return [
        (entry["method"], entry["path"].removeprefix(PREFIX))
        for entry in cloudflare.api.journal
        if entry["method"] != "GET" and path in entry["path"]
    ]


def warnings(said):
    return " ".join(warning["event"]["msg"] for warning in said.get("warnings", []))


def good(cloudflare):
    """The certificates that the Origin CA signed and nobody revoked."""
    return [found for found in cloudflare.zone.origin_ca.all if "revoked_at" not in found]


# The Origin CA.


def test_has_a_certificate_signed_for_the_requests_key(run, cloudflare):
    csr = request()
    said = run(origin_ca, csr=csr, hostnames=[NAME], days=90)
    certificate = x509.load_pem_x509_certificate(said["certificate"].encode())
    assert certificate.public_key() == x509.load_pem_x509_csr(csr.encode()).public_key()
    left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=89) < left <= dt.timedelta(days=90)
    assert said["changed"]
    assert said["certificate_id"] == good(cloudflare)[0]["id"]
    assert NAME in said["diff"]["after"]


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "origin-ecc"),
        (rsa.generate_private_key(65537, 2048), "origin-rsa"),
    ],
)
def test_the_key_decides_the_kind(run, cloudflare, key, kind):
    run(origin_ca, csr=request(key=key), hostnames=[NAME])
    assert cloudflare.api.journal[-1]["body"]["request_type"] == kind


def test_a_second_run_signs_nothing_and_returns_the_same(run, cloudflare):
    csr = request()
    first = run(origin_ca, csr=csr, hostnames=[NAME])
    cloudflare.api.journal.clear()
    second = run(origin_ca, csr=csr, hostnames=[NAME])
    assert (second["changed"], second["certificate"]) == (False, first["certificate"])
    assert writes(cloudflare) == []


def test_a_dry_run_signs_nothing(run, cloudflare):
    said = run(origin_ca, check=True, csr=request(), hostnames=[NAME])
    assert said["changed"]
    assert "certificate" not in said
    assert good(cloudflare) == []


@pytest.mark.parametrize(
    ("renew_days", "signs"), [(89, False), (91, True)], ids=["good for a day more", "ends a day too soon"]
)
def test_one_that_ends_soon_gets_a_successor(run, cloudflare, renew_days, signs):
    csr = request()
    run(origin_ca, csr=csr, hostnames=[NAME], days=90)
    said = run(origin_ca, csr=csr, hostnames=[NAME], days=365, renew_days=renew_days)
    assert said["changed"] is signs
    assert len(good(cloudflare)) == 1 + signs


def test_one_for_other_names_or_another_key_does_not_serve(run, cloudflare):
    key = ec.generate_private_key(ec.SECP256R1())
    run(origin_ca, csr=request(key=key), hostnames=["other.example.com"])
    assert run(origin_ca, csr=request(key=key), hostnames=[NAME])["changed"]
    assert run(origin_ca, csr=request(), hostnames=[NAME])["changed"]
    assert len(good(cloudflare)) == 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path="/certificates", method="POST", applied=True, cut=True),
        Fault(
            path="/certificates", method="POST", applied=True, status=502, body="bad gateway", headers=AT_ONCE
        ),
        Fault(path="/certificates", method="POST", applied=True, status=200, body="<html>sign in</html>"),
    ],
    ids=["connection cut", "502", "html"],
)
def test_a_lost_answer_does_not_sign_twice(run, cloudflare, fault):
    cloudflare.api.faults.append(fault)
    said = run(origin_ca, csr=request(), hostnames=[NAME])
    assert said["changed"]
    assert said["certificate"] == good(cloudflare)[0]["certificate"]
    assert len(good(cloudflare)) == 1
    assert writes(cloudflare) == [("POST", "/certificates")]
    assert "lost" in warnings(said)


def test_a_run_that_died_after_signing_is_finished_by_the_next(run, cloudflare):
    csr = request()
    # Neither the answer nor the look afterwards gets through.
    cloudflare.api.faults += [
        Fault(path="/certificates", method="POST", applied=True, cut=True),
        Fault(path="/certificates", method="GET", skip=1, times=3, status=503, body="down", headers=AT_ONCE),
    ]
    said = run(origin_ca, csr=csr, hostnames=[NAME])
    assert said["failed"]
    assert "the next run looks before it asks" in said["msg"]
    said = run(origin_ca, csr=csr, hostnames=[NAME])
    assert (said["changed"], len(good(cloudflare))) == (False, 1)


def test_a_request_that_never_arrived_says_that_nothing_was_signed(run, cloudflare):
    cloudflare.api.faults.append(Fault(path="/certificates", method="POST", status=503, body="x", times=9))
    said = run(origin_ca, csr=request(), hostnames=[NAME])
    assert said["failed"]
    assert "No certificate was signed" in said["msg"]
    assert writes(cloudflare) == [("POST", "/certificates")]


def test_revokes_the_certificate_that_is_given_and_no_other(run, cloudflare):
    old = run(origin_ca, csr=request(), hostnames=[NAME])
    new = run(origin_ca, csr=request(), hostnames=[NAME])
    said = run(origin_ca, check=True, state="absent", certificate=old["certificate"])
    assert (said["changed"], len(good(cloudflare))) == (True, 2)
    assert run(origin_ca, state="absent", certificate=old["certificate"])["changed"]
    assert [found["id"] for found in good(cloudflare)] == [new["certificate_id"]]
    assert not run(origin_ca, state="absent", certificate=old["certificate"])["changed"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"csr": "-----BEGIN PRIVATE KEY-----\nsecret", "hostnames": [NAME]}, "csr holds a private key"),
        ({"csr": "nonsense", "hostnames": [NAME]}, "csr is no signing request"),
        ({"csr": request(), "hostnames": []}, "hostnames is empty"),
        ({"csr": request(), "hostnames": [NAME], "days": 7}, "renew_days is 30"),
        ({"csr": request(), "hostnames": ["www.example.org"]}, "www.example.org"),
        ({"state": "absent", "certificate": "nonsense"}, "certificate is no certificate"),
    ],
)
def test_what_is_wrong_is_said(run, cloudflare, arguments, says):
    said = run(origin_ca, **arguments)
    assert said["failed"]
    assert says in said["msg"]
    assert good(cloudflare) == []


def test_a_missing_permission_is_named(run, cloudflare):
    cloudflare.api.token.put({"permissions": ["Zone Read"]})
    said = run(origin_ca, csr=request(), hostnames=[NAME])
    assert "SSL and Certificates Write" in said["msg"]


# Authenticated Origin Pulls.


class Authority:
    """An authority and the client certificates that it signs."""

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


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(origin_pulls, "POLL_SECONDS", 0.2)


def pulls(cloudflare):
    return cloudflare.zone.origin_pulls.describe()


def test_without_a_pair_it_only_says_that_one_is_wanting(run, cloudflare, authority):
    said = run(origin_pulls, enabled=True, authority=authority.pem)
    assert (said["wanting"], said["changed"], said["enabled"]) == (True, False, False)
    assert run(origin_pulls, check=True, enabled=True, authority=authority.pem)["changed"]
    assert writes(cloudflare, "") == []


def test_uploads_waits_for_the_edge_and_only_then_switches(run, cloudflare, authority):
    said = run(origin_pulls, enabled=True, authority=authority.pem, **authority.client())
    assert (said["wanting"], said["changed"], said["enabled"]) == (False, True, True)
    assert [method for method, _ in writes(cloudflare, "origin_tls")] == ["POST", "PUT"]
    between = [entry["method"] for entry in cloudflare.api.journal]
    # Looked at until it was deployed: more than the one look that finds it pending.
    assert between[between.index("POST") : between.index("PUT")].count("GET") > 1
    assert pulls(cloudflare)["certificates"][0]["status"] == "active"


def test_a_second_run_asks_twice_and_writes_nothing(run, cloudflare, authority):
    run(origin_pulls, enabled=True, authority=authority.pem, **authority.client())
    cloudflare.api.journal.clear()
    said = run(origin_pulls, zone=None, zone_id=cloudflare.zone.id, enabled=True, authority=authority.pem)
    assert not said["changed"]
    assert [entry["method"] for entry in cloudflare.api.journal] == ["GET", "GET"]


def test_a_successor_comes_before_the_old_one_goes(run, cloudflare, authority):
    run(origin_pulls, enabled=True, authority=authority.pem, **authority.client(days=60))
    assert run(origin_pulls, enabled=True, authority=authority.pem, renew_days=61)["wanting"]
    cloudflare.api.journal.clear()
    run(origin_pulls, enabled=True, authority=authority.pem, renew_days=61, **authority.client())
    assert [method for method, _ in writes(cloudflare, "origin_tls")] == ["POST", "DELETE"]
    (left,) = pulls(cloudflare)["certificates"]
    assert dt.datetime.fromisoformat(left["expires_on"]) > dt.datetime.now(dt.UTC) + dt.timedelta(days=300)
    assert pulls(cloudflare)["enabled"]


def test_a_lost_answer_does_not_upload_twice(run, cloudflare, authority):
    cloudflare.api.faults.append(
        Fault(path="/origin_tls_client_auth$", method="POST", applied=True, cut=True)
    )
    said = run(origin_pulls, enabled=True, authority=authority.pem, **authority.client())
    assert "lost" in warnings(said)
    assert len(pulls(cloudflare)["certificates"]) == 1


def test_without_a_deployed_certificate_the_switch_stays(run, cloudflare, authority):
    said = run(origin_pulls, enabled=True, authority=authority.pem, deploy_seconds=0, **authority.client())
    assert said["failed"]
    assert "pending_deployment" in said["msg"]
    assert not pulls(cloudflare)["enabled"]
    # The next run waits on, with what is there.
    assert run(origin_pulls, enabled=True, authority=authority.pem)["enabled"]
    assert len(pulls(cloudflare)["certificates"]) == 1


def test_off_removes_ours_and_leaves_others(run, cloudflare, authority):
    foreign = Authority("somebody else's")
    run(origin_pulls, enabled=True, authority=foreign.pem, **foreign.client())
    run(origin_pulls, enabled=True, authority=authority.pem, **authority.client())
    assert run(origin_pulls, check=True, enabled=False, authority=authority.pem)["changed"]
    assert pulls(cloudflare)["enabled"]
    assert run(origin_pulls, enabled=False, authority=authority.pem)["changed"]
    assert not pulls(cloudflare)["enabled"]
    (left,) = pulls(cloudflare)["certificates"]
    assert left["issuer"] == "somebody else's"
    assert not run(origin_pulls, enabled=False, authority=authority.pem)["changed"]


# The upgrades.


def test_counts_upgrades_by_hour_and_draws_them(run, cloudflare, tmp_path):
    begins = upgrades.last_hours(dt.datetime.now(dt.UTC))

    def seen(begin, status=101, count=1, host=NAME):
        time = (begin + dt.timedelta(minutes=5)).isoformat()
        return {"time": time, "status": status, "count": count, "host": host, "path": "/ws"}

    cloudflare.api.traffic.put(
        [
            seen(begins[0], count=3),
            seen(begins[23], count=40),
            seen(begins[23], count=2),
            # None of these counts: another status, another host, the hour that is not over.
            seen(begins[5], status=403),
            seen(begins[5], host="other.example.com"),
            seen(begins[23] + dt.timedelta(hours=1)),
        ]
    )
    chart = tmp_path / "upgrades.png"
    said = run(upgrades, host=NAME, chart_file=str(chart))
    assert [hour["upgrades"] for hour in said["hours"]] == [3, *[0] * 22, 42]
    assert said["total"] == 45
    assert len(said["table"]) == 24
    assert said["table"][-1].endswith("42 " + "#" * 50)
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert said["changed"]
    assert not run(upgrades, host=NAME, chart_file=str(chart))["changed"]


def test_without_matplotlib_a_chart_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = run(upgrades, chart_file=str(tmp_path / "upgrades.png"))
    assert said["failed"]
    assert f"{sys.executable} -m pip install matplotlib" in said["msg"]
    assert not run(upgrades).get("failed")


def test_a_token_without_analytics_is_told_what_it_lacks(run, cloudflare):
    cloudflare.api.token.put({"permissions": ["Zone Read"]})
    said = run(upgrades)
    assert said["failed"]
    assert "Analytics Read" in said["msg"]


@pytest.mark.parametrize("body", ["<html>sign in</html>", {"data": {}}, {"data": None}, []])
def test_an_answer_of_another_kind_is_said(run, cloudflare, body):
    cloudflare.api.faults.append(Fault(path="/graphql", status=200, body=body))
    said = run(upgrades)
    assert said["failed"]
    assert "not as Cloudflare's API does" in said["msg"]
