"""The address ranges that GET /ips lists: those that the edge connects from, unless a test says others."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

from emulator.common import Call, Route, needs
from emulator.dns import Records

# Documentation addresses: asking for the way there sends nothing.
ANYWHERE = ("192.0.2.1", "2001:db8::1")


class Ranges:
    """The ranges with their etag."""

    def __init__(self, records: Records, fixed: Sequence[str] = ()) -> None:
        """List `fixed`, or where it is empty the edge's own addresses."""
        self._records = records
        self._initial = self._fixed = [str(ipaddress.ip_network(cidr)) for cidr in fixed]

    def put(self, wanted: object) -> None:
        """List these networks; none: the edge's own addresses. Raises ValueError and changes nothing."""
        if not isinstance(wanted, list) or not all(isinstance(cidr, str) for cidr in wanted):
            raise ValueError(f"ranges are a list of networks such as 192.0.2.0/24, not {wanted!r}")
        self._fixed = [str(ipaddress.ip_network(cidr)) for cidr in wanted]

    def reset(self) -> None:
        """Return to the ranges of the start."""
        self._fixed = self._initial

    @property
    def all(self) -> list[str]:
        """The networks in CIDR notation."""
        if self._fixed:
            return list(self._fixed)
        towards = [record["content"] for record in self._records.all if record["type"] in ("A", "AAAA")]
        own = {address for target in (*ANYWHERE, *towards) if (address := _source(target))}
        return sorted(str(ipaddress.ip_network(address)) for address in own)

    def routes(self) -> list[Route]:
        """Return the one route, open to everybody."""
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
    """Return the address from which this machine reaches another one; None without a way there."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None
