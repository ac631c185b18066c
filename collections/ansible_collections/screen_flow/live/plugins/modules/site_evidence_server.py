#!/usr/bin/python
"""Ansible module: gather on the server what is to be known of the site, all at once and within a deadline."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_evidence_server
short_description: Gather evidence of the site on its server
description:
  - Asks services, nginx, certificate, containers, Redis, worker, api, disks, firewall and logs, all at once.
  - Each datum is V({"value"&colon; ...}) or V({"missing"&colon; "why"}); a question that hangs becomes the
    latter.
  - Changes nothing. One event, the canary, is published to the probe's own person, whom nobody else is.
options:
  websocket_path:
    description: Path under which sockets are served, with a slash at both ends.
    type: str
    required: true
  user_id:
    description: The probe's person.
    type: str
    default: site-check
  server_name:
    description: Host name that nginx serves.
    type: str
    required: true
  origin:
    description: Origin header of the probe.
    type: str
    required: true
  cookie:
    description: Cookie header of the probe, V(name=value). It appears in no output.
    type: str
    default: ""
  api_port:
    description: Port of the api on 127.0.0.1.
    type: int
    default: 8000
  https_port:
    description: Port of nginx for TLS.
    type: int
    default: 443
  compose_dir:
    description: Folder of the compose project.
    type: path
    default: /opt/screen-flow
  control_time:
    description: The control node's clock, in Unix seconds.
    type: float
    required: true
  timeout:
    description: Seconds for each probe.
    type: float
    default: 5
  deadline:
    description: Seconds after which the module answers with what it has.
    type: float
    default: 7
requirements:
  - websocket-client (Debian's python3-websocket)
extends_documentation_fragment:
  - screen_flow.live.probe
  - screen_flow.live.attributes.read_only
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Gather evidence on the server
  screen_flow.live.site_evidence_server:
    targets:
      - name: api
        url: ws://127.0.0.1:8000/api/v1/cv-processing/ws/site-check
    websocket_path: /api/v1/cv-processing/ws/
    server_name: www.example.com
    origin: https://www.example.com
    control_time: "{{ now(utc=true).timestamp() }}"
  register: evidence
"""

RETURN = r"""
evidence:
  description: The part C(server) of the evidence document. Each is a datum; its value is described.
  type: dict
  returned: always
  contains:
    clock:
      description: V(server) and V(control), Unix seconds at the module's run and at the control node before
        it.
      type: dict
    services:
      description: For nginx and docker, V(installed), V(active) and V(result) as systemd has them.
      type: dict
    nginx_test:
      description: V(ok) of C(nginx -t), and the lines that it V(says) when not.
      type: dict
    nginx_config:
      description: >-
        The configuration on disk, V(server_found), V(server_names), V(listen), V(upgrade_map) (its variable,
        or null), V(websocket_location) and V(root_location) (null, or path, proxy_pass, http_version,
        upgrade, connection, host, buffering, cache, read_timeout and send_timeout in seconds, inheritance
        resolved), V(upstreams) by name, V(certificate), V(certificate_key), V(client_certificate),
        V(verify_client) (V(off), V(optional) or V(required)), V(redirects_http), V(worker_connections).
      type: dict
    nginx_loaded:
      description: >-
        V(workers), V(loaded) (when nginx read its configuration last, Unix seconds), the files V(changed)
        since, and V(newest), the time of the newest file.
      type: dict
    listening:
      description: address:port of each listening TCP socket.
      type: list
    addresses:
      description: The server's own addresses.
      type: list
    certificate:
      description: >-
        V(file), V(not_before) and V(not_after) in Unix seconds, V(names), V(issuer), V(self_signed),
        V(key_fits), V(fingerprint) (SHA-256), and V(shown), the fingerprint of what nginx shows, or null.
      type: dict
    containers:
      description: >-
        By service, V(id), V(pid), V(image), V(state), V(health), V(health_says), V(exit_code),
        V(out_of_memory), V(restarts), V(started), V(finished), and of its environment
        V(variables) that are no secrets.
      type: dict
    deploying:
      description: Command lines that change the compose project at this moment.
      type: list
    ready:
      description: Status of V(healthz) and V(readyz), null without an answer, and what the latter V(says).
      type: dict
    upstream:
      description: >-
        Each V(server) that nginx passes sockets to, as its configuration names it, with the V(status) that it
        gives to C(GET /healthz), or null and the V(error).
      type: list
    refused:
      description: How many requests nginx turned away within the last hour, by reason.
      type: dict
    probes:
      description: Results of M(screen_flow.live.site_probe) by target.
      type: dict
    redis:
      description: The answer to V(ping), and chosen lines of V(info).
      type: dict
    worker:
      description: Seconds since a worker was V(seen), null for never, and how many jobs are V(waiting).
      type: dict
    canary:
      description: >-
        The channel that the worker V(published_on), the channels that the api V(listened_to), V(received_ms)
        or null, and the publisher's V(error).
      type: dict
    disk:
      description: Of each file system V(path), V(size) and V(free) in bytes, and V(inodes_free), a share.
      type: list
    files:
      description: Of nginx's fullest worker and of the api, V(open) files and their V(limit).
      type: dict
    firewall:
      description: The kernel's rules as C(nft --json list ruleset) has them.
      type: dict
    nginx_log:
      description: Last V(lines) of the error log, redacted, and its V(age) in seconds.
      type: dict
    app_logs:
      description: Last lines of each container's log, redacted.
      type: dict
    sockets:
      description: Connections that the api's container has on its port and its unix socket.
      type: int
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.evidence.server import Options, gather_server
from ..module_utils.probe.websocket import TARGET_SPEC


def main() -> None:
    """Entry point: read the parameters, gather, hand over."""
    module = AnsibleModule(
        argument_spec={
            "targets": {"type": "list", "elements": "dict", "required": True, "options": TARGET_SPEC},
            "websocket_path": {"type": "str", "required": True},
            "user_id": {"type": "str", "default": "site-check"},
            "server_name": {"type": "str", "required": True},
            "origin": {"type": "str", "required": True},
            "cookie": {"type": "str", "default": "", "no_log": True},
            "api_port": {"type": "int", "default": 8000},
            "https_port": {"type": "int", "default": 443},
            "compose_dir": {"type": "path", "default": "/opt/screen-flow"},
            "control_time": {"type": "float", "required": True},
            "timeout": {"type": "float", "default": 5},
            "deadline": {"type": "float", "default": 7},
        },
        supports_check_mode=True,
    )
    try:
        evidence = gather_server(Options(**module.params))
    except ValueError as error:
        module.fail_json(msg=str(error))
    # Threads that still wait for an answer die with the process.
    module.exit_json(changed=False, evidence=evidence)


if __name__ == "__main__":
    main()
