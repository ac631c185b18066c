#!/usr/bin/python
"""Ansible module: probe places that should answer a WebSocket, all at once, and say how far each one gets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_probe
short_description: Say how far a connection to a WebSocket gets
description:
  - Walks the way of a browser's socket, stage by stage. V(dns) finds the address, V(tcp) connects, V(tls)
    shakes hands, V(http) asks for the upgrade and wants 101, V(pong) sends V(ping) and wants
    V({"type":"pong"}).
  - All targets are probed at the same time, so one that hangs does not hold up the others.
  - A target that does not answer is a finding, not a failure of the task; read RV(ok) and RV(results).
  - Nothing is changed anywhere, so check mode probes as well.
options:
  deadline:
    description: Seconds after which a target without a result has failed, whatever its own timeout.
    type: float
    default: 10
requirements:
  - websocket-client (Debian's python3-websocket) where a WebSocket URL is probed beyond V(tls)
extends_documentation_fragment:
  - screen_flow.live.probe
  - screen_flow.live.attributes.read_only
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Probe the api and the nginx before it
  screen_flow.live.site_probe:
    targets:
      - name: api
        url: ws://127.0.0.1:8000/api/v1/cv-processing/ws/site-check
      - name: nginx
        url: wss://www.example.com/api/v1/cv-processing/ws/site-check
        address: 127.0.0.1
        verify: false
  register: probe
  failed_when: not probe.ok

- name: Ask whether the origin answers TLS
  screen_flow.live.site_probe:
    targets:
      - name: nginx
        url: https://www.example.com/
        address: 203.0.113.7
        until: tls
        verify: false
  register: origin
"""

RETURN = r"""
ok:
  description: Whether every target got to its last stage.
  type: bool
  returned: always
msg:
  description: One sentence for each target that failed.
  type: str
  returned: always
results:
  description: What was found, in the order of O(targets).
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The target's name.
      type: str
    url:
      description: The target's URL.
      type: str
    address:
      description: The address and port that were connected to, or tried last; empty before that.
      type: str
    ok:
      description: Whether the last stage asked for was reached and passed.
      type: bool
    stage:
      description: The stage at which the probe ended; where RV(results[].ok) is false, the one that failed.
      type: str
    error:
      description: What was seen at that stage, in one sentence; empty when all went well.
      type: str
    status:
      description: The HTTP status, or null when none came.
      type: int
    server:
      description: The Server header, which tells who answered; empty when there was none.
      type: str
    close_code:
      description: The WebSocket close code that the server sent, or null.
      type: int
    handshake_ms:
      description: Milliseconds from the start of the connection to the HTTP answer, or null.
      type: float
    pong_ms:
      description: Milliseconds from ping to pong, or null.
      type: float
"""

import sys
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.probe.websocket import TARGET_SPEC, can_upgrade, probe, read_target


def main() -> None:
    """Entry point: read the parameters, probe, report."""
    module = AnsibleModule(
        argument_spec={
            "targets": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": TARGET_SPEC,
            },
            "deadline": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    deadline = module.params["deadline"]
    if deadline <= 0:
        module.fail_json(msg=f"deadline is {deadline:g}; give seconds above 0.")
    try:
        targets = [read_target(values, deadline) for values in module.params["targets"]]
    except ValueError as error:
        module.fail_json(msg=str(error))
    needs_library = any(target.is_websocket and target.until in ("http", "pong") for target in targets)
    # A dry run of a bare host goes as far as it can without.
    if needs_library and not can_upgrade() and not module.check_mode:
        module.fail_json(
            msg=f"websocket-client is missing for {sys.executable}: on a server, Debian's package "
            "is python3-websocket, and ansible-playbook playbooks/origin.yml --tags site_check installs it."
        )
    results = probe(targets)
    module.exit_json(
        changed=False,
        ok=all(result.ok for result in results),
        msg=" ".join(f"{result.name}: {result.error}" for result in results if not result.ok),
        results=[asdict(result) for result in results],
    )


if __name__ == "__main__":
    main()
