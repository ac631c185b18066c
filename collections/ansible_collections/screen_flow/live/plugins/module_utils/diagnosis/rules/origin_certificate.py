"""Faults of the origin's TLS certificate."""

from __future__ import annotations

from ..engine import Evidence, rule
from .server import CLOCK_SLACK

RENEW = "Run ansible-playbook site.yml --tags origin_certificate,nginx: it creates and loads the pair."


@rule("ssl_error", RENEW)
def certificate_expired(e: Evidence) -> str | None:
    """The certificate has expired or is not valid yet; Full (strict) rejects it, and visitors get a 526."""
    certificate, now = e["server.certificate"], e["server.clock.control"]
    if not certificate or now is None:
        return None
    if certificate["not_after"] < now:
        days = (now - certificate["not_after"]) / 86400
        return f"the certificate {certificate['file']} expired {days:.0f} days ago."
    if certificate["not_before"] > now + CLOCK_SLACK:
        return f"the certificate {certificate['file']} is not valid yet."
    return None


@rule("ssl_error", RENEW)
def certificate_other_name(e: Evidence) -> str | None:
    """The certificate lacks a name of the site; Full (strict) rejects it there, and visitors get a 526."""
    certificate = e["server.certificate"]
    if not certificate or not e.expect("host"):
        return None
    lacking = [host for host in e.names if not any(_covers(name, host) for name in certificate["names"])]
    if not lacking:
        return None
    names = ", ".join(certificate["names"]) or "no name"
    return f"the certificate {certificate['file']} is for {names}, not for {' and '.join(lacking)}."


def _covers(name: str, host: str) -> bool:
    """Return whether a certificate's name covers a host: equal, or one label in place of the asterisk."""
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])


@rule("ssl_error", RENEW)
def key_mismatch(e: Evidence) -> str | None:
    """Certificate and private key are not a pair: nginx refuses to start or to reload with them."""
    certificate = e["server.certificate"]
    if not certificate or certificate["key_matches"]:
        return None
    return f"the private key does not belong to the certificate {certificate['file']}."


@rule("ssl_error", "Load it: nginx -t && systemctl reload nginx.", explained_by=("key_mismatch",))
def certificate_not_loaded(e: Evidence) -> str | None:
    """Nginx serves another certificate than the one on disk: it was not reloaded."""
    certificate = e["server.certificate"]
    if not certificate or not certificate["served"] or certificate["served"] == certificate["fingerprint"]:
        return None
    return f"nginx serves another certificate than {certificate['file']}: it was not reloaded since."
