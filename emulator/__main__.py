"""Run the emulator: `python -m emulator --help`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from emulator.api import Api
from emulator.certificates import EdgeTls
from emulator.control import application
from emulator.dns import HOSTNAME, record_for
from emulator.edge import Edge, Ports, Timing
from emulator.tokens import TOKEN
from emulator.zone import PLANS, SETTINGS, Value, Zone, ZoneDefaults

LEVELS = ("debug", "info", "warning", "error")

Type = Callable[[str], Any]


def zone_name(text: str) -> str:
    """Read a domain name, to lower case."""
    if not HOSTNAME.fullmatch(text.lower()) or "." not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no domain name, as example.com is")
    return text.lower()


def port(text: str) -> int:
    """Read a TCP port, 1 to 65535."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 1 to 65535")
    return int(text)


def seconds(text: str) -> float:
    """Read a time in seconds, more than 0 and less than a day."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value < 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give seconds, more than 0, less than a day")
    return value


def one_of(*words: str) -> Type:
    """Return a reader of one of the words."""

    def read(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(words)}")
        return text

    return read


def token_file(text: str) -> str:
    """Read the token from the file at `text`; a sentence that refuses it never shows it."""
    try:
        token = Path(text).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be read ({error}); name a readable file"
        ) from error
    if not TOKEN.fullmatch(token):
        raise argparse.ArgumentTypeError(
            f"{text!r} holds no token: at least 40 characters of A-Z a-z 0-9 _ - on one line"
        )
    return token


def origins(text: str) -> list[str]:
    """Read addresses or host names, separated by commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        try:
            record_for("example.com", name)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    return names


def ranges(text: str) -> list[str]:
    """Read networks in CIDR notation, separated by commas."""
    try:
        return [str(ipaddress.ip_network(cidr.strip())) for cidr in text.split(",") if cidr.strip()]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; give networks such as 192.0.2.0/24") from error


def settings(text: str) -> dict[str, Value]:
    """Read zone settings as name=value, separated by commas."""
    read: dict[str, Value] = {}
    for pair in filter(None, text.split(",")):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or name not in SETTINGS:
            raise argparse.ArgumentTypeError(
                f"{pair!r} is no setting; give name=value with one of {', '.join(SETTINGS)}"
            )
        numeric = not isinstance(SETTINGS[name].default, str)
        try:
            read[name] = float(value) if numeric else value
        except ValueError:
            read[name] = value
        if not SETTINGS[name].accepts(read[name]):
            raise argparse.ArgumentTypeError(f"{value!r} is no value of the setting {name}")
    return read


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, then the environment. Exits with a sentence on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m emulator",
        description="Cloudflare's API and edge for one zone, on this machine.",
        epilog="Each option can be an environment variable instead: --state-dir is EMULATOR_STATE_DIR.",
    )

    def option(name: str, kind: Type, text: str, default: str | None = None, **more: Any) -> None:
        variable = "EMULATOR_" + name.upper().replace("-", "_")
        value = os.environ.get(variable) or default
        suffix = f" (default {default})" if default else ""
        parser.add_argument(
            f"--{name}", type=kind, help=text + suffix, default=value, required=value is None, **more
        )

    option("zone", zone_name, "the zone's domain name")
    option("token-file", token_file, "file that holds the API token", metavar="FILE", dest="token")
    option("state-dir", Path, "folder that keeps the zone and the authorities' keys", metavar="DIR")
    option(
        "origin",
        origins,
        "where a fresh zone's name points: addresses or host names, by comma",
        "",
        metavar="HOST",
    )
    option("plan", one_of(*PLANS), f"a fresh zone's plan: {', '.join(PLANS)}", "free", metavar="PLAN")
    option("settings", settings, "a fresh zone's settings, name=value by comma", "", metavar="NAME=VALUE")
    option("listen", str, "address to listen on", "127.0.0.1", metavar="ADDRESS")
    option("api-port", port, "port of the API", "8480")
    option("https-port", port, "the edge's port for https", "8443")
    option("http-port", port, "the edge's port for http", "8080")
    option("public-https-port", port, "port that visitors use for https, in redirects", "443")
    option("public-http-port", port, "port that visitors use for http, in redirects", "80")
    option("origin-https-port", port, "the origin's port for https", "443")
    option("origin-http-port", port, "the origin's port for http", "80")
    option("idle-seconds", seconds, "silence after which the edge cuts a WebSocket", "100")
    option(
        "ip-ranges",
        ranges,
        "the networks that GET /ips lists, by comma (default the edge's own addresses)",
        "",
        metavar="CIDR",
    )
    option("log-level", one_of(*LEVELS), f"what is logged: {', '.join(LEVELS)}", "info", metavar="LEVEL")
    return parser.parse_args(arguments)


class Server(uvicorn.Server):
    """A server that leaves signals to us: the edge must end with it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


async def run(chosen: argparse.Namespace) -> None:
    """Serve API and edge until SIGTERM or SIGINT. Raises ValueError for state that can't be used, OSError."""
    chosen.state_dir.mkdir(parents=True, exist_ok=True)
    zone = Zone(
        chosen.state_dir / "zone.json", ZoneDefaults(chosen.zone, chosen.plan, chosen.settings, chosen.origin)
    )
    api = Api(zone, chosen.token, chosen.ip_ranges)
    ports = Ports(
        chosen.public_http_port, chosen.public_https_port, chosen.origin_http_port, chosen.origin_https_port
    )
    timing = Timing(idle_seconds=chosen.idle_seconds)
    edge = Edge(zone, EdgeTls(chosen.state_dir, zone.name), ports, timing, api.traffic.add)
    await edge.start(chosen.listen, chosen.https_port, chosen.http_port)
    config = uvicorn.Config(
        application(zone, api, edge),
        host=chosen.listen,
        port=chosen.api_port,
        http="h11",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    server = Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, setattr, server, "should_exit", True)
    try:
        await server.serve()
    finally:
        await edge.stop()


def main() -> None:
    """Entry point: exits with 2 and a sentence on bad input, with 1 when a port or folder can't be had."""
    chosen = options()
    logging.basicConfig(
        level=chosen.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        asyncio.run(run(chosen))
    except (ValueError, OSError) as error:
        sys.exit(f"emulator: {error}")


if __name__ == "__main__":
    main()
