#!/usr/bin/python
"""Ansible module: probe WebSocket and HTTP endpoints at once, and report how far each connection gets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_probe
short_description: Report how far a connection to a WebSocket gets
description:
  - Connects as a browser's socket does, stage by stage. V(dns) resolves the name, V(tcp) connects, V(tls)
    does the handshake, V(http) requests the upgrade and expects 101, V(pong) sends V(ping) and expects
    V({"type":"pong"}).
  - All targets are probed at the same time, so one that hangs does not delay the others.
  - A target that does not answer is a result, not a failure of the task; check RV(ok) and RV(results).
  - Changes nothing, so check mode probes as well.
options:
  deadline:
    description: Seconds after which a target without a result has failed, whatever its own timeout.
    type: float
    default: 10
requirements:
  - websocket-client (Debian's python3-websocket) where a WebSocket URL is probed beyond V(tls)
extends_documentation_fragment: [screen_flow.live.probe, screen_flow.live.attributes.read_only]
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Probe the api and the nginx in front of it
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

- name: Probe whether the origin answers TLS
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
  description: Whether every target reached its last stage.
  type: bool
  returned: always
msg:
  description: One sentence for each target that failed.
  type: str
  returned: always
results:
  description: The results, in the order of O(targets).
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
      description: Whether the requested last stage was reached and passed.
      type: bool
    stage:
      description: The stage at which the probe ended; where RV(results[].ok) is false, the one that failed.
      type: str
    reason:
      description: >-
        Why that stage failed (V(no_address), V(refused), V(unreachable), V(ca_file), V(certificate),
        V(not_tls), V(tls), V(closed), V(not_http), V(status), V(timeout), V(no_library), V(internal)); empty
        on success.
      type: str
    error:
      description: The same as a sentence; empty on success.
      type: str
    status:
      description: The HTTP status, or null without a response.
      type: int
    server:
      description: The Server header of the response; empty without one.
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

from ..module_utils.probe.stages import can_upgrade, probe
from ..module_utils.probe.target import TARGET_SPEC, read_targets


def main() -> None:
    """Entry point: read the options, probe, return."""
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
        module.fail_json(msg=f"deadline is {deadline:g}; use a number above 0.")
    targets = read_targets(module, deadline)
    needs_library = any(target.is_websocket and target.until in ("http", "pong") for target in targets)
    # On a bare host, check mode goes as far as it can without the library.
    if needs_library and not can_upgrade() and not module.check_mode:
        module.fail_json(
            msg=f"websocket-client is missing for {sys.executable}: on a server, Debian's package "
            "is python3-websocket; ansible-playbook playbooks/origin.yml --tags site_check installs it."
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
