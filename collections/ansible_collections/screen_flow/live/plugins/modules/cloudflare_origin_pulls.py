#!/usr/bin/python
"""Ansible module: Authenticated Origin Pulls of a zone, with a client certificate of your own authority."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_origin_pulls
short_description: Let a zone's edge show a client certificate to the origin
description:
  - Zone-level Authenticated Origin Pulls. Cloudflare's edge shows the certificate that is uploaded here, so
    that the origin can tell this zone from the rest of the internet, Cloudflare's other customers included.
  - A certificate counts as ours when O(authority) signed it. Others are left alone.
  - With O(certificate) and O(private_key) not given, nothing is uploaded. RV(wanting) then says that none of
    ours is good for longer than O(renew_days), and so that a pair is to be made and given.
  - The upload is sent once; no error makes the client repeat it. When its answer gets lost, the certificate
    is looked for in the zone's list.
  - The switch is turned on only with a certificate of ours that Cloudflare has deployed to its edge. Ours
    that end sooner are removed after that.
  - The token needs SSL and Certificates Write.
options:
  enabled:
    description:
      - Whether the edge shows the certificate.
      - V(false) turns the switch off and removes all certificates of ours.
    type: bool
    required: true
  authority:
    description: Certificate in PEM of the authority that signs the client certificates.
    type: str
    required: true
  certificate:
    description: Client certificate in PEM to upload.
    type: str
  private_key:
    description: Its private key in PEM. It appears in no output.
    type: str
  renew_days:
    description: A certificate that ends within so many days is as good as none.
    type: int
    default: 30
  deploy_seconds:
    description: How long Cloudflare may take to deploy a certificate.
    type: int
    default: 600
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
- name: Let the edge show its certificate
  screen_flow.live.cloudflare_origin_pulls:
    zone: example.com
    api_token: "{{ vault_cloudflare_token }}"
    enabled: true
    authority: "{{ authority }}"
    certificate: "{{ client.certificate }}"
    private_key: "{{ client.privatekey }}"
  delegate_to: localhost
"""

RETURN = r"""
enabled:
  description: Whether the edge shows a client certificate.
  type: bool
  returned: success
wanting:
  description: Whether a certificate has to be made and uploaded before the switch can be turned on.
  type: bool
  returned: success
expires_on:
  description: When our certificate ends, in UTC, as in ISO 8601.
  type: str
  returned: when there is one
"""

import datetime as dt
import time
import traceback
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
    from cryptography.exceptions import InvalidSignature
except ImportError:
    CRYPTOGRAPHY_PROBLEM = traceback.format_exc()

NEEDS = "SSL and Certificates Write"
# Cloudflare deploys in a few minutes at most.
POLL_SECONDS = 2


@dataclass(frozen=True)
class Client:
    """A client certificate of ours that Cloudflare has."""

    id: str
    status: str
    """As Cloudflare says it: active, pending_deployment and so on."""
    certificate: x509.Certificate

    @property
    def ends(self) -> dt.datetime:
        """When it ends, in UTC."""
        return self.certificate.not_valid_after_utc


class Pulls:
    """A zone's Authenticated Origin Pulls, as far as they are ours."""

    def __init__(self, api: CloudflareApi, zone: Zone, authority: x509.Certificate) -> None:
        self.api = api
        self.zone = zone
        self.authority = authority
        self.path = f"/zones/{zone.id}/origin_tls_client_auth"

    def clients(self) -> list[Client]:
        """Return our certificates, the one that ends last first; raises CloudflareFailure."""
        what = f"list the client certificates of zone {self.zone.name}"
        entries = self.api.call(Call("get", self.path, what, NEEDS))
        if not isinstance(entries, list):
            raise CloudflareFailure(unusable(what, self.api.base_url))
        found = [client for entry in entries if (client := self._read(entry))]
        return sorted(found, key=lambda client: client.ends, reverse=True)

    def _read(self, entry: Any) -> Client | None:
        if not isinstance(entry, dict) or str(entry.get("status", "")).endswith(("deletion", "deleted")):
            return None
        try:
            certificate = x509.load_pem_x509_certificate(str(entry.get("certificate")).encode())
            certificate.verify_directly_issued_by(self.authority)
        except (ValueError, TypeError, InvalidSignature):
            return None
        return Client(str(entry.get("id")), str(entry.get("status", "active")), certificate)

    def enabled(self) -> bool:
        """Return whether the edge shows a certificate; raises CloudflareFailure."""
        what = f"read whether zone {self.zone.name} has Authenticated Origin Pulls"
        return self._switch(Call("get", f"{self.path}/settings", what, NEEDS))

    def switch(self, on: bool) -> None:
        """Turn the switch; raises CloudflareFailure."""
        what = f"turn Authenticated Origin Pulls {'on' if on else 'off'} for zone {self.zone.name}"
        now = self._switch(Call("put", f"{self.path}/settings", what, NEEDS, body={"enabled": on}))
        if now is not on:
            raise CloudflareFailure(f"Can't {what}: Cloudflare takes it, but leaves the switch as it was.")

    def _switch(self, call: Call) -> bool:
        result = self.api.call(call)
        if not isinstance(result, dict) or not isinstance(result.get("enabled"), bool):
            raise CloudflareFailure(unusable(call.what, self.api.base_url))
        return bool(result["enabled"])

    def upload(self, pem: str, key: str) -> str | None:
        """Upload a pair, once; return a warning where it took a second look. Raises CloudflareFailure."""
        what = f"upload a client certificate for zone {self.zone.name}"
        body = {"certificate": pem, "private_key": key}
        try:
            self.api.call(Call("post", self.path, what, NEEDS, body=body, retries=0))
        except CloudflareFailure as failure:
            certificate = x509.load_pem_x509_certificate(pem.encode())
            if all(client.certificate != certificate for client in self.clients()):
                raise
            return f"The upload's answer was lost; the certificate was found in the zone's list. {failure}"
        return None

    def wait_until_deployed(self, seconds: float) -> None:
        """Wait until our newest certificate is on the edge; raises CloudflareFailure after `seconds`."""
        end = time.monotonic() + seconds
        while not (clients := self.clients()) or clients[0].status != "active":
            if time.monotonic() > end:
                status = clients[0].status if clients else "gone"
                raise CloudflareFailure(
                    f"The client certificate of zone {self.zone.name} is {status} after {seconds:g} s: run "
                    "again, which waits on; the edge shows what it showed before."
                )
            time.sleep(POLL_SECONDS)

    def remove(self, client: Client) -> None:
        """Remove a certificate; raises CloudflareFailure."""
        what = f"remove client certificate {client.id} of zone {self.zone.name}"
        self.api.call(Call("delete", f"{self.path}/{client.id}", what, NEEDS))


def describe(enabled: bool, clients: list[Client]) -> str:
    """Return the state as the diff shows it."""
    lines = [
        f"client certificate {client.certificate.serial_number:x}, ends {client.ends:%F}"
        for client in clients
    ]
    return "\n".join([f"enabled: {str(enabled).lower()}", *lines, ""])


def read_authority(text: str) -> x509.Certificate:
    """Read the authority; raises CloudflareFailure."""
    try:
        return x509.load_pem_x509_certificate(text.encode())
    except ValueError:
        raise CloudflareFailure("authority is no certificate in PEM: give the authority's own.") from None


def manage(module: AnsibleModule) -> dict[str, Any]:
    """Bring the zone to what is wanted, and return the module's result; raises CloudflareFailure."""
    wanted, pem, key = (module.params[name] for name in ("enabled", "certificate", "private_key"))
    authority = read_authority(module.params["authority"])
    pulls = Pulls(*open_zone(module), authority)
    clients, enabled = pulls.clients(), pulls.enabled()
    before = describe(enabled, clients)
    until = dt.datetime.now(dt.UTC) + dt.timedelta(days=module.params["renew_days"])
    wanting = wanted and not any(client.ends > until for client in clients)
    changed, after = False, before
    if not wanted:
        changed, after = enabled or bool(clients), describe(False, [])
        if changed and not module.check_mode:
            if enabled:
                pulls.switch(False)
            for client in clients:
                pulls.remove(client)
    elif not wanting or pem:
        changed = wanting or not enabled or len(clients) > 1 or clients[0].status != "active"
        if changed and not module.check_mode:
            warning = pulls.upload(pem, key) if wanting else None
            if warning:
                module.warn(warning)
            pulls.wait_until_deployed(module.params["deploy_seconds"])
            if not enabled:
                pulls.switch(True)
            clients = pulls.clients()
            for client in clients[1:]:
                pulls.remove(client)
            wanting = False
        after = describe(True, clients[:1])
    elif module.check_mode:
        changed, after = True, describe(True, []) + "client certificate: a new one\n"
    header = f"zone {pulls.zone.name}, Authenticated Origin Pulls"
    result: dict[str, Any] = {
        "changed": changed,
        "enabled": wanted if changed and not wanting else enabled,
        "wanting": wanting,
    }
    if wanted and clients:
        result["expires_on"] = clients[0].ends.isoformat()
    if changed:
        result["diff"] = {"before_header": header, "after_header": header, "before": before, "after": after}
    return result


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec=api_arguments()
        | {
            "enabled": {"type": "bool", "required": True},
            "authority": {"type": "str", "required": True},
            "certificate": {"type": "str"},
            "private_key": {"type": "str", "no_log": True},
            "renew_days": {"type": "int", "default": 30},
            "deploy_seconds": {"type": "int", "default": 600},
        },
        required_together=[("certificate", "private_key")],
        supports_check_mode=True,
        **ZONE_RULES,
    )
    require_sdk(module)
    if CRYPTOGRAPHY_PROBLEM:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_PROBLEM)
    try:
        result = manage(module)
    except CloudflareFailure as failure:
        module.fail_json(msg=str(failure))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
