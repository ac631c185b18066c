#!/usr/bin/python
"""Ansible module: have Cloudflare's Origin CA sign a certificate, exactly once, or revoke one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_origin_ca_certificate
short_description: Obtain or revoke a certificate of Cloudflare's Origin CA
description:
  - Certificates of the Origin CA satisfy Cloudflare's SSL mode Full (strict). Browsers do not trust them.
  - Before it requests a certificate, the module searches the zone's list for one with the same key that
    covers all names and is valid for longer than O(renew_days), and returns that one. A response that was
    lost, in this run or an earlier one, therefore does not lead to a second certificate.
  - The request that signs is sent once and never retried.
  - The private key is not needed and must not be given.
options:
  state:
    description: V(present) returns a certificate for O(csr); V(absent) revokes O(certificate).
    type: str
    choices: [present, absent]
    default: present
  csr:
    description: Signing request in PEM format. Its key, EC or RSA, decides the certificate's type.
    type: str
  hostnames:
    description: Names that the certificate covers; each must be in the zone.
    type: list
    elements: str
  days:
    description: Validity of a new certificate in days.
    type: int
    choices: [7, 30, 90, 365, 730, 1095, 5475]
    default: 5475
  renew_days:
    description: Request a new certificate when fewer than this many days remain.
    type: int
    default: 30
  certificate:
    description: Certificate to revoke, in PEM format.
    type: str
requirements:
  - cryptography
notes:
  - The token needs SSL and Certificates Write.
seealso:
  - name: Cloudflare Origin CA certificates
    description: Cloudflare's documentation, with the names and validities that it accepts.
    link: https://developers.cloudflare.com/ssl/origin-configuration/origin-ca/
  - module: community.crypto.openssl_csr_pipe
extends_documentation_fragment: [screen_flow.live.cloudflare, screen_flow.live.attributes]
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Create a signing request
  community.crypto.openssl_csr_pipe:
    privatekey_path: /etc/ssl/private/origin.key
    subject_alt_name: DNS:www.example.com
  register: request

- name: Have it signed by the Origin CA
  screen_flow.live.cloudflare_origin_ca_certificate:
    zone: example.com
    api_token: "{{ vault_cloudflare_token }}"
    csr: "{{ request.csr }}"
    hostnames: [www.example.com]
  delegate_to: localhost
  register: signed

- name: Revoke the previous certificate
  screen_flow.live.cloudflare_origin_ca_certificate:
    state: absent
    zone: example.com
    api_token: "{{ vault_cloudflare_token }}"
    certificate: "{{ old_certificate }}"
  delegate_to: localhost
"""

RETURN = r"""
certificate:
  description: The certificate in PEM format.
  type: str
  returned: when O(state=present), except for a certificate that check mode did not request
  sample: |
    -----BEGIN CERTIFICATE-----
    MIICljCCAjygAwIBAgIUGkAqdP3+DMRBCMJJTQxJvjIkVKQwCgYIKoZIzj0EAwIw
    -----END CERTIFICATE-----
certificate_id:
  description: Cloudflare's id of the certificate.
  type: str
  returned: when there is one
  sample: "328578533902268680212849205732770752308931942346"
expires_on:
  description: End of its validity, in UTC, as in ISO 8601.
  type: str
  returned: when O(state=present), except for a certificate that check mode did not request
  sample: "2041-11-20T19:00:00+00:00"
"""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.cloudflare.certificates import (
    PERMISSION,
    StoredCertificate,
    dns_names,
    parse_certificate,
    public_key,
    read_certificate,
    read_request,
    request_type,
    require_cryptography,
    to_pem,
)
from ..module_utils.cloudflare.client import Call, CloudflareApi, CloudflareFailure, Zone, invalid_input
from ..module_utils.cloudflare.module import create_module, open_zone

if TYPE_CHECKING:
    from cryptography import x509

VALIDITIES = (7, 30, 90, 365, 730, 1095, 5475)
PAGE_LENGTH = 50
# More pages than any account has: a list that does not end is not Cloudflare's.
MAX_PAGES = 200


@dataclass(frozen=True)
class Signed(StoredCertificate):
    """A certificate of the Origin CA."""

    pem: str

    def satisfies(
        self, request: x509.CertificateSigningRequest, names: Collection[str], until: dt.datetime
    ) -> bool:
        """Return whether it has the request's key, covers all names and is valid beyond `until`."""
        return (
            public_key(self.certificate) == public_key(request)
            and set(names) <= dns_names(self.certificate)
            and self.expires > until
        )


def parse_signed(entry: Any) -> Signed | None:
    """Return a certificate from Cloudflare's response; None for a revoked one and for anything else."""
    if not isinstance(entry, dict) or not entry.get("id") or entry.get("revoked_at"):
        return None
    pem = str(entry.get("certificate") or "")
    certificate = parse_certificate(pem)
    return Signed(str(entry["id"]), certificate, pem) if certificate else None


def list_certificates(api: CloudflareApi, zone: Zone) -> list[Signed]:
    """Return the zone's certificates; raises CloudflareFailure."""
    purpose = f"list the Origin CA's certificates of zone {zone.name}"
    found: list[Signed] = []
    for page in range(1, MAX_PAGES + 1):
        query = {"zone_id": zone.id, "page": str(page), "per_page": str(PAGE_LENGTH)}
        entries = api.call(Call("get", "/certificates", purpose, PERMISSION, query=query))
        if not isinstance(entries, list):
            break
        found += [signed for entry in entries if (signed := parse_signed(entry))]
        if len(entries) < PAGE_LENGTH:
            return found
    raise api.unexpected(purpose)


def search(
    api: CloudflareApi,
    zone: Zone,
    request: x509.CertificateSigningRequest,
    names: Collection[str],
    renew_days: int,
) -> Signed | None:
    """Return the fitting certificate with the longest validity; raises CloudflareFailure."""
    until = dt.datetime.now(dt.UTC) + dt.timedelta(days=renew_days)
    fitting = [signed for signed in list_certificates(api, zone) if signed.satisfies(request, names, until)]
    return max(fitting, key=lambda signed: signed.expires, default=None)


def sign(api: CloudflareApi, request: x509.CertificateSigningRequest, names: list[str], days: int) -> Signed:
    """Have a certificate signed by one request that is never retried; raises CloudflareFailure."""
    purpose = f"have the Origin CA sign a certificate for {', '.join(names)}"
    body = {
        "csr": to_pem(request),
        "hostnames": names,
        "request_type": request_type(request),
        "requested_validity": days,
    }
    signed = parse_signed(api.call(Call("post", "/certificates", purpose, PERMISSION, body=body, retries=0)))
    if signed is None or public_key(signed.certificate) != public_key(request):
        raise api.unexpected(purpose)
    return signed


def sign_or_find(
    module: AnsibleModule, api: CloudflareApi, zone: Zone, request: x509.CertificateSigningRequest
) -> Signed:
    """Have a certificate signed; where the response is lost, find the certificate in the zone's list.

    Raises CloudflareFailure when there is none.
    """
    inputs = module.params
    try:
        return sign(api, request, inputs["hostnames"], inputs["days"])
    except CloudflareFailure as failure:
        try:
            signed = search(api, zone, request, inputs["hostnames"], inputs["renew_days"])
        except CloudflareFailure:
            raise failure.with_message(
                f"{failure} Whether a certificate was signed is unknown; the next run searches for it first."
            ) from None
        if signed is None:
            raise failure.with_message(f"{failure} No certificate was signed.") from None
        module.warn(f"The response with the certificate was lost; it was found in the zone's list. {failure}")
        return signed


def present(module: AnsibleModule) -> dict[str, Any]:
    """Return the module's result for state present; raises CloudflareFailure."""
    request, names = read_request(module.params["csr"], "csr"), module.params["hostnames"]
    if not names:
        raise invalid_input("hostnames is empty: set the site's name.")
    if module.params["renew_days"] >= module.params["days"]:
        raise invalid_input(
            f"renew_days is {module.params['renew_days']}: use less than days ({module.params['days']})."
        )
    api, zone = open_zone(module)
    signed = search(api, zone, request, names, module.params["renew_days"])
    result: dict[str, Any] = {"changed": signed is None}
    if signed is None:
        if not module.check_mode:
            signed = sign_or_find(module, api, zone, request)
        result["diff"] = diff(zone, "", f"{', '.join(names)}, {module.params['days']} days\n")
    if signed:
        result |= {
            "certificate": signed.pem,
            "certificate_id": signed.id,
            "expires_on": signed.expires.isoformat(),
        }
    return result


def absent(module: AnsibleModule) -> dict[str, Any]:
    """Return the module's result for state absent; raises CloudflareFailure."""
    certificate = read_certificate(module.params["certificate"], "certificate")
    api, zone = open_zone(module)
    signed = next((one for one in list_certificates(api, zone) if one.certificate == certificate), None)
    if signed is None:
        return {"changed": False}
    if not module.check_mode:
        purpose = f"revoke the Origin CA's certificate {signed.id}"
        api.call(Call("delete", f"/certificates/{signed.id}", purpose, PERMISSION))
    before = f"{', '.join(sorted(dns_names(certificate)))}, expires {signed.expires.isoformat()}\n"
    return {"changed": True, "certificate_id": signed.id, "diff": diff(zone, before, "")}


def diff(zone: Zone, before: str, after: str) -> dict[str, str]:
    """Return the diff of the zone's certificate."""
    header = f"zone {zone.name}, certificate of the Origin CA"
    return {"before_header": header, "after_header": header, "before": before, "after": after}


def main() -> None:
    """Entry point."""
    module = create_module(
        {
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            # Not a secret, but a private key may be given by mistake.
            "csr": {"type": "str", "no_log": True},
            "hostnames": {"type": "list", "elements": "str"},
            "days": {"type": "int", "choices": list(VALIDITIES), "default": 5475},
            "renew_days": {"type": "int", "default": 30},
            "certificate": {"type": "str"},
        },
        required_if=[("state", "present", ["csr", "hostnames"]), ("state", "absent", ["certificate"])],
    )
    require_cryptography(module)
    try:
        result = present(module) if module.params["state"] == "present" else absent(module)
    except CloudflareFailure as failure:
        module.fail_json(msg=str(failure))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
