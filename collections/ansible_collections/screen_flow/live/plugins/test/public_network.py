"""Ansible test: whether a network can be a public edge's."""

from __future__ import annotations

DOCUMENTATION = r"""
name: public_network
short_description: Test whether a network is public
description:
  - True for an address or a network none of whose addresses is private, shared (C(100.64.0.0/10)), loopback,
    link-local, multicast or reserved.
options:
  _input:
    description: Address or network in CIDR notation.
    type: str
    required: true
author:
  - screen-flow developers (@screen-flow)
"""

EXAMPLES = r"""
- name: Check that the edge's networks are public
  ansible.builtin.assert:
    that: edge_ranges | reject('screen_flow.live.public_network') | length == 0
"""

RETURN = r"""
_value:
  description: Whether it is public.
  type: bool
  sample: true
"""

import ipaddress
from collections.abc import Callable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# IANA's special-purpose registries, without documentation addresses, which nobody can use. ::/8 has the
# unspecified, loopback and IPv4-mapped addresses.
NOT_PUBLIC: list[Network] = [
    *map(
        ipaddress.IPv4Network, ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16")
    ),
    *map(ipaddress.IPv4Network, ("172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3")),
    *map(ipaddress.IPv6Network, ("::/8", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8")),
]


def special(network: Network) -> Network | None:
    """Return the special-purpose network that `network` overlaps; None for a public one."""
    # Networks of the other version never overlap.
    return next((one for one in NOT_PUBLIC if one.version == network.version and one.overlaps(network)), None)


def public_network(network: str) -> bool:
    """Return whether a network in CIDR notation is public; raises ValueError for any other text."""
    return special(ipaddress.ip_network(network, strict=False)) is None


class TestModule:
    """Ansible's entry point."""

    def tests(self) -> dict[str, Callable[[str], bool]]:
        """Return the test by its name."""
        return {"public_network": public_network}
