#!/usr/bin/python
"""Ansible module: collect the evidence of the site from outside, all at once and within a deadline."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_evidence_edge
short_description: Collect evidence of the site from outside
description:
  - Queries DNS, the edge, the page with its scripts, the origin's address, and Cloudflare's API, all at once.
  - Each datum is V({"value"&colon; ...}) or V({"missing"&colon; "why", "reason"&colon; "an enum"}); a query
    that hangs becomes the latter.
  - Only reads. A token with read permissions is enough; without one the zone's data are missing.
options:
  targets:
    description: >-
      What to probe; the one called V(edge) connects as a visitor does, those whose names start with V(origin)
      bypass the edge.
  url:
    description: The site's public URL.
    type: str
    required: true
  aliases:
    description: Further host names, which redirect to the site.
    type: list
    elements: str
    default: []
  websocket_path:
    description: Path under which sockets are served, with a slash at both ends.
    type: str
    required: true
  address:
    description: Address of the edge; empty to resolve the URL's host.
    type: str
    default: ""
  port:
    description: The edge's port.
    type: int
    default: 443
  ca_file:
    description: PEM file of the authorities to trust for the edge; empty for the system's.
    type: path
  api_token:
    description: Cloudflare API token; without one the zone is not read. It appears in no output.
    type: str
    default: ""
  api_base_url:
    description: URL of Cloudflare's API.
    type: str
    default: https://api.cloudflare.com/client/v4
  zone_id:
    description: Id of the zone, for a name that exists in several accounts.
    type: str
    default: ""
  zone:
    description: The zone's name.
    type: str
    default: ""
  timeout:
    description: Seconds for each query.
    type: float
    default: 5
  deadline:
    description: Seconds after which the module returns what it has.
    type: float
    default: 6
requirements:
  - cloudflare
  - websocket-client
extends_documentation_fragment: [screen_flow.live.probe, screen_flow.live.attributes.read_only]
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Collect evidence from outside
  screen_flow.live.site_evidence_edge:
    url: https://www.example.com
    websocket_path: /api/v1/cv-processing/ws/
    targets:
      - name: edge
        url: wss://www.example.com/api/v1/cv-processing/ws/site-check
    zone: example.com
    api_token: "{{ vault_cloudflare_zone_api_token }}"
  delegate_to: localhost
  register: edge
"""

RETURN = r"""
evidence:
  description: The part C(edge) of the evidence document. Each is a datum, whose value is described here.
  type: dict
  returned: always
  contains:
    resolved:
      description: The addresses that visitors connect to.
      type: list
    probes:
      description: Results of M(screen_flow.live.site_probe) by target.
      type: dict
    page:
      description: >-
        V(status), V(location), V(server), V(hsts), V(scripts) and those V(unread), whether it opens
        V(sockets) and V(reconnects), the V(insecure) URLs that start with ws://, whether V(rocket_loader)
        rewrote it, the V(date) header and when it was V(asked) for, in Unix seconds.
      type: dict
    aliases:
      description: >-
        By alias, V(status) and V(location) of the response to a GET, or null and an V(error), such as that of
        an invalid certificate.
      type: dict
    socket_path:
      description: V(status) and CF-Cache-Status (V(cache)) of a plain GET below the WebSocket path.
      type: dict
    token:
      description: Whether the token is V(ok), and its V(status) (active, expired, disabled, refused,
        unknown).
      type: dict
    settings:
      description: Value by setting, those that this project's rules set for the site's host included.
      type: dict
    dns:
      description: DNS records of the site's name and aliases, each with type, name, content and proxied.
      type: list
    rules:
      description: Rules by phase (cache, config, compression), as Cloudflare returns them.
      type: dict
    origin_pulls:
      description: Whether Authenticated Origin Pulls are on, V(zone) and V(global).
      type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.cloudflare.client import API_BASE_URL
from ..module_utils.cloudflare.module import require_sdk
from ..module_utils.evidence.edge import Options, gather_edge
from ..module_utils.probe.target import TARGET_SPEC, read_targets


def main() -> None:
    """Entry point: read the options, collect, return."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "aliases": {"type": "list", "elements": "str", "default": []},
            "websocket_path": {"type": "str", "required": True},
            "targets": {"type": "list", "elements": "dict", "required": True, "options": TARGET_SPEC},
            "address": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 443},
            "ca_file": {"type": "path"},
            "api_token": {"type": "str", "default": "", "no_log": True},
            "api_base_url": {"type": "str", "default": API_BASE_URL},
            "zone": {"type": "str", "default": ""},
            "zone_id": {"type": "str", "default": ""},
            "timeout": {"type": "float", "default": 5},
            "deadline": {"type": "float", "default": 6},
        },
        supports_check_mode=True,
    )
    require_sdk(module)
    given = module.params
    targets = read_targets(module, given["timeout"])
    options = Options(**{**given, "targets": targets, "ca_file": given["ca_file"] or None})
    # Threads that are still waiting end with the process.
    module.exit_json(changed=False, evidence=gather_edge(options))


if __name__ == "__main__":
    main()
