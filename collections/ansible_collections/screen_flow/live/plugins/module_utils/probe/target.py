"""A target of the probes: the options of the modules that take some, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule

STAGES = ("dns", "tcp", "tls", "http", "pong")
PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}

# Argument spec of a target; the doc fragment `probe` documents it.
TARGET_SPEC: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "url": {"type": "str", "required": True},
    "address": {"type": "str"},
    "port": {"type": "int"},
    "until": {"type": "str", "choices": list(STAGES)},
    "verify": {"type": "bool", "default": True},
    "ca_file": {"type": "path"},
    "origin": {"type": "str"},
    "cookie": {"type": "str", "no_log": True},
    "healthy_close_codes": {"type": "list", "elements": "int", "default": []},
    "timeout": {"type": "float", "default": 5},
}


@dataclass(frozen=True)
class Target:
    """One endpoint to probe: the module's suboptions, with what the URL implies filled in.

    `limit` is in seconds from the start of the probe.
    """

    name: str
    url: str
    secure: bool
    is_websocket: bool
    host: str
    address: str
    port: int
    until: str
    verify: bool
    ca_file: str | None
    origin: str | None
    cookie: str | None
    healthy_close_codes: tuple[int, ...]
    limit: float


def read_target(values: dict[str, Any], deadline: float) -> Target:
    """Return the target that the module's parameters describe.

    Raises ValueError with a sentence that names the input, its value and the remedy.
    """
    name, url = values["name"], values["url"]
    for key in ("url", "origin", "cookie"):
        text = values[key] or ""
        if any(ord(character) < 32 or ord(character) == 127 for character in text) or (
            key == "url" and " " in text
        ):
            raise ValueError(
                f"{key} of target '{name}' contains a line break or a control character; use one line."
            )
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"url of target '{name}' is '{url}': {error}; use a complete URL.") from error
    if scheme not in PORTS or not host:
        raise ValueError(
            f"url of target '{name}' is '{url}'; use one that starts with ws://, wss://, http:// or "
            "https:// and has a host."
        )
    secure, is_websocket = scheme in ("wss", "https"), scheme in ("ws", "wss")
    until = values["until"] or ("pong" if is_websocket else "http")
    if until == "tls" and not secure:
        raise ValueError(
            f"until of target '{name}' is tls, but '{url}' has no TLS; use a wss:// or https:// URL."
        )
    if until == "pong" and not is_websocket:
        raise ValueError(
            f"until of target '{name}' is pong, but '{url}' is not a WebSocket URL; use ws:// or wss://."
        )
    if values["port"] is not None:
        port = values["port"]
        if not 0 < port < 65536:
            raise ValueError(f"port of target '{name}' is {port}; use a port from 1 to 65535.")
    if values["timeout"] <= 0:
        raise ValueError(f"timeout of target '{name}' is {values['timeout']:g}; use a number above 0.")
    return Target(
        name=name,
        url=url,
        secure=secure,
        is_websocket=is_websocket,
        host=host,
        address=values["address"] or host,
        port=port or PORTS[scheme],
        until=until,
        verify=values["verify"],
        ca_file=values["ca_file"],
        origin=values["origin"],
        cookie=values["cookie"],
        healthy_close_codes=tuple(values["healthy_close_codes"]),
        limit=min(values["timeout"], deadline),
    )


def read_targets(module: AnsibleModule, deadline: float) -> list[Target]:
    """Return the targets that the module's option `targets` describes; fail the module on invalid ones."""
    try:
        return [read_target(values, deadline) for values in module.params["targets"]]
    except ValueError as error:
        module.fail_json(msg=str(error))
        raise
