#!/usr/bin/python
"""Ansible module: collect the evidence of the site on its server, all at once and within a deadline."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_evidence_server
short_description: Collect evidence of the site on its server
description:
  - Queries services, nginx, certificate, containers, Redis, worker, api, disks, firewall and logs, all at
    once.
  - Each datum is V({"value"&colon; ...}) or V({"missing"&colon; "why", "reason"&colon; "an enum"}); a query
    that hangs becomes the latter.
  - Changes nothing, except that one small CV, the canary, is uploaded by O(user_id), which only probes use.
options:
  targets:
    description: What to probe; the one called V(api) is also the socket that receives the canary.
  websocket_path:
    description: Path under which sockets are served, with a slash at both ends.
    type: str
    required: true
  user_id:
    description: User id that is reserved for probes.
    type: str
    default: site-check
  server_name:
    description: Host name that nginx serves.
    type: str
    required: true
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
  reference_backend:
    description: Whether the backend is the reference one, of whose inside more is known than the contract.
    type: bool
    default: true
  services:
    description: Services that the compose project has.
    type: list
    elements: str
    default: [api, worker, extractor, redis]
  control_time:
    description: The control node's clock, in Unix seconds.
    type: float
    required: true
  timeout:
    description: Seconds for each probe.
    type: float
    default: 5
  deadline:
    description: Seconds after which the module returns what it has.
    type: float
    default: 7
requirements:
  - psutil (Debian's python3-psutil)
  - websocket-client (Debian's python3-websocket)
extends_documentation_fragment: [screen_flow.live.probe, screen_flow.live.attributes.read_only]
author: screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Collect evidence on the server
  screen_flow.live.site_evidence_server:
    targets:
      - name: api
        url: ws://127.0.0.1:8000/api/v1/cv-processing/ws/site-check
        origin: https://www.example.com
    websocket_path: /api/v1/cv-processing/ws/
    server_name: www.example.com
    control_time: "{{ now(utc=true).timestamp() }}"
  register: server
"""

RETURN = r"""
evidence:
  description: The part C(server) of the evidence document. Each is a datum, whose value is described here.
  type: dict
  returned: always
  contains:
    clock:
      description: V(server) and V(control), the clocks of the server and of the control node, in Unix
        seconds.
      type: dict
    services:
      description: For nginx and docker, V(installed), V(active) and V(result), as systemd reports them.
      type: dict
    nginx_test:
      description: V(ok) of C(nginx -t), and its V(error) when it failed.
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
        V(workers), V(loaded) (when nginx last read its configuration, Unix seconds), the files V(changed)
        since, V(newest), the time of the newest of them or null, and V(refusal), nginx's message that it
        refused to load them, or empty.
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
        V(key_matches), V(fingerprint) (SHA-256), and V(served), the fingerprint of the certificate that nginx
        serves, or null.
      type: dict
    containers:
      description: >-
        By service, V(id), V(pid), V(image), V(state), V(health), V(health_output), V(redis_code) (the code
        with which Redis refused the health check, or null), V(exit_code), V(out_of_memory), V(restarts),
        V(started), V(finished), and the non-secret V(variables) of its environment.
      type: dict
    deploying:
      description: Command lines that are changing the compose project at this moment.
      type: list
    ready:
      description: >-
        Statuses of V(healthz) and V(readyz), null without a response; V(redis_code), the code of the Redis
        error that the latter reports, or null; V(sign_in), the state of the identity provider's key set
        (ok, stale or unavailable), or null; and V(storage), ok or, when uploads are refused, full, or null.
      type: dict
    upstream:
      description: >-
        Each V(server) that nginx passes sockets to, as its configuration names it, with the V(status) of
        C(GET /healthz) there, or null and the V(error).
      type: list
    refused:
      description: How many requests nginx refused within the last hour, by reason.
      type: dict
    probes:
      description: Results of M(screen_flow.live.site_probe) by target.
      type: dict
    redis:
      description: The reply to V(ping), its error V(code) (such as WRONGPASS, or null), V(write_code), with
        which a write was refused (OOM or MISCONF, or null), and fields of V(info). Null where O(services) has
        no V(redis).
      type: dict
    worker:
      description: Seconds since a worker was last V(seen), null for never, and how many jobs are V(waiting).
        Null without O(reference_backend).
      type: dict
    canary:
      description: >-
        Of an upload of the probe's user, the HTTP V(status) and the V(error), empty for none;
        V(received_ms) and V(processed_ms), when its first event and the one of its processed CV came over a
        socket of the api, or null; V(done_unreported), whether the api reports it as processed although that
        event did not come, and then, with the project's own Redis, the channels V(published_on) and
        V(subscribed_to).
      type: dict
    disk:
      description: Of each file system V(path), V(size) and V(free) in bytes, and V(inodes_free), a share.
      type: list
    files:
      description: Of nginx's fullest worker and of the api, V(open) files and their V(limit).
      type: dict
    limits:
      description: Whether the kernel enforces limits of V(memory) and V(pids) on containers.
      type: dict
    reboot:
      description: >-
        Whether packages made a reboot V(required), these V(packages), the V(running) kernel and the V(newest)
        installed one, empty in a container.
      type: dict
    firewall:
      description: The kernel's rules, as C(nft --json list ruleset) prints them.
      type: dict
    nginx_log:
      description: Last V(lines) of the error log, redacted, and its V(age) in seconds.
      type: dict
    app_logs:
      description: >-
        By service, the last V(lines) of its log, redacted, and V(redis_code), the code with which Redis
        refused it by the newest of them, or null.
      type: dict
    sockets:
      description: Connections that the api's container has on its port and its unix socket.
      type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.evidence import host, nginx
from ..module_utils.evidence.canary import Sender
from ..module_utils.evidence.certificate import certificate
from ..module_utils.evidence.document import Datum
from ..module_utils.evidence.gather import Deadline, Once, gather_with_group
from ..module_utils.evidence.stack import MEMBERS, Project, ready, stack
from ..module_utils.probe.stages import probe_by_name
from ..module_utils.probe.target import TARGET_SPEC, Target, read_targets


def gather_server(given: dict[str, Any], targets: list[Target]) -> dict[str, Datum]:
    """Return the server's part of the evidence document; `given` are the module's options."""
    deadline = Deadline(given["deadline"])
    name, https_port, timeout = given["server_name"], given["https_port"], given["timeout"]
    api = next(target for target in targets if target.name == "api")
    project = Project(given["compose_dir"], given["services"], given["reference_backend"])
    sender = Sender(given["api_port"], api.origin or "", api.cookie or "", timeout)
    configuration = Once(lambda: nginx.read_configuration(name, given["websocket_path"]))
    return gather_with_group(
        {
            "clock": lambda: host.clock(given["control_time"]),
            "services": lambda: host.services(deadline),
            "nginx_test": lambda: nginx.test(deadline),
            "nginx_config": lambda: configuration().settings,
            "nginx_loaded": lambda: nginx.loaded(deadline),
            "listening": host.listening,
            "certificate": lambda: certificate(configuration, name, https_port, deadline),
            "stack": lambda: stack(project, api, sender, given["user_id"], deadline),
            "deploying": host.deploying,
            "ready": lambda: ready(given["api_port"], timeout),
            "upstream": lambda: nginx.upstream(configuration, timeout),
            "probes": lambda: probe_by_name(targets),
            "disk": host.disk,
            "limits": lambda: host.limits(deadline),
            "reboot": host.reboot,
            "files": lambda: nginx.files(configuration),
            "firewall": lambda: host.firewall(deadline),
            "nginx_log": nginx.log,
            "refused": nginx.refused,
            "addresses": lambda: host.addresses(deadline),
        },
        "stack",
        MEMBERS,
        deadline,
    )


def main() -> None:
    """Entry point: read the options, collect, return."""
    module = AnsibleModule(
        argument_spec={
            "targets": {"type": "list", "elements": "dict", "required": True, "options": TARGET_SPEC},
            "websocket_path": {"type": "str", "required": True},
            "user_id": {"type": "str", "default": "site-check"},
            "server_name": {"type": "str", "required": True},
            "api_port": {"type": "int", "default": 8000},
            "https_port": {"type": "int", "default": 443},
            "compose_dir": {"type": "path", "default": "/opt/screen-flow"},
            "reference_backend": {"type": "bool", "default": True},
            "services": {
                "type": "list",
                "elements": "str",
                "default": ["api", "worker", "extractor", "redis"],
            },
            "control_time": {"type": "float", "required": True},
            "timeout": {"type": "float", "default": 5},
            "deadline": {"type": "float", "default": 7},
        },
        supports_check_mode=True,
    )
    given = module.params
    targets = read_targets(module, given["timeout"])
    if "api" not in {target.name for target in targets}:
        module.fail_json(msg="targets has no target called api; add it: the canary is received there.")
    # Threads that are still waiting end with the process.
    module.exit_json(changed=False, evidence=gather_server(given, targets))


if __name__ == "__main__":
    main()
