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
    """Parse a domain name; returns it in lower case."""
    if not HOSTNAME.fullmatch(text.lower()) or "." not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a domain name such as example.com")
    return text.lower()


def port(text: str) -> int:
    """Parse a TCP port, 1 to 65535."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: use a number from 1 to 65535")
    return int(text)


def seconds(text: str) -> float:
    """Parse a duration in seconds, more than 0 and less than a day."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value < 86400:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a duration: use seconds, more than 0 and less than 86400"
        )
    return value


def one_of(*words: str) -> Type:
    """Return a parser that accepts one of the words."""

    def parse(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(words)}")
        return text

    return parse


def token_file(text: str) -> str:
    """Read the API token from the file at `text`; error messages never contain it."""
    try:
        token = Path(text).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be read ({error}): name a readable file"
        ) from error
    if not TOKEN.fullmatch(token):
        raise argparse.ArgumentTypeError(
            f"{text!r} does not hold a token: 40 or more characters of A-Z a-z 0-9 _ - on one line"
        )
    return token


def origins(text: str) -> list[str]:
    """Parse IP addresses and host names, separated by commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        try:
            record_for("example.com", name)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    return names


def ranges(text: str) -> list[str]:
    """Parse networks in CIDR notation, separated by commas."""
    try:
        return [str(ipaddress.ip_network(cidr.strip())) for cidr in text.split(",") if cidr.strip()]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}: use networks such as 192.0.2.0/24") from error


def settings(text: str) -> dict[str, Value]:
    """Parse zone settings, name=value separated by commas."""
    parsed: dict[str, Value] = {}
    for pair in filter(None, text.split(",")):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or name not in SETTINGS:
            raise argparse.ArgumentTypeError(
                f"{pair!r} is not a setting: use name=value with one of {', '.join(SETTINGS)}"
            )
        numeric = not isinstance(SETTINGS[name].default, str)
        try:
            parsed[name] = float(value) if numeric else value
        except ValueError:
            parsed[name] = value
        if not SETTINGS[name].accepts(parsed[name]):
            raise argparse.ArgumentTypeError(f"{value!r} is not a valid value for the setting {name}")
    return parsed


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line, with the environment for options not given. Exits with 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m emulator",
        description="Emulate Cloudflare's API and edge for one zone.",
        epilog="Each option can also be given as an environment variable: --state-dir is EMULATOR_STATE_DIR.",
    )

    def option(
        name: str, kind: Type, text: str, default: str = "", *, required: bool = False, **more: Any
    ) -> None:
        variable = "EMULATOR_" + name.upper().replace("-", "_")
        value = os.environ.get(variable) or default
        suffix = f" (default {default})" if default else ""
        parser.add_argument(
            f"--{name}", type=kind, help=text + suffix, default=value, required=required and not value, **more
        )

    option("zone", zone_name, "the zone's domain name", required=True)
    option("token-file", token_file, "file with the API token", required=True, metavar="FILE", dest="token")
    option("state-dir", Path, "folder for state and authorities", required=True, metavar="DIR")
    option("origin", origins, "a new zone's origins (addresses or names), comma-separated", metavar="HOST")
    option("plan", one_of(*PLANS), f"a new zone's plan: {', '.join(PLANS)}", "free", metavar="PLAN")
    option("settings", settings, "a new zone's settings, comma-separated", metavar="NAME=VALUE")
    option("listen", str, "address to listen on", "127.0.0.1", metavar="ADDRESS")
    option("api-port", port, "port of the API", "8480")
    option("https-port", port, "the edge's HTTPS port", "8443")
    option("http-port", port, "the edge's HTTP port", "8080")
    option("public-https-port", port, "the HTTPS port in redirects", "443")
    option("public-http-port", port, "the HTTP port in redirects", "80")
    option("origin-https-port", port, "the origin's HTTPS port", "443")
    option("origin-http-port", port, "the origin's HTTP port", "80")
    option("idle-seconds", seconds, "seconds without traffic after which the edge cuts a WebSocket", "100")
    option("ip-ranges", ranges, "networks in GET /ips (default the edge's own addresses)", metavar="CIDR")
    option("log-level", one_of(*LEVELS), f"log level: {', '.join(LEVELS)}", "info", metavar="LEVEL")
    return parser.parse_args(arguments)


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the caller, which also has to stop the edge."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield


async def run(chosen: argparse.Namespace) -> None:
    """Serve the API and the edge until SIGTERM or SIGINT. Raises OSError, ValueError for unusable state."""
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
    """Entry point: exits with 2 on bad input, with 1 when a port or folder cannot be used."""
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
