"""The networks in GET /ips: the addresses that the edge connects from, unless others are configured."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

from emulator.common import Call, Route, needs
from emulator.dns import Records

# Documentation addresses: connecting a UDP socket to them finds the route and sends nothing.
ROUTE_TARGETS = ("192.0.2.1", "2001:db8::1")


class Ranges:
    """The networks in GET /ips, with their etag."""

    def __init__(self, records: Records, fixed: Sequence[str] = ()) -> None:
        """Use the networks `fixed` (CIDR), or the edge's own addresses if it is empty. Raises ValueError."""
        self._records = records
        self._initial = self._fixed = [str(ipaddress.ip_network(cidr)) for cidr in fixed]

    def put(self, wanted: object) -> None:
        """Use these networks; [] for the edge's own addresses. Raises ValueError, without a change."""
        if not isinstance(wanted, list) or not all(isinstance(cidr, str) for cidr in wanted):
            raise ValueError(f"ranges must be a list of networks such as 192.0.2.0/24, not {wanted!r}")
        self._fixed = [str(ipaddress.ip_network(cidr)) for cidr in wanted]

    def reset(self) -> None:
        """Restore the initial networks."""
        self._fixed = self._initial

    @property
    def all(self) -> list[str]:
        """The networks in CIDR notation."""
        if self._fixed:
            return list(self._fixed)
        towards = [record["content"] for record in self._records.all if record["type"] in ("A", "AAAA")]
        own = {address for target in (*ROUTE_TARGETS, *towards) if (address := _source(target))}
        return sorted(str(ipaddress.ip_network(address)) for address in own)

    def routes(self) -> list[Route]:
        """Return the route, which needs no token."""
        return [Route("/ips", needs(), {"GET": self._list}, "ips")]

    def _list(self, call: Call) -> dict[str, Any]:
        ranges = self.all
        return {
            "result": {
                "ipv4_cidrs": [cidr for cidr in ranges if ":" not in cidr],
                "ipv6_cidrs": [cidr for cidr in ranges if ":" in cidr],
                "etag": hashlib.sha256("\n".join(ranges).encode()).hexdigest()[:32],
            }
        }


def _source(target: str) -> str | None:
    """Return the local address that packets to `target` would have; None without a route."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None
