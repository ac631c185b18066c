#!/usr/bin/python
"""Ansible module: gather from outside what is to be known of the site, all at once and within a deadline."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_evidence_edge
short_description: Gather evidence of the site from outside
description:
  - Asks DNS, the edge, the page with its scripts, the origin's address, and Cloudflare's API, all at once.
  - Each datum is V({"value"&colon; ...}) or V({"missing"&colon; "why"}); a question that hangs becomes the
    latter.
  - O(targets) has one called V(edge), the way of a visitor; those whose names begin with V(origin) go past
    the edge.
  - Only reads. A token that may read is enough; without one the zone's data are missing.
options:
  url:
    description: The site's public URL.
    type: str
    required: true
  websocket_path:
    description: Path under which sockets are served, with a slash at both ends.
    type: str
    required: true
  address:
    description: Where the edge is; empty asks DNS.
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
    description: Cloudflare API token; empty leaves the zone unasked. It appears in no output.
    type: str
    default: ""
  api_base_url:
    description: Where Cloudflare's API is.
    type: str
    default: https://api.cloudflare.com/client/v4
  zone:
    description: The zone's name.
    type: str
    default: ""
  timeout:
    description: Seconds for each question.
    type: float
    default: 5
  deadline:
    description: Seconds after which the module answers with what it has.
    type: float
    default: 6
requirements:
  - cloudflare
  - websocket-client
extends_documentation_fragment:
  - screen_flow.live.probe
  - screen_flow.live.attributes.read_only
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Gather evidence from outside
  screen_flow.live.site_evidence_edge:
    url: https://www.example.com
    websocket_path: /api/v1/cv-processing/ws/
    targets:
      - name: edge
        url: wss://www.example.com/api/v1/cv-processing/ws/site-check
    zone: example.com
    api_token: "{{ vault_cloudflare_zone_api_token }}"
  delegate_to: localhost
  register: evidence
"""

RETURN = r"""
evidence:
  description: The part C(edge) of the evidence document. Each is a datum; its value is described.
  type: dict
  returned: always
  contains:
    resolved:
      description: The addresses that visitors are led to.
      type: list
    probes:
      description: Results of M(screen_flow.live.site_probe) by target.
      type: dict
    page:
      description: >-
        V(status), V(location), V(server), V(hsts), V(scripts) and those V(unread), whether it opens
        V(sockets), the addresses V(insecure) that begin with ws://, whether V(rocket_loader) rewrote it, the
        V(date) that the origin says and when it was V(asked), in Unix seconds.
      type: dict
    socket_path:
      description: V(status) and CF-Cache-Status (V(cache)) of a plain GET below the WebSocket path.
      type: dict
    token:
      description: Whether the token is V(ok), its V(status) (active, expired, disabled, refused, unknown),
        and why.
      type: dict
    settings:
      description: Value by setting of the zone.
      type: dict
    dns:
      description: Records of the site's name, each with type, name, content and proxied.
      type: list
    rules:
      description: Rules by phase (cache, config, compression), as Cloudflare has them.
      type: dict
    origin_pulls:
      description: Whether Authenticated Origin Pulls are on, V(zone) and V(global).
      type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.cloudflare.client import API_BASE_URL
from ..module_utils.cloudflare.module import require_sdk
from ..module_utils.evidence.edge import Options, gather_edge
from ..module_utils.probe.websocket import TARGET_SPEC


def main() -> None:
    """Entry point: read the parameters, gather, hand over."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "websocket_path": {"type": "str", "required": True},
            "targets": {"type": "list", "elements": "dict", "required": True, "options": TARGET_SPEC},
            "address": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 443},
            "ca_file": {"type": "path"},
            "api_token": {"type": "str", "default": "", "no_log": True},
            "api_base_url": {"type": "str", "default": API_BASE_URL},
            "zone": {"type": "str", "default": ""},
            "timeout": {"type": "float", "default": 5},
            "deadline": {"type": "float", "default": 6},
        },
        supports_check_mode=True,
    )
    require_sdk(module)
    try:
        evidence = gather_edge(Options(**{**module.params, "ca_file": module.params["ca_file"] or None}))
    except ValueError as error:
        module.fail_json(msg=str(error))
    # Threads that still wait for an answer die with the process.
    module.exit_json(changed=False, evidence=evidence)


if __name__ == "__main__":
    main()
