#!/usr/bin/python
"""Ansible module: zone-level Authenticated Origin Pulls, with client certificates of your own authority."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_origin_pulls
short_description: Manage zone-level Authenticated Origin Pulls
description:
  - Uploads a client certificate that Cloudflare's edge presents to the origin, so that the origin can tell
    this zone from the rest of the internet, Cloudflare's other customers included.
  - The module manages the certificates that O(authority) signed. Others are left alone.
  - Without O(certificate) and O(private_key) nothing is uploaded. RV(certificate_needed) then reports
    whether a new pair has to be created and given, because no managed certificate is valid for longer than
    O(renew_days).
  - The upload is sent once and never retried. When its response is lost, the certificate is searched for in
    the zone's list.
  - Authenticated Origin Pulls are enabled only once Cloudflare has deployed a managed certificate to its
    edge. Managed certificates with an earlier end are removed after that.
options:
  enabled:
    description:
      - Whether the edge presents the certificate.
      - V(false) disables Authenticated Origin Pulls and removes all managed certificates.
    type: bool
    required: true
  authority:
    description: Certificate, in PEM format, of the authority that signs the client certificates.
    type: str
    required: true
  certificate:
    description: Client certificate to upload, in PEM format.
    type: str
  private_key:
    description: Private key of O(certificate), in PEM format. It appears in no output.
    type: str
  renew_days:
    description: Renew the certificate when fewer than this many days remain.
    type: int
    default: 30
  deploy_seconds:
    description: Seconds to wait for Cloudflare to deploy a certificate.
    type: int
    default: 600
requirements:
  - cryptography
notes:
  - The token needs SSL and Certificates Write.
  - Authenticated Origin Pulls need the zone's SSL mode Full or Full (strict).
seealso:
  - module: community.crypto.x509_certificate_pipe
  - name: Authenticated Origin Pulls
    description: Cloudflare's documentation of the feature.
    link: https://developers.cloudflare.com/ssl/origin-configuration/authenticated-origin-pull/
extends_documentation_fragment: [screen_flow.live.cloudflare, screen_flow.live.attributes]
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Look for a certificate that is valid long enough
  screen_flow.live.cloudflare_origin_pulls: &pulls
    zone: example.com
    api_token: "{{ vault_cloudflare_token }}"
    enabled: true
    authority: "{{ authority_certificate }}"
  delegate_to: localhost
  register: pulls

- name: Upload a new pair and enable Authenticated Origin Pulls
  screen_flow.live.cloudflare_origin_pulls:
    <<: *pulls
    certificate: "{{ client.certificate }}"
    private_key: "{{ client.privatekey }}"
  delegate_to: localhost
  no_log: true
  when: pulls.certificate_needed
"""

RETURN = r"""
enabled:
  description: Whether the edge presents a client certificate.
  type: bool
  returned: success
  sample: true
certificate_needed:
  description: Whether O(certificate) and O(private_key) have to be given before anything can be enabled.
  type: bool
  returned: success
  sample: false
expires_on:
  description: End of the managed certificate's validity, in UTC, as in ISO 8601.
  type: str
  returned: when there is one
  sample: "2027-11-24T19:00:00+00:00"
"""

import datetime as dt
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.cloudflare.certificates import (
    PERMISSION,
    StoredCertificate,
    is_issued_by,
    parse_certificate,
    read_certificate,
    require_cryptography,
)
from ..module_utils.cloudflare.client import Call, CloudflareApi, CloudflareFailure, Reason, Zone
from ..module_utils.cloudflare.module import create_module, open_zone

if TYPE_CHECKING:
    from cryptography import x509

# A deployment takes a few minutes at most.
POLL_SECONDS = 2


@dataclass(frozen=True)
class ClientCertificate(StoredCertificate):
    """A managed client certificate."""

    status: str
    """As Cloudflare names it: active, pending_deployment and so on."""


class Pulls:
    """A zone's Authenticated Origin Pulls and its managed certificates. Methods raise CloudflareFailure."""

    def __init__(self, api: CloudflareApi, zone: Zone, authority: x509.Certificate) -> None:
        self.api = api
        self.zone = zone
        self.authority = authority
        self.path = f"/zones/{zone.id}/origin_tls_client_auth"

    def list_certificates(self) -> list[ClientCertificate]:
        """Return the managed certificates, the one with the latest end first."""
        purpose = f"list the client certificates of zone {self.zone.name}"
        entries = self.api.call(Call("get", self.path, purpose, PERMISSION))
        if not isinstance(entries, list):
            raise self.api.unexpected(purpose)
        found = [managed for entry in entries if (managed := self._parse(entry))]
        return sorted(found, key=lambda managed: managed.expires, reverse=True)

    def _parse(self, entry: Any) -> ClientCertificate | None:
        if not isinstance(entry, dict) or str(entry.get("status", "")).endswith(("deletion", "deleted")):
            return None
        certificate = parse_certificate(entry.get("certificate"))
        if certificate is None or not is_issued_by(certificate, self.authority):
            return None
        return ClientCertificate(str(entry.get("id")), certificate, str(entry.get("status", "active")))

    def is_enabled(self) -> bool:
        """Return whether the edge presents a certificate."""
        purpose = f"read whether Authenticated Origin Pulls are enabled for zone {self.zone.name}"
        return self._request_enabled(Call("get", f"{self.path}/settings", purpose, PERMISSION))

    def set_enabled(self, enabled: bool) -> None:
        """Enable or disable Authenticated Origin Pulls."""
        purpose = f"turn Authenticated Origin Pulls {'on' if enabled else 'off'} for zone {self.zone.name}"
        body = {"enabled": enabled}
        stored = self._request_enabled(Call("put", f"{self.path}/settings", purpose, PERMISSION, body=body))
        if stored is not enabled:
            raise CloudflareFailure(
                f"Can't {purpose}: Cloudflare accepted the request and did not change the state; run again.",
                Reason.REJECTED,
            )

    def _request_enabled(self, call: Call) -> bool:
        result = self.api.call(call)
        if not isinstance(result, dict) or not isinstance(result.get("enabled"), bool):
            raise self.api.unexpected(call.purpose)
        return bool(result["enabled"])

    def upload(self, pem: str, key: str) -> str | None:
        """Upload a pair, once; return a warning where the response was lost and the certificate is there."""
        purpose = f"upload a client certificate for zone {self.zone.name}"
        body = {"certificate": pem, "private_key": key}
        try:
            self.api.call(Call("post", self.path, purpose, PERMISSION, body=body, retries=0))
        except CloudflareFailure as failure:
            certificate = parse_certificate(pem)
            if all(managed.certificate != certificate for managed in self.list_certificates()):
                raise
            return f"The response to the upload was lost; the certificate is in the zone's list. {failure}"
        return None

    def wait_until_deployed(self, seconds: float) -> None:
        """Wait until the newest certificate is deployed, for at most `seconds`."""
        end = time.monotonic() + seconds
        while not (found := self.list_certificates()) or found[0].status != "active":
            if time.monotonic() > end:
                status = found[0].status if found else "missing"
                raise CloudflareFailure(
                    f"The client certificate of zone {self.zone.name} is {status} after {seconds:g} s: run "
                    "again to continue waiting; the edge presents what it presented before.",
                    Reason.REJECTED,
                )
            time.sleep(POLL_SECONDS)

    def remove(self, managed: ClientCertificate) -> None:
        """Remove a certificate."""
        purpose = f"remove client certificate {managed.id} of zone {self.zone.name}"
        self.api.call(Call("delete", f"{self.path}/{managed.id}", purpose, PERMISSION))


def describe(enabled: bool, certificates: list[ClientCertificate]) -> str:
    """Return the state as the diff shows it."""
    lines = [
        f"client certificate {managed.certificate.serial_number:x}, expires {managed.expires:%F}"
        for managed in certificates
    ]
    return "\n".join([f"enabled: {str(enabled).lower()}", *lines, ""])


def manage(module: AnsibleModule) -> dict[str, Any]:
    """Bring the zone to its wanted state and return the module's result; raises CloudflareFailure."""
    wanted, pem, key = (module.params[name] for name in ("enabled", "certificate", "private_key"))
    authority = read_certificate(module.params["authority"], "authority")
    pulls = Pulls(*open_zone(module), authority)
    certificates, enabled = pulls.list_certificates(), pulls.is_enabled()
    before = describe(enabled, certificates)
    until = dt.datetime.now(dt.UTC) + dt.timedelta(days=module.params["renew_days"])
    needed = wanted and not any(managed.expires > until for managed in certificates)
    changed, after = False, before
    if not wanted:
        changed, after = enabled or bool(certificates), describe(False, [])
        if changed and not module.check_mode:
            if enabled:
                pulls.set_enabled(False)
            for managed in certificates:
                pulls.remove(managed)
    elif not needed or pem:
        changed = needed or not enabled or len(certificates) > 1 or certificates[0].status != "active"
        if changed and not module.check_mode:
            warning = pulls.upload(pem, key) if needed else None
            if warning:
                module.warn(warning)
            pulls.wait_until_deployed(module.params["deploy_seconds"])
            if not enabled:
                pulls.set_enabled(True)
            certificates = pulls.list_certificates()
            for managed in certificates[1:]:
                pulls.remove(managed)
            needed = False
        after = describe(True, certificates[:1])
    elif module.check_mode:
        changed, after = True, describe(True, []) + "client certificate: a new one\n"
    header = f"zone {pulls.zone.name}, Authenticated Origin Pulls"
    result: dict[str, Any] = {
        "changed": changed,
        "enabled": wanted if changed and not needed else enabled,
        "certificate_needed": needed,
    }
    if wanted and certificates:
        result["expires_on"] = certificates[0].expires.isoformat()
    if changed:
        result["diff"] = {"before_header": header, "after_header": header, "before": before, "after": after}
    return result


def main() -> None:
    """Entry point."""
    module = create_module(
        {
            "enabled": {"type": "bool", "required": True},
            "authority": {"type": "str", "required": True},
            "certificate": {"type": "str"},
            "private_key": {"type": "str", "no_log": True},
            "renew_days": {"type": "int", "default": 30},
            "deploy_seconds": {"type": "int", "default": 600},
        },
        required_together=[("certificate", "private_key")],
    )
    require_cryptography(module)
    try:
        result = manage(module)
    except CloudflareFailure as failure:
        module.fail_json(msg=str(failure))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
