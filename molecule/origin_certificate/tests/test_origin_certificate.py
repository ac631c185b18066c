"""The origin's certificate and the edge's: signed once, renewed, revoked, switched without a lost request."""

import base64
import contextlib
import json
import os
import re
import ssl
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from tests.kit.site import play

PROJECT = Path(__file__).parents[3]
STATE = Path(os.environ["TESTBED_STATE_DIR"])
CONTROL = f"http://127.0.0.1:{os.environ['TESTBED_PORT_API']}/_emulator"
SITE = f"https://127.0.0.1:{os.environ['TESTBED_PORT_HTTPS']}"
NAME = "screen-flow.localhost"
CERTIFICATE = "/etc/ssl/certs/screen-flow-origin.pem"
KEY = "/etc/ssl/private/screen-flow-origin.key"
AUTHORITY = "/etc/ssl/certs/screen-flow-edge-authority.pem"
AUTHORITY_KEY = "/etc/ssl/private/screen-flow-edge-authority.key"
# Answers where the api would be.
API = """
import http.server
class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Api).serve_forever()
"""


def control(path, method="GET", body=None):
    """Call the emulator's own interface; return its answer."""
    answer = httpx.request(method, f"{CONTROL}/{path}", json=body, timeout=30)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def signed():
    """The certificates that the Origin CA signed and nobody revoked, the oldest first."""
    return [found for found in control("state")["certificates"] if "revoked_at" not in found]


def ssl_mode():
    return control("state")["settings"]["ssl"]["value"]


def writes():
    """What the API was asked to change since the journal was cleared, as (method, end of the path)."""
    return [
        (entry["method"], entry["path"].removeprefix("/client/v4"))
        for entry in control("journal")
        if entry["method"] != "GET"
    ]


def converge(*options, **variables):
    run = play("molecule/origin_certificate/converge.yml", *options, **variables)
    assert run.returncode == 0, run.stdout + run.stderr
    return run


def switch_pulls(*options, on=True, **variables):
    # The stand-in for the api listens on its port alone.
    common = {"site_origin_pulls": on, "site_api_socket": False}
    return play("playbooks/authenticated_origin_pulls.yml", *options, **common, **variables)


def pulls(*options, on=True, **variables):
    run = switch_pulls(*options, on=on, **variables)
    assert run.returncode == 0, run.stdout + run.stderr
    return run


@contextlib.contextmanager
def visitors(client):
    """Ask for the page through the edge all the while; give the statuses, 0 where no answer came."""
    statuses, ended = Counter(), threading.Event()

    def visit():
        while not ended.wait(0.04):
            try:
                statuses[client.get("/").status_code] += 1
            except httpx.HTTPError:
                statuses[0] += 1

    threads = [threading.Thread(target=visit) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def only_ok(statuses):
    return set(statuses) == {200} and statuses[200] > 30


@pytest.fixture(scope="module", autouse=True)
def api(host):
    host.run_expect([0], "systemd-run --unit=api python3 -c %s", API)
    host.run_expect([0], "timeout 10 sh -c 'until ss -ltn | grep -q 127.0.0.1:8000; do sleep 0.1; done'")
    yield
    host.run_expect([0], "systemctl stop api")


@pytest.fixture
def client():
    tls = ssl.create_default_context(cafile=STATE / "edge-ca.pem")
    with httpx.Client(base_url=SITE, verify=tls, headers={"Host": NAME}, timeout=10) as client:
        # The connection goes to this machine; the name is the site's.
        client.get = lambda path: httpx.Client.request(client, "GET", path, extensions={"sni_hostname": NAME})
        yield client


@pytest.fixture
def origin_address():
    lines = (STATE / "env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)["ORIGIN_ADDRESS"]


def presented(host):
    """The certificate that nginx shows."""
    shown = host.run_expect(
        [0], f"openssl s_client -connect 127.0.0.1:443 -servername {NAME} </dev/null 2>/dev/null"
    ).stdout
    pem = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", shown, re.DOTALL)
    return x509.load_pem_x509_certificate(pem[0].encode())


def knock(address, port=443, certificate=None):
    """What a visitor who goes past the edge gets: the HTTP status."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if certificate:
        tls.load_cert_chain(certificate)
    url = f"{'https' if port == 443 else 'http'}://{address}/"
    with httpx.Client(verify=tls, headers={"Host": NAME}, timeout=10) as client:
        return client.get(url, extensions={"sni_hostname": NAME}).status_code


def self_made(folder, name):
    """A key and a certificate of nobody's authority, both in PEM."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365", "-subj", f"/CN={name}",
         "-addext", f"subjectAltName=DNS:{name.split()[0]}", "-keyout", "key", "-out", "certificate"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return (folder / "key").read_text(), (folder / "certificate").read_text()


def trusted_pair(host, folder):
    """A pair that the user brings along: key from here, certificate of an authority that all trust.

    The emulated edge trusts one authority in Full (strict), the Origin CA's; the server learns to.
    """
    command = f"openssl req -new -newkey rsa:2048 -nodes -subj /CN={NAME} -keyout provided.key"
    made = subprocess.run(command.split(), cwd=folder, check=True, capture_output=True, text=True)
    answer = httpx.post(
        f"{CONTROL.removesuffix('/_emulator')}/client/v4/certificates",
        headers={"Authorization": "Bearer " + (STATE / "token").read_text().strip()},
        json={
            "csr": made.stdout,
            "hostnames": [NAME],
            "request_type": "origin-rsa",
            "requested_validity": 90,
        },
    )
    answer.raise_for_status()
    authority = httpx.get(f"{CONTROL}/origin-ca.pem").text
    host.run_expect([0], "echo %s > /root/authority.pem", authority)
    host.run_expect(
        [0],
        "ln -sf /root/authority.pem /etc/ssl/certs/$(openssl x509 -hash -noout -in /root/authority.pem).0",
    )
    return {
        "origin_certificate_provided": answer.json()["result"]["certificate"],
        "origin_certificate_provided_key": (folder / "provided.key").read_text(),
    }


# The certificate.


def test_strict_works_through_the_edge_with_a_certificate_of_the_origin_ca(client, host):
    assert ssl_mode() == "strict"
    assert client.get("/").status_code == 200
    (certificate,) = signed()
    assert presented(host) == x509.load_pem_x509_certificate(certificate["certificate"].encode())


def test_a_run_with_nothing_to_do_writes_nothing_and_asks_once_for_each_thing():
    control("journal", "DELETE")
    run = converge()
    assert run.stdout.count("changed=0 ") == 2, run.stdout
    assert writes() == []
    paths = Counter(entry["path"].rsplit("/", 1)[1] for entry in control("journal"))
    # With a good certificate on the server, nobody is asked for one.
    assert "certificates" not in paths
    # Two modules look for the zone's id; there are three phases, and the switch of the edge's certificate.
    # The other eleven: eight settings, the name's records, Argo, the edge's certificates.
    assert (paths.pop("zones"), paths.pop("entrypoint"), paths.pop("settings")) == (2, 3, 1)
    assert (set(paths.values()), len(paths)) == ({1}, 11)


def test_renews_before_the_end_and_shows_the_new_one_without_a_failed_request(client, host):
    (old,) = signed()
    with visitors(client) as statuses:
        converge(origin_certificate_renew_days=365, origin_certificate_origin_ca_days=730)
    assert only_ok(statuses), statuses
    new = signed()[-1]
    assert new["id"] != old["id"]
    assert presented(host) == x509.load_pem_x509_certificate(new["certificate"].encode())
    # The same key: the old one is still good until it ends.
    assert len(signed()) == 2


def test_a_lost_answer_does_not_sign_twice(host):
    before = len(signed())
    host.run_expect([0], f"rm {CERTIFICATE} {KEY}")
    control("faults", "PUT", [{"path": "/certificates$", "method": "POST", "applied": True, "cut": True}])
    control("journal", "DELETE")
    run = converge()
    assert "answer with the certificate was lost" in re.sub(r"\s+", " ", run.stdout + run.stderr)
    assert writes().count(("POST", "/certificates")) == 1
    assert len(signed()) == before + 1
    assert presented(host) == x509.load_pem_x509_certificate(signed()[-1]["certificate"].encode())


def test_replaces_key_and_certificate_and_revokes_the_old_without_a_failed_request(client, host):
    old_key = host.check_output(f"sha256sum {KEY}")
    old = presented(host)
    with visitors(client) as statuses:
        run = play("playbooks/replace_origin_certificate.yml", "--extra-vars", "confirm=yes")
    assert run.returncode == 0, run.stdout + run.stderr
    assert only_ok(statuses), statuses
    assert host.check_output(f"sha256sum {KEY}") != old_key
    assert presented(host) != old
    revoked = [found for found in control("state")["certificates"] if "revoked_at" in found]
    assert old in [x509.load_pem_x509_certificate(found["certificate"].encode()) for found in revoked]
    assert presented(host) == x509.load_pem_x509_certificate(signed()[-1]["certificate"].encode())
    assert not host.file(f"{KEY}.new").exists
    assert client.get("/").status_code == 200


def test_strict_is_not_set_over_an_origin_that_does_not_show_its_certificate(host):
    control("settings", "PATCH", {"ssl": "full"})
    host.run_expect([0], "systemctl stop nginx")
    try:
        run = play("playbooks/edge.yml")
        assert run.returncode != 0
        assert ssl_mode() == "full"
    finally:
        host.run_expect([0], "systemctl start nginx")
    # nginx runs, and shows something else than the file.
    host.run_expect([0], f"cp {CERTIFICATE} /root/kept && echo >> {CERTIFICATE}")
    host.run_expect(
        [0],
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={NAME} "
        f"-keyout /dev/null -out {CERTIFICATE} 2>/dev/null",
    )
    try:
        run = play("playbooks/edge.yml")
        assert run.returncode != 0
        assert "The origin does not present the certificate" in run.stdout
        assert ssl_mode() == "full"
    finally:
        host.run_expect([0], f"mv /root/kept {CERTIFICATE}")
    assert play("playbooks/edge.yml").returncode == 0
    assert ssl_mode() == "strict"


def test_each_source_follows_another_without_a_failed_request(client, host, tmp_path):
    with visitors(client) as statuses:
        converge(site_origin_certificate="self_signed")
        shown = presented(host)
        # Lowered first: Full (strict) would refuse it.
        assert (shown.issuer, ssl_mode()) == (shown.subject, "full")
        provided = {"site_origin_certificate": "provided", **trusted_pair(host, tmp_path)}
        run = converge("--diff", **provided)
        assert ssl_mode() == "strict"
        assert presented(host) == x509.load_pem_x509_certificate(
            provided["origin_certificate_provided"].encode()
        )
        assert host.check_output(f"cat {KEY}") == provided["origin_certificate_provided_key"].strip()
        assert host.file(KEY).mode == 0o600
        assert provided["origin_certificate_provided_key"].splitlines()[1] not in run.stdout + run.stderr
        # An authority that the server does not know is none that Full (strict) knows.
        host.run_expect([0], "rm /etc/ssl/certs/*.0")
        refused = play("playbooks/edge.yml", **provided)
        assert refused.returncode != 0
        assert "certificate" in refused.stdout.split("presented | Check the chain")[1]
        converge()
    assert only_ok(statuses), statuses
    assert ssl_mode() == "strict"
    assert presented(host) in [
        x509.load_pem_x509_certificate(found["certificate"].encode()) for found in signed()
    ]


def test_a_provided_certificate_for_another_name_changes_nothing(host, tmp_path):
    before = presented(host)
    key, certificate = self_made(tmp_path, "other.example.com")
    run = play(
        "molecule/origin_certificate/converge.yml",
        site_origin_certificate="provided",
        origin_certificate_provided=certificate,
        origin_certificate_provided_key=key,
    )
    assert run.returncode != 0
    said = re.sub(r"\s+", " ", run.stdout)
    assert f"is for DNS:other.example.com; use one that covers {NAME}" in said, said
    assert key.splitlines()[1] not in run.stdout
    assert presented(host) == before


# The edge's own certificate.


def test_who_is_not_the_edge_is_refused(client, host, origin_address):
    assert client.get("/").status_code == 200
    assert knock(origin_address) == 403
    assert knock(origin_address, port=80) in (308, 403)


def test_somebody_elses_client_certificate_is_refused(origin_address, tmp_path):
    pair = tmp_path / "other.pem"
    pair.write_text("".join(self_made(tmp_path, f"{NAME} edge")))
    assert knock(origin_address, certificate=pair) == 400


def test_off_and_on_again_also_over_an_edge_that_shows_nothing_without_a_failed_request(
    client, host, origin_address
):
    with visitors(client) as statuses:
        pulls(on=False)
        assert knock(origin_address) == 200
        assert control("state")["origin_pulls"] == {"enabled": False, "certificates": []}
        assert not host.file(AUTHORITY_KEY).exists
        # In this mode the edge speaks no TLS, so it can't show anything.
        control("settings", "PATCH", {"ssl": "flexible"})
        # The second run finds that nginx asks, which is not to say that it may insist.
        for _ in range(2):
            run = switch_pulls(authenticated_origin_pulls_deploy_seconds=5)
            assert run.returncode != 0
            assert "The edge does not present its certificate" in run.stdout
            assert knock(origin_address) == 200
        control("settings", "PATCH", {"ssl": "strict"})
        pulls(on=True)
        assert knock(origin_address) == 403
        # As long again as the edge may take to forget.
        time.sleep(2)
    assert only_ok(statuses), statuses
    assert control("state")["origin_pulls"]["enabled"]


def test_the_edges_certificate_is_renewed_without_a_failed_request(client):
    (old,) = control("state")["origin_pulls"]["certificates"]
    with visitors(client) as statuses:
        pulls(authenticated_origin_pulls_renew_days=365, authenticated_origin_pulls_days=730)
        time.sleep(2)
    assert only_ok(statuses), statuses
    (new,) = control("state")["origin_pulls"]["certificates"]
    assert new["id"] != old["id"]


def test_the_page_for_the_night_opens_nginx_without_ansible(client, host, origin_address):
    page = (PROJECT / "docs/runbook/authenticated_origin_pulls.md").read_text()
    (command,) = re.findall(r"```text\n(sed .*)\n```", page)
    host.run_expect([0], command)
    # The reload is a signal: the workers that refuse go in a moment.
    deadline = time.monotonic() + 5
    while knock(origin_address) != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert knock(origin_address) == 200
    assert client.get("/").status_code == 200
    converge()
    assert knock(origin_address) == 403


# Secrets.


@contextlib.contextmanager
def watched(folder):
    """Read every file that appears below `folder`, however short its life; give what held a private key."""
    found, ended = set(), threading.Event()

    def watch():
        while not ended.wait(0.01):
            # A folder may be gone before it is listed, a file before it is read.
            for parent, _, names in os.walk(folder):
                for file in (Path(parent, name) for name in names):
                    with contextlib.suppress(OSError):
                        if file.is_file() and "PRIVATE KEY" in file.read_text(errors="replace"):
                            found.add(file.name)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def private_lines(host, path):
    """Return the lines of a PEM key that hold more than its public half, which stands in it as well."""
    lines = host.check_output(f"cat {path}").splitlines()[1:-1]
    public = "".join(host.check_output(f"openssl pkey -pubout -in {path}").splitlines()[1:-1])
    private = [line for line in lines if base64.b64decode(line) not in base64.b64decode(public)]
    assert private
    return private


def test_what_got_lost_is_made_anew_without_a_failed_request_and_keys_and_token_appear_nowhere(
    client, host, tmp_path, monkeypatch
):
    host.run_expect([0], f"rm {CERTIFICATE} {KEY} {AUTHORITY} {AUTHORITY_KEY}")
    control("journal", "DELETE")
    for name in ("ANSIBLE_LOCAL_TEMP", "ANSIBLE_REMOTE_TEMP", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    with watched(tmp_path) as written, visitors(client) as statuses:
        run = converge("-vvv", "--diff")
    assert only_ok(statuses), statuses
    assert written == set()
    keys = [private_lines(host, path) for path in (KEY, AUTHORITY_KEY)]
    token = (STATE / "token").read_text().strip()
    journal = control("journal")
    said = run.stdout + run.stderr + json.dumps(journal)
    for secret in (token, "PRIVATE KEY", *keys[0], *keys[1]):
        assert secret not in said
    made = {entry["path"].rsplit("/", 1)[1] for entry in journal if entry["method"] == "POST"}
    assert made == {"certificates", "origin_tls_client_auth"}
