#!/usr/bin/python
"""Ansible module: make one verdict of what site_probe found at each layer, for people and for machines."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_report
short_description: Name the first layer that fails, and the remedy
description:
  - Takes what M(site_probe) found, from the inside of the site out, and fails when a layer failed. The
    message names the first one, because those further out lead through it.
  - In check mode nothing fails and no file is written; RV(table) says how far the site is.
options:
  site:
    description: The site's URL.
    type: str
    required: true
  server:
    description: The server that was probed.
    type: str
    required: true
  layers:
    description: Results of M(site_probe), from the inside out. A name's first word is its layer.
    type: list
    elements: dict
    required: true
  note:
    description: A sentence for the reader, such as why there was no session. Empty for none.
    type: str
    default: ""
  path:
    description: Where to write the verdict as JSON. Its folder must exist. Empty for nowhere.
    type: path
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
    details: The file is a record of this run, not a part of the site, so writing it is no change.
author:
  - the screen-flow developers
"""

EXAMPLES = r"""
- name: Name the first layer that fails
  site_report:
    site: https://www.example.com
    server: "{{ inventory_hostname }}"
    layers: "{{ server_probe.results + edge_probe.results }}"
    path: /var/tmp/site_check.json
  delegate_to: localhost
"""

RETURN = r"""
table:
  description: The table for people, of several lines. When nothing failed the verdict stands below it.
  type: str
  returned: always
"""

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

Layer = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """What to do when `layer` fails at `stage`; `codes` narrows it to HTTP statuses or close codes."""

    layer: str
    stage: str
    codes: tuple[int | None, ...]
    remedy: str


NGINX_AGAIN = "ansible-playbook site.yml --tags nginx writes the whole configuration anew."
EDGE_AGAIN = "ansible-playbook playbooks/edge.yml sets the zone."
API_LOG = "In the compose project's folder on the server, docker compose logs api says why."
# The first that fits counts; no codes: any.
RULES = (
    Rule("api", "tcp", (), f"{API_LOG} docker compose up --wait starts it."),
    Rule("api", "http", (None,), f"The api hangs. {API_LOG} docker compose restart api helps for now."),
    Rule("api", "http", (401,), "Give a session that the api accepts in site_check_session."),
    Rule("api", "http", (403,), "site_check_origin must be one of app_stack_allowed_origins."),
    Rule("api", "http", (404,), "site_check_websocket_path must be the path that the api serves."),
    Rule("api", "pong", (4401,), "Give a session that the api accepts in site_check_session."),
    Rule(
        "api",
        "pong",
        (4403,),
        "site_check_origin must be one of app_stack_allowed_origins, and site_check_user_id whom the session "
        "is for.",
    ),
    Rule("api", "*", (), API_LOG),
    Rule("nginx", "tcp", (), f"On the server, systemctl status nginx and nginx -t say why. {NGINX_AGAIN}"),
    Rule(
        "nginx",
        "tls",
        (),
        "ansible-playbook site.yml --tags origin_certificate,nginx gives it a certificate.",
    ),
    Rule(
        "nginx",
        "http",
        (502, 503, 504),
        f"nginx does not reach the api: nginx_upstream_servers must name the api's port. {NGINX_AGAIN}",
    ),
    Rule(
        "nginx",
        "http",
        (),
        f"The upgrade is lost in nginx: it needs the upgrade map and the WebSocket location. {NGINX_AGAIN}",
    ),
    Rule("nginx", "*", (), f"The WebSocket location must not buffer and must not time out. {NGINX_AGAIN}"),
    Rule("edge", "dns", (), f"The site's name needs a DNS record at Cloudflare. {EDGE_AGAIN}"),
    Rule("edge", "tcp", (), "The name must lead to Cloudflare, and this machine must get there."),
    Rule("edge", "tls", (), "The record must be proxied and the zone's edge certificate active."),
    Rule(
        "edge",
        "http",
        (520, 521, 522, 523, 524),
        "Cloudflare does not reach the server: its firewall must admit Cloudflare on 443, and the DNS record "
        "must hold the server's address.",
    ),
    Rule(
        "edge",
        "http",
        (525,),
        "SSL mode Full needs an origin that answers TLS on 443: ansible-playbook site.yml "
        "--tags origin_certificate,nginx.",
    ),
    Rule(
        "edge",
        "http",
        (526,),
        "SSL mode Full (strict) needs a certificate for the site's name from a public authority or Origin "
        "CA; Full takes any.",
    ),
    Rule("edge", "http", (), f"WebSockets may be off, or a rule stops the upgrade. {EDGE_AGAIN}"),
    Rule("edge", "*", (), f"nginx answers, so a setting of the zone cuts the socket. {EDGE_AGAIN}"),
)


def find_remedy(layer: Layer) -> str:
    """Return the remedy for a layer that failed; empty when no rule knows its name."""
    code = layer["close_code"] if layer["stage"] == "pong" else layer["status"]
    for rule in RULES:
        if (
            rule.layer == layer["name"].split()[0]
            and rule.stage in ("*", layer["stage"])
            and (not rule.codes or code in rule.codes)
        ):
            return rule.remedy
    return ""


def judge(layers: list[Layer], note: str) -> dict[str, Any]:
    """Return `ok`; the first failed `layer`, its `cause` and `remedy`; `also`, the others; and the `note`."""
    failed = [layer for layer in layers if not layer["ok"]]
    return {
        "ok": not failed,
        "layer": failed[0]["name"] if failed else None,
        "cause": failed[0]["error"] if failed else None,
        "remedy": find_remedy(failed[0]) if failed else None,
        "also": [layer["name"] for layer in failed[1:]],
        "note": note or None,
    }


def say(verdict: dict[str, Any]) -> list[str]:
    """Return a verdict as sentences: what, the remedy, what else, the note."""
    sentences = ["Every layer answers."]
    if not verdict["ok"]:
        sentences = [
            f"The first layer that fails is {verdict['layer']}: {verdict['cause']}",
            verdict["remedy"],
        ]
    if verdict["also"]:
        sentences.append(f"Failing as well, which this may explain: {', '.join(verdict['also'])}.")
    return [sentence for sentence in (*sentences, verdict["note"]) if sentence]


def draw(layers: list[Layer]) -> str:
    """Return an aligned table of the layers, one line each under a heading."""

    def milliseconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f} ms"

    rows = [("layer", "result", "HTTP", "handshake", "ping-pong", "connected to")]
    for layer in layers:
        closed = f", closed {layer['close_code']}" if layer["close_code"] is not None else ""
        rows.append(
            (
                layer["name"],
                ("ok" if layer["ok"] else f"fails at {layer['stage']}") + closed,
                str(layer["status"] or "-"),
                milliseconds(layer["handshake_ms"]),
                milliseconds(layer["pong_ms"]),
                layer["address"] or "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    numbers = (2, 3, 4)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def main() -> None:
    """Entry point: judge, write, say."""
    module = AnsibleModule(
        argument_spec={
            "site": {"type": "str", "required": True},
            "server": {"type": "str", "required": True},
            "layers": {"type": "list", "elements": "dict", "required": True},
            "note": {"type": "str", "default": ""},
            "path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    layers, path = module.params["layers"], module.params["path"]
    verdict = judge(layers, module.params["note"])
    table, sentences = draw(layers), say(verdict)
    if path and not module.check_mode:
        record = {
            "site": module.params["site"],
            "server": module.params["server"],
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **verdict,
            "layers": layers,
        }
        try:
            Path(path).write_text(json.dumps(record, indent=2) + "\n")
        except OSError as error:
            module.fail_json(
                msg=f"path is '{path}', which can't be written ({error.strerror}): give a file in a folder "
                f"that exists. The verdict is: {' '.join(sentences)}",
                table=table,
            )
    if not verdict["ok"] and not module.check_mode:
        module.fail_json(msg=" ".join(sentences), table=table)
    if not verdict["ok"]:
        sentences = ["In a dry run this is no failure.", *sentences]
    module.exit_json(changed=False, table="\n".join([table, "", *sentences]))


if __name__ == "__main__":
    main()
