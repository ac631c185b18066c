#!/usr/bin/python
"""Ansible module: have Cloudflare's Origin CA sign an origin's certificate, once, and revoke it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_origin_ca_certificate
short_description: Get an origin's certificate from Cloudflare's Origin CA, or revoke it
description:
  - Cloudflare's Full (strict) accepts a certificate of the Origin CA; browsers don't.
  - Before a certificate is asked for, the zone's list is searched for one of the same key that covers all
    names and does not end soon, and that one is returned. So an answer that got lost on its way, in this run
    or an earlier one, does not lead to a second certificate.
  - The request that signs is sent once; no error makes the client repeat it.
  - The private key is not needed here, and must not be given.
  - The token needs SSL and Certificates Write.
options:
  state:
    description: V(present) returns a certificate for O(csr); V(absent) revokes O(certificate).
    type: str
    choices: [present, absent]
    default: present
  csr:
    description: Signing request in PEM. Its key, EC or RSA, decides the kind of certificate.
    type: str
  hostnames:
    description: Names that the certificate is to cover; each has to be in the zone.
    type: list
    elements: str
  days:
    description: Days until the certificate ends.
    type: int
    choices: [7, 30, 90, 365, 730, 1095, 5475]
    default: 5475
  renew_days:
    description: A certificate that ends within so many days is as good as none.
    type: int
    default: 30
  certificate:
    description: Certificate in PEM that is to be revoked.
    type: str
requirements:
  - cryptography
extends_documentation_fragment:
  - screen_flow.live.cloudflare
  - screen_flow.live.attributes
  - screen_flow.live.attributes.group_cloudflare
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Have the origin's certificate signed
  screen_flow.live.cloudflare_origin_ca_certificate:
    zone: example.com
    api_token: "{{ vault_cloudflare_token }}"
    csr: "{{ request.csr }}"
    hostnames: [www.example.com]
  delegate_to: localhost
  register: signed

- name: Revoke the one before it
  screen_flow.live.cloudflare_origin_ca_certificate:
    state: absent
    zone: example.com
    api_token: "{{ vault_cloudflare_token }}"
    certificate: "{{ old_certificate }}"
  delegate_to: localhost
"""

RETURN = r"""
certificate:
  description: The certificate in PEM.
  type: str
  returned: when O(state=present), and not for a certificate that check mode did not make
certificate_id:
  description: Cloudflare's id of it.
  type: str
  returned: when there is one
  sample: "328578533902268680212849205732770752308931942346"
expires_on:
  description: When it ends, in UTC, as in ISO 8601.
  type: str
  returned: when O(state=present), and not for a certificate that check mode did not make
  sample: "2041-11-20T19:00:00+00:00"
"""

import datetime as dt
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

# Packed by Ansible, this file is a part of ansible.modules.
from ..module_utils.cloudflare.client import (
    ZONE_RULES,
    Call,
    CloudflareApi,
    CloudflareFailure,
    Zone,
    api_arguments,
    open_zone,
    require_sdk,
    unusable,
)

CRYPTOGRAPHY_PROBLEM: str | None = None
try:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
except ImportError:
    CRYPTOGRAPHY_PROBLEM = traceback.format_exc()

NEEDS = "SSL and Certificates Write"
VALIDITIES = (7, 30, 90, 365, 730, 1095, 5475)
PAGE_LENGTH = 50
# A list that never ends is not Cloudflare's.
PAGES = 200


@dataclass(frozen=True)
class Signed:
    """A certificate of the Origin CA, and its id in the account."""

    id: str
    pem: str
    certificate: x509.Certificate

    @property
    def ends(self) -> dt.datetime:
        """When it ends, in UTC."""
        return self.certificate.not_valid_after_utc

    def serves(
        self, request: x509.CertificateSigningRequest, names: Collection[str], until: dt.datetime
    ) -> bool:
        """Tell whether it has the request's key and all names, and is good beyond `until`."""
        return (
            public_bytes(self.certificate) == public_bytes(request)
            and set(names) <= dns_names(self.certificate)
            and self.ends > until
        )


def public_bytes(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """Return the public key as DER."""
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def dns_names(certificate: x509.Certificate) -> set[str]:
    """Return the names that a certificate covers; none where it has no such extension."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set()
    return set(extension.value.get_values_for_type(x509.DNSName))


def read_request(text: str) -> x509.CertificateSigningRequest:
    """Read a signing request; raises CloudflareFailure, without the text, which may be a key by mistake."""
    if "PRIVATE KEY" in text:
        raise CloudflareFailure(
            "csr holds a private key: give the signing request; the key stays where it is."
        )
    try:
        return x509.load_pem_x509_csr(text.encode())
    except ValueError:
        raise CloudflareFailure(
            "csr is no signing request in PEM: give what openssl_csr_pipe returns."
        ) from None


def read_certificate(text: str) -> x509.Certificate:
    """Read the certificate to revoke; raises CloudflareFailure."""
    try:
        return x509.load_pem_x509_certificate(text.encode())
    except ValueError:
        raise CloudflareFailure("certificate is no certificate in PEM: give the one to revoke.") from None


def read_signed(entry: Any) -> Signed | None:
    """Return a certificate from Cloudflare's answer; None for one that is revoked or holds none."""
    if not isinstance(entry, dict) or not entry.get("id") or entry.get("revoked_at"):
        return None
    pem = str(entry.get("certificate") or "")
    try:
        return Signed(str(entry["id"]), pem, x509.load_pem_x509_certificate(pem.encode()))
    except ValueError:
        return None


def listed(api: CloudflareApi, zone: Zone) -> list[Signed]:
    """Return the zone's certificates; raises CloudflareFailure."""
    what = f"list the Origin CA's certificates of zone {zone.name}"
    found: list[Signed] = []
    for page in range(1, PAGES + 1):
        query = {"zone_id": zone.id, "page": str(page), "per_page": str(PAGE_LENGTH)}
        entries = api.call(Call("get", "/certificates", what, NEEDS, query=query))
        if not isinstance(entries, list):
            break
        found += [signed for entry in entries if (signed := read_signed(entry))]
        if len(entries) < PAGE_LENGTH:
            return found
    raise CloudflareFailure(unusable(what, api.base_url))


def search(
    api: CloudflareApi,
    zone: Zone,
    request: x509.CertificateSigningRequest,
    names: Collection[str],
    renew_days: int,
) -> Signed | None:
    """Return the certificate of the request's key that serves longest; raises CloudflareFailure."""
    until = dt.datetime.now(dt.UTC) + dt.timedelta(days=renew_days)
    fitting = [signed for signed in listed(api, zone) if signed.serves(request, names, until)]
    return max(fitting, key=lambda signed: signed.ends, default=None)


def sign(api: CloudflareApi, request: x509.CertificateSigningRequest, names: list[str], days: int) -> Signed:
    """Have a certificate signed, by one request that is never repeated; raises CloudflareFailure."""
    what = f"have the Origin CA sign a certificate for {', '.join(names)}"
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise CloudflareFailure("csr has a key that is neither EC nor RSA: make one of those.")
    body = {
        "csr": request.public_bytes(Encoding.PEM).decode(),
        "hostnames": names,
        "request_type": "origin-rsa" if isinstance(key, rsa.RSAPublicKey) else "origin-ecc",
        "requested_validity": days,
    }
    signed = read_signed(api.call(Call("post", "/certificates", what, NEEDS, body=body, retries=0)))
    if signed is None or public_bytes(signed.certificate) != public_bytes(request):
        raise CloudflareFailure(unusable(what, api.base_url))
    return signed


def sign_or_find(
    module: AnsibleModule, api: CloudflareApi, zone: Zone, request: x509.CertificateSigningRequest
) -> Signed:
    """Have a certificate signed; where the answer gets lost, find what it may have held.

    Raises CloudflareFailure when there is no certificate to be had.
    """
    names, renew_days = module.params["hostnames"], module.params["renew_days"]
    try:
        return sign(api, request, names, module.params["days"])
    except CloudflareFailure as failure:
        try:
            signed = search(api, zone, request, names, renew_days)
        except CloudflareFailure:
            raise CloudflareFailure(
                f"{failure} Whether one was signed is not known; the next run looks before it asks.",
                failure.codes,
            ) from None
        if signed is None:
            raise CloudflareFailure(f"{failure} No certificate was signed.", failure.codes) from None
        module.warn(f"The answer with the certificate was lost; it was found in the zone's list. {failure}")
        return signed


def present(module: AnsibleModule) -> dict[str, Any]:
    """Return the module's result for a certificate that is to be there; raises CloudflareFailure."""
    request, names = read_request(module.params["csr"]), module.params["hostnames"]
    if not names:
        raise CloudflareFailure("hostnames is empty: give the site's name.")
    if module.params["renew_days"] >= module.params["days"]:
        raise CloudflareFailure(
            f"renew_days is {module.params['renew_days']}: give less than days, {module.params['days']}."
        )
    api, zone = open_zone(module)
    signed = search(api, zone, request, names, module.params["renew_days"])
    result: dict[str, Any] = {"changed": signed is None}
    if signed is None:
        if not module.check_mode:
            signed = sign_or_find(module, api, zone, request)
        after = f"{', '.join(names)}, {module.params['days']} days\n"
        header = f"zone {zone.name}, certificate of the Origin CA"
        result["diff"] = {"before_header": header, "after_header": header, "before": "", "after": after}
    if signed:
        result |= {
            "certificate": signed.pem,
            "certificate_id": signed.id,
            "expires_on": signed.ends.isoformat(),
        }
    return result


def absent(module: AnsibleModule) -> dict[str, Any]:
    """Return the module's result for a certificate that is to be revoked; raises CloudflareFailure."""
    certificate = read_certificate(module.params["certificate"])
    api, zone = open_zone(module)
    signed = next((signed for signed in listed(api, zone) if signed.certificate == certificate), None)
    if signed is None:
        return {"changed": False}
    if not module.check_mode:
        what = f"revoke the Origin CA's certificate {signed.id}"
        api.call(Call("delete", f"/certificates/{signed.id}", what, NEEDS))
    header = f"zone {zone.name}, certificate of the Origin CA"
    before = f"{', '.join(sorted(dns_names(certificate)))}, ends {signed.ends.isoformat()}\n"
    diff = {"before_header": header, "after_header": header, "before": before, "after": ""}
    return {"changed": True, "certificate_id": signed.id, "diff": diff}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec=api_arguments()
        | {
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            # No secret, but somebody may give the key by mistake.
            "csr": {"type": "str", "no_log": True},
            "hostnames": {"type": "list", "elements": "str"},
            "days": {"type": "int", "choices": list(VALIDITIES), "default": 5475},
            "renew_days": {"type": "int", "default": 30},
            "certificate": {"type": "str"},
        },
        required_if=[("state", "present", ["csr", "hostnames"]), ("state", "absent", ["certificate"])],
        supports_check_mode=True,
        **ZONE_RULES,
    )
    require_sdk(module)
    if CRYPTOGRAPHY_PROBLEM:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_PROBLEM)
    try:
        result = present(module) if module.params["state"] == "present" else absent(module)
    except CloudflareFailure as failure:
        module.fail_json(msg=str(failure))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
