"""The origin's certificate: signed once, renewed, revoked and switched without a failed request."""

from collections import Counter

import httpx
from cryptography import x509

from tests.kit.certificates import origin_ca_order, private_pem, rsa_key, self_signed
from tests.kit.playbook import changed, run_playbook, words
from tests.kit.testbed import ALIAS, NAME

CERTIFICATE = "/etc/ssl/certs/screen-flow-origin.pem"
KEY = "/etc/ssl/private/screen-flow-origin.key"


def signed(control):
    """Return the Origin CA's certificates that are not revoked, the oldest first."""
    found = [each for each in control.state()["certificates"] if "revoked_at" not in each]
    return [x509.load_pem_x509_certificate(each["certificate"].encode()) for each in found]


def trusted_pair(host, control, token):
    """Return variables with a pair of the user's own, whose authority both edge and server trust.

    In Full (strict) the emulated edge trusts the Origin CA alone; the server gets its certificate here.
    """
    key = rsa_key()
    response = httpx.post(
        f"{control.api}/certificates",
        headers={"Authorization": f"Bearer {token}"},
        json=origin_ca_order(NAME, key, hostnames=[NAME, ALIAS]),
    ).raise_for_status()
    authority = httpx.get(control.api.replace("/client/v4", "/_emulator/origin-ca.pem")).raise_for_status()
    host.run_expect([0], "echo %s > /root/authority.pem", authority.text)
    link = "/etc/ssl/certs/$(openssl x509 -hash -noout -in /root/authority.pem).0"
    host.run_expect([0], f"ln -sf /root/authority.pem {link}")
    return {
        "origin_certificate_provided": response.json()["result"]["certificate"],
        "origin_certificate_provided_key": private_pem(key),
    }


def test_strict_works_through_the_edge_with_a_certificate_of_the_origin_ca(edge, control, presented):
    assert control.ssl_mode() == "strict"
    assert edge.status() == 200
    assert [presented()] == signed(control)


def test_an_unchanged_run_writes_nothing_and_requests_each_resource_once(control, converge):
    control("DELETE", "journal")
    run = converge()
    assert changed(run.stdout) == 0, run.stdout
    assert control.writes() == []
    paths = Counter(entry["path"].rsplit("/", 1)[1] for entry in control.journal())
    # The server has a valid certificate, so none is requested.
    assert "certificates" not in paths
    # Two modules look up the zone's id; there are three rule phases, and the switch of origin pulls.
    # The records of the site's two names.
    assert paths.pop("dns_records") == 2
    # The other nine: eight settings and the edge's certificates; Argo is left alone by default.
    assert (paths.pop("zones"), paths.pop("entrypoint"), paths.pop("settings")) == (2, 3, 1)
    assert (set(paths.values()), len(paths)) == ({1}, 9)


def test_renews_before_expiry_and_presents_the_new_certificate(edge, control, converge, presented):
    (old,) = signed(control)
    with edge.no_failed_request():
        converge(origin_certificate_renew_days=365, origin_certificate_origin_ca_days=730)
    # The key is the same: the old certificate stays valid until it ends.
    assert signed(control) == [old, presented()]
    assert presented() != old


def test_a_lost_response_does_not_sign_twice(host, control, converge, presented):
    before = signed(control)
    host.run_expect([0], f"rm {CERTIFICATE} {KEY}")
    control("PUT", "faults", [{"path": "/certificates$", "method": "POST", "applied": True, "cut": True}])
    control("DELETE", "journal")
    run = converge()
    assert "response with the certificate was lost" in words(run.stdout + run.stderr)
    assert control.writes().count(("POST", "/certificates")) == 1
    assert signed(control) == [*before, presented()]


def names(certificate):
    """Return the host names in a certificate."""
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return extension.value.get_values_for_type(x509.DNSName)


def test_an_added_alias_replaces_the_certificate(edge, control, converge, presented):
    before = signed(control)
    added = f"app.{NAME}"
    with edge.no_failed_request():
        converge(site_aliases=[ALIAS, added])
    assert signed(control) == [*before, presented()]
    assert sorted(names(presented())) == [added, NAME, ALIAS]


def test_replaces_key_and_certificate_and_revokes_the_old_one(edge, host, control, presented):
    old_key = host.check_output(f"sha256sum {KEY}")
    old = presented()
    with edge.no_failed_request():
        run = run_playbook("playbooks/replace_origin_certificate.yml", "--extra-vars", "confirm=yes")
    assert run.returncode == 0, run.stdout + run.stderr
    assert host.check_output(f"sha256sum {KEY}") != old_key
    assert presented() == signed(control)[-1]
    revoked = [each["certificate"] for each in control.state()["certificates"] if "revoked_at" in each]
    assert old in [x509.load_pem_x509_certificate(certificate.encode()) for certificate in revoked]
    assert not host.file(f"{KEY}.new").exists
    assert edge.status() == 200


def test_strict_is_not_set_unless_the_origin_presents_its_certificate(host, control):
    control("PATCH", "settings", {"ssl": "full"})
    host.run_expect([0], "systemctl stop nginx")
    try:
        assert run_playbook("playbooks/edge.yml").returncode != 0
        assert control.ssl_mode() == "full"
    finally:
        host.run_expect([0], "systemctl start nginx")
    # nginx runs and presents another certificate than the file's.
    host.run_expect([0], f"cp {CERTIFICATE} /root/kept")
    host.run_expect([0], f"echo %s > {CERTIFICATE}", self_signed(NAME).certificate)
    try:
        run = run_playbook("playbooks/edge.yml")
        assert run.returncode != 0
        assert "The origin does not present the certificate" in run.stdout
        assert control.ssl_mode() == "full"
    finally:
        host.run_expect([0], f"mv /root/kept {CERTIFICATE}")
    assert run_playbook("playbooks/edge.yml").returncode == 0
    assert control.ssl_mode() == "strict"


def test_switches_from_each_source_to_another(edge, host, control, converge, presented, state):
    token = (state / "token").read_text().strip()
    with edge.no_failed_request():
        converge(site_origin_certificate="self_signed")
        certificate = presented()
        # The mode is lowered first: Full (strict) would refuse this certificate.
        assert (certificate.issuer, control.ssl_mode()) == (certificate.subject, "full")
        pair = trusted_pair(host, control, token)
        key = pair["origin_certificate_provided_key"]
        provided = {"site_origin_certificate": "provided", **pair}
        run = converge("--diff", **provided)
        assert control.ssl_mode() == "strict"
        assert presented() == x509.load_pem_x509_certificate(pair["origin_certificate_provided"].encode())
        assert host.check_output(f"cat {KEY}") == key.strip()
        assert host.file(KEY).mode == 0o600
        assert key.splitlines()[1] not in run.stdout + run.stderr
        # An authority that the server does not trust is not one that Full (strict) trusts.
        host.run_expect([0], "rm /etc/ssl/certs/*.0")
        refused = run_playbook("playbooks/edge.yml", **provided)
        assert refused.returncode != 0
        assert "certificate" in refused.stdout.split("presented | Check the chain")[1]
        converge()
    assert control.ssl_mode() == "strict"
    assert presented() in signed(control)


def test_a_provided_certificate_for_another_name_is_reported_and_changes_nothing(presented):
    before = presented()
    key, certificate = self_signed("other.example.com")
    run = run_playbook(
        "molecule/origin_certificate/converge.yml",
        site_origin_certificate="provided",
        origin_certificate_provided=certificate,
        origin_certificate_provided_key=key,
    )
    assert run.returncode != 0
    assert f"is for DNS:other.example.com; use one that covers {NAME} and {ALIAS}" in words(run.stdout)
    assert "PRIVATE KEY" not in run.stdout
    assert key.splitlines()[1] not in run.stdout
    assert presented() == before
