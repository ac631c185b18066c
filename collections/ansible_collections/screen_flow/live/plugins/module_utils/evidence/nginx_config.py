"""Parse nginx's configuration files: blocks, directives, includes; and describe one site in them.

Reads the files rather than `nginx -T`, which prints nothing when one line is invalid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Comment, quoted string, one of ; { }, or a word, which may contain ${name}.
_TOKEN = re.compile(
    r"""\#[^\n]* | "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>(?:[^'\\]|\\.)*)'
      | (?P<sign>[;{}]) | (?P<word>(?:\$\{\w+\}|\\.|[^\s;{}"'#\\])(?:\$\{\w+\}|\\.|[^\s;{}\\])*)""",
    re.VERBOSE,
)
_UNITS = {
    "ms": 0.001,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
    "M": 2592000,
    "y": 31536000,
    "": 1,
}


@dataclass
class Directive:
    """One directive: its name, its arguments and, for a block, the directives in it."""

    name: str
    arguments: list[str]
    block: list[Directive] = field(default_factory=list)

    def all(self, name: str) -> list[Directive]:
        """Return the directives of that name in the block."""
        return [directive for directive in self.block if directive.name == name]

    def first(self, name: str) -> Directive | None:
        """Return the first directive of that name in the block, or None."""
        return next(iter(self.all(name)), None)


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each token, and whether it is one of ; { }."""
    for match in _TOKEN.finditer(text):
        if match["sign"]:
            yield match["sign"], True
        elif match["word"] is not None:
            yield match["word"], False
        elif not match[0].startswith("#"):
            yield (match["double"] if match["double"] is not None else match["single"]), False


def parse(text: str, include: Callable[[str], list[Directive]]) -> list[Directive]:
    """Return the directives in `text`; `include` returns those of each include's pattern.

    Raises ValueError when braces or semicolons do not match.
    """
    stack: list[list[Directive]] = [[]]
    words: list[str] = []
    for word, is_sign in _tokens(text):
        if not is_sign:
            words.append(word)
        elif word == "}":
            if words or len(stack) == 1:
                raise ValueError("unexpected }")
            stack.pop()
        elif not words:
            raise ValueError(f"unexpected {word}")
        else:
            directive, words = Directive(words[0], words[1:]), []
            if word == "{":
                stack[-1].append(directive)
                stack.append(directive.block)
            elif directive.name == "include":
                stack[-1].extend(include(directive.arguments[0]))
            else:
                stack[-1].append(directive)
    if words or len(stack) > 1:
        raise ValueError("unexpected end of file")
    return stack[0]


def read(path: Path) -> tuple[Directive, list[Path]]:
    """Return the configuration that starts at `path` as one block, and the files that it consists of.

    Raises OSError and ValueError.
    """
    files: list[Path] = []

    def load(file: Path) -> list[Directive]:
        files.append(file)
        try:
            return parse(file.read_text(errors="replace"), include)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None

    def include(pattern: str) -> list[Directive]:
        found = [path.parent / pattern] if not re.search(r"[*?\[]", pattern) else _glob(path.parent, pattern)
        return [directive for file in found for directive in load(file)]

    return Directive("main", [], load(path)), files


def _glob(folder: Path, pattern: str) -> list[Path]:
    base = Path("/") if pattern.startswith("/") else folder
    return sorted(base.glob(pattern.lstrip("/")))


def seconds(text: str) -> float | None:
    """Return a time such as 30s or 1h 30m in seconds, or None when it is not a time."""
    parts = re.findall(r"(\d+)(ms|[smhdwMy]?)", text)
    if "".join(number + unit for number, unit in parts) != text.replace(" ", ""):
        return None
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def inherited(blocks: list[Directive], name: str, default: str) -> str:
    """Return the arguments of `name` in the innermost of `blocks` (outermost first) that has it."""
    for block in reversed(blocks):
        if directive := block.first(name):
            return " ".join(directive.arguments)
    return default


def describe_location(path: str, blocks: list[Directive]) -> dict[str, Any]:
    """Return the proxy settings of a location; `blocks` are http, server and location."""
    # A level that sets any header inherits none.
    level = next((block for block in reversed(blocks) if block.first("proxy_set_header")), None)
    headers = (
        {d.arguments[0].lower(): d.arguments[-1] for d in level.all("proxy_set_header")} if level else {}
    )
    return {
        "path": path,
        "proxy_pass": inherited(blocks[-1:], "proxy_pass", ""),
        "http_version": inherited(blocks, "proxy_http_version", "1.0"),
        "upgrade": headers.get("upgrade", ""),
        "connection": headers.get("connection", "close"),
        "host": headers.get("host", "$proxy_host"),
        "buffering": inherited(blocks, "proxy_buffering", "on") != "off",
        "cache": inherited(blocks, "proxy_cache", "off") != "off",
        "read_timeout": seconds(inherited(blocks, "proxy_read_timeout", "60s")),
        "send_timeout": seconds(inherited(blocks, "proxy_send_timeout", "60s")),
    }


def client_verification(http: Directive, server: Directive) -> str:
    """Return whether the server verifies client certificates: off, optional or required.

    "optional" counts as required when an `if` on $ssl_client_verify, or on a map of it, rejects unverified
    clients.
    """
    verify = inherited([http, server], "ssl_verify_client", "off")
    if verify in ("on", "off"):
        return "required" if verify == "on" else "off"
    verdicts = {"$ssl_client_verify"}
    verdicts |= {each.arguments[-1] for each in http.all("map") if "$ssl_client_verify" in each.arguments[0]}
    refuses = any(
        verdict in " ".join(condition.arguments)
        and any(each.name == "return" and each.arguments[0].startswith("4") for each in condition.block)
        for condition in server.all("if")
        for verdict in verdicts
    )
    return "required" if refuses else "optional"


def describe(main: Directive, server_name: str, websocket_path: str) -> dict[str, Any]:
    """Return the settings of a site; site_evidence_server's RETURN describes them (nginx_config)."""
    http = main.first("http") or Directive("http", [])
    servers = http.all("server")

    def names(server: Directive) -> list[str]:
        return [name for directive in server.all("server_name") for name in directive.arguments]

    def listens(server: Directive) -> list[str]:
        return [" ".join(directive.arguments) for directive in server.all("listen")]

    # The named server with TLS comes first: one without may only redirect to it.
    named = [server for server in servers if server_name in names(server)]
    candidates = named or [server for server in servers if "_" in names(server)] or servers
    candidates.sort(key=lambda server: not any("ssl" in listen.split() for listen in listens(server)))
    server = candidates[0] if candidates else Directive("server", [])
    locations = {
        d.arguments[-1]: d for d in server.all("location") if d.arguments and "~" not in d.arguments[0][:1]
    }
    described = {
        path: describe_location(path, [http, server, location]) for path, location in locations.items()
    }
    events = main.first("events") or Directive("events", [])
    # Of the maps of that variable, the one for the header Connection has an entry with the value upgrade.
    upgrade_map = next(
        (
            each
            for each in http.all("map")
            if each.arguments[:1] == ["$http_upgrade"] and any(e.arguments == ["upgrade"] for e in each.block)
        ),
        None,
    )
    return {
        "server_found": bool(named) or any("_" in names(s) for s in servers),
        "server_names": sorted({name for s in candidates for name in names(s)}),
        "listen": sorted({listen for s in servers for listen in listens(s)}),
        "upgrade_map": upgrade_map.arguments[-1] if upgrade_map else None,
        "websocket_location": described.get(websocket_path),
        "root_location": described.get("/"),
        "upstreams": {
            d.arguments[0]: [s.arguments[0] for s in d.all("server")] for d in http.all("upstream")
        },
        "certificate": inherited([http, server], "ssl_certificate", ""),
        "certificate_key": inherited([http, server], "ssl_certificate_key", ""),
        "client_certificate": inherited([http, server], "ssl_client_certificate", ""),
        "verify_client": client_verification(http, server),
        "redirects_http": any(
            any(d.name == "return" and d.arguments[:1] in (["301"], ["302"], ["308"]) for d in s.block)
            for s in servers
            if not any("ssl" in listen.split() for listen in listens(s))
        ),
        "worker_connections": int(inherited([events], "worker_connections", "512")),
    }
